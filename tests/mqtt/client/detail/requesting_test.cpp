#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::errc;
using mqtt::qos;
using test::connected_session;
using test::memory_session;
using test::quick;
using test::task;

constexpr auto v5 = mqtt::protocol_version::v5;

// Answers each request on "twice" with its payload, twice as long.
struct responder {
    explicit responder(connected_session& c)
        : session(c.io.get_executor(), c.transport, quick("responder", v5)),
          running(c.io, session.run()),
          requests(test::run(c.io, session.subscribe("twice"))),
          answering(c.io, answer()) {}

    asio::awaitable<void> answer() {
        for (;;) {
            auto const request = co_await requests.receive();
            std::string text = std::string(request.payload()) + std::string(request.payload());
            auto responding = session.respond(request.view(), std::move(text), {.qos = qos::at_least_once});
            co_await std::move(responding);
        }
    }

    memory_session session;
    task<void> running;
    memory_session::subscription requests;
    task<void> answering;
};

}  // namespace

TEST_CASE("a request completes with its response") {
    connected_session c(quick("client", v5));
    responder r(c);
    auto const response = test::run(c.io, c.session.request("twice", "ab", 10s));
    CHECK(response.payload() == "abab");
    CHECK(response.topic().starts_with("runnel/response/"));
    c.disconnect();
    test::run(c.io, r.session.disconnect());
}

TEST_CASE("a request completes with its response, though the server has not acknowledged its message, or never does") {
    connected_session c(quick("client", v5));
    responder r(c);
    test::run(c.io, c.session.request("twice", "ab", 10s));
    c.broker.hold_acknowledgements(true);
    CHECK(test::run(c.io, c.session.request("twice", "cd", 10s)).payload() == "cdcd");
    CHECK(c.session.counters().in_flight == 1);
    c.broker.hold_acknowledgements(false);
    CHECK(test::run(c.io, c.session.request("twice", "ef", 10s)).payload() == "efef");
    test::run(c.io, c.session.drained());
    c.disconnect();
    test::run(c.io, r.session.disconnect());
}

TEST_CASE("temporaries go along with a request, and with its response") {
    connected_session c(quick("client", v5));
    responder r(c);
    std::string topic = "twice";
    std::optional<task<mqtt::message>> asking;
    asking.emplace(c.io, c.session.request(std::move(topic), std::string(40, 'a'), 10s));
    CHECK(asking->run().payload() == std::string(80, 'a'));
    std::error_code error;
    asking.emplace(c.io, c.session.request("twice", std::string(40, 'b'), 10s, {.qos = qos::at_least_once}, error));
    CHECK(asking->run().payload() == std::string(80, 'b'));
    c.disconnect();
    test::run(c.io, r.session.disconnect());
}

TEST_CASE("many requests side by side get each their own response, through one subscription") {
    connected_session c(quick("client", v5));
    responder r(c);
    std::size_t subscriptions = 0;
    c.broker.hooks().authorize_subscribe = [&](auto const&, auto const&, auto const& s) {
        ++subscriptions;
        return static_cast<mqtt::reason_code>(s.maximum_qos);
    };
    std::vector<std::string> payloads;
    for (int i = 0; i < 100; ++i) payloads.push_back(std::to_string(i));
    std::vector<std::unique_ptr<task<mqtt::message>>> requests;
    for (auto const& payload : payloads)
        requests.push_back(std::make_unique<task<mqtt::message>>(c.io, c.session.request("twice", payload, 10s)));
    for (std::size_t i = 0; i < payloads.size(); ++i) CHECK(requests[i]->run().payload() == payloads[i] + payloads[i]);
    CHECK(subscriptions == 1);
    c.disconnect();
    test::run(c.io, r.session.disconnect());
}

TEST_CASE("a request without a response ends when its time is up") {
    connected_session c(quick("client", v5));
    CHECK(test::error_of(c.io, c.session.request("nobody", "", 1ms)) == errc::response_timeout);
    c.disconnect();
}

TEST_CASE("the user's properties go with the request") {
    connected_session c(quick("client", v5));
    auto inbox = c.subscribe("twice");
    mqtt::properties props;
    props.content_type = "text/plain";
    task<mqtt::message> request(c.io, c.session.request("twice", "", 10s, {.props = &props}));
    auto const received = test::run(c.io, inbox.receive());
    CHECK(received.props().get<mqtt::property_id::content_type>() == "text/plain");
    CHECK(received.props().get<mqtt::property_id::response_topic>());
    CHECK(received.props().get<mqtt::property_id::correlation_data>()->size() == 8);
    c.disconnect();
    CHECK(request.run_for_error() == errc::disconnected);
}

TEST_CASE("there are no requests in MQTT 3.1.1, and no response to what is no request") {
    connected_session c;
    CHECK(test::error_of(c.io, c.session.request("t", "", 10s)) == errc::unsupported_protocol_version);
    mqtt::publish const no_request{.topic = "t"};
    CHECK(test::error_of(c.io, c.session.respond(no_request, "")) == errc::no_response_topic);
    c.disconnect();
}

TEST_CASE("a request whose subscription is refused says so, and another one may succeed") {
    connected_session c(quick("client", v5));
    c.broker.hooks().authorize_subscribe = [](auto const&, auto const&, auto const&) {
        return mqtt::reason_code::quota_exceeded;
    };
    CHECK(test::error_of(c.io, c.session.request("twice", "", 10s)) == mqtt::reason_code::quota_exceeded);
    c.broker.hooks().authorize_subscribe = {};
    responder r(c);
    CHECK(test::run(c.io, c.session.request("twice", "a", 10s)).payload() == "aa");
    c.disconnect();
    test::run(c.io, r.session.disconnect());
}

TEST_CASE("the context may end when a request has been told of the end of the session, and has not gone on") {
    connected_session c(quick("client", v5));
    c.broker.hold_acknowledgements(true);
    task<mqtt::message> asking(c.io, c.session.request("a", "b", 10s));
    test::settle(c.io);
    CHECK_FALSE(asking.done());
}  // the frames of the request go in an order of their own

TEST_CASE("a pending request ends with the session, at each of its steps") {
    for (int turns = 0; turns < 12; ++turns) {
        test::memory_fixture p;
        std::optional<memory_session> s(std::in_place, p.io.get_executor(), p.transport, quick("client", v5));
        task<void> running(p.io, s->run());
        task<mqtt::message> pending(p.io, s->request("nobody", "", 1h));
        for (int i = 0; i < 5 + turns * 5; ++i) p.io.poll_one();  // the first ones begin both coroutines
        running.cancel();
        CHECK(running.run_for_error());
        s.reset();
        CHECK(pending.run_for_error() == errc::disconnected);
        CHECK(pending.ended() == 1);
    }
}

TEST_CASE(
    "when the server does not renew the response subscription, requests end with its reason, and later ones work") {
    auto options = quick("client", v5);
    options.clean_start = true;
    connected_session c(options);
    std::optional<responder> r(std::in_place, c);
    CHECK(test::run(c.io, c.session.request("twice", "a", 10s)).payload() == "aa");
    task<mqtt::message> pending(c.io, c.session.request("nobody", "", 1h));
    c.settle();
    c.broker.hooks().authorize_subscribe = [](auto const&, auto const&, auto const&) {
        return mqtt::reason_code::quota_exceeded;
    };
    c.broker.drop_client("client");
    CHECK(pending.run_for_error() == mqtt::reason_code::quota_exceeded);
    CHECK(test::error_of(c.io, c.session.request("twice", "b", 10s)) == mqtt::reason_code::quota_exceeded);
    c.broker.hooks().authorize_subscribe = {};
    CHECK(test::run(c.io, c.session.request("twice", "c", 10s)).payload() == "cc");
    c.disconnect();
    test::run(c.io, r->session.disconnect());
}

TEST_CASE("a request that ends before it could be sent is never carried out") {
    for (auto const quality : test::qualities) {
        for (bool const cancelled : {false, true}) {
            CAPTURE(static_cast<int>(quality));
            CAPTURE(cancelled);
            auto options = quick("client", v5);
            auto const store = std::make_shared<test::memory_store>();
            options.store = store;
            connected_session c(options);
            responder r(c);
            CHECK(test::run(c.io, c.session.request("twice", "a", 10s)).payload() == "aa");
            std::size_t messages = 0;
            c.broker.hooks().on_publish = [&](auto const&, auto const&) { ++messages; };
            bool down = true;
            c.on_open = [&](auto&) {
                if (down) throw std::system_error(asio::error::connection_refused);
            };
            c.broker.drop_client("client");
            CHECK(test::wait_until(c.io, [&] { return !c.session.is_connected(); }));
            task<mqtt::message> late(c.io, c.session.request("twice", "b", cancelled ? 1h : 20ms, {.qos = quality}));
            CHECK(test::wait_until(c.io, [&] { return c.session.counters().queued_bytes != 0; }));
            if (cancelled) late.cancel();
            auto const error = late.run_for_error();
            CHECK((cancelled ? error == asio::error::operation_aborted : error == errc::response_timeout));
            CHECK(c.session.counters().queued_bytes == 0);
            down = false;
            test::run(c.io, c.session.connected(1));
            c.settle();
            CHECK(messages == 0);
            CHECK(test::run(c.io, c.session.request("twice", "c", 10s)).payload() == "cc");
            c.disconnect();
            test::run(c.io, r.session.disconnect());
        }
    }
}

TEST_CASE("a request can be cancelled at each of its steps, and the next one works") {
    for (int turns = 0; turns < 40; ++turns) {
        CAPTURE(turns);
        connected_session c(quick("client", v5));
        responder r(c);
        task<mqtt::message> first(c.io, c.session.request("twice", "a", 10s));
        task<mqtt::message> second(c.io, c.session.request("twice", "b", 10s));
        for (int i = 0; i < turns && !first.done(); ++i) c.io.poll_one();
        first.cancel();
        first.run_for_error();
        CHECK(first.ended() == 1);
        CHECK(second.run().payload() == "bb");
        CHECK(test::run(c.io, c.session.request("twice", "c", 10s)).payload() == "cc");
        c.disconnect();
        test::run(c.io, r.session.disconnect());
    }
}
