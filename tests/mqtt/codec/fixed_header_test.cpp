#include <runnel/mqtt/codec/fixed_header.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <cstdint>
#include <string>

using namespace runnel::mqtt;
using test::hex;

namespace {

struct length_example {
    std::uint32_t value;
    char const* bytes;
};

// Table 1-1 (2-4 in 3.1.1).
constexpr length_example lengths[] = {
    {0, "00"},
    {127, "7F"},
    {128, "80 01"},
    {16'383, "FF 7F"},
    {16'384, "80 80 01"},
    {2'097'151, "FF FF 7F"},
    {2'097'152, "80 80 80 01"},
    {268'435'455, "FF FF FF 7F"},
};

}  // namespace

TEST_CASE("variable byte integers are those of the specification's table (1.5.5)") {
    for (auto const& [value, bytes] : lengths) {
        CAPTURE(value);
        char buffer[4];
        char* const end = write_variable_integer(buffer, value);
        CHECK(std::string(buffer, end) == hex(bytes));
        CHECK(variable_integer_size(value) == end - buffer);
        auto const read = read_variable_integer(hex(bytes) + "rest");
        CHECK(read.value == value);
        CHECK(read.size == end - buffer);
        CHECK(read.error == errc::ok);
        for (std::size_t size = 0; size < hex(bytes).size(); ++size) {
            auto const cut = read_variable_integer(hex(bytes).substr(0, size));
            CHECK(cut.size == 0);
            CHECK(cut.error == errc::ok);
        }
    }
}

TEST_CASE("variable byte integers use the minimum number of bytes [MQTT-1.5.5-1]") {
    for (auto const* bytes : {"80 00", "FF 00", "80 80 00", "FF FF 00", "80 80 80 00", "81 80 80 00"}) {
        CAPTURE(bytes);
        CHECK(read_variable_integer(hex(bytes)).error == errc::variable_integer_not_minimal);
        CHECK(next_frame(hex("C0") + hex(bytes)).error == errc::variable_integer_not_minimal);
    }
}

TEST_CASE("a length of five bytes is refused at the fourth") {
    CHECK(next_frame(hex("30 FF FF FF")).status == parse_status::need_more);
    auto const frame = next_frame(hex("30 FF FF FF FF"));
    CHECK(frame.status == parse_status::malformed);
    CHECK(frame.error == errc::variable_integer_too_long);
}

TEST_CASE(
    "reserved flags have the values of the table, and are refused at the first byte otherwise [MQTT-2.1.3-1] "
    "[MQTT-2.2.2-1 of 3.1.1] [MQTT-2.2.2-2 of 3.1.1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] "
    "[MQTT-3.15.1-1] [MQTT-3.6.1-1 of 3.1.1] [MQTT-3.8.1-1 of 3.1.1] [MQTT-3.10.1-1 of 3.1.1] [MQTT-3.14.1-1 of "
    "3.1.1]") {
    for (unsigned type = 1; type < 16; ++type) {
        if (packet_type(type) == packet_type::publish) continue;
        unsigned const expected = type == 6 || type == 8 || type == 10 ? 2 : 0;
        for (unsigned flags = 0; flags < 16; ++flags) {
            std::string const first(1, static_cast<char>(type << 4 | flags));
            CHECK(next_frame(first).error == (flags == expected ? errc::ok : errc::invalid_header_flags));
            CHECK(next_frame(first + '\0').error == (flags == expected ? errc::ok : errc::invalid_header_flags));
        }
    }
}

TEST_CASE("a publish packet does not have QoS 3 [MQTT-3.3.1-4] [MQTT-3.3.1-4 of 3.1.1]") {
    for (auto const* first : {"36", "37", "3E", "3F"}) CHECK(next_frame(hex(first)).error == errc::invalid_qos);
}

TEST_CASE("a publish packet of QoS 0 is no duplicate [MQTT-3.3.1-2] [MQTT-3.3.1-2 of 3.1.1]") {
    for (auto const* first : {"38", "39"}) CHECK(next_frame(hex(first)).error == errc::dup_without_qos);
    for (auto const* first : {"30", "31", "32", "33", "34", "35", "3A", "3B", "3C", "3D"})
        CHECK(next_frame(hex(first)).status == parse_status::need_more);
}

TEST_CASE("packet type 0 is refused at the first byte") {
    for (unsigned first = 0; first < 16; ++first) {
        auto const frame = next_frame(std::string(1, static_cast<char>(first)));
        CHECK(frame.status == parse_status::malformed);
        CHECK(frame.error == errc::unknown_packet_type);
    }
}

TEST_CASE("a frame is complete with its last byte and does not look at what follows") {
    std::string const bytes = hex("30 05 0001 'a' 'hi'");
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        auto const frame = next_frame(std::string_view(bytes).substr(0, size));
        CHECK(frame.status == parse_status::need_more);
        CHECK(frame.total_size == (size < 2 ? 0u : 7u));
    }
    std::string const followed = bytes + "more";
    auto const frame = next_frame(followed);
    CHECK(frame.status == parse_status::complete);
    CHECK(frame.header.type == packet_type::publish);
    CHECK(frame.header.flags == 0);
    CHECK(frame.header.remaining_length == 5);
    CHECK(frame.header.size == 2);
    CHECK(frame.total_size == 7);
    CHECK(frame.body == hex("0001 'a' 'hi'"));
}

TEST_CASE(
    "a packet beyond the maximum size is refused as soon as its length is there [MQTT-3.1.2-24] [MQTT-3.2.2-15]") {
    CHECK(next_frame(hex("30 80"), 100).status == parse_status::need_more);
    auto const frame = next_frame(hex("30 80 01"), 130);
    CHECK(frame.status == parse_status::malformed);
    CHECK(frame.error == errc::packet_too_large);
    CHECK(next_frame(hex("30 80 01"), 131).status == parse_status::need_more);
    CHECK(next_frame(hex("30 80 01"), 131).total_size == 131);
}

TEST_CASE("each end sends the packets that are its own only") {
    using enum packet_type;
    auto const v3 = protocol_version::v3_1_1, v5 = protocol_version::v5;
    for (auto type : {connect, subscribe, unsubscribe, pingreq}) {
        CHECK(may_send(role::client, type, v5));
        CHECK_FALSE(may_send(role::server, type, v5));
    }
    for (auto type : {connack, suback, unsuback, pingresp}) {
        CHECK(may_send(role::server, type, v3));
        CHECK_FALSE(may_send(role::client, type, v3));
    }
    for (auto type : {publish, puback, pubrec, pubrel, pubcomp})
        for (auto sender : {role::client, role::server}) CHECK(may_send(sender, type, v3));
    CHECK(may_send(role::client, disconnect, v3));
    CHECK_FALSE(may_send(role::server, disconnect, v3));
    CHECK(may_send(role::server, disconnect, v5));
    CHECK_FALSE(may_send(role::client, auth, v3));
    CHECK(may_send(role::client, auth, v5));
    CHECK(may_send(role::server, auth, v5));
}
