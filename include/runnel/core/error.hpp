#pragma once

#include <runnel/core/compiler.hpp>

#include <cstddef>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

namespace runnel {

/// The error category of a layer's error enum.
///
/// A layer declares `enum class errc`, `char const* category_name(errc)` and `char const* describe(errc)` beside it,
/// specialises `std::is_error_code_enum`, and returns `make_layer_error(e)` from its `make_error_code`. It may declare
/// `std::error_condition condition_of(errc)`, empty for values that mean nothing to other layers.
/// Value 0 is success in every layer, so that a `std::error_code` made of it is false.
class layer_error_category final : public std::error_category {
  public:
    using describe_function = char const* (*)(int) noexcept;
    using condition_function = std::error_condition (*)(int) noexcept;

    constexpr layer_error_category(char const* name, describe_function describe, condition_function condition) noexcept
        : name_(name), describe_(describe), condition_(condition) {}
    layer_error_category(layer_error_category const&) = delete;
    layer_error_category& operator=(layer_error_category const&) = delete;

    char const* name() const noexcept override { return name_; }
    RUNNEL_COLD std::string message(int value) const override { return describe_(value); }
    RUNNEL_COLD std::error_condition default_error_condition(int value) const noexcept override {
        if (condition_ != nullptr)
            if (auto const condition = condition_(value)) return condition;
        return {value, *this};
    }

  private:
    char const* name_;
    describe_function describe_;
    condition_function condition_;
};

/// The category of a layer's errors. It is never destroyed, as errors may be looked at until the very end.
template <class Enum>
std::error_category const& layer_category() noexcept {
    constexpr auto describe_value = [](int value) noexcept { return describe(static_cast<Enum>(value)); };
    constexpr auto condition = []() noexcept -> layer_error_category::condition_function {
        if constexpr (requires { condition_of(Enum{}); })
            return [](int value) noexcept { return condition_of(static_cast<Enum>(value)); };
        else
            return nullptr;
    };
    alignas(layer_error_category) static std::byte place[sizeof(layer_error_category)];
    static auto const* const category =
        ::new (static_cast<void*>(place)) layer_error_category(category_name(Enum{}), describe_value, condition());
    return *category;
}

/// Whether an error is one of this layer's: by the name of its category, so that who asks does not bring the layer's
/// texts into the program. Nothing else makes errors of that name.
template <class Enum>
bool is_error_of(std::error_code const& e) noexcept {
    return std::string_view(e.category().name()) == category_name(Enum{});
}

/// `value` as a `std::error_code` of its layer's category.
template <class Enum>
std::error_code make_layer_error(Enum value) noexcept {
    return {static_cast<int>(value), layer_category<Enum>()};
}

}  // namespace runnel
