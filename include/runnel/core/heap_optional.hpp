#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace runnel {

/// As `std::optional`, for what is seldom there: without a value it takes the room of a pointer, with one an
/// allocation. It has its value alone: a copy of it has a copy.
template <class T>
class heap_optional {
  public:
    using value_type = T;

    heap_optional() noexcept = default;
    heap_optional(std::nullopt_t) noexcept {}
    heap_optional(T value) : value_(std::make_unique<T>(std::move(value))) {}
    heap_optional(heap_optional const& o) : value_(o ? std::make_unique<T>(*o) : nullptr) {}
    heap_optional(heap_optional&&) noexcept = default;
    ~heap_optional() = default;

    heap_optional& operator=(heap_optional const& o) { return *this = heap_optional(o); }
    heap_optional& operator=(heap_optional&&) noexcept = default;
    heap_optional& operator=(std::nullopt_t) noexcept {
        reset();
        return *this;
    }
    template <class U = T>
    requires(std::constructible_from<T, U> && !std::same_as<std::remove_cvref_t<U>, heap_optional>)
    heap_optional& operator=(U&& value) {
        emplace(std::forward<U>(value));
        return *this;
    }

    template <class... Arguments>
    T& emplace(Arguments&&... arguments) {
        value_ = std::make_unique<T>(std::forward<Arguments>(arguments)...);
        return *value_;
    }
    void reset() noexcept { value_.reset(); }

    bool has_value() const noexcept { return value_ != nullptr; }
    explicit operator bool() const noexcept { return has_value(); }
    /// Only with a value.
    T& operator*() noexcept { return *value_; }
    T const& operator*() const noexcept { return *value_; }
    T* operator->() noexcept { return value_.get(); }
    T const* operator->() const noexcept { return value_.get(); }

  private:
    std::unique_ptr<T> value_{};
};

}  // namespace runnel
