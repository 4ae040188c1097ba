#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace std::string_literals;
using runnel::http_proxy;
using runnel::proxy_errc;
using runnel::socks5_proxy;
using memory = runnel::memory_stream<>;

static_assert(runnel::network_transport<http_proxy<runnel::tcp>>);
static_assert(runnel::network_transport<socks5_proxy<runnel::tcp>>);
static_assert(runnel::network_transport<http_proxy<socks5_proxy<runnel::tcp>>>);
static_assert(runnel::network_transport<runnel::websocket::over<http_proxy<runnel::tcp>>>);
static_assert(runnel::network_transport<http_proxy<runnel::basic_tcp<asio::io_context::executor_type>>>);

// A proxy at the other end of an in-memory connection, of which the test plays the part.
template <template <class> class Proxy>
struct proxied {
    proxied() {
        transport.host = "broker.example";
        transport.port = 8883;
    }

    test::task<typename Proxy<runnel::memory_transport>::stream_type>& start() {
        opening.emplace(io, transport.open(io.get_executor()));
        io.restart();
        io.poll();
        return *opening;
    }
    void send(std::string text) { test::run(io, test::write_text(*server, std::move(text))); }
    std::string receive(std::size_t size) { return test::run(io, test::read_exactly(*server, size)); }

    asio::io_context io;
    std::optional<memory> server;
    Proxy<runnel::memory_transport> transport{
        .host = {}, .port = 0, .proxy = runnel::memory_transport([this](memory end) {
                                   server.emplace(std::move(end));
                               })};
    std::optional<test::task<typename Proxy<runnel::memory_transport>::stream_type>> opening;
};

constexpr std::string_view request = "CONNECT broker.example:8883 HTTP/1.1\r\nHost: broker.example:8883\r\n\r\n";
std::string const established = "HTTP/1.1 200 Connection established\r\n\r\n";
std::string const socks_established = "\5\0\5\0\0\1\0\0\0\0\0\0"s;

}  // namespace

TEST_CASE("an HTTP proxy opens a tunnel, whose first bytes may come with the answer") {
    for (std::size_t max_read :
         {std::size_t{1}, std::size_t{7}, memory::pair(asio::io_context().get_executor()).first.incoming().max_read}) {
        CAPTURE(max_read);
        proxied<http_proxy> p;
        auto& opening = p.start();
        CHECK(p.receive(request.size()) == request);
        p.server->outgoing().max_read = max_read;
        p.send(established + "first");
        auto stream = opening.run();
        p.send(" second");
        CHECK(test::run(p.io, test::read_exactly(stream, 12, 3)) == "first second");
        test::run(p.io, test::write_text(stream, "there"));
        CHECK(p.receive(5) == "there");
        test::run(p.io, stream.shutdown());
        CHECK(test::run(p.io, test::read_to_end(*p.server)).end == asio::error::eof);
    }
}

TEST_CASE("an HTTP proxy that refuses is reported with its status and its words") {
    proxied<http_proxy> p;
    auto& opening = p.start();
    p.send("HTTP/1.1 403 Filtered\x07\x9B\r\n\r\n");
    try {
        opening.run();
        FAIL("opened");
    } catch (runnel::http_proxy_refused const& e) {
        CHECK(e.code() == proxy_errc::refused);
        CHECK(e.status() == 403);
        std::string const text = e.what();
        CHECK(text.find("tcp://broker.example:8883 through memory://") != std::string::npos);
        CHECK(text.find("(HTTP status 403 Filtered\\x07\\x9b)") != std::string::npos);
    }
}

TEST_CASE("an HTTP proxy that wants credentials says which") {
    proxied<http_proxy> p;
    auto& opening = p.start();
    p.send("HTTP/1.1 407 Denied\r\nProxy-Authenticate: Basic realm=\"office\"\r\n\r\n");
    CHECK(opening.run_for_error() == proxy_errc::credentials_required);
    CHECK(opening.error_text().find("Basic realm=\"office\"") != std::string::npos);

    p.transport.user_name = "user";
    p.transport.password = "hunter2";
    auto& again = p.start();
    p.send("HTTP/1.1 407 Denied\r\n\r\n");
    CHECK(again.run_for_error() == proxy_errc::credentials_refused);
    CHECK(again.error_text().find("hunter2") == std::string::npos);
    CHECK(p.transport.url().find("hunter2") == std::string::npos);
}

TEST_CASE("a SOCKS5 proxy opens a tunnel, whose first bytes may come with the answer") {
    for (std::size_t max_read : {1UL, 1000UL}) {
        CAPTURE(max_read);
        proxied<socks5_proxy> p;
        auto& opening = p.start();
        p.server->outgoing().max_read = max_read;
        p.send(socks_established + "first");
        auto stream = opening.run();
        CHECK(p.receive(3) == "\5\1\0"s);
        CHECK(p.receive(21) == "\5\1\0\3\016broker.example\x22\xb3"s);
        CHECK(test::run(p.io, test::read_exactly(stream, 5)) == "first");
        test::run(p.io, test::write_text(stream, "there"));
        CHECK(p.receive(5) == "there");
    }
}

TEST_CASE("a SOCKS5 proxy that refuses is reported with its reason") {
    proxied<socks5_proxy> p;
    p.transport.user_name = "user";
    p.transport.password = "hunter2";
    auto& opening = p.start();
    p.send("\5\2\1\1"s);
    CHECK(opening.run_for_error() == proxy_errc::credentials_refused);
    CHECK(opening.error_text().find("hunter2") == std::string::npos);
    auto& again = p.start();
    p.send("\5\0\5\5"s);
    CHECK(again.run_for_error() == proxy_errc::connection_refused);
    auto& unknown = p.start();
    p.send("\5\0\5\x63"s);
    CHECK(unknown.run_for_error() == proxy_errc::unknown_reply);
    CHECK(unknown.error_text().find("(reply 99)") != std::string::npos);
}

TEST_CASE_TEMPLATE("settings that a proxy's protocol cannot carry are refused before anything is opened", P,
                   http_proxy<runnel::memory_transport>, socks5_proxy<runnel::memory_transport>) {
    asio::io_context io;
    bool opened = false;
    P transport{.host = "", .proxy = runnel::memory_transport([&](memory) { opened = true; })};
    CHECK(test::error_of(io, transport.open(io.get_executor())) == proxy_errc::target_invalid);
    CHECK_FALSE(opened);
}

TEST_CASE("a proxy that answers nothing is given up in time") {
    proxied<http_proxy> h;
    h.transport.handshake_timeout = std::chrono::milliseconds(20);
    CHECK(h.start().run_for_error() == proxy_errc::handshake_timeout);
    proxied<socks5_proxy> s;
    s.transport.handshake_timeout = std::chrono::milliseconds(20);
    CHECK(s.start().run_for_error() == proxy_errc::handshake_timeout);
    // And with no limit, it is not.
    proxied<http_proxy> patient;
    patient.transport.handshake_timeout = std::chrono::milliseconds(0);
    auto& opening = patient.start();
    patient.send(established);
    CHECK_FALSE(opening.run_for_error());
}

TEST_CASE("headers and interim answers without end cost the limit of a proxy's answer, at once or byte by byte") {
    for (std::string const again : {"X: y\r\n", "xxxxxxxx", "HTTP/1.1 100 Continue\r\n\r\n"}) {
        for (bool const slowly : {false, true}) {
            proxied<http_proxy> p;
            auto& opening = p.start();
            p.receive(request.size());
            runnel::testing::memory_watch const watch;
            if (!again.starts_with("HTTP")) p.send("HTTP/1.1 200 OK\r\n");
            std::size_t const piece = slowly ? 1 : again.size();
            for (std::size_t sent = 0; !opening.done() && sent < 100'000; sent += piece) {
                auto const text = again.substr(sent % again.size(), piece);
                if (test::error_of(p.io, test::write_text(*p.server, text))) break;  // it has gone, and is told so soon
            }
            CHECK(opening.run_for_error() == proxy_errc::head_too_long);
            CHECK(watch.peak() < 128 * 1024);
        }
    }
}

TEST_CASE("a proxy that ends the connection at any byte of its answer has closed early") {
    auto const ends_early = [](auto& p, std::string const& answer) {
        auto& opening = p.start();
        p.send(answer);
        test::run(p.io, p.server->shutdown());
        return opening.run_for_error() == proxy_errc::closed_early;
    };
    for (std::size_t n = 0; n < established.size(); ++n) {
        proxied<http_proxy> p;
        REQUIRE(ends_early(p, established.substr(0, n)));
    }
    for (std::size_t n = 0; n < socks_established.size(); ++n) {
        proxied<socks5_proxy> p;
        REQUIRE(ends_early(p, socks_established.substr(0, n)));
    }
}

TEST_CASE("a connection that is cut at any byte of a proxy's handshake fails with the connection's error") {
    for (std::size_t cut = 0; cut < request.size(); ++cut) {
        proxied<http_proxy> p;
        bool first = true;
        p.transport.proxy = runnel::memory_transport([&](memory end) {
            end.incoming().cut_after = cut;
            p.server.emplace(std::move(end));
            first = false;
        });
        auto const error = p.start().run_for_error();
        CHECK_FALSE(first);
        REQUIRE(error == asio::error::connection_reset);
    }
}

TEST_CASE_TEMPLATE("opening through a proxy can be cancelled after any number of steps, and ends once", P,
                   std::integral_constant<int, 0>, std::integral_constant<int, 1>) {
    auto const run = [](auto& p, std::string const& answer, int steps) {
        p.opening.emplace(p.io, p.transport.open(p.io.get_executor()));
        p.io.restart();
        bool answered = false;
        for (int i = 0; i < steps; ++i) {
            p.io.poll_one();
            if (p.server && !answered) {
                answered = true;
                p.server->outgoing().max_read = 4;
                asio::co_spawn(p.io, test::write_text(*p.server, answer), [](std::exception_ptr) {});
            }
        }
        bool const completed = p.opening->done();
        p.opening->cancel();
        auto const error = p.opening->run_for_error();
        CHECK((!error || error == asio::error::operation_aborted));
        if (steps == 0) CHECK(error == asio::error::operation_aborted);
        CHECK(p.opening->ended() == 1);
        return completed;
    };
    bool completed = false;
    for (int steps = 0; !completed && steps < 200; ++steps) {
        CAPTURE(steps);
        if constexpr (P::value == 0) {
            proxied<http_proxy> p;
            completed = run(p, established, steps);
        } else {
            proxied<socks5_proxy> p;
            completed = run(p, socks_established, steps);
        }
    }
    CHECK(completed);
}

TEST_CASE("a proxy's port has a default, as the target's has, and its url names both") {
    http_proxy<runnel::tcp> h;
    h.host = "::1";
    h.proxy.host = "proxy.example";
    CHECK(h.url() == "tcp://[::1]:1883 through tcp://proxy.example:3128");
    socks5_proxy<runnel::tcp> s;
    s.host = "broker.example";
    s.port = 99;
    s.proxy.host = "proxy.example";
    CHECK(s.url() == "tcp://broker.example:99 through tcp://proxy.example:1080");
    s.proxy.port = 9;
    CHECK(s.url() == "tcp://broker.example:99 through tcp://proxy.example:9");
    auto t = s;
    CHECK(t == s);
    t.password = "x";
    CHECK_FALSE(t == s);
}

TEST_CASE("a layer above tells a proxy the target, and the proxy keeps its own address") {
    asio::io_context io;
    std::optional<memory> server;
    runnel::websocket::over<http_proxy<runnel::memory_transport>> ws{
        .host = "broker.example", .next = {.host = {}, .port = 0, .proxy = runnel::memory_transport([&](memory end) {
                                                                      server.emplace(std::move(end));
                                                                  })}};
    test::task opening(io, ws.open(io.get_executor()));
    io.poll();
    auto const first = test::run(io, test::read_exactly(*server, 30));
    CHECK(first.starts_with("CONNECT broker.example:80 HTTP"));
    opening.cancel();
    CHECK(opening.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("of a proxy or a WebSocket server that falls silent it is known which of them, and it is left for the next") {
    using way = runnel::websocket::over<http_proxy<runnel::memory_transport>>;
    for (bool const proxy_answers : {false, true}) {
        asio::io_context io;
        std::vector<std::unique_ptr<memory>> servers;
        std::vector<std::unique_ptr<test::task<void>>> serving;
        auto const serve = [&](memory& end) -> asio::awaitable<void> {
            auto hearing = test::read_exactly(end, 30);
            co_await std::move(hearing);
            if (!proxy_answers) co_return;
            auto answering = test::write_text(end, established);
            co_await std::move(answering);
        };
        way to{.host = "broker.example"};
        to.next.proxy = runnel::memory_transport([&](memory end) {
            servers.push_back(std::make_unique<memory>(std::move(end)));
            serving.push_back(std::make_unique<test::task<void>>(io, serve(*servers.back())));
        });
        runnel::failover const all(std::vector{to, to});
        runnel::connect_progress progress;
        auto const now = std::chrono::steady_clock::now();
        progress.begin({now, now + std::chrono::milliseconds(100)});
        test::task opening(io, all.open(io.get_executor(), &progress));
        io.run_for(std::chrono::milliseconds(80));
        CHECK(servers.size() == 2);
        CHECK(progress.step() == (proxy_answers ? runnel::connect_step::websocket : runnel::connect_step::proxy));
        CHECK(progress.doing() == (proxy_answers ? "WebSocket handshake with ws://broker.example:80/mqtt"
                                                 : "asking for tcp://broker.example:80 through memory://:3128"));
        CHECK(progress.passed_over.starts_with(progress.doing() + ": connecting took longer"));
        opening.cancel();
        CHECK(opening.run_for_error() == asio::error::operation_aborted);
        CHECK(opening.ended() == 1);
    }
}
