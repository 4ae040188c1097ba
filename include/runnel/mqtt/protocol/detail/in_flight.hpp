#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/record_pool.hpp>
#include <runnel/core/ring_queue.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <algorithm>
#include <bitset>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt::detail {

/// The outgoing exchanges of a session: messages that wait to be sent or to be acknowledged, with the bytes of their
/// PUBLISH packets, and requests (SUBSCRIBE, UNSUBSCRIBE) that wait for their answer.
///
/// All stand in one queue in the order in which they were begun [MQTT-4.6.0-1]. The place in the queue is the packet
/// identifier: an exchange is found by it in constant time, and identifiers are not reused while in flight
/// [MQTT-2.2.1-3] [MQTT-2.3.1-2].
///
/// Where most of a long queue has ended, and only the oldest have not, these laggards leave the queue for a list beside
/// it, so that their identifiers are the only ones that they keep from being used. They stay in front of all others.
class in_flight {
  public:
    /// By what `outgoing` does with it, an exchange goes through these stages:
    ///
    /// | stage                            | event                                                  | then          |
    /// |----------------------------------|--------------------------------------------------------|---------------|
    /// | -                                | a message begins, and has to wait; `restore` as unsent | `queued`      |
    /// | -                                | a message begins, and it is its turn                   | `sent`        |
    /// | -                                | a request begins                                       | `request`     |
    /// | -                                | `restore`: it may have been sent                       | `resend`      |
    /// | -                                | `restore`: PUBREC has come                             | `rerelease`   |
    /// | `queued`                         | its turn; QoS 1 and 2                                  | `sent`        |
    /// | `queued`                         | its turn; QoS 0                                        | `ended`       |
    /// | `queued`                         | its turn; QoS 2, and the peer may hold its identifier  | `freeing`     |
    /// | `queued`, `freeing`              | it is given up (*)                                     | `ended`       |
    /// | `freeing`                        | PUBCOMP                                                | `sent`        |
    /// | `freeing`                        | the connection has gone                                | `queued`      |
    /// | `sent`                           | PUBREC                                                 | `released`    |
    /// | `sent`                           | PUBACK                                                 | `ended`       |
    /// | `sent`                           | `take_back_unsent`: it has not been written            | `ended`       |
    /// | `sent`                           | the connection has gone                                | `resend` (**) |
    /// | `resend`                         | its turn                                               | `sent`        |
    /// | `resend`                         | the peer has no session                                | `queued`      |
    /// | `resend`                         | it is given up (*); QoS 1                              | `ended`       |
    /// | `resend`                         | it is given up (*); QoS 2: the peer may have it        | `rerelease`   |
    /// | `rerelease`                      | its turn                                               | `rereleased`  |
    /// | `rerelease`                      | the peer has no session; `reject`                      | `ended`       |
    /// | `released`, `rereleased`         | PUBCOMP                                                | `ended`       |
    /// | `released`, `rereleased`         | the connection has gone                                | `rerelease`   |
    /// | `sent`, `released`, `rereleased` | PUBREC with an error                                   | `ended`       |
    /// | `request`                        | the answer; the connection has gone                    | `ended`       |
    /// | any                              | a new session begins                                   | `ended`       |
    ///
    /// (*) By `withdraw` (only what has never been sent), `expire`, `discard`, `reject`, `refuse_unacceptable`.
    ///
    /// (**) And goes on from there at once if `discard` has given it up meanwhile.
    enum class stage : std::uint8_t {
        ended,       ///< done; its place is free once it is the oldest
        queued,      ///< PUBLISH to be sent without DUP
        freeing,     ///< the same, behind the answer to a PUBREL that frees the identifier at the peer
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
        unsent,    ///< the same; it has not been sent, and its identifier may be in use at the peer
        released,  ///< that PUBREC has come, so that PUBREL is to be sent
        outdated,  ///< a packet that has been rewritten since
    };

    /// Whether the peer may have a message.
    enum class history : std::uint8_t {
        unsent,
        unknown,  ///< it comes from an earlier process
        sent,     ///< it has been sent on an earlier connection of this process
    };

    struct entry {
        char* packet = nullptr;  ///< the bytes of the PUBLISH packet; nullptr for requests
        std::uint32_t size = 0;  ///< of `packet` in bytes; for requests the number of topic filters
        stage at = stage::ended;
        qos quality = qos::at_most_once;
        packet_type request = {};      ///< which request, for `stage::request`
        bool expires = false;          ///< has a message expiry interval: an `expiry` stands in front of `packet`
        record stored = record::none;  ///< what the store holds
        history past = history::unsent;
        bool discarded = false;  ///< sent on this connection, and not to be sent again
        void* owner = nullptr;   ///< who waits for the outcome; nullptr if nobody does

        std::string_view bytes() const noexcept { return {packet, size}; }
        /// What the store is to hold, if all identifiers are known to be free at the peer.
        record due() const noexcept {
            using enum stage;
            if (discarded && at == sent) return quality == qos::exactly_once ? record::released : record::none;
            if (at == queued || at == freeing || at == resend || at == sent)
                return quality == qos::at_most_once ? record::none : record::message;
            return at == rerelease || at == released || at == rereleased ? record::released : record::none;
        }
    };

    /// When a message is of no use any more.
    struct expiry {
        std::chrono::milliseconds at;  ///< on the clock of the session
        std::uint32_t position;        ///< where in the packet the interval stands, four bytes; 0: it is not there
    };

    in_flight() noexcept = default;
    in_flight(in_flight const&) = delete;
    in_flight& operator=(in_flight const&) = delete;

    /// Entries are numbered in the order in which they were begun: from `first()` on, `next()` being the next.
    std::uint64_t first() const noexcept { return laggards_ ? laggards_->all.front().number : entries_.first(); }
    std::uint64_t next() const noexcept { return entries_.next(); }
    /// The number of the first entry from `number` on; `next()` if there is none.
    std::uint64_t from(std::uint64_t number) const noexcept {
        if (laggards_ && number <= laggards_->all.back().number) [[unlikely]]
            return position_of(number)->number;
        return (std::max)(number, entries_.first());
    }
    /// The entry of a number that `from` has told, or which has just been begun.
    RUNNEL_ALWAYS_INLINE entry& operator[](std::uint64_t number) noexcept {
        return entries_.contains(number) ? entries_[number] : position_of(number)->value;
    }
    /// The entry of any number; nullptr if there is none.
    entry* at(std::uint64_t number) noexcept {
        if (entries_.contains(number)) return &entries_[number];
        if (!laggards_ || number > laggards_->all.back().number) return nullptr;
        auto const found = position_of(number);
        return found->number == number ? &found->value : nullptr;
    }

    /// Sees to it that the next entry has a packet identifier of its own, if `has_identifier`. To be called before its
    /// number or its identifier are looked at.
    void make_identifier() {
        if (entries_.size() >= watched_) [[unlikely]]
            find_identifier();
    }
    /// Whether there is a packet identifier for another entry.
    bool has_identifier() const noexcept { return entries_.size() < room_ || live_ <= max_identifier / 2; }
    /// The bytes of all packets held.
    std::size_t bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return entries_.empty() && !laggards_; }
    /// Entries that have not ended, or of whose end the store does not know.
    std::size_t size() const noexcept { return live_; }

    static std::uint16_t identifier_of(std::uint64_t number) noexcept {
        return static_cast<std::uint16_t>(number % max_identifier + 1);
    }
    std::uint64_t number_of(entry const& e) const noexcept {
        auto const* const l = laggards_ ? laggard_of(e) : nullptr;
        return l != nullptr ? l->number : entries_.number_of(e);
    }

    /// Begins an exchange with a packet of `size` bytes (0 for a request); the caller writes them to `packet`, and the
    /// expiry if `e.expires`.
    std::uint64_t begin(std::size_t size, entry e) {
        entries_.make_room();  // what can fail comes first
        e.packet = size == 0 ? nullptr : take(size, e.expires);
        e.size = static_cast<std::uint32_t>(size);
        bytes_ += size;
        ++live_;
        return entries_.place(e);
    }

    /// The entry with this packet identifier, or nullptr.
    entry* find(std::uint16_t identifier) noexcept {
        if (identifier == 0) return nullptr;
        std::uint64_t const oldest = identifier_of(entries_.first());
        auto const number =
            entries_.first() + identifier - oldest + (identifier < oldest ? std::uint64_t{max_identifier} : 0);
        if (entries_.contains(number) && entries_[number].at != stage::ended) return &entries_[number];
        return laggards_ ? find_laggard(identifier) : nullptr;
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
    RUNNEL_ALWAYS_INLINE void end(entry& e) noexcept {
        mark_ended(e);
        free_oldest();
        if (watched_ == 0) [[unlikely]] {  // there are laggards
            note_if_laggard(e);
            sweep();
        }
    }
    /// The same, but its place is not free before `sweep`.
    void finish(entry& e) noexcept {
        mark_ended(e);
        note_if_laggard(e);
    }

    /// Frees the places of the oldest entries, as far as they have ended and the store does not hold them any more.
    void sweep() noexcept {
        free_oldest();
        if (laggards_) [[unlikely]]
            sweep_laggards();
    }

    /// The entry is no longer what the store holds of it.
    void note(entry const& e) noexcept {
        if (e.stored == record::none) return;
        auto const number = number_of(e);
        changed_first_ = (std::min)(changed_first_, number);
        changed_end_ = (std::max)(changed_end_, number + 1);
    }

    /// Whether an entry that the store holds has been noted since `stored`.
    bool noted() const noexcept { return changed_first_ < changed_end_; }

    /// Calls `f(number, entry)` for all entries that may not be what the store holds of them.
    template <class F>
    void for_each_change(F&& f) {
        if (laggards_)
            for (auto& l : laggards_->all) f(l.number, l.value);
        auto const oldest = entries_.first();
        for (auto n = (std::max)(changed_first_, oldest); n < (std::min)(changed_end_, new_); ++n) f(n, entries_[n]);
        for (auto n = (std::max)(new_, oldest); n < next(); ++n) f(n, entries_[n]);
    }

    /// The store holds what is due: `due_of(number, entry)`.
    template <class Due>
    void stored(Due&& due_of) noexcept {
        for_each_change([&](std::uint64_t number, entry& e) {
            if (e.at == stage::ended && e.stored != record::none) --live_;
            e.stored = due_of(number, e);
        });
        changed_first_ = (std::numeric_limits<std::uint64_t>::max)();
        changed_end_ = 0;
        new_ = next();
        if (laggards_) laggards_->has_free = true;  // perhaps
        sweep();
    }

    /// Lets the next entry have this number, which is not less than `next()` unless there are no entries.
    void continue_at(std::uint64_t number) {
        auto const gap = number - next();
        if (gap != 0 && gap >= entries_.size())
            while (!entries_.empty()) set_aside();
        if (entries_.empty()) entries_.restart_at(number);
        while (next() < number) entries_.push({});
        new_ = number;
        set_laggards_aside();
    }

    /// Frees memory that holds no packet.
    void release_idle_memory() noexcept { pool_.release_idle(); }

  private:
    static constexpr std::size_t max_identifier = 65535;
    static constexpr std::size_t expiry_size = sizeof(expiry);
    static_assert(expiry_size % alignof(expiry) == 0);
    /// A shorter queue keeps its laggards.
    static constexpr std::uint32_t short_queue = 4096;

    struct laggard {
        std::uint64_t number;
        entry value;
    };
    struct laggards {
        std::vector<laggard> all{};               // one or more, in the order of their numbers
        std::bitset<max_identifier + 1> taken{};  // their identifiers
        bool has_free = false;                    // perhaps
    };

    static bool is_free(entry const& e) noexcept { return e.at == stage::ended && e.stored == record::none; }

    char* take(std::size_t size, bool expires) {
        if (!expires) return static_cast<char*>(pool_.take(size));
        auto* const memory = static_cast<char*>(pool_.take(expiry_size + size));
        ::new (memory) expiry{};
        return memory + expiry_size;
    }

    void give_back(entry const& e) noexcept { pool_.give_back(e.expires ? e.packet - expiry_size : e.packet); }

    // The first laggard that has this number or a greater one.
    RUNNEL_COLD RUNNEL_NOINLINE laggard* position_of(std::uint64_t number) const noexcept {
        return &*std::ranges::lower_bound(laggards_->all, number, {}, &laggard::number);
    }
    RUNNEL_COLD entry* find_laggard(std::uint16_t identifier) const noexcept {
        for (auto& l : laggards_->all)
            if (identifier_of(l.number) == identifier && l.value.at != stage::ended) return &l.value;
        return nullptr;
    }
    // The laggard that this entry is, told by where it lies; nullptr: it is none.
    RUNNEL_COLD laggard const* laggard_of(entry const& e) const noexcept {
        auto const* const at = reinterpret_cast<char const*>(&e);
        auto const* const all = reinterpret_cast<char const*>(laggards_->all.data());
        auto const size = laggards_->all.size() * sizeof(laggard);
        if (std::less<>()(at, all) || !std::less<>()(at, all + size)) return nullptr;
        return &laggards_->all[static_cast<std::size_t>(at - all) / sizeof(laggard)];
    }

    RUNNEL_ALWAYS_INLINE void mark_ended(entry& e) noexcept {
        drop_packet(e);
        e.at = stage::ended;
        note(e);
        if (e.stored == record::none) --live_;
    }
    RUNNEL_ALWAYS_INLINE void free_oldest() noexcept {
        while (!entries_.empty() && is_free(entries_.front())) entries_.pop();
    }
    void note_if_laggard(entry const& e) noexcept {
        if (laggards_ && is_free(e) && laggard_of(e) != nullptr) laggards_->has_free = true;
    }

    // The oldest entry of the queue becomes a laggard.
    RUNNEL_COLD void set_aside() {
        if (!laggards_) {
            auto made = std::make_unique<laggards>();
            made->all.reserve(1);
            laggards_ = std::move(made);
        }
        laggards_->all.push_back({entries_.first(), entries_.front()});
        laggards_->taken.set(identifier_of(entries_.first()));
        do {
            entries_.pop();
        } while (!entries_.empty() && is_free(entries_.front()));
    }

    // Goes on until more than half of the queue is in use. The first `limit_` places need not be looked at again.
    RUNNEL_COLD void set_laggards_aside() {
        if (laggards_) sweep_laggards();
        while (!entries_.empty()) {
            if (is_free(entries_.front())) {
                entries_.pop();
                continue;
            }
            auto const in_use = live_ - laggard_count();
            bool const fits = entries_.size() + laggard_count() <= max_identifier;
            if (in_use * 2 > entries_.size() && fits) break;
            set_aside();
        }
        limit_ = (std::max)(short_queue, static_cast<std::uint32_t>(entries_.size() * 2));
        count_laggards();
    }

    RUNNEL_COLD void sweep_laggards() noexcept {
        if (!std::exchange(laggards_->has_free, false)) return;
        std::erase_if(laggards_->all, [&](laggard const& l) {
            bool const ended = is_free(l.value);
            if (ended) laggards_->taken.reset(identifier_of(l.number));
            return ended;
        });
        if (laggards_->all.empty()) laggards_.reset();
        count_laggards();
    }

    std::size_t laggard_count() const noexcept { return laggards_ ? laggards_->all.size() : 0; }
    // What follows from how many laggards there are.
    RUNNEL_COLD void count_laggards() noexcept {
        room_ = static_cast<std::uint32_t>(max_identifier - laggard_count());
        limit_ = (std::min)(limit_, room_);
        watched_ = laggards_ ? 0 : limit_;
    }

    RUNNEL_COLD void find_identifier() {
        if (entries_.size() >= limit_) set_laggards_aside();
        while (laggards_ && laggards_->taken.test(identifier_of(next()))) {
            if (entries_.empty())
                entries_.restart_at(next() + 1);
            else
                entries_.push({});
        }
    }

    ring_queue<entry> entries_{};
    record_pool pool_{};
    std::size_t bytes_ = 0;
    std::size_t live_ = 0;
    // Of `entries_`: with so many there is perhaps no identifier left, or it is time to look for laggards, or there is
    // something to see to before each new entry.
    std::uint32_t room_ = max_identifier;
    std::uint32_t limit_ = short_queue;
    std::uint32_t watched_ = short_queue;
    std::unique_ptr<laggards> laggards_{};  // nullptr: there are none
    // What the store does not know: the changed entries are in the first range, and all from `new_` on are new.
    std::uint64_t changed_first_ = (std::numeric_limits<std::uint64_t>::max)();
    std::uint64_t changed_end_ = 0;
    std::uint64_t new_ = 0;
};

}  // namespace runnel::mqtt::detail
