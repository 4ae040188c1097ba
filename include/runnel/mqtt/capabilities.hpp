#pragma once

#include <runnel/mqtt/property.hpp>
#include <runnel/mqtt/types.hpp>

#include <cstdint>

namespace runnel::mqtt {

/// What one end of a connection accepts from the other: what CONNECT and CONNACK of MQTT 5 announce. The defaults hold
/// where nothing is said, and in MQTT 3.1.1.
struct capabilities {
    std::uint16_t receive_maximum = 65535;  ///< QoS 1 and 2 messages not acknowledged, 1 to 65,535
    std::uint32_t maximum_packet_size = max_variable_integer + 5;  ///< bytes of a whole packet
    qos maximum_qos = qos::exactly_once;
    bool retain_available = true;
    bool wildcard_subscription_available = true;
    bool shared_subscription_available = true;
    bool subscription_identifier_available = true;
    std::uint16_t topic_alias_maximum = 0;

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
        return c;
    }
};

}  // namespace runnel::mqtt
