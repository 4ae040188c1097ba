#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/sample.hpp"
#include "support/websocket_life.hpp"

using namespace runnel::websocket;

namespace {

using memory = runnel::memory_stream<>;
using plain = stream<memory>;
using tcp_stream = runnel::tcp::stream_type;
using over_tcp = stream<tcp_stream>;
using deflating = stream<memory, permessage_deflate>;

std::pair<memory, memory> ends(asio::io_context& io) {
    auto made = memory::pair(io.get_executor());
    made.first.outgoing().capacity = 5'000;
    return made;
}

std::pair<plain, plain> connected(asio::io_context& io) {
    auto made = ends(io);
    return test::opened_websocket<plain>(std::move(made.first), std::move(made.second));
}

std::pair<over_tcp, over_tcp> connected_by_tcp(asio::io_context& io) {
    auto made = test::tcp_sockets(io);
    return test::opened_websocket<over_tcp>(tcp_stream(std::move(made.first)), tcp_stream(std::move(made.second)));
}

template <class Next>
using deflating_ends = std::pair<stream<Next, permessage_deflate>, stream<Next, permessage_deflate>>;

template <class Next>
deflating_ends<Next> agree_on_deflate(asio::io_context& io, Next one, Next other) {
    using deflating_stream = stream<Next, permessage_deflate>;
    client_options asked;
    asked.host = "h";
    asked.stream = test::quick_websocket();
    server_options offered;
    offered.stream = test::quick_websocket();
    auto const judge = [](server_request const&) { return 101; };
    test::task opening(io, deflating_stream::handshake(std::move(one), asked, deflate_options{}));
    test::task accepting(io, deflating_stream::accept(std::move(other), offered, judge, deflate_options{}));
    auto client = opening.run();
    return {std::move(client), accepting.run()};
}

std::pair<deflating, deflating> connected_with_deflate(asio::io_context& io) {
    auto made = ends(io);
    return agree_on_deflate(io, std::move(made.first), std::move(made.second));
}

deflating_ends<tcp_stream> connected_by_tcp_with_deflate(asio::io_context& io) {
    auto made = test::tcp_sockets(io);
    return agree_on_deflate(io, tcp_stream(std::move(made.first)), tcp_stream(std::move(made.second)));
}

}  // namespace

TEST_CASE("a WebSocket may go at each point of its operations") { test::try_websocket<plain>(connected); }

TEST_CASE("a WebSocket over TCP may go at each point of its operations") {
    test::try_websocket<over_tcp>(connected_by_tcp);
}

TEST_CASE("a WebSocket with compression may go at each point of its operations") {
    test::try_websocket<deflating>(connected_with_deflate);
}

TEST_CASE("a WebSocket with compression over TCP may go at each point of its operations") {
    test::try_websocket<stream<tcp_stream, permessage_deflate>>(connected_by_tcp_with_deflate);
}

TEST_CASE("a WebSocket may go while it answers its peer") {
    test::life_test<plain> life{connected};
    life.prepare = [](plain& s) { s.next_layer().outgoing().capacity = 1; };
    life.before_write = [](plain& peer) {
        protocol c({.side = role::server});
        runnel::send_buffer out(plain::headroom);
        c.append_frame(out, opcode::ping, "?");
        peer.pack(out, message_kind::binary, "one message");
        peer.pack(out, message_kind::binary, std::string(1'500, 'm'));
        c.append_frame(out, opcode::close, std::string("\x03\xe8", 2));
        asio::co_spawn(
            peer.get_executor(),
            [](plain& p, runnel::send_buffer bytes) -> asio::awaitable<void> {
                try {
                    co_await p.next_layer().write(bytes);
                } catch (std::system_error const&) {
                }
            }(peer, std::move(out)),
            [](std::exception_ptr) {});
    };
    for (auto what :
         {test::interruption::destroy, test::interruption::destroy_with_context, test::interruption::cancel}) {
        life.run({test::reads_on<plain>}, what);
        life.run({test::reads_on<plain>, test::writes<plain>}, what);
    }
}

TEST_CASE("messages may be packed in another order than they are sent, also while one is being sent") {
    asio::io_context io;
    auto [client, server] = connected_with_deflate(io);
    REQUIRE(client.compressed());
    std::string const first = test::noise(40'000), second = test::noise(200'000, 7);
    test::task writing(io, client.write_message(message_kind::binary, first));
    io.restart();
    io.poll();
    REQUIRE_FALSE(writing.done());
    runnel::send_buffer early(deflating::headroom), late(deflating::headroom);
    client.pack(early, message_kind::binary, second);
    client.pack(early, message_kind::text, "temperature of sensor one is 21 degrees");
    client.pack(late, message_kind::text, "temperature of sensor one is 22 degrees");
    test::task sending_late(io, client.write_packed(late));
    test::task sending_early(io, client.write_packed(early));
    auto const next = [&io, s = &server] {
        auto const read = [](deflating& from) -> asio::awaitable<std::string> {
            auto const got = co_await from.read_message();
            co_return std::string(got.data);
        };
        return test::run(io, read(*s));
    };
    CHECK(next() == first);
    CHECK(next() == "temperature of sensor one is 22 degrees");
    CHECK(next() == second);
    CHECK(next() == "temperature of sensor one is 21 degrees");
}

TEST_CASE("two reads of a compressed stream of bytes take turns and lose nothing") {
    asio::io_context io;
    auto [client, server] = connected_with_deflate(io);
    std::string const text = test::noise(3'000);
    test::task one(io, test::read_exactly(client, 1'500, 100)), other(io, test::read_exactly(client, 1'500, 100));
    test::run(io, test::write_text(server, text));
    auto bytes = one.run() + other.run();
    auto expected = text;
    std::ranges::sort(bytes);
    std::ranges::sort(expected);
    CHECK(bytes == expected);
}

TEST_CASE("what was left of an uncompressed message cannot be read once the WebSocket is closed") {
    asio::io_context io;
    auto [client, server] = connected_with_deflate(io);
    protocol c({.side = role::server});
    runnel::send_buffer out;
    c.append_frame(out, opcode::binary, std::string(2'000, 'u'));
    test::run(io, server.next_layer().write(out));
    char room[100];
    CHECK(test::run(io, client.read_some(asio::buffer(room))) == 100);
    test::run(io, client.shutdown());
    CHECK(test::error_of(io, client.read_some(asio::buffer(room))) == errc::closing);
}

TEST_CASE("pings of a peer that does not take the answers are answered within bounds") {
    asio::io_context io;
    auto [client, server] = connected(io);
    client.next_layer().outgoing().capacity = 1;
    test::task writing(io, test::write_text(client, "x"));
    test::task reading(io, test::read_to_end(client));
    protocol c({.side = role::server});
    for (int i = 0; i < 2'000; ++i) {
        runnel::send_buffer out;
        c.append_frame(out, opcode::ping, std::string(125, 'p'));
        test::run(io, server.next_layer().write(out));
    }
    io.restart();
    io.poll();
    client.next_layer().outgoing().capacity = runnel::memory_flow::unlimited;
    test::task taking(io, test::read_to_end(server.next_layer()));
    io.restart();
    io.poll();
    CHECK(writing.done());
    CHECK(client.next_layer().outgoing().bytes < 5'000);
}
