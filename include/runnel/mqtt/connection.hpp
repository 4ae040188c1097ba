#pragma once

#include <runnel/core/receive_buffer.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/session_options.hpp>
#include <runnel/mqtt/session_state.hpp>
#include <runnel/transport/race.hpp>
#include <runnel/transport/stream.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <system_error>

namespace runnel::mqtt {

/// Drives the network connections of a session, one after another: reads and feeds the session state, writes what has
/// gathered, pings. It knows no more of MQTT than the session state tells.
///
/// The session state's handler is the `Listener`, a small copyable object, which has besides `on_read()`: all that one
/// read has brought is handled; `on_write()`: what has gathered is to be written; and `on_room()`: it is being written.
template <stream Stream>
class connection {
  public:
    using executor_type = typename Stream::executor_type;
    template <class T>
    using awaitable = asio::awaitable<T, executor_type>;

    connection(executor_type const& executor, session_state& state, session_options const& options,
               outlet<executor_type>& packets)
        : state_(state),
          options_(options),
          packets_(packets),
          writing_(Stream::headroom),
          tasks_(executor),
          ending_(executor) {}

    /// Lets `drive` write what has gathered, close in good order, and complete, within `close_timeout`.
    void end() {
        is_ending_ = true;
        packets_.wake();
        ending_.wake_all({});
    }
    bool is_ending() const noexcept { return is_ending_; }

    /// Completes once `end` has been called.
    awaitable<void> ended() {
        while (!is_ending_) {
            waiter<executor_type> w;
            co_await ending_.park(w);
            if (w.result) throw std::system_error(w.result);
        }
    }

    /// Makes ready for a new series of connections.
    void restart() noexcept { is_ending_ = false; }

    /// Forgets what belonged to a connection that has gone.
    void reset() noexcept {
        in_.clear();
        packets_.out().clear();
        writing_.clear();
        violation_ = errc::ok;
    }

    /// Writes what has been encoded, before `drive` does so: CONNECT, and AUTH.
    template <class Listener>
    awaitable<void> write(Stream& s, Listener listener) {
        co_await s.write(gather(listener));
        last_sent_ = asked_ = clock::now();
    }

    /// Reads once, before `drive` does so. A server that has broken the protocol is told so, and the error is thrown.
    template <class Listener>
    awaitable<void> read(Stream& s, Listener listener) {
        errc const violation = handle(co_await s.read_some(room()), listener);
        if (violation == errc::ok) co_return;
        tell(violation);
        if (!packets_.out().empty()) co_await s.write(gather(listener));
        throw std::system_error(violation);
    }

    /// Reads and writes until the server says DISCONNECT, or `end` is called; throws when the connection is lost, and
    /// `errc::keep_alive_timeout` when the server does not answer a ping. `keep_alive` of 0: no pings.
    template <class Listener>
    awaitable<void> drive(Stream& s, Listener listener, std::chrono::seconds keep_alive) {
        auto reading = read_loop(s, listener);
        auto writing = write_loop(s, listener);
        auto pinging = keep_alive_loop(keep_alive);
        auto closing = close_limit();
        co_await race(tasks_, std::move(reading), std::move(writing), std::move(pinging), std::move(closing));
    }

    /// The server has answered CONNECT or a ping.
    void on_answer() noexcept { round_trip_ = clock::now() - asked_; }

    void count(session_counters& c) const noexcept {
        c.bytes_received = bytes_received_;
        c.bytes_sent = bytes_sent_;
        c.writes = writes_;
        c.round_trip = std::chrono::duration_cast<std::chrono::microseconds>(round_trip_);
    }

  private:
    using clock = std::chrono::steady_clock;

    template <class Listener>
    awaitable<void> read_loop(Stream& s, Listener listener) {
        while (state_.connected() || is_ending_) {
            errc const violation = handle(co_await s.read_some(room()), listener);
            if (violation != errc::ok) co_await end_over(violation);
        }
    }

    asio::mutable_buffer room() {
        auto const free = in_.prepare(state_.expected_size());
        return {free.data(), free.size()};
    }

    // `n` bytes have been read.
    template <class Listener>
    errc handle(std::size_t n, Listener& listener) {
        in_.commit(n);
        bytes_received_ += n;
        last_received_ = clock::now();
        auto input = in_.data();
        errc const violation = state_.receive(input, packets_.out(), listener);
        in_.consume(in_.data().size() - input.size());
        listener.on_read();
        packets_.flush();
        return violation;
    }

    void tell(errc violation) {
        if (state_.version() == protocol_version::v5) state_.disconnect(packets_.out(), {reason_for(violation), {}});
    }

    // The server has broken the protocol: it is told so, if the version has a way, and the connection ends.
    awaitable<void> end_over(errc violation) {
        violation_ = violation;
        tell(violation);
        packets_.wake();
        co_await sleep_for<executor_type>(tasks_.get_executor(), options_.close_timeout);
        throw std::system_error(violation);
    }

    template <class Listener>
    awaitable<void> write_loop(Stream& s, Listener listener) {
        for (;;) {
            while (packets_.out().empty() && !is_ending_ && violation_ == errc::ok) {
                waiter<executor_type> w;
                co_await packets_.writer().park(w);
                if (w.result) throw std::system_error(w.result);
            }
            if (packets_.out().empty()) break;
            co_await s.write(gather(listener));
            last_sent_ = clock::now();
        }
        if (violation_ != errc::ok) throw std::system_error(violation_);
        co_await s.shutdown();
    }

    // What has gathered is now to be written, and gathering goes on in the other buffer.
    template <class Listener>
    send_buffer& gather(Listener& listener) {
        listener.on_write();
        writing_.swap(packets_.out());
        bytes_sent_ += writing_.size();
        ++writes_;
        listener.on_room();
        return writing_;
    }

    awaitable<void> keep_alive_loop(std::chrono::seconds keep_alive) {
        // Three quarters: the next packet is to be sent before the interval is over [MQTT-3.1.2-20].
        auto const interval = std::chrono::duration_cast<clock::duration>(keep_alive) * 3 / 4;
        std::optional<clock::time_point> unanswered;  // since when
        clock::time_point last_ping{};
        for (;;) {
            auto const now = clock::now();
            if (unanswered && last_received_ >= *unanswered) unanswered.reset();
            auto const give_up = unanswered ? *unanswered + options_.response_timeout : clock::time_point::max();
            // A server that only takes must give a sign of life too, or a dead one would swallow all QoS 0 messages.
            auto const ping = std::max(last_ping, std::min(last_sent_, last_received_)) + interval;
            auto const due = std::min(ping, give_up);
            if (interval == clock::duration::zero()) {
                waiter<executor_type> forever;
                co_await tasks_.park(forever);
                if (forever.result) throw std::system_error(forever.result);
            } else if (due > now) {
                co_await sleep_for<executor_type>(tasks_.get_executor(), due - now);
            } else if (give_up <= now) {
                throw std::system_error(errc::keep_alive_timeout);
            } else {
                state_.ping(packets_.out());
                packets_.flush();
                last_ping = asked_ = now;
                if (!unanswered) unanswered = now;
            }
        }
    }

    awaitable<void> close_limit() {
        co_await ended();
        co_await sleep_for<executor_type>(tasks_.get_executor(), options_.close_timeout);
    }

    session_state& state_;
    session_options const& options_;
    receive_buffer in_;
    outlet<executor_type>& packets_;  // what has been gathered
    send_buffer writing_;             // what is being written
    parking<executor_type> tasks_;
    parking<executor_type> ending_;
    clock::time_point last_sent_{};
    clock::time_point last_received_{};
    clock::time_point asked_{};  // something that the server answers at once
    clock::duration round_trip_{};
    std::uint64_t bytes_received_ = 0;
    std::uint64_t bytes_sent_ = 0;
    std::uint64_t writes_ = 0;
    errc violation_ = errc::ok;
    bool is_ending_ = false;
};

}  // namespace runnel::mqtt
