#pragma once

#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/limits.hpp>
#include <runnel/aliyun/rate_limit.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/core/owned_text.hpp>
#include <runnel/mqtt/client/session.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::aliyun {

/// How fast a session may publish and connect: the platform's limits, which count at its end. What is sent evenly can
/// arrive a little closer together, so the span is a little longer than the platform's second. 0: no limit.
struct pace {
    std::uint16_t qos_0 = max_publish_rate_qos_0;    ///< messages of QoS 0 in a span
    std::uint16_t qos_1 = max_publish_rate_qos_1;    ///< messages of QoS 1 in a span
    std::chrono::milliseconds span{1050};            ///< 1 ms to 24 h
    std::size_t connects = max_connects_per_minute;  ///< attempts to connect in a minute, also over several `run`
};

/// A session of a device with the platform: an `mqtt::session` that holds what it is told to do against the platform's
/// limits before anything is sent, so that nothing is refused, cut off or silently dropped over there.
///
///     runnel::aliyun::device_session session{executor, thermostat, thermostat.endpoint<runnel::wss>()};
///     co_spawn(executor, session.run(), ...);
///     co_await session.publish(session.topics().of<topic_kind::custom>("update"), "hello");
///
/// - Messages: topic length and levels, 256 KiB of payload, no QoS 2, no retain flag in MQTT 3.1.1. They leave no
///   faster than the rate of their QoS allows, in the order of the calls, those sent again after a reconnect included;
///   see `mqtt::publish_pace`.
/// - Subscriptions: length and levels of filters, 8 filters in one SUBSCRIBE, 100 in all. QoS 2 is asked for as 1.
/// - Attempts to connect: 5 a minute, by the pauses between them and, where `run` is called again, by waiting.
///
/// What is wrong throws `std::system_error` with an `aliyun::errc`. Everything else is as in `mqtt::session`, which
/// `mqtt_session()` gives for what is not here; its own `publish` keeps to the rates too, but it and `subscribe` check
/// nothing.
template <transport Transport>
class device_session {
  public:
    using session_type = mqtt::session<Transport>;
    using executor_type = typename session_type::executor_type;
    using subscription = typename session_type::subscription;
    using message_handler = typename session_type::message_handler;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;

    /// Throws `std::system_error` if an option or the device is not one that the platform accepts.
    device_session(executor_type executor, device const& who, Transport transport, connect_options how = {},
                   pace limits = {})
        : device_session(executor, who, std::move(transport), aliyun::session_options<Transport>(who, std::move(how)),
                         limits) {}

    /// The same with all options of the session, which `session_options` has made and which may have been changed.
    device_session(executor_type executor, device const& who, Transport transport, mqtt::session_options options,
                   pace limits = {})
        : who_(who),
          v5_(options.version == mqtt::protocol_version::v5),
          state_(std::make_shared<state>(executor, limits)),
          session_(executor, std::move(transport), watched(std::move(options), limits, state_)) {}

    device_session(device_session const&) = delete;
    device_session& operator=(device_session const&) = delete;
    /// Does not block; pending operations end with `mqtt::errc::disconnected`.
    ~device_session() {
        state_->ended = true;
        state_->waiters.wake(state_->stop);
        secure_wipe(who_.device_secret);
    }

    executor_type const& get_executor() const noexcept { return session_.get_executor(); }
    device const& who() const noexcept { return who_; }
    device_topics topics() const noexcept { return device_topics(who_); }
    session_type& mqtt_session() noexcept { return session_; }

    bool is_connected() const noexcept { return session_.is_connected(); }
    mqtt::session_counters counters() const noexcept { return session_.counters(); }
    awaitable<void> connected() { return session_.connected(); }
    awaitable<std::uint64_t> connected(std::uint64_t after) { return session_.connected(after); }

    /// See `mqtt::session::run`. Waits first if there have been too many attempts to connect in the last minute. There
    /// is one at a time: throws `std::logic_error` while another one waits or runs, and changes nothing.
    awaitable<void> run() { return run_in_turn(state_, &session_); }

    /// See `mqtt::session::disconnect`.
    awaitable<void> disconnect(mqtt::reason_code reason = mqtt::reason_code::normal_disconnection,
                               mqtt::property_view props = {}) {
        state_->stopping = true;
        state_->waiters.wake(state_->stop);
        return session_.disconnect(reason, props);
    }

    /// Publishes, and sends when the rate allows it; see `mqtt::session::publish`. `o.timeout` counts while it waits.
    awaitable<mqtt::publish_result> publish(std::string_view topic, std::string_view payload,
                                            mqtt::publish_options o = {}) {
        return publish_checked(state_, &session_, check(topic, payload, o), topic, payload, o);
    }
    awaitable<mqtt::publish_result> publish(std::string_view topic, std::string_view payload, mqtt::publish_options o,
                                            std::error_code& error) {
        return capture_error(publish(topic, payload, o), error);
    }
    template <class Topic, class Payload>
    requires(owned_text<Topic> || owned_text<Payload>)
    awaitable<mqtt::publish_result> publish(Topic&& topic, Payload&& payload, mqtt::publish_options o = {}) {
        auto const checked = check(topic, payload, o);
        return publish_kept<kept_text<Topic>, kept_text<Payload>>(
            state_, &session_, checked, std::forward<Topic>(topic), std::forward<Payload>(payload), o);
    }
    template <class Topic, class Payload>
    requires(owned_text<Topic> || owned_text<Payload>)
    awaitable<mqtt::publish_result> publish(Topic&& topic, Payload&& payload, mqtt::publish_options o,
                                            std::error_code& error) {
        return capture_error(publish(std::forward<Topic>(topic), std::forward<Payload>(payload), o), error);
    }

    /// Publishes without waiting for anything. False: the rate does not allow it at present, or there is no room.
    bool try_publish(std::string_view topic, std::string_view payload, mqtt::publish_options o = {}) {
        throw_unless_ok(check(topic, payload, o));
        return session_.try_publish(topic, payload, o);
    }

    /// See `mqtt::session::subscribe`.
    awaitable<subscription> subscribe(std::string_view filter, mqtt::subscribe_options o = {}) {
        return subscribe(filter, {}, o);
    }
    awaitable<subscription> subscribe(std::string_view filter, mqtt::subscribe_options o, std::error_code& error) {
        return capture_error(subscribe(filter, o), error);
    }
    awaitable<subscription> subscribe(std::string_view filter, message_handler handler,
                                      mqtt::subscribe_options o = {}) {
        return subscribe_counted(state_, &session_, check_filter(filter, v5_), {std::string(filter)},
                                 std::move(handler), limited(o));
    }

    /// Several filters as one subscription; at most 8, as they go into one SUBSCRIBE.
    awaitable<subscription> subscribe(std::span<std::string_view const> filters, mqtt::subscribe_options o = {}) {
        return subscribe(filters, {}, o);
    }
    awaitable<subscription> subscribe(std::span<std::string_view const> filters, message_handler handler,
                                      mqtt::subscribe_options o = {}) {
        return subscribe_group(state_, &session_, v5_, filters, std::move(handler), o);
    }

    template <class T>
    auto subscribe(std::initializer_list<T>, mqtt::subscribe_options = {}) ->
        typename refused_braces<T, awaitable<subscription>>::type;
    template <class T>
    auto subscribe(std::initializer_list<T>, message_handler, mqtt::subscribe_options = {}) ->
        typename refused_braces<T, awaitable<subscription>>::type;

    /// Any number of filters, 8 to a SUBSCRIBE, each such group a subscription of its own. The handler is copied. If
    /// one group is refused, those before it stay.
    awaitable<std::vector<subscription>> subscribe_all(std::span<std::string_view const> filters,
                                                       message_handler handler, mqtt::subscribe_options o = {}) {
        return subscribe_groups(state_, &session_, v5_, filters, std::move(handler), o);
    }

    /// See `mqtt::session::unsubscribe`.
    awaitable<void> unsubscribe(subscription const& s, mqtt::user_property_list props = {}) {
        for (std::size_t i = 0; i < s.filters(); ++i) state_->forget(s.filter(i), &s.filter());
        return session_.unsubscribe(s, props);
    }

    /// How many different filters are subscribed to, or asked for.
    std::size_t subscriptions() const noexcept { return state_->count(); }

  private:
    using clock = rate_limit::clock;

    // What coroutines need after the session may have gone. While a coroutine is suspended, others may write this, each
    // in one step:
    //
    // | member     | is written by                                                             |
    // |------------|---------------------------------------------------------------------------|
    // | `filters`  | who subscribes, from the call (`reservation`) to a failure; `unsubscribe` |
    // | `attempts` | the session, by its event `connecting`                                    |
    // | `stopping` | `disconnect`; `run` when it begins                                        |
    // | `running`  | `run` when it begins and ends (`runner`): so there is one at a time       |
    // | `ended`    | the destructor. Who goes on asks for it before it touches the session     |
    // | `stop`     | it is the waiter of that `run`                                            |
    struct state {
        state(executor_type executor, pace const& limits)
            : waiters(std::move(executor)), attempts(limits.connects, std::chrono::minutes(1)) {}

        std::size_t count() const noexcept {
            std::size_t different = 0;
            for (auto at = filters.begin(); at != filters.end(); at = filters.upper_bound(at->first)) ++different;
            return different;
        }
        // Once for each subscription: it may be unsubscribed from again, and others may have the same filter.
        void forget(std::string const& filter, void const* owner) {
            auto const [first, last] = filters.equal_range(filter);
            auto const found = std::find_if(first, last, [&](auto const& f) { return f.second == owner; });
            if (found != last) filters.erase(found);
        }
        static awaitable<void> stopped(std::shared_ptr<state> self) {
            if (!self->stopping) co_await self->waiters.wait(self->stop);
        }

        wait_list<executor_type> waiters;
        waiter<executor_type> stop{};
        rate_limit attempts;
        std::multimap<std::string, void const*, std::less<>> filters{};  // and whose they are: see `reservation`
        bool stopping = false;                                           // `disconnect` was called
        bool running = false;                                            // `run` waits or runs
        bool ended = false;                                              // the session is gone
    };
    using state_ptr = std::shared_ptr<state>;

    // `run` in progress.
    struct runner {
        explicit runner(state_ptr h) : here(std::move(h)) {
            if (here->running) throw std::logic_error("session::run is running already");
            here->running = true;
        }
        ~runner() { here->running = false; }
        runner(runner const&) = delete;
        runner& operator=(runner const&) = delete;
        state_ptr here;
    };

    static awaitable<void> run_in_turn(state_ptr here, session_type* session) {
        if (here->ended) throw std::system_error(mqtt::errc::disconnected);
        runner const only(here);
        here->stopping = false;
        auto const at = here->attempts.ready_at(clock::now());
        if (at > clock::now()) {
            auto sleeping = sleep_for<executor_type>(here->waiters.get_executor(), at - clock::now());
            auto stopping = here->stopped(here);
            co_await race(here->waiters, std::move(sleeping), std::move(stopping));
        }
        if (here->ended) throw std::system_error(mqtt::errc::disconnected);
        if (here->stopping) co_return;
        auto running = session->run();
        co_await std::move(running);
    }

    static mqtt::session_options watched(mqtt::session_options options, pace const& limits, state_ptr const& here) {
        bool const v5 = options.version == mqtt::protocol_version::v5;
        throw_unless_ok(check_keep_alive(options.keep_alive));
        if (auto const& w = options.will) {
            if (!v5) throw_unless_ok(errc::will_not_supported);
            throw_unless_ok(check_message(w->topic, w->payload.size(), static_cast<int>(w->qos), w->retain, v5));
        }
        options.pace = {limits.qos_0, limits.qos_1, limits.span};
        options.on_event = [here, next = std::move(options.on_event)](mqtt::session_event const& event) {
            if (event.what == mqtt::session_event::kind::connecting) here->attempts.take(clock::now());
            if (next) next(event);
        };
        return options;
    }

    errc check(std::string_view topic, std::string_view payload, mqtt::publish_options const& o) const noexcept {
        return check_message(topic, payload.size(), static_cast<int>(o.qos), o.retain, v5_);
    }
    static errc check_filter(std::string_view filter, bool v5) noexcept {
        return check_topic(v5 ? mqtt::split_shared(filter).filter : filter);
    }
    static mqtt::subscribe_options limited(mqtt::subscribe_options o) noexcept {
        o.maximum_qos = (std::min)(o.maximum_qos, mqtt::qos::at_least_once);
        return o;
    }

    static awaitable<mqtt::publish_result> publish_checked(state_ptr here, session_type* session, errc checked,
                                                           std::string_view topic, std::string_view payload,
                                                           mqtt::publish_options o) {
        throw_unless_ok(checked);
        if (here->ended) throw std::system_error(mqtt::errc::disconnected);
        auto publishing = session->publish(topic, payload, o);
        co_return co_await std::move(publishing);
    }

    template <class Topic, class Payload>
    static awaitable<mqtt::publish_result> publish_kept(state_ptr here, session_type* session, errc checked,
                                                        Topic topic, Payload payload, mqtt::publish_options o) {
        auto publishing = publish_checked(std::move(here), session, checked, topic, payload, o);
        co_return co_await std::move(publishing);
    }

    // Filters that count as subscribed to until it turns out that they are not. They are this object's, and then the
    // subscription's, which is known by where its first filter is.
    struct reservation {
        explicit reservation(state_ptr h) noexcept : here(std::move(h)) {}
        // By way of the other, so that the destructor takes back what counts already if there is no memory for the
        // rest.
        reservation(state_ptr h, std::vector<std::string> f) : reservation(std::move(h)) {
            filters = std::move(f);
            for (auto const& filter : filters) here->filters.emplace(filter, this);
        }
        ~reservation() {
            for (auto const& filter : filters) here->forget(filter, this);
        }
        reservation(reservation const&) = delete;
        reservation& operator=(reservation const&) = delete;
        void pass_to(subscription const& made) noexcept {
            for (auto& [filter, owner] : here->filters)
                if (owner == this) owner = &made.filter();
        }
        state_ptr here;
        std::vector<std::string> filters{};
    };

    static awaitable<subscription> subscribe_counted(state_ptr here, session_type* session, errc checked,
                                                     std::vector<std::string> filters, message_handler handler,
                                                     mqtt::subscribe_options o) {
        throw_unless_ok(checked);
        if (here->ended) throw std::system_error(mqtt::errc::disconnected);
        reservation counted(here, std::move(filters));
        throw_unless_ok(check_subscription_count(here->count()));
        std::vector<std::string_view> const views(counted.filters.begin(), counted.filters.end());
        auto subscribing = session->subscribe(std::span(views), std::move(handler), o);
        auto made = co_await std::move(subscribing);
        counted.pass_to(made);
        co_return std::move(made);
    }

    static awaitable<subscription> subscribe_group(state_ptr here, session_type* session, bool v5,
                                                   std::span<std::string_view const> filters, message_handler handler,
                                                   mqtt::subscribe_options o) {
        errc e = check_filter_count(filters.size());
        for (auto const filter : filters)
            if (e == errc::ok) e = check_filter(filter, v5);
        return subscribe_counted(std::move(here), session, e, {filters.begin(), filters.end()}, std::move(handler),
                                 limited(o));
    }

    static awaitable<std::vector<subscription>> subscribe_groups(state_ptr here, session_type* session, bool v5,
                                                                 std::span<std::string_view const> filters,
                                                                 message_handler handler, mqtt::subscribe_options o) {
        std::vector<subscription> made;
        for (std::size_t at = 0; at < filters.size(); at += max_filters) {
            auto const group = filters.subspan(at, (std::min)(max_filters, filters.size() - at));
            auto own_handler = handler;
            auto subscribing = subscribe_group(here, session, v5, group, std::move(own_handler), o);
            auto one = co_await std::move(subscribing);
            made.push_back(std::move(one));
        }
        co_return std::move(made);
    }

    device who_;
    bool v5_;
    state_ptr state_;
    session_type session_;
};

}  // namespace runnel::aliyun
