// Feeds bytes to the tracer of packets and to the counters, whole and in pieces. Both ways the lines and the counts
// must be the same, and no line has controls, is longer than its limit, or is not UTF-8.

#include <runnel/mqtt/protocol/packet_trace.hpp>
#include <runnel/mqtt/protocol/traffic_counters.hpp>

#include "fuzz.hpp"
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    test::input_reader input(data, size);
    auto const choices = input.byte();
    packet_trace_options const options{.level = static_cast<trace_level>(choices % 5),
                                       .payload = choices & 0x40 ? 30u : 0u,
                                       .line = choices & 0x80 ? 50u : 1000u};
    auto const sent = input.bytes(input.byte());  // with CONNECT, perhaps, so that the version is known
    std::size_t const piece = input.byte() % 16u + 1u;
    auto const received = input.rest();

    auto const run = [&](std::size_t at_once) {
        std::vector<std::string> lines;
        traffic_counters counters;
        packet_tracer tracer(options);
        traffic_scanner scanner(counters);
        auto const feed = [&](trace_direction way, std::string_view bytes) {
            for (; !bytes.empty(); bytes.remove_prefix((std::min)(at_once, bytes.size()))) {
                auto const part = bytes.substr(0, at_once);
                way == trace_direction::sent ? scanner.sent(part) : scanner.received(part);
                tracer.feed(way, part, [&](trace_level level, std::string_view line) {
                    test::require(level <= options.level && level != trace_level::none);
                    test::require(line.size() <= options.line + 200);
                    test::require(runnel::is_utf8(line));
                    test::require(std::none_of(line.begin(), line.end(), [](char c) { return c >= 0 && c < ' '; }));
                    lines.emplace_back(line);
                });
            }
        };
        feed(trace_direction::sent, sent);
        feed(trace_direction::received, received);
        if (options.level != trace_level::none) {
            std::uint64_t packets = 0;
            for (auto const& c : counters.received.by_type) packets += c.bytes;
            test::require(packets + tracer.unread(trace_direction::received) <= received.size());
        }
        lines.push_back(to_prometheus([&] {
            runnel::metric_list list;
            add_metrics(list, counters);
            return list;
        }()));
        return lines;
    };
    // What is longer than `maximum_kept` is told of otherwise where it comes in pieces.
    auto const whole = run(size + 1), in_pieces = run(piece);
    if (size <= packet_tracer::maximum_kept) test::require(whole == in_pieces);
    return 0;
}
