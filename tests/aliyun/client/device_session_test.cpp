#include <runnel/aliyun/alink/session.hpp>
#include <runnel/aliyun/client/device_session.hpp>
#include <runnel/mqtt/client/async.hpp>
#include <runnel/testing/aliyun/platform.hpp>

#include <asio/detached.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <support/allocation_count.hpp>
#include <support/memory_sessions.hpp>
#include <system_error>
#include <vector>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using aliyun::errc;
using mqtt::protocol_version;
using mqtt::qos;
using steady = std::chrono::steady_clock;
using session_type = aliyun::device_session<memory_transport>;
static_assert(aliyun::alink::message_session<session_type> && aliyun::alink::subscribes_to_several<session_type>);

constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a secret between us"};
std::string const own = "/a1B2c3D4e5F/thermostat-7/user/";

struct fixture {
    explicit fixture(aliyun::pace limits = {}, protocol_version version = protocol_version::v3_1_1)
        : platform(io.get_executor()),
          session(std::make_optional<session_type>(io.get_executor(), thermostat, transport,
                                                   aliyun::connect_options{.version = version}, limits)) {
        platform.add_device(thermostat);
    }
    // Runs the session until the test ends.
    void start() {
        running.emplace(io, session->run());
        test::run(io, session->connected());
    }

    asio::io_context io;
    testing::aliyun_platform platform;
    memory_transport transport{[this](memory_stream<> s) {
        ++opened;
        platform.attach(std::move(s));
    }};
    int opened = 0;
    std::optional<session_type> session;
    std::optional<test::task<void>> running;
};

template <class T>
std::error_code error_of(fixture& p, asio::awaitable<T> operation) {
    return test::error_of(p.io, std::move(operation));
}

}  // namespace

TEST_CASE("a device publishes and receives through the platform, in both versions") {
    for (auto const version : test::versions) {
        fixture p({}, version);
        p.platform.limit_rates();
        p.start();
        auto inbox = test::run(p.io, p.session->subscribe(own + "get"));
        CHECK(inbox.granted_qos() == qos::at_least_once);
        test::run(p.io, p.session->publish(own + "get", "hello", {.qos = qos::at_least_once}));
        CHECK(test::run(p.io, inbox.receive()).payload() == "hello");
        CHECK(p.session->topics().of<aliyun::topic_kind::custom>("get") == own + "get");
        test::run(p.io, p.session->disconnect());
        CHECK_FALSE(p.running->run_for_error());
    }
}

TEST_CASE("its operations take completion tokens, and keep the limits") {
    fixture p;
    auto& s = *p.session;
    std::exception_ptr why;
    bool has_ended = false;
    mqtt::async_run(s, [&](std::exception_ptr e) {
        why = e;
        has_ended = true;
    });
    std::optional<session_type::subscription> inbox;
    std::string heard;
    mqtt::async_connected(s, [&](std::error_code e) {
        CHECK_FALSE(e);
        mqtt::async_subscribe(s, own + "get", [&](std::error_code f, session_type::subscription of) {
            CHECK_FALSE(f);
            inbox = of;
            mqtt::async_receive(s, of, [&](std::error_code g, mqtt::message m) {
                CHECK_FALSE(g);
                heard = m.payload();
            });
            mqtt::async_publish(s, own + "get", "hello", {.qos = qos::at_least_once}, asio::detached);
        });
    });
    REQUIRE(test::wait_until(p.io, [&] { return !heard.empty(); }));
    CHECK(heard == "hello");
    CHECK(s.subscriptions() == 1);
    std::error_code refused;
    mqtt::async_publish(s, own + "x", "", {.qos = qos::exactly_once},
                        [&](std::error_code e, mqtt::publish_result) { refused = e; });
    REQUIRE(test::wait_until(p.io, [&] { return bool(refused); }));
    CHECK(refused == errc::qos_not_supported);
    std::size_t ended = 0;
    mqtt::async_unsubscribe(s, *inbox, [&](std::error_code e) {
        CHECK_FALSE(e);
        mqtt::async_disconnect(s, [&](std::error_code f) { ended += !f; });
    });
    REQUIRE(test::wait_until(p.io, [&] { return ended == 1 && has_ended; }));
    CHECK(s.subscriptions() == 0);
    CHECK(why == nullptr);
}

TEST_CASE("what the platform would drop or punish is refused before it is sent") {
    for (auto const version : test::versions) {
        fixture p({}, version);
        p.start();
        auto const error = [&](std::string_view topic, std::string const& payload, mqtt::publish_options o) {
            return error_of(p, p.session->publish(topic, payload, o));
        };
        CHECK(error(own + "x", "", {.qos = qos::exactly_once}) == errc::qos_not_supported);
        CHECK(error(own + "x", std::string(256 * 1024 + 1, 'x'), {}) == errc::payload_too_long);
        CHECK(error(own + std::string(100, 'x'), "", {}) == errc::topic_too_long);
        CHECK(error(own + "4/5/6/7/8", "", {}) == errc::topic_too_deep);
        CHECK_THROWS_AS(p.session->try_publish(own + "x", "", {.qos = qos::exactly_once}), std::system_error);
        bool const v3 = version == protocol_version::v3_1_1;
        std::error_code const retain = error(own + "x", "", {.retain = true});
        CHECK(retain == (v3 ? make_error_code(errc::retain_not_supported) : std::error_code{}));
        CHECK(error_of(p, p.session->subscribe(own + std::string(100, 'x'))) == errc::topic_too_long);
        CHECK(p.session->is_connected());
        CHECK(p.platform.counters().messages_refused == 0);
    }
}

TEST_CASE("a will is checked too") {
    fixture p;
    auto options = aliyun::session_options<memory_transport>(thermostat);
    options.will = mqtt::will_message_options{};
    options.will->topic = own + "will";
    CHECK_THROWS_AS(session_type(p.io.get_executor(), thermostat, p.transport, options), std::system_error);
    options.version = protocol_version::v5;
    CHECK_NOTHROW(session_type(p.io.get_executor(), thermostat, p.transport, options));
    options.will->qos = qos::exactly_once;
    CHECK_THROWS_AS(session_type(p.io.get_executor(), thermostat, p.transport, options), std::system_error);
    options.will.reset();
    options.keep_alive = 10s;
    CHECK_THROWS_AS(session_type(p.io.get_executor(), thermostat, p.transport, options), std::system_error);
}

TEST_CASE("messages wait for their turn, in order, each QoS in its own queue") {
    fixture p({.qos_0 = 4, .qos_1 = 2, .span = 60ms});
    p.start();
    auto inbox = test::run(p.io, p.session->subscribe(own + "get"));
    auto const begin = steady::now();
    std::vector<std::unique_ptr<test::task<mqtt::publish_result>>> tasks;
    std::vector<std::string> payloads;
    for (int i = 0; i < 10; ++i) payloads.push_back(std::to_string(i));
    auto const topic = own + "get";
    for (auto const& payload : payloads)
        tasks.push_back(std::make_unique<test::task<mqtt::publish_result>>(p.io, p.session->publish(topic, payload)));
    for (auto& t : tasks) t->run();
    // 4 at once, 4 after a span, 2 after two.
    CHECK(steady::now() - begin >= 120ms);
    for (auto const& payload : payloads) CHECK(test::run(p.io, inbox.receive()).payload() == payload);

    auto const next = steady::now();
    for (int i = 0; i < 3; ++i) test::run(p.io, p.session->publish(own + "x", "", {.qos = qos::at_least_once}));
    CHECK(steady::now() - next >= 60ms);
}

TEST_CASE("at the default pace the platform that counts drops nothing") {
    fixture p;
    p.platform.limit_rates();
    p.start();
    for (int i = 0; i < 61; ++i) test::run(p.io, p.session->publish(own + "x", "", {}));
    for (int i = 0; i < 11; ++i) test::run(p.io, p.session->publish(own + "x", "", {.qos = qos::at_least_once}));
    CHECK(p.platform.counters().messages_received == 72);
    CHECK(p.platform.counters().messages_refused == 0);
}

TEST_CASE("without a pace the platform that counts drops messages") {
    fixture p({.qos_0 = 0, .qos_1 = 0});
    p.platform.limit_rates();
    p.start();
    for (int i = 0; i < 12; ++i) test::run(p.io, p.session->publish(own + "x", "", {.qos = qos::at_least_once}));
    CHECK(p.platform.counters().messages_refused == 2);
}

TEST_CASE("whoever does not want to wait is told that the rate does not allow it") {
    fixture p({.qos_0 = 2, .qos_1 = 1, .span = 1h});
    p.start();
    CHECK(p.session->try_publish(own + "x", ""));
    CHECK(p.session->try_publish(own + "x", ""));
    CHECK_FALSE(p.session->try_publish(own + "x", ""));
    CHECK(p.session->try_publish(own + "x", "", {.qos = qos::at_least_once}));
    CHECK_FALSE(p.session->try_publish(own + "x", "", {.qos = qos::at_least_once}));
}

TEST_CASE("a message that waits for its turn ends when it is cancelled, and when the session is gone") {
    fixture p({.qos_0 = 1, .span = 100ms});
    p.start();
    test::run(p.io, p.session->publish(own + "x", ""));
    auto const topic = own + "x";
    test::task<mqtt::publish_result> cancelled(p.io, p.session->publish(topic, ""));
    test::task<mqtt::publish_result> orphan(p.io, p.session->publish(topic, ""));
    test::settle(p.io);
    CHECK_FALSE(cancelled.done());
    cancelled.cancel();
    CHECK(cancelled.run_for_error() == asio::error::operation_aborted);
    test::run(p.io, p.session->disconnect());
    p.session.reset();
    CHECK(orphan.run_for_error() == mqtt::errc::disconnected);
}

TEST_CASE("what has waited for a connection leaves at the pace, and the platform that counts drops none of it") {
    for (auto const version : test::versions) {
        fixture p({}, version);
        p.platform.limit_rates();
        std::vector<std::unique_ptr<test::task<mqtt::publish_result>>> tasks;
        auto const topic = own + "x";
        for (int i = 0; i < 22; ++i)
            tasks.push_back(std::make_unique<test::task<mqtt::publish_result>>(
                p.io, p.session->publish(topic, "", {.qos = qos::at_least_once})));
        for (int i = 0; i < 61; ++i) {  // without a connection they are queued
            auto const sent = test::run(p.io, p.session->publish(topic, ""));
            CHECK(sent.what == mqtt::publish_result::outcome::queued);
        }
        p.start();
        for (auto& t : tasks) CHECK(t->run().what == mqtt::publish_result::outcome::acknowledged);
        CHECK(test::wait_until(p.io, [&] { return p.platform.counters().messages_received == 83; }));
        CHECK(p.platform.counters().messages_refused == 0);
    }
}

TEST_CASE("what is sent again after a reconnect counts for the pace") {
    auto options = aliyun::session_options<memory_transport>(thermostat);
    options.reconnect.initial = options.reconnect.maximum = 1ms;
    fixture p;
    int connections = 0;
    memory_transport const cut_once([&](memory_stream<> s) {
        if (++connections == 1) s.outgoing().cut_after = 4 + 3 * 4;  // behind CONNACK and three acknowledgements
        p.platform.attach(std::move(s));
    });
    p.session.emplace(p.io.get_executor(), thermostat, cut_once, options, aliyun::pace{});
    p.platform.limit_rates();
    std::vector<steady::time_point> arrived;
    p.platform.hooks().on_publish = [&](auto const&, mqtt::publish const&) { arrived.push_back(steady::now()); };
    p.start();
    std::vector<std::unique_ptr<test::task<mqtt::publish_result>>> tasks;
    auto const topic = own + "x";
    for (int i = 0; i < 15; ++i)
        tasks.push_back(std::make_unique<test::task<mqtt::publish_result>>(
            p.io, p.session->publish(topic, "", {.qos = qos::at_least_once})));
    for (auto& t : tasks) t->run();
    CHECK(p.session->counters().messages_resent > 0);
    CHECK(p.platform.counters().messages_refused == 0);
    for (std::size_t i = 10; i < arrived.size(); ++i) CHECK(arrived[i] - arrived[i - 10] >= 1s);
}

TEST_CASE("messages that are published side by side leave in the order of the calls, whatever their QoS allows") {
    for (auto const quality : {qos::at_most_once, qos::at_least_once}) {
        fixture p({.qos_0 = 9, .qos_1 = 9, .span = 10ms});
        p.start();
        auto inbox = test::run(p.io, p.session->subscribe(own + "get"));
        std::vector<std::unique_ptr<test::task<mqtt::publish_result>>> tasks;
        std::vector<std::string> payloads;
        for (int i = 0; i < 60; ++i) payloads.push_back(std::to_string(i));
        auto const topic = own + "get";
        for (auto const& payload : payloads)
            tasks.push_back(std::make_unique<test::task<mqtt::publish_result>>(
                p.io, p.session->publish(topic, payload, {.qos = quality})));
        for (auto& t : tasks) t->run();
        for (auto const& payload : payloads) CHECK(test::run(p.io, inbox.receive()).payload() == payload);
    }
}

TEST_CASE("the timeout of a message counts while it waits for its turn, and then it is not sent") {
    for (auto const quality : {qos::at_most_once, qos::at_least_once}) {
        fixture p({.qos_0 = 1, .qos_1 = 1, .span = 100ms});
        p.start();
        auto const topic = own + "x";
        test::run(p.io, p.session->publish(topic, "1", {.qos = quality}));
        auto const begin = steady::now();
        CHECK(error_of(p, p.session->publish(topic, "2", {.qos = quality, .timeout = 10ms})) ==
              mqtt::errc::message_expired);
        CHECK(steady::now() - begin < 90ms);
        test::run(p.io, p.session->publish(topic, "3", {.qos = quality, .timeout = 1s}));
        test::run(p.io, p.session->disconnect());
        CHECK(p.platform.counters().messages_received == 2);
    }
}

TEST_CASE("8 filters go into one SUBSCRIBE, more into several, and no more than 100 in all") {
    fixture p;
    p.start();
    std::vector<std::string> names;
    for (int i = 0; i < 101; ++i) names.push_back(own + std::to_string(i));
    std::vector<std::string_view> filters(names.begin(), names.end());
    std::span<std::string_view const> const all(filters);
    CHECK(error_of(p, p.session->subscribe(all.first(9))) == errc::too_many_filters);
    std::vector<std::string> got;
    auto const keep = [&](mqtt::publish const& m) { got.emplace_back(m.topic); };
    auto const made = test::run(p.io, p.session->subscribe_all(all.first(20), keep));
    CHECK(made.size() == 3);
    CHECK(p.session->subscriptions() == 20);
    for (std::size_t i = 20; i < 100; ++i) test::run(p.io, p.session->subscribe(names[i]));
    CHECK(p.session->subscriptions() == 100);
    CHECK(error_of(p, p.session->subscribe(names[100])) == errc::too_many_subscriptions);
    test::run(p.io, p.session->subscribe(names[99]));  // the same once more
    test::run(p.io, p.session->unsubscribe(made[0]));
    CHECK(p.session->subscriptions() == 92);
    CHECK_FALSE(error_of(p, p.session->subscribe(names[100])));
    CHECK(p.platform.publish(names[10], "x") == 1);
    test::run(p.io, p.session->publish(own + "x", "", {.qos = qos::at_least_once}));
    CHECK(got == std::vector<std::string>{names[10]});
}

TEST_CASE("a subscription that the platform refuses does not count") {
    fixture p({}, protocol_version::v5);
    p.start();
    CHECK(error_of(p, p.session->subscribe("/a1B2c3D4e5F/another/user/get")) == mqtt::reason_code::not_authorized);
    CHECK(p.session->subscriptions() == 0);
}

TEST_CASE("running again and again waits when the minute's attempts are used up, and can be called off") {
    fixture p({.connects = 2});
    for (int i = 0; i < 2; ++i) {
        p.start();
        test::run(p.io, p.session->disconnect());
        p.running->run();
    }
    CHECK(p.opened == 2);
    p.running.emplace(p.io, p.session->run());
    test::settle(p.io);
    CHECK_FALSE(p.running->done());
    CHECK(p.opened == 2);
    test::run(p.io, p.session->disconnect());
    CHECK_FALSE(p.running->run_for_error());
}

TEST_CASE("run is refused while another one waits for its turn to connect, or runs, and changes nothing") {
    fixture p({.connects = 1});
    p.start();
    CHECK_THROWS_WITH_AS(test::run(p.io, p.session->run()), "session::run is running already", std::logic_error);
    CHECK(p.session->is_connected());
    test::run(p.io, p.session->disconnect());
    p.running->run();
    p.running.emplace(p.io, p.session->run());
    test::settle(p.io);
    CHECK_THROWS_WITH_AS(test::run(p.io, p.session->run()), "session::run is running already", std::logic_error);
    test::settle(p.io);
    CHECK_FALSE(p.running->done());
    // It is told of a disconnect all the same.
    auto disconnecting = p.session->disconnect();
    CHECK_THROWS_WITH_AS(test::run(p.io, p.session->run()), "session::run is running already", std::logic_error);
    test::run(p.io, std::move(disconnecting));
    CHECK_FALSE(p.running->run_for_error());
    CHECK(p.opened == 1);
    // And the next one may run.
    p.running.emplace(p.io, p.session->run());
    test::settle(p.io);
    CHECK_FALSE(p.running->done());
    p.running->cancel();
    CHECK(p.running->run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("MQTT 5: a device may leave its client identifier to the server") {
    fixture p;
    aliyun::connect_options const how{.client_id = "", .version = protocol_version::v5};
    p.session.emplace(p.io.get_executor(), thermostat, p.transport, how);
    p.start();
    CHECK(p.platform.connected(thermostat));
}

TEST_CASE("the newer of two twins takes the connection over") {
    fixture p;
    p.start();
    aliyun::device_session twin(p.io.get_executor(), thermostat, p.transport);
    test::task<void> running(p.io, twin.run());
    test::run(p.io, twin.connected());
    CHECK(test::wait_until(p.io, [&] { return !p.session->is_connected(); }));
    CHECK(twin.is_connected());
    test::run(p.io, twin.disconnect());
}

TEST_CASE("a device session may go before what it has been given to publish begins, and while it waits to connect") {
    for (bool const kept : {false, true}) {
        fixture p;
        auto publishing = kept ? p.session->publish(own + "a", std::string("x")) : p.session->publish(own, "x");
        test::task<mqtt::publish_result> publisher(p.io, std::move(publishing));
        p.session.reset();
        CHECK(publisher.run_for_error());
    }
    {
        fixture p({.connects = 1});
        p.start();
        test::run(p.io, p.session->disconnect());
        p.running->run();
        std::string_view const filters[] = {"/a1B2c3D4e5F/thermostat-7/user/get"};
        auto running = p.session->run();
        auto subscribing = p.session->subscribe_all(filters, {});
        p.session.reset();
        CHECK(error_of(p, std::move(running)) == mqtt::errc::disconnected);
        CHECK(error_of(p, std::move(subscribing)) == mqtt::errc::disconnected);
    }
    fixture p({.connects = 1});
    p.start();
    test::run(p.io, p.session->disconnect());
    p.running->run();
    test::task<void> waiting(p.io, p.session->run());
    test::settle(p.io);
    CHECK_FALSE(waiting.done());
    p.session.reset();
    CHECK(waiting.run_for_error() == mqtt::errc::disconnected);
}

TEST_CASE("a subscription that is unsubscribed from twice, or is another session's, does not end the count of others") {
    fixture p;
    p.start();
    auto const first = test::run(p.io, p.session->subscribe(own + "get"));
    auto const second = test::run(p.io, p.session->subscribe(own + "get"));
    auto const other = test::run(p.io, p.session->subscribe(own + "other"));
    CHECK(p.session->subscriptions() == 2);
    test::task unsubscribing(p.io, p.session->unsubscribe(first));
    test::task once_more(p.io, p.session->unsubscribe(first));
    unsubscribing.run();
    once_more.run();
    CHECK(p.session->subscriptions() == 2);
    test::run(p.io, p.session->unsubscribe(first));
    CHECK(p.session->subscriptions() == 2);
    fixture q;
    q.start();
    test::run(q.io, q.session->subscribe(own + "get"));
    CHECK(error_of(q, q.session->unsubscribe(second)) == mqtt::errc::disconnected);
    CHECK(q.session->subscriptions() == 1);
    test::run(p.io, p.session->unsubscribe(second));
    CHECK(p.session->subscriptions() == 1);
    test::run(p.io, p.session->unsubscribe(other));
    CHECK(p.session->subscriptions() == 0);
}

TEST_CASE("filters that cannot be subscribed to for want of memory do not count") {
    for (std::size_t nth = 1;; ++nth) {
        CAPTURE(nth);
        fixture p;
        std::string const get = own + "get/a-name-that-is-too-long-for-a-string", set = own + "set";
        std::string_view const filters[] = {get, set};
        std::optional<testing::failing_allocation> failing;
        // Within a coroutine that has begun: Asio's own first steps end the program if there is no memory.
        auto const subscribe = [&]() -> asio::awaitable<void> {
            failing.emplace(nth);
            auto subscribing = p.session->subscribe(filters);
            co_await std::move(subscribing);
        };
        test::task<void> subscribing(p.io, subscribe());
        p.io.poll();
        REQUIRE(failing);
        bool const failed = failing->has_failed();
        failing.reset();
        if (!subscribing.done()) {
            CHECK(p.session->subscriptions() == 2);
            subscribing.cancel();
            test::settle(p.io);
        }
        CHECK(p.session->subscriptions() == 0);
        if (!failed) break;
    }
}
