#pragma once

#include <runnel/aliyun/alink/sub_device.hpp>
#include <runnel/core/random.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::aliyun::alink {

/// A notice that a gateway's topology has changed.
struct topology_change {
    enum class kind : int { created = 0, deleted = 1, enabled = 2, disabled = 8 };
    kind what{};
    std::vector<device_id> devices{};
};

/// A gateway: a device over whose session sub-devices communicate.
///
///     alink::gateway gateway(session, identity);
///     alink::sub_device sensor(gateway, sensor_identity);   // has all that a device has
///     ... gateway.run(), sensor.run() ...
///     co_await gateway.add({&sensor_identity, 1});          // once: makes it known as this gateway's
///     co_await sensor.login();
///
/// `run` logs sub-devices in, several with one message, and again after each new connection. What a sub-device has been
/// told last counts (`sub_device_login`): as long as it is to be logged in, or out, and is not, `run` has it so. A
/// login that it had and cannot get back is told to `options::on_fault` at each failed attempt, on the topic of logins,
/// with the device's name in front of the detail.
template <counting_session Session>
class gateway : public detail::logins<Session> {
  public:
    using base = detail::logins<Session>;
    template <class T>
    using awaitable = typename base::template awaitable<T>;

    gateway(Session& session, aliyun::device const& who, alink::options o = {})
        : base(session, who, with_gateway(std::move(o))) {}

    /// As `device::run`, and keeps sub-devices logged in: throws what keeps it from doing so. There is one at a time,
    /// too: `std::logic_error`.
    awaitable<void> run() {
        typename base::runner const only(*this);
        finisher const at_end{this->changes_};  // which may be gone then
        auto running = base::run_handlers();
        auto keeping = this->keep_logged_in();
        co_await race(only.box->waiters, std::move(keeping), std::move(running));
    }

    // --- the topology

    /// Makes devices this gateway's sub-devices; needs their secrets. Completes with the platform's list of them.
    awaitable<json> add(std::span<aliyun::device const> sub_devices) {
        json params = json::array();
        for (auto const& d : sub_devices) params.push_back(make_proof(d, base::now(), "signmethod"));
        return this->template request<topic_kind::topology_add>(params);
    }
    /// The opposite, with which their logins end, too.
    awaitable<json> remove(std::span<device_id const> sub_devices) {
        std::vector<typename base::member> members;
        for (auto const& m : this->members_)
            if (std::ranges::find(sub_devices, id_of(m->who)) != sub_devices.end()) members.push_back(m);
        return removed(this->template request<topic_kind::topology_delete>(base::list(sub_devices)),
                       std::move(members));
    }
    /// The sub-devices.
    awaitable<std::vector<device_id>> topology() {
        return decoded<std::vector<device_id>>(this->template request<topic_kind::topology_get>(json::object()));
    }
    /// Handles changes of the topology: `awaitable<void>(topology_change)`.
    template <std::invocable<topology_change> Handler>
    void on_topology_change(Handler h) {
        auto const take = [](json const& params) {
            topology_change change;
            int status = 0;
            json const* const devices = find(params, "subList");
            if (devices == nullptr || !read_number(params, "status", status))
                base::refuse_unless_ok(errc::member_missing);
            else
                base::refuse_unless_ok(decode(*devices, change.devices));
            change.what = static_cast<topology_change::kind>(status);
            return change;
        };
        this->handlers().set(topic_kind::topology_change, {}, base::decoding(std::move(h), take));
    }

    /// Handles the platform's wish that devices be added: `awaitable<void>(std::vector<device_id>)`.
    template <std::invocable<std::vector<device_id>> Handler>
    void on_add_requested(Handler h) {
        auto const take = [](json const& params) {
            std::vector<device_id> devices;
            base::refuse_unless_ok(decode(params, devices));
            return devices;
        };
        this->handlers().set(topic_kind::topology_add_notice, {}, base::decoding(std::move(h), take));
    }

    // --- registration

    /// Registers devices, whose names the platform knows already, and completes with their secrets.
    awaitable<std::vector<aliyun::device>> register_devices(std::span<device_id const> sub_devices) {
        return decoded<std::vector<aliyun::device>>(
            this->template request<topic_kind::sub_device_register>(base::list(sub_devices)));
    }
    /// Registers devices by their product's secret; the platform need not know their names. Some may be refused while
    /// others are registered: both are in the result.
    awaitable<registrations> register_devices(aliyun::product const& of,
                                              std::span<std::string_view const> device_names) {
        json entries = json::array();
        for (auto const name : device_names)
            entries.push_back(make_registration(of, name, std::to_string(random_32())));
        json const params = {{"proxieds", entries}};
        return decoded<registrations>(this->template request<topic_kind::sub_device_product_register>(params));
    }
    /// Tells the platform of devices that were found, for its user to decide on.
    awaitable<json> report_found(std::span<device_id const> sub_devices) {
        return this->template request<topic_kind::sub_devices_found>(base::list(sub_devices));
    }

    // --- logging out

    /// Logs sub-devices out, and keeps them so, 50 with one message: decided when this is called, whatever is under
    /// way. The platform logs out all of these or none; after an error the later ones are still logged in there, and
    /// `run` goes on trying. Without a connection nobody is logged in, so that there is nothing to do.
    ///
    /// Throws the platform's refusal, and `errc::overtaken` if one has been told to log in before its turn came.
    awaitable<void> logout(std::span<device_id const> sub_devices) {
        std::vector<leaving> batches;
        for (std::size_t at = 0; at < sub_devices.size(); at += max_login_batch) {
            auto const some = sub_devices.subspan(at, (std::min)(max_login_batch, sub_devices.size() - at));
            leaving batch{{some.begin(), some.end()}};
            for (auto const& m : this->members_)
                if (std::ranges::find(some, id_of(m->who)) != some.end()) batch.members.emplace_back(*this, m);
            for (auto const& one : batch.members) this->want(*one.who, false);
            batches.push_back(std::move(batch));
        }
        return this->log_out_all(std::move(batches));
    }

  private:
    using typename base::finisher;
    using typename base::leaving;

    static alink::options with_gateway(alink::options o) {
        o.features = o.features | feature::gateway;
        return o;
    }

    awaitable<json> removed(awaitable<json> request, std::vector<typename base::member> members) {
        std::error_code error;
        json data;
        try {
            data = co_await std::move(request);
        } catch (std::system_error const& e) {
            error = e.code();
            if (base::answer_of(error) != detail::sub_device_login::answer::nothing) throw;
        }
        for (auto const& m : members) error ? this->doubt(*m) : this->ended(*m, errc::topology_missing);
        if (error) throw std::system_error(error);
        co_return std::move(data);
    }

    template <class T>
    awaitable<T> decoded(awaitable<json> request) {
        json const data = co_await std::move(request);
        T made;
        if (errc const e = decode(data, made); e != errc::ok) throw std::system_error(make_error_code(e));
        co_return made;
    }
};

}  // namespace runnel::aliyun::alink
