#pragma once

#include <runnel/core/error.hpp>

#include <system_error>

namespace runnel::mqtt {

/// Why an authentication by SCRAM (RFC 5802) has failed, at either end.
enum class scram_errc {
    ok = 0,

    // What the user has set.
    user_name_missing,
    password_missing,
    text_not_prepared,
    keys_invalid,
    keys_of_another_salt,

    // What the server has sent, or the client.
    message_malformed,
    message_not_due,
    extension_required,
    nonce_wrong,

    // What the server has sent.
    too_few_iterations,
    too_many_iterations,
    refused,
    signature_missing,
    signature_wrong,

    // What a client has sent.
    channel_binding_not_supported,
    identity_not_allowed,
    proof_wrong,
};

/// The name of the layer's error category.
constexpr char const* category_name(scram_errc) noexcept { return "runnel.scram"; }

/// What `e` means, as a phrase.
constexpr char const* describe(scram_errc e) noexcept {
    switch (e) {
        case scram_errc::ok: return "no error";
        case scram_errc::user_name_missing: return "SCRAM needs a user name";
        case scram_errc::password_missing: return "SCRAM needs a password, or keys that have been made of one";
        case scram_errc::text_not_prepared:
            return "a user name or password that is not printable ASCII must be prepared, and said to be";
        case scram_errc::keys_invalid: return "the prepared keys are not of the size that the mechanism has";
        case scram_errc::keys_of_another_salt:
            return "the server asks for another salt or other iterations than the prepared keys have";
        case scram_errc::message_malformed: return "the peer's message is not one of SCRAM";
        case scram_errc::message_not_due: return "the peer's SCRAM message does not come in its turn";
        case scram_errc::extension_required: return "the peer requires an extension of SCRAM that is not known";
        case scram_errc::nonce_wrong: return "the nonce is not the one of this exchange";
        case scram_errc::too_few_iterations: return "the server asks for fewer iterations than are safe";
        case scram_errc::too_many_iterations: return "the server asks for more iterations than are allowed";
        case scram_errc::refused: return "the server has refused the authentication";
        case scram_errc::signature_missing:
            return "the server has accepted without having proved that it knows the user";
        case scram_errc::signature_wrong: return "the server's signature is wrong: it does not know the user's keys";
        case scram_errc::channel_binding_not_supported:
            return "the client wants channel binding, or has bound another one";
        case scram_errc::identity_not_allowed: return "the client wants to act for another user";
        case scram_errc::proof_wrong: return "the client's proof is wrong: another password";
    }
    return "unknown SCRAM error";
}

/// What `e` means to others: `permission_denied` is a refusal of the credentials, `invalid_argument` what stays wrong
/// until somebody changes the settings or the server's.
inline std::error_condition condition_of(scram_errc e) noexcept {
    switch (e) {
        case scram_errc::ok:
        case scram_errc::message_malformed:
        case scram_errc::message_not_due: return {};
        case scram_errc::refused:
        case scram_errc::identity_not_allowed:
        case scram_errc::proof_wrong: return std::errc::permission_denied;
        default: return std::errc::invalid_argument;
    }
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(scram_errc e) noexcept { return make_layer_error(e); }

}  // namespace runnel::mqtt

template <>
struct std::is_error_code_enum<runnel::mqtt::scram_errc> : std::true_type {};
