#include <runnel/testing/proxy.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <optional>
#include <string>

namespace {

using namespace std::chrono_literals;
using runnel::http_proxy;
using runnel::proxy_errc;
using runnel::socks5_proxy;
using runnel::tcp;
using runnel::testing::proxy_faults;
using runnel::testing::proxy_options;
using stream_type = tcp::stream_type;

// A listener, and a proxy in front of it.
struct proxied {
    explicit proxied(proxy_options options = {}) : proxy(io.get_executor(), forwarding(std::move(options))) {}

    proxy_options forwarding(proxy_options options) const {
        if (!options.forward_to_host.empty()) options.forward_to_port = acceptor.local_endpoint().port();
        return options;
    }

    template <class Transport>
    Transport through() const {
        Transport transport;
        transport.host = "127.0.0.1";
        transport.port = acceptor.local_endpoint().port();
        transport.proxy.host = "127.0.0.1";
        transport.proxy.port = port;
        return transport;
    }

    // Connects directly; the server's end is accepted.
    stream_type connect() {
        return accepted(test::run(io, tcp{.host = "127.0.0.1", .port = port}.open(io.get_executor())));
    }

    template <class Stream>
    Stream accepted(Stream client) {
        auto const accept = [&]() -> asio::awaitable<void> {
            server.emplace(co_await acceptor.async_accept(asio::use_awaitable));
        };
        test::run(io, accept());
        return client;
    }

    asio::io_context io;
    asio::ip::tcp::acceptor acceptor{io, {asio::ip::make_address("127.0.0.1"), 0}};
    runnel::testing::proxy proxy;
    std::uint16_t port = proxy.listen();
    std::optional<stream_type> server;
};

template <class Client>
void talk(proxied& p, Client& client) {
    test::run(p.io, test::write_text(client, "there"));
    CHECK(test::run(p.io, test::read_exactly(*p.server, 5)) == "there");
    test::run(p.io, test::write_text(*p.server, "and back"));
    CHECK(test::run(p.io, test::read_exactly(client, 8)) == "and back");
    test::run(p.io, client.shutdown());
    CHECK(test::run(p.io, test::read_to_end(*p.server)).end == asio::error::eof);
    test::run(p.io, test::write_text(*p.server, "still there"));  // each direction ends for itself
    CHECK(test::run(p.io, test::read_exactly(client, 11)) == "still there");
}

}  // namespace

TEST_CASE_TEMPLATE("the embedded proxy carries bytes both ways and ends each way for itself", P, http_proxy<tcp>,
                   socks5_proxy<tcp>) {
    for (bool const with_credentials : {false, true}) {
        proxied p(with_credentials ? proxy_options{.user_name = "user", .password = "pass"} : proxy_options{});
        auto transport = p.through<P>();
        if (with_credentials) {
            CHECK(test::error_of(p.io, transport.open(p.io.get_executor())) == proxy_errc::credentials_required);
            transport.user_name = "user";
            transport.password = "wrong";
            CHECK(test::error_of(p.io, transport.open(p.io.get_executor())) == proxy_errc::credentials_refused);
            transport.password = "pass";
        }
        auto client = p.accepted(test::run(p.io, transport.open(p.io.get_executor())));
        CHECK(p.proxy.last_target() == "127.0.0.1:" + std::to_string(p.acceptor.local_endpoint().port()));
        CHECK(p.proxy.tunnels() == 1);
        talk(p, client);
    }
}

TEST_CASE_TEMPLATE("the embedded proxy resolves names and says when nobody listens there", P, http_proxy<tcp>,
                   socks5_proxy<tcp>) {
    proxied p;
    auto transport = p.through<P>();
    transport.host = "localhost";
    auto client = p.accepted(test::run(p.io, transport.open(p.io.get_executor())));
    talk(p, client);
    p.acceptor.close();
    auto const error = test::error_of(p.io, transport.open(p.io.get_executor()));
    CHECK((error == proxy_errc::refused || error == proxy_errc::connection_refused));
}

TEST_CASE("the embedded proxy forwards without a protocol, if told so") {
    proxied p({.forward_to_host = "127.0.0.1"});
    auto client = p.connect();
    talk(p, client);
    CHECK(p.proxy.bytes() == 24);
}

TEST_CASE("the embedded proxy answers nonsense with 400") {
    proxied p;
    auto client = test::run(p.io, tcp{.host = "127.0.0.1", .port = p.port}.open(p.io.get_executor()));
    test::run(p.io, test::write_text(client, "GET / HTTP/1.1\r\n\r\n"));
    CHECK(test::run(p.io, test::read_to_end(client)).text.starts_with("HTTP/1.1 400 "));
    CHECK(p.proxy.refused() == 1);
}

TEST_CASE("the embedded proxy resets, truncates or stalls connections after so many bytes") {
    for (auto const action :
         {proxy_faults::action::reset, proxy_faults::action::truncate, proxy_faults::action::stall}) {
        CAPTURE(static_cast<int>(action));
        proxied p({.forward_to_host = "127.0.0.1"});
        p.proxy.faults().bytes = 7;
        p.proxy.faults().then = action;
        auto client = p.connect();
        test::run(p.io, test::write_text(client, "0123456789"));
        test::task at_server(p.io, test::read_to_end(*p.server));
        p.io.restart();
        p.io.run_for(50ms);
        if (action == proxy_faults::action::stall) {
            CHECK_FALSE(at_server.done());
            p.proxy.close();
        }
        auto const got = at_server.run();
        if (action == proxy_faults::action::reset)
            CHECK(got.end == asio::error::connection_reset);
        else
            CHECK(got.text == "0123456");
    }
}

TEST_CASE("the embedded proxy slows connections down") {
    proxied p({.forward_to_host = "127.0.0.1"});
    p.proxy.faults().bytes_per_second = 100'000;
    auto client = p.connect();
    auto const start = std::chrono::steady_clock::now();
    test::task writing(p.io, test::write_text(client, test::noise(10'000)));
    CHECK((test::run(p.io, test::read_exactly(*p.server, 10'000)) == test::noise(10'000)));
    CHECK(std::chrono::steady_clock::now() - start >= 100ms);
    writing.run();
}

TEST_CASE("the embedded proxy resets all its connections, and takes new ones or refuses them") {
    proxied p({.forward_to_host = "127.0.0.1"});
    auto client = p.connect();
    p.proxy.reset_connections();
    CHECK(test::run(p.io, test::read_to_end(client)).end == asio::error::connection_reset);
    CHECK(test::run(p.io, test::read_to_end(*p.server)).end == asio::error::connection_reset);
    auto again = p.connect();
    talk(p, again);
    p.proxy.faults().refuse = true;
    auto refused = test::run(p.io, tcp{.host = "127.0.0.1", .port = p.port}.open(p.io.get_executor()));
    CHECK(test::run(p.io, test::read_to_end(refused)).end == asio::error::connection_reset);
}

TEST_CASE("a proxy that is closed while a connection comes, or before it has begun to listen, leaves nothing running") {
    for (int turns = 0; turns < 8; ++turns) {
        CAPTURE(turns);
        asio::io_context io;
        runnel::testing::proxy proxy(io.get_executor());
        asio::ip::tcp::socket client(io);
        asio::ip::tcp::endpoint const where(asio::ip::address_v4::loopback(), proxy.listen());
        client.connect(where);
        for (int i = 0; i < turns; ++i) io.poll_one();
        proxy.close();
        io.restart();
        io.run_for(5s);
        CHECK(io.stopped());
    }
}
