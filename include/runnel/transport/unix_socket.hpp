#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/connect_progress.hpp>

#include RUNNEL_ASIO_LOCAL(stream_protocol.hpp)
#include RUNNEL_ASIO(redirect_error.hpp)
#include RUNNEL_ASIO(use_awaitable.hpp)

#include <string>
#include <string_view>
#include <system_error>
#include <utility>

/// Whether there is a `unix_socket` at all.
#if defined(ASIO_HAS_LOCAL_SOCKETS) || defined(BOOST_ASIO_HAS_LOCAL_SOCKETS)
#define RUNNEL_HAS_LOCAL_SOCKETS 1
#else
#define RUNNEL_HAS_LOCAL_SOCKETS 0
#endif

#if RUNNEL_HAS_LOCAL_SOCKETS

namespace runnel {

/// A Unix domain socket (where Asio has them, which may not be so on Windows): a server on this machine, reached by a
/// path, without encryption. Who may connect is a matter of the file's permissions.
///
///     runnel::mqtt::session<runnel::unix_socket> session(executor, {.path = "/run/mosquitto/mqtt.sock"}, options);
template <class Executor = asio::any_io_executor>
struct basic_unix_socket {
    using executor_type = Executor;
    using socket_type = asio::basic_stream_socket<asio::local::stream_protocol, Executor>;
    using stream_type = asio_stream<socket_type>;

    static constexpr bool secure = false;

    /// Where the socket is: 1 to 107 bytes. One that begins with '@' is a name in Linux's abstract namespace, without
    /// '@'.
    std::string path{};

    friend bool operator==(basic_unix_socket const&, basic_unix_socket const&) = default;

    /// "unix:///run/broker.sock", "unix://@name".
    std::string url() const { return "unix://" + path; }

    /// Connects. Throws `std::system_error`, whose text names the path: `asio::error::name_too_long` if it is.
    asio::awaitable<stream_type, Executor> open(Executor executor, connect_progress* progress = nullptr) const {
        auto const doing = "connecting to " + url();
        if (progress != nullptr) progress->at(connect_step::connect, doing);
        socket_type socket(std::move(executor));
        asio_error_code error;
        auto const endpoint = endpoint_of(path, error);
        if (!error) {
            asio::use_awaitable_t<Executor> const token;
            auto connecting = socket.async_connect(endpoint, asio::redirect_error(token, error));
            co_await std::move(connecting);
        }
        if (error) throw std::system_error(error, doing);
        co_return stream_type(std::move(socket));
    }

  private:
    RUNNEL_COLD static asio::local::stream_protocol::endpoint endpoint_of(std::string name, asio_error_code& error) {
        if (name.empty()) error = make_error_code(asio::error::invalid_argument);
        if (name.size() > longest) error = make_error_code(asio::error::name_too_long);
        if (error) return {};
        if (name.starts_with('@')) name[0] = '\0';
        return {name};
    }

    static constexpr std::size_t longest = 107;  // and a zero: what sockaddr_un has room for
};

/// The usual one, with `asio::any_io_executor`.
using unix_socket = basic_unix_socket<>;

}  // namespace runnel

#endif
