#include <runnel/coro/race.hpp>
#include <runnel/coro/timer.hpp>
#include <runnel/testing/virtual_time.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using testing::virtual_time;

struct fixture {
    asio::io_context io;
    virtual_time time{io};
    std::vector<std::string> log;

    void at(steady_clock::duration when, std::string name) {
        asio::co_spawn(io, sleep_then_tell(this, when, std::move(name)), asio::detached);
    }
    static asio::awaitable<void> sleep_then_tell(fixture* self, steady_clock::duration when, std::string name) {
        co_await sleep_for<asio::any_io_executor>(self->io.get_executor(), when);
        self->log.push_back(std::move(name));
    }
};

asio::awaitable<int> seven_after(asio::any_io_executor executor, steady_clock::duration pause) {
    co_await sleep_for<asio::any_io_executor>(executor, pause);
    co_return 7;
}

asio::awaitable<void> failing_after(asio::any_io_executor executor, steady_clock::duration pause) {
    co_await sleep_for<asio::any_io_executor>(executor, pause);
    throw std::runtime_error("failed");
}

}  // namespace

TEST_CASE("a day of sleep takes no time, and all is due at its own time, in order") {
    auto const begun = std::chrono::steady_clock::now();
    fixture f;
    f.at(24h, "day");
    f.at(1h, "hour");
    f.at(1ms, "millisecond");
    f.time.settle();
    CHECK(f.log.empty());
    f.time.advance(1ms - 1ns);
    CHECK(f.log.empty());
    f.time.advance(1ns);
    CHECK(f.log == std::vector<std::string>{"millisecond"});
    f.time.advance(24h);
    CHECK(f.log == std::vector<std::string>{"millisecond", "hour", "day"});
    CHECK(f.time.elapsed() == 24h + 1ms);
    CHECK(std::chrono::steady_clock::now() - begun < 10s);
}

TEST_CASE("what is due sees the time for which it was set, also where it sets another one") {
    fixture f;
    std::vector<steady_clock::duration> seen;
    std::optional<timer<asio::any_io_executor>> each_hour;
    struct context {
        fixture& of;
        std::vector<steady_clock::duration>& seen;
        std::optional<timer<asio::any_io_executor>>& t;
    } c{f, seen, each_hour};
    each_hour.emplace(
        f.io.get_executor(),
        [](void* of) {
            auto& here = *static_cast<context*>(of);
            here.seen.push_back(here.of.time.elapsed());
            here.t->set(steady_clock::now() + 1h);
        },
        &c);
    each_hour->set(f.time.now() + 1h);
    f.time.advance(5h + 30min);
    CHECK(seen == std::vector<steady_clock::duration>{1h, 2h, 3h, 4h, 5h});
    each_hour->stop();
    f.time.advance(5h);
    CHECK(seen.size() == 5);
}

TEST_CASE("the calendar goes along, and both clocks are the system's again afterwards") {
    auto const before = std::chrono::system_clock::now();
    {
        fixture f;
        f.time.advance(240h);
        CHECK(system_clock::now() - before >= 240h);
        CHECK(steady_clock::now() - std::chrono::steady_clock::now() > 239h);
    }
    CHECK(system_clock::now() - before < 1h);
    CHECK(steady_clock::now() - std::chrono::steady_clock::now() < 1h);
}

TEST_CASE("other threads have the system's time") {
    fixture f;
    f.time.advance(24h);
    bool is_real = false;
    std::thread([&] { is_real = steady_clock::now() - std::chrono::steady_clock::now() < 1h; }).join();
    CHECK(is_real);
}

TEST_CASE("there is one on a thread") {
    fixture f;
    asio::io_context other;
    CHECK_THROWS_AS(virtual_time{other}, std::logic_error);
    f.time.advance(1h);
    CHECK(f.time.elapsed() == 1h);
}

TEST_CASE("a coroutine is run for as long as it takes, and what it throws is rethrown") {
    fixture f;
    CHECK(f.time.run(seven_after(f.io.get_executor(), 3h)) == 7);
    CHECK(f.time.elapsed() == 3h);
    CHECK_THROWS_AS(f.time.run(failing_after(f.io.get_executor(), 1h)), std::runtime_error);
    CHECK(f.time.elapsed() == 4h);
}

TEST_CASE("a coroutine that takes longer than it may is cancelled") {
    fixture f;
    try {
        f.time.run(seven_after(f.io.get_executor(), 3h), 1h);
        FAIL("it has not ended");
    } catch (std::system_error const& e) {
        CHECK(e.code() == std::errc::timed_out);
    }
    CHECK(f.time.elapsed() == 1h);
}

TEST_CASE("a coroutine that waits for nothing that can come is found out at once") {
    fixture f;
    auto const forever = [](asio::any_io_executor executor) -> asio::awaitable<void> {
        wait_list<asio::any_io_executor> waiters(executor);
        waiter<asio::any_io_executor> w;
        co_await waiters.wait(w);
    };
    CHECK_THROWS_AS(f.time.run(forever(f.io.get_executor())), std::system_error);
    CHECK(f.time.elapsed() == 0h);
}

TEST_CASE("time stands when the condition holds") {
    fixture f;
    f.at(1h, "one");
    f.at(2h, "two");
    CHECK(f.time.advance_until([&] { return f.log.size() == 1; }));
    CHECK(f.time.elapsed() == 1h);
    CHECK_FALSE(f.time.advance_until([&] { return f.log.size() == 2; }, 30min));
    CHECK(f.time.elapsed() == 90min);
    CHECK_FALSE(f.time.advance_until([&] { return f.log.size() == 3; }));
    CHECK(f.log.size() == 2);
}

TEST_CASE("a limit of time holds in virtual time, and its loser is cancelled") {
    fixture f;
    auto const late = [](asio::any_io_executor executor) -> asio::awaitable<bool> {
        auto sleeping = sleep_for<asio::any_io_executor>(executor, 2h);
        auto limited = within(1h, std::move(sleeping));
        try {
            co_await std::move(limited);
        } catch (std::system_error const& e) {
            co_return e.code() == std::errc::timed_out;
        }
        co_return false;
    };
    CHECK(f.time.run(late(f.io.get_executor())));
    CHECK(f.time.elapsed() == 1h);
}

TEST_CASE("what a handler throws leaves advance, and the time goes on afterwards") {
    fixture f;
    f.at(2h, "later");
    asio::co_spawn(f.io, failing_after(f.io.get_executor(), 1h),
                   [](std::exception_ptr e) { std::rethrow_exception(e); });
    CHECK_THROWS_AS(f.time.advance(3h), std::runtime_error);
    f.time.advance(3h);
    CHECK(f.log.size() == 1);
}

TEST_CASE("timers of a time that has gone are the context's to end") {
    asio::io_context io;
    auto const life = std::make_shared<int>(1);
    {
        virtual_time time{io};
        asio::co_spawn(
            io,
            [](asio::any_io_executor executor, std::shared_ptr<int>) -> asio::awaitable<void> {
                co_await sleep_for<asio::any_io_executor>(executor, 1h);
            }(io.get_executor(), life),
            asio::detached);
        time.advance(1min);
        CHECK(life.use_count() == 2);
    }
    io.restart();
    io.poll();
    CHECK(life.use_count() == 2);
}

TEST_CASE("a context that is stopped does not hang") {
    fixture f;
    asio::post(f.io, [&] { f.io.stop(); });
    f.at(1h, "hour");
    f.time.advance(1min);
    f.time.settle();  // the sleep begins
    f.time.advance(1h);
    CHECK(f.log.size() == 1);
}

TEST_CASE("time ends after a hundred years, and says so") {
    asio::io_context io;
    testing::virtual_time time{io};
    time.advance(testing::virtual_time::maximum - 1h);
    CHECK_THROWS_AS(time.advance(2h), std::out_of_range);
    CHECK_THROWS_AS(time.advance((std::chrono::milliseconds::max)()), std::out_of_range);
    CHECK(time.elapsed() == testing::virtual_time::maximum - 1h);
    bool is_due = false;
    asio::co_spawn(io, sleep_for<asio::any_io_executor>(io.get_executor(), (std::chrono::milliseconds::max)()),
                   [&](std::exception_ptr) { is_due = true; });
    CHECK_FALSE(time.advance_until([&] { return is_due; }, (std::chrono::milliseconds::max)()));
    CHECK(time.elapsed() <= testing::virtual_time::maximum);
    time.advance(30min);
}
