#include <runnel/mqtt/protocol/detail/identifier_map.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <cstdint>
#include <map>
#include <random>

using runnel::mqtt::detail::identifier_map;

TEST_CASE("an identifier is in the map from insert to erase") {
    identifier_map<int> map;
    CHECK(map.find(7) == nullptr);
    map.erase(7);
    map.insert(7, 70);
    REQUIRE(map.find(7) != nullptr);
    CHECK(*map.find(7) == 70);
    CHECK(map.size() == 1);
    map.erase(7);
    CHECK(map.find(7) == nullptr);
    CHECK(map.size() == 0);
}

TEST_CASE("the map holds all identifiers at once") {
    identifier_map<std::uint32_t> map;
    for (std::uint32_t id = 1; id <= 65535; ++id) map.insert(static_cast<std::uint16_t>(id), id * 3);
    CHECK(map.size() == 65535);
    for (std::uint32_t id = 1; id <= 65535; ++id) REQUIRE(*map.find(static_cast<std::uint16_t>(id)) == id * 3);
    std::uint64_t sum = 0;
    map.for_each([&](std::uint16_t, std::uint32_t value) { sum += value; });
    CHECK(sum == 3ull * 65535 * 65536 / 2);
    map.clear();
    CHECK(map.size() == 0);
    CHECK(map.find(1) == nullptr);
}

TEST_CASE("the map does as a std::map does, with identifiers that fall on the same places") {
    for (std::uint32_t seed = 0; seed < 20; ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        identifier_map<unsigned> map;
        std::map<std::uint16_t, unsigned> model;
        for (int step = 0; step < 3000; ++step) {
            auto const id = static_cast<std::uint16_t>((random() % 8) * 256 + random() % (1 + seed) + 1);
            if (auto* const found = map.find(id)) {
                REQUIRE(model.count(id) == 1);
                REQUIRE(*found == model[id]);
                if (random() % 2 == 0) {
                    map.erase(id);
                    model.erase(id);
                }
            } else {
                REQUIRE(model.count(id) == 0);
                auto const value = static_cast<unsigned>(random());
                map.insert(id, value);
                model[id] = value;
            }
            REQUIRE(map.size() == model.size());
        }
        for (auto const& [id, value] : model) {
            REQUIRE(map.find(id) != nullptr);
            CHECK(*map.find(id) == value);
        }
    }
}

TEST_CASE("without memory nothing is added, and the rest stays") {
    identifier_map<int> map;
    for (std::uint16_t i = 1; i <= 6; ++i) map.insert(i, i);
    {
        runnel::testing::failing_allocation const failing(1);
        CHECK_THROWS_AS(map.insert(7, 7), std::bad_alloc);
    }
    CHECK(map.size() == 6);
    map.insert(7, 7);
    for (std::uint16_t i = 1; i <= 7; ++i) CHECK(*map.find(i) == i);
}

TEST_CASE("what takes the place of one that is removed is looked at too") {
    identifier_map<int> map;
    for (int const id : {1, 9, 17, 25}) map.insert(static_cast<std::uint16_t>(id), id);
    map.erase_if([](std::uint16_t, int) { return true; });
    CHECK(map.empty());
    for (int const id : {1, 9, 17, 25}) map.insert(static_cast<std::uint16_t>(id), id);
    map.erase_if([](std::uint16_t id, int) { return id != 17; });
    CHECK(map.size() == 1);
    CHECK(map.find(17) != nullptr);
}
