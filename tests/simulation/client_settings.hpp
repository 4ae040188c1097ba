#pragma once

#include <runnel/mqtt/client/session_options.hpp>

#include "simulation/machine.hpp"
#include <cstddef>
#include <cstdint>

namespace simulation {

namespace mqtt = runnel::mqtt;

/// Of each client's will.
inline constexpr char will_topic[] = "w";

/// How a client is set up.
struct settings {
    mqtt::session_options options;
    bool has_store = false;
    bool expires = false;          // some messages do
    std::size_t inbox = 1 << 20;   // of a subscription, in bytes
    std::size_t unsteadiness = 0;  // of the user's code: how often it fails, out of 1000
};
inline settings draw_settings(random_source& r) {
    settings s;
    auto& o = s.options;
    o.credentials.client_id = "c";
    o.version = r.one_in(2) ? mqtt::protocol_version::v5 : mqtt::protocol_version::v3_1_1;
    if (o.version == mqtt::protocol_version::v5) o.session_expiry = 30 * 24h;
    o.keep_alive = std::chrono::seconds(r.between(4, 60));
    o.response_timeout = milliseconds(r.between(500, 10'000));
    o.connect_timeout = milliseconds(r.between(500, 30'000));
    o.close_timeout = milliseconds(r.between(200, 3'000));
    o.reconnect.initial = milliseconds(r.between(1, 1'000));
    o.reconnect.maximum = o.reconnect.initial + milliseconds(r.between(0, 20'000));
    o.receive_maximum = r.one_in(2) ? r.between<std::uint16_t>(1, 10) : std::uint16_t{1024};
    o.maximum_in_flight = r.one_in(2) ? r.between<std::uint16_t>(1, 10) : std::uint16_t{1024};
    if (r.one_in(3)) o.maximum_queued_messages = r.between<std::uint16_t>(2, 20);
    if (r.one_in(3)) o.maximum_queued = r.between(100, 20'000);
    if (r.one_in(3)) o.maximum_unwritten = r.between(50, 5'000);
    if (r.one_in(3)) o.outgoing_topic_aliases = r.between<std::uint16_t>(0, 2);
    o.when_full =
        r.one_in(4) ? mqtt::overflow::refuse : (r.one_in(4) ? mqtt::overflow::drop_oldest : mqtt::overflow::wait);
    o.stalled_after = milliseconds(r.between(1'000, 10'000));
    o.message_strikes = 0;  // the network's resets would look like a server that cannot take a message
    if (r.one_in(4)) {
        o.pace.span = milliseconds(r.between(100, 2'000));
        o.pace.acknowledged = r.between<std::uint16_t>(1, 20);
        if (r.one_in(2)) o.pace.at_most_once = r.between<std::uint16_t>(1, 20);
    }
    if (r.one_in(2)) o.will.emplace(will_topic, "gone");
    s.expires = o.version == mqtt::protocol_version::v5 && r.one_in(2);
    s.has_store = r.one_in(2);
    if (r.one_in(2)) s.inbox = r.between(1, 10'000);
    s.unsteadiness = r.one_in(2) ? 0 : r.between(0, 100);
    return s;
}

}  // namespace simulation
