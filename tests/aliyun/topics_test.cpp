#include <runnel/aliyun/limits.hpp>
#include <runnel/aliyun/topics.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>

using namespace runnel::aliyun;

namespace {

constexpr device example{.product_key = "pk", .device_name = "dn", .device_secret = "secret"};
constexpr device_topics topics(example);

static_assert(topics.of<topic_kind::property_post>() == "/sys/pk/dn/thing/event/property/post");
static_assert(topics.of<topic_kind::custom>("get") == "/pk/dn/user/get");

template <topic_kind Kind>
concept has_reply_topic = requires { topics.reply_of<Kind>(); };
static_assert(has_reply_topic<topic_kind::property_post> && !has_reply_topic<topic_kind::ntp_request>);

topic_parts parts_of(std::string_view topic) {
    topic_parts parts;
    INFO("topic: ", topic);
    REQUIRE(parse_topic(topic, parts) == errc::ok);
    return parts;
}

}  // namespace

TEST_CASE("the topics of a device are those of the platform's documentation") {
    CHECK(topics.reply_of<topic_kind::property_post>() == "/sys/pk/dn/thing/event/property/post_reply");
    CHECK(topics.of<topic_kind::property_set>() == "/sys/pk/dn/thing/service/property/set");
    CHECK(topics.of<topic_kind::event_post>("overheated") == "/sys/pk/dn/thing/event/overheated/post");
    CHECK(topics.of<topic_kind::service_call>("reboot") == "/sys/pk/dn/thing/service/reboot");
    CHECK(topics.reply_of<topic_kind::service_call>(std::string("reboot")) == "/sys/pk/dn/thing/service/reboot_reply");
    CHECK(topics.of<topic_kind::rrpc_request>("+") == "/sys/pk/dn/rrpc/request/+");
    CHECK(topics.of<topic_kind::rrpc_response>("123") == "/sys/pk/dn/rrpc/response/123");
    CHECK(topics.of<topic_kind::custom_rrpc>("123", "pk/dn/user/get") == "/ext/rrpc/123/pk/dn/user/get");
    CHECK(topics.of<topic_kind::ntp_request>() == "/ext/ntp/pk/dn/request");
    CHECK(topics.of<topic_kind::error_notice>() == "/ext/error/pk/dn");
    CHECK(topics.of<topic_kind::ota_inform>() == "/ota/device/inform/pk/dn");
    CHECK(topics.of<topic_kind::shadow_update>() == "/shadow/update/pk/dn");
    CHECK(topics.of<topic_kind::product_broadcast>("all/of/you") == "/broadcast/pk/all/of/you");
    CHECK(topics.of<topic_kind::sub_device_login>() == "/ext/session/pk/dn/combine/login");
    CHECK(topics.reply_of<topic_kind::sub_device_login>() == "/ext/session/pk/dn/combine/login_reply");
    CHECK(topics.of<topic_kind::registered>() == "/ext/register");
}

TEST_CASE("every topic of the platform is taken apart into what it was put together from") {
    for (topic_rule const& rule : topic_rules)
        for (bool reply : {false, true}) {
            if (reply && !rule.has_reply) continue;
            auto const has = [&](std::string_view part) { return rule.pattern.find(part) != rule.pattern.npos; };
            topic_parts const parts{.kind = rule.kind,
                                    .reply = reply,
                                    .product_key = has("{pk}") ? "a1X2bEnP82z" : "",
                                    .device_name = has("{dn}") ? "example:1" : "",
                                    .id = has("{id}") ? "identifier" : "",
                                    .rest = has("{rest}") ? "one/two_reply" : ""};
            topic_name name;
            CAPTURE(rule.pattern);
            REQUIRE(build_topic(parts, name) == errc::ok);
            CHECK(name.view().find('{') == std::string_view::npos);
            CHECK(parts_of(name) == parts);
            CHECK(check_topic(name) == errc::ok);
        }
}

TEST_CASE("topics of properties are not taken for an event or a service called property") {
    CHECK(parts_of("/sys/pk/dn/thing/event/property/post").kind == topic_kind::property_post);
    CHECK(parts_of("/sys/pk/dn/thing/event/alarm/post").id == "alarm");
    CHECK(parts_of("/sys/pk/dn/thing/service/property/set").kind == topic_kind::property_set);
    CHECK(parts_of("/sys/pk/dn/thing/service/reboot").id == "reboot");
}

TEST_CASE("a custom topic keeps what looks like the end of a reply") {
    auto const parts = parts_of("/pk/dn/user/update_reply");
    CHECK(parts.kind == topic_kind::custom);
    CHECK(parts.rest == "update_reply");
    CHECK_FALSE(parts.reply);
}

TEST_CASE("topics that are none of the platform's are not understood") {
    for (std::string_view bad : {"",
                                 "/",
                                 "//",
                                 "sys/pk/dn/rrpc/request/1",
                                 "/sys/pk/dn",
                                 "/sys/pk/dn/rrpc/request",
                                 "/sys/pk/dn/rrpc/request/",
                                 "/sys/pk/dn/rrpc/request/1/2",
                                 "/sys//dn/rrpc/request/1",
                                 "/pk/dn/user",
                                 "/pk/dn/user/",
                                 "/pk/dn/other/x",
                                 "pk/dn/user/x",
                                 "/sys/pk/user/x",
                                 "/ext/pk/user/x",
                                 "/ext/rrpc/1",
                                 "/ext/rrpc/1/",
                                 "/ext/ntp/pk/dn/response_reply",
                                 "/ext/error/pk/dn/",
                                 "/shadow/get/pk/dn_reply/x",
                                 "_reply",
                                 "/_reply"}) {
        CAPTURE(bad);
        topic_parts parts{.rest = "unchanged"};
        CHECK(parse_topic(bad, parts) == errc::topic_unknown);
        CHECK(parts.rest == "unchanged");
    }
}

TEST_CASE("parts that would change a topic's form are refused") {
    CHECK_THROWS_AS(topics.of<topic_kind::event_post>(""), std::system_error);
    CHECK_THROWS_AS(topics.of<topic_kind::event_post>("a/b"), std::system_error);
    CHECK_THROWS_AS(topics.of<topic_kind::custom>(""), std::system_error);
    topic_name name("unchanged");
    CHECK(build_topic({.kind = topic_kind::ntp_request, .product_key = "pk"}, name) == errc::topic_part_invalid);
    CHECK(build_topic({.kind = topic_kind::registered, .reply = true}, name) == errc::topic_part_invalid);
    std::string const long_text(256, 'x');
    CHECK(build_topic({.product_key = "pk", .device_name = "dn", .rest = long_text}, name) == errc::topic_too_long);
    CHECK(name == "unchanged");
}

TEST_CASE("a device owns its own topics and those sent to all") {
    CHECK(topics.owns(parts_of("/pk/dn/user/get")));
    CHECK(topics.owns(parts_of("/broadcast/pk/news")));
    CHECK(topics.owns(parts_of("/ext/register")));
    CHECK_FALSE(topics.owns(parts_of("/pk/other/user/get")));
    CHECK_FALSE(topics.owns(parts_of("/sys/other/dn/rrpc/request/1")));
    CHECK_FALSE(topics.owns(parts_of("/broadcast/other/news")));
}
