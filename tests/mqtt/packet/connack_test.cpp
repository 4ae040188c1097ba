#include <runnel/mqtt/packet/connack.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

}  // namespace

TEST_CASE("CONNACK: reserved flags are 0 [MQTT-3.2.2-1]") {
    for (auto const* body : {"02 00", "80 00", "FF 00"}) {
        CHECK(test::decode_error<connack>(test::packet(0x20, hex(body)), v3) == errc::invalid_connack_flags);
        CHECK(test::decode_error<connack>(test::packet(0x20, hex(body) + '\0'), v5) == errc::invalid_connack_flags);
    }
}

TEST_CASE("CONNACK: a refusal has no session [MQTT-3.2.2-6] [MQTT-3.2.2-4 of 3.1.1]") {
    CHECK(test::decode_error<connack>(hex("20 02 01 00"), v3) == errc::ok);
    CHECK(test::decode_error<connack>(hex("20 02 01 05"), v3) == errc::session_present_without_success);
    CHECK(test::decode_error<connack>(hex("20 03 01 87 00"), v5) == errc::session_present_without_success);
    CHECK(check(connack{.session_present = true, .reason = reason_code::not_authorized}, v5) ==
          errc::session_present_without_success);
}

TEST_CASE("CONNACK: the reason is one of a connection's [MQTT-3.2.2-8]") {
    for (unsigned code = 0; code < 256; ++code) {
        auto const bytes = hex("20 03 00") + static_cast<char>(code) + '\0';
        bool const known = code == 0 || (code >= 0x80 && allowed_in(reason_code(code), packet_type::connack));
        CHECK(test::decode_error<connack>(bytes, v5) == (known ? errc::ok : errc::invalid_reason_code));
    }
    CHECK(check(connack{.reason = reason_code::granted_qos_1}, v5) == errc::invalid_reason_code);
}

TEST_CASE("CONNACK: the return codes of MQTT 3.1.1 are 0 to 5, and are the reasons of the same meaning") {
    constexpr reason_code reasons[] = {reason_code::success,
                                       reason_code::unsupported_protocol_version,
                                       reason_code::client_identifier_not_valid,
                                       reason_code::server_unavailable,
                                       reason_code::bad_user_name_or_password,
                                       reason_code::not_authorized};
    for (unsigned code = 0; code < 256; ++code) {
        auto const bytes = hex("20 02 00") + static_cast<char>(code);
        test::decoded<connack> const d(bytes, v3);
        CHECK(d.error == (code <= 5 ? errc::ok : errc::invalid_reason_code));
        if (code <= 5) {
            CHECK(d.packet.reason == reasons[code]);
            CHECK(test::encoded(d.packet, v3) == bytes);
        }
    }
    CHECK(test::encoded(connack{.reason = reason_code::banned}, v3) == hex("20 02 00 05"));
    CHECK(test::encoded(connack{.reason = reason_code::server_busy}, v3) == hex("20 02 00 03"));
}

TEST_CASE("CONNACK: it has two bytes in MQTT 3.1.1, and properties behind them in MQTT 5") {
    CHECK(test::decode_error<connack>(hex("20 00"), v3) == errc::truncated_packet);
    CHECK(test::decode_error<connack>(hex("20 01 00"), v3) == errc::truncated_packet);
    CHECK(test::decode_error<connack>(hex("20 03 00 00 00"), v3) == errc::trailing_bytes);
    CHECK(test::decode_error<connack>(hex("20 02 00 00"), v5) == errc::truncated_packet);
    CHECK(test::decode_error<connack>(hex("20 04 00 00 00 00"), v5) == errc::trailing_bytes);
    CHECK(test::encoded(connack{}, v5) == hex("20 03 00 00 00"));
}
