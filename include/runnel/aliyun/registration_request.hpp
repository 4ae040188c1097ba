#pragma once

#include <runnel/aliyun/connect.hpp>
#include <runnel/aliyun/detail/json_text.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/mqtt/client/credentials.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

// Dynamic registration without I/O: what a device sends, and what it gets. See registration.hpp.

namespace runnel::aliyun {

/// What all devices of a product are made with.
struct product {
    inline_string<max_product_key_size> product_key{};
    inline_string<max_secret_size> product_secret{};
};

/// How to register.
struct registration_options {
    /// Whether the platform knows the device's name already: then it gives out the device secret (`register`).
    /// Otherwise it makes the device, and gives out a token to log in with (`regnwl`; in Shanghai only).
    bool preregistered = true;
    sign_method method = sign_method::hmacsha256;
    /// Of an Enterprise instance, for devices that are not pre-registered.
    std::string_view instance_id = {};
};

/// What a device has got by registering: the secret, or client identifier and token. To be kept where it survives.
struct registration {
    inline_string<max_product_key_size> product_key{};
    inline_string<max_device_name_size> device_name{};
    inline_string<max_secret_size> device_secret{};
    inline_string<max_client_id_size> client_id{};
    inline_string<256> device_token{};

    /// Whether it logs in with the token, by `token_options`, and not as a device.
    constexpr bool has_token() const noexcept { return !device_token.empty(); }
    /// The device. Throws `std::system_error` if there is no secret.
    constexpr aliyun::device device() const { return make_device(product_key, device_name, device_secret); }
    /// Overwrites it with zeros.
    constexpr void wipe() noexcept { secure_wipe(*this); }
};

/// What registers in CONNECT: the signature, under the product's secret, of device name, product key and `random`, any
/// text of letters and digits that nobody can guess. On an error `out` is left alone.
constexpr errc sign_registration(product const& p, std::string_view device_name, std::string_view random,
                                 registration_options const& options, connect_credentials& out) noexcept {
    errc e = check_product_key(p.product_key);
    if (e == errc::ok) e = check_device_name(device_name);
    if (e == errc::ok) e = check_secret(p.product_secret);
    if (e == errc::ok) e = check_parameters(random.empty() ? "random" : "");
    if (e != errc::ok) return e;
    connect_credentials made;
    bool fits = true;
    auto const add = [&](std::string_view text) { fits = fits && made.client_id.try_append(text); };
    for (auto const part : {std::string_view(p.product_key), std::string_view("."), device_name}) add(part);
    add(options.preregistered ? "|securemode=2,authType=register,random=" : "|securemode=-2,authType=regnwl,random=");
    add(random);
    add(",signmethod=");
    add(name_of(options.method));
    if (!options.instance_id.empty()) add(",instanceId="), add(options.instance_id);
    add("|");
    client_id_parts parts;
    if (!fits) return errc::parameters_too_long;
    if (errc const wrong = split_client_id(made.client_id, parts); wrong != errc::ok) return wrong;
    made.user_name.try_append(device_name);
    made.user_name.try_append("&");
    made.user_name.try_append(p.product_key);
    parameter const list[] = {{"deviceName", device_name}, {"productKey", p.product_key}, {"random", random}};
    made.password = sign_parameters(options.method, p.product_secret, list);
    out = made;
    return errc::ok;
}

/// Reads what the platform has sent to `/ext/register` or `/ext/regnwl`. Fails if it is not about `device_name` of `p`,
/// or has neither a secret nor a token.
inline errc read_registration(std::string_view payload, product const& p, std::string_view device_name,
                              registration& out) {
    if (detail::find_json_text(payload, "productKey") != p.product_key.str() ||
        detail::find_json_text(payload, "deviceName") != std::string(device_name))
        return errc::registration_answer_invalid;
    registration made{p.product_key, device_name, {}, {}, {}};
    wiped_at_end const wiping(made);
    bool const secret = made.device_secret.try_append(detail::find_json_text(payload, "deviceSecret").value_or(""));
    bool const id = made.client_id.try_append(detail::find_json_text(payload, "clientId").value_or(""));
    bool const token = made.device_token.try_append(detail::find_json_text(payload, "deviceToken").value_or(""));
    bool const whole = !made.device_secret.empty() || (!made.client_id.empty() && !made.device_token.empty());
    if (!secret || !id || !token || !whole) return errc::registration_answer_invalid;
    out = made;
    return errc::ok;
}

/// Makes the credentials of a device that has a token: nothing is signed. A `mqtt::credentials_provider`.
class token_login {
  public:
    /// `parameters`: extended ones, as in `connect_options`. Throws `std::system_error` if they are not of their form,
    /// or there is no token.
    explicit token_login(registration const& who, std::string_view parameters = {}) {
        throw_unless_ok(check_added_parameters(parameters));
        throw_unless_ok(who.has_token() ? check_client_id(who.client_id) : errc::registration_answer_invalid);
        made_.client_id = who.client_id.str() + "|securemode=-2,authType=connwl";
        if (!parameters.empty()) made_.client_id.append(",").append(parameters);
        made_.client_id += '|';
        made_.user_name = who.device_name.str() + "&" + who.product_key.str();
        made_.password = who.device_token.str();
    }

    mqtt::credentials operator()() const { return made_; }

  private:
    mqtt::credentials made_{};
};

/// The options of a session with a token, over TLS. Of `options`, client identifier, method and timestamp do not count.
inline mqtt::session_options token_options(registration const& who, connect_options const& options = {}) {
    auto made = platform_options(options);
    made.make_credentials = token_login(who, options.parameters);
    return made;
}

}  // namespace runnel::aliyun
