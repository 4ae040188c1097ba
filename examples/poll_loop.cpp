// A program with a loop of its own, such as a game's, that gives the session some time in each round: `context.poll()`
// does what can be done without waiting. The broker is one in this process, in the same context.
#include <runnel/mqtt/client/async.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
using namespace std::chrono_literals;

int main() {
    asio::io_context context;
    // The trap: a context that has had nothing to do is stopped, and does nothing any more, whatever is begun later.
    context.poll();
    bool const is_trapped = context.stopped();
    std::printf("polled without work: %s\n", is_trapped ? "the context has stopped" : "it goes on");
    context.restart();
    // As long as this lives, there is work. (The other way is a `restart()` ahead of each `poll()`.)
    auto guard = asio::make_work_guard(context);

    std::optional<runnel::testing::broker> broker;
    std::optional<session> s;
    int arrived = 0, frames = 0;
    bool is_over = false, has_failed = false;
    for (; !is_over && frames < 5000; ++frames) {
        context.poll();
        // ... here the program draws its picture ...
        std::this_thread::sleep_for(2ms);
        if (frames == 5) {  // much later than the first `poll()`
            broker.emplace(context.get_executor());
            mqtt::session_options options;
            options.credentials.client_id = "frames";
            s.emplace(context.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = broker->listen_tcp()}, options);
            mqtt::async_run(*s, [&](std::exception_ptr e) {
                has_failed = e != nullptr;
                is_over = true;
            });
            mqtt::async_subscribe(
                *s, "frames/#", [&](mqtt::publish const&) { ++arrived; },
                [](std::error_code, session::subscription) {});
        }
        if (frames >= 20 && frames < 30)
            mqtt::async_publish(*s, "frames/" + std::to_string(frames), "picture", {.qos = mqtt::qos::at_least_once},
                                [&](std::error_code e, mqtt::publish_result) { has_failed = has_failed || e; });
        if (arrived == 10) {
            ++arrived;
            mqtt::async_disconnect(*s, [](std::error_code) {});
        }
    }
    std::printf("%d frames, %d messages\n", frames, arrived - 1);
    return is_trapped && is_over && !has_failed && arrived == 11 ? 0 : 1;
}
