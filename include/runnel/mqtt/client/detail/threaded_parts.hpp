#pragma once

#include <runnel/core/callback.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/client/message.hpp>
#include <runnel/mqtt/client/publish_result.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/codec/owned_properties.hpp>
#include <runnel/mqtt/protocol/handover_queue.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace runnel::mqtt::detail {

RUNNEL_COLD inline std::exception_ptr failure_of(std::error_code code) {
    return std::make_exception_ptr(std::system_error(code));
}

/// A message of a producer, as a `threaded_client` holds it.
struct publication : handover_queue::item {
    std::string topic{}, payload{};
    publish_options options{};
    owned_properties props{};
    std::optional<std::promise<publish_result>> promise{};  ///< or else the callback is told
    callback<std::error_code, publish_result const&> told{};
    steady_clock::time_point deadline = (steady_clock::time_point::max)();
    std::condition_variable admitted{};   ///< its producer waits here for room
    bool is_over = false;                 ///< its client has been closed while its producer waited
    std::shared_ptr<publication> self{};  ///< as long as the queue has it

    /// Called once, when the queue does not have it any more. Throws what the callback throws.
    void tell(std::exception_ptr const& e, std::error_code code, publish_result const& result) {
        if (!promise) {
            if (told) told(code, result);
        } else if (e) {
            promise->set_exception(e);
        } else {
            promise->set_value(result);
        }
    }
};

/// Something else that a thread has asked for: told once.
struct control {
    control() = default;
    control(control const&) = delete;
    control& operator=(control const&) = delete;
    virtual ~control() = default;
    /// Begins it, on the session's executor.
    virtual void start(std::shared_ptr<control> const& self) = 0;
    virtual void fail(std::exception_ptr const& e) = 0;
    std::list<std::shared_ptr<control>>::iterator place{};
    bool is_told = false;
    bool is_begun = false;
};

/// A received message that another thread has, or will have.
struct held_message {
    explicit held_message(message&& m) noexcept : what(std::move(m)) {}
    held_message(held_message const&) = delete;
    held_message& operator=(held_message const&) = delete;
    message what;
    held_message* next = nullptr;
    bool is_abandoned = false;

    void end() noexcept {
        if (is_abandoned) what.abandon();
        what = message();
    }
};

/// What a shared pointer holds, of a class with virtual functions: nobody destroys it as this.
template <class T>
class shared_object : public std::enable_shared_from_this<T> {
  protected:
    ~shared_object() = default;
};

class threaded_base;

/// A subscription, as other threads know it.
struct threaded_channel {
    explicit threaded_channel(std::shared_ptr<threaded_base> b) noexcept : of(std::move(b)) {}
    threaded_channel(threaded_channel const&) = delete;
    threaded_channel& operator=(threaded_channel const&) = delete;
    virtual ~threaded_channel() = default;

    std::shared_ptr<threaded_base> const of;
    std::vector<std::string> filters{};  ///< these two do not change
    std::vector<qos> granted{};
    // By the mutex of `of`:
    std::deque<std::unique_ptr<held_message>> messages{};
    std::condition_variable changed{};
    std::exception_ptr closed{};  ///< why no more messages come
    bool is_left = false;         ///< nobody will take any
    bool is_read = false;         ///< it has messages: does not change

    /// Nobody has taken them: they are given back.
    void drop(std::deque<std::unique_ptr<held_message>> unread) const noexcept {
        for (auto& m : unread) {
            m->is_abandoned = true;
            m->end();
        }
    }
};

/// What does not depend on the transport: what is shared by the threads, with the mutex that guards it.
class threaded_base {
  public:
    threaded_base(handover_limits const& limits, when_full policy, std::size_t maximum_controls)
        : queue_(limits), policy_(policy), maximum_controls_(maximum_controls) {}
    threaded_base(threaded_base const&) = delete;
    threaded_base& operator=(threaded_base const&) = delete;
    virtual ~threaded_base() = default;

    /// The next message of a channel, at once or by `until`; null: none has come by then. Throws why none come.
    std::unique_ptr<held_message> take(threaded_channel& c, std::optional<steady_clock::time_point> until) {
        std::unique_lock lock(mutex_);
        auto const is_settled = [&] { return !c.messages.empty() || c.closed != nullptr; };
        if (!is_settled() && is_inside())
            throw std::system_error(std::make_error_code(std::errc::resource_deadlock_would_occur), "receive");
        if (until == (steady_clock::time_point::max)()) until.reset();
        if (!until)
            c.changed.wait(lock, is_settled);
        else if (!c.changed.wait_until(lock, *until, is_settled))
            return nullptr;
        return take_now(c);
    }
    /// The same, without waiting.
    std::unique_ptr<held_message> try_take(threaded_channel& c) {
        std::lock_guard const lock(mutex_);
        return c.messages.empty() && c.closed == nullptr ? nullptr : take_now(c);
    }

    /// A thread is done with a message.
    void give_back(std::unique_ptr<held_message> m) noexcept {
        std::lock_guard const lock(mutex_);
        if (is_over_) return m->end();  // here, as nobody else touches its inbox any more, and one after another
        m->next = returned_;
        returned_ = m.release();
        wake();
    }
    /// Nobody will take a channel's messages any more.
    void leave(threaded_channel& c) noexcept {
        if (!c.is_read) return;
        std::lock_guard const lock(mutex_);
        c.is_left = has_left_ = true;
        if (is_over_) return c.drop(std::exchange(c.messages, {}));
        wake();
    }

    std::size_t size(threaded_channel const& c) const {
        std::lock_guard const lock(mutex_);
        return c.messages.size();
    }
    bool is_connected() const {
        std::lock_guard const lock(mutex_);
        return is_connected_;
    }
    bool wait_connected(steady_clock::time_point until) {
        std::unique_lock lock(mutex_);
        auto const is_settled = [&] { return is_connected_ || !is_accepting_; };
        if (!is_settled() && is_inside())
            throw std::system_error(std::make_error_code(std::errc::resource_deadlock_would_occur), "wait_connected");
        changed_.wait_until(lock, until, is_settled);
        return is_connected_;
    }
    std::exception_ptr error() const {
        std::lock_guard const lock(mutex_);
        return error_;
    }
    std::size_t outstanding() const {
        std::lock_guard const lock(mutex_);
        return queue_.messages();
    }

    /// Takes a message, or waits, or tells it at once what has become of it. Throws what its callback throws then, or
    /// `std::bad_alloc`, and has not taken it. Returns what a callback of those has thrown whose place it takes.
    std::exception_ptr submit(std::shared_ptr<publication> const& p) {
        std::error_code refused;
        list_link dropped;
        {
            std::unique_lock lock(mutex_);
            refused = offer(p, dropped, lock);
        }
        auto failure = tell_all(dropped, errc::message_discarded);
        if (refused) tell(*p, refused);
        return failure;
    }

    /// Takes it, or tells it at once.
    void submit(std::shared_ptr<control> const& c) {
        errc why = errc::disconnected;
        {
            std::lock_guard const lock(mutex_);
            bool const is_full = controls_.size() >= maximum_controls_;
            if (is_accepting_ && !is_full) {
                post_turn();
                c->place = controls_.insert(controls_.end(), c);
                return;
            }
            if (is_accepting_) why = errc::queue_full;
        }
        c->fail(failure_of(why));
    }

  protected:
    /// As long as there is one, its thread must not wait, as if it ran the executor: it calls callbacks, and what these
    /// would wait for is this thread's to do, or nobody's.
    class insider : list_link {
      public:
        explicit insider(threaded_base& b) : of_(b) {
            std::lock_guard const lock(of_.mutex_);
            insert_before(of_.insiders_);
        }
        insider(insider const&) = delete;
        insider& operator=(insider const&) = delete;
        ~insider() {
            std::lock_guard const lock(of_.mutex_);
            unlink();
        }

      private:
        friend class threaded_base;
        threaded_base& of_;
        std::thread::id const thread_ = std::this_thread::get_id();
    };
    /// The mutex is held.
    bool has_insider() const noexcept {
        auto const here = std::this_thread::get_id();
        for (auto const* i = insiders_.next(); i != &insiders_; i = i->next())
            if (static_cast<insider const*>(i)->thread_ == here) return true;
        return false;
    }

    /// Sees to it that a turn comes on the session's executor, if that is there. The mutex is held.
    virtual void post_turn() = 0;
    /// Whether this thread runs the executor, so that it must not wait. The mutex is held.
    virtual bool is_inside() const = 0;

    // The mutex is held. An error: it has not been taken.
    std::error_code offer(std::shared_ptr<publication> const& p, list_link& dropped,
                          std::unique_lock<std::mutex>& lock) {
        if (!is_accepting_) return errc::disconnected;
        post_turn();
        auto const answer = queue_.offer(*p, policy_, [&](auto& i) { i.insert_before(dropped); });
        if (answer == handover_queue::answer::refused)
            return policy_ == when_full::drop_newest ? errc::message_discarded : errc::queue_full;
        p->self = p;
        earliest_ = (std::min)(earliest_, p->deadline);
        if (answer == handover_queue::answer::taken) return {};
        if (is_inside()) return withdraw(*p, std::make_error_code(std::errc::resource_deadlock_would_occur));
        auto const is_settled = [&] { return p->at != handover_queue::place::outside; };
        if (p->deadline == (steady_clock::time_point::max)())
            p->admitted.wait(lock, is_settled);
        else if (!p->admitted.wait_until(lock, p->deadline, is_settled))
            return withdraw(*p, errc::message_expired);
        return p->is_over ? make_error_code(errc::disconnected) : std::error_code();
    }
    std::error_code withdraw(publication& p, std::error_code why) {
        queue_.end(p);
        p.self.reset();
        admit();
        wake();
        return why;
    }
    /// Room may have become free. The mutex is held.
    void admit() noexcept {
        queue_.admit([](auto& i) { static_cast<publication&>(i).admitted.notify_one(); });
    }

    /// Takes a message out of the queue, to be told; null: somebody else has. The mutex is held.
    std::shared_ptr<publication> claim(publication& p) noexcept {
        if (p.at == handover_queue::place::nowhere) return nullptr;
        queue_.end(p);
        admit();
        return std::move(p.self);
    }
    bool claim(control& c) {
        std::lock_guard const lock(mutex_);
        if (std::exchange(c.is_told, true)) return false;
        controls_.erase(c.place);
        return true;
    }

    static void tell(publication& p, std::error_code code, std::exception_ptr const& e = {}) {
        p.tell(p.promise && !e ? failure_of(code) : e, code, {});
    }
    /// Tells all, which are in nobody's list then. Returns the first exception of their callbacks.
    static std::exception_ptr tell_all(list_link& list, std::error_code code, std::exception_ptr const& e = {}) {
        std::exception_ptr failure;
        while (list.linked()) {
            auto& p = static_cast<publication&>(static_cast<handover_queue::item&>(*list.next()));
            p.unlink();
            auto const here = std::move(p.self);
            try {
                tell(p, code, e);
            } catch (...) {
                if (!failure) failure = std::current_exception();
            }
        }
        return failure;
    }

    /// No more is taken, and producers who wait go on. The mutex is held.
    void refuse() noexcept {
        is_accepting_ = false;
        while (auto* const i = queue_.oldest(handover_queue::place::outside)) {
            auto& p = static_cast<publication&>(*i);
            queue_.end(p);
            p.is_over = true;
            p.self.reset();  // its producer has it
            ++undelivered_;
            p.admitted.notify_one();
        }
        changed_.notify_all();
    }

    /// All that is left is told `why`, and those messages that have been `handed` over, too. What callbacks throw
    /// becomes the error, if there is none.
    void fail_all(std::error_code why, std::exception_ptr const& e, bool handed) noexcept {
        list_link all;
        std::list<std::shared_ptr<control>> controls;
        {
            std::lock_guard const lock(mutex_);
            refuse();
            auto const fail = [&](auto& i) {
                queue_.end(i);
                i.insert_before(all);
                ++undelivered_;
            };
            if (handed) queue_.for_each(handover_queue::place::handed, fail);
            queue_.for_each(handover_queue::place::waiting, fail);
            if (handed) controls.swap(controls_);
            for (auto const& c : controls) c->is_told = true;
        }
        try {
            for (auto const& c : controls) c->fail(e);
            if (auto failure = tell_all(all, why, e)) note(std::move(failure));
        } catch (...) {
            note(std::current_exception());
        }
    }

    void note(std::exception_ptr e) noexcept {
        std::lock_guard const lock(mutex_);
        if (error_ == nullptr) error_ = std::move(e);
    }

    /// Done with what threads have given back. On the executor, or with the mutex held once all is over.
    static void end_all(held_message* list) noexcept {
        while (list != nullptr) {
            std::unique_ptr<held_message> const m(list);
            list = m->next;
            m->end();
        }
    }

    // If there is no memory for it, the next one who wakes the executor does.
    void wake() noexcept {
        try {
            post_turn();
        } catch (...) {
        }
    }

    mutable std::mutex mutex_{};
    // All that follows by the mutex.
    handover_queue queue_;
    when_full const policy_;
    std::size_t const maximum_controls_;
    std::list<std::shared_ptr<control>> controls_{};  // that have not been told
    held_message* returned_ = nullptr;
    steady_clock::time_point earliest_ = (steady_clock::time_point::max)();  // deadline of what waits
    std::condition_variable changed_{};                                      // of the members below
    std::exception_ptr error_{};                                             // with which `run` has ended
    std::size_t undelivered_ = 0;
    bool is_accepting_ = true;
    bool is_connected_ = false;
    bool has_left_ = false;  // a channel that is left has not been dropped
    bool is_over_ = false;   // there is no session any more, and no executor
    list_link insiders_{};

  private:
    std::unique_ptr<held_message> take_now(threaded_channel& c) {
        if (c.messages.empty()) std::rethrow_exception(c.closed);
        auto m = std::move(c.messages.front());
        c.messages.pop_front();
        return m;
    }
};

/// Who has one may take messages; the last one to go says so.
struct channel_handle {
    explicit channel_handle(std::shared_ptr<threaded_channel> c) noexcept : of(std::move(c)) {}
    channel_handle(channel_handle const&) = delete;
    channel_handle& operator=(channel_handle const&) = delete;
    ~channel_handle() { of->of->leave(*of); }
    std::shared_ptr<threaded_channel> const of;
};

}  // namespace runnel::mqtt::detail
