#include <runnel/core/rate_limit.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <random>
#include <vector>

using runnel::rate_limit;
using namespace std::chrono_literals;

namespace {

rate_limit::time_point const start{1h};

// The most events in any span of `period` that begins with one of them.
std::size_t most_in(std::vector<rate_limit::time_point> const& events, rate_limit::clock::duration period) {
    std::size_t most = 0;
    for (std::size_t i = 0; i < events.size(); ++i) {
        std::size_t n = 0;
        for (std::size_t j = i; j < events.size() && events[j] < events[i] + period; ++j) ++n;
        most = std::max(most, n);
    }
    return most;
}

}  // namespace

TEST_CASE("so many events may happen at once, and the next when the first is a period old") {
    rate_limit limit(3, 1s);
    for (int i = 0; i < 3; ++i) CHECK(limit.try_take(start));
    CHECK_FALSE(limit.try_take(start));
    CHECK_FALSE(limit.try_take(start + 999ms));
    CHECK(limit.ready_at(start + 300ms) == start + 1s);
    CHECK(limit.try_take(start + 1s));
}

TEST_CASE("no span of a period has more events than allowed, however they come, and no event waits without need") {
    std::minstd_rand random(42);
    std::uniform_int_distribution<int> gap(0, 120);
    rate_limit limit(10, 1s);
    std::vector<rate_limit::time_point> events;
    auto now = start;
    for (int i = 0; i < 2000; ++i) {
        now += std::chrono::milliseconds(gap(random));
        auto const at = limit.ready_at(now);
        if (at > now) CHECK(at == events[events.size() - 10] + 1s);
        limit.take(at);
        events.push_back(at);
        now = at;
    }
    CHECK(most_in(events, 1s) == 10);
}

TEST_CASE("a limit of nothing limits nothing") {
    rate_limit limit;
    for (int i = 0; i < 1000; ++i) CHECK(limit.try_take(start));
    CHECK(limit.ready_at(start) == start);
}
