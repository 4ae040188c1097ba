#include <runnel/mqtt/in_flight.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <set>

using runnel::mqtt::in_flight;
using enum in_flight::stage;

namespace {

std::uint16_t begin(in_flight& table, std::size_t size = 10) {
    return in_flight::identifier_of(table.begin(size, {.at = queued, .quality = runnel::mqtt::qos::at_least_once}));
}

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
