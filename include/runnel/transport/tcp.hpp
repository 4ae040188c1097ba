#pragma once

#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/connect_race.hpp>
#include <runnel/transport/waiter.hpp>

#include <asio/ip/tcp.hpp>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace runnel {

/// Resolves a name to TCP endpoints. An address in the form of a text is taken as it is, without asking anybody.
///
/// Name resolution by the operating system cannot be interrupted; a cancelled call returns at once nevertheless, and
/// the late answer is dropped. Throws `std::system_error` with a resolver error (`asio::error::host_not_found`, ...).
template <class Executor>
asio::awaitable<asio::ip::tcp::resolver::results_type, Executor> resolve_tcp(Executor executor, std::string host,
                                                                             std::uint16_t port) {
    using results_type = asio::ip::tcp::resolver::results_type;
    std::error_code not_an_address;
    auto const address = asio::ip::make_address(host, not_an_address);
    if (!not_an_address) co_return results_type::create(asio::ip::tcp::endpoint(address, port), host, "");

    struct lookup {
        explicit lookup(Executor const& e) : place(e), resolver(e) {}
        parking<Executor> place;
        asio::ip::basic_resolver<asio::ip::tcp, Executor> resolver;
        waiter<Executor> waiting;
        bool done = false;
        std::error_code error;
        results_type results;
    };
    auto const state = std::make_shared<lookup>(executor);
    state->resolver.async_resolve(host, std::to_string(port), asio::ip::resolver_base::numeric_service,
                                  [state](std::error_code error, results_type results) {
                                      state->done = true;
                                      state->error = error;
                                      state->results = std::move(results);
                                      state->place.wake(state->waiting);
                                  });
    if (!state->done) co_await state->place.park(state->waiting);
    if (state->waiting.result) {
        state->resolver.cancel();
        throw std::system_error(state->waiting.result);
    }
    if (state->error) throw std::system_error(state->error, "resolving " + host);
    co_return std::move(state->results);
}

/// TCP to a host: a transport without encryption.
template <class Executor = asio::any_io_executor>
struct basic_tcp {
    using executor_type = Executor;
    using socket_type = asio::basic_stream_socket<asio::ip::tcp, Executor>;
    using stream_type = asio_stream<socket_type>;

    static constexpr bool secure = false;
    static constexpr std::uint16_t default_port = 1883;

    /// Name or address (IPv6 without brackets) of the host.
    std::string host;
    /// 0 stands for `default_port`, MQTT's.
    std::uint16_t port = 0;
    /// Sends small packets at once (TCP_NODELAY). The layers above gather what belongs together.
    bool no_delay = true;
    /// Lets the operating system probe an idle connection (SO_KEEPALIVE). MQTT's own keep alive finds a dead peer
    /// sooner.
    bool keep_alive = false;
    /// Bytes of the operating system's buffers; 0 leaves them to it.
    int send_buffer_size = 0;
    int receive_buffer_size = 0;
    /// How long an address may leave the attempt to connect unanswered before the next one is tried beside it; at
    /// least 10 ms are good manners (RFC 8305 8). After a failure the next one is tried at once.
    std::chrono::milliseconds attempt_delay{250};

    friend bool operator==(basic_tcp const&, basic_tcp const&) = default;

    /// The port that is connected to.
    std::uint16_t effective_port() const noexcept { return port != 0 ? port : default_port; }

    std::string url() const { return "tcp://" + authority(); }

    /// Resolves the host, each time anew, and connects to whichever of its addresses answers first (RFC 8305); see
    /// `attempt_delay`. Throws `connect_failed` with the errors of all addresses, or an error of name resolution.
    asio::awaitable<stream_type, Executor> open(Executor executor) const {
        auto resolving = resolve_tcp<Executor>(executor, host, effective_port());
        auto const found = co_await std::move(resolving);
        std::vector<asio::ip::tcp::endpoint> endpoints;
        for (auto const& entry : found) endpoints.push_back(entry.endpoint());
        auto racing = connect_race<Executor>::run(
            executor, in_turns(endpoints), attempt_delay,
            [this](auto& socket, auto const& endpoint) { return set_up(socket, endpoint); }, "connecting to " + url());
        co_return stream_type(co_await std::move(racing));
    }

    /// Host and port as in a URL.
    std::string authority() const {
        bool const ipv6 = host.find(':') != std::string::npos;
        return (ipv6 ? '[' + host + ']' : host) + ':' + std::to_string(effective_port());
    }

  private:
    std::error_code set_up(socket_type& socket, asio::ip::tcp::endpoint const& endpoint) const {
        std::error_code error;
        socket.open(endpoint.protocol(), error);
        if (error) return error;
        // The sizes matter to the handshake (window scale), so they are set before connecting.
        if (send_buffer_size > 0) socket.set_option(asio::socket_base::send_buffer_size(send_buffer_size), error);
        if (!error && receive_buffer_size > 0)
            socket.set_option(asio::socket_base::receive_buffer_size(receive_buffer_size), error);
        if (!error && no_delay) socket.set_option(asio::ip::tcp::no_delay(true), error);
        if (!error && keep_alive) socket.set_option(asio::socket_base::keep_alive(true), error);
        return error;
    }
};

using tcp = basic_tcp<>;

}  // namespace runnel
