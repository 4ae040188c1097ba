#pragma once

#include <runnel/core/saturating.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/websocket/protocol/deflate_offer.hpp>
#include <runnel/websocket/protocol/protocol.hpp>

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <string_view>

namespace runnel::websocket {

/// Compression of messages (permessage-deflate, RFC 7692) by zlib, for one connection: the second template argument of
/// `stream` and `over`. Used if both sides want it; memory for it is taken then (up to about 300 KiB with the largest
/// windows).
class permessage_deflate {
  public:
    static constexpr bool enabled = true;
    using options = deflate_options;

    permessage_deflate() = default;
    permessage_deflate(permessage_deflate const&) = delete;
    permessage_deflate& operator=(permessage_deflate const&) = delete;
    ~permessage_deflate() {
        if (deflating_) ::deflateEnd(&out_);
        if (inflating_) ::inflateEnd(&in_);
    }

    /// What a client offers, and what a server chooses of that: values of Sec-WebSocket-Extensions.
    static std::string offer(options const& wanted) { return offer_deflate(wanted); }
    static std::string choose(http_head const& request, options const& wanted) {
        return choose_deflate(request, wanted);
    }

    /// Gets ready to work as agreed on in the server's reply. `max_message` limits what one message may be inflated to,
    /// in bytes; 0: `options::max_inflated` does. Throws `std::bad_alloc`.
    errc settle(role side, std::string_view reply, options const& wanted, std::uint64_t max_message) {
        deflate_agreement agreed;
        if (errc const e = read_deflate_reply(reply, wanted, agreed); e != errc::ok) return e;
        bool const client = side == role::client;
        // A client may use a smaller window than the server allows (RFC 7692 7.1.2.2).
        int const own_bits =
            client ? (std::min)(agreed.client_window_bits, wanted.client_window_bits) : agreed.server_window_bits;
        int const peer_bits = client ? agreed.server_window_bits : agreed.client_window_bits;
        forget_own_ = client ? agreed.client_no_context_takeover : agreed.server_no_context_takeover;
        forget_peers_ = client ? agreed.server_no_context_takeover : agreed.client_no_context_takeover;
        max_inflated_ = static_cast<std::size_t>(std::min<std::uint64_t>(
            max_message != 0 ? max_message : wanted.max_inflated, (std::numeric_limits<std::size_t>::max)()));
        // zlib cannot deflate with a window of 2^8. Stored blocks refer to nothing before them: right with any window.
        int const level = own_bits == 8 ? 0 : wanted.level;
        if (::deflateInit2(&out_, level, Z_DEFLATED, -(std::max)(own_bits, 9), wanted.memory_level,
                           Z_DEFAULT_STRATEGY) != Z_OK)
            throw std::bad_alloc();
        deflating_ = true;
        if (::inflateInit2(&in_, -peer_bits) != Z_OK) throw std::bad_alloc();
        inflating_ = true;
        return errc::ok;
    }

    /// The payload of the compressed message with `data` (7.2.1). Valid until the next call. Throws `std::bad_alloc`;
    /// the next message can be compressed then, as if this one had not been.
    std::string_view deflate(std::string_view data) {
        try {
            return deflate_all(data);
        } catch (...) {
            ::deflateReset(&out_);  // the peer has not got what this side's window holds
            throw;
        }
    }

    /// Inflates the next piece of a message's compressed payload (7.2.2), cut anywhere; `last` if the message ends with
    /// it. What comes is looked at at once: text that is not UTF-8 (`invalid_utf8`), more than is allowed
    /// (`message_too_big`), and data that is not deflated (`invalid_compressed_data`). After an error nothing more can
    /// be inflated.
    errc inflate(std::string_view piece, message_kind kind, bool last) {
        if (!message_begun_) {
            reuse(inflated_);
            utf8_ = {};
            message_begun_ = true;
        }
        std::size_t const before = inflated_.size();
        errc e = inflate_piece(piece);
        if (e == errc::ok && last) e = inflate_piece({"\0\0\xFF\xFF", 4});
        if (e != errc::ok && e != errc::message_too_big) return e;
        if (kind == message_kind::text && !utf8_.write(inflated_.view().substr(before))) return errc::invalid_utf8;
        if (e != errc::ok || !last) return e;
        if (kind == message_kind::text && !utf8_.complete()) return errc::invalid_utf8;
        message_begun_ = false;
        if (forget_peers_) ::inflateReset(&in_);
        return errc::ok;
    }

    /// What has been inflated of the message so far; valid until `inflate` is called again.
    std::string_view inflated() const noexcept { return inflated_.view(); }

  private:
    static constexpr std::size_t max_piece = 1 << 30;

    static Bytef* bytes(char const* text) noexcept { return reinterpret_cast<Bytef*>(const_cast<char*>(text)); }

    std::string_view deflate_all(std::string_view data) {
        reuse(deflated_);
        if (data.empty()) {
            deflated_.append({"\0", 1});  // an empty block without its last four bytes (7.2.3.6)
            return deflated_.view();
        }
        while (!data.empty()) {
            std::size_t const piece = (std::min)(data.size(), max_piece);
            out_.next_in = bytes(data.data());
            out_.avail_in = static_cast<uInt>(piece);
            data.remove_prefix(piece);
            int const flush = data.empty() ? Z_SYNC_FLUSH : Z_NO_FLUSH;
            do {
                std::size_t const room = std::max<std::size_t>(piece / 2, 256);
                out_.next_out = reinterpret_cast<Bytef*>(deflated_.prepare(room));
                out_.avail_out = static_cast<uInt>(room);
                ::deflate(&out_, flush);
                deflated_.commit(room - out_.avail_out);
            } while (out_.avail_out == 0);
        }
        deflated_.truncate(deflated_.size() - 4);  // 00 00 FF FF, as the receiver knows
        if (forget_own_) ::deflateReset(&out_);
        return deflated_.view();
    }

    errc inflate_piece(std::string_view data) {
        for (;;) {
            std::size_t const piece = (std::min)(data.size(), max_piece);
            in_.next_in = bytes(data.data());
            in_.avail_in = static_cast<uInt>(piece);
            // One byte more than allowed, so that what is too big shows.
            std::size_t const left = add_saturating(max_inflated_ - inflated_.size(), std::size_t{1});
            std::size_t const guess = (std::min)(data.size(), max_guess / 3) * 3;
            std::size_t const room = (std::min)(left, std::max<std::size_t>({256, inflated_.size(), guess}));
            in_.next_out = reinterpret_cast<Bytef*>(inflated_.prepare(room));
            in_.avail_out = static_cast<uInt>((std::min)(room, max_piece));
            std::size_t const offered = in_.avail_out;
            int const result = ::inflate(&in_, Z_SYNC_FLUSH);
            inflated_.commit(offered - in_.avail_out);
            if (inflated_.size() > max_inflated_) return errc::message_too_big;
            data.remove_prefix(piece - in_.avail_in);
            if (result == Z_MEM_ERROR) throw std::bad_alloc();
            if (result == Z_STREAM_END) {
                if (!continue_after_last_block()) return errc::invalid_compressed_data;
            } else if (result != Z_OK && !(result == Z_BUF_ERROR && data.empty())) {
                return errc::invalid_compressed_data;
            } else if (in_.avail_out != 0 && data.empty()) {
                return errc::ok;
            }
            if (result == Z_STREAM_END && data.empty()) return errc::ok;
        }
    }

    // Memory that only a large message needed is given back when a small one has followed.
    static void reuse(send_buffer& buffer) noexcept {
        if (buffer.size() <= max_guess && buffer.capacity() > 4 * max_guess) buffer.release();
        buffer.clear();
    }

    // A sender may mark a block as the last one (7.2.3.4). More blocks follow all the same, which may refer to those
    // before.
    bool continue_after_last_block() noexcept {
        Bytef window[1 << 15];
        uInt size = 0;
        return ::inflateGetDictionary(&in_, window, &size) == Z_OK && ::inflateReset(&in_) == Z_OK &&
               (size == 0 || ::inflateSetDictionary(&in_, window, size) == Z_OK);
    }

    static constexpr std::size_t max_guess = 64 * 1024;

    z_stream out_{};
    z_stream in_{};
    send_buffer deflated_{};
    send_buffer inflated_{};
    std::size_t max_inflated_ = 0;
    utf8_validator utf8_{};
    bool deflating_ = false;
    bool inflating_ = false;
    bool message_begun_ = false;
    bool forget_own_ = false;
    bool forget_peers_ = false;
};

}  // namespace runnel::websocket
