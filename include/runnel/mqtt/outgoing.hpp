#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/capabilities.hpp>
#include <runnel/mqtt/in_flight.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/publish_layout.hpp>
#include <runnel/mqtt/topic_alias.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

namespace runnel::mqtt {

/// Encodes a packet behind what is in the buffer.
template <class Packet>
void append(send_buffer& out, Packet const& packet, protocol_version version) {
    std::size_t const size = encoded_size(packet, version);
    encode(out.prepare(size), packet, version);
    out.commit(size);
}

/// Nearly all acknowledgements have nothing but a packet identifier.
inline void append(send_buffer& out, acknowledgement const& packet, protocol_version version) {
    if (packet.reason != reason_code::success || !packet.props.empty())
        return append<acknowledgement>(out, packet, version);
    char* const to = out.prepare(4);
    write_big_endian(write_fixed_header(to, packet.type, packet.type == packet_type::pubrel ? 2 : 0, 2),
                     packet.packet_id);
    out.commit(4);
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
    /// Messages sent again on a later connection.
    std::uint64_t resent() const noexcept { return resent_; }
    /// Bytes of all packets held.
    std::size_t bytes() const noexcept { return in_flight_.bytes(); }
    /// Exchanges, counted from the oldest on that has not ended.
    std::size_t size() const noexcept { return in_flight_.size(); }
    bool has_identifier() const noexcept { return in_flight_.has_identifier(); }
    /// Whether QoS 0 messages are queued, which newer ones must not overtake [MQTT-4.6.0-5].
    bool holds_at_most_once() const noexcept { return queued_at_most_once_ != 0; }
    /// Whether there is anything that has not been sent on this connection.
    bool holds_unsent() const noexcept { return cursor_ < in_flight_.next() || queued_at_most_once_ != 0; }
    /// The number of the exchange that is begun next, and its packet identifier.
    std::uint64_t next_number() const noexcept { return in_flight_.next(); }
    std::uint16_t next_identifier() const noexcept { return in_flight::identifier_of(in_flight_.next()); }
    entry* find(std::uint16_t identifier) noexcept { return in_flight_.find(identifier); }

    /// The topic aliases of this connection.
    outgoing_aliases& aliases() noexcept { return aliases_; }
    outgoing_aliases const& aliases() const noexcept { return aliases_; }

    /// The time from which message expiry intervals are counted, and to which they are counted down.
    void set_time(std::chrono::milliseconds now) noexcept { now_ = now; }

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
        auto const position = publish_layout(e.bytes()).expiry_position(e.bytes());
        in_flight::expiry_of(e) = {now_ + std::chrono::seconds(*interval), static_cast<std::uint32_t>(position), false};
    }

    /// Sends a QoS 1 or 2 message that has the next packet identifier and no properties, with nothing waiting in front
    /// of it, and keeps it until it is acknowledged.
    [[gnu::always_inline]] void send(send_buffer& out, publish const& message, protocol_version version,
                                     publish_size measured, void* owner) {
        std::size_t const size = packet_size(measured.remaining_length);
        auto const number = in_flight_.begin(size, {.at = stage::queued, .quality = message.qos, .owner = owner});
        auto& e = in_flight_[number];
        encode(e.packet, message, version, measured);
        ++accepted_;
        out.append(e.bytes());
        e.at = stage::sent;
        ++unacknowledged_;
        cursor_ = number + 1;
    }

    /// Sees to it that `next_expiry` tells of this exchange, if it is queued still.
    void note_expiry(std::uint64_t number) noexcept {
        if (number - in_flight_.first() >= in_flight_.next() - in_flight_.first()) return;
        auto const& e = in_flight_[number];
        if (e.at == stage::queued && e.expires) next_expiry_ = std::min(next_expiry_, in_flight::expiry_of(e).at);
    }

    /// What has expired without having been sent ends; its owner is told by `on_refused`. What has been sent is
    /// finished all the same, as it may have arrived.
    template <class Handler>
    void expire(Handler& handler) {
        if (now_ <= next_expiry_) return;
        next_expiry_ = never;
        for_each_exchange([&](in_flight::entry& e) {
            if (e.at != stage::queued || !e.expires) return;
            auto const& expiry = in_flight::expiry_of(e);
            if (expiry.may_have_arrived) return;
            if (now_ <= expiry.at)
                next_expiry_ = std::min(next_expiry_, expiry.at);
            else
                refuse(e, errc::message_expired, handler);
        });
    }

    /// Notes that a request with the next packet identifier, for so many filters, is being sent.
    void begin_request(packet_type type, std::size_t filters, void* owner) {
        auto const number = in_flight_.begin(0, {.at = stage::request, .request = type, .owner = owner});
        in_flight_[number].size = static_cast<std::uint32_t>(filters);
    }

    void disown(std::uint64_t number) noexcept {
        if (number - in_flight_.first() < in_flight_.next() - in_flight_.first()) in_flight_[number].owner = nullptr;
    }

    /// Drops a message that waits to be sent for the first time. False: it is no such message.
    bool withdraw(std::uint64_t number) noexcept {
        if (number - in_flight_.first() >= in_flight_.next() - in_flight_.first()) return false;
        auto& e = in_flight_[number];
        if (e.at != stage::queued) return false;
        if (e.quality == qos::at_most_once) --queued_at_most_once_;
        in_flight_.end(e);
        return true;
    }

    /// Drops the QoS 0 message that has been queued longest. False: there is none.
    bool drop_oldest_at_most_once() noexcept {
        if (queued_at_most_once_ == 0) return false;
        auto n = in_flight_.first();
        while (in_flight_[n].at != stage::queued || in_flight_[n].quality != qos::at_most_once) ++n;
        return withdraw(n);
    }

    /// Sends what is queued, in order [MQTT-4.6.0-1], as far as the window allows: QoS 1 and 2 messages not
    /// acknowledged [MQTT-3.3.4-9]. `peer_maximum` is the largest packet that the peer takes. When `out` has
    /// `unwritten` bytes or more, the rest stays queued.
    void send_queued(send_buffer& out, std::size_t window, std::size_t peer_maximum, std::size_t unwritten,
                     protocol_version version) {
        cursor_ = std::max(cursor_, in_flight_.first());
        for (; cursor_ != in_flight_.next() && out.size() < unwritten; ++cursor_) {
            auto& e = in_flight_[cursor_];
            if (e.at == stage::rerelease) {
                append(out, acknowledgement{packet_type::pubrel, in_flight::identifier_of(cursor_), {}, {}}, version);
                e.at = stage::rereleased;
                ++unacknowledged_;
            } else if (e.at == stage::queued || e.at == stage::resend) {
                if (e.quality != qos::at_most_once && unacknowledged_ >= window) break;
                send_entry(out, e, peer_maximum);
            }
        }
        // QoS 0 is not held up by the receive maximum.
        for (auto n = cursor_; queued_at_most_once_ != 0 && out.size() < unwritten; ++n) {
            auto& e = in_flight_[n];
            if (e.at == stage::queued && e.quality == qos::at_most_once) send_entry(out, e, peer_maximum);
        }
        in_flight_.sweep();
    }

    /// The network connection has gone: what was sent is to be sent again; requests end.
    void connection_lost() noexcept {
        unacknowledged_ = 0;
        aliases_.restart(0);
        using enum in_flight::stage;
        auto const end = in_flight_.next();
        for (auto n = in_flight_.first(); n != end; ++n) {
            auto& e = in_flight_[n];
            if (e.at == sent) e.at = resend;
            if (e.at == released || e.at == rereleased) e.at = rerelease;
            if (e.at == request) e.at = ended;
        }
        in_flight_.sweep();
        cursor_ = in_flight_.first();
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

    /// What the peer does not accept ends; its owner is told by `on_refused`.
    template <class Handler>
    void refuse_unacceptable(capabilities const& peer, Handler& handler) {
        for_each_exchange([&](in_flight::entry& e) {
            if (e.at != stage::queued && e.at != stage::resend) return;
            errc const error = check_publish(peer, e.quality, (e.packet[0] & 1) != 0, e.size);
            if (error != errc::ok) refuse(e, error, handler);
        });
    }

    /// The peer has no session: what was only sent is sent anew; of what was released nobody can tell its fate.
    template <class Handler>
    void send_anew(Handler& handler) {
        for_each_exchange([&](in_flight::entry& e) {
            if (e.at == stage::resend) {
                e.packet[0] = static_cast<char>(e.packet[0] & ~0x08);
                e.at = stage::queued;
            } else if (e.at == stage::rerelease) {
                end(e);
                if (auto* const owner = e.owner) handler.on_lost(owner);
            }
        });
    }

    /// A new session begins: all ends.
    template <class Handler>
    void drop(Handler& handler) {
        queued_at_most_once_ = 0;
        for_each_exchange([&](in_flight::entry& e) {
            if (e.at == stage::ended) return;
            in_flight_.drop_packet(e);
            end(e);
            if (auto* const owner = e.owner) handler.on_lost(owner);
        });
    }

    /// The exchange has been ended by the peer. References to it and to older ones are no longer valid.
    void end_acknowledged(entry& e) noexcept {
        in_flight_.end(e);
        --unacknowledged_;
    }
    void end_request(entry& e) noexcept { in_flight_.end(e); }

    /// PUBREC has come: the peer has the message, so its bytes are not needed any more.
    void release(entry& e) noexcept {
        in_flight_.drop_packet(e);
        if (e.at == stage::sent) e.at = stage::released;
        in_flight_.note(e);
    }

    /// QoS 1 and 2 messages that have been queued, ever.
    std::uint64_t accepted() const noexcept { return accepted_; }

    /// Whether there is anything that a store does not know.
    bool has_changes() const noexcept { return in_flight_.noted() || accepted_ != accepted_stored_; }

    /// Calls `message(number, packet, expires_at)`, `released(number)` or `ended(number)` of `sink` for each exchange
    /// of which the store holds something else.
    template <class Sink>
    void tell_changes(Sink& sink) {
        in_flight_.for_each_change([&](std::uint64_t number, in_flight::entry& e) {
            auto const due = e.due();
            if (due == e.stored) return;
            if (due == in_flight::record::message)
                sink.message(number, e.bytes(), e.expires ? std::optional(in_flight::expiry_of(e).at) : std::nullopt);
            else if (due == in_flight::record::released)
                sink.released(number);
            else
                sink.ended(number);
        });
    }

    /// The store holds all that `tell_changes` has told.
    void changes_stored() noexcept {
        in_flight_.stored();
        accepted_stored_ = accepted_;
    }

    /// Puts back an exchange that is in the store, in ascending order of the numbers: a QoS 1 or 2 message with the
    /// bytes of its packet, or, without any, one of which PUBREC has come.
    void restore(std::uint64_t number, std::string_view packet, std::optional<std::chrono::milliseconds> expires_at) {
        in_flight_.continue_at(number);
        if (packet.empty()) {
            in_flight_.begin(
                0, {.at = stage::rerelease, .quality = qos::exactly_once, .stored = in_flight::record::released});
            return;
        }
        auto const quality = static_cast<qos>(packet[0] >> 1 & 3);
        in_flight_.begin(packet.size(), {.at = stage::resend,
                                         .quality = quality,
                                         .expires = expires_at.has_value(),
                                         .stored = in_flight::record::message});
        auto& e = in_flight_[number];
        std::memcpy(e.packet, packet.data(), packet.size());
        if (!expires_at) return;
        auto const position = publish_layout(e.bytes()).expiry_position(e.bytes());
        in_flight::expiry_of(e) = {*expires_at, static_cast<std::uint32_t>(position), false};
    }

    /// The next exchange is to have this number, and so many messages have been accepted.
    void restore_counts(std::uint64_t next, std::uint64_t accepted) {
        in_flight_.continue_at(next);
        accepted_ = accepted_stored_ = accepted;
        cursor_ = in_flight_.first();
    }

    /// Gives back memory that is kept for reuse.
    void release_idle_memory() noexcept { in_flight_.release_idle_memory(); }

  private:
    static constexpr auto never = std::chrono::milliseconds::max();

    /// Ends a message that is not to be sent (again).
    template <class Handler>
    void refuse(in_flight::entry& e, errc why, Handler& handler) {
        auto* const owner = std::exchange(e.owner, nullptr);
        if (e.at == stage::queued && e.quality == qos::at_most_once) --queued_at_most_once_;
        in_flight_.drop_packet(e);
        // Perhaps the peer has a QoS 2 message already: PUBREL frees its identifier.
        e.at = e.at == stage::resend && e.quality == qos::exactly_once ? stage::rerelease : stage::ended;
        in_flight_.note(e);
        handler.on_refused(owner, why);
    }

    void send_entry(send_buffer& out, in_flight::entry& e, std::size_t peer_maximum) {
        constexpr char dup = 0x08;
        if (e.expires) count_down(e);
        if (e.at == stage::resend) {
            e.packet[0] |= dup;  // [MQTT-3.3.1-1]
            out.append(e.bytes());
            ++resent_;
        } else if (aliases_.maximum() == 0 || !append_aliased(out, e.bytes(), peer_maximum)) {
            out.append(e.bytes());
        }
        if (e.quality == qos::at_most_once) {
            in_flight_.drop_packet(e);
            e.at = stage::ended;  // nobody waits for QoS 0
            --queued_at_most_once_;
            return;
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
        if (!choice.known() && fits) alias = aliases_.assign(parts.topic, choice);
        if (alias == 0) return false;
        append_with_alias(out, packet, parts, alias, choice.known());
        return true;
    }

    /// Writes into the packet how many seconds are left until it expires [MQTT-3.3.2-6]. Not less than 1: there are
    /// peers to whom 0 means never.
    void count_down(in_flight::entry& e) noexcept {
        auto& expiry = in_flight::expiry_of(e);
        expiry.may_have_arrived = true;
        if (expiry.position == 0) return;
        char* const value = e.packet + expiry.position;
        if (read_big_endian<std::uint32_t>(value) == 0) return;
        auto const left = std::chrono::ceil<std::chrono::seconds>(expiry.at - now_).count();
        write_big_endian(value, static_cast<std::uint32_t>(std::max<std::int64_t>(left, 1)));
    }

    void end(in_flight::entry& e) noexcept {
        e.at = stage::ended;
        in_flight_.note(e);
    }

    /// Calls `f` for each exchange that is there now. `f` ends exchanges by their stage.
    template <class F>
    void for_each_exchange(F&& f) {
        auto const end = in_flight_.next();
        // What a handler does may free places.
        for (auto n = in_flight_.first(); n < end; n = std::max(n + 1, in_flight_.first())) f(in_flight_[n]);
        in_flight_.sweep();
    }

    in_flight in_flight_;
    outgoing_aliases aliases_;
    std::chrono::milliseconds now_{0};
    std::chrono::milliseconds next_expiry_ = never;  // or earlier
    std::uint64_t cursor_ = 0;                       // the first exchange that has not been sent on this connection
    std::uint64_t accepted_ = 0;                     // QoS 1 and 2 messages
    std::uint64_t accepted_stored_ = 0;              // of these the store knows
    std::size_t unacknowledged_ = 0;
    std::size_t queued_at_most_once_ = 0;
    std::uint64_t resent_ = 0;
};

}  // namespace runnel::mqtt
