#pragma once

#include <runnel/core/saturating.hpp>
#include <runnel/websocket/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace runnel::websocket {

// As much of HTTP/1.1 (RFC 9110, 9112) as the opening handshake needs, read strictly: lines end in CR LF, no folded
// lines, no blanks before a colon, names are tokens, values have no control characters.

/// Whether `c` may be part of a token (RFC 9110 5.6.2).
constexpr bool is_token_char(char c) noexcept {
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) return true;
    return c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

/// Whether `text` is a token: not empty, no blanks, no separators.
constexpr bool is_token(std::string_view text) noexcept {
    for (char c : text)
        if (!is_token_char(c)) return false;
    return !text.empty();
}

/// Whether `text` may be the value of a header: no control characters but tabs, so that it cannot begin a new line.
constexpr bool is_field_value(std::string_view text) noexcept {
    for (char c : text)
        if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7F) return false;
    return true;
}

/// Whether `text` may be the target of a request: a path that begins with a slash, and a query, of visible ASCII
/// characters without a fragment.
constexpr bool is_target(std::string_view text) noexcept {
    for (char c : text)
        if (c <= 0x20 || c >= 0x7F || c == '#') return false;
    return !text.empty() && text[0] == '/';
}

/// Whether two strings are the same but for the case of ASCII letters.
constexpr bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
    auto const lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (lower(a[i]) != lower(b[i])) return false;
    return true;
}

/// `text` without blanks and tabs at both ends.
constexpr std::string_view trim(std::string_view text) noexcept {
    auto const blank = [](char c) { return c == ' ' || c == '\t'; };
    while (!text.empty() && blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && blank(text.back())) text.remove_suffix(1);
    return text;
}

/// Removes the first item from a list separated by commas, and returns it without blanks around it. Empty items are
/// returned as such; the list is at its end when it is empty.
constexpr std::string_view take_item(std::string_view& list) noexcept {
    std::size_t const comma = list.find(',');
    std::string_view const item = trim(list.substr(0, comma));
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    return item;
}

/// Whether the list has the item `token`, whatever its case.
constexpr bool list_has(std::string_view list, std::string_view token) noexcept {
    while (!list.empty())
        if (equal_ignoring_case(take_item(list), token)) return true;
    return false;
}

/// What a head may have at most.
struct http_limits {
    /// Bytes, from the first of the first line to the empty line; 1 or more.
    std::size_t max_bytes = 16 * 1024;
    /// Header lines; 1 or more.
    std::size_t max_headers = 100;
};

/// The head of an HTTP request or reply, gathered from pieces cut anywhere.
class http_head {
  public:
    explicit http_head(http_limits limits = {}) noexcept : limits_(limits) {}

    /// Takes bytes up to the end of the head and returns how many those were; fewer than `bytes.size()` only if the
    /// head is complete or there is an error.
    std::size_t write(std::string_view bytes) {
        if (complete_ || error_ != errc::ok) return 0;
        // The end is an empty line, of which up to three bytes may have come before.
        std::size_t const from = text_.size() < 3 ? 0 : text_.size() - 3;
        std::size_t const had = text_.size();
        text_ += bytes.substr(0, add_saturating(limits_.max_bytes, std::size_t{1}) - had);
        std::size_t const end = text_.find("\r\n\r\n", from);
        if (end != std::string::npos && end + 4 <= limits_.max_bytes) {
            text_.resize(end + 4);
            complete_ = true;
            error_ = check();
        } else if (text_.size() > limits_.max_bytes) {
            error_ = errc::head_too_long;
        } else if (text_.find('\0', had) != std::string::npos) {
            error_ = errc::malformed_http;  // not HTTP at all: no use waiting for the end
        }
        return text_.size() > had ? text_.size() - had : 0;
    }

    /// Drops a head that is complete, for another one behind it. All of them together may have `max_bytes`.
    void begin_next() noexcept {
        limits_.max_bytes -= text_.size();
        text_.clear();
        complete_ = false;
    }

    /// Whether the whole head has come. It may still have an `error`.
    bool complete() const noexcept { return complete_; }
    /// `malformed_http`, `head_too_long` or `too_many_headers`, as soon as known.
    errc error() const noexcept { return error_; }

    /// The first line.
    std::string_view start_line() const noexcept { return std::string_view(text_).substr(0, text_.find("\r\n")); }

    /// The number of headers of this name, whatever its case.
    std::size_t count(std::string_view name) const noexcept {
        std::size_t n = 0;
        for_each(name, [&](std::string_view) { return ++n, false; });
        return n;
    }

    /// The value of the first header of this name; empty if there is none.
    std::string_view value(std::string_view name) const noexcept {
        std::string_view found;
        for_each(name, [&](std::string_view value) { return found = value, true; });
        return found;
    }

    /// Whether the lists in the headers of this name have the item `token`, whatever its case.
    bool has(std::string_view name, std::string_view token) const noexcept {
        return for_each(name, [&](std::string_view value) { return list_has(value, token); });
    }

    /// Calls `visit(value)` for the headers of this name in their order until one call returns true; whether one did.
    template <class Visit>
    bool for_each(std::string_view name, Visit visit) const {
        std::string_view rest = after_start_line();
        while (rest.size() > 2) {
            std::string_view const line = take_line(rest);
            std::size_t const colon = line.find(':');
            if (equal_ignoring_case(line.substr(0, colon), name) && visit(trim(line.substr(colon + 1)))) return true;
        }
        return false;
    }

  private:
    std::string_view after_start_line() const noexcept {
        return std::string_view(text_).substr(text_.find("\r\n") + 2);
    }

    static std::string_view take_line(std::string_view& rest) noexcept {
        std::size_t const end = rest.find("\r\n");
        std::string_view const line = rest.substr(0, end);
        rest.remove_prefix(end + 2);
        return line;
    }

    errc check() const noexcept {
        if (!is_field_value(start_line())) return errc::malformed_http;
        std::size_t headers = 0;
        std::string_view rest = after_start_line();
        while (rest.size() > 2) {
            std::string_view const line = take_line(rest);
            std::size_t const colon = line.find(':');
            if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return errc::malformed_http;
            if (!is_field_value(line.substr(colon + 1))) return errc::malformed_http;
            if (++headers > limits_.max_headers) return errc::too_many_headers;
        }
        return errc::ok;
    }

    http_limits limits_;
    std::string text_{};
    bool complete_ = false;
    errc error_ = errc::ok;
};

}  // namespace runnel::websocket
