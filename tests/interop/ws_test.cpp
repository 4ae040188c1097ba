#include "interop/websocket_peer.hpp"
#include "support/npm.hpp"
#include "support/skip.hpp"

// Against the npm package ws, as server and as client, with and without TLS; ws_peer.js is its side of it.
// RUNNEL_WS_MODULES in the environment names a `node_modules` with it, which then is not installed.

namespace {

using namespace test;

std::string const& installed() {
    static std::string const found = npm_modules("RUNNEL_WS_MODULES", "ws@8");
    return found;
}
skip_unless const ready([] { return !installed().empty(); },
                        "node or the npm package ws is not installed, and npm cannot install it");

struct peer : websocket_peer {
    peer(char const* mode, std::uint16_t port, bool deflate,
         std::vector<std::string> (*arguments)(scratch_directory const&))
        : websocket_peer({"env", "NODE_PATH=" + installed(), "node"}, script("ws_peer.js"), mode, port, deflate,
                         arguments) {}
};

template <class W, class C>
struct setting {
    using way = W;
    using compression = C;
};
using setting_1 = setting<plain, websocket::no_compression>;
using setting_2 = setting<plain, websocket::permessage_deflate>;
using setting_3 = setting<encrypted, websocket::no_compression>;
using setting_4 = setting<encrypted, websocket::permessage_deflate>;

}  // namespace

TEST_CASE_TEMPLATE("messages of all sizes go to ws's server and back, compressed where both sides want it", S,
                   setting_1, setting_2, setting_3, setting_4) {
    using way = typename S::way;
    using C = typename S::compression;
    for (bool const deflate : {false, true}) {
        peer const server("serve", 0, deflate, way::server_arguments);
        asio::io_context io;
        CHECK_FALSE(error_of(io, expect_echoes<way, C>(server.port(), "/echo", deflate && C::enabled)));
        CHECK_FALSE(error_of(io, expect_echoes<way, C>(server.port(), "/fragments", deflate && C::enabled)));
        CHECK(server.logs("closed 1000 \nclosed 1000 \n"));
        CHECK(server.log().find("rror") == std::string::npos);
    }
}

TEST_CASE_TEMPLATE("pings of ws's server are answered, and it gets our close code and reason", S, setting_1, setting_2,
                   setting_3, setting_4) {
    using way = typename S::way;
    peer const server("serve", 0, true, way::server_arguments);
    asio::io_context io;
    CHECK_FALSE(error_of(io, answer_pings<way, typename S::compression>(server.port())));
    CHECK(server.logs("closed 4002 enough\n"));
}

TEST_CASE_TEMPLATE("the close code and reason of ws's server are told", S, setting_1, setting_2, setting_3, setting_4) {
    using way = typename S::way;
    peer const server("serve", 0, true, way::server_arguments);
    asio::io_context io;
    using websocket::errc;
    auto const closed = [&](char const* path, unsigned code, char const* reason, std::error_code end) {
        using C = typename S::compression;
        CHECK_FALSE(error_of(io, read_until_closed<way, C>(server.port(), path, code, reason, end)));
    };
    closed("/close?code=1000&reason=done", 1000, "done", asio::error::eof);
    closed("/close?code=1001&reason=away", 1001, "away", asio::error::eof);
    closed("/close?code=1011&reason=gr%C3%BC%C3%9Fe", 1011, "grüße", errc::closed_by_peer);
    closed("/close?code=4999&reason=x", 4999, "x", errc::closed_by_peer);
}

TEST_CASE_TEMPLATE("ws's client is served, and both sides tell the other's close code", S, setting_1, setting_2,
                   setting_3, setting_4) {
    using way = typename S::way;
    using C = typename S::compression;
    for (bool const deflate : {false, true}) {
        asio::io_context io;
        asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
        peer client("ask", acceptor.local_endpoint().port(), deflate, way::client_arguments);
        bool const compressed = deflate && C::enabled;
        CHECK(run(io, echo_one<way, C>(acceptor, compressed)) == "4000 bye grüße");
        CHECK(run(io, echo_one<way, C>(acceptor, compressed)) == "4001 as you wish");
        CHECK(client.ends() == 0);
        CHECK(client.log() == "");
    }
}
