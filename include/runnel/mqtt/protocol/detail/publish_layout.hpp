#pragma once

#include <runnel/core/bytes.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/property_codec.hpp>
#include <runnel/mqtt/codec/wire.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt::detail {

/// Where the parts of an encoded PUBLISH of MQTT 5 lie, found without checks.
struct publish_layout {
    std::string_view topic{};
    char const* identifier = nullptr;  ///< two bytes, unless it is of QoS 0
    std::size_t property_length = 0;
    std::string_view rest{};  ///< the properties without their length, and the payload

    explicit publish_layout(std::string_view packet) noexcept {
        char const* at = packet.data() + 1;
        while (static_cast<unsigned char>(*at++) >= 0x80) {
        }
        std::size_t const topic_size = read_big_endian<std::uint16_t>(at);
        topic = {at + 2, topic_size};
        at += 2 + topic_size;
        identifier = at;
        if ((packet[0] & 6) != 0) at += 2;
        unsigned shift = 0;
        for (; static_cast<unsigned char>(*at) >= 0x80; shift += 7)
            property_length += std::size_t{static_cast<unsigned char>(*at++) & 0x7Fu} << shift;
        property_length += std::size_t{static_cast<unsigned char>(*at++)} << shift;
        rest = {at, static_cast<std::size_t>(packet.data() + packet.size() - at)};
    }

    std::string_view properties() const noexcept { return rest.substr(0, property_length); }

    /// Where in the packet the value of the message expiry interval stands: four bytes; 0: it has none.
    std::size_t expiry_position(std::string_view packet) const noexcept {
        auto const all = properties();
        for (char const *at = all.data(), *end = at + all.size(); at != end;) {
            auto const id = property_id(static_cast<unsigned char>(*at++));
            if (id == property_id::message_expiry_interval) return static_cast<std::size_t>(at - packet.data());
            at = skip_property_value(definition_of(id).type, at);
        }
        return 0;
    }
};

/// Appends an encoded PUBLISH of MQTT 5 as one of MQTT 3.1.1.
RUNNEL_COLD inline void append_without_properties(send_buffer& out, std::string_view packet) {
    publish_layout const parts(packet);
    auto const payload = parts.rest.substr(parts.property_length);
    std::size_t const identifier = (packet[0] & 6) != 0 ? 2 : 0;
    std::size_t const remaining = field_size(parts.topic) + identifier + payload.size();
    std::size_t const size = packet_size(remaining);
    char* at = out.prepare(size);
    *at++ = packet[0];
    at = write_variable_integer(at, static_cast<std::uint32_t>(remaining));
    at = write_field(at, parts.topic);
    at = write_bytes(at, {parts.identifier, identifier});
    write_bytes(at, payload);
    out.commit(size);
}

}  // namespace runnel::mqtt::detail
