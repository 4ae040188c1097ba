#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <support/session_end.hpp>

// Clauses that no other test of the session's rules shows.

using namespace runnel::mqtt;
using test::session_end;

namespace {

constexpr auto v5 = protocol_version::v5;
constexpr protocol_version both_versions[] = {protocol_version::v3_1_1, v5};
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;

int owner;

errc publish_with_alias(session_end& end, std::uint16_t alias) {
    properties p;
    p.topic_alias = alias;
    return end.state.publish(end.out, {.topic = "a", .qos = q0, .props = &p}).error;
}

}  // namespace

TEST_CASE("a full receive maximum holds up no packet of a client but PUBLISH [MQTT-3.3.4-8]") {
    properties announced;
    announced.receive_maximum = std::uint16_t{1};
    session_end c(role::client, v5);
    c.connect(false, &announced);
    c.publish("a", q1);
    c.publish("b", q1);
    subscription_request const request{.filter = "a"};
    std::string_view const filter = "a";
    c.receive_publish("x", q1, 7);
    c.receive_publish("y", q2, 8);
    c.state.acknowledge(c.out, c.messages[0].token);
    c.state.acknowledge(c.out, c.messages[1].token);
    c.receive_ack(packet_type::pubrel, 8);
    c.state.subscribe(c.out, {0, request, {}}, &owner);
    c.state.unsubscribe(c.out, {0, filter, {}}, &owner);
    c.state.ping(c.out);
    CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBACK 7, PUBREC 8, PUBCOMP 8, SUBSCRIBE 3, UNSUBSCRIBE 4, PINGREQ");
}

TEST_CASE("a full receive maximum holds up no packet of a server but PUBLISH [MQTT-3.3.4-10]") {
    session_end s(role::server, v5);
    s.accept(false, {.receive_maximum = 1});
    s.publish("a", q1);
    s.publish("b", q1);
    s.receive_publish("x", q1, 7);
    s.state.acknowledge(s.out, s.messages[0].token);
    s.receive_packet(pingreq{});
    reason_code const granted = reason_code::granted_qos_0;
    s.state.suback(s.out, {9, granted, {}});
    CHECK(s.sent() == "PUBLISH 1 qos1 a=p, PUBACK 7, PINGRESP, SUBACK 9");
}

TEST_CASE("a server sends topic aliases up to the client's maximum only [MQTT-3.1.2-26] [MQTT-3.3.2-11]") {
    session_end s(role::server, v5, {.outgoing_topic_aliases = 0});
    s.accept(false, {.topic_alias_maximum = 5});
    CHECK(publish_with_alias(s, 5) == errc::ok);
    CHECK(publish_with_alias(s, 6) == errc::topic_alias_invalid);
}

TEST_CASE("topic aliases are not sent to a peer that announces no maximum [MQTT-3.1.2-27] [MQTT-3.2.2-18]") {
    session_end s(role::server, v5);
    s.accept();
    CHECK(publish_with_alias(s, 1) == errc::topic_alias_invalid);
    CHECK(s.sent() == "");
    session_end c(role::client, v5);
    c.connect();
    CHECK(publish_with_alias(c, 1) == errc::topic_alias_invalid);
    CHECK(c.sent() == "");
}

TEST_CASE("a client that names an authentication method sends nothing else before CONNACK [MQTT-3.1.2-30]") {
    properties method;
    method.authentication_method = "m";
    session_end c(role::client, v5);
    CHECK(c.state.connect(c.out, {.client_id = "id", .props = &method}, {}) == errc::ok);
    c.out.clear();
    subscription_request const request{.filter = "a"};
    c.publish("a", q0);
    c.publish("b", q1);
    c.state.subscribe(c.out, {0, request, {}}, &owner);
    c.state.ping(c.out);
    CHECK(c.receive_packet(auth{reason_code::continue_authentication, &method}) == errc::ok);
    CHECK(c.sent() == "");
    CHECK(c.state.auth(c.out, auth{reason_code::continue_authentication, &method}) == errc::ok);
    c.out.clear();
    CHECK(c.receive_packet(connack{false, reason_code::success, &method}) == errc::ok);
    CHECK(c.sent() == "PUBLISH qos0 a=p, PUBLISH 2 qos1 b=p");
}

TEST_CASE("a message that the peer refuses is not sent again [MQTT-4.4.0-2]") {
    session_end c(role::client, v5);
    c.connect();
    c.publish("a", q1);
    c.publish("b", q2);
    c.publish("c", q1);
    c.receive_ack(packet_type::puback, 1, reason_code::not_authorized);
    c.receive_ack(packet_type::pubrec, 2, reason_code::not_authorized);
    c.lose_connection();
    c.connect(true);
    CHECK(c.sent() == "PUBLISH 3 qos1 dup c=p");
}

TEST_CASE("PUBREL is sent in the order in which PUBREC came [MQTT-4.6.0-4]") {
    for (auto const version : both_versions) {
        session_end c(role::client, version);
        c.connect();
        for (int i = 0; i < 3; ++i) c.publish("a", q2);
        c.sent();
        for (std::uint16_t const id : {std::uint16_t{2}, std::uint16_t{3}, std::uint16_t{1}})
            CHECK(c.receive_ack(packet_type::pubrec, id) == errc::ok);
        CHECK(c.sent() == "PUBREL 2, PUBREL 3, PUBREL 1");
    }
}

TEST_CASE("after PUBACK a PUBLISH with the same identifier is another message, with DUP or without [MQTT-4.3.2-5]") {
    for (auto const version : both_versions) {
        for (bool const dup : {false, true}) {
            session_end s(role::server, version);
            s.accept();
            s.receive_publish("a", q1, 5);
            s.state.acknowledge(s.out, s.messages[0].token);
            CHECK(s.sent() == "PUBACK 5");
            CHECK(s.receive_publish("b", q1, 5, dup) == errc::ok);
            CHECK(s.received() == "a=p, b=p");
            s.state.acknowledge(s.out, s.messages[1].token);
            CHECK(s.sent() == "PUBACK 5");
        }
    }
}
