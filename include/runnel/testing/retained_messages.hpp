#pragma once

#include <runnel/mqtt/topic.hpp>
#include <runnel/testing/stored_message.hpp>

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace runnel::testing {

/// The retained messages of a broker, one a topic.
class retained_messages {
  public:
    using time_point = stored_message::time_point;

    /// Keeps the message in place of the one that its topic had. An empty payload only removes that one
    /// [MQTT-3.3.1-6] [MQTT-3.3.1-7].
    void store(message_ptr const& m) {
        if (m->payload().empty()) {
            if (auto const found = messages_.find(m->topic()); found != messages_.end()) messages_.erase(found);
        } else {
            messages_.insert_or_assign(std::string(m->topic()), m);
        }
    }

    /// Calls `f(message_ptr const&)` for each message that matches the filter, in the order of the topics, and drops
    /// those that have expired. Takes time in proportion to the number of all messages if the filter has wildcards.
    template <class F>
    void for_each(std::string_view filter, time_point now, F&& f) {
        std::erase_if(messages_, [&](auto const& entry) { return entry.second->expired(now); });
        if (filter.find_first_of("+#") == std::string_view::npos) {
            if (auto const found = messages_.find(filter); found != messages_.end()) f(found->second);
            return;
        }
        for (auto const& [topic, m] : messages_)
            if (mqtt::matches(filter, topic)) f(m);
    }

    std::size_t size() const noexcept { return messages_.size(); }
    void clear() noexcept { messages_.clear(); }

  private:
    std::map<std::string, message_ptr, std::less<>> messages_;
};

}  // namespace runnel::testing
