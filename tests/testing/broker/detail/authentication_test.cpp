#include <runnel/digest/hmac.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/testing/broker/detail/core.hpp>

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <string_view>
#include <support/packets.hpp>
#include <vector>

// Enhanced authentication (MQTT 5, 4.12) by a challenge: the server sends a nonce, the client answers with its HMAC.

namespace {

using namespace runnel;
using mqtt::errc;
using mqtt::reason_code;
using enum mqtt::reason_code;

constexpr std::string_view method = "CHALLENGE-HMAC-SHA-256";
constexpr std::string_view secret = "between us";

std::string answer_to(std::string_view nonce, std::string_view key = secret) {
    auto const mac = digest::authenticate<digest::sha256>(key, nonce);
    return std::string(mac.data(), mac.size());
}

// A broker that knows the method; its nonces are numbers.
struct fixture {
    fixture() {
        core.hooks.authenticate = [this](testing::authentication_attempt& a) {
            steps.push_back((a.again ? "again " : "") + std::string(a.client) + ' ' + std::to_string(a.step));
            if (a.method != method) return bad_authentication_method;
            if (a.step == 0) {
                a.memory = "nonce " + std::to_string(++nonces);
                a.reply = a.memory;
                return continue_authentication;
            }
            if (a.data != answer_to(a.memory)) return not_authorized;
            a.reply = "welcome";
            return success;
        };
    }

    testing::detail::broker_core::time_point now{};
    testing::detail::broker_core core;
    std::vector<std::string> steps;
    int nonces = 0;
};

// A client that answers challenges.
struct client final : testing::detail::broker_connection, mqtt::session_handler {
    explicit client(fixture& p, std::string_view k = secret)
        : runnel::testing::detail::broker_connection({"memory", "", false}),
          where(p),
          key(k),
          state(mqtt::role::client, version) {
        where.core.opened(*this, where.now);
    }
    ~client() { where.core.closed(*this, where.now); }
    void wake() override {}
    void abort() override {}

    void connect(std::string_view named = method, std::string_view id = "client") {
        mqtt::properties p;
        p.authentication_method = named;
        REQUIRE(state.connect(sending, {.client_id = id, .props = &p}, {}) == errc::ok);
        exchange();
    }
    errc authenticate(reason_code reason, std::optional<std::string_view> data = {}) {
        mqtt::properties p;
        p.authentication_method = method;
        p.authentication_data = data;
        return state.auth(sending, {reason, &p});
    }
    void exchange() {
        while (!out.empty() || !sending.empty()) {
            auto input = sending.view();
            where.core.receive(*this, input, where.now);
            sending.clear();
            std::string const answer(out.view());
            out.clear();
            std::string_view rest = answer;
            CHECK(state.receive(rest, sending, *this) == errc::ok);
        }
    }
    void say(std::string const& bytes) {
        std::string_view input = bytes;
        where.core.receive(*this, input, where.now);
    }

    void on_connack(mqtt::connack const& p) {
        connack = p.reason;
        last = p.props.get<mqtt::property_id::authentication_data>().value_or("");
    }
    void on_auth(mqtt::auth const& p) {
        last = p.props.get<mqtt::property_id::authentication_data>().value_or("");
        if (p.reason == continue_authentication)
            CHECK(authenticate(continue_authentication, answer_to(last, key)) == errc::ok);
    }
    void on_disconnect(mqtt::disconnect const& p) { disconnected = p.reason; }

    static constexpr auto version = mqtt::protocol_version::v5;
    fixture& where;
    std::string key;
    mqtt::session_state state;
    send_buffer sending;
    std::optional<reason_code> connack, disconnected;
    std::string last;  // data
};

}  // namespace

TEST_CASE("a broker authenticates a client by a challenge [MQTT-4.12.0-2]") {
    fixture p;
    client c(p);
    c.connect();
    CHECK(c.connack == success);
    CHECK(c.last == "welcome");
    CHECK(p.steps == std::vector<std::string>{"client 0", "client 1"});
    CHECK(p.core.connected("client"));
}

TEST_CASE("a client without an identifier of its own is told the assigned one after the challenge") {
    fixture p;
    client c(p);
    c.connect(method, "");
    CHECK(c.connack == success);
    CHECK(p.steps == std::vector<std::string>{"runnel-1 0", "runnel-1 1"});
    CHECK(p.core.connected("runnel-1"));
}

TEST_CASE("an identifier assigned before a challenge is not that of a client that comes meanwhile [MQTT-3.2.2-16]") {
    fixture p;
    client c(p), other(p);
    mqtt::properties props;
    props.authentication_method = method;
    REQUIRE(c.state.connect(c.sending, {.client_id = "", .props = &props}, {}) == errc::ok);
    auto input = c.sending.view();
    p.core.receive(c, input, p.now);
    c.sending.clear();  // the challenge is on its way
    REQUIRE(other.state.connect(other.sending, {.client_id = "runnel-1"}, {}) == errc::ok);
    other.exchange();
    CHECK(other.connack == success);
    c.exchange();
    CHECK(c.connack == success);
    CHECK_FALSE(other.closing);
    CHECK(p.core.connected("runnel-1"));
    CHECK(p.core.connected("runnel-2"));
}

TEST_CASE("a broker refuses a client that fails the challenge [MQTT-4.12.0-4]") {
    fixture p;
    client c(p, "a guess");
    c.connect();
    CHECK(c.connack == not_authorized);
    CHECK(c.closing);
    CHECK_FALSE(p.core.connected("client"));
    CHECK(p.core.counters().refused == 1);
}

TEST_CASE("a broker refuses methods that it does not know [MQTT-4.12.0-1]") {
    fixture p;
    client c(p);
    c.connect("PLAIN");
    CHECK(c.connack == bad_authentication_method);
    p.core.hooks.authenticate = {};
    client d(p);
    d.connect();
    CHECK(d.connack == bad_authentication_method);
}

TEST_CASE("on_connect is asked before the challenge, and may name the session") {
    fixture p;
    p.core.hooks.on_connect = [](testing::connect_attempt& a) {
        a.session_name = "device-7";
        return a.packet.client_id == "client" ? success : banned;
    };
    client c(p);
    c.connect();
    CHECK(c.connack == success);
    CHECK(p.core.connected("device-7"));
    client d(p);
    d.connect(method, "other");
    CHECK(d.connack == banned);
    CHECK(p.steps.size() == 2);
}

TEST_CASE("a client may authenticate anew as often as it likes, and goes on meanwhile") {
    fixture p;
    client c(p);
    c.connect();
    p.steps.clear();
    for (int i = 0; i < 2; ++i) {
        c.last.clear();
        CHECK(c.authenticate(reauthenticate) == errc::ok);
        c.state.ping(c.sending);
        c.exchange();
        CHECK(c.last == "welcome");
        CHECK_FALSE(c.state.authentication().under_way());
        CHECK(c.state.connected());
    }
    CHECK(p.steps == std::vector<std::string>{"again client 0", "again client 1", "again client 0", "again client 1"});
}

TEST_CASE("a client that fails to authenticate anew is disconnected [MQTT-4.12.1-2]") {
    fixture p;
    client c(p);
    c.connect();
    c.key = "forgotten";
    CHECK(c.authenticate(reauthenticate) == errc::ok);
    c.exchange();
    CHECK(c.disconnected == not_authorized);
    CHECK(c.closing);
    CHECK_FALSE(p.core.connected("client"));
}

TEST_CASE("before CONNACK a broker takes AUTH only, in its turn and of the same method") {
    mqtt::properties right, wrong;
    right.authentication_method = method;
    wrong.authentication_method = "other";
    std::string const wrongs[] = {
        test::encoded(mqtt::pingreq{}, client::version),
        test::encoded(mqtt::publish{.topic = "a"}, client::version),
        test::encoded(mqtt::auth{continue_authentication, &wrong}, client::version),
        test::encoded(mqtt::auth{reauthenticate, &right}, client::version),
        std::string("\xF1\x00", 2),
    };
    for (auto const& bytes : wrongs) {
        fixture p;
        client c(p);
        c.say(test::encoded(mqtt::connect{.client_id = "client", .props = &right}, client::version));
        CHECK_FALSE(c.closing);
        c.out.clear();
        c.say(bytes);
        CHECK(c.closing);
        auto const f = mqtt::next_frame(c.out.view());
        mqtt::connack answer;
        CHECK(f.header.type == mqtt::packet_type::connack);
        CHECK(decode(f.header, f.body, client::version, answer) == errc::ok);
        CHECK((answer.reason == protocol_error || answer.reason == malformed_packet));
        CHECK(p.core.counters().protocol_errors == 1);
    }
}

TEST_CASE("a client may give up before it is authenticated") {
    fixture p;
    client c(p);
    mqtt::properties props;
    props.authentication_method = method;
    c.say(test::encoded(mqtt::connect{.client_id = "client", .props = &props}, client::version));
    c.out.clear();
    c.say(test::encoded(mqtt::disconnect{}, client::version));
    CHECK(c.closing);
    CHECK(c.out.empty());
    CHECK(p.core.session_count() == 0);
}

TEST_CASE("the steps of a client that comes again begin anew") {
    fixture p;
    client c(p);
    mqtt::properties props;
    props.authentication_method = method;
    c.say(test::encoded(mqtt::connect{.client_id = "client", .props = &props}, client::version));
    p.core.closed(c, p.now);
    c.out.clear();
    c.closing = false;
    p.core.opened(c, p.now);
    c.connect();
    CHECK(c.connack == success);
    CHECK(p.steps == std::vector<std::string>{"client 0", "client 0", "client 1"});
}

TEST_CASE("a challenge that is too large for the client is not sent [MQTT-3.1.2-24]") {
    fixture p;
    client c(p);
    mqtt::properties props;
    props.authentication_method = method;
    props.maximum_packet_size = 30;
    c.say(test::encoded(mqtt::connect{.client_id = "client", .props = &props}, client::version));
    CHECK(c.closing);
    CHECK(c.out.size() <= 30);
    CHECK(mqtt::next_frame(c.out.view()).header.type == mqtt::packet_type::connack);
}
