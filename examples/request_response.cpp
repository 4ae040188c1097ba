// Requests and responses in MQTT 5: one session answers, another asks, through a broker in this process.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <string>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
using namespace std::chrono_literals;

// Answers each request with its length, until the session ends.
asio::awaitable<void> serve(session& s) {
    auto requests = co_await s.subscribe("service/length");
    for (std::error_code error;;) {
        auto const request = co_await requests.receive(error);
        if (error) co_return;
        auto const answer = std::to_string(request.payload().size());
        co_await s.respond(request.view(), answer, {.qos = mqtt::qos::at_least_once});
    }
}

asio::awaitable<void> ask(session& client, session& server) {
    for (std::string const question : {"", "runnel", "request and response"}) {
        auto const response = co_await client.request("service/length", question, 5s);
        std::printf("\"%s\" has %s characters\n", question.c_str(), std::string(response.payload()).c_str());
    }
    std::error_code error;
    co_await client.request("service/none", "does anybody listen?", 200ms, {}, error);
    std::printf("without anybody to answer: %s\n", error.message().c_str());
    co_await client.disconnect();
    co_await server.disconnect();
}

int main() {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};
    runnel::tcp const transport{.host = "127.0.0.1", .port = broker.listen_tcp()};

    mqtt::session_options options;
    options.version = mqtt::protocol_version::v5;
    options.credentials.client_id = "server";
    session server{context.get_executor(), transport, options};
    options.credentials.client_id = "client";
    session client{context.get_executor(), transport, options};

    int running = 0;
    auto const start = [&](asio::awaitable<void> coroutine) {
        ++running;
        asio::co_spawn(context, std::move(coroutine), [&](std::exception_ptr error) {
            --running;
            if (error) std::rethrow_exception(error);
        });
    };
    start(server.run());
    start(client.run());
    start(serve(server));
    start(ask(client, server));
    while (running > 0) context.run_one();
}
