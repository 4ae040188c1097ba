#include <runnel/coro/race.hpp>

#include <asio/post.hpp>
#include <doctest/doctest.h>

#include "support/composition_trial.hpp"
#include "support/run.hpp"
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>

namespace {

using std::chrono::milliseconds;
using test::turns;
using test::wait_list;
using waiter = runnel::waiter<test::executor>;

struct waiters_on {
    asio::io_context io;
    wait_list waiters{io.get_executor()};
};

// Waits for ever; counts how it ended.
asio::awaitable<void> wait_for_ever(wait_list& waiters, int& aborted) {
    waiter w;
    co_await waiters.wait(w);
    if (w.result == asio::error::operation_aborted) ++aborted;
}

asio::awaitable<void> fail_after(wait_list& waiters, int count, std::error_code error) {
    co_await turns(waiters, count);
    throw std::system_error(error);
}

// Takes its time to end after a cancellation.
asio::awaitable<void> stubborn(wait_list& waiters, bool& ended) {
    co_await asio::this_coro::throw_if_cancelled(false);
    waiter w;
    co_await waiters.wait(w);
    co_await asio::this_coro::reset_cancellation_state();
    co_await turns(waiters, 10);
    ended = true;
}

}  // namespace

TEST_CASE("a race gives the index of the task that ends first, and cancels the others") {
    waiters_on p;
    int aborted = 0;
    SUBCASE("the first") {
        CHECK(test::run(p.io, runnel::race(p.waiters, turns(p.waiters, 2), wait_for_ever(p.waiters, aborted))) == 0);
        CHECK(aborted == 1);
    }
    SUBCASE("the last of three") {
        CHECK(test::run(p.io, runnel::race(p.waiters, wait_for_ever(p.waiters, aborted),
                                           wait_for_ever(p.waiters, aborted), turns(p.waiters, 2))) == 2);
        CHECK(aborted == 2);
    }
    SUBCASE("a task that ends without having waited") {
        CHECK(test::run(p.io, runnel::race(p.waiters, turns(p.waiters, 0), wait_for_ever(p.waiters, aborted))) == 0);
        CHECK(aborted == 1);
    }
    SUBCASE("the only one") { CHECK(test::run(p.io, runnel::race(p.waiters, turns(p.waiters, 1))) == 0); }
}

TEST_CASE("a race rethrows what the task that ends first throws") {
    waiters_on p;
    int aborted = 0;
    CHECK(test::error_of(p.io, runnel::race(p.waiters, wait_for_ever(p.waiters, aborted),
                                            fail_after(p.waiters, 3, asio::error::timed_out))) ==
          asio::error::timed_out);
    CHECK(aborted == 1);
}

TEST_CASE("what a loser of a race throws is dropped") {
    waiters_on p;
    auto const loser = [&]() -> asio::awaitable<void> {
        waiter w;
        co_await p.waiters.wait(w);
        throw std::runtime_error("nobody hears this");
    };
    CHECK(test::run(p.io, runnel::race(p.waiters, turns(p.waiters, 1), loser())) == 0);
}

TEST_CASE("a race completes when all its tasks have ended") {
    waiters_on p;
    bool ended = false;
    CHECK(test::run(p.io, runnel::race(p.waiters, turns(p.waiters, 1), stubborn(p.waiters, ended))) == 0);
    CHECK(ended);
}

TEST_CASE("who wakes all that wait does not end a race before its tasks have ended") {
    waiters_on p;
    bool ended = false;
    test::task racing(p.io, runnel::race(p.waiters, turns(p.waiters, 1), stubborn(p.waiters, ended)));
    while (!racing.done()) {
        p.io.poll_one();
        p.waiters.wake_all(asio::error::operation_aborted);
        if (racing.done()) CHECK(ended);
    }
    CHECK(ended);
}

TEST_CASE("cancelling a race cancels its tasks, waits for them, and ends with operation_aborted") {
    waiters_on p;
    int aborted = 0;
    bool ended = false;
    auto const sleep = runnel::sleep_for<test::executor>;
    test::task racing(p.io, runnel::race(p.waiters, sleep(p.io.get_executor(), std::chrono::hours(1)),
                                         wait_for_ever(p.waiters, aborted), stubborn(p.waiters, ended)));
    p.io.poll();
    racing.cancel();
    // The first to end is the sleeper, which throws.
    CHECK(racing.run_for_error() == asio::error::operation_aborted);
    CHECK(aborted == 1);
    CHECK(ended);
    CHECK(racing.ended() == 1);
}

TEST_CASE("a race can be cancelled after any number of steps, and completes once") {
    for (int steps = 0; steps < 12; ++steps) {
        CAPTURE(steps);
        waiters_on p;
        int aborted = 0;
        test::task racing(p.io, runnel::race(p.waiters, turns(p.waiters, 4), wait_for_ever(p.waiters, aborted)));
        for (int i = 0; i < steps; ++i) p.io.poll_one();
        racing.cancel();
        auto const error = racing.run_for_error(std::chrono::seconds(2));
        CHECK((!error || error == asio::error::operation_aborted));
        CHECK(racing.ended() == 1);
    }
}

TEST_CASE("races nest") {
    waiters_on p;
    int aborted = 0;
    auto const inner = [&]() -> asio::awaitable<void> {
        auto racing = runnel::race(p.waiters, wait_for_ever(p.waiters, aborted), wait_for_ever(p.waiters, aborted));
        co_await std::move(racing);
    };
    CHECK(test::run(p.io, runnel::race(p.waiters, inner(), turns(p.waiters, 3))) == 1);
    CHECK(aborted == 2);
}

TEST_CASE("nothing is left behind when the context ends during a race") {
    auto const witness = std::make_shared<int>(0);
    {
        waiters_on p;
        int aborted = 0;
        auto const hold = [&](std::shared_ptr<int>) -> asio::awaitable<void> {
            auto racing = runnel::race(p.waiters, wait_for_ever(p.waiters, aborted), wait_for_ever(p.waiters, aborted));
            co_await std::move(racing);
        };
        asio::co_spawn(p.io, hold(witness), [](std::exception_ptr) {});
        p.io.poll();
        CHECK(witness.use_count() == 2);
    }
    CHECK(witness.use_count() == 1);
}

TEST_CASE("within rethrows the task's error and returns when the task ends in time") {
    waiters_on p;
    auto const late = make_error_code(std::errc::timed_out);
    auto const hour = std::chrono::hours(1);
    CHECK_FALSE(test::error_of(p.io, runnel::within(p.waiters, hour, late, turns(p.waiters, 3))));
    CHECK(test::error_of(
              p.io, runnel::within(p.waiters, hour, late, fail_after(p.waiters, 3, asio::error::connection_refused))) ==
          asio::error::connection_refused);
}

TEST_CASE("within cancels a task that takes too long and throws the error for it") {
    waiters_on p;
    int aborted = 0;
    auto const late = make_error_code(std::errc::timed_out);
    CHECK(test::error_of(p.io, runnel::within(p.waiters, milliseconds(10), late, wait_for_ever(p.waiters, aborted))) ==
          late);
    CHECK(aborted == 1);
}

TEST_CASE("an operation with a value can have a deadline, and keeps its value and its errors") {
    waiters_on p;
    auto const value_after = [&](int count) -> asio::awaitable<std::unique_ptr<int>> {
        co_await turns(p.waiters, count);
        co_return std::make_unique<int>(7);
    };
    CHECK(*test::run(p.io, runnel::within(std::chrono::hours(1), value_after(3))) == 7);
    auto failing =
        runnel::within(std::chrono::hours(1), fail_after(p.waiters, 3, std::make_error_code(std::errc::io_error)));
    CHECK(test::error_of(p.io, std::move(failing)) == std::errc::io_error);
    int aborted = 0;
    auto endless = runnel::within(milliseconds(1), wait_for_ever(p.waiters, aborted));
    CHECK_FALSE(test::error_of(p.io, std::move(endless)));  // ended by being cancelled, without an error of its own
    CHECK(aborted == 1);
}

TEST_CASE("an operation that is late is cancelled, and the error is std::errc::timed_out") {
    waiters_on p;
    auto const never = [&]() -> asio::awaitable<int> {
        waiter w;
        co_await p.waiters.wait(w);
        throw std::system_error(w.result);
    };
    CHECK(test::error_of(p.io, runnel::within(milliseconds(1), never())) == std::errc::timed_out);
}

TEST_CASE("the longest times there are never end, in whatever unit, and times below nothing are over") {
    waiters_on p;
    for (runnel::time_limit const limit :
         {runnel::time_limit(milliseconds::max()), runnel::time_limit(std::chrono::hours::max()),
          runnel::time_limit(std::chrono::steady_clock::duration::max())}) {
        test::task sleeping(p.io, runnel::sleep_for<test::executor>(p.io.get_executor(), limit));
        p.io.restart();
        p.io.run_for(milliseconds(20));
        CHECK_FALSE(sleeping.done());
        sleeping.cancel();
        CHECK(sleeping.run_for_error() == asio::error::operation_aborted);
    }
    int aborted = 0;
    auto over = runnel::within(milliseconds::min(), wait_for_ever(p.waiters, aborted));
    CHECK(test::error_of(p.io, std::move(over)) == std::error_code());
    CHECK(aborted == 1);
}

TEST_CASE("sleep_for takes at least its time and can be cancelled") {
    waiters_on p;
    auto const start = std::chrono::steady_clock::now();
    test::run(p.io, runnel::sleep_for<test::executor>(p.io.get_executor(), milliseconds(20)));
    CHECK(std::chrono::steady_clock::now() - start >= milliseconds(20));
    test::task sleeping(p.io, runnel::sleep_for<test::executor>(p.io.get_executor(), std::chrono::hours(1)));
    p.io.restart();
    p.io.poll();
    sleeping.cancel();
    CHECK(sleeping.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("a test that gives up waiting for a coroutine leaves it whole: it goes on, or ends with its context") {
    waiters_on p;
    bool gone_on = false;
    auto wait = [](wait_list& waiters, bool& done) -> asio::awaitable<int> {
        waiter w;
        co_await waiters.wait(w);
        done = true;
        co_return 7;
    };
    {
        test::task<int> given_up(p.io, wait(p.waiters, gone_on));
        CHECK_THROWS_AS(given_up.run(milliseconds(1)), std::logic_error);
    }
    p.waiters.wake_one();
    p.io.restart();
    p.io.poll();
    CHECK(gone_on);
    {
        test::task<int> never_ends(p.io, wait(p.waiters, gone_on));
        CHECK_THROWS_AS(never_ends.run(milliseconds(1)), std::logic_error);
        test::task<int> never_begins(p.io, wait(p.waiters, gone_on));
    }
}

#ifndef _WIN32
TEST_CASE("for want of memory a race throws, and not before all its tasks have ended") {
    auto const compose = [](waiters_on& p, int& there) -> asio::awaitable<void> {
        int aborted = 0;
        auto racing = runnel::race(p.waiters, wait_for_ever(p.waiters, aborted), test::leave_late(p.waiters, there),
                                   wait_for_ever(p.waiters, aborted), turns(p.waiters, 3));
        co_await std::move(racing);
    };
    CHECK(test::fail_each_allocation_in<waiters_on>(compose) > 5);
}
#endif
