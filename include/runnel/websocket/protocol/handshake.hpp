#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/random.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/digest/base64.hpp>
#include <runnel/digest/sha1.hpp>
#include <runnel/websocket/protocol/http_head.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace runnel::websocket {

/// A header to be sent with the handshake, beyond those that make the handshake.
struct header {
    std::string name{};
    secret_string value{};  ///< credentials, perhaps

    friend bool operator==(header const&, header const&) = default;
};

/// The value of a client's Sec-WebSocket-Key: 16 random bytes in base64 (RFC 6455 4.1).
using handshake_key = std::array<char, 24>;

/// A fresh key. Throws `std::system_error` if the system has no source of random bytes.
inline handshake_key make_handshake_key() {
    char bytes[16];
    fill_random(bytes, sizeof(bytes));
    handshake_key key{};
    digest::encode_base64({bytes, sizeof(bytes)}, key.data());
    return key;
}

/// The value of Sec-WebSocket-Accept with which a server shows that it has read `key` (4.2.2).
constexpr std::array<char, 28> accept_value(std::string_view key) noexcept {
    digest::sha1 hash;
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    auto const digest = hash.finish();
    std::array<char, 28> text{};
    digest::encode_base64({digest.data(), digest.size()}, text.data());
    return text;
}

/// What a client asks for.
struct client_request {
    /// Host name or address; an IPv6 address without brackets.
    std::string_view host{};
    /// The port, written into the Host header unless it is `default_port`.
    std::uint16_t port = 80;
    std::uint16_t default_port = 80;
    /// Path and query, escaped where needed.
    std::string_view target = "/";
    /// Subprotocols, the preferred one first, separated by commas; empty: none is asked for.
    std::string_view subprotocols = {};
    /// Value of Sec-WebSocket-Extensions; empty: none is asked for.
    std::string_view extensions = {};
    std::span<header const> headers = {};
    /// The Host header's value, in place of what `host` and `port` make.
    std::string_view authority = {};
};

/// Whether `host` may stand in a Host header: the characters of names and of addresses, and nothing that could end it.
constexpr bool is_host(std::string_view host) noexcept {
    for (char c : host)
        if (c <= 0x20 || c >= 0x7F || std::string_view("/?#@\\[]\"<>").find(c) != std::string_view::npos) return false;
    return !host.empty();
}

/// Whether `text` may be the value of a Host header: as `is_host`, and brackets around an address.
constexpr bool is_authority(std::string_view text) noexcept {
    for (char c : text)
        if (c != '[' && c != ']' && !is_host({&c, 1})) return false;
    return !text.empty();
}

/// Whether `list` is a list of different tokens, as the names of subprotocols must be (4.1).
constexpr bool is_subprotocol_list(std::string_view list) noexcept {
    if (!list.empty() && list.back() == ',') return false;
    while (!list.empty()) {
        std::string_view const item = take_item(list);
        if (!is_token(item)) return false;
        for (std::string_view rest = list; !rest.empty();)
            if (take_item(rest) == item) return false;
    }
    return true;
}

/// Whether a header of this name is part of the handshake itself, so that a user must not send another one.
constexpr bool is_handshake_header(std::string_view name) noexcept {
    for (std::string_view own : {"Host", "Upgrade", "Connection", "Content-Length", "Transfer-Encoding"})
        if (equal_ignoring_case(name, own)) return true;
    return equal_ignoring_case(name.substr(0, 14), "Sec-WebSocket-");
}

/// Checks what users have supplied: nothing in it may add a line or a header of the handshake's own.
inline errc check(client_request const& request) noexcept {
    bool const host_is_fine = request.authority.empty() ? is_host(request.host) : is_authority(request.authority);
    if (!host_is_fine) return errc::invalid_host;
    if (!is_target(request.target)) return errc::invalid_target;
    if (!is_subprotocol_list(request.subprotocols)) return errc::invalid_subprotocol;
    if (!is_field_value(request.extensions)) return errc::invalid_header;
    for (auto const& [name, value] : request.headers)
        if (!is_token(name) || is_handshake_header(name) || !is_field_value(value)) return errc::invalid_header;
    return errc::ok;
}

/// Appends the client's request with `key` to `out`: anything with `append(std::string_view)`. Writes nothing and
/// returns why if the request fails `check`.
template <class Out>
errc encode(client_request const& request, handshake_key const& key, Out& out) {
    if (errc const e = check(request); e != errc::ok) return e;
    auto const line = [&out](std::string_view name, std::string_view value) {
        for (std::string_view part : {name, std::string_view(": "), value, std::string_view("\r\n")}) out.append(part);
    };
    bool const has_port = request.port != request.default_port;
    std::string host = has_port ? authority_of(request.host, request.port) : host_in_url(request.host);
    if (!request.authority.empty()) host = request.authority;

    out.append(std::string_view("GET "));
    out.append(request.target);
    out.append(std::string_view(" HTTP/1.1\r\n"));
    line("Host", host);
    line("Upgrade", "websocket");
    line("Connection", "Upgrade");
    line("Sec-WebSocket-Key", {key.data(), key.size()});
    line("Sec-WebSocket-Version", "13");
    if (!request.subprotocols.empty()) line("Sec-WebSocket-Protocol", request.subprotocols);
    if (!request.extensions.empty()) line("Sec-WebSocket-Extensions", request.extensions);
    for (auto const& [name, value] : request.headers) line(name, value);
    out.append(std::string_view("\r\n"));
    return errc::ok;
}

/// No request of `encode` is larger.
constexpr std::size_t largest_size(client_request const& r) noexcept {
    std::size_t size =
        512 + r.host.size() + r.authority.size() + r.target.size() + r.subprotocols.size() + r.extensions.size();
    for (auto const& [name, value] : r.headers) size += name.size() + value.size() + 4;
    return size;
}

/// The status code in the first line of a reply (RFC 9112 4); 0 if it is not the first line of an HTTP/1.1 reply.
constexpr int status_of(std::string_view start_line) noexcept {
    constexpr std::string_view version = "HTTP/1.";
    if (start_line.size() < 12 || start_line.substr(0, version.size()) != version) return 0;
    if ((start_line[7] != '0' && start_line[7] != '1') || start_line[8] != ' ') return 0;
    if (start_line.size() > 12 && start_line[12] != ' ') return 0;
    int status = 0;
    for (char c : start_line.substr(9, 3)) {
        if (c < '0' || c > '9') return 0;
        status = status * 10 + (c - '0');
    }
    return status < 100 ? 0 : status;
}

/// Takes bytes of a server's reply, as `http_head::write` does, and passes over the interim ones before it, as "103
/// Early Hints" (RFC 9110 15.2). 101 is not one of them: it opens the WebSocket.
inline std::size_t write_reply(http_head& head, std::string_view bytes) {
    std::size_t used = head.write(bytes);
    while (head.complete() && head.error() == errc::ok) {
        int const status = status_of(head.start_line());
        if (status == 0 || status == 101 || status >= 200) break;
        head.begin_next();
        used += head.write(bytes.substr(used));
    }
    return used;
}

/// What a client accepts of a server's reply.
struct reply_policy {
    /// As in the request.
    std::string_view subprotocols{};
    /// Whether a server may choose none of the subprotocols.
    bool accept_no_subprotocol = false;
    /// Whether an extension was asked for. The caller then judges the one chosen.
    bool extensions_offered = false;
};

/// Judges a server's reply (4.1): `ok` if the WebSocket is open. What `is_refusal` knows stands for another status than
/// 101: see `status_of`, and the header Location.
inline errc judge(http_head const& reply, handshake_key const& key, reply_policy const& policy) noexcept {
    if (reply.error() != errc::ok) return reply.error();
    int const status = status_of(reply.start_line());
    if (status == 0) return errc::malformed_http;
    if (status >= 300 && status <= 399 && !reply.value("Location").empty()) return errc::redirected;
    if (status != 101) return errc_for_status(status);
    if (reply.start_line()[7] != '1') return errc::malformed_http;  // upgrading came with HTTP/1.1
    if (reply.count("Upgrade") != 1 || !equal_ignoring_case(reply.value("Upgrade"), "websocket"))
        return errc::missing_upgrade;
    if (!reply.has("Connection", "Upgrade")) return errc::missing_connection_upgrade;
    auto const expected = accept_value({key.data(), key.size()});
    if (reply.count("Sec-WebSocket-Accept") != 1 ||
        reply.value("Sec-WebSocket-Accept") != std::string_view(expected.data(), expected.size()))
        return errc::wrong_accept;
    if (reply.count("Sec-WebSocket-Extensions") > 1) return errc::unexpected_extension;
    if (!policy.extensions_offered && !reply.value("Sec-WebSocket-Extensions").empty())
        return errc::unexpected_extension;
    if (reply.count("Sec-WebSocket-Protocol") == 0)
        return policy.subprotocols.empty() || policy.accept_no_subprotocol ? errc::ok : errc::no_subprotocol;
    if (reply.count("Sec-WebSocket-Protocol") != 1) return errc::unexpected_subprotocol;
    std::string_view const chosen = reply.value("Sec-WebSocket-Protocol");
    for (std::string_view list = policy.subprotocols; !list.empty();)
        if (take_item(list) == chosen) return errc::ok;
    return errc::unexpected_subprotocol;
}

/// A client's request as the server sees it: views into the head.
class server_request {
  public:
    explicit server_request(http_head const& head) noexcept : head_(head) {}

    /// Whether the request asks for a WebSocket in the way of RFC 6455 4.2.1.
    errc check() const noexcept {
        if (head_.error() != errc::ok) return head_.error();
        std::string_view const line = head_.start_line();
        std::size_t const words = line.find(' ') + 1 + target().size();
        if (words >= line.size() || line.substr(words) != " HTTP/1.1") return errc::malformed_http;
        if (!line.starts_with("GET ")) return errc::not_a_get_request;
        if (!is_target(target())) return errc::invalid_target;
        if (head_.count("Host") != 1) return errc::missing_host;
        if (!head_.has("Upgrade", "websocket")) return errc::missing_upgrade;
        if (!head_.has("Connection", "Upgrade")) return errc::missing_connection_upgrade;
        if (head_.count("Sec-WebSocket-Version") != 1 || head_.value("Sec-WebSocket-Version") != "13")
            return errc::unsupported_version;
        return is_key(key()) && head_.count("Sec-WebSocket-Key") == 1 ? errc::ok : errc::invalid_key;
    }

    /// Path and query.
    std::string_view target() const noexcept {
        std::string_view line = head_.start_line();
        line.remove_prefix((std::min)(line.size(), line.find(' ') + 1));
        return line.substr(0, line.find(' '));
    }
    std::string_view host() const noexcept { return head_.value("Host"); }
    /// The origin of the page whose script asks, if a browser does; empty otherwise.
    std::string_view origin() const noexcept { return head_.value("Origin"); }
    std::string_view key() const noexcept { return head_.value("Sec-WebSocket-Key"); }
    /// The value of any header, the first of its name; empty if there is none.
    std::string_view value(std::string_view name) const noexcept { return head_.value(name); }

    /// The first of the client's subprotocols, in the order of its preference, that is in the list `supported`
    /// (separated by commas); empty if there is none.
    std::string_view choose_subprotocol(std::string_view supported) const noexcept {
        std::string_view chosen;
        head_.for_each("Sec-WebSocket-Protocol", [&](std::string_view offered) {
            while (!offered.empty()) {
                std::string_view const item = take_item(offered);
                if (item.empty()) continue;
                for (std::string_view list = supported; !list.empty();)
                    if (take_item(list) == item) return chosen = item, true;
            }
            return false;
        });
        return chosen;
    }

    http_head const& head() const noexcept { return head_; }

  private:
    static bool is_key(std::string_view key) noexcept {
        // 16 bytes: 22 digits, the last of which has four bits to spare. RFC 6455 4.1 has an example where those are
        // not zero, so they are not looked at.
        if (key.size() != 24 || !key.ends_with("==")) return false;
        for (char c : key.substr(0, 22))
            if (digest::base64_value(c) < 0) return false;
        return true;
    }

    http_head const& head_;
};

/// Appends a server's agreement to `out`: `subprotocol` and `extensions` (values of their headers) may be empty.
/// Returns `invalid_header` and writes nothing if one of `headers` must not be sent.
template <class Out>
errc encode_agreement(std::string_view key, std::string_view subprotocol, std::string_view extensions,
                      std::span<header const> headers, Out& out) {
    for (auto const& [name, value] : headers)
        if (!is_token(name) || is_handshake_header(name) || !is_field_value(value)) return errc::invalid_header;
    if (!subprotocol.empty() && !is_token(subprotocol)) return errc::invalid_subprotocol;
    auto const line = [&out](std::string_view name, std::string_view value) {
        for (std::string_view part : {name, std::string_view(": "), value, std::string_view("\r\n")}) out.append(part);
    };
    auto const accept = accept_value(key);
    out.append(std::string_view("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"));
    line("Sec-WebSocket-Accept", {accept.data(), accept.size()});
    if (!subprotocol.empty()) line("Sec-WebSocket-Protocol", subprotocol);
    if (!extensions.empty()) line("Sec-WebSocket-Extensions", extensions);
    for (auto const& [name, value] : headers) line(name, value);
    out.append(std::string_view("\r\n"));
    return errc::ok;
}

/// The status with which a server refuses a request because of `e` (4.2.2, 4.4): 403 for the origin, 426 for a version
/// that is not 13 and for a request without upgrade, 405 for another method than GET, 431 for too large a head, else
/// 400.
constexpr int refusal_status(errc e) noexcept {
    switch (e) {
        case errc::origin_refused: return 403;
        case errc::not_a_get_request: return 405;
        case errc::handshake_timeout: return 408;
        case errc::unsupported_version:
        case errc::missing_upgrade:
        case errc::missing_connection_upgrade: return 426;
        case errc::head_too_long:
        case errc::too_many_headers: return 431;
        default: return 400;
    }
}

/// The words beside a status (RFC 9110 15); "Refused" where a server is not expected to send it.
constexpr std::string_view reason_phrase(int status) noexcept {
    switch (status) {
        case 400: return "Bad Request";
        case 401: return "Unauthorized";
        case 403: return "Forbidden";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 408: return "Request Timeout";
        case 410: return "Gone";
        case 426: return "Upgrade Required";
        case 429: return "Too Many Requests";
        case 431: return "Request Header Fields Too Large";
        case 500: return "Internal Server Error";
        case 503: return "Service Unavailable";
        default: return "Refused";
    }
}

/// Appends a server's refusal because of `e` to `out`, with the reason as text.
template <class Out>
void encode_refusal(errc e, Out& out, int status = 0) {
    if (status == 0) status = refusal_status(e);
    std::string const body = std::string(describe(e)) + "\n";
    std::string reply = "HTTP/1.1 " + std::to_string(status) + " ";
    reply += reason_phrase(status);
    reply += "\r\nConnection: close\r\n";
    if (status == 405) reply += "Allow: GET\r\n";
    if (status == 426) reply += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    reply += "Content-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    out.append(std::string_view(reply));
}

}  // namespace runnel::websocket
