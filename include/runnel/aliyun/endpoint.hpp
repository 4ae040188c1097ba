#pragma once

#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/error.hpp>
#include <runnel/core/inline_string.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::aliyun {

/// The platform's ports. The certificate at 8883 hangs from Alibaba's own root, valid into 2053; those at 1883 and 443
/// from GlobalSign Root R1, which ends on 2028-01-28. TLS also answers at 1883 and 443.
inline constexpr std::uint16_t tcp_port = 1883;
inline constexpr std::uint16_t tls_port = 8883;
/// WebSocket, with and without TLS.
inline constexpr std::uint16_t websocket_port = 443;

/// Regions by their codes. A public endpoint's region can be given as any text; Beijing and Shenzhen have instance
/// endpoints only.
namespace region {
/// The mainland's regions, then those abroad.
inline constexpr std::string_view shanghai = "cn-shanghai";
inline constexpr std::string_view beijing = "cn-beijing";
inline constexpr std::string_view shenzhen = "cn-shenzhen";
inline constexpr std::string_view tokyo = "ap-northeast-1";
inline constexpr std::string_view singapore = "ap-southeast-1";
inline constexpr std::string_view frankfurt = "eu-central-1";
inline constexpr std::string_view silicon_valley = "us-west-1";
inline constexpr std::string_view virginia = "us-east-1";
}  // namespace region

/// A transport that an endpoint can be written into: it has `host`, `port` and `secure`.
template <class T>
concept addressable_transport = std::copyable<T> && requires(T& t, std::string host, std::uint16_t port) {
    t.host = host;
    t.port = port;
    static_cast<bool>(T::secure);
};

/// An addressable transport with a `path`: WebSocket.
template <class T>
concept transport_with_path = addressable_transport<T> && requires(T& t, std::string path) { t.path = path; };

/// The platform's port for connections over the transport type `T`.
template <addressable_transport T>
inline constexpr std::uint16_t default_port_for = transport_with_path<T> ? websocket_port
                                                  : T::secure            ? tls_port
                                                                         : tcp_port;

/// Where a device connects to. An explicit host is written down as it is: `endpoint{.host = "iot.example.com"}`.
struct endpoint {
    /// Host name or address.
    inline_string<253> host = {};
    /// 0 stands for the platform's port of the transport used.
    std::uint16_t port = 0;
    /// The path of WebSocket connections. The platform documents none; `/mqtt` and `/` are both in use with it.
    inline_string<128> path = "/mqtt";

    friend constexpr bool operator==(endpoint const&, endpoint const&) noexcept = default;

    /// A copy of `transport` that connects to this endpoint; what else is set in it (certificates, options) is kept.
    template <addressable_transport T>
    constexpr T over(T transport = {}) const {
        transport.host = host.str();
        transport.port = port != 0 ? port : default_port_for<T>;
        if constexpr (transport_with_path<T>) transport.path = path.str();
        return transport;
    }
};

/// The endpoint of a public instance in `region` (`region::shanghai`, ...): one host a product,
/// `PRODUCT_KEY.iot-as-mqtt.REGION.aliyuncs.com`. On an error `out` is left alone.
constexpr errc public_endpoint(std::string_view product_key, std::string_view region, endpoint& out) noexcept {
    if (errc const e = check_product_key(product_key); e != errc::ok) return e;
    bool const good = !region.empty() && std::all_of(region.begin(), region.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    });
    endpoint made;
    bool fits = good;
    for (std::string_view part :
         {product_key, std::string_view(".iot-as-mqtt."), region, std::string_view(".aliyuncs.com")})
        fits = fits && made.host.try_append(part);
    if (!fits) return errc::region_invalid;
    out = made;
    return errc::ok;
}

/// The same, but throws `std::system_error` on an error.
constexpr endpoint public_endpoint(device const& who, std::string_view region) {
    endpoint made;
    throw_unless_ok(public_endpoint(who.product_key, region, made));
    return made;
}

/// The endpoint of an Enterprise instance or a new public instance (`iot-...` on the console's overview page):
/// `INSTANCE.mqtt.iothub.aliyuncs.com`. On an error `out` is left alone.
constexpr errc instance_endpoint(std::string_view instance_id, endpoint& out) noexcept {
    bool const good = !instance_id.empty() && std::all_of(instance_id.begin(), instance_id.end(),
                                                          [](char c) { return is_letter_or_digit(c) || c == '-'; });
    endpoint made;
    if (!good || !made.host.try_append(instance_id) || !made.host.try_append(".mqtt.iothub.aliyuncs.com"))
        return errc::instance_id_invalid;
    out = made;
    return errc::ok;
}

/// The same, but throws `std::system_error` on an error.
constexpr endpoint instance_endpoint(std::string_view instance_id) {
    endpoint made;
    throw_unless_ok(instance_endpoint(instance_id, made));
    return made;
}

template <class Transport>
constexpr Transport device::endpoint(std::string_view region) const {
    return public_endpoint(*this, region).template over<Transport>();
}

/// The endpoint of TLS with a pre-shared key (`sign_psk`) of public instances in Shanghai; port 1883 speaks TLS there.
constexpr endpoint psk_endpoint(device const& who) {
    throw_unless_ok(check_product_key(who.product_key));
    endpoint made{.port = 1883};
    made.host.append(who.product_key).append(".itls.cn-shanghai.aliyuncs.com");
    return made;
}

/// The endpoint for devices with X.509 certificates of public instances in Shanghai; port 1883 speaks TLS there.
inline constexpr endpoint x509_endpoint{.host = "x509.itls.cn-shanghai.aliyuncs.com", .port = 1883};

/// The endpoint for IPv6 of public instances in Shanghai.
inline constexpr endpoint ipv6_endpoint{.host = "ipv6.itls.cn-shanghai.aliyuncs.com", .port = 1883};

}  // namespace runnel::aliyun
