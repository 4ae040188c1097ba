#pragma once

#include <runnel/core/clock.hpp>
#include <runnel/core/saturating.hpp>

#include <chrono>

namespace runnel::mqtt {

/// The clock whose times the machines of this folder are told. None of them reads it.
using session_clock = steady_clock;

/// A time that never comes.
inline constexpr auto never = (session_clock::time_point::max)();

using runnel::deadline_after;

}  // namespace runnel::mqtt
