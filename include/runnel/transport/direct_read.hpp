#pragma once

#include <asio/awaitable.hpp>
#include <asio/buffer.hpp>

#include <cstddef>
#include <system_error>
#include <utility>

namespace runnel {

/// What a read has come to.
struct read_outcome {
    std::error_code error;
    std::size_t size = 0;
};

/// `co_await direct_read(socket, into, outcome)` reads from a stream of Asio's as `async_read_some` does with
/// `use_awaitable`, but without a coroutine frame of its own, and without throwing: a session that waits for something
/// to read is to be small. Whoever has been cancelled must not begin to read.
template <class Next>
class direct_read {
  public:
    using executor_type = typename Next::executor_type;

    direct_read(Next& next, asio::mutable_buffer into, read_outcome& outcome) noexcept
        : next_(&next), into_(into), outcome_(&outcome) {}

    /// Is called by Asio once the coroutine has been suspended.
    asio::detail::awaitable_thread<executor_type>* operator()(
        asio::detail::awaitable_frame_base<executor_type>* frame) const {
        next_->async_read_some(into_, handler(frame->detach_thread(), outcome_));
        return nullptr;
    }

  private:
    // Has the executor and the cancellation slot of the coroutine.
    class handler : public asio::detail::awaitable_thread<executor_type> {
      public:
        using base = asio::detail::awaitable_thread<executor_type>;
        handler(base* suspended, read_outcome* outcome) noexcept : base(std::move(*suspended)), outcome_(outcome) {}

        void operator()(std::error_code error, std::size_t size) {
            *outcome_ = {error, size};
            this->get_cancellation_slot().clear();
            this->launch();
        }

      private:
        read_outcome* outcome_;
    };

    Next* next_;
    asio::mutable_buffer into_;
    read_outcome* outcome_;
};

}  // namespace runnel
