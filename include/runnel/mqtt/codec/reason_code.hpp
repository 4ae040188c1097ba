#pragma once

#include <runnel/core/error.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <system_error>

namespace runnel::mqtt {

/// What the peer says about a request, an acknowledged message, or the end of a connection (MQTT 5, 2.4). The return
/// codes of MQTT 3.1.1 are given as the reason codes of the same meaning.
///
/// As a `std::error_code` it has the category "runnel.mqtt.reason", so a refusal by the broker is told apart from
/// failures on this side.
enum class reason_code : std::uint8_t {
    success = 0x00,
    normal_disconnection = 0x00,
    granted_qos_0 = 0x00,
    granted_qos_1 = 0x01,
    granted_qos_2 = 0x02,
    disconnect_with_will_message = 0x04,
    no_matching_subscribers = 0x10,
    no_subscription_existed = 0x11,
    continue_authentication = 0x18,
    reauthenticate = 0x19,
    unspecified_error = 0x80,
    malformed_packet = 0x81,
    protocol_error = 0x82,
    implementation_specific_error = 0x83,
    unsupported_protocol_version = 0x84,
    client_identifier_not_valid = 0x85,
    bad_user_name_or_password = 0x86,
    not_authorized = 0x87,
    server_unavailable = 0x88,
    server_busy = 0x89,
    banned = 0x8A,
    server_shutting_down = 0x8B,
    bad_authentication_method = 0x8C,
    keep_alive_timeout = 0x8D,
    session_taken_over = 0x8E,
    topic_filter_invalid = 0x8F,
    topic_name_invalid = 0x90,
    packet_identifier_in_use = 0x91,
    packet_identifier_not_found = 0x92,
    receive_maximum_exceeded = 0x93,
    topic_alias_invalid = 0x94,
    packet_too_large = 0x95,
    message_rate_too_high = 0x96,
    quota_exceeded = 0x97,
    administrative_action = 0x98,
    payload_format_invalid = 0x99,
    retain_not_supported = 0x9A,
    qos_not_supported = 0x9B,
    use_another_server = 0x9C,
    server_moved = 0x9D,
    shared_subscriptions_not_supported = 0x9E,
    connection_rate_exceeded = 0x9F,
    maximum_connect_time = 0xA0,
    subscription_identifiers_not_supported = 0xA1,
    wildcard_subscriptions_not_supported = 0xA2,
};

/// What the table below says of one reason code.
struct reason_code_definition {
    reason_code code;
    char const* name;               ///< the specification's name
    char const* text;               ///< a sentence for people
    std::uint16_t packets;          ///< the packets it may stand in, a bit for each `packet_type`
    std::uint16_t server_only = 0;  ///< those of them in which only a server may send it
    std::uint16_t client_only = 0;  ///< those of them in which only a client may send it
};

/// All reason codes of MQTT 5 (2.4 and the tables of each packet), in ascending order.
inline constexpr auto reason_code_table = [] {
    constexpr auto in = [](auto... types) {
        return static_cast<std::uint16_t>(((1u << static_cast<unsigned>(types)) | ...));
    };
    using enum packet_type;
    constexpr std::uint16_t none = 0;
    constexpr auto dis = in(disconnect);
    constexpr auto ack = in(puback, pubrec);
    constexpr auto sub = in(suback, unsuback);
    constexpr auto any = in(connack, puback, pubrec, suback, unsuback, disconnect);
    constexpr auto ends = in(connack, disconnect);
    constexpr auto ok = in(connack, puback, pubrec, pubrel, pubcomp, suback, unsuback, disconnect, auth);
    constexpr auto or_ = [](std::uint16_t a, std::uint16_t b) { return static_cast<std::uint16_t>(a | b); };
    using enum reason_code;
    return std::to_array<reason_code_definition>({
        {success, "Success", "success", ok, in(auth), none},
        {granted_qos_1, "Granted QoS 1", "subscribed with QoS 1", in(suback)},
        {granted_qos_2, "Granted QoS 2", "subscribed with QoS 2", in(suback)},
        {disconnect_with_will_message, "Disconnect with Will Message", "disconnected; the will is to be published", dis,
         none, dis},
        {no_matching_subscribers, "No matching subscribers", "accepted, but nobody subscribes to this topic", ack},
        {no_subscription_existed, "No subscription existed", "there was no such subscription", in(unsuback)},
        {continue_authentication, "Continue authentication", "authentication goes on with another step", in(auth)},
        {reauthenticate, "Re-authenticate", "authenticate anew", in(auth), none, in(auth)},
        {unspecified_error, "Unspecified error", "the peer refuses and does not say why", any},
        {malformed_packet, "Malformed Packet", "the peer could not read a packet", ends},
        {protocol_error, "Protocol Error", "the peer received a packet that breaks the protocol", ends},
        {implementation_specific_error, "Implementation specific error", "the peer does not accept the packet", any},
        {unsupported_protocol_version, "Unsupported Protocol Version",
         "the server does not support this version of MQTT", in(connack)},
        {client_identifier_not_valid, "Client Identifier not valid", "the server does not allow this client identifier",
         in(connack)},
        {bad_user_name_or_password, "Bad User Name or Password", "the server does not accept user name and password",
         in(connack)},
        {not_authorized, "Not authorized", "not authorized", any, dis},
        {server_unavailable, "Server unavailable", "the server is not available", in(connack)},
        {server_busy, "Server busy", "the server is busy; try again later", ends, dis},
        {banned, "Banned", "the server has banned this client", in(connack)},
        {server_shutting_down, "Server shutting down", "the server is shutting down", dis, dis},
        {bad_authentication_method, "Bad authentication method", "the authentication method is not the right one",
         ends},
        {keep_alive_timeout, "Keep Alive timeout", "the server heard nothing for longer than the keep alive allows",
         dis, dis},
        {session_taken_over, "Session taken over", "another connection uses the same client identifier", dis, dis},
        {topic_filter_invalid, "Topic Filter invalid", "the server does not accept the topic filter", or_(sub, dis),
         dis},
        {topic_name_invalid, "Topic Name invalid", "the peer does not accept the topic name", or_(ends, ack)},
        {packet_identifier_in_use, "Packet Identifier in use", "the packet identifier is already in use",
         or_(ack, sub)},
        {packet_identifier_not_found, "Packet Identifier not found", "the packet identifier is unknown",
         in(pubrel, pubcomp)},
        {receive_maximum_exceeded, "Receive Maximum exceeded",
         "more messages in flight than the receive maximum allows", dis},
        {topic_alias_invalid, "Topic Alias invalid", "the topic alias is unknown or larger than the maximum", dis},
        {packet_too_large, "Packet too large", "the packet is larger than the peer accepts", ends},
        {message_rate_too_high, "Message rate too high", "messages come too fast", dis},
        {quota_exceeded, "Quota exceeded", "a limit that the peer has set is exceeded",
         or_(ends, in(puback, pubrec, suback))},
        {administrative_action, "Administrative action", "the connection was closed by an administrator", dis},
        {payload_format_invalid, "Payload format invalid", "the payload is not of the format that it is said to have",
         or_(ends, ack)},
        {retain_not_supported, "Retain not supported", "the server does not retain messages", ends, dis},
        {qos_not_supported, "QoS not supported", "the server does not support this QoS", ends, dis},
        {use_another_server, "Use another server", "use another server for the time being", ends, dis},
        {server_moved, "Server moved", "the server has moved for good", ends, dis},
        {shared_subscriptions_not_supported, "Shared Subscriptions not supported",
         "the server does not support shared subscriptions", or_(in(suback), dis), dis},
        {connection_rate_exceeded, "Connection rate exceeded", "too many connections in a short time", ends, dis},
        {maximum_connect_time, "Maximum connect time", "the longest time allowed for a connection is over", dis, dis},
        {subscription_identifiers_not_supported, "Subscription Identifiers not supported",
         "the server does not support subscription identifiers", or_(in(suback), dis), dis},
        {wildcard_subscriptions_not_supported, "Wildcard Subscriptions not supported",
         "the server does not support wildcards in subscriptions", or_(in(suback), dis), dis},
    });
}();

/// The table's entry for `code`; nullptr if there is no such code.
constexpr reason_code_definition const* find(reason_code code) noexcept {
    constexpr auto places = [] {
        std::array<std::uint8_t, 256> by_code{};
        std::uint8_t place = 0;
        for (auto const& definition : reason_code_table) by_code[static_cast<std::uint8_t>(definition.code)] = ++place;
        return by_code;
    }();
    auto const place = places[static_cast<std::uint8_t>(code)];
    return place == 0 ? nullptr : &reason_code_table[place - 1u];
}

/// The name that the specification gives the code (of those for 0x00: "Success").
constexpr char const* name(reason_code code) noexcept {
    auto const* definition = find(code);
    return definition ? definition->name : "unknown";
}

/// What the code means, in a sentence without a full stop.
constexpr char const* describe(reason_code code) noexcept {
    auto const* definition = find(code);
    return definition ? definition->text : "unknown reason code";
}

/// Whether the code may stand in packets of this type (in MQTT 5).
constexpr bool allowed_in(reason_code code, packet_type type) noexcept {
    auto const* definition = find(code);
    return definition && (definition->packets >> static_cast<unsigned>(type) & 1u) != 0;
}

/// Whether the end `sender` may send the code in packets of this type. A server's DISCONNECT with 0x00, which the
/// specification's table gives to clients alone, is allowed: servers in the field send it.
constexpr bool allowed_in(reason_code code, packet_type type, role sender) noexcept {
    auto const* definition = find(code);
    if (!definition) return false;
    auto const denied = sender == role::client ? definition->server_only : definition->client_only;
    return ((definition->packets & ~denied) >> static_cast<unsigned>(type) & 1u) != 0;
}

/// Whether the code reports a failure (0x80 and above).
constexpr bool is_error(reason_code code) noexcept { return static_cast<std::uint8_t>(code) >= 0x80; }

/// The reason code for a return code of an MQTT 3.1.1 CONNACK; nothing for return codes above 5, which are reserved.
constexpr std::optional<reason_code> from_connack_return_code(std::uint8_t code) noexcept {
    switch (code) {
        case 0: return reason_code::success;
        case 1: return reason_code::unsupported_protocol_version;
        case 2: return reason_code::client_identifier_not_valid;
        case 3: return reason_code::server_unavailable;
        case 4: return reason_code::bad_user_name_or_password;
        case 5: return reason_code::not_authorized;
        default: return std::nullopt;
    }
}

/// The return code of an MQTT 3.1.1 CONNACK that comes nearest to the reason code.
constexpr std::uint8_t to_connack_return_code(reason_code code) noexcept {
    switch (code) {
        case reason_code::success: return 0;
        case reason_code::unsupported_protocol_version: return 1;
        case reason_code::client_identifier_not_valid: return 2;
        case reason_code::bad_user_name_or_password: return 4;
        case reason_code::not_authorized:
        case reason_code::banned:
        case reason_code::bad_authentication_method: return 5;
        default: return 3;
    }
}

/// The reason code with which to end a connection over a violation by the peer (4.13). A topic that is no topic is a
/// protocol error, as an empty one is said to be (3.3.2.1): `topic_name_invalid` and `topic_filter_invalid` are for
/// well-formed ones that are not accepted.
constexpr reason_code reason_for(errc error) noexcept {
    switch (error) {
        case errc::ok: return reason_code::success;
        case errc::unsupported_protocol_version: return reason_code::unsupported_protocol_version;
        case errc::client_identifier_empty: return reason_code::client_identifier_not_valid;
        case errc::topic_alias_invalid: return reason_code::topic_alias_invalid;
        case errc::receive_maximum_exceeded:
        case errc::answers_not_taken: return reason_code::receive_maximum_exceeded;
        case errc::packet_too_large: return reason_code::packet_too_large;
        case errc::payload_format_invalid: return reason_code::payload_format_invalid;
        case errc::keep_alive_timeout: return reason_code::keep_alive_timeout;
        case errc::maximum_qos_exceeded: return reason_code::qos_not_supported;
        case errc::retain_not_available: return reason_code::retain_not_supported;
        case errc::disconnected: return reason_code::normal_disconnection;

        // Malformed packets.
        case errc::truncated_packet:
        case errc::trailing_bytes:
        case errc::unknown_packet_type:
        case errc::invalid_header_flags:
        case errc::invalid_qos:
        case errc::dup_without_qos:
        case errc::variable_integer_too_long:
        case errc::variable_integer_not_minimal:
        case errc::invalid_utf8:
        case errc::null_character:
        case errc::unknown_property:
        case errc::property_not_allowed:
        case errc::invalid_reason_code:
        case errc::reserved_connect_flag:
        case errc::will_flags_without_will:
        case errc::password_without_user_name:
        case errc::invalid_connack_flags:
        case errc::reserved_subscription_option:
        case errc::invalid_retain_handling:
        case errc::invalid_protocol_name: return reason_code::malformed_packet;

        // Protocol errors.
        case errc::packet_identifier_zero:
        case errc::topic_empty:
        case errc::wildcard_in_topic_name:
        case errc::invalid_topic_filter:
        case errc::invalid_shared_subscription:
        case errc::no_local_on_shared_subscription:
        case errc::duplicate_property:
        case errc::property_value_out_of_range:
        case errc::empty_list:
        case errc::session_present_without_success:
        case errc::session_present_unexpected:
        case errc::authentication_data_without_method:
        case errc::authentication_method_missing:
        case errc::authentication_method_changed:
        case errc::unexpected_packet:
        case errc::second_connect:
        case errc::packet_before_connect:
        case errc::packet_before_connack:
        case errc::packet_identifier_unknown:
        case errc::packet_identifier_in_use:
        case errc::reason_code_count_mismatch:
        case errc::topic_alias_unknown:
        case errc::problem_information_unwanted: return reason_code::protocol_error;

        // This side's own matters.
        case errc::string_too_long:
        case errc::wildcard_subscription_not_available:
        case errc::shared_subscription_not_available:
        case errc::subscription_identifier_not_available:
        case errc::authentication_not_due:
        case errc::no_packet_identifier:
        case errc::queue_full:
        case errc::not_connected:
        case errc::no_response_topic:
        case errc::not_in_this_version:
        case errc::connect_timeout:
        case errc::close_timeout:
        case errc::response_timeout:
        case errc::message_expired:
        case errc::session_lost:
        case errc::authentication_failed:
        case errc::session_discarded:
        case errc::maximum_packet_size_too_small:
        case errc::message_rejected:
        case errc::message_discarded:
        case errc::topic_alias_cannot_wait: return reason_code::unspecified_error;
    }
    return reason_code::unspecified_error;
}

/// The name of the errors' category.
constexpr char const* category_name(reason_code) noexcept { return "runnel.mqtt.reason"; }
/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(reason_code code) noexcept { return make_layer_error(code); }

}  // namespace runnel::mqtt

template <>
struct std::is_error_code_enum<runnel::mqtt::reason_code> : std::true_type {};
