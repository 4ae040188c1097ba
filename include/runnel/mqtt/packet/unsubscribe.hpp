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

/// Reads the topic filters of an UNSUBSCRIBE that was validated before.
struct topic_filter_codec {
    static constexpr bool read(char const*& at, char const* end, std::string_view& out) noexcept {
        if (at == end) return false;
        out = std::string_view(at + 2, read_big_endian<std::uint16_t>(at));
        at += field_size(out);
        return true;
    }
};

/// The topic filters of an UNSUBSCRIBE. A view.
using topic_filter_list = packed_list<std::string_view, topic_filter_codec>;

/// UNSUBSCRIBE (3.10). A view.
struct unsubscribe {
    std::uint16_t packet_id = 0;
    topic_filter_list filters{};  ///< at least one; an array, a `std::vector` or a `std::span` converts to it
    property_view props{};

    friend constexpr bool operator==(unsubscribe const&, unsubscribe const&) noexcept = default;
};

/// Bytes that follow the fixed header.
RUNNEL_COLD constexpr std::size_t remaining_length(unsubscribe const& p, protocol_version version) noexcept {
    std::size_t size = 2;
    if (version == protocol_version::v5) size += encoded_size(p.props, packet_type::unsubscribe);
    for (auto const& filter : p.filters) size += field_size(filter);
    return size;
}

/// Bytes of the whole packet.
constexpr std::size_t encoded_size(unsubscribe const& p, protocol_version version) noexcept {
    return packet_size(remaining_length(p, version));
}

/// Writes the packet, `encoded_size` bytes; returns the end of what was written. The packet is one that `check`
/// accepts.
RUNNEL_COLD constexpr char* encode(char* out, unsubscribe const& p, protocol_version version) noexcept {
    out = write_fixed_header(out, packet_type::unsubscribe, 2, remaining_length(p, version));
    out = write_big_endian(out, p.packet_id);
    if (version == protocol_version::v5) out = encode(out, p.props, packet_type::unsubscribe);
    for (auto const& filter : p.filters) out = write_field(out, filter);
    return out;
}

/// Reads the body of a packet whose fixed header `next_frame` has accepted.
constexpr errc decode(fixed_header const&, std::string_view body, protocol_version version, unsubscribe& out) noexcept {
    wire_reader reader(body);
    out = {};
    out.packet_id = reader.read_packet_identifier();
    if (version == protocol_version::v5) out.props = property_view::read(reader, packet_type::unsubscribe);
    out.filters = topic_filter_list::from_encoded(reader.rest());
    reader.require(!reader.empty(), errc::empty_list);  // [MQTT-3.10.3-2]
    while (!reader.empty()) {
        auto const filter = reader.read_binary();
        if (reader.error() == errc::ok) reader.require(check_topic_filter(filter, version));  // [MQTT-3.10.3-1]
    }
    return reader.finish();
}

/// Checks that the packet can be sent in this version.
RUNNEL_COLD constexpr errc check(unsubscribe const& p, protocol_version version) noexcept {
    if (p.packet_id == 0) return errc::packet_identifier_zero;
    if (p.filters.empty()) return errc::empty_list;
    for (auto const& filter : p.filters) {
        if (errc const error = check_topic_filter(filter, version); error != errc::ok) return error;
    }
    if (errc const error = check(p.props, packet_type::unsubscribe, version); error != errc::ok) return error;
    return check_remaining_length(remaining_length(p, version));
}

}  // namespace runnel::mqtt
