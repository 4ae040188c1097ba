// The main job, without an account and without a network: a simulator of the Aliyun IoT Platform in this process, and a
// signed device that connects, subscribes, publishes and receives its message, over TCP, TLS, WebSocket and WebSocket
// Secure in turn. From one to the next, one type changes.
#include <runnel/testing/aliyun/platform.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/tls.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <string>

namespace aliyun = runnel::aliyun;
namespace mqtt = runnel::mqtt;
namespace testing = runnel::testing;

// Who the device is. Its secret never leaves it: it signs the connection.
constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "the secret of this device"};

// What the device does, over whatever transport.
template <class Session>
asio::awaitable<void> talk(Session& session) {
    co_await session.connected();
    std::printf("   the platform has accepted the device's signature\n");

    std::string const topic = aliyun::device_topics(thermostat).of<aliyun::topic_kind::custom>("readings").str();
    auto inbox = co_await session.subscribe(topic, {.maximum_qos = mqtt::qos::at_least_once});
    std::printf("   subscribed to %s\n", topic.c_str());

    co_await session.publish(topic, R"({"celsius":21.5})", {.qos = mqtt::qos::at_least_once});
    std::printf("   published a reading; the platform has acknowledged it\n");

    auto const message = co_await inbox.receive();
    std::printf("   received %s\n", std::string(message.payload()).c_str());

    co_await session.disconnect();
    std::printf("   disconnected\n\n");
}

// Runs one session over `transport` to its end.
template <class Transport>
void demonstrate(asio::io_context& context, std::uint16_t port, Transport transport) {
    transport.host = "localhost";
    transport.port = port;
    auto options = aliyun::session_options<Transport>(thermostat);
    options.reconnect.attempts = 1;  // fail at once: this is a demonstration
    auto const credentials = options.make_credentials();
    std::printf("%s\n   client identifier %s\n   user name         %s\n   password          %s\n",
                transport.url().c_str(), credentials.client_id.c_str(), credentials.user_name->c_str(),
                credentials.password->c_str());

    mqtt::session<Transport> session{context.get_executor(), transport, options};
    int running = 2;
    std::exception_ptr failure;
    auto const on_end = [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        --running;
    };
    asio::co_spawn(context, session.run(), on_end);
    asio::co_spawn(context, talk(session), on_end);
    while (running > 0) context.run_one();
    if (failure) std::rethrow_exception(failure);
}

int main() try {
    asio::io_context context;
    testing::aliyun_platform platform{context.get_executor()};
    platform.add_device(thermostat);
    platform.hooks().log = [](std::string_view line) { std::printf("   platform: %s\n", std::string(line).c_str()); };

    // The platform's certificates come from an authority made on the spot, so that is whom the device trusts.
    testing::certificate_authority const authority;
    runnel::tls_options trust;
    trust.ca_pem = authority.certificate_pem();
    runnel::mqtts secure;
    secure.context = runnel::tls_context(trust);
    runnel::wss secure_websocket;
    secure_websocket.next = secure;

    using testing::over_tls, testing::over_websocket;
    demonstrate(context, platform.listen_tcp(), runnel::tcp{});
    demonstrate(context, platform.listen(over_tls(authority)), secure);
    demonstrate(context, platform.listen(over_websocket()), runnel::ws{});
    demonstrate(context, platform.listen(over_websocket(over_tls(authority))), secure_websocket);

    std::printf("All four worked. examples/device.cpp does the same on the real platform.\n");
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
