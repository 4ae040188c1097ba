#include <runnel/transport/memory.hpp>
#include <runnel/websocket/stream.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <cstring>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

// Conversations of an end that echoes with a peer that sends frames of its own making: what it does right and, mostly,
// wrong. Each goes as client and as server, with reads of all sizes. The order is that of conformance suites.

using namespace runnel::websocket;
using namespace std::string_literals;

namespace {

using memory = runnel::memory_stream<>;
using ws = stream<memory>;
using frames = std::vector<std::string>;  // headers unmasked

// A frame of which nothing is checked: `first` is the first byte of its header.
std::string raw(unsigned first, std::string const& payload = {}) {
    std::string frame(1, static_cast<char>(first));
    std::uint64_t const size = payload.size();
    int const bytes = size < 126 ? 0 : size <= 0xFFFF ? 2 : 8;
    frame += static_cast<char>(bytes == 0 ? static_cast<int>(size) : bytes == 2 ? 126 : 127);
    for (int shift = 8 * bytes - 8; shift >= 0; shift -= 8) frame += static_cast<char>(size >> shift);
    return frame + payload;
}

std::string text(std::string const& payload) { return raw(0x81, payload); }
std::string binary(std::string const& payload) { return raw(0x82, payload); }
std::string ping(std::string const& payload = {}) { return raw(0x89, payload); }
std::string pong(std::string const& payload = {}) { return raw(0x8A, payload); }
std::string begin(std::string const& payload) { return raw(0x01, payload); }
std::string more(std::string const& payload) { return raw(0x00, payload); }
std::string last(std::string const& payload) { return raw(0x80, payload); }
std::string close_with(unsigned code, std::string const& reason = {}) {
    return raw(0x88, std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)} + reason);
}

// The frame as a client sends it.
std::string masked(std::string const& frame) {
    std::size_t const header = header_size(frame[1]);
    std::string result = frame.substr(0, header) + "\x01\x80\xFF\x3C" + frame.substr(header);
    result[1] = static_cast<char>(static_cast<unsigned char>(result[1]) | 0x80u);
    mask_key key;
    std::memcpy(&key, result.data() + header, sizeof(key));
    apply_mask(result.data() + header + 4, frame.size() - header, key);
    return result;
}

// What an end has sent, as words: "text Hello", "pong x", "close 1000". The reasons it gives are its own affair.
frames described(std::string const& wire, role sender) {
    static char const* const names[] = {"continuation ", "text ", "binary ", "3",  "4",  "5",  "6",  "7",
                                        "close ",        "ping ", "pong ",   "11", "12", "13", "14", "15"};
    frames result;
    for (std::size_t at = 0; at < wire.size();) {
        frame_header header;
        REQUIRE(at + 2 <= wire.size());
        REQUIRE(decode(wire.data() + at, header) == errc::ok);
        CHECK(header.masked == (sender == role::client));
        at += header_size(wire[at + 1]);
        auto const size = static_cast<std::size_t>(header.length);
        std::string payload = wire.substr(at, size);
        at += size;
        apply_mask(payload.data(), payload.size(), header.key);
        if (header.op == opcode::close && !payload.empty())
            payload = std::to_string(runnel::read_big_endian<std::uint16_t>(payload.data()));
        result.push_back((header.fin ? "" : "begin ") + (names[static_cast<unsigned>(header.op)] + payload));
    }
    return result;
}

asio::awaitable<void> echo(ws& end) {
    try {
        for (;;) {
            message const got = co_await end.read_message();
            co_await end.write_message(got.kind, got.data);
        }
    } catch (std::system_error const&) {
    }
    co_await end.shutdown();
}

// Sends the frames to an end in the role of `side`, and returns what comes back until it ends the connection.
frames answers(role side, frames const& sent, std::size_t max_read, stream_options options = {}) {
    asio::io_context io;
    auto [a, b] = memory::pair(io.get_executor());
    b.outgoing().max_read = max_read;
    b.outgoing().capacity = a.outgoing().capacity = 64 * 1024 * 1024;
    ws end(std::move(a), side, options);
    test::task echoing(io, echo(end));
    std::string wire;
    for (auto const& frame : sent) wire += side == role::server ? masked(frame) : frame;
    test::run(io, test::write_text(b, wire));
    // A server ends the connection itself after the close handshake; a client leaves that to the server.
    if (side == role::client) test::run(io, b.shutdown());
    auto const got = test::run(io, test::read_to_end(b));
    CHECK(got.end == asio::error::eof);
    test::run(io, b.shutdown());
    CHECK_FALSE(echoing.run_for_error());
    return described(got.text, side);
}

void expect(frames const& sent, frames const& expected, stream_options options = {}) {
    std::size_t size = 0;
    for (auto const& frame : sent) size += frame.size() + 4;  // the key that a client masks with
    for (role const side : {role::server, role::client}) {
        for (std::size_t const max_read : {std::size_t{1}, std::size_t{3}, std::size_t{1000}, std::size_t{1} << 20}) {
            if (size / max_read > 20'000) continue;
            if (size <= 1000 && max_read > 1000) continue;  // it came in one read before
            CAPTURE(max_read);
            CAPTURE(side == role::server);
            CHECK((answers(side, sent, max_read, options) == expected));
        }
    }
}

// `sent` is echoed, and the connection then closed in good order.
void expect_echoes(frames sent, frames expected) {
    sent.push_back(close_with(1000));
    expected.push_back("close 1000");
    expect(sent, expected);
}

// After a good message, `sent` ends the connection with `code`, at once: what follows does not count.
void expect_failure(frames sent, unsigned code, stream_options options = {}) {
    sent.insert(sent.begin(), binary("good"));
    frames const expected{"binary good", "close " + std::to_string(code)};
    expect(sent, expected, options);
    sent.push_back(close_with(1000));
    expect(sent, expected, options);
    sent.insert(sent.end() - 1, {binary("ignored"), ping("ignored")});
    expect(sent, expected, options);
}

std::vector<std::string> pieces(std::string const& whole, std::size_t size) {
    std::vector<std::string> result;
    for (std::size_t at = 0; at < whole.size(); at += size) result.push_back(whole.substr(at, size));
    return result;
}

// One message in fragments of `size` bytes.
frames fragments(unsigned op, std::string const& whole, std::size_t size) {
    frames result;
    for (auto const& piece : pieces(whole, size)) result.push_back(raw(result.empty() ? op : 0, piece));
    result.back()[0] = static_cast<char>(static_cast<unsigned char>(result.back()[0]) | 0x80u);
    return result;
}

}  // namespace

TEST_CASE("framing: messages of all lengths come back, as text and as binary") {
    for (std::size_t const size : {0u, 1u, 125u, 126u, 127u, 128u, 65535u, 65536u}) {
        std::string const letters(size, '*');
        std::string const bytes(size, '\xFE');
        expect_echoes({text(letters), binary(bytes)}, {"text " + letters, "binary " + bytes});
    }
}

TEST_CASE("ping and pong: a ping is answered with its payload, a pong with nothing") {
    std::string const every_byte = [] {
        std::string bytes;
        for (int i = 0; i < 125; ++i) bytes += static_cast<char>(i * 2 + 1);
        return bytes;
    }();
    expect_echoes({ping()}, {"pong "});
    expect_echoes({ping("Hello, world!"), ping("\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF"s), ping(every_byte)},
                  {"pong Hello, world!", "pong \x00\xFF\xFE\xFD\xFC\xFB\x00\xFF"s, "pong " + every_byte});
    expect_echoes({pong(), pong("unsolicited"), pong(every_byte), ping("and"), text("then")},
                  {"pong and", "text then"});
    frames ten;
    frames answered;
    for (int i = 0; i < 10; ++i) {
        ten.push_back(ping(std::to_string(i)));
        answered.push_back("pong " + std::to_string(i));
    }
    expect_echoes(ten, answered);
    expect_failure({ping(std::string(126, 'x'))}, 1002);
    expect_failure({pong(std::string(65536, 'x'))}, 1002);
}

TEST_CASE("reserved bits: any of them set, in any frame, ends the connection") {
    for (unsigned bits = 0x10; bits <= 0x70; bits += 0x10) {
        for (unsigned const op : {0x81u, 0x82u, 0x89u, 0x8Au, 0x88u, 0x01u}) {
            expect_failure({raw(op | bits, "x")}, 1002);
            expect_failure({raw(op | bits)}, 1002);
        }
        expect_failure({begin("x"), raw(0x80 | bits, "x")}, 1002);
    }
}

TEST_CASE("opcodes: those that are reserved end the connection") {
    for (unsigned const op : {3u, 4u, 5u, 6u, 7u, 11u, 12u, 13u, 14u, 15u}) {
        expect_failure({raw(0x80 | op)}, 1002);
        expect_failure({raw(0x80 | op, "payload")}, 1002);
        expect_failure({raw(op, "payload")}, 1002);
    }
}

TEST_CASE("fragmentation: fragments make one message, with control frames between them answered at once") {
    expect_echoes({begin("one "), last("two")}, {"text one two"});
    expect_echoes({raw(0x02, "one "), more("two "), last("three")}, {"binary one two three"});
    expect_echoes({begin(""), more(""), last("")}, {"text "});
    expect_echoes({begin(""), more("middle"), last("")}, {"text middle"});
    expect_echoes({begin("a"), ping("1"), more("b"), ping("2"), pong("3"), more("c"), ping("4"), last("d")},
                  {"pong 1", "pong 2", "pong 4", "text abcd"});
    for (std::size_t const size : {1u, 2u, 3u, 100u, 255u}) {
        std::string const whole = test::noise(256);
        expect_echoes(fragments(0x02, whole, size), {"binary " + whole});
    }
    expect({begin("unfinished"), close_with(1000)}, {"close 1000"});
}

TEST_CASE("fragmentation: what does not fit together ends the connection") {
    expect_failure({raw(0x09, "fragmented ping"), last("")}, 1002);
    expect_failure({raw(0x0A, "fragmented pong")}, 1002);
    expect_failure({raw(0x08, "\x03\xE8")}, 1002);
    expect_failure({last("nothing to continue")}, 1002);
    expect_failure({more("nothing to continue"), text("x")}, 1002);
    expect_failure({begin("a"), text("another")}, 1002);
    expect_failure({begin("a"), begin("another")}, 1002);
    expect_failure({raw(0x02, "a"), more("b"), text("another")}, 1002);
    expect({begin("a"), last("b"), last("c")}, {"text ab", "close 1002"});
}

TEST_CASE("UTF-8: text that is valid comes back, wherever its characters are cut") {
    for (std::string const& valid : std::vector<std::string>{
             "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5",           // a word of Greek
             "\x00"s, "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80",  // the first and last of each length
             "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF",   //
             "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBD",      // about the surrogates; the replacement character
             "\xEF\xBF\xBE", "\xEF\xB7\x90", "\xF0\x9F\xBF\xBE",  // not characters, but well-formed
             "\xEF\xBB\xBFwith a byte order mark"}) {
        expect_echoes({text(valid)}, {"text " + valid});
        expect_echoes(fragments(0x01, valid, 1), {"text " + valid});
    }
}

TEST_CASE("UTF-8: text that is not valid ends the connection with code 1007") {
    for (std::string const& invalid :
         std::vector<std::string>{"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80"
                                  "edited",  // a surrogate
                                  "\x80",
                                  "\xBF",
                                  "\x80\xBF\x80\xBF",  // continuations of nothing
                                  "\xC0\xAF",
                                  "\xE0\x80\xAF",
                                  "\xF0\x80\x80\xAF",  // longer than need be
                                  "\xC1\xBF",
                                  "\xE0\x9F\xBF",
                                  "\xF0\x8F\xBF\xBF",  //
                                  "\xF8\x88\x80\x80\x80",
                                  "\xFC\x84\x80\x80\x80\x80",  // of five and six bytes
                                  "\xF4\x90\x80\x80",
                                  "\xF7\xBF\xBF\xBF",
                                  "\xFE",
                                  "\xFF",  // above U+10FFFF; never used
                                  "\xED\xA0\x80",
                                  "\xED\xBF\xBF",
                                  "\xED\xA0\xBD\xED\xB8\x80",  // surrogates, single and paired
                                  "\xC3 ",
                                  "\xE1\xBD ",
                                  "\xF0\x90\x80 ",
                                  "\xC3\xC3\xA4"}) {  // cut short by another character
        expect_failure({text(invalid)}, 1007);
        frames const cut = fragments(0x01, "ok " + invalid, 1);
        expect_failure(cut, 1007);
        // The end of the message need not come for that.
        expect_failure({begin("ok " + invalid)}, 1007);
    }
    for (std::string const& unfinished : std::vector<std::string>{"\xC3", "\xE1\xBD", "\xF0\x90\x80", "a\xF4"}) {
        expect_failure({text(unfinished)}, 1007);
        expect_failure({begin(unfinished), last("")}, 1007);
        expect({begin(unfinished), close_with(1000)}, {"close 1000"});  // more of it might have come
    }
    expect_echoes({binary("\xFF\xC0\xAF")}, {"binary \xFF\xC0\xAF"});
}

TEST_CASE("UTF-8: the first wrong byte of a long text ends the connection, before the rest of the frame has come") {
    for (role const side : {role::server, role::client}) {
        std::string frame = text("ok \xCE\xBA\xF4\x90" + std::string(100'000, 'x'));
        if (side == role::server) frame = masked(frame);
        frame.resize(30);
        asio::io_context io;
        auto [a, b] = memory::pair(io.get_executor());
        ws end(std::move(a), side, stream_options{});
        test::task echoing(io, echo(end));
        test::run(io, test::write_text(b, frame));
        auto const got = test::run(io, test::read_to_end(b));
        CHECK((described(got.text, side) == frames{"close 1007"}));
        test::run(io, b.shutdown());
        CHECK_FALSE(echoing.run_for_error());
    }
}

TEST_CASE("closing: the close frame is answered with its code, and what comes behind it is ignored") {
    for (unsigned const code : {1000u, 1001u, 1002u, 1003u, 1007u, 1008u, 1009u, 1010u, 1011u, 1012u, 1013u, 1014u,
                                3000u, 3999u, 4000u, 4999u}) {
        std::string const answer = "close " + std::to_string(code);
        expect({close_with(code)}, {answer});
        expect({close_with(code, "a reason: \xCE\xBA")}, {answer});
        expect({close_with(code, std::string(123, 'r'))}, {answer});
        expect({text("before"), close_with(code), text("behind"), ping("behind")}, {"text before", answer});
        expect({close_with(code), close_with(1000), raw(0xFF, "garbage")}, {answer});
    }
    expect({raw(0x88)}, {"close "});
    expect({begin("unfinished"), raw(0x88), last("behind")}, {"close "});
}

TEST_CASE("closing: close frames that must not be end the connection with a code of ours") {
    expect_failure({raw(0x88, "\x03")}, 1002);
    for (unsigned const code :
         {0u, 1u, 500u, 999u, 1004u, 1005u, 1006u, 1015u, 1016u, 1100u, 2000u, 2999u, 5000u, 65535u})
        for (auto const& reason : {"", "reason"}) expect_failure({close_with(code, reason)}, 1002);
    expect_failure({close_with(1000, std::string(124, 'r'))}, 1002);
    for (auto const& reason : {"\xCE", "\xCE\xBA\xED\xA0\x80", "\xFF", "\xC0\xAF"})
        expect_failure({close_with(1000, reason)}, 1007);
}

TEST_CASE("limits: long messages come back, in one frame and in fragments of all sizes") {
    std::string const letters = [] {
        std::string result;
        while (result.size() < 1'000'000) result += "0123456789 \xCE\xBA\xF0\x9F\x90\x8E ";
        return result;
    }();
    std::string const bytes = test::noise(1'000'000);
    auto const long_ones = [](frames const& sent, std::string const& expected) {
        frames all = sent;
        all.push_back(close_with(1000));
        // What an end sends in fragments of its own is one message.
        for (role const side : {role::server, role::client})
            CHECK((answers(side, all, 64 * 1024, {.fragment_size = 0}) == frames{expected, "close 1000"}));
    };
    long_ones({text(letters)}, "text " + letters);
    long_ones({binary(bytes)}, "binary " + bytes);
    for (std::size_t const size : {64u, 1300u, 4096u, 65536u, 999'999u}) {
        long_ones(fragments(0x01, letters, size), "text " + letters);
        long_ones(fragments(0x02, bytes, size), "binary " + bytes);
    }
}

TEST_CASE("limits: many small messages come back in their order") {
    frames sent;
    frames expected;
    for (int i = 0; i < 1000; ++i) {
        sent.push_back(text(std::to_string(i)));
        expected.push_back("text " + std::to_string(i));
    }
    expect_echoes(sent, expected);
}

TEST_CASE("limits: a message longer than allowed ends the connection with code 1009") {
    stream_options const limited{.max_message = 1000, .max_frame = 600};
    std::string const half(500, 'x');
    expect_failure({binary(std::string(601, 'x'))}, 1009, limited);
    expect_failure({begin(half), more(half), more("x")}, 1009, limited);
    expect({raw(0x02, half), last(half), close_with(1000)}, {"binary " + half + half, "close 1000"}, limited);
}

TEST_CASE("lengths: encodings that are not the shortest, and the highest bit, end the connection") {
    for (std::string const& header :
         {"\x82\x7E\x00\x7D"s, "\x82\x7E\x00\x00"s, "\x82\x7F\x00\x00\x00\x00\x00\x00\x00\x7D"s,
          "\x82\x7F\x00\x00\x00\x00\x00\x00\xFF\xFF"s, "\x82\x7F\x80\x00\x00\x00\x00\x00\x00\x00"s})
        expect_failure({header}, 1002);
}
