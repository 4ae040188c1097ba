#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace runnel::aliyun {

/// At most `count` events in any span of `period`, wherever it begins: that is how the platform words its limits. (A
/// bucket that is refilled steadily lets twice as many pass in the first span after a rest.)
///
/// Without a clock: `now` is an argument and does not go back. Allocates once, when it is made.
class rate_limit {
  public:
    using clock = std::chrono::steady_clock;
    using time_point = clock::time_point;

    /// `count` 0 stands for no limit.
    explicit rate_limit(std::size_t count = 0, clock::duration period = std::chrono::seconds(1))
        : period_(period), times_(count, time_point::min()) {}

    /// When the next event may happen: now, or a time to come.
    time_point ready_at(time_point now) const noexcept {
        if (times_.empty() || times_[next_] == time_point::min()) return now;
        return std::max(now, times_[next_] + period_);
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

    std::size_t count() const noexcept { return times_.size(); }
    clock::duration period() const noexcept { return period_; }

  private:
    clock::duration period_;
    std::vector<time_point> times_;  // of the last events, in a ring
    std::size_t next_ = 0;           // the oldest of them
};

}  // namespace runnel::aliyun
