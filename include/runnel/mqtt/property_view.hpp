#pragma once

#include <runnel/mqtt/property.hpp>
#include <runnel/mqtt/property_codec.hpp>
#include <runnel/mqtt/wire.hpp>

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
    constexpr property_view(properties const* p) noexcept : own_(p) {}

    /// Reads the properties of a packet of this type, with the length in front of them, and checks all of them.
    static constexpr property_view read(wire_reader& reader, packet_type type) noexcept {
        auto const length = reader.read_variable_integer();
        property_view view;
        if (length == 0) return view;
        view.raw_ = reader.read_bytes(length);
        auto const validated = validate_properties(view.raw_, type);
        reader.require(validated.error);
        view.present_ = validated.present;
        return view;
    }

    /// True: there is no property. (False of the sender's properties unless there are none at all.)
    constexpr bool empty() const noexcept { return own_ == nullptr && raw_.empty(); }

    /// The properties as received, without the length in front of them; empty for the sender's.
    constexpr std::string_view raw() const noexcept { return raw_; }

    /// The same received properties, whose bytes have been copied to `bytes`.
    constexpr property_view relocated(std::string_view bytes) const noexcept {
        property_view view = *this;
        view.raw_ = bytes;
        return view;
    }

    /// The sender's properties; nullptr for received ones.
    constexpr properties const* own() const noexcept { return own_; }

    /// All properties by name.
    constexpr properties parse() const noexcept {
        if (own_) return *own_;
        properties p;
        for (char const *at = raw_.data(), *end = at + raw_.size(); at != end;) {
            auto const id = property_id(static_cast<unsigned char>(*at++));
            for_each_property([&](auto i) {
                constexpr auto& field = std::get<i>(property_table);
                if (field.id != id) return true;
                read_property<i>(p, at, raw_);
                return false;
            });
        }
        return p;
    }

    /// One property: what the member of `properties` would be.
    template <property_id Id>
    constexpr auto get() const noexcept {
        constexpr auto i = index_of(Id);
        constexpr auto field = std::get<i>(property_table);
        using member_type = std::remove_cvref_t<decltype(properties{}.*field.member)>;
        if (own_) return own_->*field.member;
        if ((present_ & property_bit(Id)) == 0) return member_type{};
        if constexpr (field.repeats.empty()) {
            typename member_type::value_type value{};
            char const* at = raw_.data();
            property_list_codec<Id, typename member_type::value_type>::read(at, at + raw_.size(), value);
            return member_type(value);
        } else {
            return member_type::from_encoded(raw_);
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

    properties const* own_ = nullptr;
    std::string_view raw_;
    std::uint64_t present_ = 0;  // of the received ones
};

/// Bytes that the properties take in packets of this type, without the length in front of them.
constexpr std::size_t property_length(property_view const& view, packet_type_or_constant auto type) noexcept {
    return view.own() ? property_length(*view.own(), type) : view.raw().size();
}

/// Writes the properties behind `length`, which is their `property_length`; returns the end of what was written.
constexpr char* write_properties(char* out, std::size_t length, property_view const& view,
                                 packet_type_or_constant auto type) noexcept {
    if (view.own()) return write_properties(out, length, *view.own(), type);
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
    return view.own() ? check(*view.own(), type) : validate_properties(view.raw(), type).error;
}

/// Checks that a packet can be sent in this version with these properties; MQTT 3.1.1 has none.
constexpr errc check(property_view const& view, packet_type type, protocol_version version) noexcept {
    if (view.empty()) return errc::ok;
    if (version == protocol_version::v5) return check(view, type);
    return view.own() && *view.own() == properties{} ? errc::ok : errc::property_not_allowed;
}

}  // namespace runnel::mqtt
