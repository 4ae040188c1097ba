#include <runnel/aliyun/signer.hpp>
#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "interop/transports.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"

// A session against a real broker, over all four transports.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using mqtt::qos;

mqtt::session_options options_for(std::string client_id, protocol_version version = protocol_version::v3_1_1) {
    mqtt::session_options o;
    o.credentials.client_id = std::move(client_id);
    o.version = version;
    o.clean_start = true;
    o.reconnect.initial = std::chrono::milliseconds(1);
    o.reconnect.maximum = std::chrono::milliseconds(50);
    return o;
}

template <class T>
using session = mqtt::session<T>;

/// What `run` throws after one attempt.
template <class T>
std::string text_of_attempt(T transport) {
    asio::io_context io;
    auto options = options_for("wrong");
    options.reconnect.attempts = 1;
    session<T> s(io.get_executor(), std::move(transport), options);
    test::task<void> running(io, s.run());
    CHECK(running.run_for_error());
    return running.error_text();
}

/// Runs a scenario with a session beside it, which then disconnects.
template <class T>
void converse(asio::io_context& io, session<T>& s, asio::awaitable<void> scenario) {
    test::task<void> running(io, s.run());
    test::run(io, std::move(scenario));
    test::run(io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
}

template <class T>
asio::awaitable<void> exchange(session<T>& s) {
    auto inbox = co_await s.subscribe("runnel/echo");
    CHECK(inbox.granted_qos() == qos::exactly_once);
    for (qos const quality : {qos::at_most_once, qos::at_least_once, qos::exactly_once}) {
        std::string const payload = "quality " + std::to_string(static_cast<int>(quality));
        CHECK(co_await s.publish("runnel/echo", payload, {.qos = quality}) == mqtt::reason_code::success);
        auto const m = co_await inbox.receive();
        CHECK(m.topic() == "runnel/echo");
        CHECK(m.payload() == payload);
        CHECK(m.qos() == quality);
        CHECK_FALSE(m.retain());
    }
}

template <class T>
asio::awaitable<void> exchange_large(session<T>& s) {
    auto inbox = co_await s.subscribe("runnel/large");
    std::string const payload = test::noise(test::way<T>::large_payload);
    co_await s.publish("runnel/large", payload, {.qos = qos::at_least_once});
    auto const m = co_await inbox.receive();
    CHECK((m.payload() == payload));
}

template <class T>
asio::awaitable<void> exchange_many(session<T>& s) {
    auto inbox = co_await s.subscribe("runnel/many");
    for (int i = 0; i < 200; ++i) s.try_publish("runnel/many", std::to_string(i), {.qos = qos::exactly_once});
    for (int i = 0; i < 200; ++i) {
        auto const m = co_await inbox.receive();
        CHECK(m.payload() == std::to_string(i));
    }
}

template <class T>
asio::awaitable<void> match_wildcards(session<T>& s) {
    auto one_level = co_await s.subscribe("runnel/+/temperature");
    auto all_levels = co_await s.subscribe("runnel/hall/#");
    co_await s.publish("runnel/kitchen/temperature", "21", {.qos = qos::at_least_once});
    co_await s.publish("runnel/hall/lamp/1", "on", {.qos = qos::at_least_once});
    auto const m = co_await one_level.receive();
    CHECK(m.topic() == "runnel/kitchen/temperature");
    auto const n = co_await all_levels.receive();
    CHECK(n.topic() == "runnel/hall/lamp/1");
    CHECK(one_level.size() == 0);
    CHECK(all_levels.size() == 0);
}

template <class T>
asio::awaitable<void> retain_one(session<T>& s) {
    co_await s.publish("runnel/retained", "kept", {.qos = qos::at_least_once, .retain = true});
    auto inbox = co_await s.subscribe("runnel/retained");
    auto const m = co_await inbox.receive();
    CHECK(m.payload() == "kept");
    CHECK(m.retain());
}

template <class T>
asio::awaitable<void> unsubscribe_one(session<T>& s) {
    auto inbox = co_await s.subscribe("runnel/gone");
    co_await s.unsubscribe(inbox);
    co_await s.publish("runnel/gone", "unheard", {.qos = qos::at_least_once});
    auto after = co_await s.subscribe("runnel/after");
    co_await s.publish("runnel/after", "heard", {.qos = qos::at_least_once});
    auto const m = co_await after.receive();
    CHECK(inbox.size() == 0);
    CHECK(s.counters().messages_unrouted == 0);
}

asio::awaitable<void> pause(std::chrono::milliseconds duration) {
    co_await runnel::sleep_for<test::executor>(co_await asio::this_coro::executor, duration);
}

}  // namespace

#define RUNNEL_TRANSPORTS runnel::tcp, test::tls, test::ws, test::wss

TEST_CASE_TEMPLATE("messages of every QoS go to mosquitto and back", T, RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        session<T> s(io.get_executor(), test::way<T>::to(broker), options_for("exchange", version));
        converse(io, s, exchange(s));
        CHECK(s.counters().connections == 1);
        CHECK_FALSE(s.is_connected());
    }
}

TEST_CASE_TEMPLATE("a large message goes to mosquitto and back", T, RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    asio::io_context io;
    session<T> s(io.get_executor(), test::way<T>::to(broker), options_for("large"));
    converse(io, s, exchange_large(s));
}

TEST_CASE_TEMPLATE("many QoS 2 messages at once come back in order", T, RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        session<T> s(io.get_executor(), test::way<T>::to(broker), options_for("many", version));
        converse(io, s, exchange_many(s));
    }
}

TEST_CASE_TEMPLATE("wildcards match at mosquitto and here alike", T, RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    asio::io_context io;
    session<T> s(io.get_executor(), test::way<T>::to(broker), options_for("wildcards"));
    converse(io, s, match_wildcards(s));
}

TEST_CASE_TEMPLATE("a retained message comes to a later subscription", T, RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    asio::io_context io;
    session<T> s(io.get_executor(), test::way<T>::to(broker), options_for("retained"));
    converse(io, s, retain_one(s));
}

TEST_CASE_TEMPLATE("after unsubscribing nothing comes any more", T, RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    asio::io_context io;
    session<T> s(io.get_executor(), test::way<T>::to(broker), options_for("unsubscribe"));
    converse(io, s, unsubscribe_one(s));
}

TEST_CASE_TEMPLATE("mosquitto publishes the will of a session whose connection is cut", T, RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        auto with_will = options_for("mortal", version);
        with_will.will.emplace();
        with_will.will->topic = "runnel/will";
        with_will.will->payload = "gone";
        with_will.will->qos = qos::at_least_once;
        session<T> mortal(io.get_executor(), test::way<T>::to(broker), with_will);
        session<T> heir(io.get_executor(), test::way<T>::to(broker), options_for("heir", version));
        test::task<void> running(io, heir.run());
        auto inbox = test::run(io, heir.subscribe("runnel/will"));

        test::task<void> dying(io, mortal.run());
        test::run(io, mortal.connected());
        dying.cancel();
        CHECK(dying.run_for_error() == asio::error::operation_aborted);
        auto const will = test::run(io, inbox.receive());
        CHECK(will.payload() == "gone");
        CHECK(will.qos() == qos::at_least_once);

        // But not that of one that disconnects in good order.
        test::task<void> leaving(io, mortal.run());
        test::run(io, mortal.connected());
        test::run(io, mortal.disconnect());
        test::run(io, heir.publish("runnel/will", "no will", {.qos = qos::at_least_once}));
        CHECK(test::run(io, inbox.receive()).payload() == "no will");
        test::run(io, heir.disconnect());
    }
}

TEST_CASE_TEMPLATE("mosquitto keeps messages for a session while it is away, and the session resumes", T,
                   RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        auto lasting = options_for("lasting" + std::to_string(static_cast<int>(version)), version);
        lasting.clean_start = false;
        bool present = false;
        lasting.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::connected) present = e.session_present;
        };
        session<T> away(io.get_executor(), test::way<T>::to(broker), lasting);
        session<T> other(io.get_executor(), test::way<T>::to(broker), options_for("other", version));
        test::task<void> others(io, other.run());
        {
            test::task<void> running(io, away.run());
            auto inbox = test::run(io, away.subscribe("runnel/away"));
            CHECK_FALSE(present);
            running.cancel();
            CHECK(running.run_for_error() == asio::error::operation_aborted);

            test::run(io, other.publish("runnel/away", "first", {.qos = qos::at_least_once}));
            test::run(io, other.publish("runnel/away", "second", {.qos = qos::exactly_once}));
            test::task<void> again(io, away.run());
            auto const first = test::run(io, inbox.receive());
            CHECK(present);
            CHECK(first.payload() == "first");
            auto const second = test::run(io, inbox.receive());
            CHECK(second.payload() == "second");
            CHECK(second.qos() == qos::exactly_once);
            test::run(io, away.disconnect());
        }
        test::run(io, other.disconnect());
    }
}

TEST_CASE_TEMPLATE("a wrong password ends run with the broker's reason, without another attempt", T,
                   RUNNEL_TRANSPORTS) {
    test::mosquitto_options with_users;
    with_users.users = {{"somebody", "right"}};
    test::mosquitto broker(with_users);
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        int attempts = 0;
        auto options = options_for("refused", version);
        options.credentials.user_name = "somebody";
        options.credentials.password = "wrong";
        options.on_event = [&](mqtt::session_event const& e) {
            attempts += e.what == mqtt::session_event::kind::connecting;
        };
        auto const transport = test::way<T>::to(broker);
        session<T> s(io.get_executor(), transport, options);
        test::task<void> running(io, s.run());
        CHECK(running.run_for_error() == mqtt::reason_code::not_authorized);
        CHECK(running.error_text() == transport.url() + ": not authorized");
        CHECK(attempts == 1);

        options.credentials.password = "right";
        session<T> welcome(io.get_executor(), transport, options);
        converse(io, welcome, welcome.connected());
    }
}

TEST_CASE_TEMPLATE("a broker with a certificate that is not trusted, or for another name, is not talked to", T,
                   test::tls, test::wss) {
    test::mosquitto broker;
    asio::io_context io;
    auto const make = [&](auto change) {
        auto t = test::way<T>::to(broker);
        if constexpr (std::is_same_v<T, test::tls>)
            change(t);
        else
            change(t.next);
        return t;
    };
    runnel::testing::certificate_authority const other;
    session<T> untrusting(io.get_executor(), make([&](test::tls& t) { t.context = test::trusting(other); }),
                          options_for("untrusting"));
    CHECK(test::error_of(io, untrusting.run()) == runnel::transport_errc::certificate_untrusted);
    session<T> misled(io.get_executor(), make([&](test::tls& t) { t.server_name = "broker.example"; }),
                      options_for("misled"));
    CHECK(test::error_of(io, misled.run()) == runnel::transport_errc::host_name_mismatch);
    CHECK(broker.log().find("misled") == std::string::npos);
}

TEST_CASE_TEMPLATE("mosquitto lets in a device by the signer's user name and password", T, RUNNEL_TRANSPORTS) {
    constexpr runnel::aliyun::device device{"a1B2c3D4e5F", "thermostat-7", "qQ7WeRtYuIoPaSdFgHjKlZxCvBnM1234"};
    constexpr auto signed_as =
        runnel::aliyun::sign(device, {.mode = runnel::aliyun::secure_mode_for<T>, .timestamp = 1'700'000'000'000});
    test::mosquitto_options with_users;
    with_users.users = {{std::string(signed_as.user_name.view()), std::string(signed_as.password.view())}};
    test::mosquitto broker(with_users);
    asio::io_context io;
    auto options = options_for(std::string(signed_as.client_id.view()));
    options.credentials.user_name = signed_as.user_name.view();
    options.credentials.password = signed_as.password.view();
    session<T> s(io.get_executor(), test::way<T>::to(broker), options);
    converse(io, s, exchange(s));
    CHECK(broker.log().find("u'thermostat-7&a1B2c3D4e5F'") != std::string::npos);

    constexpr runnel::aliyun::device other{"a1B2c3D4e5F", "thermostat-7", "another secret"};
    options.credentials.password = runnel::aliyun::sign(other).password.view();
    session<T> forger(io.get_executor(), test::way<T>::to(broker), options);
    CHECK(test::error_of(io, forger.run()) == mqtt::reason_code::not_authorized);
}

TEST_CASE_TEMPLATE("an idle session pings in time, and mosquitto keeps the connection", T, runnel::tcp, test::wss) {
    // Shows [MQTT-3.1.2-20] [MQTT-3.1.2-23 of 3.1.1].
    test::mosquitto broker;
    asio::io_context io;
    auto options = options_for("idle");
    options.keep_alive = std::chrono::seconds(1);
    session<T> s(io.get_executor(), test::way<T>::to(broker), options);
    converse(io, s, pause(std::chrono::milliseconds(3200)));  // mosquitto cuts after 1.5 s of silence
    CHECK(s.counters().connections == 1);
    std::size_t pings = 0;
    auto const log = broker.log();
    for (auto at = log.find("PINGREQ"); at != std::string::npos; at = log.find("PINGREQ", at + 1)) ++pings;
    CHECK(pings >= 3);
    CHECK(pings <= 5);
}

TEST_CASE_TEMPLATE("a session reconnects when mosquitto is killed and started again, and subscribes anew", T,
                   RUNNEL_TRANSPORTS) {
    test::mosquitto broker;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        auto options = options_for("survivor", version);
        options.clean_start = false;
        bool waiting = false;
        options.on_event = [&](mqtt::session_event const& e) {
            waiting = e.what == mqtt::session_event::kind::waiting;
        };
        session<T> s(io.get_executor(), test::way<T>::to(broker), options);
        test::task<void> running(io, s.run());
        auto inbox = test::run(io, s.subscribe("runnel/survivor"));
        broker.kill();
        for (int i = 0; i < 100 && !waiting; ++i) test::run(io, pause(std::chrono::milliseconds(10)));
        CHECK_FALSE(s.is_connected());
        test::task<mqtt::publish_result> publishing(
            io, s.publish("runnel/survivor", "meanwhile", {.qos = qos::exactly_once}));
        test::run(io, pause(std::chrono::milliseconds(20)));
        CHECK_FALSE(publishing.done());
        broker.start();
        CHECK(publishing.run() == mqtt::reason_code::success);
        auto const m = test::run(io, inbox.receive());
        CHECK(m.payload() == "meanwhile");
        CHECK(s.counters().connections == 2);
        test::run(io, s.disconnect());
        CHECK_FALSE(running.run_for_error());
    }
}

TEST_CASE("who takes one port for another is asked whether it is the right one") {
    test::mosquitto broker;
    auto const tcp = test::way<runnel::tcp>::to(broker);
    auto const tls = test::way<test::tls>::to(broker);
    auto const ws = test::way<test::ws>::to(broker);
    auto const wss = test::way<test::wss>::to(broker);
    auto const at = [](auto transport, std::uint16_t port) {
        transport.port = port;
        return text_of_attempt(std::move(transport));
    };
    auto const has = [](std::string const& text, char const* part) {
        if (text.find(part) == std::string::npos) FAIL_CHECK(text, " lacks ", part);
    };
    has(at(tcp, broker.port_tls()), "is this a TLS or WebSocket port?");
    has(at(tcp, broker.port_ws()), "is this a WebSocket port?");
    has(at(tcp, broker.port_wss()), "is this a TLS or WebSocket port?");
    has(at(tls, broker.port_tcp()), "is this a TLS port?");
    has(at(tls, broker.port_ws()), "is this a TLS port?");
    has(at(tls, broker.port_wss()), "is this a WebSocket port?");
    has(at(tls, broker.port_mutual_tls()), "is there a certificate_file?");
    has(at(ws, broker.port_tcp()), "is this a WebSocket port?");
    has(at(ws, broker.port_tls()), "is this a WebSocket port?");
    has(at(ws, broker.port_wss()), "is this a WebSocket port?");
    has(at(wss, broker.port_tcp()), "is this a TLS port?");
    has(at(wss, broker.port_tls()), "is this a WebSocket port?");
    has(at(wss, broker.port_ws()), "is this a TLS port?");
    auto other = tls;
    other.server_name = "other.example";
    has(text_of_attempt(other), "it must be for 'other.example'");
    other.context = {};
    has(text_of_attempt(other), "is it in ca_file?");
}
