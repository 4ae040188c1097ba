#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/types.hpp>

#include <algorithm>
#include <cstdint>
#include <forward_list>
#include <string>
#include <utility>

namespace runnel::mqtt {

/// The properties of acknowledgements that wait for those of earlier messages: few, as a rule none.
class acknowledgement_details {
  public:
    bool empty() const noexcept { return all_.empty(); }

    /// Keeps a copy of what is to go with the acknowledgement of the delivery with this number.
    RUNNEL_COLD void add(std::uint64_t number, property_view const& props, packet_type type) {
        std::string bytes(encoded_size(props, type), '\0');
        encode(bytes.data(), props, type);
        all_.push_front({number, std::move(bytes)});
    }

    /// What goes with an acknowledgement, perhaps nothing; a view of what is kept here.
    property_view find(std::uint64_t number, packet_type type) const noexcept {
        auto const at = std::ranges::find(all_, number, &detail::number);
        if (at == all_.end()) return {};
        wire_reader reader(at->bytes);
        return property_view::read(reader, type);
    }

    void erase(std::uint64_t number) noexcept {
        std::erase_if(all_, [&](detail const& d) { return d.number == number; });
    }
    void clear() noexcept { all_.clear(); }

  private:
    struct detail {
        std::uint64_t number;
        std::string bytes{};
    };

    std::forward_list<detail> all_{};  // a pointer in each session
};

}  // namespace runnel::mqtt
