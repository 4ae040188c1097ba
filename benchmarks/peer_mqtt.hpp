#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

/// As much of MQTT, 3.1.1 and 5.0, as the other side of the session benchmarks needs.
namespace peer {

/// Acknowledges what a client sends.
class acknowledger {
  public:
    /// Handles all whole packets, and appends the answers to `out`; returns what is left.
    std::string_view handle(std::string_view input, std::string& out) {
        for (;;) {
            std::size_t length = 0, at = 1;
            for (unsigned shift = 0;; ++at, shift += 7) {
                if (at >= input.size()) return input;
                auto const byte = static_cast<unsigned char>(input[at]);
                length |= static_cast<std::size_t>(byte & 0x7F) << shift;
                if (byte < 0x80) break;
            }
            ++at;
            if (input.size() - at < length) return input;
            handle_packet(static_cast<unsigned char>(input[0]), input.substr(at, length), out);
            input.remove_prefix(at + length);
        }
    }

    std::chrono::seconds keep_alive() const noexcept { return keep_alive_; }
    /// Whether the client is to be sent messages, as fast as it takes them.
    bool floods() const noexcept { return floods_; }
    /// Whether the client has said that it goes, upon which a server ends the connection (MQTT-3.14.4-1).
    bool has_left() const noexcept { return has_left_; }

    /// Many whole PUBLISH packets of QoS 0, each handed to `append(packet)`.
    template <class Append>
    void flood(Append append) const {
        std::string const topic = std::string("\0\x20", 2) + "sensors/building-7/room-12/temp1";
        std::string const rest = (v5_ ? std::string(1, '\0') : std::string()) + std::string(64, 'x');
        std::string const packet = (v5_ ? "\x30\x63" : "\x30\x62") + topic + rest;
        for (int i = 0; i < 1000; ++i) append(std::string_view(packet));
    }

  private:
    void handle_packet(unsigned char first, std::string_view body, std::string& out) {
        auto const octet = [&](std::size_t i) { return static_cast<unsigned char>(body[i]); };
        std::string_view const none(v5_ ? "\0" : "", v5_ ? 1 : 0);  // no properties
        switch (first >> 4) {
            case 1:  // CONNECT
                v5_ = octet(6) == 5;
                keep_alive_ = std::chrono::seconds(octet(8) * 256 + octet(9));
                out.append(v5_ ? std::string_view("\x20\x03\0\0\0", 5) : std::string_view("\x20\x02\0\0", 4));
                break;
            case 3: {  // PUBLISH
                unsigned const qos = first >> 1 & 3;
                if (qos == 0) break;
                std::size_t const topic = octet(0) * 256u + octet(1);
                out.append(qos == 1 ? "\x40\x02" : "\x50\x02").append(body.substr(2 + topic, 2));
                break;
            }
            case 6: out.append("\x70\x02").append(body.substr(0, 2)); break;  // PUBREL
            case 8:                                                           // SUBSCRIBE
                out.append(v5_ ? "\x90\x04" : "\x90\x03").append(body.substr(0, 2)).append(none).append(1, '\0');
                if (body.find("sensors/") != std::string_view::npos) floods_ = true;
                break;
            case 10:  // UNSUBSCRIBE
                out.append(v5_ ? "\xB0\x04" : "\xB0\x02").append(body.substr(0, 2));
                if (v5_) out.append(2, '\0');
                break;
            case 12: out.append("\xD0\0", 2); break;  // PINGREQ
            case 14: has_left_ = true; break;         // DISCONNECT
            default: break;
        }
    }

    bool v5_ = false;
    bool floods_ = false;
    bool has_left_ = false;
    std::chrono::seconds keep_alive_{0};
};

}  // namespace peer
