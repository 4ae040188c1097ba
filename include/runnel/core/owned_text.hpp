#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>

namespace runnel {

/// Of the types of forwarding references: a string that its caller gives away, a temporary or what is moved from. A
/// coroutine that is to outlive the call keeps it; all else it takes as a view.
template <class T>
concept owned_text = std::same_as<std::remove_cv_t<T>, std::string>;

/// What a coroutine keeps of such an argument.
template <class T>
using kept_text = std::conditional_t<owned_text<T>, std::string, std::string_view>;

/// The result of `subscribe({"a", "b"})`, which does not compile, so that there is a text that says what to write
/// instead. (Else the braces would make one view of two pointers, and g++ 12 compiles no braced list in a `co_await`
/// expression.)
template <class T, class Result>
struct refused_braces {
    static_assert(sizeof(T) == 0,
                  "subscribe: write one topic filter without braces, and several as an array with a name: "
                  "std::array<std::string_view, 2> const filters = {\"a\", \"b\"}");
    using type = Result;
};

}  // namespace runnel
