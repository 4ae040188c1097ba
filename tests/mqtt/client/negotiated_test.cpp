#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// What a session says in CONNECT, and what it tells of the server's answer.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::errc;
using mqtt::protocol_version;
using test::hex;
using test::memory_session;
using test::scripted_peer;
using test::task;
using namespace std::chrono_literals;
using id = mqtt::property_id;

std::string accepted(std::string_view properties) {
    return test::packet(0x20, hex("00 00") + test::properties_field(properties));
}

// A session whose server answers each CONNECT with the next of these.
struct fixture {
    std::vector<std::string> answers;
    std::optional<std::string> on_publish{};  // nothing: the connection ends
    scripted_peer peer{[this](test::heard_packet const& p) -> std::optional<std::string> {
        if (p.type == mqtt::packet_type::connect) return answers.at((std::min)(p.connection, answers.size() - 1));
        if (p.type == mqtt::packet_type::publish) return on_publish;
        if (p.type == mqtt::packet_type::disconnect) return std::nullopt;
        return "";
    }};
    std::optional<memory_session> s;
    std::optional<task<void>> running;

    explicit fixture(std::vector<std::string> a) : answers(std::move(a)) {}

    memory_session& connect(mqtt::session_options options = test::quick("me", protocol_version::v5)) {
        s.emplace(peer.io.get_executor(), peer.transport, std::move(options));
        running.emplace(peer.io, s->run());
        reconnected(0);
        return *s;
    }
    void reconnected(std::uint64_t after) {
        task<std::uint64_t> waiting(peer.io, s->connected(after));
        waiting.run();
    }
};

// CONNECT as the server reads it.
mqtt::connect read(test::heard_packet const& p, protocol_version version = protocol_version::v5) {
    mqtt::connect c;
    CHECK(mqtt::decode(mqtt::fixed_header{.type = p.type}, p.body, version, c) == errc::ok);
    return c;
}

std::vector<mqtt::user_property> all(mqtt::user_property_list const& list) { return {list.begin(), list.end()}; }

}  // namespace

TEST_CASE("negotiated tells nothing without a connection") {
    fixture f({accepted("")});
    memory_session s(f.peer.io.get_executor(), f.peer.transport, test::quick());
    CHECK_FALSE(s.negotiated());
}

TEST_CASE("negotiated tells what the client has asked for where the server names nothing") {
    fixture f({accepted("")});
    auto options = test::quick("me", protocol_version::v5);
    options.keep_alive = 50s;
    options.session_expiry = mqtt::never_expires;
    auto const n = f.connect(options).negotiated();
    REQUIRE(n);
    CHECK(n->version == protocol_version::v5);
    CHECK(n->keep_alive == 50s);
    CHECK(n->session_expiry == mqtt::never_expires);
    CHECK(n->assigned_client_id.empty());
    CHECK(n->server.maximum_qos == mqtt::qos::exactly_once);
    CHECK(n->server.receive_maximum == 65535);
    CHECK(n->response_information.empty());
    CHECK(n->details == nullptr);
    CHECK(read(f.peer.heard.at(0)).props.get<id::session_expiry_interval>() == 0xFFFF'FFFF);
}

TEST_CASE("negotiated tells what the server names in CONNACK") {
    fixture f(
        {accepted(hex("11 00000007 12 0005 'given' 13 0014 1A 0002 'r/' 1F 0002 'hi' 21 0009 22 0005 24 01 25 00"
                      "26 0001 'a' 0001 'b' 26 0001 'a' 0001 'c' 27 00000400 28 00 29 00 2A 00"))});
    auto options = test::quick("", protocol_version::v5);
    options.request_response_information = true;
    auto const n = f.connect(options).negotiated();
    REQUIRE(n);
    CHECK(n->session_expiry == 7s);
    CHECK(n->assigned_client_id == "given");
    CHECK(n->keep_alive == 20s);
    CHECK(n->response_information == "r/");
    CHECK(n->server.receive_maximum == 9);
    CHECK(n->server.topic_alias_maximum == 5);
    CHECK(n->server.maximum_qos == mqtt::qos::at_least_once);
    CHECK_FALSE(n->server.retain_available);
    CHECK(n->server.maximum_packet_size == 1024);
    CHECK_FALSE(n->server.wildcard_subscription_available);
    CHECK_FALSE(n->server.subscription_identifier_available);
    CHECK_FALSE(n->server.shared_subscription_available);
    REQUIRE(n->details);
    CHECK(n->details->reason_string == "hi");
    CHECK(n->details->user_properties == std::vector<std::pair<std::string, std::string>>{{"a", "b"}, {"a", "c"}});
}

TEST_CASE("negotiated tells of this connection, not of the one before") {
    fixture f({accepted(hex("11 00000007 1F 0002 'hi'")), accepted("")});
    auto& s = f.connect();
    CHECK(s.negotiated()->details);
    s.try_publish("cut", "");
    f.reconnected(1);
    auto const n = s.negotiated();
    REQUIRE(n);
    CHECK(n->details == nullptr);
    CHECK(n->session_expiry == 3600s);
}

TEST_CASE("of a CONNACK of more than 64 KiB the server's words are not kept, but its limits hold") {
    std::string many;
    while (many.size() <= 64 * 1024) many += hex("26 0001 'a' 0001 'b'");
    fixture f({accepted(hex("21 00 09") + many)});
    auto const n = f.connect().negotiated();
    REQUIRE(n);
    CHECK(n->details == nullptr);
    CHECK(n->server.receive_maximum == 9);
}

TEST_CASE("MQTT 3.1.1 negotiates nothing: a session lasts for ever, or as long as its connection") {
    for (bool const clean : {false, true}) {
        fixture f({hex("20 02 00 00")});
        auto options = test::quick("me");
        options.clean_start = clean;
        options.keep_alive = 0s;
        auto const n = f.connect(options).negotiated();
        REQUIRE(n);
        CHECK(n->version == protocol_version::v3_1_1);
        CHECK(n->keep_alive == 0s);
        CHECK(n->session_expiry == (clean ? 0s : mqtt::never_expires));
    }
    fixture f({hex("20 02 00 00")});  // without a client identifier a session has to be clean [MQTT-3.1.3-7]
    auto const n = f.connect(test::quick("")).negotiated();
    REQUIRE(n);
    CHECK(n->session_expiry == 0s);
}

TEST_CASE("CONNECT has the user properties of the options, and says whether reasons are wanted") {
    for (bool const wanted : {true, false}) {
        fixture f({accepted("")});
        auto options = test::quick("me", protocol_version::v5);
        options.user_properties = {{"site", "north"}, {"site", "south"}};
        options.request_problem_information = wanted;
        f.connect(options);
        auto const c = read(f.peer.heard.at(0));
        CHECK(all(c.props.get<id::user_property>()) ==
              std::vector<mqtt::user_property>{{"site", "north"}, {"site", "south"}});
        CHECK(c.props.get<id::request_problem_information>() ==
              (wanted ? std::nullopt : std::optional<std::uint8_t>(0)));
    }
}

TEST_CASE("a server that was asked for no reasons breaks the protocol by giving one") {
    fixture f({accepted("")});
    auto options = test::quick("me", protocol_version::v5);
    options.request_problem_information = false;
    options.reconnect.attempts = 1;
    auto& s = f.connect(options);
    f.on_publish = test::packet(0x40, hex("0001 00") + test::properties_field(hex("1F 0002 'no'")));
    task<mqtt::publish_result> publishing(f.peer.io, s.publish("t", "x", {.qos = mqtt::qos::at_least_once}));
    CHECK(f.running->run_for_error() == errc::problem_information_unwanted);
}

TEST_CASE("a will has all properties that MQTT 5 gives one") {
    fixture f({accepted("")});
    auto options = test::quick("me", protocol_version::v5);
    options.will = {.topic = "gone",
                    .payload = "{}",
                    .qos = mqtt::qos::at_least_once,
                    .retain = true,
                    .delay = 5s,
                    .payload_is_utf8 = true,
                    .message_expiry = 0s,
                    .content_type = "application/json",
                    .response_topic = "who",
                    .correlation_data = std::string("\0\1", 2),
                    .user_properties = {{"k", "v"}}};
    f.connect(options);
    auto const w = read(f.peer.heard.at(0)).will;
    REQUIRE(w);
    CHECK(w->topic == "gone");
    CHECK(w->retain);
    CHECK(w->props.get<id::will_delay_interval>() == 5);
    CHECK(w->props.get<id::payload_format_indicator>() == 1);
    CHECK(w->props.get<id::message_expiry_interval>() == 0);
    CHECK(w->props.get<id::content_type>() == "application/json");
    CHECK(w->props.get<id::response_topic>() == "who");
    CHECK(w->props.get<id::correlation_data>() == std::string_view("\0\1", 2));
    CHECK(all(w->props.get<id::user_property>()) == std::vector<mqtt::user_property>{{"k", "v"}});
}

TEST_CASE("a will without properties has none") {
    fixture f({accepted("")});
    auto options = test::quick("me", protocol_version::v5);
    options.will = {.topic = "gone", .payload = "bye"};
    f.connect(options);
    auto const w = read(f.peer.heard.at(0)).will;
    REQUIRE(w);
    CHECK(mqtt::present(w->props.parse()) == 0);
}

TEST_CASE("a will's property that cannot be sent is told by name, and nothing is sent") {
    fixture f({accepted("")});
    auto options = test::quick("me", protocol_version::v5);
    options.will = {.topic = "gone", .payload = "", .response_topic = "a/#"};
    memory_session s(f.peer.io.get_executor(), f.peer.transport, options);
    task<void> running(f.peer.io, s.run());
    CHECK(running.run_for_error() == errc::wildcard_in_topic_name);
    CHECK(f.peer.heard.empty());
}
