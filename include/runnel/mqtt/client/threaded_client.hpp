#pragma once

#include <runnel/core/callback.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/client/detail/threaded_core.hpp>

#include RUNNEL_ASIO(any_io_executor.hpp)

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// How a `threaded_client` behaves, beside its session. Its constructor refuses what is out of range.
struct threaded_options {
    /// Of messages that `publish` has accepted and that are not done with, those included that the session has.
    handover_limits limits{};
    mqtt::when_full when_full = mqtt::when_full::wait;  ///< what becomes of a message for which there is no room
    /// Calls of `subscribe`, `unsubscribe` and `on_session` that are not done with, 1 or more. The futures of those
    /// beyond get `errc::queue_full`.
    std::size_t maximum_requests = 1024;
    /// How long the destructor lets the client deliver, 0 ms to a day.
    std::chrono::milliseconds close_limit{5'000};
    /// If set, is told once that the session has ended, and with which error, as `error` returns it; not if the
    /// execution context is destroyed first, or is not run in time when the client is closed. On the client's
    /// thread, like all callbacks; it must not throw.
    callback<std::exception_ptr> on_end{};
};

/// Throws `std::out_of_range`, with the range in its text, unless a limit is 0 ms to a day.
RUNNEL_COLD inline void check_close_limit(char const* name, std::chrono::milliseconds limit) {
    using namespace std::chrono_literals;
    if (limit < 0ms || limit > 24h) RUNNEL_THROW(std::out_of_range(std::string(name) + " must be 0 ms to 24 h"));
}
/// The same, if the options are not possible.
RUNNEL_COLD inline void check(threaded_options const& o) {
    check(o.limits);
    if (o.maximum_requests < 1) RUNNEL_THROW(std::out_of_range("maximum_requests must be 1 or more"));
    check_close_limit("close_limit", o.close_limit);
}

/// A message received by a `message_queue`. Its bytes stay where they are until it is destroyed; then a QoS 1 or 2
/// message is acknowledged, unless it is destroyed while the stack unwinds for an exception thrown since it was taken:
/// then it is given back, as by `abandon`. Move-only; it may be in any thread, one at a time, and outlive the client.
class threaded_message {
  public:
    threaded_message(threaded_message&&) noexcept = default;
    threaded_message& operator=(threaded_message&& other) noexcept {
        threaded_message moved(std::move(other));
        std::swap(of_, moved.of_);
        std::swap(held_, moved.held_);
        std::swap(exceptions_, moved.exceptions_);
        return *this;
    }
    ~threaded_message() {
        if (held_) end(std::uncaught_exceptions() > exceptions_);
    }

    std::string_view topic() const noexcept { return view().topic; }
    /// Any bytes.
    std::string_view payload() const noexcept { return view().payload; }
    mqtt::qos qos() const noexcept { return view().qos; }
    /// All of it, as a view that is valid as long as the message is.
    mqtt::publish const& view() const noexcept { return held_->what.view(); }
    /// Whether there is a message: false after a move, `acknowledge` and `abandon`.
    explicit operator bool() const noexcept { return held_ != nullptr; }

    /// Lets go of it now: it is acknowledged.
    void acknowledge() noexcept {
        if (held_) end(false);
    }
    /// Lets go of a QoS 1 or 2 message without acknowledging it: see `message::abandon`.
    void abandon() noexcept {
        if (held_) end(true);
    }

  private:
    friend class message_queue;
    threaded_message(std::shared_ptr<detail::threaded_base> of, std::unique_ptr<detail::held_message> m) noexcept
        : of_(std::move(of)), held_(std::move(m)) {}

    void end(bool is_abandoned) noexcept {
        held_->is_abandoned = is_abandoned;
        of_->give_back(std::move(held_));
    }

    std::shared_ptr<detail::threaded_base> of_;
    std::unique_ptr<detail::held_message> held_;
    int exceptions_ = std::uncaught_exceptions();
};

/// A subscription of a `threaded_client`. A handle; copies are the same one, and may outlive the client. One that was
/// default-constructed can only be assigned to and destroyed.
class threaded_subscription {
  public:
    threaded_subscription() noexcept = default;

    /// The topic filters, and the QoS which the server has granted to each when the subscription was made.
    std::vector<std::string> const& filters() const noexcept { return handle_->of->filters; }
    std::vector<qos> const& granted_qos() const noexcept { return handle_->of->granted; }

  protected:
    template <transport>
    friend class threaded_client;
    explicit threaded_subscription(std::shared_ptr<detail::channel_handle> h) noexcept : handle_(std::move(h)) {}

    std::shared_ptr<detail::channel_handle> handle_{};
};

/// The messages of a subscription without a callback, for as many threads as want to take them, in the order of their
/// arrival. What waits is bounded as in a session: QoS 0 by `subscribe_options::inbox`, beyond which messages are
/// dropped, and QoS 1 and 2 by `session_options::receive_maximum` and `maximum_held`, beyond which the server has to
/// wait. Messages count as long as threads have them.
///
/// When the last copy of the handle is gone, the client forgets the subscription, but does not end it at the server;
/// QoS 1 and 2 messages that wait are given back, and are such that no subscription wants
/// (`session_options::unrouted_timeout`).
class message_queue : public threaded_subscription {
  public:
    message_queue() noexcept = default;

    /// Waits for the next message. Throws, when there is none, why none will come: `errc::disconnected` once the
    /// session or the subscription has ended, the `reason_code` with which the server refuses to renew it; and
    /// `std::errc::resource_deadlock_would_occur` on the client's own thread, which would wait for itself.
    threaded_message receive() { return of(base().take(channel(), {})); }
    /// The same, for at most `limit`, which may be of any length: then there is no message.
    std::optional<threaded_message> receive_for(std::chrono::milliseconds limit) {
        return maybe(base().take(channel(), deadline_after(steady_clock::now(), limit)));
    }
    /// The next message if one waits. Throws likewise if none will come.
    std::optional<threaded_message> try_receive() { return maybe(base().try_take(channel())); }
    /// Messages that wait to be received.
    std::size_t size() const { return handle_->of->of->size(*handle_->of); }

  private:
    template <transport>
    friend class threaded_client;
    explicit message_queue(std::shared_ptr<detail::channel_handle> h) noexcept : threaded_subscription(std::move(h)) {}

    detail::threaded_base& base() const noexcept { return *handle_->of->of; }
    detail::threaded_channel& channel() const noexcept { return *handle_->of; }
    threaded_message of(std::unique_ptr<detail::held_message> m) const noexcept {
        return threaded_message(handle_->of->of, std::move(m));
    }
    std::optional<threaded_message> maybe(std::unique_ptr<detail::held_message> m) const {
        if (m == nullptr) return std::nullopt;
        return of(std::move(m));
    }
};

/// A session for programs without coroutines, from any thread: what is published owns its strings and is told by a
/// `std::future` or a callback; messages come to a callback or wait in a `message_queue`.
///
///     runnel::mqtt::threaded_client client{runnel::tcp{.host = "broker.example"}, options};
///     client.publish("rooms/7", json, {.qos = qos::at_least_once});
///     auto queue = client.subscribe("rooms/#").get();
///     auto message = queue.receive();
///
/// **Threads.** All members may be called from any thread at the same time, but for the constructors and the
/// destructor. The session is on a thread of the client's own, or on an executor that somebody else runs, there on a
/// strand: with either, callbacks are called one after another. They are to be short: nothing is sent, received or
/// acknowledged meanwhile, pings included. They may call the client. What would wait for the client's own thread there
/// (`receive`, `close`, `publish` without room) ends with `std::errc::resource_deadlock_would_occur` instead; futures
/// cannot tell, so do not wait for one in a callback, nor on a thread that runs the given executor.
///
/// **Exceptions of callbacks** end the client, as those of a handler end a session's `run`: the connection is closed,
/// all that is pending ends with `errc::disconnected`, and `error` returns the exception. A message whose callback has
/// thrown is not acknowledged.
///
/// **The end.** `close` and the destructor let what was accepted be delivered, within a limit, and disconnect. Whatever
/// happens, each future gets a result or an error, and each callback of a message is called exactly once.
template <transport Transport>
class threaded_client {
    using core = detail::threaded_core<Transport>;

  public:
    using session_type = session<Transport>;
    /// Is told what has become of a message. With an error the result is empty.
    using publish_callback = callback<std::error_code, publish_result const&>;
    /// Is given a message as a view that is valid until it returns; then the message is acknowledged.
    using message_callback = typename session_type::message_handler;

    /// On a thread of its own, which connects at once. `options.on_event` is told on that thread; here it may throw.
    /// Throws what the constructor of `session` throws, `std::out_of_range`, and `std::system_error` if there is no
    /// thread.
    explicit threaded_client(Transport transport, session_options options = {}, threaded_options how = {})
        : threaded_client(on{}, std::move(transport), std::move(options), std::move(how)) {
        try {
            thread_ = std::thread([c = core_] { c->work(); });
        } catch (...) {
            core_->drop_context();
            throw;
        }
    }
    /// On an executor that somebody else runs, with one thread or several. The client may go before or after the
    /// execution context; when that is destroyed first, all that is pending is told `errc::disconnected` by it.
    threaded_client(asio::any_io_executor executor, Transport transport, session_options options = {},
                    threaded_options how = {})
        : threaded_client(on{std::move(executor)}, std::move(transport), std::move(options), std::move(how)) {}
    threaded_client(threaded_client const&) = delete;
    threaded_client& operator=(threaded_client const&) = delete;
    /// `close(close_limit)`; what `close` says of being late is true of this, too. In a callback, where it must not
    /// wait, it only begins to close: the client's thread goes on by itself until that is done, and calls callbacks.
    ///
    /// A thread of the client's own that cannot end in time is left to itself: the system's name resolution cannot be
    /// interrupted. It calls nobody any more and ends, with what the session was connecting by, when the name is
    /// resolved, or with the program; until then the code must stay loaded. What else has been begun on that thread, as
    /// a timer by `on_session`, is not waited for either, but destroyed.
    ~threaded_client() {
        try {
            if (core_->is_on_executor())
                core_->begin_close(close_limit_);
            else
                close(close_limit_);
        } catch (...) {  // no memory to close it in good order
            core_->give_up();
            core_->stop();
        }
        if (!thread_.joinable()) return;
        if (core_->is_on_executor() || !core_->wait_for_thread(std::chrono::milliseconds(50))) {
            thread_.detach();
        } else {
            thread_.join();
            core_->drop_context();
        }
    }

    /// Publishes a message. The future gets what `session::publish` completes with or throws, and besides:
    ///
    /// - without room, as `threaded_options::when_full` says: the call waits; or the message is refused
    ///   (`errc::queue_full`), or this one or older ones are dropped (`errc::message_discarded`). One that is larger
    ///   than `limits.bytes` never has room, and is refused, or dropped by `drop_newest`;
    /// - after `options.timeout`, which counts from this call: `errc::message_expired`, if it has not been sent;
    /// - `errc::disconnected` after `close`, or when `run` has ended.
    ///
    /// `options.props` are copied. Throws `std::bad_alloc`, or `errc::string_too_long` for properties that cannot be
    /// encoded, and has done nothing then.
    std::future<publish_result> publish(std::string topic, std::string payload, publish_options options = {}) {
        auto const p = make(std::move(topic), std::move(payload), options);
        auto result = p->promise.emplace().get_future();
        submit(p);
        return result;
    }
    /// The same with a callback, which is called exactly once: on the client's thread as a rule; by this call if the
    /// message is not taken (what it throws then, this call throws). Callbacks of messages whose place this one takes
    /// are called by this call; what they throw ends the client.
    void publish(std::string topic, std::string payload, publish_options options, publish_callback told) {
        auto const p = make(std::move(topic), std::move(payload), options);
        p->told = std::move(told);
        submit(p);
    }

    /// Subscribes to one topic filter, or to several as one subscription: see `session::subscribe`. The callback is
    /// called on the client's thread with each message. The handle is for `unsubscribe` and need not be kept.
    std::future<threaded_subscription> subscribe(filter_list filters, message_callback on_message,
                                                 subscribe_options options = {}) {
        if (!on_message) on_message = [](mqtt::publish const&) {};
        return begin_subscribing<threaded_subscription>(std::move(filters), std::move(on_message), options);
    }
    /// The same with a queue, from which threads take the messages.
    std::future<message_queue> subscribe(filter_list filters, subscribe_options options = {}) {
        return begin_subscribing<message_queue>(std::move(filters), {}, options);
    }
    /// `session::unsubscribe`. What waits in a queue can still be received.
    std::future<void> unsubscribe(threaded_subscription const& from) {
        return core_->template ask<void>([handle = from.handle_](core& c) { return core::unsubscribe(c, handle); });
    }

    /// Calls `f(session)` on the client's thread, for all else that a session has: `counters`, `negotiated`, `queued`,
    /// the `async_` operations. The future gets what it returns (a value) or throws; `errc::disconnected` when the
    /// session has ended. `f` must not block, keep the session, or destroy the client's executor.
    template <class F>
    auto on_session(F f) -> std::future<std::decay_t<std::invoke_result_t<F&, session_type&>>> {
        using result = std::decay_t<std::invoke_result_t<F&, session_type&>>;
        return core_->template ask<result>(
            [f = std::move(f)](core& c) mutable { return call<result>(c, std::move(f)); });
    }

    /// Whether the server has accepted the connection and it has not been lost.
    bool is_connected() const { return core_->is_connected(); }
    /// Waits for a connection, for at most `limit`. False: there is none.
    bool wait_connected(std::chrono::milliseconds limit) {
        return core_->wait_connected(deadline_after(steady_clock::now(), limit));
    }
    /// What has ended the session: what `session::run` throws, or a callback; null as long as it goes on, and after
    /// `close`.
    std::exception_ptr error() const { return core_->error(); }
    /// Messages that have been accepted and are not done with.
    std::size_t outstanding() const { return core_->outstanding(); }

    /// Ends the client: refuses what is published from now on, producers who wait included; lets what has been accepted
    /// be delivered (QoS 0 written, QoS 1 and 2 acknowledged), and disconnects. After `limit`, 0 ms to a day, the rest
    /// is told `errc::disconnected`. Messages that threads have taken and not let go of are not acknowledged any more,
    /// nor those in queues, which can still be taken.
    ///
    /// Completes by `limit`, and is late by at most 100 ms; on a thread of the client's own also by what a callback
    /// takes that is running. Where nobody runs the given executor in time, the rest is told `errc::close_timeout` by
    /// this call. A callback that is running there goes on, but no other begins (`on_event` and `on_end` included);
    /// messages that would have come to one are not acknowledged. Several threads may close at once: the shortest limit
    /// counts, and all get the same report. Throws `std::out_of_range` and, in a callback,
    /// `std::errc::resource_deadlock_would_occur`: there is `begin_close`.
    close_report close(std::chrono::milliseconds limit) {
        auto const c = core_;
        check_close_limit("limit", limit);
        if (c->is_on_executor())
            throw std::system_error(std::make_error_code(std::errc::resource_deadlock_would_occur), "close");
        auto closing = c->begin_close(limit);
        auto const grace = std::chrono::milliseconds(100);
        if (thread_.joinable() || closing.wait_for(limit + grace) == std::future_status::ready) return closing.get();
        return c->give_up();
    }
    /// The same, without waiting: the report comes later, where the executor is run. Throws `std::out_of_range`.
    std::future<close_report> begin_close(std::chrono::milliseconds limit) {
        check_close_limit("limit", limit);
        return core_->begin_close(limit);
    }

  private:
    struct on {
        std::optional<asio::any_io_executor> executor{};
    };
    threaded_client(on where, Transport transport, session_options options, threaded_options how)
        : core_((check(how), std::make_shared<core>(std::move(where.executor), how.limits, how.when_full,
                                                    how.maximum_requests, std::move(how.on_end)))),
          close_limit_(how.close_limit) {
        core_->start(std::move(transport), std::move(options));
    }

    static std::shared_ptr<detail::publication> make(std::string topic, std::string payload, publish_options const& o) {
        auto p = std::make_shared<detail::publication>();
        p->topic = std::move(topic);
        p->payload = std::move(payload);
        p->options = o;
        p->options.props = nullptr;
        p->props = owned_properties(o.props);
        p->bytes = p->topic.size() + p->payload.size() + p->props.size();
        if (o.timeout.count() > 0) p->deadline = deadline_after(steady_clock::now(), o.timeout);
        return p;
    }
    // As the client may be closed, and go, while this waits.
    void submit(std::shared_ptr<detail::publication> const& p) {
        auto const c = core_;
        if (auto failure = c->submit(p)) c->end_by(std::move(failure));
    }

    template <class Handle>
    std::future<Handle> begin_subscribing(filter_list filters, message_callback on_message, subscribe_options o) {
        return core_->template ask<Handle>([filters = std::move(filters).take(), on_message = std::move(on_message), o,
                                            props = user_properties(o.user_properties)](core& c) mutable {
            return wrap<Handle>(core::subscribe(c, std::move(filters), std::move(on_message), o, std::move(props)));
        });
    }
    // These are on the executor, and have nothing of this object, which other threads use: while a coroutine is
    // suspended, that may go.
    template <class Handle>
    static typename core::template awaitable<std::optional<Handle>> wrap(
        typename core::template awaitable<std::shared_ptr<detail::channel_handle>> subscribing) {
        co_return Handle(co_await std::move(subscribing));
    }
    template <class Result, class F>
    static auto call(core& c, F f) ->
        typename core::template awaitable<std::conditional_t<std::is_void_v<Result>, void, std::optional<Result>>> {
        c.check_given_up();
        if constexpr (std::is_void_v<Result>) {
            f(c.its_session());
            co_return;
        } else {
            co_return f(c.its_session());
        }
    }

    std::shared_ptr<core> const core_;
    std::chrono::milliseconds const close_limit_;
    std::thread thread_{};  // not joinable: it has none
};

}  // namespace runnel::mqtt
