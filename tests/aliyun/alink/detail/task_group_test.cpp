#include <runnel/aliyun/alink/detail/task_group.hpp>

#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include <cstddef>
#include <exception>
#include <new>
#include <stdexcept>
#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using wait_list = runnel::wait_list<test::executor>;
using waiter = runnel::waiter<test::executor>;
using task_group = runnel::aliyun::alink::detail::task_group<test::executor>;

struct group_on {
    asio::io_context io;
    wait_list waiters{io.get_executor()};
    task_group tasks{io.get_executor()};
};

asio::awaitable<void> turns(wait_list& waiters, int count) {
    for (int i = 0; i < count; ++i) co_await asio::post(waiters.get_executor(), asio::use_awaitable);
}

// How many are there.
struct present {
    explicit present(int& c) noexcept : count(c) { ++count; }
    ~present() { --count; }
    present(present const&) = delete;
    present& operator=(present const&) = delete;
    int& count;
};

// Waits until it is cancelled, then takes its time to end.
asio::awaitable<void> leave_late(wait_list& waiters, int& there) {
    present const here(there);
    co_await asio::this_coro::throw_if_cancelled(false);
    waiter w;
    co_await waiters.wait(w);
    co_await asio::this_coro::reset_cancellation_state();
    co_await turns(waiters, 10);
}

asio::awaitable<void> start_some(group_on& p, int& there) {
    for (int i = 0; i < 3; ++i) {
        p.tasks.start(leave_late(p.waiters, there));
        co_await turns(p.waiters, 1);
    }
    // So that Asio has no memory left over by which the tasks could be cancelled.
    for (int i = 0; i < 5; ++i) asio::post(p.waiters.get_executor(), [] {});
}

}  // namespace

TEST_CASE("a group ends behind all its tasks, whether its body ends, throws or is cancelled") {
    group_on p;
    int there = 0;
    SUBCASE("it ends") { test::run(p.io, p.tasks.enclose(start_some(p, there))); }
    SUBCASE("it throws") {
        auto const body = [&]() -> asio::awaitable<void> {
            co_await start_some(p, there);
            throw std::runtime_error("over");
        };
        CHECK_THROWS_WITH_AS(test::run(p.io, p.tasks.enclose(body())), "over", std::runtime_error);
    }
    SUBCASE("it is cancelled") {
        p.tasks.start(leave_late(p.waiters, there));
        test::task<void> enclosed(p.io, p.tasks.enclose(leave_late(p.waiters, there)));
        p.io.poll();
        CHECK(there == 2);
        enclosed.cancel();
        CHECK_FALSE(enclosed.done());
        CHECK_FALSE(enclosed.run_for_error());
    }
    CHECK(there == 0);
    CHECK(p.tasks.running() == 0);
}

#ifndef _WIN32
namespace {

enum outcome : int { not_reached = 10, as_told, wrong, ended_by_asio };

// A group of which the n-th allocation fails, until nothing goes on.
outcome enclose_without_memory(std::size_t nth, runnel::testing::allocator by) {
    int there = 0, left_behind = -1;
    group_on p;  // with it go those that are left when Asio throws
    auto const whole = [&]() -> asio::awaitable<void> {
        try {
            auto enclosing = p.tasks.enclose(start_some(p, there));
            co_await std::move(enclosing);
        } catch (std::bad_alloc const&) {
        }
        left_behind = there;
    };
    test::task enclosing(p.io, whole());
    runnel::testing::failing_allocation const failing(nth, by);
    try {
        p.io.poll();
    } catch (std::bad_alloc const&) {
        return ended_by_asio;
    }
    if (left_behind != 0) return wrong;
    return failing.has_failed() ? as_told : not_reached;
}

}  // namespace

TEST_CASE("for want of memory a group ends, and not before all its tasks have ended") {
    int told = 0;
    for (auto const by : {runnel::testing::allocator::operator_new, runnel::testing::allocator::aligned_alloc}) {
        for (int nth = 1, is = as_told; is != not_reached; ++nth) {
            CAPTURE(nth);
            // In a process of its own, as Asio may end it.
            auto const child = ::fork();
            if (child == 0) {
                std::set_terminate([] { ::_exit(ended_by_asio); });
                ::_exit(enclose_without_memory(static_cast<std::size_t>(nth), by));
            }
            int status = 0;
            ::waitpid(child, &status, 0);
            is = WIFEXITED(status) ? WEXITSTATUS(status) : wrong;
            CHECK(is >= not_reached);
            CHECK(is != wrong);
            told += is == as_told ? 1 : 0;
        }
    }
    CHECK(told > 5);
}
#endif
