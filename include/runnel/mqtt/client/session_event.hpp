#pragma once

#include <runnel/core/compiler.hpp>
#include <runnel/core/remark.hpp>
#include <runnel/mqtt/client/publish_result.hpp>
#include <runnel/transport/connect_progress.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

namespace runnel::mqtt {

/// What a session does at each change of its connection, and what it loses, for logs and displays.
struct session_event {
    enum class kind : std::uint8_t {
        connecting,  ///< an attempt to reach `url` begins
        refused,     ///< the server has refused the connection with `error`
        /// The server at `url` has accepted; `session_present` tells whether it kept the session, `detail` which
        /// servers have failed, or not answered in time, in this attempt before.
        connected,
        redirected,    ///< the server has named another one, which is tried next: `url`
        disconnected,  ///< the attempt (`step`) or the connection has failed with `error`, or ended after
                       ///< `disconnect()`
        waiting,       ///< the next attempt begins after `pause`
        /// In an automatic session, before `connected`: this connection is one of MQTT 3.1.1, as the server does not
        /// take
        /// 5. Options for MQTT 5 have no effect on it. `detail`: how many messages that waited have properties; they
        /// end with `errc::not_in_this_version`, or, where they have been sent before, perhaps, go without.
        fallback,
        /// The server has acknowledged 32,767 messages, but not an older one, to the topic in `detail`.
        unacknowledged,
        /// A QoS 1 or 2 message to the topic in `detail` was given up: the server ends each connection on which it is
        /// sent, with `error`. Its caller gets `errc::message_rejected`.
        message_rejected,
        /// The server refuses with `error` to renew a subscription, which is no more; `filter` is the one that it
        /// refuses.
        subscription_lost,
        /// A QoS 1 or 2 message has come that no subscription wants. It is kept for `pause`
        /// (`session_options::unrouted_timeout`); `detail` is its topic. Told for the first that is kept.
        unrouted,
        given_up,  ///< messages that were kept have been acknowledged: `detail` is the topic of one
        /// Nobody has received from an inbox for `pause` (`session_options::stalled_after`), in which QoS 1 or 2
        /// messages wait; they use up what the server may send. `detail` is the (first) topic filter.
        stalled,
        /// All that the server has sent for `pause` has been given back, so that it may not send more: the connection
        /// ends, and what was given back comes again on the next one.
        asking_again,
        /// Operations have begun and wait, and `run`, without which nothing happens, has not been called (yet).
        not_running,
    };
    kind what{};
    std::error_code error{};
    bool session_present = false;
    /// Of `waiting`: another client seems to use the same client identifier, so that the two throw each other out.
    bool twin_suspected = false;
    std::chrono::milliseconds pause{0};  ///< how long
    std::string url{};                   ///< of the server
    /// What the server says of it, in MQTT 5 (Reason String); of `disconnected` else: what failed or took too long,
    /// with whom, and a question after the usual reason, where there is one; or as the kind tells. Text from outside is
    /// made `printable`.
    std::string detail{};
    std::string filter{};  ///< of `subscription_lost`
    /// Of `disconnected`, if the server has not accepted the connection: what had been begun last. Then `url` tells the
    /// server, of several the one whose turn it was.
    connect_step step = connect_step::none;
    /// Of `disconnected`: reason string and user properties of the CONNACK that refuses, or of the server's DISCONNECT;
    /// null if there are none.
    std::shared_ptr<publish_details const> details{};
};

/// What was the matter with a server, if anything is known, and which it was.
RUNNEL_COLD inline std::string detail_with(std::string const& url, std::string const& detail) {
    if (detail.find(url) != std::string::npos) return detail;
    return detail.empty() ? url : url + ": " + detail;
}

/// The event in a line of text.
RUNNEL_COLD inline std::string to_string(session_event const& e) {
    using enum session_event::kind;
    std::string text;
    auto const say = [&](char const* before, std::string_view about = {}, char const* after = "") {
        ((text += before) += about) += after;
    };
    switch (e.what) {
        case connecting: say("connecting to ", e.url); break;
        case fallback:
            say("this is MQTT 3.1.1: options of MQTT 5 have no effect, nor the properties of ", e.detail, " messages");
            return text;
        case refused: say("refused by the server"); break;
        case connected:
            say("connected");
            if (!e.detail.empty()) say(" to ", e.url);
            say(e.session_present ? ", the session goes on" : ", a new session");
            if (!e.detail.empty()) say(" (before: ", e.detail, ")");
            return text;
        case redirected: say("redirected to ", e.url); break;
        case disconnected:
            say(e.step == connect_step::none ? "disconnected" : "could not connect");
            if (e.step != connect_step::none && e.detail.find(e.url) == std::string::npos) say(" to ", e.url);
            break;
        case subscription_lost: say("no longer subscribed to ", e.filter); break;
        case unrouted: say("no subscription wants a message to ", e.detail, ", which is kept for now"); return text;
        case given_up: say("no subscription has come for a message to ", e.detail, ": acknowledged"); return text;
        case stalled: say("nobody receives the messages of ", e.detail, ", which hold up others"); return text;
        case asking_again: say("connecting anew to get what has been given back, as nothing else comes"); break;
        case not_running: say("operations wait, and run() has not been called"); break;
        case message_rejected: say("a message to ", e.detail, " was given up: "); return text + e.error.message();
        case unacknowledged:
            say("the server does not acknowledge a message to ", e.detail, ", but many later ones");
            return text;
        case waiting:
            say("connecting again in ", std::to_string(e.pause.count()), " ms");
            if (e.twin_suspected) say("; another client seems to use the same client identifier");
            return text;  // its reason has been told
    }
    if (e.error) add_remark(text, e.error.message());
    add_remark(text, e.detail);
    return text;
}

/// What a session has done since it was made, and what it holds.
struct session_counters {
    std::uint64_t connections = 0;            ///< accepted by the server
    std::uint64_t bytes_received = 0;         ///< of MQTT, without the layers below
    std::uint64_t bytes_sent = 0;             ///< likewise
    std::uint64_t writes = 0;                 ///< calls of the stream's `write`; many packets share one
    std::uint64_t messages_published = 0;     ///< accepted by `publish` and `try_publish`
    std::uint64_t messages_acknowledged = 0;  ///< QoS 1 and 2, taken or refused by the server; those of a store, too
    std::uint64_t messages_dropped = 0;       ///< QoS 0, by `overflow::drop_oldest`
    std::uint64_t messages_resent = 0;        ///< QoS 1 and 2, on a later connection
    std::uint64_t commits = 0;                ///< calls of the store's `apply`; many messages share one
    std::uint64_t messages_received = 0;
    std::uint64_t messages_unrouted = 0;  ///< received, and dropped, as no subscription wanted them
    std::size_t queued_bytes = 0;         ///< now: of packets that wait to be sent or acknowledged
    std::size_t in_flight = 0;            ///< now: QoS 1 and 2 messages sent and not acknowledged
    /// Between the last CONNECT or PINGREQ and its answer; 0 if there has been none.
    std::chrono::microseconds round_trip{0};
};

}  // namespace runnel::mqtt
