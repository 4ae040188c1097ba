#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/transport/proxy/error.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace runnel {

// SOCKS version 5 (RFC 1928) with user name and password (RFC 1929), without I/O, for the client and for the proxy.

/// The four bytes of an IPv4 address in decimal notation; nothing if it is not one.
constexpr std::optional<std::array<char, 4>> parse_ipv4(std::string_view text) noexcept {
    std::array<char, 4> bytes{};
    for (std::size_t i = 0; i < 4; ++i) {
        auto const part = text.substr(0, text.find('.'));
        if (part.empty() || part.size() > 3 || (part.size() > 1 && part[0] == '0')) return std::nullopt;
        unsigned value = 0;
        for (char c : part) {
            if (c < '0' || c > '9') return std::nullopt;
            value = value * 10 + static_cast<unsigned>(c - '0');
        }
        if (value > 255) return std::nullopt;
        bytes[i] = static_cast<char>(static_cast<unsigned char>(value));
        text.remove_prefix(part.size());
        if ((i < 3) != text.starts_with('.')) return std::nullopt;
        if (i < 3) text.remove_prefix(1);
    }
    return text.empty() ? std::optional(bytes) : std::nullopt;
}

/// The sixteen bytes of an IPv6 address (RFC 4291 2.2) without brackets and zone; nothing if it is not one.
constexpr std::optional<std::array<char, 16>> parse_ipv6(std::string_view text) noexcept {
    std::array<char, 16> bytes{};
    std::size_t size = 0;
    std::size_t gap = 17;  // where "::" stands; 17: nowhere
    if (text.starts_with("::")) {
        gap = 0;
        text.remove_prefix(2);
    }
    while (!text.empty()) {
        auto const part = text.substr(0, text.find(':'));
        text.remove_prefix(part.size());
        if (part.find('.') != std::string_view::npos) {  // the last four bytes as an IPv4 address
            auto const v4 = parse_ipv4(part);
            if (!v4 || !text.empty() || size > 12) return std::nullopt;
            for (char c : *v4) bytes[size++] = c;
            break;
        }
        if (part.empty() || part.size() > 4 || size > 14) return std::nullopt;
        unsigned value = 0;
        for (char c : part) {
            unsigned const digit = c >= '0' && c <= '9'   ? static_cast<unsigned>(c - '0')
                                   : c >= 'a' && c <= 'f' ? static_cast<unsigned>(c - 'a') + 10
                                   : c >= 'A' && c <= 'F' ? static_cast<unsigned>(c - 'A') + 10
                                                          : 16;
            if (digit == 16) return std::nullopt;
            value = value * 16 + digit;
        }
        bytes[size++] = static_cast<char>(static_cast<unsigned char>(value >> 8));
        bytes[size++] = static_cast<char>(static_cast<unsigned char>(value & 255));
        if (text.starts_with("::")) {
            if (gap != 17) return std::nullopt;
            gap = size;
            text.remove_prefix(2);
        } else if (text.starts_with(':')) {
            text.remove_prefix(1);
            if (text.empty()) return std::nullopt;
        }
    }
    if (gap == 17) return size == 16 ? std::optional(bytes) : std::nullopt;
    if (size > 14) return std::nullopt;
    for (std::size_t i = size; i-- > gap;) std::swap(bytes[i], bytes[16 - size + i]);
    return bytes;
}

/// Types of addresses in SOCKS5.
enum class socks5_address : std::uint8_t { ipv4 = 1, name = 3, ipv6 = 4 };

/// The client's side: what to send, how much to read, and what came of it.
class socks5_client {
  public:
    /// `host` goes to the proxy as it is: a name is resolved there. Credentials are offered unless both are empty. If
    /// `error` is set already, the settings cannot be used.
    socks5_client(std::string_view host, std::uint16_t port, std::string_view user_name, std::string_view password)
        : has_credentials_(!user_name.empty() || !password.empty()) {
        if (!may_be_host(host) || host.size() > 255) {
            error_ = proxy_errc::target_invalid;
        } else if (has_credentials_ && (user_name.empty() || user_name.size() > 255 || password.size() > 255)) {
            error_ = proxy_errc::credentials_invalid;  // RFC 1929 2
        } else {
            make_request(host, port);
            if (has_credentials_) {
                credentials_.reserve(3 + user_name.size() + password.size());  // it does not grow out of anything
                (credentials_ += '\1') += byte(user_name.size());
                (credentials_.append(user_name) += byte(password.size())).append(password);
            }
            using namespace std::string_literals;
            output_ = has_credentials_ ? "\5\2\0\2"s : "\5\1\0"s;
            wanted_ = 2;
        }
    }

    /// Takes what is to be sent now; empty: nothing.
    secret_string take_output() { return std::exchange(output_, {}); }

    /// How many bytes are to be read and given to `receive`, exactly, once all output has been sent. So no byte of the
    /// tunnel is read by accident. 0: `done`, or there is an `error`.
    std::size_t wanted() const noexcept { return error_ == proxy_errc::ok ? wanted_ - input_.size() : 0; }

    /// Takes at most `wanted` bytes; returns how many.
    std::size_t receive(std::string_view bytes) {
        std::size_t const n = (std::min)(bytes.size(), wanted());
        input_.append(bytes.substr(0, n));
        if (n != 0 && input_.size() == wanted_) advance();
        return n;
    }

    /// Whether the tunnel is open.
    bool done() const noexcept { return step_ == step::tunnel; }
    /// Why it will not be.
    proxy_errc error() const noexcept { return error_; }
    /// The reply's code, for `proxy_errc::unknown_reply`.
    int reply() const noexcept { return reply_; }

  private:
    enum class step { method, verdict, reply, address, rest, tunnel };

    static char byte(std::size_t n) noexcept { return static_cast<char>(static_cast<unsigned char>(n)); }

    void make_request(std::string_view host, std::uint16_t port) {
        request_.assign("\5\1\0", 3);  // CONNECT
        if (auto const v4 = parse_ipv4(host))
            (request_ += byte(static_cast<std::size_t>(socks5_address::ipv4))).append(v4->data(), v4->size());
        else if (auto const v6 = parse_ipv6(host))
            (request_ += byte(static_cast<std::size_t>(socks5_address::ipv6))).append(v6->data(), v6->size());
        else
            ((request_ += byte(static_cast<std::size_t>(socks5_address::name))) += byte(host.size())).append(host);
        (request_ += byte(port >> 8U)) += byte(port & 255U);
    }

    void advance() {
        auto const in = [&](std::size_t i) { return static_cast<unsigned char>(input_[i]); };
        switch (step_) {
            case step::method:
                if (in(0) != 5) return fail(proxy_errc::not_socks5);
                return chosen(in(1));
            case step::verdict:
                if (in(1) != 0) return fail(proxy_errc::credentials_refused);
                return go_on(step::reply, 2, std::exchange(request_, {}));
            case step::reply:
                if (in(0) != 5) return fail(proxy_errc::not_socks5);
                reply_ = in(1);
                if (reply_ != 0) return fail(error_of(reply_));  // some proxies send no more than this
                return go_on(step::address, 3);
            case step::address: {
                auto const type = static_cast<socks5_address>(in(1));
                if (type == socks5_address::ipv4) return go_on(step::rest, 3 + 2);
                if (type == socks5_address::ipv6) return go_on(step::rest, 15 + 2);
                if (type == socks5_address::name) return go_on(step::rest, in(2) + 2U);
                return fail(proxy_errc::not_socks5);
            }
            case step::rest:
            case step::tunnel: return go_on(step::tunnel, 0);
        }
    }

    void chosen(unsigned method) {
        if (method == 0) return go_on(step::reply, 2, std::exchange(request_, {}));
        if (method == 2 && has_credentials_) return go_on(step::verdict, 2, std::exchange(credentials_, {}));
        if (method != 255) return fail(proxy_errc::not_socks5);  // not one of those offered
        fail(has_credentials_ ? proxy_errc::no_common_method : proxy_errc::credentials_required);
    }

    void go_on(step next, std::size_t wanted, secret_string output = {}) {
        step_ = next;
        wanted_ = wanted;
        output_ = std::move(output);
        input_.clear();
    }

    void fail(proxy_errc e) noexcept { error_ = e; }

    // RFC 1928 6.
    static constexpr proxy_errc error_of(int reply) noexcept {
        if (reply > 8) return proxy_errc::unknown_reply;
        return static_cast<proxy_errc>(static_cast<int>(proxy_errc::general_failure) + reply - 1);
    }

    secret_string output_{};
    secret_string request_{};
    secret_string credentials_{};
    std::string input_{};
    std::size_t wanted_ = 0;
    step step_ = step::method;
    proxy_errc error_ = proxy_errc::ok;
    int reply_ = 0;
    bool has_credentials_;
};

/// The proxy's side. It asks for credentials or does not; whoever drives it judges them, connects, and replies.
class socks5_server {
  public:
    explicit socks5_server(bool wants_credentials) noexcept : wants_credentials_(wants_credentials) {}

    /// What the client has come to.
    enum class event { needs_input, credentials, request, failed };

    /// Takes what the client has sent, and says how many bytes were used. After `credentials`, call `judge`; after
    /// `request`, `reply`. After `failed`, what is left of the output is to be sent, and the connection closed.
    event receive(std::string_view bytes, std::size_t& used) {
        used = 0;
        while (used < bytes.size()) {
            input_ += bytes[used++];
            if (auto const e = advance(); e != event::needs_input) return e;
        }
        return event::needs_input;
    }

    /// Accepts or refuses the credentials.
    void judge(bool accepted) {
        output_ += {'\1', accepted ? '\0' : '\1'};
        step_ = step::request;
    }

    /// Answers the request: 0 for "connected", or one of the codes of RFC 1928 6.
    void reply(std::uint8_t code) {
        output_ += {'\5', static_cast<char>(code), '\0', '\1', '\0', '\0', '\0', '\0', '\0', '\0'};
    }

    /// Takes what is to be sent now; empty: nothing.
    std::string take_output() { return std::exchange(output_, {}); }

    std::string const& user_name() const noexcept { return user_name_; }
    std::string const& password() const noexcept { return password_; }
    /// The target's type of address, its name or the bytes of its address, and its port.
    socks5_address type() const noexcept { return type_; }
    std::string const& host() const noexcept { return host_; }
    std::uint16_t port() const noexcept { return port_; }

  private:
    enum class step { greeting, credentials, request };

    // Looks whether what has come so far is complete.
    event advance() {
        std::size_t const n = input_.size();
        auto const at = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(input_[i])); };
        if (at(0) != (step_ == step::credentials ? 1U : 5U)) return event::failed;
        switch (step_) {
            case step::greeting:
                if (n < 2 || n < 2 + at(1)) return event::needs_input;
                return choose(input_.substr(2));
            case step::credentials: {
                if (n < 2 || n < 3 + at(1) || n < 3 + at(1) + at(2 + at(1))) return event::needs_input;
                user_name_ = input_.substr(2, at(1));
                password_ = input_.substr(3 + at(1));
                input_.clear();
                return event::credentials;
            }
            case step::request: return read_request(n, at);
        }
        return event::failed;
    }

    event choose(std::string const& methods) {
        char const method = wants_credentials_ ? '\2' : '\0';
        bool const offered = methods.find(method) != std::string::npos;
        output_ += {'\5', offered ? method : '\xff'};
        step_ = wants_credentials_ ? step::credentials : step::request;
        input_.clear();
        return offered ? event::needs_input : event::failed;
    }

    template <class At>
    event read_request(std::size_t n, At at) {
        if (n < 5) return event::needs_input;
        type_ = static_cast<socks5_address>(at(3));
        std::size_t const begin = type_ == socks5_address::name ? 5 : 4;
        std::size_t const size = type_ == socks5_address::name ? at(4) : type_ == socks5_address::ipv4 ? 4 : 16;
        if (at(1) != 1 || (begin == 4 && type_ != socks5_address::ipv4 && type_ != socks5_address::ipv6)) {
            reply(at(1) != 1 ? 7 : 8);
            return event::failed;
        }
        if (n < begin + size + 2) return event::needs_input;
        host_ = input_.substr(begin, size);
        port_ = static_cast<std::uint16_t>(at(begin + size) << 8U | at(begin + size + 1));
        input_.clear();
        return event::request;
    }

    bool wants_credentials_;
    step step_ = step::greeting;
    std::string input_{};
    std::string output_{};
    std::string user_name_{};
    std::string password_{};
    socks5_address type_ = socks5_address::name;
    std::string host_{};
    std::uint16_t port_ = 0;
};

}  // namespace runnel
