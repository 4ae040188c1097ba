#pragma once

#include <runnel/coro/asio.hpp>
#include <runnel/coro/detail/asio_thread.hpp>
#include <runnel/coro/stream_state.hpp>

#include RUNNEL_ASIO(buffer.hpp)
#include RUNNEL_ASIO(error.hpp)

#include <cstddef>
#include <system_error>
#include <utility>

namespace runnel {

/// Where a read goes to, and how it has ended.
struct read_outcome {
    std::error_code error{};
    std::size_t size = 0;
    asio::mutable_buffer into{};
};

/// `co_await direct_read(state, outcome)` reads into `outcome.into` from a stream of Asio's as `async_read_some` does
/// with `use_awaitable`, but without a coroutine frame of its own, and without throwing: a session that waits for
/// something to read is to be small. Whoever has been cancelled must not begin to read. `State` is that of an
/// `asio_stream`.
///
/// While a coroutine is suspended, here the one that reads, `outcome` is the handler's, which writes it once, just
/// before the coroutine goes on. It is in the frame of who waits, or lives as long.
template <class Executor, class State>
auto direct_read(State& state, read_outcome& outcome) {
    // Has the executor and the cancellation slot of the coroutine.
    class handler : public detail::suspended<Executor> {
      public:
        using base = detail::suspended<Executor>;
        handler(typename base::source s, State& of, read_outcome& to) noexcept
            : base(std::move(s)), state_(&of), outcome_(to) {}

        void operator()(std::error_code error, std::size_t size) {
            outcome_.error = error;
            outcome_.size = size;
            if (state_->is_abandoned()) [[unlikely]] {
                outcome_.error = asio::error::operation_aborted;
                outcome_.size = 0;
            }
            this->resume();
        }

      private:
        state_share<State> state_;
        read_outcome& outcome_;
    };
    return detail::suspend<Executor>([&state, &outcome](typename detail::suspended<Executor>::source s) {
        state.next->async_read_some(outcome.into, handler(std::move(s), state, outcome));
    });
}

}  // namespace runnel
