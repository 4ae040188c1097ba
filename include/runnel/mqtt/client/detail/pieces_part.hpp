#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/list_link.hpp>
#include <runnel/core/random.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/client/detail/connection.hpp>
#include <runnel/mqtt/client/detail/operation.hpp>
#include <runnel/mqtt/client/detail/output_queue.hpp>
#include <runnel/mqtt/client/subscription.hpp>
#include <runnel/mqtt/protocol/detail/session_state_pieces.hpp>
#include <runnel/mqtt/protocol/incoming_pieces.hpp>
#include <runnel/mqtt/protocol/piece_tickets.hpp>
#include <runnel/transport/stream.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::mqtt::detail {

/// The part of a session over `with_pieces`, and of no other, that sends and receives messages in pieces.
///
/// Two coroutines meet for each message: the session's reader or writer, and the user's, in which alone his handler or
/// his source runs. While a coroutine is suspended, the other may write this:
///
/// | member             | is written by                                                                            |
/// |--------------------|------------------------------------------------------------------------------------------|
/// | `in_`              | the reader (by `session_state::receive_pieces`), `connection_lost`, a `receiver` that goes |
/// | a `sender`'s piece | its own coroutine while `wanted` and not `filled`, else the writer                        |
/// | the rest of it     | the writer, `connection_lost`; it may go at any time, so the writer looks for it again    |
template <class Executor>
class pieces_part {
  public:
    template <class T>
    using awaitable = asio::awaitable<T, Executor>;
    using subscription_type = basic_subscription<Executor>;

    static constexpr std::size_t piece_size = incoming_pieces::piece_size;
    /// Bytes of memory that are kept for the next message.
    static constexpr std::size_t kept_size = 4096;

    /// The part of `whole`, which makes it.
    template <class Session>
    RUNNEL_COLD explicit pieces_part(Session& whole)
        : state_(whole.state_), packets_(whole.packets_), reader_(packets_.queue()), writer_(packets_.queue()) {}
    pieces_part(pieces_part const&) = delete;
    pieces_part& operator=(pieces_part const&) = delete;
    RUNNEL_COLD ~pieces_part() {
        for (auto* link = senders_.next(); link != &senders_; link = link->next())
            static_cast<sender&>(*link).changes.wake_all({});
        operation_base<pieces_part>::leave(receivers_);
        operation_base<pieces_part>::leave(senders_);
    }

    // --- receiving: for the session

    incoming_pieces& in() noexcept { return in_; }
    /// Something of the message that is coming has changed: its taker may go on.
    void on_piece() {
        if (auto* const who = in_.current_taker()) static_cast<receiver*>(who)->wake();
    }
    /// Whether nothing can be read until a taker has gone on.
    bool is_held() const noexcept { return in_.is_held(); }
    /// For the reader: until a taker goes on. Throws `operation_aborted` after a cancellation.
    awaitable<void> until_taken() {
        waiter<Executor> w;
        co_await reader_.wait(w);
        if (w.result) throw std::system_error(w.result);
    }

    /// The connection has gone, as `why` says.
    RUNNEL_COLD void connection_lost(std::error_code why) {
        why_ = why ? why : make_error_code(errc::disconnected);
        if (auto const token = in_.abort()) {
            auto const mark = in_.mark();
            state_.give_back(*token, &mark);
            on_piece();
        }
        for (auto* link = senders_.next(); link != &senders_; link = link->next())
            static_cast<sender&>(*link).connection_lost();
    }
    /// Why the last connection has gone.
    std::error_code why_lost() const noexcept { return why_; }

    // --- receiving: for the user's coroutine

    /// A subscription whose messages are taken in pieces, in the frame of the coroutine that takes them.
    struct receiver : operation_base<pieces_part> {
        receiver(pieces_part& part, subscription_type const& s)
            : operation_base<pieces_part>(&part, part.receivers_), subscription(s.state_) {
            std::vector<std::string> filters;
            for (auto const& p : subscription->parts) filters.push_back(p.filter);
            part.in_.add(this, std::move(filters));
        }
        ~receiver() {
            if (this->of == nullptr) return;
            auto& part = *this->of;
            if (auto const token = part.in_.remove(this)) {
                part.state_.give_back(*token);
                part.packets_.timer().soon();
            }
            part.reader_.wake_one();
        }

        /// The message that is there for this one; nullptr: none.
        incoming_pieces* message() noexcept {
            return this->of != nullptr && this->of->in_.is_for(this) ? &this->of->in_ : nullptr;
        }
        void wake() { subscription->receivers.wake(waiting, {}); }
        /// The next piece, if there is one: an empty buffer otherwise.
        void take(std::string& into) {
            bool const was_held = this->of->in_.is_held();
            this->of->in_.take(into);
            if (was_held) this->of->reader_.wake_one();
        }
        /// The message is done with: it is acknowledged, unless it has been aborted.
        void finish() {
            auto& part = *this->of;
            bool const is_whole = part.in_.current() == incoming_pieces::state::whole;
            auto const token = part.in_.token();
            head.reset();
            part.in_.finish();
            if (part.in_.size() > kept_size) part.in_.release();
            part.reader_.wake_one();
            if (!is_whole) return;
            [[maybe_unused]] errc const e = part.state_.acknowledge(part.packets_.out(), token);
            part.packets_.flush();
        }

        std::shared_ptr<subscription_state<Executor>> subscription;
        std::shared_ptr<publish const> head{};  ///< of the message that has begun; it outlives the session
        waiter<Executor> waiting{};
    };

    // --- sending: for the user's coroutine

    /// A message that is published in pieces, in the frame of the coroutine that publishes it.
    struct sender : operation_base<pieces_part> {
        sender(pieces_part& part, std::uint64_t n)
            : operation_base<pieces_part>(&part, part.senders_),
              number(++part.numbers_),
              size(n),
              text(part.tickets_.make(number)),
              changes(part.packets_.queue()) {}
        ~sender() {
            if (this->of != nullptr) this->of->writer_.wake_all({});
        }

        std::string_view ticket() const noexcept { return {text.data(), text.size()}; }
        void connection_lost() {
            wanted = filled = false;
            taken = 0;
            ++attempts;
            lost = true;
            changes.wake_all({});
        }
        /// `piece` has what was asked for.
        void give() {
            filled = true;
            if (this->of != nullptr) this->of->writer_.wake_all({});
        }

        std::uint64_t const number;
        std::uint64_t const size;  ///< of the payload
        piece_tickets::ticket const text;
        std::string piece{};         ///< payload from `offset` on
        std::uint64_t offset = 0;    ///< of the piece that is wanted, or being written
        std::uint64_t taken = 0;     ///< bytes of the payload that the network has taken, on this connection
        std::uint64_t attempts = 0;  ///< connections that have gone meanwhile
        std::error_code failed{};    ///< why it cannot be sent
        bool wanted = false;         ///< the writer waits for a piece
        bool filled = false;         ///< and there is one
        bool written = false;        ///< all of it
        bool lost = false;           ///< a connection has gone
        wait_list<Executor> changes;
    };

    // --- sending: for the session's writer

    /// Whether there is a message among these packets whose payload is to take the place of a ticket.
    bool is_in(std::string_view packets) const noexcept { return numbers_ != 0 && tickets_.find(packets).has_value(); }

    /// Writes what `out` holds, of which the connection has counted all as being written, with payloads in the places
    /// of their tickets. `here->check()` throws once the session has gone. Throws `errc::message_discarded` if a
    /// message ends in the middle, as the connection has to end then, too.
    template <class Stream, class Share>
    awaitable<void> write(Stream& s, connection<Executor>& link, send_buffer& out, Share const& here) {
        send_buffer rest;
        rest.append(out.view());
        link.count_written(-static_cast<std::int64_t>(out.size()));
        out.clear();
        std::size_t begin = 0;
        while (auto const found = tickets_.find(rest.view().substr(begin))) {
            out.append(rest.view().substr(begin, found->position));
            begin += found->position + found->packet.size();
            if (!out.empty()) {
                auto writing = write_plain(s, link, out);
                co_await std::move(writing);
                here->check();
            }
            auto writing = write_message(s, link, out, *found, here);
            co_await std::move(writing);
            here->check();
        }
        out.append(rest.view().substr(begin));
        if (out.empty()) co_return;
        auto writing = write_plain(s, link, out);
        co_await std::move(writing);
    }

  private:
    template <class Stream>
    static awaitable<void> write_plain(Stream& s, connection<Executor>& link, send_buffer& out) {
        link.count_written(static_cast<std::int64_t>(out.size()));
        return s.write(out);
    }

    template <class Stream, class Share>
    awaitable<void> write_message(Stream& s, connection<Executor>& link, send_buffer& out, piece_tickets::found what,
                                  Share const& here) {
        auto const head = piece_tickets::head_of(what.packet, state_.version());
        bool is_begun = false;
        std::uint64_t size = 0;
        for (std::uint64_t offset = 0; !is_begun || offset != size;) {
            auto* self = find(what.number);
            if (self != nullptr && !is_begun) check_size(*self, what.packet);
            if (self == nullptr || self->failed) {
                // What gives an alias cannot be left out: others may rely on it.
                bool const is_left_out =
                    !is_begun && !piece_tickets::gives_alias(head) &&
                    (head.packet_id == 0 || state_.take_back_unsent(packets_.out(), head.packet_id));
                if (!is_left_out) throw std::system_error(errc::message_discarded);
                co_return;
            }
            if (!self->filled && offset != self->size) {
                self->offset = offset;
                if (!std::exchange(self->wanted, true)) self->changes.wake_all({});
                waiter<Executor> w;
                co_await writer_.wait(w);
                here->check();
                if (w.result) throw std::system_error(w.result);
                continue;
            }
            if (!std::exchange(is_begun, true)) piece_tickets::append_head(out, what.packet, size = self->size);
            out.append(self->piece);
            offset += self->piece.size();
            self->wanted = self->filled = false;
            if (offset != self->size) {  // the next one is made meanwhile
                self->offset = offset;
                self->wanted = true;
                self->changes.wake_all({});
            }
            auto writing = write_plain(s, link, out);
            co_await std::move(writing);
            here->check();
            self = find(what.number);
            if (self == nullptr) continue;
            // Headers of the layers below are in what they hold: it is not to seem that bytes come back.
            self->taken = (std::max)(self->taken, offset - std::min<std::uint64_t>(offset, backlog_of(s)));
            self->written = offset == size;
            self->changes.wake_all({});
        }
    }

    // Whether the server takes it, and the protocol allows it.
    RUNNEL_COLD void check_size(sender& self, std::string_view packet) {
        auto const length = piece_tickets::remaining_length(packet, self.size);
        bool const fits = length <= max_variable_integer &&
                          packet_size(static_cast<std::size_t>(length)) <= state_.peer().maximum_packet_size;
        if (fits) return;
        self.failed = errc::packet_too_large;
        self.changes.wake_all({});
    }

    static std::array<char, piece_tickets::secret_size> random_secret() {
        std::array<char, piece_tickets::secret_size> secret;
        fill_random(secret.data(), secret.size());
        return secret;
    }

    sender* find(std::uint64_t number) noexcept {
        for (auto* link = senders_.next(); link != &senders_; link = link->next())
            if (auto& s = static_cast<sender&>(*link); s.number == number) return &s;
        return nullptr;
    }

    session_state& state_;
    output_queue<Executor>& packets_;
    incoming_pieces in_{};
    list_link receivers_{};
    list_link senders_{};
    wait_list<Executor> reader_;  // where the reader waits for a taker
    wait_list<Executor> writer_;  // where the writer waits for a source
    piece_tickets tickets_{random_secret()};
    std::uint64_t numbers_ = 0;
    std::error_code why_{};
};

}  // namespace runnel::mqtt::detail
