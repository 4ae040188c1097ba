#include <runnel/core/saturating.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using runnel::add_saturating;
using runnel::clock_duration;
using runnel::deadline_after;

namespace {

constexpr auto never = clock_type::time_point::max();
constexpr clock_type::time_point now(24h);

}  // namespace

static_assert(add_saturating(std::uint8_t{255}, std::uint8_t{1}) == 255);
static_assert(deadline_after(now, 1ms) == now + 1ms);

TEST_CASE("sums stop at the largest value") {
    constexpr auto most = std::numeric_limits<std::size_t>::max();
    CHECK(add_saturating(std::size_t{2}, std::size_t{3}) == 5);
    CHECK(add_saturating(most, std::size_t{0}) == most);
    CHECK(add_saturating(most, std::size_t{1}) == most);
    CHECK(add_saturating(std::size_t{1}, most) == most);
    CHECK(add_saturating(most, most) == most);
    CHECK(add_saturating(most - 1, std::size_t{1}) == most);
}

TEST_CASE("a time of any length and unit has a deadline, which never is before now") {
    CHECK(deadline_after(now, std::chrono::milliseconds::max()) == never);
    CHECK(deadline_after(now, std::chrono::seconds::max()) == never);
    CHECK(deadline_after(now, std::chrono::hours::max()) == never);
    CHECK(deadline_after(now, clock_type::duration::max()) == never);
    CHECK(deadline_after(now, never - now) == never);
    CHECK(deadline_after(now, never - now - 1ns) == never - 1ns);
    CHECK(deadline_after(never, 0s) == never);
    CHECK(deadline_after(now, 0s) == now);
    CHECK(deadline_after(now, -1s) == now);
    CHECK(deadline_after(now, std::chrono::milliseconds::min()) == now);
    CHECK(deadline_after(now, clock_type::duration::min()) == now);
    CHECK(deadline_after(clock_type::time_point::min(), 1s) == clock_type::time_point::min() + 1s);
    CHECK(deadline_after(clock_type::time_point::min(), clock_type::duration::max()) == clock_type::time_point(-1ns));
}

TEST_CASE("durations are converted to the clock's without going round") {
    CHECK(clock_duration(5s) == 5s);
    CHECK(clock_duration(std::chrono::milliseconds::max()) == clock_type::duration::max());
    CHECK(clock_duration(std::chrono::milliseconds::min()) == 0s);
    CHECK(clock_duration(std::chrono::duration<double>(1e300)) == clock_type::duration::max());
}
