#pragma once

#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/testing/broker/detail/stored_message.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::testing::detail {

/// How far the retained messages have been sent that a new subscription is to get.
struct retained_request {
    std::string filter{};
    mqtt::qos granted;
    std::uint32_t identifier;  ///< of the subscription; 0: none
    bool queued;               ///< those sent with QoS 1 and 2; false: those sent with QoS 0
    std::uint64_t before;      ///< only messages that were retained before this one: later ones come as any message
    std::string after = {};    ///< the topic of the message sent last
    bool begun = false;        ///< whether there is one
};

/// The retained messages of a broker, one a topic.
class retained_messages {
  public:
    using time_point = stored_message::time_point;

    /// Keeps the message in place of the one that its topic had. An empty payload only removes that one
    /// [MQTT-3.3.1-6] [MQTT-3.3.1-7].
    void store(message_ptr const& m) {
        if (auto const found = messages_.find(m->topic()); found != messages_.end()) erase(found);
        if (m->payload().empty()) return;
        auto const at = messages_.emplace(std::string(m->topic()), entry{m, number_++, expiring_.end()}).first;
        if (m->expires()) at->second.expiring = expiring_.emplace(m->expires_at(), &at->first);
        bytes_ += m->cost();
    }

    /// Whether the message may be kept without there being more than `most` messages, or more than `most_bytes` of
    /// them. Drops those that have expired.
    bool has_room(std::string_view topic, std::string_view payload, std::size_t most, std::size_t most_bytes,
                  time_point now) {
        if (payload.empty()) return true;
        drop_expired(now);
        auto const found = messages_.find(topic);
        bool const replaces = found != messages_.end();
        auto const others = bytes_ - (replaces ? found->second.message->cost() : 0);
        auto const cost = stored_message::fixed_cost + topic.size() + payload.size();
        return messages_.size() - (replaces ? 1u : 0u) < most && others < most_bytes && cost <= most_bytes - others;
    }

    /// The number of the message that is stored next, for `retained_request::before`.
    std::uint64_t next_number() const noexcept { return number_; }

    /// The next message that `r` asks for, in the order of the topics; null if there is none left. Takes time in
    /// proportion to the messages whose topics begin as the filter does, up to the one found.
    message_ptr next(retained_request& r, time_point now) {
        drop_expired(now);
        auto const wildcard = r.filter.find_first_of("+#");
        bool const exact = wildcard == std::string::npos;
        auto prefix = std::string_view(r.filter).substr(0, wildcard);
        if (!exact && prefix.ends_with('/')) prefix.remove_suffix(1);  // "a/#" matches "a", too
        auto at = r.begun ? messages_.upper_bound(r.after) : messages_.lower_bound(prefix);
        for (; at != messages_.end() && at->first.starts_with(prefix); ++at) {
            auto const& [topic, e] = *at;
            if (exact && topic != r.filter) break;
            bool const queued = (std::min)(e.message->quality(), r.granted) != mqtt::qos::at_most_once;
            if (queued != r.queued || e.number >= r.before || !mqtt::matches(r.filter, topic)) continue;
            r.after = topic;
            r.begun = true;
            return e.message;
        }
        return nullptr;
    }

    /// Drops the messages that have expired.
    void drop_expired(time_point now) {
        while (!expiring_.empty() && expiring_.begin()->first <= now) erase(messages_.find(*expiring_.begin()->second));
    }

    std::size_t size() const noexcept { return messages_.size(); }
    /// Bytes of all of them, with what each takes besides.
    std::size_t bytes() const noexcept { return bytes_; }

  private:
    using expiries = std::multimap<time_point, std::string const*>;  // the topics are keys of `messages_`

    struct entry {
        message_ptr message{};
        std::uint64_t number;
        expiries::iterator expiring;
    };
    using map_type = std::map<std::string, entry, std::less<>>;

    void erase(map_type::iterator at) {
        if (at->second.message->expires()) expiring_.erase(at->second.expiring);
        bytes_ -= at->second.message->cost();
        messages_.erase(at);
    }

    map_type messages_{};
    expiries expiring_{};
    std::uint64_t number_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace runnel::testing::detail
