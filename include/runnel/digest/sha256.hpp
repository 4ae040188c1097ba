#pragma once

#include <runnel/digest/detail/sha2.hpp>
#include <runnel/digest/detail/x86_sha.hpp>
#include <runnel/digest/hash.hpp>

namespace runnel::digest {

/// SHA-256's compression function (FIPS 180-4 6.2.2).
struct sha256_compression {
    using word = std::uint32_t;
    using state_type = std::array<word, 8>;
    static constexpr state_type initial_state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    static constexpr std::endian byte_order = std::endian::big;
    static constexpr int upper_0[3] = {2, 13, 22}, upper_1[3] = {6, 11, 25};
    static constexpr int lower_0[3] = {7, 18, 3}, lower_1[3] = {17, 19, 10};

    /// Folds `count` blocks of 64 bytes into `state`.
    static constexpr void compress(state_type& state, char const* blocks, std::size_t count) noexcept {
#if defined(RUNNEL_X86_SHA)
        if (detail::x86_sha::available())
            return detail::x86_sha::compress_sha256(state.data(), constants, blocks, count);
#endif
        compress_portably(state, blocks, count);
    }

    /// The same in plain C++.
    static constexpr void compress_portably(state_type& state, char const* blocks, std::size_t count) noexcept {
        detail::sha2<sha256_compression>::compress(state, blocks, count);
    }

    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4 4.2.2).
    static constexpr word constants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
};

/// SHA-256 (FIPS 180-4).
using sha256 = block_hash<sha256_compression>;

}  // namespace runnel::digest
