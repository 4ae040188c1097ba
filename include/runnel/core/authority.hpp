#pragma once

#include <runnel/core/compiler.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace runnel {

/// A host as a URL has it: an IPv6 address in brackets (RFC 3986 3.2.2), anything else as it is.
RUNNEL_COLD RUNNEL_NOINLINE inline std::string host_in_url(std::string_view host) {
    if (host.find(':') == std::string_view::npos) return std::string(host);
    return std::string("[").append(host).append("]");
}

/// Whether a text may be a host's name or address at all: not empty, without spaces and controls. Resolvers, TLS and
/// proxies read what has a NUL in it, or a line's end, as another one.
RUNNEL_COLD RUNNEL_NOINLINE inline bool may_be_host(std::string_view host) noexcept {
    for (char const c : host)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F) return false;
    return !host.empty();
}

/// "host:port" as a URL has it (RFC 3986 3.2), without the user's name.
RUNNEL_COLD RUNNEL_NOINLINE inline std::string authority_of(std::string_view host, std::uint16_t port) {
    return host_in_url(host) + ':' + std::to_string(port);
}

}  // namespace runnel
