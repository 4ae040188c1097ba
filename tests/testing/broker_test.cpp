#include <runnel/testing/broker.hpp>

#include <doctest/doctest.h>

#include <support/mqtt_client.hpp>

namespace {

using namespace runnel;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::mqtt_client;

// A broker and its clients on in-memory connections.
struct place {
    explicit place(testing::broker_options options = {}) : broker(io.get_executor(), std::move(options)) {
        broker.hooks().log = [this](std::string_view text) { log.emplace_back(text); };
    }

    void attach(mqtt_client& client) {
        auto [near, far] = memory_stream<>::pair(io.get_executor());
        broker.attach(std::move(far));
        client.open(std::move(near));
    }
    reason_code connect(mqtt_client& client, std::string_view id, bool clean_start = true) {
        attach(client);
        return client.connect(id, clean_start);
    }
    reason_code connect(mqtt_client& client, mqtt::connect const& packet) {
        attach(client);
        return client.connect(packet);
    }
    // Lets everything happen that is going to happen now.
    void settle() {
        io.restart();
        while (io.poll() != 0) {
        }
    }
    template <class Condition>
    bool wait(Condition condition) {
        return mqtt_client::run_until(io, condition);
    }

    asio::io_context io;
    std::vector<std::string> log;
    testing::broker broker;
};

constexpr protocol_version versions[] = {protocol_version::v3_1_1, protocol_version::v5};
constexpr qos qualities[] = {qos::at_most_once, qos::at_least_once, qos::exactly_once};

}  // namespace

TEST_CASE("a message of each QoS reaches a subscriber, in both versions") {
    for (auto const version : versions) {
        place p;
        mqtt_client sender(p.io, version);
        mqtt_client receiver(p.io, version);
        REQUIRE(p.connect(sender, "sender") == reason_code::success);
        REQUIRE(p.connect(receiver, "receiver") == reason_code::success);
        CHECK(receiver.subscribe("a/+") == reason_code::granted_qos_2);
        std::size_t count = 0;
        for (auto const quality : qualities) {
            CHECK(sender.publish("a/b", "text", quality) == reason_code::success);
            auto const m = receiver.last(++count);
            CHECK(m.topic == "a/b");
            CHECK(m.payload == "text");
            CHECK(m.qos == quality);
            CHECK_FALSE(m.retain);
        }
        CHECK(p.broker.counters().messages_received == 3);
        CHECK(p.broker.counters().messages_sent == 3);
    }
}
