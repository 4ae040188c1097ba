#include <runnel/coro/async_mutex.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include <exception>
#include <memory>
#include <vector>

namespace {

using executor = asio::any_io_executor;
using turn_type = runnel::async_mutex<executor>;

asio::awaitable<void> write_something(turn_type& turn, std::vector<int>& log, int name) {
    turn_type::holder holder(turn);
    if (!holder.try_take()) co_await holder.take();
    log.push_back(name);
    for (int i = 0; i < 3; ++i) co_await asio::post(turn.get_executor(), asio::use_awaitable_t<executor>{});
    log.push_back(name);
}

}  // namespace

TEST_CASE("writers with a turn write one after the other") {
    asio::io_context io;
    turn_type turn(io.get_executor());
    std::vector<int> log;
    for (int name = 1; name <= 4; ++name) asio::co_spawn(io, write_something(turn, log, name), asio::detached);
    io.run();
    REQUIRE(log.size() == 8);
    for (std::size_t i = 0; i < log.size(); i += 2) CHECK(log[i] == log[i + 1]);
    CHECK_FALSE(turn.taken());
}

TEST_CASE("only one can take the turn without waiting") {
    asio::io_context io;
    turn_type turn(io.get_executor());
    turn_type::holder first(turn);
    turn_type::holder second(turn);
    CHECK(first.try_take());
    CHECK_FALSE(second.try_take());
    second.give_back();  // is not its own to give
    CHECK(turn.taken());
    first.give_back();
    CHECK(second.try_take());
}

TEST_CASE("cancelling a wait for the turn throws and does not take it") {
    asio::io_context io;
    turn_type turn(io.get_executor());
    turn_type::holder first(turn);
    REQUIRE(first.try_take());
    std::vector<int> log;
    asio::cancellation_signal cancel;
    std::error_code outcome;
    asio::co_spawn(io, write_something(turn, log, 1),
                   asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr e) {
                       try {
                           if (e) std::rethrow_exception(e);
                       } catch (std::system_error const& error) {
                           outcome = error.code();
                       }
                   }));
    io.poll();
    cancel.emit(asio::cancellation_type::terminal);
    io.restart();
    io.poll();
    CHECK(outcome == asio::error::operation_aborted);
    CHECK(log.empty());
    first.give_back();
    CHECK_FALSE(turn.taken());
}

TEST_CASE("the turn may be destroyed before the coroutines that hold it and wait for it") {
    std::vector<int> log;
    asio::io_context io;
    auto turn = std::make_unique<turn_type>(io.get_executor());
    asio::co_spawn(io, write_something(*turn, log, 1), asio::detached);
    asio::co_spawn(io, write_something(*turn, log, 2), asio::detached);
    io.poll_one();
    io.poll_one();
    REQUIRE(log.size() == 1);
    REQUIRE(turn->taken());
    turn.reset();
    // The context destroys the first; the second has been woken and is destroyed or ends.
}

TEST_CASE("a context that ends destroys those who wait and gives back their turn") {
    std::vector<int> log;
    auto const own_a_turn = [&log](asio::io_context& io) -> asio::awaitable<void> {
        turn_type turn(io.get_executor());
        asio::co_spawn(io, write_something(turn, log, 1), asio::detached);
        co_await write_something(turn, log, 2);
    };
    asio::io_context io;
    asio::co_spawn(io, own_a_turn(io), asio::detached);
    io.poll_one();
    io.poll_one();
    CHECK(log.size() == 1);
}
