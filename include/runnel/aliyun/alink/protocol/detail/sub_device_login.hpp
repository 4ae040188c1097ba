#pragma once

#include <runnel/core/saturating.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::aliyun::alink::detail {

/// Whether a sub-device is logged in, and whether it is to be: what a gateway knows of it, and what is to be done next;
/// without I/O and without a clock (`now` is an argument).
///
/// What is wanted is what was said last (`want`), whatever is under way. What is known is a state:
///
/// | state         | means                                            |
/// |---------------|--------------------------------------------------|
/// | `out`         | the platform does not have it logged in          |
/// | `in`          | the platform has it logged in                    |
/// | `unknown`     | a request came to nothing, and may have arrived  |
/// | `logging_in`  | a login is under way                             |
/// | `logging_out` | a logout is under way                            |
///
/// | event                            | `out` | `in`  | `unknown` | `logging_in`          | `logging_out`         |
/// |----------------------------------|-------|-------|-----------|-----------------------|-----------------------|
/// | `begin_login`                    | `logging_in` | | `logging_in` |                   |                       |
/// | `begin_logout`                   | `logging_out` | `logging_out` | `logging_out` |  |                       |
/// | `answered`: done                 |       |       |           | `in` (*)              | `out` (*)             |
/// | `answered`: it is `out` already  |       |       |           |                       | `out` (*)             |
/// | `answered`: refused              |       |       |           | as before the request | as before the request |
/// | `answered`: nothing              |       |       |           | `unknown`             | `unknown`             |
/// | `returned`                       |       |       |           | as before the request | as before the request |
/// | `lost`                           |       |       |           | `unknown`             | `unknown`             |
/// | `ended`, by the platform         | `out` | `out` | `unknown` | goes on               | goes on               |
/// | `doubted`                        | `out` | `unknown` | `unknown` | goes on           | goes on               |
/// | `reconnected`                    | `out` | `out` | `unknown` | goes on               | goes on               |
///
/// (*) `unknown` if `ended`, `doubted` or `reconnected` came between request and answer: which was first, nobody can
/// tell. "As before the request" is `out` then, where it was `in`. A blank is not possible, which is asserted.
///
/// What is wanted and not known to be is to be asked for (`next`), at once or after a pause if that has failed before.
/// A first login is tried `max_attempts` times; once a sub-device has been logged in, it is tried for as long as it is
/// wanted, as nobody else would notice.
class sub_device_login {
  public:
    using time_point = std::chrono::steady_clock::time_point;
    enum class state : std::uint8_t { out, in, unknown, logging_in, logging_out };
    enum class step : std::uint8_t { none, log_in, log_out };
    /// What has come of a request that was sent, or was to be sent.
    enum class answer : std::uint8_t {
        done,
        out_already,   ///< of a logout: it is not logged in
        refused,       ///< for now: nothing has changed
        refused_ever,  ///< for good: only `want` makes another attempt
        nothing,       ///< in time, or nothing that can be understood: nobody knows whether it was done
    };

    static constexpr std::uint32_t max_attempts = 3;

    /// `pause`: after a request that has failed for now, 1 ms to 1 h. The pauses after `max_attempts` failures double,
    /// up to 60 times as long.
    explicit sub_device_login(std::chrono::milliseconds pause = std::chrono::seconds(1)) noexcept : pause_(pause) {}

    state current() const noexcept { return at_; }
    bool is_in() const noexcept { return at_ == state::in; }
    bool is_busy() const noexcept { return at_ == state::logging_in || at_ == state::logging_out; }
    bool is_wanted() const noexcept { return wanted_; }
    /// Whether it has been logged in since it was wanted.
    bool is_kept() const noexcept { return kept_; }
    /// Why it is not wanted any more, if that is the platform's doing.
    std::error_code refusal() const noexcept { return refusal_; }
    std::string const& refusal_text() const noexcept { return text_; }

    /// The last word: it is to be logged in, or out.
    void want(bool in) noexcept {
        wanted_ = in;
        kept_ = in && at_ == state::in;
        refusal_.clear();
        text_.clear();
        try_again_at_once();
    }

    /// While there are any, they see to the logout: `next` does not ask for it.
    void add_leaver() noexcept { ++leavers_; }
    void remove_leaver() noexcept {
        assert(leavers_ > 0);
        --leavers_;
    }

    /// What is to be done at `now`.
    step next(time_point now) const noexcept { return is_right() || is_busy() || due_ > now ? step::none : what_for(); }
    /// When `next` will give something if nothing happens; `time_point::max()` never.
    time_point due() const noexcept {
        return is_right() || is_busy() || what_for() == step::none ? (time_point::max)() : due_;
    }

    void begin_login() noexcept {
        assert(at_ == state::out || at_ == state::unknown);
        begin(state::logging_in);
    }
    void begin_logout() noexcept {
        assert(!is_busy());
        begin(state::logging_out);
    }

    /// The request has come to its end. `why` and `text` say why if it has failed.
    void answered(answer what, time_point now, std::error_code why = {}, std::string text = {}) {
        assert(is_busy());
        bool const login = at_ == state::logging_in;
        assert(!login || what != answer::out_already);
        is_single_ = false;
        if (what == answer::done || what == answer::out_already) {
            auto const made = login ? state::in : state::out;
            at_ = is_void_ ? state::unknown : made;
            if (login && wanted_) kept_ = true;
            return try_again_at_once();
        }
        at_ = what == answer::nothing ? state::unknown : before_;
        bool const for_good = what == answer::refused_ever;
        login ? login_failed(for_good, now, why, std::move(text)) : logout_failed(now);
    }

    /// The connection has gone before there was an answer, or whoever waited for it: which is no failure.
    void lost() noexcept {
        assert(is_busy());
        at_ = state::unknown;
    }

    /// A request for several has been refused, for the sake of one of them: it `is_single` now.
    void returned() noexcept {
        assert(is_busy());
        at_ = before_;
        is_single_ = true;
    }
    /// Whether the next request is to be for it alone.
    bool is_single() const noexcept { return is_single_; }

    /// The platform has logged it out. `why`: and does not let it in again.
    void ended(std::error_code why = {}) noexcept {
        forget();
        if (!why) return;
        wanted_ = kept_ = false;
        refusal_ = why;
        text_.clear();
        try_again_at_once();
    }

    /// The platform may have logged it out, or not.
    void doubted() noexcept {
        is_void_ = true;  // of a request under way
        auto& known = is_busy() ? before_ : at_;
        if (known == state::in) known = state::unknown;
        try_again_at_once();
    }

    /// There is a new connection, on which nobody is logged in.
    void reconnected() noexcept {
        forget();
        try_again_at_once();
    }

  private:
    bool is_right() const noexcept { return at_ != state::unknown && wanted_ == (at_ == state::in); }

    step what_for() const noexcept {
        if (wanted_) return step::log_in;
        return leavers_ == 0 ? step::log_out : step::none;
    }

    void begin(state to) noexcept {
        before_ = at_;
        at_ = to;
        is_void_ = false;
    }

    void forget() noexcept {
        if (is_busy()) {
            if (before_ == state::in) before_ = state::out;
            is_void_ = true;
        } else if (at_ == state::in) {
            at_ = state::out;  // but not from `unknown`: what may have arrived may as well arrive yet
        }
    }

    void try_again_at_once() noexcept {
        failures_ = 0;
        due_ = (time_point::min)();
    }

    // The first pauses are short: mostly the platform is busy for a moment.
    void pause(time_point now) noexcept {
        ++failures_;
        auto const doubled = failures_ <= max_attempts ? 0u : (std::min)(failures_ - max_attempts, 6u);
        due_ = deadline_after(
            now, std::min<std::chrono::milliseconds>(pause_, std::chrono::hours(1)) * (std::min)(1 << doubled, 60));
    }

    void login_failed(bool for_good, time_point now, std::error_code why, std::string text) {
        if (!wanted_) return try_again_at_once();
        pause(now);
        if (!for_good && (kept_ || failures_ < max_attempts)) return;
        wanted_ = kept_ = false;
        refusal_ = why;
        text_ = std::move(text);
        try_again_at_once();  // to log out, if nobody knows whether it is in
    }

    // It goes on being tried: nobody else would notice.
    void logout_failed(time_point now) noexcept { wanted_ ? try_again_at_once() : pause(now); }

    std::chrono::milliseconds pause_;
    state at_ = state::out;
    state before_ = state::out;  // the request under way
    bool is_void_ = false;       // it has been overtaken by `ended` or `reconnected`
    bool wanted_ = false;
    bool kept_ = false;
    bool is_single_ = false;
    std::uint32_t failures_ = 0;  // in a row
    std::uint32_t leavers_ = 0;
    time_point due_ = (time_point::min)();
    std::error_code refusal_{};
    std::string text_{};
};

}  // namespace runnel::aliyun::alink::detail
