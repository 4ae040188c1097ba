#pragma once

#include <runnel/testing/aliyun/detail/request.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

// How the simulated platform answers requests to its services: time, firmware, configuration, log, jobs, shadow.

namespace runnel::testing::detail {

/// The payload on /ext/ntp/.../response. `offset` is by how much the platform's clock is ahead, in milliseconds.
inline json answer_ntp(aliyun_request const& r, std::int64_t offset) {
    auto const now = std::to_string(r.now + offset);
    auto sent = r.body.is_object() ? r.body.value("deviceSendTime", json("")) : json("");
    return {{"deviceSendTime", std::move(sent)}, {"serverRecvTime", now}, {"serverSendTime", now}};
}

/// The module that a request is about; that which is named `default` if it names none.
inline std::string module_in(json const& params) {
    auto const name = text_of(params, "module");
    return name.empty() ? "default" : name;
}

/// /ota/device/inform/...; no answer.
inline void keep_version(aliyun_request& r) {
    auto const version = text_of(r.params(), "version");
    auto const module = module_in(r.params());
    bool const kept = r.self.versions.contains(module) || r.self.versions.size() < max_names;
    if (!version.empty() && kept) r.self.versions[module] = version;
}

/// /ota/device/progress/...; no answer.
inline void keep_progress(aliyun_request& r) {
    keep_newest(r.self.progress, r.self.progress_kept, r.params(), r.payload.size());
}

/// thing/ota/firmware/get: what is offered, unless the device has it already.
inline aliyun_answer answer_firmware_get(aliyun_request& r) {
    auto const module = module_in(r.params());
    auto const found = r.self.firmware.find(module);
    if (found == r.self.firmware.end()) return {};
    if (text_of(r.self.versions, module.c_str()) == text_of(*found, "version")) return {};
    return {200, *found};
}

/// thing/config/get
inline aliyun_answer answer_config_get(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_object() || text_of(params, "configScope") != "product" || text_of(params, "getType") != "file")
        return {460};
    return r.self.config.is_null() ? aliyun_answer{6710} : aliyun_answer{200, r.self.config};
}

/// thing/log/post
inline aliyun_answer answer_log_post(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array() || params.empty()) return {460};
    for (auto const& entry : params)
        for (auto const* member : {"utcTime", "logLevel", "module", "code", "logContent"})
            if (!entry.is_object() || !entry.contains(member)) return {460};
    auto const share = r.payload.size() / params.size();
    for (auto const& entry : params) keep_newest(r.self.logs, r.self.logs_kept, entry, share);
    return {};
}

/// What the device is told about its log.
inline json log_config(aliyun_record const& r) { return {{"getType", "content"}, {"content", {{"mode", r.log_mode}}}}; }

/// thing/config/log/get
inline aliyun_answer answer_log_config(aliyun_request& r) { return {200, log_config(r.self)}; }

/// thing/job/get: one job by its identifier, `$next` for any that is not done, `$list` for all.
inline aliyun_answer answer_job_get(aliyun_request& r) {
    auto const wanted = text_of(r.params(), "taskId");
    auto const done = [](json const& job) {
        auto const status = text_of(job, "status");
        return status == "SUCCEEDED" || status == "FAILED" || status == "REJECTED";
    };
    if (wanted == "$list") {
        json all = json::array();
        for (auto const& [id, job] : r.self.jobs.items()) all.push_back(job);
        return {200, {{"taskId", wanted}, {"tasks", std::move(all)}}};
    }
    for (auto const& [id, job] : r.self.jobs.items())
        if (id == wanted || (wanted == "$next" && !done(job))) return {200, {{"taskId", id}, {"task", job}}};
    return {200, {{"taskId", wanted}}};
}

/// thing/job/update
inline aliyun_answer answer_job_update(aliyun_request& r) {
    auto const id = text_of(r.params(), "taskId");
    auto const found = r.self.jobs.find(id);
    if (found == r.self.jobs.end() || text_of(r.params(), "status").empty()) return {460};
    for (auto const* member : {"status", "statusDetail", "progress"})
        if (r.params().contains(member)) (*found)[member] = r.params()[member];
    return {200, {{"taskId", id}}};
}

/// Attributes that each side of a shadow may have.
inline constexpr std::size_t max_shadow_attributes = 128;

/// A refusal of the shadow's: its codes are texts.
inline json shadow_error(int code, std::string text) {
    return {{"status", "error"}, {"content", {{"errorcode", std::to_string(code)}, {"errormessage", std::move(text)}}}};
}

/// What the shadow holds, without what is empty.
inline json shadow_contents(json const& shadow) {
    json contents = json::object();
    for (auto const* part : {"state", "metadata"}) {
        contents[part] = json::object();
        for (auto const* side : {"reported", "desired"})
            if (!shadow[part][side].empty()) contents[part][side] = shadow[part][side];
    }
    return contents;
}

/// Takes over the members of one side of a shadow; the text `"null"` in place of the object, or null as a value,
/// deletes.
inline void change_shadow(json& shadow, char const* side, json const& given, std::int64_t seconds) {
    auto& state = shadow["state"][side];
    auto& metadata = shadow["metadata"][side];
    if (!given.is_object()) {
        state = metadata = json::object();
        return;
    }
    for (auto const& [name, value] : given.items()) {
        if (value.is_null() || value == "null") {
            state.erase(name);
            metadata.erase(name);
        } else {
            state[name] = value;
            metadata[name] = {{"timestamp", seconds}};
        }
    }
}

/// Whether one side of a shadow takes more attributes.
inline bool shadow_has_room(json const& shadow, char const* side, json const& given) {
    auto const& state = shadow["state"][side];
    auto names = state.size();
    for (auto const& [name, value] : given.items())
        names += !value.is_null() && value != "null" && !state.contains(name);
    return names <= max_shadow_attributes;
}

/// The changes of an `update` or a `delete`: null if all is well, otherwise the refusal.
inline json update_shadow(json& shadow, json const& body, std::int64_t seconds) {
    bool const deletes = text_of(body, "method") == "delete";
    auto const state = body.find("state");
    if (state == body.end()) return shadow_error(402, "the payload has no state");
    auto const version = body.find("version");
    if (version == body.end() || !version->is_number_integer()) return shadow_error(403, "the version is not a number");
    // -1 lets the device begin anew.
    auto const has = shadow["version"].get<std::int64_t>();
    auto const given = version->get<std::int64_t>();
    if (given != -1 && given <= has)
        return shadow_error(409, "the version must be greater than " + std::to_string(has));
    if (!state->is_object() || (!state->contains("reported") && !state->contains("desired")))
        return shadow_error(404, "the state has no reported field");
    if (!deletes && state->contains("reported") && (*state)["reported"].is_object() && (*state)["reported"].empty())
        return shadow_error(405, "the reported field is empty");
    for (auto const* side : {"reported", "desired"})
        if (state->contains(side) && (*state)[side].is_object() && !shadow_has_room(shadow, side, (*state)[side]))
            return shadow_error(408, "there are more than 128 attributes");
    for (auto const* side : {"reported", "desired"})
        if (state->contains(side)) change_shadow(shadow, side, (*state)[side], seconds);
    shadow["version"] = given == -1 ? 0 : given;
    return nullptr;
}

/// The payload on /shadow/get/..., for a message on /shadow/update/...
inline json answer_shadow(aliyun_request& r) {
    auto const seconds = r.now / 1000;
    auto& shadow = r.self.shadow;
    auto const method = text_of(r.body, "method");
    json payload;
    if (!r.body.is_object())
        payload = shadow_error(400, "the payload is not JSON");
    else if (method.empty())
        payload = shadow_error(401, "the payload has no method");
    else if (method == "get")
        payload = shadow_contents(shadow);
    else if (method == "update" || method == "delete")
        payload = update_shadow(shadow, r.body, seconds);
    else
        payload = shadow_error(406, "the method is not supported");
    if (payload.is_null()) payload = json::object();
    bool const failed = payload.contains("content");
    if (!failed) payload["status"] = "success";
    json reply = {{"method", "reply"}, {"payload", std::move(payload)}, {"timestamp", seconds}};
    if (!failed && method == "get")
        reply["version"] = shadow["version"];
    else if (!failed)
        reply["payload"]["version"] = shadow["version"];
    return reply;
}

}  // namespace runnel::testing::detail
