#include <runnel/digest/hmac.hpp>
#include <runnel/digest/md5.hpp>
#include <runnel/digest/pbkdf2.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/digest/sha512.hpp>

#include <doctest/doctest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <random>

using namespace runnel::digest;

namespace {

constexpr int inputs = 10'000;

unsigned char const* octets(std::string_view bytes) { return reinterpret_cast<unsigned char const*>(bytes.data()); }

std::string random_bytes(std::mt19937_64& random, std::size_t longest) {
    std::string bytes(std::uniform_int_distribution<std::size_t>(0, longest)(random), '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    return bytes;
}

EVP_MD const* openssl_of(md5 const*) { return EVP_md5(); }
EVP_MD const* openssl_of(sha1 const*) { return EVP_sha1(); }
EVP_MD const* openssl_of(sha256 const*) { return EVP_sha256(); }
EVP_MD const* openssl_of(sha512 const*) { return EVP_sha512(); }

}  // namespace

TEST_CASE_TEMPLATE("10,000 random inputs have the digests that OpenSSL gives them", H, md5, sha1, sha256, sha512) {
    std::uint64_t const seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    EVP_MD const* const theirs = openssl_of(static_cast<H const*>(nullptr));
    for (int i = 0; i < inputs; ++i) {
        std::string const input = random_bytes(random, 300);
        char expected[H::digest_size];
        REQUIRE(EVP_Digest(input.data(), input.size(), reinterpret_cast<unsigned char*>(expected), nullptr, theirs,
                           nullptr) == 1);
        auto const digest = compute<H>(input);
        CAPTURE(i);
        REQUIRE(view(digest) == std::string_view(expected, sizeof(expected)));
    }
}

TEST_CASE_TEMPLATE("10,000 random keys and messages have the HMAC that OpenSSL gives them", H, md5, sha1, sha256,
                   sha512) {
    std::uint64_t const seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    EVP_MD const* const theirs = openssl_of(static_cast<H const*>(nullptr));
    for (int i = 0; i < inputs; ++i) {
        std::string const key = random_bytes(random, 300);
        std::string const message = random_bytes(random, 300);
        char expected[H::digest_size];
        REQUIRE(HMAC(theirs, key.data(), static_cast<int>(key.size()), octets(message), message.size(),
                     reinterpret_cast<unsigned char*>(expected), nullptr) != nullptr);
        auto const code = authenticate<H>(key, message);
        CAPTURE(i);
        REQUIRE(view(code) == std::string_view(expected, sizeof(expected)));
    }
}

TEST_CASE_TEMPLATE("1,000 random passwords give the key that OpenSSL derives from them", H, sha1, sha256, sha512) {
    std::uint64_t const seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    EVP_MD const* const theirs = openssl_of(static_cast<H const*>(nullptr));
    for (int i = 0; i < inputs / 10; ++i) {
        std::string const password = random_bytes(random, 150), salt = random_bytes(random, 100);
        auto const iterations = 1 + static_cast<std::uint32_t>(random() % 20);
        char expected[H::digest_size];
        REQUIRE(PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), octets(salt),
                                  static_cast<int>(salt.size()), static_cast<int>(iterations), theirs,
                                  static_cast<int>(H::digest_size), reinterpret_cast<unsigned char*>(expected)) == 1);
        pbkdf2<H> key(password, salt, iterations);
        REQUIRE(key.advance(iterations));
        CAPTURE(i);
        REQUIRE(key.key() == std::string_view(expected, sizeof(expected)));
    }
}

TEST_CASE_TEMPLATE("10,000 random inputs have the same digest without the processor's instructions", C,
                   sha1_compression, sha256_compression) {
    std::uint64_t const seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    for (int i = 0; i < inputs; ++i) {
        std::string block = random_bytes(random, 128);
        block.resize(128);
        auto plain = C::initial_state;
        for (auto& word : plain) word = static_cast<std::uint32_t>(random());
        auto fastest = plain;
        C::compress_portably(plain, block.data(), 2);
        C::compress(fastest, block.data(), 2);
        CAPTURE(i);
        REQUIRE(plain == fastest);
    }
}
