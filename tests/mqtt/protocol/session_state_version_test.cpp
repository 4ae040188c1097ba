#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include "support/session_end.hpp"
#include <string>
#include <vector>

// A client that may speak either version: what waits, and what becomes of it on a connection of MQTT 3.1.1.

namespace {

namespace mqtt = runnel::mqtt;
using namespace runnel::mqtt;
using test::session_end;
constexpr auto puback = packet_type::puback;
constexpr auto pubrec = packet_type::pubrec;
constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;
int owners[1];

struct client : session_end {
    client() : session_end(role::client, protocol_version::automatic) { typed.content_type = "text"; }

    // Connects in this version, to a server that has kept the session or not.
    void connect_in(protocol_version v, bool session_present) {
        state.connection_lost();
        state.speak(v);
        version = v;
        mqtt::connect packet;
        packet.client_id = "c";
        packet.clean_start = false;
        CHECK(state.connect(out, packet, {}) == errc::ok);
        out.clear();
        CHECK(receive_packet(mqtt::connack{session_present, reason_code::success, {}}) == errc::ok);
    }
    errc publish_typed(qos quality, void* owner) {
        return state.publish(out, {.topic = "t", .payload = "p", .qos = quality, .props = &typed}, owner).error;
    }
    properties typed;
};

}  // namespace

TEST_CASE("an automatic session state begins with MQTT 5, in which messages wait whatever is spoken") {
    client c;
    CHECK(c.state.version() == v5);
    c.connect_in(v3, false);
    CHECK(c.state.version() == v3);
    CHECK(c.state.queue_version() == v5);
    c.connect_in(v5, false);
    CHECK(c.state.version() == v5);
    CHECK(c.state.queue_version() == v5);
}

TEST_CASE("messages that have waited are written as MQTT 3.1.1 has them, in their order") {
    client c;
    c.publish("a", q1);
    c.publish("b", q0);
    c.publish("c", q2);
    c.connect_in(v3, false);
    CHECK(c.sent() == "PUBLISH 1 qos1 a=p, PUBLISH qos0 b=p, PUBLISH 3 qos2 c=p");
    c.publish("d", q0);
    c.publish("e", q1);
    CHECK(c.sent() == "PUBLISH qos0 d=p, PUBLISH 4 qos1 e=p");
    CHECK(c.receive_ack(puback, 1) == errc::ok);
    CHECK(c.receive_ack(pubrec, 3) == errc::ok);
    CHECK(c.sent() == "PUBREL 3");
    c.connect_in(v5, true);
    CHECK(c.sent() == "PUBREL 3, PUBLISH 4 qos1 dup e=p");
    c.publish("f", q1);
    CHECK(c.sent() == "PUBLISH 5 qos1 f=p");
    CHECK(c.state.without_properties() == 0);
}

TEST_CASE("properties are taken until MQTT 3.1.1 is spoken; a message that has not been sent ends with them") {
    client c;
    CHECK(c.publish_typed(q1, &owners[0]) == errc::ok);
    CHECK(c.publish_typed(q0, nullptr) == errc::ok);
    CHECK(c.state.may_have_v5());
    c.connect_in(v3, false);
    CHECK(c.sent() == "");
    CHECK(c.refused == std::vector<session_end::refusal>{{&owners[0], errc::not_in_this_version},
                                                         {nullptr, errc::not_in_this_version}});
    CHECK(c.state.without_properties() == 2);
    CHECK(c.state.queued_bytes() == 0);
    CHECK_FALSE(c.state.may_have_v5());
    for (auto const quality : {q0, q1, q2}) CHECK(c.publish_typed(quality, nullptr) == errc::not_in_this_version);
    c.state.connection_lost();
    CHECK(c.state.may_have_v5());
    CHECK(c.publish_typed(q2, nullptr) == errc::ok);
    c.connect_in(v5, false);
    CHECK(c.sent() == "PUBLISH 3 qos2 t=p");
    CHECK(c.state.without_properties() == 0);
}

TEST_CASE("what has been sent with properties is sent again without, and with them again to a server of MQTT 5") {
    client c;
    c.connect_in(v5, false);
    CHECK(c.publish_typed(q1, &owners[0]) == errc::ok);
    auto const with = c.take_bytes();
    c.connect_in(v3, true);
    auto const without = std::string(c.out.view());
    CHECK(c.sent() == "PUBLISH 1 qos1 dup t=p");
    CHECK(without.size() < with.size());
    CHECK(c.state.without_properties() == 1);
    CHECK(c.refused.empty());
    c.connect_in(v5, true);
    auto again = std::string(c.out.view());
    again[0] = static_cast<char>(again[0] & ~0x08);
    CHECK(again == with);
}
