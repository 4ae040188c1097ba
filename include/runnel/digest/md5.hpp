#pragma once

#include <runnel/digest/hash.hpp>

namespace runnel::digest {

/// MD5's compression function (RFC 1321 3.4).
struct md5_compression {
    using state_type = std::array<std::uint32_t, 4>;
    static constexpr state_type initial_state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    static constexpr std::endian byte_order = std::endian::little;

    /// Folds `count` blocks of 64 bytes into `state`.
    static constexpr void compress(state_type& state, char const* blocks, std::size_t count) noexcept {
        for (; count > 0; --count, blocks += 64) compress(state, blocks);
    }

  private:
    // floor(2^32 * abs(sin(i + 1))), RFC 1321 3.4.
    static constexpr std::uint32_t sines[64] = {
        0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
        0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
        0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
        0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
        0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
        0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
        0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
        0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
    static constexpr int rotations[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

    template <int Round>
    static constexpr std::uint32_t mix(std::uint32_t b, std::uint32_t c, std::uint32_t d) noexcept {
        // Rounds 1 and 2 in forms that take an operation less on the longest path than the RFC's. The two halves of
        // round 2 share no bits, so that adding them is as good as or-ing them and one of them is ready early.
        if constexpr (Round == 0) return d ^ (b & (c ^ d));
        if constexpr (Round == 1) return (d & b) + (~d & c);
        if constexpr (Round == 2) return b ^ c ^ d;
        return c ^ (b | ~d);
    }

    // Which of the block's 16 words step `i` takes.
    template <int Round>
    static constexpr std::size_t word_of(std::size_t i) noexcept {
        if constexpr (Round == 0) return i;
        if constexpr (Round == 1) return (5 * i + 1) % 16;
        if constexpr (Round == 2) return (3 * i + 5) % 16;
        return 7 * i % 16;
    }

    template <int Round, std::size_t Step>
    static constexpr void step(std::uint32_t& a, std::uint32_t b, std::uint32_t c, std::uint32_t d,
                               char const* block) noexcept {
        a += load_word<byte_order>(block + 4 * word_of<Round>(Step)) + sines[16 * Round + Step] + mix<Round>(b, c, d);
        a = b + std::rotl(a, rotations[Round][Step % 4]);
    }

    template <int Round, std::size_t Step = 0>
    static constexpr void round(state_type& s, char const* block) noexcept {
        step<Round, Step>(s[0], s[1], s[2], s[3], block);
        step<Round, Step + 1>(s[3], s[0], s[1], s[2], block);
        step<Round, Step + 2>(s[2], s[3], s[0], s[1], block);
        step<Round, Step + 3>(s[1], s[2], s[3], s[0], block);
        if constexpr (Step + 4 < 16) round<Round, Step + 4>(s, block);
    }

    static constexpr void compress(state_type& state, char const* block) noexcept {
        state_type s = state;
        round<0>(s, block);
        round<1>(s, block);
        round<2>(s, block);
        round<3>(s, block);
        for (std::size_t i = 0; i < state.size(); ++i) state[i] += s[i];
    }
};

/// MD5 (RFC 1321). Broken for signatures and certificates; still a method of the Aliyun IoT Platform within HMAC.
using md5 = block_hash<md5_compression>;

}  // namespace runnel::digest
