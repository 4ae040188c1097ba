#pragma once

// How the broker receives CONNECT: a part of broker_core.hpp, in a file of its own.

#include <runnel/testing/broker/detail/core.hpp>

namespace runnel::testing::detail {

inline void broker_core::receive_connect(broker_connection& c, std::string_view& input) {
    auto const next = mqtt::next_frame(input, max_connect_size);
    c.expected = next.total_size;
    if (next.status == mqtt::parse_status::need_more) return;

    auto version = mqtt::protocol_version::v3_1_1;
    mqtt::connect packet;
    std::string renamed;
    bool versed = false;
    mqtt::errc const e = read_connect(next, renamed, version, versed, packet);
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

// `renamed` holds what the packet refers to if its protocol name has been replaced by that of MQTT 3.1.1; `versed`
// tells whether the version is known.
inline mqtt::errc broker_core::read_connect(mqtt::frame const& f, std::string& renamed, mqtt::protocol_version& version,
                                            bool& versed, mqtt::connect& packet) const {
    if (f.error != mqtt::errc::ok) return f.error;
    if (f.header.type != mqtt::packet_type::connect) return mqtt::errc::packet_before_connect;  // [MQTT-3.1.0-1]
    auto body = f.body;
    constexpr std::string_view v3_1("\0\6MQIsdp\3", 9), v3_1_1("\0\4MQTT\4", 7);
    if (options_.accepts_v3_1 && body.starts_with(v3_1)) {
        renamed.assign(v3_1_1).append(body.substr(v3_1.size()));
        body = renamed;
    }
    auto e = mqtt::read_protocol_version(body, version);
    versed = e == mqtt::errc::ok;
    return versed ? decode(f.header, body, version, packet) : e;
}

// An identifier that no session has [MQTT-3.2.2-16].
inline std::string broker_core::make_identifier() {
    while (true) {
        auto name = "runnel-" + std::to_string(++assigned_);
        if (!sessions_.contains(name)) return name;
    }
}

inline void broker_core::handle_connect(broker_connection& c, mqtt::connect const& packet,
                                        mqtt::protocol_version version, std::string_view body) {
    connect_attempt request{packet, version, c.info, std::string(packet.client_id), std::nullopt, {}, {}, {}};
    if (packet.client_id.empty()) {
        request.session_name = make_identifier();
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
    }
    auto const limit = mqtt::capabilities::from(request.packet.props.parse()).maximum_packet_size;
    if (encoded_size(answer, request.version) > limit) answer.props = {};  // [MQTT-3.2.2-19]
    ++counters_.refused;
    if (encoded_size(answer, request.version) <= limit) send_packet(c, answer, request.version);  // [MQTT-3.1.2-24]
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

// What CONNACK of MQTT 5 tells a client that is accepted.
inline mqtt::properties broker_core::announce(connect_attempt const& request, mqtt::properties const& asked,
                                              std::uint32_t expiry) const {
    auto const& accepts = options_.accepts;
    mqtt::capabilities const defaults;
    mqtt::properties p;
    if (accepts.receive_maximum != defaults.receive_maximum) p.receive_maximum = accepts.receive_maximum;
    if (accepts.maximum_packet_size != defaults.maximum_packet_size)
        p.maximum_packet_size = accepts.maximum_packet_size;
    if (accepts.maximum_qos != defaults.maximum_qos) p.maximum_qos = static_cast<std::uint8_t>(accepts.maximum_qos);
    if (!accepts.retain_available) p.retain_available = 0;
    if (!accepts.wildcard_subscription_available) p.wildcard_subscription_available = 0;
    if (!accepts.shared_subscription_available) p.shared_subscription_available = 0;
    if (!accepts.subscription_identifier_available) p.subscription_identifier_available = 0;
    if (accepts.topic_alias_maximum != 0) p.topic_alias_maximum = accepts.topic_alias_maximum;
    if (expiry != asked.session_expiry_interval.value_or(0)) p.session_expiry_interval = expiry;
    if (request.assigned_client_identifier) p.assigned_client_identifier = *request.assigned_client_identifier;
    p.authentication_method = asked.authentication_method;  // [MQTT-4.12.0-5]
    if (auto const keep_alive = keep_alive_for(request);
        options_.server_keep_alive || keep_alive != request.packet.keep_alive)
        p.server_keep_alive = keep_alive;
    return p;
}

// The keep alive that the connection gets: seconds, or 0.
inline std::uint16_t broker_core::keep_alive_for(connect_attempt const& request) const {
    auto const asked = request.packet.keep_alive;
    if (request.version != mqtt::protocol_version::v5) return asked;
    if (options_.server_keep_alive) return *options_.server_keep_alive;
    auto const most = options_.maximum_keep_alive.value_or(0);
    return most != 0 && (asked == 0 || asked > most) ? most : asked;
}

inline void broker_core::accept(broker_connection& c, connect_attempt const& request,
                                std::optional<std::string_view> reply) {
    auto const& packet = request.packet;
    bool const v5 = request.version == mqtt::protocol_version::v5;
    if (sessions_.size() >= options_.session_limit && !sessions_.contains(request.session_name))
        return refuse(c, request, mqtt::reason_code::quota_exceeded);
    auto const asked = packet.props.parse();
    auto const asked_expiry = v5                   ? asked.session_expiry_interval.value_or(0)
                              : packet.clean_start ? 0
                                                   : broker_session::never;
    auto const expiry = (std::min)(asked_expiry, options_.maximum_session_expiry);
    auto const peer = v5 ? mqtt::capabilities::from(asked) : mqtt::capabilities{};

    mqtt::connack answer;
    mqtt::properties p;
    if (v5) {
        p = announce(request, asked, expiry);
        p.authentication_data = reply;
        answer.props = &p;
    }
    if (encoded_size(answer, request.version) > peer.maximum_packet_size) {  // [MQTT-3.1.2-24]
        ++counters_.refused;
        log("refused client " + request.session_name + ": its maximum packet size leaves no room for CONNACK");
        return close(c);
    }
    auto const s = find_or_make_session(request, answer.session_present);
    sessions_due_.clear(*s);
    s->ends_at.reset();
    s->will_at.reset();
    s->will = nullptr;  // [MQTT-3.1.3-9]
    s->from = c.info;
    if (packet.will) keep_will(*s, *packet.will);
    s->asked_expiry = asked_expiry;
    s->expiry = expiry;
    c.session = s;
    c.client = s->name;
    s->connection = &c;
    ++counters_.accepted;
    if (answer.session_present) ++counters_.resumed;
    c.silence = std::chrono::milliseconds(1500) * keep_alive_for(request);  // [MQTT-3.1.2-22]
    if (c.silence.count() == 0)
        connections_.clear(c);
    else
        connections_.set(c, now_ + c.silence);
    auto own = options_.accepts;
    if (!v5) own.maximum_packet_size = options_.maximum_packet_size_v3_1_1;
    tell_time(*s);
    s->state.accept(c.out, answer, request.version, own, peer);
    send_queued(*s);
}

}  // namespace runnel::testing::detail
