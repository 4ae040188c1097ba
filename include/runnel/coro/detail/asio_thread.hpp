#pragma once

#include <runnel/coro/asio.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(cancellation_state.hpp)
#include RUNNEL_ASIO(cancellation_type.hpp)
#include RUNNEL_ASIO(post.hpp)

// How Asio's coroutines are suspended, resumed and launched: the only header of runnel that uses what Asio keeps to
// itself (`asio::detail`).
//
// RUNNEL_ASIO_PUBLIC_ONLY says by which means, the same in all files of a program:
//   0  By `asio::detail::awaitable_thread`, as `use_awaitable` and `co_spawn` do. Needed of it are its constructors,
//      `launch`, `get_executor` and the cancellation state, and `detach_thread` of its frames; these are the same from
//      Asio 1.22 to 1.38.
//   1  By Asio's public interface: `async_initiate` with `use_awaitable`, and `co_spawn`. Each wait then takes a frame
//      of Asio's coroutines more, and each coroutine that runs beside another two or three: docs/performance.md says
//      what this costs.
// If it is not defined, it is 0 for these versions, and 1 for a newer one: Asio may change its insides at any time,
// in a way that still compiles.
#ifndef RUNNEL_ASIO_PUBLIC_ONLY
#if RUNNEL_ASIO_VERSION / 100 > 1038
#define RUNNEL_ASIO_PUBLIC_ONLY 1
#else
#define RUNNEL_ASIO_PUBLIC_ONLY 0
#endif
#endif

#if RUNNEL_ASIO_PUBLIC_ONLY
#include <runnel/coro/with_slot.hpp>

#include RUNNEL_ASIO(associated_cancellation_slot.hpp)
#include RUNNEL_ASIO(associated_executor.hpp)
#include RUNNEL_ASIO(async_result.hpp)
#include RUNNEL_ASIO(co_spawn.hpp)
#include RUNNEL_ASIO(use_awaitable.hpp)

#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#endif

#include <utility>

namespace runnel::detail {

#if RUNNEL_ASIO_PUBLIC_ONLY

/// A chain of coroutines that has been suspended, from the one that waits to the one that was spawned. It owns them,
/// and has their executor and cancellation slot.
template <class Executor>
class suspended {
  public:
    using executor_type = Executor;
    using cancellation_slot_type = asio::cancellation_slot;
    /// What `suspend` gives to its function, to be moved into one of these.
    using source = suspended;

    /// Takes any completion handler without arguments.
    template <class Handler>
    requires(!std::is_same_v<std::remove_cvref_t<Handler>, suspended>)
    explicit suspended(Handler&& handler)
        : kept_(::new(room_) kept_handler<std::remove_cvref_t<Handler>>(std::forward<Handler>(handler))) {
        static_assert(sizeof(kept_handler<std::remove_cvref_t<Handler>>) <= sizeof(room_));
    }
    suspended(suspended&& other) noexcept : kept_(other.kept_ != nullptr ? other.kept_->move_to(room_) : nullptr) {
        other.drop();
    }
    suspended& operator=(suspended const&) = delete;
    ~suspended() { drop(); }

    executor_type get_executor() const noexcept { return kept_->executor(); }
    cancellation_slot_type get_cancellation_slot() const noexcept { return kept_->slot(); }

    /// Whether it has been cancelled, and is to throw because of that: never, as Asio has thrown instead of suspending.
    static constexpr bool is_cancelled() noexcept { return false; }

    /// Lets it go on, in its executor. The object must remain until this returns.
    void resume() { kept_->resume(); }
    void operator()() { resume(); }

  private:
    // Asio does not say of what type its handlers are.
    struct kept {
        virtual ~kept() = default;
        virtual kept* move_to(void* room) noexcept = 0;
        virtual Executor executor() const noexcept = 0;
        virtual asio::cancellation_slot slot() const noexcept = 0;
        virtual void resume() = 0;
    };
    template <class Handler>
    struct kept_handler final : kept {
        explicit kept_handler(Handler&& h) noexcept : handler(std::move(h)) {}
        kept* move_to(void* room) noexcept override { return ::new (room) kept_handler(std::move(handler)); }
        Executor executor() const noexcept override { return asio::get_associated_executor(handler); }
        asio::cancellation_slot slot() const noexcept override {
            return asio::get_associated_cancellation_slot(handler);
        }
        void resume() override { std::move(handler)(); }
        Handler handler;
    };

    void drop() noexcept {
        if (kept_ != nullptr) std::exchange(kept_, nullptr)->~kept();
    }

    alignas(void*) std::byte room_[4 * sizeof(void*)];
    kept* kept_;
};

/// `co_await suspend<Executor>(function)` suspends the coroutine and calls `function(source)`, which sees to it that it
/// is resumed. `function` is copied. It is this call that takes memory, and not the wait.
template <class Executor, class Function>
asio::awaitable<void, Executor> suspend(Function function) {
    asio::use_awaitable_t<Executor> token;
    return asio::async_initiate<asio::use_awaitable_t<Executor>, void()>(
        [function](auto&& handler) { function(suspended<Executor>(std::forward<decltype(handler)>(handler))); }, token);
}

/// A coroutine that can be launched.
template <class Executor>
using launchable = asio::awaitable<void, Executor>;

/// Begins `task` on `executor`, on which the caller is: it runs until it waits for the first time. What it throws
/// leaves the executor's `run`. It is cancelled by way of `slot`, which must remain until it has ended or another one
/// has been launched with it.
template <class Executor>
void launch(Executor const& executor, launchable<Executor> task, asio::cancellation_slot slot) {
    asio::co_spawn(executor, std::move(task), with_own_signal(executor, std::move(slot), [](std::exception_ptr e) {
                       if (e) std::rethrow_exception(e);
                   }));
}

#else

/// A chain of coroutines that has been suspended, from the one that waits to the one that was spawned. It owns them,
/// and has their executor and cancellation slot. Asio hands it to whoever starts an asynchronous operation.
template <class Executor>
class suspended : public asio::detail::awaitable_thread<Executor> {
    using base = asio::detail::awaitable_thread<Executor>;

  public:
    using executor_type = Executor;
    /// What `suspend` gives to its function, to be moved into one of these.
    using source = base*;

    explicit suspended(source s) noexcept : base(std::move(*s)) {}

    /// Whether it has been cancelled, and is to throw because of that.
    bool is_cancelled() const noexcept {
        bool const cancelled = this->get_cancellation_state().cancelled() != asio::cancellation_type::none;
        return cancelled && this->throw_if_cancelled();
    }

    /// Lets it go on, in its executor. The object must remain until this returns.
    void resume() {
        this->get_cancellation_slot().clear();
        this->launch();
    }
    void operator()() { resume(); }
};

/// What `suspend` returns.
template <class Executor, class Function>
struct suspension {
    Function function;

    /// Is called by Asio once the coroutine has been suspended.
    asio::detail::awaitable_thread<Executor>* operator()(asio::detail::awaitable_frame_base<Executor>* frame) const {
        function(frame->detach_thread());
        return nullptr;
    }
};

/// `co_await suspend<Executor>(function)` suspends the coroutine and calls `function(source)`, which sees to it that it
/// is resumed. `function` is copied.
template <class Executor, class Function>
suspension<Executor, Function> suspend(Function function) noexcept {
    return {function};
}

/// A coroutine that can be launched: it does without the frame of another.
template <class Executor>
using launchable = asio::awaitable<asio::detail::awaitable_thread_entry_point, Executor>;

/// Begins `task` on `executor`, on which the caller is: it runs until it waits for the first time. What it throws
/// leaves the executor's `run`. It is cancelled by way of `slot`, which must remain until it has ended or another one
/// has been launched with it.
template <class Executor>
void launch(Executor const& executor, launchable<Executor> task, asio::cancellation_slot slot) {
    asio::cancellation_state const state(slot);
    asio::detail::awaitable_thread<Executor>(std::move(task), executor, slot, state).launch();
}

#endif

}  // namespace runnel::detail
