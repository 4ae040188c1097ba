#pragma once

#include <runnel/core/compiler.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace runnel {

/// A string of at most `Capacity` bytes kept inside the object: no allocation, trivially copied and destroyed, and a
/// value of it can be a `constexpr` variable. Followed by a zero byte, so that `c_str()` is what C expects.
template <std::size_t Capacity>
class inline_string {
  public:
    constexpr inline_string() noexcept = default;

    /// A copy of `text`. Throws `std::length_error` if it has more than `Capacity` bytes; in a constant expression that
    /// is a compile error.
    constexpr inline_string(std::string_view text) { append(text); }
    constexpr inline_string(char const* text) : inline_string(std::string_view(text)) {}
    constexpr inline_string(std::string const& text) : inline_string(std::string_view(text)) {}

    /// Appends `text`, or throws `std::length_error` and changes nothing if there is no room for all of it.
    constexpr inline_string& append(std::string_view text) {
        if (!try_append(text))
            RUNNEL_THROW(std::length_error("runnel::inline_string: the text is longer than the capacity"));
        return *this;
    }

    /// Appends `text`; false, and nothing is changed, if there is no room for all of it. `text` may be part of this
    /// string.
    constexpr bool try_append(std::string_view text) noexcept {
        if (text.size() > Capacity - size_) return false;
        std::copy_n(text.data(), text.size(), chars_ + size_);
        size_ += text.size();
        chars_[size_] = '\0';
        return true;
    }

    /// Appends `value` in decimal digits; false, and nothing is changed, if there is no room for all of them.
    constexpr bool try_append_decimal(std::uint64_t value) noexcept {
        char digits[20] = {};
        std::size_t first = sizeof(digits);
        do {
            digits[--first] = static_cast<char>('0' + value % 10);
            value /= 10;
        } while (value != 0);
        return try_append({digits + first, sizeof(digits) - first});
    }

    /// Makes it empty. The bytes stay in memory: use `secure_wipe` for secrets.
    constexpr void clear() noexcept {
        size_ = 0;
        chars_[0] = '\0';
    }

    static constexpr std::size_t capacity() noexcept { return Capacity; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr char const* data() const noexcept { return chars_; }
    constexpr char const* c_str() const noexcept { return chars_; }
    constexpr char const* begin() const noexcept { return chars_; }
    constexpr char const* end() const noexcept { return chars_ + size_; }

    /// The text as a view, valid as long as this object lives and is not changed.
    constexpr std::string_view view() const noexcept { return {chars_, size_}; }
    constexpr operator std::string_view() const noexcept { return view(); }

    /// A copy as a `std::string`.
    constexpr std::string str() const { return std::string(view()); }

    /// Compares the texts: with an inline string of any capacity, or whatever else is a text.
    template <class Text>
    requires std::convertible_to<Text const&, std::string_view>
    constexpr bool operator==(Text const& other) const noexcept {
        return view() == std::string_view(other);
    }

  private:
    std::size_t size_ = 0;
    char chars_[Capacity + 1] = {};
};

}  // namespace runnel
