#pragma once

#include "report.hpp"
#include "session_client.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

/// What the benchmarks of many sessions in one process have in common, whatever the client:
///
///     benchmark-crowd PORT SESSIONS
///
/// They all connect, are idle, and come back after the broker's end, twice. Each time the line `storm SECONDS` asks
/// groups/crowd.py to kill the broker and to start it again so many seconds later; the figure `back at` tells when all
/// are back, by the clock of the machine.
namespace bench {

/// Memory of this process in the machine's, in bytes (on Linux).
inline double resident_bytes() {
    std::ifstream in("/proc/self/statm");
    double all = 0, resident = 0;
    in >> all >> resident;
    return resident * 4096;
}

class crowd {
  public:
    static constexpr int keep_alive = 10;  // s
    /// How many may be connecting at first: mosquitto leaves 100 in the kernel's queue, and what comes beyond them is
    /// tried again by the kernel after one second.
    static constexpr std::size_t at_once = 64;

    crowd(int argc, char** argv, char const* who)
        : port(static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 0)),
          size(argc > 2 ? static_cast<std::size_t>(std::atoll(argv[2])) : 0),
          who_(who) {
        if (port == 0 || size == 0) {
            std::fprintf(stderr, "usage: %s PORT SESSIONS\n", argv[0]);
            std::exit(2);
        }
        came_.reserve(size);
    }

    std::uint16_t const port;
    std::size_t const size;

    /// A session has been accepted; in any thread.
    void connected() {
        std::lock_guard const lock(mutex_);
        ++connected_;
        came_.push_back(now(CLOCK_MONOTONIC));
        if (connected_ != size) return;
        all_at_ = now(CLOCK_MONOTONIC);
        cpu_at_ = now(CLOCK_PROCESS_CPUTIME_ID);
    }
    /// A connection that was accepted has ended; in any thread.
    void lost() {
        std::lock_guard const lock(mutex_);
        --connected_;
        ++lost_;
    }

    /// Runs all of it: `begin(number)` makes a session and lets it connect, `turn()` lets all of them work, and returns
    /// after 100 ms at the latest.
    template <class Begin, class Turn>
    void run(Begin begin, Turn turn) {
        connect(begin, turn);
        be_idle(turn);
        come_back(0, turn);
        turn_for(turn, 11);  // who is connected for 10 s begins with a short pause again
        come_back(10, turn);
    }

  private:
    template <class Condition>
    bool holds(Condition condition) {
        std::lock_guard const lock(mutex_);
        return condition();
    }
    template <class Turn, class Condition>
    void turn_until(Turn& turn, Condition condition, char const* what) {
        auto const limit = now(CLOCK_MONOTONIC) + 90'000'000'000;
        while (!holds(condition)) {
            turn();
            if (now(CLOCK_MONOTONIC) < limit) continue;
            std::fprintf(stderr, "%s: %zu of %zu are connected after 90 s\n", what, connected_, size);
            std::exit(1);
        }
    }
    template <class Turn>
    void turn_for(Turn& turn, std::int64_t seconds) {
        auto const end = now(CLOCK_MONOTONIC) + seconds * 1'000'000'000;
        while (now(CLOCK_MONOTONIC) < end) turn();
    }

    template <class Begin, class Turn>
    void connect(Begin& begin, Turn& turn) {
        double const heap = heap_bytes(), resident = resident_bytes();
        auto const wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        for (std::size_t i = 0; i < size;) {
            turn_until(turn, [&] { return i - std::min(i, connected_) < at_once; }, "connecting");
            begin(i++);
        }
        turn_until(turn, [&] { return connected_ == size; }, "connecting");
        auto const n = static_cast<double>(size);
        figure("sessions", "sessions held", n);
        figure("connect", "sessions/s", n * 1e9 / static_cast<double>(all_at_ - wall));
        figure("connect", "us CPU/connect", static_cast<double>(cpu_at_ - cpu) / 1e3 / n);
        turn_for(turn, 1);
        figure("memory", "bytes of heap/session", (heap_bytes() - heap) / n);
        figure("memory", "resident bytes/session", (resident_bytes() - resident) / n);
    }

    // A ping each.
    template <class Turn>
    void be_idle(Turn& turn) {
        auto const cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        turn_for(turn, keep_alive);
        auto const used = static_cast<double>(now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / keep_alive;
        figure("idle", "ms CPU a second", used / 1e6);
        figure("idle", "us CPU a second/session", used / 1e3 / static_cast<double>(size));
        figure("idle", "sessions lost", static_cast<double>(lost_));
    }

    template <class Turn>
    void come_back(int seconds, Turn& turn) {
        auto const name = "storm_" + std::to_string(seconds);
        auto const cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        {
            std::lock_guard const lock(mutex_);
            lost_ = 0;
            came_.clear();
        }
        std::printf("storm %d\n", seconds);
        std::fflush(stdout);
        turn_until(turn, [&] { return lost_ >= size && connected_ == size; }, name.c_str());
        figure(name, "back at", static_cast<double>(all_at_) / 1e9);
        figure(name, "us CPU/connect", static_cast<double>(cpu_at_ - cpu) / 1e3 / static_cast<double>(size));
        figure(name, "connects in the densest 100 ms", static_cast<double>(densest()));
    }

    std::size_t densest() {
        std::lock_guard const lock(mutex_);
        std::ranges::sort(came_);
        std::size_t most = 0;
        for (std::size_t from = 0, to = 0; to < came_.size(); ++to) {
            while (came_[to] - came_[from] >= 100'000'000) ++from;
            most = std::max(most, to - from + 1);
        }
        return most;
    }

    void figure(std::string const& name, char const* unit, double value) const {
        // Of `back at` microseconds count.
        std::printf("{\"group\": \"crowd\", \"case\": \"%s\", \"who\": \"%s\", \"unit\": \"%s\", \"value\": %.9g}\n",
                    name.c_str(), who_, unit, value);
        std::fflush(stdout);
    }

    char const* who_;
    std::mutex mutex_;
    std::size_t connected_ = 0;
    std::size_t lost_ = 0;
    std::vector<std::int64_t> came_;  // when, since the last storm began
    std::int64_t all_at_ = 0;
    std::int64_t cpu_at_ = 0;
};

}  // namespace bench
