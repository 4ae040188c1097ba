#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/over_websocket.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <doctest/doctest.h>

#include "support/addresses.hpp"
#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// What becomes of an attempt to connect, and what is told of it.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::protocol_version;
using mqtt::reason_code;
using runnel::connect_step;
using test::hex;
using test::memory_session;
using test::task;
using kind = mqtt::session_event::kind;
using namespace std::chrono_literals;

// A server that answers CONNECT with given bytes, or not at all.
struct peer {
    std::string answer;
    bool ends = false;  // behind the answer
    asio::io_context io{};
    std::size_t connections = 0;
    std::vector<std::unique_ptr<task<void>>> serving{};
    std::vector<mqtt::session_event> events{};
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        ++connections;
        serving.push_back(std::make_unique<task<void>>(io, serve(std::move(s))));
    }};

    asio::awaitable<void> serve(runnel::memory_stream<> s) {
        std::string room(64 * 1024, '\0');
        co_await s.read_some(asio::buffer(room));
        auto answering = test::write_text(s, answer);
        co_await std::move(answering);
        if (ends) co_await s.shutdown();
        for (;;) co_await s.read_some(asio::buffer(room));
    }

    mqtt::session_options options(protocol_version version) {
        auto o = test::quick("client", version);
        o.close_timeout = 20ms;
        o.connect_timeout = 40ms;
        o.reconnect.attempts = 3;
        o.on_event = [this](auto const& e) { events.push_back(e); };
        return o;
    }

    // How `run` ends; `text` is that of its exception.
    std::error_code end(protocol_version version) {
        memory_session s(io.get_executor(), transport, options(version));
        task<void> running(io, s.run());
        auto const error = running.run_for_error();
        text = running.error_text();
        return error;
    }
    mqtt::session_event const* last(kind what) const {
        auto const at = std::find_if(events.rbegin(), events.rend(), [=](auto const& e) { return e.what == what; });
        return at == events.rend() ? nullptr : &*at;
    }
    std::string text{};
};

// A transport that does not open, to say nothing of more.
struct silent_or_not {
    using executor_type = test::executor;
    using stream_type = runnel::memory_stream<>;
    static constexpr bool secure = false;
    runnel::memory_transport next;
    bool silent = false;
    std::shared_ptr<std::vector<std::string>> reports = std::make_shared<std::vector<std::string>>();

    std::string url() const { return "test://" + next.host; }
    asio::awaitable<stream_type> open(executor_type executor) const {
        if (silent) {
            runnel::wait_list<executor_type> fixture(executor);
            runnel::waiter<executor_type> w;
            co_await fixture.wait(w);
            if (w.result) throw std::system_error(w.result);
        }
        auto opening = next.open(executor);
        co_return co_await std::move(opening);
    }
    void report(bool well) { reports->push_back(well ? "well" : "ill"); }
    [[maybe_unused]] friend bool operator==(silent_or_not const&, silent_or_not const&) = default;
};

}  // namespace

TEST_CASE("a server of another version of MQTT is given up at once, and the text says what to set") {
    auto const v3 = protocol_version::v3_1_1, v5 = protocol_version::v5;
    for (auto const* answer : {"20 02 00 00", "20 02 00 01", "20 02 00 03", "20 02 00 05", "20 02 01 00"}) {
        CAPTURE(answer);
        peer p{hex(answer)};
        CHECK(p.end(v5) == reason_code::unsupported_protocol_version);
        CHECK(p.connections == 1);
        REQUIRE(p.last(kind::refused));
        CHECK(p.last(kind::refused)->error == reason_code::unsupported_protocol_version);
        CHECK(p.last(kind::refused)->detail.find("session_options::version") != std::string::npos);
        CHECK(p.text.find("session_options::version") != std::string::npos);
        CHECK(p.last(kind::connected) == nullptr);
    }
    for (auto const* answer : {"20 03 00 00 00", "20 03 00 84 00", "20 03 00 87 00", "20 06 00 00 03 21 00 0A"}) {
        CAPTURE(answer);
        peer p{hex(answer)};
        CHECK(p.end(v3) == reason_code::unsupported_protocol_version);
        CHECK(p.connections == 1);
    }
    // What is no CONNACK of either version breaks the protocol.
    CHECK(peer{hex("20 02 00 06")}.end(v5) == errc::invalid_reason_code);
    CHECK(peer{hex("20 02 02 00")}.end(v5) == errc::invalid_connack_flags);
    CHECK(peer{hex("20 03 00 00 01")}.end(v3) == errc::trailing_bytes);
}

TEST_CASE("the event of an attempt that has failed tells the server and the step") {
    {
        peer p{hex("")};
        CHECK(p.end(protocol_version::v5) == errc::connect_timeout);
        auto const& e = *p.last(kind::disconnected);
        CHECK(e.step == connect_step::accept);
        CHECK(e.url == "memory://:0");
        CHECK(e.detail == "waiting for CONNACK: is this an MQTT port?");
        CHECK(to_string(e) ==
              "could not connect to memory://:0: the attempt to connect took too long: waiting for "
              "CONNACK: is this an MQTT port?");
        CHECK(p.text.find("waiting for CONNACK") != std::string::npos);
    }
    {
        peer p{hex("20 02 00"), true};
        CHECK(p.end(protocol_version::v3_1_1) == asio::error::eof);
        CHECK(p.last(kind::disconnected)->step == connect_step::accept);
    }
    {
        peer p{hex("20 02 00 05")};
        CHECK(p.end(protocol_version::v3_1_1) == reason_code::not_authorized);
        auto const& e = *p.last(kind::disconnected);
        CHECK(e.step == connect_step::accept);
        CHECK(e.detail.empty());
    }
    {
        peer p{hex("20 02 00 00"), true};
        auto options = p.options(protocol_version::v3_1_1);
        memory_session s(p.io.get_executor(), p.transport, options);
        task<void> running(p.io, s.run());
        CHECK(running.run_for_error() == asio::error::eof);
        CHECK(p.last(kind::disconnected)->step == connect_step::none);  // the server had accepted
        CHECK(p.last(kind::connected)->url == "memory://:0");
    }
    {
        asio::io_context io;
        std::vector<mqtt::session_event> events;
        auto options = test::quick();
        options.reconnect.attempts = 1;
        options.on_event = [&](auto const& e) { events.push_back(e); };
        mqtt::session s(io.get_executor(), runnel::tcp{.host = "127.0.0.1", .port = 1}, options);
        task<void> running(io, s.run());
        CHECK(running.run_for_error() == asio::error::connection_refused);
        REQUIRE(events.size() == 2);
        CHECK(events[1].step == connect_step::connect);
        CHECK(to_string(events[1]) ==
              "could not connect: Connection refused: connecting to tcp://127.0.0.1:1 (127.0.0.1: Connection refused)");
    }
}

TEST_CASE("a silent first server is left for the second in the same attempt, and the event says so") {
    peer good{hex("20 02 00 00")};
    silent_or_not first{good.transport, true}, second{good.transport};
    first.next.host = "a";
    second.next.host = "b";
    mqtt::session s(good.io.get_executor(), runnel::failover(std::vector{first, second}),
                    good.options(protocol_version::v3_1_1));
    task<void> running(good.io, s.run());
    test::run(good.io, s.connected());
    CHECK(s.counters().connections == 1);
    REQUIRE(good.events.size() == 2);
    CHECK(good.events[0].url == "test://a");
    CHECK(good.events[1].what == kind::connected);
    CHECK(good.events[1].url == "test://b");
    CHECK(to_string(good.events[1]) ==
          "connected to test://b, a new session (before: opening test://a: connecting took "
          "longer than its share of the time)");
    test::run(good.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("a server that accepts the stream, but not CONNECT, is left for the next one in the next attempt") {
    peer good{hex("20 02 00 00")};
    std::vector<std::unique_ptr<runnel::memory_stream<>>> held;
    runnel::memory_transport mute(
        [&](runnel::memory_stream<> s) { held.push_back(std::make_unique<runnel::memory_stream<>>(std::move(s))); });
    mqtt::session s(good.io.get_executor(), runnel::failover(std::vector{mute, mute, good.transport}),
                    good.options(protocol_version::v3_1_1));
    task<void> running(good.io, s.run());
    test::run(good.io, s.connected());
    CHECK(held.size() == 2);
    test::run(good.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
    held.clear();
}

TEST_CASE("a transport that makes a choice is told of an attempt whose time was over, and not of a cancelled one") {
    peer good{hex("20 02 00 00")};
    silent_or_not transport{good.transport, true};
    auto options = good.options(protocol_version::v3_1_1);
    options.reconnect.attempts = 0;
    mqtt::session s(good.io.get_executor(), transport, options);
    task<void> running(good.io, s.run());
    CHECK(test::wait_until(good.io, [&] { return transport.reports->size() == 2; }));
    CHECK(transport.reports->back() == "ill");
    CHECK(good.last(kind::disconnected)->step == connect_step::open);
    CHECK(to_string(*good.last(kind::disconnected)) ==
          "could not connect to test://: the attempt to connect took too long");
    CHECK(test::wait_until(good.io, [&] { return good.events.back().what == kind::connecting; }));
    running.cancel();
    CHECK(running.run_for_error() == asio::error::operation_aborted);
    CHECK(transport.reports->size() == 2);
}

TEST_CASE("an address behind which nobody answers is left for another one in the next attempt") {
    asio::io_context io;
    std::vector<mqtt::session_event> events;
    auto options = test::quick();
    options.connect_timeout = 150ms;
    options.on_event = [&](auto const& e) { events.push_back(e); };
    runnel::testing::broker broker(io.get_executor());
    test::addresses host{.host = "two"};
    asio::ip::tcp::acceptor mute(io, {asio::ip::make_address("127.0.0.2"), 0});
    host.endpoints = {mute.local_endpoint(), {asio::ip::make_address("127.0.0.1"), broker.listen_tcp()}};
    mqtt::session s(io.get_executor(), host, options);
    task<void> running(io, s.run());
    test::run(io, s.connected());
    CHECK(std::ranges::count(events, kind::connecting, &mqtt::session_event::what) == 2);
    test::run(io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("an address behind which the handshake has no answer is left for another one in the same attempt") {
    asio::io_context io;
    std::vector<mqtt::session_event> events;
    auto options = test::quick();
    options.connect_timeout = 400ms;
    options.on_event = [&](auto const& e) { events.push_back(e); };
    runnel::testing::broker broker(io.get_executor());
    auto const port = broker.listen(runnel::testing::over_websocket<runnel::testing::over_tcp>());
    asio::ip::tcp::acceptor mute(io, {asio::ip::make_address("127.0.0.2"), 0});
    runnel::websocket::over<test::addresses> host{.host = "two"};
    host.next.endpoints = {mute.local_endpoint(), {asio::ip::make_address("127.0.0.1"), port}};
    mqtt::session s(io.get_executor(), host, options);
    task<void> running(io, s.run());
    test::run(io, s.connected());
    REQUIRE(events.size() == 2);
    CHECK(to_string(events[1]) ==
          "connected to ws://two:80/mqtt, a new session (before: WebSocket handshake with two:80/mqtt (no answer: is "
          "this a WebSocket port?): the handshake took too long (127.0.0.2))");
    test::run(io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("what has ended run is told by the operations that it ends, and by those that begin later") {
    for (bool const later : {false, true}) {
        CAPTURE(later);
        peer p{hex("20 02 00 05")};
        memory_session s(p.io.get_executor(), p.transport, p.options(protocol_version::v3_1_1));
        std::vector<std::unique_ptr<task<void>>> all;
        auto const begin = [&] {
            all.push_back(
                std::make_unique<task<void>>(p.io, test::only(s.publish("t", "p", {.qos = mqtt::qos::at_least_once}))));
            all.push_back(std::make_unique<task<void>>(p.io, test::only(s.subscribe("t"))));
            all.push_back(std::make_unique<task<void>>(p.io, s.connected()));
            all.push_back(std::make_unique<task<void>>(p.io, test::only(s.connected(7))));
            if (!later) all.push_back(std::make_unique<task<void>>(p.io, s.drained()));
        };
        if (!later) begin();
        task<void> running(p.io, s.run());
        CHECK(running.run_for_error() == reason_code::not_authorized);
        if (later) begin();
        test::settle(p.io);
        for (auto const& t : all) {
            REQUIRE(t->done());
            CHECK(t->error() == errc::disconnected);
            CHECK(t->error_text() == "run has ended: memory://:0: not authorized: disconnected");
        }
        try {
            s.try_publish("t", "p");
            CHECK(false);
        } catch (std::system_error const& e) {
            CHECK(e.code() == errc::disconnected);
            CHECK(std::string(e.what()).find("not authorized") != std::string::npos);
        }
    }
}

TEST_CASE("what waits at a subscription is told what has ended run, also when the session goes at once") {
    for (bool const goes : {false, true}) {
        CAPTURE(goes);
        test::connected_session s;
        auto inbox = s.subscribe("t");
        auto other = std::make_unique<memory_session>(s.io.get_executor(), s.transport, test::quick("other"));
        task<void> running(s.io, other->run());
        auto others = test::run(s.io, other->subscribe("t"));
        task<mqtt::message> receiving(s.io, others.receive());
        s.broker.hold_acknowledgements(true);
        task<mqtt::publish_result> publishing(s.io, other->publish("u", "p", {.qos = mqtt::qos::exactly_once}));
        test::settle(s.io);
        running.cancel();
        while (!running.done() && s.io.poll_one() != 0) {
        }
        if (goes) other.reset();
        CHECK(publishing.run_for_error() == errc::disconnected);
        auto const text = "run has ended: " + running.error().message() + ": disconnected";
        CHECK(publishing.error_text() == text);
        CHECK(receiving.run_for_error() == errc::disconnected);
        CHECK(receiving.error_text() == text);
        CHECK(test::error_of(s.io, others.receive()) == errc::disconnected);
        s.disconnect();
    }
}

TEST_CASE("after disconnect publishing and subscribing fail at once, until run is called again") {
    test::connected_session s;
    task<void> leaving(s.io, s.session.disconnect());
    s.io.restart();
    s.io.poll_one();  // DISCONNECT is to be written yet
    task<mqtt::publish_result> late(s.io, s.session.publish("t", "p"));
    CHECK(late.run_for_error() == errc::disconnected);
    leaving.run();
    CHECK_FALSE(s.running.run_for_error());
    for (auto const quality : test::qualities) {
        task<mqtt::publish_result> publishing(s.io, s.session.publish("t", "p", {.qos = quality}));
        CHECK(publishing.run_for_error() == errc::disconnected);
        CHECK(publishing.error_text() == "run has ended by disconnect: disconnected");
    }
    CHECK(test::error_of(s.io, s.session.subscribe("t")) == errc::disconnected);
    CHECK(s.session.counters().queued_bytes == 0);

    task<void> again(s.io, s.session.run());
    test::run(s.io, s.session.connected());
    CHECK(s.publish("t", "p", mqtt::qos::at_least_once) == reason_code::success);
    test::run(s.io, s.session.disconnect());
    CHECK_FALSE(again.run_for_error());
}

TEST_CASE("who waits for room, or for an acknowledgement, when disconnect is called is told so") {
    auto o = test::quick();
    o.maximum_queued_messages = 1;
    test::connected_session s(o);
    s.broker.hold_acknowledgements(true);
    std::vector<std::unique_ptr<task<mqtt::publish_result>>> all;
    for (int i = 0; i < 3; ++i)
        all.push_back(std::make_unique<task<mqtt::publish_result>>(
            s.io, s.session.publish("t", "p", {.qos = mqtt::qos::at_least_once})));
    s.settle();
    s.disconnect();
    for (auto const& t : all) {
        CHECK(t->run_for_error() == errc::disconnected);
        auto const text = t->error_text();
        bool const told = text == "disconnect was called: disconnected";
        CHECK((told || text == "run has ended by disconnect: disconnected"));
    }
}

TEST_CASE("a forgotten run is told of, once, and one that is called soon is not") {
    using make = std::function<asio::awaitable<void>(memory_session&)>;
    std::vector<make> const operations = {
        [](auto& s) { return test::only(s.publish("t", "p")); },
        [](auto& s) { return test::only(s.publish("t", "p", {.qos = mqtt::qos::exactly_once})); },
        [](auto& s) { return test::only(s.subscribe("t")); },
        [](auto& s) { return s.connected(); },
        [](auto& s) { return test::only(s.connected(0)); },
        [](auto& s) -> asio::awaitable<void> {
            CHECK(s.try_publish("t", "p"));
            co_return;
        },
    };
    for (bool const forgotten : {true, false})
        for (auto const& operation : operations) {
            test::memory_fixture p;
            std::vector<mqtt::session_event> events;
            auto options = test::quick();
            options.on_event = [&](auto const& e) { events.push_back(e); };
            memory_session s(p.io.get_executor(), p.transport, options);
            if (!forgotten) CHECK(s.try_publish("t", "p"));
            task<void> operating(p.io, operation(s));
            std::optional<task<void>> running;
            if (!forgotten) running.emplace(p.io, s.run());
            p.settle();
            auto const told = std::ranges::count(events, kind::not_running, &mqtt::session_event::what);
            CHECK(told == (forgotten ? 1 : 0));
            if (forgotten) {
                s.try_publish("t", "p");
                p.settle();
                CHECK(events.size() == 1);
                CHECK(to_string(events[0]) == "operations wait, and run() has not been called");
                running.emplace(p.io, s.run());
            }
            operating.run();
            test::run(p.io, s.disconnect());
            CHECK_FALSE(running->run_for_error());
        }
}

TEST_CASE("a certificate that is not yet valid, or no more, is retried, and the event says so; others are given up") {
    using runnel::transport_errc;
    for (auto const why : {transport_errc::certificate_not_yet_valid, transport_errc::certificate_expired,
                           transport_errc::certificate_untrusted}) {
        bool const lasting = why == transport_errc::certificate_untrusted;
        test::memory_fixture p;
        std::vector<mqtt::session_event> events;
        auto options = test::quick();
        options.on_event = [&](auto const& e) { events.push_back(e); };
        p.on_open = [&](auto&) {
            if (p.opened < 3) throw std::system_error(why, "TLS handshake");
        };
        memory_session s(p.io.get_executor(), p.transport, options);
        task<void> running(p.io, s.run());
        if (lasting) {
            CHECK(running.run_for_error() == why);
            CHECK(p.opened == 1);
        } else {
            test::run(p.io, s.connected());
            CHECK(p.opened == 3);
            test::run(p.io, s.disconnect());
            CHECK_FALSE(running.run_for_error());
        }
        REQUIRE(events.size() > 1);
        CHECK(events[1].what == kind::disconnected);
        CHECK(events[1].error == why);
        CHECK(events[1].detail == "TLS handshake");
    }
}

TEST_CASE("what has ended run is told also to those who read it after run has been called again") {
    peer p{hex("20 03 00 87 00")};  // not authorized
    auto options = test::quick("client", protocol_version::v5);
    memory_session s(p.io.get_executor(), p.transport, options);
    auto const again_and_again = [&]() -> asio::awaitable<void> {
        for (int i = 0; i < 2; ++i) {
            try {
                co_await s.run();
            } catch (std::system_error const&) {
            }
        }
    };
    task<mqtt::publish_result> publishing(p.io, s.publish("t", "p", {.qos = mqtt::qos::at_least_once}));
    task<memory_session::subscription> subscribing(p.io, s.subscribe("t"));
    task<void> running(p.io, again_and_again());
    running.run();
    CHECK(publishing.run_for_error() == errc::disconnected);
    CHECK(publishing.error_text().find("not authorized") != std::string::npos);
    CHECK(subscribing.run_for_error() == errc::disconnected);
    CHECK(subscribing.error_text().find("not authorized") != std::string::npos);
}

TEST_CASE("an answer that is no CONNACK is asked about once") {
    peer p{std::string("220 mail ESMTP\r\n")};  // an unfinished PUBLISH
    CHECK(p.end(protocol_version::v5) == errc::connect_timeout);
    auto const& detail = p.last(kind::disconnected)->detail;
    CHECK(detail.find("220 mail ESMTP") != std::string::npos);
    CHECK(detail.find("is this", detail.find("is this") + 1) == std::string::npos);
}

TEST_CASE("the usual reason is asked for where an error says little, by the port that was meant") {
    using mqtt::detail::usual_cause;
    using runnel::connect_step;
    std::error_code const late = errc::connect_timeout, end = asio::error::eof, reset = asio::error::connection_reset;
    auto const cause = [](std::error_code why, connect_step step, std::string_view url) {
        return std::string(usual_cause(why, step, url));
    };
    CHECK(cause(late, connect_step::accept, "tcp://a:1") == "is this a TLS or WebSocket port?");
    CHECK(cause(end, connect_step::accept, "tcp://a:1") == "no CONNACK: is this a TLS or WebSocket port?");
    CHECK(cause(late, connect_step::accept, "tls://a:1") == "is this an MQTT port?");
    CHECK(cause(end, connect_step::accept, "tls://a:1") == "no CONNACK: is this an MQTT port?");
    CHECK(cause(end, connect_step::none, "tcp://a:1") == "the server did not say why");
    CHECK(cause(reset, connect_step::none, "tcp://a:1") == "");
    CHECK(cause(late, connect_step::tls, "tls://a:1") == "");
    CHECK(cause(reason_code::banned, connect_step::accept, "tcp://a:1") == "");
}
