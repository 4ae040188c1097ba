#include <runnel/mqtt/protocol/requests.hpp>

#include <doctest/doctest.h>

#include "support/event_sequences.hpp"
#include "support/sample.hpp"
#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

namespace {

using runnel::mqtt::requests;
using stage = requests::stage;
using step = requests::step;

std::error_code const reason = std::make_error_code(std::errc::permission_denied);

// Up to three requests, as coroutines would drive them. One that has been told goes on in a later turn.
struct world {
    // 0, 1, 2: a request begins, or goes on if it can; x, y, z: it ends by itself, as after a cancellation; o: the
    // subscription is granted, and f: not; r, s, t: a response comes; l: the server does not renew the subscription;
    // e: `run` ends.
    static constexpr std::string_view events = "012xyzofrstle";

    struct coroutine : requests::entry {
        bool suspended = false;  // until it is told
        int told = 0;
    };

    bool happens(char event) {
        auto const tell = [](requests::entry& e) {
            auto& c = static_cast<coroutine&>(e);
            CHECK(c.suspended);
            c.suspended = false;
            ++c.told;
        };
        if (event >= '0' && event <= '2') return goes_on(static_cast<std::size_t>(event - '0'));
        if (event >= 'x' && event <= 'z') return ends(static_cast<std::size_t>(event - 'x'));
        if (event >= 'r' && event <= 't') {
            auto& c = all[static_cast<std::size_t>(event - 'r')];
            if (!c) return false;
            bool const due = c->at == stage::asked;
            auto* const found = machine.on_response(c->correlation);
            CHECK((found == c.get()) == due);
            if (due) tell(*c);
            return due;
        }
        auto const opener = std::ranges::find_if(all, [](auto const& c) { return c && c->at == stage::opening; });
        switch (event) {
            case 'o':
            case 'f':
                if (opener == all.end()) return false;
                (*opener)->suspended = false;
                event == 'o' ? machine.opened(**opener, tell) : machine.not_opened(**opener, tell);
                CHECK(machine.is_open() == (event == 'o'));
                return true;
            case 'l':
                if (!machine.is_open()) return false;
                machine.refused(reason, tell);
                for (auto const& c : all)
                    if (c) CHECK(c->at != stage::asked);
                return true;
            case 'e':
                machine.end(reason, tell);
                for (auto const& c : all)
                    if (c) CHECK((c->at == stage::answered || c->error));
                return true;
            default: return false;
        }
    }

    bool goes_on(std::size_t i) {
        auto& c = all[i];
        if (!c) {
            c = std::make_unique<coroutine>();
            c->correlation = std::to_string(i);
            CHECK(machine.add(*c));
        }
        if (c->suspended) return false;
        if (c->at == stage::answered || c->at == stage::failed) return ends(i);
        if (c->at != stage::ready) return false;
        auto const next = machine.next(*c);
        CHECK((next == step::send) == machine.is_open());
        c->suspended = true;
        return true;
    }
    bool ends(std::size_t i) {
        if (!all[i]) return false;
        bool const asked = all[i]->at == stage::asked;
        bool const withdraws = machine.remove(*all[i], [](requests::entry& e) {
            auto& c = static_cast<coroutine&>(e);
            CHECK(c.suspended);
            c.suspended = false;
        });
        CHECK((withdraws || !asked));
        all[i].reset();
        return true;
    }

    void check() const {
        auto const is = [](stage at) { return [at](auto const& c) { return c && c->at == at; }; };
        CHECK(std::ranges::count_if(all, is(stage::opening)) <= 1);
        // Nobody waits for somebody to subscribe when nobody does.
        if (std::ranges::any_of(all, is(stage::waiting))) CHECK(std::ranges::any_of(all, is(stage::opening)));
        if (machine.is_open()) CHECK(std::ranges::none_of(all, is(stage::opening)));
        for (auto const& c : all) {
            if (!c) continue;
            bool const waits = c->at == stage::opening || c->at == stage::waiting || c->at == stage::asked;
            CHECK(c->suspended == waits);
            CHECK((c->at == stage::failed) <= static_cast<bool>(c->error));
        }
    }

    requests machine;
    std::array<std::unique_ptr<coroutine>, 3> all;
};

// When the server grants and answers from now on, all get their response, or have been told why not.
void check(world& w, std::string const& events) {
    CAPTURE(events);
    w.check();
    for (int i = 0; i < 3; ++i)
        for (char const e : std::string_view("o012rst012")) w.happens(e);
    for (auto const& c : w.all)
        if (c) CHECK_FALSE((c->suspended && c->at != stage::asked));
    w.check();
}

// One request has been asked, and another waits for its turn.
struct asked_and_waiting {
    asked_and_waiting() {
        asked.correlation = "a";
        waiting.correlation = "b";
        machine.add(asked);
        machine.add(waiting);
        CHECK(machine.next(asked) == step::open);
        machine.opened(asked, nobody);
        CHECK(machine.next(asked) == step::send);
    }
    static void nobody(requests::entry&) {}
    requests machine;
    requests::entry asked, waiting;
};

}  // namespace

TEST_CASE("after all sequences of events each request is told once, and nobody waits for nobody") {
    auto const tried = test::try_sequences<world>("", test::up_to(6), check) +
                       test::try_sequences<world>("01o01", test::up_to(4), check);
    CHECK(tried > 10'000 / test::every(10));
}

TEST_CASE("a response is for one request, and a second one is for nobody") {
    requests m;
    requests::entry a, b;
    a.correlation = "a";
    b.correlation = "b";
    auto const nobody = [](requests::entry&) { FAIL("nobody waits"); };
    CHECK(m.add(a));
    CHECK_FALSE(m.add(a));
    CHECK(m.add(b));
    CHECK(m.next(a) == step::open);
    m.opened(a, nobody);
    CHECK(m.next(a) == step::send);
    CHECK(m.on_response("b") == nullptr);  // it has not been asked yet
    CHECK(m.on_response("a") == &a);
    CHECK(m.on_response("a") == nullptr);
    CHECK_FALSE(m.remove(a, nobody));
    CHECK(m.next(b) == step::send);
    CHECK(m.remove(b, nobody));
    CHECK(m.on_response("b") == nullptr);
}

TEST_CASE("the message of a request that failed after it was asked is withdrawn, and of one that never was not") {
    asked_and_waiting r;
    r.machine.end(std::make_error_code(std::errc::io_error), r.nobody);
    CHECK(r.asked.at == requests::stage::failed);
    CHECK(r.machine.remove(r.asked, r.nobody));
    requests::entry c;
    c.correlation = "c";
    r.machine.add(c);
    CHECK_FALSE(r.machine.remove(c, r.nobody));
}

TEST_CASE("after the server has refused to renew the subscription the next request subscribes anew") {
    asked_and_waiting r;
    r.machine.refused(std::make_error_code(std::errc::permission_denied), r.nobody);
    CHECK(r.asked.at == requests::stage::failed);
    CHECK(r.machine.next(r.waiting) == step::open);
}
