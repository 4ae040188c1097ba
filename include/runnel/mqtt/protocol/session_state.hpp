#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/protocol/acknowledgement_details.hpp>
#include <runnel/mqtt/protocol/authentication.hpp>
#include <runnel/mqtt/protocol/capabilities.hpp>
#include <runnel/mqtt/protocol/detail/outgoing.hpp>
#include <runnel/mqtt/protocol/detail/quarantine.hpp>
#include <runnel/mqtt/protocol/detail/received.hpp>
#include <runnel/mqtt/protocol/detail/topic_alias.hpp>
#include <runnel/mqtt/protocol/session_handler.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace runnel::mqtt {

/// The limits that this end sets itself.
struct session_limits {
    std::size_t queued_bytes = 1024 * 1024;  ///< of the packets that wait to be sent or acknowledged
    std::uint16_t in_flight = 65535;         ///< QoS 1 and 2 messages sent and not acknowledged
    /// MQTT 5: topic aliases that are given to the topics published to, as far as the peer takes them; 0: none.
    std::uint16_t outgoing_topic_aliases = 16;
    /// Client: whether a connection goes on when the server has kept a session of which this end knows nothing, as that
    /// of a process that was started anew. False: it ends with `session_present_unexpected`, as [MQTT-3.2.2-4] asks.
    bool accept_unknown_session = true;
    std::uint16_t queued_messages = 65535;  ///< that wait to be sent or acknowledged
    /// Bytes in the `send_buffer` beyond which QoS 1 and 2 messages, and all that are queued, stay in the queue until
    /// `send_more`, so that what else is sent does not stand behind all of them.
    std::size_t unwritten = (std::numeric_limits<std::size_t>::max)();
    /// QoS 1 and 2 messages that the application may have without having taken them: see `can_take_more`.
    std::uint16_t not_taken = 65535;
};

/// A message that waits in a session to be sent or acknowledged.
struct queued_view {
    std::uint64_t number = 0;  ///< by which the session knows it
    std::string_view topic{};  ///< valid as long as the session does nothing
    std::size_t size = 0;      ///< of the PUBLISH packet in bytes
    mqtt::qos qos{};
    bool sent = false;  ///< whether it has been sent on some connection, so that it may have arrived
};

/// The rules of an MQTT session for one end, over all its network connections; without I/O and without a clock.
///
/// What is to be sent is appended to the `send_buffer` given, what has been received is fed to `receive`. The same
/// class serves the client and the server, and both versions of the protocol.
class session_state {
  public:
    enum class phase : std::uint8_t { disconnected, connecting, connected, disconnecting };

    /// `pace`: how fast messages leave. A client's `version` may be `automatic`: see `speak`.
    RUNNEL_COLD explicit session_state(role own, protocol_version version, session_limits limits = {},
                                       publish_pace pace = {})
        : role_(own),
          version_(version == protocol_version::automatic ? protocol_version::v5 : version),
          queue_version_(version_),
          limits_(limits) {
        if (!pace.is_limited()) return;
        pacing_ = std::make_unique<pacing>(pace);
        sends_at_once_ = sends_queued_ = no_phase;
    }
    RUNNEL_COLD ~session_state() = default;

    /// That of this connection, or of the last one; before, the one that was asked for.
    protocol_version version() const noexcept { return version_; }
    /// That of the packets which wait to be sent or acknowledged, and of those in a store.
    protocol_version queue_version() const noexcept { return queue_version_; }

    /// Client, in an automatic session, between connections: the next one speaks `version`. Whatever that is, messages
    /// wait as packets of MQTT 5. When a server has accepted MQTT 3.1.1, those that have properties and have not been
    /// sent end with `not_in_this_version` (`on_refused`); others that have some, and may have arrived with them, go
    /// without on this connection. `without_properties` counts both.
    RUNNEL_COLD void speak(protocol_version version) noexcept {
        assert(phase_ == phase::disconnected);
        assert(version == queue_version_ || queue_version_ == protocol_version::v5);
        version_ = version;
    }
    /// How many messages have lost their properties, or their turn for having some, as this connection began.
    std::uint16_t without_properties() const noexcept { return outgoing_.without_properties(); }
    /// Whether what only MQTT 5 has may be asked for: it is the version of this connection, or may be that of the next.
    bool may_have_v5() const noexcept {
        return queue_version_ == protocol_version::v5 && (version_ == protocol_version::v5 || !peer_known_);
    }
    phase current_phase() const noexcept { return phase_; }
    bool connected() const noexcept { return phase_ == phase::connected; }
    /// What the peer accepts on this connection.
    capabilities const& peer() const noexcept { return peer_; }
    /// QoS 1 and 2 messages sent on this connection and not acknowledged.
    std::size_t unacknowledged() const noexcept { return outgoing_.unacknowledged(); }
    /// QoS 1 and 2 messages that the peer has taken or refused.
    std::uint64_t acknowledged() const noexcept { return outgoing_.acknowledged(); }
    /// QoS 1 and 2 messages sent again on a later connection.
    std::uint64_t resent() const noexcept { return outgoing_.resent(); }
    /// Bytes of the packets that wait to be sent or acknowledged.
    std::size_t queued_bytes() const noexcept { return outgoing_.bytes(); }
    /// Whether there is a message whose end is still to come: QoS 0 to be sent, QoS 1 and 2 to be acknowledged.
    bool holds_messages() noexcept { return outgoing_.holds_messages(); }
    /// Bytes of the packet that the rest of the last input begins; 0 if not known.
    std::size_t expected_size() const noexcept { return expected_; }
    /// The enhanced authentication of this connection.
    mqtt::authentication const& authentication() const noexcept { return authentication_; }

    /// Tells the time, on any clock that does not go back. Message expiry intervals count from the time told last
    /// before `publish`; what has expired is found by `receive`, `accept` and `expire`.
    void set_time(std::chrono::milliseconds now) noexcept { outgoing_.set_time(now); }

    /// Whether it is to be told before anything that may send messages: there have been some that expire.
    bool needs_time() const noexcept { return outgoing_.needs_time(); }

    /// When there may be something to `expire`; none, as long as no message with an expiry interval waits to be sent.
    std::optional<std::chrono::milliseconds> next_expiry() const noexcept { return outgoing_.next_expiry(); }

    /// Whether messages leave at a pace (`publish_pace`): then `publish` and what is received only queue them,
    /// and `send_due` sends.
    bool is_paced() const noexcept { return pacing_ != nullptr; }

    /// If messages leave at a pace: sends those whose turn it is, on a clock that does not go back; `on_sent` is told
    /// of QoS 0 messages that have an owner. Returns when there will be more to send; `pacing::never`: when something
    /// has been published or received, or a connection has begun. Is to be called then, too, and, so that what leaves
    /// does not gather in front of a slow network, only once all that was sent before has been written.
    template <class Handler>
    RUNNEL_COLD pacing::time_point send_due(send_buffer& out, pacing::time_point now, Handler&& handler) {
        if (!connected() || !is_paced()) return pacing::never;
        return outgoing_.send_paced(out, bounds(limits_.unwritten), version_, *pacing_, now,
                                    [&](void* owner) { handler.on_sent(owner); });
    }

    /// Whether a message that is published now can be sent now: the pace allows it, and no other is before it.
    RUNNEL_COLD bool can_leave(qos quality, pacing::time_point now) {
        return connected() && (!is_paced() || outgoing_.can_leave(quality, window_, *pacing_, now));
    }

    /// Ends the messages that have expired before they were sent: `on_refused` is told `message_expired`.
    template <class Handler>
    void expire(Handler&& handler) {
        outgoing_.expire(handler);
    }

    /// Client: begins a connection by CONNECT. `own` is what its properties announce. Nothing is sent on an error.
    RUNNEL_COLD errc connect(send_buffer& out, mqtt::connect const& packet, capabilities own) {
        if (errc const e = check(packet, version_); e != errc::ok) return e;
        connection_lost();
        append(out, packet);
        begin(own, {}, packet.props.get<property_id::authentication_method>());
        clean_start_ = packet.clean_start;
        has_identifier_ = !packet.client_id.empty();
        ends_with_connection_ = packet.props.get<property_id::session_expiry_interval>().value_or(0) == 0;
        return errc::ok;
    }

    /// Client: whether the server has kept a session of which this end knows nothing and which it does not accept (see
    /// `session_limits`), so that the next CONNECT must have Clean Start 1 (the text behind [MQTT-3.2.2-4]).
    bool must_begin_anew() const noexcept { return must_begin_anew_; }

    /// Client: whether the CONNECT of this connection left the choice of a client identifier to the server, so that its
    /// CONNACK may have an Assigned Client Identifier (3.2.2.3.7).
    bool wants_identifier() const noexcept { return !has_identifier_; }

    /// Client: whether the session that this connection has found (session present 1) may be another one than the one
    /// that this end knows, as an earlier CONNECT was sent whose CONNACK has not come: that may have said that the old
    /// one was lost (3.2.2.1.1). Such a session has no subscriptions.
    bool doubts_session() const noexcept { return doubts_session_; }

    /// Server: accepts a client by CONNACK, with the capabilities that its CONNECT announced. What is left of an
    /// earlier connection is sent again if `answer.session_present` (in `version`, if that is another than before:
    /// MQTT 3.1.1 has no properties), else dropped. `handler` is told of what is dropped or refused. If `answer` names
    /// an authentication method, the client has been authenticated by it, and may be again.
    template <class Handler = session_handler>
    void accept(send_buffer& out, mqtt::connack const& answer, protocol_version version, capabilities own,
                capabilities peer, Handler&& handler = Handler{}) {
        assert(role_ == role::server && answer.reason == reason_code::success);
        connection_lost();
        if (version != version_ && answer.session_present) outgoing_.rewrite(version_, version);
        version_ = queue_version_ = version;
        begin(own, peer, answer.props.get<property_id::authentication_method>());
        authentication_.finish(answer);
        append(out, answer);
        if (!answer.session_present) {
            received_.clear();
            outgoing_.drop(handler);
        }
        begin_connection(out, handler, [] {});
    }

    /// The network connection has gone. What was not acknowledged will be sent again on the next one; requests end.
    RUNNEL_COLD void connection_lost() noexcept {
        if (phase_ == phase::connecting || phase_ == phase::disconnecting) missed_answer_ |= !peer_known_;
        phase_ = phase::disconnected;
        peer_known_ = doubts_session_ = false;
        expected_ = 0;
        received_.connection_lost();
        leaves_out_ = asks_again_ = false;
        outgoing_.connection_lost();
        acknowledgement_details_.clear();
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
    /// then `owner` is told by `on_published` of the end of QoS 1 and 2, if it is not null. At a pace all are kept, and
    /// the owner of a QoS 0 message is told by `on_sent` when it leaves. A message with an expiry
    /// interval that has not been sent when it expires ends with `message_expired` (`on_refused`).
    ///
    /// Topics get aliases by themselves, as `session_limits` says. The application may manage those above them.
    ///
    /// Errors: those of `check`, what the peer does not accept (while that is not known, `on_refused` tells later),
    /// `topic_alias_invalid` (an alias is for one connection, so for QoS 0, and at no pace; and it is none of those
    /// given by themselves), and, to try again later, `queue_full`, `no_packet_identifier`, and
    /// `topic_alias_cannot_wait` (QoS 0 messages that wait in the queue are sent before).
    begun publish(send_buffer& out, mqtt::publish message, void* owner = nullptr) {
        return publish_in_place(out, message, owner);
    }
    /// The same without a copy: `message` gets the packet identifier.
    begun publish_in_place(send_buffer& out, mqtt::publish& message, void* owner);

    /// Sends what has stayed in the queue because `session_limits::unwritten` was reached. To be called whenever what
    /// has gathered in `out` has been taken away for being written.
    void send_more(send_buffer& out) {
        if (outgoing_.holds_unsent()) send_queued(out);
    }

    /// Client: sends SUBSCRIBE; `owner` is told by `on_suback`, unless the connection is lost first.
    RUNNEL_COLD begun subscribe(send_buffer& out, mqtt::subscribe packet, void* owner) {
        if (errc const e = check_subscribe(peer_, packet, version_); connected() && e != errc::ok) return {e};
        return request(out, packet, packet_type::subscribe, packet.requests.size(), owner);
    }

    /// Client: sends UNSUBSCRIBE; `owner` is told by `on_unsuback`, unless the connection is lost first.
    RUNNEL_COLD begun unsubscribe(send_buffer& out, mqtt::unsubscribe packet, void* owner) {
        return request(out, packet, packet_type::unsubscribe, packet.filters.size(), owner);
    }

    /// Whether there is room for another message, of no more than what is left of the limit.
    bool has_room() const noexcept {
        return outgoing_.bytes() < limits_.queued_bytes && outgoing_.size() < limits_.queued_messages &&
               outgoing_.has_identifier();
    }

    /// Drops a message that has not been sent on any connection; nobody is told. False: it is no such message. What it
    /// held up is sent by `send_more`, and in the course of what is received.
    bool withdraw(std::uint64_t number) noexcept { return outgoing_.withdraw(number); }
    /// Drops the QoS 0 message that has waited longest for a connection. False: there is none.
    bool drop_oldest_at_most_once() noexcept { return outgoing_.drop_oldest_at_most_once(); }

    /// Drops a message of any QoS that waits to be sent or acknowledged; its owner is told by `on_refused`. Where it
    /// has been sent it may arrive all the same, and the protocol's exchange goes on to its end, but it is not sent
    /// again. False: there is no such message, or it is a QoS 2 message that the peer has already.
    template <class Handler>
    RUNNEL_COLD bool discard(std::uint64_t number, errc why, Handler&& handler) {
        return outgoing_.discard(number, why, handler);
    }

    /// Ends, between connections, an exchange that cannot be brought to its end on any; its owner is told by
    /// `on_refused`.
    template <class Handler>
    RUNNEL_COLD void reject(std::uint64_t number, errc why, Handler&& handler) {
        outgoing_.reject(number, why, handler);
    }

    /// Calls `f(message)` with a `queued_view` of each message that waits to be sent or acknowledged, in order. QoS 2
    /// messages that the peer has are not among them.
    template <class F>
    RUNNEL_COLD void for_each_queued(F&& f) {
        outgoing_.for_each_message([&](std::uint64_t number, detail::outgoing::entry const& e) {
            bool const sent =
                e.at == stage::sent || e.at == stage::resend || e.past != detail::in_flight::history::unsent;
            f(queued_view{number, detail::publish_layout(e.bytes()).topic, e.size, e.quality, sent});
        });
    }

    /// How many exchanges that were begun after the oldest one have ended, if the peer has been asked to end that one
    /// and does not: packet identifiers are not used up by it, but somebody may want to know.
    std::uint64_t overtaken() noexcept { return outgoing_.overtaken(); }

    /// Client: allows fewer QoS 1 and 2 messages in flight than the limits do, 0 included, until it is called again: to
    /// find out which of them the server does not take. PUBREL that is to be sent again counts as one of them.
    RUNNEL_COLD void narrow(send_buffer& out, std::uint16_t window) {
        narrowed_ = window;
        set_window();
        send_more(out);
    }

    /// What has been sent on this connection and waits for the peer, for `quarantine`.
    RUNNEL_COLD detail::unanswered_exchanges unanswered() noexcept {
        auto const first = outgoing_.first_waiting();
        return {.first = first,
                .next = outgoing_.next_number(),
                .any = first != outgoing_.next_number(),
                .has_progress = outgoing_.has_progress()};
    }

    /// Whether PUBREL has been sent on this connection without a PUBREC having come on it, and is not answered: it
    /// frees an identifier that the peer may have taken. A peer that has not come to send PUBREC may find fault with
    /// that.
    RUNNEL_COLD bool has_freed() noexcept { return outgoing_.has_freed(); }

    /// The owner of the exchange is gone and is not to be told of its end. The exchange itself goes on.
    void disown(std::uint64_t number) noexcept { outgoing_.disown(number); }

    /// The application has taken a message. Its acknowledgement is sent as soon as those of all earlier messages of its
    /// lane and QoS have been: see `received`. In MQTT 5 `reason` may refuse the message, and `props` have a reason
    /// string and user properties, which are sent if the peer wants them and takes packets of that size. Errors:
    /// `reason` or `props` are not possible; then nothing happens.
    errc acknowledge(send_buffer& out, delivery d, reason_code reason = reason_code::success,
                     property_view props = {}) {
        if (d.quality == qos::at_most_once) return errc::ok;
        bool const plain = reason == reason_code::success && props.empty();
        auto const type = d.quality == qos::at_least_once ? packet_type::puback : packet_type::pubrec;
        if (!plain)
            if (errc const e = check(acknowledgement{type, d.packet_id, reason, props}, version_); e != errc::ok)
                return e;
        bool const v5 = version_ == protocol_version::v5;
        bool const taken = received_.take(d, v5 ? reason : reason_code::success);
        if (taken && v5 && !props.empty() && connected()) acknowledgement_details_.add(d.number, props, type);
        send_acknowledgements(out);
        return errc::ok;
    }

    /// The application gives a message back that it cannot take: it is not acknowledged on this connection, on which it
    /// counts for the receive maximum, and later ones of its lane and QoS are not acknowledged. When it
    /// is sent again, on the next connection, `on_message` is told of it once more, with the same number.
    RUNNEL_COLD void give_back(delivery d, mqtt::publish const* packet = nullptr) noexcept {
        received_.give_back(d, packet);
    }

    /// Puts a message that `on_message` tells of into a lane, within which acknowledgements keep their order: see
    /// `received`. All messages of one topic must be in the same.
    void assign(delivery d, std::uint16_t lane) { received_.assign(d, lane); }

    /// Whether the application has as many messages as it may without having taken them (`session_limits::not_taken`).
    /// In MQTT 5 the receive maximum sees to that, unless a larger one had to be announced; a server of MQTT 3.1.1 does
    /// not know it.
    bool is_full() const noexcept {
        bool const is_known = version_ == protocol_version::v5 && own_.receive_maximum <= limits_.not_taken;
        return leaves_out_ || (received_.waiting() >= limits_.not_taken && !is_known);
    }
    /// QoS 1 and 2 messages that wait for their first acknowledgement.
    std::size_t not_taken() const noexcept { return received_.waiting(); }
    /// From now on the application may have so many, 1 or more, as what they weigh asks for.
    RUNNEL_COLD void bound_not_taken(std::uint16_t most) noexcept { limits_.not_taken = most; }

    /// Whether more should be read from the network: not if `is_full`, unless this end waits for an answer, which may
    /// be all that the application waits for. Then messages of QoS 1 and 2 are left out: neither handed over nor
    /// acknowledged, until the next connection, so that none overtakes another.
    bool can_take_more() const noexcept { return !is_full() || leaves_out_ || outgoing_.size() != 0; }
    /// Only another connection helps: messages were left out, and there is room for them again; or all that the server
    /// may send has been given back, or waits behind such, or seems to have been (`ask_again`). The server sends it
    /// again.
    bool wants_new_connection() noexcept {
        return connected() && ((leaves_out_ && received_.waiting() <= limits_.not_taken / 2u) || asks_again_ ||
                               (received_.given_back() != 0 && is_used_up()));
    }
    /// The messages that wait for the application, as `received` counts them: those given back, whether there are
    /// others, and how many have come so far.
    std::size_t given_back() const noexcept { return received_.given_back(); }
    RUNNEL_COLD bool holds_only_given_back() noexcept { return received_.holds_only_given_back(); }
    std::uint64_t arrived() const noexcept { return received_.arrived(); }
    /// Client: what has been given back is to come again on another connection, as this one brings nothing more. False:
    /// it would not come, as the session ends with the connection.
    RUNNEL_COLD bool ask_again() noexcept {
        return asks_again_ =
                   connected() && !clean_start_ && (version_ != protocol_version::v5 || !ends_with_connection_);
    }

    /// Sends the next step of an authentication (MQTT 5, 4.12): an answer to `on_auth`, or, from a client, the
    /// beginning of a new one (`reauthenticate`). If it fails, `disconnect` [MQTT-4.12.1-2]. A server sends the steps
    /// of the first one by itself, and CONNACK by `accept`.
    ///
    /// Errors: those of `check`, `not_connected`, `authentication_not_due`, `authentication_method_changed`,
    /// `packet_too_large`.
    RUNNEL_COLD errc auth(send_buffer& out, mqtt::auth packet) {
        if (!connected() && !(phase_ == phase::connecting && role_ == role::client)) return errc::not_connected;
        if (errc const e = check(packet, version_); e != errc::ok) return e;
        if (errc const e = check_sender(packet, role_); e != errc::ok) return e;
        properties shorter;
        if (!fit(packet, packet_type::auth, version_, peer_, shorter)) return errc::packet_too_large;
        if (errc const e = authentication_.step(role_, packet); e != errc::ok) return e;
        append(out, packet);
        return errc::ok;
    }

    /// A PUBLISH that was in the send buffer has been taken out of it, and will not be written: if the peer has never
    /// been sent it, its exchange ends, and nobody is told. False: it may have been on an earlier connection, so that
    /// this one has to end. In detail/session_state_pieces.hpp.
    bool take_back_unsent(send_buffer& out, std::uint16_t packet_id);

    /// Client: asks for a sign of life.
    void ping(send_buffer& out) { reply(out, pingreq{}); }

    /// Ends the connection in good order, if there is one: nothing is sent on it any more [MQTT-3.14.4-1]. A client
    /// that has no error to tell sends first all that may be sent, whatever `session_limits::unwritten` says. In
    /// MQTT 3.1.1 a server has nothing to send. Reason string and user properties are left out if the peer does not
    /// take packets of that size. Without properties it always fits, but to a client that takes no more than 2 bytes,
    /// which then is sent none.
    ///
    /// Errors, upon which nothing happens: the packet is not one that this end may send, also between connections;
    /// `packet_too_large`: there is no room for a session expiry interval, or for a server reference.
    RUNNEL_COLD errc disconnect(send_buffer& out, mqtt::disconnect packet = {}) {
        if (version_ == protocol_version::v5) {
            if (errc const e = check(packet, version_); e != errc::ok) return e;
            if (errc const e = check_sender(packet, role_); e != errc::ok) return e;
            // 3.14.2.2.2: a session that was to end with its connection cannot be made to last.
            auto const expiry = packet.props.get<property_id::session_expiry_interval>();
            if (role_ == role::client && ends_with_connection_ && expiry.value_or(0) != 0)
                return errc::property_not_allowed;
        }
        if (phase_ != phase::connecting && phase_ != phase::connected) return errc::ok;
        properties shorter;
        bool const fits = fit(packet, packet_type::disconnect, version_, peer_, shorter);
        if (!fits && !packet.props.empty()) return errc::packet_too_large;
        if (role_ == role::client && !is_error(packet.reason))
            send_queued(out, (std::numeric_limits<std::size_t>::max)());
        bool const sent = version_ == protocol_version::v5 || role_ == role::client;
        if (sent && fits) append(out, packet);
        phase_ = phase::disconnecting;
        return errc::ok;
    }

    /// Server: answers a SUBSCRIBE.
    void suback(send_buffer& out, mqtt::suback const& answer) { reply_fitted(out, answer, packet_type::suback); }
    /// Server: answers an UNSUBSCRIBE.
    void unsuback(send_buffer& out, mqtt::unsuback const& answer) { reply_fitted(out, answer, packet_type::unsuback); }

    /// Handles all whole packets of `input` in turn and removes them from it; replies that the protocol owes go to
    /// `out`. An error is the peer's fault and ends the connection: `reason_for(error)` is what to tell it.
    template <class Handler>
    errc receive(std::string_view& input, send_buffer& out, Handler&& handler);

    // --- what outlives the process: `session_journal` keeps it in a store

    /// QoS 1 and 2 messages that `publish` has accepted, those of earlier processes included.
    std::uint64_t accepted() const noexcept { return outgoing_.accepted(); }
    /// The number of the exchange that is begun next.
    std::uint64_t next_number() const noexcept { return outgoing_.next_number(); }

    /// Is called first of all if there is a store: changes are noted from then on.
    void note_changes() noexcept { received_.note_changes(); }
    /// Whether there is anything that the store does not hold.
    bool has_changes() const noexcept {
        return outgoing_.has_changes() || received_.has_changes() || has_session_ != session_stored_;
    }
    /// Whether the peer may have a session with this end, of this process or of an earlier one.
    bool has_session() const noexcept { return has_session_; }
    /// Tells `sink` what has changed since `changes_stored`: `message(number, packet, expires_at)` an outgoing QoS 1
    /// or 2 message, which expires then (on the clock of `set_time`) if at all, `unsent(number, packet, expires_at)`
    /// one that has not been sent and whose identifier may be in use at the peer, `released(number)` that PUBREC has
    /// come for it, `ended(number)`; of incoming QoS 2 messages `taken(packet_id, reason)` and `forgotten(packet_id)`.
    template <class Sink>
    void tell_changes(Sink&& sink) {
        outgoing_.tell_changes(sink);
        received_.tell_changes(sink);
    }
    /// The store holds all that `tell_changes` has told.
    void changes_stored() noexcept {
        outgoing_.changes_stored();
        received_.changes_stored();
        session_stored_ = has_session_;
    }

    /// What a store holds is told by the time of day, which has been set ahead by so much, as seen from the clock of
    /// `set_time`; see `outgoing::time_of_day_set`.
    RUNNEL_COLD void time_of_day_set(std::chrono::milliseconds by, std::uint64_t own) noexcept {
        outgoing_.time_of_day_set(by, own);
    }

    /// Puts back what a store holds, before the first connection: the outgoing exchanges in ascending order of their
    /// numbers, `packet` being empty after PUBREC, and `unsent` as `tell_changes` has told it; then `restore_counts`,
    /// where `version` is that of the packets.
    void restore(std::uint64_t number, std::string_view packet, std::optional<std::chrono::milliseconds> expires_at,
                 bool unsent = false) {
        outgoing_.restore(number, packet, expires_at, unsent);
    }
    void restore_taken(std::uint16_t packet_id, reason_code reason) { received_.restore(packet_id, reason); }
    /// Packet identifiers may be taken at the peer: see `outgoing::distrust_identifiers`.
    bool has_unknown_identifiers() const noexcept { return outgoing_.has_unknown_identifiers(); }
    void restore_unknown() { outgoing_.restore_unknown(); }
    void restore_counts(std::uint64_t next, std::uint64_t accepted, bool has_session, protocol_version version) {
        outgoing_.restore_counts(next, accepted);
        if (!has_session) outgoing_.restore_as_unsent();
        if (version != queue_version_) outgoing_.rewrite(version, queue_version_);
        has_session_ = session_stored_ = has_session;
    }

    /// Gives back memory that is kept for reuse.
    void release_idle_memory() noexcept { outgoing_.release_idle_memory(); }

  private:
    using stage = detail::outgoing::stage;
    static constexpr auto no_phase = static_cast<phase>(0xFF);

    template <class Packet>
    void append(send_buffer& out, Packet const& packet) {
        mqtt::detail::append(out, packet, version_);
    }
    // To a peer that takes four bytes at most, an acknowledgement cannot tell a reason [MQTT-3.2.2-15] [MQTT-3.1.2-24].
    void append(send_buffer& out, acknowledgement const& packet) {
        if (packet.reason != reason_code::success && peer_.maximum_packet_size < 5) [[unlikely]]
            return mqtt::detail::append(out, acknowledgement{packet.type, packet.packet_id, {}, {}}, version_);
        mqtt::detail::append(out, packet, version_);
    }

    void send_queued(send_buffer& out) { send_queued(out, limits_.unwritten); }
    void send_queued(send_buffer& out, std::size_t unwritten) {
        if (phase_ == sends_queued_) outgoing_.send_queued(out, bounds(unwritten), version_);
    }
    detail::outgoing::bounds bounds(std::size_t unwritten) const noexcept {
        return {.window = window_,
                .releases = narrowed_,
                .peer_maximum = peer_.maximum_packet_size,
                .unwritten = unwritten};
    }
    RUNNEL_COLD RUNNEL_NOINLINE bool is_used_up() noexcept {
        return received_.waiting() >= (std::min)(limits_.not_taken, own_.receive_maximum) &&
               received_.holds_only_given_back();
    }
    void set_window() noexcept { window_ = (std::min)({limits_.in_flight, peer_.receive_maximum, narrowed_}); }
    // Whether all packet identifiers are known to be free at the peer, if that matters.
    bool has_known_identifier(qos quality) const noexcept {
        return quality != qos::exactly_once || (!outgoing_.has_unknown_identifiers() && !outgoing_.is_freeing());
    }

    /// Sends what is of use on this connection only. Nothing follows DISCONNECT [MQTT-3.14.4-1].
    template <class Packet>
    void reply(send_buffer& out, Packet const& packet) {
        if (connected()) append(out, packet);
    }

    template <class Packet>
    RUNNEL_COLD begun request(send_buffer& out, Packet packet, packet_type type, std::size_t filters, void* owner) {
        if (!connected()) return {errc::not_connected};
        outgoing_.make_identifier();
        if (!outgoing_.has_identifier()) return {errc::no_packet_identifier};
        auto const number = outgoing_.next_number();
        packet.packet_id = outgoing_.next_identifier();
        if (errc const e = check(packet, version_); e != errc::ok) return {e};
        std::size_t const size = encoded_size(packet, version_);
        if (size > peer_.maximum_packet_size) return {errc::packet_too_large};
        out.prepare(size);  // what can fail comes first
        outgoing_.begin_request(type, filters, owner);
        append(out, packet);
        return {errc::ok, number};
    }

    /// A connection begins: `connecting`.
    RUNNEL_COLD void begin(capabilities const& own, capabilities const& peer, std::optional<std::string_view> method) {
        own_ = own;
        peer_ = peer;
        bool const v5 = version_ == protocol_version::v5;
        incoming_aliases_.restart(v5 ? own.topic_alias_maximum : std::uint16_t{0});
        authentication_.begin(v5 ? method : std::nullopt);
        phase_ = phase::connecting;
    }

    /// What the peer does not accept ends, and the rest is sent. Handlers may end the connection meanwhile.
    template <class Handler, class Tell>
    RUNNEL_COLD void begin_connection(send_buffer& out, Handler& handler, Tell&& tell) {
        if (phase_ != phase::connecting) return;
        peer_known_ = has_session_ = true;
        bool const converts = version_ != queue_version_;
        if (!is_paced()) sends_at_once_ = converts ? no_phase : phase::connected;
        outgoing_.refuse_unacceptable(peer_, converts, handler);
        outgoing_.expire(handler);
        if (phase_ != phase::connecting) return;
        phase_ = phase::connected;
        set_window();
        outgoing_.aliases().restart((std::min)(limits_.outgoing_topic_aliases, peer_.topic_alias_maximum));
        tell();
        send_queued(out);
    }

    // session_state_publish.hpp
    begun send(send_buffer& out, mqtt::publish const& message);
    begun send_with_alias(send_buffer& out, mqtt::publish const& message);
    begun choose_alias(send_buffer& out, mqtt::publish packet);
    errc admit(mqtt::publish const& message, publish_size& measured) const;
    begun send_and_keep(send_buffer& out, mqtt::publish& message, void* owner);
    begun queue(send_buffer& out, mqtt::publish& message, void* owner);
    errc check_properties(mqtt::publish const& message, bool at_once) const noexcept;

    template <class Packet>
    void reply_fitted(send_buffer& out, Packet packet, packet_type type) {
        properties shorter;
        if (connected() && fit(packet, type, version_, peer_, shorter)) append(out, packet);
    }

    /// Acknowledges the messages that have been taken, as far as their order allows.
    void send_acknowledgements(send_buffer& out) {
        if (!connected()) return;
        while (auto const* e = received_.next_taken()) {
            auto const type = e->quality == qos::at_least_once ? packet_type::puback : packet_type::pubrec;
            acknowledgement const packet{type, e->packet_id, e->reason, {}};
            if (acknowledgement_details_.empty())
                append(out, packet);
            else
                send_with_details(out, packet, e->number);
            received_.pop();
        }
    }

    RUNNEL_COLD void send_with_details(send_buffer& out, acknowledgement packet, std::uint64_t number) {
        packet.props = acknowledgement_details_.find(number, packet.type);
        properties shorter;
        if (!fit(packet, packet.type, version_, peer_, shorter)) packet.props = {};
        append(out, packet);
        acknowledgement_details_.erase(number);
    }

    // session_state_pieces.hpp, if messages are received in pieces
    struct piece_step {
        enum class what : std::uint8_t {
            go_on,  // what comes is for `receive`
            again,  // some has been taken
            stop    // more is to come, or to be taken, first
        };
        piece_step(what n, errc e = errc::ok) noexcept : next(n), error(e) {}
        piece_step(errc e) noexcept : next(what::stop), error(e) {}
        what next;
        errc error;
    };
    template <class Handler>
    piece_step receive_pieces(std::string_view& input, send_buffer& out, Handler& handler);
    template <class Handler>
    errc begin_pieces(void* who, mqtt::publish const& message, std::uint64_t size, send_buffer& out, Handler& handler);

    // session_state_receive.hpp
    bool is_plain_acknowledgement(std::string_view input) const noexcept;
    static std::uint16_t identifier_at(std::string_view input, std::size_t at) noexcept;
    template <class Handler>
    errc receive_publish(frame const& f, send_buffer& out, Handler& handler);
    bool leaves_out() noexcept;
    template <class Handler>
    RUNNEL_COLD errc receive_other(frame const& f, send_buffer& out, Handler& handler);
    template <class Handler>
    RUNNEL_COLD errc receive_connack(mqtt::connack const& answer, send_buffer& out, Handler& handler);
    template <class Handler>
    RUNNEL_COLD errc receive_disconnect(mqtt::disconnect const& packet, Handler& handler);
    template <class Handler>
    RUNNEL_COLD errc receive_auth(mqtt::auth const& packet, Handler& handler);
    template <class Handler>
    errc receive_acknowledgement(acknowledgement const& ack, send_buffer& out, Handler& handler);
    template <class Handler>
    errc receive_pubrec(detail::outgoing::entry* e, acknowledgement const& ack, send_buffer& out, Handler& handler);
    RUNNEL_COLD errc receive_other_pubrec(detail::outgoing::entry* e, acknowledgement const& ack, send_buffer& out);
    errc receive_pubrel(acknowledgement const& ack, send_buffer& out);
    template <class Answer, class Handler>
    RUNNEL_COLD errc receive_answer(Answer const& answer, packet_type to, Handler& handler);
    errc resolve_alias(mqtt::publish& message);
    errc check_received(mqtt::publish const& message) const noexcept;
    errc check_wanted(packet_type type, property_view const& props) const noexcept;
    template <class Handler>
    void end_exchange(detail::outgoing::entry& e, acknowledgement const& ack, send_buffer& out, Handler& handler);

    role role_;
    protocol_version version_;
    protocol_version queue_version_;  // another one where MQTT 3.1.1 is spoken and messages wait as those of MQTT 5
    phase phase_ = phase::disconnected;
    phase sends_at_once_ = phase::connected;  // in this phase messages are sent as they come; none if they are written
                                              // in another version than they wait in, or at a pace
    phase sends_queued_ = phase::connected;   // in this one, what is queued; none if at a pace
    session_limits limits_;
    capabilities own_{};
    capabilities peer_{};
    detail::outgoing outgoing_{};
    detail::received received_{};
    detail::incoming_aliases incoming_aliases_{};
    mqtt::acknowledgement_details acknowledgement_details_{};
    mqtt::authentication authentication_{};
    std::unique_ptr<pacing> pacing_{};  // nullptr: messages are sent as they come
    std::size_t expected_ = 0;
    std::uint16_t window_ = 0;  // of this connection
    std::uint16_t narrowed_ = 65535;
    bool peer_known_ = false;      // `peer_` is what the peer of this connection has announced
    bool has_session_ = false;     // there has been a connection
    bool session_stored_ = false;  // and the store knows
    bool clean_start_ = false;     // of CONNECT
    bool has_identifier_ = true;   // the same
    bool must_begin_anew_ = false;
    bool ends_with_connection_ = false;
    bool missed_answer_ = false;   // to a CONNECT, since a session was known for certain
    bool doubts_session_ = false;  // of this connection, for that reason
    bool leaves_out_ = false;      // QoS 1 and 2 messages, until the next connection
    bool asks_again_ = false;
};

}  // namespace runnel::mqtt

#include <runnel/mqtt/protocol/detail/session_state_publish.hpp>
#include <runnel/mqtt/protocol/detail/session_state_receive.hpp>
