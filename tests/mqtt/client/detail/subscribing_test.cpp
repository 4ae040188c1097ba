#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::qos;
using mqtt::reason_code;
using test::connected_session;
using test::quick;
using test::task;

using namespace std::chrono_literals;
using test::heard_packet;
using test::hex;
using test::memory_session;
using test::packet;
using test::scripted_peer;

constexpr std::string_view two_filters[] = {"a/+", "+/b"};
constexpr auto v5 = mqtt::protocol_version::v5;
using type = mqtt::packet_type;

std::string connack(bool session_present, bool of_v5 = true) {
    return packet(0x20, std::string(1, session_present ? '\1' : '\0') + hex(of_v5 ? "00 00" : "00"));
}
std::string suback(heard_packet const& to, std::string const& reasons, bool of_v5 = true) {
    return packet(0x90, to.identifier() + (of_v5 ? hex("00") : "") + reasons);
}
std::string unsuback(heard_packet const& to, std::string const& reasons) {
    return packet(0xB0, to.identifier() + hex("00") + reasons);
}

// A server of MQTT 5 that remembers by which identifier it knows a filter, as [MQTT-3.8.4-3] has it.
struct naming_server {
    std::string grant(heard_packet const& p) {
        char const id = p.body[4];  // behind the packet identifier, the length of the properties, and 0x0B
        std::string reasons;
        for (std::size_t at = 5; at < p.body.size();) {
            auto const size = static_cast<unsigned char>(p.body[at + 1]);
            names[p.body.substr(at + 2, size)] = id;
            at += 3u + size;
            reasons += '\0';
        }
        return suback(p, reasons);
    }
    // A message, for the subscriptions to these filters.
    std::string message(std::string_view topic, std::vector<std::string> const& filters) const {
        std::string props;
        for (auto const& f : filters) (props += '\x0B') += names.at(f);
        return packet(0x30, test::field(topic) + test::properties_field(props) + "payload");
    }
    std::map<std::string, char> names;
};

}  // namespace

TEST_CASE("a subscription may have several filters, and gets a message once that several of them match") {
    for (auto const version : test::versions) {
        connected_session c(quick("client", version));
        auto both = test::run(c.io, c.session.subscribe(two_filters));
        CHECK(both.filters() == 2);
        CHECK(both.filter(1) == "+/b");
        CHECK(both.granted_qos(1) == qos::exactly_once);
        for (auto const* topic : {"a/b", "a/x", "x/b", "x/y"})
            test::run(c.io, c.session.publish(topic, topic, {.qos = qos::exactly_once}));
        for (auto const* topic : {"a/b", "a/x", "x/b"}) CHECK(test::run(c.io, both.receive()).topic() == topic);
        CHECK(both.size() == 0);
        test::run(c.io, c.session.unsubscribe(both));
        test::run(c.io, c.session.publish("a/b", "", {.qos = qos::exactly_once}));
        CHECK(c.session.counters().messages_received == 3);
        c.disconnect();
    }
}

TEST_CASE("a handler may have several filters") {
    connected_session c;
    std::vector<std::string> topics;
    auto const handler = [&](mqtt::publish const& m) { topics.emplace_back(m.topic); };
    test::run(c.io, c.session.subscribe(two_filters, handler));
    for (auto const* topic : {"a/b", "x/b"}) test::run(c.io, c.session.publish(topic, "", {.qos = qos::exactly_once}));
    CHECK(topics == std::vector<std::string>{"a/b", "x/b"});
    c.disconnect();
}

TEST_CASE("if one of several filters is refused there is no subscription") {
    for (auto const version : test::versions) {
        connected_session c(quick("client", version));
        c.broker.hooks().authorize_subscribe = [](auto const&, auto const&, auto const& r) {
            return r.filter == "+/b" ? reason_code::unspecified_error : static_cast<reason_code>(r.maximum_qos);
        };
        task<mqtt::basic_subscription<test::executor>> subscribing(c.io, c.session.subscribe(two_filters));
        CHECK(subscribing.run_for_error() == reason_code::unspecified_error);
        CHECK(subscribing.error_text().starts_with("+/b: "));
        c.broker.hooks().authorize_subscribe = {};
        test::run(c.io, c.session.publish("a/x", "", {.qos = qos::exactly_once}));
        CHECK(c.session.counters().messages_received == 0);
        c.disconnect();
    }
}

TEST_CASE("no filter at all and a filter that is not valid are refused without asking the server") {
    connected_session c;
    std::vector<std::string_view> filters;
    CHECK(test::error_of(c.io, c.session.subscribe(filters)) == errc::empty_list);
    filters = {"a", "b#"};
    CHECK(test::error_of(c.io, c.session.subscribe(filters)) == errc::invalid_topic_filter);
    c.disconnect();
}

TEST_CASE("all filters are subscribed again when the server has lost the session") {
    auto options = quick();
    options.clean_start = true;
    connected_session c(options);
    auto both = test::run(c.io, c.session.subscribe(two_filters));
    c.broker.drop_client("client");
    CHECK(test::wait_until(c.io, [&] { return c.session.counters().connections == 2; }));
    c.settle();
    CHECK(both.granted_qos(1) == qos::exactly_once);
    test::run(c.io, c.session.publish("x/b", "", {.qos = qos::exactly_once}));
    CHECK(test::run(c.io, both.receive()).topic() == "x/b");
    c.disconnect();
}

TEST_CASE(
    "all filters are subscribed again when the server has lost the session, and disconnect was called meanwhile") {
    for (auto const version : test::versions) {
        bool const of_v5 = version == v5;
        bool is_silent = false, has_session = false;
        std::size_t subscribed = 0;
        std::optional<heard_packet> held;
        scripted_peer p([&](heard_packet const& h) -> std::optional<std::string> {
            if (h.type == type::connect && !is_silent) return connack(std::exchange(has_session, true), of_v5);
            if (h.type == type::disconnect && is_silent) return connack(std::exchange(has_session, true), of_v5);
            if (h.type == type::disconnect) return std::nullopt;
            if (h.type == type::subscribe) return ++subscribed, suback(h, std::string(1, '\0'), of_v5);
            return "";
        });
        memory_session s(p.io.get_executor(), p.transport, quick("client", version));
        {
            task<void> running(p.io, s.run());
            test::run(p.io, s.subscribe("a", [](mqtt::publish const&) {}));
            test::run(p.io, s.disconnect());
            running.run();
        }
        CHECK(subscribed == 1);
        is_silent = true;
        has_session = false;
        {
            task<void> running(p.io, s.run());
            CHECK(test::wait_until(p.io, [&] { return p.count(type::connect) == 2; }));
            task<void> disconnecting(p.io, s.disconnect());
            CHECK(test::wait_until(p.io, [&] { return p.count(type::disconnect) == 2; }));
            p.serving.clear();
            running.run_for_error();
            disconnecting.run_for_error();
        }
        is_silent = false;
        task<void> running(p.io, s.run());
        CHECK(test::wait_until(p.io, [&] { return subscribed == 2; }));
    }
}

TEST_CASE("a filter that another subscription has too stays subscribed") {
    for (auto const version : test::versions) {
        connected_session c(quick("client", version));
        auto both = test::run(c.io, c.session.subscribe(two_filters));
        auto one = c.subscribe("+/b");
        test::run(c.io, c.session.publish("x/b", "", {.qos = qos::exactly_once}));
        CHECK(test::run(c.io, both.receive()).topic() == "x/b");
        CHECK(test::run(c.io, one.receive()).topic() == "x/b");
        test::run(c.io, c.session.unsubscribe(both));
        for (auto const* topic : {"a/x", "x/b"})
            test::run(c.io, c.session.publish(topic, "", {.qos = qos::exactly_once}));
        CHECK(test::run(c.io, one.receive()).topic() == "x/b");
        CHECK(c.session.counters().messages_received == 2);
        c.disconnect();
    }
}

TEST_CASE("messages find their subscriptions, be there few or many") {
    connected_session c;
    std::vector<std::string> const filters{"a/#", "+/b", "a/b", "#", "a/+", "b/+", "+/+", "a/b/c", "x"};
    auto const expected = [&](std::size_t from, std::size_t to, std::string_view topic) {
        std::vector<std::string> matching;
        for (std::size_t i = from; i < to; ++i)
            if (mqtt::matches(filters[i], topic)) matching.push_back(filters[i]);
        return matching;
    };
    std::vector<std::string> got;
    std::vector<mqtt::basic_subscription<test::executor>> all;
    auto const check_all = [&](std::size_t from, std::size_t to) {
        for (auto const* topic : {"a", "a/b", "x/b", "b/b", "a/b/c", "x", "y/z/b"}) {
            got.clear();
            test::run(c.io, c.session.publish(topic, "", {.qos = qos::exactly_once}));
            std::ranges::sort(got);
            auto wanted = expected(from, to, topic);
            std::ranges::sort(wanted);
            CHECK_MESSAGE(got == wanted, from << " to " << to << ": " << topic);
        }
    };
    for (auto const& filter : filters) {
        auto const handler = [&got, &filter](mqtt::publish const&) { got.push_back(filter); };
        all.push_back(test::run(c.io, c.session.subscribe(filter, handler)));
        check_all(0, all.size());
    }
    for (std::size_t i = 0; i < filters.size(); ++i) {
        test::run(c.io, c.session.unsubscribe(all[i]));
        check_all(i + 1, filters.size());
    }
    c.disconnect();
}

TEST_CASE("overlapping subscriptions get each message once, although the server of MQTT 5 names them") {
    connected_session c(quick("client", mqtt::protocol_version::v5));
    auto all = c.subscribe("#");
    auto some = c.subscribe("a/#");
    for (int i = 0; i < 3; ++i) test::run(c.io, c.session.publish("a/b", "", {.qos = qos::exactly_once}));
    CHECK(all.size() == 3);
    CHECK(some.size() == 3);
    c.disconnect();
}

TEST_CASE("each subscription keeps its own identifier when the server has lost the session [MQTT-3.8.4-3]") {
    naming_server server;
    std::size_t granted = 0;
    scripted_peer p([&](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect) return connack(false);
        if (h.type != type::subscribe) return "";
        auto answer = server.grant(h);
        // The third is the last one: now comes a message for two of them, which is to reach each once.
        return ++granted % 3 == 0 ? answer + server.message("z", {"z", "#"}) + server.message("x", {"x"}) : answer;
    });
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    task<void> running(p.io, s.run());
    std::string_view const xz[] = {"x", "z"};
    auto a = test::run(p.io, s.subscribe(xz));
    auto b = test::run(p.io, s.subscribe("x"));
    auto c = test::run(p.io, s.subscribe("#"));
    for (std::size_t connection = 1; connection <= 3; ++connection) {
        CAPTURE(connection);
        CHECK(test::wait_until(p.io, [&] { return s.counters().messages_received == connection * 2; }));
        CHECK(a.size() == 2 * connection);
        CHECK(b.size() == connection);
        CHECK(c.size() == connection);
        p.answer = [&, answer = p.answer](heard_packet const& h) {
            return h.type == type::publish ? std::nullopt : answer(h);
        };
        CHECK(s.try_publish("end", ""));
    }
}

TEST_CASE("a subscription that is given up before it was sent silences no other") {
    naming_server server;
    bool up = true;
    scripted_peer p([&](heard_packet const& h) -> std::optional<std::string> {
        if (!up) return std::nullopt;
        if (h.type == type::connect)
            return connack(h.connection != 0) + (h.connection == 0 ? "" : server.message("x", {"x"}));
        return h.type == type::subscribe ? std::optional(server.grant(h)) : std::nullopt;
    });
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    task<void> running(p.io, s.run());
    auto a = test::run(p.io, s.subscribe("x"));
    auto all = test::run(p.io, s.subscribe("#"));
    up = false;
    CHECK(s.try_publish("end", ""));
    CHECK(test::wait_until(p.io, [&] { return !s.is_connected(); }));
    task<memory_session::subscription> again(p.io, s.subscribe("x"));
    p.io.restart();
    p.io.poll();
    again.cancel();
    CHECK(again.run_for_error() == asio::error::operation_aborted);
    up = true;
    CHECK(test::wait_until(p.io, [&] { return s.counters().messages_received == 1; }));
    CHECK(a.size() == 1);
    CHECK(all.size() == 0);
    CHECK(p.count(type::unsubscribe) == 0);
}

TEST_CASE("unsubscribing between two runs completes at once, and the server is told when they go on") {
    for (auto const version : test::versions) {
        connected_session c(quick("client", version));
        auto a = c.subscribe("a");
        c.disconnect();
        test::run(c.io, c.session.unsubscribe(a));
        task<void> again(c.io, c.session.run());
        test::run(c.io, c.session.connected());
        test::run(c.io, c.session.publish("a", "", {.qos = qos::exactly_once}));
        CHECK(c.session.counters().messages_received == 0);
        test::run(c.io, c.session.disconnect());
        CHECK_FALSE(again.run_for_error());
    }
}

TEST_CASE("a session does not unsubscribe what is another's, or that of one that has gone, or nothing at all") {
    connected_session c;
    auto other = std::make_unique<memory_session>(c.io.get_executor(), c.transport, quick("other"));
    task<void> running(c.io, other->run());
    auto const a = test::run(c.io, other->subscribe("a"));
    auto const own = c.subscribe("a");
    auto const refused = [&](memory_session::subscription const& s) {
        return test::error_of(c.io, c.session.unsubscribe(s)) == errc::disconnected;
    };
    CHECK(refused(a));
    CHECK_FALSE(a.closed());
    other.reset();
    CHECK(refused(a));
    CHECK(refused({}));
    CHECK(c.publish("a", "payload", qos::at_least_once) == reason_code::success);
    CHECK(own.size() == 1);
    CHECK_FALSE(refused(own));
    CHECK_FALSE(refused(own));  // a second time there is nothing to do
    CHECK(running.run_for_error() == errc::disconnected);
    c.disconnect();
}

TEST_CASE("unsubscribing that run's end has cut off is made up for by the next") {
    bool answers = false;
    scripted_peer p([&](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect) return connack(h.connection != 0);
        if (h.type == type::subscribe) return suback(h, hex("00"));
        return h.type == type::unsubscribe && answers ? unsuback(h, hex("00")) : "";
    });
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    task<void> running(p.io, s.run());
    auto a = test::run(p.io, s.subscribe("a"));
    task<void> unsubscribing(p.io, s.unsubscribe(a));
    CHECK(test::wait_until(p.io, [&] { return p.count(type::unsubscribe) == 1; }));
    running.cancel();
    CHECK(unsubscribing.run_for_error() == errc::disconnected);
    CHECK(running.run_for_error() == asio::error::operation_aborted);
    answers = true;
    task<void> again(p.io, s.run());
    CHECK(test::wait_until(p.io, [&] { return p.count(type::unsubscribe) == 2; }));
    p.io.restart();
    p.io.poll();
    CHECK(p.count(type::unsubscribe) == 2);
}

TEST_CASE("a SUBSCRIBE whose answer was lost, and nobody waits for, is undone if the server has kept the session") {
    for (bool const present : {true, false}) {
        bool up = true;
        scripted_peer p([&](heard_packet const& h) -> std::optional<std::string> {
            if (!up || h.type == type::subscribe) return up = false, std::nullopt;
            if (h.type == type::connect) return connack(h.connection != 0 && present);
            return h.type == type::unsubscribe ? unsuback(h, hex("00")) : "";
        });
        memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
        task<void> running(p.io, s.run());
        task<memory_session::subscription> subscribing(p.io, s.subscribe("a"));
        CHECK(test::wait_until(p.io, [&] { return p.count(type::subscribe) == 1 && !s.is_connected(); }));
        subscribing.cancel();
        CHECK(subscribing.run_for_error() == asio::error::operation_aborted);
        up = true;
        CHECK(test::wait_until(p.io, [&] { return s.is_connected(); }));
        test::wait_until(p.io, [&] { return p.count(type::unsubscribe) != 0; }, 20ms);
        CHECK(p.count(type::unsubscribe) == present);
        CHECK(p.count(type::subscribe) == 1);
    }
}

TEST_CASE("what the server says against unsubscribing is thrown, and it can be tried again") {
    std::string reason = hex("87");
    scripted_peer p([&](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect) return connack(false);
        if (h.type == type::subscribe) return suback(h, hex("01"));
        return h.type == type::unsubscribe ? unsuback(h, reason) : "";
    });
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    task<void> running(p.io, s.run());
    auto a = test::run(p.io, s.subscribe("x"));
    task<void> refused(p.io, s.unsubscribe(a));
    CHECK(refused.run_for_error() == reason_code::not_authorized);
    CHECK(refused.error_text().starts_with("x: "));
    CHECK(a.closed() == errc::disconnected);
    reason = hex("11");  // no subscription existed: all is well
    test::run(p.io, s.unsubscribe(a));
    test::run(p.io, s.unsubscribe(a));
    CHECK(p.count(type::unsubscribe) == 2);
}

TEST_CASE("a subscription that the server does not renew is told of by an event") {
    for (auto const version : test::versions) {
        auto options = quick("client", version);
        options.clean_start = true;
        std::vector<mqtt::session_event> lost;
        options.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::subscription_lost) lost.push_back(e);
        };
        connected_session c(options);
        std::size_t messages = 0;
        auto const handler = [&](mqtt::publish const&) { ++messages; };
        auto handled = test::run(c.io, c.session.subscribe(two_filters, handler));
        auto other = c.subscribe("other");
        auto const refusal = version == v5 ? reason_code::quota_exceeded : reason_code::unspecified_error;
        c.broker.hooks().authorize_subscribe = [&](auto const&, auto const&, auto const& r) {
            return r.filter == "+/b" ? refusal : static_cast<reason_code>(r.maximum_qos);
        };
        CHECK(test::error_of(c.io, c.session.subscribe("+/b")) == refusal);
        CHECK(lost.empty());  // whoever subscribes is told by an exception
        c.broker.drop_client("client");
        CHECK(test::wait_until(c.io, [&] { return !lost.empty(); }));
        CHECK(lost.size() == 1);
        CHECK(lost.at(0).filter == "+/b");
        CHECK(lost.at(0).error == refusal);
        CHECK(to_string(lost.at(0)).starts_with("no longer subscribed to +/b: "));
        CHECK(handled.closed() == refusal);
        test::run(c.io, c.session.publish("a/x", "", {.qos = qos::exactly_once}));
        CHECK(messages == 0);
        CHECK_FALSE(other.closed());
        c.disconnect();
    }
}
