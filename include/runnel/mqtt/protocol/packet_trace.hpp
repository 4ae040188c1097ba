#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/protocol/packet_scanner.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

// Packets as lines of text, for logs. Without I/O: bytes go in, lines come out.
//
// What never stands in a line, at no level: passwords and authentication data, of which the size is told. Everything
// that comes from outside is made `printable` and stands in quotes, in which quotes and backslashes are escaped: no
// topic can look like a line of its own, or like another field.

namespace runnel::mqtt {

/// How much is traced; each level has what the ones before have.
enum class trace_level : std::uint8_t {
    none,         ///< nothing
    failures,     ///< attempts and connections that fail, and what is no MQTT
    connections,  ///< the steps of connecting, with whom and how, and ends of connections
    packets,      ///< each packet with its main fields: client identifiers and topics among them
    details,      ///< all of their properties, user properties' values included, and user names
};

/// Which way a packet goes, as seen from this end.
enum class trace_direction : std::uint8_t { sent, received };

/// What is told of packets.
struct packet_trace_options {
    trace_level level = trace_level::packets;
    std::size_t payload = 0;  ///< bytes of payloads that are shown, wills' included; their size is told in any case
    std::size_t line = 1000;  ///< bytes of a packet's text; three dots stand for the rest
};

namespace detail {

/// A line of limited length.
class trace_text {
  public:
    explicit trace_text(std::size_t limit) : limit_(limit) { text_.reserve((std::min)(limit, usual)); }

    bool is_full() const noexcept { return text_.size() > limit_; }

    /// Text of the library's own.
    RUNNEL_COLD trace_text& add(std::string_view text) {
        if (!is_full()) text_ += text;
        return *this;
    }
    RUNNEL_COLD trace_text& add(std::uint64_t number) { return add(std::to_string(number)); }

    /// Text from outside, no more than `most` bytes of it.
    RUNNEL_COLD trace_text& quote(std::string_view text, std::size_t most = 250) {
        if (is_full()) return *this;
        std::string escaped;
        for (char const c : text.substr(0, most + 1)) {
            if (c == '"' || c == '\\') escaped += '\\';
            escaped += c;
        }
        return add("\"").add(printable(escaped, most)).add("\"");
    }

    RUNNEL_COLD std::string take() {
        if (!is_full()) return std::move(text_);
        auto end = limit_;
        while (end > 0 && (static_cast<unsigned char>(text_[end]) & 0xC0) == 0x80) --end;  // within a character
        text_.resize(end);
        return std::move(text_ += "...");
    }

  private:
    static constexpr std::size_t usual = 200;

    std::size_t limit_;
    std::string text_{};
};

/// Writes what is to be told of packets of one version.
class packet_describer {
  public:
    packet_describer(trace_text& out, protocol_version version, packet_trace_options const& options,
                     scanned_packet const& packet) noexcept
        : out_(out), version_(version), options_(options), packet_(packet) {}

    RUNNEL_COLD void begin(std::uint16_t identifier = 0) {
        if (identifier != 0) out_.add(" ").add(identifier);
        out_.add(", ").add(packet_.size()).add(" bytes");
    }

    RUNNEL_COLD void operator()(connect const& p) {
        begin();
        out_.add(version_ == protocol_version::v5 ? ": MQTT 5, client " : ": MQTT 3.1.1, client ").quote(p.client_id);
        if (p.clean_start) out_.add(version_ == protocol_version::v5 ? ", clean start" : ", clean session");
        out_.add(", keep alive ").add(p.keep_alive).add(" s");
        if (p.user_name) {
            if (options_.level >= trace_level::details)
                out_.add(", user name ").quote(*p.user_name);
            else
                size_of("user name", p.user_name->size());
        }
        if (p.password) size_of("password", p.password->size());
        properties_of(p.props);
        if (!p.will) return;
        out_.add("; will to ").quote(p.will->topic);
        message(p.will->qos, p.will->retain, p.will->payload, p.will->payload.size());
        properties_of(p.will->props);
    }
    RUNNEL_COLD void operator()(connack const& p) {
        begin();
        reason(p.reason);
        if (p.session_present) out_.add(", session present");
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(publish const& p) {
        begin(p.packet_id);
        out_.add(": ").quote(p.topic);
        auto const alias = p.props.get<property_id::topic_alias>();
        if (alias && options_.level < trace_level::details) out_.add(", Topic Alias ").add(*alias);
        if (p.dup) out_.add(", DUP");
        auto const head = packet_.body.size() - p.payload.size();
        message(p.qos, p.retain, p.payload, packet_.header.remaining_length - head);
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(acknowledgement const& p) {
        begin(p.packet_id);
        if (version_ == protocol_version::v5) reason(p.reason);
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(subscribe const& p) {
        begin(p.packet_id);
        char const* before = ": ";
        for (auto const& r : p.requests) {
            out_.add(before).quote(r.filter).add(" QoS ").add(static_cast<unsigned>(r.maximum_qos));
            if (r.no_local) out_.add(" no local");
            if (r.retain_as_published) out_.add(" retain as published");
            if (r.handling != retain_handling::send)
                out_.add(" retain handling ").add(static_cast<unsigned>(r.handling));
            if (out_.is_full()) return;
            before = ", ";
        }
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(suback const& p) {
        begin(p.packet_id);
        reasons(p.reasons, true);
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(unsubscribe const& p) {
        begin(p.packet_id);
        char const* before = ": ";
        for (auto const& filter : p.filters) {
            if (out_.add(before).quote(filter).is_full()) return;
            before = ", ";
        }
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(unsuback const& p) {
        begin(p.packet_id);
        reasons(p.reasons, false);
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(disconnect const& p) {
        begin();
        if (version_ == protocol_version::v5) reason(p.reason);
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(auth const& p) {
        begin();
        reason(p.reason);
        properties_of(p.props);
    }
    RUNNEL_COLD void operator()(pingreq const&) { begin(); }
    RUNNEL_COLD void operator()(pingresp const&) { begin(); }

  private:
    RUNNEL_COLD void size_of(char const* what, std::size_t size) {
        out_.add(", ").add(what).add(" of ").add(size).add(" bytes");
    }
    RUNNEL_COLD void message(qos quality, bool retain, std::string_view payload, std::size_t size) {
        out_.add(", QoS ").add(static_cast<unsigned>(quality));
        if (retain) out_.add(", retain");
        size_of("payload", size);
        if (options_.payload == 0) return;
        auto const shown = payload.substr(0, (std::min)(options_.payload, options_.line));
        out_.add(" ").quote(shown, 4 * shown.size()).add(shown.size() < size ? " and more" : "");
    }
    RUNNEL_COLD void reason(reason_code code) { out_.add(": ").add(name(code)); }
    RUNNEL_COLD void reasons(reason_code_list const& list, bool are_granted) {
        char const* before = ": ";
        for (auto const code : list) {
            out_.add(before);
            if (are_granted && code <= reason_code::granted_qos_2)
                out_.add("QoS ").add(static_cast<unsigned>(code));
            else
                out_.add(name(code));
            if (out_.is_full()) return;
            before = ", ";
        }
    }

    // Below the details only what people are told.
    RUNNEL_COLD void properties_of(property_view const& view) {
        if (view.empty()) return;
        auto const all = view.parse();
        bool const is_detailed = options_.level >= trace_level::details;
        for (auto bits = present(all); bits != 0 && !out_.is_full(); bits &= bits - 1) {
            auto const& property = lowest_of(bits);
            bool const is_for_people =
                property.id == property_id::reason_string || property.id == property_id::server_reference;
            if (!is_detailed && !is_for_people) continue;
            visit_property(all, property, [&](auto const& value) { one_property(property, value); });
        }
    }
    template <class T>
    RUNNEL_COLD void one_property(property_definition const& property, std::optional<T> const& value) {
        if constexpr (std::is_same_v<T, std::string_view>) {
            // Binary data is credentials, or of no use to people.
            if (property.type == property_type::binary_data) return size_of(property.name, value->size());
            out_.add(", ").add(property.name).add(" ").quote(*value);
        } else {
            out_.add(", ").add(property.name).add(" ").add(*value);
        }
    }
    RUNNEL_COLD void one_property(property_definition const& property, user_property_list const& list) {
        for (auto const& [key, value] : list) {
            out_.add(", ").add(property.name).add(" ").quote(key).add(" = ").quote(value);
            if (out_.is_full()) return;
        }
    }
    RUNNEL_COLD void one_property(property_definition const& property, subscription_identifier_list const& list) {
        for (auto const identifier : list) {
            out_.add(", ").add(property.name).add(" ").add(identifier);
            if (out_.is_full()) return;
        }
    }

    trace_text& out_;
    protocol_version version_;
    packet_trace_options const& options_;
    scanned_packet const& packet_;
};

/// Decodes a packet, and calls `f` with it if that succeeds. Of a PUBLISH the payload may be cut short.
template <class F>
RUNNEL_COLD errc visit_packet(scanned_packet const& p, protocol_version version, F&& f) {
    auto const as = [&]<class Packet>(Packet packet) {
        errc const error = decode(p.header, p.body, version, packet);
        if (error == errc::ok) f(packet);
        return error;
    };
    switch (p.header.type) {
        case packet_type::connect: return as(connect{});
        case packet_type::connack: return as(connack{});
        case packet_type::publish: return as(publish{});
        case packet_type::puback:
        case packet_type::pubrec:
        case packet_type::pubrel:
        case packet_type::pubcomp: return as(acknowledgement{});
        case packet_type::subscribe: return as(subscribe{});
        case packet_type::suback: return as(suback{});
        case packet_type::unsubscribe: return as(unsubscribe{});
        case packet_type::unsuback: return as(unsuback{});
        case packet_type::pingreq: return as(pingreq{});
        case packet_type::pingresp: return as(pingresp{});
        case packet_type::disconnect: return as(disconnect{});
        case packet_type::auth: return as(auth{});
    }
    return errc::unknown_packet_type;
}

}  // namespace detail

/// A packet as text: "PUBLISH 7, 24 bytes: "a/b", QoS 1, payload of 12 bytes". `version` is that of the connection;
/// `automatic` if it is not known: then, and of a packet that is not whole, type and size are told only, and of a
/// PUBLISH what there is. `error` is what is wrong with the packet, which the text says, too; `ok` if nothing is.
RUNNEL_COLD inline std::string describe(scanned_packet const& packet, protocol_version version,
                                        packet_trace_options const& options, errc& error) {
    auto const type = packet.header.type;
    detail::trace_text out(options.line);
    out.add(name(type));
    detail::packet_describer describer(out, version, options, packet);
    error = errc::ok;
    bool const can_decode = packet.is_whole || type == packet_type::publish;
    if (version == protocol_version::automatic) {
        describer.begin();
    } else if (!can_decode) {
        describer.begin();
        out.add(", too long to be looked into");
    } else {
        error = detail::visit_packet(packet, version, describer);
        if (error != errc::ok) describer.begin();
        if (!packet.is_whole && error != errc::ok) {
            out.add(", too long to be looked into");
            error = errc::ok;
        } else if (type == packet_type::connack && error != errc::ok &&
                   is_of_other_version(packet.header, packet.body, version)) {
            out.add(" in the other version of MQTT");
            error = errc::ok;
        }
    }
    if (error != errc::ok) out.add(", malformed: ").add(make_error_code(error).message());
    return out.take();
}

/// Tells of the packets of one connection, by looking on at both directions: bytes come in pieces of any size. Learns
/// the version from CONNECT. Keeps at most `maximum_kept` bytes in each direction, whatever the packets are.
class packet_tracer {
  public:
    static constexpr std::size_t maximum_kept = 16 * 1024;

    explicit packet_tracer(packet_trace_options const& options = {})
        : options_(options), scanners_{packet_scanner(maximum_kept), packet_scanner(maximum_kept)} {}

    /// Looks at the next bytes of one direction. Calls `on_line(trace_level, std::string_view)` for each line of the
    /// options' level and those before; the text is valid during the call. After an exception of `on_line`, or of
    /// `std::bad_alloc`, nothing is told of this direction any more.
    template <class F>
    void feed(trace_direction direction, std::string_view bytes, F&& on_line) {
        if (options_.level == trace_level::none) return;
        auto& scanner = scanners_[static_cast<std::size_t>(direction)];
        auto const before = scanner.error();
        std::string const way = direction == trace_direction::sent ? "sent " : "received ";
        scanner.feed(bytes, [&](scanned_packet const& p) { tell(p, way, on_line); });
        if (before == errc::ok && scanner.error() != errc::ok)
            on_line(trace_level::failures, way + "what is no MQTT: " + make_error_code(scanner.error()).message() +
                                               "; what follows is not looked at");
    }

    /// The connection's version; `automatic` before CONNECT.
    protocol_version version() const noexcept { return version_; }
    /// Bytes that were not looked at, behind an error.
    std::uint64_t unread(trace_direction direction) const noexcept {
        return scanners_[static_cast<std::size_t>(direction)].unread();
    }
    /// Whether the last packet is not whole.
    bool is_within_packet(trace_direction direction) const noexcept {
        return scanners_[static_cast<std::size_t>(direction)].is_within_packet();
    }

  private:
    template <class F>
    RUNNEL_COLD void tell(scanned_packet const& p, std::string const& way, F& on_line) {
        if (p.header.type == packet_type::connect) {
            version_ = protocol_version::automatic;
            errc const error = read_protocol_version(p.body, version_);
            if (error != errc::ok) {
                on_line(trace_level::failures, way + "CONNECT, malformed: " + make_error_code(error).message());
                return;
            }
        }
        bool const is_wanted = options_.level >= trace_level::packets;
        if (!is_wanted && !is_malformed(p)) return;
        errc error = errc::ok;
        auto text = describe(p, version_, options_, error);
        text.insert(0, way);
        if (is_wanted || error != errc::ok)
            on_line(error == errc::ok ? trace_level::packets : trace_level::failures, text);
    }

    // Or in the other version, which is not its fault.
    bool is_malformed(scanned_packet const& p) const {
        return version_ != protocol_version::automatic && p.is_whole &&
               detail::visit_packet(p, version_, [](auto const&) {}) != errc::ok;
    }

    packet_trace_options options_;
    protocol_version version_ = protocol_version::automatic;
    packet_scanner scanners_[2];
};

}  // namespace runnel::mqtt
