#include <runnel/transport/asio_stream.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/process.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/streams.hpp"

// Against Debian's python3-websockets, as server and as client; websockets_peer.py is its side of it.

namespace {

namespace websocket = runnel::websocket;
using runnel::websocket::message_kind;
using socket_acceptor = asio::ip::tcp::acceptor;

char const* const python = "/usr/bin/python3";

bool installed() {
    if (test::child_process::find(python).empty()) return false;
    test::child_process importing({python, "-c", "import websockets"}, "/dev/null");
    return importing.wait(std::chrono::seconds(30)) && importing.exit_status() == 0;
}

test::skip_unless const ready(installed(), "python3-websockets is not installed");

/// The python side as a process. A server chooses its port itself.
class peer {
  public:
    peer(char const* mode, std::uint16_t port, bool deflate) : port_(port) {
        std::vector<std::string> arguments{python, directory_.write("peer.py", script()), mode, std::to_string(port)};
        if (deflate) arguments.emplace_back("--deflate");
        process_.emplace(std::move(arguments), (directory_.path() / "log").string());
        if (std::string_view(mode) != "serve") return;
        std::string const announced = "listening on ";
        if (!logs("\n")) throw std::runtime_error("python's server does not start");
        if (!log().starts_with(announced)) throw std::runtime_error(log());
        port_ = static_cast<std::uint16_t>(std::stoul(log().substr(announced.size())));
    }

    std::uint16_t port() const noexcept { return port_; }
    std::string log() const { return directory_.read("log"); }

    /// Its exit status once it has ended; -1 if it does not.
    int ends() { return process_->wait(std::chrono::seconds(30)) ? process_->exit_status() : -1; }

    /// Waits until it has logged `text`.
    bool logs(std::string const& text) const {
        for (int i = 0; i < 4000; ++i) {
            if (log().find(text) != std::string::npos) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return false;
    }

  private:
    static std::string script() {
        std::ifstream const file(RUNNEL_INTEROP_DIRECTORY "/websockets_peer.py", std::ios::binary);
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
    }

    test::scratch_directory directory_;
    std::uint16_t port_;
    std::optional<test::child_process> process_;
};

template <class Compression>
using client_stream = websocket::stream<runnel::tcp::stream_type, Compression>;
template <class Compression>
using server_stream = websocket::stream<runnel::asio_stream<asio::ip::tcp::socket>, Compression>;

// UTF-8 of exactly `size` bytes, with characters of two and four.
std::string text_of(std::size_t size) {
    std::string text;
    std::string const unit = "grüße 🐎 ";
    while (text.size() + unit.size() <= size) text += unit;
    return text + std::string(size - text.size(), 'x');
}

template <class Compression>
asio::awaitable<client_stream<Compression>> connect(std::uint16_t port, std::string path) {
    runnel::tcp const transport{.host = "127.0.0.1", .port = port};
    auto connecting = transport.open(co_await asio::this_coro::executor);
    auto connection = co_await std::move(connecting);
    websocket::client_options options;
    options.host = "127.0.0.1";
    options.port = port;
    options.path = std::move(path);
    options.subprotocol = "echo";
    auto opening = client_stream<Compression>::handshake(std::move(connection), options);
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

template <class Compression>
asio::awaitable<void> exchange(std::uint16_t port, std::string path, bool compressed) {
    auto connecting = connect<Compression>(port, std::move(path));
    auto stream = co_await std::move(connecting);
    CHECK(stream.subprotocol() == "echo");
    CHECK(stream.compressed() == compressed);
    for (std::size_t const size : {1u, 125u, 126u, 1000u, 65535u, 65536u, 300'000u, 1024u * 1024u}) {
        auto text = expect_echo(stream, message_kind::text, text_of(size));
        co_await std::move(text);
        auto binary = expect_echo(stream, message_kind::binary, test::noise(size));
        co_await std::move(binary);
    }
    co_await stream.shutdown();
    CHECK(stream.received_code() == websocket::close_code::normal);
}

template <class Compression>
asio::awaitable<void> answer_ping(std::uint16_t port) {
    auto connecting = connect<Compression>(port, "/ping");
    auto stream = co_await std::move(connecting);
    co_await stream.ping("before");
    for (std::string const payload : {"", "still there?"}) {
        co_await stream.write_message(message_kind::text, payload);
        websocket::message const back = co_await stream.read_message();
        CHECK(back.data == "pong came");
    }
    co_await stream.close(websocket::close_code{4002}, "enough");
}

template <class Compression>
asio::awaitable<void> read_until_closed(std::uint16_t port, std::string path, unsigned code, std::string reason,
                                        std::error_code end) {
    auto connecting = connect<Compression>(port, std::move(path));
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

// Accepts one connection, and sends back what comes until the peer closes or asks to be closed.
template <class Compression>
asio::awaitable<std::string> echo_one(socket_acceptor& acceptor, bool compressed) {
    auto socket = co_await acceptor.async_accept(asio::use_awaitable);
    websocket::server_options options;
    options.subprotocols = "echo";
    auto accepting =
        server_stream<Compression>::accept(runnel::asio_stream<asio::ip::tcp::socket>(std::move(socket)), options);
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

}  // namespace

TEST_CASE_TEMPLATE("messages of all sizes go to python's server and back, compressed where both sides want it", C,
                   websocket::no_compression, websocket::permessage_deflate) {
    for (bool const deflate : {false, true}) {
        peer const server("serve", 0, deflate);
        asio::io_context io;
        CHECK_FALSE(test::error_of(io, exchange<C>(server.port(), "/echo", deflate && C::enabled)));
        CHECK_FALSE(test::error_of(io, exchange<C>(server.port(), "/fragments", deflate && C::enabled)));
        CHECK(server.logs("closed 1000 \nclosed 1000 \n"));
        INFO(server.log());
        CHECK(server.log().find("Traceback") == std::string::npos);
    }
}

TEST_CASE_TEMPLATE("pings of python's server are answered, and it gets our close code and reason", C,
                   websocket::no_compression, websocket::permessage_deflate) {
    peer const server("serve", 0, true);
    asio::io_context io;
    CHECK_FALSE(test::error_of(io, answer_ping<C>(server.port())));
    CHECK(server.logs("closed 4002 enough\n"));
}

TEST_CASE_TEMPLATE("the close code and reason of python's server are told", C, websocket::no_compression,
                   websocket::permessage_deflate) {
    peer const server("serve", 0, true);
    asio::io_context io;
    using websocket::errc;
    auto const closed = [&](char const* path, unsigned code, char const* reason, std::error_code end) {
        CHECK_FALSE(test::error_of(io, read_until_closed<C>(server.port(), path, code, reason, end)));
    };
    closed("/close?code=1000&reason=done", 1000, "done", asio::error::eof);
    closed("/close?code=1001&reason=away", 1001, "away", asio::error::eof);
    closed("/close?code=1011&reason=gr%C3%BC%C3%9Fe", 1011, "grüße", errc::closed_by_peer);
    closed("/close?code=4999&reason=x", 4999, "x", errc::closed_by_peer);
}

TEST_CASE_TEMPLATE("python's client is served, and both sides tell the other's close code", C,
                   websocket::no_compression, websocket::permessage_deflate) {
    for (bool const deflate : {false, true}) {
        asio::io_context io;
        socket_acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
        peer client("ask", acceptor.local_endpoint().port(), deflate);
        bool const compressed = deflate && C::enabled;
        CHECK(test::run(io, echo_one<C>(acceptor, compressed)) == "4000 bye grüße");
        CHECK(test::run(io, echo_one<C>(acceptor, compressed)) == "4001 as you wish");
        CHECK(client.ends() == 0);
        INFO(client.log());
        CHECK(client.log().empty());
    }
}
