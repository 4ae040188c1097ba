#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include "support/session_life.hpp"

TEST_CASE("a session may go while it runs") {
    test::session_life<runnel::memory_transport> life([](runnel::testing::broker& broker) {
        return runnel::memory_transport([&broker](runnel::memory_stream<> s) { broker.attach(std::move(s)); });
    });
    life.run_all();
}

TEST_CASE("a session over TCP may go while it runs") {
    using transport = runnel::failover<runnel::tcp>;
    test::session_life<transport> life([](runnel::testing::broker& broker) {
        return transport({{.host = "127.0.0.1", .port = broker.listen_tcp()}});
    });
    life.run_all();
}

TEST_CASE("a session over a WebSocket may go while it runs") {
    using transport = runnel::websocket::over<runnel::tcp>;
    test::session_life<transport> life([](runnel::testing::broker& broker) {
        return transport{.host = "localhost", .port = broker.listen(runnel::testing::over_websocket())};
    });
    life.run_all();
}

TEST_CASE("a session of a coroutine may go by an exception of that while it runs") {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    runnel::tcp const transport{.host = "127.0.0.1", .port = broker.listen_tcp()};
    for (bool const at_once : {false, true}) {
        auto const user = [&]() -> asio::awaitable<void> {
            runnel::mqtt::session<runnel::tcp> s{io.get_executor(), transport, test::quick()};
            asio::co_spawn(io, s.run(), asio::detached);
            if (!at_once) co_await s.connected();
            throw std::runtime_error("boom");
        };
        test::task<void> going(io, user());
        CHECK_THROWS_WITH(going.run(), "boom");
        io.restart();
        io.run_for(std::chrono::milliseconds(50));
    }
}

TEST_CASE("a session may go by any of the publishers that a read has woken, and all of them end") {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    runnel::tcp const transport{.host = "127.0.0.1", .port = broker.listen_tcp()};
    constexpr int publishers = 6;
    for (int by = 0; by < publishers; ++by) {
        auto s = std::make_unique<runnel::mqtt::session<runnel::tcp>>(io.get_executor(), transport, test::quick());
        asio::co_spawn(io, s->run(), asio::detached);
        test::run(io, s->connected());
        int ended = 0;
        auto const publish = [&](int number) -> asio::awaitable<void> {
            std::error_code error;
            co_await s->publish("a/b", "payload", {.qos = runnel::mqtt::qos::at_least_once}, error);
            CHECK((!error || error == runnel::mqtt::errc::disconnected));
            if (number == by) s.reset();
            ++ended;
        };
        for (int i = 0; i < publishers; ++i) asio::co_spawn(io, publish(i), asio::detached);
        test::wait_until(io, [&] { return ended == publishers; });
        CHECK(s == nullptr);
    }
}

TEST_CASE("a session may go while its reader waits for room") {
    test::connected_session c;
    auto options = test::quick("reader");
    options.receive_maximum = 3;
    auto s = std::make_unique<test::memory_session>(c.io.get_executor(), c.transport, options);
    test::task running(c.io, s->run());
    auto subscription = test::run(c.io, s->subscribe("a/#"));
    test::task publishing(c.io, [](test::memory_session& from) -> asio::awaitable<void> {
        std::string const text(60, 'x');
        for (int i = 0; i < 100; ++i) co_await from.publish("a/b", text, {.qos = runnel::mqtt::qos::at_least_once});
    }(c.session));
    test::wait_until(c.io, [&] { return publishing.done(); });
    s.reset();
    CHECK(running.run_for_error() == runnel::mqtt::errc::disconnected);
    c.disconnect();
}

TEST_CASE("a coroutine whose session goes while it runs is cancelled as before") {
    test::connected_session c;
    auto s = std::make_unique<test::memory_session>(c.io.get_executor(), c.transport, test::quick("other"));
    bool throws = false;
    auto const user = [&]() -> asio::awaitable<void> {
        try {
            co_await s->run();
        } catch (std::system_error const& e) {
            CHECK(e.code() == runnel::mqtt::errc::disconnected);
        }
        throws = co_await asio::this_coro::throw_if_cancelled();
    };
    test::task<void> running(c.io, user());
    test::run(c.io, s->connected());
    s.reset();
    running.run();
    CHECK(throws);
    c.disconnect();
}
