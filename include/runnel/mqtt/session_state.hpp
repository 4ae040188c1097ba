#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/capabilities.hpp>
#include <runnel/mqtt/in_flight.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/received.hpp>
#include <runnel/mqtt/session_handler.hpp>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string_view>

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
    std::size_t unacknowledged() const noexcept { return unacknowledged_; }
    /// Bytes of the packets that wait to be sent or acknowledged.
    std::size_t queued_bytes() const noexcept { return in_flight_.bytes(); }
    /// Bytes of the packet that the rest of the last input begins; 0 if not known.
    std::size_t expected_size() const noexcept { return expected_; }

    /// Client: begins a connection by CONNECT. `own` is what its properties announce. Nothing is sent on an error.
    errc connect(send_buffer& out, mqtt::connect const& packet, capabilities own) {
        if (errc const e = check(packet, version_); e != errc::ok) return e;
        append(out, packet);
        own_ = own;
        peer_ = {};
        phase_ = phase::connecting;
        return errc::ok;
    }

    /// Server: accepts a client by CONNACK, with the capabilities that its CONNECT announced. What is left of an
    /// earlier connection is sent again if `answer.session_present`, else dropped.
    void accept(send_buffer& out, mqtt::connack const& answer, protocol_version version, capabilities own,
                capabilities peer) {
        assert(role_ == role::server && answer.reason == reason_code::success);
        version_ = version;
        own_ = own;
        peer_ = peer;
        phase_ = phase::connected;
        append(out, answer);
        if (!answer.session_present) {
            received_.clear();
            while (!in_flight_.empty()) in_flight_.end(in_flight_[in_flight_.first()]);
            cursor_ = in_flight_.next();
        }
        send_queued(out);
    }

    /// The network connection has gone. What was not acknowledged will be sent again on the next one; requests end.
    void connection_lost() noexcept {
        phase_ = phase::disconnected;
        unacknowledged_ = 0;
        expected_ = 0;
        received_.connection_lost();
        using enum in_flight::stage;
        auto const end = in_flight_.next();
        for (auto n = in_flight_.first(); n != end; ++n) {
            auto& e = in_flight_[n];
            if (e.at == sent) e.at = resend;
            if (e.at == released) e.at = rerelease;
            if (e.at == request) e.at = ended;
        }
        in_flight_.sweep();
        cursor_ = in_flight_.first();
    }

    /// What began: an error, or the number by which `disown` knows the exchange.
    struct begun {
        errc error = errc::ok;
        std::uint64_t number = 0;
    };

    /// Begins to publish a message; its packet identifier is ignored. QoS 0 is sent now if connected. QoS 1 and 2, and
    /// QoS 0 while not connected, are kept and sent as soon as the connection and the peer's receive maximum allow;
    /// then `owner` is told by `on_published`, if it is not null.
    ///
    /// Errors: those of `check`, what the peer does not accept, `queue_full` and `no_packet_identifier` (try again
    /// later).
    begun publish(send_buffer& out, mqtt::publish message, void* owner = nullptr) {
        bool const acknowledged = message.qos != qos::at_most_once;
        auto const number = in_flight_.next();
        message.packet_id = acknowledged ? in_flight::identifier_of(number) : std::uint16_t{0};
        if (errc const e = check(message, version_); e != errc::ok) return {e};
        std::size_t const size = encoded_size(message, version_);
        if (connected())
            if (errc const e = check_acceptable(message, size); e != errc::ok) return {e};

        if (!acknowledged && connected()) {
            encode(out.prepare(size), message, version_);
            out.commit(size);
            return {};
        }
        if (!in_flight_.has_identifier()) return {errc::no_packet_identifier};
        if (in_flight_.bytes() != 0 && in_flight_.bytes() + size > limits_.queued_bytes) return {errc::queue_full};
        in_flight_.begin(size, {.at = in_flight::stage::queued, .quality = message.qos, .owner = owner});
        encode(in_flight_[number].packet, message, version_);
        if (connected()) send_queued(out);
        return {errc::ok, number};
    }

    /// Client: sends SUBSCRIBE; `owner` is told by `on_suback`, unless the connection is lost first.
    begun subscribe(send_buffer& out, mqtt::subscribe packet, void* owner) {
        return request(out, packet, packet_type::subscribe, owner);
    }

    /// Client: sends UNSUBSCRIBE; `owner` is told by `on_unsuback`, unless the connection is lost first.
    begun unsubscribe(send_buffer& out, mqtt::unsubscribe packet, void* owner) {
        return request(out, packet, packet_type::unsubscribe, owner);
    }

    /// The owner of the exchange is gone and is not to be told of its end. The exchange itself goes on.
    void disown(std::uint64_t number) noexcept {
        if (number - in_flight_.first() < in_flight_.next() - in_flight_.first()) in_flight_[number].owner = nullptr;
    }

    /// The application has taken a message. Its acknowledgement is sent as soon as those of all messages before it have
    /// been. In MQTT 5 `reason` may refuse the message.
    void acknowledge(send_buffer& out, delivery d, reason_code reason = reason_code::success) {
        if (d.quality == qos::at_most_once) return;
        received_.take(d, reason);
        if (!connected()) return;
        while (auto const* e = received_.next_taken()) {
            auto const type = e->quality == qos::at_least_once ? packet_type::puback : packet_type::pubrec;
            append(out, acknowledgement{type, e->packet_id, e->reason, {}});
            received_.pop();
        }
    }

    /// Client: asks for a sign of life.
    void ping(send_buffer& out) { append(out, pingreq{}); }

    /// Ends the connection in good order. In MQTT 3.1.1 a server has nothing to send.
    void disconnect(send_buffer& out, mqtt::disconnect const& packet = {}) {
        if (version_ == protocol_version::v5 || role_ == role::client) append(out, packet);
        phase_ = phase::disconnecting;
    }

    /// Server: answers a SUBSCRIBE.
    void suback(send_buffer& out, mqtt::suback const& answer) { append(out, answer); }
    /// Server: answers an UNSUBSCRIBE.
    void unsuback(send_buffer& out, mqtt::unsuback const& answer) { append(out, answer); }

    /// Handles all whole packets of `input` in turn and removes them from it; replies that the protocol owes go to
    /// `out`. An error is the peer's fault and ends the connection: `reason_for(error)` is what to tell it.
    template <class Handler>
    errc receive(std::string_view& input, send_buffer& out, Handler&& handler) {
        while (phase_ != phase::disconnected) {
            frame const next = next_frame(input, own_.maximum_packet_size);
            expected_ = next.total_size;
            if (next.status == parse_status::need_more) return errc::ok;
            if (next.status == parse_status::malformed) return next.error;
            errc const e = next.header.type == packet_type::publish ? receive_publish(next, handler)
                                                                    : receive_other(next, out, handler);
            if (e != errc::ok) return e;
            input.remove_prefix(next.total_size);
        }
        return errc::ok;
    }

    /// Gives back memory that is kept for reuse.
    void release_idle_memory() noexcept { in_flight_.release_idle_memory(); }

  private:
    using stage = in_flight::stage;

    template <class Packet>
    void append(send_buffer& out, Packet const& packet) {
        std::size_t const size = encoded_size(packet, version_);
        encode(out.prepare(size), packet, version_);
        out.commit(size);
    }

    errc check_acceptable(mqtt::publish const& message, std::size_t size) const noexcept {
        if (size > peer_.maximum_packet_size) return errc::packet_too_large;               // [MQTT-3.1.2-24]
        if (message.qos > peer_.maximum_qos) return errc::maximum_qos_exceeded;            // [MQTT-3.2.2-11]
        if (message.retain && !peer_.retain_available) return errc::retain_not_available;  // [MQTT-3.2.2-14]
        return errc::ok;
    }

    template <class Packet>
    begun request(send_buffer& out, Packet packet, packet_type type, void* owner) {
        if (!connected()) return {errc::not_connected};
        if (!in_flight_.has_identifier()) return {errc::no_packet_identifier};
        auto const number = in_flight_.next();
        packet.packet_id = in_flight::identifier_of(number);
        if (errc const e = check(packet, version_); e != errc::ok) return {e};
        if (encoded_size(packet, version_) > peer_.maximum_packet_size) return {errc::packet_too_large};
        in_flight_.begin(0, {.at = stage::request, .request = type, .owner = owner});
        append(out, packet);
        return {errc::ok, number};
    }

    /// Sends what is queued, in order [MQTT-4.6.0-1], as far as the peer's receive maximum allows [MQTT-3.3.4-9].
    void send_queued(send_buffer& out) {
        std::size_t const window = std::min(limits_.in_flight, peer_.receive_maximum);
        cursor_ = std::max(cursor_, in_flight_.first());
        for (; cursor_ != in_flight_.next(); ++cursor_) {
            auto& e = in_flight_[cursor_];
            if (e.at == stage::rerelease) {
                append(out, acknowledgement{packet_type::pubrel, in_flight::identifier_of(cursor_), {}, {}});
                e.at = stage::released;
                ++unacknowledged_;
            } else if (e.at == stage::queued || e.at == stage::resend) {
                if (e.quality != qos::at_most_once && unacknowledged_ >= window) break;
                send_entry(out, e);
            }
        }
        in_flight_.sweep();
    }

    void send_entry(send_buffer& out, in_flight::entry& e) {
        constexpr char dup = 0x08;
        if (e.at == stage::resend) e.packet[0] |= dup;  // [MQTT-3.3.1-1]
        out.append(e.bytes());
        if (e.quality == qos::at_most_once) {
            in_flight_.drop_packet(e);
            e.at = stage::ended;  // nobody waits for QoS 0
            return;
        }
        e.at = stage::sent;
        ++unacknowledged_;
    }

    template <class Handler>
    errc receive_publish(frame const& f, Handler& handler) {
        if (phase_ == phase::connecting) return errc::packet_before_connack;
        mqtt::publish message;
        if (errc const e = decode(f.header, f.body, version_, message); e != errc::ok) return e;
        if (errc const e = check_received(message); e != errc::ok) return e;
        if (message.qos == qos::at_most_once) {
            handler.on_message(message, delivery{});
            return errc::ok;
        }
        if (received_.size() >= own_.receive_maximum) return errc::receive_maximum_exceeded;  // [MQTT-3.3.4-7]
        auto const arrival = received_.arrive(message.packet_id, message.qos);
        if (arrival.is_new) handler.on_message(message, arrival.token);
        return errc::ok;
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
                return with<pingreq>(f, [&](auto&) { return append(out, pingresp{}), errc::ok; });  // [MQTT-3.12.4-1]
            case packet_type::pingresp:
                return with<pingresp>(f, [&](auto&) { return handler.on_pingresp(), errc::ok; });
            case packet_type::disconnect:
                return with<mqtt::disconnect>(f, [&](auto& p) {
                    errc const e = version_ == protocol_version::v5 ? check_sender(p, sender) : errc::ok;
                    if (e != errc::ok) return e;
                    phase_ = phase::disconnected;
                    return handler.on_disconnect(p), errc::ok;
                });
            case packet_type::auth: return with<mqtt::auth>(f, [&](auto& p) { return handler.on_auth(p), errc::ok; });
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
        if (phase_ != phase::connecting) return errc::unexpected_packet;
        if (answer.reason != reason_code::success) {
            phase_ = phase::disconnected;
            handler.on_connack(answer);
            return errc::ok;
        }
        phase_ = phase::connected;
        if (version_ == protocol_version::v5) peer_ = capabilities::from(answer.props.parse());
        if (!answer.session_present) forget_session(handler);
        handler.on_connack(answer);
        send_queued(out);
        return errc::ok;
    }

    /// The peer has no session: what was only sent is sent anew; of what was released nobody can tell its fate.
    template <class Handler>
    void forget_session(Handler& handler) {
        received_.clear();
        auto const end = in_flight_.next();
        for (auto n = in_flight_.first(); n != end; ++n) {
            auto& e = in_flight_[n];
            if (e.at == stage::resend) {
                e.packet[0] = static_cast<char>(e.packet[0] & ~0x08);
                e.at = stage::queued;
            } else if (e.at == stage::rerelease) {
                auto* const owner = e.owner;
                e.at = stage::ended;
                if (owner != nullptr) handler.on_lost(owner);
            }
        }
        in_flight_.sweep();
    }

    template <class Handler>
    errc receive_acknowledgement(acknowledgement const& ack, send_buffer& out, Handler& handler) {
        if (ack.type == packet_type::pubrel) return receive_pubrel(ack, out);
        auto* const e = in_flight_.find(ack.packet_id);
        if (ack.type == packet_type::pubrec) return receive_pubrec(e, ack, out, handler);

        bool const expected =
            e != nullptr && (ack.type == packet_type::puback ? e->at == stage::sent && e->quality == qos::at_least_once
                                                             : e->at == stage::released);
        if (!expected) {
            // The end of an exchange that this end has forgotten, and of which it said so in PUBREL.
            if (e == nullptr && ack.type == packet_type::pubcomp) return errc::ok;
            return e == nullptr ? errc::packet_identifier_unknown : errc::unexpected_packet;
        }
        end_exchange(*e, ack, out, handler);
        return errc::ok;
    }

    template <class Handler>
    errc receive_pubrec(in_flight::entry* e, acknowledgement const& ack, send_buffer& out, Handler& handler) {
        if (e == nullptr) {
            append(out,
                   acknowledgement{packet_type::pubrel, ack.packet_id, reason_code::packet_identifier_not_found, {}});
            return errc::ok;
        }
        if (e->quality != qos::exactly_once || (e->at != stage::sent && e->at != stage::released))
            return errc::unexpected_packet;
        if (is_error(ack.reason)) {
            end_exchange(*e, ack, out, handler);  // no PUBREL follows (4.3.3)
            return errc::ok;
        }
        in_flight_.drop_packet(*e);
        e->at = stage::released;
        append(out, acknowledgement{packet_type::pubrel, ack.packet_id, {}, {}});
        return errc::ok;
    }

    errc receive_pubrel(acknowledgement const& ack, send_buffer& out) {
        auto const reason =
            received_.knows(ack.packet_id) ? reason_code::success : reason_code::packet_identifier_not_found;
        received_.forget(ack.packet_id);
        append(out, acknowledgement{packet_type::pubcomp, ack.packet_id, reason, {}});
        return errc::ok;
    }

    template <class Handler>
    void end_exchange(in_flight::entry& e, acknowledgement const& ack, send_buffer& out, Handler& handler) {
        auto* const owner = e.owner;
        in_flight_.end(e);
        --unacknowledged_;
        send_queued(out);
        if (owner != nullptr) handler.on_published(owner, ack);
    }

    template <class Answer, class Handler>
    errc receive_answer(Answer const& answer, packet_type to, Handler& handler) {
        auto* const e = in_flight_.find(answer.packet_id);
        if (e == nullptr) return errc::packet_identifier_unknown;
        if (e->at != stage::request || e->request != to) return errc::unexpected_packet;
        auto* const owner = e->owner;
        in_flight_.end(*e);
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
    in_flight in_flight_;
    received received_;
    std::uint64_t cursor_ = 0;  // the first exchange that has not been sent on this connection
    std::size_t unacknowledged_ = 0;
    std::size_t expected_ = 0;
};

}  // namespace runnel::mqtt
