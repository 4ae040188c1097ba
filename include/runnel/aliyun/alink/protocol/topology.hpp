#pragma once

#include <runnel/aliyun/alink/protocol/codec.hpp>
#include <runnel/aliyun/registration_request.hpp>
#include <runnel/aliyun/signer.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// What a gateway says of its sub-devices: names, and signatures by their secrets.

namespace runnel::aliyun::alink {

/// Sub-devices in one request to log in or out; the platform refuses more.
inline constexpr std::size_t max_login_batch = 50;

/// A device without its secret.
struct device_id {
    std::string product_key{};
    std::string device_name{};

    friend bool operator==(device_id const&, device_id const&) = default;
};

/// A device's product key and name.
inline device_id id_of(aliyun::device const& d) { return {d.product_key.str(), d.device_name.str()}; }

/// `{"productKey","deviceName"}`.
inline json make_id(std::string_view product_key, std::string_view device_name) {
    return {{"productKey", product_key}, {"deviceName", device_name}};
}

/// How the platform spells a method in the messages about sub-devices ("hmacSha256"), which is not as in CONNECT.
constexpr std::string_view sub_device_name_of(sign_method method) noexcept {
    switch (method) {
        case sign_method::hmacmd5: return "hmacMd5";
        case sign_method::hmacsha1: return "hmacSha1";
        case sign_method::hmacsha256: break;
    }
    return "hmacSha256";
}

/// What proves to the platform that a gateway knows the secret of `d`. The client identifier is `PK&DN`; `now` is in
/// milliseconds since 1970. `method_name` is what the message calls the method: "signmethod" where a topology is made,
/// "signMethod" in a login.
inline json make_proof(aliyun::device const& d, std::uint64_t now, char const* method_name,
                       sign_method method = sign_method::hmacsha256) {
    std::string const client_id = d.product_key.str() + "&" + d.device_name.str();
    std::string const timestamp = std::to_string(now);
    parameter const signed_parameters[] = {{"clientId", client_id},
                                           {"deviceName", d.device_name},
                                           {"productKey", d.product_key},
                                           {"timestamp", timestamp}};
    auto const sign = sign_parameters(method, d.device_secret, signed_parameters);
    json proof = make_id(d.product_key, d.device_name);
    proof["clientId"] = client_id;
    proof["timestamp"] = timestamp;
    proof[method_name] = sub_device_name_of(method);
    proof["sign"] = sign.view();
    return proof;
}

/// The parameters of a login. `clean` false: QoS 1 messages for the sub-device are kept while it is away.
inline json make_login(aliyun::device const& d, std::uint64_t now, bool clean = true) {
    json proof = make_proof(d, now, "signMethod");
    proof["cleanSession"] = clean ? "true" : "false";
    return proof;
}

/// What registers a device by its product's secret: `random`, any text, is signed along with its names.
inline json make_registration(aliyun::product const& of, std::string_view device_name, std::string const& random,
                              sign_method method = sign_method::hmacsha256) {
    parameter const signed_parameters[] = {
        {"deviceName", device_name}, {"productKey", of.product_key}, {"random", random}};
    json entry = make_id(of.product_key, device_name);
    entry["random"] = random;
    entry["signMethod"] = sub_device_name_of(method);
    entry["sign"] = sign_parameters(method, of.product_secret, signed_parameters).view();
    return entry;
}

/// Reads a list of devices, `[{"productKey","deviceName"}]`.
inline errc decode(json const& list, std::vector<device_id>& out) {
    if (!list.is_array()) return errc::answer_invalid;
    std::vector<device_id> made;
    for (auto const& item : list) {
        device_id id;
        if (!read_text(item, "productKey", id.product_key) || !read_text(item, "deviceName", id.device_name))
            return errc::member_of_wrong_type;
        if (id.product_key.empty() || id.device_name.empty()) return errc::member_missing;
        made.push_back(std::move(id));
    }
    out = std::move(made);
    return errc::ok;
}

/// A device that could not be registered, and why.
struct refused_registration {
    device_id device{};
    std::error_code why{};
    std::string text{};
};

/// What has become of devices that were to be registered by their product's secret.
struct registrations {
    std::vector<aliyun::device> made{};  ///< with their secrets
    std::vector<refused_registration> refused{};
};

/// Reads registered devices, `[{"productKey","deviceName","deviceSecret"}]`.
inline errc decode(json const& list, std::vector<aliyun::device>& out) {
    if (!list.is_array()) return errc::answer_invalid;
    std::vector<aliyun::device> made;
    made.reserve(list.size());
    for (auto const& item : list) {
        std::string key, name;
        secret_string secret;
        if (!read_text(item, "productKey", key) || !read_text(item, "deviceName", name) ||
            !read_text(item, "deviceSecret", secret))
            return errc::member_of_wrong_type;
        aliyun::device d;
        if (make_device(key, name, secret, d) != aliyun::errc::ok) return errc::answer_invalid;
        made.push_back(d);
    }
    out = std::move(made);
    return errc::ok;
}

/// Reads `{"successes":[...],"failures":[{"productKey","deviceName","code","message"}]}`.
inline errc decode(json const& data, registrations& out) {
    json const* const successes = find(data, "successes");
    json const* const failures = find(data, "failures");
    if (successes == nullptr && failures == nullptr) return errc::answer_invalid;
    registrations made;
    if (successes != nullptr)
        if (errc const e = decode(*successes, made.made); e != errc::ok) return e;
    if (failures != nullptr && !failures->is_array()) return errc::answer_invalid;
    for (auto const& item : failures != nullptr ? *failures : json::array()) {
        refused_registration one;
        int code = 0;
        if (!read_text(item, "productKey", one.device.product_key) ||
            !read_text(item, "deviceName", one.device.device_name) || !read_text(item, "message", one.text) ||
            !read_number(item, "code", code))
            return errc::member_of_wrong_type;
        one.why = reply_error(code);
        made.refused.push_back(std::move(one));
    }
    out = std::move(made);
    return errc::ok;
}

}  // namespace runnel::aliyun::alink
