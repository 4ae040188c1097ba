#include <runnel/testing/broker/broker.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/write.hpp>
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <support/mqtt_client.hpp>
#include <thread>
#include <vector>

// The embedded broker's end, and many clients at once, slow and stalled ones among them.

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::mqtt_client;

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

struct fixture {
    explicit fixture(testing::broker_options options = {}) : broker(io.get_executor(), std::move(options)) {}

    void attach(mqtt_client& client) {
        auto [near, far] = memory_stream<>::pair(io.get_executor());
        broker.attach(std::move(far));
        client.open(std::move(near));
    }
    reason_code connect(mqtt_client& client, mqtt::connect const& packet) {
        attach(client);
        return client.connect(packet);
    }
    // Whether nothing keeps the context running.
    bool ends() {
        io.restart();
        io.run_for(5s);
        return io.stopped();
    }

    asio::io_context io;
    testing::broker broker;
};

// A session that lasts for an hour, with a will that is delayed as long.
struct lasting_connect {
    explicit lasting_connect(std::string_view id) {
        props.session_expiry_interval = will_props.will_delay_interval = 3600;
        packet = {.client_id = id, .clean_start = false, .props = &props};
        packet.keep_alive = 60;
        packet.will = mqtt::will{.topic = "gone", .payload = "bye", .props = &will_props};
    }
    mqtt::properties props, will_props;
    mqtt::connect packet;
};

std::size_t client_count() {
    char const* const given = std::getenv("RUNNEL_BROKER_CLIENTS");
    return given == nullptr ? 300 : std::strtoul(given, nullptr, 10);
}

}  // namespace

TEST_CASE("close ends everything at once: sessions that last, wills that wait, clients in each state") {
    fixture p;
    mqtt_client away(p.io), kept(p.io, v3), connected(p.io), silent(p.io), refused(p.io), held(p.io, v3);
    lasting_connect const first("away"), second("connected");
    REQUIRE(p.connect(away, first.packet) == reason_code::success);
    away.cut();
    REQUIRE(p.connect(kept, {.client_id = "kept", .clean_start = false}) == reason_code::success);
    kept.subscribe("t");
    kept.cut();
    REQUIRE(p.connect(connected, second.packet) == reason_code::success);
    p.attach(silent);  // sends no CONNECT
    p.broker.refuse_next(1);
    CHECK(p.connect(refused, {.client_id = "refused"}) == reason_code::server_unavailable);
    REQUIRE(p.connect(held, {.client_id = "held", .clean_start = false}) == reason_code::success);
    p.broker.hold_acknowledgements(true);
    held.begin_publish({.topic = "t", .payload = "x", .qos = qos::at_least_once});
    auto const port = p.broker.listen_tcp();
    asio::ip::tcp::socket over_tcp(p.io), unaccepted(p.io);
    over_tcp.connect({asio::ip::address_v4::loopback(), port});
    REQUIRE(mqtt_client::run_until(p.io, [&] { return p.broker.counters().connections >= 7; }));
    unaccepted.connect({asio::ip::address_v4::loopback(), port});

    p.broker.close();
    CHECK_FALSE(p.broker.is_open());
    CHECK(p.ends());
    CHECK(p.broker.session_count() == 4);
    p.broker.publish("t", "x", qos::at_least_once);  // for those that are away
    p.broker.close();
    CHECK(p.ends());
}

TEST_CASE("close ends what has been attached in the same turn") {
    fixture p;
    mqtt_client client(p.io);
    p.attach(client);
    p.broker.close();
    CHECK(p.ends());
    CHECK(client.wait_for_end());
}

TEST_CASE("what has become due while a broker was closed is done when it serves again") {
    fixture p({.recorded_messages = 1});
    mqtt_client client(p.io), other(p.io);
    lasting_connect c("a");
    c.will_props.will_delay_interval = 0;
    c.props.session_expiry_interval = 1;
    REQUIRE(p.connect(client, c.packet) == reason_code::success);
    p.broker.close();
    CHECK(p.ends());
    CHECK(p.broker.received().size() == 1);  // the will
    std::this_thread::sleep_for(1100ms);
    CHECK(p.broker.session_count() == 1);
    REQUIRE(p.connect(other, {.client_id = "other"}) == reason_code::success);
    CHECK(mqtt_client::run_until(p.io, [&] { return p.broker.session_count() == 1; }));
    CHECK(p.broker.connected("other"));
}

TEST_CASE("connections beyond the limit are closed at once") {
    fixture p({.connection_limit = 2});
    mqtt_client a(p.io), b(p.io), c(p.io);
    REQUIRE(p.connect(a, {.client_id = "a"}) == reason_code::success);
    p.attach(b);  // says nothing, and counts all the same
    p.attach(c);
    CHECK(c.wait_for_end());
    auto const port = p.broker.listen_tcp();
    asio::ip::tcp::socket socket(p.io);
    socket.connect({asio::ip::address_v4::loopback(), port});
    std::error_code ended;
    char byte;
    socket.async_receive(asio::buffer(&byte, 1), [&](std::error_code e, std::size_t) { ended = e; });
    CHECK(mqtt_client::run_until(p.io, [&] { return bool(ended); }));
    a.disconnect();
    CHECK(mqtt_client::run_until(p.io, [&] { return p.connect(c, {.client_id = "c"}) == reason_code::success; }));
}

TEST_CASE("many clients are served, whatever the slow and the stalled ones among them do") {
    // One in ten does not read, one in ten is slow, one in ten does not acknowledge, one in ten is away.
    auto const count = client_count();
    constexpr std::size_t messages = 40;
    fixture p({.output_limit = 100'000, .queue_limit = messages});
    std::vector<std::unique_ptr<mqtt_client>> clients;
    for (std::size_t i = 0; i < count; ++i) {
        auto& c = *clients.emplace_back(std::make_unique<mqtt_client>(p.io, i % 2 == 0 ? v3 : v5));
        auto const id = "client-" + std::to_string(i);
        lasting_connect packet(id);
        packet.packet.will.reset();
        if (i % 2 == 0) packet.packet.props = {};
        REQUIRE(p.connect(c, packet.packet) == reason_code::success);
        c.subscribe("all/#");
        c.subscribe("$share/workers/jobs");
        switch (i % 10) {
            case 1: c.reading = false; [[fallthrough]];
            case 2: c.stream().incoming().capacity = 500; break;
            case 3: c.acknowledging = false; break;
            case 4: c.cut(); break;
            default: break;
        }
    }
    std::string const payload(2000, 'x');
    for (std::size_t i = 0; i < messages; ++i) {
        p.broker.publish("all/kept", payload, qos::at_least_once);
        p.broker.publish("all/lossy", payload, qos::at_most_once);
        p.broker.publish("jobs", std::to_string(i), qos::at_least_once);
        p.io.restart();
        p.io.poll();
    }
    auto const kept = [](mqtt_client const& c) {
        std::size_t n = 0;
        for (auto const& m : c.messages) n += m.topic == "all/kept";
        return n;
    };
    auto const all_have_all = [&](auto counts) {
        for (std::size_t i = 0; i < count; ++i)
            if (counts(i % 10) && kept(*clients[i]) != messages) return false;
        return true;
    };
    auto const come_to_have_all = [&](auto counts) {
        auto const end = std::chrono::steady_clock::now() + 30s + std::chrono::milliseconds(count * 20);
        while (!all_have_all(counts) && std::chrono::steady_clock::now() < end) {
            p.io.restart();
            p.io.run_for(50ms);
        }
        return all_have_all(counts);
    };
    CHECK(come_to_have_all([](std::size_t kind) { return kind != 1 && kind != 4; }));
    // The others get theirs once they read, or come.
    for (std::size_t i = 0; i < count; ++i) {
        clients[i]->reading = true;
        if (i % 10 != 4) continue;
        auto const id = "client-" + std::to_string(i);
        lasting_connect packet(id);
        packet.packet.will.reset();
        if (i % 2 == 0) packet.packet.props = {};
        REQUIRE(p.connect(*clients[i], packet.packet) == reason_code::success);
        CHECK(clients[i]->session_present);
    }
    CHECK(come_to_have_all([](std::size_t) { return true; }));
    std::size_t jobs = 0;
    for (auto const& c : clients)
        for (auto const& m : c->messages) jobs += m.topic == "jobs";
    CHECK(jobs == messages);
    p.broker.close();
    for (auto const& c : clients) c->cut();
    CHECK(p.ends());
}
