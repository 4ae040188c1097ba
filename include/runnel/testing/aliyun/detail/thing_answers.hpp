#pragma once

#include <runnel/testing/aliyun/detail/request.hpp>

#include <cstddef>
#include <string>

// How the simulated platform answers the thing model: properties, events, desired properties, tags, templates.

namespace runnel::testing::detail {

/// Properties that one message may carry.
inline constexpr std::size_t max_properties = 200;
/// Sub-devices that one message of a gateway may report for.
inline constexpr std::size_t max_packed_devices = 20;

/// Takes over one property: a value, or `{"value":..., "time":...}`.
inline void keep_property(aliyun_record& to, std::string const& name, json const& given) {
    bool const wrapped = given.is_object() && given.contains("value");
    to.properties[name] = wrapped ? given["value"] : given;
    if (wrapped && given.contains("time")) to.property_times[name] = given["time"];
}

/// Whether `to`, by name, takes the names of `given` without there being too many.
inline bool has_room_for(json const& to, json const& given) {
    std::size_t names = to.size();
    for (auto const& [name, value] : given.items()) names += !to.contains(name);
    return names <= max_names;
}

/// Takes over properties by name. False, and nothing is taken over: that is no object, or has too many new names.
inline bool keep_properties(aliyun_record& to, json const& given) {
    if (!given.is_object() || !has_room_for(to.properties, given)) return false;
    for (auto const& [name, value] : given.items()) {
        if (value.is_array())
            for (auto const& one : value) keep_property(to, name, one);
        else
            keep_property(to, name, value);
    }
    return true;
}

/// Takes over one event, as an object with `value` and `time` or as its parameters alone.
inline void keep_event(aliyun_record& to, std::string id, json const& given) {
    bool const wrapped = given.is_object() && given.contains("value");
    auto const& params = wrapped ? given["value"] : given;
    auto const size = id.size() + params.dump(-1, ' ', false, json::error_handler_t::replace).size();
    keep_newest(to.events, to.events_kept, posted_event{std::move(id), params}, size);
}

/// Takes over events by identifier, each an object or an array of them.
inline void keep_events(aliyun_record& to, json const& given) {
    if (!given.is_object()) return;
    for (auto const& [id, value] : given.items()) {
        if (value.is_array())
            for (auto const& one : value) keep_event(to, id, one);
        else
            keep_event(to, id, value);
    }
}

/// thing/event/property/post
inline aliyun_answer answer_property_post(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_object() || params.empty()) return {460};
    if (params.size() > max_properties || !keep_properties(r.self, params)) return {6106};
    return {};
}

/// thing/event/property/batch/post
inline aliyun_answer answer_batch_post(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_object() || (!params.contains("properties") && !params.contains("events"))) return {460};
    keep_properties(r.self, params.value("properties", json::object()));
    keep_events(r.self, params.value("events", json::object()));
    return {};
}

/// The record that `identity` names: the sender's own or one of its sub-devices'; null if it is neither.
inline aliyun_record* identified(aliyun_request& r, json const& entry) {
    if (!entry.is_object() || !entry.contains("identity")) return nullptr;
    auto const name = device_named_in(entry["identity"]);
    auto* const found = r.records.find(name);
    auto const own = aliyun_name_of(r.sender.device.product_key, r.sender.device.device_name);
    return found != nullptr && (name == own || found->gateway == own) ? found : nullptr;
}

/// thing/event/property/pack/post
inline aliyun_answer answer_pack_post(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_object() || params.empty()) return {460};
    auto const subs = params.value("subDevices", json::array());
    if (!subs.is_array()) return {460};
    if (subs.size() > max_packed_devices) return {6357};
    for (auto const& sub : subs)
        if (identified(r, sub) == nullptr) return {6401};
    keep_properties(r.self, params.value("properties", json::object()));
    keep_events(r.self, params.value("events", json::object()));
    for (auto const& sub : subs) {
        auto& to = *identified(r, sub);
        keep_properties(to, sub.value("properties", json::object()));
        keep_events(to, sub.value("events", json::object()));
    }
    return {};
}

/// thing/event/property/history/post
inline aliyun_answer answer_history_post(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array() || params.empty()) return {460};
    for (auto const& entry : params)
        if (identified(r, entry) == nullptr) return {6401};
    for (auto const& entry : params) {
        auto& to = *identified(r, entry);
        for (auto const& properties : entry.value("properties", json::array())) keep_properties(to, properties);
        for (auto const& events : entry.value("events", json::array())) keep_events(to, events);
    }
    return {};
}

/// thing/event/ID/post
inline aliyun_answer answer_event_post(aliyun_request& r) {
    if (!r.params().is_object()) return {460};
    keep_event(r.self, std::string(r.topic.id), r.params());
    return {};
}

/// thing/model/up_raw
inline aliyun_answer answer_raw(aliyun_request& r) {
    keep_newest(r.self.raw, r.self.raw_kept, std::string(r.payload), r.payload.size());
    return {};
}

/// thing/property/desired/get
inline aliyun_answer answer_desired_get(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array()) return {460};
    if (params.size() > max_properties) return {6104};
    aliyun_answer answer;
    for (auto const& name : params)
        if (name.is_string() && r.self.desired.contains(name.get<std::string>()))
            answer.data[name.get<std::string>()] = r.self.desired[name.get<std::string>()];
    return answer;
}

/// thing/property/desired/delete: those whose version is the one given, or for which none is.
inline aliyun_answer answer_desired_delete(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_object()) return {460};
    for (auto const& [name, given] : params.items()) {
        auto const found = r.self.desired.find(name);
        if (found == r.self.desired.end()) continue;
        bool const any = !given.is_object() || !given.contains("version");
        if (any || given["version"] == (*found)["version"]) r.self.desired.erase(found);
    }
    return {};
}

/// thing/deviceinfo/update
inline aliyun_answer answer_tags_update(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array() || params.empty()) return {460};
    for (auto const& tag : params)
        if (text_of(tag, "attrKey").empty() || !tag.contains("attrValue")) return {460};
    for (auto const& tag : params) {
        auto const key = text_of(tag, "attrKey");
        if (!r.self.tags.contains(key) && r.self.tags.size() >= max_names) return {460};
        r.self.tags[key] = tag["attrValue"];
    }
    return {};
}

/// thing/deviceinfo/delete
inline aliyun_answer answer_tags_delete(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array() || params.empty()) return {460};
    for (auto const& tag : params) r.self.tags.erase(text_of(tag, "attrKey"));
    return {};
}

/// thing/dsltemplate/get, thing/dynamicTsl/get
inline aliyun_answer answer_thing_model(aliyun_request& r) {
    auto const found = r.records.thing_models.find(r.self.device.product_key.view());
    return found == r.records.thing_models.end() ? aliyun_answer{} : aliyun_answer{200, found->second};
}

}  // namespace runnel::testing::detail
