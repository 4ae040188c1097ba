#pragma once

// How the broker's messages get to clients: a part of broker_core.hpp, in a file of its own.

#include <runnel/testing/broker/detail/core.hpp>

namespace runnel::testing::detail {

inline std::size_t broker_core::route(message_ptr const& m, broker_session const* from) {
    if (m->retain() && options_.accepts.retain_available) retained_.store(m);
    auto hits = std::exchange(hits_, {});  // a hook may publish while this goes on
    table_.find(m, from, hits, now_);
    for (auto& h : hits) deliver(*h.session, std::move(h.message));
    auto const count = hits.size();
    hits.clear();
    hits_ = std::move(hits);
    return count;
}

inline void broker_core::deliver(broker_session& s, outgoing_message m) {
    bool const queued = m.quality != mqtt::qos::at_most_once;
    if (!queued && !s.connected()) return;
    auto& queue = queued ? s.queue : s.waiting;
    send_queued(s);  // an older message must not be overtaken, nor the newer one dropped for its sake
    if (!s.has_room(m)) counters_.messages_expired += queue.drop_expired(now_);
    if (!s.has_room(m)) {
        ++counters_.messages_dropped;
        return;
    }
    if (queue.empty() && s.retained.empty() && can_send(s, m.quality) && send(s, m)) return;
    queue.push(std::move(m));
}

// Whether a message may be sent now. What is encoded already is kept short, so that answers do not stand behind more
// than that, and messages for slow clients wait in a form that all of them share.
inline bool broker_core::can_send(broker_session const& s, mqtt::qos quality) const {
    if (!s.connected() || s.connection->out.size() >= (std::min)(options_.output_limit, written_at_once)) return false;
    return quality == mqtt::qos::at_most_once ||
           s.state.unacknowledged() < (std::min)(options_.in_flight, s.state.peer().receive_maximum);
}

// Sends what waits, as far as the client takes it: first the retained messages of new subscriptions, then the others,
// those with QoS 0 and those with QoS 1 and 2 in turn, so that neither keeps the others waiting.
inline void broker_core::send_queued(broker_session& s) {
    send_retained(s);
    if (!s.connected()) return;
    for (bool any = true; any;) {
        any = s.retained.empty() && send_first(s, s.waiting, mqtt::qos::at_most_once);
        any = send_first(s, s.queue, mqtt::qos::at_least_once) || any;
    }
}

// False: nothing has been sent.
inline bool broker_core::send_first(broker_session& s, outgoing_queue& queue, mqtt::qos quality) {
    if (queue.empty() || !can_send(s, quality)) return false;
    auto m = queue.pop();
    if (send(s, m)) return true;
    queue.put_back(std::move(m));
    return false;
}

// Goes on with the retained messages that new subscriptions are to get: those of QoS 0 are sent as there is room in the
// output, the others are queued as there is room in the queue.
inline void broker_core::send_retained(broker_session& s) {
    bool blocked[2] = {};  // by QoS 0, by the others
    for (auto at = s.retained.begin(); at != s.retained.end();) {
        auto const before = std::exchange(blocked[at->queued], blocked[at->queued] || !send_retained(s, *at));
        at = before || blocked[at->queued] ? std::next(at) : s.retained.erase(at);
    }
}

// False: there are more.
inline bool broker_core::send_retained(broker_session& s, retained_request& r) {
    while (true) {
        auto const may_go_on = [&] {
            if (!r.queued) return can_send(s, mqtt::qos::at_most_once);
            return s.queue.size() < options_.queue_limit &&
                   (s.queue.bytes() + s.state.queued_bytes() < options_.queue_bytes);
        };
        if (!may_go_on()) return false;
        auto const m = retained_.next(r, now_);
        if (!m) return true;
        outgoing_message o{m, (std::min)(m->quality(), r.granted), true, {}};  // [MQTT-3.3.1-8]
        if (r.identifier != 0) o.identifiers.push_back(r.identifier);
        if (r.queued)
            s.queue.push(std::move(o));
        else
            send(s, o);
    }
}

// What has to be sent again counts its expiry down.
inline void broker_core::tell_time(broker_session& s) const noexcept {
    s.state.set_time(std::chrono::duration_cast<std::chrono::milliseconds>(now_.time_since_epoch()));
}

// False: not now, as there is no packet identifier, say. Otherwise there is nothing more to be done for the message.
inline bool broker_core::send(broker_session& s, outgoing_message const& o) {
    auto const& m = *o.message;
    if (m.expired(now_)) {
        ++counters_.messages_expired;
        return true;
    }
    mqtt::publish packet{.topic = m.topic(), .payload = m.payload(), .qos = o.quality, .retain = o.retain};
    mqtt::properties p;
    if (s.state.version() == mqtt::protocol_version::v5) {
        packet.props = m.props();
        if (m.expires() || !o.identifiers.empty()) {
            p = m.props().parse();
            if (m.expires()) p.message_expiry_interval = m.seconds_left(now_);  // [MQTT-3.3.2-6]
            p.subscription_identifiers = o.identifiers;
            packet.props = &p;
        }
    }
    auto& c = *s.connection;
    tell_time(s);
    lent_message* lent = nullptr;
    if (!o.share.empty() && o.quality == mqtt::qos::at_least_once) {
        lent = &s.lent.emplace_back(lent_message{o.message, o.share, {}});
        lent->place = std::prev(s.lent.end());
    }
    auto const error = s.state.publish(c.out, packet, lent).error;
    if (error != mqtt::errc::ok && lent != nullptr) s.lent.pop_back();
    if (error == mqtt::errc::no_packet_identifier || error == mqtt::errc::queue_full) return false;
    if (error != mqtt::errc::ok) {
        ++counters_.messages_dropped;  // too large for the client [MQTT-3.1.2-24] [MQTT-3.1.2-25]
        return true;
    }
    ++counters_.messages_sent;
    if (!c.behind_since) c.behind_since = now_;
    c.wake();
    return true;
}

}  // namespace runnel::testing::detail
