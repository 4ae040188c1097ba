#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <support/packets.hpp>
#include <support/session_end.hpp>
#include <vector>

// What goes beside packets and their reasons in MQTT 5: reason strings, user properties, identifiers, references.

using namespace runnel::mqtt;
using test::session_end;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;
constexpr auto q1 = qos::at_least_once;
constexpr auto q2 = qos::exactly_once;
constexpr auto puback = packet_type::puback, pubrec = packet_type::pubrec, pubcomp = packet_type::pubcomp;
constexpr user_property pairs[] = {{"name", "value"}, {"name", "another"}};

// A reason string and user properties.
properties details() {
    properties p;
    p.reason_string = "so that you know";
    p.user_properties = pairs;
    return p;
}

acknowledgement decoded(std::string_view bytes) {
    auto const f = next_frame(bytes);
    acknowledgement a;
    CHECK(decode(f.header, f.body, v5, a) == errc::ok);
    return a;
}

// One end that may send acknowledgements, at which two messages have arrived; the peer has these capabilities.
struct receiver : session_end {
    explicit receiver(capabilities peer = {}) : session_end(role::server, v5) {
        accept(false, peer);
        receive_publish("a", q1, 7);
        receive_publish("b", q2, 8);
    }
    errc acknowledge(std::size_t which, reason_code reason, properties const& p) {
        return state.acknowledge(out, messages[which].token, reason, &p);
    }
};

}  // namespace

TEST_CASE("reason string and user properties go with an acknowledgement, also when it has to wait for others") {
    auto const p = details();
    receiver r;
    r.receive_publish("c", q1, 9);
    CHECK(r.state.acknowledge(r.out, r.messages[2].token, reason_code::quota_exceeded, &p) == errc::ok);
    CHECK(r.take_bytes() == "");  // the one before it, of the same QoS
    CHECK(r.acknowledge(1, reason_code::quota_exceeded, p) == errc::ok);
    CHECK(r.take_bytes() == test::encoded(acknowledgement{pubrec, 8, reason_code::quota_exceeded, &p}, v5));
    CHECK(r.acknowledge(0, reason_code::success, p) == errc::ok);
    auto const bytes = r.take_bytes();
    CHECK(bytes == test::encoded(acknowledgement{puback, 7, reason_code::success, &p}, v5) +
                       test::encoded(acknowledgement{puback, 9, reason_code::quota_exceeded, &p}, v5));
    r.receive_publish("d", q1, 10);
    r.state.acknowledge(r.out, r.messages[3].token);
    CHECK(r.sent() == "PUBACK 10");
}

TEST_CASE("each acknowledgement has its own details, in whatever order messages are taken") {
    auto const named = [](char const* reason) {
        properties p;
        p.reason_string = reason;
        return p;
    };
    properties const first = named("first"), second = named("second"), third = named("third");
    for (bool const in_order : {false, true}) {
        receiver r;
        r.receive_publish("c", q1, 9);
        r.receive_publish("d", q1, 10);
        if (in_order) r.acknowledge(2, reason_code::quota_exceeded, second);
        r.acknowledge(3, reason_code::quota_exceeded, third);
        if (!in_order) r.acknowledge(2, reason_code::quota_exceeded, second);
        CHECK(r.take_bytes() == "");
        r.acknowledge(0, reason_code::success, first);
        CHECK(r.take_bytes() ==
              test::encoded(acknowledgement{puback, 7, reason_code::success, &first}, v5) +
                  test::encoded(acknowledgement{puback, 9, reason_code::quota_exceeded, &second}, v5) +
                  test::encoded(acknowledgement{puback, 10, reason_code::quota_exceeded, &third}, v5));
    }
}

TEST_CASE("PUBACK and PUBREC leave out what makes them too large for the peer") {
    // Shows [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3].
    auto const p = details();
    for (std::uint32_t size = 5; size < 60; ++size) {
        receiver r({.maximum_packet_size = size});
        for (std::size_t which : {1u, 0u}) r.acknowledge(which, reason_code::quota_exceeded, p);
        auto const bytes = r.take_bytes();
        std::string_view rest = bytes;
        for (auto const type : {pubrec, puback}) {
            auto const f = next_frame(rest);
            CHECK(f.total_size <= size);
            auto const a = decoded(rest);
            CHECK(a.type == type);
            CHECK(a.reason == reason_code::quota_exceeded);
            rest.remove_prefix(f.total_size);
        }
        CHECK(rest.empty());
    }
}

TEST_CASE("a client that wants no problem information gets none but in DISCONNECT [MQTT-3.1.2-29]") {
    auto const p = details();
    properties asked;
    asked.request_problem_information = std::uint8_t{0};
    receiver r(capabilities::from(asked));
    r.acknowledge(0, reason_code::quota_exceeded, p);
    CHECK(r.take_bytes() == test::encoded(acknowledgement{puback, 7, reason_code::quota_exceeded, {}}, v5));
    reason_code const granted = reason_code::granted_qos_1;
    r.state.suback(r.out, {3, granted, &p});
    r.state.unsuback(r.out, {4, granted, &p});
    CHECK(r.take_bytes() == test::encoded(suback{3, granted, {}}, v5) + test::encoded(unsuback{4, granted, {}}, v5));
    r.state.disconnect(r.out, {reason_code::not_authorized, &p});
    CHECK(r.take_bytes() == test::encoded(disconnect{reason_code::not_authorized, &p}, v5));
}

TEST_CASE("a server that gives problem information to a client that wants none breaks the protocol (3.1.2.11.7)") {
    auto const p = details();
    reason_code const granted = reason_code::granted_qos_0;
    subscription_request const request{.filter = "a"};
    int owner = 0;
    for (bool const wanted : {true, false}) {
        session_end c(role::client, v5);
        c.connect(false, nullptr, {.problem_information = wanted});
        c.publish("a", q1, &owner);
        c.state.subscribe(c.out, {0, request, {}}, &owner);
        errc const expected = wanted ? errc::ok : errc::problem_information_unwanted;
        CHECK(c.receive_packet(acknowledgement{puback, 1, reason_code::success, &p}) == expected);
        c.input.clear();
        CHECK(c.receive_packet(suback{2, granted, &p}) == expected);
    }
    CHECK(reason_for(errc::problem_information_unwanted) == reason_code::protocol_error);
}

TEST_CASE("SUBACK and UNSUBACK leave out what makes them too large for the client") {
    // Shows [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2].
    auto const p = details();
    reason_code const granted = reason_code::granted_qos_1;
    auto const large_suback = test::encoded(suback{3, granted, &p}, v5);
    auto const large_unsuback = test::encoded(unsuback{3, granted, &p}, v5);
    for (auto size = static_cast<std::uint32_t>(large_suback.size() - 1); size <= large_suback.size(); ++size) {
        receiver r({.maximum_packet_size = size});
        bool const fits = size >= large_suback.size();
        r.state.suback(r.out, {3, granted, &p});
        CHECK(r.take_bytes() == (fits ? large_suback : test::encoded(suback{3, granted, {}}, v5)));
        r.state.unsuback(r.out, {3, granted, &p});
        CHECK(r.take_bytes() == (fits ? large_unsuback : test::encoded(unsuback{3, granted, {}}, v5)));
    }
}

TEST_CASE("DISCONNECT leaves out what makes it too large for the peer, but not what counts") {
    // Shows [MQTT-3.14.2-3] [MQTT-3.14.2-4].
    auto p = details();
    p.session_expiry_interval = 0;
    properties announced;
    announced.maximum_packet_size = 20;
    session_end c(role::client, v5);
    c.connect(false, &announced);
    CHECK(c.state.disconnect(c.out, {reason_code::normal_disconnection, &p}) == errc::ok);
    properties expiry;
    expiry.session_expiry_interval = 0;
    CHECK(c.take_bytes() == test::encoded(disconnect{reason_code::normal_disconnection, &expiry}, v5));
}

TEST_CASE("DISCONNECT says what this end may say, and else is not sent") {
    properties p;
    p.session_expiry_interval = 60;
    session_end c(role::client, v5);
    c.connect();  // of a session that ends with its connection
    CHECK(c.state.disconnect(c.out, {reason_code::normal_disconnection, &p}) == errc::property_not_allowed);
    CHECK(c.state.disconnect(c.out, {reason_code::server_shutting_down, {}}) == errc::invalid_reason_code);
    CHECK(c.sent() == "");
    CHECK(c.state.connected());
    session_end d(role::client, v5);
    CHECK(d.state.connect(d.out, {.client_id = "id", .props = &p}, {}) == errc::ok);
    d.take_bytes();
    d.receive_packet(connack{});
    CHECK(d.state.disconnect(d.out, {reason_code::normal_disconnection, &p}) == errc::ok);
    CHECK(d.sent() == "DISCONNECT");
    session_end s(role::server, v5);
    s.accept();
    CHECK(s.state.disconnect(s.out, {reason_code::normal_disconnection, &p}) == errc::property_not_allowed);
}

TEST_CASE("a reason that an acknowledgement cannot have changes nothing") {
    receiver r;
    auto const token = r.messages[0].token;
    properties wrong;
    wrong.server_reference = "elsewhere";
    CHECK(r.state.acknowledge(r.out, token, reason_code::banned) == errc::invalid_reason_code);
    CHECK(r.state.acknowledge(r.out, token, reason_code::success, &wrong) == errc::property_not_allowed);
    CHECK(r.sent() == "");
    CHECK(r.state.acknowledge(r.out, token) == errc::ok);
    CHECK(r.sent() == "PUBACK 7");
}

TEST_CASE("in MQTT 3.1.1 acknowledgements have neither reasons nor properties") {
    session_end c(role::client, v3);
    c.connect();
    c.receive_publish("a", q1, 7);
    auto const p = details();
    CHECK(c.state.acknowledge(c.out, c.messages[0].token, reason_code::quota_exceeded, &p) == errc::ok);
    CHECK(c.take_bytes() == test::encoded(test::ack(puback, 7), v3));
}

TEST_CASE("reason string and user properties of acknowledgements reach the application") {
    struct : session_handler {
        int count = 0;
        void on_published(void*, acknowledgement const& a) {
            ++count;
            CHECK(a.props.get<property_id::reason_string>() == "so that you know");
            std::string values;
            for (auto const& pair : a.props.get<property_id::user_property>()) values.append(pair.value) += ' ';
            CHECK(values == "value another ");
        }
    } handler;
    int owner = 0;
    session_end c(role::client, v5);
    c.connect();
    for (qos const quality : {q1, q2, q2}) c.publish("a", quality, &owner);
    auto const p = details();
    CHECK(c.receive_packet_to(acknowledgement{puback, 1, reason_code::success, &p}, handler) == errc::ok);
    CHECK(c.receive_packet_to(acknowledgement{pubrec, 2, reason_code::quota_exceeded, &p}, handler) == errc::ok);
    CHECK(c.receive_packet_to(acknowledgement{pubrec, 3, reason_code::success, {}}, handler) == errc::ok);
    CHECK(c.receive_packet_to(acknowledgement{pubcomp, 3, reason_code::success, &p}, handler) == errc::ok);
    CHECK(handler.count == 3);
}

TEST_CASE("the subscription identifier of SUBSCRIBE is sent, and those of messages can be read") {
    std::uint32_t const mine = 268'435'455;
    subscription_request const request{.filter = "a"};
    properties p;
    p.subscription_identifiers = mine;
    int owner = 0;
    session_end c(role::client, v5);
    c.connect();
    CHECK(c.state.subscribe(c.out, {0, request, &p}, &owner).error == errc::ok);
    CHECK(c.take_bytes() == test::encoded(subscribe{1, request, &p}, v5));

    struct : session_handler {
        std::vector<std::uint32_t> identifiers;
        void on_message(publish const& m, delivery) {
            for (std::uint32_t const i : m.props.get<property_id::subscription_identifier>()) identifiers.push_back(i);
        }
    } handler;
    std::uint32_t const several[] = {1, mine, 300};
    properties of_message = details();
    of_message.reason_string.reset();
    of_message.subscription_identifiers = several;
    CHECK(c.receive_packet_to(publish{.topic = "a", .props = &of_message}, handler) == errc::ok);
    CHECK(handler.identifiers == std::vector<std::uint32_t>{1, mine, 300});
}

TEST_CASE("a client learns from CONNACK and from DISCONNECT which server to use instead") {
    struct : session_handler {
        std::string references;
        void on_connack(connack const& p) { add(p.reason, p.props); }
        void on_disconnect(disconnect const& p) { add(p.reason, p.props); }
        void add(reason_code reason, property_view const& props) {
            references += reason == reason_code::server_moved ? "moved to " : "use ";
            references.append(props.get<property_id::server_reference>().value_or("none")) += ' ';
        }
    } handler;
    properties p;
    p.server_reference = "other.example:8883";
    session_end c(role::client, v5);
    c.begin_connect();
    CHECK(c.receive_packet_to(connack{false, reason_code::server_moved, &p}, handler) == errc::ok);
    c.connect();
    CHECK(c.receive_packet_to(disconnect{reason_code::use_another_server, &p}, handler) == errc::ok);
    CHECK(handler.references == "moved to other.example:8883 use other.example:8883 ");
}

TEST_CASE("a session that this end knows nothing of is taken up, unless that is not wanted [MQTT-3.2.2-4]") {
    for (auto const version : {v3, v5}) {
        for (bool const accepted : {true, false}) {
            session_end c(role::client, version, {.accept_unknown_session = accepted});
            c.begin_connect();
            CHECK(c.receive_packet(connack{true, reason_code::success, {}}) ==
                  (accepted ? errc::ok : errc::session_present_unexpected));
            CHECK(c.state.connected() == accepted);
            session_end d(role::client, version, {.accept_unknown_session = accepted});
            d.connect();
            d.lose_connection();
            d.begin_connect();
            CHECK(d.receive_packet(connack{true, reason_code::success, {}}) == errc::ok);
        }
    }
}
