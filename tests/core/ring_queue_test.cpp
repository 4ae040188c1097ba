#include <runnel/core/ring_queue.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <cstdint>
#include <deque>
#include <random>

using runnel::ring_queue;

TEST_CASE("a ring queue hands its elements out in the order in which they came") {
    ring_queue<int> queue;
    for (int i = 0; i < 100; ++i) queue.push(i);
    for (int i = 0; i < 100; ++i) {
        CHECK(queue.front() == i);
        queue.pop();
    }
    CHECK(queue.empty());
}

TEST_CASE("a ring queue numbers its elements without a gap, and finds them by number across growth") {
    ring_queue<std::uint64_t> queue;
    CHECK(queue.first() == 0);
    for (std::uint64_t i = 0; i < 5; ++i) CHECK(queue.push(i * 10) == i);
    queue.pop();
    queue.pop();
    for (std::uint64_t i = 5; i < 50; ++i) CHECK(queue.push(i * 10) == i);
    CHECK(queue.first() == 2);
    CHECK(queue.next() == 50);
    CHECK(queue.size() == 48);
    for (std::uint64_t i = 2; i < 50; ++i) CHECK(queue[i] == i * 10);
}

TEST_CASE("a ring queue contains the numbers from the first to the last, and no other") {
    ring_queue<int> queue;
    CHECK_FALSE(queue.contains(0));
    queue.push(1);
    queue.push(2);
    queue.push(3);
    queue.pop();
    CHECK_FALSE(queue.contains(0));
    CHECK(queue.contains(1));
    CHECK(queue.contains(2));
    CHECK_FALSE(queue.contains(3));
    CHECK_FALSE(queue.contains(static_cast<std::uint64_t>(-1)));
}

TEST_CASE("numbers go on when a ring queue is cleared") {
    ring_queue<int> queue;
    queue.push(1);
    queue.push(2);
    queue.clear();
    CHECK(queue.empty());
    CHECK_FALSE(queue.contains(1));
    CHECK(queue.push(3) == 2);
    CHECK(queue[2] == 3);
}

TEST_CASE("an empty ring queue can be made to go on with any number") {
    ring_queue<int> queue;
    queue.push(1);
    queue.pop();
    queue.restart_at(65534);
    CHECK(queue.push(7) == 65534);
    for (int i = 0; i < 20; ++i) queue.push(i);
    CHECK(queue[65534] == 7);
    CHECK(queue[65535 + 19] == 19);
}

TEST_CASE("a ring queue does as a deque does") {
    std::mt19937 random(5);
    ring_queue<unsigned> queue;
    std::deque<unsigned> model;
    for (int step = 0; step < 20000; ++step) {
        bool const grow = random() % 100 < (step / 2000 % 2 == 0 ? 60u : 40u);
        if (grow) {
            auto const value = static_cast<unsigned>(random());
            queue.push(value);
            model.push_back(value);
        } else if (!model.empty()) {
            queue.pop();
            model.pop_front();
        }
        REQUIRE(queue.size() == model.size());
        if (model.empty()) continue;
        REQUIRE(queue.front() == model.front());
        auto const i = random() % model.size();
        REQUIRE(queue[queue.first() + i] == model[i]);
    }
}

TEST_CASE("without memory nothing is added, and the rest stays") {
    runnel::ring_queue<int> queue;
    for (int i = 0; i < 8; ++i) queue.push(i);
    {
        runnel::testing::failing_allocation const failing(1);
        CHECK_THROWS_AS(queue.push(8), std::bad_alloc);
    }
    CHECK(queue.size() == 8);
    CHECK(queue.push(9) == 8);
    for (std::uint64_t i = 0; i < 8; ++i) CHECK(queue[i] == static_cast<int>(i));
    CHECK(queue[8] == 9);
}
