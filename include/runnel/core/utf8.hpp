#pragma once

#include <runnel/core/compiler.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#if RUNNEL_GNU && defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace runnel {

// Text that crosses the wire is nearly always ASCII, so it is tested many bytes at a time. A word is eight bytes in a
// `std::uint64_t`, or sixteen in a `wide_word`. A test turns a word into one whose sign bits (the highest bit of each
// byte) are set if all is well with all bytes, and is written once for both. In a `wide_word` each sign bit tells of
// its own byte; in eight bytes, one that fails may take those above with it. Without the compiler's own vector types
// there is no `wide_word`.

/// A word all of whose bytes are `byte`.
constexpr std::uint64_t repeat_byte(unsigned char byte) noexcept { return 0x0101'0101'0101'0101u * byte; }

/// A test for ASCII, U+0000 included.
constexpr std::uint64_t test_ascii(std::uint64_t word) noexcept { return ~word; }

/// A test for ASCII without U+0000.
constexpr std::uint64_t test_ascii_without_null(std::uint64_t word) noexcept {
    // Without a zero byte nothing borrows, and no ASCII byte minus 1 has the sign bit; the lowest zero byte becomes
    // 0xFF.
    return ~(word | (word - repeat_byte(1)));
}

/// A test for ASCII without U+0000, and without bytes that, with the bits of `mask` set, are `byte`.
constexpr std::uint64_t test_ascii_without(std::uint64_t word, char mask, char byte) noexcept {
    auto const masked = word | repeat_byte(static_cast<unsigned char>(mask));
    auto const differs = ~((masked ^ repeat_byte(static_cast<unsigned char>(byte))) - repeat_byte(1));
    return test_ascii_without_null(word) & differs;
}

/// Whether the sign bits of all bytes of a word are set.
constexpr bool all_sign_bits(std::uint64_t word) noexcept { return (~word & repeat_byte(0x80)) == 0; }

#if RUNNEL_GNU
/// Sixteen bytes; operators work on each byte, and compile to vector instructions.
using wide_word = signed char RUNNEL_VECTOR(16);

inline wide_word test_ascii(wide_word word) noexcept { return word >= 0; }
inline wide_word test_ascii_without_null(wide_word word) noexcept { return word > 0; }
inline wide_word test_ascii_without(wide_word word, char mask, char byte) noexcept {
    wide_word const equal = (word | static_cast<signed char>(mask)) == static_cast<signed char>(byte);
    return test_ascii_without_null(word) - equal;  // which is -1 where it holds: cheaper here than to negate it
}
inline bool all_sign_bits(wide_word word) noexcept {
#ifdef __SSE2__
    return _mm_movemask_epi8(reinterpret_cast<__m128i>(word)) == 0xFFFF;
#else
    std::uint64_t halves[2];
    std::memcpy(halves, &word, 16);
    return all_sign_bits(halves[0] & halves[1]);
#endif
}
#endif

/// Reads eight bytes at `at`, in an unspecified order, or all `n` if there are fewer: then some bytes repeat, or are
/// 'a' where nothing is there. A word to test for the presence of bytes.
constexpr std::uint64_t load_word(char const* at, std::size_t n) noexcept {
    if (n >= 4 && !std::is_constant_evaluated()) {
        if (n >= 8) {
            std::uint64_t word;
            std::memcpy(&word, at, 8);
            return word;
        }
        std::uint32_t halves[2];
        std::memcpy(&halves[0], at, 4);
        std::memcpy(&halves[1], at + n - 4, 4);
        return std::uint64_t{halves[0]} << 32 | halves[1];
    }
    std::uint64_t word = repeat_byte('a');
    for (std::size_t i = 0; i < n && i < 8; ++i) word = word << 8 | static_cast<unsigned char>(at[i]);
    return word;
}

/// Whether `test` passes for all words of `text`. It must fail for bytes that are not ASCII. `readable` bytes, at least
/// those of `text`, can be read where it begins: a short text is tested faster if sixteen are.
template <class Test>
RUNNEL_ALWAYS_INLINE constexpr bool is_ascii(std::string_view text, Test test,
                                             [[maybe_unused]] std::size_t readable) noexcept {
    char const* at = text.data();
    std::size_t const n = text.size();
    if (!RUNNEL_GNU || std::is_constant_evaluated()) {
        std::uint64_t passed = test(load_word(at, n));
        for (std::size_t i = 8; i < n; i += 8) passed &= test(load_word(at + i, n - i));
        return all_sign_bits(passed);
    }
#if RUNNEL_GNU
    auto const load = [](char const* from) {
        wide_word word;
        std::memcpy(&word, from, 16);
        return word;
    };
    if (n >= 16) {
        wide_word passed = test(load(at)) & test(load(at + n - 16));  // which may overlap
        for (std::size_t i = 16; i + 16 < n; i += 16) passed &= test(load(at + i));
        return all_sign_bits(passed);
    }
#ifdef __SSE2__
    if (readable >= 16) {
        auto const signs = static_cast<unsigned>(_mm_movemask_epi8(reinterpret_cast<__m128i>(test(load(at)))));
        return (~signs & ((1u << n) - 1)) == 0;
    }
#endif
    using two_words = std::uint64_t RUNNEL_VECTOR(16);
    two_words const both = {load_word(at, n), n < 8 ? load_word(at, n) : load_word(at + n - 8, 8)};
    return all_sign_bits(test(reinterpret_cast<wide_word>(both)));
#endif
}

/// Whether `test` passes for all words of `text`.
template <class Test>
RUNNEL_ALWAYS_INLINE constexpr bool is_ascii(std::string_view text, Test test) noexcept {
    return is_ascii(text, test, text.size());
}

/// Whether all bytes of `text` are ASCII (U+0000 included).
constexpr bool is_ascii(std::string_view text) noexcept {
    return is_ascii(text, [](auto word) { return test_ascii(word); });
}

/// Checks UTF-8 that arrives in pieces, cut anywhere: well-formed as in table 3-7 of the Unicode standard, that is
/// without overlong forms, surrogates, and values above U+10FFFF.
class utf8_validator {
  public:
    /// Takes the next piece. False: the text so far is not UTF-8, whatever may follow; the validator is then of no
    /// further use.
    constexpr bool write(std::string_view piece) noexcept {
        for (std::size_t i = 0; i < piece.size(); ++i) {
            if (missing_ == 0 && piece.size() - i >= 8 && is_ascii(piece.substr(i, 8))) {
                i += 7;
                continue;
            }
            if (!put(static_cast<unsigned char>(piece[i]))) return false;
        }
        return true;
    }

    /// Whether the text so far does not end inside a character.
    constexpr bool complete() const noexcept { return missing_ == 0; }

  private:
    constexpr bool put(unsigned char byte) noexcept {
        if (missing_ != 0) {
            if (byte < lowest_ || byte > highest_) return false;
            lowest_ = 0x80;
            highest_ = 0xBF;
            --missing_;
            return true;
        }
        if (byte < 0x80) return true;
        if (byte < 0xC2 || byte > 0xF4) return false;  // a continuation, an overlong form, or above U+10FFFF
        missing_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
        if (byte == 0xE0) lowest_ = 0xA0;   // overlong
        if (byte == 0xED) highest_ = 0x9F;  // surrogates
        if (byte == 0xF0) lowest_ = 0x90;   // overlong
        if (byte == 0xF4) highest_ = 0x8F;  // above U+10FFFF
        return true;
    }

    unsigned char missing_ = 0;    // continuation bytes that the character begun still needs
    unsigned char lowest_ = 0x80;  // the range of the next of them
    unsigned char highest_ = 0xBF;
};

/// Whether `text` is well-formed UTF-8. U+0000 is a character like any other.
constexpr bool is_utf8(std::string_view text) noexcept {
    if (is_ascii(text)) return true;
    utf8_validator validator;
    return validator.write(text) && validator.complete();
}

}  // namespace runnel
