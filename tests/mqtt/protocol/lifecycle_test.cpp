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

enum class event {
    attempt,
    pause,
    open,
    accept,
    close,
    close_silently,
    violate,
    break_off,
    fail,
    end,
    lose,  // an end before all had left
    deadline,
    rest
};
constexpr std::size_t events = 13;
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
    {no, no, state::closing, state::closing, state::closing, no, no},                                // break_off
    {state::idle, state::over, state::over, state::over, state::over, state::over, state::over},     // fail
    {state::idle, state::over, state::over, state::over, state::over, state::over, state::over},     // end
    {state::idle, state::over, state::over, state::over, state::over, state::over, state::over},     // lose
    {no, no, state::over, no, state::over, no, state::over},                                         // deadline
    {no, no, no, no, no, state::idle, no},                                                           // rest
};

std::error_code io_error() { return std::make_error_code(std::errc::io_error); }
std::error_code write_error() { return std::make_error_code(std::errc::broken_pipe); }

// What must be true of the machine, told by the events alone.
struct model {
    std::optional<std::error_code> cause;
    std::error_code cut_off;
    bool ending = false;
    bool violated = false;
    bool broken = false;

    void apply(event e, state before) {
        bool const idle = before == state::idle;
        bool const over = before == state::over;
        switch (e) {
            case event::attempt:
                cause.reset();
                violated = broken = false;
                break;
            case event::close:
            case event::close_silently: ending = true; break;
            case event::violate:
                if (!over) blame(errc::unexpected_packet);
                violated = violated || !over;
                break;
            case event::break_off: broken = true; break;
            case event::fail:
                if (!idle && !over) blame(io_error());
                break;
            case event::end:
            case event::lose:
                if (!idle && !over && broken) blame(write_error());
                if (e == event::lose && before == state::closing) lose(cause.value_or(errc::disconnected));
                break;
            case event::deadline:
                if (before == state::opening) blame(errc::connect_timeout);
                if (broken) blame(write_error());
                if (before == state::closing) lose(broken ? *cause : errc::close_timeout);
                break;
            default: break;
        }
    }
    void blame(std::error_code why) {
        if (!cause) cause = why;
    }
    void lose(std::error_code why) {
        if (ending && !cut_off) cut_off = why;
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
        case event::break_off: return l.break_off(write_error(), now, 1s);
        case event::fail: return l.end(io_error());
        case event::end: return l.end({});
        case event::lose: return l.end({}, true);
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
    REQUIRE(l.cut_off() == m.cut_off);
    if (l.is(state::closing) && m.broken) REQUIRE(l.broken() == write_error());
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
        auto const expected = lost ? make_error_code(errc::close_timeout) : std::error_code{};
        CHECK(l.cut_off() == expected);
        l.rest();
        CHECK(l.cut_off() == expected);
        l.begin_run();
        CHECK_FALSE(l.cut_off());
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
    CHECK_FALSE(l.cut_off());
}

TEST_CASE("what is read behind a failed write goes before it, and an end in good order tells of it") {
    for (bool const said : {false, true}) {
        lifecycle l;
        l.begin_run();
        l.attempt();
        l.open({}, limit);
        l.accept();
        l.close(true, {}, limit);
        l.break_off(write_error(), {}, 1s);
        CHECK(l.deadline() == time_point{} + 1s);
        if (said) l.blame(errc::session_lost);
        l.end({}, true);
        auto const expected = said ? make_error_code(errc::session_lost) : write_error();
        CHECK(l.cause() == expected);
        CHECK(l.cut_off() == expected);
    }
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

TEST_CASE("nothing of an earlier run or connection counts on the next: neither an end asked for, nor a broken write") {
    lifecycle l;
    l.begin_run();
    l.attempt();
    l.open({}, limit);
    l.accept();
    l.break_off(write_error(), {}, 1s);
    CHECK(l.broken() == write_error());
    l.end({});
    l.rest();
    l.attempt();
    CHECK_FALSE(l.broken());
    l.open({}, limit);
    l.end({});
    CHECK(l.cause() == errc::disconnected);
    l.close(false, {}, limit);
    CHECK(l.is_ending());
    l.rest();
    CHECK(l.is_ending());
    l.begin_run();
    CHECK_FALSE(l.is_ending());
}

TEST_CASE("whatever comes while a connection closes, it has no more time than it was given first") {
    time_point const start = time_point{} + 1h;
    for (bool const broken : {false, true}) {
        lifecycle l;
        l.begin_run();
        l.attempt();
        l.open(start, limit);
        l.accept();
        l.close(true, start, limit);
        CHECK(l.deadline() == start + limit);
        if (broken)
            l.break_off(write_error(), start + 5s, limit);
        else
            l.violate(errc::unexpected_packet, start + 5s, limit);
        CHECK(l.deadline() == start + limit);
        l.close(true, start + 6s, limit);
        CHECK(l.deadline() == start + limit);
    }
    lifecycle l;
    l.begin_run();
    l.attempt();
    l.open(start, limit);
    l.accept();
    l.close(true, start, limit);
    l.break_off(write_error(), start, 1s);
    CHECK(l.deadline() == start + 1s);
}
