#pragma once

#include <runnel/digest/hash.hpp>

namespace runnel::digest::detail {

/// The steps of a SHA-2 function in plain C++ (FIPS 180-4 6.2.2 and 6.4.2, which differ in numbers only).
///
/// `Variant` supplies `word`; `constants`, one a step; and by how much the words are rotated in the functions of 4.1.2
/// and 4.1.3: `upper_0`, `upper_1`, and `lower_0`, `lower_1`, whose third is a shift.
template <class Variant>
class sha2 {
  public:
    using word = typename Variant::word;
    using state_type = std::array<word, 8>;
    static constexpr std::endian byte_order = std::endian::big;
    static constexpr std::size_t block_size = 16 * sizeof(word);

    /// Folds `count` blocks into `state`.
    static constexpr void compress(state_type& state, char const* blocks, std::size_t count) noexcept {
        schedule_type schedule{};
        for (; count > 0; --count, blocks += block_size) {
            for (std::size_t i = 0; i < schedule.size(); ++i)
                schedule[i] = load_word<byte_order, word>(blocks + sizeof(word) * i);
            state_type s = state;
            steps(s, schedule);
            for (std::size_t i = 0; i < state.size(); ++i) state[i] += s[i];
        }
        secure_wipe(schedule);  // HMAC's first block is the key
    }

  private:
    using schedule_type = std::array<word, 16>;
    using rotations = int const (&)[3];
    static constexpr std::size_t count_of_steps = std::size(Variant::constants);

    static constexpr word upper(word x, rotations by) noexcept {
        return std::rotr(x, by[0]) ^ std::rotr(x, by[1]) ^ std::rotr(x, by[2]);
    }
    static constexpr word lower(word x, rotations by) noexcept {
        return std::rotr(x, by[0]) ^ std::rotr(x, by[1]) ^ (x >> by[2]);
    }

    // The schedule's word for step `T`, kept in a ring of 16.
    template <std::size_t T>
    static constexpr word scheduled(schedule_type& w) noexcept {
        if constexpr (T >= 16)
            w[T % 16] +=
                lower(w[(T + 1) % 16], Variant::lower_0) + w[(T + 9) % 16] + lower(w[(T + 14) % 16], Variant::lower_1);
        return w[T % 16];
    }

    // The eight variables a..h are not moved from step to step; each step finds them one place further on.
    template <std::size_t T = 0>
    static constexpr void steps(state_type& s, schedule_type& w) noexcept {
        constexpr auto at = [](std::size_t variable) { return (variable + count_of_steps - T) % 8; };
        word const a = s[at(0)], b = s[at(1)], c = s[at(2)], e = s[at(4)];
        word const choice = s[at(6)] ^ (e & (s[at(5)] ^ s[at(6)]));
        word const majority = (a & b) | (c & (a | b));
        word const t1 = s[at(7)] + upper(e, Variant::upper_1) + choice + Variant::constants[T] + scheduled<T>(w);
        s[at(3)] += t1;
        s[at(7)] = t1 + upper(a, Variant::upper_0) + majority;
        if constexpr (T + 1 < count_of_steps) steps<T + 1>(s, w);
    }
};

}  // namespace runnel::digest::detail
