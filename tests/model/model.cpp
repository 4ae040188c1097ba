// Searches all that can happen between a client's `session_state` and a server, up to stated bounds: QoS 1 and 2 in
// both directions, with a connection that is cut at any packet, a client whose process ends at any step, with a store
// or without, and a server that loses the session. What must hold is in world.hpp.
//
//     model            the searches of CI
//     model --more N   those with N more cuts, crashes and losses: a night
//
// States are told apart by a hash of all that matters for what follows (64 bits: of ten million states the chance that
// any two are taken for one is 3 in a million). Each is reached by repeating the steps to it, as sessions cannot be
// copied; and from each one the rest is run without faults, to see that all comes to an end.

#include "model/world.hpp"
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace {

using model::action;
using model::bounds;
using runnel::mqtt::protocol_version;

struct counts {
    std::uint64_t states = 0, steps = 0;
    std::size_t longest = 0;
};

void print_path(bounds const& b, std::vector<action> const& path, std::string const& text) {
    std::printf("WRONG: %s\n  MQTT %s, %u up (%#x), %u down (%#x), store %d, defers %d, holds %d, window %u\n",
                text.c_str(), b.version == protocol_version::v5 ? "5" : "3.1.1", b.up, b.up_quality, b.down,
                b.down_quality, b.stores, b.defers, b.holds, b.window);
    for (auto const& a : path) std::printf("  %s\n", to_string(a).c_str());
}

// False: something that must not happen can.
bool search(bounds const& b, counts& all) {
    std::unordered_set<std::uint64_t> seen;
    std::vector<std::vector<action>> open{{}};
    while (!open.empty()) {
        auto path = std::move(open.back());
        open.pop_back();
        std::vector<action> choices;
        {
            model::world w(b);
            for (auto const& a : path) w.apply(a);
            choices = w.enabled();
        }
        path.push_back({});
        for (auto const& a : choices) {
            path.back() = a;
            try {
                model::world w(b);
                for (auto const& step : path) w.apply(step);
                all.steps += path.size();
                if (!seen.insert(w.fingerprint()).second) continue;
                ++all.states;
                all.longest = std::max(all.longest, path.size());
                w.finish();
            } catch (model::violation const& v) {
                print_path(b, path, v.text);
                return false;
            }
            open.push_back(path);
        }
    }
    return true;
}

// The searches with these bounds, for both versions and each mixture of QoS.
bool search_all(char const* name, bounds b, unsigned more) {
    b.cuts += more;
    if (b.crashes != 0) b.crashes += more;
    if (b.losses != 0) b.losses += more;
    counts all;
    bool good = true;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5})
        for (unsigned up = 0; up < 1u << b.up; ++up)
            for (unsigned down = 0; down < 1u << b.down; ++down) {
                b.version = version;
                b.up_quality = up;
                b.down_quality = down;
                good = search(b, all) && good;
            }
    std::printf("%-28s %9" PRIu64 " states, %10" PRIu64 " steps, at most %zu in a row%s\n", name, all.states, all.steps,
                all.longest, good ? "" : ": WRONG");
    std::fflush(stdout);
    return good;
}

}  // namespace

int main(int count, char** arguments) {
    unsigned more = 0;
    if (count == 3 && std::string_view(arguments[1]) == "--more")
        more = static_cast<unsigned>(std::atoi(arguments[2]));
    else if (count != 1)
        return std::fprintf(stderr, "usage: model [--more N]\n"), 2;
    bool good = true;
    auto const run = [&](char const* name, bounds const& b) { good = search_all(name, b, more) && good; };
    run("cuts, to the server", {.up = 2, .cuts = 3, .defers = true});
    run("cuts, to the client", {.down = 2, .cuts = 3, .holds = true});
    run("cuts, both ways", {.up = 1, .down = 1, .cuts = 2, .defers = true, .holds = true});
    run("window of one", {.up = 3, .cuts = 1, .window = 1});
    run("session lost, to the server", {.up = 2, .cuts = 1, .losses = 1, .defers = true});
    run("session lost, to the client", {.down = 2, .cuts = 1, .losses = 1, .holds = true});
    run("crash, no store, up", {.up = 2, .cuts = 2, .crashes = 1, .defers = true});
    run("crash, no store, down", {.down = 2, .cuts = 1, .crashes = 1, .holds = true});
    run("crash, store, up", {.up = 2, .cuts = 1, .crashes = 2, .stores = true});
    run("crash, store, down", {.down = 2, .cuts = 1, .crashes = 1, .stores = true, .holds = true});
    run("all of it", {.up = 1, .down = 1, .cuts = 1, .crashes = 1, .losses = 1, .stores = true});
    return good ? 0 : 1;
}
