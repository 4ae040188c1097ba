#include <runnel/websocket/protocol/http_head.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <ostream>
#include <string>

using namespace runnel::websocket;
using namespace std::string_literals;

namespace {

http_head read(std::string const& text, http_limits limits = {}) {
    http_head head(limits);
    head.write(text);
    return head;
}

errc fault_of(std::string const& text, http_limits limits = {}) {
    errc const whole = read(text, limits).error();
    http_head chopped(limits);
    for (std::size_t i = 0; i < text.size() && chopped.error() == errc::ok; ++i)
        chopped.write(std::string_view(text).substr(i, 1));
    CHECK(chopped.error() == whole);
    return whole;
}

}  // namespace

TEST_CASE("a head is found at its empty line, wherever it is cut, and what follows is left alone") {
    std::string const text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX:\r\n\r\n";
    std::string const wire = text + "\x82\x01x";
    for (std::size_t cut = 0; cut <= wire.size(); ++cut) {
        http_head head;
        std::size_t used = head.write(std::string_view(wire).substr(0, cut));
        CHECK(used == std::min(cut, text.size()));
        CHECK(head.complete() == (cut >= text.size()));
        used += head.write(std::string_view(wire).substr(used));
        CHECK(used == text.size());
        CHECK(head.complete());
        CHECK(head.error() == errc::ok);
        CHECK(head.start_line() == "HTTP/1.1 101 Switching Protocols");
        CHECK(head.value("upgrade") == "websocket");
        CHECK(head.count("x") == 1);
        CHECK(head.count("y") == 0);
    }
}

TEST_CASE("header names have any case, values lose the blanks around them") {
    auto const head = read("X\r\nSEC-websocket-Protocol:mqtt\r\nA: \t b c \t\r\nA:d\r\n\r\n");
    CHECK(head.error() == errc::ok);
    CHECK(head.value("Sec-WebSocket-Protocol") == "mqtt");
    CHECK(head.value("a") == "b c");
    CHECK(head.count("a") == 2);
}

TEST_CASE("items of lists are found over several headers, whatever their case") {
    auto const head = read("X\r\nConnection: keep-alive , UPGRADE\r\nConnection: x\r\n\r\n");
    CHECK(head.has("connection", "Upgrade"));
    CHECK(head.has("connection", "keep-alive"));
    CHECK(head.has("connection", "X"));
    CHECK_FALSE(head.has("connection", "keep"));
    CHECK_FALSE(head.has("connection", "alive"));
    CHECK_FALSE(head.has("upgrade", "x"));
}

TEST_CASE("heads that are not well-formed are refused") {
    CHECK(fault_of("X\r\nno colon\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\r\nno-colon\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\r\nblank : before colon\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\r\n: no name\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\r\nA: b\r\n folded\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\r\nA: b\nB: c\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\r\nA: b\rB: c\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\nA: b\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("X\r\nA: b\0c\r\n\r\n"s) == errc::malformed_http);
    CHECK(fault_of("X\r\nA(: b\r\n\r\n") == errc::malformed_http);
    CHECK(fault_of("\x16\x03\x01\x00\x05"s) == errc::malformed_http);  // TLS: no use waiting for an empty line
    CHECK(fault_of("X\r\n\r\n") == errc::ok);
    CHECK(fault_of("X\r\nA: caf\xE9\r\n\r\n") == errc::ok);
}

TEST_CASE("limits at their maximum are none") {
    http_limits const none{std::numeric_limits<std::size_t>::max(), std::numeric_limits<std::size_t>::max()};
    http_head const head = read("GET / HTTP/1.1\r\nHost: h\r\n\r\n", none);
    CHECK(head.complete());
    CHECK(head.error() == errc::ok);
    CHECK(head.value("Host") == "h");
}

TEST_CASE("heads beyond the limits are refused before they are whole") {
    http_limits const limits{.max_bytes = 40, .max_headers = 2};
    CHECK(fault_of("X\r\nA: b\r\nC: d\r\n\r\n", limits) == errc::ok);
    CHECK(fault_of("X\r\nA: b\r\nC: d\r\nE: f\r\n\r\n", limits) == errc::too_many_headers);
    CHECK(fault_of("X\r\nA: " + std::string(40 - 10, 'b') + "\r\n\r\n", limits) == errc::ok);            // 40 bytes
    CHECK(fault_of("X\r\nA: " + std::string(40 - 9, 'b') + "\r\n\r\n", limits) == errc::head_too_long);  // 41
    CHECK(read("X\r\nA: " + std::string(40 - 10, 'b') + "\r\n\r\n", limits).complete());
    CHECK(fault_of(std::string(41, 'x'), limits) == errc::head_too_long);
    CHECK(fault_of(std::string(40, 'x'), limits) == errc::ok);  // not yet
}

TEST_CASE("characters of tokens, values and targets") {
    CHECK(is_token("mqttv3.1"));
    CHECK_FALSE(is_token(""));
    CHECK_FALSE(is_token("a b"));
    CHECK_FALSE(is_token("a,b"));
    CHECK_FALSE(is_token("a\r\n"));
    CHECK(is_field_value(""));
    CHECK(is_field_value("a\tb c"));
    CHECK_FALSE(is_field_value("a\r\nB: c"));
    CHECK_FALSE(is_field_value("a\n"));
    CHECK_FALSE(is_field_value(std::string_view("a\0", 2)));
    CHECK(is_target("/mqtt?token=%20x"));
    CHECK_FALSE(is_target(""));
    CHECK_FALSE(is_target("mqtt"));
    CHECK_FALSE(is_target("/a b"));
    CHECK_FALSE(is_target("/a\r\nX: y"));
    CHECK_FALSE(is_target("/a#fragment"));
}
