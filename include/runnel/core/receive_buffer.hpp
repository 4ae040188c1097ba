#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/secret.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

namespace runnel {

/// Bytes on their way in: what has been read and not yet decoded, contiguous, in front of room for the next read.
///
/// The room offered to a read adapts: it starts small, doubles up to `max_read` while reads fill it, and the memory is
/// given back by `release_if_idle`, so that an idle connection holds next to nothing.
class receive_buffer {
  public:
    static constexpr std::size_t min_read = 128;
    static constexpr std::size_t max_read = 64 * 1024;
    /// Bytes for which there is room as soon as they are announced.
    static constexpr std::size_t trusted = 16 * 1024;

    /// What has been read and not consumed. Views into it are valid until the next `prepare`.
    std::string_view data() const noexcept { return {storage_.get() + begin_, end_ - begin_}; }
    bool empty() const noexcept { return begin_ == end_; }
    std::size_t capacity() const noexcept { return capacity_; }

    /// Room for the next read, behind the unconsumed bytes, and for what is missing of `expected` bytes.
    std::span<char> prepare(std::size_t expected = 0) { return make_room((std::max)(size() + read_size_, expected)); }

    /// The same, where a peer has announced `expected` bytes, the size of the whole packet that the unconsumed bytes
    /// begin. There is no more room than is reasonable for one who has sent so little yet: `trusted` bytes, or four
    /// times what has come.
    std::span<char> prepare_for_packet(std::size_t expected) { return make_room(within_reason(expected)); }

    /// Adds to the data the first `n` bytes of the room.
    void commit(std::size_t n) noexcept {
        end_ += n;
        // Nearly full is full: a layer below may have filled the room and then taken its frame headers out.
        if (n >= read_size_ - read_size_ / 8) read_size_ = (std::min)(read_size_ * 2, max_read);
    }

    /// Drops the first `n` bytes of the data.
    void consume(std::size_t n) noexcept {
        begin_ += n;
        if (begin_ == end_) begin_ = end_ = 0;
    }

    /// Drops all data, overwrites the memory, in which a secret was, and gives it back.
    RUNNEL_COLD void wipe() noexcept {
        if (storage_) secure_wipe(storage_.get(), capacity_);
        clear();
        release_if_idle();
    }

    /// Drops all data; keeps the memory.
    void clear() noexcept { begin_ = end_ = 0; }

    /// Gives the memory back if no data is held. The next read starts small again.
    void release_if_idle() noexcept {
        if (!empty()) return;
        storage_.reset();
        capacity_ = 0;
        read_size_ = min_read;
    }

  private:
    std::size_t size() const noexcept { return end_ - begin_; }

    std::size_t within_reason(std::size_t expected) const noexcept {
        if (size() < expected && expected > max_read && expected <= capacity_) return expected;
        std::size_t const least = (std::max)(size() + read_size_, (std::min)(expected, trusted));
        if (least <= capacity_) return least;  // it grows by large steps only
        return (std::max)(least, (std::min)(expected, 4 * size()));
    }

    std::span<char> make_room(std::size_t wanted) {
        std::size_t const held = size();
        if (capacity_ < wanted) {
            auto larger = std::make_unique_for_overwrite<char[]>(wanted);
            if (held != 0) std::memcpy(larger.get(), storage_.get() + begin_, held);
            storage_ = std::move(larger);
            capacity_ = wanted;
            begin_ = 0;
        } else if (begin_ != 0 && capacity_ - begin_ < wanted) {
            std::memmove(storage_.get(), storage_.get() + begin_, held);
            begin_ = 0;
        }
        end_ = begin_ + held;
        return {storage_.get() + end_, capacity_ - end_};
    }

    std::unique_ptr<char[]> storage_{};
    std::size_t capacity_ = 0;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::size_t read_size_ = min_read;
};

}  // namespace runnel
