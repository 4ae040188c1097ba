#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/extended_parameters.hpp>
#include <runnel/aliyun/registration_request.hpp>
#include <runnel/mqtt/client/credentials.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <ostream>
#include <random>
#include <string>
#include <vector>

using namespace runnel;
using namespace std::chrono_literals;
using aliyun::errc;
using mqtt::protocol_version;

namespace {

constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a secret between us"};

struct plain {
    static constexpr bool secure = false;
};

static_assert(mqtt::credentials_provider<aliyun::device_signer> && mqtt::credentials_provider<aliyun::token_login>);

// The extended parameters of a device known at compile time are as constant as the rest.
static_assert(aliyun::extended_parameters{}.text() == "");
static_assert(aliyun::extended_parameters{.custom_rrpc = true, .language = "C++"}.text() == "ext=1,lan=C++");
static_assert(aliyun::extended_parameters{.custom_rrpc = true, .notices = true, .gateway = true, .version = "runnel-1"}
                  .text() == "ext=3,gw=1,_v=runnel-1");
static_assert(aliyun::extended_parameters{.notices = true, .others = "_ss=1,an=x"}.text() == "ext=2,_ss=1,an=x");
constexpr auto parameters = aliyun::extended_parameters{.custom_rrpc = true}.text();
static_assert(aliyun::sign(thermostat, {.client_id = "c", .parameters = parameters}).client_id ==
              "c|securemode=2,signmethod=hmacsha256,ext=1|");

// Dynamic registration, with the vector of the documentation's parameters computed with OpenSSL.
constexpr aliyun::connect_credentials registering = [] {
    aliyun::connect_credentials made;
    aliyun::throw_unless_ok(
        aliyun::sign_registration({"al123456789", "secret"}, "device1", "123", {.instance_id = "iot-x"}, made));
    return made;
}();
static_assert(registering.client_id ==
              "al123456789.device1|securemode=2,authType=register,random=123,signmethod="
              "hmacsha256,instanceId=iot-x|");
static_assert(registering.user_name == "device1&al123456789");
static_assert(registering.password == "8079ef76baec6e70051940ccb24e18e57229e09b85bec46183ac2584bee8a8f9");

std::string error_text(aliyun::connect_options const& options) {
    try {
        aliyun::session_options<plain>(thermostat, options);
    } catch (std::system_error const& e) {
        return e.code().message();
    }
    return "";
}

}  // namespace

TEST_CASE("what the platform would refuse is refused before the first attempt") {
    CHECK(error_text({}).empty());
    CHECK(error_text({.keep_alive = 29s}) == describe(errc::keep_alive_out_of_range));
    CHECK(error_text({.client_id = std::string(65, 'x')}) == describe(errc::client_id_too_long));
    CHECK(error_text({.parameters = "timestamp=1"}) == describe(errc::parameter_reserved));
    CHECK(error_text({.client_id = ""}) == describe(errc::client_id_empty));
    CHECK(error_text({.client_id = "", .version = protocol_version::v5}).empty());
}

TEST_CASE("each attempt is signed afresh if its time is signed") {
    auto const options = aliyun::session_options<plain>(thermostat, {.timestamp = true});
    auto const first = options.make_credentials();
    auto const begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < 3ms) {
    }
    auto const second = options.make_credentials();
    CHECK(first.client_id != second.client_id);
    CHECK(first.password != second.password);
    auto const constant = aliyun::session_options<plain>(thermostat);
    CHECK(constant.make_credentials().client_id == constant.make_credentials().client_id);
    CHECK(constant.make_credentials().client_id.find("securemode=3") != std::string::npos);
}

TEST_CASE("however connections fail and break, no minute has more than 5 attempts to connect") {
    std::minstd_rand random(7);
    std::uniform_real_distribution<double> share(0, 1);
    auto const policy = aliyun::platform_options({}).reconnect;
    for (int run = 0; run < 500; ++run) {
        // A row of attempts: each fails at once, or the connection lasts for a while.
        std::vector<std::chrono::milliseconds> attempts;
        std::chrono::milliseconds now{0};
        std::uint32_t failures = 0;
        for (int i = 0; i < 40; ++i) {
            attempts.push_back(now);
            std::chrono::milliseconds const lasted{share(random) < 0.6 ? 0 : static_cast<int>(share(random) * 70'000)};
            now += lasted;
            failures = lasted >= policy.stable_after ? 1 : failures + 1;
            now += mqtt::pause_after(policy, failures, share(random) * share(random));
        }
        for (std::size_t i = 5; i < attempts.size(); ++i) CHECK(attempts[i] - attempts[i - 5] >= 60s);
    }
}

TEST_CASE("the answer to a registration must be about the device, and hold a secret or a token") {
    aliyun::product const p{"pk", "secret"};
    aliyun::registration got;
    auto const read = [&](std::string_view json) { return aliyun::read_registration(json, p, "dn", got); };
    CHECK(read(R"({"productKey":"pk","deviceName":"dn","deviceSecret":"s"})") == errc::ok);
    CHECK(got.device() == aliyun::device{"pk", "dn", "s"});
    CHECK(read(R"({"productKey":"pk","deviceName":"dn","clientId":"c","deviceToken":"t"})") == errc::ok);
    CHECK(got.has_token());
    aliyun::token_login const login(got, "ext=1");
    CHECK(login().client_id == "c|securemode=-2,authType=connwl,ext=1|");
    CHECK(login().user_name == "dn&pk");
    CHECK(login().password == "t");
    for (auto const* wrong : {"", "{}", R"({"productKey":"pk","deviceName":"dn"})",
                              R"({"productKey":"pk","deviceName":"other","deviceSecret":"s"})",
                              R"({"productKey":"other","deviceName":"dn","deviceSecret":"s"})",
                              R"({"productKey":"pk","deviceName":"dn","deviceToken":"t"})"})
        CHECK(read(wrong) == errc::registration_answer_invalid);
    CHECK(read(R"({"productKey":"pk","deviceName":"dn","deviceSecret":")" + std::string(65, 's') + "\"}") ==
          errc::registration_answer_invalid);
}

TEST_CASE("what cannot be registered is not signed") {
    aliyun::connect_credentials out;
    auto const error = [&](aliyun::product const& p, std::string_view name, std::string_view random) {
        return aliyun::sign_registration(p, name, random, {}, out);
    };
    CHECK(error({"", "s"}, "dn", "1") == errc::product_key_empty);
    CHECK(error({"pk", ""}, "dn", "1") == errc::device_secret_empty);
    CHECK(error({"pk", "s"}, "d n", "1") == errc::device_name_invalid);
    CHECK(error({"pk", "s"}, "dn", "") == errc::parameters_invalid);
    CHECK(error({"pk", "s"}, "dn", "1|2") == errc::parameters_invalid);
    CHECK(error({"pk", "s"}, "dn", std::string(250, '1')) == errc::parameters_too_long);
}
