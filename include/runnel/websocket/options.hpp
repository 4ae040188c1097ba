#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/websocket/protocol/handshake.hpp>
#include <runnel/websocket/protocol/http_head.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace runnel::websocket {

/// What a stream does after the handshake, on either side.
struct stream_options {
    /// Whether text messages are accepted. Otherwise one ends the connection with code 1003, as MQTT demands
    /// [MQTT-6.0.0-1].
    bool accept_text = true;
    /// The longest message accepted, in bytes, also after decompression; 0: no limit, which is right only where
    /// messages are read as a stream of bytes. A longer one ends the connection with code 1009.
    std::uint64_t max_message = 16 * 1024 * 1024;
    /// The longest frame accepted, in bytes; 0: no limit.
    std::uint64_t max_frame = 0;
    /// Messages longer than this are sent in fragments of this many bytes, so that pings are answered in between; 0:
    /// never. For `write_message`; `write` always sends one frame.
    std::size_t fragment_size = 128 * 1024;
    /// How long `shutdown` waits for the peer's part of the close handshake, at most; 0 ms or more.
    std::chrono::milliseconds close_timeout{5000};
};

/// How a client opens a WebSocket.
struct client_options {
    /// Name or address of the server, for the Host header; an IPv6 address without brackets.
    std::string host{};
    std::uint16_t port = 80;
    /// The port that the Host header leaves out: 80, or 443 over TLS.
    std::uint16_t default_port = 80;
    /// The Host header's value, in place of what `host` and `port` make.
    std::string authority = {};
    /// Path and query, escaped where needed.
    std::string path = "/";
    /// Subprotocols to offer, separated by commas, the preferred one first.
    std::string subprotocol = {};
    /// Whether the server may choose none of the subprotocols.
    bool accept_no_subprotocol = false;
    /// Additional headers.
    std::vector<header> headers = {};
    /// What the server's reply may have at most; the bytes of interim answers (1xx) before it count.
    http_limits limits = {};
    /// How long the handshake may take; 0: without limit. For the body of a refusal as long again, up to half a second.
    std::chrono::milliseconds timeout{15000};
    stream_options stream = {};
};

/// How a server accepts a WebSocket.
struct server_options {
    /// Subprotocols to choose from, separated by commas.
    std::string subprotocols = {};
    /// Whether a client that offers none of them is refused with 400.
    bool require_subprotocol = false;
    /// Additional headers of the reply.
    std::vector<header> headers = {};
    /// What the client's request may have at most.
    http_limits limits = {};
    /// How long the handshake may take; 0: without limit.
    std::chrono::milliseconds timeout{15000};
    stream_options stream = {};
};

/// Throw `std::out_of_range`, with the range in its text, if the options are not possible.
RUNNEL_COLD inline void check(stream_options const& o) {
    if (o.close_timeout.count() < 0) throw std::out_of_range("close_timeout of a WebSocket must be 0 ms or more");
}
/// The same for the options of a handshake.
RUNNEL_COLD inline void check_opening(std::chrono::milliseconds timeout, http_limits const& limits) {
    if (timeout.count() < 0) throw std::out_of_range("the timeout of a WebSocket's handshake must be 0 ms or more");
    if (limits.max_bytes == 0 || limits.max_headers == 0)
        throw std::out_of_range("max_bytes and max_headers of a WebSocket's handshake must be 1 or more");
}

}  // namespace runnel::websocket
