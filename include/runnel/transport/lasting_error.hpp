#pragma once

#include <runnel/transport/error.hpp>
#include <runnel/transport/proxy_error.hpp>

#include <system_error>

namespace runnel {

/// Whether a transport will fail with this error again and again until somebody changes its settings or the peer's:
/// certificates, keys, names, credentials. Other failures of transports may pass by themselves.
inline bool is_lasting_error(std::error_code const& e) noexcept {
    if (e.category() == make_error_code(transport_errc{}).category())
        return e && e.value() < static_cast<int>(transport_errc::not_tls);
    return e == proxy_errc::target_invalid || e == proxy_errc::credentials_invalid ||
           e == proxy_errc::credentials_required || e == proxy_errc::credentials_refused;
}

}  // namespace runnel
