#include <runnel/mqtt/packet/publish.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <string>
#include <string_view>

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

errc error_of(unsigned char first, std::string_view body, protocol_version version = v3) {
    return test::decode_error<publish>(test::packet(first, hex(body)), version);
}

}  // namespace

TEST_CASE("PUBLISH: the specification's example is read and written (3.3.2.4, 3.3.2.3 in 3.1.1)") {
    // Topic "a/b" and packet identifier 10, in MQTT 5 without properties.
    publish const p{.topic = "a/b", .qos = qos::at_least_once, .packet_id = 10};
    CHECK(test::encoded(p, v3) == hex("32 07 00 03 61 2F 62 00 0A"));
    CHECK(test::encoded(p, v5) == hex("32 08 00 03 61 2F 62 00 0A 00"));
    auto const bytes = hex("32 08 00 03 61 2F 62 00 0A 00");
    test::decoded<publish> const d(bytes, v5);
    CHECK(d.error == errc::ok);
    CHECK(d.packet == p);
    CHECK(d.packet.props.empty());
}

TEST_CASE("PUBLISH: flags are read and written") {
    for (unsigned first = 0x30; first < 0x40; ++first) {
        unsigned const quality = first >> 1 & 3;
        if (quality == 3 || (quality == 0 && (first & 8) != 0)) continue;
        auto const bytes =
            test::packet(static_cast<unsigned char>(first), hex(quality == 0 ? "0001 'a'" : "0001 'a' 0001"));
        test::decoded<publish> const d(bytes, v3);
        REQUIRE(d.error == errc::ok);
        CHECK(d.packet.qos == static_cast<qos>(quality));
        CHECK(d.packet.retain == ((first & 1) != 0));
        CHECK(d.packet.dup == ((first & 8) != 0));
        CHECK(test::encoded(d.packet, v3) == bytes);
    }
}

TEST_CASE(
    "PUBLISH: a packet identifier stands there at QoS 1 and 2 only, and is not 0 [MQTT-2.2.1-2] [MQTT-2.2.1-3] "
    "[MQTT-2.2.1-4] [MQTT-2.3.1-1 of 3.1.1] [MQTT-2.3.1-5 of 3.1.1]") {
    CHECK(error_of(0x32, "0001 'a' 0000") == errc::packet_identifier_zero);
    CHECK(error_of(0x34, "0001 'a' 0000 00", v5) == errc::packet_identifier_zero);
    CHECK(error_of(0x32, "0001 'a' 00") == errc::truncated_packet);
    auto const bytes = hex("30 05 0001 'a' 0007");
    test::decoded<publish> const d(bytes, v3);
    CHECK(d.packet.packet_id == 0);
    CHECK(d.packet.payload == hex("0007"));
    CHECK(check(publish{.topic = "a", .qos = qos::exactly_once}, v5) == errc::packet_identifier_zero);
    CHECK(test::encoded(publish{.topic = "a", .packet_id = 7}, v3) == hex("30 03 0001 'a'"));
}

TEST_CASE(
    "PUBLISH: what must not be sent is not sent [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-3.3.1-2 of 3.1.1] [MQTT-3.3.1-4 of "
    "3.1.1]") {
    CHECK(check(publish{.topic = "a", .dup = true}, v3) == errc::dup_without_qos);
    CHECK(check(publish{.topic = "a", .qos = qos(3), .packet_id = 1}, v3) == errc::invalid_qos);
    CHECK(check(publish{.topic = "a", .qos = qos::at_least_once, .dup = true, .packet_id = 1}, v3) == errc::ok);
}

TEST_CASE("PUBLISH: the topic comes first and is UTF-8 [MQTT-3.3.2-1] [MQTT-3.3.2-1 of 3.1.1]") {
    CHECK(error_of(0x30, "") == errc::truncated_packet);
    CHECK(error_of(0x30, "00") == errc::truncated_packet);
    CHECK(error_of(0x30, "0002 'a'") == errc::truncated_packet);
    CHECK(error_of(0x30, "0002 C3 28") == errc::invalid_utf8);
    CHECK(error_of(0x30, "0001 00") == errc::null_character);
    CHECK(error_of(0x30, "0002 C3 28 00", v5) == errc::invalid_utf8);
    CHECK(check(publish{.topic = "\xC3("}, v3) == errc::invalid_utf8);
    CHECK(check(publish{.topic = std::string(65'536, 'a')}, v3) == errc::string_too_long);
}

TEST_CASE("PUBLISH: the topic has no wildcards [MQTT-3.3.2-2] [MQTT-3.3.2-2 of 3.1.1]") {
    CHECK(error_of(0x30, "0003 'a/+'") == errc::wildcard_in_topic_name);
    CHECK(error_of(0x30, "0003 'a/#' 00", v5) == errc::wildcard_in_topic_name);
    CHECK(check(publish{.topic = "a/+"}, v5) == errc::wildcard_in_topic_name);
}

TEST_CASE("PUBLISH: the topic is empty only beside a topic alias (3.3.2.1, 3.3.2.3.4)") {
    CHECK(error_of(0x30, "0000") == errc::topic_empty);
    CHECK(error_of(0x30, "0000 00", v5) == errc::topic_empty);
    CHECK(error_of(0x30, "0000 02 01 01", v5) == errc::topic_empty);
    CHECK(error_of(0x30, "0000 03 23 0001", v5) == errc::ok);
    properties const aliased{.topic_alias = std::uint16_t{1}};
    CHECK(check(publish{.props = &aliased}, v5) == errc::ok);
    CHECK(check(publish{}, v5) == errc::topic_empty);
    CHECK(check(publish{.props = &aliased}, v3) == errc::not_in_this_version);
}

TEST_CASE("PUBLISH: a topic alias is not 0 [MQTT-3.3.2-8]") {
    CHECK(error_of(0x30, "0000 03 23 0000", v5) == errc::property_value_out_of_range);
    properties const zero{.topic_alias = std::uint16_t{0}};
    CHECK(check(publish{.topic = "a", .props = &zero}, v5) == errc::property_value_out_of_range);
}

TEST_CASE("PUBLISH: the response topic is a topic name [MQTT-3.3.2-13] [MQTT-3.3.2-14]") {
    CHECK(error_of(0x30, "0001 'a' 04 08 0001 'r'", v5) == errc::ok);
    CHECK(error_of(0x30, "0001 'a' 04 08 0001 '#'", v5) == errc::wildcard_in_topic_name);
    CHECK(error_of(0x30, "0001 'a' 04 08 0001 FF", v5) == errc::invalid_utf8);
    CHECK(error_of(0x30, "0001 'a' 03 08 0000", v5) == errc::topic_empty);
    properties const wildcard{.response_topic = "r/+"};
    CHECK(check(publish{.topic = "a", .props = &wildcard}, v5) == errc::wildcard_in_topic_name);
}

TEST_CASE("PUBLISH: the content type is UTF-8 [MQTT-3.3.2-19]") {
    CHECK(error_of(0x30, "0001 'a' 04 03 0001 FF", v5) == errc::invalid_utf8);
}

TEST_CASE("PUBLISH: subscription identifiers come from servers only [MQTT-3.3.4-6]") {
    auto const bytes = hex("30 08 0001 'a' 04 0B 01 0B 02");
    test::decoded<publish> const d(bytes, v5);
    REQUIRE(d.error == errc::ok);
    CHECK(check_sender(d.packet, role::server) == errc::ok);
    CHECK(check_sender(d.packet, role::client) == errc::property_not_allowed);
    CHECK(check_sender(publish{.topic = "a"}, role::client) == errc::ok);
    std::size_t sum = 0;
    for (auto const identifier : d.packet.props.get<property_id::subscription_identifier>()) sum += identifier;
    CHECK(sum == 3);
}

TEST_CASE(
    "PUBLISH: user properties keep order and duplicates, and are forwarded to the byte [MQTT-3.3.2-17] "
    "[MQTT-3.3.2-18]") {
    auto const bytes =
        test::packet(0x30, hex("0001 'a' 16 26 0001 'k' 0001 '1' 01 01 26 0001 'j' 0000 26 0001 'k' 0001 '1'"));
    test::decoded<publish> const d(bytes, v5);
    REQUIRE(d.error == errc::ok);
    std::string seen;
    for (auto const& [name, value] : d.packet.props.get<property_id::user_property>())
        seen.append(name).append("=").append(value).append(";");
    CHECK(seen == "k=1;j=;k=1;");
    CHECK(d.packet.props.parse().user_properties.size() == 3);
    CHECK(test::encoded(d.packet, v5) == bytes);
}

TEST_CASE("PUBLISH: a payload that is said to be UTF-8 can be checked (3.3.2.3.2)") {
    properties const text{.payload_format_indicator = std::uint8_t{1}};
    properties const bytes{.payload_format_indicator = std::uint8_t{0}};
    CHECK(check_payload_format(publish{.topic = "a", .payload = "\xFF", .props = &text}) ==
          errc::payload_format_invalid);
    CHECK(check_payload_format(publish{.topic = "a", .payload = "ok", .props = &text}) == errc::ok);
    CHECK(check_payload_format(publish{.topic = "a", .payload = "\xFF", .props = &bytes}) == errc::ok);
    CHECK(check_payload_format(publish{.topic = "a", .payload = "\xFF"}) == errc::ok);
}

TEST_CASE("PUBLISH: a packet that no length can describe is not sent") {
    std::string_view const payload("", 0);
    publish p{.topic = "a", .payload = payload};
    p.payload = std::string_view(payload.data(), max_variable_integer - 3);  // is not read
    CHECK(check(p, v3) == errc::ok);
    CHECK(check(p, v5) == errc::packet_too_large);
    p.payload = std::string_view(payload.data(), max_variable_integer - 2);
    CHECK(check(p, v3) == errc::packet_too_large);
}

TEST_CASE("PUBLISH: the payload can be left to the caller") {
    publish const p{.topic = "a", .payload = "payload"};
    char buffer[64];
    char* const end = encode_without_payload(buffer, p, v5, measure(p, v5));
    CHECK(std::string(buffer, end).append(p.payload) == test::encoded(p, v5));
}
