#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>
#include <runnel/mqtt/codec/packed_list.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// One topic filter of SUBSCRIBE and how to subscribe to it (3.8.3). A view.
struct subscription_request {
    std::string_view filter{};
    qos maximum_qos = qos::exactly_once;  ///< messages of higher QoS are sent with this one
    bool no_local = false;                ///< MQTT 5: without the messages that this client publishes
    bool retain_as_published = false;     ///< MQTT 5: messages keep the retain flag they were published with
    retain_handling handling = retain_handling::send;  ///< MQTT 5: whether retained messages are sent now

    friend constexpr bool operator==(subscription_request const&, subscription_request const&) noexcept = default;
};

/// Reads the topic filters and options of a SUBSCRIBE that was validated before.
struct subscription_request_codec {
    static constexpr bool read(char const*& at, char const* end, subscription_request& out) noexcept {
        if (at == end) return false;
        out.filter = std::string_view(at + 2, read_big_endian<std::uint16_t>(at));
        at += field_size(out.filter);
        unsigned const options = static_cast<unsigned char>(*at++);
        out.maximum_qos = static_cast<qos>(options & 3);
        out.no_local = (options & 4) != 0;
        out.retain_as_published = (options & 8) != 0;
        out.handling = static_cast<retain_handling>(options >> 4 & 3);
        return true;
    }
};

/// The topic filters of a SUBSCRIBE with their options. A view.
using subscription_request_list = packed_list<subscription_request, subscription_request_codec>;

/// SUBSCRIBE (3.8). A view.
struct subscribe {
    std::uint16_t packet_id = 0;
    subscription_request_list requests{};  ///< at least one; an array, a `std::vector` or a `std::span` converts to it
    property_view props{};

    friend constexpr bool operator==(subscribe const&, subscribe const&) noexcept = default;
};

/// The options byte of a request; MQTT 3.1.1 has nothing but the QoS in it.
constexpr std::uint8_t subscription_options(subscription_request const& r, protocol_version version) noexcept {
    unsigned options = static_cast<unsigned>(r.maximum_qos);
    if (version == protocol_version::v5) {
        options |= (r.no_local ? 4u : 0u) | (r.retain_as_published ? 8u : 0u) | static_cast<unsigned>(r.handling) << 4;
    }
    return static_cast<std::uint8_t>(options);
}

/// Bytes that follow the fixed header.
RUNNEL_COLD constexpr std::size_t remaining_length(subscribe const& p, protocol_version version) noexcept {
    std::size_t size = 2;
    if (version == protocol_version::v5) size += encoded_size(p.props, packet_type::subscribe);
    for (auto const& request : p.requests) size += field_size(request.filter) + 1;
    return size;
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(subscribe const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
RUNNEL_COLD constexpr char* encode(char* out, subscribe const& p, protocol_version version) noexcept {
    out = write_fixed_header(out, packet_type::subscribe, 2, remaining_length(p, version));
    out = write_big_endian(out, p.packet_id);
    if (version == protocol_version::v5) out = encode(out, p.props, packet_type::subscribe);
    for (auto const& request : p.requests)
        out = write_big_endian(write_field(out, request.filter), subscription_options(request, version));
    return out;
}

/// Checks the options byte of a request.
constexpr errc check_subscription_options(std::uint8_t options, std::string_view filter,
                                          protocol_version version) noexcept {
    // [MQTT-3.8.3-5] ([MQTT-3.8.3-4] of MQTT 3.1.1)
    unsigned const reserved = version == protocol_version::v5 ? 0xC0 : 0xFC;
    if ((options & reserved) != 0) return errc::reserved_subscription_option;
    if ((options & 0x03) == 0x03) return errc::invalid_qos;
    if ((options & 0x30) == 0x30) return errc::invalid_retain_handling;
    bool const no_local = (options & 0x04) != 0;
    if (no_local && split_shared(filter).is_shared()) return errc::no_local_on_shared_subscription;  // [MQTT-3.8.3-4]
    return errc::ok;
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, subscribe& out) noexcept {
    wire_reader reader(body);
    out = {};
    out.packet_id = reader.read_packet_identifier();
    if (version == protocol_version::v5) out.props = property_view::read(reader, packet_type::subscribe);
    out.requests = subscription_request_list::from_encoded(reader.rest());
    reader.require(!reader.empty(), errc::empty_list);  // [MQTT-3.8.3-2] ([MQTT-3.8.3-3] of MQTT 3.1.1)
    while (!reader.empty()) {
        auto const filter = reader.read_binary();
        if (reader.error() == errc::ok) reader.require(check_topic_filter(filter, version));  // [MQTT-3.8.3-1]
        reader.require(check_subscription_options(reader.read_byte(), filter, version));
    }
    return reader.finish();
}

/// Checks that the packet can be sent in this version. (In MQTT 3.1.1 options other than the QoS are not sent.)
RUNNEL_COLD constexpr errc check(subscribe const& p, protocol_version version) noexcept {
    if (p.packet_id == 0) return errc::packet_identifier_zero;
    if (p.requests.empty()) return errc::empty_list;
    for (auto const& request : p.requests) {
        if (errc const error = check_topic_filter(request.filter, version); error != errc::ok) return error;
        if (request.maximum_qos > qos::exactly_once) return errc::invalid_qos;
        if (request.handling > retain_handling::do_not_send) return errc::invalid_retain_handling;
        auto const options = subscription_options(request, protocol_version::v5);
        if (version != protocol_version::v5 && options > 0x03) return errc::not_in_this_version;
        if (errc const error = check_subscription_options(options, request.filter, version); error != errc::ok)
            return error;
    }
    if (errc const error = check(p.props, packet_type::subscribe, version); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
