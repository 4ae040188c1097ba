#pragma once

#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7): one step in the exchange of a message of QoS 1 or 2. A view.
struct acknowledgement {
    packet_type type = packet_type::puback;
    std::uint16_t packet_id = 0;
    reason_code reason = reason_code::success;  ///< MQTT 5; MQTT 3.1.1 knows but success
    property_view props{};

    friend constexpr bool operator==(acknowledgement const&, acknowledgement const&) noexcept = default;
};

/// Bytes that follow the fixed header: without properties no length of them is written, and without a reason other than
/// success no reason either.
constexpr std::size_t remaining_length(acknowledgement const& p, protocol_version version) noexcept {
    if (version == protocol_version::v3_1_1) return 2;
    auto const length = property_length(p.props, p.type);
    if (length == 0) return p.reason == reason_code::success ? 2 : 3;
    return 3 + with_length(length);
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(acknowledgement const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
constexpr char* encode(char* out, acknowledgement const& p, protocol_version version) noexcept {
    auto const length = remaining_length(p, version);
    out = write_fixed_header(out, p.type, p.type == packet_type::pubrel ? 2 : 0, length);
    out = write_big_endian(out, p.packet_id);
    if (length > 2) *out++ = static_cast<char>(p.reason);
    return length > 3 ? encode(out, p.props, p.type) : out;
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted and has one of the four types.
constexpr errc decode(fixed_header const& header, std::string_view body, protocol_version version,
                      acknowledgement& out) noexcept {
    wire_reader reader(body);
    out = {header.type, reader.read_packet_identifier(), reason_code::success, {}};
    if (version == protocol_version::v5 && !reader.empty()) {
        out.reason = static_cast<reason_code>(reader.read_byte());
        // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
        reader.require(allowed_in(out.reason, header.type), errc::invalid_reason_code);
        if (!reader.empty()) out.props = property_view::read(reader, header.type);
    }
    return reader.finish();
}

/// Whether packets of this type acknowledge a message, or a step of its delivery.
constexpr bool is_acknowledgement(packet_type type) noexcept {
    using enum packet_type;
    return type == puback || type == pubrec || type == pubrel || type == pubcomp;
}

/// Checks that the packet can be sent in this version. (In MQTT 3.1.1 reason and properties are not sent.)
constexpr errc check(acknowledgement const& p, protocol_version version) noexcept {
    if (!is_acknowledgement(p.type)) return errc::unexpected_packet;
    if (p.packet_id == 0) return errc::packet_identifier_zero;
    if (version == protocol_version::v3_1_1) return errc::ok;
    if (!allowed_in(p.reason, p.type)) return errc::invalid_reason_code;
    if (errc const error = check(p.props, p.type); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
