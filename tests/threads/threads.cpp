// Sessions on strands of a pool of threads, over all four transports, with a broker on a strand of its own: to be run
// under ThreadSanitizer, which sees what they share and should not. Each session is made, used, cut, ended and
// destroyed on its strand; one TLS context serves all.
//
//     threads [--sessions 40] [--messages 200] [--threads 4]
#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/testing/over_websocket.hpp>

#include <asio/co_spawn.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>

#include "interop/transports.hpp"
#include "support/number_options.hpp"
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;

struct settings {
    std::uint64_t sessions = 40;
    std::uint64_t messages = 200;
    std::uint64_t threads = 4;
};

// Publishes to itself and counts what arrives; its connection is cut in the middle. Returns what is missing.
template <class Transport>
asio::awaitable<std::uint64_t> live(Transport to, std::uint64_t number, std::uint64_t messages) {
    auto const here = co_await asio::this_coro::executor;
    auto const topic = "threads/" + std::to_string(number);
    mqtt::session_options o;
    o.credentials.client_id = "threads-" + std::to_string(number);
    o.version = number / 4 % 2 == 0 ? mqtt::protocol_version::v5 : mqtt::protocol_version::v3_1_1;
    o.reconnect.initial = 10ms;
    auto session = std::make_unique<mqtt::session<Transport>>(here, std::move(to), std::move(o));
    asio::co_spawn(here, session->run(), [](std::exception_ptr) {});
    std::uint64_t arrived = 0;
    auto const count = [&](mqtt::publish const&) { ++arrived; };
    auto subscribing = session->subscribe(topic, count, {.maximum_qos = mqtt::qos::exactly_once});
    auto const subscription = co_await std::move(subscribing);
    for (std::uint64_t i = 0; i < messages; ++i) {
        mqtt::publish_options const how{.qos = i % 2 == 0 ? mqtt::qos::at_least_once : mqtt::qos::exactly_once};
        auto const payload = std::to_string(i);
        auto publishing = session->publish(topic, payload, how);
        co_await std::move(publishing);
    }
    asio::steady_timer timer(here);
    for (auto patience = 1000; arrived < messages && patience != 0; --patience) {
        timer.expires_after(10ms);
        co_await timer.async_wait(asio::use_awaitable);
    }
    // Half of them end in good order, the others are destroyed as they are.
    if (number % 8 < 4) co_await session->disconnect();
    session.reset();
    co_return arrived < messages ? messages - arrived : 0;
}

class fixture {
  public:
    fixture(settings const& s)
        : settings_(s),
          pool_(s.threads),
          broker_strand_(asio::make_strand(pool_)),
          broker_(broker_strand_),
          context_(test::trusting(authority_)) {}

    // 0 if nothing has been lost.
    std::uint64_t run() {
        on_broker([&] {
            namespace testing = runnel::testing;
            ports_ = {broker_.listen_tcp(), broker_.listen(testing::over_tls(authority_)),
                      broker_.listen(testing::over_websocket()),
                      broker_.listen(testing::over_websocket(testing::over_tls(authority_)))};
        });
        std::vector<std::future<std::uint64_t>> lives;
        for (std::uint64_t i = 0; i < settings_.sessions; ++i) lives.push_back(start(i));
        cut_until_done(lives);
        std::uint64_t missing = 0;
        for (auto& life : lives) missing += life.get();
        on_broker([&] { broker_.close(); });
        pool_.join();
        return missing;
    }

  private:
    template <class F>
    void on_broker(F f) {
        asio::dispatch(broker_strand_, asio::use_future(std::move(f))).get();
    }

    // In turn, and each at most every 200 ms, however few there are: else none would get anywhere.
    void cut_until_done(std::vector<std::future<std::uint64_t>> const& lives) {
        auto const round = std::max<std::uint64_t>(settings_.sessions, 40);
        for (std::uint64_t i = 0; lives.back().wait_for(5ms) != std::future_status::ready; ++i)
            on_broker([&] { broker_.drop_client("threads-" + std::to_string(i % round)); });
    }

    std::future<std::uint64_t> start(std::uint64_t i) {
        asio::any_io_executor const strand = asio::make_strand(pool_);
        return test::with_transport(i % 4, ports_[i % 4], context_, [&](auto to) {
            return asio::co_spawn(strand, live(std::move(to), i, settings_.messages), asio::use_future);
        });
    }

    settings settings_;
    asio::thread_pool pool_;
    asio::strand<asio::thread_pool::executor_type> broker_strand_;
    runnel::testing::certificate_authority authority_;
    runnel::testing::broker broker_;
    runnel::tls_context context_;
    std::array<std::uint16_t, 4> ports_{};
};

settings read(int argc, char** argv) {
    settings s;
    test::read_options(argc, argv,
                       {
                           {"--sessions", &s.sessions},
                           {"--messages", &s.messages},
                           {"--threads", &s.threads},
                       });
    return s;
}

}  // namespace

int main(int argc, char** argv) {
    auto const chosen = read(argc, argv);
    auto const missing = fixture(chosen).run();
    std::printf("%ju sessions of %ju messages on %ju threads: %ju lost\n", std::uintmax_t{chosen.sessions},
                std::uintmax_t{chosen.messages}, std::uintmax_t{chosen.threads}, std::uintmax_t{missing});
    return missing == 0 ? 0 : 1;
}
