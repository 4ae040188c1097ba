#pragma once

#include <runnel/digest/base64.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/sha256.hpp>
#include <runnel/mqtt/client/credentials.hpp>

#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>

// Shared access signatures of Azure IoT Hub, and the credentials of a device that has a key.

namespace azure {

inline std::string percent_encode(std::string_view text) {
    std::string out;
    for (char const c : text) {
        bool const plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                           std::string_view("-_.~").find(c) != std::string_view::npos;
        char code[4] = {};
        if (!plain) std::snprintf(code, sizeof(code), "%%%02X", static_cast<unsigned>(static_cast<unsigned char>(c)));
        out += plain ? std::string(1, c) : code;
    }
    return out;
}

/// The token that lets whoever has it use `resource` until `expiry`. `key`: in base64, as the portal shows it.
/// `policy`: the name of the key, if it is not the device's own.
inline std::string shared_access_signature(std::string_view resource, std::string_view key,
                                           std::chrono::sys_seconds expiry, std::string_view policy = {}) {
    auto const secret = runnel::digest::decode_base64(key);
    if (!secret) throw std::invalid_argument("the key is not base64");
    auto const uri = percent_encode(resource);
    auto const until = std::to_string(expiry.time_since_epoch().count());
    auto const code = runnel::digest::authenticate<runnel::digest::sha256>(*secret, uri + "\n" + until);
    auto const signature = runnel::digest::encode_base64({code.data(), code.size()});
    auto token = "SharedAccessSignature sr=" + uri + "&sig=" + percent_encode(signature);
    if (!policy.empty()) token += "&skn=" + std::string(policy);
    return token + "&se=" + until;
}

/// A device with a key: a credentials provider, whose tokens last an hour.
struct device {
    std::string hub;  ///< "NAME.azure-devices.net"
    std::string id;
    std::string key;

    runnel::mqtt::credentials operator()() const {
        auto const now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
        return {id, hub + "/" + id + "/?api-version=2021-04-12",
                shared_access_signature(hub + "/devices/" + id, key, now + std::chrono::hours(1))};
    }
};
static_assert(runnel::mqtt::credentials_provider<device>);

}  // namespace azure
