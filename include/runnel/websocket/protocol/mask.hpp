#pragma once

#include <runnel/core/compiler.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace runnel::websocket {

/// A masking key (RFC 6455 5.3): its four bytes in the order in which they cross the wire, as they lie in memory.
using mask_key = std::uint32_t;

/// The key that begins with the byte `offset` of `key`: for payload whose first `offset` bytes have been masked
/// already.
constexpr mask_key rotate_mask(mask_key key, std::size_t offset) noexcept {
    int const bits = static_cast<int>(offset % 4) * 8;
    return std::endian::native == std::endian::little ? std::rotr(key, bits) : std::rotl(key, bits);
}

namespace mask_steps {

// One mask is applied 16 or 32 bytes at a time through the compiler's own vector types, as <immintrin.h> takes long to
// compile. The former are in the base instruction set (SSE2, NEON) and run inline; AVX2 is looked for at run time, on
// x86-64, and worth a call only for long payload.
#if RUNNEL_GNU
/// Sixteen bytes.
using vector_16 = std::uint64_t RUNNEL_VECTOR(16);
#else
/// Sixteen bytes.
struct vector_16 {
    std::uint64_t halves[2];

    friend vector_16 operator^(vector_16 a, vector_16 const& b) noexcept { return a ^= b; }
    vector_16& operator^=(vector_16 const& other) noexcept {
        halves[0] ^= other.halves[0];
        halves[1] ^= other.halves[1];
        return *this;
    }
};
#endif

// Masks one word, and goes on behind it. It is read before it is written, and `to` is not behind `from`, so the two may
// overlap. No byte is written twice: reading back what two writes have left costs more than a branch.
template <class Word>
RUNNEL_ALWAYS_INLINE inline void step(char*& to, char const*& from, Word const& keys) noexcept {
    Word word;
    std::memcpy(&word, from, sizeof(word));
    word = static_cast<Word>(word ^ keys);
    std::memcpy(to, &word, sizeof(word));
    to += sizeof(word);
    from += sizeof(word);
}

/// Masks four words, all of them read before the first is written.
template <class Word>
RUNNEL_ALWAYS_INLINE inline void four_steps(char*& to, char const*& from, Word const& keys) noexcept {
    constexpr std::size_t n = sizeof(Word);
    Word a, b, c, d;  // each with a name: g++ 12 would keep an array of them in memory
    std::memcpy(&a, from, n);
    std::memcpy(&b, from + n, n);
    std::memcpy(&c, from + 2 * n, n);
    std::memcpy(&d, from + 3 * n, n);
    a ^= keys;
    b ^= keys;
    c ^= keys;
    d ^= keys;
    std::memcpy(to, &a, n);
    std::memcpy(to + n, &b, n);
    std::memcpy(to + 2 * n, &c, n);
    std::memcpy(to + 3 * n, &d, n);
    to += 4 * n;
    from += 4 * n;
}

// A word of any type that begins with the key.
template <class Word>
RUNNEL_ALWAYS_INLINE inline Word first_of(mask_key key) noexcept {
    Word word;
    std::memcpy(&word, &key, sizeof(word));
    return word;
}

// Fills a word of any type with the key. (To return a word of 32 bytes needs AVX.)
template <class Word>
RUNNEL_ALWAYS_INLINE inline void repeat(Word& word, mask_key key) noexcept {
    if constexpr (std::is_same_v<Word, std::uint64_t>) {
        word = std::uint64_t{key} << 32 | key;  // g++ would go through a vector
    } else {
        mask_key repeated[sizeof(word) / sizeof(key)];
        for (mask_key& one : repeated) one = key;
        std::memcpy(&word, repeated, sizeof(word));
    }
}

// Masks one or two words in one: the first and the last, which may overlap. Both are read before they are written.
template <class Word>
RUNNEL_ALWAYS_INLINE inline void run_ends(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    constexpr std::size_t n = sizeof(Word);
    Word first, last, keys;
    std::memcpy(&first, from, n);
    std::memcpy(&last, from + size - n, n);
    repeat(keys, key);
    first ^= keys;
    repeat(keys, rotate_mask(key, size));  // n is a multiple of 4
    last ^= keys;
    std::memcpy(to, &first, n);
    std::memcpy(to + size - n, &last, n);
}

// The same with two words at each end.
template <class Word>
RUNNEL_ALWAYS_INLINE inline void run_double_ends(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    constexpr std::size_t n = sizeof(Word);
    Word a, b, c, d, keys;
    std::memcpy(&a, from, n);
    std::memcpy(&b, from + n, n);
    std::memcpy(&c, from + size - 2 * n, n);
    std::memcpy(&d, from + size - n, n);
    repeat(keys, key);
    a ^= keys;
    b ^= keys;
    repeat(keys, rotate_mask(key, size));
    c ^= keys;
    d ^= keys;
    std::memcpy(to, &a, n);
    std::memcpy(to + n, &b, n);
    std::memcpy(to + size - 2 * n, &c, n);
    std::memcpy(to + size - n, &d, n);
}

// Masks at most 64 bytes, with few branches: control frames, acknowledgements, pings.
RUNNEL_ALWAYS_INLINE inline void run_short(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    if (size >= 8) {
        if (size < 16) return run_ends<std::uint64_t>(to, from, size, key);
        if (size <= 32) return run_ends<vector_16>(to, from, size, key);
        return run_double_ends<vector_16>(to, from, size, key);
    }
    if (size >= 4) return run_ends<std::uint32_t>(to, from, size, key);
    if ((size & 2) != 0) step(to, from, first_of<std::uint16_t>(key));
    if ((size & 1) != 0) step(to, from, first_of<std::uint8_t>(rotate_mask(key, size & 2)));
}

/// Masks `size` bytes, a word at a time as long as there is one.
template <class Word>
RUNNEL_ALWAYS_INLINE inline void run(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    constexpr std::size_t n = sizeof(Word);
    Word keys;
    repeat(keys, key);
    for (; size >= 4 * n; size -= 4 * n) four_steps(to, from, keys);
    if (size == 0) return;
    if ((size & 2 * n) != 0) {
        step(to, from, keys);
        step(to, from, keys);
    }
    if ((size & n) != 0) step(to, from, keys);
    vector_16 half;
    repeat(half, key);
    if (n > 16 && (size & 16) != 0) step(to, from, half);
    if ((size & 8) != 0) step(to, from, std::uint64_t{key} << 32 | key);
    if ((size & 4) != 0) step(to, from, key);
    if ((size & 2) != 0) step(to, from, first_of<std::uint16_t>(key));
    if ((size & 1) != 0) step(to, from, first_of<std::uint8_t>(rotate_mask(key, size & 2)));
}

#if RUNNEL_X86_64
/// A register of AVX2.
using vector_32 = std::uint64_t RUNNEL_VECTOR(32);

/// The same with 32 bytes at a time, on a machine that has AVX2.
RUNNEL_TARGET("avx2") inline void run_avx2(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    run<vector_32>(to, from, size, key);
}

/// Whether this machine has AVX2. (Not a variable at namespace scope, which each program would ask for that includes
/// this, WebSockets or not.)
RUNNEL_ALWAYS_INLINE inline bool has_avx2() noexcept {
    static bool const has = RUNNEL_PROCESSOR_HAS("avx2");
    return has;
}
#endif

}  // namespace mask_steps

/// Masks or unmasks `size` bytes from `from` to `to`: byte i is combined with byte i modulo 4 of `key`. `to` may be
/// `from`, or overlap it if it is not behind `from`.
RUNNEL_ALWAYS_INLINE inline void apply_mask(char* to, char const* from, std::size_t size, mask_key key) noexcept {
    if (size <= 64) return mask_steps::run_short(to, from, size, key);
#if RUNNEL_X86_64
    if (size > 256 && mask_steps::has_avx2()) return mask_steps::run_avx2(to, from, size, key);
#endif
    mask_steps::run<mask_steps::vector_16>(to, from, size, key);
}

/// Masks or unmasks `size` bytes at `data` in place.
RUNNEL_ALWAYS_INLINE inline void apply_mask(char* data, std::size_t size, mask_key key) noexcept {
    apply_mask(data, data, size, key);
}

}  // namespace runnel::websocket
