#include <runnel/aliyun/signer.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>
#include <support/allocation_count.hpp>
#include <type_traits>

using namespace runnel::aliyun;
namespace digest = runnel::digest;

// What users write in braces, and what they get, must be trivially destructible (g++ 12 in co_await expressions).
static_assert(std::is_trivially_destructible_v<sign_options> && std::is_trivially_destructible_v<connect_credentials>);

namespace {

struct plain_transport {
    static constexpr bool secure = false;
};
struct tls_transport {
    static constexpr bool secure = true;
};
static_assert(secure_mode_for<plain_transport> == secure_mode::plain);
static_assert(secure_mode_for<tls_transport> == secure_mode::tls);

constexpr std::string_view lower(std::string_view upper, char* out) {
    for (std::size_t i = 0; i < upper.size(); ++i)
        out[i] = static_cast<char>(upper[i] >= 'A' && upper[i] <= 'Z' ? upper[i] - 'A' + 'a' : upper[i]);
    return {out, upper.size()};
}

constexpr bool is(std::string_view text, std::string_view expected) {
    char buffer[64] = {};
    return text == lower(expected, buffer);
}

// The example of the platform's page "Establish MQTT over WebSocket connections", in full.
constexpr device example{.product_key = "pk", .device_name = "device", .device_secret = "secret"};

constexpr connect_credentials over_ws = sign(example, {.client_id = "12345",
                                                       .method = sign_method::hmacsha1,
                                                       .mode = secure_mode_for<plain_transport>,
                                                       .timestamp = 789});
static_assert(over_ws.client_id == "12345|securemode=3,signmethod=hmacsha1,timestamp=789|");
static_assert(over_ws.user_name == "device&pk");
static_assert(is(over_ws.password, "FAFD82A3D602B37FB0FA8B7892F24A477F851A14"));

constexpr connect_credentials over_wss = sign(
    example,
    {.client_id = "12345", .method = sign_method::hmacsha1, .mode = secure_mode_for<tls_transport>, .timestamp = 789});
static_assert(over_wss.client_id == "12345|securemode=2,signmethod=hmacsha1,timestamp=789|");
static_assert(over_wss.user_name == "device&pk");
static_assert(is(over_wss.password, "FAFD82A3D602B37FB0FA8B7892F24A477F851A14"));

// Its content in the platform's words: hmacsha1("secret", "clientId12345deviceNamedeviceproductKeypktimestamp789").
static_assert(over_ws.password.view() == digest::encode_hex(digest::authenticate<digest::sha1>(
                                             "secret", "clientId12345deviceNamedeviceproductKeypktimestamp789")));

constexpr connect_credentials signed_with(sign_method method, std::string_view client_id) {
    return sign(example, {.client_id = client_id, .method = method, .timestamp = 789});
}
// The self-test of a published ESP8266 client signs the same by MD5; by SHA-256 computed with `openssl dgst -hmac`.
static_assert(is(signed_with(sign_method::hmacmd5, "12345").password, "14B198324FE55E1D3C88F2E705E201EE"));
static_assert(is(signed_with(sign_method::hmacsha256, "12345").password,
                 "6074a46a91b1ebb2cc4ea42790ad0e80202c9843859fc292e57c4eb19fad9e57"));

// A client identifier that the server of MQTT 5 assigns: empty in CONNECT and in the content.
static_assert(signed_with(sign_method::hmacsha256, "").client_id ==
              "|securemode=2,signmethod=hmacsha256,timestamp=789|");
static_assert(is(signed_with(sign_method::hmacsha256, "").password,
                 "edae1c344f3351171fcb02f81675761aabf913b7ce139a132b87cd446fbba070"));

// No more than the two parameters that must be signed.
constexpr parameter required[] = {{"deviceName", "device"}, {"productKey", "pk"}};
static_assert(is(sign_parameters<digest::sha256>("secret", required),
                 "4e4fa898ea37565cb40779e7e48196c21a58565cf6c84eeffcd400c63633e7c8"));
static_assert(is(sign_parameters<digest::sha1>("secret", required), "ef1338106ebf173868958116f51797c8b9149855"));

// Dynamic registration signs other parameters by the same rule.
constexpr parameter registration[] = {{"random", "123"}, {"productKey", "al123456789"}, {"deviceName", "device1"}};
static_assert(is(sign_parameters<digest::md5>("secret", registration), "bfe0cdf07aa4c15e5a7a349f93b6e314"));
static_assert(is(sign_parameters<digest::sha1>("secret", registration), "3db45e2c7880d9edb7921262d396ce454fab25d7"));
static_assert(is(sign_parameters<digest::sha256>("secret", registration),
                 "8079ef76baec6e70051940ccb24e18e57229e09b85bec46183ac2584bee8a8f9"));

// The HMAC vectors of a published Go client (things-go/aliyun-iot): key and message are the same word.
static_assert(digest::encode_hex(digest::authenticate<digest::md5>("thinkgos", "thinkgos")) ==
              "ed9dc7baf84a9740a3ceb6f1f26bfb4f");
static_assert(digest::encode_hex(digest::authenticate<digest::sha1>("thinkgos", "thinkgos")) ==
              "f9cebe2044ea375cff1a46f4dc05eb15ff9870ee");
static_assert(digest::encode_hex(digest::authenticate<digest::sha256>("thinkgos", "thinkgos")) ==
              "e9403e3a615fad72d1dd1fe90c225cbec4ba81a03e5474d91a72844d2218954f");

}  // namespace

TEST_CASE("run time gives what the constant expression gave") {
    device const at_run_time = make_device(std::string("pk"), std::string("device"), std::string("secret"));
    std::string const client_id = "12345";
    connect_credentials made;
    REQUIRE(
        sign(at_run_time,
             {.client_id = client_id, .method = sign_method::hmacsha1, .mode = secure_mode::plain, .timestamp = 789},
             made) == errc::ok);
    CHECK(made == over_ws);
    for (sign_method method : {sign_method::hmacmd5, sign_method::hmacsha1, sign_method::hmacsha256}) {
        std::size_t const digits = method == sign_method::hmacmd5 ? 32 : method == sign_method::hmacsha1 ? 40 : 64;
        CHECK(sign(example, {.method = method}).password.size() == digits);
    }
    CHECK(is(signed_with(sign_method::hmacmd5, client_id).password, "14B198324FE55E1D3C88F2E705E201EE"));
    CHECK(is(signed_with(sign_method::hmacsha256, client_id).password,
             "6074a46a91b1ebb2cc4ea42790ad0e80202c9843859fc292e57c4eb19fad9e57"));
}

TEST_CASE("signing allocates nothing") {
    std::string const client_id = "12345";
    auto const before = runnel::testing::allocation_count();
    connect_credentials made;
    for (auto const method : {sign_method::hmacmd5, sign_method::hmacsha1, sign_method::hmacsha256})
        if (sign(example, {.client_id = client_id, .method = method, .timestamp = 789}, made) != errc::ok) FAIL("");
    auto const psk = sign_psk(example);
    auto const after = runnel::testing::allocation_count();
    CHECK(after == before);
    CHECK(made.password.size() == 64);
    CHECK(psk.key.size() == 64);
}

TEST_CASE("by default the client identifier is product key and device name, signed by SHA-256, without a timestamp") {
    auto const made = sign(example);
    CHECK(made.client_id == "pk.device|securemode=2,signmethod=hmacsha256|");
    CHECK(made.user_name == "device&pk");
    CHECK(made.password == digest::encode_hex(digest::authenticate<digest::sha256>(
                               "secret", "clientIdpk.devicedeviceNamedeviceproductKeypk")));
}

TEST_CASE("added parameters follow the signer's own and do not change the signature") {
    auto const without = sign(example, {.client_id = "12345", .timestamp = 789});
    auto const with = sign(example, {.client_id = "12345", .timestamp = 789, .parameters = "ext=1,_v=1.0"});
    CHECK(with.client_id == "12345|securemode=2,signmethod=hmacsha256,timestamp=789,ext=1,_v=1.0|");
    CHECK(with.password == without.password);
}

TEST_CASE("each secure mode is written as the platform's number") {
    auto const written = [](secure_mode mode) { return sign(example, {.client_id = "x", .mode = mode}).client_id; };
    CHECK(written(secure_mode::device_token) == "x|securemode=-2,signmethod=hmacsha256|");
    CHECK(written(secure_mode::https_authentication) == "x|securemode=-1,signmethod=hmacsha256|");
    CHECK(written(secure_mode::tls) == "x|securemode=2,signmethod=hmacsha256|");
    CHECK(written(secure_mode::plain) == "x|securemode=3,signmethod=hmacsha256|");
    CHECK(written(secure_mode::itls) == "x|securemode=8,signmethod=hmacsha256|");
}

TEST_CASE("the order in which parameters are given does not change the signature") {
    parameter const orders[][4] = {
        {{"clientId", "1"}, {"deviceName", "2"}, {"productKey", "3"}, {"timestamp", "4"}},
        {{"timestamp", "4"}, {"productKey", "3"}, {"deviceName", "2"}, {"clientId", "1"}},
        {{"productKey", "3"}, {"clientId", "1"}, {"timestamp", "4"}, {"deviceName", "2"}},
    };
    auto const expected =
        digest::encode_hex(digest::authenticate<digest::sha256>("s", "clientId1deviceName2productKey3timestamp4"));
    for (auto const& order : orders) CHECK(sign_parameters(sign_method::hmacsha256, "s", order) == expected.view());
    CHECK(sign_parameters(sign_method::hmacmd5, "s", {}) ==
          digest::encode_hex(digest::authenticate<digest::md5>("s", "")).view());
}

TEST_CASE("the vendor's example device has the signatures its SDK computes") {
    // dev_sign_example.c of the C SDK; its secret is there, and these values were computed from it with OpenSSL.
    device const sdk = make_device("a1X2bEnP82z", "example1", "ga7XA6KdlEeiPXQPpRbAjOZXwG8ydgSe");
    auto const password = [&](sign_method method) {
        return sign(sdk, {.client_id = "a1X2bEnP82z.example1", .method = method, .timestamp = 2524608000000}).password;
    };
    CHECK(is(password(sign_method::hmacsha256), "B8CE8F1D706DD3C61D13BFD9855DEF7E321B785084CA9C93F0169A2B46785DD2"));
    CHECK(is(password(sign_method::hmacsha1), "b2c9af96273c92315cc9eb431ed90573a6850105"));
    CHECK(is(password(sign_method::hmacmd5), "7e2c52953f3dcfbbc313de587ad83f74"));
    // The key of TLS-PSK follows the same rule.
    auto const psk = sign_psk(sdk);
    CHECK(psk.identity == "devicename|hmacsha256|a1X2bEnP82z&example1|2524608000000");
    CHECK(psk.key == "7CB647360E50AFA1E4C4B3556945A25D4970B94404DE1FBA159D1B2D37B0D23F");
    // And so does what a gateway proves of a sub-device.
    CHECK(is(sign_sub_device(sdk, "a1X2bEnP82z.example1", "2524608000000", sign_method::hmacsha1),
             "b2c9af96273c92315cc9eb431ed90573a6850105"));
    CHECK(is(sign_sub_device(sdk, "a1X2bEnP82z.example1", "2524608000000"),
             "B8CE8F1D706DD3C61D13BFD9855DEF7E321B785084CA9C93F0169A2B46785DD2"));
}

TEST_CASE("what the platform would refuse is not signed") {
    connect_credentials made = over_ws;
    auto const error = [&](device const& who, sign_options const& options) { return sign(who, options, made); };
    CHECK(error({}, {}) == errc::product_key_empty);
    CHECK(error({"pk", "", "secret"}, {}) == errc::device_name_empty);
    CHECK(error({"pk", "device", ""}, {}) == errc::device_secret_empty);
    CHECK(error({"pk", "a&b", "secret"}, {}) == errc::device_name_invalid);
    std::string const long_id(65, 'x');
    CHECK(error(example, {.client_id = long_id}) == errc::client_id_too_long);
    CHECK(error(example, {.client_id = "a|b"}) == errc::client_id_invalid);
    CHECK(error(example, {.parameters = "ext"}) == errc::parameters_invalid);
    CHECK(error(example, {.parameters = "ext=1|"}) == errc::parameters_invalid);
    CHECK(error(example, {.parameters = "ext=1,securemode=3"}) == errc::parameter_reserved);
    CHECK(error(example, {.parameters = "signmethod=hmacmd5"}) == errc::parameter_reserved);
    CHECK(error(example, {.parameters = "timestamp=1"}) == errc::parameter_reserved);
    CHECK(made == over_ws);
    CHECK_THROWS_AS(sign(example, {.client_id = "a|b"}), std::system_error);
}

TEST_CASE("the longest client identifier fits, and one byte more is refused") {
    device const longest = make_device(std::string(32, 'k'), std::string(31, 'n'), std::string(64, 's'));
    sign_options options{.mode = secure_mode::device_token, .timestamp = ~std::uint64_t{0}};
    std::size_t const used = sign(longest, options).client_id.size();
    std::string const parameters = "ext=" + std::string(256 - used - 5, '1');
    options.parameters = parameters;
    auto const made = sign(longest, options);
    CHECK(made.client_id.size() == 256);
    CHECK(made.client_id.view().ends_with("1|"));
    std::string const too_long = parameters + '1';
    options.parameters = too_long;
    connect_credentials out;
    CHECK(sign(longest, options, out) == errc::parameters_too_long);
    std::string const far_too_long = parameters + std::string(300, '1');
    options.parameters = far_too_long;
    CHECK(sign(longest, options, out) == errc::parameters_too_long);
}

TEST_CASE("signing methods are found by their names") {
    for (sign_method method : {sign_method::hmacmd5, sign_method::hmacsha1, sign_method::hmacsha256})
        CHECK(sign_method_named(name_of(method)) == method);
    CHECK(sign_method_named("sha256") == std::nullopt);
    CHECK(sign_method_named("HMACSHA256") == std::nullopt);
    CHECK(sign_method_named("") == std::nullopt);
}

TEST_CASE("what is signed can be taken apart again") {
    client_id_parts parts;
    REQUIRE(split_client_id(over_ws.client_id, parts) == errc::ok);
    CHECK(parts.client_id == "12345");
    CHECK(find_parameter(parts.parameters, "securemode") == "3");
    CHECK(find_parameter(parts.parameters, "timestamp") == "789");
}
