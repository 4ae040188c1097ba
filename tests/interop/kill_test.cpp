#include <runnel/mqtt/client/session.hpp>
#include <runnel/mqtt/store/sqlite_store.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "interop/mosquitto.hpp"
#include "support/random_source.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

// Processes with a durable session (durable_client.cpp) are killed at random moments while they publish to mosquitto,
// or receive from it. RUNNEL_KILLS is how often each, 20 if it is not set; RUNNEL_SEED draws the moments.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using mqtt::qos;

test::skip_unless const ready(test::mosquitto::available, "mosquitto is not installed");

std::uint64_t environment(char const* name, std::uint64_t otherwise) {
    char const* const value = std::getenv(name);
    return value != nullptr ? std::stoull(value) : otherwise;
}

mqtt::session_options options_for(std::string client_id) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    o.reconnect.initial = o.reconnect.maximum = std::chrono::milliseconds(5);
    return o;
}

// A process, started and killed again and again, whose store stays.
struct victim {
    test::mosquitto& broker;
    protocol_version version;
    test::random_source random{static_cast<std::uint32_t>(environment("RUNNEL_SEED", 1))};
    test::scratch_directory directory{};

    test::child_process start(std::string const& mode, std::uint64_t count = 0) const {
        return test::child_process(
            {RUNNEL_DURABLE_CLIENT, mode, std::to_string(broker.port_tcp()), std::to_string(static_cast<int>(version)),
             directory.path().string(), std::to_string(count)},
            (directory.path() / "log").string(), test::rights::same);
    }
    /// Kills it at a random moment; meanwhile `context` runs. It must not have ended by itself.
    void start_and_kill(asio::io_context& context, std::string const& mode, std::uint64_t count) {
        auto process = start(mode, count);
        auto const moment = std::chrono::microseconds(random.between(0, 120'000));
        run(context, moment);
        INFO(directory.read("log"));
        REQUIRE(process.running());
        process.kill();
    }
    void start_and_wait(asio::io_context& context, std::string const& mode, std::uint64_t count = 0) {
        auto process = start(mode, count);
        auto const limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (process.running() && std::chrono::steady_clock::now() < limit)
            run(context, std::chrono::milliseconds(2));
        INFO(directory.read("log"));
        REQUIRE_FALSE(process.running());
        REQUIRE(process.exit_status() == 0);
    }
    static void run(asio::io_context& context, std::chrono::microseconds duration) {
        auto const end = std::chrono::steady_clock::now() + duration;
        context.restart();
        context.run_until(end);
        std::this_thread::sleep_until(end);
    }
};

// The numbers that have arrived, of QoS 1 and of QoS 2.
using arrivals = std::array<std::vector<std::uint64_t>, 2>;

// All of `0` to `count`, which are of QoS 1 if odd, in the order in which they first came; QoS 2 exactly once.
void check_all(arrivals const& arrived, std::uint64_t count) {
    for (std::size_t quality : {0u, 1u}) {
        std::uint64_t next = quality == 0 ? 1 : 0;
        std::size_t again = 0, wrong = 0;
        for (auto const number : arrived[quality]) {
            if (number == next)
                next += 2;
            else if (number < next)
                ++again;
            else
                ++wrong;
        }
        CHECK(next >= count);
        CHECK(next < count + 2);
        CHECK(wrong == 0);
        if (quality == 1) CHECK(again == 0);
        MESSAGE("QoS " << quality + 1 << ": " << arrived[quality].size() << " arrived, " << again
                       << " of them a second time");
    }
}

void kill_publisher(protocol_version version) {
    test::mosquitto broker;
    asio::io_context context;
    arrivals arrived;
    mqtt::session<runnel::tcp> watcher(context.get_executor(), {.host = "127.0.0.1", .port = broker.port_tcp()},
                                       options_for("watcher"));
    test::task<void> running(context, watcher.run());
    auto const subscription = test::run(context, watcher.subscribe("kill/published", [&](mqtt::publish const& m) {
        arrived[m.qos == qos::exactly_once ? 1 : 0].push_back(std::stoull(std::string(m.payload)));
    }));

    victim publisher{broker, version};
    auto const kills = environment("RUNNEL_KILLS", 20);
    for (std::uint64_t i = 0; i < kills; ++i) publisher.start_and_kill(context, "publish", 1'000'000'000);
    publisher.start_and_wait(context, "publish", 100);
    auto const log = publisher.directory.read("log");
    INFO(log);
    REQUIRE(log.find("durable_client:") == std::string::npos);
    auto const count = std::stoull(log);
    auto const limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while ((arrived[0].empty() || arrived[1].empty() || std::max(arrived[0].back(), arrived[1].back()) + 1 < count ||
            std::min(arrived[0].back(), arrived[1].back()) + 2 < count) &&
           std::chrono::steady_clock::now() < limit)
        victim::run(context, std::chrono::milliseconds(2));
    victim::run(context, std::chrono::milliseconds(100));
    MESSAGE(kills << " kills while " << count << " messages were published");
    CHECK(count > 100);
    check_all(arrived, count);
    test::run(context, watcher.disconnect());
    CHECK_FALSE(running.run_for_error());
}

arrivals written_down(std::string const& file) {
    arrivals found;
    mqtt::sqlite_store store(file);
    sqlite3_stmt* select = nullptr;
    REQUIRE(sqlite3_prepare_v2(store.transaction(), "SELECT number, quality FROM taken ORDER BY rowid", -1, &select,
                               nullptr) == SQLITE_OK);
    while (sqlite3_step(select) == SQLITE_ROW)
        found[sqlite3_column_int(select, 1) == 2 ? 1 : 0].push_back(
            static_cast<std::uint64_t>(sqlite3_column_int64(select, 0)));
    sqlite3_finalize(select);
    return found;
}

void kill_receiver(protocol_version version) {
    test::mosquitto broker;
    asio::io_context context;
    mqtt::session<runnel::tcp> source(context.get_executor(), {.host = "127.0.0.1", .port = broker.port_tcp()},
                                      options_for("source"));
    test::task<void> running(context, source.run());
    victim receiver{broker, version};
    receiver.start_and_wait(context, "subscribe");

    auto const kills = environment("RUNNEL_KILLS", 20);
    std::uint64_t count = 0;
    for (std::uint64_t i = 0; i < kills; ++i) {
        for (int more = 0; more < 500; ++more, ++count)
            source.try_publish("kill/received", std::to_string(count) + ' ' + std::string(count % 100, 'x'),
                               {.qos = count % 2 == 0 ? qos::exactly_once : qos::at_least_once});
        receiver.start_and_kill(context, "receive", 0);
    }
    test::run(context, source.publish("kill/received", "end", {.qos = qos::exactly_once}));
    receiver.start_and_wait(context, "receive");
    MESSAGE(kills << " kills while " << count << " messages were received");
    check_all(written_down((receiver.directory.path() / "store.db").string()), count);
    test::run(context, source.disconnect());
    CHECK_FALSE(running.run_for_error());
}

}  // namespace

TEST_CASE("a publishing process that is killed at any moment loses nothing, and publishes QoS 2 once (MQTT 3.1.1)") {
    kill_publisher(protocol_version::v3_1_1);
}

TEST_CASE("a publishing process that is killed at any moment loses nothing, and publishes QoS 2 once (MQTT 5)") {
    kill_publisher(protocol_version::v5);
}

TEST_CASE("a receiving process that is killed at any moment misses nothing, and takes QoS 2 once (MQTT 3.1.1)") {
    kill_receiver(protocol_version::v3_1_1);
}

TEST_CASE("a receiving process that is killed at any moment misses nothing, and takes QoS 2 once (MQTT 5)") {
    kill_receiver(protocol_version::v5);
}
