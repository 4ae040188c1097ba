#include <runnel/aliyun/alink/device.hpp>
#include <runnel/coro/capture_error.hpp>

#include <doctest/doctest.h>

#include "support/alink_fixture.hpp"
#include <array>
#include <chrono>
#include <concepts>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

// A device and the simulated platform, in memory.

namespace {

using namespace std::chrono_literals;
using test::alink_device;
using test::alink_fixture;
using test::json;
using test::memory_session;
using test::own;
using test::task;
using test::thermostat;
namespace aliyun = test::aliyun;
namespace alink = test::alink;
namespace mqtt = test::mqtt;
using alink::errc;

struct fetcher {
    asio::awaitable<void> operator()(alink::remote_file const&, alink::pieces&) const { co_return; }
};
// See coro/capture_error_test.cpp.
static_assert(requires(alink_device& d, json const& j, std::span<std::string_view const> names,
                       std::span<alink::log_entry const> lines, alink::firmware const& offer, std::error_code& e) {
    { runnel::capture_error(d.post_properties(j), e) } -> std::same_as<asio::awaitable<json>>;
    runnel::capture_error(d.run(), e);
    runnel::capture_error(d.start(), e);
    runnel::capture_error(d.stop(), e);
    runnel::capture_error(d.post_batch(j), e);
    runnel::capture_error(d.post_history(j), e);
    runnel::capture_error(d.post_pack(j), e);
    runnel::capture_error(d.post_event("id", j), e);
    runnel::capture_error(d.get_desired(names), e);
    runnel::capture_error(d.delete_desired(j), e);
    runnel::capture_error(d.update_tags(j), e);
    runnel::capture_error(d.delete_tags(names), e);
    runnel::capture_error(d.get_thing_model(), e);
    runnel::capture_error(d.post_raw(std::string()), e);
    runnel::capture_error(d.ask_time(), e);
    runnel::capture_error(d.get_shadow(), e);
    runnel::capture_error(d.update_shadow(j, 1), e);
    runnel::capture_error(d.clear_shadow_desired(1), e);
    runnel::capture_error(d.delete_from_shadow(names, 1), e);
    runnel::capture_error(d.post_log(lines), e);
    runnel::capture_error(d.is_log_wanted(), e);
    runnel::capture_error(d.get_job(), e);
    runnel::capture_error(d.update_job(j), e);
    runnel::capture_error(d.report_version("1"), e);
    runnel::capture_error(d.report_progress(1, "t"), e);
    runnel::capture_error(d.query_firmware(), e);
    runnel::capture_error(d.download(offer, fetcher()), e);
    runnel::capture_error(d.get_configuration(), e);
});
static_assert(requires(alink::gateway<memory_session>& g, std::span<aliyun::device const> devices,
                       std::span<alink::device_id const> ids, std::span<std::string_view const> names,
                       aliyun::product const& of, std::error_code& e) {
    runnel::capture_error(g.run(), e);
    { runnel::capture_error(g.add(devices), e) } -> std::same_as<asio::awaitable<json>>;
    runnel::capture_error(g.remove(ids), e);
    runnel::capture_error(g.topology(), e);
    runnel::capture_error(g.register_devices(ids), e);
    runnel::capture_error(g.register_devices(of, names), e);
    runnel::capture_error(g.report_found(ids), e);
    runnel::capture_error(g.logout(ids), e);
});
// All of a device's, and these.
static_assert(requires(alink::sub_device<memory_session>& s, json const& j, std::error_code& e) {
    runnel::capture_error(s.login(), e);
    runnel::capture_error(s.start(), e);
    runnel::capture_error(s.logout(), e);
    { runnel::capture_error(s.post_properties(j), e) } -> std::same_as<asio::awaitable<json>>;
});
static_assert(requires(runnel::testing::aliyun_cloud& c, aliyun::device d, json j, std::error_code& e) {
    { runnel::capture_error(c.set_properties(d, j), e) } -> std::same_as<asio::awaitable<json>>;
    runnel::capture_error(c.call_service(d, "id", j), e);
    runnel::capture_error(c.call_service_synchronously(d, "id", j), e);
    runnel::capture_error(c.rrpc(d, "p"), e);
    runnel::capture_error(c.custom_rrpc(d, "t", "p"), e);
    runnel::capture_error(c.push_config(d, j), e);
    runnel::capture_error(c.disable(d), e);
    runnel::capture_error(c.enable(d), e);
    runnel::capture_error(c.remove_sub(d), e);
    runnel::capture_error(c.change_topology(d, 0, j), e);
    runnel::capture_error(c.ask_to_add(d, j), e);
});

// A device whose `run` is under way.
struct fixture : alink_fixture {
    explicit fixture(alink::options o = {}, mqtt::protocol_version version = mqtt::protocol_version::v3_1_1)
        : alink_fixture(thermostat, version), device(session, thermostat, noting(std::move(o))) {}

    void start() {
        running.emplace(io, device.run());
        test::run(io, device.start());
    }
    template <class T>
    T run(asio::awaitable<T> operation) {
        return test::run(io, std::move(operation));
    }
    template <class T>
    std::error_code error_of(asio::awaitable<T> operation) {
        return test::error_of(io, std::move(operation));
    }

    std::optional<task<void>> running;
    alink_device device;
};

std::string_view const two_names[] = {"Power", "Mode"};

}  // namespace

TEST_CASE("a device reports properties, which the platform has then, in both versions and of either QoS") {
    for (auto const version : test::versions) {
        for (auto const quality : {mqtt::qos::at_most_once, mqtt::qos::at_least_once}) {
            alink::options o;
            o.quality = quality;
            fixture p(o, version);
            p.start();
            json const values = {{"Temperature", 21.5}, {"Mode", "eco"}};
            CHECK(p.run(p.device.post_properties(values)) == json::object());
            CHECK(p.cloud.thing(thermostat).properties == values);
            json const timed = {{"Temperature", {{"value", 22.5}, {"time", 1524448722000}}}};
            p.run(p.device.post_properties(timed));
            CHECK(p.cloud.thing(thermostat).properties["Temperature"] == 22.5);
            p.disconnect(*p.running);
            CHECK(p.faults.empty());
        }
    }
}

TEST_CASE("a request may come before run and before the connection: it subscribes first") {
    fixture p;
    json const values = {{"Temperature", 21.5}};
    p.run(p.device.post_properties(values));
    CHECK(p.cloud.thing(thermostat).properties == values);
}

TEST_CASE("run is refused while another one of the device is under way, which goes on") {
    fixture p;
    int calls = 0;
    p.device.on_properties([&](json) -> asio::awaitable<void> {
        ++calls;
        co_return;
    });
    p.start();
    p.settle();
    CHECK_THROWS_WITH_AS(p.run(p.device.run()), "device::run is running already", std::logic_error);
    p.settle();
    CHECK_FALSE(p.running->done());
    json const wanted = {{"Temperature", 20}};
    CHECK(p.run(p.cloud.set_properties(thermostat, wanted))["code"] == 200);
    CHECK(calls == 1);
    p.running->cancel();
    CHECK(p.running->run_for_error() == asio::error::operation_aborted);
    p.start();
    CHECK(p.run(p.cloud.set_properties(thermostat, wanted))["code"] == 200);
    CHECK(calls == 2);
    p.disconnect(*p.running);
}

TEST_CASE("requests side by side each get their own reply") {
    fixture p;
    p.cloud.delay_answers(1ms);
    std::vector<std::unique_ptr<task<json>>> tasks;
    p.cloud.set_desired(thermostat, {{"Power", 1}});
    for (int i = 0; i < 20; ++i) {
        json const values = {{"Count" + std::to_string(i), i}};
        tasks.push_back(std::make_unique<task<json>>(p.io, p.device.post_properties(values)));
        tasks.push_back(std::make_unique<task<json>>(p.io, p.device.get_desired(two_names)));
    }
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        auto const data = tasks[i]->run();
        CHECK(data.contains("Power") == (i % 2 == 1));
    }
    CHECK(p.cloud.thing(thermostat).properties.size() == 20);
    CHECK(p.device.counters().unmatched_replies == 0);
}

TEST_CASE("a request without reply completes when it is published, and the platform does not answer") {
    fixture p;
    json const values = {{"Temperature", 21.5}};
    CHECK(p.run(p.device.post_properties(values, {.reply = false})).is_null());
    p.settle();
    CHECK(p.cloud.thing(thermostat).properties == values);
    CHECK(p.device.counters().unmatched_replies == 0);
}

TEST_CASE("an event has its values and a time") {
    fixture p;
    json const values = {{"celsius", 81}};
    p.run(p.device.post_event("overheated", values));
    json const first = p.cloud.thing(thermostat).events.at(0).params;
    CHECK(p.cloud.thing(thermostat).events.at(0).id == "overheated");
    CHECK(first == values);
}

TEST_CASE("the platform's code and text come as an error") {
    fixture p;
    json const nothing = json::object();
    CHECK(p.error_of(p.device.post_properties(nothing)) == errc::parameters_invalid);
    p.cloud.answer_next(1, {.code = 429});
    json const values = {{"Temperature", 21.5}};
    task<json> refused(p.io, p.device.post_properties(values));
    CHECK(refused.run_for_error() == errc::throttled);
    CHECK(refused.error().category().name() == std::string_view("runnel.aliyun.alink"));
    CHECK(refused.error_text() == "too many requests: too many requests (429)");
    p.cloud.answer_next(1, {.code = 4711});
    task<json> unknown(p.io, p.device.post_properties(values));
    CHECK(unknown.run_for_error().value() == 4711);
}

TEST_CASE("a request that is not answered in time ends, and its late reply is counted") {
    fixture p;
    p.start();
    json const values = {{"Temperature", 21.5}};
    p.cloud.drop_next(1);
    CHECK(p.error_of(p.device.post_properties(values, {.timeout = 5ms})) == errc::timed_out);
    p.cloud.delay_answers(20ms);
    CHECK(p.error_of(p.device.post_properties(values, {.timeout = 5ms})) == errc::timed_out);
    CHECK(test::wait_until(p.io, [&] { return p.device.counters().unmatched_replies == 1; }));
    p.cloud.delay_answers(0ms);
    p.run(p.device.post_properties(values));
}

TEST_CASE("a reply with the wrong identifier, or that is not JSON, is no reply") {
    fixture p;
    json const values = {{"Temperature", 21.5}};
    p.run(p.device.post_properties(values));
    p.cloud.answer_next(1, {.wrong_id = true});
    CHECK(p.error_of(p.device.post_properties(values, {.timeout = 100ms})) == errc::timed_out);
    CHECK(test::wait_until(p.io, [&] { return p.device.counters().unmatched_replies == 1; }));
    p.cloud.answer_next(1, {.garbage = true});
    CHECK(p.error_of(p.device.post_properties(values, {.timeout = 100ms})) == errc::timed_out);
    REQUIRE(test::wait_until(p.io, [&] { return p.faults.size() == 1; }));
    CHECK(p.faults[0] == errc::not_json);
}

TEST_CASE("a reply without a code ends its request at once") {
    fixture p;
    p.start();
    p.cloud.drop_next(1);
    json const values = {{"Temperature", 21.5}};
    task<json> asking(p.io, p.device.post_properties(values));
    std::string request;
    p.cloud.on_message = [&](auto const&, mqtt::publish const& m) { request = m.payload; };
    REQUIRE(test::wait_until(p.io, [&] { return !request.empty(); }));
    json const reply = {{"id", json::parse(request)["id"]}, {"data", json::object()}};
    p.cloud.publish(own + "/thing/event/property/post_reply", reply.dump());
    CHECK(asking.run_for_error() == errc::answer_invalid);
}

TEST_CASE("a request ends when the session does") {
    fixture p;
    p.start();
    p.cloud.drop_next(1);
    json const values = {{"Temperature", 21.5}};
    task<json> asking(p.io, p.device.post_properties(values));
    p.settle();
    p.disconnect(*p.running);
    CHECK(asking.run_for_error() == errc::disconnected);
}

TEST_CASE("a request survives the loss of the connection") {
    fixture p;
    p.start();
    REQUIRE(p.cloud.drop_device(thermostat));
    json const values = {{"Temperature", 21.5}};
    p.run(p.device.post_properties(values));
    CHECK(p.cloud.thing(thermostat).properties == values);
}

TEST_CASE("a text that is not UTF-8 and a message too long are refused before anything is sent") {
    fixture p;
    json const bad = {{"Name", "\xFF"}};
    CHECK_THROWS_WITH_AS(static_cast<void>(p.device.post_properties(bad)), "a text to be sent is not UTF-8",
                         std::system_error);
    json const large = {{"Name", std::string(256 * 1024, 'x')}};
    CHECK_THROWS_AS(static_cast<void>(p.device.post_properties(large)), std::system_error);
}

TEST_CASE("a request whose reply the device does not subscribe to is a mistake in the program") {
    alink::options o;
    o.features = alink::feature::thing_model;
    fixture p(o);
    CHECK_THROWS_AS(static_cast<void>(p.device.get_desired(two_names)), std::logic_error);
    CHECK_THROWS_AS(static_cast<void>(p.device.post_batch(json::object())), std::logic_error);
}

TEST_CASE("desired properties are asked for and deleted, tags updated and deleted") {
    fixture p;
    p.cloud.set_desired(thermostat, {{"Power", 1}});
    CHECK(p.run(p.device.get_desired(two_names)) == json{{"Power", {{"value", 1}, {"version", 1}}}});
    json const versions = {{"Power", {{"version", 1}}}};
    p.run(p.device.delete_desired(versions));
    CHECK(p.cloud.thing(thermostat).desired == json::object());
    json const tags = {{"floor", "3"}, {"room", "kitchen"}};
    p.run(p.device.update_tags(tags));
    CHECK(p.cloud.thing(thermostat).tags == tags);
    std::string_view const names[] = {"floor"};
    p.run(p.device.delete_tags(names));
    CHECK(p.cloud.thing(thermostat).tags == json{{"room", "kitchen"}});
}

TEST_CASE("batches and histories are posted where the device has the feature") {
    alink::options o;
    o.features = o.features | alink::feature::batches;
    fixture p(o);
    json const batch = {{"properties", {{"Temperature", {{{"value", 21}, {"time", 1524448722000}}}}}}};
    p.run(p.device.post_batch(batch));
    CHECK(p.cloud.thing(thermostat).properties["Temperature"] == 21);
    json const history = {{{"identity", {{"productKey", "a1B2c3D4e5F"}, {"deviceName", "thermostat-7"}}},
                           {"properties", {{{"Temperature", {{"value", 22}, {"time", 1524448723000}}}}}}}};
    p.run(p.device.post_history(history));
}

TEST_CASE("the difference of the clocks is measured") {
    fixture p;
    p.cloud.clock_offset(5000ms);
    auto const d = p.run(p.device.ask_time());
    CHECK(d.offset > 4900ms);
    CHECK(d.offset < 5100ms);
    CHECK(d.round_trip < 1000ms);
}

TEST_CASE("the shadow is reported to, asked for, and deleted from") {
    fixture p;
    json const reported = {{"color", "red"}, {"size", 3}};
    p.run(p.device.update_shadow(reported, 1));
    auto shadow = p.run(p.device.get_shadow());
    CHECK(shadow.reported == reported);
    CHECK(shadow.version == 1);
    CHECK(p.error_of(p.device.update_shadow(reported, 1)) == errc::version_conflict);
    std::string_view const names[] = {"size"};
    p.run(p.device.delete_from_shadow(names, 2));
    shadow = p.run(p.device.get_shadow());
    CHECK(shadow.reported == json{{"color", "red"}});
    p.run(p.device.delete_from_shadow({}, 3));
    CHECK(p.run(p.device.get_shadow()).reported == json::object());
}

TEST_CASE("a late answer of the shadow is not taken for that of the next request") {
    alink::options o;
    o.timeout = 100ms;
    fixture p(o);
    p.start();
    p.cloud.delay_answers(120ms);
    json const first = {{"color", "red"}}, second = {{"color", "blue"}};
    CHECK(p.error_of(p.device.update_shadow(first, 1)) == errc::timed_out);
    p.cloud.delay_answers(0ms);
    // It waits for the late answer, and then gets its own.
    CHECK(p.error_of(p.device.update_shadow(second, 1)) == errc::version_conflict);
    auto const shadow = p.run(p.device.get_shadow());
    CHECK(shadow.reported == first);
    // One that is never answered holds the next up for no longer than its time.
    p.cloud.drop_next(1);
    task<alink::shadow> cancelled(p.io, p.device.get_shadow());
    p.settle();
    cancelled.cancel();
    CHECK(cancelled.run_for_error() == asio::error::operation_aborted);
    CHECK(p.error_of(p.device.get_shadow()) == errc::timed_out);
    CHECK(p.run(p.device.get_shadow()).version == 1);
}

TEST_CASE("requests to the shadow at the same time each get their own answer, in order") {
    fixture p;
    p.start();
    p.cloud.delay_answers(2ms);
    json const values = {{"color", "red"}};
    task<alink::shadow> before(p.io, p.device.get_shadow());
    task<alink::shadow_message> one(p.io, p.device.update_shadow(values, 3)),
        two(p.io, p.device.update_shadow(values, 3));
    task<alink::shadow> after(p.io, p.device.get_shadow());
    CHECK(before.run().version == 0);
    CHECK(one.run().shadow.version == 3);
    CHECK(two.run_for_error() == errc::version_conflict);
    CHECK(after.run().version == 3);
}

TEST_CASE("a request that has timed out without a connection is not carried out afterwards") {
    for (auto const quality : {mqtt::qos::at_most_once, mqtt::qos::at_least_once}) {
        alink::options o;
        o.quality = quality;
        fixture p(o);
        p.start();
        bool down = true;
        p.refuses = [&] { return down; };
        REQUIRE(p.cloud.drop_device(thermostat));
        CHECK(test::wait_until(p.io, [&] { return !p.session.is_connected(); }));
        json const values = {{"Door", "open"}}, others = {{"Door", "closed"}};
        CHECK(p.error_of(p.device.post_properties(values, {.timeout = 20ms})) == errc::timed_out);
        task<json> waiting(p.io, p.device.post_properties(others));
        p.settle();
        CHECK_FALSE(waiting.done());
        down = false;
        waiting.run();
        p.settle();
        CHECK(p.cloud.thing(thermostat).properties == others);
    }
}

TEST_CASE("a request to the shadow that could not be sent holds up no other") {
    alink::options o;
    o.timeout = 200ms;
    fixture p(o);
    p.start();
    bool down = true;
    p.refuses = [&] { return down; };
    REQUIRE(p.cloud.drop_device(thermostat));
    CHECK(test::wait_until(p.io, [&] { return !p.session.is_connected(); }));
    CHECK(p.error_of(p.device.get_shadow()) == errc::timed_out);
    down = false;
    test::run(p.io, p.session.connected());
    CHECK_FALSE(p.error_of(p.device.get_shadow()));
}

TEST_CASE("what is desired by the shadow comes to its handler, and can be declared done") {
    fixture p;
    std::vector<alink::shadow> pushed;
    p.device.on_shadow([&](alink::shadow s) -> asio::awaitable<void> {
        pushed.push_back(std::move(s));
        co_return;
    });
    p.start();
    p.cloud.set_shadow_desired(thermostat, {{"color", "green"}});
    REQUIRE(test::wait_until(p.io, [&] { return !pushed.empty(); }));
    CHECK(pushed[0].desired == json{{"color", "green"}});
    p.run(p.device.clear_shadow_desired(pushed[0].version + 1));
    CHECK(p.run(p.device.get_shadow()).desired == json::object());
}

TEST_CASE("lines are posted to the log, and whether it is wanted is known") {
    fixture p;
    std::vector<bool> wanted;
    p.device.on_log_wanted([&](bool w) -> asio::awaitable<void> {
        wanted.push_back(w);
        co_return;
    });
    p.start();
    std::array<alink::log_entry, 2> lines{};
    lines[0] = {.time = std::chrono::system_clock::time_point(1583507727464ms),
                .level = alink::log_level::error,
                .module = "ModuleA",
                .code = "4103",
                .content = "some content"};
    lines[1].trace_context = "123";
    p.run(p.device.post_log(lines));
    auto const& logs = p.cloud.thing(thermostat).logs;
    REQUIRE(logs.size() == 2);
    CHECK(logs[0]["utcTime"] == "2020-03-06T15:15:27.464+0000");
    CHECK(logs[0]["logLevel"] == "ERROR");
    CHECK(logs[1]["traceContext"] == "123");
    CHECK_FALSE(p.run(p.device.is_log_wanted()));
    p.cloud.push_log_config(thermostat, 1);
    REQUIRE(test::wait_until(p.io, [&] { return !wanted.empty(); }));
    CHECK(wanted[0]);
    CHECK(p.run(p.device.is_log_wanted()));
}

TEST_CASE("jobs are announced, asked for and reported on") {
    alink::options o;
    o.features = o.features | alink::feature::jobs;
    fixture p(o);
    json told;
    p.device.on_job([&](json job) -> asio::awaitable<void> {
        told = std::move(job);
        co_return;
    });
    p.start();
    p.cloud.notify_job(thermostat, {{"taskId", "i5Ks"}, {"jobDocument", {{"do", "it"}}}});
    REQUIRE(test::wait_until(p.io, [&] { return !told.is_null(); }));
    CHECK(told["taskId"] == "i5Ks");
    CHECK(p.run(p.device.get_job())["taskId"] == "i5Ks");
    json const state = {{"taskId", "i5Ks"}, {"status", "SUCCEEDED"}, {"progress", 100}};
    p.run(p.device.update_job(state));
}

TEST_CASE("notices of errors come to their handler") {
    fixture p;
    json notice;
    p.device.on_error_notice([&](json n) -> asio::awaitable<void> {
        notice = std::move(n);
        co_return;
    });
    p.start();
    p.cloud.push_error(thermostat, 520);
    REQUIRE(test::wait_until(p.io, [&] { return !notice.is_null(); }));
    CHECK(notice["code"] == 520);
}

TEST_CASE("run completes when the session ends, and may run again with it") {
    fixture p;
    p.start();
    p.disconnect(*p.running);
    task<void> again(p.io, p.session.run());
    task<void> running(p.io, p.device.run());
    json const values = {{"Temperature", 21.5}};
    p.run(p.device.post_properties(values));
    test::run(p.io, p.session.disconnect());
    CHECK_FALSE(running.run_for_error());
    CHECK_FALSE(again.run_for_error());
}

TEST_CASE("a device can be stopped: nothing is sent to it any more") {
    fixture p;
    p.run(p.device.start());
    CHECK(p.cloud.publish(own + "/thing/service/property/set", "{}") == 1);
    p.run(p.device.stop());
    CHECK(p.cloud.publish(own + "/thing/service/property/set", "{}") == 0);
    p.run(p.device.start());
    CHECK(p.cloud.publish(own + "/thing/service/property/set", "{}") == 1);
}

TEST_CASE("a subscription that is refused comes to the caller of start and of run") {
    fixture p;
    p.cloud.hooks().authorize_subscribe = [](auto const&...) { return mqtt::reason_code::not_authorized; };
    CHECK(p.error_of(p.device.start()) == mqtt::reason_code::unspecified_error);
    CHECK(p.error_of(p.device.run()) == mqtt::reason_code::unspecified_error);
}

TEST_CASE("a device may go while its session goes on") {
    fixture p;
    {
        alink_device passing(p.session, thermostat);
        p.run(passing.start());
    }
    p.cloud.publish(own + "/thing/service/property/set", R"({"id":"1","params":{}})");
    p.settle();
    json const values = {{"Temperature", 21.5}};
    p.run(p.device.post_properties(values));
}

TEST_CASE("a device asks for its product's thing model") {
    fixture p;
    alink::options o;
    o.features = alink::feature::definition;
    alink_device device(p.session, thermostat, o);
    json const model = {{"schema", "https://example/schema.json"}, {"properties", {{{"identifier", "Power"}}}}};
    p.cloud.set_thing_model(thermostat.product_key, model);
    CHECK(p.run(device.get_thing_model()) == model);
    CHECK_THROWS_AS(p.run(p.device.get_thing_model()), std::logic_error);
}

TEST_CASE("the context may end with everything under way") {
    std::optional<task<json>> asking;
    auto p = std::make_unique<fixture>();
    p->device.on_properties([&](json) -> asio::awaitable<void> {
        asio::steady_timer timer(p->io, 1h);
        co_await timer.async_wait(asio::use_awaitable);
    });
    p->start();
    p->cloud.publish(own + "/thing/service/property/set", R"({"id":"1","params":{}})");
    p->cloud.drop_next(1);
    json const values = {{"Temperature", 21.5}};
    asking.emplace(p->io, p->device.post_properties(values));
    p->settle();
    CHECK(p->device.counters().calls == 1);
    p.reset();
}

TEST_CASE("options out of their range and no device are refused") {
    fixture p;
    alink::options o;
    o.timeout = 0ms;
    CHECK_THROWS_AS(alink_device(p.session, thermostat, o), std::out_of_range);
    o.timeout = 1ms;
    o.quality = mqtt::qos::exactly_once;
    CHECK_THROWS_AS(alink_device(p.session, thermostat, o), std::system_error);
    CHECK_THROWS_AS(alink_device(p.session, {"", "dn", ""}), std::system_error);
}
