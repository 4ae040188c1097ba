#pragma once

#include <runnel/core/printable.hpp>
#include <runnel/coro/stream_state.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/proxy/detail/handshake.hpp>
#include <runnel/transport/proxy/protocol/http_connect.hpp>
#include <runnel/transport/stream.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

namespace runnel {

/// The answer of an HTTP proxy that opens no tunnel.
class http_proxy_refused : public std::system_error {
  public:
    http_proxy_refused(proxy_errc e, int status, std::string const& text) : system_error(e, text), status_(status) {}

    /// The status of the answer: 403, 407, 502, ...
    int status() const noexcept { return status_; }

  private:
    int status_;
};

/// A stream through a proxy: the stream to the proxy, and what that has sent behind its answer.
template <stream Next>
class tunnel_stream {
  public:
    using next_layer_type = Next;
    using executor_type = typename Next::executor_type;
    static constexpr std::size_t headroom = Next::headroom;

    explicit tunnel_stream(Next next) : next_(std::move(next)) {}

    executor_type get_executor() { return next_.get_executor(); }
    Next& next_layer() noexcept { return next_; }

    /// As those of the stream to the proxy.
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        return !early_ || early_->bytes.empty() ? next_.read_some(into) : read_early(early_.share(), into);
    }
    asio::awaitable<void, executor_type> write(send_buffer& out) { return next_.write(out); }
    asio::awaitable<void, executor_type> shutdown() { return next_.shutdown(); }
    std::size_t backlog() noexcept { return backlog_of(next_); }

    /// Bytes to be read before those of the stream to the proxy.
    void put_back(std::string_view bytes) {
        if (!early_ && !bytes.empty()) early_ = state_owner<early>(new early);
        if (early_) early_->bytes.assign(bytes);
    }

  private:
    // `bytes` is written by `put_back`, before the tunnel has a reader, and by the reader, in one step: while a
    // coroutine is suspended, nobody is in the middle of it.
    struct early : stream_state {
        void abandon() noexcept {}
        std::string bytes{};
    };

    static asio::awaitable<std::size_t, executor_type> read_early(state_share<early> s, asio::mutable_buffer into) {
        s->check();
        std::size_t const n = (std::min)(s->bytes.size(), into.size());
        std::memcpy(into.data(), s->bytes.data(), n);
        s->bytes.erase(0, n);
        co_return n;
    }

    Next next_;
    state_owner<early> early_{nullptr};
};

/// A way through an HTTP proxy by CONNECT, in the place of `tcp`: `tls<http_proxy<tcp>>` is TLS to the target through a
/// proxy, `websocket::over<tls<http_proxy<tcp>>>` is wss, and `http_proxy<tls<tcp>>` reaches the proxy itself by TLS.
/// The target's name is resolved by the proxy.
///
///     runnel::tls<runnel::http_proxy<runnel::tcp>> broker;
///     broker.host = "broker.example";
///     broker.next.proxy.host = "proxy.example";
///     broker.next.proxy.port = 3128;
template <network_transport Next>
struct http_proxy {
    using executor_type = typename Next::executor_type;
    using stream_type = tunnel_stream<typename Next::stream_type>;

    /// False even if the proxy is reached by TLS, as behind the proxy nothing is encrypted.
    static constexpr bool secure = false;
    static constexpr std::uint16_t default_port = 1883;
    /// Of a proxy reached by TLS, 443.
    static constexpr std::uint16_t default_proxy_port = Next::secure ? 443 : 3128;

    /// Name or address (IPv6 without brackets) of the target, at most 255 bytes.
    std::string host{};
    /// The target's port. 0 stands for `default_port`, MQTT's.
    std::uint16_t port = 0;
    /// How the proxy is reached. A port of 0 stands for `default_proxy_port`.
    Next proxy = {};
    /// Credentials for the proxy, without control characters, the user name also without colons. They are sent
    /// unencrypted to a proxy that is not reached by TLS. Both empty: none are sent.
    std::string user_name = {};
    secret_string password = {};
    /// How long the proxy may take to answer, once it is connected to; 0: without limit.
    std::chrono::milliseconds handshake_timeout{15'000};

    friend bool operator==(http_proxy const&, http_proxy const&) = default;

    std::uint16_t effective_port() const noexcept { return port != 0 ? port : default_port; }

    /// "tcp://host:port through" the proxy's own.
    std::string url() const { return detail::tunnel_url(*this); }

    /// Connects to the proxy and asks it for a tunnel to the target. Throws `http_proxy_refused` if the proxy answers
    /// with another status than 2xx (`proxy_errc::credentials_required` or `credentials_refused` with 407), another
    /// `proxy_errc` in a `std::system_error`, or what the transport to the proxy throws. Can be cancelled at any point.
    asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                     connect_progress* progress = nullptr) const {
        detail::tunnel_protocol<http_proxy, http_connect_client> const how{&ask, &fail};
        return detail::open_tunnel(*this, std::move(executor), progress, how);
    }

  private:
    static asio::awaitable<void, executor_type> ask(stream_type& tunnel, http_connect_client& protocol) {
        send_buffer request(stream_type::headroom);
        wiped_at_end const wiping(request);
        request.append(protocol.request());
        co_await tunnel.write(request);
        char room[2048];
        while (!protocol.done() && protocol.error() == proxy_errc::ok) {
            std::size_t const n = co_await detail::read_answer(tunnel, asio::buffer(room), "HTTP proxy");
            std::size_t const used = protocol.receive({room, n});
            tunnel.put_back({room + used, n - used});
        }
    }

    [[noreturn]] static void fail(http_proxy const& way, http_connect_client const& protocol) {
        std::string text = way.url();
        if (protocol.status() == 0) throw std::system_error(protocol.error(), text);
        text += " (HTTP status " + std::to_string(protocol.status());
        if (!protocol.reason().empty()) text.append(1, ' ').append(printable(protocol.reason(), 100));
        if (!protocol.challenge().empty()) text.append("; ").append(printable(protocol.challenge(), 100));
        text += ')';
        throw http_proxy_refused(protocol.error(), protocol.status(), text);
    }
};

}  // namespace runnel
