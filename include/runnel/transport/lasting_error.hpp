#pragma once

#include <runnel/transport/error.hpp>
#include <runnel/transport/proxy_error.hpp>

#include <system_error>

namespace runnel {

/// Whether a certificate is refused because of the time: of this machine's clock, perhaps, which a device that has just
/// been switched on may not have set yet. It passes with the time, or when the peer's certificate is renewed.
inline bool is_certificate_time_error(std::error_code const& e) noexcept {
    return e == transport_errc::certificate_expired || e == transport_errc::certificate_not_yet_valid;
}

/// Whether a transport will fail with this error again and again until somebody changes its settings or the peer's:
/// certificates, keys, names, credentials. Other failures of transports may pass by themselves, those of
/// `is_certificate_time_error` among them.
inline bool is_lasting_error(std::error_code const& e) noexcept {
    if (e.category() == make_error_code(transport_errc{}).category())
        return e && e.value() < static_cast<int>(transport_errc::not_tls) && !is_certificate_time_error(e);
    return e == proxy_errc::target_invalid || e == proxy_errc::credentials_invalid ||
           e == proxy_errc::credentials_required || e == proxy_errc::credentials_refused;
}

}  // namespace runnel
