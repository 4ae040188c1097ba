#include <runnel/websocket/protocol/protocol.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <ostream>
#include <string>
#include <vector>

using namespace runnel::websocket;
using namespace std::string_literals;

namespace {

struct received {
    message_kind kind;
    std::string data;
    friend bool operator==(received const&, received const&) = default;
};

// What one end makes of bytes: whole messages, the fault, and what it would write.
struct outcome {
    std::vector<received> messages;
    std::string unfinished;
    errc error = errc::ok;
};

outcome feed(protocol& end, std::string bytes, std::size_t chop) {
    outcome result;
    std::string partial;
    for (std::size_t at = 0; at < bytes.size() && result.error == errc::ok;) {
        std::size_t const piece = std::min(chop, bytes.size() - at);
        for (std::size_t used = 0; used < piece && result.error == errc::ok;) {
            auto const found = end.feed(bytes.data() + at + used, piece - used);
            partial += found.payload;
            used += found.consumed;
            result.error = found.error;
            if (found.message_end) {
                result.messages.push_back({end.kind(), partial});
                partial.clear();
            }
        }
        at += piece;
    }
    result.unfinished = partial;
    return result;
}

std::string pending(protocol& end) {
    runnel::send_buffer out;
    end.take_pending(out);
    return std::string(out.view());
}

protocol client(protocol_settings settings = {}) {
    settings.side = role::client;
    return protocol(settings);
}

protocol server(protocol_settings settings = {}) {
    settings.side = role::server;
    return protocol(settings);
}

// A frame as the given side sends it, of any content, allowed or not.
std::string frame(role side, unsigned first, std::string payload) {
    frame_header header{.op = opcode::binary, .fin = true, .masked = side == role::client, .length = payload.size()};
    header.key = 0x3d21fa37;
    std::string bytes(size_of(header), '\0');
    encode(header, bytes.data());
    bytes[0] = static_cast<char>(first);
    if (header.masked) apply_mask(payload.data(), payload.size(), header.key);
    return bytes + payload;
}

std::string from_server(unsigned first, std::string payload = {}) { return frame(role::server, first, payload); }
std::string from_client(unsigned first, std::string payload = {}) { return frame(role::client, first, payload); }

std::string close_payload(unsigned code, std::string reason = {}) {
    return std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)} + reason;
}

// The fault that a client finds in what a server sends, and the close frame with which it answers.
errc client_fault(std::string const& bytes, protocol_settings settings = {}) {
    std::vector<errc> faults;
    for (std::size_t chop : {bytes.size(), std::size_t{1}}) {
        protocol end = client(settings);
        faults.push_back(feed(end, bytes, chop).error);
        if (faults.back() == errc::ok) continue;
        CHECK(end.close_sent());
        CHECK(end.sent_code() == close_code_for(faults.back()));
        std::string const answer = pending(end);
        protocol other = server();
        feed(other, answer, answer.size());
        CHECK(other.close_received());
        CHECK(other.received_code() == close_code_for(faults.back()));
    }
    CHECK(faults[0] == faults[1]);
    return faults[0];
}

}  // namespace

TEST_CASE("the examples of RFC 6455 5.7 are understood") {
    protocol c = client();
    protocol s = server();
    received const hello{message_kind::text, "Hello"};
    CHECK(feed(c, "\x81\x05Hello", 100).messages == std::vector{hello});
    CHECK(feed(s, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 100).messages == std::vector{hello});
    CHECK(feed(c, "\x01\x03Hel\x80\x02lo", 100).messages == std::vector{hello});
    CHECK(feed(c, "\x89\x05Hello", 100).messages.empty());
    std::string const pong = pending(c);
    protocol other = server();
    CHECK(feed(other, pong, 100).error == errc::ok);
    CHECK(pong.substr(0, 2) == "\x8a\x85");
    std::string const binary(256, 'b');
    CHECK(feed(c, "\x82\x7E\x01\x00"s + binary, 1000).messages == std::vector{received{message_kind::binary, binary}});
    std::string const large(65536, 'l');
    CHECK(feed(c, "\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00"s + large, 100'000).messages ==
          std::vector{received{message_kind::binary, large}});
}

TEST_CASE("what one side frames the other side reads, for all sizes about the limits of length encoding") {
    for (role side : {role::client, role::server}) {
        for (std::size_t size : {0u, 1u, 2u, 3u, 4u, 5u, 124u, 125u, 126u, 127u, 128u, 1000u, 65535u, 65536u, 70000u}) {
            std::string data(size, '\0');
            for (std::size_t i = 0; i < size; ++i) data[i] = static_cast<char>(i * 7);
            protocol sender({.side = side});
            protocol receiver = side == role::client ? server() : client();
            runnel::send_buffer in_place(max_frame_header);
            in_place.append(data);
            char const* const before = in_place.data();
            sender.frame(in_place, opcode::binary);
            std::size_t const header = size_of({.masked = side == role::client, .length = size});
            CHECK((size == 0 || in_place.data() + header == before));  // the payload has not been moved
            runnel::send_buffer appended;
            sender.append_frame(appended, opcode::binary, data);
            std::vector const expected{received{message_kind::binary, data}};
            CHECK(feed(receiver, std::string(in_place.view()), 100'000).messages == expected);
            CHECK(feed(receiver, std::string(appended.view()), 100'000).messages == expected);
        }
    }
}

TEST_CASE("a client masks every frame with another key, a server masks none") {
    protocol c = client();
    protocol s = server();
    std::vector<std::string> keys;
    for (int i = 0; i < 20; ++i) {
        runnel::send_buffer out;
        c.append_frame(out, opcode::binary, "x");
        keys.emplace_back(out.view().substr(2, 4));
    }
    std::sort(keys.begin(), keys.end());
    CHECK(std::unique(keys.begin(), keys.end()) == keys.end());
    keys.clear();
    for (int i = 0; i < 20; ++i) {
        runnel::send_buffer out;
        out.append("x");
        c.frame(out, opcode::binary);
        keys.emplace_back(out.view().substr(2, 4));
    }
    std::sort(keys.begin(), keys.end());
    CHECK(std::unique(keys.begin(), keys.end()) == keys.end());
    runnel::send_buffer out;
    s.append_frame(out, opcode::binary, "x");
    CHECK(out.view() == "\x82\x01x");
}

TEST_CASE("every chop of a dialogue gives the same messages, in both roles") {
    for (role side : {role::client, role::server}) {
        std::string wire;
        wire += frame(side, 0x01, "Hel");
        wire += frame(side, 0x89, "ping 1");
        wire += frame(side, 0x00, "");
        wire += frame(side, 0x80, "lo");
        wire += frame(side, 0x82, std::string(200, 'x'));
        wire += frame(side, 0x8A, "unsolicited");
        wire += frame(side, 0x02, "");
        wire += frame(side, 0x80, "");
        wire += frame(side, 0x82, std::string(70'000, 'y'));
        wire += frame(side, 0x81, "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5");
        wire += frame(side, 0x88, close_payload(1000, "bye"));
        std::vector<received> const expected{{message_kind::text, "Hello"},
                                             {message_kind::binary, std::string(200, 'x')},
                                             {message_kind::binary, ""},
                                             {message_kind::binary, std::string(70'000, 'y')},
                                             {message_kind::text, "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5"}};
        for (std::size_t chop : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 13u, 64u, 100u, 1000u, 100'000u}) {
            protocol end = side == role::client ? server() : client();
            outcome const got = feed(end, wire, chop);
            CHECK(got.error == errc::ok);
            CHECK(got.messages == expected);
            CHECK(end.close_received());
            CHECK(end.received_code() == close_code::normal);
            CHECK(end.received_reason() == "bye");
            CHECK(end.close_sent());
        }
    }
}

TEST_CASE("a message fragmented at every two places, with a ping between, is the same message") {
    std::string const text = "fragmented \xF0\x9F\x98\x80!";
    for (std::size_t a = 0; a <= text.size(); ++a) {
        for (std::size_t b = a; b <= text.size(); ++b) {
            std::string const wire = from_server(0x01, text.substr(0, a)) + from_server(0x89, "p") +
                                     from_server(0x00, text.substr(a, b - a)) + from_server(0x80, text.substr(b));
            for (std::size_t chop : {std::size_t{1}, wire.size()}) {
                protocol end = client();
                outcome const got = feed(end, wire, chop);
                CHECK(got.messages == std::vector{received{message_kind::text, text}});
                CHECK(end.has_pending());
            }
        }
    }
}

TEST_CASE("unframing for a stream of bytes leaves the payload of all messages at the front, for every chop") {
    // Shows [MQTT-6.0.0-2] [MQTT-6.0.0-2 of 3.1.1].
    for (role side : {role::client, role::server}) {
        std::string wire;
        std::string payload;
        for (std::size_t size = 0; size < 300; size += 7) {
            std::string const data(size, static_cast<char>('a' + size % 26));
            wire += frame(side, 0x02, data.substr(0, size / 3)) + frame(side, 0x89, "?") +
                    frame(side, 0x80, data.substr(size / 3));
            payload += data;
        }
        for (std::size_t chop : {1u, 2u, 3u, 5u, 16u, 17u, 100u, 4096u, 100'000u}) {
            protocol end = side == role::client ? server() : client();
            std::string got;
            for (std::size_t at = 0; at < wire.size(); at += chop) {
                std::string raw = wire.substr(at, chop);
                std::size_t const n = end.unframe(raw.data(), raw.size());
                got += raw.substr(0, n);
            }
            CHECK(end.failure() == errc::ok);
            CHECK(got == payload);
        }
    }
}

TEST_CASE("payload in front of a violation is not lost") {
    std::string raw = from_server(0x82, "good") + from_server(0x83, "bad") + from_server(0x82, "never");
    protocol end = client();
    CHECK(end.unframe(raw.data(), raw.size()) == 4);
    CHECK(raw.substr(0, 4) == "good");
    CHECK(end.failure() == errc::reserved_opcode);
}

TEST_CASE("pings are answered with their payload, in order; none after a close frame") {
    protocol end = server();
    std::string wire;
    for (int i = 0; i < 10; ++i) wire += from_client(0x89, "payload-" + std::to_string(i));
    wire += from_client(0x89, std::string(125, 'x')) + from_client(0x88) + from_client(0x89, "late");
    feed(end, wire, 7);
    std::string expected;
    for (int i = 0; i < 10; ++i) expected += from_server(0x8A, "payload-" + std::to_string(i));
    expected += from_server(0x8A, std::string(125, 'x')) + from_server(0x88);
    CHECK(pending(end) == expected);
    CHECK_FALSE(end.has_pending());
}

TEST_CASE("after a close frame of its own an end neither pings nor answers pings") {
    protocol end = server();
    end.close();
    auto const closing = pending(end);
    end.ping("x");
    CHECK(pending(end) == "");
    auto bytes = from_client(0x89, "x");
    CHECK(feed(end, bytes, bytes.size()).error == errc::ok);
    CHECK(pending(end) == "");
    CHECK(closing == from_server(0x88, close_payload(1000)));
}

TEST_CASE("of the payload of a ping as much is sent as a control frame may have") {
    protocol end = server();
    end.ping(std::string(126, 'x'));
    CHECK(pending(end) == from_server(0x89, std::string(125, 'x')));
}

TEST_CASE("the first violation is the one that counts") {
    protocol end = client();
    std::string bytes = from_server(0x83);
    auto const first = feed(end, bytes, bytes.size()).error;
    CHECK(first != errc::ok);
    end.reject(errc::invalid_utf8);
    CHECK(end.failure() == first);
}

TEST_CASE("each message has the whole limit, whatever the size of the one before") {
    for (std::size_t const before : {3u, 8u}) {
        protocol end = client({.max_message = 10});
        auto const bytes =
            from_server(0x82, std::string(before, 'a')) + from_server(0x02, "bbbb") + from_server(0x80, "cccc");
        auto const result = feed(end, bytes, bytes.size());
        CHECK(result.error == errc::ok);
        CHECK(result.messages.size() == 2);
    }
}

TEST_CASE("when answers to pings pile up unsent, the newest remains and memory stays bounded") {
    protocol end = server();
    std::string wire;
    for (int i = 0; i < 10'000; ++i) wire += from_client(0x89, "ping " + std::to_string(i) + std::string(90, '.'));
    feed(end, wire, 4096);
    std::string const answers = pending(end);
    CHECK(answers.size() <= 4096);
    CHECK(answers.ends_with(from_server(0x8A, "ping 9999" + std::string(90, '.'))));
}

TEST_CASE("violations of the frame format are found, and answered with code 1002") {
    CHECK(client_fault(from_server(0x91, "x")) == errc::reserved_bits_set);
    CHECK(client_fault(from_server(0xA1, "x")) == errc::reserved_bits_set);
    CHECK(client_fault(from_server(0xC1, "x")) == errc::reserved_bits_set);
    CHECK(client_fault(from_server(0xC9, "x")) == errc::reserved_bits_set);
    for (unsigned code : {3u, 4u, 5u, 6u, 7u, 11u, 12u, 13u, 14u, 15u})
        CHECK(client_fault(from_server(0x80 | code)) == errc::reserved_opcode);
    CHECK(client_fault(from_server(0x09, "x")) == errc::control_frame_fragmented);
    CHECK(client_fault(from_server(0x89, std::string(126, 'x'))) == errc::control_frame_too_long);
    CHECK(client_fault(from_server(0x88, std::string(126, 'x'))) == errc::control_frame_too_long);
    CHECK(client_fault("\x82\x7E\x00\x01x"s) == errc::length_not_minimal);
    CHECK(client_fault("\x82\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"s) == errc::length_out_of_range);
}

TEST_CASE("violations of fragmentation are found") {
    CHECK(client_fault(from_server(0x80, "x")) == errc::unexpected_continuation);
    CHECK(client_fault(from_server(0x00, "x")) == errc::unexpected_continuation);
    CHECK(client_fault(from_server(0x01, "x") + from_server(0x81, "y")) == errc::unfinished_message);
    CHECK(client_fault(from_server(0x02, "x") + from_server(0x01, "y")) == errc::unfinished_message);
    CHECK(client_fault(from_server(0x82, "x") + from_server(0x80, "y")) == errc::unexpected_continuation);
}

TEST_CASE("a masked server and an unmasked client are refused") {
    CHECK(client_fault(from_client(0x82, "x")) == errc::masked_by_server);
    CHECK(client_fault(from_client(0x89, "x")) == errc::masked_by_server);
    for (std::string const& wire : {from_server(0x82, "x"), from_server(0x88)}) {
        protocol end = server();
        CHECK(feed(end, wire, 1).error == errc::unmasked_by_client);
    }
}

TEST_CASE("text must be UTF-8, checked over fragments and as soon as the wrong byte comes") {
    CHECK(client_fault(from_server(0x81, "\xCE\xBA\xE1\xBD\xB9\xED\xA0\x80")) == errc::invalid_utf8);
    CHECK(client_fault(from_server(0x81, "\xCE")) == errc::invalid_utf8);  // ends inside a character
    CHECK(client_fault(from_server(0x01, "\xCE") + from_server(0x80)) == errc::invalid_utf8);
    CHECK(client_fault(from_server(0x01, "\xCE") + from_server(0x80, "\xBA")) == errc::ok);
    CHECK(client_fault(from_server(0x82, "\xCE\xFF")) == errc::ok);  // binary is not checked
    CHECK(client_fault(from_server(0x02, "\xCE") + from_server(0x80, "\xFF")) == errc::ok);

    protocol end = client();
    std::string const wire = "\x81\x7E\x10\x00"s + "ab\xF4\x90";  // U+110000 begins, of a frame of 4096 bytes
    outcome const got = feed(end, wire, 1);
    CHECK(got.error == errc::invalid_utf8);
    CHECK(end.sent_code() == close_code::invalid_payload);
}

TEST_CASE("a text that follows a binary message with half a character is checked from its own start") {
    protocol end = client();
    CHECK(feed(end, from_server(0x82, "\xCE") + from_server(0x81, "a"), 1).error == errc::ok);
    CHECK(feed(end, from_server(0x81, "a") + from_server(0x81, "\xBA"), 1).error == errc::invalid_utf8);
}

TEST_CASE("close frames are validated") {
    CHECK(client_fault(from_server(0x88, "x")) == errc::close_payload_too_short);
    for (unsigned code : {0u, 999u, 1004u, 1005u, 1006u, 1015u, 1016u, 1100u, 2000u, 2999u, 5000u, 65535u})
        CHECK(client_fault(from_server(0x88, close_payload(code))) == errc::invalid_close_code);
    CHECK(client_fault(from_server(0x88, close_payload(1000, "\xCE"))) == errc::invalid_utf8);
    CHECK(client_fault(from_server(0x88, close_payload(1000, "\xED\xA0\x80"))) == errc::invalid_utf8);
    for (unsigned code :
         {1000u, 1001u, 1002u, 1003u, 1007u, 1008u, 1009u, 1010u, 1011u, 1012u, 3000u, 3999u, 4000u, 4999u}) {
        protocol end = server();
        CHECK(feed(end, from_client(0x88, close_payload(code, std::string(123, 'r'))), 1).error == errc::ok);
        CHECK(end.received_code() == static_cast<close_code>(code));
        CHECK(end.received_reason() == std::string(123, 'r'));
        CHECK(pending(end) == from_server(0x88, close_payload(code)));
    }
}

TEST_CASE("an empty close frame is answered with an empty one") {
    protocol end = server();
    CHECK(feed(end, from_client(0x88), 100).error == errc::ok);
    CHECK(end.received_code() == close_code::no_status);
    CHECK(pending(end) == from_server(0x88));
}

TEST_CASE("only one close frame is sent, and its reason is cut at a character") {
    protocol end = server();
    end.close(close_code::going_away, std::string(122, 'r') + "\xC3\xA9");
    end.close(close_code::internal_error, "again");
    CHECK(pending(end) == from_server(0x88, close_payload(1001, std::string(122, 'r'))));
    CHECK(feed(end, from_client(0x88, close_payload(1001)), 100).error == errc::ok);
    CHECK_FALSE(end.has_pending());
    CHECK(end.close_received());
}

TEST_CASE("a close code that must not be sent closes without a code") {
    protocol end = server();
    end.close(close_code::no_status, "dropped");
    CHECK(pending(end) == from_server(0x88));
}

TEST_CASE("what comes after a close frame is dropped") {
    protocol end = client();
    outcome const got = feed(end, from_server(0x88, close_payload(1000)) + "\xFF\xFF garbage", 5);
    CHECK(got.error == errc::ok);
    CHECK(got.messages.empty());
    CHECK(end.close_received());
}

TEST_CASE("sizes beyond the limits are refused with code 1009, when the header comes") {
    protocol_settings const limited{.max_message = 100, .max_frame = 60};
    CHECK(client_fault(from_server(0x82, std::string(60, 'x')), limited) == errc::ok);
    CHECK(client_fault(from_server(0x82, std::string(61, 'x')), limited) == errc::frame_too_big);
    std::string const half = from_server(0x02, std::string(50, 'x'));
    CHECK(client_fault(half + from_server(0x80, std::string(50, 'x')), limited) == errc::ok);
    CHECK(client_fault(half + from_server(0x80, std::string(51, 'x')), limited) == errc::message_too_big);
    CHECK(client_fault(half + from_server(0x80, "") + half + from_server(0x80, ""), limited) == errc::ok);
    CHECK(client_fault("\x82\x7F\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"s, {.max_message = 100}) == errc::message_too_big);
    CHECK(client_fault(from_server(0x02, "x") + "\x80\x7F\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"s, {.max_message = 100}) ==
          errc::message_too_big);
}

TEST_CASE("where only binary messages are accepted, text ends the connection with code 1003") {
    // Shows [MQTT-6.0.0-1] [MQTT-6.0.0-1 of 3.1.1].
    CHECK(client_fault(from_server(0x81, "x"), {.accept_text = false}) == errc::text_not_accepted);
    CHECK(client_fault(from_server(0x82, "x"), {.accept_text = false}) == errc::ok);
}

TEST_CASE("compressed messages are marked on their first frame only, once agreed on") {
    protocol_settings const settings{.accept_compressed = true};
    CHECK(client_fault(from_server(0xC1, "x"), settings) == errc::ok);
    CHECK(client_fault(from_server(0x41, "x") + from_server(0x80, "x"), settings) == errc::ok);
    CHECK(client_fault(from_server(0x41, "x") + from_server(0xC0, "x"), settings) == errc::reserved_bits_set);
    CHECK(client_fault(from_server(0xC9, "x"), settings) == errc::reserved_bits_set);
    protocol end = client(settings);
    feed(end, from_server(0xC1, "\xFF"), 100);  // not text before it is inflated
    CHECK(end.compressed());
    feed(end, from_server(0x81, "x"), 100);
    CHECK_FALSE(end.compressed());
}

TEST_CASE("nothing is taken after a violation") {
    protocol end = client();
    CHECK(feed(end, from_server(0x83), 100).error == errc::reserved_opcode);
    std::string more = from_server(0x82, "x");
    CHECK(end.feed(more.data(), more.size()).error == errc::reserved_opcode);
    CHECK(end.unframe(more.data(), more.size()) == 0);
}

TEST_CASE("random bytes never break out of the rules") {
    unsigned x = 7;
    auto const random = [&x] { return (x = x * 1103515245 + 12345) >> 16; };
    for (int round = 0; round < 20'000; ++round) {
        std::string wire(1 + random() % 40, '\0');
        for (char& c : wire) c = static_cast<char>(random());
        protocol whole = server({.max_message = 1000});
        protocol chopped = server({.max_message = 1000});
        outcome const a = feed(whole, wire, wire.size());
        outcome const b = feed(chopped, wire, 1);
        CHECK(a.messages == b.messages);
        CHECK(a.error == b.error);
    }
}
