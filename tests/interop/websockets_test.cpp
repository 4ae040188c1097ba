#include "interop/websocket_peer.hpp"
#include "support/skip.hpp"

// Against Debian's python3-websockets, as server and as client; websockets_peer.py is its side of it.

namespace {

using namespace test;

char const* const python = "/usr/bin/python3";

bool installed() {
    if (child_process::find(python).empty()) return false;
    child_process importing({python, "-c", "import websockets"}, "/dev/null");
    return importing.wait(std::chrono::seconds(30)) && importing.exit_status() == 0;
}

skip_unless const ready(installed, "python3-websockets is not installed");

struct peer : websocket_peer {
    peer(char const* mode, std::uint16_t port, bool deflate)
        : websocket_peer({python}, script("websockets_peer.py"), mode, port, deflate, plain::server_arguments) {}
};

}  // namespace

TEST_CASE_TEMPLATE("messages of all sizes go to python's server and back, compressed where both sides want it", C,
                   websocket::no_compression, websocket::permessage_deflate) {
    for (bool const deflate : {false, true}) {
        peer const server("serve", 0, deflate);
        asio::io_context io;
        CHECK_FALSE(error_of(io, expect_echoes<plain, C>(server.port(), "/echo", deflate && C::enabled)));
        CHECK_FALSE(error_of(io, expect_echoes<plain, C>(server.port(), "/fragments", deflate && C::enabled)));
        CHECK(server.logs("closed 1000 \nclosed 1000 \n"));
        INFO(server.log());
        CHECK(server.log().find("Traceback") == std::string::npos);
    }
}

TEST_CASE_TEMPLATE("pings of python's server are answered, and it gets our close code and reason", C,
                   websocket::no_compression, websocket::permessage_deflate) {
    peer const server("serve", 0, true);
    asio::io_context io;
    CHECK_FALSE(error_of(io, answer_pings<plain, C>(server.port())));
    CHECK(server.logs("closed 4002 enough\n"));
}

TEST_CASE_TEMPLATE("the close code and reason of python's server are told", C, websocket::no_compression,
                   websocket::permessage_deflate) {
    peer const server("serve", 0, true);
    asio::io_context io;
    using websocket::errc;
    auto const closed = [&](char const* path, unsigned code, char const* reason, std::error_code end) {
        CHECK_FALSE(error_of(io, read_until_closed<plain, C>(server.port(), path, code, reason, end)));
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
        asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
        peer client("ask", acceptor.local_endpoint().port(), deflate);
        bool const compressed = deflate && C::enabled;
        CHECK(run(io, echo_one<plain, C>(acceptor, compressed)) == "4000 bye grüße");
        CHECK(run(io, echo_one<plain, C>(acceptor, compressed)) == "4001 as you wish");
        CHECK(client.ends() == 0);
        INFO(client.log());
        CHECK(client.log().empty());
    }
}
