#pragma once

#include <cstddef>
#include <cstdlib>

namespace test {

/// By how much a test goes on that tries something at each of very many points: by 1 where RUNNEL_THOROUGH is in the
/// environment (with -Dlong_tests=true, as in CI), else by `sparse`, so that others need not wait for minutes.
inline std::size_t every(std::size_t sparse) { return std::getenv("RUNNEL_THOROUGH") != nullptr ? 1 : sparse; }

}  // namespace test
