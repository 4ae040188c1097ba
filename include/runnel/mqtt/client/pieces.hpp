#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/to_size.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/mqtt/client/detail/pieces_part.hpp>
#include <runnel/mqtt/client/pieces_error.hpp>
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/redirect.hpp>
#include <runnel/transport/stream.hpp>

#include RUNNEL_ASIO(cancellation_type.hpp)
#include RUNNEL_ASIO(error.hpp)
#include RUNNEL_ASIO(this_coro.hpp)

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace runnel::mqtt {

/// Bytes of the largest piece in which a message is sent or received.
inline constexpr std::size_t piece_size = incoming_pieces::piece_size;

/// A transport whose sessions can send and receive messages in pieces (`publish_pieces`, `receive_pieces`): `Next`, any
/// transport, in everything else. Other sessions have neither the code nor the memory. It is the outermost layer,
/// around `failover`, `any_transport`, `traced` and `metered`, too.
///
///     using session = runnel::mqtt::session<runnel::mqtt::with_pieces<runnel::tcp>>;
///     session s(executor, {{.host = "localhost"}}, options);
template <transport Next>
struct with_pieces : Next {
    using executor_type = typename Next::executor_type;
    using stream_type = typename Next::stream_type;
    using pieces_type = detail::pieces_part<executor_type>;

    /// As the function of the same name for `Next`.
    RUNNEL_COLD std::optional<with_pieces> redirected(std::string_view reference) const {
        auto other = runnel::redirected(static_cast<Next const&>(*this), reference);
        if (!other) return std::nullopt;
        return with_pieces{std::move(*other)};
    }

    friend bool operator==(with_pieces const& a, with_pieces const& b) {
        return static_cast<Next const&>(a) == static_cast<Next const&>(b);
    }
};

/// Where the payload of a message comes from that is published in pieces.
///
/// - `size()`: bytes of all of it. MQTT sends that first, so it must be known, and must not change. What is too large
///   for a packet is refused (`errc::packet_too_large`), as is the -1 by which files say that they have no size.
/// - `read(offset, into)` puts payload from `offset` on into `into`, which is never empty and never goes beyond the
///   end, and returns how much: 1 or more bytes, as `std::size_t`, or as an `awaitable` of that, with which it may take
///   its time. Offsets follow each other, and start again at 0 if the message has to be sent again.
/// - `restarts`, a `static constexpr bool`: false if they cannot; then the message is of QoS 0. Without it, true.
template <class S, class Executor>
concept payload_source = requires(S& s, std::uint64_t offset, std::span<char> into) {
    { s.size() } -> std::convertible_to<std::uint64_t>;
    requires std::convertible_to<decltype(s.read(offset, into)), std::size_t> ||
                 std::same_as<decltype(s.read(offset, into)), asio::awaitable<std::size_t, Executor>>;
};

/// A payload that lies in several places, which stay as they are until the message has been published.
class span_source {
  public:
    explicit span_source(std::span<std::string_view const> parts) noexcept : parts_(parts) {
        for (auto const part : parts_) size_ += part.size();
    }
    std::uint64_t size() const noexcept { return size_; }
    std::size_t read(std::uint64_t offset, std::span<char> into) noexcept {
        if (offset < begin_) at_ = 0, begin_ = 0;
        for (; at_ != parts_.size() && begin_ + parts_[at_].size() <= offset; ++at_) begin_ += parts_[at_].size();
        std::size_t n = 0;
        auto from = to_size(offset - begin_);
        for (auto i = at_; i != parts_.size() && n != into.size(); ++i, from = 0) {
            auto const part = parts_[i].substr(from, into.size() - n);
            if (!part.empty()) std::memcpy(into.data() + n, part.data(), part.size());
            n += part.size();
        }
        return n;
    }

  private:
    std::span<std::string_view const> parts_;
    std::uint64_t size_ = 0;
    std::size_t at_ = 0;       // the part that the last offset was in
    std::uint64_t begin_ = 0;  // where it begins
};

/// A payload that a coroutine gives piece by piece, and once only, so for QoS 0. `next()` returns an
/// `awaitable<std::string_view>` of the next piece, of any size, valid until the next call; an empty one: there is no
/// more. `size` is that of all together.
///
/// One `read` at a time: while a coroutine is suspended, here that one, nobody else writes `rest_`.
template <class Next>
class sequence_source {
  public:
    static constexpr bool restarts = false;

    sequence_source(std::uint64_t size, Next next) : size_(size), next_(std::move(next)) {}
    std::uint64_t size() const noexcept { return size_; }
    auto read(std::uint64_t offset, std::span<char> into)
        -> asio::awaitable<std::size_t, typename std::invoke_result_t<Next&>::executor_type> {
        if (rest_.empty()) {
            auto coming = next_();
            rest_ = co_await std::move(coming);
        }
        if (rest_.size() > size_ - offset) throw std::system_error(pieces_errc::source_too_long);
        auto const n = (std::min)(rest_.size(), into.size());
        if (n != 0) std::memcpy(into.data(), rest_.data(), n);
        rest_.remove_prefix(n);
        co_return n;
    }

  private:
    std::uint64_t size_;
    Next next_;
    std::string_view rest_{};
};

/// What takes messages in pieces. Each function returns nothing, or an `awaitable<void>`, with which it may take its
/// time: meanwhile no more than one piece is read ahead, and then nothing more from the network, no matter what. So it
/// must not wait for what only the same connection can bring, as the acknowledgement of a message of its own.
///
/// - `begin(head, size)`: a message comes, of `size` bytes. `head` is all but its payload, and valid until `begin` has
///   completed; its views are until `end` or `aborted` has, even if the session goes before.
/// - `piece(bytes)`: the next ones, 1 to `piece_size`; a view that is valid until it completes.
/// - `end()`: the message is whole. When it completes, the message is acknowledged.
/// - `aborted(why)`, which must not throw: the connection goes in the middle, or `receive_pieces` ends, before `end`
///   has completed. Not if `begin` has thrown. The server sends a message of QoS 1 or 2 again, from its beginning, on
///   the next connection.
template <class H, class Executor>
concept payload_handler =
    requires(H& h, publish const& head, std::uint64_t size, std::string_view bytes, std::error_code why) {
        h.begin(head, size);
        h.piece(bytes);
        h.end();
        h.aborted(why);
    };

/// Is told how many bytes of the payload, of how many, the network has taken: those that have been written, without
/// what the layers below, or the system, are known to hold still (`backlog_of`, which counts their headers, too). It
/// only grows, but begins anew at 0 with a new connection. Called from the coroutine that publishes; what it throws
/// ends that.
using piece_progress = std::function<void(std::uint64_t taken, std::uint64_t size)>;

namespace detail {

/// The one way into a session for what is in this file.
struct pieces_access {
    template <class Session>
    static auto& part(Session& s) {
        static_assert(Session::has_pieces, "the session's transport is not a with_pieces");
        return s.pieces_;
    }
    template <class Session>
    static auto& publishing(Session& s) {
        return s.publishing_;
    }
    template <class Session>
    static errc check_publish(Session& s, publish const& message, std::uint64_t size, qos quality) {
        if (quality != qos::at_most_once && s.durability_) throw std::system_error(pieces_errc::session_has_store);
        if (size > max_variable_integer) return errc::packet_too_large;  // first: the sum must not overflow
        auto const length = remaining_length(message, s.state_.version()) + size;
        if (length > max_variable_integer) return errc::packet_too_large;
        if (!s.state_.connected()) return errc::ok;
        return mqtt::check_publish(s.state_.peer(), message.qos, message.retain,
                                   packet_size(static_cast<std::size_t>(length)));
    }
};

template <class Source>
constexpr bool restarts = true;
template <class Source>
requires requires { Source::restarts; }
constexpr bool restarts<Source> = Source::restarts;

/// Gives the writer the pieces that it wants. Ends only by an exception.
template <class Sender, class Source, class Executor>
asio::awaitable<void, Executor> serve_pieces(Sender& self, Source& source, piece_progress const& progress,
                                             std::uint64_t& told, Executor const&) {
    std::string buffer;
    for (;;) {
        if (self.failed) throw std::system_error(self.failed);
        if (progress && told != self.taken) progress(told = self.taken, self.size);
        if (self.wanted && !self.filled) {
            auto const attempt = self.attempts;
            buffer.resize(static_cast<std::size_t>(std::min<std::uint64_t>(piece_size, self.size - self.offset)));
            std::size_t n = 0;
            if constexpr (std::convertible_to<decltype(source.read(self.offset, buffer)), std::size_t>) {
                n = source.read(self.offset, buffer);
            } else {
                auto reading = source.read(self.offset, buffer);
                n = co_await std::move(reading);
            }
            if (n == 0) throw std::system_error(pieces_errc::source_ended_early);
            if (n > buffer.size()) throw std::system_error(pieces_errc::source_too_long);
            if (self.attempts != attempt) continue;  // the connection has gone meanwhile
            buffer.resize(n);
            self.piece.swap(buffer);
            self.give();
            continue;
        }
        waiter<Executor> w;
        co_await self.changes.wait(w);
        if (w.result) throw std::system_error(w.result);
        if (self.of == nullptr) throw std::system_error(errc::disconnected);
    }
}

/// Publishes the ticket, and waits until all is written (QoS 0) or acknowledged.
template <class Publishing, class Sender, class Executor>
asio::awaitable<void, Executor> publish_ticket_of(Publishing& publishing, Sender& self, std::string_view topic,
                                                  publish_options o, publish_ticket& ticket, publish_result& result,
                                                  Executor const&) {
    auto publish = publishing.publish(topic, self.ticket(), o, &ticket);
    result = co_await std::move(publish);
    if (o.qos != qos::at_most_once) co_return;
    while (!self.written) {
        if (self.failed) throw std::system_error(self.failed);
        if (self.of == nullptr) throw std::system_error(errc::disconnected);
        if (self.lost) throw std::system_error(errc::not_connected);
        waiter<Executor> w;
        co_await self.changes.wait(w);
        if (w.result) throw std::system_error(w.result);
    }
}

/// Calls a function of the user's, which may be a coroutine.
template <class Executor, class F>
asio::awaitable<void, Executor> call_handler(F f) {
    if constexpr (std::is_void_v<std::invoke_result_t<F&>>) {
        f();
    } else {
        auto running = f();
        co_await std::move(running);
    }
    co_return;
}

/// Gives a message to the handler that has come whole, as before anybody asked for pieces.
template <class Executor, class Handler>
asio::awaitable<void, Executor> give_whole(publish const& whole, Handler& handler, bool& is_begun) {
    auto head = whole;
    head.payload = {};
    auto begin = call_handler<Executor>([&] { return handler.begin(std::as_const(head), whole.payload.size()); });
    co_await std::move(begin);
    is_begun = true;
    for (auto rest = whole.payload; !rest.empty(); rest.remove_prefix((std::min)(piece_size, rest.size()))) {
        auto piece = call_handler<Executor>([&] { return handler.piece(rest.substr(0, piece_size)); });
        co_await std::move(piece);
    }
    auto end = call_handler<Executor>([&] { return handler.end(); });
    co_await std::move(end);
    is_begun = false;
}

}  // namespace detail

/// Publishes a message whose payload is not in memory: it is read from `source` piece by piece, as the network takes
/// it. The session holds about three pieces of it at a time, of up to `piece_size` bytes. Up to the protocol's largest
/// packet, 268,435,455 bytes behind the fixed header.
///
/// While it is being written nothing else is: what is published meanwhile waits, within the bounds of
/// `maximum_unwritten` and `maximum_queued`, as do acknowledgements and pings. It is activity all the same (3.1.2.10);
/// but a source that is silent for as long as a ping may be unanswered ends the connection.
///
/// QoS 1 and 2 complete when the server has acknowledged the message, as `session::publish` does, and wait for a
/// connection if there is none. If the connection is lost, the message is sent again from its beginning, by the same
/// source, which therefore must be able to begin anew (`payload_source`); in a session with a store they are refused.
/// QoS 0 completes when all has been written; it is for this connection only: `errc::not_connected` if there is none,
/// or if it is lost before.
///
/// Whatever else ends the call ends the message, too: cancellation, an exception of the source, which is passed on, the
/// source's end (`pieces_errc`), `run`'s. If nothing of it has been written yet, it is withdrawn. Else a packet stands
/// there half, and cannot be taken back: the connection ends, with `errc::message_discarded`, and `run` makes another.
/// The same if it has been written on an earlier connection, or was to give its topic an alias. A QoS 2 message that
/// the server has acknowledged by PUBREC goes on to its end.
///
/// Throws what `session::publish` does, and `errc::packet_too_large` also if the size is found to be too large for a
/// server that is connected to later.
///
/// `session::queued` shows it with 24 bytes in the place of its payload. `topic`, `source` and `o.props` must stay in
/// place until the call has completed.
template <class Session, payload_source<typename Session::executor_type> Source>
asio::awaitable<publish_result, typename Session::executor_type> publish_pieces(Session& s, std::string_view topic,
                                                                                Source& source, publish_options o = {},
                                                                                piece_progress progress = {}) {
    using executor_type = typename Session::executor_type;
    auto& part = detail::pieces_access::part(s);
    bool const is_kept = o.qos != qos::at_most_once;
    if (is_kept && !detail::restarts<Source>) throw std::system_error(pieces_errc::source_cannot_restart);
    std::uint64_t const size = source.size();
    publish const head{.topic = topic,
                       .payload = {},
                       .qos = o.qos,
                       .retain = o.retain,
                       .packet_id = std::uint16_t{is_kept},
                       .props = o.props};
    errc const error = detail::pieces_access::check_publish(s, head, size, o.qos);
    if (error != errc::ok) throw std::system_error(error);
    if (!is_kept) o.this_connection = true;
    auto const executor = s.get_executor();
    wait_list<executor_type> waiters(executor);
    typename std::remove_reference_t<decltype(part)>::sender self(part, size);
    detail::publish_ticket ticket;
    publish_result result;
    std::uint64_t told = 0;
    std::exception_ptr failure;
    try {
        auto publishing =
            detail::publish_ticket_of(detail::pieces_access::publishing(s), self, topic, o, ticket, result, executor);
        auto serving = detail::serve_pieces(self, source, progress, told, executor);
        auto racing = race(waiters, std::move(publishing), std::move(serving));
        co_await std::move(racing);
    } catch (...) {
        failure = std::current_exception();
    }
    if (failure) {
        if (self.of != nullptr && is_kept) s.discard(ticket.number);
        std::rethrow_exception(failure);
    }
    if (progress && is_kept && told != size) progress(size, size);
    co_return result;
}

/// Gives the messages of a subscription to `handler` (`payload_handler`) in pieces, as they come, whatever their size:
/// no more than two pieces of one are in memory, of up to `piece_size` bytes, beside what one read brings. For as long
/// as it runs they come to no other subscription, even if that matches, too. Messages that have come before wait in the
/// subscription's inbox, and are given first. Of several calls whose subscriptions match, the first gets a message.
///
/// How large a message may be is `session_options::maximum_packet_size`, with which the server is told so; 268,435,460
/// is the largest packet. Topic and properties of more than 128 KiB make a message come whole.
///
/// Ends only by an exception: `operation_aborted` after cancellation, what the handler throws, `errc::disconnected`
/// when `run` or the subscription ends, a `reason_code` if the server refuses to renew it. What has not been finished
/// then is given back: it is not acknowledged, the rest of it is passed over, and it comes again on the next
/// connection. The subscription goes on, and its messages come whole. `handler` must stay in place until the call has
/// completed. As nothing is read while it has a piece, `session::disconnect` does not hear the server's end then, and
/// takes `close_timeout`; the message comes again.
template <class Session, payload_handler<typename Session::executor_type> Handler>
asio::awaitable<void, typename Session::executor_type> receive_pieces(Session& s,
                                                                      typename Session::subscription subscription,
                                                                      Handler& handler) {
    using executor_type = typename Session::executor_type;
    using state = incoming_pieces::state;
    auto& part = detail::pieces_access::part(s);
    using part_type = std::remove_reference_t<decltype(part)>;
    typename part_type::receiver self(part, subscription);
    auto const here = self.subscription;
    std::string piece;
    bool is_begun = false;
    std::error_code why = errc::disconnected;
    // Outside of what may throw, as `aborted` may look at its views. Thereafter it goes with the exception, and so is
    // given back.
    std::optional<message> whole;
    auto const cancellation = co_await asio::this_coro::cancellation_state;
    try {
        for (;;) {
            // The next `co_await` would throw: no message is to be taken for that.
            bool const throws = co_await asio::this_coro::throw_if_cancelled();
            if (throws && cancellation.cancelled() != asio::cancellation_type::none)
                throw std::system_error(asio::error::operation_aborted);
            if (auto* const in = self.message(); in != nullptr && in->current() == state::aborted) {
                if (std::exchange(is_begun, false)) handler.aborted(self.of->why_lost());
                if (self.message() != nullptr) self.finish();
                continue;
            }
            if (auto* const in = self.message(); in != nullptr && is_begun) {
                if (in->has_piece()) {
                    self.take(piece);
                    auto giving =
                        detail::call_handler<executor_type>([&] { return handler.piece(std::string_view(piece)); });
                    co_await std::move(giving);
                    continue;
                }
                if (in->current() == state::whole) {
                    auto ending = detail::call_handler<executor_type>([&] { return handler.end(); });
                    co_await std::move(ending);
                    is_begun = false;
                    if (piece.capacity() > part_type::kept_size) piece = {};
                    if (self.message() != nullptr) self.finish();
                    continue;
                }
            } else if (!is_begun && (whole = subscription.try_receive())) {
                auto giving = detail::give_whole<executor_type>(whole->view(), handler, is_begun);
                co_await std::move(giving);
                whole.reset();
                continue;
            } else if (in != nullptr) {
                self.head = in->share_head();
                auto beginning =
                    detail::call_handler<executor_type>([&] { return handler.begin(*self.head, in->size()); });
                co_await std::move(beginning);
                is_begun = true;
                continue;
            }
            // What has begun goes on to its end, though nobody is subscribed any more.
            if (here->closed && self.message() == nullptr) throw detail::ended(here->closed, here->end.get());
            if (self.of == nullptr) throw std::system_error(errc::disconnected);
            co_await here->receivers.wait(self.waiting);
            bool const is_cancelled = self.waiting.result == asio::error::operation_aborted;
            if (self.waiting.result && (is_cancelled || !here->closed)) throw std::system_error(self.waiting.result);
        }
    } catch (std::system_error const& e) {
        if (is_begun) handler.aborted(e.code());
        throw;
    } catch (...) {
        if (is_begun) handler.aborted(why);
        throw;
    }
}

}  // namespace runnel::mqtt
