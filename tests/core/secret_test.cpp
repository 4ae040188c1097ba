#include <runnel/core/receive_buffer.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/core/send_buffer.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

using runnel::equal_in_constant_time;
using runnel::secret_string;
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

TEST_CASE("a string is wiped with all the memory that it has") {
    std::string text(100, 's');
    text.resize(10);
    char const* const memory = text.data();
    auto const capacity = text.capacity();
    secure_wipe(text);
    CHECK(text.empty());
    REQUIRE(text.data() == memory);
    for (std::size_t i = 0; i < capacity; ++i) CHECK(memory[i] == '\0');
}

TEST_CASE("a secret string leaves nothing behind: destroyed, assigned to, moved from, as part of other things") {
    char const* const secret = "a secret of more than fifteen bytes";
    {
        runnel::testing::freed_memory_search const search(secret);
        {
            std::string const plain(secret);
        }
        CHECK(search.found() == 1);  // so it would be found
    }
    runnel::testing::freed_memory_search const search(secret);
    {
        secret_string one(secret);
        secret_string two = one;
        secret_string three = std::move(one);
        two = "another one that is longer than the one before, by far";
        three = secret_string();
        std::optional<secret_string> four(secret);
        four.reset();
        four = secret_string(secret);
        std::vector<secret_string> many(3, secret_string(secret));
        many.resize(20);
    }
    CHECK(search.found() == 0);
}

TEST_CASE("a secret string is a string otherwise") {
    secret_string text = "pass";
    text += std::string("word");
    CHECK(text == "password");
    CHECK(std::string_view(text).substr(4) == "word");
    std::string const copy = text;
    CHECK(copy == text);
    text = copy.substr(0, 4);
    CHECK(text + "!" == "pass!");
    text = {};
    CHECK(text.empty());
}

TEST_CASE("buffers are wiped with all their memory") {
    char const* const secret = "a secret of more than fifteen bytes";
    runnel::testing::freed_memory_search const search(secret);
    {
        runnel::send_buffer out(8);
        runnel::wiped_at_end const wiping(out);
        out.append(secret);
        out.clear();
        runnel::receive_buffer in;
        runnel::wiped_at_end const wiping_too(in);
        std::memcpy(in.prepare().data(), secret, std::strlen(secret));
        in.commit(std::strlen(secret));
    }
    CHECK(search.found() == 0);
}
