#pragma once

#include <runnel/core/bytes.hpp>
#include <runnel/websocket/error.hpp>
#include <runnel/websocket/protocol/mask.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace runnel::websocket {

/// What a frame is (RFC 6455 5.2). Other values are reserved.
enum class opcode : std::uint8_t { continuation = 0x0, text = 0x1, binary = 0x2, close = 0x8, ping = 0x9, pong = 0xA };

/// Whether frames of this kind control the connection rather than carry a message (5.5).
constexpr bool is_control(opcode op) noexcept { return (static_cast<unsigned>(op) & 0x8) != 0; }

/// The largest payload of a control frame (5.5), and of a close frame's reason (5.5.1), in bytes.
inline constexpr std::size_t max_control_payload = 125;
inline constexpr std::size_t max_close_reason = max_control_payload - 2;

/// The largest header a frame can have, in bytes.
inline constexpr std::size_t max_frame_header = 14;

/// A frame without its payload (5.2).
struct frame_header {
    opcode op = opcode::binary;
    /// Whether this is the last fragment of its message.
    bool fin = true;
    /// The first reserved bit: the message is compressed (RFC 7692 6).
    bool rsv1 = false;
    bool masked = false;
    /// Bytes of payload, up to 2^63 - 1.
    std::uint64_t length = 0;
    /// The masking key, if `masked`.
    mask_key key = 0;

    friend constexpr bool operator==(frame_header const&, frame_header const&) = default;
};

/// The size of `header` on the wire: 2 to 14 bytes.
constexpr std::size_t size_of(frame_header const& header) noexcept {
    std::size_t const length = header.length < 126 ? 0 : header.length <= 0xFFFF ? 2 : 8;
    return 2 + length + (header.masked ? 4 : 0);
}

/// Writes `header` to `out`, where `size_of(header)` bytes are free; returns the end of what was written.
constexpr char* encode(frame_header const& header, char* out) noexcept {
    *out++ =
        static_cast<char>((header.fin ? 0x80u : 0u) | (header.rsv1 ? 0x40u : 0u) | static_cast<unsigned>(header.op));
    unsigned const masked = header.masked ? 0x80 : 0;
    if (header.length < 126) {
        *out++ = static_cast<char>(masked | static_cast<unsigned>(header.length));
    } else if (header.length <= 0xFFFF) {
        *out++ = static_cast<char>(masked | 126u);
        out = write_big_endian(out, static_cast<std::uint16_t>(header.length));
    } else {
        *out++ = static_cast<char>(masked | 127u);
        out = write_big_endian(out, header.length);
    }
    if (!header.masked) return out;
    for (char byte : std::bit_cast<std::array<char, 4>>(header.key)) *out++ = byte;
    return out;
}

/// The size of the header whose second byte is `second`.
constexpr std::size_t header_size(char second) noexcept {
    unsigned const length = static_cast<unsigned char>(second) & 0x7Fu;
    return 2 +
           (length == 127   ? 8u
            : length == 126 ? 2u
                            : 0u) +
           ((static_cast<unsigned char>(second) & 0x80u) != 0 ? 4u : 0u);
}

/// What a header's first two bytes say, checked: reserved bits (the first is left to the caller), reserved opcodes, and
/// the rules for control frames (5.2, 5.5). Sets `out` but for its length and key.
constexpr errc decode_start(char first, char second, frame_header& out) noexcept {
    unsigned const bits = static_cast<unsigned char>(first);
    unsigned const code = bits & 0x0F;
    if ((bits & 0x30) != 0) return errc::reserved_bits_set;
    if ((code & 0x7) > 2) return errc::reserved_opcode;
    out.op = static_cast<opcode>(code);
    out.fin = (bits & 0x80) != 0;
    out.rsv1 = (bits & 0x40) != 0;
    out.masked = (static_cast<unsigned char>(second) & 0x80) != 0;
    if (!is_control(out.op)) return errc::ok;
    if (!out.fin) return errc::control_frame_fragmented;
    if ((static_cast<unsigned char>(second) & 0x7Fu) > max_control_payload) return errc::control_frame_too_long;
    return out.rsv1 ? errc::reserved_bits_set : errc::ok;
}

/// Reads the header at `in`, where `header_size(in[1])` bytes are, and checks it.
constexpr errc decode(char const* in, frame_header& out) noexcept {
    if (errc const e = decode_start(in[0], in[1], out); e != errc::ok) return e;
    out.length = static_cast<unsigned char>(in[1]) & 0x7Fu;
    char const* rest = in + 2;
    if (out.length == 126) {
        out.length = read_big_endian<std::uint16_t>(rest);
        if (out.length < 126) return errc::length_not_minimal;
        rest += 2;
    } else if (out.length == 127) {
        out.length = read_big_endian<std::uint64_t>(rest);
        if (out.length <= 0xFFFF) return errc::length_not_minimal;
        if (out.length >> 63 != 0) return errc::length_out_of_range;
        rest += 8;
    }
    out.key = out.masked ? std::bit_cast<mask_key>(std::array<char, 4>{rest[0], rest[1], rest[2], rest[3]}) : 0;
    return errc::ok;
}

}  // namespace runnel::websocket
