#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/make_room.hpp>

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
/// Records are laid one after another into blocks; a block is used again when all its records have been given back. Up
/// to `max_spare` bytes of blocks without records are kept for that until `release_idle`.
class record_pool {
  public:
    static constexpr std::size_t min_block = 1024;
    static constexpr std::size_t max_block = 64 * 1024;  // a larger record has a block of its own
    static constexpr std::size_t max_spare = 2 * 1024 * 1024;

    record_pool() noexcept = default;
    record_pool(record_pool const&) = delete;
    record_pool& operator=(record_pool const&) = delete;
    ~record_pool() {
        for (block* b : blocks_) ::operator delete(b);
    }

    /// Uninitialised memory for a record of `size` bytes, aligned for any type.
    void* take(std::size_t size) {
        std::size_t const needed = prepare(size);
        char* const at = current_->bytes() + current_->used;
        current_->used += needed;
        ++current_->live;
        return ::new (at) prefix{current_} + 1;
    }

    /// Makes sure that there is memory for a record of `size` bytes, so that the next `take` cannot fail.
    /// Returns how much of the block it takes.
    std::size_t prepare(std::size_t size) {
        std::size_t const needed = round_up(size) + sizeof(prefix);
        if (current_ == nullptr || current_->capacity - current_->used < needed) [[unlikely]]
            current_ = next_block(needed);
        return needed;
    }

    /// Gives back what `take` returned.
    void give_back(void* record) noexcept {
        block* const b = (static_cast<prefix*>(record) - 1)->owner;
        if (--b->live != 0) return;
        b->used = 0;
        if (b != current_) keep_or_free(b);
    }

    /// The number of records taken and not given back. Takes time in proportion to the number of blocks.
    std::size_t records() const noexcept {
        std::size_t sum = 0;
        for (block const* b : blocks_) sum += b->live;
        return sum;
    }

    /// Bytes of memory held.
    std::size_t capacity() const noexcept {
        std::size_t sum = 0;
        for (block const* b : blocks_) sum += b->capacity;
        return sum;
    }

    /// Frees the memory in which no record lies.
    RUNNEL_COLD void release_idle() noexcept {
        if (current_ != nullptr && current_->live == 0) current_ = nullptr;
        spare_ = nullptr;
        spare_bytes_ = 0;
        std::erase_if(blocks_, [](block* b) { return b->live == 0 && (::operator delete(b), true); });
    }

  private:
    struct alignas(std::max_align_t) block {
        std::size_t capacity;
        std::size_t used;
        std::size_t live;
        block* next;  // of the spare ones
        char* bytes() noexcept { return reinterpret_cast<char*>(this + 1); }
    };
    struct alignas(std::max_align_t) prefix {
        block* owner;
    };

    static constexpr std::size_t round_up(std::size_t size) noexcept {
        return (size + alignof(std::max_align_t) - 1) / alignof(std::max_align_t) * alignof(std::max_align_t);
    }

    RUNNEL_NOINLINE block* next_block(std::size_t needed) {
        block* const full = std::exchange(current_, nullptr);
        if (full != nullptr && full->live == 0) keep_or_free(full);
        for (block** at = &spare_; *at != nullptr; at = &(*at)->next) {
            if ((*at)->capacity < needed) continue;
            block* const b = std::exchange(*at, (*at)->next);
            spare_bytes_ -= b->capacity;
            return b;
        }
        std::size_t const doubled = full ? (std::min)(last_capacity_ * 2, max_block) : min_block;
        std::size_t const capacity = (std::max)(needed, doubled);
        make_room(blocks_, 1);
        auto* const b = ::new (::operator new(sizeof(block) + capacity)) block{capacity, 0, 0, nullptr};
        blocks_.push_back(b);
        last_capacity_ = capacity;
        return b;
    }

    // The small blocks of the beginning are not worth keeping beside larger ones.
    RUNNEL_NOINLINE void keep_or_free(block* b) noexcept {
        if (b->capacity >= (std::min)(last_capacity_, max_block) && spare_bytes_ + b->capacity <= max_spare) {
            b->next = std::exchange(spare_, b);
            spare_bytes_ += b->capacity;
        } else {
            std::erase(blocks_, b);
            ::operator delete(b);
        }
    }

    std::vector<block*> blocks_{};
    block* current_ = nullptr;
    block* spare_ = nullptr;  // the first of the blocks without records
    std::size_t spare_bytes_ = 0;
    std::size_t last_capacity_ = 0;
};

}  // namespace runnel
