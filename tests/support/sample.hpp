#pragma once

#include <cstddef>
#include <cstdlib>

namespace test {

/// By how much a test goes on that tries something at each of very many points: by 1 where RUNNEL_THOROUGH is in the
/// environment (with -Dlong_tests=true, as in CI), else by `sparse`, so that others need not wait for minutes.
inline std::size_t every(std::size_t sparse) { return std::getenv("RUNNEL_THOROUGH") != nullptr ? 1 : sparse; }

/// The length of the sequences of events of which a test tries all: `length`, or one less where there is not the time.
inline std::size_t up_to(std::size_t length) { return every(2) == 1 ? length : length - 1; }

}  // namespace test
