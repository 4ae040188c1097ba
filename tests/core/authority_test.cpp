#include <runnel/core/authority.hpp>

#include <doctest/doctest.h>

#include <string_view>

using runnel::authority_of;
using runnel::host_in_url;

TEST_CASE("a host stands in a URL as it is, but an IPv6 address in brackets") {
    CHECK(host_in_url("a.example") == "a.example");
    CHECK(host_in_url("192.0.2.1") == "192.0.2.1");
    CHECK(host_in_url("2001:db8::1") == "[2001:db8::1]");
    CHECK(host_in_url("::") == "[::]");
    CHECK(host_in_url("") == "");
}

TEST_CASE("a host has no spaces and no controls") {
    using namespace std::string_view_literals;
    for (auto const good : {"a.example"sv, "::1"sv,
                            "b\xC3\xBC"
                            "cher.example"sv})
        CHECK(runnel::may_be_host(good));
    for (auto const bad : {""sv, "a\0.example"sv, "a b"sv, "a\r\nb"sv, "a\x7F"sv, "\tb"sv, "127.0.0.1\0"sv})
        CHECK_FALSE(runnel::may_be_host(bad));
}

TEST_CASE("an authority is a host and a port") {
    CHECK(authority_of("a.example", 1883) == "a.example:1883");
    CHECK(authority_of("::1", 65535) == "[::1]:65535");
    CHECK(authority_of("", 0) == ":0");
}
