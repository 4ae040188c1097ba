#pragma once

#include <runnel/aliyun/rate_limit.hpp>
#include <runnel/testing/aliyun/identities.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::testing::detail {

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
/// and subscribe where, and how often. Without a clock: `now` is an argument.
class aliyun_rules {
  public:
    using time_point = aliyun::rate_limit::time_point;

    /// Who there is.
    aliyun_identities identities{};
    /// Whether the limits on messages a second and on connections a minute are kept to. Messages above are dropped, as
    /// the platform does it, and CONNECTs above are refused.
    bool limits_rates = false;
    /// If set, is asked about topics that are not the device's own: whether the device (by name) may use the topic.
    std::function<bool(std::string_view name, std::string_view topic)> allows_besides{};

    /// What the broker calls a device: `DEVICE_NAME&PRODUCT_KEY`, its user name.
    static std::string name_of(aliyun::device const& d) { return aliyun_name_of(d.product_key, d.device_name); }

    /// What the platform tells clients of MQTT 5, and what it keeps to with others.
    static broker_options make_options() {
        broker_options options;
        options.accepts.maximum_qos = mqtt::qos::at_least_once;
        options.accepts.subscription_identifier_available = false;
        options.accepts.maximum_packet_size = aliyun::max_payload_size;
        options.accepts.receive_maximum = aliyun::max_in_flight;
        options.accepts.topic_alias_maximum = 20;
        options.accepts_v3_1 = true;
        options.ignores_subscription_qos_v3_1_1 = true;
        options.maximum_session_expiry = static_cast<std::uint32_t>(
            std::chrono::duration_cast<std::chrono::seconds>(aliyun::offline_retention).count());
        return options;
    }

    /// Whether a client may connect. A refusal is explained in `request`; `greeting` is for the client if it may.
    mqtt::reason_code check_connect(connect_attempt& request, std::optional<aliyun_greeting>& greeting,
                                    time_point now) {
        // Whoever cannot prove to be the device does not use up its connections.
        return identities.check_connect(request, greeting, [&] {
            auto const user = request.packet.user_name.value_or("");
            return !limits_rates || rates_of(user).connections.try_take(now);
        });
    }

    /// Whether a device may publish this message.
    publish_verdict check_publish(client_info const& who, mqtt::publish const& m, time_point now) {
        using enum mqtt::reason_code;
        bool const v3 = who.version == mqtt::protocol_version::v3_1_1;
        if (m.qos == mqtt::qos::exactly_once) return {qos_not_supported, true};
        if (v3 && m.retain) return {retain_not_supported, true};
        if (aliyun::check_payload(m.payload.size()) != aliyun::errc::ok) return {quota_exceeded, false};
        if (aliyun::check_topic(m.topic) != aliyun::errc::ok) return {topic_name_invalid, false};
        if (!may_use(who.name, m.topic)) return {not_authorized, false};
        if (limits_rates) {
            auto& rates = rates_of(who.name);
            auto& limit = m.qos == mqtt::qos::at_most_once ? rates.qos_0 : rates.qos_1;
            if (!limit.try_take(now)) return {quota_exceeded, false};
        }
        return {success, false};
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
        auto const* const known = identities.find(who.name);
        if (known == nullptr) return not_authorized;
        topic_levels levels(filter);
        bool const broadcast = levels.next() == "broadcast" && levels.next() == known->product_key.view();
        if (!broadcast && !may_use(who.name, filter)) return not_authorized;
        return static_cast<mqtt::reason_code>((std::min)(request.maximum_qos, mqtt::qos::at_least_once));
    }

  private:
    struct device_rates {
        aliyun::rate_limit qos_0{aliyun::max_publish_rate_qos_0};
        aliyun::rate_limit qos_1{aliyun::max_publish_rate_qos_1};
        aliyun::rate_limit connections{aliyun::max_connects_per_minute, std::chrono::minutes(1)};
    };

    bool may_use(std::string_view name, std::string_view topic) const {
        auto const* const known = identities.find(name);
        if (known == nullptr) return false;
        return is_topic_of(*known, topic) || (allows_besides && allows_besides(name, topic));
    }

    device_rates& rates_of(std::string_view name) {
        auto const found = rates_.find(name);
        return found != rates_.end() ? found->second : rates_.emplace(name, device_rates{}).first->second;
    }

    std::map<std::string, device_rates, std::less<>> rates_{};
};

}  // namespace runnel::testing::detail
