#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// Every operation ends exactly once, whatever ends it: run's end, cancellation, the session's or the context's end.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::qos;
using test::memory_fixture;
using test::memory_session;
using test::only;
using test::quick;
using test::task;
using subscription = mqtt::basic_subscription<test::executor>;
using operation = std::function<asio::awaitable<void>(memory_session&, subscription&)>;

mqtt::session_options small() {
    auto o = quick();
    o.maximum_queued = 300;
    o.maximum_unwritten = 300;
    return o;
}

asio::awaitable<void> receive(subscription& s) { co_await s.receive(); }

// All operations, each by itself.
std::vector<operation> const operations = {
    [](auto& s, auto&) { return only(s.publish("t", "p")); },
    [](auto& s, auto&) { return only(s.publish("t", "p", {.qos = qos::at_least_once})); },
    [](auto& s, auto&) { return only(s.publish("t", "p", {.qos = qos::exactly_once})); },
    [](auto& s, auto&) { return only(s.subscribe("u")); },
    [](auto& s, auto&) { return only(s.subscribe("u", [](mqtt::publish const&) {})); },
    [](auto& s, auto& i) { return s.unsubscribe(i); },
    [](auto&, auto& i) { return receive(i); },
    [](auto& s, auto&) { return s.connected(); },
    [](auto& s, auto&) { return s.disconnect(); },
};

// How long until an operation must have to wait: nothing, acknowledgements, or room.
enum class obstacle { none, acknowledgements, room, connection };

struct scene : memory_fixture {
    explicit scene(obstacle o) : session(io.get_executor(), transport, small()) {
        running.emplace(io, session.run());
        inbox = test::run(io, session.subscribe("t"));
        if (o == obstacle::acknowledgements) broker.hold_acknowledgements(true);
        if (o == obstacle::room) {
            broker.hold_acknowledgements(true);
            while (session.try_publish("x", std::string(60, 'x'), {.qos = qos::at_least_once})) {
            }
            while (session.try_publish("x", std::string(60, 'x'))) {
            }
        }
        if (o == obstacle::connection) {
            on_open = [](auto&) { throw std::system_error(asio::error::connection_refused); };
            broker.drop_client("client");
            settle();
        }
    }

    void turns(int count) {
        io.restart();
        for (int i = 0; i < count; ++i) io.poll_one();
    }

    // The session is as good as before.
    void check_session() {
        on_open = {};
        broker.hold_acknowledgements(false);
        if (running->done()) {
            CHECK_FALSE(running->error());
            running.emplace(io, session.run());
        }
        CHECK_NOTHROW(test::run(io, session.publish("check", "p", {.qos = qos::exactly_once})));
        auto again = test::run(io, session.subscribe("check"));
        broker.publish("check", "p", qos::exactly_once);
        CHECK(test::run(io, again.receive()).payload() == "p");
        test::run(io, session.disconnect());
        running->run();
        CHECK(running->ended() == 1);
        CHECK(broker.counters().protocol_errors == 0);
    }

    std::optional<task<void>> running;  // first, as its cancellation signal must outlive the session's coroutines
    memory_session session;
    subscription inbox;
};

constexpr obstacle obstacles[] = {obstacle::none, obstacle::acknowledgements, obstacle::room, obstacle::connection};

}  // namespace

TEST_CASE("each operation can be cancelled at each point, ends once, and the session goes on") {
    int cancelled = 0;
    for (auto const obstacle : obstacles) {
        for (std::size_t which = 0; which < operations.size(); ++which) {
            for (int turns = 0; turns < 24; ++turns) {
                CAPTURE(static_cast<int>(obstacle));
                CAPTURE(which);
                CAPTURE(turns);
                scene s(obstacle);
                task<void> t(s.io, operations[which](s.session, s.inbox));
                s.turns(turns);
                bool const done = t.done();
                t.cancel();
                s.settle();
                CHECK(t.ended() == 1);
                cancelled += t.error() == asio::error::operation_aborted;
                s.check_session();
                CHECK(t.ended() == 1);
                if (done) break;
            }
        }
    }
    CHECK(cancelled > 100);
}

TEST_CASE("run can be cancelled at each point; it ends once, and with it all operations") {
    for (auto const obstacle : obstacles) {
        for (int turns = 0; turns < 40; ++turns) {
            CAPTURE(static_cast<int>(obstacle));
            CAPTURE(turns);
            scene s(obstacle);
            std::vector<std::unique_ptr<task<void>>> all;
            for (auto const& make : operations)
                if (&make != &operations.back())
                    all.push_back(std::make_unique<task<void>>(s.io, make(s.session, s.inbox)));
            s.turns(16 + turns);
            s.running->cancel();
            s.settle();
            CHECK(s.running->ended() == 1);
            CHECK(s.running->error() == asio::error::operation_aborted);
            CHECK_FALSE(s.session.is_connected());
            for (auto const& t : all) {
                CHECK(t->ended() == 1);
                auto const error = t->error();
                CHECK((!error || error == errc::disconnected));
            }
            s.running.emplace(s.io, s.session.run());
            s.check_session();
        }
    }
}

TEST_CASE("when run ends by disconnect, all operations end") {
    for (int turns = 0; turns < 40; ++turns) {
        CAPTURE(turns);
        scene s(obstacle::acknowledgements);
        std::vector<std::unique_ptr<task<void>>> all;
        for (auto const& make : operations) all.push_back(std::make_unique<task<void>>(s.io, make(s.session, s.inbox)));
        s.turns(16 + turns);
        task<void> leaving(s.io, s.session.disconnect());
        leaving.run();
        CHECK_FALSE(s.running->run_for_error());
        s.settle();
        for (auto const& t : all) CHECK(t->ended() == 1);
        // And so does what begins to wait for messages later.
        CHECK(test::error_of(s.io, s.inbox.receive()) == errc::disconnected);
    }
}

TEST_CASE("when the session is destroyed, all operations end") {
    for (bool const full : {false, true}) {
        memory_fixture p;
        auto session = std::make_unique<memory_session>(p.io.get_executor(), p.transport, small());
        while (full && session->try_publish("t", "p")) {
        }
        std::vector<std::unique_ptr<task<void>>> all;
        subscription none;
        for (std::size_t i = full ? 0 : 1; i < 5; ++i)
            all.push_back(std::make_unique<task<void>>(p.io, operations[i](*session, none)));
        all.push_back(std::make_unique<task<void>>(p.io, session->connected()));
        p.settle();
        for (auto const& t : all) CHECK_FALSE(t->done());
        session.reset();
        p.settle();
        for (auto const& t : all) {
            CHECK(t->ended() == 1);
            CHECK(t->error() == errc::disconnected);
        }
    }
}

TEST_CASE("messages and subscriptions may outlive the session") {
    memory_fixture p;
    std::optional<mqtt::message> kept;
    subscription inbox;
    subscription ended;
    {
        memory_session session(p.io.get_executor(), p.transport, quick());
        task<void> running(p.io, session.run());
        inbox = test::run(p.io, session.subscribe("t"));
        ended = test::run(p.io, session.subscribe("t"));
        p.broker.publish("t", "first", qos::at_least_once);
        p.broker.publish("t", "second", qos::exactly_once);
        kept = test::run(p.io, inbox.receive());
        test::run(p.io, session.unsubscribe(ended));
        test::run(p.io, session.disconnect());
        running.run();
    }
    CHECK(kept->payload() == "first");
    kept.reset();
    CHECK(inbox.try_receive()->payload() == "second");
    CHECK(test::error_of(p.io, inbox.receive()) == errc::disconnected);
    while (ended.try_receive()) {
    }
    CHECK(test::error_of(p.io, ended.receive()) == errc::disconnected);
}

TEST_CASE("the context can be destroyed at any moment, after the session, and nothing leaks") {
    for (auto const obstacle : obstacles) {
        for (int turns = 0; turns < 60; ++turns) {
            scene s(obstacle);
            for (auto const& make : operations)
                asio::co_spawn(s.io, make(s.session, s.inbox), [](std::exception_ptr) {});
            s.turns(turns);
        }
    }
}
