#include <runnel/transport/memory.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/open_life.hpp"
#include "support/sample.hpp"
#include "support/tls_pair.hpp"
#include "support/websocket_life.hpp"

namespace {

using memory = runnel::memory_stream<>;
using tcp_stream = runnel::tcp::stream_type;
template <runnel::stream Next>
using wss = runnel::websocket::stream<runnel::tls_stream<Next>>;

// Made once, as each costs a reading of certificates.
runnel::tls_context const& client_context() {
    static runnel::tls_context const context(test::client_options());
    return context;
}
runnel::tls_context const& server_context() {
    static runnel::tls_context const context(test::server_options());
    return context;
}

template <runnel::stream Next>
std::pair<wss<Next>, wss<Next>> opened(asio::io_context& io, Next one, Next other) {
    using stream = runnel::tls_stream<Next>;
    stream client(std::move(one), client_context(), runnel::tls_role::client, "localhost");
    stream server(std::move(other), server_context(), runnel::tls_role::server);
    test::task at_client(io, client.handshake()), at_server(io, server.handshake());
    at_client.run();
    at_server.run();
    return test::opened_websocket<wss<Next>>(std::move(client), std::move(server));
}

std::pair<wss<memory>, wss<memory>> connected(asio::io_context& io) {
    auto ends = memory::pair(io.get_executor());
    ends.first.outgoing().capacity = 5'000;
    return opened(io, std::move(ends.first), std::move(ends.second));
}

std::pair<wss<tcp_stream>, wss<tcp_stream>> connected_by_tcp(asio::io_context& io) {
    auto ends = test::tcp_sockets(io);
    return opened(io, tcp_stream(std::move(ends.first)), tcp_stream(std::move(ends.second)));
}

using wss_through_proxy = runnel::websocket::over<runnel::tls<runnel::http_proxy<runnel::memory_transport>>>;

// How far a server goes, and whether it cuts the connection then or falls silent.
enum class stage { none, proxy, tls, websocket };

asio::awaitable<void> serve(memory s, stage last, bool cuts) {
    std::string_view const request = "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n";
    auto const leave = [cuts](memory& m) {
        if (cuts) m.cut();
        return test::read_to_end(m);
    };
    if (last == stage::none) {
        co_await leave(s);
        co_return;
    }
    co_await test::read_exactly(s, request.size());
    co_await test::write_text(s, "HTTP/1.1 200 OK\r\n\r\n");
    if (last == stage::proxy) {
        co_await leave(s);
        co_return;
    }
    runnel::tls_stream<memory> secured(std::move(s), server_context(), runnel::tls_role::server);
    co_await secured.handshake();
    if (last == stage::tls) {
        co_await leave(secured.next_layer());
        co_return;
    }
    runnel::websocket::server_options options;
    options.subprotocols = "mqtt";
    auto accepting =
        wss<memory>::accept(std::move(secured), options, [](runnel::websocket::server_request const&) { return 101; });
    auto accepted = co_await std::move(accepting);
    co_await leave(accepted.next_layer().next_layer());
}

}  // namespace

TEST_CASE("a WebSocket over TLS may go at each point of its operations") {
    test::try_websocket<wss<memory>>(connected);
}

TEST_CASE("a WebSocket over TLS and TCP may go at each point of its operations") {
    test::try_websocket<wss<tcp_stream>>(connected_by_tcp);
}

TEST_CASE("opening a WebSocket over TLS through a proxy may be interrupted at each point, whatever the server does") {
    for (auto const last : {stage::none, stage::proxy, stage::tls, stage::websocket})
        for (bool const cuts : {false, true}) {
            CAPTURE(static_cast<int>(last));
            CAPTURE(cuts);
            test::open_life<wss_through_proxy> life([&](test::scripted_servers& there) {
                wss_through_proxy made{.host = "localhost", .port = 1};
                made.next.context = client_context();
                made.next.next.proxy =
                    there.memory([=](memory s) -> asio::awaitable<void> { return serve(std::move(s), last, cuts); });
                return made;
            });
            bool const opens = last == stage::websocket;
            if (opens || cuts)
                CHECK(!life.run_all() == opens);
            else
                life.run_all_silent();
        }
}
