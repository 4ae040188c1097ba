#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
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

TEST_CASE("what only MQTT 5 has is refused in a session of MQTT 3.1.1, with its name") {
    connected_session c;
    auto const refusal = [&](auto operation) {
        task failing(c.io, std::move(operation));
        CHECK(failing.run_for_error() == errc::not_in_this_version);
        return failing.error_text().substr(0, failing.error_text().find(':'));
    };
    mqtt::user_property const pair{"a", "b"};
    CHECK(refusal(c.session.subscribe("t", {.no_local = true})) == "no_local");
    CHECK(refusal(c.session.subscribe("t", {.retain_as_published = true})) == "retain_as_published");
    CHECK(refusal(c.session.subscribe("t", {.handling = mqtt::retain_handling::do_not_send})) == "handling");
    CHECK(refusal(c.session.subscribe("t", {.user_properties = pair})) == "user_properties");
    auto const inbox = test::run(c.io, c.session.subscribe("t"));
    CHECK(refusal(c.session.unsubscribe(inbox, pair)) == "user_properties");
    test::run(c.io, c.session.unsubscribe(inbox));
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

TEST_CASE("subscriptions that are given up again and again without a connection leave nothing behind") {
    test::memory_fixture p;
    p.on_open = [](auto&) { throw std::system_error(asio::error::connection_refused); };
    memory_session s(p.io.get_executor(), p.transport, quick());
    task<void> running(p.io, s.run());
    auto const kept = std::make_shared<int>();
    for (int i = 0; i < 20; ++i) {
        task<memory_session::subscription> asking(p.io, s.subscribe("a", [kept](mqtt::publish const&) {}));
        p.settle();
        asking.cancel();
        CHECK(asking.run_for_error() == asio::error::operation_aborted);
    }
    auto const attempts = p.opened;
    CHECK(test::wait_until(p.io, [&] { return p.opened > attempts + 1; }));
    CHECK(kept.use_count() == 1);
    running.cancel();
    CHECK(running.run_for_error() == asio::error::operation_aborted);
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

namespace {

std::string message(char identifier, std::string_view topic, std::string_view payload = "") {
    return packet(0x32, test::field(topic) + '\0' + identifier + hex("00") + std::string(payload));
}
std::string payloads(memory_session::subscription& s) {
    std::string all;
    while (auto const m = s.try_receive()) all += m->payload();
    return all;
}

// A session with a server that grants what it is asked for, unless the test says otherwise, and says what the test has
// it say when it hears a message.
struct granted_session {
    explicit granted_session(std::function<std::optional<std::string>(heard_packet const&)> otherwise = {},
                             mqtt::session_options options = quick("client", v5))
        : instead(std::move(otherwise)) {
        options.on_event = [this](mqtt::session_event const& e) { events.push_back(e.what); };
        session.emplace(peer.io.get_executor(), peer.transport, options);
        running.emplace(peer.io, session->run());
        test::run(peer.io, session->connected());
    }
    std::optional<std::string> answer(heard_packet const& h) {
        if (instead)
            if (auto said = instead(h); !said || !said->empty()) return said;
        if (h.type == type::connect) return connack(h.connection != 0);
        if (h.type == type::subscribe) return suback(h, std::string(filters_of(h), '\1'));
        if (h.type == type::unsubscribe) return unsuback(h, std::string(filters_of(h), '\0'));
        return h.type == type::publish ? std::exchange(next, "") : "";
    }
    // The server says this.
    void say(std::string bytes) {
        next = std::move(bytes);
        CHECK(session->try_publish("go", ""));
        test::settle(peer.io);
    }
    static std::size_t filters_of(heard_packet const& h) {
        std::size_t n = 0, at = 3u + static_cast<unsigned char>(h.body[2]);
        for (; at < h.body.size(); ++n) {
            at += 2u + static_cast<unsigned char>(h.body[at]) * 256u + static_cast<unsigned char>(h.body[at + 1]);
            at += h.type == type::subscribe;
        }
        return n;
    }
    std::size_t told(mqtt::session_event::kind what) const {
        return static_cast<std::size_t>(std::ranges::count(events, what));
    }

    std::function<std::optional<std::string>(heard_packet const&)> instead;
    std::string next;
    std::vector<mqtt::session_event::kind> events;
    scripted_peer peer{[this](heard_packet const& h) { return answer(h); }};
    std::optional<memory_session> session;
    std::optional<task<void>> running;
};
using kind = mqtt::session_event::kind;

}  // namespace

TEST_CASE("what has been kept comes before newer messages, also if these come at once") {
    granted_session g;
    std::string seen;
    std::optional<task<memory_session::subscription>> late;
    auto const handler = [&](mqtt::publish const& m) { seen += m.payload; };
    auto const subscribe_too = [&](mqtt::publish const&) {
        late.emplace(g.peer.io, g.session->subscribe("t", handler));
    };
    test::run(g.peer.io, g.session->subscribe("go on", subscribe_too));
    g.say(message(1, "t", "1") + message(2, "go on") + message(3, "t", "2"));
    g.say(message(4, "t", "3"));
    CHECK(seen == "123");
}

TEST_CASE("what is kept while kept messages are offered comes behind them, and each once") {
    granted_session g;
    auto inbox = test::run(g.peer.io, g.session->subscribe("c"));
    g.say(message(1, "c", "3") + message(2, "a", "1") + message(3, "b", "2"));
    CHECK(inbox.size() == 1);
    std::string seen;
    auto const handler = [&](mqtt::publish const& m) {
        seen += m.payload;
        inbox = {};
    };
    test::run(g.peer.io, g.session->subscribe("#", handler));
    test::settle(g.peer.io);
    CHECK(seen == "123");
}

TEST_CASE("what is kept when a handler fails is offered to it again in the next run") {
    granted_session g;
    auto inbox = test::run(g.peer.io, g.session->subscribe("t"));
    g.say(message(1, "t", "1") + message(2, "t", "2"));
    std::string seen;
    bool fails = true;
    auto const handler = [&](mqtt::publish const& m) {
        seen += m.payload;
        if (fails) throw std::runtime_error("no database");
    };
    test::run(g.peer.io, g.session->subscribe("t", handler));
    inbox = {};
    test::settle(g.peer.io);
    CHECK_THROWS_WITH_AS(g.running->run(), "no database", std::runtime_error);
    CHECK(seen == "1");
    fails = false;
    g.running.emplace(g.peer.io, g.session->run());
    test::run(g.peer.io, g.session->connected());
    test::settle(g.peer.io);
    CHECK(seen == "12");
}

TEST_CASE("user properties of a subscription are as they were when it was made, whatever the caller makes of his") {
    scripted_peer p([](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect) return connack(false);
        if (h.type == type::publish) return std::nullopt;
        return h.type == type::subscribe ? suback(h, hex("00")) : "";
    });
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    std::string value = "ours";
    mqtt::user_property pair{"k", value};
    task<memory_session::subscription> subscribing(p.io, s.subscribe("t", {.user_properties = pair}));
    value.assign("else");
    pair.name = "x";
    task<void> running(p.io, s.run());
    auto const held = subscribing.run();
    CHECK(s.try_publish("end", ""));  // behind which the server has lost the session
    CHECK(test::wait_until(p.io, [&] { return p.count(type::subscribe) == 2; }));
    for (auto const& h : p.heard)
        if (h.type == type::subscribe) CHECK(h.body.find(hex("26 0001 'k' 0004 'ours'")) != std::string::npos);
}

TEST_CASE("while a renewed subscription is not answered the server has granted nothing") {
    granted_session g([](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect) return connack(false);
        if (h.type == type::publish) return std::nullopt;
        return h.type == type::subscribe && h.connection != 0 ? hex("D0 00") : "";
    });
    auto const s = test::run(g.peer.io, g.session->subscribe("t"));
    CHECK(s.granted_qos() == qos::at_least_once);
    CHECK(g.session->try_publish("end", ""));
    CHECK(test::wait_until(g.peer.io, [&] { return g.peer.count(type::subscribe) == 2; }));
    CHECK(s.granted_qos() == qos::at_most_once);
}

TEST_CASE("what the server has announced that it does not do is neither asked for nor waited for") {
    // Neither wildcards nor subscription identifiers.
    granted_session g([](heard_packet const& h) -> std::optional<std::string> {
        return h.type == type::connect ? hex("20 07 00 00 04 28 00 29 00") : "";
    });
    task<memory_session::subscription> refused(g.peer.io, g.session->subscribe("t/#"));
    test::settle(g.peer.io);
    REQUIRE(refused.done());
    CHECK(refused.error());
    CHECK(refused.error() != errc::disconnected);
    CHECK(g.peer.count(type::subscribe) == 0);
    test::run(g.peer.io, g.session->subscribe("t"));
    CHECK(g.peer.heard.back().body ==
          g.peer.heard.back().identifier() + hex("00 00 01 't'") + g.peer.heard.back().body.back());
}

TEST_CASE("an UNSUBSCRIBE that is larger than the server takes is told to be") {
    std::string const filter(100, 'x');
    granted_session g([](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect && h.connection != 0) return hex("20 08 01 00 05 27 00 00 00 40");
        return h.type == type::publish ? std::nullopt : std::optional<std::string>("");
    });
    auto const s = test::run(g.peer.io, g.session->subscribe(filter));
    CHECK(g.session->try_publish("end", ""));
    CHECK(test::wait_until(g.peer.io, [&] { return g.session->counters().connections == 2; }));
    task<void> unsubscribing(g.peer.io, g.session->unsubscribe(s));
    test::settle(g.peer.io);
    REQUIRE(unsubscribing.done());
    CHECK(unsubscribing.error() == errc::packet_too_large);
}

TEST_CASE(
    "messages are unwanted as long as the application has unsubscribed from them in this session, and no longer") {
    bool keeps_session = true;
    granted_session g([&](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect) return connack(h.connection != 0 && keeps_session);
        return h.type == type::disconnect ? std::nullopt : std::optional<std::string>("");
    });
    auto s = test::run(g.peer.io, g.session->subscribe("t"));
    test::run(g.peer.io, g.session->unsubscribe(s));
    g.say(message(1, "t"));
    CHECK(g.told(kind::unrouted) == 0);
    SUBCASE("until it subscribes again") {
        s = test::run(g.peer.io, g.session->subscribe("t"));
        s = {};
    }
    SUBCASE("until the session is lost") {
        keeps_session = false;
        test::run(g.peer.io, g.session->disconnect());
        g.running->run();
        g.running.emplace(g.peer.io, g.session->run());
        test::run(g.peer.io, g.session->connected());
    }
    SUBCASE("until it has unsubscribed from 64 others") {
        std::vector<std::string> names;
        for (int i = 0; i < 64; ++i) names.push_back("other/" + std::to_string(i));
        std::vector<std::string_view> const filters(names.begin(), names.end());
        test::run(g.peer.io, g.session->unsubscribe(test::run(g.peer.io, g.session->subscribe(filters))));
    }
    g.say(message(2, "t"));
    CHECK(g.told(kind::unrouted) == 1);
}

TEST_CASE("what has come for a subscribe that is cancelled is kept, and the server told at once") {
    granted_session g;
    bool silent = true;
    g.instead = [&](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::subscribe && std::exchange(silent, false)) return message(1, "t", "1");
        return h.type == type::unsubscribe ? hex("D0 00") : "";
    };
    task<memory_session::subscription> subscribing(g.peer.io, g.session->subscribe("t"));
    test::settle(g.peer.io);
    CHECK(g.session->counters().messages_received == 1);
    CHECK(g.told(kind::unrouted) == 0);
    subscribing.cancel();
    g.peer.io.restart();
    while (!subscribing.done()) g.peer.io.poll_one();
    CHECK(g.told(kind::unrouted) == 1);
    test::settle(g.peer.io);
    CHECK(g.peer.count(type::unsubscribe) == 1);
    auto again = test::run(g.peer.io, g.session->subscribe("t"));
    test::settle(g.peer.io);
    CHECK(payloads(again) == "1");
}

TEST_CASE("a SUBSCRIBE for which no packet identifier is left is sent as soon as there is one") {
    auto options = quick("client", v5);
    options.maximum_in_flight = 65'535;
    std::string first;
    granted_session g(
        [&](heard_packet const& h) -> std::optional<std::string> {
            if (h.type != type::publish) return "";
            if (h.body.find("go") == 2) return packet(0x40, first);
            if (first.empty()) first = h.body.substr(3, 2);
            return "";
        },
        options);
    for (int i = 0; i < 65'535; ++i) g.session->try_publish("t", "", {.qos = qos::at_least_once});
    test::settle(g.peer.io);
    REQUIRE(g.session->counters().in_flight == 65'535);
    task<memory_session::subscription> subscribing(g.peer.io, g.session->subscribe("t"));
    test::settle(g.peer.io);
    CHECK_FALSE(subscribing.done());
    CHECK(g.peer.count(type::subscribe) == 0);
    g.say("");
    CHECK(g.peer.count(type::subscribe) == 1);
    CHECK(subscribing.done());
}

TEST_CASE("to be given back what was taken meanwhile begins patience anew, and what comes meanwhile is waited for") {
    auto options = quick("client", v5);
    options.session_expiry = 1h;
    options.stalled_after = 20ms;
    std::vector<std::chrono::milliseconds> pauses;
    std::vector<std::chrono::steady_clock::time_point> asked;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what != kind::asking_again) return;
        pauses.push_back(e.pause);
        asked.push_back(std::chrono::steady_clock::now());
    };
    std::string next;
    scripted_peer p([&](heard_packet const& h) -> std::optional<std::string> {
        if (h.type == type::connect)
            return connack(h.connection != 0) + (h.connection == 0 ? "" : message(1, "t") + message(2, "t"));
        if (h.type == type::subscribe) return suback(h, hex("01")) + message(1, "t") + message(2, "t");
        if (h.type == type::disconnect) return std::nullopt;
        return h.type == type::publish ? std::exchange(next, "") : "";
    });
    memory_session session(p.io.get_executor(), p.transport, options);
    task<void> running(p.io, session.run());
    auto inbox = test::run(p.io, session.subscribe("t"));
    test::settle(p.io);
    auto const give_back = [&] {
        while (auto m = inbox.try_receive()) m->abandon();
    };
    auto const next_time = [&](std::size_t n) {
        CHECK(test::wait_until(p.io, [&] { return pauses.size() == n; }));
        CHECK(test::wait_until(p.io, [&] { return inbox.size() == 2; }));
    };
    give_back();
    next_time(1);
    give_back();
    next_time(2);
    CHECK(pauses == std::vector{20ms, 40ms});
    SUBCASE("patience") {
        auto held = inbox.try_receive();
        give_back();
        test::run(p.io, runnel::sleep_for<test::executor>(p.io.get_executor(), 120ms));  // longer than 80 ms
        CHECK(pauses.size() == 2);
        held->abandon();
        next_time(3);
        CHECK(pauses.at(2) == 20ms);
    }
    SUBCASE("what comes meanwhile") {
        auto const begun = std::chrono::steady_clock::now();
        give_back();
        next = message(3, "t");
        CHECK(session.try_publish("go", ""));
        test::settle(p.io);
        CHECK(inbox.size() == 1);
        give_back();
        CHECK(test::wait_until(p.io, [&] { return pauses.size() == 3; }));
        CHECK(asked.at(2) - begun >= 160ms);
    }
    running.cancel();
    running.run_for_error();
}
