#include <runnel/aliyun/client_id.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>

using namespace runnel::aliyun;

TEST_CASE("a client identifier is split at its bars") {
    client_id_parts parts;
    REQUIRE(split_client_id("12345|securemode=3,signmethod=hmacsha1,timestamp=789|", parts) == errc::ok);
    CHECK(parts.client_id == "12345");
    CHECK(find_parameter(parts.parameters, "securemode") == "3");
    CHECK(find_parameter(parts.parameters, "signmethod") == "hmacsha1");
    CHECK(find_parameter(parts.parameters, "timestamp") == "789");
    CHECK(find_parameter(parts.parameters, "stamp") == std::nullopt);
    CHECK(find_parameter(parts.parameters, "789") == std::nullopt);
}

TEST_CASE("what the vendor's SDK sends is understood: a comma after the last parameter, an empty identifier") {
    client_id_parts parts;
    REQUIRE(split_client_id("|timestamp=1,_ss=1,_v=sdk-c-4.2.0,ext=3,|", parts) == errc::ok);
    CHECK(parts.client_id.empty());
    CHECK(find_parameter(parts.parameters, "_v") == "sdk-c-4.2.0");
    CHECK(find_parameter(parts.parameters, "ext") == "3");
}

TEST_CASE("no parameters, and parameters without a value, are fine") {
    client_id_parts parts;
    REQUIRE(split_client_id("x||", parts) == errc::ok);
    CHECK(parts.parameters.empty());
    CHECK(find_parameter(parts.parameters, "") == std::nullopt);
    REQUIRE(split_client_id("x|gw=|", parts) == errc::ok);
    CHECK(find_parameter(parts.parameters, "gw") == "");
}

TEST_CASE("a client identifier with bars out of place is refused") {
    client_id_parts parts;
    for (std::string_view bad : {"", "12345", "|", "12345|", "12345|a=1", "12345|a=1|x", "12345 a=1|"}) {
        CAPTURE(bad);
        CHECK(split_client_id(bad, parts) == errc::client_id_invalid);
    }
    CHECK(split_client_id(std::string(65, 'x') + "|a=1|", parts) == errc::client_id_too_long);
    CHECK(parts.client_id.data() == nullptr);
}

TEST_CASE("parameters that are not name=value are refused") {
    for (std::string_view bad : {"a", "=1", "a=1,,b=2", ",a=1", "a=1,b", "a=|", "a=1,,", ",", "a=\n"}) {
        CAPTURE(bad);
        CHECK(check_parameters(bad) == errc::parameters_invalid);
    }
    client_id_parts parts;
    CHECK(split_client_id("x|a|", parts) == errc::parameters_invalid);
    CHECK(split_client_id("x|a=1|b=2|", parts) == errc::parameters_invalid);
}
