// A session that speaks MQTT 5 where the server takes it, and MQTT 3.1.1 where it does not: the same program with a
// server of each kind. Both run in this process.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <stdexcept>
#include <string>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
using mqtt::protocol_version;

// Publishes with a property where there are properties, and says so in the payload where there are none.
asio::awaitable<void> report(session& device, protocol_version expected) {
    co_await device.connected();
    auto const version = device.negotiated()->version;
    if (version != expected) throw std::runtime_error("another version than expected");
    bool const v5 = version == protocol_version::v5;
    mqtt::properties props;
    props.content_type = "application/json";
    std::string const payload = v5 ? R"({"celsius":21.5})" : R"({"type":"json","celsius":21.5})";
    co_await device.publish("devices/7", payload, {.qos = mqtt::qos::at_least_once, .props = v5 ? &props : nullptr});
    std::printf("published by MQTT %s\n", v5 ? "5" : "3.1.1");
    co_await device.disconnect();
}

void try_server(bool takes_5) {
    asio::io_context context;
    runnel::testing::broker broker(context.get_executor());
    broker.hooks().on_connect = [=](runnel::testing::connect_attempt& attempt) {
        bool const refused = attempt.version == protocol_version::v5 && !takes_5;
        return refused ? mqtt::reason_code::unsupported_protocol_version : mqtt::reason_code::success;
    };
    mqtt::session_options options;
    options.version = protocol_version::automatic;
    options.credentials.client_id = "device-7";
    options.on_event = [](mqtt::session_event const& event) { std::puts(to_string(event).c_str()); };
    session device{context.get_executor(), {.host = "127.0.0.1", .port = broker.listen_tcp()}, options};

    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error) failure = error;
        broker.close();  // the last that keeps the context at work
    };
    asio::co_spawn(context, device.run(), [](std::exception_ptr) {});
    asio::co_spawn(context, report(device, takes_5 ? protocol_version::v5 : protocol_version::v3_1_1), on_end);
    context.run();
    if (failure) std::rethrow_exception(failure);
}

int main() try {
    try_server(true);
    try_server(false);
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
