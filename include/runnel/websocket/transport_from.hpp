#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/url.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/transport/unix_socket.hpp>
#include <runnel/websocket/transport.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace runnel {

namespace detail {

template <class Transport>
Transport transport_to(url const& where) {
    Transport made;
    made.host = where.host;
    made.port = where.port;
    return made;
}

template <class WebSocket>
WebSocket websocket_to(url const& where) {
    auto made = transport_to<WebSocket>(where);
    if (!where.path.empty()) made.path = where.path;
    return made;
}

[[noreturn]] inline void refuse(url const& where, std::string_view why) {
    throw std::invalid_argument(std::string("URL: ").append(where.scheme).append("://").append(why));
}

#if RUNNEL_HAS_LOCAL_SOCKETS
inline unix_socket unix_socket_at(url const& where) {
    bool const is_path = where.host.empty() && where.port == 0 && where.path.find('?') == where.path.npos;
    if (!is_path || where.path.empty())
        refuse(where, " is followed by the socket's path alone, as in unix:///run/broker");
    unix_socket made;
    unescape(where.path, made.path, "path");
    return made;
}
#endif

}  // namespace detail

/// The transport that a URL names:
///
/// | URL | transport | port, if none is named |
/// |---|---|---|
/// | `mqtt://host`, `tcp://host` | `tcp` | 1883 |
/// | `mqtts://host`, `tls://host`, `ssl://host` | `tls<tcp>`, with `context` | 8883 |
/// | `ws://host/path` | `websocket::over<tcp>`; path `/mqtt` if none is named | 80 |
/// | `wss://host/path` | `websocket::over<tls<tcp>>`, with `context`; likewise | 443 |
/// | `unix:///path` | `unix_socket`, where Asio has them | |
///
/// The user's name and password are no part of a transport: they are members of the `url`, for
/// `session_options::credentials`. Throws `std::invalid_argument` with a text that names what is wrong with the URL.
RUNNEL_COLD inline any_transport transport_from(url const& where, tls_context context = {}) {
    auto const is = [&](auto const*... names) { return ((where.scheme == names) || ...); };
#if RUNNEL_HAS_LOCAL_SOCKETS
    if (is("unix")) return detail::unix_socket_at(where);
#endif
    bool const is_plain = is("mqtt", "tcp");
    bool const is_web = is("ws", "wss");
    if (!is_plain && !is_web && !is("mqtts", "tls", "ssl"))
        detail::refuse(where, " is none of mqtt, tcp, mqtts, tls, ssl, ws, wss and unix");
    if (where.host.empty()) detail::refuse(where, " needs a host");
    if (!is_web && !where.path.empty() && where.path != "/") detail::refuse(where, " has no path: " + where.path);
    if (is_plain) return detail::transport_to<tcp>(where);
    if (is("ws")) return detail::websocket_to<websocket::over<tcp>>(where);
    if (is("wss")) {
        auto made = detail::websocket_to<websocket::over<tls<tcp>>>(where);
        made.next.context = std::move(context);
        return made;
    }
    auto made = detail::transport_to<tls<tcp>>(where);
    made.context = std::move(context);
    return made;
}

/// The same for a URL as text. Throws what `parse_url` throws, too.
RUNNEL_COLD inline any_transport transport_from(std::string_view text, tls_context context = {}) {
    return transport_from(parse_url(text), std::move(context));
}

}  // namespace runnel
