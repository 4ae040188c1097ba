#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/random.hpp>
#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/user_properties.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

// W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace a message belongs to, as the two user
// properties `traceparent` and `tracestate` of its PUBLISH. Sections of that document are named by their titles.
// Without I/O.

namespace runnel::mqtt {

/// Which trace a message belongs to, and which step of it has sent the message: the value of `traceparent`.
struct traceparent {
    static constexpr std::size_t text_size = 55;           ///< characters in version 00, which alone is written
    static constexpr std::uint8_t sampled = 0x01;          ///< the sender may have recorded its part of the trace
    static constexpr std::uint8_t random_trace_id = 0x02;  ///< the last 7 bytes of `trace_id` are random

    std::array<std::uint8_t, 16> trace_id{};  ///< not all 0
    std::array<std::uint8_t, 8> parent_id{};  ///< of the sender's span; not all 0
    std::uint8_t flags = 0;  ///< as received; others than the two above are not passed on (Other Flags)

    constexpr bool is_sampled() const noexcept { return (flags & sampled) != 0; }

    friend constexpr bool operator==(traceparent const&, traceparent const&) noexcept = default;
};

namespace detail {

/// The value of a lower-case hexadecimal digit, or -1.
constexpr int lower_hex_value(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/// Reads bytes, two digits each, from the beginning of `text`, which is long enough.
template <std::size_t N>
constexpr bool read_lower_hex(std::string_view text, std::array<std::uint8_t, N>& out) noexcept {
    for (std::size_t i = 0; i < N; ++i) {
        int const high = lower_hex_value(text[2 * i]);
        int const low = lower_hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return true;
}

template <std::size_t N>
constexpr char* write_lower_hex(char* out, std::array<std::uint8_t, N> const& bytes) noexcept {
    for (auto const byte : bytes) {
        *out++ = "0123456789abcdef"[byte >> 4];
        *out++ = "0123456789abcdef"[byte & 0xF];
    }
    return out;
}

template <std::size_t N>
constexpr bool is_all_zero(std::array<std::uint8_t, N> const& bytes) noexcept {
    return std::all_of(bytes.begin(), bytes.end(), [](auto byte) { return byte == 0; });
}

template <std::size_t N>
void fill_with_random_id(std::array<std::uint8_t, N>& id) {
    do fill_random(reinterpret_cast<char*>(id.data()), N);
    while (is_all_zero(id));
}

}  // namespace detail

/// Reads the value of a `traceparent`; nothing if it is none: then the trace begins anew. Of a version later than 00
/// what stands behind the flags is left out of account (Versioning of traceparent); ff is no version.
constexpr std::optional<traceparent> parse_traceparent(std::string_view text) noexcept {
    constexpr std::size_t id_at = 3, parent_at = 36, flags_at = 53;
    if (text.size() < traceparent::text_size) return std::nullopt;
    for (auto const dash : {id_at - 1, parent_at - 1, flags_at - 1})
        if (text[dash] != '-') return std::nullopt;
    std::array<std::uint8_t, 1> version{}, flags{};
    traceparent out;
    bool const is_hex = detail::read_lower_hex(text, version) &&
                        detail::read_lower_hex(text.substr(id_at), out.trace_id) &&
                        detail::read_lower_hex(text.substr(parent_at), out.parent_id) &&
                        detail::read_lower_hex(text.substr(flags_at), flags);
    if (!is_hex || version[0] == 0xFF) return std::nullopt;
    if (detail::is_all_zero(out.trace_id) || detail::is_all_zero(out.parent_id)) return std::nullopt;
    bool const ends = text.size() == traceparent::text_size;
    if (!ends && (version[0] == 0 || text[traceparent::text_size] != '-')) return std::nullopt;
    out.flags = flags[0];
    return out;
}

/// The value of a `traceparent`, in version 00, with the flags that this has.
constexpr std::array<char, traceparent::text_size> format_traceparent(traceparent const& p) noexcept {
    std::array<char, traceparent::text_size> text{'0', '0', '-'};
    constexpr unsigned known = traceparent::sampled | traceparent::random_trace_id;
    char* at = detail::write_lower_hex(text.data() + 3, p.trace_id);
    *at++ = '-';
    at = detail::write_lower_hex(at, p.parent_id);
    *at++ = '-';
    detail::write_lower_hex(at, std::array{static_cast<std::uint8_t>(p.flags & known)});
    return text;
}

/// The same as a string.
RUNNEL_COLD inline std::string to_string(traceparent const& p) {
    auto const text = format_traceparent(p);
    return {text.data(), text.size()};
}

/// Begins a trace, with random identifiers. Throws `std::system_error` if the system has no random bytes.
RUNNEL_COLD inline traceparent begin_trace(bool is_sampled) {
    traceparent made;
    detail::fill_with_random_id(made.trace_id);
    detail::fill_with_random_id(made.parent_id);
    made.flags = static_cast<std::uint8_t>(traceparent::random_trace_id | (is_sampled ? traceparent::sampled : 0));
    return made;
}

/// The next step of a trace that has come with a message: what is to be sent with the messages that follow from it. Has
/// a random `parent_id`; trace and flags stay. Throws as `begin_trace` does.
RUNNEL_COLD inline traceparent next_step(traceparent const& received) {
    auto made = received;
    detail::fill_with_random_id(made.parent_id);
    return made;
}

/// One member of a `tracestate`.
struct tracestate_member {
    std::string_view key{};
    std::string_view value{};

    friend constexpr bool operator==(tracestate_member const&, tracestate_member const&) noexcept = default;
};

/// Whether this may be a key of a `tracestate` (Key): 1 to 256 characters, the first a lower-case letter or a digit.
constexpr bool is_tracestate_key(std::string_view key) noexcept {
    auto const is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
    auto const is_allowed = [&](char c) { return is_letter(c) || std::string_view("_-*/@").find(c) != key.npos; };
    return !key.empty() && key.size() <= 256 && is_letter(key[0]) && std::all_of(key.begin(), key.end(), is_allowed);
}

/// Whether this may be a value (Value): 1 to 256 printable characters of ASCII without comma and equals sign, the
/// last of which is no space.
constexpr bool is_tracestate_value(std::string_view value) noexcept {
    auto const is_allowed = [](char c) { return c >= 0x20 && c <= 0x7E && c != ',' && c != '='; };
    return !value.empty() && value.size() <= 256 && value.back() != ' ' &&
           std::all_of(value.begin(), value.end(), is_allowed);
}

/// Takes the next member off the beginning of `rest`, a list with commas in between; members that are empty are passed
/// over. At the end, and if the next is no member, the result has no key; then `rest` tells which: it is empty at
/// the end.
constexpr tracestate_member take_tracestate_member(std::string_view& rest) noexcept {
    constexpr std::string_view blanks = " \t";
    while (!rest.empty()) {
        auto const comma = (std::min)(rest.find(','), rest.size());
        auto text = rest.substr(0, comma);
        text.remove_prefix((std::min)(text.find_first_not_of(blanks), text.size()));
        text = text.substr(0, text.find_last_not_of(blanks) + 1);
        if (!text.empty()) {
            auto const equals = (std::min)(text.find('='), text.size() - 1);
            tracestate_member const found{text.substr(0, equals), text.substr(equals + 1)};
            if (!is_tracestate_key(found.key) || !is_tracestate_value(found.value)) return {};
            rest.remove_prefix((std::min)(comma + 1, rest.size()));
            return found;
        }
        rest.remove_prefix((std::min)(comma + 1, rest.size()));
    }
    return {};
}

/// What the systems of tracing that a message has passed keep with it: up to 32 members, the latest first.
class tracestate {
  public:
    static constexpr std::size_t maximum_members = 32;
    static constexpr std::size_t maximum_size = 512;  ///< characters, of what is passed on here (tracestate Limits)

    /// Nothing is kept.
    tracestate() noexcept = default;

    /// Reads a list. Nothing if it is none, or has more than 32 members: then it is dropped as a whole. Of members with
    /// the same key the first counts. What is longer than `maximum_size` is shortened as tracestate Limits has it:
    /// members of more than 128 characters go first, then those at the end.
    RUNNEL_COLD static std::optional<tracestate> parse(std::string_view list) {
        tracestate out;
        std::size_t count = 0;
        while (true) {
            auto const member = take_tracestate_member(list);
            if (member.key.empty()) break;
            if (++count > maximum_members) return std::nullopt;
            if (!out.find(member.key)) out.append(member);
        }
        if (!list.empty()) return std::nullopt;
        out.shorten(0);
        return out;
    }

    /// The value of a key, if it is there; valid until this changes.
    RUNNEL_COLD std::optional<std::string_view> find(std::string_view key) const noexcept {
        for (std::string_view rest = text_;;) {
            auto const member = take_tracestate_member(rest);
            if (member.key.empty()) return std::nullopt;
            if (member.key == key) return member.value;
        }
    }

    /// Sets the value of a key, which is the first from then on (Mutating the tracestate Field); others go, as in
    /// `parse`, if there are too many. Throws `std::invalid_argument`, and changes nothing, if the key or the value
    /// cannot be one, or both are longer than `maximum_size`.
    RUNNEL_COLD void set(std::string_view key, std::string_view value) {
        if (!is_tracestate_key(key)) RUNNEL_THROW(std::invalid_argument("no key of a tracestate"));
        if (!is_tracestate_value(value)) RUNNEL_THROW(std::invalid_argument("no value of a tracestate"));
        if (key.size() + value.size() >= maximum_size) RUNNEL_THROW(std::invalid_argument("too long for a tracestate"));
        tracestate changed;
        changed.append({key, value});
        std::size_t count = 1;
        for (std::string_view rest = text_; count < maximum_members;) {
            auto const member = take_tracestate_member(rest);
            if (member.key.empty()) break;
            if (member.key == key) continue;
            changed.append(member);
            ++count;
        }
        changed.shorten(key.size() + value.size() + 2);
        *this = std::move(changed);
    }

    bool empty() const noexcept { return text_.empty(); }
    /// The list as it is sent, at most `maximum_size` characters, without blanks around members.
    std::string const& text() const noexcept { return text_; }

    friend bool operator==(tracestate const&, tracestate const&) noexcept = default;

  private:
    RUNNEL_COLD void append(tracestate_member const& member) {
        if (!text_.empty()) text_ += ',';
        text_.append(member.key).append(1, '=').append(member.value);
    }

    // Members that begin before `keep` stay.
    RUNNEL_COLD void shorten(std::size_t keep) {
        constexpr std::size_t long_member = 128;
        while (text_.size() > maximum_size) {
            auto begin = text_.rfind(',') + 1;  // of the last one, or of the last that is long; 0 if there is but one
            for (std::size_t at = keep; at < text_.size();) {
                auto const end = (std::min)(text_.find(',', at), text_.size());
                if (end - at > long_member) begin = at;
                at = end + 1;
            }
            auto const end = (std::min)(text_.find(',', begin), text_.size());
            if (begin == 0)
                text_.erase(0, end + 1);
            else
                text_.erase(begin - 1, end - begin + 1);
        }
    }

    std::string text_{};
};

/// What the two user properties say.
struct trace_context {
    traceparent parent{};
    tracestate state{};

    friend bool operator==(trace_context const&, trace_context const&) noexcept = default;
};

/// Puts a trace context into the user properties of a message that is to be sent: behind the others, in place of one
/// that is there already, as when properties of a message received are passed on. Without members no `tracestate` is
/// sent (an empty one should not be). `context.parent`, whose identifiers must not be 0, is that of this sender: see
/// `begin_trace`, `next_step`.
///
///     runnel::mqtt::user_properties own;
///     inject(context, own);
///     runnel::mqtt::properties props{.user_properties = own.list()};
///     co_await session.publish(topic, payload, {.props = &props});
RUNNEL_COLD inline void inject(trace_context const& context, user_properties& into) {
    user_properties made;
    for (auto const& [name, value] : into.list())
        if (name != "traceparent" && name != "tracestate") made.add(name, value);
    auto const parent = format_traceparent(context.parent);
    made.add("traceparent", {parent.data(), parent.size()});
    if (!context.state.empty()) made.add("tracestate", context.state.text());
    into = std::move(made);
}

/// The trace context in the user properties of a message received. Nothing if there is no `traceparent`, if it is not
/// valid, or if there are two; then `tracestate` is not looked at. Several `tracestate` are one list, in their
/// order; one that is not valid is dropped, and `state` is empty. Names are lower-case, as nothing here folds them.
RUNNEL_COLD inline std::optional<trace_context> extract(user_property_list const& from) {
    std::string_view parent;
    std::size_t parents = 0;
    std::string states;
    for (auto const& [name, value] : from) {
        if (name == "traceparent") {
            parent = value;
            ++parents;
        } else if (name == "tracestate") {
            if (!states.empty()) states += ',';
            states += value;
        }
    }
    auto const parsed = parents == 1 ? parse_traceparent(parent) : std::nullopt;
    if (!parsed) return std::nullopt;
    trace_context out{*parsed, {}};
    if (auto state = tracestate::parse(states)) out.state = std::move(*state);
    return out;
}

}  // namespace runnel::mqtt
