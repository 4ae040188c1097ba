#include <runnel/mqtt/protocol/publish_queue.hpp>

#include <doctest/doctest.h>

#include "support/sample.hpp"
#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <support/packets.hpp>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::errc;
using mqtt::publish_queue;
using mqtt::qos;
using stage = publish_queue::state;
using time_point = publish_queue::time_point;

// As REQUIRE, at a cost that millions of steps can bear.
void must(bool holds, char const* what) {
    if (!holds) FAIL(what);
}

// One who publishes: what he was told, and how often.
struct caller {
    caller(std::string name, std::size_t size, mqtt::publish_options const& o)
        : topic(std::move(name)), payload(size, 'x'), options(o), call(topic_view, payload_view, options) {}
    std::string topic;
    std::string payload;
    std::string_view topic_view = topic;  // to which the call refers
    std::string_view payload_view = payload;
    mqtt::publish_options options;
    publish_queue::call call;
    int told = 0;
    bool gone = false;  // cancelled: nothing is owed any more
    std::error_code error{};
};

// A session without I/O: the state, the queue of publishers, and a server that does what the events say.
struct scene {
    explicit scene(mqtt::overflow when_full = mqtt::overflow::wait, mqtt::publish_pace pace = {},
                   mqtt::protocol_version version = mqtt::protocol_version::v3_1_1)
        : state(mqtt::role::client, version, {.queued_bytes = 100, .queued_messages = 2}, pace) {
        options.maximum_unwritten = 60;
        options.when_full = when_full;
    }

    struct listener : mqtt::session_handler {
        scene& of;
        explicit listener(scene& s) : of(s) {}
        void on_published(void* owner, mqtt::acknowledgement const&) {
            auto& c = *static_cast<publish_queue::call*>(owner);
            of.queue.on_end(c);
            of.tell(c, {});
        }
        void on_sent(void* owner) {
            auto& c = *static_cast<publish_queue::call*>(owner);
            of.queue.on_sent(c);
            of.tell(c, {});
        }
        void on_refused(void* owner, errc why) {
            if (owner == nullptr) return;
            auto& c = *static_cast<publish_queue::call*>(owner);
            of.queue.on_end(c);
            of.tell(c, why);
        }
    };

    void publish(qos quality, std::size_t size, std::chrono::milliseconds timeout = 0ms, bool here = false) {
        auto const name = std::to_string(callers.size());
        mqtt::publish_options const how{.qos = quality, .timeout = timeout, .this_connection = here};
        callers.push_back(std::make_unique<caller>(name, size, how));
        auto& c = *callers.back();
        errc const e = queue.begin(c.call, now);
        if (c.call.at == stage::told) c.error = e;
        bool const later = state.is_paced() && state.connected();
        bool const done =
            c.call.at == stage::told || (quality == qos::at_most_once && c.call.at == stage::begun && !later);
        if (done) ++c.told;
    }

    void connect() {
        if (state.current_phase() != mqtt::session_state::phase::disconnected) return;
        mqtt::connect packet;
        packet.client_id = "id";
        packet.clean_start = false;
        state.connect(out, packet, {});
        out.clear();
        receive(test::encoded(mqtt::connack{was_connected, {}, {}}, state.version()));
        was_connected = true;
    }
    void lose_connection() {
        state.connection_lost();
        out.clear();
        unacknowledged.clear();
        queue.connection_lost([this](auto& c, std::error_code e) { tell(c, e); });
        offer();
    }
    // The network takes what has gathered.
    void write() {
        std::string bytes(out.view());
        out.clear();
        for (std::string_view rest = bytes; !rest.empty();) {
            auto const f = mqtt::next_frame(rest);
            rest.remove_prefix(f.total_size);
            mqtt::publish p;
            REQUIRE(decode(f.header, f.body, mqtt::protocol_version::v3_1_1, p) == errc::ok);
            sent.emplace_back(p.topic);
            if (p.qos != qos::at_most_once) unacknowledged.push_back(p.packet_id);
        }
        offer();
    }
    void acknowledge() {
        if (unacknowledged.empty() || !state.connected()) return;
        auto const id = unacknowledged.front();
        unacknowledged.erase(unacknowledged.begin());
        receive(test::encoded(mqtt::acknowledgement{mqtt::packet_type::puback, id, {}, {}},
                              mqtt::protocol_version::v3_1_1));
    }
    void pass_time(std::chrono::milliseconds duration) {
        now += duration;
        if (!queue.withdraw_late(now)) return;
        queue.tell_late({}, [this](auto& c, std::error_code e) { tell(c, e); });
        offer();
    }
    // Whoever has waited for longest is cancelled; his coroutine goes on later.
    void cancel() {
        for (auto& c : callers)
            if (!c->gone && c->told == 0) {
                c->gone = true;
                return;
            }
    }
    void go_on() {
        for (auto& c : callers)
            if (c->gone) queue.cancel(c->call);
        offer();
    }
    void close() {
        queue.close(errc::disconnected, [this](auto& c, std::error_code e) { tell(c, e); });
    }

    void receive(std::string const& bytes) {
        std::string_view input = bytes;
        REQUIRE(state.receive(input, out, listener(*this)) == errc::ok);
        offer();
    }
    void offer() {
        queue.offer_room(
            now, [this](auto& c) { return find(c).gone; }, [this](auto& c, std::error_code e) { tell(c, e); });
    }
    caller& find(publish_queue::call& c) {
        return **std::ranges::find_if(callers, [&](auto const& p) { return &p->call == &c; });
    }
    void tell(publish_queue::call& c, std::error_code why) {
        auto& p = find(c);
        ++p.told;
        p.error = why;
    }

    // What must always hold.
    void check() {
        bool writing_waits = false, queueing_waits = false;
        for (auto const& p : callers) {
            auto const& c = p->call;
            must(p->told <= 1, "told once");
            bool& waits = c.options.qos == qos::at_most_once ? writing_waits : queueing_waits;
            if (p->gone) {
                waits = waits || (c.linked() && c.at == stage::waiting);  // until its coroutine goes on
                continue;
            }
            must((p->told == 1) == (c.at == stage::told || (c.at == stage::begun && !c.linked())),
                 "told when it is over");
            must(c.at != stage::fresh, "begun");
            must(c.at != stage::late, "told when it is late");
            if (c.at != stage::told) must(c.deadline > now, "each deadline fires");
            if (c.at != stage::told) must(queue.deadline() <= c.deadline, "no deadline is forgotten");
            if (c.options.this_connection && !state.connected()) must(p->told == 1, "it is for no other one");
            if (p->error == errc::message_expired || p->error == errc::not_connected)
                must(std::ranges::count(sent, p->topic) == 0, "what was told not sent never is");
            if (c.at != stage::waiting) continue;
            // Nobody sleeps while there is room; who comes later does not overtake.
            bool const unacknowledged_message = c.options.qos == qos::at_most_once;
            if (!waits && state.connected()) {
                if (unacknowledged_message)
                    must(out.size() >= options.maximum_unwritten, "nobody sleeps while there is room to write");
                else
                    must(!has_room(p->payload.size() + 5 + p->topic.size() + 2),
                         "nobody sleeps while there is room in the queue");
            }
            waits = true;
        }
        check_order(qos::at_most_once);
        check_order(qos::at_least_once);
    }
    bool has_room(std::size_t size) const {
        return state.has_room() && (state.queued_bytes() == 0 || state.queued_bytes() + size <= 100);
    }
    // Of one QoS, messages are sent for the first time in the order of the calls.
    void check_order(qos quality) const {
        int last = -1;
        for (auto const& topic : sent) {
            int const number = std::stoi(topic);
            if (callers[static_cast<std::size_t>(number)]->options.qos != quality) continue;
            if (number > last)
                last = number;
            else
                must(std::ranges::count(sent, topic) > 1, "in order, or again on another connection");
        }
    }

    mqtt::session_options options;
    mqtt::session_state state;
    runnel::send_buffer out;
    publish_queue queue{options, state, out};
    std::vector<std::unique_ptr<caller>> callers;
    std::vector<std::string> sent;
    std::vector<std::uint16_t> unacknowledged;
    time_point now = time_point{} + 1h;
    bool was_connected = false;
};

constexpr int events = 12;

void apply(scene& s, int event) {
    switch (event) {
        case 0: return s.publish(qos::at_most_once, 70);
        case 1: return s.publish(qos::at_least_once, 10);
        case 2: return s.publish(qos::at_least_once, 90);
        case 3: return s.publish(qos::at_least_once, 10, 1000ms);
        case 4: return s.publish(qos::at_most_once, 10, 1000ms);
        case 5: return s.state.connected() ? s.lose_connection() : s.connect();
        case 6: return s.write();
        case 7: return s.acknowledge();
        case 8: return s.pass_time(600ms);
        case 9: return s.cancel();
        case 10: return s.go_on();
        case 11: return s.publish(qos::at_most_once, 70, 0ms, true);
        default: return;
    }
}

void end(scene& s) {
    s.close();
    for (auto const& p : s.callers)
        if (!p->gone) must(p->told == 1, "told at the end");
}

}  // namespace

TEST_CASE(
    "every sequence of four events, from every beginning, tells each publisher once, in order, and lets nobody sleep") {
    std::size_t sequences = 0;
    // Where it is a few that are tried, all sequences of three events are among them at both places: 5 and 12 have no
    // common factor.
    int const apart = static_cast<int>(test::every(5));
    for (int beginning = 0; beginning < 3; ++beginning) {
        for (int n = 0; n < events * events * events * events; n += apart) {
            scene s;
            if (beginning > 0) s.connect();
            if (beginning > 1) {
                s.publish(qos::at_least_once, 40);
                s.publish(qos::at_least_once, 40);
                s.write();
            }
            for (int rest = n, i = 0; i < 4; ++i, rest /= events) {
                apply(s, rest % events);
                s.check();
            }
            end(s);
            ++sequences;
        }
    }
    MESSAGE(sequences << " sequences");
}

TEST_CASE("so do long sequences at random, whatever becomes of messages without room") {
    for (unsigned seed = 0; seed < 300 / test::every(3); ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        scene s(seed % 3 == 2 ? mqtt::overflow::drop_oldest : mqtt::overflow::wait);
        for (int i = 0; i < 200; ++i) {
            apply(s, static_cast<int>(random() % events));
            s.check();
        }
        end(s);
    }
}

TEST_CASE("a message that could not be stored as withdrawn is told so, and no other end") {
    scene s;
    s.publish(qos::at_least_once, 10, 1000ms);
    s.now += 2s;
    REQUIRE(s.queue.withdraw_late(s.now));
    CHECK(s.callers[0]->told == 0);
    s.queue.tell_late(make_error_code(std::errc::io_error), [&](auto& c, std::error_code e) { s.tell(c, e); });
    CHECK(s.callers[0]->told == 1);
    CHECK(s.callers[0]->error == std::errc::io_error);
}

TEST_CASE("a message that belongs to nobody does not overtake those who wait") {
    scene s;
    s.publish(qos::at_least_once, 90);
    s.publish(qos::at_least_once, 90);
    CHECK(s.callers[1]->call.at == stage::waiting);
    CHECK(s.queue.try_begin("t", "", {.qos = qos::at_least_once}, s.now).error == errc::queue_full);
    s.connect();
    CHECK(s.queue.try_begin("t", "", {}, s.now).error == errc::queue_full);  // what has gathered is to be written first
    s.write();
    CHECK(s.queue.try_begin("t", "", {}, s.now).error == errc::ok);
    CHECK(s.queue.try_begin("t", "", {.qos = qos::at_least_once}, s.now).error == errc::queue_full);
}

TEST_CASE("room that has just come to be is for those who wait, and for nobody who comes later") {
    scene s;
    s.publish(qos::at_least_once, 90);
    s.publish(qos::at_least_once, 90);
    REQUIRE(s.callers[1]->call.at == stage::waiting);
    REQUIRE(s.state.withdraw(s.callers[0]->call.number));
    CHECK(s.queue.try_begin("t", "", {.qos = qos::at_least_once}, s.now).error == errc::queue_full);
    s.publish(qos::at_least_once, 1);
    CHECK(s.callers[2]->call.at == stage::waiting);
    // Without a connection QoS 0 waits behind them, too.
    s.publish(qos::at_most_once, 1);
    CHECK(s.callers[3]->call.at == stage::waiting);
    s.offer();
    CHECK(s.callers[1]->call.at == stage::begun);
    CHECK(s.callers[2]->call.at == stage::waiting);
}

TEST_CASE("without a connection those who wait are served in the order of their calls, whatever the QoS") {
    for (bool const kept_first : {true, false}) {
        scene s;
        s.publish(qos::at_least_once, 90);
        s.publish(kept_first ? qos::at_least_once : qos::at_most_once, 85);
        s.publish(kept_first ? qos::at_most_once : qos::at_least_once, 85);
        REQUIRE(s.callers[2]->call.at == stage::waiting);
        REQUIRE(s.state.withdraw(s.callers[0]->call.number));
        s.offer();
        CHECK(s.callers[1]->call.at != stage::waiting);
        CHECK(s.callers[2]->call.at == stage::waiting);
    }
}

TEST_CASE("a call whose coroutine is gone begins no message, though there is room") {
    scene s;
    s.publish(qos::at_least_once, 90);
    s.publish(qos::at_least_once, 90);
    s.cancel();  // the first, whose message is in the queue
    s.callers[1]->gone = true;
    REQUIRE(s.state.withdraw(s.callers[0]->call.number));
    auto const before = s.queue.published();
    s.offer();
    CHECK(s.queue.published() == before);
    CHECK(s.callers[1]->call.at == stage::told);
    CHECK_FALSE(s.queue.is_waited());
}

TEST_CASE("a time limit counts from the call, also while the call waits for room") {
    scene s;
    s.publish(qos::at_least_once, 90);
    s.publish(qos::at_least_once, 90, 1000ms);
    auto const deadline = s.callers[1]->call.deadline;
    CHECK(deadline == s.now + 1000ms);
    s.now += 500ms;
    REQUIRE(s.state.withdraw(s.callers[0]->call.number));
    s.offer();
    REQUIRE(s.callers[1]->call.at == stage::begun);
    CHECK(s.callers[1]->call.deadline == deadline);
    CHECK(s.queue.deadline() <= deadline);
}

TEST_CASE("of many who wait with limits of their own some are told together, a little late and never too soon") {
    constexpr int count = 4'000;
    scene s;
    publish_queue q(s.options, s.state, s.out);
    std::string_view const text = "a";
    std::vector<mqtt::publish_options> how(count, {.qos = qos::at_least_once, .timeout = 5s});
    std::vector<std::unique_ptr<publish_queue::call>> calls;
    auto const begin = s.now;
    auto const limit_of = [&](int i) { return begin + i * 10us + 5s; };
    for (int i = 0; i < count; ++i) {
        calls.push_back(std::make_unique<publish_queue::call>(text, text, how[static_cast<std::size_t>(i)]));
        q.begin(*calls.back(), begin + i * 10us);
    }
    int rounds = 0, told = 0;
    for (time_point now = q.deadline(); now != mqtt::never; now = q.deadline(), ++rounds) {
        must(rounds < count / 8, "each is looked for on its own");
        if (!q.withdraw_late(now)) continue;
        q.tell_late({}, [&](auto&, std::error_code) {
            must(limit_of(told) <= now, "one is told too soon");
            must(now - limit_of(told) <= 1ms, "one is told too late");
            ++told;
        });
    }
    CHECK(told == count);
}

TEST_CASE("the end tells those who are late, too, and leaves no deadline") {
    scene s;
    s.publish(qos::at_least_once, 10, 1000ms);
    s.publish(qos::at_least_once, 10, 5000ms);
    s.now += 2s;
    REQUIRE(s.queue.withdraw_late(s.now));
    CHECK(s.queue.deadline() == s.now + 3s);
    CHECK(s.callers[0]->told == 0);
    CHECK(s.callers[0]->call.at == stage::late);
    CHECK(s.callers[1]->call.at == stage::begun);
    s.close();
    CHECK(s.callers[0]->told == 1);
    CHECK(s.callers[1]->told == 1);
    CHECK(s.queue.deadline() == mqtt::never);
    CHECK_FALSE(s.queue.withdraw_late(s.now + 1h));
}

TEST_CASE("whoever cannot be told for want of memory is told another time, once") {
    auto const fail = [](auto&, std::error_code) { throw std::bad_alloc(); };
    auto const nobody = [](auto&) { return false; };
    scene s;
    auto const tell = [&](auto& c, std::error_code e) { s.tell(c, e); };
    s.connect();
    s.publish(qos::at_least_once, 10, 1000ms);
    s.now += 2s;
    REQUIRE(s.queue.withdraw_late(s.now));
    CHECK_THROWS_AS(s.queue.tell_late({}, fail), std::bad_alloc);
    s.queue.tell_late({}, tell);
    CHECK(s.callers[0]->told == 1);

    s.publish(qos::at_most_once, 70);
    s.publish(qos::at_most_once, 10);  // waits for room
    s.publish(qos::at_most_once, 70, 0ms, true);
    s.out.clear();
    CHECK_THROWS_AS(s.queue.offer_room(s.now, nobody, fail), std::bad_alloc);
    auto const begun = s.out.size();
    s.queue.offer_room(s.now, nobody, [&](auto& c, std::error_code e) {
        if (!e && &c == &s.callers[2]->call) CHECK(s.out.size() == begun);  // its message is there once
        s.tell(c, e);
    });
    CHECK(s.callers[2]->told == 1);

    s.publish(qos::at_most_once, 10, 0ms, true);
    s.state.connection_lost();
    REQUIRE(s.callers[4]->told == 0);
    CHECK_THROWS_AS(s.queue.connection_lost(fail), std::bad_alloc);
    s.queue.connection_lost(tell);
    CHECK(s.callers[4]->told == 1);

    s.publish(qos::at_least_once, 10);
    CHECK_THROWS_AS(s.queue.close(errc::disconnected, fail), std::bad_alloc);
    s.close();
    for (auto const& c : s.callers) CHECK(c->told == 1);
}

TEST_CASE("the oldest QoS 0 messages are dropped for a newer one, as many as it takes, and counted") {
    scene s(mqtt::overflow::drop_oldest);
    s.publish(qos::at_most_once, 30);
    s.publish(qos::at_most_once, 30);
    s.publish(qos::at_most_once, 85);
    CHECK(s.queue.dropped() == 2);
    CHECK(s.queue.published() == 3);
    s.publish(qos::at_least_once, 90);
    CHECK(s.queue.dropped() == 3);
    CHECK(s.callers[3]->call.at == stage::begun);
    s.publish(qos::at_most_once, 90);  // none is left to be dropped
    CHECK(s.queue.dropped() == 3);
    CHECK(s.callers[4]->call.at == stage::waiting);
}

TEST_CASE("an expiry interval counts from when its message begins") {
    for (bool const belongs_to_nobody : {false, true}) {
        scene s(mqtt::overflow::wait, {}, mqtt::protocol_version::v5);
        mqtt::properties props;
        props.message_expiry_interval = 10;
        mqtt::publish_options const how{.qos = qos::at_least_once, .props = &props};
        caller c("t", 1, how);
        errc const e =
            belongs_to_nobody ? s.queue.try_begin(c.topic, c.payload, how, s.now).error : s.queue.begin(c.call, s.now);
        CHECK(e == errc::ok);
        CHECK(s.state.next_expiry() == mqtt::to_session_time(s.now) + 10s);
    }
}

TEST_CASE("at a pace a QoS 0 message is told as sent when its turn has come, and is withdrawn with its connection") {
    scene s(mqtt::overflow::wait, {.at_most_once = 1, .span = 1000ms});
    s.connect();
    auto const send = [&] { s.state.send_due(s.out, s.now, scene::listener(s)); };
    s.publish(qos::at_most_once, 1);
    CHECK(s.callers[0]->call.at == stage::begun);
    CHECK(s.callers[0]->told == 0);
    send();
    CHECK(s.callers[0]->told == 1);
    CHECK(s.callers[0]->call.number == mqtt::session_state::no_exchange);
    s.write();
    s.publish(qos::at_most_once, 1);
    // What belongs to nobody is not taken where it would have to wait.
    CHECK(s.queue.try_begin("t", "", {}, s.now).error == errc::queue_full);
    s.publish(qos::at_most_once, 1, 0ms, true);
    send();
    CHECK(s.callers[1]->told == 0);
    CHECK(s.callers[2]->told == 0);
    auto const number = s.callers[2]->call.number;
    s.lose_connection();
    CHECK(s.callers[2]->told == 1);
    CHECK(s.callers[2]->error == errc::not_connected);
    CHECK_FALSE(s.state.withdraw(number));  // that has been done
    CHECK(s.callers[1]->told == 0);
    CHECK(s.state.withdraw(s.callers[1]->call.number));
}

TEST_CASE("with overflow::refuse nobody waits") {
    scene s(mqtt::overflow::refuse);
    s.publish(qos::at_least_once, 90);
    s.publish(qos::at_least_once, 90);
    CHECK(s.callers[1]->error == errc::queue_full);
    CHECK_FALSE(s.queue.is_waited());
}
