#pragma once

#include <runnel/core/ring_queue.hpp>
#include <runnel/mqtt/identifier_map.hpp>
#include <runnel/mqtt/reason_code.hpp>
#include <runnel/mqtt/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
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
/// Acknowledgements go out in the order in which the messages came [MQTT-4.6.0-2] [MQTT-4.6.0-3], whatever the order in
/// which the application takes them. QoS 2 messages are known by their identifiers until PUBREL, across connections.
class received {
  public:
    struct entry {
        std::uint64_t number;  ///< of the delivery: for a QoS 2 message sent again that of the first time
        std::uint16_t packet_id;
        qos quality;
        bool taken;
        reason_code reason;
    };

    /// A QoS 1 or 2 message has come. `is_new` says whether it is to be handed to the application.
    struct arrival {
        delivery token;
        bool is_new;
    };
    arrival arrive(std::uint16_t packet_id, qos quality) {
        auto number = waiting_.next();
        bool is_new = true;
        if (quality == qos::exactly_once) {
            auto* m = unreleased_.find(packet_id);
            is_new = m == nullptr;
            if (notes_) changed_.reserve(changed_.size() + 2 * (unreleased_.size() + 1));  // so that noting cannot fail
            if (is_new) m = &unreleased_.insert(packet_id, {number, false, false, reason_code::success});
            number = m->number;
            if (!m->seen) ++unfinished_;
            m->seen = true;
        } else {
            ++unfinished_;
        }
        waiting_.push({number, packet_id, quality, false, reason_code::success});
        return {{number, packet_id, quality}, is_new};
    }

    /// The application has taken the message. Whether an acknowledgement can go out now is told by `next_taken`. False:
    /// it has been taken before, or nobody wants its acknowledgement any more.
    bool take(delivery d, reason_code reason) noexcept {
        if (d.quality == qos::exactly_once) {
            auto* const m = unreleased_.find(d.packet_id);
            if (m == nullptr || m->number != d.number || m->taken)
                return false;  // another message has the identifier now
            m->taken = true;
            m->reason = reason;
            if (notes_ && !is_error(reason)) changed_.push_back(d.packet_id);
            return true;
        }
        if (!waiting_.contains(d.number) || waiting_[d.number].taken) return false;
        waiting_[d.number].taken = true;
        waiting_[d.number].reason = reason;
        return true;
    }

    /// The oldest message, if the application has taken it; then `pop` removes it.
    entry const* next_taken() noexcept {
        if (waiting_.empty()) return nullptr;
        entry& e = waiting_.front();
        if (e.quality == qos::exactly_once) {
            auto const* const m = unreleased_.find(e.packet_id);
            bool const known =
                m != nullptr && m->number == e.number;  // else the exchange has ended, nobody will take it
            e.taken = !known || m->taken;
            if (known) e.reason = m->reason;
        }
        return e.taken ? &e : nullptr;
    }

    /// The acknowledgement of the oldest message has been sent.
    void pop() noexcept {
        entry const e = waiting_.front();
        waiting_.pop();
        if (e.quality == qos::at_least_once)
            --unfinished_;
        else if (is_error(e.reason))
            forget(e.packet_id);  // PUBREC with a failure ends the exchange (4.3.3)
    }

    /// What is known of a QoS 2 identifier.
    enum class knowledge : std::uint8_t { unknown, not_taken, taken };
    knowledge knows(std::uint16_t packet_id) noexcept {
        auto const* const m = unreleased_.find(packet_id);
        return m == nullptr ? knowledge::unknown : m->taken ? knowledge::taken : knowledge::not_taken;
    }

    /// PUBREL has come: the identifier is free again.
    void forget(std::uint16_t packet_id) noexcept {
        auto const* const m = unreleased_.find(packet_id);
        if (m == nullptr) return;
        if (m->seen) --unfinished_;
        if (notes_ && m->taken && !is_error(m->reason)) changed_.push_back(packet_id);
        unreleased_.erase(packet_id);
    }

    /// The messages of this connection that count for the receive maximum: those without PUBACK, PUBCOMP, or PUBREC
    /// with a failure (4.9). Never less than those that wait for their first acknowledgement.
    std::size_t unacknowledged() const noexcept { return std::max(unfinished_, waiting_.size()); }

    /// The connection has gone: the peer will send again what was not acknowledged.
    void connection_lost() noexcept {
        waiting_.clear();
        unfinished_ = 0;
        unreleased_.for_each([](std::uint16_t, message& m) { m.seen = false; });
    }

    /// The session has gone.
    void clear() noexcept {
        waiting_.clear();
        unfinished_ = 0;
        if (notes_)
            unreleased_.for_each([&](std::uint16_t packet_id, message const& m) {
                if (m.taken && !is_error(m.reason)) changed_.push_back(packet_id);
            });
        unreleased_.clear();
    }

    /// From now on notes which QoS 2 identifiers become taken, or free again: that is what a store keeps.
    void note_changes() noexcept { notes_ = true; }
    bool has_changes() const noexcept { return !changed_.empty(); }

    /// Calls `taken(packet_id, reason)` or `forgotten(packet_id)` of `sink` for each identifier that has changed since
    /// `changes_stored`.
    template <class Sink>
    void tell_changes(Sink& sink) {
        for (auto const packet_id : changed_) {
            auto const* const m = unreleased_.find(packet_id);
            if (m != nullptr && m->taken && !is_error(m->reason))
                sink.taken(packet_id, m->reason);
            else
                sink.forgotten(packet_id);
        }
    }
    void changes_stored() noexcept { changed_.clear(); }

    /// Puts back the identifier of a message that has been taken.
    void restore(std::uint16_t packet_id, reason_code reason) {
        if (unreleased_.find(packet_id) != nullptr) return;
        unreleased_.insert(packet_id, {no_delivery, true, false, reason});
        changed_.reserve(2 * unreleased_.size());
    }

  private:
    static constexpr auto no_delivery = static_cast<std::uint64_t>(-1);

    // A QoS 2 message between PUBLISH and PUBREL.
    struct message {
        std::uint64_t number;
        bool taken;
        bool seen;  // on this connection
        reason_code reason;
    };

    ring_queue<entry> waiting_;
    identifier_map<message> unreleased_;
    std::vector<std::uint16_t> changed_;  // QoS 2 identifiers
    std::size_t unfinished_ = 0;
    bool notes_ = false;
};

}  // namespace runnel::mqtt
