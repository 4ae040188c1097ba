#include <runnel/core/utf8.hpp>

#include <doctest/doctest.h>

#include "support/random_source.hpp"
#include "support/sample.hpp"
#include <cstdint>
#include <string>
#include <string_view>

using runnel::is_ascii;
using runnel::is_utf8;
using runnel::utf8_validator;

namespace {

static_assert(is_utf8("a text of more than sixteen characters: \xC3\xA9"));
static_assert(!is_utf8("\xC3"));

// One code point, encoded in `length` bytes, however wrong that is.
std::string encode(std::uint32_t code_point, int length) {
    if (length == 1) return std::string(1, static_cast<char>(code_point));
    std::string text;
    for (int i = 1; i < length; ++i, code_point >>= 6)
        text.insert(text.begin(), static_cast<char>(0x80 | (code_point & 0x3F)));
    text.insert(text.begin(), static_cast<char>((0xF00 >> length & 0xFF) | code_point));
    return text;
}

int shortest(std::uint32_t code_point) {
    return code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
}

bool is_valid(std::uint32_t code_point, int length) {
    bool const surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    return length == shortest(code_point) && code_point <= 0x10FFFF && !surrogate;
}

}  // namespace

TEST_CASE("exactly the shortest encodings of all code points but surrogates are UTF-8") {
    std::uint32_t const limits[] = {0, 0x80, 0x800, 0x10000, 0x200000};
    auto const apart = test::every(17);
    for (int length = 1; length <= 4; ++length) {
        std::size_t wrong = 0;
        for (std::uint32_t code_point = 0; code_point < limits[length]; ++code_point) {
            // Of four bytes there are two million: the first and last of each 2,048 are tried, and some between.
            bool const is_edge = (code_point + 2) % 0x800 < 4;
            if (length == 4 && !is_edge && code_point % apart != 0) continue;
            if (is_utf8(encode(code_point, length)) != is_valid(code_point, length)) ++wrong;
        }
        CAPTURE(length);
        CHECK(wrong == 0);
    }
}

TEST_CASE("bytes that begin or continue nothing are not UTF-8, wherever they stand") {
    for (std::size_t size = 0; size < 70; ++size) {
        std::string const text(size, 'x');
        CHECK(is_utf8(text));
        CHECK(is_ascii(text));
        for (std::size_t at = 0; at < size; ++at) {
            for (char const byte : {'\x80', '\xBF', '\xC0', '\xC1', '\xF5', '\xFF'}) {
                std::string wrong = text;
                wrong[at] = byte;
                if (is_utf8(wrong) || is_ascii(wrong)) FAIL_CHECK("size " << size << ", at " << at);
            }
        }
    }
}

TEST_CASE("a character that is cut short is not UTF-8") {
    for (std::string_view const character : {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) {
        for (std::size_t size = 1; size < character.size(); ++size) {
            CHECK_FALSE(is_utf8(character.substr(0, size)));
            CHECK_FALSE(is_utf8(std::string(character.substr(0, size)) + "a"));
            CHECK_FALSE(is_utf8("sixteen bytes are" + std::string(character.substr(0, size))));
        }
        CHECK(is_utf8(character));
    }
}

TEST_CASE("text that comes in pieces is validated as the whole is") {
    for (std::uint32_t seed = 1; seed <= 200; ++seed) {
        test::random_source random(seed);
        std::string text;
        for (std::size_t i = random.between(0, 20); i > 0; --i) {
            auto const code_point = random.between<std::uint32_t>(0, random.one_in(2) ? 0x7F : 0x10FFFF);
            text += encode(code_point, shortest(code_point));
            if (random.one_in(4)) text += "plain ASCII between";
        }
        if (random.one_in(3) && !text.empty()) text[random.between(0, text.size() - 1)] = random.between<char>(0, 255);
        utf8_validator validator;
        bool valid = true;
        for (std::string_view rest = text; !rest.empty() && valid;) {
            auto const piece = rest.substr(0, random.between(0, 30));
            valid = validator.write(piece);
            rest.remove_prefix(piece.size());
        }
        CAPTURE(seed);
        CHECK((valid && validator.complete()) == is_utf8(text));
    }
}
