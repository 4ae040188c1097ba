#include <runnel/mqtt/packet/suback.hpp>
#include <runnel/mqtt/packet/unsuback.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

}  // namespace

TEST_CASE("SUBACK: the specification's example is read and written (3.9.3 in 3.1.1)") {
    reason_code const reasons[] = {reason_code::granted_qos_0, reason_code::granted_qos_2,
                                   reason_code::unspecified_error};
    suback const p{.packet_id = 10, .reasons = reasons};
    auto const bytes = hex("90 05 000A 00 02 80");
    CHECK(test::encoded(p, v3) == bytes);
    test::decoded<suback> const d(bytes, v3);
    CHECK(d.error == errc::ok);
    CHECK(d.packet == p);
    CHECK(test::encoded(p, v5) == hex("90 06 000A 00 00 02 80"));
}

TEST_CASE("SUBACK: reasons are those of a subscription [MQTT-3.9.3-2] [MQTT-3.9.3-2 of 3.1.1]") {
    for (unsigned code = 0; code < 256; ++code) {
        auto const one = std::string(1, static_cast<char>(code));
        bool const in_v3 = code <= 2 || code == 0x80;
        bool const in_v5 = in_v3 || code == 0x83 || code == 0x87 || code == 0x8F || code == 0x91 || code == 0x97 ||
                           code == 0x9E || code == 0xA1 || code == 0xA2;
        CHECK(test::decode_error<suback>(hex("90 03 000A") + one, v3) ==
              (in_v3 ? errc::ok : errc::invalid_reason_code));
        CHECK(test::decode_error<suback>(hex("90 04 000A 00") + one, v5) ==
              (in_v5 ? errc::ok : errc::invalid_reason_code));
    }
    reason_code const wrong = reason_code::banned;
    CHECK(check(suback{.packet_id = 1, .reasons = wrong}, v5) == errc::invalid_reason_code);
}

TEST_CASE("SUBACK: every failure is 0x80 in MQTT 3.1.1") {
    reason_code const refused = reason_code::not_authorized;
    CHECK(test::encoded(suback{.packet_id = 10, .reasons = refused}, v3) == hex("90 03 000A 80"));
}

TEST_CASE("SUBACK: it has a packet identifier and at least one reason (2.2.1, 2.3.1 in 3.1.1)") {
    CHECK(test::decode_error<suback>(hex("90 03 0000 00"), v3) == errc::packet_identifier_zero);
    CHECK(test::decode_error<suback>(hex("90 02 000A"), v3) == errc::empty_list);
    CHECK(test::decode_error<suback>(hex("90 03 000A 00"), v5) == errc::empty_list);
    CHECK(check(suback{.packet_id = 1}, v5) == errc::empty_list);
}

TEST_CASE("UNSUBACK: it is the packet identifier alone in MQTT 3.1.1, with reasons in MQTT 5 [MQTT-3.11.3-2]") {
    CHECK(test::decode_error<unsuback>(hex("B0 02 000A"), v3) == errc::ok);
    CHECK(test::decode_error<unsuback>(hex("B0 02 0000"), v3) == errc::packet_identifier_zero);
    CHECK(test::decode_error<unsuback>(hex("B0 03 000A 00"), v3) == errc::trailing_bytes);
    CHECK(test::decode_error<unsuback>(hex("B0 03 000A 00"), v5) == errc::empty_list);
    for (unsigned code = 0; code < 256; ++code) {
        auto const bytes = hex("B0 04 000A 00") + static_cast<char>(code);
        bool const known =
            code == 0 || code == 0x11 || code == 0x80 || code == 0x83 || code == 0x87 || code == 0x8F || code == 0x91;
        CHECK(test::decode_error<unsuback>(bytes, v5) == (known ? errc::ok : errc::invalid_reason_code));
    }
    reason_code const reason = reason_code::no_subscription_existed;
    CHECK(test::encoded(unsuback{.packet_id = 10, .reasons = reason}, v3) == hex("B0 02 000A"));
    CHECK(test::encoded(unsuback{.packet_id = 10, .reasons = reason}, v5) == hex("B0 04 000A 00 11"));
    CHECK(check(unsuback{.packet_id = 10}, v5) == errc::empty_list);
    CHECK(check(unsuback{.packet_id = 10}, v3) == errc::ok);
}
