#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/transport/lasting_error.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <system_error>

namespace runnel {

/// What to do after a connection, or an attempt to make one, has failed.
enum class recovery : std::uint8_t {
    retry,              ///< the same may succeed later: the network, a busy server
    renew_credentials,  ///< the server does not accept who this is; fresh credentials may be accepted
    give_up,            ///< no attempt with these settings can succeed: client identifier, version, certificate
};

/// The recovery from a failure, unless the user knows better (`basic_reconnect_policy::classify`). Errors of layers
/// that are not known here speak by `std::errc`: `permission_denied` is a refusal of credentials, `invalid_argument` a
/// setting that cannot work.
RUNNEL_ALWAYS_INLINE inline recovery usual_recovery(std::error_code why) noexcept {
    if (is_lasting_error(why)) return recovery::give_up;
    if (why.category() == std::system_category()) return recovery::retry;
    if (why == std::errc::invalid_argument) return recovery::give_up;
    return why == std::errc::permission_denied ? recovery::renew_credentials : recovery::retry;
}

/// When to connect again after a connection has failed: after a pause that grows with each failure in a row.
/// `Default` is what `classify` does unless the user sets it.
template <recovery (&Default)(std::error_code) noexcept>
struct basic_reconnect_policy {
    std::chrono::milliseconds initial{1000};    ///< the first pause, 1 ms or more
    std::chrono::milliseconds maximum{60'000};  ///< no pause is longer; at least `initial`
    double multiplier = 2;                      ///< from one pause to the next, 1 or more
    /// Each pause is longer or shorter by up to this share of it, 0 to 1. The longest pauses are drawn from below
    /// `maximum`, down to `maximum * (1 - jitter) / (1 + jitter)`, so that a fleet stays spread however long it waits.
    double jitter = 0.25;
    std::uint32_t attempts = 0;          ///< failures in a row after which `run` gives up; 0: never
    std::chrono::milliseconds total{0};  ///< time without a connection after which `run` gives up; 0: never
    std::uint32_t renewals = 2;  ///< attempts in a row with renewed credentials, if the session can make new ones
    /// A connection that has lasted this long, 0 ms or more, ends the row of failures.
    std::chrono::milliseconds stable_after{10'000};
    /// Another client with the same client identifier makes the server end this one's connection, and is thrown out in
    /// its turn when this one comes back (3.1.4). Connections that the server ends at shorter intervals than this, 0
    /// ms or more, do not end the row of failures, however long they have lasted: so the pauses grow.
    std::chrono::milliseconds twin_window{300'000};
    /// What to do after this failure.
    std::function<recovery(std::error_code)> classify = Default;
};

/// Throws `std::out_of_range`, with the range in its text, if the policy is not possible.
template <recovery (&Default)(std::error_code) noexcept>
RUNNEL_COLD void check(basic_reconnect_policy<Default> const& p) {
    using namespace std::chrono_literals;
    if (p.initial < 1ms) RUNNEL_THROW(std::out_of_range("reconnect.initial must be 1 ms or more"));
    if (p.maximum < p.initial)
        RUNNEL_THROW(std::out_of_range("reconnect.maximum must not be less than reconnect.initial"));
    if (!(p.multiplier >= 1)) RUNNEL_THROW(std::out_of_range("reconnect.multiplier must be 1 or more"));
    if (p.total < 0ms) RUNNEL_THROW(std::out_of_range("reconnect.total must be 0 ms or more"));
    if (p.stable_after < 0ms || p.twin_window < 0ms)
        RUNNEL_THROW(std::out_of_range("reconnect.stable_after and reconnect.twin_window must be 0 ms or more"));
    if (!p.classify) RUNNEL_THROW(std::out_of_range("reconnect.classify must be callable"));
    if (!(p.jitter >= 0 && p.jitter <= 1)) RUNNEL_THROW(std::out_of_range("reconnect.jitter must be 0 to 1"));
}

/// Whether a time reaches a limit, of whatever length that is.
inline bool reaches(std::chrono::steady_clock::duration time, std::chrono::milliseconds limit) noexcept {
    return std::chrono::floor<std::chrono::milliseconds>(time) >= limit;
}

/// The pause before the attempt that follows `failures` failures in a row (1 or more). `random` is uniform in [0, 1).
template <recovery (&Default)(std::error_code) noexcept>
std::chrono::milliseconds pause_after(basic_reconnect_policy<Default> const& p, std::uint32_t failures, double random) {
    auto const initial = static_cast<double>(p.initial.count());
    auto const maximum = static_cast<double>(p.maximum.count());
    double const grown = initial * std::pow(p.multiplier, (std::min)(failures, 1000u) - 1);
    // Not cut off at the maximum afterwards: then half of all clients would pause exactly that long.
    double const middle = (std::min)(maximum / (1 + p.jitter), grown);
    double const jittered = std::ceil(middle * (1 + p.jitter * (2 * random - 1)));
    return jittered >= maximum ? p.maximum : std::chrono::milliseconds(static_cast<std::int64_t>(jittered));
}

/// Decides after each failure whether and when to connect again. Without a clock: `now` is an argument.
template <class Policy>
class basic_reconnect_schedule {
  public:
    using time_point = std::chrono::steady_clock::time_point;

    /// `policy` must outlive the schedule. `renewable`: there are fresh credentials for each attempt.
    basic_reconnect_schedule(Policy const& policy, bool renewable, time_point now) noexcept
        : policy_(policy), since_(now), renewable_(renewable) {}

    /// How an attempt to connect, and perhaps the connection, have ended.
    struct failure {
        std::error_code why{};
        std::optional<std::chrono::steady_clock::duration> lasted{};  ///< the connection, if the server accepted it
        bool thrown_out = false;                                      ///< the server ended it
        bool passing = false;  ///< the server may find no fault next time, whatever `classify` says
    };

    struct plan {
        bool again;                       ///< whether to try again
        std::chrono::milliseconds pause;  ///< before that
        bool twin_suspected;              ///< another client seems to use the same client identifier
    };

    /// `random` is uniform in [0, 1).
    RUNNEL_COLD plan after(failure const& f, time_point now, double random) {
        bool const again_so_soon = thrown_out_ != never_yet && !reaches(now - thrown_out_, policy_.twin_window);
        bool const twin = f.lasted && f.thrown_out && again_so_soon;
        if (f.lasted) {
            since_ = now;
            renewed_ = 0;
            if (f.thrown_out) thrown_out_ = now;
            if (reaches(*f.lasted, policy_.stable_after) && !twin) failures_ = 0;
        }
        twins_ = twin ? twins_ + 1 : 0;
        ++failures_;
        bool again = policy_.attempts == 0 || failures_ < policy_.attempts;
        if (policy_.total.count() != 0 && reaches(now - since_, policy_.total)) again = false;
        auto const step = f.passing ? recovery::retry : policy_.classify(f.why);
        if (step == recovery::give_up) again = false;
        if (step == recovery::renew_credentials && (!renewable_ || ++renewed_ > policy_.renewals)) again = false;
        return {again, pause_after(policy_, failures_, random), twins_ >= 2};
    }

  private:
    static constexpr auto never_yet = (time_point::min)();

    Policy const& policy_;
    time_point since_;                   // without a connection
    time_point thrown_out_ = never_yet;  // the last time
    std::uint32_t failures_ = 0;
    std::uint32_t renewed_ = 0;
    std::uint32_t twins_ = 0;
    bool renewable_;
};

}  // namespace runnel
