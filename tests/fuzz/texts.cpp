// Texts from outside as they are: UTF-8, what is printed of them, base64 and hexadecimal digits. Each is compared with
// a plain way of doing the same.

#include <runnel/core/authority.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/digest/base64.hpp>
#include <runnel/digest/hex.hpp>

#include "fuzz.hpp"
#include <cctype>
#include <string>
#include <string_view>

namespace {

using test::require;

// The size of the character at the front, by the definition of UTF-8 (RFC 3629 3); 0: none.
std::size_t character(std::string_view text) {
    auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    if (byte(0) < 0x80) return 1;
    std::size_t const size = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
    if (byte(0) < 0xC0 || byte(0) > 0xF7 || text.size() < size) return 0;
    std::uint32_t code = byte(0) & (0x7Fu >> size);
    for (std::size_t i = 1; i < size; ++i) {
        if (byte(i) >> 6 != 2) return 0;
        code = code << 6 | (byte(i) & 0x3Fu);
    }
    std::uint32_t const least = size == 2 ? 0x80 : size == 3 ? 0x800 : 0x10000;
    return code < least || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0 : size;
}

bool is_utf8_by_definition(std::string_view text) {
    while (!text.empty()) {
        std::size_t const size = character(text);
        if (size == 0) return false;
        text.remove_prefix(size);
    }
    return true;
}

void check_utf8(std::string_view text) {
    bool const good = is_utf8_by_definition(text);
    require(runnel::is_utf8(text) == good);
    runnel::utf8_validator validator;
    bool chopped = true;
    for (std::size_t i = 0; i < text.size() && chopped; i += 3) chopped = validator.write(text.substr(i, 3));
    require((chopped && validator.complete()) == good);
}

void check_printable(std::string_view text) {
    std::size_t const limit = text.size() % 50;
    std::string const shown = runnel::printable(text, limit);
    require(runnel::is_utf8(shown) && shown.size() <= limit + 3);
    for (std::string_view rest = shown; !rest.empty();) {
        auto const piece = rest.substr(0, character(rest));
        require(!runnel::is_control(piece));
        rest.remove_prefix(piece.size());
    }
    require(runnel::printable(shown) == shown);
    // Who reads it can tell what it was.
    if (text.find('\\') != std::string_view::npos) return;
    std::string back;
    std::string const whole = runnel::printable(text, 4 * text.size());
    for (std::size_t i = 0; i < whole.size(); ++i) {
        if (whole[i] != '\\') {
            back += whole[i];
            continue;
        }
        back += *runnel::digest::decode_hex(std::string_view(whole).substr(i + 2, 2));
        i += 3;
    }
    require(back == text);
}

void check_digits(std::string_view text) {
    using namespace runnel::digest;
    require(decode_base64(encode_base64(text)) == text);
    require(decode_hex(encode_hex(text)) == text);
    if (auto const bytes = decode_base64(text)) require(encode_base64(*bytes) == text);
    if (auto const bytes = decode_hex(text)) {
        std::string lower(text);
        for (char& c : lower) c = static_cast<char>(std::tolower(c));
        require(encode_hex(*bytes) == lower);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    std::string_view const text(reinterpret_cast<char const*>(data), size);
    check_utf8(text);
    check_printable(text);
    check_digits(text);
    return 0;
}
