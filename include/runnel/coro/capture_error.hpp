#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/coro/std_errors.hpp>

#include RUNNEL_ASIO(awaitable.hpp)

#include <concepts>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel {

/// What `capture_error` returns for an operation that returns a `T`: a `T` where there can be an empty one, else a
/// `std::optional<T>`.
template <class T>
using captured = std::conditional_t<std::is_void_v<T> || std::default_initializable<T>, T, std::optional<T>>;

/// Any operation of runnel, or other awaitable, without the exception: `co_await capture_error(session.drained(),
/// error)`.
///
/// Completes when `operation` does. If that succeeds, `error` is cleared and the result returned; if it throws a
/// `std::system_error`, `error` is its code (`asio::error::operation_aborted` after cancellation), and the result is
/// empty: see `captured`. The text of the exception is lost. Any other exception passes.
///
/// Cancelling this cancels `operation`. A coroutine that has been cancelled before it awaits this gets Asio's exception
/// all the same, unless it has said `co_await asio::this_coro::throw_if_cancelled(false)`. `error` must outlive the
/// operation; it is first written when that begins.
template <class T, class Executor>
asio::awaitable<captured<T>, Executor> capture_error(asio::awaitable<T, Executor> operation, std::error_code& error) {
    error.clear();
    try {
        if constexpr (std::is_void_v<T>) {
            co_await RUNNEL_STD_ERRORS(std::move(operation));
            co_return;
        } else {
            co_return co_await RUNNEL_STD_ERRORS(std::move(operation));
        }
    } catch (std::system_error const& e) {
        error = e.code();
    }
    if constexpr (!std::is_void_v<T>) co_return captured<T>{};
}

}  // namespace runnel
