#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

// What becomes of QoS 1 and 2 messages that nobody takes, or not at once.

namespace {

using namespace std::chrono_literals;
namespace mqtt = runnel::mqtt;
using mqtt::qos;
using test::memory_session;
using test::quick;
using test::task;

constexpr qos acknowledged_qualities[] = {qos::at_least_once, qos::exactly_once};

mqtt::session_options lasting(mqtt::protocol_version version) {
    auto o = quick("client", version);
    if (version == mqtt::protocol_version::v5) o.session_expiry = 1h;
    return o;
}

template <class F>
void for_each_kind(F&& f) {
    for (auto const version : test::versions)
        for (auto const quality : acknowledged_qualities) {
            CAPTURE(version == mqtt::protocol_version::v5);
            CAPTURE(quality == qos::exactly_once);
            f(version, quality);
        }
}

// A broker whose client has subscribed in an earlier process.
struct fixture_with_history : test::memory_fixture {
    fixture_with_history(mqtt::protocol_version version, std::vector<std::string_view> filters) {
        memory_session before(io.get_executor(), transport, lasting(version));
        task<void> running(io, before.run());
        for (auto const filter : filters)
            test::run(io, test::only(before.subscribe(filter, [](mqtt::publish const&) {})));
        test::run(io, before.disconnect());
        running.run();
    }
};

using events = std::vector<mqtt::session_event>;

std::size_t count(events const& all, mqtt::session_event::kind kind) {
    std::size_t n = 0;
    for (auto const& e : all) n += e.what == kind;
    return n;
}

std::string payloads(memory_session::subscription& s) {
    std::string all;
    while (auto const m = s.try_receive()) all += m->payload();
    return all;
}

// A session whose `run` and events can be followed.
struct followed {
    followed(test::memory_fixture& fixture, mqtt::session_options o) : of(fixture) {
        o.on_event = [this](mqtt::session_event const& e) {
            told.push_back(e);
            if (on_told) on_told(e);
        };
        session = std::make_unique<memory_session>(of.io.get_executor(), of.transport, std::move(o));
        start();
    }
    void start() {
        running = std::make_unique<task<void>>(of.io, session->run());
        test::run(of.io, session->connected());
        of.settle();
    }
    void reconnect() {
        auto const n = session->counters().connections;
        of.broker.drop_client("client");
        test::run(of.io, test::only(session->connected(n)));
        of.settle();
    }
    auto subscribe(std::string_view filter, mqtt::subscribe_options o = {}) {
        auto s = test::run(of.io, session->subscribe(filter, o));
        of.settle();
        return s;
    }

    test::memory_fixture& of;
    events told;
    std::function<void(mqtt::session_event const&)> on_told;
    std::unique_ptr<memory_session> session;
    std::unique_ptr<task<void>> running;
};

}  // namespace

TEST_CASE("messages that come before their subscriptions are made wait for them, in order of arrival") {
    for_each_kind([](auto version, qos quality) {
        fixture_with_history fixture(version, {"a/#", "b/#"});
        for (auto const payload : {"1", "2", "3"}) {
            fixture.broker.publish("a/x", payload, quality);
            fixture.broker.publish("b/x", payload, quality);
        }
        followed f(fixture, lasting(version));
        CHECK(f.session->counters().messages_received == 6);
        auto a = f.subscribe("a/#");
        CHECK(payloads(a) == "123");
        fixture.broker.publish("b/x", "4", quality);
        fixture.settle();
        std::string seen;
        test::run(fixture.io,
                  test::only(f.session->subscribe("b/#", [&](mqtt::publish const& m) { seen += m.payload; })));
        fixture.settle();
        CHECK(seen == "1234");
        CHECK(f.session->counters().messages_unrouted == 0);
        CHECK(count(f.told, mqtt::session_event::kind::unrouted) == 1);
        CHECK(count(f.told, mqtt::session_event::kind::given_up) == 0);
        f.reconnect();
        CHECK(payloads(a) == "");  // all have been acknowledged
        CHECK(seen == "1234");
    });
}

TEST_CASE("a message that no subscription comes for is acknowledged when its time is over, and told of") {
    for_each_kind([](auto version, qos quality) {
        fixture_with_history fixture(version, {"a"});
        fixture.broker.publish("a", "1", quality);
        auto o = lasting(version);
        o.unrouted_timeout = 20ms;
        followed f(fixture, o);
        CHECK(f.session->counters().messages_unrouted == 0);
        f.reconnect();
        REQUIRE(test::wait_until(fixture.io, [&] { return f.session->counters().messages_unrouted == 1; }));
        CHECK(count(f.told, mqtt::session_event::kind::given_up) == 1);
        fixture.settle();
        f.reconnect();
        auto a = f.subscribe("a");
        CHECK(payloads(a) == "");
    });
}

TEST_CASE("messages that nobody wants any more do not use up what the server may send") {
    for (auto const version : test::versions) {
        fixture_with_history fixture(version, {"old"});
        auto o = lasting(version);
        o.unrouted_timeout = 20ms;
        o.receive_maximum = 10;
        followed f(fixture, o);
        auto wanted = f.subscribe("new");
        fixture.broker.publish("old", "x", qos::at_least_once);
        REQUIRE(test::wait_until(fixture.io, [&] { return f.session->counters().messages_unrouted == 1; }));
        for (int i = 0; i < 100; ++i) {
            fixture.broker.publish("old", "x", qos::at_least_once);
            fixture.broker.publish("new", "x", qos::at_least_once);
        }
        std::size_t received = 0;
        while (received < 100) {
            fixture.settle();
            auto const n = payloads(wanted).size();
            if (n == 0) break;
            received += n;
        }
        CHECK(received == 100);
    }
}

TEST_CASE("with unrouted_timeout of 0 nothing is kept") {
    fixture_with_history fixture(mqtt::protocol_version::v5, {"a"});
    fixture.broker.publish("a", "1", qos::at_least_once);
    auto o = lasting(mqtt::protocol_version::v5);
    o.unrouted_timeout = 0ms;
    followed f(fixture, o);
    CHECK(f.session->counters().messages_unrouted == 1);
    CHECK(count(f.told, mqtt::session_event::kind::unrouted) == 0);
}

TEST_CASE(
    "a message whose handler throws has not been taken: it comes again after the next run, to that handler only") {
    for_each_kind([](auto version, qos quality) {
        for (bool const with_store : {false, true}) {
            test::memory_fixture fixture;
            auto o = lasting(version);
            if (with_store) o.store = std::make_shared<test::memory_store>();
            followed f(fixture, o);
            int good = 0, bad = 0;
            auto const s = test::run(fixture.io, f.session->subscribe("a/#", [&](mqtt::publish const&) { ++good; }));
            auto inbox = f.subscribe("+/b");
            auto const t = test::run(fixture.io, f.session->subscribe("a/b", [&](mqtt::publish const&) {
                if (++bad == 1) throw std::runtime_error("no database");
            }));
            fixture.broker.publish("a/b", "1", quality);
            CHECK_THROWS_AS(f.running->run(), std::runtime_error);
            CHECK(bad == 1);
            f.start();
            CHECK(good == 1);
            CHECK(bad == 2);
            CHECK(payloads(inbox) == "1");
            fixture.settle();
            f.reconnect();
            CHECK(good == 1);
            CHECK(bad == 2);
            CHECK(payloads(inbox) == "");
        }
    });
}

TEST_CASE("a subscription that nobody reads stops no other, and is told of") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture;
        auto o = lasting(version);
        o.receive_maximum = 10;
        o.stalled_after = 20ms;
        followed f(fixture, o);
        auto unread = f.subscribe("config");
        auto work = f.subscribe("work");
        fixture.broker.publish("config", "1", quality);
        std::size_t received = 0;
        for (int i = 0; i < 100; ++i) {
            fixture.broker.publish("work", "x", quality);
            fixture.settle();
            received += payloads(work).size();
        }
        CHECK(received == 100);
        auto const stalled = mqtt::session_event::kind::stalled;
        REQUIRE(test::wait_until(fixture.io, [&] { return count(f.told, stalled) == 1; }));
        CHECK(f.told.back().detail == "config");
        CHECK(payloads(unread) == "1");
    });
}

TEST_CASE("a subscription whose handle is let go of holds up nobody, and its messages wait for another") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture;
        auto o = lasting(version);
        o.receive_maximum = 10;
        followed f(fixture, o);
        {
            auto const first = f.subscribe("config");
            auto const copy = first;
            fixture.broker.publish("config", "1", quality);
            fixture.settle();
        }
        fixture.broker.publish("config", "2", quality);
        auto work = f.subscribe("work");
        std::size_t received = 0;
        for (int i = 0; i < 100; ++i) {
            fixture.broker.publish("work", "x", quality);
            fixture.settle();
            received += payloads(work).size();
        }
        CHECK(received == 100);
        auto again = f.subscribe("config");
        CHECK(payloads(again) == "12");
        CHECK(f.session->counters().messages_unrouted == 0);
    });
}

TEST_CASE("what an inbox of a subscription that was refused holds is not lost") {
    for (auto const quality : acknowledged_qualities) {
        fixture_with_history fixture(mqtt::protocol_version::v5, {"a"});
        bool refuses = true;
        fixture.broker.hooks().authorize_subscribe = [&](auto&&...) {
            return std::exchange(refuses, false) ? mqtt::reason_code::not_authorized : mqtt::reason_code::success;
        };
        fixture.broker.publish("a", "1", quality);
        followed f(fixture, lasting(mqtt::protocol_version::v5));
        std::error_code error;
        test::run(fixture.io, test::only(f.session->subscribe("a", {}, error)));
        CHECK(error == mqtt::reason_code::not_authorized);
        fixture.settle();
        auto a = f.subscribe("a");
        CHECK(payloads(a) == "1");
    }
}

TEST_CASE("messages that wait in an inbox are not copied by connections that are lost") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture;
        followed f(fixture, lasting(version));
        auto inbox = f.subscribe("a");
        for (auto const payload : {"1", "2", "3", "4", "5"}) fixture.broker.publish("a", payload, quality);
        fixture.settle();
        auto first = inbox.try_receive();  // and one that the application holds
        for (int i = 0; i < 20; ++i) f.reconnect();
        CHECK(inbox.size() == 4);
        CHECK(payloads(inbox) == "2345");
        fixture.settle();
        f.reconnect();
        CHECK(inbox.size() == 0);
        first.reset();
        fixture.settle();
        f.reconnect();
        CHECK(inbox.size() == 0);
    });
}

TEST_CASE("a message that is given back, or destroyed for an exception, comes again on the next connection") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture;
        followed f(fixture, lasting(version));
        auto inbox = f.subscribe("a");
        auto other = f.subscribe("+");
        for (auto const payload : {"1", "2", "3"}) fixture.broker.publish("a", payload, quality);
        fixture.settle();
        inbox.try_receive()->abandon();
        auto const work = [](memory_session::subscription& s) -> asio::awaitable<void> {
            auto const m = co_await s.receive();
            throw std::runtime_error("the bridge's other end has gone");
        };
        CHECK_THROWS_AS(test::run(fixture.io, work(inbox)), std::runtime_error);
        CHECK(payloads(inbox) == "3");
        CHECK(payloads(other) == "123");
        fixture.settle();
        CHECK(inbox.size() == 0);
        f.reconnect();
        CHECK(payloads(inbox) == "12");
        CHECK(payloads(other) == "");
        fixture.settle();
        f.reconnect();
        CHECK(inbox.size() == 0);
    });
}

TEST_CASE("in MQTT 3.1.1, too, what waits in inboxes is bounded, and all arrives") {
    for (auto const quality : acknowledged_qualities) {
        test::memory_fixture fixture;
        auto o = lasting(mqtt::protocol_version::v3_1_1);
        o.receive_maximum = 10;
        followed f(fixture, o);
        auto inbox = f.subscribe("a");
        std::string const large(50'000, 'x');
        int const all = 1000;
        for (int i = 0; i < all; ++i) fixture.broker.publish("a", large, quality);
        fixture.settle();
        CHECK(inbox.size() < 30);
        int received = 0;
        while (auto const m = inbox.try_receive()) {
            ++received;
            if (inbox.size() == 0) fixture.settle();
        }
        CHECK(received == all);
        CHECK(f.session->counters().connections == 1);
    }
}

TEST_CASE("in MQTT 3.1.1 a reader that waits for answers of the server gets them, and no message is lost") {
    for (auto const quality : acknowledged_qualities) {
        test::memory_fixture fixture;
        auto o = lasting(mqtt::protocol_version::v3_1_1);
        o.receive_maximum = 10;
        followed f(fixture, o);
        auto inbox = f.subscribe("in");
        auto result = f.subscribe("out", {.inbox = 100'000});
        int const all = 200;
        for (int i = 0; i < all; ++i) fixture.broker.publish("in", std::to_string(i), quality);
        std::string expected, seen;
        for (int i = 0; i < all; ++i) expected += std::to_string(i) + ' ';
        auto const bridge = [&]() -> asio::awaitable<void> {
            while (seen != expected) {
                auto const m = co_await inbox.receive();
                co_await f.session->publish("out", m.payload(), {.qos = quality});
                seen += std::string(m.payload()) + ' ';
            }
        };
        auto const drain = [&]() -> asio::awaitable<void> {
            for (;;) co_await result.receive();
        };
        task<void> draining(fixture.io, drain());
        test::run(fixture.io, bridge());
        CHECK(seen == expected);
        draining.cancel();
        fixture.settle();
    }
}

TEST_CASE("a handler that is called with a kept message may subscribe, and gets what was kept before that") {
    for_each_kind([](auto version, qos quality) {
        fixture_with_history fixture(version, {"a", "b"});
        fixture.broker.publish("b", "1", quality);
        fixture.broker.publish("a", "2", quality);
        followed f(fixture, lasting(version));
        std::string seen;
        std::unique_ptr<task<void>> second;
        auto const subscribe_too = [&](mqtt::publish const&) {
            auto subscribing = f.session->subscribe("b", [&](mqtt::publish const& m) { seen += m.payload; });
            second = std::make_unique<task<void>>(fixture.io, test::only(std::move(subscribing)));
        };
        test::run(fixture.io, test::only(f.session->subscribe("a", subscribe_too)));
        fixture.settle();
        CHECK(seen == "1");
        REQUIRE(second != nullptr);
        CHECK(second->done());
    });
}

TEST_CASE("what waits in an inbox that is let go of goes to another subscription, also one made before") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture;
        followed f(fixture, lasting(version));
        auto s = f.subscribe("a");
        for (auto const payload : {"4", "5"}) fixture.broker.publish("a", payload, quality);
        fixture.settle();
        s = f.subscribe("a");  // made before the old one goes
        fixture.settle();
        CHECK(payloads(s) == "45");
        fixture.settle();
        f.reconnect();
        CHECK(s.size() == 0);
    });
}

TEST_CASE("an event handler may let go of a subscription where what another one holds is told of") {
    fixture_with_history fixture(mqtt::protocol_version::v5, {"a"});
    bool refuses = false;
    fixture.broker.hooks().authorize_subscribe = [&](auto&&...) {
        return std::exchange(refuses, false) ? mqtt::reason_code::not_authorized : mqtt::reason_code::success;
    };
    fixture.broker.publish("a", "1", qos::at_least_once);
    std::vector<memory_session::subscription> others;
    followed f(fixture, lasting(mqtt::protocol_version::v5));
    f.on_told = [&](mqtt::session_event const& e) {
        if (e.what == mqtt::session_event::kind::unrouted) others.clear();
    };
    for (auto const filter : {"x", "y", "z"}) others.push_back(f.subscribe(filter));
    refuses = true;
    std::error_code error;
    test::run(fixture.io, test::only(f.session->subscribe("a", {}, error)));
    CHECK(error == mqtt::reason_code::not_authorized);
    fixture.settle();
    CHECK(others.empty());
    auto a = f.subscribe("a");
    CHECK(payloads(a) == "1");
}

TEST_CASE("getting messages again that were given back leaves the receive maximum as it is") {
    test::memory_fixture fixture;
    std::vector<std::uint16_t> announced;
    fixture.broker.hooks().on_connect = [&](runnel::testing::connect_attempt& c) {
        announced.push_back(c.packet.props.get<mqtt::property_id::receive_maximum>().value_or(65535));
        return mqtt::reason_code::success;
    };
    auto o = lasting(mqtt::protocol_version::v5);
    o.receive_maximum = 2;
    followed f(fixture, o);
    auto s = f.subscribe("a");
    for (auto const payload : {"1", "2", "3"}) fixture.broker.publish("a", payload, qos::at_least_once);
    fixture.settle();
    s.try_receive()->abandon();
    s.try_receive()->abandon();
    REQUIRE(test::wait_until(fixture.io, [&] { return s.size() == 2; }));
    CHECK(payloads(s) == "12");
    fixture.settle();
    CHECK(payloads(s) == "3");
    CHECK(announced == std::vector<std::uint16_t>{2, 2});
}

TEST_CASE("in MQTT 3.1.1 what comes at once is kept for subscriptions, even if that is more than the receive maximum") {
    for (auto const quality : acknowledged_qualities) {
        fixture_with_history fixture(mqtt::protocol_version::v3_1_1, {"a"});
        std::string expected;
        for (int i = 0; i < 50; ++i) {
            fixture.broker.publish("a", std::to_string(i), quality);
            expected += std::to_string(i);
        }
        auto o = lasting(mqtt::protocol_version::v3_1_1);
        o.receive_maximum = 10;
        followed f(fixture, o);
        auto s = f.subscribe("a");
        std::string all = payloads(s);
        // What was left out while SUBACK was awaited comes on another connection.
        CHECK(test::wait_until(fixture.io, [&] { return (all += payloads(s)).size() >= expected.size(); }));
        CHECK(all == expected);
        CHECK(f.session->counters().messages_unrouted == 0);
    }
}

TEST_CASE("a dead connection is noticed while messages wait to be read and the server's answer is awaited") {
    test::scripted_peer peer([](test::heard_packet const& p) -> std::string {
        if (p.type == mqtt::packet_type::connect) return test::packet(0x20, test::hex("00 00"));
        if (p.type != mqtt::packet_type::subscribe) return {};
        std::string all = test::packet(0x90, p.identifier() + '\1');
        for (char const id : {'\1', '\2'}) all += test::packet(0x32, test::field("a") + '\0' + id);
        return all;
    });
    auto o = lasting(mqtt::protocol_version::v3_1_1);
    o.receive_maximum = 2;
    o.keep_alive = 1s;
    std::vector<std::error_code> ends;
    o.on_event = [&](mqtt::session_event const& e) {
        if (e.what == mqtt::session_event::kind::disconnected) ends.push_back(e.error);
    };
    memory_session session(peer.io.get_executor(), peer.transport, std::move(o));
    task<void> running(peer.io, session.run());
    auto s = test::run(peer.io, session.subscribe("a"));
    test::settle(peer.io);
    CHECK(s.size() == 2);
    CHECK(session.try_publish("b", "", {.qos = qos::at_least_once}));
    CHECK(test::wait_until(peer.io, [&] { return !ends.empty(); }, 5s));
    REQUIRE_FALSE(ends.empty());
    CHECK(ends[0] == mqtt::errc::keep_alive_timeout);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("a message is given back whether the coroutine that fails has it as a variable or as a parameter") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture;
        followed f(fixture, lasting(version));
        auto inbox = f.subscribe("a");
        for (auto const payload : {"1", "2", "3"}) fixture.broker.publish("a", payload, quality);
        fixture.settle();
        auto const fails = [](mqtt::message m) -> asio::awaitable<void> {
            CHECK(static_cast<bool>(m));
            throw std::runtime_error("the bridge's other end has gone");
            co_return;
        };
        auto const passes_on = [&](mqtt::message m) -> asio::awaitable<void> {
            auto failing = fails(std::move(m));
            co_await std::move(failing);
        };
        CHECK_THROWS_AS(test::run(fixture.io, fails(*inbox.try_receive())), std::runtime_error);
        CHECK_THROWS_AS(test::run(fixture.io, passes_on(*inbox.try_receive())), std::runtime_error);
        // What a lambda has captured lives until its coroutine has ended, and its exception has been dealt with.
        asio::co_spawn(
            fixture.io,
            [captured = *inbox.try_receive(), &passes_on]() mutable -> asio::awaitable<void> {
                auto passing = passes_on(std::move(captured));
                co_await std::move(passing);
            },
            [](std::exception_ptr) {});
        fixture.settle();
        f.reconnect();
        CHECK(payloads(inbox) == "123");
    });
}

TEST_CASE("what was on its way when the application unsubscribed holds up nothing") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture({.in_flight = 5});
        auto o = lasting(version);
        o.receive_maximum = 5;
        followed f(fixture, o);
        auto old = f.subscribe("old/+");
        auto other = f.subscribe("other");
        for (int i = 0; i < 50; ++i) fixture.broker.publish("old/x", "", quality);
        fixture.settle();
        CHECK(old.size() == 5);
        test::run(fixture.io, f.session->unsubscribe(old));
        fixture.broker.publish("other", "1", quality);
        while (old.try_receive()) {
        }
        fixture.settle();
        CHECK(payloads(other) == "1");
        CHECK(count(f.told, mqtt::session_event::kind::unrouted) == 0);
        fixture.settle();
        f.reconnect();
        CHECK(payloads(other) == "");
    });
}

TEST_CASE("a server that sends no more, as all that it sends at a time was given back, is asked for it again") {
    for_each_kind([](auto version, qos quality) {
        test::memory_fixture fixture({.in_flight = 3});
        auto o = lasting(version);
        o.stalled_after = 10ms;
        followed f(fixture, o);
        auto inbox = f.subscribe("a");
        for (auto const text : {"1", "2", "3", "4"}) fixture.broker.publish("a", text, quality);
        fixture.settle();
        auto const times = [&] { return count(f.told, mqtt::session_event::kind::asking_again); };
        auto held = inbox.try_receive();
        for (int i = 0; i < 2; ++i) inbox.try_receive()->abandon();
        // The application may still take the other one.
        test::wait_until(fixture.io, [] { return false; }, 50ms);
        CHECK(times() == 0);
        held->abandon();
        CHECK(inbox.size() == 0);
        REQUIRE(test::wait_until(fixture.io, [&] { return inbox.size() == 3; }));
        CHECK(times() == 1);
        CHECK(payloads(inbox) == "123");
        fixture.settle();
        CHECK(payloads(inbox) == "4");
        test::wait_until(fixture.io, [] { return false; }, 50ms);
        CHECK(times() == 1);
        CHECK(f.session->counters().connections == 2);
    });
}

TEST_CASE("what is given back again and again is asked for at growing intervals, and not where it would be lost") {
    for (bool const lasts : {true, false}) {
        CAPTURE(lasts);
        test::memory_fixture fixture;
        auto o = lasts ? lasting(mqtt::protocol_version::v3_1_1) : quick();
        o.clean_start = !lasts;
        o.stalled_after = 10ms;
        followed f(fixture, o);
        auto inbox = f.subscribe("a");
        fixture.broker.publish("a", "1", qos::at_least_once);
        auto const give_back = [&] {
            while (auto m = inbox.try_receive()) m->abandon();
            return false;
        };
        test::wait_until(fixture.io, give_back, 200ms);
        auto const connections = f.session->counters().connections;
        if (lasts) {
            CHECK(connections > 1);
            CHECK(connections < 7);  // after 10, 20, 40, 80 ms
        } else {
            CHECK(connections == 1);
        }
    }
}
