// WebSocket beside Boost.Beast: masking in place, beside memcpy (which touches twice the memory) too; and frames per
// second of the measured side's CPU over loopback, sent by a client (which masks) and received by a server (which
// unmasks). The peer is a thread that drops or sends prepared bytes and whose CPU does not count. Both libraries use
// coroutines on a single-threaded io_context. Ratios, of the medians, come last.

#include <runnel/transport/asio_stream.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <benchmark/benchmark.h>

#include "support/allocation_count.hpp"
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <cstdio>
#include <cstring>
#include <map>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

namespace websocket = runnel::websocket;
namespace beast = boost::beast;
using websocket::message_kind;

constexpr int warm_up = 1000;  // frames before the first that counts
constexpr int pack = 64;       // frames in one write, where that is measured

// Calls `mask(to, from, size)` on one payload after the other, 16 in turn: on the same one again and again, each call
// would wait for the stores of the one before.
template <class Mask>
void over_bytes(benchmark::State& state, Mask mask) {
    auto const size = static_cast<std::size_t>(state.range(0));
    std::string from(16 * size, 'x'), to(16 * size, 'x');
    for (std::size_t at = 0; auto _ : state) {
        mask(to.data() + at, from.data() + at, size);
        benchmark::ClobberMemory();
        at = at == 15 * size ? 0 : at + size;
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

void mask_runnel(benchmark::State& state) {
    over_bytes(state, [](char* to, char*, std::size_t size) { websocket::apply_mask(to, size, 0x12345678); });
}
void mask_beast(benchmark::State& state) {
    over_bytes(state, [](char* to, char*, std::size_t size) {
        beast::websocket::detail::prepared_key key;
        beast::websocket::detail::prepare_key(key, 0x12345678);
        beast::websocket::detail::mask_inplace(boost::asio::mutable_buffer(to, size), key);
    });
}
void mask_memcpy(benchmark::State& state) {
    over_bytes(state, [](char* to, char* from, std::size_t size) { std::memcpy(to, from, size); });
}

// Two connected sockets on loopback.
struct socket_pair {
    int own = -1, peers = -1;

    socket_pair() {
        int const listener = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof(address);
        auto* const a = reinterpret_cast<sockaddr*>(&address);
        own = ::socket(AF_INET, SOCK_STREAM, 0);
        bool const connected = ::bind(listener, a, size) == 0 && ::listen(listener, 1) == 0 &&
                               ::getsockname(listener, a, &size) == 0 && ::connect(own, a, size) == 0;
        peers = connected ? ::accept(listener, nullptr, nullptr) : -1;
        ::close(listener);
        if (peers < 0) throw std::system_error(errno, std::generic_category(), "loopback");
        int const on = 1;
        for (int const s : {own, peers}) ::setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
};

using executor = asio::io_context::executor_type;
using socket_type = asio::basic_stream_socket<asio::ip::tcp, executor>;
using stream = websocket::stream<runnel::asio_stream<socket_type>>;
template <class T>
using task = asio::awaitable<T, executor>;

void rethrow(std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
}

void run(asio::io_context& io, task<void> coroutine) {
    asio::co_spawn(io, std::move(coroutine), rethrow);
    io.run();
}

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
    websocket::connection const protocol({.side = side});
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

using beast_executor = boost::asio::io_context::executor_type;
using beast_stream = beast::websocket::stream<boost::asio::basic_stream_socket<boost::asio::ip::tcp, beast_executor>>;
using beast_task = boost::asio::awaitable<void, beast_executor>;
constexpr boost::asio::use_awaitable_t<beast_executor> beast_awaits;

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
        beast_stream ws(
            boost::asio::basic_stream_socket<boost::asio::ip::tcp, beast_executor>(io, boost::asio::ip::tcp::v4(), fd));
        PeersSide == websocket::role::server ? ws.handshake("127.0.0.1", "/") : ws.accept();
        ws.binary(true);
        boost::asio::co_spawn(io, Loop(ws, state), rethrow);
        io.run();
    });
}

// Shows what the console shows, and keeps the medians of the rates.
class rates : public benchmark::ConsoleReporter {
  public:
    void ReportRuns(std::vector<Run> const& runs) override {
        for (auto const& r : runs)
            for (auto const& [kind, value] : r.counters)
                if (r.aggregate_name == "median" && kind.ends_with("_per_second"))
                    of_[r.run_name.function_name + "/" + r.run_name.args] = value;
        ConsoleReporter::ReportRuns(runs);
    }

    // One line: what is measured, its rate, and how often it holds the other's. Nothing where one was not measured.
    void print_ratio(std::string const& name, std::string const& other, char const* argument, double scale,
                     char const* unit) {
        double const a = of_[name + "/" + argument], b = of_[other + "/" + argument];
        if (a == 0 || b == 0) return;
        std::printf("%-20s %6s bytes: %8.3f %s = %5.2f x %s\n", name.c_str(), argument, a / scale, unit, a / b,
                    other.c_str());
    }

  private:
    std::map<std::string, double> of_;
};

}  // namespace

int main(int argc, char** argv) {
    constexpr auto client = websocket::role::client, server = websocket::role::server;
    auto const add = [](char const* name, void (*function)(benchmark::State&), std::vector<std::int64_t> const& sizes) {
        for (auto const size : sizes)
            benchmark::RegisterBenchmark(name, function)->Arg(size)->Repetitions(3)->DisplayAggregatesOnly();
    };
    add("mask runnel", mask_runnel, {64, 1024, 65536});
    add("mask beast", mask_beast, {64, 1024, 65536});
    add("mask memcpy", mask_memcpy, {64, 1024, 65536});
    add("send runnel", by_runnel<send_each, server>, {64, 1024});
    add("send runnel packed", by_runnel<send_packed, server>, {64, 1024});
    add("send beast", by_beast<send_each, server>, {64, 1024});
    add("receive runnel", by_runnel<receive, client>, {64, 1024});
    add("receive beast", by_beast<receive, client>, {64, 1024});
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    rates reporter;
    benchmark::RunSpecifiedBenchmarks(&reporter);
    for (char const* const size : {"64", "1024", "65536"}) {
        reporter.print_ratio("mask runnel", "mask beast", size, 1e9, "GB/s");
        reporter.print_ratio("mask runnel", "mask memcpy", size, 1e9, "GB/s");
        reporter.print_ratio("send runnel", "send beast", size, 1e6, "M frames/CPU-s");
        reporter.print_ratio("send runnel packed", "send beast", size, 1e6, "M frames/CPU-s");
        reporter.print_ratio("receive runnel", "receive beast", size, 1e6, "M frames/CPU-s");
    }
}
