// A program of threads, without coroutines and without Asio: `threaded_client` owns what it is given, tells the outcome
// by a future or a callback, and lets threads wait for messages. The broker is one in this process, on a thread of its
// own, as a broker elsewhere would be.
#include <runnel/mqtt/client/threaded_client.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace mqtt = runnel::mqtt;
using client = mqtt::threaded_client<runnel::tcp>;
using namespace std::chrono_literals;

// The obvious function, which any thread may call.
void send(client& to, std::string topic, std::string json) {
    to.publish(std::move(topic), std::move(json), {.qos = mqtt::qos::at_least_once});
}

// A worker: takes jobs until there will be none.
int work(mqtt::message_queue jobs) {
    int done = 0;
    try {
        for (;;) {
            auto const job = jobs.receive();
            ++done;
        }  // the job is acknowledged here, when the work on it is done
    } catch (std::system_error const&) {  // the client has been closed
        return done;
    }
}

int talk(runnel::tcp const& broker) {
    mqtt::session_options options;
    options.credentials.client_id = "threads";
    options.on_event = [](mqtt::session_event const& e) { std::printf("%s\n", to_string(e).c_str()); };
    mqtt::threaded_options how;
    how.limits.messages = 100;              // more wait for room, which holds their producers up
    how.when_full = mqtt::when_full::wait;  // or refuse, drop_oldest, drop_newest
    client c{broker, options, how};

    // Messages by a callback, on the client's thread, and by a queue, for threads.
    std::atomic<int> seen = 0;
    c.subscribe("jobs/#", [&](mqtt::publish const&) { ++seen; }).get();
    auto jobs = c.subscribe("jobs/#").get();
    std::atomic<int> done = 0;
    std::vector<std::thread> workers, producers;
    for (int i = 0; i < 2; ++i) workers.emplace_back([&] { done += work(jobs); });
    for (int i = 0; i < 3; ++i)
        producers.emplace_back([&, i] {
            for (int n = 0; n < 100; ++n) send(c, "jobs/" + std::to_string(i), std::to_string(n));
        });
    for (auto& p : producers) p.join();

    // What has become of one message: by a future, or by a callback.
    auto const result = c.publish("jobs/last", "the last", {.qos = mqtt::qos::exactly_once}).get();
    c.publish("jobs/#", "not a topic", {}, [](std::error_code e, mqtt::publish_result const&) {
        std::printf("refused: %s\n", e.message().c_str());
    });
    for (int patience = 500; done + static_cast<int>(jobs.size()) < 301 && seen < 301 && patience != 0; --patience)
        std::this_thread::sleep_for(10ms);

    auto const report = c.close(5s);
    std::printf("closed: %zu not delivered\n", report.undelivered);
    for (auto& w : workers) w.join();
    std::printf("%d seen, %d done\n", seen.load(), done.load());
    bool const is_well = report.undelivered == 0 && report.in_time && seen == 301 && done == 301;
    return is_well && result.what == mqtt::publish_result::outcome::acknowledged ? 0 : 1;
}

int main() {
    asio::io_context context;
    runnel::testing::broker broker{context.get_executor()};
    runnel::tcp const transport{.host = "127.0.0.1", .port = broker.listen_tcp()};
    std::thread serving([&] { context.run(); });
    int const failed = talk(transport);
    asio::post(context, [&] { broker.close(); });
    serving.join();
    return failed;
}
