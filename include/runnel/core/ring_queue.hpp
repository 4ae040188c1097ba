#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/to_size.hpp>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace runnel {

/// A first-in, first-out queue whose elements are numbered in the order in which they came: element `n` is found by its
/// number as long as it is in the queue. Its memory doubles when it is full and is kept for reuse.
template <class T>
requires std::is_trivially_copyable_v<T>
class ring_queue {
  public:
    /// The number of the oldest element, or of the next to come if the queue is empty.
    std::uint64_t first() const noexcept { return first_; }
    /// The number that the next element will have.
    std::uint64_t next() const noexcept { return next_; }
    std::size_t size() const noexcept { return to_size(next_ - first_); }
    bool empty() const noexcept { return first_ == next_; }
    bool contains(std::uint64_t number) const noexcept { return number - first_ < next_ - first_; }

    T& operator[](std::uint64_t number) noexcept {
        assert(contains(number));
        return elements_[place_of(number, capacity_)];
    }
    T& front() noexcept { return (*this)[first_]; }
    /// The number of an element that is in the queue.
    std::uint64_t number_of(T const& element) const noexcept {
        auto const place = static_cast<std::uint64_t>(&element - elements_.get());
        return first_ + ((place - first_) & (capacity_ - 1));
    }

    /// Makes sure that there is room for another element, so that `place` can follow.
    void make_room() {
        if (size() == capacity_) [[unlikely]]
            grow();
    }

    /// Adds an element at the end; returns its number.
    std::uint64_t push(T const& element) {
        make_room();
        return place(element);
    }

    /// The same, where there is room.
    std::uint64_t place(T const& element) noexcept {
        elements_[place_of(next_, capacity_)] = element;
        return next_++;
    }

    void pop() noexcept {
        assert(!empty());
        ++first_;
    }

    /// Removes all elements; the numbers go on.
    void clear() noexcept { first_ = next_; }

    /// Lets the next element have this number. The queue must be empty.
    void restart_at(std::uint64_t number) noexcept {
        assert(empty());
        first_ = next_ = number;
    }

  private:
    // Numbers have 64 bits on every machine.
    static std::size_t place_of(std::uint64_t number, std::size_t capacity) noexcept {
        return to_size(number) & (capacity - 1);
    }

    RUNNEL_COLD RUNNEL_NOINLINE void grow() {
        std::size_t const capacity = capacity_ == 0 ? 8 : capacity_ * 2;
        auto larger = std::make_unique_for_overwrite<T[]>(capacity);
        for (auto n = first_; n != next_; ++n) larger[place_of(n, capacity)] = elements_[place_of(n, capacity_)];
        elements_ = std::move(larger);
        capacity_ = capacity;
    }

    std::unique_ptr<T[]> elements_{};
    std::size_t capacity_ = 0;  // a power of two
    std::uint64_t first_ = 0;
    std::uint64_t next_ = 0;
};

}  // namespace runnel
