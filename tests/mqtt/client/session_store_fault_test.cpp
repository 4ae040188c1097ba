#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include <algorithm>
#include <cstddef>
#include <limits>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

// A process that uses a session in every way, while its store fails at each call in turn. What was told as done is
// done, what was promised is kept by the next process, and nobody waits for ever.

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::errc;
using mqtt::protocol_version;
using mqtt::qos;
using test::memory_session;
using test::task;

// Whether there is a message with this payload.
bool holds(test::memory_store const& store, std::string_view payload) {
    return std::ranges::any_of(store.records, [&](auto const& r) { return r.second.ends_with(payload); });
}

std::error_code const full = std::make_error_code(std::errc::no_space_on_device);

// Fails at one call of `apply`, or from that call on.
struct failing_store {
    test::memory_store records;
    static constexpr auto never = std::numeric_limits<std::size_t>::max();
    std::size_t fails = never;
    bool for_good = false;
    std::size_t calls = 0;

    bool has_failed() const noexcept { return calls > fails; }
    std::error_code load(mqtt::store_reader& reader) const { return records.load(reader); }
    std::error_code apply(std::span<mqtt::store_change const> all) {
        auto const n = calls++;
        if (n == fails || (for_good && n > fails)) return full;
        return records.apply(all);
    }
};

// What becomes of a message that was published.
struct message {
    std::string payload;
    qos quality;
    bool promised = false;   // it arrives
    bool withdrawn = false;  // it does not arrive after this was told
    std::size_t seen = 0;    // copies that had arrived by then
};

struct trial : test::memory_fixture {
    trial(protocol_version v, std::size_t fails, bool for_good) : version(v) {
        store->fails = fails;
        store->for_good = for_good;
        broker.hooks().on_publish = [this](auto const&, mqtt::publish const& m) { arrived.emplace_back(m.payload); };
    }

    // One process: `use` is given its session, until its store has failed or it has ended.
    template <class Use>
    void process(Use use) {
        auto o = test::quick("client", version);
        o.store = store;
        memory_session s(io.get_executor(), transport, o);
        use(s);
        settle();
    }

    // Whether an operation has gone well. It may only fail because the store has failed.
    bool went_well(std::error_code error, std::error_code expected = {}) const {
        CHECK((error == expected || (store->has_failed() && (error == full || error == errc::disconnected))));
        return error == expected;
    }
    template <class Function>
    bool does_well(Function call) const {
        try {
            call();
        } catch (std::system_error const& e) {
            return went_well(e.code());
        }
        return true;
    }

    // Waits until the operation or the run has ended. False: no other operation is to begin.
    template <class T>
    bool ends_well(task<T>& t, task<void>& running, std::error_code expected = {}) {
        CHECK(test::wait_until(io, [&] { return t.done() || running.done(); }));
        settle();
        REQUIRE(t.done());
        return went_well(t.error(), expected) && !running.done();
    }
    bool arrives(std::string const& payload, task<void>& running) {
        return test::wait_until(io, [&] { return copies(payload) != 0 || running.done(); }) && !running.done();
    }

    std::size_t copies(std::string const& payload) const {
        return static_cast<std::size_t>(std::ranges::count(arrived, payload));
    }
    message& note(std::string payload, qos quality) { return sent.emplace_back(message{std::move(payload), quality}); }
    void withdraw(message& m) {
        m.withdrawn = true;
        m.seen = copies(m.payload);
    }

    protocol_version version;
    std::shared_ptr<failing_store> store = std::make_shared<failing_store>();
    std::vector<std::string> arrived;  // at the broker
    std::vector<std::string> taken;    // by the application
    std::list<message> sent;
};

std::uint64_t number_of(memory_session& s, std::string_view topic) {
    for (auto const& m : s.queued())
        if (m.topic == topic) return m.number;
    return std::numeric_limits<std::uint64_t>::max();
}

// Before there is a connection: messages are accepted, discarded, and expire. False: the store has failed.
bool offline(trial& t, memory_session& s) {
    auto& first = t.note("first", qos::at_least_once);
    auto& second = t.note("second", qos::exactly_once);
    auto& dropped = t.note("dropped", qos::exactly_once);
    REQUIRE(s.try_publish("t", first.payload, {.qos = first.quality}));
    REQUIRE(s.try_publish("t", second.payload, {.qos = second.quality}));
    REQUIRE(s.try_publish("dropped", dropped.payload, {.qos = dropped.quality}));
    if (!t.does_well([&] { s.save(); })) return false;
    first.promised = second.promised = true;
    if (!t.does_well([&] { s.discard(number_of(s, "dropped")); })) return false;
    t.withdraw(dropped);

    auto& late = t.note("late", qos::at_least_once);
    task<mqtt::publish_result> publishing(t.io, s.publish("t", late.payload, {.qos = late.quality, .timeout = 1ms}));
    REQUIRE(test::wait_until(t.io, [&] { return publishing.done(); }));
    if (!t.went_well(publishing.error(), errc::message_expired)) return false;
    t.withdraw(late);
    return true;
}

// Publishes and receives, with both QoS.
bool exchange(trial& t, memory_session& s, task<void>& running) {
    task<memory_session::subscription> subscribing(t.io, s.subscribe("in"));
    if (!t.ends_well(subscribing, running)) return false;
    auto inbox = subscribing.get();
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        std::string const name = quality == qos::at_least_once ? "1" : "2";
        auto& m = t.note("published " + name, quality);
        task<mqtt::publish_result> publishing(t.io, s.publish("t", m.payload, {.qos = quality}));
        bool const goes_on = t.ends_well(publishing, running);
        m.promised = !publishing.error();
        if (!goes_on) return false;

        t.broker.publish("in", "received " + name, quality);
        task<mqtt::message> receiving(t.io, inbox.receive());
        bool const received = t.ends_well(receiving, running);
        if (!receiving.error()) t.taken.emplace_back(receiving.get().payload());
        if (!received) return false;
    }
    return !running.done();
}

// The server does not acknowledge: a message is waited for no longer, another one is discarded.
bool withdraw(trial& t, memory_session& s, task<void>& running) {
    t.broker.hold_acknowledgements(true);
    auto& late = t.note("late, sent", qos::at_least_once);
    task<mqtt::publish_result> publishing(t.io, s.publish("t", late.payload, {.qos = late.quality, .timeout = 20ms}));
    bool const goes_on = t.ends_well(publishing, running, errc::response_timeout);
    late.promised = publishing.error() == errc::response_timeout;  // it only waits no longer
    if (!goes_on) return false;
    auto& dropped = t.note("dropped, sent", qos::at_least_once);
    REQUIRE(s.try_publish("dropped, sent", dropped.payload, {.qos = dropped.quality}));
    if (!t.arrives(dropped.payload, running)) return false;
    if (!t.does_well([&] { s.discard(number_of(s, "dropped, sent")); })) return false;
    t.withdraw(dropped);
    t.broker.hold_acknowledgements(false);
    return true;
}

// The first process.
void use(trial& t, memory_session& s) {
    if (!offline(t, s)) return;
    task<void> running(t.io, s.run());
    if (exchange(t, s, running) && withdraw(t, s, running)) {
        auto& last = t.note("last", qos::exactly_once);
        REQUIRE(s.try_publish("t", last.payload, {.qos = last.quality}));
        task<void> leaving(t.io, s.disconnect());
        t.ends_well(leaving, running);
        if (!leaving.error()) last.promised = true;
    }
    t.settle();
    // A call of the user's that has failed does not end it.
    if (!running.done()) static_cast<void>(test::error_of(t.io, s.disconnect()));
    REQUIRE(test::wait_until(t.io, [&] { return running.done(); }, 5s));
    CHECK((!running.error() || (t.store->has_failed() && running.error() == full)));
    CHECK_FALSE((t.store->for_good && t.store->has_failed() && !running.error()));
}

// A process, or the same again, that delivers what is left.
void finish(trial& t, memory_session& s) {
    t.broker.hold_acknowledgements(false);
    task<void> running(t.io, s.run());
    auto const subscribed =
        test::run(t.io, s.subscribe("in", [&](mqtt::publish const& m) { t.taken.emplace_back(m.payload); }));
    t.broker.publish("in", "end", qos::exactly_once);
    CHECK(test::wait_until(t.io, [&] { return std::ranges::count(t.taken, "end") != 0; }));
    test::run(t.io, s.drained());
    test::run(t.io, s.disconnect());
    CHECK_FALSE(running.run_for_error());
    CHECK(s.queued().empty());
}

void check(trial const& t, bool whole) {
    for (auto const& m : t.sent) {
        CAPTURE(m.payload);
        auto const copies = t.copies(m.payload);
        if (m.promised) CHECK(copies >= 1);
        if (m.quality == qos::exactly_once) CHECK(copies <= 1);
        if (m.withdrawn) CHECK(copies == m.seen);
    }
    for (std::string const payload : {"received 1", "received 2"}) {
        auto const copies = std::ranges::count(t.taken, payload);
        CHECK(copies <= 2);
        if (whole) CHECK(copies == 1);
    }
}

// Lets the store fail at each call; returns how many there are.
std::size_t fail_everywhere(protocol_version version, bool for_good, bool same_process) {
    for (std::size_t n = 0;; ++n) {
        CAPTURE(static_cast<int>(version));
        CAPTURE(for_good);
        CAPTURE(same_process);
        CAPTURE(n);
        trial t(version, n, for_good);
        bool failed = false;
        auto const mend = [&] {
            failed = t.store->has_failed();
            t.store->fails = failing_store::never;
        };
        t.process([&](memory_session& s) {
            use(t, s);
            if (!same_process) return;
            mend();
            finish(t, s);
        });
        if (!same_process) mend();
        if (!same_process) t.process([&](memory_session& s) { finish(t, s); });
        check(t, !failed);
        CHECK(t.broker.counters().protocol_errors == 0);
        t.broker.close();
        t.settle();
        if (!failed) return n;
    }
}

}  // namespace

TEST_CASE("whichever call of the store fails, nothing is told as done that is not, and what is promised is kept") {
    std::size_t calls = 0;
    for (auto const version : test::versions)
        for (bool const for_good : {false, true})
            for (bool const same_process : {false, true}) calls += fail_everywhere(version, for_good, same_process);
    MESSAGE(calls << " calls have failed");
    CHECK(calls > 100);
}

TEST_CASE("that a message has expired is told once it is stored") {
    asio::io_context io;
    auto const store = std::make_shared<failing_store>();
    auto o = test::quick("client", protocol_version::v5);
    o.store = store;
    o.reconnect.initial = o.reconnect.maximum = 1h;
    memory_session s(io.get_executor(), runnel::memory_transport(), o);
    task<void> running(io, s.run());
    mqtt::properties props;
    props.message_expiry_interval = 1;
    task<mqtt::publish_result> publishing(io, s.publish("t", "x", {.qos = qos::at_least_once, .props = &props}));
    test::settle(io);
    store->fails = store->calls;
    store->for_good = true;
    CHECK(running.run_for_error() == full);
    CHECK(publishing.run_for_error() == errc::disconnected);  // it may come again
}

TEST_CASE("that the server does not take a message is told once it is stored") {
    runnel::testing::broker_options b;
    b.accepts.maximum_qos = qos::at_least_once;
    test::memory_fixture f(std::move(b));
    for (bool const fails : {false, true}) {
        CAPTURE(fails);
        auto const store = std::make_shared<failing_store>();
        auto o = test::quick("client", protocol_version::v5);
        o.store = store;
        memory_session s(f.io.get_executor(), f.transport, o);
        task<mqtt::publish_result> publishing(f.io, s.publish("t", "x", {.qos = qos::exactly_once}));
        test::settle(f.io);
        s.save();
        f.broker.hooks().on_connect = [&](auto&) {
            if (fails) store->fails = store->calls;
            store->for_good = fails;
            return mqtt::reason_code::success;
        };
        task<void> running(f.io, s.run());
        CHECK(publishing.run_for_error() == (fails ? errc::disconnected : errc::maximum_qos_exceeded));
        CHECK(s.queued().size() == 0);
        if (fails) CHECK(running.run_for_error() == full);
    }
}

TEST_CASE("a message that the server does not take is in no store any more, also where nobody waits for it") {
    runnel::testing::broker_options b;
    b.accepts.maximum_qos = qos::at_least_once;
    test::memory_fixture f(std::move(b));
    auto const store = std::make_shared<test::memory_store>();
    auto o = test::quick("client", protocol_version::v5);
    o.store = store;
    memory_session s(f.io.get_executor(), f.transport, o);
    CHECK(s.try_publish("t", "not taken", {.qos = qos::exactly_once}));
    s.save();
    CHECK(holds(*store, "not taken"));
    task<void> running(f.io, s.run());
    test::run(f.io, s.connected());
    test::settle(f.io);
    CHECK_FALSE(holds(*store, "not taken"));
}

TEST_CASE("a message whose publisher is told that the session has ended is in the store, whenever it ends") {
    runnel::testing::broker_options b;
    b.accepts.maximum_qos = qos::at_least_once;
    bool told = false;
    for (std::size_t turns = 0; !told; ++turns) {
        CAPTURE(turns);
        test::memory_fixture f(b);
        auto const store = std::make_shared<test::memory_store>();
        auto o = test::quick("client", protocol_version::v5);
        o.store = store;
        std::optional<memory_session> s;
        s.emplace(f.io.get_executor(), f.transport, o);
        task<mqtt::publish_result> publishing(f.io, s->publish("t", "not taken", {.qos = qos::exactly_once}));
        test::settle(f.io);
        s->save();
        task<void> running(f.io, s->run());
        f.io.restart();
        for (std::size_t n = 0; n != turns; ++n) REQUIRE(f.io.poll_one() != 0);
        told = publishing.done();
        s.reset();
        test::settle(f.io);
        bool const is_stored = holds(*store, "not taken");
        CHECK(publishing.error() == (is_stored ? errc::disconnected : errc::maximum_qos_exceeded));
    }
}
