#include <runnel/digest/hex.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/md5.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/digest/sha256.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <new>
#include <string_view>

using namespace runnel::digest;

namespace {

template <class H>
constexpr auto hmac_hex(std::string_view key, std::string_view message) {
    return encode_hex(authenticate<H>(key, message));
}

constexpr runnel::inline_string<131> filled(std::size_t size, int byte) {
    runnel::inline_string<131> bytes;
    char const c = static_cast<char>(byte);
    while (bytes.size() < size) bytes.append({&c, 1});
    return bytes;
}

constexpr std::string_view counting_key =
    "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19";

constexpr std::string_view hash_key_first = "Test Using Larger Than Block-Size Key - Hash Key First";
constexpr std::string_view larger_than_one_block =
    "Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data";

// RFC 2202 2, test cases 1 to 7.
constexpr bool rfc_2202_md5() {
    return hmac_hex<md5>(filled(16, 0x0b), "Hi There") == "9294727a3638bb1c13f48ef8158bfc9d" &&
           hmac_hex<md5>("Jefe", "what do ya want for nothing?") == "750c783e6ab0b503eaa86e310a5db738" &&
           hmac_hex<md5>(filled(16, 0xaa), filled(50, 0xdd)) == "56be34521d144c88dbb8c733f0e8b3f6" &&
           hmac_hex<md5>(counting_key, filled(50, 0xcd)) == "697eaf0aca3a3aea3a75164746ffaa79" &&
           hmac_hex<md5>(filled(16, 0x0c), "Test With Truncation") == "56461ef2342edc00f9bab995690efd4c" &&
           hmac_hex<md5>(filled(80, 0xaa), hash_key_first) == "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd" &&
           hmac_hex<md5>(filled(80, 0xaa), larger_than_one_block) == "6f630fad67cda0ee1fb1f562db3aa53e";
}

// RFC 2202 3, test cases 1 to 7.
constexpr bool rfc_2202_sha1() {
    return hmac_hex<sha1>(filled(20, 0x0b), "Hi There") == "b617318655057264e28bc0b6fb378c8ef146be00" &&
           hmac_hex<sha1>("Jefe", "what do ya want for nothing?") == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79" &&
           hmac_hex<sha1>(filled(20, 0xaa), filled(50, 0xdd)) == "125d7342b9ac11cd91a39af48aa17b4f63f175d3" &&
           hmac_hex<sha1>(counting_key, filled(50, 0xcd)) == "4c9007f4026250c6bc8414f9bf50c86c2d7235da" &&
           hmac_hex<sha1>(filled(20, 0x0c), "Test With Truncation") == "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04" &&
           hmac_hex<sha1>(filled(80, 0xaa), hash_key_first) == "aa4ae5e15272d00e95705637ce8a3b55ed402112" &&
           hmac_hex<sha1>(filled(80, 0xaa), larger_than_one_block) == "e8e99d0f45237d786d6bbaa7965c7808bbff1a91";
}

// RFC 4231 4.2 to 4.8, the SHA-256 of each (4.6 is published truncated to 128 bits).
constexpr bool rfc_4231_sha256() {
    return hmac_hex<sha256>(filled(20, 0x0b), "Hi There") ==
               "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" &&
           hmac_hex<sha256>("Jefe", "what do ya want for nothing?") ==
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" &&
           hmac_hex<sha256>(filled(20, 0xaa), filled(50, 0xdd)) ==
               "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" &&
           hmac_hex<sha256>(counting_key, filled(50, 0xcd)) ==
               "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b" &&
           hmac_hex<sha256>(filled(20, 0x0c), "Test With Truncation").view().substr(0, 32) ==
               "a3b6167473100ee06e0c796c2955552b" &&
           hmac_hex<sha256>(filled(131, 0xaa), hash_key_first) ==
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" &&
           hmac_hex<sha256>(filled(131, 0xaa),
                            "This is a test using a larger than block-size key and a larger than block-size data. The "
                            "key needs to be hashed before being used by the HMAC algorithm.") ==
               "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2";
}

static_assert(rfc_2202_md5());
static_assert(rfc_2202_sha1());
static_assert(rfc_4231_sha256());

}  // namespace

TEST_CASE("HMAC gives the codes of RFC 2202 and RFC 4231 at run time") {
    CHECK(rfc_2202_md5());
    CHECK(rfc_2202_sha1());
    CHECK(rfc_4231_sha256());
}

TEST_CASE_TEMPLATE("a copy of a keyed HMAC authenticates a message of its own", H, md5, sha1, sha256) {
    hmac<H> const keyed("the key");
    for (std::string_view message : {"one", "", "a third, longer message"}) {
        auto fresh = keyed;
        fresh.update(message);
        CHECK(fresh.finish() == authenticate<H>("the key", message));
    }
}

TEST_CASE_TEMPLATE("nothing derived from the key stays in memory when an HMAC is destroyed", H, md5, sha1, sha256) {
    alignas(hmac<H>) char storage[sizeof(hmac<H>)] = {};
    auto* h = new (storage) hmac<H>("a secret key");
    h->update("a message");
    std::string_view const memory(storage, sizeof(storage));
    REQUIRE(memory.find("a message") != memory.npos);
    h->~hmac<H>();
    // Read as volatile: to the compiler, the lifetime of what was here has ended.
    for (char const volatile& c : storage) REQUIRE(c == 0);
}

TEST_CASE("an HMAC leaves nothing of its key in its own memory") {
    using runnel::digest::hmac;
    using runnel::digest::sha256;
    alignas(hmac<sha256>) std::array<char, sizeof(hmac<sha256>)> memory;
    memory.fill('x');
    auto* const h = ::new (memory.data()) hmac<sha256>("a key");
    h->update("message");
    CHECK(std::ranges::any_of(memory, [](char c) { return c != '\0'; }));
    h->~hmac();
    CHECK(std::ranges::all_of(memory, [](char c) { return c == '\0'; }));
}
