// `threaded_client`s in the hands of several threads, with a broker that cuts their connections, and clients that are
// closed while all go on: to be run under ThreadSanitizer. Each future must complete, each callback be called exactly
// once, and each QoS 1 message that was acknowledged arrive; what was not taken when a client goes comes to the next.
//
//     clients [--rounds 6] [--messages 300] [--producers 3] [--consumers 2]
#include <runnel/mqtt/client/threaded_client.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_future.hpp>

#include "support/number_options.hpp"
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using client_type = mqtt::threaded_client<runnel::tcp>;

struct settings {
    std::uint64_t rounds = 6;
    std::uint64_t messages = 300;
    std::uint64_t producers = 3;
    std::uint64_t consumers = 2;
};

// What has become of the messages.
class ledger {
  public:
    void sent(std::string what) { add(sent_, std::move(what)); }
    void arrived(std::string what) { add(arrived_, std::move(what)); }
    // Acknowledged by the broker, and never seen.
    std::uint64_t missing() const {
        std::lock_guard const lock(mutex_);
        std::uint64_t count = 0;
        for (auto const& s : sent_) count += !arrived_.contains(s);
        return count;
    }
    std::size_t sent() const {
        std::lock_guard const lock(mutex_);
        return sent_.size();
    }

    std::atomic<std::uint64_t> told = 0, asked = 0;

  private:
    void add(std::set<std::string>& to, std::string what) {
        std::lock_guard const lock(mutex_);
        to.insert(std::move(what));
    }
    mutable std::mutex mutex_;
    std::set<std::string> sent_, arrived_;
};

mqtt::session_options options(std::string id) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(id);
    o.reconnect.initial = o.reconnect.maximum = 5ms;
    return o;
}

void produce(client_type& client, ledger& all, std::uint64_t messages, std::string const& name) {
    std::vector<std::pair<std::string, std::future<mqtt::publish_result>>> results;
    for (std::uint64_t i = 0; i < messages; ++i) {
        auto what = name + std::to_string(i);
        ++all.asked;
        if (i % 2 == 0) {
            results.emplace_back(what, client.publish("all", what, {.qos = mqtt::qos::at_least_once}));
        } else {
            client.publish("all", what, {.qos = mqtt::qos::at_least_once},
                           [&all, what](std::error_code e, mqtt::publish_result const&) {
                               ++all.told;
                               if (!e) all.sent(what);
                           });
        }
    }
    for (auto& [what, result] : results) try {
            result.get();
            ++all.told;
            all.sent(what);
        } catch (std::system_error const&) {
            ++all.told;
        }
}

void consume(mqtt::message_queue queue, ledger& all) {
    try {
        for (;;) {
            auto const m = queue.receive();
            all.arrived(std::string(m.payload()));
        }
    } catch (std::system_error const&) {  // closed
    }
}

// One life of a producing client and a consuming one, on an executor with several threads or on threads of their own.
// The producing one is closed in the middle by two threads at once where `cut`.
void live(runnel::tcp const& to, asio::thread_pool& pool, ledger& all, settings const& s, std::uint64_t round) {
    bool const own = round % 2 == 0, is_cut = round % 3 == 2;
    auto const make = [&](std::string id, mqtt::threaded_options how) {
        return own ? std::make_unique<client_type>(to, options(std::move(id)), std::move(how))
                   : std::make_unique<client_type>(pool.get_executor(), to, options(std::move(id)), std::move(how));
    };
    auto consuming = make("consumer", {});
    auto queue = consuming->subscribe("all").get();
    std::vector<std::thread> consumers, producers;
    for (std::uint64_t i = 0; i < s.consumers; ++i) consumers.emplace_back([&] { consume(queue, all); });
    mqtt::threaded_options how;
    how.limits = {.messages = 20, .bytes = 10'000, .handed_over = 8};
    auto producing = make("producer", how);
    for (std::uint64_t i = 0; i < s.producers; ++i)
        producers.emplace_back(
            [&, i] { produce(*producing, all, s.messages, std::to_string(round) + "/" + std::to_string(i) + "/"); });
    if (is_cut) {
        std::this_thread::sleep_for(100ms);
        std::thread other([&] { producing->close(50ms); });
        producing->close(100ms);
        other.join();
    }
    for (auto& p : producers) p.join();
    producing->close(30s);
    producing.reset();
    consuming.reset();  // what has not been taken comes in the next round
    queue = {};
    for (auto& c : consumers) c.join();
}

}  // namespace

int main(int argc, char** argv) {
    settings s;
    test::read_options(argc, argv,
                       {{"--rounds", &s.rounds},
                        {"--messages", &s.messages},
                        {"--producers", &s.producers},
                        {"--consumers", &s.consumers}});
    asio::io_context io;
    runnel::testing::broker broker(io.get_executor());
    runnel::tcp const to{.host = "127.0.0.1", .port = broker.listen_tcp()};
    std::thread serving([&] { io.run(); });
    asio::thread_pool pool(3);
    ledger all;
    std::atomic<bool> is_over = false;
    std::thread cutting([&] {
        for (int i = 0; !is_over; ++i) {
            std::this_thread::sleep_for(150ms);
            asio::post(io, [&, i] { broker.drop_client(i % 2 == 0 ? "producer" : "consumer"); });
        }
    });
    for (std::uint64_t round = 0; round < s.rounds; ++round) live(to, pool, all, s, round);
    is_over = true;
    cutting.join();
    {  // the rest
        client_type last(to, options("consumer"));
        auto queue = last.subscribe("all").get();
        for (int patience = 100; all.missing() != 0 && patience != 0; --patience)
            if (auto m = queue.receive_for(100ms)) all.arrived(std::string(m->payload()));
    }
    asio::post(io, asio::use_future([&] { broker.close(); })).get();
    serving.join();
    pool.join();
    std::printf("%ju messages, %zu acknowledged, %ju of these missing, %ju not told\n", std::uintmax_t{all.asked},
                all.sent(), std::uintmax_t{all.missing()}, std::uintmax_t{all.asked - all.told});
    return all.missing() == 0 && all.asked == all.told && all.sent() != 0 ? 0 : 1;
}
