#include <runnel/testing/aliyun/platform.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include <string>
#include <support/run.hpp>
#include <support/streams.hpp>
#include <vector>

namespace {

using namespace runnel;
using websocket::over;

// A broker that listens in all four ways, with one authority.
struct fixture {
    fixture() : broker(io.get_executor()) {
        broker.hooks().log = [this](std::string_view text) { log.emplace_back(text); };
        broker.hooks().on_connect = [this](testing::connect_attempt& attempt) {
            seen = attempt.from;
            return mqtt::reason_code::success;
        };
    }
    ~fixture() {
        broker.close();
        io.restart();
        io.run();  // ends: nothing is left
    }

    tls_context trusting() const {
        tls_options options;
        options.ca_pem = authority.certificate_pem();
        return tls_context(options);
    }

    asio::io_context io;
    testing::certificate_authority authority;
    std::vector<std::string> log;
    testing::connection_info seen;
    testing::broker broker;
};

// Connects, publishes a message to itself at QoS 0, and gets it back.
template <transport T>
asio::awaitable<std::string> talk(T peer, asio::any_io_executor executor) {
    auto opening = peer.open(executor);
    auto stream = co_await std::move(opening);
    std::string const to_send = std::string("\x10\x0d\0\4MQTT\5\2\0\0\0\0\0", 15) +
                                std::string("\x82\x07\0\1\0\0\1t\0", 9) + std::string("\x30\x06\0\1t\0hi", 8);
    auto writing = test::write_text(stream, to_send);
    co_await std::move(writing);
    std::string all;
    while (all.find("hi") == std::string::npos) {
        auto reading = test::read_exactly(stream, 1);
        all += co_await std::move(reading);
    }
    auto leaving = test::write_text(stream, std::string("\xe0\0", 2));
    co_await std::move(leaving);
    auto rest = test::read_to_end(stream);
    auto const end = co_await std::move(rest);
    if (end.end != asio::error::eof) throw std::system_error(end.end);
    co_return all;
}

}  // namespace

TEST_CASE("a broker talks over tcp, tls, ws and wss, and knows which it is") {
    // Shows [MQTT-4.2.0-1] [MQTT-7.1.1-1 of 3.1.1] [MQTT-7.1.2-1 of 3.1.1].
    fixture p;
    auto const e = p.io.get_executor();
    {
        tcp const peer{.host = "127.0.0.1", .port = p.broker.listen_tcp()};
        CHECK_NOTHROW(test::run(p.io, talk(peer, e)));
        CHECK(p.seen.transport == "tcp");
        CHECK_FALSE(p.seen.secure);
    }
    {
        tls<tcp> const peer{
            .host = "localhost", .port = p.broker.listen(testing::over_tls(p.authority)), .context = p.trusting()};
        CHECK_NOTHROW(test::run(p.io, talk(peer, e)));
        CHECK(p.seen.transport == "tls");
        CHECK(p.seen.secure);
    }
    {
        over<tcp> const peer{.host = "127.0.0.1", .port = p.broker.listen(testing::over_websocket())};
        CHECK_NOTHROW(test::run(p.io, talk(peer, e)));
        CHECK(p.seen.transport == "ws");
        CHECK_FALSE(p.seen.secure);
    }
    {
        over<tls<tcp>> peer{.host = "localhost",
                            .port = p.broker.listen(testing::over_websocket(testing::over_tls(p.authority)))};
        peer.next.context = p.trusting();
        CHECK_NOTHROW(test::run(p.io, talk(peer, e)));
        CHECK(p.seen.transport == "wss");
        CHECK(p.seen.secure);
        CHECK(p.seen.peer.starts_with("127.0.0.1:"));
    }
    CHECK(p.log.empty());
    CHECK(p.broker.counters().accepted == 4);
}

TEST_CASE("a handshake that fails is logged, and does no harm to the listener") {
    fixture p;
    auto const e = p.io.get_executor();
    auto const port = p.broker.listen(testing::over_tls(p.authority));
    tls<tcp> peer{.host = "localhost", .port = port};  // does not trust the authority
    CHECK(test::error_of(p.io, talk(peer, e)));
    test::task<void> waiting(p.io, sleep_for<asio::any_io_executor>(e, std::chrono::milliseconds(50)));
    waiting.run();
    REQUIRE(p.log.size() == 1);
    CHECK(p.log[0].starts_with("tls handshake with 127.0.0.1:"));
    peer.context = p.trusting();
    CHECK_NOTHROW(test::run(p.io, talk(peer, e)));
}

TEST_CASE("a WebSocket on another path is refused with 404, if a path is set") {
    fixture p;
    auto const e = p.io.get_executor();
    testing::over_websocket<> layer;
    layer.path = "/mqtt";
    over<tcp> peer{.host = "127.0.0.1", .port = p.broker.listen(layer), .path = "/mqtt?token=1"};
    CHECK_NOTHROW(test::run(p.io, talk(peer, e)));
    peer.path = "/other";
    test::task<std::string> refused(p.io, talk(peer, e));
    CHECK(refused.run_for_error() == websocket::errc::not_found);
    CHECK(refused.error_text().find("404") != std::string::npos);
}

TEST_CASE("a WebSocket without the subprotocol mqtt is refused") {
    fixture p;
    over<tcp> const peer{.host = "127.0.0.1",
                         .port = p.broker.listen(testing::over_websocket()),
                         .subprotocol = "chat",
                         .accept_no_subprotocol = true};
    CHECK(test::error_of(p.io, talk(peer, p.io.get_executor())) == websocket::errc::refused);
}
