#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/sample.hpp"
#include "support/scripted_peer.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// What a hostile server can make a session hold, and how that ends: docs/hostile-peers.md.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using runnel::testing::memory_watch;
using test::accepted;
using test::hex;
using test::memory_session;
using test::packet;
using test::task;
using kind = mqtt::session_event::kind;

constexpr auto v5 = protocol_version::v5;
constexpr std::size_t kib = 1024;
constexpr std::size_t mib = 1024 * kib;

// What the other end takes, and what is on its way: both are in this process.
constexpr std::size_t other_end = 384 * kib;

std::string repeated(std::string_view bytes, std::size_t about = 32 * kib) {
    std::string all;
    while (all.size() < about) all += bytes;
    return all;
}

// A server that answers CONNECT and then writes, whatever the client says.
struct flood {
    std::string answer;
    std::string chunk = {};  // is written again and again
    std::size_t times = 1'000'000'000;
    bool reads = true;        // what the client says, and drops it
    std::size_t written = 0;  // bytes behind `answer`
    std::size_t connections = 0;
    std::string heard = {};  // the last bytes
    asio::io_context io{};
    std::vector<std::unique_ptr<task<void>>> tasks{};
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        ++connections;
        auto const shared = std::make_shared<runnel::memory_stream<>>(std::move(s));
        tasks.push_back(std::make_unique<task<void>>(io, write(shared)));
    }};

    asio::awaitable<void> write(std::shared_ptr<runnel::memory_stream<>> s) {
        char room[kib];
        co_await s->read_some(asio::buffer(room));
        if (reads) tasks.push_back(std::make_unique<task<void>>(io, drain(s)));
        auto answering = test::write_text(*s, answer);
        co_await std::move(answering);
        runnel::send_buffer out;
        for (std::size_t i = 0; i < times && !chunk.empty(); ++i) {
            out.append(chunk);
            co_await s->write(out);
            written += chunk.size();
        }
        if (!reads) {  // stay there
            runnel::wait_list<asio::any_io_executor> for_ever(io.get_executor());
            runnel::waiter<asio::any_io_executor> w;
            co_await for_ever.wait(w);
        }
    }
    asio::awaitable<void> drain(std::shared_ptr<runnel::memory_stream<>> s) {
        std::string room(4 * kib, '\0');
        for (;;) {
            std::size_t const n = co_await s->read_some(asio::buffer(room));
            heard.assign(room, 0, n);
        }
    }
};

mqtt::session_options quick(protocol_version v = v5, std::uint32_t attempts = 1) {
    auto o = test::quick("client", v);
    o.reconnect.attempts = attempts;
    o.close_timeout = std::chrono::milliseconds(20);
    return o;
}

struct cost {
    std::error_code end;
    std::size_t peak = 0;
};

// Runs a session until it ends by itself, or `enough`.
template <class Server>
cost cost_of(Server& server, mqtt::session_options options, std::function<bool()> enough = [] { return false; }) {
    memory_session s(server.io.get_executor(), server.transport, std::move(options));
    task<void> running(server.io, s.run());
    memory_watch const watch;
    REQUIRE(test::wait_until(server.io, [&] { return running.done() || enough(); }, std::chrono::seconds(60)));
    cost c{{}, watch.peak()};
    if (!running.done()) {
        CHECK(s.is_connected());
        running.cancel();
    }
    c.end = running.run_for_error();
    return c;
}

}  // namespace

TEST_CASE("256 MiB that are announced and not allowed end the connection at once, and run tries again") {
    for (auto const v : test::versions) {
        flood server{accepted(v) + hex("30 FF FF FF 7F")};
        auto const c = cost_of(server, quick(v, 2));
        CHECK(c.end == errc::packet_too_large);
        CHECK(server.connections == 2);
        CHECK(c.peak < other_end + 64 * kib);
    }
}

TEST_CASE("256 MiB that are announced and allowed cost four times what has come, and at least 16 KiB") {
    for (std::size_t const come : {std::size_t{0}, 100 * kib, mib}) {
        flood server{accepted(v5) + hex("30 FF FF FF 7F 00 01 't' 00"), std::string(kib, 'x'), come / kib};
        auto options = quick();
        options.maximum_packet_size = std::numeric_limits<std::uint32_t>::max();
        options.keep_alive = std::chrono::seconds(1);
        options.response_timeout = std::chrono::milliseconds(20);
        auto const c = cost_of(server, options);
        CHECK(c.end == errc::keep_alive_timeout);                  // the server falls silent
        CHECK(c.peak < other_end + std::max(32 * kib, 5 * come));  // the old room and the new one
    }
}

TEST_CASE("a server that sends a byte at a time costs 16 KiB at most, before CONNACK for connect_timeout") {
    auto const props = test::properties_field(hex("1F") + test::field(std::string(60'000, 'x')));
    for (bool const connected : {false, true}) {
        asio::io_context io;
        std::vector<runnel::memory_stream<>> far;
        runnel::memory_transport const transport([&](runnel::memory_stream<> s) { far.push_back(std::move(s)); });
        auto options = quick();
        options.keep_alive = std::chrono::seconds(0);
        if (!connected) options.connect_timeout = std::chrono::milliseconds(50);
        memory_session s(io.get_executor(), transport, options);
        task<void> running(io, s.run());
        test::settle(io);
        if (connected) test::run(io, test::write_text(far[0], accepted(v5)));
        auto const slow = connected ? packet(0x30, test::field("t") + props + std::string(100 * kib, 'x'))
                                    : packet(0x20, hex("00 00") + props);
        memory_watch const watch;
        std::size_t sent = 0;
        while (!running.done() && sent < 5'000) {
            test::run(io, test::write_text(far[0], slow.substr(sent++, 1)));
            test::settle(io);
        }
        if (connected) {
            CHECK(s.is_connected());
            running.cancel();
            CHECK(running.run_for_error() == asio::error::operation_aborted);
        } else {
            CHECK(running.run_for_error() == errc::connect_timeout);
        }
        CHECK(watch.peak() < other_end + 64 * kib);
    }
}

TEST_CASE("millions of tiny packets cost nothing, and change nothing") {
    struct row {
        char const* what;
        std::string bytes;
        bool v5_only = false;
    };
    for (auto const& [what, bytes, v5_only] :
         {row{"PINGRESP", hex("D0 00")}, row{"PUBCOMP", hex("70 02 00 07")}, row{"QoS 0", hex("30 03 00 01 't'")},
          row{"QoS 0 without payload, MQTT 5", hex("30 04 00 01 't' 00"), true}}) {
        for (auto const v : test::versions) {
            if (v5_only != (v == v5) && bytes[0] == '\x30') continue;
            CAPTURE(what);
            flood server{accepted(v), repeated(bytes)};
            auto const c =
                cost_of(server, quick(v), [&] { return server.written / bytes.size() >= 1'000'000 / test::every(4); });
            CHECK(c.end == asio::error::operation_aborted);
            CHECK(c.peak < other_end + 192 * kib);
        }
    }
}

TEST_CASE(
    "hundreds of thousands of tiny messages of QoS 1 and 2 that no subscription wants cost their acknowledgements") {
    for (auto const first : {'\x32', '\x34'}) {
        for (auto const v : test::versions) {
            std::string const props(v == v5 ? 1 : 0, '\0');
            std::string messages;
            for (unsigned id = 1; id <= 4'000; ++id) {
                std::string const number{static_cast<char>(id >> 8), static_cast<char>(id)};
                messages += packet(static_cast<unsigned char>(first), test::field("t") + number + props);
                if (first == '\x34') messages += hex("62 02") + number;
            }
            flood server{accepted(v), messages};
            auto options = quick(v);
            options.unrouted_timeout = std::chrono::milliseconds(0);
            auto const c = cost_of(server, options, [&] { return server.written / messages.size() >= 60; });
            CHECK(c.end == asio::error::operation_aborted);
            CHECK(c.peak < other_end + 512 * kib);
        }
    }
}

TEST_CASE("65,535 QoS 2 identifiers that are never released cost 128 bytes each") {
    std::string messages;
    for (unsigned id = 1; id <= 65'535; ++id)
        messages += packet(0x34, test::field("t") + std::string{static_cast<char>(id >> 8), static_cast<char>(id)});
    flood server{accepted(protocol_version::v3_1_1), messages};
    auto options = quick(protocol_version::v3_1_1);
    options.unrouted_timeout = std::chrono::milliseconds(0);
    auto const c = cost_of(server, options, [&] { return server.written == 3 * messages.size(); });
    CHECK(c.end == asio::error::operation_aborted);
    CHECK(c.peak < other_end + 2 * messages.size() + 65'535 * 128);
}

TEST_CASE(
    "messages that are kept for a subscription to come are bounded by receive_maximum, in MQTT 3.1.1 with one read") {
    for (auto const v : test::versions) {
        std::string const props(v == v5 ? 1 : 0, '\0');
        std::string messages;
        std::string const payload(kib, 'x');
        for (unsigned id = 1; id <= 2'000; ++id) {
            std::string const number{static_cast<char>(id >> 8), static_cast<char>(id)};
            messages += packet(0x32, test::field("t") + number + props + payload);
        }
        flood server{accepted(v), messages, 1};
        auto options = quick(v);
        options.receive_maximum = 100;
        options.keep_alive = std::chrono::seconds(0);
        auto const c = cost_of(server, options, [&] {
            if (v != v5) test::settle(server.io);
            return v != v5;
        });
        CHECK(c.end == (v == v5 ? std::error_code(errc::receive_maximum_exceeded)
                                : std::error_code(asio::error::operation_aborted)));
        std::size_t const own = 2 * messages.size();  // in the server, and on its way
        CHECK(c.peak < other_end + own + (100 + 64) * 3 * kib / 2);
    }
}

TEST_CASE("messages that nobody takes are held up to a bound in bytes, also where an answer is waited for, and come") {
    enum class application { reads_late, waits_for_an_answer, subscribes_late };
    using enum application;
    for (auto const v : test::versions)
        for (auto const how : {reads_late, waits_for_an_answer, subscribes_late}) {
            CAPTURE(static_cast<int>(how));
            auto options = test::quick("client", v);
            options.maximum_held = mib;
            test::connected_session c(options);
            std::optional subscription(c.subscribe("t", {.inbox = 1}));
            if (how == subscribes_late) subscription.reset();
            constexpr std::size_t count = 500;
            std::string const end(8 * kib, '#');
            for (std::size_t i = 0; i < count; ++i)
                c.broker.publish("t", std::to_string(i) + end, i % 2 == 0 ? qos::at_least_once : qos::exactly_once);
            c.settle();
            CHECK(c.session.counters().bytes_received > mib / 2);
            CHECK(c.session.counters().bytes_received < mib + 192 * kib);
            if (how == waits_for_an_answer) CHECK_FALSE(is_error(c.publish("u", "p", qos::at_least_once)));
            if (how == subscribes_late) subscription = c.subscribe("t", {.inbox = 1});
            std::vector<int> times(count);
            for (std::size_t i = 0; i < count; ++i) {
                auto const m = test::run(c.io, subscription->receive());
                ++times[static_cast<std::size_t>(std::stoul(std::string(m.payload().substr(0, 3))))];
            }
            CHECK(std::ranges::count(times, 1) == count);
            // SUBACK, too, is an answer: what comes before it is left out, and comes on another connection.
            CHECK(c.session.counters().connections == (how == reads_late ? 1 : 2));
            c.disconnect();
        }
}

TEST_CASE("a server that makes answers and does not take them costs what may wait, and 1 MiB, twice") {
    for (auto const* asking : {"62 02 00 07", "50 02 00 07"}) {
        for (auto const v : test::versions) {
            flood server{accepted(v), repeated(hex(asking))};
            server.reads = false;
            auto options = quick(v, 2);
            options.maximum_unwritten = 64 * kib;
            options.maximum_queued = 64 * kib;
            auto const c = cost_of(server, options);
            // PUBREC for what has not been sent: of MQTT 5 a violation, of MQTT 3.1.1 answered as of old.
            CHECK((c.end == errc::answers_not_taken || c.end == errc::packet_identifier_unknown));
            CHECK(server.connections == 2);
            CHECK(c.peak < other_end + 4 * (mib + 128 * kib));
        }
    }
}

TEST_CASE("CONNACK, AUTH and answers that nobody has asked for end the connection, however many come") {
    struct row {
        char const* what;
        std::string bytes;
        errc end;
    };
    for (auto const& [what, bytes, end] :
         {row{"CONNACK", accepted(v5), errc::unexpected_packet}, row{"AUTH", hex("F0 00"), errc::unexpected_packet},
          row{"AUTH to go on", hex("F0 08 18 06 15 00 03 'abc'"), errc::unexpected_packet},
          row{"PUBACK", hex("40 02 00 07"), errc::packet_identifier_unknown},
          row{"PUBCOMP of an error", hex("70 03 00 00 92"), errc::packet_identifier_zero},
          row{"SUBACK", hex("90 04 00 07 00 00"), errc::packet_identifier_unknown},
          row{"UNSUBACK", hex("B0 04 00 07 00 00"), errc::packet_identifier_unknown}}) {
        CAPTURE(what);
        flood server{accepted(v5), repeated(bytes)};
        auto const c = cost_of(server, quick(v5, 2));
        CHECK(c.end == end);
        CHECK(server.connections == 2);
        CHECK(c.peak < other_end + 128 * kib);
    }
}

namespace {

struct patient_authenticator {
    std::size_t* asked;
    std::string method() { return "abc"; }
    asio::awaitable<std::string> begin() { co_return "first"; }
    asio::awaitable<std::string> answer(std::string) {
        ++*asked;
        co_return "again";
    }
    asio::awaitable<void> finish(std::string) { co_return; }
};

}  // namespace

TEST_CASE(
    "a server that goes on asking for authentication is answered until connect_timeout, and one that does not wait is "
    "left") {
    auto const more = test::encoded(
        [] {
            static mqtt::properties props;
            props.authentication_method = "abc";
            props.authentication_data = "more";
            return mqtt::auth{reason_code::continue_authentication, &props};
        }(),
        v5);
    for (bool const waits : {true, false}) {
        test::scripted_peer server([&](test::heard_packet const&) { return waits ? more : repeated(more, 1000); });
        std::size_t asked = 0;
        auto options = quick(v5, 2);
        options.connect_timeout = std::chrono::milliseconds(100);
        memory_session s(server.io.get_executor(), server.transport, options);
        s.set_authenticator(patient_authenticator{&asked});
        task<void> running(server.io, s.run());
        memory_watch const watch;
        auto const end = running.run_for_error();
        CHECK(end == (waits ? errc::connect_timeout : errc::unexpected_packet));
        CHECK(server.connections == 2);
        // The server here keeps what it hears.
        auto const kept = server.heard.size() * 256;
        CHECK(watch.peak() < other_end + 64 * kib + kept);
        if (waits) CHECK(asked > 2);
    }
}

namespace {

// User properties that have no name and no value: 5 bytes each.
std::string user_properties(std::size_t bytes) { return repeated(hex("26 00 00 00 00"), bytes); }

}  // namespace

TEST_CASE("user properties of an acknowledgement are kept up to 64 KiB, however many a packet has") {
    auto const props = test::properties_field(user_properties(4 * mib));
    test::scripted_peer server([&](test::heard_packet const& p) -> std::string {
        if (p.type == mqtt::packet_type::connect) return accepted(v5);
        if (p.type != mqtt::packet_type::publish) return "";
        return packet(0x40, p.body.substr(3, 2) + '\x10' + props);
    });
    memory_session s(server.io.get_executor(), server.transport, quick());
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    memory_watch const watch;
    auto const result = test::run(server.io, s.publish("t", "", {.qos = qos::at_least_once}));
    REQUIRE(result.details);
    CHECK(result.details->user_properties.size() == 64 * kib / sizeof(result.details->user_properties[0]));
    CHECK(watch.held() < 3 * 4 * mib);
    // The server's packet, twice and in pieces; what comes in of it; and 64 KiB, while they are put together.
    CHECK(watch.peak() < 6 * props.size() + other_end);
    running.cancel();
    running.run_for_error();
    running.cancel();
}

TEST_CASE("messages with properties up to the limit wait in an inbox within its bound") {
    auto const message =
        packet(0x30, test::field("t") + test::properties_field(user_properties(200 * kib)) + "payload");
    auto const suback = hex("90 04 00 01 00 00");
    test::scripted_peer server([&](test::heard_packet const& p) -> std::string {
        return p.type == mqtt::packet_type::connect     ? accepted(v5)
               : p.type == mqtt::packet_type::subscribe ? suback
               : p.type == mqtt::packet_type::publish   ? repeated(message, 2 * mib)
                                                        : "";
    });
    memory_session s(server.io.get_executor(), server.transport, quick());
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    auto inbox = test::run(server.io, s.subscribe("t", {.inbox = mib}));
    for (int i = 0; i < 3; ++i) {
        s.try_publish("go", "");
        test::settle(server.io);
    }
    memory_watch const watch;
    for (int i = 0; i < 10; ++i) {
        s.try_publish("go", "");
        test::settle(server.io);
    }
    CHECK(inbox.dropped() > 50);
    CHECK(watch.held() < 256 * kib);
    std::size_t got = 0;
    while (inbox.try_receive()) ++got;
    CHECK(got <= mib / message.size() + 1);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("topic aliases cost a topic each, however often they are given anew, and one too many ends the connection") {
    auto const with_alias = [](unsigned alias, std::string const& topic) {
        return packet(0x30, test::field(topic) + hex("03 23 00") + static_cast<char>(alias));
    };
    std::string all;
    for (unsigned alias = 1; alias <= 16; ++alias)
        all += with_alias(alias, std::string(60'000, static_cast<char>('a' + alias)));
    flood server{accepted(v5), all};
    auto const c = cost_of(server, quick(), [&] { return server.written / all.size() >= 50; });
    CHECK(c.end == asio::error::operation_aborted);
    CHECK(c.peak < other_end + 16 * 64 * kib + 2 * all.size() + 256 * kib);

    for (auto const& [bytes, end] : {std::pair{with_alias(17, "t"), errc::topic_alias_invalid},
                                     std::pair{with_alias(0, "t"), errc::property_value_out_of_range},
                                     std::pair{with_alias(7, ""), errc::topic_alias_unknown}}) {
        flood abusing{accepted(v5), bytes, 1};
        auto const refused = cost_of(abusing, quick(v5, 2));
        CHECK(refused.end == end);
        CHECK(abusing.connections == 2);
        CHECK(refused.peak < other_end + 64 * kib);
    }
}

TEST_CASE("texts as long as there are, in whatever a server says of an end, cost their packet") {
    std::string const props =
        hex("1F") + test::field(std::string(65'535, '\x01')) + hex("1C") + test::field(std::string(65'535, 's'));
    for (auto const first : {0x20, 0xE0}) {
        std::string const body = first == 0x20 ? hex("00 9C") : hex("9C");
        auto const said =
            packet(static_cast<unsigned char>(first), body + test::properties_field(props + user_properties(mib)));
        flood server{first == 0x20 ? said : accepted(v5) + said};
        auto options = quick(v5, 2);
        options.follow_redirects = true;
        std::size_t detail = 0;
        options.on_event = [&](mqtt::session_event const& e) {
            detail = std::max(detail, e.detail.size() + e.url.size());
        };
        auto const c = cost_of(server, options);
        CHECK(c.end == reason_code::use_another_server);
        CHECK(server.connections == 2);
        CHECK(detail < 1'200);
        CHECK(c.peak < other_end + 8 * said.size());
    }
}

TEST_CASE("a server that accepts and names another one is followed five times in a row, then after pauses") {
    for (auto const reason : {reason_code::use_another_server, reason_code::server_moved}) {
        static mqtt::properties props;
        props.server_reference = "other";
        auto const moved = test::encoded(mqtt::disconnect{reason, &props}, v5);
        flood server{accepted(v5) + moved};
        auto options = quick(v5, 3);
        options.follow_redirects = true;
        std::vector<kind> events;
        options.on_event = [&](mqtt::session_event const& e) {
            if (e.what == kind::redirected || e.what == kind::waiting) events.push_back(e.what);
        };
        auto const c = cost_of(server, options);
        CHECK(c.end == reason);
        CHECK(server.connections == 3 * 6);
        std::vector<kind> expected;
        for (int i = 0; i < 3; ++i) {
            if (i > 0) expected.push_back(kind::waiting);
            expected.insert(expected.end(), 5, kind::redirected);
        }
        CHECK(events == expected);
        CHECK(c.peak < 3 * 6 * 64 * kib);
    }
}

TEST_CASE("a server reference with controls, spaces or what no host has is not followed, nor printed as it is") {
    std::string const long_name(300, 'a');
    for (std::string_view const reference : {"a\x1b[2J", "a\r\nb", "a/b", "user@host", long_name.c_str(), ":0"}) {
        mqtt::properties props;
        props.server_reference = reference;
        flood server{test::encoded(mqtt::connack{.reason = reason_code::use_another_server, .props = &props}, v5)};
        auto options = quick();
        options.follow_redirects = true;
        std::string printed;
        options.on_event = [&](mqtt::session_event const& e) {
            CHECK(e.what != kind::redirected);
            printed += to_string(e);
        };
        CHECK(cost_of(server, options).end == reason_code::use_another_server);
        for (char const c : printed) CHECK(static_cast<unsigned char>(c) >= 0x20);
    }
}

TEST_CASE("texts with NUL are refused before anything of them is sent") {
    using namespace std::string_literals;
    flood server{accepted(v5)};
    memory_session s(server.io.get_executor(), server.transport, quick());
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    std::string const bad = "a\0b"s;
    mqtt::properties props;
    props.content_type = bad;
    CHECK(test::error_of(server.io, s.publish(bad, "x")));
    CHECK(test::error_of(server.io, s.publish("t", "x", {.props = &props})));
    CHECK(test::error_of(server.io, test::only(s.subscribe(bad))));
    CHECK(s.is_connected());
    CHECK(server.heard.empty());
    running.cancel();
    running.run_for_error();
    auto const refused = [&](auto change) {
        auto o = quick();
        change(o);
        flood other{accepted(v5)};
        auto const error = cost_of(other, o).end;
        CHECK(other.heard.empty());
        return error;
    };
    CHECK(refused([&](auto& o) { o.credentials.client_id = bad; }));
    CHECK(refused([&](auto& o) { o.credentials.user_name = bad; }));
    CHECK(refused([&](auto& o) {
        o.will.emplace();
        o.will->topic = bad;
    }));
}
