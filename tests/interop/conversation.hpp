#pragma once

#include <runnel/coro/race.hpp>
#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "interop/transports.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <chrono>
#include <string>
#include <utility>

// What the tests against all real brokers say over a session.

namespace test {

/// A session that begins anew with each connection and reconnects without delay. Any user and password: ejabberd wants
/// some.
inline runnel::mqtt::session_options options_for(
    std::string client_id, runnel::mqtt::protocol_version version = runnel::mqtt::protocol_version::v3_1_1) {
    runnel::mqtt::session_options o;
    o.credentials = {.client_id = std::move(client_id), .user_name = "user", .password = "password"};
    o.version = version;
    o.clean_start = true;
    o.reconnect.initial = std::chrono::milliseconds(1);
    o.reconnect.maximum = std::chrono::milliseconds(50);
    return o;
}

/// Runs a scenario with a session beside it, which then disconnects.
template <class T>
void converse(asio::io_context& io, runnel::mqtt::session<T>& s, asio::awaitable<void> scenario) {
    task<void> running(io, s.run());
    run(io, std::move(scenario));
    run(io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

inline asio::awaitable<void> pause(std::chrono::milliseconds duration) {
    co_await runnel::sleep_for<executor>(co_await asio::this_coro::executor, duration);
}

/// Messages of every QoS there and back.
template <class T>
asio::awaitable<void> exchange(runnel::mqtt::session<T>& s) {
    using runnel::mqtt::qos;
    auto inbox = co_await s.subscribe("runnel/echo");
    CHECK(inbox.granted_qos() == qos::exactly_once);
    for (qos const quality : {qos::at_most_once, qos::at_least_once, qos::exactly_once}) {
        std::string const payload = "quality " + std::to_string(static_cast<int>(quality));
        co_await s.publish("runnel/echo", payload, {.qos = quality});
        auto const m = co_await inbox.receive();
        CHECK(m.topic() == "runnel/echo");
        CHECK(m.payload() == payload);
        CHECK(m.qos() == quality);
        CHECK_FALSE(m.retain());
    }
}

/// MQTT 5: a message with all properties that applications may use, there and back.
template <class T>
asio::awaitable<void> exchange_properties(runnel::mqtt::session<T>& s) {
    using runnel::mqtt::user_property;
    auto inbox = co_await s.subscribe("runnel/properties");
    // Order is kept, names repeat, and so do pairs; both may be empty.
    user_property const pairs[] = {{"b", "1"}, {"a", "2"}, {"b", "3"},
                                   {"a", "2"}, {"", ""},   {"\xC3\xBC", "\xE2\x82\xAC"}};
    std::string_view const correlation("\0\xFF\x80 any bytes", 13);
    runnel::mqtt::properties sent;
    sent.payload_format_indicator = 1;
    sent.content_type = "text/plain; charset=utf-8";
    sent.response_topic = "runnel/answers";
    sent.correlation_data = correlation;
    sent.user_properties = pairs;
    co_await s.publish("runnel/properties", "gr\xC3\xBC\xC3\x9F",
                       {.qos = runnel::mqtt::qos::at_least_once, .props = &sent});
    {  // ejabberd sends the next message when this one has been let go of
        auto const m = co_await inbox.receive();
        CHECK(m.payload() == "gr\xC3\xBC\xC3\x9F");
        auto const got = m.props().parse();
        CHECK(got.payload_format_indicator == 1);
        CHECK(got.content_type == "text/plain; charset=utf-8");
        CHECK(got.response_topic == "runnel/answers");
        CHECK(got.correlation_data == correlation);
        CHECK(got.user_properties == sent.user_properties);
        CHECK_FALSE(got.message_expiry_interval);
    }

    runnel::mqtt::properties expiring;
    expiring.message_expiry_interval = 100;
    co_await s.publish("runnel/properties", "", {.qos = runnel::mqtt::qos::at_least_once, .props = &expiring});
    auto const n = co_await inbox.receive();
    CHECK(n.props().template get<runnel::mqtt::property_id::message_expiry_interval>().value_or(0) <= 100);
    CHECK(n.props().template get<runnel::mqtt::property_id::message_expiry_interval>().value_or(0) >= 98);
}

/// MQTT 5: a request whose answer comes to the response topic with the request's correlation data.
template <class T>
asio::awaitable<void> ask_and_answer(runnel::mqtt::session<T>& s) {
    auto requests = co_await s.subscribe("runnel/questions");
    auto answers = co_await s.subscribe("runnel/answers/me");
    runnel::mqtt::properties question;
    question.response_topic = "runnel/answers/me";
    question.correlation_data = std::string_view("\0\1", 2);
    co_await s.publish("runnel/questions", "6 * 7", {.qos = runnel::mqtt::qos::exactly_once, .props = &question});
    {
        auto const asked = co_await requests.receive();
        auto const there = asked.props().parse();
        CHECK(there.response_topic == "runnel/answers/me");
        runnel::mqtt::properties answer;
        answer.correlation_data = there.correlation_data;
        co_await s.publish(there.response_topic.value_or("?"), "42",
                           {.qos = runnel::mqtt::qos::exactly_once, .props = &answer});
    }
    auto const m = co_await answers.receive();
    CHECK(m.payload() == "42");
    CHECK(m.props().template get<runnel::mqtt::property_id::correlation_data>() == std::string_view("\0\1", 2));
}

}  // namespace test
