#pragma once

#include "allocations.hpp"
#include "report.hpp"
#include "system_calls.hpp"
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <malloc.h>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// What the session benchmarks of all clients have in common: the cases, the messages, and the measuring.
///
///     benchmark-session-CLIENT PORT CASE MESSAGES
namespace bench {

inline constexpr std::string_view topic = "sensors/building-7/room-12/temp1";
inline constexpr std::string_view filter = "sensors/#";
static_assert(topic.size() == 32);

/// Cases are named `publish_qos0`, `publish_qos1_window_20`, `receive_qos0`, `latency`, `idle`, ..., with `_1024`
/// behind where the payload has that size in place of 64 bytes. `ws/` or `wss/` in front of it says what is below.
struct options {
    std::uint16_t port;
    std::string group = "session";
    std::string name;
    std::size_t messages;
    std::string payload;

    options(int argc, char** argv)
        : port(static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 0)),
          name(argc > 2 ? argv[2] : ""),
          messages(argc > 3 ? static_cast<std::size_t>(std::atoll(argv[3])) : 0),
          payload(name.ends_with("_1024") ? 1024 : 64, 'x') {
        if (auto const slash = name.find('/'); slash != std::string::npos) {
            group = name.substr(0, slash);
            name = name.substr(slash + 1);
        }
        if (port == 0 || messages == 0) {
            std::fprintf(stderr, "usage: %s PORT CASE MESSAGES\n", argv[0]);
            std::exit(2);
        }
    }
    bool is(std::string_view prefix) const noexcept { return name.starts_with(prefix); }
    int qos() const noexcept {
        auto const at = name.find("qos");
        return at == std::string::npos ? 1 : name[at + 3] - '0';
    }
    /// Messages in flight.
    std::size_t window() const {
        auto const at = name.find("window_");
        return at == std::string::npos ? 1 : static_cast<std::size_t>(std::stoull(name.substr(at + 7)));
    }
};

inline std::int64_t now(clockid_t clock) {
    timespec t;
    ::clock_gettime(clock, &t);
    return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

/// What the other side has cost, where it lives in this process.
struct other_side {
    std::size_t allocations = 0;
    std::size_t system_calls = 0;
};
inline other_side apart;

/// What OpenSSL has asked for, where openssl_memory.hpp counts it: how often so far, and bytes that it has now.
struct openssl_share {
    std::size_t allocations = 0;
    std::size_t bytes = 0;
};
inline openssl_share openssl;

/// Bytes that this process has written to files (on Linux).
inline double bytes_written() {
    std::ifstream in("/proc/self/io");
    double value = 0;
    for (std::string what; in >> what >> value && what != "wchar:";) {
    }
    return value;
}

/// Counts messages: the first ones warm up, what follows is measured.
class meter {
  public:
    meter(options const& o, char const* who) : options_(o), who_(who), warm_up_(o.messages / 5) {}

    std::size_t total() const noexcept { return warm_up_ + options_.messages; }
    std::size_t done() const noexcept { return done_; }
    bool finished() const noexcept { return done_ >= total(); }

    /// One more message. True: it was the last.
    bool count() {
        if (++done_ == warm_up_) start();
        return done_ == total() && (stop(), true);
    }

    void start() {
        allocations_ = own_allocations();
        openssl_allocations_ = openssl.allocations;
        system_calls_ = ::system_calls() - apart.system_calls;
        if (options_.group == "store") written_ = bytes_written();
        wall_ = now(CLOCK_MONOTONIC);
        cpu_ = now(CLOCK_PROCESS_CPUTIME_ID);
    }
    void stop() {
        auto const cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu_;
        auto const wall = now(CLOCK_MONOTONIC) - wall_;
        auto const allocated = own_allocations() - allocations_;
        auto const of_openssl = openssl.allocations - openssl_allocations_;
        auto const called = ::system_calls() - apart.system_calls - system_calls_;
        auto const n = static_cast<double>(options_.messages);
        report::figure(options_.group, options_.name, who_, "ns CPU/message", static_cast<double>(cpu) / n);
        if (options_.group == "store")
            report::figure("store", options_.name, who_, "bytes written/message", (bytes_written() - written_) / n);
        report::figure(options_.group, options_.name, who_, "messages/s", n * 1e9 / static_cast<double>(wall));
        report::figure(options_.group, options_.name, who_, "allocations/message", static_cast<double>(allocated) / n);
        if (options_.group == "wss")
            report::figure("wss", options_.name, who_, "OpenSSL's allocations/message",
                           static_cast<double>(of_openssl) / n);
        report::figure(options_.group, options_.name, who_, "system calls/message", static_cast<double>(called) / n);
    }

  private:
    static std::size_t own_allocations() noexcept { return ::allocations() - apart.allocations - openssl.allocations; }

    options const& options_;
    char const* who_;
    std::size_t warm_up_;
    std::size_t done_ = 0;
    std::int64_t cpu_ = 0;
    std::int64_t wall_ = 0;
    double written_ = 0;
    std::size_t allocations_ = 0;
    std::size_t openssl_allocations_ = 0;
    std::size_t system_calls_ = 0;
};

/// Round trip times.
class trips {
  public:
    explicit trips(std::size_t n) { times_.reserve(n); }
    void begin() { begun_ = now(CLOCK_MONOTONIC); }
    void end() { times_.push_back(now(CLOCK_MONOTONIC) - begun_); }
    void report(char const* who) {
        std::ranges::sort(times_);
        auto const at = [&](std::size_t percent) {
            return static_cast<double>(times_[times_.size() * percent / 100]) / 1000;
        };
        report::figure("session", "round_trip_qos1_median", who, "us", at(50));
        report::figure("session", "round_trip_qos1_p99", who, "us", at(99));
    }

  private:
    std::int64_t begun_ = 0;
    std::vector<std::int64_t> times_;
};

/// Memory of this process outside of the kernel, in bytes: on the heap.
inline double heap_bytes() { return static_cast<double>(::mallinfo2().uordblks + ::mallinfo2().hblkhd); }

}  // namespace bench
