#pragma once

#include <chrono>

#ifdef RUNNEL_TEST_CLOCK
#include <set>
#endif

// The clocks that the library reads. They are the standard library's, unless RUNNEL_TEST_CLOCK is defined, the same in
// all files of a program: then a test can move the time of a thread, by testing/virtual_time.hpp. Times are those of
// the standard clocks either way.

namespace runnel {

#ifndef RUNNEL_TEST_CLOCK

/// The clock of deadlines and durations.
using steady_clock = std::chrono::steady_clock;
/// The clock of the calendar.
using system_clock = std::chrono::system_clock;

#else

/// The time of a thread that a test has taken over: see `testing::virtual_time`.
struct moved_time {
    using time_point = std::chrono::steady_clock::time_point;

    /// Of this thread; null: its clocks are the system's.
    static moved_time*& of_this_thread() noexcept {
        constinit static thread_local moved_time* current = nullptr;
        return current;
    }

    time_point now = std::chrono::steady_clock::now();
    std::chrono::system_clock::time_point calendar = std::chrono::system_clock::now();
    std::set<time_point> deadlines{};  ///< to come, of timers; some may have been cancelled
};

/// The clock of deadlines and durations.
struct steady_clock {
    using duration = std::chrono::steady_clock::duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::steady_clock::time_point;
    static constexpr bool is_steady = true;
    static time_point now() noexcept {
        auto const* const moved = moved_time::of_this_thread();
        return moved != nullptr ? moved->now : std::chrono::steady_clock::now();
    }
};

/// The clock of the calendar.
struct system_clock {
    using duration = std::chrono::system_clock::duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::system_clock::time_point;
    static constexpr bool is_steady = false;
    static time_point now() noexcept {
        auto const* const moved = moved_time::of_this_thread();
        return moved != nullptr ? moved->calendar : std::chrono::system_clock::now();
    }
};

#endif

}  // namespace runnel
