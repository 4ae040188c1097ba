#pragma once

#include <runnel/core/ring_queue.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/mqtt/identifier_map.hpp>
#include <runnel/mqtt/packet/publish.hpp>
#include <runnel/mqtt/reason_code.hpp>
#include <runnel/mqtt/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// A received message from the side of the protocol: what must be acknowledged once the application has taken it.
/// Small and copyable; acknowledging it twice, or after the connection has gone, does no harm.
struct delivery {
    std::uint64_t number = 0;
    std::uint16_t packet_id = 0;  ///< 0 for QoS 0
    qos quality = qos::at_most_once;
};

/// The incoming QoS 1 and 2 messages of a session that are not fully acknowledged.
///
/// Acknowledgements of messages of one topic and QoS go out in the order in which the messages came, whatever the order
/// in which the application takes them [MQTT-4.6.0-2] [MQTT-4.6.0-3]. One that is not taken holds up no others: the
/// order that section 4.6 is about is that of messages "for the same Topic and QoS" [MQTT-4.6.0-5].
///
/// What is known of a message outlives its connection: a QoS 2 message is known by its identifier until PUBREL, and a
/// QoS 1 message that the server sends again while the application has it (DUP, 4.4) is still that message.
///
/// A message that is on this connection stands, until its acknowledgement may go out, in one of two places:
///
/// | where           | which                              | moves on when |
/// |-----------------|------------------------------------|-------------------------------------------------------------|
/// | `waiting_`      | all, in order of arrival           | it is the oldest and taken: acknowledged | | | | a later
/// one is taken first: to its lane, with all before it | | a lane          | those overtaken, of one topic and  | it is
/// the oldest of its lane and taken: `ready_`            | |                 | QoS, in order of arrival           | |
///
/// So in the usual case there is a queue and no more.
class received {
  public:
    struct entry {
        std::uint64_t number;  ///< of the delivery: for a message sent again that of the first time
        std::uint32_t print;
        std::uint16_t lane;
        std::uint16_t packet_id;
        qos quality;
        bool taken;
        bool known;  ///< `messages_` has its state
        reason_code reason;
    };

    /// A QoS 1 or 2 message has come. `is_new` says whether it is to be handed to the application.
    struct arrival {
        delivery token;
        bool is_new;
        std::uint64_t place;  ///< for `keep`
    };
    arrival arrive(publish const& packet) {
        auto const id = packet.packet_id;
        if (packet.dup) [[unlikely]]
            index();
        if (auto* const m = messages_.empty() ? nullptr : messages_.find(id)) [[unlikely]] {
            if (is_repetition(*m, packet)) return arrive_again(*m, packet);
            remove(id);  // the sender uses the identifier for another message
        }
        bool const tracked = packet.qos == qos::exactly_once;
        bool const alone = waiting_.empty() && lanes_.empty();
        auto const number = waiting_.next();
        if (tracked) {
            if (notes_) changed_.reserve(changed_.size() + 2 * (messages_.size() + 1));  // so that noting cannot fail
            messages_.insert(id, {.number = number, .place = number, .quality = packet.qos, .seen = true});
        }
        auto const its_lane = alone ? no_lane : lane_of(packet);
        waiting_.push({number, 0, its_lane, id, packet.qos, false, tracked, reason_code::success});
        ++unfinished_;
        return {{number, id, packet.qos}, true, number};
    }

    /// The application has not taken the message at once. It is told from others by this.
    void keep(arrival const& a, publish const& packet) {
        if (!waiting_.contains(a.place)) return;
        auto& e = waiting_[a.place];
        if (e.lane == no_lane) e.lane = lane_of(packet);
        e.print = print_of(packet);
        if (!indexes_ || e.known) return;
        indexes_ = waiting_.size() > 1;
        if (indexes_) learn(e, a.place);
    }

    /// The application has taken the message. Whether an acknowledgement can go out now is told by `next_taken`. False:
    /// it has been taken before, or nobody wants its acknowledgement any more.
    bool take(delivery d, reason_code reason) {
        if (d.quality == qos::at_least_once && waiting_.contains(d.number)) {
            auto& e = waiting_[d.number];
            if (e.number == d.number && !e.known) {
                if (e.taken) return false;
                e.taken = true;
                e.reason = reason;
                if (d.number != waiting_.first()) [[unlikely]]
                    pass(d.number);
                return true;
            }
        }
        auto* const m = find(d);
        if (m == nullptr || m->taken) return false;
        m->taken = true;
        m->given_back = false;
        m->reason = reason;
        if (notes_ && m->quality == qos::exactly_once && !is_error(reason)) changed_.push_back(d.packet_id);
        if (m->place == in_lane) [[unlikely]]
            advance(m->lane);
        else if (m->place != nowhere && m->place != waiting_.first()) [[unlikely]]
            pass(m->place);
        return true;
    }

    /// The application gives the message back: it is not acknowledged on this connection, and new when it is sent
    /// again. `packet`, if there is one, is the message, as for `keep`.
    [[gnu::cold]] void give_back(delivery d, publish const* packet = nullptr) {
        if (d.quality == qos::at_least_once && waiting_.contains(d.number)) {
            auto& e = waiting_[d.number];
            if (e.number == d.number && !e.known && !e.taken) {
                if (packet != nullptr) keep({d, true, d.number}, *packet);
                if (!learn(e, d.number)) return;
            }
        }
        if (auto* const m = find(d); m != nullptr && !m->taken) m->given_back = true;
    }

    /// The next message whose acknowledgement may go out; then `pop` removes it.
    entry const* next_taken() {
        if (!ready_.empty()) [[unlikely]]
            if (auto const* const e = next_ready()) return e;
        while (!waiting_.empty()) {
            entry& e = waiting_.front();
            if (e.known) {
                auto const* const m = messages_.find(e.packet_id);
                // Else the exchange has ended, nobody will take it.
                bool const known = m != nullptr && m->number == e.number;
                if (!known && e.quality == qos::at_least_once) {
                    waiting_.pop();
                    continue;
                }
                e.taken = !known || m->taken;
                if (known) e.reason = m->reason;
            }
            if (!e.taken) return nullptr;
            if (lanes_.empty() || lanes_.find(e.lane) == nullptr) return &e;
            pass(waiting_.first());  // an older one of its topic has not been taken
        }
        return nullptr;
    }

    /// The acknowledgement of that message has been sent.
    void pop() noexcept {
        bool const is_ready = !ready_.empty();
        entry const e = is_ready ? answered_ : waiting_.front();
        if (is_ready) [[unlikely]] {
            ready_.pop();
            --overtaken_;
        } else {
            waiting_.pop();
        }
        if (e.quality == qos::at_least_once) {
            --unfinished_;
            if (e.known) messages_.erase(e.packet_id);
        } else if (is_error(e.reason)) {
            forget(e.packet_id);  // PUBREC with a failure ends the exchange (4.3.3)
        } else if (auto* const m = messages_.find(e.packet_id)) {
            m->place = nowhere;
        }
    }

    /// What is known of a QoS 2 identifier.
    enum class knowledge : std::uint8_t { unknown, not_taken, taken };
    knowledge knows(std::uint16_t packet_id) noexcept {
        auto const* const m = messages_.find(packet_id);
        if (m == nullptr || m->quality != qos::exactly_once) return knowledge::unknown;
        return m->taken ? knowledge::taken : knowledge::not_taken;
    }

    /// PUBREL has come: the identifier is free again.
    void forget(std::uint16_t packet_id) noexcept {
        auto const* const m = messages_.find(packet_id);
        if (m == nullptr || m->quality != qos::exactly_once) return;
        if (m->seen) --unfinished_;
        if (notes_ && m->taken && !is_error(m->reason)) changed_.push_back(packet_id);
        if (m->place == in_lane) [[unlikely]]
            leave_lane(packet_id, *m);
        messages_.erase(packet_id);
    }

    /// The messages of this connection that count for the receive maximum: those without PUBACK, PUBCOMP, or PUBREC
    /// with a failure (4.9). Never less than those that wait for their first acknowledgement.
    std::size_t unacknowledged() const noexcept { return std::max(unfinished_, waiting()); }
    /// Those that wait for their first acknowledgement: the application has them, or they for their turn.
    std::size_t waiting() const noexcept { return waiting_.size() + overtaken_; }

    /// The connection has gone: the peer will send again what was not acknowledged.
    void connection_lost() noexcept {
        try {
            for (; !waiting_.empty(); waiting_.pop())
                if (auto& e = waiting_.front(); !e.known) learn(e, nowhere);
        } catch (...) {  // no memory: the messages count as new when they are sent again
            waiting_.clear();
        }
        lanes_.clear();
        ready_.clear();
        overtaken_ = unfinished_ = 0;
        indexes_ = false;
        // A QoS 1 message that the application is done with, and that has not been sent again where others were, will
        // not be any more.
        if (std::exchange(lost_at_, waiting_.next()) != waiting_.next())
            messages_.erase_if([](std::uint16_t, message const& m) {
                return m.quality == qos::at_least_once && !m.seen && (m.taken || m.given_back);
            });
        messages_.for_each([](std::uint16_t, message& m) {
            m.seen = false;
            m.place = nowhere;
        });
    }

    /// The session has gone.
    void clear() noexcept {
        waiting_.clear();
        lanes_.clear();
        ready_.clear();
        overtaken_ = unfinished_ = 0;
        indexes_ = false;
        if (notes_)
            messages_.for_each([&](std::uint16_t packet_id, message const& m) {
                if (m.is_stored()) changed_.push_back(packet_id);
            });
        messages_.clear();
    }

    /// From now on notes which QoS 2 identifiers become taken, or free again: that is what a store keeps.
    void note_changes() noexcept { notes_ = true; }
    bool has_changes() const noexcept { return !changed_.empty(); }

    /// Calls `taken(packet_id, reason)` or `forgotten(packet_id)` of `sink` for each identifier that has changed since
    /// `changes_stored`.
    template <class Sink>
    void tell_changes(Sink& sink) {
        for (auto const packet_id : changed_) {
            auto const* const m = messages_.find(packet_id);
            if (m != nullptr && m->is_stored())
                sink.taken(packet_id, m->reason);
            else
                sink.forgotten(packet_id);
        }
    }
    void changes_stored() noexcept { changed_.clear(); }

    /// Puts back the identifier of a message that has been taken.
    void restore(std::uint16_t packet_id, reason_code reason) {
        if (messages_.find(packet_id) != nullptr) return;
        messages_.insert(packet_id,
                         {.number = no_delivery, .quality = qos::exactly_once, .reason = reason, .taken = true});
        changed_.reserve(2 * messages_.size());
    }

  private:
    static constexpr auto no_delivery = static_cast<std::uint64_t>(-1);
    static constexpr auto nowhere = static_cast<std::uint64_t>(-1);  // no acknowledgement is due on this connection
    static constexpr std::uint16_t no_lane = 0;
    static constexpr auto in_lane = static_cast<std::uint64_t>(-2);

    // A QoS 2 message between PUBLISH and PUBREL; a QoS 1 message that has been overtaken, sent again or given back, or
    // whose connection has gone.
    struct message {
        std::uint64_t number;
        std::uint64_t place = nowhere;  // in `waiting_`
        std::uint32_t print = 0;
        std::uint16_t lane = 0;
        std::uint16_t next = 0;  // the identifier of the next one in the lane; 0: none
        qos quality;
        reason_code reason = reason_code::success;
        bool taken = false;
        bool seen = false;        // on this connection
        bool given_back = false;  // the application wants it again

        bool is_stored() const noexcept { return quality == qos::exactly_once && taken && !is_error(reason); }
    };
    struct lane {
        std::uint16_t oldest;
        std::uint16_t newest;
    };

    static std::uint64_t mix(std::uint64_t h, std::string_view bytes) noexcept {
        auto const add = [&h](std::uint64_t word) {
            h = (h ^ word) * 0xD6E8'FEB8'6659'FD93u;
            h ^= h >> 32;
        };
        std::size_t i = 0;
        for (; bytes.size() - i > 8; i += 8) add(load_word(bytes.data() + i, 8));
        add(load_word(bytes.data() + i, bytes.size() - i));
        return h;
    }
    // Two topics that share a lane only wait for each other.
    static std::uint16_t lane_of(publish const& p) noexcept {
        auto const hash = mix(p.topic.size(), p.topic);
        return static_cast<std::uint16_t>((hash & 0xFFFCu) | 2u | (p.qos == qos::exactly_once ? 1u : 0u));
    }
    // Tells the message from another one to which the sender has given the same identifier.
    static std::uint32_t print_of(publish const& p) noexcept {
        auto const n = std::min<std::size_t>(p.payload.size(), 8);
        auto const end = p.payload.substr(p.payload.size() - n);
        return static_cast<std::uint32_t>(mix(mix(p.payload.size(), end), p.topic));
    }
    static bool is_repetition(message const& m, publish const& p) noexcept {
        if (m.quality != p.qos) return false;
        return p.qos == qos::exactly_once || (p.dup && m.print == print_of(p));
    }

    // One acknowledgement answers all repetitions that came before it.
    [[gnu::noinline]] arrival arrive_again(message& m, publish const& packet) {
        bool const is_new = std::exchange(m.given_back, false);
        if (!m.seen) ++unfinished_;
        m.seen = true;
        if (m.place == nowhere)
            m.place = waiting_.push(
                {m.number, 0, lane_of(packet), packet.packet_id, packet.qos, false, true, reason_code::success});
        return {{m.number, packet.packet_id, packet.qos}, is_new, m.place};
    }

    message* find(delivery d) noexcept {
        auto* const m = messages_.find(d.packet_id);
        return m != nullptr && m->number == d.number && m->quality == d.quality ? m : nullptr;
    }

    // The messages that wait can be found by their identifiers from now on, until none waits.
    [[gnu::noinline]] [[gnu::cold]] void index() {
        for (auto n = waiting_.first(); !indexes_ && n != waiting_.next(); ++n)
            if (!waiting_[n].known) learn(waiting_[n], n);
        indexes_ = !waiting_.empty();
    }

    // Enters a QoS 1 message of `waiting_` in `messages_`. False: the sender has used the identifier twice.
    [[gnu::noinline]] bool learn(entry& e, std::uint64_t place) {
        if (messages_.find(e.packet_id) != nullptr) return false;
        messages_.insert(e.packet_id, {.number = e.number,
                                       .place = place,
                                       .print = e.print,
                                       .lane = e.lane,
                                       .quality = e.quality,
                                       .reason = e.reason,
                                       .taken = e.taken,
                                       .seen = true});
        e.known = true;
        return true;
    }

    // The messages up to this one of `waiting_` go to their lanes, and it is acknowledged if it is the oldest there.
    [[gnu::noinline]] [[gnu::cold]] void pass(std::uint64_t last) {
        while (waiting_.first() <= last) {
            auto& e = waiting_.front();
            bool const added = e.known || learn(e, waiting_.first());
            auto* const m = messages_.find(e.packet_id);
            if (added && m != nullptr && m->number == e.number) {
                m->lane = e.lane == no_lane ? std::uint16_t{2} : e.lane;
                enter_lane(e.packet_id, *m);
            }
            waiting_.pop();
        }
    }

    void enter_lane(std::uint16_t id, message& m) {
        if (auto* const l = lanes_.find(m.lane)) {
            messages_.find(std::exchange(l->newest, id))->next = id;
        } else {
            lanes_.insert(m.lane, {id, id});
        }
        m.next = 0;
        m.place = in_lane;
        ++overtaken_;
        advance(m.lane);
    }

    // The oldest of a lane may be acknowledged as far as they are taken.
    void advance(std::uint16_t of) {
        auto* const l = lanes_.find(of);
        while (l != nullptr) {
            auto const id = l->oldest;
            auto& m = *messages_.find(id);
            if (!m.taken) return;
            ready_.push(id);
            l->oldest = m.next;
            if (m.next == 0) return lanes_.erase(of);
        }
    }

    [[gnu::cold]] void leave_lane(std::uint16_t id, message const& m) noexcept {
        --overtaken_;
        auto* const l = lanes_.find(m.lane);
        std::uint16_t before = 0;
        auto at = l == nullptr ? std::uint16_t{0} : l->oldest;
        while (at != 0 && at != id) at = messages_.find(std::exchange(before, at))->next;
        if (at == 0) {  // in `ready_`
            ++overtaken_;
            return;
        }
        if (before != 0) messages_.find(before)->next = m.next;
        if (l->oldest == id) l->oldest = m.next;
        if (l->newest == id) l->newest = before;
        if (l->oldest == 0) lanes_.erase(m.lane);
    }

    [[gnu::noinline]] [[gnu::cold]] entry const* next_ready() noexcept {
        for (; !ready_.empty(); ready_.pop(), --overtaken_) {
            auto const id = ready_.front();
            auto const* const m = messages_.find(id);
            if (m == nullptr || m->place != in_lane) continue;  // the exchange has ended
            answered_ = {m->number, m->print, m->lane, id, m->quality, true, true, m->reason};
            return &answered_;
        }
        return nullptr;
    }

    // The identifier has been given to another message.
    [[gnu::cold]] void remove(std::uint16_t id) noexcept {
        auto const* const m = messages_.find(id);
        if (m->quality == qos::exactly_once) return forget(id);
        if (m->seen) --unfinished_;
        if (m->place == in_lane) leave_lane(id, *m);
        messages_.erase(id);
    }

    ring_queue<entry> waiting_;
    identifier_map<message> messages_;
    identifier_map<lane> lanes_;
    ring_queue<std::uint16_t> ready_;     // identifiers of lanes' messages that may be acknowledged
    entry answered_{};                    // the oldest of them
    std::vector<std::uint16_t> changed_;  // QoS 2 identifiers
    std::size_t unfinished_ = 0;
    std::size_t overtaken_ = 0;  // in lanes and `ready_`
    std::uint64_t lost_at_ = 0;  // the number that came next when a connection was lost
    bool notes_ = false;
    bool indexes_ = false;  // QoS 1 messages of `waiting_` are in `messages_`
};

}  // namespace runnel::mqtt
