#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/error.hpp>

#include <system_error>

namespace runnel {

/// What can go wrong in a transport beyond the errors of the operating system (connection refused, reset, ...) and of
/// name resolution, which come as Asio reports them.
enum class transport_errc {
    ok = 0,

    // Settings that cannot be used; reported when a `tls_context` is made.
    file_unreadable,
    pem_invalid,
    certificate_unusable,
    private_key_unusable,
    private_key_password_wrong,
    private_key_mismatch,
    tls_option_invalid,

    // Why this side refused the peer's certificate.
    certificate_untrusted,
    certificate_self_signed,
    certificate_expired,
    certificate_not_yet_valid,
    certificate_revoked,
    certificate_missing,
    certificate_invalid,
    revocation_list_missing,
    revocation_list_expired,
    certificate_status_missing,
    certificate_status_expired,
    certificate_status_invalid,
    host_name_mismatch,
    host_name_missing,
    certificate_without_names,
    key_not_pinned,

    // Why the peer refused this side; it said so in a TLS alert.
    own_certificate_refused,
    own_certificate_required,
    no_common_protocol_version,
    no_common_application_protocol,
    no_common_cipher,
    server_name_unknown,
    pre_shared_key_refused,
    handshake_refused,

    // The flow of bytes.
    not_tls,
    tls_protocol_error,
    stream_truncated,
    stream_broken,
    shutdown_timeout,
    connect_timeout,
};

/// The name of the errors' category.
constexpr char const* category_name(transport_errc) noexcept { return "runnel.transport"; }

/// What the error means, in a sentence without a full stop.
RUNNEL_COLD constexpr char const* describe(transport_errc e) noexcept {
    switch (e) {
        case transport_errc::ok: return "no error";
        case transport_errc::file_unreadable: return "the file cannot be read";
        case transport_errc::pem_invalid: return "no valid PEM of the expected kind";
        case transport_errc::certificate_unusable: return "the certificate cannot be used";
        case transport_errc::private_key_unusable: return "the private key cannot be used";
        case transport_errc::private_key_password_wrong: return "the password of the private key is missing or wrong";
        case transport_errc::private_key_mismatch: return "the private key does not belong to the certificate";
        case transport_errc::tls_option_invalid: return "the TLS option is not valid";
        case transport_errc::certificate_untrusted:
            return "the peer's certificate was not issued by a trusted certification authority: is it in ca_file?";
        case transport_errc::certificate_self_signed:
            return "the peer's certificate is self-signed and not trusted: is it in ca_file?";
        case transport_errc::certificate_expired: return "the peer's certificate has expired, by this machine's clock";
        case transport_errc::certificate_not_yet_valid:
            return "the peer's certificate is not yet valid: is this machine's clock right?";
        case transport_errc::certificate_revoked: return "the peer's certificate has been revoked";
        case transport_errc::certificate_missing: return "the peer sent no certificate";
        case transport_errc::certificate_invalid: return "the peer's certificate is not valid";
        case transport_errc::revocation_list_missing: return "no revocation list (CRL) of the certificate's authority";
        case transport_errc::revocation_list_expired:
            return "the revocation list (CRL) is not valid now, by this machine's clock";
        case transport_errc::certificate_status_missing: return "the peer sent no status of its certificate (OCSP)";
        case transport_errc::certificate_status_expired:
            return "the status of the peer's certificate (OCSP) is not valid now, by this machine's clock";
        case transport_errc::certificate_status_invalid:
            return "the status of the peer's certificate (OCSP) proves nothing";
        case transport_errc::host_name_mismatch: return "the peer's certificate is for another host name or address";
        case transport_errc::host_name_missing: return "no host name to check the peer's certificate against";
        case transport_errc::certificate_without_names:
            return "the peer's certificate has no subjectAltName: it is for no host (RFC 9525)";
        case transport_errc::key_not_pinned: return "the peer's public key is none of the pinned ones";
        case transport_errc::own_certificate_refused: return "the peer refused our certificate";
        case transport_errc::own_certificate_required:
            return "the peer requires a certificate of ours: is there a certificate_file?";
        case transport_errc::no_common_protocol_version: return "no TLS version that both sides accept";
        case transport_errc::no_common_application_protocol: return "no application protocol (ALPN) in common";
        case transport_errc::no_common_cipher: return "no cipher suite that both sides accept";
        case transport_errc::server_name_unknown: return "the peer does not know the server name (SNI)";
        case transport_errc::pre_shared_key_refused:
            return "the peer does not know the pre-shared key or its identity, or has another key";
        case transport_errc::handshake_refused: return "the peer refused the TLS handshake";
        case transport_errc::not_tls: return "the peer does not speak TLS: is this a TLS port?";
        case transport_errc::tls_protocol_error: return "the TLS protocol was violated";
        case transport_errc::stream_truncated: return "the connection was cut: it ended without a TLS close_notify";
        case transport_errc::stream_broken: return "the stream cannot be used after an earlier failure or shutdown";
        case transport_errc::shutdown_timeout: return "the peer did not take the end of the stream in time";
        case transport_errc::connect_timeout: return "connecting took longer than its share of the time";
    }
    return "unknown transport error";
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(transport_errc e) noexcept { return make_layer_error(e); }

}  // namespace runnel

template <>
struct std::is_error_code_enum<runnel::transport_errc> : std::true_type {};
