#pragma once

#include <concepts>
#include <cstdint>
#include <ranges>
#include <string_view>
#include <type_traits>

namespace runnel {

// Bytes are `char`s and a view of bytes is a `std::string_view` throughout the library: text needs no conversion, and
// decoders work in constant expressions. These functions are the border to other byte types and to integers.

/// A type whose objects are single bytes: `char`, `unsigned char`, `std::byte`, `char8_t`, ...
template <class T>
concept byte_like = sizeof(T) == 1 && std::is_trivially_copyable_v<T>;

/// The bytes of any contiguous range of byte-sized elements (`std::vector<std::uint8_t>`, `std::span<std::byte>`, ...).
/// The view is valid as long as the range's storage is.
template <std::ranges::contiguous_range R>
requires byte_like<std::ranges::range_value_t<R>> && std::ranges::borrowed_range<R>
std::string_view bytes_of(R&& range) noexcept {
    return {reinterpret_cast<char const*>(std::ranges::data(range)), std::ranges::size(range)};
}

/// Writes `value` to `out` in network byte order (most significant byte first); returns the end of what was written.
template <std::unsigned_integral T>
constexpr char* write_big_endian(char* out, T value) noexcept {
    for (int shift = static_cast<int>(sizeof(T)) * 8 - 8; shift >= 0; shift -= 8)
        *out++ = static_cast<char>(static_cast<unsigned char>(value >> shift));
    return out;
}

/// Reads a `T` in network byte order from the first `sizeof(T)` bytes at `in`.
template <std::unsigned_integral T>
constexpr T read_big_endian(char const* in) noexcept {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        value = static_cast<T>((value << 8) | static_cast<unsigned char>(in[i]));
    return value;
}

}  // namespace runnel
