#pragma once

#include <runnel/core/secret.hpp>
#include <runnel/core/to_size.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace runnel::digest {

/// A hash function that takes its input in pieces: what `hmac` and `compute` work with. `md5`, `sha1`, `sha256` and
/// `sha512` are models; another one can be supplied.
///
/// - `digest_size`, `block_size`: bytes of the result, and of the blocks the function works on (HMAC needs the latter).
/// - A default-constructed object has had no input; a copy goes on from where the original was.
/// - `update(bytes)` adds input; how it is cut into pieces does not matter.
/// - `finish()` gives the digest of all input. The object must then be assigned to before it is used again.
template <class H>
concept hash = std::default_initializable<H> && std::copyable<H> && requires(H& h, std::string_view bytes) {
    { H::digest_size } -> std::convertible_to<std::size_t>;
    { H::block_size } -> std::convertible_to<std::size_t>;
    requires H::digest_size <= H::block_size;
    h.update(bytes);
    { h.finish() } -> std::same_as<std::array<char, H::digest_size>>;
};

/// The digest of `bytes` in one go: `compute<sha256>("abc")`.
template <hash H>
constexpr std::array<char, H::digest_size> compute(std::string_view bytes) {
    H h;
    h.update(bytes);
    auto const digest = h.finish();
    if constexpr (std::is_trivially_copyable_v<H>) secure_wipe(h);  // it may have been a secret
    return digest;
}

/// A digest's bytes as a view.
template <std::size_t N>
constexpr std::string_view view(std::array<char, N> const& digest) noexcept {
    return {digest.data(), digest.size()};
}

/// Reads a word of 32 or 64 bits from the bytes at `in`, in the order `Order`.
template <std::endian Order, std::unsigned_integral Word = std::uint32_t>
constexpr Word load_word(char const* in) noexcept {
    constexpr bool big = Order == std::endian::big;
    if constexpr (sizeof(Word) == 8) {
        std::uint64_t const first = load_word<Order>(in), second = load_word<Order>(in + 4);
        return big ? first << 32 | second : second << 32 | first;
    } else {
        // Written out, because g++ -O2 makes one load of this but not of a loop.
        auto const byte = [in](int i) { return Word{static_cast<unsigned char>(in[i])}; };
        if constexpr (big) return byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
        return byte(3) << 24 | byte(2) << 16 | byte(1) << 8 | byte(0);
    }
}

/// Writes a word of 32 or 64 bits to the bytes at `out`, in the order `Order`.
template <std::endian Order, std::unsigned_integral Word>
constexpr void store_word(char* out, Word value) noexcept {
    constexpr int last = sizeof(Word) - 1;
    for (int i = 0; i <= last; ++i)
        out[Order == std::endian::big ? last - i : i] = static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
}

/// What MD5, SHA-1 and the SHA-2 functions have in common: input gathered into blocks of 16 words, each folded into a
/// state of such words, and after the last byte a one bit, zeros, and in the block's last two words the input's length
/// in bits (RFC 1321 3.1-3.2, FIPS 180-4 5.1). Inputs are shorter than 2^61 bytes.
///
/// `Compression` supplies `state_type` (an array of words of 32 or 64 bits), `initial_state`, `byte_order` (big, with
/// words of 64 bits) and `compress(state, blocks, count)`.
template <class Compression>
class block_hash {
    static constexpr std::size_t word_size = sizeof(typename Compression::state_type::value_type);

  public:
    static constexpr std::size_t block_size = 16 * word_size;
    static constexpr std::size_t digest_size = sizeof(typename Compression::state_type);
    using digest_type = std::array<char, digest_size>;

    /// Adds `bytes` to the input.
    constexpr void update(std::string_view bytes) noexcept {
        std::size_t const held = to_size(length_ % block_size);
        length_ += bytes.size();
        if (held != 0) {
            std::size_t const room = (std::min)(block_size - held, bytes.size());
            std::copy_n(bytes.data(), room, partial_.data() + held);
            bytes.remove_prefix(room);
            if (held + room < block_size) return;
            Compression::compress(state_, partial_.data(), 1);
        }
        std::size_t const whole = bytes.size() / block_size;
        if (whole != 0) Compression::compress(state_, bytes.data(), whole);
        bytes.remove_prefix(whole * block_size);
        std::copy_n(bytes.data(), bytes.size(), partial_.data());
    }

    /// The digest of all input so far. The object must then be assigned to before it is used again.
    constexpr digest_type finish() noexcept {
        constexpr std::size_t length_at = block_size - sizeof(length_);  // its lower 64 bits
        std::size_t held = to_size(length_ % block_size);
        partial_[held++] = static_cast<char>(0x80);
        if (held > block_size - 2 * word_size) {
            std::fill(partial_.begin() + static_cast<std::ptrdiff_t>(held), partial_.end(), '\0');
            Compression::compress(state_, partial_.data(), 1);
            held = 0;
        }
        std::fill(partial_.begin() + static_cast<std::ptrdiff_t>(held), partial_.end(), '\0');
        constexpr bool big = Compression::byte_order == std::endian::big;
        std::uint64_t const bits = length_ * 8;
        store_word<Compression::byte_order>(partial_.data() + length_at + (big ? 4 : 0),
                                            static_cast<std::uint32_t>(bits));
        store_word<Compression::byte_order>(partial_.data() + length_at + (big ? 0 : 4),
                                            static_cast<std::uint32_t>(bits >> 32));
        Compression::compress(state_, partial_.data(), 1);

        digest_type digest{};
        for (std::size_t i = 0; i < state_.size(); ++i)
            store_word<Compression::byte_order>(digest.data() + word_size * i, state_[i]);
        return digest;
    }

  private:
    typename Compression::state_type state_ = Compression::initial_state;
    std::uint64_t length_ = 0;
    std::array<char, block_size> partial_{};
};

}  // namespace runnel::digest
