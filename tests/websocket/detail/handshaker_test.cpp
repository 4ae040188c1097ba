#include <runnel/transport/memory.hpp>
#include <runnel/websocket/stream.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

using namespace runnel::websocket;
using namespace std::chrono_literals;

namespace {

using memory = runnel::memory_stream<>;
using ws = stream<memory>;

client_options asking() {
    client_options options;
    options.host = "broker.example";
    options.path = "/mqtt";
    options.subprotocol = "mqtt";
    return options;
}

server_options offering() {
    server_options options;
    options.subprotocols = "mqtt";
    return options;
}

// A client of ours whose server answers with raw bytes, after it has read the request.
struct answered {
    explicit answered(std::string reply, client_options options = asking(), bool end = false) {
        auto [a, b] = memory::pair(io.get_executor());
        peer.emplace(std::move(b));
        opening.emplace(io, ws::handshake(std::move(a), std::move(options)));
        io.poll();
        test::run(io, test::write_text(*peer, std::move(reply)));
        if (end) test::run(io, peer->shutdown());
        error = opening->run_for_error();
    }

    asio::io_context io;
    std::optional<memory> peer;
    std::optional<test::task<ws>> opening;
    std::error_code error;
};

// A server of ours whose client writes raw bytes; what it is answered with until the server ends the connection.
struct asked {
    template <class Judge>
    asked(std::string request, server_options options, Judge judge) {
        auto [a, b] = memory::pair(io.get_executor());
        test::task accepting(io, ws::accept(std::move(a), std::move(options), judge));
        test::task reading(io, test::read_to_end(b));
        test::run(io, test::write_text(b, std::move(request)));
        test::run(io, b.shutdown());
        error = accepting.run_for_error();
        if (error) answer = reading.run().text;
        reading.cancel();
        static_cast<void>(reading.run_for_error());
    }

    explicit asked(std::string request, server_options options = offering())
        : asked(std::move(request), std::move(options), [](server_request const&) { return 101; }) {}

    asio::io_context io;
    std::error_code error;
    std::string answer;
};

std::string request(std::string const& changed = {}, std::string const& with = {}) {
    std::string text =
        "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://page.example\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: "
        "mqtt\r\n\r\n";
    if (!changed.empty()) text.replace(text.find(changed), changed.size(), with);
    return text;
}

}  // namespace

TEST_CASE("a refusal is reported with its status and the first part of its body") {
    std::string const reply = "HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\nno such token and more";
    answered c(reply);
    CHECK(c.error == errc::unauthorized);
    try {
        c.opening->get();
        FAIL("no error");
    } catch (handshake_refused const& e) {
        CHECK(e.status() == 403);
        CHECK(e.body() == "no such token");
        CHECK(e.location().empty());
        CHECK(std::string(e.what()).find("403 Forbidden: no such token") != std::string::npos);
    }
}

TEST_CASE("a redirection is reported with where it points to, and not followed") {
    answered c("HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\nContent-Length: 0\r\n\r\n");
    CHECK(c.error == errc::redirected);
    try {
        c.opening->get();
        FAIL("no error");
    } catch (handshake_refused const& e) {
        CHECK(e.status() == 302);
        CHECK(e.location() == "https://other.example/");
        CHECK(e.body().empty());
    }
}

TEST_CASE("a body is read to its end, without a length to that of the connection, and 1024 bytes at most") {
    answered ended("HTTP/1.1 502 Bad Gateway\r\n\r\nupstream down", asking(), true);
    CHECK(ended.error == errc::unavailable);
    CHECK(ended.opening->error_text().find("upstream down") != std::string::npos);
    for (auto const* length : {"", "Content-Length: 5000\r\n"}) {
        answered large("HTTP/1.1 500 Internal Server Error\r\n" + std::string(length) + "\r\n" +
                       std::string(5000, 'x'));
        CHECK(large.error == errc::unavailable);
        try {
            large.opening->get();
        } catch (handshake_refused const& e) {
            CHECK(e.body() == std::string(1024, 'x'));
        }
    }
}

TEST_CASE("a body that does not come does not hide the refusal, which is late then") {
    client_options options = asking();
    options.timeout = 30ms;
    answered c("HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nabc", options);
    CHECK(c.error == errc::not_found);
    CHECK(c.opening->error_text().find("404") != std::string::npos);
}

TEST_CASE("a refusal is known at once, or after a moment, though the server keeps the connection open") {
    for (auto const* const body :
         {"Transfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n", "Content-Length: 4\r\n\r\nnope", "\r\nnope",
          "Content-Length: 5\r\n\r\nnope", "Transfer-Encoding: chunked\r\n\r\n5\r\nnope"}) {
        CAPTURE(body);
        auto const before = std::chrono::steady_clock::now();
        answered c("HTTP/1.1 401 Unauthorized\r\n" + std::string(body));
        CHECK(c.error == errc::unauthorized);
        CHECK(c.opening->error_text().find(": 401 Unauthorized: nope: ") != std::string::npos);
        CHECK(std::chrono::steady_clock::now() - before < 10s);
    }
}

TEST_CASE("a refusal whose body comes later is reported with it") {
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    test::task opening(io, ws::handshake(std::move(a), asking()));
    for (auto const* const piece : {"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r", "\n1",
                                    "1\r\nno such ", "token and\r\n4\r", "\nmore\r\n0\r\n"}) {
        test::run(io, test::write_text(b, piece));
        io.poll();
    }
    CHECK(opening.done());
    CHECK(opening.run_for_error() == errc::unauthorized);
    CHECK(opening.error_text().find(": 403 Forbidden: no such token andmore: ") != std::string::npos);
}

TEST_CASE("a handshake that is cancelled when it has been refused is a refusal") {
    asio::io_context io;
    client_options options = asking();
    for (auto const timeout : {0ms, 15000ms}) {
        auto [a, b] = memory::pair(io.get_executor());
        options.timeout = timeout;
        test::task opening(io, ws::handshake(std::move(a), options));
        test::run(io, test::write_text(b, "HTTP/1.1 404 Not Found\r\n\r\nnobody"));
        io.poll();
        CHECK_FALSE(opening.done());
        opening.cancel();
        CHECK(opening.run_for_error() == errc::not_found);
        CHECK(opening.error_text().find(": 404 Not Found: nobody: ") != std::string::npos);
    }
}

TEST_CASE("interim answers before the reply are passed over, however they come") {
    std::string const interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nUpgrade: h2c\r\n\r\n";
    for (std::size_t chop : {std::size_t{1}, std::size_t{30}, std::size_t{1000}}) {
        CAPTURE(chop);
        asio::io_context io;
        auto [a, b] = memory::pair(io.get_executor());
        a.incoming().max_read = chop;
        test::task opening(io, ws::handshake(std::move(a), asking()));
        test::run(io, test::write_text(b, interim));
        test::task accepting(io, ws::accept(std::move(b), offering()));
        CHECK_FALSE(accepting.run_for_error());
        CHECK_FALSE(opening.run_for_error());
    }
    answered refused(interim + "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope");
    CHECK(refused.error == errc::unauthorized);
    CHECK(refused.opening->error_text().find(": 403 Forbidden: nope: ") != std::string::npos);
    CHECK(answered(interim, asking(), true).error == asio::error::eof);
}

TEST_CASE("a server takes no interim answer for a request") {
    CHECK(asked("HTTP/1.1 100 Continue\r\n\r\n" + request()).error == errc::malformed_http);
}

TEST_CASE("what is not printable in a server's answer does not get into the error's text") {
    answered c(
        "HTTP/1.1 400 no\x9b"
        "31m\r\nContent-Length: 8\r\n\r\n\x1b[31m\x9b"
        "31m");
    auto const text = c.opening->error_text();
    CHECK(text.find("400 no\\x9b31m: \\x1b[31m\\x9b31") != std::string::npos);
    answered moved("HTTP/1.1 302 Found\r\nLocation: /\xff\r\nContent-Length: 0\r\n\r\n");
    CHECK(moved.opening->error_text().find("302 Found to /\\xff") != std::string::npos);
}

TEST_CASE("of a page that refuses, the text has the title") {
    answered c(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 48\r\n\r\n<html>\r\n<head><title>plain HTTP</title></head>abcd");
    CHECK(c.opening->error_text().find("400 Bad Request: plain HTTP") != std::string::npos);
    answered open("HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\n\r\n<title>cut o");
    CHECK(open.opening->error_text().find("400 Bad Request: cut o") != std::string::npos);
}

TEST_CASE("a failed handshake says with whom, and asks whether it is the right port") {
    auto const text = [](std::string answer, errc code) {
        client_options options = asking();
        options.host = "broker.example";
        options.port = 1883;
        options.path = "/mqtt?token=secret";
        answered c(std::move(answer), options);
        CHECK(c.error == code);
        return c.opening->error_text();
    };
    std::string const whom = "WebSocket handshake with broker.example:1883/mqtt";
    CHECK(
        text(std::string("\x15\3\1\0\2\2\x46", 7), errc::malformed_http).starts_with(whom + " (the server speaks TLS"));
    CHECK(text("\x20\2\r\n\r\n", errc::malformed_http)
              .starts_with(
                  whom + " (the server's answer begins with \" \\x02\\x0d\\x0a\\x0d\\x0a\": is this the right port?)"));
    CHECK(text("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", errc::not_found)
              .starts_with(whom + ": 404 Not Found"));
    CHECK(text("HTTP/1.1 101 Switching Protocols\r\n\r\n", errc::missing_upgrade)
              .starts_with(whom + ": the handshake lacks"));
}

TEST_CASE("a server that closes instead of answering is asked for: is this a WebSocket port?") {
    for (auto const* begun : {"", "220 mail ESMTP\r\n"}) {
        answered c(begun, asking(), true);
        CHECK(c.error == asio::error::eof);
        auto const text = c.opening->error_text();
        auto const* const asks =
            *begun == '\0' ? "no answer: is this a WebSocket port?" : "begins with \"220 mail ESMTP";
        CHECK(text.find(asks) != std::string::npos);
    }
}

TEST_CASE("a client waits for the server's reply for a bounded time") {
    client_options options = asking();
    options.timeout = 30ms;
    CHECK(answered("HTTP/1.1 101 Swi", options).error == errc::handshake_timeout);
}

TEST_CASE("a client whose time is the longest there is waits for the reply") {
    auto options = asking();
    options.timeout = std::chrono::milliseconds::max();
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    test::task opening(io, ws::handshake(std::move(a), options));
    io.run_for(50ms);
    CHECK_FALSE(opening.done());
}

TEST_CASE("a client gives up on a reply that is too long, is no HTTP, or ends early") {
    client_options options = asking();
    options.limits = {.max_bytes = 1000, .max_headers = 10};
    CHECK(answered("HTTP/1.1 101 X\r\nA: " + std::string(2000, 'x'), options).error == errc::head_too_long);
    std::string headers;
    for (int i = 0; i < 11; ++i) headers += "A: b\r\n";
    CHECK(answered("HTTP/1.1 101 X\r\n" + headers + "\r\n", options).error == errc::too_many_headers);
    std::string interim;
    while (interim.size() < 2000) interim += "HTTP/1.1 100 Continue\r\n\r\n";
    CHECK(answered(interim, options).error == errc::head_too_long);
    CHECK(answered("220 smtp.example ESMTP\r\n\r\n").error == errc::malformed_http);
    CHECK(answered("HTTP/1.1 101 Swi", asking(), true).error == asio::error::eof);
    CHECK(answered("", asking(), true).error == asio::error::eof);
}

TEST_CASE("a client refuses a server that does not choose its subprotocol, unless told not to") {
    asio::io_context io;
    for (bool lenient : {false, true}) {
        auto [a, b] = memory::pair(io.get_executor());
        client_options options = asking();
        options.accept_no_subprotocol = lenient;
        server_options offered;  // none
        test::task opening(io, ws::handshake(std::move(a), options));
        test::task accepting(io, ws::accept(std::move(b), offered));
        CHECK(opening.run_for_error() == (lenient ? std::error_code() : std::error_code(errc::no_subprotocol)));
        CHECK_FALSE(accepting.run_for_error());
    }
}

TEST_CASE("a client does not send what would break its request") {
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    client_options options = asking();
    options.headers = {{"X", "y\r\nZ: injected"}};
    CHECK(test::error_of(io, ws::handshake(std::move(a), options)) == errc::invalid_header);
    CHECK(b.incoming().bytes == 0);
}

TEST_CASE("a handshake can be cancelled") {
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    test::task opening(io, ws::handshake(std::move(a), asking()));
    test::task accepting(io, ws::accept(std::move(b), offering()));
    opening.cancel();
    CHECK(opening.run_for_error() == asio::error::operation_aborted);
    accepting.cancel();
    CHECK(accepting.run_for_error());
}

TEST_CASE("a server accepts a good request, whatever the chop") {
    for (std::size_t chop : {std::size_t{1}, std::size_t{2}, std::size_t{10}, std::size_t{1000}}) {
        asio::io_context io;
        auto [a, b] = memory::pair(io.get_executor());
        b.outgoing().max_read = chop;
        test::task accepting(io, ws::accept(std::move(a), offering()));
        test::run(io, test::write_text(b, request()));
        ws accepted = accepting.run();
        CHECK(accepted.target() == "/mqtt");
        CHECK(accepted.subprotocol() == "mqtt");
        CHECK(test::run(io, test::read_exactly(b, 12)) == "HTTP/1.1 101");
    }
}

TEST_CASE("a server refuses what does not ask for a WebSocket, and says why") {
    CHECK(asked(request("Version: 13", "Version: 12")).answer.starts_with("HTTP/1.1 426 "));
    CHECK(asked(request("Version: 13", "Version: 12")).error == errc::unsupported_version);
    CHECK(asked(request("Upgrade: websocket\r\n", "")).answer.starts_with("HTTP/1.1 426 "));
    CHECK(asked(request("GET", "PUT")).answer.starts_with("HTTP/1.1 405 "));
    CHECK(asked(request("Host", "H ost")).answer.starts_with("HTTP/1.1 400 "));
    CHECK(asked(request("Host", "H ost")).error == errc::malformed_http);
    CHECK(asked("GET /" + std::string(20'000, 'x')).answer.starts_with("HTTP/1.1 431 "));
}

TEST_CASE("a server can demand its subprotocol") {
    server_options options = offering();
    options.require_subprotocol = true;
    asked refused(request("Protocol: mqtt", "Protocol: chat"), options);
    CHECK(refused.error == errc::no_subprotocol);
    CHECK(refused.answer.starts_with("HTTP/1.1 400 "));
    CHECK_FALSE(asked(request(), options).error);
}

TEST_CASE("a server's judge sees the request and refuses with the status of its choice") {
    auto const judge = [](server_request const& r) {
        if (r.target() != "/mqtt") return 404;
        return r.origin() == "http://page.example" ? 101 : 403;
    };
    CHECK_FALSE(asked(request(), offering(), judge).error);
    asked origin(request("page", "evil"), offering(), judge);
    CHECK(origin.error == errc::origin_refused);
    CHECK(origin.answer.starts_with("HTTP/1.1 403 "));
    asked path(request("/mqtt", "/other"), offering(), judge);
    CHECK(path.error == errc::not_found);
    CHECK(path.answer.starts_with("HTTP/1.1 404 Not Found\r\n"));
    asked token(request(), offering(), [](server_request const&) { return 401; });
    CHECK(token.error == errc::unauthorized);
    CHECK(token.answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"));
}

TEST_CASE("a server waits for the request for a bounded time, and ends without one") {
    server_options options = offering();
    options.timeout = 30ms;
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    CHECK(test::error_of(io, ws::accept(std::move(a), options)) == errc::handshake_timeout);
    CHECK(test::run(io, test::read_to_end(b)).text.starts_with("HTTP/1.1 408 "));
    CHECK(asked("GET").error == asio::error::eof);
}
