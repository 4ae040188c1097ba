#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/remark.hpp>
#include <runnel/core/saturating.hpp>

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

    constexpr bool is_limited() const noexcept { return end_ != (time_point::max)(); }
    constexpr bool is_over(time_point now) const noexcept { return now >= end_; }
    /// What is left of it.
    constexpr duration left(time_point now) const noexcept { return is_over(now) ? duration::zero() : end_ - now; }

    /// The part of the next of `count` (1 or more) that are to be tried one after another: as much of what is left as
    /// each of the others, but a quarter of the whole at least. In less time hardly any handshake would come to its
    /// end, and whoever then gets no turn is the first of the next attempt.
    constexpr connect_budget share(time_point now, std::size_t count) const noexcept {
        if (!is_limited()) return *this;
        auto const rest = left(now);
        return {now, now + (std::max)(part(rest, count), (std::min)(rest, least_))};
    }

    /// How long the next of `count` (1 or more) that are tried side by side begins after the one before: `wanted`, or
    /// less, so that all have begun when half of the time is over.
    constexpr duration spacing(time_point now, std::size_t count, duration wanted) const noexcept {
        return is_limited() ? (std::min)(wanted, part(left(now) / 2, count)) : wanted;
    }

  private:
    static constexpr duration part(duration of, std::size_t count) noexcept {
        return of / static_cast<duration::rep>(std::max<std::size_t>(count, 1));
    }

    time_point end_ = (time_point::max)();
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

/// Whether at this step the stream is open.
constexpr bool has_stream(connect_step step) noexcept {
    switch (step) {
        case connect_step::none:
        case connect_step::open:
        case connect_step::resolve:
        case connect_step::connect:
        case connect_step::proxy:
        case connect_step::tls:
        case connect_step::websocket: return false;
        case connect_step::authenticate:
        case connect_step::accept: return true;
    }
    return false;
}

/// The name of a step, as a metric's attribute and in a trace.
RUNNEL_COLD constexpr char const* name(connect_step step) noexcept {
    switch (step) {
        case connect_step::none: return "none";
        case connect_step::open: return "open";
        case connect_step::resolve: return "resolve";
        case connect_step::connect: return "connect";
        case connect_step::proxy: return "proxy";
        case connect_step::tls: return "tls";
        case connect_step::websocket: return "websocket";
        case connect_step::authenticate: return "authenticate";
        case connect_step::accept: return "accept";
    }
    return "unknown";
}

/// What is known of an attempt to connect: how much time it has, and how far it has come; and of the attempts before,
/// since the peer has accepted one: which addresses were of no use.
///
/// A transport that takes `open(executor, connect_progress*)` in place of `open(executor)` says there what it does, for
/// logs, keeps to `budget` where it has a choice, and passes both on to the transport below (`open_stream`). Nobody has
/// to: whoever opens a stream sees to the time by himself, and cancels.
///
/// A host may have an address that accepts connections and then is silent. So while it has others, the handshakes
/// above, all together, may take no longer than the share of the time that its address has: `handshake_time`. The one
/// in which that is over begins again with another address: `try_next_address`.
class connect_progress {
  public:
    /// Another attempt begins.
    RUNNEL_COLD void begin(connect_budget b) {
        passed_over.clear();
        address_ = 0;
        begin_server(b, {});
    }
    /// A server, which may be one of several, is tried now, and has `b`. `what`: as in `at`.
    RUNNEL_COLD void begin_server(connect_budget b, std::string what) {
        budget = b;
        turns_ = 0;
        end_turn();
        at(connect_step::open, std::move(what));
    }

    connect_budget budget{};
    /// What has failed in this attempt before that which has opened the stream, and why: errors' texts.
    std::string passed_over{};

    /// What is being done has failed with `error`, and something else is tried now.
    RUNNEL_COLD RUNNEL_NOINLINE void pass_over(std::system_error const& error) {
        auto const message = error.code().message();
        if (!passed_over.empty()) passed_over += "; ";
        // An error that says nothing of what has failed is told by the step.
        if (error.what() == message && !doing_.empty()) passed_over.append(doing_).append(": ");
        passed_over += error.what();
        if (!turn_of_.empty()) passed_over.append(" (").append(turn_of_).append(1, ')');
        leave_address();
    }

    /// The next step begins. `what`: as the beginning of an error's text, "connecting to tcp://a.example:1883".
    RUNNEL_COLD RUNNEL_NOINLINE void at(connect_step step, std::string what) {
        step_ = step;
        doing_ = std::move(what);
        if (watcher_.told != nullptr) watcher_.told(watcher_.of, *this);
    }
    /// Is told of each step as it begins, by `told(of, *this)`, which does not throw.
    struct watcher {
        void (*told)(void* of, connect_progress const&) = nullptr;
        void* of = nullptr;
    };
    /// `by` from now on, in place of the one that is returned.
    watcher watch(watcher by) noexcept { return std::exchange(watcher_, by); }
    connect_step step() const noexcept { return step_; }
    /// What is being done, or, if that has failed and the error had a text, this.
    std::string const& doing() const noexcept { return doing_; }
    /// The same, and what was passed over before.
    RUNNEL_COLD RUNNEL_NOINLINE std::string describe() const {
        return passed_over.empty() ? doing_ : doing_ + "; before: " + passed_over;
    }

    /// The step has failed with `error`, whose text says more, it may be.
    RUNNEL_COLD void fail(std::system_error const& error) {
        if (auto text = remark_of(error); !text.empty()) doing_ = std::move(text);
    }
    /// There is more to say of it.
    RUNNEL_COLD void add(std::string_view more) { add_remark(doing_, more); }

    // --- addresses, as numbers that mean nothing here; 0 is none

    static constexpr std::size_t remembered = 8;  ///< addresses, at most

    /// The stream goes to this address.
    RUNNEL_COLD void connected_to(std::uint64_t address) noexcept {
        end_turn();
        address_ = address;
    }
    /// And its host has others (`count`, 1 or more) of which nothing is known: each is to have its share of the time.
    /// `text`: the address, for people.
    RUNNEL_COLD RUNNEL_NOINLINE void share_with_addresses(std::size_t count, std::string text,
                                                          connect_budget::time_point now) {
        if (!budget.is_limited() || ++turns_ > remembered) return;
        turn_ = budget.share(now, add_saturating<std::size_t>(count, 1));
        turn_of_ = std::move(text);
    }
    /// How long a handshake over the address may take, which may take `limit` at most: until the address's share of
    /// the time is over, if that is sooner. 0, of either: without limit.
    RUNNEL_COLD RUNNEL_NOINLINE std::chrono::milliseconds handshake_time(
        std::chrono::milliseconds limit, connect_budget::time_point now) const noexcept {
        if (!turn_.is_limited()) return limit;
        auto const left = std::chrono::ceil<std::chrono::milliseconds>(turn_.left(now));
        auto const most = (std::max)(left, std::chrono::milliseconds(1));
        return limit.count() == 0 ? most : (std::min)(limit, most);
    }
    /// A handshake has not come to its end in that time, which `error` says. True: it is to begin again, from the
    /// layers below, as the host has other addresses, and there is time for them.
    RUNNEL_COLD RUNNEL_NOINLINE bool try_next_address(std::system_error const& error, connect_budget::time_point now) {
        if (!turn_.is_limited() || budget.is_over(now)) return false;
        pass_over(error);
        return true;
    }
    /// That was of no use: the peer there is silent, or refuses. The next attempts try other addresses before.
    RUNNEL_COLD void leave_address() noexcept {
        end_turn();
        if (address_ == 0) return;
        auto at = std::find(useless_.begin(), useless_.end(), address_);
        if (at == useless_.end()) at = useless_.begin();
        std::move(at + 1, useless_.end(), at);
        useless_.back() = std::exchange(address_, 0);
    }
    /// Those that were of no use, in the order in which that was noticed last; 0 in places that are free.
    std::array<std::uint64_t, remembered> const& useless() const noexcept { return useless_; }

  private:
    void end_turn() noexcept {
        turn_ = {};
        turn_of_.clear();
    }

    connect_step step_ = connect_step::none;
    std::string doing_{};
    watcher watcher_{};
    std::uint64_t address_ = 0;
    connect_budget turn_{};  // the address's, if it has a share only
    std::string turn_of_{};  // the address then
    std::size_t turns_ = 0;  // at the same server; no more than are remembered, so that they come to an end
    std::array<std::uint64_t, remembered> useless_{};
};

}  // namespace runnel
