#include <runnel/mqtt/packet/connect.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <string>
#include <string_view>

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

// A CONNECT of 3.1.1 with these flags and this payload, of which flags and payload can be wrong.
errc error_of(std::string_view flags, std::string_view payload) {
    auto const bytes = test::packet(0x10, hex("0004 'MQTT' 04") + hex(flags) + hex("000A") + hex(payload));
    return test::decode_error<connect>(bytes, v3);
}

errc error_of_v5(std::string_view flags, std::string_view behind) {
    auto const bytes = test::packet(0x10, hex("0004 'MQTT' 05") + hex(flags) + hex("000A") + hex(behind));
    return test::decode_error<connect>(bytes, v5);
}

}  // namespace

TEST_CASE("CONNECT: the specification's example of the variable header is read (3.1.2.12, 3.1.2.10 in 3.1.1)") {
    auto const bytes =
        test::packet(0x10, hex("0004 'MQTT' 05 CE 000A 05 11 0000000A 0002 'id' 00 0001 'w' 0000 0001 'u' 0001 'p'"));
    test::decoded<connect> const d(bytes, v5);
    REQUIRE(d.error == errc::ok);
    CHECK(d.packet.clean_start);
    CHECK(d.packet.keep_alive == 10);
    CHECK(d.packet.props.get<property_id::session_expiry_interval>() == 10u);
    CHECK(d.packet.client_id == "id");
    REQUIRE(d.packet.will);
    CHECK(d.packet.will->qos == qos::at_least_once);
    CHECK_FALSE(d.packet.will->retain);
    CHECK(d.packet.user_name == "u");
    CHECK(d.packet.password == "p");
}

TEST_CASE("CONNECT: the protocol name is MQTT [MQTT-3.1.2-1] [MQTT-3.1.2-1 of 3.1.1]") {
    CHECK(test::decode_error<connect>(test::packet(0x10, hex("0004 'MQTt' 04 02 0000 0000")), v3) ==
          errc::invalid_protocol_name);
    CHECK(test::decode_error<connect>(test::packet(0x10, hex("0004 'HTTP' 05 02 0000 00 0000")), v5) ==
          errc::invalid_protocol_name);
    CHECK(test::decode_error<connect>(test::packet(0x10, hex("0003 'MQT' 04 02 0000 0000")), v3) ==
          errc::invalid_protocol_name);
}

TEST_CASE(
    "CONNECT: the version is read before all else, and must be one of ours [MQTT-3.1.2-2] [MQTT-3.1.2-2 of 3.1.1]") {
    protocol_version version{};
    CHECK(read_protocol_version(hex("0004 'MQTT' 04"), version) == errc::ok);
    CHECK(version == v3);
    CHECK(read_protocol_version(hex("0004 'MQTT' 05 and whatever follows"), version) == errc::ok);
    CHECK(version == v5);
    CHECK(read_protocol_version(hex("0004 'MQTT' 06"), version) == errc::unsupported_protocol_version);
    CHECK(read_protocol_version(hex("0004 'MQTT' 84"), version) == errc::unsupported_protocol_version);
    CHECK(read_protocol_version(hex("0006 'MQIsdp' 03"), version) == errc::unsupported_protocol_version);
    CHECK(read_protocol_version(hex("0004 'MQTT'"), version) == errc::truncated_packet);
    CHECK(read_protocol_version(hex("0004 'MQ'"), version) == errc::truncated_packet);
    auto const bytes = test::packet(0x10, hex("0004 'MQTT' 05 02 0000 00 0000"));
    CHECK(test::decode_error<connect>(bytes, v3) == errc::unsupported_protocol_version);
}

TEST_CASE("CONNECT: the reserved flag is 0 [MQTT-3.1.2-3] [MQTT-3.1.2-3 of 3.1.1]") {
    CHECK(error_of("03", "0000") == errc::reserved_connect_flag);
    CHECK(error_of_v5("03", "00 0000") == errc::reserved_connect_flag);
}

TEST_CASE(
    "CONNECT: without a will there is no will QoS and no will retain [MQTT-3.1.2-11] [MQTT-3.1.2-13] "
    "[MQTT-3.1.2-11 of 3.1.1] [MQTT-3.1.2-13 of 3.1.1] [MQTT-3.1.2-15 of 3.1.1]") {
    for (auto const* flags : {"0A", "12", "1A", "22", "3A"}) {
        CHECK(error_of(flags, "0000") == errc::will_flags_without_will);
        CHECK(error_of_v5(flags, "00 0000") == errc::will_flags_without_will);
    }
}

TEST_CASE("CONNECT: the will has QoS 0, 1 or 2 [MQTT-3.1.2-12] [MQTT-3.1.2-14 of 3.1.1]") {
    for (auto const* flags : {"06", "0E", "16"}) CHECK(error_of(flags, "0000 0001 'w' 0000") == errc::ok);
    CHECK(error_of("1E", "0000 0001 'w' 0000") == errc::invalid_qos);
    CHECK(error_of_v5("1E", "00 0000 00 0001 'w' 0000") == errc::invalid_qos);
}

TEST_CASE(
    "CONNECT: what the flags announce is there, in order, and nothing else [MQTT-3.1.2-9] [MQTT-3.1.2-16] "
    "[MQTT-3.1.2-17] "
    "[MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.2-9 of 3.1.1] [MQTT-3.1.2-18 of 3.1.1] "
    "[MQTT-3.1.2-19 of 3.1.1] [MQTT-3.1.2-20 of 3.1.1] [MQTT-3.1.2-21 of 3.1.1] [MQTT-3.1.3-1 of 3.1.1] "
    "[MQTT-3.1.3-3 of 3.1.1] [MQTT-3.1.4-1] [MQTT-3.1.4-1 of 3.1.1]") {
    CHECK(error_of("02", "") == errc::truncated_packet);
    CHECK(error_of("06", "0000") == errc::truncated_packet);
    CHECK(error_of("06", "0000 0001 'w'") == errc::truncated_packet);
    CHECK(error_of("82", "0000") == errc::truncated_packet);
    CHECK(error_of("C2", "0000 0001 'u'") == errc::truncated_packet);
    CHECK(error_of("C2", "0000 0001 'u' 0001 'p'") == errc::ok);
    CHECK(error_of("82", "0000 0001 'u' 0001 'p'") == errc::trailing_bytes);
    CHECK(error_of("02", "0000 0001 'w' 0000") == errc::trailing_bytes);
    CHECK(error_of_v5("42", "00 0000 0001 'p' 00") == errc::trailing_bytes);
}

TEST_CASE("CONNECT: MQTT 3.1.1 has no password without a user name, MQTT 5 may [MQTT-3.1.2-22 of 3.1.1]") {
    CHECK(error_of("42", "0000 0001 'p'") == errc::password_without_user_name);
    CHECK(error_of_v5("42", "00 0000 0001 'p'") == errc::ok);
    CHECK(check(connect{.password = "p"}, v3) == errc::password_without_user_name);
    CHECK(check(connect{.password = "p"}, v5) == errc::ok);
}

TEST_CASE(
    "CONNECT: an empty client identifier needs a clean session in MQTT 3.1.1 only [MQTT-3.1.3-7 of 3.1.1] "
    "[MQTT-3.1.3-8 of 3.1.1]") {
    CHECK(error_of("00", "0000") == errc::client_identifier_empty);
    CHECK(error_of("02", "0000") == errc::ok);
    CHECK(error_of_v5("00", "00 0000") == errc::ok);
    CHECK(check(connect{.clean_start = false}, v3) == errc::client_identifier_empty);
    CHECK(check(connect{.clean_start = false}, v5) == errc::ok);
}

TEST_CASE(
    "CONNECT: client identifier, will topic and user name are UTF-8, the password any bytes [MQTT-3.1.3-4] "
    "[MQTT-3.1.3-11] "
    "[MQTT-3.1.3-12] [MQTT-3.1.3-4 of 3.1.1] [MQTT-3.1.3-10 of 3.1.1] [MQTT-3.1.3-11 of 3.1.1]") {
    CHECK(error_of("02", "0001 FF") == errc::invalid_utf8);
    CHECK(error_of("06", "0000 0001 FF 0000") == errc::invalid_utf8);
    CHECK(error_of("82", "0000 0001 FF") == errc::invalid_utf8);
    CHECK(error_of("82", "0000 0001 00") == errc::null_character);
    CHECK(error_of("C2", "0000 0000 0001 FF") == errc::ok);
    CHECK(check(connect{.client_id = "\xFF"}, v5) == errc::invalid_utf8);
    CHECK(check(connect{.user_name = "\xFF"}, v5) == errc::invalid_utf8);
    CHECK(check(connect{.user_name = "u", .password = "\xFF"}, v5) == errc::ok);
    CHECK(check(connect{.will = will{.topic = "\xFF"}}, v5) == errc::invalid_utf8);
}

TEST_CASE("CONNECT: the will's topic is a topic name [MQTT-4.7.0-1] [MQTT-4.7.3-1]") {
    CHECK(error_of("06", "0000 0000 0000") == errc::topic_empty);
    CHECK(error_of("06", "0000 0001 '#' 0000") == errc::wildcard_in_topic_name);
    CHECK(check(connect{.will = will{}}, v5) == errc::topic_empty);
    CHECK(check(connect{.will = will{.topic = "+"}}, v5) == errc::wildcard_in_topic_name);
}

TEST_CASE("CONNECT: fields longer than a length of two bytes can say are not sent") {
    std::string const long_text(65'536, 'x');
    CHECK(check(connect{.client_id = long_text}, v5) == errc::string_too_long);
    CHECK(check(connect{.user_name = long_text}, v5) == errc::string_too_long);
    CHECK(check(connect{.user_name = "u", .password = long_text}, v5) == errc::string_too_long);
    CHECK(check(connect{.will = will{.topic = "t", .payload = long_text}}, v5) == errc::string_too_long);
}

TEST_CASE("CONNECT: the properties of the will and of the packet are not mixed up") {
    properties const delay{.will_delay_interval = 5};
    properties const expiry{.session_expiry_interval = 5};
    CHECK(check(connect{.props = &delay}, v5) == errc::property_not_allowed);
    CHECK(check(connect{.will = will{.topic = "t", .props = &delay}}, v5) == errc::ok);
    CHECK(check(connect{.will = will{.topic = "t", .props = &expiry}}, v5) == errc::property_not_allowed);
    CHECK(check(connect{.props = &expiry}, v5) == errc::ok);
    CHECK(check(connect{.props = &expiry}, v3) == errc::not_in_this_version);
    CHECK(error_of_v5("02", "05 18 00000005 0000") == errc::property_not_allowed);
    CHECK(error_of_v5("06", "00 0000 05 11 00000005 0001 't' 0000") == errc::property_not_allowed);
}
