#pragma once

#include <runnel/transport/direct_read.hpp>
#include <runnel/transport/race.hpp>
#include <runnel/transport/stream.hpp>

#include <asio/cancellation_type.hpp>
#include <asio/error.hpp>
#include <asio/redirect_error.hpp>
#include <asio/socket_base.hpp>
#include <asio/use_awaitable.hpp>

#include <cstddef>
#include <system_error>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/ioctl.h>
#endif

namespace runnel {

/// Any stream of Asio's as a `runnel::stream`: a TCP or local socket, a serial port, an `asio::ssl::stream`, or a type
/// of the user's that models AsyncReadStream and AsyncWriteStream. It must be connected already.
///
///     runnel::asio_stream stream(std::move(connected_socket));
template <class Next>
class asio_stream {
  public:
    using next_layer_type = Next;
    using executor_type = typename Next::executor_type;

    /// Nothing is put in front of what is written.
    static constexpr std::size_t headroom = 0;

    explicit asio_stream(Next next) : next_(std::move(next)) {}

    executor_type get_executor() { return next_.get_executor(); }

    /// The wrapped stream, for its options and addresses.
    Next& next_layer() noexcept { return next_; }
    Next const& next_layer() const noexcept { return next_; }

    /// Reads at least one byte into `into`, which is not empty; returns how many. Throws `std::system_error`, with
    /// `asio::error::eof` once the peer has ended the flow.
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        return next_.async_read_some(into, asio::use_awaitable_t<executor_type>{});
    }

    /// The same, where it matters how much memory it takes to wait for something to read: see `direct_read`.
    direct_read<Next> read_directly(asio::mutable_buffer into, read_outcome& outcome) noexcept {
        return {next_, into, outcome};
    }

    /// Completes when the operating system has taken all bytes of `out`, which is then empty.
    asio::awaitable<void, executor_type> write(send_buffer& out) {
        if (out.empty()) return nothing();
        asio::use_awaitable_t<executor_type> token;
        return asio::async_initiate<asio::use_awaitable_t<executor_type>, void(std::error_code)>(
            [this, &out](auto&& handler) {
                write_operation<std::decay_t<decltype(handler)>>{next_, out, std::forward<decltype(handler)>(handler)}
                    .start();
            },
            token);
    }

    /// Bytes that have been written and have not reached the other end yet, as far as the operating system tells: of a
    /// socket on Linux; else 0.
    std::size_t backlog() noexcept {
#if defined(__linux__)
        if constexpr (requires(unsent& u, std::error_code& e) { next_.io_control(u, e); }) {
            unsent query;
            std::error_code error;
            next_.io_control(query, error);
            if (!error && query.bytes > 0) return static_cast<std::size_t>(query.bytes);
        }
#endif
        return 0;
    }

    /// Ends the flow towards the peer: a socket's sending half is shut down, an `asio::ssl::stream` exchanges
    /// close_notify for at most `shutdown_limit`, any other stream is left as it is. Throws nothing if the peer has
    /// gone already.
    asio::awaitable<void, executor_type> shutdown() {
        if constexpr (requires(std::error_code& e) { next_.shutdown(asio::socket_base::shutdown_send, e); }) {
            std::error_code ignored;
            next_.shutdown(asio::socket_base::shutdown_send, ignored);
        } else if constexpr (requires { next_.async_shutdown(asio::use_awaitable_t<executor_type>{}); }) {
            parking<executor_type> place(next_.get_executor());
            auto closing = close_politely();
            auto sleeping = sleep_for<executor_type>(next_.get_executor(), shutdown_limit);
            co_await race(place, std::move(closing), std::move(sleeping));
        }
        co_return;
    }

    static constexpr std::chrono::seconds shutdown_limit{5};

  private:
#if defined(__linux__)
    // What SIOCOUTQ asks.
    struct unsent {
        int bytes = 0;
        static int name() noexcept { return TIOCOUTQ; }
        void* data() noexcept { return &bytes; }
    };
#endif

    // Writes until nothing is left, then calls `handler`. Not a coroutine: it would cost a frame for each write.
    template <class Handler>
    struct write_operation {
        Next& next;
        send_buffer& out;
        Handler handler;

        using executor_type = typename Handler::executor_type;
        using cancellation_slot_type = typename Handler::cancellation_slot_type;
        executor_type get_executor() const noexcept { return handler.get_executor(); }
        cancellation_slot_type get_cancellation_slot() const noexcept { return handler.get_cancellation_slot(); }

        void start() { next.async_write_some(asio::const_buffer(out.data(), out.size()), std::move(*this)); }

        void operator()(std::error_code error, std::size_t n) {
            out.consume(n);
            // A cancellation between two parts has found nothing to cancel.
            if (!error && !out.empty() && handler.get_cancellation_state().cancelled() != asio::cancellation_type::none)
                error = asio::error::operation_aborted;
            if (error || out.empty())
                handler(error);
            else
                start();
        }
    };

    static asio::awaitable<void, executor_type> nothing() { co_return; }

    asio::awaitable<void, executor_type> close_politely() {
        std::error_code ignored;
        co_await next_.async_shutdown(asio::redirect_error(asio::use_awaitable_t<executor_type>{}, ignored));
    }

    Next next_;
};

}  // namespace runnel
