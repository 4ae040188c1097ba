#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <new>
#include <string>
#include <string_view>
#include <support/session_end.hpp>
#include <vector>

using namespace runnel::mqtt;
using namespace std::chrono_literals;
using test::session_end;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;

int owners[4];
using refusals = std::vector<session_end::refusal>;
using outcomes = std::vector<session_end::outcome>;

// Publishes a message that expires after `seconds`, and has another property before and behind.
void publish_for(session_end& end, std::string_view topic, qos quality, std::uint32_t seconds, void* owner = nullptr) {
    user_property const pair{"name", "value"};
    properties p;
    p.payload_format_indicator = std::uint8_t{1};
    p.message_expiry_interval = seconds;
    p.user_properties = pair;
    REQUIRE(end.state.publish(end.out, {.topic = topic, .payload = "p", .qos = quality, .props = &p}, owner).error ==
            errc::ok);
}

// What has been sent: "topic:seconds", with "dup " before, for messages, else the packet's name.
std::string sent(session_end& end) {
    std::string words;
    auto const all = end.take_bytes();
    for (std::string_view bytes = all; !bytes.empty();) {
        auto const f = next_frame(bytes);
        bytes.remove_prefix(f.total_size);
        words += words.empty() ? "" : ", ";
        if (f.header.type != packet_type::publish) {
            words += name(f.header.type);
            continue;
        }
        publish p;
        REQUIRE(decode(f.header, f.body, end.version, p) == errc::ok);
        words.append(p.dup ? "dup " : "").append(p.topic);
        if (auto const left = p.props.get<property_id::message_expiry_interval>()) words += ':' + std::to_string(*left);
        if (!p.props.empty()) CHECK(p.props.get<property_id::user_property>().size() == 1);
    }
    return words;
}

}  // namespace

TEST_CASE("a message that waits is sent with what is left of its expiry interval, in whole seconds") {
    session_end c(role::client, v5);
    c.state.set_time(1000s);
    publish_for(c, "a", q0, 10);
    publish_for(c, "b", q1, 10);
    c.state.set_time(1003500ms);
    publish_for(c, "c", q2, 10);
    c.state.set_time(1004s);
    c.connect();
    CHECK(sent(c) == "a:6, b:6, c:10");
}

TEST_CASE("a message that is sent at once keeps its expiry interval") {
    session_end c(role::client, v5);
    c.state.set_time(1000s);
    c.connect();
    c.state.set_time(2000s);
    for (qos const quality : {q0, q1, q2})
        for (std::uint32_t const seconds : {0u, 7u, 0xFFFF'FFFFu}) publish_for(c, "a", quality, seconds);
    CHECK(sent(c) == "a:0, a:7, a:4294967295, a:0, a:7, a:4294967295, a:0, a:7, a:4294967295");
}

TEST_CASE("a message that expires before it has been sent is not sent, and its owner is told") {
    session_end c(role::client, v5);
    publish_for(c, "a", q0, 5);
    publish_for(c, "b", q1, 5, &owners[0]);
    c.publish("stays", q1, &owners[1]);
    publish_for(c, "c", q2, 5, &owners[2]);
    publish_for(c, "d", q1, 9, &owners[3]);
    c.state.set_time(5001ms);
    c.connect();
    CHECK(sent(c) == "stays, d:4");
    CHECK(c.refused == refusals{{nullptr, errc::message_expired},
                                {&owners[0], errc::message_expired},
                                {&owners[2], errc::message_expired}});
    c.receive_ack(packet_type::puback, 3);
    c.receive_ack(packet_type::puback, 5);
    CHECK(c.published.size() == 2);
    CHECK(c.state.queued_bytes() == 0);
    c.publish("e", q0);
    CHECK(sent(c) == "e");
}

TEST_CASE("a message that is held up by the receive maximum expires too") {
    session_end c(role::client, v5);
    properties p;
    p.receive_maximum = std::uint16_t{1};
    c.connect(false, &p);
    c.publish("a", q1);
    publish_for(c, "b", q1, 5, &owners[0]);
    publish_for(c, "c", q1, 8, &owners[1]);
    CHECK(sent(c) == "a");
    c.state.set_time(6s);
    c.receive_ack(packet_type::puback, 1);
    CHECK(sent(c) == "c:2");
    CHECK(c.refused == refusals{{&owners[0], errc::message_expired}});
}

TEST_CASE("a message that waits until its identifier has been freed expires too, and is not sent") {
    session_end c(role::client, v5);
    c.connect(true);
    properties p;
    p.message_expiry_interval = 1u;
    int owner;
    c.state.set_time(1000s);
    c.state.publish(c.out, {.topic = "a", .payload = "p", .qos = qos::exactly_once, .props = &p}, &owner);
    CHECK(c.sent() == "PUBREL 1");
    CHECK(c.state.next_expiry() == 1001s);
    SUBCASE("on this connection") {}
    SUBCASE("or on the next") {
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1");
        CHECK(c.state.next_expiry() == 1001s);
    }
    c.state.set_time(1002s);
    CHECK(c.receive_ack(packet_type::pubcomp, 1) == errc::ok);
    CHECK(c.sent() == "");
    CHECK(c.refused.size() == 1);
    CHECK(c.state.unacknowledged() == 0);
}

TEST_CASE("whether the time matters is known once there has been a message that expires") {
    session_end c(role::client, v5);
    c.connect();
    c.publish("a", qos::at_least_once);
    CHECK_FALSE(c.state.needs_time());
    properties p;
    p.message_expiry_interval = 1u;
    c.state.publish(c.out, {.topic = "a", .payload = "p", .qos = qos::at_least_once, .props = &p});
    CHECK(c.state.needs_time());
    session_state next(role::client, v5);
    next.restore(0, test::encoded(publish{.topic = "a", .qos = qos::at_least_once, .packet_id = 1, .props = &p}, v5),
                 1s);
    CHECK(next.needs_time());
}

TEST_CASE("a message that may have arrived is finished, though it has expired") {
    session_end c(role::client, v5);
    c.connect();
    publish_for(c, "a", q1, 5, &owners[0]);
    publish_for(c, "b", q2, 5, &owners[1]);
    publish_for(c, "c", q2, 5, &owners[2]);
    CHECK(sent(c) == "a:5, b:5, c:5");
    c.receive_ack(packet_type::pubrec, 2);
    sent(c);
    c.lose_connection();
    c.state.set_time(2s);
    c.connect(true);
    CHECK(sent(c) == "dup a:3, PUBREL, dup c:3");
    c.lose_connection();
    c.state.set_time(100s);
    c.connect(true);
    CHECK(sent(c) == "dup a:1, PUBREL, dup c:1");
    c.lose_connection();
    c.connect(false);  // the server has lost the session, and may have delivered the messages before
    CHECK(sent(c) == "a:1, c:1");
    CHECK(c.refused.empty());
    CHECK(c.lost == std::vector<void*>{&owners[1]});
}

TEST_CASE("what a server has to send again counts down [MQTT-3.3.2-6]") {
    session_end s(role::server, v5);
    s.state.set_time(10s);
    s.accept();
    publish_for(s, "a", q1, 60);
    s.lose_connection();
    s.state.set_time(30s);
    s.accept(true);
    CHECK(sent(s) == "dup a:40");
}

TEST_CASE("the application is told when something expires, and can end it in time") {
    session_end c(role::client, v5);
    session_end::listener handler(c);
    CHECK_FALSE(c.state.next_expiry());
    publish_for(c, "a", q1, 9, &owners[0]);
    publish_for(c, "b", q1, 5, &owners[1]);
    c.publish("c", q1);
    CHECK(c.state.next_expiry() == 5s);
    c.state.set_time(5s);
    c.state.expire(handler);
    CHECK(c.refused.empty());
    c.state.set_time(5001ms);
    c.state.expire(handler);
    CHECK(c.refused == refusals{{&owners[1], errc::message_expired}});
    CHECK(c.state.next_expiry() == 9s);
    c.state.set_time(10s);
    c.state.expire(handler);
    CHECK(c.refused.size() == 2);
    CHECK_FALSE(c.state.next_expiry());
    c.connect();
    CHECK(sent(c) == "c");
    publish_for(c, "d", q1, 5);
    CHECK_FALSE(c.state.next_expiry());  // it has been sent
}

TEST_CASE("a handler may publish again what has expired") {
    session_end c(role::client, v5);
    for (int i = 0; i < 20; ++i) publish_for(c, "a", q1, 1, &owners[0]);
    struct : session_handler {
        session_end* end;
        int count = 0;
        void on_refused(void*, errc) {
            ++count;
            publish_for(*end, "again", qos::at_least_once, 3);
        }
    } handler;
    handler.end = &c;
    c.state.set_time(2s);
    c.state.expire(handler);
    CHECK(handler.count == 20);
    CHECK(c.state.next_expiry() == 5s);
    c.connect();
    CHECK(sent(c).starts_with("again:3, again:3"));
    CHECK(c.state.unacknowledged() == 20);
}

TEST_CASE("where it cannot be told that a message has expired, the others expire all the same") {
    session_end c(role::client, v5);
    for (int i = 0; i < 3; ++i) publish_for(c, "a", q1, 1);
    publish_for(c, "b", q1, 9);
    struct : session_handler {
        void on_refused(void*, errc) { throw std::bad_alloc(); }
    } failing;
    c.state.set_time(2s);
    CHECK_THROWS_AS(c.state.expire(failing), std::bad_alloc);
    CHECK(c.state.next_expiry() == 1s);
    session_end::listener handler(c);
    c.state.expire(handler);
    CHECK(c.refused.size() == 2);
    CHECK(c.state.next_expiry() == 9s);
    c.connect();
    CHECK(sent(c) == "b:7");
}

TEST_CASE("an interval goes through another version of the protocol, and the message expires all the same") {
    session_end s(role::server, v5);
    s.accept();
    publish_for(s, "sent", q1, 60);
    s.lose_connection();
    publish_for(s, "queued", q1, 10, &owners[0]);
    s.version = v3;
    s.accept(true);
    CHECK(sent(s) == "dup sent, queued");
    s.lose_connection();
    s.state.set_time(20s);
    s.version = v5;
    s.accept(true);
    CHECK(sent(s) == "dup sent, dup queued");
    CHECK(s.refused.empty());
}

TEST_CASE("no memory is lost with messages that expire") {
    session_end c(role::client, v5);
    session_end::listener handler(c);
    for (int i = 0; i < 1000; ++i) {
        publish_for(c, "a", q1, 1);
        publish_for(c, "b", q0, 1);
        c.state.set_time(std::chrono::seconds(3 * i));
        c.state.expire(handler);
    }
    c.state.set_time(4000s);
    c.state.expire(handler);
    CHECK(c.state.queued_bytes() == 0);
    CHECK(c.refused.size() == 2000);
}

TEST_CASE("each message expires in its own time, and not at the very moment at which its interval is over") {
    session_end c(role::client, v5);
    for (std::uint32_t seconds = 1; seconds <= 3; ++seconds) publish_for(c, "a", q1, seconds, &owners[seconds]);
    session_end::listener handler(c);
    c.state.set_time(2s);
    c.state.expire(handler);
    CHECK(c.refused == refusals{{&owners[1], errc::message_expired}});
    CHECK(c.state.next_expiry() == 2s);
    c.state.set_time(2001ms);
    c.state.expire(handler);
    CHECK(c.refused.back() == session_end::refusal{&owners[2], errc::message_expired});
    CHECK(c.state.next_expiry() == 3s);
}

TEST_CASE("of tens of thousands of messages those that expire within some milliseconds do so together") {
    session_end c(role::client, v5, {.queued_bytes = 1 << 24});
    auto const publish_at = [&](std::chrono::milliseconds now) {
        c.state.set_time(now);
        publish_for(c, "t", q1, 10);
    };
    session_end::listener handler(c);
    auto const refused_at = [&](std::chrono::milliseconds now) {
        c.state.set_time(now);
        c.state.expire(handler);
        return c.refused.size();
    };
    publish_at(0ms);
    publish_at(1ms);
    publish_at(5ms);
    for (int i = 0; i < 3 * 8192; ++i) publish_for(c, "t", q1, 1'000);
    CHECK(c.state.next_expiry() == 10'000ms);
    CHECK(refused_at(10'001ms) == 1);
    CHECK(c.state.next_expiry() == 10'004ms);
    CHECK(refused_at(10'005ms) == 2);
    CHECK(refused_at(10'009ms) == 3);
}

TEST_CASE("a message that waits in another version of the protocol expires at its time") {
    session_end s(role::server, v5, {.in_flight = 1});
    s.accept();
    publish_for(s, "sent", q1, 60);
    publish_for(s, "queued", q1, 10, &owners[0]);
    s.lose_connection();
    s.version = v3;
    s.accept(true);
    CHECK(sent(s) == "dup sent");
    session_end::listener handler(s);
    s.state.set_time(5s);
    s.state.expire(handler);
    CHECK(s.refused.empty());
    s.state.set_time(11s);
    s.state.expire(handler);
    CHECK(s.refused == refusals{{&owners[0], errc::message_expired}});
}

TEST_CASE("what has expired between two connections is not sent on the next") {
    session_end s(role::server, v5);
    publish_for(s, "a", q1, 10, &owners[0]);
    publish_for(s, "b", q1, 60);
    s.state.set_time(11s);
    s.accept(true);
    CHECK(sent(s) == "b:49");
    CHECK(s.refused == refusals{{&owners[0], errc::message_expired}});
}

TEST_CASE("messages that wait in another version of the protocol have each its own interval") {
    session_end s(role::server, v5, {.in_flight = 1});
    s.accept();
    publish_for(s, "sent", q1, 5000);
    publish_for(s, "brief", q1, 10, &owners[0]);
    publish_for(s, "lasts", q1, 1000, &owners[1]);
    s.lose_connection();
    s.version = v3;
    s.accept(true);
    session_end::listener handler(s);
    s.state.set_time(11s);
    s.state.expire(handler);
    CHECK(s.refused == refusals{{&owners[0], errc::message_expired}});
    CHECK(s.state.next_expiry() == 1000s);
}
