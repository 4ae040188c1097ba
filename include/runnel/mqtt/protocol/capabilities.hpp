#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/packet/subscribe.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::mqtt {

/// What one end of a connection accepts from the other: what CONNECT and CONNACK of MQTT 5 announce. The defaults hold
/// where nothing is said, and in MQTT 3.1.1.
struct capabilities {
    std::uint16_t receive_maximum = 65535;  ///< QoS 1 and 2 messages not acknowledged, 1 to 65,535
    std::uint16_t topic_alias_maximum = 0;  ///< topic aliases from 1 to this one
    std::uint32_t maximum_packet_size = max_variable_integer + 5;  ///< bytes of a whole packet
    qos maximum_qos = qos::exactly_once;
    bool retain_available = true;
    bool wildcard_subscription_available = true;
    bool shared_subscription_available = true;
    bool subscription_identifier_available = true;
    bool problem_information = true;  ///< client: takes reason strings and user properties in all packets (3.1.2.11.7)

    /// What the properties of a CONNECT or CONNACK announce.
    static capabilities from(properties const& p) noexcept {
        capabilities c;
        c.receive_maximum = p.receive_maximum.value_or(c.receive_maximum);
        c.maximum_packet_size = p.maximum_packet_size.value_or(c.maximum_packet_size);
        c.maximum_qos = static_cast<qos>(p.maximum_qos.value_or(2));
        c.retain_available = p.retain_available.value_or(1) == 1;
        c.wildcard_subscription_available = p.wildcard_subscription_available.value_or(1) == 1;
        c.shared_subscription_available = p.shared_subscription_available.value_or(1) == 1;
        c.subscription_identifier_available = p.subscription_identifier_available.value_or(1) == 1;
        c.topic_alias_maximum = p.topic_alias_maximum.value_or(0);
        c.problem_information = p.request_problem_information.value_or(1) == 1;
        return c;
    }
};

/// Checks that the peer accepts a PUBLISH of this size, QoS and retain flag.
constexpr errc check_publish(capabilities const& peer, qos quality, bool retain, std::size_t size) noexcept {
    if (size > peer.maximum_packet_size) return errc::packet_too_large;       // [MQTT-3.2.2-15], [MQTT-3.1.2-24]
    if (quality > peer.maximum_qos) return errc::maximum_qos_exceeded;        // [MQTT-3.2.2-11]
    if (retain && !peer.retain_available) return errc::retain_not_available;  // [MQTT-3.2.2-14]
    return errc::ok;
}

/// Takes from a packet that is not PUBLISH what it can do without, reason string and user properties, if the peer does
/// not want that [MQTT-3.1.2-29] or the packet would be too large for it; `shorter` then holds the other properties.
/// False: the packet is too large all the same.
template <class Packet>
constexpr bool fit(Packet& packet, packet_type type, protocol_version version, capabilities const& peer,
                   properties& shorter) noexcept {
    bool const fits = encoded_size(packet, version) <= peer.maximum_packet_size;
    if (packet.props.empty() || version != protocol_version::v5) return fits;
    bool const wanted = peer.problem_information || type == packet_type::disconnect;
    if (fits && wanted) return true;
    shorter = packet.props.parse();
    shorter.reason_string.reset();
    shorter.user_properties = {};
    packet.props = &shorter;
    return encoded_size(packet, version) <= peer.maximum_packet_size;
}

/// Checks that the server supports what a SUBSCRIBE asks for (3.2.2.3.11 to 3.2.2.3.13).
RUNNEL_COLD constexpr errc check_subscribe(capabilities const& peer, subscribe const& packet,
                                           protocol_version version) noexcept {
    bool const has_identifier = !packet.props.get<property_id::subscription_identifier>().empty();
    if (has_identifier && !peer.subscription_identifier_available) return errc::subscription_identifier_not_available;
    for (auto const& request : packet.requests) {
        bool const shared = version == protocol_version::v5 && split_shared(request.filter).is_shared();
        bool const wildcard = request.filter.find_first_of("+#") != std::string_view::npos;
        if (shared && !peer.shared_subscription_available) return errc::shared_subscription_not_available;
        if (wildcard && !peer.wildcard_subscription_available) return errc::wildcard_subscription_not_available;
    }
    return errc::ok;
}

}  // namespace runnel::mqtt
