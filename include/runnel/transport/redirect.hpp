#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/transport/stream.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel {

/// Another server, as a server names it.
struct server_reference {
    /// Name or address, IPv6 without brackets.
    std::string_view host;
    /// 0: none is named.
    std::uint16_t port = 0;

    friend bool operator==(server_reference const&, server_reference const&) = default;
};

/// Reads the first of a list, separated by blanks, of references "name", "name:port" or "[address]:port" [MQTT
/// 5, 4.11]. Nothing if it is no such thing.
RUNNEL_COLD constexpr std::optional<server_reference> parse_server_reference(std::string_view text) noexcept {
    while (text.starts_with(' ')) text.remove_prefix(1);
    text = text.substr(0, text.find(' '));
    server_reference result{text, 0};
    std::string_view port;
    bool has_port = false;
    if (text.starts_with('[')) {
        auto const end = text.find(']');
        if (end == std::string_view::npos) return std::nullopt;
        result.host = text.substr(1, end - 1);
        port = text.substr(end + 1);
        has_port = !port.empty();
        if (has_port && port[0] != ':') return std::nullopt;
        if (has_port) port.remove_prefix(1);
    } else if (auto const colon = text.find(':'); colon != std::string_view::npos && text.rfind(':') == colon) {
        result.host = text.substr(0, colon);
        port = text.substr(colon + 1);
        has_port = true;
    }
    unsigned number = 0;
    for (char c : port) {
        if (c < '0' || c > '9' || port.size() > 5) return std::nullopt;
        number = number * 10 + static_cast<unsigned>(c - '0');
    }
    if (number > 65535 || (has_port && number == 0)) return std::nullopt;
    result.port = static_cast<std::uint16_t>(number);
    for (char c : result.host)
        if (c <= 0x20 || c >= 0x7F || std::string_view("/@?#\\[]").find(c) != std::string_view::npos)
            return std::nullopt;
    if (result.host.empty() || result.host.size() > 255) return std::nullopt;
    return result;
}

/// Makes the layers of a transport forget what was said about the host that it reached: the next ones below get host
/// and port from those above. `ports` too, or the hosts only. A proxy is no layer below: it is still gone through.
template <network_transport T>
void forget_target(T& transport, bool ports) {
    transport.host.clear();
    if (ports) transport.port = 0;
    if constexpr (requires {
                      { transport.server_name } -> std::same_as<std::string&>;
                  })
        transport.server_name.clear();
    if constexpr (requires {
                      { transport.authority } -> std::same_as<std::string&>;
                  })
        transport.authority.clear();
    if constexpr (requires { requires network_transport<decltype(transport.next)>; })
        forget_target(transport.next, ports);
}

/// Points a transport to another host, through all its layers: server name (SNI, certificate) and Host header follow.
/// Port 0 leaves the ports as they are.
template <network_transport T>
void set_target(T& transport, std::string_view host, std::uint16_t port) {
    forget_target(transport, port != 0);
    transport.host = host;
    if (port != 0) transport.port = port;
}

/// A copy of a transport that connects to the server of an MQTT server reference ("host" or "host:port") instead; as
/// MQTT 5 has it with the reasons "use another server" and "server moved". Nothing if the reference cannot be read, or
/// the transport reaches no hosts. Of a `failover`, the endpoint in use is redirected.
template <transport T>
std::optional<T> redirected(T transport, std::string_view reference) {
    auto const where = parse_server_reference(reference);
    if (!where) return std::nullopt;
    if constexpr (network_transport<T>) {
        set_target(transport, where->host, where->port);
        return transport;
    } else if constexpr (requires { T(std::vector{transport.current()}, transport.order()); }) {
        auto endpoint = redirected(transport.current(), reference);
        if (!endpoint) return std::nullopt;
        return T(std::vector{std::move(*endpoint)}, transport.order());
    } else if constexpr (requires { transport.redirected(reference); }) {
        return transport.redirected(reference);
    } else {
        return std::nullopt;
    }
}

}  // namespace runnel
