#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/transport/socket_setup.hpp>

#include RUNNEL_ASIO(error.hpp)
#include RUNNEL_ASIO_IP(tcp.hpp)
#ifndef _WIN32
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#endif

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace runnel {

/// What a deployment may ask of the sockets of a `tcp` transport, in its member `socket`. Below TLS and WebSocket, too:
///
///     broker.next.socket = runnel::socket_options{.interface_name = "wwan0", .dscp = 46};
///
/// What is out of range is refused with the range in the text (`std::out_of_range`), and what this platform does not
/// have with `std::errc::operation_not_supported` and the option's name (`std::system_error`): when the options are
/// set, which is also when they are checked. An error of the system when a socket is opened has the option's name, too.
struct socket_options {
    /// The address of this machine that connections come from; IPv4 or IPv6 (link-local ones with their scope,
    /// "fe80::1%eth0"). Addresses of the host of the other family are passed over. Empty: the system's choice.
    std::string local_address = {};
    /// The port that connections come from; 0: any. One connection to a server at a time; the system may refuse to
    /// connect again from the same port for as long as it remembers the last one (a minute or so). Connections to
    /// several addresses that are raced share it.
    std::uint16_t local_port = 0;
    /// Sends and receives by this network interface alone, by name, 1 to 15 bytes (SO_BINDTODEVICE; Linux only; older
    /// than 5.7, for the privileged). Empty: by any.
    std::string interface_name = {};
    /// The class of the packets (DSCP, RFC 2474), 0 to 63, as 46 for expedited forwarding (IP_TOS, IPV6_TCLASS).
    /// -1: the system's.
    int dscp = -1;
    /// How long what has been written may stay unacknowledged until the connection is given up (TCP_USER_TIMEOUT, RFC
    /// 5482; Linux only): 0 ms to 2,147,483,647 ms, of which 0 ms leaves it to the system. MQTT's keep alive finds a
    /// dead peer, too; this finds one while much is being written.
    std::chrono::milliseconds user_timeout{0};

    friend bool operator==(socket_options const&, socket_options const&) = default;
};

namespace detail {

/// Whether the platform has what only some have.
#ifdef SO_BINDTODEVICE
inline constexpr bool has_bind_to_device = true;
#else
inline constexpr bool has_bind_to_device = false;
#endif
#ifdef TCP_USER_TIMEOUT
inline constexpr bool has_user_timeout = true;
#else
inline constexpr bool has_user_timeout = false;
#endif
#if defined(IP_TOS) && defined(IPV6_TCLASS) && !defined(_WIN32)
inline constexpr bool has_dscp = true;
#else
inline constexpr bool has_dscp = false;  // Windows ignores IP_TOS
#endif

/// Throws if the options are not possible; see `socket_options`.
RUNNEL_COLD inline void check_possible(socket_options const& o) {
    auto const needs = [](bool there, char const* option) {
        if (!there)
            throw std::system_error(std::make_error_code(std::errc::operation_not_supported),
                                    std::string(option) + " of socket_options, on this platform");
    };
    asio_error_code no_address;
    if (!o.local_address.empty()) asio::ip::make_address(o.local_address, no_address);
    bool const has_nul = o.local_address.find('\0') != std::string::npos;
    if (no_address || has_nul)
        throw std::out_of_range("local_address of socket_options must be an IP address, not '" +
                                printable(o.local_address) + "'");
    if (o.interface_name.size() > 15 || o.interface_name.find('\0') != std::string::npos)
        throw std::out_of_range("interface_name of socket_options has 1 to 15 bytes, no zeros");
    if (o.dscp < -1 || o.dscp > 63) throw std::out_of_range("dscp of socket_options must be 0 to 63, or -1 for none");
    if (o.user_timeout.count() < 0 || o.user_timeout.count() > (std::numeric_limits<int>::max)())
        throw std::out_of_range("user_timeout of socket_options must be 0 ms to 2147483647 ms");
    if (!o.interface_name.empty()) needs(has_bind_to_device, "interface_name");
    if (o.dscp >= 0) needs(has_dscp, "dscp");
    if (o.user_timeout.count() > 0) needs(has_user_timeout, "user_timeout");
}

/// Sets the options of a socket that is open and not connected yet. Throws the system's error with the option's name.
class socket_option_setter {
  public:
    explicit socket_option_setter(socket_setup::handle socket) noexcept : socket_(socket) {}

    /// An option whose value is a number or a text.
    void set(int level, int name, void const* value, std::size_t size, char const* option) const {
        if (!try_to_set(level, name, value, size)) fail(last_error(), option);
    }
    bool try_to_set(int level, int name, void const* value, std::size_t size) const noexcept {
        return ::setsockopt(socket_, level, name, static_cast<char const*>(value), static_cast<length>(size)) == 0;
    }

    /// What the last call has failed with. To be asked before anything else is done.
    static int last_error() noexcept {
#ifdef _WIN32
        return ::WSAGetLastError();
#else
        return errno;
#endif
    }
    [[noreturn]] static void fail(int error, std::string const& option) {
        throw std::system_error(error, std::system_category(), option);
    }

  private:
#ifdef _WIN32
    using length = int;
#else
    using length = socklen_t;
#endif
    socket_setup::handle socket_;
};

class socket_options_setup final : public socket_setup::base {
  public:
    explicit socket_options_setup(socket_options o) : options_(std::move(o)) { check_possible(options_); }

    std::unique_ptr<base> clone() const override { return std::make_unique<socket_options_setup>(*this); }
    bool equals(base const& other) const noexcept override {
        return options_ == static_cast<socket_options_setup const&>(other).options_;
    }

    std::error_code apply(socket_setup::handle socket, bool is_v6) const override {
        auto const address =
            options_.local_address.empty() ? asio::ip::address() : asio::ip::make_address(options_.local_address);
        if (!options_.local_address.empty() && address.is_v6() != is_v6)
            return asio::error::address_family_not_supported;
        [[maybe_unused]] socket_option_setter const setter(socket);
#ifdef SO_BINDTODEVICE
        if (!options_.interface_name.empty())
            setter.set(SOL_SOCKET, SO_BINDTODEVICE, options_.interface_name.c_str(), options_.interface_name.size() + 1,
                       ("interface_name '" + options_.interface_name + "'").c_str());
#endif
#if defined(IP_TOS) && defined(IPV6_TCLASS)
        int const traffic_class = options_.dscp << 2;  // the two bits below are for congestion
        if (options_.dscp >= 0 && is_v6) {
            setter.set(IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof(traffic_class), "dscp");
            // For ::ffff:a.b.c.d, which is reached by IPv4. Other systems than Linux refuse it.
            setter.try_to_set(IPPROTO_IP, IP_TOS, &traffic_class, sizeof(traffic_class));
        } else if (options_.dscp >= 0) {
            setter.set(IPPROTO_IP, IP_TOS, &traffic_class, sizeof(traffic_class), "dscp");
        }
#endif
#ifdef TCP_USER_TIMEOUT
        auto const timeout = static_cast<unsigned>(options_.user_timeout.count());
        if (timeout > 0) setter.set(IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout), "user_timeout");
#endif
        if (!options_.local_address.empty() || options_.local_port != 0) bind(socket, address, is_v6);
        return {};
    }

  private:
    void bind(socket_setup::handle socket, asio::ip::address address, bool is_v6) const {
        socket_option_setter const setter(socket);
        int const on = 1;
        // So that the port can be used again while the system remembers a connection of before.
        if (options_.local_port != 0) setter.set(SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on), "local_port");
        if (options_.local_address.empty() && is_v6) address = asio::ip::address_v6();
        asio::ip::tcp::endpoint const local(address, options_.local_port);
        if (::bind(socket, local.data(), static_cast<int_length>(local.size())) == 0) return;
        int const error = socket_option_setter::last_error();
        socket_option_setter::fail(error, "local_address '" + local.address().to_string() + "', local_port " +
                                              std::to_string(options_.local_port));
    }
#ifdef _WIN32
    using int_length = int;
#else
    using int_length = socklen_t;
#endif

    socket_options options_;
};

}  // namespace detail

inline socket_setup::socket_setup(socket_options const& options)
    : setup_(std::make_unique<detail::socket_options_setup>(options)) {}

}  // namespace runnel
