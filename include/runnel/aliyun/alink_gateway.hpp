#pragma once

#include <runnel/aliyun/alink_device.hpp>
#include <runnel/aliyun/alink_topology.hpp>
#include <runnel/core/random.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::aliyun::alink {

/// A session that tells of each new connection, on which sub-devices have to log in again.
template <class S>
concept counting_session = message_session<S> && requires(S& s, std::uint64_t after) {
    { s.counters().connections } -> std::convertible_to<std::uint64_t>;
    { s.connected(after) } -> std::same_as<asio::awaitable<std::uint64_t, typename S::executor_type>>;
};

/// A notice that a gateway's topology has changed.
struct topology_change {
    enum class kind : int { created = 0, deleted = 1, enabled = 2, disabled = 8 };
    kind what{};
    std::vector<device_id> devices;
};

template <counting_session Session>
class sub_device;

/// A gateway: a device over whose session sub-devices communicate.
///
///     alink::gateway gateway(session, identity);
///     alink::sub_device sensor(gateway, sensor_identity);   // has all that a device has
///     ... gateway.run(), sensor.run() ...
///     co_await gateway.add({&sensor_identity, 1});          // once: makes it known as this gateway's
///     co_await sensor.login();
///
/// `run` logs sub-devices in, several with one message, and again after each new connection.
template <counting_session Session>
class gateway : public device<Session> {
  public:
    using base = device<Session>;
    template <class T>
    using awaitable = typename base::template awaitable<T>;

    gateway(Session& session, aliyun::device const& who, alink::options o = {})
        : base(session, who, with_gateway(std::move(o))) {}

    /// As `device::run`, and keeps sub-devices logged in.
    awaitable<void> run() {
        task_group<typename base::executor_type> tasks(this->session().get_executor());
        tasks.start(keep_logged_in());
        finisher const at_end{changes_};  // which may be gone then
        auto running = base::run();
        co_await tasks.enclose(std::move(running));
    }

    // --- the topology

    /// Makes devices this gateway's sub-devices; needs their secrets. Completes with the platform's list of them.
    awaitable<json> add(std::span<aliyun::device const> sub_devices) {
        json params = json::array();
        for (auto const& d : sub_devices) params.push_back(make_proof(d, base::now(), "signmethod"));
        return this->template request<topic_kind::topology_add>(params);
    }
    awaitable<json> remove(std::span<device_id const> sub_devices) {
        return this->template request<topic_kind::topology_delete>(list(sub_devices));
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
            this->template request<topic_kind::sub_device_register>(list(sub_devices)));
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
        return this->template request<topic_kind::sub_devices_found>(list(sub_devices));
    }

    // --- logging out

    /// Logs sub-devices out, and keeps them so, 50 with one message. The platform logs out all of these or none; after
    /// an error the later ones are still logged in there.
    awaitable<void> logout(std::span<device_id const> sub_devices) {
        std::vector<json> batches;
        for (std::size_t at = 0; at < sub_devices.size(); at += max_login_batch)
            batches.push_back(list(sub_devices.subspan(at, std::min(max_login_batch, sub_devices.size() - at))));
        for (auto const& m : members_)
            if (std::ranges::find(sub_devices, id_of(m->who)) != sub_devices.end()) {
                m->online = 0;
                want(*m, false);
            }
        return log_out(std::move(batches));
    }

  private:
    friend class sub_device<Session>;

    // What the gateway knows of a sub-device; outlives it, as long as it is in use here.
    struct membership {
        aliyun::device who;
        bool wanted = false;       // to be logged in
        std::uint64_t online = 0;  // on which connection it is; 0: on none
        int attempts = 0;
        std::error_code failed;
        std::string text;
    };
    using member = std::shared_ptr<membership>;

    // Nobody logs in any more.
    using place_type = parking<typename base::executor_type>;
    struct finisher {
        std::weak_ptr<place_type> changes;
        ~finisher() {
            if (auto const here = changes.lock()) here->wake_all(mqtt::errc::disconnected);
        }
    };

    static alink::options with_gateway(alink::options o) {
        o.features = o.features | feature::gateway;
        return o;
    }

    static json list(std::span<device_id const> ids) {
        json all = json::array();
        for (auto const& id : ids) all.push_back(make_id(id.product_key, id.device_name));
        return all;
    }

    template <class T>
    awaitable<T> decoded(awaitable<json> request) {
        json const data = co_await std::move(request);
        T made;
        if (errc const e = decode(data, made); e != errc::ok) throw std::system_error(make_error_code(e));
        co_return made;
    }

    std::uint64_t connection() { return this->session().counters().connections; }
    bool is_online(membership const& m) { return m.online == connection() && m.online != 0; }

    member join(aliyun::device const& who) {
        auto m = std::make_shared<membership>();
        m->who = who;
        members_.push_back(m);
        return m;
    }
    void leave(member const& m) { std::erase(members_, m); }

    void want(membership& m, bool wanted) {
        m.wanted = wanted;
        m.attempts = 0;
        m.failed.clear();
        changed();
    }
    void changed() { changes_->wake_all({}); }

    awaitable<void> wait_for_change() {
        waiter<typename base::executor_type> w;
        co_await changes_->park(w);
        if (w.result) throw std::system_error(w.result);
    }
    awaitable<void> wait_for_connection(std::uint64_t after) { co_await this->session().connected(after); }

    // --- logging in

    awaitable<void> keep_logged_in() {
        co_await this->start();
        for (;;) {
            auto const now = connection();
            std::vector<member> batch;
            for (auto const& m : members_)
                if (m->wanted && m->online != now && batch.size() < max_login_batch) batch.push_back(m);
            if (batch.empty()) {
                auto changing = wait_for_change();
                auto connecting = wait_for_connection(now);
                co_await race(this->box().place, std::move(changing), std::move(connecting));
                // Those who wait for a login can see that the last one counts no more.
                changed();
                continue;
            }
            auto logging_in = log_in(std::move(batch), now);
            co_await std::move(logging_in);
        }
    }

    awaitable<void> log_in(std::vector<member> batch, std::uint64_t on) {
        std::error_code error;
        std::string text;
        try {
            auto asking = ask_to_log_in(batch);
            co_await std::move(asking);
        } catch (std::system_error const& e) {
            error = e.code();
            text = e.what();
        }
        if (error == asio::error::operation_aborted || error == errc::disconnected || error == mqtt::errc::disconnected)
            throw std::system_error(error);
        if (connection() != on) co_return;  // whatever came of it, it counts no more
        bool const again = error == errc::timed_out || error == errc::throttled;
        if (error && !again && batch.size() > 1) {
            // All of them are refused for the sake of one.
            for (auto const& m : batch) {
                std::vector<member> one(1, m);
                auto alone = log_in(std::move(one), on);
                co_await std::move(alone);
            }
            co_return;
        }
        for (auto const& m : batch) {
            if (!error) m->online = on;
            if (error && (!again || ++m->attempts >= max_attempts)) {
                m->wanted = false;
                m->failed = error;
                m->text = text;
            }
        }
        changed();
        if (again) {
            auto pausing = sleep_for<typename base::executor_type>(this->session().get_executor(), attempt_pause);
            co_await std::move(pausing);
        }
    }

    awaitable<json> ask_to_log_in(std::vector<member> const& batch) {
        if (batch.size() == 1)
            return this->template request<topic_kind::sub_device_login>(make_login(batch.front()->who, base::now()));
        json devices = json::array();
        for (auto const& m : batch) devices.push_back(make_login(m->who, base::now()));
        json const params = {{"deviceList", devices}};
        return this->template request<topic_kind::sub_device_batch_login>(params);
    }

    awaitable<void> log_out(std::vector<json> batches) {
        for (auto const& batch : batches) {
            auto asking = this->template request<topic_kind::sub_device_batch_logout>(batch);
            co_await std::move(asking);
        }
    }

    awaitable<json> ask_to_log_out(membership const& m) {
        return this->template request<topic_kind::sub_device_logout>(make_id(m.who.product_key, m.who.device_name));
    }

    static constexpr int max_attempts = 3;
    static constexpr std::chrono::seconds attempt_pause{1};

    std::vector<member> members_;
    std::shared_ptr<place_type> changes_{std::make_shared<place_type>(this->session().get_executor())};
};

/// What the platform has done to a sub-device.
enum class sub_device_event : std::uint8_t { disabled, enabled, deleted };

/// A device behind a gateway: all that a device has, over the gateway's session. It must not outlive the gateway.
///
/// Its messages are of QoS 0, as the platform prescribes. Requests log it in if that has not been done, and wait until
/// it is.
template <counting_session Session>
class sub_device : public device<Session> {
  public:
    using base = device<Session>;
    template <class T>
    using awaitable = typename base::template awaitable<T>;

    static alink::options usual_options() {
        alink::options o;
        o.features = feature::usual_of_sub_device;
        o.quality = mqtt::qos::at_most_once;
        return o;
    }

    /// Throws `std::system_error` also if the secret is none: it signs the login.
    sub_device(alink::gateway<Session>& g, aliyun::device const& who, alink::options o = usual_options())
        : base(g.session(), (throw_unless_ok(check_device(who)), who), std::move(o)), gateway_(g), self_(g.join(who)) {
        watch(topic_kind::sub_device_disable, sub_device_event::disabled);
        watch(topic_kind::sub_device_enable, sub_device_event::enabled);
        watch(topic_kind::sub_device_delete, sub_device_event::deleted);
    }
    ~sub_device() override { gateway_.leave(self_); }

    bool is_logged_in() const { return gateway_.is_online(*self_); }

    /// Has the gateway log it in, and keep it so. Completes when it is. Throws the platform's refusal, after which it
    /// is not tried again until this is called again. It is `gateway::run` that does it: cancel this if that may not
    /// run.
    awaitable<void> login() {
        auto const self = self_;
        if (!self->wanted || self->failed) gateway_.want(*self, true);
        while (!gateway_.is_online(*self)) {
            if (self->failed) throw std::system_error(self->failed, self->text);
            auto waiting = gateway_.wait_for_change();
            co_await std::move(waiting);
        }
    }

    /// As `device::start`, once it is logged in.
    awaitable<void> start() { return ready(); }

    /// Logs it out, and keeps it so.
    awaitable<json> logout() {
        gateway_.want(*self_, false);
        self_->online = 0;
        return gateway_.ask_to_log_out(*self_);
    }

    /// Handles what the platform does to the sub-device: `awaitable<void>(sub_device_event)`.
    template <std::invocable<sub_device_event> Handler>
    void on_event(Handler h) {
        event_ = [h = std::move(h)](sub_device_event what) mutable -> awaitable<void> {
            auto handling = h(what);
            co_await std::move(handling);
        };
    }

  protected:
    awaitable<void> ready() override {
        co_await login();
        co_await base::start();
    }

    // After a new connection the server may have refused what it was asked for before the login.
    awaitable<bool> renew() override {
        co_await ready();
        co_return true;
    }

  private:
    void watch(topic_kind kind, sub_device_event what) {
        this->handlers().set(kind, {}, [this, what](json) -> awaitable<json> {
            // The platform has logged it out, or lets it in again; only then is the reply accepted.
            self_->online = 0;
            gateway_.want(*self_, what == sub_device_event::enabled);
            if (what == sub_device_event::enabled) {
                std::error_code refused;
                auto logging_in = quietly(login(), refused);
                co_await std::move(logging_in);
            }
            if (event_) {
                auto handling = event_(what);
                co_await std::move(handling);
            }
            co_return json::object();
        });
    }

    alink::gateway<Session>& gateway_;
    typename alink::gateway<Session>::member self_;
    std::function<awaitable<void>(sub_device_event)> event_;
};

template <class Session>
sub_device(gateway<Session>&, aliyun::device const&) -> sub_device<Session>;
template <class Session>
sub_device(gateway<Session>&, aliyun::device const&, options) -> sub_device<Session>;

}  // namespace runnel::aliyun::alink
