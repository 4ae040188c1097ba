#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/error.hpp>

#include <system_error>

namespace runnel {

/// Why there is no way through a proxy. Failures on the way to the proxy itself come as its transport reports them.
enum class proxy_errc {
    ok = 0,

    // Settings that cannot be used.
    target_invalid,
    credentials_invalid,

    // Either protocol.
    credentials_required,
    credentials_refused,
    closed_early,
    handshake_timeout,

    // HTTP CONNECT.
    not_http,
    head_too_long,
    refused,

    // SOCKS5: its protocol, and the replies of RFC 1928 6, in their order.
    not_socks5,
    no_common_method,
    general_failure,
    not_allowed,
    network_unreachable,
    host_unreachable,
    connection_refused,
    ttl_expired,
    command_not_supported,
    address_type_not_supported,
    unknown_reply,
};

/// The name of the layer's error category.
constexpr char const* category_name(proxy_errc) noexcept { return "runnel.proxy"; }

/// What `e` means, as a phrase.
RUNNEL_COLD constexpr char const* describe(proxy_errc e) noexcept {
    switch (e) {
        case proxy_errc::ok: return "no error";
        case proxy_errc::target_invalid:
            return "the target's host is empty, too long, or has characters of no host name";
        case proxy_errc::credentials_invalid: return "the proxy's protocol cannot carry this user name or password";
        case proxy_errc::credentials_required: return "the proxy requires a user name and a password";
        case proxy_errc::credentials_refused: return "the proxy refused the user name or the password";
        case proxy_errc::closed_early:
            return "the proxy closed the connection without having answered: is this its port and protocol?";
        case proxy_errc::handshake_timeout: return "the proxy took too long to answer";
        case proxy_errc::not_http: return "the proxy's answer is not HTTP: is this the port of an HTTP proxy?";
        case proxy_errc::head_too_long: return "the head of the proxy's answer is longer than accepted";
        case proxy_errc::refused: return "the proxy refused to connect";
        case proxy_errc::not_socks5:
            return "the proxy's answer is not SOCKS version 5: is this the port of a SOCKS5 proxy?";
        case proxy_errc::no_common_method: return "the proxy accepts none of the authentication methods offered";
        case proxy_errc::general_failure: return "the proxy has failed";
        case proxy_errc::not_allowed: return "the proxy's rules do not allow the connection";
        case proxy_errc::network_unreachable: return "the proxy cannot reach the target's network";
        case proxy_errc::host_unreachable: return "the proxy cannot reach the target, or does not know its name";
        case proxy_errc::connection_refused: return "the target refused the proxy's connection";
        case proxy_errc::ttl_expired: return "the proxy's way to the target is too long (TTL expired)";
        case proxy_errc::command_not_supported: return "the proxy does not support CONNECT";
        case proxy_errc::address_type_not_supported: return "the proxy does not support the target's type of address";
        case proxy_errc::unknown_reply: return "the proxy gave a reason for refusing that no standard names";
    }
    return "unknown proxy error";
}

/// Lets a `std::error_code` be made of one of these.
inline std::error_code make_error_code(proxy_errc e) noexcept { return make_layer_error(e); }

}  // namespace runnel

template <>
struct std::is_error_code_enum<runnel::proxy_errc> : std::true_type {};
