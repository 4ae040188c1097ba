#include <runnel/coro/capture_error.hpp>
#include <runnel/coro/detail/asio_thread.hpp>

#include <asio/dispatch.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <doctest/doctest.h>

#include "support/run.hpp"
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <utility>

namespace {

using runnel::detail::launchable;
using suspended = runnel::detail::suspended<test::executor>;

static_assert(std::is_nothrow_move_constructible_v<suspended>);
static_assert(!std::is_copy_constructible_v<suspended>);

// Where a coroutine is kept that waits.
struct shelf {
    std::optional<suspended> kept;

    asio::awaitable<void> wait() {
        co_await runnel::detail::suspend<test::executor>([this](suspended::source s) { kept.emplace(std::move(s)); });
    }
    void resume() {
        suspended one(std::move(*kept));
        kept.reset();
        one.resume();
    }
};

asio::awaitable<int> wait_for(shelf& here, int value) {
    auto waiting = here.wait();
    co_await std::move(waiting);
    co_return value;
}

launchable<test::executor> wait_beside(shelf& here, int& ended, std::shared_ptr<int>) {
    auto waiting = here.wait();
    co_await std::move(waiting);
    ++ended;
}

launchable<test::executor> sleep_beside(std::error_code& error) {
    asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::hours(1));
    auto sleeping = runnel::capture_error(timer.async_wait(asio::use_awaitable), error);
    co_await std::move(sleeping);
}

launchable<test::executor> fail_beside(bool waits) {
    if (waits) co_await asio::post(asio::use_awaitable);
    throw std::runtime_error("thrown beside");
}

}  // namespace

TEST_CASE("a coroutine that is suspended goes on where it is resumed, with its executor") {
    asio::io_context io;
    test::executor const strand = asio::make_strand(io.get_executor());
    shelf here;
    std::optional<int> value;
    asio::co_spawn(strand, wait_for(here, 7), [&](std::exception_ptr, int v) { value = v; });
    io.poll();
    REQUIRE(here.kept);
    CHECK(here.kept->get_executor() == strand);
    CHECK_FALSE(value);
    asio::dispatch(std::move(*here.kept));  // as a completion handler
    here.kept.reset();
    CHECK_FALSE(value);
    io.restart();
    io.poll();
    CHECK(value == 7);
}

TEST_CASE("a coroutine can be suspended again and again, and be moved meanwhile") {
    asio::io_context io;
    shelf here;
    int rounds = 0;
    auto const loop = [&]() -> asio::awaitable<void> {
        for (; rounds < 3; ++rounds) {
            auto waiting = here.wait();
            co_await std::move(waiting);
        }
    };
    test::task looping(io, loop());
    io.poll();
    for (int i = 0; i < 3; ++i) {
        CHECK(rounds == i);
        asio::post(io, [&] { here.resume(); });
        io.restart();
        io.poll();
    }
    CHECK(looping.done());
}

TEST_CASE("a suspended coroutine has the cancellation slot of the one that was spawned") {
    asio::io_context io;
    shelf here;
    test::task waiting(io, wait_for(here, 1));
    io.poll();
    REQUIRE(here.kept);
    CHECK_FALSE(here.kept->is_cancelled());
    auto cancelled = asio::cancellation_type::none;
    REQUIRE(here.kept->get_cancellation_slot().is_connected());
    here.kept->get_cancellation_slot().assign([&](asio::cancellation_type type) { cancelled = type; });
    waiting.cancel();
    io.restart();
    io.poll();  // some versions of Asio cancel in a turn of the executor
    CHECK(cancelled == asio::cancellation_type::terminal);
    here.resume();  // clears the slot
    cancelled = asio::cancellation_type::none;
    waiting.cancel();
    CHECK(cancelled == asio::cancellation_type::none);
    io.restart();
    io.poll();
    CHECK(waiting.done());
}

TEST_CASE("a suspended coroutine that is dropped is destroyed, at the end of its context at the latest") {
    auto const witness = std::make_shared<int>(0);
    int ended = 0;
    SUBCASE("while the context runs") {
        asio::io_context io;
        shelf here;
        asio::cancellation_signal signal;
        asio::post(io, [&] {
            runnel::detail::launch<test::executor>(io.get_executor(), wait_beside(here, ended, witness), signal.slot());
        });
        io.poll();
        CHECK(witness.use_count() == 2);
        here.kept.reset();
        io.restart();
        io.poll();
        CHECK(witness.use_count() == 1);
    }
    SUBCASE("the context ends") {
        asio::cancellation_signal signal;
        asio::io_context io;
        shelf here;
        asio::post(io, [&] {
            runnel::detail::launch<test::executor>(io.get_executor(), wait_beside(here, ended, witness), signal.slot());
        });
        io.poll();
    }
    CHECK(witness.use_count() == 1);
    CHECK(ended == 0);
}

TEST_CASE("what is launched runs until it waits before the launch returns") {
    asio::io_context io;
    shelf here;
    int ended = 0;
    asio::cancellation_signal signal;
    asio::post(io, [&] {
        runnel::detail::launch<test::executor>(io.get_executor(), wait_beside(here, ended, nullptr), signal.slot());
        REQUIRE(here.kept);
        CHECK(ended == 0);
        here.resume();
        CHECK(ended == 1);
    });
    io.poll();
}

TEST_CASE("what is launched is cancelled by way of its slot, and so is the next that is launched with it") {
    asio::io_context io;
    asio::cancellation_signal signal;
    for (int i = 0; i < 2; ++i) {
        std::error_code error;
        asio::post(
            io, [&] { runnel::detail::launch<test::executor>(io.get_executor(), sleep_beside(error), signal.slot()); });
        io.restart();
        io.poll();
        CHECK_FALSE(error);
        signal.emit(asio::cancellation_type::terminal);
        io.restart();
        io.poll();
        CHECK(error == asio::error::operation_aborted);
    }
}

TEST_CASE("one can be launched with the slot of another that has just ended") {
    asio::io_context io;
    asio::cancellation_signal signal;
    auto const nothing = []() -> launchable<test::executor> { co_return; };
    std::error_code error;
    asio::post(io, [&] {
        runnel::detail::launch<test::executor>(io.get_executor(), nothing(), signal.slot());
        runnel::detail::launch<test::executor>(io.get_executor(), sleep_beside(error), signal.slot());
    });
    io.poll();
    signal.emit(asio::cancellation_type::terminal);
    io.restart();
    io.poll();
    CHECK(error == asio::error::operation_aborted);
}

TEST_CASE("what is launched and throws lets that leave the executor") {
    asio::io_context io;
    asio::cancellation_signal signal;
    bool waits = false;
    SUBCASE("at once") {}
    SUBCASE("after it has waited") { waits = true; }
    asio::post(io,
               [&] { runnel::detail::launch<test::executor>(io.get_executor(), fail_beside(waits), signal.slot()); });
    CHECK_THROWS_AS(io.run(), std::runtime_error);
}
