#include <runnel/testing/aliyun/cloud.hpp>

#include <asio/post.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <support/mqtt_client.hpp>
#include <support/run.hpp>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::qos;
using mqtt::reason_code;
using test::mqtt_client;
using testing::json;

constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a secret between us"};
constexpr aliyun::device gateway{"a1B2c3D4e5F", "gateway-1", "the gateway's secret"};
constexpr aliyun::device sensor{"b2C3d4E5f6G", "sensor-1", "the sensor's secret"};
std::string const own = "/sys/a1B2c3D4e5F/thermostat-7";

void connect(asio::io_context& io, testing::aliyun_cloud& cloud, mqtt_client& client, aliyun::device const& who) {
    auto [near, far] = memory_stream<>::pair(io.get_executor());
    cloud.attach(std::move(far));
    client.open(std::move(near));
    auto const c = aliyun::sign(who, {.mode = aliyun::secure_mode::plain});
    mqtt::connect packet;
    packet.client_id = c.client_id;
    packet.keep_alive = 60;
    packet.user_name = c.user_name.view();
    packet.password = c.password.view();
    REQUIRE(client.connect(packet) == reason_code::success);
}

// A device, all of whose topics are subscribed to, and the cloud it is connected to.
struct fixture {
    explicit fixture(aliyun::device const& who = thermostat) : cloud(io.get_executor()), client(io) {
        cloud.add_device(who);
        cloud.add_device(sensor);
        connect(io, cloud, client, who);
        auto const names = who.product_key.str() + "/" + who.device_name.str();
        for (std::string const& filter :
             {"/sys/" + names + "/#", "/ext/ntp/" + names + "/response", "/ext/error/" + names, "/shadow/get/" + names,
              "/ota/device/upgrade/" + names, "/ext/session/" + names + "/#", "/ext/rrpc/+/" + names + "/user/ask",
              "/broadcast/" + who.product_key.str() + "/#"})
            REQUIRE_FALSE(is_error(client.subscribe(filter)));
    }

    // Publishes and gives the answer on `answer_topic`; null if none came before the answer to a ping.
    json ask(std::string const& topic, json const& request, std::string const& answer_topic) {
        client.messages.clear();
        client.publish(topic, request.dump());
        client.ping();
        for (auto const& m : client.messages)
            if (m.topic == answer_topic) return json::parse(m.payload);
        return nullptr;
    }
    json ask(std::string const& topic, json const& params) {
        json const request = {{"id", "123"}, {"version", "1.0"}, {"params", params}};
        return ask(topic, request, topic + "_reply");
    }
    // Starts what an application does, and answers with what `f` makes of the request as the device.
    template <class T, class F>
    T with_device(asio::awaitable<T> coroutine, F f) {
        client.messages.clear();
        test::task<T> task(io, std::move(coroutine));
        REQUIRE(client.wait_for(1));
        auto const m = client.messages.front();
        f(m);
        return task.run();
    }
    void answer(test::message const& m, int code, json const& data) {
        json const reply = {{"id", json::parse(m.payload)["id"]}, {"code", code}, {"data", data}};
        client.publish(m.topic + "_reply", reply.dump());
    }

    asio::io_context io;
    testing::aliyun_cloud cloud;
    mqtt_client client;
};

}  // namespace

TEST_CASE("posted properties are kept, with their times, and answered with the identifier they came with") {
    fixture p;
    json const reply = p.ask(own + "/thing/event/property/post",
                             {{"celsius", 21.5}, {"on", {{"value", true}, {"time", 1524448722000}}}});
    CHECK(reply == json{{"code", 200},
                        {"data", json::object()},
                        {"id", "123"},
                        {"message", "success"},
                        {"method", "thing.event.property.post"},
                        {"version", "1.0"}});
    auto const& thing = p.cloud.thing(thermostat);
    CHECK(thing.properties == json{{"celsius", 21.5}, {"on", true}});
    CHECK(thing.property_times == json{{"on", 1524448722000}});
}

TEST_CASE("whoever does not want an answer gets none") {
    fixture p;
    auto const topic = own + "/thing/event/property/post";
    json const request = {{"id", "1"}, {"sys", {{"ack", 0}}}, {"params", {{"celsius", 1}}}};
    CHECK(p.ask(topic, request, topic + "_reply") == nullptr);
    CHECK(p.cloud.thing(thermostat).properties["celsius"] == 1);
}

TEST_CASE("requests without sense are refused with the platform's codes") {
    fixture p;
    auto const post = own + "/thing/event/property/post";
    CHECK(p.ask(post, json::object())["code"] == 460);
    CHECK(p.ask(post, json::array())["code"] == 460);
    CHECK(p.ask(post, json("not an object"), post + "_reply")["code"] == 460);
    json many = json::object();
    for (int i = 0; i < 201; ++i) many["p" + std::to_string(i)] = i;
    CHECK(p.ask(post, many)["code"] == 6106);
    CHECK(p.ask(own + "/thing/deviceinfo/update", json::array({{{"attrKey", "x"}}}))["code"] == 460);
    CHECK(p.ask(own + "/thing/config/get", {{"configScope", "product"}, {"getType", "file"}})["code"] == 6710);
    CHECK(p.ask(own + "/thing/log/post", json::array({{{"utcTime", "now"}}}))["code"] == 460);
    CHECK(p.cloud.thing(thermostat).properties.empty());
}

TEST_CASE("batches, history and packs of properties and events find their devices") {
    fixture p;
    json const value = {{"value", 7}, {"time", 1524448722000}};
    CHECK(p.ask(own + "/thing/event/property/batch/post",
                {{"properties", {{"a", json::array({value})}}},
                 {"events", {{"alarm", json::array({{{"value", {{"level", 3}}}, {"time", 1}}})}}}})["code"] == 200);
    json const self = {{"productKey", "a1B2c3D4e5F"}, {"deviceName", "thermostat-7"}};
    CHECK(p.ask(own + "/thing/event/property/history/post",
                json::array({{{"identity", self}, {"properties", json::array({{{"b", value}}})}}}))["code"] == 200);
    CHECK(p.ask(own + "/thing/event/property/pack/post", {{"properties", {{"c", value}}}})["code"] == 200);
    json const foreign = {{"productKey", "b2C3d4E5f6G"}, {"deviceName", "sensor-1"}};
    CHECK(p.ask(own + "/thing/event/property/pack/post",
                {{"subDevices", json::array({{{"identity", foreign}}})}})["code"] == 6401);
    auto const& thing = p.cloud.thing(thermostat);
    CHECK(thing.properties == json{{"a", 7}, {"b", 7}, {"c", 7}});
    REQUIRE(thing.events.size() == 1);
    CHECK(thing.events[0].id == "alarm");
    CHECK(thing.events[0].params == json{{"level", 3}});
}

TEST_CASE("events and raw payloads are kept") {
    fixture p;
    json const reply = p.ask(own + "/thing/event/overheated/post", {{"value", {{"celsius", 90}}}, {"time", 1}});
    CHECK(reply["method"] == "thing.event.overheated.post");
    p.client.publish(own + "/thing/model/up_raw", "\x01\x02");
    p.client.ping();
    auto const& thing = p.cloud.thing(thermostat);
    REQUIRE(thing.events.size() == 1);
    CHECK(thing.events[0].params == json{{"celsius", 90}});
    REQUIRE(thing.raw.size() == 1);
    CHECK(thing.raw[0] == "\x01\x02");
}

TEST_CASE("desired properties have versions, and are deleted by them") {
    fixture p;
    p.cloud.set_desired(thermostat, {{"celsius", 20}});
    p.cloud.set_desired(thermostat, {{"celsius", 21}, {"on", true}});
    json const data = p.ask(own + "/thing/property/desired/get", json::array({"celsius", "unknown"}))["data"];
    CHECK(data == json{{"celsius", {{"value", 21}, {"version", 2}}}});
    p.ask(own + "/thing/property/desired/delete", {{"celsius", {{"version", 1}}}, {"on", json::object()}});
    CHECK(p.cloud.thing(thermostat).desired.contains("celsius"));
    CHECK_FALSE(p.cloud.thing(thermostat).desired.contains("on"));
    p.ask(own + "/thing/property/desired/delete", {{"celsius", {{"version", 2}}}});
    CHECK(p.cloud.thing(thermostat).desired.empty());
}

TEST_CASE("tags are set and deleted") {
    fixture p;
    CHECK(p.ask(own + "/thing/deviceinfo/update", json::array({{{"attrKey", "room"}, {"attrValue", "12"}},
                                                               {{"attrKey", "floor"}, {"attrValue", "1"}}}))["code"] ==
          200);
    CHECK(p.cloud.thing(thermostat).tags == json{{"room", "12"}, {"floor", "1"}});
    p.ask(own + "/thing/deviceinfo/delete", json::array({{{"attrKey", "room"}}}));
    CHECK(p.cloud.thing(thermostat).tags == json{{"floor", "1"}});
}

TEST_CASE("the time is told, also by a clock that is ahead") {
    fixture p;
    json const request = {{"deviceSendTime", "1571724098000"}};
    auto const told = [&] {
        json const reply =
            p.ask("/ext/ntp/a1B2c3D4e5F/thermostat-7/request", request, "/ext/ntp/a1B2c3D4e5F/thermostat-7/response");
        CHECK(reply["deviceSendTime"] == "1571724098000");
        CHECK(reply["serverSendTime"] == reply["serverRecvTime"]);
        return std::stoll(reply["serverRecvTime"].get<std::string>());
    };
    auto const before = told();
    p.cloud.clock_offset(1h);
    auto const ahead = told() - before;
    CHECK(ahead >= 3'600'000);
    CHECK(ahead < 3'660'000);
}

TEST_CASE("the shadow keeps versions, and refuses what does not fit") {
    fixture p;
    std::string const up = "/shadow/update/a1B2c3D4e5F/thermostat-7", down = "/shadow/get/a1B2c3D4e5F/thermostat-7";
    auto const ask = [&](json const& body) { return p.ask(up, body, down); };
    auto const error = [&](json const& body) { return ask(body)["payload"]["content"]["errorcode"]; };
    json const red = {{"method", "update"}, {"state", {{"reported", {{"color", "red"}}}}}, {"version", 1}};
    json const accepted = ask(red);
    CHECK(accepted["method"] == "reply");
    CHECK(accepted["payload"] == json{{"status", "success"}, {"version", 1}});
    CHECK(error(red) == "409");
    CHECK(error({{"state", json::object()}}) == "401");
    CHECK(error({{"method", "update"}}) == "402");
    CHECK(error({{"method", "update"}, {"state", json::object()}, {"version", "x"}}) == "403");
    CHECK(error({{"method", "update"}, {"state", json::object()}, {"version", 2}}) == "404");
    CHECK(error({{"method", "jump"}}) == "406");

    p.client.messages.clear();
    p.cloud.set_shadow_desired(thermostat, {{"color", "green"}});
    json const control = json::parse(p.client.last().payload);
    CHECK(control["method"] == "control");
    CHECK(control["payload"]["state"] == json{{"reported", {{"color", "red"}}}, {"desired", {{"color", "green"}}}});
    CHECK(control["version"] == 2);

    ask({{"method", "update"}, {"state", {{"desired", "null"}}}, {"version", 3}});
    ask({{"method", "delete"}, {"state", {{"reported", {{"color", "null"}}}}}, {"version", 4}});
    json const rest = ask({{"method", "get"}});
    CHECK(rest["payload"]["status"] == "success");
    CHECK(rest["payload"]["state"].empty());
    CHECK(rest["version"] == 4);
}

TEST_CASE("firmware is offered until the device has it") {
    fixture p;
    json const firmware = {{"version", "2.0"}, {"url", "https://example.com/2.0"}, {"size", 5}, {"module", "MCU"}};
    auto const get = [&] { return p.ask(own + "/thing/ota/firmware/get", {{"module", "MCU"}})["data"]; };
    CHECK(get() == json::object());
    p.cloud.push_firmware(thermostat, firmware);
    auto const m = p.client.last(p.client.messages.size() + 1);
    CHECK(m.topic == "/ota/device/upgrade/a1B2c3D4e5F/thermostat-7");
    CHECK(json::parse(m.payload)["data"] == firmware);
    CHECK(get() == firmware);
    p.client.publish("/ota/device/progress/a1B2c3D4e5F/thermostat-7",
                     R"({"id":"1","params":{"step":"50","desc":"","module":"MCU"}})");
    p.client.publish("/ota/device/inform/a1B2c3D4e5F/thermostat-7",
                     R"({"id":"2","params":{"version":"2.0","module":"MCU"}})");
    CHECK(get() == json::object());
    CHECK(p.cloud.thing(thermostat).versions == json{{"MCU", "2.0"}});
    REQUIRE(p.cloud.thing(thermostat).progress.size() == 1);
    CHECK(p.cloud.thing(thermostat).progress[0]["step"] == "50");
}

TEST_CASE("logs are taken in, and the device is told whether to send them") {
    fixture p;
    json const entry = {{"utcTime", "2020-03-06T15:15:27.123+0800"},
                        {"logLevel", "INFO"},
                        {"module", "m"},
                        {"code", "4103"},
                        {"logContent", "text"}};
    CHECK(p.ask(own + "/thing/log/post", json::array({entry}))["code"] == 200);
    CHECK(p.cloud.thing(thermostat).logs.at(0) == entry);
    p.client.messages.clear();
    p.cloud.push_log_config(thermostat, 1);
    json const pushed = json::parse(p.client.last().payload);
    CHECK(pushed["params"]["content"]["mode"] == 1);
    json const got = p.ask(own + "/thing/config/log/get", {{"configScope", "device"}, {"getType", "content"}});
    CHECK(got["data"]["content"]["mode"] == 1);
}

TEST_CASE("jobs are given out until they are done") {
    fixture p;
    p.cloud.notify_job(thermostat, {{"taskId", "j1"}, {"jobDocument", {{"do", "it"}}}});
    auto const next = [&] { return p.ask(own + "/thing/job/get", {{"taskId", "$next"}})["data"]; };
    CHECK(next()["task"]["jobDocument"]["do"] == "it");
    CHECK(p.ask(own + "/thing/job/update", {{"taskId", "j1"}, {"status", "SUCCEEDED"}, {"progress", 100}})["code"] ==
          200);
    CHECK_FALSE(next().contains("task"));
    CHECK(p.ask(own + "/thing/job/update", {{"taskId", "other"}, {"status", "FAILED"}})["code"] == 460);
}

TEST_CASE("the thing model is told") {
    fixture p;
    p.cloud.set_thing_model("a1B2c3D4e5F", {{"schema", "x"}});
    CHECK(p.ask(own + "/thing/dsltemplate/get", json::object())["data"] == json{{"schema", "x"}});
    CHECK(p.ask(own + "/thing/dynamicTsl/get", json::object())["data"] == json{{"schema", "x"}});
}

TEST_CASE("an application sets properties and calls services, and gets what the device answers") {
    fixture p;
    json reply = p.with_device(p.cloud.set_properties(thermostat, {{"on", true}}), [&](auto const& m) {
        CHECK(m.topic == own + "/thing/service/property/set");
        CHECK(json::parse(m.payload)["params"] == json{{"on", true}});
        CHECK(json::parse(m.payload)["method"] == "thing.service.property.set");
        p.answer(m, 200, json::object());
    });
    CHECK(reply["code"] == 200);
    reply = p.with_device(p.cloud.call_service(thermostat, "reboot", {{"delay", 5}}), [&](auto const& m) {
        CHECK(m.topic == own + "/thing/service/reboot");
        p.answer(m, 5001, {{"why", "busy"}});
    });
    CHECK(reply["code"] == 5001);
    CHECK(reply["data"]["why"] == "busy");
    reply = p.with_device(p.cloud.push_config(thermostat, {{"configId", "c1"}}), [&](auto const& m) {
        CHECK(m.topic == own + "/thing/config/push");
        p.answer(m, 200, json::object());
    });
    CHECK(reply["code"] == 200);
    CHECK(p.ask(own + "/thing/config/get", {{"configScope", "product"}, {"getType", "file"}})["data"]["configId"] ==
          "c1");
}

TEST_CASE("a synchronous service and RRPC are answered on the topic of the request") {
    fixture p;
    auto const respond = [&](test::message const& m, std::string_view text) {
        auto const id = m.topic.substr(m.topic.rfind('/') + 1);
        p.client.publish(own + "/rrpc/response/" + id, text);
    };
    json const reply =
        p.with_device(p.cloud.call_service_synchronously(thermostat, "add", {{"a", 1}}), [&](auto const& m) {
            CHECK(m.topic.starts_with(own + "/rrpc/request/"));
            CHECK(json::parse(m.payload)["method"] == "thing.service.add");
            respond(m, R"({"id":"1","code":200,"data":{"sum":3}})");
        });
    CHECK(reply["data"]["sum"] == 3);
    CHECK(p.with_device(p.cloud.rrpc(thermostat, "hello"),
                        [&](auto const& m) { respond(m, "answer to " + m.payload); }) == "answer to hello");
    CHECK(p.with_device(p.cloud.custom_rrpc(thermostat, "/a1B2c3D4e5F/thermostat-7/user/ask", "?"), [&](auto const& m) {
        CHECK(m.topic.starts_with("/ext/rrpc/"));
        p.client.publish(m.topic, "!");
    }) == "!");
}

TEST_CASE("a device that does not answer makes the application wait no longer than it wants to") {
    fixture p;
    CHECK(test::error_of(p.io, p.cloud.call_service(thermostat, "reboot", {}, 20ms)) == asio::error::timed_out);
}

TEST_CASE("an application that waits is told when the cloud is closed down") {
    fixture p;
    std::optional<testing::aliyun_cloud> cloud(p.io.get_executor());
    test::task<json> waiting(p.io, cloud->call_service(thermostat, "reboot", {}));
    p.io.restart();
    p.io.poll();
    cloud.reset();
    CHECK(waiting.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE(
    "an application that has been answered when the cloud goes, and has not gone on yet, is told that it has gone") {
    auto const asked = [](testing::aliyun_cloud& cloud, int what) {
        if (what == 0) return cloud.disable(sensor);
        if (what == 1) return cloud.remove_sub(sensor);
        return cloud.call_service(sensor, "reboot", {});
    };
    for (int const what : {0, 1, 2}) {
        asio::io_context io;
        std::optional<testing::aliyun_cloud> cloud(io.get_executor());
        cloud->add_device(sensor);
        mqtt_client client(io);
        connect(io, *cloud, client, sensor);
        REQUIRE_FALSE(is_error(client.subscribe("/sys/b2C3d4E5f6G/sensor-1/#")));
        bool is_answered = false;
        cloud->on_message = [&](testing::client_info const&, mqtt::publish const& m) {
            if (!m.topic.ends_with("_reply")) return;
            is_answered = true;
            asio::post(io, [&] { cloud.reset(); });  // before who has been woken goes on: that is posted later
        };
        test::task<json> asking(io, asked(*cloud, what));
        REQUIRE(client.wait_for(1));
        json const reply = {{"id", json::parse(client.messages.front().payload)["id"]}, {"code", 200}};
        client.publish(client.messages.front().topic + "_reply", reply.dump());
        CHECK(asking.run_for_error() == asio::error::operation_aborted);
        CHECK(is_answered);
        CHECK_FALSE(cloud.has_value());
    }
}

TEST_CASE("the cloud misbehaves on demand") {
    fixture p;
    auto const topic = own + "/thing/event/property/post";
    auto const post = [&](int value) { return p.ask(topic, {{"x", value}}); };
    p.cloud.answer_next(1, {.code = 429});
    json const throttled = post(1);
    CHECK(throttled["code"] == 429);
    CHECK(throttled["message"] == "too many requests");
    p.cloud.drop_next(1);
    CHECK(post(2) == nullptr);
    CHECK(p.cloud.thing(thermostat).properties.empty());
    p.cloud.answer_next(1, {.wrong_id = true});
    CHECK(post(3)["id"] == "nobody-asked");
    p.cloud.answer_next(1, {.garbage = true});
    p.client.messages.clear();
    p.client.publish(topic, R"({"id":"1","params":{"x":4}})");
    // The device has subscribed to all its topics, so that it gets its own message first.
    CHECK(json::parse(p.client.last(2).payload, nullptr, false).is_discarded());
    CHECK(post(5)["code"] == 200);

    p.cloud.delay_answers(30ms);
    auto const begin = std::chrono::steady_clock::now();
    CHECK(post(6) == nullptr);
    CHECK(p.client.last(2).topic == topic + "_reply");
    CHECK(std::chrono::steady_clock::now() - begin >= 30ms);

    p.client.messages.clear();
    p.cloud.push_error(thermostat, 427);
    auto const m = p.client.last();
    CHECK(m.topic == "/ext/error/a1B2c3D4e5F/thermostat-7");
    CHECK(json::parse(m.payload)["code"] == 427);
    CHECK(json::parse(m.payload)["message"] == "device connect in elsewhere");
}

TEST_CASE("broadcasts and raw payloads go down") {
    fixture p;
    p.client.messages.clear();
    p.cloud.broadcast(thermostat, "you");
    p.cloud.broadcast_to_product("a1B2c3D4e5F", "news", "all");
    p.cloud.send_raw(thermostat, "\x01");
    REQUIRE(p.client.wait_for(3));
    CHECK(p.client.messages[0].topic.starts_with(own + "/broadcast/request/"));
    CHECK(p.client.messages[1].topic == "/broadcast/a1B2c3D4e5F/news");
    CHECK(p.client.messages[2].topic == own + "/thing/model/down_raw");
}

namespace {

std::string const of_gateway = "/sys/a1B2c3D4e5F/gateway-1/thing/";
std::string const sessions = "/ext/session/a1B2c3D4e5F/gateway-1/combine/";
std::string const of_sensor = "/sys/b2C3d4E5f6G/sensor-1/thing/event/property/post";
json const sensor_names = {{"productKey", "b2C3d4E5f6G"}, {"deviceName", "sensor-1"}};

// The sensor as a gateway signs it.
json signed_sensor(std::string const& method_member = "signMethod", std::string const& method = "hmacSha256") {
    aliyun::parameter const list[] = {
        {"clientId", "s1"}, {"deviceName", "sensor-1"}, {"productKey", "b2C3d4E5f6G"}, {"timestamp", "7"}};
    json entry = sensor_names;
    entry["clientId"] = "s1";
    entry["timestamp"] = "7";
    entry[method_member] = method;
    entry["sign"] = aliyun::sign_parameters<digest::sha256>(sensor.device_secret, list).str();
    return entry;
}

json login(fixture& p, json const& params) {
    return p.ask(sessions + "login", json{{"id", "5"}, {"params", params}}, sessions + "login_reply");
}

}  // namespace

TEST_CASE("a gateway's topology takes in what is signed with the sub-device's secret") {
    fixture p(gateway);
    auto const add = [&](json const& entry) { return p.ask(of_gateway + "topo/add", json::array({entry})); };
    json wrong = signed_sensor();
    wrong["sign"] = std::string(64, '0');
    CHECK(add(wrong)["code"] == 401);
    wrong = signed_sensor();
    wrong["deviceName"] = "nobody";
    CHECK(add(wrong)["code"] == 6100);
    CHECK(add({{"productKey", "a1B2c3D4e5F"}, {"deviceName", "gateway-1"}})["code"] == 6402);
    CHECK(add(sensor_names)["code"] == 460);
    CHECK(p.ask(of_gateway + "topo/delete", json::array({sensor_names}))["code"] == 6401);
    CHECK(add(signed_sensor("signmethod"))["data"] == json::array({sensor_names}));
    CHECK(p.cloud.sub_devices(gateway) == std::vector<std::string>{"sensor-1&b2C3d4E5f6G"});
    CHECK(p.ask(of_gateway + "topo/get", json::object())["data"] == json::array({sensor_names}));
    CHECK(p.ask(of_gateway + "topo/delete", json::array({sensor_names}))["code"] == 200);
    CHECK(p.cloud.sub_devices(gateway).empty());
}

TEST_CASE("a sub-device logs in through the gateway that has it, which then speaks for it") {
    fixture p(gateway);
    CHECK(login(p, signed_sensor())["code"] == 6401);
    REQUIRE(p.ask(of_gateway + "topo/add", json::array({signed_sensor()}))["code"] == 200);

    // Before the login its topics are closed, which /ext/error says.
    json const post = {{"id", "9"}, {"params", {{"x", 1}}}};
    CHECK(p.ask(of_sensor, post, "/ext/error/a1B2c3D4e5F/gateway-1")["code"] == 520);
    CHECK(is_error(p.client.subscribe("/sys/b2C3d4E5f6G/sensor-1/#")));

    json wrong = signed_sensor();
    wrong["sign"] = "00";
    CHECK(login(p, wrong)["code"] == 6287);
    json const reply = login(p, signed_sensor());
    CHECK(reply == json{{"id", "5"}, {"code", 200}, {"message", "success"}, {"data", sensor_names}});
    CHECK(p.cloud.logged_in(sensor));
    REQUIRE_FALSE(is_error(p.client.subscribe("/sys/b2C3d4E5f6G/sensor-1/#")));
    CHECK(p.ask(of_sensor, post, of_sensor + "_reply")["code"] == 200);
    CHECK(p.cloud.thing(sensor).properties == json{{"x", 1}});
    CHECK(p.cloud.thing(gateway).properties.empty());

    json const set = p.with_device(p.cloud.set_properties(sensor, {{"y", 2}}),
                                   [&](auto const& m) { p.answer(m, 200, json::object()); });
    CHECK(set["code"] == 200);

    auto const out = [&] {
        return p.ask(sessions + "logout", json{{"id", "6"}, {"params", sensor_names}}, sessions + "logout_reply");
    };
    CHECK(out()["code"] == 200);
    CHECK(out()["code"] == 520);
    CHECK_FALSE(p.cloud.logged_in(sensor));
}

TEST_CASE("sub-devices log in and out in batches, and are logged out when the gateway goes") {
    fixture p(gateway);
    REQUIRE(p.ask(of_gateway + "topo/add", json::array({signed_sensor()}))["code"] == 200);
    json entry = signed_sensor();
    entry.erase("signMethod");
    json const batch = {{"id", "1"}, {"params", {{"signMethod", "hmacSha256"}, {"deviceList", json::array({entry})}}}};
    auto const in = [&] { return p.ask(sessions + "batch_login", batch, sessions + "batch_login_reply"); };
    CHECK(in()["data"] == json::array({sensor_names}));
    json const out = {{"id", "2"}, {"params", json::array({sensor_names})}};
    CHECK(p.ask(sessions + "batch_logout", out, sessions + "batch_logout_reply")["code"] == 200);
    CHECK(in()["code"] == 200);
    CHECK(p.cloud.logged_in(sensor));
    p.cloud.drop_device(gateway);
    CHECK(p.client.wait_for_end());
    CHECK_FALSE(p.cloud.logged_in(sensor));
}

TEST_CASE("sub-devices are disabled, enabled, deleted and thrown out") {
    fixture p(gateway);
    REQUIRE(p.ask(of_gateway + "topo/add", json::array({signed_sensor()}))["code"] == 200);
    REQUIRE(login(p, signed_sensor())["code"] == 200);
    REQUIRE_FALSE(is_error(p.client.subscribe("/sys/b2C3d4E5f6G/sensor-1/#")));
    auto const answer = [&](test::message const& m) { p.answer(m, 200, json::object()); };
    CHECK(p.with_device(p.cloud.disable(sensor), answer)["code"] == 200);
    CHECK_FALSE(p.cloud.logged_in(sensor));
    CHECK(login(p, signed_sensor())["code"] == 522);
    p.cloud.thing(sensor).disabled = false;
    REQUIRE(login(p, signed_sensor())["code"] == 200);
    CHECK(p.with_device(p.cloud.enable(sensor), answer)["code"] == 200);
    p.client.messages.clear();
    p.cloud.log_out(sensor, 427);
    CHECK(json::parse(p.client.last().payload)["code"] == 427);
    REQUIRE(login(p, signed_sensor())["code"] == 200);
    CHECK(p.with_device(p.cloud.remove_sub(sensor), answer)["code"] == 200);
    CHECK(p.cloud.sub_devices(gateway).empty());
    CHECK(p.with_device(p.cloud.change_topology(gateway, 1, json::array({sensor_names})), answer)["code"] == 200);
    CHECK(p.with_device(p.cloud.ask_to_add(gateway, json::array({sensor_names})), answer)["code"] == 200);
}

TEST_CASE("a gateway registers sub-devices of products that allow it") {
    fixture p(gateway);
    json const fresh = {{"productKey", "c3D4e5F6g7H"}, {"deviceName", "new-1"}};
    auto const ask = [&] { return p.ask(of_gateway + "sub/register", json::array({fresh})); };
    CHECK(ask()["code"] == 6250);
    p.cloud.add_product({"c3D4e5F6g7H", "the product's secret", false});
    CHECK(ask()["code"] == 6288);
    p.cloud.add_product({"c3D4e5F6g7H", "the product's secret", true});
    json const data = ask()["data"].at(0);
    CHECK(data["deviceName"] == "new-1");
    CHECK(data["deviceSecret"].get<std::string>().size() == 32);
    CHECK(p.ask(of_gateway + "list/found", json::array({fresh}))["code"] == 200);
    CHECK(p.cloud.thing(gateway).found == json::array({fresh}));
}

TEST_CASE("a gateway registers sub-devices with the secret of their product, each for itself") {
    fixture p(gateway);
    p.cloud.add_product({"c3D4e5F6g7H", "the product's secret"});
    aliyun::parameter const list[] = {{"deviceName", "new-1"}, {"productKey", "c3D4e5F6g7H"}, {"random", "42"}};
    json good = {{"productKey", "c3D4e5F6g7H"}, {"deviceName", "new-1"}, {"random", "42"}, {"signMethod", "hmacsha1"}};
    good["sign"] = aliyun::sign_parameters<digest::sha1>("the product's secret", list).str();
    json bad = good;
    bad["deviceName"] = "new-2";
    json unknown = good;
    unknown["productKey"] = "nothing";
    json const data = p.ask(of_gateway + "proxy/provisioning/product_register",
                            {{"proxieds", json::array({good, bad, unknown})}})["data"];
    REQUIRE(data["successes"].size() == 1);
    CHECK(data["successes"][0]["deviceSecret"].get<std::string>().size() == 32);
    REQUIRE(data["failures"].size() == 2);
    CHECK(data["failures"][0]["code"] == 6600);
    CHECK(data["failures"][1]["code"] == 6250);
}

TEST_CASE("JSON that is nested too deep is refused, whoever sends it") {
    fixture p;
    std::string const deep = std::string(120'000, '[') + std::string(120'000, ']');
    for (auto const& payload :
         {"{\"id\":" + deep + ",\"params\":{\"a\":1}}", "{\"id\":\"1\",\"params\":" + deep + "}"}) {
        p.client.messages.clear();
        p.client.publish(own + "/thing/event/property/post", payload, qos::at_least_once);
        json const reply = json::parse(p.client.last().payload);
        CHECK(reply["code"] == 460);
        p.client.messages.clear();
        p.client.publish("/shadow/update/a1B2c3D4e5F/thermostat-7", payload, qos::at_least_once);
        CHECK(json::parse(p.client.last().payload)["payload"]["content"]["errorcode"] == "400");
    }
    CHECK(p.cloud.thing(thermostat).properties.empty());
    p.client.messages.clear();
    test::task<json> asking(p.io, p.cloud.call_service_synchronously(thermostat, "reboot", {}));
    auto const request = p.client.last();
    std::string response(request.topic);
    response.replace(response.find("/request/"), 9, "/response/");
    p.client.publish(response, deep);
    CHECK_THROWS_AS(asking.run(), std::runtime_error);
}

TEST_CASE("what a device tells is kept up to a limit, the newest of it") {
    fixture p;
    auto& thing = p.cloud.thing(thermostat);
    std::string const filling(2000, 'x');
    for (int i = 0; i < 1500; ++i) {
        json const params = {{"value", {{"n", i}, {"text", filling}}}};
        p.client.begin_publish({.topic = own + "/thing/event/e/post", .payload = json{{"params", params}}.dump()});
        p.client.begin_publish({.topic = own + "/thing/model/up_raw", .payload = std::to_string(i)});
        p.client.begin_publish(
            {.topic = "/ota/device/progress/a1B2c3D4e5F/thermostat-7", .payload = R"({"params":{"step":"1"}})"});
        if (i % 50 == 0) p.client.ping();
    }
    p.client.ping();
    CHECK(thing.events.size() <= testing::max_history_bytes / 2000);
    CHECK(thing.events.size() > 400);
    CHECK(thing.events.back().params["n"] == 1499);
    CHECK(thing.raw.size() == testing::max_history);
    CHECK(thing.raw.back() == "1499");
    CHECK(thing.progress.size() == testing::max_history);
    thing.raw.clear();  // as the user may
    p.client.publish(own + "/thing/model/up_raw", "again");
    p.client.ping();
    CHECK(thing.raw == std::vector<std::string>{"again"});
}

TEST_CASE("a device cannot invent names for ever") {
    fixture p;
    auto const code_of = [&](int first) {
        json params = json::object();
        for (int i = first; i < first + 200; ++i) params["p" + std::to_string(i)] = i;
        return p.ask(own + "/thing/event/property/post", params)["code"];
    };
    for (int i = 0; i < 1000; i += 200) CHECK(code_of(i) == 200);
    CHECK(code_of(1000) == 6106);
    CHECK(code_of(800) == 200);
    CHECK(p.cloud.thing(thermostat).properties.size() == testing::max_names);
    json reported = json::object();
    for (int i = 0; i < 129; ++i) reported["a" + std::to_string(i)] = i;
    auto const update = [&](int version) {
        json const body = {{"method", "update"}, {"state", {{"reported", reported}}}, {"version", version}};
        return p.ask("/shadow/update/a1B2c3D4e5F/thermostat-7", body, "/shadow/get/a1B2c3D4e5F/thermostat-7");
    };
    CHECK(update(1)["payload"]["content"]["errorcode"] == "408");
    reported.erase("a128");
    CHECK(update(2)["payload"]["status"] == "success");
}

TEST_CASE("closing the cloud ends delayed answers and whoever waits for one, and it can be used again") {
    fixture p;
    p.cloud.delay_answers(1h);
    p.client.publish(own + "/thing/event/property/post", R"({"id":"1","params":{"a":1}})", qos::at_least_once);
    test::task<json> asking(p.io, p.cloud.call_service(thermostat, "reboot", {}, 1h));
    REQUIRE(p.client.wait_for(2));  // its own message, too
    p.cloud.close();
    CHECK(asking.run_for_error() == asio::error::operation_aborted);
    CHECK(test::error_of(p.io, p.cloud.call_service(thermostat, "reboot", {}, 1h)) == asio::error::operation_aborted);
    p.io.restart();
    p.io.run_for(5s);
    CHECK(p.io.stopped());
    CHECK_FALSE(p.cloud.connected(thermostat));
    auto const port = p.cloud.listen_tcp();
    CHECK(port != 0);
    CHECK(test::error_of(p.io, p.cloud.call_service(thermostat, "reboot", {}, 20ms)) == asio::error::timed_out);
}
