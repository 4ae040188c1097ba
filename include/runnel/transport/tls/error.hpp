#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/remark.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/transport/error.hpp>

#include RUNNEL_ASIO(error.hpp)
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel {

/// A failure of TLS: the library's code, and what OpenSSL says about it.
struct tls_failure {
    std::error_code code{};
    std::string reason{};

    explicit operator bool() const noexcept { return static_cast<bool>(code); }

    /// Throws it as a `std::system_error`; `doing` says what failed.
    [[noreturn]] void raise(std::string const& doing) const {
        throw std::system_error(code, reason.empty() ? doing : doing + " (" + reason + ")");
    }
};

/// What the verification's outcome is set to where a server's certificate has no subjectAltName; OpenSSL's own checks
/// do not come to this.
inline constexpr int certificate_without_names_error = X509_V_ERR_UNSUPPORTED_NAME_SYNTAX;

/// The failure of a handshake with `server`, as a client tells it: with whom, and what usually is the reason that it
/// closes the connection instead of answering.
RUNNEL_COLD inline std::system_error handshake_error(std::system_error const& e, std::string const& server) {
    constexpr std::string_view doing = "TLS handshake";
    std::string text = remark_of(e);
    if (text.starts_with(doing)) text.erase(0, doing.size());
    text.insert(0, std::string(doing) + " with " + server);
    bool const closed = e.code() == transport_errc::stream_truncated || e.code() == asio::error::connection_reset ||
                        e.code() == asio::error::broken_pipe;
    if (closed) text += " (is this a TLS port?)";
    return {e.code(), text};
}

/// The host name or address that a client has asked for, in quotes.
RUNNEL_COLD inline std::string name_asked_for(SSL const* ssl) {
    // OpenSSL 3 changes nothing here, although it takes a pointer to what it could change.
    X509_VERIFY_PARAM* const param = SSL_get0_param(const_cast<SSL*>(ssl));
    if (char const* const host = X509_VERIFY_PARAM_get0_host(param, 0)) return std::string("'") + host + '\'';
    char* const address = X509_VERIFY_PARAM_get1_ip_asc(param);
    std::string text = address != nullptr ? std::string("'") + address + '\'' : std::string("no name");
    OPENSSL_free(address);
    return text;
}

/// The code for the outcome of a certificate's verification (`X509_V_ERR_...`).
inline transport_errc verification_error(long result) noexcept {
    switch (result) {
        case X509_V_OK: return transport_errc::ok;
        case X509_V_ERR_CERT_HAS_EXPIRED: return transport_errc::certificate_expired;
        case X509_V_ERR_CERT_NOT_YET_VALID: return transport_errc::certificate_not_yet_valid;
        case X509_V_ERR_CERT_REVOKED: return transport_errc::certificate_revoked;
        case X509_V_ERR_UNABLE_TO_GET_CRL: return transport_errc::revocation_list_missing;
        case X509_V_ERR_CRL_HAS_EXPIRED:
        case X509_V_ERR_CRL_NOT_YET_VALID: return transport_errc::revocation_list_expired;
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: return transport_errc::certificate_self_signed;
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        case X509_V_ERR_CERT_UNTRUSTED: return transport_errc::certificate_untrusted;
        case X509_V_ERR_APPLICATION_VERIFICATION: return transport_errc::key_not_pinned;  // see tls_context
        case certificate_without_names_error: return transport_errc::certificate_without_names;
        case X509_V_ERR_HOSTNAME_MISMATCH:
        case X509_V_ERR_IP_ADDRESS_MISMATCH: return transport_errc::host_name_mismatch;
        default: return transport_errc::certificate_invalid;
    }
}

/// The code for what was found wrong with the status that came with a certificate, as the verification's outcome was
/// set to it: see `detail::judge_certificate_status`.
inline transport_errc certificate_status_error(long result) noexcept {
    switch (result) {
        case X509_V_ERR_CERT_REVOKED: return transport_errc::certificate_revoked;
        case X509_V_ERR_OCSP_VERIFY_NEEDED: return transport_errc::certificate_status_missing;
        case X509_V_ERR_CERT_HAS_EXPIRED:
        case X509_V_ERR_CERT_NOT_YET_VALID: return transport_errc::certificate_status_expired;
        default: return transport_errc::certificate_status_invalid;
    }
}

/// The code for a reason in OpenSSL's error queue. Reasons above 1000 are alerts which the peer sent (RFC 8446 6).
inline transport_errc tls_reason_error(int reason) noexcept {
    switch (reason) {
        case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
        case SSL_R_TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE:
        case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        case SSL_R_TLSV1_ALERT_ACCESS_DENIED: return transport_errc::own_certificate_refused;
        case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: return transport_errc::own_certificate_required;
        case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        case SSL_R_UNSUPPORTED_PROTOCOL:
        case SSL_R_NO_PROTOCOLS_AVAILABLE:
        case SSL_R_VERSION_TOO_LOW:
        case SSL_R_VERSION_TOO_HIGH: return transport_errc::no_common_protocol_version;
        case SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL:
        case SSL_R_NO_APPLICATION_PROTOCOL: return transport_errc::no_common_application_protocol;
        case SSL_R_NO_SHARED_CIPHER: return transport_errc::no_common_cipher;
        case SSL_R_TLSV1_UNRECOGNIZED_NAME: return transport_errc::server_name_unknown;
        case SSL_AD_REASON_OFFSET + SSL_AD_UNKNOWN_PSK_IDENTITY:
        case SSL_R_PSK_IDENTITY_NOT_FOUND: return transport_errc::pre_shared_key_refused;
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return transport_errc::certificate_missing;
        case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        case SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY: return transport_errc::handshake_refused;
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_HTTP_REQUEST:
        case SSL_R_HTTPS_PROXY_REQUEST: return transport_errc::not_tls;
        case SSL_R_UNEXPECTED_EOF_WHILE_READING: return transport_errc::stream_truncated;
        case SSL_R_PROTOCOL_IS_SHUTDOWN: return transport_errc::stream_broken;
        default: return transport_errc::tls_protocol_error;
    }
}

/// Takes the newest error out of this thread's queue, with OpenSSL's words for it, and empties the queue. `fallback` is
/// the code for errors of which nothing better is known, and for an empty queue. If one of the errors is that there was
/// no memory, that is the reason of the others: `std::errc::not_enough_memory`.
inline tls_failure take_openssl_error(transport_errc fallback) {
    unsigned long const error = ERR_peek_last_error();
    bool no_memory = false;
    while (unsigned long const next = ERR_get_error()) no_memory |= ERR_GET_REASON(next) == ERR_R_MALLOC_FAILURE;
    if (no_memory) return {std::make_error_code(std::errc::not_enough_memory), {}};
    if (error == 0) return {fallback, {}};
    if (ERR_SYSTEM_ERROR(error)) return {fallback, std::system_category().message(ERR_GET_REASON(error))};
    char const* const reason = ERR_reason_error_string(error);
    return {fallback, reason != nullptr ? reason : "OpenSSL error " + std::to_string(error)};
}

/// The failure of an operation on `ssl` that has just returned an error: of the verification, if that is the reason.
inline tls_failure take_tls_error(SSL const* ssl) {
    // The last error is the one of the uppermost layer: the reasons below it were that layer's business.
    unsigned long const error = ERR_peek_last_error();
    int const reason = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
    auto failure = take_openssl_error(transport_errc::tls_protocol_error);
    if (failure.code == std::errc::not_enough_memory) return failure;
    long const result = SSL_get_verify_result(ssl);
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        auto const code = verification_error(result);
        if (result == certificate_without_names_error) return {code, {}};
        std::string text = X509_verify_cert_error_string(result);
        if (code == transport_errc::host_name_mismatch) text += ", it must be for " + name_asked_for(ssl);
        return {code, std::move(text)};
    }
    if (reason == SSL_R_INVALID_STATUS_RESPONSE) {
        if (result == X509_V_ERR_OUT_OF_MEM) return {std::make_error_code(std::errc::not_enough_memory), {}};
        auto const code = certificate_status_error(result);
        bool const is_said = code != transport_errc::certificate_status_invalid;
        return {code, is_said ? std::string() : X509_verify_cert_error_string(result)};
    }
    failure.code = tls_reason_error(reason);
    return failure;
}

}  // namespace runnel
