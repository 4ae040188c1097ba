#include <runnel/mqtt/received.hpp>

#include <doctest/doctest.h>

#include <string>

using runnel::mqtt::delivery;
using runnel::mqtt::qos;
using runnel::mqtt::reason_code;
using runnel::mqtt::received;
using enum received::knowledge;

namespace {

/// The identifiers of what can be acknowledged now.
std::string acknowledged(received& table) {
    std::string all;
    while (auto const* e = table.next_taken()) {
        all += (all.empty() ? "" : " ") + std::to_string(e->packet_id);
        if (is_error(e->reason)) all += '!';
        table.pop();
    }
    return all;
}

delivery arrive(received& table, std::uint16_t id, qos quality) {
    auto const a = table.arrive(id, quality);
    CHECK(a.is_new);
    return a.token;
}

constexpr auto ok = reason_code::success;

}  // namespace

TEST_CASE("messages are acknowledged in the order in which they came [MQTT-4.6.0-2] [MQTT-4.6.0-3]") {
    received table;
    auto const a = arrive(table, 5, qos::at_least_once);
    auto const b = arrive(table, 3, qos::exactly_once);
    auto const c = arrive(table, 9, qos::at_least_once);
    table.take(c, ok);
    CHECK(acknowledged(table) == "");
    table.take(a, ok);
    CHECK(acknowledged(table) == "5");
    table.take(b, ok);
    CHECK(acknowledged(table) == "3 9");
}

TEST_CASE("to take a message twice does no harm") {
    for (qos const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        auto const a = arrive(table, 1, quality);
        table.take(a, ok);
        table.take(a, reason_code::unspecified_error);
        CHECK(acknowledged(table) == "1");
        table.take(a, ok);
        CHECK(acknowledged(table) == "");
        table.forget(1);
        auto const again = arrive(table, 1, quality);  // the peer uses the identifier for another message
        table.take(a, ok);
        CHECK(acknowledged(table) == "");
        table.take(again, ok);
        CHECK(acknowledged(table) == "1");
    }
}

TEST_CASE("a QoS 2 message is new once, until PUBREL [MQTT-4.3.3-10] [MQTT-4.3.3-12]") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    CHECK_FALSE(table.arrive(1, qos::exactly_once).is_new);
    CHECK(table.knows(1) == not_taken);
    table.take(a, ok);
    CHECK(table.knows(1) == taken);
    CHECK_FALSE(table.arrive(1, qos::exactly_once).is_new);
    CHECK(acknowledged(table) == "1 1 1");
    table.forget(1);
    CHECK(table.knows(1) == unknown);
    arrive(table, 1, qos::exactly_once);
}

TEST_CASE("a QoS 1 message is new each time, also with the identifier of a QoS 2 message") {
    received table;
    arrive(table, 1, qos::exactly_once);
    arrive(table, 1, qos::at_least_once);
    arrive(table, 1, qos::at_least_once);
    CHECK(table.knows(1) == not_taken);
}

TEST_CASE("a QoS 2 message taken after its connection is acknowledged when it is sent again") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    table.connection_lost();
    SUBCASE("before it is sent again") {
        table.take(a, ok);
        CHECK(acknowledged(table) == "");
        CHECK_FALSE(table.arrive(1, qos::exactly_once).is_new);
    }
    SUBCASE("after it is sent again") {
        CHECK_FALSE(table.arrive(1, qos::exactly_once).is_new);
        CHECK(acknowledged(table) == "");
        table.take(a, ok);
    }
    CHECK(acknowledged(table) == "1");
}

TEST_CASE("a QoS 1 message taken after its connection is not acknowledged") {
    received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    table.connection_lost();
    auto const b = arrive(table, 1, qos::at_least_once);
    table.take(a, ok);
    CHECK(acknowledged(table) == "");
    table.take(b, ok);
    CHECK(acknowledged(table) == "1");
}

TEST_CASE("a QoS 2 message of a session that is gone does not acknowledge another with its identifier") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    table.connection_lost();
    table.clear();
    auto const b = arrive(table, 1, qos::exactly_once);
    table.take(a, ok);
    CHECK(acknowledged(table) == "");
    CHECK(table.knows(1) == not_taken);
    table.take(b, ok);
    CHECK(acknowledged(table) == "1");
}

TEST_CASE("a refused QoS 2 message ends with its PUBREC [MQTT-4.3.3-9]") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    auto const b = arrive(table, 2, qos::exactly_once);
    table.take(b, reason_code::quota_exceeded);
    CHECK(table.knows(2) == taken);  // PUBREC has not been sent
    table.take(a, ok);
    CHECK(acknowledged(table) == "1 2!");
    CHECK(table.knows(2) == unknown);
    arrive(table, 2, qos::exactly_once);
}

TEST_CASE("a QoS 2 message refused after its connection is not new when it is sent again, and refused then") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    table.connection_lost();
    table.take(a, reason_code::quota_exceeded);
    CHECK_FALSE(table.arrive(1, qos::exactly_once).is_new);
    CHECK(acknowledged(table) == "1!");
    arrive(table, 1, qos::exactly_once);
}

TEST_CASE("a QoS 2 message counts for the receive maximum until PUBCOMP (4.9), a QoS 1 message until PUBACK") {
    received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    auto const b = arrive(table, 2, qos::exactly_once);
    auto const c = arrive(table, 3, qos::exactly_once);
    CHECK(table.unacknowledged() == 3);
    table.take(a, ok);
    table.take(b, ok);
    table.take(c, reason_code::quota_exceeded);
    CHECK(acknowledged(table) == "1 2 3!");
    CHECK(table.unacknowledged() == 1);
    table.forget(2);
    CHECK(table.unacknowledged() == 0);
}

TEST_CASE("each connection counts anew for the receive maximum (4.9)") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    arrive(table, 2, qos::exactly_once);
    table.take(a, ok);
    CHECK(acknowledged(table) == "1");
    table.connection_lost();
    CHECK(table.unacknowledged() == 0);
    table.forget(1);  // PUBREL of a message of the connection before
    CHECK(table.unacknowledged() == 0);
    table.arrive(2, qos::exactly_once);
    CHECK(table.unacknowledged() == 1);
}

TEST_CASE("a message sent again and again on one connection is bounded by the receive maximum too") {
    received table;
    arrive(table, 1, qos::exactly_once);
    for (int i = 0; i < 9; ++i) table.arrive(1, qos::exactly_once);
    CHECK(table.unacknowledged() == 10);
}
