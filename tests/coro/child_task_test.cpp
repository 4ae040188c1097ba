#include <runnel/coro/child_task.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/wait_list.hpp>

#include <asio/any_io_executor.hpp>
#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace {

using namespace std::chrono_literals;
using executor = asio::any_io_executor;
using awaitable = asio::awaitable<void, executor>;

struct started {
    explicit started(awaitable task) : asked(std::move(task)) {
        asio::post(io, [this] { it.start(io.get_executor(), std::move(asked)); });
    }
    asio::io_context io;
    awaitable asked;
    int ends = 0;
    std::exception_ptr error;
    runnel::child_task<executor> it{[](void* of, std::exception_ptr e) {
                                        auto& self = *static_cast<started*>(of);
                                        CHECK_FALSE(self.it.running());
                                        ++self.ends;
                                        self.error = std::move(e);
                                    },
                                    this};
};

awaitable nothing() { co_return; }
awaitable sleeping(std::chrono::milliseconds duration) {
    auto const here = co_await asio::this_coro::executor;
    auto pause = runnel::sleep_for<executor>(here, duration);
    co_await std::move(pause);
}
awaitable failing(std::chrono::milliseconds duration) {
    auto pause = sleeping(duration);
    co_await std::move(pause);
    throw std::runtime_error("failed");
}

}  // namespace

TEST_CASE("a task that never waits has ended when its start returns") {
    started s(nothing());
    s.io.run();
    CHECK(s.ends == 1);
    CHECK(s.error == nullptr);
}

TEST_CASE("a task tells of its end, once, and can be followed by another") {
    started s(sleeping(1ms));
    s.io.run();
    CHECK(s.ends == 1);
    CHECK_FALSE(s.it.running());
    asio::post(s.io, [&] { s.it.start(s.io.get_executor(), sleeping(1ms)); });
    s.io.restart();
    s.io.run();
    CHECK(s.ends == 2);
}

TEST_CASE("what a task throws is told") {
    started s(failing(1ms));
    s.io.run();
    REQUIRE(s.error != nullptr);
    CHECK_THROWS_AS(std::rethrow_exception(s.error), std::runtime_error);
}

// Asio from 1.22.2 to 1.28.1 emits it in a later turn, and would not mind that all has gone by then.
TEST_CASE("a task may end and go behind a cancellation from elsewhere than its executor") {
    asio::io_context io;
    runnel::wait_list<executor> list(io.get_executor());
    runnel::waiter<executor> w;
    bool ended = false;
    std::optional<runnel::child_task<executor>> task(
        std::in_place, [](void* of, std::exception_ptr) { *static_cast<bool*>(of) = true; }, &ended);
    auto const wait = [&]() -> awaitable { co_await list.wait(w); };
    asio::post(io, [&] { task->start(io.get_executor(), wait()); });
    io.poll();
    list.wake(w);
    task->cancel();
    io.restart();
    while (!ended && io.poll_one() != 0) {
    }
    CHECK(ended);
    task.reset();
    io.poll();
}

TEST_CASE("a task that is cancelled ends with operation_aborted") {
    started s(sleeping(1h));
    asio::post(s.io, [&] {
        CHECK(s.it.running());
        s.it.cancel();
    });
    s.io.run();
    REQUIRE(s.error != nullptr);
    try {
        std::rethrow_exception(s.error);
    } catch (std::system_error const& e) {
        CHECK(e.code() == asio::error::operation_aborted);
    }
}

TEST_CASE("cancelling what does not run has no effect") {
    started s(sleeping(1ms));
    s.it.cancel();
    s.io.run();
    CHECK(s.error == nullptr);
    s.it.cancel();
    CHECK(s.ends == 1);
}

TEST_CASE("a task that waits when its context ends is destroyed with it") {
    started s(sleeping(1h));
    s.io.poll();
    CHECK(s.it.running());
    CHECK(s.ends == 0);
}

TEST_CASE("a task that is abandoned is cancelled, nobody is told of its end, and another one can follow") {
    started s(sleeping(1h));
    s.it.abandon();  // there is none
    s.io.poll();
    auto const share = s.it.share();
    CHECK_FALSE(share->is_abandoned());
    s.it.abandon();
    CHECK_FALSE(s.it.running());
    CHECK(share->is_abandoned());
    s.io.run();
    CHECK(s.ends == 0);
    s.io.restart();
    asio::post(s.io, [&] { s.it.start(s.io.get_executor(), nothing()); });
    s.io.run();
    CHECK(s.ends == 1);
}
