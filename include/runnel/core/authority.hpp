#pragma once

#include <runnel/core/compiler.hpp>

#include <cstdint>
#include <optional>
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
RUNNEL_COLD constexpr bool may_be_host(std::string_view host) noexcept {
    for (char const c : host)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F) return false;
    return !host.empty();
}

/// The same for a host that stands in a URL or a server reference: what delimits there is no part of it, and it has at
/// most 255 bytes of ASCII.
RUNNEL_COLD constexpr bool may_be_host_in_text(std::string_view host) noexcept {
    for (char const c : host)
        if (static_cast<unsigned char>(c) >= 0x80) return false;
    return may_be_host(host) && host.size() <= 255 && host.find_first_of("/@?#[]\\^`{|}<>\"") == host.npos;
}

/// The parts of "host", "host:port" or "[address]:port".
struct host_and_port {
    std::string_view host{};  ///< without brackets; with several ':' and without brackets, all
    std::string_view port{};
    bool has_port = false;  ///< there is a ':' before `port`
    bool has_brackets = false;
};

/// Nothing if a '[' has no ']', or there is anything but a port behind that.
RUNNEL_COLD constexpr std::optional<host_and_port> split_host_and_port(std::string_view text) noexcept {
    host_and_port parts{text, {}, false, text.starts_with('[')};
    if (parts.has_brackets) {
        auto const end = text.find(']');
        if (end == text.npos) return std::nullopt;
        parts.host = text.substr(1, end - 1);
        parts.port = text.substr(end + 1);
        if (!parts.port.empty() && parts.port[0] != ':') return std::nullopt;
    } else if (auto const colon = text.find(':'); colon != text.npos && text.rfind(':') == colon) {
        parts.host = text.substr(0, colon);
        parts.port = text.substr(colon);
    }
    parts.has_port = !parts.port.empty();
    if (parts.has_port) parts.port.remove_prefix(1);
    return parts;
}

/// The number of a port, 1 to 65,535; 0: the text is none.
RUNNEL_COLD constexpr std::uint16_t read_port(std::string_view text) noexcept {
    std::uint32_t number = 0;
    if (text.size() > 5) return 0;
    for (char const c : text) {
        if (c < '0' || c > '9') return 0;
        number = number * 10 + static_cast<std::uint32_t>(c - '0');
    }
    return number <= 65535 ? static_cast<std::uint16_t>(number) : std::uint16_t{0};
}

/// "host:port" as a URL has it (RFC 3986 3.2), without the user's name.
RUNNEL_COLD RUNNEL_NOINLINE inline std::string authority_of(std::string_view host, std::uint16_t port) {
    return host_in_url(host) + ':' + std::to_string(long{port});
}

}  // namespace runnel
