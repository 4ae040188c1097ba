#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/protocol/capabilities.hpp>
#include <runnel/mqtt/protocol/detail/in_flight.hpp>
#include <runnel/mqtt/protocol/detail/publish_layout.hpp>
#include <runnel/mqtt/protocol/detail/topic_alias.hpp>
#include <runnel/mqtt/protocol/pacing.hpp>

#include <algorithm>
#include <bitset>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

namespace runnel::mqtt::detail {

/// Encodes a packet behind what is in the buffer.
template <class Packet>
RUNNEL_COLD void append(send_buffer& out, Packet const& packet, protocol_version version) {
    std::size_t const size = encoded_size(packet, version);
    encode(out.prepare(size), packet, version);
    out.commit(size);
}

/// An acknowledgement with nothing but a packet identifier, as nearly all are.
RUNNEL_ALWAYS_INLINE inline void append_plain(send_buffer& out, packet_type type, std::uint16_t packet_id) {
    char* const to = out.prepare(4);
    write_big_endian(write_fixed_header(to, type, type == packet_type::pubrel ? 2 : 0, 2), packet_id);
    out.commit(4);
}
inline void append(send_buffer& out, acknowledgement const& packet, protocol_version version) {
    if (packet.reason != reason_code::success || !packet.props.empty())
        return append<acknowledgement>(out, packet, version);
    append_plain(out, packet.type, packet.packet_id);
}

/// What a session sends and waits to be answered: the exchanges in flight, what of them has been sent on this
/// connection, and what becomes of them when connections and sessions end.
///
/// Handlers are those of `session_state`; they may begin and end exchanges meanwhile.
class outgoing {
  public:
    using entry = in_flight::entry;
    using stage = in_flight::stage;

    /// QoS 1 and 2 messages sent on this connection and not acknowledged.
    std::size_t unacknowledged() const noexcept { return unacknowledged_; }
    /// Messages that the peer has taken or refused.
    std::uint64_t acknowledged() const noexcept { return acknowledged_; }
    /// Messages sent again on a later connection.
    std::uint64_t resent() const noexcept { return resent_; }
    /// Bytes of all packets held.
    std::size_t bytes() const noexcept { return in_flight_.bytes(); }
    /// Exchanges that have not ended.
    std::size_t size() const noexcept { return in_flight_.size(); }
    /// To be called before `next_number` and `next_identifier` are used for a new exchange.
    void make_identifier() { in_flight_.make_identifier(); }
    bool has_identifier() const noexcept { return in_flight_.has_identifier(); }
    /// Whether QoS 0 messages are queued, which newer ones must not overtake [MQTT-4.6.0-5].
    bool holds_at_most_once() const noexcept { return queued_at_most_once_ != 0; }
    /// Whether there is anything that has not been sent on this connection.
    bool holds_unsent() const noexcept { return cursor_ < in_flight_.next() || queued_at_most_once_ != 0; }
    /// Whether there is a message whose end is still to come: QoS 0 to be sent, QoS 1 and 2 to be acknowledged.
    bool holds_messages() noexcept {
        for (auto n = in_flight_.first(); n != in_flight_.next(); n = in_flight_.from(n + 1))
            if (auto const at = in_flight_[n].at; at != stage::ended && at != stage::request) return true;
        return false;
    }
    /// The number of the exchange that is begun next, and its packet identifier.
    std::uint64_t next_number() const noexcept { return in_flight_.next(); }
    std::uint16_t next_identifier() const noexcept { return in_flight::identifier_of(in_flight_.next()); }
    entry* find(std::uint16_t identifier) noexcept { return in_flight_.find(identifier); }

    /// The topic aliases of this connection.
    outgoing_aliases& aliases() noexcept { return aliases_; }
    outgoing_aliases const& aliases() const noexcept { return aliases_; }

    /// The time from which message expiry intervals are counted, and to which they are counted down.
    void set_time(std::chrono::milliseconds now) noexcept { now_ = now; }
    /// Whether there have been messages for which the time matters.
    bool needs_time() const noexcept { return needs_time_; }

    /// When `expire` is to be called next; none, as long as nothing queued expires.
    std::optional<std::chrono::milliseconds> next_expiry() const noexcept {
        return next_expiry_ == never ? std::nullopt : std::optional(next_expiry_);
    }

    /// Queues a message that has the next packet identifier, if its QoS needs one.
    void queue(publish const& message, protocol_version version, publish_size measured, void* owner) {
        auto const interval =
            message.props.empty() ? std::nullopt : message.props.get<property_id::message_expiry_interval>();
        auto const number = in_flight_.begin(
            packet_size(measured.remaining_length),
            {.at = stage::queued, .quality = message.qos, .expires = interval.has_value(), .owner = owner});
        auto& e = in_flight_[number];
        encode(e.packet, message, version, measured);
        if (message.qos == qos::at_most_once)
            ++queued_at_most_once_;
        else
            ++accepted_;
        if (!interval) return;
        needs_time_ = true;
        auto const position = publish_layout(e.bytes()).expiry_position(e.bytes());
        in_flight::expiry_of(e) = {now_ + std::chrono::seconds(*interval), static_cast<std::uint32_t>(position)};
    }

    /// Sends a QoS 1 or 2 message that has the next packet identifier and no properties, with nothing waiting in front
    /// of it, and keeps it until it is acknowledged.
    RUNNEL_ALWAYS_INLINE void send(send_buffer& out, publish const& message, protocol_version version,
                                   publish_size measured, void* owner) {
        std::size_t const size = packet_size(measured.remaining_length);
        char* const to = out.prepare(size);  // what can fail comes first
        auto const number = in_flight_.begin(size, {.at = stage::sent, .quality = message.qos, .owner = owner});
        auto& e = in_flight_[number];
        encode(e.packet, message, version, measured);
        ++accepted_;
        std::memcpy(to, e.packet, size);
        out.commit(size);
        ++unacknowledged_;
        cursor_ = number + 1;
    }

    /// For want of memory nothing comes of a message that has just been queued, unless it has been sent.
    RUNNEL_COLD void take_back(std::uint64_t number) noexcept {
        auto const* const e = in_flight_.at(number);
        bool const kept = e != nullptr && e->quality != qos::at_most_once;
        if (withdraw(number) && kept) --accepted_;
    }

    /// Sees to it that `next_expiry` tells of this exchange, if it is queued still.
    void note_expiry(std::uint64_t number) noexcept {
        auto const* const e = in_flight_.at(number);
        if (e != nullptr && may_expire(*e)) next_expiry_ = (std::min)(next_expiry_, in_flight::expiry_of(*e).at);
    }

    /// What has expired without having been sent by this process ends; its owner is told by `on_refused`. What has been
    /// sent is finished all the same, as it may have arrived.
    template <class Handler>
    void expire(Handler& handler) {
        if (now_ <= next_expiry_) return;
        expire_late(
            {&handler, [](void* h, void* owner, errc why) { static_cast<Handler*>(h)->on_refused(owner, why); }});
    }

    /// Notes that a request with the next packet identifier, for so many filters, is being sent.
    RUNNEL_COLD void begin_request(packet_type type, std::size_t filters, void* owner) {
        auto const number = in_flight_.begin(0, {.at = stage::request, .request = type, .owner = owner});
        in_flight_[number].size = static_cast<std::uint32_t>(filters);
    }

    void disown(std::uint64_t number) noexcept {
        if (auto* const e = in_flight_.at(number)) e->owner = nullptr;
    }

    /// Drops a message that has not been sent on any connection. False: it is no such message. What it held up is sent
    /// by the next `send_queued`.
    RUNNEL_COLD bool withdraw(std::uint64_t number) noexcept {
        auto* const e = in_flight_.at(number);
        if (e == nullptr || e->past != in_flight::history::unsent) return false;
        if (e->at != stage::queued && e->at != stage::freeing) return false;
        take_out(*e);
        in_flight_.end(*e);
        return true;
    }

    /// Drops a message, whether it has been sent or not; its owner is told by `on_refused`. What the peer may have of
    /// it is ended as the protocol asks: on this connection, or on the next one. False: there is no such message, or
    /// the peer has it already.
    template <class Handler>
    bool discard(std::uint64_t number, errc why, Handler& handler) {
        auto* const e = in_flight_.at(number);
        if (e == nullptr || e->packet == nullptr) return false;
        if (e->at == stage::sent) {
            auto* const owner = std::exchange(e->owner, nullptr);
            e->discarded = true;
            in_flight_.drop_packet(*e);
            in_flight_.note(*e);
            handler.on_refused(owner, why);
        } else {
            refuse(*e, why, handler);
            in_flight_.sweep();
        }
        return true;
    }

    /// Ends an exchange between connections; its owner is told by `on_refused`.
    template <class Handler>
    RUNNEL_COLD void reject(std::uint64_t number, errc why, Handler& handler) {
        auto* const e = in_flight_.at(number);
        if (e == nullptr || e->at == stage::ended) return;
        auto* const owner = std::exchange(e->owner, nullptr);
        e->at == stage::rerelease ? in_flight_.finish(*e) : give_up(*e);
        in_flight_.sweep();
        handler.on_refused(owner, why);
    }

    /// Calls `f(number, entry)` for each message of which the packet is held, in order.
    template <class F>
    void for_each_message(F&& f) {
        for (auto n = in_flight_.first(); n != in_flight_.next(); n = in_flight_.from(n + 1))
            if (in_flight_[n].packet != nullptr) f(n, std::as_const(in_flight_[n]));
    }

    /// How many exchanges that were begun after the oldest one have ended, if that one waits for the peer.
    std::uint64_t overtaken() noexcept {
        if (in_flight_.empty()) return 0;
        auto const oldest = in_flight_.first();
        return is_waiting(in_flight_[oldest]) ? in_flight_.next() - oldest - in_flight_.size() : 0;
    }

    /// The number of the first exchange that has been sent on this connection and not been answered to its end;
    /// `next_number` if there is none.
    std::uint64_t first_waiting() noexcept {
        auto n = in_flight_.first();
        while (n != in_flight_.next() && !is_waiting(in_flight_[n])) n = in_flight_.from(n + 1);
        return n;
    }
    /// Whether the peer has acknowledged anything on this connection.
    bool has_progress() const noexcept { return has_progress_; }

    /// The packet of a message that counts as sent has not been: the exchange ends, if there is one. False: the peer
    /// may know it by an earlier connection, and only the end of this one ends it.
    RUNNEL_COLD bool take_back_unsent(std::uint16_t identifier) noexcept {
        auto* const e = find(identifier);
        if (e == nullptr || e->at != stage::sent) return true;
        if (e->past != in_flight::history::unsent) return false;
        in_flight_.end(*e);
        --unacknowledged_;
        return true;
    }

    /// Drops the QoS 0 message that has been queued longest and for which nobody waits. False: there is none.
    bool drop_oldest_at_most_once() noexcept {
        if (queued_at_most_once_ == 0) return false;
        for (auto n = in_flight_.first(); n != in_flight_.next(); n = in_flight_.from(n + 1)) {
            auto const& e = in_flight_[n];
            if (e.at == stage::queued && e.quality == qos::at_most_once && e.owner == nullptr) return withdraw(n);
        }
        return false;
    }

    /// What bounds `send_queued`.
    struct bounds {
        std::size_t window;        ///< QoS 1 and 2 messages not acknowledged [MQTT-3.3.4-9]
        std::size_t releases;      ///< with so many of them no PUBREL is sent again
        std::size_t peer_maximum;  ///< bytes of the largest packet that the peer takes
        std::size_t unwritten;     ///< bytes in the buffer with which the rest stays queued
    };

    /// Sends what is queued, in order [MQTT-4.6.0-1], as far as the bounds allow.
    void send_queued(send_buffer& out, bounds const& b, protocol_version version) {
        cursor_ = in_flight_.from(cursor_);
        for (; cursor_ != in_flight_.next() && out.size() < b.unwritten; cursor_ = in_flight_.from(cursor_ + 1)) {
            auto& e = in_flight_[cursor_];
            if (e.at == stage::rerelease) {
                if (unacknowledged_ >= b.releases) break;
                send_release(out, cursor_, version);
                e.at = stage::rereleased;
            } else if (e.at == stage::queued || e.at == stage::resend) {
                if ((e.quality != qos::at_most_once && unacknowledged_ >= b.window) ||
                    !send_or_free(out, cursor_, b.peer_maximum, version)) {
                    if (release_cursor_ != no_release) [[unlikely]]
                        send_releases(out, b, version);
                    break;
                }
            }
        }
        // QoS 0 is not held up by the receive maximum.
        for (auto n = cursor_; queued_at_most_once_ != 0 && out.size() < b.unwritten; n = in_flight_.from(n + 1)) {
            auto& e = in_flight_[n];
            if (e.at == stage::queued && e.quality == qos::at_most_once) send_entry(out, e, b.peer_maximum);
        }
        in_flight_.sweep();
    }

    /// The same, as far as `pace` allows it at `now`. A QoS 0 message that has an owner tells it by `left(owner)`.
    /// Returns when more may be sent; `pacing::never` unless something else happens before.
    template <class Left>
    RUNNEL_COLD pacing::time_point send_paced(send_buffer& out, bounds const& b, protocol_version version, pacing& pace,
                                              pacing::time_point now, Left&& left) {
        pace.observe(unacknowledged_, now);
        cursor_ = in_flight_.from(cursor_);
        // When the next of each kind may be sent, once one of it had to stay behind.
        std::optional<pacing::time_point> held_0, held_1;
        auto unsent = in_flight_.next();
        for (auto n = cursor_; n != in_flight_.next() && !(held_1 && (held_0 || queued_at_most_once_ == 0));
             n = in_flight_.from(n + 1)) {
            auto& e = in_flight_[n];
            if (e.at == stage::rerelease && unacknowledged_ < b.releases) {
                send_release(out, n, version);
                e.at = stage::rereleased;
            } else if (e.at == stage::rerelease) {
                unsent = (std::min)(unsent, n);
            }
            if (e.at != stage::queued && e.at != stage::resend) continue;
            bool const kept = e.quality != qos::at_most_once;
            auto& held = kept ? held_1 : held_0;
            if (!held) {
                auto const at = kept && unacknowledged_ >= b.window ? pacing::never : pace.ready_at(e.quality, now);
                if (at > now) held = at;
            }
            if (held) {
                unsent = (std::min)(unsent, n);
                continue;
            }
            auto const quality = e.quality;
            auto* const owner = kept ? nullptr : std::exchange(e.owner, nullptr);
            if (!send_or_free(out, n, b.peer_maximum, version)) {
                held = pacing::never;
                unsent = (std::min)(unsent, n);
                continue;
            }
            pace.take(quality, now);
            if (owner != nullptr) left(owner);
        }
        cursor_ = (std::min)(unsent, in_flight_.next());
        if (cursor_ != in_flight_.next() && release_cursor_ != no_release) send_releases(out, b, version);
        in_flight_.sweep();
        return (std::min)(held_0.value_or(pacing::never), held_1.value_or(pacing::never));
    }

    /// Whether another message of this QoS would be sent at `now` by `send_paced`.
    RUNNEL_COLD bool can_leave(qos quality, std::size_t window, pacing const& pace, pacing::time_point now) {
        bool const kept = quality != qos::at_most_once;
        std::size_t ready = pace.ready(quality, now);
        if (kept) ready = (std::min)(ready, window - (std::min)(window, unacknowledged_));
        std::size_t before = 0;
        for (auto n = in_flight_.from(cursor_); n != in_flight_.next() && before < ready; n = in_flight_.from(n + 1)) {
            auto const& e = in_flight_[n];
            bool const waits = e.at == stage::queued || e.at == stage::resend;
            before += waits && (e.quality != qos::at_most_once) == kept;
        }
        return before < ready;
    }

    /// The peer has a session of which this end knows nothing: it may take a QoS 2 message for the repetition of an
    /// older one, by its packet identifier. The first QoS 2 message that is to have an identifier, whatever else has
    /// had it before, waits until PUBREL has freed it there.
    RUNNEL_COLD void distrust_identifiers() {
        restore_unknown();
        note_unsent();
    }
    /// The peer has no session: no identifier is in use there.
    RUNNEL_COLD void trust_identifiers() noexcept {
        if (freed_ == nullptr) return;
        freed_.reset();
        note_unsent();
    }
    /// Whether the peer may hold identifiers, and speak of exchanges, of which this end knows nothing.
    bool has_unknown_identifiers() const noexcept { return freed_ != nullptr; }
    /// That was so in an earlier process, and nobody knows which identifiers it has freed.
    RUNNEL_COLD void restore_unknown() {
        if (freed_ == nullptr) freed_ = std::make_unique<freed_identifiers>();
    }
    /// Whether PUBREL has gone to free identifiers for messages that wait for that: none of QoS 2 may overtake them.
    bool is_freeing() const noexcept { return freeing_ != 0; }
    /// The peer's session may be another one than that in which it has sent PUBREC: then it knows nothing of those
    /// messages, and nobody can tell their fate.
    RUNNEL_COLD void doubt() noexcept {
        for (auto n = in_flight_.first(); n != in_flight_.next(); n = in_flight_.from(n + 1))
            if (auto& e = in_flight_[n]; e.at == stage::rerelease) e.past = in_flight::history::unknown;
    }
    static bool is_doubtful(entry const& e) noexcept { return e.past == in_flight::history::unknown; }
    /// Whether PUBREL has gone over this connection for exchanges that the peer has not ended: perhaps for some of
    /// which it has not sent PUBREC yet.
    RUNNEL_COLD bool has_freed() noexcept {
        for (auto n = in_flight_.first(); n != in_flight_.next(); n = in_flight_.from(n + 1))
            if (auto const at = in_flight_[n].at; at == stage::freeing || at == stage::rereleased) return true;
        return false;
    }

    /// The identifier of a message that has waited for this has been freed at the peer, and the message is sent.
    RUNNEL_COLD void send_freed(send_buffer& out, entry& e, std::size_t peer_maximum) {
        send_entry(out, e, peer_maximum);
        --unacknowledged_;
        --freeing_;
        has_progress_ = true;
        note_freed(in_flight_.number_of(e));
        in_flight_.note(e);  // the next process is not to free it again
    }

    /// The network connection has gone: what was sent is to be sent again; requests end.
    RUNNEL_COLD void connection_lost() noexcept {
        unacknowledged_ = 0;
        freeing_ = 0;
        has_progress_ = false;
        aliases_.restart(0);
        using enum in_flight::stage;
        auto const end = in_flight_.next();
        for (auto n = in_flight_.first(); n != end; n = in_flight_.from(n + 1)) {
            auto& e = in_flight_[n];
            if (e.at == sent) {
                e.past = in_flight::history::sent;
                e.at = resend;
                if (e.discarded) give_up(e);
            } else if (e.at == freeing) {
                e.at = queued;
            } else if (e.at == released || e.at == rereleased) {
                e.at = rerelease;
            } else if (e.at == request) {
                in_flight_.finish(e);
            }
        }
        in_flight_.sweep();
        cursor_ = release_cursor_ = in_flight_.first();
    }

    /// Rewrites all packets in another version of the protocol; MQTT 3.1.1 has no properties.
    void rewrite(protocol_version from, protocol_version version) {
        for_each_exchange([&](in_flight::entry& e) {
            if (e.packet == nullptr) return;
            mqtt::publish message;
            frame const f = next_frame(e.bytes());
            [[maybe_unused]] errc const error = decode(f.header, f.body, from, message);
            assert(error == errc::ok);
            if (version == protocol_version::v3_1_1) message.props = {};
            in_flight_.rewrite(e, encoded_size(message, version),
                               [&](char* packet) { encode(packet, message, version); });
            if (e.stored != in_flight::record::none) e.stored = in_flight::record::outdated;
            in_flight_.note(e);
            if (!e.expires) return;
            auto const position =
                version == protocol_version::v5 ? publish_layout(e.bytes()).expiry_position(e.bytes()) : 0;
            in_flight::expiry_of(e).position = static_cast<std::uint32_t>(position);
        });
    }

    /// What the peer does not accept ends; its owner is told by `on_refused`. `converts`: what waits are packets of
    /// MQTT 5, and those that are sent on this connection are of MQTT 3.1.1.
    template <class Handler>
    void refuse_unacceptable(capabilities const& peer, bool converts, Handler& handler) {
        converts_ = converts;
        without_properties_ = 0;
        for_each_exchange([&](in_flight::entry& e) {
            if (e.at != stage::queued && e.at != stage::resend) return;
            errc error = check_publish(peer, e.quality, (e.packet[0] & 1) != 0, e.size);
            if (converts && publish_layout(e.bytes()).property_length != 0) {
                ++without_properties_;
                if (e.past == in_flight::history::unsent) error = errc::not_in_this_version;
            }
            if (error != errc::ok) refuse(e, error, handler);
        });
    }
    /// How many that was, of those that have properties: what may have been sent before goes without them.
    std::uint16_t without_properties() const noexcept { return without_properties_; }

    /// The peer has no session: what was only sent is sent anew; of what was released nobody can tell its fate.
    template <class Handler>
    void send_anew(Handler& handler) {
        for_each_exchange([&](in_flight::entry& e) {
            if (e.at == stage::resend) {
                e.packet[0] = static_cast<char>(e.packet[0] & ~0x08);
                e.at = stage::queued;
            } else if (e.at == stage::rerelease) {
                auto* const owner = e.owner;
                in_flight_.finish(e);
                if (owner != nullptr) handler.on_lost(owner);
            }
        });
    }

    /// A new session begins: all ends.
    template <class Handler>
    void drop(Handler& handler) {
        queued_at_most_once_ = 0;
        for_each_exchange([&](in_flight::entry& e) {
            if (e.at == stage::ended) return;
            auto* const owner = e.owner;
            in_flight_.finish(e);
            if (owner != nullptr) handler.on_lost(owner);
        });
    }

    /// The exchange of an acknowledged message has been ended by the peer. References to it and to older ones are no
    /// longer valid.
    RUNNEL_ALWAYS_INLINE void end_acknowledged(entry& e) noexcept {
        ++acknowledged_;
        end_answered(e);
    }
    /// The same, but nobody can tell whether the peer has taken the message.
    RUNNEL_COLD void end_lost(entry& e) noexcept { end_answered(e); }
    void end_request(entry& e) noexcept { in_flight_.end(e); }

    /// PUBREC has come: the peer has the message, so its bytes are not needed any more.
    void release(entry& e) noexcept {
        in_flight_.drop_packet(e);
        if (e.at == stage::sent) e.at = stage::released;
        in_flight_.note(e);
        has_progress_ = true;
    }

    /// QoS 1 and 2 messages that have been queued, ever.
    std::uint64_t accepted() const noexcept { return accepted_; }

    /// Whether there is anything that a store does not know.
    bool has_changes() const noexcept { return in_flight_.noted() || accepted_ != accepted_stored_; }

    /// Calls `message(number, packet, expires_at)`, `unsent(number, packet, expires_at)`, `released(number)` or
    /// `ended(number)` of `sink` for each exchange of which the store holds something else.
    template <class Sink>
    void tell_changes(Sink& sink) {
        in_flight_.for_each_change([&](std::uint64_t number, in_flight::entry& e) {
            auto const due = due_of(number, e);
            if (due == e.stored) return;
            auto const expires_at = [&] {
                return e.expires ? std::optional(in_flight::expiry_of(e).at) : std::nullopt;
            };
            if (due == in_flight::record::message)
                sink.message(number, e.bytes(), expires_at());
            else if (due == in_flight::record::unsent)
                sink.unsent(number, e.bytes(), expires_at());
            else if (due == in_flight::record::released)
                sink.released(number);
            else
                sink.ended(number);
        });
    }

    /// The store holds all that `tell_changes` has told.
    void changes_stored() noexcept {
        in_flight_.stored([this](std::uint64_t number, entry const& e) { return due_of(number, e); });
        accepted_stored_ = accepted_;
    }

    /// Puts back an exchange that is in the store, in ascending order of the numbers: a QoS 1 or 2 message with the
    /// bytes of its packet, or, without any, one of which PUBREC has come. `unsent`: it was stored as such.
    void restore(std::uint64_t number, std::string_view packet, std::optional<std::chrono::milliseconds> expires_at,
                 bool unsent) {
        in_flight_.continue_at(number);
        if (packet.empty()) {
            in_flight_.begin(
                0, {.at = stage::rerelease, .quality = qos::exactly_once, .stored = in_flight::record::released});
            return;
        }
        auto const quality = static_cast<qos>(packet[0] >> 1 & 3);
        in_flight_.begin(packet.size(), {.at = unsent ? stage::queued : stage::resend,
                                         .quality = quality,
                                         .expires = expires_at.has_value(),
                                         .stored = unsent ? in_flight::record::unsent : in_flight::record::message,
                                         .past = unsent ? in_flight::history::unsent : in_flight::history::unknown});
        if (unsent) restore_unknown();
        auto& e = in_flight_[number];
        std::memcpy(e.packet, packet.data(), packet.size());
        if (!expires_at) return;
        needs_time_ = true;
        auto const position = publish_layout(e.bytes()).expiry_position(e.bytes());
        in_flight::expiry_of(e) = {*expires_at, static_cast<std::uint32_t>(position)};
        next_expiry_ = (std::min)(next_expiry_, *expires_at);
    }

    /// The time of day has been set ahead by so much. Messages with numbers below `own` are of earlier processes, and
    /// expire at the same time of day as before; the others after as long as before, so that the store, where the time
    /// of day stands, has to be told.
    RUNNEL_COLD void time_of_day_set(std::chrono::milliseconds by, std::uint64_t own) noexcept {
        for (auto n = in_flight_.first(); n != in_flight_.next(); n = in_flight_.from(n + 1)) {
            auto& e = in_flight_[n];
            if (!e.expires || e.packet == nullptr) continue;
            if (n < own) {
                auto& at = in_flight::expiry_of(e).at;
                at -= by;
                next_expiry_ = (std::min)(next_expiry_, at);
            } else if (e.stored != in_flight::record::none) {
                e.stored = in_flight::record::outdated;
                in_flight_.note(e);
            }
        }
    }

    /// The next exchange is to have this number, and so many messages have been accepted.
    void restore_counts(std::uint64_t next, std::uint64_t accepted) {
        in_flight_.continue_at(next);
        accepted_ = accepted_stored_ = accepted;
        cursor_ = release_cursor_ = in_flight_.first();
    }
    /// What has been put back was stored before there was any connection.
    RUNNEL_COLD void restore_as_unsent() noexcept {
        for_each_exchange([](in_flight::entry& e) {
            if (e.at != stage::resend) return;
            e.at = stage::queued;
            e.past = in_flight::history::unsent;
        });
    }

    /// Gives back memory that is kept for reuse.
    void release_idle_memory() noexcept { in_flight_.release_idle_memory(); }

  private:
    static constexpr auto never = (std::chrono::milliseconds::max)();
    static constexpr auto no_release = (std::numeric_limits<std::uint64_t>::max)();

    // The packet identifiers that PUBREL has freed at the peer.
    struct freed_identifiers {
        std::bitset<65536> all{};
        std::uint32_t missing = 65535;
    };

    static bool may_expire(in_flight::entry const& e) noexcept {
        using enum in_flight::stage;
        return e.expires && e.past != in_flight::history::sent && (e.at == queued || e.at == freeing || e.at == resend);
    }
    /// What the store is to hold of an exchange.
    in_flight::record due_of(std::uint64_t number, in_flight::entry const& e) const noexcept {
        bool const waits = e.at == stage::queued || e.at == stage::freeing;
        bool const unsent = waits && e.quality == qos::exactly_once && !is_known(number);
        return unsent ? in_flight::record::unsent : e.due();
    }
    /// Which identifiers are known to be free has changed, and so what the store is to hold.
    RUNNEL_COLD void note_unsent() noexcept {
        for (auto n = in_flight_.first(); n != in_flight_.next(); n = in_flight_.from(n + 1))
            if (auto const& e = in_flight_[n]; due_of(n, e) != e.stored) in_flight_.note(e);
    }
    /// Whether the identifier of the exchange is known to be free at the peer.
    bool is_known(std::uint64_t number) const noexcept {
        return freed_ == nullptr || freed_->all[in_flight::identifier_of(number)];
    }
    RUNNEL_COLD void note_freed(std::uint64_t number) noexcept {
        if (is_known(number)) return;
        freed_->all[in_flight::identifier_of(number)] = true;
        if (--freed_->missing == 0) freed_.reset();
    }
    static bool is_waiting(in_flight::entry const& e) noexcept {
        using enum in_flight::stage;
        return e.at == sent || e.at == freeing || e.at == released || e.at == rereleased || e.at == request;
    }

    /// The peer has ended the exchange, whatever has become of the message.
    RUNNEL_ALWAYS_INLINE void end_answered(in_flight::entry& e) noexcept {
        in_flight_.end(e);
        --unacknowledged_;
        has_progress_ = true;
    }

    /// The message is not one of those any more that are counted.
    void take_out(in_flight::entry& e) noexcept {
        if (e.at == stage::queued && e.quality == qos::at_most_once) --queued_at_most_once_;
        if (e.at != stage::freeing) return;
        --unacknowledged_;
        --freeing_;
    }

    /// Ends a message that is not to be sent (again).
    RUNNEL_COLD void give_up(in_flight::entry& e) noexcept {
        take_out(e);
        // Perhaps the peer has a QoS 2 message already: PUBREL frees its identifier.
        if (e.at != stage::resend || e.quality != qos::exactly_once) return in_flight_.finish(e);
        in_flight_.drop_packet(e);
        e.at = stage::rerelease;
        in_flight_.note(e);
        release_cursor_ = (std::min)(release_cursor_, in_flight_.number_of(e));
    }
    // A handler, of whatever type.
    struct refuser {
        void* handler;
        void (*tell)(void* handler, void* owner, errc why);
        void on_refused(void* owner, errc why) { tell(handler, owner, why); }
    };

    RUNNEL_COLD RUNNEL_NOINLINE void expire_late(refuser handler) {
        auto const before = std::exchange(next_expiry_, never);
        std::size_t seen = 0;
        RUNNEL_TRY {
            for_each_exchange([&](in_flight::entry& e) {
                ++seen;
                if (!may_expire(e)) return;
                auto const& expiry = in_flight::expiry_of(e);
                if (now_ <= expiry.at)
                    next_expiry_ = (std::min)(next_expiry_, expiry.at);
                else
                    refuse(e, errc::message_expired, handler);
            });
        }
        RUNNEL_CATCH_ALL {  // the others are still to be looked at
            next_expiry_ = before;
            RUNNEL_RETHROW;
        }
        // Looking at all again for each would take all the time there is: of many, a few milliseconds' are told at
        // once.
        if (next_expiry_ != never)
            next_expiry_ = (std::max)(next_expiry_, now_ + std::chrono::milliseconds(seen / 8192));
    }

    template <class Handler>
    void refuse(in_flight::entry& e, errc why, Handler& handler) {
        auto* const owner = std::exchange(e.owner, nullptr);
        give_up(e);
        handler.on_refused(owner, why);
    }

    void send_release(send_buffer& out, std::uint64_t number, protocol_version version) {
        append(out, acknowledgement{packet_type::pubrel, in_flight::identifier_of(number), {}, {}}, version);
        ++unacknowledged_;
    }

    /// Sends a message whose turn it is, or PUBREL first, where its identifier may be in use at the peer. False: it has
    /// to wait for messages that wait for their identifiers.
    bool send_or_free(send_buffer& out, std::uint64_t number, std::size_t peer_maximum, protocol_version version) {
        auto& e = in_flight_[number];
        if (freed_ != nullptr && is_to_be_freed(number, e)) [[unlikely]] {
            begin_to_free(out, number, version);
            return true;
        }
        if (freeing_ != 0 && e.quality == qos::exactly_once) [[unlikely]]
            return false;
        send_entry(out, e, peer_maximum);
        return true;
    }
    /// Whether PUBREL is to go in front of a message in an unknown session. It goes for nothing if the identifier is
    /// known while others are being freed: so the message keeps its place behind them, and holds up nobody.
    RUNNEL_COLD bool is_to_be_freed(std::uint64_t number, in_flight::entry const& e) const noexcept {
        bool const is_new = e.at == stage::queued && e.quality == qos::exactly_once;
        return is_new && (freeing_ != 0 || !is_known(number));
    }
    RUNNEL_COLD void begin_to_free(send_buffer& out, std::uint64_t number, protocol_version version) {
        send_release(out, number, version);
        in_flight_[number].at = stage::freeing;
        ++freeing_;
    }

    /// Sends again each PUBREL behind a message that has to wait: it takes no place of those that the peer grants.
    RUNNEL_COLD RUNNEL_NOINLINE void send_releases(send_buffer& out, bounds const& b, protocol_version version) {
        auto n = in_flight_.from((std::max)(cursor_, release_cursor_));
        for (; n != in_flight_.next(); n = in_flight_.from(n + 1)) {
            auto& e = in_flight_[n];
            if (e.at != stage::rerelease) continue;
            if (unacknowledged_ >= b.releases || out.size() >= b.unwritten) break;
            send_release(out, n, version);
            e.at = stage::rereleased;
        }
        release_cursor_ = n == in_flight_.next() ? no_release : n;
    }

    void send_entry(send_buffer& out, in_flight::entry& e, std::size_t peer_maximum) {
        constexpr char dup = 0x08;
        if (e.expires) count_down(e);
        if (e.at == stage::resend) {
            e.packet[0] |= dup;  // [MQTT-3.3.1-1]
            ++resent_;
        }
        if (converts_) [[unlikely]] {
            append_without_properties(out, e.bytes());
        } else if (e.at == stage::resend) {
            out.append(e.bytes());
        } else if (aliases_.maximum() == 0 || !append_aliased(out, e.bytes(), peer_maximum)) {
            out.append(e.bytes());
        }
        if (e.quality == qos::at_most_once) {
            --queued_at_most_once_;
            return in_flight_.finish(e);  // nobody waits for QoS 0
        }
        e.at = stage::sent;
        ++unacknowledged_;
    }

    /// Appends the packet with an alias for its topic; false: it gets none.
    bool append_aliased(send_buffer& out, std::string_view packet, std::size_t peer_maximum) {
        publish_layout const parts(packet);
        auto const choice = aliases_.find(parts.topic);
        auto alias = choice.alias;
        bool const fits = packet.size() + max_alias_growth <= peer_maximum;
        if (!choice.known() && fits) {
            out.prepare(packet.size() + max_alias_growth);  // an alias that is assigned is sent
            alias = aliases_.assign(parts.topic, choice);
        }
        if (alias == 0) return false;
        append_with_alias(out, packet, parts, alias, choice.known());
        return true;
    }

    /// Writes into the packet how many seconds are left until it expires [MQTT-3.3.2-6]. Not less than 1: there are
    /// peers to whom 0 means never.
    void count_down(in_flight::entry& e) noexcept {
        auto const& expiry = in_flight::expiry_of(e);
        if (expiry.position == 0) return;
        char* const value = e.packet + expiry.position;
        if (read_big_endian<std::uint32_t>(value) == 0) return;
        auto const left = std::chrono::ceil<std::chrono::seconds>(expiry.at - now_).count();
        write_big_endian(value, static_cast<std::uint32_t>(std::max<std::int64_t>(left, 1)));
    }

    /// Calls `f` for each exchange that is there now. `f` ends exchanges by their stage.
    template <class F>
    RUNNEL_COLD void for_each_exchange(F&& f) {
        auto const end = in_flight_.next();
        // What a handler does may free places.
        for (auto n = in_flight_.first(); n < end; n = in_flight_.from(n + 1)) f(in_flight_[n]);
        in_flight_.sweep();
    }

    in_flight in_flight_{};
    outgoing_aliases aliases_{};
    std::chrono::milliseconds now_{0};
    std::chrono::milliseconds next_expiry_ = never;  // or earlier
    std::uint64_t cursor_ = 0;                       // the first exchange that has not been sent on this connection
    std::uint64_t release_cursor_ = 0;               // perhaps the first of which PUBREL is to be sent again
    std::uint64_t accepted_ = 0;                     // QoS 1 and 2 messages
    std::uint64_t accepted_stored_ = 0;              // of these the store knows
    std::size_t unacknowledged_ = 0;
    std::uint64_t acknowledged_ = 0;
    std::uint64_t resent_ = 0;
    std::unique_ptr<freed_identifiers> freed_{};  // nullptr: all are known to be free at the peer
    std::uint32_t queued_at_most_once_ = 0;
    std::uint32_t freeing_ = 0;             // messages that wait for their identifiers
    bool needs_time_ = false;               // there have been messages that expire
    bool has_progress_ = false;             // on this connection
    bool converts_ = false;                 // to MQTT 3.1.1, on this connection, the packets, which are of MQTT 5
    std::uint16_t without_properties_ = 0;  // so many messages, for that reason
};

}  // namespace runnel::mqtt::detail
