#pragma once

#include <runnel/core/callback.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/protocol/capabilities.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace runnel::testing {

/// How a broker behaves. The defaults are generous, so that a test sees its own limits and not the broker's. What they
/// bound is in the table of docs/testing.md. A broker refuses options that are out of range: `std::out_of_range`.
struct broker_options {
    /// What clients of MQTT 5 are told that the broker accepts. In MQTT 3.1.1 it is not told; QoS and retain flag of
    /// messages are not checked there, which `broker_hooks::authorize_publish` can do.
    mqtt::capabilities accepts{.topic_alias_maximum = 16};
    /// MQTT 5: how many topics of messages to one client get an alias, if the client takes that many.
    std::uint16_t outgoing_topic_aliases = 16;
    /// MQTT 3.1.1: the largest packet accepted; bytes.
    std::uint32_t maximum_packet_size_v3_1_1 = mqtt::max_variable_integer + 5;
    /// How long a new connection may take to send CONNECT.
    std::chrono::milliseconds connect_limit{10'000};
    /// How long a client whose connection has been ended may take to read the rest and to close.
    std::chrono::milliseconds linger{2'000};
    /// Bytes that wait to be sent to one client, 1 or more: encoded ones, and QoS 0 messages. QoS 0 messages beyond
    /// them are dropped, and with so many bytes of answers nothing is read from the client. Retained messages that a
    /// new subscription is to get wait for room and are not dropped.
    std::size_t output_limit = 16 * 1024 * 1024;
    /// Messages in the queue of one session, 1 or more: QoS 1 and 2, not sent yet. Those that have expired make room;
    /// then those beyond are dropped.
    std::size_t queue_limit = 100'000;
    /// Bytes of QoS 1 and 2 messages of one session, not sent or not acknowledged, 1 or more: those beyond are dropped.
    /// One message of any size is taken if there is no other.
    std::size_t queue_bytes = 64 * 1024 * 1024;
    /// Retained messages, and bytes of all of them. A message from a client that would be one too many is refused with
    /// `quota_exceeded`, and goes to nobody.
    std::size_t retained_limit = 100'000;
    std::size_t retained_bytes = 256 * 1024 * 1024;
    /// Subscriptions of one session; others are refused with `quota_exceeded`.
    std::size_t subscription_limit = 10'000;
    /// Bytes of them, 1 or more: of each filter four times its own, 128 for each of its levels, and 512. Others are
    /// refused with `quota_exceeded`.
    std::size_t subscription_bytes = 64 * 1024 * 1024;
    /// Sessions, of connected and of other clients, 1 or more; a client that would be one too many is refused with
    /// `quota_exceeded` (MQTT 3.1.1: the server is unavailable).
    std::size_t session_limit = 1'000'000;
    /// Network connections, handshakes included, 1 or more; those beyond are closed at once.
    std::size_t connection_limit = 1'000'000;
    /// QoS 1 and 2 messages sent to one client and not acknowledged, 1 or more; a client's receive maximum may lower
    /// it.
    std::uint16_t in_flight = 65535;
    /// MQTT 5: takes the place of the keep alive that clients ask for; seconds.
    std::optional<std::uint16_t> server_keep_alive{};
    /// MQTT 5: the longest keep alive, 1 s or more; a client that asks for a longer one, or for none, is told this one.
    /// In MQTT 3.1.1 a client cannot be told, and what it asks for holds. `server_keep_alive` comes before it.
    std::optional<std::uint16_t> maximum_keep_alive{};
    /// MQTT 5: the longest session expiry interval granted; seconds.
    std::uint32_t maximum_session_expiry = 0xFFFF'FFFF;
    /// How many of the messages received last are kept for `received()`.
    std::size_t recorded_messages = 0;
    /// Whether clients of MQTT 3.1 (protocol name `MQIsdp`) are served, as if they spoke MQTT 3.1.1.
    bool accepts_v3_1 = false;
    /// MQTT 3.1.1: whether messages come with the QoS of their publisher, whatever the subscription's is; against
    /// [MQTT-3.8.4-6], as some servers do it.
    bool ignores_subscription_qos_v3_1_1 = false;
};

/// Throws `std::out_of_range`, with the range in its text, if the options are not possible.
inline void check(broker_options const& o) {
    using namespace std::chrono_literals;
    auto const positive = [](auto value, char const* name) {
        if (value < decltype(value){1}) throw std::out_of_range(std::string(name) + " must be 1 or more");
    };
    auto const up_to_a_day = [](std::chrono::milliseconds value, char const* name) {
        if (value < 0ms || value > 24h) throw std::out_of_range(std::string(name) + " must be 0 to 24 h");
    };
    up_to_a_day(o.connect_limit, "connect_limit");
    up_to_a_day(o.linger, "linger");
    positive(o.accepts.receive_maximum, "accepts.receive_maximum");
    positive(o.accepts.maximum_packet_size, "accepts.maximum_packet_size");
    positive(o.maximum_packet_size_v3_1_1, "maximum_packet_size_v3_1_1");
    positive(o.output_limit, "output_limit");
    positive(o.queue_limit, "queue_limit");
    positive(o.queue_bytes, "queue_bytes");
    positive(o.subscription_bytes, "subscription_bytes");
    positive(o.session_limit, "session_limit");
    positive(o.connection_limit, "connection_limit");
    positive(o.in_flight, "in_flight");
    if (o.maximum_keep_alive) positive(*o.maximum_keep_alive, "maximum_keep_alive");
}

/// What has happened since the broker began.
struct broker_counters {
    std::uint64_t connections = 0;        ///< network connections
    std::uint64_t accepted = 0;           ///< CONNECTs accepted
    std::uint64_t resumed = 0;            ///< those of them that found their session
    std::uint64_t refused = 0;            ///< CONNECTs refused
    std::uint64_t protocol_errors = 0;    ///< connections ended because the client broke the protocol
    std::uint64_t messages_received = 0;  ///< from clients, wills included, duplicates of QoS 2 not counted
    std::uint64_t messages_sent = 0;      ///< to clients, repetitions not counted
    std::uint64_t messages_refused = 0;   ///< by `authorize_publish`, or for want of room to retain them
    std::uint64_t messages_dropped = 0;   ///< not sent: the client is too slow or away, or does not take them so large
    std::uint64_t messages_expired = 0;   ///< not sent: their message expiry interval had passed
    std::uint64_t packets_lost = 0;       ///< on purpose, by `lose`
    std::uint64_t packets_delayed = 0;    ///< by `delay`, and behind those
    std::uint64_t connections_cut = 0;    ///< by `cut`
};

/// Where a connection comes from.
struct connection_info {
    std::string transport{};  ///< "tcp", "tls", "ws", "wss", "memory"
    std::string peer{};       ///< the client's address, if it has one
    bool secure = false;      ///< over TLS
};

/// A CONNECT that the broker asks its user about.
struct connect_attempt {
    mqtt::connect const& packet;
    mqtt::protocol_version version = mqtt::protocol_version::v5;
    connection_info const& from;
    /// What session and connection are known by. The client identifier, unless the user changes it.
    std::string session_name{};
    /// MQTT 5: told to the client in CONNACK.
    std::optional<std::string> assigned_client_identifier{};
    /// Why it is refused. MQTT 5: told to the client in CONNACK.
    std::string reason_string{};
    /// MQTT 5: the server that the client is told to use instead, with `use_another_server` or `server_moved`.
    std::string server_reference{};
    /// What the log says of it, if that is not for the client.
    std::string log_text{};
};

/// A step of a client's enhanced authentication (MQTT 5, 4.12) that the broker asks its user about.
struct authentication_attempt {
    std::string_view client{};               ///< the name of its session
    std::string_view method{};               ///< that of its CONNECT
    std::optional<std::string_view> data{};  ///< what it has sent with this step
    unsigned step = 0;                       ///< 0: the first one
    bool again = false;                      ///< whether the client is connected, and authenticates anew
    std::string& memory;                 ///< the user's own, kept from step to step: a challenge, say; empty at first
    std::optional<std::string> reply{};  ///< data for the client, which goes with the answer
};

/// A connected client, for hooks.
struct client_info {
    std::string_view name{};  ///< its session's
    mqtt::protocol_version version = mqtt::protocol_version::v5;
    connection_info const& from;
    std::size_t subscriptions = 0;  ///< how many it has, without the one that is asked for
};

/// What to do with a message that a client publishes.
struct publish_verdict {
    /// An error: the message goes nowhere. MQTT 5 clients get the reason in the acknowledgement.
    mqtt::reason_code reason = mqtt::reason_code::success;
    /// Whether an error ends the connection.
    bool disconnect = false;
};

/// Functions that the broker calls; empty ones are not called. They must not throw. They may publish, but not end
/// connections, as their results do that, nor close or destroy the broker.
struct broker_hooks {
    /// Decides whether a client may connect, once the packet has been found to be right.
    std::function<mqtt::reason_code(connect_attempt&)> on_connect{};
    /// Decides about a step of a client's enhanced authentication: `continue_authentication` asks it for another one,
    /// `success` ends it, and an error refuses the client, or ends its connection. Without this function clients that
    /// name an authentication method are refused with `bad_authentication_method`. `on_connect` is asked before.
    std::function<mqtt::reason_code(authentication_attempt&)> authenticate{};
    /// Decides what happens to a message from a client, or to its will when that is due.
    std::function<publish_verdict(client_info const&, mqtt::publish const&)> authorize_publish{};
    /// Decides about one of the filters of a SUBSCRIBE: the QoS granted, at most what is asked for, or an error.
    std::function<mqtt::reason_code(client_info const&, mqtt::subscribe const&, mqtt::subscription_request const&)>
        authorize_subscribe{};
    /// Is told of every message from a client that goes its way, its will included.
    callback<client_info const&, mqtt::publish const&> on_publish{};
    /// Is told that a client's connection has ended.
    callback<std::string_view> on_disconnect{};
    /// Is told in a sentence whatever was refused, and why.
    callback<std::string_view> log{};
};

/// A message that a client has published, as the broker remembers it.
struct received_message {
    std::string client{};
    std::string topic{};
    std::string payload{};
    mqtt::qos qos{};
    bool retain = false;
    bool dup = false;
};

}  // namespace runnel::testing
