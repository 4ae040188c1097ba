#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/printable.hpp>
#include <runnel/mqtt/codec/property_view.hpp>
#include <runnel/mqtt/codec/reason_code.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// What a server says besides the reason code, in MQTT 5, of a message (3.4.2.2, 3.5.2.2, 3.7.2.2), of a connection
/// (3.2.2.3.9, 3.2.2.3.10).
struct publish_details {
    std::string reason_string{};  ///< made `printable`
    /// The first of them, as many as fit into 64 KiB.
    std::vector<std::pair<std::string, std::string>> user_properties{};

    /// Null if the packet says nothing.
    RUNNEL_COLD static std::shared_ptr<publish_details const> of(property_view const& props) {
        auto const text = props.get<property_id::reason_string>();
        auto const pairs = props.get<property_id::user_property>();
        if (!text && pairs.is_blank()) return nullptr;
        auto details = std::make_shared<publish_details>();
        details->reason_string = printable(text.value_or(""));
        std::size_t room = 64 * 1024;  // a packet has place for millions of empty ones
        std::size_t count = 0;
        for (auto const& [name, value] : pairs) {
            auto const size = sizeof(std::pair<std::string, std::string>) + name.size() + value.size();
            if (size > room) break;
            room -= size;
            ++count;
        }
        details->user_properties = std::vector<std::pair<std::string, std::string>>(count);
        auto from = pairs.begin();
        for (auto& [name, value] : details->user_properties) {
            auto const pair = *from++;
            name = pair.name;
            value = pair.value;
        }
        return details;
    }
};

/// How far a message has come when `session::publish` completes.
struct publish_result {
    enum class outcome : std::uint8_t {
        queued,        ///< QoS 0 without a connection: it is sent as soon as there is one
        sent,          ///< QoS 0: it is on its way
        acknowledged,  ///< QoS 1 and 2: the server has taken it
    };
    outcome what = outcome::sent;
    /// Of the acknowledgement: `success` or, in MQTT 5, `no_matching_subscribers`.
    reason_code reason = reason_code::success;
    /// Null if the server has said no more than the reason.
    std::shared_ptr<publish_details const> details{};

    operator reason_code() const noexcept { return reason; }
};

}  // namespace runnel::mqtt
