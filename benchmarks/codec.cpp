// What it costs to encode and decode a packet: nanoseconds a packet, and bytes a second of whole packets.
//
// Encoding is check-free, as a session checks what its user gives it once; decoding includes finding the frame and all
// validation.

#include <runnel/mqtt/packet.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace runnel::mqtt;

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr std::string_view topic = "sensors/building-7/room-12/temp1";
static_assert(topic.size() == 32);

// The packets, and what they view.
struct samples {
    std::string payload = std::string(64 * 1024, 'x');
    user_property pairs[3] = {
        {"region", "cn-shanghai"}, {"content-source", "sensor-4711"}, {"trace-id", "0af7651916cd43dd8448eb211c80319c"}};
    properties with_pairs{.user_properties = pairs};
    subscription_request requests[2] = {{.filter = "sensors/+/room-12/#"}, {.filter = "commands/device-17/+"}};

    publish message(std::size_t size) const {
        return {.topic = topic, .payload = std::string_view(payload).substr(0, size)};
    }

    publish message_with_pairs() const {
        auto p = message(256);
        p.props = &with_pairs;
        return p;
    }

    connect connecting() const {
        return {.client_id = "device-17|securemode=3,signmethod=hmacsha256|",
                .keep_alive = 60,
                .will = will{.topic = "devices/device-17/status", .payload = "offline", .qos = qos::at_least_once},
                .user_name = "device-17&product",
                .password = "4c5d25ba2d3c9a2c1d8c2b6ab2f1d9c1f6e0a4a7d1b3c5e7f9a0b2c4d6e8f0a1"};
    }

    subscribe subscribing() const { return {.packet_id = 1, .requests = requests}; }
};

template <class Packet>
void encode_packet(benchmark::State& state, Packet const& packet, protocol_version version) {
    std::vector<char> out(encoded_size(packet, version));
    for (auto _ : state) {
        std::size_t const size = encoded_size(packet, version);
        benchmark::DoNotOptimize(size);
        benchmark::DoNotOptimize(encode(out.data(), packet, version));
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations());
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(out.size()));
}

// The way of a session: what is measured to make room is not measured again.
void encode_packet(benchmark::State& state, publish const& packet, protocol_version version) {
    std::vector<char> out(encoded_size(packet, version));
    for (auto _ : state) {
        auto const size = measure(packet, version);
        benchmark::DoNotOptimize(size);
        benchmark::DoNotOptimize(encode(out.data(), packet, version, size));
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations());
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(out.size()));
}

template <class Packet>
void decode_packet(benchmark::State& state, Packet const& packet, protocol_version version) {
    std::vector<char> bytes(encoded_size(packet, version));
    encode(bytes.data(), packet, version);
    Packet out;
    for (auto _ : state) {
        std::string_view input(bytes.data(), bytes.size());
        benchmark::DoNotOptimize(input);
        auto const next = next_frame(input, 1024 * 1024);
        if (next.status != parse_status::complete || decode(next.header, next.body, version, out) != errc::ok)
            state.SkipWithError("not decoded");
        benchmark::DoNotOptimize(out);
    }
    state.SetItemsProcessed(state.iterations());
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes.size()));
}

// The bound for encoding: the same bytes, copied.
void copy_bytes(benchmark::State& state) {
    std::string const from(static_cast<std::size_t>(state.range(0)), 'x');
    std::vector<char> to(from.size());
    for (auto _ : state) {
        benchmark::DoNotOptimize(write_bytes(to.data(), from));
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

// `codec --count NAME N` does one of them N times, so that its instructions can be counted from outside.
std::string only;
std::int64_t times = 0;

template <class Function>
void add(std::string const& name, Function function) {
    if (times == 0)
        benchmark::RegisterBenchmark(name.c_str(), function);
    else if (name == only)
        benchmark::RegisterBenchmark(name.c_str(), function)->Iterations(times);
}

template <class Packet>
void add(char const* name, Packet packet, protocol_version version) {
    std::string const what = std::string(name) + (version == v5 ? "/5" : "/3.1.1");
    add("encode/" + what, [=](benchmark::State& s) { encode_packet(s, packet, version); });
    add("decode/" + what, [=](benchmark::State& s) { decode_packet(s, packet, version); });
}

}  // namespace

int main(int argc, char** argv) {
    static samples const all;
    if (argc == 4 && std::string_view(argv[1]) == "--count") {
        only = argv[2];
        times = std::atoll(argv[3]);
        argc = 1;
    }
    for (auto version : {v3, v5}) {
        add("publish_64", all.message(64), version);
        add("publish_1KiB", all.message(1024), version);
        add("publish_64KiB", all.message(64 * 1024), version);
        add("connect", all.connecting(), version);
        add("subscribe", all.subscribing(), version);
    }
    add("publish_256_three_user_properties", all.message_with_pairs(), v5);
    if (times == 0) benchmark::RegisterBenchmark("copy", copy_bytes)->Arg(98)->Arg(1058)->Arg(65570);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
