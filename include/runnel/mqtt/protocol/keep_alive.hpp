#pragma once

#include <runnel/mqtt/protocol/deadline.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace runnel::mqtt {

/// How far the bytes written have come.
struct flow_position {
    std::uint64_t written = 0;  ///< bytes handed to the network
    std::uint64_t taken = 0;    ///< of these, bytes that have reached the other end, as far as that is known
};

/// When a client sends PINGREQ, and when it takes a connection for dead (3.1.2.10). Without I/O and without a clock.
///
/// | state     | what has happened              | `due()`                                          | then             |
/// |-----------|--------------------------------|--------------------------------------------------|------------------|
/// | `off`     | no keep alive                  | never                                            |                  |
/// | `quiet`   | all is well                    | `interval` after the last byte sent, or received | `ping`: `queued` |
/// | `queued`  | PINGREQ waits to be written    | `limit` after the last sign of life              | `dead`, or none  |
/// | `writing` | it is in the write under way   | the same                                         | the same         |
/// | `written` | its answer is awaited          | the same                                         | the same         |
///
/// | event \ state         | off | quiet    | queued          | writing         | written         |
/// |-----------------------|-----|----------|-----------------|-----------------|-----------------|
/// | `on_write`            |     |          | writing         |                 |                 |
/// | `on_written`          |     |          |                 | written         |                 |
/// | `on_received`         |     |          |                 |                 | quiet           |
/// | `on_answered`         |     |          |                 | quiet           |                 |
/// | `advance`, once due   |     | queued   | stays           | stays           | stays           |
/// | what it returns then  |     | `ping`   | `dead`, or none | `dead`, or none | `dead`, or none |
///
/// `begin` leads to `quiet`, or, without keep alive, to `off`; `end` leads to `off`; an empty cell: nothing changes. An
/// answer while PINGREQ is in the write under way says that it has left, and what is behind it in that write has not.
///
/// Of the last byte sent and the last one received the older counts. Signs of life are what is received, which in
/// `written` leads back to `quiet`, and, as long as PINGREQ itself has not reached the other end, what reaches it.
///
/// So the time for the answer runs from when PINGREQ was written, and bytes that move in either direction are life: a
/// slow link may take as long as it needs for a large message. With both ends idle the ping goes out before the keep
/// alive is over [MQTT-3.1.2-20], and a dead link is noticed within one and a half times the keep alive.
class keep_alive {
  public:
    using time_point = session_clock::time_point;
    using duration = session_clock::duration;
    enum class state : std::uint8_t { off, quiet, queued, writing, written };
    enum class action : std::uint8_t { none, ping, dead };

    state current() const noexcept { return state_; }
    /// Of the connection, or the last one; 0: none.
    std::chrono::seconds interval() const noexcept {
        return std::chrono::duration_cast<std::chrono::seconds>(interval_ * 4 / 3);
    }

    /// A connection begins. `interval` is the keep alive of CONNECT or the server's, 0: none. `response_timeout` bounds
    /// the wait for an answer, as do three quarters of the keep alive.
    void begin(std::chrono::seconds interval, std::chrono::milliseconds response_timeout, time_point now) noexcept {
        state_ = interval.count() == 0 ? state::off : state::quiet;
        interval_ = duration(std::min<std::chrono::seconds>(interval, longest)) * 3 / 4;
        limit_ = (std::min)(clock_duration(response_timeout), interval_);
        sent_ = received_ = now;
    }
    /// There is no connection any more.
    void end() noexcept { state_ = state::off; }

    /// Bytes have come.
    void on_received(time_point now) noexcept {
        received_ = life_ = now;
        if (state_ == state::written) state_ = state::quiet;
    }

    /// PINGRESP has come, behind `on_received`.
    void on_answered() noexcept {
        if (state_ == state::writing) state_ = state::quiet;
    }

    /// What has gathered is being written.
    void on_write() noexcept {
        if (state_ == state::queued) state_ = state::writing;
    }

    /// The write has completed.
    void on_written(time_point now, flow_position position) noexcept {
        sent_ = now;
        if (state_ != state::writing) return;
        state_ = state::written;
        life_ = now;
        position_ = position;
    }

    /// When `advance` is to be called.
    time_point due() const noexcept {
        if (state_ == state::off) return never;
        if (state_ == state::quiet) return (std::min)(sent_, received_) + interval_;
        return life_ + limit_;
    }

    /// Says what is to be done at `now`: `ping` asks for PINGREQ to be queued for the next write; `dead` for the end of
    /// the connection. `position` is that of now.
    action advance(time_point now, flow_position position) noexcept {
        if (now < due()) return action::none;
        if (state_ == state::quiet) {
            state_ = state::queued;
            life_ = now;
            position_ = {never_reached, position.taken};
            return action::ping;
        }
        bool const is_moving = position.taken > position_.taken && position_.taken < position_.written;
        if (!is_moving) return action::dead;
        life_ = now;
        position_.taken = position.taken;
        return action::none;
    }

  private:
    static constexpr std::chrono::seconds longest{65535};
    static constexpr auto never_reached = static_cast<std::uint64_t>(-1);

    duration interval_{};
    duration limit_{};
    time_point sent_{};
    time_point received_{};
    time_point life_{};         // the last sign of it, since the ping
    flow_position position_{};  // behind PINGREQ, once it is written; and how much had been taken at the last look
    state state_ = state::off;
};

}  // namespace runnel::mqtt
