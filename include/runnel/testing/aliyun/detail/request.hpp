#pragma once

#include <runnel/aliyun/topics.hpp>
#include <runnel/testing/aliyun/records.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing::detail {

/// A request of a device to the simulated platform.
struct aliyun_request {
    aliyun::topic_parts topic;
    json body{};  ///< the payload; null if it is not JSON
    std::string_view payload{};
    aliyun_record& sender;  ///< who is connected: the device itself or its gateway
    aliyun_record& self;    ///< whom the topic names
    aliyun_records& records;
    aliyun_identities& identities;
    std::int64_t now;  ///< milliseconds since 1970

    /// The member `params`; null if there is none.
    json const& params() const {
        static json const none;
        auto const found = body.is_object() ? body.find("params") : body.end();
        return body.is_object() && found != body.end() ? *found : none;
    }
};

/// What the platform answers: the members of a `_reply`.
struct aliyun_answer {
    int code = 200;
    json data = json::object();
};

/// The texts that the platform sends with its codes.
constexpr std::string_view message_of(int code) noexcept {
    switch (code) {
        case 200: return "success";
        case 401: return "request auth error";
        case 427: return "device connect in elsewhere";
        case 428: return "too many subdevices under gateway";
        case 429: return "too many requests";
        case 460: return "request parameter error";
        case 500: return "server error";
        case 520: return "device session error";
        case 521: return "device deleted";
        case 522: return "device forbidden";
        case 6100: return "device not found";
        case 6104: return "too many properties";
        case 6106: return "too many properties reported";
        case 6204: return "device is forbidden";
        case 6250: return "product not exist";
        case 6287: return "invalid sign";
        case 6288: return "dynamic register not allowed";
        case 6289: return "device is active";
        case 6292: return "sign method not supported";
        case 6357: return "too many sub-devices";
        case 6401: return "topo relation not exist";
        case 6402: return "topo relation cannot add by self";
        case 6600: return "sign verify failed";
        case 6619: return "device has been bound to another gateway";
        case 6710: return "no remote config";
        default: return "error";
    }
}

/// The text of a member; empty if there is none or it is no text.
inline std::string text_of(json const& object, char const* name) {
    if (!object.is_object()) return {};
    auto const found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// The device that an object with `productKey` and `deviceName` means, by `aliyun_name_of`.
inline std::string device_named_in(json const& object) {
    return aliyun_name_of(text_of(object, "productKey"), text_of(object, "deviceName"));
}

/// The two members that name a device.
inline json name_members(aliyun::device const& d) {
    return {{"productKey", d.product_key.str()}, {"deviceName", d.device_name.str()}};
}

/// Whether the device wants to know how it went: not if `sys.ack` is 0.
inline bool wants_answer(json const& body) {
    if (!body.is_object()) return true;
    auto const sys = body.find("sys");
    return sys == body.end() || !sys->is_object() || sys->value("ack", json(1)) != 0;
}

/// The payload of a `_reply`. The identifier is echoed as it came. `method` is empty where the platform leaves method
/// and version out.
inline json reply_to(json const& body, std::string const& method, aliyun_answer const& answer) {
    json reply = {{"code", answer.code}, {"data", answer.data}, {"message", message_of(answer.code)}};
    reply["id"] = body.is_object() && body.contains("id") ? body["id"] : json("");
    if (!method.empty()) reply["method"] = method, reply["version"] = "1.0";
    return reply;
}

}  // namespace runnel::testing::detail
