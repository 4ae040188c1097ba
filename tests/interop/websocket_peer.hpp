#pragma once

#include <runnel/testing/over_tls.hpp>
#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/process.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// What the tests against other implementations of WebSocket have in common. Their side is a script that is called
//
//     PROGRAM SCRIPT serve PORT [--deflate] [--tls CERTIFICATE KEY]   serves until it is ended, on any port if PORT is
//     0;
//                                                                     the path says what a connection does
//     PROGRAM SCRIPT ask PORT [--deflate] [--tls AUTHORITY]           converses with a server that echoes; exits with 0
//                                                                     if all was right

namespace test {

namespace websocket = runnel::websocket;
using runnel::websocket::message_kind;
using socket_type = asio::ip::tcp::socket;

// TLS, or none: how a test reaches the peer and lets it in.

struct plain {
    static runnel::tcp to(std::uint16_t port) { return {.host = "localhost", .port = port}; }
    static std::vector<std::string> server_arguments(scratch_directory const&) { return {}; }
    static std::vector<std::string> client_arguments(scratch_directory const&) { return {}; }

    static asio::awaitable<runnel::asio_stream<socket_type>> let_in(runnel::asio_stream<socket_type> connection) {
        co_return std::move(connection);
    }
};

struct encrypted {
    using transport = runnel::tls<runnel::tcp>;

    static runnel::testing::certificate_authority const& authority() {
        static runnel::testing::certificate_authority const the_one;
        return the_one;
    }

    static transport to(std::uint16_t port) {
        runnel::tls_options options;
        options.ca_pem = authority().certificate_pem();
        transport made;
        made.host = "localhost";
        made.port = port;
        made.context = runnel::tls_context(options);
        return made;
    }
    static std::vector<std::string> server_arguments(scratch_directory const& directory) {
        auto const own = authority().issue_server();
        return {"--tls", directory.write("server.crt", own.certificate_pem),
                directory.write("server.key", own.private_key_pem)};
    }
    static std::vector<std::string> client_arguments(scratch_directory const& directory) {
        return {"--tls", directory.write("ca.crt", authority().certificate_pem())};
    }

    static auto let_in(runnel::asio_stream<socket_type> connection) {
        static runnel::testing::over_tls const server(authority());
        return server.open(std::move(connection));
    }
};

/// The peer as a process. A server chooses its port itself.
class websocket_peer {
  public:
    websocket_peer(std::vector<std::string> program, std::string const& script_text, std::string const& mode,
                   std::uint16_t port, bool deflate, std::vector<std::string> (*more)(scratch_directory const&))
        : port_(port) {
        program.push_back(directory_.write("peer", script_text));
        program.insert(program.end(), {mode, std::to_string(port)});
        if (deflate) program.emplace_back("--deflate");
        for (auto& argument : more(directory_)) program.push_back(std::move(argument));
        process_.emplace(std::move(program), (directory_.path() / "log").string());
        if (mode != "serve") return;
        std::string const announced = "listening on ";
        if (!logs("\n")) throw std::runtime_error("the peer's server does not start");
        if (!log().starts_with(announced)) throw std::runtime_error(log());
        port_ = static_cast<std::uint16_t>(std::stoul(log().substr(announced.size())));
    }

    std::uint16_t port() const noexcept { return port_; }
    std::string log() const { return directory_.read("log"); }

    /// Its exit status once it has ended; -1 if it does not.
    int ends() { return process_->wait(std::chrono::seconds(60)) ? process_->exit_status() : -1; }

    /// Waits until it has logged `text`.
    bool logs(std::string const& text) const {
        for (int i = 0; i < 4000; ++i) {
            if (log().find(text) != std::string::npos) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return false;
    }

    /// A script of tests/interop.
    static std::string script(std::string const& name) {
        std::ifstream const file(RUNNEL_INTEROP_DIRECTORY "/" + name, std::ios::binary);
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
    }

  private:
    scratch_directory directory_;
    std::uint16_t port_;
    std::optional<child_process> process_;
};

/// UTF-8 of exactly `size` bytes, with characters of two and four.
inline std::string text_of(std::size_t size) {
    std::string text;
    std::string const unit = "grüße 🐎 ";
    while (text.size() + unit.size() <= size) text += unit;
    return text + std::string(size - text.size(), 'x');
}

template <class Way, class Compression>
using websocket_to = websocket::stream<typename decltype(Way::to(0))::stream_type, Compression>;

template <class Way, class Compression>
asio::awaitable<websocket_to<Way, Compression>> connect_to(std::uint16_t port, std::string path) {
    auto const transport = Way::to(port);
    auto connecting = transport.open(co_await asio::this_coro::executor);
    auto connection = co_await std::move(connecting);
    websocket::client_options options;
    options.host = "localhost";
    options.port = port;
    options.path = std::move(path);
    options.subprotocol = "echo";
    auto opening = websocket_to<Way, Compression>::handshake(std::move(connection), options);
    co_return co_await std::move(opening);
}

template <class Stream>
asio::awaitable<void> expect_echo(Stream& stream, message_kind kind, std::string data) {
    co_await stream.write_message(kind, data);
    websocket::message const back = co_await stream.read_message();
    CHECK(back.kind == kind);
    CHECK(back.data.size() == data.size());
    CHECK((back.data == data));  // in parentheses: nobody wants to read a megabyte
}

/// Sends messages of all sizes to a server that echoes, and closes.
template <class Way, class Compression>
asio::awaitable<void> expect_echoes(std::uint16_t port, std::string path, bool compressed) {
    auto connecting = connect_to<Way, Compression>(port, std::move(path));
    auto stream = co_await std::move(connecting);
    CHECK(stream.subprotocol() == "echo");
    CHECK(stream.compressed() == compressed);
    for (std::size_t const size : {1u, 125u, 126u, 1000u, 65535u, 65536u, 300'000u, 1024u * 1024u}) {
        auto text = expect_echo(stream, message_kind::text, text_of(size));
        co_await std::move(text);
        auto binary = expect_echo(stream, message_kind::binary, noise(size));
        co_await std::move(binary);
    }
    co_await stream.shutdown();
    CHECK(stream.received_code() == websocket::close_code::normal);
}

/// Pings a server and is pinged by it, and closes with a code and a reason.
template <class Way, class Compression>
asio::awaitable<void> answer_pings(std::uint16_t port) {
    auto connecting = connect_to<Way, Compression>(port, "/ping");
    auto stream = co_await std::move(connecting);
    co_await stream.ping("before");
    for (std::string const payload : {"", "still there?"}) {
        co_await stream.write_message(message_kind::text, payload);
        websocket::message const back = co_await stream.read_message();
        CHECK(back.data == "pong came");
    }
    co_await stream.close(websocket::close_code{4002}, "enough");
}

/// Lets a server close.
template <class Way, class Compression>
asio::awaitable<void> read_until_closed(std::uint16_t port, std::string path, unsigned code, std::string reason,
                                        std::error_code end) {
    auto connecting = connect_to<Way, Compression>(port, std::move(path));
    auto stream = co_await std::move(connecting);
    std::error_code seen;
    try {
        co_await stream.read_message();
    } catch (std::system_error const& error) {
        seen = error.code();
    }
    CHECK(seen == end);
    CHECK(static_cast<unsigned>(stream.received_code()) == code);
    CHECK(stream.received_reason() == reason);
    co_await stream.shutdown();
}

/// Serves one connection: sends back what comes until the peer closes or asks to be closed. Returns the peer's close
/// code and reason.
template <class Way, class Compression>
asio::awaitable<std::string> echo_one(asio::ip::tcp::acceptor& acceptor, bool compressed) {
    auto socket = co_await acceptor.async_accept(asio::use_awaitable);
    auto letting_in = Way::let_in(runnel::asio_stream<socket_type>(std::move(socket)));
    auto connection = co_await std::move(letting_in);
    websocket::server_options options;
    options.subprotocols = "echo";
    auto accepting = websocket::stream<decltype(connection), Compression>::accept(std::move(connection), options);
    auto stream = co_await std::move(accepting);
    CHECK(stream.target() == "/echo");
    CHECK(stream.compressed() == compressed);
    bool asked_to_close = false;
    std::error_code end;
    try {
        while (!asked_to_close) {
            websocket::message const got = co_await stream.read_message();
            asked_to_close = got.data == "close me";
            if (!asked_to_close) co_await stream.write_message(got.kind, got.data);
        }
    } catch (std::system_error const& error) {
        end = error.code();
    }
    if (asked_to_close) {
        co_await stream.close(websocket::close_code{4001}, "as you wish");
    } else {
        CHECK(end == websocket::errc::closed_by_peer);
        co_await stream.shutdown();
    }
    co_return std::to_string(static_cast<unsigned>(stream.received_code())) + " " +
        std::string(stream.received_reason());
}

}  // namespace test
