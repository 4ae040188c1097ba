#include <runnel/mqtt/protocol/unrouted.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace runnel::mqtt;
using namespace std::chrono_literals;
using clock = unrouted::clock;

constexpr clock::time_point start{100s};

// Keeps a message whose topic is its payload; returns the identifier of the one that had to go.
int keep(unrouted& u, std::uint16_t id, clock::time_point now = start, std::string_view topic = "t") {
    auto const gone = u.keep({.topic = topic, .payload = topic, .qos = qos::at_least_once, .packet_id = id},
                             {id, id, qos::at_least_once}, now);
    return gone ? gone->packet_id : 0;
}
std::vector<int> expired(unrouted& u, clock::time_point now) {
    std::vector<int> all;
    u.expire(now, [&](publish const&, delivery d) { all.push_back(d.packet_id); });
    return all;
}

}  // namespace

TEST_CASE("kept messages expire one after another, each after its time") {
    unrouted u(10s, 100);
    CHECK(u.next_deadline() == never);
    keep(u, 1);
    keep(u, 2, start + 1s);
    CHECK(u.next_deadline() == start + 10s);
    CHECK(expired(u, start + 9s).empty());
    CHECK(expired(u, start + 10s) == std::vector{1});
    CHECK(u.next_deadline() == start + 11s);
    CHECK(expired(u, start + 1h) == std::vector{2});
    CHECK(u.next_deadline() == never);
}

TEST_CASE("kept messages are offered in order of arrival, and those not taken are kept on") {
    unrouted u(10s, 100);
    keep(u, 1, start, "a");
    keep(u, 2, start + 1s, "b");
    keep(u, 3, start + 2s, "a");
    std::string offered;
    u.offer([&](publish const& p, delivery d) {
        offered += std::string(p.payload) + std::to_string(d.packet_id) + ' ';
        if (d.packet_id == 1) keep(u, 4, start + 3s, "c");  // the user's code is called meanwhile
        return p.topic == "a";
    });
    CHECK(offered == "a1 b2 a3 ");
    CHECK(u.size() == 2);
    CHECK(expired(u, start + 1h) == std::vector{2, 4});
}

TEST_CASE("beyond the maximum the oldest goes") {
    unrouted u(10s, 2);
    CHECK(keep(u, 1) == 0);
    CHECK(keep(u, 2) == 0);
    CHECK(keep(u, 3) == 1);
    CHECK(u.size() == 2);
}

TEST_CASE("after one has waited in vain only a few are kept, until there is a new subscription") {
    unrouted u(10s, 100);
    keep(u, 1);
    expired(u, start + 10s);
    for (std::uint16_t id = 2; id < 6; ++id) CHECK(keep(u, id, start + 11s) == 0);
    CHECK(keep(u, 6, start + 11s) == 2);
    CHECK(u.size() == 4);
    u.offer([](publish const&, delivery) { return false; });
    CHECK(keep(u, 7, start + 11s) == 0);
    CHECK(u.size() == 5);
}

TEST_CASE("a time out at the clock's end does not overflow") {
    unrouted u(24h, 1);
    keep(u, 1, never - 1h);
    CHECK(u.next_deadline() == never);
}

TEST_CASE("as many messages as there are packet identifiers may be kept, given way, and given up") {
    unrouted u(10s, 65535);
    for (unsigned i = 1; i <= 65535; ++i) CHECK(keep(u, static_cast<std::uint16_t>(i)) == 0);
    for (unsigned i = 1; i <= 10'000; ++i) CHECK(keep(u, 1) == static_cast<int>(i));
    CHECK(expired(u, start + 10s).size() == 65535);
    CHECK(u.empty());
}
