#include <runnel/mqtt/client/detail/connection.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <support/packets.hpp>
#include <thread>

// Without a stream: the test is the reader and the writer.

namespace {

namespace mqtt = runnel::mqtt;
using namespace std::chrono_literals;
using mqtt::errc;
using mqtt::protocol_version;
using mqtt::qos;
using executor = asio::io_context::executor_type;
using connection = mqtt::detail::connection<executor>;
using state = mqtt::lifecycle::state;
using clock_type = connection::clock;

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

struct scene {
    explicit scene(protocol_version version = v3, mqtt::publish_pace pace = {})
        : rules(mqtt::role::client, version, {}, pace) {}

    struct listener : mqtt::session_handler {
        scene& of;
        explicit listener(scene& s) : of(s) {}
        void on_connack(mqtt::connack const&) {
            of.c.on_answer();
            of.c.accept(of.keep_alive, of.held);
        }
        void on_pingresp() { of.c.on_answer(); }
        void on_message(mqtt::publish const& p, mqtt::delivery d) {
            of.messages += p.payload;
            if (of.acknowledges) of.rules.acknowledge(of.packets.out(), d);
        }
        void on_disconnect(mqtt::disconnect const& p) { of.c.blame(make_error_code(p.reason)); }
        void on_violation(std::string_view input) { of.violating = input; }
        void on_read() { ++of.reads; }
        void on_write() { ++of.writes; }
        void on_room() { ++of.rooms; }
    };

    void begin() {
        c.begin_run();
        attempt();
    }
    void attempt() {
        c.ask_for_attempt();
        c.open();
        mqtt::connect packet;
        packet.client_id = "id";
        packet.clean_start = false;
        REQUIRE(rules.connect(packets.out(), packet, {}) == errc::ok);
    }
    // What the writer does.
    void begin_write() {
        writing = &c.gather(listener(*this));
        sent += writing->view();
    }
    void end_write(std::size_t backlog = 0) {
        writing->clear();
        c.on_written(c.position(backlog));
    }
    void write() {
        begin_write();
        end_write();
    }
    void receive(std::string_view bytes) {
        auto const room = c.room();
        REQUIRE(room.size() >= bytes.size());
        std::memcpy(room.data(), bytes.data(), bytes.size());
        c.handle({{}, bytes.size()}, listener(*this));
    }
    template <class Packet>
    void receive_packet(Packet const& p) {
        receive(test::encoded(p, rules.version()));
    }
    void connect() {
        begin();
        write();
        receive_packet(mqtt::connack{was_connected, {}, {}});
        REQUIRE(c.life().is(state::online));
        was_connected = true;
        sent.clear();
    }
    std::uint64_t publish(std::string_view payload, qos quality = qos::at_least_once) {
        auto const begun = rules.publish(packets.out(), {.topic = "t", .payload = payload, .qos = quality});
        REQUIRE(begun.error == errc::ok);
        return begun.number;
    }
    // Starts a coroutine in place of the writer or the reader, on the executor, which ends when it is cancelled.
    void start(runnel::child_task<executor>& task) {
        asio::post(io, [&] { task.start(io.get_executor(), sleep(place)); });
        poll();
    }
    static asio::awaitable<void, executor> sleep(runnel::wait_list<executor>& where) {
        runnel::waiter<executor> w;
        co_await where.wait(w);
        if (w.result) throw std::system_error(w.result);
    }
    // Waits, and says when it goes on.
    static asio::awaitable<void, executor> note(runnel::wait_list<executor>& where, bool& woken) {
        runnel::waiter<executor> w;
        co_await where.wait(w);
        woken = true;
    }
    void poll() {
        io.restart();
        io.poll();
    }

    asio::io_context io;
    mqtt::session_options options;
    mqtt::session_state rules;
    int alarms = 0;
    mqtt::detail::output_queue<executor> packets{io.get_executor(), 0,
                                                 [](void* of) { ++static_cast<scene*>(of)->alarms; }, this};
    connection c{rules, options, packets, 0};
    runnel::wait_list<executor> place{io.get_executor()};
    runnel::send_buffer* writing = nullptr;
    std::chrono::seconds keep_alive{60};
    bool held = false;
    bool acknowledges = true;
    bool was_connected = false;
    std::string sent, messages, violating;
    int reads = 0, writes = 0, rooms = 0;
};

std::string const pingresp("\xD0\0", 2);
std::string const violation("\xF1\0", 2);  // with a reserved flag

mqtt::session_counters counters(scene const& s) {
    mqtt::session_counters all;
    s.c.count(all);
    return all;
}

}  // namespace

TEST_CASE(
    "nothing of a connection comes to be on the next: neither what was read, nor what was to be written, nor states") {
    scene s;
    s.connect();
    CHECK(s.writing->capacity() == 0);  // CONNECT, with its password, is wiped
    s.publish("unanswered");
    s.write();
    CHECK(s.c.written_at() != clock_type::time_point());
    s.publish("unwritten");
    s.begin_write();
    s.c.on_shut_down();
    s.receive(std::string("\x30\x05\0", 3));  // the beginning of a packet
    s.publish("waits", qos::at_most_once);
    CHECK_FALSE(s.c.is_empty());
    CHECK_FALSE(s.c.unread().empty());
    s.c.reader().end(nullptr);  // the input is over
    s.c.cancel();
    CHECK_FALSE(s.c.is_busy());
    CHECK(s.c.left().any);
    CHECK(s.packets.out().empty());
    s.packets.out().append("left");
    s.c.reset();
    CHECK(s.c.unread().empty());
    CHECK(s.packets.out().empty());
    CHECK(s.c.is_empty());

    s.attempt();
    CHECK(s.c.has_packets());
    CHECK_FALSE(s.c.left().any);
    CHECK(s.c.written_at() == clock_type::time_point());
    CHECK_FALSE(s.c.life().broken());
    s.write();
    s.receive_packet(mqtt::connack{true, {}, {}});
    CHECK(s.c.life().is(state::online));
    // What the layers below hold when the time for the end is over counts: the input of this connection is not over.
    s.c.close(true);
    s.begin_write();
    s.end_write(1);
    s.c.advance(s.c.life().deadline(), s.c.position(1), false);
    CHECK(s.c.life().cut_off() == errc::close_timeout);
}

TEST_CASE("what is written and read is counted") {
    scene s;
    s.connect();
    auto const before = counters(s);
    CHECK(before.bytes_received == 4);
    CHECK(before.writes == 1);
    CHECK(before.bytes_sent > 10);
    s.publish("x", qos::at_most_once);
    s.write();
    s.receive(pingresp);
    auto const after = counters(s);
    CHECK(after.bytes_received == 6);
    CHECK(after.writes == 2);
    CHECK(after.bytes_sent == before.bytes_sent + 6);
    // The session is asked each time: it stores before a write, and goes on behind a read.
    CHECK(s.writes == 2);
    CHECK(s.rooms == 2);
    CHECK(s.reads == 2);
}

TEST_CASE("a position tells what has been written, without what is being written and what the layers below hold") {
    scene s;
    s.connect();
    auto const begun = s.c.position(0).written;
    s.publish("x", qos::at_most_once);
    s.begin_write();
    CHECK(s.c.position(0).written == begun);
    s.writing->clear();
    auto const at = s.c.position(2);
    CHECK(at.written == begun + 6);
    CHECK(at.taken == begun + 4);
    CHECK(s.c.position(1'000'000).taken == 0);
}

TEST_CASE("a violation drops what comes behind it, is told in MQTT 5, and gives the connection a limit of time") {
    for (auto const version : {v3, v5}) {
        scene s(version);
        s.connect();
        bool woken = false;
        asio::co_spawn(s.io, scene::note(s.packets.writer(), woken), asio::detached);
        s.poll();
        CHECK_FALSE(woken);
        int const alarms = s.alarms;
        auto const now = clock_type::now();
        std::string const message = test::encoded(mqtt::publish{.topic = "t", .payload = "x"}, version);
        s.receive(message + violation + message);
        CHECK(s.messages == "x");
        CHECK(s.violating.starts_with(violation.substr(0, 1)));
        CHECK(s.c.unread().empty());
        CHECK(s.c.life().is_violated());
        CHECK(s.c.life().is(state::closing));
        CHECK(s.c.life().deadline() >= now + s.options.close_timeout);
        CHECK(s.c.life().deadline() <= clock_type::now() + s.options.close_timeout);
        CHECK_FALSE(s.rules.connected());
        CHECK(s.packets.out().empty() == (version == v3));
        s.poll();
        CHECK(woken);
        CHECK(s.alarms > alarms);
        // It is read to the peer's end, and all that comes is dropped.
        CHECK(s.c.is_reading());
        s.receive(message);
        CHECK(s.messages == "x");
        CHECK(s.c.unread().empty());
        CHECK(s.c.advance(clock_type::now(), {}, false) == s.c.life().deadline());
        s.c.advance(s.c.life().deadline(), {}, false);
        CHECK_FALSE(s.c.is_reading());
        s.poll();
        CHECK_FALSE(s.c.is_busy());
    }
}

TEST_CASE("behind the server's DISCONNECT nothing is read, and its reason counts") {
    scene s(v5);
    s.connect();
    s.publish("unanswered");
    s.write();
    s.receive(std::string("\xE0\x01\x8E", 3));  // session taken over
    CHECK_FALSE(s.c.is_reading());
    CHECK(s.c.life().cause() == mqtt::reason_code::session_taken_over);
    CHECK(s.c.left().any);
}

TEST_CASE("an end in good order has its own limit of time, in which no ping goes out, and the timer sleeps till then") {
    scene s;
    s.keep_alive = 1s;
    s.connect();
    CHECK(s.c.advance(clock_type::now(), s.c.position(0), false) < clock_type::now() + 1s);
    s.poll();
    int const alarms = s.alarms;
    bool woken = false;
    asio::co_spawn(s.io, scene::note(s.packets.writer(), woken), asio::detached);
    s.poll();
    s.c.close(true);
    CHECK(s.c.life().deadline() > clock_type::now() + 1s);
    s.poll();
    CHECK(woken);
    CHECK(s.alarms == alarms + 1);
    auto const now = clock_type::now() + 900ms;
    CHECK(s.c.advance(now, s.c.position(0), false) == s.c.life().deadline());
    CHECK(s.packets.out().empty());
    CHECK(s.c.has_to_write());  // the stream's shutdown
    CHECK(s.c.is_written());
    s.publish("x", qos::at_most_once);
    CHECK_FALSE(s.c.is_written());
    s.begin_write();
    CHECK_FALSE(s.c.is_written());
    s.end_write();
    CHECK_FALSE(s.c.has_to_write());  // the server has a moment to end the connection
    CHECK_FALSE(s.c.is_written());
    auto const then = s.c.advance(clock_type::now(), s.c.position(0), false);
    CHECK(then < clock_type::now() + 1s);
    std::this_thread::sleep_until(then);
    CHECK(s.c.has_to_write());
    CHECK(s.c.is_written());
    s.c.on_shut_down();
    CHECK_FALSE(s.c.has_to_write());
    s.publish("y", qos::at_most_once);
    CHECK_FALSE(s.c.has_packets());
}

TEST_CASE("the server's moment to go begins when all has been written, and the timer is told") {
    scene s;
    s.connect();
    s.publish("x", qos::at_most_once);
    s.begin_write();
    s.c.close(true);
    CHECK_FALSE(s.c.has_to_write());
    s.publish("y", qos::at_most_once);
    s.end_write();
    CHECK(s.c.life().shutdown_at() == mqtt::never);  // more has gathered
    s.begin_write();
    s.poll();
    int const alarms = s.alarms;
    auto const now = clock_type::now();
    s.end_write();
    s.poll();
    CHECK(s.alarms > alarms);
    CHECK(s.c.life().shutdown_at() >= now + 200ms);
    CHECK(s.c.life().shutdown_at() <= clock_type::now() + 200ms);
}

TEST_CASE("while the network takes what has been written the server's moment lasts, and it ends when all is taken") {
    scene s;
    s.options.close_timeout = 20s;
    s.connect();
    s.publish("x", qos::at_most_once);
    s.c.close(true);
    s.begin_write();
    s.end_write(6);
    auto const then = s.c.life().shutdown_at();
    CHECK(s.c.advance(then - 1ms, s.c.position(6), false) == then);
    CHECK(s.c.advance(then, s.c.position(6), false) == then + 200ms);
    CHECK(s.c.advance(then + 200ms, s.c.position(4), false) == then + 400ms);
    CHECK(s.c.advance(then + 400ms, s.c.position(4), false) == s.c.life().deadline());
    CHECK(s.c.advance(then + 500ms, s.c.position(2), false) == then + 700ms);
    CHECK(s.c.advance(then + 700ms, s.c.position(0), false) == s.c.life().deadline());
}

TEST_CASE("a server that is told nothing of its violation is not waited for") {
    scene s(v3);
    s.connect();
    s.receive(violation);
    CHECK(s.c.life().shutdown_at() <= clock_type::now());
    CHECK(s.c.is_written());

    scene told(v5);
    told.connect();
    told.receive(violation);
    CHECK(told.c.life().shutdown_at() == mqtt::never);
    told.write();
    CHECK(told.c.life().shutdown_at() > clock_type::now());
}

TEST_CASE("what the layers below hold when the stream goes is lost, but for the end itself") {
    for (std::uint64_t const held : {256U, 257U}) {
        scene s;
        s.connect();
        s.c.close(true);
        s.c.cancel();
        s.c.lose({1000, 1000 - held});
        CHECK(static_cast<bool>(s.c.life().cut_off()) == (held == 257));
    }
    // The time is over: all that is held counts, unless the peer has ended its direction, so that it is the end.
    for (bool const ended : {false, true}) {
        scene s;
        s.connect();
        s.c.close(true);
        s.publish("x", qos::at_most_once);
        s.begin_write();
        s.writing->clear();
        s.c.on_written({});
        if (ended) s.c.reader().end(nullptr);
        s.c.advance(s.c.life().deadline(), s.c.position(6), false);
        CHECK(static_cast<bool>(s.c.life().cut_off()) == !ended);
    }
}

TEST_CASE("while the server has to prove itself nothing is written, and the stream not shut down") {
    scene s;
    s.held = true;
    s.connect();
    CHECK(s.c.is_held());
    s.publish("x", qos::at_most_once);
    CHECK_FALSE(s.c.has_packets());
    s.c.close(true);
    CHECK_FALSE(s.c.has_to_write());
    CHECK_FALSE(s.c.is_written());
    // The peer ends: there is nothing to wait for.
    s.start(s.c.writer());
    s.c.reader().end(nullptr);
    s.poll();
    CHECK_FALSE(s.c.is_busy());

    scene other;
    other.held = true;
    other.connect();
    other.poll();
    int const alarms = other.alarms;
    other.publish("x", qos::at_most_once);
    bool woken = false;
    asio::co_spawn(other.io, scene::note(other.packets.writer(), woken), asio::detached);
    other.poll();
    CHECK(other.alarms == alarms);
    other.c.release();
    other.poll();
    CHECK(woken);
    CHECK(other.alarms > alarms);
    CHECK(other.c.has_packets());
}

TEST_CASE("after the peer's end what is left of an end in good order is still written") {
    scene s;
    s.connect();
    s.publish("x", qos::at_most_once);
    s.c.close(true);
    s.c.reader().end(nullptr);
    CHECK(s.c.life().is(state::closing));
    CHECK(s.c.has_packets());
    s.write();
    s.c.on_shut_down();
    s.c.writer().end(nullptr);
    CHECK_FALSE(s.c.is_busy());
    CHECK_FALSE(s.c.life().cut_off());
    CHECK(s.sent.ends_with("x"));
}

TEST_CASE("a connection is over only when neither reader nor writer runs, and run is told then") {
    scene s;
    s.connect();
    s.start(s.c.reader());
    s.start(s.c.writer());
    bool told = false;
    asio::co_spawn(s.io, scene::note(s.c.waiters(), told), asio::detached);
    s.poll();
    s.publish("x", qos::at_most_once);
    s.c.cancel();
    CHECK(s.c.life().is(state::over));
    CHECK(s.c.life().cause() == asio::error::operation_aborted);
    CHECK(s.packets.out().empty());
    CHECK_FALSE(s.rules.connected());
    CHECK_FALSE(told);
    s.poll();
    CHECK_FALSE(s.c.reader().running());
    CHECK_FALSE(s.c.writer().running());
    CHECK_FALSE(s.c.is_busy());
    CHECK(told);

    scene only_writes;
    only_writes.connect();
    only_writes.start(only_writes.c.writer());
    only_writes.c.cancel();
    CHECK(only_writes.c.is_busy());
    only_writes.poll();
    CHECK_FALSE(only_writes.c.is_busy());
}

TEST_CASE("the answers to what comes are to be written without waiting for anything else") {
    scene s;
    s.connect();
    s.poll();
    int const alarms = s.alarms;
    s.receive(std::string("\x32\x06\0\1t\0\1x", 8));
    s.poll();
    CHECK(s.alarms > alarms);
    s.write();
    CHECK(s.sent == std::string("\x40\x02\0\1", 4));
}

TEST_CASE("after a write that has failed only what the peer has said is heard, for a moment, and nothing is written") {
    auto const broken = std::make_exception_ptr(std::system_error(asio::error::broken_pipe));
    scene s;
    s.keep_alive = 1s;
    s.connect();
    s.start(s.c.reader());
    s.publish("x", qos::at_most_once);
    s.poll();
    int const alarms = s.alarms;
    auto const now = clock_type::now();
    s.c.writer().end(broken);
    CHECK(s.c.life().is(state::closing));
    CHECK(s.c.life().deadline() >= now + 100ms);
    CHECK(s.c.life().deadline() <= clock_type::now() + 100ms);
    CHECK_FALSE(s.c.has_to_write());
    s.poll();
    CHECK(s.alarms > alarms);
    CHECK(s.c.advance(now, {}, false) == s.c.life().deadline());
    CHECK(s.c.is_reading());
    s.c.advance(s.c.life().deadline(), {}, false);
    s.poll();
    CHECK_FALSE(s.c.is_busy());
    CHECK(s.c.life().cause() == asio::error::broken_pipe);

    // Where the input is over too, or the peer had broken the protocol, there is nothing to hear.
    scene other;
    other.connect();
    other.receive(violation);
    other.c.writer().end(broken);
    CHECK_FALSE(other.c.is_busy());
    CHECK(other.c.life().cause() != asio::error::broken_pipe);

    // A shorter close timeout bounds that, too.
    scene hasty;
    hasty.options.close_timeout = 5ms;
    hasty.connect();
    hasty.start(hasty.c.reader());
    hasty.c.writer().end(broken);
    CHECK(hasty.c.life().deadline() <= clock_type::now() + 5ms);
}

TEST_CASE("a reset that a write has found is not hidden by the end that a read finds") {
    scene s;
    s.connect();
    s.start(s.c.reader());
    s.c.writer().end(std::make_exception_ptr(std::system_error(asio::error::connection_reset)));
    s.c.reader().end(std::make_exception_ptr(std::system_error(asio::error::eof)));
    CHECK(s.c.life().cause() == asio::error::connection_reset);

    scene other;
    other.connect();
    other.start(other.c.reader());
    other.c.writer().end(std::make_exception_ptr(std::system_error(asio::error::broken_pipe)));
    other.c.reader().end(std::make_exception_ptr(std::system_error(asio::error::eof)));
    CHECK(other.c.life().cause() == asio::error::eof);
}

TEST_CASE("what the user has thrown is thrown again, once, and not in the next run") {
    struct own {};
    scene s;
    s.connect();
    s.c.reader().end(std::make_exception_ptr(own{}));
    CHECK_FALSE(s.c.is_busy());
    CHECK_THROWS_AS(s.c.rethrow_failure(), own);
    CHECK_NOTHROW(s.c.rethrow_failure());
    s.c.reset();
    s.attempt();
    s.c.fail(std::make_exception_ptr(own{}));
    s.c.reset();
    s.c.begin_run();
    CHECK_NOTHROW(s.c.rethrow_failure());
}

TEST_CASE("a ping goes out when it is due, is known when it is written, and a dead connection ends") {
    scene s;
    s.keep_alive = 20s;
    s.options.response_timeout = 5s;
    s.connect();
    auto now = clock_type::now();
    auto const due = s.c.advance(now, s.c.position(0), false);
    CHECK(due > now + 14s);
    CHECK(due <= now + 15s);
    s.poll();
    int const alarms = s.alarms;
    CHECK(s.c.advance(due, s.c.position(0), false) > due);
    CHECK(s.packets.out().view() == std::string("\xC0\0", 2));
    CHECK_FALSE(s.c.writes_ping());
    s.poll();
    CHECK(s.alarms > alarms);  // it is to be written
    s.begin_write();
    CHECK(s.c.writes_ping());
    auto const written_at = s.c.written_at();
    s.end_write();
    CHECK(s.c.written_at() == written_at);  // no message
    CHECK_FALSE(s.c.writes_ping());
    // Whatever comes then answers it.
    s.receive(pingresp);
    s.c.advance(clock_type::now() + 6s, s.c.position(0), false);
    CHECK(s.c.life().is(state::online));
    CHECK(s.packets.out().empty());
    CHECK(counters(s).round_trip.count() < 60'000'000);
    s.c.advance(clock_type::now() + 15s, s.c.position(0), false);
    s.write();
    // A session that cannot hear as its application takes no messages does not take it for dead.
    auto const late = clock_type::now() + 6s;
    s.c.advance(late, s.c.position(0), true);
    CHECK(s.c.life().is(state::online));
    auto const next = s.c.advance(late + 15s, s.c.position(0), false);
    CHECK(s.packets.out().size() == 2);
    s.c.advance(next, s.c.position(0), false);
    CHECK(s.c.life().cause() == errc::keep_alive_timeout);
    CHECK_FALSE(s.c.is_busy());
}

TEST_CASE("a ping that is answered while what is behind it is being written is not awaited, and tells no round trip") {
    scene s;
    s.keep_alive = 20s;
    s.options.response_timeout = 5s;
    s.connect();
    auto const round_trip = counters(s).round_trip;
    s.c.advance(clock_type::now() + 15s, s.c.position(0), false);
    s.publish("what takes long", qos::at_most_once);
    std::this_thread::sleep_for(1ms);  // a round trip since CONNECT would be another one
    s.begin_write();
    s.receive(pingresp);
    CHECK_FALSE(s.c.writes_ping());
    CHECK(counters(s).round_trip == round_trip);
    auto const written_at = s.c.written_at();
    s.end_write();
    CHECK(s.c.written_at() > written_at);
    s.c.advance(clock_type::now() + 14s, s.c.position(0), false);
    CHECK(s.c.life().is(state::online));
    CHECK(s.packets.out().empty());
    s.c.advance(clock_type::now() + 15s, s.c.position(0), false);
    CHECK(s.packets.out().view() == std::string("\xC0\0", 2));
    s.write();
    s.receive(pingresp);
    CHECK(counters(s).round_trip != round_trip);
}

TEST_CASE("what comes postpones a ping, and a server may ask for none") {
    scene s;
    s.connect();
    s.c.advance(clock_type::now() + 44s, {}, false);
    CHECK(s.packets.out().empty());
    s.publish("x", qos::at_most_once);
    s.write();
    CHECK(s.c.written_at() != clock_type::time_point());

    scene silent;
    silent.keep_alive = 0s;
    silent.connect();
    CHECK(silent.c.advance(clock_type::now() + 24h, {}, false) == mqtt::never);
}

TEST_CASE("a session with nothing to do but pings gives back its memory and its writer, and any other keeps them") {
    auto const idle = [](int messages, std::string_view answer, bool waits) {
        scene s;
        s.connect();
        s.start(s.c.writer());
        CHECK(s.packets.out().capacity() + s.c.position(0).written > 0);
        s.publish("x", qos::at_most_once);
        s.write();
        s.c.advance(clock_type::now() + 50s, s.c.position(0), false);
        s.write();
        for (int i = 0; i < messages; ++i) {
            s.publish("x", qos::at_most_once);
            s.write();
        }
        if (waits) s.publish("x", qos::at_most_once);
        s.receive(answer);
        bool const rests = s.c.is_resting();
        CHECK((s.packets.out().capacity() == 0) == rests);
        CHECK(s.c.unread().empty());
        return rests;
    };
    CHECK(idle(0, pingresp, false));
    CHECK_FALSE(idle(1, pingresp, false));
    CHECK_FALSE(idle(0, pingresp, true));
    CHECK_FALSE(idle(0, std::string("\x30\x04\0\1tx\xD0\0", 8), false));

    // The writer of CONNECT ends, too.
    scene s;
    s.begin();
    s.begin_write();
    CHECK_FALSE(s.c.is_resting());
    s.end_write();
    CHECK(s.c.is_resting());
    CHECK_FALSE(s.c.needs_writer());
    s.publish("x", qos::at_most_once);
    s.start(s.c.writer());
    s.poll();
    int const alarms = s.alarms;
    s.c.writer().end(nullptr);
    s.poll();
    CHECK(s.alarms > alarms);  // what has come meanwhile asks for another one
    CHECK_FALSE(s.c.is_resting());
}

TEST_CASE("at a pace the next messages are looked for as soon as all has been written") {
    scene s(v3, {.acknowledged = 1, .span = 1000ms});
    s.connect();
    s.poll();
    int const alarms = s.alarms;
    s.packets.out().append("x");
    s.write();
    s.poll();
    CHECK(s.alarms > alarms);
}

TEST_CASE("a peer that makes answers and does not take them is left, and what a handler publishes does not count") {
    // QoS 2 repetitions: each of four bytes and more is answered by four.
    std::string const message("\x34\x06\0\1t\0\1x", 8);
    std::string many;
    for (int i = 0; i < 5; ++i) many += message;
    scene s;
    s.options.maximum_queued = s.options.maximum_unwritten = 1;
    s.connect();
    s.publish("x", qos::at_most_once);
    s.begin_write();
    std::size_t answered = 0;
    while (s.c.life().is(state::online) && answered < 3 * 1024 * 1024) {
        s.receive(many);
        answered += 20;
    }
    CHECK(s.c.life().cause() == errc::answers_not_taken);
    CHECK(answered > 1024 * 1024);
    CHECK(answered < 1024 * 1024 + 100);

    // As it takes them now and then, it may go on.
    scene good;
    good.options.maximum_queued = good.options.maximum_unwritten = 1;
    good.connect();
    for (int i = 0; i < 4; ++i) {
        good.publish("x", qos::at_most_once);
        good.begin_write();
        for (int j = 0; j < 20'000; ++j) good.receive(many);
        REQUIRE(good.c.life().is(state::online));
        good.end_write();
    }
    // What a handler adds by itself is no answer.
    scene busy;
    busy.options.maximum_queued = busy.options.maximum_unwritten = 1;
    busy.connect();
    busy.publish("x", qos::at_most_once);
    busy.begin_write();
    struct handler : scene::listener {
        using scene::listener::listener;
        void on_message(mqtt::publish const&, mqtt::delivery) { of.packets.out().append(std::string(100'000, 'x')); }
    };
    std::string const at_most_once("\x30\x04\0\1tx", 6);
    for (int i = 0; i < 20; ++i) {
        auto const room = busy.c.room();
        std::memcpy(room.data(), at_most_once.data(), at_most_once.size());
        busy.c.handle({{}, at_most_once.size()}, handler(busy));
    }
    CHECK(busy.c.life().is(state::online));
}

TEST_CASE("a violation that came with too many answers is the one that is told") {
    std::string const message("\x34\x06\0\1t\0\1x", 8);
    scene s;
    s.options.maximum_queued = s.options.maximum_unwritten = 1;
    s.connect();
    s.publish("x", qos::at_most_once);
    s.begin_write();
    for (std::size_t answered = 0; answered + 4 <= 1024 * 1024; answered += 4) s.receive(message);
    REQUIRE(s.c.life().is(state::online));
    s.receive(message + violation);
    CHECK(s.c.life().is_violated());
    CHECK(s.c.life().cause() != errc::answers_not_taken);
}
