#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

namespace test {

/// Random values for property-based tests. Tests print the seed where a check fails (`CAPTURE(random.seed())`), so that
/// the case can be run again.
class random_source {
  public:
    explicit random_source(std::uint32_t seed) : seed_(seed), engine_(seed) {}
    /// The values that these bytes choose, four a value, and random ones when they are used up: for fuzzers. The bytes
    /// must outlive the source.
    explicit random_source(std::string_view choices) : random_source(0) { choices_ = choices; }

    std::uint32_t seed() const noexcept { return seed_; }

    /// A number from `low` to `high`.
    template <class T = std::size_t>
    T between(std::size_t low, std::size_t high) {
        // In 64 bits: where a size has 32, all its values are one more than it can tell.
        return static_cast<T>(low + static_cast<std::uint64_t>(next()) % (std::uint64_t{high} - low + 1));
    }

    /// True once in `n` times.
    bool one_in(std::size_t n) { return between(1, n) == 1; }

    /// A string of 0 to `longest` of these characters.
    std::string string_of(std::string_view characters, std::size_t longest) {
        std::string text(between(0, longest), '\0');
        for (auto& c : text) c = characters[between(0, characters.size() - 1)];
        return text;
    }

    /// 0 to `longest` bytes of any values.
    std::string bytes(std::size_t longest) {
        std::string data(between(0, longest), '\0');
        for (auto& byte : data) byte = static_cast<char>(between(0, 255));
        return data;
    }

  private:
    std::uint32_t next() {
        if (choices_.empty()) return static_cast<std::uint32_t>(engine_());
        std::uint32_t value = 0;
        for (int i = 0; i < 4 && !choices_.empty(); ++i) {
            value = value << 8 | static_cast<unsigned char>(choices_[0]);
            choices_.remove_prefix(1);
        }
        return value;
    }

    std::uint32_t seed_;
    std::mt19937 engine_;
    std::string_view choices_;
};

}  // namespace test
