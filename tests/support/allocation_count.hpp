#pragma once

#include <cstddef>

namespace runnel::testing {

/// How often `operator new` has been called in this process so far, in all threads. Tests compare two values.
std::size_t allocation_count() noexcept;

}  // namespace runnel::testing
