#pragma once

#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// DISCONNECT (3.14): the last packet of a connection; in MQTT 3.1.1 only a client sends it. A view.
struct disconnect {
    reason_code reason = reason_code::normal_disconnection;  ///< MQTT 5; not sent in MQTT 3.1.1
    property_view props{};

    friend constexpr bool operator==(disconnect const&, disconnect const&) noexcept = default;
};

/// Bytes that follow the fixed header: what need not be said is left out (3.14.2).
constexpr std::size_t remaining_length(disconnect const& p, protocol_version version) noexcept {
    if (version == protocol_version::v3_1_1) return 0;
    auto const length = property_length(p.props, packet_type::disconnect);
    if (length == 0) return p.reason == reason_code::normal_disconnection ? 0 : 1;
    return 1 + with_length(length);
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(disconnect const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
constexpr char* encode(char* out, disconnect const& p, protocol_version version) noexcept {
    auto const length = remaining_length(p, version);
    out = write_fixed_header(out, packet_type::disconnect, 0, length);
    if (length > 0) *out++ = static_cast<char>(p.reason);
    return length > 1 ? encode(out, p.props, packet_type::disconnect) : out;
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, disconnect& out) noexcept {
    wire_reader reader(body);
    out = {};
    if (version == protocol_version::v5 && !reader.empty()) {
        out.reason = static_cast<reason_code>(reader.read_byte());
        reader.require(allowed_in(out.reason, packet_type::disconnect), errc::invalid_reason_code);  // [MQTT-3.14.2-1]
        if (!reader.empty()) out.props = property_view::read(reader, packet_type::disconnect);
    }
    return reader.finish();
}

/// Checks what only the sender's role decides: who may give which reason (3.14.2.1), a server never the session expiry
/// interval [MQTT-3.14.2-2], and a client never a server reference (3.14.2.2.5).
constexpr errc check_sender(disconnect const& p, role sender) noexcept {
    if (!allowed_in(p.reason, packet_type::disconnect, sender)) return errc::invalid_reason_code;
    bool const allowed = sender == role::server ? !p.props.get<property_id::session_expiry_interval>()
                                                : !p.props.get<property_id::server_reference>();
    return allowed ? errc::ok : errc::property_not_allowed;
}

/// Checks that the packet can be sent in this version. (In MQTT 3.1.1 reason and properties are not sent.)
constexpr errc check(disconnect const& p, protocol_version version) noexcept {
    if (version == protocol_version::v3_1_1) return errc::ok;
    if (!allowed_in(p.reason, packet_type::disconnect)) return errc::invalid_reason_code;
    if (errc const error = check(p.props, packet_type::disconnect); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
