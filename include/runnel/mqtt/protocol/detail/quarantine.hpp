#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/saturating.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>

#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <system_error>
#include <utility>

namespace runnel::mqtt::detail {

/// What a session has sent on a connection and what the peer has not answered to its end.
struct unanswered_exchanges {
    std::uint64_t first = 0;    ///< the number of the oldest
    std::uint64_t next = 0;     ///< the number of the exchange that is begun next
    bool any = false;           ///< whether there are any
    bool has_progress = false;  ///< whether the peer has acknowledged anything on this connection
};

/// Finds the message for which the server ends the connection each time it is sent, as one larger than an MQTT 3.1.1
/// server allows: QoS 1 and 2 would send it again for ever, and everything behind it would wait.
///
/// That a connection ends costs no message: networks and servers fail in many ways. A message is given up only after a
/// trial that others do not fail.
///
/// | state     | in flight may be | event                                                               | then      |
/// |-----------|------------------|---------------------------------------------------------------------|-----------|
/// | `usual`   | all              | the server ends the connection, as it has ended the one before (*)  | `holding` |
/// | `holding` | nothing          | `on_time`: some time after CONNACK                                  | `trying`  |
/// | `holding` |                  | the connection ends: not because of the messages                    | `usual`   |
/// | `trying`  | one at a time    | `on_answers`: all under suspicion have ended                        | `usual`   |
/// | `trying`  |                  | the server ends the connection right after a message: a strike (**) | `holding` |
/// | `trying`  |                  | the connection ends, and something was acknowledged on it           | `holding` |
/// | `trying`  |                  | the connection ends in any other way                                | `usual`   |
///
/// (*) With the same error, the same oldest exchange, and nothing acknowledged. Then all that was in flight is under
/// suspicion.
///
/// (**) Against this message, if nothing was acknowledged on the connection.
///
/// After so many strikes in a row the message is given up, and the trial goes on with the rest. Any acknowledgement
/// clears the strikes, and any other end of a connection ends the trial: a timeout, an end in the middle of a long
/// message, a reason that has nothing to do with messages. The times of holding differ from strike to strike by more
/// than what counts as "right after", so that a server that ends each connection after a fixed time takes no message
/// with it, nor does a network that loses connections at random (less than 2 of 1000 trials, where it is worst).
///
/// Without I/O and without a clock. At most one `connected` comes between two calls of `disconnected`.
class quarantine {
  public:
    using clock = std::chrono::steady_clock;
    using time_point = clock::time_point;
    static constexpr auto never = (time_point::max)();
    static constexpr std::uint16_t unlimited = (std::numeric_limits<std::uint16_t>::max)();

    /// `strikes` in a row condemn a message; 0: none is ever given up. What comes within `soon` comes right after.
    explicit quarantine(std::uint32_t strikes = 3, clock::duration soon = std::chrono::seconds(1)) noexcept
        : limit_(strikes), soon_(soon) {}

    /// How many QoS 1 and 2 exchanges may be in flight: for `session_state::narrow`, before the next connection and
    /// whenever a function says that it has changed.
    std::uint16_t window() const noexcept {
        return at_ == state::usual ? unlimited : at_ == state::holding ? std::uint16_t{0} : std::uint16_t{1};
    }
    /// When `on_time` is due.
    time_point deadline() const noexcept { return deadline_; }
    /// Whether `on_answers` and `on_time` have anything to do.
    bool is_active() const noexcept { return at_ != state::usual; }

    /// The server has accepted the connection.
    void connected(time_point now) noexcept {
        is_accepted_ = true;
        if (at_ == state::holding) deadline_ = deadline_after(now, soon_ * (1 + 2 * std::int64_t{strikes_}));
    }

    /// True: the window has changed.
    bool on_time(time_point now) noexcept {
        if (at_ != state::holding || now < deadline_) return false;
        at_ = state::trying;
        deadline_ = never;
        tried_at_ = now;
        return true;
    }

    /// To be told, while active, what is unanswered after something has been received. True: the window has changed.
    bool on_answers(unanswered_exchanges const& left) noexcept {
        if (at_ != state::trying || !left.has_progress) return false;
        strikes_ = 0;
        if (left.any && left.first < suspected_until_) return false;
        acquit();
        return true;
    }

    /// How a connection, or an attempt to make one, has ended.
    struct ending {
        unanswered_exchanges left{};  ///< at its end
        std::error_code why{};
        bool by_peer = false;  ///< by DISCONNECT, or without (end of stream, reset), and not by this end's doing
        time_point at{};       ///< now
        /// When the last byte of the message on trial had been written (not that of a ping behind it); the epoch: it
        /// has not been, or nobody knows.
        time_point written = {};
    };

    /// The number of a message to give up (`session_state::reject`), if there is one.
    RUNNEL_COLD std::optional<std::uint64_t> disconnected(ending const& e) noexcept {
        deadline_ = never;
        if (limit_ == 0 || !std::exchange(is_accepted_, false)) return std::nullopt;
        bool const suspicious = e.by_peer && e.left.any && !e.left.has_progress && !is_excuse(e.why);
        if (at_ == state::usual) {
            notice(e, suspicious);
            return std::nullopt;
        }
        bool const tried = std::exchange(at_, state::holding) == state::trying;
        if (tried && e.left.has_progress) {
            strikes_ = 0;
            return std::nullopt;
        }
        if (!tried || !suspicious || !is_right_after(e)) {
            acquit();
            return std::nullopt;
        }
        if (suspect_ != e.left.first) strikes_ = 0;
        suspect_ = e.left.first;
        if (++strikes_ < limit_) return std::nullopt;
        strikes_ = 0;
        return suspect_;
    }

  private:
    enum class state : std::uint8_t { usual, holding, trying };

    // The end of a connection as usual.
    void notice(ending const& e, bool suspicious) noexcept {
        bool const again = ends_ != 0 && suspect_ == e.left.first && why_ == e.why;
        ends_ = !suspicious ? 0 : again ? ends_ + 1 : 1;
        suspect_ = e.left.first;
        why_ = e.why;
        if (ends_ < 2) return;
        at_ = state::holding;
        strikes_ = 0;
        suspected_until_ = e.left.next;
    }

    void acquit() noexcept {
        at_ = state::usual;
        ends_ = strikes_ = 0;
    }

    bool is_right_after(ending const& e) const noexcept {
        if (is_reason(e.why)) return true;  // the server says that it is for a packet
        return e.at - tried_at_ <= soon_ || (e.written != time_point{} && e.at - e.written <= soon_);
    }

    static bool is_reason(std::error_code why) noexcept {
        return why.category() == make_error_code(reason_code{}).category();
    }

    // Whether the server says that it ends the connection for something else than a packet.
    static bool is_excuse(std::error_code why) noexcept {
        if (!is_reason(why)) return false;
        switch (static_cast<reason_code>(why.value())) {
            case reason_code::malformed_packet:
            case reason_code::protocol_error:
            case reason_code::unspecified_error:
            case reason_code::implementation_specific_error:
            case reason_code::not_authorized:
            case reason_code::topic_name_invalid:
            case reason_code::packet_too_large:
            case reason_code::quota_exceeded:
            case reason_code::payload_format_invalid:
            case reason_code::retain_not_supported:
            case reason_code::qos_not_supported: return false;
            default: return true;
        }
    }

    std::uint32_t limit_;
    clock::duration soon_;
    state at_ = state::usual;
    bool is_accepted_ = false;           // the connection
    std::uint32_t ends_ = 0;             // alike in a row, as usual
    std::uint32_t strikes_ = 0;          // against the suspect
    std::uint64_t suspect_ = 0;          // number
    std::uint64_t suspected_until_ = 0;  // exchanges with lower numbers are under suspicion
    std::error_code why_{};
    time_point deadline_ = never;
    time_point tried_at_{};
};

}  // namespace runnel::mqtt::detail
