#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::reason_code;
using test::quick;
using test::task;
using kind = mqtt::session_event::kind;

constexpr auto v5 = mqtt::protocol_version::v5;

// Two brokers on loopback, and what a session did.
struct two_brokers {
    asio::io_context io;
    runnel::testing::broker first{io.get_executor()};
    runnel::testing::broker second{io.get_executor()};
    runnel::tcp to_first{.host = "127.0.0.1", .port = first.listen_tcp()};
    runnel::tcp to_second{.host = "127.0.0.1", .port = second.listen_tcp()};
    std::vector<mqtt::session_event> events;

    mqtt::session_options options() {
        auto o = quick("client", v5);
        o.follow_redirects = true;
        o.on_event = [this](auto const& e) { events.push_back(e); };
        return o;
    }
    std::size_t count(kind what) const {
        return static_cast<std::size_t>(std::ranges::count(events, what, &mqtt::session_event::what));
    }
    // Refuses all clients of the first broker, and names the second.
    void redirect(reason_code reason) {
        first.hooks().on_connect = [this, reason](runnel::testing::connect_attempt& a) {
            a.server_reference = "127.0.0.1:" + std::to_string(to_second.port);
            return reason;
        };
    }
};

}  // namespace

TEST_CASE("a session follows a server that names another one, at once") {
    for (auto const reason : {reason_code::use_another_server, reason_code::server_moved}) {
        two_brokers b;
        b.redirect(reason);
        mqtt::session s(b.io.get_executor(), b.to_first, b.options());
        task<void> running(b.io, s.run());
        test::run(b.io, s.connected());
        CHECK(b.second.connected("client"));
        CHECK(b.count(kind::redirected) == 1);
        CHECK(b.count(kind::waiting) == 0);
        // For the next connection only, or for good.
        b.second.drop_client("client");
        CHECK(test::wait_until(b.io, [&] { return s.counters().connections == 2; }));
        CHECK(b.first.counters().refused == (reason == reason_code::server_moved ? 1 : 2));
        test::run(b.io, s.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
}

TEST_CASE("servers that name each other are not followed for ever") {
    two_brokers b;
    b.redirect(reason_code::use_another_server);
    b.second.hooks().on_connect = [&](runnel::testing::connect_attempt& a) {
        a.server_reference = "127.0.0.1:" + std::to_string(b.to_first.port);
        return reason_code::use_another_server;
    };
    auto options = b.options();
    options.reconnect.attempts = 1;
    mqtt::session s(b.io.get_executor(), b.to_first, options);
    task<void> running(b.io, s.run());
    CHECK(running.run_for_error() == reason_code::use_another_server);
    CHECK(b.count(kind::redirected) == 5);
}

TEST_CASE("redirections behind a connection that has lasted are a new row") {
    two_brokers b;
    int attempts = 0;
    auto const refuses = [&](runnel::tcp const& other) {
        return [&attempts, &other](runnel::testing::connect_attempt& a) {
            if (++attempts % 6 == 0) return reason_code::success;
            a.server_reference = "127.0.0.1:" + std::to_string(other.port);
            return reason_code::use_another_server;
        };
    };
    b.first.hooks().on_connect = refuses(b.to_second);
    b.second.hooks().on_connect = refuses(b.to_first);
    auto options = b.options();
    options.reconnect.stable_after = std::chrono::milliseconds(0);
    mqtt::session s(b.io.get_executor(), b.to_first, options);
    task<void> running(b.io, s.run());
    test::run(b.io, s.connected());
    CHECK(b.count(kind::redirected) == 5);
    CHECK(b.count(kind::waiting) == 0);
    REQUIRE(b.second.drop_client("client"));
    CHECK(test::wait_until(b.io, [&] { return s.counters().connections == 2; }));
    CHECK(b.count(kind::redirected) == 10);
    CHECK(b.count(kind::waiting) == 1);
    test::run(b.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("a redirection is followed only by those who want that") {
    two_brokers b;
    b.redirect(reason_code::server_moved);
    auto options = b.options();
    options.follow_redirects = false;
    options.reconnect.attempts = 1;
    mqtt::session s(b.io.get_executor(), b.to_first, options);
    task<void> running(b.io, s.run());
    CHECK(running.run_for_error() == reason_code::server_moved);
}

TEST_CASE("a session goes to the next of several servers when one refuses it") {
    two_brokers b;
    b.first.hooks().on_connect = [](auto&) { return reason_code::server_busy; };
    runnel::failover const both(std::vector{b.to_first, b.to_second});
    mqtt::session s(b.io.get_executor(), both, b.options());
    task<void> running(b.io, s.run());
    test::run(b.io, s.connected());
    CHECK(b.second.connected("client"));
    CHECK(b.first.counters().refused == 1);
    test::run(b.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("where a server has named one that does not answer, the next of several is tried") {
    two_brokers b;
    asio::ip::tcp::acceptor nobody(b.io, {asio::ip::make_address("127.0.0.1"), 0});
    auto const port = nobody.local_endpoint().port();
    nobody.close();
    b.first.hooks().on_connect = [=](runnel::testing::connect_attempt& a) {
        a.server_reference = "127.0.0.1:" + std::to_string(port);
        return reason_code::use_another_server;
    };
    runnel::failover const both(std::vector{b.to_first, b.to_second});
    mqtt::session s(b.io.get_executor(), both, b.options());
    task<void> running(b.io, s.run());
    test::run(b.io, s.connected());
    CHECK(b.second.connected("client"));
    CHECK(b.first.counters().refused == 1);
    CHECK(b.count(kind::redirected) == 1);
    CHECK(b.count(kind::waiting) == 1);
    test::run(b.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("a server that another one has named tells nothing of the transport's own endpoints") {
    asio::io_context io;
    std::vector<runnel::memory_stream<>> ends;
    auto const endpoint = [&](std::string name, bool fails) {
        runnel::memory_transport made([&ends, fails](runnel::memory_stream<> s) {
            if (fails) throw std::system_error(asio::error::connection_refused);
            ends.push_back(std::move(s));
        });
        made.host = std::move(name);
        return made;
    };
    mqtt::detail::destination home(runnel::failover(std::vector{endpoint("a", true), endpoint("b", false)}));
    test::run(io, test::only(home.open(io.get_executor(), {})));
    CHECK(home.url() == "memory://b:0");
    home.failed(true);
    CHECK(home.next_url() == "memory://a:0");
    REQUIRE(home.redirect(reason_code::use_another_server, "other:1"));
    CHECK(home.url() == "memory://other:1");
    home.accepted();
    home.failed(false);
    CHECK(home.next_url() == "memory://a:0");
}
