#include <runnel/mqtt/protocol/authentication.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <support/packets.hpp>
#include <support/session_end.hpp>

using namespace runnel::mqtt;
using test::session_end;
using enum reason_code;

namespace {

constexpr auto v5 = protocol_version::v5;

struct packet {
    explicit packet(reason_code reason, std::string_view method = "m", std::string_view data = "d") {
        props.authentication_method = method;
        props.authentication_data = data;
        value.reason = reason;
        value.props = &props;
    }
    packet(packet const&) = delete;
    properties props;
    auth value;
};

errc receive_auth(session_end& end, reason_code reason, std::string_view method = "m") {
    packet const p(reason, method);
    errc const e = end.receive_packet(p.value);
    if (e != errc::ok) end.input.clear();  // so that one mistake after another can be shown
    return e;
}
errc send_auth(session_end& end, reason_code reason, std::string_view method = "m") {
    packet const p(reason, method);
    return end.state.auth(end.out, p.value);
}
errc receive_connack(session_end& end, std::string_view method = "m") {
    packet const p(success, method);
    return end.receive_packet(connack{false, success, method.empty() ? property_view() : property_view(&p.props)});
}

void begin_connect(session_end& c, std::string_view method = "m") {
    packet const p(success, method);
    c.state.connect(c.out, {.client_id = "id", .props = &p.props}, {});
    c.take_bytes();
}
// A client, and a server, that have authenticated each other.
void establish(session_end& c) {
    begin_connect(c);
    CHECK(receive_connack(c) == errc::ok);
}
void accept(session_end& s, capabilities peer = {}) {
    packet const p(success);
    s.state.accept(s.out, {false, success, &p.props}, v5, {}, peer);
    s.take_bytes();
}

}  // namespace

TEST_CASE("only the server ends an authentication [MQTT-4.12.0-3]") {
    authentication a;
    a.begin("m");
    packet const accepted(success);
    CHECK(a.finish(connack{false, success, &accepted.props}) == errc::ok);
    CHECK(a.step(role::client, packet(reauthenticate).value) == errc::ok);
    CHECK(a.step(role::server, packet(continue_authentication).value) == errc::ok);
    CHECK(a.step(role::client, packet(success).value) == errc::authentication_not_due);
    CHECK(a.step(role::client, packet(continue_authentication).value) == errc::ok);
    CHECK(a.step(role::server, packet(success).value) == errc::ok);
    CHECK_FALSE(a.under_way());
}

TEST_CASE("an authentication goes on in turns until CONNACK [MQTT-4.12.0-3]") {
    session_end c(role::client, v5);
    begin_connect(c);
    CHECK(send_auth(c, continue_authentication) == errc::authentication_not_due);
    for (int i = 0; i < 3; ++i) {
        CHECK(receive_auth(c, continue_authentication) == errc::ok);
        CHECK(c.state.authentication().under_way());
        CHECK(send_auth(c, continue_authentication) == errc::ok);
        CHECK(c.sent() == "AUTH");
        CHECK(send_auth(c, continue_authentication) == errc::authentication_not_due);
    }
    CHECK(receive_connack(c) == errc::ok);
    CHECK(c.auths.size() == 3);
    CHECK(c.state.connected());
    CHECK_FALSE(c.state.authentication().under_way());
}

TEST_CASE("a server that does not wait for its turn is at fault") {
    session_end c(role::client, v5);
    begin_connect(c);
    CHECK(receive_auth(c, continue_authentication) == errc::ok);
    CHECK(receive_auth(c, continue_authentication) == errc::unexpected_packet);
    session_end d(role::client, v5);
    begin_connect(d);
    CHECK(receive_auth(d, success) == errc::unexpected_packet);  // the first time it ends by CONNACK
    session_end f(role::client, v5);
    begin_connect(f);
    CHECK(receive_auth(f, continue_authentication) == errc::ok);
    CHECK(receive_connack(f) == errc::authentication_not_due);  // before the client has answered
    CHECK_FALSE(f.state.connected());
    session_end e(role::client, v5);
    establish(e);
    CHECK(receive_auth(e, continue_authentication) == errc::unexpected_packet);
    CHECK(receive_auth(e, success) == errc::unexpected_packet);
}

TEST_CASE("the method is that of CONNECT throughout [MQTT-4.12.0-5]") {
    session_end c(role::client, v5);
    begin_connect(c);
    CHECK(receive_auth(c, continue_authentication, "other") == errc::authentication_method_changed);
    CHECK(receive_auth(c, continue_authentication) == errc::ok);
    CHECK(send_auth(c, continue_authentication, "other") == errc::authentication_method_changed);
    CHECK(receive_connack(c, "other") == errc::authentication_method_changed);
    session_end d(role::client, v5);
    begin_connect(d);
    CHECK(receive_connack(d, "") == errc::authentication_method_missing);
    CHECK_FALSE(d.state.connected());
}

TEST_CASE("without a method in CONNECT the server sends neither AUTH nor a method [MQTT-4.12.0-6]") {
    session_end c(role::client, v5);
    c.begin_connect();
    CHECK(receive_auth(c, continue_authentication) == errc::unexpected_packet);
    session_end d(role::client, v5);
    d.begin_connect();
    CHECK(receive_connack(d) == errc::authentication_method_changed);
    session_end s(role::server, v5);
    s.accept();
    CHECK(send_auth(s, success) == errc::authentication_not_due);
    CHECK(s.sent() == "");
}

TEST_CASE("without a method in CONNECT the client sends no AUTH [MQTT-4.12.0-7]") {
    session_end c(role::client, v5);
    c.connect();
    CHECK(send_auth(c, reauthenticate) == errc::authentication_not_due);
    CHECK(c.sent() == "");
    session_end s(role::server, v5);
    s.accept();
    CHECK(receive_auth(s, reauthenticate) == errc::unexpected_packet);
    CHECK(s.auths.empty());
}

TEST_CASE("a client may authenticate anew, by the same method [MQTT-4.12.1-1]") {
    session_end c(role::client, v5);
    establish(c);
    CHECK(send_auth(c, reauthenticate, "other") == errc::authentication_method_changed);
    for (int i = 0; i < 2; ++i) {
        CHECK(send_auth(c, reauthenticate) == errc::ok);
        CHECK(send_auth(c, reauthenticate) == errc::authentication_not_due);
        CHECK(receive_auth(c, continue_authentication) == errc::ok);
        CHECK(send_auth(c, continue_authentication) == errc::ok);
        c.publish("a", qos::at_most_once);  // other packets go their way meanwhile
        CHECK(receive_auth(c, success) == errc::ok);
        CHECK(c.sent() == "AUTH, AUTH, PUBLISH qos0 a=p");
        CHECK_FALSE(c.state.authentication().under_way());
    }
    CHECK(c.auths.size() == 4);
}

TEST_CASE("a server authenticates a client anew [MQTT-4.12.0-2]") {
    session_end s(role::server, v5);
    accept(s);
    CHECK(receive_auth(s, reauthenticate, "other") == errc::authentication_method_changed);
    CHECK(receive_auth(s, continue_authentication) == errc::unexpected_packet);
    CHECK(receive_auth(s, reauthenticate) == errc::ok);
    CHECK(send_auth(s, continue_authentication) == errc::ok);
    CHECK(receive_auth(s, reauthenticate) == errc::unexpected_packet);
    CHECK(receive_auth(s, continue_authentication) == errc::ok);
    CHECK(send_auth(s, success) == errc::ok);
    CHECK(s.sent() == "AUTH, AUTH");
    CHECK(s.auths.size() == 2);
}

TEST_CASE("either end closes when authenticating anew fails [MQTT-4.12.1-2]") {
    session_end s(role::server, v5);
    accept(s);
    CHECK(receive_auth(s, reauthenticate) == errc::ok);
    CHECK(s.state.disconnect(s.out, {not_authorized, {}}) == errc::ok);
    CHECK(s.sent() == "DISCONNECT");
    CHECK(s.state.current_phase() == session_state::phase::disconnecting);
    session_end c(role::client, v5);
    establish(c);
    CHECK(send_auth(c, reauthenticate) == errc::ok);
    CHECK(receive_auth(c, continue_authentication) == errc::ok);
    CHECK(c.state.disconnect(c.out, {unspecified_error, {}}) == errc::ok);
    CHECK(c.sent() == "AUTH, DISCONNECT");
}

TEST_CASE("AUTH is sent with what it needs only, and never without a connection or in MQTT 3.1.1") {
    session_end c(role::client, v5);
    CHECK(send_auth(c, reauthenticate) == errc::not_connected);
    establish(c);
    CHECK(c.state.auth(c.out, {reauthenticate, {}}) == errc::authentication_method_missing);
    CHECK(send_auth(c, success) == errc::invalid_reason_code);
    CHECK(send_auth(c, quota_exceeded) == errc::invalid_reason_code);
    session_end old(role::client, protocol_version::v3_1_1);
    old.connect();
    CHECK(send_auth(old, reauthenticate) == errc::unknown_packet_type);
    CHECK(c.sent() + old.sent() == "");
}

TEST_CASE("AUTH leaves out what makes it too large for the peer [MQTT-3.15.2-2] [MQTT-3.15.2-3]") {
    session_end s(role::server, v5);
    accept(s, {.maximum_packet_size = 30});
    CHECK(receive_auth(s, reauthenticate) == errc::ok);
    packet p(continue_authentication);
    user_property const pair{"a name", "a value"};
    p.props.user_properties = pair;
    p.props.reason_string = "so that you know";
    CHECK(s.state.auth(s.out, p.value) == errc::ok);
    auto const bytes = s.take_bytes();
    packet const small(continue_authentication);
    CHECK(bytes == test::encoded(small.value, v5));
    CHECK(receive_auth(s, continue_authentication) == errc::ok);
    std::string const large(30, 'x');
    packet const q(continue_authentication, "m", large);
    CHECK(s.state.auth(s.out, q.value) == errc::packet_too_large);
}

TEST_CASE("each connection begins anew, and only a client begins again") {
    authentication a;
    packet const method(success);
    connack const accepted{false, success, method.value.props};
    a.begin("m");
    CHECK(a.finish(accepted) == errc::ok);
    packet const again(reauthenticate);
    CHECK(a.step(role::server, again.value) == errc::authentication_not_due);
    a.begin("m");
    CHECK(a.step(role::server, method.value) == errc::authentication_not_due);  // CONNACK ends the first
    a.begin(std::nullopt);
    properties empty;
    empty.authentication_method = "";
    CHECK(a.finish({false, success, &empty}) == errc::authentication_method_changed);
}
