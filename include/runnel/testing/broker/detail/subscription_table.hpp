#pragma once

#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/protocol/router.hpp>
#include <runnel/testing/broker/detail/session.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::testing::detail {

/// All subscriptions of a broker, of which it finds those that get a message.
class subscription_table {
  public:
    using time_point = stored_message::time_point;

    /// Adds a subscription under its filter, which may be `$share/group/filter`. Must not be there already.
    void add(std::string const& filter, broker_subscription& s) {
        auto const parts = mqtt::split_shared(filter);
        if (!parts.is_shared()) {
            router_.insert(filter, {&s, nullptr});
            return;
        }
        auto& g = groups_[filter];
        if (!g) {
            g = std::make_unique<group>();
            g->filter = filter;
            router_.insert(parts.filter, {nullptr, g.get()});
        }
        g->members.push_back(&s);
    }

    void remove(std::string const& filter, broker_subscription& s) {
        auto const found = groups_.find(filter);
        if (found == groups_.end() || std::erase(found->second->members, &s) == 0) {
            router_.erase(filter, {&s, nullptr});
            return;
        }
        if (!found->second->members.empty()) return;
        router_.erase(mqtt::split_shared(filter).filter, {nullptr, found->second.get()});
        groups_.erase(found);
    }

    /// A session that gets a message, and how.
    struct hit {
        broker_session* session;
        outgoing_message message;
    };

    /// Finds who gets the message: each session once, with the highest QoS and the identifiers of all its subscriptions
    /// that match [MQTT-3.3.4-2] [MQTT-3.3.4-5], and besides one member of each shared subscription. `from` is who
    /// published it, or nullptr.
    void find(message_ptr const& m, broker_session const* from, std::vector<hit>& hits, time_point now) {
        ++match_;
        router_.match(m->topic(), [&](entry& e) {
            if (e.shared != nullptr) {
                if (auto* const s = e.shared->next(m, now)) hits.push_back(make_hit(m, *s, e.shared->filter));
                return;
            }
            auto& s = *e.direct;
            if (s.no_local && s.session == from) return;  // [MQTT-3.8.3-3]
            if (s.session->match != match_) {
                s.session->match = match_;
                s.session->hit_index = hits.size();
                hits.push_back(make_hit(m, s));
            } else {
                merge(hits[s.session->hit_index].message, make_hit(m, s).message);
            }
        });
    }

    /// The member of a shared subscription whose turn it is to get the message; false if there is none.
    bool find_member(message_ptr const& m, std::string_view share, hit& found, time_point now) {
        auto const g = groups_.find(share);
        auto* const s = g == groups_.end() ? nullptr : g->second->next(m, now);
        if (s != nullptr) found = make_hit(m, *s, g->second->filter);
        return s != nullptr;
    }

  private:
    // Takes its members in turn: those that are connected and not behind first, then those that have room at least.
    struct group {
        std::string filter{};
        std::vector<broker_subscription*> members{};
        std::size_t turn = 0;

        broker_subscription* next(message_ptr const& m, time_point now) {
            auto const count = members.size();
            std::size_t chosen = ++turn;
            unsigned best = 0;
            for (std::size_t i = turn; i < turn + count && best < broker_session::best_readiness; ++i) {
                auto const& s = *members[i % count];
                outgoing_message const o{m, (std::min)(m->quality(), s.maximum_qos), false, {}};
                auto const ready = s.session->readiness(o, now);
                if (ready <= best) continue;
                best = ready;
                chosen = i;
            }
            turn = chosen;
            return count == 0 ? nullptr : members[chosen % count];
        }
    };

    struct entry {
        broker_subscription* direct;
        group* shared;
        friend bool operator==(entry const&, entry const&) = default;
    };

    static hit make_hit(message_ptr const& m, broker_subscription const& s, std::string_view share = {}) {
        outgoing_message o{
            m, (std::min)(m->quality(), s.maximum_qos), s.retain_as_published && m->retain(), {}, std::string(share)};
        if (s.identifier != 0) o.identifiers.push_back(s.identifier);
        return {s.session, std::move(o)};
    }

    static void merge(outgoing_message& into, outgoing_message const& other) {
        into.quality = (std::max)(into.quality, other.quality);
        into.retain = into.retain || other.retain;
        into.identifiers.insert(into.identifiers.end(), other.identifiers.begin(), other.identifiers.end());
    }

    mqtt::router<entry> router_{};
    std::map<std::string, std::unique_ptr<group>, std::less<>> groups_{};
    std::uint64_t match_ = 0;
};

}  // namespace runnel::testing::detail
