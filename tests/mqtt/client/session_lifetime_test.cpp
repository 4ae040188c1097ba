#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include "support/session_life.hpp"
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

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

namespace {

// Sessions that live in what waits on their execution context, which ends when they have come so far.
template <class Transport, class HasCome>
void check_end_of_context(asio::io_context& io, Transport const& transport, HasCome has_come,
                          std::function<void(runnel::mqtt::session<Transport>&)> const& prepare = {}) {
    using session = runnel::mqtt::session<Transport>;
    auto const hold = [](std::shared_ptr<session> s) -> asio::awaitable<void> {
        auto running = s->run();
        co_await std::move(running);
    };
    auto const sleep = [](std::shared_ptr<session> s) -> asio::awaitable<void> {
        auto sleeping = runnel::sleep_for<asio::any_io_executor>(s->get_executor(), std::chrono::hours(1));
        co_await std::move(sleeping);
    };
    // Asio ends its services in the reverse order, and so what waits in them.
    for (bool const has_sockets : {false, true})
        for (int owner = 0; owner < 4; ++owner) {
            CAPTURE(has_sockets);
            CAPTURE(owner);
            auto context = std::make_unique<asio::io_context>();
            if (has_sockets) asio::ip::tcp::socket(*context).open(asio::ip::tcp::v4());
            auto s = std::make_shared<session>(context->get_executor(), transport,
                                               test::quick("client", runnel::mqtt::protocol_version::v5));
            if (prepare) prepare(*s);
            auto const run = [&](auto told) { asio::co_spawn(*context, s->run(), std::move(told)); };
            if (owner == 0) run([s](std::exception_ptr) {});
            if (owner == 1) asio::co_spawn(*context, hold(s), asio::detached);
            if (owner >= 2) run(asio::detached);
            if (owner == 2) {
                auto timer = std::make_shared<asio::steady_timer>(*context, std::chrono::hours(1));
                timer->async_wait([s, timer](auto const&) {});
            }
            if (owner == 3) asio::co_spawn(*context, sleep(s), asio::detached);
            bool has_ended = false;
            for (int i = 0; i < 2000 && !has_ended; ++i) {
                has_ended = has_come(*s);
                context->restart();
                context->poll();
                io.restart();
                io.run_for(std::chrono::milliseconds(1));
            }
            REQUIRE(has_ended);
            std::weak_ptr<session> const left = s;
            s.reset();
            CHECK_FALSE(left.expired());
            context.reset();
            CHECK(left.expired());
        }
}

// An authenticator that is not ready.
struct sleeper {
    std::string method() const { return "m"; }
    asio::awaitable<std::string> begin() {
        ++*begun;
        auto sleeping =
            runnel::sleep_for<asio::any_io_executor>(co_await asio::this_coro::executor, std::chrono::hours(1));
        co_await std::move(sleeping);
        co_return "begin";
    }
    asio::awaitable<std::string> answer(std::string) { co_return "answer"; }
    asio::awaitable<void> finish(std::string) { co_return; }
    int* begun;
};

}  // namespace

TEST_CASE("the execution context may end with the connected session that it holds, in whatever order") {
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    auto const is_connected = [](auto const& s) { return s.is_connected(); };
    check_end_of_context(io, runnel::tcp{.host = "127.0.0.1", .port = broker.listen_tcp()}, is_connected);
    auto const port = broker.listen(runnel::testing::over_websocket());
    check_end_of_context(io, runnel::websocket::over<runnel::tcp>{.host = "127.0.0.1", .port = port}, is_connected);
}

TEST_CASE("the execution context may end with a session that is connecting, in whatever order") {
    asio::io_context io;
    asio::ip::tcp::acceptor silent(io, {asio::ip::address_v4::loopback(), 0});
    auto const port = silent.local_endpoint().port();
    int turns = 0;
    // Waits for the handshake's answer: the stream is in the frame of who opens it.
    check_end_of_context(io, runnel::websocket::over<runnel::tcp>{.host = "127.0.0.1", .port = port},
                         [&](auto const&) { return ++turns % 30 == 0; });
    int begun = 0;
    check_end_of_context<runnel::tcp>(
        io, {.host = "127.0.0.1", .port = port}, [&](auto const&) { return std::exchange(begun, 0) != 0; },
        [&](auto& s) { s.set_authenticator(sleeper{&begun}); });
}
