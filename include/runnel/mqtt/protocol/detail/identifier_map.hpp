#pragma once

#include <runnel/core/compiler.hpp>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace runnel::mqtt::detail {

/// A map from packet identifiers to values, for as many as there are: one allocation of 16 bytes or so an identifier.
/// References are valid until the next `insert` or `erase`. Memory is kept for reuse until `clear`.
template <class T>
requires std::is_trivially_copyable_v<T>
class identifier_map {
  public:
    identifier_map() noexcept = default;
    identifier_map(identifier_map const&) = delete;
    identifier_map& operator=(identifier_map const&) = delete;

    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }

    /// The value of an identifier, or nullptr.
    T* find(std::uint16_t identifier) noexcept {
        if (capacity_ == 0) return nullptr;
        slot& s = slots_[place_of(identifier)];
        return s.identifier == 0 ? nullptr : &s.value;
    }

    /// Adds an identifier (not 0) that is not in the map.
    T& insert(std::uint16_t identifier, T const& value) {
        assert(identifier != 0 && find(identifier) == nullptr);
        if (size_ * 4 >= capacity_ * 3) grow();
        slot& s = slots_[place_of(identifier)];
        s = {value, identifier};
        ++size_;
        return s.value;
    }

    /// Removes an identifier, if it is in the map.
    void erase(std::uint16_t identifier) noexcept {
        if (capacity_ == 0) return;
        auto hole = place_of(identifier);
        if (slots_[hole].identifier == 0) return;
        --size_;
        // What follows without a gap moves up, unless it would come to stand before its home.
        for (auto at = after(hole); slots_[at].identifier != 0; at = after(at)) {
            auto const home = home_of(slots_[at].identifier);
            if (((at - home) & (capacity_ - 1)) < ((at - hole) & (capacity_ - 1))) continue;
            slots_[hole] = slots_[at];
            hole = at;
        }
        slots_[hole].identifier = 0;
    }

    /// Calls `f(identifier, value)` for all identifiers, in no order.
    template <class F>
    void for_each(F&& f) {
        for (std::size_t i = 0; i < capacity_; ++i)
            if (slots_[i].identifier != 0) f(slots_[i].identifier, slots_[i].value);
    }

    /// Removes the identifiers for which `condition(identifier, value)` holds; it may be asked twice about one.
    template <class F>
    void erase_if(F&& condition) noexcept {
        for (std::size_t i = 0; i < capacity_; ++i)
            while (slots_[i].identifier != 0 && condition(slots_[i].identifier, slots_[i].value))
                erase(slots_[i].identifier);  // another may take its place
    }

    /// Empties the map and gives its memory back.
    void clear() noexcept {
        slots_.reset();
        capacity_ = size_ = 0;
    }

  private:
    struct slot {
        T value{};
        std::uint16_t identifier = 0;  // 0: free
    };

    std::size_t home_of(std::uint16_t identifier) const noexcept { return identifier & (capacity_ - 1); }
    std::size_t after(std::size_t place) const noexcept { return (place + 1) & (capacity_ - 1); }

    // Where the identifier is, or would be. Peers count identifiers up, so that nearly all are at home.
    std::size_t place_of(std::uint16_t identifier) const noexcept {
        auto place = home_of(identifier);
        while (slots_[place].identifier != 0 && slots_[place].identifier != identifier) place = after(place);
        return place;
    }

    RUNNEL_COLD void grow() {
        identifier_map larger;
        larger.capacity_ = capacity_ == 0 ? 8 : capacity_ * 2;
        larger.slots_ = std::make_unique<slot[]>(larger.capacity_);
        for (std::size_t i = 0; i < capacity_; ++i)
            if (slots_[i].identifier != 0) larger.slots_[larger.place_of(slots_[i].identifier)] = slots_[i];
        slots_ = std::move(larger.slots_);
        capacity_ = larger.capacity_;
    }

    std::unique_ptr<slot[]> slots_{};
    std::size_t capacity_ = 0;  // a power of two, 0 or greater than the size
    std::size_t size_ = 0;
};

}  // namespace runnel::mqtt::detail
