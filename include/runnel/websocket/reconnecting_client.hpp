#pragma once

#include <runnel/coro/race.hpp>
#include <runnel/websocket/detail/reconnecting.hpp>
#include <runnel/websocket/reconnecting_options.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::websocket {

/// A WebSocket client that connects again whenever its connection is lost, over any transport: `tcp`, `tls<tcp>`,
/// `memory_transport`, `any_transport`. For those who use WebSockets without MQTT.
///
///     runnel::websocket::reconnecting_client<runnel::tls<runnel::tcp>> client{executor, transport, options};
///     co_spawn(executor, client.run(), detached);
///     co_await client.send_text(R"({"subscribe":"ticks"})");
///     auto message = co_await client.next();
///
/// WebSocket has no acknowledgements. So nothing here says that a message has arrived, only what is known: that it
/// waits (`queued`), that it has been handed to a connection (`counters().handed_on`), and that the connection was lost
/// while it was being handed on (`counters().in_doubt`). What has been handed on is never sent again, so no message
/// arrives twice; who needs to know lets the other end answer.
///
/// All of it is on one executor, on which nothing runs at the same time. It may be destroyed at any time: what is under
/// way then ends with `operation_aborted` in a later turn.
template <transport Transport, class Compression = no_compression>
class reconnecting_client {
  public:
    using executor_type = typename Transport::executor_type;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;

    /// Throws `std::out_of_range`, with the range in its text, if an option is not possible.
    reconnecting_client(executor_type executor, Transport transport, reconnecting_options options,
                        typename Compression::options compression = {})
        : impl_((check(options),
                 new impl(std::move(executor), std::move(transport), std::move(options), std::move(compression)))) {}

    executor_type get_executor() const { return impl_->waiters.get_executor(); }

    /// Connects, and connects again, until `close`; then it completes, and may be called again. Throws what ended the
    /// last attempt when trying again is pointless or the policy gives up, and `operation_aborted` once cancelled: the
    /// connection is cut then. Throws `std::errc::operation_in_progress` if it runs already.
    awaitable<void> run() {
        impl_->ask();
        return impl::run(impl_.share());
    }

    /// Queues a message; it is sent on the connection that there is, or on the next one. Completes when it has room,
    /// which is at once as a rule. Text must be UTF-8: otherwise throws `errc::invalid_utf8`. What happens without
    /// room, `reconnecting_options::when_full` says: `std::errc::no_buffer_space` is thrown where it refuses. Throws
    /// `errc::closing` after `close`, until `run` has ended; who waits for room when `close` is called gets it, too.
    /// Cancelled while it waits it throws `operation_aborted`, and the message is not sent.
    awaitable<void> send(message_kind kind, std::string data) {
        return impl::send(impl_.share(), kind, std::move(data));
    }
    /// The same for text, and for bytes.
    awaitable<void> send_text(std::string text) { return send(message_kind::text, std::move(text)); }
    awaitable<void> send_binary(std::string data) { return send(message_kind::binary, std::move(data)); }

    /// Queues a message if there is room, or if there can be made some. False: there is none, or it is being closed.
    /// Throws `errc::invalid_utf8`.
    bool try_send(message_kind kind, std::string data) { return impl_->try_send(kind, std::move(data)); }

    /// Completes with the next message, of whichever connection. Throws `errc::closing` when there is none and `run`
    /// has ended; from the next call of `run` on it waits again. Cancelled it throws `operation_aborted`, and no
    /// message is lost.
    awaitable<received_message> next() { return impl::next(impl_.share()); }

    /// Closes the WebSocket, once what is queued has been sent, for at most the handshake's `close_timeout` for each of
    /// both; then `run` completes. Does not wait for that. Without a connection `run` ends at once, and what is queued
    /// stays for the next `run`. `reason`: up to 123 bytes are sent.
    void close(close_code code = close_code::normal, std::string reason = {}) { impl_->close(code, std::move(reason)); }

    /// Whether there is a connection now, as far as anybody knows.
    bool is_connected() const noexcept { return impl_->opened.has_value(); }
    /// The subprotocol of the last connection; empty if none was agreed on.
    std::string const& subprotocol() const noexcept { return impl_->subprotocol; }
    /// Messages that wait to be sent, and their bytes.
    std::size_t queued() const noexcept { return impl_->queue.size(); }
    std::size_t queued_bytes() const noexcept { return impl_->queued_bytes; }
    reconnecting_counters const& counters() const noexcept { return impl_->counters; }

  private:
    using impl = detail::reconnecting<Transport, Compression>;
    state_owner<impl> impl_;
};

}  // namespace runnel::websocket
