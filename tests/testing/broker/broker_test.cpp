#include <runnel/coro/wait_list.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/memory.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/write.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <support/mqtt_client.hpp>
#include <system_error>
#include <vector>

namespace {

using namespace runnel;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::mqtt_client;

// A broker and its clients on in-memory connections.
struct fixture {
    explicit fixture(testing::broker_options options = {}) : broker(io.get_executor(), std::move(options)) {
        broker.hooks().log = [this](std::string_view text) { log.emplace_back(text); };
    }

    void attach(mqtt_client& client) {
        auto [near, far] = memory_stream<>::pair(io.get_executor());
        broker.attach(std::move(far));
        client.open(std::move(near));
    }
    reason_code connect(mqtt_client& client, std::string_view id, bool clean_start = true) {
        attach(client);
        return client.connect(id, clean_start);
    }
    reason_code connect(mqtt_client& client, mqtt::connect const& packet) {
        attach(client);
        return client.connect(packet);
    }
    // Lets everything happen that is going to happen now.
    void settle() {
        io.restart();
        while (io.poll() != 0) {
        }
    }
    template <class Condition>
    bool wait(Condition condition) {
        return mqtt_client::run_until(io, condition);
    }

    asio::io_context io;
    std::vector<std::string> log;
    testing::broker broker;
};

constexpr protocol_version versions[] = {protocol_version::v3_1_1, protocol_version::v5};
constexpr qos qualities[] = {qos::at_most_once, qos::at_least_once, qos::exactly_once};

}  // namespace

TEST_CASE("a message of each QoS reaches a subscriber, in both versions") {
    // Shows [MQTT-3.3.2-3].
    for (auto const version : versions) {
        fixture p;
        mqtt_client sender(p.io, version);
        mqtt_client receiver(p.io, version);
        REQUIRE(p.connect(sender, "sender") == reason_code::success);
        REQUIRE(p.connect(receiver, "receiver") == reason_code::success);
        CHECK(receiver.subscribe("a/+") == reason_code::granted_qos_2);
        std::size_t count = 0;
        for (auto const quality : qualities) {
            CHECK(sender.publish("a/b", "text", quality) == reason_code::success);
            auto const m = receiver.last(++count);
            CHECK(m.topic == "a/b");
            CHECK(m.payload == "text");
            CHECK(m.qos == quality);
            CHECK_FALSE(m.retain);
        }
        CHECK(p.broker.counters().messages_received == 3);
        CHECK(p.broker.counters().messages_sent == 3);
    }
}

TEST_CASE("the QoS of a subscription limits that of its messages") {
    // Shows [MQTT-3.8.4-8].
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    CHECK(client.subscribe("zero", qos::at_most_once) == reason_code::granted_qos_0);
    CHECK(client.subscribe("one", qos::at_least_once) == reason_code::granted_qos_1);
    client.publish("zero", "x", qos::exactly_once);
    CHECK(client.last(1).qos == qos::at_most_once);
    client.publish("one", "x", qos::exactly_once);
    CHECK(client.last(2).qos == qos::at_least_once);
}

TEST_CASE("a client without an identifier gets one assigned") {
    // Shows [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16].
    fixture p;
    mqtt_client v5(p.io);
    CHECK(p.connect(v5, "") == reason_code::success);
    CHECK_FALSE(v5.assigned_client_id.empty());
    CHECK(p.broker.connected(v5.assigned_client_id));
    mqtt_client v3(p.io, protocol_version::v3_1_1);
    CHECK(p.connect(v3, "") == reason_code::success);
    CHECK(p.broker.session_count() == 2);
}

TEST_CASE("MQTT 3.1.1: an empty client identifier without a clean session is refused") {
    fixture p;
    mqtt_client client(p.io, protocol_version::v3_1_1);
    p.attach(client);
    // The client's own check would not let it out.
    mqtt::connect const packet{.keep_alive = 60, .clean_start = false};
    std::string bytes(encoded_size(packet, protocol_version::v3_1_1), '\0');
    encode(bytes.data(), packet, protocol_version::v3_1_1);
    client.state.connect(*std::make_unique<send_buffer>(), mqtt::connect{}, {});
    client.send(bytes);
    CHECK(client.wait([&] { return client.connack.has_value(); }));
    CHECK(client.connack == reason_code::client_identifier_not_valid);
    CHECK(client.wait_for_end());
}

TEST_CASE("a newer connection with the same client identifier takes over") {
    // Shows [MQTT-3.1.3-2] [MQTT-3.1.4-3].
    for (auto const version : versions) {
        fixture p;
        mqtt_client older(p.io, version);
        mqtt_client newer(p.io, version);
        REQUIRE(p.connect(older, "twin") == reason_code::success);
        REQUIRE(p.connect(newer, "twin") == reason_code::success);
        CHECK(older.wait_for_end());
        if (version == protocol_version::v5) CHECK(older.disconnected == reason_code::session_taken_over);
        CHECK(p.broker.connected("twin"));
        newer.ping();
        CHECK(newer.pongs == 1);
    }
}

TEST_CASE("a session outlives its connection and gets the messages of QoS 1 and 2 that it missed, in order") {
    // Shows [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.2-23] [MQTT-3.2.2-3] [MQTT-4.5.0-1] [MQTT-4.6.0-5] [MQTT-4.6.0-6].
    for (auto const version : versions) {
        fixture p;
        mqtt_client sender(p.io, version);
        mqtt_client receiver(p.io, version);
        mqtt::properties lasting;
        lasting.session_expiry_interval = 3600;
        mqtt::connect packet{.client_id = "receiver", .clean_start = false};
        if (version == protocol_version::v5) packet.props = &lasting;
        REQUIRE(p.connect(sender, "sender") == reason_code::success);
        REQUIRE(p.connect(receiver, packet) == reason_code::success);
        CHECK_FALSE(receiver.session_present);
        receiver.subscribe("t");
        receiver.cut();
        REQUIRE(p.wait([&] { return !p.broker.connected("receiver"); }));

        sender.publish("t", "0", qos::at_most_once);
        sender.publish("t", "1", qos::at_least_once);
        sender.publish("t", "2", qos::exactly_once);
        sender.publish("t", "3", qos::at_least_once);
        REQUIRE(p.connect(receiver, packet) == reason_code::success);
        CHECK(receiver.session_present);
        REQUIRE(receiver.wait_for(3));
        p.settle();
        REQUIRE(receiver.messages.size() == 3);
        for (std::size_t i = 0; i < 3; ++i) CHECK(receiver.messages[i].payload == std::to_string(i + 1));
        CHECK(p.broker.counters().resumed == 1);
    }
}

TEST_CASE("a session ends with its connection where the client asks for that") {
    for (auto const version : versions) {
        fixture p;
        mqtt_client client(p.io, version);
        REQUIRE(p.connect(client, "a") == reason_code::success);  // clean session; no session expiry interval
        CHECK(p.broker.session_count() == 1);
        client.cut();
        CHECK(p.wait([&] { return p.broker.session_count() == 0; }));
        REQUIRE(p.connect(client, "a", version == protocol_version::v3_1_1) == reason_code::success);
        CHECK_FALSE(client.session_present);
    }
}

TEST_CASE("a clean start drops the session that there was, with its subscriptions") {
    // Shows [MQTT-3.1.2-6 of 3.1.1] [MQTT-3.1.4-3 of 3.1.1] [MQTT-3.2.2-1 of 3.1.1].
    fixture p;
    mqtt_client client(p.io, protocol_version::v3_1_1);
    REQUIRE(p.connect(client, "a", false) == reason_code::success);
    client.subscribe("t");
    client.cut();
    p.settle();
    REQUIRE(p.connect(client, "a", true) == reason_code::success);
    CHECK_FALSE(client.session_present);
    CHECK(p.broker.publish("t", "x") == 0);
}

TEST_CASE("a client that comes back with another version of the protocol begins anew") {
    fixture p;
    mqtt_client v3(p.io, protocol_version::v3_1_1);
    REQUIRE(p.connect(v3, "a", false) == reason_code::success);
    v3.subscribe("t");
    v3.cut();
    p.settle();
    mqtt_client v5(p.io);
    REQUIRE(p.connect(v5, "a", false) == reason_code::success);
    CHECK_FALSE(v5.session_present);
}

TEST_CASE("what was not acknowledged is sent again on the next connection, marked as a duplicate") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        fixture p;
        mqtt_client client(p.io, protocol_version::v3_1_1);
        REQUIRE(p.connect(client, "a", false) == reason_code::success);
        client.subscribe("t");
        client.acknowledging = false;
        p.broker.publish("t", "x", quality);
        REQUIRE(client.wait_for(1));
        CHECK_FALSE(client.messages[0].dup);
        client.cut();
        client.messages.clear();
        client.state.~session_state();  // a client that has lost its memory
        new (&client.state) mqtt::session_state(mqtt::role::client, protocol_version::v3_1_1);
        p.settle();
        client.acknowledging = true;
        REQUIRE(p.connect(client, "a", false) == reason_code::success);
        REQUIRE(client.wait_for(1));
        CHECK(client.messages[0].dup);
        CHECK(client.messages[0].payload == "x");
        CHECK(p.broker.counters().messages_sent == 1);
    }
}

TEST_CASE("a QoS 2 message that a client sends again after a lost connection is taken once, and acknowledged") {
    fixture p({.recorded_messages = 10});
    mqtt_client client(p.io, protocol_version::v3_1_1);
    REQUIRE(p.connect(client, "a", false) == reason_code::success);
    client.stream().incoming().cut_after = client.stream().incoming().bytes;  // PUBREC does not get through
    auto const index = client.begin_publish({.topic = "t", .payload = "x", .qos = qos::exactly_once});
    REQUIRE(client.wait_for_end());
    client.cut();
    p.settle();
    CHECK(p.broker.received().size() == 1);
    REQUIRE(p.connect(client, "a", false) == reason_code::success);
    CHECK(client.wait([&] { return client.published[index].has_value(); }));
    CHECK(p.broker.received().size() == 1);
}

TEST_CASE("overlapping subscriptions deliver a message once, with the highest QoS and all their identifiers") {
    // Shows [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4].
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    mqtt::properties first, second;
    std::uint32_t const one = 1, two = 2;
    first.subscription_identifiers = {one};
    second.subscription_identifiers = {two};
    client.subscribe({.filter = "a/#", .maximum_qos = qos::at_most_once}, &first);
    client.subscribe({.filter = "a/+", .maximum_qos = qos::at_least_once}, &second);
    CHECK(p.broker.publish("a/b", "x", qos::exactly_once) == 1);
    auto m = client.last();
    CHECK(m.qos == qos::at_least_once);
    std::sort(m.identifiers.begin(), m.identifiers.end());
    CHECK(m.identifiers == std::vector<std::uint32_t>{1, 2});
    p.settle();
    CHECK(client.messages.size() == 1);
}

TEST_CASE("subscribing anew to the same filter replaces the subscription") {
    // Shows [MQTT-3.8.4-3].
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.subscribe("t", qos::exactly_once);
    CHECK(client.subscribe("t", qos::at_most_once) == reason_code::granted_qos_0);
    p.broker.publish("t", "x", qos::exactly_once);
    CHECK(client.last().qos == qos::at_most_once);
    p.settle();
    CHECK(client.messages.size() == 1);
}

TEST_CASE("unsubscribing ends delivery, and says whether there was a subscription") {
    // Shows [MQTT-3.10.4-2].
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.subscribe("t");
    CHECK(client.unsubscribe("t") == reason_code::success);
    CHECK(client.unsubscribe("t") == reason_code::no_subscription_existed);
    CHECK(p.broker.publish("t", "x") == 0);
}

TEST_CASE("a shared subscription gives each message to one of its members in turn, the connected ones first") {
    fixture p;
    mqtt_client a(p.io), b(p.io), alone(p.io);
    REQUIRE(p.connect(a, "a") == reason_code::success);
    REQUIRE(p.connect(b, "b") == reason_code::success);
    REQUIRE(p.connect(alone, "alone") == reason_code::success);
    CHECK(a.subscribe("$share/group/t/#") == reason_code::granted_qos_2);
    b.subscribe("$share/group/t/#");
    alone.subscribe("$share/other/t/#");
    for (int i = 0; i < 10; ++i) CHECK(p.broker.publish("t/x", "m", qos::at_least_once) == 2);
    REQUIRE(alone.wait_for(10));
    p.settle();
    CHECK(a.messages.size() == 5);
    CHECK(b.messages.size() == 5);

    a.cut();
    p.settle();
    for (int i = 0; i < 4; ++i) p.broker.publish("t/x", "m");
    CHECK(b.wait_for(9));
    b.unsubscribe("$share/group/t/#");
    CHECK(p.broker.publish("t/x", "m") == 1);
}

TEST_CASE("MQTT 3.1.1 has shared subscriptions as MQTT 5 has, and both may be members of one") {
    fixture p;
    mqtt_client old(p.io, protocol_version::v3_1_1), modern(p.io);
    REQUIRE(p.connect(old, "a") == reason_code::success);
    REQUIRE(p.connect(modern, "b") == reason_code::success);
    old.subscribe("$share/g/t");
    modern.subscribe("$share/g/t");
    for (int i = 0; i < 4; ++i) CHECK(p.broker.publish("t", "x") == 1);
    CHECK(old.wait_for(2));
    CHECK(modern.wait_for(2));
    old.unsubscribe("$share/g/t");
    CHECK(p.broker.publish("t", "x") == 1);
    CHECK(modern.wait_for(3));
}

TEST_CASE("with no local a client does not get what it publishes itself") {
    // Shows [MQTT-3.8.3-3].
    fixture p;
    mqtt_client a(p.io), b(p.io);
    REQUIRE(p.connect(a, "a") == reason_code::success);
    REQUIRE(p.connect(b, "b") == reason_code::success);
    a.subscribe(mqtt::subscription_request{.filter = "t", .no_local = true});
    CHECK(a.publish("t", "mine", qos::at_least_once) == reason_code::no_matching_subscribers);
    CHECK(b.publish("t", "other", qos::at_least_once) == reason_code::success);
    CHECK(a.last().payload == "other");
}

TEST_CASE("the retain flag is cleared for established subscriptions unless they want it as published") {
    // Shows [MQTT-3.3.1-12] [MQTT-3.3.1-13].
    fixture p;
    mqtt_client plain(p.io), kept(p.io);
    REQUIRE(p.connect(plain, "plain") == reason_code::success);
    REQUIRE(p.connect(kept, "kept") == reason_code::success);
    plain.subscribe("t");
    kept.subscribe(mqtt::subscription_request{.filter = "t", .retain_as_published = true});
    p.broker.publish("t", "x", qos::at_most_once, true);
    REQUIRE(plain.wait_for(1));
    REQUIRE(kept.wait_for(1));
    CHECK_FALSE(plain.messages[0].retain);
    CHECK(kept.messages[0].retain);
}

TEST_CASE("a new subscriber gets the retained messages that match, with the retain flag, in both versions") {
    // Shows [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-6 of 3.1.1] [MQTT-3.3.1-8 of 3.1.1].
    for (auto const version : versions) {
        fixture p;
        p.broker.publish("a/1", "old", qos::at_least_once, true);
        p.broker.publish("a/1", "new", qos::at_least_once, true);
        p.broker.publish("a/2", "two", qos::at_most_once, true);
        p.broker.publish("b", "other", qos::at_most_once, true);
        p.broker.publish("a/3", "gone", qos::at_most_once, true);
        p.broker.publish("a/3", "", qos::at_most_once, true);
        CHECK(p.broker.retained_count() == 3);
        mqtt_client client(p.io, version);
        REQUIRE(p.connect(client, "a") == reason_code::success);
        client.subscribe("a/+");
        REQUIRE(client.wait_for(2));
        p.settle();
        REQUIRE(client.messages.size() == 2);
        // Messages of different QoS may overtake each other.
        std::sort(client.messages.begin(), client.messages.end(),
                  [](auto const& x, auto const& y) { return x.topic < y.topic; });
        CHECK(client.messages[0].payload == "new");
        CHECK(client.messages[0].qos == qos::at_least_once);
        CHECK(client.messages[0].retain);
        CHECK(client.messages[1].payload == "two");
    }
}

TEST_CASE("retain handling decides whether retained messages are sent") {
    // Shows [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4].
    fixture p;
    p.broker.publish("t", "x", qos::at_most_once, true);
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    using enum mqtt::retain_handling;
    client.subscribe(mqtt::subscription_request{.filter = "t", .handling = do_not_send});
    client.ping();
    CHECK(client.messages.size() == 0);
    client.subscribe(mqtt::subscription_request{.filter = "t", .handling = send_if_new});
    client.ping();
    CHECK(client.messages.size() == 0);
    client.subscribe(mqtt::subscription_request{.filter = "t", .handling = send});
    CHECK(client.wait_for(1));
    client.unsubscribe("t");
    client.subscribe(mqtt::subscription_request{.filter = "t", .handling = send_if_new});
    CHECK(client.wait_for(2));
}

TEST_CASE("properties of a message reach the subscriber; those of the connection do not") {
    // Shows [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20].
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.subscribe("t");
    mqtt::user_property const user[] = {{"k", "1"}, {"k", "2"}};
    mqtt::properties props;
    props.content_type = "text/plain";
    props.response_topic = "answers";
    props.correlation_data = std::string_view("\0\1", 2);
    props.payload_format_indicator = 1;
    props.message_expiry_interval = 100;
    props.user_properties = user;
    client.publish({.topic = "t", .payload = "x", .qos = qos::at_least_once, .props = &props});
    auto const m = client.last();
    auto const got = m.properties();
    CHECK(got.content_type == "text/plain");
    CHECK(got.response_topic == "answers");
    CHECK(got.correlation_data == std::string_view("\0\1", 2));
    CHECK(got.payload_format_indicator == 1);
    CHECK(got.message_expiry_interval == 100);
    CHECK(got.user_properties == props.user_properties);
    CHECK(got.subscription_identifiers.empty());
}

TEST_CASE("messages pass between clients of different versions") {
    fixture p;
    mqtt_client v3(p.io, protocol_version::v3_1_1), v5(p.io);
    REQUIRE(p.connect(v3, "v3") == reason_code::success);
    REQUIRE(p.connect(v5, "v5") == reason_code::success);
    v3.subscribe("t");
    v5.subscribe("t");
    mqtt::properties props;
    props.content_type = "text/plain";
    v5.publish({.topic = "t", .payload = "from v5", .qos = qos::exactly_once, .props = &props});
    CHECK(v3.last().payload == "from v5");
    CHECK(v5.last().payload == "from v5");
    v3.publish("t", "from v3", qos::exactly_once);
    CHECK(v5.last(2).payload == "from v3");
}

TEST_CASE("the will is published when a connection fails, and not after DISCONNECT") {
    // Shows [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-15] [MQTT-3.14.4-3].
    for (auto const version : versions) {
        fixture p;
        mqtt_client watcher(p.io, version), client(p.io, version);
        REQUIRE(p.connect(watcher, "watcher") == reason_code::success);
        watcher.subscribe("gone/#");
        mqtt::connect packet{.client_id = "a"};
        packet.will = mqtt::will{.topic = "gone/a", .payload = "bye", .qos = qos::at_least_once};
        REQUIRE(p.connect(client, packet) == reason_code::success);
        client.disconnect();
        p.settle();
        CHECK(watcher.messages.empty());

        packet.will->retain = true;
        REQUIRE(p.connect(client, packet) == reason_code::success);
        client.cut();
        CHECK(watcher.last().payload == "bye");
        CHECK(watcher.last().qos == qos::at_least_once);
        CHECK(p.broker.retained_count() == 1);
    }
}

TEST_CASE("MQTT 5: a client may have its will published although it disconnects in good order") {
    fixture p;
    mqtt_client watcher(p.io), client(p.io);
    REQUIRE(p.connect(watcher, "watcher") == reason_code::success);
    watcher.subscribe("gone");
    mqtt::connect packet{.client_id = "a"};
    packet.will = mqtt::will{.topic = "gone", .payload = "bye"};
    REQUIRE(p.connect(client, packet) == reason_code::success);
    client.disconnect(reason_code::disconnect_with_will_message);
    CHECK(watcher.last().payload == "bye");
}

TEST_CASE("no more QoS 1 and 2 messages are in flight than the client's receive maximum") {
    // Shows [MQTT-3.3.4-9].
    fixture p;
    mqtt_client client(p.io);
    mqtt::properties props;
    props.receive_maximum = 2;
    client.own.receive_maximum = 2;
    client.acknowledging = false;
    REQUIRE(p.connect(client, {.client_id = "a", .props = &props}) == reason_code::success);
    client.subscribe("t");
    for (int i = 0; i < 5; ++i) p.broker.publish("t", std::to_string(i), qos::at_least_once);
    p.broker.publish("t", "free", qos::at_most_once);
    REQUIRE(client.wait_for(3));
    p.settle();
    REQUIRE(client.messages.size() == 3);
    for (std::size_t i = 0; i < client.messages.size(); ++i) {
        auto const m = client.messages[i];
        client.acknowledge(m);
        p.settle();
    }
    REQUIRE(client.wait_for(6));
    CHECK(client.messages[5].payload == "4");
}

TEST_CASE("a client that exceeds the broker's receive maximum is disconnected") {
    testing::broker_options options;
    options.accepts.receive_maximum = 2;
    fixture p(options);
    p.broker.hold_acknowledgements(true);
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    CHECK(client.server.receive_maximum == 2);
    // What an unruly client sends:
    client.send(std::string("\x32\x06\0\1t\0\1\0", 8) + std::string("\x32\x06\0\1t\0\2\0", 8) +
                std::string("\x32\x06\0\1t\0\3\0", 8));
    CHECK(client.wait_for_end());
    CHECK(client.disconnected == reason_code::receive_maximum_exceeded);
    CHECK(p.broker.counters().protocol_errors == 1);
}

TEST_CASE("messages that a client says are too large for it are left out") {
    // Shows [MQTT-3.1.2-25].
    fixture p;
    mqtt_client client(p.io);
    mqtt::properties props;
    props.maximum_packet_size = 50;
    client.own.maximum_packet_size = 50;
    REQUIRE(p.connect(client, {.client_id = "a", .props = &props}) == reason_code::success);
    client.subscribe("t");
    p.broker.publish("t", std::string(60, 'x'), qos::at_least_once);
    p.broker.publish("t", "small", qos::at_least_once);
    CHECK(client.last().payload == "small");
    CHECK(p.broker.counters().messages_dropped == 1);
}

TEST_CASE("a packet larger than the broker accepts ends the connection") {
    for (auto const version : versions) {
        testing::broker_options options;
        options.accepts.maximum_packet_size = 100;
        options.maximum_packet_size_v3_1_1 = 100;
        fixture p(options);
        mqtt_client client(p.io, version);
        REQUIRE(p.connect(client, "a") == reason_code::success);
        client.send("\x30\x70");
        CHECK(client.wait_for_end());
        CHECK(client.ended == asio::error::eof);
        if (version == protocol_version::v5) CHECK(client.disconnected == reason_code::packet_too_large);
        CHECK(client.disconnected.has_value() == (version == protocol_version::v5));
    }
}

TEST_CASE("the broker announces what it does not support, and refuses it") {
    // Shows [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13].
    testing::broker_options options;
    options.accepts.maximum_qos = qos::at_least_once;
    options.accepts.retain_available = false;
    options.accepts.wildcard_subscription_available = false;
    options.accepts.shared_subscription_available = false;
    options.accepts.subscription_identifier_available = false;
    fixture p(options);
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    CHECK(client.server.maximum_qos == qos::at_least_once);
    CHECK_FALSE(client.server.retain_available);
    CHECK_FALSE(client.server.wildcard_subscription_available);
    CHECK_FALSE(client.server.shared_subscription_available);
    CHECK_FALSE(client.server.subscription_identifier_available);
    CHECK(client.subscribe("t", qos::exactly_once) == reason_code::granted_qos_1);

    mqtt::connect packet{.client_id = "b"};
    packet.will = mqtt::will{.topic = "w", .qos = qos::exactly_once};
    mqtt_client other(p.io);
    CHECK(p.connect(other, packet) == reason_code::qos_not_supported);
    packet.will = mqtt::will{.topic = "w", .retain = true};
    CHECK(p.connect(other, packet) == reason_code::retain_not_supported);

    client.send(std::string("\x34\x06\0\1t\0\1\0", 8));  // QoS 2
    CHECK(client.wait_for_end());
    CHECK(client.disconnected == reason_code::qos_not_supported);
}

TEST_CASE("a subscription that the broker does not support is refused with its own reason") {
    testing::broker_options options;
    options.accepts.wildcard_subscription_available = false;
    options.accepts.shared_subscription_available = false;
    fixture p(options);
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.send(std::string("\x82\x07\0\1\0\0\1#\0", 9));
    client.send(std::string("\x82\x10\0\2\0\0\x0a$share/g/t\0", 18));
    p.settle();
    CHECK(p.log.size() == 2);
    // The answers have no owner at the client, which ends the connection over them.
    CHECK(client.ended);
}

TEST_CASE("a violation of the protocol ends the connection with its reason") {
    // Shows [MQTT-4.13.1-1] [MQTT-4.13.2-1].
    struct violation {
        std::string bytes;
        reason_code reason;
    };
    violation const violations[] = {
        {std::string("\x10\x0d\0\4MQTT\5\2\0\0\0\0\0", 15), reason_code::protocol_error},  // a second CONNECT
        {std::string("\x30\x05\0\2+/\0", 7), reason_code::protocol_error},                 // a wildcard in a topic
        {std::string("\x30\x03\0\0\0", 5), reason_code::protocol_error},           // no topic, no alias (3.3.2.1)
        {std::string("\x36\x05\0\1t\0\0", 7), reason_code::malformed_packet},      // QoS 3
        {std::string("\x82\x08\0\1\0\0\2a#\0", 10), reason_code::protocol_error},  // a wrong filter
        {std::string("\x20\x03\0\0\0", 5), reason_code::protocol_error},           // CONNACK from a client
        {std::string("\xd0\0", 2), reason_code::protocol_error},                   // PINGRESP from a client
    };
    for (auto const& v : violations) {
        fixture p;
        mqtt_client client(p.io);
        REQUIRE(p.connect(client, "a") == reason_code::success);
        client.send(v.bytes);
        CHECK(client.wait_for_end());
        CHECK(client.disconnected == v.reason);
        CHECK(p.broker.counters().protocol_errors == 1);
        CHECK(p.log.size() == 1);
    }
}

TEST_CASE("what does not begin with CONNECT is not answered") {
    // Shows [MQTT-3.1.0-1] [MQTT-3.1.0-1 of 3.1.1].
    fixture p;
    mqtt_client client(p.io);
    p.attach(client);
    client.send(std::string("\xc0\0", 2));
    CHECK(client.wait_for_end());
    CHECK_FALSE(client.connack);
    CHECK(p.broker.counters().accepted == 0);
}

TEST_CASE("MQTT 3.1 and versions to come are told that they are not supported") {
    for (auto const* bytes : {"\x10\x0e\0\6MQIsdp\3\2\0\0\0\0", "\x10\x0d\0\4MQTT\7\2\0\0\0\0\0"}) {
        fixture p;
        mqtt_client client(p.io, protocol_version::v3_1_1);
        p.attach(client);
        client.state.connect(*std::make_unique<send_buffer>(), mqtt::connect{}, {});
        client.send(std::string(bytes, static_cast<std::size_t>(bytes[1]) + 2));
        CHECK(client.wait([&] { return client.connack.has_value(); }));
        CHECK(client.connack == reason_code::unsupported_protocol_version);
        CHECK(client.wait_for_end());
    }
}

TEST_CASE("the user decides who may connect") {
    // Shows [MQTT-3.1.4-2] [MQTT-3.2.2-7].
    for (auto const version : versions) {
        fixture p;
        p.broker.hooks().on_connect = [](testing::connect_attempt& attempt) {
            if (attempt.packet.password == "right") return reason_code::success;
            attempt.reason_string = "wrong password";
            return reason_code::bad_user_name_or_password;
        };
        mqtt_client client(p.io, version);
        mqtt::connect packet{.client_id = "a", .user_name = "u", .password = "wrong"};
        CHECK(p.connect(client, packet) == reason_code::bad_user_name_or_password);
        CHECK(client.wait_for_end());
        if (version == protocol_version::v5) CHECK(client.reason_string == "wrong password");
        CHECK(p.broker.counters().refused == 1);
        CHECK(p.log == std::vector<std::string>{"refused client a: wrong password"});
        packet.password = "right";
        CHECK(p.connect(client, packet) == reason_code::success);
    }
}

TEST_CASE("the user decides what is published, and sees what is") {
    // Shows [MQTT-3.3.5-2 of 3.1.1].
    fixture p;
    std::vector<std::string> seen;
    p.broker.hooks().authorize_publish = [](testing::client_info const& who, mqtt::publish const& m) {
        if (m.topic == "deadly") return testing::publish_verdict{reason_code::quota_exceeded, true};
        bool const own = m.topic.starts_with(who.name);
        return testing::publish_verdict{own ? reason_code::success : reason_code::not_authorized, false};
    };
    p.broker.hooks().on_publish = [&](testing::client_info const& who, mqtt::publish const& m) {
        seen.push_back(std::string(who.name) + " " + std::string(m.topic));
    };
    mqtt_client v5(p.io), v3(p.io, protocol_version::v3_1_1);
    REQUIRE(p.connect(v5, "five") == reason_code::success);
    REQUIRE(p.connect(v3, "three") == reason_code::success);
    v5.subscribe("#");
    CHECK(v5.publish("five/a", "x", qos::at_least_once) == reason_code::success);
    CHECK(v5.publish("three/a", "x", qos::exactly_once) == reason_code::not_authorized);
    CHECK(v3.publish("five/a", "x", qos::exactly_once) == reason_code::success);  // it cannot be told
    v5.ping();
    CHECK(v5.messages.size() == 1);
    CHECK(seen == std::vector<std::string>{"five five/a"});
    CHECK(p.broker.counters().messages_refused == 2);
    v5.begin_publish({.topic = "deadly", .qos = qos::at_least_once});
    CHECK(v5.wait_for_end());
    CHECK(v5.disconnected == reason_code::quota_exceeded);
    v3.begin_publish({.topic = "deadly", .qos = qos::at_least_once});
    CHECK(v3.wait_for_end());
}

TEST_CASE("the user decides about each subscription") {
    // Shows [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1].
    for (auto const version : versions) {
        fixture p;
        p.broker.hooks().authorize_subscribe = [](testing::client_info const&, mqtt::subscribe const&,
                                                  mqtt::subscription_request const& request) {
            return request.filter == "secret" ? reason_code::not_authorized : reason_code::granted_qos_1;
        };
        mqtt_client client(p.io, version);
        REQUIRE(p.connect(client, "a") == reason_code::success);
        mqtt::subscription_request const requests[] = {
            {.filter = "a"}, {.filter = "secret"}, {.filter = "b", .maximum_qos = qos::at_most_once}};
        client.subscribe_all(requests);
        auto const no = version == protocol_version::v5 ? reason_code::not_authorized : reason_code::unspecified_error;
        CHECK(client.subscribed ==
              std::vector<reason_code>{reason_code::granted_qos_1, no, reason_code::granted_qos_0});
        CHECK(p.broker.publish("secret", "x") == 0);
    }
}

TEST_CASE("a hook may publish") {
    fixture p;
    p.broker.hooks().on_publish = [&](testing::client_info const&, mqtt::publish const& m) {
        if (m.topic == "ask") p.broker.publish("answer", m.payload, qos::at_least_once);
    };
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.subscribe("answer");
    client.publish("ask", "42", qos::at_least_once);
    CHECK(client.last().payload == "42");
}

TEST_CASE("a test can refuse the next connections, drop a client, and disconnect one") {
    fixture p;
    std::vector<std::string> gone;
    p.broker.hooks().on_disconnect = [&](std::string_view client) { gone.emplace_back(client); };
    p.broker.refuse_next(2, reason_code::server_busy);
    mqtt_client client(p.io);
    CHECK(p.connect(client, "a") == reason_code::server_busy);
    CHECK(p.connect(client, "a") == reason_code::server_busy);
    CHECK(p.connect(client, "a") == reason_code::success);

    CHECK_FALSE(p.broker.drop_client("nobody"));
    CHECK(p.broker.drop_client("a"));
    CHECK_FALSE(p.broker.connected("a"));
    CHECK(client.wait_for_end());
    CHECK_FALSE(client.disconnected);

    CHECK(p.connect(client, "a") == reason_code::success);
    CHECK(p.broker.disconnect_client("a", reason_code::server_shutting_down));
    CHECK(client.wait_for_end());
    CHECK(client.disconnected == reason_code::server_shutting_down);
    CHECK(gone == std::vector<std::string>{"a", "a"});
}

TEST_CASE("acknowledgements can be held back") {
    fixture p;
    p.broker.hold_acknowledgements(true);
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    auto const one = client.begin_publish({.topic = "t", .payload = "1", .qos = qos::at_least_once});
    auto const two = client.begin_publish({.topic = "t", .payload = "2", .qos = qos::exactly_once});
    client.ping();
    CHECK_FALSE(client.published[one]);
    p.broker.hold_acknowledgements(false);
    CHECK(client.wait([&] { return client.published[one] && client.published[two]; }));
}

TEST_CASE("the messages received last are recorded on demand") {
    fixture p({.recorded_messages = 2});
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.publish("t", "1", qos::at_least_once);
    client.publish("t", "2", qos::at_least_once);
    client.publish("u", "3", qos::exactly_once, true);
    REQUIRE(p.broker.received().size() == 2);
    auto const& last = p.broker.received().back();
    CHECK(last.client == "a");
    CHECK(last.topic == "u");
    CHECK(last.payload == "3");
    CHECK(last.qos == qos::exactly_once);
    CHECK(last.retain);
    CHECK_FALSE(last.dup);
    p.broker.clear_received();
    CHECK(p.broker.received().empty());
}

TEST_CASE("QoS 0 messages for a client that does not read are dropped beyond a limit, the others wait") {
    fixture p({.output_limit = 10'000});
    mqtt_client slow(p.io);
    REQUIRE(p.connect(slow, "slow") == reason_code::success);
    slow.subscribe("t");
    slow.reading = false;
    slow.stream().incoming().capacity = 1000;
    p.settle();
    std::string const payload(1000, 'x');
    for (int i = 0; i < 50; ++i) {
        p.broker.publish("t", payload, qos::at_most_once);
        p.broker.publish("t", payload, qos::at_least_once);
        p.io.poll();
    }
    auto const dropped = p.broker.counters().messages_dropped;
    CHECK(dropped > 30);
    slow.reading = true;
    CHECK(slow.wait_for(static_cast<std::size_t>(100 - dropped)));
    std::size_t kept = 0;
    for (auto const& m : slow.messages) kept += m.qos == qos::at_least_once ? 1u : 0u;
    CHECK(kept == 50);
}

TEST_CASE("the queue of a session is limited") {
    fixture p({.queue_limit = 3});
    mqtt_client client(p.io, protocol_version::v3_1_1);
    REQUIRE(p.connect(client, "a", false) == reason_code::success);
    client.subscribe("t");
    client.cut();
    p.settle();
    for (int i = 0; i < 5; ++i) p.broker.publish("t", std::to_string(i), qos::at_least_once);
    CHECK(p.broker.counters().messages_dropped == 2);
    REQUIRE(p.connect(client, "a", false) == reason_code::success);
    REQUIRE(client.wait_for(3));
    CHECK(client.messages.back().payload == "2");
}

TEST_CASE("many messages leave in few writes") {
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.subscribe("t");
    auto const before = client.stream().incoming().writes;
    for (int i = 0; i < 1000; ++i) p.broker.publish("t", "x", qos::at_least_once);
    REQUIRE(client.wait_for(1000));
    CHECK(client.stream().incoming().writes - before <= 3);
}

TEST_CASE("a client that sends its farewell and closes has everything handled") {
    fixture p({.recorded_messages = 1});
    mqtt_client client(p.io);
    REQUIRE(p.connect(client, "a") == reason_code::success);
    client.begin_publish({.topic = "t", .payload = "last", .qos = qos::at_least_once});
    client.shut_down();
    CHECK(client.wait_for_end());
    CHECK(client.published[0].has_value());
    CHECK(p.broker.received().size() == 1);
    CHECK_FALSE(p.broker.connected("a"));
}

TEST_CASE("closing the broker ends every connection, and it can be used again") {
    fixture p;
    mqtt_client client(p.io, protocol_version::v3_1_1);
    REQUIRE(p.connect(client, "a", false) == reason_code::success);
    p.broker.close();
    CHECK(client.wait_for_end());
    CHECK(p.wait([&] { return !p.broker.connected("a"); }));
    REQUIRE(p.connect(client, "a", false) == reason_code::success);
    CHECK(client.session_present);
}

TEST_CASE("a broker can go while its connections are open") {
    asio::io_context io;
    mqtt_client client(io);
    {
        testing::broker broker(io.get_executor());
        std::string local = "what a hook refers to";
        broker.hooks().on_disconnect = [&](std::string_view) { local += "!"; };
        auto [near, far] = memory_stream<>::pair(io.get_executor());
        broker.attach(std::move(far));
        client.open(std::move(near));
        REQUIRE(client.connect("a") == reason_code::success);
    }
    CHECK(client.wait_for_end());
    io.restart();
    io.run();  // ends: nothing is left
}

TEST_CASE("a broker may go with the execution context, held by what is destroyed behind its own coroutines") {
    for (int turns = 0; turns < 40; ++turns) {
        CAPTURE(turns);
        auto io = std::make_unique<asio::io_context>();
        auto held = std::make_shared<runnel::testing::broker>(io->get_executor());
        std::weak_ptr<runnel::testing::broker> const gone = held;
        held->listen_tcp();
        auto ends = runnel::memory_stream<>::pair(io->get_executor());
        held->attach(std::move(ends.second));
        auto const hold = [](auto broker, [[maybe_unused]] auto mine) -> asio::awaitable<void> {
            runnel::wait_list<asio::any_io_executor> waiters(broker->get_executor());
            runnel::waiter<asio::any_io_executor> w;
            co_await waiters.wait(w);
        };
        asio::co_spawn(*io, hold(std::move(held), std::move(ends.first)), asio::detached);
        for (int i = 0; i < turns; ++i) io->poll_one();
        io.reset();
        CHECK(gone.expired());
    }
}

TEST_CASE("an execution context can go while connections are open") {
    auto io = std::make_unique<asio::io_context>();
    {
        testing::broker broker(io->get_executor());
        auto [near, far] = memory_stream<>::pair(io->get_executor());
        broker.attach(std::move(far));
        broker.listen_tcp();
        io->poll();
    }
    io.reset();
}

TEST_CASE("a client over TCP is served") {
    fixture p;
    auto const port = p.broker.listen_tcp();
    CHECK(port != 0);
    asio::ip::tcp::socket socket(p.io);
    socket.connect({asio::ip::address_v4::loopback(), port});
    std::string const connect("\x10\x0d\0\4MQTT\5\2\0\0\0\0\0", 15);
    asio::write(socket, asio::buffer(connect));
    std::string answer(2, '\0');
    bool done = false;
    asio::async_read(socket, asio::buffer(answer), [&](std::error_code e, std::size_t) { done = !e; });
    REQUIRE(p.wait([&] { return done; }));
    CHECK(answer[0] == '\x20');
    CHECK_THROWS_AS(p.broker.listen_tcp(port), std::system_error);
    socket.close();
    CHECK(p.wait([&] { return p.broker.session_count() == 0; }));
    p.broker.close();
    p.io.restart();
    p.io.run();  // ends: nothing is left
}
