#pragma once

#include <concepts>
#include <coroutine>
#include <functional>
#include <type_traits>
#include <utility>

namespace runnel {

/// Whether a call of `F` with `Args` returns a coroutine: a type that can be the result of one.
template <class F, class... Args>
concept returns_coroutine =
    requires { typename std::coroutine_traits<std::invoke_result_t<F&, Args...>>::promise_type; };

/// A function of the user's that the library calls with `Args`, or none: a `std::function`, which coroutines do not
/// compile as. They begin when they are awaited, and nobody would await what a callback returns.
template <class... Args>
class callback : public std::function<void(Args...)> {
    using base = std::function<void(Args...)>;

  public:
    callback() noexcept = default;
    template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, callback> && std::constructible_from<base, F>)
    callback(F&& f) : base(std::forward<F>(f)) {
        static_assert(
            !returns_coroutine<std::decay_t<F>, Args...>,
            "a handler is a plain function: nobody awaits the coroutine that this one returns; begin it in the "
            "handler by asio::co_spawn, with copies of what it needs");
    }

    /// The function itself, for whoever keeps it as that.
    base&& plain() && noexcept { return std::move(*this); }
};

}  // namespace runnel
