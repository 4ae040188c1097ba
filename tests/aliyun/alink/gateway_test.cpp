#include <runnel/aliyun/alink/gateway.hpp>

#include <doctest/doctest.h>

#include "support/alink_fixture.hpp"
#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// A gateway and its sub-devices, in memory.

namespace {

using test::alink_fixture;
using test::json;
using test::memory_session;
using test::task;
namespace aliyun = test::aliyun;
namespace alink = test::alink;
namespace mqtt = test::mqtt;
using alink::errc;

constexpr aliyun::device hub{"a1B2c3D4e5F", "gateway-1", "the gateway's secret"};
constexpr aliyun::device sensor{"b2C3d4E5f6G", "sensor-1", "the sensor's secret"};
constexpr aliyun::device other{"b2C3d4E5f6G", "sensor-2", "the other sensor's secret"};
constexpr aliyun::device stranger{"b2C3d4E5f6G", "sensor-9", "of another gateway"};

using gateway_type = alink::gateway<memory_session>;
using sub_device_type = alink::sub_device<memory_session>;

struct fixture : alink_fixture {
    explicit fixture(mqtt::protocol_version version = mqtt::protocol_version::v3_1_1, bool clean_start = false)
        : alink_fixture(hub, version, clean_start), gateway(session, hub, noting()) {
        for (auto const& d : {sensor, other, stranger}) cloud.add_device(d);
        cloud.on_message = [this](auto const&, mqtt::publish const& m) {
            if (m.topic.starts_with("/ext/session/")) logins.emplace_back(m.topic.substr(m.topic.rfind('/') + 1));
            if (m.qos != mqtt::qos::at_most_once) acknowledged.emplace_back(m.topic);
        };
    }

    void start() { running.emplace(io, gateway.run()); }
    template <class T>
    T run(asio::awaitable<T> operation) {
        return test::run(io, std::move(operation));
    }
    void add(std::initializer_list<aliyun::device> subs) {
        std::vector<aliyun::device> const list(subs);
        run(gateway.add(list));
    }

    std::vector<std::string> logins;        // the requests to log in and out
    std::vector<std::string> acknowledged;  // topics of messages that were not of QoS 0
    std::optional<task<void>> running, first_running, second_running;
    gateway_type gateway;
};

}  // namespace

TEST_CASE("a gateway adds sub-devices, asks for them, and removes them") {
    fixture p;
    p.add({sensor, other});
    auto const subs = p.run(p.gateway.topology());
    CHECK(subs == std::vector<alink::device_id>{alink::id_of(sensor), alink::id_of(other)});
    std::vector<alink::device_id> const gone = {alink::id_of(sensor)};
    p.run(p.gateway.remove(gone));
    CHECK(p.run(p.gateway.topology()) == std::vector<alink::device_id>{alink::id_of(other)});
    CHECK(test::error_of(p.io, p.gateway.remove(gone)) == errc::topology_missing);
    std::vector<aliyun::device> const impostor = {{"b2C3d4E5f6G", "sensor-1", "guessed"}}, itself = {hub};
    CHECK(test::error_of(p.io, p.gateway.add(impostor)) == errc::unauthorized);
    CHECK(test::error_of(p.io, p.gateway.add(itself)) == errc::topology_to_itself);
}

TEST_CASE("a gateway registers devices and reports those that it has found") {
    fixture p;
    p.cloud.add_product({"c3D4e5F6g7H", "a product secret"});
    std::vector<alink::device_id> const ids = {{"c3D4e5F6g7H", "new-1"}, {"c3D4e5F6g7H", "new-2"}};
    auto const made = p.run(p.gateway.register_devices(ids));
    REQUIRE(made.size() == 2);
    CHECK(made[1].device_name == "new-2");
    CHECK_FALSE(made[1].device_secret.empty());
    p.run(p.gateway.add(made));
    std::vector<alink::device_id> const unknown = {{"noSuchProduct", "x"}};
    CHECK(test::error_of(p.io, p.gateway.register_devices(unknown)) == errc::product_unknown);
    p.run(p.gateway.report_found(ids));
    CHECK(p.cloud.thing(hub).found.size() == 2);
}

TEST_CASE("a gateway registers devices by their product's secret, and learns of each that is refused") {
    fixture p;
    p.cloud.add_product({"c3D4e5F6g7H", "a product secret"});
    aliyun::product const product{"c3D4e5F6g7H", "a product secret"}, impostor{"c3D4e5F6g7H", "a guess"};
    std::string_view const names[] = {"new-1", "new-2", "not a name!"};
    auto const result = p.run(p.gateway.register_devices(product, names));
    REQUIRE(result.made.size() == 2);
    CHECK(alink::id_of(result.made[0]) == alink::device_id{"c3D4e5F6g7H", "new-1"});
    CHECK_FALSE(result.made[1].device_secret.empty());
    REQUIRE(result.refused.size() == 1);
    CHECK(result.refused[0].device.device_name == "not a name!");
    CHECK(result.refused[0].why == errc::parameters_invalid);
    p.run(p.gateway.add(result.made));  // by these secrets
    auto const guessed = p.run(p.gateway.register_devices(impostor, std::span(names, 1)));
    CHECK(guessed.made.empty());
    REQUIRE(guessed.refused.size() == 1);
    CHECK(guessed.refused[0].why == alink::reply_error(6600));
    CHECK_FALSE(guessed.refused[0].text.empty());
}

TEST_CASE("a gateway logs many sub-devices out with one message, and none of them in again") {
    fixture p;
    sub_device_type first(p.gateway, sensor), second(p.gateway, other);
    p.start();
    p.add({sensor, other});
    p.run(first.login());
    p.run(second.login());
    p.logins.clear();
    std::vector<alink::device_id> const both = {alink::id_of(sensor), alink::id_of(other)};
    p.run(p.gateway.logout(both));
    CHECK(p.logins == std::vector<std::string>{"batch_logout"});
    CHECK_FALSE(p.cloud.logged_in(sensor));
    CHECK_FALSE(p.cloud.logged_in(other));
    CHECK_FALSE(first.is_logged_in());
    p.settle();
    CHECK(p.logins.size() == 1);
    CHECK(test::error_of(p.io, p.gateway.logout(both)) == alink::reply_error(520));
    p.run(second.login());
    CHECK(p.cloud.logged_in(other));
    p.run(p.gateway.logout({}));  // nobody: no message
    CHECK(p.logins.back() == "login");
    p.disconnect(*p.running);
}

TEST_CASE("a sub-device is logged in, publishes and is called like any device, in both versions") {
    for (auto const version : test::versions) {
        fixture p(version);
        sub_device_type sub(p.gateway, sensor);
        json set;
        sub.on_properties([&](json values) -> asio::awaitable<void> {
            set = std::move(values);
            co_return;
        });
        sub.on_service("blink", [](json input) -> asio::awaitable<json> { co_return input; });
        p.start();
        p.add({sensor});
        p.first_running.emplace(p.io, sub.run());
        p.run(sub.login());
        CHECK(sub.is_logged_in());
        CHECK(p.cloud.logged_in(sensor));
        json const values = {{"Humidity", 40}};
        p.run(sub.post_properties(values));
        CHECK(p.cloud.thing(sensor).properties == values);
        p.run(p.cloud.set_properties(sensor, values));
        CHECK(set == values);
        CHECK(p.run(p.cloud.call_service(sensor, "blink", values))["data"] == values);
        // What a gateway says of or for sub-devices is of QoS 0.
        CHECK(std::ranges::none_of(p.acknowledged, [](auto const& t) {
            return t.starts_with("/ext/session") || t.find("sensor-1") != t.npos;
        }));
        p.run(sub.logout());
        CHECK_FALSE(p.cloud.logged_in(sensor));
        CHECK_FALSE(sub.is_logged_in());
        CHECK(p.faults.empty());
        test::run(p.io, p.session.disconnect());
        CHECK_FALSE(p.running->run_for_error());
        CHECK_FALSE(p.first_running->run_for_error());
    }
}

TEST_CASE("a request logs a sub-device in by itself") {
    fixture p;
    sub_device_type sub(p.gateway, sensor);
    p.start();
    p.add({sensor});
    json const values = {{"Humidity", 40}};
    p.run(sub.post_properties(values));
    CHECK(sub.is_logged_in());
    CHECK(p.cloud.thing(sensor).properties == values);
}

TEST_CASE("several sub-devices are logged in by one message") {
    fixture p;
    sub_device_type first(p.gateway, sensor), second(p.gateway, other);
    p.start();
    p.add({sensor, other});
    task<void> one(p.io, first.login()), two(p.io, second.login());
    one.run();
    two.run();
    CHECK(p.cloud.logged_in(sensor));
    CHECK(p.cloud.logged_in(other));
    CHECK(p.logins == std::vector<std::string>{"batch_login"});
}

TEST_CASE("of several sub-devices, one that is refused does not keep the others out") {
    fixture p;
    sub_device_type first(p.gateway, sensor), second(p.gateway, stranger);
    p.start();
    p.add({sensor});
    task<void> one(p.io, first.login()), two(p.io, second.login());
    one.run();
    CHECK(two.run_for_error() == errc::topology_missing);
    CHECK(first.is_logged_in());
    CHECK_FALSE(second.is_logged_in());
    // Not tried again until it is asked for.
    auto const before = p.logins.size();
    p.settle();
    CHECK(p.logins.size() == before);
    p.add({stranger});
    p.run(second.login());
    CHECK(second.is_logged_in());
}

TEST_CASE("sub-devices are logged in again after each new connection, and subscribe again where the platform forgot") {
    for (bool const kept : {true, false}) {
        fixture p(mqtt::protocol_version::v3_1_1, !kept);
        sub_device_type first(p.gateway, sensor), second(p.gateway, other);
        int calls = 0;
        first.on_properties([&](json) -> asio::awaitable<void> {
            ++calls;
            co_return;
        });
        p.start();
        p.add({sensor, other});
        p.first_running.emplace(p.io, first.run());
        p.second_running.emplace(p.io, second.run());
        p.run(first.start());
        p.run(second.start());
        p.logins.clear();
        auto const before = p.session.counters().connections;
        REQUIRE(p.cloud.drop_device(hub));
        p.run(p.session.connected(before));
        CHECK_FALSE(first.is_logged_in());
        json const values = {{"Humidity", 41}};
        p.run(first.post_properties(values));
        CHECK(p.cloud.thing(sensor).properties == values);
        CHECK(p.logins == std::vector<std::string>{"batch_login"});
        CHECK(second.is_logged_in());
        CHECK(p.run(p.cloud.set_properties(sensor, values))["code"] == 200);
        CHECK(calls == 1);
        CHECK_FALSE(p.first_running->done());
    }
}

TEST_CASE("a login that is not answered is tried again, and given up in the end") {
    fixture p;
    alink::options o;
    o.timeout = std::chrono::milliseconds(300);
    gateway_type impatient(p.session, hub, o);
    sub_device_type sub(impatient, sensor);
    task<void> running(p.io, impatient.run());
    std::vector<aliyun::device> const list = {sensor};
    p.run(impatient.add(list));
    p.cloud.drop_next(1);
    p.run(sub.login());
    CHECK(p.logins == std::vector<std::string>{"login", "login"});
    test::run(p.io, p.session.disconnect());
    running.run();
}

TEST_CASE("a request of a sub-device that is not logged in in time ends") {
    fixture p;
    sub_device_type sub(p.gateway, sensor);
    json const values = {{"Humidity", 40}};
    // Nobody runs the gateway.
    CHECK(test::error_of(p.io, sub.post_properties(values, {.timeout = std::chrono::milliseconds(5)})) ==
          errc::timed_out);
}

TEST_CASE("a request of a sub-device that may not log in ends with the reason") {
    fixture p;
    sub_device_type sub(p.gateway, stranger);
    p.start();
    json const values = {{"Humidity", 40}};
    CHECK(test::error_of(p.io, sub.post_properties(values)) == errc::topology_missing);
    task<void> running(p.io, sub.run());
    CHECK(running.run_for_error() == errc::topology_missing);
}

TEST_CASE("a sub-device is told that it is disabled, and logs in again once it is enabled") {
    fixture p;
    sub_device_type sub(p.gateway, sensor);
    std::vector<alink::sub_device_event> events;
    sub.on_event([&](alink::sub_device_event e) -> asio::awaitable<void> {
        events.push_back(e);
        co_return;
    });
    p.start();
    p.add({sensor});
    p.first_running.emplace(p.io, sub.run());
    p.run(sub.start());
    CHECK(p.run(p.cloud.disable(sensor))["code"] == 200);
    CHECK(events == std::vector<alink::sub_device_event>{alink::sub_device_event::disabled});
    CHECK_FALSE(sub.is_logged_in());
    CHECK(test::error_of(p.io, sub.login()) == errc::session_device_disabled);
    CHECK(p.run(p.cloud.enable(sensor))["code"] == 200);
    p.run(sub.login());
    CHECK(p.cloud.logged_in(sensor));
    CHECK(p.run(p.cloud.remove_sub(sensor))["code"] == 200);
    CHECK(events.back() == alink::sub_device_event::deleted);
    CHECK_FALSE(p.first_running->done());
}

TEST_CASE("an event of a sub-device that is being handled keeps its handler, whatever is set meanwhile") {
    fixture p;
    sub_device_type sub(p.gateway, sensor);
    std::string heard;
    sub.on_event([&, text = std::string("a text too long to be kept within the string's own object")](
                     alink::sub_device_event) -> asio::awaitable<void> {
        co_await runnel::sleep_for(asio::any_io_executor(p.io.get_executor()), std::chrono::milliseconds(20));
        heard = text;
    });
    p.start();
    p.add({sensor});
    p.first_running.emplace(p.io, sub.run());
    p.run(sub.start());
    task<json> disabling(p.io, p.cloud.disable(sensor));
    p.settle();
    CHECK_FALSE(disabling.done());
    int others = 0;
    sub.on_event([&](alink::sub_device_event) -> asio::awaitable<void> {
        ++others;
        co_return;
    });
    CHECK(disabling.run()["code"] == 200);
    CHECK(heard == "a text too long to be kept within the string's own object");
    CHECK(others == 0);
    CHECK(p.run(p.cloud.enable(sensor))["code"] == 200);
    CHECK(others == 1);
}

TEST_CASE("changes of the topology, and wishes for them, come to their handlers") {
    fixture p;
    std::vector<alink::topology_change> changes;
    std::vector<alink::device_id> wanted;
    p.gateway.on_topology_change([&](alink::topology_change c) -> asio::awaitable<void> {
        changes.push_back(std::move(c));
        co_return;
    });
    p.gateway.on_add_requested([&](std::vector<alink::device_id> ids) -> asio::awaitable<void> {
        wanted = std::move(ids);
        co_return;
    });
    p.start();
    p.run(p.gateway.start());
    json const list = {{{"productKey", "b2C3d4E5f6G"}, {"deviceName", "sensor-1"}}};
    CHECK(p.run(p.cloud.change_topology(hub, 8, list))["code"] == 200);
    REQUIRE(changes.size() == 1);
    CHECK(changes[0].what == alink::topology_change::kind::disabled);
    CHECK(changes[0].devices == std::vector<alink::device_id>{alink::id_of(sensor)});
    CHECK(p.run(p.cloud.ask_to_add(hub, list))["code"] == 200);
    CHECK(wanted == changes[0].devices);
    json const bad = "none";
    CHECK(p.run(p.cloud.change_topology(hub, 0, bad))["code"] == 460);
}

TEST_CASE("a sub-device may go while its gateway goes on, also while it is being logged in") {
    fixture p;
    p.start();
    p.add({sensor});
    auto sub = std::make_unique<sub_device_type>(p.gateway, sensor);
    p.cloud.drop_next(1);
    {
        task<void> login(p.io, sub->login());
        p.settle();
        login.cancel();
        CHECK(login.run_for_error() == asio::error::operation_aborted);
    }
    sub.reset();
    p.settle();
    sub_device_type again(p.gateway, sensor);
    p.run(again.login());
    CHECK(p.cloud.logged_in(sensor));
}

TEST_CASE("run is refused while another one of the gateway is under way, and nobody who waits for a login notices") {
    fixture p;
    sub_device_type sub(p.gateway, sensor);
    p.add({sensor});
    p.start();
    p.settle();
    p.cloud.drop_next(1);
    task<void> login(p.io, sub.login());
    p.settle();
    CHECK_FALSE(login.done());
    CHECK_THROWS_WITH_AS(p.run(p.gateway.run()), "device::run is running already", std::logic_error);
    p.settle();
    CHECK_FALSE(login.done());
    CHECK_FALSE(p.running->done());
    p.running->cancel();
    CHECK(p.running->run_for_error() == asio::error::operation_aborted);
    CHECK(login.run_for_error() == mqtt::errc::disconnected);
    p.start();
    p.run(sub.login());
    CHECK(p.cloud.logged_in(sensor));
}

TEST_CASE("a gateway's run ends by what keeps it from logging in, though its handlers could go on") {
    fixture p;
    sub_device_type sub(p.gateway, sensor);
    bool refused = false;
    auto& hook = p.cloud.hooks().authorize_subscribe;
    hook = [&, granted = hook](auto const& who, auto const& packet, auto const& request) {
        auto const verdict = granted(who, packet, request);
        return std::exchange(refused, true) ? verdict : mqtt::reason_code::quota_exceeded;
    };
    p.start();
    task<void> login(p.io, sub.login());
    p.settle();
    REQUIRE(p.running->done());
    CHECK(p.running->run_for_error() == mqtt::reason_code::unspecified_error);
    CHECK(login.run_for_error() == mqtt::errc::disconnected);
    p.add({sensor});
    p.start();
    p.run(sub.login());
    p.disconnect(*p.running);
}

TEST_CASE("who waits for a login goes on when the gateway's run ends") {
    fixture p;
    sub_device_type sub(p.gateway, sensor);
    p.start();
    p.run(p.gateway.start());
    p.cloud.drop_next(1);
    task<void> login(p.io, sub.login());
    p.settle();
    p.running->cancel();
    CHECK(p.running->run_for_error() == asio::error::operation_aborted);
    CHECK(login.run_for_error() == mqtt::errc::disconnected);
    CHECK_THROWS_AS(sub_device_type(p.gateway, {"pk", "dn", ""}), std::system_error);
}
