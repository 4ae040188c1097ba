#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>
#include <doctest/doctest.h>

#include "interop/aedes.hpp"
#include "interop/mosquitto.hpp"
#include "interop/rabbitmq.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <system_error>
#include <vector>

// Automatic sessions with real servers: one that takes MQTT 5, and one for each way to refuse it.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using kind = mqtt::session_event::kind;
using test::hex;

constexpr char const* without_5 = "accept_protocol_versions 3,4\n";
constexpr char const* no_choice = "mosquitto 2.1 or newer is not installed, nor named by RUNNEL_NEWEST_MOSQUITTO";

// A mosquitto that can be told which versions it takes (2.1 or newer): that of RUNNEL_NEWEST_MOSQUITTO in the
// environment, else the installed one; empty if that is older.
std::string choosing_mosquitto() {
    if (char const* const given = std::getenv("RUNNEL_NEWEST_MOSQUITTO")) return given;
    if (!test::mosquitto::available()) return {};
    test::scratch_directory const directory;
    auto const configuration = directory.write("conf", std::string("listener 1883 127.0.0.1\n") + without_5);
    test::child_process trying({"mosquitto", "-c", configuration, "--test-config"},
                               (directory.path() / "log").string());
    return trying.wait(std::chrono::seconds(10)) && trying.exit_status() == 0 ? "mosquitto" : "";
}

// Whether a case is left out, as its server is missing; says why.
bool is_left_out(bool there, std::string const& reason) {
    if (!there) MESSAGE("skipped: " << reason);
    return !there;
}

test::skip_unless const ready(
    [] {
        return test::mosquitto::available() || !choosing_mosquitto().empty() || test::rabbitmq::available() ||
               test::aedes::available();
    },
    "neither mosquitto nor RabbitMQ is installed, and npm cannot install aedes");

// All that the server says to these bytes, until it ends the connection.
asio::awaitable<std::string> answer_to(std::uint16_t port, std::string bytes) {
    asio::ip::tcp::socket socket(co_await asio::this_coro::executor);
    asio::ip::tcp::endpoint const server(asio::ip::address_v4::loopback(), port);
    co_await socket.async_connect(server, asio::use_awaitable);
    co_await asio::async_write(socket, asio::buffer(bytes), asio::use_awaitable);
    std::string answer;
    std::error_code end;
    co_await asio::async_read(socket, asio::dynamic_buffer(answer), asio::redirect_error(asio::use_awaitable, end));
    co_return answer;
}

// CONNECT of a client "automatic" that asks for a clean session.
std::string const connect_5 = test::packet(0x10, hex("0004 'MQTT' 05 02 000A 00 0009 'automatic'"));
std::string const connect_3 = test::packet(0x10, hex("0004 'MQTT' 04 02 000A 0009 'automatic'"));
std::string const disconnect = hex("E0 00");

std::string refusal_of(std::uint16_t port) {
    asio::io_context io;
    return test::run(io, answer_to(port, connect_5));
}

// An automatic session that keeps its events. Its pauses leave RabbitMQ 3.10 the time to forget a client before the
// next of that name, which it may else throw out.
struct automatic_session {
    explicit automatic_session(std::uint16_t port)
        : session(io.get_executor(), {.host = "127.0.0.1", .port = port}, options()) {}

    mqtt::session_options options() {
        mqtt::session_options o;
        o.version = protocol_version::automatic;
        o.credentials.client_id = "automatic";
        o.clean_start = true;
        o.reconnect.initial = o.reconnect.maximum = std::chrono::milliseconds(300);
        o.reconnect.jitter = 0;
        o.on_event = [this](mqtt::session_event const& e) { events.push_back(e); };
        return o;
    }
    std::ptrdiff_t count(kind what) const { return std::ranges::count(events, what, &mqtt::session_event::what); }

    // The events, for a check that fails.
    std::string told() const {
        std::string text;
        for (auto const& e : events) text += '\n' + mqtt::to_string(e);
        return text;
    }

    // A message that the server takes and brings, in this version.
    void exchange(mqtt::basic_subscription<test::executor>& inbox, protocol_version expected) {
        test::run(io, session.publish("automatic", "payload", {.qos = mqtt::qos::at_least_once}));
        CHECK(test::run(io, inbox.receive()).payload() == "payload");
        CHECK(session.negotiated()->version == expected);
    }

    asio::io_context io;
    std::vector<mqtt::session_event> events;
    mqtt::session<runnel::tcp> session;
};

struct expectation {
    protocol_version version;
    std::ptrdiff_t tries;   // of the first attempt of a run
    std::error_code error;  // of the try with MQTT 5, if it is refused
};

// Which version is spoken in each of two runs, after how many tries, and on a second connection of each run; each
// connection takes and brings a message.
void converse(std::uint16_t port, expectation const& expected) {
    automatic_session s(port);
    auto& [io, events, session] = s;
    bool const falls_back = expected.version == protocol_version::v3_1_1;
    for (int run = 0; run < 2; ++run) {
        CAPTURE(run);
        INFO(s.told());
        events.clear();
        test::task<void> running(io, session.run());
        auto inbox = test::run(io, session.subscribe("automatic"));
        s.exchange(inbox, expected.version);
        CHECK(s.count(kind::connecting) == expected.tries);
        CHECK(s.count(kind::waiting) == 0);
        CHECK(s.count(kind::disconnected) == expected.tries - 1);
        CHECK(s.count(kind::fallback) == (falls_back ? 1 : 0));
        for (auto const& e : events)
            if (e.what == kind::disconnected) CHECK(e.error == expected.error);

        // Another client of this name makes the server end the connection: what has been found out holds for the next.
        events.clear();
        auto const before = session.counters().connections;
        CHECK_FALSE(test::run(io, answer_to(port, (falls_back ? connect_3 : connect_5) + disconnect)).empty());
        test::run(io, session.connected(before));
        s.exchange(inbox, expected.version);
        CHECK(s.count(kind::disconnected) == 1);
        CHECK(s.count(kind::connecting) == 1);
        CHECK(s.count(kind::fallback) == (falls_back ? 1 : 0));

        test::run(io, session.unsubscribe(inbox));
        test::run(io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
}

}  // namespace

TEST_CASE("mosquitto speaks MQTT 5 with an automatic session, which asks for nothing else") {
    if (is_left_out(test::mosquitto::available(), "mosquitto is not installed")) return;
    test::mosquitto broker;
    converse(broker.port_tcp(), {.version = protocol_version::v5, .tries = 1, .error = {}});
}

TEST_CASE("mosquitto without MQTT 5 refuses it by 0x84, and speaks MQTT 3.1.1 with an automatic session") {
    auto const program = choosing_mosquitto();
    if (is_left_out(!program.empty(), no_choice)) return;
    test::mosquitto_options options;
    options.listener_configuration = without_5;
    options.program = program;
    test::mosquitto broker(options);
    CHECK(refusal_of(broker.port_tcp()) == hex("20 03 00 84 00"));
    converse(
        broker.port_tcp(),
        {.version = protocol_version::v3_1_1, .tries = 2, .error = mqtt::reason_code::unsupported_protocol_version});
}

TEST_CASE("a mosquitto that is started again with other versions is followed within the same run") {
    auto const program = choosing_mosquitto();
    if (is_left_out(!program.empty(), no_choice)) return;
    test::mosquitto_options options;
    options.program = program;
    test::mosquitto broker(options);
    automatic_session s(broker.port_tcp());
    test::task<void> running(s.io, s.session.run());
    auto inbox = test::run(s.io, s.session.subscribe("automatic"));
    s.exchange(inbox, protocol_version::v5);
    for (bool const takes_5 : {false, true, false}) {
        CAPTURE(takes_5);
        INFO(s.told());
        auto const before = s.session.counters().connections;
        s.events.clear();
        broker.stop();
        broker.configure_listeners(takes_5 ? "accept_protocol_versions 5\n" : without_5);
        broker.start();
        test::run(s.io, s.session.connected(before));
        s.exchange(inbox, takes_5 ? protocol_version::v5 : protocol_version::v3_1_1);
        // The server has refused the one version in words, and then has been asked in the other at once.
        auto const refused = std::ranges::find(s.events, kind::refused, &mqtt::session_event::what);
        CHECK(s.count(kind::refused) == 1);
        CHECK(std::find_if(refused, s.events.end(), [](auto const& e) { return e.what == kind::waiting; }) ==
              s.events.end());
    }
    test::run(s.io, s.session.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("Aedes refuses MQTT 5 by a CONNACK of MQTT 3.1.1, and speaks that with an automatic session") {
    if (is_left_out(test::aedes::available(), "node is not installed, or npm cannot install aedes")) return;
    test::aedes broker;
    CHECK(refusal_of(broker.port_tcp()) == hex("20 02 00 01"));
    converse(
        broker.port_tcp(),
        {.version = protocol_version::v3_1_1, .tries = 2, .error = mqtt::reason_code::unsupported_protocol_version});
}

TEST_CASE("RabbitMQ ends a connection of MQTT 5 without an answer, and speaks MQTT 3.1.1 with an automatic session") {
    if (is_left_out(test::rabbitmq::available(), "RabbitMQ is not installed")) return;
    test::rabbitmq broker;
    CHECK(refusal_of(broker.port_tcp()).empty());
    converse(broker.port_tcp(), {.version = protocol_version::v3_1_1, .tries = 2, .error = asio::error::eof});
}
