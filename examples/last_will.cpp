// A will with properties (MQTT 5): the broker publishes it when a device is lost, and those who watch learn what it is
// and whom it is about. The device tells what has been agreed on with the broker.
//
// The broker runs in this process.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <string>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
using namespace std::chrono_literals;

mqtt::session_options options(std::string name) {
    mqtt::session_options o;
    o.version = mqtt::protocol_version::v5;
    o.credentials.client_id = std::move(name);
    o.session_expiry = 0s;
    return o;
}

mqtt::session_options device_options() {
    auto o = options("thermostat-7");
    o.user_properties = {{"firmware", "1.4"}};  // of CONNECT: for the broker's log
    o.will = {.topic = "devices/thermostat-7/status",
              .payload = R"({"online":false})",
              .qos = mqtt::qos::at_least_once,
              .retain = true,
              .payload_is_utf8 = true,
              .content_type = "application/json",
              .user_properties = {{"site", "north"}, {"room", "12"}}};
    return o;
}

asio::awaitable<void> watch(session& watcher, session& device, asio::cancellation_signal& power) {
    auto inbox = co_await watcher.subscribe("devices/+/status");
    co_await device.connected();
    auto const agreed = device.negotiated();
    std::printf(
        "the device is connected: keep alive %lld s, at most %u messages unacknowledged, retained messages %s\n",
        static_cast<long long>(agreed->keep_alive.count()), unsigned{agreed->server.receive_maximum},
        agreed->server.retain_available ? "kept" : "not kept");
    power.emit(asio::cancellation_type::terminal);  // the connection is cut, without DISCONNECT

    auto const will = co_await inbox.receive();
    std::printf("%s: %s", std::string(will.topic()).c_str(), std::string(will.payload()).c_str());
    for (auto const& [name, value] : will.props().get<mqtt::property_id::user_property>())
        std::printf(", %s %s", std::string(name).c_str(), std::string(value).c_str());
    std::puts("");
    co_await watcher.disconnect();
}

int main() try {
    asio::io_context context;
    runnel::testing::broker broker(context.get_executor());
    runnel::tcp const address{.host = "127.0.0.1", .port = broker.listen_tcp()};
    session watcher{context.get_executor(), address, options("watcher")};
    session device{context.get_executor(), address, device_options()};

    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error) failure = error;
        broker.close();  // the last that keeps the context at work
    };
    asio::cancellation_signal power;
    asio::co_spawn(context, device.run(), asio::bind_cancellation_slot(power.slot(), [](std::exception_ptr) {}));
    asio::co_spawn(context, watcher.run(), [](std::exception_ptr) {});
    asio::co_spawn(context, watch(watcher, device, power), on_end);
    context.run();
    if (failure) std::rethrow_exception(failure);
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
