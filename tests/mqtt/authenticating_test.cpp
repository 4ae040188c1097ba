#include <runnel/mqtt/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::reason_code;
using test::memory_place;
using test::memory_session;
using test::quick;
using test::task;

constexpr auto v5 = mqtt::protocol_version::v5;

// Answers a number with the next one, and wants "welcome" in the end.
struct counter {
    std::string method() const { return "counting"; }
    asio::awaitable<std::string> begin() {
        ++*beginnings;
        co_return "begin";
    }
    asio::awaitable<std::string> answer(std::string data) { co_return std::to_string(std::stoi(data) + 1); }
    asio::awaitable<void> finish(std::string data) {
        if (data != "welcome") throw std::runtime_error("not the right server: " + data);
        co_return;
    }

    int* beginnings;
};

// A broker that wants to hear 2 and 11, in answer to 1 and 10.
struct counting_place : memory_place {
    counting_place() {
        broker.hooks().authenticate = [this](runnel::testing::authentication_attempt& a) {
            heard.emplace_back(a.data.value_or(""));
            if (a.method != "counting") return reason_code::bad_authentication_method;
            if (a.data == "begin") return a.reply = "1", reason_code::continue_authentication;
            if (a.data == "2") return a.reply = "10", reason_code::continue_authentication;
            if (a.data != "11") return reason_code::not_authorized;
            return a.reply = farewell, reason_code::success;
        };
    }

    auto session() {
        auto s = std::make_unique<memory_session>(io.get_executor(), transport, quick("client", v5));
        s->set_authenticator(counter{&beginnings});
        return s;
    }

    std::string farewell = "welcome";
    std::vector<std::string> heard;
    int beginnings = 0;
};

}  // namespace

TEST_CASE("a session authenticates by steps before each connection, and again on the same one") {
    counting_place p;
    auto const s = p.session();
    task<void> running(p.io, s->run());
    test::run(p.io, s->connected());
    CHECK(p.heard == std::vector<std::string>{"begin", "2", "11"});
    test::run(p.io, s->reauthenticate());
    CHECK(p.heard.size() == 6);
    CHECK(s->counters().connections == 1);
    p.broker.drop_client("client");
    CHECK(test::wait_until(p.io, [&] { return s->counters().connections == 2; }));
    CHECK(p.beginnings == 3);
    test::run(p.io, s->publish("t", "m", {.qos = mqtt::qos::exactly_once}));
    test::run(p.io, s->disconnect());
    CHECK_FALSE(running.run_for_error());
    CHECK(p.broker.counters().protocol_errors == 0);
}

TEST_CASE("messages flow while a session authenticates again") {
    counting_place p;
    auto const s = p.session();
    task<void> running(p.io, s->run());
    test::run(p.io, s->connected());
    task<void> again(p.io, s->reauthenticate());
    task<mqtt::publish_result> publishing(p.io, s->publish("t", "m", {.qos = mqtt::qos::exactly_once}));
    CHECK(publishing.run().what == mqtt::publish_result::outcome::acknowledged);
    CHECK_FALSE(again.run_for_error());
    test::run(p.io, s->disconnect());
}

TEST_CASE("a method that the server does not know ends run") {
    memory_place p;
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    int beginnings = 0;
    s.set_authenticator(counter{&beginnings});
    task<void> running(p.io, s.run());
    CHECK(running.run_for_error() == reason_code::bad_authentication_method);
}

TEST_CASE("a server that does not prove who it is gets no message") {
    counting_place p;
    p.farewell = "come in";
    std::size_t messages = 0;
    p.broker.hooks().on_publish = [&](auto const&, auto const&) { ++messages; };
    auto const s = p.session();
    CHECK(s->try_publish("t", "m"));
    task<void> running(p.io, s->run());
    CHECK_THROWS_WITH_AS(running.run(), "not the right server: come in", std::runtime_error);
    p.settle();
    CHECK(messages == 0);
}

TEST_CASE("a refused re-authentication ends the connection") {
    counting_place p;
    auto const s = p.session();
    task<void> running(p.io, s->run());
    test::run(p.io, s->connected());
    p.broker.hooks().authenticate = [](auto&) { return reason_code::not_authorized; };
    CHECK(test::error_of(p.io, s->reauthenticate()) == errc::disconnected);
    CHECK(running.run_for_error() == reason_code::not_authorized);
}

TEST_CASE("there is nothing to authenticate again without a connection, or without an authenticator") {
    counting_place p;
    CHECK(test::error_of(p.io, p.session()->reauthenticate()) == errc::not_connected);
    test::connected_session plain(quick("client", v5));
    CHECK(test::error_of(plain.io, plain.session.reauthenticate()) == errc::not_connected);
    plain.disconnect();
    memory_session old(p.io.get_executor(), p.transport, quick());
    CHECK_THROWS_AS(old.set_authenticator(counter{nullptr}), std::system_error);
}
