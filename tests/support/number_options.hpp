#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <string_view>

namespace test {

/// An option "--name NUMBER" of a program, and where its number goes.
struct number_option {
    char const* name;
    std::uint64_t* to;
};

/// Reads a program's options. At any other it says which there are, and ends the program.
inline void read_options(int argc, char** argv, std::initializer_list<number_option> all) {
    auto const find = [&](std::string_view name) -> std::uint64_t* {
        for (auto const& o : all)
            if (o.name == name) return o.to;
        return nullptr;
    };
    for (int i = 1; i < argc; i += 2) {
        auto* const to = find(argv[i]);
        if (to == nullptr || i + 1 == argc) {
            std::fprintf(stderr, "usage: %s", argv[0]);
            for (auto const& o : all) std::fprintf(stderr, " [%s N]", o.name);
            std::fputs("\n", stderr);
            std::exit(2);
        }
        *to = std::strtoull(argv[i + 1], nullptr, 10);
    }
}

}  // namespace test
