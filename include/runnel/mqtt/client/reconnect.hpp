#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>
#include <runnel/transport/reconnect.hpp>

#include <system_error>

namespace runnel::mqtt {

using runnel::check;
using runnel::pause_after;
using runnel::recovery;

/// The recovery from a failure, unless the user knows better (`reconnect_policy::classify`). Errors of layers that are
/// not known here speak by `std::errc`: `permission_denied` is a refusal of credentials, `invalid_argument` a setting
/// that cannot work.
RUNNEL_COLD inline recovery recovery_from(std::error_code why) noexcept {
    if (why.category() != make_error_code(reason_code{}).category()) return usual_recovery(why);
    switch (static_cast<reason_code>(why.value())) {
        case reason_code::bad_user_name_or_password:
        case reason_code::not_authorized: return recovery::renew_credentials;
        case reason_code::malformed_packet:
        case reason_code::protocol_error:
        case reason_code::unsupported_protocol_version:
        case reason_code::client_identifier_not_valid:
        case reason_code::banned:
        case reason_code::bad_authentication_method: return recovery::give_up;
        default: return recovery::retry;
    }
}

/// When to connect again after a connection has failed: see `basic_reconnect_policy`.
using reconnect_policy = basic_reconnect_policy<recovery_from>;
/// Decides that: see `basic_reconnect_schedule`.
using reconnect_schedule = basic_reconnect_schedule<reconnect_policy>;

}  // namespace runnel::mqtt
