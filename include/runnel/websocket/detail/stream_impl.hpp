#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/core/to_size.hpp>
#include <runnel/coro/async_mutex.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/stream_state.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/websocket/detail/handshaker.hpp>
#include <runnel/websocket/message.hpp>
#include <runnel/websocket/protocol/message_buffer.hpp>
#include <runnel/websocket/protocol/protocol.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::websocket::detail {

/// The input and output of a WebSocket after the opening handshake: what a `stream` shares with its operations, each of
/// which has a share as its first argument. The members are those of `stream`, and documented there.
///
/// Nothing runs at the same time. While a coroutine is suspended, others may write this:
///
/// | member                                                     | is written by                                     |
/// |------------------------------------------------------------|---------------------------------------------------|
/// | `buffer_`, `unread_`, `message_given_`, what inflates      | who has the turn `reading_`; `try_read_message`,  |
/// |                                                            | if nobody has it                                  |
/// | `sending_`, `control_`, what deflates                      | who has the turn `writing_`                       |
/// | `protocol_`, what has been received                        | as `buffer_`                                      |
/// | `protocol_`, what is pending: pongs, the close frame       | all, in one step; who has `writing_` takes it     |
/// | `input_ended_`, `below_ended_`                             | who finds the end, who closes; once               |
///
/// A reader that has something to send while another has `writing_` leaves it pending: that one sends it before it
/// gives the turn back.
template <runnel::stream Next, class Compression>
class stream_impl : public stream_state {
  public:
    using executor_type = typename Next::executor_type;
    using shared = state_share<stream_impl>;

    /// One frame header, and what the layers below put in front of it.
    static constexpr std::size_t headroom = max_frame_header + Next::headroom;

    stream_impl(Next next, role side, stream_options const& options)
        : next_(std::move(next)),
          protocol_({side, options.accept_text, false, options.max_message, options.max_frame}),
          options_(options),
          side_(side),
          waiters_(next_->get_executor()),
          writing_(next_->get_executor()),
          reading_(next_->get_executor()),
          control_(Next::headroom),
          sending_(headroom) {}

    executor_type get_executor() const { return waiters_.get_executor(); }
    Next& next_layer() noexcept { return *next_; }
    websocket::protocol const& protocol() const noexcept { return protocol_; }
    bool compressed() const noexcept { return compression_on_; }

    /// The stream has been destroyed: see `stream_state`.
    RUNNEL_COLD void abandon() noexcept {
        next_.reset();
        writing_.close();
        reading_.close();
    }

    /// Takes bytes that came behind the handshake.
    void append_received(std::string_view bytes) { buffer_.append_raw(bytes); }

    /// Begins with the compression that the handshake has agreed on; `extensions` is empty if there is none. Throws
    /// `unexpected_extension`.
    void settle(std::string const& extensions, typename Compression::options const& wanted) {
        if constexpr (Compression::enabled) {
            if (extensions.empty()) return;
            errc const e = compression_.settle(side_, extensions, wanted, options_.max_message);
            if (e != errc::ok) throw std::system_error(e);
            compression_on_ = true;
            protocol_.accept_compressed();
        } else {
            static_cast<void>(extensions);
            static_cast<void>(wanted);
        }
    }

    asio::awaitable<std::size_t, executor_type> read_some(shared self, asio::mutable_buffer into) {
        if constexpr (Compression::enabled)
            if (compression_on_) return read_inflated(std::move(self), into);
        return read_payload(std::move(self), into);
    }

    asio::awaitable<message, executor_type> read_message(shared self) {
        self->check();
        typename turn::holder reading(reading_);
        if (!reading.try_take()) co_await reading.take();
        for (;;) {
            message found;
            bool const there = take_message(found);
            if (protocol_.has_pending()) co_await respond();
            if (there) co_return found;
            check_open();
            auto const room = buffer_.prepare();
            try {
                std::size_t const n = co_await next_->read_some(asio::buffer(room.data(), room.size()));
                buffer_.commit(n);
            } catch (std::system_error const& error) {
                rethrow_end(error);
            }
            self->check();
        }
    }

    bool try_read_message(message& out) { return !reading_.taken() && take_message(out); }

    asio::awaitable<void, executor_type> write(shared self, send_buffer& out) {
        self->check();
        if (out.empty()) co_return;
        typename turn::holder writing(writing_);
        if (!writing.try_take()) co_await writing.take();
        // What the peer asks meanwhile is answered between the pieces of a long one.
        while (out.size() > 2 * piece_size) {
            check_sending();
            std::string_view piece = out.view().substr(0, piece_size);
            if constexpr (Compression::enabled)
                if (compression_on_) piece = compression_.deflate(piece);
            protocol_.append_frame(sending_, opcode::binary, piece, true, compression_on_);
            out.consume(piece_size);
            co_await next_->write(sending_);
            self->check();
            if (protocol_.has_pending()) co_await write_pending();
        }
        check_sending();
        if constexpr (Compression::enabled) {
            if (compression_on_) {
                std::string_view const deflated = compression_.deflate(out.view());
                out.clear();
                out.append(deflated);
            }
        }
        protocol_.frame(out, opcode::binary, true, compression_on_);
        co_await next_->write(out);
        self->check();
        if (protocol_.has_pending()) co_await write_pending();
    }

    asio::awaitable<void, executor_type> write_message(shared self, message_kind kind, std::string_view data) {
        self->check();
        typename turn::holder writing(writing_);
        if (!writing.try_take()) co_await writing.take();
        if (protocol_.close_sent()) throw std::system_error(errc::closing);
        if constexpr (Compression::enabled)
            if (compression_on_) data = compression_.deflate(data);
        std::size_t const most = options_.fragment_size != 0 ? options_.fragment_size : data.size();
        opcode op = static_cast<opcode>(kind);
        do {
            std::string_view const piece = data.substr(0, most);
            data.remove_prefix(piece.size());
            bool const rsv1 = compression_on_ && op != opcode::continuation;
            protocol_.append_frame(sending_, op, piece, data.empty(), rsv1);
            op = opcode::continuation;
            co_await next_->write(sending_);
            self->check();
            if (protocol_.has_pending()) co_await write_pending();
        } while (!data.empty() && !protocol_.close_sent());
        if (!data.empty()) throw std::system_error(errc::closing);
    }

    // What is compressed refers to what was compressed before (RFC 7692 7.2), so that the order of compressing must be
    // that of sending. What is packed waits, in frames that `write_packed` makes anew.
    void pack(send_buffer& out, message_kind kind, std::string_view data) {
        if (!compression_on_) return protocol_.append_frame(out, static_cast<opcode>(kind), data);
        websocket::protocol({.side = role::server}).append_frame(out, static_cast<opcode>(kind), data);
    }

    asio::awaitable<void, executor_type> write_packed(shared self, send_buffer& out) {
        self->check();
        if (out.empty()) co_return;
        typename turn::holder writing(writing_);
        if (!writing.try_take()) co_await writing.take();
        if (protocol_.close_sent()) throw std::system_error(errc::closing);
        if constexpr (Compression::enabled)
            if (compression_on_) compress_packed(out);
        co_await next_->write(out);
        self->check();
        if (protocol_.has_pending()) co_await write_pending();
    }

    asio::awaitable<void, executor_type> ping(shared self, std::string_view payload) {
        protocol_.ping(payload);
        return flush(std::move(self));
    }

    asio::awaitable<void, executor_type> close(shared self, close_code code, std::string_view reason) {
        using clock = steady_clock;
        self->check();
        auto const begin = clock::now();
        protocol_.close(code, reason);
        auto closing = exchange_close(self);
        auto bounded = attempted(std::move(closing), options_.close_timeout);
        co_await std::move(bounded);
        if (below_ended_) co_return;
        auto const left = deadline_after(begin, options_.close_timeout) - clock::now();
        auto ending = end_below();
        auto ended = attempted(std::move(ending), left);
        co_await std::move(ended);
    }

    std::size_t backlog() { return sending_.size() + backlog_of(*next_); }

  private:
    using turn = async_mutex<executor_type>;

    // More than twice as much is written in pieces of this size.
    static constexpr std::size_t piece_size = 256 * 1024;

    void check_sending() const {
        if (protocol_.close_sent()) throw std::system_error(errc::closing);
    }

    // Throws what ended the connection, if it has ended.
    void check_open() const {
        if (protocol_.failure() != errc::ok) throw std::system_error(protocol_.failure());
        if (below_ended_ && !protocol_.close_received()) throw std::system_error(errc::closing);
        if (!protocol_.close_received()) return;
        close_code const code = protocol_.received_code();
        if (code == close_code::normal || code == close_code::going_away || code == close_code::no_status)
            throw std::system_error(asio::error::eof);
        throw std::system_error(errc::closed_by_peer, "code " + std::to_string(static_cast<unsigned>(code)));
    }

    // The end of the stream below before the peer's close frame is not an end in good order.
    [[noreturn]] void rethrow_end(std::system_error const& error) {
        check();
        input_ended_ = true;
        if (error.code() == asio::error::eof) throw std::system_error(errc::ended_without_close);
        throw error;
    }

    asio::awaitable<std::size_t, executor_type> read_payload(shared self, asio::mutable_buffer into) {
        self->check();
        typename turn::holder reading(reading_);
        if (!reading.try_take()) co_await reading.take();
        char* const bytes = static_cast<char*>(into.data());
        for (;;) {
            check_open();
            std::size_t n = buffer_.take_raw(bytes, into.size());
            try {
                if (n == 0) n = co_await next_->read_some(into);
            } catch (std::system_error const& error) {
                rethrow_end(error);
            }
            self->check();
            n = protocol_.unframe(bytes, n);
            if (protocol_.has_pending()) co_await respond();
            if (n != 0) co_return n;
        }
    }

    asio::awaitable<std::size_t, executor_type> read_inflated(shared self, asio::mutable_buffer into) {
        self->check();
        typename turn::holder reading(reading_);
        if (!reading.try_take()) co_await reading.take();
        while (unread_.empty()) {
            bool const there = take_piece();
            if (protocol_.has_pending()) co_await respond();
            if (there) break;
            check_open();
            auto const room = buffer_.prepare();
            try {
                std::size_t const n = co_await next_->read_some(asio::buffer(room.data(), room.size()));
                buffer_.commit(n);
            } catch (std::system_error const& error) {
                rethrow_end(error);
            }
            self->check();
        }
        std::size_t const n = (std::min)(into.size(), unread_.size());
        std::memcpy(into.data(), unread_.data(), n);
        unread_.remove_prefix(n);
        co_return n;
    }

    // Makes the frames of `pack` those that are sent. The caller has the turn to write.
    void compress_packed(send_buffer& out) {
        for (std::string_view rest = out.view(); !rest.empty();) {
            frame_header header;
            decode(rest.data(), header);
            rest.remove_prefix(header_size(rest[1]));
            auto const data = rest.substr(0, to_size(header.length));
            rest.remove_prefix(data.size());
            protocol_.append_frame(sending_, header.op, compression_.deflate(data), true, true);
        }
        out.clear();
        out.append(sending_.view());
        sending_.clear();
    }

    // Looks at the raw bytes up to the end of a message.
    bool take_message(message& out) {
        if (std::exchange(message_given_, false)) {
            buffer_.next_message();
            unread_ = {};
        }
        while (buffer_.raw_size() != 0 && protocol_.failure() == errc::ok) {
            auto const found = protocol_.feed(buffer_.raw(), buffer_.raw_size(), buffer_.payload_to());
            if constexpr (Compression::enabled) {
                if (protocol_.compressed()) {
                    if (!inflate(found)) continue;
                    message_given_ = true;
                    out = {protocol_.kind(), compression_.inflated()};
                    return true;
                }
            }
            buffer_.take(found.consumed, found.payload);
            if (!found.message_end) continue;
            message_given_ = true;
            out = {protocol_.kind(), buffer_.message()};
            return true;
        }
        return false;
    }

    // Looks at the raw bytes up to the next that are for the user of the stream of bytes: payload, which is handed on
    // as it comes, or a compressed message, which comes as a whole and has its own limit.
    bool take_piece() {
        if (message_given_) buffer_.next_message();
        unread_ = buffer_.message();  // of a message that somebody has begun to read as a whole
        while (unread_.empty() && buffer_.raw_size() != 0 && protocol_.failure() == errc::ok) {
            auto const found = protocol_.feed(buffer_.raw(), buffer_.raw_size());
            if (!protocol_.compressed()) {
                buffer_.take(found.consumed, found.payload);
                unread_ = found.payload;
            } else if (inflate(found)) {
                unread_ = compression_.inflated();
            }
        }
        message_given_ = !unread_.empty();
        return message_given_;
    }

    // Inflates payload as it comes, so that a fault in it ends the connection at once; whether the message ends with
    // it. The payload itself is not kept. A message for which there is no memory is too big.
    bool inflate(websocket::protocol::progress const& found) {
        errc e = errc::ok;
        try {
            if (found.message_end || !found.payload.empty())
                e = compression_.inflate(found.payload, protocol_.kind(), found.message_end);
        } catch (std::bad_alloc const&) {
            e = errc::message_too_big;
        }
        if (e != errc::ok) protocol_.reject(e);
        buffer_.take(found.consumed, {});
        return e == errc::ok && found.message_end;
    }

    // Writes the pending frames if it is anybody's turn; else the one who writes will.
    asio::awaitable<void, executor_type> respond() {
        if (writing_.taken()) co_return;
        auto flushing = flush(shared(this));
        try {
            // An answer to a close frame, or one about a violation, may find a peer that does not read any more.
            if (protocol_.close_sent()) flushing = limited(std::move(flushing), options_.close_timeout);
            co_await std::move(flushing);
        } catch (std::system_error const& error) {
            // What has been read counts; if the stream is broken the next read says so.
            check();
            if (error.code() == asio::error::operation_aborted) throw;
        }
        check();
    }

    asio::awaitable<void, executor_type> limited(asio::awaitable<void, executor_type> task, time_limit limit) {
        auto sleeping = sleep_for<executor_type>(waiters_.get_executor(), limit);
        co_await race(waiters_, std::move(task), std::move(sleeping));
    }

    // The same, whatever the peer does to make it fail.
    asio::awaitable<void, executor_type> attempted(asio::awaitable<void, executor_type> task, time_limit limit) {
        auto trying = limited(std::move(task), limit);
        try {
            co_await std::move(trying);
        } catch (std::system_error const& error) {
            check();
            if (error.code() == asio::error::operation_aborted) throw;
        }
        check();
    }

    asio::awaitable<void, executor_type> flush(shared self) {
        self->check();
        typename turn::holder writing(writing_);
        if (!writing.try_take()) co_await writing.take();
        co_await write_pending();
    }

    // For whoever has the turn to write.
    asio::awaitable<void, executor_type> write_pending() {
        while (protocol_.has_pending()) {
            protocol_.take_pending(control_);
            co_await next_->write(control_);
            check();
        }
    }

    asio::awaitable<void, executor_type> exchange_close(shared self) {
        auto flushing = flush(self);
        co_await std::move(flushing);
        typename turn::holder reading(reading_);
        if (!reading.try_take()) co_await reading.take();
        unread_ = {};
        while (protocol_.failure() == errc::ok && !protocol_.close_received() && !input_ended_) {
            buffer_.next_message();
            protocol_.unframe(buffer_.raw(), buffer_.raw_size());
            buffer_.release();
            unread_ = {};
            if (protocol_.close_received()) break;
            auto const room = buffer_.prepare();
            std::size_t const n = co_await next_->read_some(asio::buffer(room.data(), room.size()));
            self->check();
            buffer_.commit(n);
        }
        // The server ends the connection first, so that its port, not the client's, waits out the TCP segments under
        // way (7.1.1); the client waits for that. After a violation there is nothing to wait for. Reading on until the
        // end keeps a socket from being closed with bytes unread, which would reset the connection before the peer has
        // read all.
        if (side_ == role::server || protocol_.failure() != errc::ok) co_await end_below();
        // A socket tells its end once: who reads again waits for nothing.
        while (!input_ended_) {
            auto const room = buffer_.prepare();
            co_await next_->read_some(asio::buffer(room.data(), room.size()));
            self->check();
        }
    }

    asio::awaitable<void, executor_type> end_below() {
        check();
        below_ended_ = true;
        co_await next_->shutdown();
        check();
    }

    struct nothing {};
    template <class C>
    struct compressor {
        using type = nothing;
    };
    template <class C>
    requires C::enabled
    struct compressor<C> {
        using type = C;
    };

    std::optional<Next> next_;
    websocket::protocol protocol_;
    stream_options options_;
    role side_;
    wait_list<executor_type> waiters_;
    turn writing_;
    turn reading_;  // the same for reads: `close` reads too
    send_buffer control_;
    send_buffer sending_;
    message_buffer buffer_{};
    bool below_ended_ = false;
    bool input_ended_ = false;    // a read from the stream below has failed
    bool message_given_ = false;  // the user has seen the message: it is dropped before the next
    bool compression_on_ = false;
    RUNNEL_NO_UNIQUE_ADDRESS typename compressor<Compression>::type compression_{};
    std::string_view unread_{};  // inflated, what `read_some` has not given yet
};

}  // namespace runnel::websocket::detail
