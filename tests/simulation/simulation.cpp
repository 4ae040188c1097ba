// Simulates whole lives of sessions: network, broker, store, clock and application in one thread, all from a seed.
//
//     simulation --seeds 500 [--from 1] [--twice 10]   so many seeds; of so many the run is repeated and compared
//     simulation --seed 17 [--trace]                   one of them, with everything that happens
//     simulation --named seeds.txt ...                 those of a list first: lines of a seed and its name
//     simulation --until-one-fails ...                 only until one fails, naming each before it is run
//
// What is done and what goes wrong is in world.hpp, what must hold in checker.hpp, how time is simulated in clock.hpp.

#include "simulation/clock.hpp"
#include "simulation/world.hpp"
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

namespace {

struct settings {
    std::uint64_t from = 1, seeds = 500, twice = 0;
    bool prints = false, stops = false;
    char const* named = nullptr;
};

bool read(settings& s, int count, char** arguments) {
    for (int i = 1; i < count; ++i) {
        auto const is = [&](char const* name) { return std::strcmp(arguments[i], name) == 0; };
        if (is("--trace")) {
            s.prints = true;
            continue;
        }
        if (is("--until-one-fails")) {
            s.stops = true;
            continue;
        }
        if (i + 1 == count) return false;
        if (is("--named")) {
            s.named = arguments[++i];
            continue;
        }
        auto const value = std::strtoull(arguments[i + 1], nullptr, 10);
        if (is("--seeds"))
            s.seeds = value;
        else if (is("--from"))
            s.from = value;
        else if (is("--twice"))
            s.twice = value;
        else if (is("--seed"))
            s.from = value, s.seeds = 1;
        else
            return false;
        ++i;
    }
    return true;
}

bool is_good(std::uint64_t seed, simulation::outcome const& o) {
    for (auto const& f : o.failures) std::printf("seed %" PRIu64 ": %s\n", seed, f.c_str());
    if (!o.failures.empty()) std::printf("again: simulation --seed %" PRIu64 " --trace\n", seed);
    return o.failures.empty();
}

bool is_repeated(std::uint64_t seed, simulation::outcome const& first) {
    auto const second = simulation::run_seed(seed, false);
    if (second.hash == first.hash) return true;
    std::printf("seed %" PRIu64 ": another run of it is different\n", seed);
    return false;
}

// How many of the list fail.
std::uint64_t run_named(char const* path) {
    std::ifstream list(path);
    if (!list) throw std::runtime_error(std::string("cannot read ") + path);
    std::uint64_t failed = 0;
    for (std::string line; std::getline(list, line);) {
        if (line.empty() || line[0] == '#') continue;
        char* name = nullptr;
        auto const seed = std::strtoull(line.c_str(), &name, 10);
        if (is_good(seed, simulation::run_seed(seed, false))) continue;
        std::printf("that was:%s\n", name);
        ++failed;
    }
    return failed;
}

int run(settings const& s) {
    simulation::check_virtual_clock();
    std::uint64_t failed = s.named != nullptr ? run_named(s.named) : 0;
    std::uint64_t turns = 0, messages = 0, seconds = 0;
    for (std::uint64_t i = 0; i < s.seeds; ++i) {
        auto const seed = s.from + i;
        if (s.stops) std::printf("seed %" PRIu64 "\n", seed), std::fflush(stdout);
        auto const o = simulation::run_seed(seed, s.prints);
        bool const good = is_good(seed, o) && (i >= s.twice || is_repeated(seed, o));
        failed += good ? 0 : 1;
        turns += o.turns;
        messages += o.messages;
        seconds += static_cast<std::uint64_t>(o.time.count());
        if (s.seeds == 1) std::printf("hash %016" PRIx64 "\n", o.hash);
        std::fflush(stdout);
        if (s.stops && !good) break;
    }
    std::printf("%" PRIu64 " seeds, %" PRIu64 " failed; %" PRIu64 " h simulated, %" PRIu64 " messages, %" PRIu64
                " turns\n",
                s.seeds, failed, seconds / 3600, messages, turns);
    return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) try {
    settings s;
    if (read(s, count, arguments)) return run(s);
    std::fprintf(stderr,
                 "usage: simulation [--seeds N] [--named FILE] [--from SEED] [--twice N] [--until-one-fails] | --seed "
                 "N [--trace]\n");
    return 2;
} catch (std::exception const& e) {
    std::fprintf(stderr, "simulation: %s\n", e.what());
    return 1;
}
