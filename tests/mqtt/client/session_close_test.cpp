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

// A server that accepts a session and leaves the connection open.
struct staying_server {
    staying_server(std::chrono::milliseconds close_timeout, protocol_version version) {
        auto o = test::quick("client", version);
        o.close_timeout = close_timeout;
        session.emplace(io.get_executor(), transport, o);
        running.emplace(io, session->run());
        REQUIRE(test::wait_until(io, [&] { return stream.has_value(); }));
        listening.emplace(io, listen(accepted(version)));
        test::run(io, session->connected());
    }
    asio::awaitable<void> listen(std::string connack) {
        char room[256];
        auto connecting = stream->read_some(asio::buffer(room));
        co_await std::move(connecting);
        auto answering = test::write_text(*stream, std::move(connack));
        co_await std::move(answering);
        std::string heard;
        try {
            for (;;) {
                auto reading = stream->read_some(asio::buffer(room));
                auto const n = co_await std::move(reading);
                heard.append(room, n);
                if (heard.ends_with(hex("E0 00"))) told = std::chrono::steady_clock::now();
            }
        } catch (std::system_error const& e) {
            CHECK(e.code() == asio::error::eof);
        }
    }
    asio::awaitable<void> talk() {
        while (!listening->done()) {
            auto writing = test::write_text(*stream, hex("30 04 00 01 61 00"));
            co_await std::move(writing);
            auto resting = runnel::sleep_for<test::executor>(io.get_executor(), 20ms);
            co_await std::move(resting);
        }
    }
    // How long after DISCONNECT the stream has ended.
    auto end() {
        listening->run();
        return std::chrono::steady_clock::now() - told;
    }

    asio::io_context io;
    std::optional<runnel::memory_stream<>> stream;
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) { stream.emplace(std::move(s)); }};
    std::optional<test::memory_session> session;
    std::optional<task<void>> running, listening;
    std::chrono::steady_clock::time_point told;
};

}  // namespace

TEST_CASE("a server has a moment to end the connection upon DISCONNECT; then the stream is shut down") {
    for (auto const version : test::versions) {
        staying_server server(20s, version);
        task<void> ending(server.io, server.session->disconnect());
        REQUIRE(test::wait_until(server.io, [&] { return server.told.time_since_epoch().count() != 0; }));
        task<void> once_more(server.io, server.session->disconnect());  // does not shorten it
        auto const after = server.end();
        CHECK(after > 150ms);
        CHECK(after < 8s);
        CHECK_FALSE(ending.done());
        server.stream.reset();
        CHECK_FALSE(ending.run_for_error());
        CHECK_FALSE(once_more.run_for_error());
        CHECK_FALSE(server.running->run_for_error());
    }
}

TEST_CASE("a server that is still heard has more of it, up to half of close_timeout") {
    staying_server server(2s, protocol_version::v5);
    task<void> talking(server.io, server.talk());
    task<void> ending(server.io, server.session->disconnect());
    auto const after = server.end();
    CHECK(after > 600ms);
    CHECK(after < 1900ms);
    talking.run();
    server.stream.reset();
    CHECK_FALSE(ending.run_for_error());
}

TEST_CASE("a connection for whose end there is hardly any time is shut down all the same") {
    staying_server server(1ms, protocol_version::v5);
    task<void> ending(server.io, server.session->disconnect());
    CHECK(server.end() < 5s);
    server.stream.reset();
    ending.run_for_error();
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
