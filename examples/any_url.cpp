// Where to connect is said by a URL when the program runs: any_url mqtts://user:password@broker.example. Without one, a
// broker in this process is used, over TCP, then over WebSocket.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/websocket/transport_from.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <string>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::any_transport>;

asio::awaitable<void> talk(session& s) {
    auto inbox = co_await s.subscribe("readings");
    co_await s.publish("readings", "21.5", {.qos = mqtt::qos::at_least_once});
    auto const message = co_await inbox.receive();
    std::printf("received %s\n", std::string(message.payload()).c_str());
    co_await s.disconnect();
}

void visit(asio::io_context& context, std::string const& text) {
    auto const url = runnel::parse_url(text);
    auto const transport = runnel::transport_from(url);
    std::printf("going to %s, %s\n", transport.url().c_str(), transport.is_secure() ? "encrypted" : "in the clear");

    mqtt::session_options options;
    options.credentials = {.client_id = "any-url", .user_name = url.user_name, .password = url.password};
    session s{context.get_executor(), transport, options};
    int running = 2;
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        --running;
    };
    asio::co_spawn(context, s.run(), on_end);
    asio::co_spawn(context, talk(s), on_end);
    while (running > 0) context.run_one();
    if (failure) std::rethrow_exception(failure);
}

int main(int argc, char** argv) try {
    asio::io_context context;
    if (argc > 1) {
        visit(context, argv[1]);
        return 0;
    }
    runnel::testing::broker broker{context.get_executor()};
    visit(context, "mqtt://127.0.0.1:" + std::to_string(broker.listen_tcp()));
    visit(context, "ws://127.0.0.1:" + std::to_string(broker.listen(runnel::testing::over_websocket())) + "/mqtt");
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
