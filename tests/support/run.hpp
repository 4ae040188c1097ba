#pragma once

#include <runnel/coro/with_slot.hpp>

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

namespace test {

using executor = asio::any_io_executor;

/// A coroutine that has been started: its outcome, once there is one, and the means to cancel it. It may be destroyed
/// before the coroutine has ended, as when a test gives up waiting: the coroutine then has what it needs until it ends,
/// or the context does.
template <class T>
class task {
  public:
    /// Starts `coroutine` on `io`; it runs when `io` does.
    task(asio::io_context& io, asio::awaitable<T> coroutine) : io_(io), state_(std::make_shared<state>()) {
        asio::co_spawn(io, keep_value(state_, std::move(coroutine)),
                       asio::bind_cancellation_slot(state_->signal.slot(), [s = state_](std::exception_ptr e) {
                           ++s->ended;
                           s->error = std::move(e);
                       }));
    }
    task(task const&) = delete;
    task& operator=(task const&) = delete;

    bool done() const noexcept { return state_->ended != 0; }
    /// How often it has completed: never more than once.
    int ended() const noexcept { return state_->ended; }

    void cancel() {
        runnel::detail::emit({state_, &state_->signal}, io_.get_executor(), asio::cancellation_type::terminal);
    }

    /// The error it ended with; none if it returned.
    std::error_code error() const {
        if (!done()) throw std::logic_error("the coroutine has not ended");
        try {
            if (state_->error) std::rethrow_exception(state_->error);
        } catch (std::system_error const& e) {
            return e.code();
#ifdef RUNNEL_USE_BOOST_ASIO
        } catch (boost::system::system_error const& e) {  // of a `co_await` in what has been cancelled
            return e.code();
#endif
        }
        return {};
    }

    /// The text of the exception it ended with.
    std::string error_text() const {
        try {
            if (state_->error) std::rethrow_exception(state_->error);
        } catch (std::exception const& e) {
            return e.what();
        }
        return {};
    }

    /// Its value, or rethrows what it threw.
    T get() {
        if (!done()) throw std::logic_error("the coroutine has not ended");
        if (state_->error) std::rethrow_exception(state_->error);
        if constexpr (!std::is_void_v<T>) return std::move(*state_->value);
    }

    /// Runs the context until it has ended, for at most `limit`; then `get()`.
    T run(std::chrono::steady_clock::duration limit = std::chrono::seconds(20)) {
        run_until_done(limit);
        return get();
    }

    /// The same, but returns the error.
    std::error_code run_for_error(std::chrono::steady_clock::duration limit = std::chrono::seconds(20)) {
        run_until_done(limit);
        return error();
    }

  private:
    struct nothing {};
    struct state {
        asio::cancellation_signal signal;
        std::optional<std::conditional_t<std::is_void_v<T>, nothing, T>> value;
        std::exception_ptr error;
        int ended = 0;
    };

    void run_until_done(std::chrono::steady_clock::duration limit) {
        auto const end = std::chrono::steady_clock::now() + limit;
        io_.restart();
        while (!done() && io_.run_one_until(end) != 0) {
        }
    }

    // co_spawn itself would need a T that can be made of nothing.
    static asio::awaitable<void> keep_value(std::shared_ptr<state> s, asio::awaitable<T> coroutine) {
        if constexpr (std::is_void_v<T>)
            co_await std::move(coroutine);
        else
            s->value.emplace(co_await std::move(coroutine));
    }

    asio::io_context& io_;
    std::shared_ptr<state> state_;
};

/// Runs a coroutine to its end and returns its value, or rethrows what it threw.
template <class T>
T run(asio::io_context& io, asio::awaitable<T> coroutine) {
    return task<T>(io, std::move(coroutine)).run();
}

/// Runs a coroutine to its end and returns the error it ended with.
template <class T>
std::error_code error_of(asio::io_context& io, asio::awaitable<T> coroutine) {
    return task<T>(io, std::move(coroutine)).run_for_error();
}

}  // namespace test
