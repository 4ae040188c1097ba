#include <runnel/mqtt/protocol/handover_queue.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <deque>
#include <random>
#include <stdexcept>
#include <vector>

using namespace runnel::mqtt;
using place = handover_queue::place;
using answer = handover_queue::answer;

namespace {

struct trial {
    handover_queue queue;
    std::deque<handover_queue::item> items;
    std::vector<std::size_t> dropped, admitted;

    explicit trial(handover_limits const& l) : queue(l) {}
    std::size_t number(handover_queue::item const& i) const {
        std::size_t n = 0;
        while (&items[n] != &i) ++n;
        return n;
    }
    answer offer(std::size_t bytes, when_full policy = when_full::wait) {
        items.emplace_back();
        items.back().bytes = bytes;
        return queue.offer(items.back(), policy, [&](auto& i) { dropped.push_back(number(i)); });
    }
    void end(std::size_t n) {
        queue.end(items[n]);
        queue.admit([&](auto& i) { admitted.push_back(number(i)); });
    }
};

}  // namespace

TEST_CASE("messages are held up to a number, and handed over in order up to another") {
    trial t({.messages = 3, .bytes = 100, .handed_over = 2});
    for (int i = 0; i < 3; ++i) CHECK(t.offer(1) == answer::taken);
    CHECK(t.offer(1) == answer::must_wait);
    CHECK(t.offer(1) == answer::must_wait);
    CHECK(t.items[3].at == place::outside);
    CHECK(t.queue.messages() == 3);
    CHECK(t.queue.next() == &t.items[0]);
    CHECK(t.queue.next() == &t.items[1]);
    CHECK(t.queue.next() == nullptr);
    CHECK(t.items[0].at == place::handed);
    t.end(1);
    CHECK(t.admitted == std::vector<std::size_t>{3});
    CHECK(t.queue.next() == &t.items[2]);
    CHECK(t.queue.next() == nullptr);
    t.end(0);
    CHECK(t.queue.next() == &t.items[3]);
    for (std::size_t i = 2; i < 5; ++i) t.end(i);
    CHECK(t.admitted == std::vector<std::size_t>{3, 4});
    CHECK(t.queue.empty());
    CHECK(t.queue.bytes() == 0);
    CHECK(t.queue.next() == nullptr);
}

TEST_CASE("messages are held up to their bytes, and nobody is overtaken") {
    trial t({.messages = 10, .bytes = 10, .handed_over = 1});
    CHECK(t.offer(4) == answer::taken);
    CHECK(t.offer(6) == answer::taken);
    CHECK(t.queue.bytes() == 10);
    CHECK(t.offer(5) == answer::must_wait);
    CHECK(t.offer(0) == answer::must_wait);
    CHECK(t.offer(0, when_full::refuse) == answer::refused);
    CHECK(t.offer(0, when_full::drop_newest) == answer::refused);
    t.end(0);
    CHECK(t.admitted.empty());
    CHECK(t.offer(1) == answer::must_wait);
    t.end(1);
    CHECK(t.admitted == std::vector<std::size_t>{2, 3, 6});
    CHECK(t.queue.bytes() == 6);
}

TEST_CASE("a message that never has room is refused whatever the policy") {
    trial t({.messages = 10, .bytes = 10, .handed_over = 1});
    t.offer(1);
    for (auto const policy : {when_full::wait, when_full::refuse, when_full::drop_oldest, when_full::drop_newest})
        CHECK(t.offer(11, policy) == answer::refused);
    CHECK(t.dropped.empty());
    CHECK(t.offer(9) == answer::taken);
}

TEST_CASE("the oldest messages go that have not been handed over") {
    trial t({.messages = 3, .bytes = 10, .handed_over = 1});
    for (int i = 0; i < 3; ++i) t.offer(3);
    CHECK(t.queue.next() == &t.items[0]);
    CHECK(t.offer(3, when_full::drop_oldest) == answer::taken);
    CHECK(t.dropped == std::vector<std::size_t>{1});
    CHECK(t.items[1].at == place::nowhere);
    CHECK(t.offer(7, when_full::drop_oldest) == answer::taken);
    CHECK(t.dropped == std::vector<std::size_t>{1, 2, 3});
    CHECK(t.offer(8, when_full::drop_oldest) == answer::refused);
    CHECK(t.queue.messages() == 1);
    CHECK(t.queue.bytes() == 3);
}

TEST_CASE("a producer that waits gives up") {
    trial t({.messages = 1, .bytes = 10, .handed_over = 1});
    t.offer(1);
    t.offer(1);
    t.offer(1);
    CHECK(t.queue.oldest(place::outside) == &t.items[1]);
    t.end(1);
    CHECK(t.queue.messages() == 1);
    t.end(0);
    CHECK(t.admitted == std::vector<std::size_t>{2});
    CHECK(t.queue.oldest(place::outside) == nullptr);
    CHECK(t.queue.oldest(place::waiting) == &t.items[2]);
    t.queue.next();
    CHECK(t.queue.oldest(place::handed) == &t.items[2]);
}

TEST_CASE("what is in a place can be looked through, and end meanwhile") {
    trial t({.messages = 3, .bytes = 10, .handed_over = 1});
    for (int i = 0; i < 4; ++i) t.offer(1);
    t.queue.next();
    std::vector<std::size_t> seen;
    for (auto const where : {place::handed, place::waiting, place::outside})
        t.queue.for_each(where, [&](auto& i) {
            seen.push_back(t.number(i));
            t.queue.end(i);
        });
    CHECK(seen == std::vector<std::size_t>{0, 1, 2, 3});
    CHECK(t.queue.empty());
}

TEST_CASE("the limits have ranges") {
    CHECK_NOTHROW(check(handover_limits{}));
    CHECK_THROWS_WITH_AS(check(handover_limits{.messages = 0}), "messages must be 1 or more", std::out_of_range);
    CHECK_THROWS_WITH_AS(check(handover_limits{.bytes = 0}), "bytes must be 1 or more", std::out_of_range);
    CHECK_THROWS_WITH_AS(check(handover_limits{.messages = 4, .handed_over = 5}), "handed_over must be 1 to messages",
                         std::out_of_range);
    CHECK_THROWS_AS(check(handover_limits{.handed_over = 0}), std::out_of_range);
    CHECK_NOTHROW(check(handover_limits{.messages = 4, .handed_over = 4}));
}

TEST_CASE("the bounds hold in random order") {
    std::mt19937 random(1);
    handover_limits const limits{.messages = 5, .bytes = 20, .handed_over = 3};
    trial t(limits);
    auto const policies = {when_full::wait, when_full::refuse, when_full::drop_oldest};
    for (int step = 0; step < 20'000; ++step) {
        if (random() % 2 == 0) {
            t.offer(random() % 8, *(policies.begin() + random() % 3));
        } else if (random() % 2 == 0) {
            t.queue.next();
        } else if (auto* const i = t.queue.oldest(place::handed)) {
            t.end(t.number(*i));
        }
        std::size_t messages = 0, bytes = 0, handed = 0, outside = 0;
        for (auto const& i : t.items) {
            bool const held = i.at == place::waiting || i.at == place::handed;
            messages += held;
            bytes += held ? i.bytes : 0;
            handed += i.at == place::handed;
            outside += i.at == place::outside;
        }
        REQUIRE(messages <= limits.messages);
        REQUIRE(bytes <= limits.bytes);
        REQUIRE(handed <= limits.handed_over);
        REQUIRE(messages == t.queue.messages());
        REQUIRE(bytes == t.queue.bytes());
        while (!t.items.empty() && t.items.front().at == place::nowhere) t.items.pop_front();
        if (outside > 10) break;
    }
}
