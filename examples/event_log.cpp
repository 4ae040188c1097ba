// What a session does, as a log: it finds a server that refuses it at first, connects, loses the connection, and comes
// back, while a program publishes through it all and loses nothing. The broker is one in this process, which misbehaves
// on purpose.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
using namespace std::chrono_literals;

asio::awaitable<void> log(session& s) {
    auto events = s.events();
    for (;;) {
        auto const event = co_await events.next();
        std::printf("   %s\n", to_string(event).c_str());
    }
}

asio::awaitable<void> talk(session& s, runnel::testing::broker& broker) {
    for (int i = 0; i < 3; ++i) {
        auto const text = "message " + std::to_string(i);
        co_await s.publish("log", text, {.qos = mqtt::qos::exactly_once});
        std::printf("%s has arrived\n", text.c_str());
        broker.drop_client("logger");  // as a network does that fails
    }
    co_await s.disconnect();
}

int main() {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};
    broker.refuse_next(1, mqtt::reason_code::server_unavailable);
    std::size_t arrived = 0;
    broker.hooks().on_publish = [&](auto const&, auto const&) { ++arrived; };

    mqtt::session_options options;
    options.credentials.client_id = "logger";
    options.reconnect.initial = 50ms;
    session s{context.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = broker.listen_tcp()}, options};

    asio::co_spawn(context, log(s), [](std::exception_ptr) {});  // waits for events until the program ends
    asio::co_spawn(context, talk(s, broker), [](std::exception_ptr e) {
        if (e) std::rethrow_exception(e);
    });
    bool running = true;
    asio::co_spawn(context, s.run(), [&](std::exception_ptr e) {
        running = false;
        if (e) std::rethrow_exception(e);
    });
    while (running) context.run_one();

    auto const counters = s.counters();
    std::printf("%llu connections, %llu messages sent again, %zu arrived once each\n",
                static_cast<unsigned long long>(counters.connections),
                static_cast<unsigned long long>(counters.messages_resent), arrived);
    return arrived == 3 ? 0 : 1;
}
