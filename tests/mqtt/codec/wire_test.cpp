#include <runnel/mqtt/codec/wire.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <string>
#include <string_view>

using namespace runnel::mqtt;
using test::field;
using test::hex;
using namespace std::string_view_literals;

TEST_CASE("strings are well-formed UTF-8 [MQTT-1.5.4-1] [MQTT-1.5.3-1 of 3.1.1]") {
    CHECK(check_string("") == errc::ok);
    CHECK(check_string("A\xF0\xAA\x9B\x94") == errc::ok);  // the specification's example: U+0041 U+2A6D4
    for (auto const text : {"\xED\xA0\x80"sv, "\xED\xBF\xBF"sv, "\xC0\xAF"sv, "\xE0\x80\x80"sv, "\xF4\x90\x80\x80"sv,
                            "\x80"sv, "sixteen or more bytes of ASCII \xFF"sv})
        CHECK(check_string(text) == errc::invalid_utf8);
}

TEST_CASE("strings do not contain U+0000 at any place [MQTT-1.5.4-2] [MQTT-1.5.3-2 of 3.1.1]") {
    for (std::size_t size = 1; size < 70; ++size) {
        for (std::size_t at = 0; at < size; ++at) {
            std::string text(size, 'a');
            text[at] = '\0';
            if (check_string(text) != errc::null_character) FAIL_CHECK("size " << size << ", at " << at);
        }
        CHECK(check_string(std::string(size, '\x01')) == errc::ok);
        CHECK(check_string(std::string(size, '\x7F')) == errc::ok);
    }
}

TEST_CASE("short fields of any size are written byte for byte, and nothing behind them") {
    for (std::size_t size = 0; size < 70; ++size) {
        std::string text;
        for (std::size_t i = 0; i < size; ++i) text += static_cast<char>('!' + i);
        std::string out(2 + size + 40, '\xEE');
        CHECK(write_short_field(out.data(), text) == out.data() + 2 + size);
        CHECK(out == field(text) + std::string(40, '\xEE'));
    }
}

TEST_CASE("a byte order mark in a string is kept [MQTT-1.5.4-3] [MQTT-1.5.3-3 of 3.1.1]") {
    auto const bytes = field(
        "\xEF\xBB\xBF"
        "a");
    wire_reader reader(bytes);
    CHECK(reader.read_string() ==
          "\xEF\xBB\xBF"
          "a");
    CHECK(reader.finish() == errc::ok);
}

TEST_CASE("a reader keeps the first violation, and gives zeros and empty views from there on") {
    auto const bytes = hex("12 3456 0004 'abc'");
    wire_reader reader(bytes);
    CHECK(reader.read_byte() == 0x12);
    CHECK(reader.read_two_bytes() == 0x3456);
    CHECK(reader.read_binary().empty());
    CHECK(reader.error() == errc::truncated_packet);
    CHECK(reader.read_four_bytes() == 0);
    CHECK(reader.read_variable_integer() == 0);
    CHECK(reader.read_packet_identifier() == 0);
    CHECK(reader.finish() == errc::truncated_packet);
}

TEST_CASE("a reader reports bytes that are left over") {
    auto const bytes = hex("00 01 02");
    wire_reader reader(bytes);
    CHECK(reader.read_packet_identifier() == 1);
    CHECK(reader.finish() == errc::trailing_bytes);
}

TEST_CASE("short fields are written as they are, whatever their length") {
    for (std::size_t size = 0; size < 100; ++size) {
        std::string text;
        for (std::size_t i = 0; i < size; ++i) text += static_cast<char>('0' + i);
        std::string out(size + 3, '!');
        CHECK(write_field(out.data(), text) == out.data() + size + 2);
        CHECK(out == field(text) + "!");
    }
}
