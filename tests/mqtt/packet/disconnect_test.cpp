#include <runnel/mqtt/packet/auth.hpp>
#include <runnel/mqtt/packet/disconnect.hpp>
#include <runnel/mqtt/packet/ping.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

}  // namespace

TEST_CASE("DISCONNECT: what need not be said is left out (3.14.2)") {
    properties const expiry{.session_expiry_interval = 0};
    CHECK(test::encoded(disconnect{}, v5) == hex("E0 00"));
    CHECK(test::encoded(disconnect{reason_code::server_moved}, v5) == hex("E0 01 9D"));
    CHECK(test::encoded(disconnect{reason_code::normal_disconnection, &expiry}, v5) == hex("E0 07 00 05 11 00000000"));
    CHECK(test::encoded(disconnect{reason_code::server_moved, &expiry}, v3) == hex("E0 00"));
    for (auto const* bytes : {"E0 00", "E0 01 00", "E0 02 00 00"})
        CHECK(test::decode_error<disconnect>(hex(bytes), v5) == errc::ok);
    CHECK(test::decode_error<disconnect>(hex("E0 03 00 00 00"), v5) == errc::trailing_bytes);
    CHECK(test::decode_error<disconnect>(hex("E0 01 00"), v3) == errc::trailing_bytes);
}

TEST_CASE("DISCONNECT: reasons are those of a disconnection, and those of the sender's role [MQTT-3.14.2-1]") {
    CHECK(test::decode_error<disconnect>(hex("E0 01 01"), v5) == errc::invalid_reason_code);
    CHECK(test::decode_error<disconnect>(hex("E0 01 85"), v5) == errc::invalid_reason_code);
    CHECK(check(disconnect{reason_code::banned}, v5) == errc::invalid_reason_code);
    CHECK(check_sender(disconnect{reason_code::disconnect_with_will_message}, role::client) == errc::ok);
    CHECK(check_sender(disconnect{reason_code::disconnect_with_will_message}, role::server) ==
          errc::invalid_reason_code);
    CHECK(check_sender(disconnect{reason_code::session_taken_over}, role::server) == errc::ok);
    CHECK(check_sender(disconnect{reason_code::session_taken_over}, role::client) == errc::invalid_reason_code);
    CHECK(check_sender(disconnect{reason_code::protocol_error}, role::client) == errc::ok);
}

TEST_CASE(
    "DISCONNECT: a server never sends the session expiry interval, a client never a server reference [MQTT-3.14.2-2]") {
    properties const expiry{.session_expiry_interval = 0};
    properties const reference{.server_reference = "other"};
    CHECK(check_sender(disconnect{.props = &expiry}, role::client) == errc::ok);
    CHECK(check_sender(disconnect{.props = &expiry}, role::server) == errc::property_not_allowed);
    CHECK(check_sender(disconnect{.props = &reference}, role::server) == errc::ok);
    CHECK(check_sender(disconnect{.props = &reference}, role::client) == errc::property_not_allowed);
}

TEST_CASE("AUTH: it exists in MQTT 5 only") {
    CHECK(test::decode_error<auth>(hex("F0 00"), v3) == errc::unknown_packet_type);
    CHECK(test::decode_error<auth>(hex("F0 00"), v5) == errc::ok);
    CHECK(check(auth{}, v3) == errc::unknown_packet_type);
}

TEST_CASE("AUTH: reasons are those of an authentication, and those of the sender's role [MQTT-3.15.2-1]") {
    properties const method{.authentication_method = "m"};
    for (unsigned code = 0; code < 256; ++code) {
        bool const known = code == 0 || code == 0x18 || code == 0x19;
        auto const bytes = hex("F0 06") + static_cast<char>(code) + hex("04 15 0001 'm'");
        CHECK(test::decode_error<auth>(bytes, v5) == (known ? errc::ok : errc::invalid_reason_code));
        CHECK(check(auth{reason_code(code), &method}, v5) == (known ? errc::ok : errc::invalid_reason_code));
    }
    CHECK(check_sender(auth{reason_code::success}, role::server) == errc::ok);
    CHECK(check_sender(auth{reason_code::success}, role::client) == errc::invalid_reason_code);
    CHECK(check_sender(auth{reason_code::continue_authentication}, role::client) == errc::ok);
    CHECK(check_sender(auth{reason_code::continue_authentication}, role::server) == errc::ok);
    CHECK(check_sender(auth{reason_code::reauthenticate}, role::client) == errc::ok);
    CHECK(check_sender(auth{reason_code::reauthenticate}, role::server) == errc::invalid_reason_code);
}

TEST_CASE("AUTH: the authentication method is there unless all is left out (3.15.2.2.2)") {
    CHECK(test::decode_error<auth>(hex("F0 01 18"), v5) == errc::truncated_packet);
    CHECK(test::decode_error<auth>(hex("F0 02 18 00"), v5) == errc::authentication_method_missing);
    CHECK(test::decode_error<auth>(hex("F0 06 18 04 16 0001 00"), v5) == errc::authentication_data_without_method);
    properties const data{.authentication_data = "d"};
    CHECK(check(auth{reason_code::continue_authentication}, v5) == errc::authentication_method_missing);
    CHECK(check(auth{reason_code::success, &data}, v5) == errc::authentication_method_missing);
    CHECK(test::encoded(auth{}, v5) == hex("F0 00"));
}

TEST_CASE("PINGREQ and PINGRESP are two bytes") {
    for (auto version : {v3, v5}) {
        CHECK(test::encoded(pingreq{}, version) == hex("C0 00"));
        CHECK(test::encoded(pingresp{}, version) == hex("D0 00"));
        CHECK(test::decode_error<pingreq>(hex("C0 00"), version) == errc::ok);
        CHECK(test::decode_error<pingreq>(hex("C0 01 00"), version) == errc::trailing_bytes);
        CHECK(test::decode_error<pingresp>(hex("D0 01 00"), version) == errc::trailing_bytes);
    }
}
