#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <string>

using namespace runnel::websocket;

namespace {

using ws = over<runnel::tcp>;
static_assert(runnel::network_transport<ws>);
static_assert(!ws::secure);

struct secure_tcp : runnel::tcp {
    static constexpr bool secure = true;
    bool operator==(secure_tcp const&) const = default;
};
using wss = over<secure_tcp>;
static_assert(runnel::network_transport<wss>);
static_assert(wss::secure);

}  // namespace

TEST_CASE("a WebSocket's URL names scheme, host, port and path, without the query") {
    CHECK(ws{.host = "broker.example"}.url() == "ws://broker.example:80/mqtt");
    CHECK(ws{.host = "::1", .port = 8083, .path = "/"}.url() == "ws://[::1]:8083/");
    CHECK(wss{.host = "broker.example", .path = "/mqtt?token=secret"}.url() == "wss://broker.example:443/mqtt");
}

TEST_CASE("transports of WebSockets are values") {
    ws const a{.host = "broker.example", .port = 443, .path = "/mqtt"};
    ws b = a;
    CHECK(a == b);
    b.headers.push_back({"X", "y"});
    CHECK_FALSE(a == b);
    b = a;
    b.next.no_delay = false;
    CHECK_FALSE(a == b);
}

TEST_CASE("opening hands host and port down, shakes hands and carries bytes, over real TCP") {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
    ws const transport{.host = "127.0.0.1", .port = acceptor.local_endpoint().port(), .path = "/mqtt?a=b"};
    auto const serve = [&]() -> asio::awaitable<std::string> {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        server_options options;
        options.subprotocols = "mqtt";
        std::string host;
        auto const judge = [&host](server_request const& request) {
            host = request.host();
            return 101;
        };
        runnel::asio_stream below(std::move(socket));
        auto accepting = stream<decltype(below)>::accept(std::move(below), options, judge);
        auto server = co_await std::move(accepting);
        std::string const got = co_await test::read_exactly(server, 5);
        co_await test::write_text(server, got + " back from " + server.target());
        co_await test::read_to_end(server);
        co_await server.shutdown();
        co_return host;
    };
    test::task serving(io, serve());
    auto client = test::run(io, transport.open(io.get_executor()));
    CHECK(client.subprotocol() == "mqtt");
    test::run(io, test::write_text(client, "there"));
    CHECK(test::run(io, test::read_exactly(client, 25)) == "there back from /mqtt?a=b");
    test::run(io, client.shutdown());
    CHECK(serving.run() == "127.0.0.1:" + std::to_string(transport.port));
}

TEST_CASE("closing does not wait for a peer whose end has been read already, over real TCP") {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
    ws const transport{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()};
    runnel::wait_list<test::executor> gate(io.get_executor());
    auto const serve = [&]() -> asio::awaitable<void> {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        server_options options;
        options.subprotocols = "mqtt";
        runnel::asio_stream below(std::move(socket));
        auto accepting = stream<decltype(below)>::accept(std::move(below), options);
        auto server = co_await std::move(accepting);
        runnel::waiter<test::executor> w;
        co_await gate.wait(w);
        co_await server.next_layer().shutdown();  // no close frame comes, and no reset
        co_await gate.wait(w);
    };
    test::task serving(io, serve());
    auto client = test::run(io, transport.open(io.get_executor()));
    test::task reading(io, test::read_exactly(client, 1));
    auto const begin = std::chrono::steady_clock::now();
    test::task closing(io, client.shutdown());
    io.restart();
    io.run_for(std::chrono::milliseconds(20));
    gate.wake_all({});
    CHECK(reading.run_for_error() == errc::ended_without_close);
    closing.run();
    CHECK(std::chrono::steady_clock::now() - begin < transport.close_timeout / 2);
    gate.wake_all({});
    serving.run();
}

TEST_CASE("the transport below may have a host and a port of its own") {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
    ws transport{.host = "broker.example"};
    transport.next.host = "127.0.0.1";
    transport.next.port = acceptor.local_endpoint().port();
    auto const serve = [&]() -> asio::awaitable<std::string> {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        std::string host;
        auto const judge = [&host](server_request const& request) {
            host = request.host();
            return 403;
        };
        runnel::asio_stream below(std::move(socket));
        server_options options;
        try {
            auto accepting = stream<decltype(below)>::accept(std::move(below), options, judge);
            co_await std::move(accepting);
        } catch (std::system_error const&) {
        }
        co_return host;
    };
    test::task serving(io, serve());
    CHECK(test::error_of(io, transport.open(io.get_executor())) == errc::unauthorized);
    CHECK(serving.run() == "broker.example");
}

TEST_CASE("text from the server ends a WebSocket that carries bytes") {
    asio::io_context io;
    runnel::memory_transport below([&io](runnel::memory_stream<> end) {
        asio::co_spawn(
            io,
            [](runnel::memory_stream<> peer) -> asio::awaitable<void> {
                server_options options;
                options.subprotocols = "mqtt";
                auto accepting = stream<runnel::memory_stream<>>::accept(std::move(peer), options);
                auto server = co_await std::move(accepting);
                co_await server.write_message(message_kind::text, "text");
                co_await test::read_to_end(server);
            }(std::move(end)),
            [](std::exception_ptr) {});
    });
    over<runnel::memory_transport> const transport{.host = "h", .next = below};
    auto client = test::run(io, transport.open(io.get_executor()));
    CHECK(test::run(io, test::read_to_end(client)).end == errc::text_not_accepted);
}
