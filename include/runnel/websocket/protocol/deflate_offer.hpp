#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/websocket/protocol/http_head.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace runnel::websocket {

/// How messages are to be compressed (RFC 7692 7.1). The words client and server are those of the connection, whichever
/// side this is.
struct deflate_options {
    /// zlib's level, 1 (fast) to 9 (small).
    int level = 6;
    /// zlib's memory level, 1 to 9.
    int memory_level = 8;
    /// Base-2 logarithm of the windows, 8 to 15: what each side keeps of the messages before. 15 leaves it to the peer.
    int client_window_bits = 15;
    int server_window_bits = 15;
    /// Whether each message of a side is compressed by itself: less memory, larger messages.
    bool client_no_context_takeover = false;
    bool server_no_context_takeover = false;
    /// The most that a message may be inflated to, in bytes, 1 or more, where the stream has no limit of its own.
    std::uint64_t max_inflated = 16 * 1024 * 1024;

    friend constexpr bool operator==(deflate_options const&, deflate_options const&) = default;
};

/// Throws `std::out_of_range`, with the range in its text, if the options are not possible.
RUNNEL_COLD inline void check(deflate_options const& o) {
    auto const in_range = [](int value, int least, int most) { return value >= least && value <= most; };
    if (!in_range(o.level, 1, 9)) RUNNEL_THROW(std::out_of_range("level of permessage-deflate must be 1 to 9"));
    if (!in_range(o.memory_level, 1, 9))
        RUNNEL_THROW(std::out_of_range("memory_level of permessage-deflate must be 1 to 9"));
    if (!in_range(o.client_window_bits, 8, 15) || !in_range(o.server_window_bits, 8, 15))
        RUNNEL_THROW(
            std::out_of_range("client_window_bits and server_window_bits of permessage-deflate must be 8 to 15"));
    if (o.max_inflated == 0) RUNNEL_THROW(std::out_of_range("max_inflated of permessage-deflate must be 1 or more"));
}

/// What client and server have agreed on.
struct deflate_agreement {
    int client_window_bits = 15;
    int server_window_bits = 15;
    bool client_no_context_takeover = false;
    bool server_no_context_takeover = false;
};

/// The parameters of one permessage-deflate in a header, as written.
struct deflate_parameters {
    bool client_no_context_takeover = false;
    bool server_no_context_takeover = false;
    bool has_client_window_bits = false;
    bool has_server_window_bits = false;
    int client_window_bits = 0;  // 0: without a value
    int server_window_bits = 0;

    /// Reads "permessage-deflate; ..."; false if it is another extension, or a parameter is unknown, repeated or has a
    /// value that it must not have (7.1).
    static bool read(std::string_view text, deflate_parameters& out) noexcept {
        out = {};
        if (!equal_ignoring_case(take_parameter(text), "permessage-deflate")) return false;
        while (!text.empty())
            if (!out.read_parameter(take_parameter(text))) return false;
        return true;
    }

  private:
    static std::string_view take_parameter(std::string_view& text) noexcept {
        std::size_t const end = text.find(';');
        std::string_view const parameter = trim(text.substr(0, end));
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        return parameter;
    }

    bool read_parameter(std::string_view parameter) noexcept {
        std::size_t const equals = parameter.find('=');
        bool const has_value = equals != std::string_view::npos;
        std::string_view const name = trim(parameter.substr(0, equals));
        std::string_view value = has_value ? trim(parameter.substr(equals + 1)) : std::string_view();
        if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
        if (name == "client_no_context_takeover") return set(client_no_context_takeover) && !has_value;
        if (name == "server_no_context_takeover") return set(server_no_context_takeover) && !has_value;
        if (name == "client_max_window_bits")
            return set(has_client_window_bits) && (!has_value || read_bits(value, client_window_bits));
        if (name == "server_max_window_bits")
            return set(has_server_window_bits) && has_value && read_bits(value, server_window_bits);
        return false;
    }

    static bool set(bool& flag) noexcept {
        bool const repeated = flag;
        flag = true;
        return !repeated;
    }

    static bool read_bits(std::string_view value, int& out) noexcept {
        if (value.empty() || value.size() > 2 || value[0] == '0') return false;
        for (char c : value) {
            if (c < '0' || c > '9') return false;
            out = out * 10 + (c - '0');
        }
        return out >= 8 && out <= 15;
    }
};

/// What a client offers: the value of Sec-WebSocket-Extensions.
inline std::string offer_deflate(deflate_options const& wanted) {
    std::string text = "permessage-deflate; client_max_window_bits";
    if (wanted.client_window_bits < 15) text += "=" + std::to_string(wanted.client_window_bits);
    if (wanted.server_window_bits < 15) text += "; server_max_window_bits=" + std::to_string(wanted.server_window_bits);
    if (wanted.client_no_context_takeover) text += "; client_no_context_takeover";
    if (wanted.server_no_context_takeover) text += "; server_no_context_takeover";
    return text;
}

/// What a server chooses of a client's offers: the first that it can fulfil, as the value of its own header; empty if
/// there is none, and messages are not compressed then.
inline std::string choose_deflate(http_head const& request, deflate_options const& wanted) {
    std::string chosen;
    request.for_each("Sec-WebSocket-Extensions", [&](std::string_view list) {
        while (chosen.empty() && !list.empty()) {
            deflate_parameters offered;
            if (!deflate_parameters::read(take_item(list), offered)) continue;
            chosen = "permessage-deflate";
            if (offered.server_no_context_takeover || wanted.server_no_context_takeover)
                chosen += "; server_no_context_takeover";
            if (offered.client_no_context_takeover || wanted.client_no_context_takeover)
                chosen += "; client_no_context_takeover";
            int server_bits = wanted.server_window_bits;
            if (offered.has_server_window_bits) server_bits = (std::min)(server_bits, offered.server_window_bits);
            if (server_bits < 15 || offered.has_server_window_bits)
                chosen += "; server_max_window_bits=" + std::to_string(server_bits);
            // The client's window can be limited only if it has said that it understands that (7.1.2.2).
            int client_bits = wanted.client_window_bits;
            if (offered.client_window_bits != 0) client_bits = (std::min)(client_bits, offered.client_window_bits);
            if (offered.has_client_window_bits && client_bits < 15)
                chosen += "; client_max_window_bits=" + std::to_string(client_bits);
        }
        return !chosen.empty();
    });
    return chosen;
}

/// Reads a server's choice, on both sides. `unexpected_extension` if it is not an answer to what `wanted` offers.
inline errc read_deflate_reply(std::string_view reply, deflate_options const& wanted, deflate_agreement& out) noexcept {
    deflate_parameters chosen;
    if (!deflate_parameters::read(reply, chosen)) return errc::unexpected_extension;
    out.client_no_context_takeover = chosen.client_no_context_takeover;
    out.server_no_context_takeover = chosen.server_no_context_takeover;
    if (chosen.has_client_window_bits) {
        if (chosen.client_window_bits == 0) return errc::unexpected_extension;
        out.client_window_bits = chosen.client_window_bits;
    }
    if (chosen.has_server_window_bits) out.server_window_bits = chosen.server_window_bits;
    if (wanted.server_no_context_takeover && !out.server_no_context_takeover) return errc::unexpected_extension;
    if (out.server_window_bits > wanted.server_window_bits) return errc::unexpected_extension;
    return errc::ok;
}

}  // namespace runnel::websocket
