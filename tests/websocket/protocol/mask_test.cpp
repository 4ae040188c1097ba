#include <runnel/websocket/protocol/mask.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

using namespace runnel::websocket;

namespace {

mask_key key_of(unsigned char a, unsigned char b, unsigned char c, unsigned char d) {
    return std::bit_cast<mask_key>(std::array<unsigned char, 4>{a, b, c, d});
}

// RFC 6455 5.3 word for word: octet i is combined with octet i MOD 4 of the key.
std::string masked_as_defined(std::string text, mask_key key) {
    auto const bytes = std::bit_cast<std::array<char, 4>>(key);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(text[i] ^ bytes[i % 4]);
    return text;
}

std::string sample(std::size_t size) {
    std::string text(size, '\0');
    unsigned x = 1;
    for (char& c : text) c = static_cast<char>((x = x * 1103515245 + 12345) >> 16);
    return text;
}

mask_key const key = key_of(0x37, 0xfa, 0x21, 0x3d);

}  // namespace

TEST_CASE("the masked Hello of RFC 6455 5.7") {
    std::string text = "Hello";
    apply_mask(text.data(), text.size(), key);
    CHECK(text == "\x7f\x9f\x4d\x51\x58");
}

TEST_CASE("masks agree with the definition for all lengths up to 600 and all alignments") {
    std::string const plain = sample(700);
    for (std::size_t offset = 0; offset < 33; ++offset) {
        for (std::size_t size = 0; size <= 600; ++size) {
            std::string bytes = plain;
            apply_mask(bytes.data() + offset, size, key);
            std::string expected = plain;
            expected.replace(offset, size, masked_as_defined(plain.substr(offset, size), key));
            if (bytes != expected) FAIL("offset " << offset << " size " << size);
        }
    }
}

TEST_CASE("masking into memory in front of the source, overlapping it, moves and masks") {
    std::string const plain = sample(1000);
    for (std::size_t shift : {1u, 2u, 3u, 4u, 6u, 8u, 14u, 15u, 16u, 31u, 32u, 33u, 64u, 127u, 128u}) {
        for (std::size_t size :
             {0u, 1u, 3u, 5u, 7u, 8u, 13u, 16u, 22u, 31u, 63u, 64u, 65u, 127u, 128u, 129u, 500u, 800u}) {
            std::string bytes = plain;
            apply_mask(bytes.data(), bytes.data() + shift, size, key);
            if (bytes.substr(0, size) != masked_as_defined(plain.substr(shift, size), key))
                FAIL("shift " << shift << " size " << size);
            CHECK(bytes.substr(shift + size) == plain.substr(shift + size));
        }
    }
}

TEST_CASE("masking twice restores the bytes, also when the second time is cut into pieces") {
    std::string const plain = sample(300);
    for (std::size_t cut = 0; cut <= plain.size(); ++cut) {
        std::string bytes = masked_as_defined(plain, key);
        apply_mask(bytes.data(), cut, key);
        apply_mask(bytes.data() + cut, bytes.size() - cut, rotate_mask(key, cut));
        CHECK(bytes == plain);
    }
}

TEST_CASE("a key of zeros changes nothing") {
    std::string const plain = sample(1000);
    std::string bytes = plain;
    apply_mask(bytes.data(), bytes.size(), 0);
    CHECK(bytes == plain);
}
