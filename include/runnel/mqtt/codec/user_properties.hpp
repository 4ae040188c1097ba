#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/property_codec.hpp>

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>

namespace runnel::mqtt {

/// User properties (3.1.2.11.8) that own their memory: names and values that mean something to the applications only.
/// Names may repeat; order is kept. Held as they are sent, in one string.
class user_properties {
  public:
    user_properties() noexcept = default;
    user_properties(std::initializer_list<user_property> list) : user_properties(user_property_list(list)) {}
    /// Copies of what a list views.
    RUNNEL_COLD explicit user_properties(user_property_list const& list) {
        for (auto const& [name, value] : list) add(name, value);
    }

    /// Appends one. Throws `errc::string_too_long` if either has more than 65,535 bytes; that they are UTF-8 is checked
    /// when they are sent.
    RUNNEL_COLD void add(std::string_view name, std::string_view value) {
        if (name.size() > 65'535 || value.size() > 65'535)
            RUNNEL_THROW(std::system_error(errc::string_too_long, "user property"));
        bytes_ += static_cast<char>(property_id::user_property);
        for (auto const text : {name, value}) {
            bytes_ += static_cast<char>(text.size() >> 8);
            bytes_ += static_cast<char>(text.size() & 0xFF);
            bytes_ += text;
        }
    }
    void clear() noexcept { bytes_.clear(); }
    bool empty() const noexcept { return bytes_.empty(); }
    /// A view, valid until this changes.
    user_property_list list() const noexcept { return user_property_list::from_encoded(bytes_); }

    friend bool operator==(user_properties const&, user_properties const&) noexcept = default;

  private:
    std::string bytes_{};
};

}  // namespace runnel::mqtt
