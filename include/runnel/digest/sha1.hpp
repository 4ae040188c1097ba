#pragma once

#include <runnel/digest/detail/x86_sha.hpp>
#include <runnel/digest/hash.hpp>

namespace runnel::digest {

/// SHA-1's compression function (FIPS 180-4 6.1.2).
struct sha1_compression {
    using state_type = std::array<std::uint32_t, 5>;
    static constexpr state_type initial_state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    static constexpr std::endian byte_order = std::endian::big;

    /// Folds `count` blocks of 64 bytes into `state`.
    static constexpr void compress(state_type& state, char const* blocks, std::size_t count) noexcept {
#if defined(RUNNEL_X86_SHA)
        if (detail::x86_sha::available()) return detail::x86_sha::compress_sha1(state.data(), blocks, count);
#endif
        compress_portably(state, blocks, count);
    }

    /// The same in plain C++.
    static constexpr void compress_portably(state_type& state, char const* blocks, std::size_t count) noexcept {
        schedule_type schedule{};
        for (; count > 0; --count, blocks += 64) {
            for (std::size_t i = 0; i < schedule.size(); ++i) schedule[i] = load_word<byte_order>(blocks + 4 * i);
            compress(state, schedule);
        }
        secure_wipe(schedule);  // HMAC's first block is the key
    }

  private:
    using schedule_type = std::array<std::uint32_t, 16>;
    static constexpr std::uint32_t constants[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};

    template <std::size_t Round>
    static constexpr std::uint32_t mix(std::uint32_t b, std::uint32_t c, std::uint32_t d) noexcept {
        if constexpr (Round == 0) return d ^ (b & (c ^ d));
        if constexpr (Round == 2) return (b & c) + (d & (b ^ c));
        return b ^ c ^ d;
    }

    // The schedule's word for step `T`, kept in a ring of 16.
    template <std::size_t T>
    static constexpr std::uint32_t word(schedule_type& w) noexcept {
        if constexpr (T >= 16) {
            std::uint32_t const mixed = w[(T + 13) % 16] ^ w[(T + 8) % 16] ^ w[(T + 2) % 16] ^ w[T % 16];
            w[T % 16] = std::rotl(mixed, 1);
        }
        return w[T % 16];
    }

    template <std::size_t T>
    static constexpr void step(std::uint32_t a, std::uint32_t& b, std::uint32_t c, std::uint32_t d, std::uint32_t& e,
                               schedule_type& w) noexcept {
        e += std::rotl(a, 5) + mix<T / 20>(b, c, d) + constants[T / 20] + word<T>(w);
        b = std::rotl(b, 30);
    }

    template <std::size_t T = 0>
    static constexpr void steps(state_type& s, schedule_type& w) noexcept {
        step<T>(s[0], s[1], s[2], s[3], s[4], w);
        step<T + 1>(s[4], s[0], s[1], s[2], s[3], w);
        step<T + 2>(s[3], s[4], s[0], s[1], s[2], w);
        step<T + 3>(s[2], s[3], s[4], s[0], s[1], w);
        step<T + 4>(s[1], s[2], s[3], s[4], s[0], w);
        if constexpr (T + 5 < 80) steps<T + 5>(s, w);
    }

    static constexpr void compress(state_type& state, schedule_type& schedule) noexcept {
        state_type s = state;
        steps(s, schedule);
        for (std::size_t i = 0; i < state.size(); ++i) state[i] += s[i];
    }
};

/// SHA-1 (FIPS 180-4, RFC 3174). Broken for signatures; needed by the WebSocket handshake (RFC 6455 4.2.2) and, within
/// HMAC, by the Aliyun IoT Platform.
using sha1 = block_hash<sha1_compression>;

}  // namespace runnel::digest
