#pragma once

#include <chrono>
#include <cinttypes>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace simulation {

/// What has happened in a run, a line each, as a hash and, on demand, as text; and what was wrong with it.
class trace {
  public:
    /// `prints`: every line is written to stdout.
    explicit trace(bool prints) : prints_(prints) {}

    [[gnu::format(printf, 2, 3)]] void say(char const* format, ...) {
        std::va_list arguments;
        va_start(arguments, format);
        add(format, arguments);
        va_end(arguments);
    }

    /// The run is not as it must be. The first few are kept.
    [[gnu::format(printf, 2, 3)]] void fail(char const* format, ...) {
        std::va_list arguments;
        va_start(arguments, format);
        std::string line = "WRONG: ";
        add((line + format).c_str(), arguments);
        va_end(arguments);
        if (failures_.size() < 10) failures_.push_back(last_);
    }

    std::vector<std::string> const& failures() const noexcept { return failures_; }
    std::uint64_t hash() const noexcept { return hash_; }
    std::uint64_t lines() const noexcept { return lines_; }

  private:
    void add(char const* format, std::va_list arguments) {
        auto const now = std::chrono::steady_clock::now().time_since_epoch().count() - 100'000'000'000'000;
        char line[512];
        int const head =
            std::snprintf(line, sizeof(line), "%" PRId64 ".%09" PRId64 " ", now / 1'000'000'000, now % 1'000'000'000);
        std::vsnprintf(line + head, sizeof(line) - static_cast<std::size_t>(head), format, arguments);
        last_ = line;
        for (char const c : last_) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100'0000'01B3;  // FNV-1a
        ++lines_;
        if (prints_) std::puts(line);
    }

    bool prints_;
    std::uint64_t hash_ = 0xCBF2'9CE4'8422'2325;
    std::uint64_t lines_ = 0;
    std::string last_;
    std::vector<std::string> failures_;
};

}  // namespace simulation
