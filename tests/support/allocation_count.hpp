#pragma once

#include <cstddef>

namespace runnel::testing {

/// How often `operator new` has been called in this process so far, in all threads. Tests compare two values.
std::size_t allocation_count() noexcept;

/// The same of `aligned_alloc`, by which Asio takes memory for coroutine frames and handlers; `operator new` does not
/// see it.
std::size_t aligned_allocation_count() noexcept;

/// As long as it lives, one call of `operator new` in this thread fails: the `nth` from now on, 1 for the next.
class failing_allocation {
  public:
    explicit failing_allocation(std::size_t nth) noexcept;
    failing_allocation(failing_allocation const&) = delete;
    failing_allocation& operator=(failing_allocation const&) = delete;
    ~failing_allocation();

    /// Whether it has failed.
    bool has_failed() const noexcept;
};

/// As long as it lives, memory that is given back by `operator delete` is searched for a text, which must have no more
/// than 64 bytes. For tests that nothing secret is left behind; one at a time.
class freed_memory_search {
  public:
    explicit freed_memory_search(char const* text) noexcept;
    freed_memory_search(freed_memory_search const&) = delete;
    freed_memory_search& operator=(freed_memory_search const&) = delete;
    ~freed_memory_search();

    /// How often it was found.
    std::size_t found() const noexcept;
};

}  // namespace runnel::testing
