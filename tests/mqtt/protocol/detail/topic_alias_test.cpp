#include <runnel/mqtt/protocol/detail/topic_alias.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <support/allocation_count.hpp>
#include <support/packets.hpp>
#include <support/session_end.hpp>
#include <vector>

using namespace runnel::mqtt;
using test::session_end;

namespace {

constexpr auto v5 = protocol_version::v5;
constexpr auto q0 = qos::at_most_once;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;

properties taking(std::uint16_t aliases) {
    properties p;
    p.topic_alias_maximum = aliases;
    return p;
}

struct client : session_end {
    explicit client(std::uint16_t server_takes, session_limits limits = {}) : session_end(role::client, v5, limits) {
        auto const p = taking(server_takes);
        connect(false, &p);
    }
};

// The messages in `bytes`, each as "topic#alias=payload", without what it does not have.
std::string messages(std::string_view bytes) {
    std::string words;
    while (!bytes.empty()) {
        auto const f = next_frame(bytes);
        publish p;
        REQUIRE(f.status == parse_status::complete);
        REQUIRE(decode(f.header, f.body, v5, p) == errc::ok);
        words.append(words.empty() ? "" : ", ").append(p.dup ? "dup " : "").append(p.topic);
        if (auto const alias = p.props.get<property_id::topic_alias>()) words += '#' + std::to_string(*alias);
        words.append("=").append(p.payload);
        bytes.remove_prefix(f.total_size);
    }
    return words;
}
std::string sent_messages(session_end& end) { return messages(end.take_bytes()); }

errc receive_alias(session_end& end, std::string_view topic, std::uint16_t alias, qos quality = q0,
                   std::uint16_t id = 0) {
    properties p;
    p.topic_alias = alias;
    errc const e =
        end.receive_packet(publish{.topic = topic, .payload = "p", .qos = quality, .packet_id = id, .props = &p});
    if (e != errc::ok) end.input.clear();  // so that one mistake after another can be shown
    return e;
}

}  // namespace

TEST_CASE("a topic is sent once with an alias, and then the alias stands for it") {
    client c(10);
    for (qos const quality : {q0, q1, q2, q0}) c.publish("a/topic", quality);
    CHECK(sent_messages(c) == "a/topic#1=p, #1=p, #1=p, #1=p");
    c.publish("another", q1);
    c.publish("a/topic", q0);
    c.publish("another", q0);
    CHECK(sent_messages(c) == "another#2=p, #1=p, #2=p");
}

TEST_CASE("a peer reads messages with aliases as if they had none, with all else that is in them") {
    client c(10);
    session_end s(role::server, v5);
    s.accept(false, {}, {.topic_alias_maximum = 10});
    user_property const pairs[] = {{"name", "value"}};
    properties p;
    p.user_properties = pairs;
    p.content_type = "text";
    for (qos const quality : {q0, q1, q2})
        for (bool const retain : {false, true})
            for (bool const with_properties : {false, true})
                for (int i = 0; i < 2; ++i)
                    CHECK(c.state
                              .publish(c.out, {.topic = "a/topic",
                                               .payload = std::string(200, 'x'),
                                               .qos = quality,
                                               .retain = retain,
                                               .props = with_properties ? &p : nullptr})
                              .error == errc::ok);
    struct : session_handler {
        int count = 0;
        void on_message(publish const& m, delivery) {
            CHECK(m.topic == "a/topic");
            CHECK(m.payload == std::string(200, 'x'));
            CHECK(static_cast<int>(m.qos) == count / 8);
            CHECK(m.retain == (count / 4 % 2 == 1));
            bool const with_properties = count / 2 % 2 == 1;
            CHECK((m.props.get<property_id::content_type>() == "text") == with_properties);
            CHECK(m.props.get<property_id::user_property>().size() == (with_properties ? 1 : 0));
            ++count;
        }
    } handler;
    CHECK(s.receive(c.take_bytes(), handler) == errc::ok);
    CHECK(handler.count == 24);
}

TEST_CASE("what is sent again has its topic, and aliases begin anew with each connection [MQTT-3.3.2-7]") {
    client c(10);
    c.publish("a/topic", q0);
    c.publish("a/topic", q1);
    c.take_bytes();
    c.lose_connection();
    c.publish("a/topic", q2);
    auto const p = taking(10);
    c.connect(true, &p);
    CHECK(sent_messages(c) == "dup a/topic=p, a/topic#1=p");
    c.publish("a/topic", q0);
    CHECK(sent_messages(c) == "#1=p");
    c.lose_connection();
    c.connect(true);
    c.publish("a/topic", q0);
    CHECK(sent_messages(c) == "dup a/topic=p, dup a/topic=p, a/topic=p");
}

TEST_CASE("no more aliases are used than the peer and this end want") {
    for (auto const& [peer, own] : std::vector<std::pair<int, int>>{{2, 16}, {16, 2}}) {
        client c(static_cast<std::uint16_t>(peer), {.outgoing_topic_aliases = static_cast<std::uint16_t>(own)});
        for (auto const* topic : {"topic/1", "topic/2", "topic/3", "topic/1"}) c.publish(topic, q0);
        CHECK(sent_messages(c) == "topic/1#1=p, topic/2#2=p, topic/3=p, #1=p");
    }
    for (auto const& [peer, own] : std::vector<std::pair<int, int>>{{0, 16}, {16, 0}}) {
        client c(static_cast<std::uint16_t>(peer), {.outgoing_topic_aliases = static_cast<std::uint16_t>(own)});
        c.publish("topic/1", q0);
        c.publish("topic/1", q1);
        CHECK(sent_messages(c) == "topic/1=p, topic/1=p");
    }
}

TEST_CASE("when all aliases are taken, a topic that comes again gets the one that was used least lately") {
    client c(2);
    for (auto const* topic : {"topic/1", "topic/2", "topic/1", "topic/3", "topic/3", "topic/3", "topic/1", "topic/2"})
        c.publish(topic, q0);
    CHECK(sent_messages(c) == "topic/1#1=p, topic/2#2=p, #1=p, topic/3=p, topic/3#2=p, #2=p, #1=p, topic/2=p");
}

TEST_CASE("a topic so short or so long that an alias is not worth it gets none") {
    client c(10);
    std::string const longest(runnel::mqtt::detail::outgoing_aliases::max_topic, 'x');
    for (std::string const& topic : {std::string("abcd"), longest + 'x'}) {
        c.publish(topic, q0);
        c.publish(topic, q0);
        CHECK(sent_messages(c) == topic + "=p, " + topic + "=p");
    }
    for (std::string const& topic : {std::string("abcde"), longest}) {
        c.publish(topic, q0);
        c.publish(topic, q0);
        CHECK(sent_messages(c).ends_with("=p, #" + std::string(topic.size() == 5 ? "1" : "2") + "=p"));
    }
}

TEST_CASE("an alias makes no packet larger than the peer takes [MQTT-3.2.2-15]") {
    auto announced = taking(10);
    announced.maximum_packet_size = 40;
    for (qos const quality : {q0, q1}) {
        for (std::size_t size = 10; size <= 29; ++size) {
            session_end c(role::client, v5);
            c.connect(false, &announced);
            std::string const payload(size, 'x');
            auto const publish_it = [&] {
                return c.state.publish(c.out, {.topic = "topic", .payload = payload, .qos = quality}).error;
            };
            bool const fits = size + 10 + (quality == q1 ? 2 : 0) <= 40;
            CHECK(publish_it() == (fits ? errc::ok : errc::packet_too_large));
            CHECK(c.take_bytes().size() <= 40);
        }
    }
}

TEST_CASE("a message that is refused gives its topic no alias") {
    auto announced = taking(10);
    announced.retain_available = std::uint8_t{0};
    session_end c(role::client, v5);
    c.connect(false, &announced);
    CHECK(c.state.publish(c.out, {.topic = "a/topic", .retain = true}).error == errc::retain_not_available);
    c.publish("a/topic", q0);
    CHECK(sent_messages(c) == "a/topic#1=p");
    CHECK(c.state.publish(c.out, {.topic = "a/topic", .retain = true}).error == errc::retain_not_available);
    CHECK(c.publish("a/top+c", q0).error == errc::wildcard_in_topic_name);
}

TEST_CASE("the application may manage the aliases above those given by themselves") {
    client c(20, {.outgoing_topic_aliases = 16});
    properties p;
    p.topic_alias = std::uint16_t{17};
    CHECK(c.state.publish(c.out, {.topic = "a/topic", .payload = "p", .props = &p}).error == errc::ok);
    CHECK(c.state.publish(c.out, {.topic = "", .payload = "p", .props = &p}).error == errc::ok);
    CHECK(sent_messages(c) == "a/topic#17=p, #17=p");
    for (std::uint16_t const alias : {std::uint16_t{16}, std::uint16_t{21}}) {
        p.topic_alias = alias;
        CHECK(c.state.publish(c.out, {.topic = "a/topic", .props = &p}).error == errc::topic_alias_invalid);
    }
}

TEST_CASE("messages queued before the connection get aliases when they are sent") {
    session_end c(role::client, v5);
    c.publish("a/topic", q0);
    c.publish("a/topic", q1);
    auto const p = taking(3);
    c.connect(false, &p);
    CHECK(sent_messages(c) == "a/topic#1=p, #1=p");
}

TEST_CASE("a client takes the aliases that it has announced [MQTT-3.3.2-10], a server too [MQTT-3.3.2-12]") {
    for (role const own : {role::client, role::server}) {
        session_end e(own, v5);
        if (own == role::client)
            e.connect(false, nullptr, {.topic_alias_maximum = 3});
        else
            e.accept(false, {}, {.topic_alias_maximum = 3});
        CHECK(receive_alias(e, "a", 1) == errc::ok);
        CHECK(receive_alias(e, "b", 3, q1, 7) == errc::ok);
        CHECK(receive_alias(e, "", 1, q2, 8) == errc::ok);
        CHECK(receive_alias(e, "", 3) == errc::ok);
        CHECK(receive_alias(e, "c", 1) == errc::ok);  // from now on it stands for this one
        CHECK(receive_alias(e, "", 1) == errc::ok);
        CHECK(e.received() == "a=p, b=p, a=p, b=p, c=p, c=p");
        CHECK(receive_alias(e, "", 2) == errc::topic_alias_unknown);
        CHECK(reason_for(errc::topic_alias_unknown) == reason_code::protocol_error);
        CHECK(receive_alias(e, "a", 4) == errc::topic_alias_invalid);
        CHECK(reason_for(errc::topic_alias_invalid) == reason_code::topic_alias_invalid);
        CHECK(receive_alias(e, "a", 0) == errc::property_value_out_of_range);  // [MQTT-3.3.2-8]
    }
}

TEST_CASE("the aliases of one connection mean nothing on the next [MQTT-3.3.2-7]") {
    session_end c(role::client, v5);
    c.connect(false, nullptr, {.topic_alias_maximum = 3});
    CHECK(receive_alias(c, "a", 1) == errc::ok);
    c.lose_connection();
    c.connect(true, nullptr, {.topic_alias_maximum = 3});
    CHECK(receive_alias(c, "", 1) == errc::topic_alias_unknown);
}

TEST_CASE("both directions have aliases of their own") {
    session_end c(role::client, v5);
    auto const p = taking(3);
    c.connect(false, &p, {.topic_alias_maximum = 3});
    CHECK(receive_alias(c, "theirs", 1) == errc::ok);
    c.publish("our/topic", q0);
    CHECK(receive_alias(c, "", 1) == errc::ok);
    c.publish("our/topic", q0);
    CHECK(c.received() == "theirs=p, theirs=p");
    CHECK(sent_messages(c) == "our/topic#1=p, #1=p");
}

TEST_CASE("with aliases a session allocates nothing in steady state, also when they change") {
    client c(8);
    session_end s(role::server, v5);
    s.accept(false, {}, {.topic_alias_maximum = 8});
    std::vector<std::string> topics;
    for (int i = 0; i < 40; ++i) topics.push_back("some/topic/that/is/long/" + std::to_string(100 + i));
    session_handler nobody;
    std::size_t before = 0;
    for (int round = 0; round < 3000; ++round) {
        if (round == 1000) before = runnel::testing::allocation_count();
        for (int again = 0; again < 3; ++again) c.publish(topics[static_cast<std::size_t>(round % 40)], q0);
        auto input = c.out.view();
        CHECK(s.state.receive(input, s.out, nobody) == errc::ok);
        c.out.clear();
    }
    CHECK(runnel::testing::allocation_count() == before);
}

TEST_CASE("the table of aliases finds every topic it holds, and no other, whatever comes and goes") {
    runnel::mqtt::detail::outgoing_aliases aliases;
    aliases.restart(50);
    std::vector<std::string> of_alias(51);
    std::uint32_t random = 1;
    for (int i = 0; i < 20000; ++i) {
        random = random * 1664525 + 1013904223;
        std::string const topic = "topic/" + std::to_string((random >> 16) % 90);
        auto const found = aliases.find(topic);
        if (found.known()) {
            CHECK(of_alias[found.alias] == topic);
            CHECK(aliases.find_newest(topic) == found.alias);
            continue;
        }
        for (auto const& other : of_alias) CHECK(other != topic);
        auto const alias = aliases.assign(topic, found);
        CHECK(alias <= 50);
        if (alias != 0) of_alias[alias] = topic;
    }
    for (std::size_t alias = 1; alias <= 50; ++alias) CHECK(aliases.find(of_alias[alias]).alias == alias);
}

TEST_CASE("a topic for which there is no memory gets no alias, whichever allocation fails; the others keep theirs") {
    std::vector<std::string> const topics{"some/topic", "some/other",
                                          "a topic of more characters than fit into a string itself, and then some"};
    for (std::uint16_t const maximum : {std::uint16_t{2}, std::uint16_t{3}})
        for (std::size_t nth = 1; nth < 6; ++nth) {
            CAPTURE(nth);
            runnel::mqtt::detail::outgoing_aliases aliases;
            aliases.restart(maximum);
            std::map<std::uint16_t, std::string> given;
            auto const assign = [&](std::string const& topic, std::size_t fails = 0) {
                auto const found = aliases.find(topic);
                auto alias = found.alias;
                if (!found.known()) {
                    runnel::testing::failing_allocation const failing(fails);
                    alias = aliases.assign(topic, found);
                }
                if (alias != 0) given[alias] = topic;
            };
            for (auto const& topic : topics) assign(topic);
            try {
                assign(topics[2], nth);
            } catch (std::bad_alloc const&) {
            }
            for (int i = 0; i < 20; ++i) {
                for (auto const& topic : topics)
                    if (auto const alias = aliases.find(topic).alias; alias != 0) CHECK(given[alias] == topic);
                assign(i % 2 == 0 ? "new/topic/" + std::to_string(i % 3) : topics[static_cast<std::size_t>(i) % 3]);
            }
        }
}

TEST_CASE("topics that have the same hash have each its own alias") {
    std::map<std::uint32_t, std::string> by_hash;
    std::string one, other;
    for (int i = 0; one.empty(); ++i) {
        other = "a/topic/" + std::to_string(i);
        auto const [at, is_new] =
            by_hash.try_emplace(static_cast<std::uint32_t>(std::hash<std::string_view>{}(other)) | 1, other);
        if (!is_new) one = at->second;
    }
    client c(10);
    for (auto const& topic : {one, other, one, other}) c.publish(topic, q0);
    CHECK(sent_messages(c) == one + "#1=p, " + other + "#2=p, #1=p, #2=p");
}

TEST_CASE("aliases begin with 1") {
    detail::incoming_aliases aliases;
    aliases.restart(5);
    publish m{.topic = "t"};
    CHECK(aliases.resolve(m, 0) == errc::topic_alias_invalid);
    CHECK(aliases.resolve(m, 5) == errc::ok);
    CHECK(aliases.resolve(m, 6) == errc::topic_alias_invalid);
}
