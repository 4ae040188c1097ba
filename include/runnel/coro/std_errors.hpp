#pragma once

#include <runnel/coro/asio.hpp>

/// `RUNNEL_STD_ERRORS(operation)` is an `asio::awaitable` like `operation` that throws `std::system_error` where
/// Boost's Asio throws its own `boost::system::system_error`. With the standalone Asio it is `operation` itself.
#ifdef RUNNEL_USE_BOOST_ASIO
#define RUNNEL_STD_ERRORS(...) ::runnel::with_std_errors(__VA_ARGS__)

#include RUNNEL_ASIO(awaitable.hpp)

#include <type_traits>
#include <utility>

namespace runnel {

/// See above.
template <class T, class Executor>
asio::awaitable<T, Executor> with_std_errors(asio::awaitable<T, Executor> operation) {
    try {
        if constexpr (std::is_void_v<T>)
            co_await std::move(operation);
        else
            co_return co_await std::move(operation);
    } catch (boost::system::system_error const& e) {
        throw std::system_error(e.code());
    }
}

}  // namespace runnel

#else
#define RUNNEL_STD_ERRORS(...) __VA_ARGS__
#endif
