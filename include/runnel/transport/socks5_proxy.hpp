#pragma once

#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/http_connect.hpp>
#include <runnel/transport/proxy_handshake.hpp>
#include <runnel/transport/socks5.hpp>
#include <runnel/transport/stream.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

namespace runnel {

/// A way through a SOCKS5 proxy (RFC 1928), in the place of `tcp`: `tls<socks5_proxy<tcp>>` is TLS to the target
/// through a proxy. The target's name is resolved by the proxy.
///
///     runnel::tls<runnel::socks5_proxy<runnel::tcp>> broker;
///     broker.host = "broker.example";
///     broker.next.proxy.host = "proxy.example";
template <network_transport Next>
struct socks5_proxy {
    using executor_type = Next::executor_type;
    using stream_type = typename Next::stream_type;

    /// False even if the proxy is reached by TLS, as behind the proxy nothing is encrypted.
    static constexpr bool secure = false;
    static constexpr std::uint16_t default_port = 1883;
    static constexpr std::uint16_t default_proxy_port = 1080;

    /// Name or address (IPv6 without brackets) of the target, at most 255 bytes.
    std::string host;
    /// The target's port. 0 stands for `default_port`, MQTT's.
    std::uint16_t port = 0;
    /// How the proxy is reached. A port of 0 stands for `default_proxy_port`.
    Next proxy = {};
    /// Credentials for the proxy (RFC 1929), each of at most 255 bytes. They are sent unencrypted to a proxy that is
    /// not reached by TLS, if it asks for them. Both empty: none are offered.
    std::string user_name = {};
    secret_string password = {};
    /// How long the proxy may take to answer, once it is connected to; 0: without limit.
    std::chrono::milliseconds handshake_timeout{15'000};

    friend bool operator==(socks5_proxy const&, socks5_proxy const&) = default;

    std::uint16_t effective_port() const noexcept { return port != 0 ? port : default_port; }

    /// "tcp://host:port through" the proxy's own.
    std::string url() const { return "tcp://" + authority_of(host, effective_port()) + " through " + to_proxy().url(); }

    /// Connects to the proxy and asks it for a tunnel to the target. Throws a `proxy_errc` in a `std::system_error`, or
    /// what the transport to the proxy throws. Can be cancelled at any point.
    asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                     connect_progress* progress = nullptr) const {
        socks5_client protocol(host, effective_port(), user_name, password);
        check_proxy_time(handshake_timeout);
        if (protocol.error() != proxy_errc::ok) throw std::system_error(protocol.error(), url());
        auto const way = to_proxy();
        auto opening = open_stream(way, executor, progress);
        auto tunnel = co_await std::move(opening);
        if (progress != nullptr) progress->at(connect_step::proxy, "asking for " + url());
        auto asking = ask(tunnel, protocol);
        auto limited = talk_to_proxy<executor_type>(executor, handshake_timeout, std::move(asking));
        co_await std::move(limited);
        if (protocol.error() == proxy_errc::unknown_reply)
            throw std::system_error(protocol.error(), url() + " (reply " + std::to_string(protocol.reply()) + ')');
        if (protocol.error() != proxy_errc::ok) throw std::system_error(protocol.error(), url());
        co_return std::move(tunnel);
    }

  private:
    Next to_proxy() const {
        Next way = proxy;
        if (way.port == 0) way.port = default_proxy_port;
        return way;
    }

    static asio::awaitable<void, executor_type> ask(stream_type& tunnel, socks5_client& protocol) {
        send_buffer out(stream_type::headroom);
        wiped_at_end const wiping(out);
        out.prepare(600);  // more than any of its messages, so that it does not grow
        char room[256 + 2];
        while (!protocol.done() && protocol.error() == proxy_errc::ok) {
            out.append(protocol.take_output());
            if (!out.empty()) co_await tunnel.write(out);
            asio::mutable_buffer const into(room, std::min(sizeof(room), protocol.wanted()));
            std::size_t const n = co_await read_answer(tunnel, into, "SOCKS5 proxy");
            protocol.receive({room, n});
        }
    }
};

}  // namespace runnel
