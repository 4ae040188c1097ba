#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/packed_list.hpp>
#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/topic.hpp>
#include <runnel/mqtt/codec/wire.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace runnel::mqtt {

/// A packet type, known to the compiler: functions that take it look at nothing but the properties that belong there.
template <packet_type Type>
inline constexpr std::integral_constant<packet_type, Type> packet_constant{};

/// A `packet_type`, or a `packet_constant`.
template <class T>
concept packet_type_or_constant = std::convertible_to<T, packet_type>;

/// Bytes that a value takes, encoded as `Type`.
template <property_type Type, class T>
constexpr std::size_t property_value_size(T const& value) noexcept {
    using enum property_type;
    if constexpr (Type == byte || Type == two_byte_integer || Type == four_byte_integer)
        return sizeof(T);
    else if constexpr (Type == variable_byte_integer)
        return variable_integer_size(value);
    else if constexpr (Type == string_pair)
        return field_size(value.name) + field_size(value.value);
    else
        return field_size(value);
}

/// Writes a value, encoded as `Type`; returns the end of what was written.
template <property_type Type, class T>
RUNNEL_ALWAYS_INLINE constexpr char* write_property_value(char* out, T const& value) noexcept {
    using enum property_type;
    if constexpr (Type == byte || Type == two_byte_integer || Type == four_byte_integer)
        return write_big_endian(out, value);
    else if constexpr (Type == variable_byte_integer)
        return write_variable_integer(out, value);
    else if constexpr (Type == string_pair)
        return write_short_field(write_short_field(out, value.name), value.value);
    else
        return write_field(out, value);
}

/// Reads a value, encoded as `Type`, from bytes that were validated before, and moves `at` behind it.
template <property_type Type, class T>
constexpr T read_property_value(char const*& at) noexcept {
    using enum property_type;
    constexpr auto field = [](char const*& from) {
        std::string_view const text(from + 2, read_big_endian<std::uint16_t>(from));
        from += field_size(text);
        return text;
    };
    if constexpr (Type == byte || Type == two_byte_integer || Type == four_byte_integer) {
        T const value = read_big_endian<T>(at);
        at += sizeof(T);
        return value;
    } else if constexpr (Type == variable_byte_integer) {
        auto const integer = read_variable_integer({at, 4});  // ends by itself, as it is valid
        at += integer.size;
        return integer.value;
    } else if constexpr (Type == string_pair) {
        auto const name = field(at);
        return {name, field(at)};
    } else {
        return field(at);
    }
}

/// The end of a property's value that begins at `at`, in bytes that were validated before.
constexpr char const* skip_property_value(property_type type, char const* at) noexcept {
    using enum property_type;
    switch (type) {
        case byte: return at + 1;
        case two_byte_integer: return at + 2;
        case four_byte_integer: return at + 4;
        case variable_byte_integer:
            while (static_cast<unsigned char>(*at) >= 0x80) ++at;
            return at + 1;
        case string_pair: at += 2 + read_big_endian<std::uint16_t>(at); [[fallthrough]];
        default: return at + 2 + read_big_endian<std::uint16_t>(at);
    }
}

/// The value of the next property `id`, in bytes from `at` to `end` that were validated before; nullptr: there is none.
RUNNEL_NOINLINE constexpr char const* find_property(property_id id, char const* at, char const* end) noexcept {
    while (at != end) {
        auto const found = property_id(static_cast<unsigned char>(*at++));
        if (found == id) return at;
        at = skip_property_value(definition_of(found).type, at);
    }
    return nullptr;
}

template <property_id Id, class T>
constexpr bool property_list_codec<Id, T>::read(char const*& at, char const* end, T& out) noexcept {
    char const* value = find_property(Id, at, end);
    if (value != nullptr) out = read_property_value<definition_of(Id).type, T>(value);
    at = value != nullptr ? value : end;
    return value != nullptr;
}

/// How the value of a member of `properties` that is no list is encoded. (Topic names and binary data are encoded as
/// strings are.)
template <class T>
inline constexpr property_type encoding_of = sizeof(T) == 1   ? property_type::byte
                                             : sizeof(T) == 2 ? property_type::two_byte_integer
                                             : sizeof(T) == 4 ? property_type::four_byte_integer
                                                              : property_type::string;

/// Reads a value at `at` into its member, from the bytes `all` of a packet's properties that were validated before, and
/// moves `at` behind it.
template <class T>
constexpr void read_property(std::optional<T>& member, property_type, char const*& at, std::string_view) noexcept {
    member = read_property_value<encoding_of<T>, T>(at);
}
template <class T, class Codec>
constexpr void read_property(packed_list<T, Codec>& member, property_type type, char const*& at,
                             std::string_view all) noexcept {
    at = skip_property_value(type, at);
    member = packed_list<T, Codec>::from_encoded(all);
}

/// Calls `f(id, member)` for each property that is present and may stand in packets of this type, in ascending order of
/// the identifiers.
template <class F>
constexpr void for_each_present(properties const& p, packet_type type, F f) noexcept {
    for (auto bits = present(p); bits != 0; bits &= bits - 1) {
        auto const& property = lowest_of(bits);
        if (property.packets.contains(type))
            visit_property(p, property, [&](auto const& member) { f(property.id, member); });
    }
}

/// The same, faster and larger.
template <packet_type Type, class F>
RUNNEL_ALWAYS_INLINE constexpr void for_each_present(properties const& p, std::integral_constant<packet_type, Type>,
                                                     F f) noexcept {
    for_each_property([&](auto i) RUNNEL_LAMBDA_ALWAYS_INLINE {
        constexpr auto& property = std::get<i>(property_table);
        if constexpr (property.packets.contains(Type)) {
            if (is_present(p.*property.member)) f(property.id, p.*property.member);
        }
        return true;
    });
}

/// Calls `f` with the bytes of each property `id`, its identifier included, among properties that were validated
/// before.
template <class F>
constexpr void for_each_encoded(property_id id, std::string_view encoded, F f) noexcept {
    for (char const *at = encoded.data(), *end = at + encoded.size(); at != end;) {
        char const* const begin = at;
        auto const found = property_id(static_cast<unsigned char>(*at));
        at = skip_property_value(definition_of(found).type, at + 1);
        if (found == id) f(std::string_view(begin, static_cast<std::size_t>(at - begin)));
    }
}

/// Bytes that the properties `id` take among properties that were validated before.
RUNNEL_NOINLINE constexpr std::size_t encoded_size(property_id id, std::string_view encoded) noexcept {
    std::size_t size = 0;
    for_each_encoded(id, encoded, [&](std::string_view one) { size += one.size(); });
    return size;
}

/// Writes the properties `id` among properties that were validated before; returns the end of what was written.
RUNNEL_NOINLINE constexpr char* write_encoded(char* out, property_id id, std::string_view encoded) noexcept {
    for_each_encoded(id, encoded, [&](std::string_view one) { out = write_bytes(out, one); });
    return out;
}

/// Bytes that a property takes.
template <class T>
constexpr std::size_t property_size(std::optional<T> const& value) noexcept {
    return 1 + property_value_size<encoding_of<T>>(*value);
}
template <property_id Id, class T>
RUNNEL_ALWAYS_INLINE constexpr std::size_t property_size(
    packed_list<T, property_list_codec<Id, T>> const& values) noexcept {
    if (!values.encoded().empty()) return encoded_size(Id, values.encoded());
    std::size_t size = 0;
    for (T const& value : values.objects()) size += 1 + property_value_size<definition_of(Id).type>(value);
    return size;
}

/// Writes a property; returns the end of what was written.
template <class T>
RUNNEL_ALWAYS_INLINE constexpr char* write_property(char* out, property_id id, std::optional<T> const& value) noexcept {
    *out++ = static_cast<char>(id);
    return write_property_value<encoding_of<T>>(out, *value);
}
/// Not inline, as every packet may have user properties.
template <property_id Id, class T>
RUNNEL_NOINLINE constexpr char* write_property(char* out, property_id,
                                               packed_list<T, property_list_codec<Id, T>> const& values) noexcept {
    if (!values.encoded().empty()) return write_encoded(out, Id, values.encoded());
    for (T const& value : values.objects()) {
        *out++ = static_cast<char>(Id);
        out = write_property_value<definition_of(Id).type>(out, value);
    }
    return out;
}

/// Bytes that the properties which may stand in packets of this type take, without the length in front of them.
constexpr std::size_t property_length(properties const& p, packet_type_or_constant auto type) noexcept {
    std::size_t size = 0;
    for_each_present(p, type, [&](property_id, auto const& member) { size += property_size(member); });
    return size;
}

/// Writes the properties that may stand in packets of this type, without their length; returns the end of what was
/// written.
constexpr char* write_values(char* out, properties const& p, packet_type_or_constant auto type) noexcept {
    for_each_present(p, type, [&](property_id id, auto const& member) { out = write_property(out, id, member); });
    return out;
}

/// Writes the properties that may stand in packets of this type, behind `length`, which is their `property_length`;
/// returns the end of what was written.
constexpr char* write_properties(char* out, std::size_t length, properties const& p,
                                 packet_type_or_constant auto type) noexcept {
    return write_values(write_variable_integer(out, static_cast<std::uint32_t>(length)), p, type);
}

/// Bytes of properties that take `length` bytes, with this length in front.
constexpr std::size_t with_length(std::size_t length) noexcept {
    return variable_integer_size(static_cast<std::uint32_t>(length)) + length;
}

/// Bytes that the properties which may stand in packets of this type take, with their length in front.
constexpr std::size_t encoded_size(properties const& p, packet_type_or_constant auto type) noexcept {
    return with_length(property_length(p, type));
}

/// Writes the properties that may stand in packets of this type, with their length in front; returns the end of what
/// was written, which takes `encoded_size(p, type)` bytes.
constexpr char* encode(char* out, properties const& p, packet_type_or_constant auto type) noexcept {
    return write_properties(out, property_length(p, type), p, type);
}

/// Checks a value that is to be sent.
constexpr errc check_property_value(property_definition const& property, std::uint32_t value) noexcept {
    return value < property.minimum || value > property.maximum ? errc::property_value_out_of_range : errc::ok;
}
RUNNEL_NOINLINE constexpr errc check_property_value(property_definition const& property,
                                                    std::string_view value) noexcept {
    if (property.type == property_type::topic_name) return check_topic_name(value);
    if (property.type != property_type::binary_data) return check_string(value);
    return value.size() > max_string_size ? errc::string_too_long : errc::ok;
}
constexpr errc check_property_value(property_definition const& property, user_property const& value) noexcept {
    errc const error = check_property_value(property, value.name);
    return error == errc::ok ? check_property_value(property, value.value) : error;
}

/// Checks a property that is there and to be sent in a packet of this type.
template <class T>
constexpr errc check_property(property_definition const& property, std::optional<T> const& member,
                              packet_type type) noexcept {
    return property.packets.contains(type) ? check_property_value(property, *member) : errc::property_not_allowed;
}
template <class T, class Codec>
RUNNEL_NOINLINE constexpr errc check_property(property_definition const& property, packed_list<T, Codec> const& member,
                                              packet_type type) noexcept {
    std::size_t count = 0;
    for (auto const& value : member) {
        if (!property.packets.contains(type)) return errc::property_not_allowed;
        if (errc const error = check_property_value(property, value); error != errc::ok) return error;
        if (++count == 2 && !property.repeats.contains(type)) return errc::duplicate_property;
    }
    return errc::ok;
}

/// Checks that a packet of this type can be sent with these properties: each of them may stand there, has a value in
/// its range, and strings are valid.
constexpr errc check(properties const& p, packet_type type) noexcept {
    for (auto bits = present(p); bits != 0; bits &= bits - 1) {
        auto const& property = lowest_of(bits);
        errc const error =
            visit_property(p, property, [&](auto const& member) { return check_property(property, member, type); });
        if (error != errc::ok) return error;
    }
    bool const without_method = p.authentication_data && !p.authentication_method;
    return without_method && type != packet_type::connack ? errc::authentication_data_without_method : errc::ok;
}

/// Checks the string or binary field at `at`, and moves `at` behind it. Bytes can be read up to `readable_end`.
template <class Check>
RUNNEL_ALWAYS_INLINE constexpr errc validate_field(char const*& at, char const* end, char const* readable_end,
                                                   Check check) noexcept {
    auto const left = static_cast<std::size_t>(end - at);
    if (left < 2) return errc::truncated_packet;
    std::size_t const size = read_big_endian<std::uint16_t>(at);
    if (left - 2 < size) return errc::truncated_packet;
    std::string_view const field(at + 2, size);
    at += 2 + size;
    return check(field, static_cast<std::size_t>(readable_end - field.data()));
}

/// Checks the string pair at `at`, and moves `at` behind it. Bytes can be read up to `readable_end`.
RUNNEL_ALWAYS_INLINE constexpr errc validate_string_pair(char const*& at, char const* end,
                                                         char const* readable_end) noexcept {
    constexpr auto check = [](auto... text) { return check_string(text...); };
    errc const error = validate_field(at, end, readable_end, check);
    return error == errc::ok ? validate_field(at, end, readable_end, check) : error;
}

/// Checks the integer at `at`, and moves `at` behind it.
template <class T>
constexpr errc validate_integer(char const*& at, char const* end, property_definition const& definition) noexcept {
    if (static_cast<std::size_t>(end - at) < sizeof(T)) return errc::truncated_packet;
    T const value = read_big_endian<T>(at);
    at += sizeof(T);
    return value < definition.minimum || value > definition.maximum ? errc::property_value_out_of_range : errc::ok;
}

/// Checks the variable byte integer at `at`, and moves `at` behind it.
constexpr errc validate_variable_integer(char const*& at, char const* end,
                                         property_definition const& definition) noexcept {
    auto const integer = read_variable_integer({at, static_cast<std::size_t>(end - at)});
    if (integer.size == 0) return integer.error == errc::ok ? errc::truncated_packet : integer.error;
    at += integer.size;
    return integer.value < definition.minimum ? errc::property_value_out_of_range : errc::ok;
}

/// Checks the value at `at` of a property, and moves `at` behind it.
constexpr errc validate_property_value(char const*& at, char const* end,
                                       property_definition const& definition) noexcept {
    using enum property_type;
    switch (definition.type) {
        case string_pair: return validate_string_pair(at, end, end);
        case string: return validate_field(at, end, end, [](auto... text) { return check_string(text...); });
        case topic_name:  // [MQTT-3.3.2-14]
            return validate_field(at, end, end, [](auto... topic) { return check_topic_name(topic...); });
        case binary_data: return validate_field(at, end, end, [](auto...) { return errc::ok; });
        case byte: return validate_integer<std::uint8_t>(at, end, definition);
        case two_byte_integer: return validate_integer<std::uint16_t>(at, end, definition);
        case four_byte_integer: return validate_integer<std::uint32_t>(at, end, definition);
        case variable_byte_integer: return validate_variable_integer(at, end, definition);
    }
    return errc::unknown_property;
}

/// The outcome of `validate_properties`.
struct validated_properties {
    errc error = errc::ok;
    std::uint32_t present = 0;  ///< the bit (`property_definition`) of each property that is there
};

/// Checks the properties that a packet of this type has received (without the length in front of them). `readable`
/// bytes, at least those of `bytes`, can be read where they begin.
constexpr validated_properties validate_properties(std::string_view bytes, packet_type type,
                                                   std::size_t readable) noexcept {
    constexpr auto& user_property = definition_of(property_id::user_property);
    bool const may_have_user_properties = user_property.packets.contains(type);
    std::uint32_t present = 0;
    char const* at = bytes.data();
    char const* const end = at + bytes.size();
    char const* const readable_end = at + readable;
    while (at != end) {
        auto const id = property_id(static_cast<unsigned char>(*at++));
        if (id == property_id::user_property && may_have_user_properties) {  // the one that comes in numbers
            present |= user_property.bit;
            if (errc const error = validate_string_pair(at, end, readable_end); error != errc::ok) return {error, 0};
            continue;
        }
        auto const& definition = definition_of(id);
        if (!definition.packets.contains(type)) [[unlikely]]
            return {definition.packets.empty() ? errc::unknown_property : errc::property_not_allowed, 0};
        if ((present & definition.bit) != 0 && !definition.repeats.contains(type)) return {errc::duplicate_property, 0};
        present |= definition.bit;
        if (errc const error = validate_property_value(at, end, definition); error != errc::ok) return {error, 0};
    }
    // 3.1.2.11.10: authentication data without a method is a protocol error.
    constexpr auto data = definition_of(property_id::authentication_data).bit;
    constexpr auto method = definition_of(property_id::authentication_method).bit;
    if ((present & (data | method)) == data && type != packet_type::connack)
        return {errc::authentication_data_without_method, 0};
    return {errc::ok, present};
}

/// Checks the properties that a packet of this type has received.
constexpr validated_properties validate_properties(std::string_view bytes, packet_type type) noexcept {
    return validate_properties(bytes, type, bytes.size());
}

}  // namespace runnel::mqtt
