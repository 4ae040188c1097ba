#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/packed_list.hpp>
#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/codec/wire.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace runnel::mqtt {

/// The identifiers of the properties of MQTT 5 (2.2.2.2).
enum class property_id : std::uint8_t {
    payload_format_indicator = 0x01,
    message_expiry_interval = 0x02,
    content_type = 0x03,
    response_topic = 0x08,
    correlation_data = 0x09,
    subscription_identifier = 0x0B,
    session_expiry_interval = 0x11,
    assigned_client_identifier = 0x12,
    server_keep_alive = 0x13,
    authentication_method = 0x15,
    authentication_data = 0x16,
    request_problem_information = 0x17,
    will_delay_interval = 0x18,
    request_response_information = 0x19,
    response_information = 0x1A,
    server_reference = 0x1C,
    reason_string = 0x1F,
    receive_maximum = 0x21,
    topic_alias_maximum = 0x22,
    topic_alias = 0x23,
    maximum_qos = 0x24,
    retain_available = 0x25,
    user_property = 0x26,
    maximum_packet_size = 0x27,
    wildcard_subscription_available = 0x28,
    subscription_identifier_available = 0x29,
    shared_subscription_available = 0x2A,
};

/// How a property's value is encoded (1.5). A topic name is a string with rules of its own.
enum class property_type : std::uint8_t {
    byte,
    two_byte_integer,
    four_byte_integer,
    variable_byte_integer,
    binary_data,
    string,
    topic_name,
    string_pair,
};

/// A name and a value that mean something to the applications only. Both are strings of at most 65,535 bytes. Names may
/// repeat; order is kept.
struct user_property {
    std::string_view name{};
    std::string_view value{};
    friend constexpr bool operator==(user_property const&, user_property const&) noexcept = default;
};

/// Finds the elements of a packed list that is one property among others: `encoded` is all properties of a packet.
template <property_id Id, class T>
struct property_list_codec {
    static constexpr bool read(char const*& at, char const* end, T& out) noexcept;
};

/// The User Properties (3.1.2.11.8) of a packet, in their order. A view.
using user_property_list = packed_list<user_property, property_list_codec<property_id::user_property, user_property>>;
/// The Subscription Identifiers (3.3.2.3.8) of a PUBLISH. A view.
using subscription_identifier_list =
    packed_list<std::uint32_t, property_list_codec<property_id::subscription_identifier, std::uint32_t>>;

/// All properties of MQTT 5 by name; those without a value are absent. A view: strings and lists must outlive it. Which
/// of them a packet may have is in `property_table`; `check` tells.
struct properties {
    std::optional<std::uint8_t> payload_format_indicator{};   ///< 1: the payload is UTF-8
    std::optional<std::uint32_t> message_expiry_interval{};   ///< seconds
    std::optional<std::string_view> content_type{};           ///< what the payload is, by agreement: a MIME type, say
    std::optional<std::string_view> response_topic{};         ///< where the answer is expected
    std::optional<std::string_view> correlation_data{};       ///< tells which request an answer belongs to; any bytes
    subscription_identifier_list subscription_identifiers{};  ///< 1 to 268,435,455; SUBSCRIBE has one at most
    std::optional<std::uint32_t> session_expiry_interval{};   ///< seconds; 0xFFFFFFFF: never
    std::optional<std::string_view> assigned_client_identifier{};
    std::optional<std::uint16_t> server_keep_alive{};  ///< seconds
    std::optional<std::string_view> authentication_method{};
    std::optional<std::string_view> authentication_data{};       ///< any bytes
    std::optional<std::uint8_t> request_problem_information{};   ///< 0 or 1 (absent: 1)
    std::optional<std::uint32_t> will_delay_interval{};          ///< seconds
    std::optional<std::uint8_t> request_response_information{};  ///< 0 or 1 (absent: 0)
    std::optional<std::string_view> response_information{};      ///< a basis for response topics
    std::optional<std::string_view> server_reference{};  ///< the other server to use: "host" or "host:port", ...
    std::optional<std::string_view> reason_string{};     ///< for people
    std::optional<std::uint16_t> receive_maximum{};      ///< 1 to 65,535 (absent: 65,535)
    std::optional<std::uint16_t> topic_alias_maximum{};  ///< absent: 0
    std::optional<std::uint16_t> topic_alias{};          ///< 1 to the receiver's maximum
    std::optional<std::uint8_t> maximum_qos{};           ///< 0 or 1 (absent: 2)
    std::optional<std::uint8_t> retain_available{};      ///< 0 or 1 (absent: 1)
    user_property_list user_properties{};
    std::optional<std::uint32_t> maximum_packet_size{};               ///< bytes, at least 1
    std::optional<std::uint8_t> wildcard_subscription_available{};    ///< 0 or 1 (absent: 1)
    std::optional<std::uint8_t> subscription_identifier_available{};  ///< 0 or 1 (absent: 1)
    std::optional<std::uint8_t> shared_subscription_available{};      ///< 0 or 1 (absent: 1)

    friend constexpr bool operator==(properties const&, properties const&) noexcept = default;
};
static_assert(std::is_trivially_destructible_v<properties>);

/// A set of packet types; `will_message` may be one of them.
class packet_set {
  public:
    constexpr packet_set() noexcept = default;
    template <class... Types>
    requires(sizeof...(Types) > 0 && (std::is_same_v<Types, packet_type> && ...))
    explicit constexpr packet_set(Types... types) noexcept : bits_(((1u << static_cast<unsigned>(types)) | ...)) {}

    constexpr bool contains(packet_type type) const noexcept {
        return (bits_ >> static_cast<unsigned>(type) & 1u) != 0;
    }
    constexpr bool empty() const noexcept { return bits_ == 0; }

  private:
    std::uint32_t bits_ = 0;
};

/// Where a property's value stands in `properties`: the member that has the type of the value. Lists have one member
/// each, and need no place.
union property_place {
    template <class T>
    using member = std::optional<T> properties::*;

    constexpr property_place() noexcept = default;
    constexpr property_place(member<std::uint8_t> m) noexcept : byte(m) {}
    constexpr property_place(member<std::uint16_t> m) noexcept : two_bytes(m) {}
    constexpr property_place(member<std::uint32_t> m) noexcept : four_bytes(m) {}
    constexpr property_place(member<std::string_view> m) noexcept : text(m) {}
    constexpr property_place(subscription_identifier_list properties::*) noexcept {}
    constexpr property_place(user_property_list properties::*) noexcept {}

    member<std::uint8_t> byte = nullptr;
    member<std::uint16_t> two_bytes;
    member<std::uint32_t> four_bytes;
    member<std::string_view> text;
};

/// What the table below says of one property.
struct property_definition {
    property_id id{};
    char const* name = nullptr;  ///< the specification's name
    property_type type{};
    packet_set packets{};                 ///< where it may stand
    std::uint32_t minimum = 0;            ///< least and
    std::uint32_t maximum = 0xFFFF'FFFF;  ///< greatest value of an integer
    packet_set repeats{};                 ///< where it may stand more than once
    std::uint32_t bit = 0;                ///< what stands for it in a set of properties; as `definition_of` tells
    property_place place{};               ///< as `definition_of` tells
};

/// A definition and the member of `properties` that holds the value.
template <auto Member>
struct property_field : property_definition {
    static constexpr auto member = Member;
};

/// All properties of MQTT 5 (2.2.2.2 and the sections of each packet), in ascending order of their identifiers. A new
/// property takes one line here, besides its identifier and its member.
inline constexpr auto property_table = [] {
    using enum packet_type;
    using enum property_type;
    using id = property_id;
    using p = properties;
    constexpr auto will = will_message;
    constexpr packet_set message(publish, will), connecting(connect, connack),
        reasons(connack, puback, pubrec, pubrel, pubcomp, suback, unsuback, disconnect, auth);
    constexpr packet_set every(connect, connack, publish, will, puback, pubrec, pubrel, pubcomp, subscribe, suback,
                               unsubscribe, unsuback, disconnect, auth);
    using set = packet_set;
    constexpr std::uint32_t any = 0xFFFF'FFFF;
    // clang-format off
    return std::tuple{
        property_field<&p::payload_format_indicator>{{id::payload_format_indicator, "Payload Format Indicator", byte, message, 0, 1, {}}},
        property_field<&p::message_expiry_interval>{{id::message_expiry_interval, "Message Expiry Interval", four_byte_integer, message, 0, any, {}}},
        property_field<&p::content_type>{{id::content_type, "Content Type", string, message, 0, any, {}}},
        property_field<&p::response_topic>{{id::response_topic, "Response Topic", topic_name, message, 0, any, {}}},
        property_field<&p::correlation_data>{{id::correlation_data, "Correlation Data", binary_data, message, 0, any, {}}},
        property_field<&p::subscription_identifiers>{{id::subscription_identifier, "Subscription Identifier", variable_byte_integer, set(publish, subscribe), 1, max_variable_integer, set(publish)}},
        property_field<&p::session_expiry_interval>{{id::session_expiry_interval, "Session Expiry Interval", four_byte_integer, set(connect, connack, disconnect), 0, any, {}}},
        property_field<&p::assigned_client_identifier>{{id::assigned_client_identifier, "Assigned Client Identifier", string, set(connack), 0, any, {}}},
        property_field<&p::server_keep_alive>{{id::server_keep_alive, "Server Keep Alive", two_byte_integer, set(connack), 0, any, {}}},
        property_field<&p::authentication_method>{{id::authentication_method, "Authentication Method", string, set(connect, connack, auth), 0, any, {}}},
        property_field<&p::authentication_data>{{id::authentication_data, "Authentication Data", binary_data, set(connect, connack, auth), 0, any, {}}},
        property_field<&p::request_problem_information>{{id::request_problem_information, "Request Problem Information", byte, set(connect), 0, 1, {}}},
        property_field<&p::will_delay_interval>{{id::will_delay_interval, "Will Delay Interval", four_byte_integer, set(will), 0, any, {}}},
        property_field<&p::request_response_information>{{id::request_response_information, "Request Response Information", byte, set(connect), 0, 1, {}}},
        property_field<&p::response_information>{{id::response_information, "Response Information", string, set(connack), 0, any, {}}},
        property_field<&p::server_reference>{{id::server_reference, "Server Reference", string, set(connack, disconnect), 0, any, {}}},
        property_field<&p::reason_string>{{id::reason_string, "Reason String", string, reasons, 0, any, {}}},
        property_field<&p::receive_maximum>{{id::receive_maximum, "Receive Maximum", two_byte_integer, connecting, 1, any, {}}},
        property_field<&p::topic_alias_maximum>{{id::topic_alias_maximum, "Topic Alias Maximum", two_byte_integer, connecting, 0, any, {}}},
        property_field<&p::topic_alias>{{id::topic_alias, "Topic Alias", two_byte_integer, set(publish), 1, any, {}}},
        property_field<&p::maximum_qos>{{id::maximum_qos, "Maximum QoS", byte, set(connack), 0, 1, {}}},
        property_field<&p::retain_available>{{id::retain_available, "Retain Available", byte, set(connack), 0, 1, {}}},
        property_field<&p::user_properties>{{id::user_property, "User Property", string_pair, every, 0, any, every}},
        property_field<&p::maximum_packet_size>{{id::maximum_packet_size, "Maximum Packet Size", four_byte_integer, connecting, 1, any, {}}},
        property_field<&p::wildcard_subscription_available>{{id::wildcard_subscription_available, "Wildcard Subscription Available", byte, set(connack), 0, 1, {}}},
        property_field<&p::subscription_identifier_available>{{id::subscription_identifier_available, "Subscription Identifier Available", byte, set(connack), 0, 1, {}}},
        property_field<&p::shared_subscription_available>{{id::shared_subscription_available, "Shared Subscription Available", byte, set(connack), 0, 1, {}}},
    };
    // clang-format on
}();

/// How many lines the table has.
inline constexpr std::size_t property_count = std::tuple_size_v<decltype(property_table)>;

/// Calls `f(std::integral_constant<std::size_t, i>{})` for the index of each line of the table, until `f` returns
/// false.
template <class F>
constexpr bool for_each_property(F&& f) noexcept {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return (f(std::integral_constant<std::size_t, I>{}) && ...);
    }(std::make_index_sequence<property_count>{});
}

/// The definitions by identifier, for decoders; those of identifiers that do not exist are without packets.
inline constexpr auto property_definitions = [] {
    static_assert(property_count <= 32);
    std::array<property_definition, 43> by_id{};
    for_each_property([&](auto i) {
        auto& definition = by_id[static_cast<std::size_t>(std::get<i>(property_table).id)];
        definition = std::get<i>(property_table);
        definition.bit = std::uint32_t{1} << i;
        definition.place = std::get<i>(property_table).member;
        return true;
    });
    return by_id;
}();

/// What the table says of a property; of an identifier that is none, what it says of identifier 0: nothing.
constexpr property_definition const& definition_of(property_id id) noexcept {
    auto const index = static_cast<std::size_t>(id);
    return property_definitions[index < property_definitions.size() ? index : 0];
}

/// Calls `f(member)` with the member of `p` that belongs to a property: an optional value, or a list of values.
template <class Properties, class F>
constexpr auto visit_property(Properties& p, property_definition const& property, F f) noexcept {
    using enum property_type;
    switch (property.type) {
        case byte: return f(p.*property.place.byte);
        case two_byte_integer: return f(p.*property.place.two_bytes);
        case four_byte_integer: return f(p.*property.place.four_bytes);
        case variable_byte_integer: return f(p.subscription_identifiers);
        case string_pair: return f(p.user_properties);
        case binary_data:
        case string:
        case topic_name: break;
    }
    return f(p.*property.place.text);
}

/// Whether a property is there. (A list that is may have no element.)
template <class T>
constexpr bool is_present(std::optional<T> const& member) noexcept {
    return member.has_value();
}
template <class T, class Codec>
constexpr bool is_present(packed_list<T, Codec> const& member) noexcept {
    return !member.is_blank();
}

/// Which properties are there: the bits of their definitions.
RUNNEL_NOINLINE constexpr std::uint32_t present(properties const& p) noexcept {
    std::uint32_t bits = 0;
    for_each_property([&](auto i) {
        bits |= std::uint32_t{is_present(p.*std::get<i>(property_table).member)} << i;
        return true;
    });
    return bits;
}

/// The definition whose bit is the lowest of `bits`, which are not 0.
constexpr property_definition const& lowest_of(std::uint32_t bits) noexcept {
    constexpr auto ids = [] {
        std::array<property_id, property_count> in_order{};
        for_each_property([&](auto i) {
            in_order[i] = std::get<i>(property_table).id;
            return true;
        });
        return in_order;
    }();
    return definition_of(ids[static_cast<std::size_t>(std::countr_zero(bits))]);
}

/// The name of a property as the specification writes it: "Topic Alias".
constexpr char const* name(property_id id) noexcept {
    auto const* text = definition_of(id).name;
    return text ? text : "unknown";
}

}  // namespace runnel::mqtt
