#include <runnel/mqtt/protocol/lifecycle.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <optional>
#include <string>
#include <system_error>

namespace {

using namespace std::chrono_literals;
using runnel::mqtt::errc;
using runnel::mqtt::lifecycle;
using runnel::mqtt::never;
using state = lifecycle::state;
using time_point = lifecycle::time_point;

constexpr auto limit = 10s;

enum class event { attempt, pause, open, accept, close, close_silently, violate, fail, end, deadline, rest };
constexpr std::size_t events = 11;
constexpr std::size_t states = 7;
constexpr auto no = static_cast<state>(255);  // the event cannot come in that state

// The table of the header, and what the deadline does.
constexpr state table[events][states] = {
    // idle, due, opening, online, closing, over, pausing
    {state::due, no, no, no, no, no, no},                                                                  // attempt
    {state::pausing, no, no, no, no, no, no},                                                              // pause
    {no, state::opening, no, no, no, no, no},                                                              // open
    {no, no, state::online, no, state::closing, state::over, no},                                          // accept
    {state::idle, state::over, state::closing, state::closing, state::closing, state::over, state::over},  // close
    {state::idle, state::over, state::over, state::over, state::closing, state::over, state::over},  // close_silently
    {no, no, state::closing, state::closing, state::closing, state::over, no},                       // violate
    {state::idle, state::over, state::over, state::over, state::over, state::over, state::over},     // fail
    {state::idle, state::over, state::over, state::over, state::over, state::over, state::over},     // end
    {no, no, state::over, no, state::over, no, state::over},                                         // deadline
    {no, no, no, no, no, state::idle, no},                                                           // rest
};

std::error_code io_error() { return std::make_error_code(std::errc::io_error); }

// What must be true of the machine, told by the events alone.
struct model {
    std::optional<std::error_code> cause;
    bool ending = false;
    bool violated = false;

    void apply(event e, state before) {
        bool const idle = before == state::idle;
        bool const over = before == state::over;
        switch (e) {
            case event::attempt:
                cause.reset();
                violated = false;
                break;
            case event::close:
            case event::close_silently: ending = true; break;
            case event::violate:
                if (!over) blame(errc::unexpected_packet);
                violated = violated || !over;
                break;
            case event::fail:
                if (!idle && !over) blame(io_error());
                break;
            case event::deadline:
                if (before == state::opening) blame(errc::connect_timeout);
                break;
            default: break;
        }
    }
    void blame(std::error_code why) {
        if (!cause) cause = why;
    }
};

void apply(lifecycle& l, event e, time_point now) {
    switch (e) {
        case event::attempt: return l.attempt();
        case event::pause: return l.pause(now, limit);
        case event::open: return l.open(now, limit);
        case event::accept: return l.accept();
        case event::close: return l.close(true, now, limit);
        case event::close_silently: return l.close(false, now, limit);
        case event::violate: return l.violate(errc::unexpected_packet, now, limit);
        case event::fail: return l.end(io_error());
        case event::end: return l.end({});
        case event::deadline:
            CHECK_FALSE(l.expire(l.deadline() - 1ns, false));
            CHECK(l.expire(l.deadline(), true));
            return;
        case event::rest: return l.rest();
    }
}

std::size_t checked = 0;

void check(lifecycle const& l, model const& m) {
    ++checked;
    bool const bounded = l.is(state::opening) || l.is(state::closing) || l.is(state::pausing);
    REQUIRE((l.deadline() != never) == bounded);
    REQUIRE(l.is_open() == (l.is(state::opening) || l.is(state::online) || l.is(state::closing)));
    REQUIRE(l.is_ending() == m.ending);
    if (!l.is(state::pausing)) REQUIRE(l.is_violated() == m.violated);
    if (m.cause && !l.is(state::due)) REQUIRE(l.cause() == *m.cause);
}

// Every sequence of so many events.
void drive(lifecycle const& l, model const& m, std::size_t length, time_point now) {
    if (length == 0) return;
    for (std::size_t i = 0; i < events; ++i) {
        auto const e = static_cast<event>(i);
        auto const before = l.current();
        auto const after = table[i][static_cast<std::size_t>(before)];
        if (after == no) continue;
        lifecycle next = l;
        model expected = m;
        apply(next, e, now);
        expected.apply(e, before);
        REQUIRE(next.current() == after);
        check(next, expected);
        drive(next, expected, length - 1, now + 1s);
    }
}

}  // namespace

TEST_CASE("every sequence of seven events leaves a connection in one state, with one cause and one deadline") {
    lifecycle l;
    l.begin_run();
    drive(l, {}, 7, time_point{} + 1h);
    MESSAGE(checked << " steps");
    CHECK(checked > 100'000);
}

TEST_CASE("a close that takes too long is cut off, unless all had left") {
    for (bool const lost : {false, true}) {
        lifecycle l;
        l.begin_run();
        l.attempt();
        l.open({}, limit);
        l.accept();
        l.close(true, {}, limit);
        CHECK(l.expire(l.deadline(), lost));
        CHECK(l.is_cut_off() == lost);
        l.rest();
        CHECK(l.is_cut_off() == lost);
        l.begin_run();
        CHECK_FALSE(l.is_cut_off());
    }
}

TEST_CASE("that a connection was cut off which the peer had spoilt says nothing of a later end in good order") {
    lifecycle l;
    l.begin_run();
    l.attempt();
    l.open({}, limit);
    l.accept();
    l.violate(errc::unexpected_packet, {}, limit);
    CHECK(l.expire(l.deadline(), true));
    CHECK_FALSE(l.is_cut_off());
}

TEST_CASE("what the server has said of the end counts, not how the stream ends") {
    lifecycle l;
    l.begin_run();
    l.attempt();
    l.open({}, limit);
    l.accept();
    l.blame(errc::session_lost);
    l.end(io_error());
    CHECK(l.cause() == errc::session_lost);
}

TEST_CASE("a limit beyond what the clock can tell is no limit") {
    lifecycle l;
    l.begin_run();
    l.attempt();
    auto const now = time_point{} + std::chrono::hours(24 * 365 * 100);
    l.open(now, std::chrono::milliseconds::max());
    CHECK(l.deadline() == never);
    using runnel::mqtt::deadline_after;
    CHECK(deadline_after(now, std::chrono::milliseconds::max()) == never);
    CHECK(deadline_after(now, std::chrono::seconds::max()) == never);
    CHECK(deadline_after(now, 1s) == now + 1s);
    CHECK(deadline_after(never - 1s, 2s) == never);
    CHECK(deadline_after(now, 0s) == now);
    CHECK(deadline_after(now, std::chrono::seconds::min()) == now);
}
