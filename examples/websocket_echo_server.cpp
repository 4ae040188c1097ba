// A WebSocket server that sends every message back, text as text and binary as binary.
//
//     websocket_echo_server [--compress] [--host ADDRESS] [PORT]
//
// Listens on 127.0.0.1, port 9002, unless told otherwise; --compress agrees to permessage-deflate where a client offers
// it.

#include <runnel/transport/asio_stream.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

namespace websocket = runnel::websocket;
using asio::ip::tcp;

template <class Compression>
asio::awaitable<void> serve(tcp::socket socket) {
    using stream = websocket::stream<runnel::asio_stream<tcp::socket>, Compression>;
    try {
        websocket::server_options options;
        options.stream.max_message = 64 * 1024 * 1024;
        auto accepting = stream::accept(runnel::asio_stream(std::move(socket)), options);
        stream client = co_await std::move(accepting);
        try {
            for (;;) {
                websocket::message const message = co_await client.read_message();
                co_await client.write_message(message.kind, message.data);
            }
        } catch (std::system_error const& end) {
            if (end.code() != asio::error::eof) std::fprintf(stderr, "%s\n", end.what());
        }
        co_await client.shutdown();
    } catch (std::exception const& error) {
        std::fprintf(stderr, "%s\n", error.what());
    }
}

asio::awaitable<void> listen(tcp::endpoint endpoint, bool compress) {
    tcp::acceptor acceptor(co_await asio::this_coro::executor, endpoint);
    std::printf("listening on ws://%s:%u\n", endpoint.address().to_string().c_str(),
                unsigned{acceptor.local_endpoint().port()});
    std::fflush(stdout);
    for (;;) {
        tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
        socket.set_option(tcp::no_delay(true));
        auto serving = compress ? serve<websocket::permessage_deflate>(std::move(socket))
                                : serve<websocket::no_compression>(std::move(socket));
        asio::co_spawn(acceptor.get_executor(), std::move(serving), asio::detached);
    }
}

int main(int argc, char** argv) {
    std::string host = "127.0.0.1";
    unsigned long port = 9002;
    bool compress = false;
    for (int i = 1; i < argc; ++i) {
        std::string_view const argument = argv[i];
        if (argument == "--compress") {
            compress = true;
        } else if (argument == "--host" && i + 1 < argc) {
            host = argv[++i];
        } else if (char* end = nullptr; (port = std::strtoul(argv[i], &end, 10)) > 65535 || *end != '\0') {
            std::fprintf(stderr, "usage: %s [--compress] [--host ADDRESS] [PORT]\n", argv[0]);
            return 2;
        }
    }
    try {
        asio::io_context io(1);
        tcp::endpoint const endpoint(asio::ip::make_address(host), static_cast<unsigned short>(port));
        asio::co_spawn(io, listen(endpoint, compress), [](std::exception_ptr error) {
            if (error) std::rethrow_exception(error);
        });
        io.run();
    } catch (std::exception const& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
