#pragma once

#include <runnel/mqtt/client/session.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include "session_client.hpp"
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

/// The session benchmarks through `runnel::mqtt::session`, over whatever transport; see session_client.hpp, and
/// session_peer.cpp for the other side.
namespace bench::of_runnel {

namespace mqtt = runnel::mqtt;
template <class T>
using task = asio::awaitable<T>;

inline constexpr char const* who = "runnel";

inline mqtt::session_options options_for(std::string client_id) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    return o;
}

template <class Transport>
struct client {
    client(bench::options const& options, Transport const& transport, mqtt::session_options how = options_for("runnel"))
        : o(options), s(io.get_executor(), transport, std::move(how)) {}

    options const& o;
    asio::io_context io{1};
    mqtt::session<Transport> s;
    bench::meter meter{o, who};
    std::size_t begun = 0;
    bool last = false;
    bool ended = false;

    task<void> confirm() { co_await s.publish(topic, o.payload, {.qos = mqtt::qos::at_least_once}); }

    // QoS 0: the end is what the server has acknowledged.
    task<void> publish_at_most_once() {
        co_await s.connected();
        bool const tries = o.is("publish_qos0_try");
        for (std::size_t i = 0; i < meter.total() + 1; ++i) {
            if (i == meter.total() - o.messages) {
                co_await confirm();
                meter.start();
            }
            if (!tries || !s.try_publish(topic, o.payload)) co_await s.publish(topic, o.payload);
        }
        co_await confirm();
        meter.stop();
        co_await s.disconnect();
    }

    task<void> publish_with_acknowledgement() {
        co_await s.connected();
        mqtt::publish_options const how{.qos = static_cast<mqtt::qos>(o.qos())};
        while (begun < meter.total()) {
            ++begun;
            co_await s.publish(topic, o.payload, how);
            if (meter.count()) co_await s.disconnect();
        }
    }

    task<void> receive() {
        auto inbox = co_await s.subscribe(filter);
        while (!last) {
            auto const m = co_await inbox.receive();
            last = m.payload().size() == o.payload.size() && meter.count();
        }
        co_await s.disconnect();
    }

    task<void> receive_by_view() {
        auto const handler = [this](mqtt::publish const& m) {
            if (last || m.payload.size() != o.payload.size() || !meter.count()) return;
            last = true;
            asio::co_spawn(io, s.disconnect(), [](std::exception_ptr) {});
        };
        co_await s.subscribe(filter, handler);
    }

    task<void> round_trips() {
        trips all(o.messages);
        for (std::size_t i = 0; i < o.messages; ++i) {
            all.begin();
            co_await confirm();
            all.end();
        }
        all.report(who);
        co_await s.disconnect();
    }

    void spawn(task<void> t) {
        asio::co_spawn(io, std::move(t), [](std::exception_ptr e) {
            if (e) std::rethrow_exception(e);
        });
    }

    void run() {
        begin();
        io.run();
    }
    /// The same, with the other side in this thread: `turn(next)` lets it do its part, and calls `next`.
    template <class Turn>
    void run_beside(Turn turn) {
        begin();
        take_turns(turn);
        io.run();
    }

  private:
    // Within one `run` of the context, as only then Asio keeps memory for reuse.
    template <class Turn>
    void take_turns(Turn& turn) {
        turn([&] {
            asio::post(io, [&] {
                if (!ended) take_turns(turn);
            });
        });
    }

    void begin() {
        asio::co_spawn(io, s.run(), [this](std::exception_ptr e) {
            ended = true;
            if (e) std::rethrow_exception(e);
        });
        if (o.is("publish_qos0")) {
            spawn(publish_at_most_once());
        } else if (o.is("publish")) {
            for (std::size_t i = 0; i < o.window(); ++i) spawn(publish_with_acknowledgement());
        } else if (o.is("receive_qos0_view")) {
            spawn(receive_by_view());
        } else if (o.is("receive")) {
            spawn(receive());
        } else {
            spawn(round_trips());
        }
    }
};

/// Many sessions that only ping: MESSAGES is their number.
template <class Transport>
void idle(bench::options const& o, Transport const& transport) {
    using namespace std::chrono_literals;
    using session = mqtt::session<Transport>;
    asio::io_context io(1);
    std::vector<std::unique_ptr<session>> all;
    std::size_t lost = 0, connected = 0;
    double const before = heap_bytes();
    std::size_t const openssl_before = openssl.bytes;
    for (std::size_t i = 0; i < o.messages; ++i) {
        auto options = options_for("runnel-" + std::to_string(i));
        options.keep_alive = 8s;
        options.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::connected) ++connected;
            if (e.what == mqtt::session_event::kind::disconnected) ++lost;
        };
        all.push_back(std::make_unique<session>(io.get_executor(), transport, std::move(options)));
        asio::co_spawn(io, all.back()->run(), [](std::exception_ptr) {});
        io.poll();
    }
    io.restart();
    io.run_for(25s);
    auto const n = static_cast<double>(o.messages);
    auto const figure = [&](char const* name, char const* unit, double value) {
        report::figure(o.group, name, who, unit, value);
    };
    figure("idle", "bytes/session", (heap_bytes() - before) / n);
    if constexpr (Transport::secure)
        figure("idle", "OpenSSL's bytes/session", static_cast<double>(openssl.bytes - openssl_before) / n);
    figure("idle_lost", "sessions", static_cast<double>(lost + o.messages - std::min(connected, o.messages)));
    std::fflush(stdout);
    std::_Exit(0);
}

/// The case, over this transport.
template <class Transport>
void run(bench::options const& o, Transport const& transport) {
    if (o.is("idle")) {
        idle(o, transport);
    } else {
        client<Transport> c(o, transport);
        c.run();
    }
}

}  // namespace bench::of_runnel
