#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace runnel::mqtt {

/// The message that the server publishes for a client that goes away without DISCONNECT (3.1.2.5). A view.
struct will {
    std::string_view topic{};
    std::string_view payload{};  ///< at most 65,535 bytes
    mqtt::qos qos = mqtt::qos::at_most_once;
    bool retain = false;
    property_view props{};  ///< those of `will_message`

    friend constexpr bool operator==(will const&, will const&) noexcept = default;
};

/// CONNECT (3.1): the first packet of a client. A view.
struct connect {
    std::string_view client_id{};  ///< empty: the server chooses one (in MQTT 3.1.1 only with `clean_start`)
    std::uint16_t keep_alive = 0;  ///< seconds; 0: none
    bool clean_start = true;       ///< begin a new session (MQTT 3.1.1: "clean session", which ends it as well)
    std::optional<mqtt::will> will{};
    std::optional<std::string_view> user_name{};
    std::optional<std::string_view> password{};  ///< any bytes; in MQTT 3.1.1 only beside a user name
    property_view props{};

    friend constexpr bool operator==(connect const&, connect const&) noexcept = default;
};

/// The flags of CONNECT (3.1.2.3).
struct connect_flags {
    static constexpr unsigned reserved = 0x01, clean_start = 0x02, will = 0x04, will_qos_shift = 3, will_qos = 0x18,
                              will_retain = 0x20, password = 0x40, user_name = 0x80;
};

/// Bytes that follow the fixed header.
RUNNEL_COLD constexpr std::size_t remaining_length(connect const& p, protocol_version version) noexcept {
    bool const v5 = version == protocol_version::v5;
    std::size_t size = 10 + field_size(p.client_id);  // protocol name, version, flags, keep alive
    if (v5) size += encoded_size(p.props, packet_type::connect);
    if (p.will) {
        if (v5) size += encoded_size(p.will->props, will_message);
        size += field_size(p.will->topic) + field_size(p.will->payload);
    }
    if (p.user_name) size += field_size(*p.user_name);
    if (p.password) size += field_size(*p.password);
    return size;
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(connect const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
RUNNEL_COLD constexpr char* encode(char* out, connect const& p, protocol_version version) noexcept {
    bool const v5 = version == protocol_version::v5;
    using bit = connect_flags;
    unsigned flags =
        (p.clean_start ? bit::clean_start : 0) | (p.user_name ? bit::user_name : 0) | (p.password ? bit::password : 0);
    if (p.will) {
        flags |= bit::will | (p.will->retain ? bit::will_retain : 0) |
                 static_cast<unsigned>(p.will->qos) << bit::will_qos_shift;
    }
    out = write_fixed_header(out, packet_type::connect, 0, remaining_length(p, version));
    out = write_field(out, "MQTT");
    *out++ = static_cast<char>(version);
    *out++ = static_cast<char>(static_cast<unsigned char>(flags));
    out = write_big_endian(out, p.keep_alive);
    if (v5) out = encode(out, p.props, packet_type::connect);
    out = write_field(out, p.client_id);
    if (p.will) {
        if (v5) out = encode(out, p.will->props, will_message);
        out = write_field(write_field(out, p.will->topic), p.will->payload);
    }
    if (p.user_name) out = write_field(out, *p.user_name);
    if (p.password) out = write_field(out, *p.password);
    return out;
}

/// Reads nothing but the version from the body of a CONNECT, so that a server knows how to decode the rest. A protocol
/// name other than "MQTT" [MQTT-3.1.2-1] and a version other than 4 and 5 [MQTT-3.1.2-2] are errors.
constexpr errc read_protocol_version(std::string_view body, protocol_version& out) noexcept {
    wire_reader reader(body);
    auto const name = reader.read_binary();
    if (reader.error() == errc::ok && name == "MQIsdp") return errc::unsupported_protocol_version;  // MQTT 3.1
    reader.require(name == "MQTT", errc::invalid_protocol_name);
    auto const level = reader.read_byte();
    if (reader.error() != errc::ok) return reader.error();
    if (level != 4 && level != 5) return errc::unsupported_protocol_version;
    out = static_cast<protocol_version>(level);
    return errc::ok;
}

/// Reads the will of a CONNECT with these flags.
constexpr will read_will(wire_reader& reader, unsigned flags, protocol_version version) noexcept {
    using bit = connect_flags;
    will out;
    out.qos = static_cast<qos>((flags & bit::will_qos) >> bit::will_qos_shift);
    out.retain = (flags & bit::will_retain) != 0;
    reader.require(out.qos <= qos::exactly_once, errc::invalid_qos);  // [MQTT-3.1.2-12]
    if (version == protocol_version::v5) out.props = property_view::read(reader, will_message);
    out.topic = reader.read_binary();
    reader.require(check_topic_name(out.topic));  // [MQTT-3.1.3-11]
    out.payload = reader.read_binary();
    return out;
}

/// Reads the body of a CONNECT of this version (see `read_protocol_version`) whose fixed header `next_frame` has
/// accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, connect& out) noexcept {
    using bit = connect_flags;
    bool const v5 = version == protocol_version::v5;
    protocol_version said{};
    if (errc const error = read_protocol_version(body, said); error != errc::ok) return error;
    if (said != version) return errc::unsupported_protocol_version;
    wire_reader reader(body.substr(7));
    unsigned const flags = reader.read_byte();
    reader.require((flags & bit::reserved) == 0, errc::reserved_connect_flag);  // [MQTT-3.1.2-3]
    bool const has_will = (flags & bit::will) != 0;
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    reader.require(has_will || (flags & (bit::will_qos | bit::will_retain)) == 0, errc::will_flags_without_will);
    bool const has_user_name = (flags & bit::user_name) != 0;
    bool const has_password = (flags & bit::password) != 0;
    // [MQTT-3.1.2-22] of MQTT 3.1.1
    reader.require(v5 || has_user_name || !has_password, errc::password_without_user_name);
    out = {};
    out.clean_start = (flags & bit::clean_start) != 0;
    out.keep_alive = reader.read_two_bytes();
    if (v5) out.props = property_view::read(reader, packet_type::connect);
    out.client_id = reader.read_string();
    if (has_will) out.will = read_will(reader, flags, version);
    if (has_user_name) out.user_name = reader.read_string();  // [MQTT-3.1.3-12]
    if (has_password) out.password = reader.read_binary();
    if (errc const error = reader.finish(); error != errc::ok) return error;
    // [MQTT-3.1.3-7], [MQTT-3.1.3-8] of MQTT 3.1.1
    return !v5 && out.client_id.empty() && !out.clean_start ? errc::client_identifier_empty : errc::ok;
}

/// Checks that a will can be sent in this version.
RUNNEL_COLD constexpr errc check(will const& w, protocol_version version) noexcept {
    if (w.qos > qos::exactly_once) return errc::invalid_qos;
    if (w.payload.size() > max_string_size) return errc::string_too_long;
    if (errc const error = check_topic_name(w.topic); error != errc::ok) return error;
    return check(w.props, will_message, version);
}

/// Checks that the packet can be sent in this version.
RUNNEL_COLD constexpr errc check(connect const& p, protocol_version version) noexcept {
    bool const v5 = version == protocol_version::v5;
    if (errc const error = check_string(p.client_id); error != errc::ok) return error;
    if (!v5 && p.client_id.empty() && !p.clean_start) return errc::client_identifier_empty;
    if (p.user_name) {
        if (errc const error = check_string(*p.user_name); error != errc::ok) return error;
    }
    if (p.password) {
        if (!v5 && !p.user_name) return errc::password_without_user_name;
        if (p.password->size() > max_string_size) return errc::string_too_long;
    }
    if (p.will) {
        if (errc const error = check(*p.will, version); error != errc::ok) return error;
    }
    if (errc const error = check(p.props, packet_type::connect, version); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
