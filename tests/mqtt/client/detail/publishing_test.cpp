#include <runnel/mqtt/client/session.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::errc;
using mqtt::publish_result;
using mqtt::qos;
using mqtt::reason_code;
using outcome = publish_result::outcome;
using test::connected_session;
using test::memory_fixture;
using test::memory_session;
using test::quick;
using test::task;

// A session whose `run` has not begun, and what the broker receives once it has.
struct waiting_session : memory_fixture {
    explicit waiting_session(mqtt::session_options o = quick()) : session(io.get_executor(), transport, std::move(o)) {
        broker.hooks().on_publish = [this](auto const&, mqtt::publish const& m) { arrived.emplace_back(m.payload); };
    }

    void go_online(std::size_t messages) {
        task<void> const running(io, session.run());
        CHECK(test::wait_until(io, [&] { return arrived.size() == messages; }));
        settle();
        test::run(io, session.disconnect());
        CHECK(broker.counters().protocol_errors == 0);
    }

    std::vector<std::string> arrived;
    memory_session session;
};

}  // namespace

TEST_CASE("the result of publish says how far the message has come") {
    waiting_session w;
    auto const early = test::run(w.io, w.session.publish("t", "early"));
    CHECK(early.what == outcome::queued);
    task<void> running(w.io, w.session.run());
    test::run(w.io, w.session.connected());
    CHECK(test::run(w.io, w.session.publish("t", "sent")).what == outcome::sent);
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        auto const result = test::run(w.io, w.session.publish("t", "acknowledged", {.qos = quality}));
        CHECK(result.what == outcome::acknowledged);
        CHECK(result == reason_code::success);
        CHECK(result.details == nullptr);
    }
    CHECK(w.session.counters().messages_published == 4);
    CHECK(w.session.counters().messages_acknowledged == 2);
    test::run(w.io, w.session.disconnect());
}

TEST_CASE("messages that nobody waits for are counted as acknowledged, too") {
    waiting_session w;
    task<void> running(w.io, w.session.run());
    test::run(w.io, w.session.connected());
    CHECK(w.session.try_publish("t", "x", {.qos = qos::at_least_once}));
    CHECK(w.session.try_publish("t", "x", {.qos = qos::exactly_once}));
    CHECK(w.session.try_publish("t", "x"));
    task<mqtt::publish_result> given_up(w.io, w.session.publish("t", "x", {.qos = qos::at_least_once}));
    test::settle(w.io);
    given_up.cancel();
    test::run(w.io, w.session.drained());
    CHECK(w.session.counters().messages_acknowledged == 3);
    test::run(w.io, w.session.disconnect());
}

TEST_CASE("a message that could not be sent in time is withdrawn") {
    for (auto const quality : test::qualities) {
        mqtt::session_options o = quick();
        o.maximum_queued = 1;  // so that the second message waits for room
        waiting_session w(o);
        task<publish_result> first(w.io, w.session.publish("t", "first", {.qos = qos::at_least_once}));
        task<publish_result> late(w.io, w.session.publish("t", "late", {.qos = quality, .timeout = 1ms}));
        CHECK(late.run_for_error() == errc::message_expired);
        w.go_online(1);
        CHECK(w.arrived == std::vector<std::string>{"first"});
        CHECK_FALSE(first.run_for_error());
    }
}

TEST_CASE("a queued message is withdrawn when its time is up, and those behind it are sent") {
    waiting_session w;
    task<publish_result> late(w.io, w.session.publish("t", "late", {.qos = qos::exactly_once, .timeout = 1ms}));
    task<publish_result> other(w.io, w.session.publish("t", "other", {.qos = qos::exactly_once, .timeout = 20s}));
    CHECK(late.run_for_error() == errc::message_expired);
    w.go_online(1);
    CHECK(w.arrived == std::vector<std::string>{"other"});
    CHECK(other.run().what == outcome::acknowledged);
}

TEST_CASE("a message that was sent and not acknowledged in time is said to have been sent, and remains promised") {
    asio::io_context io;
    std::optional<runnel::memory_stream<>> server;
    runnel::memory_transport const transport([&](runnel::memory_stream<> s) { server.emplace(std::move(s)); });
    memory_session s(io.get_executor(), transport, quick());
    task<void> running(io, s.run());
    CHECK(test::wait_until(io, [&] { return server.has_value(); }));
    runnel::send_buffer connack;
    connack.append({"\x20\x02\x00\x00", 4});
    test::run(io, server->write(connack));
    test::run(io, s.connected());
    auto publishing = s.publish("t", "m", {.qos = qos::at_least_once, .timeout = 10ms});
    CHECK(test::error_of(io, std::move(publishing)) == errc::response_timeout);
    CHECK(s.counters().in_flight == 1);
    running.cancel();
    CHECK(running.run_for_error());
}

TEST_CASE("overflow::refuse refuses a message for which there is no room") {
    mqtt::session_options o = quick();
    o.maximum_queued = 100;
    o.when_full = mqtt::overflow::refuse;
    waiting_session w(o);
    std::string const payload(60, 'x');
    CHECK(test::run(w.io, w.session.publish("t", payload)).what == outcome::queued);
    for (auto const quality : test::qualities)
        CHECK(test::error_of(w.io, w.session.publish("t", payload, {.qos = quality})) == errc::queue_full);
    CHECK_FALSE(w.session.try_publish("t", payload));
    w.go_online(1);
}

TEST_CASE("the queue is bounded in messages too") {
    mqtt::session_options o = quick();
    o.maximum_queued_messages = 2;
    o.when_full = mqtt::overflow::refuse;
    waiting_session w(o);
    for (int i = 0; i < 2; ++i) CHECK(test::run(w.io, w.session.publish("t", "m")).what == outcome::queued);
    CHECK(test::error_of(w.io, w.session.publish("t", "m", {.qos = qos::at_least_once})) == errc::queue_full);
    w.go_online(2);
    o.maximum_queued_messages = 0;
    CHECK_THROWS_AS(memory_session(w.io.get_executor(), w.transport, o), std::out_of_range);
}

TEST_CASE("overflow::drop_oldest drops and counts QoS 0 messages, and no others") {
    mqtt::session_options o = quick();
    o.maximum_queued = 40;
    o.when_full = mqtt::overflow::drop_oldest;
    waiting_session w(o);
    task<publish_result> kept(w.io, w.session.publish("t", "QoS 1", {.qos = qos::at_least_once}));
    w.settle();
    for (int i = 0; i < 100; ++i)
        CHECK(test::run(w.io, w.session.publish("t", "QoS 0 " + std::to_string(i))).what == outcome::queued);
    CHECK(w.session.counters().messages_dropped == 98);
    w.go_online(3);
    CHECK(w.arrived == std::vector<std::string>{"QoS 1", "QoS 0 98", "QoS 0 99"});
    CHECK_FALSE(kept.run_for_error());
}

TEST_CASE("for a message with an alias of its own, which cannot be queued, none that waits is dropped") {
    for (auto const full : {mqtt::overflow::wait, mqtt::overflow::drop_oldest, mqtt::overflow::refuse}) {
        memory_fixture f({.accepts = {.topic_alias_maximum = 50}});
        std::vector<std::string> arrived;
        f.broker.hooks().on_publish = [&](auto const&, mqtt::publish const& m) { arrived.emplace_back(m.topic); };
        auto o = quick("client", mqtt::protocol_version::v5);
        o.maximum_unwritten = 1000;
        o.when_full = full;
        mqtt::properties p;
        p.topic_alias = std::uint16_t{40};
        memory_session* to = nullptr;
        std::unique_ptr<task<publish_result>> own;
        o.on_event = [&](mqtt::session_event const& e) {
            if (e.what != mqtt::session_event::kind::connected) return;
            CHECK_FALSE(to->try_publish("own", "x", {.props = &p}));
            auto publishing = to->publish(std::string_view("own"), std::string_view("x"), {.props = &p});
            own = std::make_unique<task<publish_result>>(f.io, std::move(publishing));
        };
        memory_session s(f.io.get_executor(), f.transport, o);
        to = &s;
        std::string const payload(50, 'x');
        for (int i = 0; i < 100; ++i) CHECK(s.try_publish("t", payload));
        task<void> running(f.io, s.run());
        test::run(f.io, s.connected());
        bool const refuses = full == mqtt::overflow::refuse;
        CHECK(own->run_for_error() == (refuses ? make_error_code(errc::topic_alias_cannot_wait) : std::error_code()));
        std::size_t const all = refuses ? 100 : 101;
        CHECK(test::wait_until(f.io, [&] { return arrived.size() == all; }, 1s));
        CHECK(s.counters().messages_dropped == 0);
        if (!refuses) CHECK(arrived.back() == "own");
        test::run(f.io, s.publish("own", "x", {.props = &p}));  // nothing is before it
        test::run(f.io, s.disconnect());
        CHECK(f.broker.counters().protocol_errors == 0);
    }
}

TEST_CASE("a message with an alias of its own that loses its connection while it waits has no use any more") {
    memory_fixture f({.accepts = {.topic_alias_maximum = 50}});
    auto o = quick("client", mqtt::protocol_version::v5);
    o.maximum_unwritten = 1000;
    mqtt::properties p;
    p.topic_alias = std::uint16_t{40};
    memory_session* to = nullptr;
    std::unique_ptr<task<publish_result>> own;
    o.on_event = [&](mqtt::session_event const& e) {
        if (e.what != mqtt::session_event::kind::connected || own) return;
        auto publishing = to->publish(std::string_view("own"), std::string_view("x"), {.props = &p});
        own = std::make_unique<task<publish_result>>(f.io, std::move(publishing));
    };
    f.on_open = [](runnel::memory_stream<>& s) { s.incoming().capacity = 100; };
    memory_session s(f.io.get_executor(), f.transport, o);
    to = &s;
    std::string const payload(50, 'x');
    for (int i = 0; i < 100; ++i) CHECK(s.try_publish("t", payload));
    task<void> running(f.io, s.run());
    CHECK(test::wait_until(f.io, [&] { return own != nullptr; }));
    f.io.restart();
    f.io.poll_one();
    f.broker.drop_client("client");
    CHECK(own->run_for_error() == errc::topic_alias_invalid);
    test::run(f.io, s.disconnect());
}

TEST_CASE("at a pace a message with an alias of its own is refused for good: it does not wait for ever") {
    auto o = quick("client", mqtt::protocol_version::v5);
    o.pace = {.at_most_once = 100};
    connected_session s(o, {.accepts = {.topic_alias_maximum = 50}});
    mqtt::properties p;
    p.topic_alias = std::uint16_t{40};
    CHECK(test::error_of(s.io, s.session.publish("t", "p", {.props = &p})) == errc::topic_alias_invalid);
    s.disconnect();
}

TEST_CASE("publishing with a deadline ends when the session is destroyed") {
    memory_fixture p;
    std::optional<memory_session> s(std::in_place, p.io.get_executor(), p.transport, quick());
    task<publish_result> pending(p.io, s->publish("t", "m", {.qos = qos::at_least_once, .timeout = 1h}));
    p.settle();
    s.reset();
    CHECK(pending.run_for_error() == errc::disconnected);
}

TEST_CASE("a message that expires while there is no connection ends, and is not sent") {
    memory_fixture p;
    bool online = false;
    p.on_open = [&](auto&) {
        if (!online) throw std::system_error(asio::error::connection_refused);
    };
    std::size_t heard = 0;
    p.broker.hooks().on_publish = [&](auto const&, auto const&) { ++heard; };
    memory_session s(p.io.get_executor(), p.transport, quick("client", mqtt::protocol_version::v5));
    task<void> running(p.io, s.run());
    p.settle();
    mqtt::properties props;
    props.message_expiry_interval = 1;
    CHECK(test::run(p.io, s.publish("t", "QoS 0", {.props = &props})).what == outcome::queued);
    auto publishing = s.publish("t", "QoS 1", {.qos = qos::at_least_once, .props = &props});
    CHECK(test::error_of(p.io, std::move(publishing)) == errc::message_expired);
    online = true;
    CHECK(test::run(p.io, s.publish("t", "m", {.qos = qos::at_least_once})).what == outcome::acknowledged);
    CHECK(heard == 1);
    test::run(p.io, s.disconnect());
}

TEST_CASE("in MQTT 5 topics are abbreviated after their first message") {
    connected_session c(quick("client", mqtt::protocol_version::v5));
    std::vector<std::string> topics;
    c.broker.hooks().on_publish = [&](auto const&, mqtt::publish const& m) { topics.emplace_back(m.topic); };
    std::string const topic(1000, 'x');
    for (auto const quality : test::qualities)
        for (int i = 0; i < 10; ++i) c.publish(topic, "m", quality);
    c.settle();
    CHECK(topics == std::vector<std::string>(30, topic));
    bool const announced = c.broker.options().accepts.topic_alias_maximum != 0;
    CHECK((c.session.counters().bytes_sent < 3000) == announced);
    c.disconnect();
}

TEST_CASE("temporaries and moved strings go along with a publish that is left to itself") {
    waiting_session w;
    {
        // Longer than what a string holds in itself, so that a view of one that has gone is noticed.
        std::string const id(40, 'i');
        std::string topic = "topics/" + id, json = std::string(40, 'j');
        auto const begin = [&](auto publishing) { asio::co_spawn(w.io, std::move(publishing), asio::detached); };
        constexpr mqtt::publish_options q1{.qos = qos::at_least_once};
        begin(w.session.publish("topics/" + id, std::string(40, 'a'), q1));
        begin(w.session.publish("t", std::string(40, 'b'), q1));
        begin(w.session.publish("topics/" + id, "c", q1));
        begin(w.session.publish("t", std::string_view("d")));
        begin(w.session.publish(std::move(topic), std::move(json), q1));
        std::error_code ignored;
        begin(w.session.publish(std::string(40, 't'), std::string(40, 'e'), q1, ignored));
        w.io.poll();
    }
    w.go_online(6);
    CHECK(w.arrived == std::vector<std::string>{std::string(40, 'a'), std::string(40, 'b'), "c", "d",
                                                std::string(40, 'j'), std::string(40, 'e')});
}

TEST_CASE("a publish that keeps its strings can be destroyed before it has begun, and while it waits") {
    waiting_session w;
    {
        auto never = w.session.publish(std::string(40, 't'), std::string(40, 'p'));
    }
    {
        task<publish_result> waiting(
            w.io, w.session.publish(std::string(40, 't'), std::string(40, 'p'), {.qos = qos::at_least_once}));
        w.io.poll();
    }
    w.go_online(1);  // accepted, so it is sent all the same
    CHECK(w.arrived.size() == 1);
}

TEST_CASE("topic filters and handles need not outlive the calls they are given to") {
    connected_session c;
    std::vector<std::string> heard;
    auto const handler = [&](mqtt::publish const& m) { heard.emplace_back(m.topic); };
    std::string const name(40, 'n');
    {
        std::vector<std::string> const texts = {"one/" + name, "two/" + name};
        std::vector<std::string_view> const filters(texts.begin(), texts.end());
        asio::co_spawn(c.io, c.session.subscribe("three/" + name, handler), asio::detached);
        asio::co_spawn(c.io, c.session.subscribe(filters, handler), asio::detached);
    }
    test::settle(c.io);
    for (auto const* level : {"one/", "two/", "three/"}) c.publish(level + name, "x", qos::at_least_once);
    CHECK(heard == std::vector<std::string>{"one/" + name, "two/" + name, "three/" + name});
    {
        auto const handle = c.subscribe("four/" + name);
        asio::co_spawn(c.io, c.session.unsubscribe(handle), asio::detached);
    }
    test::settle(c.io);
    CHECK(c.broker.counters().protocol_errors == 0);
    c.disconnect();
}

TEST_CASE("who waits for room gets that of a message whose time is over, and of one who waits no more") {
    mqtt::session_options o = quick();
    o.maximum_queued = 100;
    waiting_session w(o);
    constexpr mqtt::publish_options q1{.qos = qos::at_least_once};
    SUBCASE("late") {
        mqtt::publish_options const brief{.qos = qos::at_least_once, .timeout = 1ms};
        task<publish_result> late(w.io, w.session.publish("t", std::string(80, 'x'), brief));
        task<publish_result> next(w.io, w.session.publish("t", std::string(80, 'y'), q1));
        CHECK(late.run_for_error() == errc::message_expired);
        w.settle();
        CHECK(w.session.accepted() == 2);
    }
    SUBCASE("cancelled") {
        task<publish_result> first(w.io, w.session.publish("t", std::string(20, 'x'), q1));
        task<publish_result> large(w.io, w.session.publish("t", std::string(90, 'y'), q1));
        task<publish_result> small(w.io, w.session.publish("t", std::string(20, 'z'), q1));
        w.settle();
        CHECK(w.session.accepted() == 1);
        large.cancel();
        w.settle();
        CHECK(large.error() == asio::error::operation_aborted);
        CHECK(w.session.accepted() == 2);
    }
}

TEST_CASE("what the server says beside its reason comes with the result, and with the exception") {
    char reason = '\0';
    test::scripted_peer peer([&](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == mqtt::packet_type::connect) return test::hex("20 03 00 00 00");
        if (p.type != mqtt::packet_type::publish) return std::string();
        return test::packet(0x40, p.body.substr(3, 2) + reason + test::hex("07 1F 00 04 'full'"));
    });
    memory_session s(peer.io.get_executor(), peer.transport, quick("client", mqtt::protocol_version::v5));
    task<void> running(peer.io, s.run());
    auto const result = test::run(peer.io, s.publish("t", "x", {.qos = qos::at_least_once}));
    REQUIRE(result.details != nullptr);
    CHECK(result.details->reason_string == "full");
    reason = '\x97';
    task<publish_result> refused(peer.io, s.publish("t", "x", {.qos = qos::at_least_once}));
    CHECK(refused.run_for_error() == reason_code::quota_exceeded);
    CHECK(refused.error_text().find("full") != std::string::npos);
    running.cancel();
    CHECK(running.run_for_error());
}

TEST_CASE("a request that ends unsent leaves its place at once, and is in no store any more") {
    // The server takes one message at a time, and answers none.
    test::scripted_peer peer([&](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == mqtt::packet_type::connect) return test::hex("20 06 00 00 03 21 00 01");
        return p.type == mqtt::packet_type::subscribe ? test::packet(0x90, p.identifier() + test::hex("00 01"))
                                                      : std::string();
    });
    auto const store = std::make_shared<test::memory_store>();
    auto o = quick("client", mqtt::protocol_version::v5);
    o.maximum_queued_messages = 2;
    o.store = store;
    memory_session s(peer.io.get_executor(), peer.transport, o);
    task<void> running(peer.io, s.run());
    CHECK(s.try_publish("t", "x", {.qos = qos::at_least_once}));
    task<mqtt::message> asking(peer.io, s.request("question", "x", 1h));
    test::settle(peer.io);
    CHECK(s.accepted() == 2);
    auto const is_stored = [&](std::string_view text) {
        return std::ranges::any_of(store->records,
                                   [=](auto const& r) { return r.second.find(text) != std::string::npos; });
    };
    CHECK(is_stored("question"));
    SUBCASE("nobody waits") {
        asking.cancel();
        test::settle(peer.io);
        CHECK(asking.error() == asio::error::operation_aborted);
        CHECK_FALSE(is_stored("question"));
    }
    SUBCASE("somebody waits") {
        task<publish_result> next(peer.io, s.publish("t", "y", {.qos = qos::at_least_once}));
        test::settle(peer.io);
        CHECK(s.accepted() == 2);
        asking.cancel();
        test::settle(peer.io);
        CHECK(s.accepted() == 3);
        running.cancel();
        running.run_for_error();
        next.run_for_error();
    }
}

TEST_CASE("an expiry interval is looked at when it is over, once, where nothing else happens") {
    mqtt::session_options o = quick("client", mqtt::protocol_version::v5);
    o.reconnect.initial = o.reconnect.maximum = 1h;
    asio::io_context io;
    memory_session s(io.get_executor(), runnel::memory_transport(), o);
    task<void> running(io, s.run());
    mqtt::properties props;
    props.message_expiry_interval = 1;
    task<publish_result> publishing(io, s.publish("t", "x", {.qos = qos::at_least_once, .props = &props}));
    test::settle(io);
    int handlers = 0;
    CHECK(test::wait_until(io, [&] { return ++handlers, publishing.done(); }));
    REQUIRE(publishing.done());
    CHECK(publishing.error() == errc::message_expired);
    CHECK(handlers < 10);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("who waits for room to write has it in the queue when the connection is lost") {
    asio::io_context io;
    std::optional<runnel::memory_stream<>> server;
    runnel::memory_transport const transport([&](runnel::memory_stream<> s) { server.emplace(std::move(s)); });
    auto o = quick();
    o.reconnect.initial = o.reconnect.maximum = 1h;
    o.maximum_unwritten = 100;
    memory_session s(io.get_executor(), transport, o);
    task<void> running(io, s.run());
    REQUIRE(test::wait_until(io, [&] { return server.has_value(); }));
    test::run(io, test::write_text(*server, test::hex("20 02 00 00")));
    test::run(io, s.connected());
    server->incoming().capacity = 1;
    CHECK(s.try_publish("t", std::string(5000, 'x')));
    test::settle(io);
    CHECK(s.try_publish("t", std::string(200, 'y')));
    task<publish_result> waiting(io, s.publish("t", "z"));
    test::settle(io);
    CHECK_FALSE(waiting.done());
    server.reset();
    test::settle(io);
    REQUIRE(waiting.done());
    CHECK(waiting.get().what == outcome::queued);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("who waits for room is served once what has ended is stored, and costs nothing until then") {
    std::string held;
    test::scripted_peer peer([&](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == mqtt::packet_type::connect) return test::hex("20 02 00 00");
        if (p.type != mqtt::packet_type::publish) return std::string();
        if (p.body.find("now") == 2) return test::packet(0x40, held);
        return held = p.body.substr(3, 2), test::hex("32 06 00 01 74 00 01 78");  // which nobody takes
    });
    auto o = quick();
    o.maximum_queued_messages = 1;
    o.receive_maximum = 1;
    o.unrouted_timeout = 1h;
    o.store = std::make_shared<test::memory_store>();
    memory_session s(peer.io.get_executor(), peer.transport, o);
    task<void> running(peer.io, s.run());
    task<publish_result> first(peer.io, s.publish("t", "x", {.qos = qos::at_least_once}));
    task<publish_result> next(peer.io, s.publish("t", "y", {.qos = qos::at_least_once}));
    test::run(peer.io, s.connected());
    test::settle(peer.io);  // comes to its end
    CHECK(s.accepted() == 1);
    CHECK(s.try_publish("now", ""));
    test::settle(peer.io);
    CHECK(first.done());
    CHECK(s.accepted() == 2);
    running.cancel();
    running.run_for_error();
    next.run_for_error();
}
