#include "support/allocation_count.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <utility>

namespace {

std::atomic<std::size_t> count{0};
std::atomic<std::size_t> aligned_count{0};
// Calls until one fails; 0: none does.
constinit thread_local std::size_t fails_in = 0;
constinit thread_local std::size_t aligned_fails_in = 0;
constinit thread_local bool is_spared = false;

constinit char sought[65] = {};
std::atomic<std::size_t> sought_size{0};
std::atomic<std::size_t> found_count{0};

bool fails_now(std::size_t& in) noexcept { return in != 0 && !is_spared && --in == 0; }

// Memory that is freed is looked through as far as it is known to reach.
void give_back(void* memory) noexcept {
    if (auto const size = sought_size.load(std::memory_order_relaxed); size != 0 && memory != nullptr) {
        auto const* const bytes = static_cast<char const*>(memory);
        if (::memmem(bytes, malloc_usable_size(memory), sought, size) != nullptr) ++found_count;
    }
    std::free(memory);
}

}  // namespace

// Takes the place of the C library's.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
    aligned_count.fetch_add(1, std::memory_order_relaxed);
    if (fails_now(aligned_fails_in)) return nullptr;
    void* memory = nullptr;
    return posix_memalign(&memory, alignment, size) == 0 ? memory : nullptr;
}

namespace {

void* allocate(std::size_t size) noexcept {
    count.fetch_add(1, std::memory_order_relaxed);
    if (fails_now(fails_in)) return nullptr;
    return std::malloc(size != 0 ? size : 1);
}

void* allocate(std::size_t size, std::align_val_t alignment) noexcept {
    count.fetch_add(1, std::memory_order_relaxed);
    if (fails_now(fails_in)) return nullptr;
    void* memory = nullptr;
    return posix_memalign(&memory, static_cast<std::size_t>(alignment), size) == 0 ? memory : nullptr;
}

void* or_throw(void* memory) {
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

}  // namespace

std::size_t runnel::testing::allocation_count() noexcept { return count.load(std::memory_order_relaxed); }
std::size_t runnel::testing::aligned_allocation_count() noexcept {
    return aligned_count.load(std::memory_order_relaxed);
}

runnel::testing::failing_allocation::failing_allocation(std::size_t nth, allocator by) noexcept
    : left_(by == allocator::operator_new ? fails_in : aligned_fails_in) {
    left_ = nth;
}
runnel::testing::failing_allocation::~failing_allocation() { left_ = 0; }
bool runnel::testing::failing_allocation::has_failed() const noexcept { return left_ == 0; }

runnel::testing::spared_allocations::spared_allocations(bool spared) noexcept
    : before_(std::exchange(is_spared, spared)) {}
runnel::testing::spared_allocations::~spared_allocations() { is_spared = before_; }

runnel::testing::freed_memory_search::freed_memory_search(char const* text) noexcept {
    std::strncpy(sought, text, sizeof(sought) - 1);
    found_count = 0;
    sought_size = std::strlen(sought);
}
runnel::testing::freed_memory_search::~freed_memory_search() { sought_size = 0; }
std::size_t runnel::testing::freed_memory_search::found() const noexcept { return found_count; }

void* operator new(std::size_t size) { return or_throw(allocate(size)); }
void* operator new[](std::size_t size) { return or_throw(allocate(size)); }
void* operator new(std::size_t size, std::nothrow_t const&) noexcept { return allocate(size); }
void* operator new[](std::size_t size, std::nothrow_t const&) noexcept { return allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) { return or_throw(allocate(size, alignment)); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return or_throw(allocate(size, alignment)); }

void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete[](void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete[](void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::nothrow_t const&) noexcept { give_back(memory); }
void operator delete[](void* memory, std::nothrow_t const&) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }
