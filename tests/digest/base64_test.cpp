#include <runnel/digest/base64.hpp>

#include <doctest/doctest.h>

#include <random>

using namespace runnel::digest;

namespace {

constexpr bool stand_for_each_other(std::string_view bytes, std::string_view text) {
    char encoded[8] = {}, decoded[6] = {};
    char const* const text_end = encode_base64(bytes, encoded);
    char const* const bytes_end = decode_base64(text, decoded);
    return std::string_view(encoded, static_cast<std::size_t>(text_end - encoded)) == text && bytes_end != nullptr &&
           std::string_view(decoded, static_cast<std::size_t>(bytes_end - decoded)) == bytes;
}

// RFC 4648 10.
static_assert(stand_for_each_other("", ""));
static_assert(stand_for_each_other("f", "Zg=="));
static_assert(stand_for_each_other("fo", "Zm8="));
static_assert(stand_for_each_other("foo", "Zm9v"));
static_assert(stand_for_each_other("foob", "Zm9vYg=="));
static_assert(stand_for_each_other("fooba", "Zm9vYmE="));
static_assert(stand_for_each_other("foobar", "Zm9vYmFy"));

}  // namespace

TEST_CASE("base64 gives the texts of RFC 4648 at run time") {
    CHECK(encode_base64("") == "");
    CHECK(decode_base64("") == "");
    CHECK(encode_base64("f") == "Zg==");
    CHECK(decode_base64("Zg==") == "f");
    CHECK(encode_base64("fo") == "Zm8=");
    CHECK(decode_base64("Zm8=") == "fo");
    CHECK(encode_base64("foo") == "Zm9v");
    CHECK(decode_base64("Zm9v") == "foo");
    CHECK(encode_base64("foob") == "Zm9vYg==");
    CHECK(decode_base64("Zm9vYg==") == "foob");
    CHECK(encode_base64("fooba") == "Zm9vYmE=");
    CHECK(decode_base64("Zm9vYmE=") == "fooba");
    CHECK(encode_base64("foobar") == "Zm9vYmFy");
    CHECK(decode_base64("Zm9vYmFy") == "foobar");
}

TEST_CASE("every character of the base64 alphabet stands for its value") {
    std::string_view const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 256; ++i) {
        CAPTURE(i);
        auto const at = alphabet.find(static_cast<char>(i));
        CHECK(base64_value(static_cast<char>(i)) == (at == alphabet.npos ? -1 : static_cast<int>(at)));
    }
    CHECK(encode_base64(std::string_view("\x00\x10\x83\xff\xff\xff", 6)) == "ABCD////");
}

TEST_CASE("random bytes of every length survive base64") {
    std::uint64_t const seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    for (std::size_t size = 0; size < 200; ++size) {
        std::string bytes(size, '\0');
        for (char& c : bytes) c = static_cast<char>(random());
        std::string const text = encode_base64(bytes);
        CHECK(text.size() == base64_size(size));
        CHECK(decode_base64(text) == bytes);
    }
}

TEST_CASE("base64 that no encoder makes is refused") {
    char const* text = nullptr;
    SUBCASE("padding missing") { text = "Zg"; }
    SUBCASE("half the padding missing") { text = "Zg="; }
    SUBCASE("one character") { text = "Z"; }
    SUBCASE("three characters of padding") { text = "Z==="; }
    SUBCASE("nothing but padding") { text = "===="; }
    SUBCASE("padding inside") { text = "Zg==Zm9v"; }
    SUBCASE("padding before a character") { text = "Zg=v"; }
    SUBCASE("padding in excess") { text = "Zm9v===="; }
    SUBCASE("an unused bit set in the last character but two") { text = "Zh=="; }
    SUBCASE("an unused bit set in the last character but one") { text = "Zm9="; }
    SUBCASE("a line break") { text = "Zm9v\nZm9"; }
    SUBCASE("a space") { text = "Zm9 "; }
    SUBCASE("a character of the other alphabet") { text = "Zm-_"; }
    SUBCASE("a byte above ASCII") { text = "Zm9\xff"; }
    CHECK(!decode_base64(text));
}
