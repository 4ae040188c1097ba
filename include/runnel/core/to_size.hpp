#pragma once

#include <concepts>
#include <cstddef>

namespace runnel {

/// A number as a size. The caller knows that it fits: on machines of 32 bits there are more numbers than sizes. A
/// template, because where both are one type a plain cast has g++ warn of it (-Wuseless-cast).
template <std::unsigned_integral T>
constexpr std::size_t to_size(T number) noexcept {
    return static_cast<std::size_t>(number);
}

}  // namespace runnel
