#pragma once

#include <runnel/core/remark.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace runnel {

/// The time in which a stream is to be opened, and how what is tried one after another, or side by side, shares it.
/// Without a clock.
class connect_budget {
  public:
    using time_point = std::chrono::steady_clock::time_point;
    using duration = std::chrono::steady_clock::duration;

    /// Without limit.
    constexpr connect_budget() noexcept = default;
    /// From `begin` to `end`; without limit if that is the clock's last time.
    constexpr connect_budget(time_point begin, time_point end) noexcept
        : end_(end), least_(end > begin ? (end - begin) / 4 : duration::zero()) {}

    constexpr bool is_limited() const noexcept { return end_ != time_point::max(); }
    constexpr bool is_over(time_point now) const noexcept { return now >= end_; }
    /// What is left of it.
    constexpr duration left(time_point now) const noexcept { return is_over(now) ? duration::zero() : end_ - now; }

    /// The part of the next of `count` (1 or more) that are to be tried one after another: as much of what is left as
    /// each of the others, but a quarter of the whole at least. In less time hardly any handshake would come to its
    /// end, and whoever then gets no turn is the first of the next attempt.
    constexpr connect_budget share(time_point now, std::size_t count) const noexcept {
        if (!is_limited()) return *this;
        auto const rest = left(now);
        return {now, now + std::max(part(rest, count), std::min(rest, least_))};
    }

    /// How long the next of `count` (1 or more) that are tried side by side begins after the one before: `wanted`, or
    /// less, so that all have begun when half of the time is over.
    constexpr duration spacing(time_point now, std::size_t count, duration wanted) const noexcept {
        return is_limited() ? std::min(wanted, part(left(now) / 2, count)) : wanted;
    }

  private:
    static constexpr duration part(duration of, std::size_t count) noexcept {
        return of / static_cast<duration::rep>(std::max<std::size_t>(count, 1));
    }

    time_point end_ = time_point::max();
    duration least_ = duration::zero();  // a share
};

/// What an attempt to connect is doing.
enum class connect_step : std::uint8_t {
    none,          ///< nothing: there is no attempt
    open,          ///< a transport is opened that does not say more
    resolve,       ///< a name is resolved
    connect,       ///< addresses are connected to by TCP
    proxy,         ///< a proxy is asked for a way
    tls,           ///< the TLS handshake
    websocket,     ///< the WebSocket handshake
    authenticate,  ///< the stream is open: the two prove who they are, in MQTT by AUTH
    accept,        ///< the stream is open: the peer is to accept its user, in MQTT by CONNACK
};

/// What is known of an attempt to connect: how much time it has, and how far it has come; and of the attempts before,
/// since the peer has accepted one: which addresses were of no use.
///
/// A transport that takes `open(executor, connect_progress*)` in place of `open(executor)` says there what it does, for
/// logs, keeps to `budget` where it has a choice, and passes both on to the transport below (`open_stream`). Nobody has
/// to: whoever opens a stream sees to the time by himself, and cancels.
class connect_progress {
  public:
    /// Another attempt begins.
    [[gnu::cold]] void begin(connect_budget b) {
        budget = b;
        passed_over.clear();
        at(connect_step::open, {});
        address_ = 0;
    }

    connect_budget budget;
    /// What has failed in this attempt before that which has opened the stream, and why: errors' texts.
    std::string passed_over;

    /// Something else is tried now: `all` is what has failed since `before` was what had been passed over.
    [[gnu::cold]] void pass_over(std::string const& before, std::string const& all) {
        passed_over = before.empty() ? all : before + "; " + all;
        leave_address();
    }

    /// The next step begins. `what`: as the beginning of an error's text, "connecting to tcp://a.example:1883".
    [[gnu::cold]] [[gnu::noinline]] void at(connect_step step, std::string what) {
        step_ = step;
        doing_ = std::move(what);
    }
    connect_step step() const noexcept { return step_; }
    /// What is being done, or, if that has failed and the error had a text, this.
    std::string const& doing() const noexcept { return doing_; }
    /// The same, and what was passed over before.
    [[gnu::cold]] [[gnu::noinline]] std::string describe() const {
        return passed_over.empty() ? doing_ : doing_ + "; before: " + passed_over;
    }

    /// The step has failed with `error`, whose text says more, it may be.
    [[gnu::cold]] void fail(std::system_error const& error) {
        if (auto text = remark_of(error); !text.empty()) doing_ = std::move(text);
    }
    /// There is more to say of it.
    [[gnu::cold]] void add(std::string_view more) { add_remark(doing_, more); }

    // --- addresses, as numbers that mean nothing here; 0 is none

    static constexpr std::size_t remembered = 8;  ///< addresses, at most

    /// The stream goes to this address.
    void connected_to(std::uint64_t address) noexcept { address_ = address; }
    /// That was of no use: the peer there is silent, or refuses. The next attempts try other addresses before.
    [[gnu::cold]] void leave_address() noexcept {
        if (address_ == 0) return;
        auto at = std::find(useless_.begin(), useless_.end(), address_);
        if (at == useless_.end()) at = useless_.begin();
        std::move(at + 1, useless_.end(), at);
        useless_.back() = std::exchange(address_, 0);
    }
    /// Those that were of no use, in the order in which that was noticed last; 0 in places that are free.
    std::array<std::uint64_t, remembered> const& useless() const noexcept { return useless_; }

  private:
    connect_step step_ = connect_step::none;
    std::string doing_;
    std::uint64_t address_ = 0;
    std::array<std::uint64_t, remembered> useless_{};
};

}  // namespace runnel
