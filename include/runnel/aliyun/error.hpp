#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/error.hpp>

#include <system_error>

namespace runnel::aliyun {

/// What the Aliyun IoT Platform would refuse, or silently drop, found before it is sent.
enum class errc {
    ok = 0,

    // The device's identity.
    product_key_empty,
    product_key_too_long,
    product_key_invalid,
    device_name_empty,
    device_name_too_long,
    device_name_invalid,
    device_secret_empty,
    device_secret_too_long,

    // Signing.
    client_id_too_long,
    client_id_invalid,
    parameters_invalid,
    parameters_too_long,
    parameter_reserved,
    client_id_empty,

    // Endpoints.
    region_invalid,
    instance_id_invalid,

    // Limits.
    keep_alive_out_of_range,
    payload_too_long,
    qos_not_supported,
    retain_not_supported,
    will_not_supported,
    too_many_filters,
    too_many_subscriptions,

    // Topics.
    topic_empty,
    topic_too_long,
    topic_too_deep,
    topic_part_invalid,
    topic_unknown,

    // Registration.
    registration_unanswered,
    registration_answer_invalid,
};

/// The name of the errors' category.
constexpr char const* category_name(errc) noexcept { return "runnel.aliyun"; }

/// What the error means, in a sentence without a full stop.
inline char const* describe(errc e) noexcept {
    switch (e) {
        case errc::ok: return "success";
        case errc::product_key_empty: return "the product key is empty";
        case errc::product_key_too_long: return "the product key has more than 32 characters";
        case errc::product_key_invalid: return "the product key has a character other than letters, digits, - and _";
        case errc::device_name_empty: return "the device name is empty";
        case errc::device_name_too_long: return "the device name has more than 32 characters";
        case errc::device_name_invalid:
            return "the device name has a character other than letters, digits, - _ @ . and :";
        case errc::device_secret_empty: return "the device secret is empty";
        case errc::device_secret_too_long: return "the device secret has more than 64 characters";
        case errc::client_id_too_long: return "the client identifier has more than 64 characters before the bar";
        case errc::client_id_invalid: return "the client identifier has a bar or a control character";
        case errc::parameters_invalid: return "the extended parameters are not of the form name=value,name=value";
        case errc::parameters_too_long: return "the extended parameters are too long";
        case errc::parameter_reserved:
            return "securemode, signmethod and timestamp cannot be given as extended parameters, they are options";
        case errc::client_id_empty: return "the client identifier is empty, and servers assign one in MQTT 5 only";
        case errc::region_invalid: return "the region has a character other than small letters, digits and -";
        case errc::instance_id_invalid:
            return "the instance identifier has a character other than letters, digits and -";
        case errc::keep_alive_out_of_range: return "the platform accepts a keep alive of 30 to 1200 seconds";
        case errc::payload_too_long: return "the platform accepts payloads of up to 256 KiB";
        case errc::qos_not_supported: return "the platform does not support QoS 2";
        case errc::retain_not_supported: return "the platform does not support the retain flag in MQTT 3.1.1";
        case errc::will_not_supported: return "the platform does not support a will in MQTT 3.1.1";
        case errc::too_many_filters: return "the platform accepts up to 8 topic filters in a SUBSCRIBE or UNSUBSCRIBE";
        case errc::too_many_subscriptions: return "the platform accepts up to 100 subscriptions of a device";
        case errc::topic_empty: return "the topic is empty";
        case errc::topic_too_long: return "the platform accepts topics of up to 128 bytes";
        case errc::topic_too_deep: return "the platform accepts topics with up to 7 slashes";
        case errc::topic_part_invalid: return "a part of the topic is empty or has a character that cannot be there";
        case errc::topic_unknown: return "the topic is none of the platform's";
        case errc::registration_unanswered: return "the platform has not sent the credentials of the registered device";
        case errc::registration_answer_invalid:
            return "the platform's answer to the registration is not what was asked for";
    }
    return "unknown error";
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(errc e) noexcept { return make_layer_error(e); }

/// Throws `std::system_error` unless `e` is `ok`; in a constant expression that is a compile error which shows `e`.
constexpr void throw_unless_ok(errc e) {
    if (e != errc::ok) RUNNEL_THROW(std::system_error(make_error_code(e)));
}

}  // namespace runnel::aliyun

template <>
struct std::is_error_code_enum<runnel::aliyun::errc> : std::true_type {};
