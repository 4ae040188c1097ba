#include "support/allocation_count.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <utility>
#ifdef __SANITIZE_ADDRESS__
#define RUNNEL_TESTS_SEE_MALLOC 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RUNNEL_TESTS_SEE_MALLOC 1
#endif
#endif

#ifdef RUNNEL_TESTS_SEE_MALLOC
// Of <sanitizer/allocator_interface.h>, which g++ does not install.
extern "C" {
int __sanitizer_install_malloc_and_free_hooks(void (*)(void const volatile*, std::size_t),
                                              void (*)(void const volatile*));
std::size_t __sanitizer_get_allocated_size(void const volatile*);
}
#endif

namespace {

std::atomic<std::size_t> count{0};
std::atomic<std::size_t> aligned_count{0};
std::atomic<std::size_t> library_count{0};
// Calls until one fails; 0: none does.
constinit thread_local std::size_t fails_in = 0;
constinit thread_local std::size_t aligned_fails_in = 0;
constinit thread_local std::size_t library_fails_in = 0;
constinit thread_local bool is_spared = false;

constinit char sought[65] = {};
std::atomic<std::size_t> sought_size{0};
std::atomic<std::size_t> found_count{0};

#ifdef _WIN32
// Nothing in these tests wants more than malloc's own alignment there.
std::size_t malloc_usable_size(void* memory) noexcept { return _msize(memory); }
int posix_memalign(void** memory, std::size_t, std::size_t size) noexcept {
    *memory = std::malloc(size);
    return *memory != nullptr ? 0 : 1;
}
#endif

// Bytes in use since the process began, or since they have been counted, and the most there were.
std::atomic<std::ptrdiff_t> live{0};
std::atomic<std::ptrdiff_t> most{0};

void came(std::size_t size) noexcept {
    auto const now = live.fetch_add(static_cast<std::ptrdiff_t>(size), std::memory_order_relaxed) +
                     static_cast<std::ptrdiff_t>(size);
    auto before = most.load(std::memory_order_relaxed);
    while (before < now && !most.compare_exchange_weak(before, now, std::memory_order_relaxed)) {
    }
}
void went(std::size_t size) noexcept { live.fetch_sub(static_cast<std::ptrdiff_t>(size), std::memory_order_relaxed); }

// AddressSanitizer tells of all memory, whoever takes it; without it, what `operator new` gives is counted.
#ifdef RUNNEL_TESTS_SEE_MALLOC
void see_all() noexcept {
    static int const installed =
        __sanitizer_install_malloc_and_free_hooks([](void const volatile*, std::size_t size) { came(size); },
                                                  [](void const volatile* memory) {
                                                      if (memory != nullptr)
                                                          went(__sanitizer_get_allocated_size(memory));
                                                  });
    static_cast<void>(installed);
}
void count_new(void*) noexcept {}
void count_deleted(void*) noexcept {}
#else
void see_all() noexcept {}
void count_new(void* memory) noexcept {
    if (memory != nullptr) came(malloc_usable_size(memory));
}
void count_deleted(void* memory) noexcept {
    if (memory != nullptr) went(malloc_usable_size(memory));
}
#endif

bool fails_now(std::size_t& in) noexcept { return in != 0 && !is_spared && --in == 0; }

// Memory that is freed is looked through as far as it is known to reach.
void give_back(void* memory) noexcept {
    if (auto const size = sought_size.load(std::memory_order_relaxed); size != 0 && memory != nullptr) {
        auto const* const bytes = static_cast<char const*>(memory);
        auto const* const end = bytes + malloc_usable_size(memory);
        if (std::search(bytes, end, sought, sought + size) != end) ++found_count;
    }
    count_deleted(memory);
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
    void* const memory = std::malloc(size != 0 ? size : 1);
    count_new(memory);
    return memory;
}

void* allocate(std::size_t size, std::align_val_t alignment) noexcept {
    count.fetch_add(1, std::memory_order_relaxed);
    if (fails_now(fails_in)) return nullptr;
    void* memory = nullptr;
    if (posix_memalign(&memory, static_cast<std::size_t>(alignment), size) != 0) return nullptr;
    count_new(memory);
    return memory;
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
std::size_t runnel::testing::library_allocation_count() noexcept {
    return library_count.load(std::memory_order_relaxed);
}

bool runnel::testing::library_may_allocate() noexcept {
    library_count.fetch_add(1, std::memory_order_relaxed);
    return !fails_now(library_fails_in);
}

runnel::testing::failing_allocation::failing_allocation(std::size_t nth, allocator by) noexcept
    : left_(by == allocator::operator_new    ? fails_in
            : by == allocator::aligned_alloc ? aligned_fails_in
                                             : library_fails_in) {
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

runnel::testing::memory_watch::memory_watch() noexcept {
    see_all();
    start_ = live.load(std::memory_order_relaxed);
    most.store(start_, std::memory_order_relaxed);
}
std::size_t runnel::testing::memory_watch::peak() const noexcept {
    return static_cast<std::size_t>(most.load(std::memory_order_relaxed) - start_);
}
std::size_t runnel::testing::memory_watch::held() const noexcept {
    auto const now = live.load(std::memory_order_relaxed) - start_;
    return now < 0 ? 0 : static_cast<std::size_t>(now);
}

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
