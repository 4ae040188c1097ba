#pragma once

#include <runnel/aliyun/error.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <string_view>

// What the platform allows. Unless said otherwise the figures are those of its documentation's page "Limits" (product
// overview); a session that keeps to them is not refused, cut off or silently throttled.

namespace runnel::aliyun {

/// Characters of a product key that this library takes. The platform gives out product keys of 11 characters.
inline constexpr std::size_t max_product_key_size = 32;

/// Characters of a device name (RegisterDevice; the console asks for at least 4).
inline constexpr std::size_t max_device_name_size = 32;

/// Characters of a device or product secret that this library and the vendor's device SDK take. The platform gives out
/// 32 and fewer.
inline constexpr std::size_t max_secret_size = 64;

/// Characters of the client identifier before the bar ("MQTT-TCP connections": up to 64 characters).
inline constexpr std::size_t max_client_id_size = 64;

/// Keep alive of a connection in seconds: outside of this range CONNECT is refused.
inline constexpr std::chrono::seconds min_keep_alive{30};
inline constexpr std::chrono::seconds max_keep_alive{1200};
/// The platform's advice is 300 seconds or more.
inline constexpr std::chrono::seconds default_keep_alive{300};

/// Bytes of a message's payload. The same figure is the Maximum Packet Size in an MQTT 5 CONNACK of the platform.
inline constexpr std::size_t max_payload_size = 256 * 1024;

/// Bytes of a topic in UTF-8.
inline constexpr std::size_t max_topic_size = 128;
/// Slashes in a topic of a product's own.
inline constexpr std::size_t max_topic_slashes = 7;

/// The highest QoS.
inline constexpr int max_qos = 1;

/// Topic filters in one SUBSCRIBE or UNSUBSCRIBE.
inline constexpr std::size_t max_filters = 8;
/// Subscriptions of one device; a SUBACK refuses the rest.
inline constexpr std::size_t max_subscriptions = 100;
/// Time until a subscription or its end is in effect.
inline constexpr std::chrono::seconds subscription_delay{10};

/// Messages a second that a device may publish at QoS 0 and at QoS 1, and that it may be sent. What is above is dropped
/// without an error in MQTT 3.1.1.
inline constexpr std::size_t max_publish_rate_qos_0 = 30;
inline constexpr std::size_t max_publish_rate_qos_1 = 10;
inline constexpr std::size_t max_receive_rate = 50;
/// Bytes a second of one connection.
inline constexpr std::size_t max_bandwidth = 1024 * 1024;
/// Messages that may wait for their PUBACK.
inline constexpr std::size_t max_in_flight = 100;

/// Attempts to connect in a minute.
inline constexpr std::size_t max_connects_per_minute = 5;

/// The time for which messages of QoS 1 are kept for a device that is not connected (clean session 0).
inline constexpr std::chrono::hours offline_retention{7 * 24};

/// Whether CONNECT would be refused for its keep alive; zero, which turns keep alive off in MQTT, is refused as well.
constexpr errc check_keep_alive(std::chrono::seconds keep_alive) noexcept {
    bool const good = keep_alive >= min_keep_alive && keep_alive <= max_keep_alive;
    return good ? errc::ok : errc::keep_alive_out_of_range;
}

/// Checks the part of a client identifier before the bar. It may be empty: a server of MQTT 5 then assigns one. Counted
/// in bytes, which for ASCII are the platform's characters.
constexpr errc check_client_id(std::string_view client_id) noexcept {
    if (client_id.size() > max_client_id_size) return errc::client_id_too_long;
    bool const bad = std::any_of(client_id.begin(), client_id.end(),
                                 [](char c) { return c == '|' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
    return bad ? errc::client_id_invalid : errc::ok;
}

/// Checks a topic name or filter. The limit on slashes is for a product's own topics; the platform does not keep to it
/// in those it defines (`/sys/...`, `/ext/...` and so on), so that they are not held to it.
constexpr errc check_topic(std::string_view topic) noexcept {
    if (topic.empty()) return errc::topic_empty;
    if (topic.size() > max_topic_size) return errc::topic_too_long;
    constexpr std::array<std::string_view, 5> platform = {"/sys/", "/ext/", "/ota/", "/shadow/", "/broadcast/"};
    for (std::string_view prefix : platform)
        if (topic.starts_with(prefix)) return errc::ok;
    auto const slashes = static_cast<std::size_t>(std::count(topic.begin(), topic.end(), '/'));
    return slashes > max_topic_slashes ? errc::topic_too_deep : errc::ok;
}

/// Checks a payload of `size` bytes.
constexpr errc check_payload(std::size_t size) noexcept {
    return size > max_payload_size ? errc::payload_too_long : errc::ok;
}

/// Checks the QoS (0, 1 or 2) of a message, a will or a subscription.
constexpr errc check_qos(int qos) noexcept { return qos < 0 || qos > max_qos ? errc::qos_not_supported : errc::ok; }

/// Checks the number of topic filters of one SUBSCRIBE or UNSUBSCRIBE.
constexpr errc check_filter_count(std::size_t count) noexcept {
    return count > max_filters ? errc::too_many_filters : errc::ok;
}

/// Checks the number of a device's subscriptions.
constexpr errc check_subscription_count(std::size_t count) noexcept {
    return count > max_subscriptions ? errc::too_many_subscriptions : errc::ok;
}

/// Checks all of a message: topic, payload, QoS (0, 1 or 2), and the retain flag, which only MQTT 5 (`v5`) has.
constexpr errc check_message(std::string_view topic, std::size_t payload_size, int qos, bool retain, bool v5) noexcept {
    errc e = check_topic(topic);
    if (e == errc::ok) e = check_payload(payload_size);
    if (e == errc::ok) e = check_qos(qos);
    return e == errc::ok && retain && !v5 ? errc::retain_not_supported : e;
}

}  // namespace runnel::aliyun
