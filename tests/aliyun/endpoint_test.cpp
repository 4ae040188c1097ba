#include <runnel/aliyun/endpoint.hpp>

#include <doctest/doctest.h>

#include <ostream>
#include <string>
#include <type_traits>

using namespace runnel::aliyun;

static_assert(std::is_trivially_destructible_v<endpoint>);

namespace {

// The members that the four kinds of transports have, and nothing else.
template <bool Secure>
struct stream_transport {
    static constexpr bool secure = Secure;
    std::string host;
    std::uint16_t port = 0;
    std::string option;
};
template <bool Secure>
struct websocket_transport : stream_transport<Secure> {
    std::string path = "/";
};
struct transport_without_host {
    [[maybe_unused]] static constexpr bool secure = false;
};

static_assert(addressable_transport<stream_transport<true>> && !transport_with_path<stream_transport<true>>);
static_assert(addressable_transport<websocket_transport<true>> && transport_with_path<websocket_transport<true>>);
static_assert(!addressable_transport<transport_without_host>);

static_assert(default_port_for<stream_transport<false>> == 1883);
static_assert(default_port_for<stream_transport<true>> == 8883);
static_assert(default_port_for<websocket_transport<false>> == 443);
static_assert(default_port_for<websocket_transport<true>> == 443);

constexpr device example{.product_key = "pk", .device_name = "device", .device_secret = "secret"};
static_assert(public_endpoint(example, region::shanghai).host == "pk.iot-as-mqtt.cn-shanghai.aliyuncs.com");
static_assert(instance_endpoint("iot-060a0bgd").host == "iot-060a0bgd.mqtt.iothub.aliyuncs.com");

}  // namespace

TEST_CASE("an endpoint over WebSocket has port 443 and path /mqtt") {
    auto const where = public_endpoint(example, region::shanghai);
    auto const wss = where.over<websocket_transport<true>>();
    CHECK(wss.host == "pk.iot-as-mqtt.cn-shanghai.aliyuncs.com");
    CHECK(wss.port == 443);
    CHECK(wss.path == "/mqtt");
    CHECK(where.over<websocket_transport<false>>().port == 443);
}

TEST_CASE("an endpoint over TCP has port 1883 and over TLS 8883") {
    auto const where = instance_endpoint("iot-060a0bgd");
    CHECK(where.over<stream_transport<false>>().port == 1883);
    CHECK(where.over<stream_transport<true>>().port == 8883);
    CHECK(where.over<stream_transport<true>>().host == "iot-060a0bgd.mqtt.iothub.aliyuncs.com");
}

TEST_CASE("an explicit host, port and path are taken as they are, and a transport keeps its other options") {
    endpoint const where{.host = "localhost", .port = 10443, .path = "/"};
    websocket_transport<true> mine;
    mine.option = "my certificates";
    mine.path = "/elsewhere";
    auto const wss = where.over(mine);
    CHECK(wss.host == "localhost");
    CHECK(wss.port == 10443);
    CHECK(wss.path == "/");
    CHECK(wss.option == "my certificates");
}

TEST_CASE("regions, instances and product keys that cannot be in a host name are refused") {
    endpoint out{.host = "unchanged"};
    for (std::string_view bad :
         {"", "cn_shanghai", "CN-SHANGHAI", "cn-shanghai.evil.example/", "cn.shanghai", "cn shanghai"}) {
        CAPTURE(bad);
        CHECK(public_endpoint("pk", bad, out) == errc::region_invalid);
    }
    CHECK(public_endpoint("pk", std::string(300, 'r'), out) == errc::region_invalid);
    CHECK(public_endpoint("", "cn-shanghai", out) == errc::product_key_empty);
    CHECK(public_endpoint("p.k", "cn-shanghai", out) == errc::product_key_invalid);
    for (std::string_view bad : {"", "iot.evil", "iot/1", "iot_1"}) {
        CAPTURE(bad);
        CHECK(instance_endpoint(bad, out) == errc::instance_id_invalid);
    }
    CHECK(instance_endpoint(std::string(300, 'i'), out) == errc::instance_id_invalid);
    CHECK(out.host == "unchanged");
    CHECK_THROWS_AS(instance_endpoint(""), std::system_error);
    CHECK_THROWS_AS(public_endpoint(example, ""), std::system_error);
}

TEST_CASE("a device names the transport that reaches it") {
    auto const wss = example.endpoint<websocket_transport<true>>();
    CHECK(wss.host == "pk.iot-as-mqtt.cn-shanghai.aliyuncs.com");
    CHECK(wss.port == 443);
    CHECK(wss.path == "/mqtt");
    CHECK(example.endpoint<stream_transport<true>>(region::singapore).host ==
          "pk.iot-as-mqtt.ap-southeast-1.aliyuncs.com");
    CHECK_THROWS_AS((device{}.endpoint<stream_transport<true>>()), std::system_error);
}

TEST_CASE("pre-shared keys, X.509 certificates and IPv6 have endpoints of their own, with TLS at port 1883") {
    CHECK(psk_endpoint(example).over<stream_transport<true>>().host == "pk.itls.cn-shanghai.aliyuncs.com");
    CHECK(psk_endpoint(example).over<stream_transport<true>>().port == 1883);
    CHECK(x509_endpoint.host == "x509.itls.cn-shanghai.aliyuncs.com");
    CHECK(ipv6_endpoint.port == 1883);
}
