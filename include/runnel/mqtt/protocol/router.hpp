#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/mqtt/codec/topic.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// Finds the subscriptions that match a topic: a tree of the topic filters' levels, each with the entries (of type `T`,
/// which is comparable and can be made from nothing) inserted under that filter. Matching allocates nothing. It visits
/// each level of the tree once that matches the topic so far, however long the topic's levels are: as a rule their
/// number depends on that of the topic's levels and of the matching entries, and not on that of the subscriptions; at
/// the worst, where filters have '+' and names in all combinations, on those.
///
/// Filters are valid ones (`check_topic_filter`); those of shared subscriptions are taken apart before
/// (`split_shared`). Not thread-safe.
template <class T>
class router {
  public:
    router() : nodes_(1) {}

    /// Adds an entry. False: it is there already, under the same filter. Takes time in proportion to the number of
    /// entries under this very filter.
    RUNNEL_COLD bool insert(std::string_view filter, T entry) {
        auto const made = make_entry();  // first, as it may fail
        auto const index = reach(filter);
        auto* last = &nodes_[index].entries;
        for (; *last != none; last = &entries_[*last].next)
            if (entries_[*last].value == entry) return false;
        entries_[made].value = std::move(entry);
        free_entry_ = std::exchange(entries_[made].next, none);
        *last = made;
        ++size_;
        return true;
    }

    /// Removes an entry. False: there is no such entry under this filter.
    bool erase(std::string_view filter, T const& entry) {
        return erase_if(filter, [&](T const& other) { return other == entry; }) != 0;
    }

    /// Removes the entries under this filter that `condition(T const&)` holds for; returns how many.
    template <class Condition>
    std::size_t erase_if(std::string_view filter, Condition condition) {
        auto const index = find(filter);
        if (index == none) return 0;
        std::size_t erased = 0;
        for (auto* at = &nodes_[index].entries; *at != none;) {
            auto& one = entries_[*at];
            if (!condition(std::as_const(one.value))) {
                at = &one.next;
                continue;
            }
            one.value = T();
            free_entry_ = std::exchange(*at, std::exchange(one.next, free_entry_));
            --size_;
            ++erased;
        }
        prune(index);
        return erased;
    }

    /// Calls `f(T&)` for each entry under this very filter, in the order of their insertion. `f` must not change the
    /// router.
    template <class F>
    void for_each(std::string_view filter, F&& f) {
        if (auto const index = find(filter); index != none) visit(*this, index, f);
    }

    /// Calls `f(T&)` once for each entry whose filter matches the topic, in no particular order. `f` must not change
    /// the router.
    template <class F>
    void match(std::string_view topic, F&& f) {
        walk(*this, topic, f);
    }

    /// Calls `f(T const&)` like the other `match`.
    template <class F>
    void match(std::string_view topic, F&& f) const {
        walk(*this, topic, f);
    }

    /// The number of entries.
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }

    /// The number of levels that the tree holds: 0 once everything has been erased.
    std::size_t level_count() const noexcept { return nodes_.size() - 1 - free_count_; }

    void clear() { *this = router(); }

  private:
    static constexpr std::uint32_t root = 0;
    static constexpr std::uint32_t none = 0xFFFF'FFFF;

    struct node {
        std::uint64_t head = 0;  // as `level_text` has it
        std::uint32_t parent = none;
        std::uint32_t any = none;      // the child '+'
        std::uint32_t rest = none;     // the child '#'
        std::uint32_t literals = 0;    // how many other children; in a free node: the next free one
        std::uint32_t entries = none;  // the first
        std::string level{};

        bool is_of_use() const noexcept { return entries != none || literals != 0 || any != none || rest != none; }
    };
    struct entry_of {
        T value{};
        std::uint32_t next = none;  // of the same node; in a free one: the next free one
    };

    // A level of a topic or filter, with what depends on its text alone. Nothing is written where one is only declared.
    struct level_text {
        level_text() = default;
        // The one that begins at `at`, which is at most `end`, where the topic ends. The level ends there or at a
        // slash.
        RUNNEL_ALWAYS_INLINE level_text(char const* at, char const* end) noexcept
            : data(at), size(0), hash(0), head(0) {
            auto word = word_at(at, end);
            auto slashes = slashes_in(word);
            head = hash = slashes == 0 ? word : before(slashes, word);
            while (slashes == 0) {
                at += 8;
                hash = mixed(hash);
                word = word_at(at, end);
                slashes = slashes_in(word);
                hash ^= slashes == 0 ? word : before(slashes, word);
            }
            hash = mixed(hash);
            size = static_cast<std::size_t>(at - data) + static_cast<std::size_t>(std::countr_zero(slashes)) / 8;
        }
        RUNNEL_NOINLINE explicit level_text(std::string_view text) noexcept
            : level_text(text.data(), text.data() + text.size()) {}

        RUNNEL_ALWAYS_INLINE bool is(std::uint64_t other_head, std::string_view other) const noexcept {
            return head == other_head && size == other.size() &&
                   (size <= 8 || std::memcmp(data + 8, other.data() + 8, size - 8) == 0);
        }

        // Where the next level begins; nullptr: there is none.
        char const* next(char const* end) const noexcept { return data + size == end ? nullptr : data + size + 1; }

        char const* data;
        std::size_t size;
        std::uint64_t hash;
        std::uint64_t head;  // the first eight bytes, zeros behind the end

      private:
        static std::uint64_t mixed(std::uint64_t hash) noexcept {
            hash *= 0xD6E8'FEB8'6659'FD93u;
            return hash ^ hash >> 32;
        }
        // The lowest sign bit is that of the first slash.
        static std::uint64_t slashes_in(std::uint64_t word) noexcept {
            auto const differs = word ^ repeat_byte('/');
            return (differs - repeat_byte(1)) & ~differs & repeat_byte(0x80);
        }
        static std::uint64_t before(std::uint64_t slashes, std::uint64_t word) noexcept {
            return word & ((slashes & (0 - slashes)) - 1) >> 7;
        }
        // Eight bytes, the first one lowest; with a slash behind the last where the text ends before.
        static std::uint64_t word_at(char const* at, char const* end) noexcept {
            auto const n = static_cast<std::size_t>(end - at);
            std::uint64_t word = 0;
            if (std::endian::native == std::endian::little && n >= 8) {
                std::memcpy(&word, at, 8);
                return word;
            }
            if (n < 8) word = std::uint64_t{'/'} << 8 * n;
            for (std::size_t i = 0; i < n && i < 8; ++i)
                word |= std::uint64_t{static_cast<unsigned char>(at[i])} << 8 * i;
            return word;
        }
    };

    static std::string_view level_at(std::string_view topic, std::size_t at) noexcept {
        return topic.substr(at, topic.find('/', at) - at);
    }
    static std::size_t level_after(std::string_view topic, std::size_t at) noexcept {
        auto const slash = topic.find('/', at);
        return slash == std::string_view::npos ? slash : slash + 1;
    }

    // The levels of a topic, by number, from 0. Each is read once, though the walk comes to it again and again: the
    // last ones are kept. The way back beyond these begins anew there; it is longer than what is read again for it.
    class levels {
      public:
        explicit levels(std::string_view topic) noexcept
            : begin_(topic.data()), next_(begin_), end_(begin_ + topic.size()) {}

        // That of this number, of which there is one, and those before have been read.
        level_text const& operator[](std::size_t i) noexcept {
            auto& level = kept_[i % size];
            if (i != read_) {
                if (i >= first_ && read_ - i <= size) [[likely]]
                    return level;
                go_back(i);
            }
            level = level_text({next_, static_cast<std::size_t>(end_ - next_)});
            ++read_;
            next_ = level.next(end_);
            if (next_ == nullptr) count_ = read_;
            return level;
        }
        // Whether there are no more than `n`, which have been read.
        bool end_at(std::size_t n) const noexcept { return n == count_; }

      private:
        static constexpr std::size_t size = 32;

        // To one before those that are kept.
        RUNNEL_COLD void go_back(std::size_t to) noexcept {
            if (read_ - first_ > size) first_ = read_ - size;
            auto const* at = kept_[first_ % size].data;
            for (; first_ != to; --first_) {
                --at;  // the slash that ends the level before
                while (at != begin_ && at[-1] != '/') --at;
            }
            read_ = to;
            next_ = at;
        }

        char const* begin_;
        char const* next_;  // where the next one begins; nullptr: there is none
        char const* end_;
        std::size_t first_ = 0;  // none before are kept
        std::size_t read_ = 0;   // up to here
        std::size_t count_ = static_cast<std::size_t>(-1);
        level_text kept_[size];
    };

    template <class Self, class F>
    RUNNEL_ALWAYS_INLINE static void visit(Self& self, std::uint32_t index, F& f) {
        for (auto i = self.nodes_[index].entries; i != none; i = self.entries_[i].next) f(self.entries_[i].value);
    }

    // As long as there is one way only. Wildcards in the first level do not match topics that begin with '$'
    // [MQTT-4.7.2-1].
    template <class Self, class F>
    static void walk(Self& self, std::string_view topic, F& f) {
        char const* at = topic.data();
        char const* const end = at + topic.size();
        std::uint32_t here = root;
        bool wildcards = !topic.starts_with('$');
        while (true) {
            auto const& node = self.nodes_[here];
            if (node.rest != none && wildcards) visit(self, node.rest, f);
            if (at == nullptr) return visit(self, here, f);
            std::uint32_t const any = wildcards ? node.any : none;
            if (node.literals == 0 && any == none) return;
            level_text const level(at, end);
            std::uint32_t next = any;
            if (node.literals != 0) {
                next = self.find_child(here, level);
                if (next == none)
                    next = any;
                else if (any != none)
                    return walk_all(self, {at, end}, next, f);
            }
            if (next == none) return;
            here = next;
            at = level.next(end);
            wildcards = true;
        }
    }

    // All ways from the parent of `first`, where there are two: depth-first, without recursion or stack. Where a branch
    // ends, the way back is read from the nodes' parents. At each node the literal level comes first, then '+'.
    template <class Self, class F>
    RUNNEL_NOINLINE static void walk_all(Self& self, std::string_view rest_of_topic, std::uint32_t first, F& f) {
        levels all(rest_of_topic);
        all[0];
        std::size_t depth = 1;    // levels that are matched
        std::size_t untried = 1;  // nodes on the way here whose '+' is to be tried yet
        std::uint32_t here = first;
        while (true) {
            auto const& node = self.nodes_[here];
            if (node.rest != none) visit(self, node.rest, f);
            std::uint32_t next = none;
            if (all.end_at(depth)) {
                visit(self, here, f);
            } else if (node.literals != 0 || node.any != none) {
                auto const& level = all[depth];
                if (node.literals != 0) next = self.find_child(here, level);
                if (next == none)
                    next = node.any;
                else if (node.any != none)
                    ++untried;
            }
            if (next == none) {
                if (untried-- == 0) return;
                do {  // back to the nearest of them
                    auto const parent = self.nodes_[here].parent;
                    auto const other = self.nodes_[parent].any;
                    if (other != here) next = other;
                    here = parent;
                    --depth;
                } while (next == none);
            }
            here = next;
            ++depth;
        }
    }

    // The literal children of all nodes are in one hash table, keyed by parent and level: open addressing, a power of
    // two of slots, at most half of them taken. A slot has its hash, so that few nodes are looked at in vain.

    struct slot_of {
        std::uint32_t index = none;
        std::uint32_t hash = 0;
    };

    static std::uint32_t hash_of(std::uint32_t parent, std::uint64_t text) noexcept {
        auto const h = (text ^ (std::uint64_t{parent} + 1)) * 0x9E37'79B9'7F4A'7C15u;
        return static_cast<std::uint32_t>(h >> 32);
    }
    static std::uint32_t hash_of(node const& n) noexcept { return hash_of(n.parent, level_text(n.level).hash); }

    RUNNEL_ALWAYS_INLINE bool is_child(std::uint32_t index, std::uint32_t parent,
                                       level_text const& text) const noexcept {
        auto const& n = nodes_[index];
        return n.parent == parent && text.is(n.head, n.level);
    }

    RUNNEL_ALWAYS_INLINE std::uint32_t find_child(std::uint32_t parent, level_text const& text) const noexcept {
        if (slots_.empty()) return none;
        auto const hash = hash_of(parent, text.hash);
        auto const mask = slots_.size() - 1;
        for (auto i = hash & mask;; i = (i + 1) & mask) {
            auto const& slot = slots_[i];
            if (slot.index == none || (slot.hash == hash && is_child(slot.index, parent, text))) return slot.index;
        }
    }

    RUNNEL_COLD void put_slot(slot_of s) noexcept {
        auto const mask = slots_.size() - 1;
        auto i = s.hash & mask;
        while (slots_[i].index != none) i = (i + 1) & mask;
        slots_[i] = s;
    }

    RUNNEL_COLD void make_room_for_slot() {
        if ((slots_taken_ + 1) * 2 <= slots_.size()) return;
        auto const before = std::exchange(slots_, std::vector<slot_of>(slots_.empty() ? 16 : slots_.size() * 2));
        for (auto const& other : before)
            if (other.index != none) put_slot(other);
    }

    RUNNEL_COLD void add_slot(std::uint32_t index) noexcept {
        put_slot({index, hash_of(nodes_[index])});
        ++slots_taken_;
    }

    RUNNEL_COLD void remove_slot(std::uint32_t index) noexcept {
        auto const mask = slots_.size() - 1;
        auto hole = hash_of(nodes_[index]) & mask;
        while (slots_[hole].index != index) hole = (hole + 1) & mask;
        // What follows without a gap moves up, unless it would then stand before its own place.
        for (auto i = (hole + 1) & mask; slots_[i].index != none; i = (i + 1) & mask) {
            auto const home = slots_[i].hash & mask;
            if (((i - home) & mask) >= ((i - hole) & mask)) {
                slots_[hole] = slots_[i];
                hole = i;
            }
        }
        slots_[hole] = {};
        --slots_taken_;
    }

    // The nodes.

    std::uint32_t& wildcard_child(std::uint32_t index, std::string_view level) noexcept {
        return level == "+" ? nodes_[index].any : nodes_[index].rest;
    }

    static bool is_wildcard(std::string_view level) noexcept { return level == "+" || level == "#"; }

    // The node of a filter, with all nodes on the way to it.
    RUNNEL_COLD std::uint32_t reach(std::string_view filter) {
        std::uint32_t index = root;
        RUNNEL_TRY {
            for (std::size_t at = 0; at != std::string_view::npos; at = level_after(filter, at)) {
                auto const text = level_at(filter, at);
                auto const child =
                    is_wildcard(text) ? wildcard_child(index, text) : find_child(index, level_text(text));
                index = child == none ? add_node(index, text) : child;
            }
        }
        RUNNEL_CATCH_ALL {
            prune(index);
            RUNNEL_RETHROW;
        }
        return index;
    }

    RUNNEL_COLD std::uint32_t find(std::string_view filter) noexcept {
        std::uint32_t index = root;
        for (std::size_t at = 0; at != std::string_view::npos && index != none; at = level_after(filter, at)) {
            auto const text = level_at(filter, at);
            index = is_wildcard(text) ? wildcard_child(index, text) : find_child(index, level_text(text));
        }
        return index;
    }

    RUNNEL_COLD std::uint32_t add_node(std::uint32_t parent, std::string_view text) {
        make_room_for_slot();
        if (free_ == none) {
            nodes_.emplace_back().literals = none;
            free_ = static_cast<std::uint32_t>(nodes_.size() - 1);
            ++free_count_;
        }
        auto const index = free_;
        auto& added = nodes_[index];
        added.level = text;  // the last thing that can fail: the node is still free
        added.head = level_text(text).head;
        free_ = added.literals;
        --free_count_;
        added.parent = parent;
        added.literals = 0;
        if (is_wildcard(text)) {
            wildcard_child(parent, text) = index;
        } else {
            add_slot(index);
            ++nodes_[parent].literals;
        }
        return index;
    }

    // Removes the node, and those above it, as long as they hold nothing.
    RUNNEL_COLD void prune(std::uint32_t index) noexcept {
        while (index != root && !nodes_[index].is_of_use()) {
            auto const parent = nodes_[index].parent;
            if (is_wildcard(nodes_[index].level)) {
                wildcard_child(parent, nodes_[index].level) = none;
            } else {
                remove_slot(index);
                --nodes_[parent].literals;
            }
            nodes_[index] = node{};
            nodes_[index].literals = std::exchange(free_, index);
            ++free_count_;
            index = parent;
        }
    }

    // The first free entry.
    RUNNEL_COLD std::uint32_t make_entry() {
        if (free_entry_ == none) {
            entries_.emplace_back();
            free_entry_ = static_cast<std::uint32_t>(entries_.size() - 1);
        }
        return free_entry_;
    }

    std::vector<node> nodes_;
    std::vector<entry_of> entries_{};
    std::uint32_t free_entry_ = none;  // the first of the free ones
    std::vector<slot_of> slots_{};
    std::size_t slots_taken_ = 0;
    std::uint32_t free_ = none;  // the first of the free nodes
    std::size_t free_count_ = 0;
    std::size_t size_ = 0;
};

}  // namespace runnel::mqtt
