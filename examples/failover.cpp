// Several brokers for one session: when one cannot be reached, or refuses, the next one is tried. The brokers run in
// this process; one listens nowhere, one refuses every client, one works and then goes away.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/failover.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <memory>
#include <string>

namespace mqtt = runnel::mqtt;
using runnel::testing::broker;
using endpoints = runnel::failover<runnel::tcp>;
using session = mqtt::session<endpoints>;

asio::awaitable<void> talk(session& s, std::unique_ptr<broker>& second, broker const& third) {
    auto inbox = co_await s.subscribe("readings");
    co_await s.publish("readings", "21.5", {.qos = mqtt::qos::at_least_once});
    auto message = co_await inbox.receive();
    std::printf("received %s\n", std::string(message.payload()).c_str());

    std::printf("the broker goes away\n");
    second.reset();
    co_await s.publish("readings", "21.7", {.qos = mqtt::qos::at_least_once});
    message = co_await inbox.receive();
    std::printf("received %s, with %zu client at the other broker\n", std::string(message.payload()).c_str(),
                third.session_count());
    co_await s.disconnect();
}

int main() try {
    asio::io_context context;
    broker first{context.get_executor()};
    first.refuse_next(1000);
    auto second = std::make_unique<broker>(context.get_executor());
    broker third{context.get_executor()};

    auto const at = [](std::uint16_t port) { return runnel::tcp{.host = "127.0.0.1", .port = port}; };
    endpoints const transport({at(1), at(first.listen_tcp()), at(second->listen_tcp()), at(third.listen_tcp())});

    mqtt::session_options options;
    options.credentials.client_id = "failover";
    options.reconnect.initial = std::chrono::milliseconds(10);
    // What one broker refuses, another may accept.
    options.reconnect.classify = [](std::error_code) { return mqtt::recovery::retry; };
    options.on_event = [](mqtt::session_event const& event) {
        using kind = mqtt::session_event::kind;
        if (event.what == kind::connected) std::printf("connected\n");
        if (event.what == kind::disconnected && event.error)
            std::printf("disconnected: %s\n", event.error.message().c_str());
    };
    session s{context.get_executor(), transport, options};

    int running = 2;
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        --running;
    };
    asio::co_spawn(context, s.run(), on_end);
    asio::co_spawn(context, talk(s, second, third), on_end);
    while (running > 0) context.run_one();
    if (failure) std::rethrow_exception(failure);
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
