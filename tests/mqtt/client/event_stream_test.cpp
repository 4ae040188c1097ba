#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <optional>
#include <string>

namespace {

namespace mqtt = runnel::mqtt;
using test::connected_session;
using test::memory_fixture;
using test::memory_session;
using test::quick;
using test::task;
using kind = mqtt::session_event::kind;

}  // namespace

TEST_CASE("events tell what a session does") {
    memory_fixture p;
    int attempts = 0;
    p.on_open = [&](auto&) {
        if (attempts++ == 0) throw std::system_error(asio::error::connection_refused);
    };
    memory_session s(p.io.get_executor(), p.transport, quick());
    auto events = s.events();
    task<void> running(p.io, s.run());
    auto const next = [&] { return test::run(p.io, events.next()); };
    CHECK(next().url.starts_with("memory:"));
    auto const failed = next();
    CHECK(failed.what == kind::disconnected);
    CHECK(failed.error == asio::error::connection_refused);
    auto const pause = next();
    CHECK(pause.what == kind::waiting);
    CHECK(pause.pause <= std::chrono::milliseconds(1));
    CHECK(next().what == kind::connecting);
    auto const connected = next();
    CHECK(connected.what == kind::connected);
    CHECK_FALSE(connected.session_present);
    test::run(p.io, s.disconnect());
    auto const ended = next();
    CHECK(ended.what == kind::disconnected);
    CHECK_FALSE(ended.error);
    CHECK(s.counters().round_trip.count() > 0);
}

TEST_CASE("a refusal is an event, with what the server says of it") {
    memory_fixture p;
    p.broker.hooks().on_connect = [](runnel::testing::connect_attempt& a) {
        a.reason_string = "closed on Sundays";
        return mqtt::reason_code::server_unavailable;
    };
    auto options = quick("client", mqtt::protocol_version::v5);
    options.reconnect.attempts = 1;
    memory_session s(p.io.get_executor(), p.transport, options);
    auto events = s.events();
    task<void> running(p.io, s.run());
    CHECK(running.run_for_error() == mqtt::reason_code::server_unavailable);
    CHECK(running.error_text().find("closed on Sundays") != std::string::npos);
    CHECK(test::run(p.io, events.next()).what == kind::connecting);
    auto const refused = test::run(p.io, events.next());
    CHECK(refused.what == kind::refused);
    CHECK(refused.error == mqtt::reason_code::server_unavailable);
    CHECK(refused.detail == "closed on Sundays");
    CHECK(to_string(refused).find("closed on Sundays") != std::string::npos);
}

TEST_CASE("a stream of events ends with the session, and holds the last 256 events if nobody takes them") {
    memory_fixture p;
    std::optional<memory_session> s(std::in_place, p.io.get_executor(), p.transport, quick());
    auto events = s->events();
    auto unread = s->events();
    task<void> running(p.io, s->run());
    for (int i = 0; i < 100; ++i) {
        test::run(p.io, s->connected());
        p.broker.drop_client("client");
        CHECK(test::wait_until(p.io, [&] { return !s->is_connected(); }));
    }
    CHECK(unread.dropped() > 0);
    running.cancel();
    CHECK(running.run_for_error());
    s.reset();
    int left = 0;
    while (!test::error_of(p.io, unread.next())) ++left;
    CHECK(left == 256);
    CHECK(test::error_of(p.io, unread.next()) == mqtt::errc::disconnected);
}

TEST_CASE("waiting for an event can be cancelled") {
    memory_fixture p;
    memory_session s(p.io.get_executor(), p.transport, quick());
    auto events = s.events();
    task<mqtt::session_event> waiting(p.io, events.next());
    p.settle();
    waiting.cancel();
    CHECK(waiting.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("two sessions with one client identifier notice each other") {
    for (auto const version : test::versions) {
        memory_fixture p;
        bool suspected = false;
        auto options = quick("twin", version);
        options.on_event = [&](mqtt::session_event const& e) { suspected = suspected || e.twin_suspected; };
        memory_session one(p.io.get_executor(), p.transport, options);
        memory_session two(p.io.get_executor(), p.transport, options);
        task<void> first(p.io, one.run());
        task<void> second(p.io, two.run());
        CHECK(test::wait_until(p.io, [&] { return suspected; }));
        first.cancel();
        second.cancel();
        CHECK(first.run_for_error());
        CHECK(second.run_for_error());
    }
}

TEST_CASE("of events that nobody takes the oldest are lost") {
    asio::io_context io;
    mqtt::event_stream<test::executor> events(io.get_executor());
    for (int i = 0; i < 260; ++i) events.watch().lock()->push({.detail = std::to_string(i)});
    CHECK(events.dropped() == 4);
    for (int i = 4; i < 260; ++i) CHECK(test::run(io, events.next()).detail == std::to_string(i));
}

TEST_CASE("who waits for an event is told when the session goes, and gets one that comes while it is cancelled") {
    asio::io_context io;
    mqtt::event_stream<test::executor> events(io.get_executor());
    {
        task<mqtt::session_event> waiting(io, events.next());
        test::settle(io);
        waiting.cancel();
        events.watch().lock()->push({.detail = "told"});
        test::settle(io);
        REQUIRE(waiting.done());
        CHECK_FALSE(waiting.error());
        if (!waiting.error()) CHECK(waiting.get().detail == "told");
    }
    task<mqtt::session_event> waiting(io, events.next());
    test::settle(io);
    events.watch().lock()->close();
    test::settle(io);
    REQUIRE(waiting.done());
    CHECK(waiting.error() == mqtt::errc::disconnected);
}
