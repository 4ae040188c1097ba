#pragma once

#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/proxy/detail/handshake.hpp>
#include <runnel/transport/proxy/protocol/socks5.hpp>
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
    using executor_type = typename Next::executor_type;
    using stream_type = typename Next::stream_type;

    /// False even if the proxy is reached by TLS, as behind the proxy nothing is encrypted.
    static constexpr bool secure = false;
    static constexpr std::uint16_t default_port = 1883;
    static constexpr std::uint16_t default_proxy_port = 1080;

    /// Name or address (IPv6 without brackets) of the target, at most 255 bytes.
    std::string host{};
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
    std::string url() const { return detail::tunnel_url(*this); }

    /// Connects to the proxy and asks it for a tunnel to the target. Throws a `proxy_errc` in a `std::system_error`, or
    /// what the transport to the proxy throws. Can be cancelled at any point.
    asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                     connect_progress* progress = nullptr) const {
        detail::tunnel_protocol<socks5_proxy, socks5_client> const how{&ask, &fail};
        return detail::open_tunnel(*this, std::move(executor), progress, how);
    }

  private:
    static asio::awaitable<void, executor_type> ask(stream_type& tunnel, socks5_client& protocol) {
        send_buffer out(stream_type::headroom);
        wiped_at_end const wiping(out);
        out.prepare(600);  // more than any of its messages, so that it does not grow
        char room[256 + 2];
        while (!protocol.done() && protocol.error() == proxy_errc::ok) {
            out.append(protocol.take_output());
            if (!out.empty()) co_await tunnel.write(out);
            asio::mutable_buffer const into(room, (std::min)(sizeof(room), protocol.wanted()));
            std::size_t const n = co_await detail::read_answer(tunnel, into, "SOCKS5 proxy");
            protocol.receive({room, n});
        }
    }

    [[noreturn]] static void fail(socks5_proxy const& way, socks5_client const& protocol) {
        std::string text = way.url();
        if (protocol.error() == proxy_errc::unknown_reply) text += " (reply " + std::to_string(protocol.reply()) + ')';
        throw std::system_error(protocol.error(), text);
    }
};

}  // namespace runnel
