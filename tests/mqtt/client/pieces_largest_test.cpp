#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/pieces_server.hpp"
#include <vector>

namespace {

// As much memory as a session may take for messages in pieces, at both ends of this test together, whose server takes
// half a MiB of its own.
constexpr std::size_t bound = 2 * 1024 * 1024;

}  // namespace

TEST_CASE("the largest message that MQTT has goes and comes over TCP in bounded memory") {
    // 268,435,455 bytes behind the fixed header, of which topic and packet identifier are some.
    std::uint64_t const size = runnel::mqtt::max_variable_integer - (2 + 9 + 2);
    auto const peak = test::exchange_pieces(
        runnel::testing::over_tcp(), [](auto port) { return runnel::tcp{.host = "127.0.0.1", .port = port}; }, size);
    MESSAGE("heap peak in bytes: ", peak);
    CHECK(peak < bound);
}

TEST_CASE("a large message goes and comes over a WebSocket in bounded memory") {
    auto const peak = test::exchange_pieces(
        runnel::testing::over_websocket(),
        [](auto port) { return runnel::websocket::over<runnel::tcp>{.host = "127.0.0.1", .port = port}; },
        24 * 1024 * 1024);
    MESSAGE("heap peak in bytes: ", peak);
    CHECK(peak < bound);
}

TEST_CASE("progress does not count what the system's buffers hold") {
    using namespace runnel::mqtt;
    using socket_type = asio::basic_stream_socket<asio::ip::tcp, test::executor>;
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    acceptor.set_option(asio::socket_base::receive_buffer_size(16 * 1024));
    auto const port = acceptor.local_endpoint().port();
    using session_type = session<with_pieces<runnel::tcp>>;
    session_type s(io.get_executor(), {{.host = "127.0.0.1", .port = port, .send_buffer_size = 1024 * 1024}},
                   test::quick());
    test::task<void> running(io, s.run());
    auto const accept = [&]() -> asio::awaitable<socket_type> {
        auto accepting = acceptor.async_accept(asio::use_awaitable);
        co_return co_await std::move(accepting);
    };
    // A server that does not read any more.
    runnel::asio_stream<socket_type> server(test::run(io, accept()));
    test::run(io, test::write_text(server, test::hex("20 02 00 00")));
    test::run(io, s.connected());

    std::string const payload(8 * 1024 * 1024, 'x');
    std::string_view const parts[] = {payload};
    span_source source(parts);
    std::uint64_t told = 0;
    auto const progress = [&](std::uint64_t taken, std::uint64_t) { told = taken; };
    test::task<publish_result> publishing(io, publish_pieces(s, "t", source, {}, progress));
    test::wait_until(io, [] { return false; }, std::chrono::milliseconds(300));
    CHECK_FALSE(publishing.done());
    auto const sent = s.counters().bytes_sent;
    CHECK(sent > 512 * 1024);
    CHECK(told < sent - 256 * 1024);
}
