#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/websocket/detail/open_over.hpp>
#include <runnel/websocket/stream.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace runnel::websocket {

/// A WebSocket to a host over another transport: `over<tcp>` for ws, `over<tls<tcp>>` for wss. Binary messages only, as
/// a stream of bytes, with MQTT's subprotocol and path unless others are named.
///
///     runnel::websocket::over<runnel::tcp> ws{.host = "broker.example", .path = "/mqtt"};
template <network_transport Next, class Compression = no_compression>
struct over {
    using executor_type = typename Next::executor_type;
    using stream_type = stream<typename Next::stream_type, Compression>;

    static constexpr bool secure = Next::secure;
    /// 80, or 443 where the transport below is secure: the port that a URL and the Host header leave out.
    static constexpr std::uint16_t default_port = secure ? 443 : 80;

    /// Name or address (IPv6 without brackets) of the host.
    std::string host{};
    /// 0 stands for `default_port`.
    std::uint16_t port = 0;
    /// Path and query of the request, escaped where needed.
    std::string path = "/mqtt";
    /// Subprotocols to offer, separated by commas.
    std::string subprotocol = "mqtt";
    /// Whether a server may choose no subprotocol; a client of MQTT must not accept that [MQTT-6.0.0-3].
    bool accept_no_subprotocol = false;
    /// Additional headers of the request: Authorization, Cookie, Origin, ...
    std::vector<header> headers = {};
    /// The Host header's value, in place of what `host` and `port` make.
    std::string authority = {};
    /// How long the handshake may take, once the transport below is open; 0: without limit.
    std::chrono::milliseconds handshake_timeout{15000};
    /// How long closing waits for the server's part of it; 0 ms or more.
    std::chrono::milliseconds close_timeout{5000};
    /// The longest frame and message accepted, in bytes; 0: no limit, as payload is handed on while it comes.
    std::uint64_t max_message = 0;
    /// The layer below. Where its `host` is empty or its `port` is 0, it gets those above.
    Next next = {};
    /// What `Compression` offers.
    typename Compression::options compression = {};

    friend bool operator==(over const&, over const&) = default;

    /// The port that the WebSocket is on.
    std::uint16_t effective_port() const noexcept { return port != 0 ? port : default_port; }

    /// "ws://host:port/path" or "wss://host:port/path"; the query, which may hold secrets, is left out.
    std::string url() const {
        auto const* const scheme = secure ? "wss://" : "ws://";
        return scheme + authority_of(host, effective_port()) + path.substr(0, path.find('?'));
    }

    /// Opens the transport below and performs the client's handshake. Throws `handshake_refused` if the server answers
    /// with another status than 101, `std::system_error`, or `std::out_of_range` if an option is not possible. With
    /// `progress`, an address behind which nobody answers is left for the host's next: see `connect_progress`.
    asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                     connect_progress* progress = nullptr) const {
        Next below = next;
        if (below.host.empty()) below.host = host;
        if (below.port == 0) below.port = effective_port();
        return detail::open_over<stream_type, Compression, Next>(
            std::move(below), std::move(executor), progress, options(), compression, [url = url()] { return url; },
            std::identity{});
    }

  private:
    client_options options() const {
        client_options made;
        made.host = host;
        made.port = effective_port();
        made.default_port = default_port;
        made.authority = authority;
        made.path = path;
        made.subprotocol = subprotocol;
        made.accept_no_subprotocol = accept_no_subprotocol;
        made.headers = headers;
        made.timeout = handshake_timeout;
        made.stream.accept_text = false;
        made.stream.max_message = max_message;
        made.stream.close_timeout = close_timeout;
        return made;
    }
};

}  // namespace runnel::websocket
