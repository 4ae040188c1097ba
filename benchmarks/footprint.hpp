#pragma once

// What a process knows of its own memory: of programs that footprint.py measures.

#include <cstddef>
#include <cstdio>
#include <cstring>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace footprint {

/// Bytes of all blocks that are allocated; 0 where the C library does not tell.
inline std::size_t heap_bytes() noexcept {
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 33)
    return ::mallinfo2().uordblks;
#endif
#endif
    return 0;
}

/// The most memory that this process has had, in KiB, as Linux tells; else 0. (What `getrusage` tells counts the
/// process from before `exec`.)
inline long peak_kib() noexcept {
    long found = 0;
    if (std::FILE* const status = std::fopen("/proc/self/status", "r")) {
        char line[256];
        while (std::fgets(line, sizeof(line), status) != nullptr)
            if (std::sscanf(line, "VmHWM: %ld", &found) == 1) break;
        std::fclose(status);
    }
    return found;
}

/// A line for footprint.py: of a session its size, and what it takes of the heap.
inline void print(std::size_t size, std::size_t heap) { std::printf("%zu %zu %ld\n", size, heap, peak_kib()); }

}  // namespace footprint
