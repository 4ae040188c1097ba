#include <runnel/aliyun/alink/detail/channel.hpp>
#include <runnel/aliyun/alink/device.hpp>
#include <runnel/runnel.hpp>
#include <runnel/testing/over_websocket.hpp>

#include <doctest/doctest.h>

#include "support/alink_fixture.hpp"
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// The least that a session must be for Alink, and Alink over WebSocket.

namespace {

using namespace std::chrono_literals;
using test::json;
using test::task;
using test::thermostat;
namespace aliyun = test::aliyun;
namespace alink = test::alink;
namespace mqtt = test::mqtt;
using alink::errc;

// The archetype of `alink::message_session`: no network, and no platform. Keeps what is published, and hands messages
// to those who have subscribed.
class archetype {
  public:
    using executor_type = asio::any_io_executor;
    template <class T>
    using awaitable = asio::awaitable<T>;
    struct subscription {
        std::string filter;
        asio::any_io_executor executor;
        std::error_code closed() const noexcept { return {}; }
        awaitable<void> receive(std::error_code&) { co_await runnel::sleep_for(executor, 1h); }
    };
    using handler = std::function<void(mqtt::publish const&)>;

    explicit archetype(asio::io_context& io) : executor_(io.get_executor()) {}
    archetype(archetype const&) = delete;

    executor_type get_executor() const { return executor_; }
    awaitable<void> publish(std::string_view topic, std::string_view payload, mqtt::publish_options) {
        published.emplace_back(topic, payload);
        co_return;
    }
    bool try_publish(std::string_view topic, std::string_view payload, mqtt::publish_options) {
        published.emplace_back(topic, payload);
        return true;
    }
    awaitable<subscription> subscribe(std::string_view filter, handler h, mqtt::subscribe_options) {
        subscription const made{std::string(filter), executor_};
        while (!grants) co_await runnel::sleep_for(executor_, 1ms);
        handlers.insert_or_assign(made.filter, std::move(h));
        co_return made;
    }
    awaitable<void> unsubscribe(subscription const& s) {
        handlers.erase(s.filter);
        co_return;
    }

    bool grants = true;  // else a subscription waits
    std::vector<std::pair<std::string, std::string>> published;
    std::map<std::string, handler> handlers;

  private:
    asio::any_io_executor executor_;
};

static_assert(alink::message_session<archetype>);
static_assert(!alink::subscribes_to_several<archetype>);
static_assert(alink::subscribes_to_several<test::memory_session>);

}  // namespace

TEST_CASE("a channel needs no more of a session than the concept says") {
    asio::io_context io;
    archetype session(io);
    std::optional<task<void>> running;
    alink::device device(session, thermostat);
    device.on_service("echo", [](json input) -> asio::awaitable<json> { co_return input; });
    running.emplace(io, device.run());
    test::run(io, device.start());
    CHECK(session.handlers.size() == alink::filters_of(alink::feature::usual, thermostat).size() + 1);

    json const values = {{"Temperature", 21.5}};
    task<json> asking(io, device.post_properties(values));
    test::settle(io);
    REQUIRE(session.published.size() == 1);
    CHECK(session.published[0].first == test::own + "/thing/event/property/post");
    auto const id = json::parse(session.published[0].second)["id"].get<std::string>();
    auto const reply = R"({"id":")" + id + R"(","code":200,"data":{"x":1}})";
    session.handlers.at(test::own + "/thing/event/+/post_reply")(
        {.topic = "/sys/a1B2c3D4e5F/thermostat-7/thing/event/property/post_reply", .payload = reply});
    CHECK(asking.run() == json{{"x", 1}});

    session.handlers.at(test::own + "/thing/service/echo")(
        {.topic = "/sys/a1B2c3D4e5F/thermostat-7/thing/service/echo", .payload = R"({"id":"7","params":{"y":2}})"});
    test::settle(io);
    REQUIRE(session.published.size() == 2);
    CHECK(session.published[1].first == test::own + "/thing/service/echo_reply");

    test::run(io, device.stop());
    CHECK(session.handlers.empty());
    running->cancel();
    CHECK(running->run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("stop ends those who start, and what they are granted afterwards") {
    asio::io_context io;
    archetype session(io);
    alink::device device(session, thermostat);
    session.grants = false;
    task<void> starting(io, device.start());
    task<void> waiting(io, device.start());
    json const values = {{"Temperature", 21.5}};
    task<json> asking(io, device.post_properties(values));
    test::settle(io);
    test::run(io, device.stop());
    CHECK_FALSE(starting.done());
    task<void> again(io, device.start());  // is not meant
    session.grants = true;
    CHECK(starting.run_for_error() == mqtt::errc::disconnected);
    CHECK(waiting.run_for_error() == mqtt::errc::disconnected);
    CHECK(asking.run_for_error() == mqtt::errc::disconnected);
    CHECK_FALSE(again.run_for_error());
    auto const all = alink::filters_of(alink::feature::usual, thermostat).size();
    CHECK(session.handlers.size() == all);
    test::run(io, device.stop());
    CHECK(session.handlers.empty());
}

TEST_CASE("a device talks over WebSocket as over anything") {
    asio::io_context io;
    runnel::testing::aliyun_cloud cloud{io.get_executor()};
    cloud.add_device(thermostat);
    runnel::ws transport;
    transport.host = "127.0.0.1";
    transport.port = cloud.listen(runnel::testing::over_websocket());
    transport.path = "/mqtt";
    std::optional<task<void>> session_running, running;
    mqtt::session session{io.get_executor(), transport, aliyun::session_options<runnel::ws>(thermostat)};
    alink::device device(session, thermostat);
    json set;
    device.on_properties([&](json values) -> asio::awaitable<void> {
        set = std::move(values);
        co_return;
    });
    session_running.emplace(io, session.run());
    running.emplace(io, device.run());
    json const values = {{"Temperature", 21.5}};
    test::run(io, device.post_properties(values));
    CHECK(cloud.thing(thermostat).properties == values);
    CHECK(test::run(io, cloud.set_properties(thermostat, values))["code"] == 200);
    CHECK(set == values);
    test::run(io, session.disconnect());
    CHECK_FALSE(running->run_for_error());
    CHECK_FALSE(session_running->run_for_error());
}
