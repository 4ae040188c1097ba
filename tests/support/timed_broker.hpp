#pragma once

#include <runnel/testing/broker/detail/core.hpp>

#include <algorithm>
#include <chrono>
#include <utility>

namespace test {

/// A broker whose time passes only when the test says so.
struct timed_broker {
    explicit timed_broker(runnel::testing::broker_options options = {}) : core(std::move(options)) {}

    /// Lets time pass: what is due meanwhile is done at its time.
    void pass(std::chrono::milliseconds duration) {
        auto const end = now + duration;
        for (auto next = core.next_deadline(); next && *next <= end; next = core.next_deadline()) {
            now = std::max(now, *next);
            core.advance(now);
        }
        now = end;
    }

    runnel::testing::detail::broker_core::time_point now{};
    runnel::testing::detail::broker_core core;
};

}  // namespace test
