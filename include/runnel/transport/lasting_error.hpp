#pragma once

#include <runnel/transport/error.hpp>
#include <runnel/transport/proxy/error.hpp>

#include <system_error>

namespace runnel {

/// Whether a certificate is refused because of the time: of this machine's clock, perhaps, which a device that has just
/// been switched on may not have set yet. It passes with the time, or when the peer's certificate is renewed, or the
/// revocation list or status that is out of date.
inline bool is_certificate_time_error(std::error_code const& e) noexcept {
    return e == transport_errc::certificate_expired || e == transport_errc::certificate_not_yet_valid ||
           e == transport_errc::revocation_list_expired || e == transport_errc::certificate_status_expired;
}

/// Whether a transport will fail with this error again and again until somebody changes its settings or the peer's:
/// certificates, keys, names, credentials. Other failures of transports may pass by themselves, those of
/// `is_certificate_time_error` among them.
constexpr bool is_lasting(transport_errc e) noexcept {
    switch (e) {
        case transport_errc::file_unreadable:
        case transport_errc::pem_invalid:
        case transport_errc::certificate_unusable:
        case transport_errc::private_key_unusable:
        case transport_errc::private_key_password_wrong:
        case transport_errc::private_key_mismatch:
        case transport_errc::tls_option_invalid:
        case transport_errc::certificate_untrusted:
        case transport_errc::certificate_self_signed:
        case transport_errc::certificate_revoked:
        case transport_errc::certificate_missing:
        case transport_errc::certificate_invalid:
        case transport_errc::revocation_list_missing:
        case transport_errc::certificate_status_invalid:
        case transport_errc::host_name_mismatch:
        case transport_errc::host_name_missing:
        case transport_errc::certificate_without_names:
        case transport_errc::key_not_pinned:
        case transport_errc::own_certificate_refused:
        case transport_errc::own_certificate_required:
        case transport_errc::no_common_protocol_version:
        case transport_errc::no_common_application_protocol:
        case transport_errc::no_common_cipher:
        case transport_errc::server_name_unknown:
        case transport_errc::pre_shared_key_refused:
        case transport_errc::handshake_refused: return true;
        case transport_errc::ok:
        case transport_errc::certificate_expired:
        case transport_errc::certificate_not_yet_valid:
        case transport_errc::revocation_list_expired:
        case transport_errc::certificate_status_missing:
        case transport_errc::certificate_status_expired:
        case transport_errc::not_tls:
        case transport_errc::tls_protocol_error:
        case transport_errc::stream_truncated:
        case transport_errc::stream_broken:
        case transport_errc::shutdown_timeout:
        case transport_errc::connect_timeout: return false;
    }
    return false;
}
/// The same of a proxy's.
constexpr bool is_lasting(proxy_errc e) noexcept {
    switch (e) {
        case proxy_errc::target_invalid:
        case proxy_errc::credentials_invalid:
        case proxy_errc::credentials_required:
        case proxy_errc::credentials_refused: return true;
        case proxy_errc::ok:
        case proxy_errc::closed_early:
        case proxy_errc::handshake_timeout:
        case proxy_errc::not_http:
        case proxy_errc::head_too_long:
        case proxy_errc::refused:
        case proxy_errc::not_socks5:
        case proxy_errc::no_common_method:
        case proxy_errc::general_failure:
        case proxy_errc::not_allowed:
        case proxy_errc::network_unreachable:
        case proxy_errc::host_unreachable:
        case proxy_errc::connection_refused:
        case proxy_errc::ttl_expired:
        case proxy_errc::command_not_supported:
        case proxy_errc::address_type_not_supported:
        case proxy_errc::unknown_reply: return false;
    }
    return false;
}
/// The same of any error: those of others may pass.
inline bool is_lasting_error(std::error_code const& e) noexcept {
    if (is_error_of<transport_errc>(e)) return is_lasting(static_cast<transport_errc>(e.value()));
    return is_error_of<proxy_errc>(e) && is_lasting(static_cast<proxy_errc>(e.value()));
}

}  // namespace runnel
