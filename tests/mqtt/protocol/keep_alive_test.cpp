#include <runnel/mqtt/protocol/keep_alive.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using namespace std::chrono_literals;
using runnel::mqtt::flow_position;
using runnel::mqtt::keep_alive;
using runnel::mqtt::never;
using action = keep_alive::action;
using state = keep_alive::state;
using time_point = keep_alive::time_point;

constexpr time_point start = time_point{} + 1h;

keep_alive begun(std::chrono::seconds interval, std::chrono::milliseconds response_timeout = 10s) {
    keep_alive k;
    k.begin(interval, response_timeout, start);
    return k;
}

// What can happen, with a second in between.
enum class event { nothing, received, answered, ping_is_written, written, moves };

// A link as the events tell it: what must be true of the machine.
struct link {
    keep_alive machine;
    time_point now = start;
    flow_position position{};
    time_point last_life = start;  // bytes received, or bytes that have reached the other end
    bool dead = false;

    // The machine is asked at each second, as the timer may be late by that much.
    void apply(event e) {
        now += 1s;
        if (e == event::received || e == event::answered) {
            machine.on_received(now);
            if (e == event::answered) machine.on_answered();
            last_life = now;
        }
        if (e == event::ping_is_written) machine.on_write();
        if (e == event::written) {
            machine.on_write();
            position.written += 10;
            machine.on_written(now, position);
        }
        if (e == event::moves && position.taken < position.written) {
            ++position.taken;
            last_life = now;
        }
        dead = machine.advance(now, position) == action::dead;
    }
};

std::size_t checked = 0;

// Every sequence of so many events; `interval` and `limit` as the machine has them.
void drive(link const& l, int length) {
    for (int i = 0; length > 0 && i < 6; ++i) {
        link next = l;
        next.apply(static_cast<event>(i));
        ++checked;
        // With a keep alive of 4 s pings come after 3 s, and there are 3 s for the answer.
        if (next.dead) REQUIRE(next.now - next.last_life >= 3s);
        if (!next.dead) REQUIRE(next.machine.due() <= next.now + 3s);
        if (!next.dead) drive(next, length - 1);
    }
}

}  // namespace

TEST_CASE("no link is taken for dead that shows life, and each deadline fires, in every sequence of eight events") {
    drive({begun(4s)}, 8);
    MESSAGE(checked << " steps");
    CHECK(checked > 10'000);
}

TEST_CASE("a dead link is noticed within one and a half times the keep alive, whatever was under way") {
    for (auto const interval : {1s, 2s, 10s, 60s, 65535s}) {
        for (auto const response_timeout :
             std::vector<std::chrono::milliseconds>{1ms, 500ms, 10s, 1h, std::chrono::milliseconds::max()}) {
            for (int const held : {0, 1, 1000}) {  // bytes that the network has not taken when the link dies
                auto k = begun(interval, response_timeout);
                flow_position position{1000, static_cast<std::uint64_t>(1000 - held)};
                k.on_received(start);
                k.on_written(start, position);
                bool dead = false;
                time_point now = start;
                while (!dead && now < start + 3 * interval) {
                    now = k.due();
                    auto const a = k.advance(now, position);
                    if (a == action::ping && held == 0) {
                        k.on_write();
                        position.written += 2;
                        k.on_written(now, position);
                    }
                    dead = a == action::dead;
                }
                CHECK(dead);
                CHECK(now <= start + keep_alive::duration(interval) * 3 / 2);
            }
        }
    }
}

TEST_CASE("an idle client pings before the keep alive is over") {
    for (auto const interval : {1s, 10s, 60s, 65535s}) {
        auto k = begun(interval);
        CHECK(k.due() < start + interval);
        CHECK(k.advance(k.due(), {}) == action::ping);
        CHECK(k.current() == state::queued);
    }
}

TEST_CASE("the time for the answer runs from when PINGREQ was written") {
    auto k = begun(60s);
    time_point now = k.due();
    CHECK(k.advance(now, {500, 0}) == action::ping);
    now += 9s;
    k.on_write();
    k.on_written(now, {1000, 1000});
    CHECK(k.advance(now + 9s, {1000, 1000}) == action::none);
    CHECK(k.advance(now + 10s, {1000, 1000}) == action::dead);
}

TEST_CASE("a link of 20 kB/s carries a message of 5 MB") {
    constexpr std::uint64_t size = 5'000'000;
    constexpr std::uint64_t a_second = 20'000;
    auto k = begun(10s);
    flow_position position{size, 0};  // all has been handed to the operating system
    k.on_written(start, position);
    time_point now = start;
    for (; position.taken < size; now += 1s) {
        position.taken = std::min(size, position.taken + a_second);
        auto const a = k.advance(now, position);
        CHECK(a != action::dead);
        if (a == action::ping) {
            k.on_write();
            position.written += 2;
            k.on_written(now, position);
        }
    }
    // Behind it PINGREQ arrives, and must be answered.
    position.taken = position.written;
    auto const arrived = now;
    while (k.advance(now, position) != action::dead) now += 100ms;
    CHECK(now - arrived <= 15s);
    CHECK(now - arrived >= 5s);
}

TEST_CASE("a peer that takes all that is sent, and never answers a ping, is dead") {
    auto k = begun(10s);
    flow_position position{};
    bool dead = false;
    time_point now = start;
    for (; !dead && now < start + 1min; now += 100ms) {
        auto const a = k.advance(now, position);
        dead = a == action::dead;
        k.on_write();
        position.written = position.taken += 1000;
        k.on_written(now, position);
    }
    CHECK(dead);
    CHECK(now - start <= 16s);
}

// Seed 31563 of the simulation: PINGREQ was in front of a message of 4 kB, and had been answered for long when that was
// written, upon which the server had nothing to say.
TEST_CASE("a ping that is answered while what is behind it is being written is not awaited any more") {
    auto k = begun(60s);
    time_point now = k.due();
    CHECK(k.advance(now, {0, 0}) == action::ping);
    k.on_write();
    now += 9s;
    k.on_received(now);
    k.on_answered();
    CHECK(k.current() == state::quiet);
    // What moves is life as before.
    flow_position position{5000, 100};
    now += 9s;
    CHECK(k.advance(now, position) == action::ping);  // nothing has been written for long
    for (int i = 0; i < 3; ++i) {
        now += 10s;
        position.taken += 1000;
        CHECK(k.advance(now, position) == action::none);
    }
    position.taken = position.written;
    k.on_written(now, position);
    CHECK(k.current() == state::queued);

    k = begun(60s);
    now = k.due();
    CHECK(k.advance(now, {0, 0}) == action::ping);
    k.on_write();
    k.on_received(now);
    k.on_answered();
    k.on_written(now, {5000, 5000});
    CHECK(k.due() == now + 45s);
    CHECK(k.advance(now + 44s, {5000, 5000}) == action::none);
    CHECK(k.advance(now + 45s, {5000, 5000}) == action::ping);
}

TEST_CASE("an answer is that to a ping that has left: not to one that waits to be written") {
    auto k = begun(60s);
    time_point const now = k.due();
    CHECK(k.advance(now, {}) == action::ping);
    k.on_received(now);
    k.on_answered();  // a late one
    CHECK(k.current() == state::queued);
    k.end();
    k.on_answered();
    CHECK(k.current() == state::off);
}

TEST_CASE("a second ping without an answer is not waited for longer than the first") {
    auto k = begun(10s);
    time_point now = start;
    for (int i = 0; i < 3; ++i) {
        now = k.due();
        CHECK(k.advance(now, {}) == action::ping);
        k.on_write();
        k.on_written(now, {2, 2});
        now += 1s;
        k.on_received(now);
        CHECK(k.current() == state::quiet);
    }
    now = k.due();
    CHECK(k.advance(now, {2, 2}) == action::ping);
    k.on_write();
    k.on_written(now, {4, 4});
    CHECK(k.due() == now + 7500ms);
    CHECK(k.advance(now + 7500ms, {4, 4}) == action::dead);
}

TEST_CASE("writing postpones a ping only as long as something is received, too") {
    auto k = begun(60s);
    auto const first = k.due();
    k.on_written(start + 10s, {});
    CHECK(k.due() == first);
    k.on_received(start + 10s);
    CHECK(k.due() == first + 10s);
}

TEST_CASE("without keep alive there is nothing to do") {
    auto k = begun(0s);
    CHECK(k.due() == never);
    CHECK(k.advance(start + 1000h, {}) == action::none);
    k = begun(10s);
    k.end();
    CHECK(k.due() == never);
}

TEST_CASE("what is received before PINGREQ is written does not answer it") {
    auto k = begun(60s);
    time_point const now = k.due();
    CHECK(k.advance(now, {}) == action::ping);
    k.on_received(now);
    CHECK(k.current() == state::queued);
    k.on_write();
    k.on_received(now);
    CHECK(k.current() == state::writing);
    k.on_written(now, {2, 2});
    CHECK(k.current() == state::written);
    CHECK(k.advance(now + 10s, {2, 2}) == action::dead);
}
