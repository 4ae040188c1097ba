#pragma once

#include <runnel/websocket/detail/stream_impl.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace runnel::websocket {

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
    static constexpr std::size_t headroom = detail::stream_impl<Next, Compression>::headroom;

    /// Opens a WebSocket as a client over a connected stream. Throws `handshake_refused` if the server answers with
    /// another status than 101, `std::system_error`, or `std::out_of_range` if an option is not possible. (Make
    /// `options` a variable and move it: a braced list here runs into an error of g++ 12.) `budget`: the time of
    /// whoever waits for it and cancels it then; a refusal of which not all has come is told before.
    static asio::awaitable<stream, executor_type> handshake(Next next, client_options options,
                                                            typename Compression::options compression = {},
                                                            connect_budget budget = {}) {
        stream opened(std::move(next), role::client, options.stream);
        std::string offer;
        if constexpr (Compression::enabled) {
            check(compression);
            offer = Compression::offer(compression);
        }
        detail::handshaker<Next> shaking(opened.next_layer());
        auto asking = shaking.ask(options, offer, budget);
        detail::handshake_result agreed = co_await std::move(asking);
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
        if constexpr (Compression::enabled) check(compression);
        detail::handshaker<Next> shaking(opened.next_layer());
        auto const choose = [&compression](http_head const& head) {
            if constexpr (Compression::enabled) return Compression::choose(head, compression);
            static_cast<void>(compression);
            return std::string();
        };
        auto answering = shaking.answer(options, judge, choose);
        detail::handshake_result agreed = co_await std::move(answering);
        opened.settle(std::move(agreed), compression);
        co_return std::move(opened);
    }

    /// Accepts any request, whatever its origin and path.
    static asio::awaitable<stream, executor_type> accept(Next next, server_options options) {
        return accept(std::move(next), std::move(options), [](server_request const&) { return 101; });
    }

    /// Takes over a connection whose handshake has been done elsewhere; `surplus` came behind it. Throws
    /// `std::out_of_range` if an option is not possible.
    stream(Next next, role side, stream_options options, std::string_view surplus = {})
        : impl_((check(options), new detail::stream_impl<Next, Compression>(std::move(next), side, options))) {
        impl_->append_received(surplus);
    }

    executor_type get_executor() const { return impl_->get_executor(); }

    /// The stream below.
    Next& next_layer() noexcept { return impl_->next_layer(); }

    /// The subprotocol agreed on; empty if none.
    std::string const& subprotocol() const noexcept { return agreed_.subprotocol; }
    /// Path and query of the request.
    std::string const& target() const noexcept { return agreed_.target; }
    /// Whether compression was agreed on.
    bool compressed() const noexcept { return impl_->compressed(); }
    /// The code and reason of the peer's close frame: `abnormal` if none has come, `no_status` if it had no code.
    close_code received_code() const noexcept { return impl_->protocol().received_code(); }
    std::string_view received_reason() const noexcept { return impl_->protocol().received_reason(); }

    /// Reads payload of binary messages, at least one byte. Throws `asio::error::eof` when the peer has closed with
    /// code 1000, 1001 or none; `errc::closed_by_peer` with another; `errc::ended_without_close`; or the violation of
    /// the protocol after which it has closed the WebSocket itself.
    asio::awaitable<std::size_t, executor_type> read_some(asio::mutable_buffer into) {
        return impl_->read_some(impl_.share(), into);
    }

    /// Sends all of `out` as one binary message in one frame, with one write to the stream below; more than 512 KiB in
    /// several messages, so that pings are answered in between. Throws `errc::closing` once the WebSocket is being
    /// closed.
    asio::awaitable<void, executor_type> write(send_buffer& out) { return impl_->write(impl_.share(), out); }

    /// Bytes under way: those framed and not handed on yet, and those of the stream below.
    std::size_t backlog() { return impl_->backlog(); }

    /// Reads a whole message, whose data is valid until the next read or the stream's end. Throws as `read_some` does.
    asio::awaitable<message, executor_type> read_message() { return impl_->read_message(impl_.share()); }

    /// Gives a whole message that has been received already; false if there is none: `read_message` is needed then.
    bool try_read_message(message& out) { return impl_->try_read_message(out); }

    /// Sends a message. `data` must stay valid until this completes; text must be UTF-8. Long messages are sent in
    /// fragments (see `stream_options`). Throws as `write` does.
    asio::awaitable<void, executor_type> write_message(message_kind kind, std::string_view data) {
        return impl_->write_message(impl_.share(), kind, data);
    }

    /// Appends a message in one frame to `out`, for `write_packed`: many small messages leave in one write that way.
    /// What is compressed is compressed by that, so that the order is that of sending (RFC 7692 7.2).
    void pack(send_buffer& out, message_kind kind, std::string_view data) { impl_->pack(out, kind, data); }

    /// Sends the messages in `out`, which is then empty.
    asio::awaitable<void, executor_type> write_packed(send_buffer& out) {
        return impl_->write_packed(impl_.share(), out);
    }

    /// Sends a ping with up to 125 bytes. The answer is taken notice of by whoever reads, as a sign of life only.
    asio::awaitable<void, executor_type> ping(std::string_view payload = {}) {
        return impl_->ping(impl_.share(), payload);
    }

    /// Closes the WebSocket with code 1000: see `close`.
    asio::awaitable<void, executor_type> shutdown() { return close(close_code::normal, {}); }

    /// Closes the WebSocket: sends a close frame unless one has been sent, waits for the peer's, drops what comes
    /// before it, and shuts the stream below down, all that for at most `close_timeout`. Throws nothing of the peer's
    /// doing. `reason`, of which up to 123 bytes are sent, must stay valid until this completes.
    asio::awaitable<void, executor_type> close(close_code code, std::string_view reason = {}) {
        return impl_->close(impl_.share(), code, reason);
    }

  private:
    void settle(detail::handshake_result agreed, typename Compression::options const& compression) {
        agreed_ = std::move(agreed);
        impl_->append_received(agreed_.surplus);
        agreed_.surplus = {};
        impl_->settle(agreed_.extensions, compression);
    }

    // `agreed_` is written by `settle`, before anybody else has the stream: while a coroutine is suspended, nobody
    // writes it. For all else see `stream_impl`.
    state_owner<detail::stream_impl<Next, Compression>> impl_;
    detail::handshake_result agreed_{};
};

}  // namespace runnel::websocket
