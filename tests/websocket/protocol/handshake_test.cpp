#include <runnel/websocket/protocol/handshake.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

using namespace runnel::websocket;

namespace {

handshake_key key_of(std::string_view text) {
    handshake_key key{};
    std::memcpy(key.data(), text.data(), std::min(text.size(), key.size()));
    return key;
}

handshake_key const rfc_key = key_of("dGhlIHNhbXBsZSBub25jZQ==");  // RFC 6455 1.3

http_head head_of(std::string const& text) {
    http_head head;
    head.write(text);
    return head;
}

std::string request_text(client_request const& request) {
    std::string text;
    CHECK(encode(request, rfc_key, text) == errc::ok);
    CHECK(text.size() <= largest_size(request));
    return text;
}

errc request_fault(client_request const& request) {
    std::string text;
    errc const e = encode(request, rfc_key, text);
    CHECK(text.empty() == (e != errc::ok));
    return e;
}

// The reply of RFC 6455 1.3 with one header replaced, left out (empty value) or added.
std::string reply_text(std::string const& changed = {}, std::string const& value = {},
                       std::string const& start = "HTTP/1.1 101 Switching Protocols") {
    std::vector<std::pair<std::string, std::string>> headers{{"Upgrade", "websocket"},
                                                             {"Connection", "Upgrade"},
                                                             {"Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
                                                             {"Sec-WebSocket-Protocol", "mqtt"}};
    bool known = false;
    std::string text = start + "\r\n";
    for (auto const& [name, old] : headers) {
        if (name == changed) known = true;
        std::string const& now = name == changed ? value : old;
        if (!now.empty()) text += name + ": " + now + "\r\n";
    }
    if (!known && !changed.empty()) text += changed + ": " + value + "\r\n";
    return text + "\r\n";
}

errc judged(std::string const& text, reply_policy policy = {.subprotocols = "mqtt"}) {
    return judge(head_of(text), rfc_key, policy);
}

std::string const rfc_request =
    "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n"
    "Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

errc request_check(std::string text, std::string_view what = {}, std::string_view with = {}) {
    if (!what.empty()) {
        std::size_t const at = text.find(what);
        REQUIRE(at != std::string::npos);
        text.replace(at, what.size(), with);
    }
    http_head const head = head_of(text);
    return server_request(head).check();
}

}  // namespace

TEST_CASE("the accept value of RFC 6455 1.3, in a constant expression") {
    static_assert([] {
        auto const value = accept_value("dGhlIHNhbXBsZSBub25jZQ==");
        return std::string_view(value.data(), value.size()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    }());
}

TEST_CASE("a key is 16 bytes in base64, another each time") {
    auto const a = make_handshake_key();
    auto const b = make_handshake_key();
    CHECK(a != b);
    CHECK(std::string_view(a.data(), a.size()).ends_with("=="));
}

TEST_CASE("a request has exactly the headers that RFC 6455 4.1 demands, and those the user adds") {
    header const extra[] = {{"Authorization", "Bearer abc"}};
    CHECK(request_text({.host = "broker.example",
                        .port = 8080,
                        .target = "/mqtt?x=1",
                        .subprotocols = "mqtt",
                        .headers = extra}) ==
          "GET /mqtt?x=1 HTTP/1.1\r\nHost: broker.example:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
          "Sec-WebSocket-Protocol: mqtt\r\nAuthorization: Bearer abc\r\n\r\n");
}

TEST_CASE("the Host header leaves the default port out and puts IPv6 addresses in brackets") {
    auto const host = [](client_request const& request) {
        std::string const text = request_text(request);
        return std::string(head_of(text).value("Host"));
    };
    CHECK(host({.host = "a.example", .port = 80}) == "a.example");
    CHECK(host({.host = "a.example", .port = 443}) == "a.example:443");
    CHECK(host({.host = "a.example", .port = 443, .default_port = 443}) == "a.example");
    CHECK(host({.host = "a.example", .port = 80, .default_port = 443}) == "a.example:80");
    CHECK(host({.host = "::1", .port = 80}) == "[::1]");
    CHECK(host({.host = "fe80::2", .port = 8083}) == "[fe80::2]:8083");
    CHECK(host({.host = "10.0.0.1", .port = 8083, .authority = "broker.example"}) == "broker.example");
}

TEST_CASE("what a user supplies cannot add lines or headers of the handshake's own") {
    CHECK(request_fault({.host = "a\r\nX: y"}) == errc::invalid_host);
    CHECK(request_fault({.host = ""}) == errc::invalid_host);
    CHECK(request_fault({.host = "a b"}) == errc::invalid_host);
    CHECK(request_fault({.host = "user@a"}) == errc::invalid_host);
    CHECK(request_fault({.host = "a/b"}) == errc::invalid_host);
    CHECK(request_fault({.host = "a", .authority = "b\r\nX: y"}) == errc::invalid_host);
    CHECK(request_fault({.host = "a", .target = "/x HTTP/1.1\r\nX: y"}) == errc::invalid_target);
    CHECK(request_fault({.host = "a", .target = "x"}) == errc::invalid_target);
    CHECK(request_fault({.host = "a", .target = ""}) == errc::invalid_target);
    CHECK(request_fault({.host = "a", .subprotocols = "mqtt\r\nX: y"}) == errc::invalid_subprotocol);
    CHECK(request_fault({.host = "a", .subprotocols = "mqtt,,x"}) == errc::invalid_subprotocol);
    CHECK(request_fault({.host = "a", .subprotocols = "mqtt,"}) == errc::invalid_subprotocol);
    CHECK(request_fault({.host = "a", .subprotocols = "mqtt, mqtt"}) == errc::invalid_subprotocol);
    CHECK(request_fault({.host = "a", .subprotocols = "mqtt, mqttv3.1"}) == errc::ok);
    for (header const& bad : std::vector<header>{{"X", "a\r\nY: b"},
                                                 {"X", "a\nY: b"},
                                                 {"X\r\nY", "b"},
                                                 {"X ", "b"},
                                                 {"", "b"},
                                                 {"host", "b"},
                                                 {"Connection", "close"},
                                                 {"sec-websocket-key", "b"},
                                                 {"Content-Length", "5"}}) {
        header const list[] = {bad};
        CHECK(request_fault({.host = "a", .headers = list}) == errc::invalid_header);
    }
}

TEST_CASE("the reply of RFC 6455 1.3 is accepted, whatever the case of names and tokens") {
    CHECK(judged(reply_text()) == errc::ok);
    CHECK(judged(reply_text("Upgrade", "WebSocket")) == errc::ok);
    CHECK(judged(reply_text("Connection", "keep-alive, upgrade")) == errc::ok);
    CHECK(judged("HTTP/1.1 101\r\nsec-websocket-accept:s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nUPGRADE:websocket\r\n"
                 "Sec-Websocket-Protocol:mqtt\r\nconnection:Upgrade\r\n\r\n") == errc::ok);
}

TEST_CASE("replies that do not open a WebSocket are told apart") {
    CHECK(judged(reply_text("Upgrade", "")) == errc::missing_upgrade);
    CHECK(judged(reply_text("Upgrade", "h2c")) == errc::missing_upgrade);
    CHECK(judged(reply_text("Connection", "")) == errc::missing_connection_upgrade);
    CHECK(judged(reply_text("Connection", "close")) == errc::missing_connection_upgrade);
    CHECK(judged(reply_text("Sec-WebSocket-Accept", "")) == errc::wrong_accept);
    CHECK(judged(reply_text("Sec-WebSocket-Accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) == errc::wrong_accept);
    CHECK(judged(reply_text("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) == errc::wrong_accept);  // twice
    CHECK(judged(reply_text("Sec-WebSocket-Extensions", "permessage-deflate")) == errc::unexpected_extension);
    CHECK(judged(reply_text({}, {}, "HTTP/1.1 200 OK")) == errc::refused);
    CHECK(judged(reply_text({}, {}, "HTTP/1.1 302 Found")) == errc::refused);  // without saying where to
    CHECK(judged(reply_text("Location", "/x", "HTTP/1.1 302 Found")) == errc::redirected);
    CHECK(judged(reply_text({}, {}, "HTTP/1.0 101 Switching Protocols")) == errc::malformed_http);
    CHECK(judged(reply_text({}, {}, "HTTP/1.1 10")) == errc::malformed_http);
    CHECK(judged(reply_text({}, {}, "HTTP/1.1 1010")) == errc::malformed_http);
    CHECK(judged(reply_text({}, {}, "HTTP/1.1 abc")) == errc::malformed_http);
    CHECK(judged(reply_text({}, {}, "HTTP/1.1 099 Continue")) == errc::malformed_http);
    CHECK(judged(reply_text("upgrade", "websocket")) == errc::missing_upgrade);  // twice
    CHECK(judged(reply_text({}, {}, "SSH-2.0-OpenSSH_9")) == errc::malformed_http);
}

TEST_CASE("refusals for the credentials, the path, and for the time being are told apart by their status") {
    auto const judged_status = [](int status) {
        return judged(reply_text({}, {}, "HTTP/1.1 " + std::to_string(status) + " Reason"));
    };
    for (int status : {401, 403, 407}) CHECK(judged_status(status) == errc::unauthorized);
    for (int status : {404, 410}) CHECK(judged_status(status) == errc::not_found);
    for (int status : {408, 425, 429, 500, 502, 503, 504, 599}) CHECK(judged_status(status) == errc::unavailable);
    for (int status : {200, 204, 300, 400, 402, 405, 406, 409, 411, 418, 426, 431}) {
        CHECK(judged_status(status) == errc::refused);
        CHECK(is_refusal(judged_status(status)));
    }
    CHECK_FALSE(is_refusal(errc::wrong_accept));
}

TEST_CASE("the subprotocol must be one of those offered; none is accepted only if allowed") {
    CHECK(judged(reply_text("Sec-WebSocket-Protocol", "")) == errc::no_subprotocol);
    CHECK(judged(reply_text("Sec-WebSocket-Protocol", ""), {.subprotocols = "mqtt", .accept_no_subprotocol = true}) ==
          errc::ok);
    CHECK(judged(reply_text("Sec-WebSocket-Protocol", "other")) == errc::unexpected_subprotocol);
    CHECK(judged(reply_text("Sec-WebSocket-Protocol", "MQTT")) == errc::unexpected_subprotocol);
    CHECK(judged(reply_text("Sec-WebSocket-Protocol", "mqtt, other")) == errc::unexpected_subprotocol);
    CHECK(judged(reply_text("sec-websocket-protocol", "mqtt")) == errc::unexpected_subprotocol);  // twice
    CHECK(judged(reply_text(), {.subprotocols = {}}) == errc::unexpected_subprotocol);
    CHECK(judged(reply_text(), {.subprotocols = "x, mqtt"}) == errc::ok);
    CHECK(judged(reply_text("Sec-WebSocket-Protocol", ""), {.subprotocols = {}}) == errc::ok);
}

TEST_CASE("the request of RFC 6455 1.3 is accepted by a server") {
    http_head const head = head_of(rfc_request);
    server_request const request(head);
    CHECK(request.check() == errc::ok);
    CHECK(request.target() == "/chat");
    CHECK(request.host() == "server.example.com");
    CHECK(request.origin() == "http://example.com");
    CHECK(request.value("origin") == "http://example.com");
    CHECK(request.choose_subprotocol("superchat,chat") == "chat");
    CHECK(request.choose_subprotocol("superchat") == "superchat");
    CHECK(request.choose_subprotocol("mqtt") == "");
    CHECK(request.choose_subprotocol("") == "");
}

TEST_CASE("empty members of the list of subprotocols that a client offers are skipped") {
    // RFC 9110 5.6.1.2: a recipient ignores a reasonable number of them.
    auto const chosen = [](std::string const& offered, std::string_view supported = "mqtt, x") {
        std::string text = rfc_request;
        text.replace(text.find("chat, superchat"), 15, offered);
        http_head const head = head_of(text);
        server_request const request(head);
        CHECK(request.check() == errc::ok);
        return std::string(request.choose_subprotocol(supported));
    };
    CHECK(chosen(",x") == "x");
    CHECK(chosen(" , x") == "x");
    CHECK(chosen("a,,x") == "x");
    CHECK(chosen("a, \t ,x, mqtt") == "x");
    CHECK(chosen("x,") == "x");
    CHECK(chosen("mqtt , ,") == "mqtt");
    CHECK(chosen(",") == "");
    CHECK(chosen(",,,") == "");
    CHECK(chosen(" , ,\t, ") == "");
    CHECK(chosen("") == "");
    CHECK(chosen("  \t ") == "");
    CHECK(chosen(",\r\nSec-WebSocket-Protocol: ,x") == "x");
    // None of them is an empty member of the server's list either.
    CHECK(chosen(",,", ",") == "");
    CHECK(chosen(",x", ",x,") == "x");
    CHECK(chosen(",y", ",,") == "");
}

TEST_CASE("requests that do not ask for a WebSocket are told apart") {
    CHECK(request_check(rfc_request, "GET", "POST") == errc::not_a_get_request);
    CHECK(request_check(rfc_request, "HTTP/1.1", "HTTP/1.0") == errc::malformed_http);
    CHECK(request_check(rfc_request, "GET /chat", "GET /a b") == errc::malformed_http);
    CHECK(request_check(rfc_request, "GET /chat", "GET") == errc::malformed_http);
    CHECK(request_check(rfc_request, "/chat", "chat") == errc::invalid_target);
    CHECK(request_check(rfc_request, "Host", "Hast") == errc::missing_host);
    CHECK(request_check(rfc_request, "Host", "Host: a\r\nHost") == errc::missing_host);
    CHECK(request_check(rfc_request, "Sec-WebSocket-Key",
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key") == errc::invalid_key);
    CHECK(request_check(rfc_request, "Upgrade: websocket", "Upgrade: h2c") == errc::missing_upgrade);
    CHECK(request_check(rfc_request, "Connection: Upgrade", "Connection: close") == errc::missing_connection_upgrade);
    CHECK(request_check(rfc_request, "Version: 13", "Version: 8") == errc::unsupported_version);
    CHECK(request_check(rfc_request, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl") == errc::invalid_key);
    CHECK(request_check(rfc_request, "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ===") == errc::invalid_key);
    CHECK(request_check(rfc_request, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl*HNhbXBsZSBub25jZQ==") == errc::invalid_key);
    CHECK(request_check(rfc_request, "Sec-WebSocket-Key", "X") == errc::invalid_key);
    // The example of RFC 6455 4.1, whose last digit has spare bits set.
    CHECK(request_check(rfc_request, "dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEC==") == errc::ok);
}

TEST_CASE("client and server of our own agree") {
    http_head const request_head = head_of(request_text({.host = "h", .target = "/x", .subprotocols = "mqtt, chat"}));
    server_request const request(request_head);
    CHECK(request.check() == errc::ok);
    std::string reply;
    header const extra[] = {{"Server", "runnel"}};
    CHECK(encode_agreement(request.key(), request.choose_subprotocol("mqtt"), {}, extra, reply) == errc::ok);
    CHECK(judged(reply) == errc::ok);
    CHECK(head_of(reply).value("server") == "runnel");
    header const bad[] = {{"Server", "x\r\nY: z"}};
    std::string nothing;
    CHECK(encode_agreement(request.key(), "mqtt", {}, bad, nothing) == errc::invalid_header);
    CHECK(nothing.empty());
}

TEST_CASE("refusals name their reason and what would be accepted") {
    auto const refusal = [](errc e, int status = 0) {
        std::string text;
        encode_refusal(e, text, status);
        return text;
    };
    CHECK(refusal(errc::origin_refused).starts_with("HTTP/1.1 403 Forbidden\r\n"));
    CHECK(refusal(errc::invalid_key).starts_with("HTTP/1.1 400 Bad Request\r\n"));
    CHECK(refusal(errc::refused, 404).starts_with("HTTP/1.1 404 Not Found\r\n"));
    auto const version = refusal(errc::unsupported_version);
    CHECK(version.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    CHECK(head_of(version).value("Sec-WebSocket-Version") == "13");
    CHECK(head_of(version).value("Upgrade") == "websocket");
    CHECK(head_of(refusal(errc::not_a_get_request)).value("Allow") == "GET");
    CHECK(version.ends_with(std::string(describe(errc::unsupported_version)) + "\n"));
    CHECK(head_of(version).error() == errc::ok);
}

TEST_CASE("interim answers before a reply are passed over, and count among its bytes") {
    std::string const interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n";
    std::string const reply = "HTTP/1.1 101 Switching Protocols\r\nC: d\r\n\r\n";
    std::string const whole = interim + reply + "\x81";
    for (std::size_t chop : {std::size_t{1}, std::size_t{2}, std::size_t{27}, whole.size()}) {
        for (std::size_t const missing : {0u, 1u}) {
            CAPTURE(chop);
            http_head head({.max_bytes = whole.size() - 1 - missing});
            std::size_t used = 0;
            for (std::size_t at = 0; at < whole.size(); at += chop) used += write_reply(head, whole.substr(at, chop));
            CHECK(head.complete() == (missing == 0));
            CHECK(head.error() == (missing == 0 ? errc::ok : errc::head_too_long));
            CHECK(used == whole.size() - 1);
            if (missing != 0) continue;
            CHECK(head.start_line() == "HTTP/1.1 101 Switching Protocols");
            CHECK(head.value("A").empty());
            CHECK(head.value("C") == "d");
        }
    }
    for (auto const* const last : {"HTTP/1.1 101 X", "HTTP/1.1 200 X", "HTTP/1.1 099 X", "no HTTP"}) {
        http_head head;
        write_reply(head, std::string(last) + "\r\n\r\n" + reply);
        CHECK(head.start_line() == last);
    }
    http_head bad;
    write_reply(bad, "HTTP/1.1 103 X\r\nA : b\r\n\r\n" + reply);
    CHECK(bad.error() == errc::malformed_http);
}
