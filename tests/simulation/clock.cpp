#include "simulation/clock.hpp"

#include <runnel/core/random.hpp>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace {

constexpr std::int64_t second = 1'000'000'000;

struct virtual_machine {
    bool is_active = false;
    std::int64_t now = 0;          // of the monotonic clock
    std::int64_t time_of_day = 0;  // what it is ahead of that
    std::int64_t wait_limit = 0;
    std::uint64_t entropy = 0;
};
constinit virtual_machine machine;

// splitmix64
std::uint64_t next_entropy() {
    std::uint64_t z = (machine.entropy += 0x9E37'79B9'7F4A'7C15);
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EB;
    return z ^ (z >> 31);
}

}  // namespace

namespace simulation {

void begin_virtual_time(std::uint64_t seed) {
    machine = {.is_active = true, .now = 100'000 * second, .time_of_day = 1'700'000'000 * second, .entropy = seed};
    runnel::entropy_stock::of_this_thread() = {};  // what is left of the run before
}
void end_virtual_time() {
    machine.is_active = false;
    runnel::entropy_stock::of_this_thread() = {};
}
void advance_to(time_point when) { machine.now = std::max(machine.now, when.time_since_epoch().count()); }
void shift_time_of_day(nanoseconds by) { machine.time_of_day += by.count(); }
void wait_until_at_most(time_point when) { machine.wait_limit = when.time_since_epoch().count(); }

void check_virtual_clock() {
    using std::chrono::steady_clock, std::chrono::system_clock;
    static_assert(std::is_same_v<steady_clock::duration, nanoseconds>);
    begin_virtual_time(1);
    auto const steady = steady_clock::now();
    auto const day = system_clock::now();
    auto const bits = runnel::random_32();
    advance_to(steady + std::chrono::hours(1));
    bool const follows = steady_clock::now() == steady + std::chrono::hours(1) &&
                         system_clock::now() == day + std::chrono::hours(1) && ::timerfd_create(CLOCK_MONOTONIC, 0) < 0;
    begin_virtual_time(1);
    bool const repeats = runnel::random_32() == bits;
    end_virtual_time();
    if (!follows || !repeats) throw std::runtime_error("the clocks of this platform cannot be simulated");
}

}  // namespace simulation

extern "C" {

int clock_gettime(clockid_t clock, timespec* to) noexcept {
    if (!machine.is_active) return static_cast<int>(::syscall(SYS_clock_gettime, clock, to));
    std::int64_t const now = machine.now + (clock == CLOCK_REALTIME ? machine.time_of_day : 0);
    to->tv_sec = now / second;
    to->tv_nsec = now % second;
    return 0;
}

ssize_t getrandom(void* out, std::size_t size, unsigned flags) {
    if (!machine.is_active) return ::syscall(SYS_getrandom, out, size, flags);
    for (std::size_t i = 0; i < size; ++i) static_cast<unsigned char*>(out)[i] = next_entropy() & 0xFF;
    return static_cast<ssize_t>(size);
}

int timerfd_create(clockid_t clock, int flags) noexcept {
    if (!machine.is_active) return static_cast<int>(::syscall(SYS_timerfd_create, clock, flags));
    errno = ENOSYS;
    return -1;
}

int epoll_wait(int descriptor, epoll_event* events, int maximum, int timeout) {
    if (!machine.is_active)
        return static_cast<int>(::syscall(SYS_epoll_pwait, descriptor, events, maximum, timeout, nullptr, _NSIG / 8));
    if (timeout == 0) return 0;
    std::int64_t const longest = timeout < 0 ? 3600 * second : timeout * (second / 1000);
    machine.now = std::max(machine.now, std::min(machine.now + longest, machine.wait_limit));
    return 0;
}

int epoll_ctl(int descriptor, int operation, int of, epoll_event* event) noexcept {
    if (!machine.is_active) return static_cast<int>(::syscall(SYS_epoll_ctl, descriptor, operation, of, event));
    return 0;
}

}  // extern "C"
