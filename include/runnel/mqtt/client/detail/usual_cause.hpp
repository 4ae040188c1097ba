#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/coro/asio.hpp>
#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/transport/connect_progress.hpp>

#include RUNNEL_ASIO(error.hpp)

#include <string_view>
#include <system_error>

namespace runnel::mqtt::detail {

/// What usually is the reason that a connection to `url` has ended with `why`, where that says little; or nothing.
/// `step`: at which the attempt to connect has failed; none if the server had accepted the connection.
RUNNEL_COLD inline char const* usual_cause(std::error_code why, connect_step step, std::string_view url) noexcept {
    bool const silent = why == errc::connect_timeout;
    // The peer breaks the protocol, or has said why.
    bool const is_told = why.category() == make_error_code(errc{}).category() ||
                         why.category() == make_error_code(reason_code{}).category();
    if ((is_told && !silent) || why == asio::error::operation_aborted) return "";
    if (step == connect_step::none) return why == asio::error::eof ? "the server did not say why" : "";
    if (step != connect_step::accept) return "";
    if (url.substr(0, 4) != "tcp:") return silent ? "is this an MQTT port?" : "no CONNACK: is this an MQTT port?";
    return silent ? "is this a TLS or WebSocket port?" : "no CONNACK: is this a TLS or WebSocket port?";
}

}  // namespace runnel::mqtt::detail
