#pragma once

#include <runnel/core/ring_queue.hpp>
#include <runnel/mqtt/reason_code.hpp>
#include <runnel/mqtt/types.hpp>

#include <bitset>
#include <cstdint>
#include <memory>

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
/// which the application takes them. The identifiers of QoS 2 messages are kept until PUBREL, across connections.
class received {
  public:
    struct entry {
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
        bool const known = quality == qos::exactly_once && known_.test(packet_id);
        bool const taken = known && taken_.test(packet_id);
        if (quality == qos::exactly_once) known_.set(packet_id);
        auto const number = waiting_.push({packet_id, quality, taken, reason_code::success});
        return {{number, packet_id, quality}, !known};
    }

    /// The application has taken the message. Whether an acknowledgement can go out now is told by `next_taken`.
    void take(delivery d, reason_code reason) {
        if (d.quality == qos::exactly_once && known_.test(d.packet_id)) {
            if (is_error(reason))
                forget(d.packet_id);  // PUBREC with a failure ends the exchange (4.3.3)
            else
                taken_.set(d.packet_id);
        }
        entry* e = waiting_.contains(d.number) ? &waiting_[d.number] : find(d.packet_id, d.quality);
        if (e == nullptr) return;
        e->taken = true;
        e->reason = reason;
    }

    /// The oldest message, if the application has taken it; then `pop` removes it.
    entry const* next_taken() noexcept {
        return !waiting_.empty() && waiting_.front().taken ? &waiting_.front() : nullptr;
    }
    void pop() noexcept { waiting_.pop(); }

    /// Whether a QoS 2 message with this identifier has come and not been released by PUBREL.
    bool knows(std::uint16_t packet_id) const noexcept { return known_.test(packet_id); }

    /// PUBREL has come: the identifier is free again.
    void forget(std::uint16_t packet_id) noexcept {
        known_.reset(packet_id);
        taken_.reset(packet_id);
    }

    /// The messages that wait for their first acknowledgement.
    std::size_t size() const noexcept { return waiting_.size(); }

    /// The connection has gone: the peer will send again what was not acknowledged.
    void connection_lost() noexcept { waiting_.clear(); }

    /// The session has gone.
    void clear() noexcept {
        waiting_.clear();
        known_.clear();
        taken_.clear();
    }

  private:
    // A set of packet identifiers; 8 KiB from the first one on.
    class identifier_set {
      public:
        bool test(std::uint16_t id) const noexcept { return bits_ && (*bits_)[id]; }
        void set(std::uint16_t id) {
            if (!bits_) bits_ = std::make_unique<std::bitset<65536>>();
            bits_->set(id);
        }
        void reset(std::uint16_t id) noexcept {
            if (bits_) bits_->reset(id);
        }
        void clear() noexcept { bits_.reset(); }

      private:
        std::unique_ptr<std::bitset<65536>> bits_;
    };

    // A QoS 2 message that was handed out on an earlier connection, and has been sent again on this one.
    entry* find(std::uint16_t packet_id, qos quality) noexcept {
        if (quality != qos::exactly_once) return nullptr;
        for (auto n = waiting_.first(); n != waiting_.next(); ++n)
            if (waiting_[n].packet_id == packet_id && waiting_[n].quality == quality) return &waiting_[n];
        return nullptr;
    }

    ring_queue<entry> waiting_;
    identifier_set known_;  // QoS 2 identifiers between PUBLISH and PUBREL
    identifier_set taken_;  // those of them whose message the application has taken
};

}  // namespace runnel::mqtt
