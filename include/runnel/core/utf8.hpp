#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace runnel {

// Text that crosses the wire is nearly always ASCII, so it is tested eight bytes at a time: a test turns a word into
// one whose sign bits (the highest bit of each byte) are clear if all is well.

/// A word of eight bytes, each of value `byte`.
constexpr std::uint64_t repeat_byte(unsigned char byte) noexcept { return 0x0101'0101'0101'0101u * byte; }

/// The highest bit of each byte of a word.
inline constexpr std::uint64_t sign_bits = repeat_byte(0x80);

/// Has a sign bit set if, in a word of ASCII bytes, at least one of the bytes is 0. (Without a zero byte nothing
/// borrows and no byte minus 1 reaches 0x80; the lowest zero byte becomes 0xFF.) Says nothing about words with sign
/// bits.
constexpr std::uint64_t zero_bytes(std::uint64_t ascii) noexcept { return ascii - repeat_byte(1); }

/// Reads up to eight bytes at `at` as a word in an unspecified order; `n` bytes are there. If there are fewer than
/// eight, some bytes repeat, or are 'a' where nothing is there: a word to test for the presence of bytes.
constexpr std::uint64_t load_word(char const* at, std::size_t n) noexcept {
    auto const byte = [&](std::size_t i) { return std::uint64_t{static_cast<unsigned char>(at[i])}; };
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
    for (std::size_t i = 0; i < n && i < 8; ++i) word = word << 8 | byte(i);
    return word;
}

/// Whether `test(word)` has no sign bit set for any word of `text`. `test` must have the sign bit of a byte set where
/// the byte itself has (so text that passes is ASCII).
template <class Test>
constexpr bool is_ascii(std::string_view text, Test test) noexcept {
    char const* at = text.data();
    std::size_t n = text.size();
    if (n < 8) return (test(load_word(at, n)) & sign_bits) == 0;
    std::uint64_t found = test(load_word(at + n - 8, 8));  // the last eight, which may overlap those before
    for (; n > 8; n -= 8, at += 8) {
        found |= test(load_word(at, 8));
    }
    return (found & sign_bits) == 0;
}

/// Whether all bytes of `text` are ASCII (U+0000 included).
constexpr bool is_ascii(std::string_view text) noexcept {
    return is_ascii(text, [](std::uint64_t word) { return word; });
}

/// Checks UTF-8 that arrives in pieces, cut anywhere: well-formed as in table 3-7 of the Unicode standard, that is
/// without overlong forms, surrogates, and values above U+10FFFF.
class utf8_validator {
  public:
    /// Takes the next piece. False: the text so far is not UTF-8, whatever may follow; the validator is then of no
    /// further use.
    constexpr bool write(std::string_view piece) noexcept {
        for (std::size_t i = 0; i < piece.size(); ++i) {
            if (missing_ == 0 && piece.size() - i >= 8 && (load_word(piece.data() + i, 8) & sign_bits) == 0) {
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
