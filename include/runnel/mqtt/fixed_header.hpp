#pragma once

#include <runnel/mqtt/error.hpp>
#include <runnel/mqtt/types.hpp>
#include <runnel/mqtt/wire.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// The beginning of every packet (2.1).
struct fixed_header {
    packet_type type{};
    std::uint8_t flags = 0;              ///< the low four bits of the first byte
    std::uint32_t remaining_length = 0;  ///< bytes that follow the fixed header
    std::uint8_t size = 0;               ///< bytes of the fixed header itself: 2 to 5
};

/// How far `next_frame` has got.
enum class parse_status : std::uint8_t { complete, need_more, malformed };

/// The next packet of the input, found and not yet decoded.
struct frame {
    parse_status status = parse_status::need_more;
    errc error = errc::ok;       ///< why it is malformed
    fixed_header header;         ///< valid as soon as `total_size` is not 0
    std::string_view body;       ///< what follows the fixed header; only if complete
    std::size_t total_size = 0;  ///< bytes of the whole packet, as soon as its length is known; else 0
};

/// Finds the next packet in `input`. The type, the flags [MQTT-2.1.3-1] ([MQTT-2.2.2-1], [MQTT-2.2.2-2] in 3.1.1), the
/// form of the length [MQTT-1.5.5-1] and the limit are checked as soon as their bytes are there. `maximum_packet_size`
/// is in bytes and counts the whole packet.
constexpr frame next_frame(std::string_view input, std::size_t maximum_packet_size = max_variable_integer + 5) noexcept;

/// The flags that may stand beside each packet type: bit f of element t, if type t may have flags f.
inline constexpr auto allowed_header_flags = [] {
    std::array<std::uint16_t, 16> allowed{};
    for (auto& flags : allowed) flags = 1u << 0b0000;
    for (auto type : {packet_type::pubrel, packet_type::subscribe, packet_type::unsubscribe})
        allowed[static_cast<std::size_t>(type)] = 1u << 0b0010;
    unsigned publish = 0;
    for (unsigned flags = 0; flags < 16; ++flags) {
        unsigned const qos = flags >> 1 & 3u;
        bool const dup = (flags & 8u) != 0;
        if (qos != 3 && !(dup && qos == 0)) publish |= 1u << flags;  // [MQTT-3.3.1-4], [MQTT-3.3.1-2]
    }
    allowed[static_cast<std::size_t>(packet_type::publish)] = static_cast<std::uint16_t>(publish);
    allowed[0] = 0;  // no such packet
    return allowed;
}();

/// Checks the first byte of a packet.
constexpr errc check_first_byte(packet_type type, std::uint8_t flags) noexcept {
    auto const allowed = allowed_header_flags[static_cast<std::size_t>(type)];
    if ((allowed >> flags & 1u) != 0) [[likely]]
        return errc::ok;
    if (allowed == 0) return errc::unknown_packet_type;
    if (type != packet_type::publish) return errc::invalid_header_flags;
    return (flags >> 1 & 3u) == 3 ? errc::invalid_qos : errc::dup_without_qos;
}

constexpr frame next_frame(std::string_view input, std::size_t maximum_packet_size) noexcept {
    frame next;
    if (input.empty()) return next;
    auto const first = static_cast<unsigned char>(input[0]);
    next.header.type = static_cast<packet_type>(first >> 4);
    next.header.flags = first & 0x0F;
    next.error = check_first_byte(next.header.type, next.header.flags);
    variable_integer length;
    if (next.error == errc::ok) {
        length = read_variable_integer(input.substr(1));
        next.error = length.error;
    }
    if (next.error == errc::ok && length.size != 0) {
        next.header.remaining_length = length.value;
        next.header.size = static_cast<std::uint8_t>(1 + length.size);
        next.total_size = std::size_t{next.header.size} + length.value;
        if (next.total_size > maximum_packet_size) next.error = errc::packet_too_large;
    }
    if (next.error != errc::ok) [[unlikely]] {
        next.status = parse_status::malformed;
    } else if (length.size != 0 && next.total_size <= input.size()) {
        next.status = parse_status::complete;
        next.body = std::string_view(input.data() + next.header.size, length.value);
    }
    return next;
}

/// Bytes of a whole packet whose fixed header is followed by `remaining_length` bytes.
constexpr std::size_t packet_size(std::size_t remaining_length) noexcept {
    return 1 + variable_integer_size(static_cast<std::uint32_t>(remaining_length)) + remaining_length;
}

/// Writes a fixed header; returns the end of what was written.
constexpr char* write_fixed_header(char* out, packet_type type, std::uint8_t flags,
                                   std::size_t remaining_length) noexcept {
    *out++ = static_cast<char>(static_cast<unsigned char>(static_cast<unsigned>(type) << 4 | flags));
    return write_variable_integer(out, static_cast<std::uint32_t>(remaining_length));
}

/// Checks that a packet is not larger than the protocol allows.
constexpr errc check_remaining_length(std::size_t remaining_length) noexcept {
    return remaining_length > max_variable_integer ? errc::packet_too_large : errc::ok;
}

}  // namespace runnel::mqtt
