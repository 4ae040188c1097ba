#pragma once

#include <runnel/aliyun/client_id.hpp>
#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/limits.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/core/random.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/testing/broker/options.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing {

/// A product, as far as registration needs it.
struct aliyun_product {
    inline_string<aliyun::max_product_key_size> product_key{};
    inline_string<aliyun::max_secret_size> product_secret{};
    /// Whether devices may register themselves.
    bool dynamic_registration = true;
};

/// A message that a client gets without having subscribed, as soon as its connection has been accepted.
struct aliyun_greeting {
    std::string topic{};
    std::string payload{};
};

/// What the simulated platform calls a device: `DEVICE_NAME&PRODUCT_KEY`, its user name.
inline std::string aliyun_name_of(std::string_view product_key, std::string_view device_name) {
    return std::string(device_name).append("&").append(product_key);
}

/// A secret, or an identifier, that nobody can guess: 32 hexadecimal digits.
inline std::string random_digits() {
    std::array<char, 16> bytes{};
    fill_random(bytes.data(), bytes.size());
    return digest::encode_hex(bytes).str();
}

/// Whether `given` is the signature of `signed_parameters`, in digits of either case.
inline bool is_signature(aliyun::sign_method method, std::string_view secret,
                         std::span<aliyun::parameter const> signed_parameters, std::string_view given) {
    std::string lower(given);
    for (char& c : lower)
        if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
    return equal_in_constant_time(lower, aliyun::sign_parameters(method, secret, signed_parameters));
}

/// The products and devices that the simulated platform knows, and who may connect: by the signature of a device, by
/// the token of a registration, or by the signature of a product, to register.
class aliyun_identities {
  public:
    /// Makes a device known, or changes its secret. Throws `std::system_error` if it cannot be one.
    void add(aliyun::device const& d) {
        aliyun::throw_unless_ok(aliyun::check_device(d));
        auto name = aliyun_name_of(d.product_key, d.device_name);
        active_.erase(name);
        devices_.insert_or_assign(std::move(name), d);
    }
    /// Forgets a device. False: it was not known.
    bool remove(std::string_view name) {
        tokens_.erase(std::string(name));
        return devices_.erase(std::string(name)) != 0;
    }
    /// Null if there is no device of this name.
    aliyun::device const* find(std::string_view name) const {
        auto const found = devices_.find(name);
        return found == devices_.end() ? nullptr : &found->second;
    }

    /// Makes a product known, or changes it. Throws `std::system_error` if it cannot be one.
    void add(aliyun_product const& p) {
        aliyun::throw_unless_ok(aliyun::check_product_key(p.product_key));
        aliyun::throw_unless_ok(aliyun::check_secret(p.product_secret));
        products_.insert_or_assign(p.product_key.str(), p);
    }
    /// Null if there is no such product.
    aliyun_product const* product(std::string_view key) const {
        auto const found = products_.find(key);
        return found == products_.end() ? nullptr : &found->second;
    }

    /// Whether a device has connected with its secret, so that it can be registered no more.
    bool is_active(std::string_view name) const { return active_.contains(name); }
    /// Takes a device's activation back, so that it can be registered again.
    void reset(std::string_view name) {
        tokens_.erase(std::string(name));
        active_.erase(std::string(name));
    }

    /// Whether a client may connect. A refusal is explained in `request`. `greeting` is then for the client.
    /// `within_rate` is asked once the client has proved who it is; false refuses it.
    mqtt::reason_code check_connect(
        connect_attempt& request, std::optional<aliyun_greeting>& greeting,
        std::function<bool()> const& within_rate = [] { return true; }) {
        auto const user = request.packet.user_name.value_or("");
        request.session_name = user;
        aliyun::client_id_parts id;
        if (auto const e = aliyun::split_client_id(request.packet.client_id, id); e != aliyun::errc::ok)
            return refuse(request, mqtt::reason_code::client_identifier_not_valid,
                          "client identifier '" + std::string(request.packet.client_id) +
                              "' is not of the form id|name=value,...|: " + describe(e));
        auto const type = aliyun::find_parameter(id.parameters, "authType").value_or("");
        if (type == "register" || type == "regnwl") return check_registration(request, id, type, greeting, within_rate);
        auto reason = type == "connwl" ? check_token(request, id) : check_device(request, id);
        if (reason == mqtt::reason_code::success && !within_rate()) reason = refuse_rate(request);
        if (reason == mqtt::reason_code::success) reason = check_connection(request);
        if (reason != mqtt::reason_code::success) return reason;
        active_.insert(std::string(user));
        if (id.client_id.empty()) request.assigned_client_identifier = user;
        return reason;
    }

  private:
    using names = std::set<std::string, std::less<>>;

    static mqtt::reason_code refuse(connect_attempt& request, mqtt::reason_code reason, std::string why) {
        request.reason_string = std::move(why);
        return reason;
    }
    static mqtt::reason_code refuse(connect_attempt& request, std::string why) {
        return refuse(request, mqtt::reason_code::bad_user_name_or_password, std::move(why));
    }

    static mqtt::reason_code refuse_rate(connect_attempt& request) {
        return refuse(request, mqtt::reason_code::connection_rate_exceeded, "more than 5 connections a minute");
    }

    // What holds for devices, but not for those that register.
    static mqtt::reason_code check_connection(connect_attempt& request) {
        auto const& packet = request.packet;
        if (aliyun::check_keep_alive(std::chrono::seconds(packet.keep_alive)) != aliyun::errc::ok)
            return refuse(request, mqtt::reason_code::not_authorized,
                          "a keep alive of " + std::to_string(packet.keep_alive) + " seconds is not within 30 to 1200");
        if (packet.will && request.version == mqtt::protocol_version::v3_1_1)
            return refuse(request, mqtt::reason_code::not_authorized, "the platform has no wills in MQTT 3.1.1");
        return mqtt::reason_code::success;
    }

    mqtt::reason_code check_device(connect_attempt& request, aliyun::client_id_parts const& id) const {
        auto const* const known = find(request.session_name);
        if (known == nullptr)
            return refuse(request, "no device is known by the user name '" + request.session_name +
                                       "' (device name & product key)");
        auto const mode = aliyun::find_parameter(id.parameters, "securemode").value_or("");
        auto const wanted = name_of(request.from.secure ? aliyun::secure_mode::tls : aliyun::secure_mode::plain);
        if (mode != wanted)
            return refuse(request, "securemode is '" + std::string(mode) + "', but " + request.from.transport +
                                       " needs " + std::string(wanted));
        auto const why = check_signature(*known, id, request.packet.password.value_or(""), request.log_text);
        return why.empty() ? mqtt::reason_code::success : refuse(request, why);
    }

    mqtt::reason_code check_token(connect_attempt& request, aliyun::client_id_parts const& id) const {
        auto const known = tokens_.find(request.session_name);
        bool const right = known != tokens_.end() && find(request.session_name) != nullptr &&
                           known->second.client_id == id.client_id &&
                           equal_in_constant_time(known->second.password, request.packet.password.value_or(""));
        if (!right) return refuse(request, "client identifier and device token are not those of a registration");
        if (aliyun::find_parameter(id.parameters, "securemode") != "-2" || !request.from.secure)
            return refuse(request, "a login with a device token needs securemode -2 and TLS");
        return mqtt::reason_code::success;
    }

    // Which codes refuse a registration is what the vendor's SDK says of them: 2 for wrong parameters, which includes
    // plain TCP, 4 for a failed authentication.
    mqtt::reason_code check_registration(connect_attempt& request, aliyun::client_id_parts const& id,
                                         std::string_view type, std::optional<aliyun_greeting>& greeting,
                                         std::function<bool()> const& within_rate) {
        auto const user = std::exchange(request.session_name, "registration of " + request.session_name);
        auto const and_sign = user.rfind('&');
        auto const device_name = std::string_view(user).substr(0, and_sign);
        auto const key = and_sign == user.npos ? "" : std::string_view(user).substr(and_sign + 1);
        auto const random = aliyun::find_parameter(id.parameters, "random").value_or("");
        auto const method =
            aliyun::sign_method_named(aliyun::find_parameter(id.parameters, "signmethod").value_or("hmacmd5"));
        auto const mode = aliyun::find_parameter(id.parameters, "securemode").value_or("");
        bool const without = type == "regnwl";
        if (!request.from.secure || (mode != "2" && !(without && mode == "-2")) || random.empty() || !method ||
            aliyun::check_device_name(device_name) != aliyun::errc::ok)
            return refuse(request, mqtt::reason_code::client_identifier_not_valid,
                          "a registration needs TLS, securemode, random, signmethod and a device name");
        auto const* const p = product(key);
        if (p == nullptr || !p->dynamic_registration)
            return refuse(request, "the product is not known, or its dynamic registration is switched off");
        aliyun::parameter const list[] = {{"deviceName", device_name}, {"productKey", key}, {"random", random}};
        if (!is_signature(*method, p->product_secret, list, request.packet.password.value_or("")))
            return refuse(request, "the signature does not match");
        if (!within_rate()) return refuse_rate(request);
        if (!without && find(user) == nullptr) return refuse(request, "no such device has been pre-registered");
        if (is_active(user)) return refuse(request, "the device has been activated already");
        greeting = hand_out(user, key, device_name, without);
        return mqtt::reason_code::success;
    }

    aliyun_greeting hand_out(std::string const& user, std::string_view key, std::string_view device_name,
                             bool with_token) {
        aliyun::device const d{key, device_name, random_digits()};
        devices_.insert_or_assign(user, d);
        auto const member = [](std::string_view name, std::string_view value) {
            return std::string("\"").append(name).append("\":\"").append(value).append("\"");
        };
        auto const who = "{" + member("productKey", key) + "," + member("deviceName", device_name) + ",";
        if (!with_token) return {"/ext/register", who + member("deviceSecret", d.device_secret) + "}"};
        token const made{random_digits(), random_digits()};
        tokens_.insert_or_assign(user, made);
        return {"/ext/regnwl",
                who + member("clientId", made.client_id) + "," + member("deviceToken", made.password) + "}"};
    }

    // What is wrong with the signature, in words for the client, and with more detail for the log; nothing if it is
    // right. Client identifier and timestamp may be left out of what is signed, and the digits may be of either case.
    static std::string check_signature(aliyun::device const& d, aliyun::client_id_parts const& id,
                                       std::string_view password, std::string& detail) {
        auto const name = aliyun::find_parameter(id.parameters, "signmethod").value_or("hmacmd5");
        auto const method = aliyun::sign_method_named(name);
        if (!method) return "signmethod '" + std::string(name) + "' is none of hmacmd5, hmacsha1, hmacsha256";
        auto const timestamp = aliyun::find_parameter(id.parameters, "timestamp");
        std::array<aliyun::parameter, 4> const list{{{"clientId", id.client_id},
                                                     {"deviceName", d.device_name},
                                                     {"productKey", d.product_key},
                                                     {"timestamp", timestamp.value_or("")}}};
        bool right = false;
        for (bool const with_timestamp : {true, false}) {
            for (bool const with_client_id : {true, false}) {
                if (with_timestamp && !timestamp) continue;
                // In the order of their names: the first and the last are those that may be missing.
                auto const part = std::span(list).subspan(
                    with_client_id ? 0 : 1, 2 + std::size_t{with_client_id} + std::size_t{with_timestamp});
                right = is_signature(*method, d.device_secret, part, password) || right;
                if (!detail.empty()) continue;
                detail = "the signature does not match: " + std::string(name) + " of '";
                for (auto const& p : part) detail.append(p.name).append(p.value);
                detail.append("' would be ").append(aliyun::sign_parameters(*method, d.device_secret, part).view());
            }
        }
        if (right) detail.clear();
        return right ? "" : "the signature does not match";
    }

    // What a registration without pre-registration gave out.
    struct token {
        std::string client_id{};
        std::string password{};
    };

    std::map<std::string, aliyun::device, std::less<>> devices_{};
    std::map<std::string, aliyun_product, std::less<>> products_{};
    std::map<std::string, token, std::less<>> tokens_{};
    names active_{};
};

}  // namespace runnel::testing
