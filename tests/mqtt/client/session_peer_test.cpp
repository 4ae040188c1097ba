#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

// A session and servers that do not behave.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::hex;
using test::memory_session;
using test::packet;
using test::task;

std::string const accepted = hex("20 02 00 00");
std::string const accepted_v5 = hex("20 03 00 00 00");

// A server that answers CONNECT with given bytes, and then says `later` whenever it hears something.
struct scripted_server {
    std::string answer;
    std::string later = {};
    bool ends = false;  // behind the answer
    int times = 1000;   // that it says `later`
    std::string heard = {};
    asio::io_context io{};
    std::vector<std::unique_ptr<task<void>>> serving{};
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        serving.push_back(std::make_unique<task<void>>(io, serve(std::move(s))));
    }};

    asio::awaitable<void> serve(runnel::memory_stream<> s) {
        std::string room(64 * 1024, '\0');
        std::size_t n = co_await s.read_some(asio::buffer(room));
        heard.append(room, 0, n);
        auto answering = test::write_text(s, answer);
        co_await std::move(answering);
        if (ends) {
            co_await s.shutdown();
            co_return;
        }
        for (;;) {
            n = co_await s.read_some(asio::buffer(room));
            heard.append(room, 0, n);
            if (--times < 0) continue;
            auto answering_later = test::write_text(s, later);
            co_await std::move(answering_later);
        }
    }
};

mqtt::session_options once(protocol_version version = protocol_version::v3_1_1) {
    auto o = test::quick("client", version);
    o.reconnect.attempts = 1;
    o.close_timeout = std::chrono::milliseconds(20);
    return o;
}

// How `run` ends.
std::error_code end_of(scripted_server& server, mqtt::session_options options = once()) {
    memory_session s(server.io.get_executor(), server.transport, std::move(options));
    task<void> running(server.io, s.run());
    auto const error = running.run_for_error();
    CHECK_FALSE(s.is_connected());
    return error;
}

std::error_code end_after(std::string answer, protocol_version version = protocol_version::v3_1_1) {
    scripted_server server{std::move(answer)};
    return end_of(server, once(version));
}

}  // namespace

TEST_CASE("an answer to CONNECT that is not a CONNACK ends the connection with what is wrong with it") {
    CHECK(end_after("HTTP/1.1 400 Bad Request\r\n\r\n") == errc::invalid_header_flags);
    CHECK(end_after(hex("00 00")) == errc::unknown_packet_type);
    CHECK(end_after(hex("F0 00")) == errc::unexpected_packet);  // AUTH, of MQTT 5
    CHECK(end_after(hex("D0 00")) == errc::packet_before_connack);
    CHECK(end_after(packet(0x30, test::field("t") + "p")) == errc::packet_before_connack);
    CHECK(end_after(hex("20 FF FF FF FF 01")) == errc::variable_integer_too_long);
    CHECK(end_after(hex("20 02 02 00")) == errc::invalid_connack_flags);
    CHECK(end_after(hex("20 02 01 05")) == errc::session_present_without_success);
    CHECK(end_after(hex("20 01 00")) == errc::truncated_packet);
    CHECK(end_after(hex("20 03 00 00 01")) == errc::trailing_bytes);
    CHECK(end_after(hex("E0 00"), protocol_version::v5) == errc::packet_before_connack);
}

TEST_CASE("what answers CONNECT, but is not a broker, is named and asked for") {
    auto const text_after = [](std::string answer, bool ends = false) {
        scripted_server server{std::move(answer)};
        server.ends = ends;
        auto options = once();
        std::string told;
        options.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::disconnected) told = to_string(e);
        };
        memory_session s(server.io.get_executor(), server.transport, std::move(options));
        task<void> running(server.io, s.run());
        running.run_for_error();
        auto const thrown = running.error_text();
        CHECK(thrown.starts_with(server.transport.url() + ": "));
        // Both say the same.
        auto const question =
            thrown.substr(server.transport.url().size() + 2, thrown.find('?') - server.transport.url().size() - 1);
        CHECK(told.find(question) != std::string::npos);
        return thrown;
    };
    auto const has = [](std::string const& text, char const* part) { return text.find(part) != std::string::npos; };
    CHECK(has(text_after("HTTP/1.1 400 Bad Request\r\n\r\n"), "the server speaks HTTP: is this a WebSocket port?"));
    CHECK(has(text_after(hex("15 03 01 00 02 02 46")), "the server speaks TLS: is this a TLS port?"));
    CHECK(has(text_after(hex("16 03 03 00 05 02 00 00 01 00")), "the server speaks TLS: is this a TLS port?"));
    CHECK(has(text_after("SSH-2.0-x\r\n"), "the server's answer begins with \"SSH-2.0-x\\x0d\\x0a\": is this"));
    CHECK(has(text_after("220 mail \x1b[2J\r\n", true), "begins with \"220 mail \\x1b[2J\\x0d\\x0a\": is this"));
    CHECK(has(text_after("", true), "no CONNACK: is this an MQTT port?"));
    CHECK(has(text_after("H", true), "the server's answer begins with \"H\""));
}

TEST_CASE("a broker that answers is not asked for its port") {
    for (auto const* answer : {"20 02 00 05", "20 02 02 00", "20 02 01 05", "20", "20 02 00"}) {
        scripted_server server{hex(answer)};
        server.ends = true;
        memory_session s(server.io.get_executor(), server.transport, once());
        task<void> running(server.io, s.run());
        running.run_for_error();
        bool const whole = std::string_view(answer).size() > 8;
        CHECK((running.error_text().find('?') == std::string::npos) == whole);
    }
}

TEST_CASE("who cancels is not asked for a port") {
    for (std::string const answer : {"", "20 02 00 00"}) {
        scripted_server server{hex(answer)};
        std::string told;
        auto options = once();
        options.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::disconnected) told = e.detail;
        };
        memory_session s(server.io.get_executor(), server.transport, std::move(options));
        task<void> running(server.io, s.run());
        test::settle(server.io);
        running.cancel();
        CHECK(running.run_for_error() == asio::error::operation_aborted);
        CHECK(told == (answer.empty() ? "waiting for CONNACK" : ""));
    }
}

TEST_CASE("an end without a reason is said to be one") {
    scripted_server server{accepted};
    server.ends = true;
    memory_session s(server.io.get_executor(), server.transport, once());
    task<void> running(server.io, s.run());
    CHECK(running.run_for_error() == asio::error::eof);
    CHECK(running.error_text().find("the server did not say why") != std::string::npos);
}

TEST_CASE("a reason string of the server is made printable, in an event and in an exception") {
    std::string told;
    auto options = once(protocol_version::v5);
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == mqtt::session_event::kind::refused) told = e.detail;
    };
    std::string const reason =
        "no\x1b[2J\xC2\x9B"
        "31m";
    auto const size = static_cast<char>(reason.size());
    std::string const props = std::string("\x1F\0", 2) + size + reason;
    scripted_server server{packet(0x20, std::string("\0\x87", 2) + static_cast<char>(props.size()) + props)};
    memory_session s(server.io.get_executor(), server.transport, std::move(options));
    task<void> running(server.io, s.run());
    CHECK(running.run_for_error() == reason_code::not_authorized);
    CHECK(told == "no\\x1b[2J\\xc2\\x9b31m");
    CHECK(running.error_text().find(told) != std::string::npos);
}

TEST_CASE("a refusal ends run with its reason") {
    CHECK(end_after(hex("20 02 00 01")) == reason_code::unsupported_protocol_version);
    CHECK(end_after(hex("20 02 00 02")) == reason_code::client_identifier_not_valid);
    CHECK(end_after(hex("20 02 00 03")) == reason_code::server_unavailable);
    CHECK(end_after(hex("20 02 00 04")) == reason_code::bad_user_name_or_password);
    CHECK(end_after(hex("20 02 00 05")) == reason_code::not_authorized);
    CHECK(end_after(hex("20 03 00 8A 00"), protocol_version::v5) == reason_code::banned);
    // The form of MQTT 3.1.1, with which servers refuse a version that they do not know.
    CHECK(end_after(hex("20 02 00 01"), protocol_version::v5) == reason_code::unsupported_protocol_version);
}

TEST_CASE("a connection that ends before or inside of CONNACK has ended, no more") {
    for (auto const* answer : {"", "20", "20 02 00"}) {
        scripted_server server{hex(answer)};
        server.ends = true;
        CHECK(end_of(server) == asio::error::eof);
    }
}

TEST_CASE("packets that break the protocol end the connection with what is wrong with them") {
    auto const after_connack = [](std::string const& bytes) { return end_after(accepted + bytes); };
    CHECK(after_connack(accepted) == errc::unexpected_packet);
    CHECK(after_connack(hex("00 00")) == errc::unknown_packet_type);
    CHECK(after_connack(hex("F0 00")) == errc::unexpected_packet);
    CHECK(after_connack(hex("C0 00")) == errc::unexpected_packet);
    CHECK(after_connack(hex("E0 00")) == errc::unexpected_packet);
    CHECK(after_connack(hex("D1 00")) == errc::invalid_header_flags);
    CHECK(after_connack(hex("D0 01 00")) == errc::trailing_bytes);
    CHECK(after_connack(packet(0x82, hex("00 01") + test::field("t") + hex("00"))) == errc::unexpected_packet);
    CHECK(after_connack(hex("40 02 00 01")) == errc::packet_identifier_unknown);
    CHECK(after_connack(hex("40 02 00 00")) == errc::packet_identifier_zero);
    CHECK(after_connack(hex("90 03 00 01 00")) == errc::packet_identifier_unknown);
    CHECK(after_connack(hex("90 03 00 01 03")) == errc::invalid_reason_code);
    CHECK(after_connack(hex("90 02 00 01")) == errc::empty_list);
    CHECK(after_connack(hex("B0 02 00 01")) == errc::packet_identifier_unknown);
    CHECK(after_connack(hex("30 03 00 05 't'")) == errc::truncated_packet);
    CHECK(after_connack(hex("36 05 00 01 't' 00 01")) == errc::invalid_qos);
    CHECK(after_connack(hex("38 03 00 01 't'")) == errc::dup_without_qos);
    CHECK(after_connack(hex("32 05 00 01 't' 00 00")) == errc::packet_identifier_zero);
    CHECK(after_connack(hex("30 03 00 01 '#'")) == errc::wildcard_in_topic_name);
    CHECK(after_connack(hex("30 03 00 01 FF")) == errc::invalid_utf8);
    CHECK(after_connack(hex("30 FF FF FF FF 7F")) == errc::variable_integer_too_long);
}

TEST_CASE("a packet larger than the maximum ends the connection as soon as its length is known") {
    scripted_server server{accepted + hex("30 81 08")};  // 1025 bytes to come
    auto options = once();
    options.maximum_packet_size = 1027;
    CHECK(end_of(server, options) == errc::packet_too_large);
}

namespace {

// A CONNACK of MQTT 5 with texts as long as there are, filled up to `size` bytes with a user property after another.
std::string large_connack(reason_code reason, std::string_view said, std::size_t size) {
    std::string props;
    auto const add = [&](mqtt::property_id id, std::string_view text) {
        props += static_cast<char>(id);
        props += test::field(text);
    };
    using enum mqtt::property_id;
    add(assigned_client_identifier, std::string(65'535, 'i'));
    add(response_information, std::string(65'535, 'r'));
    add(server_reference, std::string(65'535, 's'));
    add(reason_string, said);
    std::size_t const header = 1 + 3 + 2 + 3;  // of the packet: both lengths take three bytes
    for (std::size_t left = size - header - props.size(); left != 0; left = size - header - props.size()) {
        std::size_t const value = left <= 65'540 ? left - 5 : 60'000;
        props += static_cast<char>(user_property);
        props += test::field("") + test::field(std::string(value, 'u'));
    }
    auto made = packet(0x20, std::string(1, '\0') + static_cast<char>(reason) + test::properties_field(props));
    CHECK(made.size() == size);
    return made;
}

constexpr std::size_t connack_limit = 400'000;

mqtt::session_options without_identifier() {
    auto o = test::quick("", protocol_version::v5);
    o.maximum_packet_size = connack_limit;
    o.request_response_information = true;
    return o;
}

}  // namespace

TEST_CASE("a CONNACK as large as allowed is taken, and its texts are used, however long") {
    scripted_server server{large_connack(reason_code::success, std::string(65'535, '\x01'), connack_limit)};
    memory_session s(server.io.get_executor(), server.transport, without_identifier());
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    // No response topic can begin with such a text.
    CHECK(test::error_of(server.io, s.request("t", "", std::chrono::seconds(1))));
    CHECK(s.is_connected());
    running.cancel();
    CHECK(running.run_for_error() == asio::error::operation_aborted);
    task<void> again(server.io, s.run());
    test::run(server.io, s.connected());
    test::settle(server.io);
    CHECK(server.heard.find(std::string(65'535, 'i')) != server.heard.npos);  // in the second CONNECT
    again.cancel();
    CHECK(again.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("a CONNACK that is larger than allowed by one byte ends the connection, and the server is told why") {
    scripted_server server{large_connack(reason_code::success, "", connack_limit + 1)};
    auto options = without_identifier();
    options.reconnect.attempts = 1;
    CHECK(end_of(server, options) == errc::packet_too_large);
    test::settle(server.io);
    CHECK(server.heard.ends_with(hex("E0 01 95")));
}

TEST_CASE("of the texts of a CONNACK that refuses, an error has the first thousand bytes") {
    for (char const c : {'x', '\x01'}) {
        scripted_server server{large_connack(reason_code::use_another_server, std::string(65'535, c), connack_limit)};
        auto options = without_identifier();
        options.reconnect.attempts = 1;
        std::size_t detail = 0;
        options.on_event = [&](mqtt::session_event const& e) { detail = std::max(detail, e.detail.size()); };
        memory_session s(server.io.get_executor(), server.transport, options);
        task<void> running(server.io, s.run());
        CHECK(running.run_for_error() == reason_code::use_another_server);
        CHECK(running.error_text().size() > 990);
        CHECK(running.error_text().size() < 1'200);
        CHECK(detail > 990);
        CHECK(detail < 1'200);
    }
}

TEST_CASE("more unacknowledged messages than announced end the connection") {
    std::string messages;
    for (char id = 1; id <= 3; ++id) messages += packet(0x32, test::field("t") + '\0' + id + '\0');
    auto options = once(protocol_version::v5);
    options.receive_maximum = 2;
    for (bool const held : {false, true}) {
        options.unrouted_timeout = std::chrono::seconds(held ? 10 : 0);
        scripted_server server{accepted_v5, messages, false, 1};
        memory_session s(server.io.get_executor(), server.transport, options);
        task<void> running(server.io, s.run());
        test::run(server.io, s.connected());
        // Messages that nobody subscribes to, and that are not kept, are acknowledged at once and do no harm.
        task<mqtt::basic_subscription<test::executor>> subscribing(server.io, s.subscribe(held ? "t" : "u"));
        test::settle(server.io);
        if (held) {
            CHECK(running.run_for_error() == errc::receive_maximum_exceeded);
        } else {
            CHECK_FALSE(running.done());
            running.cancel();
            CHECK(running.run_for_error() == asio::error::operation_aborted);
        }
        CHECK(subscribing.run_for_error() == errc::disconnected);
    }
}

TEST_CASE("a server that has sent more than announced is not held to it again") {
    std::string messages;
    for (char id = 1; id <= 3; ++id) messages += packet(0x32, test::field("t") + '\0' + id + '\0');
    scripted_server server{accepted_v5, messages, false, 1};
    auto options = test::quick("client", protocol_version::v5);
    options.receive_maximum = 2;
    memory_session s(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, s.run());
    task<mqtt::basic_subscription<test::executor>> subscribing(server.io, s.subscribe("t"));
    CHECK(test::wait_until(server.io, [&] { return s.counters().connections == 2; }));
    auto const first = server.heard.find(hex("21 00 02"));
    CHECK(first != std::string::npos);
    CHECK(server.heard.find(hex("21 ff ff"), first) != std::string::npos);
    running.cancel();
    CHECK(running.run_for_error());
    CHECK(subscribing.run_for_error() == errc::disconnected);
}

// A server that has kept a session, with a QoS 2 message to which it has not sent PUBREC.
TEST_CASE("a server that finds fault with PUBREL for an identifier that it has taken is tried again") {
    auto const present = hex("20 03 01 00 00");
    auto const too_early = test::encoded(mqtt::disconnect{reason_code::protocol_error, {}}, protocol_version::v5);
    scripted_server server{present, too_early};
    auto options = test::quick("client", protocol_version::v5);
    memory_session s(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, s.run());
    task<mqtt::publish_result> publishing(server.io, s.publish("t", "p", {.qos = qos::exactly_once}));
    auto const pubrel = hex("62 02 00 01");
    CHECK(test::wait_until(server.io, [&] { return s.counters().connections == 2; }));
    CHECK(server.heard.find(pubrel) != std::string::npos);
    CHECK_FALSE(publishing.done());
    auto const published = packet(0x34, test::field("t") + hex("00 01 00") + 'p');
    server.later = hex("70 02 00 01");  // by now it has seen to the message
    CHECK(test::wait_until(server.io, [&] { return server.heard.ends_with(published); }));
    running.cancel();
    CHECK(running.run_for_error());
    CHECK(publishing.run_for_error());
}

TEST_CASE("a session that may have begun with a CONNECT whose answer was missed gets the subscriptions once more") {
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        bool const v5 = version == protocol_version::v5;
        // SUBSCRIBE with the options given, and the rest as for the first.
        auto const subscribe = [&](char id, char options) {
            auto const props = v5 ? hex("02 0b 01") : std::string();
            return packet(0x82, std::string{'\0', id} + props + test::field("t") + options);
        };
        scripted_server server{v5 ? accepted_v5 : accepted, packet(0x90, hex(v5 ? "00 01 00 02" : "00 01 02"))};
        memory_session s(server.io.get_executor(), server.transport, test::quick("client", version));
        task<void> running(server.io, s.run());
        auto const subscription = test::run(server.io, s.subscribe("t"));
        CHECK(server.heard.ends_with(subscribe(1, 2)));
        // The connection ends, and CONNECT is sent so often.
        auto const connect_again = [&](int times, std::string answer) {
            auto const enough = std::ranges::count(server.heard, 'M') + times;
            server.ends = answer.empty();
            server.answer = std::move(answer);
            server.later = hex("c0 00");  // PINGREQ, which no server may send
            s.try_publish("p", "");
            CHECK(test::wait_until(server.io, [&] { return std::ranges::count(server.heard, 'M') >= enough; }));
            server.later.clear();
        };
        auto const present = v5 ? hex("20 03 01 00 00") : hex("20 02 01 00");
        connect_again(1, present);  // no reason yet
        CHECK(test::wait_until(server.io, [&] { return s.counters().connections == 2; }));
        CHECK(server.heard.find(subscribe(1, 2)) == server.heard.rfind(subscribe(1, 2)));
        connect_again(2, "");
        server.answer = present;
        server.ends = false;
        CHECK(test::wait_until(server.io, [&] { return server.heard.ends_with(subscribe(2, v5 ? 0x12 : 2)); }));
        running.cancel();
        CHECK(running.run_for_error());
    }
}

TEST_CASE("a server that finds fault with something else is not tried again") {
    auto const fault = test::encoded(mqtt::disconnect{reason_code::protocol_error, {}}, protocol_version::v5);
    scripted_server server{accepted_v5, fault};
    auto options = test::quick("client", protocol_version::v5);
    memory_session s(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, s.run());
    task<mqtt::publish_result> publishing(server.io, s.publish("t", "p", {.qos = qos::exactly_once}));
    CHECK(running.run_for_error() == reason_code::protocol_error);
    CHECK(publishing.run_for_error());
}

TEST_CASE("in MQTT 5 the server is told why, in DISCONNECT") {
    scripted_server server{accepted_v5, hex("40 02 00 01")};
    memory_session s(server.io.get_executor(), server.transport, once(protocol_version::v5));
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    CHECK(s.try_publish("t", "p"));
    CHECK(running.run_for_error() == errc::packet_identifier_unknown);
    test::settle(server.io);
    auto const expected =
        test::encoded(mqtt::disconnect{mqtt::reason_for(errc::packet_identifier_unknown), {}}, protocol_version::v5);
    CHECK(server.heard.ends_with(expected));
}

TEST_CASE("what the server says in DISCONNECT is why the connection ended, also right behind CONNACK") {
    auto const disconnect =
        test::encoded(mqtt::disconnect{reason_code::server_shutting_down, {}}, protocol_version::v5);
    CHECK(end_after(accepted_v5 + disconnect, protocol_version::v5) == reason_code::server_shutting_down);
    scripted_server server{accepted_v5, disconnect};
    memory_session s(server.io.get_executor(), server.transport, once(protocol_version::v5));
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    CHECK(s.try_publish("t", "p"));
    CHECK(running.run_for_error() == reason_code::server_shutting_down);
}

TEST_CASE("a server that does not answer CONNECT is given up after connect_timeout") {
    auto options = once();
    options.connect_timeout = std::chrono::milliseconds(20);
    scripted_server silent{""};
    CHECK(end_of(silent, options) == errc::connect_timeout);
    scripted_server slow{hex("20 02 00")};
    CHECK(end_of(slow, options) == errc::connect_timeout);
}

TEST_CASE("a server that does not answer a ping is given up after response_timeout") {
    auto options = once();
    options.keep_alive = std::chrono::seconds(1);
    options.response_timeout = std::chrono::milliseconds(20);
    scripted_server silent{accepted};
    CHECK(end_of(silent, options) == errc::keep_alive_timeout);
    CHECK(silent.heard.ends_with(hex("C0 00")));
}

TEST_CASE("a server that takes messages and never says anything is pinged all the same") {
    auto options = once();
    options.keep_alive = std::chrono::seconds(1);
    options.response_timeout = std::chrono::milliseconds(100);
    scripted_server silent{accepted};
    memory_session s(silent.io.get_executor(), silent.transport, options);
    task<void> running(silent.io, s.run());
    auto const begin = std::chrono::steady_clock::now();
    test::wait_until(silent.io, [&] {
        if (s.is_connected()) s.try_publish("t", "p");
        return running.done();
    });
    CHECK(running.error() == errc::keep_alive_timeout);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
}

TEST_CASE("a ping that is answered keeps the connection") {
    auto options = once();
    options.keep_alive = std::chrono::seconds(1);
    options.response_timeout = std::chrono::milliseconds(100);
    scripted_server server{accepted, hex("D0 00")};
    memory_session s(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, s.run());
    test::wait_until(server.io, [&] { return running.done(); }, std::chrono::milliseconds(1800));
    CHECK_FALSE(running.done());
    CHECK(server.heard.ends_with(hex("C0 00 C0 00")));
    test::run(server.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("the keep alive that an MQTT 5 server chooses takes the place of our own") {
    auto options = once(protocol_version::v5);
    options.keep_alive = std::chrono::seconds(600);
    options.response_timeout = std::chrono::milliseconds(20);
    scripted_server server{hex("20 06 00 00 03 13 00 01")};
    CHECK(end_of(server, options) == errc::keep_alive_timeout);
}

TEST_CASE("disconnect gives up after close_timeout on a server that reads nothing, and says so") {
    auto options = once();
    options.keep_alive = std::chrono::seconds(0);
    asio::io_context io;
    std::optional<runnel::memory_stream<>> far;
    runnel::memory_transport const transport([&](runnel::memory_stream<> s) { far.emplace(std::move(s)); });
    memory_session s(io.get_executor(), transport, options);
    task<void> running(io, s.run());
    test::settle(io);
    test::run(io, test::write_text(*far, accepted));
    test::run(io, s.connected());
    far->incoming().capacity = 64;
    CHECK(s.try_publish("t", std::string(1000, 'x')));
    test::settle(io);
    CHECK(test::error_of(io, s.disconnect()) == errc::close_timeout);
    CHECK_FALSE(running.run_for_error());
}
