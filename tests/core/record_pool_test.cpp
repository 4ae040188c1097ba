#include <runnel/core/record_pool.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

using runnel::record_pool;

namespace {

struct record {
    void* at;
    std::size_t size;
    unsigned char mark;
};

record take(record_pool& pool, std::size_t size, unsigned char mark) {
    record const r{pool.take(size), size, mark};
    std::memset(r.at, mark, size);
    return r;
}

bool is_intact(record const& r) {
    auto const* bytes = static_cast<unsigned char const*>(r.at);
    return std::all_of(bytes, bytes + r.size, [&](unsigned char byte) { return byte == r.mark; });
}

}  // namespace

TEST_CASE("a pool holds no memory before the first record") { CHECK(record_pool().capacity() == 0); }

TEST_CASE("records are aligned for any type") {
    record_pool pool;
    for (std::size_t size = 0; size < 100; ++size) {
        auto const address = reinterpret_cast<std::uintptr_t>(pool.take(size));
        CHECK(address % alignof(std::max_align_t) == 0);
    }
}

TEST_CASE("records do not overlap, whatever their sizes and the order in which they are given back") {
    std::mt19937 random(1);
    record_pool pool;
    std::vector<record> held;
    for (int step = 0; step < 5000; ++step) {
        if (held.size() < 50 || random() % 2 == 0) {
            std::size_t const size = random() % 50 == 0 ? random() % 200000 : random() % 300;
            held.push_back(take(pool, size, static_cast<unsigned char>(random())));
        } else {
            auto const i = random() % held.size();
            REQUIRE(is_intact(held[i]));
            pool.give_back(held[i].at);
            held[i] = held.back();
            held.pop_back();
        }
    }
    for (auto const& r : held) CHECK(is_intact(r));
}

TEST_CASE("a pool used as a queue holds no more memory after a long time than after a short one") {
    std::mt19937 random(2);
    record_pool pool;
    std::deque<record> held;
    std::size_t early = 0;
    for (int step = 0; step < 50000; ++step) {
        held.push_back(take(pool, 20 + random() % 200, static_cast<unsigned char>(step)));
        if (held.size() > 100) {
            REQUIRE(is_intact(held.front()));
            pool.give_back(held.front().at);
            held.pop_front();
        }
        if (step == 5000) early = pool.capacity();
    }
    CHECK(pool.capacity() <= early + record_pool::max_block);
    CHECK(pool.capacity() <= 4 * record_pool::max_block);
}

TEST_CASE("the first block is small, and blocks stop growing at their maximum") {
    record_pool pool;
    pool.take(1);
    CHECK(pool.capacity() == record_pool::min_block);
    std::size_t largest_step = 0;
    for (int i = 0; i < 5000; ++i) {
        auto const before = pool.capacity();
        pool.take(100);
        largest_step = std::max(largest_step, pool.capacity() - before);
    }
    CHECK(largest_step == record_pool::max_block);
}

TEST_CASE("a record larger than a block has its place too, and blocks are of usual size after it") {
    record_pool pool;
    auto const large = take(pool, 3 * record_pool::max_block, 1);
    auto const before = pool.capacity();
    auto const small = take(pool, 100, 2);
    CHECK(pool.capacity() - before <= record_pool::max_block);
    CHECK(is_intact(large));
    CHECK(is_intact(small));
}

TEST_CASE("the memory of a burst is kept for the next one, within a limit") {
    record_pool pool;
    std::vector<void*> held;
    std::size_t steady = 0;
    for (int burst = 0; burst < 5; ++burst) {
        for (int i = 0; i < 5000; ++i) held.push_back(pool.take(100));
        if (burst == 1) steady = pool.capacity();
        CHECK((burst == 0 || pool.capacity() == steady));
        for (void* r : held) pool.give_back(r);
        CHECK((burst == 0 || pool.capacity() == steady));
        held.clear();
    }
    for (int i = 0; i < 50000; ++i) held.push_back(pool.take(100));
    CHECK(pool.capacity() > record_pool::max_spare);
    for (void* r : held) pool.give_back(r);
    CHECK(pool.capacity() <= record_pool::max_spare + record_pool::max_block);
}

TEST_CASE("release_idle gives everything back when no record is held") {
    record_pool pool;
    std::vector<void*> held;
    for (int i = 0; i < 1000; ++i) held.push_back(pool.take(100));
    for (void* r : held) pool.give_back(r);
    CHECK(pool.capacity() > 0);
    pool.release_idle();
    CHECK(pool.capacity() == 0);
    auto const again = take(pool, 100, 3);
    CHECK(is_intact(again));
    CHECK(pool.capacity() == record_pool::min_block);
}

TEST_CASE("release_idle keeps the records that are held") {
    record_pool pool;
    std::vector<record> held;
    for (int i = 0; i < 1000; ++i) held.push_back(take(pool, 100, static_cast<unsigned char>(i)));
    for (std::size_t i = 0; i < held.size(); ++i)
        if (i != 500 && i != 999) pool.give_back(held[i].at);
    pool.release_idle();
    CHECK(pool.capacity() <= 2 * record_pool::max_block);
    CHECK(is_intact(held[500]));
    CHECK(is_intact(held[999]));
    for (int i = 0; i < 1000; ++i) take(pool, 100, 9);
    CHECK(is_intact(held[500]));
    CHECK(is_intact(held[999]));
}

TEST_CASE("without memory for a block nothing changes, whichever allocation fails") {
    for (std::size_t nth : {1U, 2U}) {
        CAPTURE(nth);
        runnel::record_pool pool;
        void* const record = pool.take(100);
        auto const capacity = pool.capacity();
        {
            runnel::testing::failing_allocation const failing(nth);
            CHECK_THROWS_AS(pool.take(1'000'000), std::bad_alloc);
        }
        CHECK(pool.capacity() == capacity);
        CHECK(pool.records() == 1);
        void* const next = pool.take(100);
        CHECK(pool.capacity() <= capacity + 4 * runnel::record_pool::min_block);  // no trace of the large one
        std::memset(next, 'b', 100);
        pool.give_back(next);
        pool.give_back(record);
        CHECK(pool.records() == 0);
    }
}
