#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/scripted_peer.hpp"
#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Each property of MQTT 5, in each packet that may have it, is sent by some call of a session, and told by another. The
// table of properties is gone through: what is in no call must stand here, with the reason.

namespace {

namespace mqtt = runnel::mqtt;
using mqtt::packet_type;
using mqtt::property_id;
using mqtt::qos;
using mqtt::reason_code;
using test::hex;
using test::memory_session;
using test::scripted_peer;
using test::task;
using namespace std::chrono_literals;

constexpr auto v5 = mqtt::protocol_version::v5;
using place = std::pair<packet_type, property_id>;
using place_set = std::set<place>;

// What a server alone may send.
place_set const of_servers = {{packet_type::publish, property_id::subscription_identifier},
                              {packet_type::disconnect, property_id::server_reference}};
// What a client alone may send.
place_set const of_clients = {{packet_type::disconnect, property_id::session_expiry_interval}};

std::map<place, char const*> const not_sent = {
    {{packet_type::pubrel, property_id::reason_string}, "the session's own packet, which says what PUBREC said"},
    {{packet_type::pubrel, property_id::user_property}, "likewise"},
    {{packet_type::pubcomp, property_id::reason_string}, "the session's own packet: the message was taken before"},
    {{packet_type::pubcomp, property_id::user_property}, "likewise"},
    {{packet_type::auth, property_id::reason_string}, "authenticators deal in data alone"},
    {{packet_type::auth, property_id::user_property}, "likewise"},
};
std::map<place, char const*> const not_told = {
    {{packet_type::pubrel, property_id::reason_string}, "the session answers PUBREL; it changes nothing"},
    {{packet_type::pubrel, property_id::user_property}, "likewise"},
    {{packet_type::pubrec, property_id::user_property}, "an exception has the text alone"},
    {{packet_type::connack, property_id::server_reference}, "followed, and told by an event: destination_test.cpp"},
    {{packet_type::disconnect, property_id::server_reference}, "likewise"},
    {{packet_type::publish, property_id::topic_alias}, "stands for the topic, which is told"},
    {{packet_type::auth, property_id::reason_string}, "authenticators deal in data alone"},
    {{packet_type::auth, property_id::user_property}, "likewise"},
};

// Where the properties may stand in packets of these types.
place_set allowed(std::set<packet_type> const& types, place_set const& of_others) {
    place_set all;
    mqtt::for_each_property([&](auto i) {
        auto const& definition = std::get<i>(mqtt::property_table);
        for (auto const type : types)
            if (definition.packets.contains(type)) all.insert({type, definition.id});
        return true;
    });
    for (auto const& p : of_others) all.erase(p);
    return all;
}

std::string text_of(place_set const& set) {
    std::string text;
    for (auto const& [type, id] : set)
        text +=
            std::string(mqtt::definition_of(id).name) + " in packet " + std::to_string(static_cast<int>(type)) + "; ";
    return text;
}

void note(place_set& where, packet_type type, mqtt::property_view const& view) {
    mqtt::for_each_property([&](auto i) {
        auto const id = std::get<i>(mqtt::property_table).id;
        if (view.has(id)) where.insert({type, id});
        return true;
    });
}

struct with_method {
    std::string method() const { return "m"; }
    asio::awaitable<std::string> begin() { co_return "data"; }
    asio::awaitable<std::string> answer(std::string) { co_return "more"; }
    asio::awaitable<void> finish(std::string data) {
        *said = std::move(data);
        co_return;
    }
    std::string* said;
};

constexpr std::string_view words = "1F 0003 'why' 26 0001 'k' 0001 'v'";  // reason string and a user property
constexpr std::string_view accepted =
    "11 00000007 12 0005 'given' 13 0014 15 0001 'm' 16 0003 'end' 1A 0002 'r/' 21 0009 22 0005 24 01 25 00 27 00000400"
    "28 00 2A 00";

std::string with_properties(unsigned char first, std::string_view head, std::string_view properties,
                            std::string_view behind = {}) {
    return test::packet(first, std::string(head) + test::properties_field(hex(properties)) + std::string(behind));
}

struct fixture {
    place_set sent;
    std::set<packet_type> seen;
    std::string limits;  // more of them
    scripted_peer peer{[this](test::heard_packet const& p) { return answer(p); }};

    template <class Packet>
    Packet decoded(test::heard_packet const& p, std::uint8_t flags = 0) {
        Packet packet;
        auto const header = mqtt::fixed_header{.type = p.type, .flags = flags};
        CHECK(mqtt::decode(header, p.body, v5, packet) == mqtt::errc::ok);
        seen.insert(p.type);
        if constexpr (requires { packet.props; }) note(sent, p.type, packet.props);
        return packet;
    }

    std::optional<std::string> answer(test::heard_packet const& p) {
        using enum packet_type;
        auto const id = p.body.substr(0, 2);
        switch (p.type) {
            case connect: {
                auto const packet = decoded<mqtt::connect>(p);
                if (packet.will) note(sent, mqtt::will_message, packet.will->props);
                auto const words_too = std::string(accepted) + limits + std::string(words);
                return with_properties(0x20, hex("00 00"), words_too);
            }
            case publish: {  // the first is of QoS 1, the second of QoS 2
                bool const second = seen.contains(pubrec) || seen.contains(publish);
                auto const packet = decoded<mqtt::publish>(p, second ? 4 : 2);
                std::string number{static_cast<char>(packet.packet_id >> 8), static_cast<char>(packet.packet_id)};
                return with_properties(second ? 0x50 : 0x40, number + hex("10"), words);
            }
            case pubrel: decoded<mqtt::acknowledgement>(p, 2); return with_properties(0x70, id + hex("00"), words);
            case pubcomp:
            case puback: decoded<mqtt::acknowledgement>(p); return "";
            case pubrec: decoded<mqtt::acknowledgement>(p); return "";
            case subscribe: {
                decoded<mqtt::subscribe>(p, 2);
                auto const message = [](unsigned char first, std::string_view head) {
                    return with_properties(first, hex(head),
                                           "01 01 02 00000009 03 0001 'c' 08 0001 'r' 09 0001 'd' 0B 01 23 0001"
                                           "26 0001 'k' 0001 'v'",
                                           "hi");
                };
                return with_properties(0x90, id, words, hex("02")) + message(0x32, "0001 't' 0001") +
                       message(0x34, "0001 't' 0002");
            }
            case unsubscribe: decoded<mqtt::unsubscribe>(p, 2); return with_properties(0xB0, id, words, hex("00"));
            case auth: decoded<mqtt::auth>(p); return with_properties(0xF0, hex("00"), "15 0001 'm' 16 0003 'new'");
            case disconnect: decoded<mqtt::disconnect>(p); return std::nullopt;
            default: return "";
        }
    }
};

bool says(std::shared_ptr<mqtt::publish_details const> const& d) {
    return d != nullptr && d->reason_string == "why" && d->user_properties.size() == 1 &&
           d->user_properties[0].first == "k" && d->user_properties[0].second == "v";
}

template <class T>
T run(asio::io_context& io, asio::awaitable<T> what) {
    task<T> running(io, std::move(what));
    return running.run();
}

mqtt::session_options everything() {
    auto o = test::quick("", v5);
    o.user_properties = {{"k", "v"}};
    o.request_problem_information = false;
    o.request_response_information = true;
    o.will = {.topic = "gone",
              .payload = "",
              .delay = 1s,
              .payload_is_utf8 = true,
              .message_expiry = 1s,
              .content_type = "c",
              .response_topic = "r",
              .correlation_data = "d",
              .user_properties = {{"k", "v"}}};
    return o;
}

}  // namespace

TEST_CASE("all properties that a client may send are sent by some call of a session") {
    fixture f;
    auto& io = f.peer.io;
    memory_session s(io.get_executor(), f.peer.transport, everything());
    std::string said;
    s.set_authenticator(with_method{&said});
    task<void> running(io, s.run());
    run(io, s.connected());
    mqtt::properties words_alone, message;
    mqtt::user_property const pair{"k", "v"};
    words_alone.reason_string = "why";
    words_alone.user_properties = pair;
    message.payload_format_indicator = 1;
    message.message_expiry_interval = 9;
    message.content_type = "c";
    message.response_topic = "r";
    message.correlation_data = "d";
    message.user_properties = pair;
    // Reasons were not asked for: MQTT 5 lets this server give none, and the peer here does. So not from it.
    f.peer.answer = [&](test::heard_packet const& p) -> std::optional<std::string> {
        auto const id = p.body.substr(0, 2);
        auto const full = f.answer(p);
        if (p.type == packet_type::publish) {
            auto const& packet = *full;
            return test::packet(static_cast<unsigned char>(packet[0]), packet.substr(2, 2));
        }
        if (p.type == packet_type::pubrel) return test::packet(0x70, id);
        if (p.type == packet_type::subscribe)
            return test::packet(0x90, id + hex("00 02")) + full->substr(full->find("\x32"));
        if (p.type == packet_type::unsubscribe) return test::packet(0xB0, id + hex("00 00"));
        return full;
    };
    std::string const topic = "a topic that is worth an alias";
    run(io, s.publish(topic, "x", {.qos = qos::at_least_once, .props = &message}));
    auto inbox = run(io, s.subscribe("t", {.user_properties = pair}));
    run(io, inbox.receive()).acknowledge(reason_code::success, &words_alone);
    run(io, inbox.receive()).acknowledge(reason_code::success, &words_alone);
    run(io, s.unsubscribe(inbox, pair));
    run(io, s.reauthenticate());
    mqtt::properties ending = words_alone;
    ending.session_expiry_interval = 5;
    run(io, s.disconnect(reason_code::normal_disconnection, &ending));

    using enum packet_type;
    auto missing = allowed({connect, mqtt::will_message, publish, puback, pubrec, pubrel, pubcomp, subscribe,
                            unsubscribe, disconnect, auth},
                           of_servers);
    for (auto const& p : f.sent) missing.erase(p);
    for (auto const& [where, why] : not_sent) {
        INFO(why);
        CHECK(missing.erase(where) == 1);  // else it is sent by now, and this list is wrong
    }
    CHECK(text_of(missing) == "");
}

TEST_CASE("all properties that a server may send are told by some call of a session") {
    using enum packet_type;
    fixture f;
    auto& io = f.peer.io;
    auto options = everything();
    options.request_problem_information = true;
    std::vector<mqtt::session_event> events;
    options.on_event = [&](mqtt::session_event const& e) { events.push_back(e); };
    f.limits = "29 00";
    memory_session s(io.get_executor(), f.peer.transport, options);
    std::string said;
    s.set_authenticator(with_method{&said});
    task<void> running(io, s.run());
    run(io, s.connected());

    auto missing =
        allowed({connack, publish, puback, pubrec, pubrel, pubcomp, suback, unsuback, disconnect, auth}, of_clients);
    auto const told = [&](packet_type where, property_id id, bool is) {
        INFO(text_of({{where, id}}));
        CHECK(is);
        CHECK(missing.erase({where, id}) == 1);
    };
    using enum property_id;
    auto const n = s.negotiated();
    REQUIRE(n);
    told(connack, session_expiry_interval, n->session_expiry == 7s);
    told(connack, assigned_client_identifier, n->assigned_client_id == "given");
    told(connack, server_keep_alive, n->keep_alive == 20s);
    told(connack, authentication_method, said == "end");  // the authenticator knows its method
    told(connack, authentication_data, said == "end");
    told(connack, response_information, n->response_information == "r/");
    told(connack, reason_string, says(n->details));
    told(connack, user_property, says(n->details));
    told(connack, receive_maximum, n->server.receive_maximum == 9);
    told(connack, topic_alias_maximum, n->server.topic_alias_maximum == 5);
    told(connack, maximum_qos, n->server.maximum_qos == qos::at_least_once);
    told(connack, retain_available, !n->server.retain_available);
    told(connack, maximum_packet_size, n->server.maximum_packet_size == 1024);
    told(connack, wildcard_subscription_available, !n->server.wildcard_subscription_available);
    told(connack, subscription_identifier_available, !n->server.subscription_identifier_available);
    told(connack, shared_subscription_available, !n->server.shared_subscription_available);

    auto const acknowledged = run(io, s.publish("x", "x", {.qos = qos::at_least_once}));
    told(puback, reason_string, says(acknowledged.details));
    told(puback, user_property, says(acknowledged.details));

    auto inbox = run(io, s.subscribe("t"));
    told(suback, reason_string, says(inbox.details()) && inbox.reason() == reason_code::granted_qos_2);
    told(suback, user_property, says(inbox.details()));
    auto const m = run(io, inbox.receive());
    auto const props = m.props().parse();
    told(publish, payload_format_indicator, props.payload_format_indicator == 1);
    told(publish, message_expiry_interval, props.message_expiry_interval == 9);
    told(publish, content_type, props.content_type == "c");
    told(publish, response_topic, props.response_topic == "r");
    told(publish, correlation_data, props.correlation_data == "d");
    told(publish, subscription_identifier, props.subscription_identifiers.size() == 1);
    told(publish, user_property, props.user_properties.size() == 1);
    CHECK(m.topic() == "t");
    run(io, s.unsubscribe(inbox));
    told(unsuback, reason_string, says(inbox.details()) && inbox.reason() == reason_code::success);
    told(unsuback, user_property, says(inbox.details()));

    run(io, s.reauthenticate());
    told(auth, authentication_method, said == "new");
    told(auth, authentication_data, said == "new");

    // The second publishing is of QoS 2 where the server takes that; and the server ends the connection.
    scripted_peer plain([](test::heard_packet const& p) -> std::optional<std::string> {
        auto const id = p.body.substr(0, 2);
        if (p.type == connect && p.connection == 0) return with_properties(0x20, hex("00 00"), "");
        if (p.type == connect) return with_properties(0x20, hex("00 9C"), "1C 0001 's' " + std::string(words));
        if (p.type == publish) {
            auto const number = p.body.substr(3, 2);
            if (p.body.back() == '1') return with_properties(0x50, number + hex("00"), words);
            if (p.body.back() == '2') return with_properties(0x50, number + hex("97"), words);
            return with_properties(0xE0, hex("9C"), "1C 0001 's' " + std::string(words));
        }
        if (p.type == pubrel) return with_properties(0x70, id + hex("00"), words);
        return "";
    });
    auto plainly = test::quick("me", v5);
    plainly.reconnect.attempts = 1;
    plainly.follow_redirects = false;
    plainly.on_event = options.on_event;
    memory_session t(plain.io.get_executor(), plain.transport, plainly);
    task<void> other(plain.io, t.run());
    auto const completed = run(plain.io, t.publish("x", "1", {.qos = qos::exactly_once}));
    told(pubcomp, reason_string, says(completed.details));
    told(pubcomp, user_property, says(completed.details));
    task<mqtt::publish_result> refused(plain.io, t.publish("x", "2", {.qos = qos::exactly_once}));
    CHECK(refused.run_for_error() == reason_code::quota_exceeded);
    told(pubrec, reason_string, refused.error_text().find("why") != std::string::npos);
    t.try_publish("x", "3", {.qos = qos::at_least_once});
    other.run_for_error();
    auto const end = std::ranges::find(events, mqtt::session_event::kind::disconnected, &mqtt::session_event::what);
    REQUIRE(end != events.end());
    told(disconnect, reason_string, says(end->details) && end->detail.find("why") != std::string::npos);
    told(disconnect, user_property, says(end->details));

    for (auto const& [where, why] : not_told) {
        INFO(why);
        CHECK(missing.erase(where) == 1);
    }
    CHECK(text_of(missing) == "");
}
