#pragma once

#include <runnel/core/secret.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace runnel::digest {

/// A hash function that takes its input in pieces: what `hmac` and `compute` work with. `md5`, `sha1` and `sha256` are
/// models; another one can be supplied.
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

/// Reads 32 bits from the four bytes at `in`, in the order `Order`.
template <std::endian Order>
constexpr std::uint32_t load_word(char const* in) noexcept {
    // Written out, because g++ -O2 makes one load of this but not of a loop.
    auto const byte = [in](int i) { return std::uint32_t{static_cast<unsigned char>(in[i])}; };
    if constexpr (Order == std::endian::big) return byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
    return byte(3) << 24 | byte(2) << 16 | byte(1) << 8 | byte(0);
}

/// Writes 32 bits to the four bytes at `out`, in the order `Order`.
template <std::endian Order>
constexpr void store_word(char* out, std::uint32_t value) noexcept {
    for (int i = 0; i < 4; ++i)
        out[Order == std::endian::big ? 3 - i : i] = static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
}

/// What MD5, SHA-1 and SHA-256 have in common: input gathered into blocks of 64 bytes, each folded into a state of
/// 32-bit words, and after the last byte a one bit, zeros, and the input's length in bits (RFC 1321 3.1-3.2, FIPS
/// 180-4 5.1.1).
///
/// `Compression` supplies `state_type`, `initial_state`, `byte_order` and `compress(state, blocks, count)`.
template <class Compression>
class block_hash {
  public:
    static constexpr std::size_t block_size = 64;
    static constexpr std::size_t digest_size = sizeof(typename Compression::state_type);
    using digest_type = std::array<char, digest_size>;

    /// Adds `bytes` to the input.
    constexpr void update(std::string_view bytes) noexcept {
        std::size_t const held = static_cast<std::size_t>(length_ % block_size);
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
        constexpr std::size_t length_at = block_size - sizeof(length_);
        std::size_t held = static_cast<std::size_t>(length_ % block_size);
        partial_[held++] = static_cast<char>(0x80);
        if (held > length_at) {
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
            store_word<Compression::byte_order>(digest.data() + 4 * i, state_[i]);
        return digest;
    }

  private:
    typename Compression::state_type state_ = Compression::initial_state;
    std::uint64_t length_ = 0;
    std::array<char, block_size> partial_{};
};

}  // namespace runnel::digest
