#include <runnel/digest/hex.hpp>

#include <doctest/doctest.h>

using namespace runnel::digest;

static_assert(encode_hex(std::array<char, 4>{'\0', '\x01', '\x7f', '\xff'}) == "00017fff");
static_assert([] {
    char bytes[3] = {};
    return decode_hex("7f80fF", bytes) == bytes + 3 && std::string_view(bytes, 3) == "\x7f\x80\xff";
}());
static_assert([] {
    char bytes[3] = {};
    return decode_hex("7f8", bytes) == nullptr && decode_hex("7g", bytes) == nullptr;
}());

TEST_CASE("every byte survives hexadecimal digits of either case") {
    std::string bytes;
    for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
    std::string const lower = encode_hex(bytes);
    std::string upper = lower;
    for (char& c : upper)
        if (c >= 'a') c = static_cast<char>(c - 'a' + 'A');
    CHECK(lower.find_first_not_of("0123456789abcdef") == lower.npos);
    CHECK(decode_hex(lower) == bytes);
    CHECK(decode_hex(upper) == bytes);
}

TEST_CASE("no bytes are no digits") {
    CHECK(encode_hex("") == "");
    CHECK(decode_hex("") == "");
}

TEST_CASE("an odd number of hexadecimal digits is refused") {
    CHECK(!decode_hex("1"));
    CHECK(!decode_hex("abc"));
}

TEST_CASE("a character that is no hexadecimal digit is refused in either place") {
    std::string_view const digits = "0123456789abcdefABCDEF";
    for (int i = 0; i < 256; ++i) {
        char const c = static_cast<char>(i);
        CAPTURE(i);
        bool const good = digits.find(c) != digits.npos;
        CHECK(decode_hex(std::string("00") + c + '0').has_value() == good);
        CHECK(decode_hex(std::string("000") + c).has_value() == good);
    }
}
