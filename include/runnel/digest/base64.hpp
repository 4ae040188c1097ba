#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::digest {

/// The size of `size` bytes in base64, with padding.
constexpr std::size_t base64_size(std::size_t size) noexcept { return (size + 2) / 3 * 4; }

/// Writes `bytes` to `out` in base64 (RFC 4648 4), with padding and without line breaks; `out` has room for
/// `base64_size(bytes.size())`. Returns the end of what was written.
constexpr char* encode_base64(std::string_view bytes, char* out) noexcept {
    constexpr char const* alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (; !bytes.empty(); bytes.remove_prefix(bytes.size() < 3 ? bytes.size() : 3)) {
        std::uint32_t group = 0;
        for (std::size_t i = 0; i < 3; ++i)
            group = group << 8 | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U);
        // n bytes fill n + 1 characters.
        for (std::size_t i = 0; i < 4; ++i) *out++ = i <= bytes.size() ? alphabet[group >> (18 - 6 * i) & 63] : '=';
    }
    return out;
}

/// `bytes` in base64 (RFC 4648 4), with padding and without line breaks.
inline std::string encode_base64(std::string_view bytes) {
    std::string text(base64_size(bytes.size()), '\0');
    encode_base64(bytes, text.data());
    return text;
}

/// The value of a character of the base64 alphabet, or -1.
constexpr int base64_value(char c) noexcept {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    if (c == '/') return 63;
    return -1;
}

/// Writes the bytes that `text` stands for in base64 to `out`, which has room for `text.size() / 4 * 3`. Returns the
/// end of what was written, or null if `text` is not what an encoder would have made of any bytes: a foreign character
/// (line breaks are), padding missing, in excess or inside, or bits set that are not used (RFC 4648 3.3, 3.5). `out`
/// may then have been written to.
constexpr char* decode_base64(std::string_view text, char* out) noexcept {
    if (text.size() % 4 != 0) return nullptr;
    for (; !text.empty(); text.remove_prefix(4)) {
        std::size_t digits = 4;
        if (text.size() == 4 && text[3] == '=') digits = text[2] == '=' ? 2 : 3;
        std::uint32_t group = 0;
        for (std::size_t i = 0; i < 4; ++i) {
            int const value = i < digits ? base64_value(text[i]) : 0;
            if (value < 0) return nullptr;
            group = group << 6 | static_cast<std::uint32_t>(value);
        }
        std::size_t const bytes = digits - 1;
        for (std::size_t i = 0; i < bytes; ++i, group = group << 8 & 0xffffff)
            *out++ = static_cast<char>(static_cast<unsigned char>(group >> 16));
        if (group != 0) return nullptr;
    }
    return out;
}

/// The bytes that `text` stands for in base64; nothing if it is not what an encoder would have made (see above).
inline std::optional<std::string> decode_base64(std::string_view text) {
    std::optional<std::string> bytes(std::in_place, text.size() / 4 * 3, '\0');
    char const* const end = decode_base64(text, bytes->data());
    if (end == nullptr)
        bytes.reset();
    else
        bytes->resize(static_cast<std::size_t>(end - bytes->data()));
    return bytes;
}

}  // namespace runnel::digest
