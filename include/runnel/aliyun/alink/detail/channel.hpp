#pragma once

#include <runnel/aliyun/alink/detail/handlers.hpp>
#include <runnel/aliyun/alink/detail/mailbox.hpp>
#include <runnel/aliyun/alink/detail/task_group.hpp>
#include <runnel/aliyun/alink/session.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/coro/capture_error.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/mqtt/client/session_options.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::aliyun::alink::detail {

/// How one device's Alink messages travel over a session: requests with their replies, and calls with their handlers.
/// `device` is the one to use; this is what it is made of, for requests that it has no function for.
///
/// Requests can be begun at any time; the first, or `run`, subscribes. A session's executor must not run other threads
/// at the same time. The session must outlive the channel, and the channel its operations.
///
/// While a coroutine is suspended, others may write this:
///
/// | member                 | is written by                                                                          |
/// |------------------------|----------------------------------------------------------------------------------------|
/// | `filters_`, `groups_`  | the one `start` that subscribes (`starter`; others wait at `starters`), and `stop`     |
/// | `watched` of a group   | `run`, of which there is one at a time (`runner`), as there is one `box_->reader`      |
/// | `box_->closed`         | those who watch the subscriptions; `run` clears it                                     |
/// | all else of `box_`     | `mailbox::receive`, requests and `run`, in one step                                    |
///
/// So nobody keeps a reference into `groups_` while it waits.
template <message_session Session>
class channel {
  public:
    using session_type = Session;
    using executor_type = typename Session::executor_type;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;
    using handler = typename handler_table<Session>::handler;
    using raw_handler = typename handler_table<Session>::raw_handler;
    using subscription = typename Session::subscription;

    /// Does nothing but remember. Throws `std::system_error` if `who` is no device, `std::out_of_range` if an option is
    /// out of its range.
    channel(Session& session, aliyun::device const& who, alink::options o = {})
        : session_(session),
          who_(who),
          topics_(who),
          box_((check(who, o), std::make_shared<box_type>(session.get_executor(), who, std::move(o)))),
          handlers_(session, who, box_) {
        box_->connection = [s = &session] { return connection_of(*s); };
    }
    channel(channel const&) = delete;
    channel& operator=(channel const&) = delete;
    virtual ~channel() = default;

    aliyun::device const& identity() const noexcept { return who_; }
    device_topics const& topics() const noexcept { return topics_; }
    Session& session() noexcept { return session_; }
    alink::counters const& counters() const noexcept { return box_->counters; }

    /// Subscribes to what the features and the handlers call for, as far as that has not been done, or the server has
    /// refused to renew it. Completes when all of it is granted. `run` and every request do it first. Throws what
    /// `session::subscribe` throws, and `mqtt::errc::disconnected` if `stop` is called meanwhile.
    awaitable<void> start() {
        auto const box = box_;
        auto const stops = box->stops;
        while (!is_subscribed()) {
            if (box->starting) {
                waiter<executor_type> w;
                co_await box->starters.wait(w);
                if (w.result) throw std::system_error(w.result);
            } else {
                starter const here(*box);
                co_await subscribe_some();
                if (box->stops != stops) co_await unsubscribe_all();
            }
            if (box->stops != stops) throw std::system_error(make_error_code(mqtt::errc::disconnected));
        }
    }

    /// Unsubscribes from everything. Requests in progress and a `start` end with `mqtt::errc::disconnected`; what such
    /// a `start` is just subscribing to is unsubscribed from as soon as it is granted.
    awaitable<void> stop() {
        ++box_->stops;
        co_await unsubscribe_all();
    }

    /// Runs the handlers of what is received, until the session ends: then completes. Throws the server's reason if it
    /// refuses to renew a subscription. When it completes, is cancelled or throws, no handler runs any more.
    ///
    /// Nothing that is received, and nothing that a handler throws, ends it. There is one at a time: throws
    /// `std::logic_error` while another one is under way, and changes nothing.
    awaitable<void> run() {
        runner const only(*this);
        auto running = run_handlers();
        co_await std::move(running);
    }

    /// Sends the request of kind `Kind` and completes with the data of its reply: null if `how.reply` is false. `id` is
    /// the event where the topic has one. `params` is used before this returns.
    ///
    /// Throws the reply's code (see `errc`) with its message, `errc::timed_out`, `errc::disconnected`, and what
    /// `session::publish` throws; at once `errc::text_not_utf8` and `errc::payload_too_long`.
    template <topic_kind Kind, class... Id>
    requires(rule_of(Kind).has_reply)
    awaitable<json> request(json const& params, request_options how = {}, Id const&... id) {
        return request_on(Kind, topics_.of<Kind>(id...).str(), params, how);
    }

  protected:
    using box_type = mailbox<executor_type>;
    using pending = typename box_type::pending;

    box_type& box() noexcept { return *box_; }
    handler_table<Session>& handlers() noexcept { return handlers_; }

    /// `run` in progress.
    struct runner {
        explicit runner(channel& of) : box(of.box_) {
            if (box->serving) throw std::logic_error("device::run is running already");
            box->serving = true;
        }
        ~runner() { box->serving = false; }
        runner(runner const&) = delete;
        runner& operator=(runner const&) = delete;
        std::shared_ptr<box_type> box;
    };

    /// What `run` does, for who has a `runner`.
    awaitable<void> run_handlers() {
        task_group<executor_type> tasks(session_.get_executor());
        auto serving = serve(tasks);
        auto enclosed = tasks.enclose(std::move(serving));
        try {
            co_await std::move(enclosed);
        } catch (std::system_error const& e) {
            if (e.code() != mqtt::errc::disconnected) throw;
        }
    }

    /// Is called when a request is begun, before anything is waited for.
    virtual void begin_request() {}

    /// Completes when requests can be sent. Is awaited by each of them, within its timeout.
    virtual awaitable<void> ready() { return start(); }

    /// The same for `run`, when it begins and after each `renew`.
    virtual awaitable<void> ready_to_run(bool /*begins*/) { return ready(); }

    /// Is awaited by `run` when the server has refused to renew a subscription: true if it is to go on.
    virtual awaitable<bool> renew() { co_return false; }

    /// Handlers that bring a topic filter with them cannot come later.
    void throw_if_started() const {
        if (!filters_.empty()) throw std::logic_error("this handler must be set before the device starts");
    }

    std::string next_id() { return std::to_string(++last_id_); }

    awaitable<json> request_on(topic_kind kind, std::string topic, json const& params, request_options how) {
        if (how.reply) throw_unless_received(kind);
        std::string id = next_id();
        std::string text = encode_call(id, method_of(topic), params, how.reply);
        if (!how.reply) return send(std::move(topic), std::move(text), how.timeout);
        begin_request();
        return ask(kind, std::move(id), std::move(topic), std::move(text), how.timeout);
    }

    /// Publishes `text` and waits until `p` is answered.
    awaitable<void> exchange(pending& p, std::string topic, std::string text, std::chrono::milliseconds timeout) {
        auto asking = publish_and_wait(p, std::move(topic), std::move(text), deadline_after(timeout));
        auto limited = limit(std::move(asking), timeout);
        co_await std::move(limited);
        if (p.error != errc::ok) throw std::system_error(make_error_code(p.error));
    }

    awaitable<json> send(std::string topic, std::string text, std::chrono::milliseconds timeout = {}) {
        begin_request();
        return send_in_time(std::move(topic), std::move(text), timeout);
    }
    awaitable<json> send_in_time(std::string topic, std::string text, std::chrono::milliseconds timeout) {
        auto sending = publish(std::move(topic), std::move(text), box_->options.quality, deadline_after(timeout));
        auto limited = limit(std::move(sending), timeout);
        co_await std::move(limited);
        co_return json();
    }

    using clock = steady_clock;

    std::chrono::milliseconds timeout_or_usual(std::chrono::milliseconds timeout) const noexcept {
        return timeout.count() == 0 ? box_->options.timeout : timeout;
    }
    clock::time_point deadline_after(std::chrono::milliseconds timeout) const noexcept {
        return runnel::deadline_after(clock::now(), timeout_or_usual(timeout));
    }
    /// What is left of the time for a request; throws `errc::timed_out` if nothing is.
    static std::chrono::milliseconds left_until(clock::time_point deadline) {
        auto const left = std::chrono::floor<std::chrono::milliseconds>(deadline - clock::now());
        if (left.count() < 1) throw std::system_error(make_error_code(errc::timed_out));
        return left;
    }

    /// Ends `task` with an error when its time is over, or the session.
    awaitable<void> limit(awaitable<void> task, std::chrono::milliseconds timeout) {
        auto sleeping = sleep_for<executor_type>(session_.get_executor(), deadline_after(timeout) - clock::now());
        auto ending = ended();
        std::size_t first = 0;
        try {
            first = co_await race(box_->waiters, std::move(task), std::move(sleeping), std::move(ending));
        } catch (std::system_error const& e) {
            bool const late = e.code() == mqtt::errc::message_expired || e.code() == mqtt::errc::response_timeout;
            if (!late) throw;
            first = 1;
        }
        if (first == 1) throw std::system_error(make_error_code(errc::timed_out));
        if (first == 2) throw std::system_error(make_error_code(errc::disconnected));
    }

  private:
    // While it subscribes, others wait.
    struct starter {
        explicit starter(box_type& b) noexcept : box(b) { box.starting = true; }
        ~starter() {
            box.starting = false;
            box.starters.wake_all({});
        }
        box_type& box;
    };

    static void check(aliyun::device const& who, alink::options const& o) {
        throw_unless_ok(check_device(who.product_key, who.device_name, "no secret is needed here"));
        if (o.timeout.count() < 1) throw std::out_of_range("timeout must be 1 ms or more");
        if (o.login_pause.count() < 1 || o.login_pause > std::chrono::hours(1))
            throw std::out_of_range("login_pause must be 1 ms to 1 h");
        if (o.quality == mqtt::qos::exactly_once) throw_unless_ok(aliyun::errc::qos_not_supported);
    }

    static bool is_login(topic_kind kind) noexcept {
        return kind >= topic_kind::sub_device_login && kind <= topic_kind::sub_device_batch_logout;
    }

    // A request whose reply no feature subscribes to would wait in vain.
    void throw_unless_received(topic_kind kind) const {
        if (kind == topic_kind::property_post) kind = topic_kind::event_post;
        for (auto const& t : feature_topics)
            if (t.kind == kind && has(box_->options.features, t.feature)) return;
        throw std::logic_error("the feature that this request belongs to is not among the device's");
    }

    awaitable<json> ask(topic_kind kind, std::string id, std::string topic, std::string text,
                        std::chrono::milliseconds timeout) {
        pending p(*box_, kind, id);
        auto exchanging = exchange(p, std::move(topic), std::move(text), timeout);
        co_await std::move(exchanging);
        if (auto const error = reply_error(p.reply.code)) throw std::system_error(error, printable(p.reply.message));
        co_return std::move(p.reply.data);
    }

    // What has not been sent by the deadline never is: a request that has ended must not be carried out afterwards.
    // That is why QoS 0 waits for a connection here, and not in the session. What has not left when the connection is
    // lost begins anew on the next one, where things may have to be done first.
    awaitable<void> publish(std::string topic, std::string text, mqtt::qos quality, clock::time_point deadline) {
        co_await ready();
        if constexpr (tells_of_connection<Session>)
            while (quality == mqtt::qos::at_most_once) {
                if (session_.is_connected()) {
                    auto publishing = publish_here(topic, text, deadline);
                    if (co_await std::move(publishing)) co_return;
                } else {
                    co_await session_.connected();
                }
                co_await ready();
            }
        co_await session_.publish(topic, text, {.qos = quality, .timeout = left_until(deadline)});
    }

    // False: the connection was lost first.
    awaitable<bool> publish_here(std::string const& topic, std::string const& text, clock::time_point deadline) {
        try {
            co_await session_.publish(topic, text, {.timeout = left_until(deadline), .this_connection = true});
        } catch (std::system_error const& e) {
            if (e.code() != mqtt::errc::not_connected) throw;
            co_return false;
        }
        co_return true;
    }

    awaitable<void> publish_and_wait(pending& p, std::string topic, std::string text, clock::time_point deadline) {
        if (p.kind == topic_kind::shadow_get) co_await wait_in_line(p, deadline);
        auto const quality = is_login(p.kind) ? mqtt::qos{} : box_->options.quality;
        auto publishing = publish(std::move(topic), std::move(text), quality, deadline);
        try {
            co_await std::move(publishing);
        } catch (std::system_error const& e) {
            bool const unsent = e.code() == mqtt::errc::message_expired || e.code() == errc::timed_out;
            if (unsent) box_->withdraw_from_line(p);
            throw;
        }
        while (!p.answered) {
            co_await box_->waiters.wait(p.waiting);
            if (p.waiting.result) throw std::system_error(p.waiting.result);
        }
        if (p.kind == topic_kind::shadow_get) box_->leave_line_answered(connection());
    }

    static shadow_line::connection connection_of(Session& s) {
        shadow_line::connection now;
        if constexpr (requires { s.counters().connections; }) now.number = s.counters().connections;
        if constexpr (tells_of_connection<Session>) now.is_up = s.is_connected();
        return now;
    }
    shadow_line::connection connection() { return connection_of(session_); }

    // Waits for the request's turn at the shadow.
    awaitable<void> wait_in_line(pending& p, clock::time_point deadline) {
        auto const box = box_;
        while (!box->enter_line(p, connection())) {
            auto waiting = wait_for_turn(box, p, connection());
            if (!box->waits_for_late_answer(p)) {
                co_await std::move(waiting);
                continue;
            }
            if constexpr (tells_of_connection<Session>)
                if (!session_.is_connected()) {
                    co_await session_.connected();
                    continue;
                }
            auto sleeping = sleep_for<executor_type>(session_.get_executor(), box->late_until() - clock::now());
            co_await race(box->waiters, std::move(waiting), std::move(sleeping));
        }
        // With hardly any time left it would be given up as well, and the next would have to wait for it in its turn.
        auto const now = clock::now();
        if (deadline - now >= (deadline_after(std::chrono::milliseconds(0)) - now) / 4) co_return;
        box->withdraw_from_line(p);
        throw std::system_error(make_error_code(errc::timed_out));
    }
    static awaitable<void> wait_for_turn(std::shared_ptr<box_type> box, pending const& p, shadow_line::connection on) {
        if (box->is_its_turn(p, on)) co_return;  // by now
        waiter<executor_type> w;
        co_await box->in_line.wait(w);
        if (w.result) throw std::system_error(w.result);
    }

    // Completes when the session has ended, which a subscription tells.
    awaitable<void> ended() {
        auto const box = box_;
        for (;;) {
            auto const some = std::ranges::find_if(groups_, [](group const& g) { return !g.is_refused(); });
            if (some != groups_.end()) {
                auto handle = some->handle;
                std::error_code why;
                co_await handle.receive(why);
                if (why == mqtt::errc::disconnected || why == asio::error::operation_aborted) co_return;
            }
            waiter<executor_type> others;
            co_await box->starters.wait(others);
            if (others.result) throw std::system_error(others.result);
        }
    }

    // The filters which are subscribed to with one packet: as many as the session and the platform allow.
    struct group {
        std::size_t first;
        subscription handle{};
        bool watched = false;

        bool is_refused() const noexcept {
            std::error_code const why = handle.closed();
            return why && why != mqtt::errc::disconnected;
        }
    };
    static constexpr std::size_t group_size = subscribes_to_several<Session> ? max_filters : 1;

    bool is_subscribed() const {
        bool const all = !filters_.empty() && groups_.size() == (filters_.size() + group_size - 1) / group_size;
        return all && std::ranges::none_of(groups_, [](group const& g) { return g.is_refused(); });
    }

    awaitable<void> unsubscribe_all() {
        while (!groups_.empty()) {
            auto const last = std::move(groups_.back().handle);
            groups_.pop_back();
            co_await session_.unsubscribe(last);
        }
    }

    // The first group that is not.
    awaitable<void> subscribe_some() {
        if (filters_.empty()) {
            filters_ = filters_of(box_->options.features, who_);
            for (auto const& f : handlers_.filters()) filters_.push_back(f);
        }
        std::erase_if(groups_, [](group const& g) { return g.is_refused(); });
        std::size_t first = 0;
        while (std::ranges::any_of(groups_, [&](group const& g) { return g.first == first; })) first += group_size;
        if (first >= filters_.size()) co_return;
        std::array<std::string_view, group_size> some;
        std::size_t const count = (std::min)(group_size, filters_.size() - first);
        std::copy_n(filters_.begin() + static_cast<std::ptrdiff_t>(first), count, some.begin());
        std::function<void(mqtt::publish const&)> take = [to = std::weak_ptr(box_)](mqtt::publish const& m) {
            if (auto const here = to.lock()) here->receive(m);
        };
        std::span<std::string_view const> const filters(some.data(), count);
        mqtt::subscribe_options const how{.maximum_qos = mqtt::qos::at_least_once};
        auto subscribing = [&] {
            if constexpr (subscribes_to_several<Session>)
                return session_.subscribe(filters, std::move(take), how);
            else
                return session_.subscribe(filters.front(), std::move(take), how);
        }();
        auto granted = co_await std::move(subscribing);
        groups_.push_back({first, std::move(granted)});
    }

    // --- run

    awaitable<void> serve(task_group<executor_type>& tasks) {
        auto const box = box_;
        for (auto& g : groups_) g.watched = false;
        bool begins = true;
        for (bool again = true; again;) {
            co_await ready_to_run(std::exchange(begins, false));
            box->closed.clear();
            for (auto& g : groups_)
                if (!std::exchange(g.watched, true)) tasks.start(watch(g.handle));
            co_await handle_messages(tasks);
            if (box->closed == mqtt::errc::disconnected) co_return;
            again = co_await renew();
        }
        throw std::system_error(box->closed);
    }

    awaitable<void> handle_messages(task_group<executor_type>& tasks) {
        auto const box = box_;  // in which it waits
        for (;;) {
            while (auto m = box->pop()) handlers_.begin(std::move(*m), tasks);
            if (box->closed) break;
            co_await box->waiters.wait(box->reader);
            if (box->reader.result) throw std::system_error(box->reader.result);
        }
    }

    // Notices the end of a subscription.
    awaitable<void> watch(subscription s) {
        auto const box = box_;
        std::error_code why;
        co_await s.receive(why);
        if (why == asio::error::operation_aborted || box->closed) co_return;
        box->closed = why;
        box->waiters.wake(box->reader);
    }

    Session& session_;
    aliyun::device who_;
    device_topics topics_;
    std::shared_ptr<box_type> box_;
    handler_table<Session> handlers_;
    std::vector<std::string> filters_{};
    std::vector<group> groups_{};
    // Replies to an earlier process may still be on their way, so that not each begins at the same number.
    std::uint32_t last_id_ = std::random_device{}() & 0x3FFFFFFF;
};

}  // namespace runnel::aliyun::alink::detail
