#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <chrono>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <span>
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

TEST_CASE("a message is discarded, and who has published it is told, or there is no memory for that and it stays") {
    for (auto const by : {runnel::testing::allocator::operator_new, runnel::testing::allocator::aligned_alloc})
        for (std::size_t nth = 1;; ++nth) {
            CAPTURE(nth);
            memory_fixture p;
            memory_session s(p.io.get_executor(), p.transport, quick());
            task<mqtt::publish_result> publishing(p.io, s.publish("t", "m", {.qos = qos::at_least_once}));
            p.settle();
            bool failed = false;
            {
                runnel::testing::failing_allocation const failing(nth, by);
                try {
                    static_cast<void>(s.discard(0));
                } catch (std::bad_alloc const&) {
                    failed = true;  // and nothing has happened
                }
                failed = failed || failing.has_failed();
            }
            p.settle();
            CHECK(publishing.done() == s.queued().empty());
            if (!publishing.done()) CHECK(s.discard(0));
            p.settle();
            REQUIRE(publishing.done());
            CHECK(publishing.error() == mqtt::errc::message_discarded);
            if (!failed) break;
        }
}

TEST_CASE("without run, too, whose time is over is told so another time if there is no memory") {
    using namespace std::chrono_literals;
    for (auto const by : {runnel::testing::allocator::operator_new, runnel::testing::allocator::aligned_alloc})
        for (std::size_t nth = 1;; ++nth) {
            CAPTURE(nth);
            CAPTURE(static_cast<int>(by));
            memory_fixture p;
            memory_session s(p.io.get_executor(), p.transport, quick());
            int told = 0;  // counted here, as Asio needs memory to tell that a coroutine has ended
            auto const publish = [&](std::chrono::milliseconds timeout) -> asio::awaitable<void> {
                try {
                    co_await s.publish("t", "m", {.qos = qos::at_least_once, .timeout = timeout});
                } catch (...) {
                    ++told;
                }
            };
            task<void> const first(p.io, publish(1ms)), second(p.io, publish(9ms));
            p.settle();
            auto const all_told = [&] { return told == 2; };
            bool failed = false;
            {
                runnel::testing::failing_allocation const failing(nth, by);
                try {
                    static_cast<void>(test::wait_until(p.io, all_told));
                } catch (std::bad_alloc const&) {  // as `io.run` would
                }
                failed = failing.has_failed();
            }
            CHECK(test::wait_until(p.io, all_told));
            if (!failed) break;
        }
}

TEST_CASE("who is told that all is delivered finds it stored, or that run has ended as it could not be") {
    enum class fault { none, lasting, once };
    for (auto const quality : {qos::at_least_once, qos::exactly_once})
        for (bool const waits : {true, false})
            for (auto const fails : {fault::none, fault::lasting, fault::once}) {
                CAPTURE(quality);
                CAPTURE(waits);
                CAPTURE(static_cast<int>(fails));
                durable_fixture p;
                memory_session s(p.io.get_executor(), p.transport, p.options());
                task<void> running(p.io, s.run());
                test::run(p.io, s.connected());
                auto const before = p.store->records;
                p.store->fails_once = fails == fault::once;
                p.broker.hooks().on_publish = [&](auto const&, auto const&) {
                    if (fails != fault::none) p.store->failure = std::make_error_code(full);
                };
                std::size_t held = 0;
                auto const deliver = [&]() -> asio::awaitable<void> {
                    if (waits)
                        CHECK(s.try_publish("t", "m", {.qos = quality}));
                    else
                        co_await s.publish("t", "m", {.qos = quality});
                    co_await s.drained();
                    held = p.store->records.size();
                };
                task<void> delivering(p.io, deliver());
                auto const error = delivering.run_for_error();
                if (fails != fault::none) {
                    CHECK(running.run_for_error() == full);
                    // What works again may store it before `run` has ended.
                    if (error || fails == fault::lasting) CHECK(error == mqtt::errc::disconnected);
                    if (!error) CHECK(held == before.size());
                } else {
                    CHECK_FALSE(error);
                    CHECK(held == before.size());
                    test::run(p.io, s.disconnect());
                    CHECK_FALSE(running.run_for_error());
                }
            }
}

TEST_CASE("without run, who waits until all is delivered is told that it cannot be stored") {
    durable_fixture p;
    memory_session s(p.io.get_executor(), p.transport, p.options());
    task<mqtt::publish_result> publishing(
        p.io, s.publish("t", "m", {.qos = qos::at_least_once, .timeout = std::chrono::milliseconds(1)}));
    p.settle();
    s.save();
    auto const held = p.store->records.size();
    task<void> draining(p.io, s.drained());
    p.settle();
    CHECK_FALSE(draining.done());
    p.store->failure = std::make_error_code(full);
    CHECK(test::wait_until(p.io, [&] { return draining.done(); }, std::chrono::seconds(1)));
    CHECK(publishing.run_for_error() == full);
    if (draining.done()) CHECK(draining.error() == full);
    CHECK(test::error_of(p.io, s.drained()) == full);
    CHECK(p.store->records.size() == held);
    p.store->failure.clear();
    test::run(p.io, s.drained());
    CHECK(p.store->records.size() == held - 1);
}

TEST_CASE("what the user has added to a commit that fails is not torn from what the session was to store with it") {
    struct shared_store : test::memory_store {
        int added = 0, kept = 0;
        bool pending() const { return added != 0; }
        std::error_code apply(std::span<mqtt::store_change const> all) {
            auto const e = memory_store::apply(all);
            int const by = std::exchange(added, 0);
            if (!e) kept += by;
            return e;
        }
    };
    for (bool const by_new_session : {true, false}) {
        CAPTURE(by_new_session);
        durable_fixture p;
        auto const store = std::make_shared<shared_store>();
        auto options = p.options();
        options.store = store;
        auto s = std::make_unique<memory_session>(p.io.get_executor(), p.transport, options);
        auto const work = [&]() -> asio::awaitable<void> {
            auto in = co_await s->subscribe("in");
            auto const m = co_await in.receive();
            ++store->added;
        };
        {
            task<void> running(p.io, s->run());
            task<void> working(p.io, work());
            p.settle();
            p.broker.publish("in", "m", qos::exactly_once);
            store->failure = std::make_error_code(full);
            store->fails_once = true;
            CHECK(running.run_for_error() == full);
            CHECK_FALSE(working.run_for_error());
        }
        CHECK(store->kept == 0);
        if (by_new_session) {
            s.reset();
            s = std::make_unique<memory_session>(p.io.get_executor(), p.transport, options);
            task<void> running(p.io, s->run());
            task<void> working(p.io, work());  // the server sends it again, and it is received again
            CHECK(test::wait_until(p.io, [&] { return store->kept == 1; }));
        } else {
            task<void> again(p.io, s->run());
            CHECK(again.run_for_error() == full);
            s->save();
            task<void> running(p.io, s->run());
            p.settle();
            CHECK_FALSE(running.done());
        }
    }
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

namespace {

// A server that sends a QoS 2 message, "2", upon the last of some SUBSCRIBE, which it does not answer unless `grants`,
// nor UNSUBSCRIBE; and the same message again on each further connection. PUBREC it does not read in time.
struct server_of_two : test::scripted_peer {
    bool grants = false;
    std::size_t subscriptions = 2;
    std::shared_ptr<test::memory_store> store = std::make_shared<test::memory_store>();
    std::string handled;  // by the first subscription

    server_of_two() : scripted_peer([this](test::heard_packet const& p) { return answer_to(p); }) {}
    std::optional<std::string> answer_to(test::heard_packet const& p) {
        using enum mqtt::packet_type;
        auto const message = [](unsigned char first) {
            return test::packet(first, test::field("t") + std::string("\0\2", 2) + "2");
        };
        auto const granted = test::hex("90 03") + p.identifier() + '\2';
        if (p.type == connect)
            return p.connection == 0 ? test::hex("20 02 00 00") : test::hex("20 02 01 00") + message(0x3C);
        if (p.type != subscribe) return "";
        if (p.connection != 0 || count(subscribe) < subscriptions) return granted;
        return message(0x34) + (grants ? granted : "");
    }
    std::unique_ptr<memory_session> session() {
        auto options = quick();
        options.store = store;
        return std::make_unique<memory_session>(io.get_executor(), transport, options);
    }
    memory_session::awaitable<memory_session::subscription> subscribe_first(memory_session& s) {
        return s.subscribe("t", [this](mqtt::publish const& p) { handled += p.payload; });
    }
};

}  // namespace

// Seed 37306 of the simulation.
TEST_CASE("a QoS 2 message that a subscription which is not granted yet has, too, is taken when the session goes") {
    server_of_two server;
    auto s = server.session();
    task<void> running(server.io, s->run());
    test::run(server.io, server.subscribe_first(*s));
    task<memory_session::subscription> second(server.io, s->subscribe("t"));
    REQUIRE(test::wait_until(server.io, [&] { return server.handled == "2"; }));
    s.reset();
    CHECK(running.run_for_error() == mqtt::errc::disconnected);
    CHECK(second.run_for_error() == mqtt::errc::disconnected);

    s = server.session();
    task<void> again(server.io, s->run());
    test::run(server.io, server.subscribe_first(*s));
    REQUIRE(test::wait_until(server.io, [&] { return server.count(mqtt::packet_type::pubrec) == 1; }));
    CHECK(server.handled == "2");
}

TEST_CASE("a QoS 2 message that a subscription which has been left has, too, is taken when the session goes") {
    for (int const calls : {1, 2}) {
        server_of_two server;
        server.grants = true;
        auto s = server.session();
        task<void> running(server.io, s->run());
        test::run(server.io, server.subscribe_first(*s));
        auto second = test::run(server.io, s->subscribe("t"));
        REQUIRE(test::wait_until(server.io, [&] { return server.handled == "2"; }));
        std::vector<std::unique_ptr<task<void>>> leaving;
        for (int i = 0; i < calls; ++i)
            leaving.push_back(std::make_unique<task<void>>(server.io, s->unsubscribe(second)));
        test::settle(server.io);
        CHECK(server.count(mqtt::packet_type::pubrec) == 0);  // it can still be received
        s.reset();
        CHECK(running.run_for_error() == mqtt::errc::disconnected);
        CHECK(second.try_receive()->payload() == "2");

        s = server.session();
        task<void> again(server.io, s->run());
        test::run(server.io, server.subscribe_first(*s));
        REQUIRE(test::wait_until(server.io, [&] { return server.count(mqtt::packet_type::pubrec) == 1; }));
        CHECK(server.handled == "2");
    }
}

TEST_CASE("a QoS 2 message is not taken for a subscription that has been granted as the session goes") {
    server_of_two server;
    server.grants = true;
    auto s = server.session();
    task<void> running(server.io, s->run());
    test::run(server.io, server.subscribe_first(*s));
    task<memory_session::subscription> second(server.io, s->subscribe("t"));
    REQUIRE(test::wait_until(server.io, [&] { return server.handled == "2"; }));
    REQUIRE_FALSE(second.done());  // it goes on in the next turn
    s.reset();
    CHECK(running.run_for_error() == mqtt::errc::disconnected);
    auto left = second.run();
    CHECK(left.closed() == mqtt::errc::disconnected);
    CHECK(left.try_receive()->payload() == "2");

    s = server.session();
    task<void> again(server.io, s->run());
    test::run(server.io, server.subscribe_first(*s));
    CHECK(test::wait_until(server.io, [&] { return server.handled == "22"; }));
}

TEST_CASE("a subscription that could not be unsubscribed from for want of memory still wants its messages") {
    std::size_t failures = 0;
    for (std::size_t nth = 1;; ++nth) {
        CAPTURE(nth);
        server_of_two server;
        server.grants = true;
        server.subscriptions = 3;
        auto s = server.session();
        task<void> running(server.io, s->run());
        test::run(server.io, server.subscribe_first(*s));
        auto second = test::run(server.io, s->subscribe("t"));
        auto third = test::run(server.io, s->subscribe("t"));
        REQUIRE(test::wait_until(server.io, [&] { return server.handled == "2"; }));
        auto leaving = s->unsubscribe(second);
        bool fails = false;
        bool failed = false;
        {
            task<void> once(server.io, std::move(leaving));
            runnel::testing::failing_allocation const failing(nth);
            try {
                test::settle(server.io);
                if (once.done()) once.get();
            } catch (std::bad_alloc const&) {
                fails = once.done();  // else it is Asio's own, or the peer's
            }
            failed = failing.has_failed();
        }
        CAPTURE(fails);
        std::optional<task<void>> once_more;
        if (fails) {
            ++failures;
            CHECK_FALSE(second.closed());
            once_more.emplace(server.io, s->unsubscribe(second));
            test::settle(server.io);
        }
        s.reset();
        static_cast<void>(running.run_for_error());

        s = server.session();
        task<void> again(server.io, s->run());
        auto renewed = server.subscribe_first(*s);
        task<memory_session::subscription> first(server.io, std::move(renewed));
        auto const anew = test::run(server.io, s->subscribe("t"));  // as the third, which has not had it
        CHECK(test::wait_until(server.io, [&] { return server.handled == "22"; }, std::chrono::milliseconds(300)));
        CHECK(anew.size() == 1);
        if (!failed) break;
    }
    CHECK(failures > 0);
}

TEST_CASE("a QoS 2 message that not all of its subscriptions have had is given to all of them by the next process") {
    // One does not read it; or works on it, and has been left; or does not read it while another one has been left.
    for (std::string const how : {"unread", "held", "unread by another"}) {
        CAPTURE(how);
        server_of_two server;
        server.grants = true;
        auto s = server.session();
        task<void> running(server.io, s->run());
        test::run(server.io, server.subscribe_first(*s));
        std::optional<memory_session::subscription> third;
        if (how == "unread by another") {
            server.subscriptions = 3;
            third = test::run(server.io, s->subscribe("t"));
        }
        auto second = test::run(server.io, s->subscribe("t"));
        REQUIRE(test::wait_until(server.io, [&] { return server.handled == "2"; }));
        mqtt::message held;
        std::vector<std::unique_ptr<task<void>>> leaving;
        if (how == "held") held = std::move(second.try_receive().value());
        for (int i = 0; how != "unread" && i < 2; ++i)
            leaving.push_back(std::make_unique<task<void>>(server.io, s->unsubscribe(second)));
        test::settle(server.io);
        s.reset();
        held = {};
        CHECK(running.run_for_error() == mqtt::errc::disconnected);

        s = server.session();
        task<void> again(server.io, s->run());
        auto renewed = server.subscribe_first(*s);
        task<memory_session::subscription> first(server.io, std::move(renewed));
        second = test::run(server.io, s->subscribe("t"));
        REQUIRE(test::wait_until(server.io, [&] { return server.handled == "22"; }));
        CHECK(second.try_receive()->payload() == "2");
        CHECK(test::wait_until(server.io, [&] { return server.count(mqtt::packet_type::pubrec) == 1; }));
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
