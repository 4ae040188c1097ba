#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/memory_store.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// A session where two things meet: what its two coroutines, its timer and its user do at the same time.

namespace {

using namespace std::chrono_literals;
namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::packet_type;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using mqtt::session_event;
using test::accepted;
using test::hex;
using test::memory_session;
using test::quick;
using test::scripted_peer;
using test::task;
using steady = std::chrono::steady_clock;

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

// A server that accepts, and then does what the test says.
struct raw_server {
    using conduct = std::function<asio::awaitable<void>(runnel::memory_stream<>&, std::size_t)>;

    conduct behave;
    protocol_version version = v3;
    std::size_t connections = 0;
    asio::io_context io{};
    std::vector<std::unique_ptr<task<void>>> serving{};
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        serving.push_back(std::make_unique<task<void>>(io, serve(std::move(s), connections++)));
    }};

    asio::awaitable<void> serve(runnel::memory_stream<> s, std::size_t which) {
        char room[4096];
        co_await s.read_some(asio::buffer(room));
        auto answering = test::write_text(s, accepted(version));
        co_await std::move(answering);
        auto behaving = behave(s, which);
        co_await std::move(behaving);
    }
};

asio::awaitable<void> read_all(runnel::memory_stream<>& s) {
    char room[4096];
    for (;;) co_await s.read_some(asio::buffer(room));
}
// Sends these bytes, and answers nothing.
raw_server::conduct says(char const* bytes) {
    return [bytes](runnel::memory_stream<>& s, std::size_t) -> asio::awaitable<void> {
        auto message = test::write_text(s, hex(bytes));
        co_await std::move(message);
        co_await read_all(s);
    };
}
asio::awaitable<void> wait_long(runnel::memory_stream<>& s) {
    co_await runnel::sleep_for<test::executor>(s.get_executor(), 1h);
}

// The server has gone before DISCONNECT could be written.
bool gone(std::error_code error) { return error == asio::error::eof || error == asio::error::broken_pipe; }

// How many handlers run in so much time.
std::size_t handlers_in(asio::io_context& io, steady::duration time) {
    auto const end = steady::now() + time;
    std::size_t n = 0;
    io.restart();
    while (steady::now() < end) n += io.run_one_until(end);
    return n;
}

// A stream whose writes are known to be complete only a while later.
class late_stream {
  public:
    using executor_type = test::executor;
    static constexpr std::size_t headroom = 0;
    explicit late_stream(runnel::memory_stream<> next) : next_(std::move(next)) {}
    executor_type get_executor() const { return next_.get_executor(); }
    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) { return next_.read_some(into); }
    asio::awaitable<void> write(runnel::send_buffer& out) {
        co_await next_.write(out);
        co_await runnel::sleep_for<test::executor>(get_executor(), 5ms);
    }
    asio::awaitable<void> shutdown() { return next_.shutdown(); }

  private:
    runnel::memory_stream<> next_;
};
struct late_transport {
    using executor_type = test::executor;
    using stream_type = late_stream;
    static constexpr bool secure = false;
    runnel::memory_transport next;
    std::string host = "memory";
    std::uint16_t port = 1;
    bool operator==(late_transport const&) const = default;
    std::string url() const { return next.url(); }
    asio::awaitable<late_stream> open(executor_type executor) const {
        auto opening = next.open(executor);
        auto opened = co_await std::move(opening);
        co_return late_stream(std::move(opened));
    }
};

// Takes so long, also when it is cancelled: what is waited for is there already when the cancellation comes.
asio::awaitable<void> wait_unstoppably(std::chrono::milliseconds time) {
    co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
    co_await runnel::sleep_for<test::executor>(co_await asio::this_coro::executor, time);
}
struct unstoppable_transport {
    using executor_type = test::executor;
    using stream_type = runnel::memory_stream<>;
    static constexpr bool secure = false;
    runnel::memory_transport next;
    std::shared_ptr<std::chrono::milliseconds> takes;
    std::string host = "memory";
    std::uint16_t port = 1;
    bool operator==(unstoppable_transport const&) const = default;
    std::string url() const { return next.url(); }
    asio::awaitable<stream_type> open(executor_type executor) const {
        co_await wait_unstoppably(*takes);
        auto opening = next.open(executor);
        co_return co_await std::move(opening);
    }
};
struct slow_starter {
    std::string method() const { return "m"; }
    asio::awaitable<std::string> begin() {
        ++*begun;
        co_await wait_unstoppably(std::chrono::milliseconds(50));
        co_return "begin";
    }
    asio::awaitable<std::string> answer(std::string) { co_return "answer"; }
    asio::awaitable<void> finish(std::string) { co_return; }
    int* begun;
};

// An authenticator that takes its time to judge the server.
struct slow_judge {
    std::string method() const { return "m"; }
    asio::awaitable<std::string> begin() { co_return "begin"; }
    asio::awaitable<std::string> answer(std::string) { co_return "answer"; }
    asio::awaitable<void> finish(std::string) {
        co_await runnel::sleep_for<test::executor>(co_await asio::this_coro::executor, takes);
        if (rejects) throw std::runtime_error("not the right server");
    }
    std::chrono::milliseconds takes;
    bool rejects = false;
};
// CONNACK with the method "m" and the data "d".
std::string const authenticated = hex("20 0B 00 00 08 15 00 01 6D 16 00 01 64");

}  // namespace

TEST_CASE("what waits for the authenticator's judgement is written as soon as that is known") {
    scripted_peer peer([](test::heard_packet const& p) -> std::optional<std::string> {
        return p.type == packet_type::connect ? authenticated : std::string();
    });
    mqtt::session<late_transport> session(peer.io.get_executor(), late_transport{peer.transport}, quick("client", v5));
    session.set_authenticator(slow_judge{20ms});
    task<void> running(peer.io, session.run());
    CHECK(test::wait_until(peer.io, [&] { return peer.count(packet_type::connect) == 1; }));
    handlers_in(peer.io, 10ms);  // CONNECT has been written, and CONNACK read
    session.try_publish("t", "x", {.qos = qos::at_least_once});
    CHECK(test::wait_until(peer.io, [&] { return peer.count(packet_type::publish) == 1; }, 500ms));
}

TEST_CASE("an end in good order does not wait for anything once the server has been judged to be the wrong one") {
    scripted_peer peer([](test::heard_packet const& p) -> std::optional<std::string> {
        return p.type == packet_type::connect ? authenticated : std::string();
    });
    auto options = quick("client", v5);
    options.close_timeout = 10s;
    mqtt::session<late_transport> session(peer.io.get_executor(), late_transport{peer.transport}, options);
    session.set_authenticator(slow_judge{20ms, true});
    task<void> running(peer.io, session.run());
    CHECK(test::wait_until(peer.io, [&] { return peer.count(packet_type::connect) == 1; }));
    handlers_in(peer.io, 10ms);
    task<void> leaving(peer.io, session.disconnect());
    handlers_in(peer.io, 100ms);
    CHECK(leaving.done());
    CHECK(running.done());
}

TEST_CASE("an end in good order is not blamed for a connection before it that was cut off") {
    raw_server server{[](runnel::memory_stream<>& s, std::size_t which) -> asio::awaitable<void> {
                          if (which != 0) {
                              co_await read_all(s);
                              co_return;
                          }
                          auto nonsense = test::write_text(s, hex("F0 00 00"));  // and then it does not listen
                          co_await std::move(nonsense);
                          co_await wait_long(s);
                      },
                      v5};
    auto options = quick("client", v5);
    options.close_timeout = 20ms;
    memory_session session(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, session.run());
    CHECK(test::wait_until(server.io, [&] { return session.counters().connections == 2; }));
    CHECK_FALSE(test::error_of(server.io, session.disconnect()));
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("a session at a pace, whose messages nobody takes, rests") {
    for (bool const paced : {false, true}) {
        CAPTURE(paced);
        raw_server server{says("32 06 00 01 74 00 01 78 32 06 00 01 74 00 02 78")};
        auto options = quick();
        options.receive_maximum = 1;
        options.unrouted_timeout = 1h;
        if (paced) options.pace = {.at_most_once = 1, .acknowledged = 1};
        memory_session session(server.io.get_executor(), server.transport, options);
        task<void> running(server.io, session.run());
        test::run(server.io, session.connected());
        test::settle(server.io);
        CHECK(handlers_in(server.io, 100ms) < 100);
    }
}

TEST_CASE("a connection is left for messages that were left out only when what was sent on it is answered") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        test::memory_fixture fixture;
        auto options = quick("client", v3);
        options.receive_maximum = 1;
        {
            memory_session old(fixture.io.get_executor(), fixture.transport, options);
            task<void> running(fixture.io, old.run());
            test::run(fixture.io, old.subscribe("t"));
            test::run(fixture.io, old.disconnect());
        }
        for (int i = 0; i < 5; ++i) fixture.broker.publish("t", "x", qos::at_least_once);
        int published = 0;
        fixture.broker.hooks().on_publish = [&](auto const&, mqtt::publish const& p) { published += p.topic == "up"; };
        fixture.broker.hold_acknowledgements(true);
        memory_session session(fixture.io.get_executor(), fixture.transport, options);
        task<mqtt::publish_result> publishing(fixture.io, session.publish("up", "x", {.qos = quality}));
        task<void> running(fixture.io, session.run());
        auto subscription = test::run(fixture.io, session.subscribe("t"));
        test::run(fixture.io, test::only(subscription.receive()));
        test::settle(fixture.io);
        CHECK(session.counters().connections == 1);
        fixture.broker.hold_acknowledgements(false);
        for (int i = 1; i < 5; ++i) test::run(fixture.io, test::only(subscription.receive()));
        CHECK(publishing.done());
        CHECK(published == 1);
        CHECK(session.counters().connections > 1);
    }
}

// A server that acknowledges nothing.
TEST_CASE("a connection is left for messages that were left out after a time, whatever the server has not answered") {
    raw_server server{says("32 06 00 01 74 00 01 78 32 06 00 01 74 00 02 78")};
    auto options = quick();
    options.receive_maximum = 1;
    options.response_timeout = 20ms;
    options.unrouted_timeout = 1ms;
    memory_session session(server.io.get_executor(), server.transport, options);
    task<mqtt::publish_result> publishing(server.io, session.publish("up", "x", {.qos = qos::at_least_once}));
    task<void> running(server.io, session.run());
    CHECK(test::wait_until(server.io, [&] { return session.counters().connections > 1; }));
    CHECK_FALSE(publishing.done());
}

TEST_CASE("a dead connection is noticed by a session that reads on, though nobody takes its messages") {
    raw_server server{says("32 06 00 01 74 00 01 78")};
    auto options = quick();
    options.receive_maximum = 1;
    options.keep_alive = 1s;
    options.unrouted_timeout = 1h;
    std::vector<std::error_code> ends;
    options.on_event = [&](session_event const& e) {
        if (e.what == session_event::kind::disconnected) ends.push_back(e.error);
    };
    memory_session session(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, session.run());
    test::run(server.io, session.connected());
    test::settle(server.io);
    session.try_publish("t", "x", {.qos = qos::at_least_once});
    CHECK(test::wait_until(server.io, [&] { return !ends.empty(); }, 4s));
    if (!ends.empty()) CHECK(ends[0] == errc::keep_alive_timeout);
}

TEST_CASE("a message for which the server ends each connection by a DISCONNECT is given up") {
    for (auto const version : test::versions) {
        CAPTURE(static_cast<int>(version));
        scripted_peer peer([&](test::heard_packet const& p) -> std::optional<std::string> {
            if (p.type == packet_type::connect) return hex(version == v5 ? "20 03 01 00 00" : "20 02 01 00");
            if (p.type != packet_type::publish || p.body.find("poison") == std::string::npos) return std::string();
            return version == v5 ? std::optional(hex("E0 01 95")) : std::nullopt;
        });
        auto options = quick("client", version);
        options.message_strikes = 1;
        auto const store = std::make_shared<test::memory_store>();
        options.store = store;
        std::vector<std::string> given_up;
        bool is_stored = true;
        options.on_event = [&](session_event const& e) {
            if (e.what != session_event::kind::message_rejected) return;
            given_up.push_back(e.detail);
            is_stored = std::ranges::any_of(store->records,
                                            [](auto const& r) { return r.second.find("poison") != std::string::npos; });
        };
        memory_session session(peer.io.get_executor(), peer.transport, options);
        task<mqtt::publish_result> publishing(peer.io, session.publish("poison", "x", {.qos = qos::at_least_once}));
        task<void> running(peer.io, session.run());
        CHECK(test::wait_until(peer.io, [&] { return publishing.done(); }, 4s));
        if (publishing.done()) CHECK(publishing.error() == errc::message_rejected);
        CHECK(given_up == std::vector<std::string>{"poison"});
        CHECK_FALSE(is_stored);
    }
}

TEST_CASE("who waits until all is delivered goes on when the last message is discarded") {
    scripted_peer peer([](test::heard_packet const& p) -> std::optional<std::string> {
        return p.type == packet_type::connect ? accepted(v3) : std::string();
    });
    memory_session session(peer.io.get_executor(), peer.transport, quick());
    session.try_publish("t", "x", {.qos = qos::at_least_once});
    task<void> draining(peer.io, session.drained());
    test::settle(peer.io);
    CHECK_FALSE(draining.done());
    CHECK(session.discard(session.queued().at(0).number));
    test::settle(peer.io);
    CHECK(draining.done());
}

TEST_CASE("who waits until all is delivered may go on after the session") {
    scripted_peer peer([](test::heard_packet const&) -> std::optional<std::string> { return std::string(); });
    auto session = std::make_unique<memory_session>(peer.io.get_executor(), peer.transport, quick());
    auto const publish = [&]() -> asio::awaitable<void> {
        std::error_code error;
        mqtt::publish_options o{.qos = qos::at_least_once, .timeout = 5ms};
        co_await session->publish("t", "x", o, error);
        session.reset();
    };
    task<void> publishing(peer.io, publish());
    test::settle(peer.io);
    task<void> draining(peer.io, session->drained());
    publishing.run();
    draining.run_for_error();
    CHECK(draining.ended() == 1);
}

TEST_CASE("the longest times that can be told are no limits") {
    scripted_peer peer([](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == packet_type::connect) return accepted(v5);
        if (p.type == packet_type::subscribe) return hex("90 04") + p.identifier() + hex("00 00");
        if (p.type == packet_type::disconnect) return std::nullopt;
        return std::string();
    });
    constexpr auto longest = std::chrono::milliseconds::max();
    auto options = quick("client", v5);
    options.connect_timeout = options.response_timeout = options.close_timeout = longest;
    options.reconnect.stable_after = options.reconnect.twin_window = options.reconnect.total = longest;
    memory_session session(peer.io.get_executor(), peer.transport, options);
    task<void> running(peer.io, session.run());
    test::run(peer.io, session.connected());
    task<mqtt::message> asking(peer.io, session.request("t", "x", longest));
    handlers_in(peer.io, 20ms);
    CHECK_FALSE(asking.done());
    CHECK(session.counters().connections == 1);
    CHECK_FALSE(test::error_of(peer.io, session.disconnect()));
    CHECK_FALSE(running.run_for_error());

    auto policy = options.reconnect;
    policy.maximum = policy.initial = longest;
    CHECK(mqtt::pause_after(policy, 1, 0.5) > 24h);
    mqtt::reconnect_schedule schedule(policy, false, steady::now());
    auto const next = schedule.after({.why = asio::error::eof}, steady::now() + 1h, 0.5);
    CHECK(next.again);
    CHECK(next.pause > 24h);
}

TEST_CASE("a session can pause for as long as can be told") {
    auto options = quick();
    options.reconnect.initial = options.reconnect.maximum = std::chrono::milliseconds::max();
    asio::io_context io;
    memory_session session(io.get_executor(), runnel::memory_transport(), options);
    task<void> running(io, session.run());
    handlers_in(io, 20ms);
    CHECK_FALSE(running.done());
    CHECK_FALSE(test::error_of(io, session.disconnect()));
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("a store that fails in a pause ends run, and whoever waits is told") {
    auto const store = std::make_shared<test::memory_store>();
    auto options = quick();
    options.reconnect.initial = options.reconnect.maximum = 100ms;
    options.store = store;
    asio::io_context io;
    std::size_t attempts = 0;
    runnel::memory_transport transport([&](runnel::memory_stream<>) {
        ++attempts;
        throw std::system_error(asio::error::connection_refused);
    });
    memory_session session(io.get_executor(), transport, options);
    task<void> running(io, session.run());
    mqtt::publish_options const o{.qos = qos::at_least_once, .timeout = 20ms};
    task<mqtt::publish_result> publishing(io, session.publish("t", "x", o));
    handlers_in(io, 10ms);
    CHECK(attempts == 1);
    store->failure = std::make_error_code(std::errc::no_space_on_device);
    handlers_in(io, 40ms);
    store->failure = {};
    CHECK(running.run_for_error(1s) == std::errc::no_space_on_device);
    test::settle(io);
    CHECK(publishing.done());
    CHECK(attempts == 1);
}

TEST_CASE("an end in good order lasts as long as it may, and tells that not all has left") {
    raw_server server{[](runnel::memory_stream<>& s, std::size_t) { return wait_long(s); }};
    auto options = quick();
    options.keep_alive = 1s;
    options.close_timeout = 2500ms;
    memory_session session(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, session.run());
    test::run(server.io, session.connected());
    session.try_publish("t", std::string(200'000, 'x'));
    CHECK(test::error_of(server.io, session.disconnect()) == errc::close_timeout);
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("run that is cancelled while disconnect is under way has been cancelled, and disconnect has not") {
    raw_server server{[](runnel::memory_stream<>& s, std::size_t) { return wait_long(s); }};
    memory_session session(server.io.get_executor(), server.transport, quick());
    task<void> running(server.io, session.run());
    test::run(server.io, session.connected());
    session.try_publish("t", std::string(200'000, 'x'));  // the server does not read that
    task<void> leaving(server.io, session.disconnect());
    test::settle(server.io);
    CHECK_FALSE(leaving.done());
    running.cancel();
    CHECK(running.run_for_error() == asio::error::operation_aborted);
    CHECK(leaving.run_for_error() == errc::disconnected);
    CHECK(leaving.error_text() == make_error_code(errc::disconnected).message());
}

TEST_CASE("a connection that opens though it is not wanted any more is left alone: no CONNECT is made for it") {
    for (bool const by_timeout : {false, true}) {
        CAPTURE(by_timeout);
        std::size_t connects = 0;
        scripted_peer peer([&](test::heard_packet const& p) -> std::optional<std::string> {
            if (p.type == packet_type::publish) return std::nullopt;
            if (p.type == packet_type::subscribe) return hex("90 03") + p.identifier() + hex("00");
            if (p.type != packet_type::connect) return std::string();
            return hex(++connects == 1 ? "20 02 00 00" : "20 02 01 00");
        });
        auto options = quick();
        if (by_timeout) options.connect_timeout = 100ms;
        int made = 0;
        options.make_credentials = [&made] {
            ++made;
            return mqtt::credentials{.client_id = "client", .user_name = {}, .password = {}};
        };
        auto const takes = std::make_shared<std::chrono::milliseconds>(0);
        mqtt::session<unstoppable_transport> session(peer.io.get_executor(), {peer.transport, takes}, options);
        auto running = std::make_unique<task<void>>(peer.io, session.run());
        auto const inbox = test::run(peer.io, session.subscribe("t"));
        *takes = 200ms;
        session.try_publish("t", "go");
        CHECK(test::wait_until(peer.io, [&] { return peer.count(packet_type::publish) == 1; }));
        handlers_in(peer.io, 30ms);  // the next one is opening
        *takes = 0ms;
        if (!by_timeout) {
            test::run(peer.io, session.disconnect());
            CHECK_FALSE(running->run_for_error());
            CHECK(made == 1);
            running = std::make_unique<task<void>>(peer.io, session.run());
        }
        CHECK(test::run(peer.io, session.connected(1)) == 2);
        test::run(peer.io, session.drained());
        test::settle(peer.io);
        CHECK(made == 2);
        CHECK(connects == 2);
        CHECK(peer.count(packet_type::subscribe) == 1);  // the session that is present is known to have it
        test::run(peer.io, session.disconnect());
    }
}

TEST_CASE("of an authenticator that is ready when its connection is not wanted any more nothing is sent") {
    scripted_peer peer([](test::heard_packet const&) { return std::optional<std::string>(authenticated); });
    auto options = quick("client", v5);
    int made = 0;
    options.make_credentials = [&made] {
        ++made;
        return mqtt::credentials{.client_id = "client", .user_name = {}, .password = {}};
    };
    memory_session session(peer.io.get_executor(), peer.transport, options);
    int begun = 0;
    session.set_authenticator(slow_starter{&begun});
    task<void> running(peer.io, session.run());
    CHECK(test::wait_until(peer.io, [&] { return begun == 1; }));
    test::run(peer.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
    CHECK(made == 0);
    CHECK(peer.heard.empty());
}

TEST_CASE("disconnect with a reason that DISCONNECT cannot have does nothing, also between two connections") {
    test::memory_fixture f;
    auto options = quick("client", v5);
    options.reconnect.initial = options.reconnect.maximum = 1h;
    memory_session session(f.io.get_executor(), f.transport, options);
    task<void> running(f.io, session.run());
    test::run(f.io, session.connected());
    for (bool const connected : {true, false}) {
        CHECK(session.is_connected() == connected);
        CHECK(test::error_of(f.io, session.disconnect(reason_code::server_busy)) == errc::invalid_reason_code);
        f.settle();
        CHECK(session.is_connected() == connected);
        CHECK_FALSE(running.done());
        if (connected) f.broker.drop_client("client");
        f.settle();
    }
    test::run(f.io, session.disconnect());
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("disconnect whose properties the server has no room for does nothing") {
    test::memory_fixture f({.accepts = {.maximum_packet_size = 8}});
    auto options = quick("client", v5);
    options.session_expiry = 100s;
    memory_session session(f.io.get_executor(), f.transport, options);
    task<void> running(f.io, session.run());
    test::run(f.io, session.connected());
    mqtt::properties p;
    p.session_expiry_interval = 10u;
    CHECK(test::error_of(f.io, session.disconnect({}, &p)) == errc::packet_too_large);
    f.settle();
    CHECK(session.is_connected());
    p.session_expiry_interval.reset();
    p.reason_string = "enough of it";  // which is left out
    test::run(f.io, session.disconnect({}, &p));
    CHECK_FALSE(running.run_for_error());
}

TEST_CASE("what the user's code throws at an event ends run, and run can be called again") {
    using kind = session_event::kind;
    for (auto const at : {kind::connecting, kind::refused, kind::connected, kind::disconnected, kind::waiting}) {
        CAPTURE(static_cast<int>(at));
        bool throws = true;
        test::memory_fixture p;
        p.broker.hooks().on_connect = [&](auto&) {
            return throws && at == kind::refused ? reason_code::not_authorized : reason_code::success;
        };
        auto options = quick();
        options.on_event = [&](session_event const& e) {
            if (throws && e.what == at) throw std::runtime_error("from on_event");
        };
        memory_session session(p.io.get_executor(), p.transport, options);
        {
            task<void> running(p.io, session.run());
            test::wait_until(p.io, [&] { return session.is_connected() || running.done(); }, 2s);
            p.broker.drop_client("client");
            CHECK(test::wait_until(p.io, [&] { return running.done(); }, 2s));
            CHECK(running.error_text() == "from on_event");
        }
        throws = false;
        task<void> again(p.io, session.run());
        CHECK(test::wait_until(p.io, [&] { return session.is_connected() || again.done(); }, 2s));
        CHECK_FALSE(test::error_of(p.io, session.disconnect()));
        CHECK_FALSE(again.run_for_error());
    }
}

TEST_CASE("a session can be disconnected at each moment, whatever the server does then, and run again") {
    enum class peer { closes, half_closes, stays, is_deaf, floods, is_wrong };
    std::size_t ends = 0;
    for (auto const version : test::versions) {
        for (auto const kind :
             {peer::closes, peer::half_closes, peer::stays, peer::is_deaf, peer::floods, peer::is_wrong}) {
            for (int turns = 0; turns < 30; ++turns) {
                CAPTURE(static_cast<int>(version));
                CAPTURE(static_cast<int>(kind));
                CAPTURE(turns);
                bool behaves = false;
                raw_server server{[&](runnel::memory_stream<>& s, std::size_t) -> asio::awaitable<void> {
                                      char room[4096];
                                      if (behaves || kind == peer::closes) {  // perhaps before DISCONNECT
                                          co_await s.read_some(asio::buffer(room));
                                      } else if (kind == peer::half_closes) {
                                          co_await s.shutdown();
                                          co_await read_all(s);
                                      } else if (kind == peer::stays) {
                                          co_await read_all(s);
                                      } else if (kind == peer::is_deaf) {
                                          s.incoming().capacity = 1;
                                          co_await wait_long(s);
                                      } else if (kind == peer::is_wrong) {
                                          auto wrong = test::write_text(s, hex("F0 05 00"));
                                          co_await std::move(wrong);
                                          co_await read_all(s);
                                      } else {
                                          for (;;) {
                                              auto flood =
                                                  test::write_text(s, hex("32 06 00 01 74 00 01 78 30 04 00 01 74 78"));
                                              co_await std::move(flood);
                                              co_await runnel::sleep_for<test::executor>(s.get_executor(), 100us);
                                          }
                                      }
                                  },
                                  version};
                auto options = quick("client", version);
                options.close_timeout = turns % 2 == 0 ? 1ms : 5ms;
                options.receive_maximum = turns % 3 == 0 ? 1 : 100;
                memory_session session(server.io.get_executor(), server.transport, options);
                task<void> running(server.io, session.run());
                task<mqtt::basic_subscription<test::executor>> subscribing(server.io, session.subscribe("t"));
                session.try_publish("t", "x");
                session.try_publish("t", "x", {.qos = qos::exactly_once});
                server.io.restart();
                for (int i = 0; i < turns; ++i) server.io.poll_one();
                task<void> leaving(server.io, session.disconnect());
                task<void> leaving_too(server.io, session.disconnect());
                leaving_too.cancel();
                REQUIRE(test::wait_until(
                    server.io, [&] { return running.done() && leaving.done() && leaving_too.done(); }, 1s));
                CHECK_FALSE(running.error());
                bool const server_ends = kind == peer::closes || kind == peer::half_closes;
                CHECK((!leaving.error() || leaving.error() == errc::close_timeout ||
                       (server_ends && gone(leaving.error()))));
                behaves = true;
                task<void> again(server.io, session.run());
                REQUIRE(test::wait_until(server.io, [&] { return session.is_connected(); }, 1s));
                task<void> last(server.io, session.disconnect());
                REQUIRE(test::wait_until(server.io, [&] { return again.done() && last.done(); }, 1s));
                CHECK((!last.error() || gone(last.error())));
                ++ends;
            }
        }
    }
    CHECK(ends == 360);
}
