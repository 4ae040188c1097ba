#pragma once

#include <runnel/core/receive_buffer.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/outlet.hpp>
#include <runnel/mqtt/session_options.hpp>
#include <runnel/mqtt/session_state.hpp>
#include <runnel/transport/direct_read.hpp>
#include <runnel/transport/side_task.hpp>
#include <runnel/transport/stream.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// Drives the network connections of a session, one after another, and the pauses between them: two coroutines side by
/// side, of which one connects and then reads, and the other writes what has gathered. It knows no more of MQTT than
/// the session state tells.
///
/// The session state's handler is the `Listener`, a small copyable object, which has besides `on_read()`: all that one
/// read has brought is handled; `on_write()`: what has gathered is to be written; and `on_room()`: it is being written.
///
/// An idle session has no writer: there is one from the first packet until the next ping finds nothing else to do.
template <stream Stream>
class connection {
  public:
    using executor_type = typename Stream::executor_type;
    using clock = std::chrono::steady_clock;
    using coroutine = typename side_task<executor_type>::coroutine;

    connection(session_state& state, session_options const& options, outlet<executor_type>& packets)
        : state_(state),
          options_(options),
          packets_(packets),
          writing_(Stream::headroom),
          place_(packets.queue()),
          reader_(&reader_ended, this),
          writer_(&writer_ended, this) {}

    // --- for whoever runs the session: begins one thing after another, and waits at `place` until it is over

    /// Makes ready for a new series of connections.
    void restart() noexcept { is_ending_ = false; }

    /// Asks for an attempt to connect: `attend` finds it due.
    void ask_for_attempt() {
        what_ = doing::about_to_connect;
        is_over_ = false;
        why_ = errc::disconnected;
        packets_.attend();
    }
    bool is_attempt_due() const noexcept { return what_ == doing::about_to_connect; }

    /// Begins the coroutine that connects, then calls `established`, then reads, and at last calls `end_reading`.
    [[gnu::cold]] void start(coroutine attempt) {
        what_ = doing::connecting;
        limit_ = clock::now() + options_.connect_timeout;
        reader_.start(place_.get_executor(), std::move(attempt));
    }

    void pause(clock::duration duration) {
        what_ = doing::pausing;
        is_over_ = false;
        limit_ = clock::now() + duration;
        packets_.attend();
    }

    /// Whether what was begun goes on.
    bool is_busy() const noexcept { return what_ != doing::nothing || reader_.running() || writer_.running(); }
    parking<executor_type>& place() noexcept { return place_; }

    /// Ends it.
    void cancel() { over(asio::error::operation_aborted); }

    /// Lets the connection write what has gathered, close in good order, and end, within `close_timeout`. Ends at once
    /// what else there is.
    void end() {
        is_ending_ = true;
        if (what_ != doing::connected) return over({});
        limit_ = clock::now() + options_.close_timeout;
        packets_.wake();
        packets_.attend();
    }
    bool is_ending() const noexcept { return is_ending_; }

    /// Why the last connection, or the attempt to make one, has ended.
    std::error_code why() const noexcept { return why_; }
    void set_reason(std::error_code why) noexcept { why_ = why; }
    /// What has been thrown that is no `std::system_error`, or was meant to end the session: at most once.
    std::exception_ptr take_failure() noexcept { return std::exchange(failure_, nullptr); }
    void fail(std::exception_ptr why) {
        failure_ = std::move(why);
        over({});
    }

    /// Forgets what belonged to a connection that has gone.
    void reset() noexcept {
        in_.clear();
        packets_.out().clear();
        packets_.set_writer(false);
        writing_.clear();
        violation_ = errc::ok;
        limit_ = never;
    }

    // --- for the coroutine that connects and reads

    /// Where to read to. Throws `operation_aborted` if all is over.
    asio::mutable_buffer room() {
        if (is_over_) throw std::system_error(asio::error::operation_aborted);
        auto const free = in_.prepare(state_.expected_size());
        return {free.data(), free.size()};
    }

    /// What has gathered is now to be written, and gathering goes on in the other buffer.
    template <class Listener>
    send_buffer& gather(Listener listener) {
        listener.on_write();
        writing_.swap(packets_.out());
        bytes_sent_ += writing_.size();
        ++writes_;
        listener.on_room();
        return writing_;
    }

    /// Something has been read, or nothing more can be: then it throws. An error: the server has broken the protocol;
    /// it is told so, if the version has a way.
    template <class Listener>
    errc handle(read_outcome read, Listener listener) {
        if (read.error) throw std::system_error(read.error);
        std::size_t const n = read.size;
        in_.commit(n);
        bytes_received_ += n;
        last_received_ = clock::now();
        auto input = in_.data();
        errc const violation = state_.receive(input, packets_.out(), listener);
        in_.consume(in_.data().size() - input.size());
        listener.on_read();
        if (violation != errc::ok && state_.version() == protocol_version::v5)
            state_.disconnect(packets_.out(), {reason_for(violation), {}});
        packets_.flush();
        if (std::exchange(is_answered_, false) && n == ping_size) rest();
        return violation;
    }

    /// The server has accepted the connection. `keep_alive` of 0: no pings.
    void established(std::chrono::seconds keep_alive) {
        what_ = doing::connected;
        limit_ = never;
        // Three quarters: the next packet is to be sent before the interval is over [MQTT-3.1.2-20].
        interval_ = std::chrono::duration_cast<clock::duration>(keep_alive) * 3 / 4;
        unanswered_ = never;
        last_ping_ = {};
        writing_.release();  // it was for CONNECT
        packets_.attend();
    }

    /// Whether there is anything to read.
    bool is_reading() const noexcept { return (state_.connected() || is_ending_) && violation_ == errc::ok; }
    void end_reading(std::exception_ptr error) { reader_.end(std::move(error)); }

    /// The connection ends as soon as what has gathered is written, for `violation`.
    void end_over(errc violation) {
        violation_ = violation;
        why_ = violation;
        limit_ = clock::now() + options_.close_timeout;
        packets_.attend();
    }

    /// CONNECT, or a step of the authentication, has been written.
    void on_asked() noexcept { last_sent_ = asked_ = clock::now(); }

    // --- for the session

    /// Does what is due at `now`; returns when there will be something to do.
    template <class Listener>
    [[gnu::cold]] clock::time_point attend(clock::time_point now, Stream* s, Listener listener) {
        if (what_ == doing::connected && !is_over_) keep_alive(now);
        if (what_ == doing::connected && !is_over_ && !writer_.running() && has_to_write()) {
            packets_.set_writer(true);
            auto writing = write_loop(*s, listener);
            writer_.start(place_.get_executor(), std::move(writing));
        }
        if (limit_ <= now)
            over(what_ == doing::connecting ? make_error_code(errc::connect_timeout) : std::error_code{});
        return what_ == doing::nothing ? never : std::min(limit_, next_ping());
    }

    /// The server has answered CONNECT or a ping.
    void on_answer() noexcept {
        round_trip_ = clock::now() - asked_;
        is_answered_ = true;
    }

    void count(session_counters& c) const noexcept {
        c.bytes_received = bytes_received_;
        c.bytes_sent = bytes_sent_;
        c.writes = writes_;
        c.round_trip = std::chrono::duration_cast<std::chrono::microseconds>(round_trip_);
    }

  private:
    enum class doing : std::uint8_t { nothing, about_to_connect, connecting, connected, pausing };
    static constexpr auto never = clock::time_point::max();
    static constexpr std::size_t ping_size = 2;

    bool is_closing() const noexcept { return is_ending_ || violation_ != errc::ok; }
    bool has_to_write() noexcept { return !packets_.out().empty() || is_closing(); }

    // What is being done ends. The first reason counts.
    [[gnu::cold]] void over(std::error_code why) {
        if (!std::exchange(is_over_, true) && why) why_ = why;
        what_ = doing::nothing;
        limit_ = never;
        reader_.cancel();
        writer_.cancel();
        if (!is_busy()) place_.wake_one();
    }

    // The same, when a coroutine has ended.
    [[gnu::cold]] void ended(std::exception_ptr error) noexcept {
        std::error_code why;
        try {
            if (error && !is_over_) std::rethrow_exception(error);
        } catch (std::system_error const& e) {
            why = e.code();
        } catch (...) {
            failure_ = std::move(error);
        }
        over(why);
    }

    [[gnu::cold]] static void reader_ended(void* of, std::exception_ptr error) {
        auto& self = *static_cast<connection*>(of);
        bool const telling = self.violation_ != errc::ok && !self.is_over_ && !self.packets_.out().empty();
        bool const writing = self.violation_ != errc::ok && !self.is_over_ && !self.writing_.empty();
        if (!telling && !writing) self.ended(std::move(error));
    }

    [[gnu::cold]] static void writer_ended(void* of, std::exception_ptr error) {
        auto& self = *static_cast<connection*>(of);
        self.packets_.set_writer(false);
        if (error || self.is_over_ || self.is_closing()) return self.ended(std::move(error));
        self.is_resting_ = false;
        self.packets_.flush();  // what has come meanwhile
    }

    template <class Listener>
    coroutine write_loop(Stream& s, Listener listener) {
        std::exception_ptr error;
        try {
            for (;;) {
                while (!has_to_write() && !is_resting_) {
                    waiter<executor_type> w;
                    co_await packets_.writer().park(w);
                    if (w.result) throw std::system_error(w.result);
                }
                if (packets_.out().empty()) break;
                is_resting_ = false;
                co_await s.write(gather(listener));
                last_sent_ = clock::now();
            }
            if (is_ending_ && violation_ == errc::ok) co_await s.shutdown();
        } catch (...) {
            error = std::current_exception();
        }
        writer_.end(std::move(error));
    }

    // A ping and its answer were all there was: an idle session keeps no memory that it can do without.
    [[gnu::cold]] void rest() noexcept {
        if (writes_ - writes_before_ping_ > 1 || !packets_.out().empty() || !writing_.empty()) return;
        in_.release_if_idle();
        writing_.release();
        packets_.out().release();
        state_.release_idle_memory();
        is_resting_ = writer_.running();
        packets_.wake();
    }

    [[gnu::cold]] void keep_alive(clock::time_point now) {
        if (interval_ == clock::duration::zero()) return;
        if (last_received_ >= unanswered_) unanswered_ = never;
        if (unanswered_ != never && now - unanswered_ >= options_.response_timeout)
            return over(errc::keep_alive_timeout);
        if (next_ping_alone() > now) return;
        state_.ping(packets_.out());
        packets_.wake();
        last_ping_ = asked_ = now;
        writes_before_ping_ = writes_;
        if (unanswered_ == never) unanswered_ = now;
    }

    // A server that only takes must give a sign of life too, or a dead one would swallow all QoS 0 messages.
    clock::time_point next_ping_alone() const noexcept {
        return std::max(last_ping_, std::min(last_sent_, last_received_)) + interval_;
    }
    clock::time_point next_ping() const noexcept {
        if (what_ != doing::connected || interval_ == clock::duration::zero()) return never;
        if (unanswered_ == never) return next_ping_alone();
        return std::min(next_ping_alone(), unanswered_ + options_.response_timeout);
    }

    session_state& state_;
    session_options const& options_;
    receive_buffer in_;
    outlet<executor_type>& packets_;  // what has been gathered
    send_buffer writing_;             // what is being written
    parking<executor_type> place_;
    side_task<executor_type> reader_;
    side_task<executor_type> writer_;
    clock::time_point limit_ = never;  // of what is being done
    clock::time_point last_sent_{};
    clock::time_point last_received_{};
    clock::time_point asked_{};             // something that the server answers at once
    clock::time_point last_ping_{};         // on this connection
    clock::time_point unanswered_ = never;  // the first ping that has not been answered
    clock::duration interval_{};
    clock::duration round_trip_{};
    std::uint64_t bytes_received_ = 0;
    std::uint64_t bytes_sent_ = 0;
    std::uint64_t writes_ = 0;
    std::uint64_t writes_before_ping_ = 0;
    std::error_code why_;
    std::exception_ptr failure_;
    errc violation_ = errc::ok;
    doing what_ = doing::nothing;
    bool is_over_ = false;
    bool is_ending_ = false;
    bool is_answered_ = false;
    bool is_resting_ = false;  // the writer is to end for want of work
};

}  // namespace runnel::mqtt
