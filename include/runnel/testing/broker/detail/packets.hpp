#pragma once

// What the broker does with the packets of a connected client: a part of broker_core.hpp, in a file of its own.

#include <runnel/testing/broker/detail/core.hpp>

namespace runnel::testing::detail {

struct broker_core::packet_handler : mqtt::session_handler {
    broker_core& core;
    broker_session& session;

    packet_handler(broker_core& c, broker_session& s) : core(c), session(s) {}
    void on_message(mqtt::publish const& m, mqtt::delivery d) { core.handle_message(session, m, d); }
    void on_subscribe(mqtt::subscribe const& packet) { core.handle_subscribe(session, packet); }
    void on_unsubscribe(mqtt::unsubscribe const& packet) { core.handle_unsubscribe(session, packet); }
    void on_published(void* owner, mqtt::acknowledgement const&) {
        if (owner != nullptr) session.lent.erase(static_cast<lent_message*>(owner)->place);
    }
    void on_disconnect(mqtt::disconnect const& packet) { core.handle_disconnect(session, packet); }
    void on_auth(mqtt::auth const& packet) { core.handle_auth(session, packet); }
};

inline void broker_core::receive_packets(broker_connection& c, std::string_view& input) {
    auto const s = c.session;  // keeps it, should the connection end meanwhile
    mqtt::errc const e = s->state.receive(input, c.out, packet_handler(*this, *s));
    c.expected = s->state.expected_size();
    if (c.session != s) return;
    if (e == mqtt::errc::ok) return send_queued(*s);
    ++counters_.protocol_errors;
    log("client " + s->name + " broke the protocol: " + describe(e));
    disconnect(c, mqtt::reason_for(e), describe(e));
}

inline void broker_core::handle_message(broker_session& s, mqtt::publish const& m, mqtt::delivery d) {
    auto const verdict = take_message(s, m);
    if (!s.connected()) return;
    auto& c = *s.connection;
    auto reason = verdict.reason;
    if (verdict.disconnect) {
        s.state.give_back(d, &m);
        return disconnect(c, reason, describe(reason));
    }
    if (!mqtt::allowed_in(reason, mqtt::packet_type::puback)) reason = mqtt::reason_code::implementation_specific_error;
    // MQTT 3.1.1 has no way to refuse a message: it is acknowledged and forgotten [MQTT-3.3.5-2].
    if (hold_ && d.quality != mqtt::qos::at_most_once)
        s.held.push_back(d);
    else
        s.state.acknowledge(c.out, d,
                            s.state.version() == mqtt::protocol_version::v5 ? reason : mqtt::reason_code::success);
}

// A message of a client, whose will it may be, goes its way or is refused. The reason is for the acknowledgement.
inline publish_verdict broker_core::take_message(broker_session& s, mqtt::publish const& m) {
    ++counters_.messages_received;
    publish_verdict verdict;
    if (hooks.authorize_publish) verdict = hooks.authorize_publish(s.info(), m);
    bool const kept = m.retain && options_.accepts.retain_available;
    if (!is_error(verdict.reason) && kept &&
        !retained_.has_room(m.topic, m.payload, options_.retained_limit, options_.retained_bytes, now_))
        verdict = {mqtt::reason_code::quota_exceeded, false};
    if (is_error(verdict.reason)) {
        ++counters_.messages_refused;
        std::string text = "refused a message of client " + s.name + " to ";
        log(text.append(m.topic).append(": ").append(describe(verdict.reason)));
        return verdict;
    }
    verdict.disconnect = false;
    if (options_.recorded_messages > 0) {
        if (received_.size() >= options_.recorded_messages) received_.pop_front();
        received_.push_back({s.name, std::string(m.topic), std::string(m.payload), m.qos, m.retain, m.dup});
    }
    auto const hits = route(std::make_shared<stored_message const>(m, now_), &s);
    if (hits == 0) verdict.reason = mqtt::reason_code::no_matching_subscribers;
    if (hooks.on_publish) hooks.on_publish(s.info(), m);
    return verdict;
}

// Whether the client takes the answer to its request; otherwise it is disconnected, and nothing is to be done.
inline bool broker_core::fits_answer(broker_session& s, mqtt::packet_type type, std::size_t reasons) {
    std::vector<mqtt::reason_code> const some(reasons);
    auto const version = s.state.version();
    auto const size = type == mqtt::packet_type::suback ? encoded_size(mqtt::suback{1, some, {}}, version)
                                                        : encoded_size(mqtt::unsuback{1, some, {}}, version);
    if (size <= s.state.peer().maximum_packet_size) return true;
    log("client " + s.name + ": its maximum packet size leaves no room for the answer to its request");
    disconnect(*s.connection, mqtt::reason_code::packet_too_large, {});
    return false;
}

inline void broker_core::handle_subscribe(broker_session& s, mqtt::subscribe const& packet) {
    auto const identifiers = packet.props.get<mqtt::property_id::subscription_identifier>();
    auto const identifier = identifiers.empty() ? 0u : *identifiers.begin();
    if (!fits_answer(s, mqtt::packet_type::suback, packet.requests.size())) return;
    std::vector<mqtt::reason_code> reasons;
    for (auto const& request : packet.requests) {
        auto const reason = check_subscription(s, packet, request);
        reasons.push_back(reason);
        if (is_error(reason)) {
            std::string text = "refused a subscription of client " + s.name + " to ";
            log(text.append(request.filter).append(": ").append(describe(reason)));
            continue;
        }
        bool const any = s.state.version() != mqtt::protocol_version::v5 && options_.ignores_subscription_qos_v3_1_1;
        auto const granted = any ? options_.accepts.maximum_qos : static_cast<mqtt::qos>(reason);
        bool const is_new = subscribe(s, request, granted, identifier);
        if (mqtt::split_shared(request.filter).is_shared() || request.handling == mqtt::retain_handling::do_not_send ||
            (request.handling == mqtt::retain_handling::send_if_new && !is_new))
            continue;
        forget_retained(s, request.filter);
        for (bool const queued : {false, true})
            s.retained.push_back(
                {std::string(request.filter), granted, identifier, queued, retained_.next_number(), {}, false});
    }
    s.state.suback(s.connection->out, {packet.packet_id, reasons, {}});
    send_queued(s);
}

inline mqtt::reason_code broker_core::check_subscription(broker_session& s, mqtt::subscribe const& packet,
                                                         mqtt::subscription_request const& request) {
    using enum mqtt::reason_code;
    auto const& accepts = options_.accepts;
    auto const identifiers = packet.props.get<mqtt::property_id::subscription_identifier>();
    // Shared subscriptions are for MQTT 3.1.1 too, with the rules of MQTT 5.
    if (mqtt::check_topic_filter(request.filter, mqtt::protocol_version::v5) != mqtt::errc::ok)
        return topic_filter_invalid;
    if (!accepts.shared_subscription_available && mqtt::split_shared(request.filter).is_shared())
        return shared_subscriptions_not_supported;
    if (!accepts.subscription_identifier_available && !identifiers.empty())
        return subscription_identifiers_not_supported;
    auto const others = s.subscriptions.size() - s.subscriptions.count(request.filter);
    if (others >= options_.subscription_limit) return quota_exceeded;
    auto const cost = broker_subscription::cost(request.filter);
    if (others == s.subscriptions.size() && cost > options_.subscription_bytes - s.subscription_bytes)
        return quota_exceeded;
    if (!accepts.wildcard_subscription_available && request.filter.find_first_of("+#") != std::string_view::npos)
        return wildcard_subscriptions_not_supported;
    auto const most = static_cast<mqtt::reason_code>((std::min)(request.maximum_qos, accepts.maximum_qos));
    if (!hooks.authorize_subscribe) return most;
    auto info = s.info();
    info.subscriptions = others;
    auto const reason = hooks.authorize_subscribe(info, packet, request);
    if (is_error(reason)) return mqtt::allowed_in(reason, mqtt::packet_type::suback) ? reason : unspecified_error;
    return (std::min)(reason, most);
}

// Whether the subscription is new, and not an old one replaced [MQTT-3.8.4-3].
inline bool broker_core::subscribe(broker_session& s, mqtt::subscription_request const& request, mqtt::qos granted,
                                   std::uint32_t identifier) {
    broker_subscription const wanted{&s, granted, request.no_local, request.retain_as_published, identifier};
    auto const [at, is_new] = s.subscriptions.try_emplace(std::string(request.filter), wanted);
    if (is_new) {
        table_.add(at->first, at->second);
        s.subscription_bytes += broker_subscription::cost(request.filter);
    } else {
        at->second = wanted;
    }
    return is_new;
}

inline void broker_core::forget_retained(broker_session& s, std::string_view filter) {
    std::erase_if(s.retained, [&](retained_request const& r) { return r.filter == filter; });
}

inline void broker_core::handle_unsubscribe(broker_session& s, mqtt::unsubscribe const& packet) {
    if (!fits_answer(s, mqtt::packet_type::unsuback, packet.filters.size())) return;
    std::vector<mqtt::reason_code> reasons;
    for (auto const filter : packet.filters) {
        auto const found = s.subscriptions.find(filter);
        bool const existed = found != s.subscriptions.end();
        reasons.push_back(existed ? mqtt::reason_code::success : mqtt::reason_code::no_subscription_existed);
        if (!existed) continue;
        table_.remove(found->first, found->second);
        s.subscription_bytes -= broker_subscription::cost(filter);
        s.subscriptions.erase(found);
        forget_retained(s, filter);
    }
    s.state.unsuback(s.connection->out, {packet.packet_id, reasons, {}});
}

inline void broker_core::handle_disconnect(broker_session& s, mqtt::disconnect const& packet) {
    auto& c = *s.connection;
    if (auto const expiry = packet.props.get<mqtt::property_id::session_expiry_interval>()) {
        if (s.asked_expiry == 0 && *expiry != 0) {  // 3.14.2.2.2
            ++counters_.protocol_errors;
            log("client " + s.name + " broke the protocol: its session cannot be made to last by DISCONNECT");
            // For the session state the connection is over.
            send_packet(c, mqtt::disconnect{mqtt::reason_code::protocol_error, {}}, s.state.version());
            end_connection(c, true);
            return close(c);
        }
        s.expiry = (std::min)(*expiry, options_.maximum_session_expiry);
    }
    // [MQTT-3.14.4-3]
    end_connection(c, packet.reason != mqtt::reason_code::normal_disconnection);
    close(c);
}

}  // namespace runnel::testing::detail
