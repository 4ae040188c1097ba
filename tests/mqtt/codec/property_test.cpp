#include <runnel/mqtt/codec/property_view.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;
using test::hex;

namespace {

// A valid value of the property.
std::string value_of(property_definition const& d) {
    using enum property_type;
    switch (d.type) {
        case byte: return hex("01");
        case two_byte_integer: return hex("0001");
        case four_byte_integer: return hex("00000001");
        case variable_byte_integer: return hex("01");
        case string_pair: return hex("0001 'a' 0001 'b'");
        default: return hex("0001 'a'");
    }
}

std::string encoded_property(property_definition const& d) { return static_cast<char>(d.id) + value_of(d); }

template <class F>
void for_each_definition(F f) {
    for_each_property([&](auto i) {
        f(static_cast<property_definition const&>(std::get<i>(property_table)));
        return true;
    });
}

errc validate(std::string_view digits, packet_type type) { return validate_properties(hex(digits), type).error; }

}  // namespace

TEST_CASE("the table has all 27 properties, in ascending order, each with a name of its own") {
    std::set<std::string> names;
    int last = 0;
    for_each_definition([&](property_definition const& d) {
        CHECK(static_cast<int>(d.id) > last);
        last = static_cast<int>(d.id);
        names.insert(name(d.id));
    });
    CHECK(property_count == 27);
    CHECK(names.size() == 27);
    CHECK(std::string(name(property_id(0x7F))) == "unknown");
}

TEST_CASE("each property stands in the packets of its line in the table, and in no other (2.2.2.2)") {
    // Written down once more, as a string of packets: C connect, A connack, P publish, W will, 4 to 7 acknowledgements,
    // S subscribe, s suback, U unsubscribe, u unsuback, D disconnect, X auth.
    constexpr std::string_view letters = "WCAP4567SsUu  DX";
    struct line {
        int id;
        std::string_view packets;
    };
    constexpr line lines[] = {{0x01, "PW"},
                              {0x02, "PW"},
                              {0x03, "PW"},
                              {0x08, "PW"},
                              {0x09, "PW"},
                              {0x0B, "PS"},
                              {0x11, "CAD"},
                              {0x12, "A"},
                              {0x13, "A"},
                              {0x15, "CAX"},
                              {0x16, "CAX"},
                              {0x17, "C"},
                              {0x18, "W"},
                              {0x19, "C"},
                              {0x1A, "A"},
                              {0x1C, "AD"},
                              {0x1F, "A4567suDX"},
                              {0x21, "CA"},
                              {0x22, "CA"},
                              {0x23, "P"},
                              {0x24, "A"},
                              {0x25, "A"},
                              {0x26, "CAPW4567SsUuDX"},
                              {0x27, "CA"},
                              {0x28, "A"},
                              {0x29, "A"},
                              {0x2A, "A"}};
    for (auto const& [id, packets] : lines) {
        auto const& d = definition_of(property_id(id));
        auto const bytes = encoded_property(d);
        for (unsigned type = 0; type < 16; ++type) {
            bool const allowed = packets.find(letters[type]) != std::string_view::npos && letters[type] != ' ';
            auto error = validate_properties(bytes, packet_type(type)).error;
            if (error == errc::authentication_data_without_method) error = errc::ok;
            CAPTURE(id);
            CAPTURE(type);
            CHECK(error == (allowed ? errc::ok : errc::property_not_allowed));
        }
    }
}

TEST_CASE("a property stands in a packet once, but user properties anywhere and subscription identifiers in PUBLISH") {
    for_each_definition([&](property_definition const& d) {
        for (unsigned type = 0; type < 16; ++type) {
            if (!d.packets.contains(packet_type(type))) continue;
            auto const twice = encoded_property(d) + encoded_property(d);
            bool const may_repeat =
                d.id == property_id::user_property ||
                (d.id == property_id::subscription_identifier && packet_type(type) == packet_type::publish);
            auto error = validate_properties(twice, packet_type(type)).error;
            CAPTURE(d.name);
            CHECK(error == (may_repeat ? errc::ok : errc::duplicate_property));
        }
    });
}

TEST_CASE("identifiers that do not exist are refused, in one byte or more") {
    for (auto const* bytes : {"00 01", "04 01", "07 01", "2B 01", "7F 01", "80 01 01", "FF FF"})
        CHECK(validate(bytes, packet_type::publish) == errc::unknown_property);
}

TEST_CASE("a property that ends early is refused, wherever it ends") {
    for_each_definition([&](property_definition const& d) {
        auto const bytes = encoded_property(d);
        for (unsigned type = 0; type < 16; ++type) {
            if (!d.packets.contains(packet_type(type))) continue;
            for (std::size_t size = 1; size < bytes.size(); ++size)
                CHECK(validate_properties(bytes.substr(0, size), packet_type(type)).error == errc::truncated_packet);
        }
    });
}

TEST_CASE("values out of range are refused, received and to be sent") {
    using enum packet_type;
    CHECK(validate("21 0000", connect) == errc::property_value_out_of_range);
    CHECK(validate("27 00000000", connect) == errc::property_value_out_of_range);
    CHECK(validate("23 0000", publish) == errc::property_value_out_of_range);
    CHECK(validate("0B 00", publish) == errc::property_value_out_of_range);
    CHECK(validate("0B FF FF FF FF", publish) == errc::variable_integer_too_long);
    CHECK(validate("0B 81 00", publish) == errc::variable_integer_not_minimal);
    for (auto const* bytes : {"01 02", "01 FF"}) CHECK(validate(bytes, publish) == errc::property_value_out_of_range);
    for (auto const* bytes : {"17 02", "19 02"}) CHECK(validate(bytes, connect) == errc::property_value_out_of_range);
    for (auto const* bytes : {"24 02", "25 02", "28 02", "29 02", "2A 02"})
        CHECK(validate(bytes, connack) == errc::property_value_out_of_range);
    CHECK(check(properties{.receive_maximum = std::uint16_t{0}}, connect) == errc::property_value_out_of_range);
    CHECK(check(properties{.maximum_packet_size = 0}, connack) == errc::property_value_out_of_range);
    CHECK(check(properties{.maximum_qos = std::uint8_t{2}}, connack) == errc::property_value_out_of_range);
    std::uint32_t const zero = 0;
    CHECK(check(properties{.subscription_identifiers = zero}, publish) == errc::property_value_out_of_range);
}

TEST_CASE("strings of properties are checked, received and to be sent [MQTT-1.5.4-1] [MQTT-1.5.4-2]") {
    // Shows [MQTT-1.5.7-1].
    CHECK(validate("26 0001 FF 0000", packet_type::publish) == errc::invalid_utf8);
    CHECK(validate("26 0000 0001 FF", packet_type::publish) == errc::invalid_utf8);
    CHECK(validate("26 0000 0001 00", packet_type::publish) == errc::null_character);
    CHECK(validate("1F 0001 FF", packet_type::puback) == errc::invalid_utf8);
    CHECK(validate("09 0002 FF00", packet_type::publish) == errc::ok);
    user_property const pair{"name", "\xFF"};
    CHECK(check(properties{.user_properties = pair}, packet_type::publish) == errc::invalid_utf8);
    std::string const long_text(65'536, 'a');
    CHECK(check(properties{.content_type = long_text}, packet_type::publish) == errc::string_too_long);
    CHECK(check(properties{.correlation_data = long_text}, packet_type::publish) == errc::string_too_long);
    user_property const long_pair{long_text, "value"};
    CHECK(check(properties{.user_properties = long_pair}, packet_type::publish) == errc::string_too_long);
}

TEST_CASE("properties that the packet may not have are not sent") {
    CHECK(check(properties{.server_keep_alive = std::uint16_t{1}}, packet_type::connect) == errc::property_not_allowed);
    CHECK(check(properties{.reason_string = "r"}, packet_type::subscribe) == errc::property_not_allowed);
    CHECK(check(properties{.reason_string = "r"}, packet_type::suback) == errc::ok);
    CHECK(check(properties{}, packet_type::pingreq) == errc::ok);
}

TEST_CASE("authentication data does not come without a method (3.1.2.11.10)") {
    CHECK(validate("16 0001 00", packet_type::connect) == errc::authentication_data_without_method);
    CHECK(validate("16 0001 00 15 0001 'm'", packet_type::connect) == errc::ok);
    CHECK(check(properties{.authentication_data = "d"}, packet_type::connect) ==
          errc::authentication_data_without_method);
    CHECK(check(properties{.authentication_method = "m", .authentication_data = "d"}, packet_type::connect) ==
          errc::ok);
}

TEST_CASE("no properties are one byte of length 0 [MQTT-2.2.2-1]") {
    char out[1];
    CHECK(encoded_size(properties{}, packet_type::publish) == 1);
    CHECK(encode(out, properties{}, packet_type::publish) == out + 1);
    CHECK(out[0] == '\0');
    CHECK(encoded_size(property_view(), packet_type::publish) == 1);
}

TEST_CASE("a view gives the same properties from the sender's struct and from received bytes") {
    std::array<user_property, 2> const pairs{{{"k", "1"}, {"k", "2"}}};
    std::vector<std::uint32_t> const identifiers{1, 268'435'455};
    properties const p{.payload_format_indicator = std::uint8_t{1},
                       .message_expiry_interval = 60,
                       .content_type = "",
                       .response_topic = "r",
                       .correlation_data = std::string_view("\0\xFF", 2),
                       .subscription_identifiers = identifiers,
                       .topic_alias = std::uint16_t{9},
                       .user_properties = pairs};
    std::string bytes(encoded_size(p, packet_type::publish), '\0');
    CHECK(encode(bytes.data(), p, packet_type::publish) == bytes.data() + bytes.size());
    wire_reader reader(bytes);
    auto const received = property_view::read(reader, packet_type::publish);
    REQUIRE(reader.finish() == errc::ok);
    property_view const own(&p);
    CHECK(received == own);
    CHECK(received.parse() == p);
    for (auto const& view : {received, own}) {
        CHECK(view.get<property_id::payload_format_indicator>() == 1);
        CHECK(view.get<property_id::message_expiry_interval>() == 60u);
        CHECK(view.get<property_id::content_type>() == "");
        CHECK(view.get<property_id::correlation_data>() == std::string_view("\0\xFF", 2));
        CHECK(view.get<property_id::topic_alias>() == 9);
        CHECK_FALSE(view.get<property_id::reason_string>());
        CHECK(view.get<property_id::user_property>().size() == 2);
        CHECK(*std::next(view.get<property_id::subscription_identifier>().begin()) == 268'435'455);
    }
    CHECK(own.own() == &p);
    CHECK(received.own() == nullptr);
}

TEST_CASE("lists of received properties are encoded as they were, among other properties") {
    auto const bytes = hex("0101 26 0001'a' 0001'b' 0B 05 0200000001 26 0000 0003'xyz' 0B FFFFFF7F");
    properties p;
    p.user_properties = user_property_list::from_encoded(bytes);
    p.subscription_identifiers = subscription_identifier_list::from_encoded(bytes);
    std::string out(encoded_size(p, packet_type::publish), '\0');
    CHECK(encode(out.data(), p, packet_type::publish) == out.data() + out.size());
    CHECK(out == hex("16 0B 05 0B FFFFFF7F 26 0001'a' 0001'b' 26 0000 0003'xyz'"));
}

TEST_CASE("a view of properties is empty only without any, and takes 16 bytes") {
    properties const none;
    CHECK(property_view().empty());
    CHECK(property_view(nullptr).empty());
    CHECK(property_view(nullptr).own() == nullptr);
    CHECK_FALSE(property_view(&none).empty());
    CHECK(property_view(&none).own() == &none);
    CHECK(property_view(&none).raw().empty());
    CHECK(property_view(&none) == property_view());
    CHECK(sizeof(property_view) <= 16);
}

TEST_CASE("a properties section that is longer than the packet is refused") {
    auto const bytes = hex("05 01 01");
    wire_reader reader(bytes);
    CHECK(property_view::read(reader, packet_type::publish).empty());
    CHECK(reader.finish() == errc::truncated_packet);
}

TEST_CASE("a packed list is the same range whether it views objects or bytes") {
    auto const bytes = hex("01 01 26 0001 'a' 0001 'b' 02 00000001 26 0000 0000");
    auto const encoded = user_property_list::from_encoded(bytes);
    std::vector<user_property> const objects{{"a", "b"}, {"", ""}};
    user_property_list const list = objects;
    CHECK(encoded == list);
    CHECK(encoded.size() == 2);
    CHECK(list.size() == 2);
    CHECK(std::vector<user_property>(encoded.begin(), encoded.end()) == objects);
    CHECK(user_property_list().empty());
    CHECK(user_property_list::from_encoded(hex("01 01")).empty());
    CHECK_FALSE(encoded == user_property_list());
    user_property const one{"a", "b"};
    CHECK(user_property_list(one).size() == 1);
    static_assert(std::ranges::forward_range<user_property_list>);
}
