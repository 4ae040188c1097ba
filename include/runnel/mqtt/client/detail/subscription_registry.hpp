#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/make_room.hpp>
#include <runnel/mqtt/client/subscription.hpp>
#include <runnel/mqtt/protocol/router.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace runnel::mqtt::detail {

/// The subscriptions of a session, in the order in which they were made, and how a message gets to those it matches.
template <class Executor>
class subscription_registry {
  public:
    using entry = subscription_state<Executor>;
    using part = typename entry::part;

    subscription_registry() = default;
    RUNNEL_COLD ~subscription_registry() = default;

    /// `s->wish` is set. Nothing changes if there is no memory for it.
    RUNNEL_COLD void add(std::shared_ptr<entry> s) {
        make_room(entries_, 1);
        try {
            for (std::size_t i = 0; i < s->parts.size(); ++i) {
                auto& p = s->parts[i];
                p.known = s->wish->filters[i];
                auto const filter = split_shared(p.filter).filter;
                has_special_ = has_special_ || p.filter.starts_with('$');
                router_.insert(filter, &p);
                if (auto const inner = inner_filter(filter); !inner.empty()) router_.insert(inner, &p);
            }
        } catch (...) {
            leave_router(*s);
            throw;
        }
        s->lane = ++lanes_;
        entries_.push_back(std::move(s));
        note_few();
    }

    /// False: it is not there. The entry lives until `forget_removed`, as it may be in use further up the stack. Does
    /// not fail after `prepare_to_remove`.
    RUNNEL_COLD bool remove(entry* s) {
        auto const at = std::ranges::find_if(entries_, [&](auto const& p) { return p.get() == s; });
        if (at == entries_.end()) return false;
        prepare_to_remove();
        leave_router(*s);
        stop_waiting(s);
        close(*s, s->refused ? s->refused : make_error_code(errc::disconnected));
        removed_.push_back(std::move(*at));
        entries_.erase(at);
        note_few();
        return true;
    }
    /// Makes room for one that is to be removed.
    RUNNEL_COLD void prepare_to_remove() { make_room(removed_, 1); }
    void forget_removed() {
        if (removed_.empty()) [[likely]]
            return;
        auto const gone = std::exchange(removed_, {});  // what becomes of their messages may remove more
    }

    /// What has become of a message.
    struct outcome {
        std::size_t matched = 0;
        bool taken = true;       ///< no inbox holds it, and no handler has failed: it is to be acknowledged at once
        std::uint16_t lane = 0;  ///< for the message, if it is not taken
        bool failed = false;     ///< a handler has thrown: see `take_failure`; the message is to be given back
    };

    /// Gives a message once to each subscription that it matches: to its handler, or into its inbox. In MQTT 5 the
    /// server may name the subscriptions which a message is for, and send another copy for others (3.3.4). A message
    /// that was given back is given to those only that have not had it. `only`: what `only_recipient` says.
    RUNNEL_ALWAYS_INLINE outcome dispatch(entry* only, publish const& packet, delivery token) {
        if (only == nullptr) [[unlikely]]
            return dispatch_to_others(packet, token);
        bool held = false;
        if (!give(*only, packet, token, held)) [[unlikely]]
            return {1, token.quality == qos::at_most_once, 0, true};
        return {1, !held, held ? only->lane : std::uint16_t{0}, false};
    }
    /// Who alone gets a message, in the usual case: few filters, of which one matches. That the server names it, or
    /// another one that an earlier process had, decides nothing then. nullptr: that is for `dispatch` to find out.
    RUNNEL_ALWAYS_INLINE entry* only_recipient(std::string_view topic) const noexcept {
        part const* const only = shares_.empty() && !has_special_ ? only_match(topic) : nullptr;
        return only == nullptr ? nullptr : only->of;
    }
    /// Gives it a message: `held` if its inbox has that now. False: its handler has failed.
    RUNNEL_ALWAYS_INLINE bool give(entry& s, publish const& packet, delivery token, bool& held) {
        if (s.closed) [[unlikely]]
            return true;
        if (!s.handler) {
            s.receivers.wake_one();  // first, as it may fail; who then finds nothing waits on
            held = s.box->push(packet, token);
            return true;
        }
        try {
            s.handler(packet);
        } catch (...) {
            note_failure(s, token);
            return false;
        }
        return true;
    }
    /// The lane that `dispatch` would tell of; nothing: no subscription matches.
    RUNNEL_COLD RUNNEL_NOINLINE std::optional<std::uint16_t> lane_of(publish const& packet) {
        find_matches(packet.topic);
        if (!packet.props.empty()) name_matches(packet.props);
        return matches_.empty() ? std::nullopt : std::optional(lane_of_matches());
    }
    /// What the first handler that failed has thrown.
    std::exception_ptr take_failure() noexcept { return std::exchange(failure_, nullptr); }

    /// A message of QoS 1 or 2 has been taken from an inbox. True: no other has it or wants it.
    bool take(delivery token) {
        if (token.number == given_out_.number) [[unlikely]]
            return ++given_out_.taken, false;
        if (shares_.empty()) return true;
        auto const of = shares_.find(token.number);
        if (of == shares_.end()) return true;
        --of->second.holders;
        of->second.had = true;
        return end_if_done(of);
    }

    /// What is to be done about a message that nobody will receive from an inbox: if others have it, they decide.
    enum class unread : std::uint8_t { acknowledge, keep, nothing };
    RUNNEL_COLD unread drop(delivery token) {
        if (token.number == given_out_.number) return ++given_out_.gone, unread::nothing;
        auto const of = shares_.find(token.number);
        if (of == shares_.end()) return unread::keep;
        --of->second.holders;
        bool const had = of->second.had;
        return !end_if_done(of) ? unread::nothing : had ? unread::acknowledge : unread::keep;
    }

    /// A message has been given back by the subscription with this inbox, which gets it again when it is sent again.
    /// True: that subscription is gone, and all others have had it.
    RUNNEL_COLD bool give_back(delivery token, inbox const& by) {
        auto* const s = find(by);
        if (token.number == given_out_.number) {
            ++given_out_.gone;
            if (s != nullptr) wants_again(*s, token);
            return false;
        }
        auto const of = shares_.try_emplace(token.number, share_of{1, false, false, {}}).first;
        --of->second.holders;
        if (s != nullptr) of->second.wants_again(s);
        bool const had = of->second.had;
        return end_if_done(of) && had;
    }

    /// The session is gone, and with it what might have been sent again.
    RUNNEL_COLD void session_lost() {
        for (auto& [number, share] : shares_) {
            share.waiting.clear();
            share.for_all = false;
        }
        std::erase_if(shares_, [](auto const& s) { return s.second.holders == 0; });
    }

    /// Bytes of messages in inboxes, or received from them, beyond their bounds.
    RUNNEL_COLD std::size_t held() const noexcept {
        std::size_t all = 0;
        for (auto const& s : entries_) all += s->box->excess();
        return all;
    }

    /// Calls `tell(entry&)` for each subscription whose inbox has QoS 1 or 2 messages of which none has been received
    /// since the last call; once, until one is. Returns whether any inbox has such messages.
    template <class Tell>
    RUNNEL_COLD bool find_stalled(Tell&& tell) {
        bool any = false;
        auto const snapshot = entries_;  // who is told may remove some
        for (auto const& s : snapshot) {
            bool const waits = s->box->holds_acknowledgements();
            any = any || waits;
            bool const has_read = std::exchange(s->received, s->box->received()) != s->box->received();
            bool const was_stalled = std::exchange(s->is_stalled, waits && !has_read);
            if (s->is_stalled && !was_stalled) tell(*s);
        }
        return any;
    }

    /// The subscription with this inbox; nullptr: it is not there.
    entry* find(inbox const& box) noexcept {
        auto const s = std::ranges::find_if(entries_, [&](auto const& e) { return e->box.get() == &box; });
        return s == entries_.end() ? nullptr : s->get();
    }

    /// No messages come until `reopen`: all who wait at a subscription go on with an error.
    RUNNEL_COLD void close(std::error_code why, run_end const& end) {
        for (auto const& s : entries_) {
            s->end = end;
            close(*s, why);
        }
    }
    RUNNEL_COLD void reopen() noexcept {
        for (auto const& s : entries_)
            if (!s->is_left) s->closed.clear();
    }

  private:
    // So few filters are compared with each topic one by one, which costs less than the way through the tree.
    static constexpr std::size_t few = 4;

    RUNNEL_COLD void leave_router(entry& s) {
        for (auto& p : s.parts) {
            auto const filter = split_shared(p.filter).filter;
            router_.erase(filter, &p);
            if (auto const inner = inner_filter(filter); !inner.empty()) router_.erase(inner, &p);
        }
    }

    RUNNEL_COLD void note_few() noexcept {
        few_.clear();
        if (router_.size() > few) return;
        try {
            few_.reserve(few);
            for (auto const& s : entries_)
                for (auto& p : s->parts) note_few(p);
        } catch (std::bad_alloc const&) {
            few_.clear();  // then they are found as many are
        }
    }
    RUNNEL_COLD void note_few(part& p) {
        auto const filter = split_shared(p.filter).filter;
        few_.push_back({topic_pattern(filter), &p});
        if (auto const inner = inner_filter(filter); !inner.empty()) few_.push_back({topic_pattern(inner), &p});
    }

    // The one match among few filters; nullptr: there is none, or several, or there are many filters.
    RUNNEL_ALWAYS_INLINE part const* only_match(std::string_view topic) const noexcept {
        part const* match = nullptr;
        for (auto const& one : few_) {
            if (!one.pattern.matches(topic)) continue;
            if (match != nullptr) return nullptr;
            match = one.of;
        }
        return match;
    }

    // Those that `only_recipient` does not tell of, be it one of many.
    RUNNEL_NOINLINE outcome dispatch_to_others(publish const& packet, delivery token) {
        auto* const only = find_matches(packet.topic);
        return only == nullptr ? dispatch_to_matches(packet, token) : dispatch(only, packet, token);
    }

    RUNNEL_NOINLINE outcome dispatch_to_matches(publish const& packet, delivery token) {
        if (!packet.props.empty()) name_matches(packet.props);
        std::size_t const matched = matches_.size();
        bool const plain = matched == 1 && shares_.empty();
        auto const lane = lane_of_matches();
        if (!plain) [[unlikely]]
            prepare(packet, token);
        ++messages_;
        std::erase_if(matches_, [this](part const* p) {  // those of which another filter has matched
            return std::exchange(p->of->last_message, messages_) == messages_ || p->of->closed;
        });
        // First, as it may fail, and then nobody is to have the message, which comes again.
        for (auto const* p : matches_) p->of->receivers.wake_one();
        std::size_t holders = 0;
        for (auto const* p : matches_) {
            auto& s = *p->of;
            if (s.closed) continue;  // by a handler
            if (s.handler) {
                try {
                    s.handler(packet);
                } catch (...) {
                    note_failure(s, token);
                }
            } else {
                holders += s.box->push(packet, token) ? 1 : 0;
            }
        }
        bool const failed = failure_ != nullptr;
        bool const taken = plain && !failed ? holders == 0 : share(token, holders);
        return {matched, taken, lane, failed};
    }

    // The same for all messages of a topic, be it that some have had this one before.
    std::uint16_t lane_of_matches() const noexcept {
        std::uint16_t lane = 0;
        for (auto const* p : matches_)
            if (!p->of->handler) lane = static_cast<std::uint16_t>(lane * 40503u + p->of->lane);
        return lane;
    }

    RUNNEL_COLD RUNNEL_NOINLINE void note_failure(entry& s, delivery token) {
        if (!failure_) failure_ = std::current_exception();
        wants_again(s, token);
    }

    // Notes all that match. Returns who alone gets the message, as `only_recipient`, but among any number of filters.
    RUNNEL_NOINLINE entry* find_matches(std::string_view topic) {
        matches_.clear();
        if (few_.empty())
            router_.match(topic, [this](part* p) { matches_.push_back(p); });
        else
            for (auto const& one : few_)
                if (one.pattern.matches(topic)) matches_.push_back(one.of);
        return matches_.size() == 1 && shares_.empty() && !has_special_ ? matches_.front()->of : nullptr;
    }

    // An identifier that nobody has was given by an earlier process: then the topic alone decides. A filter that begins
    // with '$' may be of a kind that only the server knows, whose messages come under other topics: there the
    // identifier decides.
    RUNNEL_NOINLINE void name_matches(property_view const& props) {
        auto const identifiers = props.get<property_id::subscription_identifier>();
        if (identifiers.empty()) return;
        for (auto* p : matches_) p->named = p->known->names(0);  // the server cannot name it
        bool any = false;
        bool all = true;
        for (std::uint32_t const i : identifiers) {
            bool has_match = false;
            for (auto* p : matches_)
                if (p->known->names(i)) has_match = any = p->named = true;
            all = all && has_match;
        }
        if (any) std::erase_if(matches_, [](part const* p) { return !p->named; });
        if (has_special_ && !all) match_special(identifiers, any);
    }
    RUNNEL_COLD void match_special(subscription_identifier_list const& identifiers, bool any) {
        for (std::uint32_t const i : identifiers)
            for (auto const& s : entries_)
                for (auto& p : s->parts) {
                    if (!p.filter.starts_with('$') || !p.known->names(i)) continue;
                    if (!std::exchange(any, true)) matches_.clear();
                    if (std::find(matches_.begin(), matches_.end(), &p) == matches_.end()) matches_.push_back(&p);
                }
    }

    // Who has a message of which several know, or that has been given back.
    struct share_of {
        std::size_t holders = 0;        // inboxes that hold it
        bool had = false;               // somebody has taken it
        bool for_all = false;           // there was no memory to note who is to get it again
        std::vector<entry*> waiting{};  // who gets it when it is sent again

        RUNNEL_COLD void wants_again(entry* s) noexcept try { waiting.push_back(s); } catch (std::bad_alloc const&) {
            for_all = true;
        }
        bool is_done() const noexcept { return holders == 0 && waiting.empty() && !for_all; }
    };
    using shares = std::unordered_map<std::uint64_t, share_of>;

    RUNNEL_COLD void wants_again(entry& s, delivery token) {
        if (token.quality != qos::at_most_once) shares_[token.number].wants_again(&s);
    }
    // What nobody else has had, and nobody else is to get again, is new to whoever it matches when it comes again.
    RUNNEL_COLD void stop_waiting(entry* s) {
        for (auto& [number, share] : shares_) std::erase(share.waiting, s);
        std::erase_if(shares_, [](auto const& each) { return each.second.is_done() && !each.second.had; });
    }
    // Several get the message, or none, or it was given back: who has had it does not get it again. All memory is taken
    // before anybody has it.
    RUNNEL_COLD RUNNEL_NOINLINE void prepare(publish const& packet, delivery token) {
        if (token.quality == qos::at_most_once) return;
        bool fills_inboxes = false;
        for (auto const* p : matches_) {
            if (p->of->handler) continue;
            p->of->box->prepare(packet);
            fills_inboxes = true;
        }
        auto of = shares_.find(token.number);
        bool const is_known = of != shares_.end();
        if (!is_known && fills_inboxes && matches_.size() > 1) shares_.try_emplace(token.number);
        given_out_ = {token.number, 0, 0};
        if (!is_known) return;
        auto const again = std::exchange(of->second.waiting, {});
        if (std::exchange(of->second.for_all, false)) return;
        std::erase_if(matches_, [&](part* p) { return std::ranges::find(again, p->of) == again.end(); });
    }
    // Notes who has a message that has been given out. True: nobody has or wants it.
    RUNNEL_COLD RUNNEL_NOINLINE bool share(delivery token, std::size_t holders) {
        if (token.quality == qos::at_most_once) return true;
        auto of = shares_.find(token.number);
        auto const has_failed = [&](entry const* e) {
            return of != shares_.end() && std::ranges::find(of->second.waiting, e) != of->second.waiting.end();
        };
        bool had = std::ranges::any_of(matches_,
                                       [&](part const* p) { return p->of->handler != nullptr && !has_failed(p->of); });
        if (given_out_.number == token.number) {
            had = had || given_out_.taken > 0;
            holders -= given_out_.taken + given_out_.gone;
        }
        given_out_ = {};
        if (of == shares_.end()) {
            if (holders == 0 || (holders == 1 && !had)) return holders == 0;
            of = shares_.try_emplace(token.number).first;
        }
        auto& all = of->second;
        all.holders += holders;
        all.had = all.had || had;
        if (all.holders == 1 && !all.had && all.waiting.empty() && !all.for_all)  // one that has it alone
            return shares_.erase(of), false;
        return end_if_done(of);
    }
    bool end_if_done(typename shares::iterator of) {
        if (!of->second.is_done()) return false;
        shares_.erase(of);
        return true;
    }

    RUNNEL_COLD static void close(entry& s, std::error_code why) {
        s.closed = why;
        s.answered.wake_all(why);
        s.receivers.wake_all(why);
    }

    std::vector<std::shared_ptr<entry>> entries_{};
    std::vector<std::shared_ptr<entry>> removed_{};
    router<part*> router_{};
    struct candidate {
        topic_pattern pattern;
        part* of;
    };
    std::vector<candidate> few_{};  // all, if they are few
    std::vector<part*> matches_{};
    std::exception_ptr failure_{};
    std::uint64_t messages_ = 0;
    shares shares_{};  // by the number of the delivery; as a rule none
    struct given_out {
        std::uint64_t number = static_cast<std::uint64_t>(-1);
        std::size_t taken = 0;  // by a handler that received it from an inbox
        std::size_t gone = 0;   // not taken, and in no inbox any more
    };
    given_out given_out_{};  // of the message of which several are being told
    bool has_special_ = false;
    std::uint16_t lanes_ = 0;  // given so far
};

}  // namespace runnel::mqtt::detail
