#pragma once

// How a session sends messages: a part of session_state.hpp, in a file of its own.

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

namespace runnel::mqtt {

RUNNEL_ALWAYS_INLINE inline session_state::begun session_state::publish_in_place(send_buffer& out,
                                                                                 mqtt::publish& message, void* owner) {
    if (phase_ != sends_at_once_) return queue(out, message, owner);
    if (message.qos == qos::at_most_once) {
        if (outgoing_.holds_at_most_once()) return queue(out, message, owner);
        return outgoing_.aliases().maximum() == 0 ? send(out, message) : send_with_alias(out, message);
    }
    bool const plain = message.props.empty() && outgoing_.aliases().maximum() == 0;
    bool const its_turn = !outgoing_.holds_unsent() && outgoing_.unacknowledged() < window_;
    bool const has_room = out.size() < limits_.unwritten;
    return plain && its_turn && has_room && has_known_identifier(message.qos) ? send_and_keep(out, message, owner)
                                                                              : queue(out, message, owner);
}

// Sends a QoS 0 message, without an alias unless it has one.
RUNNEL_ALWAYS_INLINE inline session_state::begun session_state::send(send_buffer& out, mqtt::publish const& message) {
    if (errc const e = check(message, version_); e != errc::ok) return {e};
    auto const measured = measure(message, version_);
    std::size_t const size = packet_size(measured.remaining_length);
    if (errc const e = check_publish(peer_, message.qos, message.retain, size); e != errc::ok) return {e};
    if (!message.props.empty())
        if (errc const e = check_properties(message, true); e != errc::ok) return {e};
    encode(out.prepare(size), message, version_, measured);
    out.commit(size);
    return {};
}

// Sends a QoS 0 message of MQTT 5, with an alias for its topic if it gets one.
RUNNEL_NOINLINE inline session_state::begun session_state::send_with_alias(send_buffer& out,
                                                                           mqtt::publish const& message) {
    auto const alias = outgoing_.aliases().find_newest(message.topic);
    if (alias == 0 || !message.props.empty() || message.dup) return choose_alias(out, message);
    std::size_t const size = detail::size_with_known_topic(message.payload);
    if (errc const e = check_publish(peer_, message.qos, message.retain, size); e != errc::ok) return {e};
    detail::encode_with_known_topic(out.prepare(size), message.payload, message.retain, alias);
    out.commit(size);
    return {};
}

inline session_state::begun session_state::choose_alias(send_buffer& out, mqtt::publish packet) {
    auto& aliases = outgoing_.aliases();
    bool const own = !packet.props.empty() && packet.props.get<property_id::topic_alias>();
    auto const found = own ? detail::outgoing_aliases::choice{} : aliases.find(packet.topic);
    // A topic that has an alias has been checked.
    errc e = found.known() ? check_without_topic(packet, version_) : check(packet, version_);
    if (e == errc::ok && !packet.props.empty()) e = check_properties(packet, true);
    if (e != errc::ok) return {e};
    if (found.known()) packet.topic = {};
    auto measured = measure(packet, version_);
    if (found.known()) measured = detail::with_alias(measured);
    e = check_publish(peer_, packet.qos, packet.retain, packet_size(measured.remaining_length));
    if (e != errc::ok) return {e};
    auto alias = found.alias;
    bool const fits = packet_size(measured.remaining_length) + detail::max_alias_growth <= peer_.maximum_packet_size;
    if (!own && alias == 0 && fits) {
        out.prepare(packet_size(measured.remaining_length) + detail::max_alias_growth);  // what is assigned is sent
        alias = aliases.assign(packet.topic, found);
        if (alias != 0) measured = detail::with_alias(measured);
    }
    std::size_t const size = packet_size(measured.remaining_length);
    char* const to = out.prepare(size);
    if (alias != 0)
        detail::encode_with_alias(to, packet, measured, alias);
    else
        encode(to, packet, version_, measured);
    out.commit(size);
    return {};
}

// Whether a message can be queued, or kept for its acknowledgement; it has a packet identifier if it needs one.
RUNNEL_ALWAYS_INLINE inline errc session_state::admit(mqtt::publish const& message, publish_size& measured) const {
    if (errc const e = check(message, queue_version_); e != errc::ok) return e;
    measured = measure(message, queue_version_);
    std::size_t const size = packet_size(measured.remaining_length);
    if (peer_known_)
        if (errc const e = check_publish(peer_, message.qos, message.retain, size); e != errc::ok) return e;
    if (!message.props.empty()) {
        if (!may_have_v5()) return errc::not_in_this_version;
        if (errc const e = check_properties(message, false); e != errc::ok) return e;
    }
    if (!outgoing_.has_identifier()) return errc::no_packet_identifier;
    if (outgoing_.size() >= limits_.queued_messages) return errc::queue_full;
    bool const full = outgoing_.bytes() != 0 && outgoing_.bytes() + size > limits_.queued_bytes;
    return full ? errc::queue_full : errc::ok;
}

// Sends a QoS 1 or 2 message whose turn it is, as it is.
RUNNEL_NOINLINE inline session_state::begun session_state::send_and_keep(send_buffer& out, mqtt::publish& message,
                                                                         void* owner) {
    outgoing_.make_identifier();
    auto const number = outgoing_.next_number();
    message.packet_id = outgoing_.next_identifier();
    publish_size measured;
    if (errc const e = admit(message, measured); e != errc::ok) return {e};
    outgoing_.send(out, message, queue_version_, measured, owner);
    return {errc::ok, number};
}

// Queues a message, and sends it if it is its turn.
RUNNEL_NOINLINE inline session_state::begun session_state::queue(send_buffer& out, mqtt::publish& message,
                                                                 void* owner) {
    if (phase_ == sends_queued_ && phase_ != sends_at_once_) [[unlikely]]  // it is written in another version
        if (message.qos == qos::at_most_once && !outgoing_.holds_at_most_once()) return send_with_alias(out, message);
    outgoing_.make_identifier();
    auto const number = outgoing_.next_number();
    message.packet_id = message.qos == qos::at_most_once ? std::uint16_t{0} : outgoing_.next_identifier();
    publish_size measured;
    if (errc const e = admit(message, measured); e != errc::ok) {
        // An alias of the application's own cannot be queued, but can be sent once those in front have been.
        bool const later = e == errc::topic_alias_invalid && connected() && !is_paced() &&
                           message.qos == qos::at_most_once && check_properties(message, true) == errc::ok;
        return {later ? errc::topic_alias_cannot_wait : e};
    }
    outgoing_.queue(message, queue_version_, measured, owner);
    RUNNEL_TRY { send_queued(out); }
    RUNNEL_CATCH_ALL {
        outgoing_.take_back(number);
        RUNNEL_RETHROW;
    }
    if (!message.props.empty()) outgoing_.note_expiry(number);
    return {errc::ok, number};
}

inline errc session_state::check_properties(mqtt::publish const& message, bool at_once) const noexcept {
    if (errc const e = check_sender(message, role_); e != errc::ok) return e;
    auto const alias = message.props.get<property_id::topic_alias>();
    bool const own = alias && at_once && *alias > outgoing_.aliases().maximum();
    return !alias || (own && *alias <= peer_.topic_alias_maximum) ? errc::ok  // [MQTT-3.3.2-9]
                                                                  : errc::topic_alias_invalid;
}

}  // namespace runnel::mqtt
