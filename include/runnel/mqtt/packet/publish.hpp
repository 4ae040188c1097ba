#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// PUBLISH (3.3): a message. A view.
struct publish {
    std::string_view topic{};  ///< empty only if the properties have a topic alias
    std::string_view payload{};
    mqtt::qos qos = mqtt::qos::at_most_once;
    bool retain = false;
    bool dup = false;             ///< sent before, perhaps; never at QoS 0
    std::uint16_t packet_id = 0;  ///< 0 at QoS 0, else not 0
    property_view props{};

    friend constexpr bool operator==(publish const&, publish const&) noexcept = default;
};

/// How large a PUBLISH is. For the hot path: what is measured to make room need not be measured again to encode.
struct publish_size {
    std::size_t remaining_length = 0;  ///< bytes that follow the fixed header
    std::size_t property_length = 0;   ///< bytes of the properties, without the length in front of them
};

/// Measures the properties of a packet. Not inline, so that the rest is, wherever a message without them is sent.
RUNNEL_NOINLINE constexpr std::size_t measure_properties(properties const& props) noexcept {
    return property_length(props, packet_constant<packet_type::publish>);
}

/// Measures a packet.
RUNNEL_ALWAYS_INLINE constexpr publish_size measure(publish const& p, protocol_version version) noexcept {
    publish_size size{field_size(p.topic) + p.payload.size() + (p.qos == qos::at_most_once ? 0u : 2u), 0};
    if (version == protocol_version::v3_1_1) return size;
    size.property_length = p.props.is_own() ? measure_properties(*p.props.own()) : p.props.raw().size();
    size.remaining_length += with_length(size.property_length);
    return size;
}

/// Bytes that follow the fixed header.
RUNNEL_ALWAYS_INLINE constexpr std::size_t remaining_length(publish const& p, protocol_version version) noexcept {
    return measure(p, version).remaining_length;
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(publish const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the properties of a packet behind their length; not inline for the same reason.
RUNNEL_NOINLINE constexpr char* encode_properties(char* out, property_view const& props, std::size_t length) noexcept {
    return write_properties(out, length, props, packet_constant<packet_type::publish>);
}

/// Writes the packet without its payload, which is to follow; returns the end of what was written.
RUNNEL_ALWAYS_INLINE constexpr char* encode_without_payload(char* out, publish const& p, protocol_version version,
                                                            publish_size size) noexcept {
    auto const flags = (p.dup ? 8u : 0u) | static_cast<unsigned>(p.qos) << 1 | (p.retain ? 1u : 0u);
    out = write_fixed_header(out, packet_type::publish, static_cast<std::uint8_t>(flags), size.remaining_length);
    out = write_short_field(out, p.topic);
    if (p.qos != qos::at_most_once) out = write_big_endian(out, p.packet_id);
    if (version == protocol_version::v3_1_1) return out;
    if (size.property_length != 0) return encode_properties(out, p.props, size.property_length);
    *out++ = '\0';
    return out;
}

/// Writes a packet of this size (`measure`); returns the end of what was written.
RUNNEL_ALWAYS_INLINE constexpr char* encode(char* out, publish const& p, protocol_version version,
                                            publish_size size) noexcept {
    return write_bytes(encode_without_payload(out, p, version, size), p.payload);
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
constexpr char* encode(char* out, publish const& p, protocol_version version) noexcept {
    return encode(out, p, version, measure(p, version));
}

/// Reads what MQTT 5 has behind the packet identifier, and checks the topic.
RUNNEL_NOINLINE constexpr errc decode_with_properties(std::string_view rest, publish& out) noexcept {
    wire_reader reader(rest);
    out.props = property_view::read(reader, packet_type::publish);
    out.payload = reader.rest();
    if (reader.error() != errc::ok) return reader.error();
    // 3.3.2.3.4: a topic alias stands for the topic.
    if (out.topic.empty() && out.props.get<property_id::topic_alias>()) return errc::ok;
    return check_topic_name(out.topic);
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
RUNNEL_ALWAYS_INLINE constexpr errc decode(fixed_header const& header, std::string_view body, protocol_version version,
                                           publish& out) noexcept {
    // Without `wire_reader`: this is the hot path of every receiver.
    if (body.size() < 2) return errc::truncated_packet;
    std::size_t const topic_size = read_big_endian<std::uint16_t>(body.data());
    std::size_t size = 2 + topic_size;
    if (header.flags == 0) {
        out.qos = qos::at_most_once;
        out.retain = false;
        out.dup = false;
        out.packet_id = 0;
    } else {
        out.qos = static_cast<qos>(header.flags >> 1 & 3);
        out.retain = (header.flags & 1) != 0;
        out.dup = (header.flags & 8) != 0;
        out.packet_id = 0;
        if (out.qos != qos::at_most_once) {
            if (body.size() < size + 2) return errc::truncated_packet;
            out.packet_id = read_big_endian<std::uint16_t>(body.data() + size);
            if (out.packet_id == 0) return errc::packet_identifier_zero;  // [MQTT-2.2.1-3]
            size += 2;
        }
    }
    if (body.size() < size) return errc::truncated_packet;
    std::string_view const topic(body.data() + 2, topic_size);
    out.topic = topic;
    std::string_view rest(body.data() + size, body.size() - size);
    if (version == protocol_version::v5) {
        if (rest.empty() || rest[0] != 0) return decode_with_properties(rest, out);
        rest.remove_prefix(1);
    }
    out.props = {};
    out.payload = rest;
    return check_topic_name(topic, body.size() - 2);
}

/// Checks what only the sender's role decides: a client must not send subscription identifiers [MQTT-3.3.4-6].
constexpr errc check_sender(publish const& p, role sender) noexcept {
    if (sender == role::server || p.props.empty()) return errc::ok;
    bool const has_identifiers = !p.props.get<property_id::subscription_identifier>().empty();
    return has_identifiers ? errc::property_not_allowed : errc::ok;
}

/// Checks that the payload is UTF-8 if the payload format indicator says so. Optional for a receiver (3.3.2.3.2).
constexpr errc check_payload_format(publish const& p) noexcept {
    if (p.props.get<property_id::payload_format_indicator>() != 1) return errc::ok;
    return is_utf8(p.payload) ? errc::ok : errc::payload_format_invalid;
}

/// Checks all of a packet that is to be sent in this version but its topic and its size.
RUNNEL_ALWAYS_INLINE constexpr errc check_without_topic(publish const& p, protocol_version version) noexcept {
    if (p.qos == qos::at_most_once) {
        if (p.dup) return errc::dup_without_qos;  // [MQTT-3.3.1-2]
    } else {
        if (p.qos > qos::exactly_once) return errc::invalid_qos;    // [MQTT-3.3.1-4]
        if (p.packet_id == 0) return errc::packet_identifier_zero;  // [MQTT-2.2.1-3]
    }
    return p.props.empty() ? errc::ok : check(p.props, packet_type::publish, version);
}

/// Checks that the packet can be sent in this version.
RUNNEL_ALWAYS_INLINE constexpr errc check(publish const& p, protocol_version version) noexcept {
    if (errc const error = check_without_topic(p, version); error != errc::ok) return error;
    bool const aliased =
        p.topic.empty() && version == protocol_version::v5 && p.props.get<property_id::topic_alias>().has_value();
    if (!aliased) {
        if (errc const error = check_topic_name(p.topic); error != errc::ok) return error;
    }
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
