#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/proxy/error.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO(buffer.hpp)
#include RUNNEL_ASIO(error.hpp)

#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace runnel::detail {

/// Reads from a proxy that owes an answer: at least one byte. Throws `proxy_errc::closed_early` with `what` if it has
/// closed instead.
template <stream Stream>
asio::awaitable<std::size_t, typename Stream::executor_type> read_answer(Stream& s, asio::mutable_buffer into,
                                                                         char const* what) {
    std::size_t n = 0;
    try {
        n = co_await s.read_some(into);
    } catch (std::system_error const& e) {
        if (e.code() != asio::error::eof) throw;
    }
    if (n == 0) throw std::system_error(proxy_errc::closed_early, what);
    co_return n;
}

// What the ways through proxies have in common. `Way`: `http_proxy<...>`, `socks5_proxy<...>`.

/// How the proxy itself is reached.
template <class Way>
auto to_proxy(Way const& way) {
    auto proxy = way.proxy;
    if (proxy.port == 0) proxy.port = Way::default_proxy_port;
    return proxy;
}

/// "tcp://host:port through" the proxy's own.
template <class Way>
std::string tunnel_url(Way const& way) {
    return "tcp://" + authority_of(way.host, way.effective_port()) + " through " + to_proxy(way).url();
}

/// How a tunnel is asked for: `Protocol` is the client's side of the proxy's protocol.
template <class Way, class Protocol>
struct tunnel_protocol {
    using executor_type = typename Way::executor_type;
    using stream_type = typename Way::stream_type;

    /// Talks to the proxy until the protocol is done, or has an error.
    asio::awaitable<void, executor_type> (*ask)(stream_type& to, Protocol& protocol);
    /// Throws the protocol's error.
    void (*fail)(Way const& way, Protocol const& protocol);
};

/// Connects to the proxy and asks it for a tunnel, in `way.handshake_timeout`, or, where the proxy has several
/// addresses, in the share of the time that this address has: then another one is tried. Throws
/// `proxy_errc::handshake_timeout`, `std::out_of_range` if that time is not possible, and what `how` and the transport
/// to the proxy throw. `way` must outlive it.
template <class Protocol, class Way>
asio::awaitable<typename Way::stream_type, typename Way::executor_type> open_tunnel(
    Way const& way, typename Way::executor_type executor, connect_progress* progress,
    tunnel_protocol<Way, Protocol> how) {
    if (way.handshake_timeout.count() < 0) throw std::out_of_range("handshake_timeout of a proxy must be 0 ms or more");
    auto const proxy = to_proxy(way);
    while (true) {
        Protocol protocol(way.host, way.effective_port(), way.user_name, way.password);
        if (protocol.error() != proxy_errc::ok) throw std::system_error(protocol.error(), way.url());
        auto opening = open_stream(proxy, executor, progress);
        typename Way::stream_type tunnel(co_await std::move(opening));
        auto limit = way.handshake_timeout;
        if (progress != nullptr) {
            progress->at(connect_step::proxy, "asking for " + way.url());
            limit = progress->handshake_time(limit, steady_clock::now());
        }
        auto asking = how.ask(tunnel, protocol);
        if (limit.count() != 0)
            asking = within(limit, std::move(asking), make_error_code(proxy_errc::handshake_timeout));
        try {
            co_await std::move(asking);
        } catch (std::system_error const& e) {
            bool const is_late = e.code() == proxy_errc::handshake_timeout && progress != nullptr;
            if (!is_late || !progress->try_next_address(e, steady_clock::now())) throw;
            continue;
        }
        if (protocol.error() != proxy_errc::ok) how.fail(way, protocol);
        co_return std::move(tunnel);
    }
}

}  // namespace runnel::detail
