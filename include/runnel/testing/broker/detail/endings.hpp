#pragma once

// How connections and sessions end: a part of broker_core.hpp, in a file of its own.

#include <runnel/testing/broker/detail/core.hpp>

namespace runnel::testing::detail {

// Ends the client's connection, with DISCONNECT in MQTT 5.
inline void broker_core::disconnect(broker_connection& c, mqtt::reason_code reason, std::string_view why) {
    if (c.session) {
        auto& state = c.session->state;
        mqtt::properties p;
        mqtt::disconnect packet{reason, {}};
        if (!why.empty()) {
            p.reason_string = why;
            packet.props = &p;
            // [MQTT-3.14.2-3]
            if (encoded_size(packet, state.version()) > state.peer().maximum_packet_size) packet.props = {};
        }
        if (check(packet, state.version()) != mqtt::errc::ok) packet = {mqtt::reason_code::unspecified_error, {}};
        state.disconnect(c.out, packet);
        end_connection(c, true);
    }
    close(c);
}

// Lets what is in `out` be sent, then the flow end.
inline void broker_core::close(broker_connection& c) {
    c.closing = true;
    connections_.set(c, now_ + options_.linger);
    c.wake();
}

inline void broker_core::end_connection(broker_connection& c, bool abnormal) {
    auto const s = std::exchange(c.session, nullptr);
    if (!s) return;
    s->connection = nullptr;
    s->state.connection_lost();
    s->waiting.clear();
    if (!abnormal) s->will = nullptr;
    if (s->expiry != broker_session::never) s->ends_at = now_ + std::chrono::seconds(s->expiry);
    if (s->will) s->will_at = now_ + std::chrono::seconds(s->will_delay);
    check_offline(*s);
    if (hooks.on_disconnect) hooks.on_disconnect(s->name);
}

// Publishes the will and ends the session if it is time to, or sees to it that it will be done later.
inline void broker_core::check_offline(broker_session& s) {
    bool const ends = s.ends_at && *s.ends_at <= now_;
    if (s.will && (ends || *s.will_at <= now_)) publish_will(s);  // [MQTT-3.1.2-8]
    if (ends) return end_session(s);
    if (s.will && s.ends_at)
        sessions_due_.set(s, (std::min)(*s.will_at, *s.ends_at));
    else if (s.will || s.ends_at)
        sessions_due_.set(s, s.will ? *s.will_at : *s.ends_at);
    else
        sessions_due_.clear(s);
}

// A will is a message of its client's as any other, but that there is nobody to tell whether it goes its way.
inline void broker_core::publish_will(broker_session& s) {
    auto const will = std::exchange(s.will, nullptr);
    s.will_at.reset();
    mqtt::publish m{.topic = will->topic(),
                    .payload = will->payload(),
                    .qos = will->quality(),
                    .retain = will->retain(),
                    .props = will->props()};
    take_message(s, m);
}

// `s` is gone when this returns, unless the caller holds it.
inline void broker_core::end_session(broker_session& s) {
    sessions_due_.clear(s);
    for (auto& [filter, subscription] : s.subscriptions) table_.remove(filter, subscription);
    s.subscriptions.clear();
    pass_on(s);
    if (auto const found = sessions_.find(s.name); found != sessions_.end() && found->second.get() == &s)
        sessions_.erase(found);
}

// What a member of a shared subscription has not acknowledged goes to another one, in the same order (4.8.2). Not a
// QoS 2 message that has been sent: that stays with it [MQTT-4.8.2-5].
inline void broker_core::pass_on(broker_session& s) {
    auto const again = [this](message_ptr const& m, std::string_view share) {
        subscription_table::hit h{};
        if (table_.find_member(m, share, h, now_)) deliver(*h.session, std::move(h.message));
    };
    for (auto const& m : std::exchange(s.lent, {})) again(m.message, m.share);
    for (auto const& m : s.queue.take_all())
        if (!m.share.empty()) again(m.message, m.share);
}

}  // namespace runnel::testing::detail
