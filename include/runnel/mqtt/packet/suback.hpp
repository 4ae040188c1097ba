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

/// SUBACK (3.9). A view.
struct suback {
    std::uint16_t packet_id = 0;
    reason_code_list
        reasons{};  ///< one for each topic filter; an array, a `std::vector` or a `std::span` converts to it
    property_view props{};

    friend constexpr bool operator==(suback const&, suback const&) noexcept = default;
};

/// Whether a SUBACK may have this reason code; in MQTT 3.1.1 it is a granted QoS or 0x80 [MQTT-3.9.3-2].
constexpr bool allowed_in_suback(reason_code reason, protocol_version version) noexcept {
    if (version == protocol_version::v5) return allowed_in(reason, packet_type::suback);  // [MQTT-3.9.3-2] of MQTT 5
    return reason == reason_code::granted_qos_0 || reason == reason_code::granted_qos_1 ||
           reason == reason_code::granted_qos_2 || reason == reason_code::unspecified_error;
}

/// Bytes that follow the fixed header.
constexpr std::size_t remaining_length(suback const& p, protocol_version version) noexcept {
    std::size_t const size = 2 + p.reasons.size();
    return version == protocol_version::v5 ? size + encoded_size(p.props, packet_type::suback) : size;
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(suback const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. In MQTT 3.1.1 every failure becomes
/// 0x80.
constexpr char* encode(char* out, suback const& p, protocol_version version) noexcept {
    bool const v5 = version == protocol_version::v5;
    out = write_fixed_header(out, packet_type::suback, 0, remaining_length(p, version));
    out = write_big_endian(out, p.packet_id);
    if (v5) out = encode(out, p.props, packet_type::suback);
    for (auto const reason : p.reasons)
        *out++ = static_cast<char>(v5 || !is_error(reason) ? reason : reason_code::unspecified_error);
    return out;
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, suback& out) noexcept {
    wire_reader reader(body);
    out = {};
    out.packet_id = reader.read_packet_identifier();
    if (version == protocol_version::v5) out.props = property_view::read(reader, packet_type::suback);
    reader.require(!reader.empty(), errc::empty_list);  // 3.9.3: one code for each filter of SUBSCRIBE
    out.reasons = reason_code_list::from_encoded(reader.read_rest());
    for (auto const reason : out.reasons) reader.require(allowed_in_suback(reason, version), errc::invalid_reason_code);
    return reader.finish();
}

/// Checks that the packet can be sent in this version.
constexpr errc check(suback const& p, protocol_version version) noexcept {
    if (p.packet_id == 0) return errc::packet_identifier_zero;
    if (p.reasons.empty()) return errc::empty_list;
    for (auto const reason : p.reasons)
        if (!allowed_in(reason, packet_type::suback)) return errc::invalid_reason_code;
    if (errc const error = check(p.props, packet_type::suback, version); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
