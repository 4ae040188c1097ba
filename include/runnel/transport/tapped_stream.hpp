#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/stream_state.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(buffer.hpp)

#include <concepts>
#include <cstddef>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel {

/// Whoever looks on at a stream (`tapped_stream`):
///
/// - `sent(bytes)`: they are being handed to the stream below; `received(bytes)`: they have come. Views, for the call.
/// - `failed(error, is_write)`: a read or a write has thrown this.
/// - `closed()`: the stream is being destroyed. Nothing else is told after that.
///
/// None of them throws. Each may destroy the stream.
template <class T>
concept stream_tap = std::move_constructible<T> && requires(T& t, std::string_view bytes, std::error_code error) {
    { t.sent(bytes) } noexcept;
    { t.received(bytes) } noexcept;
    { t.failed(error, true) } noexcept;
    { t.closed() } noexcept;
};

/// A stream at which somebody looks on. It does what the stream below does; a read and a write cost a coroutine each.
template <stream Next, stream_tap Tap>
class tapped_stream {
  public:
    using next_layer_type = Next;
    using executor_type = typename Next::executor_type;
    static constexpr std::size_t headroom = Next::headroom;

    tapped_stream(Next next, Tap tap) : state_(new state(std::move(next), std::move(tap))) {}
    tapped_stream(tapped_stream&& other) noexcept = default;
    tapped_stream& operator=(tapped_stream&& other) noexcept {
        tapped_stream moved(std::move(other));
        std::swap(state_, moved.state_);
        return *this;
    }
    /// Closes the stream below.
    ~tapped_stream() {
        if (state_) state_->tap.closed();
    }

    executor_type get_executor() { return state_->next->get_executor(); }
    Next& next_layer() noexcept { return *state_->next; }

    /// As those of the stream below.
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        return read(state_.share(), into);
    }
    asio::awaitable<void, executor_type> write(send_buffer& out) { return write(state_.share(), out); }
    asio::awaitable<void, executor_type> shutdown() { return state_->next->shutdown(); }
    std::size_t backlog() { return backlog_of(*state_->next); }

  private:
    // A read and a write go on side by side, and both tell `tap`, as does the destructor, each in one step. While a
    // coroutine is suspended, others may write what the tap has, and `next` once, by `abandon`. As the tap may destroy
    // the stream, each coroutine asks for that (`check`, `is_abandoned`) behind each suspension and each call of the
    // tap.
    struct state : stream_state {
        state(Next n, Tap t) : next(std::move(n)), tap(std::move(t)) {}
        void abandon() noexcept { next.reset(); }

        std::optional<Next> next;
        Tap tap;
    };
    using shared = state_share<state>;

    static asio::awaitable<std::size_t, executor_type> read(shared of, asio::mutable_buffer into) {
        state& s = *of;
        s.check();
        try {
            auto reading = s.next->read_some(into);
            std::size_t const n = co_await std::move(reading);
            s.check();
            s.tap.received({static_cast<char const*>(into.data()), n});
            s.check();
            co_return n;
        } catch (std::system_error const& e) {
            if (!s.is_abandoned()) s.tap.failed(e.code(), false);
            throw;
        }
    }

    static asio::awaitable<void, executor_type> write(shared of, send_buffer& out) {
        state& s = *of;
        s.check();
        s.tap.sent(out.view());  // before: the stream below may change the bytes
        s.check();
        try {
            auto writing = s.next->write(out);
            co_await std::move(writing);
            s.check();
        } catch (std::system_error const& e) {
            if (!s.is_abandoned()) s.tap.failed(e.code(), true);
            throw;
        }
    }

    state_owner<state> state_;
};

}  // namespace runnel
