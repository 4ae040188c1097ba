#pragma once

#include <openssl/crypto.h>

#include "support/allocation_count.hpp"
#include <cstddef>
#include <cstdlib>

namespace test {

/// Whether `allocator::library` is OpenSSL, which allocates by malloc: `operator new` does not see it. It lets itself
/// be given other functions before its first use.
inline bool const watches_openssl =
    CRYPTO_set_mem_functions([](std::size_t size, char const*,
                                int) { return runnel::testing::library_may_allocate() ? std::malloc(size) : nullptr; },
                             [](void* memory, std::size_t size, char const*, int) {
                                 return runnel::testing::library_may_allocate() ? std::realloc(memory, size) : nullptr;
                             },
                             [](void* memory, char const*, int) { std::free(memory); }) == 1;

}  // namespace test
