#pragma once

#include <runnel/mqtt/client/session.hpp>

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "support/arrivals.hpp"
#include <array>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <random>
#include <string>
#include <string_view>
#include <utility>

namespace soak {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;

/// What all clients share. Each publishes to its neighbour, message by message of QoS 1 and 2 in turns, while `on`.
struct fixture {
    asio::io_context& io;
    std::mt19937 random;
    std::chrono::milliseconds interval;  // between two messages of one client
    bool on = false;
    bool stopping = false;
    std::uint64_t unexpected = 0;  // sessions whose `run` has given up

    std::size_t between(std::size_t low, std::size_t high) { return low + random() % (high - low + 1); }
    asio::awaitable<void> sleep(std::chrono::milliseconds duration) const {
        asio::steady_timer timer(io, duration);
        co_await timer.async_wait(asio::use_awaitable);
    }
};

/// One client, over whatever transport.
class client {
  public:
    client() = default;
    client(client const&) = delete;
    client& operator=(client const&) = delete;
    virtual ~client() = default;

    virtual bool is_connected() const = 0;
    virtual mqtt::session_counters counters() const = 0;
    /// DISCONNECT, after which it comes back at once, unless all stop.
    virtual asio::awaitable<void> disconnect() = 0;

    std::array<std::uint64_t, 2> sent{};       ///< QoS 1, QoS 2
    std::array<test::arrivals, 2> received{};  ///< from its neighbour
};

template <class Transport>
class client_over final : public client {
  public:
    client_over(fixture& where, std::size_t number, std::size_t neighbour, Transport to)
        : where_(where),
          topic_("soak/" + std::to_string(neighbour)),
          session_(where.io.get_executor(), std::move(to), options(number)) {
        asio::co_spawn(where.io, run(), rethrow);
        if (number % 8 < 4)
            asio::co_spawn(where.io, handle("soak/" + std::to_string(number)), rethrow);
        else
            asio::co_spawn(where.io, take("soak/" + std::to_string(number)), rethrow);
        asio::co_spawn(where.io, publish(), rethrow);
    }

    bool is_connected() const override { return session_.is_connected(); }
    mqtt::session_counters counters() const override { return session_.counters(); }
    asio::awaitable<void> disconnect() override {
        is_ending_ = true;
        try {
            co_await session_.disconnect();
        } catch (std::system_error const&) {
            // A fault was there first: what it has cut off comes with the next connection.
        }
    }

  private:
    static mqtt::session_options options(std::size_t number) {
        mqtt::session_options o;
        o.credentials.client_id = "soak-" + std::to_string(number);
        o.version = number / 4 % 2 == 0 ? mqtt::protocol_version::v5 : mqtt::protocol_version::v3_1_1;
        o.keep_alive = 10s;
        o.response_timeout = 5s;
        o.reconnect.initial = 50ms;
        o.reconnect.maximum = 2s;
        return o;
    }

    static void rethrow(std::exception_ptr e) {
        if (e) std::rethrow_exception(e);
    }

    asio::awaitable<void> run() {
        try {
            while (!where_.stopping) {
                is_ending_ = false;
                co_await session_.run();
            }
        } catch (std::exception const& e) {
            ++where_.unexpected;
            std::printf("%s: run has given up: %s\n", topic_.c_str(), e.what());
        }
    }

    // Half of the clients have a handler; the others receive in a coroutine that is slow now and then.
    asio::awaitable<void> handle(std::string filter) {
        auto subscribing = session_.subscribe(filter, [this](mqtt::publish const& p) { add(p); },
                                              {.maximum_qos = mqtt::qos::exactly_once});
        inbox_ = co_await std::move(subscribing);
    }
    asio::awaitable<void> take(std::string filter) {
        mqtt::subscribe_options const o{.maximum_qos = mqtt::qos::exactly_once};
        auto subscribing = session_.subscribe(filter, o);
        inbox_ = co_await std::move(subscribing);
        while (!where_.stopping) {
            std::size_t pause = where_.between(0, 49) == 0 ? where_.between(0, 500) : 0;
            try {
                auto const m = co_await inbox_.receive();
                add(m.view());
            } catch (std::system_error const&) {
                pause = 10;  // `run` has ended, by `disconnect`: the next one is to begin
            }
            if (pause != 0) co_await where_.sleep(std::chrono::milliseconds(pause));
        }
    }

    void add(mqtt::publish const& p) {
        std::uint64_t number = 0;
        std::from_chars(p.payload.data(), p.payload.data() + p.payload.size(), number);
        received[p.qos == mqtt::qos::exactly_once ? 1 : 0].add(number);
    }

    asio::awaitable<void> publish() {
        auto const longest = static_cast<std::size_t>(where_.interval.count()) * 2;
        for (std::size_t turn = 0; !where_.stopping; ++turn) {
            co_await where_.sleep(std::chrono::milliseconds(where_.between(0, longest)));
            auto& number = sent[turn % 2];
            mqtt::publish_options const o{.qos = turn % 2 == 0 ? mqtt::qos::at_least_once : mqtt::qos::exactly_once};
            auto const payload = std::to_string(number) + std::string(where_.between(1, 300), '.');
            if (where_.on && !is_ending_ && session_.try_publish(topic_, payload, o)) ++number;
        }
    }

    fixture& where_;
    bool is_ending_ = false;  // `disconnect` has been called: nothing can be published until the next `run`
    std::string topic_;
    mqtt::session<Transport> session_;
    typename mqtt::session<Transport>::subscription inbox_;
};

}  // namespace soak
