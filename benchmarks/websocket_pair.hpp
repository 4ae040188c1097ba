#pragma once

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/websocket.hpp>
#include <cerrno>
#include <exception>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <utility>

// What the benchmarks of WebSockets beside Boost.Beast have in common.

namespace bench {

/// Two connected sockets on loopback.
struct socket_pair {
    int own = -1, peers = -1;

    socket_pair() {
        int const listener = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof(address);
        auto* const a = reinterpret_cast<sockaddr*>(&address);
        own = ::socket(AF_INET, SOCK_STREAM, 0);
        bool const connected = ::bind(listener, a, size) == 0 && ::listen(listener, 1) == 0 &&
                               ::getsockname(listener, a, &size) == 0 && ::connect(own, a, size) == 0;
        peers = connected ? ::accept(listener, nullptr, nullptr) : -1;
        ::close(listener);
        if (peers < 0) throw std::system_error(errno, std::generic_category(), "loopback");
        int const on = 1;
        for (int const s : {own, peers}) ::setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
};

using executor = asio::io_context::executor_type;
using socket_type = asio::basic_stream_socket<asio::ip::tcp, executor>;
template <class T>
using task = asio::awaitable<T, executor>;

inline void rethrow(std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
}

inline void run(asio::io_context& io, task<void> coroutine) {
    asio::co_spawn(io, std::move(coroutine), rethrow);
    io.run();
}

using beast_executor = boost::asio::io_context::executor_type;
using beast_stream =
    boost::beast::websocket::stream<boost::asio::basic_stream_socket<boost::asio::ip::tcp, beast_executor>>;
using beast_task = boost::asio::awaitable<void, beast_executor>;
inline constexpr boost::asio::use_awaitable_t<beast_executor> beast_awaits;

/// Boost.Beast's WebSocket over a connected socket.
inline beast_stream beast_over(boost::asio::io_context& io, int fd) {
    return beast_stream(
        boost::asio::basic_stream_socket<boost::asio::ip::tcp, beast_executor>(io, boost::asio::ip::tcp::v4(), fd));
}

}  // namespace bench
