#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/memory.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/session_end.hpp"
#include "support/streams.hpp"
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

// Clauses about clients that only a session on a network can show.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using mqtt::qos;
using test::memory_session;
using test::task;

// A server that says something when a client comes, and then listens.
struct listening_server {
    std::string says;
    std::string heard = {};
    bool closed = false;  // by the client
    asio::io_context io{};
    std::unique_ptr<task<void>> serving{};
    runnel::memory_transport transport{
        [this](runnel::memory_stream<> s) { serving = std::make_unique<task<void>>(io, serve(std::move(s))); }};

    asio::awaitable<void> serve(runnel::memory_stream<> s) {
        std::string room(1024, '\0');
        std::size_t const n = co_await s.read_some(asio::buffer(room));
        heard.append(room, 0, n);
        auto saying = test::write_text(s, says);
        co_await std::move(saying);
        auto rest = test::read_to_end(s);
        auto const end = co_await std::move(rest);
        heard += end.text;
        closed = end.end == asio::error::eof;
    }
};

}  // namespace

TEST_CASE("messages that nobody wants are acknowledged, and the client closes the connection behind its DISCONNECT") {
    // Shows [MQTT-4.5.0-2] [MQTT-4.5.0-2 of 3.1.1] [MQTT-3.14.4-1 of 3.1.1] [MQTT-3.14.4-2 of 3.1.1] [MQTT-3.14.4-2].
    for (auto const version : test::versions) {
        mqtt::publish const one{.topic = "t", .qos = qos::at_least_once, .packet_id = 5};
        mqtt::publish const two{.topic = "t", .qos = qos::exactly_once, .packet_id = 6};
        listening_server server{test::encoded(mqtt::connack{}, version) + test::encoded(one, version) +
                                test::encoded(two, version)};
        auto options = test::quick("client", version);
        options.unrouted_timeout = std::chrono::milliseconds(0);  // else they are kept for so long
        memory_session s(server.io.get_executor(), server.transport, options);
        task<void> running(server.io, s.run());
        test::run(server.io, s.connected());
        test::settle(server.io);
        test::run(server.io, s.disconnect());
        CHECK_FALSE(running.run_for_error());
        test::settle(server.io);
        CHECK(server.closed);
        bool const v5 = version == mqtt::protocol_version::v5;
        CHECK(test::in_words(server.heard, version) ==
              (v5 ? "CONNECT, PUBACK 5 0x83, PUBREC 6 0x83, DISCONNECT" : "CONNECT, PUBACK 5, PUBREC 6, DISCONNECT"));
    }
}
