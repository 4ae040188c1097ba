// A WebSocket client that connects again by itself, without MQTT: it asks a server for prices, and the server goes away
// in between. Both are in this process, over TCP.
#include <runnel/coro/race.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/reconnecting_client.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/use_awaitable.hpp>

#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <system_error>
#include <utility>

namespace websocket = runnel::websocket;
using asio::ip::tcp;
using client = websocket::reconnecting_client<runnel::tcp>;
using socket_stream = runnel::asio_stream<tcp::socket>;

// Answers one request, and closes the WebSocket as a server does that is restarted; three times.
asio::awaitable<void> serve(tcp::acceptor& acceptor) {
    for (int price = 100; price < 103; ++price) {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        websocket::server_options options;
        options.subprotocols = "prices";
        auto accepting = websocket::stream<socket_stream>::accept(socket_stream(std::move(socket)), std::move(options));
        auto stream = co_await std::move(accepting);
        auto const request = co_await stream.read_message();
        std::string const answer = std::string(request.data) + ": " + std::to_string(price);
        co_await stream.write_message(websocket::message_kind::text, answer);
        co_await stream.close(websocket::close_code::service_restart, "restarting");
    }
}

// What has been handed to a connection that is lost then may have arrived or not: nobody knows. So a request is sent
// again until it is answered.
asio::awaitable<void> ask(client& c) {
    for (int answers = 0; answers < 3;) {
        co_await c.send_text("gold");
        auto answering = runnel::within(std::chrono::milliseconds(500), c.next());
        try {
            auto const message = co_await std::move(answering);
            std::printf("%s\n", message.data.c_str());
            ++answers;
        } catch (std::system_error const& error) {
            if (error.code() != std::errc::timed_out) throw;
            std::printf("no answer: asking again\n");
        }
    }
    c.close();
}

int main() try {
    asio::io_context context;
    tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});

    websocket::reconnecting_options options;
    options.handshake.host = "127.0.0.1";
    options.handshake.path = "/prices";
    options.handshake.subprotocol = "prices";
    options.reconnect.initial = std::chrono::milliseconds(50);
    options.on_event = [](websocket::connection_event const& event) {
        using kind = websocket::connection_event::kind;
        if (event.what == kind::connected) std::printf("connected\n");
        if (event.what == kind::lost) std::printf("lost: %s\n", event.detail.c_str());
        if (event.what == kind::waiting) std::printf("again in %d ms\n", static_cast<int>(event.pause.count()));
    };
    client c{context.get_executor(), {.host = "127.0.0.1", .port = acceptor.local_endpoint().port()}, options};

    int running = 3;
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        --running;
    };
    asio::co_spawn(context, serve(acceptor), on_end);
    asio::co_spawn(context, c.run(), on_end);
    asio::co_spawn(context, ask(c), on_end);
    while (running > 0 && !failure) context.run_one();
    if (failure) std::rethrow_exception(failure);
    std::printf("%d connections\n", static_cast<int>(c.counters().connections));
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
