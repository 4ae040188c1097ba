#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/mqtt/codec/topic.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// Finds the subscriptions that match a topic: a tree of the topic filters' levels, each with the entries (of type `T`,
/// which is comparable) inserted under that filter. Matching takes time that depends on the number of the topic's
/// levels and of matching entries, not on the number of subscriptions, and allocates nothing.
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
        auto& entries = nodes_[reach(filter)].entries;
        for (auto const& other : entries)
            if (other == entry) return false;
        entries.push_back(std::move(entry));
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
        auto const erased = std::erase_if(nodes_[index].entries, condition);
        size_ -= erased;
        prune(index);
        return erased;
    }

    /// Calls `f(T&)` for each entry under this very filter, in the order of their insertion. `f` must not change the
    /// router.
    template <class F>
    void for_each(std::string_view filter, F&& f) {
        if (auto const index = find(filter); index != none)
            for (auto& entry : nodes_[index].entries) f(entry);
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
        std::string level;
        std::uint32_t parent = none;
        std::uint32_t any = none;    // the child '+'
        std::uint32_t rest = none;   // the child '#'
        std::uint32_t children = 0;  // how many, '+' and '#' included; in a free node: the next free one
        std::vector<T> entries;

        bool has_literals() const noexcept {
            return children > std::uint32_t{any != none} + std::uint32_t{rest != none};
        }
    };

    static std::string_view level_at(std::string_view topic, std::size_t at) noexcept {
        return topic.substr(at, topic.find('/', at) - at);
    }
    static std::size_t level_after(std::string_view topic, std::size_t at) noexcept {
        auto const slash = topic.find('/', at);
        return slash == std::string_view::npos ? slash : slash + 1;
    }
    static std::size_t level_before(std::string_view topic, std::size_t at) noexcept {
        // `at - 1` is the slash that ends the level before; npos - 1 is beyond every slash.
        auto const end = at == std::string_view::npos ? topic.size() : at - 1;
        auto const slash = end == 0 ? std::string_view::npos : topic.rfind('/', end - 1);
        return slash == std::string_view::npos ? 0 : slash + 1;
    }

    // A depth-first walk without recursion or stack: where a branch ends, the way back is read from the nodes' parents
    // and from the topic's slashes. At each node the literal level comes first, then '+'. Wildcards in the first level
    // do not match topics that begin with '$' [MQTT-4.7.2-1].
    template <class Self, class F>
    static void walk(Self& self, std::string_view topic, F& f) {
        auto const visit = [&](std::uint32_t index) {
            for (auto& entry : self.nodes_[index].entries) f(entry);
        };
        std::uint32_t const without_wildcards = topic.starts_with('$') ? root : none;
        std::size_t untried = 0;  // nodes on the way here whose '+' is to be tried yet
        std::uint32_t here = root;
        std::size_t at = 0;  // the beginning of the level to match next; npos: all levels are matched
        while (true) {
            auto const& node = self.nodes_[here];
            bool const wildcards = here != without_wildcards;
            if (wildcards && node.rest != none) visit(node.rest);
            std::uint32_t next = none;
            auto end = at;  // of the level
            std::uint32_t const any = wildcards ? node.any : none;
            if (at == std::string_view::npos) {
                visit(here);
            } else if (bool const literals = node.has_literals(); literals || any != none) {
                end = topic.find('/', at);
                if (literals) next = self.find_child(here, topic.substr(at, end - at));
                if (next == none)
                    next = any;
                else if (any != none)
                    ++untried;
            }
            if (next == none) {
                if (untried-- == 0) return;
                do {  // back to the nearest of them
                    auto const parent = self.nodes_[here].parent;
                    auto const other = self.nodes_[parent].any;
                    if (other != here && parent != without_wildcards) next = other;
                    here = parent;
                    at = level_before(topic, at);
                } while (next == none);
                end = topic.find('/', at);
            }
            here = next;
            at = end == std::string_view::npos ? end : end + 1;
        }
    }

    // The literal children of all nodes are in one hash table, keyed by parent and level: open addressing, a power of
    // two of slots, at most half of them taken.

    static std::size_t hash(std::uint32_t parent, std::string_view level) noexcept {
        std::uint64_t h = (std::uint64_t{parent} + 1) * 0x9E37'79B9'7F4A'7C15u ^ level.size();
        auto const mix = [&h](std::uint64_t word) {
            h = (h ^ word) * 0xD6E8'FEB8'6659'FD93u;
            h ^= h >> 32;
        };
        std::size_t i = 0;
        for (; level.size() - i > 8; i += 8) mix(load_word(level.data() + i, 8));
        mix(load_word(level.data() + i, level.size() - i));
        return static_cast<std::size_t>(h);
    }

    bool is_child(std::uint32_t index, std::uint32_t parent, std::string_view level) const noexcept {
        return nodes_[index].parent == parent && nodes_[index].level == level;
    }

    std::uint32_t find_child(std::uint32_t parent, std::string_view level) const noexcept {
        if (slots_.empty()) return none;
        auto const mask = slots_.size() - 1;
        for (auto i = hash(parent, level) & mask; slots_[i] != none; i = (i + 1) & mask)
            if (is_child(slots_[i], parent, level)) return slots_[i];
        return none;
    }

    RUNNEL_COLD void put_slot(std::uint32_t index) noexcept {
        auto const mask = slots_.size() - 1;
        auto i = hash(nodes_[index].parent, nodes_[index].level) & mask;
        while (slots_[i] != none) i = (i + 1) & mask;
        slots_[i] = index;
    }

    RUNNEL_COLD void make_room_for_slot() {
        if ((slots_taken_ + 1) * 2 <= slots_.size()) return;
        auto const before =
            std::exchange(slots_, std::vector<std::uint32_t>(slots_.empty() ? 16 : slots_.size() * 2, none));
        for (auto const other : before)
            if (other != none) put_slot(other);
    }

    RUNNEL_COLD void add_slot(std::uint32_t index) noexcept {
        put_slot(index);
        ++slots_taken_;
    }

    RUNNEL_COLD void remove_slot(std::uint32_t index) noexcept {
        auto const mask = slots_.size() - 1;
        auto hole = hash(nodes_[index].parent, nodes_[index].level) & mask;
        while (slots_[hole] != index) hole = (hole + 1) & mask;
        // What follows without a gap moves up, unless it would then stand before its own place.
        for (auto i = (hole + 1) & mask; slots_[i] != none; i = (i + 1) & mask) {
            auto const home = hash(nodes_[slots_[i]].parent, nodes_[slots_[i]].level) & mask;
            if (((i - home) & mask) >= ((i - hole) & mask)) {
                slots_[hole] = slots_[i];
                hole = i;
            }
        }
        slots_[hole] = none;
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
        for (std::size_t at = 0; at != std::string_view::npos; at = level_after(filter, at)) {
            auto const level = level_at(filter, at);
            auto const child = is_wildcard(level) ? wildcard_child(index, level) : find_child(index, level);
            index = child == none ? add_node(index, level) : child;
        }
        return index;
    }

    RUNNEL_COLD std::uint32_t find(std::string_view filter) noexcept {
        std::uint32_t index = root;
        for (std::size_t at = 0; at != std::string_view::npos && index != none; at = level_after(filter, at)) {
            auto const level = level_at(filter, at);
            index = is_wildcard(level) ? wildcard_child(index, level) : find_child(index, level);
        }
        return index;
    }

    RUNNEL_COLD std::uint32_t add_node(std::uint32_t parent, std::string_view level) {
        make_room_for_slot();
        if (free_ == none) {
            nodes_.emplace_back().children = none;
            free_ = static_cast<std::uint32_t>(nodes_.size() - 1);
            ++free_count_;
        }
        auto const index = free_;
        auto& added = nodes_[index];
        added.level = level;  // the last thing that can fail: the node is still free
        free_ = added.children;
        --free_count_;
        added.parent = parent;
        added.children = 0;
        if (is_wildcard(level))
            wildcard_child(parent, level) = index;
        else
            add_slot(index);
        ++nodes_[parent].children;
        return index;
    }

    // Removes the node, and those above it, as long as they hold nothing.
    RUNNEL_COLD void prune(std::uint32_t index) noexcept {
        while (index != root && nodes_[index].entries.empty() && nodes_[index].children == 0) {
            auto const parent = nodes_[index].parent;
            if (is_wildcard(nodes_[index].level))
                wildcard_child(parent, nodes_[index].level) = none;
            else
                remove_slot(index);
            --nodes_[parent].children;
            nodes_[index] = node{};
            nodes_[index].children = std::exchange(free_, index);
            ++free_count_;
            index = parent;
        }
    }

    std::vector<node> nodes_;
    std::vector<std::uint32_t> slots_;
    std::size_t slots_taken_ = 0;
    std::uint32_t free_ = none;  // the first of the free nodes
    std::size_t free_count_ = 0;
    std::size_t size_ = 0;
};

}  // namespace runnel::mqtt
