#include <runnel/mqtt/client/session.hpp>

#include <asio/post.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <support/memory_sessions.hpp>
#include <support/streams.hpp>
#include <vector>

// How a session performs what `mqtt::pacing` decides.

namespace {

using namespace std::chrono_literals;
using namespace runnel::mqtt;
using steady = std::chrono::steady_clock;
using publish_task = test::task<publish_result>;

session_options paced(publish_pace pace) {
    auto o = test::quick();
    o.pace = pace;
    return o;
}

// A server that accepts a connection, then reads nothing for a while, and notes when each PUBLISH arrives.
struct stalling_server {
    asio::awaitable<void> serve(runnel::memory_stream<> s, steady::duration pause) {
        runnel::send_buffer answer{0};
        std::string input;
        char bytes[4096];
        co_await s.read_some(asio::buffer(bytes));  // CONNECT
        answer.append(std::string_view("\x20\x02\x00\x00", 4));
        co_await s.write(answer);
        co_await runnel::sleep_for(s.get_executor(), pause);
        for (;;) {
            auto const n = co_await s.read_some(asio::buffer(bytes));
            input.append(bytes, n);
            for (;;) {
                auto const f = next_frame(input);
                if (f.status != parse_status::complete) break;
                if (f.header.type == packet_type::publish) arrived.push_back(steady::now());
                input.erase(0, f.total_size);
            }
        }
    }
    std::vector<steady::time_point> arrived;
};

}  // namespace

TEST_CASE("what a stalled network has held up is not followed by a burst") {
    asio::io_context io;
    stalling_server server;
    runnel::memory_transport transport([&](runnel::memory_stream<> s) {
        asio::co_spawn(io, server.serve(std::move(s), 100ms), [](std::exception_ptr) {});
    });
    test::memory_session session(io.get_executor(), transport, paced({.at_most_once = 2, .span = 20ms}));
    test::task<void> running(io, session.run());
    test::run(io, session.connected());
    std::string const large(50'000, 'x');
    std::vector<std::unique_ptr<publish_task>> tasks;
    for (int i = 0; i < 8; ++i) tasks.push_back(std::make_unique<publish_task>(io, session.publish("t", large)));
    for (auto& t : tasks) CHECK(t->run().what == publish_result::outcome::sent);
    CHECK(test::wait_until(io, [&] { return server.arrived.size() == 8; }));
    for (std::size_t i = 2; i < server.arrived.size(); ++i) CHECK(server.arrived[i] - server.arrived[i - 2] >= 19ms);
}

TEST_CASE("a QoS 0 message completes when it leaves, and not before") {
    test::connected_session p(paced({.at_most_once = 1, .span = 30ms}));
    auto const begin = steady::now();
    CHECK(p.publish("t", "1", qos::at_most_once) == reason_code::success);
    CHECK(p.publish("t", "2", qos::at_most_once) == reason_code::success);
    CHECK(steady::now() - begin >= 30ms);
    CHECK(p.session.counters().queued_bytes == 0);
    p.disconnect();
}

TEST_CASE("messages that wait for their turn end with the session, in order, and are told once") {
    test::connected_session p(paced({.at_most_once = 1, .acknowledged = 1, .span = 1h}));
    std::vector<std::unique_ptr<publish_task>> tasks;
    for (int i = 0; i < 6; ++i)
        tasks.push_back(std::make_unique<publish_task>(
            p.io, p.session.publish("t", "x", {.qos = i % 2 ? qos::at_least_once : qos::at_most_once})));
    test::settle(p.io);
    CHECK(tasks[0]->done());
    CHECK(tasks[1]->done());
    for (std::size_t i = 2; i < 6; ++i) CHECK_FALSE(tasks[i]->done());
    tasks[3]->cancel();
    CHECK(tasks[3]->run_for_error() == asio::error::operation_aborted);
    p.disconnect();
    for (std::size_t i : {2u, 4u, 5u}) CHECK(tasks[i]->run_for_error() == runnel::mqtt::errc::disconnected);
    for (auto const& t : tasks) CHECK(t->ended() == 1);
}

TEST_CASE("whoever goes away while a message waits is not told, and neither is one whose session has gone") {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    runnel::memory_transport transport([&](runnel::memory_stream<> s) { broker.attach(std::move(s)); });
    auto session =
        std::make_unique<test::memory_session>(io.get_executor(), transport, paced({.at_most_once = 1, .span = 20ms}));
    auto running = std::make_unique<test::task<void>>(io, session->run());
    test::run(io, session->connected());
    publish_task first(io, session->publish("t", "1")), second(io, session->publish("t", "2")),
        third(io, session->publish("t", "3"));
    test::settle(io);
    second.cancel();
    first.run();
    CHECK(second.run_for_error() == asio::error::operation_aborted);
    third.run();
    publish_task orphan(io, session->publish("t", "4"));
    test::settle(io);
    running->cancel();
    running->run_for_error();
    session.reset();
    CHECK(orphan.run_for_error() == runnel::mqtt::errc::disconnected);
}

TEST_CASE("a QoS 0 message for one connection and one call only does not outlive either") {
    test::connected_session p(paced({.at_most_once = 1, .span = 100ms}), {.recorded_messages = 100});
    publish_options const here{.this_connection = true};
    CHECK(p.publish("t", "sent", qos::at_most_once) == reason_code::success);
    publish_task lost(p.io, p.session.publish("t", "lost", here));
    publish_task cancelled(p.io, p.session.publish("t", "cancelled", here));
    publish_task kept(p.io, p.session.publish("t", "kept"));
    test::settle(p.io);
    CHECK_FALSE(lost.done());
    cancelled.cancel();
    CHECK(cancelled.run_for_error() == asio::error::operation_aborted);
    auto const before = p.session.counters().connections;
    REQUIRE(p.broker.drop_client(p.broker.received().front().client));
    CHECK(lost.run_for_error() == errc::not_connected);
    publish_task none(p.io, p.session.publish("t", "none", here));
    CHECK(none.run_for_error() == errc::not_connected);
    test::run(p.io, p.session.connected(before));
    CHECK(kept.run().what == publish_result::outcome::sent);
    publish_task at_end(p.io, p.session.publish("t", "at the end", here));
    test::settle(p.io);
    p.running.cancel();
    p.running.run_for_error();
    CHECK(at_end.run_for_error() == errc::not_connected);
    CHECK(p.session.counters().queued_bytes == 0);
    std::vector<std::string> arrived;
    for (auto const& m : p.broker.received()) arrived.push_back(m.payload);
    CHECK(arrived == std::vector<std::string>{"sent", "kept"});
}

TEST_CASE("where nothing waits for a pace, nobody is told anything new") {
    test::connected_session p;
    CHECK(p.session.try_publish("t", "x"));
    CHECK(p.publish("t", "x", qos::at_least_once) == reason_code::success);
    p.disconnect();
    auto o = test::quick();
    o.pace.span = 0ms;
    CHECK_THROWS_AS(check(o), std::out_of_range);
    o.pace.span = 25h;
    CHECK_THROWS_AS(check(o), std::out_of_range);
    o.pace.span = 24h;
    CHECK_NOTHROW(check(o));
}

TEST_CASE("a message that waits for its turn leaves after another has been acknowledged, whenever that is") {
    asio::io_context io;
    std::optional<runnel::memory_stream<>> server;
    runnel::memory_transport const transport([&](runnel::memory_stream<> s) { server.emplace(std::move(s)); });
    test::memory_session session(io.get_executor(), transport, paced({.acknowledged = 1, .span = 5ms}));
    test::task<void> running(io, session.run());
    REQUIRE(test::wait_until(io, [&] { return server.has_value(); }));
    test::run(io, test::write_text(*server, std::string("\x20\x02\x00\x00", 4)));
    test::run(io, session.connected());
    publish_task first(io, session.publish("t", "1", {.qos = qos::at_least_once}));
    publish_task second(io, session.publish("t", "2", {.qos = qos::at_least_once}));
    test::settle(io);
    auto const before = server->incoming().bytes;
    test::run(io, test::write_text(*server, std::string("\x40\x02\x00\x01", 4)));
    CHECK_FALSE(first.run_for_error());
    CHECK(test::wait_until(io, [&] { return server->incoming().bytes > before; }));
    running.cancel();
    running.run_for_error();
    second.run_for_error();
}
