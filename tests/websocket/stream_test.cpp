#include <runnel/transport/memory.hpp>
#include <runnel/websocket/stream.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/run.hpp"
#include "support/sample.hpp"
#include "support/streams.hpp"
#include <memory>
#include <optional>
#include <string>
#include <vector>

using namespace runnel::websocket;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

using memory = runnel::memory_stream<>;
using ws = stream<memory>;
using runnel::send_buffer;

static_assert(runnel::stream<ws>);
static_assert(runnel::stream<stream<ws>>);  // it can be stacked on any stream, itself included
static_assert(ws::headroom == max_frame_header);
static_assert(std::is_trivially_destructible_v<stream_options>);

// Client and server connected with each other.
struct connected {
    explicit connected(stream_options client_side = {}, stream_options server_side = {}) {
        auto [a, b] = memory::pair(io.get_executor());
        client_options asked;
        asked.host = "broker.example";
        asked.path = "/mqtt?x=1";
        asked.subprotocol = "mqtt";
        asked.stream = client_side;
        server_options offered;
        offered.subprotocols = "mqtt";
        offered.stream = server_side;
        test::task opening(io, ws::handshake(std::move(a), asked));
        test::task accepting(io, ws::accept(std::move(b), offered));
        client = std::make_unique<ws>(opening.run());
        server = std::make_unique<ws>(accepting.run());
    }

    asio::io_context io;
    std::optional<test::task<void>> background;  // outlives the streams, as what it runs uses its cancellation slot
    std::unique_ptr<ws> client;
    std::unique_ptr<ws> server;
};

// A WebSocket of ours and a peer that writes and reads raw bytes.
struct with_raw_peer {
    explicit with_raw_peer(role side, stream_options options = {}) {
        auto [a, b] = memory::pair(io.get_executor());
        ours = std::make_unique<ws>(std::move(a), side, options);
        peer = std::make_unique<memory>(std::move(b));
    }

    asio::io_context io;
    std::optional<test::task<void>> background;  // outlives the streams, as what it runs uses its cancellation slot
    std::unique_ptr<ws> ours;
    std::unique_ptr<memory> peer;
};

std::string frame(role side, opcode op, std::string_view payload, bool fin = true) {
    protocol sender({.side = side});
    send_buffer out;
    sender.append_frame(out, op, payload, fin);
    return std::string(out.view());
}

std::string close_frame(role side, unsigned code) {
    return frame(side, opcode::close, std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)});
}

asio::awaitable<std::string> next_text(ws& end) {
    message const got = co_await end.read_message();
    co_return (got.kind == message_kind::text ? "text: " : "binary: ") + std::string(got.data);
}

asio::awaitable<void> echo(ws& end) {
    for (;;) {
        message const got = co_await end.read_message();
        co_await end.write_message(got.kind, got.data);
    }
}

// The head of a request or a reply.
template <class S>
asio::awaitable<std::string> read_head(S& peer) {
    std::string head;
    while (!head.ends_with("\r\n\r\n")) {
        char c = 0;
        co_await peer.read_some(asio::buffer(&c, 1));
        head += c;
    }
    co_return head;
}

asio::awaitable<void> read_some_into(ws& end, std::string& room) { co_await end.read_some(asio::buffer(room)); }

}  // namespace

TEST_CASE("client and server agree on subprotocol and target") {
    // Shows [MQTT-6.0.0-3] [MQTT-6.0.0-4] [MQTT-6.0.0-3 of 3.1.1] [MQTT-6.0.0-4 of 3.1.1].
    connected c;
    CHECK(c.client->subprotocol() == "mqtt");
    CHECK(c.server->subprotocol() == "mqtt");
    CHECK(c.client->target() == "/mqtt?x=1");
    CHECK(c.server->target() == "/mqtt?x=1");
    CHECK_FALSE(c.client->compressed());
}

TEST_CASE("bytes cross in both directions, whatever the size of the reads above and below") {
    std::string const bytes = test::noise(150'000 / test::every(3));
    for (std::size_t below : {std::size_t{1}, std::size_t{7}, runnel::memory_flow::unlimited}) {
        for (std::size_t block : {std::size_t{1}, std::size_t{5}, std::size_t{64 * 1024}}) {
            if (below * block == 1) continue;  // slow, and 1 by 7 and 7 by 1 are there
            connected c;
            c.client->next_layer().outgoing().max_read = below;
            c.client->next_layer().incoming().max_read = below;
            for (ws* from : {c.client.get(), c.server.get()}) {
                ws* const to = from == c.client.get() ? c.server.get() : c.client.get();
                test::task writing(c.io, test::write_text(*from, bytes));
                CHECK(test::run(c.io, test::read_exactly(*to, bytes.size(), block)) == bytes);
                CHECK_FALSE(writing.run_for_error());
            }
        }
    }
}

TEST_CASE("what is written leaves in one write below, with its header in the headroom") {
    connected c;
    for (std::size_t size : {1u, 125u, 126u, 65535u}) {
        send_buffer out(ws::headroom);
        out.append(std::string(size, 'x'));
        std::size_t const capacity = out.capacity();
        std::size_t const before = c.client->next_layer().outgoing().writes;
        test::task writing(c.io, c.client->write(out));
        CHECK(test::run(c.io, test::read_exactly(*c.server, size)) == std::string(size, 'x'));
        CHECK_FALSE(writing.run_for_error());
        CHECK(c.client->next_layer().outgoing().writes == before + 1);
        CHECK(out.empty());
        CHECK(out.capacity() == capacity);  // not moved to make room
    }
}

TEST_CASE("writing nothing sends nothing") {
    connected c;
    std::size_t const before = c.client->next_layer().outgoing().bytes;
    send_buffer out(ws::headroom);
    test::run(c.io, c.client->write(out));
    CHECK(c.client->next_layer().outgoing().bytes == before);
}

TEST_CASE("whole messages keep their kind and their boundaries, for every size and chop") {
    for (std::size_t below : {std::size_t{1}, std::size_t{3}, std::size_t{1000}, runnel::memory_flow::unlimited}) {
        connected c;
        c.client->next_layer().outgoing().max_read = below;
        c.client->next_layer().incoming().max_read = below;
        c.background.emplace(c.io, echo(*c.server));
        for (std::size_t size : {0u, 1u, 125u, 126u, 5000u, 65535u, 65536u}) {
            for (message_kind kind : {message_kind::text, message_kind::binary}) {
                std::string data = test::noise(size);
                if (kind == message_kind::text)
                    for (char& ch : data) ch &= 0x7F;
                test::task writing(c.io, c.client->write_message(kind, data));
                std::string const expected = (kind == message_kind::text ? "text: " : "binary: ") + data;
                CHECK(test::run(c.io, next_text(*c.client)) == expected);
                CHECK_FALSE(writing.run_for_error());
            }
        }
    }
}

TEST_CASE("a long message leaves in fragments, and arrives whole") {
    connected c({.fragment_size = 1000});
    std::string const data = test::noise(10'500);
    std::size_t const before = c.client->next_layer().outgoing().writes;
    test::task writing(c.io, c.client->write_message(message_kind::binary, data));
    CHECK(test::run(c.io, next_text(*c.server)) == "binary: " + data);
    CHECK_FALSE(writing.run_for_error());
    CHECK(c.client->next_layer().outgoing().writes == before + 11);
}

TEST_CASE("many packed messages leave in one write, are read with one read, and then without waiting") {
    connected c;
    send_buffer out;
    for (int i = 0; i < 100; ++i) c.client->pack(out, message_kind::text, std::to_string(i));
    auto const& flow = c.client->next_layer().outgoing();
    std::size_t const writes = flow.writes;
    std::size_t const reads = flow.reads;
    test::run(c.io, c.client->write_packed(out));
    CHECK(flow.writes == writes + 1);
    CHECK(test::run(c.io, next_text(*c.server)) == "text: 0");
    std::size_t const first_reads = flow.reads;
    message got;
    int n = 1;
    while (c.server->try_read_message(got)) CHECK(got.data == std::to_string(n++));
    CHECK(flow.reads == first_reads);
    while (n < 100) CHECK(test::run(c.io, next_text(*c.server)) == "text: " + std::to_string(n++));
    CHECK(flow.reads <= reads + 2);
}

TEST_CASE("frames that came with the handshake are not lost, on either side") {
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    client_options asked;
    asked.host = "h";
    test::task opening(io, ws::handshake(std::move(a), asked));
    std::string const request = test::run(io, read_head(b));
    auto const key_at = request.find("Sec-WebSocket-Key: ") + 19;
    std::string reply;
    CHECK(encode_agreement(request.substr(key_at, 24), {}, {}, {}, reply) == errc::ok);
    test::run(io, test::write_text(b, reply + frame(role::server, opcode::text, "early")));
    ws client = opening.run();
    CHECK(test::run(io, next_text(client)) == "text: early");

    auto [d, e] = memory::pair(io.get_executor());
    test::run(io, test::write_text(d, request + frame(role::client, opcode::binary, "eager")));
    server_options offered;
    ws server = test::run(io, ws::accept(std::move(e), offered));
    CHECK(test::run(io, test::read_exactly(server, 5)) == "eager");
}

TEST_CASE("pings are answered before the next message is given") {
    with_raw_peer c(role::server);
    std::string wire;
    for (int i = 0; i < 10; ++i) wire += frame(role::client, opcode::ping, "payload-" + std::to_string(i));
    test::run(c.io, test::write_text(*c.peer, wire + frame(role::client, opcode::text, "x")));
    CHECK(test::run(c.io, next_text(*c.ours)) == "text: x");
    std::string expected;
    for (int i = 0; i < 10; ++i) expected += frame(role::server, opcode::pong, "payload-" + std::to_string(i));
    CHECK(test::run(c.io, test::read_exactly(*c.peer, expected.size())) == expected);
}

TEST_CASE("a ping that comes while a write is stuck is answered right after it; the reader does not wait") {
    with_raw_peer c(role::server);
    c.ours->next_layer().outgoing().capacity = 100;
    std::string const data(5000, 'd');
    test::task writing(c.io, test::write_text(*c.ours, data));
    c.io.poll();
    CHECK_FALSE(writing.done());
    test::run(c.io, test::write_text(*c.peer, frame(role::client, opcode::ping, "?") +
                                                  frame(role::client, opcode::binary, "through")));
    CHECK(test::run(c.io, test::read_exactly(*c.ours, 7)) == "through");  // the peer has still not read anything
    CHECK_FALSE(writing.done());
    std::string const expected = frame(role::server, opcode::binary, data) + frame(role::server, opcode::pong, "?");
    CHECK(test::run(c.io, test::read_exactly(*c.peer, expected.size())) == expected);
    CHECK_FALSE(writing.run_for_error());
}

TEST_CASE("a ping is answered between the fragments of a long message") {
    with_raw_peer c(role::server, {.fragment_size = 1000});
    c.ours->next_layer().outgoing().capacity = 100;
    std::string const data(3000, 'd');
    test::task writing(c.io, c.ours->write_message(message_kind::binary, data));
    c.io.poll();
    std::string room(10, '\0');
    test::task reading(c.io, read_some_into(*c.ours, room));
    test::run(c.io, test::write_text(*c.peer, frame(role::client, opcode::ping, "?")));
    c.io.restart();
    c.io.poll();
    std::string const piece = data.substr(0, 1000);
    std::string const expected =
        frame(role::server, opcode::binary, piece, false) + frame(role::server, opcode::pong, "?") +
        frame(role::server, opcode::continuation, piece, false) + frame(role::server, opcode::continuation, piece);
    CHECK(test::run(c.io, test::read_exactly(*c.peer, expected.size())) == expected);
    CHECK_FALSE(writing.run_for_error());
    reading.cancel();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("a ping is answered between the pieces of a long write") {
    with_raw_peer p(role::client);
    p.background.emplace(p.io, []([[maybe_unused]] ws& s) -> asio::awaitable<void> {
        std::string room(100, ' ');
        for (;;) co_await s.read_some(asio::buffer(room));
    }(*p.ours));
    runnel::send_buffer out(ws::headroom);
    out.append(std::string(2'000'000, 'x'));
    test::task<void> writing(p.io, p.ours->write(out));
    test::run(p.io, test::write_text(*p.peer, frame(role::server, opcode::ping, "now")));
    std::string got;
    std::string room(64 * 1024, '\0');
    while (!writing.done()) {
        got.append(room.data(), test::run(p.io, p.peer->read_some(asio::buffer(room))));
        p.io.restart();
        p.io.poll();  // the writer may learn of its end in a later turn than the peer
    }
    CHECK_FALSE(writing.run_for_error());
    CHECK(got.find(std::string("\x8a\x83", 2)) < 600'000);
}

TEST_CASE("close throws nothing of what the stream below does, and takes no longer than close_timeout") {
    with_raw_peer p(role::client, {.close_timeout = 30ms});
    p.peer->outgoing().cut_error = asio::error::connection_reset;
    p.peer->cut();
    CHECK_FALSE(test::error_of(p.io, p.ours->close(close_code::normal)));

    with_raw_peer q(role::client, {.close_timeout = 30ms});
    q.ours->next_layer().outgoing().capacity = 0;
    auto const begin = std::chrono::steady_clock::now();
    CHECK_FALSE(test::error_of(q.io, q.ours->close(close_code::normal)));
    CHECK(std::chrono::steady_clock::now() - begin < 2s);
}

TEST_CASE("a second writer waits for the first") {
    connected c;
    c.client->next_layer().outgoing().capacity = 50;
    std::string const a(1000, 'a');
    std::string const b(1000, 'b');
    test::task first(c.io, c.client->write_message(message_kind::text, a));
    test::task second(c.io, c.client->write_message(message_kind::text, b));
    CHECK(test::run(c.io, next_text(*c.server)) == "text: " + a);
    CHECK(test::run(c.io, next_text(*c.server)) == "text: " + b);
    CHECK_FALSE(first.run_for_error());
    CHECK_FALSE(second.run_for_error());
}

TEST_CASE("a ping of our own is answered by a peer that reads") {
    connected c;
    c.background.emplace(c.io, echo(*c.server));
    test::run(c.io, c.client->ping("are you there"));
    c.io.poll();
    std::size_t const answered = c.client->next_layer().incoming().bytes;
    CHECK(answered >= 2 + 13);
}

TEST_CASE("closing from either side ends reads in good order and completes") {
    for (bool from_client : {true, false}) {
        connected c;
        ws& first = from_client ? *c.client : *c.server;
        ws& second = from_client ? *c.server : *c.client;
        test::task reading(c.io, test::read_to_end(second));
        test::task closing(c.io, first.shutdown());
        CHECK(reading.run().end == asio::error::eof);
        test::task answering(c.io, second.shutdown());
        CHECK_FALSE(answering.run_for_error());
        CHECK_FALSE(closing.run_for_error());
        CHECK(second.received_code() == close_code::normal);
        CHECK(first.received_code() == close_code::normal);
        CHECK(test::error_of(c.io, test::write_text(first, "late")) == errc::closing);
        CHECK(test::error_of(c.io, test::write_text(second, "late")) == errc::closing);
        CHECK(test::run(c.io, test::read_to_end(first)).end == asio::error::eof);
    }
}

TEST_CASE("closing from both sides at once completes") {
    connected c;
    test::task a(c.io, c.client->shutdown());
    test::task b(c.io, c.server->shutdown());
    CHECK_FALSE(a.run_for_error());
    CHECK_FALSE(b.run_for_error());
}

TEST_CASE("closing while a read of our own is under way leaves the read to see the answer") {
    connected c;
    test::task reading(c.io, test::read_to_end(*c.client));
    c.io.poll();
    test::task closing(c.io, c.client->close(close_code::going_away, "reason"));
    CHECK(test::run(c.io, test::read_to_end(*c.server)).end == asio::error::eof);
    CHECK(c.server->received_code() == close_code::going_away);
    CHECK(c.server->received_reason() == "reason");
    test::task answering(c.io, c.server->shutdown());
    CHECK(reading.run().end == asio::error::eof);
    CHECK_FALSE(closing.run_for_error());
    CHECK_FALSE(answering.run_for_error());
}

TEST_CASE("messages that come before the answer to our close frame are dropped") {
    with_raw_peer c(role::client);
    test::task closing(c.io, c.ours->shutdown());
    test::run(c.io, test::write_text(*c.peer, frame(role::server, opcode::binary, std::string(100'000, 'x')) +
                                                  close_frame(role::server, 1000)));
    c.peer.reset();
    CHECK_FALSE(closing.run_for_error());
    CHECK(c.ours->received_code() == close_code::normal);
}

TEST_CASE("closing is bounded in time when the peer does not answer, and when it does not even read") {
    for (std::size_t capacity : {std::size_t{1000}, std::size_t{1}}) {
        with_raw_peer c(role::client, {.close_timeout = 30ms});
        c.ours->next_layer().outgoing().capacity = capacity;
        auto const start = std::chrono::steady_clock::now();
        CHECK_FALSE(test::error_of(c.io, c.ours->shutdown()));
        auto const took = std::chrono::steady_clock::now() - start;
        CHECK(took >= 30ms);
        CHECK(took < 5s);
        CHECK(test::run(c.io, test::read_to_end(*c.ours)).end == errc::closing);
    }
}

TEST_CASE("a peer that closes with an error code is told from one that closes in good order") {
    for (unsigned code : {1000u, 1001u, 1002u, 1011u, 4000u}) {
        with_raw_peer c(role::client);
        test::run(c.io, test::write_text(*c.peer, close_frame(role::server, code)));
        auto const end = test::run(c.io, test::read_to_end(*c.ours)).end;
        CHECK(end == (code <= 1001 ? std::error_code(asio::error::eof) : std::error_code(errc::closed_by_peer)));
        CHECK(c.ours->received_code() == static_cast<close_code>(code));
        CHECK(test::run(c.io, test::read_exactly(*c.peer, 8)).size() == 8);  // the answer: 2 + 4 + 2
    }
}

TEST_CASE("a connection that ends without a close frame is not an end in good order") {
    with_raw_peer c(role::client);
    test::run(c.io, test::write_text(*c.peer, frame(role::server, opcode::binary, "last")));
    c.peer.reset();
    auto const got = test::run(c.io, test::read_to_end(*c.ours));
    CHECK(got.text == "last");
    CHECK(got.end == errc::ended_without_close);
}

TEST_CASE("a cut connection shows the cut's own error") {
    connected c;
    c.server->next_layer().cut();
    CHECK(test::run(c.io, test::read_to_end(*c.client)).end == asio::error::connection_reset);
    CHECK(test::error_of(c.io, test::write_text(*c.client, "x")) == asio::error::broken_pipe);
    CHECK_FALSE(test::error_of(c.io, c.client->shutdown()));
}

TEST_CASE("garbage ends the connection with code 1002, after what was good") {
    with_raw_peer c(role::server);
    test::run(c.io, test::write_text(*c.peer, frame(role::client, opcode::binary, "good") + "\xFF\xFF\xFF garbage"));
    auto const got = test::run(c.io, test::read_to_end(*c.ours));
    CHECK(got.text == "good");
    CHECK(got.end == errc::reserved_bits_set);
    std::string const answer = test::run(c.io, test::read_exactly(*c.peer, 4));
    CHECK(answer.substr(0, 1) == "\x88");
    CHECK(answer.substr(2) == "\x03\xEA");
    CHECK(test::run(c.io, test::read_to_end(*c.ours)).end == errc::reserved_bits_set);  // and so on
    c.peer.reset();
    CHECK_FALSE(test::error_of(c.io, c.ours->shutdown()));
}

TEST_CASE("text on a stream of binary messages ends it with code 1003") {
    with_raw_peer c(role::client, {.accept_text = false});
    test::run(c.io, test::write_text(*c.peer, frame(role::server, opcode::text, "x")));
    CHECK(test::run(c.io, test::read_to_end(*c.ours)).end == errc::text_not_accepted);
    protocol peer({.side = role::server});
    std::string answer = test::run(c.io, test::read_exactly(*c.peer, 8));
    peer.feed(answer.data(), answer.size());
    std::string rest = test::run(
        c.io, test::read_exactly(*c.peer, 2 + 4 + 2 + std::string(describe(errc::text_not_accepted)).size() - 8));
    peer.feed(rest.data(), rest.size());
    CHECK(peer.received_code() == close_code::unsupported_data);
    CHECK(peer.received_reason() == describe(errc::text_not_accepted));
}

TEST_CASE("a message beyond the limit ends the connection with code 1009, before it has come") {
    connected c({}, {.max_message = 1000});
    test::task writing(c.io, c.client->write_message(message_kind::binary, std::string_view("x")));
    CHECK(test::run(c.io, next_text(*c.server)) == "binary: x");
    std::string const large(1001, 'x');
    test::task more(c.io, c.client->write_message(message_kind::binary, large));
    CHECK(test::error_of(c.io, next_text(*c.server)) == errc::message_too_big);
    CHECK(test::error_of(c.io, next_text(*c.client)) == errc::closed_by_peer);
    CHECK(c.client->received_code() == close_code::message_too_big);
}

TEST_CASE("a read can be cancelled, and the coroutine is then free") {
    connected c;
    std::string room(10, '\0');
    test::task reading(c.io, read_some_into(*c.client, room));
    c.io.poll();
    reading.cancel();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("a write that is stuck, and one that waits for it, can be cancelled") {
    connected c;
    c.client->next_layer().outgoing().capacity = 10;
    test::task stuck(c.io, test::write_text(*c.client, std::string(1000, 'x')));
    test::task waiting(c.io, test::write_text(*c.client, "y"));
    c.io.poll();
    waiting.cancel();
    CHECK(waiting.run_for_error() == asio::error::operation_aborted);
    CHECK_FALSE(stuck.done());
    stuck.cancel();
    CHECK(stuck.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("closing can be cancelled") {
    with_raw_peer c(role::client);
    test::task closing(c.io, c.ours->shutdown());
    c.io.poll();
    CHECK_FALSE(closing.done());
    closing.cancel();
    CHECK(closing.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("everything may be destroyed with reads, writes and closes under way") {
    for (int kind = 0; kind < 4; ++kind) {
        auto c = std::make_unique<connected>();
        std::string room(10, '\0');
        c->client->next_layer().outgoing().capacity = 10;
        auto reading = std::make_unique<test::task<void>>(c->io, read_some_into(*c->client, room));
        auto writing = std::make_unique<test::task<void>>(c->io, test::write_text(*c->client, std::string(1000, 'x')));
        auto more = std::make_unique<test::task<void>>(c->io, test::write_text(*c->client, "y"));
        auto closing = kind == 3 ? std::make_unique<test::task<void>>(c->io, c->server->shutdown()) : nullptr;
        c->io.poll();
        if (kind == 1) c->client.reset();
        if (kind == 2) c->server.reset();
        c.reset();
    }
}

TEST_CASE("a connection cut at any byte ends both sides with an error or in good order, and never hangs") {
    std::size_t total = 0;
    for (std::size_t cut = 0; cut == 0 || cut <= total; ++cut) {
        connected c({.close_timeout = 1s}, {.close_timeout = 1s});
        auto& flow = c.client->next_layer().outgoing();
        std::size_t const before = flow.bytes;
        if (cut != 0) flow.cut_after = before + cut;
        test::task serving(c.io, test::read_to_end(*c.server));
        test::task first(c.io, test::write_text(*c.client, "first"));
        test::task second(c.io, c.client->write_message(message_kind::binary, "second"));
        static_cast<void>(first.run_for_error());
        static_cast<void>(second.run_for_error());
        test::task closing(c.io, c.client->shutdown());
        auto const got = serving.run();
        test::task answering(c.io, c.server->shutdown());
        CHECK_FALSE(answering.run_for_error());
        CHECK_FALSE(closing.run_for_error());
        if (cut == 0) {
            total = flow.bytes - before;
            CHECK(got.text == "firstsecond");
            CHECK(got.end == asio::error::eof);
        } else {
            CHECK(std::string_view("firstsecond").starts_with(got.text));
            CHECK((cut == total || got.end == asio::error::connection_reset));
        }
    }
    CHECK(total > 20);
}

TEST_CASE("in steady state neither side allocates for a message") {
    connected c;
    auto const exchange = [](ws& client, ws& server, int rounds) -> asio::awaitable<void> {
        send_buffer out(ws::headroom);
        std::string room(4096, '\0');
        for (int i = 0; i < rounds; ++i) {
            out.append("some bytes of a message");
            co_await client.write(out);
            std::size_t n = co_await server.read_some(asio::buffer(room));
            CHECK(n == 23);
            co_await server.write_message(message_kind::text, "an answer");
            message const answer = co_await client.read_message();
            CHECK(answer.data.size() == 9);
        }
    };
    std::size_t first = 0;
    std::size_t second = 0;
    auto const measure = [&]() -> asio::awaitable<void> {
        co_await exchange(*c.client, *c.server, 50);
        std::size_t const start = runnel::testing::allocation_count();
        co_await exchange(*c.client, *c.server, 10);
        first = runnel::testing::allocation_count() - start;
        co_await exchange(*c.client, *c.server, 1010);
        second = runnel::testing::allocation_count() - start - first;
    };
    test::run(c.io, measure());
    // Both runs allocate their own buffers; 1000 rounds more allocate nothing more.
    CHECK(second == first);
}

namespace {

// Counts how often the stream is shut down, which may take for ever.
class counted_stream {
  public:
    using executor_type = memory::executor_type;
    static constexpr std::size_t headroom = 0;
    counted_stream(memory next, int& shutdowns, bool completes = true)
        : next_(std::move(next)), shutdowns_(&shutdowns), completes_(completes) {}
    executor_type get_executor() const { return next_.get_executor(); }
    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) { return next_.read_some(into); }
    asio::awaitable<void> write(send_buffer& out) { return next_.write(out); }
    asio::awaitable<void> shutdown() {
        ++*shutdowns_;
        if (!completes_) return runnel::sleep_for(get_executor(), 1h);
        return next_.shutdown();
    }

  private:
    memory next_;
    int* shutdowns_;
    bool completes_;
};

// Handles all that can be handled without waiting for a timer.
void settle(asio::io_context& io) {
    io.restart();
    while (io.poll() != 0) {
    }
}

}  // namespace

TEST_CASE("a close ends the stream below once, a server's or after a violation before the peer does") {
    for (role const side : {role::client, role::server}) {
        for (bool const violates : {false, true}) {
            CAPTURE(side == role::server);
            CAPTURE(violates);
            role const other = side == role::client ? role::server : role::client;
            asio::io_context io;
            int shutdowns = 0;
            auto [a, b] = memory::pair(io.get_executor());
            std::optional<stream<counted_stream>> ours(std::in_place, counted_stream(std::move(a), shutdowns), side,
                                                       stream_options{.close_timeout = 1h});
            std::optional<memory> peer(std::move(b));
            if (violates) {
                test::run(io, test::write_text(*peer, "\xFF\xFF\xFF garbage"));
                CHECK(test::run(io, test::read_to_end(*ours)).end == errc::reserved_bits_set);
            }
            test::task closing(io, ours->shutdown());
            settle(io);
            if (!violates) test::run(io, test::write_text(*peer, close_frame(other, 1000)));
            settle(io);
            CHECK(shutdowns == (side == role::server || violates ? 1 : 0));
            test::run(io, peer->shutdown());
            CHECK_FALSE(closing.run_for_error());
            CHECK(shutdowns == 1);
        }
    }
}

TEST_CASE("a message is not gone on with behind a close frame, and who writes it is told") {
    with_raw_peer p(role::client, {.fragment_size = 100});
    p.ours->next_layer().outgoing().capacity = 50;
    std::string const text(1000, 'x');
    test::task writing(p.io, p.ours->write_message(message_kind::binary, text));
    settle(p.io);
    std::string room(100, ' ');
    test::task reading(p.io, read_some_into(*p.ours, room));
    test::run(p.io, test::write_text(*p.peer, close_frame(role::server, 1000)));
    settle(p.io);
    test::task draining(p.io, test::read_to_end(*p.peer));
    settle(p.io);
    REQUIRE(writing.done());
    CHECK(writing.error() == errc::closing);
    CHECK(reading.run_for_error() == asio::error::eof);
    p.ours.reset();
    CHECK(draining.run().text.size() == (2 + 4 + 100) + (2 + 4 + 2));
}

TEST_CASE("the answer to a close frame does not wait for ever for a peer that does not read") {
    with_raw_peer p(role::client, {.close_timeout = 20ms});
    p.ours->next_layer().outgoing().capacity = 1;
    test::run(p.io, test::write_text(*p.peer, close_frame(role::server, 1000)));
    CHECK(test::run(p.io, test::read_to_end(*p.ours)).end == asio::error::eof);
}

TEST_CASE("where a close has waited in vain for an answer, it does not wait any longer for the stream below") {
    asio::io_context io;
    int shutdowns = 0;
    auto [a, b] = memory::pair(io.get_executor());
    stream<counted_stream> ours(counted_stream(std::move(a), shutdowns, false), role::client,
                                stream_options{.close_timeout = 100ms});
    test::task closing(io, ours.shutdown());
    while (shutdowns == 0) io.run_one();
    settle(io);
    REQUIRE(closing.done());
    CHECK_FALSE(closing.error());
}
