#include <runnel/mqtt/client/session.hpp>

#include <asio/error.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::reason_code;
using test::hex;
using test::memory_fixture;
using test::memory_session;
using test::quick;
using test::scripted_peer;
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

// One that takes its time, and a while longer when it is cancelled; and then looks what it has.
struct slow {
    std::string method() const { return "counting"; }
    asio::awaitable<std::string> begin() {
        co_await wait();
        co_return std::string(*beginning);
    }
    asio::awaitable<std::string> answer(std::string data) {
        co_await wait();
        co_return std::to_string(std::stoi(data) + 1);
    }
    asio::awaitable<void> finish(std::string data) {
        co_await wait();
        if (data != "welcome") throw std::runtime_error("not the right server: " + data);
    }
    asio::awaitable<void> wait() {
        if (quick) co_return;
        asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::milliseconds(1));
        runnel::asio_error_code ignored;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
        ++uses;
    }

    std::unique_ptr<std::string> beginning = std::make_unique<std::string>("begin");
    bool quick = false;
    int uses = 0;
};

// A broker that wants to hear 2 and 11, in answer to 1 and 10.
struct counting_fixture : memory_fixture {
    counting_fixture() {
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
    counting_fixture p;
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
    counting_fixture p;
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
    memory_fixture p;
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    int beginnings = 0;
    s.set_authenticator(counter{&beginnings});
    task<void> running(p.io, s.run());
    CHECK(running.run_for_error() == reason_code::bad_authentication_method);
}

TEST_CASE("a server that does not prove who it is gets no message") {
    counting_fixture p;
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

TEST_CASE("what comes in the same read behind CONNACK waits until the authenticator has accepted the server") {
    struct judge {
        bool accepts;
        std::function<bool()> is_connected;
        std::string method() const { return "m"; }
        asio::awaitable<std::string> begin() { co_return "b"; }
        asio::awaitable<std::string> answer(std::string) { co_return ""; }
        asio::awaitable<void> finish(std::string) {
            CHECK_FALSE(is_connected());
            co_await asio::post(asio::use_awaitable);
            CHECK_FALSE(is_connected());
            if (!accepts)
                throw std::system_error(std::make_error_code(std::errc::permission_denied), "not the right server");
        }
    };
    for (bool const accepts : {false, true}) {
        CAPTURE(accepts);
        std::vector<std::string> got;
        std::vector<mqtt::session_event> events;
        scripted_peer p([&](test::heard_packet const& h) -> std::optional<std::string> {
            if (h.type == mqtt::packet_type::connect)
                return test::packet(0x20, hex("01 00") + test::properties_field(hex("15 00 01 'm' 16 00 01 'p'"))) +
                       test::packet(0x30, hex("00 03 'cmd' 00 'open'")) +
                       test::packet(0x30, hex("00 03 'cmd' 00 'shut'"));
            if (h.type == mqtt::packet_type::subscribe) return test::packet(0x90, h.identifier() + hex("00 00"));
            return "";
        });
        auto o = quick("client", v5);
        o.on_event = [&](auto const& e) { events.push_back(e); };
        memory_session s(p.io.get_executor(), p.transport, o);
        s.set_authenticator(judge{accepts, [&s] { return s.is_connected(); }});
        task<void> connecting(p.io, s.connected());
        task<memory_session::subscription> subscribing(
            p.io, s.subscribe("cmd", [&](mqtt::publish const& m) { got.emplace_back(m.payload); }));
        task<void> running(p.io, s.run());
        CHECK(test::wait_until(p.io, [&] { return running.done() || subscribing.done(); }));
        auto const connected =
            std::ranges::find(events, mqtt::session_event::kind::connected, &mqtt::session_event::what);
        CHECK((connected != events.end()) == accepts);
        if (accepts) {
            CHECK(connected->session_present);
            CHECK(s.is_connected());
            CHECK_FALSE(connecting.run_for_error());
            CHECK(got == std::vector<std::string>{"open", "shut"});
            CHECK(s.counters().connections == 1);
            running.cancel();
            CHECK(running.run_for_error() == asio::error::operation_aborted);
        } else {
            CHECK(got.empty());
            CHECK(connecting.run_for_error() == errc::disconnected);
            CHECK(s.counters().connections == 0);
            CHECK(running.run_for_error() == std::errc::permission_denied);
            auto const ended =
                std::ranges::find(events, mqtt::session_event::kind::disconnected, &mqtt::session_event::what);
            REQUIRE(ended != events.end());
            CHECK(ended->step == runnel::connect_step::authenticate);
        }
    }
}

TEST_CASE("who subscribes while the server is not proved yet subscribes once, behind the proof") {
    scripted_peer p([](test::heard_packet const& h) -> std::optional<std::string> {
        if (h.type == mqtt::packet_type::connect)
            return test::packet(0x20, hex("00 00") + test::properties_field(hex("15 00 01 'm' 16 00 01 'p'")));
        if (h.type == mqtt::packet_type::subscribe) return test::packet(0x90, h.identifier() + hex("00 00"));
        return "";
    });
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    bool is_proved = false;
    struct judge {
        bool* is_proved;
        std::string method() const { return "m"; }
        asio::awaitable<std::string> begin() { co_return "b"; }
        asio::awaitable<std::string> answer(std::string) { co_return ""; }
        asio::awaitable<void> finish(std::string) {
            while (!*is_proved) co_await asio::post(asio::use_awaitable);
        }
    };
    s.set_authenticator(judge{&is_proved});
    task<memory_session::subscription> first(p.io, s.subscribe("a"));
    task<void> running(p.io, s.run());
    CHECK(test::wait_until(p.io, [&] { return p.count(mqtt::packet_type::connect) == 1; }));
    for (int i = 0; i < 100; ++i) p.io.poll_one();
    task<memory_session::subscription> second(p.io, s.subscribe("b"));
    task<void> connecting(p.io, s.connected());
    for (int i = 0; i < 100; ++i) p.io.poll_one();
    CHECK(p.count(mqtt::packet_type::subscribe) == 0);
    CHECK_FALSE(connecting.done());
    is_proved = true;
    first.run();
    second.run();
    CHECK(connecting.done());
    CHECK(p.count(mqtt::packet_type::subscribe) == 2);
    running.cancel();
    CHECK(running.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("a refused re-authentication ends the connection") {
    counting_fixture p;
    auto const s = p.session();
    task<void> running(p.io, s->run());
    test::run(p.io, s->connected());
    p.broker.hooks().authenticate = [](auto&) { return reason_code::not_authorized; };
    CHECK(test::error_of(p.io, s->reauthenticate()) == errc::disconnected);
    CHECK(running.run_for_error() == reason_code::not_authorized);
}

TEST_CASE("there is nothing to authenticate again without a connection, or without an authenticator") {
    counting_fixture p;
    CHECK(test::error_of(p.io, p.session()->reauthenticate()) == errc::not_connected);
    test::connected_session plain(quick("client", v5));
    CHECK(test::error_of(plain.io, plain.session.reauthenticate()) == errc::not_connected);
    plain.disconnect();
    memory_session old(p.io.get_executor(), p.transport, quick());
    CHECK_THROWS_AS(old.set_authenticator(counter{nullptr}), std::system_error);
}

TEST_CASE("the connection ends when the authenticator does not accept the server's new proof [MQTT-4.12.1-2]") {
    std::vector<mqtt::session_event> lost;
    counting_fixture p;
    auto options = quick("client", v5);
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == mqtt::session_event::kind::disconnected) lost.push_back(e);
    };
    memory_session s(p.io.get_executor(), p.transport, options);
    s.set_authenticator(counter{&p.beginnings});
    task<void> running(p.io, s.run());
    test::run(p.io, s.connected());
    p.farewell = "forged";
    task<void> again(p.io, s.reauthenticate());
    CHECK_THROWS_WITH_AS(again.run(), "not the right server: forged", std::runtime_error);
    p.farewell = "welcome";
    CHECK(test::wait_until(p.io, [&] { return s.counters().connections == 2; }));
    CHECK(lost.size() == 1);
    CHECK(lost.at(0).error == errc::authentication_failed);
    test::run(p.io, s.reauthenticate());
    test::run(p.io, s.disconnect());
}

TEST_CASE("the server is told by DISCONNECT when the authenticator fails, and gets no message behind it") {
    std::string const method = hex("15") + test::field("counting");
    scripted_peer p([&](test::heard_packet const& h) -> std::optional<std::string> {
        auto const props = test::properties_field(method + hex("16") + test::field("10"));
        if (h.type == mqtt::packet_type::connect) return test::packet(0x20, hex("00 00") + props);
        return h.type == mqtt::packet_type::auth ? test::packet(0xF0, hex("00") + props) : "";
    });
    memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
    struct trusting_once : counter {
        asio::awaitable<void> finish(std::string) {
            if (++times > 1) throw std::runtime_error("no more");
            co_return;
        }
        int times = 0;
    };
    int beginnings = 0;
    s.set_authenticator(trusting_once{{&beginnings}});
    task<void> running(p.io, s.run());
    test::run(p.io, s.connected());
    task<void> again(p.io, s.reauthenticate());
    CHECK_THROWS_WITH_AS(again.run(), "no more", std::runtime_error);
    CHECK_FALSE(s.is_connected());
    CHECK(s.try_publish("secret", "", {.qos = mqtt::qos::at_least_once}));
    // The next connection's proof is no better, which ends `run`.
    CHECK_THROWS_WITH_AS(running.run(), "no more", std::runtime_error);
    CHECK(p.connections == 2);
    CHECK(p.count(mqtt::packet_type::disconnect) == 1);
    CHECK(p.count(mqtt::packet_type::publish) == 0);
    for (auto const& h : p.heard)
        if (h.type == mqtt::packet_type::disconnect) CHECK(h.body.substr(0, 1) == hex("80"));
}

TEST_CASE("a re-authentication that is cancelled at any point can be brought to its end by another") {
    int cancelled = 0;
    for (bool const waits : {false, true}) {
        for (int turns = 0; turns < 60; ++turns) {
            CAPTURE(turns);
            counting_fixture p;
            memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
            s.set_authenticator(slow{.quick = !waits});
            task<void> running(p.io, s.run());
            test::run(p.io, s.connected());
            {
                task<void> again(p.io, s.reauthenticate());
                for (int i = 0; i < turns && !again.done(); ++i) {
                    p.io.restart();
                    p.io.run_one();
                }
                again.cancel();
                again.run_for_error();
                CHECK(again.ended() == 1);
                cancelled += again.error() == asio::error::operation_aborted;
            }
            if (turns % 2 == 1) p.settle();  // the server's answer comes before the next one, or behind its beginning
            task<void> again(p.io, s.reauthenticate());
            CHECK_FALSE(again.run_for_error());
            CHECK(s.counters().connections == 1);
            test::run(p.io, s.disconnect());
            CHECK(p.broker.counters().protocol_errors == 0);
        }
    }
    CHECK(cancelled > 20);
}

TEST_CASE("a re-authentication ends with the connection, with run, and with the session, at each of its steps") {
    enum class end { connection, run, session };
    for (auto const how : {end::connection, end::run, end::session}) {
        for (int turns = 0; turns < 40; ++turns) {
            CAPTURE(static_cast<int>(how));
            CAPTURE(turns);
            counting_fixture p;
            std::optional<memory_session> s(std::in_place, p.io.get_executor(), p.transport, quick("client", v5));
            s->set_authenticator(slow{});
            std::optional<task<void>> running(std::in_place, p.io, s->run());
            test::run(p.io, s->connected());
            task<void> again(p.io, s->reauthenticate());
            for (int i = 0; i < turns && !again.done(); ++i) {
                p.io.restart();
                p.io.run_one();
            }
            if (again.done()) {
                CHECK_FALSE(again.error());
                break;
            }
            if (how == end::connection) p.broker.drop_client("client");
            if (how == end::run) running->cancel();
            if (how == end::session) {
                task<void> leaving(p.io, s->disconnect());
                leaving.run();
                running->run();
                s.reset();
            }
            auto const error = again.run_for_error();
            CHECK((!error || error == errc::disconnected || error == errc::not_connected));
            CHECK(again.ended() == 1);
            p.settle();
        }
    }
}

TEST_CASE("two that authenticate again take turns") {
    counting_fixture p;
    auto const s = p.session();
    task<void> running(p.io, s->run());
    test::run(p.io, s->connected());
    task<void> first(p.io, s->reauthenticate());
    task<void> second(p.io, s->reauthenticate());
    CHECK_FALSE(second.run_for_error());
    CHECK(first.done());
    CHECK(p.beginnings == 3);
    test::run(p.io, s->disconnect());
}

namespace {

// What an authenticator is asked for waits as long as the test says, cancelled or not, or then fails.
struct patient_state {
    explicit patient_state(asio::io_context& io) : timer(io) {}
    asio::steady_timer timer;
    std::string waits_in{};  // "begin", "answer" or "finish"
    bool heeds_cancellation = false;
    bool fails = false;
    std::vector<std::string> asked{};

    void go_on() { timer.cancel(); }
};
struct patient {
    std::string method() const { return name; }
    asio::awaitable<std::string> begin() {
        co_await step("begin");
        co_return "begin of " + name;
    }
    asio::awaitable<std::string> answer(std::string) {
        co_await step("answer");
        co_return "answer";
    }
    asio::awaitable<void> finish(std::string) { co_await step("finish"); }
    asio::awaitable<void> step(std::string what) {
        auto& s = *state;
        s.asked.push_back(what);
        if (s.waits_in != what) co_return;
        s.timer.expires_after(std::chrono::hours(1));
        if (!s.heeds_cancellation) {
            co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
            co_await asio::this_coro::throw_if_cancelled(false);
        }
        runnel::asio_error_code error;
        co_await s.timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
        auto const cancellation = co_await asio::this_coro::cancellation_state;
        if (s.heeds_cancellation && cancellation.cancelled() != asio::cancellation_type::none)
            throw std::system_error(asio::error::operation_aborted);
        if (s.fails) throw std::runtime_error("not the right server");
    }

    std::string name;
    patient_state* state;
};

std::string props_of(std::string const& method) {
    return test::properties_field(hex("15") + test::field(method) + hex("16") + test::field("data"));
}
std::string connack_of(std::string const& method) { return test::packet(0x20, hex("00 00") + props_of(method)); }
std::string auth_of(std::string const& method, char reason = '\x18') {
    return test::packet(0xF0, reason + props_of(method));
}

}  // namespace

TEST_CASE("after a refusal, and after an end in the middle, the next connection is authenticated anew") {
    for (bool const refuses : {true, false}) {
        scripted_peer p([&](test::heard_packet const& h) -> std::optional<std::string> {
            if (h.type == mqtt::packet_type::connect)
                return h.connection != 0 ? connack_of("m") : refuses ? hex("20 03 00 89 00") : auth_of("m");
            return h.type == mqtt::packet_type::auth ? std::nullopt : std::optional<std::string>("");
        });
        std::vector<mqtt::session_event> lost;
        auto options = quick("client", v5);
        options.on_event = [&](mqtt::session_event const& e) {
            if (e.what == mqtt::session_event::kind::disconnected) lost.push_back(e);
        };
        memory_session s(p.io.get_executor(), p.transport, options);
        patient_state state(p.io);
        s.set_authenticator(patient{"m", &state});
        task<void> running(p.io, s.run());
        CHECK(test::wait_until(p.io, [&] { return s.counters().connections == 1; }, std::chrono::seconds(2)));
        REQUIRE(lost.size() == 1);
        CHECK(lost[0].step == (refuses ? runnel::connect_step::accept : runnel::connect_step::authenticate));
        running.cancel();
        running.run_for_error();
    }
}

TEST_CASE("an authenticator that is asked while its connection ends is cancelled, and is asked for nothing more") {
    scripted_peer p([](test::heard_packet const& h) -> std::optional<std::string> {
        if (h.type == mqtt::packet_type::connect) return connack_of("m");
        if (h.type == mqtt::packet_type::auth) return auth_of("m", '\0');
        return h.type == mqtt::packet_type::publish ? std::nullopt : std::optional<std::string>("");
    });
    auto options = quick("client", v5);
    options.reconnect.initial = options.reconnect.maximum = std::chrono::hours(1);
    memory_session s(p.io.get_executor(), p.transport, options);
    patient_state state(p.io);
    s.set_authenticator(patient{"m", &state});
    task<void> running(p.io, s.run());
    test::run(p.io, s.connected());
    test::settle(p.io);
    SUBCASE("cancelled") {
        state.waits_in = "begin";
        state.heeds_cancellation = true;
        task<void> again(p.io, s.reauthenticate());
        test::settle(p.io);
        CHECK(s.try_publish("end", ""));
        test::settle(p.io);
        REQUIRE(again.done());
        CHECK(again.error() == errc::disconnected);
    }
    SUBCASE("nothing more") {
        // The first lets go where it would judge the server; the second goes on there, over the end.
        state.waits_in = "finish";
        state.heeds_cancellation = true;
        task<void> first(p.io, s.reauthenticate());
        test::settle(p.io);
        first.cancel();
        CHECK(first.run_for_error() == asio::error::operation_aborted);
        state.heeds_cancellation = false;
        task<void> second(p.io, s.reauthenticate());
        test::settle(p.io);
        auto const before = state.asked;
        CHECK(before.back() == "finish");
        CHECK(s.try_publish("end", ""));
        test::settle(p.io);
        CHECK_FALSE(s.is_connected());
        state.go_on();
        CHECK(second.run_for_error() == errc::disconnected);
        CHECK(state.asked == before);
    }
    running.cancel();
    running.run_for_error();
}

TEST_CASE("an authenticator that takes the place of another one is asked from the beginning") {
    SUBCASE("before CONNECT") {
        scripted_peer p([](test::heard_packet const& h) -> std::optional<std::string> {
            return h.type == mqtt::packet_type::connect ? connack_of("new") : std::string();
        });
        memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
        patient_state state(p.io), other(p.io);
        state.waits_in = "begin";
        s.set_authenticator(patient{"old", &state});
        task<void> running(p.io, s.run());
        test::settle(p.io);
        s.set_authenticator(patient{"new", &other});
        state.go_on();
        test::run(p.io, s.connected());
        for (auto const& h : p.heard)
            if (h.type == mqtt::packet_type::connect) CHECK(h.body.find("begin of new") != std::string::npos);
        running.cancel();
        running.run_for_error();
    }
    SUBCASE("while the server has the turn") {
        bool silent = true;
        scripted_peer p([&](test::heard_packet const& h) -> std::optional<std::string> {
            if (h.type == mqtt::packet_type::connect) return connack_of("m");
            if (h.type == mqtt::packet_type::publish) return auth_of("m");
            return h.type == mqtt::packet_type::auth && !silent ? auth_of("m", '\0') : "";
        });
        memory_session s(p.io.get_executor(), p.transport, quick("client", v5));
        patient_state state(p.io), other(p.io);
        s.set_authenticator(patient{"m", &state});
        task<void> running(p.io, s.run());
        test::run(p.io, s.connected());
        test::settle(p.io);
        task<void> again(p.io, s.reauthenticate());
        test::settle(p.io);
        s.set_authenticator(patient{"m", &other});
        CHECK(again.run_for_error() == errc::disconnected);
        CHECK(s.try_publish("go on", ""));  // what the server then asks is for the one that has gone
        test::settle(p.io);
        CHECK(other.asked.empty());
        task<void> last(p.io, s.reauthenticate());
        test::settle(p.io);
        CHECK(other.asked == std::vector<std::string>{"begin"});
        running.cancel();
        running.run_for_error();
        last.run_for_error();
    }
}

TEST_CASE("an authentication that fails while the session disconnects is not what ends the connection") {
    asio::io_context io;
    std::optional<runnel::memory_stream<>> server;
    runnel::memory_transport const transport(
        [&](runnel::memory_stream<> stream) { server.emplace(std::move(stream)); });
    auto options = quick("client", v5);
    options.close_timeout = std::chrono::milliseconds(100);
    memory_session s(io.get_executor(), transport, options);
    patient_state state(io);
    state.waits_in = "answer";
    state.fails = true;
    s.set_authenticator(patient{"m", &state});
    task<void> running(io, s.run());
    REQUIRE(test::wait_until(io, [&] { return server.has_value(); }));
    test::run(io, test::write_text(*server, connack_of("m")));
    test::run(io, s.connected());
    task<void> again(io, s.reauthenticate());
    test::settle(io);
    test::run(io, test::write_text(*server, auth_of("m")));
    test::settle(io);
    CHECK(state.asked.back() == "answer");
    task<mqtt::publish_result> publishing(io, s.publish("t", "x", {.qos = mqtt::qos::at_least_once}));
    test::settle(io);
    task<void> leaving(io, s.disconnect());
    test::settle(io);
    CHECK_FALSE(leaving.done());
    state.go_on();
    test::settle(io);
    CHECK_FALSE(leaving.done());
    CHECK_FALSE(running.done());
    test::run(io, test::write_text(*server, hex("40 02 00 01")));  // which counts
    test::settle(io);
    REQUIRE(publishing.done());
    CHECK_FALSE(publishing.error());
    server.reset();
    CHECK_FALSE(leaving.run_for_error());
    CHECK_FALSE(running.run_for_error());
    CHECK_THROWS_WITH_AS(again.run(), "not the right server", std::runtime_error);
}
