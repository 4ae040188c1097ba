// What it costs to derive the keys of SCRAM from a password, by each hash function and number of iterations, beside
// OpenSSL; and without the processor's instructions for SHA.

#include <runnel/digest/pbkdf2.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/digest/sha512.hpp>

#include <benchmark/benchmark.h>
#include <openssl/evp.h>

#include <cstdint>
#include <string_view>

namespace {

using namespace runnel::digest;

constexpr std::string_view password = "pencil", salt = "salt of sixteen.";

// As on a processor without the instructions.
template <class Compression>
struct portable : Compression {
    static constexpr void compress(typename Compression::state_type& state, char const* blocks, std::size_t count) {
        Compression::compress_portably(state, blocks, count);
    }
};
using portable_sha1 = block_hash<portable<sha1_compression>>;
using portable_sha256 = block_hash<portable<sha256_compression>>;

template <hash Hash>
void ours(benchmark::State& state) {
    auto const iterations = static_cast<std::uint32_t>(state.range(0));
    for (auto _ : state) {
        pbkdf2<Hash> key(password, salt, iterations);
        key.advance(iterations);
        benchmark::DoNotOptimize(key.key().front());
    }
}

template <hash Hash>
void openssl(benchmark::State& state) {
    EVP_MD const* const digest = Hash::digest_size == 20   ? EVP_sha1()
                                 : Hash::digest_size == 32 ? EVP_sha256()
                                                           : EVP_sha512();
    unsigned char key[Hash::digest_size];
    for (auto _ : state) {
        PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()),
                          reinterpret_cast<unsigned char const*>(salt.data()), static_cast<int>(salt.size()),
                          static_cast<int>(state.range(0)), digest, static_cast<int>(sizeof(key)), key);
        benchmark::DoNotOptimize(key);
    }
}

void iterations(benchmark::internal::Benchmark* b) { b->Arg(4096)->Arg(600'000)->Unit(benchmark::kMillisecond); }

BENCHMARK(ours<sha1>)->Apply(iterations);
BENCHMARK(ours<portable_sha1>)->Apply(iterations);
BENCHMARK(openssl<sha1>)->Apply(iterations);
BENCHMARK(ours<sha256>)->Apply(iterations);
BENCHMARK(ours<portable_sha256>)->Apply(iterations);
BENCHMARK(openssl<sha256>)->Apply(iterations);
BENCHMARK(ours<sha512>)->Apply(iterations);
BENCHMARK(openssl<sha512>)->Apply(iterations);

}  // namespace

BENCHMARK_MAIN();
