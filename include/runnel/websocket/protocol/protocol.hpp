#pragma once

#include <runnel/core/random.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/core/to_size.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/websocket/error.hpp>
#include <runnel/websocket/protocol/frame.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace runnel::websocket {

/// Which end of the connection this is: a client masks what it sends, a server does not (RFC 6455 5.1).
enum class role : std::uint8_t { client, server };

/// What a message carries.
enum class message_kind : std::uint8_t { text = 1, binary = 2 };

/// What a connection accepts.
struct protocol_settings {
    role side = role::client;
    /// Whether text messages are accepted; MQTT allows binary ones only [MQTT-6.0.0-1].
    bool accept_text = true;
    /// Whether messages may be compressed: RSV1 on a message's first frame (RFC 7692 6).
    bool accept_compressed = false;
    /// The longest message accepted, in bytes as they cross the wire; 0: no limit.
    std::uint64_t max_message = 0;
    /// The longest frame accepted, in bytes; 0: no limit.
    std::uint64_t max_frame = 0;
};

/// The WebSocket protocol after the handshake (RFC 6455 5 to 7), without I/O: frames of what is sent, payload of what
/// has been received, answers to pings and close frames, and the faults of the peer.
///
/// Received bytes are fed in pieces cut anywhere; payload is unmasked in place and handed on as it comes, no message is
/// held. Answers to control frames and the close frame gather in `take_pending`'s buffer, which the driver writes.
class protocol {
  public:
    explicit protocol(protocol_settings settings) noexcept : settings_(settings) {}

    /// What `feed` found.
    struct progress {
        /// How many of the bytes have been used up: all of them, unless payload or an error was found before.
        std::size_t consumed = 0;
        /// Payload of the current message, unmasked.
        std::string_view payload{};
        /// Whether the message ends with this payload.
        bool message_end = false;
        /// The peer's violation of the protocol. Nothing more is to be fed; the close frame that says so is pending.
        errc error = errc::ok;
    };

    /// Takes received bytes up to the next piece of payload, which stays in place or, if `to` is given, is moved there
    /// (`to` may overlap the bytes if it is not behind them). After a close frame everything is dropped.
    progress feed(char* bytes, std::size_t size, char* to = nullptr) {
        progress result;
        char* at = bytes;
        char* const end = bytes + size;
        while (at != end && failure_ == errc::ok && !close_received_) {
            if (!in_frame_) {
                at = read_header(at, end);
                if (!in_frame_ || remaining_ != 0) continue;
            }
            if (is_control(frame_.op)) {
                at = read_control(at, end);
                continue;
            }
            std::size_t const n =
                static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, static_cast<std::uint64_t>(end - at)));
            char* const out = to != nullptr ? to : at;
            take_payload(out, at, n);
            at += n;
            if (failure_ != errc::ok) break;
            result.message_end = remaining_ == 0 && frame_.fin;
            if (remaining_ == 0) in_frame_ = false;
            if (result.message_end) message_open_ = false;
            if (n == 0 && !result.message_end) continue;
            result.payload = {out, n};
            break;
        }
        result.error = failure_;
        result.consumed = close_received_ ? size : static_cast<std::size_t>(at - bytes);
        return result;
    }

    /// Takes all of the received bytes and moves the payload in them, of any number of messages, to their front;
    /// returns the size of the payload. For those to whom the messages are a stream of bytes. See `failure`.
    std::size_t unframe(char* bytes, std::size_t size) {
        char* out = bytes;
        for (std::size_t used = 0; used < size;) {
            progress const found = feed(bytes + used, size - used, out);
            out += found.payload.size();
            used += found.consumed;
            if (found.error != errc::ok) break;
        }
        return static_cast<std::size_t>(out - bytes);
    }

    /// Lets messages be compressed from now on, as has been agreed on in the handshake.
    void accept_compressed() noexcept { settings_.accept_compressed = true; }

    /// Ends the connection because of what the layer above has found in a message: as if `feed` had found it.
    void reject(errc e) {
        if (failure_ == errc::ok) fail(e);
    }

    /// The peer's violation of the protocol, if there was one.
    errc failure() const noexcept { return failure_; }

    /// The kind of the message of which `feed` last gave payload, and whether it is compressed.
    message_kind kind() const noexcept { return kind_; }
    bool compressed() const noexcept { return compressed_; }
    /// Bytes of payload that the current frame still has to bring.
    std::uint64_t frame_remaining() const noexcept { return in_frame_ ? remaining_ : 0; }

    /// Makes the contents of `out` the payload of a frame: puts the header in front of it, and masks it if this is the
    /// client. `op` is `continuation` for all frames of a message but the first.
    void frame(send_buffer& out, opcode op, bool fin = true, bool rsv1 = false) const {
        frame_header header{.op = op, .fin = fin, .rsv1 = rsv1, .masked = false, .length = out.size(), .key = 0};
        if (settings_.side == role::client) {
            header.masked = true;
            header.key = random_32();  // fresh for every frame, from a source that nobody can predict (5.3)
            apply_mask(out.data(), out.size(), header.key);
        }
        encode(header, out.prepend(size_of(header)));
    }

    /// Appends a whole frame with `payload` to `out`.
    void append_frame(send_buffer& out, opcode op, std::string_view payload, bool fin = true, bool rsv1 = false) const {
        frame_header header{.op = op, .fin = fin, .rsv1 = rsv1, .masked = false, .length = payload.size(), .key = 0};
        if (settings_.side == role::client) {
            header.masked = true;
            header.key = random_32();
        }
        std::size_t const size = size_of(header) + payload.size();
        char* const at = encode(header, out.prepare(size));
        if (header.masked) {
            apply_mask(at, payload.data(), payload.size(), header.key);
        } else if (!payload.empty()) {
            std::memcpy(at, payload.data(), payload.size());
        }
        out.commit(size);
    }

    /// Makes a ping with `payload` (of which up to 125 bytes are sent) pending; nothing after a close frame.
    void ping(std::string_view payload = {}) {
        if (!close_sent_) append_frame(pending_, opcode::ping, payload.substr(0, max_control_payload));
    }

    /// Makes a close frame pending, unless there was one already. `reason` is cut to 123 bytes at the end of a
    /// character. Nothing may be sent after it. With `no_status` the close frame is empty.
    void close(close_code code = close_code::normal, std::string_view reason = {}) {
        if (close_sent_) return;
        close_sent_ = true;
        sent_code_ = code;
        char payload[max_control_payload];
        std::size_t size = 0;
        if (may_be_sent(code)) {
            size = (std::min)(reason.size(), max_close_reason);
            while (size > 0 && size < reason.size() && (static_cast<unsigned char>(reason[size]) & 0xC0) == 0x80)
                --size;
            write_big_endian(payload, static_cast<std::uint16_t>(code));
            if (size != 0) std::memcpy(payload + 2, reason.data(), size);
            size += 2;
        }
        append_frame(pending_, opcode::close, {payload, size});
    }

    /// Whether a close frame has been made pending, or sent. Nothing may be sent after it.
    bool close_sent() const noexcept { return close_sent_; }
    /// Whether the peer's close frame has come.
    bool close_received() const noexcept { return close_received_; }
    /// The code of the peer's close frame: `no_status` if it had none, `abnormal` if none has come.
    close_code received_code() const noexcept { return received_code_; }
    /// The code of our own close frame; `abnormal` if there was none.
    close_code sent_code() const noexcept { return sent_code_; }
    /// The reason in the peer's close frame; valid as long as this object.
    std::string_view received_reason() const noexcept {
        return close_received_ && control_size_ > 2 ? std::string_view(control_ + 2, control_size_ - 2u)
                                                    : std::string_view();
    }

    /// Whether frames are pending that the driver should write as soon as it is its turn.
    bool has_pending() const noexcept { return !pending_.empty(); }

    /// Moves the pending frames to `out`, which must be empty and whose memory is taken in exchange.
    void take_pending(send_buffer& out) noexcept { pending_.swap(out); }

  private:
    // So many bytes of pongs wait to be written. If a peer sends pings faster than it takes the answers, the newest
    // is answered (5.5.3).
    static constexpr std::size_t max_pending = 4096;

    void fail(errc e) {
        failure_ = e;
        close(close_code_for(e), describe(e));
    }

    char* read_header(char* at, char* end) {
        if (header_have_ == 0 && end - at >= 2 && static_cast<std::size_t>(end - at) >= header_size(at[1])) {
            char const* const header = at;
            at += header_size(at[1]);
            begin_frame(header);
            return at;
        }
        while (at != end && (header_have_ < 2 || header_have_ < header_size(header_[1])))
            header_[header_have_++] = *at++;
        if (header_have_ < 2) return at;
        if (header_have_ < header_size(header_[1])) {
            // Faults that the first two bytes show are reported now, whether or not the rest ever comes.
            frame_header start;
            if (errc const e = decode_start(header_[0], header_[1], start); e != errc::ok) fail(e);
            return at;
        }
        header_have_ = 0;
        begin_frame(header_);
        return at;
    }

    void begin_frame(char const* header) {
        errc e = decode(header, frame_);
        if (e == errc::ok) e = check_frame();
        if (e != errc::ok) return fail(e);
        in_frame_ = true;
        remaining_ = frame_.length;
        control_have_ = 0;
        if (is_control(frame_.op)) {
            if (remaining_ == 0) end_control();
            return;
        }
        if (frame_.op != opcode::continuation) begin_message();
        message_size_ += frame_.length;
    }

    errc check_frame() const noexcept {
        if (settings_.side == role::client && frame_.masked) return errc::masked_by_server;
        if (settings_.side == role::server && !frame_.masked) return errc::unmasked_by_client;
        if (is_control(frame_.op)) return errc::ok;
        bool const first = frame_.op != opcode::continuation;
        if (frame_.rsv1 && !(first && settings_.accept_compressed)) return errc::reserved_bits_set;
        if (first && message_open_) return errc::unfinished_message;
        if (!first && !message_open_) return errc::unexpected_continuation;
        if (frame_.op == opcode::text && !settings_.accept_text) return errc::text_not_accepted;
        if (settings_.max_frame != 0 && frame_.length > settings_.max_frame) return errc::frame_too_big;
        std::uint64_t const before = first ? 0 : message_size_;
        if (settings_.max_message != 0 && frame_.length > settings_.max_message - before) return errc::message_too_big;
        return errc::ok;
    }

    void begin_message() noexcept {
        message_open_ = true;
        message_size_ = 0;
        kind_ = static_cast<message_kind>(frame_.op);
        compressed_ = frame_.rsv1;
        utf8_ = {};
    }

    void take_payload(char* out, char const* in, std::size_t n) {
        if (frame_.masked) {
            apply_mask(out, in, n, frame_.key);
            frame_.key = rotate_mask(frame_.key, n);
        } else if (out != in && n != 0) {
            std::memmove(out, in, n);
        }
        remaining_ -= n;
        if (kind_ != message_kind::text || compressed_) return;
        // Text is checked as it comes, so that the first wrong byte ends the connection (8.1).
        bool const last = remaining_ == 0 && frame_.fin;
        if (!utf8_.write({out, n}) || (last && !utf8_.complete())) fail(errc::invalid_utf8);
    }

    char* read_control(char* at, char* end) {
        auto const n = (std::min)(to_size(remaining_), static_cast<std::size_t>(end - at));
        char* const to = control_ + control_have_;
        if (frame_.masked) {
            apply_mask(to, at, n, frame_.key);
            frame_.key = rotate_mask(frame_.key, n);
        } else {
            std::memcpy(to, at, n);
        }
        control_have_ = static_cast<std::uint8_t>(control_have_ + n);
        remaining_ -= n;
        if (remaining_ == 0) end_control();
        return at + n;
    }

    void end_control() {
        in_frame_ = false;
        control_size_ = control_have_;
        if (frame_.op == opcode::ping && !close_sent_) {
            if (pending_.size() + max_frame_header + control_size_ > max_pending) pending_.clear();
            append_frame(pending_, opcode::pong, {control_, control_size_});
        }
        if (frame_.op == opcode::close) end_close();
    }

    void end_close() {
        if (control_size_ == 1) return fail(errc::close_payload_too_short);
        close_code code = close_code::no_status;
        if (control_size_ != 0) {
            code = static_cast<close_code>(read_big_endian<std::uint16_t>(control_));
            if (!may_be_sent(code)) return fail(errc::invalid_close_code);
            if (!is_utf8({control_ + 2, control_size_ - 2u})) return fail(errc::invalid_utf8);
        }
        close_received_ = true;
        received_code_ = code;
        close(code);  // the same code back (5.5.1)
    }

    protocol_settings settings_;
    frame_header frame_{};
    std::uint64_t remaining_ = 0;     // of the frame's payload
    std::uint64_t message_size_ = 0;  // of the message's frames so far, this one included
    send_buffer pending_{};
    utf8_validator utf8_{};
    errc failure_ = errc::ok;
    close_code received_code_ = close_code::abnormal;
    close_code sent_code_ = close_code::abnormal;
    message_kind kind_ = message_kind::binary;
    bool in_frame_ = false;
    bool message_open_ = false;
    bool compressed_ = false;
    bool close_sent_ = false;
    bool close_received_ = false;
    std::uint8_t header_have_ = 0;
    std::uint8_t control_have_ = 0;
    std::uint8_t control_size_ = 0;
    char header_[max_frame_header];
    char control_[max_control_payload];
};

}  // namespace runnel::websocket
