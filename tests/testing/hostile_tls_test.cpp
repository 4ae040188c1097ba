#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// Hostile servers of sessions, and hostile clients of the embedded broker, over sockets, TLS, WebSocket and WebSocket
// Secure: what they cost, and how that ends. docs/hostile-peers.md.

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using testing::memory_watch;
using tls_type = tls<tcp>;
using ws_type = websocket::over<tcp>;
using wss_type = websocket::over<tls_type>;
using tcp_socket = asio::basic_stream_socket<asio::ip::tcp, asio::any_io_executor>;

constexpr std::size_t kib = 1024;
constexpr std::size_t mib = 1024 * kib;
constexpr auto v5 = mqtt::protocol_version::v5;

testing::certificate_authority const& authority() {
    static testing::certificate_authority const a;
    return a;
}

template <class T>
T to_port(std::uint16_t port) {
    T to{};
    to.host = "localhost";
    to.port = port;
    tls_options trust;
    trust.ca_pem = authority().certificate_pem();
    if constexpr (std::is_same_v<T, tls_type>) to.context = tls_context(trust);
    if constexpr (std::is_same_v<T, wss_type>) to.next.context = tls_context(trust);
    return to;
}

template <class T>
auto layer_for() {
    if constexpr (std::is_same_v<T, tcp>)
        return testing::over_tcp{};
    else if constexpr (std::is_same_v<T, tls_type>)
        return testing::over_tls(authority());
    else if constexpr (std::is_same_v<T, ws_type>)
        return testing::over_websocket();
    else
        return testing::over_websocket(testing::over_tls(authority()));
}

// A server that performs the handshakes of its layers, answers CONNECT with `answer`, and then writes `chunk` again and
// again; it drops what the client says.
template <class T>
struct flood {
    std::string answer;
    std::string chunk = {};
    std::size_t times = 1'000'000'000;
    std::size_t written = 0;
    std::size_t connections = 0;
    asio::io_context io{};
    asio::basic_socket_acceptor<asio::ip::tcp, asio::any_io_executor> acceptor{io.get_executor(),
                                                                               {asio::ip::address_v4::loopback(), 0}};
    std::uint16_t port = acceptor.local_endpoint().port();
    std::vector<std::unique_ptr<test::task<void>>> tasks{};

    void start() { tasks.push_back(std::make_unique<test::task<void>>(io, accept())); }

    asio::awaitable<void> accept() {
        auto const layer = layer_for<T>();
        for (;;) {
            auto socket = co_await acceptor.async_accept(asio::use_awaitable);
            ++connections;
            tasks.push_back(std::make_unique<test::task<void>>(io, serve(std::move(socket), layer)));
        }
    }
    template <class Layer>
    asio::awaitable<void> serve(tcp_socket socket, Layer layer) {
        auto opening = layer.open(asio_stream<tcp_socket>(std::move(socket)));
        auto stream = co_await std::move(opening);
        std::string room(4 * kib, '\0');
        co_await stream.read_some(asio::buffer(room));
        auto answering = test::write_text(stream, answer);
        co_await std::move(answering);
        send_buffer out(decltype(stream)::headroom);
        for (std::size_t i = 0; i < times && !chunk.empty(); ++i) {
            out.append(chunk);
            co_await stream.write(out);
            written += chunk.size();
        }
        for (;;) co_await stream.read_some(asio::buffer(room));
    }
};

std::string repeated(std::string_view bytes, std::size_t about = 16 * kib) {
    std::string all;
    while (all.size() < about) all += bytes;
    return all;
}

mqtt::session_options quick() {
    auto o = test::quick("client", v5);
    o.reconnect.attempts = 2;
    o.close_timeout = 100ms;
    return o;
}

// TLS with both ends in this process, certificates and resolving included.
constexpr std::size_t other_end = 2 * mib;

}  // namespace

TEST_CASE_TEMPLATE("over every transport, what is announced and never sent costs what has come", T, tcp, tls_type,
                   ws_type, wss_type) {
    for (bool const allowed : {false, true}) {
        flood<T> server{test::hex("20 03 00 00 00 30 FF FF FF 7F 00 01 't' 00")};
        server.start();
        auto options = quick();
        if (allowed) {
            options.maximum_packet_size = std::numeric_limits<std::uint32_t>::max();
            options.keep_alive = 1s;
            options.response_timeout = 20ms;
        }
        mqtt::session s(server.io.get_executor(), to_port<T>(server.port), options);
        test::task<void> running(server.io, s.run());
        memory_watch const watch;
        CHECK(running.run_for_error() == (allowed ? mqtt::errc::keep_alive_timeout : mqtt::errc::packet_too_large));
        CHECK(server.connections == 2);
        CHECK(watch.peak() < other_end);
    }
}

TEST_CASE_TEMPLATE("over every transport, hundreds of thousands of tiny packets cost nothing", T, tcp, tls_type,
                   ws_type, wss_type) {
    for (auto const* bytes : {"D0 00", "30 04 00 01 't' 00"}) {
        auto const one = test::hex(bytes);
        flood<T> server{test::hex("20 03 00 00 00"), repeated(one)};
        server.start();
        mqtt::session s(server.io.get_executor(), to_port<T>(server.port), quick());
        test::task<void> running(server.io, s.run());
        memory_watch const watch;
        REQUIRE(test::wait_until(server.io, [&] { return server.written / one.size() >= 300'000; }, 60s));
        CHECK(s.is_connected());
        CHECK(s.counters().connections == 1);
        CHECK(watch.peak() < other_end);
        running.cancel();
        CHECK(running.run_for_error() == asio::error::operation_aborted);
    }
}

namespace {

// Connections to this port of loopback, whose bytes the test writes.
struct raw_clients {
    raw_clients(asio::io_context& context, std::uint16_t port)
        : io(context), to(asio::ip::address_v4::loopback(), port) {}

    void connect(std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            sockets.emplace_back(io);
            sockets.back().connect(to);
        }
    }
    // Writes; what the other end makes of it, it makes later.
    bool say(std::size_t i, std::string_view bytes) {
        std::error_code error;
        asio::write(sockets[i], asio::buffer(bytes), error);
        return !error;
    }

    asio::io_context& io;
    asio::ip::tcp::endpoint to;
    std::vector<asio::ip::tcp::socket> sockets;
};

// Listens for raw connections, each of which is written to piece by piece, a byte in a millisecond.
struct slow_server {
    asio::io_context io{};
    asio::basic_socket_acceptor<asio::ip::tcp, asio::any_io_executor> acceptor{io.get_executor(),
                                                                               {asio::ip::address_v4::loopback(), 0}};
    std::string text;
    std::size_t connections = 0;
    std::vector<std::unique_ptr<test::task<void>>> tasks{};

    explicit slow_server(std::string t) : text(std::move(t)) {
        tasks.push_back(std::make_unique<test::task<void>>(io, accept()));
    }
    asio::awaitable<void> accept() {
        for (;;) {
            auto socket = co_await acceptor.async_accept(asio::use_awaitable);
            ++connections;
            tasks.push_back(std::make_unique<test::task<void>>(io, serve(std::move(socket))));
        }
    }
    asio::awaitable<void> serve(tcp_socket socket) {
        for (char const c : text) {
            co_await asio::async_write(socket, asio::buffer(&c, 1), asio::use_awaitable);
            auto sleeping = sleep_for(asio::any_io_executor(io.get_executor()), 1ms);
            co_await std::move(sleeping);
        }
    }
};

}  // namespace

TEST_CASE_TEMPLATE("over every transport, a server whose handshake comes a byte at a time has connect_timeout", T, tcp,
                   tls_type, ws_type, wss_type) {
    // The beginning of what could be an answer; for TLS a record with a ServerHello as long as there are.
    auto const text = std::is_same_v<T, tcp> ? test::hex("20 FF 7F 00 00 80 7F") + std::string(60'000, '\0')
                      : std::is_same_v<T, ws_type>
                          ? "HTTP/1.1 101 X\r\n" + std::string(60'000, 'x')
                          : test::hex("16 03 03 40 00 02 00 3F FC 03 03") + std::string(60'000, 'x');
    slow_server server(text);
    auto options = quick();
    options.connect_timeout = 60ms;
    mqtt::session s(server.io.get_executor(), to_port<T>(server.acceptor.local_endpoint().port()), options);
    test::task<void> running(server.io, s.run());
    memory_watch const watch;
    CHECK(running.run_for_error() == mqtt::errc::connect_timeout);
    CHECK(server.connections >= 2);
    CHECK(watch.peak() < other_end);
}

TEST_CASE_TEMPLATE(
    "over every transport, half-open connections cost the broker 96 KiB each, and are cut after connect_limit", T, tcp,
    tls_type, ws_type, wss_type) {
    // Nothing at all, or the beginning of what the layer expects: 400 connections.
    std::string const begun = std::is_same_v<T, tcp>       ? std::string("\x10\x80\x02\0\4MQTT", 9)
                              : std::is_same_v<T, ws_type> ? "GET /mqtt HTTP/1.1\r\nHost: a\r\n"
                                                           : test::hex("16 03 01 02 00 01 00 01 FC 03 03");
    std::size_t const count = 200;
    for (bool const says : {false, true}) {
        asio::io_context io;
        testing::broker broker(io.get_executor(), {.connect_limit = 500ms});
        auto const port = broker.listen(layer_for<T>());
        raw_clients clients(io, port);
        memory_watch const watch;
        std::size_t ended = 0;
        for (std::size_t i = 0; i < count; ++i) {
            clients.connect(1);
            if (says) clients.say(i, begun);
            io.poll();
        }
        char byte;
        for (auto& socket : clients.sockets)
            socket.async_receive(asio::buffer(&byte, 1), [&](std::error_code e, std::size_t) { ended += bool(e); });
        CHECK(test::wait_until(io, [&] { return ended == count; }, 60s));
        CHECK(watch.peak() < count * 96 * kib + mib);
        CHECK(broker.session_count() == 0);
        broker.close();
        io.restart();
        io.run();
    }
}

TEST_CASE_TEMPLATE("over every transport, a client whose handshake comes a byte at a time is cut after connect_limit",
                   T, tcp, tls_type, ws_type, wss_type) {
    std::string const text = std::is_same_v<T, tcp> ? std::string("\x10\x80\x02\0\4MQTT", 9) + std::string(250, '\0')
                             : std::is_same_v<T, ws_type>
                                 ? "GET /mqtt HTTP/1.1\r\nX: " + std::string(60'000, 'x')
                                 : test::hex("16 03 01 3F FF 01 00 3F FB 03 03") + std::string(60'000, 'x');
    asio::io_context io;
    testing::broker broker(io.get_executor(), {.connect_limit = 100ms});
    raw_clients clients(io, broker.listen(layer_for<T>()));
    memory_watch const watch;
    clients.connect(1);
    bool ended = false;
    char byte;
    clients.sockets[0].async_receive(asio::buffer(&byte, 1), [&](std::error_code, std::size_t) { ended = true; });
    std::size_t sent = 0;
    while (!ended && sent < text.size()) {
        if (!clients.say(0, text.substr(sent, 1))) break;
        ++sent;
        test::run(io, sleep_for(asio::any_io_executor(io.get_executor()), 1ms));
    }
    CHECK(test::wait_until(io, [&] { return ended; }));
    CHECK(sent < text.size());
    CHECK(watch.peak() < mib);
    broker.close();
    io.restart();
    io.run();
}
