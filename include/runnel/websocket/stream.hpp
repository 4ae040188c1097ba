#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/transport/race.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/write_turn.hpp>
#include <runnel/websocket/connection.hpp>
#include <runnel/websocket/message_buffer.hpp>
#include <runnel/websocket/opening.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::websocket {

/// A whole message as `stream::read_message` gives it.
struct message {
    message_kind kind = message_kind::binary;
    /// Valid until the next read.
    std::string_view data;
};

/// No compression: messages cross the wire as they are. `permessage_deflate` is the other model.
struct no_compression {
    static constexpr bool enabled = false;
    struct options {
        friend bool operator==(options const&, options const&) = default;
    };
};

/// A WebSocket over any stream `Next`, as client or as server (RFC 6455).
///
/// It is a `runnel::stream` itself: binary messages as bytes, whose boundaries do not matter. And it carries whole
/// messages, text and binary, with `read_message` and `write_message`. The two must not be mixed within one message.
///
/// Pings and close frames are answered by whoever reads; while a write is under way the answer is written right after
/// it. One read and one write may be under way at the same time; a second one waits for the first.
template <runnel::stream Next, class Compression = no_compression>
class stream {
  public:
    using executor_type = typename Next::executor_type;
    using next_layer_type = Next;

    /// One frame header, and what the layers below put in front of it.
    static constexpr std::size_t headroom = max_frame_header + Next::headroom;

    /// Opens a WebSocket as a client over a connected stream. Throws `handshake_refused` if the server answers with
    /// another status than 101, or `std::system_error`. (Make `options` a variable and move it: a braced list here runs
    /// into an error of g++ 12.)
    static asio::awaitable<stream, executor_type> handshake(Next next, client_options options,
                                                            typename Compression::options compression = {}) {
        stream opened(std::move(next), role::client, options.stream);
        std::string offer;
        if constexpr (Compression::enabled) offer = Compression::offer(compression);
        opener<Next> opening_next(opened.state_->next);
        auto asking = opening_next.ask(options, offer);
        opening agreed = co_await std::move(asking);
        opened.settle(std::move(agreed), compression);
        co_return std::move(opened);
    }

    /// Accepts a WebSocket as a server over a connected stream. `judge(server_request const&)` returns 101 to accept
    /// the request, or the status with which it is refused: 403 for an origin, 404 for a path, ... Throws
    /// `std::system_error` if the request is refused or is none.
    template <class Judge>
    static asio::awaitable<stream, executor_type> accept(Next next, server_options options, Judge judge,
                                                         typename Compression::options compression = {}) {
        stream opened(std::move(next), role::server, options.stream);
        opener<Next> opening_next(opened.state_->next);
        auto const choose = [&compression](http_head const& head) {
            if constexpr (Compression::enabled) return Compression::choose(head, compression);
            static_cast<void>(compression);
            return std::string();
        };
        auto answering = opening_next.answer(options, judge, choose);
        opening agreed = co_await std::move(answering);
        opened.settle(std::move(agreed), compression);
        co_return std::move(opened);
    }

    /// Accepts any request, whatever its origin and path.
    static asio::awaitable<stream, executor_type> accept(Next next, server_options options) {
        return accept(std::move(next), std::move(options), [](server_request const&) { return 101; });
    }

    /// Takes over a connection whose handshake has been done elsewhere; `surplus` came behind it.
    stream(Next next, role side, stream_options options, std::string_view surplus = {})
        : state_(std::make_unique<state>(std::move(next), side, options)) {
        state_->buffer.append_raw(surplus);
    }

    executor_type get_executor() const { return state_->place.get_executor(); }

    /// The stream below.
    Next& next_layer() noexcept { return state_->next; }

    /// The subprotocol agreed on; empty if none.
    std::string const& subprotocol() const noexcept { return state_->agreed.subprotocol; }
    /// Path and query of the request.
    std::string const& target() const noexcept { return state_->agreed.target; }
    /// Whether compression was agreed on.
    bool compressed() const noexcept { return state_->compression_on; }
    /// The code and reason of the peer's close frame: `abnormal` if none has come, `no_status` if it had no code.
    close_code received_code() const noexcept { return state_->protocol.received_code(); }
    std::string_view received_reason() const noexcept { return state_->protocol.received_reason(); }

    /// Reads payload of binary messages, at least one byte. Throws `asio::error::eof` when the peer has closed with
    /// code 1000, 1001 or none; `errc::closed_by_peer` with another; `errc::ended_without_close`; or the violation of
    /// the protocol after which it has closed the WebSocket itself.
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        if constexpr (Compression::enabled)
            if (state_->compression_on) return read_inflated(*state_, into);
        return read_payload(*state_, into);
    }

    /// Sends all of `out` as one binary message in one frame, with one write to the stream below. Throws
    /// `errc::closing` once the WebSocket is being closed.
    asio::awaitable<void, executor_type> write(send_buffer& out) { return write_binary(*state_, out); }

    /// Reads a whole message, whose data is valid until the next read. Throws as `read_some` does.
    asio::awaitable<message, executor_type> read_message() { return read_whole(*state_); }

    /// Gives a whole message that has been received already; false if there is none: `read_message` is needed then.
    bool try_read_message(message& out) { return !state_->reading.taken() && take_message(*state_, out); }

    /// Sends a message. `data` must stay valid until this completes; text must be UTF-8. Long messages are sent in
    /// fragments (see `stream_options`). Throws as `write` does.
    asio::awaitable<void, executor_type> write_message(message_kind kind, std::string_view data) {
        return write_whole(*state_, kind, data);
    }

    /// Appends a message in one frame to `out`, for `write_packed`: many small messages leave in one write that way.
    void pack(send_buffer& out, message_kind kind, std::string_view data) {
        if constexpr (Compression::enabled) {
            if (state_->compression_on) {
                std::string_view const deflated = state_->compression.deflate(data);
                return state_->protocol.append_frame(out, static_cast<opcode>(kind), deflated, true, true);
            }
        }
        state_->protocol.append_frame(out, static_cast<opcode>(kind), data);
    }

    /// Sends the messages in `out`, which is then empty.
    asio::awaitable<void, executor_type> write_packed(send_buffer& out) { return write_frames(*state_, out); }

    /// Sends a ping with up to 125 bytes. The answer is taken notice of by whoever reads, as a sign of life only.
    asio::awaitable<void, executor_type> ping(std::string_view payload = {}) {
        state_->protocol.ping(payload);
        return flush(*state_);
    }

    /// Closes the WebSocket with code 1000: see `close`.
    asio::awaitable<void, executor_type> shutdown() { return close(close_code::normal, {}); }

    /// Closes the WebSocket: sends a close frame unless one has been sent, waits for the peer's, drops what comes
    /// before it, and shuts the stream below down, all that for at most `close_timeout`. Throws nothing of the peer's
    /// doing. `reason`, of which up to 123 bytes are sent, must stay valid until this completes.
    asio::awaitable<void, executor_type> close(close_code code, std::string_view reason = {}) {
        return close(*state_, code, reason);
    }

  private:
    using turn = write_turn<executor_type>;

    struct compression_state_none {};
    template <class C>
    struct compression_state_of {
        using type = compression_state_none;
    };
    template <class C>
    requires C::enabled
    struct compression_state_of<C> {
        using type = C;
    };

    struct state {
        state(Next n, role s, stream_options const& o)
            : next(std::move(n)),
              protocol({s, o.accept_text, false, o.max_message, o.max_frame}),
              options(o),
              side(s),
              place(next.get_executor()),
              writing(next.get_executor()),
              reading(next.get_executor()),
              control(Next::headroom),
              sending(headroom) {}

        Next next;
        connection protocol;
        stream_options options;
        role side;
        parking<executor_type> place;
        turn writing;
        turn reading;  // the same for reads: `close` reads too
        send_buffer control;
        send_buffer sending;
        message_buffer buffer;
        bool below_ended = false;
        bool message_given = false;  // the buffer begins with a message that the user has seen
        bool compression_on = false;
        [[no_unique_address]] typename compression_state_of<Compression>::type compression;
        std::string_view inflated;  // what `read_some` has not given yet
        opening agreed;
    };

    void settle(opening agreed, [[maybe_unused]] typename Compression::options const& compression) {
        state& s = *state_;
        s.agreed = std::move(agreed);
        s.buffer.append_raw(s.agreed.surplus);
        s.agreed.surplus = {};
        if constexpr (Compression::enabled) {
            if (s.agreed.extensions.empty()) return;
            errc const e = s.compression.settle(s.side, s.agreed.extensions, compression, s.options.max_message);
            if (e != errc::ok) throw std::system_error(e);
            s.compression_on = true;
            s.protocol.accept_compressed();
        }
    }

    // Throws what ended the connection, if it has ended.
    static void check_open(state const& s) {
        if (s.protocol.failure() != errc::ok) throw std::system_error(s.protocol.failure());
        if (s.below_ended && !s.protocol.close_received()) throw std::system_error(errc::closing);
        if (!s.protocol.close_received()) return;
        close_code const code = s.protocol.received_code();
        if (code == close_code::normal || code == close_code::going_away || code == close_code::no_status)
            throw std::system_error(asio::error::eof);
        throw std::system_error(errc::closed_by_peer, "code " + std::to_string(static_cast<unsigned>(code)));
    }

    // The end of the stream below before the peer's close frame is not an end in good order.
    [[noreturn]] static void rethrow_end(std::system_error const& error) {
        if (error.code() == asio::error::eof) throw std::system_error(errc::ended_without_close);
        throw error;
    }

    static asio::awaitable<std::size_t, executor_type> read_payload(state& s, asio::mutable_buffer into) {
        typename turn::holder reading(s.reading);
        if (!reading.try_take()) co_await reading.take();
        char* const bytes = static_cast<char*>(into.data());
        for (;;) {
            check_open(s);
            std::size_t n = s.buffer.take_raw(bytes, into.size());
            try {
                if (n == 0) n = co_await s.next.read_some(into);
            } catch (std::system_error const& error) {
                rethrow_end(error);
            }
            n = s.protocol.unframe(bytes, n);
            if (s.protocol.has_pending()) co_await respond(s);
            if (n != 0) co_return n;
        }
    }

    static asio::awaitable<message, executor_type> read_whole(state& s) {
        typename turn::holder reading(s.reading);
        if (!reading.try_take()) co_await reading.take();
        for (;;) {
            message found;
            bool const there = take_message(s, found);
            if (s.protocol.has_pending()) co_await respond(s);
            if (there) co_return found;
            check_open(s);
            auto const room = s.buffer.prepare();
            try {
                std::size_t const n = co_await s.next.read_some(asio::buffer(room.data(), room.size()));
                s.buffer.commit(n);
            } catch (std::system_error const& error) {
                rethrow_end(error);
            }
        }
    }

    // Looks at the raw bytes up to the end of a message.
    static bool take_message(state& s, message& out) {
        if (s.message_given) s.buffer.next_message();
        s.message_given = false;
        while (s.buffer.raw_size() != 0 && s.protocol.failure() == errc::ok) {
            auto const found = s.protocol.feed(s.buffer.raw(), s.buffer.raw_size(), s.buffer.payload_to());
            s.buffer.take(found.consumed, found.payload);
            if (!found.message_end) continue;
            s.message_given = true;
            out = {s.protocol.kind(), s.buffer.message()};
            if constexpr (Compression::enabled) {
                if (s.protocol.compressed()) {
                    errc const e = s.compression.inflate(out.data, out.kind, out.data);
                    if (e != errc::ok) s.protocol.reject(e);
                    return e == errc::ok;
                }
            }
            return true;
        }
        return false;
    }

    static asio::awaitable<std::size_t, executor_type> read_inflated(state& s, asio::mutable_buffer into) {
        while (s.inflated.empty()) {
            message const next = co_await read_whole(s);
            s.inflated = next.data;
        }
        std::size_t const n = std::min(into.size(), s.inflated.size());
        std::memcpy(into.data(), s.inflated.data(), n);
        s.inflated.remove_prefix(n);
        co_return n;
    }

    // Writes the pending frames if it is anybody's turn; else the one who writes will.
    static asio::awaitable<void, executor_type> respond(state& s) {
        if (s.writing.taken()) co_return;
        auto flushing = flush(s);
        try {
            // An answer to a close frame, or one about a violation, may find a peer that does not read any more.
            if (s.protocol.close_sent()) flushing = limited(s, std::move(flushing));
            co_await std::move(flushing);
        } catch (std::system_error const& error) {
            // What has been read counts; if the stream is broken the next read says so.
            if (error.code() == asio::error::operation_aborted) throw;
        }
    }

    static asio::awaitable<void, executor_type> limited(state& s, asio::awaitable<void, executor_type> task) {
        auto sleeping = sleep_for<executor_type>(s.place.get_executor(), s.options.close_timeout);
        co_await race(s.place, std::move(task), std::move(sleeping));
    }

    static asio::awaitable<void, executor_type> flush(state& s) {
        typename turn::holder writing(s.writing);
        if (!writing.try_take()) co_await writing.take();
        co_await write_pending(s);
    }

    // For whoever has the turn to write.
    static asio::awaitable<void, executor_type> write_pending(state& s) {
        while (s.protocol.has_pending()) {
            s.protocol.take_pending(s.control);
            co_await s.next.write(s.control);
        }
    }

    static asio::awaitable<void, executor_type> write_binary(state& s, send_buffer& out) {
        if (out.empty()) co_return;
        typename turn::holder writing(s.writing);
        if (!writing.try_take()) co_await writing.take();
        if (s.protocol.close_sent()) throw std::system_error(errc::closing);
        bool deflated = false;
        if constexpr (Compression::enabled) {
            if (s.compression_on) {
                std::string_view const bytes = s.compression.deflate(out.view());
                out.clear();
                out.append(bytes);
                deflated = true;
            }
        }
        s.protocol.frame(out, opcode::binary, true, deflated);
        co_await s.next.write(out);
        if (s.protocol.has_pending()) co_await write_pending(s);
    }

    static asio::awaitable<void, executor_type> write_frames(state& s, send_buffer& out) {
        if (out.empty()) co_return;
        typename turn::holder writing(s.writing);
        if (!writing.try_take()) co_await writing.take();
        if (s.protocol.close_sent()) throw std::system_error(errc::closing);
        co_await s.next.write(out);
        if (s.protocol.has_pending()) co_await write_pending(s);
    }

    static asio::awaitable<void, executor_type> write_whole(state& s, message_kind kind, std::string_view data) {
        typename turn::holder writing(s.writing);
        if (!writing.try_take()) co_await writing.take();
        if (s.protocol.close_sent()) throw std::system_error(errc::closing);
        bool deflated = false;
        if constexpr (Compression::enabled) {
            if (s.compression_on) {
                data = s.compression.deflate(data);
                deflated = true;
            }
        }
        std::size_t const most = s.options.fragment_size != 0 ? s.options.fragment_size : data.size();
        opcode op = static_cast<opcode>(kind);
        do {
            std::string_view const piece = data.substr(0, most);
            data.remove_prefix(piece.size());
            bool const rsv1 = deflated && op != opcode::continuation;
            s.protocol.append_frame(s.sending, op, piece, data.empty(), rsv1);
            op = opcode::continuation;
            co_await s.next.write(s.sending);
            if (s.protocol.has_pending()) co_await write_pending(s);
        } while (!data.empty() && !s.protocol.close_sent());
        if (!data.empty()) throw std::system_error(errc::closing);
    }

    static asio::awaitable<void, executor_type> close(state& s, close_code code, std::string_view reason) {
        s.protocol.close(code, reason);
        auto closing = exchange_close(s);
        auto bounded = limited(s, std::move(closing));
        try {
            co_await std::move(bounded);
        } catch (std::system_error const& error) {
            if (error.code() == asio::error::operation_aborted) throw;
        }
        if (!s.below_ended) co_await end_below(s);
    }

    static asio::awaitable<void, executor_type> exchange_close(state& s) {
        co_await flush(s);
        typename turn::holder reading(s.reading);
        if (!reading.try_take()) co_await reading.take();
        while (s.protocol.failure() == errc::ok && !s.protocol.close_received()) {
            s.buffer.next_message();
            s.protocol.unframe(s.buffer.raw(), s.buffer.raw_size());
            s.buffer.release();
            if (s.protocol.close_received()) break;
            auto const room = s.buffer.prepare();
            std::size_t const n = co_await s.next.read_some(asio::buffer(room.data(), room.size()));
            s.buffer.commit(n);
        }
        // The server ends the connection first, so that its port, not the client's, waits out the TCP segments under
        // way (7.1.1); the client waits for that. After a violation there is nothing to wait for. Reading on until the
        // end keeps a socket from being closed with bytes unread, which would reset the connection before the peer has
        // read all.
        if (s.side == role::server || s.protocol.failure() != errc::ok) co_await end_below(s);
        for (;;) {
            auto const room = s.buffer.prepare();
            co_await s.next.read_some(asio::buffer(room.data(), room.size()));
        }
    }

    static asio::awaitable<void, executor_type> end_below(state& s) {
        s.below_ended = true;
        co_await s.next.shutdown();
    }

    std::unique_ptr<state> state_;
};

}  // namespace runnel::websocket
