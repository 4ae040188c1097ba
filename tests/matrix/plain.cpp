// A session over TCP and one over WebSocket, with the broker in this process: what runs wherever Asio does.
#ifdef _WIN32
// As in programs that do not know what these headers define: `min`, `interface`, `small`, `ERROR`.
#include <winsock2.h>
// In this order.
#include <windows.h>
#endif

#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_websocket.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <string>

namespace mqtt = runnel::mqtt;

template <class Session>
asio::awaitable<void> talk(Session& session) {
    auto inbox = co_await session.subscribe("echo/#");
    for (auto const quality : {mqtt::qos::at_most_once, mqtt::qos::at_least_once, mqtt::qos::exactly_once}) {
        std::string const payload(20'000, static_cast<char>('a' + static_cast<int>(quality)));
        mqtt::publish_options options;
        options.qos = quality;
        co_await session.publish("echo/large", payload, options);
        auto const message = co_await inbox.receive();
        if (message.payload() != payload) throw std::runtime_error("another message came");
    }
    co_await session.disconnect();
}

template <class Transport>
void demonstrate(asio::io_context& context, Transport transport, std::uint16_t port) {
    transport.host = "127.0.0.1";
    transport.port = port;
    mqtt::session_options options;
    options.version = mqtt::protocol_version::v5;
    options.reconnect.attempts = 1;
    mqtt::session<Transport> session{context.get_executor(), transport, options};
    int running = 2;
    auto const on_end = [&](std::exception_ptr error) {
        --running;
        if (error) std::rethrow_exception(error);
    };
    asio::co_spawn(context, session.run(), on_end);
    asio::co_spawn(context, talk(session), on_end);
    while (running > 0) context.run_one();
    std::printf("%s: ok\n", transport.url().c_str());
}

int main() try {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};
    demonstrate(context, runnel::tcp{}, broker.listen_tcp());
    demonstrate(context, runnel::ws{}, broker.listen(runnel::testing::over_websocket()));
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
