#pragma once

#include <runnel/aliyun/error.hpp>
#include <runnel/aliyun/limits.hpp>
#include <runnel/core/inline_string.hpp>

#include <algorithm>
#include <string_view>

namespace runnel::aliyun {

/// Whether `c` is a letter or a digit of ASCII.
constexpr bool is_letter_or_digit(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// Checks a product key: 1 to 32 letters, digits, `-` and `_` (it becomes a part of host names and topics).
constexpr errc check_product_key(std::string_view key) noexcept {
    if (key.empty()) return errc::product_key_empty;
    if (key.size() > max_product_key_size) return errc::product_key_too_long;
    bool const good =
        std::all_of(key.begin(), key.end(), [](char c) { return is_letter_or_digit(c) || c == '-' || c == '_'; });
    return good ? errc::ok : errc::product_key_invalid;
}

/// Checks a device name: 1 to 32 letters, digits and `-_@.:`. (The platform's console asks for at least 4 characters; a
/// shorter name harms nobody and is left for the platform to judge.)
constexpr errc check_device_name(std::string_view name) noexcept {
    if (name.empty()) return errc::device_name_empty;
    if (name.size() > max_device_name_size) return errc::device_name_too_long;
    bool const good = std::all_of(name.begin(), name.end(), [](char c) {
        return is_letter_or_digit(c) || std::string_view("-_@.:").find(c) != std::string_view::npos;
    });
    return good ? errc::ok : errc::device_name_invalid;
}

/// Checks a device secret or a product secret: 1 to 64 bytes.
constexpr errc check_secret(std::string_view secret) noexcept {
    if (secret.empty()) return errc::device_secret_empty;
    return secret.size() > max_secret_size ? errc::device_secret_too_long : errc::ok;
}

/// What identifies a device to the platform (its "device certificate"): a value without allocations, which can be
/// `constexpr`:
///
///     constexpr runnel::aliyun::device thermostat{"a1B2c3D4e5F", "thermostat-7", "the device secret"};
///
/// Text longer than a member holds throws `std::length_error`, and is a compile error in a constant expression. Where
/// the text comes from outside of the program, `make_device` says what is wrong with it.
struct device {
    /// The product that the device is one of.
    inline_string<max_product_key_size> product_key{};
    /// The device's name, unique within its product.
    inline_string<max_device_name_size> device_name{};
    /// The secret shared with the platform. Never sent; it signs.
    inline_string<max_secret_size> device_secret{};

    /// A transport of type `Transport`, ready to use, to the public instance in `region`. Throws `std::system_error` if
    /// product key or region are not valid. For other endpoints, and in <runnel/aliyun/endpoint.hpp>, where this is
    /// defined: `instance_endpoint(id).over<Transport>()`.
    template <class Transport>
    constexpr Transport endpoint(std::string_view region = "cn-shanghai") const;

    friend constexpr bool operator==(device const&, device const&) noexcept = default;
};

/// Checks all three texts that make a device.
constexpr errc check_device(std::string_view product_key, std::string_view device_name,
                            std::string_view device_secret) noexcept {
    errc e = check_product_key(product_key);
    if (e == errc::ok) e = check_device_name(device_name);
    if (e == errc::ok) e = check_secret(device_secret);
    return e;
}

/// Checks a device's members.
constexpr errc check_device(device const& d) noexcept {
    return check_device(d.product_key, d.device_name, d.device_secret);
}

/// Makes a device of texts from outside of the program, once they are checked; `out` is left alone on an error.
constexpr errc make_device(std::string_view product_key, std::string_view device_name, std::string_view device_secret,
                           device& out) noexcept {
    errc const e = check_device(product_key, device_name, device_secret);
    if (e == errc::ok) out = device{product_key, device_name, device_secret};
    return e;
}

/// The same, but throws `std::system_error` on an error.
constexpr device make_device(std::string_view product_key, std::string_view device_name,
                             std::string_view device_secret) {
    device d;
    throw_unless_ok(make_device(product_key, device_name, device_secret, d));
    return d;
}

}  // namespace runnel::aliyun
