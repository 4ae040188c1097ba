#include <runnel/mqtt/packet/acknowledgement.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <string>

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr packet_type types[] = {packet_type::puback, packet_type::pubrec, packet_type::pubrel, packet_type::pubcomp};

unsigned char first_byte(packet_type type) {
    return static_cast<unsigned char>(static_cast<unsigned>(type) << 4 | (type == packet_type::pubrel ? 2 : 0));
}

}  // namespace

TEST_CASE("acknowledgements: what need not be said is left out (3.4.2.1)") {
    properties const text{.reason_string = "r"};
    properties const nothing{};
    for (auto const type : types) {
        unsigned char const first = first_byte(type);
        auto const reason =
            type <= packet_type::pubrec ? reason_code::quota_exceeded : reason_code::packet_identifier_not_found;
        std::string const code(1, static_cast<char>(reason));
        CHECK(test::encoded(acknowledgement{type, 0x1234}, v5) == test::packet(first, hex("1234")));
        CHECK(test::encoded(acknowledgement{type, 0x1234, reason}, v5) == test::packet(first, hex("1234") + code));
        CHECK(test::encoded(acknowledgement{type, 0x1234, reason, &nothing}, v5) ==
              test::packet(first, hex("1234") + code));
        CHECK(test::encoded(acknowledgement{type, 0x1234, reason_code::success, &text}, v5) ==
              test::packet(first, hex("1234 00 04 1F 0001 'r'")));
        CHECK(test::encoded(acknowledgement{type, 0x1234, reason, &text}, v3) == test::packet(first, hex("1234")));
    }
}

TEST_CASE("acknowledgements: reason and properties may be missing at the end") {
    for (auto const type : types) {
        for (auto const* body : {"1234", "1234 00", "1234 00 00"}) {
            auto const bytes = test::packet(first_byte(type), hex(body));
            test::decoded<acknowledgement> const d(bytes, v5);
            CHECK(d.error == errc::ok);
            CHECK(d.packet == acknowledgement{type, 0x1234});
        }
        CHECK(test::decode_error<acknowledgement>(test::packet(first_byte(type), hex("12")), v5) ==
              errc::truncated_packet);
        CHECK(test::decode_error<acknowledgement>(test::packet(first_byte(type), hex("1234 00 01")), v5) ==
              errc::truncated_packet);
        CHECK(test::decode_error<acknowledgement>(test::packet(first_byte(type), hex("1234 00 00 00")), v5) ==
              errc::trailing_bytes);
        CHECK(test::decode_error<acknowledgement>(test::packet(first_byte(type), hex("1234 00")), v3) ==
              errc::trailing_bytes);
    }
}

TEST_CASE("acknowledgements: the packet identifier is not 0 (2.2.1, 2.3.1 in 3.1.1)") {
    for (auto const type : types) {
        CHECK(test::decode_error<acknowledgement>(test::packet(first_byte(type), hex("0000")), v3) ==
              errc::packet_identifier_zero);
        CHECK(check(acknowledgement{type, 0}, v3) == errc::packet_identifier_zero);
    }
}

TEST_CASE(
    "acknowledgements: reasons are those of the packet [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]") {
    for (auto const type : types) {
        for (unsigned code = 0; code < 256; ++code) {
            bool const published = type <= packet_type::pubrec;
            bool const known =
                code == 0 || (published ? code == 0x10 || code == 0x80 || code == 0x83 || code == 0x87 ||
                                              code == 0x90 || code == 0x91 || code == 0x97 || code == 0x99
                                        : code == 0x92);
            auto const expected = known ? errc::ok : errc::invalid_reason_code;
            auto const bytes = test::packet(first_byte(type), hex("1234") + static_cast<char>(code));
            CHECK(test::decode_error<acknowledgement>(bytes, v5) == expected);
            CHECK(check(acknowledgement{type, 1, reason_code(code)}, v5) == expected);
        }
    }
}

TEST_CASE("acknowledgements: other packets are none") {
    CHECK(check(acknowledgement{packet_type::publish, 1}, v5) == errc::unexpected_packet);
    CHECK(check(acknowledgement{packet_type::subscribe, 1}, v5) == errc::unexpected_packet);
}
