#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

/// What the codec benchmarks of other libraries have in common: the packets and cases of codec.cpp.
namespace peer_codec {

inline std::string const topic = "sensors/building-7/room-12/temp1";
inline constexpr std::pair<char const*, char const*> user_properties[] = {
    {"region", "cn-shanghai"}, {"content-source", "sensor-4711"}, {"trace-id", "0af7651916cd43dd8448eb211c80319c"}};

/// `PROGRAM --count NAME N` does one of the cases N times, so that its instructions can be counted from outside.
class cases {
  public:
    cases(int& argc, char** argv) {
        if (argc == 4 && std::string_view(argv[1]) == "--count") {
            only_ = argv[2];
            times_ = std::atoll(argv[3]);
            argc = 1;
        }
        benchmark::Initialize(&argc, argv);
    }

    /// `step()` is what is measured.
    template <class Step>
    void add(std::string const& name, Step step) {
        auto const loop = [step](benchmark::State& state) {
            for (auto _ : state) step();
        };
        if (times_ == 0)
            benchmark::RegisterBenchmark(name.c_str(), loop);
        else if (name == only_)
            benchmark::RegisterBenchmark(name.c_str(), loop)->Iterations(times_);
    }

    int run() {
        benchmark::RunSpecifiedBenchmarks();
        benchmark::Shutdown();
        return 0;
    }

  private:
    std::string only_;
    std::int64_t times_ = 0;
};

}  // namespace peer_codec
