#include "interop/websocket_peer.hpp"
#include "support/skip.hpp"

// Chromium's own WebSocket as the client of a server, with and without TLS; chromium_page.html is its side of it.

namespace {

using namespace test;

skip_unless const ready([] { return !child_process::find("chromium").empty(); }, "chromium is not installed");

/// A browser without a window that shows the page until the test ends.
class browser {
  public:
    browser(std::string const& server, bool compressed) {
        std::string const page = directory_.write("page.html", websocket_peer::script("chromium_page.html"));
        std::string const home = directory_.path().string();
        process_.emplace(
            std::vector<std::string>{
                "env", "HOME=" + home, "chromium", "--headless", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", "--ignore-certificate-errors", "--user-data-dir=" + home + "/profile",
                "file://" + page + "?server=" + server + "&compressed=" + (compressed ? "1" : "0")},
            (directory_.path() / "log").string());
    }
    ~browser() { process_->terminate(); }

    std::string log() const { return directory_.read("log"); }

  private:
    scratch_directory directory_;
    std::optional<child_process> process_;
};

// Accepts one connection and returns the first message.
template <class Way>
asio::awaitable<std::string> read_report(asio::ip::tcp::acceptor& acceptor) {
    auto socket = co_await acceptor.async_accept(asio::use_awaitable);
    auto letting_in = Way::let_in(runnel::asio_stream<socket_type>(std::move(socket)));
    auto connection = co_await std::move(letting_in);
    websocket::server_options options;
    options.subprotocols = "echo";
    auto accepting = websocket::stream<decltype(connection)>::accept(std::move(connection), options);
    auto stream = co_await std::move(accepting);
    websocket::message const got = co_await stream.read_message();
    co_return stream.target() + ": " + std::string(got.data);
}

template <class Way, class Compression>
void serve_browser(std::string const& scheme) {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    std::string const port = std::to_string(acceptor.local_endpoint().port());
    browser const client(scheme + "://127.0.0.1:" + port, Compression::enabled);
    INFO(client.log());
    // Chromium offers compression always.
    CHECK(run(io, echo_one<Way, Compression>(acceptor, Compression::enabled)) == "4000 bye grüße");
    CHECK(run(io, echo_one<Way, Compression>(acceptor, Compression::enabled)) == "4001 as you wish");
    CHECK(run(io, read_report<Way>(acceptor)) == "/report: all was right");
}

}  // namespace

TEST_CASE_TEMPLATE("a page in Chromium exchanges text and binary messages with a server", C, websocket::no_compression,
                   websocket::permessage_deflate) {
    serve_browser<plain, C>("ws");
}

TEST_CASE_TEMPLATE("a page in Chromium exchanges messages with a server over TLS", C, websocket::no_compression,
                   websocket::permessage_deflate) {
    serve_browser<encrypted, C>("wss");
}
