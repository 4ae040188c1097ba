#include <runnel/testing/virtual_time.hpp>
#include <runnel/transport/failover.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/reconnecting_client.hpp>
#include <runnel/websocket/stream.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/use_awaitable.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
namespace ws = runnel::websocket;
using ws::connection_event;
using ws::message_kind;
using kind = connection_event::kind;
using client_type = ws::reconnecting_client<memory_transport>;
using server_stream = ws::stream<memory_stream<>>;

ws::reconnecting_options quick() {
    ws::reconnecting_options o;
    o.handshake.host = "server.example";
    o.handshake.subprotocol = "ticks";
    o.reconnect.jitter = 0;
    return o;
}

// What servers do with a WebSocket that has been opened.
using behaviour = std::function<asio::awaitable<void>(server_stream&)>;

asio::awaitable<void> echo(server_stream& s) {
    while (true) {
        auto const m = co_await s.read_message();
        std::string const data(m.data);
        co_await s.write_message(m.kind, data);
    }
}

struct fixture {
    explicit fixture(ws::reconnecting_options o = quick()) {
        o.on_event = [this](connection_event const& e) {
            events.push_back(e);
            if (on_event) on_event(e);
        };
        client = std::make_unique<client_type>(io.get_executor(), transport, std::move(o));
    }
    ~fixture() {
        client.reset();
        servers.clear();
    }

    void start() {
        asio::co_spawn(io, client->run(), asio::bind_cancellation_slot(signal.slot(), [this](std::exception_ptr e) {
                           ++ended;
                           error = e;
                       }));
    }
    std::error_code error_code() const {
        try {
            if (error) std::rethrow_exception(error);
        } catch (std::system_error const& e) {
            return e.code();
        }
        return {};
    }
    std::vector<kind> kinds() const {
        std::vector<kind> all;
        for (auto const& e : events) all.push_back(e.what);
        return all;
    }
    std::size_t count(kind what) const {
        auto const all = kinds();
        return static_cast<std::size_t>(std::count(all.begin(), all.end(), what));
    }
    void send(std::string text) {
        asio::co_spawn(io, client->send_text(std::move(text)),
                       [this](std::exception_ptr e) { ++(e ? refused : sent); });
    }
    bool has_ended() {
        return time.advance_until([&] { return ended != 0; });
    }

    static asio::awaitable<void> serve(fixture* self, memory_stream<> s) {
        auto const accepting = behaviours_left(self);
        ws::server_options how;
        how.subprotocols = "ticks";
        auto const judge = [self](ws::server_request const&) { return self->refuses ? 401 : 101; };
        auto stream = co_await server_stream::accept(std::move(s), std::move(how), judge);
        auto const here = std::make_shared<server_stream>(std::move(stream));
        self->servers.push_back(here);
        auto serving = accepting(*here);
        co_await std::move(serving);
    }
    static behaviour behaviours_left(fixture* self) {
        if (self->next_servers.empty()) return self->server;
        auto first = self->next_servers.front();
        self->next_servers.erase(self->next_servers.begin());
        return first;
    }

    asio::io_context io;
    testing::virtual_time time{io};
    std::function<void(connection_event const&)> on_event;
    std::vector<connection_event> events;
    std::function<void(memory_stream<>&)> on_open;
    std::function<void(memory_stream<>)> on_stream;  // takes it in place of a server
    bool refuses = false;
    std::size_t opened = 0;
    behaviour server = echo;
    std::vector<behaviour> next_servers;
    std::vector<std::shared_ptr<server_stream>> servers;
    memory_transport transport{[this](memory_stream<> s) {
        ++opened;
        if (on_open) on_open(s);
        if (on_stream) return on_stream(std::move(s));
        asio::co_spawn(io, serve(this, std::move(s)), asio::detached);
    }};
    asio::cancellation_signal signal;
    std::unique_ptr<client_type> client;
    std::size_t sent = 0;
    std::size_t refused = 0;
    int ended = 0;
    std::exception_ptr error;
};

}  // namespace

TEST_CASE("messages go both ways, of both kinds, and the subprotocol is agreed on") {
    fixture f;
    f.start();
    f.time.run(f.client->send_text("text"));
    f.time.run(f.client->send_binary(std::string("\0\xFF", 2)));
    auto first = f.time.run(f.client->next());
    CHECK(first.kind == message_kind::text);
    CHECK(first.data == "text");
    auto second = f.time.run(f.client->next());
    CHECK(second.kind == message_kind::binary);
    CHECK(second.data == std::string("\0\xFF", 2));
    CHECK(f.client->is_connected());
    CHECK(f.client->subprotocol() == "ticks");
    CHECK(f.client->counters().handed_on == 2);
    CHECK(f.client->counters().in_doubt == 0);
    f.client->close();
    CHECK_FALSE(f.client->try_send(message_kind::text, "too late"));
    CHECK(f.has_ended());
    CHECK_FALSE(f.error);
    CHECK(f.kinds() == std::vector{kind::connecting, kind::connected, kind::closed});
    CHECK(f.servers[0]->received_code() == ws::close_code::normal);
}

TEST_CASE("what is queued before there is a connection is sent on the first one, and behind a loss on the next") {
    fixture f;
    f.next_servers = {[](server_stream& s) -> asio::awaitable<void> {
        auto const m = co_await s.read_message();
        CHECK(m.data == "first");
        s.next_layer().cut();
    }};
    f.time.run(f.client->send_text("first"));
    f.start();
    f.time.settle();
    CHECK(f.count(kind::lost) == 1);
    f.time.run(f.client->send_text("second"));
    CHECK(f.client->queued() == 1);
    CHECK(f.time.run(f.client->next()).data == "second");
    CHECK(f.time.elapsed() == 1s);
    CHECK(f.client->counters().connections == 2);
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("a server that closes is connected to again, and its code and the cause are told") {
    fixture f;
    f.next_servers = {[](server_stream& s) { return s.close(ws::close_code::service_restart, "soon back"); },
                      [](server_stream& s) { return s.close(ws::close_code::normal); }};
    f.start();
    CHECK(f.time.advance_until([&] { return f.count(kind::connected) == 3; }));
    std::vector<connection_event> lost;
    for (auto const& e : f.events)
        if (e.what == kind::lost) lost.push_back(e);
    REQUIRE(lost.size() == 2);
    CHECK(lost[0].error == ws::errc::closed_by_peer);
    CHECK(lost[0].code == ws::close_code::service_restart);
    CHECK(lost[1].error == asio::error::eof);
    CHECK(f.time.elapsed() == 1s + 2s);
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE(
    "a connection that is cut at each byte, either way: no message twice, none changed, and all come that are sent "
    "again") {
    constexpr int messages = 5;
    for (bool const incoming : {false, true}) {
        for (std::size_t at = 1; at < 700; at += test::every(3)) {
            CAPTURE(incoming);
            CAPTURE(at);
            fixture f;
            bool was_cut = false;
            f.on_open = [&](memory_stream<>& s) {
                if (f.opened == 1) (incoming ? s.incoming() : s.outgoing()).cut_after = at;
            };
            f.start();
            std::vector<std::string> got;
            asio::co_spawn(
                f.io,
                [](client_type& c, std::vector<std::string>& to) -> asio::awaitable<void> {
                    while (true) {
                        auto m = co_await c.next();
                        to.push_back(std::move(m.data));
                    }
                }(*f.client, got),
                asio::detached);
            for (int i = 0; i < messages; ++i) f.send("message " + std::to_string(i));
            f.time.advance(5min + 15s);  // between two pings, the last of which may have been cut
            was_cut = f.count(kind::lost) != 0;
            CHECK(f.client->is_connected());
            CHECK(f.sent == messages);
            CHECK(f.client->queued() == 0);
            auto const& c = f.client->counters();
            CHECK(c.handed_on + c.in_doubt == messages);
            if (!was_cut) CHECK(got.size() == messages);
            for (std::size_t i = 1; i < got.size(); ++i) CHECK(got[i - 1] < got[i]);
            f.client->close();
            CHECK(f.has_ended());
            CHECK_FALSE(f.error);
            f.time.settle();
            if (!was_cut) break;  // all bytes there are have been tried
        }
    }
}

TEST_CASE("a server that says nothing is pinged; one that does not answer is lost") {
    for (bool const reads : {false, true}) {
        auto o = quick();
        o.ping_interval = 30s;
        o.ping_timeout = 10s;
        fixture f(std::move(o));
        f.next_servers = {[reads](server_stream& s) -> asio::awaitable<void> {
            if (reads) co_await s.read_message();
            wait_list<asio::any_io_executor> never(s.get_executor());
            waiter<asio::any_io_executor> w;
            co_await never.wait(w);
        }};
        f.start();
        f.time.advance(2min);
        // Who reads answers pings.
        CHECK(f.count(kind::lost) == (reads ? 0 : 1));
        CHECK(f.client->counters().pings >= 1);
        if (!reads) {
            for (auto const& e : f.events)
                if (e.what == kind::lost) CHECK(e.error == asio::error::timed_out);
            CHECK(f.count(kind::connected) == 2);
        }
        f.time.advance(24h);
        CHECK(f.client->is_connected());
        f.client->close();
        CHECK(f.has_ended());
    }
}

TEST_CASE("a server that does not take what it is sent is lost, but a slow one is not") {
    for (bool const slow : {false, true}) {
        fixture f;
        f.on_open = [&](memory_stream<>& s) {
            if (f.opened == 1) s.incoming().capacity = 1000;
        };
        f.next_servers = {[slow](server_stream& s) -> asio::awaitable<void> {
            auto const executor = s.get_executor();
            char bytes[1000];
            while (slow) {
                co_await s.next_layer().read_some(asio::buffer(bytes));
                co_await sleep_for<asio::any_io_executor>(executor, 5s);
            }
            wait_list<asio::any_io_executor> never(executor);
            waiter<asio::any_io_executor> w;
            co_await never.wait(w);
        }};
        f.start();
        f.send(std::string(100'000, 'x'));
        f.time.advance(3min);
        CHECK(f.count(kind::lost) == (slow ? 0 : 1));
        CHECK(f.client->counters().in_doubt == 1);
        f.client.reset();
        f.time.settle();
    }
}

TEST_CASE("a server that floods has to wait until its messages are taken, and is not taken for dead meanwhile") {
    auto o = quick();
    o.maximum_received = 10'000;
    fixture f(std::move(o));
    f.server = [](server_stream& s) -> asio::awaitable<void> {
        for (int i = 0; i < 10'000; ++i) {
            auto const text = std::to_string(i);
            co_await s.write_message(message_kind::text, text);
        }
        co_await echo(s);
    };
    f.start();
    f.time.advance(1h);
    CHECK(f.client->counters().received < 200);
    CHECK(f.client->counters().pings == 0);
    CHECK(f.client->is_connected());
    for (int i = 0; i < 10'000; ++i) REQUIRE(f.time.run(f.client->next()).data == std::to_string(i));
    CHECK(f.count(kind::lost) == 0);
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("a queue that is full: who sends waits in order, is refused, or the oldest go") {
    for (auto const policy : {ws::overflow::wait, ws::overflow::refuse, ws::overflow::drop_oldest}) {
        auto o = quick();
        o.when_full = policy;
        o.maximum_queued_messages = 3;
        fixture f(std::move(o));
        for (int i = 0; i < 6; ++i) f.send(std::to_string(i));
        f.time.settle();
        CHECK(f.client->queued() == 3);
        CHECK(f.client->queued_bytes() == 3);
        CHECK(f.sent == (policy == ws::overflow::drop_oldest ? 6 : 3));
        CHECK(f.refused == (policy == ws::overflow::refuse ? 3 : 0));
        CHECK(f.client->counters().dropped == (policy == ws::overflow::drop_oldest ? 3 : 0));
        CHECK(f.client->try_send(message_kind::text, "6") == (policy == ws::overflow::drop_oldest));
        f.start();
        std::string got;
        std::size_t const expected = policy == ws::overflow::wait ? 6 : 3;
        for (std::size_t i = 0; i < expected; ++i) got += f.time.run(f.client->next()).data;
        CHECK(got == (policy == ws::overflow::wait ? "012345" : policy == ws::overflow::refuse ? "012" : "456"));
        CHECK(f.client->queued_bytes() == 0);
        f.client->close();
        CHECK(f.has_ended());
    }
}

TEST_CASE("who waits has the room of the message that is being written, by number and by bytes") {
    for (bool const by_bytes : {false, true}) {
        CAPTURE(by_bytes);
        auto o = quick();
        (by_bytes ? o.maximum_queued : o.maximum_queued_messages) = 3;
        fixture f(std::move(o));
        f.server = [](server_stream&) -> asio::awaitable<void> { co_return; };  // reads nothing
        f.on_open = [](memory_stream<>& s) { s.incoming().capacity = 1; };
        for (int i = 0; i < 6; ++i) f.send(std::to_string(i));
        f.time.settle();
        CHECK(f.sent == 3);
        f.start();
        f.time.settle();
        CHECK(f.client->counters().in_doubt == 1);
        CHECK(f.client->queued() == 3);
        CHECK(f.client->queued_bytes() == 3);
        CHECK(f.sent == 4);
    }
}

TEST_CASE("a message that waits for room is given up when its sender is cancelled, and those behind it go on") {
    auto o = quick();
    o.maximum_queued = 10;
    fixture f(std::move(o));
    f.send("0123456789");
    asio::cancellation_signal cancel;
    std::error_code why;
    asio::co_spawn(f.io, f.client->send_text("cancelled"),
                   asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr e) {
                       try {
                           if (e) std::rethrow_exception(e);
                       } catch (std::system_error const& error) {
                           why = error.code();
                       }
                   }));
    f.send("last");
    f.time.settle();
    cancel.emit(asio::cancellation_type::terminal);
    f.time.settle();
    CHECK(why == asio::error::operation_aborted);
    f.start();
    CHECK(f.time.run(f.client->next()).data == "0123456789");
    CHECK(f.time.run(f.client->next()).data == "last");
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("who waits for a message and is cancelled loses none, also in the turn in which it comes") {
    for (int turns = 0; turns < 60; ++turns) {
        CAPTURE(turns);
        fixture f;
        f.start();
        f.time.settle();
        asio::cancellation_signal cancel;
        std::string got;
        bool done = false;
        asio::co_spawn(f.io, f.client->next(),
                       asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr e, ws::received_message m) {
                           done = true;
                           if (!e) got = std::move(m.data);
                       }));
        f.send("x");
        for (int i = 0; i < turns; ++i) f.io.poll_one();
        cancel.emit(asio::cancellation_type::terminal);
        f.time.settle();
        CHECK(done);
        if (got.empty()) got = f.time.run(f.client->next()).data;
        CHECK(got == "x");
        f.client->close();
        CHECK(f.has_ended());
    }
}

TEST_CASE("the queue is bounded in bytes, and a short message does not overtake a long one that waits") {
    auto o = quick();
    o.maximum_queued = 10;
    fixture f(std::move(o));
    f.send("0123456");
    f.time.settle();
    CHECK_FALSE(f.client->try_send(message_kind::text, "0123"));
    CHECK(f.client->try_send(message_kind::text, "01"));
    f.send("a long one");
    f.time.settle();
    CHECK_FALSE(f.client->try_send(message_kind::text, "x"));
    f.send("y");
    f.time.settle();
    CHECK(f.client->queued() == 2);
    f.start();
    for (auto const* const text : {"0123456", "01", "a long one", "y"})
        CHECK(f.time.run(f.client->next()).data == text);
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("a connection that has lasted ends the row of failures: pauses do not grow") {
    fixture f;
    f.server = [](server_stream& s) -> asio::awaitable<void> {
        co_await sleep_for<asio::any_io_executor>(s.get_executor(), 20s);
        co_await s.close(ws::close_code::normal);
    };
    f.start();
    f.time.advance(65s);
    CHECK(f.count(kind::waiting) == 3);
    for (auto const& e : f.events)
        if (e.what == kind::waiting) CHECK(e.pause == 1s);
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("who waits for a message is told that run has ended") {
    fixture f;
    f.start();
    bool told = false;
    asio::co_spawn(f.io, f.client->next(), [&](std::exception_ptr e, ws::received_message) {
        try {
            if (e) std::rethrow_exception(e);
        } catch (std::system_error const& error) {
            told = error.code() == ws::errc::closing;
        }
    });
    f.time.settle();
    f.client->close();
    CHECK(f.has_ended());
    f.time.settle();
    CHECK(told);
}

TEST_CASE("one message of any size is taken, and text that is no UTF-8 is not") {
    auto o = quick();
    o.maximum_queued = 10;
    fixture f(std::move(o));
    CHECK(f.client->try_send(message_kind::text, std::string(1000, 'x')));
    CHECK_FALSE(f.client->try_send(message_kind::text, ""));
    CHECK_THROWS_AS(f.client->try_send(message_kind::text, "\xFF"), std::system_error);
    CHECK_THROWS_AS(f.time.run(f.client->send_text("\xFF")), std::system_error);
}

TEST_CASE("what cannot succeed is not tried again, and what the policy limits is given up") {
    {
        auto o = quick();
        o.handshake.path = "no slash";
        fixture f(std::move(o));
        f.start();
        CHECK(f.has_ended());
        CHECK(f.error_code() == ws::errc::invalid_target);
        CHECK(f.kinds() == std::vector{kind::connecting, kind::lost, kind::gave_up});
    }
    {
        auto o = quick();
        o.reconnect.attempts = 3;
        fixture f(std::move(o));
        f.on_open = [](memory_stream<>&) { throw std::system_error(asio::error::connection_refused); };
        f.start();
        CHECK(f.has_ended());
        CHECK(f.error_code() == asio::error::connection_refused);
        CHECK(f.opened == 3);
        CHECK_THROWS_AS(f.time.run(f.client->next()), std::system_error);
    }
    {
        fixture f;  // nobody answers
        f.on_open = [](memory_stream<>& s) { s.cut(); };
        f.start();
        f.time.advance(10min);
        CHECK(f.count(kind::connecting) > 5);
        auto const before = f.time.now();
        f.client->close();
        CHECK(f.has_ended());
        CHECK(f.time.now() == before);  // in the middle of a pause
        CHECK(f.events.back().what == kind::closed);
    }
}

TEST_CASE("headers are made for each attempt, and what makes them may throw: that ends run") {
    auto o = quick();
    int made = 0;
    o.make_headers = [&] {
        if (++made == 3) throw std::runtime_error("no token");
        return std::vector<ws::header>{{"Authorization", "Bearer " + std::to_string(made)}};
    };
    fixture f(std::move(o));
    f.server = [](server_stream& s) { return s.close(ws::close_code::normal); };
    f.start();
    CHECK(f.has_ended());
    CHECK(made == 3);
    CHECK_THROWS_AS(std::rethrow_exception(f.error), std::runtime_error);
}

TEST_CASE("who is told of events may throw: that ends run, which may be called again") {
    for (auto const what : {kind::connecting, kind::connected, kind::lost, kind::waiting}) {
        fixture f;
        f.server = [](server_stream& s) { return s.close(ws::close_code::normal); };
        f.on_event = [&](connection_event const& e) {
            if (e.what == what) throw std::system_error(std::make_error_code(std::errc::io_error));
        };
        f.start();
        CHECK(f.has_ended());
        CHECK(f.error_code() == std::errc::io_error);
        CHECK(f.events.back().what == what);
        f.on_event = nullptr;
        auto const before = f.count(kind::connected);
        f.start();
        CHECK(f.time.advance_until([&] { return f.count(kind::connected) > before; }));
    }
}

TEST_CASE("a server that refuses the client is asked again only with fresh headers") {
    for (bool const renewable : {false, true}) {
        auto o = quick();
        if (renewable) o.make_headers = [] { return std::vector<ws::header>{}; };
        fixture f(std::move(o));
        f.refuses = true;
        f.start();
        CHECK(f.has_ended());
        CHECK(f.error_code() == ws::errc::unauthorized);
        CHECK(f.opened == (renewable ? 3 : 1));
    }
}

TEST_CASE("a server that does not answer the handshake is left after the time limit") {
    auto o = quick();
    o.connect_timeout = 20s;
    o.handshake.timeout = 0ms;  // without limit
    fixture f(std::move(o));
    std::vector<memory_stream<>> silent;
    f.on_stream = [&](memory_stream<> s) { silent.push_back(std::move(s)); };
    f.start();
    f.time.advance(22s);
    CHECK(f.count(kind::lost) == 1);
    CHECK(f.events[1].error == transport_errc::connect_timeout);
    CHECK(f.opened == 2);
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("it is destroyed by its handler at each event, and from outside at each moment") {
    for (auto const what : {kind::connecting, kind::connected, kind::lost, kind::waiting}) {
        fixture f;
        f.next_servers = {[](server_stream& s) { return s.close(ws::close_code::normal); }};
        f.on_event = [&](connection_event const& e) {
            if (e.what == what) f.client.reset();
        };
        f.send("x");
        f.start();
        CHECK(f.has_ended());
        CHECK(f.error_code() == asio::error::operation_aborted);
    }
    for (int turns = 0; turns < 80; ++turns) {
        for (bool const cancel : {false, true}) {
            CAPTURE(turns);
            fixture f;
            f.start();
            f.send("x");
            asio::co_spawn(f.io, f.client->next(), asio::detached);
            for (int i = 0; i < turns; ++i) f.io.poll_one();
            if (cancel)
                f.signal.emit(asio::cancellation_type::terminal);
            else
                f.client.reset();
            CHECK(f.has_ended());
            CHECK(f.error_code() == asio::error::operation_aborted);
            if (!cancel) continue;
            f.start();  // after a cancellation it can be run again
            CHECK(f.time.advance_until([&] { return f.client->is_connected(); }));
        }
    }
}

TEST_CASE("close at each moment: run completes, what was queued is sent first if there is a connection") {
    for (int turns = 1; turns < 80; ++turns) {
        CAPTURE(turns);
        fixture f;
        f.start();
        f.send("x");
        for (int i = 0; i < turns; ++i) f.io.poll_one();
        f.client->close(ws::close_code{4000}, "done");
        CHECK(f.has_ended());
        CHECK_FALSE(f.error);
        CHECK(f.events.empty() == false);
        CHECK(f.client->counters().in_doubt == 0);
        CHECK(f.client->counters().handed_on + f.client->queued() + f.refused == 1);
        if (f.client->counters().connections != 0) CHECK(f.client->queued() == 0);
    }
}

TEST_CASE("it is destroyed at each moment after close, or after it has been cancelled") {
    for (bool const is_silent : {false, true})
        for (bool const is_cancelled : {false, true})
            for (int turns = 0; turns < 48; ++turns)
                for (int later = turns % static_cast<int>(test::every(3)); later < 14;
                     later += static_cast<int>(test::every(3))) {
                    CAPTURE(turns);
                    CAPTURE(later);
                    fixture f;
                    std::vector<memory_stream<>> kept;
                    if (is_silent) f.on_stream = [&](memory_stream<> s) { kept.push_back(std::move(s)); };
                    f.start();
                    f.send("x");
                    asio::co_spawn(f.io, f.client->next(), asio::detached);
                    for (int i = 0; i < turns; ++i) f.io.poll_one();
                    if (is_cancelled)
                        f.signal.emit(asio::cancellation_type::terminal);
                    else
                        f.client->close();
                    for (int i = 0; i < later; ++i) f.io.poll_one();
                    f.client.reset();
                    REQUIRE(f.has_ended());
                }
}

TEST_CASE("close in the handler of the last failure is a close") {
    auto o = quick();
    o.reconnect.attempts = 1;
    fixture f(std::move(o));
    f.on_open = [](memory_stream<>& s) { s.cut(); };
    f.on_event = [&](connection_event const& e) {
        if (e.what == kind::lost) f.client->close();
    };
    f.start();
    CHECK(f.has_ended());
    CHECK_FALSE(f.error);
}

TEST_CASE("who waits for room is refused by a close, also when run ends in the same turn, or is called again") {
    for (auto const what : {kind::lost, kind::gave_up})
        for (bool const again : {false, true}) {
            CAPTURE(again);
            auto o = quick();
            o.maximum_queued_messages = 1;
            o.reconnect.attempts = 1;
            fixture f(std::move(o));
            f.on_open = [&](memory_stream<>& s) {
                if (f.opened == 1) s.cut();
            };
            f.on_event = [&](connection_event const& e) {
                if (e.what == what && f.opened == 1) f.client->close();
            };
            f.send("queued");
            f.send("waits");
            asio::co_spawn(f.io, f.client->run(), [&](std::exception_ptr) {
                if (again) f.start();
            });
            f.time.settle();
            CHECK(f.sent == 1);
            CHECK(f.refused == 1);
            CHECK(f.client->counters().handed_on == (again ? 1 : 0));
            f.send("behind");
            f.time.settle();
            CHECK(f.sent == (again ? 2 : 1));
            f.client->close();
            f.time.settle();
        }
}

TEST_CASE("a refusal that comes at the end of the time for connecting is told, though its body does not come") {
    for (auto const at : {0ms, 1400ms, 1999ms}) {
        CAPTURE(at.count());
        auto o = quick();
        o.connect_timeout = 2s;
        o.reconnect.attempts = 1;
        fixture f(std::move(o));
        auto const refuse = [](fixture* self, memory_stream<> s, auto when) -> asio::awaitable<void> {
            auto waiting = sleep_for(asio::any_io_executor(self->io.get_executor()), when);
            co_await std::move(waiting);
            send_buffer out;
            out.append("HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\n");
            co_await s.write(out);
            char room[1000];
            for (;;) co_await s.read_some(asio::buffer(room));
        };
        f.on_stream = [&](memory_stream<> s) { asio::co_spawn(f.io, refuse(&f, std::move(s), at), asio::detached); };
        f.start();
        CHECK(f.has_ended());
        CHECK(f.error_code() == ws::errc::unauthorized);
    }
}

TEST_CASE("a close for which there is no memory has done nothing, and may be called again") {
    using runnel::testing::allocator;
    int failures = 0;
    for (auto const by : {allocator::operator_new, allocator::aligned_alloc}) {
        auto o = quick();
        o.maximum_queued_messages = 1;
        fixture f(std::move(o));
        f.on_open = [&](memory_stream<>& s) { s.cut(); };
        f.start();
        f.time.advance_until([&] { return f.count(kind::waiting) == 1; });
        f.send("queued");
        f.send("waits");
        f.time.settle();
        bool failed = false;
        {
            runnel::testing::failing_allocation const failing(1, by);
            try {
                f.client->close();
            } catch (std::bad_alloc const&) {
                failed = true;
            }
        }
        f.time.settle();
        if (failed) {
            CHECK(f.ended == 0);
            CHECK(f.refused == 0);
            f.client->close();
        }
        CHECK(f.has_ended());
        CHECK(f.refused == 1);
        CHECK(f.kinds().back() == kind::closed);
        failures += failed;
    }
    CHECK(failures > 0);
}

TEST_CASE("no message is lost where there is no memory while they are sent: run may be called again") {
    std::size_t constexpr messages = 20;
    bool failed = true;
    int ends = 0;
    for (std::size_t n = 1; failed; ++n) {
        CAPTURE(n);
        REQUIRE(n < 1'000);
        auto o = quick();
        o.maximum_queued_messages = 2;
        fixture f(std::move(o));
        f.server = [](server_stream&) -> asio::awaitable<void> { co_return; };  // reads nothing
        std::optional<runnel::testing::failing_allocation> failing;
        f.on_event = [&](connection_event const& e) {
            if (e.what == kind::connected && f.count(kind::connected) == 1) failing.emplace(n);
        };
        for (std::size_t i = 0; i < messages; ++i) f.send(std::to_string(i));
        f.start();
        try {
            f.time.settle();
        } catch (std::bad_alloc const&) {
            f.time.settle();
        }
        REQUIRE(failing);
        failed = failing->has_failed();
        failing.reset();
        ends += f.ended;
        if (f.ended != 0) f.start();
        f.time.advance_until([&] { return f.sent == messages && f.client->queued() == 0; });
        auto const& c = f.client->counters();
        CHECK(c.handed_on + c.in_doubt == messages);
        CHECK(c.in_doubt <= 1);
        CHECK(f.sent == messages);
        CHECK(f.client->queued_bytes() == 0);
    }
    CHECK(ends > 0);
}

TEST_CASE("who waits for a message is told that run has ended, though it is called again at once") {
    fixture f;
    f.send("x");
    asio::co_spawn(f.io, f.client->run(), [&](std::exception_ptr) { f.start(); });
    CHECK(f.time.run(f.client->next()).data == "x");
    std::error_code why;
    asio::co_spawn(f.io, f.client->next(), [&](std::exception_ptr e, ws::received_message) {
        try {
            if (e) std::rethrow_exception(e);
        } catch (std::system_error const& error) {
            why = error.code();
        }
    });
    f.time.settle();
    f.client->close();
    CHECK(f.time.advance_until([&] { return f.count(kind::connected) == 2; }));
    CHECK(why == ws::errc::closing);
    f.send("y");  // and that is over
    CHECK(f.time.run(f.client->next()).data == "y");
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("messages are waited for as soon as run has been called again; a call while it ran may have its turn later") {
    fixture f;
    f.start();
    f.time.settle();
    f.client->close();
    CHECK(f.has_ended());
    std::string got;
    asio::co_spawn(f.io, f.client->next(), [&](std::exception_ptr e, ws::received_message m) {
        CHECK_FALSE(e);
        got = std::move(m.data);
    });
    f.start();  // has its first turn behind that of `next`
    f.send("x");
    f.time.settle();
    CHECK(got == "x");
    auto second = f.client->run();  // has its turn when the first one has ended
    f.client->close();
    CHECK(f.time.advance_until([&] { return f.ended == 2; }));
    asio::co_spawn(f.io, std::move(second), asio::detached);
    f.time.settle();
    f.send("y");
    CHECK(f.time.run(f.client->next()).data == "y");
    f.client->close();
    f.time.settle();
}

TEST_CASE("what is sent while the server closes goes to the next connection") {
    fixture f;
    f.next_servers = {[](server_stream& s) -> asio::awaitable<void> {
        co_await s.write_message(message_kind::text, "bye");
        co_await s.close(ws::close_code::going_away);
    }};
    std::string got;
    f.server = [&](server_stream& s) -> asio::awaitable<void> {
        auto const m = co_await s.read_message();
        got = m.data;
    };
    f.start();
    asio::co_spawn(
        f.io,
        [](client_type& c) -> asio::awaitable<void> {
            auto const m = co_await c.next();
            co_await c.send_text("answer to " + m.data);
        }(*f.client),
        asio::detached);
    f.time.advance(10min);
    CHECK(got == "answer to bye");
    CHECK(f.client->counters().in_doubt == 0);
}

TEST_CASE("a dead server is noticed in time, though more is sent all the while") {
    auto o = quick();
    o.ping_interval = 30s;
    o.ping_timeout = 10s;
    fixture f(std::move(o));
    f.server = [](server_stream& s) -> asio::awaitable<void> {
        wait_list<asio::any_io_executor> never(s.get_executor());
        waiter<asio::any_io_executor> w;
        co_await never.wait(w);
    };
    f.start();
    f.time.settle();
    while (f.count(kind::lost) == 0 && f.time.elapsed() < 10min) {
        f.client->try_send(message_kind::text, std::string(100, 'x'));
        f.time.advance(3s);
    }
    CHECK(f.time.elapsed() < 60s);
}

TEST_CASE("of several servers the next is tried where one refuses each WebSocket") {
    asio::io_context io;
    testing::virtual_time time{io};
    int first = 0, second = 0;
    auto const serving = [&io](int& count, int status) {
        return memory_transport{[&io, &count, status](memory_stream<> s) {
            ++count;
            auto talk = [](memory_stream<> t, int how) -> asio::awaitable<void> {
                auto const judge = [how](ws::server_request const&) { return how; };
                auto accepting = server_stream::accept(std::move(t), ws::server_options(), judge);
                auto stream = co_await std::move(accepting);
                auto talking = echo(stream);
                co_await std::move(talking);
            };
            asio::co_spawn(io, talk(std::move(s), status), asio::detached);
        }};
    };
    auto o = quick();
    o.handshake.subprotocol = {};
    using several = failover<memory_transport>;
    ws::reconnecting_client<several> client(io.get_executor(), several({serving(first, 503), serving(second, 101)}), o);
    asio::co_spawn(io, client.run(), asio::detached);
    CHECK(time.advance_until([&] { return client.is_connected(); }, 1h));
    CHECK(first == 1);
    client.close();
    time.advance(1min);
}

TEST_CASE("of several servers the next is tried where one accepts each WebSocket and does not keep it") {
    for (auto const lasts : {0s, 9s, 10s}) {
        CAPTURE(lasts.count());
        fixture f;
        int first = 0, second = 0;
        auto const serving = [&f](int& count, behaviour does) {
            return memory_transport{[&f, &count, does](memory_stream<> s) {
                ++count;
                f.server = does;
                asio::co_spawn(f.io, fixture::serve(&f, std::move(s)), asio::detached);
            }};
        };
        auto const closes = [lasts](server_stream& s) -> asio::awaitable<void> {
            co_await sleep_for<asio::any_io_executor>(s.get_executor(), lasts);
            co_await s.close(ws::close_code::try_again_later);
        };
        using several = failover<memory_transport>;
        ws::reconnecting_client<several> client(f.io.get_executor(),
                                                several({serving(first, closes), serving(second, echo)}), quick());
        asio::co_spawn(f.io, client.run(), asio::detached);
        f.time.advance(1min);
        CHECK(second == (lasts < 10s ? 1 : 0));  // `stable_after`
        if (second != 0) CHECK(first == 1);
        CHECK(client.is_connected());
        client.close();
        f.time.advance(1min);
    }
}

TEST_CASE("a server whose WebSocket is closed by the client soon is a good one") {
    fixture f;
    int first = 0, second = 0;
    auto const serving = [&f](int& count) {
        return memory_transport{[&f, &count](memory_stream<> s) {
            ++count;
            asio::co_spawn(f.io, fixture::serve(&f, std::move(s)), asio::detached);
        }};
    };
    using several = failover<memory_transport>;
    ws::reconnecting_client<several> client(f.io.get_executor(), several({serving(first), serving(second)}), quick());
    for (int i = 0; i < 2; ++i) {
        asio::co_spawn(f.io, client.run(), asio::detached);
        f.time.settle();
        client.close();
        f.time.advance(1min);
    }
    CHECK(first == 2);
    CHECK(second == 0);
}

namespace {

// A transport of which some copies never open.
struct stuck_or_not {
    using executor_type = asio::any_io_executor;
    using stream_type = memory_stream<>;
    static constexpr bool secure = false;
    memory_transport way;
    bool is_stuck = false;

    std::string url() const { return way.url(); }
    asio::awaitable<stream_type> open(executor_type executor) const {
        if (is_stuck) co_await sleep_for<executor_type>(executor, std::chrono::hours(1));
        auto opening = way.open(executor);
        co_return co_await std::move(opening);
    }
    [[maybe_unused]] friend bool operator==(stuck_or_not const&, stuck_or_not const&) = default;
};

}  // namespace

TEST_CASE("each of several servers has its share of the time to connect, not the first one all of it") {
    fixture f;
    auto o = quick();
    o.connect_timeout = 10s;
    std::vector<kind> events;
    o.on_event = [&](connection_event const& e) { events.push_back(e.what); };
    using several = failover<stuck_or_not>;
    ws::reconnecting_client<several> client(f.io.get_executor(), several({{f.transport, true}, {f.transport}}), o);
    asio::co_spawn(f.io, client.run(), asio::detached);
    CHECK(f.time.advance_until([&] { return client.is_connected(); }, 1min));
    CHECK(f.time.elapsed() < 10s);
    CHECK(events == std::vector{kind::connecting, kind::connected});
    client.close();
    f.time.advance(1min);
}

TEST_CASE("an address that is silent is left for the host's next while there is time") {
    // As `tcp` does for a host of two addresses, of which the first one is silent.
    struct two_addresses : stuck_or_not {
        std::vector<int>* tried = nullptr;
        asio::awaitable<stream_type> open(executor_type executor, connect_progress* progress) const {
            bool const again = std::ranges::count(progress->useless(), 1u) != 0;
            tried->push_back(again ? 2 : 1);
            progress->connected_to(again ? 2 : 1);
            if (!again) {
                progress->share_with_addresses(2, "the first", steady_clock::now());
                auto [client, server] = stream_type::pair(executor);
                silent->push_back(std::move(server));
                co_return std::move(client);
            }
            auto opening = way.open(executor);
            co_return co_await std::move(opening);
        }
        asio::awaitable<stream_type> open(executor_type executor) const { return open(std::move(executor), nullptr); }
        std::vector<memory_stream<>>* silent = nullptr;
        bool operator==(two_addresses const&) const = default;
    };
    fixture f;
    auto o = quick();
    o.connect_timeout = 10s;
    o.handshake.timeout = 0s;
    std::vector<int> tried;
    std::vector<memory_stream<>> silent;
    two_addresses both;
    both.way = f.transport;
    both.tried = &tried;
    both.silent = &silent;
    ws::reconnecting_client<two_addresses> client(f.io.get_executor(), both, o);
    asio::co_spawn(f.io, client.run(), asio::detached);
    CHECK(f.time.advance_until([&] { return client.is_connected(); }, 1min));
    CHECK(tried == std::vector{1, 2});
    CHECK(f.time.elapsed() < 10s);
    client.close();
    f.time.advance(1min);
}

TEST_CASE("a server that does not let it close is left after the time limits") {
    auto o = quick();
    o.handshake.stream.close_timeout = 5s;
    o.maximum_queued_messages = 1;
    fixture f(std::move(o));
    f.on_open = [](memory_stream<>& s) { s.incoming().capacity = 1000; };
    f.server = [](server_stream& s) -> asio::awaitable<void> {
        wait_list<asio::any_io_executor> never(s.get_executor());
        waiter<asio::any_io_executor> w;
        co_await never.wait(w);
    };
    f.start();
    f.time.settle();
    f.send(std::string(100'000, 'x'));
    f.time.settle();
    f.send("queued");
    f.send("waits for room");
    f.time.settle();
    CHECK(f.sent == 2);
    f.client->close();
    CHECK_FALSE(f.client->try_send(message_kind::text, "too late"));
    f.time.settle();
    CHECK(f.refused == 1);
    CHECK(f.has_ended());
    CHECK(f.time.elapsed() <= 10s);
    CHECK(f.client->queued() == 1);
    CHECK(f.client->counters().in_doubt == 1);
}

TEST_CASE("run runs once") {
    fixture f;
    f.start();
    f.time.settle();
    CHECK_THROWS_AS(f.time.run(f.client->run()), std::system_error);
    CHECK(f.client->is_connected());
    f.client->close();
    CHECK(f.has_ended());
}

TEST_CASE("options out of range are refused") {
    auto const refused = [](auto change) {
        auto o = quick();
        change(o);
        asio::io_context io;
        CHECK_THROWS_AS(client_type(io.get_executor(), memory_transport(), o), std::out_of_range);
    };
    refused([](auto& o) { o.connect_timeout = 0ms; });
    refused([](auto& o) { o.ping_interval = -1ms; });
    refused([](auto& o) { o.ping_timeout = 0ms; });
    refused([](auto& o) { o.maximum_queued = 0; });
    refused([](auto& o) { o.maximum_queued_messages = 0; });
    refused([](auto& o) { o.maximum_received = 0; });
    refused([](auto& o) { o.reconnect.initial = 0ms; });
    refused([](auto& o) { o.handshake.timeout = -1ms; });
}

TEST_CASE("over TCP, in real time: a server that resets its first connection") {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    asio::co_spawn(
        io,
        [](asio::ip::tcp::acceptor& a) -> asio::awaitable<void> {
            {
                auto first = co_await a.async_accept(asio::use_awaitable);
                first.set_option(asio::socket_base::linger(true, 0));
            }
            auto second = co_await a.async_accept(asio::use_awaitable);
            using socket = asio_stream<asio::ip::tcp::socket>;
            ws::server_options options;
            auto accepting = ws::stream<socket>::accept(socket(std::move(second)), std::move(options));
            auto stream = co_await std::move(accepting);
            auto const m = co_await stream.read_message();
            std::string const text(m.data);
            co_await stream.write_message(message_kind::text, text);
            try {
                co_await stream.read_message();
            } catch (std::system_error const&) {
            }
        }(acceptor),
        asio::detached);
    ws::reconnecting_options o;
    o.reconnect.initial = 1ms;
    o.handshake.host = "127.0.0.1";
    ws::reconnecting_client<tcp> client(io.get_executor(),
                                        tcp{.host = "127.0.0.1", .port = acceptor.local_endpoint().port()}, o);
    std::string got;
    bool ended = false;
    asio::co_spawn(io, client.run(), [&](std::exception_ptr e) { ended = !e; });
    asio::co_spawn(
        io,
        [](auto& c, std::string& to) -> asio::awaitable<void> {
            co_await c.send_text("over TCP");
            auto const m = co_await c.next();
            to = m.data;
            c.close();
        }(client, got),
        asio::detached);
    io.run_for(20s);
    CHECK(got == "over TCP");
    CHECK(ended);
    CHECK(client.counters().connections == 1);
}
