#pragma once

#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/property_codec.hpp>
#include <runnel/mqtt/codec/wire.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <tuple>

namespace runnel::mqtt {

/// The properties of a packet, as a view: of the sender's `properties`, or of the bytes received, which have been
/// validated and are read only when somebody asks. What it views must outlive it, and so must what it gives.
class property_view {
  public:
    /// No properties.
    constexpr property_view() noexcept = default;

    /// The sender's properties; nullptr stands for none.
    constexpr property_view(properties const* p) noexcept : own_(p), size_(p == nullptr ? 0 : of_own) {}

    /// Reads the properties of a packet of this type, with the length in front of them, and checks all of them.
    static constexpr property_view read(wire_reader& reader, packet_type type) noexcept {
        auto const length = reader.read_variable_integer();
        property_view view;
        auto const readable = reader.size();
        auto const bytes = reader.read_bytes(length);
        if (bytes.empty()) return view;
        auto const validated = validate_properties(bytes, type, readable);
        reader.require(validated.error);
        view.present_ = validated.present;
        return view.relocated(bytes);
    }

    /// True: there is no property. (False of the sender's properties unless there are none at all.)
    constexpr bool empty() const noexcept { return size_ == 0; }

    /// The properties as received, without the length in front of them; empty for the sender's.
    constexpr std::string_view raw() const noexcept {
        return size_ == 0 || is_own() ? std::string_view() : std::string_view(raw_, size_);
    }

    /// The same received properties, whose bytes have been copied to `bytes`.
    constexpr property_view relocated(std::string_view bytes) const noexcept {
        property_view view = *this;
        if (bytes.empty()) return view;
        view.raw_ = bytes.data();
        view.size_ = static_cast<std::uint32_t>(bytes.size());
        return view;
    }

    /// Whether these are the sender's properties.
    constexpr bool is_own() const noexcept { return size_ == of_own; }

    /// The sender's properties; nullptr for received ones.
    constexpr properties const* own() const noexcept { return is_own() ? own_ : nullptr; }

    /// All properties by name.
    constexpr properties parse() const noexcept {
        if (is_own()) return *own_;
        properties p;
        for (char const *at = raw().data(), *end = at + raw().size(); at != end;) {
            auto const& property = definition_of(property_id(static_cast<unsigned char>(*at++)));
            visit_property(p, property, [&](auto& member) { read_property(member, property.type, at, raw()); });
        }
        return p;
    }

    /// Whether a property is there.
    constexpr bool has(property_id id) const noexcept {
        return ((is_own() ? present(*own_) : present_) & definition_of(id).bit) != 0;
    }

    /// One property: what the member of `properties` would be.
    template <property_id Id>
    constexpr auto get() const noexcept {
        constexpr auto i = index_of(Id);
        constexpr auto field = std::get<i>(property_table);
        using member_type = std::remove_cvref_t<decltype(properties{}.*field.member)>;
        if (is_own()) return own_->*field.member;
        if ((present_ & definition_of(Id).bit) == 0) return member_type{};
        if constexpr (field.repeats.empty()) {
            char const* at = find_property(Id, raw_, raw_ + size_);
            return member_type(read_property_value<definition_of(Id).type, typename member_type::value_type>(at));
        } else {
            return member_type::from_encoded(raw());
        }
    }

    /// Whether both have equal properties, in whichever form.
    friend constexpr bool operator==(property_view const& a, property_view const& b) noexcept {
        return a.parse() == b.parse();
    }

  private:
    static consteval std::size_t index_of(property_id id) {
        std::size_t index = property_count;
        for_each_property([&](auto i) {
            if (std::get<i>(property_table).id == id) index = i;
            return true;
        });
        return index;
    }

    static constexpr std::uint32_t of_own = 0xFFFF'FFFF;  // longer than received properties can be
    union {
        properties const* own_ = nullptr;
        char const* raw_;
    };
    std::uint32_t size_ = 0;     // bytes of the received ones, or `of_own`
    std::uint32_t present_ = 0;  // which they are: the bits of their definitions
};

/// Bytes that the properties take in packets of this type, without the length in front of them.
constexpr std::size_t property_length(property_view const& view, packet_type_or_constant auto type) noexcept {
    return view.is_own() ? property_length(*view.own(), type) : view.raw().size();
}

/// Writes the properties behind `length`, which is their `property_length`; returns the end of what was written.
constexpr char* write_properties(char* out, std::size_t length, property_view const& view,
                                 packet_type_or_constant auto type) noexcept {
    if (view.is_own()) return write_properties(out, length, *view.own(), type);
    return write_bytes(write_variable_integer(out, static_cast<std::uint32_t>(length)), view.raw());
}

/// Bytes that the properties take in packets of this type, with their length in front.
constexpr std::size_t encoded_size(property_view const& view, packet_type_or_constant auto type) noexcept {
    return with_length(property_length(view, type));
}

/// Writes the properties with their length in front; returns the end of what was written.
constexpr char* encode(char* out, property_view const& view, packet_type_or_constant auto type) noexcept {
    return write_properties(out, property_length(view, type), view, type);
}

/// Checks that a packet of this type can be sent with these properties.
constexpr errc check(property_view const& view, packet_type type) noexcept {
    return view.is_own() ? check(*view.own(), type) : validate_properties(view.raw(), type).error;
}

/// Checks that a packet can be sent in this version with these properties; MQTT 3.1.1 has none.
constexpr errc check(property_view const& view, packet_type type, protocol_version version) noexcept {
    if (view.empty()) return errc::ok;
    if (version == protocol_version::v5) return check(view, type);
    return view.is_own() && present(*view.own()) == 0 ? errc::ok : errc::not_in_this_version;
}

}  // namespace runnel::mqtt
