#pragma once

// The clock, the entropy and the waiting of a simulated process.
//
// The library reads std::chrono's clocks, sets Asio's timers and asks the system for random bytes, all directly, and is
// not to be changed for a simulation. So the executable defines the functions of the C library by which they do that
// (clock.cpp), and the dynamic linker prefers those to the C library's:
//
// | function         | who calls it                | in a simulation                                                |
// |------------------|-----------------------------|----------------------------------------------------------------|
// | `clock_gettime`  | steady_clock, system_clock  | the virtual clock                                              |
// | `getrandom`      | core/random.hpp             | bytes that follow from the seed                                |
// | `timerfd_create` | Asio, for each context      | fails: Asio then looks for due timers whenever it polls        |
// | `epoll_wait`     | Asio, to wait               | waits for nothing: lets the virtual clock advance              |
// | `epoll_ctl`      | Asio, to interrupt a wait   | nothing                                                        |
//
// Outside of a simulation they do what the C library's do. `check_virtual_clock` finds out whether all this is in
// force, so that a platform where it is not is noticed at once, and not by results that differ.

#include <chrono>
#include <cstdint>

namespace simulation {

using nanoseconds = std::chrono::nanoseconds;
using time_point = std::chrono::steady_clock::time_point;

/// Begins a simulated time: both clocks stand at fixed values, and entropy follows from `seed`.
void begin_virtual_time(std::uint64_t seed);
/// The system's clock and entropy hold again.
void end_virtual_time();

/// Lets the clock advance to `when`, not back.
void advance_to(time_point when);
/// Sets the time of day ahead or back, as an administrator does, or a time server.
void shift_time_of_day(nanoseconds by);
/// Waiting (`epoll_wait`) ends at this time at the latest.
void wait_until_at_most(time_point when);

/// Throws `std::runtime_error` if the library's clocks do not follow.
void check_virtual_clock();

}  // namespace simulation
