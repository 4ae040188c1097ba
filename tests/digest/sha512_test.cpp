#include <runnel/digest/hex.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/sha512.hpp>

#include <doctest/doctest.h>

using namespace runnel::digest;

namespace {

constexpr auto sha512_hex(std::string_view text) { return encode_hex(compute<sha512>(text)); }

constexpr std::string_view two_blocks =
    "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
constexpr std::string_view of_nothing =
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
constexpr std::string_view of_abc =
    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
constexpr std::string_view of_two_blocks =
    "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
    "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909";
constexpr std::string_view of_a_million =
    "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
    "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b";

// NIST's examples for FIPS 180-4.
static_assert(sha512_hex("") == of_nothing);
static_assert(sha512_hex("abc") == of_abc);
static_assert(sha512_hex(two_blocks) == of_two_blocks);

// RFC 4231 4.3: HMAC.
static_assert(encode_hex(authenticate<sha512>("Jefe", "what do ya want for nothing?")) ==
              "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a3"
              "4d4a6b4b636e070a38bce737");

}  // namespace

TEST_CASE("SHA-512 gives the digests of FIPS 180-4's examples at run time") {
    CHECK(sha512_hex("abc") == of_abc);
    CHECK(sha512_hex(two_blocks) == of_two_blocks);
    CHECK(sha512_hex(std::string(1'000'000, 'a')) == of_a_million);
}
