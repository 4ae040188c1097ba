#pragma once

#include <runnel/mqtt/message.hpp>
#include <runnel/mqtt/protocol/deadline.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <deque>
#include <iterator>
#include <optional>
#include <utility>

namespace runnel::mqtt {

/// The QoS 1 and 2 messages of a session that no subscription wants yet, in order of arrival: those of subscriptions of
/// an earlier process, say, that this one is about to make again. They are not acknowledged. Without I/O and clock.
///
/// A message is kept until a subscription takes it or its time is over. Once one has waited in vain it seems that
/// nobody comes for such messages, as where a program no longer makes a subscription that the server still has: then
/// only a few are kept at a time, so that they do not use up what the server may send; until the next subscription.
class unrouted {
  public:
    using clock = std::chrono::steady_clock;

    /// `timeout`: how long a message is kept. `maximum`: how many are at most.
    unrouted(clock::duration timeout, std::size_t maximum) noexcept : timeout_(timeout), maximum_(maximum) {}

    /// Keeps a copy of a message that came at `now`. Returns the message for which there is no room any more, if any:
    /// it is to be acknowledged.
    std::optional<delivery> keep(publish const& packet, delivery token, clock::time_point now) {
        kept_.push_back({message::copy_of(packet), token, now});
        if (kept_.size() <= (in_vain_ ? std::min(few, maximum_) : maximum_)) return std::nullopt;
        auto const oldest = kept_.front().token;
        kept_.pop_front();
        return oldest;
    }

    std::size_t size() const noexcept { return kept_.size(); }
    bool empty() const noexcept { return kept_.empty(); }

    /// There is a new subscription: calls `take(publish const&, delivery)` for each message in turn, which is no longer
    /// kept if that returns true. What comes to be kept meanwhile comes behind the others.
    template <class Take>
    void offer(Take&& take) {
        in_vain_ = false;
        auto all = std::exchange(kept_, {});
        std::size_t left = 0;
        for (auto& k : all)
            if (!take(k.packet.view(), k.token)) std::swap(all[left++], k);
        all.erase(all.begin() + static_cast<std::ptrdiff_t>(left), all.end());
        std::ranges::move(kept_, std::back_inserter(all));
        kept_ = std::move(all);
    }

    /// When the time of the first message is over; none if there is none.
    clock::time_point next_deadline() const noexcept {
        return kept_.empty() ? never : deadline_after(kept_.front().since, timeout_);
    }

    /// Calls `give_up(publish const&, delivery)` for each message whose time is over at `now`: it is to be
    /// acknowledged.
    template <class GiveUp>
    void expire(clock::time_point now, GiveUp&& give_up) {
        while (next_deadline() <= now) {
            in_vain_ = true;
            auto const k = std::move(kept_.front());
            kept_.pop_front();
            give_up(k.packet.view(), k.token);
        }
    }

  private:
    static constexpr std::size_t few = 4;

    struct kept {
        message packet;
        delivery token;
        clock::time_point since;
    };

    std::deque<kept> kept_;  // as there may be 65,535
    clock::duration timeout_;
    std::size_t maximum_;
    bool in_vain_ = false;
};

}  // namespace runnel::mqtt
