#pragma once

#include <runnel/aliyun/client_id.hpp>
#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/limits.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/testing/broker_options.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing {

/// Takes a topic or filter that begins with a slash apart into its levels.
class topic_levels {
  public:
    explicit topic_levels(std::string_view topic) noexcept : rest_(topic) {}

    /// The next level, and nothing behind the last. A topic without a slash in front has none.
    std::string_view next() noexcept {
        if (!rest_.starts_with('/')) return rest_ = {};
        auto const level = rest_.substr(1, rest_.find('/', 1) - 1);
        rest_.remove_prefix(1 + level.size());
        return level;
    }

    /// What has not been taken, with its slash in front.
    std::string_view rest() const noexcept { return rest_; }

  private:
    std::string_view rest_;
};

/// Whether `topic`, which may be a filter, belongs to the device: `/PK/DN/...`, `/sys/PK/DN/...`, `/ext/ANY/PK/DN...`,
/// `/ext/rrpc/ANY` before one of these, `/ota/device/ANY/PK/DN`, `/shadow/ANY/PK/DN`. Wildcards may stand behind the
/// device's name only.
inline bool is_topic_of(aliyun::device const& who, std::string_view topic) noexcept {
    topic_levels levels(topic);
    auto first = levels.next();
    if (first == "sys") {
        first = levels.next();
    } else if (first == "ext") {
        if (levels.next() == "rrpc") {
            levels.next();  // which request
            return !levels.rest().starts_with("/ext/rrpc/") && is_topic_of(who, levels.rest());
        }
        first = levels.next();
    } else if (first == "shadow") {
        levels.next();
        first = levels.next();
    } else if (first == "ota") {
        if (levels.next() != "device") return false;
        levels.next();
        first = levels.next();
    }
    return first == who.product_key.view() && levels.next() == who.device_name.view();
}

/// What the Aliyun IoT Platform allows its devices, as far as a broker must know: who may connect, and who may publish
/// and subscribe where.
class aliyun_rules {
  public:
    /// Makes a device known, or changes its secret. Throws `std::system_error` if it cannot be one.
    void add(aliyun::device const& d) {
        aliyun::throw_unless_ok(aliyun::check_device(d));
        devices_.insert_or_assign(name_of(d), d);
    }
    /// Forgets a device; a connection that it has goes on. False: it was not known.
    bool remove(aliyun::device const& d) { return devices_.erase(name_of(d)) != 0; }

    /// What the broker calls a device: `DEVICE_NAME&PRODUCT_KEY`, its user name.
    static std::string name_of(aliyun::device const& d) {
        std::string name(d.device_name.view());
        return name.append("&").append(d.product_key.view());
    }

    /// What the platform tells clients of MQTT 5, and what it keeps to with others.
    static broker_options make_options() {
        broker_options options;
        options.accepts.maximum_qos = mqtt::qos::at_least_once;
        options.accepts.subscription_identifier_available = false;
        options.accepts.maximum_packet_size = aliyun::max_payload_size;
        options.accepts.receive_maximum = aliyun::max_in_flight;
        options.maximum_session_expiry = static_cast<std::uint32_t>(
            std::chrono::duration_cast<std::chrono::seconds>(aliyun::offline_retention).count());
        return options;
    }

    /// Whether a device may connect. A refusal is explained in `request`.
    mqtt::reason_code check_connect(connect_attempt& request) const {
        using enum mqtt::reason_code;
        auto const& packet = request.packet;
        auto const refuse = [&](mqtt::reason_code reason, std::string why) {
            request.reason_string = std::move(why);
            return reason;
        };
        auto const user = packet.user_name.value_or("");
        request.session_name = user;

        aliyun::client_id_parts id;
        if (auto const e = aliyun::split_client_id(packet.client_id, id); e != aliyun::errc::ok)
            return refuse(client_identifier_not_valid, "client identifier '" + std::string(packet.client_id) +
                                                           "' is not of the form id|name=value,...|: " + describe(e));
        auto const known = devices_.find(user);
        if (known == devices_.end())
            return refuse(bad_user_name_or_password, "no device is known by the user name '" + std::string(user) +
                                                         "' (device name & product key)");
        auto const mode = aliyun::find_parameter(id.parameters, "securemode").value_or("");
        auto const wanted =
            aliyun::name_of(request.from.secure ? aliyun::secure_mode::tls : aliyun::secure_mode::plain);
        if (mode != wanted)
            return refuse(bad_user_name_or_password, "securemode is '" + std::string(mode) + "', but " +
                                                         request.from.transport + " needs " + std::string(wanted));
        if (auto const why = check_signature(known->second, id, packet.password.value_or(""), request.log_text);
            !why.empty())
            return refuse(bad_user_name_or_password, why);
        if (aliyun::check_keep_alive(std::chrono::seconds(packet.keep_alive)) != aliyun::errc::ok)
            return refuse(not_authorized,
                          "a keep alive of " + std::to_string(packet.keep_alive) + " seconds is not within 30 to 1200");
        if (packet.will && request.version == mqtt::protocol_version::v3_1_1)
            return refuse(not_authorized, "the platform has no wills in MQTT 3.1.1");
        if (id.client_id.empty()) request.assigned_client_identifier = known->first;
        return success;
    }

    /// Whether a device may publish this message.
    publish_verdict check_publish(client_info const& who, mqtt::publish const& m) const {
        using enum mqtt::reason_code;
        bool const v3 = who.version == mqtt::protocol_version::v3_1_1;
        if (m.qos == mqtt::qos::exactly_once) return {qos_not_supported, true};
        if (v3 && m.retain) return {retain_not_supported, true};
        if (aliyun::check_payload(m.payload.size()) != aliyun::errc::ok) return {quota_exceeded, false};
        if (aliyun::check_topic(m.topic) != aliyun::errc::ok) return {topic_name_invalid, false};
        auto const known = devices_.find(who.name);
        bool const own = known != devices_.end() && is_topic_of(known->second, m.topic);
        return {own ? success : not_authorized, false};
    }

    /// Whether a device may subscribe, and with which QoS.
    mqtt::reason_code check_subscribe(client_info const& who, mqtt::subscribe const& packet,
                                      mqtt::subscription_request const& request) const {
        using enum mqtt::reason_code;
        if (aliyun::check_filter_count(packet.requests.size()) != aliyun::errc::ok) return quota_exceeded;
        if (aliyun::check_subscription_count(who.subscriptions + 1) != aliyun::errc::ok) return quota_exceeded;
        auto const filter =
            who.version == mqtt::protocol_version::v5 ? mqtt::split_shared(request.filter).filter : request.filter;
        if (aliyun::check_topic(filter) != aliyun::errc::ok) return topic_filter_invalid;
        auto const known = devices_.find(who.name);
        if (known == devices_.end()) return not_authorized;
        topic_levels levels(filter);
        bool const broadcast = levels.next() == "broadcast" && levels.next() == known->second.product_key.view();
        if (!broadcast && !is_topic_of(known->second, filter)) return not_authorized;
        return static_cast<mqtt::reason_code>(std::min(request.maximum_qos, mqtt::qos::at_least_once));
    }

  private:
    // What is wrong with the signature, in words for the client, and with more detail for the log; nothing if it is
    // right. Client identifier and timestamp may be left out of what is signed, and the digits may be of either case.
    static std::string check_signature(aliyun::device const& d, aliyun::client_id_parts const& id,
                                       std::string_view password, std::string& detail) {
        auto const name = aliyun::find_parameter(id.parameters, "signmethod").value_or("hmacmd5");
        auto const method = aliyun::sign_method_named(name);
        if (!method) return "signmethod '" + std::string(name) + "' is none of hmacmd5, hmacsha1, hmacsha256";
        auto const timestamp = aliyun::find_parameter(id.parameters, "timestamp");

        std::string given(password);
        for (char& c : given)
            if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
        bool right = false;
        for (bool const with_timestamp : {true, false}) {
            for (bool const with_client_id : {true, false}) {
                if (with_timestamp && !timestamp) continue;
                auto const list = parameters_of(d, id.client_id, timestamp.value_or(""));
                // In the order of their names: the first and the last are those that may be missing.
                auto const part = std::span(list).subspan(
                    with_client_id ? 0 : 1, 2 + std::size_t{with_client_id} + std::size_t{with_timestamp});
                auto const expected = aliyun::sign_parameters(*method, d.device_secret, part);
                right = equal_in_constant_time(given, expected) || right;
                if (!detail.empty()) continue;
                detail = "the signature does not match: " + std::string(name) + " of '";
                for (auto const& p : part) detail.append(p.name).append(p.value);
                detail.append("' would be ").append(expected.view());
            }
        }
        if (right) detail.clear();
        return right ? "" : "the signature does not match";
    }

    static std::array<aliyun::parameter, 4> parameters_of(aliyun::device const& d, std::string_view client_id,
                                                          std::string_view timestamp) {
        return {{{"clientId", client_id},
                 {"deviceName", d.device_name},
                 {"productKey", d.product_key},
                 {"timestamp", timestamp}}};
    }

    std::map<std::string, aliyun::device, std::less<>> devices_;
};

}  // namespace runnel::testing
