#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/direct_read.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/std_errors.hpp>
#include <runnel/coro/stream_state.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO(basic_stream_socket.hpp)
#include RUNNEL_ASIO(buffer.hpp)
#include RUNNEL_ASIO(cancellation_type.hpp)
#include RUNNEL_ASIO(error.hpp)
#include RUNNEL_ASIO(post.hpp)
#include RUNNEL_ASIO(redirect_error.hpp)
#include RUNNEL_ASIO(socket_base.hpp)
#include RUNNEL_ASIO(use_awaitable.hpp)

#include <chrono>
#include <cstddef>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/ioctl.h>
#endif

namespace runnel {

namespace detail {
// Not a type of the user's that is derived from one: writing may be what it changes.
template <class>
inline constexpr bool is_socket = false;
template <class Protocol, class Executor>
inline constexpr bool is_socket<asio::basic_stream_socket<Protocol, Executor>> = true;
}  // namespace detail

/// Any stream of Asio's as a `runnel::stream`: a TCP or local socket, a serial port, an `asio::ssl::stream`, or a type
/// of the user's that models AsyncReadStream and AsyncWriteStream. It must be connected already.
///
/// A stream that is destroyed with operations under way closes what it wraps by `lowest_layer().close()` or `close()`,
/// and keeps it until they have ended. A type that has neither is destroyed at once, with its operations under way. An
/// `asio::ssl::stream` may still use a reader's buffer after that, until the operation has ended.
///
/// A read under way has nothing but `into`, a write nothing but `out`: while a coroutine is suspended, here one that
/// reads or writes, nobody writes what it uses, but the destructor, which lets go of `next`. `backlog` and `next_layer`
/// may be used meanwhile, `shutdown` during a read.
///
///     runnel::asio_stream stream(std::move(connected_socket));
template <class Next>
class asio_stream {
  public:
    using next_layer_type = Next;
    using executor_type = typename Next::executor_type;

    /// Nothing is put in front of what is written.
    static constexpr std::size_t headroom = 0;

    explicit asio_stream(Next next) : state_(new state(std::move(next))) {}

    executor_type get_executor() { return state_->next->get_executor(); }

    /// The wrapped stream, for its options and addresses.
    Next& next_layer() noexcept { return *state_->next; }
    Next const& next_layer() const noexcept { return *state_->next; }

    /// Reads at least one byte into `into`, which is not empty; returns how many. Throws `std::system_error`, with
    /// `asio::error::eof` once the peer has ended the flow.
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        asio::use_awaitable_t<executor_type> token;
        return RUNNEL_STD_ERRORS(
            asio::async_initiate<asio::use_awaitable_t<executor_type>, void(asio_error_code, std::size_t)>(
                [s = state_.share(), into](auto&& handler) {
                    read_operation<std::decay_t<decltype(handler)>> reading{{std::forward<decltype(handler)>(handler)},
                                                                            *s};
                    if constexpr (!is_closable)
                        if (!s->next) return reading.post();
                    s->next->async_read_some(into, std::move(reading));
                },
                token));
    }

    /// The same, where it matters how much memory it takes to wait for something to read: see `direct_read`.
    auto read_directly(asio::mutable_buffer into, read_outcome& outcome) {
        outcome.into = into;
        return direct_read<executor_type>(*state_, outcome);
    }

    /// Completes when the operating system has taken all bytes of `out`, which is then empty.
    asio::awaitable<void, executor_type> write(send_buffer& out) {
        if (out.empty()) return nothing();
        asio::use_awaitable_t<executor_type> token;
        return RUNNEL_STD_ERRORS(asio::async_initiate<asio::use_awaitable_t<executor_type>, void(asio_error_code)>(
            [s = state_.share(), &out](auto&& handler) {
                write_operation<std::decay_t<decltype(handler)>> writing{
                    {std::forward<decltype(handler)>(handler)}, *s, out};
                if constexpr (!is_closable)
                    if (!s->next) return writing.post();
                s->is_abandoned() ? writing.start({}) : writing.start({out.data(), out.size()});
            },
            token));
    }

    /// Writes what a socket takes at once: true if that was all of `out`, which is then empty. The rest is for `write`.
    /// Spares the executor a turn, as that looks for I/O first. Throws as `write` does. Of a stream that is no socket
    /// of Asio's nothing is written. The socket does not block from then on, for its user's own calls either.
    bool write_directly(send_buffer& out) {
        if constexpr (detail::is_socket<Next>) {
            auto& socket = *state_->next;
            asio_error_code error;
            if (!socket.non_blocking()) socket.non_blocking(true, error);
            if (!error) out.consume(socket.write_some(asio::const_buffer(out.data(), out.size()), error));
            bool const may_try_again = error == asio::error::would_block || error == asio::error::try_again ||
                                       error == asio::error::interrupted;
            if (error && !may_try_again) throw std::system_error(error);
        }
        return out.empty();
    }

    /// Bytes that have been written and have not reached the other end yet, as far as the operating system tells: of a
    /// socket on Linux; else 0.
    std::size_t backlog() noexcept {
#if defined(__linux__)
        if constexpr (requires(Next& n, unsent& u, asio_error_code& e) { n.io_control(u, e); }) {
            unsent query;
            asio_error_code error;
            state_->next->io_control(query, error);
            if (!error && query.bytes > 0) return static_cast<std::size_t>(query.bytes);
        }
#endif
        return 0;
    }

    /// Ends the flow towards the peer: a socket's sending half is shut down, an `asio::ssl::stream` exchanges
    /// close_notify for at most `shutdown_limit`, any other stream is left as it is. Throws nothing if the peer has
    /// gone already.
    RUNNEL_COLD asio::awaitable<void, executor_type> shutdown() { return shutdown(state_.share()); }

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

    static constexpr bool is_closable =
        requires(Next& n, asio_error_code& e) { n.lowest_layer().close(e); } || requires(Next& n) { n.close(); };

    // What is wrapped belongs to the operations, too, until they have ended.
    struct state : stream_state {
        explicit state(Next n) : next(std::move(n)) {}

        RUNNEL_COLD void abandon() noexcept {
            if constexpr (requires(asio_error_code& e) { next->lowest_layer().close(e); }) {
                auto& lowest = next->lowest_layer();
                asio_error_code ignored;
                // As a socket's own destructor does it, so that no option of the user's makes it wait.
                if constexpr (requires { typename std::remove_reference_t<decltype(lowest)>::protocol_type; })
                    lowest.set_option(asio::socket_base::linger(false, 0), ignored);
                lowest.close(ignored);
            } else if constexpr (is_closable) {
                next->close();
            } else {
                next.reset();
            }
        }

        std::optional<Next> next;
    };

    // Is what the handler is, to Asio.
    template <class Handler>
    struct operation {
        using executor_type = typename Handler::executor_type;
        using cancellation_slot_type = typename Handler::cancellation_slot_type;
        executor_type get_executor() const noexcept { return handler.get_executor(); }
        cancellation_slot_type get_cancellation_slot() const noexcept { return handler.get_cancellation_slot(); }

        Handler handler;
    };

    // The coroutine that waits for the handler has a share in the state.
    template <class Handler>
    struct read_operation : operation<Handler> {
        void operator()(asio_error_code error, std::size_t n) {
            if (of.is_abandoned()) [[unlikely]]
                this->handler(make_error_code(asio::error::operation_aborted), 0);
            else
                this->handler(error, n);
        }
        void post() {
            auto const executor = this->get_executor();
            asio::post(executor, [h = std::move(*this)]() mutable { h({}, 0); });
        }

        state& of;
    };

    // Writes until nothing is left, then calls `handler`. Not a coroutine: it would cost a frame for each write.
    template <class Handler>
    struct write_operation : operation<Handler> {
        void start(asio::const_buffer part) { of.next->async_write_some(part, std::move(*this)); }

        void operator()(asio_error_code error, std::size_t n) {
            if (of.is_abandoned()) [[unlikely]]
                return this->handler(make_error_code(asio::error::operation_aborted));
            out.consume(n);
            // A cancellation between two parts has found nothing to cancel.
            if (!error && !out.empty() &&
                this->handler.get_cancellation_state().cancelled() != asio::cancellation_type::none)
                error = asio::error::operation_aborted;
            if (error || out.empty())
                this->handler(error);
            else
                start({out.data(), out.size()});
        }
        void post() {
            auto const executor = this->get_executor();
            asio::post(executor, [h = std::move(*this)]() mutable { h({}, 0); });
        }

        state& of;
        send_buffer& out;
    };

    RUNNEL_COLD static asio::awaitable<void, executor_type> nothing() { co_return; }

    RUNNEL_COLD static asio::awaitable<void, executor_type> shutdown(state_share<state> s) {
        s->check();
        if constexpr (requires(Next& n, asio_error_code& e) { n.shutdown(asio::socket_base::shutdown_send, e); }) {
            asio_error_code ignored;
            s->next->shutdown(asio::socket_base::shutdown_send, ignored);
        } else if constexpr (requires(Next& n) { n.async_shutdown(asio::use_awaitable_t<executor_type>{}); }) {
            wait_list<executor_type> waiters(s->next->get_executor());
            auto closing = close_politely(*s->next);
            auto sleeping = sleep_for<executor_type>(waiters.get_executor(), shutdown_limit);
            co_await race(waiters, std::move(closing), std::move(sleeping));
            s->check();
        }
        co_return;
    }

    static asio::awaitable<void, executor_type> close_politely(Next& next) {
        asio_error_code ignored;
        co_await next.async_shutdown(asio::redirect_error(asio::use_awaitable_t<executor_type>{}, ignored));
    }

    state_owner<state> state_;
};

}  // namespace runnel
