// A WebSocket client that sends every message back, text as text and binary as binary, until the server closes.
//
//     websocket_echo_client [--compress] [--path PATH] ws://HOST[:PORT][/PATH]
//
// --path names the resource in place of the URL's; --compress offers permessage-deflate.

#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

namespace websocket = runnel::websocket;

template <class Compression>
asio::awaitable<void> echo(std::string host, std::uint16_t port, std::string path) {
    using stream = websocket::stream<runnel::tcp::stream_type, Compression>;
    runnel::tcp const transport{.host = host, .port = port};
    auto connecting = transport.open(co_await asio::this_coro::executor);
    auto connection = co_await std::move(connecting);

    websocket::client_options options;
    options.host = host;
    options.port = port;
    options.path = path;
    options.stream.max_message = 64 * 1024 * 1024;
    auto opening = stream::handshake(std::move(connection), options);
    stream server = co_await std::move(opening);
    try {
        for (;;) {
            websocket::message const message = co_await server.read_message();
            co_await server.write_message(message.kind, message.data);
        }
    } catch (std::system_error const& end) {
        if (end.code() != asio::error::eof) std::fprintf(stderr, "%s\n", end.what());
    }
    co_await server.shutdown();
}

// Takes "ws://host:port/path" apart; false if it is no such URL.
bool split(std::string_view url, std::string& host, std::uint16_t& port, std::string& path) {
    constexpr std::string_view scheme = "ws://";
    if (!url.starts_with(scheme)) return false;
    url.remove_prefix(scheme.size());
    std::size_t const slash = url.find_first_of("/?");
    if (slash != std::string_view::npos) path = (url[slash] == '?' ? "/" : "") + std::string(url.substr(slash));
    std::string_view authority = url.substr(0, slash);
    std::size_t const colon = authority.rfind(':');
    if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) {
        std::string const digits(authority.substr(colon + 1));
        char* end = nullptr;
        unsigned long const number = std::strtoul(digits.c_str(), &end, 10);
        if (digits.empty() || *end != '\0' || number == 0 || number > 65535) return false;
        port = static_cast<std::uint16_t>(number);
        authority = authority.substr(0, colon);
    }
    if (authority.starts_with('[') && authority.ends_with(']')) authority = authority.substr(1, authority.size() - 2);
    host = authority;
    return !host.empty();
}

int main(int argc, char** argv) {
    std::string url, host, path = "/", other_path;
    std::uint16_t port = 80;
    bool compress = false;
    for (int i = 1; i < argc; ++i) {
        std::string_view const argument = argv[i];
        if (argument == "--compress")
            compress = true;
        else if (argument == "--path" && i + 1 < argc)
            other_path = argv[++i];
        else
            url = argument;
    }
    if (!split(url, host, port, path)) {
        std::fprintf(stderr, "usage: %s [--compress] [--path PATH] ws://HOST[:PORT][/PATH]\n", argv[0]);
        return 2;
    }
    if (!other_path.empty()) path = other_path;
    try {
        asio::io_context io(1);
        auto echoing = compress ? echo<websocket::permessage_deflate>(host, port, path)
                                : echo<websocket::no_compression>(host, port, path);
        asio::co_spawn(io, std::move(echoing), [](std::exception_ptr error) {
            if (error) std::rethrow_exception(error);
        });
        io.run();
    } catch (std::exception const& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
