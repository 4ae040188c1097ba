#include <runnel/mqtt/client/metered.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/client/traced.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "interop/mosquitto.hpp"
#include "support/memory_sessions.hpp"
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

// What is traced and counted is what a real broker has seen, which it says by its log.

namespace {

using namespace runnel::mqtt;
using transport_type = traced<metered<runnel::tcp>>;

std::size_t count(std::string_view text, std::string const& what) {
    std::size_t n = 0;
    for (auto at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
    return n;
}

// Of all that a session does.
void converse(asio::io_context& io, session<transport_type>& s) {
    test::task<void> running(io, s.run());
    auto inbox = test::run(io, s.subscribe("a/#"));
    for (int i = 0; i < 30; ++i) {
        auto const quality = static_cast<qos>(i % 3);
        test::run(io, s.publish("a/" + std::to_string(i), "payload", {.qos = quality, .retain = i == 7}));
        CHECK(test::run(io, inbox.receive()).payload() == "payload");
    }
    test::run(io, s.unsubscribe(inbox));
    test::run(io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

}  // namespace

TEST_CASE("what is traced, and counted, is what mosquitto has received and sent") {
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        test::mosquitto broker;
        asio::io_context io;
        std::vector<std::string> lines;
        metered<runnel::tcp> const counted({.host = "127.0.0.1", .port = broker.port_tcp()});
        transport_type const to(counted, {.sink = [&](trace_line const& line) { lines.emplace_back(line.text); }});
        auto o = test::quick("traced", version);
        o.clean_start = true;
        session<transport_type> s(io.get_executor(), to, o);
        converse(io, s);
        REQUIRE(test::wait_until(io, [&] { return count(broker.log(), "Received DISCONNECT from traced") == 1; }));

        auto const log = broker.log();
        auto const lines_with = [&](std::string const& begin) {
            return static_cast<std::size_t>(std::ranges::count_if(
                lines, [&](auto const& l) { return l.starts_with(begin + ' ') || l.starts_with(begin + ','); }));
        };
        std::size_t packets = 0;
        for (auto const type : {packet_type::connack, packet_type::publish, packet_type::puback, packet_type::pubrec,
                                packet_type::pubrel, packet_type::pubcomp, packet_type::subscribe, packet_type::suback,
                                packet_type::unsubscribe, packet_type::unsuback, packet_type::disconnect}) {
            std::string const what = name(type);
            CAPTURE(what);
            auto const received = count(log, "Received " + what + " from traced");
            auto const sent = count(log, "Sending " + what + " to traced");
            CHECK(lines_with("sent " + what) == received);
            CHECK(lines_with("received " + what) == sent);
            CHECK(counted.traffic().sent.of(type).packets == received);
            CHECK(counted.traffic().received.of(type).packets == sent);
            packets += received + sent;
        }
        CHECK(packets == 2 * 30 + 2 * 10 + 2 * 3 * 10 + 6);  // messages, what acknowledges them, and the rest
        CHECK(lines_with("sent CONNECT") == 1);
        CHECK(count(log, "as traced (p" + std::string(version == protocol_version::v5 ? "5" : "2") + ", c1, ") == 1);
        CHECK(to.lost_lines() == 0);
    }
}
