#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/secret.hpp>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

namespace runnel {

/// Bytes on their way out: a growing buffer with room in front (headroom), so that each layer below can put its header
/// before what the layers above have written without moving it.
///
/// Memory is kept for reuse after `clear()`; a buffer that is filled and cleared in turn does not allocate.
class send_buffer {
  public:
    /// An empty buffer that keeps `headroom` bytes free in front of the first byte. Allocates nothing yet.
    explicit send_buffer(std::size_t headroom = 0) noexcept : headroom_(headroom), begin_(headroom), end_(headroom) {}

    send_buffer(send_buffer&& other) noexcept : send_buffer(other.headroom_) { swap(other); }
    send_buffer& operator=(send_buffer&& other) noexcept {
        send_buffer moved(std::move(other));
        swap(moved);
        return *this;
    }

    void swap(send_buffer& other) noexcept {
        std::swap(storage_, other.storage_);
        std::swap(capacity_, other.capacity_);
        std::swap(headroom_, other.headroom_);
        std::swap(begin_, other.begin_);
        std::swap(end_, other.end_);
    }

    /// The first byte; null as long as nothing has been put in.
    char* data() noexcept { return storage_ ? storage_.get() + begin_ : nullptr; }
    std::size_t size() const noexcept { return end_ - begin_; }
    bool empty() const noexcept { return begin_ == end_; }
    std::string_view view() const noexcept { return {storage_ ? storage_.get() + begin_ : nullptr, size()}; }
    /// Bytes of memory held, headroom included.
    std::size_t capacity() const noexcept { return capacity_; }
    std::size_t headroom() const noexcept { return headroom_; }

    /// Makes room for `n` more bytes at the end and returns where they go; `commit` then makes them part of the buffer.
    char* prepare(std::size_t n) {
        if (end_ + n >= capacity_) [[unlikely]]
            grow(n);
        return storage_.get() + end_;
    }

    /// Adds to the buffer the first `n` bytes of what `prepare` returned.
    void commit(std::size_t n) noexcept { end_ += n; }

    void append(std::string_view bytes) {
        if (bytes.empty()) return;
        std::memcpy(prepare(bytes.size()), bytes.data(), bytes.size());
        commit(bytes.size());
    }

    /// Puts `n` uninitialised bytes in front and returns them. Uses the headroom; moves the contents only when that is
    /// used up.
    char* prepend(std::size_t n) {
        if (begin_ < n || !storage_) {
            auto const shift = n - (storage_ ? begin_ : 0) + headroom_;
            prepare(shift);
            std::memmove(storage_.get() + begin_ + shift, storage_.get() + begin_, size());
            begin_ += shift;
            end_ += shift;
        }
        begin_ -= n;
        return data();
    }

    /// Drops the first `n` bytes (which have been sent).
    void consume(std::size_t n) noexcept {
        begin_ += n;
        if (begin_ == end_) clear();
    }

    /// Drops the last bytes, so that `n` remain.
    void truncate(std::size_t n) noexcept { end_ = begin_ + n; }

    /// Empties the buffer and restores the headroom; keeps the memory.
    void clear() noexcept { begin_ = end_ = headroom_; }

    /// Empties the buffer, overwrites all its memory, in which a secret was, and gives it back.
    RUNNEL_COLD void wipe() noexcept {
        if (storage_) secure_wipe(storage_.get(), capacity_);
        release();
    }

    /// Empties the buffer and gives its memory back.
    void release() noexcept {
        storage_.reset();
        capacity_ = 0;
        clear();
    }

  private:
    RUNNEL_NOINLINE void grow(std::size_t n) {
        std::size_t const needed = end_ + n + 1;  // so that nothing fits into no memory
        std::size_t const doubled = capacity_ * 2;
        std::size_t const capacity = needed > doubled ? needed + needed / 4 : doubled;
        auto larger = std::make_unique_for_overwrite<char[]>(capacity);
        if (storage_) std::memcpy(larger.get() + begin_, storage_.get() + begin_, size());
        storage_ = std::move(larger);
        capacity_ = capacity;
    }

    std::unique_ptr<char[]> storage_{};
    std::size_t capacity_ = 0;
    std::size_t headroom_;
    std::size_t begin_;
    std::size_t end_;
};

}  // namespace runnel
