#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// CONNACK (3.2): the server's answer to CONNECT. A view.
struct connack {
    bool session_present = false;               ///< the server has kept the session; only if it accepts the connection
    reason_code reason = reason_code::success;  ///< in MQTT 3.1.1 one that stands for a return code
    property_view props{};

    friend constexpr bool operator==(connack const&, connack const&) noexcept = default;
};

/// Bytes that follow the fixed header.
constexpr std::size_t remaining_length(connack const& p, protocol_version version) noexcept {
    if (version == protocol_version::v3_1_1) return 2;
    return 2 + encoded_size(p.props, packet_type::connack);
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(connack const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. In MQTT 3.1.1 the reason becomes the
/// return code that comes nearest.
constexpr char* encode(char* out, connack const& p, protocol_version version) noexcept {
    bool const v5 = version == protocol_version::v5;
    out = write_fixed_header(out, packet_type::connack, 0, remaining_length(p, version));
    *out++ = p.session_present ? '\1' : '\0';
    auto const code = v5 ? static_cast<std::uint8_t>(p.reason) : to_connack_return_code(p.reason);
    out = write_big_endian(out, code);
    return v5 ? encode(out, p.props, packet_type::connack) : out;
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, connack& out) noexcept {
    wire_reader reader(body);
    auto const flags = reader.read_byte();
    reader.require(flags <= 1, errc::invalid_connack_flags);  // [MQTT-3.2.2-1]
    auto const code = reader.read_byte();
    out = {};
    out.session_present = flags == 1;
    if (version == protocol_version::v5) {
        out.reason = static_cast<reason_code>(code);
        reader.require(allowed_in(out.reason, packet_type::connack), errc::invalid_reason_code);  // [MQTT-3.2.2-8]
        out.props = property_view::read(reader, packet_type::connack);
    } else {
        auto const reason = from_connack_return_code(code);
        reader.require(reason.has_value(), errc::invalid_reason_code);
        out.reason = reason.value_or(reason_code::unspecified_error);
    }
    // [MQTT-3.2.2-6] ([MQTT-3.2.2-4] of MQTT 3.1.1)
    reader.require(!out.session_present || out.reason == reason_code::success, errc::session_present_without_success);
    return reader.finish();
}

/// Whether the body is that of a whole CONNACK of the other version: the server does not speak `version`, and says so,
/// or has not noticed. Of MQTT 3.1.1 it has two bytes, of MQTT 5 three or more.
RUNNEL_COLD constexpr bool is_of_other_version(fixed_header const& h, std::string_view body,
                                               protocol_version version) noexcept {
    bool const v5 = version == protocol_version::v5;
    if ((body.size() == 2) != v5) return false;
    connack other;
    return decode(h, body, v5 ? protocol_version::v3_1_1 : protocol_version::v5, other) == errc::ok;
}

/// Checks that the packet can be sent in this version.
constexpr errc check(connack const& p, protocol_version version) noexcept {
    if (!allowed_in(p.reason, packet_type::connack)) return errc::invalid_reason_code;
    if (p.session_present && p.reason != reason_code::success) return errc::session_present_without_success;
    if (errc const error = check(p.props, packet_type::connack, version); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
