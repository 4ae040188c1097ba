#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/testing/proxy.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <limits>
#include <stdexcept>
#include <string>

// Every option of the transports that is a number, at the ends of its type: with it a client connects, or it is refused
// with the range in the text.

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using websocket::over;
using ms = std::chrono::milliseconds;

struct fixture {
    ~fixture() {
        broker.close();
        proxy.close();
        io.restart();
        io.run();
    }
    asio::io_context io;
    testing::certificate_authority authority;
    testing::broker broker{io.get_executor()};
    testing::proxy proxy{io.get_executor()};
    std::uint16_t proxy_port = proxy.listen();
    std::uint16_t tcp_port = broker.listen_tcp();
    std::uint16_t ws_port = broker.listen(testing::over_websocket());
    std::uint16_t tls_port = broker.listen(testing::over_tls(authority));

    // What is refused: the text. Empty: the broker has accepted the client, and the connection has ended in good order.
    template <transport T>
    std::string outcome(T peer) {
        try {
            test::run(io, talk(std::move(peer), io.get_executor()));
        } catch (std::out_of_range const& e) {
            return e.what();
        }
        return {};
    }

    template <transport T>
    static asio::awaitable<void> talk(T peer, asio::any_io_executor executor) {
        auto opening = peer.open(executor);
        auto stream = co_await std::move(opening);
        auto writing = test::write_text(stream, std::string("\x10\x0d\0\4MQTT\4\2\0\0\0\1c", 15));
        co_await std::move(writing);
        auto reading = test::read_exactly(stream, 4);
        CHECK(co_await std::move(reading) == std::string("\x20\2\0\0", 4));
        auto ending = stream.shutdown();
        co_await std::move(ending);
    }
};

bool mentions(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("tcp at the ends of its options connects, or says the range") {
    fixture p;
    auto const with = [&](auto change) {
        tcp peer{.host = "127.0.0.1", .port = p.tcp_port};
        change(peer);
        return p.outcome(peer);
    };
    constexpr int most = std::numeric_limits<int>::max();
    constexpr int least = std::numeric_limits<int>::min();
    CHECK(with([](auto& t) { t.send_buffer_size = t.receive_buffer_size = most; }).empty());
    CHECK(with([](auto& t) { t.send_buffer_size = t.receive_buffer_size = 1; }).empty());
    CHECK(with([](auto& t) { t.attempt_delay = ms::max(); }).empty());
    CHECK(with([](auto& t) { t.attempt_delay = 0ms; }).empty());
    CHECK(mentions(with([](auto& t) { t.send_buffer_size = least; }), "send_buffer_size"));
    CHECK(mentions(with([](auto& t) { t.receive_buffer_size = -1; }), "receive_buffer_size"));
    CHECK(mentions(with([](auto& t) { t.attempt_delay = ms::min(); }), "attempt_delay of tcp must be 0 or more"));
    // Two addresses, so that the delay counts.
    auto racing = [&](ms delay) -> asio::awaitable<void> {
        std::vector<asio::ip::tcp::endpoint> const all{{asio::ip::make_address("127.0.0.1"), p.tcp_port},
                                                       {asio::ip::make_address("127.0.0.1"), p.tcp_port}};
        auto open = [](auto& socket, auto const& endpoint) {
            std::error_code e;
            socket.open(endpoint.protocol(), e);
            return e;
        };
        auto run =
            runnel::detail::connect_race<asio::any_io_executor>::run(p.io.get_executor(), all, delay, open, "racing");
        co_await std::move(run);
    };
    for (auto const delay : {ms::max(), 0ms}) test::run(p.io, racing(delay));
}

TEST_CASE("a WebSocket at the ends of its options connects, or says the range before anything is opened") {
    fixture p;
    auto const with = [&](auto change) {
        over<tcp> peer{.host = "127.0.0.1", .port = p.ws_port};
        change(peer);
        return p.outcome(peer);
    };
    CHECK(with([](auto& t) { t.handshake_timeout = ms::max(); }).empty());
    CHECK(with([](auto& t) { t.handshake_timeout = 0ms; }).empty());
    CHECK(with([](auto& t) { t.close_timeout = ms::max(); }).empty());
    CHECK(with([](auto& t) { t.max_message = std::numeric_limits<std::uint64_t>::max(); }).empty());
    auto const connections = p.broker.counters().connections;
    CHECK(mentions(with([](auto& t) { t.handshake_timeout = ms::min(); }), "must be 0 ms or more"));
    CHECK(mentions(with([](auto& t) { t.close_timeout = ms::min(); }), "close_timeout"));
    CHECK(p.broker.counters().connections == connections);
}

TEST_CASE("proxies at the ends of their options connect, or say the range") {
    fixture p;
    auto const with = [&](auto peer, ms timeout) {
        peer.host = "127.0.0.1";
        peer.port = p.tcp_port;
        peer.proxy.host = "127.0.0.1";
        peer.proxy.port = p.proxy_port;
        peer.handshake_timeout = timeout;
        return p.outcome(peer);
    };
    for (auto const timeout : {ms::max(), 0ms}) {
        CHECK(with(http_proxy<tcp>{}, timeout).empty());
        CHECK(with(socks5_proxy<tcp>{}, timeout).empty());
    }
    CHECK(mentions(with(http_proxy<tcp>{}, ms::min()), "0 ms or more"));
    CHECK(mentions(with(socks5_proxy<tcp>{}, -1ms), "0 ms or more"));
}

TEST_CASE("TLS at the ends of its options connects, as often as sessions are resumed") {
    fixture p;
    for (auto const sessions : {std::size_t{0}, std::size_t{1}, std::numeric_limits<std::size_t>::max()})
        for (auto const limit : {0s, std::chrono::seconds(std::chrono::hours(7 * 24))}) {
            tls_options options;
            options.ca_pem = p.authority.certificate_pem();
            options.resumable_sessions = sessions;
            options.resumption_limit = limit;
            tls<tcp> const peer{.host = "localhost", .port = p.tls_port, .context = tls_context(options)};
            for (int i = 0; i < 3; ++i) CHECK(p.outcome(peer).empty());
        }
}
