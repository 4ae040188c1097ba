#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/coro/async_mutex.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/stream_state.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/tls/detail/engine.hpp>

#include RUNNEL_ASIO(error.hpp)

#include <chrono>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

namespace runnel {

/// TLS over any stream, by OpenSSL, in either role. Nothing can be read or written before `handshake` has completed.
///
/// Throws `std::system_error` with a `transport_errc` (or what the stream below throws). The end of the stream below
/// without the peer's close_notify is `transport_errc::stream_truncated`, so that it is never taken for the end of
/// data.
template <stream Next>
class tls_stream {
  public:
    using next_layer_type = Next;
    using executor_type = typename Next::executor_type;

    /// Encryption writes to a buffer of its own, so nothing is put in front of what is written.
    static constexpr std::size_t headroom = 0;

    /// `server_name`: what a client expects the server to be, a host name or an address. Servers leave it empty.
    tls_stream(Next next, tls_context context, tls_role role, std::string_view server_name = {})
        : state_(new state(std::move(next), std::move(context), role, server_name)) {}

    executor_type get_executor() const { return state_->turn.get_executor(); }
    Next& next_layer() noexcept { return *state_->next; }
    SSL* native_handle() const noexcept { return state_->engine.native_handle(); }

    /// "TLSv1.2" or "TLSv1.3", after the handshake.
    std::string_view protocol_version() const noexcept { return SSL_get_version(native_handle()); }
    /// The cipher suite, by OpenSSL's name, after the handshake.
    std::string_view cipher() const noexcept { return SSL_get_cipher_name(native_handle()); }
    /// The application protocol agreed on, or nothing. Valid as long as the stream.
    std::string_view alpn() const noexcept {
        unsigned char const* name = nullptr;
        unsigned size = 0;
        SSL_get0_alpn_selected(native_handle(), &name, &size);
        return {reinterpret_cast<char const*>(name), size};
    }
    /// Whether this connection resumed a session of an earlier one, after the handshake: no certificates were
    /// exchanged, and what was verified then holds still.
    bool resumed() const noexcept { return state_->engine.resumed(); }
    /// The host name that the client asked for (SNI), in the role of a server; or nothing.
    std::string_view requested_server_name() const noexcept {
        char const* const name = SSL_get_servername(native_handle(), TLSEXT_NAMETYPE_host_name);
        return name != nullptr ? name : std::string_view{};
    }

    /// Agrees on keys with the peer and, as a client or where client certificates are required, checks who it is.
    asio::awaitable<void, executor_type> handshake() { return shake_hands(state_.share()); }

    /// Reads at least one byte into `into`, which is not empty; returns how many.
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        return read(state_.share(), into);
    }

    /// Completes when all bytes have been encrypted and handed to the stream below.
    asio::awaitable<void, executor_type> write(send_buffer& out) { return write(state_.share(), out); }

    /// Bytes under way, encrypted: here and in the stream below.
    std::size_t backlog() noexcept {
        return state_->engine.outgoing.size() + state_->sending.size() + backlog_of(*state_->next);
    }

    /// Sends close_notify and shuts the stream below down. Throws `transport_errc::shutdown_timeout` if that stream
    /// does not take it within `shutdown_limit`. Does not wait for the peer's close_notify.
    asio::awaitable<void, executor_type> shutdown() { return shut_down(state_.share()); }

    static constexpr std::chrono::seconds shutdown_limit{5};

  private:
    using turn_type = async_mutex<executor_type>;

    // Nothing runs at the same time. While a coroutine is suspended, others may write this:
    //
    // | member             | is written by                                                                       |
    // |--------------------|-------------------------------------------------------------------------------------|
    // | `engine`           | all, in one step: no call of it suspends, and each may add to `outgoing`            |
    // | `engine.incoming`  | who has the turn `reading`; its read has the room behind the data                   |
    // | `sending`          | who has the turn `turn`; it is the stream's below until the write there is over     |
    // | `write_unfinished` | the same                                                                            |
    // | `flush_error`      | the reader                                                                          |
    //
    // A reader that does not get `turn` leaves its answers in `outgoing`: who has the turn flushes them. Only if there
    // are many does it wait.
    struct state : stream_state {
        state(Next n, tls_context context, tls_role role, std::string_view server_name)
            : next(std::move(n)),
              engine(std::move(context), role, server_name, Next::headroom),
              sending(Next::headroom),
              reading(next->get_executor()),
              turn(next->get_executor()) {}

        RUNNEL_COLD void abandon() noexcept {
            next.reset();
            reading.close();
            turn.close();
        }

        std::optional<Next> next;
        detail::tls_engine engine;
        send_buffer sending;            // on its way; only for whoever holds the turn
        bool write_unfinished = false;  // a write to `next` has failed, was cancelled, or is under way
        std::error_code flush_error{};  // of a flush by the reader, which had bytes to deliver first
        turn_type reading;              // to read from `next`
        turn_type turn;                 // to write to it
    };
    using shared = state_share<state>;

    static asio::awaitable<void, executor_type> shake_hands(shared of) {
        state& s = *of;
        s.check();
        while (true) {
            auto const progress = s.engine.handshake();
            if (progress == detail::tls_engine::progress::failed) {
                co_await send_alert(s);
                s.engine.failure().raise("TLS handshake");
            }
            if (!s.engine.outgoing.empty()) {
                typename turn_type::holder turn(s.turn);
                if (!turn.try_take()) co_await turn.take();
                co_await flush(s, &turn);
            }
            if (progress == detail::tls_engine::progress::done) co_return;
            typename turn_type::holder reading(s.reading);
            if (!reading.try_take()) co_await reading.take();
            co_await fill(s);
            if (s.engine.failure()) s.engine.failure().raise("TLS handshake");
        }
    }

    static asio::awaitable<std::size_t, executor_type> read(shared of, asio::mutable_buffer into) {
        state& s = *of;
        s.check();
        typename turn_type::holder reading(s.reading);
        if (!reading.try_take()) co_await reading.take();
        while (true) {
            if (s.flush_error) [[unlikely]]
                co_await end_unanswered(s);
            std::size_t const n = s.engine.decrypt(static_cast<char*>(into.data()), into.size());
            // Reading produces output now and then: answers to key updates, alerts.
            if (!s.engine.outgoing.empty()) [[unlikely]]
                co_await send_answers(s, n == 0 && s.engine.has_many_answers());
            if (n != 0) co_return n;
            if (s.engine.closed_by_peer()) throw std::system_error(asio::error::eof);
            if (s.engine.failure()) s.engine.failure().raise("reading from the TLS stream");
            if (s.engine.incoming.empty() && !s.flush_error) co_await fill(s);
        }
    }

    static asio::awaitable<void, executor_type> write(shared of, send_buffer& out) {
        state& s = *of;
        s.check();
        if (out.empty()) co_return;
        typename turn_type::holder turn(s.turn);
        if (!turn.try_take()) co_await turn.take();
        while (!out.empty()) {
            if (s.write_unfinished) throw std::system_error(transport_errc::stream_broken);
            if (!s.engine.encrypt(out)) {
                // The reader may have found the reason.
                auto const& why = s.engine.failure() ? s.engine.failure() : s.engine.write_failure();
                why.raise("writing to the TLS stream");
            }
            co_await flush(s, &turn);
        }
    }

    static asio::awaitable<void, executor_type> shut_down(shared of) {
        state& s = *of;
        s.check();
        wait_list<executor_type> waiters(s.turn.get_executor());
        auto closing = close(s);
        auto limited =
            within<executor_type>(waiters, shutdown_limit, transport_errc::shutdown_timeout, std::move(closing));
        try {
            co_await std::move(limited);
            s.check();
            co_await s.next->shutdown();
        } catch (std::system_error const&) {
            s.check();
            throw;
        }
        s.check();
    }

    static asio::awaitable<void, executor_type> close(state& s) {
        typename turn_type::holder turn(s.turn);
        if (!turn.try_take()) co_await turn.take();
        s.engine.close();
        if (!s.write_unfinished) co_await flush(s, &turn);
    }

    // Reads more encrypted bytes. The caller holds the turn to read.
    static asio::awaitable<void, executor_type> fill(state& s) {
        auto const room = s.engine.incoming.prepare();
        asio::mutable_buffer const into(room.data(), room.size());
        try {
            std::size_t const n = co_await s.next->read_some(into);
            s.engine.incoming.commit(n);
        } catch (std::system_error const& e) {
            s.check();
            if (e.code() != asio::error::eof) throw;
            s.engine.input_ended();
        }
        s.check();
    }

    // Sends the engine's output, also what is added meanwhile. The caller holds the turn to write; if that is a
    // writer's `turn` and it fails, it is given back before the reason is looked for: a reader that needs it may be who
    // finds it. A reader has none, and looks itself.
    static asio::awaitable<void, executor_type> flush(state& s, typename turn_type::holder* turn) {
        std::exception_ptr error;
        while (!s.engine.outgoing.empty() && !error) {
            s.sending.swap(s.engine.outgoing);
            s.write_unfinished = true;
            try {
                co_await s.next->write(s.sending);
                s.write_unfinished = false;
            } catch (std::system_error const& e) {
                s.check();
                if (e.code() == asio::error::operation_aborted) throw;
                error = std::current_exception();
            }
            s.check();
        }
        if (!error) co_return;
        if (turn == nullptr) std::rethrow_exception(error);
        turn->give_back();
        auto looking = look_for_reason(s, true);
        co_await std::move(looking);
        if (s.engine.failure() && s.engine.failure().code != transport_errc::stream_truncated)
            s.engine.failure().raise("writing to the TLS stream");
        std::rethrow_exception(error);
    }

    // A peer that refuses this side says why, in an alert, and closes. So a write can fail although the reason has come
    // and only has not been read yet. `needs_turn`: the caller is not the reader.
    static asio::awaitable<void, executor_type> look_for_reason(state& s, bool needs_turn) {
        wait_list<executor_type> waiters(s.turn.get_executor());
        auto reading = read_to_alert(s, needs_turn);
        auto limited = within<executor_type>(waiters, reason_limit, asio::error::timed_out, std::move(reading));
        try {
            co_await std::move(limited);
        } catch (std::system_error const& e) {
            s.check();
            if (e.code() == asio::error::operation_aborted) throw;
        }
        s.check();
    }

    // There is one reader: while the user reads he finds it, and while this does, the user's read waits.
    static asio::awaitable<void, executor_type> read_to_alert(state& s, bool needs_turn) {
        typename turn_type::holder reading(s.reading);
        if (needs_turn && !reading.try_take()) co_await reading.take();
        while (!s.engine.find_alert()) co_await fill(s);
    }

    static constexpr std::chrono::seconds reason_limit{1};

    // What the peer has asked for could not be answered. If it says in time why it ends the connection, the reader
    // tells that, else why it could not answer.
    RUNNEL_COLD static asio::awaitable<void, executor_type> end_unanswered(state& s) {
        if (s.flush_error != asio::error::operation_aborted) {
            auto looking = look_for_reason(s, false);
            co_await std::move(looking);
        }
        if (s.engine.closed_by_peer()) throw std::system_error(asio::error::eof);
        if (s.engine.failure() && s.engine.failure().code != transport_errc::stream_truncated)
            s.engine.failure().raise("reading from the TLS stream");
        throw std::system_error(s.flush_error);
    }

    // The reader's flush: if somebody else is writing, that one flushes, and the reader waits for that only if
    // `must_wait`. An error is kept for when what has come before is read. What cannot be written any more is dropped.
    RUNNEL_COLD static asio::awaitable<void, executor_type> send_answers(state& s, bool must_wait) {
        typename turn_type::holder turn(s.turn);
        if (!turn.try_take()) {
            if (!must_wait) co_return;
            co_await turn.take();
        }
        if (s.write_unfinished) s.engine.outgoing.clear();
        try {
            co_await flush(s, nullptr);
        } catch (std::system_error const& e) {
            s.check();
            s.flush_error = e.code();
        }
    }

    // Tells the peer why the handshake failed, if it can still be told.
    static asio::awaitable<void, executor_type> send_alert(state& s) {
        try {
            typename turn_type::holder turn(s.turn);
            if (!turn.try_take()) co_await turn.take();
            co_await flush(s, &turn);
        } catch (std::system_error const&) {
            s.check();
        }
    }

    state_owner<state> state_;
};

/// TLS to a host over any network transport: `tls<tcp>`. Verifies chain and host name unless the context says
/// otherwise, and sends SNI.
template <network_transport Next>
struct tls {
    using executor_type = typename Next::executor_type;
    using stream_type = tls_stream<typename Next::stream_type>;

    static constexpr bool secure = true;
    static constexpr std::uint16_t default_port = 8883;

    /// Name or address (IPv6 without brackets) of the host.
    std::string host{};
    /// 0 stands for `default_port`, that of MQTT over TLS.
    std::uint16_t port = 0;
    /// Trust and identity. The default one trusts the system's authorities.
    tls_context context = {};
    /// What the server's certificate must be for, if that is not `host`.
    std::string server_name = {};
    /// The transport below. Where its `host` is empty or its `port` is 0, it gets those above.
    Next next = {};

    friend bool operator==(tls const&, tls const&) = default;

    std::uint16_t effective_port() const noexcept { return port != 0 ? port : default_port; }

    std::string url() const { return "tls://" + authority_of(host, effective_port()); }

    /// Opens the transport below and performs the handshake. Throws `std::system_error`, whose text names the host.
    /// With `progress`, an address behind which nobody answers is left for the host's next: see `connect_progress`.
    asio::awaitable<stream_type, executor_type> open(executor_type executor,
                                                     connect_progress* progress = nullptr) const {
        Next below = next;
        if (below.host.empty()) below.host = host;
        if (below.port == 0) below.port = effective_port();
        while (true) {
            auto opening = open_stream(below, executor, progress);
            auto opened = co_await std::move(opening);
            if (progress != nullptr) progress->at(connect_step::tls, "TLS handshake with " + url());
            stream_type stream(std::move(opened), context, tls_role::client, server_name.empty() ? host : server_name);
            auto shaking_hands = in_time(stream.handshake(), progress);
            try {
                co_await std::move(shaking_hands);
                co_return std::move(stream);
            } catch (std::system_error const& e) {
                if (e.code() == asio::error::operation_aborted) throw;
                auto const error = handshake_error(e, host);
                bool const is_late = e.code() == transport_errc::connect_timeout && progress != nullptr;
                if (!is_late || !progress->try_next_address(error, steady_clock::now())) throw error;
            }
        }
    }

  private:
    static asio::awaitable<void, executor_type> in_time(asio::awaitable<void, executor_type> handshake,
                                                        connect_progress const* progress) {
        if (progress == nullptr) return handshake;
        auto const limit = progress->handshake_time(std::chrono::milliseconds(0), steady_clock::now());
        if (limit.count() == 0) return handshake;
        return within(limit, std::move(handshake), make_error_code(transport_errc::connect_timeout));
    }
};

}  // namespace runnel
