// A device on the real IoT Platform: connects, subscribes, publishes once, prints what it receives until it is
// interrupted (Ctrl-C) or --seconds are over.
#include <runnel/tls.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

#include "settings.hpp"
#include <cstdio>
#include <string>

namespace aliyun = runnel::aliyun;
namespace mqtt = runnel::mqtt;

constexpr char usage[] = R"(usage: device [--NAME VALUE]...

A device on Alibaba Cloud's IoT Platform. Each setting may also come from the environment variable behind it.

  --product-key KEY      ALIYUN_PRODUCT_KEY     required
  --device-name NAME     ALIYUN_DEVICE_NAME     required
  --device-secret SECRET ALIYUN_DEVICE_SECRET   required
  --region REGION        ALIYUN_REGION          public instance in this region, default cn-shanghai
  --instance ID          ALIYUN_INSTANCE        Enterprise or new public instance (iot-...), instead of --region
  --host HOST            ALIYUN_HOST            this host, instead of --region and --instance
  --port PORT            ALIYUN_PORT            default: 1883 for tcp, 8883 for tls, 443 for ws and wss
  --transport TRANSPORT  ALIYUN_TRANSPORT       tcp, tls, ws or wss; default wss
  --path PATH            ALIYUN_PATH            of WebSocket, default /mqtt
  --ca FILE              ALIYUN_CA              authorities to trust (PEM); default: the system's
  --client-id ID         ALIYUN_CLIENT_ID       default: product key, dot, device name
  --sign-method METHOD   ALIYUN_SIGN_METHOD     hmacmd5, hmacsha1 or hmacsha256 (default)
  --keep-alive SECONDS   ALIYUN_KEEP_ALIVE      30 to 1200, default 300
  --subscribe TOPIC      ALIYUN_SUBSCRIBE       default /KEY/NAME/user/get
  --publish TOPIC        ALIYUN_PUBLISH         default /KEY/NAME/user/update
  --message TEXT         ALIYUN_MESSAGE         default {"hello":"from runnel"}
  --seconds SECONDS      ALIYUN_SECONDS         how long to go on, default 30

The port 8883 of the platform presents a certificate of Alibaba's own authority, which has to be given by --ca.
)";

using example::settings;

void report(mqtt::session_event const& event) { std::puts(to_string(event).c_str()); }

template <class Session>
asio::awaitable<void> talk(Session& session, settings const& given, std::string const& own_topics) {
    auto const filter = given.get("subscribe", own_topics + "get");
    auto const topic = given.get("publish", own_topics + "update");
    auto const text = given.get("message", R"({"hello":"from runnel"})");
    auto inbox = co_await session.subscribe(filter, {.maximum_qos = mqtt::qos::at_least_once});
    std::printf("subscribed to %s\n", filter.c_str());
    co_await session.publish(topic, text, {.qos = mqtt::qos::at_least_once});
    std::printf("published to %s\n", topic.c_str());
    for (;;) {
        std::error_code ended;
        auto const message = co_await inbox.receive(ended);
        if (ended) co_return;
        std::printf("%s: %s\n", std::string(message.topic()).c_str(), std::string(message.payload()).c_str());
    }
}

// Connects over `transport` and goes on until the time is over or a signal comes.
template <class Transport>
void run(Transport transport, settings const& given, aliyun::device const& device) {
    aliyun::connect_options how;
    how.keep_alive = std::chrono::seconds(given.number("keep-alive", 300, 30, 1200));
    if (auto id = given.get("client-id"); !id.empty()) how.client_id = id;
    auto const method = aliyun::sign_method_named(given.get("sign-method", "hmacsha256"));
    if (!method) throw example::usage_error("--sign-method must be hmacmd5, hmacsha1 or hmacsha256");
    how.method = *method;
    auto options = aliyun::session_options<Transport>(device, how);
    options.on_event = report;
    options.reconnect.attempts = 3;

    std::printf("%s\n", transport.url().c_str());
    asio::io_context context;
    aliyun::device_session<Transport> session{context.get_executor(), device, transport, options};
    asio::signal_set signals(context, SIGINT, SIGTERM);
    asio::steady_timer timer(context, std::chrono::seconds(given.number("seconds", 30, 0, 1'000'000)));
    auto const stop = [&](std::error_code cancelled, auto...) {
        if (!cancelled) asio::co_spawn(context, session.disconnect(), [](std::exception_ptr) {});
    };
    signals.async_wait(stop);
    timer.async_wait(stop);

    std::exception_ptr failure;
    asio::co_spawn(context, session.run(), [&](std::exception_ptr error) {
        if (error) failure = error;
        signals.cancel();
        timer.cancel();
    });
    auto const own_topics = "/" + device.product_key.str() + "/" + device.device_name.str() + "/user/";
    asio::co_spawn(context, talk(session, given, own_topics), [&](std::exception_ptr error) {
        if (error && !failure) failure = error;
        stop({});
    });
    context.run();
    if (failure) std::rethrow_exception(failure);
}

aliyun::endpoint endpoint_of(settings const& given, aliyun::device const& device) {
    aliyun::endpoint where;
    if (auto const host = given.get("host"); !host.empty())
        where.host = host;
    else if (auto const instance = given.get("instance"); !instance.empty())
        where = aliyun::instance_endpoint(instance);
    else
        where = aliyun::public_endpoint(device, given.get("region", "cn-shanghai"));
    where.port = static_cast<std::uint16_t>(given.number("port", 0, 1, 65535));
    where.path = given.get("path", "/mqtt");
    return where;
}

int start(settings const& given) {
    auto const device = aliyun::make_device(given.required("product-key"), given.required("device-name"),
                                            given.required("device-secret"));
    auto const where = endpoint_of(given, device);
    runnel::tls_options tls;
    tls.ca_file = given.get("ca");

    auto const transport = given.get("transport", "wss");
    if (transport == "tcp") {
        run(where.over<runnel::tcp>(), given, device);
    } else if (transport == "ws") {
        run(where.over<runnel::ws>(), given, device);
    } else if (transport == "tls") {
        auto secure = where.over<runnel::mqtts>();
        secure.context = runnel::tls_context(tls);
        run(secure, given, device);
    } else if (transport == "wss") {
        auto secure = where.over<runnel::wss>();
        secure.next.context = runnel::tls_context(tls);
        run(secure, given, device);
    } else {
        throw example::usage_error("--transport must be tcp, tls, ws or wss");
    }
    return 0;
}

int main(int argc, char** argv) {
    return example::run(usage, argc, argv, [&] { return start(settings(usage, argc, argv, 1, "ALIYUN_")); });
}
