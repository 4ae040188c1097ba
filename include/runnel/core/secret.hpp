#pragma once

#include <runnel/core/compiler.hpp>

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace runnel {

/// Overwrites `size` bytes at `data` with zeros in a way that the compiler does not remove, even when nobody reads them
/// again. For keys, passwords and what was derived from them. In a constant expression, which leaves no memory behind,
/// it does nothing.
constexpr void secure_wipe(char* data, std::size_t size) noexcept {
    if (std::is_constant_evaluated()) return;
#if RUNNEL_GNU
    std::memset(data, 0, size);
    RUNNEL_MEMORY_IS_READ(data);
#else
    for (char volatile* byte = data; size > 0; --size) *byte++ = 0;
#endif
}

/// Overwrites the whole representation of `object` with zeros (see above). Whoever uses the object again must be
/// content with all its bytes being zero, or assign to it first.
template <class T>
requires(std::is_trivially_copyable_v<T> && !std::is_const_v<T> && !std::is_pointer_v<T>)
constexpr void secure_wipe(T& object) noexcept {
    if (!std::is_constant_evaluated()) secure_wipe(reinterpret_cast<char*>(&object), sizeof(object));
}

/// Overwrites all the memory of a string with zeros and makes it empty.
inline void secure_wipe(std::string& text) noexcept {
    text.resize(text.capacity());
    secure_wipe(text.data(), text.size());
    text.clear();
}

/// A string whose memory is overwritten when it goes, or gets another value: a password, a key. Otherwise a
/// `std::string`; what is made of its contents elsewhere is not its business.
class secret_string : public std::string {
  public:
    using std::string::string;
    secret_string() noexcept = default;
    secret_string(std::string const& text) : std::string(text) {}
    secret_string(std::string_view text) : std::string(text) {}
    secret_string(std::string&& text) noexcept : std::string(std::move(text)) {}
    secret_string(secret_string const&) = default;
    secret_string(secret_string&& other) noexcept = default;
    secret_string& operator=(secret_string other) noexcept {
        swap(other);
        return *this;
    }
    ~secret_string() { secure_wipe(*this); }
};

/// Wipes an object, which has a member `wipe()`, at the end of a scope.
template <class T>
class wiped_at_end {
  public:
    explicit wiped_at_end(T& object) noexcept : object_(object) {}
    wiped_at_end(wiped_at_end const&) = delete;
    wiped_at_end& operator=(wiped_at_end const&) = delete;
    ~wiped_at_end() { object_.wipe(); }

  private:
    T& object_;
};

/// Whether `a` and `b` hold the same bytes. The time it takes depends on the sizes only, not on where the bytes differ,
/// so that a peer cannot find out a password or a signature byte by byte.
constexpr bool equal_in_constant_time(std::string_view a, std::string_view b) noexcept {
    if (a.size() != b.size()) return false;
    unsigned difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned>(static_cast<unsigned char>(b[i]));
#if RUNNEL_GNU
        // Keeps the compiler from leaving the loop once the answer is known.
        if (!std::is_constant_evaluated()) RUNNEL_VALUE_CHANGES(difference);
#endif
    }
    return difference == 0;
}

}  // namespace runnel
