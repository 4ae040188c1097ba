#pragma once

#include <runnel/transport/stream_state.hpp>

#include <asio/awaitable.hpp>
#include <asio/buffer.hpp>
#include <asio/error.hpp>

#include <cstddef>
#include <system_error>
#include <utility>

namespace runnel {

/// What a read has come to.
struct read_outcome {
    std::error_code error;
    std::size_t size = 0;
};

/// `co_await stream.read_directly(into, outcome)` reads from a stream of Asio's as `async_read_some` does with
/// `use_awaitable`, but without a coroutine frame of its own, and without throwing: a session that waits for something
/// to read is to be small. Whoever has been cancelled must not begin to read. `State` is that of an `asio_stream`.
template <class State>
class direct_read {
  public:
    direct_read(State& state, asio::mutable_buffer into, read_outcome& outcome) noexcept
        : state_(&state), into_(into), outcome_(&outcome) {}

    /// Is called by Asio once the coroutine has been suspended.
    template <class Executor>
    asio::detail::awaitable_thread<Executor>* operator()(asio::detail::awaitable_frame_base<Executor>* frame) const {
        state_->next->async_read_some(into_, handler<Executor>(frame->detach_thread(), *state_, outcome_));
        return nullptr;
    }

  private:
    // Has the executor and the cancellation slot of the coroutine.
    template <class Executor>
    class handler : public asio::detail::awaitable_thread<Executor> {
      public:
        using base = asio::detail::awaitable_thread<Executor>;
        handler(base* suspended, State& state, read_outcome* outcome) noexcept
            : base(std::move(*suspended)), state_(&state), outcome_(outcome) {}

        void operator()(std::error_code error, std::size_t size) {
            *outcome_ = {error, size};
            if (state_->is_abandoned()) [[unlikely]]
                *outcome_ = {asio::error::operation_aborted, 0};
            this->get_cancellation_slot().clear();
            this->launch();
        }

      private:
        state_share<State> state_;
        read_outcome* outcome_;
    };

    State* state_;
    asio::mutable_buffer into_;
    read_outcome* outcome_;
};

}  // namespace runnel
