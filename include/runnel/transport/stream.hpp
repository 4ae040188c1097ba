#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/coro/asio.hpp>

#include RUNNEL_ASIO(any_io_executor.hpp)
#include RUNNEL_ASIO(awaitable.hpp)
#include RUNNEL_ASIO(buffer.hpp)

#include <concepts>
#include <cstdint>
#include <string>
#include <utility>

namespace runnel {

/// A connected, ordered, reliable flow of bytes in both directions: a TCP connection, a TLS session, a WebSocket.
///
/// - `read_some(into)` completes with at least one byte read into `into` (never empty); throws `std::system_error` with
///   `asio::error::eof` once the peer has ended the flow in good order, with another code on any other end. All of
///   `into` may be written to, behind the bytes read too: a layer takes its headers out in place.
/// - `write(out)` completes when all bytes of `out` have been handed to the layer below; then `out` is empty, and its
///   memory kept. Until then `out` is the stream's: it may change the bytes in place, put its header in front of them,
///   and drop them piece by piece. It may have emptied `out` before it completes, and may look at it again after that.
///   So its owner adds nothing and clears nothing meanwhile; the size is all that he may ask for: roughly what the
///   layer has not taken yet. Once the write has completed, or thrown, the stream does not touch `out` any more.
/// - `shutdown()` ends the flow in good order (close_notify, WebSocket close handshake). No write may be under way; a
///   read may be. It does not wait for the peer without bound.
/// - `headroom`: the bytes which this layer and those under it put in front of what is written.
///
/// One read and one write may be under way at the same time. Each can be cancelled by its coroutine's cancellation slot
/// (terminal cancellation: the stream is then only good for destruction). After `shutdown` nothing can be written, and
/// reading ends: with what the peer has still sent, then with an error. An operation may complete without suspending,
/// as where bytes have come already: who reads in a loop lets others have their turn by other means.
///
/// A stream may be destroyed at any time: before an operation has begun to run, while it waits, once what it waits for
/// has come, also by whoever an operation has resumed. Destruction closes at once, without blocking. Whatever is under
/// way, in each layer, ends with `asio::error::operation_aborted` in a later turn of the executor, and touches nothing
/// of the user's from the destruction on: neither `into` nor `out`, which may go with the stream. What the operations
/// need of the stream belongs to them until they have ended (see `stream_state`). All of it is on one executor, on
/// which nothing runs at the same time. A stream with nothing under way can be moved.
template <class S>
concept stream = std::move_constructible<S> && requires(S& s, asio::mutable_buffer into, send_buffer& out) {
    typename S::executor_type;
    { s.get_executor() } -> std::convertible_to<typename S::executor_type>;
    { s.read_some(into) } -> std::same_as<asio::awaitable<std::size_t, typename S::executor_type>>;
    { s.write(out) } -> std::same_as<asio::awaitable<void, typename S::executor_type>>;
    { s.shutdown() } -> std::same_as<asio::awaitable<void, typename S::executor_type>>;
    { S::headroom } -> std::convertible_to<std::size_t>;
};

/// Bytes that have been written to a stream and have not reached the other end yet, for streams that can tell: by a
/// function `std::size_t backlog()`; 0 for others. So a slow connection is told from a dead one.
template <stream S>
std::size_t backlog_of(S& s) {
    if constexpr (requires {
                      { s.backlog() } -> std::same_as<std::size_t>;
                  })
        return s.backlog();
    else
        return 0;
}

/// How streams to one peer are opened: a value that can be copied and compared. A session opens a fresh stream for each
/// attempt to connect.
///
/// - `open(executor)` resolves, connects and performs the handshakes of all layers; throws `std::system_error`; can be
///   cancelled at any point. Arguments are copied into the coroutine's frame; the transport must outlive it.
/// - `secure`: whether the peer is authenticated and the bytes are encrypted (TLS somewhere below).
/// - `url()`: what it connects to, for logs and errors, without secrets.
template <class T>
concept transport = std::copyable<T> && std::equality_comparable<T> && requires(T const& t) {
    typename T::stream_type;
    typename T::executor_type;
    requires stream<typename T::stream_type>;
    requires std::same_as<typename T::executor_type, typename T::stream_type::executor_type>;
    {
        t.open(std::declval<typename T::executor_type>())
    } -> std::same_as<asio::awaitable<typename T::stream_type, typename T::executor_type>>;
    { T::secure } -> std::convertible_to<bool>;
    { t.url() } -> std::convertible_to<std::string>;
};

class connect_progress;

/// Opens a stream by a transport, and gives `progress`, which may be null, to transports that take it: see
/// `connect_progress`.
template <transport T>
asio::awaitable<typename T::stream_type, typename T::executor_type> open_stream(T const& t,
                                                                                typename T::executor_type executor,
                                                                                connect_progress* progress) {
    if constexpr (requires { t.open(executor, progress); })
        return t.open(std::move(executor), progress);
    else
        return t.open(std::move(executor));
}

/// A transport that reaches a host by name or address, so that a layer above can tell it where to connect.
template <class T>
concept network_transport = transport<T> && requires(T& t) {
    { t.host } -> std::same_as<std::string&>;
    { t.port } -> std::same_as<std::uint16_t&>;
};

/// A transport that has a choice (of endpoints, say) and wants to know whether it was a good one. Whoever opens streams
/// by a transport does well to ask `if constexpr (reporting_transport<T>)` and to call, after `open` has ended,
///
/// - `report(true)` once the peer has accepted its user: of MQTT, a CONNACK with success;
/// - `report(false)` when the peer has refused its user, or the stream has failed soon after, before all was well;
///   also when `open` was cancelled, as its time was over.
///
/// Of several reports on one stream the last one counts. It takes effect when the next stream is opened.
template <class T>
concept reporting_transport = transport<T> && requires(T& t, bool well) { t.report(well); };

}  // namespace runnel
