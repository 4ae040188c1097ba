#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

// What the fuzzers share.

namespace test {

/// What must hold, whatever the input is.
inline void require(bool holds) {
    if (!holds) std::abort();
}

/// Takes an input apart. Of an input that is used up, all is zero and empty.
class input_reader {
  public:
    input_reader(std::uint8_t const* data, std::size_t size) : rest_(reinterpret_cast<char const*>(data), size) {}

    bool empty() const { return rest_.empty(); }
    std::string_view rest() const { return rest_; }
    std::uint8_t byte() {
        if (empty()) return 0;
        auto const value = static_cast<std::uint8_t>(rest_[0]);
        rest_.remove_prefix(1);
        return value;
    }
    std::string_view bytes(std::size_t most) {
        auto const taken = rest_.substr(0, most);
        rest_.remove_prefix(taken.size());
        return taken;
    }
    /// What is before the next `end`, which is taken, too.
    std::string_view until(char end) {
        auto const taken = rest_.substr(0, rest_.find(end));
        rest_.remove_prefix(taken.size() + (taken.size() < rest_.size() ? 1 : 0));
        return taken;
    }

  private:
    std::string_view rest_;
};

}  // namespace test
