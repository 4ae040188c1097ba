#pragma once

#include <runnel/aliyun/signer.hpp>
#include <runnel/testing/aliyun/detail/request.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

// How the simulated platform answers gateways: topology, registration and login of sub-devices.

namespace runnel::testing::detail {

/// Sub-devices that may be logged in through one gateway.
inline constexpr std::size_t max_sub_devices = 2000;

/// The method that a gateway names; its spelling varies ("hmacSha256", "hmacsha256").
inline std::optional<aliyun::sign_method> method_in(json const& entry, std::string fallback = "hmacmd5") {
    auto name = text_of(entry, "signMethod");
    if (name.empty()) name = text_of(entry, "signmethod");
    if (name.empty()) name = std::move(fallback);
    for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return aliyun::sign_method_named(name);
}

/// Whether an entry is signed with the secret: all of its members among `names` that are there.
inline bool is_signed(json const& entry, std::initializer_list<char const*> names, aliyun::sign_method method,
                      std::string_view secret) {
    std::vector<std::string> values;
    std::vector<aliyun::parameter> parameters;
    values.reserve(names.size());
    for (auto const* name : names) {
        if (!entry.contains(name)) continue;
        values.push_back(text_of(entry, name));
        parameters.push_back({name, values.back()});
    }
    return is_signature(method, secret, parameters, text_of(entry, "sign"));
}

/// Checks the signature of a sub-device in an entry; 200 if it is right.
inline int check_sub_device(aliyun_request const& r, json const& entry, int bad_signature,
                            std::string const& method = "hmacmd5") {
    if (!entry.is_object() || text_of(entry, "sign").empty()) return 460;
    auto const* const known = r.identities.find(device_named_in(entry));
    if (known == nullptr) return 6100;
    auto const how = method_in(entry, method);
    if (!how) return 460;
    bool const right =
        is_signed(entry, {"clientId", "deviceName", "productKey", "timestamp"}, *how, known->device_secret);
    return right ? 200 : bad_signature;
}

/// The name of the gateway itself.
inline std::string sender_name(aliyun_request const& r) {
    return aliyun_name_of(r.sender.device.product_key, r.sender.device.device_name);
}

/// thing/topo/add: a sub-device that another gateway has changes sides.
inline aliyun_answer answer_topology_add(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array() || params.empty()) return {460};
    auto const own = sender_name(r);
    for (auto const& entry : params) {
        if (device_named_in(entry) == own) return {6402};
        if (int const code = check_sub_device(r, entry, 401); code != 200) return {code};
    }
    aliyun_answer answer{200, json::array()};
    for (auto const& entry : params) {
        auto const name = device_named_in(entry);
        auto& sub = r.records.of(*r.identities.find(name));
        r.records.detach(sub);
        sub.gateway = own;
        r.sender.sub_devices.push_back(name);
        answer.data.push_back(name_members(sub.device));
    }
    return answer;
}

/// thing/topo/delete
inline aliyun_answer answer_topology_delete(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array() || params.empty()) return {460};
    auto const own = sender_name(r);
    for (auto const& entry : params) {
        auto* const sub = r.records.find(device_named_in(entry));
        if (sub == nullptr || sub->gateway != own) return {6401};
    }
    aliyun_answer answer{200, json::array()};
    for (auto const& entry : params) {
        auto& sub = *r.records.find(device_named_in(entry));
        r.records.detach(sub);
        answer.data.push_back(name_members(sub.device));
    }
    return answer;
}

/// thing/topo/get
inline aliyun_answer answer_topology_get(aliyun_request& r) {
    aliyun_answer answer{200, json::array()};
    for (auto const& name : r.sender.sub_devices)
        if (auto const* const sub = r.records.find(name)) answer.data.push_back(name_members(sub->device));
    return answer;
}

/// thing/list/found
inline aliyun_answer answer_devices_found(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array()) return {460};
    for (auto const& entry : params)
        if (text_of(entry, "productKey").empty()) return {460};
    auto& found = r.sender.found;
    for (auto const& entry : params) found.push_back(entry);
    if (found.size() > max_history) found.erase(found.begin(), found.end() - max_history);
    return {};
}

/// Makes a device, or gives a new secret to one that has not connected yet; what the gateway is told of it.
inline json give_secret(aliyun_request& r, json const& entry) {
    aliyun::device const made{text_of(entry, "productKey"), text_of(entry, "deviceName"), random_digits()};
    r.identities.add(made);
    r.records.of(made);
    auto told = name_members(made);
    told["deviceSecret"] = made.device_secret.str();
    told["iotId"] = random_digits();
    return told;
}

/// Whether a gateway may have a device registered, 200 or why not.
inline int check_registration(aliyun_request const& r, json const& entry) {
    auto const name = device_named_in(entry);
    if (aliyun::check_device_name(text_of(entry, "deviceName")) != aliyun::errc::ok) return 460;
    auto const* const product = r.identities.product(text_of(entry, "productKey"));
    if (product == nullptr) return 6250;
    if (!product->dynamic_registration) return 6288;
    auto* const known = r.records.find(name);
    if (known != nullptr && !known->gateway.empty() && known->gateway != sender_name(r)) return 6619;
    return r.identities.is_active(name) ? 6289 : 200;
}

/// thing/sub/register
inline aliyun_answer answer_sub_register(aliyun_request& r) {
    auto const& params = r.params();
    if (!params.is_array() || params.empty()) return {460};
    for (auto const& entry : params)
        if (int const code = check_registration(r, entry); code != 200) return {code};
    aliyun_answer answer{200, json::array()};
    for (auto const& entry : params) answer.data.push_back(give_secret(r, entry));
    return answer;
}

/// thing/proxy/provisioning/product_register: each entry signed with the secret of its product.
inline aliyun_answer answer_product_register(aliyun_request& r) {
    auto const& params = r.params();
    auto const proxieds = params.is_object() ? params.value("proxieds", json()) : json();
    if (!proxieds.is_array() || proxieds.empty()) return {460};
    aliyun_answer answer{200, {{"successes", json::array()}, {"failures", json::array()}}};
    for (auto const& entry : proxieds) {
        int code = check_registration(r, entry);
        auto const how = method_in(entry);
        if (code == 200 && !how) code = 6292;
        if (code == 200 && !is_signed(entry, {"deviceName", "productKey", "random"}, *how,
                                      r.identities.product(text_of(entry, "productKey"))->product_secret))
            code = 6600;
        if (code == 200) {
            answer.data["successes"].push_back(give_secret(r, entry));
        } else {
            answer.data["failures"].push_back({{"productKey", text_of(entry, "productKey")},
                                               {"deviceName", text_of(entry, "deviceName")},
                                               {"code", code},
                                               {"message", message_of(code)}});
        }
    }
    return answer;
}

/// Whether a sub-device may log in, 200 or why not.
inline int check_login(aliyun_request const& r, json const& entry, std::string const& method) {
    if (int const code = check_sub_device(r, entry, 6287, method); code != 200) return code;
    auto const* const sub = r.records.find(device_named_in(entry));
    if (sub == nullptr || sub->gateway != sender_name(r)) return 6401;
    if (sub->disabled) return 522;
    auto const logged_in = std::count_if(r.sender.sub_devices.begin(), r.sender.sub_devices.end(), [&](auto const& n) {
        auto const* const s = r.records.find(n);
        return s != nullptr && s->logged_in;
    });
    return static_cast<std::size_t>(logged_in) >= max_sub_devices ? 428 : 200;
}

/// combine/login and combine/batch_login: all or none.
inline aliyun_answer answer_login(aliyun_request& r) {
    bool const batch = r.topic.kind == aliyun::topic_kind::sub_device_batch_login;
    auto const& params = r.params();
    if (!params.is_object()) return {460, ""};
    auto const list = batch ? params.value("deviceList", json()) : json::array({params});
    if (!list.is_array() || list.empty()) return {460, ""};
    auto const method = text_of(params, "signMethod");
    for (auto const& entry : list)
        if (int const code = check_login(r, entry, method); code != 200)
            return {code, entry.is_object() ? json{{"productKey", text_of(entry, "productKey")},
                                                   {"deviceName", text_of(entry, "deviceName")}}
                                            : json("")};
    aliyun_answer answer{200, json::array()};
    for (auto const& entry : list) {
        auto& sub = *r.records.find(device_named_in(entry));
        sub.logged_in = true;
        answer.data.push_back(name_members(sub.device));
    }
    if (!batch) answer.data = answer.data[0];
    return answer;
}

/// combine/logout and combine/batch_logout
inline aliyun_answer answer_logout(aliyun_request& r) {
    bool const batch = r.topic.kind == aliyun::topic_kind::sub_device_batch_logout;
    auto const& params = r.params();
    auto const list = batch ? params : json::array({params});
    if (!list.is_array() || list.empty()) return {460, ""};
    for (auto const& entry : list) {
        auto* const sub = r.records.find(device_named_in(entry));
        if (sub == nullptr || !sub->logged_in || sub->gateway != sender_name(r)) return {520, ""};
    }
    aliyun_answer answer{200, json::array()};
    for (auto const& entry : list) {
        auto& sub = *r.records.find(device_named_in(entry));
        sub.logged_in = false;
        answer.data.push_back(name_members(sub.device));
    }
    if (!batch) answer.data = answer.data[0];
    return answer;
}

}  // namespace runnel::testing::detail
