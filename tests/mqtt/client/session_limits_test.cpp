#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/streams.hpp"
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

// Every option of sessions and of the embedded broker that is a number, at the ends of its type: with it a session
// runs, or it is refused with the range in the text. Sanitizers see what overflows.

namespace {

using namespace runnel::mqtt;
using runnel::testing::broker_options;
using namespace std::chrono_literals;

session_options usual() {
    auto o = test::quick("client", protocol_version::v5);
    o.will.emplace();
    o.will->topic = "will";
    o.reconnect.attempts = 200;  // of 1 ms
    o.connect_timeout = 2s;
    o.close_timeout = 200ms;
    return o;
}

// What is refused: the text. What does not work, as no packet fits or no time is enough: an error. Else it is empty.
struct outcome {
    std::string refused;
    std::error_code failed;
};

outcome outcome_of(session_options const& o, broker_options const& b = {}) {
    try {
        test::connected_session c(o, b);
        auto inbox = c.subscribe("a/#");
        auto publishing = c.session.publish("a/b", "first", {.qos = qos::at_least_once, .timeout = 5s});
        test::run(c.io, std::move(publishing));
        CHECK(test::run(c.io, inbox.receive()).payload() == "first");
        test::run(c.io, c.session.publish("a/b", "second", {.timeout = std::chrono::milliseconds::max()}));
        CHECK(test::run(c.io, inbox.receive()).payload() == "second");
        test::run(c.io, c.session.disconnect());
        c.running.run_for_error();
    } catch (std::out_of_range const& e) {
        return {e.what(), {}};
    } catch (std::system_error const& e) {
        return {{}, e.code()};
    }
    return {};
}

bool mentions(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }

// Sets a member to both ends of its type. At each end a session runs, or the refusal names it.
template <class Member>
void try_ends(std::string_view name, Member member) {
    session_options o = usual();
    using type = std::remove_cvref_t<decltype(member(o))>;
    auto const ends = [] {
        if constexpr (std::is_arithmetic_v<type>)
            return std::pair(std::numeric_limits<type>::lowest(), std::numeric_limits<type>::max());
        else
            return std::pair(type::min(), type::max());
    }();
    for (auto const& end : {ends.first, ends.second}) {
        session_options changed = usual();
        member(changed) = end;
        auto const is = outcome_of(changed);
        CAPTURE(name);
        CAPTURE((end == ends.first ? "least" : "greatest"));
        CHECK_FALSE(is.failed);
        if (!is.refused.empty()) CHECK_MESSAGE(mentions(is.refused, name), is.refused);
    }
}

}  // namespace

TEST_CASE("with every numeric option of a session at either end of its type, the session runs or the range is told") {
    try_ends("session_expiry", [](auto& o) -> auto& { return o.session_expiry; });
    try_ends("keep_alive", [](auto& o) -> auto& { return o.keep_alive; });
    try_ends("will.delay", [](auto& o) -> auto& { return o.will->delay; });
    try_ends("connect_timeout", [](auto& o) -> auto& { return o.connect_timeout; });
    try_ends("response_timeout", [](auto& o) -> auto& { return o.response_timeout; });
    try_ends("close_timeout", [](auto& o) -> auto& { return o.close_timeout; });
    try_ends("maximum_packet_size", [](auto& o) -> auto& { return o.maximum_packet_size; });
    try_ends("receive_maximum", [](auto& o) -> auto& { return o.receive_maximum; });
    try_ends("maximum_held", [](auto& o) -> auto& { return o.maximum_held; });
    try_ends("unrouted_timeout", [](auto& o) -> auto& { return o.unrouted_timeout; });
    try_ends("stalled_after", [](auto& o) -> auto& { return o.stalled_after; });
    try_ends("incoming_topic_aliases", [](auto& o) -> auto& { return o.incoming_topic_aliases; });
    try_ends("outgoing_topic_aliases", [](auto& o) -> auto& { return o.outgoing_topic_aliases; });
    try_ends("maximum_in_flight", [](auto& o) -> auto& { return o.maximum_in_flight; });
    try_ends("maximum_queued", [](auto& o) -> auto& { return o.maximum_queued; });
    try_ends("maximum_queued_messages", [](auto& o) -> auto& { return o.maximum_queued_messages; });
    try_ends("message_strikes", [](auto& o) -> auto& { return o.message_strikes; });
    try_ends("maximum_unwritten", [](auto& o) -> auto& { return o.maximum_unwritten; });
    try_ends("pace.at_most_once", [](auto& o) -> auto& { return o.pace.at_most_once; });
    try_ends("pace.acknowledged", [](auto& o) -> auto& { return o.pace.acknowledged; });
    try_ends("pace.span", [](auto& o) -> auto& { return o.pace.span; });
    try_ends("reconnect.initial", [](auto& o) -> auto& { return o.reconnect.initial; });
    try_ends("reconnect.maximum", [](auto& o) -> auto& { return o.reconnect.maximum; });
    try_ends("reconnect.multiplier", [](auto& o) -> auto& { return o.reconnect.multiplier; });
    try_ends("reconnect.jitter", [](auto& o) -> auto& { return o.reconnect.jitter; });
    try_ends("reconnect.attempts", [](auto& o) -> auto& { return o.reconnect.attempts; });
    try_ends("reconnect.total", [](auto& o) -> auto& { return o.reconnect.total; });
    try_ends("reconnect.renewals", [](auto& o) -> auto& { return o.reconnect.renewals; });
    try_ends("reconnect.stable_after", [](auto& o) -> auto& { return o.reconnect.stable_after; });
    try_ends("reconnect.twin_window", [](auto& o) -> auto& { return o.reconnect.twin_window; });
}

TEST_CASE("at the ends of their ranges options do what they say") {
    auto const outcome_with = [](auto change) {
        auto o = usual();
        change(o);
        return outcome_of(o);
    };
    auto const runs = [&](auto change) {
        auto const is = outcome_with(change);
        return is.refused.empty() && !is.failed;
    };
    CHECK(runs([](auto& o) { o.keep_alive = 0s; }));
    CHECK(runs([](auto& o) { o.keep_alive = 65'535s; }));
    CHECK(runs([](auto& o) { o.session_expiry = o.will->delay = 4'294'967'295s; }));
    CHECK(runs([](auto& o) { o.unrouted_timeout = o.stalled_after = 24h; }));
    CHECK(runs([](auto& o) { o.receive_maximum = o.maximum_in_flight = o.maximum_queued_messages = 1; }));
    CHECK(runs([](auto& o) { o.maximum_queued = o.maximum_unwritten = 1; }));
    CHECK(runs([](auto& o) { o.pace = {.at_most_once = 65535, .acknowledged = 65535, .span = 24h}; }));
    CHECK(runs([](auto& o) { o.pace = {.at_most_once = 1, .acknowledged = 1, .span = 1ms}; }));
    CHECK(runs([](auto& o) { o.reconnect.initial = o.reconnect.maximum = std::chrono::milliseconds::max(); }));
    // No CONNACK fits, and the server says so by closing the connection.
    CHECK(outcome_with([](auto& o) {
              o.maximum_packet_size = 1;
              o.reconnect.attempts = 2;
          }).failed);
}

TEST_CASE("with every numeric option of the broker at either end of its type, a session runs or the range is told") {
    auto const try_both = [](std::string_view name, auto member) {
        broker_options o;
        using type = std::remove_cvref_t<decltype(member(o))>;
        auto const ends = [] {
            if constexpr (std::is_arithmetic_v<type>)
                return std::pair(std::numeric_limits<type>::lowest(), std::numeric_limits<type>::max());
            else
                return std::pair(type::min(), type::max());
        }();
        for (auto const& end : {ends.first, ends.second}) {
            broker_options changed;
            member(changed) = end;
            auto session = usual();
            session.reconnect.attempts = 2;
            auto const is = outcome_of(session, changed);
            CAPTURE(name);
            CAPTURE((end == ends.first ? "least" : "greatest"));
            if (!is.refused.empty()) CHECK_MESSAGE(mentions(is.refused, name), is.refused);
            // Without room for a subscription, the subscription is refused; nothing hangs.
            if (is.failed) CHECK_MESSAGE(end == ends.first, is.failed.message());
        }
    };
    try_both("maximum_packet_size_v3_1_1", [](auto& o) -> auto& { return o.maximum_packet_size_v3_1_1; });
    try_both("outgoing_topic_aliases", [](auto& o) -> auto& { return o.outgoing_topic_aliases; });
    try_both("connect_limit", [](auto& o) -> auto& { return o.connect_limit; });
    try_both("linger", [](auto& o) -> auto& { return o.linger; });
    try_both("output_limit", [](auto& o) -> auto& { return o.output_limit; });
    try_both("queue_limit", [](auto& o) -> auto& { return o.queue_limit; });
    try_both("queue_bytes", [](auto& o) -> auto& { return o.queue_bytes; });
    try_both("retained_limit", [](auto& o) -> auto& { return o.retained_limit; });
    try_both("retained_bytes", [](auto& o) -> auto& { return o.retained_bytes; });
    try_both("subscription_limit", [](auto& o) -> auto& { return o.subscription_limit; });
    try_both("subscription_bytes", [](auto& o) -> auto& { return o.subscription_bytes; });
    try_both("session_limit", [](auto& o) -> auto& { return o.session_limit; });
    try_both("connection_limit", [](auto& o) -> auto& { return o.connection_limit; });
    try_both("in_flight", [](auto& o) -> auto& { return o.in_flight; });
    try_both("maximum_session_expiry", [](auto& o) -> auto& { return o.maximum_session_expiry; });
    try_both("recorded_messages", [](auto& o) -> auto& { return o.recorded_messages; });
    try_both("accepts.receive_maximum", [](auto& o) -> auto& { return o.accepts.receive_maximum; });
    try_both("accepts.maximum_packet_size", [](auto& o) -> auto& { return o.accepts.maximum_packet_size; });
    try_both("accepts.topic_alias_maximum", [](auto& o) -> auto& { return o.accepts.topic_alias_maximum; });
    try_both("server_keep_alive", [](auto& o) -> auto& { return o.server_keep_alive.emplace(); });
    try_both("maximum_keep_alive", [](auto& o) -> auto& { return o.maximum_keep_alive.emplace(); });
}

TEST_CASE("an inbox of any size, and timeouts of any length, for each call") {
    test::connected_session c(usual());
    for (auto const size : {std::size_t{0}, std::size_t{1}, std::numeric_limits<std::size_t>::max()}) {
        auto inbox = c.subscribe("a/" + std::to_string(size), {.inbox = size});
        CHECK(c.publish("a/" + std::to_string(size), "x", qos::at_most_once) == reason_code::success);
        CHECK(test::run(c.io, inbox.receive()).payload() == "x");
    }
    using ms = std::chrono::milliseconds;
    auto const publish = [&](ms timeout) {
        return test::error_of(c.io, c.session.publish("t", "x", {.qos = qos::at_least_once, .timeout = timeout}));
    };
    CHECK_FALSE(publish(ms::max()));
    CHECK(publish(ms::min()));  // its time is over, whether it has been sent or not
    c.disconnect();
}

TEST_CASE("a server that makes the session answer and does not take the answers is left before memory is full") {
    for (auto const version : test::versions) {
        asio::io_context io;
        std::size_t sent = 0;
        std::vector<std::unique_ptr<test::task<void>>> serving;
        std::vector<std::string> asked;  // CONNECT, of each connection
        auto flood = [&asked](runnel::memory_stream<> s, protocol_version v, std::size_t& n) -> asio::awaitable<void> {
            std::string room(1000, ' ');
            room.resize(co_await s.read_some(asio::buffer(room)));
            asked.push_back(room);
            auto accepting = test::write_text(
                s, v == protocol_version::v5 ? std::string("\x20\x03\0\0\0", 5) : std::string("\x20\x02\0\0", 4));
            co_await std::move(accepting);
            std::string releases;  // PUBREL, of which each is answered
            for (int i = 0; i < 10'000; ++i) releases += std::string("\x62\2\0\7", 4);
            for (;;) {
                auto releasing = test::write_text(s, releases);
                co_await std::move(releasing);
                n += releases.size();
            }
        };
        runnel::memory_transport transport([&](runnel::memory_stream<> s) {
            serving.push_back(std::make_unique<test::task<void>>(io, flood(std::move(s), version, sent)));
        });
        auto o = test::quick("client", version);
        o.reconnect.attempts = 2;
        o.reconnect.initial = 1ms;
        o.close_timeout = 1ms;
        test::memory_session session(io.get_executor(), transport, o);
        test::task running(io, session.run());
        CHECK(running.run_for_error() == runnel::mqtt::errc::answers_not_taken);
        CHECK(sent < 100'000'000);
        REQUIRE(asked.size() == 2);
        CHECK(asked[0] == asked[1]);  // the receive maximum above all
    }
}
