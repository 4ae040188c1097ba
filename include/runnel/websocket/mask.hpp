#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

// One mask is applied 16, 32 or 64 bytes at a time through the compiler's own vector types, as <immintrin.h> takes long
// to compile. What is wider than the target's base instruction set is chosen at run time, on x86-64.
#if defined(__GNUC__)
#define RUNNEL_VECTOR_MASK 1
#if defined(__x86_64__)
#define RUNNEL_AVX2_MASK 1
#endif
#endif

namespace runnel::websocket {

/// A masking key (RFC 6455 5.3): its four bytes in the order in which they cross the wire, as they lie in memory.
using mask_key = std::uint32_t;

/// The key that begins with the byte `offset` of `key`: for payload whose first `offset` bytes have been masked
/// already.
constexpr mask_key rotate_mask(mask_key key, std::size_t offset) noexcept {
    int const bits = static_cast<int>(offset % 4) * 8;
    return std::endian::native == std::endian::little ? std::rotr(key, bits) : std::rotl(key, bits);
}

namespace mask_loops {

// Each loop masks whole blocks and returns how many bytes that were. A block is read before it is written, and `to` is
// not behind `from`, so the two may overlap.

template <class Word>
#if defined(__GNUC__)
[[gnu::always_inline]]
#endif
inline std::size_t run(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    constexpr std::size_t n = sizeof(Word);
    char repeated[n];
    for (std::size_t i = 0; i < n; i += sizeof(key)) std::memcpy(repeated + i, &key, sizeof(key));
    Word keys;
    std::memcpy(&keys, repeated, n);
    std::size_t done = 0;
    // Four words a turn, each with a name: g++ 12 would keep an array of them in memory.
    for (; size - done >= 4 * n; done += 4 * n) {
        Word a, b, c, d;
        std::memcpy(&a, from + done, n);
        std::memcpy(&b, from + done + n, n);
        std::memcpy(&c, from + done + 2 * n, n);
        std::memcpy(&d, from + done + 3 * n, n);
        a ^= keys;
        b ^= keys;
        c ^= keys;
        d ^= keys;
        std::memcpy(to + done, &a, n);
        std::memcpy(to + done + n, &b, n);
        std::memcpy(to + done + 2 * n, &c, n);
        std::memcpy(to + done + 3 * n, &d, n);
    }
    for (; size - done >= n; done += n) {
        Word a;
        std::memcpy(&a, from + done, n);
        a ^= keys;
        std::memcpy(to + done, &a, n);
    }
    return done;
}

#if defined(RUNNEL_VECTOR_MASK)
using vector_16 = std::uint64_t __attribute__((vector_size(16)));
#endif

#if defined(RUNNEL_AVX2_MASK)
using vector_32 = std::uint64_t __attribute__((vector_size(32)));

[[gnu::target("avx2")]] inline std::size_t run_avx2(char* to, char const* from, std::size_t size,
                                                    mask_key key) noexcept {
    return run<vector_32>(to, from, size, key);
}

inline bool const has_avx2 = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}();
#endif

}  // namespace mask_loops

/// Masks or unmasks `size` bytes from `from` to `to`: byte i is combined with byte i modulo 4 of `key`. `to` may be
/// `from`, or overlap it if it is not behind `from`.
inline void apply_mask(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    std::size_t done = 0;
#if defined(RUNNEL_AVX2_MASK)
    if (size >= 128 && mask_loops::has_avx2) done = mask_loops::run_avx2(to, from, size, key);
#endif
#if defined(RUNNEL_VECTOR_MASK)
    done += mask_loops::run<mask_loops::vector_16>(to + done, from + done, size - done, key);
#endif
    done += mask_loops::run<std::uint64_t>(to + done, from + done, size - done, key);
    char bytes[sizeof(key)];
    std::memcpy(bytes, &key, sizeof(key));
    for (std::size_t i = 0; done + i < size; ++i) to[done + i] = static_cast<char>(from[done + i] ^ bytes[i % 4]);
}

/// Masks or unmasks `size` bytes at `data` in place.
inline void apply_mask(char* data, std::size_t size, mask_key key) noexcept { apply_mask(data, data, size, key); }

}  // namespace runnel::websocket
