// Sessions through proxies: MQTT over TLS by HTTP CONNECT, and over WebSocket Secure by SOCKS5. Broker and proxy run in
// this process. The broker's name is resolved by the proxy, and its certificate is checked from end to end.
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/testing/proxy.hpp>
#include <runnel/tls.hpp>
#include <runnel/transport/proxy/http.hpp>
#include <runnel/transport/proxy/socks5.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <string>

namespace mqtt = runnel::mqtt;
namespace testing = runnel::testing;

template <class Session>
asio::awaitable<void> talk(Session& session) {
    auto inbox = co_await session.subscribe("greetings");
    co_await session.publish("greetings", "hello", {.qos = mqtt::qos::at_least_once});
    auto const message = co_await inbox.receive();
    std::printf("   received %s\n", std::string(message.payload()).c_str());
    co_await session.disconnect();
}

// Runs one session over `transport` to its end.
template <class Transport>
void demonstrate(asio::io_context& context, Transport const& transport) {
    std::printf("%s\n", transport.url().c_str());
    mqtt::session_options options;
    options.reconnect.attempts = 1;  // fail at once: this is a demonstration
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
    testing::certificate_authority const authority;
    testing::broker broker{context.get_executor()};
    auto const tls_port = broker.listen(testing::over_tls(authority));
    auto const wss_port = broker.listen(testing::over_websocket(testing::over_tls(authority)));

    testing::proxy_options wanted;
    wanted.user_name = "user";
    wanted.password = "secret";
    testing::proxy proxy{context.get_executor(), wanted};
    auto const proxy_port = proxy.listen();

    runnel::tls_options trust;
    trust.ca_pem = authority.certificate_pem();
    runnel::tls_context const tls(trust);

    // MQTT in TLS in an HTTP proxy's tunnel. Each layer is a type, and the layer below it a member.
    runnel::tls<runnel::http_proxy<runnel::tcp>> by_http;
    by_http.host = "localhost";
    by_http.port = tls_port;
    by_http.context = tls;
    by_http.next.proxy.host = "127.0.0.1";
    by_http.next.proxy.port = proxy_port;
    by_http.next.user_name = "user";
    by_http.next.password = "secret";
    demonstrate(context, by_http);
    std::printf("   the proxy has carried %zu bytes, to %s\n\n", proxy.bytes(), proxy.last_target().c_str());

    // WebSocket Secure in a SOCKS5 proxy's tunnel.
    runnel::websocket::over<runnel::tls<runnel::socks5_proxy<runnel::tcp>>> by_socks;
    by_socks.host = "localhost";
    by_socks.port = wss_port;
    by_socks.next.context = tls;
    by_socks.next.next.proxy.host = "127.0.0.1";
    by_socks.next.next.proxy.port = proxy_port;
    by_socks.next.next.user_name = "user";
    by_socks.next.next.password = "secret";
    demonstrate(context, by_socks);
    std::printf("   the proxy has carried %zu bytes in all, to %s\n\n", proxy.bytes(), proxy.last_target().c_str());

    // What goes wrong is said.
    by_http.next.password = "guess";
    try {
        demonstrate(context, by_http);
        return 1;
    } catch (std::system_error const& error) {
        std::printf("   with a wrong password: %s\n", error.code().message().c_str());
    }
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
