#pragma once

#include <cstdio>
#include <string>
#include <string_view>

/// What benchmark programs print: one JSON object a line, which report.py collects.
namespace report {

/// One figure of `who` (a library) in a case of a group. Smaller is better, unless the unit ends in "/s".
inline void figure(std::string_view group, std::string_view name, std::string_view who, std::string_view unit,
                   double value) {
    auto const text = [](std::string_view s) { return std::string(s); };
    std::printf("{\"group\": \"%s\", \"case\": \"%s\", \"who\": \"%s\", \"unit\": \"%s\", \"value\": %.6g}\n",
                text(group).c_str(), text(name).c_str(), text(who).c_str(), text(unit).c_str(), value);
    std::fflush(stdout);
}

}  // namespace report
