#include <runnel/aliyun/alink/detail/handlers.hpp>

#include <doctest/doctest.h>

#include "support/alink_fixture.hpp"
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

// What the platform asks of a device, in memory: good and bad.

namespace {

using namespace std::chrono_literals;
using test::alink_device;
using test::alink_fixture;
using test::json;
using test::own;
using test::task;
using test::thermostat;
namespace alink = test::alink;
namespace mqtt = test::mqtt;
using alink::errc;

struct fixture : alink_fixture {
    explicit fixture(alink::options o = {}) : device(session, thermostat, noting(std::move(o))) {
        cloud.on_message = [this](auto const&, mqtt::publish const& m) {
            sent.push_back(std::string(m.topic) + " " + std::string(m.payload));
            qualities.push_back(m.qos);
        };
    }

    void start() {
        running.emplace(io, device.run());
        test::run(io, device.start());
    }
    template <class T>
    T run(asio::awaitable<T> operation) {
        return test::run(io, std::move(operation));
    }
    // Sends a request as the platform would, of any form, and gives what the device has sent by then.
    std::vector<std::string> send(std::string const& topic, std::string_view payload) {
        sent.clear();
        cloud.publish(topic, payload);
        settle();
        return sent;
    }

    std::vector<std::string> sent;
    std::vector<mqtt::qos> qualities;
    std::optional<task<void>> running;
    alink_device device;
};

asio::awaitable<json> echo(json input) { co_return input; }

}  // namespace

TEST_CASE("properties are set by a handler, and the platform is told that they are") {
    fixture p;
    json seen;
    p.device.on_properties([&](json values) -> asio::awaitable<void> {
        seen = std::move(values);
        co_return;
    });
    p.start();
    json const wanted = {{"Temperature", 20}};
    auto const reply = p.run(p.cloud.set_properties(thermostat, wanted));
    CHECK(reply["code"] == 200);
    CHECK(seen == wanted);
    CHECK(p.device.counters().calls == 1);
}

TEST_CASE("a service returns its output parameters, called asynchronously, by RRPC, and by RRPC with its topic") {
    alink::options o;
    o.features = o.features | alink::feature::custom_rrpc;
    fixture p(o);
    p.device.on_service("add", [](json input) -> asio::awaitable<json> {
        json const sum = {{"sum", input.at("a").get<int>() + input.at("b").get<int>()}};
        co_return sum;
    });
    p.start();
    json const input = {{"a", 2}, {"b", 3}};
    auto reply = p.run(p.cloud.call_service(thermostat, "add", input));
    CHECK(reply["code"] == 200);
    CHECK(reply["data"] == json{{"sum", 5}});
    reply = p.run(p.cloud.call_service_synchronously(thermostat, "add", input));
    CHECK(reply["data"] == json{{"sum", 5}});
    CHECK(p.qualities.back() == mqtt::qos::at_most_once);
    std::string const call = R"({"id":"77","version":"1.0","params":{"a":4,"b":5},"method":"thing.service.add"})";
    auto const answer = p.run(p.cloud.custom_rrpc(thermostat, own + "/thing/service/add", call));
    CHECK(json::parse(answer)["data"] == json{{"sum", 9}});
    p.settle();
    CHECK(p.device.counters().calls == 3);
    CHECK(p.faults.empty());
}

TEST_CASE("properties may be set by RRPC too") {
    fixture p;
    json seen;
    p.device.on_properties([&](json values) -> asio::awaitable<void> {
        seen = std::move(values);
        co_return;
    });
    p.start();
    auto const answer =
        p.run(p.cloud.rrpc(thermostat, R"({"id":"1","params":{"Power":1},"method":"thing.service.property.set"})"));
    CHECK(json::parse(answer)["code"] == 200);
    CHECK(seen == json{{"Power", 1}});
}

TEST_CASE("a handler refuses with a code and a text of its own") {
    fixture p;
    p.device.on_service("open", [](json) -> asio::awaitable<json> {
        throw alink::refusal(100001, "the valve is stuck");
        co_return json();
    });
    p.start();
    json const none = json::object();
    auto const reply = p.run(p.cloud.call_service(thermostat, "open", none));
    CHECK(reply["code"] == 100001);
    CHECK(reply["message"] == "the valve is stuck");
}

TEST_CASE(
    "a parameter that is missing or of another type is refused for the handler, what else it throws is not shown") {
    fixture p;
    p.device.on_service("set", [](json input) -> asio::awaitable<json> {
        json const doubled = {{"twice", 2 * input.at("value").get<double>()}};
        co_return doubled;
    });
    p.device.on_service("fail", [](json) -> asio::awaitable<json> {
        throw std::runtime_error("the password is 1234");
        co_return json();
    });
    p.device.on_service("odd", [](json) -> asio::awaitable<json> {
        throw 7;
        co_return json();
    });
    p.start();
    json const none = json::object(), text = {{"value", "text"}}, good = {{"value", 1}};
    CHECK(p.run(p.cloud.call_service(thermostat, "set", none))["code"] == 460);
    CHECK(p.run(p.cloud.call_service(thermostat, "set", text))["code"] == 460);
    CHECK(p.run(p.cloud.call_service(thermostat, "set", good))["data"]["twice"] == 2);
    auto const failed = p.run(p.cloud.call_service(thermostat, "fail", none));
    CHECK(failed["code"] == 500);
    CHECK(failed.dump().find("1234") == std::string::npos);
    CHECK(p.run(p.cloud.call_service(thermostat, "odd", none))["code"] == 500);
    REQUIRE(p.faults.size() == 4);
    CHECK(p.faults[0] == errc::parameters_invalid);
    CHECK(p.faults[2] == errc::handler_failed);
    CHECK(p.details[2] == "the password is 1234");
}

TEST_CASE("a handler's reply that cannot be sent becomes an error") {
    fixture p;
    p.device.on_service("name", [](json) -> asio::awaitable<json> {
        json const bad = {{"name", "\xFF"}};
        co_return bad;
    });
    p.start();
    json const none = json::object();
    CHECK(p.run(p.cloud.call_service(thermostat, "name", none))["code"] == 500);
    REQUIRE(p.faults.size() == 1);
    CHECK(p.faults[0] == errc::text_not_utf8);
}

TEST_CASE("a slow handler holds up neither others nor acknowledgements") {
    fixture p;
    int ended = 0;
    p.device.on_service("slow", [&](json) -> asio::awaitable<json> {
        asio::steady_timer timer(p.io, 20ms);
        co_await timer.async_wait(asio::use_awaitable);
        ++ended;
        co_return json::object();
    });
    p.device.on_service("quick", echo);
    p.start();
    json const input = {{"x", 1}};
    task<json> slow(p.io, p.cloud.call_service(thermostat, "slow", input));
    CHECK(p.run(p.cloud.call_service(thermostat, "quick", input))["data"] == input);
    CHECK(ended == 0);
    CHECK(slow.run()["code"] == 200);
}

TEST_CASE("a handler may make requests itself") {
    fixture p;
    p.device.on_properties([&](json values) -> asio::awaitable<void> { co_await p.device.post_properties(values); });
    p.start();
    json const wanted = {{"Temperature", 20}};
    CHECK(p.run(p.cloud.set_properties(thermostat, wanted))["code"] == 200);
    CHECK(p.cloud.thing(thermostat).properties == wanted);
}

TEST_CASE("more calls at a time than allowed are refused") {
    alink::options o;
    o.maximum_calls = 2;
    fixture p(o);
    p.device.on_service("slow", [&](json) -> asio::awaitable<json> {
        asio::steady_timer timer(p.io, 10ms);
        co_await timer.async_wait(asio::use_awaitable);
        co_return json::object();
    });
    p.start();
    json const none = json::object();
    task<json> one(p.io, p.cloud.call_service(thermostat, "slow", none));
    task<json> two(p.io, p.cloud.call_service(thermostat, "slow", none));
    p.settle();
    CHECK(p.run(p.cloud.call_service(thermostat, "slow", none))["code"] == 429);
    CHECK(one.run()["code"] == 200);
    CHECK(two.run()["code"] == 200);
    CHECK(p.run(p.cloud.call_service(thermostat, "slow", none))["code"] == 200);
    CHECK(p.device.counters().calls == 3);
}

TEST_CASE("messages wait for run in a queue of bounded length") {
    alink::options o;
    o.maximum_waiting = 2;
    fixture p(o);
    p.device.on_service("echo", echo);
    p.run(p.device.start());
    for (int i = 0; i < 5; ++i) p.send(own + "/thing/service/echo", R"({"id":"1","params":{}})");
    CHECK(p.device.counters().dropped == 3);
    p.sent.clear();
    p.start();
    p.settle();
    CHECK(p.sent.size() == 2);
}

TEST_CASE("cancelling run ends the handlers, which answer no more") {
    fixture p;
    bool destroyed = false;
    struct mark {
        bool& at;
        ~mark() { at = true; }
    };
    p.device.on_service("slow", [&](json) -> asio::awaitable<json> {
        mark const m{destroyed};
        asio::steady_timer timer(p.io, 1h);
        co_await timer.async_wait(asio::use_awaitable);
        co_return json::object();
    });
    p.start();
    p.send(own + "/thing/service/slow", R"({"id":"1","params":{}})");
    CHECK_FALSE(destroyed);
    p.sent.clear();
    p.running->cancel();
    CHECK(p.running->run_for_error() == asio::error::operation_aborted);
    CHECK(destroyed);
    p.settle();
    CHECK(p.sent.empty());
    CHECK(p.faults.empty());
}

TEST_CASE("run ends with the session, and its handlers with it") {
    fixture p;
    bool ended = false;
    p.device.on_service("slow", [&](json) -> asio::awaitable<json> {
        asio::steady_timer timer(p.io, 1h);
        try {
            co_await timer.async_wait(asio::use_awaitable);
        } catch (std::system_error const&) {
            ended = true;
            throw;
        }
        co_return json::object();
    });
    p.start();
    p.send(own + "/thing/service/slow", R"({"id":"1","params":{}})");
    p.disconnect(*p.running);
    CHECK(ended);
}

TEST_CASE("bad calls are refused with a clear reply where it is known to whom, and never end run") {
    fixture p;
    p.device.on_service("echo", echo);
    p.device.on_properties(echo);
    p.start();
    struct example {
        std::string topic;
        std::string payload;
        errc fault;
        int code;  // 0: no reply
    };
    auto const service = own + "/thing/service/echo", set = own + "/thing/service/property/set";
    example const examples[] = {
        {service, "", errc::not_json, 0},
        {service, "{\"id\":", errc::not_json, 0},
        {service, "\xFF\xFE", errc::not_json, 0},
        {service, "[]", errc::not_an_object, 0},
        {service, std::string(100'000, '['), errc::too_deep, 0},
        {service, R"({"params":{}})", errc::id_missing, 0},
        {service, R"({"id":"9","params":7})", errc::member_of_wrong_type, 460},
        {set, R"({"id":"9","params":"all"})", errc::member_of_wrong_type, 460},
        {set, R"({"id":[],"params":{}})", errc::member_of_wrong_type, 0},
        {own + "/thing/config/push", R"({"id":"9","params":{}})", errc::no_handler, 404},
    };
    for (auto const& e : examples) {
        CAPTURE(e.payload.substr(0, 50));
        p.faults.clear();
        auto const sent = p.send(e.topic, e.payload);
        REQUIRE(p.faults.size() == 1);
        CHECK(p.faults[0] == e.fault);
        REQUIRE(sent.size() == (e.code == 0 ? 0 : 1));
        if (e.code == 0) continue;
        CHECK(sent[0].starts_with(e.topic + "_reply {"));
        auto const reply = json::parse(sent[0].substr(sent[0].find(' ')));
        CHECK(reply["id"] == "9");
        CHECK(reply["code"] == e.code);
    }
    CHECK_FALSE(p.running->done());
    CHECK(p.send(service, R"({"id":"10","params":{"x":1}})").size() == 1);
}

TEST_CASE("a call that wants no reply gets none") {
    fixture p;
    p.device.on_service("echo", echo);
    p.start();
    CHECK(p.send(own + "/thing/service/echo", R"({"id":"1","sys":{"ack":0},"params":{}})").empty());
    CHECK(p.device.counters().calls == 1);
}

TEST_CASE("RRPC of any form is answered by its handler, and with an error where there is none or it fails") {
    fixture p;
    p.start();
    CHECK(json::parse(p.run(p.cloud.rrpc(thermostat, "hello")))["code"] == 404);
    CHECK(json::parse(p.run(p.cloud.rrpc(thermostat, R"({"id":"5","method":"thing.service.none"})")))["code"] == 404);
    p.device.on_rrpc([](std::string request) -> asio::awaitable<std::string> {
        if (request == "fail") throw std::runtime_error("no");
        co_return request + ", world";
    });
    CHECK(p.run(p.cloud.rrpc(thermostat, "hello")) == "hello, world");
    CHECK(p.run(p.cloud.rrpc(thermostat, "{not json")) == "{not json, world");
    CHECK(json::parse(p.run(p.cloud.rrpc(thermostat, "fail")))["code"] == 500);
    for (auto const quality : p.qualities) CHECK(quality == mqtt::qos::at_most_once);
}

TEST_CASE("RRPC with a topic of one's own is answered on it, once") {
    fixture p;
    std::vector<std::string> requests;
    std::string const topic = "/a1B2c3D4e5F/thermostat-7/user/ask";
    p.device.on_custom_rrpc(topic, [&](std::string request) -> asio::awaitable<std::string> {
        requests.push_back(request);
        co_return "answer to " + request;
    });
    p.start();
    for (auto const* request : {"one", "two"})
        CHECK(p.run(p.cloud.custom_rrpc(thermostat, topic, request)) == std::string("answer to ") + request);
    p.settle();
    // The simulator gives a device its own answers, too, as it subscribes to their topic.
    CHECK(requests == std::vector<std::string>{"one", "two"});
}

TEST_CASE("raw data and broadcasts come to their handlers") {
    alink::options o;
    o.features = o.features | alink::feature::raw | alink::feature::broadcast;
    fixture p(o);
    std::vector<std::string> seen;
    auto const note = [&](std::string bytes) -> asio::awaitable<std::string> {
        seen.push_back(std::move(bytes));
        co_return "";
    };
    p.device.on_raw([&](std::string bytes) -> asio::awaitable<std::string> {
        seen.push_back(std::move(bytes));
        co_return "raw reply";
    });
    p.device.on_broadcast(note);
    p.device.on_product_broadcast("news", note);
    p.start();
    p.cloud.send_raw(thermostat, std::string_view("\x00\xFF", 2));
    p.cloud.broadcast(thermostat, "to you");
    p.cloud.broadcast_to_product("a1B2c3D4e5F", "news", "to all");
    p.settle();
    CHECK(seen == std::vector<std::string>{std::string("\x00\xFF", 2), "to you", "to all"});
    CHECK(p.sent == std::vector<std::string>{own + "/thing/model/down_raw_reply raw reply"});
    p.run(p.device.post_raw("\x01\x02"));
    p.settle();
    CHECK(p.cloud.thing(thermostat).raw == std::vector<std::string>{"\x01\x02"});
}

TEST_CASE("handlers that bring a topic with them cannot be set once the device has started") {
    fixture p;
    p.run(p.device.start());
    CHECK_THROWS_AS(p.device.on_service("late", echo), std::logic_error);
    auto const raw = [](std::string s) -> asio::awaitable<std::string> { co_return s; };
    CHECK_THROWS_AS(p.device.on_custom_rrpc("/a1B2c3D4e5F/thermostat-7/user/x", raw), std::logic_error);
    CHECK_THROWS_AS(p.device.on_product_broadcast("news", raw), std::logic_error);
    p.device.on_properties(echo);
}

TEST_CASE("a message that cannot be meant for the device is ignored") {
    fixture p;
    p.device.on_properties(echo);
    p.start();
    CHECK(p.send(own + "/thing/service/property/set_reply", R"({"id":"1","code":200})").empty());
    CHECK(p.send("/ext/error/a1B2c3D4e5F/thermostat-7", "rubbish").empty());
    CHECK(p.faults.size() == 1);
    CHECK(p.send("/shadow/get/a1B2c3D4e5F/thermostat-7", "{}").empty());
    CHECK(p.send("/ext/ntp/a1B2c3D4e5F/thermostat-7/response", "{}").empty());
    CHECK(p.faults.size() == 3);
    CHECK(p.send("/ext/ntp/a1B2c3D4e5F/thermostat-7/response",
                 R"({"deviceSendTime":"1","serverRecvTime":"1","serverSendTime":"1"})")
              .empty());
    CHECK(
        p.send("/shadow/get/a1B2c3D4e5F/thermostat-7", R"({"method":"reply","payload":{"status":"success"}})").empty());
    CHECK(p.device.counters().unmatched_replies == 2);
    CHECK_FALSE(p.running->done());
}
