#include <runnel/mqtt/protocol/router.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/random_source.hpp"
#include <algorithm>
#include <ctime>
#include <set>
#include <string>
#include <utility>
#include <vector>

using namespace runnel::mqtt;

namespace {

std::vector<int> matched(router<int> const& routes, std::string_view topic) {
    std::vector<int> found;
    routes.match(topic, [&](int entry) { found.push_back(entry); });
    std::sort(found.begin(), found.end());
    return found;
}

}  // namespace

TEST_CASE("a router calls once for each entry whose filter matches, also for overlapping filters") {
    router<int> routes;
    CHECK(routes.insert("a/b", 1));
    CHECK(routes.insert("a/+", 2));
    CHECK(routes.insert("a/#", 3));
    CHECK(routes.insert("#", 4));
    CHECK(routes.insert("+/b", 5));
    CHECK(routes.insert("a/b/#", 6));
    CHECK(routes.insert("a/b", 7));
    CHECK(matched(routes, "a/b") == std::vector{1, 2, 3, 4, 5, 6, 7});
    CHECK(matched(routes, "a") == std::vector{3, 4});
    CHECK(matched(routes, "a/c") == std::vector{2, 3, 4});
    CHECK(matched(routes, "a/b/c") == std::vector{3, 4, 6});
    CHECK(matched(routes, "c") == std::vector{4});
}

TEST_CASE("a router keeps empty levels apart") {
    router<int> routes;
    routes.insert("/", 1);
    routes.insert("/+", 2);
    routes.insert("+", 3);
    routes.insert("a/", 4);
    CHECK(matched(routes, "/") == std::vector{1, 2});
    CHECK(matched(routes, "a") == std::vector{3});
    CHECK(matched(routes, "a/") == std::vector{4});
    CHECK(matched(routes, "//").empty());
}

TEST_CASE("a router does not match wildcards in the first level with topics that begin with $ [MQTT-4.7.2-1]") {
    router<int> routes;
    routes.insert("#", 1);
    routes.insert("+/a", 2);
    routes.insert("$SYS/+", 3);
    routes.insert("$SYS/#", 4);
    CHECK(matched(routes, "$SYS/a") == std::vector{3, 4});
    CHECK(matched(routes, "$other/a").empty());
}

TEST_CASE("an entry is inserted once under a filter, and gone after it has been erased") {
    router<int> routes;
    CHECK(routes.insert("a/+", 1));
    CHECK_FALSE(routes.insert("a/+", 1));
    CHECK(routes.insert("a/+", 2));
    CHECK(routes.size() == 2);
    CHECK_FALSE(routes.erase("a/+", 3));
    CHECK_FALSE(routes.erase("a", 1));
    CHECK_FALSE(routes.erase("a/b", 1));
    CHECK(routes.erase("a/+", 1));
    CHECK_FALSE(routes.erase("a/+", 1));
    CHECK(matched(routes, "a/b") == std::vector{2});
}

TEST_CASE("entries under one filter are visited in the order of insertion, and can be changed") {
    router<int> routes;
    for (int i : {5, 3, 9}) routes.insert("a", i);
    std::vector<int> seen;
    routes.for_each("a", [&](int& entry) { seen.push_back(entry++); });
    CHECK(seen == std::vector{5, 3, 9});
    CHECK(matched(routes, "a") == std::vector{4, 6, 10});
    CHECK(routes.erase_if("a", [](int entry) { return entry < 10; }) == 2);
    CHECK(routes.size() == 1);
}

TEST_CASE("branches without entries are pruned") {
    router<int> routes;
    routes.insert("a/b/c/d", 1);
    routes.insert("a/b", 2);
    routes.insert("+/#", 3);
    CHECK(routes.level_count() == 6);
    routes.erase("a/b", 2);
    CHECK(routes.level_count() == 6);
    routes.erase("a/b/c/d", 1);
    CHECK(routes.level_count() == 2);
    routes.erase("+/#", 3);
    CHECK(routes.level_count() == 0);
    CHECK(routes.empty());
}

TEST_CASE("a filter as deep as a string allows is handled") {
    std::string deep = "+";
    while (deep.size() + 2 <= max_string_size) deep += "/+";
    router<int> routes;
    routes.insert(deep, 1);
    std::string topic = deep;
    std::replace(topic.begin(), topic.end(), '+', 'x');
    CHECK(matched(routes, topic) == std::vector{1});
    topic.pop_back();
    CHECK(matched(routes, topic) == std::vector{1});  // the last level is empty
    CHECK(routes.erase(deep, 1));
    CHECK(routes.level_count() == 0);
}

TEST_CASE("a router agrees with matching each filter, through random insertions and removals") {
    for (std::uint32_t seed = 1; seed <= 5; ++seed) {
        test::random_source random(seed);
        CAPTURE(seed);
        auto const text = [&](std::string_view characters) {
            auto result = random.string_of(characters, 9);
            return result.empty() ? std::string("/") : result;
        };
        router<int> routes;
        std::set<std::pair<std::string, int>> reference;
        for (int i = 0; i < 20'000; ++i) {
            auto const filter = text("ab/+#/$");
            if (check_topic_filter(filter, protocol_version::v3_1_1) != errc::ok) continue;
            int const entry = random.between<int>(0, 2);
            if (random.between(1, 100) <= 60)
                REQUIRE(routes.insert(filter, entry) == reference.insert({filter, entry}).second);
            else
                REQUIRE(routes.erase(filter, entry) == (reference.erase({filter, entry}) == 1));
            if (i % 10 != 0) continue;
            auto const topic = text("ab/$");
            std::vector<int> expected;
            for (auto const& [f, e] : reference)
                if (matches(f, topic)) expected.push_back(e);
            std::sort(expected.begin(), expected.end());
            if (matched(routes, topic) != expected) FAIL(topic);
        }
        REQUIRE(routes.size() == reference.size());
        for (auto const& [filter, entry] : reference) REQUIRE(routes.erase(filter, entry));
        CHECK(routes.level_count() == 0);
    }
}

TEST_CASE("levels are told apart by all of their bytes") {
    for (std::size_t size = 1; size < 40; ++size) {
        CAPTURE(size);
        router<int> routes;
        for (std::size_t i = 0; i < size; ++i) {
            std::string level(size, 'x');
            level[i] = 'y';
            routes.insert("a/" + level + "/b", static_cast<int>(i));
        }
        for (std::size_t i = 0; i < size; ++i) {
            std::string level(size, 'x');
            level[i] = 'y';
            CHECK(matched(routes, "a/" + level + "/b") == std::vector{static_cast<int>(i)});
            level[i] = 'z';
            CHECK(matched(routes, "a/" + level + "/b").empty());
        }
        CHECK(matched(routes, "a/" + std::string(size, 'x') + "/b").empty());
        CHECK(matched(routes, "a/" + std::string(size + 1, 'x') + "/b").empty());
        CHECK(matched(routes, "a/" + std::string(size - 1, 'x') + "y/b").size() == 1);
    }
}

TEST_CASE("a router agrees with matching each filter, on ways of many levels that part early and late") {
    test::random_source random(1);
    for (int round = 0; round < 40; ++round) {
        CAPTURE(round);
        auto const depth = random.between<std::size_t>(2, 150);
        std::vector<std::string> topic;
        for (std::size_t i = 0; i < depth; ++i) topic.push_back(std::string(random.between<std::size_t>(0, 20), 'a'));
        auto const joined = [](std::vector<std::string> const& levels) {
            std::string all = levels[0];
            for (std::size_t i = 1; i < levels.size(); ++i) all += '/' + levels[i];
            return all;
        };
        router<int> routes;
        std::vector<int> expected;
        for (int i = 0; i < 200; ++i) {
            auto filter = topic;
            for (auto n = random.between(0, 4); n > 0; --n)
                filter[random.between<std::size_t>(0, depth - 1)] = random.between(0, 9) == 0 ? "b" : "+";
            if (random.between(0, 3) == 0) {
                filter.resize(random.between<std::size_t>(1, depth));
                filter.push_back("#");
            }
            routes.insert(joined(filter), i);
            if (matches(joined(filter), joined(topic))) expected.push_back(i);
        }
        if (joined(topic).empty()) continue;
        CHECK(matched(routes, joined(topic)) == expected);
    }
}

TEST_CASE("a long level of a topic is read once, however many filters are compared with it") {
    // All ways to have '+' or 'a' in twelve levels, and behind them one that no topic has.
    router<int> routes;
    for (int i = 0; i < 4096; ++i) {
        std::string filter;
        for (int k = 0; k < 12; ++k) filter += (i >> k & 1) != 0 ? "+/" : "a/";
        routes.insert(filter + "z", i);
    }
    std::string const way = "a/a/a/a/a/a/a/a/a/a/a/a/";
    auto const time_of = [&](std::string const& topic) {
        auto const begun = std::clock();
        CHECK(matched(routes, topic).empty());
        return std::clock() - begun;
    };
    auto const least = (std::max)(time_of(way + "y"), static_cast<std::clock_t>(CLOCKS_PER_SEC / 1000));
    CHECK(time_of(way + std::string(60'000, 'y')) < 50 * least);  // 60,000 bytes for each would take thousands
}

TEST_CASE("matching allocates nothing") {
    router<int> routes;
    for (int i = 0; i < 1'000; ++i) routes.insert("devices/" + std::to_string(i) + "/+/state", i);
    routes.insert("devices/#", -1);
    int calls = 0;
    auto const before = runnel::testing::allocation_count();
    routes.match("devices/17/a rather long level of a topic/state", [&](int) { ++calls; });
    CHECK(runnel::testing::allocation_count() == before);
    CHECK(calls == 2);
}

TEST_CASE("a filter for which there is no memory is not there, whichever allocation fails; the others are") {
    for (std::size_t nth = 1; nth < 20; ++nth) {
        CAPTURE(nth);
        runnel::mqtt::router<int> router;
        for (int i = 0; i < 7; ++i) router.insert("level/" + std::to_string(i), i);
        router.insert("gone/one/of/some/length", 1);
        router.erase("gone/one/of/some/length", 1);
        bool added = true;
        try {
            runnel::testing::failing_allocation const failing(nth);
            router.insert("a level of more than fifteen characters/another level of that length/+/#", 100);
        } catch (std::bad_alloc const&) {
            added = false;
        }
        CHECK(router.size() == (added ? 8 : 7));
        CHECK(router.level_count() == (added ? 12 : 8));  // no part of a filter stays
        for (int i = 0; i < 7; ++i) {
            int found = -1;
            router.match("level/" + std::to_string(i), [&](int entry) { found = entry; });
            CHECK(found == i);
        }
        int found = 0;
        auto const count = [&](int) { ++found; };
        router.match("a level of more than fifteen characters/another level of that length/x/y", count);
        CHECK(found == (added ? 1 : 0));
        if (!added) {
            CHECK(router.insert("a level of more than fifteen characters/another level of that length/+/#", 100));
        }
        CHECK(router.erase("a level of more than fifteen characters/another level of that length/+/#", 100));
        for (int i = 0; i < 7; ++i) CHECK(router.erase("level/" + std::to_string(i), i));
        CHECK(router.level_count() == 0);
    }
}
