#pragma once

#include <runnel/core/saturating.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/std_errors.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/coro/waitable_timer.hpp>
#include <runnel/coro/with_slot.hpp>

#include RUNNEL_ASIO(cancellation_signal.hpp)
#include RUNNEL_ASIO(co_spawn.hpp)
#include RUNNEL_ASIO(this_coro.hpp)

#include <array>
#include <chrono>
#include <exception>
#include <new>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel {

namespace detail {

/// False: there was no memory for it, which Asio takes from 1.24 on, nor when it was tried again. A task that is not
/// told ends by itself.
inline bool try_to_cancel(asio::cancellation_signal& signal) {
    for (int attempt = 0; attempt < 2; ++attempt) {
        try {
            signal.emit(asio::cancellation_type::terminal);
            return true;
        } catch (std::bad_alloc const&) {  // once more
        }
    }
    return false;
}

}  // namespace detail

/// Runs `tasks` side by side until the first of them ends, then cancels the others and waits until all have ended.
///
/// Completes with the index of the task that ended first, or rethrows what that task threw; what the others throw while
/// they are being cancelled is dropped. Nothing of the tasks runs any more when it completes. Cancelling the caller
/// cancels every task; then the outcome is that of the one that ended first, `operation_aborted` as a rule.
template <class Executor, std::same_as<asio::awaitable<void, Executor>>... Task>
asio::awaitable<std::size_t, Executor> race(wait_list<Executor>& waiters, Task... tasks) {
    constexpr std::size_t none = sizeof...(Task);
    // While a coroutine is suspended, here this one, the end of each task writes this, in one step, all but `signals`,
    // and `running` last. It is in this frame, as what the tasks' ends refer to is: so this goes on behind the last of
    // them only.
    struct shared {
        std::array<asio::cancellation_signal, sizeof...(Task)> signals{};
        std::size_t running = 0;
        std::size_t first = none;
        std::exception_ptr error{};
        waiter<Executor> ended{};
        waiter<Executor> all_ended{};
    } state;
    // For the end of all, as who wakes those that wait in the other list has not ended the tasks.
    wait_list<Executor> ending(waiters.queue());
    // Made before anything runs: with RUNNEL_ASIO_PUBLIC_ONLY they take memory.
    auto until_one_ends = waiters.wait(state.ended);
    auto until_all_end = ending.wait_out(state.all_ended);

    auto const spawn = [&](asio::awaitable<void, Executor> task, std::size_t index) {
        asio::co_spawn(
            waiters.get_executor(), RUNNEL_STD_ERRORS(std::move(task)),
            detail::with_slot(waiters.get_executor(), state.signals[index].slot(), [&, index](std::exception_ptr e) {
                if (state.first == none) {
                    state.first = index;
                    state.error = std::move(e);
                }
                --state.running;
                waiters.wake(state.ended);
                if (state.running == 0) ending.wake(state.all_ended);
            }));
    };
    // For want of memory a task may not begin: then those that have begun must end before this does.
    std::exception_ptr failure;
    auto const start = [&](asio::awaitable<void, Executor> task, std::size_t index) {
        if (failure) return;
        ++state.running;
        try {
            spawn(std::move(task), index);
        } catch (...) {
            failure = std::current_exception();
            --state.running;
        }
    };
    std::size_t index = 0;
    (start(std::move(tasks), index++), ...);

    bool const throws = co_await asio::this_coro::throw_if_cancelled();
    co_await asio::this_coro::throw_if_cancelled(false);
    if (state.running == sizeof...(Task)) co_await std::move(until_one_ends);
    if (state.ended.result == std::errc::not_enough_memory) failure = std::make_exception_ptr(std::bad_alloc());
    for (auto& signal : state.signals)
        if (!detail::try_to_cancel(signal)) failure = std::make_exception_ptr(std::bad_alloc());
    if (state.running != 0) co_await std::move(until_all_end);
    co_await asio::this_coro::throw_if_cancelled(throws);

    if (failure) std::rethrow_exception(failure);
    if (state.error) std::rethrow_exception(state.error);
    co_return state.first;
}

/// How long something may take. Made of any duration: what is longer than the clock can tell is for ever.
struct time_limit {
    template <class Rep, class Period>
    constexpr time_limit(std::chrono::duration<Rep, Period> duration) noexcept : value(clock_duration(duration)) {}
    steady_clock::duration value;
};

/// Completes after `duration`.
template <class Executor>
asio::awaitable<void, Executor> sleep_for(Executor executor, time_limit duration) {
    waitable_timer<Executor> timer(std::move(executor), deadline_after(steady_clock::now(), duration.value));
    co_await RUNNEL_STD_ERRORS(timer.async_wait(asio::use_awaitable_t<Executor>{}));
}

/// Runs `task` for at most `limit`. Throws `late` if it has not ended by then; the task is cancelled and has ended when
/// this completes. Rethrows what the task throws.
template <class Executor>
asio::awaitable<void, Executor> within(wait_list<Executor>& waiters, time_limit limit, std::error_code late,
                                       asio::awaitable<void, Executor> task) {
    auto sleeping = sleep_for<Executor>(waiters.get_executor(), limit);
    std::size_t const first = co_await race(waiters, std::move(task), std::move(sleeping));
    if (first == 1) throw std::system_error(late);
}

/// Gives any operation a deadline: `co_await within(5s, session.subscribe("a/#"))`. Completes as `operation` does, or
/// throws `late` (`std::errc::timed_out`) after `limit`: then the operation has been cancelled and has ended. What it
/// has completed with all the same is not lost.
template <class T, class Executor>
asio::awaitable<T, Executor> within(time_limit limit, asio::awaitable<T, Executor> operation,
                                    std::error_code late = std::make_error_code(std::errc::timed_out)) {
    // A wait list of its own, as what the operation belongs to may be gone before it has ended.
    wait_list<Executor> waiters(co_await asio::this_coro::executor);
    std::optional<std::conditional_t<std::is_void_v<T>, bool, T>> result;
    auto keeping = [](auto& to, asio::awaitable<T, Executor> from) -> asio::awaitable<void, Executor> {
        if constexpr (std::is_void_v<T>) {
            co_await std::move(from);
            to = true;
        } else {
            to.emplace(co_await std::move(from));
        }
    }(result, std::move(operation));
    auto sleeping = sleep_for<Executor>(waiters.get_executor(), limit);
    co_await race(waiters, std::move(keeping), std::move(sleeping));
    if (!result) throw std::system_error(late);
    if constexpr (!std::is_void_v<T>) co_return std::move(*result);
}

}  // namespace runnel
