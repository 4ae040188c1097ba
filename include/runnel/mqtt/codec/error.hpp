#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/error.hpp>

#include <system_error>

namespace runnel::mqtt {

/// What can go wrong in MQTT: violations of the protocol by the peer, packets that must not be sent, and failures of a
/// session. A broker's refusal is not here: it is a `reason_code`, with an error category of its own.
enum class errc {
    ok = 0,

    // Malformed packets: the bytes cannot be read.
    truncated_packet,
    trailing_bytes,
    unknown_packet_type,
    invalid_header_flags,
    invalid_qos,
    dup_without_qos,
    variable_integer_too_long,
    variable_integer_not_minimal,
    invalid_utf8,
    null_character,
    unknown_property,
    property_not_allowed,
    invalid_reason_code,
    reserved_connect_flag,
    will_flags_without_will,
    password_without_user_name,
    invalid_connack_flags,
    reserved_subscription_option,
    invalid_retain_handling,
    invalid_protocol_name,
    unsupported_protocol_version,

    // Protocol errors: the bytes can be read, and say what they must not.
    packet_identifier_zero,
    topic_empty,
    wildcard_in_topic_name,
    invalid_topic_filter,
    invalid_shared_subscription,
    no_local_on_shared_subscription,
    duplicate_property,
    property_value_out_of_range,
    empty_list,
    client_identifier_empty,
    session_present_without_success,
    session_present_unexpected,
    authentication_data_without_method,
    authentication_method_missing,
    authentication_method_changed,
    unexpected_packet,
    second_connect,
    packet_before_connect,
    packet_before_connack,
    packet_identifier_unknown,
    packet_identifier_in_use,
    reason_code_count_mismatch,
    topic_alias_invalid,
    topic_alias_unknown,
    problem_information_unwanted,
    receive_maximum_exceeded,
    answers_not_taken,
    packet_too_large,
    payload_format_invalid,

    // Requests that cannot be fulfilled.
    string_too_long,
    maximum_qos_exceeded,
    retain_not_available,
    wildcard_subscription_not_available,
    shared_subscription_not_available,
    subscription_identifier_not_available,
    authentication_not_due,
    no_packet_identifier,
    queue_full,
    not_connected,
    no_response_topic,
    not_in_this_version,

    // The end of a connection or of a session.
    connect_timeout,
    close_timeout,
    keep_alive_timeout,
    response_timeout,
    message_expired,
    session_lost,
    authentication_failed,
    disconnected,
    session_discarded,
    maximum_packet_size_too_small,
    message_rejected,
    message_discarded,
    topic_alias_cannot_wait,
};

/// The name of the errors' category.
constexpr char const* category_name(errc) noexcept { return "runnel.mqtt"; }

/// What the error means, in a sentence without a full stop.
RUNNEL_COLD inline char const* describe(errc e) noexcept {
    switch (e) {
        case errc::ok: return "success";
        case errc::truncated_packet: return "the packet ends inside one of its fields";
        case errc::trailing_bytes: return "the packet goes on after its last field";
        case errc::unknown_packet_type: return "unknown packet type";
        case errc::invalid_header_flags: return "reserved flags of the packet's first byte are wrong";
        case errc::invalid_qos: return "QoS 3 does not exist";
        case errc::dup_without_qos: return "a QoS 0 message is marked as a duplicate";
        case errc::variable_integer_too_long: return "a variable byte integer is longer than four bytes";
        case errc::variable_integer_not_minimal: return "a variable byte integer is longer than necessary";
        case errc::invalid_utf8: return "a string is not UTF-8";
        case errc::null_character: return "a string contains the character U+0000";
        case errc::unknown_property: return "unknown property";
        case errc::property_not_allowed: return "a property stands in a packet where it is not allowed";
        case errc::invalid_reason_code: return "a reason code that does not exist in this packet";
        case errc::reserved_connect_flag: return "the reserved flag of CONNECT is set";
        case errc::will_flags_without_will: return "CONNECT has a will QoS or will retain flag, but no will";
        case errc::password_without_user_name: return "MQTT 3.1.1 allows a password only beside a user name";
        case errc::invalid_connack_flags: return "reserved flags of CONNACK are set";
        case errc::reserved_subscription_option: return "reserved bits of the subscription options are set";
        case errc::invalid_retain_handling: return "retain handling 3 does not exist";
        case errc::invalid_protocol_name: return "the peer does not speak MQTT (the protocol name is wrong)";
        case errc::unsupported_protocol_version: return "this version of the protocol is not supported";
        case errc::packet_identifier_zero: return "the packet identifier is 0";
        case errc::topic_empty: return "the topic is empty";
        case errc::wildcard_in_topic_name: return "a topic name contains a wildcard (+ or #)";
        case errc::invalid_topic_filter: return "a wildcard of the topic filter does not stand for a whole level";
        case errc::invalid_shared_subscription: return "a shared subscription is not of the form $share/name/filter";
        case errc::no_local_on_shared_subscription: return "a shared subscription has the option no local";
        case errc::duplicate_property: return "a property stands twice in a packet";
        case errc::property_value_out_of_range: return "a property has a value that is not allowed";
        case errc::empty_list: return "the packet's list of topic filters or reason codes is empty";
        case errc::client_identifier_empty: return "an empty client identifier needs a clean session in MQTT 3.1.1";
        case errc::session_present_without_success: return "a refused connection is said to have a session";
        case errc::session_present_unexpected: return "the server has kept a session that was to begin anew";
        case errc::authentication_data_without_method: return "authentication data without an authentication method";
        case errc::authentication_method_missing: return "AUTH without an authentication method";
        case errc::authentication_method_changed: return "the authentication method is not that of CONNECT";
        case errc::unexpected_packet: return "the peer sent a packet that it must not send at this point";
        case errc::second_connect: return "the client sent a second CONNECT";
        case errc::packet_before_connect: return "the first packet of the client is not CONNECT";
        case errc::packet_before_connack: return "the first packet of the server is neither CONNACK nor AUTH";
        case errc::packet_identifier_unknown: return "the packet identifier belongs to no exchange in progress";
        case errc::packet_identifier_in_use: return "the packet identifier is already in use";
        case errc::reason_code_count_mismatch: return "the peer did not answer each topic filter with one reason code";
        case errc::topic_alias_invalid: return "the topic alias is not one of those that the receiver takes";
        case errc::topic_alias_unknown: return "the topic alias stands for no topic yet";
        case errc::problem_information_unwanted:
            return "a packet has a reason string or user properties, although the client wants none there";
        case errc::receive_maximum_exceeded: return "more unacknowledged messages than the receive maximum allows";
        case errc::answers_not_taken: return "the peer does not take the answers to what it sends";
        case errc::packet_too_large: return "the packet is larger than the maximum packet size";
        case errc::payload_format_invalid: return "the payload is said to be UTF-8, and is not";
        case errc::string_too_long: return "a string is longer than 65,535 bytes";
        case errc::maximum_qos_exceeded: return "the server does not support this QoS";
        case errc::retain_not_available: return "the server does not retain messages";
        case errc::wildcard_subscription_not_available: return "the server does not support wildcards in subscriptions";
        case errc::shared_subscription_not_available: return "the server does not support shared subscriptions";
        case errc::subscription_identifier_not_available: return "the server does not support subscription identifiers";
        case errc::authentication_not_due: return "no authentication is under way that this packet could be a step of";
        case errc::no_packet_identifier: return "all packet identifiers are in use";
        case errc::queue_full: return "the queue is full";
        case errc::no_response_topic: return "the request names no response topic";
        case errc::not_in_this_version: return "MQTT 3.1.1 has no such thing: it is for MQTT 5";
        case errc::not_connected: return "not connected";
        case errc::connect_timeout: return "the attempt to connect took too long";
        case errc::close_timeout: return "the connection had to be closed before all had been sent";
        case errc::keep_alive_timeout: return "the peer has been silent for longer than the keep alive allows";
        case errc::response_timeout: return "the peer did not answer in time";
        case errc::message_expired: return "the message expired before it could be delivered";
        case errc::session_lost: return "the server lost the session, and with it what was in flight";
        case errc::authentication_failed: return "the authenticator does not go on with the authentication";
        case errc::disconnected: return "disconnected";
        case errc::session_discarded:
            return "the server has dropped a session that was unknown here, as it was told to";
        case errc::maximum_packet_size_too_small:
            return "the server takes no packets of the size of an acknowledgement";
        case errc::message_rejected: return "the server ends the connection each time it is sent this message";
        case errc::message_discarded: return "the message was taken out of the queue";
        case errc::topic_alias_cannot_wait: return "a topic alias cannot wait behind other messages";
    }
    return "unknown error";
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(errc e) noexcept { return make_layer_error(e); }

}  // namespace runnel::mqtt

template <>
struct std::is_error_code_enum<runnel::mqtt::errc> : std::true_type {};
