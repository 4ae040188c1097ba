#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/codec/wire.hpp>

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
    fixed_header header{};       ///< valid as soon as `total_size` is not 0
    std::string_view body{};     ///< what follows the fixed header; only if complete
    std::size_t total_size = 0;  ///< bytes of the whole packet, as soon as its length is known; else 0
};

/// Finds the next packet in `input`. The type, the flags [MQTT-2.1.3-1] ([MQTT-2.2.2-1], [MQTT-2.2.2-2] in 3.1.1), the
/// form of the length [MQTT-1.5.5-1] and the limit are checked as soon as their bytes are there. `maximum_packet_size`
/// is in bytes and counts the whole packet.
RUNNEL_ALWAYS_INLINE constexpr frame next_frame(std::string_view input,
                                                std::size_t maximum_packet_size = max_variable_integer + 5) noexcept;

/// What is wrong with the first byte of a packet, if anything: its type or its flags.
constexpr errc find_first_byte_error(unsigned char first) noexcept {
    auto const type = static_cast<packet_type>(first >> 4);
    unsigned const flags = first & 0x0F;
    if (first < 0x10) return errc::unknown_packet_type;
    switch (type) {
        case packet_type::publish:
            if ((flags & 6) == 6) return errc::invalid_qos;                    // [MQTT-3.3.1-4]
            return (flags & 0x0E) == 0x08 ? errc::dup_without_qos : errc::ok;  // [MQTT-3.3.1-2]
        case packet_type::pubrel:                                              // [MQTT-3.6.1-1]
        case packet_type::subscribe:                                           // [MQTT-3.8.1-1]
        case packet_type::unsubscribe:                                         // [MQTT-3.10.1-1]
            return flags == 2 ? errc::ok : errc::invalid_header_flags;
        default: return flags == 0 ? errc::ok : errc::invalid_header_flags;
    }
}

/// `find_first_byte_error` of every byte.
inline constexpr auto first_byte_errors = [] {
    std::array<std::uint8_t, 256> errors{};
    for (unsigned first = 0; first < 256; ++first)
        errors[first] = static_cast<std::uint8_t>(find_first_byte_error(static_cast<unsigned char>(first)));
    return errors;
}();

RUNNEL_ALWAYS_INLINE constexpr frame next_frame(std::string_view input, std::size_t maximum_packet_size) noexcept {
    constexpr auto malformed = [](errc error) { return frame{parse_status::malformed, error, {}, {}, 0}; };
    if (input.size() < 2) [[unlikely]] {
        auto const error = input.empty() ? errc::ok : find_first_byte_error(static_cast<unsigned char>(input[0]));
        return error == errc::ok ? frame{} : malformed(error);
    }
    auto const first = static_cast<unsigned char>(input[0]);
    if (auto const error = static_cast<errc>(first_byte_errors[first]); error != errc::ok) [[unlikely]]
        return malformed(error);
    // The length of most packets is a single byte.
    auto const second = static_cast<unsigned char>(input[1]);
    auto const length = second < 0x80 ? variable_integer{second, 1, errc::ok} : read_variable_integer(input.substr(1));
    if (length.size == 0) return length.error == errc::ok ? frame{} : malformed(length.error);

    fixed_header const header{static_cast<packet_type>(first >> 4), static_cast<std::uint8_t>(first & 0x0F),
                              length.value, static_cast<std::uint8_t>(1 + length.size)};
    std::size_t const size = std::size_t{header.size} + length.value;
    if (size > maximum_packet_size) return {parse_status::malformed, errc::packet_too_large, header, {}, size};
    if (size > input.size()) return {parse_status::need_more, errc::ok, header, {}, size};
    return {parse_status::complete, errc::ok, header, {input.data() + header.size, length.value}, size};
}

/// Bytes of a whole packet whose fixed header is followed by `remaining_length` bytes.
RUNNEL_ALWAYS_INLINE constexpr std::size_t packet_size(std::size_t remaining_length) noexcept {
    return 1 + variable_integer_size(static_cast<std::uint32_t>(remaining_length)) + remaining_length;
}

/// Writes a fixed header; returns the end of what was written.
RUNNEL_ALWAYS_INLINE constexpr char* write_fixed_header(char* out, packet_type type, std::uint8_t flags,
                                                        std::size_t remaining_length) noexcept {
    *out++ = static_cast<char>(static_cast<unsigned char>(static_cast<unsigned>(type) << 4 | flags));
    return write_variable_integer(out, static_cast<std::uint32_t>(remaining_length));
}

/// Checks that a packet is not larger than the protocol allows.
constexpr errc check_remaining_length(std::size_t remaining_length) noexcept {
    return remaining_length > max_variable_integer ? errc::packet_too_large : errc::ok;
}

}  // namespace runnel::mqtt
