#include <runnel/mqtt/client/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

// How connections end: what `disconnect` says where not all could be sent, and which cause counts where a server says
// one thing and the network another.

namespace {

using namespace std::chrono_literals;
namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::accepted;
using test::hex;
using test::task;

std::string const taken_over = hex("E0 02 8E 00");  // DISCONNECT of MQTT 5

// --- writes that fail while the connection closes

// Writes in pieces, one of which fails.
struct plan {
    static constexpr auto never = std::numeric_limits<std::size_t>::max();
    std::size_t fails = never;
    bool late = false;        // only once it has taken effect
    bool fails_last = false;  // the end of the stream fails
    bool armed = false;
    std::size_t steps = 0;
    std::function<void()> on_failure = [] {};
    std::error_code error = asio::error::broken_pipe;

    bool is_due() { return armed && steps++ == fails; }
    [[noreturn]] void fail() {
        on_failure();
        throw std::system_error(error);
    }
};

class breaking_stream {
  public:
    using executor_type = test::executor;
    static constexpr std::size_t headroom = 0;

    breaking_stream(plan& p, runnel::memory_stream<> next) : plan_(&p), next_(std::move(next)) {}

    executor_type get_executor() const { return next_.get_executor(); }
    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) { return next_.read_some(into); }
    asio::awaitable<void> write(runnel::send_buffer& out) {
        runnel::send_buffer piece(0);
        while (!out.empty()) {
            bool const fails = plan_->is_due();
            if (fails && !plan_->late) plan_->fail();
            auto const n = std::min<std::size_t>(out.size(), 700);
            piece.append(out.view().substr(0, n));
            out.consume(n);
            co_await next_.write(piece);
            if (fails) plan_->fail();
        }
    }
    asio::awaitable<void> shutdown() {
        if (plan_->fails_last) plan_->fail();
        return next_.shutdown();
    }

  private:
    plan* plan_;
    runnel::memory_stream<> next_;
};

struct breaking_transport {
    using executor_type = test::executor;
    using stream_type = breaking_stream;
    static constexpr bool secure = false;

    plan* script = nullptr;
    runnel::memory_transport next;

    bool operator==(breaking_transport const&) const = default;
    std::string url() const { return next.url(); }
    asio::awaitable<breaking_stream> open(executor_type executor) const {
        auto opening = next.open(executor);
        auto opened = co_await std::move(opening);
        co_return breaking_stream(*script, std::move(opened));
    }
};

// A server that accepts, holds its client up until told to go on, and then reads all.
struct slow_server {
    explicit slow_server(protocol_version v) : version(v) {}

    protocol_version version;
    std::string says = {};  // when a write fails
    std::string heard = {};
    bool leaves = false;  // before it has read anything
    asio::io_context io{};
    runnel::wait_list<test::executor> gate{io.get_executor()};
    std::shared_ptr<runnel::memory_stream<>> stream;
    std::optional<task<void>> serving;
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        s.incoming().capacity = 1000;
        stream = std::make_shared<runnel::memory_stream<>>(std::move(s));
        serving.emplace(io, serve());
    }};

    asio::awaitable<void> serve() {
        char room[4096];
        co_await stream->read_some(asio::buffer(room));
        auto answering = test::write_text(*stream, accepted(version));
        co_await std::move(answering);
        runnel::waiter<test::executor> w;
        co_await gate.wait(w);
        if (leaves) {
            stream.reset();
            co_return;
        }
        for (;;) {
            auto const n = co_await stream->read_some(asio::buffer(room));
            heard.append(room, n);
        }
    }
    asio::awaitable<void> say() {
        auto saying = test::write_text(*stream, says);
        co_await std::move(saying);
        stream->cut();
    }
    bool has_heard_all() const { return heard.ends_with(hex("E0 00")) && heard.size() > 20 * 500; }
};

// Why a connection ends on which a write fails with `error`, and which the server then ends.
std::error_code cause_of(std::error_code error) {
    slow_server server(protocol_version::v3_1_1);
    plan script{.fails = 0, .error = error};
    script.on_failure = [&] { server.stream.reset(); };
    auto options = test::quick();
    options.reconnect.attempts = 1;
    mqtt::session<breaking_transport> s(server.io.get_executor(), breaking_transport{&script, server.transport},
                                        options);
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    script.armed = true;
    CHECK(s.try_publish("t", "p"));
    return running.run_for_error();
}

// What `disconnect` says; `run` must end without an error.
std::error_code end_with(slow_server& server, plan& script) {
    auto options = test::quick("client", server.version);
    options.close_timeout = 100ms;  // more than sending takes, under valgrind too
    mqtt::session<breaking_transport> s(server.io.get_executor(), breaking_transport{&script, server.transport},
                                        options);
    task<void> running(server.io, s.run());
    test::run(server.io, s.connected());
    for (int i = 0; i < 20; ++i) {
        REQUIRE(s.try_publish("t", std::string(500, 'x')));
        if (i == 9) test::settle(server.io);  // a write is under way
    }
    script.armed = true;
    task<void> leaving(server.io, s.disconnect());
    server.gate.wake_all({});
    auto const said = leaving.run_for_error();
    CHECK_FALSE(running.run_for_error());
    CHECK_FALSE(s.is_connected());
    test::settle(server.io);
    return said;
}

}  // namespace

TEST_CASE("whichever write fails while a connection closes, disconnect says so, and only then") {
    for (auto const version : test::versions) {
        for (bool const late : {false, true}) {
            std::size_t failures = 0;
            for (std::size_t n = 0;; ++n) {
                CAPTURE(static_cast<int>(version));
                CAPTURE(late);
                CAPTURE(n);
                slow_server server(version);
                plan script{.fails = n, .late = late};
                auto const said = end_with(server, script);
                bool const failed = script.steps > n;
                CHECK(said == (failed ? asio::error::broken_pipe : std::error_code{}));
                if (!late || !failed) CHECK(server.has_heard_all() == !failed);
                if (!failed) break;
                ++failures;
            }
            CHECK(failures > 10);
        }
    }
}

TEST_CASE("where the server has said why it ends the connection, disconnect says that") {
    for (std::size_t n = 0; n < 10; ++n) {
        CAPTURE(n);
        slow_server server(protocol_version::v5);
        server.says = taken_over;
        std::optional<task<void>> saying;
        plan script{.fails = n};
        script.on_failure = [&] { saying.emplace(server.io, server.say()); };
        CHECK(end_with(server, script) == reason_code::session_taken_over);
    }
}

TEST_CASE("a connection on which a write was reset has been reset, though nothing but its end can be read") {
    CHECK(cause_of(asio::error::connection_reset) == asio::error::connection_reset);
    CHECK(cause_of(asio::error::broken_pipe) == asio::error::eof);
}

namespace {

// Accepts a session and leaves the connection open. How long after DISCONNECT it has found the end of the stream.
asio::awaitable<std::chrono::steady_clock::duration> wait_for_end(runnel::memory_stream<>& at, std::string connack) {
    char room[256];
    auto connecting = at.read_some(asio::buffer(room));
    co_await std::move(connecting);
    auto answering = test::write_text(at, std::move(connack));
    co_await std::move(answering);
    std::string heard;
    auto said = std::chrono::steady_clock::time_point();
    try {
        for (;;) {
            auto reading = at.read_some(asio::buffer(room));
            auto const n = co_await std::move(reading);
            heard.append(room, n);
            if (heard.ends_with(hex("E0 00"))) said = std::chrono::steady_clock::now();
        }
    } catch (std::system_error const& e) {
        CHECK(e.code() == asio::error::eof);
    }
    co_return std::chrono::steady_clock::now() - said;
}

}  // namespace

TEST_CASE("a server has a moment to end the connection upon DISCONNECT; then the stream is shut down") {
    for (auto const version : test::versions) {
        asio::io_context io;
        std::optional<runnel::memory_stream<>> server;
        runnel::memory_transport const to([&](runnel::memory_stream<> s) { server.emplace(std::move(s)); });
        auto o = test::quick("client", version);
        o.close_timeout = 10s;
        test::memory_session s(io.get_executor(), to, o);
        task<void> running(io, s.run());
        REQUIRE(test::wait_until(io, [&] { return server.has_value(); }));
        task<std::chrono::steady_clock::duration> waiting(io, wait_for_end(*server, accepted(version)));
        test::run(io, s.connected());
        task<void> ending(io, s.disconnect());
        auto const after = waiting.run();
        CHECK(after > 50ms);
        CHECK(after < 5s);
        CHECK_FALSE(ending.done());
        server.reset();
        CHECK_FALSE(ending.run_for_error());
        CHECK_FALSE(running.run_for_error());
    }
}

TEST_CASE("an end that fails when all has been sent is none the worse for it") {
    slow_server server(protocol_version::v5);
    plan script{.fails_last = true};
    CHECK_FALSE(end_with(server, script));
    CHECK(server.has_heard_all());
}

TEST_CASE("a server that leaves without having read all cuts an end in good order off") {
    for (auto const version : test::versions) {
        slow_server server(version);
        server.leaves = true;
        plan script;
        CHECK(end_with(server, script));
    }
}

// --- the reason and the reset in one moment

namespace {

enum class ending { reset, close };

// A server on a loopback port that accepts, reads nothing more, says why it ends the connection, and does so while the
// client writes. With `ending::close` it closes what has come unread, which resets it, too.
struct tcp_server {
    tcp_server(std::string reason, ending how) : reason_(std::move(reason)), how_(how) {
        serving_.emplace(io, serve());
    }

    asio::io_context io;
    runnel::tcp transport() const { return {.host = "127.0.0.1", .port = acceptor_.local_endpoint().port()}; }

  private:
    using tcp = asio::ip::tcp;

    asio::awaitable<void> serve() {
        for (;;) {
            auto peer = co_await acceptor_.async_accept(asio::use_awaitable);
            char room[4096];
            co_await peer.async_read_some(asio::buffer(room), asio::use_awaitable);
            std::string const answer = hex("20 03 00 00 00");
            co_await asio::async_write(peer, asio::buffer(answer), asio::use_awaitable);
            co_await runnel::sleep_for<test::executor>(io.get_executor(), 5ms);
            asio::write(peer, asio::buffer(reason_));
            if (how_ == ending::reset) peer.set_option(asio::socket_base::linger(true, 0));
            peer.close();
        }
    }

    std::string reason_;
    ending how_;
    tcp::acceptor acceptor_{io, {asio::ip::address_v4::loopback(), 0}};
    std::optional<task<void>> serving_;
};

// Why the first connection ends, while the client writes as fast as it can.
template <class Transport>
std::error_code cause_under_flood(asio::io_context& io, Transport const& transport, std::size_t size) {
    auto options = test::quick("client", protocol_version::v5);
    options.reconnect.attempts = 1;
    std::optional<std::error_code> cause;
    options.on_event = [&](mqtt::session_event const& e) {
        if (e.what == mqtt::session_event::kind::disconnected && !cause) cause = e.error;
    };
    mqtt::session<Transport> s(io.get_executor(), transport, options);
    task<void> running(io, s.run());
    test::run(io, s.connected());
    std::string const payload(size, 'x');
    CHECK(test::wait_until(io, [&] {
        while (!cause && s.try_publish("t", payload)) {
        }
        return cause.has_value();
    }));
    return cause.value_or(std::error_code{});
}

}  // namespace

TEST_CASE("the reason that a server gives over TCP counts, though it resets the connection in the same moment") {
    for (auto const how : {ending::reset, ending::close}) {
        for (std::size_t const size : {10u, 1000u, 100'000u}) {
            for (int i = 0; i < 5; ++i) {
                CAPTURE(static_cast<int>(how));
                CAPTURE(size);
                tcp_server server(taken_over, how);
                CHECK(cause_under_flood(server.io, server.transport(), size) == reason_code::session_taken_over);
            }
        }
    }
}

TEST_CASE("the reason that a server gives in memory counts, though the connection is cut in the same moment") {
    asio::io_context io;
    for (std::size_t const size : {10u, 100'000u}) {
        std::optional<task<void>> serving;
        auto const serve = [](runnel::memory_stream<> s) -> asio::awaitable<void> {
            char room[4096];
            co_await s.read_some(asio::buffer(room));
            auto answering = test::write_text(s, hex("20 03 00 00 00"));
            co_await std::move(answering);
            co_await runnel::sleep_for<test::executor>(s.get_executor(), 1ms);
            auto telling = test::write_text(s, taken_over);
            co_await std::move(telling);
            s.cut();
        };
        runnel::memory_transport const transport(
            [&](runnel::memory_stream<> s) { serving.emplace(io, serve(std::move(s))); });
        CHECK(cause_under_flood(io, transport, size) == reason_code::session_taken_over);
    }
}
