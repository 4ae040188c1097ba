#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/client/traced.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/trace_lines.hpp"
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::trace_level;

namespace {

using traced_memory = mqtt::traced<runnel::memory_transport>;
static_assert(runnel::transport<traced_memory>);
static_assert(runnel::reporting_transport<mqtt::traced<runnel::failover<runnel::tcp>>>);
static_assert(!runnel::reporting_transport<traced_memory>);

// A traced session in memory.
struct traced_session : test::memory_fixture {
    explicit traced_session(mqtt::trace_options trace = {}, mqtt::session_options o = test::quick())
        : to(transport, with_sink(std::move(trace))),
          session(io.get_executor(), to, std::move(o)),
          running(io, session.run()) {}

    mqtt::trace_options with_sink(mqtt::trace_options o) {
        if (!o.sink) o.sink = lines.sink();
        return o;
    }
    void disconnect() {
        test::run(io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
    }

    test::trace_lines lines;
    traced_memory to;
    mqtt::session<traced_memory> session;
    test::task<void> running;
};

// A transport whose steps last.
struct slow {
    using executor_type = test::executor;
    using stream_type = runnel::memory_stream<>;
    static constexpr bool secure = false;
    bool operator==(slow const&) const = default;
    std::string url() const { return "slow://"; }
    asio::awaitable<stream_type> open(executor_type executor, runnel::connect_progress* progress) const {
        progress->at(runnel::connect_step::resolve, "resolving\na name");
        co_await runnel::sleep_for<executor_type>(executor, 30ms);
        progress->at(runnel::connect_step::connect, "connecting");
        co_await runnel::sleep_for<executor_type>(executor, 10s);
        throw std::system_error(asio::error::timed_out);
    }
    asio::awaitable<stream_type> open(executor_type executor) const { return open(executor, nullptr); }
};

}  // namespace

TEST_CASE("a line as text has connection, time and text") {
    CHECK(to_string(mqtt::trace_line{.connection = 2, .time = 1'002'003us, .text = "sent PINGREQ"}) ==
          "#2 1.002003 s: sent PINGREQ");
}

TEST_CASE("a session's packets are traced both ways, from the beginning to the end") {
    for (auto const version : test::versions) {
        traced_session t({}, test::quick("client", version));
        test::run(t.io, t.session.connected());
        auto subscription = test::run(t.io, t.session.subscribe("a/#"));
        test::run(t.io, t.session.publish("a/b", "payload secret", {.qos = mqtt::qos::exactly_once}));
        test::run(t.io, subscription.receive());
        t.disconnect();
        CAPTURE(t.lines.all());
        auto const& texts = t.lines.texts;
        REQUIRE(texts.size() > 4);
        CHECK(texts[0] == "opening memory://:0");
        CHECK(texts[1] == "open");
        CHECK(texts[2].starts_with("sent CONNECT, "));
        CHECK(texts[3].starts_with("received CONNACK, "));
        for (auto const* line :
             {"sent SUBSCRIBE 1, ", "received SUBACK 1, ", "sent PUBLISH ", "received PUBREC ", "sent PUBREL ",
              "received PUBCOMP ", "received PUBLISH ", "sent PUBREC ", "received PUBREL ", "sent DISCONNECT, "}) {
            CAPTURE(line);
            CHECK(t.lines.count(line) == 1);
        }
        CHECK(t.lines.count("payload of 14 bytes") == 2);
        CHECK(t.lines.count("payload secret") == 0);
        CHECK(texts.back().starts_with("closed: "));
        CHECK(texts.back().find("not looked at") == std::string::npos);
        CHECK(t.to.lost_lines() == 0);
    }
}

TEST_CASE("bytes are told as the session counts them") {
    traced_session t;
    test::run(t.io, t.session.connected());
    test::run(t.io, t.session.publish("a", std::string(300'000, 'x'), {.qos = mqtt::qos::at_least_once}));
    t.disconnect();
    auto const c = t.session.counters();
    CHECK(t.lines.texts.back() ==
          "closed: " + std::to_string(c.bytes_sent) + " bytes sent, " + std::to_string(c.bytes_received) + " received");
    CHECK(t.lines.count("payload of 300000 bytes") == 1);
}

TEST_CASE("secrets are in no line, at any level") {
    auto o = test::quick("client", mqtt::protocol_version::v5);
    o.credentials.user_name = "user name";
    o.credentials.password = runnel::secret_string("password secret");
    o.will = mqtt::will_message_options{.topic = "w", .payload = "will secret"};
    for (auto const level :
         {trace_level::failures, trace_level::connections, trace_level::packets, trace_level::details}) {
        traced_session t({.level = level}, o);
        test::run(t.io, t.session.connected());
        test::run(t.io, t.session.publish("t", "payload secret", {.qos = mqtt::qos::at_least_once}));
        t.disconnect();
        CAPTURE(t.lines.all());
        CHECK(t.lines.count("secret") == 0);
        CHECK(t.lines.count("user name \"user name\"") == (level == trace_level::details ? 1 : 0));
        CHECK(t.lines.count("sent CONNECT") == (level >= trace_level::packets ? 1 : 0));
        CHECK(t.lines.texts.empty() == (level == trace_level::failures));
        for (auto const each : t.lines.levels) CHECK(each <= level);
    }
}

TEST_CASE("a password is not left in memory by a trace, whatever pieces it comes in") {
    runnel::testing::freed_memory_search const search("left behind");
    {
        mqtt::packet_tracer tracer({.level = trace_level::details});
        mqtt::connect const c{.client_id = "c", .user_name = "u", .password = "left behind, with more"};
        char bytes[100] = {};
        std::size_t const size = encoded_size(c, mqtt::protocol_version::v5);
        encode(bytes, c, mqtt::protocol_version::v5);
        for (std::size_t at = 0; at < size; at += 7)
            tracer.feed(mqtt::trace_direction::sent, {bytes + at, (std::min)(std::size_t{7}, size - at)},
                        [](trace_level, std::string_view) {});
        mqtt::packet_tracer unfinished;
        unfinished.feed(mqtt::trace_direction::sent, {bytes, 1}, [](trace_level, std::string_view) {});
        unfinished.feed(mqtt::trace_direction::sent, {bytes + 1, size - 2}, [](trace_level, std::string_view) {});
    }
    CHECK(search.found() == 0);
}

TEST_CASE("connections have numbers, and a new one in another version is read in that") {
    auto o = test::quick("client", mqtt::protocol_version::automatic);
    traced_session t({}, o);
    bool old = true;
    t.broker.hooks().on_connect = [&](auto const& request) {
        return old && request.version == mqtt::protocol_version::v5 ? mqtt::reason_code::unsupported_protocol_version
                                                                    : mqtt::reason_code::success;
    };
    test::run(t.io, t.session.connected());
    t.disconnect();
    CAPTURE(t.lines.all());
    CHECK(t.lines.count("MQTT 5, client") == 1);
    CHECK(t.lines.count("MQTT 3.1.1, client") == 1);
    CHECK(t.lines.count("malformed") == 0);
    CHECK(t.lines.connections.front() == 1);
    CHECK(t.lines.connections.back() == 2);
}

TEST_CASE("what a sink throws is dropped, and the session goes on") {
    int calls = 0;
    traced_session t({.sink = [&](mqtt::trace_line const&) {
        ++calls;
        throw std::runtime_error("of the sink's");
    }});
    test::run(t.io, t.session.connected());
    test::run(t.io, t.session.publish("a", "x", {.qos = mqtt::qos::at_least_once}));
    t.disconnect();
    CHECK(calls > 7);
    CHECK(t.to.lost_lines() == static_cast<std::uint64_t>(calls));
}

TEST_CASE("what this end cancels is no failure") {
    test::memory_fixture f;
    test::trace_lines lines;
    traced_memory const to(f.transport, {.level = trace_level::failures, .sink = lines.sink()});
    auto stream = test::run(f.io, to.open(f.io.get_executor()));
    char room[10];
    test::task reading(f.io, stream.read_some(asio::buffer(room)));
    f.settle();
    reading.cancel();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
    CHECK(lines.texts.empty());
}

TEST_CASE("a sink may destroy a stream that is no session's, and is told nothing more of it than its end") {
    asio::io_context io;
    test::trace_lines lines;
    std::optional<runnel::memory_stream<>> peer;
    std::optional<traced_memory::stream_type> stream;
    auto const keep = lines.sink();
    traced_memory const to(runnel::memory_transport([&](runnel::memory_stream<> s) { peer.emplace(std::move(s)); }),
                           {.sink = [&](mqtt::trace_line const& line) {
                               keep(line);
                               if (line.text.starts_with("received")) stream.reset();
                           }});
    stream.emplace(test::run(io, to.open(io.get_executor())));
    runnel::send_buffer out;
    out.append(test::hex("D0 00 D0 00"));
    test::run(io, peer->write(out));
    char room[10];
    CHECK(test::error_of(io, stream->read_some(asio::buffer(room))) == asio::error::operation_aborted);
    CHECK(lines.all() == "opening memory://:0\nopen\nreceived PINGRESP, 2 bytes\nclosed: 0 bytes sent, 4 received\n");
}

TEST_CASE("without a sink nothing is told and nothing is different") {
    test::memory_fixture f;
    traced_memory const to(f.transport, {});
    mqtt::session<traced_memory> session(f.io.get_executor(), to, test::quick());
    test::task<void> running(f.io, session.run());
    test::run(f.io, session.connected());
    test::run(f.io, session.publish("a", "x", {.qos = mqtt::qos::at_least_once}));
    test::run(f.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
    CHECK(to.lost_lines() == 0);
}

TEST_CASE("an attempt that fails is told with the step and the reason, and so is what is no MQTT") {
    asio::io_context io;
    test::trace_lines lines;
    mqtt::traced<runnel::memory_transport> const nobody(runnel::memory_transport(), {.sink = lines.sink()});
    CHECK(test::error_of(io, test::only(nobody.open(io.get_executor()))) == asio::error::connection_refused);
    REQUIRE(lines.texts.size() == 2);
    CHECK(lines.texts[1].starts_with("could not be opened, at the step none: memory://:0"));
    CHECK(lines.levels[1] == trace_level::failures);

    runnel::memory_transport const strange([&](runnel::memory_stream<> s) {
        auto answer = [](runnel::memory_stream<> to) -> asio::awaitable<void> {
            runnel::send_buffer out;
            out.append("HTTP/1.1 400 Bad Request\r\n");
            co_await to.write(out);
        };
        asio::co_spawn(io, answer(std::move(s)), [](std::exception_ptr) {});
    });
    mqtt::traced<runnel::memory_transport> const to(strange, {.level = trace_level::connections, .sink = lines.sink()});
    auto o = test::quick();
    o.reconnect.attempts = 1;
    mqtt::session<mqtt::traced<runnel::memory_transport>> session(io.get_executor(), to, o);
    CHECK(test::error_of(io, session.run()));
    CAPTURE(lines.all());
    CHECK(lines.count("received what is no MQTT") == 1);
    CHECK(lines.count("26 received, 25 received not looked at") == 1);
    CHECK(lines.count("CONNECT") == 0);
}

TEST_CASE("over TCP addresses are told, and steps that take their time") {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    auto const port = broker.listen_tcp();
    test::trace_lines lines;
    mqtt::traced<runnel::tcp> const to({.host = "localhost", .port = port}, {.sink = lines.sink()});
    CHECK(to.url() == "tcp://localhost:" + std::to_string(port));
    mqtt::session<mqtt::traced<runnel::tcp>> session(io.get_executor(), to, test::quick());
    test::task<void> running(io, session.run());
    test::run(io, session.connected());
    test::run(io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
    CAPTURE(lines.all());
    CHECK(lines.count("open: TCP to 127.0.0.1:" + std::to_string(port) + " from 127.0.0.1:") +
              lines.count("open: TCP to [::1]:" + std::to_string(port) + " from [::1]:") ==
          1);

    test::trace_lines steps;
    mqtt::traced<slow> const slowly({}, {.sink = steps.sink()});
    test::task opening(io, test::only(slowly.open(io.get_executor())));
    test::wait_until(io, [&] { return steps.count("connecting") == 1; });
    opening.cancel();
    CHECK(opening.run_for_error() == asio::error::operation_aborted);
    CHECK(steps.all() ==
          "opening slow://\nresolving\\x0aa name\nconnecting\ngiven up at the step connect: connecting\n");
}

TEST_CASE("a copy shares the sink, another transport does not, and both may be redirected") {
    test::trace_lines lines;
    mqtt::traced<runnel::tcp> const to({.host = "a.example", .port = 1}, {.sink = lines.sink()});
    auto const copy = to;
    CHECK(copy == to);
    CHECK(to != mqtt::traced<runnel::tcp>({.host = "a.example", .port = 1}, {.sink = lines.sink()}));
    auto const other = runnel::redirected(to, "b.example:7");
    REQUIRE(other);
    CHECK(other->url() == "tcp://b.example:7");
    CHECK(*other != to);
    CHECK(!runnel::redirected(to, "b.example:port"));
    mqtt::traced<runnel::failover<runnel::tcp>> several(runnel::failover<runnel::tcp>({to.next(), other->next()}), {});
    several.report(false);
    CHECK(several.next().next().host == "b.example");
    // Inside of a type known at run time, and around it.
    CHECK(runnel::any_transport(to).url() == to.url());
    CHECK(mqtt::traced<runnel::any_transport>(runnel::any_transport(runnel::tcp{.host = "a"}), {}).url() ==
          "tcp://a:1883");
}

TEST_CASE("a session may go at any time while it is traced, and the last line is told at once") {
    std::string const large(200'000, 'x');
    for (int turns = 4; turns < 60; ++turns) {  // both have begun
        test::memory_fixture f;
        test::trace_lines lines;
        std::size_t told = 0;
        {
            traced_memory const to(f.transport, {.sink = lines.sink()});
            mqtt::session<traced_memory> session(f.io.get_executor(), to, test::quick());
            test::task<void> running(f.io, session.run());
            test::task publishing(f.io, test::only(session.publish("a", large, {.qos = mqtt::qos::at_least_once})));
            for (int i = 0; i < turns; ++i) f.io.poll_one();
        }
        told = lines.texts.size();
        f.settle();
        CHECK(lines.texts.size() == told);
        if (told > 2) CHECK(lines.texts.back().starts_with("closed: "));
    }
}

TEST_CASE("the server with which the next attempt begins is that of the failover within") {
    runnel::failover<runnel::tcp> const both({runnel::tcp{.host = "one"}, runnel::tcp{.host = "two"}});
    mqtt::traced<runnel::failover<runnel::tcp>> told(both, {});
    told.report(false);
    CHECK(told.url() == "tcp://one:1883");
    CHECK(told.next_url() == "tcp://two:1883");
    mqtt::detail::destination<mqtt::traced<runnel::failover<runnel::tcp>>> to(told);
    CHECK(to.next_url() == "tcp://two:1883");
    mqtt::detail::destination<mqtt::traced<runnel::tcp>> plain(mqtt::traced<runnel::tcp>({.host = "one"}, {}));
    CHECK(plain.next_url() == "tcp://one:1883");
}
