#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/coro/race.hpp>

#include RUNNEL_ASIO(basic_socket_acceptor.hpp)
#include RUNNEL_ASIO(error.hpp)
#include RUNNEL_ASIO_IP(tcp.hpp)
#include RUNNEL_ASIO(redirect_error.hpp)
#include RUNNEL_ASIO(use_awaitable.hpp)

#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

namespace runnel::testing::detail {

/// A socket that listens on 127.0.0.1, with SO_REUSEADDR. Throws `std::system_error`.
template <class Executor>
asio::basic_socket_acceptor<asio::ip::tcp, Executor> listening(Executor const& executor, std::uint16_t port) {
    asio::basic_socket_acceptor<asio::ip::tcp, Executor> acceptor(executor);
    asio_error_code error;
    acceptor.open(asio::ip::tcp::v4(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind({asio::ip::address_v4::loopback(), port}, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) throw std::system_error(error, "listening on port " + std::to_string(port));
    return acceptor;
}

/// Accepts connections, and calls `on_connection(socket)` for each, until it is cancelled. `is_stopped()`: whether it
/// has been, as a cancellation that comes with a connection, or before the beginning, would go unnoticed.
template <class Executor, class Stopped, class OnConnection>
asio::awaitable<void, Executor> accept_loop(asio::basic_socket_acceptor<asio::ip::tcp, Executor> acceptor,
                                            Stopped is_stopped, OnConnection on_connection) {
    while (!is_stopped()) {
        asio::basic_stream_socket<asio::ip::tcp, Executor> socket(acceptor.get_executor());
        asio_error_code error;
        co_await acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable_t<Executor>{}, error));
        if (error == asio::error::operation_aborted || is_stopped()) co_return;
        if (!error) {
            on_connection(std::move(socket));
            continue;
        }
        // No file descriptors left, perhaps.
        auto sleeping = sleep_for<Executor>(acceptor.get_executor(), std::chrono::milliseconds(20));
        co_await std::move(sleeping);
    }
}

}  // namespace runnel::testing::detail
