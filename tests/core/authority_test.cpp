#include <runnel/core/authority.hpp>

#include <doctest/doctest.h>

using runnel::authority_of;
using runnel::host_in_url;

TEST_CASE("a host stands in a URL as it is, but an IPv6 address in brackets") {
    CHECK(host_in_url("a.example") == "a.example");
    CHECK(host_in_url("192.0.2.1") == "192.0.2.1");
    CHECK(host_in_url("2001:db8::1") == "[2001:db8::1]");
    CHECK(host_in_url("::") == "[::]");
    CHECK(host_in_url("") == "");
}

TEST_CASE("an authority is a host and a port") {
    CHECK(authority_of("a.example", 1883) == "a.example:1883");
    CHECK(authority_of("::1", 65535) == "[::1]:65535");
    CHECK(authority_of("", 0) == ":0");
}
