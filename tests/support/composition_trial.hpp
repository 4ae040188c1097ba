#pragma once

#include <runnel/coro/wait_list.hpp>

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include <cstddef>
#include <exception>
#include <new>
#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

// Tasks that are put together, a race or a group, say, and in which the n-th allocation fails.

namespace test {

using wait_list = runnel::wait_list<executor>;

inline asio::awaitable<void> turns(wait_list& waiters, int count) {
    for (int i = 0; i < count; ++i) co_await asio::post(waiters.get_executor(), asio::use_awaitable);
}

/// Counts those that are there. Waits until it is cancelled, then takes its time to end.
inline asio::awaitable<void> leave_late(wait_list& waiters, int& there) {
    struct guard {
        int& count;
        explicit guard(int& c) : count(c) { ++count; }
        ~guard() { --count; }
    } const here(there);
    co_await asio::this_coro::throw_if_cancelled(false);
    runnel::waiter<executor> w;
    co_await waiters.wait(w);
    co_await asio::this_coro::reset_cancellation_state();
    co_await turns(waiters, 10);
}

#ifndef _WIN32
namespace detail {

enum composition_end : int { not_reached = 10, as_told, left_behind, ended_by_asio };

template <class Place, class Compose>
composition_end compose_without_memory(std::size_t nth, runnel::testing::allocator by, Compose& compose) {
    int there = 0, left = -1;
    Place place;  // with it go those that are left when Asio throws
    auto const whole = [&]() -> asio::awaitable<void> {
        try {
            auto composed = compose(place, there);
            co_await std::move(composed);
        } catch (std::bad_alloc const&) {
        }
        left = there;
    };
    task composing(place.io, whole());
    runnel::testing::failing_allocation const failing(nth, by);
    try {
        place.io.poll();
    } catch (std::bad_alloc const&) {
        return ended_by_asio;
    }
    if (left != 0) return left_behind;
    return failing.has_failed() ? as_told : not_reached;
}

}  // namespace detail

/// Awaits `compose(place, there)` with a new `Place`, which has a context `io`, once for each allocation, which fails.
/// None of its tasks, which count themselves, may be there when it ends. Returns how often it has ended with a failure.
template <class Place, class Compose>
int fail_each_allocation_in(Compose compose) {
    int told = 0;
    for (auto const by : {runnel::testing::allocator::operator_new, runnel::testing::allocator::aligned_alloc}) {
        for (int nth = 1, end = detail::as_told; end != detail::not_reached; ++nth) {
            CAPTURE(nth);
            // In a process of its own, as Asio may end it.
            auto const child = ::fork();
            if (child == 0) {
                std::set_terminate([] { ::_exit(detail::ended_by_asio); });
                ::_exit(detail::compose_without_memory<Place>(static_cast<std::size_t>(nth), by, compose));
            }
            int status = 0;
            ::waitpid(child, &status, 0);
            REQUIRE(WIFEXITED(status));
            end = WEXITSTATUS(status);
            REQUIRE(end >= detail::not_reached);
            REQUIRE(end != detail::left_behind);
            told += end == detail::as_told ? 1 : 0;
        }
    }
    return told;
}
#endif

}  // namespace test
