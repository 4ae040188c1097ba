#pragma once

#include <runnel/mqtt/codec/packed_list.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>

namespace runnel::mqtt {

/// Reads the reason codes of a SUBACK or UNSUBACK.
struct reason_code_codec {
    static constexpr bool read(char const*& at, char const* end, reason_code& out) noexcept {
        if (at == end) return false;
        out = static_cast<reason_code>(static_cast<unsigned char>(*at++));
        return true;
    }
};

/// One reason code for each topic filter, in their order.
using reason_code_list = packed_list<reason_code, reason_code_codec>;

}  // namespace runnel::mqtt
