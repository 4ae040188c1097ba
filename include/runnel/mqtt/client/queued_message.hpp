#pragma once

#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace runnel::mqtt {

/// A message that waits in a session to be sent or acknowledged: see `session::queued`.
struct queued_message {
    std::uint64_t number = 0;  ///< by which `session::discard` knows it
    std::string topic{};
    std::size_t size = 0;  ///< of the PUBLISH packet in bytes
    mqtt::qos qos = mqtt::qos::at_most_once;
    bool sent = false;  ///< whether it has been sent on some connection, so that it may have arrived
};

}  // namespace runnel::mqtt
