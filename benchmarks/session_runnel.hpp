#pragma once

#include <runnel/mqtt/client/session.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

#include "session_client.hpp"
#include <memory>

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

}  // namespace bench::of_runnel
