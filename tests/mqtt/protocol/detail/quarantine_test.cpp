#include <runnel/mqtt/protocol/detail/quarantine.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <support/random_source.hpp>
#include <support/session_end.hpp>
#include <system_error>
#include <vector>

using namespace runnel::mqtt;
using namespace std::chrono_literals;

namespace {

auto const reset = std::make_error_code(std::errc::connection_reset);
using time_point = runnel::mqtt::detail::quarantine::time_point;
using duration = runnel::mqtt::detail::quarantine::clock::duration;

// A client that has messages to send, and a server that ends connections: how long after it was sent something on
// which, in its turn.
struct trial {
    explicit trial(int messages, std::uint32_t strikes = 3)
        : rule(strikes), client(role::client, protocol_version::v5) {
        for (int i = 0; i < messages; ++i) client.publish("m" + std::to_string(i), qos::at_least_once);
    }

    struct end {
        duration after{};  // CONNACK, or what is sent
        std::error_code why = reset;
        bool by_peer = true;
        bool is_written = true;
    };

    // One connection. `on_message(topic)` says whether the server takes a message, or how it ends the connection;
    // `on_connack` how it ends the connection if it is sent nothing.
    void connect(std::function<std::optional<end>(std::string const&)> on_message, std::optional<end> on_connack = {}) {
        client.state.narrow(client.out, rule.window());
        client.connect(true);
        rule.connected(now);
        auto const connected_at = now;
        for (;;) {
            if (on_connack && (rule.deadline() == runnel::mqtt::detail::quarantine::never ||
                               connected_at + on_connack->after < rule.deadline())) {
                now = connected_at + on_connack->after;
                return over(*on_connack);
            }
            if (rule.deadline() != runnel::mqtt::detail::quarantine::never) {
                now = rule.deadline();
                REQUIRE(rule.on_time(now));
                client.state.narrow(client.out, rule.window());
            }
            auto const bytes = client.take_bytes();
            if (bytes.empty()) return over({.after = 0s, .why = errc::disconnected, .by_peer = false});
            std::string_view left = bytes;
            while (!left.empty()) {
                auto const f = next_frame(left);
                left.remove_prefix(f.total_size);
                test::mqtt::publish message;
                REQUIRE(decode(f.header, f.body, protocol_version::v5, message) == errc::ok);
                sent_at = now;
                if (auto const ended = on_message(std::string(message.topic))) {
                    now += ended->after;
                    return over(*ended);
                }
                delivered.emplace_back(message.topic);
                CHECK(client.receive_ack(packet_type::puback, message.packet_id) == errc::ok);
            }
            if (rule.is_active() && rule.on_answers(client.state.unanswered()))
                client.state.narrow(client.out, rule.window());
        }
    }

    void over(end const& e) {
        auto const left = client.state.unanswered();
        client.lose_connection();
        auto const given_up = rule.disconnected({.left = left,
                                                 .why = e.why,
                                                 .by_peer = e.by_peer,
                                                 .at = now,
                                                 .written = e.is_written ? sent_at : time_point{}});
        if (!given_up) return;
        rejected.push_back(*given_up);
        client.state.reject(*given_up, errc::message_rejected, test::session_end::listener(client));
    }

    runnel::mqtt::detail::quarantine rule;
    test::session_end client;
    time_point now{1000s};
    time_point sent_at{};
    std::vector<std::string> delivered;
    std::vector<std::uint64_t> rejected;
};

using numbers = std::vector<std::uint64_t>;
using topics = std::vector<std::string>;

// Ends the connection at a message, takes all others.
auto poison(std::string topic, trial::end how = {}) {
    return [=](std::string const& t) { return t == topic ? std::optional(how) : std::nullopt; };
}

}  // namespace

TEST_CASE("the message for which the server ends the connection each time is given up, and all others arrive") {
    for (auto const why : {reset, make_error_code(reason_code::packet_too_large)}) {
        trial t(5);
        for (int i = 0; i < 10; ++i) t.connect(poison("m0", {.why = why}));
        CHECK(t.rejected == numbers{0});
        CHECK(t.delivered == topics{"m1", "m2", "m3", "m4"});
        CHECK(t.client.refused.size() == 1);
        CHECK(t.client.refused[0].error == errc::message_rejected);
        CHECK_FALSE(t.rule.is_active());
    }
}

TEST_CASE("it is given up after five ends: two alike, and three with nothing else sent") {
    trial t(2);
    for (int i = 0; i < 4; ++i) t.connect(poison("m0"));
    CHECK(t.rejected.empty());
    t.connect(poison("m0"));
    CHECK(t.rejected == numbers{0});
}

TEST_CASE("the culprit is found among many, wherever it stands, though the server reads all before it answers") {
    for (int at = 0; at < 5; ++at) {
        trial t(5);
        auto const culprit = "m" + std::to_string(at);
        for (int i = 0; i < 12; ++i) {
            if (t.rule.is_active()) {
                t.connect(poison(culprit));
            } else {  // it acknowledges nothing of what came with it
                bool const is_there = t.rejected.empty();
                t.connect([&](std::string const&) { return is_there ? std::optional(trial::end{}) : std::nullopt; });
            }
        }
        CHECK(t.rejected == numbers{static_cast<std::uint64_t>(at)});
        CHECK(t.delivered.size() == 4);
    }
}

TEST_CASE("several of them are given up one after another") {
    trial t(4);
    for (int i = 0; i < 20; ++i) {
        t.connect([](std::string const& topic) {
            return topic == "m1" || topic == "m2" ? std::optional(trial::end{}) : std::nullopt;
        });
    }
    CHECK(t.rejected == numbers{1, 2});
    CHECK(t.delivered == topics{"m0", "m3"});
}

TEST_CASE("no message is given up if nobody wants that") {
    trial t(2, 0);
    for (int i = 0; i < 20; ++i) t.connect(poison("m0"));
    CHECK(t.rejected.empty());
    CHECK_FALSE(t.rule.is_active());
}

TEST_CASE("a server that ends each connection, whatever it is sent, costs no message") {
    for (auto const after : {0ms, 10ms, 500ms, 999ms, 1000ms, 1500ms, 2000ms, 2500ms, 3000ms, 3500ms, 4000ms, 5000ms,
                             5500ms, 6000ms, 7000ms, 20000ms}) {
        trial t(3);
        for (int i = 0; i < 100; ++i) {
            auto const began = t.now;
            auto const fixed = [&](std::string const&) {
                return std::optional(trial::end{.after = std::max<duration>(began + after - t.now, 0s)});
            };
            t.connect(fixed, trial::end{.after = after});
            t.now += 1s;
        }
        CAPTURE(after.count());
        CHECK(t.rejected.empty());
    }
}

TEST_CASE("timeouts, failures to connect, and ends for other reasons cost no message") {
    trial::end const innocent[] = {
        {.why = errc::keep_alive_timeout, .by_peer = false},
        {.why = std::make_error_code(std::errc::timed_out), .by_peer = false},
        {.why = reason_code::server_shutting_down},
        {.why = reason_code::session_taken_over},
        {.why = reason_code::keep_alive_timeout},
        {.after = 5s, .is_written = false},  // in the middle of a long message
    };
    for (auto const& how : innocent) {
        trial t(3);
        for (int i = 0; i < 40; ++i) t.connect(poison("m0", how));
        CHECK(t.rejected.empty());
        // And between two strikes they clear the suspect.
        for (int i = 0; i < 40; ++i) t.connect(i % 4 == 3 ? poison("m0", how) : poison("m0"));
        CHECK(t.rejected.empty());
    }
    runnel::mqtt::detail::quarantine rule;
    for (int i = 0; i < 20; ++i) {  // nothing is learnt where the server has not accepted
        CHECK_FALSE(rule.disconnected({.left = {.any = true}, .why = reset, .by_peer = true}));
        CHECK_FALSE(rule.is_active());
    }
}

TEST_CASE("a message that arrives at the second try of the trial is not given up, and the session goes on as usual") {
    trial t(3);
    for (int i = 0; i < 4; ++i) t.connect(poison("m0"));
    CHECK(t.rule.is_active());
    t.connect(poison("none"));
    CHECK(t.delivered == topics{"m0", "m1", "m2"});
    CHECK_FALSE(t.rule.is_active());
    CHECK(t.rule.window() == runnel::mqtt::detail::quarantine::unlimited);
}

TEST_CASE("a network that loses connections at random hardly ever costs a message, whatever its mood") {
    test::random_source random(1);
    int lost = 0, messages = 0;
    for (int const mean : {100, 500, 1000, 2000, 3000, 5000}) {  // ms
        for (int round = 0; round < 60; ++round) {
            trial t(1);
            for (int i = 0; i < 100 && t.delivered.empty() && t.rejected.empty(); ++i) {
                // Each message takes 300 ms to be acknowledged.
                double const uniform = (random.between<int>(0, 999999) + 0.5) / 1e6;
                auto const life = std::chrono::milliseconds(static_cast<int>(-mean * std::log(uniform)));
                auto const end_at = t.now + life;
                auto const on_message = [&](std::string const&) -> std::optional<trial::end> {
                    if (end_at >= t.now + 300ms) return std::nullopt;
                    return trial::end{.after = end_at > t.now ? end_at - t.now : duration{}};
                };
                t.connect(on_message, trial::end{.after = life});
                t.now += 1s;
            }
            ++messages;
            lost += static_cast<int>(t.rejected.size());
        }
    }
    CHECK(messages == 360);
    CHECK(lost <= 2);
}

// The rules one by one.

namespace {

using runnel::mqtt::detail::quarantine;
constexpr time_point begin{1000s};

runnel::mqtt::detail::quarantine::ending ending(std::uint64_t first, time_point at, std::error_code why = reset,
                                                bool has_progress = false) {
    return {.left = {.first = first, .next = 3, .any = true, .has_progress = has_progress},
            .why = why,
            .by_peer = true,
            .at = at};
}

// Ends a connection as usual.
void end_usually(runnel::mqtt::detail::quarantine& rule, std::uint64_t first, std::error_code why = reset) {
    rule.connected(begin);
    CHECK_FALSE(rule.disconnected(ending(first, begin, why)));
}

// A connection on which one message is tried, right after which it ends.
std::optional<std::uint64_t> strike(runnel::mqtt::detail::quarantine& rule, std::uint64_t first,
                                    bool has_progress = false) {
    rule.connected(begin);
    CHECK(rule.on_time(rule.deadline()));
    return rule.disconnected(ending(first, begin + 1h, make_error_code(reason_code::packet_too_large), has_progress));
}

}  // namespace

TEST_CASE("two ends make a suspicion only if they are alike") {
    runnel::mqtt::detail::quarantine one, other_error, other_message;
    for (auto* rule : {&one, &other_error, &other_message}) end_usually(*rule, 0);
    end_usually(one, 0);
    end_usually(other_error, 0, std::make_error_code(std::errc::broken_pipe));
    end_usually(other_message, 1);
    CHECK(one.window() == 0);
    CHECK(other_error.window() == quarantine::unlimited);
    CHECK(other_message.window() == quarantine::unlimited);
}

TEST_CASE("one message is tried at a time, not before its time, until all under suspicion have ended") {
    runnel::mqtt::detail::quarantine rule;
    end_usually(rule, 0);
    end_usually(rule, 0);
    rule.connected(begin);
    CHECK_FALSE(rule.on_time(rule.deadline() - 1ms));
    CHECK(rule.window() == 0);
    CHECK(rule.on_time(rule.deadline()));
    CHECK(rule.window() == 1);
    for (std::uint64_t const first : {1u, 2u})
        CHECK_FALSE(rule.on_answers({.first = first, .next = 5, .any = true, .has_progress = true}));
    CHECK(rule.on_answers({.first = 3, .next = 5, .any = true, .has_progress = true}));
    CHECK(rule.window() == quarantine::unlimited);
}

TEST_CASE("strikes count in a row, and against one message") {
    SUBCASE("an acknowledgement clears them, and the trial goes on") {
        runnel::mqtt::detail::quarantine rule(2);
        end_usually(rule, 0);
        end_usually(rule, 0);
        CHECK_FALSE(strike(rule, 0));
        CHECK_FALSE(strike(rule, 0, true));
        CHECK(rule.window() == 0);
        CHECK_FALSE(strike(rule, 0));
        CHECK(strike(rule, 0) == 0);
    }
    SUBCASE("those of one message do not count against the next") {
        runnel::mqtt::detail::quarantine rule(2);
        end_usually(rule, 0);
        end_usually(rule, 0);
        CHECK_FALSE(strike(rule, 0));
        CHECK_FALSE(strike(rule, 1));
        CHECK(strike(rule, 1) == 1);
        rule.connected(begin);
        CHECK(rule.deadline() == begin + 1s);  // as at the first strike
    }
}

TEST_CASE("an end right after the last byte of a long message is a strike") {
    runnel::mqtt::detail::quarantine rule(1);
    end_usually(rule, 0);
    end_usually(rule, 0);
    rule.connected(begin);
    CHECK(rule.on_time(rule.deadline()));
    auto end = ending(0, begin + 1h);
    end.written = begin + 1h - 500ms;
    CHECK(rule.disconnected(end) == 0);
}
