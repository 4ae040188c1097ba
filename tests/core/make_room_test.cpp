#include <runnel/core/make_room.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <cstddef>
#include <vector>

using runnel::make_room;

TEST_CASE("there is room for as many elements as were asked for, and none is lost") {
    for (std::size_t const size : {0U, 1U, 7U, 100U}) {
        for (std::size_t const more : {0U, 1U, 2U, 99U, 1000U}) {
            std::vector<std::size_t> v;
            for (std::size_t i = 0; i < size; ++i) v.push_back(i);
            make_room(v, more);
            REQUIRE(v.size() == size);
            CHECK(v.capacity() >= size + more);
            auto const* const at = v.data();
            for (std::size_t i = 0; i < more; ++i) v.push_back(size + i);
            CHECK(v.data() == at);
            for (std::size_t i = 0; i < v.size(); ++i) REQUIRE(v[i] == i);
        }
    }
}

TEST_CASE("room for one more, time and again, takes few allocations, and none where there is room") {
    std::vector<int> v;
    auto const before = runnel::testing::allocation_count();
    for (int i = 0; i < 100'000; ++i) {
        make_room(v, 1);
        v.push_back(i);
    }
    CHECK(runnel::testing::allocation_count() - before <= 18);
    v.clear();
    auto const between = runnel::testing::allocation_count();
    make_room(v, 100'000);
    CHECK(runnel::testing::allocation_count() == between);
}
