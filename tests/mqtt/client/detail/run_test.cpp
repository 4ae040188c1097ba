#include <runnel/mqtt/client/session.hpp>

#include <asio/post.hpp>
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
#include <string_view>
#include <utility>
#include <vector>

// What `run` does from one connection to the next, and what it tells of it.

namespace {

using namespace std::chrono_literals;
namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::packet_type;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::heard_packet;
using test::hex;
using test::memory_session;
using test::packet;
using test::quick;
using test::scripted_peer;
using test::task;
using kind = mqtt::session_event::kind;
using steady = std::chrono::steady_clock;
using said = std::optional<std::string>;

constexpr auto v5 = protocol_version::v5;
constexpr mqtt::publish_options q1{.qos = qos::at_least_once};

std::string const accepted = hex("20 03 00 00 00"), present = hex("20 03 01 00 00");

std::string puback(std::string const& identifier) { return packet(0x40, identifier); }
// A message of QoS 1 to "t".
std::string message(char identifier, std::string_view payload = "") {
    return packet(0x32, test::field("t") + '\0' + identifier + hex("00") + std::string(payload));
}
std::string suback(heard_packet const& to) { return packet(0x90, to.identifier() + hex("00 01")); }

mqtt::session_options with_long_pauses() {
    auto o = quick("client", v5);
    o.reconnect.initial = o.reconnect.maximum = 1h;
    return o;
}

// A server that says these things, on one connection after another, and ends each; or, if it is polite, when it has
// heard one more thing.
struct brief_server {
    std::vector<std::string> says;
    bool polite = false;
    asio::io_context io{};
    std::size_t connections = 0;
    std::vector<std::unique_ptr<task<void>>> serving{};
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        serving.push_back(std::make_unique<task<void>>(io, serve(std::move(s), connections++)));
    }};

    asio::awaitable<void> serve(runnel::memory_stream<> s, std::size_t which) {
        char room[4096];
        co_await s.read_some(asio::buffer(room));
        auto saying = test::write_text(s, which < says.size() ? says[which] : accepted);
        co_await std::move(saying);
        if (which >= says.size() || polite) co_await s.read_some(asio::buffer(room));
        co_await s.shutdown();
    }
};

// A stream whose end is another error, with a text, and that may keep to itself what was written.
struct ending {
    std::error_code error = asio::error::eof;
    std::string text{};
    std::size_t held = 0;
    std::error_code write_error{};
    bool opens = true;
};
class wordy_stream {
  public:
    using executor_type = test::executor;
    static constexpr std::size_t headroom = 0;
    wordy_stream(runnel::memory_stream<> next, std::shared_ptr<ending> how)
        : next_(std::move(next)), how_(std::move(how)) {}
    executor_type get_executor() const { return next_.get_executor(); }
    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) {
        try {
            co_return co_await next_.read_some(into);
        } catch (std::system_error const& e) {
            if (e.code() == asio::error::eof) throw std::system_error(how_->error, how_->text);
            throw;
        }
    }
    asio::awaitable<void> write(runnel::send_buffer& out) {
        if (how_->write_error) throw std::system_error(how_->write_error);
        return next_.write(out);
    }
    asio::awaitable<void> shutdown() { return next_.shutdown(); }
    std::size_t backlog() const { return how_->held; }

  private:
    runnel::memory_stream<> next_;
    std::shared_ptr<ending> how_;
};
struct wordy_transport {
    using executor_type = test::executor;
    using stream_type = wordy_stream;
    static constexpr bool secure = false;
    runnel::memory_transport next;
    std::shared_ptr<ending> how = std::make_shared<ending>();
    [[maybe_unused]] friend bool operator==(wordy_transport const&, wordy_transport const&) = default;
    std::string url() const { return next.url(); }
    asio::awaitable<wordy_stream> open(executor_type executor) const {
        if (!how->opens) co_await runnel::sleep_for<executor_type>(executor, 1h);
        auto opening = next.open(executor);
        auto opened = co_await std::move(opening);
        co_return wordy_stream(std::move(opened), how);
    }
};

bool stores(test::memory_store const& store, std::string_view text) {
    return std::ranges::any_of(store.records, [=](auto const& r) { return r.second.find(text) != std::string::npos; });
}

}  // namespace

TEST_CASE("what a server has said of one connection is not told of the next") {
    // Two that it ends, the first with a reason; one that it refuses; one more that it ends.
    brief_server server{
        {hex("20 0B 00 00 08 12 00 05 'given' E0 08 8B 06 1F 00 03 'bye'"), accepted, hex("20 03 00 89 00"), accepted}};
    auto options = quick("", v5);
    std::vector<mqtt::session_event> ends;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == kind::disconnected) ends.push_back(e);
    };
    memory_session session(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, session.run());
    REQUIRE(test::wait_until(server.io, [&] { return ends.size() == 4; }));
    CHECK(ends[0].error == reason_code::server_shutting_down);
    CHECK(ends[0].detail == "bye");
    CHECK(ends[1].error == asio::error::eof);
    CHECK(ends[1].detail == "the server did not say why");
    CHECK(ends[2].error == reason_code::server_busy);
    CHECK(ends[2].detail == "");
    CHECK(ends[3].error == asio::error::eof);
    CHECK(ends[3].detail == "the server did not say why");
}

TEST_CASE("a server that ends the connection in good order has ended it, and may name another one") {
    brief_server server{{accepted + hex("E0 00"), accepted + hex("E0 10 9C 0E 1C 00 0B 'other:12345'")}};
    auto options = quick("client", v5);
    options.follow_redirects = true;
    std::vector<mqtt::session_event> told;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == kind::disconnected || e.what == kind::redirected) told.push_back(e);
    };
    memory_session session(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, session.run());
    REQUIRE(test::wait_until(server.io, [&] { return told.size() == 3; }));
    CHECK(told[0].error == errc::disconnected);
    CHECK(told[1].error == reason_code::use_another_server);
    CHECK(told[2].what == kind::redirected);
    CHECK(told[2].url == "memory://other:12345");
}

TEST_CASE("what a server has said of the end counts, and not that it took no more before") {
    asio::io_context io;
    std::optional<runnel::memory_stream<>> server;
    wordy_transport transport{
        runnel::memory_transport([&](runnel::memory_stream<> s) { server.emplace(std::move(s)); })};
    auto options = with_long_pauses();
    std::vector<std::error_code> ends;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == kind::disconnected) ends.push_back(e.error);
    };
    mqtt::session<wordy_transport> session(io.get_executor(), transport, options);
    task<void> running(io, session.run());
    REQUIRE(test::wait_until(io, [&] { return server.has_value(); }));
    test::run(io, test::write_text(*server, accepted));
    test::run(io, session.connected());
    test::settle(io);
    auto const end = [&]() -> asio::awaitable<void> {
        transport.how->write_error = asio::error::broken_pipe;
        session.try_publish("t", "x");
        auto saying = test::write_text(*server, hex("E0 00"));
        co_await std::move(saying);
    };
    task<void> ending(io, end());
    REQUIRE(test::wait_until(io, [&] { return !ends.empty(); }));
    CHECK(ends[0] == errc::disconnected);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("while a transport opens there is nothing to be said to a server, and an end waits for nothing") {
    wordy_transport transport{runnel::memory_transport()};
    transport.how->opens = false;
    auto options = with_long_pauses();
    options.close_timeout = 1h;
    asio::io_context io;
    mqtt::session<wordy_transport> session(io.get_executor(), transport, options);
    task<void> running(io, session.run());
    test::settle(io);
    task<void> leaving(io, session.disconnect());
    test::settle(io);
    CHECK(leaving.done());
    CHECK(running.done());
}

TEST_CASE("what a handler throws ends run at once, not after a pause") {
    scripted_peer peer([](heard_packet const& p) -> said {
        if (p.type == packet_type::connect) return accepted;
        return p.type == packet_type::subscribe ? suback(p) + message(1) : std::string();
    });
    auto options = with_long_pauses();
    memory_session session(peer.io.get_executor(), peer.transport, options);
    task<void> running(peer.io, session.run());
    auto const fails = [](mqtt::publish const&) { throw std::runtime_error("no database"); };
    task<memory_session::subscription> subscribing(peer.io, session.subscribe("t", fails));
    test::settle(peer.io);
    REQUIRE(running.done());
    CHECK(running.error_text() == "no database");
}

TEST_CASE("what a handler throws at a message that was kept for it ends run at once, and it is called no more") {
    scripted_peer peer([](heard_packet const& p) -> said {
        if (p.type != packet_type::connect) return p.type == packet_type::subscribe ? suback(p) : std::string();
        return p.connection == 0 ? present + message(1, "1") + message(2, "2") : present;
    });
    memory_session session(peer.io.get_executor(), peer.transport, with_long_pauses());
    std::string seen;
    bool fails = true;
    auto const handler = [&](mqtt::publish const& m) {
        seen += m.payload;
        if (fails) throw std::runtime_error("no database");
    };
    {
        task<void> running(peer.io, session.run());
        test::run(peer.io, session.connected());
        task<memory_session::subscription> subscribing(peer.io, session.subscribe("t", handler));
        test::settle(peer.io);
        REQUIRE(running.done());
        CHECK(running.error_text() == "no database");
        CHECK(seen == "1");
    }
    // It is the subscription's still, if that had been granted, or another one's.
    fails = false;
    task<void> again(peer.io, session.run());
    task<memory_session::subscription> subscribing(peer.io, session.subscribe("t", handler));
    test::run(peer.io, session.connected());
    test::settle(peer.io);
    CHECK(seen == "12");
    again.cancel();
    again.run_for_error();
}

TEST_CASE("what breaks the protocol is told, and not how the stream ends behind it") {
    brief_server server{{accepted + hex("00 00")}, true};
    wordy_transport transport{server.transport};
    transport.how->text = "the other end has closed";
    auto options = quick("client", v5);
    std::vector<mqtt::session_event> ends;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == kind::disconnected) ends.push_back(e);
    };
    mqtt::session<wordy_transport> session(server.io.get_executor(), transport, options);
    task<void> running(server.io, session.run());
    REQUIRE(test::wait_until(server.io, [&] { return !ends.empty(); }));
    CHECK(ends[0].error == errc::unknown_packet_type);
    CHECK(ends[0].detail == "");
}

TEST_CASE("an end in good order tells if the layers below have not passed everything on") {
    for (std::size_t const held : {0u, 1000u}) {
        brief_server server{{accepted}, true};
        wordy_transport transport{server.transport};
        transport.how->held = held;
        // What the end itself takes may be held.
        auto const options = quick(std::string(300, 'x'), v5);
        mqtt::session<wordy_transport> session(server.io.get_executor(), transport, options);
        task<void> running(server.io, session.run());
        test::run(server.io, session.connected());
        std::error_code const error = test::error_of(server.io, session.disconnect());
        CHECK(static_cast<bool>(error) == (held != 0));
        CHECK_FALSE(running.run_for_error());
    }
}

TEST_CASE("messages are not suspected for what the network, or the user, has ended") {
    for (bool const by_user : {false, true}) {
        CAPTURE(by_user);
        scripted_peer peer([&](heard_packet const& p) -> said {
            if (p.type == packet_type::connect) return p.connection == 0 ? accepted : present;
            if (p.type == packet_type::publish && !by_user) return std::nullopt;
            return p.type == packet_type::disconnect ? hex("E0 01 95") : std::string();
        });
        wordy_transport transport{peer.transport};
        transport.how->error = asio::error::timed_out;
        auto options = quick("client", v5);
        options.close_timeout = 10ms;
        options.message_strikes = 1;
        mqtt::session<wordy_transport> session(peer.io.get_executor(), transport, options);
        CHECK(session.try_publish("t", "x", q1));
        if (by_user) {
            for (std::size_t i = 1; i <= 2; ++i) {
                task<void> running(peer.io, session.run());
                CHECK(test::wait_until(peer.io, [&] { return peer.count(packet_type::publish) == i; }));
                test::settle(peer.io);
                test::error_of(peer.io, session.disconnect());
                running.run_for_error();
            }
        }
        task<void> running(peer.io, session.run());
        CHECK(test::wait_until(peer.io, [&] { return session.counters().connections == 3; }));
        test::settle(peer.io);
        CHECK(peer.count(packet_type::publish) == 3);
        running.cancel();
        running.run_for_error();
    }
}

TEST_CASE("once a message that was under suspicion has been taken, others are sent side by side again") {
    scripted_peer peer([&](heard_packet const& p) -> said {
        if (p.type == packet_type::connect) return p.connection == 0 ? accepted : present;
        if (p.type != packet_type::publish || p.body.find("suspect") == std::string::npos) return std::string();
        return p.connection < 2 ? hex("E0 01 95") : puback(p.body.substr(9, 2));
    });
    auto options = quick("client", v5);
    options.message_strikes = 1;
    memory_session session(peer.io.get_executor(), peer.transport, options);
    task<mqtt::publish_result> publishing(peer.io, session.publish("suspect", "x", q1));
    task<void> running(peer.io, session.run());
    REQUIRE(test::wait_until(peer.io, [&] { return session.counters().connections == 3; }));
    CHECK(session.try_publish("t", ""));  // so that there is a writer, which waits
    CHECK_FALSE(publishing.run_for_error());
    test::settle(peer.io);
    auto const before = peer.count(packet_type::publish);
    for (int i = 0; i < 3; ++i) CHECK(session.try_publish("t", "x", q1));
    test::settle(peer.io);
    CHECK(peer.count(packet_type::publish) == before + 3);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("a connection is left as soon as what was sent on it is answered, and each waits for that anew") {
    bool answers = true;
    std::string identifier;
    scripted_peer peer([&](heard_packet const& p) -> said {
        if (p.type == packet_type::connect) return (p.connection == 0 ? accepted : present) + message(1) + message(2);
        if (p.type == packet_type::subscribe) return suback(p);
        if (p.type == packet_type::disconnect) return std::nullopt;
        if (p.type != packet_type::publish) return std::string();
        if (p.body.find("up") == 2) identifier = p.body.substr(4, 2);
        return answers && p.body.find("now") == 2 ? puback(identifier) : std::string();
    });
    auto options = quick("client", v5);
    options.session_expiry = 1h;
    options.receive_maximum = 2;
    std::vector<steady::time_point> begun, ended;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == kind::connected) begun.push_back(steady::now());
        if (e.what == kind::disconnected) ended.push_back(steady::now());
    };
    SUBCASE("as soon as that is answered") {
        options.response_timeout = 1h;
        memory_session session(peer.io.get_executor(), peer.transport, options);
        task<void> running(peer.io, session.run());
        auto inbox = test::run(peer.io, session.subscribe("t"));
        CHECK(session.try_publish("up", "x", q1));
        test::settle(peer.io);
        while (auto m = inbox.try_receive()) m->abandon();
        test::settle(peer.io);
        CHECK(session.counters().connections == 1);
        CHECK(session.try_publish("now", ""));
        CHECK(test::wait_until(peer.io, [&] { return session.counters().connections == 2; }));
        running.cancel();
        running.run_for_error();
    }
    SUBCASE("each waits anew") {
        answers = false;
        options.response_timeout = 20ms;
        memory_session session(peer.io.get_executor(), peer.transport, options);
        task<void> running(peer.io, session.run());
        auto inbox = test::run(peer.io, session.subscribe("t"));
        CHECK(session.try_publish("up", "x", q1));
        REQUIRE(test::wait_until(peer.io, [&] {
            while (auto m = inbox.try_receive()) m->abandon();
            return ended.size() == 2;
        }));
        CHECK(ended[1] - begun[1] >= 20ms);
        running.cancel();
        running.run_for_error();
    }
}

TEST_CASE("who waits until all is delivered goes on when the last message is withdrawn, written or acknowledged") {
    SUBCASE("withdrawn") {
        asio::io_context io;
        memory_session session(io.get_executor(), runnel::memory_transport(), quick());
        mqtt::publish_options const brief{.qos = qos::at_least_once, .timeout = 1ms};
        task<mqtt::publish_result> late(io, session.publish("t", "x", brief));
        test::settle(io);
        task<void> draining(io, session.drained());
        CHECK(late.run_for_error() == errc::message_expired);
        CHECK_FALSE(draining.run_for_error());
    }
    SUBCASE("there is none, or it is written, or acknowledged") {
        bool answers = true;
        scripted_peer peer([&](heard_packet const& p) -> said {
            if (p.type == packet_type::connect) return accepted;
            return answers && p.type == packet_type::publish ? puback(p.body.substr(3, 2)) : std::string();
        });
        memory_session session(peer.io.get_executor(), peer.transport, quick("client", v5));
        task<void> running(peer.io, session.run());
        test::run(peer.io, session.connected());
        test::settle(peer.io);
        for (auto const quality : {qos::at_least_once, qos::at_most_once}) {
            {
                task<void> draining(peer.io, session.drained());
                test::settle(peer.io);
                CHECK(draining.done());
            }
            answers = quality == qos::at_least_once;
            CHECK(session.try_publish("t", "x", {.qos = quality}));
            task<void> draining(peer.io, session.drained());
            test::settle(peer.io);
            CHECK(draining.done());
        }
        running.cancel();
        running.run_for_error();
    }
    SUBCASE("not before it is written") {
        asio::io_context io;
        std::optional<runnel::memory_stream<>> server;
        runnel::memory_transport const transport([&](runnel::memory_stream<> s) { server.emplace(std::move(s)); });
        memory_session session(io.get_executor(), transport, quick("client", v5));
        task<void> running(io, session.run());
        REQUIRE(test::wait_until(io, [&] { return server.has_value(); }));
        test::run(io, test::write_text(*server, accepted));
        test::run(io, session.connected());
        server->incoming().capacity = 1000;
        CHECK(session.try_publish("t", std::string(5000, 'x')));
        task<void> draining(io, session.drained());
        test::settle(io);
        CHECK_FALSE(draining.done());
        task<test::reading> reading(io, test::read_to_end(*server));
        test::settle(io);
        CHECK(draining.done());
        running.cancel();
        running.run_for_error();
    }
}

TEST_CASE("a client identifier is the server's to give only if it was asked for, and then it is kept") {
    auto const store = std::make_shared<test::memory_store>();
    std::string const given = hex("20 0B 00 00 08 12 00 05 'given'");
    SUBCASE("not asked for") {
        brief_server server{{given, accepted}};
        auto options = quick("client", v5);
        options.store = store;
        memory_session session(server.io.get_executor(), server.transport, options);
        task<void> running(server.io, session.run());
        CHECK(test::wait_until(server.io, [&] { return running.done() || session.counters().connections == 3; }));
        CHECK_FALSE(running.done());
    }
    SUBCASE("asked for") {
        scripted_peer peer([&](heard_packet const& p) -> said {
            if (p.type == packet_type::connect) return given;
            return p.type == packet_type::disconnect ? std::nullopt : said("");
        });
        for (int process = 0; process < 2; ++process) {
            auto options = quick("", v5);
            options.store = store;
            memory_session session(peer.io.get_executor(), peer.transport, options);
            task<void> running(peer.io, session.run());
            test::run(peer.io, session.connected());
            test::run(peer.io, session.disconnect());
            running.run_for_error();
        }
        CHECK(peer.heard[0].body.find("given") == std::string::npos);
        CHECK(peer.heard.back().connection == 1);
        for (auto const& p : peer.heard)
            if (p.type == packet_type::connect && p.connection == 1) CHECK(p.body.find("given") != std::string::npos);
    }
}

TEST_CASE("the beginning of response topics that the server proposes is used, be it known before the first request") {
    for (bool const before : {true, false}) {
        scripted_peer peer([](heard_packet const& p) -> said {
            return p.type == packet_type::connect ? hex("20 0A 00 00 07 1A 00 04 'mine'") : std::string();
        });
        auto options = quick("client", v5);
        options.request_response_information = true;
        memory_session session(peer.io.get_executor(), peer.transport, options);
        task<void> running(peer.io, session.run());
        std::vector<std::unique_ptr<task<mqtt::message>>> asking;
        auto const ask = [&] {
            asking.push_back(std::make_unique<task<mqtt::message>>(peer.io, session.request("t", "x", 1h)));
        };
        if (before) {
            auto never = session.request("t", "x", 1h);  // which is not begun
        }
        test::run(peer.io, session.connected());
        ask();
        test::settle(peer.io);
        REQUIRE(peer.count(packet_type::subscribe) == 1);
        CHECK(peer.heard.back().body.find("mine/") != std::string::npos);
        running.cancel();
        running.run_for_error();
        asking.back()->run_for_error();
    }
}

TEST_CASE("what cannot be stored at the end is told by run, and by who has ended it") {
    auto const store = std::make_shared<test::memory_store>();
    auto options = with_long_pauses();
    options.store = store;
    asio::io_context io;
    memory_session session(io.get_executor(), runnel::memory_transport(), options);
    task<void> running(io, session.run());
    task<mqtt::publish_result> publishing(io, session.publish("t", "x", q1));
    test::settle(io);
    // In one turn: somebody is woken, something is to be stored, and `run` is to end.
    auto const leave = [&]() -> asio::awaitable<void> {
        session.discard(session.queued().at(0).number);
        store->failure = std::make_error_code(std::errc::no_space_on_device);
        session.try_publish("t", "y", q1);
        auto leaving = session.disconnect();
        co_await std::move(leaving);
    };
    task<void> leaving(io, leave());
    CHECK(running.run_for_error() == std::errc::no_space_on_device);
    CHECK(leaving.run_for_error() == std::errc::no_space_on_device);
    CHECK(publishing.run_for_error() == errc::disconnected);  // it may come again
}

TEST_CASE("a message that is lost with its session is told to be, and is in no store by then") {
    auto const store = std::make_shared<test::memory_store>();
    // In the turn before CONNACK is read, a message is discarded, so that somebody is about to be woken.
    std::function<void()> discard;
    scripted_peer peer([&](heard_packet const& p) -> said {
        if (p.type == packet_type::connect && p.connection == 1) asio::post(peer.io, discard);
        if (p.type == packet_type::connect) return accepted;
        if (p.body.find("other") == 2) return "";
        return p.type == packet_type::publish ? said(packet(0x50, p.body.substr(10, 2))) : std::nullopt;
    });
    auto options = quick("client", v5);
    options.session_expiry = 1h;
    options.store = store;
    memory_session session(peer.io.get_executor(), peer.transport, options);
    std::error_code error;
    decltype(store->records) records;
    auto const publish = [&]() -> asio::awaitable<void> {
        mqtt::publish_options const q2{.qos = qos::exactly_once};
        co_await session.publish("doubtful", "x", q2, error);
        records = store->records;
    };
    task<mqtt::publish_result> other(peer.io, session.publish("other", "x", q1));
    task<void> publishing(peer.io, publish());
    discard = [&] {
        for (auto const& m : session.queued())
            if (m.topic == "other") session.discard(m.number);
    };
    task<void> running(peer.io, session.run());
    publishing.run();
    CHECK(other.error() == errc::message_discarded);
    CHECK(error == errc::session_lost);
    test::settle(peer.io);
    CHECK(records == store->records);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("the topic in an event is made printable") {
    brief_server server{{present + packet(0x32, test::field("a\x1b[2J") + hex("00 01 00")), accepted}, true};
    auto options = quick("client", v5);
    std::string told;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == kind::unrouted) told = e.detail;
    };
    memory_session session(server.io.get_executor(), server.transport, options);
    task<void> running(server.io, session.run());
    REQUIRE(test::wait_until(server.io, [&] { return !told.empty(); }));
    CHECK(told == "a\\x1b[2J");
}

TEST_CASE("who disconnects is not told that run was cancelled, but that it has ended") {
    asio::io_context io;
    memory_session session(io.get_executor(), runnel::memory_transport(), with_long_pauses());
    task<void> running(io, session.run());
    test::settle(io);
    auto const leave = [&]() -> asio::awaitable<void> {
        asio::post(io, [&] {
            CHECK_FALSE(running.done());
            running.cancel();  // before it goes on
        });
        auto leaving = session.disconnect();
        co_await std::move(leaving);
    };
    task<void> leaving(io, leave());
    CHECK(running.run_for_error() == asio::error::operation_aborted);
    CHECK(leaving.run_for_error() == errc::disconnected);
}

TEST_CASE("a DISCONNECT that cannot be sent ends nothing") {
    test::connected_session c(quick("client", v5));
    CHECK(test::error_of(c.io, c.session.disconnect(reason_code::server_busy)));
    c.settle();
    CHECK(c.session.is_connected());
    CHECK(c.session.try_publish("t", "x"));
    c.disconnect();
}

TEST_CASE("QoS 0 messages that were held while another write was under way follow it by themselves") {
    scripted_peer peer(
        [](heard_packet const& p) -> said { return p.type == packet_type::connect ? accepted : std::string(); });
    auto options = quick("client", v5);
    options.maximum_unwritten = 100;
    memory_session session(peer.io.get_executor(), peer.transport, options);
    task<void> running(peer.io, session.run());
    test::run(peer.io, session.connected());
    test::settle(peer.io);
    std::vector<std::unique_ptr<task<mqtt::publish_result>>> all;
    for (int i = 0; i < 10; ++i)
        all.push_back(
            std::make_unique<task<mqtt::publish_result>>(peer.io, session.publish("t", std::string(80, 'x'))));
    test::settle(peer.io);
    CHECK(peer.count(packet_type::publish) == 10);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("what has been sent again is counted") {
    scripted_peer peer([](heard_packet const& p) -> said {
        if (p.type == packet_type::connect) return p.connection == 0 ? accepted : present;
        return p.connection == 0 ? std::nullopt : said("");
    });
    memory_session session(peer.io.get_executor(), peer.transport, quick("client", v5));
    CHECK(session.try_publish("t", "x", q1));
    task<void> running(peer.io, session.run());
    REQUIRE(test::wait_until(peer.io, [&] { return peer.count(packet_type::publish) == 2; }));
    test::settle(peer.io);
    CHECK(session.counters().messages_resent == 1);
    running.cancel();
    running.run_for_error();
}

TEST_CASE("the place that a discarded message leaves is taken at once, and stored") {
    for (bool const durable : {false, true}) {
        auto const store = std::make_shared<test::memory_store>();
        auto options = with_long_pauses();
        options.maximum_queued_messages = 1;
        if (durable) options.store = store;
        asio::io_context io;
        memory_session session(io.get_executor(), runnel::memory_transport(), options);
        task<void> running(io, session.run());
        CHECK(session.try_publish("t", "first", q1));
        task<mqtt::publish_result> second(io, session.publish("t", "second", q1));
        test::settle(io);
        CHECK(session.accepted() == 1);
        CHECK(session.discard(session.queued().at(0).number));
        CHECK(session.accepted() == 2);
        test::settle(io);
        CHECK(stores(*store, "second") == durable);
        running.cancel();
        running.run_for_error();
        second.run_for_error();
    }
}

TEST_CASE("a message that hangs while many later ones are acknowledged is told of once") {
    std::string first;
    scripted_peer peer([&](heard_packet const& p) -> said {
        if (p.type == packet_type::connect) return accepted;
        if (p.type != packet_type::publish || p.body.find("hangs") == 2) return std::string();
        return puback(p.body.substr(3, 2));
    });
    auto options = quick("client", v5);
    options.maximum_queued = options.maximum_unwritten = 1 << 24;
    std::vector<std::string> told;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == kind::unacknowledged) told.push_back(e.detail);
    };
    memory_session session(peer.io.get_executor(), peer.transport, options);
    task<void> running(peer.io, session.run());
    test::run(peer.io, session.connected());
    CHECK(session.try_publish("hangs", "", q1));
    for (std::size_t i = 1; i <= 32'767; ++i) session.try_publish("t", "", q1);
    CHECK(test::wait_until(peer.io, [&] { return session.counters().in_flight == 1; }));
    for (int i = 0; i < 3; ++i) {
        task<mqtt::publish_result> brief(peer.io, session.publish("t", "", {.qos = qos::at_least_once, .timeout = 1h}));
        brief.run();  // which has its time looked at
    }
    test::settle(peer.io);
    CHECK(told == std::vector<std::string>{"hangs"});
    running.cancel();
    running.run_for_error();
}
