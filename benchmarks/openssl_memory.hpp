#pragma once

#include <openssl/crypto.h>

#include "session_client.hpp"
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <malloc.h>

/// Tells what OpenSSL asks for apart from the rest, into `bench::openssl` (glibc only).
namespace bench {

namespace openssl_memory {

/// As mallinfo2 counts them: with the word in front.
inline std::size_t size_of(void* memory) {
    return memory != nullptr ? ::malloc_usable_size(memory) + sizeof(std::size_t) : 0;
}

inline void* allocate(std::size_t size, char const*, int) {
    void* const memory = std::malloc(size);
    ++openssl.allocations;
    openssl.bytes += size_of(memory);
    return memory;
}

inline void release(void* memory, char const*, int) {
    openssl.bytes -= size_of(memory);
    std::free(memory);
}

inline void* resize(void* memory, std::size_t size, char const*, int) {
    std::size_t const before = size_of(memory);
    void* const moved = std::realloc(memory, size);
    ++openssl.allocations;
    if (moved != nullptr) openssl.bytes += size_of(moved) - before;
    return moved;
}

}  // namespace openssl_memory

/// From now on; before OpenSSL has been used, and in a program of one thread.
inline void tell_openssl_apart() {
    if (CRYPTO_set_mem_functions(openssl_memory::allocate, openssl_memory::resize, openssl_memory::release) == 1)
        return;
    std::fprintf(stderr, "OpenSSL has been used before\n");
    std::exit(1);
}

}  // namespace bench
