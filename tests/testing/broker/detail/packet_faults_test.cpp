#include <runnel/testing/broker/detail/packet_faults.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace runnel;
using namespace std::chrono_literals;
using mqtt::packet_type;
using mqtt::role;
using testing::behind_delayed;
using testing::cut_point;
using testing::packet_selection;
using testing::detail::packet_faults;
using testing::detail::packet_gate;
using fault = packet_faults::fault;

constexpr fault lose{.what = fault::kind::lose};
fault delay(std::chrono::seconds by, behind_delayed others = behind_delayed::wait) {
    return {.what = fault::kind::delay, .delay = by, .others = others};
}
fault cut(cut_point where) { return {.what = fault::kind::cut, .where = where}; }

// A gate for what the broker sends, and what has passed it: packets are named by their type's first letters.
struct fixture {
    void take(packet_type type, std::string_view bytes, std::string_view client = "c") {
        gate.take(bytes, type, client, now, [&](std::string_view p) { passed.emplace_back(p); });
    }
    void release(std::chrono::seconds at) {
        now = packet_gate::time_point{} + at;
        gate.release(now, [&](std::string_view p) { passed.emplace_back(p); });
    }
    std::optional<std::chrono::seconds> next() const {
        auto const due = gate.next_release();
        if (!due) return {};
        return std::chrono::floor<std::chrono::seconds>(due->time_since_epoch());
    }

    testing::broker_counters counters;
    packet_faults faults{counters};
    packet_gate gate{faults, role::server};
    packet_gate::time_point now{};
    std::vector<std::string> passed;
};

using packets = std::vector<std::string>;

}  // namespace

TEST_CASE("a packet is lost by its kind, its direction, its client and its number") {
    fixture f;
    f.faults.add({.sender = role::server, .type = packet_type::puback, .skip = 1, .count = 2, .client = "c"}, lose);
    f.faults.add({.sender = role::client, .type = packet_type::puback}, lose);
    CHECK_FALSE(f.gate.is_open());
    f.take(packet_type::puback, "other", "d");
    f.take(packet_type::publish, "publish");
    f.take(packet_type::puback, "1");
    f.take(packet_type::puback, "2");
    f.take(packet_type::puback, "3");
    f.take(packet_type::puback, "4");
    CHECK(f.passed == packets{"other", "publish", "1", "4"});
    CHECK(f.counters.packets_lost == 2);
    CHECK(f.faults.size() == 1);  // that of the client's
}

TEST_CASE("packets of any kind, for ever, until the faults are forgotten") {
    fixture f;
    f.faults.add({.sender = role::server, .count = 0}, lose);
    for (int i = 0; i < 100; ++i) f.take(packet_type::publish, "p");
    CHECK(f.passed.empty());
    CHECK(f.faults.size() == 1);
    f.faults.clear();
    CHECK(f.gate.is_open());
    f.take(packet_type::publish, "p");
    CHECK(f.passed.size() == 1);
}

TEST_CASE("of several faults the first happens, and the next ones do not count its packet") {
    fixture f;
    f.faults.add({.sender = role::server, .type = packet_type::publish}, lose);
    f.faults.add({.sender = role::server, .type = packet_type::publish, .skip = 1}, cut(cut_point::before));
    f.take(packet_type::publish, "lost");
    f.take(packet_type::publish, "skipped");
    CHECK_FALSE(f.gate.is_cut());
    f.take(packet_type::publish, "cut");
    CHECK(f.gate.is_cut());
    CHECK(f.passed == packets{"skipped"});
}

TEST_CASE("what is behind a delayed packet waits with it") {
    fixture f;
    f.faults.add({role::server, packet_type::suback}, delay(3s));
    f.take(packet_type::publish, "a");
    f.take(packet_type::suback, "late");
    f.take(packet_type::publish, "b");
    CHECK(f.passed == packets{"a"});
    CHECK(f.gate.held_bytes() == 5);
    CHECK(f.next() == 3s);
    f.release(2s);
    CHECK(f.passed.size() == 1);
    f.release(3s);
    CHECK(f.passed == packets{"a", "late", "b"});
    CHECK(f.gate.is_open());
    CHECK(f.gate.held_bytes() == 0);
    CHECK(f.counters.packets_delayed == 2);
}

TEST_CASE("a delayed packet is overtaken, if that was asked for") {
    fixture f;
    f.faults.add({role::server, packet_type::suback}, delay(3s, behind_delayed::pass));
    f.faults.add({role::server, packet_type::puback}, delay(1s, behind_delayed::pass));
    f.take(packet_type::suback, "late");
    f.take(packet_type::puback, "later");
    f.take(packet_type::publish, "b");
    CHECK(f.next() == 1s);
    f.release(5s);
    CHECK(f.passed == packets{"b", "later", "late"});
}

TEST_CASE("a shorter delay does not overtake a longer one that holds others up") {
    fixture f;
    f.faults.add({role::server, packet_type::suback}, delay(3s));
    f.faults.add({role::server, packet_type::puback}, delay(1s));
    f.faults.add({role::server, packet_type::pingresp}, delay(4s));
    f.take(packet_type::suback, "suback");
    f.take(packet_type::puback, "puback");
    f.take(packet_type::pingresp, "ping");
    f.take(packet_type::publish, "publish");
    f.release(3s);
    CHECK(f.passed == packets{"suback", "puback"});
    CHECK(f.next() == 4s);
    f.release(4s);
    CHECK(f.passed.size() == 4);
}

TEST_CASE("nothing passes behind a cut, and what is held arrives before it") {
    for (auto const where : {cut_point::before, cut_point::behind}) {
        fixture f;
        f.faults.add({role::server, packet_type::suback}, delay(3s));
        f.faults.add({role::server, packet_type::publish}, cut(where));
        f.take(packet_type::suback, "suback");
        f.take(packet_type::publish, "publish");
        f.take(packet_type::publish, "behind");
        CHECK_FALSE(f.gate.is_cut());
        f.release(3s);
        CHECK(f.gate.is_cut());
        CHECK(f.passed == (where == cut_point::before ? packets{"suback"} : packets{"suback", "publish"}));
        CHECK_FALSE(f.gate.holds());
        CHECK(f.gate.held_bytes() == 0);
        CHECK(f.counters.connections_cut == 1);
        f.take(packet_type::publish, "never");
        CHECK(f.passed.size() <= 2);
    }
}

TEST_CASE("a delay that never ends holds for ever") {
    fixture f;
    f.faults.add({role::server, packet_type::suback},
                 {.what = fault::kind::delay, .delay = (std::chrono::steady_clock::duration::max)()});
    f.now = packet_gate::time_point{} + 5s;
    f.take(packet_type::suback, "late");
    f.release(24h * 365 * 10);
    CHECK(f.passed.empty());
    CHECK(f.gate.next_release() == (packet_gate::time_point::max)());
}

TEST_CASE("what cannot come is refused") {
    fixture f;
    CHECK_THROWS_AS(f.faults.add({role::server, packet_type::subscribe}, lose), std::invalid_argument);
    CHECK_THROWS_AS(f.faults.add({role::client, packet_type::suback}, lose), std::invalid_argument);
    CHECK_THROWS_AS(f.faults.add({.sender = role::client, .type = packet_type::connect, .client = "c"}, lose),
                    std::invalid_argument);
    f.faults.add({role::client, packet_type::connect}, lose);
    CHECK(f.faults.size() == 1);
}
