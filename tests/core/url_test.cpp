#include <runnel/core/url.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace {

using namespace runnel;

std::string refusal_of(std::string_view text) {
    try {
        parse_url(text);
    } catch (std::invalid_argument const& e) {
        return e.what();
    }
    return "none";
}

// All parts, for comparison.
std::string parts_of(std::string_view text) {
    auto const u = parse_url(text);
    return u.scheme + '|' + u.user_name.value_or("-") + '|' + u.password.value_or("-") + '|' + u.host + '|' +
           std::to_string(u.port) + '|' + u.path;
}

}  // namespace

TEST_CASE("a URL has a scheme, a user, a host, a port and a path, of which most may be missing") {
    CHECK(parts_of("mqtt://broker.example") == "mqtt|-|-|broker.example|0|");
    CHECK(parts_of("mqtts://broker.example:8884") == "mqtts|-|-|broker.example|8884|");
    CHECK(parts_of("wss://user:word@broker.example:443/mqtt?x=1") == "wss|user|word|broker.example|443|/mqtt?x=1");
    CHECK(parts_of("ws://user@[2001:db8::1]:8080/") == "ws|user|-|2001:db8::1|8080|/");
    CHECK(parts_of("mqtt://[::1]") == "mqtt|-|-|::1|0|");
    CHECK(parts_of("ws://a?x") == "ws|-|-|a|0|/?x");
    CHECK(parts_of("unix:///run/broker.sock") == "unix|-|-||0|/run/broker.sock");
    CHECK(parts_of("mqtt://:@a:1") == "mqtt|||a|1|");
}

TEST_CASE("scheme and host are in small letters, all else is as it was") {
    CHECK(parts_of("MQTTS://User:Word@Broker.Example/A%2fB") == "mqtts|User|Word|broker.example|0|/A%2fB");
}

TEST_CASE("user name and password are without escapes, and may hold what separates parts") {
    CHECK(parts_of("mqtt://a%40b%3a:p%2Fq%25@host") == "mqtt|a@b:|p/q%|host|0|");
    CHECK(parts_of("mqtt://a:b:c@host") == "mqtt|a|b:c|host|0|");
    CHECK(parts_of("mqtt://a@b:c@host") == "mqtt|a@b|c|host|0|");
    CHECK(parts_of("mqtt://%c3%A4@host") == "mqtt|\xC3\xA4|-|host|0|");
}

TEST_CASE("the part that is wrong is named") {
    CHECK(refusal_of("broker.example") == "URL: it has no scheme; it is to begin as \"mqtt://\" does");
    CHECK(refusal_of("") == refusal_of("broker.example"));
    CHECK(refusal_of("://a") == refusal_of("broker.example"));
    CHECK(refusal_of("mqtt://a:0") == "URL: port \"0\" is no number from 1 to 65535");
    for (auto const* const port : {"", "65536", "x", "1x", "-1", "+1", "000001", "99999999999999999999"})
        CHECK(refusal_of(std::string("mqtt://a:") + port) ==
              std::string("URL: port \"") + port + "\" is no number from 1 to 65535");
    CHECK(refusal_of("mqtt://[::1") == "URL: host \"[::1\" has no ']' behind its address");
    CHECK(refusal_of("mqtt://[::1]1883") == "URL: host \"[::1]1883\" goes on behind ']'");
    CHECK(refusal_of("mqtt://[a]") == "URL: host \"[a]\" has brackets, and is no IPv6 address");
    CHECK(refusal_of("mqtt://2001:db8::1") == "URL: host \"2001:db8::1\" is an IPv6 address, which needs brackets");
    CHECK(refusal_of("mqtt://a{b}") == "URL: host \"a{b}\" has a character that no host has");
    CHECK(refusal_of("mqtt://a%20b") == "URL: host \"a%20b\" has a character that no host has");
    CHECK(refusal_of("mqtt://" + std::string(256, 'a')).ends_with("is longer than 255 bytes"));
    CHECK(refusal_of("mqtt://" + std::string(255, 'a')) == "none");
}

TEST_CASE("a character that must be escaped is refused anywhere, so that none gets into a request or a log") {
    for (char const c : {' ', '\r', '\n', '\0', '\x1b', '\x7f', '\xC3', '#'}) {
        for (std::string_view const where : {"*mqtt://a/", "mqtt://*@a/", "mqtt://a*b/", "mqtt://a/*", "mqtt://a:1*"}) {
            std::string text(where);
            text[text.find('*')] = c;
            CHECK(refusal_of(text).starts_with("URL: it has a character that must be escaped"));
        }
    }
}

TEST_CASE("what may be secret is not repeated in an error") {
    for (auto const* const wrong : {"mqtt://user:secret@a:0", "mqtt://user:secret%@a", "mqtt://user:secret%4@a",
                                    "mqtt://user:secret%4g@a", "mqtt://secret%%@a", "mqtt://user:secret@a b"}) {
        auto const text = refusal_of(wrong);
        CHECK(text != "none");
        CHECK(text.find("secret") == text.npos);
    }
    CHECK(refusal_of("mqtt://a%4:b@c") == "URL: '%' in the user name without two hexadecimal digits behind it");
    CHECK(refusal_of("mqtt://a:%zz@c") == "URL: '%' in the password without two hexadecimal digits behind it");
}
