#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"

// Noticing each new connection of a session.

namespace {

namespace mqtt = runnel::mqtt;

}  // namespace

TEST_CASE("who waits for a connection beyond the first ones notices the next, and each one only once") {
    test::memory_fixture p;
    test::memory_session session(p.io.get_executor(), p.transport, test::quick());
    test::task<std::uint64_t> first(p.io, session.connected(0));
    test::task<void> running(p.io, session.run());
    CHECK(first.run() == 1);
    CHECK(test::run(p.io, session.connected(0)) == 1);

    test::task<std::uint64_t> second(p.io, session.connected(1));
    p.settle();
    CHECK_FALSE(second.done());
    REQUIRE(p.broker.drop_client("client"));
    CHECK(second.run() == 2);

    test::task<std::uint64_t> third(p.io, session.connected(2));
    test::run(p.io, session.disconnect());
    CHECK(third.run_for_error() == mqtt::errc::disconnected);
    CHECK_FALSE(running.run_for_error());
}
