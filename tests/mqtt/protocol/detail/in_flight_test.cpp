#include <runnel/mqtt/protocol/detail/in_flight.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <cstdint>
#include <cstring>
#include <set>

using runnel::mqtt::detail::in_flight;
using enum in_flight::stage;

namespace {

std::uint16_t begin(in_flight& table, std::size_t size = 10) {
    return in_flight::identifier_of(table.begin(size, {.at = queued, .quality = runnel::mqtt::qos::at_least_once}));
}

// What the store is to hold, as far as an entry tells.
constexpr auto due = [](std::uint64_t, in_flight::entry const& e) { return e.due(); };

}  // namespace

TEST_CASE("packet identifiers count up from 1 [MQTT-2.2.1-3] [MQTT-2.3.1-1 of 3.1.1]") {
    in_flight table;
    CHECK(begin(table) == 1);
    CHECK(begin(table) == 2);
    CHECK(begin(table, 0) == 3);
}

TEST_CASE("an exchange is found by its packet identifier until it ends") {
    in_flight table;
    begin(table);
    begin(table);
    begin(table);
    CHECK(table.find(2) == &table[1]);
    table.end(*table.find(2));
    CHECK(table.find(2) == nullptr);
    CHECK(table.find(1) == &table[0]);
    CHECK(table.find(3) == &table[2]);
}

TEST_CASE("identifiers that are not in flight are not found, nor is 0") {
    in_flight table;
    CHECK(table.find(1) == nullptr);
    begin(table);
    for (int id : {0, 2, 3, 65535}) CHECK(table.find(static_cast<std::uint16_t>(id)) == nullptr);
}

TEST_CASE("the place of an exchange is free only when all before it have ended") {
    in_flight table;
    begin(table);
    begin(table);
    begin(table);
    table.end(*table.find(2));
    CHECK(table.first() == 0);
    table.end(*table.find(1));
    CHECK(table.first() == 2);
    table.end(*table.find(3));
    CHECK(table.empty());
}

TEST_CASE("all 65,535 identifiers can be in flight at once, none of them twice [MQTT-2.2.1-4]") {
    in_flight table;
    std::set<std::uint16_t> identifiers;
    while (table.has_identifier()) identifiers.insert(begin(table, 1));
    CHECK(identifiers.size() == 65535);
    CHECK(*identifiers.begin() == 1);
    CHECK(*identifiers.rbegin() == 65535);
    CHECK(table.find(0) == nullptr);
    table.end(*table.find(1));
    CHECK(table.has_identifier());
}

TEST_CASE("after identifier 65,535 comes 1") {
    in_flight table;
    for (int i = 0; i < 65534; ++i) table.end(*table.find(begin(table)));
    CHECK(begin(table) == 65535);
    CHECK(begin(table) == 1);
    CHECK(begin(table) == 2);
    CHECK(table.find(65535) == &table[65534]);
    CHECK(table.find(1) == &table[65535]);
    CHECK(table.find(3) == nullptr);
    CHECK(table.find(65534) == nullptr);
}

TEST_CASE("the bytes of all packets held are counted") {
    in_flight table;
    begin(table, 100);
    begin(table, 50);
    begin(table, 0);
    CHECK(table.bytes() == 150);
    table.drop_packet(table[0]);
    CHECK(table.bytes() == 50);
    table.drop_packet(table[0]);
    CHECK(table.bytes() == 50);
    table.end(table[1]);
    CHECK(table.bytes() == 0);
    CHECK(table.find(1) != nullptr);  // goes on without its packet
}

TEST_CASE("packets stay where they are while others come and go") {
    in_flight table;
    begin(table, 20);
    char* const packet = table[0].packet;
    std::memcpy(packet, "twenty bytes it has.", 20);
    for (int i = 0; i < 1000; ++i) begin(table, 300);
    for (std::uint16_t id = 2; id <= 1001; ++id) table.end(*table.find(id));
    table.release_idle_memory();
    CHECK(table[0].packet == packet);
    CHECK(table[0].bytes() == "twenty bytes it has.");
}

// Laggards.

TEST_CASE("one exchange that does not end keeps no identifier but its own from being used") {
    in_flight table;
    begin(table);
    char* const packet = table[0].packet;
    for (int i = 0; i < 150'000; ++i) {
        table.make_identifier();
        REQUIRE(table.has_identifier());
        auto const number = table.next();
        auto const identifier = begin(table);
        bool const first_is_there =
            identifier != 1 && table.size() == 2 && table.find(1) == table.at(0) && table.find(1)->packet == packet;
        REQUIRE(first_is_there);
        REQUIRE(table.find(identifier) == &table[number]);
        table.end(*table.find(identifier));
    }
    CHECK(table.first() == 0);
    table.end(*table.find(1));
    CHECK(table.empty());
    CHECK(table.size() == 0);
    CHECK(table.bytes() == 0);
}

TEST_CASE("any number of exchanges may lag behind, in any pattern, and all others go on in order") {
    struct pattern {
        std::uint64_t every, from, to;  // which exchanges do not end
    };
    for (auto const [every, from, to] : {pattern{1000, 0, 100'000}, {3, 0, 3000}, {1, 5000, 8000}}) {
        in_flight table;
        std::set<std::uint64_t> left;
        std::set<std::uint16_t> used;
        for (int i = 0; i < 100'000; ++i) {
            table.make_identifier();
            REQUIRE(table.has_identifier());
            auto const number = table.next();
            auto const identifier = begin(table, 1);
            REQUIRE(used.insert(identifier).second);
            if (number % every == 0 && number >= from && number < to) {
                left.insert(number);
                continue;
            }
            REQUIRE(table.find(identifier) == &table[number]);
            table.end(*table.find(identifier));
            used.erase(identifier);
        }
        CHECK(table.size() == left.size());
        CHECK(table.bytes() == left.size());
        std::set<std::uint64_t> found;
        for (auto n = table.first(); n != table.next(); n = table.from(n + 1))
            if (table[n].at != ended) found.insert(n);
        CHECK(found == left);
        for (auto const n : left) {
            auto* const e = table.find(in_flight::identifier_of(n));
            REQUIRE(e != nullptr);
            REQUIRE(e == table.at(n));
            table.end(*e);
            REQUIRE(table.at(n) == nullptr);
        }
        CHECK(table.size() == 0);
        CHECK(table.bytes() == 0);
        table.make_identifier();
        begin(table, 1);
        CHECK(table.size() == 1);
    }
}

TEST_CASE("where half of all identifiers are in use for good, the others are used") {
    in_flight table;
    for (int i = 0; i < 32'766; ++i) begin(table, 1);
    for (int i = 0; i < 100'000; ++i) {
        table.make_identifier();
        REQUIRE(table.has_identifier());
        auto const identifier = begin(table, 1);
        REQUIRE(identifier > 32'766);
        table.end(*table.find(identifier));
    }
    CHECK(table.size() == 32'766);
}

TEST_CASE("exchanges that begin in order and end in reverse order find their places") {
    in_flight table;
    for (int round = 0; round < 5; ++round) {
        auto const from = table.next();
        for (int i = 0; i < 6000; ++i) {
            table.make_identifier();
            begin(table, 1);
        }
        auto const end = table.next();
        for (auto n = end; n-- > from;)
            if (auto* const e = table.at(n); e != nullptr && e->at != ended) table.end(*e);
        REQUIRE(table.size() == 0);
        REQUIRE(table.empty());
    }
}

TEST_CASE("an exchange for which there is no memory is not begun, whichever allocation fails") {
    for (std::size_t nth = 1; nth < 4; ++nth) {
        CAPTURE(nth);
        in_flight table;
        for (int i = 0; i < 8; ++i) begin(table);
        std::uint16_t identifier = 0;
        try {
            runnel::testing::failing_allocation const failing(nth);
            identifier = begin(table, 5000);
        } catch (std::bad_alloc const&) {
        }
        CHECK(table.size() == (identifier != 0 ? 9 : 8));
        CHECK(table.bytes() == (identifier != 0 ? 5080 : 80));
        CHECK(begin(table) == (identifier != 0 ? 10 : 9));
    }
}

TEST_CASE("what a store knows is not looked at again, and what has changed is, until it is stored") {
    runnel::mqtt::detail::in_flight table;
    for (int i = 0; i < 10; ++i) begin(table);
    auto const changes = [&] {
        std::set<std::uint64_t> numbers;
        table.for_each_change([&](std::uint64_t number, in_flight::entry&) { numbers.insert(number); });
        return numbers;
    };
    CHECK(changes().size() == 10);
    table.stored(due);
    CHECK(changes().empty());
    CHECK_FALSE(table.noted());
    table.note(table[2]);
    CHECK(changes() == std::set<std::uint64_t>{2});
    table.stored(due);
    table.note(table[7]);
    CHECK(changes() == std::set<std::uint64_t>{7});
}

TEST_CASE("an exchange that has ended keeps its identifier until the store knows") {
    runnel::mqtt::detail::in_flight table;
    begin(table);
    table.stored(due);
    table.end(*table.find(1));
    CHECK(table.find(1) == nullptr);
    CHECK(table.size() == 1);
    CHECK_FALSE(table.empty());
    table.stored(due);
    CHECK(table.size() == 0);
    CHECK(table.empty());
}

TEST_CASE(
    "exchanges of an earlier process that lag behind keep their identifiers, until the store knows of their end") {
    runnel::mqtt::detail::in_flight table;
    for (int i = 0; i < 2; ++i)
        table.begin(10,
                    {.at = resend, .quality = runnel::mqtt::qos::at_least_once, .stored = in_flight::record::message});
    table.continue_at(65'535);
    REQUIRE(table.find(1) != nullptr);
    table.end(*table.find(1));
    CHECK(table.find(1) == nullptr);
    CHECK(table.find(2) != nullptr);
    table.make_identifier();
    CHECK(in_flight::identifier_of(table.next()) == 3);
    table.stored(due);
    CHECK(table.first() == 1);
    table.continue_at(2 * 65'535);
    table.make_identifier();
    CHECK(in_flight::identifier_of(table.next()) == 1);
}
