// What footprint.py measures: a program with as much of runnel as the macros say. Without an argument it makes a
// session and prints its size in bytes, what it takes of the heap then, and the most memory that the process has had,
// in KiB.
#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>
#if WITH_TLS
#include <runnel/transport/tls/tls.hpp>
#endif
#if WITH_WEBSOCKET
#include <runnel/websocket/transport.hpp>
#endif
#if WITH_STORE
#include <runnel/mqtt/store/sqlite_store.hpp>
#endif
#if WITH_ALIYUN
#include <runnel/aliyun/client/device_session.hpp>
#endif

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>

#include "footprint.hpp"
#include <chrono>
#include <memory>

namespace mqtt = runnel::mqtt;

#if WITH_TLS
using stream_transport = runnel::tls<runnel::tcp>;
#else
using stream_transport = runnel::tcp;
#endif
#if WITH_WEBSOCKET
using transport = runnel::websocket::over<stream_transport>;
#else
using transport = stream_transport;
#endif
#if WITH_ALIYUN
using session_type = runnel::aliyun::device_session<transport>;
auto& mqtt_session_of(session_type& device) { return device.mqtt_session(); }
#else
using session_type = mqtt::session<transport>;
auto& mqtt_session_of(session_type& session) { return session; }
#endif

asio::awaitable<void> talk(session_type& session) {
    co_await session.publish("/a/b/user/t", "21.5", {.qos = mqtt::qos::at_least_once});
#if WITH_SUBSCRIBE
    auto inbox = co_await session.subscribe("/a/b/user/u");
    auto const message = co_await inbox.receive();
    co_await session.publish("/a/b/user/t", message.payload());
    co_await session.unsubscribe(inbox);
#endif
#if WITH_REQUEST
    auto& mqtt_session = mqtt_session_of(session);
    auto const response = co_await mqtt_session.request("/a/b/user/v", "?", std::chrono::seconds(5));
    co_await mqtt_session.respond(response.view(), "!");
#endif
    co_await session.disconnect();
}

int main(int argc, char**) {
    asio::io_context io;
    auto const before = footprint::heap_bytes();
    transport const to{.host = "localhost"};
#if WITH_ALIYUN
    constexpr runnel::aliyun::device device{"a", "b", "secret"};
    auto options = runnel::aliyun::session_options<transport>(device);
#else
    mqtt::session_options options;
#endif
#if WITH_STORE
    options.credentials.client_id = "footprint";
    options.store = std::make_shared<mqtt::sqlite_store>("footprint.db");
#endif
#if WITH_ALIYUN
    session_type session(io.get_executor(), device, to, options);
#else
    session_type session(io.get_executor(), to, options);
#endif
    footprint::print(sizeof(session), footprint::heap_bytes() - before);
    if (argc < 2) return 0;
    asio::co_spawn(io, session.run(), asio::detached);
    asio::co_spawn(io, talk(session), asio::detached);
    io.run();
}
