#include <runnel/testing/broker/broker.hpp>
#include <runnel/transport/memory.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/sample.hpp"
#include "support/streams.hpp"
#include "support/timed_broker.hpp"
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// What hostile clients can make the embedded broker hold, and how that ends: docs/hostile-peers.md.

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::protocol_version;
using mqtt::qos;
using testing::memory_watch;

constexpr auto v5 = protocol_version::v5;
constexpr std::size_t kib = 1024;
constexpr std::size_t mib = 1024 * kib;

// A broker with many connections, and their other ends.
struct crowd {
    explicit crowd(testing::broker_options options) : broker(io.get_executor(), std::move(options)) {
        broker.hooks().log = [this](std::string_view) { ++logged; };
    }
    ~crowd() {
        broker.close();
        peers.clear();
        io.restart();
        io.run();  // nothing is left
    }
    void attach(std::size_t count) {
        peers.reserve(peers.size() + count);
        for (std::size_t i = 0; i < count; ++i) {
            auto [near, far] = memory_stream<>::pair(io.get_executor());
            broker.attach(std::move(far));
            peers.push_back(std::move(near));
        }
        settle();
    }
    void settle() {
        io.restart();
        while (io.poll() != 0) {
        }
    }
    void say(memory_stream<>& peer, std::string bytes) { test::run(io, test::write_text(peer, std::move(bytes))); }
    // What comes until the broker ends the connection.
    std::string until_end(memory_stream<>& peer) { return test::task(io, test::read_to_end(peer)).run(60s).text; }

    asio::io_context io;
    std::size_t logged = 0;
    testing::broker broker;
    std::vector<memory_stream<>> peers;
};

std::string connect_packet(std::string_view id) { return test::encoded(mqtt::connect{.client_id = id}, v5); }

}  // namespace

TEST_CASE(
    "thousands of connections that say nothing, or half a CONNECT, cost 8 KiB each, and are cut after connect_limit") {
    std::size_t const count = 10'000 / test::every(4);
    memory_watch const watch;
    {
        crowd c({.connect_limit = 2s});
        c.attach(count);
        // On a slow machine the first have been cut by now.
        std::string const half("\x10\x20\0\4MQTT", 8);
        for (std::size_t i = 0; i < count; i += 2)
            static_cast<void>(test::error_of(c.io, test::write_text(c.peers[i], half)));
        c.settle();
        CHECK(c.broker.counters().connections == count);
        CHECK(test::wait_until(c.io, [&] { return c.logged == count; }, 60s));
        for (std::size_t i = 0; i < count; i += 999) CHECK(c.until_end(c.peers[i]).empty());
        CHECK(watch.peak() < count * 8 * kib + mib);
    }
    CHECK(watch.held() < 64 * kib);
}

TEST_CASE("clients that announce the largest CONNECT and send little of it cost 24 KiB each") {
    std::size_t const count = 2'000;
    crowd c({.connect_limit = 1h});
    c.attach(count);
    memory_watch const watch;
    for (auto& peer : c.peers) c.say(peer, std::string("\x10\xF0\xFF\x3F\0\4MQTT", 10));
    c.settle();
    CHECK(watch.peak() < count * 24 * kib);
}

TEST_CASE("a client that sends CONNECT byte by byte is cut after connect_limit, or served when it is done in time") {
    auto const all = connect_packet("slow");
    crowd patient({.connect_limit = 1h});
    patient.attach(1);
    memory_watch const watch;
    for (char const one : all) {
        patient.say(patient.peers[0], std::string(1, one));
        patient.settle();
    }
    CHECK(patient.broker.connected("slow"));
    CHECK(watch.peak() < 64 * kib);

    // The same, with a clock of the test's own: a byte a second.
    struct slow_connection final : testing::detail::broker_connection {
        slow_connection() : testing::detail::broker_connection({"memory", "", false}) {}
        void wake() override {}
        void abort() override { cut = true; }
        bool cut = false;
    } c;
    test::timed_broker broker;
    broker.core.opened(c, broker.now);
    std::string come;
    for (std::size_t i = 0; !c.cut && i < all.size(); ++i) {
        come += all[i];
        std::string_view input = come;
        broker.core.receive(c, input, broker.now);
        come.assign(input);
        broker.pass(1s);
    }
    CHECK(c.cut);
    CHECK(broker.now.time_since_epoch() == 10s);  // connect_limit
    broker.core.closed(c, broker.now);
}

namespace {

// One client that is connected, which reads what it is sent when it is told to.
struct one_client {
    explicit one_client(testing::broker_options options = {}) : c(std::move(options)) {
        c.attach(1);
        say(connect_packet("client"));
        read();
    }
    void say(std::string bytes) {
        c.say(c.peers[0], std::move(bytes));
        c.settle();
    }
    // All that has come.
    std::string read() {
        std::string all, room(64 * kib, '\0');
        while (c.peers[0].incoming().bytes != taken) {
            auto const n = test::run(c.io, c.peers[0].read_some(asio::buffer(room)));
            taken += n;
            all.append(room, 0, n);
            c.settle();
        }
        return all;
    }
    bool connected() const { return c.broker.connected("client"); }

    crowd c;
    std::size_t taken = 0;
};

std::string repeated(std::string_view bytes, std::size_t about = 32 * kib) {
    std::string all;
    while (all.size() < about) all += bytes;
    return all;
}

std::string subscribe_packet(std::string_view filter) {
    mqtt::subscription_request const request{.filter = filter, .maximum_qos = qos::at_least_once};
    return test::encoded(mqtt::subscribe{.packet_id = 1, .requests = request}, v5);
}

// The last byte of a SUBACK or PUBACK.
unsigned last_byte(std::string const& answers) {
    return answers.empty() ? 0 : static_cast<unsigned char>(answers.back());
}

}  // namespace

TEST_CASE("256 MiB that a client announces and does not send cost what has come") {
    one_client one;
    memory_watch const watch;
    one.say(std::string("\x30\xFF\xFF\xFF\x7F\0\1t\0", 9));
    CHECK(watch.peak() < 128 * kib);
    one.say(std::string(mib, 'x'));
    CHECK(one.connected());
    CHECK(watch.peak() < 512 * kib + 7 * mib);  // what the test sends, and the old and the new room
}

TEST_CASE("hundreds of thousands of tiny packets of a client that takes the answers cost nothing") {
    for (auto const* bytes : {"C0 00", "70 02 00 07", "30 04 00 01 't' 00"}) {
        one_client one;
        auto const chunk = repeated(test::hex(bytes));
        memory_watch const watch;
        for (int i = 0; i < 60; ++i) {
            one.say(chunk);
            one.read();
        }
        CHECK(one.connected());
        CHECK(watch.peak() < 768 * kib);
    }
}

TEST_CASE("a client that asks and does not take the answers costs output_limit, and is read no more") {
    one_client one({.output_limit = mib});
    auto const chunk = repeated(test::hex("C0 00"));
    memory_watch const watch;
    test::task writing(one.c.io, [](memory_stream<>& to, std::string text) -> asio::awaitable<void> {
        for (int i = 0; i < 1'000; ++i) {
            auto once = test::write_text(to, text);
            co_await std::move(once);
        }
    }(one.c.peers[0], chunk));
    one.c.settle();
    CHECK_FALSE(writing.done());
    CHECK(one.connected());
    CHECK(watch.peak() < 5 * mib);  // both buffers, while they grow
}

TEST_CASE("answers that nobody has asked for, a second CONNECT and AUTH end the connection, the will included") {
    for (auto const* bytes : {"40 02 00 07", "F0 00", "20 03 00 00 00", "D0 00", "90 04 00 07 00 00"}) {
        CAPTURE(bytes);
        one_client one;
        memory_watch const watch;
        one.say(repeated(test::hex(bytes), kib));
        CHECK_FALSE(one.connected());
        CHECK(one.c.broker.counters().protocol_errors == 1);
        CHECK(watch.peak() < 256 * kib);
    }
    one_client one;
    one.say(connect_packet("client"));
    CHECK_FALSE(one.connected());
}

TEST_CASE("a flood of subscriptions costs twice subscription_bytes at most, however deep the filters are") {
    struct row {
        char const* what;
        std::string filter;
    };
    for (auto const& [what, filter] : {row{"deep", std::string(60'000, '/')}, row{"long", std::string(60'000, 'x')},
                                       row{"short", "x"}, row{"deep wildcards", "+" + repeated("/+", 50'000)},
                                       row{"shared", "$share/" + std::string(30'000, 'g') + "/x"}}) {
        CAPTURE(what);
        one_client one({.subscription_limit = 100'000, .subscription_bytes = 8 * mib});
        memory_watch const watch;
        std::size_t granted = 0;
        for (int i = 0; i < 20'000; ++i) {
            auto const shared = filter.starts_with('$');
            auto const number = std::to_string(i);
            one.say(subscribe_packet(shared ? "$share/" + number + filter.substr(7) : number + '/' + filter));
            if (last_byte(one.read()) == 0x97) break;
            ++granted;
        }
        CHECK(granted > 0);
        CHECK(granted < 20'000);
        CHECK(one.connected());
        CHECK(watch.peak() < 2 * 8 * mib + mib);
        // It may unsubscribe, and has all of its room again.
        std::string const first = filter.starts_with('$') ? "$share/0" + filter.substr(7) : "0/" + filter;
        std::string_view const filters[] = {first};
        one.say(test::encoded(mqtt::unsubscribe{.packet_id = 2, .filters = filters}, v5));
        one.read();
        one.say(subscribe_packet(first));
        CHECK(last_byte(one.read()) == 1);
        one.say(subscribe_packet(first));  // again: it replaces the one there is
        CHECK(last_byte(one.read()) == 1);
    }
}

TEST_CASE("messages that match thousands of overlapping subscriptions with identifiers count with these") {
    one_client one({.queue_bytes = mib});
    std::uint32_t identifier = 0;
    for (int bits = 0; bits < 512; ++bits) {
        std::string filter;
        for (int level = 0; level < 9; ++level) filter += (bits >> level & 1) != 0 ? "/+" : "/a";
        mqtt::properties props;
        std::uint32_t const ids[] = {++identifier};
        props.subscription_identifiers = ids;
        mqtt::subscription_request const request{.filter = filter, .maximum_qos = qos::at_least_once};
        one.say(test::encoded(mqtt::subscribe{.packet_id = 1, .requests = request, .props = &props}, v5));
        one.read();
    }
    one.c.peers[0].incoming().capacity = 1;
    memory_watch const watch;
    std::string topic;
    for (int level = 0; level < 9; ++level) topic += "/a";
    for (int i = 0; i < 1'000; ++i) one.c.broker.publish(topic, "x", qos::at_least_once);
    one.c.settle();
    CHECK(one.c.broker.counters().messages_dropped > 400);
    CHECK(watch.held() < 3 * mib);
}

TEST_CASE("a flood of retained messages costs twice retained_bytes, and 512 bytes a message") {
    struct row {
        char const* what;
        std::size_t topic, payload;
    };
    for (auto const& [what, topic_size, payload_size] :
         {row{"tiny", 0, 1}, row{"with long topics", 60'000, 1}, row{"large", 0, 500'000}}) {
        CAPTURE(what);
        auto const allowed = 16 * mib / test::every(2);
        one_client one({.retained_limit = 20'000 / test::every(2), .retained_bytes = allowed});
        memory_watch const watch;
        bool refused = false;
        for (int i = 0; i < 25'000 && !refused; ++i) {
            auto const topic = std::to_string(i) + std::string(topic_size, 'x');
            std::string const payload(payload_size, 'x');
            one.say(test::encoded(
                mqtt::publish{
                    .topic = topic, .payload = payload, .qos = qos::at_least_once, .retain = true, .packet_id = 1},
                v5));
            refused = last_byte(one.read()) == 0x97;
        }
        CHECK(refused);
        CHECK(one.connected());
        CHECK(watch.held() < 2 * allowed + 512 * one.c.broker.retained_count());
    }
}
