#pragma once

// How the broker receives CONNECT: a part of broker_core.hpp, in a file of its own.

#include <runnel/testing/broker_core.hpp>

namespace runnel::testing {

inline void broker_core::receive_connect(broker_connection& c, std::string_view& input) {
    auto const next = mqtt::next_frame(input, max_connect_size);
    c.expected = next.total_size;
    if (next.status == mqtt::parse_status::need_more) return;

    auto version = mqtt::protocol_version::v3_1_1;
    mqtt::connect packet;
    mqtt::errc e = next.error;
    if (e == mqtt::errc::ok && next.header.type != mqtt::packet_type::connect)
        e = mqtt::errc::packet_before_connect;  // [MQTT-3.1.0-1]
    else if (e == mqtt::errc::ok)
        e = mqtt::read_protocol_version(next.body, version);
    bool const versed = e == mqtt::errc::ok;
    if (versed) e = decode(next.header, next.body, version, packet);
    if (e == mqtt::errc::ok) {
        handle_connect(c, packet, version, next.body);
        input.remove_prefix(next.total_size);
        return;
    }
    ++counters_.protocol_errors;
    log(std::string("ended a connection before it began: ") + describe(e));
    // MQTT 3.1.1 has answers to these two only ([MQTT-3.1.2-2], [MQTT-3.1.3-8] of MQTT 3.1.1).
    if ((versed && version == mqtt::protocol_version::v5) || e == mqtt::errc::unsupported_protocol_version ||
        e == mqtt::errc::client_identifier_empty) {
        ++counters_.refused;
        send_packet(c, mqtt::connack{.reason = mqtt::reason_for(e)}, version);
    }
    close(c);
}

inline void broker_core::handle_connect(broker_connection& c, mqtt::connect const& packet,
                                        mqtt::protocol_version version, std::string_view body) {
    connect_attempt request{packet, version, c.info, std::string(packet.client_id), std::nullopt, {}, {}, {}};
    if (packet.client_id.empty()) {
        request.session_name = "runnel-" + std::to_string(++assigned_);
        request.assigned_client_identifier = request.session_name;
    }
    auto const reason = check_connect(request);
    if (reason != mqtt::reason_code::success) return refuse(c, request, reason);
    if (packet.props.get<mqtt::property_id::authentication_method>()) return begin_authentication(c, request, body);
    accept(c, request);
}

inline mqtt::reason_code broker_core::check_connect(connect_attempt& request) {
    using enum mqtt::reason_code;
    if (refuse_ > 0) {
        --refuse_;
        request.reason_string = "the test wants this CONNECT to be refused";
        return refuse_reason_;
    }
    auto const& packet = request.packet;
    if (packet.props.get<mqtt::property_id::authentication_method>() && !hooks.authenticate)
        return bad_authentication_method;  // [MQTT-4.12.0-1]
    if (packet.will) {
        if (packet.will->qos > options_.accepts.maximum_qos) return qos_not_supported;               // [MQTT-3.2.2-12]
        if (packet.will->retain && !options_.accepts.retain_available) return retain_not_supported;  // [MQTT-3.2.2-13]
    }
    return hooks.on_connect ? hooks.on_connect(request) : success;
}

inline void broker_core::refuse(broker_connection& c, connect_attempt const& request, mqtt::reason_code reason) {
    auto const& why = request.reason_string;
    std::string text = "refused client " + request.session_name + ": ";
    log(text + (!request.log_text.empty() ? request.log_text : !why.empty() ? why : std::string(describe(reason))));

    if (!mqtt::allowed_in(reason, mqtt::packet_type::connack)) reason = mqtt::reason_code::unspecified_error;
    mqtt::connack answer{.reason = reason};
    mqtt::properties p;
    if (request.version == mqtt::protocol_version::v5 && !(why.empty() && request.server_reference.empty())) {
        if (!why.empty()) p.reason_string = why;
        if (!request.server_reference.empty()) p.server_reference = request.server_reference;
        answer.props = &p;
        auto const limit = request.packet.props.get<mqtt::property_id::maximum_packet_size>();
        if (limit && encoded_size(answer, request.version) > *limit) answer.props = {};  // [MQTT-3.2.2-19]
    }
    ++counters_.refused;
    send_packet(c, answer, request.version);
    close(c);
}

// The session to go on with. An older connection of the same client ends [MQTT-3.1.4-3]. A client that comes back with
// another version of the protocol begins anew.
inline std::shared_ptr<broker_session> broker_core::find_or_make_session(connect_attempt const& request,
                                                                         bool& present) {
    if (auto* const older = connection_of(request.session_name)) {
        log("client " + request.session_name + ": a newer connection takes over");
        disconnect(*older, mqtt::reason_code::session_taken_over, {});
    }
    if (auto const found = sessions_.find(request.session_name); found != sessions_.end()) {
        auto const old = found->second;
        present = !request.packet.clean_start && old->state.version() == request.version;
        if (present) return old;
        if (old->will) publish_will(*old);  // the session ends [MQTT-3.1.2-8]
        end_session(*old);
    }
    auto const s = std::make_shared<broker_session>(request.session_name, request.version, options_);
    sessions_.emplace(s->name, s);
    return s;
}

inline void broker_core::keep_will(broker_session& s, mqtt::will const& w) {
    mqtt::publish m{.topic = w.topic, .payload = w.payload, .qos = w.qos, .retain = w.retain, .props = w.props};
    s.will = std::make_shared<stored_message const>(m, now_);
    s.will_delay = w.props.get<mqtt::property_id::will_delay_interval>().value_or(0);
}

inline void broker_core::accept(broker_connection& c, connect_attempt const& request,
                                std::optional<std::string_view> reply) {
    auto const& packet = request.packet;
    bool const v5 = request.version == mqtt::protocol_version::v5;
    bool present = false;
    auto const s = find_or_make_session(request, present);
    auto const asked = packet.props.parse();
    auto const& accepts = options_.accepts;

    sessions_due_.clear(*s);
    s->ends_at.reset();
    s->will_at.reset();
    s->will = nullptr;  // [MQTT-3.1.3-9]
    if (packet.will) keep_will(*s, *packet.will);
    s->expiry = v5 ? asked.session_expiry_interval.value_or(0) : packet.clean_start ? 0 : broker_session::never;
    s->expiry = std::min(s->expiry, options_.maximum_session_expiry);
    auto keep_alive = packet.keep_alive;

    mqtt::connack answer{.session_present = present};
    mqtt::properties p;
    if (v5) {
        mqtt::capabilities const defaults;
        if (accepts.receive_maximum != defaults.receive_maximum) p.receive_maximum = accepts.receive_maximum;
        if (accepts.maximum_packet_size != defaults.maximum_packet_size)
            p.maximum_packet_size = accepts.maximum_packet_size;
        if (accepts.maximum_qos != defaults.maximum_qos) p.maximum_qos = static_cast<std::uint8_t>(accepts.maximum_qos);
        if (!accepts.retain_available) p.retain_available = 0;
        if (!accepts.wildcard_subscription_available) p.wildcard_subscription_available = 0;
        if (!accepts.shared_subscription_available) p.shared_subscription_available = 0;
        if (!accepts.subscription_identifier_available) p.subscription_identifier_available = 0;
        if (accepts.topic_alias_maximum != 0) p.topic_alias_maximum = accepts.topic_alias_maximum;
        if (s->expiry != asked.session_expiry_interval.value_or(0)) p.session_expiry_interval = s->expiry;
        if (request.assigned_client_identifier) p.assigned_client_identifier = *request.assigned_client_identifier;
        p.authentication_method = asked.authentication_method;  // [MQTT-4.12.0-5]
        p.authentication_data = reply;
        if (options_.server_keep_alive) p.server_keep_alive = keep_alive = *options_.server_keep_alive;
        answer.props = &p;
    }
    auto const peer = v5 ? mqtt::capabilities::from(asked) : mqtt::capabilities{};
    c.session = s;
    s->connection = &c;
    ++counters_.accepted;
    if (present) ++counters_.resumed;
    c.silence = std::chrono::milliseconds(1500) * keep_alive;  // [MQTT-3.1.2-22]
    if (keep_alive == 0)
        connections_.clear(c);
    else
        connections_.set(c, now_ + c.silence);
    auto own = accepts;
    if (!v5) own.maximum_packet_size = options_.maximum_packet_size_v3_1_1;
    tell_time(*s);
    s->state.accept(c.out, answer, request.version, own, peer);
    send_queued(*s);
}

}  // namespace runnel::testing
