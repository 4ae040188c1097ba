#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

// Sessions with a store: what outlives them, and what happens when the store fails. The store is in memory.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::qos;
using mqtt::store_errc;
using test::memory_fixture;
using test::memory_session;
using test::quick;
using test::task;

struct durable_fixture : memory_fixture {
    std::shared_ptr<test::memory_store> store = std::make_shared<test::memory_store>();
    std::vector<std::string> arrived;

    durable_fixture() {
        broker.hooks().on_publish = [this](auto const&, mqtt::publish const& m) { arrived.emplace_back(m.payload); };
    }
    mqtt::session_options options(mqtt::protocol_version v = mqtt::protocol_version::v3_1_1) {
        auto o = quick("client", v);
        o.store = store;
        return o;
    }
    std::error_code error_of(mqtt::session_options o) {
        try {
            memory_session const s(io.get_executor(), transport, std::move(o));
        } catch (std::system_error const& e) {
            return e.code();
        }
        return {};
    }
    void finish(memory_session& s, task<void>& running) {
        REQUIRE(test::wait_until(
            io, [&] { return s.is_connected() && s.counters().queued_bytes == 0 && s.counters().in_flight == 0; }));
        test::run(io, s.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
};

constexpr auto full = std::errc::no_space_on_device;

}  // namespace

TEST_CASE("messages that were published offline are sent by the next session, before newer ones") {
    for (auto const version : test::versions) {
        durable_fixture p;
        {
            memory_session s(p.io.get_executor(), p.transport, p.options(version));
            for (int i = 0; i < 3; ++i) REQUIRE(s.try_publish("t", std::to_string(i), {.qos = qos::exactly_once}));
            REQUIRE(s.try_publish("t", "QoS 0 is not kept"));
            CHECK(p.store->applies == 0);
            s.save();
            CHECK(p.store->applies == 1);
        }
        memory_session s(p.io.get_executor(), p.transport, p.options(version));
        CHECK(s.restored() == 3);
        CHECK(s.accepted() == 3);
        REQUIRE(s.try_publish("t", "3", {.qos = qos::at_least_once}));
        task<void> running(p.io, s.run());
        p.finish(s, running);
        CHECK(p.arrived == std::vector<std::string>{"0", "1", "2", "3"});
        CHECK(s.accepted() == 4);
        CHECK(p.store->records.size() == 2);
    }
}

TEST_CASE("what is published while run runs is stored in the next turn, also without a connection") {
    durable_fixture p;
    runnel::memory_transport const nowhere(
        [](runnel::memory_stream<>) { throw std::system_error(asio::error::connection_refused); });
    memory_session s(p.io.get_executor(), nowhere, p.options());
    task<void> running(p.io, s.run());
    p.settle();
    for (int i = 0; i < 100; ++i) REQUIRE(s.try_publish("t", "m", {.qos = qos::at_least_once}));
    auto const before = p.store->applies;
    p.settle();
    CHECK(p.store->applies == before + 1);
    CHECK(p.store->records.size() == 102);
    test::run(p.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("a session that is destroyed stores what it can") {
    durable_fixture p;
    {
        memory_session s(p.io.get_executor(), p.transport, p.options());
        REQUIRE(s.try_publish("t", "m", {.qos = qos::at_least_once}));
    }
    CHECK(memory_session(p.io.get_executor(), p.transport, p.options()).restored() == 1);
}

TEST_CASE("many messages share one commit") {
    durable_fixture p;
    memory_session s(p.io.get_executor(), p.transport, p.options());
    task<void> running(p.io, s.run());
    for (int i = 0; i < 1000; ++i) REQUIRE(s.try_publish("t", "m", {.qos = qos::at_least_once}));
    p.finish(s, running);
    CHECK(p.arrived.size() == 1000);
    CHECK(s.counters().commits < 20);
    CHECK(s.counters().commits == p.store->applies);
}

TEST_CASE("without a store nothing is committed, and messages are counted all the same") {
    memory_fixture p;
    memory_session s(p.io.get_executor(), p.transport, quick());
    REQUIRE(s.try_publish("t", "m", {.qos = qos::at_least_once}));
    s.save();
    CHECK(s.accepted() == 1);
    CHECK(s.restored() == 0);
    CHECK(s.counters().commits == 0);
}

TEST_CASE("an error of the store ends run, and nothing is written that is not stored") {
    durable_fixture p;
    memory_session s(p.io.get_executor(), p.transport, p.options());
    {
        task<void> running(p.io, s.run());
        test::run(p.io, s.connected());
        p.settle();
        REQUIRE(s.try_publish("t", "first", {.qos = qos::at_least_once}));
        p.settle();
        CHECK(p.arrived.size() == 1);
        p.store->failure = std::make_error_code(full);
        REQUIRE(s.try_publish("t", "second", {.qos = qos::at_least_once}));
        CHECK(running.run_for_error() == full);
    }
    CHECK_FALSE(s.is_connected());
    p.settle();
    CHECK(p.arrived.size() == 1);
    CHECK_THROWS_AS(s.save(), std::system_error);

    // When there is room again the session goes on.
    p.store->failure = {};
    task<void> running(p.io, s.run());
    p.finish(s, running);
    CHECK(p.arrived == std::vector<std::string>{"first", "second"});
}

TEST_CASE("a store that fails before the first connection ends run too") {
    durable_fixture p;
    memory_session s(p.io.get_executor(), p.transport, p.options());
    p.store->failure = std::make_error_code(full);
    task<void> running(p.io, s.run());
    CHECK(running.run_for_error() == full);
    CHECK(p.arrived.empty());
}

TEST_CASE("a store that cannot be used is refused by the constructor") {
    durable_fixture p;
    auto const options = p.options();
    {
        memory_session s(p.io.get_executor(), p.transport, options);
        CHECK(p.error_of(options) == store_errc::in_use);
        s.save();
    }
    auto other = options;
    other.credentials.client_id = "another";
    CHECK(p.error_of(other) == store_errc::other_client);
    CHECK_FALSE(p.error_of(options));
    p.store->failure = std::make_error_code(std::errc::io_error);
    CHECK(p.error_of(options) == std::errc::io_error);
    p.store->failure = {};
    p.store->records[0] = "?";
    CHECK(p.error_of(options) == store_errc::unsupported_format);
    p.store->records.erase(0);
    p.store->records[std::uint64_t{1} << 61] = "?";
    CHECK(p.error_of(options) == store_errc::corrupt);
}

TEST_CASE("with credentials made for each attempt the client identifier is not compared") {
    durable_fixture p;
    {
        memory_session(p.io.get_executor(), p.transport, p.options()).save();
    }
    auto o = p.options();
    o.make_credentials = [] { return mqtt::credentials{"client|timestamp=1", {}, {}}; };
    CHECK_FALSE(p.error_of(o));
}

TEST_CASE("a QoS 2 message that has been taken is not delivered to the next session") {
    for (auto const version : test::versions) {
        durable_fixture p;
        int delivered = 0;
        {
            memory_session s(p.io.get_executor(), p.transport, p.options(version));
            task<void> running(p.io, s.run());
            auto inbox = test::run(p.io, s.subscribe("in"));
            p.broker.publish("in", "m", qos::exactly_once);
            auto m = test::run(p.io, inbox.receive());
            ++delivered;
            {
                auto const taken = std::move(m);
            }
            s.save();  // and the process ends before anything is written
            running.cancel();
            CHECK(running.run_for_error());
        }
        p.settle();
        memory_session s(p.io.get_executor(), p.transport, p.options(version));
        auto subscribing = s.subscribe("in");
        task<memory_session::subscription> subscribed(p.io, std::move(subscribing));
        task<void> running(p.io, s.run());
        auto inbox = subscribed.run();
        p.broker.publish("in", "end", qos::exactly_once);
        for (;;) {
            auto const m = test::run(p.io, inbox.receive());
            if (m.payload() == "end") break;
            ++delivered;
        }
        CHECK(delivered == 1);
        p.finish(s, running);
    }
}

TEST_CASE("a message taken before a restart is acknowledged behind an older one of its topic [MQTT-4.6.0-3]") {
    for (bool const subscribes_late : {false, true}) {
        CAPTURE(subscribes_late);
        std::string answered;  // the identifiers, in order
        test::scripted_peer server([&](test::heard_packet const& p) -> std::optional<std::string> {
            auto const publish = [](unsigned char first, char id) {
                return test::packet(first, test::field("t") + '\0' + id + "payload");
            };
            if (p.type == mqtt::packet_type::connect)
                return p.connection == 0 ? test::hex("20 02 00 00") + publish(0x34, 2)
                                         : test::hex("20 02 01 00") + publish(0x34, 1) + publish(0x3C, 2);
            if (p.type == mqtt::packet_type::subscribe) return test::hex("90 03") + p.identifier() + '\2';
            if (p.type == mqtt::packet_type::pubrec) answered += static_cast<char>('0' + p.identifier()[1]);
            return "";
        });
        auto const store = std::make_shared<test::memory_store>();
        auto options = quick();
        options.store = store;
        {
            memory_session s(server.io.get_executor(), server.transport, options);
            task<void> running(server.io, s.run());
            auto inbox = test::run(server.io, s.subscribe("t"));
            test::run(server.io, inbox.receive());
            REQUIRE(test::wait_until(server.io, [&] { return answered == "2"; }));
        }
        memory_session s(server.io.get_executor(), server.transport, options);
        task<void> running(server.io, s.run());
        if (subscribes_late) {
            test::run(server.io, s.connected());
            test::settle(server.io);
        }
        auto inbox = test::run(server.io, s.subscribe("t"));
        test::settle(server.io);
        CHECK(answered == "2");
        test::run(server.io, inbox.receive());
        CHECK(test::wait_until(server.io, [&] { return answered == "212"; }));
    }
}
