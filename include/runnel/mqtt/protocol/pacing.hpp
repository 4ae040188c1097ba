#pragma once

#include <runnel/core/rate_limit.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace runnel::mqtt {

/// How fast messages may leave, for servers that drop or punish what comes too fast: at most so many PUBLISH packets in
/// any span of time, those sent again included. What is more waits for its turn, in the order of the calls.
struct publish_pace {
    std::uint16_t at_most_once = 0;  ///< QoS 0 messages in a span; 0: no limit
    std::uint16_t acknowledged = 0;  ///< QoS 1 and 2 messages in a span; 0: no limit
    /// 1 ms to 24 h. What is sent evenly can arrive a little closer together: take a little more than the server's.
    std::chrono::milliseconds span{1000};

    bool is_limited() const noexcept { return at_most_once != 0 || acknowledged != 0; }
};

/// Decides when a PUBLISH may leave; without I/O and without a clock.
///
/// A server counts what arrives. When that is, only acknowledgements tell: a message of QoS 1 or 2 has arrived by the
/// time its acknowledgement has. So each takes one of `acknowledged` places from when it leaves until a span after
/// that, and what a stalled network delivers in one burst is not followed by the next burst. A message of QoS 0 takes
/// one of `at_most_once` places until a span after it has been handed to the network.
///
/// | a place is | until                                                                              | then    |
/// |------------|------------------------------------------------------------------------------------|---------|
/// | free       | `take`: a message leaves                                                           | open    |
/// | open       | `observe` finds QoS 0 written, QoS 1 and 2 acknowledged or their connection gone   | cooling |
/// | cooling    | a span is over                                                                     | free    |
class pacing {
  public:
    using time_point = rate_limit::time_point;
    static constexpr time_point never = (time_point::max)();

    explicit pacing(publish_pace const& p)
        : at_most_once_(p.at_most_once, p.span), acknowledged_(p.acknowledged, p.span) {}

    /// When the next message of this QoS may leave: now, later, or `never` unless an acknowledgement comes.
    time_point ready_at(qos quality, time_point now) const noexcept {
        if (quality == qos::at_most_once) return at_most_once_.ready_at(now);
        return is_all_open() ? never : acknowledged_.ready_at(now);
    }

    /// How many messages of this QoS may leave now.
    std::size_t ready(qos quality, time_point now) const noexcept {
        bool const kept = quality != qos::at_most_once;
        auto const& limit = kept ? acknowledged_ : at_most_once_;
        return limit.count() == 0 ? (std::numeric_limits<std::size_t>::max)() : limit.ready(now, kept ? open_ : 0);
    }

    /// A message leaves; `ready_at` is `now`.
    void take(qos quality, time_point now) noexcept {
        assert(ready_at(quality, now) <= now);
        bool const kept = quality != qos::at_most_once;
        auto& limit = kept ? acknowledged_ : at_most_once_;
        limit.take(now);
        if (limit.count() != 0) ++(kept ? open_ : unwritten_);
    }

    /// All that has left is written, and so many messages of QoS 1 and 2 that were sent on this connection are not
    /// acknowledged; the others have arrived, at the latest now. Is to be called before the next `take`s.
    void observe(std::size_t unacknowledged, time_point now) noexcept {
        for (; unwritten_ > 0; --unwritten_) at_most_once_.put_off(unwritten_ - 1, now);
        for (; open_ > unacknowledged; --open_) acknowledged_.put_off(open_ - 1, now);
    }

  private:
    bool is_all_open() const noexcept { return open_ != 0 && open_ == acknowledged_.count(); }

    rate_limit at_most_once_;
    rate_limit acknowledged_;
    std::size_t open_ = 0;       // the last so many places of `acknowledged_`
    std::size_t unwritten_ = 0;  // the last so many places of `at_most_once_`
};

}  // namespace runnel::mqtt
