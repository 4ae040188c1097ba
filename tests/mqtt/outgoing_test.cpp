// What waits in a session to be sent: how long, in which order, and what becomes of it.

#include <runnel/mqtt/session_state.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <support/session_end.hpp>
#include <utility>
#include <vector>

using namespace runnel::mqtt;
using packet_type::puback;
using packet_type::pubcomp;
using packet_type::pubrec;
using test::session_end;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr protocol_version both_versions[] = {v3, v5};
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;

session_end client(protocol_version version, session_limits limits = {}) {
    return session_end(role::client, version, limits);
}

}  // namespace

// How much is sent at once.

TEST_CASE("what is queued is sent in portions, in order, as what has gathered is taken away") {
    for (auto version : both_versions) {
        auto c = client(version, {.unwritten = 12});
        c.publish("a", q1);
        c.publish("b", q0);
        c.publish("c", q2);
        c.publish("d", q0);
        c.publish("e", q1);
        c.connect();
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH qos0 b=p");
        c.state.send_more(c.out);
        CHECK(c.sent() == "PUBLISH 3 qos2 c=p, PUBLISH qos0 d=p");
        c.state.send_more(c.out);
        CHECK(c.sent() == "PUBLISH 5 qos1 e=p");
        c.state.send_more(c.out);
        CHECK(c.sent() == "");
    }
}

TEST_CASE("a message that would make one write too long waits for the next") {
    for (auto version : both_versions) {
        auto c = client(version, {.unwritten = 12});
        c.connect();
        c.publish("a", q1);
        c.publish("b", q1);
        c.publish("c", q1);
        c.publish("d", q0);  // nothing is kept of it, and it waits for nothing
        CHECK(c.state.unacknowledged() == 2);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH 2 qos1 b=p, PUBLISH qos0 d=p");
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        CHECK(c.sent() == "PUBLISH 3 qos1 c=p");
    }
}

TEST_CASE("QoS 0 messages that wait for the next write are not held up by the receive maximum, nor overtaken") {
    for (auto version : both_versions) {
        auto c = client(version, {.in_flight = 1, .unwritten = 10});
        for (auto const* topic : {"a", "b"}) c.publish(topic, q1);
        for (auto const* topic : {"c", "d", "e"}) c.publish(topic, q0);
        c.connect();
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH qos0 c=p");
        c.publish("f", q0);
        CHECK(c.sent() == "PUBLISH qos0 d=p, PUBLISH qos0 e=p");
        c.state.send_more(c.out);
        CHECK(c.sent() == "PUBLISH qos0 f=p");
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        CHECK(c.sent() == "PUBLISH 2 qos1 b=p");
    }
}

TEST_CASE("what is sent again comes in portions too") {
    for (auto version : both_versions) {
        auto c = client(version, {.unwritten = 8});
        c.connect();
        for (auto const* topic : {"a", "b", "c"}) {
            c.publish(topic, q2);
            c.sent();
        }
        CHECK(c.receive_ack(pubrec, 1) == errc::ok);
        CHECK(c.receive_ack(pubrec, 2) == errc::ok);
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1, PUBREL 2");
        c.state.send_more(c.out);
        CHECK(c.sent() == "PUBLISH 3 qos2 dup c=p");
    }
}

TEST_CASE("a message with an alias of its own waits until those in front of it are sent") {
    auto c = client(v5, {.outgoing_topic_aliases = 0, .unwritten = 10});
    for (auto const* topic : {"a", "b", "c"}) c.publish(topic, q0);
    properties announced;
    announced.topic_alias_maximum = std::uint16_t{5};
    c.connect(false, &announced);
    CHECK(c.sent() == "PUBLISH qos0 a=p, PUBLISH qos0 b=p");
    properties p;
    p.topic_alias = std::uint16_t{5};
    CHECK(c.state.publish(c.out, {.topic = "d", .payload = "p", .props = &p}).error == errc::queue_full);
    c.state.send_more(c.out);
    CHECK(c.state.publish(c.out, {.topic = "d", .payload = "p", .props = &p}).error == errc::ok);
    CHECK(c.sent() == "PUBLISH qos0 c=p, PUBLISH qos0 d=p");
    p.topic_alias = std::uint16_t{6};
    CHECK(c.state.publish(c.out, {.topic = "d", .payload = "p", .props = &p}).error == errc::topic_alias_invalid);
}

TEST_CASE("a client sends all that it may before DISCONNECT, but not where it has an error to tell") {
    for (auto version : both_versions) {
        auto c = client(version, {.in_flight = 3, .unwritten = 1});
        c.connect();
        c.publish("a", q1);
        c.publish("b", q2);
        c.publish("c", q1);
        c.publish("d", q1);
        CHECK(c.state.disconnect(c.out) == errc::ok);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH 2 qos2 b=p, PUBLISH 3 qos1 c=p, DISCONNECT");
        c.state.send_more(c.out);
        CHECK(c.sent() == "");
    }
    auto c = client(v5, {.unwritten = 1});
    c.connect();
    c.publish("a", q1);
    c.publish("b", q1);
    CHECK(c.state.disconnect(c.out, {reason_code::protocol_error, {}}) == errc::ok);
    CHECK(c.sent() == "PUBLISH 1 qos1 a=p, DISCONNECT");
}

TEST_CASE("without a connection there is nothing more to send") {
    auto c = client(v3, {.unwritten = 1});
    c.publish("a", q1);
    c.state.send_more(c.out);
    CHECK(c.sent() == "");
    c.begin_connect();
    c.state.send_more(c.out);
    CHECK(c.sent() == "");
}
