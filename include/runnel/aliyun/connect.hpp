#pragma once

#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/limits.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/mqtt/session_options.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace runnel::aliyun {

/// How a device connects, as far as the platform leaves a choice.
struct connect_options {
    /// At most 64 bytes; by default product key, dot, device name.
    std::optional<std::string> client_id;
    sign_method method = sign_method::hmacsha256;
    std::chrono::seconds keep_alive = default_keep_alive;  ///< 30 to 1200 s; the platform advises 300 s and more
    bool timestamp = false;                                ///< sign the time of each attempt to connect as well
    std::string parameters;                                ///< extended parameters, e.g. "ext=1,lan=C++"
    mqtt::protocol_version version = mqtt::protocol_version::v3_1_1;  ///< 5 on Enterprise instances only
};

/// The options of a session in which `who` connects over transports of the type `Transport`: with the secure mode that
/// the transport calls for, and signed afresh for each attempt to connect. Other options can be set afterwards.
///
///     runnel::mqtt::session session{executor, endpoint.over<runnel::wss>(),
///                                   runnel::aliyun::session_options<runnel::wss>(who)};
///
/// Throws `std::system_error` with an `aliyun::errc` if an option or the device is not one that the platform accepts.
template <class Transport>
mqtt::session_options session_options(device const& who, connect_options options = {}) {
    throw_unless_ok(check_keep_alive(options.keep_alive));
    mqtt::session_options made;
    made.version = options.version;
    made.keep_alive = options.keep_alive;
    made.maximum_in_flight = max_in_flight;
    made.reconnect.initial = std::chrono::seconds(4);  // doubling keeps below `max_connects_per_minute`
    made.make_credentials = [who, options = std::move(options)] {
        sign_options how;
        how.method = options.method;
        how.mode = secure_mode_for<Transport>;
        how.parameters = options.parameters;
        if (options.client_id) how.client_id = *options.client_id;
        if (options.timestamp) {
            auto const now = std::chrono::system_clock::now().time_since_epoch();
            how.timestamp =
                static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
        }
        auto const signed_as = sign(who, how);
        return mqtt::credentials{signed_as.client_id.str(), signed_as.user_name.str(), signed_as.password.str()};
    };
    made.make_credentials();  // throws now what would be thrown at the first attempt
    return made;
}

}  // namespace runnel::aliyun
