#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/stream_life.hpp"

using namespace runnel::websocket;

namespace {

using memory = runnel::memory_stream<>;
using plain = stream<memory>;
using over_tcp = stream<runnel::tcp::stream_type>;
using deflating = stream<memory, permessage_deflate>;

stream_options quick() {
    stream_options made;
    made.close_timeout = std::chrono::milliseconds(300);
    made.fragment_size = 4'000;
    return made;
}

template <class S, class Next>
std::pair<S, S> opened(Next one, Next other) {
    return {S(std::move(one), role::client, quick()), S(std::move(other), role::server, quick())};
}

std::pair<memory, memory> ends(asio::io_context& io) {
    auto made = memory::pair(io.get_executor());
    made.first.outgoing().capacity = 5'000;
    return made;
}

std::pair<plain, plain> connected(asio::io_context& io) {
    auto made = ends(io);
    return opened<plain>(std::move(made.first), std::move(made.second));
}

std::pair<over_tcp, over_tcp> connected_by_tcp(asio::io_context& io) {
    using socket = runnel::tcp::socket_type;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    socket one(io.get_executor()), other(io.get_executor());
    one.open(asio::ip::tcp::v4());
    one.set_option(asio::socket_base::send_buffer_size(1));
    one.connect(acceptor.local_endpoint());
    acceptor.accept(other);
    return opened<over_tcp>(over_tcp::next_layer_type(std::move(one)), over_tcp::next_layer_type(std::move(other)));
}

std::pair<deflating, deflating> connected_with_deflate(asio::io_context& io) {
    auto made = ends(io);
    client_options asked;
    asked.host = "h";
    asked.stream = quick();
    server_options offered;
    offered.stream = quick();
    auto const judge = [](server_request const&) { return 101; };
    test::task opening(io, deflating::handshake(std::move(made.first), asked, deflate_options{}));
    test::task accepting(io, deflating::accept(std::move(made.second), offered, judge, deflate_options{}));
    auto client = opening.run();
    return {std::move(client), accepting.run()};
}

template <class S>
asio::awaitable<void> reads_messages(test::stream_user<S>& user) {
    auto const go_on = [](test::stream_user<S>& u, asio::awaitable<message> first) -> asio::awaitable<void> {
        message got = co_await std::move(first);
        got = co_await u.stream.read_message();
    };
    return go_on(user, user.stream.read_message());
}

template <class S>
asio::awaitable<void> writes_messages(test::stream_user<S>& user) {
    auto const go_on = [](test::stream_user<S>& u, asio::awaitable<void> first) -> asio::awaitable<void> {
        co_await std::move(first);
        co_await u.stream.ping("are you there?");
        u.stream.pack(u.out, message_kind::binary, u.text);
        u.stream.pack(u.out, message_kind::binary, "more");
        co_await u.stream.write_packed(u.out);
    };
    return go_on(user, user.stream.write_message(message_kind::binary, user.text));
}

template <class S>
void try_all(test::life_test<S> const& life) {
    life.run_all({test::reads<S>, test::writes<S>});
    life.run_all({test::writes<S>, writes_messages<S>});
    life.run_all({reads_messages<S>, test::writes<S>});
    life.run_all({test::shuts_down<S>, test::reads_on<S>});
    life.run_all({test::shuts_down<S>});
    life.run_inside({test::reads<S>, test::writes<S>});
    life.run_inside({test::writes<S>, test::reads_on<S>});
    life.run_inside({test::writes<S>, writes_messages<S>});
    life.run_inside({writes_messages<S>, reads_messages<S>, test::writes<S>});
}

}  // namespace

TEST_CASE("a WebSocket may go at each point of its operations") { try_all<plain>({connected}); }

TEST_CASE("a WebSocket over TCP may go at each point of its operations") { try_all<over_tcp>({connected_by_tcp}); }

TEST_CASE("a WebSocket with compression may go at each point of its operations") {
    try_all<deflating>({connected_with_deflate});
}

TEST_CASE("a WebSocket may go while it answers its peer") {
    test::life_test<plain> life{connected};
    life.prepare = [](plain& s) { s.next_layer().outgoing().capacity = 1; };
    life.before_write = [](plain& peer) {
        connection c({.side = role::server});
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
    connection c({.side = role::server});
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
    connection c({.side = role::server});
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
