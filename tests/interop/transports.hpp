#pragma once

#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include "interop/mosquitto.hpp"
#include <cstdint>
#include <string>
#include <utility>

namespace test {

using tls = runnel::tls<runnel::tcp>;
using ws = runnel::websocket::over<runnel::tcp>;
using wss = runnel::websocket::over<tls>;

/// A context that trusts nobody but this authority.
inline runnel::tls_context trusting(runnel::testing::certificate_authority const& authority) {
    runnel::tls_options options;
    options.ca_pem = authority.certificate_pem();
    return runnel::tls_context(options);
}

/// Calls `f` with a transport to that port of this machine: for `kind` 0 over TCP, 1 TLS, 2 WebSocket, 3 WebSocket
/// Secure.
template <class F>
auto with_transport(std::size_t kind, std::uint16_t port, runnel::tls_context const& context, F f) {
    auto const at = [&](auto to) {
        to.host = "localhost";
        to.port = port;
        return to;
    };
    if (kind == 0) return f(at(runnel::tcp{}));
    if (kind == 2) return f(at(ws{}));
    if (kind == 1) {
        tls to = at(tls{});
        to.context = context;
        return f(std::move(to));
    }
    wss to = at(wss{});
    to.next.context = context;
    return f(std::move(to));
}

/// How a broker (`mosquitto`, `ejabberd`) is reached over the transport type `T`.
template <class T>
struct way;

template <>
struct way<runnel::tcp> {
    static constexpr std::size_t large_payload = 1024 * 1024;
    static runnel::tcp to(auto const& broker) { return {.host = "127.0.0.1", .port = broker.port_tcp()}; }
};

template <>
struct way<tls> {
    static constexpr std::size_t large_payload = 1024 * 1024;
    static tls to(auto const& broker) {
        return {.host = "localhost",
                .port = broker.port_tls(),
                .context = trusting(broker.authority()),
                .server_name = {},
                .next = {}};
    }
};

// Debian's mosquitto reads 4 KiB of a WebSocket in 100 ms, so what is large to it is small.
template <>
struct way<ws> {
    static constexpr std::size_t large_payload = 32 * 1024;
    static ws to(auto const& broker) {
        ws t;
        t.host = "127.0.0.1";
        t.port = broker.port_ws();
        return t;
    }
};

template <>
struct way<wss> {
    static constexpr std::size_t large_payload = 32 * 1024;
    static wss to(auto const& broker) {
        wss t;
        t.host = "localhost";
        t.port = broker.port_wss();
        t.next.context = trusting(broker.authority());
        return t;
    }
};

}  // namespace test
