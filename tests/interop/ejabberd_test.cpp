#include "interop/ejabberd.hpp"

#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "interop/conversation.hpp"
#include "support/skip.hpp"

// A session against another real broker: Debian's ejabberd.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::protocol_version;
using mqtt::qos;
using test::options_for;

test::skip_unless const ready(test::ejabberd::available, "ejabberd is not installed");

// One for all tests: it takes its time to start. What one test publishes does not concern another.
test::ejabberd const& broker() {
    static test::ejabberd const started;
    return started;
}

std::string new_identifier() {
    static int used = 0;
    return "lasting" + std::to_string(++used);
}

template <class T>
T to_broker() {
    return test::way<T>::to(broker());
}

}  // namespace

TEST_CASE_TEMPLATE("messages of every QoS go to ejabberd and back", T, runnel::tcp, test::tls, test::ws, test::wss) {
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        mqtt::session<T> s(io.get_executor(), to_broker<T>(), options_for("exchange", version));
        test::converse(io, s, test::exchange(s));
        CHECK(s.counters().connections == 1);
    }
}

TEST_CASE_TEMPLATE("a message of 1 MiB goes to ejabberd and back", T, runnel::tcp, test::ws) {
    asio::io_context io;
    mqtt::session<T> s(io.get_executor(), to_broker<T>(), options_for("large"));
    std::string const payload = test::noise(1024 * 1024);
    auto const large = [&]() -> asio::awaitable<void> {
        auto inbox = co_await s.subscribe("runnel/large");
        co_await s.publish("runnel/large", payload, {.qos = qos::exactly_once});
        auto const m = co_await inbox.receive();
        CHECK((m.payload() == payload));
    };
    test::converse(io, s, large());
}

TEST_CASE_TEMPLATE("properties go to ejabberd and back", T, runnel::tcp, test::ws) {
    asio::io_context io;
    mqtt::session<T> s(io.get_executor(), to_broker<T>(), options_for("properties", protocol_version::v5));
    test::converse(io, s, test::exchange_properties(s));
    test::converse(io, s, test::ask_and_answer(s));
}

TEST_CASE_TEMPLATE("ejabberd keeps messages for a session while it is away, and the session resumes", T, runnel::tcp,
                   test::ws) {
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        auto lasting = options_for(new_identifier(), version);
        lasting.clean_start = false;
        bool present = false;
        lasting.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::connected) present = e.session_present;
        };
        mqtt::session<T> away(io.get_executor(), to_broker<T>(), lasting);
        mqtt::session<T> other(io.get_executor(), to_broker<T>(), options_for("other", version));
        test::task<void> others(io, other.run());
        test::task<void> running(io, away.run());
        auto inbox = test::run(io, away.subscribe("runnel/away"));
        CHECK_FALSE(present);
        running.cancel();
        CHECK(running.run_for_error() == asio::error::operation_aborted);

        test::run(io, other.publish("runnel/away", "first", {.qos = qos::at_least_once}));
        test::run(io, other.publish("runnel/away", "second", {.qos = qos::exactly_once}));
        test::task<void> again(io, away.run());
        CHECK(test::run(io, inbox.receive()).payload() == "first");  // let go of at once: it sends one at a time
        CHECK(present);
        CHECK(test::run(io, inbox.receive()).payload() == "second");
        test::run(io, away.disconnect());
        test::run(io, other.disconnect());
    }
}

TEST_CASE("ejabberd publishes the will of a session whose connection is cut, in MQTT 5 after its delay") {
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        asio::io_context io;
        auto with_will = options_for("mortal", version);
        with_will.will.emplace();
        with_will.will->topic = "runnel/will";
        with_will.will->payload = "gone";
        if (version == protocol_version::v5) with_will.will->delay = std::chrono::seconds(1);
        mqtt::session<runnel::tcp> mortal(io.get_executor(), to_broker<runnel::tcp>(), with_will);
        mqtt::session<runnel::tcp> heir(io.get_executor(), to_broker<runnel::tcp>(), options_for("heir", version));
        test::task<void> running(io, heir.run());
        auto inbox = test::run(io, heir.subscribe("runnel/will"));
        test::task<void> dying(io, mortal.run());
        test::run(io, mortal.connected());
        auto const cut_at = std::chrono::steady_clock::now();
        dying.cancel();
        CHECK(dying.run_for_error() == asio::error::operation_aborted);
        CHECK(test::run(io, inbox.receive()).payload() == "gone");
        if (version == protocol_version::v5)
            CHECK(std::chrono::steady_clock::now() - cut_at > std::chrono::milliseconds(900));
        test::run(io, heir.disconnect());
    }
}

TEST_CASE("ejabberd announces that it has no shared subscriptions, and none is asked for") {
    asio::io_context io;
    mqtt::session<runnel::tcp> s(io.get_executor(), to_broker<runnel::tcp>(),
                                 options_for("sharing", protocol_version::v5));
    test::task<void> running(io, s.run());
    test::run(io, s.connected());
    CHECK(test::error_of(io, s.subscribe("$share/group/runnel/jobs")) == mqtt::errc::shared_subscription_not_available);
    CHECK(s.counters().connections == 1);
    test::run(io, s.disconnect());
}

TEST_CASE("ejabberd tells a session that another has taken its client identifier") {
    asio::io_context io;
    auto options = options_for("twin", protocol_version::v5);
    std::error_code why;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == mqtt::session_event::kind::disconnected) why = e.error;
    };
    options.reconnect.attempts = 1;
    mqtt::session<runnel::tcp> first(io.get_executor(), to_broker<runnel::tcp>(), options);
    mqtt::session<runnel::tcp> second(io.get_executor(), to_broker<runnel::tcp>(),
                                      options_for("twin", protocol_version::v5));
    test::task<void> running(io, first.run());
    test::run(io, first.connected());
    test::task<void> others(io, second.run());
    test::run(io, second.connected());
    CHECK(running.run_for_error() == mqtt::reason_code::session_taken_over);
    CHECK(why == mqtt::reason_code::session_taken_over);
    test::run(io, second.disconnect());
}
