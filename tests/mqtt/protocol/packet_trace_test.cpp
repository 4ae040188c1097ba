#include <runnel/mqtt/protocol/packet_trace.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include "support/random_packets.hpp"
#include "support/random_source.hpp"
#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace runnel::mqtt;
using enum trace_direction;

namespace {

using lines = std::vector<std::string>;

// One connection, and the lines that are told of it.
struct trace {
    explicit trace(packet_trace_options options = {}) : tracer(options) {}

    void feed(trace_direction way, std::string_view bytes) {
        tracer.feed(way, bytes, [&](trace_level level, std::string_view text) {
            last_level = level;
            told.emplace_back(text);
        });
    }
    template <class Packet>
    trace& operator()(trace_direction way, Packet const& p) {
        feed(way, bytes_of(p));
        return *this;
    }
    template <class Packet>
    std::string bytes_of(Packet const& p) const {
        std::string bytes(encoded_size(p, version), '\0');
        encode(bytes.data(), p, version);
        return bytes;
    }
    trace& connected(protocol_version v) {
        version = v;
        return (*this)(sent, connect{.client_id = "c"});
    }

    protocol_version version = protocol_version::v5;
    packet_tracer tracer;
    lines told;
    trace_level last_level = trace_level::none;
};

std::string last(trace const& t) { return t.told.empty() ? "" : t.told.back(); }

properties with_everything() {
    static std::uint32_t const identifiers[] = {1, 2};
    static user_property const own[] = {{"k", "user property's value"}, {"k", "w"}};
    properties p;
    p.content_type = "text/\"plain\"";
    p.correlation_data = "correlation secret";
    p.response_topic = "r";
    p.message_expiry_interval = 10;
    p.payload_format_indicator = 1;
    p.topic_alias = 4;
    p.subscription_identifiers = identifiers;
    p.user_properties = own;
    return p;
}

}  // namespace

TEST_CASE("CONNECT tells who connects and how, and neither password nor user name") {
    properties props, will_props;
    props.authentication_method = "SCRAM-SHA-256";
    props.authentication_data = "authentication secret";
    props.receive_maximum = 7;
    will_props.content_type = "text";
    connect c{.client_id = "dev\n1",
              .keep_alive = 60,
              .clean_start = true,
              .will = will{"w", "will secret", qos::at_least_once, true, &will_props},
              .user_name = "user secret",
              .password = "password secret",
              .props = &props};
    for (auto const level : {trace_level::packets, trace_level::details}) {
        trace t({.level = level});
        t(sent, c);
        auto const text = last(t);
        CAPTURE(text);
        bool const detailed = level == trace_level::details;
        CHECK(text.starts_with("sent CONNECT, "));
        CHECK(text.find("MQTT 5, client \"dev\\x0a1\", clean start, keep alive 60 s") != text.npos);
        CHECK(text.find("password of 15 bytes") != text.npos);
        CHECK(text.find("will to \"w\", QoS 1, retain, payload of 11 bytes") != text.npos);
        for (auto const* secret : {"password secret", "authentication secret", "will secret"})
            CHECK(text.find(secret) == text.npos);
        CHECK((text.find("user name \"user secret\"") != text.npos) == detailed);
        CHECK((text.find("user name of 11 bytes") != text.npos) == !detailed);
        CHECK((text.find("Authentication Data of 21 bytes") != text.npos) == detailed);
        CHECK((text.find("Receive Maximum 7") != text.npos) == detailed);
        CHECK((text.find("Content Type \"text\"") != text.npos) == detailed);
        CHECK(t.tracer.version() == protocol_version::v5);
    }
    trace old;
    old.version = protocol_version::v3_1_1;
    old(sent, connect{.client_id = "a", .clean_start = true});
    CHECK(last(old) == "sent CONNECT, 15 bytes: MQTT 3.1.1, client \"a\", clean session, keep alive 0 s");
    CHECK(old.tracer.version() == protocol_version::v3_1_1);
}

TEST_CASE("payloads are told by their size, and shown as far as is asked for") {
    publish const p{.topic = "a/b", .payload = "secret\n\"rest\"", .qos = qos::at_least_once, .packet_id = 7};
    auto const text = [&](std::size_t payload) {
        trace t({.payload = payload});
        return last(t.connected(protocol_version::v5)(sent, p));
    };
    CHECK(text(0) == "sent PUBLISH 7, 23 bytes: \"a/b\", QoS 1, payload of 13 bytes");
    CHECK(text(2) == "sent PUBLISH 7, 23 bytes: \"a/b\", QoS 1, payload of 13 bytes \"se\" and more");
    CHECK(text(100) == "sent PUBLISH 7, 23 bytes: \"a/b\", QoS 1, payload of 13 bytes \"secret\\x0a\\\"rest\\\"\"");
}

TEST_CASE("each packet has a line, in both versions") {
    trace t;
    t.connected(protocol_version::v5);
    auto const line = [&](auto const& p) {
        t(received, p);
        return last(t);
    };
    subscription_request const wanted[] = {{.filter = "a/#", .maximum_qos = qos::at_least_once},
                                           {.filter = "b",
                                            .maximum_qos = qos::exactly_once,
                                            .no_local = true,
                                            .retain_as_published = true,
                                            .handling = retain_handling::do_not_send}};
    std::string_view const filters[] = {"a/#", "b"};
    reason_code const granted[] = {reason_code::granted_qos_0, reason_code::granted_qos_2, reason_code::not_authorized};
    reason_code const gone[] = {reason_code::success, reason_code::no_subscription_existed};
    CHECK(line(connack{.session_present = true}) == "received CONNACK, 5 bytes: Success, session present");
    CHECK(line(publish{.topic = "t", .retain = true}) ==
          "received PUBLISH, 6 bytes: \"t\", QoS 0, retain, payload of 0 bytes");
    CHECK(line(publish{.topic = "t", .qos = qos::exactly_once, .dup = true, .packet_id = 3}) ==
          "received PUBLISH 3, 8 bytes: \"t\", DUP, QoS 2, payload of 0 bytes");
    CHECK(line(acknowledgement{packet_type::puback, 7, reason_code::quota_exceeded, {}}) ==
          "received PUBACK 7, 5 bytes: Quota exceeded");
    CHECK(line(acknowledgement{packet_type::pubrel, 7, reason_code::success, {}}) ==
          "received PUBREL 7, 4 bytes: Success");
    CHECK(line(subscribe{1, wanted, {}}) ==
          "received SUBSCRIBE 1, 15 bytes: \"a/#\" QoS 1, \"b\" QoS 2 no local retain as published retain handling 2");
    CHECK(line(suback{1, granted, {}}) == "received SUBACK 1, 8 bytes: QoS 0, QoS 2, Not authorized");
    CHECK(line(unsubscribe{2, filters, {}}) == "received UNSUBSCRIBE 2, 13 bytes: \"a/#\", \"b\"");
    CHECK(line(unsuback{2, gone, {}}) == "received UNSUBACK 2, 7 bytes: Success, No subscription existed");
    CHECK(line(pingreq{}) == "received PINGREQ, 2 bytes");
    CHECK(line(pingresp{}) == "received PINGRESP, 2 bytes");
    CHECK(line(disconnect{reason_code::server_busy, {}}) == "received DISCONNECT, 3 bytes: Server busy");
    properties method;
    method.authentication_method = "M";
    CHECK(line(auth{reason_code::continue_authentication, &method}) ==
          "received AUTH, 8 bytes: Continue authentication");

    t.connected(protocol_version::v3_1_1);
    CHECK(line(connack{}) == "received CONNACK, 4 bytes: Success");
    CHECK(line(acknowledgement{packet_type::puback, 7, {}, {}}) == "received PUBACK 7, 4 bytes");
    CHECK(line(suback{1, granted[0], {}}) == "received SUBACK 1, 5 bytes: QoS 0");
    CHECK(line(unsuback{2, {}, {}}) == "received UNSUBACK 2, 4 bytes");
    CHECK(line(disconnect{}) == "received DISCONNECT, 2 bytes");
    CHECK(t.last_level == trace_level::packets);
}

TEST_CASE("properties are details, but what is said to people is always told") {
    auto const props = with_everything();
    properties why;
    why.reason_string = "go\naway";
    why.server_reference = "b.example";
    auto const told = [&](trace_level level) {
        trace t({.level = level});
        t.connected(protocol_version::v5)(received, publish{.topic = "t", .props = &props});
        t(received, disconnect{reason_code::use_another_server, &why});
        return std::pair(t.told[1], t.told[2]);
    };
    auto const [some, end] = told(trace_level::packets);
    CHECK(some.ends_with(": \"t\", Topic Alias 4, QoS 0, payload of 0 bytes"));
    CHECK(end.ends_with(": Use another server, Server Reference \"b.example\", Reason String \"go\\x0aaway\""));
    auto const [all, same] = told(trace_level::details);
    CHECK(
        all.ends_with(": \"t\", QoS 0, payload of 0 bytes, Payload Format Indicator 1, Message Expiry Interval 10, "
                      "Content Type \"text/\\\"plain\\\"\", Response Topic \"r\", Correlation Data of 18 bytes, "
                      "Subscription Identifier 1, Subscription Identifier 2, Topic Alias 4, "
                      "User Property \"k\" = \"user property's value\", User Property \"k\" = \"w\""));
    CHECK(same == end);
}

TEST_CASE("lines have a limit, and do not end within a character") {
    std::string topic;
    for (int i = 0; i < 200; ++i) topic += "\xE6\xB8\xA9";
    for (std::size_t limit = 1; limit < 300; ++limit) {
        trace t({.payload = 1'000'000, .line = limit});
        t.connected(protocol_version::v5)(sent, publish{.topic = topic, .payload = topic});
        auto const text = last(t);
        CHECK(text.size() <= limit + 3 + 5);
        CHECK(text.ends_with("..."));
        CHECK(runnel::is_utf8(text));
    }
    std::vector<subscription_request> const many(5000, subscription_request{.filter = "a/b"});
    trace t;
    t.connected(protocol_version::v5)(sent, subscribe{1, many, {}});
    CHECK(last(t).size() <= 1000 + 3 + 5);
}

TEST_CASE("what is malformed is told at the level of failures, whatever is told besides") {
    for (auto const level : {trace_level::failures, trace_level::connections, trace_level::packets}) {
        trace t({.level = level});
        t.connected(protocol_version::v5);
        t.told.clear();
        t.feed(received, test::hex("40 02 00 00"));  // the identifier is 0
        CHECK(last(t) ==
              "received PUBACK, 4 bytes, malformed: " + make_error_code(errc::packet_identifier_zero).message());
        CHECK(t.last_level == trace_level::failures);
        t.feed(received, test::hex("D0 00"));
        t.feed(received, "HTTP/1.1 400");
        CHECK(t.told.size() == (level == trace_level::packets ? 3u : 2u));
        CHECK(last(t) == "received what is no MQTT: " + make_error_code(errc::invalid_header_flags).message() +
                             "; what follows is not looked at");
        t.feed(received, test::hex("D0 00"));
        t.feed(received, test::hex("00 00"));
        CHECK(t.told.size() == (level == trace_level::packets ? 3u : 2u));
        CHECK(t.tracer.unread(received) == 11 + 4);
        t.feed(sent, test::hex("C0 00"));  // the other direction goes on
        CHECK(t.tracer.unread(sent) == 0);
    }
    trace quiet({.level = trace_level::none});
    quiet.connected(protocol_version::v5).feed(received, "HTTP");
    CHECK(quiet.told.empty());
}

TEST_CASE("without CONNECT, or with one of an unknown version, packets are told by type and size") {
    trace t;
    t.feed(received, test::hex("40 02 00 07"));
    CHECK(last(t) == "received PUBACK, 4 bytes");
    t.feed(sent, test::packet(0x10, test::field("MQTT") + test::hex("06 02 00 00 00 00")));
    CHECK(last(t) == "sent CONNECT, malformed: " + make_error_code(errc::unsupported_protocol_version).message());
    t.feed(received, test::hex("40 02 00 00"));
    CHECK(last(t) == "received PUBACK, 4 bytes");
    CHECK(t.tracer.version() == protocol_version::automatic);
    t.connected(protocol_version::v5)
        .feed(sent, test::packet(0x10, test::field("MQTT") + test::hex("06 02 00 00 00 00")));
    CHECK(t.tracer.version() == protocol_version::automatic);
}

TEST_CASE("a server that answers in the other version is told of as such") {
    trace t;
    t.connected(protocol_version::v5).feed(received, test::hex("20 02 00 01"));
    CHECK(last(t) == "received CONNACK, 4 bytes in the other version of MQTT");
    CHECK(t.last_level == trace_level::packets);
    t.connected(protocol_version::v3_1_1).feed(received, test::hex("20 03 00 84 00"));
    CHECK(last(t) == "received CONNACK, 5 bytes in the other version of MQTT");
}

TEST_CASE("of a large message only the beginning is kept, and the rest is counted") {
    trace t({.payload = 3});
    t.connected(protocol_version::v5);
    std::string const payload(100'000, 'x');
    publish const p{.topic = "large", .payload = payload, .qos = qos::at_least_once, .packet_id = 9};
    auto const bytes = t.bytes_of(p);
    for (std::size_t at = 0; at < bytes.size(); at += 1000) t.feed(sent, std::string_view(bytes).substr(at, 1000));
    CHECK(last(t) == "sent PUBLISH 9, " + std::to_string(bytes.size()) +
                         " bytes: \"large\", QoS 1, payload of 100000 bytes \"xxx\" and more");
    // Properties that are longer than what is kept.
    std::vector<user_property> const many(400, user_property{"name", std::string_view(payload).substr(0, 100)});
    properties props;
    props.user_properties = many;
    subscription_request const wanted{.filter = "a"};
    std::vector<reason_code> const granted(20'000, reason_code::success);
    for (auto const& long_one : {t.bytes_of(publish{.topic = "t", .payload = payload, .props = &props}),
                                 t.bytes_of(subscribe{1, wanted, &props}), t.bytes_of(suback{1, granted, {}})}) {
        for (std::size_t at = 0; at < long_one.size(); at += 1000)
            t.feed(sent, std::string_view(long_one).substr(at, 1000));
        CHECK(last(t).ends_with(std::to_string(long_one.size()) + " bytes, too long to be looked into"));
        CHECK(t.last_level == trace_level::packets);
    }
    t(sent, pingreq{});
    CHECK(last(t) == "sent PINGREQ, 2 bytes");
}

TEST_CASE("lines are the same however the bytes come, without controls") {
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        test::random_source random(static_cast<std::uint32_t>(version) + 7);
        test::random_packets packets(random, version);
        trace whole({.level = trace_level::details, .payload = 20});
        whole.connected(version);
        std::string flow;
        for (int i = 0; i < 300; ++i)
            packets.next([&]<class Packet>(Packet const& p) {
                auto const bytes = whole.bytes_of(p);
                if (bytes.size() > packet_tracer::maximum_kept || std::is_same_v<Packet, connect>) return;
                whole(received, p);
                flow += bytes;
            });
        for (auto const& line : whole.told) {
            CHECK(line.find("malformed") == line.npos);
            CHECK(std::none_of(line.begin(), line.end(), [](char c) { return c >= 0 && c < ' '; }));
            CHECK(runnel::is_utf8(line));
        }
        for (std::size_t const piece : {1u, 2u, 3u, 5u, 100u, 4096u}) {
            trace t({.level = trace_level::details, .payload = 20});
            t.connected(version);
            for (std::size_t at = 0; at < flow.size(); at += piece)
                t.feed(received, std::string_view(flow).substr(at, piece));
            CHECK(t.told == whole.told);
        }
    }
}

TEST_CASE("an exception of whoever gets the lines ends a direction, not the other") {
    packet_tracer tracer;
    int calls = 0;
    auto const fail = [&](trace_level, std::string_view) {
        ++calls;
        throw std::runtime_error("of the user's");
    };
    CHECK_THROWS(tracer.feed(sent, test::hex("C0 00 C0 00"), fail));
    tracer.feed(sent, test::hex("C0 00"), fail);
    CHECK(calls == 1);
    CHECK_THROWS(tracer.feed(received, test::hex("D0 00"), fail));
    CHECK(calls == 2);
}
