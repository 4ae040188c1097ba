// A session's metrics, served to Prometheus by a few lines of HTTP, and fetched once as Prometheus would. The broker is
// one in this process.
#include <runnel/mqtt/client/metered.hpp>
#include <runnel/mqtt/client/session_meter.hpp>
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read_until.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace mqtt = runnel::mqtt;
using metered_tcp = mqtt::metered<runnel::tcp>;
using session = mqtt::session<metered_tcp>;
using asio::ip::tcp;

std::string all_metrics(session const& s, metered_tcp const& t, mqtt::session_meter const& meter) {
    runnel::metric_list list{{"session", "metered"}};
    add_metrics(list, s.counters());  // what a session counts itself
    add_metrics(list, t.traffic());   // packets by type and QoS
    meter.add_metrics(list);          // attempts, failures by cause
    return to_prometheus(list);
}

// Answers any request, as it may come from the loopback only.
asio::awaitable<void> serve(tcp::acceptor& at, session const& s, metered_tcp const& t,
                            mqtt::session_meter const& meter) {
    for (;;) {
        auto peer = co_await at.async_accept(asio::use_awaitable);
        std::string request;
        co_await asio::async_read_until(peer, asio::dynamic_buffer(request, 8192), "\r\n\r\n", asio::use_awaitable);
        auto const body = all_metrics(s, t, meter);
        auto const answer = "HTTP/1.1 200 OK\r\nContent-Type: " + std::string(runnel::prometheus_content_type) +
                            "\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" +
                            body;
        co_await asio::async_write(peer, asio::buffer(answer), asio::use_awaitable);
    }
}

asio::awaitable<std::string> fetch(tcp::endpoint from) {
    tcp::socket socket(co_await asio::this_coro::executor);
    co_await socket.async_connect(from, asio::use_awaitable);
    std::string const request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    co_await asio::async_write(socket, asio::buffer(request), asio::use_awaitable);
    std::string answer;
    char room[4096];
    for (;;) {
        asio::error_code error;
        auto const n =
            co_await socket.async_read_some(asio::buffer(room), asio::redirect_error(asio::use_awaitable, error));
        if (error) co_return answer;
        answer.append(room, n);
    }
}

asio::awaitable<void> talk(session& s, tcp::endpoint metrics, std::string& fetched) {
    for (int i = 0; i < 3; ++i) co_await s.publish("numbers", std::to_string(i), {.qos = mqtt::qos::at_least_once});
    fetched = co_await fetch(metrics);
    co_await s.disconnect();
}

int main() {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};

    mqtt::session_meter meter;
    mqtt::session_options options;
    options.credentials.client_id = "metered";
    options.on_event = [&](mqtt::session_event const& event) { meter.on_event(event); };
    metered_tcp const to({.host = "127.0.0.1", .port = broker.listen_tcp()});
    session s{context.get_executor(), to, options};

    tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
    std::string fetched;
    asio::co_spawn(context, serve(acceptor, s, to, meter), [](std::exception_ptr) {});
    asio::co_spawn(context, talk(s, acceptor.local_endpoint(), fetched), [](std::exception_ptr e) {
        if (e) std::rethrow_exception(e);
    });
    bool running = true;
    asio::co_spawn(context, s.run(), [&](std::exception_ptr e) {
        running = false;
        if (e) std::rethrow_exception(e);
    });
    while (running) context.run_one();

    std::printf("%s", fetched.c_str());
    auto const has = [&](char const* line) { return fetched.find(line) != fetched.npos; };
    bool const all =
        has("\nrunnel_mqtt_messages_acknowledged_total{session=\"metered\"} 3\n") &&
        has("\nrunnel_mqtt_publish_packets_total{session=\"metered\",direction=\"transmit\",qos=\"1\"} 3\n") &&
        has("\nrunnel_mqtt_connected{session=\"metered\"} 1\n");
    return all ? EXIT_SUCCESS : EXIT_FAILURE;
}
