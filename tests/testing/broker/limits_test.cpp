#include <runnel/testing/broker/detail/core.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <support/packets.hpp>
#include <support/timed_broker.hpp>
#include <utility>
#include <vector>

// What clients can make the embedded broker hold, and that slow ones and those near a limit get what is theirs.

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::packet_type;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using strings = std::vector<std::string>;

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr protocol_version both_versions[] = {v3, v5};
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;

struct fixture : test::timed_broker {
    using timed_broker::timed_broker;
    std::size_t publish(std::string_view topic, std::string_view payload, qos quality, bool retain = false,
                        mqtt::properties const* props = nullptr) {
        mqtt::publish m{.topic = topic, .payload = payload, .qos = quality, .retain = retain};
        if (props != nullptr) m.props = props;
        return core.publish(m, now);
    }
};

struct heard_packet {
    packet_type type;
    std::string body;   // behind the fixed header
    std::string topic;  // of PUBLISH, as the rest
    std::string payload;
    qos quality;
    std::uint16_t id;
};

// A client without any rules of its own, that reads when it is told to.
class peer final : public testing::detail::broker_connection {
  public:
    peer(fixture& p, protocol_version v)
        : runnel::testing::detail::broker_connection({"memory", "", false}), fixture_(p), version_(v) {
        open();
    }
    ~peer() { leave(); }

    void wake() override {}
    void abort() override { leave(); }

    void open() {
        leave();
        closing = false;
        attached_ = true;
        fixture_.core.opened(*this, fixture_.now);
    }
    void leave() {
        if (!std::exchange(attached_, false)) return;
        fixture_.core.closed(*this, fixture_.now);
        out.clear();
    }
    void say(std::string_view input) { fixture_.core.receive(*this, input, fixture_.now); }
    template <class Packet>
    void say_packet(Packet const& p) {
        say(test::encoded(p, version_));
    }
    // The reason of CONNACK; nothing if none has come.
    std::optional<int> connect(mqtt::connect const& packet) {
        say_packet(packet);
        auto const answers = read();
        if (answers.empty() || answers[0].type != packet_type::connack) return std::nullopt;
        return static_cast<unsigned char>(answers[0].body[1]);
    }
    void subscribe(std::string_view filter, qos quality = q2) {
        mqtt::subscription_request const request{.filter = filter, .maximum_qos = quality};
        say_packet(mqtt::subscribe{.packet_id = 1, .requests = request});
    }
    // What has come, as far as it has been encoded.
    std::vector<heard_packet> read() {
        send_buffer taken;
        taken.swap(out);
        if (attached_) fixture_.core.sent(*this, fixture_.now);
        std::vector<heard_packet> all;
        for (auto bytes = taken.view(); !bytes.empty();) {
            auto const f = mqtt::next_frame(bytes);
            heard_packet one{f.header.type, std::string(f.body), {}, {}, {}, 0};
            if (mqtt::publish m; f.header.type == packet_type::publish) {
                REQUIRE(decode(f.header, f.body, version_, m) == mqtt::errc::ok);
                one.topic = m.topic, one.payload = m.payload, one.quality = m.qos, one.id = m.packet_id;
            }
            all.push_back(std::move(one));
            bytes.remove_prefix(f.total_size);
        }
        return all;
    }
    // The payloads of all messages that come, with QoS 1 acknowledged.
    strings messages() {
        strings all;
        while (!out.empty())
            for (auto const& p : read()) {
                if (p.type != packet_type::publish) continue;
                all.push_back(p.payload);
                if (p.quality == q1) say_packet(mqtt::acknowledgement{packet_type::puback, p.id, {}, {}});
            }
        return all;
    }
    // The type of the packet that came last, with its reason where it is DISCONNECT.
    std::string last() {
        auto const all = read();
        if (all.empty()) return "";
        auto const& p = all.back();
        auto const reason = p.body.empty() ? 0 : static_cast<unsigned char>(p.body[0]);
        return p.type == packet_type::disconnect ? "disconnect " + std::to_string(reason)
                                                 : std::to_string(static_cast<int>(p.type));
    }

  private:
    fixture& fixture_;
    protocol_version version_;
    bool attached_ = false;
};

mqtt::properties lasting() {
    mqtt::properties p;
    p.session_expiry_interval = 3600;
    return p;
}

}  // namespace

TEST_CASE("an identifier that the broker assigns is that of no other session [MQTT-3.2.2-16]") {
    for (auto const version : both_versions) {
        fixture p;
        peer a(p, version), kept(p, v5), b(p, version), c(p, version);
        REQUIRE(a.connect({.client_id = "runnel-1"}) == 0);
        auto const props = lasting();
        REQUIRE(kept.connect({.client_id = "runnel-2", .props = &props}) == 0);
        kept.leave();
        REQUIRE(b.connect({}) == 0);
        REQUIRE(c.connect({}) == 0);
        CHECK_FALSE(a.closing);
        CHECK_FALSE(b.closing);
        CHECK(p.core.session_count() == 4);
        CHECK(p.core.counters().resumed == 0);
    }
}

TEST_CASE("a will is published after each DISCONNECT but that with 0x00 [MQTT-3.14.4-3]") {
    int published = 0;
    for (int code = 0; code < 256; ++code) {
        auto const reason = static_cast<reason_code>(code);
        if (!mqtt::allowed_in(reason, packet_type::disconnect, mqtt::role::client)) continue;
        fixture p;
        peer watcher(p, v5), c(p, v5);
        watcher.connect({.client_id = "watcher"});
        watcher.subscribe("gone");
        mqtt::connect packet{.client_id = "a"};
        packet.will = mqtt::will{.topic = "gone", .payload = "bye"};
        REQUIRE(c.connect(packet) == 0);
        c.say_packet(mqtt::disconnect{reason, {}});
        auto const expected = code == 0 ? strings{} : strings{"bye"};
        CHECK(watcher.messages() == expected);
        CHECK(c.closing);
        published += code != 0;
    }
    CHECK(published > 5);
}

TEST_CASE("a will is authorised, recorded and told of as any message of its client") {
    for (auto const version : both_versions) {
        fixture p({.recorded_messages = 10});
        strings asked, told;
        p.core.hooks.authorize_publish = [&](testing::client_info const& who, mqtt::publish const& m) {
            asked.push_back(std::string(who.name) + " " + who.from.transport + " " + std::string(m.topic));
            return testing::publish_verdict{m.topic == "secret" ? reason_code::not_authorized : reason_code::success,
                                            true};
        };
        p.core.hooks.on_publish = [&](testing::client_info const&, mqtt::publish const& m) {
            told.emplace_back(m.topic);
        };
        peer watcher(p, version);
        watcher.connect({.client_id = "watcher"});
        watcher.subscribe("#");
        for (auto const* topic : {"secret", "open"}) {
            peer c(p, version);
            mqtt::connect packet{.client_id = "a"};
            packet.will = mqtt::will{.topic = topic, .payload = topic, .qos = q1, .retain = true};
            REQUIRE(c.connect(packet) == 0);
        }
        CHECK(asked == strings{"a memory secret", "a memory open"});
        CHECK(told == strings{"open"});
        CHECK(watcher.messages() == strings{"open"});
        REQUIRE(p.core.received().size() == 1);
        CHECK(p.core.received()[0].client == "a");
        CHECK(p.core.retained_count() == 1);
        CHECK(p.core.counters().messages_refused == 1);
    }
}

TEST_CASE("each retained message reaches a new subscription, however many there are") {
    // Shows that none is dropped for want of room: 3.3.1.3.
    for (auto const quality : {q0, q1}) {
        fixture p({.output_limit = 300'000, .queue_limit = 100, .queue_bytes = 200'000});
        std::string const filling(1000, 'x');
        for (int i = 10'000; i < 15'000; ++i)
            p.publish("t/" + std::to_string(i), std::to_string(i) + filling, quality, true);
        peer c(p, v5);
        REQUIRE(c.connect({.client_id = "a"}) == 0);
        c.subscribe("t/#");
        c.subscribe("nothing/+");
        CHECK(c.out.size() < 200'000);
        auto const got = c.messages();
        REQUIRE(got.size() == 5'000);
        bool in_order = true;
        for (std::size_t i = 0; i < got.size(); ++i)
            in_order = in_order && got[i].starts_with(std::to_string(10'000 + i));
        CHECK(in_order);
        CHECK(p.core.counters().messages_dropped == 0);
    }
}

TEST_CASE("retained messages are looked up by the beginning of the filter, however many others there are") {
    auto const time_for = [](int others) {
        testing::detail::retained_messages all;
        testing::detail::retained_messages::time_point const now{};
        auto const keep = [&](std::string const& topic) {
            mqtt::publish const m{.topic = topic, .payload = "x", .retain = true};
            all.store(std::make_shared<testing::detail::stored_message const>(m, now));
        };
        for (int i = 0; i < others; ++i) keep("other/" + std::to_string(i));
        for (auto const* topic : {"a/1", "a/1/x", "a/12"}) keep(topic);
        auto const begin = std::chrono::steady_clock::now();
        for (int i = 0; i < 1000; ++i) {
            for (auto const* filter : {"a/1", "a/+", "a/1/#"}) {
                testing::detail::retained_request r{filter, q2, 0, false, all.next_number(), {}, false};
                int found = 0;
                while (all.next(r, now)) ++found;
                REQUIRE(found == (std::string_view(filter) == "a/1" ? 1 : 2));
            }
        }
        return std::chrono::steady_clock::now() - begin;
    };
    auto const few = time_for(10);
    CHECK(time_for(20'000) < 50 * few);  // 2,000 times as long if all are gone through
}

TEST_CASE("a message does not overtake the retained one of its topic, nor come twice for it") {
    for (auto const quality : {q0, q1}) {
        fixture p;
        std::string const filling(60'000, 'x');
        for (auto const* topic : {"a", "b", "c", "d"}) p.publish(topic, topic + filling, quality, true);
        peer c(p, v3);
        REQUIRE(c.connect({.client_id = "a"}) == 0);
        c.subscribe("#");
        p.publish("d", "later", quality);
        p.publish("c", "anew", quality, true);
        strings got;
        for (auto const& m : c.messages()) got.push_back(m.substr(0, 5));
        if (quality == q0)
            CHECK(got == strings{"axxxx", "bxxxx", "dxxxx", "later", "anew"});
        else  // they have been in the queue
            CHECK(got == strings{"axxxx", "bxxxx", "cxxxx", "dxxxx", "later", "anew"});
    }
}

TEST_CASE("retained messages of QoS 1 that wait go on after a lost connection, and stop with the subscription") {
    fixture p({.queue_limit = 2});
    for (int i = 0; i < 9; ++i) p.publish("t/" + std::to_string(i), std::to_string(i), q1, true);
    auto props = lasting();
    props.receive_maximum = 1;
    mqtt::connect const packet{.client_id = "a", .clean_start = false, .props = &props};
    peer c(p, v5);
    REQUIRE(c.connect(packet) == 0);
    c.subscribe("t/+");
    c.open();
    REQUIRE(c.out.empty());
    c.say_packet(packet);
    CHECK(c.messages() == strings{"0", "1", "2", "3", "4", "5", "6", "7", "8"});
    c.subscribe("t/+");
    std::string_view const filters[] = {"t/+"};
    c.say_packet(mqtt::unsubscribe{.packet_id = 2, .filters = filters});
    CHECK(c.messages().size() == 3);  // one in flight, and those in the queue
}

TEST_CASE("a client that subscribes again and again without reading makes the broker hold no more") {
    fixture p;
    for (int i = 0; i < 1000; ++i) p.publish("t/" + std::to_string(i), std::string(1000, 'x'), q0, true);
    peer c(p, v5);
    REQUIRE(c.connect({.client_id = "a"}) == 0);
    for (int i = 0; i < 1000; ++i) c.subscribe("#");
    CHECK(c.out.size() < 64 * 1024 + 1100 + 1000 * 6);
    CHECK(c.messages().size() >= 1000);
    CHECK(p.core.counters().messages_dropped == 0);
}

TEST_CASE("a slow client that pings is heard, however much waits for it") {
    fixture p({.output_limit = 100'000});
    peer c(p, v3);
    REQUIRE(c.connect({.client_id = "slow", .keep_alive = 10}) == 0);
    c.subscribe("t", q0);
    for (int i = 0; i < 1000; ++i) p.publish("t", std::string(1000, 'x'), q0);
    CHECK(p.core.counters().messages_dropped > 800);
    for (int i = 0; i < 10; ++i) {  // it reads nothing for 100 s
        p.pass(10s);
        CHECK(p.core.wants_input(c));
        c.say(test::hex("C0 00"));
    }
    CHECK(p.core.connected("slow"));
    CHECK_FALSE(c.messages().empty());
}

TEST_CASE("a client that does not take its answers is read no more, but is not silent as long as it takes some") {
    fixture p({.output_limit = 1000});
    peer c(p, v3);
    REQUIRE(c.connect({.client_id = "a", .keep_alive = 10}) == 0);
    while (p.core.wants_input(c)) c.say(test::hex("C0 00"));
    CHECK(c.out.size() == 1000);
    p.pass(10s);
    p.core.sent(c, p.now);
    CHECK_FALSE(p.core.wants_input(c));
    p.pass(10s);
    CHECK(p.core.connected("a"));
    p.pass(6s);
    CHECK_FALSE(p.core.connected("a"));
}

TEST_CASE("messages that have expired make room for those that have not [MQTT-3.3.2-5]") {
    for (auto const quality : {q0, q1}) {
        fixture p({.output_limit = 70'000, .queue_limit = 3});
        mqtt::properties expiring;
        expiring.message_expiry_interval = 10;
        auto const props = lasting();
        peer c(p, v5);
        REQUIRE(c.connect({.client_id = "a", .clean_start = false, .props = &props}) == 0);
        c.subscribe("t");
        c.read();
        p.publish("t", std::string(66'000, 'x'), quality);  // fills the output
        for (int i = 0; i < 50; ++i) p.publish("t", "old", quality, false, &expiring);
        auto const dropped = p.core.counters().messages_dropped;
        CHECK(dropped > 0);
        p.pass(11s);
        for (int i = 0; i < 3; ++i) p.publish("t", "new", quality);
        auto const got = c.messages();
        CHECK(got.size() == 4);
        CHECK(got.back() == "new");
        CHECK(p.core.counters().messages_dropped == dropped);
        CHECK(p.core.counters().messages_expired == 50 - dropped);
    }
}

TEST_CASE("a QoS 2 message that is not acknowledged does not stop those behind it") {
    fixture p;
    peer c(p, v3);
    REQUIRE(c.connect({.client_id = "a"}) == 0);
    c.subscribe("#");
    p.publish("t", "stuck", q2);
    c.messages();
    std::size_t arrived = 0;
    for (int i = 0; i < 70; ++i) {
        for (int k = 0; k < 1000; ++k) p.publish("t", "x", q1);
        arrived += c.messages().size();
    }
    CHECK(arrived == 70'000);
    CHECK(p.core.counters().messages_dropped == 0);
}

TEST_CASE("messages wait in the queue for a packet identifier") {
    fixture p;
    peer c(p, v3);
    REQUIRE(c.connect({.client_id = "a"}) == 0);
    c.subscribe("#");
    for (int i = 0; i < 65'600; ++i) p.publish("t", "x", q1);
    std::vector<std::uint16_t> ids;
    while (!c.out.empty())
        for (auto const& m : c.read())
            if (m.type == packet_type::publish) ids.push_back(m.id);
    CHECK(ids.size() == 65'535);
    for (auto const id : ids) c.say_packet(mqtt::acknowledgement{packet_type::puback, id, {}, {}});
    CHECK(c.messages().size() == 65);
    CHECK(p.core.counters().messages_dropped == 0);
}

TEST_CASE("a client that has no room for the answer to its request is disconnected, and nothing is done") {
    fixture p;
    mqtt::properties small;
    small.maximum_packet_size = 20;
    std::vector<mqtt::subscription_request> const requests(20, {.filter = "t"});
    std::vector<std::string_view> const filters(20, "kept");
    for (bool const subscribes : {true, false}) {
        peer c(p, v5);
        REQUIRE(c.connect({.client_id = "a", .props = &small}) == 0);
        c.subscribe("kept");
        if (subscribes)
            c.say_packet(mqtt::subscribe{.packet_id = 2, .requests = requests});
        else
            c.say_packet(mqtt::unsubscribe{.packet_id = 2, .filters = filters});
        CHECK(c.last() == "disconnect 149");
        CHECK(c.closing);
        CHECK_FALSE(p.core.subscribed("t"));
    }
}

TEST_CASE("a CONNACK that is too large for the client is not sent [MQTT-3.1.2-24]") {
    fixture p;
    peer old(p, v5);
    REQUIRE(old.connect({.client_id = "a"}) == 0);
    bool refuses = false;
    p.core.hooks.on_connect = [&](testing::connect_attempt&) {
        return refuses ? reason_code::banned : reason_code::success;
    };
    for (std::uint32_t size = 1; size < 8; ++size) {
        for (bool const refused : {true, false}) {
            refuses = refused;
            mqtt::properties small;
            small.maximum_packet_size = size;
            peer c(p, v5);
            c.say_packet(mqtt::connect{.client_id = "a", .props = &small});
            CHECK(c.out.size() <= size);
            CHECK(c.closing);
        }
    }
    CHECK(p.core.connected("a"));  // nobody took over
    CHECK_FALSE(old.closing);
}

TEST_CASE("the bytes of a session's queue are bounded, but one message of any size is taken") {
    fixture p({.queue_bytes = 20'000});
    auto const props = lasting();
    mqtt::connect const packet{.client_id = "a", .clean_start = false, .props = &props};
    peer c(p, v5);
    REQUIRE(c.connect(packet) == 0);
    c.subscribe("#");
    c.leave();
    for (int i = 0; i < 100; ++i) p.publish("t", std::string(1000, 'x'), q1);
    CHECK(p.core.counters().messages_dropped > 75);
    c.open();
    c.say_packet(packet);
    auto const got = c.messages().size();
    CHECK(got == 100 - p.core.counters().messages_dropped);
    CHECK(got > 10);
    c.leave();
    p.publish("t", std::string(50'000, 'x'), q1);
    p.publish("t", "one too many", q1);
    c.open();
    c.say_packet(packet);
    CHECK(c.messages().size() == 1);
    // What has been sent and is not acknowledged counts, too.
    for (int i = 0; i < 100; ++i) p.publish("t", std::string(1000, 'x'), q1);
    CHECK(c.messages().size() < 21);
}

TEST_CASE("retained messages beyond the limits are refused, and go to nobody") {
    fixture p({.retained_limit = 2, .retained_bytes = 10'000});
    peer c(p, v5);
    REQUIRE(c.connect({.client_id = "a"}) == 0);
    c.subscribe("#", q0);
    c.read();
    auto const publish = [&](std::string_view topic, std::string const& payload) {
        c.say_packet(mqtt::publish{.topic = topic, .payload = payload, .qos = q1, .retain = true, .packet_id = 7});
        int reason = -1;
        for (auto const& m : c.read())
            if (m.type == packet_type::puback) reason = m.body.size() < 3 ? 0 : static_cast<unsigned char>(m.body[2]);
        return reason;
    };
    CHECK(publish("1", "x") == 0);
    CHECK(publish("2", "x") == 0);
    CHECK(publish("3", "x") == 0x97);
    CHECK(publish("2", "another") == 0);
    CHECK(publish("2", std::string(10'000, 'x')) == 0x97);
    CHECK(publish("3", "") == 0);
    CHECK(publish("1", "") == 0);
    CHECK(publish("3", "x") == 0);
    CHECK(p.core.retained_count() == 2);
    CHECK(p.core.counters().messages_refused == 2);
    CHECK(p.core.counters().messages_sent == 6);
}

TEST_CASE("subscriptions and sessions beyond the limits are refused") {
    for (auto const version : both_versions) {
        fixture p({.subscription_limit = 2, .session_limit = 2});
        peer a(p, version), b(p, version), c(p, version);
        REQUIRE(a.connect({.client_id = "a"}) == 0);
        auto const reason = [&](std::string_view filter) {
            a.subscribe(filter);
            return static_cast<unsigned char>(a.read().back().body.back());
        };
        CHECK(reason("1") == 2);
        CHECK(reason("2") == 2);
        CHECK(reason("3") == (version == v5 ? 0x97 : 0x80));
        CHECK(reason("2") == 2);
        REQUIRE(b.connect({.client_id = "b"}) == 0);
        CHECK(c.connect({.client_id = "c"}) == (version == v5 ? 0x97 : 3));
        c.open();
        CHECK(c.connect({.client_id = "b"}) == 0);  // it has a session
    }
}

TEST_CASE("options that are out of range are refused") {
    using options = testing::broker_options;
    mqtt::capabilities none;
    none.receive_maximum = 0;
    CHECK_THROWS_AS(testing::detail::broker_core(options{.accepts = none}), std::out_of_range);
    none = {.maximum_packet_size = 0};
    CHECK_THROWS_AS(testing::detail::broker_core(options{.accepts = none}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.maximum_packet_size_v3_1_1 = 0}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.connect_limit = -1ms}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.linger = std::chrono::milliseconds::max()}),
                    std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.output_limit = 0}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.queue_limit = 0}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.queue_bytes = 0}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.session_limit = 0}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.connection_limit = 0}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.in_flight = 0}), std::out_of_range);
    CHECK_THROWS_AS(testing::detail::broker_core(options{.maximum_keep_alive = 0}), std::out_of_range);
}

TEST_CASE("a broker with all limits at their least, or at their greatest, serves a client") {
    constexpr auto most = static_cast<std::size_t>(-1);
    testing::broker_options const least{.output_limit = 1,
                                        .queue_limit = 1,
                                        .queue_bytes = 1,
                                        .retained_limit = 0,
                                        .retained_bytes = 0,
                                        .subscription_limit = 1,
                                        .session_limit = 1,
                                        .connection_limit = 1,
                                        .in_flight = 1,
                                        .maximum_keep_alive = 1};
    testing::broker_options const greatest{.output_limit = most,
                                           .queue_limit = most,
                                           .queue_bytes = most,
                                           .retained_limit = most,
                                           .retained_bytes = most,
                                           .subscription_limit = most,
                                           .subscription_bytes = most,
                                           .session_limit = most,
                                           .connection_limit = most,
                                           .maximum_keep_alive = 65'535};
    for (auto const& options : {least, greatest}) {
        fixture p(options);
        peer c(p, v5);
        mqtt::properties props;
        props.session_expiry_interval = 0xFFFF'FFFE;
        REQUIRE(c.connect({.client_id = "a", .keep_alive = 65'535, .props = &props}) == 0);
        c.subscribe("#");
        for (auto const quality : {q0, q1}) {
            c.read();
            p.publish("t", "x", quality, true);
            CHECK(c.messages() == strings{"x"});
        }
    }
}

TEST_CASE("a shared subscription skips members that take nothing") {
    for (auto const quality : {q0, q1}) {
        fixture p;
        peer stalled(p, v3), good(p, v5);
        REQUIRE(stalled.connect({.client_id = "stalled"}) == 0);
        REQUIRE(good.connect({.client_id = "good"}) == 0);
        for (auto* const c : {&stalled, &good}) {
            c->subscribe("$share/g/t");
            c->read();
        }
        for (int i = 0; i < 4; ++i) p.publish("t", "x", quality);
        CHECK(good.messages().size() == 2);
        p.pass(2s);
        for (int i = 0; i < 100; ++i) p.publish("t", "x", quality);
        CHECK(good.messages().size() == 100);
        CHECK(stalled.messages().size() == 2);
        for (int i = 0; i < 4; ++i) p.publish("t", "x", quality);
        CHECK(stalled.messages().size() == 2);
    }
}

TEST_CASE("MQTT 3.1.1: a shared subscription without a group or with wildcards in it is refused") {
    fixture p;
    peer c(p, v3);
    REQUIRE(c.connect({.client_id = "a"}) == 0);
    for (auto const* filter : {"$share/g", "$share//t", "$share/+/t", "$share"}) {
        c.subscribe(filter);
        CHECK(static_cast<unsigned char>(c.read().back().body.back()) == 0x80);
    }
}

TEST_CASE("a session that was to end with its connection is not made to last: DISCONNECT 0x82 (3.14.2.2.2)") {
    fixture p;
    peer watcher(p, v5), c(p, v5);
    watcher.connect({.client_id = "watcher"});
    watcher.subscribe("gone");
    mqtt::connect packet{.client_id = "a"};
    packet.will = mqtt::will{.topic = "gone", .payload = "bye"};
    REQUIRE(c.connect(packet) == 0);
    auto const props = lasting();
    c.say_packet(mqtt::disconnect{.props = &props});
    CHECK(c.last() == "disconnect 130");
    CHECK(c.closing);
    CHECK(watcher.messages() == strings{"bye"});
    CHECK(p.core.session_count() == 1);
}

TEST_CASE("the keep alive may be limited, and is told to clients that ask for more [MQTT-3.2.2-21]") {
    struct row {
        std::uint16_t asked;
        std::chrono::seconds cut_after;
        bool told;
    };
    for (auto const& [asked, cut_after, told] :
         {row{0, 15s, true}, row{60, 15s, true}, row{10, 15s, false}, row{4, 6s, false}}) {
        fixture p({.maximum_keep_alive = 10});
        peer c(p, v5);
        c.say_packet(mqtt::connect{.client_id = "a", .keep_alive = asked});
        mqtt::connack answer;
        auto const bytes = c.read().at(0).body;
        REQUIRE(decode(mqtt::fixed_header{}, bytes, v5, answer) == mqtt::errc::ok);
        CHECK(answer.props.parse().server_keep_alive == (told ? std::optional<std::uint16_t>(10) : std::nullopt));
        p.pass(cut_after - 1ms);
        CHECK(p.core.connected("a"));
        p.pass(1ms);
        CHECK_FALSE(p.core.connected("a"));
        peer old(p, v3);
        REQUIRE(old.connect({.client_id = "b", .keep_alive = asked}) == 0);
        p.pass(60s);
        CHECK(p.core.connected("b") == (asked == 0 || asked == 60));
    }
}

TEST_CASE("MQTT 3.1 is served on demand") {
    auto const connect = "10 0F 00 06 'MQIsdp' 03 02 00 00 00 01 'a'";
    for (bool const served : {false, true}) {
        fixture p({.accepts_v3_1 = served});
        peer c(p, v3);
        c.say(test::hex(connect));
        CHECK(c.closing == !served);
        CHECK(p.core.connected("a") == served);
        if (!served) continue;
        c.subscribe("t");
        c.read();
        p.publish("t", "x", q1);
        CHECK(c.messages() == strings{"x"});
    }
}

TEST_CASE("MQTT 3.1.1: the QoS of subscriptions is ignored on demand") {
    for (bool const ignored : {false, true}) {
        fixture p({.ignores_subscription_qos_v3_1_1 = ignored});
        p.publish("t", "retained", q1, true);
        peer c(p, v3), modern(p, v5);
        for (auto* const one : {&c, &modern}) {
            REQUIRE(one->connect({.client_id = one == &c ? "c" : "modern"}) == 0);
            one->subscribe("t", q0);
            auto const wanted = ignored && one == &c ? q1 : q0;
            CHECK(one->read().back().quality == wanted);
            p.publish("t", "x", q1);
            CHECK(one->read().back().quality == wanted);
        }
    }
}
