#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/packet/publish.hpp>
#include <runnel/mqtt/protocol/detail/publish_layout.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace runnel::mqtt::detail {

// Topic aliases (MQTT 5, 3.3.2.3.4): numbers that stand for topics, for each direction of one network connection.

/// The aliases that this end gives to the topics it publishes to. A topic is found in constant time, at once if it is
/// the one of the last message; and once the table is full, nothing is allocated unless topics get longer.
///
/// When all aliases are taken, a topic gets the one that has not been used for the longest time, but only if it has
/// been published to not long ago: topics that come but once shall not cost those that come again their aliases.
class outgoing_aliases {
  public:
    /// A topic's alias: 0 if it has none.
    struct choice {
        std::uint16_t alias = 0;
        std::uint32_t hash = 0;  ///< of the topic; for `assign`
        bool known() const noexcept { return alias != 0; }
    };

    /// Shorter topics gain nothing, longer ones are not worth the memory; bytes.
    static constexpr std::size_t min_topic = 5, max_topic = 1024;

    /// Begins a connection on which the peer takes aliases up to `maximum`; 0: none.
    void restart(std::uint16_t maximum) noexcept {
        maximum_ = maximum;
        table_.reset();
    }

    std::uint16_t maximum() const noexcept { return maximum_; }

    /// The alias that the peer knows the topic by.
    choice find(std::string_view topic) noexcept {
        if (auto const alias = find_newest(topic); alias != 0) return {alias, 0};
        return table_ ? table_->find_older(topic) : choice{};
    }

    /// The same, if it is the topic of the last message that had an alias; else 0.
    std::uint16_t find_newest(std::string_view topic) const noexcept {
        return table_ && table_->is_newest(topic) ? alias_of(table_->newest) : std::uint16_t{0};
    }

    /// Gives a topic, which `find` has not found, an alias that is to be sent together with the topic; 0: none.
    std::uint16_t assign(std::string_view topic, choice missed) {
        if (maximum_ == 0 || topic.size() < min_topic || topic.size() > max_topic) return 0;
        if (!table_) {
            missed.hash = hash_of(topic);
            table_ = std::make_unique<table>(maximum_);
        }
        return table_->assign(topic, missed.hash, maximum_);
    }

  private:
    static constexpr std::uint32_t none = (std::numeric_limits<std::uint32_t>::max)();
    static constexpr std::size_t seen_places = 64;

    static std::uint16_t alias_of(std::uint32_t at) noexcept { return static_cast<std::uint16_t>(at + 1); }
    static std::uint32_t hash_of(std::string_view topic) noexcept {
        return static_cast<std::uint32_t>(std::hash<std::string_view>{}(topic)) | 1;  // not 0, which stands for none
    }

    struct entry {
        std::string topic{};
        std::uint32_t hash = 0;
        std::uint32_t next_in_bucket = none;
        std::uint32_t older = none;
        std::uint32_t newer = none;
    };

    // Of a connection on which there are aliases.
    struct table {
        explicit table(std::uint16_t maximum) : buckets(std::bit_ceil(std::size_t{maximum}) * 2, none) {}

        bool is_newest(std::string_view topic) const noexcept {
            return !entries.empty() && entries[newest].topic == topic;
        }

        RUNNEL_NOINLINE choice find_older(std::string_view topic) noexcept {
            auto const hash = hash_of(topic);
            for (auto at = bucket_of(hash); at != none; at = entries[at].next_in_bucket) {
                if (entries[at].hash != hash || entries[at].topic != topic) continue;
                unlink(at);
                link_newest(at);
                return {alias_of(at), hash};
            }
            return {0, hash};
        }

        std::uint16_t assign(std::string_view topic, std::uint32_t hash, std::uint16_t maximum) {
            bool const is_new = entries.size() < maximum;
            if (!is_new && !seen_lately(hash)) return 0;
            if (is_new) entries.emplace_back();
            auto const at = is_new ? static_cast<std::uint32_t>(entries.size() - 1) : oldest;
            RUNNEL_TRY {
                entries[at].topic.reserve(topic.size());  // nothing fails from here on
            }
            RUNNEL_CATCH_ALL {
                if (is_new) entries.pop_back();
                RUNNEL_RETHROW;
            }
            if (!is_new) {
                remove_from_bucket(at);
                unlink(at);
            }
            auto& e = entries[at];
            e.topic = topic;
            e.hash = hash;
            auto& bucket = bucket_of(hash);
            e.next_in_bucket = bucket;
            bucket = at;
            link_newest(at);
            return alias_of(at);
        }

        std::uint32_t& bucket_of(std::uint32_t hash) noexcept { return buckets[(hash >> 1) & (buckets.size() - 1)]; }

        bool seen_lately(std::uint32_t hash) {
            if (seen.empty()) seen.assign(seen_places, 0);
            auto& place = seen[(hash >> 1) % seen_places];
            bool const found = place == hash;
            place = hash;
            return found;
        }

        void remove_from_bucket(std::uint32_t at) noexcept {
            auto* link = &bucket_of(entries[at].hash);
            while (*link != at) link = &entries[*link].next_in_bucket;
            *link = entries[at].next_in_bucket;
        }

        void unlink(std::uint32_t at) noexcept {
            auto const& e = entries[at];
            (e.newer == none ? newest : entries[e.newer].older) = e.older;
            (e.older == none ? oldest : entries[e.older].newer) = e.newer;
        }

        void link_newest(std::uint32_t at) noexcept {
            entries[at].older = newest;
            entries[at].newer = none;
            (newest == none ? oldest : entries[newest].newer) = at;
            newest = at;
        }

        std::vector<entry> entries{};        // alias 1 first
        std::vector<std::uint32_t> buckets;  // the first entry of each chain
        std::vector<std::uint32_t> seen{};   // hashes of topics without alias
        std::uint32_t newest = none;         // used last
        std::uint32_t oldest = none;
    };

    std::uint16_t maximum_ = 0;
    std::unique_ptr<table> table_{};  // nullptr: no topic has an alias yet
};

/// The topics that the peer has given aliases to.
class incoming_aliases {
  public:
    /// Begins a connection on which this end takes aliases up to `maximum`; 0: none.
    void restart(std::uint16_t maximum) noexcept {
        maximum_ = maximum;
        topics_.clear();
    }

    /// Notes the topic of a message that has an alias, or gives it the topic that its alias stands for: a view that is
    /// valid until the next call.
    errc resolve(publish& message, std::uint16_t alias) {
        if (alias == 0 || alias > maximum_) return errc::topic_alias_invalid;  // [MQTT-3.3.2-8] and 3.3.2.3.4
        if (message.topic.empty()) {
            if (alias > topics_.size() || topics_[alias - 1u].empty()) return errc::topic_alias_unknown;
            message.topic = topics_[alias - 1u];
            return errc::ok;
        }
        if (alias > topics_.size()) topics_.resize(alias);
        topics_[alias - 1u] = message.topic;
        return errc::ok;
    }

  private:
    std::uint16_t maximum_ = 0;
    std::vector<std::string> topics_{};  // of alias 1 first; empty: not given
};

/// Bytes that a topic alias may add to a packet: itself, and a longer form of two lengths.
inline constexpr std::size_t max_alias_growth = 5;

/// The size of a packet beside whose properties a topic alias is written.
constexpr publish_size with_alias(publish_size size) noexcept {
    std::size_t const properties = size.property_length + 3;
    return {size.remaining_length - with_length(size.property_length) + with_length(properties), properties};
}

/// Writes a packet of MQTT 5 with a topic alias beside its properties, of which no other is one; `size` is
/// `with_alias(measure(p))`. Returns the end of what was written.
constexpr char* encode_with_alias(char* out, publish const& p, publish_size size, std::uint16_t alias) noexcept {
    auto const flags = (p.dup ? 8u : 0u) | static_cast<unsigned>(p.qos) << 1 | (p.retain ? 1u : 0u);
    out = write_fixed_header(out, packet_type::publish, static_cast<std::uint8_t>(flags), size.remaining_length);
    out = write_field(out, p.topic);
    if (p.qos != qos::at_most_once) out = write_big_endian(out, p.packet_id);
    out = write_variable_integer(out, static_cast<std::uint32_t>(size.property_length));
    *out++ = static_cast<char>(property_id::topic_alias);
    out = write_big_endian(out, alias);
    if (p.props.own())
        out = write_values(out, *p.props.own(), packet_constant<packet_type::publish>);
    else
        out = write_bytes(out, p.props.raw());
    return write_bytes(out, p.payload);
}

// For the hot path: a QoS 0 message without properties, of whose topic the peer knows the alias.

/// Bytes of the whole packet.
constexpr std::size_t size_with_known_topic(std::string_view payload) noexcept {
    return packet_size(2 + with_length(3) + payload.size());
}

/// Writes the packet; returns the end of what was written.
constexpr char* encode_with_known_topic(char* out, std::string_view payload, bool retain,
                                        std::uint16_t alias) noexcept {
    out = write_fixed_header(out, packet_type::publish, retain ? 1 : 0, 2 + with_length(3) + payload.size());
    out = write_big_endian(out, std::uint32_t{3} << 8 | std::uint32_t{0x23});  // no topic; 3 bytes of properties
    return write_bytes(write_big_endian(out, alias), payload);
}

/// Appends an encoded PUBLISH of MQTT 5, which has no topic alias, with one; without its topic if that is `known`.
inline void append_with_alias(send_buffer& out, std::string_view packet, publish_layout const& parts,
                              std::uint16_t alias, bool known) {
    auto const topic = known ? std::string_view() : parts.topic;
    std::size_t const identifier = (packet[0] & 6) != 0 ? 2 : 0;
    std::size_t const properties = parts.property_length + 3;
    std::size_t const remaining =
        field_size(topic) + identifier + with_length(properties) + parts.rest.size() - parts.property_length;
    std::size_t const size = packet_size(remaining);
    char* at = out.prepare(size);
    *at++ = packet[0];
    at = write_variable_integer(at, static_cast<std::uint32_t>(remaining));
    at = write_field(at, topic);
    at = write_bytes(at, {parts.identifier, identifier});
    at = write_variable_integer(at, static_cast<std::uint32_t>(properties));
    *at++ = static_cast<char>(property_id::topic_alias);
    at = write_big_endian(at, alias);
    write_bytes(at, parts.rest);
    out.commit(size);
}

}  // namespace runnel::mqtt::detail
