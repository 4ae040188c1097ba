#include <runnel/aliyun/limits.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>

using namespace runnel::aliyun;
using namespace std::chrono_literals;

static_assert(check_keep_alive(default_keep_alive) == errc::ok);

TEST_CASE("a keep alive of 30 to 1200 seconds is accepted") {
    CHECK(check_keep_alive(30s) == errc::ok);
    CHECK(check_keep_alive(1200s) == errc::ok);
    CHECK(check_keep_alive(29s) == errc::keep_alive_out_of_range);
    CHECK(check_keep_alive(1201s) == errc::keep_alive_out_of_range);
    CHECK(check_keep_alive(0s) == errc::keep_alive_out_of_range);
    CHECK(check_keep_alive(-30s) == errc::keep_alive_out_of_range);
}

TEST_CASE("a client identifier has at most 64 bytes, none of them a bar or a control character") {
    CHECK(check_client_id("") == errc::ok);
    CHECK(check_client_id(std::string(64, 'x')) == errc::ok);
    CHECK(check_client_id(std::string(65, 'x')) == errc::client_id_too_long);
    CHECK(check_client_id("00:11:22:33:44:55, \xc3\xbc") == errc::ok);
    CHECK(check_client_id("a|b") == errc::client_id_invalid);
    CHECK(check_client_id("a\nb") == errc::client_id_invalid);
    CHECK(check_client_id(std::string_view("a\0b", 3)) == errc::client_id_invalid);
    CHECK(check_client_id("a\x7f") == errc::client_id_invalid);
}

TEST_CASE("a topic has at most 128 bytes") {
    CHECK(check_topic("") == errc::topic_empty);
    CHECK(check_topic(std::string(128, 't')) == errc::ok);
    CHECK(check_topic(std::string(129, 't')) == errc::topic_too_long);
    CHECK(check_topic("/sys/" + std::string(124, 't')) == errc::topic_too_long);
}

TEST_CASE("a topic of a product's own has at most 7 slashes") {
    CHECK(check_topic("/pk/dn/user/a/b/c/d") == errc::ok);
    CHECK(check_topic("/pk/dn/user/a/b/c/d/e") == errc::topic_too_deep);
    CHECK(check_topic("////////") == errc::topic_too_deep);
}

TEST_CASE("the platform's own topics may have more than 7 slashes") {
    CHECK(check_topic("/sys/pk/dn/thing/event/property/history/post") == errc::ok);
    CHECK(check_topic("/ext/rrpc/123/pk/dn/user/a/b/c") == errc::ok);
}

TEST_CASE("a payload has at most 256 KiB") {
    CHECK(check_payload(0) == errc::ok);
    CHECK(check_payload(262'144) == errc::ok);
    CHECK(check_payload(262'145) == errc::payload_too_long);
}

TEST_CASE("QoS 0 and 1 are accepted") {
    CHECK(check_qos(0) == errc::ok);
    CHECK(check_qos(1) == errc::ok);
    CHECK(check_qos(2) == errc::qos_not_supported);
    CHECK(check_qos(-1) == errc::qos_not_supported);
}

TEST_CASE("a SUBSCRIBE has at most 8 filters and a device at most 100 subscriptions") {
    CHECK(check_filter_count(8) == errc::ok);
    CHECK(check_filter_count(9) == errc::too_many_filters);
    CHECK(check_subscription_count(100) == errc::ok);
    CHECK(check_subscription_count(101) == errc::too_many_subscriptions);
}
