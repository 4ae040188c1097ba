#pragma once

#include <runnel/websocket/protocol/handshake.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

/// As much of WebSocket (RFC 6455) as the other side of the session benchmarks needs: it answers any request, and takes
/// a client's binary messages for the bytes that they carry.
namespace peer {

/// The answer to a whole request; nothing if it has no key.
inline std::string answer_upgrade(std::string_view request) {
    std::string lower(request);
    std::ranges::transform(lower, lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
    constexpr std::string_view name = "sec-websocket-key: ";
    auto const at = lower.find(name);
    if (at == std::string::npos) return {};
    auto const accept = runnel::websocket::accept_value(request.substr(at + name.size(), 24));
    std::string answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    answer.append("Sec-WebSocket-Accept: ").append(accept.data(), accept.size()).append("\r\n");
    if (lower.find("sec-websocket-protocol:") != std::string::npos) answer += "Sec-WebSocket-Protocol: mqtt\r\n";
    return answer + "\r\n";
}

/// One unmasked binary frame.
inline void append_frame(std::string& out, std::string_view payload) {
    out += '\x82';
    if (payload.size() < 126) {
        out += static_cast<char>(payload.size());
    } else {
        out += '\x7E';  // what is sent here is shorter than 64 KiB
        out += static_cast<char>(payload.size() >> 8);
        out += static_cast<char>(payload.size());
    }
    out += payload;
}

/// Takes a client's frames apart.
class unframer {
  public:
    /// Moves the payload in these bytes, unmasked, to their beginning; returns its length.
    std::size_t unframe(char* bytes, std::size_t size) {
        std::size_t to = 0;
        for (std::size_t at = 0; at < size;) {
            if (left_ == 0) {
                at += take_header(bytes + at, size - at);
                continue;
            }
            auto const n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, size - at));
            if (data_) {
                unmask(bytes + to, bytes + at, n);
                to += n;
            }
            at += n;
            left_ -= n;
        }
        return to;
    }

    /// Whether a close frame has come.
    bool closed() const noexcept { return closed_; }

  private:
    // Returns how many of the bytes belong to the header, which may be cut anywhere.
    std::size_t take_header(char const* bytes, std::size_t size) {
        std::size_t taken = 0;
        while (taken < size && (have_ < 2 || have_ < length())) header_[have_++] = bytes[taken++];
        if (have_ < 2 || have_ < length()) return taken;
        auto const octet = [this](std::size_t i) { return std::uint64_t{static_cast<unsigned char>(header_[i])}; };
        left_ = octet(1) & 0x7F;
        if (left_ >= 126) {
            std::uint64_t extended = 0;
            for (std::size_t i = 2; i < length() - 4; ++i) extended = extended << 8 | octet(i);
            left_ = extended;
        }
        std::memcpy(&key_, header_.data() + length() - 4, 4);
        auto const opcode = octet(0) & 0xF;
        data_ = opcode < 8;
        closed_ = closed_ || opcode == 8;
        have_ = 0;
        return taken;
    }

    // Of the header, by its second byte.
    std::size_t length() const noexcept {
        auto const short_length = header_[1] & 0x7F;
        return short_length == 127 ? 14 : short_length == 126 ? 8 : 6;
    }

    void unmask(char* to, char const* from, std::size_t size) {
        std::uint64_t const key = std::uint64_t{key_} << 32 | key_;
        std::size_t i = 0;
        for (; i + 8 <= size; i += 8) {
            std::uint64_t word;
            std::memcpy(&word, from + i, 8);
            word ^= key;
            std::memcpy(to + i, &word, 8);
        }
        for (; i < size; ++i) to[i] = static_cast<char>(from[i] ^ static_cast<char>(key >> 8 * (i % 8)));
        key_ = std::rotr(key_, static_cast<int>(8 * (size % 4)));  // where the payload goes on
    }

    std::array<char, 14> header_{};
    std::size_t have_ = 0;
    std::uint64_t left_ = 0;  // bytes of payload still to come
    std::uint32_t key_ = 0;
    bool data_ = false;
    bool closed_ = false;
};

}  // namespace peer
