#pragma once

#include <asio/awaitable.hpp>

#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel {

/// Runs `operation` and gives the code of a `std::system_error` that it throws to `error`, with a default result;
/// clears `error` if it succeeds. Other exceptions pass. `error` must outlive the operation.
template <class T, class Executor>
asio::awaitable<T, Executor> quietly(asio::awaitable<T, Executor> operation, std::error_code& error) {
    error.clear();
    try {
        co_return co_await std::move(operation);
    } catch (std::system_error const& e) {
        error = e.code();
    }
    if constexpr (!std::is_void_v<T>) co_return T{};
}

}  // namespace runnel
