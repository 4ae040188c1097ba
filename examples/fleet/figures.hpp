#pragma once

#include "histogram.hpp"
#include "plan.hpp"
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <system_error>

namespace fleet {

/// What has happened since somebody looked last: to the clients of one thread, or, added up, to all.
struct figures {
    std::int64_t connected = 0;    ///< more, or fewer
    std::int64_t ready = 0;        ///< have connected, and subscribed if they are to
    std::int64_t finished = 0;     ///< have published all they are to
    std::uint64_t reconnects = 0;  ///< connections made after the first
    std::uint64_t gave_up = 0;     ///< clients that have ended before their time
    std::uint64_t failed = 0;      ///< publishes and subscriptions
    std::uint64_t sent = 0;        ///< QoS 0: given to the session; otherwise acknowledged
    std::uint64_t received = 0;
    std::uint64_t repeated = 0;  ///< of these, received before
    histogram connecting;        ///< from the first attempt to the server's answer
    histogram acknowledgement;   ///< from publish to its end, QoS 1 and 2
    histogram delivery;          ///< from publish to receipt
    std::map<std::error_code, std::uint64_t> errors;
    clock::time_point first_sent = clock::time_point::max();
    clock::time_point last_sent = clock::time_point::min();
    clock::time_point last_received = clock::time_point::min();

    void add(figures const& other) {
        connected += other.connected;
        ready += other.ready;
        finished += other.finished;
        reconnects += other.reconnects;
        gave_up += other.gave_up;
        failed += other.failed;
        sent += other.sent;
        received += other.received;
        repeated += other.repeated;
        connecting.add(other.connecting);
        acknowledgement.add(other.acknowledgement);
        delivery.add(other.delivery);
        for (auto const& [error, n] : other.errors) errors[error] += n;
        first_sent = std::min(first_sent, other.first_sent);
        last_sent = std::max(last_sent, other.last_sent);
        last_received = std::max(last_received, other.last_received);
    }

    std::uint64_t error_count() const {
        std::uint64_t n = 0;
        for (auto const& [error, times] : errors) n += times;
        return n;
    }

    /// Messages that should have been received and were not, those still under way included; 0 where nobody knows.
    std::uint64_t missing(plan const& p) const noexcept {
        auto const expected = p.publishes && p.subscribes ? sent * p.fan_out : 0;
        auto const arrived = received - repeated;
        return expected > arrived ? expected - arrived : 0;
    }
};

inline std::string percentiles(histogram const& h) {
    char text[64];
    std::snprintf(text, sizeof text, "%.2f/%.2f/%.2f ms", h.milliseconds(0.5), h.milliseconds(0.99),
                  h.milliseconds(0.999));
    return text;
}

inline unsigned long long wide(std::uint64_t n) noexcept { return n; }

/// One line about the last second. `now` is that second, `all` the time until its end.
inline void print_line(plan const& p, double seconds, double elapsed, figures const& now, figures const& all) {
    auto const rate = [&](std::uint64_t n) { return static_cast<double>(n) / elapsed; };
    std::string line;
    char text[128];
    std::snprintf(text, sizeof text, "%4.0f s  %lld of %u connected", seconds, static_cast<long long>(all.connected),
                  p.count);
    line += text;
    if (p.publishes) {
        std::snprintf(text, sizeof text, "  sent %.0f/s", rate(now.sent));
        line += text;
        if (now.acknowledgement.count() > 0) line += "  acknowledged after " + percentiles(now.acknowledgement);
    }
    if (p.subscribes) {
        std::snprintf(text, sizeof text, "  received %.0f/s", rate(now.received));
        line += text;
        if (now.delivery.count() > 0) line += "  after " + percentiles(now.delivery);
    }
    if (!p.publishes && !p.subscribes && now.connecting.count() > 0) {
        std::snprintf(text, sizeof text, "  %.0f/s", rate(now.connecting.count()));
        line += text + ("  after " + percentiles(now.connecting));
    }
    std::snprintf(text, sizeof text, "  reconnects %llu  errors %llu", wide(all.reconnects), wide(all.error_count()));
    line += text;
    for (auto const& [error, n] : now.errors) line += "  (" + error.message() + ": " + std::to_string(n) + ")";
    std::puts(line.c_str());
    std::fflush(stdout);
}

}  // namespace fleet
