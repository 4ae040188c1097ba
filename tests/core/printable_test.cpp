#include <runnel/core/printable.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>

using runnel::printable;

TEST_CASE("text that shows is left as it is") {
    for (std::string_view text : {"", "403 Forbidden", "caf\xC3\xA9", "\xE6\xB8\xA9\xE5\xBA\xA6", "\xF0\x9F\x98\x80",
                                  "a\\b \"c\"", "\xC2\xA0", "\xE2\x80\x94"})
        CHECK(printable(text) == text);
}

TEST_CASE("controls are escaped, of each kind") {
    CHECK(printable("a\r\nb\tc") == "a\\x0d\\x0ab\\x09c");
    CHECK(printable("\x1b[2J") == "\\x1b[2J");
    CHECK(printable(std::string_view("\0", 1)) == "\\x00");
    CHECK(printable("\x7F") == "\\x7f");
    CHECK(printable("\xC2\x9B"
                    "31m") == "\\xc2\\x9b31m");             // CSI of C1
    CHECK(printable("\xE2\x80\xA8") == "\\xe2\\x80\\xa8");  // line separator
    CHECK(printable("\xE2\x80\xAE"
                    "txt.exe") == "\\xe2\\x80\\xaetxt.exe");  // right-to-left override
    CHECK(printable("\xE2\x81\xA6\xE2\x80\x8F\xD8\x9C") == "\\xe2\\x81\\xa6\\xe2\\x80\\x8f\\xd8\\x9c");
}

TEST_CASE("bytes that are not UTF-8 are escaped, and what follows them is not lost") {
    CHECK(printable("no\x9B"
                    "31m") == "no\\x9b31m");
    CHECK(printable("\xFF\xFE") == "\\xff\\xfe");
    CHECK(printable("\xC3") == "\\xc3");
    CHECK(printable("\xC3"
                    "a") == "\\xc3a");
    CHECK(printable("\xE2\x82"
                    "a") == "\\xe2\\x82a");
    CHECK(printable("\xED\xA0\x80") == "\\xed\\xa0\\x80");  // a surrogate
    CHECK(printable("\xC0\xAF") == "\\xc0\\xaf");           // overlong
    CHECK(printable("\xE2\x1b[2J") == "\\xe2\\x1b[2J");     // a control is none of a character's bytes
}

TEST_CASE("whatever comes, only UTF-8 without controls comes out") {
    for (unsigned first = 0; first < 256; ++first)
        for (unsigned second = 0; second < 256; ++second) {
            std::string const text{static_cast<char>(first), static_cast<char>(second), 'x'};
            auto const shown = printable(text);
            if (!runnel::is_utf8(shown) || shown.back() != 'x') FAIL_CHECK(first, ' ', second);
            for (char const c : shown)
                if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) FAIL_CHECK(first, ' ', second);
            CHECK_FALSE(runnel::is_control(std::string_view(shown).substr(0, 1)));
        }
}

TEST_CASE("a long text is cut, between characters") {
    CHECK(printable("abcdef", 6) == "abcdef");
    CHECK(printable("abcdefg", 6) == "abcdef...");
    CHECK(printable("abcde\xC3\xA9", 6) == "abcde...");
    CHECK(printable("abc\n", 6) == "abc...");
    CHECK(printable(std::string(5000, 'a')).size() == 1003);
    CHECK(printable("a", 0) == "...");
    CHECK(printable("", 0) == "");
}
