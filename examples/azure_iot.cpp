// Azure IoT Hub: a device with a key, whose password is a token that expires and is therefore made anew for each
// attempt to connect. Nothing below runnel/aliyun knows of any cloud; this is all that another one takes.
#include <runnel/tls.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "azure_signature.hpp"
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace mqtt = runnel::mqtt;

std::string setting(char const* name) {
    char const* const value = std::getenv(name);
    if (value == nullptr) throw std::runtime_error(std::string("set ") + name);
    return value;
}

asio::awaitable<void> talk(mqtt::session<runnel::wss>& session, std::string const& topic) {
    co_await session.publish(topic, R"({"celsius":21.5})", {.qos = mqtt::qos::at_least_once});
    std::puts("sent a message to the hub");
    co_await session.disconnect();
}

int main() try {
    azure::device const who{setting("AZURE_IOT_HUB"), setting("AZURE_DEVICE_ID"), setting("AZURE_DEVICE_KEY")};
    mqtt::session_options options;
    options.make_credentials = who;
    options.reconnect.attempts = 3;
    runnel::wss const transport{.host = who.hub, .path = "/$iothub/websocket?iothub-no-client-cert=true"};

    asio::io_context context;
    mqtt::session session{context.get_executor(), transport, options};
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
    };
    auto const topic = "devices/" + who.id + "/messages/events/";
    asio::co_spawn(context, session.run(), on_end);
    asio::co_spawn(context, talk(session, topic), on_end);
    context.run();
    if (failure) std::rethrow_exception(failure);
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
