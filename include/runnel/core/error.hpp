#pragma once

#include <string>
#include <system_error>

namespace runnel {

/// The error category of one layer's error enum.
///
/// A layer declares `enum class errc`, `char const* category_name(errc)` and `char const* describe(errc)` beside it,
/// specialises `std::is_error_code_enum`, and returns `make_layer_error(e)` from its `make_error_code`. It may declare
/// `std::error_condition condition_of(errc)`, empty for values that mean nothing to other layers.
/// Value 0 is success in every layer, so that a `std::error_code` made of it is false.
template <class Enum>
class layer_error_category final : public std::error_category {
  public:
    char const* name() const noexcept override { return category_name(Enum{}); }
    [[gnu::cold]] std::string message(int value) const override { return describe(static_cast<Enum>(value)); }
    [[gnu::cold]] std::error_condition default_error_condition(int value) const noexcept override {
        if constexpr (requires { condition_of(Enum{}); })
            if (auto const condition = condition_of(static_cast<Enum>(value))) return condition;
        return {value, *this};
    }
};

/// `value` as a `std::error_code` of its layer's category.
template <class Enum>
std::error_code make_layer_error(Enum value) noexcept {
    static layer_error_category<Enum> const category;
    return {static_cast<int>(value), category};
}

}  // namespace runnel
