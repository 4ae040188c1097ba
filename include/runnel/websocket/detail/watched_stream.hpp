#pragma once

#include <runnel/transport/stream.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace runnel::websocket::detail {

/// A stream that counts what is read, so that a layer above it can be asked for signs of life.
///
/// While a coroutine is suspended, others may write the counters, each in one step: `*heard_` a read that has ended,
/// which has a share in it, as this may have gone; `*said_` a write when it is called. Who else has them only reads.
template <runnel::stream Next>
class watched_stream {
  public:
    using executor_type = typename Next::executor_type;
    static constexpr std::size_t headroom = Next::headroom;

    /// Adds the bytes that come to `heard`, and those that are to be written to `said`.
    watched_stream(Next next, std::shared_ptr<std::uint64_t> heard, std::shared_ptr<std::uint64_t> said)
        : next_(std::move(next)), heard_(std::move(heard)), said_(std::move(said)) {}

    executor_type get_executor() { return next_.get_executor(); }
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        return count(heard_, next_.read_some(into));
    }
    asio::awaitable<void, executor_type> write(send_buffer& out) {
        *said_ += out.size();
        return next_.write(out);
    }
    asio::awaitable<void, executor_type> shutdown() { return next_.shutdown(); }
    std::size_t backlog() { return backlog_of(next_); }

  private:
    static asio::awaitable<std::size_t, executor_type> count(std::shared_ptr<std::uint64_t> heard,
                                                             asio::awaitable<std::size_t, executor_type> reading) {
        std::size_t const n = co_await std::move(reading);
        *heard += n;
        co_return n;
    }

    Next next_;
    std::shared_ptr<std::uint64_t> heard_;
    std::shared_ptr<std::uint64_t> said_;
};

}  // namespace runnel::websocket::detail
