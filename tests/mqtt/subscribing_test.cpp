#include <runnel/mqtt/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::qos;
using mqtt::reason_code;
using test::connected_session;
using test::quick;
using test::task;

constexpr std::string_view two_filters[] = {"a/+", "+/b"};

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
        CHECK(test::error_of(c.io, c.session.subscribe(two_filters)) == reason_code::unspecified_error);
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
