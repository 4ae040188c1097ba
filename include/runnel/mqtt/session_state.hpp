#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/capabilities.hpp>
#include <runnel/mqtt/outgoing.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/received.hpp>
#include <runnel/mqtt/session_handler.hpp>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

namespace runnel::mqtt {

/// The limits that this end sets itself.
struct session_limits {
    std::size_t queued_bytes = 1024 * 1024;  ///< of the packets that wait to be sent or acknowledged
    std::uint16_t in_flight = 65535;         ///< QoS 1 and 2 messages sent and not acknowledged
};

/// The rules of an MQTT session for one end, over all its network connections; without I/O and without a clock.
///
/// What is to be sent is appended to the `send_buffer` given, what has been received is fed to `receive`. The same
/// class serves the client and the server, and both versions of the protocol.
class session_state {
  public:
    enum class phase : std::uint8_t { disconnected, connecting, connected, disconnecting };

    explicit session_state(role own, protocol_version version, session_limits limits = {}) noexcept
        : role_(own), version_(version), limits_(limits) {}

    protocol_version version() const noexcept { return version_; }
    phase current_phase() const noexcept { return phase_; }
    bool connected() const noexcept { return phase_ == phase::connected; }
    /// What the peer accepts on this connection.
    capabilities const& peer() const noexcept { return peer_; }
    /// QoS 1 and 2 messages sent on this connection and not acknowledged.
    std::size_t unacknowledged() const noexcept { return outgoing_.unacknowledged(); }
    /// Bytes of the packets that wait to be sent or acknowledged.
    std::size_t queued_bytes() const noexcept { return outgoing_.bytes(); }
    /// Bytes of the packet that the rest of the last input begins; 0 if not known.
    std::size_t expected_size() const noexcept { return expected_; }

    /// Client: begins a connection by CONNECT. `own` is what its properties announce. Nothing is sent on an error.
    errc connect(send_buffer& out, mqtt::connect const& packet, capabilities own) {
        if (errc const e = check(packet, version_); e != errc::ok) return e;
        connection_lost();
        append(out, packet);
        own_ = own;
        peer_ = {};
        clean_start_ = packet.clean_start;
        phase_ = phase::connecting;
        return errc::ok;
    }

    /// Server: accepts a client by CONNACK, with the capabilities that its CONNECT announced. What is left of an
    /// earlier connection is sent again if `answer.session_present` (in `version`, if that is another than before:
    /// MQTT 3.1.1 has no properties), else dropped. `handler` is told of what is dropped or refused.
    template <class Handler = session_handler>
    void accept(send_buffer& out, mqtt::connack const& answer, protocol_version version, capabilities own,
                capabilities peer, Handler&& handler = Handler{}) {
        assert(role_ == role::server && answer.reason == reason_code::success);
        connection_lost();
        if (version != version_ && answer.session_present) outgoing_.rewrite(version_, version);
        version_ = version;
        own_ = own;
        peer_ = peer;
        phase_ = phase::connecting;
        append(out, answer);
        if (!answer.session_present) {
            received_.clear();
            outgoing_.drop(handler);
        }
        begin_connection(out, handler, [] {});
    }

    /// The network connection has gone. What was not acknowledged will be sent again on the next one; requests end.
    void connection_lost() noexcept {
        phase_ = phase::disconnected;
        peer_known_ = false;
        expected_ = 0;
        received_.connection_lost();
        outgoing_.connection_lost();
    }

    /// The number of no exchange: that of a message that was sent and is forgotten.
    static constexpr auto no_exchange = static_cast<std::uint64_t>(-1);

    /// What began: an error, or the number by which `disown` knows the exchange.
    struct begun {
        errc error = errc::ok;
        std::uint64_t number = no_exchange;
    };

    /// Begins to publish a message; its packet identifier is ignored. QoS 0 is sent now if connected. QoS 1 and 2, and
    /// QoS 0 while not connected, are kept and sent as soon as the connection and the peer's receive maximum allow;
    /// then `owner` is told by `on_published` of the end of QoS 1 and 2, if it is not null.
    ///
    /// Errors: those of `check`, what the peer does not accept (while that is not known, `on_refused` tells later),
    /// `topic_alias_invalid` (an alias is for one connection, so for QoS 0), `queue_full` and `no_packet_identifier`
    /// (try again later).
    begun publish(send_buffer& out, mqtt::publish message, void* owner = nullptr) {
        bool const acknowledged = message.qos != qos::at_most_once;
        auto const number = outgoing_.next_number();
        message.packet_id = acknowledged ? outgoing_.next_identifier() : std::uint16_t{0};
        if (errc const e = check(message, version_); e != errc::ok) return {e};
        auto const measured = measure(message, version_);
        std::size_t const size = packet_size(measured.remaining_length);
        if (peer_known_)
            if (errc const e = check_publish(peer_, message.qos, message.retain, size); e != errc::ok) return {e};

        bool const at_once = !acknowledged && connected() && !outgoing_.holds_at_most_once();
        if (!message.props.empty())
            if (errc const e = check_properties(message, at_once); e != errc::ok) return {e};
        if (at_once) {
            encode(out.prepare(size), message, version_, measured);
            out.commit(size);
            return {};
        }
        if (!outgoing_.has_identifier()) return {errc::no_packet_identifier};
        if (outgoing_.bytes() != 0 && outgoing_.bytes() + size > limits_.queued_bytes) return {errc::queue_full};
        outgoing_.queue(message, version_, measured, owner);
        send_queued(out);
        return {errc::ok, number};
    }

    /// Client: sends SUBSCRIBE; `owner` is told by `on_suback`, unless the connection is lost first.
    begun subscribe(send_buffer& out, mqtt::subscribe packet, void* owner) {
        if (errc const e = check_subscribe(peer_, packet, version_); connected() && e != errc::ok) return {e};
        return request(out, packet, packet_type::subscribe, packet.requests.size(), owner);
    }

    /// Client: sends UNSUBSCRIBE; `owner` is told by `on_unsuback`, unless the connection is lost first.
    begun unsubscribe(send_buffer& out, mqtt::unsubscribe packet, void* owner) {
        return request(out, packet, packet_type::unsubscribe, packet.filters.size(), owner);
    }

    /// Whether there is room for another message, of no more than what is left of the limit.
    bool has_room() const noexcept { return outgoing_.bytes() < limits_.queued_bytes && outgoing_.has_identifier(); }

    /// Drops a message that waits to be sent for the first time; nobody is told. False: it is no such message.
    bool withdraw(std::uint64_t number) noexcept { return outgoing_.withdraw(number); }
    /// Drops the QoS 0 message that has waited longest for a connection. False: there is none.
    bool drop_oldest_at_most_once() noexcept { return outgoing_.drop_oldest_at_most_once(); }

    /// The owner of the exchange is gone and is not to be told of its end. The exchange itself goes on.
    void disown(std::uint64_t number) noexcept { outgoing_.disown(number); }

    /// The application has taken a message. Its acknowledgement is sent as soon as those of all messages before it have
    /// been. In MQTT 5 `reason` may refuse the message.
    void acknowledge(send_buffer& out, delivery d, reason_code reason = reason_code::success) {
        if (d.quality == qos::at_most_once) return;
        received_.take(d, version_ == protocol_version::v5 ? reason : reason_code::success);
        send_acknowledgements(out);
    }

    /// Client: asks for a sign of life.
    void ping(send_buffer& out) { reply(out, pingreq{}); }

    /// Ends the connection in good order, if there is one: nothing is sent on it any more [MQTT-3.14.4-1]. In
    /// MQTT 3.1.1 a server has nothing to send.
    void disconnect(send_buffer& out, mqtt::disconnect const& packet = {}) {
        if (phase_ != phase::connecting && phase_ != phase::connected) return;
        if (version_ == protocol_version::v5 || role_ == role::client) append(out, packet);
        phase_ = phase::disconnecting;
    }

    /// Server: answers a SUBSCRIBE.
    void suback(send_buffer& out, mqtt::suback const& answer) { reply(out, answer); }
    /// Server: answers an UNSUBSCRIBE.
    void unsuback(send_buffer& out, mqtt::unsuback const& answer) { reply(out, answer); }

    /// Handles all whole packets of `input` in turn and removes them from it; replies that the protocol owes go to
    /// `out`. An error is the peer's fault and ends the connection: `reason_for(error)` is what to tell it.
    template <class Handler>
    errc receive(std::string_view& input, send_buffer& out, Handler&& handler) {
        while (phase_ != phase::disconnected) {
            frame const next = next_frame(input, own_.maximum_packet_size);
            expected_ = next.total_size;
            if (next.status == parse_status::need_more) return errc::ok;
            if (next.status == parse_status::malformed) return next.error;
            errc const e = next.header.type == packet_type::publish ? receive_publish(next, out, handler)
                                                                    : receive_other(next, out, handler);
            if (e != errc::ok) return e;
            input.remove_prefix(next.total_size);
        }
        return errc::ok;
    }

    /// Gives back memory that is kept for reuse.
    void release_idle_memory() noexcept { outgoing_.release_idle_memory(); }

  private:
    using stage = outgoing::stage;

    template <class Packet>
    void append(send_buffer& out, Packet const& packet) {
        mqtt::append(out, packet, version_);
    }

    void send_queued(send_buffer& out) {
        if (connected()) outgoing_.send_queued(out, std::min(limits_.in_flight, peer_.receive_maximum), version_);
    }

    /// Sends what is of use on this connection only. Nothing follows DISCONNECT [MQTT-3.14.4-1].
    template <class Packet>
    void reply(send_buffer& out, Packet const& packet) {
        if (connected()) append(out, packet);
    }

    template <class Packet>
    begun request(send_buffer& out, Packet packet, packet_type type, std::size_t filters, void* owner) {
        if (!connected()) return {errc::not_connected};
        if (!outgoing_.has_identifier()) return {errc::no_packet_identifier};
        auto const number = outgoing_.next_number();
        packet.packet_id = outgoing_.next_identifier();
        if (errc const e = check(packet, version_); e != errc::ok) return {e};
        if (encoded_size(packet, version_) > peer_.maximum_packet_size) return {errc::packet_too_large};
        outgoing_.begin_request(type, filters, owner);
        append(out, packet);
        return {errc::ok, number};
    }

    /// Acknowledges the oldest messages, as far as they have been taken.
    void send_acknowledgements(send_buffer& out) {
        if (!connected()) return;
        while (auto const* e = received_.next_taken()) {
            auto const type = e->quality == qos::at_least_once ? packet_type::puback : packet_type::pubrec;
            append(out, acknowledgement{type, e->packet_id, e->reason, {}});
            received_.pop();
        }
    }

    template <class Handler>
    errc receive_publish(frame const& f, send_buffer& out, Handler& handler) {
        if (phase_ == phase::connecting) return errc::packet_before_connack;
        mqtt::publish message;
        if (errc const e = decode(f.header, f.body, version_, message); e != errc::ok) return e;
        if (errc const e = check_received(message); e != errc::ok) return e;
        if (message.qos == qos::at_most_once) {
            handler.on_message(message, delivery{});
            return errc::ok;
        }
        std::size_t const maximum = version_ == protocol_version::v5 ? own_.receive_maximum : 65535;
        if (received_.unacknowledged() >= maximum)  // [MQTT-3.3.4-7], [MQTT-3.3.4-9]
            return errc::receive_maximum_exceeded;
        auto const arrival = received_.arrive(message.packet_id, message.qos);
        if (arrival.is_new)
            handler.on_message(message, arrival.token);
        else
            send_acknowledgements(out);  // the application may have taken it the first time [MQTT-4.3.3-10]
        return errc::ok;
    }

    errc check_properties(mqtt::publish const& message, bool at_once) const noexcept {
        if (errc const e = check_sender(message, role_); e != errc::ok) return e;
        auto const alias = message.props.get<property_id::topic_alias>();
        bool const known = !alias || (at_once && *alias <= peer_.topic_alias_maximum);  // [MQTT-3.3.2-9]
        return known ? errc::ok : errc::topic_alias_invalid;
    }

    errc check_received(mqtt::publish const& message) const noexcept {
        if (version_ != protocol_version::v5) return errc::ok;
        if (message.qos > own_.maximum_qos) return errc::maximum_qos_exceeded;  // [MQTT-3.2.2-11]
        if (message.retain && role_ == role::server && !own_.retain_available) return errc::retain_not_available;
        if (message.props.get<property_id::topic_alias>()) return errc::topic_alias_invalid;  // the maximum is 0
        return check_sender(message, role_ == role::client ? role::server : role::client);
    }

    template <class Handler>
    errc receive_other(frame const& f, send_buffer& out, Handler& handler) {
        auto const type = f.header.type;
        auto const sender = role_ == role::client ? role::server : role::client;
        if (phase_ == phase::connecting && type != packet_type::connack && type != packet_type::auth)
            return errc::packet_before_connack;
        if (type == packet_type::connect && role_ == role::server) return errc::second_connect;  // [MQTT-3.1.0-2]
        if (!may_send(sender, type, version_)) return errc::unexpected_packet;
        switch (type) {
            case packet_type::connack:
                return with<mqtt::connack>(f, [&](auto& p) { return receive_connack(p, out, handler); });
            case packet_type::puback:
            case packet_type::pubrec:
            case packet_type::pubrel:
            case packet_type::pubcomp:
                return with<acknowledgement>(f, [&](auto& p) { return receive_acknowledgement(p, out, handler); });
            case packet_type::suback:
                return with<mqtt::suback>(f,
                                          [&](auto& p) { return receive_answer(p, packet_type::subscribe, handler); });
            case packet_type::unsuback:
                return with<mqtt::unsuback>(
                    f, [&](auto& p) { return receive_answer(p, packet_type::unsubscribe, handler); });
            case packet_type::subscribe:
                return with<mqtt::subscribe>(f, [&](auto& p) { return handler.on_subscribe(p), errc::ok; });
            case packet_type::unsubscribe:
                return with<mqtt::unsubscribe>(f, [&](auto& p) { return handler.on_unsubscribe(p), errc::ok; });
            case packet_type::pingreq:
                return with<pingreq>(f, [&](auto&) { return reply(out, pingresp{}), errc::ok; });  // [MQTT-3.12.4-1]
            case packet_type::pingresp:
                return with<pingresp>(f, [&](auto&) { return handler.on_pingresp(), errc::ok; });
            case packet_type::disconnect:
                return with<mqtt::disconnect>(f, [&](auto& p) {
                    errc const e = version_ == protocol_version::v5 ? check_sender(p, sender) : errc::ok;
                    if (e != errc::ok) return e;
                    phase_ = phase::disconnected;
                    return handler.on_disconnect(p), errc::ok;
                });
            case packet_type::auth:
                return with<mqtt::auth>(f, [&](auto& p) {
                    errc const e = check_sender(p, sender);
                    return e == errc::ok ? (handler.on_auth(p), errc::ok) : e;
                });
            default: return errc::unexpected_packet;
        }
    }

    template <class Packet, class F>
    errc with(frame const& f, F&& act) {
        Packet packet;
        errc const e = decode(f.header, f.body, version_, packet);
        return e == errc::ok ? act(packet) : e;
    }

    template <class Handler>
    errc receive_connack(mqtt::connack const& answer, send_buffer& out, Handler& handler) {
        if (peer_known_) return errc::unexpected_packet;
        if (answer.reason != reason_code::success) {
            phase_ = phase::disconnected;
            handler.on_connack(answer);
            return errc::ok;
        }
        if (phase_ == phase::disconnecting) {  // DISCONNECT was sent before CONNACK came
            peer_known_ = true;
            return errc::ok;
        }
        // The server cannot have kept what it was told to drop [MQTT-3.2.2-2] ([MQTT-3.2.2-1] of MQTT 3.1.1).
        if (answer.session_present && clean_start_) return errc::session_present_unexpected;
        if (version_ == protocol_version::v5) peer_ = capabilities::from(answer.props.parse());
        if (!answer.session_present) {
            received_.clear();
            outgoing_.send_anew(handler);
        }
        begin_connection(out, handler, [&] { handler.on_connack(answer); });
        return errc::ok;
    }

    /// What the peer does not accept ends, and the rest is sent. Handlers may end the connection meanwhile.
    template <class Handler, class Tell>
    void begin_connection(send_buffer& out, Handler& handler, Tell&& tell) {
        if (phase_ != phase::connecting) return;
        peer_known_ = true;
        outgoing_.refuse_unacceptable(peer_, handler);
        if (phase_ != phase::connecting) return;
        phase_ = phase::connected;
        tell();
        send_queued(out);
    }

    template <class Handler>
    errc receive_acknowledgement(acknowledgement const& ack, send_buffer& out, Handler& handler) {
        if (ack.type == packet_type::pubrel) return receive_pubrel(ack, out);
        auto* const e = outgoing_.find(ack.packet_id);
        if (ack.type == packet_type::pubrec) return receive_pubrec(e, ack, out, handler);

        bool const expected =
            e != nullptr && (ack.type == packet_type::puback ? e->at == stage::sent && e->quality == qos::at_least_once
                                                             : e->at == stage::released || e->at == stage::rereleased);
        if (!expected) {
            // The end of an exchange that this end has forgotten, and of which it said so in PUBREL.
            if (e == nullptr && ack.type == packet_type::pubcomp) return errc::ok;
            return e == nullptr ? errc::packet_identifier_unknown : errc::unexpected_packet;
        }
        auto answer = ack;
        // The peer sent PUBCOMP on an earlier connection, and it did not arrive: no error then (3.7.2.1).
        if (e->at == stage::rereleased && ack.reason == reason_code::packet_identifier_not_found)
            answer.reason = reason_code::success;
        end_exchange(*e, answer, out, handler);
        return errc::ok;
    }

    template <class Handler>
    errc receive_pubrec(outgoing::entry* e, acknowledgement const& ack, send_buffer& out, Handler& handler) {
        if (e == nullptr) {
            if (is_error(ack.reason)) return errc::ok;  // no PUBREL follows (4.3.3)
            reply(out,
                  acknowledgement{packet_type::pubrel, ack.packet_id, reason_code::packet_identifier_not_found, {}});
            return errc::ok;
        }
        if (e->quality != qos::exactly_once ||
            (e->at != stage::sent && e->at != stage::released && e->at != stage::rereleased))
            return errc::unexpected_packet;
        if (is_error(ack.reason)) {
            end_exchange(*e, ack, out, handler);  // no PUBREL follows (4.3.3)
            return errc::ok;
        }
        outgoing_.release(*e);
        reply(out, acknowledgement{packet_type::pubrel, ack.packet_id, {}, {}});
        return errc::ok;
    }

    errc receive_pubrel(acknowledgement const& ack, send_buffer& out) {
        using enum received::knowledge;
        auto const known = received_.knows(ack.packet_id);
        if (known == not_taken) return errc::unexpected_packet;  // there has been no PUBREC [MQTT-4.3.3-4]
        received_.forget(ack.packet_id);
        auto const reason = known == taken ? reason_code::success : reason_code::packet_identifier_not_found;
        reply(out, acknowledgement{packet_type::pubcomp, ack.packet_id, reason, {}});
        return errc::ok;
    }

    template <class Handler>
    void end_exchange(outgoing::entry& e, acknowledgement const& ack, send_buffer& out, Handler& handler) {
        auto* const owner = e.owner;
        outgoing_.end_acknowledged(e);
        send_queued(out);
        if (owner != nullptr) handler.on_published(owner, ack);
    }

    template <class Answer, class Handler>
    errc receive_answer(Answer const& answer, packet_type to, Handler& handler) {
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

    role role_;
    protocol_version version_;
    phase phase_ = phase::disconnected;
    session_limits limits_;
    capabilities own_;
    capabilities peer_;
    outgoing outgoing_;
    received received_;
    std::size_t expected_ = 0;
    bool peer_known_ = false;   // `peer_` is what the peer of this connection has announced
    bool clean_start_ = false;  // of CONNECT
};

}  // namespace runnel::mqtt
