#pragma once

#include <chrono>
#include <cstdint>
#include <system_error>

namespace runnel::mqtt {

/// What a session does at each change of its connection, for logs and displays.
struct session_event {
    enum class kind : std::uint8_t {
        connecting,    ///< an attempt begins
        connected,     ///< the server has accepted; `session_present` tells whether it kept the session
        disconnected,  ///< the attempt or the connection has failed with `error`, or ended after `disconnect()`
        waiting,       ///< the next attempt begins after `pause`
    };
    kind what{};
    std::error_code error;
    bool session_present = false;
    std::chrono::milliseconds pause{0};
};

/// What a session has done since it was made.
struct session_counters {
    std::uint64_t connections = 0;     ///< accepted by the server
    std::uint64_t bytes_received = 0;  ///< of MQTT, without the layers below
    std::uint64_t bytes_sent = 0;      ///< likewise
    std::uint64_t writes = 0;          ///< calls of the stream's `write`; many packets share one
    std::uint64_t messages_received = 0;
    std::uint64_t messages_unrouted = 0;  ///< received, and no subscription wanted them
};

}  // namespace runnel::mqtt
