#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/digest/base64.hpp>
#include <runnel/transport/proxy/error.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace runnel {

// HTTP CONNECT (RFC 9110 9.3.6) without I/O, for the client and for the proxy. Read generously: lines may end in LF
// alone (RFC 9112 2.2), and of the headers only those that matter are looked at.

/// The head of an HTTP message, gathered from pieces cut anywhere: a first line, headers, an empty line.
class connect_head {
  public:
    /// The longest head that is accepted, in bytes.
    static constexpr std::size_t max_size = 16 * 1024;

    /// Takes bytes up to the end of the head; returns how many. Fewer than `bytes.size()` only if the head is complete
    /// or too long.
    std::size_t write(std::string_view bytes) {
        std::size_t n = 0;
        for (; n < bytes.size() && !complete_ && !too_long(); ++n) {
            char const c = bytes[n];
            text_ += c;
            if (c == '\n') {
                complete_ = in_empty_line_;
                in_empty_line_ = true;
            } else if (c != '\r') {
                in_empty_line_ = false;
            }
        }
        return n;
    }

    bool complete() const noexcept { return complete_; }
    bool too_long() const noexcept { return !complete_ && text_.size() >= max_size; }
    std::size_t size() const noexcept { return text_.size(); }
    std::string_view text() const noexcept { return text_; }
    void clear() noexcept { *this = connect_head(); }

    /// The first line, as far as it has come.
    std::string_view first_line() const noexcept { return line_at(0); }

    /// The value of the first header of this name, whatever its case; empty if there is none.
    std::string_view value(std::string_view name) const noexcept {
        for (std::size_t at = text_.find('\n'); at != std::string::npos; at = text_.find('\n', at + 1)) {
            auto const line = line_at(at + 1);
            auto const colon = line.find(':');
            if (colon == name.size() && same(line.substr(0, colon), name)) {
                auto const value = line.substr(colon + 1);
                auto const begin = value.find_first_not_of(" \t");
                return begin == std::string_view::npos ? std::string_view() : value.substr(begin);
            }
        }
        return {};
    }

  private:
    std::string_view line_at(std::size_t begin) const noexcept {
        auto line = std::string_view(text_).substr(begin);
        line = line.substr(0, line.find('\n'));
        while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t'))
            line.remove_suffix(1);
        return line;
    }

    static bool same(std::string_view a, std::string_view b) noexcept {
        auto const lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
        for (std::size_t i = 0; i < a.size(); ++i)
            if (lower(a[i]) != lower(b[i])) return false;
        return a.size() == b.size();
    }

    std::string text_{};
    bool in_empty_line_ = false;  // since a line's end, nothing but CR has come
    bool complete_ = false;
};

/// The client's side: makes the request and reads the answer.
class http_connect_client {
  public:
    /// `host` is a name or an address (IPv6 without brackets). Credentials are sent at once, by the Basic scheme (RFC
    /// 7617), unless both are empty. If `error` is set already, the settings cannot be used.
    http_connect_client(std::string_view host, std::uint16_t port, std::string_view user_name,
                        std::string_view password)
        : has_credentials_(!user_name.empty() || !password.empty()) {
        if (host.empty() || host.size() > 255 || has_any_but_visible(host)) {
            error_ = proxy_errc::target_invalid;
        } else if (user_name.find(':') != std::string_view::npos || has_control(user_name) || has_control(password)) {
            error_ = proxy_errc::credentials_invalid;  // RFC 7617 2
        } else {
            auto const target = authority_of(host, port);
            request_ = "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n";
            if (has_credentials_) add_credentials(user_name, password);
            request_ += "\r\n";
        }
    }

    /// What is to be sent. It holds the password.
    std::string_view request() const noexcept { return request_; }

    /// Takes what the proxy has sent; returns how many bytes of it belong to the answer. Those behind it, if `done`,
    /// are the first of the tunnel.
    std::size_t receive(std::string_view bytes) {
        std::size_t taken = 0;
        while (taken < bytes.size() && !done_ && error_ == proxy_errc::ok) {
            std::size_t const n = head_.write(bytes.substr(taken));
            taken += n;
            received_ += n;
            check();
        }
        return taken;
    }

    /// Whether the tunnel is open.
    bool done() const noexcept { return done_; }
    /// Why it will not be.
    proxy_errc error() const noexcept { return error_; }
    /// The status of the answer: 200, 403, ...; 0 before one has come.
    int status() const noexcept { return status_; }
    /// The answer's reason phrase.
    std::string_view reason() const noexcept {
        auto const line = head_.first_line();
        return status_ == 0 || line.size() < 14 ? std::string_view() : line.substr(13);
    }
    /// What a proxy that wants credentials asks for: `Basic realm="..."`, `NTLM`, ...
    std::string_view challenge() const noexcept { return head_.value("Proxy-Authenticate"); }

  private:
    // Nothing grows once the password is in it: what it grows out of would not be wiped.
    void add_credentials(std::string_view user_name, std::string_view password) {
        secret_string pair;
        pair.reserve(user_name.size() + 1 + password.size());
        pair.append(user_name).append(1, ':').append(password);
        secret_string const code(digest::encode_base64(pair));
        request_.reserve(request_.size() + code.size() + 64);
        request_.append("Proxy-Authorization: Basic ").append(code).append("\r\n");
    }

    static bool has_any_but_visible(std::string_view text) noexcept {
        for (char c : text)
            if (c <= 0x20 || c >= 0x7F) return true;
        return false;
    }
    static bool has_control(std::string_view text) noexcept {
        for (char c : text)
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return true;
        return false;
    }

    void check() {
        // What is not HTTP is found at once, and its end not waited for.
        constexpr std::string_view begin = "HTTP/1.";
        auto const text = head_.text();
        if (text.substr(0, begin.size()) != begin.substr(0, text.size())) {
            error_ = proxy_errc::not_http;
        } else if (head_.too_long() || received_ > connect_head::max_size) {  // with all interim answers
            error_ = proxy_errc::head_too_long;
        } else if (head_.complete()) {
            check_status();
        }
    }

    void check_status() {
        auto const line = head_.first_line();  // "HTTP/1.1 200 Connection established"
        auto const digit = [&](std::size_t i) { return i < line.size() && line[i] >= '0' && line[i] <= '9'; };
        if (!digit(7) || line.size() < 12 || line[8] != ' ' || !digit(9) || !digit(10) || !digit(11) ||
            (line.size() > 12 && line[12] != ' ')) {
            error_ = proxy_errc::not_http;
            return;
        }
        int const status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
        if (status / 100 == 1 && status != 101) {  // an interim answer; the final one follows (RFC 9110 15.2)
            head_.clear();
            return;
        }
        status_ = status;
        if (status / 100 == 2)
            done_ = true;  // any Content-Length or Transfer-Encoding is to be ignored (RFC 9110 9.3.6)
        else if (status == 407)
            error_ = has_credentials_ ? proxy_errc::credentials_refused : proxy_errc::credentials_required;
        else if (status == 401 && has_credentials_)
            error_ = proxy_errc::credentials_refused;  // tinyproxy's answer to wrong ones
        else
            error_ = proxy_errc::refused;
    }

    secret_string request_{};
    connect_head head_{};
    std::size_t received_ = 0;
    int status_ = 0;
    proxy_errc error_ = proxy_errc::ok;
    bool has_credentials_;
    bool done_ = false;
};

/// The proxy's side: reads the request.
class http_connect_server {
  public:
    /// Takes what the client has sent; returns how many bytes of it belong to the request.
    std::size_t receive(std::string_view bytes) {
        if (done() || error_ != proxy_errc::ok) return 0;
        std::size_t const n = head_.write(bytes);
        if (head_.complete())
            read();
        else if (head_.too_long())
            error_ = proxy_errc::head_too_long;
        return n;
    }

    /// Whether the request has come as a whole and is in order.
    bool done() const noexcept { return head_.complete() && error_ == proxy_errc::ok; }
    proxy_errc error() const noexcept { return error_; }

    /// The target: a name or an address, IPv6 without brackets.
    std::string const& host() const noexcept { return host_; }
    std::uint16_t port() const noexcept { return port_; }
    /// "user:password" of the Basic scheme, if the client has sent that.
    std::optional<std::string> credentials() const {
        auto const value = head_.value("Proxy-Authorization");
        if (!value.starts_with("Basic ")) return std::nullopt;
        return digest::decode_base64(value.substr(6));
    }

    /// An answer without a body.
    static std::string answer(int status, std::string_view reason, std::string_view headers = {}) {
        std::string text = "HTTP/1.1 " + std::to_string(status) + ' ';
        text.append(reason).append("\r\n").append(headers);
        if (status != 200) text += "Content-Length: 0\r\n";
        return text + "\r\n";
    }

  private:
    void read() {
        auto line = head_.first_line();  // "CONNECT host:port HTTP/1.1"
        constexpr std::string_view method = "CONNECT ";
        auto const end = line.rfind(" HTTP/1.");
        error_ = proxy_errc::not_http;
        if (!line.starts_with(method) || end == std::string_view::npos || end <= method.size()) return;
        line = line.substr(method.size(), end - method.size());
        auto const colon = line.rfind(':');
        if (colon == std::string_view::npos || colon + 1 == line.size() || line.size() - colon > 6) return;
        unsigned port = 0;
        for (char c : line.substr(colon + 1)) {
            if (c < '0' || c > '9') return;
            port = port * 10 + static_cast<unsigned>(c - '0');
        }
        line = line.substr(0, colon);
        if (line.starts_with('[') && line.ends_with(']')) line = line.substr(1, line.size() - 2);
        if (line.empty() || port > 65535) return;
        host_ = line;
        port_ = static_cast<std::uint16_t>(port);
        error_ = proxy_errc::ok;
    }

    connect_head head_{};
    std::string host_{};
    std::uint16_t port_ = 0;
    proxy_errc error_ = proxy_errc::ok;
};

}  // namespace runnel
