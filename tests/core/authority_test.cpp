#include <runnel/core/authority.hpp>

#include <doctest/doctest.h>

#include <string>
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

TEST_CASE("a host in a text has nothing that delimits there, and at most 255 bytes of ASCII") {
    using runnel::may_be_host_in_text;
    CHECK(may_be_host_in_text("a.example"));
    CHECK(may_be_host_in_text("fe80::1%eth0"));
    CHECK(may_be_host_in_text(std::string(255, 'a')));
    for (auto const bad : {"", "a b", "a/b", "a@b", "a?b", "a#b", "[a", "a]", "a\\b", "a\x80"})
        CHECK_FALSE(may_be_host_in_text(bad));
    CHECK_FALSE(may_be_host_in_text(std::string(256, 'a')));
}

TEST_CASE("a text is split into host and port, and an IPv6 address with a port has brackets") {
    auto const parts = [](std::string_view text) -> std::string {
        auto const p = runnel::split_host_and_port(text);
        if (!p) return "none";
        return std::string(p->has_brackets ? "[" : "").append(p->host).append(p->has_port ? "|" : "").append(p->port);
    };
    CHECK(parts("a") == "a");
    CHECK(parts("a:1") == "a|1");
    CHECK(parts("a:") == "a|");
    CHECK(parts(":1") == "|1");
    CHECK(parts("::1") == "::1");
    CHECK(parts("[::1]") == "[::1");
    CHECK(parts("[::1]:x") == "[::1|x");
    CHECK(parts("[::1") == "none");
    CHECK(parts("[::1]2") == "none");
    CHECK(parts("") == "");
}

TEST_CASE("a port is a number from 1 to 65535") {
    CHECK(runnel::read_port("1") == 1);
    CHECK(runnel::read_port("00080") == 80);
    CHECK(runnel::read_port("65535") == 65535);
    for (auto const bad : {"", "0", "65536", "99999", "000080", "-1", "+1", "8a", " 1"})
        CHECK(runnel::read_port(bad) == 0);
}

TEST_CASE("an authority is a host and a port") {
    CHECK(authority_of("a.example", 1883) == "a.example:1883");
    CHECK(authority_of("::1", 65535) == "[::1]:65535");
    CHECK(authority_of("", 0) == ":0");
}
