#include <runnel/transport/memory.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/detached.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include "support/sample.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// What a hostile peer can make a WebSocket hold, in either role, and how that ends: docs/hostile-peers.md.

namespace {

using namespace runnel::websocket;
using namespace std::chrono_literals;
using runnel::testing::memory_watch;
using memory = runnel::memory_stream<>;
using ws = stream<memory>;

constexpr std::size_t kib = 1024;
constexpr std::size_t mib = 1024 * kib;

// What the other end takes, and what is on its way: both are in this process.
constexpr std::size_t other_end = 512 * kib;

std::string frame(role side, opcode op, std::string_view payload, bool fin = true) {
    protocol sender({.side = side});
    runnel::send_buffer out;
    sender.append_frame(out, op, payload, fin);
    return std::string(out.view());
}

std::string repeated(std::string_view bytes, std::size_t about = 32 * kib) {
    std::string all;
    while (all.size() < about) all += bytes;
    return all;
}

// A WebSocket of ours in this role, a raw peer, and what ours reads.
struct fixture {
    explicit fixture(role side, stream_options options = {}) {
        auto [a, b] = memory::pair(io.get_executor());
        ours = std::make_unique<ws>(std::move(a), side, options);
        peer = std::make_unique<memory>(std::move(b));
    }
    void say(std::string bytes) { test::run(io, test::write_text(*peer, std::move(bytes))); }
    void settle() {
        io.restart();
        io.poll();
    }
    // Writes again and again, while the answers are taken.
    void flood(std::string_view chunk, std::size_t times) {
        if (!taking) taking.emplace(io, drop(*peer));
        for (std::size_t i = 0; i < times; ++i) say(std::string(chunk));
        settle();
    }
    static asio::awaitable<void> drop(memory& from) {
        char room[kib];
        for (;;) co_await from.read_some(asio::buffer(room));
    }

    asio::io_context io;
    std::optional<test::task<void>> taking;
    std::unique_ptr<ws> ours;
    std::unique_ptr<memory> peer;
};

asio::awaitable<std::size_t> message_size(ws& from) {
    auto const got = co_await from.read_message();
    co_return got.data.size();
}

asio::awaitable<void> drop_bytes(ws& from) {
    char room[kib];
    for (;;) co_await from.read_some(asio::buffer(room));
}

constexpr role both[] = {role::client, role::server};
role peer_of(role side) { return side == role::client ? role::server : role::client; }

// The header of a frame that announces `size` bytes.
std::string announced(role side, std::uint64_t size) {
    auto header = frame(side, opcode::binary, std::string(70'000, ' ')).substr(0, side == role::client ? 14 : 10);
    for (std::size_t i = 0; i < 8; ++i) header[2 + i] = static_cast<char>(size >> (56 - 8 * i));
    return header;
}

}  // namespace

TEST_CASE("a frame that is announced and never sent costs what has come, however large it may be") {
    for (auto const side : both) {
        for (bool const unlimited : {false, true}) {
            stream_options options;
            if (unlimited) options.max_message = 0;
            fixture p(side, options);
            auto const header = announced(peer_of(side), unlimited ? std::uint64_t{1} << 62 : 16 * mib);
            memory_watch const watch;
            test::task reading(p.io, message_size(*p.ours));
            p.say(header);
            p.settle();
            CHECK_FALSE(reading.done());
            CHECK(watch.peak() < 16 * kib);
            p.say(std::string(mib, 'x'));
            p.settle();
            CHECK(watch.peak() < other_end + 6 * mib);  // twice what has come, while it grows
            p.peer->cut();
            CHECK(reading.run_for_error() == asio::error::connection_reset);
        }
    }
}

TEST_CASE("a frame that is announced and too large ends the connection with 1009, before anything of it has come") {
    for (auto const side : both) {
        fixture p(side);
        auto const header = announced(peer_of(side), 256 * mib);
        memory_watch const watch;
        test::task reading(p.io, message_size(*p.ours));
        p.say(header);
        CHECK(reading.run_for_error() == errc::message_too_big);
        CHECK(watch.peak() < 16 * kib);
    }
}

TEST_CASE("frames that come a byte at a time cost no more than at once") {
    for (auto const side : both) {
        fixture p(side);
        memory_watch const watch;
        test::task reading(p.io, message_size(*p.ours));
        auto const all = frame(peer_of(side), opcode::binary, "x", false) + frame(peer_of(side), opcode::ping, "?") +
                         frame(peer_of(side), opcode::continuation, std::string(1000, 'y'));
        for (char const c : all) p.say(std::string(1, c));
        CHECK(reading.run() == 1001);
        CHECK(watch.peak() < 16 * kib);
    }
}

TEST_CASE("a million empty fragments of one message cost nothing, and one byte each what they carry") {
    for (auto const side : both) {
        for (std::string_view const payload : {"", "x"}) {
            fixture p(side);
            std::size_t const count = 1'000'000 / test::every(4);
            auto const one = frame(peer_of(side), opcode::continuation, payload, false);
            auto const chunk = repeated(one);
            memory_watch const watch;
            test::task reading(p.io, message_size(*p.ours));
            p.say(frame(peer_of(side), opcode::binary, payload, false));
            std::size_t const times = count * one.size() / chunk.size() + 1;
            p.flood(chunk, times);
            CHECK_FALSE(reading.done());
            CHECK(watch.peak() < other_end + (payload.empty() ? 0 : 4 * mib));
            p.say(frame(peer_of(side), opcode::continuation, ""));
            CHECK(reading.run() == payload.size() * (1 + times * (chunk.size() / one.size())));
        }
    }
}

TEST_CASE("a million pings, pongs and empty messages cost nothing, read as bytes or as messages") {
    for (auto const side : both) {
        for (auto const op : {opcode::ping, opcode::pong, opcode::binary}) {
            fixture p(side);
            auto const one = frame(peer_of(side), op, "");
            auto const chunk = repeated(one);
            memory_watch const watch;
            test::task reading(p.io, drop_bytes(*p.ours));
            p.flood(chunk, 1'000'000 / test::every(4) * one.size() / chunk.size());
            CHECK_FALSE(reading.done());
            CHECK(watch.peak() < other_end);
            p.peer->cut();
            CHECK(reading.run_for_error() == asio::error::connection_reset);
        }
    }
}

namespace {

// What a peer writes during a handshake until it ends, `piece` bytes in a turn; a byte in a millisecond.
asio::awaitable<void> write_pieces(memory& to, std::string_view first, std::string_view again, std::size_t piece) {
    runnel::send_buffer out;
    out.append(first);
    co_await to.write(out);
    for (std::size_t at = 0;; at = (at + piece) % again.size()) {
        out.append(again.substr(at, piece));
        co_await to.write(out);
        auto sleeping = runnel::sleep_for(to.get_executor(), piece == 1 ? 1ms : 0ms);
        co_await std::move(sleeping);
    }
}

struct opening_cost {
    std::error_code end;
    std::size_t peak;
};

opening_cost open_against(role side, std::string_view first, std::string_view again, std::size_t piece,
                          std::chrono::milliseconds timeout = 10'000ms) {
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    client_options asking;
    asking.host = "broker.example";
    asking.timeout = timeout;
    server_options offering;
    offering.timeout = timeout;
    memory_watch const watch;
    auto opening = side == role::client ? ws::handshake(std::move(a), asking) : ws::accept(std::move(a), offering);
    test::task ours(io, std::move(opening));
    test::task writing(io, write_pieces(b, first, again, piece));
    auto const end = ours.run_for_error();
    return {end, watch.peak()};
}

}  // namespace

TEST_CASE("floods of headers, of one header and of nothing end an opening handshake at its limits") {
    std::string const line = "GET / HTTP/1.1\r\n", status = "HTTP/1.1 101 Switching Protocols\r\n";
    for (auto const side : both) {
        auto const& first = side == role::client ? status : line;
        for (auto const& again : {repeated("X: y\r\n"), repeated("xxxxxxx"), "X: " + repeated("a") + "\r\n"}) {
            auto const cost = open_against(side, first, again, again.size());
            CHECK(cost.end == errc::head_too_long);
            CHECK(cost.peak < other_end);
        }
        auto const many = first + repeated("X: y\r\n", 600) + "X: y\r\n\r\n";
        CHECK(open_against(side, many, "x", 1).end == errc::too_many_headers);
    }
}

TEST_CASE("a handshake that comes a byte at a time ends with its time") {
    for (auto const side : both) {
        auto const cost = open_against(side, "", repeated("HTTP/1.1 101 GET / X", 8 * kib), 1, 50ms);
        CHECK(cost.end == errc::handshake_timeout);
        CHECK(cost.peak < 64 * kib);
    }
}

namespace {

asio::awaitable<void> accept_late(memory from, server_options options, std::size_t& ended, std::size_t& late) {
    auto accepting = ws::accept(std::move(from), std::move(options));
    try {
        co_await std::move(accepting);
    } catch (std::system_error const& e) {
        late += e.code() == errc::handshake_timeout;
    }
    ++ended;
}

}  // namespace

TEST_CASE("thousands of half-open handshakes cost a server 16 KiB each, and end with their time") {
    asio::io_context io;
    std::size_t const count = 10'000 / test::every(4);
    std::vector<memory> peers;
    std::size_t ended = 0, late = 0;
    memory_watch const watch;
    peers.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        auto [a, b] = memory::pair(io.get_executor());
        server_options options;
        options.timeout = 100ms;
        asio::co_spawn(io, accept_late(std::move(a), options, ended, late), asio::detached);
        peers.push_back(std::move(b));
        std::string const begun = i % 2 == 0 ? "" : "GET / HTTP/1.1\r\nHost:";
        asio::co_spawn(io, test::write_text(peers.back(), begun), asio::detached);
    }
    io.run();
    CHECK(ended == count);
    CHECK(late == count);
    CHECK(watch.peak() < count * 16 * kib);
    peers.clear();
    CHECK(watch.held() < 64 * kib + count * (sizeof(memory) + 40));
}
