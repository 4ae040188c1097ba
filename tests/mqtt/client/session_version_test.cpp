#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/any_transport.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/buffer.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <algorithm>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// An automatic session: which version of MQTT it speaks to which server, and what becomes of what only MQTT 5 has.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::packet_type;
using mqtt::protocol_version;
using mqtt::reason_code;
using test::hex;
using test::memory_session;
using test::task;
using kind = mqtt::session_event::kind;
using namespace std::chrono_literals;

constexpr auto automatic = protocol_version::automatic;
constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

// How a server answers CONNECT.
struct reply {
    std::string bytes{};
    bool closes = false;  // without these bytes, or behind them
};
reply const accepts_3{hex("20 02 00 00")}, accepts_5{hex("20 03 00 00 00")}, closes{"", true};
reply const code_1{hex("20 02 00 01"), true}, refuses_5{hex("20 03 00 84 00"), true};
reply const busy_3{hex("20 02 00 03"), true}, busy_5{hex("20 03 00 88 00"), true};

protocol_version version_of(test::heard_packet const& connect) { return protocol_version(connect.body.at(6)); }

// A server that answers CONNECT by its version and by how many there have been, and acknowledges QoS 1.
struct server {
    using rule = std::function<reply(protocol_version, std::size_t)>;
    rule on_connect;
    std::vector<protocol_version> tried{};
    std::vector<mqtt::session_event> events{};
    test::scripted_peer peer{[this](test::heard_packet const& p) { return answer(p); }};
    bool ends_next = false;  // closes the connection at the next packet

    explicit server(rule r) : on_connect(std::move(r)) {}
    explicit server(reply in_5, reply in_3)
        : server([=](protocol_version v, std::size_t) { return v == v5 ? in_5 : in_3; }) {}

    std::optional<std::string> answer(test::heard_packet const& p) {
        if (std::exchange(ends_next, false) || p.type == packet_type::disconnect) return std::nullopt;
        if (p.type == packet_type::connect) {
            tried.push_back(version_of(p));
            auto const said = on_connect(tried.back(), tried.size());
            if (said.closes && said.bytes.empty()) return std::nullopt;
            peer.closes_behind = said.closes;
            return said.bytes;
        }
        return p.type == packet_type::pingreq ? hex("D0 00") : "";
    }
    mqtt::session_options options() {
        auto o = test::quick("client", automatic);
        o.reconnect.attempts = 3;
        o.close_timeout = 50ms;
        o.on_event = [this](auto const& e) { events.push_back(e); };
        return o;
    }
    std::size_t count(kind what) const {
        return static_cast<std::size_t>(std::ranges::count(events, what, &mqtt::session_event::what));
    }
    // How `run` ends.
    std::error_code end(mqtt::session_options o) {
        memory_session s(peer.io.get_executor(), peer.transport, std::move(o));
        task<void> running(peer.io, s.run());
        return running.run_for_error();
    }
    std::error_code end() { return end(options()); }
};

using versions = std::vector<protocol_version>;

// A broker in memory that takes MQTT 5 or not, as the test says.
struct choosing_broker : test::memory_fixture {
    bool takes_5 = true;
    std::vector<protocol_version> tried;
    std::vector<mqtt::session_event> events;

    choosing_broker() {
        broker.hooks().on_connect = [this](runnel::testing::connect_attempt& a) {
            tried.push_back(a.version);
            return a.version == v5 && !takes_5 ? reason_code::unsupported_protocol_version : reason_code::success;
        };
    }
    mqtt::session_options options() {
        auto o = test::quick("client", automatic);
        o.on_event = [this](auto const& e) { events.push_back(e); };
        return o;
    }
    mqtt::session_event const* last(kind what) const {
        auto const at = std::find_if(events.rbegin(), events.rend(), [=](auto const& e) { return e.what == what; });
        return at == events.rend() ? nullptr : &*at;
    }
};

std::error_code error_of_publish(asio::io_context& io, memory_session& s, mqtt::publish_options o) {
    return test::error_of(io, s.publish("t", "p", o));
}

}  // namespace

TEST_CASE("an automatic session speaks MQTT 5 where the server takes it") {
    server s(accepts_5, accepts_3);
    memory_session session(s.peer.io.get_executor(), s.peer.transport, s.options());
    task<void> running(s.peer.io, session.run());
    test::run(s.peer.io, session.connected());
    CHECK(s.tried == versions{v5});
    CHECK(session.negotiated()->version == v5);
    CHECK(session.negotiated()->session_expiry == 1h);
    CHECK(s.count(kind::fallback) == 0);
    test::run(s.peer.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("MQTT 3.1.1 is tried at once where MQTT 5 is refused: in its own form, in the old one, or by a close") {
    for (auto const& refusal :
         {refuses_5, code_1, reply{hex("20 02 00 05"), true}, reply{hex("20 02 00 00"), true}, closes}) {
        CAPTURE(refusal.bytes);
        server s(refusal, accepts_3);
        memory_session session(s.peer.io.get_executor(), s.peer.transport, s.options());
        task<void> running(s.peer.io, session.run());
        test::run(s.peer.io, session.connected());
        CHECK(s.tried == versions{v5, v3});
        CHECK(session.negotiated()->version == v3);
        CHECK(session.negotiated()->session_expiry == mqtt::never_expires);
        // It is told, without a pause; and once more for each connection.
        CHECK(s.count(kind::waiting) == 0);
        CHECK(s.count(kind::connecting) == 2);
        CHECK(s.count(kind::disconnected) == 1);
        CHECK(s.count(kind::fallback) == 1);
        CHECK(to_string(*std::ranges::find(s.events, kind::fallback, &mqtt::session_event::what)) ==
              "this is MQTT 3.1.1: options of MQTT 5 have no effect, nor the properties of 0 messages");

        // The next attempt begins with what has been found out.
        s.ends_next = true;
        CHECK(session.try_publish("t", "p"));
        test::run(s.peer.io, session.connected(1));
        CHECK(s.tried == versions{v5, v3, v3});
        test::run(s.peer.io, session.disconnect());
        CHECK_FALSE(running.run_for_error());

        // The next run does not.
        task<void> again(s.peer.io, session.run());
        test::run(s.peer.io, session.connected(2));
        CHECK(s.tried == versions{v5, v3, v3, v5, v3});
        test::run(s.peer.io, session.disconnect());
        CHECK_FALSE(again.run_for_error());
    }
}

TEST_CASE("a server that takes neither version is one failed attempt, or the end of run, but no loop") {
    {
        server s(closes, closes);
        CHECK(s.end() == asio::error::eof);
        CHECK(s.tried == versions{v5, v3, v5, v3, v5, v3});  // three attempts
        CHECK(s.count(kind::waiting) == 2);
    }
    {
        server s(refuses_5, code_1);
        CHECK(s.end() == reason_code::unsupported_protocol_version);
        CHECK(s.tried == versions{v5, v3});
    }
    {
        server s(closes, code_1);  // 5 is tried once more, as silence is no proof
        CHECK(s.end() == asio::error::eof);
        CHECK(s.tried == versions{v5, v3, v5, v5, v5});
    }
    {
        server s(refuses_5, closes);
        CHECK(s.end() == asio::error::eof);
        CHECK(s.tried == versions{v5, v3, v3, v3});
    }
    {
        server s(closes, refuses_5);  // in the form of MQTT 5
        CHECK(s.end() == asio::error::eof);
        CHECK(s.tried == versions{v5, v3, v5, v5, v5});
    }
}

TEST_CASE("other refusals, silence without an end, and rubbish say nothing of the version") {
    server busy(busy_5, accepts_3);
    CHECK(busy.end() == reason_code::server_unavailable);
    CHECK(busy.tried == versions{v5, v5, v5});

    server silent(reply{}, accepts_3);
    auto o = silent.options();
    o.connect_timeout = 20ms;
    CHECK(silent.end(o) == errc::connect_timeout);
    CHECK(silent.tried == versions{v5, v5, v5});

    for (auto const* bytes : {"15 03 01 00", "20 02 00 06", "20 03"}) {
        CAPTURE(bytes);
        server rubbish({hex(bytes)}, accepts_3);
        auto options = rubbish.options();
        options.connect_timeout = 20ms;
        CHECK(rubbish.end(options));
        CHECK(rubbish.tried == versions{v5, v5, v5});
    }

    // It has begun to answer.
    for (std::string const bytes : {"20", "20 03", "20 03 00 00"}) {
        CAPTURE(bytes);
        server broken_off({hex(bytes), true}, accepts_3);
        CHECK(broken_off.end() == asio::error::eof);
        CHECK(broken_off.tried == versions{v5, v5, v5});
    }
}

TEST_CASE("a server that CONNECT has not reached has said nothing of the version") {
    for (auto const why : std::initializer_list<std::error_code>{asio::error::connection_refused, asio::error::eof,
                                                                 asio::error::connection_reset}) {
        CAPTURE(why.message());
        // The first time it breaks its answer off, so that it is known, and nothing of it.
        server s([](protocol_version v, std::size_t n) {
            if (n == 1) return reply{hex("20 03"), true};
            return v == v5 ? accepts_5 : accepts_3;
        });
        std::size_t attempts = 0;
        runnel::memory_transport transport([&](runnel::memory_stream<> stream) {
            if (++attempts == 2) throw std::system_error(why);
            s.peer.accept(std::move(stream));
        });
        memory_session session(s.peer.io.get_executor(), transport, s.options());
        task<void> running(s.peer.io, session.run());
        test::run(s.peer.io, session.connected());
        CHECK(attempts == 3);
        CHECK(s.count(kind::waiting) == 2);
        CHECK(s.tried == versions{v5, v5});
        test::run(s.peer.io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
}

TEST_CASE("a server that has answered in a version is not suspected for a silence, and 3.1.1 by silence is forgotten") {
    server s([](protocol_version v, std::size_t n) {
        if (v == v3) return accepts_3;
        return n == 1 ? busy_5 : closes;
    });
    CHECK(s.end() == asio::error::eof);
    CHECK(s.tried == versions{v5, v5, v5});

    // Both versions are silent the second time, and then 5 is spoken: the server was away.
    server back([](protocol_version v, std::size_t n) {
        if (n == 2) return busy_3;
        if (n < 4) return closes;
        return v == v5 ? accepts_5 : accepts_3;
    });
    memory_session session(back.peer.io.get_executor(), back.peer.transport, back.options());
    task<void> running(back.peer.io, session.run());
    test::run(back.peer.io, session.connected());
    CHECK(back.tried == versions{v5, v3, v3, v5});
    CHECK(session.negotiated()->version == v5);
    test::run(back.peer.io, session.disconnect());
}

TEST_CASE("the two tries are one attempt for the schedule, however often they come") {
    server s([](protocol_version v, std::size_t) { return v == v5 ? refuses_5 : busy_3; });
    auto o = s.options();
    o.reconnect.attempts = 4;
    CHECK(s.end(o) == reason_code::server_unavailable);
    CHECK(s.tried == versions{v5, v3, v3, v3, v3});
    CHECK(s.count(kind::waiting) == 3);
}

TEST_CASE("the same over TCP, where the end of a connection may be a reset") {
    for (bool const resets : {false, true}) {
        asio::io_context io;
        asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
        versions tried;
        auto serving = [&]() -> asio::awaitable<void> {
            for (;;) {
                auto socket = co_await acceptor.async_accept(asio::use_awaitable);
                std::string room(1024, '\0');
                co_await socket.async_read_some(asio::buffer(room), asio::use_awaitable);
                tried.push_back(protocol_version(room.at(8)));
                if (tried.back() == v5) {
                    if (resets) socket.set_option(asio::socket_base::linger(true, 0));
                    continue;  // and so closes it
                }
                co_await asio::async_write(socket, asio::buffer(accepts_3.bytes), asio::use_awaitable);
                co_await socket.async_read_some(asio::buffer(room), asio::use_awaitable);
            }
        };
        task<void> server(io, serving());
        runnel::tcp transport{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()};
        mqtt::session<runnel::tcp> session(io.get_executor(), transport, test::quick("client", automatic));
        task<void> running(io, session.run());
        test::run(io, session.connected());
        CHECK(tried == versions{v5, v3});
        CHECK(session.negotiated()->version == v3);
        test::run(io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
        acceptor.close();
        server.run_for_error();
    }
}

TEST_CASE("between the two tries a session can be cancelled, ended and destroyed") {
    for (int const how : {0, 1, 2}) {
        CAPTURE(how);
        server s(refuses_5, accepts_3);
        std::optional<memory_session> session;
        std::optional<task<void>> running, leaving;
        auto o = s.options();
        o.on_event = [&](mqtt::session_event const& e) {
            s.events.push_back(e);
            if (e.what != kind::disconnected || s.count(kind::disconnected) != 1) return;
            if (how == 0) running->cancel();
            if (how == 1) leaving.emplace(s.peer.io, session->disconnect());
            if (how == 2) asio::post(s.peer.io, [&] { session.reset(); });
        };
        session.emplace(s.peer.io.get_executor(), s.peer.transport, o);
        running.emplace(s.peer.io, session->run());
        auto const error = running->run_for_error();
        if (how == 0) CHECK(error == asio::error::operation_aborted);
        if (how == 1) CHECK_FALSE(error);
        if (how == 2) CHECK(error == errc::disconnected);
        CHECK(s.count(kind::connected) == 0);
    }
}

TEST_CASE("what only MQTT 5 has is taken until the version is known, and is an error where that is 3.1.1") {
    choosing_broker b;
    b.takes_5 = false;
    mqtt::properties text;
    text.content_type = "text";
    auto o = b.options();
    o.session_expiry = 1min;
    o.will = {.topic = "w", .payload = "gone", .delay = 10s};
    memory_session s(b.io.get_executor(), b.transport, o);
    // All of these wait for the first connection.
    task<mqtt::publish_result> with(b.io, s.publish("a", "1", {.qos = mqtt::qos::at_least_once, .props = &text}));
    task<mqtt::publish_result> without(b.io, s.publish("b", "2", {.qos = mqtt::qos::at_least_once}));
    CHECK(s.try_publish("c", "3", {.props = &text}));
    task<memory_session::subscription> plain(b.io, s.subscribe("b"));
    task<memory_session::subscription> special(b.io, s.subscribe("d", {.no_local = true}));
    task<mqtt::message> asking(b.io, s.request("service", "", 10s));
    task<void> running(b.io, s.run());
    test::run(b.io, s.connected());
    CHECK(b.tried == versions{v5, v3});
    CHECK(with.run_for_error() == errc::not_in_this_version);
    CHECK_FALSE(without.run_for_error());
    CHECK_FALSE(plain.run_for_error());
    CHECK(special.run_for_error() == errc::not_in_this_version);
    CHECK(asking.run_for_error() == errc::not_in_this_version);
    REQUIRE(b.last(kind::fallback));
    CHECK(b.last(kind::fallback)->detail == "2");
    REQUIRE(b.last(kind::connected));

    // From now on it is known.
    for (auto const quality : test::qualities) {
        CHECK(error_of_publish(b.io, s, {.qos = quality, .props = &text}) == errc::not_in_this_version);
        CHECK_FALSE(error_of_publish(b.io, s, {.qos = quality}));
    }
    CHECK(test::error_of(b.io, s.subscribe("e", {.retain_as_published = true})) == errc::not_in_this_version);
    CHECK(test::error_of(b.io, s.request("service", "", 10s)) == errc::unsupported_protocol_version);
    auto const taken = test::run(b.io, s.subscribe("f"));
    mqtt::user_property const why[] = {{"a", "b"}};
    CHECK(test::error_of(b.io, s.unsubscribe(taken, why)) == errc::not_in_this_version);
    CHECK_FALSE(test::error_of(b.io, s.unsubscribe(taken)));
    CHECK(b.broker.counters().protocol_errors == 0);
    test::run(b.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("messages of all qualities go through in either version, and over a change between them") {
    choosing_broker b;
    mqtt::properties text;
    text.content_type = "text";
    auto listener_options = test::quick("listener", v5);
    memory_session listener(b.io.get_executor(), b.transport, listener_options);
    task<void> listening(b.io, listener.run());
    std::vector<std::string> heard;
    auto const all = test::run(b.io, listener.subscribe("#", [&](mqtt::publish const& p) {
        auto const type = p.props.get<mqtt::property_id::content_type>();
        heard.push_back(std::string(p.topic) + (type ? "+" : "") + std::string(p.payload));
    }));
    memory_session s(b.io.get_executor(), b.transport, b.options());
    task<void> running(b.io, s.run());
    std::vector<std::string> expected;
    std::uint64_t connections = 0;
    for (bool const takes_5 : {true, false, true}) {
        b.takes_5 = takes_5;
        if (connections != 0) b.broker.drop_client("client");
        connections = test::run(b.io, s.connected(connections));
        CHECK(s.negotiated()->version == (connections == 1 ? v5 : v3));
        for (auto const quality : test::qualities) {
            auto const payload = std::to_string(expected.size());
            test::run(b.io, s.publish("plain", payload, {.qos = quality}));
            expected.push_back("plain" + payload);
            if (s.negotiated()->version != v5) continue;
            test::run(b.io, s.publish("typed", payload, {.qos = quality, .props = &text}));
            expected.push_back("typed+" + payload);
        }
    }
    CHECK(test::wait_until(b.io, [&] { return heard.size() == expected.size(); }));
    CHECK(heard == expected);
    test::run(b.io, s.disconnect());
    test::run(b.io, listener.disconnect());
}

TEST_CASE("a message that may have arrived with its properties goes without them to a server of MQTT 3.1.1") {
    // The first connection takes MQTT 5 and ends at PUBLISH; then 5 is refused.
    server s([](protocol_version v, std::size_t n) {
        if (v == v3) return accepts_3;
        return n == 1 ? accepts_5 : refuses_5;
    });
    mqtt::properties text;
    text.content_type = "text";
    text.message_expiry_interval = 1000;
    memory_session session(s.peer.io.get_executor(), s.peer.transport, s.options());
    task<void> running(s.peer.io, session.run());
    test::run(s.peer.io, session.connected());
    s.ends_next = true;
    task<mqtt::publish_result> publishing(
        s.peer.io, session.publish("topic", "payload", {.qos = mqtt::qos::at_least_once, .props = &text}));
    test::run(s.peer.io, session.connected(1));
    CHECK(s.tried == versions{v5, v5, v3});
    CHECK(test::wait_until(s.peer.io, [&] { return s.peer.count(packet_type::publish) == 2; }));
    CHECK(s.peer.heard.back().body == hex("00 05 'topic' 00 01 'payload'"));
    auto const told = std::ranges::find(s.events, kind::fallback, &mqtt::session_event::what);
    REQUIRE(told != s.events.end());
    CHECK(told->detail == "1");
    test::run(s.peer.io, session.disconnect());
    CHECK(publishing.run_for_error() == errc::disconnected);
}

TEST_CASE("a stored session is the same whichever version its last connection had") {
    auto const store = std::make_shared<test::memory_store>();
    choosing_broker b;
    b.takes_5 = false;
    mqtt::properties text;
    text.content_type = "text";
    auto o = b.options();
    o.store = store;
    {
        memory_session s(b.io.get_executor(), b.transport, o);
        CHECK(s.try_publish("a", "typed", {.qos = mqtt::qos::at_least_once, .props = &text}));
        CHECK(s.try_publish("b", "plain", {.qos = mqtt::qos::at_least_once}));
        s.save();
    }
    {
        // It was another process, so that nobody knows whether they have been sent: none is refused.
        memory_session s(b.io.get_executor(), b.transport, o);
        CHECK(s.restored() == 2);
        task<void> running(b.io, s.run());
        test::run(b.io, s.drained());
        CHECK(b.last(kind::fallback)->detail == "1");
        CHECK(b.broker.counters().protocol_errors == 0);
        test::run(b.io, s.disconnect());
    }
    // And what is stored by a session of one version is read by an automatic one.
    for (auto const version : test::versions) {
        o.version = version;
        {
            memory_session s(b.io.get_executor(), b.transport, o);
            CHECK(s.try_publish("c", "p", {.qos = mqtt::qos::at_least_once}));
            s.save();
        }
        o.version = automatic;
        memory_session s(b.io.get_executor(), b.transport, o);
        CHECK(s.restored() == 1);
        task<void> running(b.io, s.run());
        test::run(b.io, s.drained());
        test::run(b.io, s.disconnect());
    }
}

TEST_CASE("another server is asked for MQTT 5 again") {
    // The first one refuses MQTT 5, and then everybody.
    server s([](protocol_version v, std::size_t n) {
        if (n <= 2) return v == v5 ? refuses_5 : busy_3;
        return v == v5 ? accepts_5 : accepts_3;
    });
    auto a = s.peer.transport, b = s.peer.transport;
    a.host = "a";
    b.host = "b";
    runnel::failover<runnel::memory_transport> both({a, b});
    mqtt::session<runnel::failover<runnel::memory_transport>> session(s.peer.io.get_executor(), both, s.options());
    task<void> running(s.peer.io, session.run());
    test::run(s.peer.io, session.connected());
    CHECK(s.tried == versions{v5, v3, v5});
    test::run(s.peer.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
}

namespace {

// Two servers, of which the preferred one, `a`, can be reached or not.
struct two_servers {
    server s;
    char at = 'a';  // where the last connection went
    bool first_is_up = true;

    explicit two_servers(server::rule r) : s(std::move(r)) {}

    runnel::memory_transport to(char name) {
        runnel::memory_transport t([this, name](runnel::memory_stream<> stream) {
            if (name == 'a' && !first_is_up) throw std::system_error(asio::error::connection_refused);
            at = name;
            s.peer.accept(std::move(stream));
        });
        t.host = name;
        return t;
    }
    runnel::failover<runnel::memory_transport> both() {
        return runnel::failover<runnel::memory_transport>({to('a'), to('b')}, runnel::failover_order::prefer_first);
    }
};

}  // namespace

TEST_CASE_TEMPLATE("a server that takes the place of another within one attempt is asked for MQTT 5", Transport,
                   runnel::failover<runnel::memory_transport>, runnel::any_transport) {
    two_servers t([&](protocol_version v, std::size_t) {
        if (v == v3) return accepts_3;
        return t.at == 'a' ? refuses_5 : accepts_5;
    });
    mqtt::session<Transport> session(t.s.peer.io.get_executor(), Transport(t.both()), t.s.options());
    task<void> running(t.s.peer.io, session.run());
    test::run(t.s.peer.io, session.connected());
    CHECK(t.s.tried == versions{v5, v3});
    t.first_is_up = false;
    t.s.ends_next = true;
    CHECK(session.try_publish("t", "p"));
    test::run(t.s.peer.io, session.connected(1));
    CHECK(t.s.tried == versions{v5, v3, v5});
    test::run(t.s.peer.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("servers that refuse MQTT 5 in turn are tried at once three times, and then after a pause") {
    two_servers t([&](protocol_version, std::size_t n) {
        t.first_is_up = !t.first_is_up;
        return n < 50 ? refuses_5 : accepts_5;
    });
    auto const both = t.both();
    mqtt::session<runnel::failover<runnel::memory_transport>> session(t.s.peer.io.get_executor(), both, t.s.options());
    task<void> running(t.s.peer.io, session.run());
    CHECK(running.run_for_error() == reason_code::unsupported_protocol_version);
    CHECK(t.s.tried.size() == 3);
    CHECK(t.s.count(kind::waiting) == 0);
}

TEST_CASE("a subscription of MQTT 3.1.1, which the server cannot name, has its messages beside one that it names") {
    // MQTT 5, then 3.1.1 with the session, then 5 with it again.
    server s([](protocol_version, std::size_t n) {
        reply const said[] = {accepts_5, refuses_5, {hex("20 02 01 00")}, code_1};
        return n <= 4 ? said[n - 1] : reply{hex("20 03 01 00 00")};
    });
    auto const connecting = s.peer.answer;
    s.peer.answer = [&](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == packet_type::subscribe)
            return test::packet(0x90, p.identifier() + (s.tried.back() == v5 ? hex("00 00") : hex("00")));
        if (p.type == packet_type::publish && !s.ends_next) return test::packet(0x30, hex("00 03 'a/b' 02 0B 01 'x'"));
        return connecting(p);
    };
    memory_session session(s.peer.io.get_executor(), s.peer.transport, s.options());
    task<void> running(s.peer.io, session.run());
    auto const next_connection = [&](std::uint64_t before) {
        s.ends_next = true;
        CHECK(session.try_publish("end", ""));
        test::run(s.peer.io, session.connected(before));
    };
    test::run(s.peer.io, session.connected());
    int named = 0, unnamed = 0;
    auto const one = test::run(s.peer.io, session.subscribe("a/#", [&](mqtt::publish const&) { ++named; }));
    next_connection(1);
    auto const two = test::run(s.peer.io, session.subscribe("a/b", [&](mqtt::publish const&) { ++unnamed; }));
    next_connection(2);
    CHECK(s.tried == versions{v5, v5, v3, v3, v5});
    CHECK(session.try_publish("ask", ""));
    CHECK(test::wait_until(s.peer.io, [&] { return named != 0; }));
    CHECK(named == 1);
    CHECK(unnamed == 1);
    running.cancel();
    CHECK(running.run_for_error() == asio::error::operation_aborted);
}

namespace {

struct nobody {
    std::string method() { return "none"; }
    asio::awaitable<std::string> begin() { co_return std::string(); }
    asio::awaitable<std::string> answer(std::string) { co_return std::string(); }
    asio::awaitable<void> finish(std::string) { co_return; }
};

}  // namespace

TEST_CASE("with an authenticator an automatic session speaks MQTT 5 only") {
    for (auto const& refusal : {refuses_5, closes}) {
        server s(refusal, accepts_3);
        memory_session session(s.peer.io.get_executor(), s.peer.transport, s.options());
        session.set_authenticator(nobody{});
        task<void> running(s.peer.io, session.run());
        CHECK(running.run_for_error());
        CHECK(s.tried == (refusal.bytes.empty() ? versions{v5, v5, v5} : versions{v5}));
        CHECK(s.count(kind::connected) == 0);
    }
}

TEST_CASE("... also from the next connection on, where the authenticator is set on one of MQTT 3.1.1") {
    for (auto const& refusal : {refuses_5, closes}) {
        server s(refusal, accepts_3);
        memory_session session(s.peer.io.get_executor(), s.peer.transport, s.options());
        task<void> running(s.peer.io, session.run());
        test::run(s.peer.io, session.connected());
        CHECK(s.tried == versions{v5, v3});
        session.set_authenticator(nobody{});
        CHECK(session.is_connected());
        s.ends_next = true;
        CHECK(session.try_publish("t", "p"));
        CHECK(test::wait_until(s.peer.io, [&] { return running.done() || s.count(kind::connected) == 2; }));
        CHECK(running.error());
        CHECK(s.tried.size() > 2);
        CHECK(std::ranges::count(s.tried, v3) == 1);
        CHECK(s.count(kind::connected) == 1);
    }
}

TEST_CASE("a CONNECT that MQTT 3.1.1 cannot have ends run only where the server has refused MQTT 5 in words") {
    for (auto const& refusal : {refuses_5, closes}) {
        server s(refusal, accepts_3);
        auto o = s.options();
        o.credentials.password.emplace("a password without a user name");
        CHECK(s.end(o) == errc::password_without_user_name);
        CHECK(s.tried == (refusal.bytes.empty() ? versions{v5, v5, v5} : versions{v5}));
    }
}
