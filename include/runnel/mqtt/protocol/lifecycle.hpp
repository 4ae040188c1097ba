#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/protocol/deadline.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <utility>

namespace runnel::mqtt {

/// In which state a session's network connection is, until when it may be, and why it ends: one answer to each.
/// Without I/O and without a clock. Whoever performs calls `end` when something has failed, `rest` when nothing of the
/// connection runs any more, and `expire` at `deadline()`.
///
/// | state     | what is done                                  | `deadline()` after | then         |
/// |-----------|-----------------------------------------------|--------------------|--------------|
/// | `idle`    | nothing                                       |                    |              |
/// | `due`     | nothing yet: the attempt begins at once       |                    |              |
/// | `opening` | opens the stream, sends CONNECT, awaits its answer | `connect_timeout` | `over`: `connect_timeout` |
/// | `online`  | the server has accepted: reads and writes     |                    |              |
/// | `closing` | writes what is left, soon shuts down, reads on to the peer's end | `close_timeout` | `over`, cut off |
/// | `over`    | what runs is ending                           |                    |              |
/// | `pausing` | waits for the next attempt                    | the pause          | `over`       |
///
/// | event \ state        | idle    | due     | opening | online  | closing | over | pausing |
/// |----------------------|---------|---------|---------|---------|---------|------|---------|
/// | `attempt`            | due     |         |         |         |         |      |         |
/// | `pause`              | pausing |         |         |         |         |      |         |
/// | `open`               |         | opening |         |         |         |      |         |
/// | `accept`             |         |         | online  |         | closing | over |         |
/// | `close`, may speak   | idle    | over    | closing | closing | closing | over | over    |
/// | `close`, may not     | idle    | over    | over    | over    | closing | over | over    |
/// | `violate`            |         |         | closing | closing | closing | over |         |
/// | `leave`              | idle    |         |         |         | closing | over |         |
/// | `part`, `take`       |         |         |         |         | closing |      |         |
/// | `break_off`          |         |         | closing | closing | closing |      |         |
/// | `end`                | idle    | over    | over    | over    | over    | over | over    |
/// | `rest`               |         |         |         |         |         | idle |         |
///
/// An empty cell: the event cannot come there. The first cause counts: a connection has one end. What has been read
/// counts before what a write has failed with: a server says why it ends a connection, and resets it at the same
/// moment.
///
/// In `closing` there is a second time: `shutdown_at()`, from which on the stream is to be shut down, though the server
/// has not ended the connection. A server does that upon DISCONNECT (3.14.4), and may not read what follows:
/// close_notify, a close frame. Then the network tells of a reset, and not any more what has arrived before. So the
/// server has a moment to go first, as long as it is seen to be busy.
///
/// | in `closing`                                              | `shutdown_at()`                                    |
/// |-----------------------------------------------------------|----------------------------------------------------|
/// | something is to be written                                | `never`                                            |
/// | `leave`, if nothing has been                              | now                                                |
/// | `part`: all is written, or the server is heard afterwards | in `moment`, at most half of `close_timeout` in all |
/// | `part` behind a violation that cannot be told             | now                                                |
/// | `take`, not before that time, of another number           | as by `part`                                       |
class lifecycle {
  public:
    enum class state : std::uint8_t { idle, due, opening, online, closing, over, pausing };
    using time_point = session_clock::time_point;
    using duration = std::chrono::milliseconds;  // of any length

    /// How long a server that has been told of the end may show no sign of life before the stream is shut down.
    static constexpr duration moment{200};

    state current() const noexcept { return state_; }
    bool is(state s) const noexcept { return state_ == s; }
    /// Whether there is, or is to be, a stream that is read and written.
    bool is_open() const noexcept { return is(state::opening) || is(state::online) || is(state::closing); }

    /// When `expire` is to be called; `never` where nothing bounds the state.
    time_point deadline() const noexcept { return deadline_; }
    /// From when on a stream that closes is to be shut down; `never` as long as something is to be written before. Says
    /// nothing in other states than `closing`.
    time_point shutdown_at() const noexcept { return shutdown_at_; }
    /// Why the last attempt or connection has ended; `errc::disconnected` if nobody has said.
    std::error_code cause() const noexcept { return cause_; }
    /// Whether an end in good order has been asked for: no attempt follows. Holds until `begin_run`.
    bool is_ending() const noexcept { return is_ending_; }
    /// Whether the connection closes because the peer has broken the protocol.
    bool is_violated() const noexcept { return is_violated_; }
    /// What a write has failed with, so that the connection only closes to hear what the peer has said before.
    std::error_code broken() const noexcept { return broken_; }
    /// What has ended an end in good order before all had left: `errc::close_timeout`, or the cause. No error: nothing
    /// has. Holds until `begin_run`.
    std::error_code cut_off() const noexcept { return cut_off_; }

    /// A new series of attempts begins.
    void begin_run() noexcept {
        assert(is(state::idle));
        is_ending_ = false;
        cut_off_ = {};
    }

    /// An attempt to connect is to begin.
    void attempt() noexcept {
        assert(is(state::idle));
        enter(state::due, never);
        cause_ = errc::disconnected;
        broken_ = {};
        is_caused_ = is_violated_ = is_silent_ = false;
    }

    /// The attempt begins.
    void open(time_point now, duration limit) noexcept {
        assert(is(state::due));
        enter(state::opening, deadline_after(now, limit));
        shutdown_at_ = latest_shutdown_ = never;
    }

    /// The server has accepted the connection.
    void accept() noexcept {
        assert(is(state::opening) || is(state::closing) || is(state::over));
        if (is(state::opening)) enter(state::online, never);
    }

    /// An end in good order is asked for. `may_speak`: CONNECT has gone, so that DISCONNECT can follow.
    void close(bool may_speak, time_point now, duration limit) noexcept {
        is_ending_ = true;
        if (is(state::idle) || is(state::over) || is(state::closing)) return;
        if (may_speak && is_open())
            begin_closing(now, limit);
        else
            enter(state::over, never);
    }

    /// The peer has broken the protocol. `may_speak`: it can be told so.
    RUNNEL_COLD void violate(std::error_code why, bool may_speak, time_point now, duration limit) noexcept {
        if (is(state::over)) return;
        assert(is_open());
        blame(why);
        is_violated_ = true;
        is_silent_ = !may_speak;
        if (!is(state::closing)) begin_closing(now, limit);
    }

    /// Nothing is to be written before the stream is shut down: a server that is told nothing is not waited for.
    void leave(time_point now) noexcept {
        if (shutdown_at_ == never) shutdown_at_ = now;
    }

    /// All has been written just now, or has been before and the server is heard: from now on it has a moment to go
    /// first. True: `shutdown_at()` has changed.
    RUNNEL_COLD bool part(time_point now) noexcept {
        assert(is(state::closing));
        auto const at = is_silent_ ? now : (std::min)(now + moment, latest_shutdown_);
        return std::exchange(shutdown_at_, at) != at;
    }

    /// All has been written, and the network, which has not passed it all on, has taken so many `bytes` of it. If the
    /// moment is over and that is news, it begins anew.
    void take(time_point now, std::uint64_t bytes) noexcept {
        assert(is(state::closing));
        if (shutdown_at_ <= now && std::exchange(taken_, bytes) != bytes) part(now);
    }

    /// A write has failed with `why`. That is the cause only if what is read within `limit` says nothing else.
    void break_off(std::error_code why, time_point now, duration limit) noexcept {
        assert(is_open());
        broken_ = why;
        enter(state::closing, (std::min)(deadline_, deadline_after(now, limit)));
    }

    /// Nothing goes on: the peer has ended the connection, something has failed, the user has cancelled. `why` may be
    /// no error, where something else says it. `is_lost`: not all that was to be sent has left.
    void end(std::error_code why, bool is_lost = false) noexcept {
        if (is(state::idle)) return;
        if (!is(state::over)) {
            blame(why ? why : broken_);
            if (is(state::closing) && is_lost) lose();
        }
        enter(state::over, never);
    }

    /// The server says why it ends the connection, or it is known from elsewhere: that counts, not how the stream ends.
    void blame(std::error_code why) noexcept {
        if (!why || is_caused_) return;
        cause_ = why;
        is_caused_ = true;
    }

    /// Not all that was to be sent before an end in good order has left, or can have arrived.
    void lose() noexcept {
        if (is_ending_ && !cut_off_) cut_off_ = cause_;
    }

    /// Ends what has lasted too long. `is_lost`: not all that was to be sent has left. False: nothing has.
    bool expire(time_point now, bool is_lost) noexcept {
        if (now < deadline_) return false;
        if (is(state::closing) && is_ending_ && is_lost && !broken_) cut_off_ = errc::close_timeout;
        end(is(state::opening) ? make_error_code(errc::connect_timeout) : std::error_code{}, is_lost);
        return true;
    }

    /// Nothing of the connection runs any more.
    void rest() noexcept {
        assert(is(state::over));
        enter(state::idle, never);
    }

    /// Waits before the next attempt.
    void pause(time_point now, duration length) noexcept {
        assert(is(state::idle));
        enter(state::pausing, deadline_after(now, length));
    }

  private:
    RUNNEL_COLD void begin_closing(time_point now, duration limit) noexcept {
        enter(state::closing, deadline_after(now, limit));
        latest_shutdown_ = deadline_after(now, limit / 2);
    }
    void enter(state s, time_point deadline) noexcept {
        state_ = s;
        deadline_ = deadline;
    }

    time_point deadline_ = never;
    std::error_code cause_{};
    std::error_code broken_{};   // by a write
    std::error_code cut_off_{};  // an end in good order
    state state_ = state::idle;
    bool is_caused_ = false;
    bool is_ending_ = false;
    bool is_violated_ = false;
    bool is_silent_ = false;  // a violation cannot be told
    time_point shutdown_at_ = never;
    time_point latest_shutdown_ = never;
    std::uint64_t taken_ = 0;  // by the network, when it was looked at last
};

}  // namespace runnel::mqtt
