#pragma once

#include "report.hpp"
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <malloc.h>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

/// How the subscriptions of a message are found: the filters, the topics, and the measuring, for all libraries.
///
///     benchmark-router-LIBRARY CASE FILTERS LOOKUPS
///
/// | case          | filters                                                                       |
/// |---------------|-------------------------------------------------------------------------------|
/// | exact         | `site/7/device-1234/temperature`                                              |
/// | plus          | `site/+/device-1234/temperature`                                              |
/// | hash          | `site/7/device-1234/#`                                                        |
/// | mixed         | of these, each a third                                                        |
/// | deep_32       | mixed, behind 28 levels that are the same for all                             |
/// | deep_128      | mixed, behind 124 levels                                                      |
/// | plus_anywhere | 16 levels, each '+' or one of two names, at random                            |
/// | every_plus    | each way to have '+' or 'a' in 17 levels, and one that no topic has behind it |
/// | long_level    | the same, the topic's last level has 60,000 bytes                             |
///
/// Each topic is one that a filter was made from, in random order.
namespace router_bench {

inline std::string number(std::size_t i) { return std::to_string(i); }

struct sample {
    std::string filter;
    std::string topic;
};

inline sample plain(std::size_t i, std::size_t kind) {
    std::string const site = number(i % 97);
    std::string const device = "/device-" + number(i) + "/";
    return {"site/" + (kind == 1 ? "+" : site) + device + (kind == 2 ? "#" : "temperature"),
            "site/" + site + device + "temperature"};
}

inline sample deep(std::size_t i, std::size_t levels) {
    std::string way;
    for (std::size_t k = 4; k < levels; ++k) way += "l" + number(k) + "/";
    auto const end = plain(i, i % 3);
    return {way + end.filter, way + end.topic};
}

inline sample plus_anywhere(std::size_t i) {
    std::mt19937 random(static_cast<std::uint32_t>(i));
    sample s;
    for (std::size_t k = 0; k < 16; ++k) {
        char const* const slash = k == 0 ? "" : "/";
        std::string const name = slash + number(k) + ((random() & 1) != 0 ? "a" : "b");
        s.topic += name;
        s.filter += random() % 4 == 0 ? std::string(slash) + "+" : name;
    }
    return s;
}

inline sample every_plus(std::size_t i, std::size_t last) {
    sample s;
    for (std::size_t k = 0; k < 17; ++k) {
        s.topic += "a/";
        s.filter += (i >> k & 1) != 0 ? "+/" : "a/";
    }
    return {s.filter + "z", s.topic + std::string(last, 'y')};
}

inline sample make(std::string_view name, std::size_t i) {
    if (name == "exact") return plain(i, 0);
    if (name == "plus") return plain(i, 1);
    if (name == "hash") return plain(i, 2);
    if (name == "mixed") return plain(i, i % 3);
    if (name == "deep_32") return deep(i, 32);
    if (name == "deep_128") return deep(i, 128);
    if (name == "plus_anywhere") return plus_anywhere(i);
    if (name == "every_plus") return every_plus(i, 1);
    if (name == "long_level") return every_plus(i, 60'000);
    std::fprintf(stderr, "no such case\n");
    std::exit(2);
}

inline std::size_t allocated() {
    auto const all = ::mallinfo2();
    return all.uordblks + all.hblkhd;
}

inline double cpu() {
    timespec t;
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

/// What is counted by report.py (`--toggle-collect`): returns the matches.
template <class Table>
[[gnu::noinline]] std::size_t counted_lookups(Table const& table, std::vector<std::string_view> const& topics,
                                              std::size_t lookups) {
    std::size_t found = 0;
    for (std::size_t i = 0, at = 0; i < lookups; ++i, at = at + 1 == topics.size() ? 0 : at + 1)
        found += table.find(topics[at]);
    return found;
}

/// `Table` has `add(std::string const& filter, std::size_t)`, and `find(std::string_view topic)`, the number of
/// matches.
template <class Table>
int run(int argc, char** argv, std::string_view who) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: %s CASE FILTERS LOOKUPS\n", argv[0]);
        return 2;
    }
    std::string const name = argv[1];
    auto const n = static_cast<std::size_t>(std::atoll(argv[2]));
    auto const lookups = static_cast<std::size_t>(std::atoll(argv[3]));
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    // The topics stand one behind the other, as in what a connection reads.
    std::string bytes;
    std::vector<std::size_t> ends;
    for (std::size_t const i : order) {
        bytes += make(name, i).topic;
        ends.push_back(bytes.size());
        if (ends.size() == lookups) break;
        if (bytes.size() > (std::size_t{1} << 26)) break;
    }
    std::vector<std::string_view> topics;
    for (std::size_t begin = 0; auto const end : ends) {
        topics.push_back(std::string_view(bytes).substr(begin, end - begin));
        begin = end;
    }
    Table table;
    auto const before = allocated();
    for (std::size_t i = 0; i < n; ++i) table.add(make(name, i).filter, i);
    auto const taken = static_cast<double>(allocated() - before);
    auto const at_first = counted_lookups(table, topics, 1);
    auto const begun = cpu();
    auto const found = counted_lookups(table, topics, lookups);
    auto const ended = cpu();
    std::string const what = name + "_" + number(n);
    auto const count = static_cast<double>(lookups);
    report::figure("router", what, who, "ns CPU/lookup", (ended - begun) / count);
    report::figure("router", what, who, "bytes/filter", taken / static_cast<double>(n));
    if (name == "plus_anywhere") return 0;
    bool const in_vain = name == "every_plus" || name == "long_level";
    return at_first + found == (in_vain ? 0 : lookups + 1) ? 0 : 1;
}

}  // namespace router_bench
