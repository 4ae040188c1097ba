#include <runnel/mqtt/client/session.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/sample.hpp"
#include <memory>
#include <string>
#include <utility>
#include <vector>

// The connection cut at every byte of an exchange, in each direction: the session reconnects, and the promise of the
// QoS is kept.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using mqtt::qos;
using test::memory_fixture;
using test::quick;
using test::task;

enum class direction { to_server, to_client };

// The transport in memory as it is.
struct plain {
    static auto transport(memory_fixture& p) { return p.transport; }
};

// A WebSocket over it.
struct websocket {
    using stream_type = runnel::websocket::stream<runnel::memory_stream<>>;

    static auto transport(memory_fixture& p) {
        runnel::memory_transport below([&p](runnel::memory_stream<> s) {
            ++p.opened;
            if (p.on_open) p.on_open(s);
            asio::co_spawn(p.io, serve(p, std::move(s)), [](std::exception_ptr) {});
        });
        return runnel::websocket::over<runnel::memory_transport>{
            .host = "memory", .close_timeout = std::chrono::milliseconds(5), .next = std::move(below)};
    }
    static asio::awaitable<void> serve(memory_fixture& p, runnel::memory_stream<> s) {
        runnel::websocket::server_options options;
        options.subprotocols = "mqtt";
        auto accepting = stream_type::accept(std::move(s), std::move(options));
        auto opened = co_await std::move(accepting);
        p.broker.attach(std::move(opened));
    }
};

// One exchange over a first connection that is cut, and as many others as it takes.
struct trial {
    protocol_version version;
    qos quality;
    direction way;
    std::size_t cut;
    std::vector<std::string> arrived = {};
    std::size_t connections = 0;

    void prepare(memory_fixture& p) {
        p.on_open = [this, &p](runnel::memory_stream<>& s) {
            if (p.opened != 1) return;
            (way == direction::to_server ? s.incoming() : s.outgoing()).cut_after = cut;
        };
    }

    // The session publishes.
    template <class Kind>
    void publish() {
        memory_fixture p;
        prepare(p);
        p.broker.hooks().on_publish = [this](auto const&, mqtt::publish const& m) { arrived.emplace_back(m.payload); };
        mqtt::session s(p.io.get_executor(), Kind::transport(p), quick("client", version));
        task<void> running(p.io, s.run());
        CHECK(mqtt::reason_code::success == test::run(p.io, only_success(s.publish("t", "m", {.qos = quality}))));
        finish(p, s, running);
    }

    // The session receives what the broker publishes.
    template <class Kind>
    void receive() {
        memory_fixture p;
        prepare(p);
        mqtt::session s(p.io.get_executor(), Kind::transport(p), quick("client", version));
        task<void> running(p.io, s.run());
        auto inbox = test::run(p.io, s.subscribe("t"));
        p.broker.publish("t", "m", quality);
        p.broker.publish("t", "end", quality);
        while (arrived.empty() || arrived.back() != "end")
            arrived.emplace_back(test::run(p.io, inbox.receive()).payload());
        p.settle();
        while (auto const m = inbox.try_receive()) arrived.emplace_back(m->payload());
        finish(p, s, running);
    }

  private:
    static asio::awaitable<mqtt::reason_code> only_success(asio::awaitable<mqtt::publish_result> publishing) {
        mqtt::reason_code const reason = co_await std::move(publishing);
        co_return reason == mqtt::reason_code::no_matching_subscribers ? mqtt::reason_code::success : reason;
    }

    template <class Session>
    void finish(memory_fixture& p, Session& s, task<void>& running) {
        test::run(p.io, s.disconnect());
        CHECK_FALSE(running.run_for_error());
        p.settle();
        connections = p.opened;
        CHECK(p.broker.counters().protocol_errors == 0);
        p.broker.close();
        p.settle();
    }
};

using exchange = void (trial::*)();

// Cuts at every byte, or at bytes `apart`, until the first connection carries the whole exchange; returns how many cuts
// were felt.
std::size_t cut_everywhere(exchange run, protocol_version version, qos quality, direction way, std::size_t expected,
                           std::size_t apart) {
    std::size_t cuts = 0;
    // What comes behind the exchange (DISCONNECT, the end of a WebSocket) is shorter than 16 bytes.
    for (std::size_t cut = 0, uncut = 0; uncut < 16 / apart + 1; cut += apart) {
        trial t{version, quality, way, cut};
        CAPTURE(static_cast<int>(version));
        CAPTURE(static_cast<int>(quality));
        CAPTURE(static_cast<int>(way));
        CAPTURE(cut);
        (t.*run)();
        CHECK(t.arrived.size() >= expected);
        CHECK(t.arrived.size() <= (quality == qos::exactly_once ? expected : expected * 2));
        if (t.arrived.empty() || t.arrived.front() != "m") FAIL_CHECK("the first message is missing");
        if (t.connections == 1)
            ++uncut;
        else
            ++cuts;
    }
    return cuts;
}

template <class Kind>
std::size_t all_cuts(std::initializer_list<protocol_version> versions, std::size_t apart) {
    std::size_t cuts = 0;
    for (auto const version : versions) {
        for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
            for (auto const way : {direction::to_server, direction::to_client}) {
                cuts += cut_everywhere(&trial::publish<Kind>, version, quality, way, 1, apart);
                cuts += cut_everywhere(&trial::receive<Kind>, version, quality, way, 2, apart);
            }
        }
    }
    return cuts;
}

}  // namespace

TEST_CASE("cut at every byte, QoS 1 messages arrive at least once and QoS 2 messages exactly once") {
    auto const cuts = all_cuts<plain>({protocol_version::v3_1_1, protocol_version::v5}, 1);
    MESSAGE(cuts << " cuts");
    CHECK(cuts > 400);
}

TEST_CASE("cut at every byte of a WebSocket, QoS 1 messages arrive at least once and QoS 2 messages exactly once") {
    auto const cuts = all_cuts<websocket>({protocol_version::v3_1_1}, test::every(5));
    MESSAGE(cuts << " cuts");
    CHECK(cuts > 500 / test::every(5));
}
