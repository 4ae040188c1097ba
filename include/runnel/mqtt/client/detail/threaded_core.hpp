#pragma once

#include <runnel/coro/capture_error.hpp>
#include <runnel/coro/exception_code.hpp>
#include <runnel/coro/waitable_timer.hpp>
#include <runnel/coro/with_slot.hpp>
#include <runnel/mqtt/client/async.hpp>
#include <runnel/mqtt/client/detail/threaded_parts.hpp>

#include RUNNEL_ASIO(any_io_executor.hpp)
#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(co_spawn.hpp)
#include RUNNEL_ASIO(io_context.hpp)
#include RUNNEL_ASIO(post.hpp)
#include RUNNEL_ASIO(strand.hpp)
#include RUNNEL_ASIO(use_awaitable.hpp)

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// How a `threaded_client` has ended.
struct close_report {
    /// Messages that were accepted, or whose producers waited for room, and whose future or callback was told an error
    /// as the client has ended before. Of QoS 1 and 2 some may have arrived all the same; with a store the session of
    /// the next process sends those that this one had been handed.
    std::size_t undelivered = 0;
    /// Whether the end came within the limit: all was delivered, or could no longer be, as `run` had ended.
    bool in_time = true;
};

namespace detail {

/// The session of a `threaded_client`, and all that happens on its executor. It belongs to those who use it: the
/// client, what waits on the executor, messages that were taken. `token`s count what runs on the executor: when the
/// last one goes, also because the execution context does, all is over, and nothing touches the executor any more.
///
/// Threads run at the same time: what was read with the mutex may have changed once it is given back. While a coroutine
/// is suspended, others may write this:
///
/// | member                                               | is written by                                             |
/// |------------------------------------------------------|-----------------------------------------------------------|
/// | what `threaded_base` has behind `mutex_`             | any thread, with the mutex                                |
/// | `is_posted_` to `report_`                            | any thread, with the mutex; `report_` by `finish` alone,  |
/// |                                                      | which reads it without                                    |
/// | a channel's `messages`, `closed`, `is_left`          | any thread, with the mutex                                |
/// | `channels_`                                          | what runs on the executor, with the mutex, and reads it   |
/// |                                                      | without                                                   |
/// | `base_`, `strand_`, `executor_`                      | the constructor; `finish`, with the mutex. What runs on   |
/// |                                                      | the executor reads them without: it has a token, or looks |
/// |                                                      | for `session_` first                                      |
/// | `io_`                                                | `drop_context`, with the mutex: of the thread that runs   |
/// |                                                      | it, which reads it without, or when there is none         |
/// | `session_` to `is_cut_`; a channel's `known`, `stop` | `start`; then what runs on the executor, one after        |
/// |                                                      | another; `finish`                                         |
/// | `tokens_`, `is_given_up_`                            | any thread: atomic                                        |
///
/// No callback of the user's is called with the mutex. Behind each suspension `session_` may be null: `run` has ended.
template <class Transport>
class threaded_core final : public threaded_base, public shared_object<threaded_core<Transport>> {
  public:
    using session_type = session<Transport>;
    using executor_type = typename session_type::executor_type;
    using ops = operations<session_type>;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;
    static_assert(std::is_same_v<executor_type, asio::any_io_executor>,
                  "threaded_client: the transport's executor must be asio::any_io_executor, as that of runnel::tcp is");

    /// A subscription, with what belongs to the executor.
    struct channel final : threaded_channel {
        using threaded_channel::threaded_channel;
        std::optional<typename session_type::subscription> known{};
        asio::cancellation_signal stop{};  // of `pump`
    };

    threaded_core(std::optional<asio::any_io_executor> given, handover_limits const& limits, when_full policy,
                  std::size_t maximum_requests, callback<std::exception_ptr> on_end)
        : threaded_base(limits, policy, maximum_requests),
          on_end_(std::move(on_end)),
          io_(given ? nullptr : std::make_unique<asio::io_context>(1)),
          base_(given ? *given : asio::any_io_executor(io_->get_executor())) {
        if (given) strand_ = asio::make_strand(*base_);
        executor_ = strand_ ? executor_type(*strand_) : *base_;
    }
    threaded_core(threaded_core const&) = delete;
    threaded_core& operator=(threaded_core const&) = delete;

    /// Once. Throws what the session's constructor throws.
    void start(Transport transport, session_options options) {
        auto const self = this->shared_from_this();
        options.on_event = [this, told = std::move(options.on_event)](session_event const& e) { on_event(e, told); };
        guard(options.make_credentials);
        guard(options.reconnect.classify);
        session_ = std::make_unique<session_type>(*executor_, std::move(transport), std::move(options));
        try {
            asio::co_spawn(
                *executor_, ops::run(*session_),
                runnel::detail::with_slot(*executor_, stop_.slot(), [t = token(self)](std::exception_ptr e) mutable {
                    t.of->run_ended(std::move(e));
                }));
        } catch (...) {
            drop_context();
            throw;
        }
    }
    /// What a thread of its own does. If it has been stopped, the context goes with it, as that may have to wait.
    void work() {
        insider const inside(*this);
        run_context([this] { io_->run(); });
        if (is_over()) {  // what can be done now is still done
            io_->restart();
            run_context([this] { io_->poll(); });
        }
        if (!enter(thread_phase::silent)) drop_context();
        enter(thread_phase::ended);
    }
    /// There is no thread for it any more: what is left of it goes.
    void drop_context() noexcept {
        std::unique_ptr<asio::io_context> gone;
        std::lock_guard const lock(mutex_);
        gone.swap(io_);
    }
    /// Of a thread of its own.
    void stop() noexcept {
        std::lock_guard const lock(mutex_);
        stop_thread();
    }
    /// Waits until its thread calls nobody any more. False: it has not ended by then, nor `patience` later.
    bool wait_for_thread(std::chrono::milliseconds patience) {
        std::unique_lock lock(mutex_);
        auto const has_ended = [&] { return phase_ == thread_phase::ended; };
        if (changed_.wait_for(lock, patience, has_ended)) return true;
        stop_thread();
        changed_.wait(lock, [&] { return phase_ != thread_phase::works; });
        return changed_.wait_for(lock, patience, has_ended);
    }

    bool is_on_executor() const {
        std::lock_guard const lock(mutex_);
        return is_inside();
    }

    /// Begins to close: for at most `limit`, if nobody has asked for less.
    std::future<close_report> begin_close(std::chrono::milliseconds limit) {
        std::promise<close_report> closer;
        auto report = closer.get_future();
        std::lock_guard const lock(mutex_);
        if (is_over_) {
            closer.set_value(report_);
            return report;
        }
        closers_.push_back(std::move(closer));
        try {
            post_turn();
        } catch (...) {
            closers_.pop_back();
            throw;
        }
        refuse();
        close_by_ = (std::min)(close_by_, steady_clock::now() + limit);
        is_closing_ = true;
        return report;
    }
    /// Nobody runs the executor: what is left is told here.
    close_report give_up() noexcept {
        insider const inside(*this);
        is_given_up_ = true;
        fail_all(errc::close_timeout, failure_of(errc::close_timeout), true);
        std::lock_guard const lock(mutex_);
        for (auto const& c : channels_) {
            if (c->closed == nullptr) c->closed = failure_of(errc::close_timeout);
            c->changed.notify_all();
        }
        return {undelivered_, false};
    }

    /// Begins something on the executor that has a future: `make(core)` makes its coroutine, which returns nothing or
    /// an optional `T`.
    template <class T, class Make>
    std::future<T> ask(Make make) {
        auto c = std::make_shared<operation<T, Make>>(*this, std::move(make));
        auto result = c->promise.get_future();
        submit(std::static_pointer_cast<control>(std::move(c)));
        return result;
    }

    /// Ends the session, for what a callback has thrown on whatever thread.
    void end_by(std::exception_ptr e) noexcept {
        try {
            std::lock_guard const lock(mutex_);
            if (!is_over_) return asio::post(*executor_, [self = this->shared_from_this(), e] { self->end_run(e); });
            if (error_ == nullptr) error_ = e;
        } catch (...) {
            note(std::move(e));
        }
    }

    session_type& its_session() noexcept { return *session_; }
    /// Ahead of each call of the user's in the session, which ends by this if nobody is to be called any more. What it
    /// was about to give is then as what a handler fails for: not acknowledged.
    void check_given_up() {
        if (!is_given_up_) return;
        is_cut_ = true;
        throw std::system_error(errc::close_timeout);
    }

    /// Subscribes, with a handler or, if that is empty, with a channel that is filled.
    static awaitable<std::shared_ptr<channel_handle>> subscribe(threaded_core& c, std::vector<std::string> filters,
                                                                typename session_type::message_handler handler,
                                                                subscribe_options o, user_properties props) {
        auto const self = c.shared_from_this();
        bool const is_read = !handler;
        if (!is_read) handler = guarded(c, std::move(handler));
        auto subscribing = ops::subscribe(*c.session_, std::move(filters), std::move(handler), o, std::move(props));
        auto made = co_await std::move(subscribing);
        auto to = std::make_shared<channel>(self);
        to->is_read = is_read;
        auto handle = std::make_shared<channel_handle>(to);
        for (std::size_t i = 0; i < made.filters(); ++i) {
            to->filters.push_back(made.filter(i));
            to->granted.push_back(made.granted_qos(i));
        }
        to->known = made;
        {
            std::lock_guard const lock(c.mutex_);
            c.channels_.push_back(to);
        }
        if (is_read)
            asio::co_spawn(
                *c.executor_, pump(to, std::move(made)),
                runnel::detail::with_slot(*c.executor_, to->stop.slot(), [t = token(self), to](std::exception_ptr e) {
                    t.of->end(*to, std::move(e));
                }));
        co_return handle;
    }
    static awaitable<void> unsubscribe(threaded_core& c, std::shared_ptr<channel_handle> handle) {
        if (handle->of->of.get() != &c) throw std::system_error(errc::disconnected);  // another client's
        auto& from = static_cast<channel&>(*handle->of);
        if (!from.known) throw std::system_error(errc::disconnected);
        auto const self = c.shared_from_this();
        auto unsubscribing = ops::unsubscribe(*c.session_, *from.known, {});
        co_await std::move(unsubscribing);
        if (from.is_read) co_return;  // what waits can still be taken
        from.known.reset();
        std::lock_guard const lock(c.mutex_);
        std::erase_if(c.channels_, [&](auto const& one) { return one.get() == &from; });
    }

  private:
    class token {
      public:
        explicit token(std::shared_ptr<threaded_core> c) noexcept : of(std::move(c)) { ++of->tokens_; }
        token(token const& other) noexcept : token(other.of) {}
        token(token&&) noexcept = default;
        token& operator=(token const&) = delete;
        ~token() {
            if (of && --of->tokens_ == 0) of->finish();
        }
        std::shared_ptr<threaded_core> of;
    };

    // What the session calls is not called any more once that is given up.
    template <class R, class... Argument>
    void guard(std::function<R(Argument...)>& f) {
        if (!f) return;
        f = [this, asked = std::move(f)](Argument... a) {
            check_given_up();
            return asked(std::move(a)...);
        };
    }
    static typename session_type::message_handler guarded(threaded_core& c,
                                                          typename session_type::message_handler handler) {
        return [&c, told = std::move(handler)](publish const& m) {
            c.check_given_up();
            told(m);
        };
    }

    template <class T, class Make>
    struct operation final : control {
        operation(threaded_core& c, Make m) : core(c), make(std::move(m)) {}
        void start(std::shared_ptr<control> const& self) override {
            asio::co_spawn(*core.executor_, make(core), handler{token(core.shared_from_this()), self});
        }
        void fail(std::exception_ptr const& e) override { promise.set_exception(e); }
        struct handler {
            token t;
            std::shared_ptr<control> self;
            template <class... Result>
            void operator()(std::exception_ptr e, Result... result) const {
                auto& o = static_cast<operation&>(*self);
                if (!t.of->claim(o)) return;
                if (e)
                    o.promise.set_exception(std::move(e));
                else if constexpr (std::is_void_v<T>)
                    o.promise.set_value();
                else
                    (o.promise.set_value(std::move(*result)), ...);
            }
        };
        threaded_core& core;  // which starts it
        Make make;
        std::promise<T> promise{};
    };

    // --- what other threads do, with the mutex

    void post_turn() override {
        if (is_posted_ || is_over_) return;
        asio::post(*executor_, [self = this->shared_from_this()] { self->turn(); });
        is_posted_ = true;
    }
    bool is_inside() const override {
        if (has_insider()) return true;
        if (strand_ && strand_->running_in_this_thread()) return true;
        using plain = asio::io_context::executor_type;
        auto const* const executor = base_ ? base_->template target<plain>() : nullptr;
        return executor != nullptr && executor->running_in_this_thread();
    }

    // --- on the executor

    void turn() {
        held_message* returned = nullptr;
        std::vector<std::shared_ptr<control>> begun;
        std::vector<std::shared_ptr<channel>> left;
        bool is_closing = false;
        try {
            std::lock_guard const lock(mutex_);
            is_posted_ = false;
            if (is_over_) return end_all(std::exchange(returned_, nullptr));
            begun.reserve(controls_.size());
            left.reserve(has_left_ ? channels_.size() : 0);
            returned = std::exchange(returned_, nullptr);
            is_closing = is_closing_;
            for (auto const& c : controls_)
                if (!std::exchange(c->is_begun, true)) begun.push_back(c);
            if (std::exchange(has_left_, false))
                std::erase_if(channels_, [&](auto const& c) {
                    if (c->is_left) left.push_back(c);
                    return c->is_left;
                });
        } catch (...) {
            return end_run(std::current_exception());
        }
        end_all(returned);
        for (auto const& c : left) drop(*c);
        for (auto const& c : begun) begin(c);
        hand_over();
        watch_expiry();
        if (is_closing) close();
    }

    void begin(std::shared_ptr<control> const& c) {
        try {
            if (session_) return c->start(c);
            if (claim(*c)) c->fail(failure_of(errc::disconnected));
        } catch (...) {
            if (claim(*c)) c->fail(std::current_exception());
        }
    }

    void drop(channel& c) {
        runnel::detail::try_to_cancel(c.stop);
        c.known.reset();
        std::deque<std::unique_ptr<held_message>> unread;
        {
            std::lock_guard const lock(mutex_);
            unread.swap(c.messages);
        }
        c.drop(std::move(unread));
    }

    // Gives the session what it may have.
    void hand_over() {
        while (session_) {
            std::shared_ptr<publication> p;
            {
                std::lock_guard const lock(mutex_);
                if (auto* const i = queue_.next()) p = static_cast<publication&>(*i).self;
            }
            if (!p) return;
            begin(*p, p);
        }
    }
    void begin(publication& p, std::shared_ptr<publication> const& self) {
        try {
            if (p.deadline != never()) {
                auto const left = std::chrono::ceil<std::chrono::milliseconds>(p.deadline - steady_clock::now());
                if (left.count() <= 0) return tell_one(p, failure_of(errc::message_expired), {});
                p.options.timeout = left;
            }
            auto publishing =
                ops::publish(*session_, std::move(p.topic), std::move(p.payload), p.options, std::move(p.props));
            asio::co_spawn(*executor_, std::move(publishing),
                           [t = token(this->shared_from_this()), self](std::exception_ptr e, publish_result r) {
                               t.of->told(*self, std::move(e), r);
                           });
        } catch (...) {
            tell_one(p, std::current_exception(), {});
        }
    }

    void told(publication& p, std::exception_ptr e, publish_result const& r) {
        tell_one(p, std::move(e), r);
        hand_over();
    }
    void tell_one(publication& p, std::exception_ptr e, publish_result const& r) {
        std::shared_ptr<publication> here;
        bool is_empty = false;
        auto const code = exception_code(e);
        {
            std::lock_guard const lock(mutex_);
            here = claim(p);
            if (!here) return;
            if (code == errc::disconnected && !is_accepting_) ++undelivered_;
            is_empty = queue_.empty();
        }
        try {
            here->tell(e, code, r);
        } catch (...) {
            end_run(std::current_exception());
        }
        if (is_empty && closing_timer_ != nullptr) closing_timer_->cancel();
    }

    // What waits too long here is told so.
    void watch_expiry() {
        auto when = never();
        {
            std::lock_guard const lock(mutex_);
            when = earliest_;
        }
        if (when == armed_ || !session_) return;
        if (!expiry_) expiry_.emplace(*executor_);
        armed_ = when;
        expiry_->expires_at(when);
        expiry_->async_wait([self = this->shared_from_this()](asio_error_code e) {
            if (!e) self->expire();
        });
    }
    void expire() {
        list_link late;
        armed_ = never();
        {
            std::lock_guard const lock(mutex_);
            earliest_ = never();
            auto const now = steady_clock::now();
            queue_.for_each(handover_queue::place::waiting, [&](auto& i) {
                auto const deadline = static_cast<publication&>(i).deadline;
                if (deadline > now) return static_cast<void>(earliest_ = (std::min)(earliest_, deadline));
                queue_.end(i);
                i.insert_before(late);
            });
            queue_.for_each(handover_queue::place::outside,
                            [&](auto& i) { earliest_ = (std::min)(earliest_, static_cast<publication&>(i).deadline); });
            admit();
        }
        if (auto failure = tell_all(late, errc::message_expired)) end_run(std::move(failure));
        hand_over();
        watch_expiry();
    }

    static awaitable<void> pump(std::shared_ptr<channel> to, typename session_type::subscription from) {
        auto& c = static_cast<threaded_core&>(*to->of);
        for (;;) {
            auto receiving = from.receive();
            auto received = co_await std::move(receiving);
            auto held = std::make_unique<held_message>(std::move(received));
            if (!c.keep(*to, held)) co_return;
        }
    }
    // False: nobody will take any.
    bool keep(channel& c, std::unique_ptr<held_message>& m) {
        {
            std::lock_guard const lock(mutex_);
            if (!c.is_left) {
                c.messages.push_back(std::move(m));
                c.changed.notify_one();
                return true;
            }
        }
        m->is_abandoned = true;
        m->end();
        return false;
    }
    void end(channel& c, std::exception_ptr e) {
        std::lock_guard const lock(mutex_);
        c.closed = std::move(e);
        c.changed.notify_all();
    }

    void on_event(session_event const& e, callback<session_event const&> const& told) {
        {
            std::lock_guard const lock(mutex_);
            if (e.what == session_event::kind::connected) is_connected_ = true;
            if (e.what == session_event::kind::disconnected) is_connected_ = false;
            changed_.notify_all();
        }
        if (!told || is_given_up_) return;
        try {
            told(e);
        } catch (...) {
            end_run(std::current_exception());
        }
    }

    // --- the end

    // A callback has thrown, or there is no memory: in a later turn, as this may be within the session.
    void end_run(std::exception_ptr e) noexcept {
        if (!session_) return note(std::move(e));
        if (!failure_) failure_ = std::move(e);
        try {
            asio::post(*executor_, [self = this->shared_from_this()] { runnel::detail::try_to_cancel(self->stop_); });
        } catch (...) {
            runnel::detail::try_to_cancel(stop_);
        }
    }

    void run_ended(std::exception_ptr e) {
        if (failure_) e = failure_;
        if (e && !(is_cut_ && !failure_)) note(e);
        std::error_code code = errc::disconnected;
        auto text = end_text(e, code);
        auto const why = std::make_exception_ptr(std::system_error(errc::disconnected, std::move(text)));
        session_.reset();
        expiry_.reset();
        cut_.reset();
        for (auto const& c : channels_) c->known.reset();
        {
            std::lock_guard const lock(mutex_);
            is_connected_ = false;
        }
        fail_all(errc::disconnected, why, false);
        if (closing_timer_ != nullptr) closing_timer_->cancel();
        if (!on_end_ || is_given_up_) return;
        try {
            on_end_(error());
        } catch (...) {
            note(std::current_exception());
        }
    }

    // Someone has asked for it, perhaps once more, with a shorter limit.
    void close() {
        if (closing_timer_ != nullptr) closing_timer_->cancel();
        if (!session_) return;
        cut_in_time();
        if (std::exchange(closes_, true)) return;
        try {
            asio::co_spawn(*executor_, close_in_order(this->shared_from_this()),
                           [t = token(this->shared_from_this())](std::exception_ptr e) {
                               if (e) t.of->end_run(e);
                           });
        } catch (...) {
            end_run(std::current_exception());
        }
    }
    // Whatever is being done then is over by the limit.
    void cut_in_time() {
        if (!cut_) cut_.emplace(*executor_);
        {
            std::lock_guard const lock(mutex_);
            cut_->expires_at(close_by_);
        }
        cut_->async_wait([self = this->shared_from_this()](asio_error_code e) {
            if (!e) self->cut();
        });
    }
    void cut() {
        if (!session_) return;
        is_cut_ = true;
        runnel::detail::try_to_cancel(stop_);
    }
    static awaitable<void> close_in_order(std::shared_ptr<threaded_core> c) {
        auto delivering = delivered(c);
        bool const is_delivered = co_await std::move(delivering);
        if (!is_delivered) co_return c->cut();
        try {
            auto ending = end_in_order(c);
            co_await std::move(ending);
        } catch (std::system_error const&) {  // the session has ended otherwise, or has been cut
        }
    }
    // QoS 0 messages may still wait in the session for a connection.
    static awaitable<void> end_in_order(std::shared_ptr<threaded_core> c) {
        auto draining = c->session_->drained();
        co_await std::move(draining);
        if (!c->session_) co_return;
        auto disconnecting = c->session_->disconnect();
        co_await std::move(disconnecting);
    }
    // Waits until all is told, for as long as there is time. Whether it is, and there still is a session.
    static awaitable<bool> delivered(std::shared_ptr<threaded_core> c) {
        waitable_timer<executor_type> timer(*c->executor_);
        struct guard {
            ~guard() { core.closing_timer_ = nullptr; }
            threaded_core& core;
        } const at_end{*c};
        c->closing_timer_ = &timer;
        for (;;) {
            bool is_empty = false;
            auto by = steady_clock::now();
            {
                std::lock_guard const lock(c->mutex_);
                by = c->close_by_;
                is_empty = c->queue_.empty();
            }
            if (is_empty || !c->session_ || steady_clock::now() >= by) co_return is_empty && c->session_ != nullptr;
            timer.expires_at(by);
            std::error_code ended;
            auto waiting = timer.async_wait(asio::use_awaitable_t<executor_type>{});
            co_await capture_error(std::move(waiting), ended);
        }
    }

    // The last token has gone: on the executor, or as the execution context ends.
    void finish() noexcept {
        auto const self = this->shared_from_this();
        insider const inside(*this);
        session_.reset();
        expiry_.reset();
        cut_.reset();
        for (auto const& c : channels_) c->known.reset();
        fail_all(errc::disconnected, failure_of(errc::disconnected), true);
        std::vector<std::promise<close_report>> closers;
        std::vector<std::shared_ptr<channel>> channels;
        {
            std::lock_guard const lock(mutex_);
            is_over_ = true;
            is_connected_ = false;
            end_all(std::exchange(returned_, nullptr));
            channels.swap(channels_);
            for (auto const& c : channels) {
                if (c->is_left) c->drop(std::exchange(c->messages, {}));
                if (c->closed == nullptr) c->closed = failure_of(errc::disconnected);
                c->changed.notify_all();
            }
            report_ = {undelivered_, !is_cut_};
            closers.swap(closers_);
            changed_.notify_all();
            executor_.reset();
            strand_.reset();
            base_.reset();
        }
        for (auto& closer : closers) closer.set_value(report_);
    }

    // --- a thread of its own

    template <class Run>
    void run_context(Run run) {
        for (;;) try {
                return static_cast<void>(run());
            } catch (...) {
                end_run(std::current_exception());
            }
    }
    // The mutex is held.
    void stop_thread() noexcept {
        is_stopped_ = true;
        if (io_) io_->stop();
    }
    bool is_over() const {
        std::lock_guard const lock(mutex_);
        return is_over_;
    }
    enum class thread_phase : std::uint8_t { works, silent, ended };
    // Whether it has come so far by itself: then it has nothing more to do.
    bool enter(thread_phase p) noexcept {
        std::lock_guard const lock(mutex_);
        phase_ = is_stopped_ ? p : thread_phase::ended;
        changed_.notify_all();
        return !is_stopped_;
    }

    static constexpr steady_clock::time_point never() noexcept { return (steady_clock::time_point::max)(); }

    callback<std::exception_ptr> const on_end_;
    std::unique_ptr<asio::io_context> io_;  // nullptr: somebody else's, or gone; changed with the mutex
    // Changed by `finish` alone, with the mutex.
    std::optional<asio::any_io_executor> base_;
    std::optional<asio::strand<asio::any_io_executor>> strand_{};
    std::optional<executor_type> executor_{};
    // Of the executor.
    std::unique_ptr<session_type> session_{};           // nullptr: it has ended
    asio::cancellation_signal stop_{};                  // of `run`
    std::vector<std::shared_ptr<channel>> channels_{};  // changed with the mutex
    std::exception_ptr failure_{};                      // which ends `run`
    std::optional<waitable_timer<executor_type>> expiry_{};
    std::optional<waitable_timer<executor_type>> cut_{};
    steady_clock::time_point armed_ = never();
    waitable_timer<executor_type>* closing_timer_ = nullptr;
    bool closes_ = false;
    bool is_cut_ = false;  // there was no time to end in good order
    std::atomic<int> tokens_{0};
    std::atomic<bool> is_given_up_{false};  // the user is not to be called by the executor any more
    // By the mutex.
    bool is_posted_ = false;
    bool is_closing_ = false;
    bool is_stopped_ = false;  // its own thread
    thread_phase phase_ = thread_phase::works;
    steady_clock::time_point close_by_ = never();
    std::vector<std::promise<close_report>> closers_{};
    close_report report_{};
};

}  // namespace detail

}  // namespace runnel::mqtt
