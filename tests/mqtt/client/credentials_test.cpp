#include <runnel/mqtt/client/credentials.hpp>
#include <runnel/mqtt/client/session_options.hpp>

#include <doctest/doctest.h>

#include "../../../examples/aws_signature.hpp"
#include "../../../examples/azure_signature.hpp"
#include <chrono>
#include <functional>
#include <ostream>
#include <string>

// The credentials of clouds that this library does not know, made on its digests by the examples.

using namespace runnel;
using namespace std::chrono_literals;

namespace {

struct nothing {
    int operator()() const;
};
auto const lambda = [] { return mqtt::credentials{"id", "user", "password"}; };
static_assert(mqtt::credentials_provider<decltype(lambda)>);
static_assert(mqtt::credentials_provider<std::function<mqtt::credentials()>>);
static_assert(mqtt::credentials_provider<azure::device>);
static_assert(!mqtt::credentials_provider<nothing> && !mqtt::credentials_provider<int>);

constexpr std::chrono::sys_seconds example_time = std::chrono::sys_days{std::chrono::year{2013} / 5 / 24};

}  // namespace

TEST_CASE("any provider goes into the options of a session") {
    mqtt::session_options options;
    options.make_credentials = lambda;
    CHECK(options.make_credentials().user_name == "user");
    options.make_credentials = azure::device{"hub.azure-devices.net", "d1", "kew="};
    auto const made = options.make_credentials();
    CHECK(made.client_id == "d1");
    CHECK(made.user_name == "hub.azure-devices.net/d1/?api-version=2021-04-12");
    CHECK(made.password->starts_with("SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fd1&sig="));
}

TEST_CASE("SigV4: the key and the presigned URL of AWS's documentation") {
    auto const key = aws::signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", "us-east-1", "iam");
    CHECK(digest::encode_hex(std::string_view(key)) ==
          "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
    aws::identity const who{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};
    aws::resource const what{"examplebucket.s3.amazonaws.com", "/test.txt", "us-east-1", "s3", "UNSIGNED-PAYLOAD"};
    CHECK(aws::presign(who, what, example_time, 86400s) ==
          "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
          "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
          "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
          "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
}

TEST_CASE("SigV4: temporary credentials add their token behind the signature") {
    aws::identity who{"id", "secret", ""};
    aws::resource const what{"x-ats.iot.eu-central-1.amazonaws.com", "/mqtt", "eu-central-1", "iotdevicegateway"};
    auto const without = aws::presign(who, what, example_time + 3723s, 900s);
    CHECK(without.find("X-Amz-Date=20130524T010203Z&X-Amz-Expires=900") != std::string::npos);
    who.session_token = "a/b+c=";
    CHECK(aws::presign(who, what, example_time + 3723s, 900s) == without + "&X-Amz-Security-Token=a%2Fb%2Bc%3D");
}

TEST_CASE("SAS: the token of a test of Azure's own SDK") {
    // Its key is "key", which Node takes for base64 without padding.
    CHECK(azure::shared_access_signature("host", "kew=", std::chrono::sys_seconds(12345s), "policy") ==
          "SharedAccessSignature sr=host&sig=88JmrIsVYOGmRSjCO1x1LLbv0K001Gikh1rjfJqbQXA%3D&skn=policy&se=12345");
    CHECK_THROWS_AS(azure::shared_access_signature("host", "not base64!", std::chrono::sys_seconds(12345s)),
                    std::invalid_argument);
}
