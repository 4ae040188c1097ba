#pragma once

#include <cstddef>

/// How often this process has called the kernel so far, in all threads, for reading, writing, waiting, timers and
/// sockets; the shared libraries' calls count too. Counted within the process, which does not slow it: under a tracer
/// a client would gather other amounts into a write than it does alone.
///
/// Not seen are what the C library does by itself (memory, futexes of contended locks) and what needs no trip to the
/// kernel (clocks).
std::size_t system_calls() noexcept;
