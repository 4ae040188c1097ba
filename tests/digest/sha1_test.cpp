#include <runnel/digest/hex.hpp>
#include <runnel/digest/sha1.hpp>

#include <doctest/doctest.h>

using namespace runnel::digest;

namespace {

constexpr auto sha1_hex(std::string_view text) { return encode_hex(compute<sha1>(text)); }

constexpr std::string_view two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";

// RFC 3174 7.3 (which are FIPS 180's), and the empty message.
static_assert(sha1_hex("") == "da39a3ee5e6b4b0d3255bfef95601890afd80709");
static_assert(sha1_hex("abc") == "a9993e364706816aba3e25717850c26c9cd0d89d");
static_assert(sha1_hex(two_blocks) == "84983e441c3bd26ebaae4aa1f95129e5e54670f1");

}  // namespace

TEST_CASE("SHA-1 gives the digests of RFC 3174 at run time") {
    CHECK(sha1_hex("abc") == "a9993e364706816aba3e25717850c26c9cd0d89d");
    CHECK(sha1_hex(two_blocks) == "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    CHECK(sha1_hex(std::string(1'000'000, 'a')) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f");

    sha1 repeated;
    for (int i = 0; i < 80; ++i) repeated.update("01234567");
    CHECK(encode_hex(repeated.finish()) == "dea356a2cddd90c7a7ecedc5ebb563934f460452");
}
