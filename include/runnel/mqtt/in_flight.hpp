#pragma once

#include <runnel/core/record_pool.hpp>
#include <runnel/core/ring_queue.hpp>
#include <runnel/mqtt/types.hpp>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <string_view>

namespace runnel::mqtt {

/// The outgoing exchanges of a session: messages that wait to be sent or to be acknowledged, with the bytes of their
/// PUBLISH packets, and requests (SUBSCRIBE, UNSUBSCRIBE) that wait for their answer.
///
/// All stand in one queue in the order in which they were begun [MQTT-4.6.0-1]. The place in the queue is the packet
/// identifier: an exchange is found by it in constant time, and identifiers are not reused while in flight
/// [MQTT-2.2.1-3] [MQTT-2.3.1-2].
class in_flight {
  public:
    enum class stage : std::uint8_t {
        ended,       ///< done; its place is free once it is the oldest
        queued,      ///< PUBLISH not sent on any connection
        resend,      ///< PUBLISH sent on an earlier connection, to be sent again with DUP
        sent,        ///< PUBLISH sent on this connection
        rerelease,   ///< PUBREL to be sent again
        released,    ///< PUBREL sent on this connection, PUBCOMP awaited
        rereleased,  ///< the same, and it was sent on an earlier connection too
        request,     ///< SUBSCRIBE or UNSUBSCRIBE sent on this connection
    };

    /// What a store that outlives the process holds of an exchange.
    enum class record : std::uint8_t {
        none,
        message,   ///< the PUBLISH packet, which is to be sent (again)
        released,  ///< that PUBREC has come, so that PUBREL is to be sent
        outdated,  ///< a packet that has been rewritten since
    };

    struct entry {
        char* packet = nullptr;  ///< the bytes of the PUBLISH packet; nullptr for requests
        std::uint32_t size = 0;  ///< of `packet` in bytes; for requests the number of topic filters
        stage at = stage::ended;
        qos quality = qos::at_most_once;
        packet_type request = {};      ///< which request, for `stage::request`
        bool expires = false;          ///< has a message expiry interval: an `expiry` stands in front of `packet`
        record stored = record::none;  ///< what the store holds
        void* owner = nullptr;         ///< who waits for the outcome; nullptr if nobody does

        std::string_view bytes() const noexcept { return {packet, size}; }
        /// What the store is to hold.
        record due() const noexcept {
            using enum stage;
            if (at == queued || at == resend || at == sent)
                return quality == qos::at_most_once ? record::none : record::message;
            return at == rerelease || at == released || at == rereleased ? record::released : record::none;
        }
    };

    /// When a message is of no use any more.
    struct expiry {
        std::chrono::milliseconds at;  ///< on the clock of the session
        std::uint32_t position;        ///< where in the packet the interval stands, four bytes; 0: it is not there
        bool may_have_arrived;         ///< it has been sent, on any connection
    };

    in_flight() noexcept = default;
    in_flight(in_flight const&) = delete;
    in_flight& operator=(in_flight const&) = delete;

    /// Entries are numbered; numbers from `first()` to `next()` are valid.
    std::uint64_t first() const noexcept { return entries_.first(); }
    std::uint64_t next() const noexcept { return entries_.next(); }
    entry& operator[](std::uint64_t number) noexcept { return entries_[number]; }

    /// Whether there is a packet identifier for another entry.
    bool has_identifier() const noexcept { return entries_.size() < max_identifier; }
    /// The bytes of all packets held.
    std::size_t bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return entries_.empty(); }
    /// Entries from the oldest on that has not ended.
    std::size_t size() const noexcept { return entries_.size(); }

    static std::uint16_t identifier_of(std::uint64_t number) noexcept {
        return static_cast<std::uint16_t>(number % max_identifier + 1);
    }

    /// Begins an exchange with a packet of `size` bytes (0 for a request); the caller writes them to `packet`, and the
    /// expiry if `e.expires`.
    std::uint64_t begin(std::size_t size, entry e) {
        e.packet = size == 0 ? nullptr : take(size, e.expires);
        e.size = static_cast<std::uint32_t>(size);
        bytes_ += size;
        return entries_.push(e);
    }

    /// The entry with this packet identifier, or nullptr.
    entry* find(std::uint16_t identifier) noexcept {
        if (identifier == 0 || entries_.empty()) return nullptr;
        std::uint64_t const oldest = identifier_of(first());
        auto const number = first() + identifier - oldest + (identifier < oldest ? max_identifier : 0);
        if (!entries_.contains(number) || entries_[number].at == stage::ended) return nullptr;
        return &entries_[number];
    }

    /// The expiry of an entry that has a packet and `expires`.
    static expiry& expiry_of(entry const& e) noexcept {
        assert(e.expires && e.packet != nullptr);
        return *std::launder(reinterpret_cast<expiry*>(e.packet - expiry_size));
    }

    /// Gives the bytes of the entry's packet back; the exchange goes on without them.
    void drop_packet(entry& e) noexcept {
        if (e.packet == nullptr) return;
        give_back(e);
        bytes_ -= e.size;
        e.packet = nullptr;
        e.size = 0;
    }

    /// Gives the entry a packet of `size` bytes, which `write` writes to where it is told while the old one is there.
    template <class Write>
    void rewrite(entry& e, std::size_t size, Write&& write) {
        auto* const packet = take(size, e.expires);
        write(packet);
        if (e.expires) ::new (packet - expiry_size) expiry(expiry_of(e));
        bytes_ -= e.size;
        give_back(e);
        e.packet = packet;
        e.size = static_cast<std::uint32_t>(size);
        bytes_ += size;
    }

    /// Ends the exchange. References to this and older entries are no longer valid.
    void end(entry& e) noexcept {
        drop_packet(e);
        e.at = stage::ended;
        note(e);
        sweep();
    }

    /// Frees the places of the oldest entries, as far as they have ended and the store does not hold them any more.
    void sweep() noexcept {
        while (!entries_.empty() && entries_.front().at == stage::ended && entries_.front().stored == record::none)
            entries_.pop();
    }

    /// The entry is no longer what the store holds of it.
    void note(entry const& e) noexcept {
        if (e.stored == record::none) return;
        auto const number = entries_.number_of(e);
        changed_first_ = std::min(changed_first_, number);
        changed_end_ = std::max(changed_end_, number + 1);
    }

    /// Whether an entry that the store holds has been noted since `stored`.
    bool noted() const noexcept { return changed_first_ < changed_end_; }

    /// Calls `f(number, entry)` for all entries that may not be what the store holds of them.
    template <class F>
    void for_each_change(F&& f) {
        for (auto n = std::max(changed_first_, first()); n < std::min(changed_end_, new_); ++n) f(n, entries_[n]);
        for (auto n = std::max(new_, first()); n < next(); ++n) f(n, entries_[n]);
    }

    /// The store holds what is due.
    void stored() noexcept {
        for_each_change([](std::uint64_t, entry& e) { e.stored = e.due(); });
        changed_first_ = std::numeric_limits<std::uint64_t>::max();
        changed_end_ = 0;
        new_ = next();
        sweep();
    }

    /// Lets the next entry have this number, by ended entries in front of it.
    void continue_at(std::uint64_t number) {
        if (empty()) entries_.restart_at(number);
        while (next() < number) entries_.push({});
        new_ = number;
    }

    /// Frees memory that holds no packet.
    void release_idle_memory() noexcept { pool_.release_idle(); }

  private:
    static constexpr std::uint64_t max_identifier = 65535;
    static constexpr std::size_t expiry_size = sizeof(expiry);
    static_assert(expiry_size % alignof(expiry) == 0);

    char* take(std::size_t size, bool expires) {
        if (!expires) return static_cast<char*>(pool_.take(size));
        auto* const memory = static_cast<char*>(pool_.take(expiry_size + size));
        ::new (memory) expiry{};
        return memory + expiry_size;
    }

    void give_back(entry const& e) noexcept { pool_.give_back(e.expires ? e.packet - expiry_size : e.packet); }

    ring_queue<entry> entries_;
    record_pool pool_;
    std::size_t bytes_ = 0;
    // What the store does not know: the changed entries are in the first range, and all from `new_` on are new.
    std::uint64_t changed_first_ = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t changed_end_ = 0;
    std::uint64_t new_ = 0;
};

}  // namespace runnel::mqtt
