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
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// The subscriptions of a session, in the order in which they were made, and the way of a message to those it matches.
template <class Executor>
class subscription_registry {
  public:
    using entry = subscription_state<Executor>;
    using part = typename entry::part;

    /// `s->wish` is set.
    void add(std::shared_ptr<entry> s) {
        for (std::size_t i = 0; i < s->parts.size(); ++i) {
            auto& p = s->parts[i];
            p.known = s->wish->filters[i];
            router_.insert(split_shared(p.filter).filter, &p);
        }
        entries_.push_back(std::move(s));
        note_few();
    }

    /// False: it is not there. The entry lives until `forget_removed`, as it may be in use further up the stack.
    bool remove(entry* s) {
        auto const at = std::ranges::find_if(entries_, [&](auto const& p) { return p.get() == s; });
        if (at == entries_.end()) return false;
        for (auto& p : s->parts) router_.erase(split_shared(p.filter).filter, &p);
        close(*s, s->refused ? s->refused : make_error_code(errc::disconnected));
        removed_.push_back(std::move(*at));
        entries_.erase(at);
        note_few();
        return true;
    }
    void forget_removed() noexcept { removed_.clear(); }

    /// What has become of a message.
    struct outcome {
        std::size_t matched = 0;
        bool taken = true;    ///< no inbox holds it: it is to be acknowledged at once
        bool failed = false;  ///< a handler has thrown: see `take_failure`
    };

    /// Gives a message once to each subscription that it matches: to its handler, or into its inbox. In MQTT 5 the
    /// server may name the subscriptions which a message is for, and send another copy for others (3.3.4).
    [[gnu::always_inline]] outcome dispatch(publish const& packet, delivery token) {
        find_matches(packet.topic);
        if (!packet.props.empty()) keep_named(packet.props);
        ++messages_;
        std::size_t holders = 0;
        for (auto const* p : matches_) {
            auto& s = p->of;
            bool const has_it = std::exchange(s.last_message, messages_) == messages_;  // another filter has matched
            if (has_it || s.closed) [[unlikely]]
                continue;
            if (s.handler) {
                try {
                    s.handler(packet);
                } catch (...) {
                    if (!failure_) failure_ = std::current_exception();
                }
            } else if (s.box->push(packet, token)) {
                ++holders;
                s.receivers.wake_one();
            }
        }
        if (holders > 1 && token.quality != qos::at_most_once) held_.emplace(token.number, holders);
        return {matches_.size(), holders == 0, failure_ != nullptr};
    }
    /// What the first handler that failed has thrown.
    std::exception_ptr take_failure() noexcept { return std::exchange(failure_, nullptr); }

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
    // So few filters are compared with each topic one by one, which costs less than the way through the tree.
    static constexpr std::size_t few = 4;

    void note_few() {
        few_.clear();
        if (router_.size() > few) return;
        for (auto const& s : entries_)
            for (auto& p : s->parts) few_.push_back({topic_pattern(split_shared(p.filter).filter), &p});
    }

    [[gnu::always_inline]] void find_matches(std::string_view topic) {
        matches_.clear();
        if (few_.empty()) return find_among_many(topic);
        for (auto const& one : few_)
            if (one.pattern.matches(topic)) matches_.push_back(one.of);
    }
    [[gnu::noinline]] void find_among_many(std::string_view topic) {
        router_.match(topic, [this](part* p) { matches_.push_back(p); });
    }

    // An identifier that nobody has was given by an earlier process: then the topic alone decides.
    [[gnu::noinline]] void keep_named(property_view const& props) {
        auto const identifiers = props.get<property_id::subscription_identifier>();
        if (identifiers.empty()) return;
        auto const is_named = [&](part const* p) {
            return std::ranges::any_of(identifiers, [&](std::uint32_t i) { return p->known->names(i); });
        };
        if (std::ranges::any_of(matches_, is_named))
            std::erase_if(matches_, [&](part const* p) { return !is_named(p); });
    }

    static void close(entry& s, std::error_code why) {
        s.closed = why;
        s.answered.wake_all(why);
        s.receivers.wake_all(why);
    }

    std::vector<std::shared_ptr<entry>> entries_;
    std::vector<std::shared_ptr<entry>> removed_;
    router<part*> router_;
    struct candidate {
        topic_pattern pattern;
        part* of;
    };
    std::vector<candidate> few_;  // all, if they are few
    std::vector<part*> matches_;
    std::exception_ptr failure_;
    std::uint64_t messages_ = 0;
    std::unordered_map<std::uint64_t, std::size_t> held_;  // messages that lie in several inboxes, and in how many
};

}  // namespace runnel::mqtt
