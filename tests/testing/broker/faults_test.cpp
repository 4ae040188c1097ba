#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/virtual_time.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <doctest/doctest.h>

#include "support/sample.hpp"
#include <chrono>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::packet_type;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using mqtt::role;
using testing::behind_delayed;
using testing::cut_point;
using testing::packet_selection;

constexpr protocol_version versions[] = {protocol_version::v3_1_1, protocol_version::v5};
constexpr qos qualities[] = {qos::at_most_once, qos::at_least_once, qos::exactly_once};

mqtt::session_options options_for(protocol_version version) {
    mqtt::session_options o;
    o.credentials.client_id = "device";
    o.version = version;
    o.reconnect.jitter = 0;
    return o;
}

// A broker, a session and its time.
struct fixture {
    explicit fixture(mqtt::session_options o, testing::broker_options b = {.recorded_messages = 10'000})
        : broker(io.get_executor(), b), session(io.get_executor(), transport, std::move(o)) {}

    void start() {
        asio::co_spawn(io, session.run(), [this](std::exception_ptr e) {
            has_ended = true;
            error = e;
        });
        time.run(session.connected());
    }
    void end() {
        time.run(session.disconnect());
        CHECK(time.advance_until([&] { return has_ended; }));
        CHECK_FALSE(error);
    }

    asio::io_context io;
    testing::virtual_time time{io};
    testing::broker broker;
    std::size_t opened = 0;
    memory_transport transport{[this](memory_stream<> s) {
        ++opened;
        broker.attach(std::move(s));
    }};
    mqtt::session<memory_transport> session;
    bool has_ended = false;
    std::exception_ptr error;
};

asio::awaitable<void> collect(mqtt::session<memory_transport>& s, std::map<std::string, int>& got, qos quality) {
    auto subscription = co_await s.subscribe("echo", {.maximum_qos = quality});
    while (true) {
        auto const message = co_await subscription.receive();
        ++got[std::string(message.payload())];
    }
}

asio::awaitable<void> publish_all(mqtt::session<memory_transport>& s, qos quality, int count) {
    for (int i = 0; i < count; ++i) {
        auto const text = std::to_string(i);
        co_await s.publish("echo", text, {.qos = quality});
    }
}

enum class what { lose, delay, overtake, cut_before, cut_behind };

void ask_for(testing::broker& b, packet_selection of, what fault) {
    switch (fault) {
        case what::lose: return b.lose(std::move(of));
        case what::delay: return b.delay(std::move(of), 3s);
        case what::overtake: return b.delay(std::move(of), 3s, behind_delayed::pass);
        case what::cut_before: return b.cut(std::move(of), cut_point::before);
        case what::cut_behind: return b.cut(std::move(of), cut_point::behind);
    }
}

}  // namespace

TEST_CASE("each fault at each packet of a conversation: no message of QoS 1 or 2 is lost, none of QoS 2 doubled") {
    constexpr int messages = 4;
    struct place {
        role sender;
        packet_type type;
    };
    using enum packet_type;
    constexpr place places[] = {{role::client, connect},  {role::server, connack},   {role::client, subscribe},
                                {role::server, suback},   {role::client, publish},   {role::server, publish},
                                {role::client, puback},   {role::server, puback},    {role::client, pubrec},
                                {role::server, pubrec},   {role::client, pubrel},    {role::server, pubrel},
                                {role::client, pubcomp},  {role::server, pubcomp},   {role::client, pingreq},
                                {role::server, pingresp}, {role::client, disconnect}};
    std::size_t points = 0;
    for (auto const version : versions) {
        for (auto const quality : qualities) {
            for (auto const& at : places) {
                for (auto const fault : {what::lose, what::delay, what::overtake, what::cut_before, what::cut_behind}) {
                    for (std::size_t skip = 0; skip < 2; ++skip) {
                        if (points++ % test::every(3) != 0) continue;  // each, with some of the versions and QoS
                        CAPTURE(static_cast<int>(version));
                        CAPTURE(static_cast<int>(quality));
                        CAPTURE(mqtt::name(at.type));
                        CAPTURE(static_cast<int>(at.sender));
                        CAPTURE(static_cast<int>(fault));
                        CAPTURE(skip);
                        fixture f(options_for(version));
                        std::map<std::string, int> got;
                        ask_for(f.broker, {.sender = at.sender, .type = at.type, .skip = skip}, fault);
                        f.start();
                        asio::co_spawn(f.io, collect(f.session, got, quality), asio::detached);
                        // A SUBSCRIBE or its answer that is lost comes again on the next connection only (3.8.4).
                        f.time.advance(2min);
                        if (!f.broker.subscribed("echo")) f.broker.drop_client("device");
                        REQUIRE(f.time.advance_until([&] { return f.broker.subscribed("echo"); }));
                        bool is_done = false;
                        asio::co_spawn(f.io, publish_all(f.session, quality, messages),
                                       [&](std::exception_ptr e) { is_done = !e; });
                        f.time.advance(2min);
                        // What was lost is sent again on the next connection (4.4).
                        f.broker.drop_client("device");
                        f.time.advance(10min);
                        REQUIRE(is_done);
                        f.broker.drop_client("device");
                        f.time.advance(10min);
                        for (int i = 0; i < messages && quality != qos::at_most_once; ++i) {
                            auto const count = got[std::to_string(i)];
                            CHECK(count >= 1);
                            if (quality == qos::exactly_once) CHECK(count == 1);
                        }
                        f.broker.clear_faults();
                        f.end();
                    }
                }
            }
        }
    }
}

TEST_CASE("SUBACK comes three seconds later, and what came to the topic meanwhile is not lost") {
    for (auto const version : versions) {
        fixture f(options_for(version));
        f.start();
        f.broker.delay({role::server, packet_type::suback}, 3s);
        auto const begin = f.time.now();
        auto inbox = f.time.run(f.session.subscribe("a"));
        CHECK(f.time.now() - begin == 3s);
        CHECK(f.broker.counters().packets_delayed == 1);
        f.broker.publish("a", "x", qos::at_least_once);
        CHECK(f.time.run(inbox.receive()).payload() == "x");
        f.end();
    }
}

TEST_CASE("the answers of a slow network keep their order, those of a slow broker do not hold up others") {
    for (auto const others : {behind_delayed::wait, behind_delayed::pass}) {
        fixture f(options_for(protocol_version::v5));
        f.start();
        auto inbox = f.time.run(f.session.subscribe("a"));
        f.broker.delay({role::server, packet_type::puback}, 10s, others);
        auto const begin = f.time.now();
        asio::co_spawn(f.io, f.session.publish("b", "x", {.qos = qos::at_least_once}), asio::detached);
        f.time.settle();
        f.broker.publish("a", "y");
        CHECK(f.time.run(inbox.receive()).payload() == "y");
        CHECK(f.time.now() - begin == (others == behind_delayed::wait ? 10s : 0s));
        f.time.advance(20s);
        f.end();
    }
}

TEST_CASE(
    "a connection that is cut behind a PUBLISH: the broker has it, and the client sends it again as a duplicate") {
    for (auto const version : versions) {
        for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
            fixture f(options_for(version));
            f.start();
            f.broker.cut({.sender = role::client, .type = packet_type::publish, .skip = 1});
            for (auto const* const text : {"first", "second"})
                CHECK(f.time.run(f.session.publish("a", text, {.qos = quality})) != reason_code::unspecified_error);
            CHECK(f.opened == 2);
            CHECK(f.broker.counters().connections_cut == 1);
            CHECK(f.broker.counters().messages_received == (quality == qos::exactly_once ? 2 : 3));
            if (quality == qos::at_least_once) CHECK(f.broker.received().back().dup);
            f.end();
        }
    }
}

TEST_CASE("a cut publishes the will, also where it is behind the client's DISCONNECT if that does not arrive") {
    auto o = options_for(protocol_version::v5);
    o.will = mqtt::will_message_options{.topic = "will", .payload = "gone"};
    fixture f(std::move(o));
    std::vector<std::string> published;
    f.broker.hooks().on_publish = [&](testing::client_info const&, mqtt::publish const& m) {
        published.emplace_back(m.topic);
    };
    f.start();
    f.broker.cut({role::client, packet_type::disconnect}, cut_point::before);
    f.end();
    CHECK(published == std::vector<std::string>{"will"});
}

TEST_CASE("PINGRESP is lost: the connection is given up after the response timeout, and made anew") {
    for (auto const version : versions) {
        auto o = options_for(version);
        o.keep_alive = 60s;
        o.response_timeout = 20s;
        fixture f(std::move(o));
        f.start();
        f.broker.lose({role::server, packet_type::pingresp});
        auto const begin = f.time.now();
        CHECK(f.time.advance_until([&] { return f.opened == 2; }));
        CHECK(f.time.now() - begin >= 60s);
        CHECK(f.time.now() - begin <= 90s);
        CHECK(f.broker.counters().packets_lost == 1);
        f.end();
    }
}

TEST_CASE("CONNACK is lost: the attempt ends with its timeout") {
    auto o = options_for(protocol_version::v5);
    o.connect_timeout = 30s;
    fixture f(std::move(o));
    f.broker.lose({role::server, packet_type::connack});
    f.start();
    CHECK(f.opened == 2);
    CHECK(f.time.elapsed() == 31s);
    f.end();
}

TEST_CASE("CONNECT is refused by reason codes, and the pauses between the attempts are those of the schedule") {
    for (auto const version : versions) {
        for (auto const reason :
             {reason_code::server_unavailable, reason_code::server_busy, reason_code::quota_exceeded}) {
            fixture f(options_for(version));
            f.broker.refuse_next(4, reason);
            f.start();
            CHECK(f.opened == 5);
            CHECK(f.time.elapsed() == 1s + 2s + 4s + 8s);
            f.end();
        }
    }
}

TEST_CASE("a week of keep alive") {
    auto o = options_for(protocol_version::v5);
    o.keep_alive = 60s;
    fixture f(std::move(o));
    f.start();
    f.time.advance(24h * 7);
    CHECK(f.opened == 1);
    CHECK(f.session.is_connected());
    f.end();
}

TEST_CASE("a message and a session expire in virtual time") {
    auto o = options_for(protocol_version::v5);
    o.session_expiry = 3600s;
    fixture f(std::move(o));
    f.start();
    auto inbox = f.time.run(f.session.subscribe("a"));
    CHECK(f.broker.session_count() == 1);
    f.end();
    f.time.advance(1h - 1s);
    CHECK(f.broker.session_count() == 1);
    f.time.advance(2s);
    CHECK(f.broker.session_count() == 0);
}

TEST_CASE("a fault for one client leaves the others alone, and what is not for any packet is refused") {
    fixture f(options_for(protocol_version::v5));
    f.start();
    f.broker.lose({.sender = role::server, .type = packet_type::puback, .client = "somebody else"});
    CHECK(f.time.run(f.session.publish("a", "x", {.qos = qos::at_least_once})) == reason_code::no_matching_subscribers);
    CHECK(f.broker.faults_left() == 1);
    CHECK_THROWS_AS(f.broker.lose({role::server, packet_type::connect}), std::invalid_argument);
    f.broker.clear_faults();
    CHECK(f.broker.faults_left() == 0);
    f.end();
}

TEST_CASE("the broker's DISCONNECT is lost by the client's name: the client sees a connection that ends") {
    fixture f(options_for(protocol_version::v5));
    f.start();
    f.broker.lose({.sender = role::server, .type = packet_type::disconnect, .client = "device"});
    f.broker.disconnect_client("device");
    f.time.advance(1min);
    CHECK(f.opened == 2);
    CHECK(f.broker.faults_left() == 0);
    f.end();
}

TEST_CASE("what is delayed does not outlive its connection, nor the broker") {
    for (bool const whole : {false, true}) {
        fixture f(options_for(protocol_version::v5));
        f.start();
        f.broker.delay({.sender = role::client, .count = 0}, 1h);
        f.broker.delay({.sender = role::server, .count = 0}, 1h);
        asio::co_spawn(f.io, f.session.publish("a", "x", {.qos = qos::at_least_once}), asio::detached);
        f.time.advance(1min);
        if (whole)
            f.broker.close();
        else
            f.broker.drop_client("device");
        f.broker.clear_faults();
        f.time.advance(30min);  // less than the delay: it comes by the next connection, to which a closed broker opens
        CHECK(f.broker.received().size() == 1);
        f.time.advance(3h);
        CHECK(f.broker.received().size() == 1);
        f.end();
    }
}

TEST_CASE("delayed packets of a client arrive before the end of its connection") {
    fixture f(options_for(protocol_version::v3_1_1));
    f.start();
    f.broker.delay({role::client, packet_type::publish}, 2s);
    CHECK(f.time.run(f.session.publish("a", "x", {.qos = qos::at_most_once})) == reason_code::success);
    f.end();
    f.time.advance(10s);
    CHECK(f.broker.received().size() == 1);
    CHECK_FALSE(f.broker.connected("device"));
}

TEST_CASE("no more is held back than the limit of output, both ways") {
    testing::broker_options b{.recorded_messages = 10'000};
    b.output_limit = 16 * 1024;
    fixture f(options_for(protocol_version::v3_1_1), b);
    f.start();
    f.broker.delay({role::client, packet_type::publish}, 1h);
    std::string const large(1000, 'x');
    std::size_t done = 0;
    for (int i = 0; i < 200; ++i)
        asio::co_spawn(f.io, f.session.publish("a", large, {.qos = qos::at_least_once}),
                       [&](std::exception_ptr e, reason_code) { done += e ? 0u : 1u; });
    f.time.advance(1s);
    CHECK(f.broker.counters().packets_delayed < 100);
    CHECK(f.broker.received().empty());
    // The keep alive ends that connection, and on the next one all arrive.
    CHECK(f.time.advance_until([&] { return done == 200; }, 3h));
    f.end();
}

TEST_CASE("packets are lost over a socket, too") {
    asio::io_context io;
    testing::broker broker(io.get_executor(), {.recorded_messages = 10});
    broker.lose({role::client, packet_type::publish});
    mqtt::session<tcp> session(io.get_executor(), tcp{.host = "127.0.0.1", .port = broker.listen_tcp()},
                               options_for(protocol_version::v5));
    asio::co_spawn(io, session.run(), asio::detached);
    asio::co_spawn(
        io,
        [](mqtt::session<tcp>& s) -> asio::awaitable<void> {
            co_await s.publish("a", "lost", {.qos = qos::at_most_once});
            co_await s.publish("a", "there", {.qos = qos::at_least_once});
            co_await s.disconnect();
        }(session),
        [&](std::exception_ptr e) {
            CHECK_FALSE(e);
            broker.close();
        });
    io.run_for(10s);
    REQUIRE(broker.received().size() == 1);
    CHECK(broker.received()[0].payload == "there");
}

// Sessions, what becomes of them when the other end takes its time.

namespace {

// Notes the expiry interval that the broker is told.
void note_interval(testing::broker& broker, std::uint32_t& told) {
    broker.hooks().authorize_publish = [&told](auto&, mqtt::publish const& m) {
        if (auto const left = m.props.get<mqtt::property_id::message_expiry_interval>()) told = *left;
        return testing::publish_verdict{};
    };
}

}  // namespace

TEST_CASE("a message tells what is left of its expiry interval when it has waited for the other end") {
    mqtt::properties expiring;
    expiring.message_expiry_interval = 100;
    std::uint32_t told = 0;
    auto options = options_for(protocol_version::v5);
    options.connect_timeout = 1h;
    options.maximum_unwritten = 1000;
    SUBCASE("for an acknowledgement, as the receive maximum wants it") {
        fixture f(options, {.accepts = {.receive_maximum = 1}});
        note_interval(f.broker, told);
        f.start();
        f.broker.delay({role::server, packet_type::puback}, 5s);
        f.session.try_publish("a", "", {.qos = qos::at_least_once});
        f.session.try_publish("b", "", {.qos = qos::at_least_once, .props = &expiring});
        f.time.run(f.session.drained());
        f.end();
    }
    SUBCASE("for CONNACK") {
        fixture f(options);
        note_interval(f.broker, told);
        f.broker.delay({role::server, packet_type::connack}, 5s);
        f.session.try_publish("b", "", {.qos = qos::at_least_once, .props = &expiring});
        f.start();
        f.time.run(f.session.drained());
        f.end();
    }
    SUBCASE("for room in the output") {
        bool disconnects = false, is_acknowledged = true;
        SUBCASE("until there is some") {}
        SUBCASE("until there is some, though nothing is acknowledged") { is_acknowledged = false; }
        SUBCASE("until disconnect sends all") { disconnects = true; }
        options.keep_alive = 0s;
        options.close_timeout = 1h;
        fixture f(options, {.output_limit = 1000});
        note_interval(f.broker, told);
        f.start();
        f.broker.delay({role::client, packet_type::publish}, disconnects ? 10s : 5s);  // and reads nothing more
        for (auto const size : {100'000u, 100'000u, 2'000u}) {
            if (!is_acknowledged) f.broker.lose({role::server, packet_type::puback});
            f.session.try_publish("a", std::string(size, 'x'), {.qos = qos::at_least_once});
            f.time.settle();
        }
        f.session.try_publish("b", "", {.qos = qos::at_least_once, .props = &expiring});
        if (disconnects || !is_acknowledged)
            f.time.advance(5s);
        else
            f.time.run(f.session.drained());
        f.end();
    }
    CHECK(told == 95);
}

TEST_CASE("a QoS 2 message that is given up while its identifier is being freed holds up nobody") {
    bool discards = false;
    SUBCASE("by its timeout") {}
    SUBCASE("by discard") { discards = true; }
    auto options = options_for(protocol_version::v3_1_1);
    options.maximum_in_flight = 1;
    fixture f(options);
    f.start();
    f.end();  // the broker keeps the session
    mqtt::session<memory_transport> next(f.io.get_executor(), f.transport, options);
    bool has_ended = false;
    asio::co_spawn(f.io, next.run(), [&](std::exception_ptr) { has_ended = true; });
    f.time.run(next.connected());
    CHECK(f.broker.counters().resumed == 1);
    f.broker.delay({role::server, packet_type::pubcomp}, 20s, behind_delayed::pass);
    bool is_late = false, has_arrived = false;
    asio::co_spawn(f.io, next.publish("a", "late", {.qos = qos::exactly_once, .timeout = discards ? 1h : 1s}),
                   [&](std::exception_ptr e, auto const&) { is_late = e != nullptr; });
    asio::co_spawn(f.io, next.publish("a", "next", {.qos = qos::at_least_once}),
                   [&](std::exception_ptr e, auto const&) { has_arrived = e == nullptr; });
    f.time.advance(500ms);
    CHECK_FALSE(has_arrived);
    if (discards) CHECK(next.discard(next.queued().at(0).number));
    f.time.advance(1s);
    CHECK(is_late);
    CHECK(has_arrived);
    f.time.advance(20s);
    f.time.run(next.disconnect());
    CHECK(f.time.advance_until([&] { return has_ended; }));
    REQUIRE(f.broker.received().size() == 1);
    CHECK(f.broker.received()[0].payload == "next");
}
