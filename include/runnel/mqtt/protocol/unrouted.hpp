#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/list_link.hpp>
#include <runnel/mqtt/client/message.hpp>
#include <runnel/mqtt/protocol/deadline.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

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
    unrouted(unrouted const&) = delete;
    unrouted& operator=(unrouted const&) = delete;
    RUNNEL_COLD ~unrouted() {
        while (all_.linked()) delete &front();
    }

    /// Keeps a copy of a message that came at `now`. Returns the message for which there is no room any more, if any:
    /// it is to be acknowledged.
    RUNNEL_COLD std::optional<delivery> keep(publish const& packet, delivery token, clock::time_point now) {
        auto* const newest = new kept(packet, token, now);
        newest->insert_before(all_);
        bytes_ += newest->size();
        if (++size_ <= (in_vain_ ? (std::min)(few, maximum_) : maximum_)) return std::nullopt;
        return take_front()->token;
    }

    /// The lane of those of a topic as long as they are kept: see `received`.
    RUNNEL_COLD static std::uint16_t lane_of(std::string_view topic) noexcept {
        return static_cast<std::uint16_t>(std::hash<std::string_view>()(topic) | 1);
    }

    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    /// Of all that are kept: topics, properties and payloads.
    std::size_t bytes() const noexcept { return bytes_; }

    /// There is a new subscription: calls `take(publish const&, delivery)` for each message in turn, which is no longer
    /// kept if that returns true. What comes to be kept meanwhile comes behind the others.
    template <class Take>
    RUNNEL_COLD void offer(Take&& take) {
        in_vain_ = false;
        offering all(all_);
        while (all.to_come.linked()) {
            auto& k = static_cast<kept&>(*all.to_come.next());
            k.unlink();
            k.insert_before(all.refused);
            if (!take(k.packet.view(), k.token)) continue;
            bytes_ -= k.size();
            delete &k;
            --size_;
        }
    }

    /// When the time of the first message is over; none if there is none.
    clock::time_point next_deadline() noexcept {
        return all_.linked() ? deadline_after(front().since, timeout_) : never;
    }

    /// Calls `give_up(publish const&, delivery)` for each message whose time is over at `now`: it is to be
    /// acknowledged.
    template <class GiveUp>
    RUNNEL_COLD void expire(clock::time_point now, GiveUp&& give_up) {
        while (next_deadline() <= now) {
            in_vain_ = true;
            auto const k = take_front();
            give_up(k->packet.view(), k->token);
        }
    }

  private:
    static constexpr std::size_t few = 4;

    struct kept : list_link {
        kept(publish const& p, delivery d, clock::time_point now) : packet(message::copy_of(p)), token(d), since(now) {}
        std::size_t size() const noexcept {
            auto const& p = packet.view();
            return p.topic.size() + p.props.raw().size() + p.payload.size();
        }
        message packet;
        delivery token;
        clock::time_point since;
    };

    // Takes all out of the list, and puts those that are left in front of what has come since.
    struct offering {
        explicit offering(list_link& all) noexcept : list(all) { to_come.take_all(all); }
        ~offering() {
            refused.take_all(to_come);
            refused.take_all(list);
            list.take_all(refused);
        }
        list_link& list;
        list_link to_come{};
        list_link refused{};
    };

    kept& front() noexcept { return static_cast<kept&>(*all_.next()); }
    std::unique_ptr<kept> take_front() noexcept {
        std::unique_ptr<kept> k(&front());
        k->unlink();
        --size_;
        bytes_ -= k->size();
        return k;
    }

    list_link all_{};  // of `kept`
    std::size_t size_ = 0;
    std::size_t bytes_ = 0;
    clock::duration timeout_;
    std::size_t maximum_;
    bool in_vain_ = false;
};

}  // namespace runnel::mqtt
