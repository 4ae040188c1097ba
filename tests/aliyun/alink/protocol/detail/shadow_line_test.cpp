#include <runnel/aliyun/alink/protocol/detail/shadow_line.hpp>

#include <doctest/doctest.h>

#include "support/event_sequences.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

namespace {

using namespace runnel::aliyun::alink;
using namespace std::chrono_literals;
using state = runnel::aliyun::alink::detail::shadow_line::state;
using kind = shadow_message::kind;

constexpr runnel::aliyun::alink::detail::shadow_line::time_point start{1h};
constexpr std::chrono::milliseconds patience{10};

shadow_message done(std::uint64_t version) {
    shadow_message m;
    m.what = kind::done;
    m.shadow.version = version;
    return m;
}
shadow_message answer_of(kind what) {
    shadow_message m;
    m.what = what;
    return m;
}

}  // namespace

TEST_CASE("an answer belongs to the request that it fits, and to no other") {
    runnel::aliyun::alink::detail::shadow_line line(patience);
    CHECK_FALSE(line.answered(done(1), {}));
    line.ask({.version = 1}, {});
    CHECK_FALSE(line.is_free());
    CHECK_FALSE(line.answered(done(2), {}));
    CHECK_FALSE(line.answered(answer_of(kind::state), {}));
    CHECK(line.answered(done(1), {}));
    CHECK(line.is_free());
    line.ask({.version = 7}, {});
    CHECK(line.answered(done(0), {}));  // the platform names no version
    line.ask({.version = 7}, {});
    CHECK(line.answered(answer_of(kind::failed), {}));
    line.ask({.query = true}, {});
    CHECK_FALSE(line.answered(done(1), {}));
    CHECK(line.answered(answer_of(kind::state), {}));
}

TEST_CASE("after a request that was given up the next waits for its answer, or until its time is over") {
    runnel::aliyun::alink::detail::shadow_line line(patience);
    line.ask({.version = 1}, {});
    line.give_up(start);
    CHECK(line.current() == state::late);
    CHECK(line.late_until() == start + patience);
    CHECK_FALSE(line.answered(answer_of(kind::state), {}));
    line.look({}, start + patience - 1ms);
    CHECK_FALSE(line.is_free());
    CHECK_FALSE(line.answered(done(1), {}));
    CHECK(line.is_free());

    line.ask({.version = 1}, {});
    line.give_up(start);
    line.look({}, start + patience);
    CHECK(line.is_free());
    line.ask({.version = 2}, {});
    CHECK_FALSE(line.answered(done(1), {}));
    line.withdraw();
    CHECK(line.is_free());

    runnel::aliyun::alink::detail::shadow_line patient(std::chrono::milliseconds::max());
    patient.ask({}, {});
    patient.give_up(start);
    CHECK(patient.late_until() > start + std::chrono::hours(24 * 365 * 100));
}

TEST_CASE("a late answer may come on the next connection, and one that was sent on two may come twice") {
    runnel::aliyun::alink::detail::shadow_line line(patience);
    line.ask({.version = 1}, {.number = 1});
    line.give_up(start);
    line.look({.number = 1, .is_up = false}, start + 1h);
    CHECK_FALSE(line.is_free());
    line.look({.number = 2}, start + 1h);
    CHECK(line.late_until() == start + 1h + patience);
    line.look({.number = 2}, start + 1h + patience - 1ms);
    CHECK_FALSE(line.is_free());
    line.look({.number = 2}, start + 1h + patience);
    CHECK(line.is_free());

    line.ask({.version = 3}, {.number = 2});
    CHECK(line.answered(done(3), {.number = 2}));
    line.doubt({.number = 2}, start);
    CHECK(line.is_free());
    line.ask({.version = 4}, {.number = 2});
    CHECK(line.answered(done(4), {.number = 3}));
    line.doubt({.number = 3}, start);
    CHECK_FALSE(line.is_free());
    CHECK_FALSE(line.answered(answer_of(kind::failed), {.number = 3}));
    CHECK_FALSE(line.is_free());  // who knows how often it was sent
    line.look({.number = 3}, start + patience);
    CHECK(line.is_free());
}

TEST_CASE("no sequence of requests, answers in time and late, and lost ones gives a request the answer to another") {
    // The platform answers in order, within the patience on a connection, or never; all with the same version. What it
    // cannot deliver it delivers on the next connection.
    enum : int { ask, process, lose, receive, give_up, wait, cut, reconnect, kinds };
    test::for_each_sequence(kinds, test::up_to(7), [](std::vector<int> const& sequence) {
        runnel::aliyun::alink::detail::shadow_line line(patience);
        auto now = start;
        runnel::aliyun::alink::detail::shadow_line::connection on{.number = 1};
        int number = 0, current = -1, unacknowledged = -1;
        std::deque<int> asked;  // which the platform has not seen
        struct answer {
            int to;
            runnel::aliyun::alink::detail::shadow_line::time_point until;  // its time, if nobody waits for it
        };
        std::deque<answer> coming;
        for (int const event : sequence) {
            line.look(on, now);
            if (on.is_up)
                while (!coming.empty() && coming.front().until <= now) coming.pop_front();
            switch (event) {
                case ask:
                    if (!line.is_free()) break;
                    line.ask({.version = 1}, on);
                    asked.push_back(current = number++);
                    break;
                case process:
                    if (asked.empty() || !on.is_up) break;
                    coming.push_back({asked.front(), runnel::aliyun::alink::detail::shadow_line::time_point::max()});
                    unacknowledged = asked.front();
                    asked.pop_front();
                    break;
                case lose:
                    if (!asked.empty()) asked.pop_front();
                    break;
                case receive: {
                    if (coming.empty() || !on.is_up) break;
                    auto const to = coming.front().to;
                    coming.pop_front();
                    if (to == unacknowledged) unacknowledged = -1;  // its acknowledgement came before
                    if (!line.answered(done(1), on)) break;
                    if (to != current) FAIL("the answer to another request");
                    line.doubt(on, now);
                    for (auto& c : coming) c.until = std::min(c.until, now + patience);
                    current = -1;
                    break;
                }
                case give_up:
                    if (current < 0) break;
                    line.give_up(now);
                    for (auto& c : coming)
                        if (c.to == current) c.until = now + patience;
                    if (!asked.empty() && asked.back() == current) asked.pop_back();  // or it comes in time
                    current = -1;
                    break;
                case cut: on.is_up = false; break;
                case reconnect:
                    if (on.is_up) break;
                    on = {.number = on.number + 1, .is_up = true};
                    if (unacknowledged >= 0) coming.push_back({std::exchange(unacknowledged, -1), {}});  // once more
                    for (auto& c : coming)
                        c.until = c.to == current ? runnel::aliyun::alink::detail::shadow_line::time_point::max()
                                                  : now + patience;
                    break;
                default: now += patience / 2;
            }
        }
    });
}
