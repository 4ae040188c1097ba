#pragma once

#include <runnel/mqtt/protocol/packet_trace.hpp>

#include <utility>

namespace test {

/// Decodes a frame as the packet that its type says, and calls `f` with it if that succeeds.
template <class F>
runnel::mqtt::errc decode_any(runnel::mqtt::frame const& next, runnel::mqtt::protocol_version version, F&& f) {
    return runnel::mqtt::detail::visit_packet({next.header, next.body}, version, std::forward<F>(f));
}

}  // namespace test
