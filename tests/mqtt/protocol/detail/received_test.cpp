#include <runnel/mqtt/protocol/detail/received.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using runnel::mqtt::delivery;
using runnel::mqtt::qos;
using runnel::mqtt::reason_code;
using runnel::mqtt::detail::received;
using enum received::knowledge;

namespace {

/// The identifiers of what can be acknowledged now.
std::string acknowledged(received& table) {
    std::string all;
    while (auto const* e = table.next_taken()) {
        all += (all.empty() ? "" : " ") + std::to_string(e->packet_id);
        if (is_error(e->reason)) all += '!';
        table.pop();
    }
    return all;
}

runnel::mqtt::publish packet(std::uint16_t id, qos quality, std::string_view topic = "a", bool dup = false,
                             std::string_view payload = "payload") {
    return {.topic = topic, .payload = payload, .qos = quality, .dup = dup, .packet_id = id};
}

received::arrival arrival_of(received& table, runnel::mqtt::publish const& p) {
    auto const a = table.arrive(p);
    if (a.lane_unknown) table.place_restored(a.token, static_cast<std::uint16_t>(p.topic.size()));
    if (a.is_new) {
        table.assign(a.token, static_cast<std::uint16_t>(p.topic.size()));  // a lane for each length
        table.keep(a.token, p);
    }
    return a;
}

delivery arrive(received& table, std::uint16_t id, qos quality, std::string_view topic = "a") {
    auto const a = arrival_of(table, packet(id, quality, topic));
    CHECK(a.is_new);
    return a.token;
}

/// Whether the message, sent again, is one to hand to the application.
bool is_new_again(received& table, std::uint16_t id, qos quality, std::string_view topic = "a") {
    return arrival_of(table, packet(id, quality, topic, true)).is_new;
}

constexpr auto ok = reason_code::success;

}  // namespace

TEST_CASE("messages are acknowledged in the order in which they came [MQTT-4.6.0-2] [MQTT-4.6.0-3]") {
    received table;
    auto const a = arrive(table, 5, qos::at_least_once);
    auto const b = arrive(table, 3, qos::exactly_once);
    auto const c = arrive(table, 9, qos::at_least_once);
    auto const d = arrive(table, 4, qos::exactly_once);
    table.take(c, ok);
    table.take(d, ok);
    CHECK(acknowledged(table) == "");
    table.take(a, ok);
    CHECK(acknowledged(table) == "5 9");  // PUBACK and PUBREC have each an order of their own
    table.take(b, ok);
    CHECK(acknowledged(table) == "3 4");
    CHECK(table.waiting() == 0);
}

TEST_CASE("a message that is not taken holds up only those of its lane and QoS [MQTT-4.6.0-5]") {
    received table;
    auto const a = arrive(table, 1, qos::at_least_once, "slow one");
    for (std::uint16_t id = 100; id < 200; ++id) {
        table.take(arrive(table, id, qos::at_least_once, "quick"), ok);
        table.take(arrive(table, static_cast<std::uint16_t>(id + 100), qos::exactly_once, "slow one"), ok);
        CHECK(acknowledged(table) == std::to_string(id) + " " + std::to_string(id + 100));
        table.forget(static_cast<std::uint16_t>(id + 100));
        CHECK(table.waiting() == 1);
    }
    auto const b = arrive(table, 2, qos::at_least_once, "slow one");
    auto const c = arrive(table, 3, qos::at_least_once, "slow one");
    table.take(c, ok);
    CHECK(acknowledged(table) == "");
    table.take(a, ok);
    CHECK(acknowledged(table) == "1");
    CHECK(table.unacknowledged() == 2);
    table.take(b, ok);
    CHECK(acknowledged(table) == "2 3");
    CHECK(table.unacknowledged() == 0);
}

TEST_CASE("acknowledgements of a lane keep their order, whichever way they are taken") {
    // All orders of taking six messages of two topics and both QoS.
    std::vector<int> order{0, 1, 2, 3, 4, 5};
    do {
        received table;
        std::vector<delivery> all;
        for (int i = 0; i < 6; ++i)
            all.push_back(arrive(table, static_cast<std::uint16_t>(i + 1),
                                 i == 4 ? qos::exactly_once : qos::at_least_once, i % 2 == 0 ? "even" : "odd"));
        std::string sent;
        for (int i : order) {
            table.take(all[static_cast<std::size_t>(i)], ok);
            sent += acknowledged(table);
        }
        std::erase(sent, ' ');
        REQUIRE(sent.size() == 6);
        auto const before = [&](char a, char b) { return sent.find(a) < sent.find(b); };
        REQUIRE((before('1', '3') && before('2', '4') && before('4', '6')));
        table.forget(5);
        REQUIRE(table.unacknowledged() == 0);
        REQUIRE(table.waiting() == 0);
    } while (std::ranges::next_permutation(order).found);
}

TEST_CASE("a QoS 1 message sent again while the application has it is that message") {
    received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    auto const b = arrive(table, 2, qos::at_least_once);
    for (int i = 0; i < 3; ++i) {
        table.connection_lost();
        CHECK_FALSE(is_new_again(table, 1, qos::at_least_once));
        CHECK_FALSE(is_new_again(table, 2, qos::at_least_once));
        CHECK(table.unacknowledged() == 2);
        CHECK(table.waiting() == 2);
    }
    table.take(b, ok);
    CHECK(acknowledged(table) == "");
    table.connection_lost();
    CHECK_FALSE(is_new_again(table, 1, qos::at_least_once));
    CHECK_FALSE(is_new_again(table, 2, qos::at_least_once));
    CHECK(acknowledged(table) == "");
    table.take(a, ok);
    CHECK(acknowledged(table) == "1 2");
    CHECK(table.unacknowledged() == 0);
}

TEST_CASE("it is that message on the same connection, too, and is acknowledged once") {
    received table;
    for (int round = 0; round < 3; ++round) {
        auto const a = arrive(table, 1, qos::at_least_once);
        auto const b = arrive(table, 2, qos::at_least_once);
        CHECK_FALSE(is_new_again(table, 2, qos::at_least_once));
        auto const c = arrive(table, 3, qos::at_least_once);
        CHECK_FALSE(is_new_again(table, 3, qos::at_least_once));
        CHECK_FALSE(is_new_again(table, 1, qos::at_least_once));
        CHECK(table.unacknowledged() == 3);
        table.take(b, ok);
        table.take(a, ok);
        CHECK(acknowledged(table) == "1 2");
        table.take(c, ok);
        CHECK(acknowledged(table) == "3");
        CHECK(table.unacknowledged() == 0);
    }
}

TEST_CASE("a QoS 1 message that was taken and not acknowledged is acknowledged when it is sent again") {
    received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    auto const b = arrive(table, 2, qos::at_least_once);
    table.take(b, ok);
    CHECK(acknowledged(table) == "");
    table.connection_lost();
    table.take(a, ok);
    CHECK_FALSE(is_new_again(table, 1, qos::at_least_once));
    CHECK_FALSE(is_new_again(table, 2, qos::at_least_once));
    CHECK(acknowledged(table) == "1 2");
    table.connection_lost();
    table.connection_lost();                            // it may be told more than once
    CHECK(is_new_again(table, 1, qos::at_least_once));  // the acknowledgement has not arrived
}

TEST_CASE("another message with the identifier of a QoS 1 message is another message") {
    received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    table.connection_lost();
    SUBCASE("as it is not marked as sent before") { CHECK(arrival_of(table, packet(1, qos::at_least_once)).is_new); }
    SUBCASE("as its topic is another") { CHECK(is_new_again(table, 1, qos::at_least_once, "b")); }
    SUBCASE("as its payload is another") {
        CHECK(arrival_of(table, packet(1, qos::at_least_once, "a", true, "Payload")).is_new);
    }
    SUBCASE("as its QoS is another") { CHECK(is_new_again(table, 1, qos::exactly_once)); }
    SUBCASE("as the session is another") {
        table.clear();
        CHECK(is_new_again(table, 1, qos::at_least_once));
    }
    table.take(a, ok);
    CHECK(acknowledged(table) == "");
    CHECK(table.unacknowledged() == 1);
}

TEST_CASE("a message given back is not acknowledged, and new when it is sent again, with the same number") {
    for (qos const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        auto const a = arrive(table, 1, quality);
        auto const b = arrive(table, 2, quality);
        auto const c = arrive(table, 3, quality, "other");
        table.give_back(a);
        table.take(b, ok);
        table.take(c, ok);
        CHECK(acknowledged(table) == "3");
        CHECK(table.waiting() == 2);
        table.connection_lost();
        table.connection_lost();
        auto const again = arrival_of(table, packet(1, quality, "a", true));
        CHECK(again.is_new);
        CHECK(again.token.number == a.number);
        CHECK_FALSE(is_new_again(table, 2, quality));
        CHECK(acknowledged(table) == "");
        table.take(again.token, ok);
        CHECK(acknowledged(table) == "1 2");
    }
}

TEST_CASE("what is known of QoS 1 messages does not grow from connection to connection") {
    received table;
    for (int i = 0; i < 1000; ++i) {
        table.give_back(arrive(table, static_cast<std::uint16_t>(i + 1), qos::at_least_once));
        table.connection_lost();
    }
    CHECK(is_new_again(table, 1, qos::at_least_once));
}

TEST_CASE("to take a message twice does no harm") {
    for (qos const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        auto const a = arrive(table, 1, quality);
        table.take(a, ok);
        table.take(a, reason_code::unspecified_error);
        CHECK(acknowledged(table) == "1");
        table.take(a, ok);
        CHECK(acknowledged(table) == "");
        table.forget(1);
        auto const again = arrive(table, 1, quality);  // the peer uses the identifier for another message
        table.take(a, ok);
        CHECK(acknowledged(table) == "");
        table.take(again, ok);
        CHECK(acknowledged(table) == "1");
    }
}

TEST_CASE("a QoS 2 message is new once, until PUBREL [MQTT-4.3.3-10] [MQTT-4.3.3-12]") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));
    CHECK(table.knows(1) == not_taken);
    table.take(a, ok);
    CHECK(table.knows(1) == taken);
    CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));
    CHECK(acknowledged(table) == "1");  // one PUBREC for all that came before it
    table.forget(1);
    CHECK(table.knows(1) == unknown);
    arrive(table, 1, qos::exactly_once);
}

TEST_CASE("a QoS 2 message taken after its connection is acknowledged when it is sent again") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    table.connection_lost();
    SUBCASE("before it is sent again") {
        table.take(a, ok);
        CHECK(acknowledged(table) == "");
        CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));
    }
    SUBCASE("after it is sent again") {
        CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));
        CHECK(acknowledged(table) == "");
        table.take(a, ok);
    }
    CHECK(acknowledged(table) == "1");
}

TEST_CASE("a QoS 2 message of a session that is gone does not acknowledge another with its identifier") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    table.connection_lost();
    table.clear();
    auto const b = arrive(table, 1, qos::exactly_once);
    table.take(a, ok);
    CHECK(acknowledged(table) == "");
    CHECK(table.knows(1) == not_taken);
    table.take(b, ok);
    CHECK(acknowledged(table) == "1");
}

TEST_CASE("a refused QoS 2 message ends with its PUBREC [MQTT-4.3.3-9]") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    auto const b = arrive(table, 2, qos::exactly_once);
    table.take(b, reason_code::quota_exceeded);
    CHECK(table.knows(2) == taken);  // PUBREC has not been sent
    table.take(a, ok);
    CHECK(acknowledged(table) == "1 2!");
    CHECK(table.knows(2) == unknown);
    arrive(table, 2, qos::exactly_once);
}

TEST_CASE("a QoS 2 message refused after its connection is not new when it is sent again, and refused then") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    table.connection_lost();
    table.take(a, reason_code::quota_exceeded);
    CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));
    CHECK(acknowledged(table) == "1!");
    arrive(table, 1, qos::exactly_once);
}

TEST_CASE("a QoS 2 message counts for the receive maximum until PUBCOMP (4.9), a QoS 1 message until PUBACK") {
    received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    auto const b = arrive(table, 2, qos::exactly_once);
    auto const c = arrive(table, 3, qos::exactly_once);
    CHECK(table.unacknowledged() == 3);
    table.take(a, ok);
    table.take(b, ok);
    table.take(c, reason_code::quota_exceeded);
    CHECK(acknowledged(table) == "1 2 3!");
    CHECK(table.unacknowledged() == 1);
    table.forget(2);
    CHECK(table.unacknowledged() == 0);
}

TEST_CASE("each connection counts anew for the receive maximum (4.9)") {
    received table;
    auto const a = arrive(table, 1, qos::exactly_once);
    arrive(table, 2, qos::exactly_once);
    table.take(a, ok);
    CHECK(acknowledged(table) == "1");
    table.connection_lost();
    CHECK(table.unacknowledged() == 0);
    table.forget(1);  // PUBREL of a message of the connection before
    CHECK(table.unacknowledged() == 0);
    CHECK_FALSE(is_new_again(table, 2, qos::exactly_once));
    CHECK(table.unacknowledged() == 1);
}

TEST_CASE("a message sent again and again on one connection counts once for the receive maximum") {
    received table;
    arrive(table, 1, qos::exactly_once);
    for (int i = 0; i < 9; ++i) CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));
    CHECK(table.unacknowledged() == 1);
    CHECK(table.waiting() == 1);
}

TEST_CASE("messages keep their lanes when their connection is lost, so that none holds up those of others then") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        arrive(table, 1, quality, "a");
        auto const other = arrive(table, 2, quality, "of another lane");
        table.connection_lost();
        CHECK_FALSE(is_new_again(table, 1, quality, "a"));
        CHECK_FALSE(is_new_again(table, 2, quality, "of another lane"));
        table.take(other, ok);
        CHECK(acknowledged(table) == "2");
    }
}

TEST_CASE("a message that is given back as its connection is lost is known when it is sent again") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        auto const p = packet(1, quality);
        auto const a = table.arrive(p);
        table.connection_lost();  // by the handler that fails
        table.give_back(a.token, &p);
        auto const again = arrival_of(table, packet(1, quality, "a", true));
        CHECK(again.is_new);
        CHECK(again.token.number == a.token.number);
    }
}

TEST_CASE("a message whose identifier is given to another one holds up nobody any more") {
    received table;
    arrive(table, 1, qos::at_least_once, "first");
    arrive(table, 2, qos::at_least_once, "a");
    auto const b = arrive(table, 3, qos::at_least_once, "b");
    auto const c = arrive(table, 4, qos::at_least_once, "other");
    table.take(c, ok);
    table.take(b, ok);
    CHECK(acknowledged(table) == "");
    arrive(table, 2, qos::at_least_once, "yet another");
    CHECK(acknowledged(table) == "3");
}

TEST_CASE("a message that changes its lane when a later one has been taken holds up what follows in the new lane") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        auto const kept = arrive(table, 1, quality, "kept");
        table.take(arrive(table, 2, quality, "other"), ok);
        CHECK(acknowledged(table) == "2");
        table.assign(kept, 100);  // a subscription has come for it
        auto const next = table.arrive(packet(3, quality)).token;
        table.assign(next, 100);
        table.take(next, ok);
        CHECK(acknowledged(table) == "");
        table.take(kept, ok);
        CHECK(acknowledged(table) == "1 3");
        CHECK(table.waiting() == 0);
    }
}

TEST_CASE("nothing but what was given back is held when all others have been taken") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        CHECK_FALSE(table.holds_only_given_back());
        auto const a = arrive(table, 1, quality);
        auto const b = arrive(table, 2, quality);
        auto const c = arrive(table, 3, quality, "other");
        table.give_back(a);
        CHECK_FALSE(table.holds_only_given_back());
        table.take(b, ok);
        CHECK_FALSE(table.holds_only_given_back());
        table.take(c, ok);
        CHECK(acknowledged(table) == "3");
        CHECK(table.holds_only_given_back());
        arrive(table, 4, quality);
        CHECK_FALSE(table.holds_only_given_back());
        table.connection_lost();
        CHECK_FALSE(table.holds_only_given_back());
    }
}

TEST_CASE("a message with the identifier of one that was about to be acknowledged is not acknowledged for it") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        received table;
        arrive(table, 1, quality, "first");
        auto const b = arrive(table, 2, quality, "b");
        table.take(b, ok);  // stands in `ready` from now on
        table.forget(2);    // PUBREL of QoS 2
        arrive(table, 2, quality, "another lane");
        auto const c = arrive(table, 3, quality, "third lane!");
        table.take(c, ok);  // so that the new message 2 is in its lane
        CHECK(acknowledged(table) == "3");
        CHECK(table.waiting() == 2);
    }
}

TEST_CASE("a message taken before a restart is acknowledged behind an older one of its lane [MQTT-4.6.0-3]") {
    received table;
    table.restore(2, ok);
    table.restore(4, ok);
    table.restore(5, ok);
    auto const a = arrive(table, 1, qos::exactly_once, "a");
    CHECK_FALSE(is_new_again(table, 2, qos::exactly_once, "a"));
    CHECK(acknowledged(table) == "");
    auto const other = arrive(table, 3, qos::exactly_once, "other");
    CHECK_FALSE(is_new_again(table, 4, qos::exactly_once, "swiftly"));
    CHECK(acknowledged(table) == "4");
    CHECK_FALSE(is_new_again(table, 5, qos::exactly_once, "other"));
    auto const c = arrive(table, 6, qos::exactly_once, "a");
    table.take(c, ok);
    CHECK(acknowledged(table) == "");
    CHECK(table.waiting() == 5);
    SUBCASE("on the same connection") {}
    SUBCASE("on the next connection, too") {
        table.connection_lost();
        for (auto const id : std::initializer_list<std::uint16_t>{1, 2, 6})
            CHECK_FALSE(is_new_again(table, id, qos::exactly_once, "a"));
        CHECK_FALSE(is_new_again(table, 3, qos::exactly_once, "other"));
        CHECK_FALSE(is_new_again(table, 5, qos::exactly_once, "other"));
        CHECK(acknowledged(table) == "");
    }
    table.take(a, ok);
    CHECK(acknowledged(table) == "1 2 6");
    table.take(other, ok);
    CHECK(acknowledged(table) == "3 5");
    for (std::uint16_t id = 1; id != 7; ++id) table.forget(id);
    CHECK(table.waiting() == 0);
    CHECK(table.unacknowledged() == 0);
}

TEST_CASE("a message taken before a restart goes to another lane with the one before it") {
    received table;
    for (auto const id : std::initializer_list<std::uint16_t>{2, 3, 5}) table.restore(id, ok);
    auto const kept = arrive(table, 1, qos::exactly_once, "kept");
    CHECK_FALSE(is_new_again(table, 2, qos::exactly_once, "kept"));
    CHECK_FALSE(is_new_again(table, 3, qos::exactly_once, "kept"));
    auto const also = arrive(table, 4, qos::exactly_once, "kept");
    CHECK_FALSE(is_new_again(table, 5, qos::exactly_once, "kept"));
    table.assign(kept, 100);  // a subscription has come for them
    table.assign(also, 100);
    CHECK(acknowledged(table) == "");
    table.forget(3);  // PUBREL, though there has been no PUBREC: the peer has had one before the restart
    table.take(kept, ok);
    CHECK(acknowledged(table) == "1 2");
    table.take(also, ok);
    CHECK(acknowledged(table) == "4 5");
    CHECK(table.waiting() == 0);
}

TEST_CASE("as many messages as there are identifiers go to another lane in no time") {
    received table;
    constexpr std::uint16_t most = 65535;
    for (unsigned id = 2; id <= most; ++id) table.restore(static_cast<std::uint16_t>(id), ok);
    auto const first = arrive(table, 1, qos::exactly_once);
    auto const repeat_all = [&] {
        bool is_new = false;
        for (unsigned id = 2; id <= most; ++id)
            is_new |= is_new_again(table, static_cast<std::uint16_t>(id), qos::exactly_once);
        return is_new;
    };
    CHECK_FALSE(repeat_all());
    auto const begin = std::chrono::steady_clock::now();
    table.assign(first, 100);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));
    CHECK(acknowledged(table) == "");
    CHECK(table.waiting() == most);
    table.take(first, ok);
    unsigned expected = 1;
    for (; auto const* e = table.next_taken(); table.pop()) expected += e->packet_id == expected;
    CHECK(expected == most + 1u);
    CHECK(table.waiting() == 0);
}

namespace {

/// What must be true of one connection, said in the plainest way: a list.
class plain_received {
  public:
    void arrive(received& table, std::uint16_t id, qos quality) {
        std::string const topic(1 + id % 3, 't');
        auto const known = find(id);
        if (known != all_.end() && (known->quality != quality || quality == qos::at_least_once)) return;  // not allowed
        bool const again = known != all_.end() && known->quality == quality && quality == qos::exactly_once;
        auto const a = arrival_of(table, packet(id, quality, topic, again));
        CHECK(a.is_new == (!again || known->given_back));
        if (again) {
            known->given_back = false;
            if (known->acknowledged) std::rotate(known, known + 1, all_.end());  // it waits for its turn again
            find(id)->acknowledged = false;
        } else {
            all_.push_back({a.token, topic.size()});
            all_.back().quality = quality;
        }
    }
    /// Some identifiers are of messages that were taken before a restart.
    void restore(received& table, std::uint16_t id) {
        table.restore(id, ok);
        all_.push_back({{static_cast<std::uint64_t>(-1), id, qos::exactly_once}, 1 + id % 3u});
        all_.back().quality = qos::exactly_once;
        all_.back().taken = all_.back().acknowledged = true;
    }
    void take(received& table, std::size_t at) {
        if (all_.empty()) return;
        auto& m = all_[at % all_.size()];
        CHECK(table.take(m.token, ok) == !m.taken);
        m.taken = true;
        m.given_back = false;
    }
    void give_back(received& table, std::size_t at) {
        if (all_.empty()) return;
        auto& m = all_[at % all_.size()];
        table.give_back(m.token);
        if (!m.taken) m.given_back = true;
    }
    void forget(received& table, std::uint16_t id) {
        auto const m = find(id);
        if (m != all_.end() && !m->acknowledged) return;  // not allowed
        table.forget(id);
        if (m != all_.end()) all_.erase(m);
    }
    void acknowledge(received& table) {
        while (auto const* e = table.next_taken()) {
            auto const m = find(e->packet_id);
            REQUIRE(m != all_.end());
            CHECK(m->token.number == e->number);
            CHECK(m->taken);
            CHECK(may_be_acknowledged(*m));
            table.pop();
            m->acknowledged = true;
            if (m->quality == qos::at_least_once) all_.erase(m);
        }
        std::size_t waiting = 0;
        for (auto const& m : all_) {
            waiting += m.acknowledged ? 0 : 1;
            CHECK_FALSE((m.taken && !m.acknowledged && may_be_acknowledged(m)));  // nobody sleeps
        }
        CHECK(table.waiting() >= waiting);  // one whose identifier was used again may count until its turn
        CHECK(table.unacknowledged() >= waiting);
    }

  private:
    struct message {
        delivery token;
        std::size_t lane;
        qos quality = qos::at_least_once;
        bool taken = false, acknowledged = false, given_back = false;
    };
    std::vector<message>::iterator find(std::uint16_t id) {
        return std::find_if(all_.begin(), all_.end(), [&](message const& m) { return m.token.packet_id == id; });
    }
    bool may_be_acknowledged(message const& m) const {
        return std::all_of(all_.data(), &m, [&](message const& before) {
            return before.lane != m.lane || before.quality != m.quality || before.acknowledged;
        });
    }

    std::vector<message> all_;
};

}  // namespace

TEST_CASE(
    "whatever is taken, given back, released and used again: order in each lane, and nothing before it is taken") {
    for (unsigned seed = 0; seed != 3000; ++seed) {
        std::mt19937 random(seed);
        received table;
        plain_received plain;
        CAPTURE(seed);
        if (seed % 2 == 0)
            for (auto const id : std::initializer_list<std::uint16_t>{2, 3, 5}) plain.restore(table, id);
        for (int step = 0; step != 60; ++step) {
            auto const id = static_cast<std::uint16_t>(1 + random() % 6);
            switch (random() % 8) {
                case 0:
                case 1:
                case 2: plain.arrive(table, id, random() % 2 == 0 ? qos::at_least_once : qos::exactly_once); break;
                case 3:
                case 4: plain.take(table, random()); break;
                case 5: plain.give_back(table, random()); break;
                case 6: plain.forget(table, id); break;
                default: plain.acknowledge(table);
            }
        }
        plain.acknowledge(table);
    }
}

TEST_CASE("whatever a peer does with its identifiers, all that is taken is acknowledged or forgotten in the end") {
    for (unsigned seed = 0; seed != 3000; ++seed) {
        std::mt19937 random(seed);
        received table;
        std::vector<delivery> all;
        CAPTURE(seed);
        for (int step = 0; step != 80; ++step) {
            auto const id = static_cast<std::uint16_t>(1 + random() % 6);
            auto const quality = random() % 2 == 0 ? qos::at_least_once : qos::exactly_once;
            bool const dup = random() % 3 == 0;
            auto const some = all.empty() ? delivery{} : all[random() % all.size()];
            auto const reason = random() % 4 == 0 ? reason_code::unspecified_error : ok;
            switch (random() % 9) {
                case 0:
                case 1:
                case 2:
                case 3:
                    all.push_back(
                        arrival_of(table, packet(id, quality, std::string(1 + random() % 3, 't'), dup)).token);
                    break;
                case 4: table.take(some, reason); break;
                case 5: table.give_back(some); break;
                case 6: table.forget(id); break;
                case 7: acknowledged(table); break;
                default:
                    if (random() % 8 == 0) table.connection_lost();
            }
        }
        for (auto const& d : all) table.take(d, ok);
        acknowledged(table);
        CHECK(table.waiting() == 0);
        for (std::uint16_t id = 1; id != 7; ++id) table.forget(id);
        CHECK(table.unacknowledged() == 0);
    }
}

TEST_CASE(
    "a message given back is counted once, until it comes again, is taken after all, or its identifier is another's") {
    runnel::mqtt::detail::received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    table.give_back(a);
    table.give_back(a);
    CHECK(table.given_back() == 1);
    CHECK(is_new_again(table, 1, qos::at_least_once));
    CHECK(table.given_back() == 0);
    table.give_back(a);
    CHECK(table.take(a, ok));
    CHECK(table.given_back() == 0);
    CHECK(acknowledged(table) == "1");
    auto const b = arrive(table, 2, qos::at_least_once);
    table.give_back(b);
    arrive(table, 2, qos::at_least_once);
    CHECK(table.given_back() == 0);
}

TEST_CASE("a QoS 1 message that the server does not send again is forgotten, and its identifier free for another") {
    runnel::mqtt::detail::received table;
    arrive(table, 1, qos::at_least_once);
    auto const taken = arrive(table, 2, qos::at_least_once);
    auto const returned = arrive(table, 3, qos::at_least_once);
    table.take(taken, ok);  // its acknowledgement waits for that of the first
    table.give_back(returned);
    table.connection_lost();
    CHECK_FALSE(is_new_again(table, 1, qos::at_least_once));
    table.connection_lost();
    for (auto const& old : {taken, returned}) {
        auto const next = arrival_of(table, packet(old.packet_id, qos::at_least_once, "a", true));
        CHECK(next.is_new);
        CHECK(next.token.number != old.number);
    }
}

TEST_CASE("PUBREL with the identifier of a QoS 1 message changes nothing") {
    runnel::mqtt::detail::received table;
    auto const a = arrive(table, 1, qos::at_least_once);
    auto const b = arrive(table, 2, qos::at_least_once);
    table.take(b, ok);
    table.forget(1);
    table.forget(2);
    CHECK(table.take(a, ok));
    CHECK(acknowledged(table) == "1 2");
}

TEST_CASE("a session that is gone counts for nothing") {
    runnel::mqtt::detail::received table;
    arrive(table, 1, qos::at_least_once);
    arrive(table, 2, qos::exactly_once);
    table.clear();
    CHECK(table.unacknowledged() == 0);
}

// What a store keeps.

namespace {

std::string told(runnel::mqtt::detail::received& table) {
    struct {
        std::string words;
        void taken(std::uint16_t id, reason_code) { words += "taken " + std::to_string(id) + ' '; }
        void forgotten(std::uint16_t id) { words += "forgotten " + std::to_string(id) + ' '; }
    } sink;
    table.tell_changes(sink);
    table.changes_stored();
    return sink.words;
}

}  // namespace

TEST_CASE("a store keeps QoS 2 identifiers from when their message is taken until they are free") {
    runnel::mqtt::detail::received table;
    table.note_changes();
    table.take(arrive(table, 1, qos::exactly_once), ok);
    CHECK(told(table) == "taken 1 ");
    CHECK_FALSE(table.has_changes());
    table.forget(1);
    arrive(table, 1, qos::exactly_once);  // another message
    CHECK(told(table) == "forgotten 1 ");
}

TEST_CASE("a store keeps nothing of messages that were refused, and nothing of QoS 1") {
    runnel::mqtt::detail::received table;
    table.note_changes();
    table.take(arrive(table, 1, qos::exactly_once), reason_code::quota_exceeded);
    auto const a = arrive(table, 2, qos::at_least_once);
    table.take(arrive(table, 3, qos::at_least_once), ok);
    table.take(a, ok);
    CHECK_FALSE(table.has_changes());
    acknowledged(table);
    CHECK_FALSE(table.has_changes());
}

TEST_CASE("when a session is gone the store forgets its identifiers, those of an earlier process too") {
    runnel::mqtt::detail::received table;
    table.note_changes();
    table.restore(7, ok);
    table.restore(7, reason_code::quota_exceeded);  // it is there already
    auto const again = arrival_of(table, packet(7, qos::exactly_once, "a", true));
    CHECK_FALSE(again.is_new);
    CHECK(acknowledged(table) == "7");
    table.take(arrive(table, 8, qos::exactly_once), ok);
    CHECK(told(table) == "taken 8 ");
    table.clear();
    auto const words = told(table);
    CHECK(words.find("forgotten 7 ") != words.npos);
    CHECK(words.find("forgotten 8 ") != words.npos);
    CHECK(table.knows(7) == unknown);
}

TEST_CASE("a message for which there is no memory when it comes is new when it is sent again") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once})
        for (std::size_t n = 1;; ++n) {
            CAPTURE(n);
            runnel::mqtt::detail::received table;
            for (std::uint16_t id = 1; id <= 8; ++id) arrive(table, id, quality);
            bool failed = false;
            try {
                runnel::testing::failing_allocation const failing(n);
                table.arrive(packet(9, quality));
            } catch (std::bad_alloc const&) {
                failed = true;
            }
            table.connection_lost();
            if (!failed) break;
            CHECK(n < 10);
            CHECK(is_new_again(table, 9, quality));
        }
}

TEST_CASE("a message that is given back without memory is new when it is sent again") {
    for (std::size_t n = 1; n < 4; ++n) {
        runnel::mqtt::detail::received table;
        auto const d = arrive(table, 1, qos::at_least_once);
        {
            runnel::testing::failing_allocation const failing(n);
            table.give_back(d);
        }
        CHECK(acknowledged(table).empty());
        table.connection_lost();
        CHECK(is_new_again(table, 1, qos::at_least_once));
    }
}

TEST_CASE("in a session that may be another one a QoS 2 message is a repetition only if it says so") {
    received table;
    table.note_changes();
    for (std::uint16_t id = 1; id <= 2; ++id) table.take(arrive(table, id, qos::exactly_once), ok);
    CHECK(acknowledged(table) == "1 2");
    table.connection_lost();
    table.doubt();
    CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));  // DUP: the old session is still there
    CHECK(acknowledged(table) == "1");
    CHECK_FALSE(arrival_of(table, packet(1, qos::exactly_once)).is_new);  // and this is certain now
    auto const other = arrive(table, 2, qos::exactly_once);
    CHECK(acknowledged(table) == "1");
    table.take(other, ok);
    CHECK(acknowledged(table) == "2");
    CHECK_FALSE(arrival_of(table, packet(2, qos::exactly_once)).is_new);
    CHECK(table.unacknowledged() == 2);
}

TEST_CASE("what an earlier process has taken is a repetition only if it says so") {
    received table;
    for (std::uint16_t id = 1; id <= 2; ++id) table.restore(id, ok);
    CHECK_FALSE(is_new_again(table, 1, qos::exactly_once));
    CHECK(arrival_of(table, packet(2, qos::exactly_once)).is_new);
    CHECK(acknowledged(table) == "1");
}
