#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "support/skip.hpp"
#include <string>
#include <vector>

#ifdef RUNNEL_MUTATION
#include "mutation/reached.hpp"
#endif

int main(int argc, char** argv) {
    std::vector<char const*> arguments(argv, argv + argc);
    std::string const excluded = test::skip_unless::apply(argc, argv);
    if (!excluded.empty()) arguments.push_back(excluded.c_str());
    return doctest::Context(static_cast<int>(arguments.size()), arguments.data()).run();
}
