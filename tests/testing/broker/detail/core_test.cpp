#include <runnel/testing/broker/detail/core.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <support/timed_broker.hpp>
#include <vector>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;

struct fixture : test::timed_broker {
    using timed_broker::timed_broker;
    std::size_t publish(mqtt::publish const& m) { return core.publish(m, now); }
};

// A client that talks to the core without a network in between.
class client final : public testing::detail::broker_connection, public mqtt::session_handler {
  public:
    explicit client(fixture& p, protocol_version version = protocol_version::v5)
        : runnel::testing::detail::broker_connection({"memory", "", false}),
          state(mqtt::role::client, version),
          fixture_(p) {}
    ~client() { leave(); }

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
    reason_code connect(mqtt::connect const& packet) {
        open();
        connack.reset();
        state.connect(sending, packet, own);
        exchange();
        return connack.value_or(reason_code::unspecified_error);
    }
    void subscribe(std::string_view filter) {
        mqtt::subscription_request const request{.filter = filter};
        state.subscribe(sending, {.requests = request}, this);
        exchange();
    }
    // The network connection ends.
    void leave() {
        if (!attached_) return;
        attached_ = false;
        state.connection_lost();
        fixture_.core.closed(*this, fixture_.now);
        out.clear();
    }
    // What both have to say to each other.
    void exchange() {
        while (attached_ && (!out.empty() || !sending.empty())) {
            auto input = sending.view();
            fixture_.core.receive(*this, input, fixture_.now);
            sending.clear();
            send_buffer reply;
            reply.swap(out);
            fixture_.core.sent(*this, fixture_.now);
            auto bytes = reply.view();
            CHECK(state.receive(bytes, sending, *this) == mqtt::errc::ok);
        }
    }

    void on_connack(mqtt::connack const& answer) {
        connack = answer.reason;
        session_present = answer.session_present;
        props = answer.props.parse();
    }
    void on_message(mqtt::publish const& m, mqtt::delivery d) {
        messages.emplace_back(m.payload);
        topics.emplace_back(m.topic);
        expiry = m.props.get<mqtt::property_id::message_expiry_interval>();
        state.acknowledge(sending, d);
    }
    void on_disconnect(mqtt::disconnect const& packet) { disconnected = packet.reason; }

    mqtt::session_state state;
    send_buffer sending;
    std::optional<reason_code> connack;
    std::optional<reason_code> disconnected;
    bool session_present = false;
    bool aborted = false;
    mqtt::properties props;  // those with numbers only
    std::vector<std::string> messages;
    std::vector<std::string> topics;
    std::optional<std::uint32_t> expiry;
    mqtt::capabilities own;

  private:
    fixture& fixture_;
    bool attached_ = false;
};

}  // namespace

TEST_CASE("a client that is silent for one and a half times its keep alive is cut off, and its will is published") {
    // Shows [MQTT-3.1.2-22] [MQTT-3.2.2-22].
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        fixture p;
        client watcher(p, version), c(p, version);
        watcher.connect({.client_id = "watcher"});
        watcher.subscribe("gone");
        mqtt::connect packet{.client_id = "a", .keep_alive = 10};
        packet.will = mqtt::will{.topic = "gone", .payload = "silent"};
        REQUIRE(c.connect(packet) == reason_code::success);
        p.pass(14s);
        c.state.ping(c.sending);
        c.exchange();
        p.pass(14999ms);
        CHECK(p.core.connected("a"));
        p.pass(1ms);
        CHECK_FALSE(p.core.connected("a"));
        watcher.exchange();
        CHECK(watcher.messages == std::vector<std::string>{"silent"});
        c.exchange();
        CHECK(c.disconnected.has_value() == (version == protocol_version::v5));
        if (c.disconnected) CHECK(*c.disconnected == reason_code::keep_alive_timeout);
        CHECK_FALSE(c.aborted);
        p.pass(2s);  // it has not closed
        CHECK(c.aborted);
    }
}

TEST_CASE("a client without keep alive may be silent for ever") {
    fixture p;
    client c(p);
    c.connect({.client_id = "a"});
    CHECK_FALSE(p.core.next_deadline());
    p.pass(240h);
    CHECK(p.core.connected("a"));
}

TEST_CASE("the server's keep alive takes the place of the client's") {
    testing::broker_options options;
    options.server_keep_alive = 4;
    fixture p(options);
    client c(p);
    c.connect({.client_id = "a", .keep_alive = 1000});
    CHECK(c.props.server_keep_alive == 4);
    p.pass(6s);
    CHECK_FALSE(p.core.connected("a"));
}

TEST_CASE("a connection on which nobody sends CONNECT is cut") {
    fixture p;
    client c(p);
    c.open();
    p.pass(9s);
    CHECK_FALSE(c.aborted);
    p.pass(1s);
    CHECK(c.aborted);
}

TEST_CASE("a session lasts for its session expiry interval") {
    // Shows [MQTT-4.1.0-1] [MQTT-4.1.0-2].
    fixture p;
    client c(p);
    mqtt::properties props;
    props.session_expiry_interval = 60;
    mqtt::connect const packet{.client_id = "a", .clean_start = false, .props = &props};
    c.connect(packet);
    c.subscribe("t");
    c.leave();
    p.pass(59s);
    CHECK(p.publish({.topic = "t", .payload = "kept", .qos = qos::at_least_once}) == 1);
    c.connect(packet);
    CHECK(c.session_present);
    CHECK(c.messages == std::vector<std::string>{"kept"});
    p.pass(1h);  // counts from the end of the connection only
    c.leave();
    p.pass(60s);
    CHECK(p.core.session_count() == 0);
    CHECK(p.publish({.topic = "t"}) == 0);
    c.connect(packet);
    CHECK_FALSE(c.session_present);
}

TEST_CASE("the broker may limit the session expiry interval, and says so") {
    testing::broker_options options;
    options.maximum_session_expiry = 10;
    fixture p(options);
    client c(p);
    mqtt::properties props;
    props.session_expiry_interval = 60;
    c.connect({.client_id = "a", .props = &props});
    CHECK(c.props.session_expiry_interval == 10);
    c.leave();
    p.pass(9s);
    CHECK(p.core.session_count() == 1);
    p.pass(1s);
    CHECK(p.core.session_count() == 0);
}

TEST_CASE("DISCONNECT may change the session expiry interval, but not from zero") {
    fixture p;
    client c(p);
    mqtt::properties lasting, ending;
    lasting.session_expiry_interval = 60;
    ending.session_expiry_interval = 0;
    c.connect({.client_id = "a", .props = &lasting});
    c.state.disconnect(c.sending, {.props = &ending});
    c.exchange();
    CHECK(p.core.session_count() == 0);
    CHECK(p.core.counters().protocol_errors == 0);
    c.connect({.client_id = "a"});
    CHECK(c.state.disconnect(c.sending, {.props = &lasting}) == mqtt::errc::property_not_allowed);
    runnel::mqtt::detail::append(c.sending, mqtt::disconnect{.props = &lasting}, protocol_version::v5);
    c.exchange();
    CHECK(p.core.session_count() == 0);
    CHECK(p.core.counters().protocol_errors == 1);
}

TEST_CASE("a broker takes topic aliases, and gives some to clients that take them") {
    fixture p;
    client from(p), to(p);
    from.connect({.client_id = "from"});
    CHECK(from.props.topic_alias_maximum == 16);
    mqtt::properties taking;
    taking.topic_alias_maximum = 3;
    to.own.topic_alias_maximum = 3;
    to.connect({.client_id = "to", .props = &taking});
    to.subscribe("#");
    for (int i = 0; i < 3; ++i) {
        from.state.publish(from.sending, {.topic = "a/rather/long/topic", .payload = "p"});
        CHECK(from.sending.size() == (i == 0 ? 28 : 9));
        from.exchange();
        CHECK(to.out.size() == (i == 0 ? 28 : 9));
        to.exchange();
    }
    CHECK(to.topics == std::vector<std::string>(3, "a/rather/long/topic"));
}

TEST_CASE("a message sent again has the rest of its expiry interval [MQTT-3.3.2-6]") {
    fixture p;
    client c(p);
    mqtt::properties lasting, expiring;
    lasting.session_expiry_interval = 3600;
    expiring.message_expiry_interval = 60;
    c.connect({.client_id = "a", .clean_start = false, .props = &lasting});
    c.subscribe("#");
    p.publish({.topic = "t", .payload = "p", .qos = qos::at_least_once, .props = &expiring});
    c.out.clear();  // it does not arrive
    c.leave();
    p.pass(20s);
    c.connect({.client_id = "a", .clean_start = false, .props = &lasting});
    CHECK(c.expiry == 40u);
}

TEST_CASE("a will waits for its delay, and is not published if the client comes back before") {
    // Shows [MQTT-3.1.3-9].
    fixture p;
    client watcher(p), c(p);
    watcher.connect({.client_id = "watcher"});
    watcher.subscribe("gone");
    mqtt::properties props, will_props;
    props.session_expiry_interval = 3600;
    will_props.will_delay_interval = 30;
    mqtt::connect packet{.client_id = "a", .clean_start = false, .props = &props};
    packet.will = mqtt::will{.topic = "gone", .payload = "bye", .props = &will_props};
    c.connect(packet);
    c.leave();
    p.pass(29s);
    c.connect(packet);
    p.pass(1h);
    watcher.exchange();
    CHECK(watcher.messages.empty());
    c.leave();
    p.pass(30s);
    watcher.exchange();
    CHECK(watcher.messages == std::vector<std::string>{"bye"});
    CHECK(p.core.session_count() == 2);
    p.pass(1h);
    watcher.exchange();
    CHECK(watcher.messages.size() == 1);
}

TEST_CASE("a will is published at the latest when its session ends") {
    fixture p;
    client watcher(p), c(p);
    watcher.connect({.client_id = "watcher"});
    watcher.subscribe("gone");
    mqtt::properties props, will_props;
    props.session_expiry_interval = 10;
    will_props.will_delay_interval = 30;
    mqtt::connect packet{.client_id = "a", .props = &props};
    packet.will = mqtt::will{.topic = "gone", .payload = "bye", .props = &will_props};
    c.connect(packet);
    c.leave();
    p.pass(10s);
    watcher.exchange();
    CHECK(watcher.messages.size() == 1);

    c.connect(packet);
    c.leave();
    c.connect(packet);  // a clean start ends the old session
    watcher.exchange();
    CHECK(watcher.messages.size() == 2);
}

TEST_CASE("the expiry of a message counts down while it waits, and then it is not delivered") {
    // Shows [MQTT-3.3.2-5] [MQTT-3.3.2-6].
    fixture p;
    client c(p);
    mqtt::properties lasting, expiring;
    lasting.session_expiry_interval = 3600;
    expiring.message_expiry_interval = 10;
    mqtt::connect const packet{.client_id = "a", .clean_start = false, .props = &lasting};
    c.connect(packet);
    c.subscribe("t");
    c.leave();
    p.publish({.topic = "t", .payload = "early", .qos = qos::at_least_once, .props = &expiring});
    p.pass(4s);
    p.publish({.topic = "t", .payload = "late", .qos = qos::at_least_once, .props = &expiring});
    p.pass(6s);
    c.connect(packet);
    CHECK(c.messages == std::vector<std::string>{"late"});
    CHECK(c.expiry == 4);
    CHECK(p.core.counters().messages_expired == 1);
}

TEST_CASE("a retained message expires") {
    fixture p;
    mqtt::properties expiring;
    expiring.message_expiry_interval = 10;
    p.publish({.topic = "t", .payload = "x", .retain = true, .props = &expiring});
    client early(p), late(p);
    early.connect({.client_id = "early"});
    p.pass(3s);
    early.subscribe("t");
    CHECK(early.messages.size() == 1);
    CHECK(early.expiry == 7);
    p.pass(7s);
    late.connect({.client_id = "late"});
    late.subscribe("t");
    CHECK(late.messages.empty());
    CHECK(p.core.retained_count() == 0);
}

TEST_CASE("a will's expiry counts from its publication") {
    fixture p;
    client watcher(p), c(p);
    watcher.connect({.client_id = "watcher"});
    watcher.subscribe("gone");
    mqtt::properties expiring;
    expiring.message_expiry_interval = 10;
    mqtt::connect packet{.client_id = "a"};
    packet.will = mqtt::will{.topic = "gone", .payload = "bye", .props = &expiring};
    c.connect(packet);
    p.pass(1h);
    c.leave();
    watcher.exchange();
    CHECK(watcher.messages.size() == 1);
    CHECK(watcher.expiry == 10);
}

TEST_CASE("input is handled in whatever pieces it comes") {
    fixture p({.recorded_messages = 1});
    client c(p);
    c.open();
    std::string const bytes("\x10\x0d\0\4MQTT\5\2\0\0\0\0\0\x30\x05\0\1t\0x\xe0\0", 24);
    std::string pending;
    for (char const byte : bytes) {
        pending += byte;
        std::string_view input = pending;
        p.core.receive(c, input, p.now);
        pending = input;
    }
    CHECK(pending.empty());
    CHECK(p.core.received().size() == 1);
    CHECK(c.closing);
    CHECK(p.core.counters().protocol_errors == 0);
}
