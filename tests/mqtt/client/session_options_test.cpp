#include <runnel/mqtt/client/session_options.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace {

using namespace runnel::mqtt;
using namespace std::chrono_literals;

// What users write in braces in a co_await expression: g++ 12 destroys anything else twice.
static_assert(std::is_trivially_destructible_v<publish_options> && std::is_aggregate_v<publish_options>);
static_assert(std::is_trivially_destructible_v<subscribe_options> && std::is_aggregate_v<subscribe_options>);

template <class Change>
std::string refusal(Change change) {
    session_options o;
    o.version = protocol_version::v5;
    o.will.emplace();
    change(o);
    try {
        check(o);
    } catch (std::out_of_range const& e) {
        return e.what();
    }
    return {};
}

bool mentions(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the defaults, and the ends of all ranges, are possible") {
    CHECK(refusal([](auto&) {}).empty());
    CHECK(refusal([](auto& o) { o.keep_alive = 0s; }).empty());
    CHECK(refusal([](auto& o) { o.keep_alive = 65'535s; }).empty());
    CHECK(refusal([](auto& o) { o.session_expiry = 4'294'967'295s; }).empty());
    CHECK(refusal([](auto& o) { o.connect_timeout = o.response_timeout = o.close_timeout = 1ms; }).empty());
    CHECK(refusal([](auto& o) { o.maximum_packet_size = 1; }).empty());
    CHECK(refusal([](auto& o) { o.maximum_queued = o.maximum_unwritten = 1; }).empty());
}

TEST_CASE("seconds out of range are refused, with value and range in the text") {
    CHECK(refusal([](auto& o) { o.keep_alive = 65'536s; }) == "keep_alive is 65536 s; it must be 0 to 65535 s");
    CHECK(mentions(refusal([](auto& o) { o.keep_alive = -1s; }), "keep_alive is -1 s"));
    CHECK(mentions(refusal([](auto& o) { o.session_expiry = 4'294'967'296s; }), "0 to 4294967295 s"));
    CHECK(mentions(refusal([](auto& o) { o.session_expiry = -1s; }), "session_expiry"));
    CHECK(mentions(refusal([](auto& o) { o.will->delay = -1s; }), "will.delay"));
    CHECK(mentions(refusal([](auto& o) { o.will->message_expiry = 4'294'967'296s; }), "will.message_expiry"));
}

TEST_CASE("what must be positive is refused at zero, by name") {
    CHECK(mentions(refusal([](auto& o) { o.connect_timeout = 0ms; }), "connect_timeout (ms) must be 1 or more"));
    CHECK(mentions(refusal([](auto& o) { o.response_timeout = -1ms; }), "response_timeout"));
    CHECK(mentions(refusal([](auto& o) { o.close_timeout = 0ms; }), "close_timeout"));
    CHECK(mentions(refusal([](auto& o) { o.maximum_packet_size = 0; }), "maximum_packet_size"));
    CHECK(mentions(refusal([](auto& o) { o.receive_maximum = 0; }), "receive_maximum"));
    CHECK(mentions(refusal([](auto& o) { o.maximum_in_flight = 0; }), "maximum_in_flight"));
    CHECK(mentions(refusal([](auto& o) { o.maximum_queued = 0; }), "maximum_queued"));
    CHECK(mentions(refusal([](auto& o) { o.maximum_unwritten = 0; }), "maximum_unwritten"));
    CHECK(mentions(refusal([](auto& o) { o.reconnect.initial = 0ms; }), "reconnect.initial"));
}

TEST_CASE("what only MQTT 5 has is refused by name in a session of MQTT 3.1.1") {
    auto const refused = [](auto change) -> std::string {
        session_options o;
        o.will.emplace();
        check(o);
        change(o);
        o.version = protocol_version::v5;
        check(o);
        o.version = protocol_version::v3_1_1;
        try {
            check(o);
        } catch (std::system_error const& e) {
            CHECK(e.code() == errc::not_in_this_version);
            std::string const text = e.what();
            return text.substr(0, text.find(':'));
        }
        return {};
    };
    CHECK(refused([](auto& o) { o.request_response_information = true; }) == "request_response_information");
    CHECK(refused([](auto& o) { o.request_problem_information = false; }) == "request_problem_information");
    CHECK(refused([](auto& o) { o.session_expiry = never_expires; }) == "session_expiry");
    CHECK(refused([](auto& o) { o.user_properties = {{"a", "b"}}; }) == "user_properties");
    CHECK(refused([](auto& o) { o.follow_redirects = true; }) == "follow_redirects");
    CHECK(refused([](auto& o) { o.will->delay = 1s; }) == "will.delay");
    CHECK(refused([](auto& o) { o.will->payload_is_utf8 = true; }) == "will.payload_is_utf8");
    CHECK(refused([](auto& o) { o.will->message_expiry = 0s; }) == "will.message_expiry");
    CHECK(refused([](auto& o) { o.will->content_type = "text/plain"; }) == "will.content_type");
    CHECK(refused([](auto& o) { o.will->response_topic = "t"; }) == "will.response_topic");
    CHECK(refused([](auto& o) { o.will->correlation_data = "c"; }) == "will.correlation_data");
    CHECK(refused([](auto& o) { o.will->user_properties = {{"a", "b"}}; }) == "will.user_properties");
    CHECK(refused([](auto& o) { o.incoming_topic_aliases = o.outgoing_topic_aliases = 3; }).empty());
}
