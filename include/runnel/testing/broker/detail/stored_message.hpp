#pragma once

#include <runnel/mqtt/packet.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::testing::detail {

/// A message that the broker keeps: as retained, as a will, or in the queues of sessions, which share one copy.
class stored_message {
  public:
    using time_point = std::chrono::steady_clock::time_point;

    /// Copies a message. Of its properties those that belong to the publisher's own connection are left out: topic
    /// alias, subscription identifiers, and a will's delay. `now` is when it came, from which its expiry counts.
    stored_message(mqtt::publish const& m, time_point now) : quality_(m.qos), retain_(m.retain) {
        mqtt::properties p;
        if (!m.props.empty()) {
            p = m.props.parse();
            p.topic_alias.reset();
            p.will_delay_interval.reset();
            p.subscription_identifiers = {};
            if (p.message_expiry_interval) expires_ = now + std::chrono::seconds(*p.message_expiry_interval);
        }
        constexpr auto type = mqtt::packet_constant<mqtt::packet_type::publish>;
        auto const props_size = m.props.empty() ? 0 : mqtt::encoded_size(mqtt::property_view(&p), type);
        bytes_.resize(m.topic.size() + m.payload.size() + props_size);
        char* const payload = mqtt::write_bytes(bytes_.data(), m.topic);
        char* const props = mqtt::write_bytes(payload, m.payload);
        topic_ = {bytes_.data(), m.topic.size()};
        payload_ = {payload, m.payload.size()};
        if (m.props.empty()) return;
        mqtt::encode(props, mqtt::property_view(&p), type);
        mqtt::wire_reader reader(std::string_view(props, props_size));
        props_ = mqtt::property_view::read(reader, mqtt::packet_type::publish);
    }
    stored_message(stored_message const&) = delete;
    stored_message& operator=(stored_message const&) = delete;

    /// What a kept message takes besides its bytes, about.
    static constexpr std::size_t fixed_cost = 128;
    /// Bytes that limits count for it.
    std::size_t cost() const noexcept { return fixed_cost + bytes_.size(); }

    std::string_view topic() const noexcept { return topic_; }
    std::string_view payload() const noexcept { return payload_; }
    mqtt::property_view const& props() const noexcept { return props_; }
    mqtt::qos quality() const noexcept { return quality_; }
    bool retain() const noexcept { return retain_; }

    bool expires() const noexcept { return expires_.has_value(); }
    time_point expires_at() const noexcept { return *expires_; }
    bool expired(time_point now) const noexcept { return expires_ && *expires_ <= now; }

    /// Whole seconds until it expires, at least 1 as long as it has not.
    std::uint32_t seconds_left(time_point now) const noexcept {
        return static_cast<std::uint32_t>(std::chrono::ceil<std::chrono::seconds>(*expires_ - now).count());
    }

  private:
    std::string bytes_{};
    std::string_view topic_{};
    std::string_view payload_{};
    mqtt::property_view props_{};
    mqtt::qos quality_;
    bool retain_;
    std::optional<time_point> expires_{};
};

/// One message, shared by all that it waits for.
using message_ptr = std::shared_ptr<stored_message const>;

}  // namespace runnel::testing::detail
