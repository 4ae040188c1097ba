#pragma once

#include <runnel/mqtt/codec/error.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/packet/auth.hpp>
#include <runnel/mqtt/packet/connack.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace runnel::mqtt {

/// The enhanced authentication of one network connection (MQTT 5, 4.12), at either end: which AUTH may be sent when.
/// What its data mean is for others to know.
///
/// The two ends take turns: CONNECT, or later AUTH with `reauthenticate`, is the client's first step; the server goes
/// on with AUTH and `continue_authentication`, which the client answers in kind, or ends it: by CONNACK the first time,
/// by AUTH and `success` later on.
class authentication {
  public:
    /// CONNECT names this method; none: there is to be no authentication on this connection.
    void begin(std::optional<std::string_view> method) {
        agreed_ = method.has_value();
        method_ = method.value_or("");
        turn_ = agreed_ ? turn::server : turn::nobody;
        connected_ = false;
    }

    /// Checks the server's CONNACK, and ends the first authentication if it accepts the connection. Then it names the
    /// method of CONNECT [MQTT-4.12.0-5], and none if that does [MQTT-4.12.0-6]. Where the client has not answered the
    /// server's last step, it has accepted without a proof: `authentication_not_due`.
    errc finish(connack const& answer) noexcept {
        if (is_error(answer.reason)) return errc::ok;
        auto const method = answer.props.get<property_id::authentication_method>();
        if (agreed_ && !method) return errc::authentication_method_missing;
        if (method && (!agreed_ || *method != method_)) return errc::authentication_method_changed;
        if (turn_ == turn::client) return errc::authentication_not_due;
        turn_ = turn::nobody;
        connected_ = true;
        return errc::ok;
    }

    /// Takes the step that an AUTH of `sender` is. `authentication_not_due`: it must not send that now
    /// ([MQTT-4.12.0-6], [MQTT-4.12.0-7]). `authentication_method_changed`: its method is not that of CONNECT
    /// ([MQTT-4.12.0-5], [MQTT-4.12.1-1]).
    errc step(role sender, auth const& packet) noexcept {
        auto const due = sender == role::client ? turn::client : turn::server;
        bool const begins = packet.reason == reason_code::reauthenticate && sender == role::client && connected_;
        bool const ends = packet.reason == reason_code::success && sender == role::server && connected_;
        bool const goes_on = packet.reason == reason_code::continue_authentication;
        bool const allowed = begins ? turn_ == turn::nobody : (goes_on || ends) && turn_ == due;
        if (!agreed_ || !allowed) return errc::authentication_not_due;
        auto const method = packet.props.get<property_id::authentication_method>();
        if (method && *method != method_) return errc::authentication_method_changed;
        turn_ = ends ? turn::nobody : sender == role::client ? turn::server : turn::client;
        return errc::ok;
    }

    /// Whether CONNECT has named a method.
    bool agreed() const noexcept { return agreed_; }
    std::string const& method() const noexcept { return method_; }
    /// Whether an authentication has begun and not ended.
    bool under_way() const noexcept { return turn_ != turn::nobody; }

  private:
    enum class turn : std::uint8_t { nobody, client, server };  // whose step is due

    std::string method_{};
    turn turn_ = turn::nobody;
    bool agreed_ = false;
    bool connected_ = false;
};

}  // namespace runnel::mqtt
