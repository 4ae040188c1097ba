#pragma once

#include <runnel/mqtt/client/traced.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace test {

/// The lines of a trace, as they came.
struct trace_lines {
    std::vector<std::string> texts;
    std::vector<runnel::mqtt::trace_level> levels;
    std::vector<std::uint64_t> connections;

    runnel::mqtt::trace_sink sink() {
        return [this](runnel::mqtt::trace_line const& line) {
            texts.emplace_back(line.text);
            levels.push_back(line.level);
            connections.push_back(line.connection);
        };
    }
    /// How many lines contain `text`.
    std::ptrdiff_t count(std::string_view text) const {
        return std::count_if(texts.begin(), texts.end(),
                             [&](auto const& line) { return line.find(text) != line.npos; });
    }
    std::string all() const {
        std::string out;
        for (auto const& text : texts) out += text + '\n';
        return out;
    }
};

}  // namespace test
