#pragma once

#include <runnel/mqtt/router.hpp>
#include <runnel/mqtt/subscription.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <vector>

namespace runnel::mqtt {

/// The subscriptions of a session, in the order in which they were made, and the way of a message to those it matches.
template <class Executor>
class subscription_registry {
  public:
    using entry = subscription_state<Executor>;

    void add(std::shared_ptr<entry> s) {
        router_.insert(split_shared(s->filter).filter, s.get());
        entries_.push_back(std::move(s));
    }

    /// False: it is not there. The entry lives until `forget_removed`, as it may be in use further up the stack.
    bool remove(entry* s) {
        auto const at = std::ranges::find_if(entries_, [&](auto const& p) { return p.get() == s; });
        if (at == entries_.end()) return false;
        router_.erase(split_shared(s->filter).filter, s);
        close(*s, s->refused ? s->refused : make_error_code(errc::disconnected));
        removed_.push_back(std::move(*at));
        entries_.erase(at);
        return true;
    }
    void forget_removed() noexcept { removed_.clear(); }

    bool contains(std::string_view filter) const noexcept {
        return std::ranges::any_of(entries_, [&](auto const& s) { return s->filter == filter; });
    }

    /// Calls `f` for each subscription in turn; `f` may remove it.
    template <class F>
    void for_each(F&& f) {
        auto const snapshot = entries_;
        for (auto const& s : snapshot) f(*s);
    }

    /// What has become of a message.
    struct outcome {
        std::size_t matched = 0;
        bool taken = true;           ///< no inbox holds it: it is to be acknowledged at once
        std::exception_ptr failure;  ///< what the first handler that failed has thrown
    };

    /// Gives a message to all subscriptions that it matches: to their handlers, or into their inboxes.
    outcome dispatch(publish const& packet, delivery token) {
        matches_.clear();
        router_.match(packet.topic, [this](entry* s) { matches_.push_back(s); });
        std::size_t holders = 0;
        std::exception_ptr failure;
        for (auto* s : matches_) {
            if (s->handler) {
                try {
                    s->handler(packet);
                } catch (...) {
                    if (!failure) failure = std::current_exception();
                }
            } else if (s->box->push(packet, token)) {
                ++holders;
                s->receivers.wake_one();
            }
        }
        if (holders > 1 && token.quality != qos::at_most_once) held_.emplace(token.number, holders);
        return {matches_.size(), holders == 0, std::move(failure)};
    }

    /// A message of QoS 1 or 2 has been taken from an inbox. True: it lies in no other.
    bool take(delivery token) {
        if (held_.empty()) return true;
        auto const held = held_.find(token.number);
        if (held == held_.end()) return true;
        if (--held->second > 0) return false;
        held_.erase(held);
        return true;
    }

    /// No messages come until `reopen`: all who wait at a subscription go on with an error.
    void close(std::error_code why) {
        for (auto const& s : entries_) close(*s, why);
    }
    void reopen() noexcept {
        for (auto const& s : entries_) s->closed.clear();
    }

  private:
    static void close(entry& s, std::error_code why) {
        s.closed = why;
        s.answered.wake_all(why);
        s.receivers.wake_all(why);
    }

    std::vector<std::shared_ptr<entry>> entries_;
    std::vector<std::shared_ptr<entry>> removed_;
    router<entry*> router_;
    std::vector<entry*> matches_;
    std::unordered_map<std::uint64_t, std::size_t> held_;  // messages that lie in several inboxes, and in how many
};

}  // namespace runnel::mqtt
