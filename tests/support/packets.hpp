#pragma once

#include <runnel/mqtt/packet.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>

namespace test {

/// Bytes from hexadecimal digits; everything else separates. Text in quotes stands for itself.
inline std::string hex(std::string_view digits) {
    auto const value = [](char c) {
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                      : -1;
    };
    std::string out;
    bool quoted = false;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (digits[i] == '\'')
            quoted = !quoted;
        else if (quoted)
            out += digits[i];
        else if (value(digits[i]) >= 0 && i + 1 < digits.size()) {
            out += static_cast<char>(value(digits[i]) * 16 + value(digits[i + 1]));
            ++i;
        }
    }
    return out;
}

/// A packet with this first byte and this body.
inline std::string packet(unsigned char first, std::string_view body) {
    char header[5];
    header[0] = static_cast<char>(first);
    char* const end = runnel::mqtt::write_variable_integer(header + 1, static_cast<std::uint32_t>(body.size()));
    return std::string(header, end).append(body);
}

/// A string or binary field.
inline std::string field(std::string_view text) {
    char size[2];
    runnel::write_big_endian(size, static_cast<std::uint16_t>(text.size()));
    return std::string(size, 2).append(text);
}

/// Properties with their length in front.
inline std::string properties_field(std::string_view encoded) {
    char size[4];
    char* const end = runnel::mqtt::write_variable_integer(size, static_cast<std::uint32_t>(encoded.size()));
    return std::string(size, end).append(encoded);
}

/// CONNACK of a server that accepts the connection and has no session.
inline std::string accepted(runnel::mqtt::protocol_version version) {
    return hex(version == runnel::mqtt::protocol_version::v5 ? "20 03 00 00 00" : "20 02 00 00");
}

/// Encodes a packet, and checks that it takes the size it was said to take.
template <class Packet>
std::string encoded(Packet const& p, runnel::mqtt::protocol_version version) {
    std::size_t const size = runnel::mqtt::encoded_size(p, version);
    std::string out(size + 1, '\x5A');
    char const* const end = runnel::mqtt::encode(out.data(), p, version);
    REQUIRE(static_cast<std::size_t>(end - out.data()) == size);
    REQUIRE(out.back() == '\x5A');
    out.pop_back();
    return out;
}

/// What decoding one whole packet as a `Packet` gives.
template <class Packet>
struct decoded {
    Packet packet{};
    runnel::mqtt::errc error{};

    /// Takes the bytes, which must outlive the result. What `next_frame` finds wrong is an error as well.
    decoded(std::string_view bytes, runnel::mqtt::protocol_version version) {
        auto const frame = runnel::mqtt::next_frame(bytes);
        error = frame.error;
        if (frame.status == runnel::mqtt::parse_status::need_more) error = runnel::mqtt::errc::truncated_packet;
        if (frame.status == runnel::mqtt::parse_status::complete)
            error = runnel::mqtt::decode(frame.header, frame.body, version, packet);
    }
};

/// The error that decoding gives.
template <class Packet>
runnel::mqtt::errc decode_error(std::string_view bytes, runnel::mqtt::protocol_version version) {
    return decoded<Packet>(bytes, version).error;
}

}  // namespace test
