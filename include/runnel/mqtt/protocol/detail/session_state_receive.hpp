#pragma once

// What a session does with the packets it receives: a part of session_state.hpp, in a file of its own.

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>

namespace runnel::mqtt {

template <class Handler>
errc session_state::receive(std::string_view& input, send_buffer& out, Handler&& handler) {
    outgoing_.expire(handler);
    while (phase_ != phase::disconnected) {
        if constexpr (std::remove_reference_t<Handler>::takes_pieces) {
            auto const step = receive_pieces(input, out, handler);
            if (step.error != errc::ok || step.next == piece_step::what::stop) return step.error;
            if (step.next == piece_step::what::again) continue;
        }
        if (is_plain_acknowledgement(input)) {
            acknowledgement const ack{static_cast<packet_type>(input[0] >> 4), identifier_at(input, 2), {}, {}};
            if (errc const e = receive_acknowledgement(ack, out, handler); e != errc::ok) return e;
            input.remove_prefix(4);
            continue;
        }
        frame const next = next_frame(input, own_.maximum_packet_size);
        expected_ = next.total_size;
        if (next.status == parse_status::need_more) return errc::ok;
        if (next.status == parse_status::malformed) return next.error;
        bool const is_publish = next.header.type == packet_type::publish;
        errc const e = is_publish ? receive_publish(next, out, handler) : receive_other(next, out, handler);
        if (e != errc::ok) return e;
        input.remove_prefix(next.total_size);
        if (!is_publish && handler.is_held()) [[unlikely]]
            break;
    }
    return errc::ok;
}

// Whether an acknowledgement begins the input that has nothing but a packet identifier, as nearly all: it needs no
// decoding, and both ends may send it.
inline bool session_state::is_plain_acknowledgement(std::string_view input) const noexcept {
    if (input.size() < 4 || input[1] != 2 || phase_ == phase::connecting) return false;
    bool const has_type = input[0] == 0x40 || input[0] == 0x50 || input[0] == 0x62 || input[0] == 0x70;
    return has_type && identifier_at(input, 2) != 0;
}
inline std::uint16_t session_state::identifier_at(std::string_view input, std::size_t at) noexcept {
    return read_big_endian<std::uint16_t>(input.data() + at);
}

template <class Handler>
errc session_state::receive_publish(frame const& f, send_buffer& out, Handler& handler) {
    if (phase_ == phase::connecting) return errc::packet_before_connack;
    mqtt::publish message;
    if (errc const e = decode(f.header, f.body, version_, message); e != errc::ok) return e;
    if (errc const e = check_received(message); e != errc::ok) return e;
    if (errc const e = resolve_alias(message); e != errc::ok) return e;
    if (message.qos == qos::at_most_once) {
        handler.on_message(message, delivery{});
        return errc::ok;
    }
    if (version_ == protocol_version::v5 && received_.unacknowledged() >= own_.receive_maximum)
        return errc::receive_maximum_exceeded;  // [MQTT-3.3.4-7], [MQTT-3.3.4-9]
    if (received_.waiting() >= limits_.not_taken || leaves_out_) [[unlikely]]
        if (leaves_out()) return errc::ok;
    auto const arrival = received_.arrive(message);
    if (!arrival.is_new) {
        if (arrival.lane_unknown) received_.place_restored(arrival.token, handler.lane_of(message));
        send_acknowledgements(out);  // the application may have taken it the first time [MQTT-4.3.3-10]
        return errc::ok;
    }
    RUNNEL_TRY { handler.on_message(message, arrival.token); }
    RUNNEL_CATCH_ALL {
        received_.give_back(arrival.token, &message);
        RUNNEL_RETHROW;
    }
    received_.keep(arrival.token, message);
    return errc::ok;
}

// What has been read already is taken in; only if this end waits for an answer, or for the peer's end behind
// DISCONNECT, reading must go on.
RUNNEL_COLD inline bool session_state::leaves_out() noexcept {
    leaves_out_ = leaves_out_ || outgoing_.size() != 0 || !connected();
    return leaves_out_;
}

inline errc session_state::resolve_alias(mqtt::publish& message) {
    if (message.props.empty()) return errc::ok;
    auto const alias = message.props.get<property_id::topic_alias>();
    return alias ? incoming_aliases_.resolve(message, *alias) : errc::ok;
}

inline errc session_state::check_received(mqtt::publish const& message) const noexcept {
    if (version_ != protocol_version::v5) return errc::ok;
    if (message.qos > own_.maximum_qos) return errc::maximum_qos_exceeded;  // [MQTT-3.2.2-11]
    if (message.retain && role_ == role::server && !own_.retain_available) return errc::retain_not_available;
    return check_sender(message, role_ == role::client ? role::server : role::client);
}

// 3.1.2.11.7: what a client has asked not to be sent is a protocol error.
inline errc session_state::check_wanted(packet_type type, property_view const& props) const noexcept {
    if (own_.problem_information || type == packet_type::connack || type == packet_type::disconnect) return errc::ok;
    bool const wanted = !props.get<property_id::reason_string>() && props.get<property_id::user_property>().empty();
    return wanted ? errc::ok : errc::problem_information_unwanted;
}

template <class Handler>
errc session_state::receive_other(frame const& f, send_buffer& out, Handler& handler) {
    auto const type = f.header.type;
    auto const sender = role_ == role::client ? role::server : role::client;
    if (phase_ == phase::connecting && type != packet_type::connack && type != packet_type::auth)
        return errc::packet_before_connack;
    if (type == packet_type::connect && role_ == role::server) return errc::second_connect;  // [MQTT-3.1.0-2]
    if (!may_send(sender, type, version_)) return errc::unexpected_packet;
    auto const with = [&]<class Packet>(Packet packet, auto act) RUNNEL_LAMBDA_COLD {
        errc e = decode(f.header, f.body, version_, packet);
        if constexpr (requires { packet.props; })
            if (e == errc::ok && !packet.props.empty()) e = check_wanted(type, packet.props);
        return e == errc::ok ? act(packet) : e;
    };
    switch (type) {
        case packet_type::connack:
            if (is_of_other_version(f.header, f.body, version_))
                return receive_connack({.reason = reason_code::unsupported_protocol_version}, out, handler);
            return with(connack{}, [&](auto& p) { return receive_connack(p, out, handler); });
        case packet_type::puback:
        case packet_type::pubrec:
        case packet_type::pubrel:
        case packet_type::pubcomp:
            return with(acknowledgement{}, [&](auto& p) { return receive_acknowledgement(p, out, handler); });
        case packet_type::suback:
            return with(mqtt::suback{}, [&](auto& p) { return receive_answer(p, packet_type::subscribe, handler); });
        case packet_type::unsuback:
            return with(mqtt::unsuback{},
                        [&](auto& p) { return receive_answer(p, packet_type::unsubscribe, handler); });
        case packet_type::pingresp: return with(pingresp{}, [&](auto&) { return handler.on_pingresp(), errc::ok; });
        case packet_type::disconnect:
            return with(mqtt::disconnect{}, [&](auto& p) { return receive_disconnect(p, handler); });
        case packet_type::auth: return with(mqtt::auth{}, [&](auto& p) { return receive_auth(p, handler); });
        default: break;
    }
    if constexpr (!Handler::is_client) {
        switch (type) {
            case packet_type::subscribe:
                return with(mqtt::subscribe{}, [&](auto& p) { return handler.on_subscribe(p), errc::ok; });
            case packet_type::unsubscribe:
                return with(mqtt::unsubscribe{}, [&](auto& p) { return handler.on_unsubscribe(p), errc::ok; });
            case packet_type::pingreq:
                return with(pingreq{}, [&](auto&) { return reply(out, pingresp{}), errc::ok; });  // [MQTT-3.12.4-1]
            default: break;
        }
    }
    return errc::unexpected_packet;
}

template <class Handler>
errc session_state::receive_disconnect(mqtt::disconnect const& packet, Handler& handler) {
    auto const sender = role_ == role::client ? role::server : role::client;
    if (version_ == protocol_version::v5)
        if (errc const e = check_sender(packet, sender); e != errc::ok) return e;
    phase_ = phase::disconnected;
    handler.on_disconnect(packet);
    return errc::ok;
}

template <class Handler>
errc session_state::receive_auth(mqtt::auth const& packet, Handler& handler) {
    auto const sender = role_ == role::client ? role::server : role::client;
    if (errc const e = check_sender(packet, sender); e != errc::ok) return e;
    if (phase_ == phase::disconnecting) return errc::ok;
    errc const e = authentication_.step(sender, packet);
    if (e == errc::authentication_not_due) return errc::unexpected_packet;
    if (e == errc::ok) handler.on_auth(packet);
    return e;
}

template <class Handler>
errc session_state::receive_connack(mqtt::connack const& answer, send_buffer& out, Handler& handler) {
    if (peer_known_) return errc::unexpected_packet;
    if (answer.reason != reason_code::success) {
        phase_ = phase::disconnected;
        handler.on_connack(answer);
        return errc::ok;
    }
    // First of all: whatever becomes of this connection, the next one may find the session that begins with it.
    if (!answer.session_present) {
        missed_answer_ = false;
        received_.clear();
        outgoing_.trust_identifiers();
        handler.on_session_lost();
        outgoing_.send_anew(handler);
    }
    if (phase_ == phase::disconnecting) {  // DISCONNECT was sent before CONNACK came
        peer_known_ = true;
        return errc::ok;
    }
    // The server cannot have kept what it was told to drop [MQTT-3.2.2-2] ([MQTT-3.2.2-1] of MQTT 3.1.1).
    if (answer.session_present && clean_start_) return errc::session_present_unexpected;
    bool const unknown = answer.session_present && !has_session_;
    if (unknown && !limits_.accept_unknown_session) {
        must_begin_anew_ = true;
        return errc::session_present_unexpected;
    }
    if (errc const e = authentication_.finish(answer); e != errc::ok) return e;
    if (std::exchange(must_begin_anew_, false) && clean_start_ && version_ == protocol_version::v3_1_1) {
        // A session that a clean one has replaced would end with this connection (3.1.2.4).
        append(out, mqtt::disconnect{});
        return errc::session_discarded;
    }
    if (version_ == protocol_version::v5) peer_ = capabilities::from(answer.props.parse());
    if (peer_.maximum_packet_size < 4) return errc::maximum_packet_size_too_small;  // that of an acknowledgement
    if (unknown) outgoing_.distrust_identifiers();
    doubts_session_ = std::exchange(missed_answer_, false);
    if (doubts_session_) {
        received_.doubt();
        outgoing_.doubt();
    }
    begin_connection(out, handler, [&] { handler.on_connack(answer); });
    return errc::ok;
}

template <class Handler>
errc session_state::receive_acknowledgement(acknowledgement const& ack, send_buffer& out, Handler& handler) {
    if (ack.type == packet_type::pubrel) return receive_pubrel(ack, out);
    auto* const e = outgoing_.find(ack.packet_id);
    if (ack.type == packet_type::pubrec) return receive_pubrec(e, ack, out, handler);

    bool const expected =
        e != nullptr && (ack.type == packet_type::puback ? e->at == stage::sent && e->quality == qos::at_least_once
                                                         : e->at == stage::released || e->at == stage::rereleased);
    if (!expected) {
        bool const is_freed = e != nullptr && e->at == stage::freeing;
        // Or it is the end of an exchange that this end has forgotten, and of which it said so in PUBREL.
        if (ack.type != packet_type::pubcomp || (e != nullptr && !is_freed && !outgoing_.has_unknown_identifiers()))
            return e == nullptr ? errc::packet_identifier_unknown : errc::unexpected_packet;
        if (is_freed && connected()) outgoing_.send_freed(out, *e, peer_.maximum_packet_size);
        if (outgoing_.holds_unsent()) send_queued(out);  // perhaps it waited for this, or for what was withdrawn
        return errc::ok;
    }
    // The peer sent PUBCOMP on an earlier connection, and it did not arrive: no error then (3.7.2.1).
    bool const repeated = e->at == stage::rereleased && ack.reason == reason_code::packet_identifier_not_found;
    if (repeated && outgoing_.is_doubtful(*e)) {  // or it has lost the message with its session
        auto* const owner = e->owner;
        outgoing_.end_lost(*e);
        if (outgoing_.holds_unsent()) send_queued(out);
        if (owner != nullptr) handler.on_lost(owner);
        return errc::ok;
    }
    end_exchange(*e, repeated ? acknowledgement{ack.type, ack.packet_id, {}, ack.props} : ack, out, handler);
    return errc::ok;
}

template <class Handler>
errc session_state::receive_pubrec(detail::outgoing::entry* e, acknowledgement const& ack, send_buffer& out,
                                   Handler& handler) {
    if (e == nullptr || e->quality != qos::exactly_once ||
        (e->at != stage::sent && e->at != stage::released && e->at != stage::rereleased)) [[unlikely]]
        return receive_other_pubrec(e, ack, out);
    if (is_error(ack.reason)) {
        end_exchange(*e, ack, out, handler);  // no PUBREL follows (4.3.3)
        return errc::ok;
    }
    outgoing_.release(*e);
    if (connected()) detail::append_plain(out, packet_type::pubrel, ack.packet_id);
    return errc::ok;
}

// PUBREC for an exchange that this end has forgotten, or from before the one that has its identifier now.
inline errc session_state::receive_other_pubrec(detail::outgoing::entry* e, acknowledgement const& ack,
                                                send_buffer& out) {
    if (e != nullptr && !outgoing_.has_unknown_identifiers()) return errc::unexpected_packet;
    bool const is_freed = e != nullptr && e->quality == qos::exactly_once;  // by a PUBREL that has gone, or will
    if (is_freed || is_error(ack.reason)) return errc::ok;                  // no PUBREL follows a failure (4.3.3)
    reply(out, acknowledgement{packet_type::pubrel, ack.packet_id, reason_code::packet_identifier_not_found, {}});
    return errc::ok;
}

inline errc session_state::receive_pubrel(acknowledgement const& ack, send_buffer& out) {
    using enum detail::received::knowledge;
    auto const known = received_.knows(ack.packet_id);
    // There has been no PUBREC [MQTT-4.3.3-4]. Of an earlier connection's message the peer may have lost its memory.
    if (known == not_taken) return errc::unexpected_packet;
    received_.forget(ack.packet_id);
    auto const reason = known == taken ? reason_code::success : reason_code::packet_identifier_not_found;
    reply(out, acknowledgement{packet_type::pubcomp, ack.packet_id, reason, {}});
    return errc::ok;
}

template <class Handler>
RUNNEL_ALWAYS_INLINE inline void session_state::end_exchange(detail::outgoing::entry& e, acknowledgement const& ack,
                                                             send_buffer& out, Handler& handler) {
    auto* const owner = e.owner;
    outgoing_.end_acknowledged(e);
    if (outgoing_.holds_unsent()) send_queued(out);
    if (owner != nullptr) handler.on_published(owner, ack);
}

template <class Answer, class Handler>
errc session_state::receive_answer(Answer const& answer, packet_type to, Handler& handler) {
    auto* const e = outgoing_.find(answer.packet_id);
    if (e == nullptr) return errc::packet_identifier_unknown;
    if (e->at != stage::request || e->request != to) return errc::unexpected_packet;
    // [MQTT-3.8.4-6], [MQTT-3.11.3-1]; UNSUBACK of MQTT 3.1.1 has no reason codes.
    if ((version_ == protocol_version::v5 || to == packet_type::subscribe) && answer.reasons.size() != e->size)
        return errc::reason_code_count_mismatch;
    auto* const owner = e->owner;
    outgoing_.end_request(*e);
    if (owner == nullptr) return errc::ok;
    if constexpr (std::is_same_v<Answer, mqtt::suback>)
        handler.on_suback(owner, answer);
    else
        handler.on_unsuback(owner, answer);
    return errc::ok;
}

}  // namespace runnel::mqtt
