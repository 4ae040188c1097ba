#pragma once

#include <runnel/core/compiler.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

// SHA-1 and SHA-256 by the SHA instructions of x86-64 processors, three to five times as fast as plain C++. Found out
// when the program starts and used at run time only; without them, and with other compilers, the plain functions do the
// work. The compiler's own vector types and built-in functions are used, since <immintrin.h> takes long to compile.
#if RUNNEL_X86_64
#define RUNNEL_X86_SHA 1
#include <cpuid.h>

namespace runnel::digest::detail {

/// The compression functions of SHA-1 and SHA-256 in the SHA instructions.
class x86_sha {
  public:
    /// Whether this processor has the instructions. False in constant expressions, and before static initialisation
    /// has come to it: the plain functions then give the same result.
    static constexpr bool available() noexcept { return !std::is_constant_evaluated() && found; }

    /// Folds `count` blocks of 64 bytes into SHA-256's `state` of 8 words; `constants` are the function's 64.
    RUNNEL_TARGET("sha,sse4.1")
    static void compress_sha256(std::uint32_t* state, std::uint32_t const* constants, char const* blocks,
                                std::size_t count) noexcept {
        for (; count > 0; --count, blocks += 64)
            compress_sha256(state, constants, blocks, std::make_index_sequence<16>());
    }

    /// Folds `count` blocks of 64 bytes into SHA-1's `state` of 5 words.
    RUNNEL_TARGET("sha,sse4.1")
    static void compress_sha1(std::uint32_t* state, char const* blocks, std::size_t count) noexcept {
        for (; count > 0; --count, blocks += 64) compress_sha1(state, blocks, std::make_index_sequence<20>());
    }

  private:
    using words = int __attribute__((vector_size(16)));
    using unsigned_words = unsigned __attribute__((vector_size(16)));
    using octets = char __attribute__((vector_size(16)));

    // Working variables in the order the instructions want them, and a ring of the schedule's last 16 words.
    struct sha256_run {
        words abef, cdgh, w[4];
    };
    struct sha1_run {
        words abcd, previous, w[4];
    };

    static bool detect() noexcept {
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSE4_1) == 0) return false;
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
    }

    static bool const found;

    template <class T>
    RUNNEL_ALWAYS_INLINE static T load(void const* from) noexcept {
        T value;
        std::memcpy(&value, from, sizeof(value));
        return value;
    }

    // Adds modulo 2^32: the built-in functions want signed words, which must not overflow.
    RUNNEL_ALWAYS_INLINE static words sum(words a, words b) noexcept {
        return reinterpret_cast<words>(reinterpret_cast<unsigned_words>(a) + reinterpret_cast<unsigned_words>(b));
    }

    // Four steps of SHA-256: words 4 * I to 4 * I + 3.
    template <std::size_t I>
    RUNNEL_TARGET("sha,sse4.1")
    RUNNEL_ALWAYS_INLINE static void four_steps(sha256_run& run, char const* block, std::uint32_t const* k) noexcept {
        words& w = run.w[I % 4];
        if constexpr (I < 4) {
            octets const o = load<octets>(block + 16 * I);
            w = reinterpret_cast<words>(
                __builtin_shufflevector(o, o, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
        } else {
            words const last = run.w[(I + 3) % 4];
            words const seven_back = __builtin_shufflevector(run.w[(I + 2) % 4], last, 1, 2, 3, 4);
            w = __builtin_ia32_sha256msg2(sum(__builtin_ia32_sha256msg1(w, run.w[(I + 1) % 4]), seven_back), last);
        }
        words const input = sum(w, load<words>(k + 4 * I));
        run.cdgh = __builtin_ia32_sha256rnds2(run.cdgh, run.abef, input);
        run.abef = __builtin_ia32_sha256rnds2(run.abef, run.cdgh, __builtin_shufflevector(input, input, 2, 3, 2, 3));
    }

    template <std::size_t... I>
    RUNNEL_TARGET("sha,sse4.1")
    RUNNEL_ALWAYS_INLINE static void compress_sha256(std::uint32_t* state, std::uint32_t const* constants,
                                                     char const* block, std::index_sequence<I...>) noexcept {
        words const abcd = load<words>(state), efgh = load<words>(state + 4);
        words const abef = __builtin_shufflevector(abcd, efgh, 5, 4, 1, 0);
        words const cdgh = __builtin_shufflevector(abcd, efgh, 7, 6, 3, 2);
        sha256_run run{abef, cdgh, {}};
        (four_steps<I>(run, block, constants), ...);
        run.abef = sum(run.abef, abef);
        run.cdgh = sum(run.cdgh, cdgh);
        words const a_to_d = __builtin_shufflevector(run.abef, run.cdgh, 3, 2, 7, 6);
        words const e_to_h = __builtin_shufflevector(run.abef, run.cdgh, 1, 0, 5, 4);
        std::memcpy(state, &a_to_d, sizeof(a_to_d));
        std::memcpy(state + 4, &e_to_h, sizeof(e_to_h));
    }

    // Four steps of SHA-1: words 4 * I to 4 * I + 3, the first of them in the highest place.
    template <std::size_t I>
    RUNNEL_TARGET("sha,sse4.1")
    RUNNEL_ALWAYS_INLINE static void four_steps(sha1_run& run, char const* block, std::uint32_t first_e) noexcept {
        words& w = run.w[I % 4];
        if constexpr (I < 4) {
            octets const o = load<octets>(block + 16 * I);
            w = reinterpret_cast<words>(
                __builtin_shufflevector(o, o, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        } else {
            words const mixed = __builtin_ia32_sha1msg1(w, run.w[(I + 1) % 4]) ^ run.w[(I + 2) % 4];
            w = __builtin_ia32_sha1msg2(mixed, run.w[(I + 3) % 4]);
        }
        // Variable e of these steps is variable a of four steps ago, rotated.
        words input = w;
        if constexpr (I == 0)
            input = sum(w, words{0, 0, 0, static_cast<int>(first_e)});
        else
            input = __builtin_ia32_sha1nexte(run.previous, w);
        run.previous = run.abcd;
        run.abcd = __builtin_ia32_sha1rnds4(run.abcd, input, I / 5);
    }

    template <std::size_t... I>
    RUNNEL_TARGET("sha,sse4.1")
    RUNNEL_ALWAYS_INLINE static void compress_sha1(std::uint32_t* state, char const* block,
                                                   std::index_sequence<I...>) noexcept {
        words const dcba = load<words>(state);
        words const abcd = __builtin_shufflevector(dcba, dcba, 3, 2, 1, 0);
        sha1_run run{abcd, {}, {}};
        (four_steps<I>(run, block, state[4]), ...);
        words const e = __builtin_ia32_sha1nexte(run.previous, words{0, 0, 0, static_cast<int>(state[4])});
        run.abcd = sum(run.abcd, abcd);
        words const back = __builtin_shufflevector(run.abcd, run.abcd, 3, 2, 1, 0);
        std::memcpy(state, &back, sizeof(back));
        state[4] = static_cast<std::uint32_t>(e[3]);
    }
};

inline bool const x86_sha::found = x86_sha::detect();

}  // namespace runnel::digest::detail
#endif
