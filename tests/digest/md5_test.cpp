#include <runnel/digest/hex.hpp>
#include <runnel/digest/md5.hpp>

#include <doctest/doctest.h>

using namespace runnel::digest;

namespace {

constexpr auto md5_hex(std::string_view text) { return encode_hex(compute<md5>(text)); }

// RFC 1321 A.5, the whole test suite.
static_assert(md5_hex("") == "d41d8cd98f00b204e9800998ecf8427e");
static_assert(md5_hex("a") == "0cc175b9c0f1b6a831c399e269772661");
static_assert(md5_hex("abc") == "900150983cd24fb0d6963f7d28e17f72");
static_assert(md5_hex("message digest") == "f96b697d7cb7938d525a2f31aaf161d0");
static_assert(md5_hex("abcdefghijklmnopqrstuvwxyz") == "c3fcd3d76192e4007dfb496cca67e13b");
static_assert(md5_hex("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") ==
              "d174ab98d277d9f5a5611c2c9f419d9f");
static_assert(md5_hex("12345678901234567890123456789012345678901234567890123456789012345678901234567890") ==
              "57edf4a22be3c955ac49da2e2107b67a");

}  // namespace

TEST_CASE("MD5 gives the digests of RFC 1321 at run time") {
    CHECK(md5_hex("") == "d41d8cd98f00b204e9800998ecf8427e");
    CHECK(md5_hex("abc") == "900150983cd24fb0d6963f7d28e17f72");
    CHECK(md5_hex("12345678901234567890123456789012345678901234567890123456789012345678901234567890") ==
          "57edf4a22be3c955ac49da2e2107b67a");
}
