#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/secret.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace runnel {

/// The parts of a URL (RFC 3986) of a server: "scheme://user:password@host:port/path?query".
struct url {
    /// In small letters, without "://".
    std::string scheme{};
    /// What stands before '@', unescaped; none if it is missing.
    std::optional<std::string> user_name{};
    std::optional<secret_string> password{};
    /// Name or address in small letters, IPv6 without brackets; empty where the URL has none ("unix:///run/broker").
    std::string host{};
    /// 0: none is named.
    std::uint16_t port = 0;
    /// From the first '/' on, with the query, escaped as it was; or empty.
    std::string path{};
};

namespace detail {

/// Appends a part of a URL without its escapes ("%20"). Throws `std::invalid_argument` with `what` in its text.
RUNNEL_COLD inline void unescape(std::string_view text, std::string& into, char const* what) {
    auto const digit = [](char c) {
        constexpr std::string_view lower = "0123456789abcdef", upper = "0123456789ABCDEF";
        return (std::min)(lower.find(c), upper.find(c));
    };
    into.reserve(into.size() + text.size());
    for (; !text.empty(); text.remove_prefix(1)) {
        if (text[0] != '%') {
            into += text[0];
            continue;
        }
        auto const high = text.size() > 2 ? digit(text[1]) : text.npos;
        auto const low = text.size() > 2 ? digit(text[2]) : text.npos;
        if (high > 15 || low > 15)
            RUNNEL_THROW(std::invalid_argument(std::string("URL: '%' in the ") + what +
                                               " without two hexadecimal digits behind it"));
        into += static_cast<char>(high * 16 + low);
        text.remove_prefix(2);
    }
}

/// Reads a URL from its beginning to its end; each function takes one part.
class url_reader {
  public:
    explicit url_reader(std::string_view text) : rest_(text) {}

    RUNNEL_COLD url read() {
        url all;
        read_scheme(all);
        auto authority = take(rest_.find_first_of("/?"));
        if (auto const at = authority.rfind('@'); at != authority.npos) {
            read_user(all, authority.substr(0, at));
            authority.remove_prefix(at + 1);
        }
        read_host(all, authority);
        all.path = rest_;
        if (all.path.starts_with('?')) all.path.insert(0, 1, '/');
        return all;
    }

  private:
    // Says what is wrong, and where; of what stands before '@' nothing, as it may be secret.
    [[noreturn]] static void refuse(std::string_view part, std::string_view text, std::string_view why) {
        RUNNEL_THROW(std::invalid_argument(
            std::string("URL: ").append(part).append(" \"").append(text).append("\" ").append(why)));
    }

    std::string_view take(std::size_t count) {
        auto const part = rest_.substr(0, count);
        rest_.remove_prefix(part.size());
        return part;
    }

    void read_scheme(url& all) {
        for (char const c : rest_)
            if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7F || c == '#')
                RUNNEL_THROW(std::invalid_argument(
                    "URL: it has a character that must be escaped: a space, '#', a control character, or one beyond "
                    "ASCII"));
        auto const end = rest_.find("://");
        if (end == rest_.npos || end == 0)
            RUNNEL_THROW(std::invalid_argument("URL: it has no scheme; it is to begin as \"mqtt://\" does"));
        all.scheme = in_small_letters(take(end));
        rest_.remove_prefix(3);
    }

    static void read_user(url& all, std::string_view user) {
        auto const colon = user.find(':');
        unescape(user.substr(0, colon), all.user_name.emplace(), "user name");
        if (colon != user.npos) unescape(user.substr(colon + 1), all.password.emplace(), "password");
    }

    static void read_host(url& all, std::string_view authority) {
        auto const parts = split_host_and_port(authority);
        if (!parts && authority.find(']') == authority.npos) refuse("host", authority, "has no ']' behind its address");
        if (!parts) refuse("host", authority, "goes on behind ']'");
        auto const& host = parts->host;
        bool const is_address = host.find(':') != host.npos;
        if (parts->has_brackets && !is_address) refuse("host", authority, "has brackets, and is no IPv6 address");
        if (!parts->has_brackets && is_address) refuse("host", authority, "is an IPv6 address, which needs brackets");
        if (host.size() > 255) refuse("host", host, "is longer than 255 bytes");
        if (!host.empty() && (!may_be_host_in_text(host) || host.find('%') != host.npos))
            refuse("host", host, "has a character that no host has");
        all.host = in_small_letters(host);
        if (!parts->has_port) return;
        all.port = read_port(parts->port);
        if (all.port == 0) refuse("port", parts->port, "is no number from 1 to 65535");
    }

    static std::string in_small_letters(std::string_view text) {
        std::string all(text);
        for (char& c : all)
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
        return all;
    }

    std::string_view rest_;
};

}  // namespace detail

/// Reads a URL. Throws `std::invalid_argument` with a text that names the part that is wrong; it does not repeat the
/// user name or the password.
RUNNEL_COLD inline url parse_url(std::string_view text) { return detail::url_reader(text).read(); }

}  // namespace runnel
