#pragma once

#include <chrono>
#include <concepts>
#include <limits>

namespace runnel {

// Sizes and times that come from the peer, or from the user, may be as large as their types allow ("for ever", "no
// limit"). What is made of them stops at the largest value there is instead of going round.

/// `a + b`, or the largest value if that is more.
template <std::unsigned_integral T>
constexpr T add_saturating(T a, T b) noexcept {
    return b > (std::numeric_limits<T>::max)() - a ? (std::numeric_limits<T>::max)() : static_cast<T>(a + b);
}

/// `duration` in the units of the steady clock, or the longest time that it can tell. Less than nothing is nothing.
template <class Rep, class Period>
constexpr std::chrono::steady_clock::duration clock_duration(std::chrono::duration<Rep, Period> duration) noexcept {
    using clock_unit = std::chrono::steady_clock::duration;
    using unit = std::chrono::duration<Rep, Period>;
    if (duration <= unit::zero()) return clock_unit::zero();
    if (duration >= std::chrono::floor<unit>((clock_unit::max)())) return (clock_unit::max)();
    return std::chrono::duration_cast<clock_unit>(duration);
}

/// The time `duration` after `now`, or the last one that the clock can tell: one that never comes. Less than nothing is
/// nothing.
template <class Rep, class Period>
constexpr std::chrono::steady_clock::time_point deadline_after(std::chrono::steady_clock::time_point now,
                                                               std::chrono::duration<Rep, Period> duration) noexcept {
    constexpr auto never = (std::chrono::steady_clock::time_point::max)();
    auto const length = clock_duration(duration);
    return now >= never - length ? never : now + length;
}

}  // namespace runnel
