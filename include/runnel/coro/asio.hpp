#pragma once

#include <system_error>

// Which Asio: the standalone one, or, with RUNNEL_USE_BOOST_ASIO defined, Boost's (1.81 or newer), the same in all
// files of a program. This is the only header that knows. Others include Asio's by `#include
// RUNNEL_ASIO(awaitable.hpp)`, and within runnel's namespace `asio` is the one that was chosen.

#ifdef RUNNEL_USE_BOOST_ASIO

#define RUNNEL_ASIO(header) <boost/asio/header>
#define RUNNEL_ASIO_EXECUTION(header) <boost/asio/execution/header>
#define RUNNEL_ASIO_IP(header) <boost/asio/ip/header>
#define RUNNEL_ASIO_LOCAL(header) <boost/asio/local/header>
#include <boost/asio/error.hpp>
#include <boost/asio/version.hpp>
#define RUNNEL_ASIO_VERSION BOOST_ASIO_VERSION

namespace runnel {

namespace asio = ::boost::asio;

/// What Asio's own functions and completion handlers take. It becomes a `std::error_code` by itself, not the other way.
using asio_error_code = ::boost::system::error_code;

}  // namespace runnel

// So that Boost's errors can be compared with runnel's `std::error_code`s, thrown with `std::system_error`, and so on,
// as those of the standalone Asio can.
template <>
struct std::is_error_code_enum<boost::asio::error::basic_errors> : std::true_type {};
template <>
struct std::is_error_code_enum<boost::asio::error::netdb_errors> : std::true_type {};
template <>
struct std::is_error_code_enum<boost::asio::error::addrinfo_errors> : std::true_type {};
template <>
struct std::is_error_code_enum<boost::asio::error::misc_errors> : std::true_type {};

#else

#define RUNNEL_ASIO(header) <asio/header>
#define RUNNEL_ASIO_EXECUTION(header) <asio/execution/header>
#define RUNNEL_ASIO_IP(header) <asio/ip/header>
#define RUNNEL_ASIO_LOCAL(header) <asio/local/header>
#include <asio/version.hpp>
#define RUNNEL_ASIO_VERSION ASIO_VERSION

namespace asio {}

namespace runnel {

namespace asio = ::asio;

/// What Asio's own functions and completion handlers take.
using asio_error_code = std::error_code;

}  // namespace runnel

#endif
