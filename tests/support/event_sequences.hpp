#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace test {

/// Tries what may happen in a `World`: all sequences of up to `length` events behind those of `begun`. After each, in a
/// world that it has happened in, `check(world, sequence)` is called. Returns how many there were.
///
/// `World::events` has a letter for each kind of event. `happens(event)` is false if the event cannot be now: no
/// sequence goes on from there.
template <class World, class Check>
std::size_t try_sequences(std::string const& begun, std::size_t length, Check const& check) {
    std::size_t tried = 0;
    for (char const event : World::events) {
        auto const sequence = begun + event;
        World world;
        bool possible = true;
        for (char const e : sequence) possible = possible && world.happens(e);
        if (!possible) continue;
        check(world, sequence);
        ++tried;
        if (length > 1) tried += try_sequences<World>(sequence, length - 1, check);
    }
    return tried;
}

/// Calls `try_it(sequence)` for every sequence of `length` events of so many kinds, as numbers from 0.
template <class Try>
void for_each_sequence(int kinds, std::size_t length, Try&& try_it) {
    std::vector<int> sequence(length, 0);
    for (;;) {
        try_it(sequence);
        auto at = sequence.rbegin();
        while (at != sequence.rend() && *at == kinds - 1) *at++ = 0;
        if (at == sequence.rend()) return;
        ++*at;
    }
}

}  // namespace test
