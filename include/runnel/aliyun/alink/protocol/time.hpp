#pragma once

#include <runnel/aliyun/alink/protocol/codec.hpp>

#include <chrono>
#include <cstdint>
#include <string_view>

// The platform's own exchange of times (topics /ext/ntp/...), in milliseconds since 1970.

namespace runnel::aliyun::alink {

/// The platform's answer to a question about the time, all in milliseconds since 1970.
struct time_answer {
    std::int64_t device_sent = 0;  ///< by the device's clock, as it was in the question
    std::int64_t server_received = 0;
    std::int64_t server_sent = 0;
    /// No time is later: the end of the year 9999.
    static constexpr std::int64_t latest = 253'402'300'799'999;
};

/// Reads such an answer; `out` is left alone on an error.
inline errc decode(std::string_view text, time_answer& out) {
    json message;
    if (errc const e = parse_object(text, message); e != errc::ok) return e;
    time_answer made;
    for (auto const* name : {"deviceSendTime", "serverRecvTime", "serverSendTime"})
        if (find(message, name) == nullptr) return errc::member_missing;
    if (!read_number(message, "deviceSendTime", made.device_sent) ||
        !read_number(message, "serverRecvTime", made.server_received) ||
        !read_number(message, "serverSendTime", made.server_sent))
        return errc::member_of_wrong_type;
    for (auto const time : {made.device_sent, made.server_received, made.server_sent})
        if (time < 0 || time > time_answer::latest) return errc::member_of_wrong_type;
    out = made;
    return errc::ok;
}

/// How the platform's clock differs from the device's.
struct time_difference {
    /// To be added to the device's clock to get the platform's. Off by half of `round_trip` at most.
    std::chrono::milliseconds offset{0};
    /// Time under way, there and back.
    std::chrono::milliseconds round_trip{0};
};

/// The difference, when the answer to a question has come after `elapsed`, by a clock that nobody sets.
constexpr time_difference difference(time_answer const& a, std::chrono::milliseconds elapsed) noexcept {
    std::int64_t const device_received = a.device_sent + elapsed.count();
    std::int64_t const there = a.server_received - a.device_sent;
    std::int64_t const back = a.server_sent - device_received;
    return {std::chrono::milliseconds((there + back) / 2),
            elapsed - std::chrono::milliseconds(a.server_sent - a.server_received)};
}

}  // namespace runnel::aliyun::alink
