#pragma once

#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/packet/reason_code_list.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// UNSUBACK (3.11). A view.
struct unsuback {
    std::uint16_t packet_id = 0;
    reason_code_list reasons{};  ///< MQTT 5: one for each topic filter; MQTT 3.1.1 has none
    property_view props{};

    friend constexpr bool operator==(unsuback const&, unsuback const&) noexcept = default;
};

/// Bytes that follow the fixed header.
constexpr std::size_t remaining_length(unsuback const& p, protocol_version version) noexcept {
    if (version == protocol_version::v3_1_1) return 2;
    return 2 + encoded_size(p.props, packet_type::unsuback) + p.reasons.size();
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(unsuback const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
constexpr char* encode(char* out, unsuback const& p, protocol_version version) noexcept {
    out = write_fixed_header(out, packet_type::unsuback, 0, remaining_length(p, version));
    out = write_big_endian(out, p.packet_id);
    if (version == protocol_version::v3_1_1) return out;
    out = encode(out, p.props, packet_type::unsuback);
    for (auto const reason : p.reasons) *out++ = static_cast<char>(reason);
    return out;
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, unsuback& out) noexcept {
    wire_reader reader(body);
    out = {};
    out.packet_id = reader.read_packet_identifier();
    if (version == protocol_version::v3_1_1) return reader.finish();
    out.props = property_view::read(reader, packet_type::unsuback);
    reader.require(!reader.empty(), errc::empty_list);  // 3.11.3: one code for each filter of UNSUBSCRIBE
    out.reasons = reason_code_list::from_encoded(reader.read_rest());
    for (auto const reason : out.reasons)  // [MQTT-3.11.3-2]
        reader.require(allowed_in(reason, packet_type::unsuback), errc::invalid_reason_code);
    return reader.finish();
}

/// Checks that the packet can be sent in this version. (In MQTT 3.1.1 reasons are not sent.)
constexpr errc check(unsuback const& p, protocol_version version) noexcept {
    if (p.packet_id == 0) return errc::packet_identifier_zero;
    if (version == protocol_version::v5 && p.reasons.empty()) return errc::empty_list;
    for (auto const reason : p.reasons)
        if (!allowed_in(reason, packet_type::unsuback)) return errc::invalid_reason_code;
    if (errc const error = check(p.props, packet_type::unsuback, version); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
