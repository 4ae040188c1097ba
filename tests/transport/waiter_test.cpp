#include <runnel/transport/waiter.hpp>

#include <asio/strand.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include <memory>
#include <string>
#include <vector>

namespace {

using parking = runnel::parking<test::executor>;
using waiter = runnel::waiter<test::executor>;

asio::awaitable<std::error_code> wait_at(parking& place, waiter& w) {
    co_await place.park(w);
    co_return w.result;
}

asio::awaitable<std::error_code> wait_here(parking& place) {
    waiter w;
    co_await place.park(w);
    co_return w.result;
}

}  // namespace

TEST_CASE("a linked list keeps the order of insertion, and its links unlink themselves") {
    runnel::list_link list;
    CHECK_FALSE(list.linked());
    runnel::list_link a;
    {
        runnel::list_link b;
        a.insert_before(list);
        b.insert_before(list);
        CHECK(list.next() == &a);
        CHECK(a.next() == &b);
        CHECK(b.next() == &list);
    }
    CHECK(a.next() == &list);
    a.unlink();
    CHECK_FALSE(list.linked());
    CHECK_FALSE(a.linked());
}

TEST_CASE("a parked coroutine waits until it is woken, with the result it is given") {
    asio::io_context io;
    parking place(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(place, w));
    io.poll();
    CHECK(w.parked());
    CHECK_FALSE(waiting.done());
    SUBCASE("none") {
        place.wake(w);
        CHECK_FALSE(waiting.run());
    }
    SUBCASE("an error") {
        place.wake(w, asio::error::timed_out);
        CHECK(waiting.run() == asio::error::timed_out);
    }
    CHECK_FALSE(w.parked());
    CHECK_FALSE(w.linked());
}

TEST_CASE("a woken coroutine goes on in a later turn of the executor, not inside wake") {
    asio::io_context io;
    parking place(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(place, w));
    io.poll();
    place.wake(w);
    CHECK_FALSE(waiting.done());
    waiting.run();
}

TEST_CASE("waking a coroutine that is not parked, or twice, has no effect") {
    asio::io_context io;
    parking place(io.get_executor());
    waiter w;
    place.wake(w, asio::error::timed_out);
    test::task waiting(io, wait_at(place, w));
    io.poll();
    CHECK_FALSE(waiting.done());
    place.wake(w);
    place.wake(w, asio::error::timed_out);
    CHECK_FALSE(waiting.run());
    CHECK(waiting.ended() == 1);
}

TEST_CASE("all that are parked can be woken at once, in the order of their parking") {
    asio::io_context io;
    parking place(io.get_executor());
    std::vector<int> order;
    auto const wait = [&](int name) -> asio::awaitable<void> {
        waiter w;
        co_await place.park(w);
        CHECK(w.result == asio::error::timed_out);
        order.push_back(name);
    };
    for (int name = 0; name < 4; ++name) asio::co_spawn(io, wait(name), [](std::exception_ptr) {});
    io.poll();
    place.wake_all(asio::error::timed_out);
    io.restart();
    io.run();
    CHECK(order == std::vector<int>{0, 1, 2, 3});
}

TEST_CASE("a waiter can be parked again and again") {
    asio::io_context io;
    parking place(io.get_executor());
    waiter w;
    int rounds = 0;
    auto const loop = [&]() -> asio::awaitable<void> {
        for (; rounds < 5; ++rounds) co_await place.park(w);
    };
    test::task looping(io, loop());
    for (int i = 0; i < 5; ++i) {
        io.restart();
        io.poll();
        CHECK(rounds == i);
        place.wake(w);
    }
    looping.run();
    CHECK(rounds == 5);
}

TEST_CASE("cancelling a parked coroutine wakes it with operation_aborted, and park throws nothing itself") {
    asio::io_context io;
    parking place(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(place, w));
    io.poll();
    waiting.cancel();
    CHECK(waiting.run() == asio::error::operation_aborted);
    CHECK_FALSE(w.linked());
}

TEST_CASE("a wake that came before the cancellation wins") {
    asio::io_context io;
    parking place(io.get_executor());
    waiter w;
    test::task waiting(io, wait_at(place, w));
    io.poll();
    place.wake(w);
    waiting.cancel();
    CHECK_FALSE(waiting.run());
    CHECK(waiting.ended() == 1);
}

TEST_CASE("destroying the parking place wakes all with operation_aborted") {
    asio::io_context io;
    auto place = std::make_unique<parking>(io.get_executor());
    test::task first(io, wait_here(*place));
    test::task second(io, wait_here(*place));
    io.poll();
    place.reset();
    CHECK(first.run() == asio::error::operation_aborted);
    CHECK(second.run() == asio::error::operation_aborted);
}

TEST_CASE("the end of the context destroys what is parked, in whatever order things go") {
    auto const witness = std::make_shared<int>(0);
    auto const wait_in = [](std::shared_ptr<parking> place, std::shared_ptr<int>) -> asio::awaitable<void> {
        waiter w;
        co_await place->park(w);
    };
    SUBCASE("the coroutines own the place") {
        asio::io_context io;
        auto place = std::make_shared<parking>(io.get_executor());
        for (int i = 0; i < 3; ++i) asio::co_spawn(io, wait_in(place, witness), [](std::exception_ptr) {});
        place.reset();
        io.poll();
        CHECK(witness.use_count() == 4);
    }
    SUBCASE("a coroutine parked in one place owns another, in which one is parked") {
        asio::io_context io;
        auto outer = std::make_shared<parking>(io.get_executor());
        auto const own = [&](std::shared_ptr<parking> place, std::shared_ptr<int> w) -> asio::awaitable<void> {
            auto const inner = std::make_shared<parking>(place->get_executor());
            asio::co_spawn(place->get_executor(), wait_in(inner, w), [](std::exception_ptr) {});
            waiter waiting;
            co_await place->park(waiting);
        };
        asio::co_spawn(io, own(outer, witness), [](std::exception_ptr) {});
        outer.reset();
        io.poll();
        CHECK(witness.use_count() == 3);
    }
    SUBCASE("woken, but not yet gone on") {
        asio::io_context io;
        auto place = std::make_shared<parking>(io.get_executor());
        asio::co_spawn(io, wait_in(place, witness), [](std::exception_ptr) {});
        io.poll();
        place->wake_all({});
        place.reset();
        CHECK(witness.use_count() == 2);
    }
    CHECK(witness.use_count() == 1);
}

TEST_CASE("parking works on a strand") {
    asio::io_context io;
    test::executor const strand = asio::make_strand(io.get_executor());
    parking place(strand);
    bool woken = false;
    auto const wait = [&]() -> asio::awaitable<void> {
        waiter w;
        co_await place.park(w);
        woken = !w.result;
    };
    asio::co_spawn(strand, wait(), [](std::exception_ptr) {});
    io.poll();
    asio::post(strand, [&] { place.wake_all({}); });
    io.restart();
    io.run();
    CHECK(woken);
}

TEST_CASE("waiting allocates nothing in steady state") {
    asio::io_context io;
    parking place(io.get_executor());
    waiter ping;
    waiter pong;
    std::size_t before = 0;
    constexpr int rounds = 1000;
    auto const player = [&](waiter& mine, waiter& theirs, bool counts) -> asio::awaitable<void> {
        for (int i = 0; i < rounds; ++i) {
            if (counts && i == rounds / 2) before = runnel::testing::allocation_count();
            place.wake(theirs);
            co_await place.park(mine);
        }
        if (counts) before = runnel::testing::allocation_count() - before;
        place.wake(theirs);
    };
    test::task first(io, player(ping, pong, true));
    test::task second(io, player(pong, ping, false));
    io.poll();
    CHECK(first.done());
    CHECK(before == 0);
}
