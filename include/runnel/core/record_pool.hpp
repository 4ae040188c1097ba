#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace runnel {

/// Memory for records of any size that are given back roughly in the order in which they were taken. Addresses are
/// stable, taking and giving back is a few instructions, and in steady state nothing is allocated.
///
/// Records are laid one after another into blocks; a block is used again when all its records have been given back.
class record_pool {
  public:
    static constexpr std::size_t min_block = 1024;
    static constexpr std::size_t max_block = 64 * 1024;  // a larger record has a block of its own

    record_pool() noexcept = default;
    record_pool(record_pool const&) = delete;
    record_pool& operator=(record_pool const&) = delete;
    ~record_pool() {
        for (block* b : blocks_) ::operator delete(b);
    }

    /// Uninitialised memory for a record of `size` bytes, aligned for any type.
    void* take(std::size_t size) {
        std::size_t const needed = round_up(size) + sizeof(prefix);
        if (current_ == nullptr || current_->capacity - current_->used < needed) current_ = next_block(needed);
        char* const at = current_->bytes() + current_->used;
        current_->used += needed;
        ++current_->live;
        return ::new (at) prefix{current_} + 1;
    }

    /// Gives back what `take` returned.
    void give_back(void* record) noexcept {
        block* const b = (static_cast<prefix*>(record) - 1)->owner;
        if (--b->live != 0) return;
        b->used = 0;
        if (b != current_) keep_one_spare(b);
    }

    /// Bytes of memory held.
    std::size_t capacity() const noexcept {
        std::size_t sum = 0;
        for (block const* b : blocks_) sum += b->capacity;
        return sum;
    }

    /// Frees the memory in which no record lies.
    void release_idle() noexcept {
        if (current_ != nullptr && current_->live == 0) current_ = nullptr;
        spare_ = nullptr;
        std::erase_if(blocks_, [](block* b) { return b->live == 0 && (::operator delete(b), true); });
    }

  private:
    struct alignas(std::max_align_t) block {
        std::size_t capacity;
        std::size_t used;
        std::size_t live;
        char* bytes() noexcept { return reinterpret_cast<char*>(this + 1); }
    };
    struct alignas(std::max_align_t) prefix {
        block* owner;
    };

    static constexpr std::size_t round_up(std::size_t size) noexcept {
        return (size + alignof(std::max_align_t) - 1) / alignof(std::max_align_t) * alignof(std::max_align_t);
    }

    block* next_block(std::size_t needed) {
        block* const full = std::exchange(current_, nullptr);
        if (full != nullptr && full->live == 0) keep_one_spare(full);
        if (spare_ != nullptr && spare_->capacity >= needed) return std::exchange(spare_, nullptr);
        std::size_t const doubled = full ? std::min(last_capacity_ * 2, max_block) : min_block;
        last_capacity_ = std::max(needed, doubled);
        blocks_.reserve(blocks_.size() + 1);
        auto* const b = ::new (::operator new(sizeof(block) + last_capacity_)) block{last_capacity_, 0, 0};
        blocks_.push_back(b);
        return b;
    }

    // Two blocks that take turns are enough for steady state.
    void keep_one_spare(block* b) noexcept {
        if (spare_ == nullptr || spare_->capacity < b->capacity) std::swap(spare_, b);
        if (b == nullptr) return;
        std::erase(blocks_, b);
        ::operator delete(b);
    }

    std::vector<block*> blocks_;
    block* current_ = nullptr;
    block* spare_ = nullptr;
    std::size_t last_capacity_ = 0;
};

}  // namespace runnel
