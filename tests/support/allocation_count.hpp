#pragma once

#include <cstddef>

namespace runnel::testing {

/// How often `operator new` has been called in this process so far, in all threads. Tests compare two values.
std::size_t allocation_count() noexcept;

/// The same of `aligned_alloc`, by which Asio takes memory for coroutine frames and handlers; `operator new` does not
/// see it.
std::size_t aligned_allocation_count() noexcept;

}  // namespace runnel::testing
