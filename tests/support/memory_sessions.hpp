#pragma once

#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/memory.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>

namespace test {

using memory_session = runnel::mqtt::session<runnel::memory_transport>;

inline constexpr runnel::mqtt::protocol_version versions[] = {runnel::mqtt::protocol_version::v3_1_1,
                                                              runnel::mqtt::protocol_version::v5};
inline constexpr runnel::mqtt::qos qualities[] = {runnel::mqtt::qos::at_most_once, runnel::mqtt::qos::at_least_once,
                                                  runnel::mqtt::qos::exactly_once};

/// Options that reconnect at once, so that tests need not wait.
inline runnel::mqtt::session_options quick(
    std::string client_id = "client", runnel::mqtt::protocol_version version = runnel::mqtt::protocol_version::v3_1_1) {
    runnel::mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    o.version = version;
    o.reconnect.initial = o.reconnect.maximum = std::chrono::milliseconds(1);
    return o;
}

/// Handles all that can be handled without waiting for a timer.
inline void settle(asio::io_context& io) {
    io.restart();
    while (io.poll() != 0) {
    }
}

/// Lets time pass until `condition` holds; false if it does not come to hold within `limit`.
template <class Condition>
bool wait_until(asio::io_context& io, Condition condition,
                std::chrono::steady_clock::duration limit = std::chrono::seconds(10)) {
    auto const end = std::chrono::steady_clock::now() + limit;
    do io.restart();  // the condition may have given it work anew
    while (!condition() && io.run_one_until(end) != 0);
    return condition();
}

/// A broker, and a transport that reaches it in memory.
struct memory_fixture {
    explicit memory_fixture(runnel::testing::broker_options options = {})
        : broker(io.get_executor(), std::move(options)) {}

    asio::io_context io;
    runnel::testing::broker broker;
    std::size_t opened = 0;
    /// Is given the broker's end of each new connection, to make it fail, or throws to refuse it.
    std::function<void(runnel::memory_stream<>&)> on_open;
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        ++opened;
        if (on_open) on_open(s);
        broker.attach(std::move(s));
    }};

    void settle() { test::settle(io); }
};

/// A session that is connected, and its `run`.
struct connected_session : memory_fixture {
    explicit connected_session(runnel::mqtt::session_options o = quick(), runnel::testing::broker_options b = {})
        : memory_fixture(std::move(b)),
          session(io.get_executor(), transport, std::move(o)),
          running(io, session.run()) {
        run(io, session.connected());
    }

    memory_session session;
    task<void> running;

    auto subscribe(std::string_view filter, runnel::mqtt::subscribe_options o = {}) {
        return run(io, session.subscribe(filter, o));
    }
    runnel::mqtt::reason_code publish(std::string_view topic, std::string_view payload, runnel::mqtt::qos quality) {
        return run(io, session.publish(topic, payload, {.qos = quality}));
    }
    void disconnect() {
        run(io, session.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
};

/// Waits for an operation and drops its result.
template <class T>
asio::awaitable<void> only(asio::awaitable<T> operation) {
    co_await std::move(operation);
}

}  // namespace test
