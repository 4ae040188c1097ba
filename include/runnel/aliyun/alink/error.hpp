#pragma once

#include <runnel/core/error.hpp>

#include <system_error>

namespace runnel::aliyun::alink {

/// What can go wrong in Alink, the platform's protocol of requests and replies in JSON. Values below 200 are found on
/// this side; from 200 on they are the codes of replies, as the platform documents them ("Error codes for devices").
/// A reply's code that has no name here is a `std::error_code` of this category all the same.
enum class errc {
    ok = 0,

    // Found here, in what was received.
    not_json,
    too_deep,
    not_an_object,
    id_missing,
    code_missing,
    member_missing,
    member_of_wrong_type,
    method_mismatch,
    no_handler,
    too_many_calls,
    handler_failed,

    // Found here, in what is to be sent.
    text_not_utf8 = 50,
    payload_too_long,

    // Of requests.
    timed_out = 80,
    disconnected,
    answer_invalid,
    not_logged_in,
    overtaken,

    // Of downloads.
    digest_unsupported = 90,
    digest_mismatch,
    size_mismatch,

    // Codes of replies: success, and in general.
    success = 200,
    request_error = 400,
    unauthorized = 401,
    not_found = 404,
    version_conflict = 409,
    throttled = 429,
    parameters_invalid = 460,
    internal_error = 500,
    product_query_failed = 5005,
    metadata_query_failed = 5244,
    device_unknown = 6100,
    topic_invalid = 6203,
    device_disabled = 6204,
    product_unknown = 6250,
    method_missing = 6450,
    system_error = 6760,

    // The thing model.
    data_too_long = 6106,
    data_invalid = 6207,
    thing_model_method_missing = 6300,

    // Sub-devices and registration.
    logged_in_elsewhere = 427,
    too_many_sub_devices = 428,
    session_missing = 520,
    device_deleted = 521,
    session_device_disabled = 522,
    login_repeated = 527,
    sign_mismatch = 6287,
    dynamic_registration_off = 6288,
    already_activated = 6289,
    topology_missing = 6401,
    topology_to_itself = 6402,
    bound_elsewhere = 6619,
    sign_method_unsupported = 6292,
    product_sign_mismatch = 6600,

    // Configuration.
    configuration_missing = 6710,
};

/// The name of the errors' category.
constexpr char const* category_name(errc) noexcept { return "runnel.aliyun.alink"; }

/// What the error means, in a sentence without a full stop.
inline char const* describe(errc e) noexcept {
    switch (e) {
        case errc::ok: return "success";
        case errc::not_json: return "the message is not JSON";
        case errc::too_deep: return "the JSON is nested too deeply";
        case errc::not_an_object: return "the message is not a JSON object";
        case errc::id_missing: return "the message has no id";
        case errc::code_missing: return "the reply has no code";
        case errc::member_missing: return "the message lacks a member";
        case errc::member_of_wrong_type: return "a member of the message has the wrong type";
        case errc::method_mismatch: return "the method is not the one of the topic";
        case errc::no_handler: return "there is no handler for the message";
        case errc::too_many_calls: return "too many calls are in progress";
        case errc::handler_failed: return "a handler has failed";
        case errc::text_not_utf8: return "a text to be sent is not UTF-8";
        case errc::payload_too_long: return "the message is longer than the platform accepts";
        case errc::timed_out: return "no reply came in time";
        case errc::disconnected: return "the session ended before the reply came";
        case errc::answer_invalid: return "the reply is not as the protocol prescribes";
        case errc::not_logged_in: return "the sub-device is not logged in";
        case errc::overtaken: return "a later call has decided otherwise";
        case errc::digest_unsupported: return "the digest method is none of md5 and sha256";
        case errc::digest_mismatch: return "the downloaded bytes do not have the announced digest";
        case errc::size_mismatch: return "the download does not have the announced size";
        case errc::success: return "success";
        case errc::request_error: return "the request could not be processed (400)";
        case errc::unauthorized: return "the request is not authorized (401)";
        case errc::not_found: return "there is nothing of that name (404)";
        case errc::version_conflict: return "the version is not newer than the shadow's (409)";
        case errc::throttled: return "too many requests (429)";
        case errc::parameters_invalid: return "the parameters are invalid (460)";
        case errc::internal_error: return "an unknown error on the other side (500)";
        case errc::product_query_failed: return "the product could not be queried (5005)";
        case errc::metadata_query_failed: return "the product's metadata could not be queried (5244)";
        case errc::device_unknown: return "the device does not exist (6100)";
        case errc::topic_invalid: return "the topic could not be parsed (6203)";
        case errc::device_disabled: return "the device is disabled (6204)";
        case errc::product_unknown: return "the product does not exist (6250)";
        case errc::method_missing: return "the request has no method (6450)";
        case errc::system_error: return "an error of the platform (6760)";
        case errc::data_too_long: return "the request has too much data (6106)";
        case errc::data_invalid: return "the data are not of their form (6207)";
        case errc::thing_model_method_missing: return "the thing model has no such method (6300)";
        case errc::logged_in_elsewhere: return "the device has logged in elsewhere (427)";
        case errc::too_many_sub_devices: return "too many sub-devices are logged in at the gateway (428)";
        case errc::session_missing: return "the sub-device has no session (520)";
        case errc::device_deleted: return "the device is deleted (521)";
        case errc::session_device_disabled: return "the device is disabled (522)";
        case errc::login_repeated: return "the device is logged in already (527)";
        case errc::sign_mismatch: return "the signature does not match (6287)";
        case errc::dynamic_registration_off: return "dynamic registration is not enabled (6288)";
        case errc::already_activated: return "the device is activated already (6289)";
        case errc::topology_missing: return "the sub-device does not belong to the gateway (6401)";
        case errc::topology_to_itself: return "a gateway cannot be its own sub-device (6402)";
        case errc::bound_elsewhere: return "the sub-device belongs to another gateway (6619)";
        case errc::sign_method_unsupported: return "the signature's method is not supported (6292)";
        case errc::product_sign_mismatch: return "the signature by the product's secret does not match (6600)";
        case errc::configuration_missing: return "there is no remote configuration (6710)";
    }
    return "a code that this library has no text for";
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(errc e) noexcept { return make_layer_error(e); }

/// The error of a reply's code. No error for 200 and for 0, which some of the platform's replies have for success.
inline std::error_code reply_error(int code) noexcept {
    return make_error_code(code == 200 ? errc::ok : static_cast<errc>(code));
}

}  // namespace runnel::aliyun::alink

template <>
struct std::is_error_code_enum<runnel::aliyun::alink::errc> : std::true_type {};
