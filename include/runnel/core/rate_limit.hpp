#pragma once

#include <runnel/core/clock.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <vector>

namespace runnel {

/// At most `count` events in any span of `period`, wherever it begins. (A bucket that is refilled steadily lets twice
/// as many pass in the first span after a rest.)
///
/// Without a clock: `now` is an argument and does not go back. Allocates once, when it is made.
class rate_limit {
  public:
    using clock = steady_clock;
    using time_point = clock::time_point;

    /// `count` 0 stands for no limit. A `period` of more than 100 years is one of 100 years.
    explicit rate_limit(std::size_t count = 0, clock::duration period = std::chrono::seconds(1))
        : period_(std::min<clock::duration>(period, std::chrono::hours(876'000))), times_(count, (time_point::min)()) {}

    /// When the next event may happen: now, or a time to come.
    time_point ready_at(time_point now) const noexcept {
        if (times_.empty() || times_[next_] == (time_point::min)()) return now;
        return (std::max)(now, times_[next_] + period_);
    }

    /// Counts an event at `at`, which is the time that `ready_at` gave or a later one.
    void take(time_point at) noexcept {
        if (times_.empty()) return;
        times_[next_] = at;
        next_ = (next_ + 1) % times_.size();
    }

    /// Counts an event if it may happen now; otherwise false.
    bool try_take(time_point now) noexcept {
        if (ready_at(now) > now) return false;
        take(now);
        return true;
    }

    /// How many events may happen at `now`, one after the other, if the `but` last ones (`count()` at most) are taken
    /// for later than they were counted. 0 if there is no limit.
    std::size_t ready(time_point now, std::size_t but = 0) const noexcept {
        std::size_t n = 0;
        for (std::size_t i = 0; i + but < times_.size(); ++i) {
            auto const t = times_[(next_ + i) % times_.size()];
            n += t == (time_point::min)() || t + period_ <= now;
        }
        return n;
    }

    /// The event that was counted `back` events before the last one counts as of `at`, not as of its own, earlier time;
    /// `back` is less than `count()`. Older ones must have been put off to the same time or be older than it.
    void put_off(std::size_t back, time_point at) noexcept {
        assert(back < times_.size());
        times_[(next_ + times_.size() - 1 - back) % times_.size()] = at;
    }

    std::size_t count() const noexcept { return times_.size(); }
    clock::duration period() const noexcept { return period_; }

  private:
    clock::duration period_;
    std::vector<time_point> times_;  // of the last events, in a ring
    std::size_t next_ = 0;           // the oldest of them
};

}  // namespace runnel
