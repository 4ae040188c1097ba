#pragma once

#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <string_view>

namespace runnel::mqtt {

/// PINGREQ (3.12): the client asks for a sign of life.
struct pingreq {
    friend constexpr bool operator==(pingreq const&, pingreq const&) noexcept = default;
};

/// PINGRESP (3.13): the server's answer.
struct pingresp {
    friend constexpr bool operator==(pingresp const&, pingresp const&) noexcept = default;
};

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(pingreq const&, protocol_version) noexcept { return 2; }
/// Bytes of the whole packet.
constexpr std::size_t encoded_size(pingresp const&, protocol_version) noexcept { return 2; }

/// Writes the packet, two bytes; returns the end of what was written.
constexpr char* encode(char* out, pingreq const&, protocol_version) noexcept {
    return write_fixed_header(out, packet_type::pingreq, 0, 0);
}
/// Writes the packet, two bytes; returns the end of what was written.
constexpr char* encode(char* out, pingresp const&, protocol_version) noexcept {
    return write_fixed_header(out, packet_type::pingresp, 0, 0);
}

/// Checks that the body is empty.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version, pingreq&) noexcept {
    return body.empty() ? errc::ok : errc::trailing_bytes;
}
/// Checks that the body is empty.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version, pingresp&) noexcept {
    return body.empty() ? errc::ok : errc::trailing_bytes;
}

/// There is nothing that could be wrong.
constexpr errc check(pingreq const&, protocol_version) noexcept { return errc::ok; }
/// There is nothing that could be wrong.
constexpr errc check(pingresp const&, protocol_version) noexcept { return errc::ok; }

}  // namespace runnel::mqtt
