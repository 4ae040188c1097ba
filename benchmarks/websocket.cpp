// Frames of a WebSocket beside Boost.Beast: what each costs the measured side over loopback, sent by a client (which
// masks) and received by a server (which unmasks). The other side is a thread that drops or sends prepared bytes and
// whose CPU does not count. Both libraries use coroutines on a single-threaded io_context.

#include <runnel/transport/asio_stream.hpp>
#include <runnel/websocket/stream.hpp>

#include <benchmark/benchmark.h>

#include "support/allocation_count.hpp"
#include "websocket_pair.hpp"
#include <boost/asio/co_spawn.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <vector>

namespace {

namespace websocket = runnel::websocket;
namespace beast = boost::beast;
using websocket::message_kind;
using namespace bench;

constexpr int warm_up = 1000;  // frames before the first that counts
constexpr int pack = 64;       // frames in one write, where that is measured

using stream = websocket::stream<runnel::asio_stream<socket_type>>;

task<stream> open(asio::io_context& io, int fd, websocket::role side) {
    runnel::asio_stream below(socket_type(io, asio::ip::tcp::v4(), fd));
    websocket::client_options asking;
    asking.host = "127.0.0.1";
    websocket::server_options answering;
    auto opening = side == websocket::role::client ? stream::handshake(std::move(below), asking)
                                                   : stream::accept(std::move(below), answering);
    co_return co_await std::move(opening);
}

task<void> open_into(std::optional<stream>& to, asio::io_context& io, int fd, websocket::role side) {
    auto opening = open(io, fd, side);
    to.emplace(co_await std::move(opening));
}

// The peer: shakes hands, then drops what comes, or sends frames of `size` bytes, until the connection ends.
void serve_peer(int fd, websocket::role side, std::size_t size) {
    asio::io_context io(1);
    std::optional<stream> opened;
    run(io, open_into(opened, io, fd, side));
    opened->next_layer().next_layer().native_non_blocking(false);
    if (side == websocket::role::server) {
        std::vector<char> room(256 * 1024);
        while (::recv(fd, room.data(), room.size(), 0) > 0) continue;
        return;
    }
    runnel::send_buffer frames;
    websocket::protocol const protocol({.side = side});
    std::string const payload(size, 'x');
    while (frames.size() < 128 * 1024) protocol.append_frame(frames, websocket::opcode::binary, payload);
    for (std::size_t sent = 0;;) {
        ssize_t const n = ::send(fd, frames.data() + sent, frames.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return;
        sent = (sent + static_cast<std::size_t>(n)) % frames.size();
    }
}

// What counts of a loop over frames, from where it is made to where it ends.
struct meter {
    benchmark::State& state;
    std::size_t received = 0;  // bytes; nothing where frames are sent
    std::size_t before = runnel::testing::allocation_count();

    ~meter() {
        auto const allocations = static_cast<double>(runnel::testing::allocation_count() - before);
        state.counters["allocations/frame"] = allocations / static_cast<double>(state.iterations());
        state.SetItemsProcessed(state.iterations());
        if (received != 0 && received != static_cast<std::size_t>(state.iterations() * state.range(0)))
            state.SkipWithError("bytes are missing");
    }
};

// Runs `measure(fd)`, the client or the server, against a peer in the other role.
template <class Measure>
void against_peer(benchmark::State& state, websocket::role peers_side, Measure measure) {
    socket_pair const sockets;
    std::thread peer(serve_peer, sockets.peers, peers_side, static_cast<std::size_t>(state.range(0)));
    measure(sockets.own);  // which closes it: the peer ends then
    peer.join();
}

task<void> send_each(asio::io_context& io, int fd, benchmark::State& state) {
    auto opening = open(io, fd, websocket::role::client);
    stream ws = co_await std::move(opening);
    std::string const payload(static_cast<std::size_t>(state.range(0)), 'x');
    for (int i = 0; i < warm_up; ++i) co_await ws.write_message(message_kind::binary, payload);
    meter const counting{state};
    while (state.KeepRunning()) co_await ws.write_message(message_kind::binary, payload);
}

task<void> send_packed(asio::io_context& io, int fd, benchmark::State& state) {
    auto opening = open(io, fd, websocket::role::client);
    stream ws = co_await std::move(opening);
    std::string const payload(static_cast<std::size_t>(state.range(0)), 'x');
    runnel::send_buffer out(stream::next_layer_type::headroom);
    for (int i = 0; i < warm_up; ++i) ws.pack(out, message_kind::binary, payload);
    co_await ws.write_packed(out);
    meter const counting{state};
    while (state.KeepRunningBatch(pack)) {
        for (int i = 0; i < pack; ++i) ws.pack(out, message_kind::binary, payload);
        co_await ws.write_packed(out);
    }
}

task<void> receive(asio::io_context& io, int fd, benchmark::State& state) {
    auto opening = open(io, fd, websocket::role::server);
    stream ws = co_await std::move(opening);
    for (int i = 0; i < warm_up; ++i) co_await ws.read_message();
    meter counting{state};
    while (state.KeepRunning()) {
        websocket::message got;
        if (!ws.try_read_message(got)) got = co_await ws.read_message();
        counting.received += got.data.size();
    }
}

template <task<void> (*Loop)(asio::io_context&, int, benchmark::State&), websocket::role PeersSide>
void by_runnel(benchmark::State& state) {
    against_peer(state, PeersSide, [&](int fd) {
        asio::io_context io(1);
        run(io, Loop(io, fd, state));
    });
}

beast_task send_each(beast_stream& ws, benchmark::State& state) {
    std::string const payload(static_cast<std::size_t>(state.range(0)), 'x');
    for (int i = 0; i < warm_up; ++i) co_await ws.async_write(boost::asio::buffer(payload), beast_awaits);
    meter const counting{state};
    while (state.KeepRunning()) co_await ws.async_write(boost::asio::buffer(payload), beast_awaits);
}

beast_task receive(beast_stream& ws, benchmark::State& state) {
    beast::flat_buffer buffer;
    for (int i = 0; i < warm_up; ++i) buffer.consume(co_await ws.async_read(buffer, beast_awaits));
    meter counting{state};
    while (state.KeepRunning()) {
        std::size_t const n = co_await ws.async_read(buffer, beast_awaits);
        buffer.consume(n);
        counting.received += n;
    }
}

template <beast_task (*Loop)(beast_stream&, benchmark::State&), websocket::role PeersSide>
void by_beast(benchmark::State& state) {
    against_peer(state, PeersSide, [&](int fd) {
        boost::asio::io_context io(1);
        auto ws = beast_over(io, fd);
        PeersSide == websocket::role::server ? ws.handshake("127.0.0.1", "/") : ws.accept();
        ws.binary(true);
        boost::asio::co_spawn(io, Loop(ws, state), rethrow);
        io.run();
    });
}

}  // namespace

int main(int argc, char** argv) {
    constexpr auto client = websocket::role::client, server = websocket::role::server;
    auto const add = [](char const* name, void (*function)(benchmark::State&)) {
        benchmark::RegisterBenchmark(name, function)->Arg(64)->Arg(1024);
    };
    add("runnel/send", by_runnel<send_each, server>);
    add("runnel/send_packed", by_runnel<send_packed, server>);
    add("Boost.Beast/send", by_beast<send_each, server>);
    add("runnel/receive", by_runnel<receive, client>);
    add("Boost.Beast/receive", by_beast<receive, client>);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
