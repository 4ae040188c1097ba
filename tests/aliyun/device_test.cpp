#include <runnel/aliyun/device.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>
#include <type_traits>

using namespace runnel::aliyun;

static_assert(std::is_trivially_destructible_v<device> && std::is_trivially_copyable_v<device>);

namespace {

constexpr device known{"a1X2bEnP82z", "example1", "secret"};
static_assert(check_device(known) == errc::ok);
static_assert(make_device("a1X2bEnP82z", "example1", "secret") == known);

}  // namespace

TEST_CASE("a device is made of texts that keep to the platform's rules") {
    device d;
    std::string const longest_name = "Aa0-_@.:" + std::string(24, 'x');
    CHECK(make_device("a1X2bEnP82z", longest_name, std::string(64, 's'), d) == errc::ok);
    CHECK(d.product_key == "a1X2bEnP82z");
    CHECK(d.device_name == longest_name);
    CHECK(d.device_secret == std::string(64, 's'));
}

TEST_CASE("text that cannot belong to a device is refused, with the reason") {
    device d = known;
    auto const made_of = [&](std::string_view key, std::string_view name, std::string_view secret) {
        return make_device(key, name, secret, d);
    };
    CHECK(made_of("", "name", "secret") == errc::product_key_empty);
    CHECK(made_of(std::string(33, 'k'), "name", "secret") == errc::product_key_too_long);
    CHECK(made_of("p.k", "name", "secret") == errc::product_key_invalid);
    CHECK(made_of("p/k", "name", "secret") == errc::product_key_invalid);
    CHECK(made_of("pk", "", "secret") == errc::device_name_empty);
    CHECK(made_of("pk", std::string(33, 'n'), "secret") == errc::device_name_too_long);
    for (std::string_view bad : {"a&b", "a/b", "a+b", "a#b", "a b", "a|b", "a,b", "a=b", "n\xc3\xa4me", "a\n"}) {
        CAPTURE(bad);
        CHECK(made_of("pk", bad, "secret") == errc::device_name_invalid);
    }
    CHECK(made_of("pk", "name", "") == errc::device_secret_empty);
    CHECK(made_of("pk", "name", std::string(65, 's')) == errc::device_secret_too_long);
    CHECK(d == known);
    CHECK_THROWS_AS(make_device("", "name", "secret"), std::system_error);
}
