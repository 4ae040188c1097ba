#pragma once

#include <runnel/aliyun/alink/protocol/codec.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

// Logs of the device, shown in the platform's console.

namespace runnel::aliyun::alink {

/// How grave a log entry is.
enum class log_level : std::uint8_t { fatal, error, warn, info, debug };

/// The platform's name for a level.
constexpr std::string_view name_of(log_level level) noexcept {
    constexpr std::array<std::string_view, 5> names = {"FATAL", "ERROR", "WARN", "INFO", "DEBUG"};
    return names[static_cast<std::size_t>(level)];
}

/// One line of a log: views, which must be valid until it is posted.
struct log_entry {
    std::chrono::system_clock::time_point time{};
    log_level level = log_level::info;
    std::string_view module{};            ///< at most 32 characters
    std::string_view code{};              ///< a result, at most 16 characters
    std::string_view content{};           ///< at most 4096 characters
    std::string_view trace_context = {};  ///< links lines that belong together, at most 64 characters
};

/// A time as the logs have it, in UTC: "2020-03-06T15:15:27.464+0000".
inline std::string log_time(std::chrono::system_clock::time_point time) {
    using namespace std::chrono;
    auto const day = floor<days>(time);
    year_month_day const date{day};
    hh_mm_ss const clock{floor<milliseconds>(time - day)};
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02d.%03d+0000", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                  static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
    return text.data();
}

/// Whether logs are wanted, by the platform's `{"content":{"mode":0 or 1}}`.
inline errc read_log_mode(json const& config, bool& wanted) {
    json const* const content = find(config, "content");
    if (content == nullptr || find(*content, "mode") == nullptr) return errc::member_missing;
    int mode = 0;
    if (!read_number(*content, "mode", mode)) return errc::member_of_wrong_type;
    wanted = mode != 0;
    return errc::ok;
}

/// The parameters of a post.
inline json make_log(std::span<log_entry const> entries) {
    json list = json::array();
    for (auto const& e : entries) {
        json line = {{"utcTime", log_time(e.time)},
                     {"logLevel", name_of(e.level)},
                     {"module", e.module},
                     {"code", e.code},
                     {"logContent", e.content}};
        if (!e.trace_context.empty()) line["traceContext"] = e.trace_context;
        list.push_back(std::move(line));
    }
    return list;
}

}  // namespace runnel::aliyun::alink
