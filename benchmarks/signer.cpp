// The time to compute a password of the Aliyun IoT Platform by each of its methods, beside OpenSSL on the same content:
// its one-shot HMAC(), and an EVP_MAC fetched and keyed anew for each password (the best that its interface allows when
// the key changes). Ours starts from the parameters and ends with hexadecimal digits; OpenSSL's is given the content
// ready-made and stops at the binary code. The whole connect triple is measured too.

#include <runnel/aliyun/signer.hpp>

#include <benchmark/benchmark.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <memory>
#include <string>

namespace {

using namespace runnel::aliyun;

// The lengths are those of the platform's own example: product key 11, device name 8, secret 32.
device const thermostat{"a1X2bEnP82z", "example1", "0123456789abcdef0123456789abcdef"};
constexpr std::string_view client_id = "a1X2bEnP82z.example1";
constexpr std::uint64_t timestamp = 1'700'000'000'000;

std::string content() {
    return "clientId" + std::string(client_id) + "deviceName" + thermostat.device_name.str() + "productKey" +
           thermostat.product_key.str() + "timestamp" + std::to_string(timestamp);
}

unsigned char const* octets(std::string_view bytes) { return reinterpret_cast<unsigned char const*>(bytes.data()); }

char const* openssl_name(sign_method method) {
    switch (method) {
        case sign_method::hmacmd5: return "MD5";
        case sign_method::hmacsha1: return "SHA1";
        case sign_method::hmacsha256: break;
    }
    return "SHA256";
}

template <sign_method Method>
void runnel_password(benchmark::State& state) {
    std::string const time = std::to_string(timestamp);
    parameter const parameters[] = {{"clientId", client_id},
                                    {"deviceName", thermostat.device_name},
                                    {"productKey", thermostat.product_key},
                                    {"timestamp", time}};
    for (auto _ : state) {
        signature password = sign_parameters(Method, thermostat.device_secret, parameters);
        benchmark::DoNotOptimize(password);
    }
}

template <sign_method Method>
void runnel_connect_triple(benchmark::State& state) {
    for (auto _ : state) {
        connect_credentials credentials;
        errc const e =
            sign(thermostat, {.client_id = client_id, .method = Method, .timestamp = timestamp}, credentials);
        if (e != errc::ok) state.SkipWithError("not signed");
        benchmark::DoNotOptimize(credentials);
    }
}

template <sign_method Method>
void openssl_hmac(benchmark::State& state) {
    std::string const text = content();
    std::string_view const secret = thermostat.device_secret;
    EVP_MD const* const md = EVP_get_digestbyname(openssl_name(Method));
    unsigned char code[EVP_MAX_MD_SIZE];
    for (auto _ : state) {
        unsigned size = 0;
        HMAC(md, secret.data(), static_cast<int>(secret.size()), octets(text), text.size(), code, &size);
        benchmark::DoNotOptimize(code);
    }
}

template <sign_method Method>
void openssl_evp_mac(benchmark::State& state) {
    std::string const text = content();
    std::string_view const secret = thermostat.device_secret;
    std::unique_ptr<EVP_MAC, decltype(&EVP_MAC_free)> const mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr), EVP_MAC_free);
    std::unique_ptr<EVP_MAC_CTX, decltype(&EVP_MAC_CTX_free)> const context(EVP_MAC_CTX_new(mac.get()),
                                                                            EVP_MAC_CTX_free);
    std::string digest = openssl_name(Method);
    OSSL_PARAM const params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest.data(), 0),
                                 OSSL_PARAM_construct_end()};
    if (EVP_MAC_CTX_set_params(context.get(), params) != 1) return state.SkipWithError("no such digest");
    unsigned char code[EVP_MAX_MD_SIZE];
    for (auto _ : state) {
        std::size_t size = 0;
        EVP_MAC_init(context.get(), octets(secret), secret.size(), nullptr);
        EVP_MAC_update(context.get(), octets(text), text.size());
        EVP_MAC_final(context.get(), code, &size, sizeof(code));
        benchmark::DoNotOptimize(code);
    }
}

BENCHMARK(runnel_password<sign_method::hmacmd5>);
BENCHMARK(openssl_hmac<sign_method::hmacmd5>);
BENCHMARK(openssl_evp_mac<sign_method::hmacmd5>);
BENCHMARK(runnel_connect_triple<sign_method::hmacmd5>);
BENCHMARK(runnel_password<sign_method::hmacsha1>);
BENCHMARK(openssl_hmac<sign_method::hmacsha1>);
BENCHMARK(openssl_evp_mac<sign_method::hmacsha1>);
BENCHMARK(runnel_connect_triple<sign_method::hmacsha1>);
BENCHMARK(runnel_password<sign_method::hmacsha256>);
BENCHMARK(openssl_hmac<sign_method::hmacsha256>);
BENCHMARK(openssl_evp_mac<sign_method::hmacsha256>);
BENCHMARK(runnel_connect_triple<sign_method::hmacsha256>);

}  // namespace

BENCHMARK_MAIN();
