#include <runnel/mqtt/protocol/version_choice.hpp>

#include <doctest/doctest.h>

#include "support/event_sequences.hpp"
#include "support/sample.hpp"
#include <cstddef>
#include <vector>

namespace {

using runnel::mqtt::protocol_version;
using runnel::mqtt::version_choice;
using state = version_choice::state;
using enum version_choice::state;

enum event { answered, refused, unanswered, failed, forget, events };

bool apply(version_choice& c, int what) {
    switch (what) {
        case answered: c.answered(); return false;
        case refused: return c.refused();
        case unanswered: return c.unanswered();
        case failed: return c.failed();
        default: c.forget(); return false;
    }
}

// A machine in this state.
version_choice at(state s) {
    auto const after = [](std::initializer_list<int> these) {
        version_choice c(protocol_version::automatic);
        for (int const e : these) apply(c, e);
        return c;
    };
    switch (s) {
        case fixed3: return version_choice(protocol_version::v3_1_1);
        case fixed5: return version_choice(protocol_version::v5);
        case open: return after({});
        case takes5: return after({answered});
        case last5: return after({unanswered, refused});
        case guess3: return after({unanswered});
        case last3: return after({refused});
        case takes3: return after({refused, answered});
    }
    return after({});
}

}  // namespace

TEST_CASE("a version that is asked for is the one that is spoken, whatever happens") {
    for (auto const asked : {protocol_version::v3_1_1, protocol_version::v5}) {
        test::for_each_sequence(events, 3, [&](std::vector<int> const& sequence) {
            version_choice c(asked);
            for (int const e : sequence) {
                CHECK_FALSE(apply(c, e));
                CHECK(c.version() == asked);
                CHECK_FALSE(c.is_guess());
            }
        });
    }
}

TEST_CASE("each state speaks its version, and each event leads where the header's table says") {
    constexpr state all[] = {open, takes5, last5, guess3, last3, takes3};
    constexpr bool speaks5[] = {true, true, true, false, false, false};
    constexpr state to[events][6] = {
        {takes5, takes5, takes5, takes3, takes3, takes3},
        {last3, last3, open, last5, open, last5},
        {guess3, takes5, last5, open, last3, open},
        {open, takes5, last5, open, last3, takes3},
        {open, open, open, open, open, open},
    };
    constexpr bool at_once[events][6] = {
        {}, {true, true, false, true, false, true}, {true, false, false, false, false, false}, {}, {},
    };
    for (std::size_t i = 0; i < 6; ++i) {
        CAPTURE(i);
        REQUIRE(at(all[i]).current() == all[i]);
        CHECK(at(all[i]).version() == (speaks5[i] ? protocol_version::v5 : protocol_version::v3_1_1));
        CHECK(at(all[i]).is_guess() == (all[i] == guess3));
        for (std::size_t e = 0; e < events; ++e) {
            CAPTURE(e);
            auto c = at(all[i]);
            CHECK(apply(c, static_cast<int>(e)) == at_once[e][i]);
            CHECK(c.current() == to[e][i]);
        }
    }
}

TEST_CASE("the version changes at once only to the other one, and no more than twice in a row") {
    test::for_each_sequence(events, test::up_to(7), [&](std::vector<int> const& sequence) {
        version_choice c(protocol_version::automatic);
        int row = 0;
        bool answered_in_5 = false;
        for (int const e : sequence) {
            auto const before = c.version();
            bool const again = apply(c, e);
            if (again) REQUIRE(c.version() != before);
            row = again ? row + 1 : 0;
            REQUIRE(row <= 2);
            // Silence says nothing of a server that has answered in MQTT 5.
            if (e == unanswered && answered_in_5) REQUIRE(c.version() == protocol_version::v5);
            if (e == answered) {
                REQUIRE(c.version() == before);
                answered_in_5 = before == protocol_version::v5;
            }
            if (e == refused || e == forget) answered_in_5 = false;
            if (e == forget) REQUIRE(c.current() == open);
        }
    });
}

TEST_CASE("servers that refuse in turn, each another, are tried at once twice, and then wait") {
    version_choice c(protocol_version::automatic);
    for (std::size_t server = 0; server < 9; ++server) {
        CAPTURE(server);
        c.meet(server);
        CHECK(c.refused() == (server % 3 != 2));
    }
    c.meet(99);
    CHECK(c.refused());
    c.meet(100);
    CHECK(c.refused());
    c.forget();  // another run begins to count
    CHECK(c.refused());
    CHECK_FALSE(c.refused());
    c.meet(101);
    c.answered();
    CHECK(c.refused());
}

TEST_CASE("what is known of a server is not held against another one") {
    for (bool const refuses : {false, true}) {
        version_choice c(protocol_version::automatic);
        c.meet(1);
        if (refuses) c.refused();
        c.answered();
        c.meet(1);
        CHECK(c.current() == (refuses ? takes3 : takes5));
        c.meet(2);
        CHECK(c.current() == open);
    }
    version_choice fixed(protocol_version::v3_1_1);
    fixed.meet(1);
    CHECK(fixed.version() == protocol_version::v3_1_1);
}
