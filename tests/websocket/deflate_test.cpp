#include <runnel/transport/memory.hpp>
#include <runnel/websocket/deflate.hpp>
#include <runnel/websocket/stream.hpp>

#include <doctest/doctest.h>
#ifdef __linux__
#include <dlfcn.h>
#endif

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

using namespace runnel::websocket;
using namespace std::string_literals;

namespace {

using memory = runnel::memory_stream<>;
using ws = stream<memory, permessage_deflate>;
static_assert(runnel::stream<ws>);

std::string const plain_reply = "permessage-deflate";

errc inflate(permessage_deflate& end, std::string const& data, std::string& out,
             message_kind kind = message_kind::binary) {
    errc const e = end.inflate(data, kind, true);
    out = end.inflated();
    return e;
}

std::vector<std::string> samples() {
    return {"", "a", "Hello", "Hello", std::string(100'000, 'z'), test::noise(70'000), "", "", test::noise(70'000)};
}

struct connected {
    explicit connected(deflate_options wanted, stream_options server_side = {}, deflate_options servers = {}) {
        auto [a, b] = memory::pair(io.get_executor());
        client_options asked;
        asked.host = "h";
        server_options offered;
        offered.stream = server_side;
        test::task opening(io, ws::handshake(std::move(a), asked, wanted));
        auto const judge = [](server_request const&) { return 101; };
        test::task accepting(io, ws::accept(std::move(b), offered, judge, servers));
        client = std::make_unique<ws>(opening.run());
        server = std::make_unique<ws>(accepting.run());
    }
    asio::io_context io;
    std::unique_ptr<ws> client;
    std::unique_ptr<ws> server;
};

asio::awaitable<std::string> next_text(ws& end) {
    message const got = co_await end.read_message();
    co_return (got.kind == message_kind::text ? "text: " : "binary: ") + std::string(got.data);
}

}  // namespace

TEST_CASE("the compressed messages of RFC 7692 7.2.3 are inflated") {
    permessage_deflate end;
    REQUIRE(end.settle(role::client, plain_reply, {}, 0) == errc::ok);
    std::string out;
    CHECK(inflate(end, "\xf2\x48\xcd\xc9\xc9\x07\x00"s, out) == errc::ok);
    CHECK(out == "Hello");
    CHECK(inflate(end, "\xf2\x00\x11\x00\x00"s, out) == errc::ok);  // refers to the message before
    CHECK(out == "Hello");
    CHECK(inflate(end, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"s, out) == errc::ok);  // a stored block
    CHECK(out == "Hello");
    CHECK(inflate(end, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"s, out) == errc::ok);  // marked as the last block
    CHECK(out == "Hello");
    CHECK(inflate(end, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"s, out) == errc::ok);  // two blocks
    CHECK(out == "Hello");
    CHECK(inflate(end, "\x00"s, out) == errc::ok);
    CHECK(out == "");
}

TEST_CASE("what one side compresses the other inflates, with every window and with or without context") {
    for (int bits = 8; bits <= 15; ++bits) {
        for (bool forget : {false, true}) {
            deflate_options const wanted{.client_window_bits = bits,
                                         .server_window_bits = bits,
                                         .client_no_context_takeover = forget,
                                         .server_no_context_takeover = forget};
            std::string reply = "permessage-deflate; client_max_window_bits=" + std::to_string(bits) +
                                "; server_max_window_bits=" + std::to_string(bits);
            if (forget) reply += "; client_no_context_takeover; server_no_context_takeover";
            permessage_deflate client;
            permessage_deflate server;
            REQUIRE(client.settle(role::client, reply, wanted, 0) == errc::ok);
            REQUIRE(server.settle(role::server, reply, wanted, 0) == errc::ok);
            for (std::string const& text : samples()) {
                std::string out;
                CHECK(inflate(server, std::string(client.deflate(text)), out) == errc::ok);
                CHECK(out == text);
                CHECK(inflate(client, std::string(server.deflate(text)), out) == errc::ok);
                CHECK(out == text);
            }
        }
    }
}

TEST_CASE("context makes repeated messages small; without it each one stands alone") {
    permessage_deflate with;
    permessage_deflate without;
    REQUIRE(with.settle(role::server, plain_reply, {}, 0) == errc::ok);
    REQUIRE(without.settle(role::server, "permessage-deflate; server_no_context_takeover", {}, 0) == errc::ok);
    std::string const text = test::noise(1000);
    std::size_t const first = with.deflate(text).size();
    CHECK(with.deflate(text).size() < first / 10);
    std::string const alone(without.deflate(text));
    CHECK(without.deflate(text) == alone);
}

TEST_CASE("a message that inflates beyond the limit is refused when it does, not when memory is full") {
    permessage_deflate sender;
    permessage_deflate receiver;
    REQUIRE(sender.settle(role::client, plain_reply, {}, 0) == errc::ok);
    REQUIRE(receiver.settle(role::server, plain_reply, {}, 1'000'000) == errc::ok);
    std::string out;
    CHECK(inflate(receiver, std::string(sender.deflate(std::string(1'000'000, '\0'))), out) == errc::ok);
    CHECK(out.size() == 1'000'000);
    std::string const bomb(sender.deflate(std::string(50'000'000, '\0')));
    CHECK(bomb.size() < 100'000);
    std::string_view rest = bomb;
    runnel::testing::memory_watch const watch;
    errc end = errc::ok;
    for (; end == errc::ok && !rest.empty(); rest.remove_prefix(std::min<std::size_t>(rest.size(), 100)))
        end = receiver.inflate(rest.substr(0, 100), message_kind::binary, false);
    CHECK(end == errc::message_too_big);
    CHECK(watch.peak() < 2'200'000);  // what was inflated, and twice as much while it grows
}

TEST_CASE("data that is not deflated is refused, and so is text that is not UTF-8") {
    permessage_deflate end;
    REQUIRE(end.settle(role::client, plain_reply, {}, 0) == errc::ok);
    std::string out;
    CHECK(inflate(end, "\xFF\xFF\xFF"s, out) == errc::invalid_compressed_data);
    permessage_deflate other;
    permessage_deflate sender;
    REQUIRE(other.settle(role::client, plain_reply, {}, 0) == errc::ok);
    REQUIRE(sender.settle(role::server, plain_reply, {}, 0) == errc::ok);
    CHECK(inflate(other, std::string(sender.deflate("\xCE\xBA")), out, message_kind::text) == errc::ok);
    CHECK(inflate(other, std::string(sender.deflate("\xCE")), out, message_kind::text) == errc::invalid_utf8);
}

TEST_CASE("a compressed message may be cut anywhere, and its pieces be empty") {
    permessage_deflate sender;
    permessage_deflate receiver;
    REQUIRE(sender.settle(role::client, plain_reply, {}, 0) == errc::ok);
    REQUIRE(receiver.settle(role::server, plain_reply, {}, 0) == errc::ok);
    for (std::size_t const step : {1u, 2u, 7u, 100u}) {
        for (std::string const& text : samples()) {
            std::string const compressed(sender.deflate(text));
            REQUIRE(receiver.inflate({}, message_kind::binary, false) == errc::ok);
            for (std::size_t at = 0; at < compressed.size(); at += step)
                REQUIRE(receiver.inflate(compressed.substr(at, step), message_kind::binary, false) == errc::ok);
            REQUIRE(receiver.inflate({}, message_kind::binary, true) == errc::ok);
            CHECK((receiver.inflated() == text));
        }
    }
}

TEST_CASE("faults inside a compressed message are found when they come, not at its end") {
    auto const fault_at = [](std::string const& text, std::uint64_t limit) {
        permessage_deflate sender;
        permessage_deflate receiver;
        REQUIRE(sender.settle(role::client, plain_reply, {.level = 1}, 0) == errc::ok);
        REQUIRE(receiver.settle(role::server, plain_reply, {}, limit) == errc::ok);
        std::string const compressed(sender.deflate(text));
        std::size_t at = 0;
        errc e = errc::ok;
        for (; at < compressed.size() && e == errc::ok; ++at)
            e = receiver.inflate(compressed.substr(at, 1), message_kind::text, false);
        return std::pair(e, at * 100 / compressed.size());  // what was found after how many per cent
    };
    std::string const noise = test::noise(50'000);
    std::string text;
    for (char c : noise) text += static_cast<char>('0' + (static_cast<unsigned char>(c) & 63));
    CHECK(fault_at(text, 0).first == errc::ok);
    auto const [not_text, where] = fault_at(text + "\xED\xA0\x80" + text + text, 0);
    CHECK(not_text == errc::invalid_utf8);
    CHECK(where < 80);
    auto const [too_big, there] = fault_at(text + text, 50'000);
    CHECK(too_big == errc::message_too_big);
    CHECK(there < 95);
}

TEST_CASE("a compressed text that is not UTF-8 ends the connection with code 1007 before the rest of it has come") {
    connected c({});
    protocol const raw({.side = role::client});
    runnel::send_buffer out;
    // A stored block (RFC 1951 3.2.4) with the first half of a surrogate, in a message that goes on.
    raw.append_frame(out, opcode::text, "\x00\x03\x00\xFC\xFF\xED\xA0\x80"s, false, true);
    test::run(c.io, c.client->next_layer().write(out));
    CHECK(test::error_of(c.io, next_text(*c.server)) == errc::invalid_utf8);
    CHECK(test::error_of(c.io, next_text(*c.client)) == errc::closed_by_peer);
    CHECK(c.client->received_code() == close_code::invalid_payload);
}

TEST_CASE("random bytes are inflated to something or refused, and never more than allowed") {
    for (unsigned seed = 0; seed < 3000; ++seed) {
        permessage_deflate end;
        REQUIRE(end.settle(role::client, plain_reply, {}, 5000) == errc::ok);
        std::string out;
        std::string const data = test::noise(1 + seed % 60, seed);
        if (inflate(end, data, out) == errc::ok) CHECK(out.size() <= 5000);
    }
}

TEST_CASE("compressed messages cross a WebSocket, as messages and as bytes, and are smaller on the wire") {
    for (bool forget : {false, true}) {
        connected c({.client_no_context_takeover = forget, .server_no_context_takeover = forget});
        CHECK(c.client->compressed());
        CHECK(c.server->compressed());
        std::string text;
        for (int i = 0; i < 5000; ++i) text += "the same words again and again ";
        std::size_t const before = c.client->next_layer().outgoing().bytes;
        test::task writing(c.io, c.client->write_message(message_kind::text, text));
        CHECK(test::run(c.io, next_text(*c.server)) == "text: " + text);
        CHECK_FALSE(writing.run_for_error());
        CHECK(c.client->next_layer().outgoing().bytes - before < text.size() / 20);
        test::task answering(c.io, test::write_text(*c.server, text));
        CHECK(test::run(c.io, test::read_exactly(*c.client, text.size(), 1000)) == text);
        CHECK_FALSE(answering.run_for_error());
        runnel::send_buffer packed;
        c.server->pack(packed, message_kind::text, "one");
        c.server->pack(packed, message_kind::text, "two");
        test::run(c.io, c.server->write_packed(packed));
        CHECK(test::run(c.io, next_text(*c.client)) == "text: one");
        CHECK(test::run(c.io, next_text(*c.client)) == "text: two");
    }
}

TEST_CASE("whatever windows and context client and server want, they agree and understand each other") {
    std::string words;
    for (int i = 0; i < 300; ++i) words += "word " + std::to_string(i % 70) + ' ';
    std::string const noise = test::noise(3000);
    auto const wanting = [](unsigned bits) {
        return deflate_options{.client_window_bits = (bits & 1) != 0 ? 15 : 9,
                               .server_window_bits = (bits & 2) != 0 ? 15 : 8,
                               .client_no_context_takeover = (bits & 4) != 0,
                               .server_no_context_takeover = (bits & 8) != 0};
    };
    for (unsigned clients = 0; clients < 16; ++clients) {
        for (unsigned servers = 0; servers < 16; ++servers) {
            connected c(wanting(clients), {.fragment_size = 100}, wanting(servers));
            REQUIRE(c.client->compressed());
            for (std::string const& text : {words, noise, words}) {
                test::task asking(c.io, c.client->write_message(message_kind::binary, text));
                CHECK((test::run(c.io, next_text(*c.server)) == "binary: " + text));
                CHECK_FALSE(asking.run_for_error());
                test::task answering(c.io, c.server->write_message(message_kind::binary, text));
                CHECK((test::run(c.io, next_text(*c.client)) == "binary: " + text));
                CHECK_FALSE(answering.run_for_error());
            }
        }
    }
}

TEST_CASE("a compressed message beyond the limit ends the connection with code 1009") {
    connected c({}, {.max_message = 10'000});
    test::task writing(c.io, c.client->write_message(message_kind::binary, std::string_view("x")));
    CHECK(test::run(c.io, next_text(*c.server)) == "binary: x");
    std::string const zeros(10'001, '\0');
    test::task more(c.io, c.client->write_message(message_kind::binary, zeros));
    CHECK(test::error_of(c.io, next_text(*c.server)) == errc::message_too_big);
    CHECK(test::error_of(c.io, next_text(*c.client)) == errc::closed_by_peer);
    CHECK(c.client->received_code() == close_code::message_too_big);
}

TEST_CASE("without agreement nothing is compressed") {
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    client_options asked;
    asked.host = "h";
    server_options offered;
    test::task opening(io, ws::handshake(std::move(a), asked));
    test::task accepting(io, stream<memory>::accept(std::move(b), offered));
    ws client = opening.run();
    stream<memory> server = accepting.run();
    CHECK_FALSE(client.compressed());
    test::task writing(io, client.write_message(message_kind::text, "plain"));
    message const got = test::run(io, server.read_message());
    CHECK(got.data == "plain");
    CHECK_FALSE(writing.run_for_error());
}

TEST_CASE("limits at their maximum are none") {
    permessage_deflate client;
    permessage_deflate server;
    REQUIRE(client.settle(role::client, plain_reply, {}, 0) == errc::ok);
    REQUIRE(server.settle(role::server, plain_reply, {}, std::numeric_limits<std::uint64_t>::max()) == errc::ok);
    std::string out;
    for (std::string const& text : samples()) {
        CHECK(inflate(server, std::string(client.deflate(text)), out) == errc::ok);
        CHECK(out == text);
    }
    CHECK(server.inflate("", message_kind::binary, false) == errc::ok);
}

TEST_CASE("a message for which there is no memory is not compressed, and the next ones are understood") {
    permessage_deflate client;
    permessage_deflate server;
    REQUIRE(client.settle(role::client, plain_reply, {}, 0) == errc::ok);
    REQUIRE(server.settle(role::server, plain_reply, {}, 0) == errc::ok);
    std::string out;
    int failures = 0;
    for (int i = 0; i < 20; ++i) {
        std::string const text = "the same text again and again " + test::noise(30'000);
        std::string_view data;
        try {
            runnel::testing::failing_allocation const failing(static_cast<std::size_t>(1 + i % 4));
            data = client.deflate(text);
        } catch (std::bad_alloc const&) {
            ++failures;
        }
        if (!data.empty()) {
            CHECK(inflate(server, std::string(data), out) == errc::ok);
            CHECK(out == text);
        }
        CHECK(inflate(server, std::string(client.deflate("the same text again")), out) == errc::ok);
        CHECK(out == "the same text again");
    }
    CHECK(failures > 0);
}

TEST_CASE("a message of the peer's for which there is no memory ends the connection as too big") {
    bool has_failed = false;
    for (std::size_t nth = 1; nth < 40; ++nth) {
        connected c({});
        test::run(c.io, c.client->write_message(message_kind::binary, std::string(50'000, 'z')));
        test::task reading(
            c.io, [](ws& end) -> asio::awaitable<void> { static_cast<void>(co_await end.read_message()); }(*c.server));
        {
            runnel::testing::failing_allocation const failing(nth);
            try {
                c.io.restart();
                c.io.poll();
            } catch (std::bad_alloc const&) {
            }
        }
        if (reading.done() && reading.error_text() == describe(errc::message_too_big)) has_failed = true;
    }
    CHECK(has_failed);
}

#ifdef __linux__
namespace {
bool inflate_fails = false;
}

// In the place of zlib's, which takes memory of its own by malloc.
extern "C" int inflate(z_streamp stream, int flush) {
    static auto const zlibs = reinterpret_cast<int (*)(z_streamp, int)>(::dlsym(RTLD_NEXT, "inflate"));
    return inflate_fails ? Z_MEM_ERROR : zlibs(stream, flush);
}

TEST_CASE("a message of the peer's for which zlib has no memory is not taken for a wrong one") {
    permessage_deflate client;
    permessage_deflate server;
    REQUIRE(client.settle(role::client, plain_reply, {}, 0) == errc::ok);
    REQUIRE(server.settle(role::server, plain_reply, {}, 0) == errc::ok);
    std::string const data(client.deflate("text"));
    inflate_fails = true;
    CHECK_THROWS_AS(server.inflate(data, message_kind::binary, true), std::bad_alloc);
    inflate_fails = false;
    std::string out;
    CHECK(inflate(server, data, out) == errc::ok);
    CHECK(out == "text");
}
#endif

TEST_CASE("what is not compressed is handed on as it comes, though compression is agreed on") {
    connected c({}, {.max_message = 0});
    REQUIRE(c.server->compressed());
    std::string const chunk(500'000, 'x');
    protocol peer({.side = role::client});
    std::size_t delivered = 0;
    test::task reading(c.io, [](ws& end, std::size_t& n) -> asio::awaitable<void> {
        std::string room(65536, ' ');
        for (;;) n += co_await end.read_some(asio::buffer(room));
    }(*c.server, delivered));
    for (int i = 0; i < 50; ++i) {  // one message without end
        runnel::send_buffer out;
        peer.append_frame(out, i == 0 ? opcode::binary : opcode::continuation, chunk, false);
        if (i == 20) peer.append_frame(out, opcode::ping, "still there?");
        test::run(c.io, c.client->next_layer().write(out));
        c.io.restart();
        c.io.poll();
        REQUIRE(delivered == chunk.size() * static_cast<std::size_t>(i + 1));
    }
    // Compressed and other messages may take turns.
    runnel::send_buffer out;
    peer.append_frame(out, opcode::continuation, "end", true);
    test::run(c.io, c.client->next_layer().write(out));
    test::run(c.io, c.client->write_message(message_kind::binary, std::string(100'000, 'z')));
    c.io.restart();
    c.io.poll();
    CHECK(delivered == 50 * chunk.size() + 3 + 100'000);
}

TEST_CASE("bytes and whole messages may be read in turns, of compressed messages and of others") {
    connected c({});
    protocol peer({.side = role::client});
    auto const send = [&](std::string_view text, bool fin) {
        runnel::send_buffer out;
        peer.append_frame(out, opcode::binary, text, fin);
        test::run(c.io, c.client->next_layer().write(out));
    };
    auto const bytes = [&](std::size_t n) {
        std::string room(n, ' ');
        room.resize(test::run(c.io, c.server->read_some(asio::buffer(room))));
        return room;
    };
    auto const whole = [&] {
        return test::run(c.io, [](ws& end) -> asio::awaitable<std::string> {
            message const got = co_await end.read_message();
            co_return std::string(got.data);
        }(*c.server));
    };
    send("first", true);
    test::run(c.io, c.client->write_message(message_kind::binary, "second"));
    send("third", true);
    send("fourth", true);
    CHECK(bytes(3) == "fir");
    CHECK(bytes(10) == "st");
    CHECK(bytes(4) == "seco");
    CHECK(whole() == "third");  // what was left of the one before is dropped
    CHECK(bytes(100) == "fourth");
}

TEST_CASE("options of permessage-deflate at the ends of their ranges work, and beyond are refused with the range") {
    auto const refusal = [](auto change) {
        deflate_options wanted;
        change(wanted);
        asio::io_context io;
        auto [a, b] = memory::pair(io.get_executor());
        client_options asked;
        asked.host = "h";
        test::task opening(io, ws::handshake(std::move(a), asked, wanted));
        io.poll();
        return opening.error_text();
    };
    constexpr int most = std::numeric_limits<int>::max();
    constexpr int least = std::numeric_limits<int>::min();
    for (int const wrong : {least, 0, 10, most}) {
        CHECK(refusal([&](auto& o) { o.level = wrong; }) == "level of permessage-deflate must be 1 to 9");
        CHECK(refusal([&](auto& o) { o.memory_level = wrong; }) == "memory_level of permessage-deflate must be 1 to 9");
    }
    for (int const wrong : {least, 7, 16, most}) {
        CHECK(refusal([&](auto& o) { o.client_window_bits = wrong; }).find("must be 8 to 15") != std::string::npos);
        CHECK(refusal([&](auto& o) { o.server_window_bits = wrong; }).find("must be 8 to 15") != std::string::npos);
    }
    CHECK(refusal([](auto& o) { o.max_inflated = 0; }).find("must be 1 or more") != std::string::npos);
    for (int const level : {1, 9})
        for (int const bits : {8, 15}) {
            deflate_options const wanted{.level = level,
                                         .memory_level = level,
                                         .client_window_bits = bits,
                                         .server_window_bits = bits,
                                         .max_inflated = std::numeric_limits<std::uint64_t>::max()};
            connected c(wanted, {.max_message = std::numeric_limits<std::uint64_t>::max(),
                                 .max_frame = std::numeric_limits<std::uint64_t>::max(),
                                 .fragment_size = std::numeric_limits<std::size_t>::max(),
                                 .close_timeout = std::chrono::milliseconds::max()});
            test::run(c.io, c.client->write_message(message_kind::binary, "hello"));
            std::string room(100, ' ');
            CHECK(test::run(c.io, c.server->read_some(asio::buffer(room))) == 5);
            test::task closing(c.io, c.server->shutdown());
            CHECK(test::error_of(c.io, c.client->read_some(asio::buffer(room))) == asio::error::eof);
            test::run(c.io, c.client->shutdown());
            closing.run();
        }
}

TEST_CASE("what refers to the message before is refused where the peer has agreed to refer to none") {
    permessage_deflate sender;
    permessage_deflate receiver;
    REQUIRE(sender.settle(role::client, plain_reply, {}, 0) == errc::ok);
    REQUIRE(receiver.settle(role::server, "permessage-deflate; client_no_context_takeover", {}, 0) == errc::ok);
    std::string const text = test::noise(1000);
    std::string out;
    CHECK(inflate(receiver, std::string(sender.deflate(text)), out) == errc::ok);
    CHECK(out == text);
    std::string const again(sender.deflate(text));
    REQUIRE(again.size() < text.size() / 2);
    CHECK(inflate(receiver, again, out) == errc::invalid_compressed_data);
}
