#pragma once

#include <cstddef>

namespace runnel::testing {

/// How often `operator new` has been called in this process so far, in all threads. Tests compare two values.
std::size_t allocation_count() noexcept;

/// The same of `aligned_alloc`, by which Asio takes memory for coroutine frames and handlers; `operator new` does not
/// see it.
std::size_t aligned_allocation_count() noexcept;

/// The same of a C library that asks `library_may_allocate`: see openssl_memory.hpp.
std::size_t library_allocation_count() noexcept;

/// By which memory is taken: `aligned_alloc` is Asio's way.
enum class allocator { operator_new, aligned_alloc, library };

/// Whether an allocation of a C library's is to succeed. For the functions that the library is given.
bool library_may_allocate() noexcept;

/// As long as it lives, one call in this thread fails: the `nth` from now on, 1 for the next.
class failing_allocation {
  public:
    explicit failing_allocation(std::size_t nth, allocator by = allocator::operator_new) noexcept;
    failing_allocation(failing_allocation const&) = delete;
    failing_allocation& operator=(failing_allocation const&) = delete;
    ~failing_allocation();

    /// Whether it has failed.
    bool has_failed() const noexcept;

  private:
    std::size_t& left_;
};

/// As long as it lives, calls in this thread do not fail, and do not count for `failing_allocation`: those of the test
/// itself, and of the other end. Or do again, with `false`.
class spared_allocations {
  public:
    explicit spared_allocations(bool spared = true) noexcept;
    spared_allocations(spared_allocations const&) = delete;
    spared_allocations& operator=(spared_allocations const&) = delete;
    ~spared_allocations();

  private:
    bool before_;
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

/// How much memory is taken while it lives, in all threads: under AddressSanitizer by whatever means, else by
/// `operator new`. One at a time.
class memory_watch {
  public:
    memory_watch() noexcept;
    memory_watch(memory_watch const&) = delete;
    memory_watch& operator=(memory_watch const&) = delete;

    /// The most bytes at a time, above those that there were at the beginning.
    std::size_t peak() const noexcept;
    /// Bytes now, above those.
    std::size_t held() const noexcept;

  private:
    std::ptrdiff_t start_;
};

}  // namespace runnel::testing
