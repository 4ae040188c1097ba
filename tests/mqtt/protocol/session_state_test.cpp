#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <support/session_end.hpp>
#include <utility>
#include <vector>

using namespace runnel::mqtt;
using packet_type::puback;
using packet_type::pubcomp;
using packet_type::pubrec;
using packet_type::pubrel;
using test::session_end;
using phase = session_state::phase;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr protocol_version both_versions[] = {v3, v5};
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;

// Owners are told apart by their addresses alone.
int owners[8];
void* const first = &owners[0];
void* const second = &owners[1];

// A client whose connection is accepted.
struct client : session_end {
    explicit client(protocol_version v, properties const* announced = nullptr, capabilities own = {},
                    session_limits limits = {})
        : session_end(role::client, v, limits) {
        connect(false, announced, own);
        REQUIRE(state.connected());
    }
};

// A server that has accepted a client.
struct server : session_end {
    explicit server(protocol_version v, capabilities peer = {}, capabilities own = {}) : session_end(role::server, v) {
        accept(false, peer, own);
        REQUIRE(state.connected());
    }
};

std::string connack_bytes(protocol_version version, bool session_present = false) {
    return test::encoded(connack{session_present, reason_code::success, {}}, version);
}

using outcomes = std::vector<session_end::outcome>;
using refusals = std::vector<session_end::refusal>;
using owner_list = std::vector<void*>;
constexpr auto success = reason_code::success;

}  // namespace

// Publishing.

TEST_CASE("a QoS 0 message is sent at once, and nothing is kept of it") {
    // Shows [MQTT-4.3.1-1].
    for (auto version : both_versions) {
        auto c = client(version);
        auto const begun = c.publish("a", q0, first);
        CHECK(begun.error == errc::ok);
        CHECK(begun.number == session_state::no_exchange);
        CHECK(c.sent() == "PUBLISH qos0 a=p");
        CHECK(c.state.unacknowledged() == 0);
        CHECK(c.state.queued_bytes() == 0);
        CHECK(c.published.empty());
    }
}

TEST_CASE("a QoS 1 message ends with PUBACK [MQTT-4.3.2-1] [MQTT-4.3.2-3]") {
    // Shows [MQTT-4.3.2-2].
    for (auto version : both_versions) {
        auto c = client(version);
        CHECK(c.publish("a", q1, first).error == errc::ok);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p");
        CHECK(c.state.unacknowledged() == 1);
        CHECK(c.state.queued_bytes() > 0);
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        CHECK(c.published == outcomes{{first, success}});
        CHECK(c.state.unacknowledged() == 0);
        CHECK(c.state.queued_bytes() == 0);
        CHECK(c.sent() == "");
    }
}

TEST_CASE("a QoS 2 message goes PUBLISH, PUBREC, PUBREL, PUBCOMP [MQTT-4.3.3-4]") {
    // Shows [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-5].
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q2, first);
        CHECK(c.sent() == "PUBLISH 1 qos2 a=p");
        CHECK(c.receive_ack(pubrec, 1) == errc::ok);
        CHECK(c.sent() == "PUBREL 1");
        CHECK(c.published.empty());
        CHECK(c.state.unacknowledged() == 1);
        CHECK(c.state.queued_bytes() == 0);  // PUBLISH is not sent again [MQTT-4.3.3-6]
        CHECK(c.receive_ack(pubcomp, 1) == errc::ok);
        CHECK(c.published == outcomes{{first, success}});
        CHECK(c.state.unacknowledged() == 0);
    }
}

TEST_CASE("a PUBREC received twice is answered by PUBREL twice") {
    auto c = client(v3);
    c.publish("a", q2, first);
    c.receive_ack(pubrec, 1);
    CHECK(c.receive_ack(pubrec, 1) == errc::ok);
    CHECK(c.sent() == "PUBLISH 1 qos2 a=p, PUBREL 1, PUBREL 1");
    c.receive_ack(pubcomp, 1);
    CHECK(c.published.size() == 1);
}

TEST_CASE("reasons of PUBACK and PUBCOMP, also of failures, come to the owner") {
    auto c = client(v5);
    c.publish("a", q1, first);
    c.publish("a", q2, second);
    c.receive_ack(puback, 1, reason_code::quota_exceeded);
    c.receive_ack(pubrec, 2, reason_code::no_matching_subscribers);
    c.receive_ack(pubcomp, 2, success);
    CHECK(c.published == outcomes{{first, reason_code::quota_exceeded}, {second, success}});
}

TEST_CASE("a PUBREC with a failure ends the exchange, and no PUBREL follows [MQTT-4.3.3-4]") {
    auto c = client(v5);
    c.publish("a", q2, first);
    c.sent();
    CHECK(c.receive_ack(pubrec, 1, reason_code::not_authorized) == errc::ok);
    CHECK(c.sent() == "");
    CHECK(c.published == outcomes{{first, reason_code::not_authorized}});
    CHECK(c.state.unacknowledged() == 0);
}

TEST_CASE("acknowledgements in any order end the exchanges they belong to") {
    for (auto version : both_versions) {
        auto c = client(version);
        for (int i = 0; i < 4; ++i) c.publish("a", q1, &owners[i]);
        for (std::uint16_t id : std::vector<std::uint16_t>{3, 1, 4, 2}) CHECK(c.receive_ack(puback, id) == errc::ok);
        CHECK(c.published ==
              outcomes{{&owners[2], success}, {&owners[0], success}, {&owners[3], success}, {&owners[1], success}});
    }
}

TEST_CASE("an identifier in flight is not used for another message [MQTT-2.2.1-3], through 65,535 and around") {
    // Shows [MQTT-4.3.3-1].
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("old", q1, first);
        c.take_bytes();
        std::uint16_t last = 1;
        for (int i = 0; i < 65534; ++i) {
            REQUIRE(c.publish("a", q1).error == errc::ok);
            ++last;
            c.out.clear();
            REQUIRE(c.receive_ack(puback, last) == errc::ok);
        }
        CHECK(last == 65535);
        CHECK(c.publish("a", q1).error == errc::ok);
        CHECK(c.publish("a", q2).error == errc::ok);
        CHECK(c.sent() == "PUBLISH 2 qos1 a=p, PUBLISH 3 qos2 a=p");
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        CHECK(c.published == outcomes{{first, success}});
    }
}

TEST_CASE("requests and messages share the packet identifiers") {
    for (auto version : both_versions) {
        auto c = client(version);
        subscription_request const request{.filter = "a/#"};
        std::string_view const filter = "a/#";
        c.publish("a", q1);
        CHECK(c.state.subscribe(c.out, {0, request, {}}, first).error == errc::ok);
        CHECK(c.state.unsubscribe(c.out, {0, filter, {}}, second).error == errc::ok);
        c.publish("b", q2);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, SUBSCRIBE 2, UNSUBSCRIBE 3, PUBLISH 4 qos2 b=p");
    }
}

TEST_CASE("a message that cannot be sent is refused with the reason, and leaves no trace") {
    for (auto version : both_versions) {
        auto c = client(version);
        CHECK(c.publish("a/+", q1).error == errc::wildcard_in_topic_name);
        CHECK(c.publish("", q0).error == errc::topic_empty);
        CHECK(c.publish("a", static_cast<qos>(3)).error == errc::invalid_qos);
        CHECK(c.sent() == "");
        c.publish("a", q1);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p");
    }
}

TEST_CASE("a client does not send subscription identifiers [MQTT-3.3.4-6], a server does") {
    std::uint32_t const identifier = 7;
    properties p;
    p.subscription_identifiers = identifier;
    auto c = client(v5);
    CHECK(c.state.publish(c.out, {.topic = "a", .qos = q1, .props = &p}).error == errc::property_not_allowed);
    auto s = server(v5);
    CHECK(s.state.publish(s.out, {.topic = "a", .qos = q1, .props = &p}).error == errc::ok);
}

TEST_CASE("the peer's maximum packet size is kept [MQTT-3.2.2-15] [MQTT-3.1.2-24]") {
    properties p;
    p.maximum_packet_size = 20;
    auto c = client(v5, &p);
    auto const publish_of = [&](std::size_t size, qos quality) {
        std::size_t const others = quality == q0 ? 6 : 8;
        std::string const payload(size - others, 'x');
        return c.state.publish(c.out, {.topic = "a", .payload = payload, .qos = quality}).error;
    };
    for (qos const quality : {q0, q1, q2}) {
        CHECK(publish_of(20, quality) == errc::ok);
        CHECK(publish_of(21, quality) == errc::packet_too_large);
    }
    auto s = server(v5, {.maximum_packet_size = 20});
    CHECK(s.publish("a", q1).error == errc::ok);
    CHECK(s.publish("aaaaaaaaaaaaaaaaaa", q1).error == errc::packet_too_large);
    subscription_request const request{.filter = "a long filter, say"};
    CHECK(c.state.subscribe(c.out, {0, request, {}}, first).error == errc::packet_too_large);
}

TEST_CASE("the server's maximum QoS is kept [MQTT-3.2.2-11]") {
    properties p;
    p.maximum_qos = std::uint8_t{1};
    auto c = client(v5, &p);
    CHECK(c.publish("a", q2).error == errc::maximum_qos_exceeded);
    CHECK(c.publish("a", q1).error == errc::ok);
    CHECK(c.publish("a", q0).error == errc::ok);
}

TEST_CASE("no retained message is sent to a server that has none [MQTT-3.2.2-14]") {
    properties p;
    p.retain_available = std::uint8_t{0};
    auto c = client(v5, &p);
    for (qos const quality : {q0, q1, q2})
        CHECK(c.state.publish(c.out, {.topic = "a", .qos = quality, .retain = true}).error ==
              errc::retain_not_available);
    CHECK(c.sent() == "");
}

TEST_CASE("topic aliases beyond the peer's maximum are not sent [MQTT-3.3.2-9], nor are they kept for later") {
    // Shows [MQTT-3.2.2-17].
    properties announced;
    announced.topic_alias_maximum = std::uint16_t{5};
    auto c = client(v5, &announced, {}, {.outgoing_topic_aliases = 0});
    properties p;
    p.topic_alias = std::uint16_t{5};
    CHECK(c.state.publish(c.out, {.topic = "a", .props = &p}).error == errc::ok);
    CHECK(c.state.publish(c.out, {.topic = "a", .qos = q1, .props = &p}).error == errc::topic_alias_invalid);
    p.topic_alias = std::uint16_t{6};
    CHECK(c.state.publish(c.out, {.topic = "a", .props = &p}).error == errc::topic_alias_invalid);
    c.lose_connection();
    p.topic_alias = std::uint16_t{5};
    CHECK(c.state.publish(c.out, {.topic = "a", .props = &p}).error == errc::topic_alias_invalid);
}

TEST_CASE("not more than the peer's receive maximum is in flight, the rest follows in order [MQTT-3.3.4-7]") {
    // Shows [MQTT-4.9.0-1] [MQTT-4.9.0-2].
    properties p;
    p.receive_maximum = std::uint16_t{2};
    auto c = client(v5, &p);
    c.publish("a", q1);
    c.publish("b", q2);
    c.publish("c", q1);
    c.publish("d", q2);
    c.publish("e", q1);
    CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH 2 qos2 b=p");
    CHECK(c.state.unacknowledged() == 2);
    c.receive_ack(pubrec, 2);
    CHECK(c.sent() == "PUBREL 2");  // PUBREL is not held up [MQTT-4.9.0-3], and the quota is used until PUBCOMP
    c.receive_ack(pubcomp, 2);
    CHECK(c.sent() == "PUBLISH 3 qos1 c=p");
    c.receive_ack(puback, 1);
    CHECK(c.sent() == "PUBLISH 4 qos2 d=p");
    c.receive_ack(pubrec, 4, reason_code::quota_exceeded);
    CHECK(c.sent() == "PUBLISH 5 qos1 e=p");
}

TEST_CASE("QoS 0 is not held up by the receive maximum [MQTT-3.3.4-8]") {
    properties p;
    p.receive_maximum = std::uint16_t{1};
    auto c = client(v5, &p);
    c.publish("a", q1);
    c.publish("b", q1);
    c.publish("c", q0);
    CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH qos0 c=p");
}

TEST_CASE("this end's own limit of messages in flight is kept, in both versions") {
    for (auto version : both_versions) {
        auto c = client(version, nullptr, {}, {.in_flight = 1});
        c.publish("a", q1);
        c.publish("b", q1);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p");
        c.receive_ack(puback, 1);
        CHECK(c.sent() == "PUBLISH 2 qos1 b=p");
    }
}

TEST_CASE("a full queue refuses messages until some are acknowledged") {
    for (auto version : both_versions) {
        auto c = client(version, nullptr, {}, {.queued_bytes = 20});
        CHECK(c.publish("a", q1).error == errc::ok);
        CHECK(c.publish("b", q2).error == errc::ok);
        CHECK(c.publish("c", q1).error == errc::queue_full);
        CHECK(c.publish("d", q0).error == errc::ok);  // nothing is kept of it
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH 2 qos2 b=p, PUBLISH qos0 d=p");
        c.receive_ack(puback, 1);
        CHECK(c.publish("c", q1).error == errc::ok);
        CHECK(c.sent() == "PUBLISH 3 qos1 c=p");
    }
}

TEST_CASE("a message larger than the whole queue is taken when the queue is empty") {
    auto c = client(v5, nullptr, {}, {.queued_bytes = 5});
    CHECK(c.publish("a", q1).error == errc::ok);
    CHECK(c.publish("b", q1).error == errc::queue_full);
}

TEST_CASE("an owner who is gone is not told, and the exchange goes on") {
    for (auto version : both_versions) {
        auto c = client(version);
        auto const a = c.publish("a", q2, first);
        auto const b = c.publish("b", q1, second);
        c.state.disown(a.number);
        c.state.disown(session_state::no_exchange);
        c.state.disown(b.number + 1);
        c.sent();
        c.receive_ack(pubrec, 1);
        CHECK(c.sent() == "PUBREL 1");
        c.receive_ack(pubcomp, 1);
        c.receive_ack(puback, 2);
        CHECK(c.published == outcomes{{second, success}});
        c.state.disown(a.number);  // does no harm either
    }
}

// The life of a session over connections.

TEST_CASE("messages published before the first connection are sent on it in order") {
    for (auto version : both_versions) {
        session_end c(role::client, version);
        c.publish("a", q1, first);
        c.publish("b", q0);
        c.publish("c", q2);
        CHECK(c.sent() == "");
        c.begin_connect();
        CHECK(c.state.current_phase() == phase::connecting);
        c.publish("d", q1);
        CHECK(c.sent() == "");
        CHECK(c.receive(connack_bytes(version)) == errc::ok);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH qos0 b=p, PUBLISH 3 qos2 c=p, PUBLISH 4 qos1 d=p");
        CHECK(c.state.unacknowledged() == 3);
    }
}

TEST_CASE("QoS 0 messages queued before the connection are not held up by the receive maximum [MQTT-3.3.4-8]") {
    properties p;
    p.receive_maximum = std::uint16_t{1};
    session_end c(role::client, v5);
    c.publish("a", q1);
    c.publish("b", q1);
    c.publish("c", q0);
    c.publish("d", q1);
    c.publish("e", q0);
    c.connect(false, &p);
    c.publish("f", q0);
    CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH qos0 c=p, PUBLISH qos0 e=p, PUBLISH qos0 f=p");
    c.receive_ack(puback, 1);
    CHECK(c.sent() == "PUBLISH 2 qos1 b=p");
    c.receive_ack(puback, 2);
    CHECK(c.sent() == "PUBLISH 4 qos1 d=p");
}

TEST_CASE("a resumed session sends again what was not acknowledged, in order, with DUP [MQTT-4.4.0-1] [MQTT-4.6.0-1]") {
    // Shows [MQTT-3.3.1-1].
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q1);
        c.publish("b", q2);
        c.publish("c", q2);
        c.publish("d", q1);
        c.publish("e", q0);
        c.sent();
        c.receive_ack(pubrec, 2);
        c.receive_ack(puback, 4);
        c.lose_connection();
        CHECK(c.state.unacknowledged() == 0);
        c.publish("f", q1);
        c.connect(true);
        CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p, PUBREL 2, PUBLISH 3 qos2 dup c=p, PUBLISH 5 qos1 f=p");
        CHECK(c.state.unacknowledged() == 4);
        CHECK(c.receive_ack(pubcomp, 2) == errc::ok);
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        CHECK(c.receive_ack(pubrec, 3) == errc::ok);
        CHECK(c.receive_ack(puback, 5) == errc::ok);
        CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
        CHECK(c.state.unacknowledged() == 0);
    }
}

TEST_CASE("a server resumes in the same way") {
    // Shows [MQTT-2.3.1-4 of 3.1.1].
    for (auto version : both_versions) {
        auto s = server(version);
        s.publish("a", q1);
        s.publish("b", q2);
        s.receive_ack(pubrec, 2);
        s.lose_connection();
        s.publish("c", q2);
        s.accept(true);
        CHECK(s.sent() == "PUBLISH 1 qos1 dup a=p, PUBREL 2, PUBLISH 3 qos2 c=p");
    }
}

TEST_CASE("a message that was held up by the receive maximum is sent without DUP when it is sent at last") {
    properties p;
    p.receive_maximum = std::uint16_t{1};
    auto c = client(v5, &p);
    c.publish("a", q1);
    c.publish("b", q1);
    c.lose_connection();
    c.connect(true, &p);
    CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p");
    c.receive_ack(puback, 1);
    CHECK(c.sent() == "PUBLISH 2 qos1 b=p");
}

TEST_CASE("what is sent again is held up by a smaller receive maximum, and stays in order") {
    auto c = client(v5);
    c.publish("a", q1);
    c.publish("b", q2);
    c.publish("c", q1);
    c.lose_connection();
    properties p;
    p.receive_maximum = std::uint16_t{1};
    c.connect(true, &p);
    CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p");
    c.receive_ack(puback, 1);
    CHECK(c.sent() == "PUBLISH 2 qos2 dup b=p");
    c.receive_ack(pubrec, 2);
    c.receive_ack(pubcomp, 2);
    CHECK(c.sent() == "PUBREL 2, PUBLISH 3 qos1 dup c=p");
}

TEST_CASE("where the server has no session, messages are sent anew without DUP, and released ones are lost") {
    // Shows [MQTT-3.2.2-5].
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q1, first);
        c.publish("b", q2, second);
        c.publish("c", q2);
        c.receive_ack(pubrec, 2);
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p, PUBREL 2, PUBLISH 3 qos2 dup c=p");
        c.lose_connection();
        c.connect(false);
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH 3 qos2 c=p");
        CHECK(c.lost == owner_list{second});
        CHECK(c.state.unacknowledged() == 2);
        c.receive_ack(puback, 1);
        CHECK(c.published == outcomes{{first, success}});
    }
}

TEST_CASE("a server that begins a new session drops what is left of the old one, and tells of it") {
    for (auto version : both_versions) {
        auto s = server(version);
        s.publish("a", q1, first);
        s.publish("b", q2);
        s.publish("x", q1, second);
        s.receive_ack(pubrec, 2);
        s.receive_ack(puback, 3);  // its owner is not told again
        s.lose_connection();
        s.sent();
        s.publish("c", q0);
        s.accept(false);
        CHECK(s.sent() == "");
        CHECK(s.lost == owner_list{first});
        CHECK(s.state.queued_bytes() == 0);
        s.publish("d", q1);
        CHECK(s.sent() == "PUBLISH 5 qos1 d=p");
    }
}

TEST_CASE("a session resumed in the other version goes on in that version") {
    properties p;
    p.content_type = "text";
    session_end s(role::server, v5);
    s.accept();
    CHECK(s.state.publish(s.out, {.topic = "a", .payload = "p", .qos = q1, .props = &p}, first).error == errc::ok);
    s.publish("b", q2);
    s.receive_ack(pubrec, 2);
    s.lose_connection();
    s.publish("c", q0);
    s.version = v3;
    s.accept(true);
    CHECK(s.sent() == "PUBLISH 1 qos1 dup a=p, PUBREL 2, PUBLISH qos0 c=p");
    s.lose_connection();
    s.version = v5;
    s.accept(true);
    CHECK(s.sent() == "PUBLISH 1 qos1 dup a=p, PUBREL 2");
    s.receive_ack(puback, 1);
    s.receive_ack(pubcomp, 2);
    CHECK(s.published == outcomes{{first, success}});
    CHECK(s.state.queued_bytes() == 0);
}

TEST_CASE("an unknown identifier in PUBCOMP is no error on a resumed connection (3.7.2.1), and is one otherwise") {
    auto c = client(v5);
    c.publish("a", q2, first);
    c.publish("b", q2, second);
    c.receive_ack(pubrec, 1);
    c.lose_connection();  // PUBCOMP did not arrive
    c.connect(true);
    c.receive_ack(pubrec, 2);
    CHECK(c.receive_ack(pubcomp, 1, reason_code::packet_identifier_not_found) == errc::ok);
    CHECK(c.receive_ack(pubcomp, 2, reason_code::packet_identifier_not_found) == errc::ok);
    CHECK(c.published == outcomes{{first, success}, {second, reason_code::packet_identifier_not_found}});
}

TEST_CASE("requests end with their connection") {
    for (auto version : both_versions) {
        auto c = client(version);
        subscription_request const request{.filter = "a"};
        c.state.subscribe(c.out, {0, request, {}}, first);
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "");
        reason_code const granted = reason_code::granted_qos_0;
        CHECK(c.receive_packet(suback{1, granted, {}}) == errc::packet_identifier_unknown);
        CHECK(c.answered.empty());
    }
}

TEST_CASE("nothing is requested without a connection") {
    session_end c(role::client, v5);
    subscription_request const request{.filter = "a"};
    CHECK(c.state.subscribe(c.out, {0, request, {}}, first).error == errc::not_connected);
    std::string_view const filter = "a";
    CHECK(c.state.unsubscribe(c.out, {0, filter, {}}, first).error == errc::not_connected);
}

TEST_CASE("a queued message that the server does not accept is not sent, and its owner is told") {
    session_end c(role::client, v5);
    std::string const large(100, 'x');
    c.state.publish(c.out, {.topic = "a", .payload = large, .qos = q1}, first);
    c.publish("b", q2, second);
    c.state.publish(c.out, {.topic = "c", .qos = q1, .retain = true}, &owners[2]);
    c.state.publish(c.out, {.topic = "d", .payload = large});
    c.publish("e", q1, &owners[4]);
    properties p;
    p.maximum_packet_size = 50;
    p.maximum_qos = std::uint8_t{1};
    p.retain_available = std::uint8_t{0};
    c.connect(false, &p);
    CHECK(c.sent() == "PUBLISH 5 qos1 e=p");
    CHECK(c.refused == refusals{{first, errc::packet_too_large},
                                {second, errc::maximum_qos_exceeded},
                                {&owners[2], errc::retain_not_available},
                                {nullptr, errc::packet_too_large}});
    c.receive_ack(puback, 5);
    CHECK(c.state.queued_bytes() == 0);
    CHECK(c.publish("f", q0).error == errc::ok);
    CHECK(c.sent() == "PUBLISH qos0 f=p");
}

TEST_CASE("a queued message that the client does not accept is not sent, and its owner is told [MQTT-3.1.2-24]") {
    session_end s(role::server, v5);
    s.publish("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", q1, first);
    s.publish("b", q1);
    s.accept(true, {.maximum_packet_size = 20});
    CHECK(s.sent() == "PUBLISH 2 qos1 b=p");
    CHECK(s.refused == refusals{{first, errc::packet_too_large}});
}

TEST_CASE("a sent QoS 2 message that a resumed session cannot send again gives its identifier free at the peer") {
    auto c = client(v5);
    c.publish("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", q2, first);
    c.publish("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", q1, second);
    c.lose_connection();
    properties p;
    p.maximum_packet_size = 20;
    c.connect(true, &p);
    CHECK(c.refused == refusals{{first, errc::packet_too_large}, {second, errc::packet_too_large}});
    CHECK(c.sent() == "PUBREL 1");
    CHECK(c.receive_ack(pubcomp, 1, reason_code::packet_identifier_not_found) == errc::ok);
    CHECK(c.published.empty());
    CHECK(c.state.unacknowledged() == 0);
}

TEST_CASE("a refused connection leaves the session as it was") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q1);
        c.lose_connection();
        c.begin_connect();
        CHECK(c.receive_packet(connack{false, reason_code::not_authorized, {}}) == errc::ok);
        CHECK(c.connacks == std::vector{success, reason_code::not_authorized});
        CHECK(c.state.current_phase() == phase::disconnected);
        CHECK(c.sent() == "");
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p");
    }
}

TEST_CASE(
    "a server that keeps the session in spite of clean start is at fault [MQTT-3.2.2-2] [MQTT-3.2.2-1 of 3.1.1]") {
    for (auto version : both_versions) {
        session_end c(role::client, version);
        c.begin_connect({}, true);
        CHECK(c.receive(connack_bytes(version, true)) == errc::session_present_unexpected);
        CHECK_FALSE(c.state.connected());
    }
}

TEST_CASE("a CONNECT that cannot be sent begins no connection") {
    session_end c(role::client, v3);
    connect packet;
    packet.clean_start = false;
    CHECK(c.state.connect(c.out, packet, {}) == errc::client_identifier_empty);
    CHECK(c.state.current_phase() == phase::disconnected);
    CHECK(c.sent() == "");
}

// Receiving.

TEST_CASE("a received message is acknowledged when the application has taken it, not before") {
    // Shows [MQTT-2.2.1-5] [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8].
    for (auto version : both_versions) {
        auto c = client(version);
        c.receive_publish("a", q0);
        c.receive_publish("b", q1, 7);
        c.receive_publish("c", q2, 8);
        CHECK(c.received() == "a=p, b=p, c=p");
        CHECK(c.sent() == "");
        c.state.acknowledge(c.out, c.messages[0].token);
        CHECK(c.sent() == "");
        c.state.acknowledge(c.out, c.messages[1].token);
        CHECK(c.sent() == "PUBACK 7");
        c.state.acknowledge(c.out, c.messages[2].token);
        CHECK(c.sent() == "PUBREC 8");
        CHECK(c.receive_ack(pubrel, 8) == errc::ok);
        CHECK(c.sent() == "PUBCOMP 8");
    }
}

TEST_CASE("acknowledgements are sent in the order of the messages [MQTT-4.6.0-2] [MQTT-4.6.0-3]") {
    for (auto version : both_versions) {
        auto s = server(version);
        s.receive_publish("a", q1, 10);
        s.receive_publish("a", q2, 11);
        s.receive_publish("a", q1, 12);
        s.receive_publish("a", q2, 13);
        s.receive_publish("b", q1, 14);
        s.state.assign(s.messages[4].token, 1);
        s.state.acknowledge(s.out, s.messages[2].token);
        s.state.acknowledge(s.out, s.messages[3].token);
        CHECK(s.sent() == "");
        s.state.acknowledge(s.out, s.messages[4].token);
        CHECK(s.sent() == "PUBACK 14");  // of another lane
        s.state.acknowledge(s.out, s.messages[0].token);
        CHECK(s.sent() == "PUBACK 10, PUBACK 12");
        s.state.acknowledge(s.out, s.messages[1].token);
        CHECK(s.sent() == "PUBREC 11, PUBREC 13");
    }
}

TEST_CASE("the application's reason goes with the acknowledgement, and a failure ends QoS 2") {
    auto c = client(v5);
    c.receive_publish("a", q1, 1);
    c.receive_publish("b", q2, 2);
    c.state.acknowledge(c.out, c.messages[0].token, reason_code::implementation_specific_error);
    c.state.acknowledge(c.out, c.messages[1].token, reason_code::quota_exceeded);
    CHECK(c.sent() == "PUBACK 1 0x83, PUBREC 2 0x97");
    CHECK(c.receive_publish("new", q2, 2) == errc::ok);  // [MQTT-4.3.3-9]
    CHECK(c.received() == "a=p, b=p, new=p");
}

TEST_CASE("MQTT 3.1.1 has no reasons: a refused QoS 2 message goes on to its PUBREL") {
    auto c = client(v3);
    c.receive_publish("a", q2, 1);
    c.state.acknowledge(c.out, c.messages[0].token, reason_code::quota_exceeded);
    CHECK(c.sent() == "PUBREC 1");
    c.receive_publish("a", q2, 1, true);
    CHECK(c.messages.size() == 1);
}

TEST_CASE("a QoS 2 message sent again is delivered once [MQTT-4.3.3-10], before and after it was taken") {
    // Shows [MQTT-4.3.3-11] [MQTT-4.3.3-12].
    for (auto version : both_versions) {
        auto c = client(version);
        c.receive_publish("a", q2, 1);
        c.receive_publish("a", q2, 1, true);
        c.state.acknowledge(c.out, c.messages[0].token);
        CHECK(c.sent() == "PUBREC 1");
        c.receive_publish("a", q2, 1, true);
        CHECK(c.messages.size() == 1);
        CHECK(c.sent() == "PUBREC 1");
        c.receive_ack(pubrel, 1);
        CHECK(c.sent() == "PUBCOMP 1");
        c.receive_publish("c", q2, 1);
        CHECK(c.received() == "a=p, c=p");
    }
}

TEST_CASE("a QoS 2 message sent again after it was taken is answered at once") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.receive_publish("a", q2, 1);
        c.state.acknowledge(c.out, c.messages[0].token);
        c.lose_connection();  // PUBREC did not arrive
        c.connect(true);
        c.receive_publish("a", q2, 1, true);
        CHECK(c.messages.size() == 1);
        CHECK(c.sent() == "PUBREC 1");
    }
}

TEST_CASE("a QoS 2 message is delivered once over connections, whenever it is taken") {
    for (auto version : both_versions) {
        for (int when = 0; when < 3; ++when) {
            CAPTURE(when);
            auto s = server(version);
            s.receive_publish("a", q2, 1);
            auto const take = [&](int now) {
                if (now == when) s.state.acknowledge(s.out, s.messages[0].token);
            };
            take(0);
            s.lose_connection();
            take(1);
            s.accept(true);
            CHECK(s.sent() == "");
            s.receive_publish("a", q2, 1, true);
            take(2);
            CHECK(s.messages.size() == 1);
            CHECK(s.sent() == "PUBREC 1");
            s.receive_ack(pubrel, 1);
            CHECK(s.sent() == "PUBCOMP 1");
        }
    }
}

TEST_CASE("a QoS 1 message sent again on another connection is delivered again (4.3.2) if the application is done") {
    for (auto version : both_versions) {
        auto s = server(version);
        s.receive_publish("a", q1, 1);
        s.lose_connection();
        s.accept(true);
        s.receive_publish("a", q1, 1, true);
        CHECK(s.messages.size() == 1);  // it has it still
        s.state.acknowledge(s.out, s.messages[0].token);
        CHECK(s.sent() == "PUBACK 1");
        s.lose_connection();
        s.accept(true);
        s.receive_publish("a", q1, 1, true);  // PUBACK has not arrived
        CHECK(s.messages.size() == 2);
        s.state.acknowledge(s.out, s.messages[1].token);
        CHECK(s.sent() == "PUBACK 1");
    }
}

TEST_CASE("a PUBREL sent again on another connection is answered by PUBCOMP [MQTT-4.3.3-11]") {
    for (auto version : both_versions) {
        auto s = server(version);
        s.receive_publish("a", q2, 1);
        s.state.acknowledge(s.out, s.messages[0].token);
        s.lose_connection();
        s.accept(true);
        CHECK(s.receive_ack(pubrel, 1) == errc::ok);
        CHECK(s.sent() == "PUBCOMP 1");
        CHECK(s.receive_ack(pubrel, 1) == errc::ok);
        CHECK(s.sent() == (version == v5 ? "PUBCOMP 1 0x92" : "PUBCOMP 1"));
    }
}

// As a client does whose process was made anew, and which does not know what the old one had published.
TEST_CASE("a PUBREL for a message of an earlier connection for which PUBREC was still due frees its identifier") {
    for (auto version : both_versions) {
        auto s = server(version);
        s.receive_publish("a", q2, 1);
        s.lose_connection();
        s.accept(true);
        CHECK(s.receive_ack(pubrel, 1) == errc::ok);
        CHECK(s.sent() == "PUBCOMP 1");
        s.receive_publish("b", q2, 1);
        s.state.acknowledge(s.out, s.messages[0].token);  // late, and not for the new one
        CHECK(s.sent() == "");
        s.state.acknowledge(s.out, s.messages.at(1).token);
        CHECK(s.sent() == "PUBREC 1");
        CHECK(s.received() == "a=p, b=p");
    }
}

TEST_CASE("a PUBREL for a message that has come again on this connection is an error before PUBREC [MQTT-4.3.3-4]") {
    auto s = server(v5);
    s.receive_publish("a", q2, 1);
    s.lose_connection();
    s.accept(true);
    s.receive_publish("a", q2, 1, true);
    CHECK(s.receive_ack(pubrel, 1) == errc::unexpected_packet);
}

TEST_CASE("what a server of an unknown session says late of an old message is not taken for the new one's") {
    for (auto version : both_versions) {
        session_end c(role::client, version, {.in_flight = 1});
        c.publish("a", q2, first);
        c.publish("b", q2, second);
        c.publish("c", q1);
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1");
        CHECK(c.receive_ack(pubrec, 1) == errc::ok);  // crosses PUBREL
        CHECK(c.receive_ack(pubrec, 2) == errc::ok);  // PUBREL for it will go
        CHECK(c.sent() == "");
        CHECK(c.receive_ack(pubrec, 3) == errc::ok);  // no PUBREL would go before a message of QoS 1
        CHECK(c.sent() == (version == v5 ? "PUBREL 3 0x92" : "PUBREL 3"));
        CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
        c.receive_ack(pubcomp, 1);
        CHECK(c.sent() == "PUBLISH 1 qos2 a=p");
        CHECK(c.receive_ack(pubcomp, 1) == errc::ok);  // once more
        CHECK(c.published.empty());
        c.receive_ack(pubrec, 1);
        c.receive_ack(pubcomp, 1);
        CHECK(c.sent() == "PUBREL 1, PUBREL 2");
        CHECK(c.published == outcomes{{first, success}});
    }
}

TEST_CASE("PUBREC for a message that has not been sent is an error, if the session is known") {
    session_end c(role::client, v5, {.in_flight = 1});
    c.connect();
    c.publish("a", q2);
    c.publish("b", q2);
    CHECK(c.receive_ack(pubrec, 2) == errc::unexpected_packet);
}

TEST_CASE("whether an identifier has been freed to which there was no PUBREC is known until it is answered") {
    session_end c(role::client, v5);
    c.publish("a", q2);
    CHECK_FALSE(c.state.has_freed());
    c.connect(true);
    CHECK(c.state.has_freed());
    c.receive_ack(pubcomp, 1);
    CHECK_FALSE(c.state.has_freed());
    c.receive_ack(pubrec, 1);
    CHECK_FALSE(c.state.has_freed());
    c.lose_connection();
    CHECK_FALSE(c.state.has_freed());
    c.connect(true);
    CHECK(c.state.has_freed());
}

TEST_CASE("a message of a session that is gone cannot be acknowledged in the next one") {
    for (auto version : both_versions) {
        for (qos const quality : {q1, q2}) {
            auto s = server(version);
            s.receive_publish("old", quality, 1);
            s.lose_connection();
            s.accept(false);
            s.receive_publish("new", quality, 1);
            REQUIRE(s.messages.size() == 2);
            s.state.acknowledge(s.out, s.messages[0].token);
            CHECK(s.sent() == "");
            s.state.acknowledge(s.out, s.messages[1].token);
            CHECK(s.sent() == (quality == q1 ? "PUBACK 1" : "PUBREC 1"));
        }
    }
}

TEST_CASE("more messages than this end's receive maximum are an error [MQTT-3.3.4-7] [MQTT-3.3.4-9]") {
    for (role const own : {role::client, role::server}) {
        session_end e(own, v5);
        if (own == role::client)
            e.connect(false, nullptr, {.receive_maximum = 2});
        else
            e.accept(false, {}, {.receive_maximum = 2});
        CHECK(e.receive_publish("a", q1, 1) == errc::ok);
        CHECK(e.receive_publish("b", q2, 2) == errc::ok);
        CHECK(e.receive_publish("c", q0) == errc::ok);
        for (auto const& m : e.messages) e.state.acknowledge(e.out, m.token);
        CHECK(e.sent() == "PUBACK 1, PUBREC 2");
        CHECK(e.receive_publish("d", q1, 3) == errc::ok);
        CHECK(e.receive_publish("e", q1, 4) == errc::receive_maximum_exceeded);  // QoS 2 counts until PUBCOMP
    }
}

TEST_CASE("a message given back is told of again on the next connection, and a QoS 1 message held is not") {
    for (auto version : both_versions)
        for (qos const quality : {q1, q2}) {
            auto c = client(version);
            c.receive_publish("a", quality, 1);
            c.receive_publish("b", quality, 2);
            c.state.give_back(c.messages[0].token);
            CHECK(c.sent() == "");
            c.lose_connection();
            c.connect(true);
            c.receive_publish("a", quality, 1, true);
            c.receive_publish("b", quality, 2, true);
            CHECK(c.received() == "a=p, b=p, a=p");
            CHECK(c.messages[2].token.number == c.messages[0].token.number);
            for (auto const& m : c.messages) c.state.acknowledge(c.out, m.token);
            CHECK(c.sent() == (quality == q1 ? "PUBACK 1, PUBACK 2" : "PUBREC 1, PUBREC 2"));
        }
}

TEST_CASE("another connection helps where all that the server may send was given back or waits behind such") {
    for (auto version : both_versions)
        for (qos const quality : {q1, q2}) {
            session_end c(role::client, version, {.not_taken = 3});
            c.connect();
            for (std::uint16_t id = 1; id <= 3; ++id) c.receive_publish("a", quality, id);
            c.state.give_back(c.messages[0].token);
            c.state.acknowledge(c.out, c.messages[1].token);
            CHECK_FALSE(c.state.wants_new_connection());
            c.state.acknowledge(c.out, c.messages[2].token);
            CHECK(c.sent() == "");
            CHECK(c.state.wants_new_connection());
            c.lose_connection();
            c.connect(true);
            CHECK_FALSE(c.state.wants_new_connection());
        }
}

TEST_CASE("in MQTT 3.1.1 an application that takes nothing is sent no more than it may have") {
    session_end c(role::client, v3, {.not_taken = 2});
    c.connect();
    c.receive_publish("a", q1, 1);
    CHECK(c.state.can_take_more());
    c.receive_publish("a", q1, 2);
    CHECK_FALSE(c.state.can_take_more());
    SUBCASE("what has been read is taken in") {
        c.receive_publish("a", q2, 3);
        CHECK(c.messages.size() == 3);
        CHECK_FALSE(c.state.wants_new_connection());
        c.state.acknowledge(c.out, c.messages[0].token);
        c.state.acknowledge(c.out, c.messages[1].token);
        CHECK(c.state.can_take_more());
    }
    SUBCASE("while an answer is awaited reading goes on, and messages are left out for the next connection") {
        c.state.publish(c.out, {.topic = "t", .qos = q1});
        c.sent();
        CHECK(c.state.can_take_more());
        c.receive_publish("a", q1, 3);
        c.receive_publish("a", q2, 4);
        c.receive_publish("a", q0);
        CHECK(c.messages.size() == 3);
        c.receive_ack(puback, 1);
        CHECK(c.state.can_take_more());
        CHECK_FALSE(c.state.wants_new_connection());
        c.state.acknowledge(c.out, c.messages[0].token);
        CHECK(c.state.wants_new_connection());
        c.receive_publish("a", q1, 5);
        CHECK(c.messages.size() == 3);  // it must not overtake those left out
        c.state.acknowledge(c.out, c.messages[1].token);
        CHECK(c.sent() == "PUBACK 1, PUBACK 2");
        c.lose_connection();
        c.connect(true);
        CHECK_FALSE(c.state.wants_new_connection());
        c.receive_publish("a", q1, 3, true);
        c.receive_publish("a", q2, 4, true);
        CHECK(c.messages.size() == 5);
    }
}

TEST_CASE("in MQTT 3.1.1 the peer knows no receive maximum") {
    auto c = client(v3, nullptr, {.receive_maximum = 1});
    CHECK(c.receive_publish("a", q1, 1) == errc::ok);
    CHECK(c.receive_publish("b", q1, 2) == errc::ok);
}

TEST_CASE("a packet larger than this end's maximum is an error as soon as its length is there") {
    for (auto version : both_versions) {
        auto c = client(version, nullptr, {.maximum_packet_size = 100});
        CHECK(c.receive(std::string("\x30\x62", 2)) == errc::ok);
        CHECK(c.state.expected_size() == 100);
        auto d = client(version, nullptr, {.maximum_packet_size = 100});
        CHECK(d.receive(std::string("\x30\x63", 2)) == errc::packet_too_large);
    }
}

TEST_CASE("a server that does not support a QoS or retained messages does not take them") {
    auto s = server(v5, {}, {.maximum_qos = q1, .retain_available = false});
    CHECK(s.receive_publish("a", q1, 1) == errc::ok);
    CHECK(s.receive_publish("a", q2, 1) == errc::maximum_qos_exceeded);
    auto t = server(v5, {}, {.retain_available = false});
    CHECK(t.receive_packet(test::mqtt::publish{.topic = "a", .retain = true}) == errc::retain_not_available);
    auto c = client(v5);
    CHECK(c.receive_packet(test::mqtt::publish{.topic = "a", .retain = true}) == errc::ok);
}

TEST_CASE("a topic alias is an error where none is allowed (3.3.2.3.4)") {
    properties p;
    p.topic_alias = std::uint16_t{1};
    auto s = server(v5);
    CHECK(s.receive_packet(test::mqtt::publish{.topic = "a", .props = &p}) == errc::topic_alias_invalid);
}

TEST_CASE("subscription identifiers come from servers only [MQTT-3.3.4-6]") {
    std::uint32_t const identifier = 7;
    properties p;
    p.subscription_identifiers = identifier;
    auto s = server(v5);
    CHECK(s.receive_packet(test::mqtt::publish{.topic = "a", .props = &p}) == errc::property_not_allowed);
    auto c = client(v5);
    CHECK(c.receive_packet(test::mqtt::publish{.topic = "a", .props = &p}) == errc::ok);
}

// Requests, pings, and the end.

TEST_CASE("SUBSCRIBE and UNSUBSCRIBE are answered to their owners") {
    for (auto version : both_versions) {
        auto c = client(version);
        auto s = server(version);
        subscription_request const requests[] = {{.filter = "a"}, {.filter = "b/#"}};
        std::string_view const filters[] = {"a", "b/#"};
        CHECK(c.state.subscribe(c.out, {0, requests, {}}, first).error == errc::ok);
        CHECK(c.state.unsubscribe(c.out, {0, filters, {}}, second).error == errc::ok);
        CHECK(s.receive(c.take_bytes()) == errc::ok);
        CHECK(s.requests == std::vector<std::uint16_t>{1, 2});
        reason_code const granted[] = {reason_code::granted_qos_1, reason_code::unspecified_error};
        s.state.suback(s.out, {1, granted, {}});
        reason_code const removed[] = {success, success};
        s.state.unsuback(s.out, {2, removed, {}});
        CHECK(c.receive(s.take_bytes()) == errc::ok);
        CHECK(c.answered == owner_list{first, second});
    }
}

TEST_CASE("an answer with fewer or more reasons than the request has filters is an error [MQTT-3.8.4-6]") {
    for (auto version : both_versions) {
        for (std::size_t n : {std::size_t{1}, std::size_t{3}}) {
            reason_code const reasons[3] = {};
            std::span<reason_code const> const some(reasons, n);
            subscription_request const requests[] = {{.filter = "a"}, {.filter = "b"}};
            std::string_view const filters[] = {"a", "b"};
            auto c = client(version);
            c.state.subscribe(c.out, {0, requests, {}}, first);
            CHECK(c.receive_packet(suback{1, some, {}}) == errc::reason_code_count_mismatch);
            auto d = client(version);
            d.state.unsubscribe(d.out, {0, filters, {}}, first);
            CHECK(d.receive_packet(unsuback{1, some, {}}) ==
                  (version == v5 ? errc::reason_code_count_mismatch : errc::ok));
        }
    }
}

TEST_CASE("an answer to the wrong kind of request is an error") {
    for (auto version : both_versions) {
        reason_code const reason = success;
        subscription_request const request{.filter = "a"};
        std::string_view const filter = "a";
        auto c = client(version);
        c.state.subscribe(c.out, {0, request, {}}, first);
        CHECK(c.receive_packet(unsuback{1, reason, {}}) == errc::unexpected_packet);
        auto d = client(version);
        d.state.unsubscribe(d.out, {0, filter, {}}, first);
        CHECK(d.receive_packet(suback{1, reason, {}}) == errc::unexpected_packet);
        auto e = client(version);
        e.publish("a", q1);
        CHECK(e.receive_packet(suback{1, reason, {}}) == errc::unexpected_packet);
    }
}

TEST_CASE("what the server does not support is not subscribed to (3.2.2.3.11 to 3.2.2.3.13)") {
    properties none;
    none.wildcard_subscription_available = std::uint8_t{0};
    none.shared_subscription_available = std::uint8_t{0};
    none.subscription_identifier_available = std::uint8_t{0};
    std::uint32_t const identifier = 1;
    properties own;
    own.subscription_identifiers = identifier;
    auto const subscribe_to = [](session_end& c, std::string_view filter, properties const* props) {
        subscription_request const request{.filter = filter};
        return c.state.subscribe(c.out, {0, request, props}, first).error;
    };
    auto c = client(v5, &none);
    CHECK(subscribe_to(c, "a/+", nullptr) == errc::wildcard_subscription_not_available);
    CHECK(subscribe_to(c, "$share/g/a", nullptr) == errc::shared_subscription_not_available);
    CHECK(subscribe_to(c, "a", &own) == errc::subscription_identifier_not_available);
    CHECK(c.sent() == "");
    CHECK(subscribe_to(c, "a", nullptr) == errc::ok);
    auto d = client(v5);
    for (auto filter : {"a/+", "$share/g/a", "#"}) CHECK(subscribe_to(d, filter, &own) == errc::ok);
}

TEST_CASE("PINGREQ is answered by PINGRESP [MQTT-3.12.4-1]") {
    for (auto version : both_versions) {
        auto c = client(version);
        auto s = server(version);
        c.state.ping(c.out);
        CHECK(s.receive(c.take_bytes()) == errc::ok);
        CHECK(c.receive(s.take_bytes()) == errc::ok);
        CHECK(c.pingresps == 1);
    }
}

TEST_CASE("nothing is sent after DISCONNECT [MQTT-3.14.4-1]") {
    for (auto version : both_versions) {
        auto c = client(version, nullptr, {}, {.in_flight = 2});
        c.publish("a", q1, first);
        c.publish("b", q2, second);
        c.publish("c", q1);
        c.receive_publish("d", q1, 5);
        c.receive_publish("e", q2, 6);
        c.state.acknowledge(c.out, c.messages[0].token);
        c.sent();
        c.state.disconnect(c.out);
        CHECK(c.sent() == "DISCONNECT");
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        CHECK(c.receive_ack(pubrec, 2) == errc::ok);
        c.state.acknowledge(c.out, c.messages[1].token);
        CHECK(c.receive_ack(pubrel, 6) == errc::ok);
        c.publish("f", q0);
        c.publish("g", q1);
        c.state.ping(c.out);
        c.state.disconnect(c.out);
        CHECK(c.sent() == "");
        CHECK(c.published == outcomes{{first, success}});
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBREL 2, PUBLISH 3 qos1 c=p, PUBLISH qos0 f=p");
    }
}

TEST_CASE("a server of MQTT 3.1.1 has no DISCONNECT to send") {
    auto s = server(v3);
    s.state.disconnect(s.out);
    CHECK(s.sent() == "");
    CHECK(s.state.current_phase() == phase::disconnecting);
    auto t = server(v5);
    t.state.disconnect(t.out, {reason_code::server_shutting_down, {}});
    CHECK(t.sent() == "DISCONNECT");
}

TEST_CASE("after DISCONNECT of the peer nothing more is read") {
    for (auto version : both_versions) {
        auto s = server(version);
        CHECK(s.receive(test::encoded(disconnect{}, version) + test::encoded(pingreq{}, version)) == errc::ok);
        CHECK(s.disconnects == std::vector{reason_code::normal_disconnection});
        CHECK(s.sent() == "");
        CHECK(s.state.current_phase() == phase::disconnected);
    }
}

TEST_CASE("a CONNACK that comes after this end's DISCONNECT changes nothing") {
    for (auto version : both_versions) {
        session_end c(role::client, version);
        c.publish("a", q1);
        c.begin_connect();
        c.state.disconnect(c.out);
        CHECK(c.sent() == "DISCONNECT");
        CHECK(c.receive(connack_bytes(version)) == errc::ok);
        CHECK(c.sent() == "");
        CHECK_FALSE(c.state.connected());
    }
}

// Violations.

TEST_CASE("nothing but CONNACK and AUTH comes before CONNACK [MQTT-3.2.0-1]") {
    for (auto version : both_versions) {
        std::string const early[] = {
            test::encoded(test::mqtt::publish{.topic = "a"}, version),
            test::encoded(test::ack(puback, 1), version),
            test::encoded(pingresp{}, version),
            test::encoded(disconnect{}, version),
        };
        for (auto const& bytes : early) {
            session_end c(role::client, version);
            c.publish("a", q1);
            c.begin_connect();
            CHECK(c.receive(bytes) == errc::packet_before_connack);
        }
    }
    properties p;
    p.authentication_method = "m";
    session_end c(role::client, v5);
    CHECK(c.state.connect(c.out, {.client_id = "id", .props = &p}, {}) == errc::ok);
    CHECK(c.receive_packet(auth{reason_code::continue_authentication, &p}) == errc::ok);
    CHECK(c.auths.size() == 1);
    CHECK(c.state.auth(c.out, auth{reason_code::continue_authentication, &p}) == errc::ok);
    CHECK(c.receive_packet(connack{false, success, &p}) == errc::ok);
}

TEST_CASE("a second CONNACK and a second CONNECT are errors [MQTT-3.1.0-2]") {
    // Shows [MQTT-3.2.0-2].
    for (auto version : both_versions) {
        auto c = client(version);
        CHECK(c.receive(connack_bytes(version)) == errc::unexpected_packet);
        auto s = server(version);
        connect packet;
        packet.client_id = "x";
        CHECK(s.receive_packet(packet) == errc::second_connect);
    }
}

TEST_CASE("each end refuses what only it may send") {
    for (auto version : both_versions) {
        subscription_request const request{.filter = "a"};
        std::string_view const filter = "a";
        reason_code const reason = success;
        std::string const of_clients[] = {
            test::encoded(connect{.client_id = "x"}, version),
            test::encoded(subscribe{1, request, {}}, version),
            test::encoded(unsubscribe{1, filter, {}}, version),
            test::encoded(pingreq{}, version),
        };
        for (auto const& bytes : of_clients) CHECK(client(version).receive(bytes) == errc::unexpected_packet);
        std::string const of_servers[] = {
            connack_bytes(version),
            test::encoded(suback{1, reason, {}}, version),
            test::encoded(unsuback{1, reason, {}}, version),
            test::encoded(pingresp{}, version),
        };
        for (auto const& bytes : of_servers) CHECK(server(version).receive(bytes) == errc::unexpected_packet);
    }
    CHECK(client(v3).receive(std::string("\xE0\x00", 2)) == errc::unexpected_packet);  // DISCONNECT
    CHECK(client(v3).receive(std::string("\xF0\x00", 2)) == errc::unexpected_packet);  // AUTH
}

TEST_CASE("reasons that only the other end may give are errors [MQTT-3.14.2-1] [MQTT-3.15.2-1]") {
    auto s = server(v5);
    CHECK(s.receive_packet(disconnect{reason_code::server_shutting_down, {}}) == errc::invalid_reason_code);
    auto c = client(v5);
    CHECK(c.receive_packet(disconnect{reason_code::disconnect_with_will_message, {}}) == errc::invalid_reason_code);
    properties p;
    p.authentication_method = "m";
    auto d = client(v5);
    CHECK(d.receive_packet(auth{reason_code::reauthenticate, &p}) == errc::invalid_reason_code);
    CHECK(d.auths.empty());
    session_end t(role::server, v5);
    t.state.accept(t.out, {false, success, &p}, v5, {}, {});
    CHECK(t.receive_packet(auth{reason_code::reauthenticate, &p}) == errc::ok);
}

TEST_CASE("acknowledgements of identifiers that are not in flight") {
    for (auto version : both_versions) {
        CHECK(client(version).receive_ack(puback, 1) == errc::packet_identifier_unknown);
        reason_code const reason = success;
        CHECK(client(version).receive_packet(suback{9, reason, {}}) == errc::packet_identifier_unknown);
        auto c = client(version);
        CHECK(c.receive_ack(pubrec, 3) == errc::ok);  // the peer remembers more than this end: PUBREL ends it
        CHECK(c.sent() == (version == v5 ? "PUBREL 3 0x92" : "PUBREL 3"));
        CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
        CHECK(c.receive_ack(pubrel, 4) == errc::ok);
        CHECK(c.sent() == (version == v5 ? "PUBCOMP 4 0x92" : "PUBCOMP 4"));
    }
    auto c = client(v5);
    CHECK(c.receive_ack(pubrec, 3, reason_code::quota_exceeded) == errc::ok);
    CHECK(c.sent() == "");
}

TEST_CASE("acknowledgements that do not belong to the step of the exchange are errors") {
    for (auto version : both_versions) {
        struct wrong {
            qos quality;
            bool released;
            packet_type type;
        };
        for (auto const& w : std::vector<wrong>{{q1, false, pubrec},
                                                {q1, false, pubcomp},
                                                {q2, false, puback},
                                                {q2, false, pubcomp},
                                                {q2, true, puback}}) {
            auto c = client(version);
            c.publish("a", w.quality, first);
            if (w.released) c.receive_ack(pubrec, 1);
            CHECK(c.receive_ack(w.type, 1) == errc::unexpected_packet);
            CHECK(c.published.empty());
        }
    }
}

TEST_CASE("a message that has not been sent on this connection cannot be acknowledged") {
    auto c = client(v5);
    c.publish("a", q1);
    c.publish("b", q1);
    c.lose_connection();
    properties p;
    p.receive_maximum = std::uint16_t{1};
    c.connect(true, &p);
    c.publish("c", q2);
    CHECK(c.receive_ack(puback, 2) == errc::unexpected_packet);
    CHECK(c.receive_ack(pubrec, 3) == errc::unexpected_packet);
}

TEST_CASE("PUBREL before PUBREC is an error [MQTT-4.3.3-4]") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.receive_publish("a", q2, 1);
        CHECK(c.receive_ack(pubrel, 1) == errc::unexpected_packet);
    }
}

TEST_CASE("bytes that are no packet are errors, and what came before them has been handled") {
    for (auto version : both_versions) {
        auto s = server(version);
        std::string const bytes = test::encoded(pingreq{}, version) + std::string("\x00\x00", 2);
        CHECK(s.receive(bytes) == errc::unknown_packet_type);
        CHECK(s.sent() == "PINGRESP");
        CHECK(s.input.size() == 2);
    }
}

TEST_CASE("packets cut at every byte are handled as those in one piece") {
    for (auto version : both_versions) {
        std::string const packets =
            connack_bytes(version) + test::encoded(test::mqtt::publish{.topic = "a", .payload = "p"}, version) +
            test::encoded(test::ack(puback, 1), version) + test::encoded(test::ack(pubrec, 2), version) +
            test::encoded(test::mqtt::publish{.topic = "b", .qos = q2, .packet_id = 9}, version) +
            test::encoded(test::ack(pubcomp, 2), version) + test::encoded(test::ack(pubrel, 77), version) +
            test::encoded(pingresp{}, version);
        for (std::size_t cut = 0; cut <= packets.size() + 1; ++cut) {
            CAPTURE(cut);
            session_end c(role::client, version);
            c.publish("x", q1, first);
            c.publish("y", q2, second);
            c.begin_connect();
            std::string_view const all = packets;
            if (cut <= all.size()) {
                CHECK(c.receive(all.substr(0, cut)) == errc::ok);
                CHECK(c.receive(all.substr(cut)) == errc::ok);
            } else {
                for (char const byte : all) CHECK(c.receive({&byte, 1}) == errc::ok);
            }
            CHECK(c.input.empty());
            CHECK(c.received() == "a=p, b=");
            CHECK(c.published == outcomes{{first, success}, {second, success}});
            CHECK(c.sent() == std::string("PUBLISH 1 qos1 x=p, PUBLISH 2 qos2 y=p, PUBREL 2, PUBCOMP 77") +
                                  (version == v5 ? " 0x92" : ""));
            CHECK(c.pingresps == 1);
        }
    }
}

TEST_CASE("rubbish of any kind is an error or nothing, and never a crash") {
    std::uint32_t random = 1;
    for (auto version : both_versions)
        for (role const own : {role::client, role::server})
            for (int i = 0; i < 3000; ++i) {
                session_end e(own, version);
                if (own == role::client)
                    e.connect();
                else
                    e.accept();
                e.publish("a", q1, first);
                e.publish("b", q2, second);
                std::string bytes(1 + random % 20, '\0');
                for (auto& byte : bytes) byte = static_cast<char>((random = random * 1664525 + 1013904223) >> 24);
                errc const error = e.receive(bytes);
                bool const told = error != errc::ok;
                if (!told && !e.input.empty()) CHECK(e.state.expected_size() != 1);
                CHECK((!told || std::string_view(describe(error)) != ""));
            }
}

// Handlers that call back.

TEST_CASE("a handler may acknowledge and publish from inside on_message") {
    for (auto version : both_versions) {
        auto c = client(version);
        struct : session_handler {
            session_end* end;
            void on_message(test::mqtt::publish const& p, delivery d) {
                end->publish("answer", p.qos);
                end->state.acknowledge(end->out, d);
            }
        } handler;
        handler.end = &c;
        std::string bytes;
        for (std::uint16_t id = 1; id <= 3; ++id)
            bytes += test::encoded(
                test::mqtt::publish{
                    .topic = "a", .qos = static_cast<qos>(id - 1), .packet_id = id == 1 ? std::uint16_t{0} : id},
                version);
        CHECK(c.receive(bytes, handler) == errc::ok);
        CHECK(c.sent() ==
              "PUBLISH qos0 answer=p, PUBLISH 1 qos1 answer=p, PUBACK 2, PUBLISH 2 qos2 answer=p, PUBREC 3");
    }
}

TEST_CASE("a handler may publish from inside on_published, also when the queue was full") {
    for (auto version : both_versions) {
        auto c = client(version, nullptr, {}, {.queued_bytes = 1, .in_flight = 1});
        struct : session_handler {
            session_end* end;
            int left = 100;
            void on_published(void*, acknowledgement const&) {
                if (left-- > 0) CHECK(end->publish("next", q1, first).error == errc::ok);
            }
        } handler;
        handler.end = &c;
        c.publish("a", q1, first);
        CHECK(c.publish("b", q1).error == errc::queue_full);
        for (std::uint16_t id = 1; id <= 101; ++id)
            CHECK(c.receive(test::encoded(test::ack(puback, id), version), handler) == errc::ok);
        CHECK(handler.left == -1);
        CHECK(c.state.unacknowledged() == 0);
    }
}

TEST_CASE("what a handler publishes while the session is found lost is sent in its turn, with the rest") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q2, first);
        c.publish("b", q2, second);
        c.publish("c", q2);
        c.receive_ack(pubrec, 1);
        c.receive_ack(pubrec, 2);
        c.lose_connection();
        struct : session_handler {
            session_end* end;
            void on_lost(void*) {
                for (int i = 0; i < 10; ++i) end->publish("again", q2);  // more than the queue has places
            }
            void on_connack(connack const&) {
                end->publish("now", q0);
                end->publish("then", q1);
            }
        } handler;
        handler.end = &c;
        c.begin_connect();
        CHECK(c.receive(connack_bytes(version), handler) == errc::ok);
        std::string expected = "PUBLISH qos0 now=p, PUBLISH 3 qos2 c=p";
        for (int id = 4; id < 24; ++id) expected += ", PUBLISH " + std::to_string(id) + " qos2 again=p";
        CHECK(c.sent() == expected + ", PUBLISH 24 qos1 then=p");
    }
}

TEST_CASE("a handler that publishes again what was refused gets the error at once") {
    session_end c(role::client, v5);
    for (int i = 0; i < 20; ++i) c.publish("a", q2, first);
    struct : session_handler {
        session_end* end;
        int refused = 0;
        void on_refused(void*, errc) {
            ++refused;
            CHECK(end->publish("a", q2).error == errc::maximum_qos_exceeded);
            CHECK(end->publish("b", q1).error == errc::ok);
        }
    } handler;
    handler.end = &c;
    properties p;
    p.maximum_qos = std::uint8_t{1};
    c.begin_connect();
    CHECK(c.receive_packet_to(connack{false, success, &p}, handler) == errc::ok);
    CHECK(handler.refused == 20);
    CHECK(c.state.unacknowledged() == 20);
}

TEST_CASE("QoS 0 published from inside on_connack does not overtake what is queued of it (4.6)") {
    for (auto version : both_versions) {
        session_end c(role::client, version);
        c.publish("a", q0);
        struct : session_handler {
            session_end* end;
            void on_connack(connack const&) { end->publish("b", q0); }
        } handler;
        handler.end = &c;
        c.begin_connect();
        CHECK(c.receive(connack_bytes(version), handler) == errc::ok);
        CHECK(c.sent() == "PUBLISH qos0 a=p, PUBLISH qos0 b=p");
    }
}

TEST_CASE("a handler may end the connection, and nothing more is read or sent") {
    for (auto version : both_versions) {
        for (bool const politely : {false, true}) {
            struct stopper : session_handler {
                session_end* end;
                bool politely;
                void stop() {
                    if (politely) end->state.disconnect(end->out);
                    end->state.connection_lost();
                }
                void on_connack(connack const&) { stop(); }
                void on_lost(void*) { stop(); }
                void on_message(test::mqtt::publish const&, delivery) { stop(); }
                void on_published(void*, acknowledgement const&) { stop(); }
            } handler;
            handler.politely = politely;
            std::string_view const expected = politely ? "DISCONNECT" : "";

            session_end c(role::client, version);
            handler.end = &c;
            c.publish("a", q1);
            c.begin_connect();
            CHECK(c.receive(connack_bytes(version), handler) == errc::ok);
            CHECK(c.sent() == (politely ? "PUBLISH 1 qos1 a=p, DISCONNECT" : ""));
            CHECK(c.state.current_phase() == phase::disconnected);

            c.connect();
            c.sent();
            CHECK(c.receive(test::encoded(test::mqtt::publish{.topic = "a"}, version) + "rubbish", handler) ==
                  errc::ok);
            CHECK(c.sent() == expected);

            c.lose_connection();
            c.connect(true);
            c.publish("b", q2, first);
            c.sent();
            c.receive_ack(pubrec, 2);
            c.lose_connection();
            c.publish("c", q1);
            c.begin_connect();
            CHECK(c.receive(connack_bytes(version), handler) == errc::ok);  // on_lost
            CHECK(c.sent() == expected);
            CHECK_FALSE(c.state.connected());

            c.lose_connection();
            c.connect(true);
            CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH 3 qos1 c=p");  // the server had no session
        }
    }
}

TEST_CASE("idle memory is given back, and the session goes on") {
    auto c = client(v5);
    for (int i = 0; i < 100; ++i) c.publish("a", q1);
    for (std::uint16_t id = 1; id <= 100; ++id) c.receive_ack(puback, id);
    c.take_bytes();
    c.state.release_idle_memory();
    c.publish("b", q1);
    CHECK(c.sent() == "PUBLISH 101 qos1 b=p");
}

// The second of something.

TEST_CASE("what has been read of a packet is not waited for on the next connection") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.receive(test::encoded(publish{.topic = "topic", .payload = "payload"}, version).substr(0, 4));
        CHECK(c.state.expected_size() > 4);
        c.lose_connection();
        CHECK(c.state.expected_size() == 0);
    }
}

TEST_CASE("messages given back are asked for once, and only where the session outlives its connection") {
    auto c = client(v3);
    c.receive_publish("a", q1, 1);
    c.state.give_back(c.messages[0].token);
    CHECK(c.state.ask_again());
    CHECK(c.state.wants_new_connection());
    c.lose_connection();
    c.connect(true);
    CHECK_FALSE(c.state.wants_new_connection());
    c.lose_connection();
    c.begin_connect({}, true);
    c.receive_packet(connack{});
    CHECK_FALSE(c.state.ask_again());
    auto d = client(v5);  // without a session expiry interval
    CHECK_FALSE(d.state.ask_again());
}

TEST_CASE("an application is full where the server does not know how many messages it takes") {
    for (auto version : both_versions) {
        // In MQTT 3.1.1 a server is not told of the receive maximum, and in MQTT 5 this one is larger.
        auto c =
            client(version, nullptr, {.receive_maximum = std::uint16_t(version == v3 ? 2 : 65535)}, {.not_taken = 2});
        c.receive_publish("a", q1, 1);
        CHECK_FALSE(c.state.is_full());
        c.receive_publish("a", q1, 2);
        CHECK(c.state.is_full());
    }
}

TEST_CASE("SUBSCRIBE may be as large as the server takes packets, and no larger") {
    subscription_request const filters[] = {{"a/filter"}};
    for (std::uint32_t size = 14; size <= 16; ++size) {
        properties announced;
        announced.maximum_packet_size = size;
        auto c = client(v5, &announced);
        subscribe const packet{.packet_id = 1, .requests = filters, .props = {}};
        REQUIRE(encoded_size(packet, v5) == 16);
        CHECK(c.state.subscribe(c.out, packet, nullptr).error == (size < 16 ? errc::packet_too_large : errc::ok));
    }
}

TEST_CASE("a handler that ends the connection when its message is refused at CONNACK has ended it") {
    session_end c(role::client, v5);
    properties announced;
    announced.maximum_packet_size = std::uint32_t{20};
    CHECK(c.state.publish(c.out, {.topic = "a long topic for a message", .qos = q1}).error == errc::ok);
    c.publish("b", q1);
    struct ending : session_end::listener {
        using listener::listener;
        void on_refused(void*, errc) { CHECK(end.state.disconnect(end.out) == errc::ok); }
    } handler(c);
    c.begin_connect();
    CHECK(c.receive_packet_to(connack{false, success, &announced}, handler) == errc::ok);
    CHECK(c.state.current_phase() == phase::disconnecting);
    CHECK(c.sent() == "DISCONNECT");
}

TEST_CASE("what goes with an acknowledgement goes with it once, and not over another connection") {
    properties why;
    why.reason_string = "why";
    auto c = client(v5);
    c.receive_publish("a", q2, 1);
    CHECK(c.state.acknowledge(c.out, c.messages[0].token, success, &why) == errc::ok);
    CHECK(c.take_bytes().size() > 6);
    c.receive_publish("a", q2, 1, true);
    CHECK(c.take_bytes().size() == 4);
    CHECK(c.state.acknowledge(c.out, c.messages[0].token, success, &why) == errc::ok);  // it has been taken
    c.receive_publish("a", q2, 1, true);
    CHECK(c.take_bytes().size() == 4);

    c.receive_publish("a", q2, 2);
    c.receive_publish("a", q2, 3);
    c.state.acknowledge(c.out, c.messages[2].token, success, &why);
    CHECK(c.sent() == "");
    c.lose_connection();
    c.connect(true);
    c.receive_publish("a", q2, 3, true);
    CHECK(c.take_bytes().size() == 4);
}

TEST_CASE("acknowledgements of four bytes are looked at as closely as others") {
    for (auto version : both_versions) {
        auto c = client(version);
        CHECK(c.receive(std::string("\x60\x02\x00\x01", 4)) != errc::ok);  // PUBREL without its flags
        auto d = client(version);
        auto const error = d.receive(std::string("\x40\x02\x00\x00", 4));
        CHECK(error != errc::ok);
        CHECK(error != errc::packet_identifier_unknown);
    }
}

TEST_CASE("a message whose handler throws is new when it is sent again") {
    for (auto version : both_versions)
        for (qos const quality : {q1, q2}) {
            auto c = client(version);
            struct failing : session_end::listener {
                using listener::listener;
                void on_message(publish const&, delivery) { throw 1; }
            } handler(c);
            publish const message{.topic = "a", .payload = "p", .qos = quality, .packet_id = 1};
            CHECK_THROWS_AS(c.receive_packet_to(message, handler), int);
            CHECK(c.sent() == "");
            c.lose_connection();
            c.connect(true);
            c.receive_publish("a", quality, 1, true);
            CHECK(c.messages.size() == 1);
        }
}

TEST_CASE("DISCONNECT tells its reason also to a client that wants no such texts (3.1.2.11.7)") {
    properties why;
    why.reason_string = "why";
    auto c = client(v5, nullptr, {.problem_information = false});
    CHECK(c.receive_packet(disconnect{reason_code::server_busy, &why}) == errc::ok);
    CHECK(c.disconnects.size() == 1);
}

TEST_CASE("DISCONNECT for whose properties the peer has no room is an error, and nothing happens") {
    for (std::uint32_t const maximum : {8u, 9u}) {
        CAPTURE(maximum);
        properties announced;
        announced.maximum_packet_size = maximum;
        session_end c(role::client, v5);
        properties lasting;
        lasting.session_expiry_interval = 100u;
        runnel::mqtt::connect packet;
        packet.client_id = "id";
        packet.clean_start = false;
        packet.props = &lasting;
        c.state.connect(c.out, packet, {});
        c.out.clear();
        c.receive_packet(connack{false, reason_code::success, &announced});
        properties p;
        p.session_expiry_interval = 10u;
        p.reason_string = "why";  // is left out
        bool const fits = maximum == 9;
        CHECK(c.state.disconnect(c.out, {reason_code::normal_disconnection, &p}) ==
              (fits ? errc::ok : errc::packet_too_large));
        CHECK(c.state.connected() == !fits);
        CHECK(c.sent() == (fits ? "DISCONNECT" : ""));
        if (fits) continue;
        p.session_expiry_interval.reset();
        CHECK(c.state.disconnect(c.out, {reason_code::disconnect_with_will_message, &p}) == errc::ok);
        CHECK(c.take_bytes() == std::string("\xE0\x01\x04", 3));
    }
    server s(v5, {.maximum_packet_size = 8});
    properties elsewhere;
    elsewhere.server_reference = "other";
    CHECK(s.state.disconnect(s.out, {reason_code::use_another_server, &elsewhere}) == errc::packet_too_large);
    CHECK(s.state.connected());
    CHECK(s.state.disconnect(s.out, {reason_code::use_another_server, {}}) == errc::ok);
    CHECK(s.sent() == "DISCONNECT");
    server t(v5, {.maximum_packet_size = 2});  // there is no room for anything
    CHECK(t.state.disconnect(t.out, {reason_code::server_busy, {}}) == errc::ok);
    CHECK(t.state.current_phase() == phase::disconnecting);
    CHECK(t.sent() == "");
}

TEST_CASE("DISCONNECT that this end may not send is an error between connections, too") {
    auto c = client(v5);
    for (bool const connected : {true, false}) {
        CHECK(c.state.connected() == connected);
        CHECK(c.state.disconnect(c.out, {reason_code::server_busy, {}}) == errc::invalid_reason_code);
        CHECK(c.state.connected() == connected);
        properties p;
        p.session_expiry_interval = 10u;  // it was to end with its connection
        CHECK(c.state.disconnect(c.out, {reason_code::success, &p}) == errc::property_not_allowed);
        c.lose_connection();
    }
    CHECK(c.state.disconnect(c.out) == errc::ok);
    CHECK(c.sent() == "");
}

TEST_CASE("AUTH that crosses DISCONNECT is no error") {
    auto c = client(v5);
    CHECK(c.state.disconnect(c.out) == errc::ok);
    properties method;
    method.authentication_method = "method";
    CHECK(c.receive_packet(auth{reason_code::continue_authentication, &method}) == errc::ok);
    CHECK(c.auths.empty());
}

TEST_CASE(
    "a CONNACK that crosses DISCONNECT ends what the session has not finished that it tells is lost, and nothing "
    "else") {
    for (auto version : both_versions)
        for (bool const is_lost : {false, true}) {
            auto c = client(version);
            c.publish("a", q2, first);
            c.receive_ack(pubrec, 1);
            c.lose_connection();
            c.begin_connect();
            c.state.disconnect(c.out);
            CHECK(c.receive_packet(connack{.session_present = !is_lost}) == errc::ok);
            CHECK(c.lost.size() == (is_lost ? 1 : 0));
        }
}

TEST_CASE("in a new session of the server a QoS 2 message is new, whatever its identifier was before") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.receive_publish("a", q2, 1);
        c.state.acknowledge(c.out, c.messages[0].token);
        c.lose_connection();
        c.connect(false);
        c.receive_publish("b", q2, 1);
        CHECK(c.received() == "a=p, b=p");
    }
}

TEST_CASE("a PUBREC that crosses a PUBREL sent again is answered once more") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q2);
        c.receive_ack(pubrec, 1);
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1");
        CHECK(c.receive_ack(pubrec, 1) == errc::ok);
        CHECK(c.sent() == "PUBREL 1");
    }
}

TEST_CASE("no more messages are queued than the limit says") {
    for (auto version : both_versions) {
        session_end c(role::client, version, {.queued_messages = 2});
        CHECK(c.publish("a", q1).error == errc::ok);
        CHECK(c.publish("b", q1).error == errc::ok);
        CHECK(c.publish("c", q1).error == errc::queue_full);
    }
}

TEST_CASE("a session that was lost is known to be so although DISCONNECT has gone before CONNACK came") {
    for (auto const version : both_versions) {
        session_end c(role::client, version);
        c.connect();
        c.receive_publish("a", qos::exactly_once, 1);
        c.lose_connection();
        c.begin_connect();
        CHECK(c.state.disconnect(c.out) == errc::ok);
        CHECK(c.receive_packet(connack{.session_present = false}) == errc::ok);
        c.lose_connection();
        c.connect(true);  // the server has kept the session that began with that connection
        c.receive_publish("b", qos::exactly_once, 1);
        CHECK(c.received() == "a=p, b=p");
    }
}

TEST_CASE("CONNACK behind DISCONNECT begins nothing: nothing more is sent, and nobody is told of it [MQTT-3.14.4-1]") {
    for (auto const version : both_versions) {
        session_end c(role::client, version);
        c.begin_connect();
        CHECK(c.state.disconnect(c.out) == errc::ok);
        c.publish("a", q1);
        CHECK(c.sent() == "DISCONNECT");
        CHECK(c.receive_packet(connack{.session_present = false}) == errc::ok);
        CHECK(c.state.current_phase() == phase::disconnecting);
        CHECK_FALSE(c.state.connected());
        CHECK(c.sent() == "");
        CHECK(c.connacks.empty());
        CHECK(c.receive_packet(connack{}) == errc::unexpected_packet);  // there is one only
    }
}

namespace {

// The next connection of a client whose last CONNECT has had no answer; CONNACK: session present.
void connect_behind_missed_answer(session_end& c) {
    c.lose_connection();
    c.begin_connect();
    c.lose_connection();
    c.connect(true);
}

}  // namespace

TEST_CASE("a session is doubted if the answer to a CONNECT was missed, until one is known for certain") {
    // Shows what 3.2.2.1.1 leaves open.
    for (auto const version : both_versions) {
        auto c = client(version);
        CHECK_FALSE(c.state.doubts_session());
        c.lose_connection();
        c.connect(true);
        CHECK_FALSE(c.state.doubts_session());
        connect_behind_missed_answer(c);
        CHECK(c.state.doubts_session());
        c.lose_connection();
        CHECK_FALSE(c.state.doubts_session());
        c.connect(true);
        CHECK_FALSE(c.state.doubts_session());
        c.lose_connection();
        c.begin_connect();
        c.state.disconnect(c.out);  // the answer is not waited for
        c.lose_connection();
        c.begin_connect();
        c.receive_packet(connack{.reason = v5 == version ? reason_code::server_busy : reason_code{3}});
        c.lose_connection();
        c.connect(true);
        CHECK(c.state.doubts_session());
        c.lose_connection();
        c.begin_connect();
        c.lose_connection();
        c.connect(false);
        CHECK_FALSE(c.state.doubts_session());
        c.lose_connection();
        c.connect(true);
        CHECK_FALSE(c.state.doubts_session());
    }
}

TEST_CASE("a CONNECT that was refused has begun no session") {
    auto c = client(v5);
    c.lose_connection();
    c.begin_connect();
    c.receive_packet(connack{.reason = reason_code::server_busy});
    c.lose_connection();
    c.connect(true);
    CHECK_FALSE(c.state.doubts_session());
}

TEST_CASE("in a doubted session a QoS 2 message is new unless it says that it comes again") {
    for (auto const version : both_versions) {
        auto c = client(version);
        for (std::uint16_t id = 1; id <= 2; ++id) {
            c.receive_publish("a", q2, id);
            c.state.acknowledge(c.out, c.messages.back().token);
        }
        connect_behind_missed_answer(c);
        c.receive_publish("a", q2, 1, true);
        c.receive_publish("b", q2, 2);
        CHECK(c.received() == "a=p, a=p, b=p");
    }
}

TEST_CASE("a QoS 2 message of which the server of a doubted session knows nothing is told to be lost with it") {
    for (bool const doubted : {false, true}) {
        auto c = client(v5);
        c.publish("a", q2, first);
        c.receive_ack(pubrec, 1);
        c.lose_connection();
        if (doubted) {
            connect_behind_missed_answer(c);
            c.lose_connection();
        }
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1");
        CHECK(c.receive_ack(pubcomp, 1, reason_code::packet_identifier_not_found) == errc::ok);
        CHECK(c.lost.size() == (doubted ? 1 : 0));
        CHECK(c.published == (doubted ? outcomes{} : outcomes{{first, success}}));
        CHECK(c.state.unacknowledged() == 0);
        CHECK(c.state.acknowledged() == (doubted ? 0 : 1));
    }
}

TEST_CASE("what waited for a message that is lost with its session is sent") {
    session_end c(role::client, v5, {.in_flight = 1});
    c.connect();
    c.publish("a", q2, first);
    c.receive_ack(pubrec, 1);
    c.lose_connection();
    connect_behind_missed_answer(c);
    c.lose_connection();
    c.connect(true);
    c.publish("b", q1);
    CHECK(c.sent() == "PUBREL 1");
    c.receive_ack(pubcomp, 1, reason_code::packet_identifier_not_found);
    CHECK(c.sent() == "PUBLISH 2 qos1 b=p");
}

TEST_CASE("of a doubted session PUBCOMP without a fault tells that the server has the message") {
    for (auto const version : both_versions) {
        auto c = client(version);
        c.publish("a", q2, first);
        c.receive_ack(pubrec, 1);
        connect_behind_missed_answer(c);
        CHECK(c.receive_ack(pubcomp, 1) == errc::ok);
        CHECK(c.published == outcomes{{first, success}});
        CHECK(c.lost.empty());
    }
}

TEST_CASE("behind DISCONNECT, where reading goes on, no more messages are handed over than the application may have") {
    for (auto const version : both_versions) {
        auto c = client(version, nullptr, {}, {.not_taken = 2});
        for (std::uint16_t id = 1; id <= 2; ++id) c.receive_publish("a", q1, id);
        CHECK(c.state.disconnect(c.out) == errc::ok);
        for (std::uint16_t id = 3; id <= 5; ++id) CHECK(c.receive_publish("b", id == 4 ? q2 : q1, id) == errc::ok);
        CHECK(c.receive_publish("c", q0) == errc::ok);
        CHECK(c.received() == "a=p, a=p, c=p");
        c.lose_connection();
        c.connect(true);
        CHECK(c.receive_publish("b", q1, 3, true) == errc::ok);
        CHECK(c.received() == "a=p, a=p, c=p, b=p");
    }
}
