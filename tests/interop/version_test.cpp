#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include "interop/mosquitto.hpp"
#include "interop/rabbitmq.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include <cstdint>
#include <string>
#include <vector>

// Automatic sessions with real servers.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using kind = mqtt::session_event::kind;

test::skip_unless const ready([] { return test::rabbitmq::available() && test::mosquitto::available(); },
                              "RabbitMQ or mosquitto is not installed");

// Which version is spoken on each of two connections, after how many attempts in all; each takes and brings a message.
void converse(std::uint16_t port, protocol_version expected, std::vector<std::size_t> attempts) {
    asio::io_context io;
    std::size_t tried = 0;
    mqtt::session_options o;
    o.version = protocol_version::automatic;
    o.credentials.client_id = "automatic";
    o.clean_start = true;
    o.on_event = [&](mqtt::session_event const& e) { tried += e.what == kind::connecting; };
    mqtt::session<runnel::tcp> session(io.get_executor(), {.host = "127.0.0.1", .port = port}, o);
    for (auto const& wanted : attempts) {
        tried = 0;
        test::task<void> running(io, session.run());
        auto inbox = test::run(io, session.subscribe("automatic"));
        CHECK(session.negotiated()->version == expected);
        CHECK(tried == wanted);
        test::run(io, session.publish("automatic", "payload", {.qos = mqtt::qos::at_least_once}));
        CHECK(test::run(io, inbox.receive()).payload() == "payload");
        test::run(io, session.unsubscribe(inbox));
        test::run(io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
}

}  // namespace

TEST_CASE("mosquitto speaks MQTT 5 with an automatic session, which asks for nothing else") {
    test::mosquitto broker;
    converse(broker.port_tcp(), protocol_version::v5, {1, 1});
}

TEST_CASE("RabbitMQ ends a connection of MQTT 5 without an answer, and speaks MQTT 3.1.1 with an automatic session") {
    test::rabbitmq broker;
    converse(broker.port_tcp(), protocol_version::v3_1_1, {2, 2});
}
