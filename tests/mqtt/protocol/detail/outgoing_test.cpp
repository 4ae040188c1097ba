// What waits in a session to be sent: how long, in which order, and what becomes of it.

#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <optional>
#include <string>
#include <string_view>
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

// The next exchange has this number. Nothing is in flight.
void go_to(session_end& c, std::uint64_t number) {
    c.state.restore_counts(number, c.state.accepted(), true, c.version);
}

void receive_pubcomps(session_end& c, std::initializer_list<std::uint16_t> ids) {
    for (auto const id : ids) CHECK(c.receive_ack(pubcomp, id) == errc::ok);
}

// The rest of a QoS 2 message's exchange; `frees`: the identifier has to be freed before.
void end_exchange(session_end& c, std::uint16_t id, bool frees) {
    if (frees) REQUIRE(c.receive_ack(pubcomp, id) == errc::ok);
    REQUIRE(c.receive_ack(pubrec, id) == errc::ok);
    REQUIRE(c.receive_ack(pubcomp, id) == errc::ok);
    c.take_bytes();
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
    CHECK(c.state.publish(c.out, {.topic = "d", .payload = "p", .props = &p}).error == errc::topic_alias_cannot_wait);
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

// What has been sent, and what has not.

TEST_CASE("only what has never been sent can be withdrawn") {
    for (auto version : both_versions) {
        auto c = client(version, {.in_flight = 1});
        auto const a = c.publish("a", q1).number;
        auto const b = c.publish("b", q1).number;
        c.connect();
        CHECK_FALSE(c.state.withdraw(a));
        CHECK(c.state.withdraw(b));
        CHECK_FALSE(c.state.withdraw(b));
        c.lose_connection();
        CHECK_FALSE(c.state.withdraw(a));
    }
}

TEST_CASE("what has been sent cannot be withdrawn either when it is sent anew in a new session") {
    properties one_at_a_time;
    one_at_a_time.receive_maximum = std::uint16_t{1};
    auto c = client(v5);
    c.connect();
    auto const a = c.publish("a", q2).number;
    auto const b = c.publish("b", q2).number;
    c.lose_connection();
    auto const later = c.publish("c", q2).number;
    c.connect(false, &one_at_a_time);
    CHECK(c.sent() == "PUBLISH 1 qos2 a=p");
    CHECK_FALSE(c.state.withdraw(a));
    CHECK_FALSE(c.state.withdraw(b));
    CHECK(c.state.withdraw(later));
    c.receive_ack(pubrec, 1);
    c.receive_ack(pubcomp, 1);
    CHECK(c.sent() == "PUBREL 1, PUBLISH 2 qos2 b=p");
}

// Dropping.

TEST_CASE("a message can be dropped whatever has become of it, and the protocol goes on") {
    int owners[4];
    for (auto version : both_versions) {
        auto c = client(version, {.in_flight = 2});
        c.connect();
        auto const a = c.publish("a", q1, &owners[0]).number;
        auto const b = c.publish("b", q2, &owners[1]).number;
        auto const d = c.publish("d", q1, &owners[2]).number;
        c.publish("e", q1, &owners[3]);
        c.sent();
        auto const discard = [&](std::uint64_t number) {
            return c.state.discard(number, errc::message_discarded, session_end::listener(c));
        };
        for (auto const number : {a, b, d}) {
            CHECK(discard(number));
            CHECK_FALSE(discard(number));
            CHECK(c.refused.size() == number + 1);
            CHECK(c.refused.back() == session_end::refusal{&owners[number], errc::message_discarded});
        }
        CHECK_FALSE(discard(17));
        CHECK(c.receive_ack(puback, 1) == errc::ok);  // sent before
        CHECK(c.sent() == "PUBLISH 4 qos1 e=p");
        CHECK(c.receive_ack(pubrec, 2) == errc::ok);
        CHECK(c.receive_ack(pubcomp, 2) == errc::ok);
        CHECK(c.receive_ack(puback, 4) == errc::ok);
        CHECK(c.sent() == "PUBREL 2");
        CHECK(c.published.size() == 1);
        CHECK(c.state.queued_bytes() == 0);
    }
}

TEST_CASE("a message that was dropped while it was on its way is not sent again") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect();
        auto const a = c.publish("a", q1).number;
        auto const b = c.publish("b", q2).number;
        c.publish("c", q1);
        for (auto const number : {a, b}) CHECK(c.state.discard(number, errc::message_discarded, session_handler{}));
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBREL 2, PUBLISH 3 qos1 dup c=p");
    }
}

TEST_CASE("a message that is dropped between connections is not sent again") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect();
        auto const a = c.publish("a", q1).number;
        auto const b = c.publish("b", q2).number;
        c.publish("c", q1);
        c.lose_connection();
        auto const d = c.publish("d", q0).number;
        for (auto const number : {a, b, d}) CHECK(c.state.discard(number, errc::message_discarded, session_handler{}));
        c.connect(true);
        CHECK(c.sent() == "PUBREL 2, PUBLISH 3 qos1 dup c=p");
    }
}

TEST_CASE("what waits can be listed") {
    auto c = client(v5, {.in_flight = 1});
    c.publish("first", q2);
    c.publish("second", q1);
    c.publish("third", q0);
    auto const list = [&] {
        std::string text;
        c.state.for_each_queued([&](queued_view const& m) {
            text += std::to_string(m.number) + ' ' + std::string(m.topic) + ' ' + std::to_string(m.size) + " qos" +
                    std::to_string(static_cast<int>(m.qos)) + (m.sent ? " sent; " : "; ");
        });
        return text;
    };
    CHECK(list() == "0 first 13 qos2; 1 second 14 qos1; 2 third 11 qos0; ");
    c.connect();
    CHECK(list() == "0 first 13 qos2 sent; 1 second 14 qos1; ");
    c.lose_connection();
    CHECK(list() == "0 first 13 qos2 sent; 1 second 14 qos1; ");
    c.connect(true);
    CHECK(c.receive_ack(pubrec, 1) == errc::ok);
    CHECK(list() == "1 second 14 qos1; ");
}

// Laggards.

TEST_CASE("a message that is never acknowledged holds up nobody, is told of, and is sent again first") {
    for (auto version : both_versions) {
        auto c = client(version, {.queued_messages = 3});
        c.connect();
        c.publish("old", q1);
        c.publish("older", q2);
        c.sent();
        c.receive_ack(pubrec, 2);
        for (std::uint64_t i = 0; i < 70'000; ++i) {
            // Identifiers that are passed over count too.
            bool const told = c.state.overtaken() >= i && c.state.overtaken() <= i + 20 && c.state.has_room();
            REQUIRE(told);
            REQUIRE(c.publish("a", q1).error == errc::ok);
            auto const words = c.sent();
            auto const at = words.rfind("PUBLISH ") + 8;
            REQUIRE(c.receive_ack(puback, static_cast<std::uint16_t>(std::stoi(words.substr(at)))) == errc::ok);
        }
        CHECK(c.state.unacknowledged() == 2);
        c.publish("last", q1);
        c.lose_connection();
        CHECK(c.state.overtaken() == 0);
        c.connect(true);
        auto const words = c.sent();
        CHECK(words.starts_with("PUBLISH 1 qos1 dup old=p, PUBREL 2, PUBLISH "));
        CHECK(words.ends_with(" qos1 dup last=p"));
        CHECK(c.receive_ack(pubcomp, 2) == errc::ok);
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        CHECK(c.state.unacknowledged() == 1);
        CHECK(c.state.overtaken() == 0);
    }
}

TEST_CASE("QoS 0 messages that are dropped for newer ones leave no places behind a message that waits") {
    auto c = client(v3, {.queued_messages = 10});
    c.publish("waits", q1);
    for (int i = 0; i < 70'000; ++i) {
        if (c.publish("a", q0).error == errc::ok) continue;
        REQUIRE(c.state.drop_oldest_at_most_once());
        REQUIRE(c.publish("a", q0).error == errc::ok);
    }
    c.connect();
    CHECK(c.sent().starts_with("PUBLISH 1 qos1 waits=p, PUBLISH qos0 a=p, "));
    CHECK(c.state.unacknowledged() == 1);
}

// A session of an older process.

TEST_CASE("identifiers that an older process may have left taken at the server are freed before QoS 2 uses them") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q2);
        c.publish("b", q1);
        c.publish("c", q2);
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1, PUBLISH 2 qos1 b=p, PUBREL 3");
        CHECK(c.state.unacknowledged() == 3);
        auto const unknown = version == v5 ? reason_code::packet_identifier_not_found : reason_code::success;
        CHECK(c.receive_ack(pubcomp, 1, unknown) == errc::ok);
        CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
        CHECK(c.sent() == "PUBLISH 1 qos2 a=p, PUBLISH 3 qos2 c=p");
        CHECK(c.published.empty());
        c.publish("d", q2);
        CHECK(c.sent() == "PUBREL 4");
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBLISH 1 qos2 dup a=p, PUBLISH 2 qos1 dup b=p, PUBLISH 3 qos2 dup c=p, PUBREL 4");
        CHECK(c.receive_ack(pubrec, 4) == errc::ok);  // for the older process's message: PUBREL has gone
        CHECK(c.sent().empty());
        c.lose_connection();
        c.connect(false);
        c.publish("e", q2);
        CHECK(c.sent() ==
              "PUBLISH 1 qos2 a=p, PUBLISH 2 qos1 b=p, PUBLISH 3 qos2 c=p, PUBLISH 4 qos2 d=p, PUBLISH 5 qos2 e=p");
    }
}

TEST_CASE("each identifier is freed once, for the first QoS 2 message that has it, then the session is as any other") {
    auto c = client(v3);
    c.connect(true);
    c.publish("a", q1);
    CHECK(c.receive_ack(puback, 1) == errc::ok);
    c.sent();
    for (std::uint16_t id = 2; id != 0; ++id) {
        REQUIRE(c.publish("a", q2).error == errc::ok);
        auto const number = std::to_string(id);
        REQUIRE(c.sent() == "PUBREL " + number);
        end_exchange(c, id, true);
    }
    // What follows one that waits for its identifier does so, too, until all are known.
    CHECK(c.state.has_unknown_identifiers());
    for (auto const* topic : {"a", "b"}) c.publish(topic, q2);
    CHECK(c.sent() == "PUBREL 1, PUBREL 2");
    CHECK(c.receive_ack(pubcomp, 1) == errc::ok);
    CHECK_FALSE(c.state.has_unknown_identifiers());
    for (auto const* topic : {"c", "d"}) c.publish(topic, q2);
    CHECK(c.sent() == "PUBLISH 1 qos2 a=p");
    CHECK(c.receive_ack(pubcomp, 2) == errc::ok);
    CHECK(c.sent() == "PUBLISH 2 qos2 b=p, PUBLISH 3 qos2 c=p, PUBLISH 4 qos2 d=p");
    c.publish("e", q2);
    CHECK(c.sent() == "PUBLISH 5 qos2 e=p");
    for (std::uint16_t id = 1; id <= 5; ++id) end_exchange(c, id, false);
    CHECK(c.published.empty());  // nobody waits
    CHECK(c.state.unacknowledged() == 0);
}

TEST_CASE("an identifier that something else than QoS 2 has had is freed all the same, 65,535 exchanges later") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect(true);
        c.publish("a", q1);
        CHECK(c.receive_ack(puback, 1) == errc::ok);
        subscription_request const request{.filter = "a"};
        c.state.subscribe(c.out, {0, request, {}}, nullptr);
        auto const granted = reason_code::granted_qos_0;
        CHECK(c.receive_packet(suback{2, granted, {}}) == errc::ok);
        std::string_view const filter = "a";
        c.state.unsubscribe(c.out, {0, filter, {}}, nullptr);
        auto const gone = reason_code::success;
        CHECK(c.receive_packet(unsuback{3, gone, {}}) == errc::ok);
        CHECK(c.state.withdraw(c.publish("b", q2).number));  // on its way
        CHECK(c.receive_ack(pubcomp, 4) == errc::ok);
        c.lose_connection();
        CHECK(c.state.withdraw(c.publish("c", q2).number));
        c.publish("d", q0);
        c.connect(true);
        CHECK(c.sent() == "PUBLISH qos0 d=p");
        c.publish("e", q2);
        end_exchange(c, 7, true);
        go_to(c, 65535);
        for (std::uint16_t id = 1; id <= 7; ++id) {
            c.publish("f", q2);
            auto const first = c.sent();
            CHECK(first == (id < 7 ? "PUBREL " + std::to_string(id) : "PUBLISH 7 qos2 f=p"));
            end_exchange(c, id, id < 7);
        }
        // In a new session of the server all are free.
        c.publish("g", q2);
        CHECK(c.sent() == "PUBREL 8");
        c.lose_connection();
        c.connect(false);
        c.publish("h", q2);
        CHECK(c.sent() == "PUBLISH 8 qos2 g=p, PUBLISH 9 qos2 h=p");
    }
}

TEST_CASE("a message that waits for its identifier can be withdrawn and dropped") {
    auto c = client(v3);
    c.connect(true);
    auto const a = c.publish("a", q2).number;
    auto const b = c.publish("b", q2).number;
    CHECK(c.state.withdraw(a));
    CHECK(c.state.discard(b, errc::message_discarded, session_handler{}));
    CHECK(c.state.unacknowledged() == 0);
    CHECK(c.receive_ack(pubcomp, 1) == errc::ok);
    CHECK(c.receive_ack(pubcomp, 2) == errc::ok);
    CHECK(c.sent() == "PUBREL 1, PUBREL 2");
}

TEST_CASE("a message that ends while its identifier is being freed holds up nobody") {
    using namespace std::chrono_literals;
    auto const ends_by = [](protocol_version version, auto end) {
        CAPTURE(version);
        auto c = client(version, {.in_flight = 1});
        properties p;
        p.message_expiry_interval = 1u;
        auto const a =
            c.state.publish(c.out, {.topic = "a", .payload = "p", .qos = q2, .props = version == v5 ? &p : nullptr});
        c.publish("b", q1);
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1");
        end(c, a.number);
        CHECK(c.state.unacknowledged() == 0);
        CHECK(c.sent() == "");
        CHECK(c.receive_ack(pubcomp, 1) == errc::ok);
        CHECK(c.sent() == "PUBLISH 2 qos1 b=p");
        CHECK(c.receive_ack(puback, 2) == errc::ok);
        CHECK(c.state.unacknowledged() == 0);

        // Nor has the answer to be waited for.
        auto const d = c.publish("d", q2);
        c.publish("e", q1);
        CHECK(c.sent() == "PUBREL 3");
        CHECK(c.state.withdraw(d.number));
        c.state.send_more(c.out);
        CHECK(c.sent() == "PUBLISH 4 qos1 e=p");
        CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
        CHECK(c.sent() == "");
    };
    for (auto version : both_versions) {
        ends_by(version, [](session_end& c, std::uint64_t a) { CHECK(c.state.withdraw(a)); });
        ends_by(version, [](session_end& c, std::uint64_t a) {
            CHECK(c.state.discard(a, errc::message_discarded, session_end::listener(c)));
        });
    }
    ends_by(v5, [](session_end& c, std::uint64_t) {
        c.state.set_time(1001ms);
        c.state.expire(session_end::listener(c));
        CHECK(c.refused.size() == 1);
    });
}

TEST_CASE("where some identifiers are known and some are not, no QoS 2 message overtakes another, or holds it up") {
    auto const until = [](protocol_version version, auto go_on) {
        auto c = client(version);
        c.connect(true);
        for (std::uint16_t id = 1; id <= 2; ++id) {
            c.publish("t", q2);
            end_exchange(c, id, true);
        }
        c.sent();
        go_to(c, 65533);
        c.publish("a", q2);
        auto const b = c.publish("b", q2);
        c.publish("c", q2);
        c.publish("d", q0);
        c.publish("e", q2);
        c.publish("f", q2);
        CHECK(c.sent() == "PUBREL 65534, PUBREL 65535, PUBREL 1, PUBLISH qos0 d=p, PUBREL 2, PUBREL 3");
        CHECK(c.receive_ack(pubcomp, 65534) == errc::ok);
        CHECK(c.sent() == "PUBLISH 65534 qos2 a=p");
        go_on(c, b.number);
    };
    for (auto version : both_versions) {
        until(version, [](session_end& c, std::uint64_t) {
            receive_pubcomps(c, {65535, 1, 2, 3});
            CHECK(c.sent() == "PUBLISH 65535 qos2 b=p, PUBLISH 1 qos2 c=p, PUBLISH 2 qos2 e=p, PUBLISH 3 qos2 f=p");
            // With none in front of it that waits, one with a known identifier is sent at once.
            for (int const id : {65534, 65535, 1, 2, 3}) end_exchange(c, static_cast<std::uint16_t>(id), false);
            go_to(c, 2 * 65535 - 1);
            for (auto const* topic : {"g", "h"}) c.publish(topic, q2);
            CHECK(c.sent() == "PUBLISH 65535 qos2 g=p, PUBLISH 1 qos2 h=p");
        });
        until(version, [](session_end& c, std::uint64_t b) {
            CHECK(c.state.withdraw(b));
            receive_pubcomps(c, {1, 2, 3});
            CHECK(c.sent() == "PUBLISH 1 qos2 c=p, PUBLISH 2 qos2 e=p, PUBLISH 3 qos2 f=p");
            for (int const id : {65534, 1, 2, 3}) end_exchange(c, static_cast<std::uint16_t>(id), false);
            go_to(c, 2 * 65535);
            c.publish("g", q2);
            CHECK(c.sent() == "PUBLISH 1 qos2 g=p");  // what was withdrawn is not waited for
        });
        until(version, [](session_end& c, std::uint64_t b) {
            CHECK(c.state.withdraw(b));
            c.lose_connection();
            c.connect(true);
            CHECK(c.sent() == "PUBLISH 65534 qos2 dup a=p, PUBLISH 1 qos2 c=p, PUBLISH 2 qos2 e=p, PUBREL 3");
            CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
            CHECK(c.sent() == "PUBLISH 3 qos2 f=p");
        });
        until(version, [](session_end& c, std::uint64_t) {
            // What the server lets overtake is sent again behind what it has overtaken.
            CHECK(c.receive_ack(pubcomp, 1) == errc::ok);
            c.lose_connection();
            c.connect(true);
            CHECK(c.sent() == "PUBLISH 65534 qos2 dup a=p, PUBREL 65535");
            CHECK(c.receive_ack(pubcomp, 65535) == errc::ok);
            CHECK(c.sent() == "PUBLISH 65535 qos2 b=p, PUBLISH 1 qos2 dup c=p, PUBLISH 2 qos2 e=p, PUBREL 3");
        });
    }
}

TEST_CASE("without the memory to know identifiers by, a connection to an unknown session does not begin") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q2);
        c.begin_connect();
        auto const answer = test::encoded(connack{true, reason_code::success, {}}, version);
        bool thrown = false;
        try {
            runnel::testing::failing_allocation const failing(1);
            c.receive(answer);
        } catch (std::bad_alloc const&) {
            thrown = true;
        }
        CHECK(thrown);
        CHECK_FALSE(c.state.connected());
        c.lose_connection();
        c.connect(true);
        CHECK(c.sent() == "PUBREL 1");
    }
}

TEST_CASE("a session that is not to be accepted is replaced by a new one on the next connection") {
    // The text behind [MQTT-3.2.2-4].
    for (auto version : both_versions) {
        auto c = client(version, {.accept_unknown_session = false});
        c.publish("a", q1);
        auto const answer = [&](bool present) { return c.receive_packet(connack{present, reason_code::success, {}}); };
        c.begin_connect();
        CHECK_FALSE(c.state.must_begin_anew());
        CHECK(answer(true) == errc::session_present_unexpected);
        CHECK_FALSE(c.state.connected());
        CHECK(c.state.must_begin_anew());
        c.lose_connection();
        c.begin_connect({}, true);
        if (version == v3) {  // a clean session would end with this connection
            CHECK(answer(false) == errc::session_discarded);
            CHECK(c.sent() == "DISCONNECT");
            CHECK_FALSE(c.state.must_begin_anew());
            c.lose_connection();
            c.begin_connect();
        }
        CHECK(answer(false) == errc::ok);
        CHECK_FALSE(c.state.must_begin_anew());
        CHECK(c.sent() == "PUBLISH 1 qos1 a=p");
        c.lose_connection();
        c.begin_connect();
        CHECK(answer(true) == errc::ok);
        CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p");
    }
}

// A server that takes only the smallest packets.

TEST_CASE("a server that takes no acknowledgement is not worked with") {
    for (std::uint32_t maximum = 1; maximum <= 4; ++maximum) {
        properties announced;
        announced.maximum_packet_size = maximum;
        auto c = client(v5);
        c.begin_connect();
        auto const e = c.receive_packet(connack{false, reason_code::success, &announced});
        CHECK(e == (maximum < 4 ? errc::maximum_packet_size_too_small : errc::ok));
        c.state.disconnect(c.out, {reason_for(e), {}});
        CHECK(c.out.size() <= maximum);
    }
}

TEST_CASE("acknowledgements of four bytes have no reason [MQTT-3.2.2-15]") {
    properties announced;
    announced.maximum_packet_size = 4;
    auto c = client(v5);
    c.connect(false, &announced);
    c.receive_publish("a", q1, 1);
    c.receive_publish("b", q2, 2);
    c.state.acknowledge(c.out, c.messages[0].token, reason_code::not_authorized);
    c.state.acknowledge(c.out, c.messages[1].token, reason_code::not_authorized);
    CHECK(c.sent() == "PUBACK 1, PUBREC 2");
    c.receive_ack(packet_type::pubrel, 2);
    c.receive_ack(packet_type::pubrel, 77);
    c.receive_ack(pubrec, 78);
    CHECK(c.sent() == "PUBCOMP 2, PUBCOMP 77, PUBREL 78");
}

TEST_CASE("whether the server is to choose a client identifier is known until the next CONNECT (3.2.2.3.7)") {
    auto c = client(v5);
    CHECK_FALSE(c.state.wants_identifier());
    c.begin_connect();
    CHECK_FALSE(c.state.wants_identifier());
    connect packet;
    CHECK(c.state.connect(c.out, packet, {}) == errc::ok);
    CHECK(c.state.wants_identifier());
}

// Finding out which message the server does not take.

TEST_CASE("a narrower window holds back what is sent again, and widens again") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect();
        c.publish("a", q2);
        c.publish("b", q1);
        c.publish("c", q1);
        c.receive_ack(pubrec, 1);
        c.lose_connection();
        c.state.narrow(c.out, 0);
        c.connect(true);
        CHECK(c.sent() == "");
        CHECK_FALSE(c.state.unanswered().any);
        c.publish("d", q1);
        c.publish("e", q0);
        CHECK(c.sent() == "PUBLISH qos0 e=p");
        c.state.narrow(c.out, 1);
        CHECK(c.sent() == "PUBREL 1");
        CHECK(c.state.unanswered().any);
        CHECK(c.state.unanswered().first == 0);
        CHECK_FALSE(c.state.unanswered().has_progress);
        c.receive_ack(pubcomp, 1);
        CHECK(c.sent() == "PUBLISH 2 qos1 dup b=p");
        CHECK(c.state.unanswered().first == 1);
        CHECK(c.state.unanswered().has_progress);
        c.state.narrow(c.out, 65535);
        CHECK(c.sent() == "PUBLISH 3 qos1 dup c=p, PUBLISH 4 qos1 d=p");
    }
}

TEST_CASE("PUBREL is sent again behind messages that the receive maximum holds up") {
    properties one_at_a_time;
    one_at_a_time.receive_maximum = std::uint16_t{1};
    auto c = client(v5);
    for (auto const* topic : {"a", "b"}) c.publish(topic, q1);
    for (auto const* topic : {"c", "d", "e"}) c.publish(topic, q2);
    c.connect();
    for (int const id : {3, 5}) c.receive_ack(pubrec, static_cast<std::uint16_t>(id));
    c.lose_connection();
    c.connect(true, &one_at_a_time);
    CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p, PUBREL 3, PUBREL 5");
    CHECK(c.receive_ack(pubcomp, 5) == errc::ok);
    CHECK(c.receive_ack(puback, 1) == errc::ok);
    CHECK(c.sent() == "");
    CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
    CHECK(c.sent() == "PUBLISH 2 qos1 dup b=p");
    CHECK(c.state.unacknowledged() == 1);
    c.lose_connection();
    // One that is given up needs PUBREL too.
    c.connect(true, &one_at_a_time);
    CHECK(c.sent() == "PUBLISH 2 qos1 dup b=p");
    CHECK(c.state.discard(3, errc::message_discarded, session_handler{}));
    c.state.send_more(c.out);
    CHECK(c.sent() == "PUBREL 4");
}

TEST_CASE("PUBREL behind messages that are held up is sent in portions, and within the narrowed window") {
    auto c = client(v3, {.unwritten = 10});
    for (auto const* topic : {"a", "b", "c", "d", "e"}) c.publish(topic, q2);
    c.state.narrow(c.out, 5);
    c.connect();
    for (int i = 0; i < 5; ++i) {
        c.take_bytes();
        c.state.send_more(c.out);
    }
    for (std::uint16_t id = 2; id <= 5; ++id) c.receive_ack(pubrec, id);
    c.lose_connection();
    c.state.narrow(c.out, 0);
    c.connect(true);
    CHECK(c.sent() == "");
    c.state.narrow(c.out, 1);
    CHECK(c.sent() == "PUBLISH 1 qos2 dup a=p");
    c.state.narrow(c.out, 65535);
    CHECK(c.sent() == "PUBREL 2, PUBREL 3, PUBREL 4");
    c.state.send_more(c.out);
    CHECK(c.sent() == "PUBREL 5");
}

TEST_CASE("PUBREL behind a message that the receive maximum holds up goes in portions, too, and for what is given up") {
    properties one_at_a_time;
    one_at_a_time.receive_maximum = std::uint16_t{1};
    auto c = client(v5, {.unwritten = 10});
    for (auto const* topic : {"a", "b"}) c.publish(topic, q1);
    for (auto const* topic : {"c", "d", "e", "f", "g"}) c.publish(topic, q2);
    c.connect();
    for (int i = 0; i < 7; ++i) {
        c.take_bytes();
        c.state.send_more(c.out);
    }
    for (std::uint16_t id = 3; id <= 6; ++id) c.receive_ack(pubrec, id);
    c.lose_connection();
    c.take_bytes();
    c.connect(true, &one_at_a_time);
    CHECK(c.sent() == "PUBLISH 1 qos1 dup a=p, PUBREL 3");
    c.state.send_more(c.out);
    CHECK(c.sent() == "PUBREL 4, PUBREL 5, PUBREL 6");
    c.state.send_more(c.out);
    CHECK(c.sent() == "");
    CHECK(c.state.discard(6, errc::message_discarded, session_handler{}));
    c.state.send_more(c.out);
    CHECK(c.sent() == "PUBREL 7");
    c.state.send_more(c.out);
    CHECK(c.sent() == "");
}

TEST_CASE("PUBREL is sent again behind a message that has to wait at a pace") {
    session_end c(role::client, v3, {}, {.acknowledged = 2});
    auto const send_at = [&](std::chrono::seconds when) {
        c.state.send_due(c.out, pacing::time_point(when), session_handler{});
        return c.sent();
    };
    using namespace std::chrono_literals;
    c.publish("a", q1);
    c.publish("b", q2);
    c.connect();
    CHECK(send_at(10s) == "PUBLISH 1 qos1 a=p, PUBLISH 2 qos2 b=p");
    c.receive_ack(pubrec, 2);
    CHECK(c.sent() == "PUBREL 2");
    c.lose_connection();
    c.connect(true);
    CHECK(send_at(10s) == "PUBREL 2");
    CHECK(send_at(12s) == "PUBLISH 1 qos1 dup a=p");
}

TEST_CASE("an exchange that no connection brings to its end is ended, and its owner told") {
    int owners[4];
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect();
        c.publish("a", q1, &owners[0]);
        c.publish("b", q2, &owners[1]);
        c.publish("c", q2, &owners[2]);
        c.publish("d", q1, &owners[3]);
        c.receive_ack(pubrec, 2);
        c.lose_connection();
        for (std::uint64_t number = 0; number < 3; ++number) {
            c.state.reject(number, errc::message_rejected, session_end::listener(c));
            CHECK(c.refused.back() == session_end::refusal{&owners[number], errc::message_rejected});
        }
        c.connect(true);
        CHECK(c.sent() == "PUBREL 3, PUBLISH 4 qos1 dup d=p");  // perhaps the server has c
    }
}

TEST_CASE("PUBREC is progress, and so is the answer to a PUBREL that frees an identifier") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect();
        c.publish("a", q2);
        CHECK_FALSE(c.state.unanswered().has_progress);
        CHECK(c.receive_ack(pubrec, 1) == errc::ok);
        CHECK(c.state.unanswered().has_progress);

        auto d = client(version);
        d.connect(true);  // of an older process
        d.publish("a", q2);
        CHECK(d.sent() == "PUBREL 1");
        CHECK(d.state.unanswered().any);
        CHECK(d.state.unanswered().first == 0);
        CHECK_FALSE(d.state.unanswered().has_progress);
        CHECK(d.receive_ack(pubcomp, 1) == errc::ok);
        CHECK(d.sent() == "PUBLISH 1 qos2 a=p");
        CHECK(d.state.unanswered().has_progress);
    }
}

// What a store is told.

namespace {

std::string told(session_end& end) {
    struct {
        std::string words;
        void say(char const* what, std::uint64_t number) {
            words.append(words.empty() ? "" : ", ").append(what).append(std::to_string(number));
        }
        void message(std::uint64_t number, std::string_view, std::optional<std::chrono::milliseconds>) {
            say("message ", number);
        }
        void unsent(std::uint64_t number, std::string_view, std::optional<std::chrono::milliseconds>) {
            say("unsent ", number);
        }
        void released(std::uint64_t number) { say("released ", number); }
        void ended(std::uint64_t number) { say("ended ", number); }
        void taken(std::uint16_t id, reason_code) { say("taken ", id); }
        void forgotten(std::uint16_t id) { say("forgotten ", id); }
    } sink;
    end.state.tell_changes(sink);
    end.state.changes_stored();
    return sink.words;
}

}  // namespace

TEST_CASE("a store holds a QoS 2 message that was dropped on its way as released, and a QoS 1 message no more") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect();
        auto const a = c.publish("a", q1).number;
        auto const b = c.publish("b", q2).number;
        CHECK(told(c) == "message 0, message 1");
        CHECK_FALSE(c.state.has_changes());
        CHECK(c.state.discard(a, errc::message_discarded, session_handler{}));
        CHECK(c.state.has_changes());
        CHECK(told(c) == "ended 0");
        CHECK(c.state.discard(b, errc::message_discarded, session_handler{}));
        CHECK(c.state.has_changes());
        CHECK(told(c) == "released 1");
    }
}

TEST_CASE("a store holds a QoS 2 message that was given up between connections as released") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.connect();
        auto const a = c.publish("a", q2).number;
        told(c);
        c.lose_connection();
        c.state.reject(a, errc::message_rejected, session_handler{});
        CHECK(c.state.has_changes());
        CHECK(told(c) == "released 0");
    }
}

TEST_CASE("a store knows which messages have not been sent and wait for their identifiers") {
    for (auto version : both_versions) {
        auto c = client(version);
        c.publish("a", q2);
        c.publish("b", q1);
        CHECK(told(c) == "message 0, message 1");
        c.connect(true);  // of an older process
        CHECK(told(c) == "unsent 0");
        c.publish("c", q2);
        c.publish("d", q1);
        CHECK(told(c) == "unsent 2, message 3");
        CHECK(c.receive_ack(pubcomp, 1) == errc::ok);
        CHECK(c.state.has_changes());
        CHECK(told(c) == "message 0");
        c.lose_connection();
        CHECK_FALSE(c.state.has_changes());
        c.connect(true);
        CHECK(told(c) == "");
        CHECK(c.receive_ack(pubcomp, 3) == errc::ok);
        CHECK(told(c) == "message 2");
        c.publish("e", q2);
        CHECK(told(c) == "unsent 4");
        c.lose_connection();
        c.connect(false);
        CHECK(c.state.has_changes());
        CHECK(told(c) == "message 4");
    }
}

TEST_CASE("a message that comes back from a store as not sent can be withdrawn, and others cannot") {
    for (bool const unsent : {true, false}) {
        auto c = client(v3);
        c.state.restore(7, test::encoded(publish{.topic = "a", .qos = q2, .packet_id = 8}, v3), {}, unsent);
        c.state.restore_counts(8, 1, true, v3);
        CHECK(c.state.withdraw(7) == unsent);
    }
}

TEST_CASE("a store holds nothing of QoS 0, and is told of the first connection") {
    auto c = client(v5);
    c.publish("a", q0);
    CHECK_FALSE(c.state.has_changes());
    CHECK(told(c) == "");
    c.connect();
    CHECK(c.state.has_changes());
    CHECK(told(c) == "");
    CHECK_FALSE(c.state.has_changes());
}
