#include <runnel/transport/proxy/protocol/http_connect.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <string>
#include <string_view>

namespace {

using runnel::http_connect_client;
using runnel::http_connect_server;
using runnel::proxy_errc;
using namespace std::string_view_literals;

http_connect_client plain() { return {"broker.example", 8883, "", ""}; }

// Gives `bytes` to a client in pieces of `step` bytes; what it leaves is the tunnel's.
struct reading {
    http_connect_client client;
    std::string tunnel;
};

reading read(std::string_view bytes, std::size_t step, http_connect_client client = plain()) {
    reading r{std::move(client), {}};
    while (!bytes.empty()) {
        auto const piece = bytes.substr(0, step);
        std::size_t const used = r.client.receive(piece);
        r.tunnel += piece.substr(used);
        bytes.remove_prefix(piece.size());
    }
    return r;
}

}  // namespace

TEST_CASE("a CONNECT request names the target twice and carries credentials if there are any") {
    CHECK(plain().request() == "CONNECT broker.example:8883 HTTP/1.1\r\nHost: broker.example:8883\r\n\r\n");
    CHECK(http_connect_client("2001:db8::1", 443, "", "").request() ==
          "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n");
    // The example of RFC 7617 2.
    http_connect_client const known("a", 1, "Aladdin", "open sesame");
    CHECK(known.request() ==
          "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n");
}

TEST_CASE("settings that would break a CONNECT request are refused") {
    for (auto host : {""sv, "a b"sv, "a\r\nX: y"sv, "a\0b"sv, "b\xC3\xBCro.example"sv}) {
        CAPTURE(host);
        CHECK(http_connect_client(host, 1, "", "").error() == proxy_errc::target_invalid);
    }
    CHECK(http_connect_client(std::string(256, 'a'), 1, "", "").error() == proxy_errc::target_invalid);
    CHECK(http_connect_client(std::string(255, 'a'), 1, "", "").error() == proxy_errc::ok);
    CHECK(http_connect_client("a", 1, "user:name", "").error() == proxy_errc::credentials_invalid);
    CHECK(http_connect_client("a", 1, "user", "pass\nword").error() == proxy_errc::credentials_invalid);
    CHECK(http_connect_client("a", 1, "user", "pass:word").error() == proxy_errc::ok);
}

TEST_CASE("a proxy's answer is understood however it is chopped, and what follows it belongs to the tunnel") {
    struct row {
        std::string_view answer;
        proxy_errc error;
        int status;
        std::string_view reason;
    };
    row const rows[] = {
        {"HTTP/1.1 200 Connection established\r\n\r\n", proxy_errc::ok, 200, "Connection established"},
        {"HTTP/1.0 200 OK\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n", proxy_errc::ok, 200, "OK"},
        {"HTTP/1.1 200\r\n\r\n", proxy_errc::ok, 200, ""},
        {"HTTP/1.1 200 \r\n\r\n", proxy_errc::ok, 200, ""},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", proxy_errc::ok, 204,
         "No Content"},
        {"HTTP/1.1 200 lines end in LF\nA: b\n\n", proxy_errc::ok, 200, "lines end in LF"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", proxy_errc::ok,
         200, "OK"},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n", proxy_errc::refused, 101, "Switching Protocols"},
        {"HTTP/1.1 301 Moved\r\nLocation: x\r\n\r\n", proxy_errc::refused, 301, "Moved"},
        {"HTTP/1.1 401 Unauthorized\r\n\r\n", proxy_errc::refused, 401, "Unauthorized"},
        {"HTTP/1.1 403 Forbidden\r\n\r\n", proxy_errc::refused, 403, "Forbidden"},
        {"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\n\r\n",
         proxy_errc::credentials_required, 407, "Proxy Authentication Required"},
        {"HTTP/1.1 502 Bad Gateway\r\n\r\n", proxy_errc::refused, 502, "Bad Gateway"},
        {"HTTP/1.1 999 !\r\n\r\n", proxy_errc::refused, 999, "!"},
    };
    for (auto const& [answer, error, status, reason] : rows) {
        for (std::size_t step = 1; step <= answer.size() + 6; ++step) {
            CAPTURE(answer);
            CAPTURE(step);
            auto const r = read(std::string(answer) + "tunnel", step);
            REQUIRE(r.client.error() == error);
            REQUIRE(r.client.done() == (error == proxy_errc::ok));
            REQUIRE(r.client.status() == status);
            REQUIRE(r.client.reason() == reason);
            REQUIRE(r.tunnel == "tunnel");
        }
        // And without its last byte it is not complete.
        auto const r = read(answer.substr(0, answer.size() - 1), 1000);
        CHECK_FALSE(r.client.done());
        CHECK(r.client.error() == proxy_errc::ok);
    }
}

TEST_CASE("what is not HTTP/1 is found at its first byte that is not") {
    for (auto bytes : {"H2"sv, "SSH-2.0"sv, "\x05\x00"sv, "HTTP/2"sv, "http/1.1"sv, "\r\nHTTP/1.1 200 OK\r\n\r\n"sv}) {
        CAPTURE(bytes);
        CHECK(read(bytes, 1).client.error() == proxy_errc::not_http);
    }
    for (auto line : {"HTTP/1.1200 OK"sv, "HTTP/1.1 20 OK"sv, "HTTP/1.1 2000 OK"sv, "HTTP/1.x 200 OK"sv, "HTTP/1.1"sv,
                      "HTTP/1.1 2O0 OK"sv}) {
        CAPTURE(line);
        CHECK(read(std::string(line) + "\r\n\r\n", 1000).client.error() == proxy_errc::not_http);
    }
}

TEST_CASE("credentials that a proxy refuses are told from those that it misses") {
    http_connect_client const known("a", 1, "user", "wrong");
    CHECK(read("HTTP/1.1 407 No\r\n\r\n", 1000, known).client.error() == proxy_errc::credentials_refused);
    CHECK(read("HTTP/1.0 401 Unauthorized\r\n\r\n", 1000, known).client.error() == proxy_errc::credentials_refused);
    auto const r = read("HTTP/1.1 407 No\r\nServer: x\r\nproxy-authenticate:  Basic realm=\"x\" \r\n\r\n", 7);
    CHECK(r.client.error() == proxy_errc::credentials_required);
    CHECK(r.client.challenge() == "Basic realm=\"x\"");
}

TEST_CASE("the head of a proxy's answer is bounded, interim answers included") {
    std::string const line = "X: " + std::string(1000, 'x') + "\r\n";
    std::string head = "HTTP/1.1 200 OK\r\n";
    while (head.size() < 2 * runnel::connect_head::max_size) head += line;
    CHECK(read(head + "\r\n", 1000).client.error() == proxy_errc::head_too_long);
    std::string interim;
    while (interim.size() < 2 * runnel::connect_head::max_size) interim += "HTTP/1.1 100 Continue\r\n\r\n";
    for (std::size_t const chop : {999u, 25u})  // the latter: each comes as a whole
        CHECK(read(interim, chop).client.error() == proxy_errc::head_too_long);
}

TEST_CASE("a proxy reads CONNECT requests however they are chopped") {
    http_connect_client const client("2001:db8::1", 8883, "user", "pass");
    auto const request = std::string(client.request()) + "tunnel";
    for (std::size_t step = 1; step <= request.size(); ++step) {
        http_connect_server server;
        std::string rest;
        for (std::size_t at = 0; at < request.size(); at += step) {
            auto const piece = std::string_view(request).substr(at, step);
            rest += piece.substr(server.receive(piece));
        }
        REQUIRE(server.done());
        REQUIRE(server.host() == "2001:db8::1");
        REQUIRE(server.port() == 8883);
        REQUIRE(server.credentials() == "user:pass");
        REQUIRE(rest == "tunnel");
    }
}

TEST_CASE("a proxy refuses what is no CONNECT request") {
    for (auto line : {"GET / HTTP/1.1"sv, "CONNECT  HTTP/1.1"sv, "CONNECT a HTTP/1.1"sv, "CONNECT a: HTTP/1.1"sv,
                      "CONNECT :1 HTTP/1.1"sv, "CONNECT a:65536 HTTP/1.1"sv, "CONNECT a:1x HTTP/1.1"sv,
                      "CONNECT a:000001 HTTP/1.1"sv, "CONNECT a:1"sv}) {
        CAPTURE(line);
        http_connect_server server;
        server.receive(std::string(line) + "\r\n\r\n");
        CHECK(server.error() == proxy_errc::not_http);
        CHECK_FALSE(server.done());
    }
    http_connect_server endless;
    endless.receive(std::string(100'000, 'x'));
    CHECK(endless.error() == proxy_errc::head_too_long);
    http_connect_server other;
    other.receive("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Bearer x\r\n\r\n");
    CHECK(other.done());
    CHECK_FALSE(other.credentials());
}

TEST_CASE("the client leaves no password behind, as text or in base64") {
    std::string const password = "a password of more than fifteen bytes";
    std::string const code = runnel::digest::encode_base64("user:" + password);
    for (auto const& secret : {password, code}) {
        runnel::testing::freed_memory_search const search(secret.c_str());
        {
            runnel::http_connect_client client("broker.example", 8883, "user", password);
            CHECK(client.request().find(code) != std::string_view::npos);
        }
        CHECK(search.found() == 0);
    }
}

TEST_CASE("a head that is as long as it may be, and not complete, is too long") {
    constexpr auto longest = runnel::connect_head::max_size;
    http_connect_server server;
    std::string const begin = "CONNECT a:1 HTTP/1.1\r\nx: ";
    server.receive(begin + std::string(longest - begin.size() - 1, 'x'));
    CHECK(server.error() == proxy_errc::ok);
    server.receive("x");
    CHECK(server.error() == proxy_errc::head_too_long);
    http_connect_server other;
    other.receive(begin + std::string(longest - begin.size() - 4, 'x') + "\r\n\r\n");
    CHECK(other.error() == proxy_errc::ok);
    CHECK(other.done());
}
