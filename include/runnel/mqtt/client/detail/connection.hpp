#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/receive_buffer.hpp>
#include <runnel/core/saturating.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/coro/child_task.hpp>
#include <runnel/coro/direct_read.hpp>
#include <runnel/mqtt/client/detail/output_queue.hpp>
#include <runnel/mqtt/client/session_options.hpp>
#include <runnel/mqtt/protocol/keep_alive.hpp>
#include <runnel/mqtt/protocol/lifecycle.hpp>
#include <runnel/mqtt/protocol/publish_queue.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>
#include <runnel/transport/stream.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel::mqtt::detail {

/// What the network connections of a session have, one after another, and the pauses between them: the machines that
/// decide (`lifecycle`, `keep_alive`), the buffers, and two coroutines, of which one connects and then reads, and the
/// other writes what has gathered. The coroutines themselves are in run.hpp.
///
/// An idle session has no writer: there is one from the first packet until the next ping finds nothing else to do.
///
/// Nothing runs at the same time. While a coroutine is suspended, others may write this:
///
/// | member           | is written by                        | while who uses it is suspended                        |
/// |------------------|--------------------------------------|-------------------------------------------------------|
/// | `in_`            | the reader                           | its read has the room behind the data. `end_over`     |
/// |                  |                                      | empties it all the same: what comes then is dropped   |
/// | `packets_.out()` | all append; only the writer takes    | anybody may append, and `stop` drops what is there    |
/// | `writing_`       | the writer, by `gather`; if nothing  | it is the stream's until the write is over; others    |
/// |                  | is written, `release_idle_memory`    | ask only for its size                                 |
/// | all else         | all, in one step                     | anything; who goes on asks for the state again        |
///
/// `run` waits at `waiters` until neither reader nor writer runs; only then it calls `reset`.
template <class Executor>
class connection {
  public:
    using executor_type = Executor;
    using clock = session_clock;
    using state = lifecycle::state;

    connection(session_state& rules, session_options const& options, output_queue<Executor>& packets,
               std::size_t headroom)
        : state_(rules),
          options_(options),
          packets_(packets),
          writing_(headroom),
          waiters_(packets.queue()),
          reader_(&reader_ended, this),
          writer_(&writer_ended, this) {}
    RUNNEL_COLD ~connection() {
        if (is_wiped_) return;
        writing_.wipe();
        packets_.out().wipe();
    }

    lifecycle const& life() const noexcept { return life_; }
    child_task<Executor>& reader() noexcept { return reader_; }
    child_task<Executor>& writer() noexcept { return writer_; }

    // --- for whoever runs the session: begins one thing after another, and waits at `waiters` until it is over

    /// Prepares a new series of connections.
    void begin_run() noexcept {
        life_.begin_run();
        failure_ = nullptr;
    }

    /// Asks for an attempt to connect, which begins in a later turn.
    void ask_for_attempt() {
        life_.attempt();
        packets_.timer().soon();
    }
    /// What gathers, or is being written, is not to be left behind.
    void wipe_when_written() noexcept { is_wiped_ = false; }

    /// The attempt begins.
    void open() noexcept {
        life_.open(clock::now(), options_.connect_timeout);
        had_freed_ = false;
        is_wiped_ = false;
        left_ = {};
        written_at_ = {};
    }

    void pause(std::chrono::milliseconds duration) {
        life_.pause(clock::now(), duration);
        packets_.timer().soon();
    }

    /// Whether what was begun goes on.
    bool is_busy() const noexcept { return !life_.is(state::idle); }
    wait_list<Executor>& waiters() noexcept { return waiters_; }

    /// Ends it.
    void cancel() {
        if (is_busy()) end(asio::error::operation_aborted);
    }

    /// Lets the connection write what has gathered, close in good order, and end, within `close_timeout`. Ends at once
    /// what else there is. `may_speak`: CONNECT has gone.
    RUNNEL_COLD void close(bool may_speak) {
        auto const now = clock::now();
        life_.close(may_speak, now, options_.close_timeout);
        if (life_.is(state::over)) return stop();
        if (is_empty()) life_.leave(now);
        keep_alive_.end();  // nothing follows DISCONNECT; the time is bounded
        packets_.wake();
        packets_.timer().soon();
    }

    /// The peer cannot be gone on with: it is told `why`, if the version has a way, and nothing of it counts any more.
    RUNNEL_COLD void end_over(errc why) {
        auto const now = clock::now();
        bool const may_speak = state_.version() == protocol_version::v5;
        life_.violate(why, may_speak, now, options_.close_timeout);
        keep_alive_.end();
        if (may_speak)
            state_.disconnect(packets_.out(), {reason_for(why), {}});
        else
            state_.connection_lost();
        if (is_empty()) life_.leave(now);
        in_.clear();
        packets_.wake();
        packets_.timer().soon();
    }

    /// Throws, at most once, what has been thrown that is no `std::system_error`, or was meant to end the session.
    void rethrow_failure() {
        if (auto failure = std::exchange(failure_, nullptr)) std::rethrow_exception(std::move(failure));
    }
    void fail(std::exception_ptr why) {
        failure_ = std::move(why);
        end({});
    }
    /// Whether there is something for `rethrow_failure` to throw.
    bool has_failed() const noexcept { return failure_ != nullptr; }

    /// The stream goes, with what it has not passed on, as `at` says. That is lost, but for what has come behind
    /// DISCONNECT: close_notify, a close frame, the end itself.
    void lose(flow_position at) noexcept {
        if (at.written - at.taken > largest_ending) life_.lose();
    }

    /// The stream is about to go, though reader and writer may be running: nothing is told of their end. As the
    /// execution context ends they may be left though what they wait for has gone, which would be cancelled by way of
    /// the stream.
    RUNNEL_COLD void abandon() noexcept {
        reader_.abandon();
        writer_.abandon();
        if (life_.is(state::over)) life_.rest();  // `run` could not wait, for want of memory
    }

    /// Forgets what belonged to a connection that has gone.
    void reset() noexcept {
        in_.clear();
        if (!is_wiped_) wipe_secrets();
        packets_.out().clear();
        packets_.set_writer(false);
        writing_.clear();
        keep_alive_.end();
        is_writing_ = is_held_ = is_input_over_ = is_output_over_ = false;
    }

    /// What has been read and is no whole packet.
    std::string_view unread() const noexcept { return in_.data(); }

    /// What the last connection has left unanswered, and when something was written to it last that was no ping.
    unanswered_exchanges const& left() const noexcept { return left_; }
    clock::time_point written_at() const noexcept { return written_at_; }
    /// Whether the server may have ended it for a packet identifier that it has not come to answer: see `has_freed`.
    bool had_freed() const noexcept { return had_freed_; }

    // --- for the reader

    /// Whether there is anything to read: to the peer's end, also while the connection closes.
    bool is_reading() const noexcept {
        return life_.is_open() && (state_.current_phase() != session_state::phase::disconnected || life_.is_violated());
    }

    /// Where to read to. Throws `operation_aborted` if all is over.
    asio::mutable_buffer room() {
        if (!life_.is_open()) throw std::system_error(asio::error::operation_aborted);
        auto const free = in_.prepare_for_packet(state_.expected_size());
        return {free.data(), free.size()};
    }

    /// Something has been read, or nothing more can be: then it throws. Packets are handled until the peer breaks the
    /// protocol; then the peer is told so, if the version has a way, and what comes is dropped.
    template <class Listener>
    void handle(read_outcome const& read, Listener listener) {
        if (read.error) throw std::system_error(read.error);
        std::size_t const n = read.size;
        auto const now = clock::now();
        in_.commit(n);
        bytes_received_ += n;
        keep_alive_.on_received(now);
        if (life_.is_violated()) return in_.clear();
        tell_time();  // what has waited counts its interval down when it is sent
        if (life_.is(state::closing) && n != 0) [[unlikely]]
            part(now);
        auto input = in_.data();
        std::size_t const before = packets_.out().size();
        errc violation = state_.receive(input, packets_.out(), listener);
        in_.consume(in_.data().size() - input.size());
        if ((is_writing_ || is_held_) && packets_.out().size() > before) [[unlikely]]
            count_answers(packets_.out().size() - before, n, violation);
        listener.on_read();
        if (violation != errc::ok) {
            listener.on_violation(input);
            end_over(violation);
        }
        packets_.flush();
        if (std::exchange(is_answered_, false) && n == ping_size) release_idle_memory();
    }

    /// Before anything that may send messages: tells the state the time, if it needs it.
    void tell_time() {
        if (state_.needs_time()) [[unlikely]]
            state_.set_time(to_session_time(clock::now()));
    }

    /// The server has answered CONNECT or a ping. Nobody knows when a ping has left that is still being written, with
    /// what is behind it.
    void on_answer() noexcept {
        if (!writes_ping()) round_trip_ = clock::now() - asked_;
        keep_alive_.on_answered();
        is_answered_ = true;
    }

    /// The server has accepted the connection. `keep_alive` of 0: no pings. `held`: nothing is written until `release`.
    void accept(std::chrono::seconds keep_alive, bool held) {
        life_.accept();
        keep_alive_.begin(keep_alive, options_.response_timeout, clock::now());
        is_held_ = held;
        packets_.timer().soon();
    }
    /// What has been accepted.
    std::chrono::seconds agreed_keep_alive() const noexcept { return keep_alive_.interval(); }
    bool is_held() const noexcept { return is_held_; }
    void release() {
        is_held_ = false;
        packets_.wake();
        packets_.timer().soon();
    }

    /// The server says why it ends the connection, on which nothing can be answered any more.
    void blame(std::error_code why) noexcept {
        had_freed_ = state_.has_freed();
        left_ = state_.unanswered();
        life_.blame(why);
    }

    // --- for the writer

    /// Whether a writer is to be started.
    bool needs_writer() noexcept { return life_.is_open() && !writer_.running() && has_to_write(); }

    /// Whether there is something for the writer to do.
    bool has_to_write() noexcept { return has_packets() || (may_shut_down() && !is_output_over_); }
    /// Whether the writer is to end for want of work.
    bool is_resting() const noexcept { return is_resting_; }

    /// What has gathered is now to be written, and gathering goes on in the other buffer.
    template <class Listener>
    send_buffer& gather(Listener listener) {
        listener.on_write();
        answers_ = 0;
        writing_.swap(packets_.out());
        keep_alive_.on_write();
        bytes_sent_ += writing_.size();
        is_writing_ = true;
        ++writes_;
        tell_time();
        listener.on_room();
        return writing_;
    }
    /// Of what is being written, `n` bytes more are, or fewer, than `gather` has counted.
    void count_written(std::int64_t n) noexcept { bytes_sent_ += static_cast<std::uint64_t>(n); }
    /// Whether a ping is in what is being written.
    bool writes_ping() const noexcept { return keep_alive_.current() == keep_alive::state::writing; }
    /// It has been written; `position` counts only behind a ping.
    void on_written(flow_position position) {
        auto const now = clock::now();
        is_writing_ = false;
        is_resting_ = life_.is(state::opening);
        if (!is_wiped_) [[unlikely]]
            wipe_secrets();
        (is_resting_ || writes_ping() ? asked_ : written_at_) = now;
        keep_alive_.on_written(now, position);
        if (life_.is(state::closing)) [[unlikely]]
            part(now);
        if (state_.is_paced()) packets_.timer().soon();
    }
    /// Whether there are packets that may be written.
    bool has_packets() noexcept { return !is_held_ && !is_output_over_ && !packets_.out().empty(); }
    /// Whether all that is to be written has been, so that the stream can be shut down.
    bool is_written() noexcept { return may_shut_down() && is_empty(); }
    /// The stream is shut down towards the peer.
    void on_shut_down() noexcept { is_output_over_ = true; }

    /// How far the bytes have come of which the layers below hold `backlog`.
    flow_position position(std::size_t backlog) const noexcept {
        auto const written = bytes_sent_ - std::min<std::uint64_t>(bytes_sent_, writing_.size());
        return {written, written - std::min<std::uint64_t>(written, backlog)};
    }
    /// Whether nothing waits to be written, or is being written.
    bool is_empty() noexcept { return !is_writing_ && packets_.out().empty(); }

    // --- for the session

    /// Does what is due at `now`, with the stream's `position`; returns when there will be something to do. `is_deaf`:
    /// nothing is read, as the application does not take its messages, so that nothing can be heard either.
    RUNNEL_COLD clock::time_point advance(clock::time_point now, flow_position position, bool is_deaf) {
        if (is_deaf) keep_alive_.on_received(now);
        if (life_.is(state::online)) {
            auto const action = keep_alive_.advance(now, position);
            if (action == keep_alive::action::ping) ping();
            if (action == keep_alive::action::dead) end(errc::keep_alive_timeout);
        }
        if (life_.deadline() <= now) {
            life_.expire(now, !is_empty() || is_under_way(position));
            stop();
        }
        auto const due = (std::min)(life_.deadline(), keep_alive_.due());
        if (!life_.is(state::closing) || is_output_over_) return due;
        if (is_empty() && is_under_way(position)) life_.take(now, position.taken);
        if (may_shut_down()) packets_.wake();
        return life_.shutdown_at() > now ? (std::min)(due, life_.shutdown_at()) : due;
    }

    /// Bytes, over all connections.
    std::uint64_t received() const noexcept { return bytes_received_; }

    void count(session_counters& c) const noexcept {
        c.bytes_received = bytes_received_;
        c.bytes_sent = bytes_sent_;
        c.writes = writes_;
        c.round_trip = std::chrono::duration_cast<std::chrono::microseconds>(round_trip_);
    }

  private:
    static constexpr std::size_t ping_size = 2;
    static constexpr std::size_t largest_ending = 256;
    static constexpr std::size_t answers_limit = 1024 * 1024;
    static constexpr std::chrono::milliseconds hearing_limit{100};  // what a socket has is read at once

    RUNNEL_COLD void part(clock::time_point now) {
        if (is_empty() && life_.part(now)) packets_.timer().soon();
    }
    bool may_shut_down() const noexcept {
        return life_.is(state::closing) && (is_input_over_ || clock::now() >= life_.shutdown_at());
    }

    // Answers wait for a write that is under way. A peer that keeps to packet identifiers can be owed 65,535
    // acknowledgements, twice; one that asks for more and does not take them fills the memory. No answer is twice as
    // long as what it answers, and what handlers publish meanwhile has its own bounds.
    RUNNEL_COLD void count_answers(std::size_t added, std::size_t received, errc& violation) noexcept {
        answers_ += (std::min)(added, 2 * received);
        auto const published = add_saturating(options_.maximum_unwritten, options_.maximum_queued);
        if (answers_ > add_saturating(published, answers_limit) && violation == errc::ok)
            violation = errc::answers_not_taken;
    }

    // CONNECT is the first packet that is written, or never is: the password in it is not left behind. A secret that
    // comes later may still be among the packets that gather; then those are wiped, too, when they have been written.
    RUNNEL_COLD void wipe_secrets() noexcept {
        is_wiped_ = !life_.is_open() || packets_.out().empty();
        writing_.wipe();
        if (!life_.is_open()) packets_.out().wipe();
    }

    // What is being done ends. The first cause counts.
    RUNNEL_COLD void end(std::error_code why) {
        life_.end(why, !is_empty());
        stop();
    }

    // Nothing goes on: neither here nor in the session state, so that nobody takes the connection for one.
    RUNNEL_COLD void stop() {
        if (state_.connected()) left_ = state_.unanswered();
        state_.connection_lost();
        packets_.out().clear();
        keep_alive_.end();
        reader_.cancel();
        writer_.cancel();
        rest_if_over();
    }

    RUNNEL_COLD void rest_if_over() {
        if (!life_.is(state::over) || reader_.running() || writer_.running()) return;
        waiters_.wake_one();  // first, as it may fail
        life_.rest();
    }

    // A coroutine has ended, and with it the connection.
    RUNNEL_COLD void end_by(std::exception_ptr error) noexcept {
        std::error_code why;
        try {
            if (error && !life_.is(state::over)) std::rethrow_exception(error);
        } catch (std::system_error const& e) {
            why = e.code();
        } catch (...) {
            failure_ = std::move(error);
        }
        // A socket tells of a reset once: if a write is told, a read only finds that there is nothing more.
        if (why == asio::error::eof && life_.broken() == asio::error::connection_reset) why = {};
        end(why);
    }

    RUNNEL_COLD static void reader_ended(void* of, std::exception_ptr error) {
        auto& self = *static_cast<connection*>(of);
        self.is_input_over_ = true;
        // What is left is still to be written, if it may be.
        bool const closing = self.life_.is(state::closing) && !self.life_.broken();
        if (closing && !self.is_held_ && self.has_to_write_or_writes()) {
            try {
                self.packets_.wake();  // it may shut down now
                return self.packets_.timer().soon();
            } catch (...) {
                error = std::current_exception();
            }
        }
        self.end_by(std::move(error));
    }

    // Whether something is under way that the peer has not had. If it has ended, that may be what follows DISCONNECT.
    bool is_under_way(flow_position at) const noexcept {
        return at.written - at.taken > (is_input_over_ ? largest_ending : 0);
    }

    bool has_to_write_or_writes() noexcept { return writer_.running() || has_to_write(); }

    RUNNEL_COLD static void writer_ended(void* of, std::exception_ptr error) {
        auto& self = *static_cast<connection*>(of);
        self.packets_.set_writer(false);
        if (error && self.can_hear()) return self.break_off(error);
        bool const closed = self.is_output_over_ && self.is_input_over_;
        if (error || closed || self.life_.is(state::over)) return self.end_by(std::move(error));
        self.is_resting_ = false;
        self.packets_.flush();  // what has come meanwhile
    }

    // Whether the peer may have said why it does not take what is written.
    bool can_hear() const noexcept { return is_reading() && !is_input_over_ && !life_.is_violated(); }

    // A write has failed: what the peer has said before goes first.
    RUNNEL_COLD void break_off(std::exception_ptr const& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (std::system_error const& e) {
            life_.break_off(e.code(), clock::now(),
                            std::min<std::chrono::milliseconds>(options_.close_timeout, hearing_limit));
        } catch (...) {
            return end_by(error);
        }
        is_output_over_ = true;
        keep_alive_.end();
        packets_.timer().soon();
    }

    // A ping and its answer were all there was: an idle session keeps no memory that it can do without.
    RUNNEL_COLD void release_idle_memory() noexcept {
        if (writes_ - writes_before_ping_ > 1 || !is_empty()) return;
        in_.release_if_idle();
        writing_.release();
        packets_.out().release();
        state_.release_idle_memory();
        is_resting_ = writer_.running();
        packets_.wake();
    }

    RUNNEL_COLD void ping() {
        state_.ping(packets_.out());
        packets_.flush();
        writes_before_ping_ = writes_;
    }

    session_state& state_;
    session_options const& options_;
    receive_buffer in_{};
    output_queue<Executor>& packets_;  // what has been gathered
    send_buffer writing_;              // what is being written
    wait_list<Executor> waiters_;
    child_task<Executor> reader_;
    child_task<Executor> writer_;
    lifecycle life_{};
    keep_alive keep_alive_{};
    clock::time_point asked_{};       // something that the server answers at once
    clock::time_point written_at_{};  // anything else
    unanswered_exchanges left_{};     // by the last connection
    clock::duration round_trip_{};
    std::size_t answers_ = 0;  // bytes that have gathered since the write under way began
    std::uint64_t bytes_received_ = 0;
    std::uint64_t bytes_sent_ = 0;
    std::uint64_t writes_ = 0;
    std::uint64_t writes_before_ping_ = 0;
    std::exception_ptr failure_{};
    bool is_writing_ = false;
    bool is_wiped_ = true;
    bool is_answered_ = false;
    bool had_freed_ = false;       // the last connection, in vain
    bool is_resting_ = false;      // the writer is to end for want of work
    bool is_held_ = false;         // nothing is written until the server is known
    bool is_input_over_ = false;   // the reader has ended
    bool is_output_over_ = false;  // the stream has been shut down
};

}  // namespace runnel::mqtt::detail
