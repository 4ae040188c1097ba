#pragma once

#include <runnel/aliyun/alink/detail/logins.hpp>

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <system_error>
#include <utility>

namespace runnel::aliyun::alink {

/// What the platform has done to a sub-device.
enum class sub_device_event : std::uint8_t { disabled, enabled, deleted };

/// A device behind a `gateway`: all that a device has, over the gateway's session. It must not outlive the gateway.
///
/// Its messages are of QoS 0, as the platform prescribes. Requests log it in if that has not been done, and wait until
/// it is: decided when they are called (of the shadow and the time: awaited). They end with `errc::overtaken` if it is
/// told to log out meanwhile.
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
    sub_device(alink::detail::logins<Session>& of, aliyun::device const& who, alink::options o = usual_options())
        : base(of.session(), (throw_unless_ok(check_device(who)), who), std::move(o)),
          gateway_(of),
          self_(of.join(who)) {
        watch(topic_kind::sub_device_disable, sub_device_event::disabled);
        watch(topic_kind::sub_device_enable, sub_device_event::enabled);
        watch(topic_kind::sub_device_delete, sub_device_event::deleted);
    }
    ~sub_device() override { gateway_.leave(self_); }

    /// Whether the platform has it logged in, as far as is known here. False without a connection.
    bool is_logged_in() const { return gateway_.is_online(*self_); }

    /// Has the gateway log it in, and keep it so: decided when this is called. Completes when it is. Throws the
    /// platform's refusal, after which it is not tried again until this is called again, and `errc::overtaken` if it is
    /// told to log out meanwhile. It is `gateway::run` that does it: cancel this if that may not run.
    awaitable<void> login() {
        begin_request();
        return logged_in(self_);
    }

    /// As `device::start`, once it is logged in.
    awaitable<void> start() {
        begin_request();
        return ready();
    }

    /// Logs it out, and keeps it so: decided when this is called. A login under way is waited for and undone. Completes
    /// with the platform's reply; with null if there is no connection, as nobody is logged in then. Throws the
    /// platform's refusal, `errc::timed_out` (then `gateway::run` goes on trying), and `errc::overtaken` if it is told
    /// to log in before this has been sent.
    awaitable<json> logout() {
        typename alink::detail::logins<Session>::leaving one{{id_of(self_->who)}};
        one.members.emplace_back(gateway_, self_);
        gateway_.want(*self_, false);
        return log_out(std::move(one));
    }

    /// Handles what the platform does to the sub-device: `awaitable<void>(sub_device_event)`. May be called again at
    /// any time: an event that is being handled keeps the handler that it has.
    template <std::invocable<sub_device_event> Handler>
    void on_event(Handler h) {
        auto handling_it = [h = std::move(h)](sub_device_event what) mutable -> awaitable<void> {
            auto handling = h(what);
            co_await std::move(handling);
        };
        event_ = std::make_shared<event_handler const>(std::move(handling_it));
    }

  protected:
    // A request has it logged in when it is begun; what has been decided since is not decided anew.
    void begin_request() override {
        if (!self_->login.is_wanted()) gateway_.want(*self_, true);
    }

    awaitable<void> ready() override {
        for (bool is_ready = false; !is_ready;) {
            auto logging_in = logged_in(self_);
            co_await std::move(logging_in);
            auto starting = start_on_this_connection();
            is_ready = co_await std::move(starting);
        }
    }

    // `run` has it logged in when it begins; later it waits, however long, as somebody else has decided.
    awaitable<void> ready_to_run(bool begins) override {
        auto const self = self_;
        if (begins && !self->login.is_wanted()) gateway_.want(*self, true);
        for (bool is_ready = false; !is_ready;) {
            while (!gateway_.is_online(*self)) {
                throw_if_refused(*self);
                auto waiting = gateway_.wait_for_change();
                co_await std::move(waiting);
            }
            auto starting = start_on_this_connection();
            is_ready = co_await std::move(starting);
        }
    }

    // After a new connection the server may have refused what it was asked for before the login.
    awaitable<bool> renew() override { co_return true; }

  private:
    using membership = typename alink::detail::logins<Session>::membership;
    using event_handler = std::function<awaitable<void>(sub_device_event)>;

    static void throw_if_refused(membership const& m) {
        if (m.login.refusal()) throw std::system_error(m.login.refusal(), m.login.refusal_text());
    }

    awaitable<void> logged_in(std::shared_ptr<membership> self) {
        while (!gateway_.is_online(*self)) {
            throw_if_refused(*self);
            if (!self->login.is_wanted()) throw std::system_error(make_error_code(errc::overtaken));
            auto waiting = gateway_.wait_for_change();
            co_await std::move(waiting);
        }
    }

    awaitable<json> log_out(typename alink::detail::logins<Session>::leaving one) {
        bool overtaken = false;
        auto leaving = gateway_.log_out(std::move(one), overtaken);
        json data = co_await std::move(leaving);
        if (overtaken) throw std::system_error(make_error_code(errc::overtaken));
        co_return std::move(data);
    }

    // Subscribes. False: the login has gone meanwhile, so that whatever came of it says nothing.
    awaitable<bool> start_on_this_connection() {
        auto const self = self_;
        auto const on = gateway_.connection();
        auto starting = base::start();
        try {
            co_await std::move(starting);
        } catch (std::system_error const& e) {
            bool const over = e.code() == asio::error::operation_aborted || e.code() == mqtt::errc::disconnected;
            if (over || (gateway_.is_online(*self) && on == gateway_.connection())) throw;
        }
        co_return gateway_.is_online(*self) && on == gateway_.connection();
    }

    static std::error_code reason_of(sub_device_event what) noexcept {
        if (what == sub_device_event::enabled) return {};
        return make_error_code(what == sub_device_event::deleted ? errc::device_deleted
                                                                 : errc::session_device_disabled);
    }

    void watch(topic_kind kind, sub_device_event what) {
        this->handlers().set(kind, {}, [this, what](json) -> awaitable<json> {
            // The platform has logged it out, or lets it in again; only then is the reply accepted.
            gateway_.ended(*self_, reason_of(what));
            if (what == sub_device_event::enabled) {
                std::error_code refused;
                auto logging_in = capture_error(login(), refused);
                co_await std::move(logging_in);
            }
            if (auto const kept = event_) {
                auto handling = (*kept)(what);
                co_await std::move(handling);
            }
            co_return json::object();
        });
    }

    // While a coroutine is suspended, others may write this: the login of `self_`, as `logins` says, so that each asks
    // for it anew when it goes on; and `event_`, the user, by `on_event`: so an event that is being handled has a share
    // in its handler.
    alink::detail::logins<Session>& gateway_;
    typename alink::detail::logins<Session>::member self_;
    std::shared_ptr<event_handler const> event_{};
};

template <class Session>
sub_device(detail::logins<Session>&, aliyun::device const&) -> sub_device<Session>;
template <class Session>
sub_device(detail::logins<Session>&, aliyun::device const&, options) -> sub_device<Session>;

}  // namespace runnel::aliyun::alink
