#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/list_link.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/detail/asio_thread.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(cancellation_type.hpp)
#include RUNNEL_ASIO(defer.hpp)
#include RUNNEL_ASIO(dispatch.hpp)
#include RUNNEL_ASIO(error.hpp)
#include RUNNEL_ASIO_EXECUTION(blocking.hpp)
#include RUNNEL_ASIO_EXECUTION(context.hpp)
#include RUNNEL_ASIO_EXECUTION(relationship.hpp)
#include RUNNEL_ASIO(execution_context.hpp)
#include RUNNEL_ASIO(post.hpp)
#include RUNNEL_ASIO(prefer.hpp)
#include RUNNEL_ASIO(query.hpp)
#include RUNNEL_ASIO(require.hpp)

#include <cstddef>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

namespace runnel {

/// What the execution context knows about wait lists: only how to destroy what waits there.
class wait_list_registry : public asio::execution_context::service {
  public:
    using key_type = wait_list_registry;
    inline static asio::execution_context::id id{};

    struct entry : list_link {
        /// Destroys one waiting coroutine, and with it perhaps the list; false if none waits.
        using destroy_function = bool (*)(entry&) noexcept;
        explicit entry(destroy_function f) noexcept : destroy_one(f) {}
        destroy_function const destroy_one;
    };

    explicit wait_list_registry(asio::execution_context& context) : service(context) {}

    void add(entry& e) {
        std::lock_guard const lock(mutex_);
        e.insert_before(lists_);
    }

    void remove(entry& e) noexcept {
        std::lock_guard const lock(mutex_);
        e.unlink();
    }

  private:
    void shutdown() override {
        // The context's threads have ended: no lock, as destroying a coroutine may remove lists.
        while (lists_.linked()) {
            auto& first = static_cast<entry&>(*lists_.next());
            if (!first.destroy_one(first)) first.unlink();
        }
    }

    std::mutex mutex_{};
    list_link lists_{};
};

template <class Executor>
class wait_list;
template <class Executor>
class wake_queue;

/// A share in a wake queue, which the last one to go destroys. Counting costs next to nothing, as all are on one
/// executor.
template <class Executor>
class wake_queue_share {
  public:
    explicit wake_queue_share(wake_queue<Executor>& queue) noexcept : queue_(&queue) { ++queue_->shares_; }
    wake_queue_share(wake_queue_share const& other) noexcept : wake_queue_share(*other.queue_) {}
    wake_queue_share(wake_queue_share&& other) noexcept : queue_(std::exchange(other.queue_, nullptr)) {}
    wake_queue_share& operator=(wake_queue_share const&) = delete;
    ~wake_queue_share() {
        if (queue_ != nullptr && --queue_->shares_ == 0) free(queue_);
    }

    explicit operator bool() const noexcept { return queue_ != nullptr; }
    wake_queue<Executor>* operator->() const noexcept { return queue_; }

  private:
    RUNNEL_COLD RUNNEL_NOINLINE static void free(wake_queue<Executor>* queue) noexcept { delete queue; }

    wake_queue<Executor>* queue_;
};

/// One coroutine waiting, with the result of its wait. Lives in the coroutine's own frame, or where the coroutine keeps
/// it alive: waiting allocates nothing.
template <class Executor>
class waiter : public list_link {
  public:
    /// Why the coroutine was woken: no error, or `operation_aborted` after a cancellation, or what `wake` was given.
    std::error_code result{};

    /// Whether it waits to be woken.
    bool is_waiting() const noexcept { return list_ != nullptr; }

  private:
    friend class wait_list<Executor>;
    friend class wake_queue<Executor>;

    using coroutine = detail::suspended<Executor>;

    coroutine take_coroutine() noexcept {
        auto taken = std::move(*coroutine_);
        coroutine_.reset();
        return taken;
    }

    void destroy() noexcept {
        unlink();
        list_ = nullptr;
        auto const taken = take_coroutine();  // which may own the frame in which this lives
    }

    std::optional<coroutine> coroutine_{};  // from `wait` until it goes on
    wait_list<Executor>* list_ = nullptr;   // where it waits; nullptr once it has been woken
};

/// Those who have been woken and have not gone on yet. One operation posted to the executor lets all of them go on, in
/// the order in which they were woken, so that many wakes cost one trip through the executor, and no memory.
///
/// It outlives the wait lists that use it for as long as anybody is ready. The posted operation owns those who are
/// ready: if the execution context ends first, it destroys them.
template <class Executor>
class wake_queue {
  public:
    using waiter_type = waiter<Executor>;

    RUNNEL_COLD explicit wake_queue(Executor executor)
        : executor_(std::move(executor)),
          later_(later(executor_)),
          registry_(asio::use_service<wait_list_registry>(asio::query(executor_, asio::execution::context))) {}

    Executor const& get_executor() const noexcept { return executor_; }

    /// Where the lists are known that use it.
    wait_list_registry& registry() const noexcept { return registry_; }

    /// Lets a coroutine go on in a later turn of the executor, and takes its waiter out of the list where it is. If
    /// there is no memory for that turn, nothing changes.
    void push(waiter_type& w) {
        if (!posted_ && !holds_) post();
        move(w, ready_);
    }

    /// Lets a coroutine go on behind all those that are going on now, in the same turn; in a later one if none are.
    /// For who does at once what the others have left to be done, as a writer does: a turn costs a system call.
    void push_behind(waiter_type& w) {
        if (!in_turn_ && !holds_) return push(w);
        move(w, behind_);
    }

    /// For a coroutine that is going on and wakes many, as a reader does: whoever is woken from now on goes on when
    /// `end_turn` is called. The executor is not asked, which would look for I/O first: a system call. `end_turn` is a
    /// suspension point to the caller, as it were: anything may have happened when it returns. What a coroutine throws
    /// that goes on by it leaves the executor's `run`, not `end_turn`. No effect among those that go on in a turn.
    void begin_turn() noexcept { holds_ = !in_turn_; }
    void end_turn() {
        if (!release()) return;
        wake_queue_share<Executor> const here(*this);
        try {
            let_go_on();
        } catch (...) {
            asio::post(executor_, [error = std::current_exception()] { std::rethrow_exception(error); });
        }
    }
    /// The same, but they go on in a later turn.
    RUNNEL_COLD void end_turn_later() {
        if (!release()) return;
        ready_.take_all(behind_);
        if (!posted_) post();
    }

  private:
    friend class wake_queue_share<Executor>;

    // The posted operation. If it is destroyed without having run, the context has ended.
    class drain {
      public:
        explicit drain(wake_queue& queue) noexcept : queue_(queue) {}
        drain(drain&&) noexcept = default;
        ~drain() {
            if (queue_ && queue_->posted_) queue_->destroy_ready();
        }
        void operator()() {
            auto const queue = std::move(queue_);
            queue->run();
        }

      private:
        wake_queue_share<Executor> queue_;
    };

    static auto later(Executor const& executor) {
        return asio::prefer(asio::require(executor, asio::execution::blocking.never),
                            asio::execution::relationship.continuation);
    }

    static void move(waiter_type& w, list_link& to) noexcept {
        w.unlink();
        w.list_ = nullptr;
        w.insert_before(to);
    }

    RUNNEL_NOINLINE void post() {
        drain operation(*this);
        if constexpr (requires { later_.execute(std::move(operation)); })
            later_.execute(std::move(operation));
        else
            asio::defer(later_, std::move(operation));  // Asio before 1.24 hides some executors' `execute`
        posted_ = true;
    }

    // Whoever is woken meanwhile goes on in the next turn: nobody can hold the executor up for ever.
    void run() {
        posted_ = false;
        let_go_on();
    }

    // Nothing is held any more. Whether anybody was.
    bool release() noexcept { return std::exchange(holds_, false) && (ready_.linked() || behind_.linked()); }

    void let_go_on() {
        list_link turn;
        turn.take_all(ready_);
        in_turn_ = true;
        try {
            go_on(turn);
            in_turn_ = false;
            turn.take_all(behind_);
            go_on(turn);
        } catch (...) {
            in_turn_ = false;
            turn.take_all(behind_);
            turn.take_all(ready_);
            ready_.take_all(turn);
            if (ready_.linked() && !posted_) post();
            throw;
        }
    }

    void go_on(list_link& turn) {
        while (turn.linked()) go_on(static_cast<waiter_type&>(*turn.next()));
    }

    void go_on(waiter_type& w) {
        w.unlink();
        auto coroutine = w.take_coroutine();
        if (coroutine.get_executor() == executor_)
            coroutine();
        else
            asio::dispatch(std::move(coroutine));  // it runs on an executor of its own
    }

    void destroy_ready() noexcept {
        while (ready_.linked()) static_cast<waiter_type&>(*ready_.next()).destroy();
        posted_ = false;
    }

    Executor executor_;
    decltype(later(std::declval<Executor const&>())) later_;
    wait_list_registry& registry_;
    list_link ready_{};
    list_link behind_{};
    std::size_t shares_ = 0;
    bool posted_ = false;
    bool in_turn_ = false;  // those of a turn are going on, and `behind_` comes after them
    bool holds_ = false;    // between `begin_turn` and `end_turn`
};

/// Where coroutines of one object (a session, a stream) wait for each other.
///
/// A waiting coroutine owns its waiter, and the waiter holds the coroutine's continuation: a cycle that would leak if
/// the execution context ended first. The wait list is known to the context, which on shutdown destroys what waits
/// there.
template <class Executor>
class wait_list final : private wait_list_registry::entry {
  public:
    using executor_type = Executor;
    using waiter_type = waiter<Executor>;
    using queue_type = wake_queue<Executor>;
    using share_type = wake_queue_share<Executor>;

    RUNNEL_COLD explicit wait_list(Executor executor) : wait_list(share_type(*new queue_type(std::move(executor)))) {}
    /// A list that shares the queue of others: coroutines woken at any of them go on in the order of their waking.
    RUNNEL_COLD explicit wait_list(share_type queue) : entry(destroy_first), queue_(std::move(queue)) {
        queue_->registry().add(*this);
    }
    wait_list(wait_list const&) = delete;
    wait_list& operator=(wait_list const&) = delete;
    RUNNEL_COLD ~wait_list() {
        wake_all(asio::error::operation_aborted);
        queue_->registry().remove(*this);
    }

    Executor const& get_executor() const noexcept { return queue_->get_executor(); }
    /// Where those go who are woken.
    share_type const& queue() const noexcept { return queue_; }

    /// `co_await list.wait(w)` suspends the coroutine until `wake` or cancellation; then `w.result` tells which. Throws
    /// nothing itself; without memory it goes on in a later turn with `std::errc::not_enough_memory`. A coroutine that
    /// has been cancelled already goes on with `operation_aborted` at once; if RUNNEL_ASIO_PUBLIC_ONLY is set, Asio
    /// throws that at the `co_await`, and the coroutine is not waiting; then this call may throw `std::bad_alloc`, too.
    auto wait(waiter_type& w) { return detail::suspend<Executor>(taker<true>{this, &w}); }

    /// The same until `wake` alone: cancellation has no effect. For who must not go on before others have ended.
    auto wait_out(waiter_type& w) { return detail::suspend<Executor>(taker<false>{this, &w}); }

    /// Lets the waiting coroutine go on with `result`, in a later turn of the executor. No effect if it does not wait.
    void wake(waiter_type& w, std::error_code result) {
        if (w.is_waiting()) w.result = result;
        wake(w);
    }
    void wake(waiter_type& w) {
        if (w.is_waiting()) queue_->push(w);
    }

    /// Whether any coroutine waits here.
    bool occupied() const noexcept { return waiting_.linked(); }

    /// Wakes the coroutine that has waited here for longest, if there is one.
    void wake_one() {
        if (occupied()) wake(static_cast<waiter_type&>(*waiting_.next()));
    }
    /// The same, but it goes on behind those that are going on in this turn: see `wake_queue::push_behind`.
    void wake_one_behind() {
        if (occupied()) queue()->push_behind(static_cast<waiter_type&>(*waiting_.next()));
    }

    /// Wakes every coroutine that waits here.
    void wake_all(std::error_code result) {
        while (waiting_.linked()) wake(static_cast<waiter_type&>(*waiting_.next()), result);
    }

  private:
    using source = typename detail::suspended<Executor>::source;

    // What is done with a coroutine that has been suspended.
    template <bool IsCancellable>
    struct taker {
        wait_list* list;
        waiter_type* w;
        void operator()(source s) const {
            auto const& coroutine = list->take(*w, std::move(s));
            if constexpr (IsCancellable) list->let_cancel(*w, coroutine);
        }
    };

    auto const& take(waiter_type& w, source s) {
        auto const& coroutine = w.coroutine_.emplace(std::move(s));
        if (w.result) w.result.clear();
        w.list_ = this;
        w.insert_before(waiting_);
        return coroutine;
    }

    void let_cancel(waiter_type& w, detail::suspended<Executor> const& coroutine) {
        auto slot = coroutine.get_cancellation_slot();
        if (!slot.is_connected()) return;
        if (coroutine.is_cancelled()) return wake(w, asio::error::operation_aborted);
        try {
            slot.assign([&w](asio::cancellation_type) {
                if (w.list_ != nullptr) w.list_->wake(w, asio::error::operation_aborted);
            });
        } catch (std::bad_alloc const&) {  // it could not be cancelled: it does not wait
            wake(w, std::make_error_code(std::errc::not_enough_memory));
        }
    }

    static bool destroy_first(entry& list) noexcept {
        auto& waiting = static_cast<wait_list&>(list).waiting_;
        if (!waiting.linked()) return false;
        static_cast<waiter_type&>(*waiting.next()).destroy();
        return true;
    }

    share_type queue_;
    list_link waiting_{};
};

}  // namespace runnel
