#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

namespace runnel::websocket {

/// The memory in which a message is put together from the frames that carry it: the message's payload so far, and
/// behind it the raw bytes that have been received and not looked at yet. A message in one frame stays where it was
/// received.
class message_buffer {
  public:
    static constexpr std::size_t min_read = 512;
    static constexpr std::size_t max_read = 64 * 1024;

    /// The payload of the message so far.
    std::string_view message() const noexcept { return {at(message_begin_), message_end_ - message_begin_}; }

    /// The raw bytes.
    char* raw() noexcept { return at(raw_begin_); }
    std::size_t raw_size() const noexcept { return raw_end_ - raw_begin_; }
    std::size_t capacity() const noexcept { return capacity_; }

    /// Where the next payload is to be put, or null if it may stay where it is.
    char* payload_to() noexcept { return message_begin_ == message_end_ ? nullptr : at(message_end_); }

    /// Uses up the first `n` raw bytes, in which `payload` was found: in place, or moved to `payload_to()`.
    void take(std::size_t n, std::string_view payload) noexcept {
        raw_begin_ += n;
        if (payload.empty()) return;
        if (message_begin_ == message_end_)
            message_begin_ = message_end_ = static_cast<std::size_t>(payload.data() - storage_.get());
        message_end_ += payload.size();
    }

    /// Moves up to `size` raw bytes to `out`; returns how many.
    std::size_t take_raw(char* out, std::size_t size) noexcept {
        std::size_t const n = (std::min)(size, raw_size());
        if (n != 0) std::memcpy(out, raw(), n);
        raw_begin_ += n;
        return n;
    }

    /// Drops the message. Memory that only a large message needed is given back when a small one has followed.
    void next_message() noexcept {
        bool const is_small = message_end_ - message_begin_ <= max_read;
        if (raw_begin_ == raw_end_) raw_begin_ = raw_end_ = 0;
        message_begin_ = message_end_ = raw_begin_;
        if (raw_end_ == 0 && is_small && capacity_ > 4 * max_read) release();
    }

    /// Room for the next read behind the raw bytes; `commit` makes its first bytes raw bytes. Views become invalid.
    /// Throws `std::bad_alloc`, and has changed nothing then.
    std::span<char> prepare() {
        if (raw_begin_ == raw_end_) raw_begin_ = raw_end_ = message_end_;
        if (capacity_ - raw_end_ >= read_size_) return {at(raw_end_), capacity_ - raw_end_};
        std::size_t const message = message_end_ - message_begin_;
        std::size_t const raw = raw_size();
        std::size_t const wanted = message + raw + read_size_;
        std::unique_ptr<char[]> larger;
        char* to = storage_.get();
        if (wanted > capacity_ || message > capacity_ / 2) {  // no moving of long messages again and again
            std::size_t const capacity = (std::max)(wanted, message != 0 ? capacity_ * 2 : capacity_);
            larger = std::make_unique_for_overwrite<char[]>(capacity);
            capacity_ = capacity;  // not before: without memory nothing changes
            to = larger.get();
        }
        if (message != 0) std::memmove(to, at(message_begin_), message);
        if (raw != 0) std::memmove(to + message, at(raw_begin_), raw);
        if (larger) storage_ = std::move(larger);
        message_begin_ = 0;
        message_end_ = raw_begin_ = message;
        raw_end_ = message + raw;
        return {at(raw_end_), capacity_ - raw_end_};
    }

    void commit(std::size_t n) noexcept {
        raw_end_ += n;
        if (n >= read_size_) read_size_ = (std::min)(read_size_ * 2, max_read);
    }

    /// Adds raw bytes that were received elsewhere. Throws `std::bad_alloc`: those in front may have been added then.
    void append_raw(std::string_view bytes) {
        while (!bytes.empty()) {
            auto const room = prepare();
            std::size_t const n = (std::min)(room.size(), bytes.size());
            std::memcpy(room.data(), bytes.data(), n);
            commit(n);
            bytes.remove_prefix(n);
        }
    }

    /// Drops everything and gives the memory back.
    void release() noexcept {
        storage_.reset();
        capacity_ = message_begin_ = message_end_ = raw_begin_ = raw_end_ = 0;
        read_size_ = min_read;
    }

  private:
    char* at(std::size_t i) const noexcept { return storage_.get() + i; }

    std::unique_ptr<char[]> storage_{};
    std::size_t capacity_ = 0;
    std::size_t message_begin_ = 0;
    std::size_t message_end_ = 0;
    std::size_t raw_begin_ = 0;
    std::size_t raw_end_ = 0;
    std::size_t read_size_ = min_read;
};

}  // namespace runnel::websocket
