#pragma once

#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/error.hpp>
#include <runnel/core/inline_string.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::aliyun {

/// What a topic of the platform is for. Each has one row in `topic_rules`.
enum class topic_kind : std::uint8_t {
    // The thing model: properties, events and services.
    property_post,
    property_batch_post,
    property_pack_post,
    property_history_post,
    property_set,
    event_post,
    service_call,
    raw_up,
    raw_down,
    desired_get,
    desired_delete,
    tags_update,
    tags_delete,
    thing_template_get,
    thing_description_get,
    // Requests that wait for their answer.
    rrpc_request,
    rrpc_response,
    custom_rrpc,
    // Services of the platform.
    ntp_request,
    ntp_response,
    error_notice,
    ota_inform,
    ota_progress,
    ota_upgrade,
    ota_firmware_get,
    config_get,
    config_push,
    log_post,
    log_config_get,
    log_config_push,
    job_get,
    job_update,
    job_notify,
    shadow_update,
    shadow_get,
    device_broadcast,
    product_broadcast,
    // Gateways and their sub-devices.
    topology_add,
    topology_delete,
    topology_get,
    topology_add_notice,
    topology_change,
    sub_device_register,
    sub_device_product_register,
    sub_devices_found,
    sub_device_disable,
    sub_device_enable,
    sub_device_delete,
    sub_device_login,
    sub_device_batch_login,
    sub_device_logout,
    sub_device_batch_logout,
    // Dynamic registration.
    registered,
    registered_with_token,
    // A product's own topics, `/PRODUCT_KEY/DEVICE_NAME/user/...`.
    custom,
};

/// How the topics of one kind look: levels between slashes, where `{pk}` stands for the product key, `{dn}` for the
/// device name, `{id}` for one level, and a final `{rest}` for one level or more.
struct topic_rule {
    topic_kind kind{};
    std::string_view pattern{};
    /// Whether there is a topic of the same name with `_reply` at its end, for the answers.
    bool has_reply = false;
};

/// All topics of the platform, in the order of `topic_kind`; of two rows that match a topic, the first one counts.
inline constexpr std::array topic_rules = {
    topic_rule{topic_kind::property_post, "/sys/{pk}/{dn}/thing/event/property/post", true},
    topic_rule{topic_kind::property_batch_post, "/sys/{pk}/{dn}/thing/event/property/batch/post", true},
    topic_rule{topic_kind::property_pack_post, "/sys/{pk}/{dn}/thing/event/property/pack/post", true},
    topic_rule{topic_kind::property_history_post, "/sys/{pk}/{dn}/thing/event/property/history/post", true},
    topic_rule{topic_kind::property_set, "/sys/{pk}/{dn}/thing/service/property/set", true},
    topic_rule{topic_kind::event_post, "/sys/{pk}/{dn}/thing/event/{id}/post", true},
    topic_rule{topic_kind::service_call, "/sys/{pk}/{dn}/thing/service/{id}", true},
    topic_rule{topic_kind::raw_up, "/sys/{pk}/{dn}/thing/model/up_raw", true},
    topic_rule{topic_kind::raw_down, "/sys/{pk}/{dn}/thing/model/down_raw", true},
    topic_rule{topic_kind::desired_get, "/sys/{pk}/{dn}/thing/property/desired/get", true},
    topic_rule{topic_kind::desired_delete, "/sys/{pk}/{dn}/thing/property/desired/delete", true},
    topic_rule{topic_kind::tags_update, "/sys/{pk}/{dn}/thing/deviceinfo/update", true},
    topic_rule{topic_kind::tags_delete, "/sys/{pk}/{dn}/thing/deviceinfo/delete", true},
    topic_rule{topic_kind::thing_template_get, "/sys/{pk}/{dn}/thing/dsltemplate/get", true},
    topic_rule{topic_kind::thing_description_get, "/sys/{pk}/{dn}/thing/dynamicTsl/get", true},
    topic_rule{topic_kind::rrpc_request, "/sys/{pk}/{dn}/rrpc/request/{id}", false},
    topic_rule{topic_kind::rrpc_response, "/sys/{pk}/{dn}/rrpc/response/{id}", false},
    topic_rule{topic_kind::custom_rrpc, "/ext/rrpc/{id}/{rest}", false},
    topic_rule{topic_kind::ntp_request, "/ext/ntp/{pk}/{dn}/request", false},
    topic_rule{topic_kind::ntp_response, "/ext/ntp/{pk}/{dn}/response", false},
    topic_rule{topic_kind::error_notice, "/ext/error/{pk}/{dn}", false},
    topic_rule{topic_kind::ota_inform, "/ota/device/inform/{pk}/{dn}", false},
    topic_rule{topic_kind::ota_progress, "/ota/device/progress/{pk}/{dn}", false},
    topic_rule{topic_kind::ota_upgrade, "/ota/device/upgrade/{pk}/{dn}", false},
    topic_rule{topic_kind::ota_firmware_get, "/sys/{pk}/{dn}/thing/ota/firmware/get", true},
    topic_rule{topic_kind::config_get, "/sys/{pk}/{dn}/thing/config/get", true},
    topic_rule{topic_kind::config_push, "/sys/{pk}/{dn}/thing/config/push", true},
    topic_rule{topic_kind::log_post, "/sys/{pk}/{dn}/thing/log/post", true},
    topic_rule{topic_kind::log_config_get, "/sys/{pk}/{dn}/thing/config/log/get", true},
    topic_rule{topic_kind::log_config_push, "/sys/{pk}/{dn}/thing/config/log/push", true},
    topic_rule{topic_kind::job_get, "/sys/{pk}/{dn}/thing/job/get", true},
    topic_rule{topic_kind::job_update, "/sys/{pk}/{dn}/thing/job/update", true},
    topic_rule{topic_kind::job_notify, "/sys/{pk}/{dn}/thing/job/notify", true},
    topic_rule{topic_kind::shadow_update, "/shadow/update/{pk}/{dn}", false},
    topic_rule{topic_kind::shadow_get, "/shadow/get/{pk}/{dn}", false},
    topic_rule{topic_kind::device_broadcast, "/sys/{pk}/{dn}/broadcast/request/{id}", false},
    topic_rule{topic_kind::product_broadcast, "/broadcast/{pk}/{rest}", false},
    topic_rule{topic_kind::topology_add, "/sys/{pk}/{dn}/thing/topo/add", true},
    topic_rule{topic_kind::topology_delete, "/sys/{pk}/{dn}/thing/topo/delete", true},
    topic_rule{topic_kind::topology_get, "/sys/{pk}/{dn}/thing/topo/get", true},
    topic_rule{topic_kind::topology_add_notice, "/sys/{pk}/{dn}/thing/topo/add/notify", true},
    topic_rule{topic_kind::topology_change, "/sys/{pk}/{dn}/thing/topo/change", true},
    topic_rule{topic_kind::sub_device_register, "/sys/{pk}/{dn}/thing/sub/register", true},
    topic_rule{topic_kind::sub_device_product_register, "/sys/{pk}/{dn}/thing/proxy/provisioning/product_register",
               true},
    topic_rule{topic_kind::sub_devices_found, "/sys/{pk}/{dn}/thing/list/found", true},
    topic_rule{topic_kind::sub_device_disable, "/sys/{pk}/{dn}/thing/disable", true},
    topic_rule{topic_kind::sub_device_enable, "/sys/{pk}/{dn}/thing/enable", true},
    topic_rule{topic_kind::sub_device_delete, "/sys/{pk}/{dn}/thing/delete", true},
    topic_rule{topic_kind::sub_device_login, "/ext/session/{pk}/{dn}/combine/login", true},
    topic_rule{topic_kind::sub_device_batch_login, "/ext/session/{pk}/{dn}/combine/batch_login", true},
    topic_rule{topic_kind::sub_device_logout, "/ext/session/{pk}/{dn}/combine/logout", true},
    topic_rule{topic_kind::sub_device_batch_logout, "/ext/session/{pk}/{dn}/combine/batch_logout", true},
    topic_rule{topic_kind::registered, "/ext/register", false},
    topic_rule{topic_kind::registered_with_token, "/ext/regnwl", false},
    topic_rule{topic_kind::custom, "/{pk}/{dn}/user/{rest}", false},
};

static_assert(
    [] {
        for (std::size_t i = 0; i < topic_rules.size(); ++i)
            if (topic_rules[i].kind != static_cast<topic_kind>(i)) return false;
        return topic_rules.back().kind == topic_kind::custom;
    }(),
    "topic_rules has one row for each topic_kind, in the same order");

/// The row of a kind.
constexpr topic_rule const& rule_of(topic_kind kind) noexcept { return topic_rules[static_cast<std::size_t>(kind)]; }

/// The parts of a topic: `build_topic` puts them together, `parse_topic` takes them apart. Views, valid as long as the
/// text they point to. Parts that the kind's pattern does not have are empty.
struct topic_parts {
    topic_kind kind = topic_kind::custom;
    /// Whether it is the topic of the answers, with `_reply` at its end.
    bool reply = false;
    std::string_view product_key = {};
    std::string_view device_name = {};
    /// The event, the service, or the identifier of the request.
    std::string_view id = {};
    /// What follows the levels that the platform prescribes, without a slash in front.
    std::string_view rest = {};

    /// The part that the placeholder `level` stands for; null if `level` is none.
    static constexpr auto placeholder(std::string_view level) noexcept -> std::string_view topic_parts::* {
        if (level == "{pk}") return &topic_parts::product_key;
        if (level == "{dn}") return &topic_parts::device_name;
        if (level == "{id}") return &topic_parts::id;
        if (level == "{rest}") return &topic_parts::rest;
        return nullptr;
    }

    friend constexpr bool operator==(topic_parts const&, topic_parts const&) noexcept = default;
};

/// A topic's text. Holds more than the platform's 128 bytes, since a custom RRPC topic carries another topic; what is
/// published is checked by `check_topic`.
using topic_name = inline_string<256>;

/// Takes the first level, without the slash in front of it, off the front of `topic`.
constexpr std::string_view next_level(std::string_view& topic) noexcept {
    topic.remove_prefix(1);
    std::string_view const level = topic.substr(0, topic.find('/'));
    topic.remove_prefix(level.size());
    return level;
}

/// Puts a topic together. Any of the parts may be the wildcard `+` to make a filter, and `rest` may end in `#`.
///
/// Errors: `topic_part_invalid` if a part that the pattern has is empty, or contains a slash (which only `rest` may),
/// or a reply is asked for of a topic that has none; `topic_too_long` above 256 bytes. `out` is then left alone.
constexpr errc build_topic(topic_parts const& parts, topic_name& out) noexcept {
    topic_rule const& rule = rule_of(parts.kind);
    if (parts.reply && !rule.has_reply) return errc::topic_part_invalid;
    topic_name made;
    bool fits = true;
    for (std::string_view pattern = rule.pattern; !pattern.empty();) {
        std::string_view level = next_level(pattern);
        if (auto const part = topic_parts::placeholder(level)) {
            level = parts.*part;
            bool const may_have_slashes = part == &topic_parts::rest;
            if (level.empty() || (!may_have_slashes && level.find('/') != level.npos)) return errc::topic_part_invalid;
        }
        fits = fits && made.try_append("/") && made.try_append(level);
    }
    if (parts.reply) fits = fits && made.try_append("_reply");
    if (!fits) return errc::topic_too_long;
    out = made;
    return errc::ok;
}

/// Whether `topic` has the form of `rule`; its parts are then in `out`.
constexpr bool match_topic(topic_rule const& rule, std::string_view topic, topic_parts& out) noexcept {
    topic_parts found{.kind = rule.kind};
    std::string_view pattern = rule.pattern;
    while (!pattern.empty()) {
        if (topic.empty() || topic.front() != '/') return false;
        std::string_view const wanted = next_level(pattern);
        auto const part = topic_parts::placeholder(wanted);
        if (part == &topic_parts::rest) {
            found.rest = topic.substr(1);
            topic = {};
            if (found.rest.empty()) return false;
            break;
        }
        std::string_view const level = next_level(topic);
        if (part == nullptr ? level != wanted : level.empty()) return false;
        if (part != nullptr) found.*part = level;
    }
    if (topic.empty()) out = found;
    return topic.empty();
}

/// Takes an incoming topic apart. The parts are views into `topic`. `topic_unknown` if it is none of the platform's;
/// `out` is then left alone.
constexpr errc parse_topic(std::string_view topic, topic_parts& out) noexcept {
    constexpr std::string_view suffix = "_reply";
    if (topic.ends_with(suffix))
        for (topic_rule const& rule : topic_rules)
            if (rule.has_reply && match_topic(rule, topic.substr(0, topic.size() - suffix.size()), out)) {
                out.reply = true;
                return errc::ok;
            }
    for (topic_rule const& rule : topic_rules) {
        topic_parts found;
        if (!match_topic(rule, topic, found)) continue;
        // No product is called so; the topic is one of the platform's that this library does not know.
        if (rule.kind == topic_kind::custom && (found.product_key == "sys" || found.product_key == "ext")) continue;
        out = found;
        return errc::ok;
    }
    return errc::topic_unknown;
}

/// The topics of one device:
///
///     runnel::aliyun::device_topics const topics(thermostat);
///     topics.of<topic_kind::property_post>();
///     topics.of<topic_kind::event_post>("overheated");
///     topics.of<topic_kind::custom>("room/1/temperature");
///     topics.of<topic_kind::rrpc_request>("+");
class device_topics {
  public:
    /// The topics of `who`, whose names are copied.
    constexpr explicit device_topics(device const& who) noexcept
        : product_key_(who.product_key), device_name_(who.device_name) {}

    /// The topic of kind `Kind`. The arguments are texts for the pattern's `{id}` and `{rest}`, in this order; their
    /// number is checked by the compiler. Throws `std::system_error` with an error of `build_topic`.
    template <topic_kind Kind, class... Text>
    constexpr topic_name of(Text const&... texts) const {
        return make<Kind>(false, texts...);
    }

    /// The topic on which what is published to `of<Kind>` is answered.
    template <topic_kind Kind, class... Text>
    requires(rule_of(Kind).has_reply)
    constexpr topic_name reply_of(Text const&... texts) const {
        return make<Kind>(true, texts...);
    }

    /// Whether a topic that was taken apart is this device's, or one that is sent to all.
    constexpr bool owns(topic_parts const& parts) const noexcept {
        return (parts.product_key.empty() || parts.product_key == product_key_) &&
               (parts.device_name.empty() || parts.device_name == device_name_);
    }

  private:
    template <topic_kind Kind, class... Text>
    constexpr topic_name make(bool reply, Text const&... texts) const {
        constexpr std::string_view pattern = rule_of(Kind).pattern;
        constexpr bool has_id = pattern.find("{id}") != pattern.npos;
        constexpr bool has_rest = pattern.find("{rest}") != pattern.npos;
        static_assert(sizeof...(texts) == std::size_t{has_id} + std::size_t{has_rest},
                      "one text for each {id} and {rest} of the topic's pattern");
        std::array<std::string_view, 3> const given = {std::string_view(texts)...};
        topic_parts const parts{.kind = Kind,
                                .reply = reply,
                                .product_key = product_key_,
                                .device_name = device_name_,
                                .id = has_id ? given[0] : std::string_view(),
                                .rest = has_rest ? given[has_id ? 1 : 0] : std::string_view()};
        topic_name name;
        throw_unless_ok(build_topic(parts, name));
        return name;
    }

    inline_string<max_product_key_size> product_key_;
    inline_string<max_device_name_size> device_name_;
};

}  // namespace runnel::aliyun
