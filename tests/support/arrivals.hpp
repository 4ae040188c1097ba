#pragma once

#include <cstdint>
#include <set>

namespace test {

/// Keeps account of numbered messages of one QoS that come from one sender: numbers from 0 on.
struct arrivals {
    std::uint64_t next = 0;       ///< behind the greatest that has come
    std::uint64_t repeated = 0;   ///< have come before
    std::uint64_t overtaken = 0;  ///< have come behind a later one
    std::set<std::uint64_t> missing{};

    void add(std::uint64_t number) {
        if (missing.erase(number) != 0) {
            ++overtaken;
        } else if (number < next) {
            ++repeated;
        } else {
            for (auto i = next; i < number; ++i) missing.insert(i);
            next = number + 1;
        }
    }
    /// Of so many that have been sent, those that have not come.
    std::uint64_t lost(std::uint64_t sent) const { return missing.size() + sent - next; }
};

}  // namespace test
