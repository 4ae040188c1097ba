// Matching and routing against the rules applied level by level. The input is lines: the first is a topic, the others
// are filters.

#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/protocol/router.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;

namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (true) {
        auto const end = text.find(separator);
        parts.push_back(text.substr(0, end));
        if (end == std::string_view::npos) return parts;
        text.remove_prefix(end + 1);
    }
}

bool matches_naively(std::string_view filter, std::string_view topic) {
    auto const f = split(filter, '/');
    auto const t = split(topic, '/');
    if (topic[0] == '$' && (f[0] == "+" || f[0] == "#")) return false;
    for (std::size_t i = 0; i < f.size(); ++i) {
        if (f[i] == "#") return true;
        if (i == t.size()) return false;
        if (f[i] != "+" && f[i] != t[i]) return false;
        if (i + 1 == t.size() && i + 2 == f.size() && f[i + 1] == "#") return true;
    }
    return f.size() == t.size();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    auto const lines = split({reinterpret_cast<char const*>(data), size}, '\n');
    auto const topic = lines[0];
    if (check_topic_name(topic) != errc::ok) return 0;
    router<std::size_t> routes;
    std::vector<std::size_t> expected(lines.size()), found(lines.size());
    for (std::size_t i = 1; i < lines.size(); ++i) {
        if (check_topic_filter(lines[i], protocol_version::v3_1_1) != errc::ok) continue;
        bool const match = matches_naively(lines[i], topic);
        if (matches(lines[i], topic) != match) std::abort();
        if (!routes.insert(lines[i], i)) std::abort();
        expected[i] = match ? 1 : 0;
    }
    routes.match(topic, [&](std::size_t i) { ++found[i]; });
    if (found != expected) std::abort();
    for (std::size_t i = 1; i < lines.size(); ++i)
        if (check_topic_filter(lines[i], protocol_version::v3_1_1) == errc::ok && !routes.erase(lines[i], i))
            std::abort();
    if (routes.level_count() != 0) std::abort();
    return 0;
}
