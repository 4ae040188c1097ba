#pragma once

#include <chrono>

namespace runnel::mqtt {

/// The clock whose times the machines of this folder are told. None of them reads it.
using session_clock = std::chrono::steady_clock;

/// A time that never comes.
inline constexpr auto never = session_clock::time_point::max();

/// The time `duration` after `now`, or `never` if that is beyond what the clock can tell. Less than nothing is nothing.
template <class Rep, class Period>
constexpr session_clock::time_point deadline_after(session_clock::time_point now,
                                                   std::chrono::duration<Rep, Period> duration) noexcept {
    using std::chrono::floor, std::chrono::duration_cast;
    if (duration >= floor<std::chrono::duration<Rep, Period>>(never - now)) return never;
    return duration <= duration.zero() ? now : now + duration_cast<session_clock::duration>(duration);
}

}  // namespace runnel::mqtt
