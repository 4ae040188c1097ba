#pragma once

// How the broker authenticates clients by more than CONNECT (MQTT 5, 4.12): a part of broker_core.hpp, in a file of its
// own.

#include <runnel/testing/broker/detail/core.hpp>

namespace runnel::testing::detail {

inline void broker_core::begin_authentication(broker_connection& c, connect_attempt const& request,
                                              std::string_view body) {
    auto const& props = request.packet.props;
    c.authentication = std::make_unique<client_authentication>();
    auto& a = *c.authentication;
    a.turns.begin(props.get<mqtt::property_id::authentication_method>());
    a.connect = body;
    a.session_name = request.session_name;
    a.assigned_client_identifier = request.assigned_client_identifier;
    a.is_named_by_broker =
        request.packet.client_id.empty() && request.session_name == request.assigned_client_identifier;
    a.maximum_packet_size = mqtt::capabilities::from(props.parse()).maximum_packet_size;
    authenticate(c, props.get<mqtt::property_id::authentication_data>());
}

// Before CONNACK.
inline void broker_core::receive_authentication(broker_connection& c, std::string_view& input) {
    auto const next = mqtt::next_frame(input, max_connect_size);
    c.expected = next.total_size;
    if (next.status == mqtt::parse_status::need_more) return;
    mqtt::auth packet;
    mqtt::errc const e = check_authentication(c, next, packet);
    if (e == mqtt::errc::ok) {
        authenticate(c, packet.props.get<mqtt::property_id::authentication_data>());
        input.remove_prefix(next.total_size);
        return;
    }
    if (next.header.type == mqtt::packet_type::disconnect) {
        log("client " + c.authentication->session_name + " gave up before it was authenticated");
        return close(c);
    }
    ++counters_.protocol_errors;
    log("client " + c.authentication->session_name + " broke the protocol: " + describe(e));
    finish_connect(c, mqtt::reason_for(e), {});
}

inline mqtt::errc broker_core::check_authentication(broker_connection& c, mqtt::frame const& f, mqtt::auth& packet) {
    if (f.error != mqtt::errc::ok) return f.error;
    if (f.header.type != mqtt::packet_type::auth) return mqtt::errc::unexpected_packet;
    mqtt::errc e = decode(f.header, f.body, mqtt::protocol_version::v5, packet);
    if (e == mqtt::errc::ok) e = check_sender(packet, mqtt::role::client);
    if (e == mqtt::errc::ok) e = c.authentication->turns.step(mqtt::role::client, packet);
    return e == mqtt::errc::authentication_not_due ? mqtt::errc::unexpected_packet : e;
}

// The client has taken a step: the user decides what comes next.
inline void broker_core::authenticate(broker_connection& c, std::optional<std::string_view> data) {
    auto& a = *c.authentication;
    auto const s = c.session;
    auto const method = s ? s->state.authentication().method() : a.turns.method();
    authentication_attempt attempt{a.session_name, method, data, a.step++, s != nullptr, a.memory, std::nullopt};
    auto const reason = hooks.authenticate ? hooks.authenticate(attempt) : mqtt::reason_code::bad_authentication_method;

    mqtt::properties p;
    p.authentication_method = method;
    if (attempt.reply) p.authentication_data = *attempt.reply;
    mqtt::auth const packet{reason, &p};
    if (s) {
        if (is_error(reason)) {
            log("client " + s->name + " could not authenticate anew: " + describe(reason));
            return disconnect(c, reason, {});  // [MQTT-4.12.1-2]
        }
        if (s->state.auth(c.out, packet) != mqtt::errc::ok) disconnect(c, mqtt::reason_code::packet_too_large, {});
        return;
    }
    if (reason != mqtt::reason_code::continue_authentication) return finish_connect(c, reason, p.authentication_data);
    if (encoded_size(packet, mqtt::protocol_version::v5) > a.maximum_packet_size)
        return finish_connect(c, mqtt::reason_code::packet_too_large, {});
    a.turns.step(mqtt::role::server, packet);  // [MQTT-4.12.0-2]
    send_packet(c, packet, mqtt::protocol_version::v5);
}

// Answers the CONNECT from which the authentication began [MQTT-4.12.0-4].
inline void broker_core::finish_connect(broker_connection& c, mqtt::reason_code reason,
                                        std::optional<std::string_view> reply) {
    auto& a = *c.authentication;
    auto const body = std::exchange(a.connect, {});
    mqtt::connect packet;
    decode(mqtt::fixed_header{}, body, mqtt::protocol_version::v5, packet);
    // Somebody may have come with the identifier meanwhile.
    if (a.is_named_by_broker && sessions_.contains(a.session_name))
        a.assigned_client_identifier = a.session_name = make_identifier();
    connect_attempt const request{
        packet, mqtt::protocol_version::v5, c.info, a.session_name, a.assigned_client_identifier, {}, {}, {}};
    if (reason == mqtt::reason_code::success)
        accept(c, request, reply);
    else
        refuse(c, request, reason);
}

// A client that is connected authenticates anew.
inline void broker_core::handle_auth(broker_session& s, mqtt::auth const& packet) {
    auto& c = *s.connection;
    if (packet.reason == mqtt::reason_code::reauthenticate) {
        c.authentication->memory.clear();
        c.authentication->step = 0;
    }
    authenticate(c, packet.props.get<mqtt::property_id::authentication_data>());
}

}  // namespace runnel::testing::detail
