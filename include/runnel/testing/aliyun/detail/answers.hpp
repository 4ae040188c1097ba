#pragma once

#include <runnel/aliyun/alink/protocol/codec.hpp>
#include <runnel/testing/aliyun/detail/gateway_answers.hpp>
#include <runnel/testing/aliyun/detail/request.hpp>
#include <runnel/testing/aliyun/detail/service_answers.hpp>
#include <runnel/testing/aliyun/detail/thing_answers.hpp>
#include <runnel/testing/aliyun/wrong_answer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing::detail {

/// A message to a device.
struct aliyun_outgoing {
    std::string topic{};
    std::string payload{};
};

/// What a payload holds; null if it is not JSON, or is nested deeper than anything that a device has to say.
inline json parsed(std::string_view payload) {
    json value;
    return aliyun::alink::parse(payload, value) == aliyun::alink::errc::ok ? std::move(value) : json();
}

/// What the platform's services answer to the requests of devices. No I/O, and no clock.
class aliyun_answers {
  public:
    aliyun_answers(aliyun_records& records, aliyun_identities& identities) noexcept
        : records_(records), identities_(identities) {}

    /// Makes the next `count` answers wrong.
    void answer_next(std::size_t count, wrong_answer how) noexcept {
        wrong_left_ = count;
        wrong_ = how;
    }

    /// By how many milliseconds the platform's clock is ahead.
    std::int64_t clock_offset = 0;

    /// The answer to a message of `sender`, a device's name, if there is one. `now`: milliseconds since 1970.
    std::optional<aliyun_outgoing> answer(std::string_view sender, std::string_view topic, std::string_view payload,
                                          std::int64_t now) {
        aliyun::topic_parts parts;
        if (parse_topic(topic, parts) != aliyun::errc::ok || parts.reply) return std::nullopt;
        auto const* const whom = identities_.find(aliyun_name_of(parts.product_key, parts.device_name));
        auto const* const who = identities_.find(sender);
        if (whom == nullptr || who == nullptr) return std::nullopt;
        aliyun_request r{parts,    parsed(payload), payload, records_.of(*who), records_.of(*whom),
                         records_, identities_,     now};
        return respond(r);
    }

  private:
    using kind = aliyun::topic_kind;
    using function = aliyun_answer (*)(aliyun_request&);

    // Those that are answered on a topic with `_reply`.
    static function function_for(kind k) noexcept {
        switch (k) {
            case kind::property_post: return answer_property_post;
            case kind::property_batch_post: return answer_batch_post;
            case kind::property_pack_post: return answer_pack_post;
            case kind::property_history_post: return answer_history_post;
            case kind::event_post: return answer_event_post;
            case kind::raw_up: return answer_raw;
            case kind::desired_get: return answer_desired_get;
            case kind::desired_delete: return answer_desired_delete;
            case kind::tags_update: return answer_tags_update;
            case kind::tags_delete: return answer_tags_delete;
            case kind::thing_template_get:
            case kind::thing_description_get: return answer_thing_model;
            case kind::ota_firmware_get: return answer_firmware_get;
            case kind::config_get: return answer_config_get;
            case kind::log_post: return answer_log_post;
            case kind::log_config_get: return answer_log_config;
            case kind::job_get: return answer_job_get;
            case kind::job_update: return answer_job_update;
            case kind::topology_add: return answer_topology_add;
            case kind::topology_delete: return answer_topology_delete;
            case kind::topology_get: return answer_topology_get;
            case kind::sub_device_register: return answer_sub_register;
            case kind::sub_device_product_register: return answer_product_register;
            case kind::sub_devices_found: return answer_devices_found;
            case kind::sub_device_login:
            case kind::sub_device_batch_login: return answer_login;
            case kind::sub_device_logout:
            case kind::sub_device_batch_logout: return answer_logout;
            default: return nullptr;
        }
    }

    std::optional<aliyun_outgoing> respond(aliyun_request& r) {
        if (r.topic.kind == kind::ota_inform) return keep_version(r), std::nullopt;
        if (r.topic.kind == kind::ota_progress) return keep_progress(r), std::nullopt;
        auto const answers = function_for(r.topic.kind);
        bool const other = r.topic.kind == kind::ntp_request || r.topic.kind == kind::shadow_update;
        if (!answers && !other) return std::nullopt;

        auto const wrong = wrong_left_ > 0 ? wrong_ : wrong_answer{};
        if (wrong_left_ > 0) --wrong_left_;
        if (wrong.silent) return std::nullopt;
        json reply = other ? answer_specially(r) : answer_as_usual(r, answers, wrong.code);
        if (!other && !wants_answer(r.body)) return std::nullopt;
        if (wrong.wrong_id) reply["id"] = "nobody-asked";
        return aliyun_outgoing{answer_topic(r.topic), wrong.garbage ? "{garbage" : reply.dump()};
    }

    json answer_specially(aliyun_request& r) const {
        return r.topic.kind == kind::ntp_request ? answer_ntp(r, clock_offset) : answer_shadow(r);
    }

    static json answer_as_usual(aliyun_request& r, function answers, int wrong_code) {
        aliyun_answer answer;
        bool const is_json = r.topic.kind == kind::raw_up || r.body.is_object();
        if (wrong_code != 0)
            answer.code = wrong_code;
        else if (!is_json)
            answer.code = 460;
        else
            answer = answers(r);
        return reply_to(r.body, method_of(r.topic), answer);
    }

    // "thing.event.property.post" for the topic /sys/PK/DN/thing/event/property/post; nothing elsewhere.
    static std::string method_of(aliyun::topic_parts const& topic) {
        aliyun::topic_name name;
        if (build_topic(topic, name) != aliyun::errc::ok || !name.view().starts_with("/sys/")) return {};
        std::string method(name.view().substr(7 + topic.product_key.size() + topic.device_name.size()));
        std::replace(method.begin(), method.end(), '/', '.');
        return method;
    }

    static std::string answer_topic(aliyun::topic_parts topic) {
        if (topic.kind == kind::ntp_request)
            topic.kind = kind::ntp_response;
        else if (topic.kind == kind::shadow_update)
            topic.kind = kind::shadow_get;
        else
            topic.reply = true;
        aliyun::topic_name name;
        aliyun::throw_unless_ok(build_topic(topic, name));
        return name.str();
    }

    aliyun_records& records_;
    aliyun_identities& identities_;
    wrong_answer wrong_{};
    std::size_t wrong_left_ = 0;
};

}  // namespace runnel::testing::detail
