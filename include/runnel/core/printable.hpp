#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/utf8.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace runnel {

/// Whether a character, given in UTF-8, does something to a terminal or a log besides being shown: C0 and C1 controls,
/// DEL, the separators of lines and paragraphs, and the controls of direction (Unicode 23.1, 23.2).
constexpr bool is_control(std::string_view character) noexcept {
    auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
    if (character.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
    if (character.size() == 2) return (byte(0) == 0xC2 && byte(1) < 0xA0) || (byte(0) == 0xD8 && byte(1) == 0x9C);
    if (character.size() != 3 || byte(0) != 0xE2) return false;
    if (byte(1) == 0x80) return byte(2) == 0x8E || byte(2) == 0x8F || (byte(2) >= 0xA8 && byte(2) <= 0xAE);
    return byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9;
}

/// What a peer has said, made fit for an error's text, an event and a log: UTF-8 stays as it is, but controls (see
/// `is_control`) and bytes that are not UTF-8 become `\xNN`. Of more than `limit` bytes the rest is left out, which
/// three dots tell.
RUNNEL_COLD RUNNEL_NOINLINE inline std::string printable(std::string_view text, std::size_t limit = 1000) {
    std::string out;
    while (!text.empty()) {
        utf8_validator validator;
        std::size_t size = 0;
        bool valid = true;
        do {
            valid = size < text.size() && validator.write(text.substr(size, 1));
            ++size;
        } while (valid && !validator.complete());
        auto piece = text.substr(0, valid ? size : 1);
        text.remove_prefix(piece.size());
        char escaped[4 * 4];
        if (!valid || is_control(piece)) {
            char* end = escaped;
            for (char const c : piece) {
                auto const byte = static_cast<unsigned char>(c);
                *end++ = '\\';
                *end++ = 'x';
                *end++ = "0123456789abcdef"[byte >> 4];
                *end++ = "0123456789abcdef"[byte & 0xF];
            }
            piece = {escaped, static_cast<std::size_t>(end - escaped)};
        }
        if (out.size() + piece.size() > limit) {
            piece = "...";
            text = {};
        }
        out.append(piece);
    }
    return out;
}

}  // namespace runnel
