#pragma once

#include <cstddef>
#include <cstdint>

namespace runnel::mqtt {

/// The protocol version, with the value that stands for it in CONNECT. `automatic` is for `session_options` only, and
/// no version: 5 where the server takes it, else 3.1.1.
enum class protocol_version : std::uint8_t { automatic = 0, v3_1_1 = 4, v5 = 5 };

/// Quality of service: how often a message may arrive.
enum class qos : std::uint8_t { at_most_once = 0, at_least_once = 1, exactly_once = 2 };

/// The kinds of control packets, with their values in the fixed header.
enum class packet_type : std::uint8_t {
    connect = 1,
    connack = 2,
    publish = 3,
    puback = 4,
    pubrec = 5,
    pubrel = 6,
    pubcomp = 7,
    subscribe = 8,
    suback = 9,
    unsubscribe = 10,
    unsuback = 11,
    pingreq = 12,
    pingresp = 13,
    disconnect = 14,
    auth = 15,
};

/// Stands for the will inside CONNECT wherever properties are said to belong to a packet. (0 is no packet's value.)
inline constexpr packet_type will_message{0};

/// The two ends of a connection.
enum class role : std::uint8_t { client, server };

/// Whether retained messages are sent when a subscription is made (MQTT 5 only).
enum class retain_handling : std::uint8_t { send = 0, send_if_new = 1, do_not_send = 2 };

/// The largest value of a variable byte integer, and so of a packet's remaining length.
inline constexpr std::uint32_t max_variable_integer = 268'435'455;

/// The longest string or binary field, in bytes.
inline constexpr std::size_t max_string_size = 65'535;

/// The name of a packet type as the specification writes it: "PUBLISH".
constexpr char const* name(packet_type type) noexcept {
    constexpr char const* names[] = {"will",    "CONNECT",  "CONNACK",    "PUBLISH", "PUBACK",      "PUBREC",
                                     "PUBREL",  "PUBCOMP",  "SUBSCRIBE",  "SUBACK",  "UNSUBSCRIBE", "UNSUBACK",
                                     "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"};
    auto const index = static_cast<std::size_t>(type);
    return index < 16 ? names[index] : "unknown";
}

/// Whether the end `sender` may send packets of this type at all in this version: a client never sends CONNACK, a
/// server sends DISCONNECT in MQTT 5 only, and AUTH exists in MQTT 5 only.
constexpr bool may_send(role sender, packet_type type, protocol_version version) noexcept {
    constexpr auto set = [](auto... types) { return ((1u << static_cast<unsigned>(types)) | ...); };
    using enum packet_type;
    constexpr unsigned both = set(publish, puback, pubrec, pubrel, pubcomp);
    constexpr unsigned both_in_v5 = set(disconnect, auth);
    constexpr unsigned by_client = both | set(connect, subscribe, unsubscribe, pingreq, disconnect);
    constexpr unsigned by_server = both | set(connack, suback, unsuback, pingresp);
    unsigned const allowed =
        (sender == role::client ? by_client : by_server) | (version == protocol_version::v5 ? both_in_v5 : 0u);
    return (allowed >> static_cast<unsigned>(type) & 1u) != 0;
}

}  // namespace runnel::mqtt
