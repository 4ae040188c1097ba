#pragma once

#include <runnel/core/error.hpp>

#include <cstdint>
#include <system_error>

namespace runnel::websocket {

/// What can go wrong in a WebSocket: violations of the protocol by the peer, failures of the handshake, and requests
/// that cannot be fulfilled. Clauses are those of RFC 6455.
enum class errc {
    ok = 0,

    // Frames that violate the protocol (5.2 to 5.5).
    reserved_bits_set,
    reserved_opcode,
    length_not_minimal,
    length_out_of_range,
    masked_by_server,
    unmasked_by_client,
    control_frame_too_long,
    control_frame_fragmented,
    unexpected_continuation,
    unfinished_message,
    close_payload_too_short,
    invalid_close_code,

    // Messages that cannot be taken (7.4.1: 1003, 1007, 1009).
    text_not_accepted,
    invalid_utf8,
    message_too_big,
    frame_too_big,
    invalid_compressed_data,

    // The end of the connection (7.1).
    ended_without_close,
    closed_by_peer,
    closing,

    // The opening handshake, either side (4.1, 4.2).
    malformed_http,
    head_too_long,
    too_many_headers,
    missing_upgrade,
    missing_connection_upgrade,
    handshake_timeout,
    invalid_host,
    invalid_target,
    invalid_header,
    invalid_subprotocol,

    // The server's reply, as the client sees it.
    refused,
    unauthorized,
    not_found,
    unavailable,
    redirected,
    wrong_accept,
    no_subprotocol,
    unexpected_subprotocol,
    unexpected_extension,

    // The client's request, as the server sees it.
    not_a_get_request,
    missing_host,
    unsupported_version,
    invalid_key,
    origin_refused,
};

/// The name of the layer's error category.
constexpr char const* category_name(errc) noexcept { return "runnel.websocket"; }

/// What `e` means, as a phrase.
constexpr char const* describe(errc e) noexcept {
    switch (e) {
        case errc::ok: return "success";
        case errc::reserved_bits_set: return "a frame has reserved bits set";
        case errc::reserved_opcode: return "a frame has a reserved opcode";
        case errc::length_not_minimal: return "a frame's length is not encoded in the fewest bytes";
        case errc::length_out_of_range: return "a frame's length has its highest bit set";
        case errc::masked_by_server: return "the server has masked a frame";
        case errc::unmasked_by_client: return "the client has not masked a frame";
        case errc::control_frame_too_long: return "a control frame has more than 125 bytes";
        case errc::control_frame_fragmented: return "a control frame is fragmented";
        case errc::unexpected_continuation: return "a continuation frame without a message to continue";
        case errc::unfinished_message: return "a new message before the end of the one under way";
        case errc::close_payload_too_short: return "a close frame with a payload of one byte";
        case errc::invalid_close_code: return "a close frame with a code that must not be sent";
        case errc::text_not_accepted: return "a text message where only binary messages are accepted";
        case errc::invalid_utf8: return "text that is not UTF-8";
        case errc::message_too_big: return "a message is longer than accepted";
        case errc::frame_too_big: return "a frame is longer than accepted";
        case errc::invalid_compressed_data: return "a compressed message cannot be inflated";
        case errc::ended_without_close: return "the connection ended without a close frame";
        case errc::closed_by_peer: return "the peer closed the WebSocket with an error code";
        case errc::closing: return "the WebSocket is being closed";
        case errc::malformed_http: return "the handshake is not well-formed HTTP/1.1";
        case errc::head_too_long: return "the handshake's HTTP head is longer than accepted";
        case errc::too_many_headers: return "the handshake has more headers than accepted";
        case errc::missing_upgrade: return "the handshake lacks the header \"Upgrade: websocket\"";
        case errc::missing_connection_upgrade: return "the handshake lacks the header \"Connection: Upgrade\"";
        case errc::handshake_timeout: return "the handshake took too long";
        case errc::invalid_host: return "the host name or address has characters that must not be there";
        case errc::invalid_target:
            return "the path does not begin with a slash or has characters that must not be there";
        case errc::invalid_header: return "an additional header's name or value has characters that must not be there";
        case errc::invalid_subprotocol: return "a subprotocol's name is not a token";
        case errc::refused: return "the server refused to open a WebSocket: is this the path of one?";
        case errc::unauthorized: return "the server refused to open a WebSocket for these credentials";
        case errc::not_found: return "the server has no such path: which path do its WebSockets have?";
        case errc::unavailable: return "the server cannot open a WebSocket now";
        case errc::redirected: return "the server redirects to another place";
        case errc::wrong_accept: return "the server's Sec-WebSocket-Accept does not belong to the key";
        case errc::no_subprotocol: return "the server did not choose a subprotocol: is this path for MQTT?";
        case errc::unexpected_subprotocol: return "the server chose a subprotocol that was not offered";
        case errc::unexpected_extension: return "the server chose an extension that was not offered";
        case errc::not_a_get_request: return "the client's request is not a GET";
        case errc::missing_host: return "the client's request lacks a Host header";
        case errc::unsupported_version: return "the client asks for another WebSocket version than 13";
        case errc::invalid_key: return "the client's Sec-WebSocket-Key is missing or not 16 bytes in base64";
        case errc::origin_refused: return "the request's origin is not accepted";
    }
    return "unknown WebSocket error";
}

/// What `e` means in the standard's terms, where it has one: how a layer that does not know this one tells what trying
/// again with the same settings cannot mend (`permission_denied`, `no_such_file_or_directory`, `invalid_argument`).
inline std::error_condition condition_of(errc e) noexcept {
    switch (e) {
        case errc::unauthorized: return std::errc::permission_denied;
        case errc::not_found: return std::errc::no_such_file_or_directory;
        case errc::unavailable: return std::errc::resource_unavailable_try_again;
        case errc::handshake_timeout: return std::errc::timed_out;
        case errc::invalid_host:
        case errc::invalid_target:
        case errc::invalid_header:
        case errc::invalid_subprotocol: return std::errc::invalid_argument;
        default: return {};
    }
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(errc e) noexcept { return make_layer_error(e); }

/// What a client makes of a reply's status other than 101 (RFC 9110 15): `unauthorized` for 401, 403 and 407;
/// `not_found` for 404 and 410; `unavailable` for what time may mend, 408, 425, 429 and all from 500; else `refused`.
constexpr errc errc_for_status(int status) noexcept {
    switch (status) {
        case 401:
        case 403:
        case 407: return errc::unauthorized;
        case 404:
        case 410: return errc::not_found;
        case 408:
        case 425:
        case 429: return errc::unavailable;
        default: return status >= 500 ? errc::unavailable : errc::refused;
    }
}

/// Whether `e` stands for such a reply: the server is reached, and does not open a WebSocket.
constexpr bool is_refusal(errc e) noexcept {
    return e == errc::refused || e == errc::unauthorized || e == errc::not_found || e == errc::unavailable ||
           e == errc::redirected;
}

/// Why a WebSocket is closed (7.4.1 and the IANA registry). Codes from 3000 are the applications' own: any value can be
/// converted.
enum class close_code : std::uint16_t {
    normal = 1000,
    going_away = 1001,
    protocol_error = 1002,
    unsupported_data = 1003,
    /// The peer's close frame had no code. Never sent.
    no_status = 1005,
    /// The connection ended without a close frame. Never sent.
    abnormal = 1006,
    invalid_payload = 1007,
    policy_violation = 1008,
    message_too_big = 1009,
    extension_missing = 1010,
    internal_error = 1011,
    service_restart = 1012,
    try_again_later = 1013,
    bad_gateway = 1014,
};

/// Whether a close frame may carry `code` (7.4).
constexpr bool may_be_sent(close_code code) noexcept {
    auto const value = static_cast<std::uint16_t>(code);
    return (value >= 1000 && value <= 1003) || (value >= 1007 && value <= 1014) || (value >= 3000 && value <= 4999);
}

/// The code with which a connection is closed because of `e`.
constexpr close_code close_code_for(errc e) noexcept {
    switch (e) {
        case errc::text_not_accepted: return close_code::unsupported_data;
        case errc::invalid_utf8:
        case errc::invalid_compressed_data: return close_code::invalid_payload;
        case errc::message_too_big:
        case errc::frame_too_big: return close_code::message_too_big;
        default: return close_code::protocol_error;
    }
}

}  // namespace runnel::websocket

template <>
struct std::is_error_code_enum<runnel::websocket::errc> : std::true_type {};
