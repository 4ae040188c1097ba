#include <runnel/coro/race.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/reconnecting_client.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <system_error>
#include <utility>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
namespace ws = runnel::websocket;
using acceptor_type = asio::ip::tcp::acceptor;
using socket_stream = asio_stream<asio::ip::tcp::socket>;

// The first connection is cut once the WebSocket is open; the next one is served.
asio::awaitable<void> serve(acceptor_type& acceptor, testing::over_tls layer) {
    for (bool const first : {true, false}) {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        auto securing = layer.open(socket_stream(std::move(socket)));
        auto secured = co_await std::move(securing);
        ws::server_options options;
        auto accepting = ws::stream<tls_stream<socket_stream>>::accept(std::move(secured), std::move(options));
        auto stream = co_await std::move(accepting);
        if (first) continue;
        try {
            while (true) {
                auto const m = co_await stream.read_message();
                std::string const text(m.data);
                co_await stream.write_message(m.kind, text);
            }
        } catch (std::system_error const&) {
        }
    }
}

template <class Client>
asio::awaitable<void> talk(Client& client, std::string& got) {
    while (got.empty()) {
        co_await client.send_text("secure");
        auto answering = within(300ms, client.next());
        try {
            ws::received_message const answer = co_await std::move(answering);  // the type is named for g++ 12
            got = answer.data;
        } catch (std::system_error const&) {
        }
    }
    client.close();
}

template <class Transport>
void try_over(asio::io_context& io, acceptor_type& acceptor, testing::certificate_authority const& authority,
              Transport way) {
    ws::reconnecting_options o;
    o.handshake.host = "localhost";
    o.reconnect.initial = 1ms;
    ws::reconnecting_client<Transport> client(io.get_executor(), std::move(way), o);
    std::string got;
    bool ended = false;
    asio::co_spawn(io, serve(acceptor, testing::over_tls(authority)), asio::detached);
    asio::co_spawn(io, client.run(), [&](std::exception_ptr e) { ended = !e; });
    asio::co_spawn(io, talk(client, got), asio::detached);
    auto const end = std::chrono::steady_clock::now() + 20s;
    while (!ended && io.run_one_until(end) != 0) {
    }
    CHECK(got == "secure");
    CHECK(ended);
    CHECK(client.counters().connections == 2);
}

}  // namespace

TEST_CASE("a WebSocket that connects again over TLS, and over a transport chosen at run time") {
    testing::certificate_authority const authority;
    asio::io_context io;
    acceptor_type acceptor(io, {asio::ip::address_v4::loopback(), 0});
    tls_options trusting;
    trusting.ca_pem = authority.certificate_pem();
    tls<runnel::tcp> way;
    way.host = "localhost";
    way.port = acceptor.local_endpoint().port();
    way.next.host = "127.0.0.1";
    way.context = tls_context(trusting);
    try_over(io, acceptor, authority, way);
    io.restart();
    try_over(io, acceptor, authority, any_transport(way));
}
