#include <runnel/testing/aliyun/platform.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <support/mqtt_client.hpp>
#include <vector>

namespace {

using namespace runnel;
using mqtt::protocol_version;
using mqtt::qos;
using mqtt::reason_code;
using test::mqtt_client;

constexpr aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "a secret between us"};
constexpr aliyun::device other{"a1B2c3D4e5F", "window-1", "another secret"};
constexpr protocol_version versions[] = {protocol_version::v3_1_1, protocol_version::v5};

struct fixture {
    fixture() : platform(io.get_executor()) {
        platform.add_device(thermostat);
        platform.add_device(other);
        platform.hooks().log = [this](std::string_view text) { log.emplace_back(text); };
    }

    reason_code connect(mqtt_client& client, mqtt::connect const& packet, bool secure = false) {
        auto [near, far] = memory_stream<>::pair(io.get_executor());
        platform.attach(std::move(far), {secure ? "tls" : "tcp", "", secure});
        client.open(std::move(near));
        return client.connect(packet);
    }
    reason_code connect(mqtt_client& client, aliyun::device const& who = thermostat) {
        auto const signed_ = aliyun::sign(who, {.mode = aliyun::secure_mode::plain});
        return connect(client, packet_of(signed_));
    }
    static mqtt::connect packet_of(aliyun::connect_credentials const& c) {
        return {
            .client_id = c.client_id, .keep_alive = 60, .user_name = c.user_name.view(), .password = c.password.view()};
    }
    void settle() {
        io.restart();
        while (io.poll() != 0) {
        }
    }
    std::string last_log() const { return log.empty() ? "" : log.back(); }

    asio::io_context io;
    std::vector<std::string> log;
    testing::aliyun_platform platform;
};

}  // namespace

TEST_CASE("a device that signs is let in, with each method, over secure and plain connections, in both versions") {
    for (auto const version : versions) {
        for (auto const method :
             {aliyun::sign_method::hmacmd5, aliyun::sign_method::hmacsha1, aliyun::sign_method::hmacsha256}) {
            for (bool const secure : {false, true}) {
                for (bool const stamped : {false, true}) {
                    fixture p;
                    mqtt_client client(p.io, version);
                    aliyun::sign_options options{.client_id = "12345", .method = method};
                    options.mode = secure ? aliyun::secure_mode::tls : aliyun::secure_mode::plain;
                    if (stamped) options.timestamp = 2524608000000;
                    auto const credentials = aliyun::sign(thermostat, options);
                    CHECK(p.connect(client, fixture::packet_of(credentials), secure) == reason_code::success);
                    CHECK(p.platform.connected(thermostat));
                    CHECK(p.log.empty());
                }
            }
        }
    }
}

TEST_CASE("the platform's published signatures are accepted") {
    // The documentation's example: HMAC-SHA1 in upper case, of client identifier and timestamp as well.
    fixture p;
    p.platform.add_device({"pk", "device", "secret"});
    mqtt_client client(p.io, protocol_version::v3_1_1);
    mqtt::connect const packet{.client_id = "12345|securemode=3,signmethod=hmacsha1,timestamp=789|",
                               .keep_alive = 60,
                               .user_name = "device&pk",
                               .password = "FAFD82A3D602B37FB0FA8B7892F24A477F851A14"};
    CHECK(p.connect(client, packet) == reason_code::success);
}

TEST_CASE("client identifier and timestamp may be left out of the signature, and no method means hmacmd5") {
    aliyun::device const d{"pk", "device", "secret"};
    struct example {
        std::string_view client_id;
        std::string_view content;
        aliyun::sign_method method;
    };
    example const examples[] = {
        {"c|securemode=3,signmethod=hmacsha256|", "deviceNamedeviceproductKeypk", aliyun::sign_method::hmacsha256},
        {"c|securemode=3,timestamp=7|", "deviceNamedeviceproductKeypk", aliyun::sign_method::hmacmd5},
        {"c|securemode=3,timestamp=7|", "deviceNamedeviceproductKeypktimestamp7", aliyun::sign_method::hmacmd5},
        {"c|securemode=3,timestamp=7|", "clientIdcdeviceNamedeviceproductKeypk", aliyun::sign_method::hmacmd5},
        {"|securemode=3,timestamp=7|", "clientIddeviceNamedeviceproductKeypktimestamp7", aliyun::sign_method::hmacmd5},
    };
    for (auto const& e : examples) {
        fixture p;
        p.platform.add_device(d);
        // One parameter with the whole content is signed like the content.
        aliyun::parameter const whole{e.content, ""};
        auto const password = aliyun::sign_parameters(e.method, d.device_secret, {&whole, 1});
        mqtt_client client(p.io);
        CHECK(p.connect(client, {.client_id = e.client_id,
                                 .keep_alive = 60,
                                 .user_name = "device&pk",
                                 .password = password.view()}) == reason_code::success);
    }
}

TEST_CASE("MQTT 5: a device that leaves its identifier empty is told the one assigned") {
    fixture p;
    mqtt_client client(p.io);
    auto const credentials = aliyun::sign(thermostat, {.client_id = "", .mode = aliyun::secure_mode::plain});
    CHECK(p.connect(client, fixture::packet_of(credentials)) == reason_code::success);
    CHECK_FALSE(client.assigned_client_id.empty());
}

TEST_CASE("a wrong signature is refused, with what was signed in the log and the secret nowhere") {
    for (auto const version : versions) {
        fixture p;
        mqtt_client client(p.io, version);
        auto const credentials = aliyun::sign({"a1B2c3D4e5F", "thermostat-7", "a wrong secret"},
                                              {.client_id = "c", .mode = aliyun::secure_mode::plain, .timestamp = 7});
        CHECK(p.connect(client, fixture::packet_of(credentials)) == reason_code::bad_user_name_or_password);
        REQUIRE(p.log.size() == 1);
        CHECK(p.log[0].find("thermostat-7&a1B2c3D4e5F") != std::string::npos);
        CHECK(p.log[0].find("clientIdcdeviceNamethermostat-7productKeya1B2c3D4e5Ftimestamp7") != std::string::npos);
        CHECK(p.log[0].find(thermostat.device_secret.view()) == std::string::npos);
        // What the right signature is, is not for the client.
        if (version == protocol_version::v5) CHECK(client.reason_string == "the signature does not match");
    }
}

TEST_CASE("every other fault of CONNECT is refused and explained") {
    auto const good = aliyun::sign(thermostat, {.client_id = "c", .mode = aliyun::secure_mode::plain});
    struct fault {
        mqtt::connect packet;
        reason_code reason;
        std::string_view explanation;
    };
    auto packet = fixture::packet_of(good);
    std::vector<fault> faults;
    auto const add = [&](reason_code reason, std::string_view explanation, auto change) {
        auto changed = packet;
        change(changed);
        faults.push_back({changed, reason, explanation});
    };
    using enum reason_code;
    add(client_identifier_not_valid, "not of the form", [](auto& c) { c.client_id = "plain"; });
    add(client_identifier_not_valid, "more than 64", [](auto& c) {
        c.client_id = "0123456789012345678901234567890123456789012345678901234567890123X|securemode=3|";
    });
    add(bad_user_name_or_password, "no device is known", [](auto& c) { c.user_name = "nobody&a1B2c3D4e5F"; });
    add(bad_user_name_or_password, "no device is known", [](auto& c) { c.user_name.reset(), c.password.reset(); });
    add(bad_user_name_or_password, "securemode is '2', but tcp needs 3",
        [](auto& c) { c.client_id = "c|securemode=2,signmethod=hmacsha256|"; });
    add(bad_user_name_or_password, "securemode is '', but tcp needs 3",
        [](auto& c) { c.client_id = "c|signmethod=hmacsha256|"; });
    add(bad_user_name_or_password, "is none of", [](auto& c) { c.client_id = "c|securemode=3,signmethod=sha256|"; });
    add(bad_user_name_or_password, "does not match", [](auto& c) { c.password = ""; });
    add(bad_user_name_or_password, "does not match",
        [](auto& c) { c.client_id = "d|securemode=3,signmethod=hmacsha256|"; });
    for (int const seconds : {0, 29, 1201})
        add(not_authorized, "30 to 1200", [&](auto& c) { c.keep_alive = static_cast<std::uint16_t>(seconds); });
    for (auto const& f : faults) {
        fixture p;
        mqtt_client client(p.io);
        CHECK(p.connect(client, f.packet) == f.reason);
        CHECK(client.wait_for_end());
        CHECK_MESSAGE(p.last_log().find(f.explanation) != std::string::npos, p.last_log());
        CHECK(p.platform.counters().refused == 1);
    }
}

TEST_CASE("wills are for MQTT 5 only") {
    auto const credentials = aliyun::sign(thermostat, {.mode = aliyun::secure_mode::plain});
    auto packet = fixture::packet_of(credentials);
    packet.will = mqtt::will{.topic = "/a1B2c3D4e5F/thermostat-7/user/will"};
    fixture p;
    mqtt_client v3(p.io, protocol_version::v3_1_1), v5(p.io);
    CHECK(p.connect(v3, packet) == reason_code::not_authorized);
    CHECK(p.connect(v5, packet) == reason_code::success);
}

TEST_CASE("a device has one connection: the newcomer wins, whatever its client identifier") {
    fixture p;
    mqtt_client older(p.io), newer(p.io);
    auto const one = aliyun::sign(thermostat, {.client_id = "one", .mode = aliyun::secure_mode::plain});
    auto const two = aliyun::sign(thermostat, {.client_id = "two", .mode = aliyun::secure_mode::plain});
    REQUIRE(p.connect(older, fixture::packet_of(one)) == reason_code::success);
    REQUIRE(p.connect(newer, fixture::packet_of(two)) == reason_code::success);
    CHECK(older.wait_for_end());
    CHECK(older.disconnected == reason_code::session_taken_over);
    newer.ping();
    CHECK(newer.pongs == 1);
}

TEST_CASE("MQTT 5: the platform announces its limits") {
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client) == reason_code::success);
    CHECK(client.server.maximum_qos == qos::at_least_once);
    CHECK(client.server.maximum_packet_size == 262144);
    CHECK_FALSE(client.server.subscription_identifier_available);
    CHECK(client.server.shared_subscription_available);
}

TEST_CASE("a device gets its own message on its own topic, in both versions") {
    for (auto const version : versions) {
        fixture p;
        mqtt_client client(p.io, version);
        REQUIRE(p.connect(client) == reason_code::success);
        CHECK(client.subscribe("/a1B2c3D4e5F/thermostat-7/user/get", qos::exactly_once) == reason_code::granted_qos_1);
        CHECK(client.publish("/a1B2c3D4e5F/thermostat-7/user/get", "hello", qos::at_least_once) ==
              reason_code::success);
        CHECK(client.last().payload == "hello");
        CHECK(p.platform.publish("/a1B2c3D4e5F/thermostat-7/user/get", "from above") == 1);
        CHECK(client.last(2).payload == "from above");
    }
}

TEST_CASE("a device may use its own topics only") {
    aliyun::device const d{"pk", "dn", "secret"};
    for (auto const* topic :
         {"/pk/dn/user/get", "/sys/pk/dn/thing/event/property/post", "/ext/ntp/pk/dn/request", "/ext/error/pk/dn",
          "/ext/session/pk/dn/combine/login", "/ext/rrpc/123/pk/dn/user/x", "/ext/rrpc/+/sys/pk/dn/#",
          "/ota/device/inform/pk/dn", "/shadow/update/pk/dn", "/pk/dn/#", "/sys/pk/dn/rrpc/request/+"})
        CHECK_MESSAGE(testing::detail::is_topic_of(d, topic), topic);
    for (auto const* topic : {"",
                              "/",
                              "pk/dn/user/get",
                              "/pk",
                              "/pk/",
                              "/pk/other/user/get",
                              "/other/dn/user/get",
                              "/sys/pk/other/thing",
                              "/sys",
                              "/ext/ntp/pk/other",
                              "/ext/rrpc/123",
                              "/ext/rrpc/1/pk/other/x",
                              "/ext/rrpc/1/ext/rrpc/2/pk/dn/x",
                              "/ext/register",
                              "/ota/device/inform/pk/other",
                              "/ota/other/inform/pk/dn",
                              "/shadow/update/pk/other",
                              "/pk/+/user/get",
                              "/+/dn/user/get",
                              "#",
                              "/#",
                              "+/pk/dn",
                              "/pkx/dn/user",
                              "/pk/dnx/user"})
        CHECK_MESSAGE(!testing::detail::is_topic_of(d, topic), topic);
}

TEST_CASE("a message to a topic of another device goes nowhere") {
    for (auto const version : versions) {
        fixture p;
        mqtt_client client(p.io, version), victim(p.io, version);
        REQUIRE(p.connect(client) == reason_code::success);
        REQUIRE(p.connect(victim, other) == reason_code::success);
        CHECK_FALSE(is_error(victim.subscribe("/a1B2c3D4e5F/window-1/user/get")));
        auto const reason = client.publish("/a1B2c3D4e5F/window-1/user/get", "x", qos::at_least_once);
        CHECK(reason == (version == protocol_version::v5 ? reason_code::not_authorized : reason_code::success));
        victim.ping();
        CHECK(victim.messages.empty());
        CHECK(p.last_log() ==
              "refused a message of client thermostat-7&a1B2c3D4e5F to /a1B2c3D4e5F/window-1/user/get: not authorized");
    }
}

TEST_CASE("a device subscribes to its own topics and its product's broadcasts only") {
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client) == reason_code::success);
    CHECK(client.subscribe("/broadcast/a1B2c3D4e5F/#") == reason_code::granted_qos_1);
    CHECK(client.subscribe("$share/g/a1B2c3D4e5F/thermostat-7/user/get") == reason_code::not_authorized);
    CHECK(client.subscribe("$share/g//a1B2c3D4e5F/thermostat-7/user/get") == reason_code::granted_qos_1);
    CHECK(client.subscribe("/broadcast/another/#") == reason_code::not_authorized);
    CHECK(client.subscribe("#") == reason_code::not_authorized);
    CHECK(client.publish("/broadcast/a1B2c3D4e5F/x", "x", qos::at_least_once) == reason_code::not_authorized);
    CHECK(p.platform.publish("/broadcast/a1B2c3D4e5F/news", "to all") == 1);
    CHECK(client.last().payload == "to all");
}

TEST_CASE("a message of QoS 2 ends the connection") {
    for (auto const version : versions) {
        fixture p;
        mqtt_client client(p.io, version);
        REQUIRE(p.connect(client) == reason_code::success);
        std::string const topic = "/a1B2c3D4e5F/thermostat-7/user/x";
        mqtt::publish const m{.topic = topic, .qos = qos::exactly_once, .packet_id = 1};
        std::string bytes(encoded_size(m, version), '\0');
        encode(bytes.data(), m, version);
        client.send(bytes);
        CHECK(client.wait_for_end());
        if (version == protocol_version::v5) CHECK(client.disconnected == reason_code::qos_not_supported);
        CHECK_FALSE(p.log.empty());
    }
}

TEST_CASE("the retain flag ends the connection in MQTT 3.1.1, and is allowed in MQTT 5") {
    fixture p;
    mqtt_client v3(p.io, protocol_version::v3_1_1), v5(p.io);
    REQUIRE(p.connect(v3) == reason_code::success);
    v3.begin_publish({.topic = "/a1B2c3D4e5F/thermostat-7/user/x", .retain = true});
    CHECK(v3.wait_for_end());
    REQUIRE(p.connect(v5) == reason_code::success);
    v5.publish("/a1B2c3D4e5F/thermostat-7/user/x", "kept", qos::at_least_once, true);
    v5.subscribe("/a1B2c3D4e5F/thermostat-7/user/x");
    CHECK(v5.last().payload == "kept");
}

TEST_CASE("payloads of up to 256 KiB pass, larger ones do not") {
    std::string const topic = "/a1B2c3D4e5F/thermostat-7/user/x";
    fixture p;
    mqtt_client v3(p.io, protocol_version::v3_1_1);
    REQUIRE(p.connect(v3) == reason_code::success);
    v3.subscribe(topic);
    v3.publish(topic, std::string(256 * 1024, 'x'), qos::at_least_once);
    CHECK(v3.last().payload.size() == 256 * 1024);
    v3.publish(topic, std::string(256 * 1024 + 1, 'x'), qos::at_least_once);
    v3.ping();
    CHECK(v3.messages.size() == 1);
    CHECK(p.platform.counters().messages_refused == 1);
}

TEST_CASE("topics are limited to 128 bytes and 7 slashes") {
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client) == reason_code::success);
    std::string const base = "/a1B2c3D4e5F/thermostat-7/user";
    CHECK(client.publish(base + "/4/5/6/7", "x", qos::at_least_once) == reason_code::no_matching_subscribers);
    CHECK(client.publish(base + "/4/5/6/7/8", "x", qos::at_least_once) == reason_code::topic_name_invalid);
    std::string const longest = base + "/" + std::string(127 - base.size(), 'x');
    CHECK(client.publish(longest, "x", qos::at_least_once) == reason_code::no_matching_subscribers);
    CHECK(client.publish(longest + "x", "x", qos::at_least_once) == reason_code::topic_name_invalid);
    CHECK(client.subscribe(longest + "x") == reason_code::topic_filter_invalid);
}

TEST_CASE("a SUBSCRIBE has at most 8 filters, a device at most 100 subscriptions") {
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client) == reason_code::success);
    std::vector<std::string> filters;
    for (int i = 0; i < 101; ++i) filters.push_back("/a1B2c3D4e5F/thermostat-7/user/" + std::to_string(i));
    std::vector<mqtt::subscription_request> requests;
    for (int i = 0; i < 9; ++i) requests.push_back({.filter = filters[static_cast<std::size_t>(i)]});
    client.subscribe_all(requests);
    CHECK(client.subscribed == std::vector<reason_code>(9, reason_code::quota_exceeded));
    for (std::size_t i = 0; i < 100; ++i) CHECK(client.subscribe(filters[i]) == reason_code::granted_qos_1);
    CHECK(client.subscribe(filters[100]) == reason_code::quota_exceeded);
    CHECK(client.subscribe(filters[50]) == reason_code::granted_qos_1);  // the same once more
}

TEST_CASE("a device that is removed is cut off and not let in again") {
    fixture p;
    mqtt_client client(p.io);
    REQUIRE(p.connect(client) == reason_code::success);
    CHECK(p.platform.remove_device(thermostat));
    CHECK_FALSE(p.platform.remove_device(thermostat));
    CHECK(client.wait_for_end());
    CHECK(client.disconnected == reason_code::not_authorized);
    CHECK(p.connect(client) == reason_code::bad_user_name_or_password);
    CHECK_THROWS_AS(p.platform.add_device({"", "dn", "secret"}), std::system_error);
}

TEST_CASE("messages of QoS 1 are kept for a device that is away, if it asked for a session") {
    fixture p;
    mqtt_client client(p.io, protocol_version::v3_1_1);
    auto const credentials = aliyun::sign(thermostat, {.mode = aliyun::secure_mode::plain});
    auto packet = fixture::packet_of(credentials);
    packet.clean_start = false;
    REQUIRE(p.connect(client, packet) == reason_code::success);
    client.subscribe("/a1B2c3D4e5F/thermostat-7/user/get", qos::at_least_once);
    CHECK(p.platform.drop_device(thermostat));
    CHECK(client.wait_for_end());
    p.platform.publish("/a1B2c3D4e5F/thermostat-7/user/get", "missed", qos::at_least_once);
    REQUIRE(p.connect(client, packet) == reason_code::success);
    CHECK(client.session_present);
    CHECK(client.last().payload == "missed");
}

TEST_CASE("a registration over plain TCP, or without what it needs, is refused") {
    fixture p;
    p.platform.add_product({"a1B2c3D4e5F", "the secret of the product"});
    std::string const given = "authType=register,random=42,signmethod=hmacsha256|";
    aliyun::parameter const list[] = {{"deviceName", "thermostat-7"}, {"productKey", "a1B2c3D4e5F"}, {"random", "42"}};
    auto const password = aliyun::sign_parameters<digest::sha256>("the secret of the product", list);
    auto const enroll = [&](std::string const& client_id, bool secure) {
        mqtt_client client(p.io, protocol_version::v3_1_1);
        return p.connect(client,
                         {.client_id = client_id, .user_name = "thermostat-7&a1B2c3D4e5F", .password = password.view()},
                         secure);
    };
    CHECK(enroll("c|securemode=2," + given, true) == reason_code::success);
    CHECK(enroll("c|securemode=2," + given, false) == reason_code::client_identifier_not_valid);
    CHECK(enroll("c|securemode=3," + given, true) == reason_code::client_identifier_not_valid);
    CHECK(enroll("c|securemode=2,authType=register,signmethod=hmacsha256|", true) ==
          reason_code::client_identifier_not_valid);
    CHECK(p.last_log().find("needs TLS") != std::string::npos);
}

TEST_CASE("rates are limited on demand: 5 connections a minute, 30 messages a second of QoS 0 and 10 of QoS 1") {
    fixture p;
    p.platform.limit_rates();
    mqtt_client client(p.io);
    for (int i = 0; i < 5; ++i) CHECK(p.connect(client) == reason_code::success);
    mqtt_client late(p.io);
    CHECK(p.connect(late) == reason_code::connection_rate_exceeded);
    std::string const topic = "/a1B2c3D4e5F/thermostat-7/user/x";
    for (int i = 0; i < 31; ++i) client.begin_publish({.topic = topic});
    for (int i = 0; i < 10; ++i)
        CHECK(client.publish(topic, "", qos::at_least_once) == reason_code::no_matching_subscribers);
    CHECK(client.publish(topic, "", qos::at_least_once) == reason_code::quota_exceeded);
    CHECK(p.platform.counters().messages_refused == 2);
}

TEST_CASE("CONNECTs that are not signed by the device do not use up its connections") {
    fixture p;
    p.platform.limit_rates();
    auto const forged = aliyun::sign({"a1B2c3D4e5F", "thermostat-7", "a guess"}, {.mode = aliyun::secure_mode::plain});
    for (int i = 0; i < 20; ++i) {
        mqtt_client stranger(p.io);
        CHECK(p.connect(stranger, fixture::packet_of(forged)) == reason_code::bad_user_name_or_password);
    }
    mqtt_client client(p.io);
    for (int i = 0; i < 5; ++i) CHECK(p.connect(client) == reason_code::success);
    mqtt_client late(p.io);
    CHECK(p.connect(late) == reason_code::connection_rate_exceeded);
}

TEST_CASE("a device that is refused for its keep alive has not been activated, and may register") {
    fixture p;
    p.platform.add_product({"a1B2c3D4e5F", "the secret of the product"});
    auto const credentials = aliyun::sign(thermostat, {.mode = aliyun::secure_mode::plain});
    auto packet = fixture::packet_of(credentials);
    aliyun::parameter const list[] = {{"deviceName", "thermostat-7"}, {"productKey", "a1B2c3D4e5F"}, {"random", "42"}};
    auto const password = aliyun::sign_parameters<digest::sha256>("the secret of the product", list);
    auto const enroll = [&] {
        mqtt_client client(p.io, protocol_version::v3_1_1);
        return p.connect(client,
                         {.client_id = "c|securemode=2,authType=register,random=42,signmethod=hmacsha256|",
                          .user_name = "thermostat-7&a1B2c3D4e5F",
                          .password = password.view()},
                         true);
    };
    mqtt_client client(p.io, protocol_version::v3_1_1);
    packet.keep_alive = 10;
    CHECK(p.connect(client, packet) == reason_code::not_authorized);
    CHECK(enroll() == reason_code::success);
    p.platform.add_device(thermostat);  // the registration has changed its secret
    packet.keep_alive = 60;
    CHECK(p.connect(client, packet) == reason_code::success);
    CHECK(enroll() == reason_code::bad_user_name_or_password);
}

TEST_CASE("devices of MQTT 3.1 are let in") {
    fixture p;
    mqtt_client client(p.io, protocol_version::v3_1_1);
    auto const credentials = aliyun::sign(thermostat, {.mode = aliyun::secure_mode::plain});
    auto const packet = fixture::packet_of(credentials);
    std::string bytes(encoded_size(packet, protocol_version::v3_1_1), '\0');
    encode(bytes.data(), packet, protocol_version::v3_1_1);
    auto const name = bytes.find(std::string("\0\4MQTT\4", 7));
    REQUIRE(name == 3);  // behind a length of two bytes
    bytes.replace(name, 7, std::string("\0\6MQIsdp\3", 9));
    bytes[1] = static_cast<char>(bytes[1] + 2);
    REQUIRE((bytes[1] & 0x80) != 0);  // it has not overflowed into the next one
    auto [near, far] = memory_stream<>::pair(p.io.get_executor());
    p.platform.attach(std::move(far), {"tcp", "", false});
    client.open(std::move(near));
    client.send(bytes);
    CHECK(mqtt_client::run_until(p.io, [&] { return p.platform.connected(thermostat); }));
}

TEST_CASE("in MQTT 3.1.1 messages come with the QoS of their publisher, whatever the subscription's is") {
    for (auto const version : versions) {
        fixture p;
        mqtt_client client(p.io, version);
        REQUIRE(p.connect(client) == reason_code::success);
        std::string const topic = "/a1B2c3D4e5F/thermostat-7/user/get";
        CHECK(client.subscribe(topic, qos::at_most_once) == reason_code::granted_qos_0);
        p.platform.publish(topic, "x", qos::at_least_once);
        CHECK(client.last().qos == (version == protocol_version::v3_1_1 ? qos::at_least_once : qos::at_most_once));
    }
}
