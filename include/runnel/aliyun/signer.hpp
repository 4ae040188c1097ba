#pragma once

#include <runnel/aliyun/client_id.hpp>
#include <runnel/aliyun/device.hpp>
#include <runnel/digest/hex.hpp>
#include <runnel/digest/hmac.hpp>
#include <runnel/digest/md5.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/digest/sha256.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace runnel::aliyun {

/// The digest of a signature (parameter `signmethod`). The platform takes a missing one for hmacmd5.
enum class sign_method : std::uint8_t { hmacmd5, hmacsha1, hmacsha256 };

/// How a method is spelled in the client identifier.
constexpr std::string_view name_of(sign_method method) noexcept {
    switch (method) {
        case sign_method::hmacmd5: return "hmacmd5";
        case sign_method::hmacsha1: return "hmacsha1";
        case sign_method::hmacsha256: break;
    }
    return "hmacsha256";
}

/// The method spelled `name`, in exactly this spelling; nothing if there is none.
constexpr std::optional<sign_method> sign_method_named(std::string_view name) noexcept {
    for (sign_method method : {sign_method::hmacmd5, sign_method::hmacsha1, sign_method::hmacsha256})
        if (name == name_of(method)) return method;
    return std::nullopt;
}

/// How the connection is secured (parameter `securemode`). Devices use `tls` and `plain`.
enum class secure_mode : std::int8_t {
    /// Dynamic registration without pre-registration, and login with the token it gave.
    device_token = -2,
    /// Authentication over HTTPS beforehand; obsolete.
    https_authentication = -1,
    /// TLS, WebSocket Secure.
    tls = 2,
    /// TCP, WebSocket: the signature protects the secret, and nothing protects the messages.
    plain = 3,
    /// ITLS, the vendor's own light TLS.
    itls = 8,
};

/// The secure mode of connections over the transport type `Transport`, by its `static constexpr bool secure`.
template <class Transport>
requires requires { static_cast<bool>(Transport::secure); }
inline constexpr secure_mode secure_mode_for = Transport::secure ? secure_mode::tls : secure_mode::plain;

/// A name with its value that goes into a signature.
struct parameter {
    std::string_view name{};
    std::string_view value{};
};

/// A signature in lower-case hexadecimal digits: 32, 40 or 64 by the method.
using signature = inline_string<64>;

/// The HMAC under `secret` of all `parameters`, sorted by name, name and value of each one after another with nothing
/// in between: the rule by which everything on the platform is signed. No name may occur twice.
template <digest::hash Hash>
constexpr signature sign_parameters(std::string_view secret, std::span<parameter const> parameters) noexcept {
    digest::hmac<Hash> code(secret);
    std::string_view last;
    // Picking the next name each time needs neither a copy nor an order of the few parameters there are.
    for (std::size_t done = 0; done < parameters.size(); ++done) {
        parameter const* next = nullptr;
        for (parameter const& p : parameters)
            if ((done == 0 || p.name > last) && (next == nullptr || p.name < next->name)) next = &p;
        if (next == nullptr) break;
        code.update(next->name);
        code.update(next->value);
        last = next->name;
    }
    return digest::encode_hex(code.finish()).view();
}

/// The same with the method chosen at run time.
constexpr signature sign_parameters(sign_method method, std::string_view secret,
                                    std::span<parameter const> parameters) noexcept {
    switch (method) {
        case sign_method::hmacmd5: return sign_parameters<digest::md5>(secret, parameters);
        case sign_method::hmacsha1: return sign_parameters<digest::sha1>(secret, parameters);
        case sign_method::hmacsha256: break;
    }
    return sign_parameters<digest::sha256>(secret, parameters);
}

/// What a device sends in CONNECT. Nothing is allocated, and a value of it can be `constexpr`.
struct connect_credentials {
    /// The client identifier with its extended parameters between bars.
    inline_string<256> client_id{};
    /// Device name and product key, joined by `&`.
    inline_string<max_device_name_size + 1 + max_product_key_size> user_name{};
    /// The signature.
    signature password{};

    friend constexpr bool operator==(connect_credentials const&, connect_credentials const&) noexcept = default;
};

/// How to sign.
struct sign_options {
    /// At most 64 bytes (a MAC address or a serial number, says the platform), without a bar. By default product key,
    /// dot, device name. Empty: the server of MQTT 5 assigns one.
    std::optional<std::string_view> client_id = std::nullopt;
    sign_method method = sign_method::hmacsha256;
    /// `secure_mode_for<Transport>` gives the one of a transport.
    secure_mode mode = secure_mode::tls;
    /// Milliseconds since 1970. The platform does not hold it against its clock; left out by default.
    std::optional<std::uint64_t> timestamp = std::nullopt;
    /// More parameters for the client identifier, `name=value` separated by commas ("ext=1,_v=1.0"). Not signed.
    std::string_view parameters = {};
};

/// Checks parameters that a user adds, which must not repeat those the signer writes.
constexpr errc check_added_parameters(std::string_view parameters) noexcept {
    if (errc const e = check_parameters(parameters); e != errc::ok) return e;
    for (std::string_view reserved : {"securemode", "signmethod", "timestamp"})
        if (find_parameter(parameters, reserved)) return errc::parameter_reserved;
    return errc::ok;
}

/// The name of a secure mode's value in the client identifier.
constexpr std::string_view name_of(secure_mode mode) noexcept {
    switch (mode) {
        case secure_mode::device_token: return "-2";
        case secure_mode::https_authentication: return "-1";
        case secure_mode::plain: return "3";
        case secure_mode::itls: return "8";
        case secure_mode::tls: break;
    }
    return "2";
}

/// Signs a connection of `who`: the same function at compile time and at run time. On an error `out` is left alone.
///
/// Errors: those of `check_device`, `check_client_id` and `check_added_parameters`, and `parameters_too_long` if the
/// whole client identifier has more than 256 bytes.
constexpr errc sign(device const& who, sign_options const& options, connect_credentials& out) noexcept {
    inline_string<max_product_key_size + 1 + max_device_name_size> usual_client_id;
    usual_client_id.try_append(who.product_key);
    usual_client_id.try_append(".");
    usual_client_id.try_append(who.device_name);
    std::string_view const client_id = options.client_id.value_or(usual_client_id.view());

    errc e = check_device(who);
    if (e == errc::ok) e = check_client_id(client_id);
    if (e == errc::ok) e = check_added_parameters(options.parameters);
    if (e != errc::ok) return e;

    inline_string<20> timestamp;
    if (options.timestamp) timestamp.try_append_decimal(*options.timestamp);
    parameter const signed_parameters[] = {{"clientId", client_id},
                                           {"deviceName", who.device_name},
                                           {"productKey", who.product_key},
                                           {"timestamp", timestamp}};
    std::size_t const count = options.timestamp ? 4 : 3;

    connect_credentials made;
    bool fits = true;
    for (std::string_view part : {client_id, std::string_view("|securemode="), name_of(options.mode),
                                  std::string_view(",signmethod="), name_of(options.method)})
        fits = fits && made.client_id.try_append(part);
    if (options.timestamp)
        fits = fits && made.client_id.try_append(",timestamp=") && made.client_id.try_append(timestamp);
    if (!options.parameters.empty())
        fits = fits && made.client_id.try_append(",") && made.client_id.try_append(options.parameters);
    if (!fits || !made.client_id.try_append("|")) return errc::parameters_too_long;

    made.user_name.try_append(who.device_name);
    made.user_name.try_append("&");
    made.user_name.try_append(who.product_key);
    made.password = sign_parameters(options.method, who.device_secret, std::span(signed_parameters, count));
    out = made;
    return errc::ok;
}

/// The same, but throws `std::system_error` on an error; in a constant expression that is a compile error.
///
///     constexpr auto credentials = runnel::aliyun::sign(thermostat, {.mode = secure_mode_for<runnel::wss>});
constexpr connect_credentials sign(device const& who, sign_options const& options = {}) {
    connect_credentials made;
    throw_unless_ok(sign(who, options, made));
    return made;
}

/// The signature of a sub-device, with which its gateway adds it to the topology and logs it in: of client identifier,
/// names and timestamp (decimal digits, milliseconds since 1970), under the sub-device's secret. The client identifier
/// may be any; without it product key, dot, device name are usual.
constexpr signature sign_sub_device(device const& sub, std::string_view client_id, std::string_view timestamp,
                                    sign_method method = sign_method::hmacsha256) noexcept {
    parameter const list[] = {{"clientId", client_id},
                              {"deviceName", sub.device_name},
                              {"productKey", sub.product_key},
                              {"timestamp", timestamp}};
    return sign_parameters(method, sub.device_secret, list);
}

/// What a client of TLS with a pre-shared key shows, in place of checking a certificate.
struct psk_credentials {
    inline_string<160> identity{};
    /// The key's bytes are these digits themselves: 64 of them, upper case.
    signature key{};
};

/// Identity and key for `psk_endpoint`. `timestamp`: milliseconds since 1970; the vendor's SDK has always the same, the
/// year 2050.
constexpr psk_credentials sign_psk(device const& who, std::uint64_t timestamp = 2'524'608'000'000) {
    throw_unless_ok(check_device(who));
    inline_string<max_device_name_size + 1 + max_product_key_size> id;
    id.append(who.product_key).append("&").append(who.device_name);
    inline_string<20> time;
    time.try_append_decimal(timestamp);
    psk_credentials made;
    made.identity.append("devicename|hmacsha256|").append(id).append("|").append(time);
    parameter const list[] = {{"id", id}, {"timestamp", time}};
    signature const lower = sign_parameters<digest::sha256>(who.device_secret, list);
    for (char const c : lower) {
        char const upper = c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c;
        made.key.append({&upper, 1});
    }
    return made;
}

}  // namespace runnel::aliyun
