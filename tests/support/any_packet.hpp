#pragma once

#include <runnel/mqtt/packet.hpp>

#include <utility>

namespace test {

/// Decodes a frame as the packet that its type says, and calls `f` with it if that succeeds.
template <class F>
runnel::mqtt::errc decode_any(runnel::mqtt::frame const& next, runnel::mqtt::protocol_version version, F&& f) {
    using namespace runnel::mqtt;
    auto const as = [&]<class Packet>(Packet packet) {
        errc const error = decode(next.header, next.body, version, packet);
        if (error == errc::ok) f(packet);
        return error;
    };
    switch (next.header.type) {
        case packet_type::connect: return as(connect{});
        case packet_type::connack: return as(connack{});
        case packet_type::publish: return as(publish{});
        case packet_type::subscribe: return as(subscribe{});
        case packet_type::suback: return as(suback{});
        case packet_type::unsubscribe: return as(unsubscribe{});
        case packet_type::unsuback: return as(unsuback{});
        case packet_type::pingreq: return as(pingreq{});
        case packet_type::pingresp: return as(pingresp{});
        case packet_type::disconnect: return as(disconnect{});
        case packet_type::auth: return as(auth{});
        default: return as(acknowledgement{});
    }
}

}  // namespace test
