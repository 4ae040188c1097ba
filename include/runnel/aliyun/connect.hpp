#pragma once

#include <runnel/aliyun/device.hpp>
#include <runnel/aliyun/limits.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/core/clock.hpp>
#include <runnel/mqtt/client/session_options.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace runnel::aliyun {

/// How a device connects, as far as the platform leaves a choice.
struct connect_options {
    /// At most 64 bytes; by default product key, dot, device name. Empty in MQTT 5: the server assigns one.
    std::optional<std::string> client_id = {};
    sign_method method = sign_method::hmacsha256;
    std::chrono::seconds keep_alive = default_keep_alive;  ///< 30 to 1200 s; the platform advises 300 s and more
    bool timestamp = false;                                ///< sign the time of each attempt to connect as well
    std::string parameters = {};                           ///< `extended_parameters` give such a text: "ext=1,lan=C++"
    mqtt::protocol_version version = mqtt::protocol_version::v3_1_1;  ///< 5 on Enterprise instances only
};

/// Makes a device's credentials, signed afresh each time: a `mqtt::credentials_provider`.
class device_signer {
  public:
    /// Signs what `options` say. Throws `std::system_error` with an `aliyun::errc` if device or options are not what
    /// the platform accepts.
    device_signer(device const& who, secure_mode mode, connect_options options = {})
        : who_(who), mode_(mode), options_(std::move(options)) {
        throw_unless_ok(check_keep_alive(options_.keep_alive));
        if (options_.client_id && options_.client_id->empty() && options_.version != mqtt::protocol_version::v5)
            throw_unless_ok(errc::client_id_empty);
        (*this)();  // throws now what would be thrown at the first attempt
    }

    mqtt::credentials operator()() const {
        sign_options how;
        how.method = options_.method;
        how.mode = mode_;
        how.parameters = options_.parameters;
        if (options_.client_id) how.client_id = *options_.client_id;
        if (options_.timestamp) {
            auto const now = system_clock::now().time_since_epoch();
            how.timestamp =
                static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
        }
        auto signed_as = sign(who_, how);
        mqtt::credentials made;
        made.client_id = signed_as.client_id;
        made.user_name = signed_as.user_name;
        made.password.emplace(signed_as.password.view());
        secure_wipe(signed_as);
        return made;
    }

    device_signer(device_signer const&) = default;
    device_signer& operator=(device_signer const&) = default;
    ~device_signer() { secure_wipe(who_.device_secret); }

  private:
    device who_;
    secure_mode mode_;
    connect_options options_;
};

/// The options of any session with the platform, but for its credentials. A row of failed attempts makes no more than 5
/// attempts in a minute: the pauses double from 4 s on, and only a connection that has lasted a minute ends the row.
inline mqtt::session_options platform_options(connect_options const& options) {
    throw_unless_ok(check_keep_alive(options.keep_alive));
    mqtt::session_options made;
    made.version = options.version;
    made.keep_alive = options.keep_alive;
    made.maximum_in_flight = max_in_flight;
    made.reconnect.initial = std::chrono::seconds(4);
    made.reconnect.stable_after = std::chrono::minutes(1);
    return made;
}

/// The options of a session in which `who` connects over transports of the type `Transport`: with the secure mode that
/// the transport calls for, and signed afresh for each attempt to connect. Other options can be set afterwards.
///
///     runnel::mqtt::session session{executor, thermostat.endpoint<runnel::wss>(),
///                                   runnel::aliyun::session_options<runnel::wss>(thermostat)};
///
/// Throws `std::system_error` with an `aliyun::errc` if an option or the device is not one that the platform accepts.
template <class Transport>
mqtt::session_options session_options(device const& who, connect_options options = {}) {
    auto made = platform_options(options);
    made.make_credentials = device_signer(who, secure_mode_for<Transport>, std::move(options));
    return made;
}

}  // namespace runnel::aliyun
