#pragma once

#include <runnel/mqtt/reason_code.hpp>
#include <runnel/transport/error.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>

namespace runnel::mqtt {

/// Whether another attempt to connect with the same settings may succeed after this failure. It cannot when one side
/// refuses who the other is or how it speaks: credentials, client identifier, protocol version, certificate. Whatever
/// else fails (the network, a busy server) may be mended by time.
inline bool is_worth_retrying(std::error_code why) noexcept {
    if (why.category() == make_error_code(transport_errc{}).category())
        return why.value() >= static_cast<int>(transport_errc::not_tls);
    if (why.category() != make_error_code(reason_code{}).category()) return true;
    switch (static_cast<reason_code>(why.value())) {
        case reason_code::malformed_packet:
        case reason_code::protocol_error:
        case reason_code::unsupported_protocol_version:
        case reason_code::client_identifier_not_valid:
        case reason_code::bad_user_name_or_password:
        case reason_code::not_authorized:
        case reason_code::banned:
        case reason_code::bad_authentication_method: return false;
        default: return true;
    }
}

/// When to connect again after a connection has failed: after a pause that grows with each failure in a row.
struct reconnect_policy {
    std::chrono::milliseconds initial{1000};    ///< the first pause, 1 ms or more
    std::chrono::milliseconds maximum{60'000};  ///< no pause is longer; at least `initial`
    double multiplier = 2;                      ///< from one pause to the next, 1 or more
    double jitter = 0.25;                       ///< each pause is longer or shorter by up to this share of it, 0 to 1
    std::uint32_t attempts = 0;                 ///< failures in a row after which `run` gives up; 0: never
    /// A connection that has lasted this long ends the row of failures.
    std::chrono::milliseconds stable_after{10'000};
    /// Whether to try again after this failure; by default `is_worth_retrying`.
    std::function<bool(std::error_code)> retry = is_worth_retrying;
};

/// Throws `std::out_of_range`, with the range in its text, if the policy is not possible.
inline void check(reconnect_policy const& p) {
    using namespace std::chrono_literals;
    if (p.initial < 1ms) throw std::out_of_range("reconnect.initial must be 1 ms or more");
    if (p.maximum < p.initial) throw std::out_of_range("reconnect.maximum must not be less than reconnect.initial");
    if (!(p.multiplier >= 1)) throw std::out_of_range("reconnect.multiplier must be 1 or more");
    if (!(p.jitter >= 0 && p.jitter <= 1)) throw std::out_of_range("reconnect.jitter must be 0 to 1");
}

/// The pause before the attempt that follows `failures` failures in a row (1 or more). `random` is uniform in [0, 1).
inline std::chrono::milliseconds pause_after(reconnect_policy const& p, std::uint32_t failures, double random) {
    auto const initial = static_cast<double>(p.initial.count());
    auto const maximum = static_cast<double>(p.maximum.count());
    double const grown = std::min(maximum, initial * std::pow(p.multiplier, std::min(failures, 1000u) - 1));
    double const jittered = grown * (1 + p.jitter * (2 * random - 1));
    return std::chrono::milliseconds(static_cast<std::int64_t>(std::min(maximum, jittered)));
}

}  // namespace runnel::mqtt
