#pragma once

#include <runnel/aliyun/alink/error.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/core/callback.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace runnel::aliyun::alink {

/// What a device wants to receive: each feature stands for the topics it subscribes to. The platform delivers many of
/// them unasked, but a session gives a message only to those who have subscribed.
enum class feature : std::uint32_t {
    none = 0,
    thing_model = 1u << 0,  ///< replies to properties and events, and properties to be set; services by their handlers
    batches = 1u << 1,      ///< replies to batch, pack and history posts
    desired = 1u << 2,
    tags = 1u << 3,
    rrpc = 1u << 4,
    /// Synchronous services on `/ext/rrpc/...`. The platform has them only for devices which connect with the parameter
    /// `ext=1` (see `connect_options::parameters`).
    custom_rrpc = 1u << 5,
    ntp = 1u << 6,
    errors = 1u << 7,
    ota = 1u << 8,
    configuration = 1u << 9,
    log = 1u << 10,
    shadow = 1u << 11,
    jobs = 1u << 12,
    raw = 1u << 13,
    broadcast = 1u << 14,
    gateway = 1u << 15,
    sub_device = 1u << 16,  ///< being disabled, enabled and deleted
    definition = 1u << 17,  ///< replies to requests for the thing model itself

    /// What a device has by default.
    usual = thing_model | desired | tags | rrpc | ntp | errors | ota | configuration | log | shadow,
    /// What a sub-device has by default.
    usual_of_sub_device = thing_model | desired | tags | ota | sub_device,
};

/// Several features.
constexpr feature operator|(feature a, feature b) noexcept {
    return static_cast<feature>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}
/// Whether `set` and `one` have a feature in common.
constexpr bool has(feature set, feature one) noexcept {
    return (static_cast<std::uint32_t>(set) & static_cast<std::uint32_t>(one)) != 0;
}

/// A topic that belongs to a feature.
struct feature_topic {
    alink::feature feature{};
    topic_kind kind{};
    bool reply = false;
    std::string_view id = {};
};

/// What the features subscribe to.
inline constexpr std::array feature_topics = {
    feature_topic{feature::thing_model, topic_kind::event_post, true, "+"},
    feature_topic{feature::thing_model, topic_kind::property_set, false},
    feature_topic{feature::batches, topic_kind::property_batch_post, true},
    feature_topic{feature::batches, topic_kind::property_pack_post, true},
    feature_topic{feature::batches, topic_kind::property_history_post, true},
    feature_topic{feature::desired, topic_kind::desired_get, true},
    feature_topic{feature::desired, topic_kind::desired_delete, true},
    feature_topic{feature::tags, topic_kind::tags_update, true},
    feature_topic{feature::tags, topic_kind::tags_delete, true},
    feature_topic{feature::rrpc, topic_kind::rrpc_request, false, "+"},
    feature_topic{feature::ntp, topic_kind::ntp_response, false},
    feature_topic{feature::errors, topic_kind::error_notice, false},
    feature_topic{feature::ota, topic_kind::ota_upgrade, false},
    feature_topic{feature::ota, topic_kind::ota_firmware_get, true},
    feature_topic{feature::configuration, topic_kind::config_get, true},
    feature_topic{feature::configuration, topic_kind::config_push, false},
    feature_topic{feature::log, topic_kind::log_post, true},
    feature_topic{feature::log, topic_kind::log_config_get, true},
    feature_topic{feature::log, topic_kind::log_config_push, false},
    feature_topic{feature::shadow, topic_kind::shadow_get, false},
    feature_topic{feature::jobs, topic_kind::job_get, true},
    feature_topic{feature::jobs, topic_kind::job_update, true},
    feature_topic{feature::jobs, topic_kind::job_notify, false},
    feature_topic{feature::raw, topic_kind::raw_down, false},
    feature_topic{feature::broadcast, topic_kind::device_broadcast, false, "+"},
    feature_topic{feature::definition, topic_kind::thing_template_get, true},
    feature_topic{feature::gateway, topic_kind::topology_add, true},
    feature_topic{feature::gateway, topic_kind::topology_delete, true},
    feature_topic{feature::gateway, topic_kind::topology_get, true},
    feature_topic{feature::gateway, topic_kind::topology_change, false},
    feature_topic{feature::gateway, topic_kind::topology_add_notice, false},
    feature_topic{feature::gateway, topic_kind::sub_device_register, true},
    feature_topic{feature::gateway, topic_kind::sub_device_product_register, true},
    feature_topic{feature::gateway, topic_kind::sub_devices_found, true},
    feature_topic{feature::gateway, topic_kind::sub_device_login, true},
    feature_topic{feature::gateway, topic_kind::sub_device_batch_login, true},
    feature_topic{feature::gateway, topic_kind::sub_device_logout, true},
    feature_topic{feature::gateway, topic_kind::sub_device_batch_logout, true},
    feature_topic{feature::sub_device, topic_kind::sub_device_disable, false},
    feature_topic{feature::sub_device, topic_kind::sub_device_enable, false},
    feature_topic{feature::sub_device, topic_kind::sub_device_delete, false},
};

/// The topic filters of `set` for a device, in the order of the table.
inline std::vector<std::string> filters_of(feature set, aliyun::device const& who) {
    std::vector<std::string> filters;
    for (auto const& t : feature_topics) {
        if (!has(set, t.feature)) continue;
        topic_name name;
        throw_unless_ok(build_topic({.kind = t.kind,
                                     .reply = t.reply,
                                     .product_key = who.product_key,
                                     .device_name = who.device_name,
                                     .id = t.id},
                                    name));
        filters.push_back(name.str());
    }
    return filters;
}

/// Something received that is not as it should be, or a handler that has failed or refused: never an end of `run`.
struct fault {
    std::error_code why{};
    std::string_view topic{};
    std::string_view detail{};  ///< the payload, or what the handler's exception says
};

/// How a device speaks Alink.
struct options {
    feature features = feature::usual;
    /// The time for a request, with its reply, 1 ms or more.
    std::chrono::milliseconds timeout{10'000};
    /// For requests and replies, 0 or 1. RRPC and logins of sub-devices always use QoS 0, as the platform prescribes.
    mqtt::qos quality = mqtt::qos::at_least_once;
    /// Of a gateway: the pause before a sub-device's login or logout that has failed for now is tried again, 1 ms to 1
    /// h. From the fourth failure in a row on the pauses double, up to 60 times as long.
    std::chrono::milliseconds login_pause{1000};
    /// Handlers that run at a time; further calls are refused with the code 429.
    std::size_t maximum_calls = 32;
    /// Received messages that wait for `run`; what comes beyond is dropped.
    std::size_t maximum_waiting = 256;
    /// If set, is told of each fault. It must not throw.
    callback<fault const&> on_fault = {};
};

/// How to make one request. A plain aggregate of numbers, which can be written in braces in a `co_await` expression.
struct request_options {
    std::chrono::milliseconds timeout{0};  ///< 0: as `options::timeout`
    bool reply = true;  ///< false: the platform is told not to reply, and the request completes when it is published
};

/// What a channel has seen.
struct counters {
    std::uint64_t calls = 0;              ///< for which a handler was started
    std::uint64_t faults = 0;             ///< see `fault`
    std::uint64_t unmatched_replies = 0;  ///< too late, or never asked for
    std::uint64_t dropped = 0;            ///< messages beyond `maximum_waiting`
};

}  // namespace runnel::aliyun::alink
