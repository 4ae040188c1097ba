#include <runnel/mqtt/protocol/lifecycle.hpp>

#include <doctest/doctest.h>

#include "support/sample.hpp"
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace {

using namespace std::chrono_literals;
using runnel::mqtt::errc;
using runnel::mqtt::lifecycle;
using runnel::mqtt::never;
using state = lifecycle::state;
using time_point = lifecycle::time_point;

constexpr auto limit = 10s;
constexpr auto closing_limit = 5000ms;  // half of it is over within the sequences

enum class event {
    attempt,
    pause,
    open,
    accept,
    close,
    close_silently,
    violate,
    violate_silently,
    leave,
    part,
    take,   // more than before
    stall,  // as much as before
    break_off,
    fail,
    end,
    lose,  // an end before all had left
    deadline,
    rest
};
constexpr std::size_t events = 18;
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
    {no, no, state::closing, state::closing, state::closing, state::over, no},                       // violate_silently
    {state::idle, no, no, no, state::closing, state::over, no},                                      // leave
    {no, no, no, no, state::closing, no, no},                                                        // part
    {no, no, no, no, state::closing, no, no},                                                        // take
    {no, no, no, no, state::closing, no, no},                                                        // stall
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
    bool silent = false;
    std::optional<time_point> latest;    // shutdown, since the connection closes
    std::optional<time_point> shutdown;  // of those that are told of, when it is due
    std::uint64_t taken = 0;
    bool news = false;  // the last number is not the one that was looked at

    void apply(event e, state before, time_point now) {
        apply_to_shutdown(e, before, now);
        bool const idle = before == state::idle;
        bool const over = before == state::over;
        switch (e) {
            case event::attempt:
                cause.reset();
                violated = broken = silent = false;
                break;
            case event::close:
            case event::close_silently: ending = true; break;
            case event::violate:
            case event::violate_silently:
                if (!over) blame(errc::unexpected_packet);
                violated = violated || !over;
                if (!over) silent = e == event::violate_silently;
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
    void apply_to_shutdown(event e, state before, time_point now) {
        bool const is_open = before == state::opening || before == state::online;
        switch (e) {
            case event::open:
                latest.reset();
                shutdown.reset();
                break;
            case event::close:
            case event::violate:
            case event::violate_silently:
                if (is_open) latest = now + closing_limit / 2;
                break;
            case event::leave:
                if (!shutdown) shutdown = now;
                break;
            case event::part: part(now); break;
            case event::take: ++taken; [[fallthrough]];
            case event::stall:
                news = news || e == event::take;
                if (!shutdown || *shutdown > now) break;
                if (std::exchange(news, false)) part(now);
                break;
            default: break;
        }
    }
    void part(time_point now) {
        shutdown = silent ? now : now + 200ms;
        if (latest && *latest < *shutdown && !silent) shutdown = latest;
    }
    void blame(std::error_code why) {
        if (!cause) cause = why;
    }
    void lose(std::error_code why) {
        if (ending && !cut_off) cut_off = why;
    }
};

void apply(lifecycle& l, event e, time_point now, model const& m) {
    switch (e) {
        case event::attempt: return l.attempt();
        case event::pause: return l.pause(now, limit);
        case event::open: return l.open(now, limit);
        case event::accept: return l.accept();
        case event::close: return l.close(true, now, closing_limit);
        case event::close_silently: return l.close(false, now, closing_limit);
        case event::violate: return l.violate(errc::unexpected_packet, true, now, closing_limit);
        case event::violate_silently: return l.violate(errc::unexpected_packet, false, now, closing_limit);
        case event::leave: return l.leave(now);
        case event::part: {
            auto const before = l.shutdown_at();
            bool const has_changed = l.part(now);
            if (has_changed != (l.shutdown_at() != before)) FAIL("part");
            return;
        }
        case event::take:
        case event::stall: return l.take(now, m.taken);
        case event::break_off: return l.break_off(write_error(), now, 1s);
        case event::fail: return l.end(io_error());
        case event::end: return l.end({});
        case event::lose: return l.end({}, true);
        case event::deadline:
            if (l.expire(l.deadline() - 1ns, false) || !l.expire(l.deadline(), true)) FAIL("expire");
            return;
        case event::rest: return l.rest();
    }
}

std::size_t checked = 0;

void check(lifecycle const& l, model const& m) {
    ++checked;
    // REQUIRE takes longer than all that is asked here: it is for what is wrong.
    auto const must = [](bool is, char const* what) {
        if (!is) FAIL(what);
    };
    bool const bounded = l.is(state::opening) || l.is(state::closing) || l.is(state::pausing);
    must((l.deadline() != never) == bounded, "deadline");
    must(l.is_open() == (l.is(state::opening) || l.is(state::online) || l.is(state::closing)), "open");
    must(l.is_ending() == m.ending, "ending");
    must(l.cut_off() == m.cut_off, "cut off");
    if (l.is(state::closing) && m.broken) must(l.broken() == write_error(), "broken");
    if (!l.is(state::pausing)) must(l.is_violated() == m.violated, "violated");
    if (l.is(state::closing)) must(l.shutdown_at() == m.shutdown.value_or(never), "shutdown");
    if (m.cause && !l.is(state::due)) must(l.cause() == *m.cause, "cause");
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
        expected.apply(e, before, now);
        apply(next, e, now, expected);
        if (next.current() != after) REQUIRE(next.current() == after);
        check(next, expected);
        drive(next, expected, length - 1, now + 1s);
    }
}

}  // namespace

TEST_CASE("every sequence of seven events leaves a connection in one state, with one cause and one deadline") {
    lifecycle l;
    l.begin_run();
    drive(l, {}, test::up_to(7), time_point{} + 1h);
    MESSAGE(checked << " steps");
    CHECK(checked > 100'000 / test::every(10));
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
    l.violate(errc::unexpected_packet, true, {}, limit);
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
            l.violate(errc::unexpected_packet, true, start + 5s, limit);
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

namespace {

constexpr time_point begin = time_point{} + 1h;

// A connection of which the end begins at `begin`.
lifecycle closing(std::chrono::milliseconds close_timeout = limit) {
    lifecycle l;
    l.begin_run();
    l.attempt();
    l.open(begin - 1s, limit);
    l.accept();
    l.close(true, begin, close_timeout);
    return l;
}

}  // namespace

TEST_CASE("a stream is shut down 200 ms after all has been written, and not before") {
    auto l = closing();
    CHECK(l.shutdown_at() == never);
    l.take(begin + 1s, 1);  // what is taken before all is written says nothing
    CHECK(l.shutdown_at() == never);
    CHECK(l.part(begin + 2s));
    CHECK(l.shutdown_at() == begin + 2200ms);
}

TEST_CASE("a server that is heard has the moment anew, up to half of the time for closing") {
    auto l = closing(2s);
    l.part(begin);
    CHECK(l.part(begin + 150ms));
    CHECK(l.shutdown_at() == begin + 350ms);
    CHECK(l.part(begin + 790ms));
    CHECK(l.shutdown_at() == begin + 990ms);
    CHECK(l.part(begin + 950ms));
    CHECK(l.shutdown_at() == begin + 1s);
    CHECK_FALSE(l.part(begin + 960ms));
    CHECK_FALSE(l.part(begin + 1500ms));
    CHECK(l.shutdown_at() == begin + 1s);
    CHECK(l.deadline() == begin + 2s);
}

TEST_CASE("while the network takes bytes the server has more time, up to half of the time for closing") {
    auto l = closing(2s);
    l.part(begin);
    l.take(begin + 199ms, 10);  // the moment is not over: it is not looked at
    CHECK(l.shutdown_at() == begin + 200ms);
    l.take(begin + 200ms, 10);
    CHECK(l.shutdown_at() == begin + 400ms);
    l.take(begin + 300ms, 20);
    CHECK(l.shutdown_at() == begin + 400ms);
    l.take(begin + 400ms, 20);
    CHECK(l.shutdown_at() == begin + 600ms);
    l.take(begin + 900ms, 21);
    CHECK(l.shutdown_at() == begin + 1s);
    l.take(begin + 1200ms, 22);
    CHECK(l.shutdown_at() == begin + 1s);
}

TEST_CASE("a network that has stopped taking bytes gives the server no more time") {
    auto l = closing();
    l.part(begin);
    l.take(begin + 200ms, 10);
    CHECK(l.shutdown_at() == begin + 400ms);
    l.take(begin + 400ms, 10);
    l.take(begin + 500ms, 10);
    CHECK(l.shutdown_at() == begin + 400ms);
}

TEST_CASE("a server that is told nothing is not waited for, and one that was told is") {
    auto l = closing();
    l.leave(begin);
    CHECK(l.shutdown_at() == begin);

    auto told = closing();
    told.part(begin);
    told.close(false, begin + 50ms, limit);  // somebody disconnects again
    told.leave(begin + 50ms);
    CHECK(told.shutdown_at() == begin + 200ms);
}

TEST_CASE("a server that cannot be told of its violation is left as soon as all has been written") {
    for (bool const may_speak : {false, true}) {
        auto l = closing();
        l.violate(errc::unexpected_packet, may_speak, begin, limit);
        CHECK(l.shutdown_at() == never);
        l.part(begin + 1s);
        CHECK(l.shutdown_at() == begin + (may_speak ? 1200ms : 1s));
        l.end({});
        l.rest();
        l.attempt();
        l.open(begin + 2s, limit);
        l.close(true, begin + 2s, limit);
        CHECK(l.shutdown_at() == never);  // of the connection before nothing counts
        l.part(begin + 3s);
        CHECK(l.shutdown_at() == begin + 3200ms);
    }
}

TEST_CASE("a violation bounds the time for going, too, and a second end does not lengthen it") {
    lifecycle l;
    l.begin_run();
    l.attempt();
    l.open(begin - 1s, limit);
    l.accept();
    l.violate(errc::unexpected_packet, true, begin, 1s);
    l.close(true, begin + 300ms, 1s);
    l.part(begin + 400ms);
    CHECK(l.shutdown_at() == begin + 500ms);
}

TEST_CASE("the bound of an earlier connection's moment does not count on the next") {
    auto l = closing(1s);
    l.end({});
    l.rest();
    l.attempt();
    l.open(begin + 10s, limit);
    l.break_off(write_error(), begin + 11s, 1s);
    l.part(begin + 11s);
    CHECK(l.shutdown_at() == begin + 11200ms);
}

TEST_CASE("with no limit for closing the moment is as long") {
    auto l = closing(std::chrono::milliseconds::max());
    l.part(begin);
    CHECK(l.shutdown_at() == begin + 200ms);
    l.close(false, begin + 10ms, std::chrono::milliseconds::max());
    l.leave(begin + 10ms);
    CHECK(l.shutdown_at() == begin + 200ms);
}
