#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/secret.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/fixed_header.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::mqtt {

/// A packet that has gone by.
struct scanned_packet {
    fixed_header header{};
    std::string_view body{};  ///< its first bytes; valid during the call
    bool is_whole = true;     ///< whether these are all

    /// Bytes of the whole packet.
    std::size_t size() const noexcept { return std::size_t{header.size} + header.remaining_length; }
};

/// Finds the packets in one direction of a connection by looking on: bytes come in pieces of any size. Packets that
/// come in one piece are not copied. Of others the first `kept` bytes are, and the rest is but counted, so that a
/// message of 256 MiB takes no memory. Without I/O.
class packet_scanner {
  public:
    /// `kept`: bytes of a packet's body that are copied if it comes in pieces, at most.
    explicit packet_scanner(std::size_t kept = 0) noexcept : maximum_kept_(kept) {}
    packet_scanner(packet_scanner const&) = delete;
    packet_scanner& operator=(packet_scanner const&) = delete;
    ~packet_scanner() { secure_wipe(kept_); }  // a password, perhaps

    /// Looks at the next bytes. Calls `on_packet(scanned_packet const&)` for each packet whose last byte is among them.
    /// Behind a packet that is malformed by its first bytes (`next_frame`) nothing can be found any more: then all is
    /// but counted. The same holds behind an exception: of `on_packet`, or as memory is short.
    template <class F>
    void feed(std::string_view bytes, F&& on_packet) {
        if (std::exchange(is_feeding_, true)) is_lost_ = true;
        while (!bytes.empty() && can_scan()) bytes.remove_prefix(step(bytes, on_packet));
        unread_ += bytes.size();
        is_feeding_ = false;
    }

    /// What is wrong with the flow, if anything.
    errc error() const noexcept { return error_; }
    /// Bytes that were not looked at, behind an error.
    std::uint64_t unread() const noexcept { return unread_; }
    /// Whether a packet has begun and not ended.
    bool is_within_packet() const noexcept { return can_scan() && (head_size_ != 0 || left_ != 0); }

  private:
    bool can_scan() const noexcept { return error_ == errc::ok && !is_lost_; }

    // Returns how many bytes have been used, at least one.
    template <class F>
    std::size_t step(std::string_view bytes, F& on_packet) {
        if (left_ != 0) return take_body(bytes, on_packet);
        if (head_size_ == 0) {
            auto const found = next_frame(bytes);
            if (found.status == parse_status::complete) {
                on_packet(scanned_packet{found.header, found.body, true});
                return found.total_size;
            }
        }
        head_[head_size_++] = bytes[0];
        auto const found = next_frame({head_.data(), head_size_});
        if (found.status == parse_status::malformed) error_ = found.error;
        if (found.total_size != 0) begin_body(found.header, on_packet);
        return 1;
    }

    template <class F>
    void begin_body(fixed_header header, F& on_packet) {
        head_size_ = 0;
        header_ = header;
        if (header.remaining_length == 0) return on_packet(scanned_packet{header, {}, true});
        // At once, so that what grows leaves no copies behind.
        kept_.reserve((std::min)(maximum_kept_, std::size_t{header.remaining_length}));
        left_ = header.remaining_length;
    }

    template <class F>
    std::size_t take_body(std::string_view bytes, F& on_packet) {
        auto const used = (std::min)(bytes.size(), std::size_t{left_});
        kept_.append(bytes.substr(0, (std::min)(used, maximum_kept_ - kept_.size())));
        left_ -= static_cast<std::uint32_t>(used);
        if (left_ == 0) {
            on_packet(scanned_packet{header_, kept_, kept_.size() == header_.remaining_length});
            secure_wipe(kept_);
        }
        return used;
    }

    std::size_t maximum_kept_;
    std::array<char, 5> head_{};  // the beginning of a fixed header that is not whole
    std::size_t head_size_ = 0;
    fixed_header header_{};
    std::uint32_t left_ = 0;  // bytes of the body to come
    std::string kept_{};
    errc error_ = errc::ok;
    bool is_feeding_ = false;
    bool is_lost_ = false;  // an exception has left `feed`
    std::uint64_t unread_ = 0;
};

}  // namespace runnel::mqtt
