#pragma once

#include <string_view>
#include <vector>

namespace test {

/// All enumerators of an enumeration of errors, those from 0 that `describe` knows, `ok` being the first.
template <class Errc>
std::vector<Errc> enumerators() {
    std::string_view const unknown = describe(static_cast<Errc>(10'000));
    std::vector<Errc> all;
    for (int i = 0; describe(static_cast<Errc>(i)) != unknown; ++i) all.push_back(static_cast<Errc>(i));
    return all;
}

}  // namespace test
