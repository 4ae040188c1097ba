#pragma once

#include <runnel/core/callback.hpp>
#include <runnel/transport/reconnect.hpp>
#include <runnel/websocket/message.hpp>
#include <runnel/websocket/options.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace runnel::websocket {

/// When to connect again: see `basic_reconnect_policy`. A server that refuses this client (401, 403, 407) is asked
/// again if there is `reconnecting_options::make_headers`.
using reconnect_policy = basic_reconnect_policy<usual_recovery>;

/// What becomes of a message for which there is no room.
enum class overflow : std::uint8_t {
    wait,         ///< `send` waits until there is room
    refuse,       ///< `send` throws `std::errc::no_buffer_space`
    drop_oldest,  ///< the oldest messages that wait are dropped
};

/// What happens to the connection of a `reconnecting_client`.
struct connection_event {
    enum class kind : std::uint8_t {
        connecting,  ///< an attempt begins
        connected,   ///< the WebSocket is open
        lost,        ///< the attempt has failed, or the connection was lost, with `error`
        waiting,     ///< the next attempt begins after `pause`
        gave_up,     ///< there is no other attempt: `run` throws `error`
        closed,      ///< `close` has ended it
    };
    kind what{};
    std::error_code error{};
    std::string detail{};                ///< of `lost`: more about the error, if there is more
    std::chrono::milliseconds pause{0};  ///< of `waiting`
    /// Of `lost`: the code of the server's close frame; `abnormal` if none has come.
    close_code code = close_code::abnormal;
};

/// What a `reconnecting_client` has done.
struct reconnecting_counters {
    std::uint64_t connections = 0;  ///< opened
    std::uint64_t received = 0;     ///< messages
    std::uint64_t handed_on = 0;    ///< messages that a connection has taken; whether they arrived nobody knows
    std::uint64_t in_doubt = 0;     ///< messages on whose way to the connection that was lost
    std::uint64_t dropped = 0;      ///< messages, by `overflow::drop_oldest`
    std::uint64_t pings = 0;        ///< sent
};

/// A message that owns its bytes.
struct received_message {
    message_kind kind = message_kind::binary;
    std::string data{};
};

/// How a `reconnecting_client` connects and behaves.
struct reconnecting_options {
    /// Host, path, subprotocols, headers, limits.
    client_options handshake{};
    /// If set, is called for each attempt: headers besides those of `handshake`, for tokens that expire. What it throws
    /// ends `run`.
    std::function<std::vector<header>()> make_headers{};
    reconnect_policy reconnect{};
    /// How long an attempt may take, handshakes included; 1 ms or more.
    std::chrono::milliseconds connect_timeout{30'000};
    /// After so long without anything from the server it is pinged; 0 ms (never) or more.
    std::chrono::milliseconds ping_interval{30'000};
    /// The connection is lost when nothing has come for so long after a ping; 1 ms or more. A ping waits for the
    /// message that is being written; as long as that goes on, the connection is not lost.
    std::chrono::milliseconds ping_timeout{10'000};
    /// Messages that may wait to be sent, and their bytes, each 1 or more. One of any size is taken if there is no
    /// other.
    std::size_t maximum_queued_messages = 1'000;
    std::size_t maximum_queued = 1024 * 1024;
    overflow when_full = overflow::wait;
    /// Bytes of messages that nobody has taken by `next`, 1 or more, each counted with 64 more. Then nothing is read,
    /// so that the server has to wait; nor is it pinged.
    std::size_t maximum_received = 1024 * 1024;
    /// Is told of each change. What it throws ends `run`. It may destroy the client.
    callback<connection_event const&> on_event{};
};

/// Throws `std::out_of_range`, with the range in its text, if the options are not possible.
RUNNEL_COLD inline void check(reconnecting_options const& o) {
    using namespace std::chrono_literals;
    check(o.handshake.stream);
    check_opening(o.handshake.timeout, o.handshake.limits);
    check(o.reconnect);
    if (o.connect_timeout < 1ms) throw std::out_of_range("connect_timeout must be 1 ms or more");
    if (o.ping_interval < 0ms) throw std::out_of_range("ping_interval must be 0 ms or more");
    if (o.ping_timeout < 1ms) throw std::out_of_range("ping_timeout must be 1 ms or more");
    if (o.maximum_queued_messages == 0) throw std::out_of_range("maximum_queued_messages must be 1 or more");
    if (o.maximum_queued == 0) throw std::out_of_range("maximum_queued must be 1 or more");
    if (o.maximum_received == 0) throw std::out_of_range("maximum_received must be 1 or more");
}

}  // namespace runnel::websocket
