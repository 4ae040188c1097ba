#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/client/traced.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/tls_pair.hpp"
#include "support/trace_lines.hpp"
#include <chrono>
#include <string>

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using ws = runnel::websocket::over<runnel::tcp>;
using wss = runnel::websocket::over<runnel::tls<runnel::tcp>>;

namespace {

mqtt::session_options options_of(std::string client_id) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    o.credentials.user_name = "user";
    o.credentials.password = runnel::secret_string("password secret");
    o.reconnect.attempts = 1;
    return o;
}

// What is traced of a session that publishes a message and leaves.
template <class Transport>
void trace(Transport to, asio::io_context& io, test::trace_lines& lines) {
    using traced = mqtt::traced<Transport>;
    traced const through(std::move(to), {.sink = lines.sink()});
    mqtt::session<traced> session(io.get_executor(), through, options_of("c"));
    test::task<void> running(io, session.run());
    test::run(io, session.connected());
    std::string const payload(70'000, 'p');
    test::run(io, session.publish("a/b", payload, {.qos = mqtt::qos::at_least_once}));
    test::run(io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
    CHECK(lines.count("sent CONNECT, ") == 1);
    CHECK(lines.count("received CONNACK, 4 bytes: Success") == 1);
    CHECK(lines.count("QoS 1, payload of 70000 bytes") == 1);
    CHECK(lines.count("received PUBACK") == 1);
    CHECK(lines.count("sent DISCONNECT") == 1);
    CHECK(lines.count("not looked at") == 0);
    CHECK(lines.count("secret") == 0);
    CHECK(lines.count("closed: ") == 1);
}

}  // namespace

TEST_CASE("over TLS, WebSocket and both, packets are traced, and what the layers have agreed on") {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    runnel::testing::over_tls const over_tls{runnel::tls_context(test::server_options())};
    runnel::tls_context const trusting(test::client_options());
    {
        test::trace_lines lines;
        trace(runnel::tls<runnel::tcp>{.host = "localhost", .port = broker.listen(over_tls), .context = trusting}, io,
              lines);
        CAPTURE(lines.all());
        CHECK(lines.count("; TLSv1.3, TLS_") == 1);
        CHECK(lines.count("open: TCP to ") == 1);
    }
    {
        test::trace_lines lines;
        trace(ws{.host = "localhost", .port = broker.listen(runnel::testing::over_websocket())}, io, lines);
        CAPTURE(lines.all());
        CHECK(lines.count("open: TCP to ") == 1);
        CHECK(lines.count("; WebSocket, status 101, subprotocol \"mqtt\"") == 1);
    }
    {
        test::trace_lines lines;
        wss to{.host = "localhost", .port = broker.listen(runnel::testing::over_websocket(over_tls))};
        to.next.context = trusting;
        trace(to, io, lines);
        CAPTURE(lines.all());
        CHECK(lines.count("; TLSv1.3, TLS_") == 1);
        CHECK(lines.count("; WebSocket, status 101, subprotocol \"mqtt\"") == 1);
    }
}

TEST_CASE("a handshake that fails is told with its step and its reason") {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    auto listening = runnel::testing::over_websocket();
    listening.path = "/other";
    test::trace_lines lines;
    mqtt::traced<ws> const to({.host = "localhost", .port = broker.listen(listening)}, {.sink = lines.sink()});
    CHECK(test::error_of(io, [](auto const& t, auto executor) -> asio::awaitable<void> {
        co_await t.open(executor);
    }(to, io.get_executor())));
    CAPTURE(lines.all());
    CHECK(lines.count("could not be opened, at the step websocket: ") == 1);
    CHECK(lines.count("404") == 1);
    mqtt::traced<runnel::tls<runnel::tcp>> const untrusting(
        {.host = "localhost",
         .port = broker.listen(runnel::testing::over_tls(runnel::tls_context(test::server_options())))},
        {.level = mqtt::trace_level::failures, .sink = lines.sink()});
    CHECK(test::error_of(io, [](auto const& t, auto executor) -> asio::awaitable<void> {
        co_await t.open(executor);
    }(untrusting, io.get_executor())));
    CHECK(lines.count("could not be opened, at the step tls: ") == 1);
}
