#pragma once

#include <runnel/core/authority.hpp>
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
    std::string_view host{};
    /// 0: none is named.
    std::uint16_t port = 0;

    friend bool operator==(server_reference const&, server_reference const&) = default;
};

/// Reads the first of a list, separated by blanks, of references "name", "name:port" or "[address]:port" [MQTT
/// 5, 4.11]. Nothing if it is no such thing.
RUNNEL_COLD constexpr std::optional<server_reference> parse_server_reference(std::string_view text) noexcept {
    while (text.starts_with(' ')) text.remove_prefix(1);
    text = text.substr(0, text.find(' '));
    auto const parts = split_host_and_port(text);
    if (!parts || !may_be_host_in_text(parts->host)) return std::nullopt;
    server_reference const result{parts->host, read_port(parts->port)};
    if (parts->has_port && result.port == 0) return std::nullopt;
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
/// the transport reaches no hosts. Of a `failover`, the endpoint in use is redirected. A transport around others has a
/// function of the same name, which takes the reference.
template <transport T>
std::optional<T> redirected(T transport, std::string_view reference) {
    auto const where = parse_server_reference(reference);
    if (!where) return std::nullopt;
    if constexpr (network_transport<T>) {
        set_target(transport, where->host, where->port);
        return transport;
    } else if constexpr (requires { transport.redirected(reference); }) {
        return transport.redirected(reference);
    } else if constexpr (requires { T(std::vector{transport.current()}, transport.order()); }) {
        auto endpoint = redirected(transport.current(), reference);
        if (!endpoint) return std::nullopt;
        return T(std::vector{std::move(*endpoint)}, transport.order());
    } else {
        return std::nullopt;
    }
}

}  // namespace runnel
