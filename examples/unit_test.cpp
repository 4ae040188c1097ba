// How a device's code is tested without a network and without waiting: the broker is in this process, the connections
// are in memory, packets are lost on purpose, and hours pass in milliseconds. (Compiled with RUNNEL_TEST_CLOCK
// defined.)
#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/virtual_time.hpp>
#include <runnel/transport/memory.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <chrono>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::packet_type;
using mqtt::role;

// --- The device, as it is in the product: only the transport is another one there.

template <class Transport>
class meter {
  public:
    meter(asio::any_io_executor executor, Transport transport)
        : session_(std::move(executor), std::move(transport), options()) {}

    asio::awaitable<void> run() { return session_.run(); }

    /// Sends a reading until somebody has confirmed it, and waits a minute between two attempts.
    asio::awaitable<int> report(std::string reading) {
        for (int attempt = 1;; ++attempt) {
            auto sending = session_.publish("meter/7/reading", reading, {.qos = mqtt::qos::at_least_once});
            auto limited = runnel::within(30s, std::move(sending));
            try {
                co_await std::move(limited);
                co_return attempt;
            } catch (std::system_error const&) {
                // No answer within half a minute: the session goes on with the message all the same.
            }
            co_await runnel::sleep_for<asio::any_io_executor>(session_.get_executor(), 1min);
        }
    }

    asio::awaitable<void> stop() { return session_.disconnect(); }

  private:
    static mqtt::session_options options() {
        mqtt::session_options o;
        o.credentials.client_id = "meter-7";
        o.keep_alive = 5min;
        o.reconnect.jitter = 0;  // so that the test can count the seconds
        return o;
    }

    mqtt::session<Transport> session_;
};

// --- Its tests.

struct bench {
    asio::io_context io;
    runnel::testing::virtual_time time{io};
    runnel::testing::broker broker{io.get_executor(), {.recorded_messages = 100}};
    int connections = 0;
    runnel::memory_transport network{[this](runnel::memory_stream<> stream) {
        ++connections;
        broker.attach(std::move(stream));
    }};
    meter<runnel::memory_transport> device{io.get_executor(), network};

    bench() {
        asio::co_spawn(io, device.run(), [](std::exception_ptr error) {
            if (error) std::rethrow_exception(error);
        });
    }
};

void expect(bool holds, char const* what) {
    if (!holds) throw std::runtime_error(what);
    std::printf("ok: %s\n", what);
}

void a_reading_is_confirmed_at_once() {
    bench b;
    expect(b.time.run(b.device.report("42")) == 1, "one attempt is enough");
    expect(b.time.elapsed() == 0s, "it takes no time");
    b.time.run(b.device.stop());
}

void the_device_waits_for_a_busy_server() {
    bench b;
    b.broker.refuse_next(3, mqtt::reason_code::server_busy);
    b.time.run(b.device.report("42"));
    expect(b.connections == 4 && b.time.elapsed() == 1s + 2s + 4s, "the pauses between the attempts grow");
    b.time.run(b.device.stop());
}

void an_answer_is_lost() {
    bench b;
    b.broker.lose({role::server, packet_type::puback});
    expect(b.time.run(b.device.report("42")) == 2, "after a minute and a half it is sent once more");
    expect(b.time.elapsed() == 90s, "and not earlier");
    b.time.run(b.device.stop());
}

void the_network_goes_at_the_worst_moment() {
    bench b;
    b.broker.cut({.sender = role::client, .type = packet_type::publish, .skip = 1});
    b.time.run(b.device.report("42"));
    b.time.run(b.device.report("43"));
    expect(b.connections == 2 && b.broker.received().back().dup, "it is sent again on the next connection");
    b.time.run(b.device.stop());
}

void a_slow_server() {
    bench b;
    b.broker.delay({role::server, packet_type::puback}, 20s);
    expect(b.time.run(b.device.report("42")) == 1, "a late answer is an answer");
    b.time.run(b.device.stop());
}

void a_quiet_week() {
    bench b;
    b.time.advance(24h * 7);
    expect(b.connections == 1 && b.broker.connected("meter-7"), "keep alive holds the connection for a week");
    b.broker.lose({.sender = role::server, .type = packet_type::pingresp});
    b.time.advance(1h);
    expect(b.connections == 2 && b.broker.connected("meter-7"), "a dead one is noticed, and made anew");
    b.time.run(b.device.stop());
}

int main() try {
    auto const begin = std::chrono::steady_clock::now();
    a_reading_is_confirmed_at_once();
    the_device_waits_for_a_busy_server();
    an_answer_is_lost();
    the_network_goes_at_the_worst_moment();
    a_slow_server();
    a_quiet_week();
    auto const took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    std::printf("all that took %d ms\n", static_cast<int>(took.count()));
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
