#pragma once

#include <runnel/testing/broker/detail/stored_message.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace runnel::testing::detail {

/// A message on its way to one client.
struct outgoing_message {
    message_ptr message{};
    mqtt::qos quality;
    bool retain;
    std::vector<std::uint32_t> identifiers{};  ///< of the subscriptions that it matched
    std::string share = {};                    ///< "$share/..." if it came by a shared subscription, or else empty

    /// Bytes that limits count for it.
    std::size_t cost() const noexcept {
        return message->cost() + identifiers.size() * sizeof(identifiers[0]) + share.size();
    }
};

/// Messages that wait for their turn to be sent to one client, in order.
class outgoing_queue {
  public:
    using time_point = stored_message::time_point;

    void push(outgoing_message m) {
        note(m);
        messages_.push_back(std::move(m));
    }
    /// Puts back what `pop` has returned.
    void put_back(outgoing_message m) {
        note(m);
        messages_.push_front(std::move(m));
    }
    outgoing_message pop() {
        auto m = std::move(messages_.front());
        messages_.pop_front();
        bytes_ -= m.cost();
        return m;
    }

    /// Drops the messages that have expired [MQTT-3.3.2-5]; returns how many.
    std::size_t drop_expired(time_point now) {
        if (now < next_expiry_) return 0;
        next_expiry_ = (time_point::max)();
        auto const dropped = std::erase_if(messages_, [&](outgoing_message const& m) {
            if (!m.message->expires()) return false;
            bool const expired = m.message->expired(now);
            if (expired)
                bytes_ -= m.cost();
            else
                next_expiry_ = (std::min)(next_expiry_, m.message->expires_at());
            return expired;
        });
        return dropped;
    }

    /// Takes all of them out.
    std::deque<outgoing_message> take_all() noexcept {
        bytes_ = 0;
        return std::exchange(messages_, {});
    }
    void clear() noexcept { take_all(); }

    bool empty() const noexcept { return messages_.empty(); }
    std::size_t size() const noexcept { return messages_.size(); }
    /// Bytes of all of them, with what each takes besides.
    std::size_t bytes() const noexcept { return bytes_; }

  private:
    void note(outgoing_message const& m) {
        bytes_ += m.cost();
        if (m.message->expires()) next_expiry_ = (std::min)(next_expiry_, m.message->expires_at());
    }

    std::deque<outgoing_message> messages_{};
    std::size_t bytes_ = 0;
    time_point next_expiry_ = (time_point::max)();
};

}  // namespace runnel::testing::detail
