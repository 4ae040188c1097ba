// permessage-deflate on JSON, beside Boost.Beast: CPU a message of the side that sends (a client) or receives (a
// server), and bytes a message on the wire, with what came before as context and without. Both compress with zlib's
// level 6 and memory level 8, and windows of 32 KiB; Beast has its own form of zlib. The other side is a thread that
// drops, or sends what was compressed beforehand, and whose CPU does not count.

#include <runnel/transport/asio_stream.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <benchmark/benchmark.h>

#include "websocket_pair.hpp"
#include <boost/asio/co_spawn.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <optional>
#include <random>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <vector>

namespace {

namespace websocket = runnel::websocket;
namespace beast = boost::beast;
using websocket::message_kind;
using namespace bench;

constexpr std::size_t warm_up = 200;  // messages before the first that counts

// What a device tells, readings of `size` bytes or a little more.
std::string telemetry(std::mt19937& random, std::size_t number, std::size_t size) {
    auto const value = [&](std::size_t least, std::size_t most) {
        return std::to_string(least + random() % (most - least));
    };
    std::string text = R"({"device":"pump-)" + std::to_string(1000 + number % 16) + R"(","seq":)" +
                       std::to_string(number) + R"(,"firmware":"4.17.2","readings":[)";
    for (bool first = true; first || text.size() + 2 < size; first = false)
        text += std::string(first ? "" : ",") + R"({"time":17645)" + value(10'000'000, 99'999'999) +
                R"(,"temperature":)" + value(18, 30) + "." + value(10, 99) + R"(,"pressure":)" + value(980, 1040) +
                "." + value(0, 9) + R"(,"current":)" + value(0, 12) + "." + value(100, 999) + R"(,"state":")" +
                (random() % 8 == 0 ? "starting" : "running") + R"("})";
    return text + "]}";
}

// Enough of them that they are not in the window of those before when they come again.
std::vector<std::string> samples(std::size_t size) {
    std::mt19937 random(1);
    std::vector<std::string> all;
    for (std::size_t i = 0; i < 512; ++i) all.push_back(telemetry(random, i, size));
    return all;
}

struct setting {
    std::size_t size;
    bool takeover;
    std::size_t messages;

    websocket::deflate_options options() const {
        return {.client_no_context_takeover = !takeover, .server_no_context_takeover = !takeover};
    }
    std::string agreed() const {
        return takeover ? "permessage-deflate"
                        : "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    }
};

using stream = websocket::stream<runnel::asio_stream<socket_type>, websocket::permessage_deflate>;

task<stream> open(asio::io_context& io, int fd, websocket::role side, websocket::deflate_options how) {
    runnel::asio_stream below(socket_type(io, asio::ip::tcp::v4(), fd));
    websocket::client_options asking;
    asking.host = "127.0.0.1";
    websocket::server_options answering;
    auto opening = side == websocket::role::client
                       ? stream::handshake(std::move(below), asking, how)
                       : stream::accept(std::move(below), answering, [](auto const&) { return 101; }, how);
    co_return co_await std::move(opening);
}

task<void> open_into(std::optional<stream>& to, asio::io_context& io, int fd, websocket::role side, setting what) {
    auto opening = open(io, fd, side, what.options());
    to.emplace(co_await std::move(opening));
    if (!to->compressed()) throw std::runtime_error("no compression");
}

// The peer: shakes hands, then drops what comes, or sends compressed messages. Returns the bytes of all messages.
std::size_t serve_peer(int fd, websocket::role side, setting what) {
    std::string frames;
    if (side == websocket::role::client) {
        runnel::send_buffer out;
        websocket::protocol const protocol({.side = side});
        websocket::permessage_deflate codec;
        if (codec.settle(side, what.agreed(), what.options(), 0) != websocket::errc::ok) std::abort();
        auto const all = samples(what.size);
        for (std::size_t i = 0; i < warm_up + what.messages; ++i)
            protocol.append_frame(out, websocket::opcode::text, codec.deflate(all[i % all.size()]), true, true);
        frames = out.view();
    }
    asio::io_context io(1);
    std::optional<stream> opened;
    run(io, open_into(opened, io, fd, side, what));
    opened->next_layer().next_layer().native_non_blocking(false);
    std::size_t bytes = 0;
    std::vector<char> room(256 * 1024);
    while (side == websocket::role::server) {
        ssize_t const n = ::recv(fd, room.data(), room.size(), 0);
        if (n <= 0) return bytes;
        bytes += static_cast<std::size_t>(n);
    }
    while (bytes < frames.size()) {
        ssize_t const n = ::send(fd, frames.data() + bytes, frames.size() - bytes, MSG_NOSIGNAL);
        if (n <= 0) break;
        bytes += static_cast<std::size_t>(n);
    }
    return bytes;
}

// Runs `measure(fd)`, the client or the server, against a peer in the other role.
template <class Measure>
void against_peer(benchmark::State& state, websocket::role peers_side, setting what, Measure measure) {
    socket_pair const sockets;
    std::size_t bytes = 0;
    std::thread peer([&] { bytes = serve_peer(sockets.peers, peers_side, what); });
    measure(sockets.own);  // which closes it: the peer ends then
    peer.join();
    state.counters["bytes/message"] = static_cast<double>(bytes) / static_cast<double>(warm_up + what.messages);
}

// All that a receiver gets has to be right.
void check(benchmark::State& state, std::vector<std::string> const& all, std::size_t i, std::string_view got) {
    if (got != all[i % all.size()]) state.SkipWithError("another message");
}

task<void> send(asio::io_context& io, int fd, benchmark::State& state, setting what) {
    auto opening = open(io, fd, websocket::role::client, what.options());
    stream ws = co_await std::move(opening);
    auto const all = samples(what.size);
    std::size_t i = 0;
    while (i < warm_up) co_await ws.write_message(message_kind::text, all[i++ % all.size()]);
    while (state.KeepRunning()) co_await ws.write_message(message_kind::text, all[i++ % all.size()]);
}

task<void> receive(asio::io_context& io, int fd, benchmark::State& state, setting what) {
    auto opening = open(io, fd, websocket::role::server, what.options());
    stream ws = co_await std::move(opening);
    auto const all = samples(what.size);
    std::size_t i = 0;
    while (i < warm_up) check(state, all, i++, (co_await ws.read_message()).data);
    while (state.KeepRunning()) {
        websocket::message got;
        if (!ws.try_read_message(got)) got = co_await ws.read_message();
        check(state, all, i++, got.data);
    }
}

template <task<void> (*Loop)(asio::io_context&, int, benchmark::State&, setting), websocket::role PeersSide>
void by_runnel(benchmark::State& state, setting what) {
    against_peer(state, PeersSide, what, [&](int fd) {
        asio::io_context io(1);
        run(io, Loop(io, fd, state, what));
    });
}

beast_task send(beast_stream& ws, benchmark::State& state, setting what) {
    auto const all = samples(what.size);
    std::size_t i = 0;
    auto const next = [&] { return boost::asio::buffer(all[i++ % all.size()]); };
    while (i < warm_up) co_await ws.async_write(next(), beast_awaits);
    while (state.KeepRunning()) co_await ws.async_write(next(), beast_awaits);
}

beast_task receive(beast_stream& ws, benchmark::State& state, setting what) {
    auto const all = samples(what.size);
    beast::flat_buffer buffer;
    std::size_t i = 0;
    auto const take = [&](std::size_t n) {
        check(state, all, i++, {static_cast<char const*>(buffer.data().data()), n});
        buffer.consume(n);
    };
    while (i < warm_up) take(co_await ws.async_read(buffer, beast_awaits));
    while (state.KeepRunning()) take(co_await ws.async_read(buffer, beast_awaits));
}

template <beast_task (*Loop)(beast_stream&, benchmark::State&, setting), websocket::role PeersSide>
void by_beast(benchmark::State& state, setting what) {
    against_peer(state, PeersSide, what, [&](int fd) {
        boost::asio::io_context io(1);
        auto ws = beast_over(io, fd);
        beast::websocket::permessage_deflate how;
        how.server_enable = how.client_enable = true;
        how.server_no_context_takeover = how.client_no_context_takeover = !what.takeover;
        how.compLevel = what.options().level;
        how.memLevel = what.options().memory_level;
        ws.set_option(how);
        PeersSide == websocket::role::server ? ws.handshake("127.0.0.1", "/") : ws.accept();
        ws.text(true);
        boost::asio::co_spawn(io, Loop(ws, state, what), rethrow);
        io.run();
    });
}

}  // namespace

int main(int argc, char** argv) {
    constexpr auto client = websocket::role::client, server = websocket::role::server;
    for (bool const takeover : {true, false})
        for (std::size_t const size : {200u, 1024u, 10240u}) {
            setting const what{size, takeover, 4'000'000 / size};
            auto const add = [&](std::string const& name, void (*function)(benchmark::State&, setting)) {
                std::string const whole = name + (takeover ? "/takeover_" : "/each_") + std::to_string(size);
                benchmark::RegisterBenchmark(whole.c_str(), function, what)
                    ->Iterations(static_cast<benchmark::IterationCount>(what.messages));
            };
            add("runnel/send", by_runnel<send, server>);
            add("Boost.Beast/send", by_beast<send, server>);
            add("runnel/receive", by_runnel<receive, client>);
            add("Boost.Beast/receive", by_beast<receive, client>);
        }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
