#include <runnel/websocket/protocol/refusal_body.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>

using namespace runnel::websocket;

namespace {

http_head head_with(std::string const& headers, std::string const& status = "401 Unauthorized") {
    http_head head;
    head.write("HTTP/1.1 " + status + "\r\n" + headers + "\r\n");
    REQUIRE(head.complete());
    REQUIRE(head.error() == errc::ok);
    return head;
}

// What is kept of `bytes`, cut into pieces; with a star behind it if nothing more is wanted.
std::string body_of(std::string const& headers, std::string_view bytes, std::size_t most = 100) {
    http_head const head = head_with(headers);
    std::string first;
    for (std::size_t chop : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{10'000}}) {
        CAPTURE(chop);
        refusal_body body(head, most);
        for (std::size_t at = 0; at < bytes.size(); at += chop) body.write(bytes.substr(at, chop));
        std::string const text = body.text() + (body.complete() ? "*" : "");
        if (chop == 1) first = text;
        CHECK(text == first);
    }
    return first;
}

}  // namespace

TEST_CASE("a refusal's body is as long as is said, or unending, up to what is kept") {
    CHECK(body_of("Content-Length: 4\r\n", "nope and more") == "nope*");
    CHECK(body_of("Content-Length: 5\r\n", "nope") == "nope");
    CHECK(body_of("Content-Length: 0\r\n", "nope") == "*");
    CHECK(body_of("", "nope") == "nope");
    CHECK(body_of("", std::string(101, 'x')) == std::string(100, 'x') + "*");
    CHECK(body_of("Content-Length: 101\r\n", std::string(101, 'x')) == std::string(100, 'x') + "*");
    for (auto const* const none : {"x", "4x", "-4", "99999999999999999999999"})
        CHECK(body_of("Content-Length: " + std::string(none) + "\r\n", "nope") == "nope");
}

TEST_CASE("the chunks of a refusal's body are put together") {
    std::string const chunked = "Transfer-Encoding: Chunked\r\n";
    CHECK(body_of(chunked, "4\r\nnope\r\n0\r\n\r\n") == "nope*");
    CHECK(body_of(chunked, "4\r\nnope\r\n") == "nope");
    CHECK(body_of(chunked, "4;name=value\r\nno s\r\n0A\r\nuch\r\ntoken\r\n00\r\nTrailer: x\r\n\r\n") ==
          "no such\r\ntoken*");
    CHECK(body_of(chunked, "10\r\nabc") == "abc");
    CHECK(body_of(chunked, "0\r\n") == "*");
    CHECK(body_of(chunked, "4") == "");
    CHECK(body_of(chunked + "Content-Length: 2\r\n", "4\r\nnope\r\n") == "nope");  // RFC 9112 6.3
    std::string const largest(2 * sizeof(std::size_t), 'f');
    CHECK(body_of(chunked, largest + "\r\nnope") == "nope");
    CHECK(body_of(chunked, largest + "f\r\nnope") == "*");
    CHECK(body_of(chunked, "not a number\r\nnope") == "*");
    CHECK(body_of(chunked, "\r\nnope") == "*");
    CHECK(body_of(chunked, "1F4\r\n" + std::string(500, 'x')) == std::string(95, 'x') + "*");
    CHECK(body_of(chunked, std::string(500, '1')) == "*");
}

TEST_CASE("nothing is taken of a refusal's body that is no text, or that there cannot be") {
    CHECK(body_of("Transfer-Encoding: gzip, chunked\r\n", "4\r\nnope\r\n") == "*");
    CHECK(body_of("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "4\r\nnope\r\n") == "*");
    CHECK(body_of("Transfer-Encoding: gzip\r\nContent-Length: 4\r\n", "nope") == "*");
    for (auto const* const status : {"204 No Content", "304 Not Modified"})
        CHECK(refusal_body(head_with("", status), 100).complete());
    CHECK_FALSE(refusal_body(head_with("", "200 OK"), 100).complete());
}
