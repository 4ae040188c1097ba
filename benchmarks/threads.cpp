// Whether throughput grows with the threads: a session in each, with an io_context of its own, publishes in packs of 20
// to an other side of its own (session_peer.cpp).
//
//     benchmark-threads publish_qos0|publish_qos1 MESSAGES PORT...

#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "session_client.hpp"
#include <barrier>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using session = mqtt::session<runnel::tcp>;
template <class T>
using task = asio::awaitable<T>;

struct all_threads {
    mqtt::qos qos;
    std::size_t messages;  // of each
    std::barrier<> together;
};

task<void> publish(session& s, all_threads& all) {
    constexpr std::size_t pack = 20;
    std::string const payload(64, 'x');
    mqtt::publish_options const how{.qos = all.qos};
    co_await s.connected();
    all.together.arrive_and_wait();
    for (std::size_t done = 0; done < all.messages; done += pack) {
        for (std::size_t i = 1; i < pack; ++i) s.try_publish(bench::topic, payload, how);
        co_await s.publish(bench::topic, payload, how);
    }
    // The end is what the server has acknowledged.
    co_await s.publish(bench::topic, payload, {.qos = mqtt::qos::at_least_once});
    all.together.arrive_and_wait();
    co_await s.disconnect();
}

void run(std::uint16_t port, all_threads& all) {
    asio::io_context io(1);
    mqtt::session_options o;
    o.credentials.client_id = "threads-" + std::to_string(port);
    session s(io.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = port}, o);
    auto const rethrow = [](std::exception_ptr e) {
        if (e) std::rethrow_exception(e);
    };
    asio::co_spawn(io, s.run(), rethrow);
    asio::co_spawn(io, publish(s, all), rethrow);
    io.run();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: %s publish_qos0|publish_qos1 MESSAGES PORT...\n", argv[0]);
        return 2;
    }
    std::string const name = argv[1];
    auto const n = argc - 3;
    all_threads all{name.ends_with('0') ? mqtt::qos::at_most_once : mqtt::qos::at_least_once,
                    static_cast<std::size_t>(std::atoll(argv[2])), std::barrier<>(n + 1)};
    std::vector<std::jthread> threads;
    for (int i = 3; i < argc; ++i)
        threads.emplace_back([&, port = static_cast<std::uint16_t>(std::atoi(argv[i]))] { run(port, all); });
    all.together.arrive_and_wait();
    auto const wall = bench::now(CLOCK_MONOTONIC), cpu = bench::now(CLOCK_PROCESS_CPUTIME_ID);
    all.together.arrive_and_wait();
    auto const messages = static_cast<double>(all.messages) * n;
    auto const figure = [&](char const* unit, double value) {
        report::figure("threads", name + '_' + std::to_string(n), "runnel", unit, value);
    };
    figure("messages/s", messages * 1e9 / static_cast<double>(bench::now(CLOCK_MONOTONIC) - wall));
    figure("ns CPU/message", static_cast<double>(bench::now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / messages);
}
