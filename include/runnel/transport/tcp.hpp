#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/connect_failed.hpp>
#include <runnel/transport/detail/connect_race.hpp>
#include <runnel/transport/socket_setup.hpp>

#include RUNNEL_ASIO_IP(tcp.hpp)

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace runnel {

/// TCP to a host: a transport without encryption.
template <class Executor = asio::any_io_executor>
struct basic_tcp {
    using executor_type = Executor;
    using socket_type = asio::basic_stream_socket<asio::ip::tcp, Executor>;
    using stream_type = asio_stream<socket_type>;

    static constexpr bool secure = false;
    static constexpr std::uint16_t default_port = 1883;

    /// Name or address (IPv6 without brackets) of the host.
    std::string host{};
    /// 0 stands for `default_port`, MQTT's.
    std::uint16_t port = 0;
    /// Sends small packets at once (TCP_NODELAY). The layers above gather what belongs together.
    bool no_delay = true;
    /// Lets the operating system probe an idle connection (SO_KEEPALIVE). MQTT's own keep alive finds a dead peer
    /// sooner.
    bool keep_alive = false;
    /// Bytes of the operating system's buffers, which may make more or less of them; 0 leaves them to it.
    int send_buffer_size = 0;
    int receive_buffer_size = 0;
    /// How long an address may leave the attempt to connect unanswered before the next one is tried beside it; at
    /// least 10 ms are good manners (RFC 8305 8), and 0 ms or more is possible. After a failure the next one is tried
    /// at once. In a session it is less where the host has so many addresses that not all would have their turn in half
    /// of `connect_timeout`; addresses that led to nothing before (no answer to the handshake above, say) come last,
    /// and wait four times as long.
    std::chrono::milliseconds attempt_delay{250};
    /// A local address or interface to connect from, the class of packets and others: `socket_options`.
    socket_setup socket = {};

    friend bool operator==(basic_tcp const&, basic_tcp const&) = default;

    /// Throws `std::out_of_range`, with the range in its text, if the options are not possible.
    RUNNEL_COLD friend void check(basic_tcp const& o) {
        if (o.send_buffer_size < 0 || o.receive_buffer_size < 0 || o.attempt_delay.count() < 0)
            throw std::out_of_range("send_buffer_size, receive_buffer_size and attempt_delay of tcp must be 0 or more");
    }

    /// The port that is connected to.
    std::uint16_t effective_port() const noexcept { return port != 0 ? port : default_port; }

    RUNNEL_COLD std::string url() const { return "tcp://" + authority_of(host, effective_port()); }

    /// Resolves the host, each time anew, and connects to whichever of its addresses answers first (RFC 8305); see
    /// `attempt_delay`. Throws `connect_failed` with the errors of all addresses, an error of name resolution or of
    /// `socket`; and `std::out_of_range` if an option is not possible.
    RUNNEL_COLD asio::awaitable<stream_type, Executor> open(Executor executor,
                                                            connect_progress* progress = nullptr) const {
        check(*this);
        return detail::connect_race<Executor>::template run<stream_type>(
            std::move(executor), {host, effective_port()},
            std::min<std::chrono::milliseconds>(attempt_delay, longest_delay),
            [this](auto& opened, auto const& endpoint) { return set_up(opened, endpoint); }, "connecting to " + url(),
            progress);
    }

  private:
    static constexpr std::chrono::hours longest_delay{1};  // so that times do not overflow

    RUNNEL_COLD std::error_code set_up(socket_type& opened, asio::ip::tcp::endpoint const& endpoint) const {
        asio_error_code error;
        opened.open(endpoint.protocol(), error);
        if (error) return error;
        // The sizes matter to the handshake (window scale), so they are set before connecting.
        if (send_buffer_size > 0) opened.set_option(asio::socket_base::send_buffer_size(send_buffer_size), error);
        if (!error && receive_buffer_size > 0)
            opened.set_option(asio::socket_base::receive_buffer_size(receive_buffer_size), error);
        if (!error && no_delay) opened.set_option(asio::ip::tcp::no_delay(true), error);
        if (!error && keep_alive) opened.set_option(asio::socket_base::keep_alive(true), error);
        return error ? std::error_code(error) : socket.apply(opened.native_handle(), endpoint.address().is_v6());
    }
};

/// The usual one, with `asio::any_io_executor`.
using tcp = basic_tcp<>;

}  // namespace runnel
