#pragma once

#include <cstddef>

/// How often memory has been asked for in this process so far, in all threads and by whatever function (malloc, calloc,
/// aligned_alloc, operator new, ...); the shared libraries' calls count too.
std::size_t allocations() noexcept;
