#pragma once

#include <runnel/mqtt/codec/types.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

namespace runnel::testing {

/// Which packets something is to happen to: `{mqtt::role::server, mqtt::packet_type::puback}` is the next PUBACK that
/// the broker sends.
struct packet_selection {
    mqtt::role sender = mqtt::role::client;   ///< of whom: `client`, or `server`, which is the broker
    std::optional<mqtt::packet_type> type{};  ///< none: packets of any kind
    std::size_t skip = 0;                     ///< so many of them are let through before
    std::size_t count = 1;                    ///< so many are hit then; 0: all that follow
    /// Of the connection of this client alone; empty: of any. CONNECT belongs to no client yet.
    std::string client{};
};

/// Throws `std::invalid_argument` if no such packet can come: that end never sends one, or CONNECT and a client's name
/// are asked for.
inline void check(packet_selection const& s) {
    if (!s.type) return;
    if (!may_send(s.sender, *s.type, mqtt::protocol_version::v5))
        throw std::invalid_argument(std::string(name(*s.type)) + " is not sent by the " +
                                    (s.sender == mqtt::role::client ? "client" : "server"));
    if (*s.type == mqtt::packet_type::connect && !s.client.empty())
        throw std::invalid_argument("CONNECT belongs to no client yet: leave the client's name out");
}

/// What becomes of the packets behind one that is delayed, in the same direction.
enum class behind_delayed : std::uint8_t {
    wait,  ///< they keep their order, as on a slow network
    pass,  ///< they overtake it, as if the broker, or the client, took its time for this one
};

/// Where a connection is cut.
enum class cut_point : std::uint8_t {
    before,  ///< the packet does not arrive
    behind,  ///< the packet arrives, and nothing after it either way: what the broker answers is lost
};

}  // namespace runnel::testing
