#include <runnel/mqtt/protocol/authentication_steps.hpp>

#include <doctest/doctest.h>

#include "support/event_sequences.hpp"
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace {

using runnel::mqtt::authentication_steps;
using stage = authentication_steps::stage;

// One connection after another, on which a caller may come and go, and a server that does what it may do.
struct world {
    // h: a caller comes, and g: goes, as when it is cancelled; b, a, v: what it does about each stage; c, s: the
    // server goes on, or is content; l: the connection is lost.
    static constexpr std::string_view events = "hgbavcsl";

    bool happens(char event) {
        bool const server_is_due = steps.at() == stage::asked;
        switch (event) {
            case 'h':
                if (held) {
                    CHECK_FALSE(steps.hold());
                    return false;
                }
                return held = steps.hold();
            case 'g':
                if (held) steps.let_go();
                return std::exchange(held, false);
            case 'b': return held && steps.at() == stage::idle && (steps.sent(), under_way = true);
            case 'a': return held && steps.at() == stage::challenged && (steps.sent(), unanswered.clear(), true);
            case 'v': return held && steps.at() == stage::accepted && (steps.verified(), unanswered.clear(), end());
            case 'c': return server_is_due && (steps.on_challenge("challenge"), unanswered = "challenge", true);
            case 's': return server_is_due && (steps.on_accepted("proof"), unanswered = "proof", true);
            case 'l': return steps.connection_lost(), unanswered.clear(), end();
            default: return false;
        }
    }
    bool end() { return under_way = false, true; }

    void check() const {
        CHECK(steps.must_close() == under_way);  // what has begun cannot be taken back
        CHECK(steps.data() == unanswered);       // and what the server wants is not forgotten
        CHECK((steps.at() != stage::idle) == under_way);
    }

    authentication_steps steps;
    std::string unanswered;
    bool held = false;
    bool under_way = false;
};

// Whoever comes next brings it to its end, and may then begin anew.
void check(world& w, std::string const& events) {
    CAPTURE(events);
    w.check();
    if (w.held) w.happens('g');
    CHECK(w.happens('h'));
    for (char const e : std::string_view("asvb")) w.happens(e);
    CHECK(w.steps.at() == stage::asked);
    w.check();
}

}  // namespace

TEST_CASE("after all sequences of events an authentication can be brought to its end, and begun anew") {
    CHECK(test::try_sequences<world>("", 10, check) > 10'000);
}
