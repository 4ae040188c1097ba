#pragma once

#include <runnel/core/callback.hpp>
#include <runnel/core/receive_buffer.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/transport/error.hpp>
#include <runnel/transport/stream.hpp>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

namespace runnel {

/// One direction of an in-memory connection: what it has carried, and what is to go wrong with it.
///
/// The numbers may be changed at any time and count from the start of the connection.
struct memory_flow {
    static constexpr std::size_t unlimited = (std::numeric_limits<std::size_t>::max)();

    /// Bytes that may be under way. A writer waits for the reader when there are more.
    std::size_t capacity = 64 * 1024;
    /// Bytes that one read delivers at most.
    std::size_t max_read = unlimited;
    /// The whole connection is cut, both ways, when this direction has taken so many bytes. Bytes taken before are
    /// still delivered, both ways; the rest of the write that crosses the limit is lost, and as with TCP its writer
    /// does not know: only later writes fail.
    std::size_t cut_after = unlimited;
    /// What the readers get behind the last byte of a cut connection. (Writers get `asio::error::broken_pipe`.)
    std::error_code cut_error = asio::error::connection_reset;

    /// Calls of `write` so far, reads that delivered bytes, and bytes written (those lost at the cut not included).
    std::size_t writes = 0;
    std::size_t reads = 0;
    std::size_t bytes = 0;
};

/// One end of a connection inside the process, for tests and for talking to an embedded broker: a stream without a
/// socket. Behaves as TCP does, but deterministically: what is written arrives in order, a slow reader holds the writer
/// up, a destroyed end is the end of the flow for the other. Both ends share one executor and are not thread-safe.
///
///     auto [client, server] = runnel::memory_stream<>::pair(executor);
template <class Executor = asio::any_io_executor>
class memory_stream {
  public:
    using executor_type = Executor;
    static constexpr std::size_t headroom = 0;

    /// Two ends connected with each other.
    static std::pair<memory_stream, memory_stream> pair(Executor executor) {
        auto const shared = std::make_shared<connection>(std::move(executor));
        return {memory_stream(shared, 0), memory_stream(shared, 1)};
    }

    memory_stream(memory_stream&& other) noexcept = default;
    memory_stream& operator=(memory_stream&& other) noexcept {
        memory_stream moved(std::move(other));
        std::swap(connection_, moved.connection_);
        std::swap(end_, moved.end_);
        return *this;
    }
    /// Ends the flow to the peer; reads and writes under way at this end complete with `operation_aborted`.
    ~memory_stream() {
        if (connection_) connection_->close(end_);
    }

    executor_type get_executor() const { return connection_->waiters.get_executor(); }

    /// The direction away from this end, and that towards it: counters and faults. Valid as long as either end lives.
    memory_flow& outgoing() noexcept { return connection_->halves[end_].flow; }
    memory_flow& incoming() noexcept { return connection_->halves[1 - end_].flow; }

    /// Reads what has arrived, at least one byte. Throws `asio::error::eof` behind the last byte of a peer that has
    /// ended the flow, or the flow's `cut_error` once the connection is cut.
    asio::awaitable<std::size_t, Executor> read_some(asio::mutable_buffer into) {
        return read_some(connection_, 1 - end_, into);
    }

    /// Completes when all bytes are under way. Throws `asio::error::broken_pipe` when the peer has gone.
    asio::awaitable<void, Executor> write(send_buffer& out) { return write(connection_, end_, out); }

    /// Bytes that have been written and that the peer has not read.
    std::size_t backlog() const noexcept { return connection_->halves[end_].bytes.data().size(); }

    /// Ends the flow to the peer, who reads `asio::error::eof` behind the last byte; does not wait.
    asio::awaitable<void, Executor> shutdown() { return shutdown(connection_, end_); }

    /// Cuts the connection now, both ways.
    void cut() { connection_->cut(outgoing().cut_error); }

  private:
    // The bytes from one end to the other. While a coroutine is suspended, others may write all of it, in one step, so
    // that the operations of both ends look at it anew when they go on. `bytes` is filled by the writing end and
    // emptied by the reading one; `end` is set by the writing end, `dead` by the reading one, both by a cut; the limits
    // of `flow` are the user's, at any time, its counters the operations'.
    struct half {
        memory_flow flow{};
        receive_buffer bytes{};
        std::error_code end{};  // what the reader gets behind the last byte, once there is one
        bool dead = false;      // nobody will read it
        waiter<Executor> reader{};
        waiter<Executor> writer{};
    };

    struct connection {
        explicit connection(Executor executor) : waiters(std::move(executor)) {}

        void end(std::size_t from, std::error_code how = asio::error::eof) {
            if (!halves[from].end) halves[from].end = how;
            waiters.wake(halves[from].reader);
        }

        void cut(std::error_code how) {
            for (std::size_t i = 0; i < 2; ++i) {
                end(i, how);
                halves[i].dead = true;
                waiters.wake(halves[i].writer);
            }
        }

        void close(std::size_t from) {
            gone[from] = true;
            end(from);
            auto& towards = halves[1 - from];
            towards.dead = true;
            waiters.wake(halves[from].writer, asio::error::operation_aborted);
            waiters.wake(towards.reader, asio::error::operation_aborted);
            waiters.wake(towards.writer);
        }

        // Before an operation of an end goes on.
        void check(std::size_t of) const {
            if (gone[of]) throw std::system_error(asio::error::operation_aborted);
        }

        wait_list<Executor> waiters;
        half halves[2];
        bool gone[2] = {false, false};  // the ends that have been destroyed
    };

    memory_stream(std::shared_ptr<connection> shared, std::size_t end) : connection_(std::move(shared)), end_(end) {}

    // The connection is an argument, so that a stream can be destroyed with a read or write under way.
    static asio::awaitable<std::size_t, Executor> read_some(std::shared_ptr<connection> shared, std::size_t from,
                                                            asio::mutable_buffer into) {
        half& h = shared->halves[from];
        shared->check(1 - from);
        while (h.bytes.empty()) {
            if (h.end) throw std::system_error(h.end);
            co_await shared->waiters.wait(h.reader);
            shared->check(1 - from);
            if (h.reader.result) throw std::system_error(h.reader.result);
        }
        std::size_t const n = (std::min)({h.bytes.data().size(), into.size(), h.flow.max_read});
        std::memcpy(into.data(), h.bytes.data().data(), n);
        h.bytes.consume(n);
        ++h.flow.reads;
        shared->waiters.wake(h.writer);
        co_return n;
    }

    static asio::awaitable<void, Executor> write(std::shared_ptr<connection> shared, std::size_t from,
                                                 send_buffer& out) {
        half& h = shared->halves[from];
        shared->check(from);
        ++h.flow.writes;
        while (!out.empty()) {
            if (h.dead) throw std::system_error(asio::error::broken_pipe);
            if (h.end) throw std::system_error(transport_errc::stream_broken);  // behind a shutdown of this end
            std::size_t const held = h.bytes.data().size();
            if (held >= h.flow.capacity) {
                co_await shared->waiters.wait(h.writer);
                shared->check(from);
                if (h.writer.result) throw std::system_error(h.writer.result);
                continue;
            }
            std::size_t const left = h.flow.cut_after - (std::min)(h.flow.cut_after, h.flow.bytes);
            std::size_t const n = (std::min)({out.size(), h.flow.capacity - held, left});
            std::memcpy(h.bytes.prepare(held + n).data(), out.data(), n);
            h.bytes.commit(n);
            h.flow.bytes += n;
            out.consume(n);
            shared->waiters.wake(h.reader);
            if (n == left) {
                out.clear();
                shared->cut(h.flow.cut_error);
            }
        }
    }

    static asio::awaitable<void, Executor> shutdown(std::shared_ptr<connection> shared, std::size_t end) {
        shared->check(end);
        shared->end(end);
        co_return;
    }

    std::shared_ptr<connection> connection_;
    std::size_t end_;
};

/// A transport whose `open` makes an in-memory connection and hands its other end to a function, the acceptor: so
/// that whatever opens transports can be tested without sockets, reconnecting included.
template <class Executor = asio::any_io_executor>
class basic_memory_transport {
  public:
    using executor_type = Executor;
    using stream_type = memory_stream<Executor>;
    using acceptor_type = callback<stream_type>;
    static constexpr bool secure = false;

    /// Reaches nobody: `open` throws `asio::error::connection_refused`.
    basic_memory_transport() = default;

    /// `accept` is called by each `open` with the server's end. What it throws, `open` throws: connection refused.
    explicit basic_memory_transport(acceptor_type accept)
        : accept_(std::make_shared<acceptor_type const>(std::move(accept))) {}

    /// What the connection would be to, if it left the process; for layers above, which set it.
    std::string host{};
    std::uint16_t port = 0;

    std::string url() const { return "memory://" + host + ':' + std::to_string(port); }

    asio::awaitable<stream_type, Executor> open(Executor executor) const {
        if (!accept_) throw std::system_error(asio::error::connection_refused, url());
        auto [client, server] = stream_type::pair(executor);
        (*accept_)(std::move(server));
        co_return std::move(client);
    }

    /// Equal if they share the acceptor: a copy is equal to its original.
    friend bool operator==(basic_memory_transport const&, basic_memory_transport const&) = default;

  private:
    std::shared_ptr<acceptor_type const> accept_{};
};

/// The usual one, with `asio::any_io_executor`.
using memory_transport = basic_memory_transport<>;

}  // namespace runnel
