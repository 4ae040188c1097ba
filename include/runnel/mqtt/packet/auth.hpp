#pragma once

#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// AUTH (3.15, MQTT 5 only): one step of an enhanced authentication. A view.
struct auth {
    reason_code reason = reason_code::success;
    property_view props{};  ///< with an authentication method, unless there are none at all

    friend constexpr bool operator==(auth const&, auth const&) noexcept = default;
};

/// Bytes that follow the fixed header: what need not be said is left out (3.15.2.1).
constexpr std::size_t remaining_length(auth const& p, protocol_version) noexcept {
    if (p.props.empty() && p.reason == reason_code::success) return 0;
    return 1 + encoded_size(p.props, packet_type::auth);
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(auth const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
constexpr char* encode(char* out, auth const& p, protocol_version version) noexcept {
    auto const length = remaining_length(p, version);
    out = write_fixed_header(out, packet_type::auth, 0, length);
    if (length == 0) return out;
    *out++ = static_cast<char>(p.reason);
    return encode(out, p.props, packet_type::auth);
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, auth& out) noexcept {
    if (version != protocol_version::v5) return errc::unknown_packet_type;
    wire_reader reader(body);
    out = {};
    if (reader.empty()) return errc::ok;
    out.reason = static_cast<reason_code>(reader.read_byte());
    reader.require(allowed_in(out.reason, packet_type::auth), errc::invalid_reason_code);  // [MQTT-3.15.2-1]
    out.props = property_view::read(reader, packet_type::auth);
    // 3.15.2.2.2: to omit the authentication method is a protocol error.
    reader.require(out.props.get<property_id::authentication_method>().has_value(),
                   errc::authentication_method_missing);
    return reader.finish();
}

/// Checks what only the sender's role decides: who may give which reason (3.15.2.1).
constexpr errc check_sender(auth const& p, role sender) noexcept {
    return allowed_in(p.reason, packet_type::auth, sender) ? errc::ok : errc::invalid_reason_code;
}

/// Checks that the packet can be sent in this version.
constexpr errc check(auth const& p, protocol_version version) noexcept {
    if (version != protocol_version::v5) return errc::unknown_packet_type;
    if (!allowed_in(p.reason, packet_type::auth)) return errc::invalid_reason_code;
    if (p.props.empty()) return p.reason == reason_code::success ? errc::ok : errc::authentication_method_missing;
    if (!p.props.get<property_id::authentication_method>()) return errc::authentication_method_missing;
    if (errc const error = check(p.props, packet_type::auth); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
