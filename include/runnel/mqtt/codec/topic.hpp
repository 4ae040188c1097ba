#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/utf8.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/codec/wire.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace runnel::mqtt {

/// What is wrong with a topic name of any bytes, if anything.
RUNNEL_NOINLINE constexpr errc find_topic_name_error(std::string_view topic) noexcept {
    if (topic.empty()) return errc::topic_empty;
    if (errc const error = check_string(topic); error != errc::ok) return error;
    return topic.find_first_of("+#") == std::string_view::npos ? errc::ok : errc::wildcard_in_topic_name;
}

/// Checks a topic name: not empty [MQTT-4.7.3-1], a string (see `check_string`, [MQTT-4.7.3-2], [MQTT-4.7.3-3]), and
/// without wildcards ([MQTT-3.3.2-2], [MQTT-4.7.1-1] in 3.1.1). `readable` bytes, at least those of `topic`, can be
/// read where it begins.
RUNNEL_ALWAYS_INLINE constexpr errc check_topic_name(std::string_view topic, std::size_t readable) noexcept {
    // Nearly every topic is ASCII and passes this one test. '+' (0x2B) and '#' (0x23) differ in bit 3 alone, so one
    // comparison finds both.
    constexpr auto test = [](auto word) { return test_ascii_without(word, 0x08, '+'); };
    if (topic.size() <= max_string_size && is_ascii(topic, test, readable) && !topic.empty()) [[likely]]
        return errc::ok;
    return find_topic_name_error(topic);
}

/// Checks a topic name.
constexpr errc check_topic_name(std::string_view topic) noexcept { return check_topic_name(topic, topic.size()); }

/// The two parts of a shared subscription's filter, `$share/group/filter`.
struct shared_filter {
    std::string_view group{};   ///< the share name; empty if the subscription is not shared
    std::string_view filter{};  ///< the topic filter that topics are matched with

    constexpr bool is_shared() const noexcept { return !group.empty(); }
};

/// Takes a valid filter apart. A filter that is not of the form `$share/group/filter` comes back whole, without group.
constexpr shared_filter split_shared(std::string_view filter) noexcept {
    constexpr std::string_view prefix = "$share/";
    if (!filter.starts_with(prefix)) return {{}, filter};
    auto const rest = filter.substr(prefix.size());
    auto const slash = rest.find('/');
    if (slash == std::string_view::npos || slash == 0 || slash + 1 == rest.size()) return {{}, filter};
    return {rest.substr(0, slash), rest.substr(slash + 1)};
}

/// Checks a topic filter: not empty [MQTT-4.7.3-1], a string (see `check_string`), `#` only as the whole last level
/// [MQTT-4.7.1-1], `+` only as a whole level [MQTT-4.7.1-2]. In MQTT 5 a filter whose first level is `$share` must have
/// a share name of at least one character without wildcards, and a filter behind it [MQTT-4.8.2-1] [MQTT-4.8.2-2].
constexpr errc check_topic_filter(std::string_view filter, protocol_version version = protocol_version::v5) noexcept {
    if (filter.empty()) return errc::topic_empty;
    if (errc const error = check_string(filter); error != errc::ok) return error;
    auto const is_boundary = [&](std::size_t i) { return i >= filter.size() || filter[i] == '/'; };
    for (std::size_t i = 0; i < filter.size(); ++i) {
        if (filter[i] != '+' && filter[i] != '#') continue;
        bool const begins_level = i == 0 || filter[i - 1] == '/';
        bool const ends_level = filter[i] == '#' ? i + 1 == filter.size() : is_boundary(i + 1);
        if (!begins_level || !ends_level) return errc::invalid_topic_filter;
    }
    if (version == protocol_version::v5 && filter.starts_with("$share") && is_boundary(6)) {
        auto const shared = split_shared(filter);
        if (!shared.is_shared() || shared.group.find_first_of("+#") != std::string_view::npos)
            return errc::invalid_shared_subscription;
    }
    return errc::ok;
}

/// The filter inside one that some servers know as exclusive or shared without a group, and which stands behind a
/// prefix: `$exclusive/`, `$queue/`, `$q/`. Messages come under topics that match it; at other servers under topics
/// that match the whole. Empty: the filter has no such prefix.
constexpr std::string_view inner_filter(std::string_view filter) noexcept {
    for (std::string_view const prefix : {"$exclusive/", "$queue/", "$q/"})
        if (filter.starts_with(prefix)) return filter.substr(prefix.size());
    return {};
}

/// Whether a subscription with this filter gets messages of this topic. Both are valid, and the filter of a shared
/// subscription is taken apart before (`split_shared`). Wildcards in the first level do not match topics that begin
/// with `$` [MQTT-4.7.2-1].
constexpr bool matches(std::string_view filter, std::string_view topic) noexcept {
    if (topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'))) return false;
    std::size_t f = 0;
    std::size_t t = 0;
    while (f < filter.size()) {
        if (filter[f] == '#') return true;
        if (filter[f] == '+') {
            ++f;
            while (t < topic.size() && topic[t] != '/') ++t;
        } else if (t < topic.size() && filter[f] == topic[t]) {
            ++f;
            ++t;
        } else {
            // "a/#" matches "a" too (4.7.1.2).
            return t == topic.size() && filter.substr(f) == "/#";
        }
    }
    return t == topic.size();
}

/// `text.starts_with(prefix)`, without a call where the prefix has 8 to 16 bytes: two words, which may overlap.
inline bool begins_with(std::string_view text, std::string_view prefix) noexcept {
    std::size_t const n = prefix.size();
    if (n < 8 || n > 16 || text.size() < n) return text.starts_with(prefix);
    auto const differ = [&](std::size_t at) {
        std::uint64_t words[2];
        std::memcpy(&words[0], text.data() + at, 8);
        std::memcpy(&words[1], prefix.data() + at, 8);
        return words[0] ^ words[1];
    };
    return (differ(0) | differ(n - 8)) == 0;
}

/// A topic filter that is compared with many topics: as `matches`, but what stands in front of its first wildcard is
/// compared at once. A view.
class topic_pattern {
  public:
    explicit constexpr topic_pattern(std::string_view filter) noexcept
        : filter_(filter), literal_(filter.substr(0, filter.find_first_of("+#"))) {}

    bool matches(std::string_view topic) const noexcept {
        if (!begins_with(topic, literal_) || literal_.empty()) [[unlikely]]
            return mqtt::matches(filter_, topic);  // "a/#" matches "a" too
        if (literal_.size() == filter_.size()) return topic.size() == literal_.size();
        return filter_[literal_.size()] == '#' || mqtt::matches(filter_, topic);
    }

  private:
    std::string_view filter_;
    std::string_view literal_;
};

}  // namespace runnel::mqtt
