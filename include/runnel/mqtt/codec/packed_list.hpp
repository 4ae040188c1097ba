#pragma once

#include <cstddef>
#include <iterator>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>

namespace runnel::mqtt {

/// A list inside a packet, as a view: either of the sender's objects, to be encoded, or of received bytes, decoded
/// while iterating. What it views must outlive it. A forward range of `T`.
///
/// `Codec::read(char const*& at, char const* end, T& out)` reads the next element of bytes that were validated before,
/// and returns false at their end.
template <class T, class Codec>
class packed_list {
  public:
    class iterator;
    using value_type = T;

    /// The empty list.
    constexpr packed_list() noexcept = default;

    /// The objects of a contiguous range that is an lvalue or a view: an array, a `std::vector`, a `std::span`.
    template <std::ranges::contiguous_range R>
    requires std::ranges::borrowed_range<R> && std::ranges::sized_range<R> &&
             std::is_same_v<std::ranges::range_value_t<R>, T>
    constexpr packed_list(R&& objects) noexcept : objects_(std::ranges::data(objects), std::ranges::size(objects)) {}

    /// One object.
    constexpr packed_list(T const& object) noexcept : objects_(&object, 1) {}
    packed_list(T const&& object) = delete;  // it would be gone at once

    /// The elements that `bytes`, which are valid, encode.
    static constexpr packed_list from_encoded(std::string_view bytes) noexcept {
        packed_list list;
        list.encoded_ = bytes;
        return list;
    }

    constexpr iterator begin() const noexcept;
    constexpr iterator end() const noexcept;
    constexpr bool empty() const noexcept { return begin() == end(); }

    /// True: neither objects nor bytes are viewed. (Bytes may be there and none of them be an element.)
    constexpr bool is_blank() const noexcept { return (objects_.size() | encoded_.size()) == 0; }

    /// The number of elements. Takes time in proportion to it if the list is encoded.
    constexpr std::size_t size() const noexcept {
        return objects_.empty() ? static_cast<std::size_t>(std::ranges::distance(begin(), end())) : objects_.size();
    }

    /// The sender's objects; none if the list is encoded.
    constexpr std::span<T const> objects() const noexcept { return objects_; }

    /// The encoded elements; none if the list is one of objects.
    constexpr std::string_view encoded() const noexcept { return encoded_; }

    /// Whether both lists have equal elements in the same order.
    friend constexpr bool operator==(packed_list const& a, packed_list const& b) noexcept {
        auto at = b.begin();
        for (T const& element : a) {
            if (at == b.end() || !(element == *at)) return false;
            ++at;
        }
        return at == b.end();
    }

  private:
    std::span<T const> objects_{};
    std::string_view encoded_{};
};

template <class T, class Codec>
class packed_list<T, Codec>::iterator {
  public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;  // of C++98, whose forward iterators return references
    using iterator_concept = std::forward_iterator_tag;

    constexpr iterator() noexcept = default;
    constexpr T operator*() const noexcept { return object_ ? *object_ : value_; }

    constexpr iterator& operator++() noexcept {
        if (object_)
            ++object_;
        else
            read();
        return *this;
    }
    constexpr iterator operator++(int) noexcept {
        auto const before = *this;
        ++*this;
        return before;
    }

    friend constexpr bool operator==(iterator const& a, iterator const& b) noexcept {
        return a.object_ == b.object_ && a.here_ == b.here_;
    }

  private:
    friend packed_list;
    constexpr explicit iterator(T const* object) noexcept : object_(object) {}
    constexpr iterator(char const* begin, char const* end) noexcept : next_(begin), end_(end) { read(); }

    constexpr void read() noexcept {
        here_ = next_;
        if (!Codec::read(next_, end_, value_)) here_ = nullptr;  // the end
    }

    T const* object_ = nullptr;
    char const* here_ = nullptr;  // where `value_` was read
    char const* next_ = nullptr;
    char const* end_ = nullptr;
    T value_{};
};

template <class T, class Codec>
constexpr auto packed_list<T, Codec>::begin() const noexcept -> iterator {
    if (!encoded_.empty()) return iterator(encoded_.data(), encoded_.data() + encoded_.size());
    return iterator(objects_.data());
}

template <class T, class Codec>
constexpr auto packed_list<T, Codec>::end() const noexcept -> iterator {
    if (!encoded_.empty()) return iterator();
    return iterator(objects_.data() + objects_.size());
}

}  // namespace runnel::mqtt
