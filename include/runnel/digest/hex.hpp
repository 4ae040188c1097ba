#pragma once

#include <runnel/core/inline_string.hpp>

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::digest {

/// Writes `bytes` to `out` as hexadecimal digits, two a byte, in lower case; returns the end of what was written.
constexpr char* encode_hex(std::string_view bytes, char* out) noexcept {
    constexpr char const* digits = "0123456789abcdef";
    for (char c : bytes) {
        auto const byte = static_cast<unsigned char>(c);
        *out++ = digits[byte >> 4];
        *out++ = digits[byte & 15];
    }
    return out;
}

/// A digest as hexadecimal digits, two a byte, in lower case.
template <std::size_t N>
constexpr inline_string<2 * N> encode_hex(std::array<char, N> const& digest) noexcept {
    std::array<char, 2 * N> digits{};
    encode_hex({digest.data(), N}, digits.data());
    return std::string_view(digits.data(), digits.size());
}

/// `bytes` as hexadecimal digits, two a byte, in lower case.
inline std::string encode_hex(std::string_view bytes) {
    std::string text(2 * bytes.size(), '\0');
    encode_hex(bytes, text.data());
    return text;
}

/// The value of a hexadecimal digit of either case, or -1.
constexpr int hex_value(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/// Writes the bytes that `text`, hexadecimal digits of either case, stands for to `out`, which has room for
/// `text.size() / 2`. Returns the end of what was written, or null if the number of digits is odd or one is none (`out`
/// may have been written to).
constexpr char* decode_hex(std::string_view text, char* out) noexcept {
    if (text.size() % 2 != 0) return nullptr;
    for (std::size_t i = 0; i < text.size(); i += 2) {
        int const high = hex_value(text[i]), low = hex_value(text[i + 1]);
        if (high < 0 || low < 0) return nullptr;
        *out++ = static_cast<char>(static_cast<unsigned char>(high << 4 | low));
    }
    return out;
}

/// The bytes that `text`, hexadecimal digits of either case, stands for; nothing if it is no such text.
inline std::optional<std::string> decode_hex(std::string_view text) {
    std::optional<std::string> bytes(std::in_place, text.size() / 2, '\0');
    if (decode_hex(text, bytes->data()) == nullptr) bytes.reset();
    return bytes;
}

}  // namespace runnel::digest
