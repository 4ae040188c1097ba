// Connects to a broker, subscribes, publishes, and receives its own message.
#include <runnel/runnel.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>

using session = runnel::mqtt::session<runnel::tcp>;  // or runnel::ws; with <runnel/tls.hpp> mqtts or wss

asio::awaitable<void> talk(session& s) {
    auto inbox = co_await s.subscribe("greetings/#");
    co_await s.publish("greetings/world", "hello", {.qos = runnel::mqtt::qos::exactly_once});
    auto message = co_await inbox.receive();
    std::printf("%s: %s\n", std::string(message.topic()).c_str(), std::string(message.payload()).c_str());
    co_await s.disconnect();
}

runnel::mqtt::session_options talkative() {
    runnel::mqtt::session_options options;
    options.on_event = [](auto const& event) { std::puts(to_string(event).c_str()); };
    return options;
}

int main(int argc, char** argv) {
    asio::io_context context;
    runnel::tcp broker{.host = argc > 1 ? argv[1] : "localhost", .port = 1883};
    session s{context.get_executor(), broker, talkative()};
    auto on_end = [](std::exception_ptr error) {
        if (error) std::rethrow_exception(error);
    };
    asio::co_spawn(context, s.run(), on_end);  // connects, and connects again whenever that is needed
    asio::co_spawn(context, talk(s), on_end);
    context.run();
}
