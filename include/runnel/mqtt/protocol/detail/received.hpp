#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/make_room.hpp>
#include <runnel/core/ring_queue.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/packet/publish.hpp>
#include <runnel/mqtt/protocol/delivery.hpp>
#include <runnel/mqtt/protocol/detail/identifier_map.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt::detail {

/// The incoming QoS 1 and 2 messages of a session that are not fully acknowledged.
///
/// Acknowledgements of messages of one QoS go out in the order in which the messages came, whatever the order in which
/// the application takes them [MQTT-4.6.0-2] [MQTT-4.6.0-3]. But one that is not taken holds up only those of its lane:
/// the order that section 4.6 is about is that of messages "for the same Topic and QoS" [MQTT-4.6.0-5], and the
/// application may put into different lanes what is of different topics, as for readers that go on by themselves.
///
/// What is known of a message outlives its connection: a QoS 2 message is known by its identifier until PUBREL, and a
/// QoS 1 message that the server sends again while the application has it (DUP, 4.4) is still that message.
///
/// Until its acknowledgement may go out, a message of this connection stands in one of these places:
///
/// | where      | which, in order of arrival      | moves on when                                          |
/// |------------|---------------------------------|--------------------------------------------------------|
/// | `waiting_` | all, to begin with              | it is the oldest and taken: acknowledged;              |
/// |            |                                 | a later one is taken: to its lane, with all before it  |
/// | a lane     | those overtaken of one lane     | it is the oldest of the lane and taken: to `ready`     |
/// | `ready`    | those that may be acknowledged  | it is the oldest: acknowledged                         |
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

    /// A QoS 1 or 2 message has come. `is_new` says whether it is to be handed to the application. If `lane_unknown`,
    /// it was taken before a restart, and its lane has not been stored: `place_restored` is to be called.
    struct arrival {
        delivery token{};
        bool is_new = false;
        bool lane_unknown = false;
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
        auto const number = waiting_.next();
        waiting_.make_room();  // what can fail comes first
        if (tracked) {
            if (notes_) make_room(changed_, 2 * (messages_.size() + 1));  // so that noting cannot fail
            messages_.insert(id, {.number = number, .place = number, .quality = packet.qos, .seen = true});
        }
        waiting_.place({number, 0, 0, id, packet.qos, false, tracked, reason_code::success});
        ++unfinished_;
        return {{number, id, packet.qos}, true};
    }

    /// The application has not taken the message at once. It is told from others by this.
    RUNNEL_ALWAYS_INLINE void keep(delivery d, publish const& packet) {
        if (!waiting_.contains(d.number)) return;
        auto& e = waiting_[d.number];
        if (d.quality == qos::at_least_once) e.print = print_of(packet);  // a QoS 2 message is known by its identifier
        if (indexes_) [[unlikely]]
            index_too(e, d);
    }

    /// Puts a message that has just come into a lane, or, behind those there, one that has waited in another; all are
    /// in lane 0 else. Messages of one topic belong together.
    void assign(delivery d, std::uint16_t lane) {
        auto place = d.number;
        if (!waiting_.contains(place)) [[unlikely]] {
            auto* const m = find(d);
            if (m == nullptr) return;
            if (m->place == in_lane) return change_lane(d.packet_id, *m, lane);
            m->lane = lane;
            place = m->place;
        }
        if (waiting_.contains(place) && waiting_[place].number == d.number) waiting_[place].lane = lane;
    }

    /// A message taken before a restart has come again, behind older ones of its lane, perhaps, that have not been
    /// taken.
    RUNNEL_COLD RUNNEL_NOINLINE void place_restored(delivery d, std::uint16_t lane) {
        auto* const m = find(d);
        if (m == nullptr || m->place != nowhere) return;
        m->lane = lane;
        wait_again(*m, d.packet_id);
    }

    /// The application has taken the message. Whether an acknowledgement can go out now is told by `next_taken`. False:
    /// it has been taken before, or nobody wants its acknowledgement any more.
    RUNNEL_ALWAYS_INLINE bool take(delivery d, reason_code reason) {
        if (d.quality == qos::at_least_once && waiting_.contains(d.number)) {
            auto& e = waiting_[d.number];
            if (e.number == d.number && !e.known) [[likely]] {
                if (e.taken) return false;
                e.taken = true;
                e.reason = reason;
                if (d.number != waiting_.first()) [[unlikely]]
                    pass(d.number);
                return true;
            }
        }
        return take_known(d, reason);
    }

    /// The application gives the message back: it is not acknowledged on this connection, and new when it is sent
    /// again. `packet`, if there is one, is the message, as for `keep`. If there is no memory to know it by, it is
    /// forgotten: it is new all the same.
    RUNNEL_COLD void give_back(delivery d, publish const* packet = nullptr) noexcept {
        if (d.quality == qos::at_least_once && waiting_.contains(d.number)) {
            auto& e = waiting_[d.number];
            RUNNEL_TRY {
                if (e.number == d.number && !e.known && !e.taken && !learn(e, d.number)) return;
            }
            RUNNEL_CATCH_ALL { e.known = true; }
        }
        auto* const m = find(d);
        if (m == nullptr || m->taken || m->given_back) return;
        if (packet != nullptr) m->print = print_of(*packet);  // the connection has gone before
        m->given_back = true;
        if (m->place != nowhere) ++given_back_;
    }
    /// Messages of this connection that have been given back.
    std::size_t given_back() const noexcept { return given_back_; }
    /// Whether some have, and all that wait for their first acknowledgement have been too, or have been taken and wait
    /// for such: the application does nothing more about any of them.
    RUNNEL_COLD bool holds_only_given_back() noexcept {
        bool all = given_back_ != 0;
        for (auto n = waiting_.first(); all && n != waiting_.next(); ++n) all = waiting_[n].known || waiting_[n].taken;
        messages_.for_each(
            [&](std::uint16_t, message const& m) { all = all && (m.place == nowhere || m.taken || m.given_back); });
        return all;
    }
    /// How many have come so far.
    std::uint64_t arrived() const noexcept { return waiting_.next(); }

    /// The next message whose acknowledgement may go out; then `pop` removes it.
    entry const* next_taken() {
        if (overtaken_ != 0) [[unlikely]]
            return next_among_lanes();
        return oldest_if_taken();
    }

    /// The acknowledgement of that message has been sent.
    void pop() noexcept {
        if (overtaken_ != 0 && lanes_->is_next) [[unlikely]]
            return pop_ready();
        auto const& e = waiting_.front();
        waiting_.pop();
        if (e.known)
            answered(e);
        else
            --unfinished_;
    }

    /// What is known of a QoS 2 identifier. `not_taken`: its message has come on this connection, and PUBREC is owed.
    /// PUBREC may have gone, or will not go any more, for one that came on an earlier connection only.
    enum class knowledge : std::uint8_t { unknown, not_taken, taken };
    knowledge knows(std::uint16_t packet_id) noexcept {
        auto const* const m = messages_.find(packet_id);
        if (m == nullptr || m->quality != qos::exactly_once) return knowledge::unknown;
        return m->taken || !m->seen ? knowledge::taken : knowledge::not_taken;
    }

    /// PUBREL has come: the identifier is free again.
    void forget(std::uint16_t packet_id) {
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
    std::size_t unacknowledged() const noexcept { return std::max<std::size_t>(unfinished_, waiting()); }
    /// Those that wait for their first acknowledgement: the application has them, or they for their turn.
    std::size_t waiting() const noexcept { return waiting_.size() + overtaken_; }

    /// The connection has gone: the peer will send again what was not acknowledged.
    RUNNEL_COLD void connection_lost() noexcept {
        RUNNEL_TRY {
            for (; !waiting_.empty(); waiting_.pop()) {
                auto& e = waiting_.front();
                auto* const m = e.known ? messages_.find(e.packet_id) : nullptr;
                if (!e.known)
                    learn(e, nowhere);
                else if (m != nullptr && m->number == e.number)
                    m->lane = e.lane;
            }
        }
        RUNNEL_CATCH_ALL {  // no memory: the messages count as new when they are sent again
            waiting_.clear();
        }
        lanes_.reset();
        overtaken_ = unfinished_ = given_back_ = 0;
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
    RUNNEL_COLD void clear() noexcept {
        waiting_.clear();
        lanes_.reset();
        overtaken_ = unfinished_ = given_back_ = 0;
        indexes_ = false;
        if (notes_)
            messages_.for_each([&](std::uint16_t packet_id, message const& m) {
                if (m.is_stored()) changed_.push_back(packet_id);
            });
        messages_.clear();
    }

    /// The peer's session may be another one than that of the QoS 2 messages known: what comes with one of their
    /// identifiers for the first time (DUP 0) is another message, and no repetition, until one has come (DUP 1)
    /// [MQTT-3.3.1-1].
    RUNNEL_COLD void doubt() noexcept {
        messages_.for_each([](std::uint16_t, message& m) { m.is_doubtful = m.quality == qos::exactly_once; });
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

    /// Puts back the identifier of a message that has been taken. The process that had it may have ended before it
    /// heard that the peer's session is another one: see `doubt`.
    void restore(std::uint16_t packet_id, reason_code reason) {
        if (messages_.find(packet_id) != nullptr) return;
        messages_.insert(packet_id, {.number = no_delivery,
                                     .quality = qos::exactly_once,
                                     .reason = reason,
                                     .taken = true,
                                     .is_doubtful = true});
        make_room(changed_, 2 * messages_.size());
    }

  private:
    static constexpr auto no_delivery = static_cast<std::uint64_t>(-1);
    static constexpr auto nowhere = static_cast<std::uint64_t>(-1);  // no acknowledgement is due on this connection
    static constexpr auto in_lane = static_cast<std::uint64_t>(-2);

    // A QoS 2 message between PUBLISH and PUBREL; a QoS 1 message that has been overtaken, sent again or given back, or
    // whose connection has gone.
    struct message {
        std::uint64_t number = 0;
        std::uint64_t place = nowhere;  // in `waiting_`
        std::uint32_t print = 0;
        std::uint16_t lane = 0;
        std::uint16_t next = 0;  // the identifier of the next one in the lane; 0: none
        qos quality{};
        reason_code reason = reason_code::success;
        bool taken = false;
        bool seen = false;        // on this connection
        bool given_back = false;  // the application wants it again
        bool is_doubtful = false;

        bool is_stored() const noexcept { return quality == qos::exactly_once && taken && !is_error(reason); }
    };
    struct ends_of_lane {
        std::uint16_t oldest;
        std::uint16_t newest;
    };

    // Tells a QoS 1 message from another one to which the sender has given the same identifier.
    static std::uint32_t print_of(publish const& p) noexcept {
        auto const size = p.payload.size();
        auto const end_of = [](std::string_view text) {
            std::size_t const n = std::min<std::size_t>(text.size(), 8);
            return load_word(text.data() + text.size() - n, n);
        };
        auto const ends = end_of(p.payload) * 0x9E37'79B9'7F4A'7C15u + end_of(p.topic) * 0xD6E8'FEB8'6659'FD93u;
        auto const print = ends + (std::uint64_t{size} << 24) + p.topic.size();
        return static_cast<std::uint32_t>(print ^ print >> 32);
    }
    static bool is_repetition(message const& m, publish const& p) noexcept {
        if (m.quality != p.qos) return false;
        if (p.qos == qos::exactly_once) return !m.is_doubtful || p.dup;
        return p.dup && m.print == print_of(p);
    }

    // One acknowledgement answers all repetitions that came before it.
    RUNNEL_NOINLINE RUNNEL_COLD arrival arrive_again(message& m, publish const& packet) {
        bool const is_new = std::exchange(m.given_back, false);
        if (is_new && m.place != nowhere) --given_back_;
        if (!m.seen) ++unfinished_;
        m.seen = true;
        m.is_doubtful = false;
        arrival result{{m.number, packet.packet_id, packet.qos}, is_new};
        if (m.place != nowhere) return result;
        result.lane_unknown = m.number == no_delivery;
        if (!result.lane_unknown) wait_again(m, packet.packet_id);
        return result;
    }
    RUNNEL_NOINLINE RUNNEL_COLD void wait_again(message& m, std::uint16_t id) {
        m.place = waiting_.push({m.number, m.print, m.lane, id, m.quality, false, true, reason_code::success});
        // Those that wait may be in lanes, where it is to stand behind them.
        if (m.taken && (m.place != waiting_.first() || overtaken_ != 0)) pass(m.place);
    }

    message* find(delivery d) noexcept {
        auto* const m = messages_.find(d.packet_id);
        return m != nullptr && m->number == d.number && m->quality == d.quality ? m : nullptr;
    }

    // The messages that wait can be found by their identifiers from now on, until none waits.
    RUNNEL_NOINLINE RUNNEL_COLD void index() {
        for (auto n = waiting_.first(); !indexes_ && n != waiting_.next(); ++n)
            if (!waiting_[n].known) learn(waiting_[n], n);
        indexes_ = !waiting_.empty();
    }

    RUNNEL_NOINLINE bool take_known(delivery d, reason_code reason) {
        auto* const m = find(d);
        if (m == nullptr || m->taken) return false;
        m->taken = true;
        if (std::exchange(m->given_back, false) && m->place != nowhere) --given_back_;
        m->reason = reason;
        if (notes_ && m->quality == qos::exactly_once && !is_error(reason)) changed_.push_back(d.packet_id);
        if (m->place == in_lane) [[unlikely]]
            advance(key_of(m->lane, m->quality));
        else if (m->place != nowhere && m->place != waiting_.first()) [[unlikely]]
            pass(m->place);
        return true;
    }

    RUNNEL_NOINLINE RUNNEL_COLD void index_too(entry& e, delivery d) {
        if (e.known || e.number != d.number) return;
        indexes_ = waiting_.size() > 1;
        if (indexes_) learn(e, d.number);
    }

    // The acknowledgement of a message that `messages_` knows has been sent.
    RUNNEL_NOINLINE void answered(entry const& e) noexcept {
        auto* const m = messages_.find(e.packet_id);
        if (m == nullptr || m->number != e.number) return;
        if (e.quality == qos::at_least_once) {
            --unfinished_;
            messages_.erase(e.packet_id);
        } else if (is_error(e.reason)) {
            m->place = nowhere;
            forget(e.packet_id);  // PUBREC with a failure ends the exchange (4.3.3)
        } else {
            m->place = nowhere;
            m->lane = e.lane;
        }
    }
    RUNNEL_NOINLINE RUNNEL_COLD void pop_ready() noexcept {
        lanes_->ready.pop();
        --overtaken_;
        answered(lanes_->oldest);
    }

    // Enters a QoS 1 message of `waiting_` in `messages_`. False: the sender has used the identifier twice.
    RUNNEL_NOINLINE bool learn(entry& e, std::uint64_t place) {
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
    RUNNEL_NOINLINE RUNNEL_COLD void pass(std::uint64_t last) {
        if (!lanes_) lanes_ = std::make_unique<lanes>();
        while (waiting_.first() <= last) {
            auto& e = waiting_.front();
            bool const added = e.known || learn(e, waiting_.first());
            auto* const m = messages_.find(e.packet_id);
            if (added && m != nullptr && m->number == e.number) {
                m->lane = e.lane;
                enter_lane(e.packet_id, *m);
            }
            if (!added) --unfinished_;
            waiting_.pop();
        }
    }

    // The key of a lane; not 0.
    static std::uint16_t key_of(std::uint16_t lane, qos quality) noexcept {
        return static_cast<std::uint16_t>(lane << 2 | 2 | (quality == qos::exactly_once ? 1 : 0));
    }

    RUNNEL_COLD void enter_lane(std::uint16_t id, message& m) {
        auto const key = key_of(m.lane, m.quality);
        if (auto* const l = lanes_->all.find(key)) {
            messages_.find(std::exchange(l->newest, id))->next = id;
        } else {
            lanes_->all.insert(key, {id, id});
        }
        m.next = 0;
        m.place = in_lane;
        ++overtaken_;
        advance(key);
    }

    RUNNEL_NOINLINE RUNNEL_COLD void change_lane(std::uint16_t id, message& m, std::uint16_t lane) {
        if (m.lane == lane || m.taken) return;
        // Nobody else says so of those behind it that were taken before a restart: they go with it.
        auto last = id;
        auto* newest = &m;
        for (; newest->next != 0; --overtaken_) {
            auto* const next = messages_.find(newest->next);
            if (next->number != no_delivery) break;
            last = std::exchange(newest, next)->next;
        }
        leave_lane(id, last, *newest);
        for (auto each = id; each != 0;) {
            auto& moved = *messages_.find(each);
            auto const next = each != last ? moved.next : std::uint16_t{0};
            moved.lane = lane;
            enter_lane(std::exchange(each, next), moved);
        }
    }

    entry const* oldest_if_taken() noexcept {
        while (!waiting_.empty()) {
            entry& e = waiting_.front();
            if (!e.known) return e.taken ? &e : nullptr;
            auto const* const m = messages_.find(e.packet_id);
            bool const known = m != nullptr && m->number == e.number;
            if (known) e.reason = m->reason;
            if (known) return m->taken ? &e : nullptr;
            // Else the exchange has ended, and nobody will take the message.
            if (e.quality == qos::exactly_once && m == nullptr) return &e;
            waiting_.pop();
        }
        return nullptr;
    }
    RUNNEL_NOINLINE RUNNEL_COLD entry const* next_among_lanes() {
        lanes_->is_next = false;
        for (;;) {
            if (auto const* const e = next_ready()) return e;
            auto const* const e = oldest_if_taken();
            if (e == nullptr || lanes_->all.find(key_of(e->lane, e->quality)) == nullptr) return e;
            pass(waiting_.first());  // an older one of its lane has not been taken
        }
    }

    // The oldest of a lane may be acknowledged as far as they are taken.
    RUNNEL_COLD void advance(std::uint16_t of) {
        auto* const l = lanes_->all.find(of);
        while (l != nullptr) {
            auto const id = l->oldest;
            auto& m = *messages_.find(id);
            if (!m.taken) return;
            lanes_->ready.push(id);
            l->oldest = m.next;
            if (m.next == 0) return lanes_->all.erase(of);
        }
    }

    RUNNEL_COLD void leave_lane(std::uint16_t id, message const& m) { leave_lane(id, id, m); }
    // The same for those from `oldest` to `last`, which is `newest`. Of several, the oldest has not been taken.
    RUNNEL_COLD void leave_lane(std::uint16_t oldest, std::uint16_t last, message const& newest) {
        --overtaken_;
        auto const key = key_of(newest.lane, newest.quality);
        auto* const l = lanes_->all.find(key);
        std::uint16_t before = 0;
        auto at = l == nullptr ? std::uint16_t{0} : l->oldest;
        while (at != 0 && at != oldest) before = std::exchange(at, messages_.find(at)->next);
        if (at == 0) return leave_ready(oldest);
        if (before != 0) messages_.find(before)->next = newest.next;
        if (l->oldest == oldest) l->oldest = newest.next;
        if (l->newest == last) l->newest = before;
        if (l->oldest == 0) lanes_->all.erase(key);
        advance(key);  // it may have held up others
    }

    // The identifier may come back, for a message that nobody has taken.
    RUNNEL_COLD void leave_ready(std::uint16_t id) noexcept {
        for (auto n = lanes_->ready.first(); n != lanes_->ready.next(); ++n)
            if (lanes_->ready[n] == id) lanes_->ready[n] = 0;
        ++overtaken_;  // until the place in `ready` goes
    }

    RUNNEL_NOINLINE RUNNEL_COLD entry const* next_ready() noexcept {
        for (; !lanes_->ready.empty(); lanes_->ready.pop(), --overtaken_) {
            auto const id = lanes_->ready.front();
            if (id == 0) continue;  // the exchange has ended
            auto const& m = *messages_.find(id);
            lanes_->is_next = true;
            lanes_->oldest = {m.number, m.print, m.lane, id, m.quality, true, true, m.reason};
            return &lanes_->oldest;
        }
        return nullptr;
    }

    // The identifier has been given to another message.
    RUNNEL_COLD void remove(std::uint16_t id) {
        auto const m = *messages_.find(id);
        if (m.given_back && m.place != nowhere) --given_back_;
        if (m.quality == qos::exactly_once) {
            forget(id);
        } else {
            if (m.seen) --unfinished_;
            if (m.place == in_lane) leave_lane(id, m);
            messages_.erase(id);
        }
    }

    // Those who have been overtaken.
    struct lanes {
        identifier_map<ends_of_lane> all{};
        ring_queue<std::uint16_t> ready{};  // identifiers of those that may be acknowledged; 0: gone
        entry oldest{};                     // of `ready`
        bool is_next = false;               // what `next_taken` has returned is `oldest`
    };

    ring_queue<entry> waiting_{};
    identifier_map<message> messages_{};
    std::unique_ptr<lanes> lanes_{};        // nullptr as long as `overtaken_` has been 0
    std::vector<std::uint16_t> changed_{};  // QoS 2 identifiers
    std::uint64_t lost_at_ = 0;             // the number that came next when a connection was lost
    std::uint32_t unfinished_ = 0;
    std::uint32_t overtaken_ = 0;  // in lanes and `ready`
    std::uint32_t given_back_ = 0;
    bool notes_ = false;
    bool indexes_ = false;  // QoS 1 messages of `waiting_` are in `messages_`
};

}  // namespace runnel::mqtt::detail
