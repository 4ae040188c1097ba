#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include "support/allocation_trial.hpp"
#include "support/memory_sessions.hpp"
#include <memory>

// A session whose n-th allocation fails, for each n: of a conversation of every kind of exchange.

namespace {

using runnel::testing::broker;
using test::allocator;
using test::local_transport;

local_transport locally(broker& to, asio::io_context& server) {
    auto const accept = [&to](local_transport::stream_type s) { to.attach(std::move(s)); };
    return {std::make_shared<std::function<void(local_transport::stream_type)>>(accept), server.get_executor()};
}

runnel::tcp by_tcp(broker& to, asio::io_context&) { return {.host = "127.0.0.1", .port = to.listen_tcp()}; }

void report(test::allocation_failures const& all) {
    MESSAGE(all.count << " failed: " << all.ended << " have ended run, " << all.escaped << " have left the context, "
                      << all.terminated << " have ended the program");
}

}  // namespace

TEST_CASE("whichever allocation fails, the session goes on or run ends with it, and what is promised is kept") {
    for (auto const version : test::versions) {
        auto const all = test::fail_each_allocation<local_transport>(version, allocator::operator_new, &locally);
        report(all);
        CHECK(all.count > 60 / test::every(7));
        CHECK(all.wrong == 0);
        // What Asio itself loses: the timer of `request`.
        if (test::asio_allocates_apart()) CHECK(all.escaped + all.terminated <= 4);
    }
}

TEST_CASE("the same over TCP") {
    auto const all =
        test::fail_each_allocation<runnel::tcp>(runnel::mqtt::protocol_version::v5, allocator::operator_new, &by_tcp);
    report(all);
    CHECK(all.count > 60 / test::every(7));
    CHECK(all.wrong == 0);
}

TEST_CASE("whichever allocation of Asio's fails, nothing is told that is not true, and the session can be destroyed") {
    for (auto const version : test::versions) {
        auto const all = test::fail_each_allocation<local_transport>(version, allocator::aligned_alloc, &locally);
        report(all);
        if (test::asio_allocates_apart()) CHECK(all.count > 60 / test::every(7));
        CHECK(all.wrong == 0);
    }
}
