#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/make_room.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/packet/reason_code_list.hpp>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// What the user of a session wants to be subscribed to, what the server may have of that, and what is to be sent so
/// that the two agree. Without I/O: the driver sends what `next` names and tells what comes of it.
///
/// A subscription is of one topic filter or several, and has an identifier of its own for as long as it lives:
///
/// | state   | event                                  | then    |
/// |---------|----------------------------------------|---------|
/// | -       | `add`                                  | wanted  |
/// | wanted  | `next`: SUBSCRIBE is being sent        | asked   |
/// | asked   | `take_back`: it has to wait            | wanted  |
/// | asked   | `on_suback`, all filters granted       | granted |
/// | asked   | `on_suback`, one refused; `give_up`    | refused |
/// | asked   | `connected`: the answer was lost       | wanted  |
/// | granted | `connected`, the session is lost       | wanted  |
/// | granted | `doubt`                                | wanted  |
/// | any     | `remove`, `forget`                     | -       |
///
/// A debt is an UNSUBSCRIBE for filters that the server may have and nobody wants. It has a ticket, by which those who
/// wait for its end know it. Debts go out before subscriptions, so that one never undoes a newer subscription:
///
/// | state   | event                                  | then    |
/// |---------|----------------------------------------|---------|
/// | -       | `remove`                               | owed    |
/// | owed    | `next`: UNSUBSCRIBE is being sent      | sent    |
/// | sent    | `take_back`: it has to wait            | owed    |
/// | sent    | `on_unsuback`, success                 | -       |
/// | sent    | `on_unsuback`, an error; `give_up`     | refused |
/// | refused | `debt`: the user asks once more        | owed    |
/// | sent, refused | `connected`, session present     | owed    |
/// | any     | `connected`, the session is lost       | -       |
class subscriptions {
  public:
    /// That the server may have a filter: the SUBSCRIBE for it has been sent, and no later one for it, nor an
    /// UNSUBSCRIBE, has been granted.
    struct claim {
        std::uint32_t identifier;  ///< of the subscription; 0: SUBSCRIBE had none
        std::uint64_t order;       ///< among all requests
    };

    /// A topic filter that somebody wants, or that the server may have.
    struct filter {
        std::string name{};
        std::vector<claim> claims{};  ///< in order; empty: the server does not have it
        std::size_t wanted = 0;       ///< by how many subscriptions
        std::size_t used = 0;         ///< by subscriptions and requests

        /// Whether the server may name it by this identifier: it knows a filter by the last one only [MQTT-3.8.4-3],
        /// but which one that is remains open until it has answered.
        bool names(std::uint32_t identifier) const noexcept {
            for (auto const& c : claims)
                if (c.identifier == identifier) return true;
            return false;
        }
    };

    enum class stage : std::uint8_t { wanted, asked, granted, refused };

    struct subscription {
        void* owner = nullptr;         ///< the driver's
        std::uint32_t identifier = 0;  ///< 1 to 268,435,455 (3.8.2.1.2); no other subscription has it
        stage at = stage::wanted;
        bool was_granted = false;        ///< the server has granted it before
        bool is_doubtful = false;        ///< the server may have it, or not: see `doubt`
        std::vector<filter*> filters{};  ///< valid until `remove`
    };

    /// A SUBSCRIBE or UNSUBSCRIBE.
    struct request {
        packet_type type{};
        std::uint64_t ticket = 0;    ///< of a debt
        std::uint64_t order = 0;     ///< among all requests; 0: it waits to be sent
        subscription* of = nullptr;  ///< of SUBSCRIBE; nullptr: it has been removed since
        std::vector<filter*> filters{};
    };

    /// No ticket.
    static constexpr std::uint64_t nothing = 0;

    RUNNEL_COLD subscriptions() = default;
    RUNNEL_COLD ~subscriptions() = default;
    subscriptions(subscriptions const&) = delete;
    subscriptions& operator=(subscriptions const&) = delete;

    /// Nothing changes if there is no memory for it.
    RUNNEL_COLD subscription& add(std::span<std::string_view const> names, void* owner) {
        auto s = std::make_unique<subscription>();
        s->owner = owner;
        s->identifier = new_identifier();
        s->filters.reserve(names.size());
        make_room(wanted_, 1);
        RUNNEL_TRY {
            for (auto const name : names) s->filters.push_back(&use(name));
        }
        RUNNEL_CATCH_ALL {
            for (auto* f : s->filters) release(*f);
            RUNNEL_RETHROW;
        }
        for (auto* f : s->filters) ++f->wanted;
        wanted_.push_back(std::move(s));
        return *wanted_.back();
    }

    /// Nobody wants it any more. Returns the ticket of the debt that comes of it, or `nothing`. Nothing changes if
    /// there is no memory for that debt.
    RUNNEL_COLD std::uint64_t remove(subscription& s) {
        std::uint64_t ticket = nothing;
        requests debt;
        if (std::ranges::any_of(s.filters, [&](auto const* f) { return !f->claims.empty() && is_only_for(s, *f); })) {
            debt.push_back({packet_type::unsubscribe, nothing, 0, nullptr, {}});
            debt.front().filters.reserve(s.filters.size());
        }
        for (auto& r : sent_)
            if (r.of == &s) r.of = nullptr;
        for (auto* f : s.filters) {
            if (--f->wanted != 0 || f->claims.empty()) continue;
            if (auto const paid = debt_for(*f); paid != nothing)
                ticket = paid;
            else
                debt.front().filters.push_back(&use(*f));
        }
        if (!debt.empty() && !debt.front().filters.empty()) {
            ticket = debt.front().ticket = ++tickets_;
            owed_.splice(owed_.end(), debt);
        }
        auto const at = std::ranges::find_if(wanted_, [&](auto const& p) { return p.get() == &s; });
        assert(at != wanted_.end());
        if (static_cast<std::size_t>(at - wanted_.begin()) < asked_) --asked_;
        auto const gone = std::move(*at);
        wanted_.erase(at);
        for (auto* f : gone->filters) release(*f);
        return ticket;
    }

    /// Nobody can receive from it any more, but the server keeps it, and with it the messages for whoever subscribes
    /// again: as `remove`, without a debt.
    RUNNEL_COLD void forget(subscription& s) {
        for (auto* f : s.filters)
            if (is_only_for(s, *f)) f->claims.clear();
        remove(s);
    }

    /// The ticket of the debt for a filter that nobody wants; `nothing`: there is none. One that was refused is asked
    /// for again.
    RUNNEL_COLD std::uint64_t debt(std::string_view name) {
        auto const* const f = known(name);
        return f != nullptr && f->wanted == 0 ? debt_for(*f) : nothing;
    }

    /// Whether this debt is neither paid nor refused.
    RUNNEL_COLD bool owes(std::uint64_t ticket) const noexcept {
        auto const is_it = [=](auto const& r) { return r.ticket == ticket; };
        return ticket != nothing && (std::ranges::any_of(owed_, is_it) || std::ranges::any_of(sent_, is_it));
    }

    /// There is a new connection. What was unanswered on the one before will not be answered any more.
    RUNNEL_COLD void connected(bool session_present) {
        for (auto* const list : {&sent_, &refused_}) {
            for (auto r = list->begin(); r != list->end();) {
                auto const at = r++;
                if (at->type == packet_type::unsubscribe)
                    owe_again(*list, at);
                else
                    release(*at);
            }
            list->clear();
        }
        if (!session_present)
            for (auto const& f : filters_) f->claims.clear();
        for (auto& r : owed_) r.order = 0;
        // Or the server has answered a newer SUBSCRIBE, and so the UNSUBSCRIBE before it.
        drop_debts(owed_, session_present ? moot::granted_since : moot::all, nullptr);
        for (auto const& s : wanted_)
            if (s->at == stage::asked || (s->at == stage::granted && !session_present)) move(*s, stage::wanted);
        if (!session_present)
            for (auto const& s : wanted_) s->is_doubtful = false;
        asked_ = 0;
    }

    /// After `connected`, session present: that session may be another one than the one in which the subscriptions were
    /// granted, so that they are asked for once more.
    RUNNEL_COLD void doubt() noexcept {
        for (auto const& s : wanted_) {
            if (s->at != stage::granted) continue;
            move(*s, stage::wanted);
            s->is_doubtful = true;
        }
        asked_ = 0;
    }

    /// What is to be sent next, on the connection that there is: from now on it counts as sent, and is known until it
    /// is answered, taken back, given up, or there is another connection. nullptr: nothing. `named`: SUBSCRIBE will
    /// have the subscription's identifier.
    RUNNEL_COLD request* next(bool named = true) {
        if (!owed_.empty()) {
            sent_.splice(sent_.end(), owed_, owed_.begin());
            sent_.back().order = ++orders_;
            return &sent_.back();
        }
        while (asked_ < wanted_.size() && wanted_[asked_]->at != stage::wanted) ++asked_;
        if (asked_ == wanted_.size()) return nullptr;
        auto& s = *wanted_[asked_];
        requests one;  // what can fail comes first
        one.push_back({packet_type::subscribe, nothing, 0, &s, {}});
        one.back().filters.reserve(s.filters.size());
        for (auto* f : s.filters) f->claims.reserve((std::min)(f->claims.size() + s.filters.size(), maximum_claims));
        ++asked_;
        move(s, stage::asked);
        sent_.splice(sent_.end(), one);
        sent_.back().order = ++orders_;
        for (auto* f : s.filters) {
            sent_.back().filters.push_back(&use(*f));
            push_claim(*f, {named ? s.identifier : 0, orders_});
            drop_debts(refused_, moot::this_one, f);  // a new one may come of it
        }
        return &sent_.back();
    }

    /// It has not been sent after all, for want of a packet identifier.
    RUNNEL_COLD void take_back(request& which) {
        auto own = answered(which);
        if (which.type == packet_type::unsubscribe) {
            which.order = 0;
            owed_.splice(owed_.begin(), own);
            return;
        }
        erase_claims(which);
        if (which.of != nullptr) move(*which.of, stage::wanted);
        asked_ = 0;
        release(which);
    }

    /// It cannot be sent on this connection: a subscription is refused by that, a debt goes on with the next one.
    RUNNEL_COLD void give_up(request& which) {
        auto own = answered(which);
        if (which.type == packet_type::unsubscribe) {
            refused_.splice(refused_.end(), own);
            return;
        }
        erase_claims(which);
        if (which.of != nullptr) move(*which.of, stage::refused);
        release(which);
    }

    /// SUBACK, with a reason for each filter. Returns the subscription, now `granted` or `refused`: then it is to be
    /// removed. nullptr: it has been removed already. The request is no more.
    RUNNEL_COLD subscription* on_suback(request& which, reason_code_list const& reasons) {
        auto const own = answered(which);
        bool granted = true;
        auto f = which.filters.begin();
        for (auto const reason : reasons) {
            granted = granted && !is_error(reason);
            std::erase_if((*f++)->claims, [&](claim const& c) {
                return is_error(reason) ? c.order == which.order : c.order < which.order;
            });
        }
        auto* const s = which.of;
        if (s != nullptr) move(*s, granted ? stage::granted : stage::refused);
        if (s != nullptr && granted) {
            s->was_granted = true;
            s->is_doubtful = false;
        }
        release(which);
        return s;
    }

    /// How a debt has ended.
    struct settled {
        std::uint64_t ticket;
        reason_code reason;  ///< the first error, or success
    };

    /// UNSUBACK, with a reason for each filter, or, in MQTT 3.1.1, without any. Success and "no subscription existed"
    /// are good (3.11.3); what is refused is asked for again on the next connection. The request is no more.
    RUNNEL_COLD settled on_unsuback(request& which, reason_code_list const& reasons) {
        auto own = answered(which);
        settled end{which.ticket, reason_code::success};
        auto reason = reasons.begin();
        std::erase_if(which.filters, [&](filter* f) {
            auto const answer = reason != reasons.end() ? *reason++ : reason_code::success;
            if (is_error(answer) && !is_error(end.reason)) end.reason = answer;
            if (!is_error(answer)) std::erase_if(f->claims, [&](claim const& c) { return c.order < which.order; });
            // A SUBSCRIBE has been sent since: a debt of its own may come of it.
            bool const stays = is_error(answer) && !f->claims.empty() && f->claims.back().order < which.order;
            if (!stays) release(*f);
            return !stays;
        });
        if (!which.filters.empty()) refused_.splice(refused_.end(), own);
        return end;
    }

    /// What there is to know of a filter; nullptr: nobody wants it, and the server does not have it.
    filter const* known(std::string_view name) {
        auto const at = find(name);
        return at != filters_.end() && (*at)->name == name ? at->get() : nullptr;
    }

    /// For tests and `assert`: whether all counts are right, and each filter is there for a reason.
    bool consistent() const noexcept {
        for (auto const& f : filters_) {
            std::size_t wanted = 0, used = 0;
            for (auto const& s : wanted_) wanted += static_cast<std::size_t>(std::ranges::count(s->filters, f.get()));
            for (auto const* list : {&owed_, &sent_, &refused_})
                for (auto const& r : *list) used += static_cast<std::size_t>(std::ranges::count(r.filters, f.get()));
            if (f->wanted != wanted || f->used != used + wanted || f->used == 0) return false;
            // Nothing that the server may have is forgotten.
            if (wanted == 0 && !f->claims.empty() && used == 0) return false;
        }
        return true;
    }

    /// For tests: as if there had been subscriptions with all identifiers up to this one.
    void skip_identifiers(std::uint32_t to) noexcept { identifier_ = to; }

  private:
    using requests = std::list<request>;
    static constexpr std::uint32_t last_identifier = 268'435'455;
    static constexpr std::size_t maximum_claims = 16;

    static void move(subscription& s, stage to) noexcept {
        using enum stage;
        assert((s.at == wanted && to == asked) || (s.at == asked && to != asked) || (s.at == granted && to == wanted));
        s.at = to;
    }

    std::vector<std::unique_ptr<filter>>::iterator find(std::string_view name) {
        return std::ranges::lower_bound(filters_, name, {}, [](auto const& f) { return std::string_view(f->name); });
    }
    RUNNEL_COLD RUNNEL_NOINLINE filter& use(std::string_view name) {
        auto at = find(name);
        if (at == filters_.end() || (*at)->name != name) {
            auto made = std::make_unique<filter>();
            made->name = name;
            at = filters_.insert(at, std::move(made));
        }
        return use(**at);
    }
    static filter& use(filter& f) noexcept { return ++f.used, f; }
    RUNNEL_COLD RUNNEL_NOINLINE void release(filter& f) {
        if (--f.used == 0) filters_.erase(find(f.name));
    }
    RUNNEL_COLD RUNNEL_NOINLINE void release(request const& r) {
        for (auto* f : r.filters) release(*f);
    }

    // Identifiers are not given again while the server may know one.
    std::uint32_t new_identifier() {
        do {
            if (++identifier_ > last_identifier) identifier_ = 1, all_used_ = true;
        } while (all_used_ && is_in_use(identifier_));
        return identifier_;
    }
    bool is_in_use(std::uint32_t identifier) const noexcept {
        return std::ranges::any_of(wanted_, [=](auto const& s) { return s->identifier == identifier; }) ||
               std::ranges::any_of(filters_, [=](auto const& f) { return f->names(identifier); });
    }

    // An earlier one of the same subscription stays: the server may have granted that and refuse this. More than a few
    // come of servers that do not answer; then the oldest are least likely to be of use.
    RUNNEL_COLD static void push_claim(filter& f, claim c) {
        auto const same = [&](claim const& other) { return other.identifier == c.identifier; };
        if (std::ranges::count_if(f.claims, same) > 1 || f.claims.size() == maximum_claims) {
            auto const at = std::ranges::find_if(f.claims.rbegin(), f.claims.rend(), same);
            f.claims.erase(at != f.claims.rend() ? at.base() - 1 : f.claims.begin());
        }
        f.claims.push_back(c);
    }
    RUNNEL_COLD RUNNEL_NOINLINE static void erase_claims(request const& r) {
        for (auto* f : r.filters) std::erase_if(f->claims, [&](claim const& c) { return c.order == r.order; });
    }

    // Whether nobody else wants the filter.
    static bool is_only_for(subscription const& s, filter const& f) noexcept {
        return f.wanted == static_cast<std::size_t>(std::ranges::count(s.filters, &f));
    }

    bool is_granted(filter const& f) const noexcept {
        return std::ranges::any_of(wanted_, [&](auto const& s) {
            return s->at == stage::granted && std::ranges::find(s->filters, &f) != s->filters.end();
        });
    }

    // The ticket of the UNSUBSCRIBE that will undo all that the server may have of this filter.
    RUNNEL_COLD RUNNEL_NOINLINE std::uint64_t debt_for(filter const& f) {
        auto const has_it = [&](auto const& r) {
            bool const undoes = r.order == 0 || f.claims.empty() || r.order > f.claims.back().order;
            return r.type == packet_type::unsubscribe && undoes && std::ranges::find(r.filters, &f) != r.filters.end();
        };
        for (auto const* list : {&owed_, &sent_})
            if (auto const r = std::ranges::find_if(*list, has_it); r != list->end()) return r->ticket;
        auto const r = std::ranges::find_if(refused_, has_it);
        if (r == refused_.end()) return nothing;
        owed_.splice(owed_.end(), refused_, r);
        r->order = 0;
        return r->ticket;
    }

    // Takes filters out of the debts, and debts without any out of the list.
    enum class moot : std::uint8_t { all, granted_since, this_one };
    RUNNEL_COLD RUNNEL_NOINLINE void drop_debts(requests& list, moot which, filter const* one) {
        for (auto& r : list) {
            std::erase_if(r.filters, [&](filter* f) {
                bool const goes = which == moot::this_one        ? f == one
                                  : which == moot::granted_since ? f->wanted != 0 && is_granted(*f)
                                                                 : true;
                if (goes) release(*f);
                return goes;
            });
        }
        std::erase_if(list, [](auto const& r) { return r.filters.empty(); });
    }
    // Moves a debt to those that are to be sent, where their tickets are in order.
    RUNNEL_COLD RUNNEL_NOINLINE void owe_again(requests& from, requests::iterator debt) {
        auto const later = [&](auto const& r) { return r.ticket >= debt->ticket; };
        owed_.splice(std::ranges::find_if(owed_, later), from, debt);
    }

    // A request that was sent, as a list of its own.
    RUNNEL_COLD RUNNEL_NOINLINE requests answered(request const& which) {
        auto const at = std::ranges::find_if(sent_, [&](auto const& r) { return &r == &which; });
        assert(at != sent_.end());
        requests one;
        one.splice(one.end(), sent_, at);
        return one;
    }

    std::vector<std::unique_ptr<filter>> filters_{};       // by name
    std::vector<std::unique_ptr<subscription>> wanted_{};  // in the order in which they were made
    std::size_t asked_ = 0;                                // of these, from the first on, none waits to be sent
    requests owed_{};     // in the order of their tickets, as far as not asked for again
    requests sent_{};     // on this connection, in order
    requests refused_{};  // on this connection
    std::uint64_t tickets_ = nothing;
    std::uint64_t orders_ = 0;
    std::uint32_t identifier_ = 0;  // of the subscription made last
    bool all_used_ = false;         // all identifiers have been given once
};

}  // namespace runnel::mqtt
