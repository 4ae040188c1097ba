#pragma once

#include <runnel/mqtt/codec/types.hpp>

#include <cstdint>

namespace runnel::mqtt {

/// A received message from the side of the protocol: what must be acknowledged once the application has taken it.
/// Small and copyable; acknowledging it twice, or after the connection has gone, does no harm.
struct delivery {
    std::uint64_t number = 0;
    std::uint16_t packet_id = 0;  ///< 0 for QoS 0
    qos quality = qos::at_most_once;
};

}  // namespace runnel::mqtt
