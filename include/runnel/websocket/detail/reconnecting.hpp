#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/core/random.hpp>
#include <runnel/core/saturating.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/coro/stream_state.hpp>
#include <runnel/coro/wait_list.hpp>
#include <runnel/transport/connect_progress.hpp>
#include <runnel/transport/error.hpp>
#include <runnel/transport/reconnect.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/websocket/detail/open_over.hpp>
#include <runnel/websocket/detail/watched_stream.hpp>
#include <runnel/websocket/reconnecting_options.hpp>
#include <runnel/websocket/stream.hpp>

#include RUNNEL_ASIO(this_coro.hpp)

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::websocket::detail {

/// What a `reconnecting_client` is: its `run`, and the queues to and from it.
///
/// `run` is one coroutine with children: while it opens, one that opens; while the WebSocket is open, `read`, `write`,
/// `watch` and `drain`. All on one executor; between two suspension points each is alone. While a coroutine is
/// suspended, others may write this, each in one step:
///
/// | member                              | is written by                                                              |
/// |-------------------------------------|----------------------------------------------------------------------------|
/// | `queue`, `waiting`                  | the user's calls (`send`, `try_send`, `close`), and `write`                |
/// | `inbox`, `receivers`                | `read`, and those who are in `next`                                        |
/// | `opened`                            | `open`; `attempt` and `run` when all children have ended; `abandon` at any |
/// |                                     | time                                                                       |
/// | `heard`, `said`, `subprotocol`      | `open`; what the first two point to, the stream                            |
/// | `closing`, `code`, `reason`         | `close`; `run` when it is called and when it ends                          |
/// | `held_up`, `shutting`               | `read`; `write`                                                            |
/// | `ping_due`                          | `watch` sets it, `write` clears it                                         |
/// | `failure`                           | whoever calls the user's handler (`tell`)                                  |
/// | `running`, `asked`, `ended`, `ends` | `run`                                                                      |
///
/// After each suspension: `check`, as the client may be gone.
template <transport Transport, class Compression>
struct reconnecting : stream_state {
    using executor_type = typename Transport::executor_type;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;
    using share = state_share<reconnecting>;
    using stream_type = websocket::stream<watched_stream<typename Transport::stream_type>, Compression>;
    using event = connection_event;

    reconnecting(executor_type executor, Transport t, reconnecting_options o, typename Compression::options c)
        : way(std::move(t)), options(std::move(o)), compression(std::move(c)), waiters(std::move(executor)) {}

    void abandon() noexcept {
        opened.reset();
        try {
            waiters.wake_all(asio::error::operation_aborted);
        } catch (...) {  // for want of memory: they are destroyed with the context
        }
    }

    // --- what the user calls

    static awaitable<void> send(share self, message_kind kind, std::string data) {
        self->check();
        pending message{*self, {kind, std::move(data)}};
        if (self->take(message.out)) co_return;
        if (self->closing) throw std::system_error(errc::closing);
        if (self->options.when_full != overflow::wait)
            throw std::system_error(std::make_error_code(std::errc::no_buffer_space));
        message.begin_to_wait();
        while (message.waits) {
            co_await self->waiters.wait(message.sender);
            self->check();
            if (message.is_refused) throw std::system_error(errc::closing);
            if (message.waits && message.sender.result) throw std::system_error(message.sender.result);
        }
    }

    bool try_send(message_kind kind, std::string data) {
        outgoing out{kind, std::move(data)};
        return take(out);
    }

    static awaitable<received_message> next(share self) {
        self->check();
        auto const before = self->ends;
        while (self->inbox.empty()) {
            if (self->ended || self->ends != before) throw std::system_error(errc::closing);
            receiver here(*self);
            co_await self->waiters.wait(here.one);
            self->check();
            if (here.one.result && self->inbox.empty()) throw std::system_error(here.one.result);
        }
        self->inbox_bytes -= cost(self->inbox.front().data);
        auto message = std::move(self->inbox.front());
        self->inbox.pop_front();
        self->waiters.wake(self->reader);
        if (!self->inbox.empty()) self->wake_receiver();
        co_return message;
    }

    void close(close_code with, std::string why) {
        if (!(running || asked) || closing) return;
        // They go on in a later turn, for which there may be no memory: then nothing has happened.
        waiters.wake(stopper);
        waiters.wake(drainer);
        waiters.wake(writer);
        for (auto* const one : waiting) waiters.wake(one->sender);
        closing = true;
        code = with;
        reason = std::move(why);
        for (auto* const one : waiting) one->refuse();
        waiting.clear();
    }

    // --- run

    // Whoever calls `run` may call `close` before its first turn.
    void ask() noexcept {
        if (running) return;
        asked = true;
        closing = ended = false;
    }
    static awaitable<void> run(share self) {
        self->check();
        if (self->running) throw std::system_error(std::make_error_code(std::errc::operation_in_progress));
        running_here const here(self);
        std::exception_ptr error;
        auto trying = connect_again(self);
        try {
            co_await std::move(trying);
        } catch (...) {
            error = std::current_exception();
        }
        self->check();
        self->ended = true;
        ++self->ends;
        for (auto* const r : self->receivers) self->waiters.wake(r->one);
        if (error) std::rethrow_exception(error);
    }

  private:
    static awaitable<void> connect_again(share self) {
        basic_reconnect_schedule<reconnect_policy> schedule(
            self->options.reconnect, static_cast<bool>(self->options.make_headers), steady_clock::now());
        while (true) {
            auto attempting = attempt(self);
            ending const end = co_await std::move(attempting);
            self->check();
            if (self->closing) break;
            self->tell({.what = event::kind::lost, .error = end.why, .detail = end.detail, .code = end.code});
            if (self->closing) break;
            auto const next = schedule.after({.why = end.why, .lasted = end.lasted}, steady_clock::now(),
                                             static_cast<double>(random_32()) / 4294967296.0);
            if (!next.again) {
                self->tell({.what = event::kind::gave_up, .error = end.why});
                throw std::system_error(end.why, end.detail);
            }
            self->tell({.what = event::kind::waiting, .pause = next.pause});
            auto pausing = sleep_for<executor_type>(self->waiters.get_executor(), next.pause);
            auto stopping = until_closing(self, self->stopper);
            co_await race(self->waiters, std::move(pausing), std::move(stopping));
            auto checking = throw_if_cancelled(self);
            co_await std::move(checking);
            if (self->closing) break;
        }
        self->tell({.what = event::kind::closed});
    }

    struct outgoing {
        message_kind kind;
        std::string data{};
    };

    // A message that may have to wait for room, in the frame of its sender.
    struct pending {
        pending(reconnecting& s, outgoing o) : of(s), out(std::move(o)) {}
        pending(pending const&) = delete;
        pending& operator=(pending const&) = delete;
        ~pending() {
            if (waits) of.waiting.erase(place);
        }
        void begin_to_wait() {
            place = of.waiting.insert(of.waiting.end(), this);
            waits = true;
        }
        // The sender has been woken, and goes on in a later turn, when the client may be run again.
        void refuse() noexcept {
            waits = false;
            is_refused = true;
        }

        reconnecting& of;
        outgoing out;
        waiter<executor_type> sender{};
        typename std::list<pending*>::iterator place{};
        bool waits = false;
        bool is_refused = false;  // by `close`
    };

    // One who waits for a message.
    struct receiver {
        explicit receiver(reconnecting& s) : of(s), place(of.receivers.insert(of.receivers.end(), this)) {}
        receiver(receiver const&) = delete;
        receiver& operator=(receiver const&) = delete;
        ~receiver() { of.receivers.erase(place); }

        reconnecting& of;
        waiter<executor_type> one{};
        typename std::list<receiver*>::iterator place;
    };

    struct running_here {
        explicit running_here(share const& s) : self(s) {
            self->running = true;
            self->asked = self->ended = self->shutting = false;
            self->failure = nullptr;
        }
        running_here(running_here const&) = delete;
        running_here& operator=(running_here const&) = delete;
        ~running_here() {
            self->running = self->closing = false;
            self->opened.reset();
        }
        share self;
    };

    // How an attempt, and perhaps the connection, have ended.
    struct ending {
        std::error_code why{};
        std::string detail{};
        close_code code = close_code::abnormal;
        std::optional<steady_clock::duration> lasted{};
    };

    static awaitable<ending> attempt(share self) {
        ending end;
        std::vector<header> more;
        if (self->options.make_headers) more = self->options.make_headers();
        self->check();
        self->tell({.what = event::kind::connecting});
        std::optional<steady_clock::time_point> since;
        try {
            auto opening = open(self, std::move(more));
            auto limited = within<executor_type>(self->waiters, self->options.connect_timeout,
                                                 make_error_code(transport_errc::connect_timeout), std::move(opening));
            auto stopping = until_closing(self, self->stopper);
            co_await race(self->waiters, std::move(limited), std::move(stopping));
            self->check();
            if (self->opened) {
                since = steady_clock::now();
                self->progress = {};
                auto conversing = converse(self);
                co_await std::move(conversing);
            }
        } catch (std::system_error const& e) {
            self->check();
            end.why = e.code();
            end.detail = e.what();
        }
        if (self->failure) std::rethrow_exception(std::exchange(self->failure, nullptr));
        auto checking = throw_if_cancelled(self);
        co_await std::move(checking);
        if (self->opened) end.code = self->opened->received_code();
        if (since)
            end.lasted = steady_clock::now() - *since;
        else
            self->progress.leave_address();
        if constexpr (reporting_transport<Transport>) {
            bool const has_lasted = end.lasted && reaches(*end.lasted, self->options.reconnect.stable_after);
            if (!has_lasted && !self->closing) self->way.report(false);
        }
        self->opened.reset();
        co_return end;
    }

    static awaitable<void> open(share self, std::vector<header> more) {
        auto how = self->options.handshake;
        for (auto& one : more) how.headers.push_back(std::move(one));
        auto const now = steady_clock::now();
        self->progress.begin({now, deadline_after(now, self->options.connect_timeout)});
        auto const watch = [&self](typename Transport::stream_type below) {
            self->check();
            self->heard = std::make_shared<std::uint64_t>(0);
            self->said = std::make_shared<std::uint64_t>(0);
            return watched_stream<typename Transport::stream_type>(std::move(below), self->heard, self->said);
        };
        auto opening = open_over<stream_type, Compression, Transport const&>(
            self->way, self->waiters.get_executor(), &self->progress, std::move(how), self->compression,
            [&self] { return self->way.url(); }, watch);
        auto made = co_await std::move(opening);
        self->check();
        self->subprotocol = made.subprotocol();
        self->opened.emplace(std::move(made));
    }

    // Until the connection is lost, which throws, or closed.
    static awaitable<void> converse(share self) {
        ++self->counters.connections;
        if constexpr (reporting_transport<Transport>) self->way.report(true);
        self->ping_due = self->held_up = false;
        self->tell({.what = event::kind::connected});
        auto reading = read(self);
        auto writing = write(self);
        auto watching = watch(self);
        auto draining = drain(self);
        co_await race(self->waiters, std::move(reading), std::move(writing), std::move(watching), std::move(draining));
    }

    // While the WebSocket is being closed its end is the writer's to tell.
    static awaitable<void> read(share self) {
        auto reading = read_all(self);
        try {
            co_await std::move(reading);
        } catch (std::system_error const&) {
            self->check();
            if (!self->shutting) throw;
        }
        waiter<executor_type> never;
        co_await self->wait(never);
    }

    static awaitable<void> read_all(share self) {
        while (true) {
            self->held_up = self->inbox_bytes >= self->options.maximum_received;
            if (self->held_up) {
                co_await self->wait(self->reader);
                self->check();
                continue;
            }
            auto reading = self->opened->read_message();
            message const m = co_await std::move(reading);
            self->check();
            self->inbox.push_back({m.kind, std::string(m.data)});
            self->inbox_bytes += cost(m.data);
            ++self->counters.received;
            self->wake_receiver();
        }
    }

    // Ends when all has been sent and the WebSocket is closed.
    static awaitable<void> write(share self) {
        while (true) {
            if (std::exchange(self->ping_due, false)) {
                ++self->counters.pings;
                auto pinging = self->opened->ping();
                co_await std::move(pinging);
                self->check();
            } else if (!self->queue.empty()) {
                std::list<outgoing> taken = self->pop();
                outgoing const& message = taken.front();
                ++self->counters.in_doubt;
                auto writing = self->opened->write_message(message.kind, message.data);
                bool is_too_late = false;
                try {
                    co_await std::move(writing);
                } catch (std::system_error const& e) {
                    self->check();
                    is_too_late = e.code() == errc::closing;
                    if (!is_too_late) throw;
                }
                self->check();
                --self->counters.in_doubt;
                if (is_too_late) {  // the server has closed before all of it was sent: why, the reader tells
                    self->put_back(taken);
                    waiter<executor_type> never;
                    co_await self->wait(never);
                }
                ++self->counters.handed_on;
            } else if (self->closing) {
                self->shutting = true;
                auto shutting_down = self->opened->close(self->code, self->reason);
                co_await std::move(shutting_down);
                co_return;
            } else {
                co_await self->wait(self->writer);
                self->check();
            }
        }
    }

    // Pings a server that says nothing, and throws when it does not answer.
    static awaitable<void> watch(share self) {
        auto const& o = self->options;
        auto const sleep = [&](std::chrono::milliseconds for_how_long) {
            return sleep_for<executor_type>(self->waiters.get_executor(), for_how_long);
        };
        while (true) {
            auto const seen = *self->heard;
            bool const never = o.ping_interval.count() == 0;
            auto resting = sleep(never ? (std::chrono::milliseconds::max)() : o.ping_interval);
            co_await std::move(resting);
            self->check();
            if (*self->heard != seen || self->held_up) continue;
            self->ping_due = true;
            self->waiters.wake(self->writer);
            for (bool goes_on = true; goes_on;) {
                auto const delivered = self->delivered();
                auto answering = sleep(o.ping_timeout);
                co_await std::move(answering);
                self->check();
                goes_on = *self->heard == seen && self->delivered() > delivered;
            }
            if (*self->heard == seen && !self->held_up) throw std::system_error(asio::error::timed_out, "ping");
        }
    }

    // Bytes that have reached the other end, as far as the layers below tell. What is added is no progress.
    std::uint64_t delivered() {
        std::uint64_t const held = opened->backlog();
        return *said - (std::min)(*said, held);
    }

    // Ends when what is queued has not been sent for so long after `close`.
    static awaitable<void> drain(share self) {
        auto stopping = until_closing(self, self->drainer);
        co_await std::move(stopping);
        auto limit =
            sleep_for<executor_type>(self->waiters.get_executor(), self->options.handshake.stream.close_timeout);
        co_await std::move(limit);
        self->check();
        waiter<executor_type> never;
        if (self->shutting) co_await self->wait(never);
    }

    static awaitable<void> until_closing(share self, waiter<executor_type>& w) {
        while (!self->closing) {
            co_await self->wait(w);
            self->check();
        }
    }

    static awaitable<void> throw_if_cancelled(share self) {
        self->check();
        auto const state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none) throw std::system_error(asio::error::operation_aborted);
    }

    // Throws what it is woken with.
    awaitable<void> wait(waiter<executor_type>& w) {
        co_await waiters.wait(w);
        if (w.result) throw std::system_error(w.result);
    }

    // --- the queues

    static std::size_t cost(std::string_view data) noexcept { return data.size() + 64; }

    bool has_room(std::size_t size) const noexcept { return has_room(size, queue.size(), queued_bytes); }
    bool has_room(std::size_t size, std::size_t messages, std::size_t bytes) const noexcept {
        if (messages == 0) return true;
        return messages < options.maximum_queued_messages && bytes < options.maximum_queued &&
               size <= options.maximum_queued - bytes;
    }

    // Takes the message if it has its turn and room, or if that can be made.
    bool take(outgoing& out) {
        if (out.kind == message_kind::text && !is_utf8(out.data)) throw std::system_error(errc::invalid_utf8);
        if (closing || !waiting.empty()) return false;
        while (options.when_full == overflow::drop_oldest && !has_room(out.data.size())) {
            queued_bytes -= queue.front().data.size();
            queue.pop_front();
            ++counters.dropped;
        }
        if (!has_room(out.data.size())) return false;
        push(out);
        return true;
    }
    void push(outgoing& out) {
        waiters.wake(writer);  // first, as it may fail
        queue.push_back(std::move(out));
        queued_bytes += queue.back().data.size();
    }
    // Those who wait have the room of the first message before it leaves: for that there may be no memory.
    std::list<outgoing> pop() {
        std::size_t const size = queue.front().data.size();
        auto const has_room_for = [&](pending const& one) {
            return has_room(one.out.data.size(), queue.size() - 1, queued_bytes - size);
        };
        while (!waiting.empty() && has_room_for(*waiting.front())) {
            auto& first = *waiting.front();
            waiters.wake(first.sender);  // first, as it may fail
            push(first.out);
            waiting.pop_front();
            first.waits = false;
        }
        std::list<outgoing> taken;
        taken.splice(taken.end(), queue, queue.begin());
        queued_bytes -= size;
        return taken;
    }

    void put_back(std::list<outgoing>& taken) noexcept {
        queued_bytes += taken.front().data.size();
        queue.splice(queue.begin(), taken);
    }

    void wake_receiver() {
        for (auto* const r : receivers)
            if (r->one.is_waiting()) return waiters.wake(r->one);
    }

    // The handler may destroy the client.
    void tell(event const& e) {
        if (!options.on_event) return;
        share const here(this);
        try {
            options.on_event(e);
        } catch (...) {
            failure = std::current_exception();
            throw;
        }
        this->check();
    }

  public:
    Transport way;
    connect_progress progress{};  // of the attempt, and what was of no use in those before
    reconnecting_options options;
    typename Compression::options compression;
    wait_list<executor_type> waiters;
    std::optional<stream_type> opened{};
    std::string subprotocol{};
    std::list<outgoing> queue{};  // so that the first leaves, and comes back, without any memory
    std::size_t queued_bytes = 0;
    reconnecting_counters counters{};

  private:
    std::list<pending*> waiting{};  // for room, in order
    std::deque<received_message> inbox{};
    std::size_t inbox_bytes = 0;
    std::list<receiver*> receivers{};
    waiter<executor_type> reader{};
    waiter<executor_type> writer{};
    waiter<executor_type> stopper{};
    waiter<executor_type> drainer{};
    std::shared_ptr<std::uint64_t> heard{};  // bytes read from the connection
    std::shared_ptr<std::uint64_t> said{};   // and those that were to be written
    bool asked = false;                      // `run` has been called and has had no turn yet
    bool running = false;
    bool ended = false;    // `run` has been, and is not
    std::size_t ends = 0;  // how often it has ended
    bool closing = false;
    bool held_up = false;  // nothing is read, as nobody takes it
    bool ping_due = false;
    bool shutting = false;         // the writer closes the WebSocket
    std::exception_ptr failure{};  // of the user's handler
    close_code code = close_code::normal;
    std::string reason{};
};

}  // namespace runnel::websocket::detail
