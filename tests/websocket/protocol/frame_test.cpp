#include <runnel/websocket/protocol/frame.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace runnel::websocket;
using namespace std::string_literals;

namespace {

std::string encoded(frame_header const& header) {
    std::string bytes(size_of(header), '\0');
    char* const end = encode(header, bytes.data());
    CHECK(end == bytes.data() + bytes.size());
    return bytes;
}

errc decoded(std::string const& bytes, frame_header& out) {
    REQUIRE(bytes.size() >= 2);
    REQUIRE(bytes.size() == header_size(bytes[1]));
    return decode(bytes.data(), out);
}

errc fault_of(std::string const& bytes) {
    frame_header header;
    return decoded(bytes, header);
}

}  // namespace

TEST_CASE("the headers of the examples in RFC 6455 5.7") {
    CHECK(encoded({.op = opcode::text, .length = 5}) == "\x81\x05");
    mask_key const key = std::bit_cast<mask_key>(std::array<unsigned char, 4>{0x37, 0xfa, 0x21, 0x3d});
    CHECK(encoded({.op = opcode::text, .masked = true, .length = 5, .key = key}) == "\x81\x85\x37\xfa\x21\x3d");
    CHECK(encoded({.op = opcode::text, .fin = false, .length = 3}) == "\x01\x03");
    CHECK(encoded({.op = opcode::continuation, .length = 2}) == "\x80\x02");
    CHECK(encoded({.op = opcode::ping, .length = 5}) == "\x89\x05");
    CHECK(encoded({.op = opcode::pong, .masked = true, .length = 5, .key = key}) == "\x8a\x85\x37\xfa\x21\x3d");
    CHECK(encoded({.op = opcode::binary, .length = 256}) == "\x82\x7E\x01\x00"s);
    CHECK(encoded({.op = opcode::binary, .length = 65536}) == "\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00"s);
}

TEST_CASE("every header survives encoding and decoding") {
    for (std::uint64_t length :
         {0ull, 1ull, 125ull, 126ull, 127ull, 65535ull, 65536ull, 1ull << 32, (1ull << 63) - 1}) {
        for (opcode op :
             {opcode::continuation, opcode::text, opcode::binary, opcode::close, opcode::ping, opcode::pong}) {
            for (int bits = 0; bits < 8; ++bits) {
                frame_header header{
                    .op = op, .fin = (bits & 1) != 0, .rsv1 = (bits & 2) != 0, .masked = (bits & 4) != 0};
                header.length = length;
                header.key = header.masked ? 0x12345678 : 0;
                frame_header back;
                errc const e = decoded(encoded(header), back);
                bool const allowed = !is_control(op) || (header.fin && !header.rsv1 && length <= 125);
                CHECK((e == errc::ok) == allowed);
                if (allowed) CHECK(back == header);
            }
        }
    }
}

TEST_CASE("reserved bits and opcodes are refused") {
    for (unsigned first = 0; first < 256; ++first) {
        bool const reserved_bits = (first & 0x30) != 0;
        unsigned const code = first & 0xF;
        bool const known = code <= 2 || (code >= 8 && code <= 10);
        frame_header header;
        errc const e = decode_start(static_cast<char>(first), 0, header);
        if (reserved_bits) {
            CHECK(e == errc::reserved_bits_set);
        } else if (!known) {
            CHECK(e == errc::reserved_opcode);
        } else if (code >= 8 && (first & 0x80) == 0) {
            CHECK(e == errc::control_frame_fragmented);
        } else if (code >= 8 && (first & 0x40) != 0) {
            CHECK(e == errc::reserved_bits_set);
        } else {
            CHECK(e == errc::ok);
        }
    }
}

TEST_CASE("a length must be encoded in the fewest bytes and have its highest bit clear") {
    CHECK(fault_of("\x82\x7E\x00\x7D"s) == errc::length_not_minimal);
    CHECK(fault_of("\x82\x7E\x00\x7E"s) == errc::ok);
    CHECK(fault_of("\x82\x7F\x00\x00\x00\x00\x00\x00\xFF\xFF"s) == errc::length_not_minimal);
    CHECK(fault_of("\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00"s) == errc::ok);
    CHECK(fault_of("\x82\x7F\x80\x00\x00\x00\x00\x00\x00\x00"s) == errc::length_out_of_range);
    CHECK(fault_of("\x82\x7F\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"s) == errc::ok);
}

TEST_CASE("control frames have at most 125 bytes and are not fragmented") {
    CHECK(fault_of("\x89\x7E\x00\x7E"s) == errc::control_frame_too_long);
    CHECK(fault_of("\x89\x7D") == errc::ok);
    CHECK(fault_of("\x08\x00"s) == errc::control_frame_fragmented);
    frame_header header;
    CHECK(decode_start('\x89', '\x7E', header) == errc::control_frame_too_long);
}

TEST_CASE("headers can be encoded and decoded in constant expressions") {
    constexpr auto round_trip = [] {
        char bytes[max_frame_header] = {};
        frame_header const header{.op = opcode::binary, .masked = true, .length = 70000, .key = 0x01020304};
        encode(header, bytes);
        frame_header back;
        return decode(bytes, back) == errc::ok && back == header;
    };
    static_assert(round_trip());
}
