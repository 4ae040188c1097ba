#include <runnel/core/inline_string.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <type_traits>

using runnel::inline_string;

static_assert(std::is_trivially_copyable_v<inline_string<8>> && std::is_trivially_destructible_v<inline_string<8>>);
static_assert(inline_string<8>("12345678") == "12345678");
static_assert(inline_string<8>().empty() && inline_string<0>("").empty());

TEST_CASE("an inline string holds a copy of its text and ends it with a zero byte") {
    std::string original = "text";
    inline_string<8> const copy(original);
    original = "gone";
    CHECK(copy == "text");
    CHECK(copy.size() == 4);
    CHECK(std::string(copy.c_str()) == "text");
    CHECK(copy.str() == "text");
    CHECK(std::string(copy.begin(), copy.end()) == "text");
}

TEST_CASE("text longer than the capacity of an inline string is refused") {
    CHECK_NOTHROW(inline_string<4>("1234"));
    CHECK_THROWS_AS(inline_string<4>("12345"), std::length_error);
    CHECK_THROWS_AS(inline_string<0>("1"), std::length_error);
}

TEST_CASE("an inline string grows up to its capacity, and a failed append changes nothing") {
    inline_string<6> text;
    CHECK(text.try_append("abc"));
    CHECK(text.try_append("def"));
    CHECK_FALSE(text.try_append("g"));
    CHECK(text == "abcdef");
    CHECK_THROWS_AS(text.append("g"), std::length_error);
    CHECK(text == "abcdef");
    CHECK(text.try_append(""));
    text.clear();
    CHECK(text == "");
    CHECK(*text.c_str() == '\0');
    CHECK(text.try_append("ab"));
    CHECK(text.try_append(text));
    CHECK(text == "abab");
}

TEST_CASE("numbers are appended in decimal digits, all of them or none") {
    inline_string<20> text;
    CHECK(text.try_append_decimal(0));
    CHECK(text.try_append_decimal(1203));
    CHECK(text == "01203");
    CHECK_FALSE(text.try_append_decimal(std::numeric_limits<std::uint64_t>::max()));
    CHECK(text == "01203");
    text.clear();
    CHECK(text.try_append_decimal(std::numeric_limits<std::uint64_t>::max()));
    CHECK(text == "18446744073709551615");
}

TEST_CASE("inline strings compare as the texts they hold") {
    inline_string<8> once("abc");
    inline_string<8> again("abcdef");
    CHECK(once != again);
    again.clear();
    again.append("abc");
    CHECK(once == again);
    CHECK(once == std::string_view("abc"));
    CHECK(once != "ab");
    CHECK(once == std::string("abc"));
    CHECK(std::string_view("abc") == once);
    CHECK(once == inline_string<30>("abc"));
    CHECK(once != inline_string<2>("ab"));
}
