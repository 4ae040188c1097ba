#pragma once

#include <runnel/aliyun/alink/protocol/codec.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

// The device shadow: a JSON document that the platform keeps for a device, with what the device has reported and what
// is desired of it. Its messages are not Alink's: they have no id, and all answers come on one topic.

namespace runnel::aliyun::alink {

/// A device's shadow, or the part of it that a message has.
struct shadow {
    json reported = json::object();
    json desired = json::object();
    json metadata = json::object();  ///< when each value was set
    std::uint64_t version = 0;       ///< grows with each update
    std::uint64_t timestamp = 0;     ///< seconds since 1970
};

/// A message on the topic `shadow/get`.
struct shadow_message {
    enum class kind : std::uint8_t {
        done,     ///< an update or a deletion has succeeded
        state,    ///< the shadow that was asked for
        failed,   ///< a request has failed with `code` and `text`
        control,  ///< the platform pushes what is desired
    };
    kind what{};
    int code = 0;
    std::string text{};
    alink::shadow shadow{};
};

/// Reads such a message. `out` is left alone on an error.
inline errc decode(std::string_view text, shadow_message& out) {
    json message;
    if (errc const e = parse_object(text, message); e != errc::ok) return e;
    shadow_message made;
    std::string method;
    json const* const payload = find(message, "payload");
    if (payload == nullptr) return errc::member_missing;
    if (!payload->is_object() || !read_text(message, "method", method) ||
        !read_number(message, "version", made.shadow.version) ||
        !read_number(message, "timestamp", made.shadow.timestamp) ||
        !read_number(*payload, "version", made.shadow.version))
        return errc::member_of_wrong_type;

    json const* const state = find(*payload, "state");
    if (state != nullptr) {
        for (auto const& [name, part] :
             {std::pair{"reported", &made.shadow.reported}, {"desired", &made.shadow.desired}})
            if (json const* const found = find(*state, name); found != nullptr && found->is_object()) *part = *found;
        if (json const* const found = find(*payload, "metadata")) made.shadow.metadata = *found;
    }
    std::string status;
    if (!read_text(*payload, "status", status)) return errc::member_of_wrong_type;
    if (method == "control") {
        if (state == nullptr) return errc::member_missing;
        made.what = shadow_message::kind::control;
    } else if (method != "reply") {
        return errc::method_mismatch;
    } else if (status == "success") {
        made.what = state != nullptr ? shadow_message::kind::state : shadow_message::kind::done;
    } else {
        made.what = shadow_message::kind::failed;
        made.code = static_cast<int>(errc::internal_error);
        if (json const* const content = find(*payload, "content"))
            if (!read_number(*content, "errorcode", made.code) || !read_text(*content, "errormessage", made.text))
                return errc::member_of_wrong_type;
    }
    out = std::move(made);
    return errc::ok;
}

/// Reports values. `version` must be greater than the shadow's.
inline json make_shadow_update(json const& reported, std::uint64_t version) {
    return {{"method", "update"}, {"state", {{"reported", reported}}}, {"version", version}};
}

/// Declares what was desired to be done with: the platform forgets it.
inline json make_shadow_clear(std::uint64_t version) {
    return {{"method", "update"}, {"state", {{"desired", "null"}}}, {"version", version}};
}

/// Deletes reported values by their names: all of them if `names` is an empty array.
inline json make_shadow_delete(json const& names, std::uint64_t version) {
    // The platform wants the text "null", not the JSON value.
    json reported = "null";
    if (!names.empty()) {
        reported = json::object();
        for (auto const& name : names)
            if (name.is_string()) reported[name.get_ref<std::string const&>()] = "null";
    }
    return {{"method", "delete"}, {"state", {{"reported", reported}}}, {"version", version}};
}

}  // namespace runnel::aliyun::alink
