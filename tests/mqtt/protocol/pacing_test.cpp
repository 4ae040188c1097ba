#include <runnel/mqtt/protocol/pacing.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include "support/event_sequences.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace runnel::mqtt;
using namespace std::chrono_literals;
using time_point = pacing::time_point;

constexpr time_point start{1h};

// The most events in any span that begins with one of them.
std::size_t most_in(std::vector<time_point> const& events, time_point::duration span) {
    std::size_t most = 0;
    for (std::size_t i = 0, j = 0; i < events.size(); ++i) {
        while (j < events.size() && events[j] < events[i] + span) ++j;
        most = std::max(most, j - i);
    }
    return most;
}

// A client whose messages leave at a pace, and a server that acknowledges when it is told to.
struct ends {
    explicit ends(publish_pace pace) : client(role::client, protocol_version::v3_1_1, {}, pace) {}

    struct handler : session_handler {
        ends& of;
        explicit handler(ends& e) : of(e) {}
        void on_sent(void* owner) { of.told.push_back(*static_cast<int*>(owner)); }
        void on_published(void* owner, acknowledgement const&) { of.told.push_back(*static_cast<int*>(owner)); }
        void on_refused(void* owner, errc) { of.refused += owner != nullptr; }
    };

    void connect(bool present = false) {
        CHECK(client.connect(out, {.client_id = "c", .clean_start = false}, {}) == errc::ok);
        out.clear();
        sent.clear();
        std::string const answer = {0x20, 2, present ? char(1) : char(0), 0};
        receive(answer);
    }
    void receive(std::string_view input) { CHECK(client.receive(input, out, handler(*this)) == errc::ok); }

    errc publish(int& owner, qos quality) {
        auto const payload = std::to_string(owner);
        return client.publish(out, {.topic = "t", .payload = payload, .qos = quality}, &owner).error;
    }

    // Lets leave what is due; gives the payloads.
    std::vector<std::string> send(time_point now) {
        next = client.send_due(out, now, handler(*this));
        std::vector<std::string> payloads;
        for (std::string_view bytes(out.data(), out.size()); !bytes.empty();) {
            auto const f = next_frame(bytes);
            REQUIRE(f.status == parse_status::complete);
            bytes.remove_prefix(f.total_size);
            if (f.header.type != packet_type::publish) continue;
            runnel::mqtt::publish m;
            REQUIRE(decode(f.header, f.body, protocol_version::v3_1_1, m) == errc::ok);
            payloads.emplace_back(m.payload);
            if (m.qos != qos::at_most_once) sent.push_back(m.packet_id);
        }
        out.clear();
        next = client.send_due(out, now, handler(*this));  // it has been written
        CHECK(out.empty());
        return payloads;
    }
    // Acknowledges the oldest.
    void acknowledge(std::size_t count) {
        for (; count > 0 && !sent.empty(); --count) {
            auto const id = sent.front();
            sent.pop_front();
            std::string const ack = {0x40, 2, static_cast<char>(id >> 8), static_cast<char>(id & 0xFF)};
            receive(ack);
        }
    }

    session_state client;
    runnel::send_buffer out{0};
    std::deque<std::uint16_t> sent;
    std::vector<int> told;
    int refused = 0;
    time_point next = pacing::never;
};

using list = std::vector<std::string>;

}  // namespace

TEST_CASE("every sequence of leaving, acknowledgement, loss and time keeps to the pace as the server counts it") {
    constexpr std::size_t count = 2;
    constexpr auto span = 4ms;
    enum : int { leave, acknowledge_one, lose, wait_short, wait_span, kinds };
    test::for_each_sequence(kinds, test::up_to(7), [&](std::vector<int> const& sequence) {
        pacing p({.acknowledged = count, .span = span});
        auto now = start;
        // A message may arrive at any time from when it left until it is acknowledged: the worst is that all arrive as
        // late as they can, and the later ones as soon as they leave.
        struct flight {
            time_point left, arrived;
        };
        std::vector<flight> flights;
        std::size_t unacknowledged = 0;
        for (int const event : sequence) {
            switch (event) {
                case leave:
                    p.observe(unacknowledged, now);
                    if (unacknowledged >= count) CHECK(p.ready_at(qos::at_least_once, now) == pacing::never);
                    if (p.ready(qos::at_least_once, now) != 0) CHECK(p.ready_at(qos::at_least_once, now) == now);
                    if (p.ready_at(qos::at_least_once, now) != now) break;
                    CHECK(p.ready(qos::at_least_once, now) != 0);
                    p.take(qos::at_least_once, now);
                    flights.push_back({now, time_point::max()});
                    ++unacknowledged;
                    break;
                case acknowledge_one:
                    if (unacknowledged == 0) break;
                    flights[flights.size() - unacknowledged].arrived = now;
                    p.observe(--unacknowledged, now);
                    break;
                case lose:
                    for (; unacknowledged > 0; --unacknowledged) flights[flights.size() - unacknowledged].arrived = now;
                    p.observe(0, now);
                    break;
                case wait_short: now += 1ms; break;
                default: now += span;
            }
        }
        for (std::size_t i = 0; i + count < flights.size(); ++i)
            CHECK(flights[i + count].left >= flights[i].arrived + span);
        // Nobody waits without need: all acknowledged, a span later everything is free again.
        p.observe(0, now);
        CHECK(p.ready(qos::at_least_once, now + span) == count);
        CHECK(p.ready_at(qos::exactly_once, now + span) == now + span);
    });
}

TEST_CASE("QoS 0 keeps to its own pace, by when it leaves") {
    pacing p({.at_most_once = 3, .span = 1s});
    std::minstd_rand random(7);
    std::vector<time_point> left;
    for (auto now = start; now < start + 1min; now += std::chrono::milliseconds(random() % 200)) {
        CHECK(p.ready_at(qos::at_least_once, now) == now);
        if (p.ready_at(qos::at_most_once, now) > now) continue;
        p.take(qos::at_most_once, now);
        now += std::chrono::milliseconds(random() % 50);  // it takes that long to be written
        p.observe(0, now);
        left.push_back(now);
    }
    CHECK(most_in(left, 1s) == 3);
    CHECK(left.size() > 150);
}

TEST_CASE("messages of a paced session leave in order, a few at a time, and their owners are told") {
    ends e({.at_most_once = 2, .acknowledged = 3, .span = 1s});
    e.connect();
    int owners[10];
    for (int i = 0; i < 10; ++i) {
        owners[i] = i;
        CHECK(e.publish(owners[i], i < 5 ? qos::at_most_once : qos::at_least_once) == errc::ok);
    }
    CHECK(e.out.empty());
    CHECK(e.send(start) == list{"0", "1", "5", "6", "7"});
    CHECK(e.told == std::vector<int>{0, 1});
    CHECK(e.next == start + 1s);
    CHECK(e.send(start + 999ms).empty());
    CHECK(e.send(start + 1s) == list{"2", "3"});  // what is acknowledged only later may have arrived only now
    e.acknowledge(2);
    CHECK(e.out.empty());
    CHECK(e.send(start + 1500ms).empty());
    CHECK(e.next == start + 2s);
    CHECK(e.send(start + 2s) == list{"4"});
    CHECK(e.send(start + 2500ms) == list{"8", "9"});
    CHECK(e.told == std::vector<int>{0, 1, 2, 3, 5, 6, 4});
    CHECK(e.next == pacing::never);
}

TEST_CASE("what was queued without a connection, and what is sent again, keeps to the pace") {
    ends e({.at_most_once = 2, .acknowledged = 3, .span = 1s});
    int owners[8];
    for (int i = 0; i < 8; ++i)
        CHECK(e.publish(owners[i] = i, i % 2 ? qos::at_most_once : qos::at_least_once) == errc::ok);
    e.connect();
    CHECK(e.out.empty());
    CHECK(e.send(start) == list{"0", "1", "2", "3", "4"});
    e.client.connection_lost();
    CHECK(e.send(start + 3s).empty());
    e.connect(true);
    CHECK(e.send(start + 5s) == list{"5", "7"});  // the lost ones may have arrived just now
    CHECK(e.next == start + 6s);
    CHECK(e.send(start + 6s) == list{"0", "2", "4"});
    CHECK(e.client.resent() == 3);
    e.acknowledge(3);
    CHECK(e.send(start + 7s).empty());
    CHECK(e.send(start + 8s) == list{"6"});
    e.acknowledge(1);
    CHECK(e.client.queued_bytes() == 0);
}

TEST_CASE("a message that waits for its turn can be withdrawn, and nothing else is held up by it") {
    ends e({.at_most_once = 1, .acknowledged = 1, .span = 1s});
    e.connect();
    int owners[4] = {0, 1, 2, 3};
    CHECK(e.publish(owners[0], qos::at_most_once) == errc::ok);
    auto const second = e.client.publish(e.out, {.topic = "t", .payload = "1"}, &owners[1]);
    CHECK(e.publish(owners[2], qos::at_most_once) == errc::ok);
    CHECK(e.publish(owners[3], qos::at_least_once) == errc::ok);
    CHECK(e.send(start) == list{"0", "3"});
    CHECK(e.client.withdraw(second.number));
    CHECK_FALSE(e.client.drop_oldest_at_most_once());  // somebody waits for it
    CHECK(e.send(start + 1s) == list{"2"});
    CHECK(e.told == std::vector<int>{0, 2});
    CHECK(e.refused == 0);
}

TEST_CASE("whether another message could leave counts those before it") {
    ends e({.at_most_once = 2, .acknowledged = 1, .span = 1s});
    CHECK_FALSE(e.client.can_leave(qos::at_most_once, start));
    e.connect();
    int owner = 0;
    CHECK(e.client.can_leave(qos::at_most_once, start));
    CHECK(e.publish(owner, qos::at_most_once) == errc::ok);
    CHECK(e.client.can_leave(qos::at_most_once, start));
    CHECK(e.publish(owner, qos::at_most_once) == errc::ok);
    CHECK_FALSE(e.client.can_leave(qos::at_most_once, start));
    CHECK(e.client.can_leave(qos::at_least_once, start));
    CHECK(e.publish(owner, qos::at_least_once) == errc::ok);
    CHECK_FALSE(e.client.can_leave(qos::at_least_once, start));
    CHECK(e.send(start).size() == 3);
    CHECK_FALSE(e.client.can_leave(qos::at_least_once, start + 2s));
    e.acknowledge(1);
    CHECK(e.send(start + 2s).empty());
    CHECK_FALSE(e.client.can_leave(qos::at_least_once, start + 2s));
    CHECK(e.client.can_leave(qos::at_least_once, start + 3s));
    CHECK(e.client.can_leave(qos::at_most_once, start + 3s));
}

TEST_CASE("a window that is closed holds up QoS 1 only") {
    session_limits limits{.in_flight = 1};
    ends e({});
    session_state paced(role::client, protocol_version::v3_1_1, limits,
                        {.at_most_once = 5, .acknowledged = 5, .span = 1s});
    CHECK(paced.is_paced());
    CHECK_FALSE(e.client.is_paced());
    runnel::send_buffer out{0};
    CHECK(paced.connect(out, {.client_id = "c"}, {}) == errc::ok);
    std::string_view input("\x20\x02\x00\x00", 4);
    CHECK(paced.receive(input, out, session_handler{}) == errc::ok);
    out.clear();
    for (int i = 0; i < 3; ++i) CHECK(paced.publish(out, {.topic = "t", .qos = qos::at_least_once}).error == errc::ok);
    CHECK(paced.publish(out, {.topic = "t"}).error == errc::ok);
    CHECK(paced.send_due(out, start, session_handler{}) == pacing::never);
    CHECK(out.size() == 7 + 5);  // one of QoS 1, and the one of QoS 0
    CHECK_FALSE(paced.can_leave(qos::at_least_once, start + 10s));
}

TEST_CASE("a PUBREL that a closed window holds up is sent again once the window opens") {
    ends e({.acknowledged = 5, .span = 1s});
    e.connect();
    int owner = 0;
    CHECK(e.publish(owner, qos::exactly_once) == errc::ok);
    CHECK(e.send(start).size() == 1);
    e.receive(std::string("\x50\x02\x00\x01", 4));
    e.client.connection_lost();
    e.client.narrow(e.out, 0);
    e.connect(true);
    e.send(start + 5s);
    CHECK(e.client.unacknowledged() == 0);
    e.client.narrow(e.out, 1);
    e.send(start + 6s);
    CHECK(e.client.unacknowledged() == 1);
}
