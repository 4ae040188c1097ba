#include <runnel/core/secret.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>

using runnel::equal_in_constant_time;
using runnel::secure_wipe;

static_assert(equal_in_constant_time("secret", "secret"));
static_assert(!equal_in_constant_time("secret", "secreT"));
static_assert([] {
    std::array<char, 4> key{'k', 'e', 'y', '!'};
    secure_wipe(key);
    return true;
}());

TEST_CASE("wiping sets exactly the given bytes to zero") {
    std::string bytes = "before SECRET after";
    secure_wipe(bytes.data() + 7, 6);
    CHECK(bytes == std::string("before \0\0\0\0\0\0 after", 19));
    secure_wipe(bytes.data(), 0);
    CHECK(bytes.front() == 'b');
}

TEST_CASE("wiping an object sets all its bytes to zero") {
    std::array<unsigned, 16> words;
    words.fill(0xdeadbeef);
    secure_wipe(words);
    CHECK(std::ranges::all_of(words, [](unsigned word) { return word == 0; }));
}

TEST_CASE("bytes are equal in constant time if and only if they are equal") {
    std::string const secret = "0123456789abcdef";
    CHECK(equal_in_constant_time(secret, secret));
    CHECK(equal_in_constant_time("", ""));
    CHECK_FALSE(equal_in_constant_time(secret, ""));
    CHECK_FALSE(equal_in_constant_time(secret, secret.substr(1)));
    CHECK_FALSE(equal_in_constant_time(secret, secret + '\0'));
    for (std::size_t i = 0; i < secret.size(); ++i)
        for (int bit = 0; bit < 8; ++bit) {
            std::string other = secret;
            other[i] = static_cast<char>(other[i] ^ (1 << bit));
            CHECK_FALSE(equal_in_constant_time(secret, other));
        }
}
