#include <runnel/mqtt/protocol/traffic_counters.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <string>
#include <string_view>

using namespace runnel::mqtt;

TEST_CASE("packets are counted by direction, type and QoS") {
    traffic_counters c;
    {
        traffic_scanner scanner(c);
        auto const message = [](unsigned char first, std::size_t payload) {
            return test::packet(
                first, test::field("t") + ((first & 6) != 0 ? std::string("\0\1", 2) : "") + std::string(payload, 'x'));
        };
        std::string const sent = message(0x30, 0) + message(0x31, 10) + message(0x32, 20) + message(0x3A, 20) +
                                 message(0x34, 500) + test::hex("C0 00 C0 00");
        for (char const byte : sent) scanner.sent({&byte, 1});
        scanner.received(test::hex("D0 00 40 02 00 01") + message(0x3D, 1));
    }
    CHECK(c.sent.of(packet_type::publish).packets == 5);
    CHECK(c.sent.of(packet_type::publish).bytes == 5 + 15 + 27 + 27 + 508);
    CHECK(c.sent.of(qos::at_most_once).packets == 2);
    CHECK(c.sent.of(qos::at_most_once).bytes == 20);
    CHECK(c.sent.of(qos::at_least_once).packets == 2);
    CHECK(c.sent.of(qos::exactly_once).bytes == 508);
    CHECK(c.sent.duplicates == 1);
    CHECK(c.sent.of(packet_type::pingreq).packets == 2);
    CHECK(c.sent.of(packet_type::pingreq).bytes == 4);
    CHECK(c.received.of(packet_type::puback).packets == 1);
    CHECK(c.received.of(qos::exactly_once).packets == 1);
    CHECK(c.received.duplicates == 1);
    CHECK(c.received.of(packet_type::publish).packets == 1);
    CHECK(c.received.malformed == 0);
}

TEST_CASE("what is no MQTT is counted once a connection") {
    traffic_counters c;
    for (int i = 0; i < 3; ++i) {
        traffic_scanner scanner(c);
        scanner.received("HTTP/1.1 400 Bad Request\r\n");
        scanner.received("\r\n");
        scanner.sent(test::hex("C0 00"));
    }
    CHECK(c.received.malformed == 3);
    CHECK(c.sent.malformed == 0);
    CHECK(c.sent.of(packet_type::pingreq).packets == 3);
}

TEST_CASE("the counters are metrics") {
    traffic_counters c;
    traffic_scanner(c).sent(test::hex("C0 00 30 03 00 01 't' 30 04 00 01 't' 00"));
    runnel::metric_list list;
    add_metrics(list, c);
    auto const text = to_prometheus(list);
    for (auto const* line : {"runnel_mqtt_packets_total{direction=\"transmit\",packet=\"PINGREQ\"} 1\n",
                             "runnel_mqtt_packet_io_bytes_total{direction=\"transmit\",packet=\"PUBLISH\"} 11\n",
                             "runnel_mqtt_publish_packets_total{direction=\"transmit\",qos=\"0\"} 2\n",
                             "runnel_mqtt_publish_packets_total{direction=\"receive\",qos=\"2\"} 0\n",
                             "runnel_mqtt_publish_io_bytes_total{direction=\"transmit\",qos=\"0\"} 11\n",
                             "runnel_mqtt_publish_duplicates_total{direction=\"transmit\"} 0\n",
                             "runnel_mqtt_malformed_total{direction=\"receive\"} 0\n"}) {
        CAPTURE(line);
        CHECK(text.find(line) != text.npos);
    }
    CHECK(text.find("packet=\"CONNECT\"") == text.npos);
}
