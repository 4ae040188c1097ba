#pragma once

#include <runnel/mqtt/client/publish_result.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/protocol/capabilities.hpp>

#include <chrono>
#include <memory>
#include <string>

namespace runnel::mqtt {

/// What holds on a connection, of what the client has asked for and what the server has answered: see
/// `session::negotiated`.
struct negotiated_settings {
    protocol_version version{};
    std::string assigned_client_id{};       ///< what the server has chosen (3.2.2.3.7); empty: that of the credentials
    std::chrono::seconds keep_alive{0};     ///< the server's, if it has named one (3.2.2.3.14); 0: no pings
    std::chrono::seconds session_expiry{};  ///< the server's, if it has named one (3.2.2.3.2); see `never_expires`
    capabilities server{};                  ///< what the server accepts, in MQTT 3.1.1 everything
    std::string response_information{};     ///< the beginning of response topics, if it was asked for and given
    /// Reason string and user properties of CONNACK; null if there are none, or if they belong to more than 64 KiB.
    std::shared_ptr<publish_details const> details{};
};

}  // namespace runnel::mqtt
