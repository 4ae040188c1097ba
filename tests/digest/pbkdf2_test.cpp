#include <runnel/digest/hex.hpp>
#include <runnel/digest/pbkdf2.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/digest/sha512.hpp>

#include <doctest/doctest.h>

using namespace runnel::digest;
using namespace std::string_view_literals;

namespace {

// How many iterations are done at a time does not matter.
template <hash H>
std::string key_hex(std::string_view password, std::string_view salt, std::uint32_t iterations,
                    std::uint32_t at_a_time = 1000) {
    pbkdf2<H> key(password, salt, iterations);
    std::uint32_t portions = 0;
    while (!key.advance(at_a_time)) ++portions;
    CHECK(portions == (iterations < 2 ? 0 : (iterations - 2) / at_a_time));
    CHECK(key.advance(at_a_time));
    return encode_hex(key.key());
}

constexpr bool agrees_when_compiled() {
    pbkdf2<sha1> key("password", "salt", 2);
    std::array<char, 20> expected{};
    decode_hex("ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957", expected.data());
    return key.advance(1) && key.key() == view(expected);
}
static_assert(agrees_when_compiled());

}  // namespace

TEST_CASE("PBKDF2 gives the keys of RFC 6070") {
    CHECK(key_hex<sha1>("password", "salt", 1) == "0c60c80f961f0e71f3a9b524af6012062fe037a6");
    CHECK(key_hex<sha1>("password", "salt", 2) == "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957");
    CHECK(key_hex<sha1>("password", "salt", 4096) == "4b007901b765489abead49d926f721d065a429c1");
    CHECK(key_hex<sha1>("pass\0word"sv, "sa\0lt"sv, 4096).starts_with("56fa6aa75548099dcc37d7f03425e0c3"));
    CHECK(key_hex<sha1>("passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096) ==
          "3d2eec4fe41c849b80c8d83662c0e44a8b291a96");
}

TEST_CASE("PBKDF2 gives the keys of RFC 7914 11, as far as they are of one block") {
    CHECK(key_hex<sha256>("passwd", "salt", 1) == "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
    CHECK(key_hex<sha256>("Password", "NaCl", 80000) ==
          "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56");
}

TEST_CASE("a key does not depend on how its iterations are divided") {
    std::string const long_password(200, 'p');  // more than a block
    auto const whole = key_hex<sha512>(long_password, "salt", 100);
    for (std::uint32_t const at_a_time : {1u, 2u, 98u, 99u, 100u, 1000u})
        CHECK(key_hex<sha512>(long_password, "salt", 100, at_a_time) == whole);
    CHECK(key_hex<sha512>(long_password, "salt", 101) != whole);
}
