#include <runnel/testing/broker/detail/core.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <support/packets.hpp>
#include <support/session_end.hpp>
#include <support/timed_broker.hpp>

// Clauses about servers, shown of the embedded broker by the packets that go in and those that come out.

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::hex;

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr protocol_version both_versions[] = {v3, v5};
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;

struct fixture : test::timed_broker {
    fixture() : fixture({.accepts = {}}) {}  // without topic aliases, for plain CONNACKs
    explicit fixture(testing::broker_options options) : timed_broker(std::move(options)) {}
    std::size_t publish(std::string_view topic, qos quality, mqtt::properties const* props = nullptr) {
        mqtt::publish m{.topic = topic, .payload = "p", .qos = quality};
        if (props != nullptr) m.props = props;
        return core.publish(m, now);
    }
};

// A client without any rules of its own: it says packets and hears packets.
class peer final : public testing::detail::broker_connection {
  public:
    peer(fixture& p, protocol_version v)
        : runnel::testing::detail::broker_connection({"memory", "", false}), fixture_(p), version_(v) {}
    ~peer() { leave(); }

    void wake() override {}
    void abort() override {
        aborted = true;
        leave();
    }

    void open() {
        leave();
        closing = aborted = false;
        attached_ = true;
        fixture_.core.opened(*this, fixture_.now);
    }
    // The network connection ends.
    void leave() {
        if (!attached_) return;
        attached_ = false;
        fixture_.core.closed(*this, fixture_.now);
        out.clear();
    }

    void say(std::string const& bytes) {
        std::string_view input = bytes;
        fixture_.core.receive(*this, input, fixture_.now);
        CHECK(input.empty());
    }
    template <class Packet>
    void say_packet(Packet const& packet) {
        say(test::encoded(packet, version_));
    }
    // What has come since the last call.
    std::string bytes() {
        std::string const all(out.view());
        out.clear();
        if (attached_) fixture_.core.sent(*this, fixture_.now);
        return all;
    }
    std::string heard() { return test::in_words(bytes(), version_); }

    // A connection with CONNACK heard, and returned with what came behind it. In MQTT 5 the session lasts for an hour,
    // unless it begins clean.
    std::string connect(std::string_view id, bool clean_start = true) {
        open();
        mqtt::properties lasting;
        lasting.session_expiry_interval = 3600;
        mqtt::connect packet{.client_id = id, .clean_start = clean_start};
        if (version_ == v5 && !clean_start) packet.props = &lasting;
        say_packet(packet);
        return bytes();
    }
    std::string subscribe(std::string_view filter, qos quality = q2, std::uint16_t id = 1) {
        mqtt::subscription_request const request{.filter = filter, .maximum_qos = quality};
        say_packet(mqtt::subscribe{.packet_id = id, .requests = request});
        return heard();
    }
    void ack(mqtt::packet_type type, std::uint16_t id, reason_code reason = {}) {
        say_packet(test::ack(type, id, reason));
    }

    bool aborted = false;

  private:
    fixture& fixture_;
    protocol_version version_;
    bool attached_ = false;
};

std::string connack_bytes(protocol_version version, bool present = false) {
    return test::encoded(mqtt::connack{.session_present = present}, version);
}

}  // namespace

TEST_CASE("a CONNECT is answered by one CONNACK of success [MQTT-3.1.4-5]") {
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        CHECK(c.connect("a") == connack_bytes(version));
        c.say_packet(mqtt::pingreq{});
        CHECK(c.heard() == "PINGRESP");
    }
}

TEST_CASE("client identifiers of 1 to 23 letters and digits are accepted [MQTT-3.1.3-5]") {
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        for (std::string_view const id :
             {"0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "DEFGHIJKLMNOPQRSTUVWXYZ"}) {
            CHECK(c.connect(id) == connack_bytes(version));
            CHECK(p.core.connected(id));
        }
    }
}

TEST_CASE("a client whose identifier is rejected is told so, and its connection closed [MQTT-3.1.3-8]") {
    for (auto const version : both_versions) {
        fixture p;
        p.core.hooks.on_connect = [](auto&) { return reason_code::client_identifier_not_valid; };
        peer c(p, version);
        CHECK(c.connect("a") == hex(version == v5 ? "20 03 00 85 00" : "20 02 00 02"));
        CHECK(c.closing);
        p.pass(2s);  // it has not closed itself
        CHECK(c.aborted);
    }
}

TEST_CASE("nothing that comes behind a refused CONNECT is processed [MQTT-3.1.4-6]") {
    for (auto const version : both_versions) {
        fixture p;
        p.core.hooks.on_connect = [](auto&) { return reason_code::not_authorized; };
        peer c(p, version);
        c.open();
        mqtt::publish const m{.topic = "t", .payload = "x", .qos = q1, .retain = true, .packet_id = 1};
        auto const publish = test::encoded(m, version);
        c.say(test::encoded(mqtt::connect{.client_id = "a"}, version) + publish);
        c.say(publish);
        CHECK(c.heard() == "CONNACK");
        CHECK(p.core.counters().messages_received == 0);
        CHECK(p.core.retained_count() == 0);
    }
}

TEST_CASE("a clean start drops the old session and begins a new one [MQTT-3.1.2-4] [MQTT-3.1.4-4]") {
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        CHECK(c.connect("a", false) == connack_bytes(version));
        c.subscribe("t");
        c.leave();
        p.publish("t", q1);
        CHECK(c.connect("a", true) == connack_bytes(version));  // and nothing behind it
        CHECK(p.publish("t", q1) == 0);
    }
}

TEST_CASE("a CONNECT that breaks the rules is answered by CONNACK in MQTT 5 only, never by DISCONNECT") {
    // Shows [MQTT-3.14.0-1] [MQTT-3.2.2-6 of 3.1.1].
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.open();
        c.say(test::packet(0x10, hex(version == v5 ? "0004 'MQTT' 05 03 0000 00 0001 'a'"
                                                   : "0004 'MQTT' 04 03 0000 0001 'a'")));  // the reserved flag
        CHECK(c.bytes() == (version == v5 ? hex("20 03 00 81 00") : ""));
        CHECK(c.closing);
        c.open();
        c.say_packet(mqtt::pingreq{});
        CHECK(c.heard() == "");
        CHECK(c.closing);
    }
}

TEST_CASE("an authentication method is refused, and the connection closed [MQTT-4.12.0-1]") {
    fixture p;
    peer c(p, v5);
    c.open();
    mqtt::properties method;
    method.authentication_method = "m";
    c.say_packet(mqtt::connect{.client_id = "a", .props = &method});
    CHECK(c.bytes() == hex("20 03 00 8C 00"));
    CHECK(c.closing);
}

TEST_CASE("a violation of the protocol closes the connection") {
    // Shows [MQTT-4.8.0-1 of 3.1.1] [MQTT-3.14.4-2].
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.connect("a");
        c.say(hex("36 05 0001 't' 0001"));  // QoS 3
        CHECK(c.heard() == (version == v5 ? "DISCONNECT" : ""));
        CHECK(c.closing);
        CHECK_FALSE(p.core.connected("a"));
        p.pass(2s);  // it has not closed itself
        CHECK(c.aborted);
    }
}

TEST_CASE("what the client did not ask for is not in the answers [MQTT-3.1.2-28] [MQTT-3.1.2-29]") {
    fixture p;
    p.core.hooks.authorize_publish = [](auto&, auto&) {
        return testing::publish_verdict{reason_code::not_authorized, false};
    };
    p.core.hooks.authorize_subscribe = [](auto&, auto&, auto&) { return reason_code::not_authorized; };
    peer c(p, v5);
    c.open();
    mqtt::properties asks;
    asks.request_response_information = std::uint8_t{0};
    asks.request_problem_information = std::uint8_t{0};
    c.say_packet(mqtt::connect{.client_id = "a", .props = &asks});
    CHECK(c.bytes() == hex("20 03 00 00 00"));
    mqtt::subscription_request const request{.filter = "t"};
    c.say_packet(mqtt::subscribe{.packet_id = 1, .requests = request});
    CHECK(c.bytes() == hex("90 04 0001 00 87"));
    c.say_packet(mqtt::publish{.topic = "t", .qos = q1, .packet_id = 2});
    CHECK(c.bytes() == hex("40 03 0002 87"));
    c.say_packet(mqtt::publish{.topic = "t", .qos = q2, .packet_id = 3});
    CHECK(c.bytes() == hex("50 03 0003 87"));
    std::string_view const filter = "t";
    c.say_packet(mqtt::unsubscribe{.packet_id = 4, .filters = filter});
    CHECK(c.bytes() == hex("B0 04 0004 00 11"));
}

TEST_CASE("reason strings that make a packet too large for the client are left out") {
    // Shows [MQTT-3.2.2-19] [MQTT-3.14.2-3].
    for (bool const limited : {false, true}) {
        fixture p;
        bool accepting = false;
        p.core.hooks.on_connect = [&](testing::connect_attempt& attempt) {
            attempt.reason_string = "a reason of more than twenty bytes";
            return accepting ? reason_code::success : reason_code::not_authorized;
        };
        mqtt::properties small;
        if (limited) small.maximum_packet_size = 20;
        peer c(p, v5);
        c.open();
        c.say_packet(mqtt::connect{.client_id = "a", .props = &small});
        auto const refusal = c.bytes();
        CHECK(test::in_words(refusal, v5) == "CONNACK");
        CHECK((refusal.size() <= 20) == limited);
        accepting = true;
        c.open();
        c.say_packet(mqtt::connect{.client_id = "a", .props = &small});
        CHECK(c.heard() == "CONNACK");
        c.say(hex("36 05 0001 't' 0001"));  // QoS 3
        auto const farewell = c.bytes();
        CHECK(test::in_words(farewell, v5) == "DISCONNECT");
        CHECK((farewell.size() <= 20) == limited);
    }
}

// Sessions, wills and retained messages.

TEST_CASE("a session lasts as long as its connection at least [MQTT-4.1.0-2 of 3.1.1]") {
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.connect("a");
        c.subscribe("t");
        p.pass(240h);
        CHECK(p.publish("t", q1) == 1);
        CHECK(c.heard() == "PUBLISH 1 qos1 t=p");
    }
}

TEST_CASE("the will is published with the retain flag of CONNECT, and none without a will") {
    // Shows [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.2-12 of 3.1.1].
    for (auto const version : both_versions) {
        fixture p;
        peer watcher(p, version), c(p, version);
        watcher.connect("watcher");
        watcher.subscribe("#");
        c.connect("a");
        c.leave();
        CHECK(watcher.heard() == "");
        for (bool const retain : {false, true}) {
            c.open();
            mqtt::connect packet{.client_id = "a"};
            packet.will = mqtt::will{.topic = "gone", .payload = "bye", .retain = retain};
            c.say_packet(packet);
            CHECK(c.heard() == "CONNACK");
            c.leave();
            CHECK(watcher.heard() == "PUBLISH qos0 gone=bye");
            CHECK(p.core.retained_count() == (retain ? 1 : 0));
        }
    }
}

TEST_CASE("the user properties of a will keep their order [MQTT-3.1.3-10]") {
    fixture p;
    peer watcher(p, v5), c(p, v5);
    watcher.connect("watcher");
    watcher.subscribe("gone");
    c.open();
    mqtt::user_property const user[] = {{"k", "2"}, {"a", "1"}, {"k", "1"}};
    mqtt::properties props;
    props.user_properties = user;
    mqtt::connect packet{.client_id = "a"};
    packet.will = mqtt::will{.topic = "gone", .payload = "bye", .props = &props};
    c.say_packet(packet);
    c.leave();
    CHECK(watcher.bytes() == test::encoded(mqtt::publish{.topic = "gone", .payload = "bye", .props = &props}, v5));
}

TEST_CASE("a retained message outlives the session of its publisher [MQTT-3.1.2-7 of 3.1.1]") {
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version), later(p, version);
        c.connect("a");
        c.say_packet(mqtt::publish{.topic = "t", .payload = "x", .retain = true});
        c.leave();
        CHECK(p.core.session_count() == 0);
        later.connect("b");
        CHECK(later.subscribe("t") == "SUBACK 1, PUBLISH qos0 retain t=x");
    }
}

TEST_CASE("a message with the retain flag takes the place of the retained one, one without leaves it alone") {
    // Shows [MQTT-3.3.1-8] [MQTT-3.3.1-7 of 3.1.1] [MQTT-3.3.1-9 of 3.1.1].
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version), old(p, version), later(p, version);
        old.connect("old");
        old.subscribe("t");
        c.connect("a");
        c.say_packet(mqtt::publish{.topic = "u", .payload = "never kept"});
        CHECK(p.core.retained_count() == 0);
        c.say_packet(mqtt::publish{.topic = "t", .payload = "1", .qos = q1, .retain = true, .packet_id = 1});
        c.say_packet(mqtt::publish{.topic = "t", .payload = "2", .retain = true});
        c.say_packet(mqtt::publish{.topic = "t", .payload = "3"});
        c.say_packet(mqtt::publish{.topic = "t", .payload = ""});
        CHECK(p.core.retained_count() == 1);
        CHECK(old.heard() == "PUBLISH 1 qos1 t=1, PUBLISH qos0 t=2, PUBLISH qos0 t=3, PUBLISH qos0 t=");
        later.connect("b");
        CHECK(later.subscribe("t") == "SUBACK 1, PUBLISH qos0 retain t=2");
    }
}

// Delivery.

TEST_CASE("the DUP flag of a publisher does not reach subscribers [MQTT-3.3.1-3]") {
    for (auto const version : both_versions) {
        fixture p;
        peer sender(p, version), receiver(p, version);
        sender.connect("sender");
        receiver.connect("receiver");
        receiver.subscribe("t");
        for (auto const quality : {q1, q2})
            sender.say_packet(mqtt::publish{.topic = "t", .payload = "x", .qos = quality, .dup = true, .packet_id = 7});
        CHECK(receiver.heard() == "PUBLISH 1 qos1 t=x, PUBLISH 2 qos2 t=x");
    }
}

TEST_CASE("of overlapping subscriptions the highest QoS counts, in MQTT 3.1.1 too [MQTT-3.3.5-1 of 3.1.1]") {
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.connect("a");
        c.subscribe("a/#", q0);
        c.subscribe("a/+", q1);
        c.subscribe("+/b", q0);
        p.publish("a/b", q2);
        CHECK(c.heard() == "PUBLISH 1 qos1 a/b=p");
    }
}

TEST_CASE("a message that has been sent with QoS 2 does not expire any more [MQTT-4.3.3-7]") {
    fixture p;
    mqtt::properties expiring;
    expiring.message_expiry_interval = 1;
    peer c(p, v5);
    c.connect("a", false);
    c.subscribe("t");
    p.publish("t", q2, &expiring);
    CHECK(c.heard() == "PUBLISH 1 qos2 t=p");
    c.leave();
    p.pass(10s);
    CHECK(test::in_words(c.connect("a", false), v5) == "CONNACK, PUBLISH 1 qos2 dup t=p");
}

TEST_CASE("a QoS 2 message that has expired meanwhile goes on to its PUBCOMP [MQTT-4.3.3-13]") {
    fixture p;
    mqtt::properties expiring;
    expiring.message_expiry_interval = 1;
    peer c(p, v5), away(p, v5);
    away.connect("away", false);
    away.subscribe("t");
    away.leave();
    c.connect("a");
    c.say_packet(mqtt::publish{.topic = "t", .payload = "x", .qos = q2, .packet_id = 9, .props = &expiring});
    CHECK(c.heard() == "PUBREC 9");
    p.pass(10s);
    CHECK(test::in_words(away.connect("away", false), v5) == "CONNACK");  // it has expired
    c.ack(mqtt::packet_type::pubrel, 9);
    CHECK(c.heard() == "PUBCOMP 9");
}

TEST_CASE("members of a shared subscription get messages with the QoS of their own [MQTT-4.8.2-3]") {
    fixture p;
    peer a(p, v5), b(p, v5);
    a.connect("a");
    b.connect("b");
    a.subscribe("$share/g/t", q0);
    b.subscribe("$share/g/t", q1);
    p.publish("t", q2);
    p.publish("t", q2);
    CHECK(a.heard() == "PUBLISH qos0 t=p");
    CHECK(b.heard() == "PUBLISH 1 qos1 t=p");
}

TEST_CASE("a QoS 2 message of a shared subscription stays with the member that it was sent to") {
    // Shows [MQTT-4.8.2-4] [MQTT-4.8.2-5] [MQTT-4.8.2-6].
    enum class fate { returns, ends, refuses };
    for (auto const fate : {fate::returns, fate::ends, fate::refuses}) {
        fixture p;
        peer a(p, v5), b(p, v5);
        for (auto* const member : {&a, &b}) {
            member->connect(member == &a ? "a" : "b", false);
            member->subscribe("$share/g/t");
        }
        p.publish("t", q2);
        auto const got = a.heard();
        auto& chosen = got.empty() ? b : a;
        auto& other = got.empty() ? a : b;
        std::string_view const name = got.empty() ? "b" : "a";
        CHECK((got.empty() ? chosen.heard() : got) == "PUBLISH 1 qos2 t=p");
        CHECK(other.heard() == "");
        if (fate == fate::refuses) {
            chosen.ack(mqtt::packet_type::pubrec, 1, reason_code::quota_exceeded);
            CHECK(chosen.heard() == "");
        }
        chosen.leave();
        if (fate == fate::ends) p.pass(2h);
        auto const again = test::in_words(chosen.connect(name, false), v5);
        CHECK(again == (fate == fate::returns ? "CONNACK, PUBLISH 1 qos2 dup t=p" : "CONNACK"));
        CHECK(other.heard() == "");
    }
}

TEST_CASE("what a member of a shared subscription has not acknowledged when its session ends goes to another member") {
    // 4.8.2: QoS 1, and whatever has not been sent yet.
    testing::broker_options options{.accepts = {}};
    options.in_flight = 2;
    fixture p(options);
    peer a(p, v5), b(p, v5);
    auto const give = [&](std::string_view payload) {
        p.core.publish({.topic = "t", .payload = payload, .qos = q1}, p.now);
    };
    a.connect("a", false);
    a.subscribe("$share/g/t", q1);
    for (auto const* payload : {"1", "2", "3", "4", "5"}) give(payload);
    CHECK(a.heard() == "PUBLISH 1 qos1 t=1, PUBLISH 2 qos1 t=2");
    a.ack(mqtt::packet_type::puback, 1);
    a.ack(mqtt::packet_type::puback, 2, reason_code::quota_exceeded);  // refused: nobody else gets it [MQTT-4.8.2-6]
    CHECK(a.heard() == "PUBLISH 3 qos1 t=3, PUBLISH 4 qos1 t=4");

    b.connect("b", false);
    b.subscribe("$share/g/t", q1);
    a.leave();
    CHECK(b.heard() == "");  // a's session goes on, and a may come back
    p.pass(2h);
    CHECK(b.heard() == "PUBLISH 1 qos1 t=3, PUBLISH 2 qos1 t=4");  // sent to a, and not acknowledged
    b.ack(mqtt::packet_type::puback, 1);
    CHECK(b.heard() == "PUBLISH 3 qos1 t=5");  // never sent
    b.ack(mqtt::packet_type::puback, 2);
    b.ack(mqtt::packet_type::puback, 3);
    CHECK(b.heard() == "");

    b.leave();
    p.pass(2h);  // the last member: what nobody can get is dropped
    CHECK(p.core.session_count() == 0);
}

// Subscribing.

TEST_CASE("SUBSCRIBE is answered by a SUBACK with its packet identifier and a reason for each filter, in order") {
    // Shows [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-2.2.1-6].
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.connect("a");
        mqtt::subscription_request const requests[] = {{.filter = "a", .maximum_qos = q2},
                                                       {.filter = "b", .maximum_qos = q0}};
        c.say_packet(mqtt::subscribe{.packet_id = 0x1234, .requests = requests});
        CHECK(c.bytes() == hex(version == v5 ? "90 05 1234 00 02 00" : "90 04 1234 02 00"));
    }
}

TEST_CASE("a filter with wildcards is refused where they are not supported [MQTT-3.8.3-2 of 3.1.1]") {
    testing::broker_options options;
    options.accepts.wildcard_subscription_available = false;
    for (auto const version : both_versions) {
        fixture p(options);
        peer c(p, version);
        c.connect("a");
        mqtt::subscription_request const request{.filter = "a/#"};
        c.say_packet(mqtt::subscribe{.packet_id = 1, .requests = request});
        CHECK(c.bytes() == hex(version == v5 ? "90 04 0001 00 A2" : "90 03 0001 80"));
        CHECK(p.publish("a/b", q0) == 0);
    }
}

TEST_CASE("a subscription takes the place of that with the same filter, and limits the QoS to what it was granted") {
    // Shows [MQTT-3.8.4-3] [MQTT-3.8.4-8].
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.connect("a");
        c.subscribe("t", q2);
        c.subscribe("t", q1);
        p.publish("t", q2);
        p.publish("t", q0);
        CHECK(c.heard() == "PUBLISH 1 qos1 t=p, PUBLISH qos0 t=p");
    }
}

TEST_CASE("UNSUBSCRIBE compares filters byte by byte, and is answered by one UNSUBACK for all of them, in order") {
    // Shows [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1].
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.connect("a");
        c.subscribe("a/b");
        c.subscribe("c/+");
        std::string_view const others[] = {"A/b", "a/b/", "#"};
        c.say_packet(mqtt::unsubscribe{.packet_id = 0x1234, .filters = others});
        CHECK(c.bytes() == hex(version == v5 ? "B0 06 1234 00 11 11 11" : "B0 02 1234"));
        CHECK(p.publish("a/b", q0) == 1);
        CHECK(p.publish("c/d", q0) == 1);
        c.heard();
        std::string_view const filters[] = {"a/b", "c/d", "c/+"};
        c.say_packet(mqtt::unsubscribe{.packet_id = 0x1235, .filters = filters});
        CHECK(c.bytes() == hex(version == v5 ? "B0 06 1235 00 00 11 00" : "B0 02 1235"));
        CHECK(p.publish("a/b", q0) == 0);
        CHECK(p.publish("c/d", q0) == 0);
        CHECK(c.heard() == "");
    }
}

TEST_CASE("deliveries begun before UNSUBSCRIBE are completed, over connections too [MQTT-3.10.4-3]") {
    for (auto const version : both_versions) {
        fixture p;
        peer c(p, version);
        c.connect("a", false);
        c.subscribe("t");
        p.publish("t", q1);
        p.publish("t", q2);
        CHECK(c.heard() == "PUBLISH 1 qos1 t=p, PUBLISH 2 qos2 t=p");
        std::string_view const filter = "t";
        c.say_packet(mqtt::unsubscribe{.packet_id = 1, .filters = filter});
        CHECK(c.heard() == "UNSUBACK 1");
        c.ack(mqtt::packet_type::pubrec, 2);
        CHECK(c.heard() == "PUBREL 2");
        c.leave();
        CHECK(test::in_words(c.connect("a", false), version) == "CONNACK, PUBLISH 1 qos1 dup t=p, PUBREL 2");
    }
}
