#pragma once

#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace fleet {

/// The class of a number, and the largest number of a class: those of a class have the same leading 1 and the same five
/// bits behind it.
constexpr std::size_t histogram_class(std::uint64_t value) noexcept {
    if (value < 32) return value;
    auto const shift = static_cast<unsigned>(std::bit_width(value)) - 6;
    return (std::size_t(shift) << 5) + (value >> shift);
}
constexpr std::uint64_t largest_of_class(std::size_t index) noexcept {
    if (index < 64) return index;
    auto const shift = (index >> 5) - 1;
    return ((index - (shift << 5) + 1) << shift) - 1;
}
static_assert(largest_of_class(histogram_class(63)) == 63);
static_assert(largest_of_class(histogram_class(1'000'000)) == 1'015'807);
static_assert(histogram_class(1'015'808) == histogram_class(1'000'000) + 1);

/// Counts durations, whatever their size, each in a class no wider than 1/32 of it: 15 KiB for any number of them.
class histogram {
  public:
    void add(std::chrono::nanoseconds duration) noexcept {
        auto const value = static_cast<std::uint64_t>(duration.count() < 0 ? 0 : duration.count());
        ++classes_[histogram_class(value)];
        ++count_;
    }

    void add(histogram const& other) noexcept {
        if (other.count_ == 0) return;
        for (std::size_t i = 0; i < classes_.size(); ++i) classes_[i] += other.classes_[i];
        count_ += other.count_;
    }

    std::uint64_t count() const noexcept { return count_; }

    /// The duration that a share of all (0 to 1) does not exceed, in milliseconds; 0 if there are none.
    double milliseconds(double share) const noexcept {
        if (count_ == 0) return 0;
        auto const wanted = static_cast<double>(count_) * share;
        std::uint64_t seen = 0;
        std::size_t at = 0;
        for (; at + 1 < classes_.size(); ++at)
            if (seen += classes_[at]; static_cast<double>(seen) >= wanted && seen > 0) break;
        return static_cast<double>(largest_of_class(at)) / 1e6;
    }

  private:
    std::array<std::uint64_t, histogram_class(~std::uint64_t(0)) + 1> classes_{};
    std::uint64_t count_ = 0;
};

}  // namespace fleet
