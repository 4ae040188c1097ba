// Masking of WebSocket payload in place, beside Boost.Beast's and memcpy, which touches twice the memory. Built with
// the compiler of the project, and with clang besides where there is one.

#include <runnel/websocket/protocol/mask.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <string>
#if __has_include(<boost/beast/websocket/detail/mask.hpp>)
#include <boost/asio/buffer.hpp>
#include <boost/beast/websocket/detail/mask.hpp>
#define RUNNEL_BESIDE_BEAST 1
#endif

namespace {

// Calls `mask(to, from, size)` on one payload after the other, 16 in turn: on the same one again and again, each call
// would wait for the stores of the one before.
template <class Mask>
void over_bytes(benchmark::State& state, Mask mask) {
    auto const size = static_cast<std::size_t>(state.range(0));
    std::string from(16 * size, 'x'), to(16 * size, 'x');
    for (std::size_t at = 0; auto _ : state) {
        mask(to.data() + at, from.data() + at, size);
        benchmark::ClobberMemory();
        at = at == 15 * size ? 0 : at + size;
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

void runnel_mask(benchmark::State& state) {
    over_bytes(state, [](char* to, char*, std::size_t size) { runnel::websocket::apply_mask(to, size, 0x12345678); });
}
void memcpy_(benchmark::State& state) {
    over_bytes(state, [](char* to, char* from, std::size_t size) { std::memcpy(to, from, size); });
}
BENCHMARK(runnel_mask)->Name("runnel")->Arg(64)->Arg(1024)->Arg(65536);
BENCHMARK(memcpy_)->Name("memcpy")->Arg(64)->Arg(1024)->Arg(65536);

#ifdef RUNNEL_BESIDE_BEAST
void beast_mask(benchmark::State& state) {
    namespace detail = boost::beast::websocket::detail;
    over_bytes(state, [](char* to, char*, std::size_t size) {
        detail::prepared_key key;
        detail::prepare_key(key, 0x12345678);
        detail::mask_inplace(boost::asio::mutable_buffer(to, size), key);
    });
}
BENCHMARK(beast_mask)->Name("Boost.Beast")->Arg(64)->Arg(1024)->Arg(65536);
#endif

}  // namespace

BENCHMARK_MAIN();
