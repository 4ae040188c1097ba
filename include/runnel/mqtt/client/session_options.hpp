#pragma once

#include <runnel/core/callback.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/heap_optional.hpp>
#include <runnel/mqtt/client/credentials.hpp>
#include <runnel/mqtt/client/reconnect.hpp>
#include <runnel/mqtt/client/session_event.hpp>
#include <runnel/mqtt/codec/property.hpp>
#include <runnel/mqtt/codec/types.hpp>
#include <runnel/mqtt/codec/user_properties.hpp>
#include <runnel/mqtt/packet/subscribe.hpp>
#include <runnel/mqtt/protocol/capabilities.hpp>
#include <runnel/mqtt/protocol/pacing.hpp>
#include <runnel/mqtt/store/session_store.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

namespace runnel::mqtt {

/// A will that owns its memory: see `will`. What follows `delay` are properties of its message (3.1.3.2); a text that
/// is empty is not sent.
struct will_message_options {
    std::string topic{};
    std::string payload{};
    mqtt::qos qos = mqtt::qos::at_most_once;
    bool retain = false;
    std::chrono::seconds delay{0};  ///< MQTT 5: how long after the end of the connection, 0 to 4,294,967,295 s
    bool payload_is_utf8 = false;   ///< MQTT 5: Payload Format Indicator
    /// MQTT 5: how long the server may keep the message for a subscriber, 0 to 4,294,967,295 s.
    std::optional<std::chrono::seconds> message_expiry{};
    std::string content_type{};               ///< MQTT 5: what the payload is, by agreement: a MIME type, say
    std::string response_topic{};             ///< MQTT 5: where an answer is expected
    std::string correlation_data{};           ///< MQTT 5: tells what an answer belongs to; any bytes
    mqtt::user_properties user_properties{};  ///< MQTT 5
};

/// A session that the server keeps until it is told to end it (3.1.2.11.2): `session_options::session_expiry`.
inline constexpr std::chrono::seconds never_expires{0xFFFF'FFFF};

/// What becomes of a message for which there is no room (`maximum_queued`, `maximum_unwritten`).
enum class overflow : std::uint8_t {
    wait,  ///< `publish` waits until there is room
    /// `publish` throws `errc::queue_full`; `topic_alias_cannot_wait` where there is room, but a QoS 0 message that has
    /// a topic alias of the application's own would have to wait behind others.
    refuse,
    drop_oldest,  ///< the oldest QoS 0 messages that wait for a connection are dropped; `publish` waits if none is left
};

/// How a session connects and behaves. `session`'s constructor refuses what is out of range, and what is for MQTT 5 in
/// a session of MQTT 3.1.1 (but not in an automatic one).
struct session_options {
    mqtt::credentials credentials{};
    /// If set, is called for each attempt to connect, instead of using `credentials`: for tokens and signed timestamps.
    /// Any `credentials_provider`.
    std::function<mqtt::credentials()> make_credentials{};
    /// `automatic`: MQTT 5, and 3.1.1 where the server refuses 5 or ends the connection without an answer to it. That
    /// is tried at once, with a `connect_timeout` of its own, and holds until the session turns to another server or
    /// `run` ends. What only MQTT 5 has is then left out, or is an error: the event `fallback` tells what. See
    /// `version_choice`.
    protocol_version version = protocol_version::v3_1_1;

    /// True: each connection begins a new session, and what the server holds for an old one is lost. False: the session
    /// outlives the connection, so that QoS 1 and 2 hold across reconnects; it needs a client identifier.
    bool clean_start = false;
    /// What to do when the server has kept a session of which this object knows nothing, as after a restart of the
    /// process. True: take it up, and with it the messages that wait there. False: end the connection with
    /// `errc::session_present_unexpected`, as [MQTT-3.2.2-4] asks of a client that has lost its state.
    bool accept_unknown_session = true;
    /// MQTT 5: asks the server for the beginning of response topics (3.1.2.11.6); `session::request` then uses it.
    bool request_response_information = false;
    /// MQTT 5: whether the server may put reason strings and user properties into all of its packets (3.1.2.11.7).
    bool request_problem_information = true;
    /// MQTT 5: how long the server keeps the session after the connection has ended, 0 to 4,294,967,294 s, or
    /// `never_expires`.
    std::chrono::seconds session_expiry{3600};
    std::chrono::seconds keep_alive{60};         ///< longest silence before a ping, 0 (none) to 65,535 s
    heap_optional<will_message_options> will{};  ///< what the server publishes when this client is lost
    mqtt::user_properties user_properties{};     ///< MQTT 5: of CONNECT

    /// For resolving, all handshakes and CONNACK, 1 ms or more. Several servers, and addresses, have shares of it: see
    /// `connect_budget`.
    std::chrono::milliseconds connect_timeout{30'000};
    /// For the answer to a ping, from when it was written, 1 ms or more; at most three quarters of the keep alive, so
    /// that a dead link is noticed within one and a half times that. Bytes that move in either direction prolong it.
    std::chrono::milliseconds response_timeout{10'000};
    std::chrono::milliseconds close_timeout{2'000};  ///< for ending a connection in good order, 1 ms or more
    reconnect_policy reconnect{};

    std::uint32_t maximum_packet_size = 16 * 1024 * 1024;  ///< largest packet accepted, in bytes, 1 or more
    /// QoS 1 and 2 messages taken in but not acknowledged, 1 to 65,535. A server of MQTT 5 is told so. One that sends
    /// more all the same has broken the protocol, and is told 65,535 the next time: mosquitto 2.0 does not keep to less
    /// where its `max_inflight_messages` is 0. From then on, and in MQTT 3.1.1, whose servers cannot be told, this side
    /// sees to it: see `session_state::can_take_more`.
    std::uint16_t receive_maximum = 1024;
    /// Bytes of messages that the application has not taken, kept ones included, beyond the bounds of the inboxes
    /// (`subscribe_options::inbox`), 1 or more. Once there are as many, nothing is read until half of them have been
    /// taken, as with `receive_maximum` in MQTT 3.1.1; but one message always has room. A connection brings as much as
    /// is left, and 64 KiB, before this is looked at.
    std::size_t maximum_held = 64 * 1024 * 1024;
    /// How long a QoS 1 or 2 message that no subscription wants is kept, unacknowledged, for a subscription that is
    /// made yet: 0 (not at all) to a day. Meant for what the server has kept for subscriptions of an earlier process:
    /// it comes right behind the acceptance of the connection. Then the message is acknowledged, in MQTT 5 with
    /// `reason_code::implementation_specific_error`, and lost. After one has waited in vain, no more than four are kept
    /// at a time, until the next subscription is made.
    std::chrono::milliseconds unrouted_timeout{10'000};
    /// After how long an inbox in which QoS 1 or 2 messages wait and from which nobody receives is told of by
    /// `session_event::kind::stalled`: 0 (never) to a day. After as long without any other message the session connects
    /// anew to get those that have been given back (`message::abandon`), if it outlasts the connection; each time in a
    /// row that they are all given back again after twice as long, up to 32 times.
    std::chrono::milliseconds stalled_after{10'000};
    std::uint16_t incoming_topic_aliases = 16;  ///< MQTT 5: topics that the server may abbreviate; 0: none
    std::uint16_t outgoing_topic_aliases = 16;  ///< MQTT 5: topics abbreviated, if the server takes that; 0: none
    std::uint16_t maximum_in_flight = 1024;     ///< QoS 1 and 2 messages sent but not acknowledged, 1 to 65,535
    /// Messages that wait to be sent or acknowledged, from the oldest on, 1 to 65,535.
    std::uint16_t maximum_queued_messages = 65535;
    std::size_t maximum_queued = 4 * 1024 * 1024;  ///< bytes of packets that wait to be sent or acknowledged
    std::size_t maximum_unwritten = 256 * 1024;    ///< bytes beyond which QoS 0 messages wait for the network
    /// How often in a row the server must have ended the connection for a QoS 1 or 2 message alone, in a trial, until
    /// it is given up (see `quarantine`): 0 is never.
    std::uint32_t message_strikes = 3;
    overflow when_full = overflow::wait;  ///< what becomes of a message for which there is no room
    /// MQTT 5: whether to follow a server that names another one (4.11), at most five in a row: at once, by the same
    /// transport to that host. Mind that it then gets the credentials. False: such a refusal is one like others.
    bool follow_redirects = false;
    /// If set, how fast messages leave, those sent again after a reconnect included. `publish` of a QoS 0 message then
    /// completes when it leaves, not at once; its timeout counts while it waits.
    publish_pace pace{};

    /// If set, keeps what of the session must outlive the process (kill -9 at any moment included): QoS 1 and 2
    /// messages that are queued or not acknowledged, and what makes QoS 2 exactly once. A `std::shared_ptr` to any
    /// `session_store`, such as `sqlite_store`. It needs a client identifier that is the same in every process.
    any_session_store store{};

    /// If set, is told of every change of the connection. It must not throw.
    callback<session_event const&> on_event{};
};

/// How to publish. A plain aggregate of numbers and views, which can be written in braces in a `co_await` expression.
struct publish_options {
    mqtt::qos qos = mqtt::qos::at_most_once;
    bool retain = false;
    properties const* props = nullptr;  ///< MQTT 5; must outlive the call
    /// If not 0: how long `publish` may take, in ms, waiting for room and for its turn included, until it throws
    /// `errc::message_expired`, and the message is not sent; or `errc::response_timeout`, if it has been sent and the
    /// acknowledgement is still to come.
    std::chrono::milliseconds timeout{0};
    /// Of `publish` and QoS 0: whether the message is for this connection and this call only. If it has not left when
    /// the connection is lost, or the call is cancelled, it never does; `publish` throws `errc::not_connected` then,
    /// and at once if there is no connection.
    bool this_connection = false;
};

/// How to subscribe. The same remark holds.
struct subscribe_options {
    qos maximum_qos = qos::exactly_once;               ///< messages of higher QoS are delivered with this one
    std::size_t inbox = 1024 * 1024;                   ///< bytes of QoS 0 messages that may wait to be received
    bool no_local = false;                             ///< MQTT 5
    bool retain_as_published = false;                  ///< MQTT 5
    retain_handling handling = retain_handling::send;  ///< MQTT 5
    /// MQTT 5: of SUBSCRIBE, each time that it is sent. A view, which is copied by the call.
    user_property_list user_properties{};
};

/// Throws `errc::not_in_this_version`, with the option's name, if it is used, and only MQTT 5 has it.
RUNNEL_COLD RUNNEL_NOINLINE inline void check_version(bool may_have_v5, bool is_used, char const* name) {
    if (is_used && !may_have_v5) RUNNEL_THROW(std::system_error(errc::not_in_this_version, name));
}
/// The same for all options, unless `version` is MQTT 5 or may be. Topic aliases are used where they can be.
RUNNEL_COLD inline void check_version(session_options const& o) {
    bool const may_have_v5 = o.version != protocol_version::v3_1_1;
    auto const refuse_if = [&](bool is, char const* name) { check_version(may_have_v5, is, name); };
    refuse_if(o.request_response_information, "request_response_information");
    refuse_if(!o.request_problem_information, "request_problem_information");
    refuse_if(o.session_expiry != std::chrono::hours(1), "session_expiry");
    refuse_if(!o.user_properties.empty(), "user_properties");
    refuse_if(o.follow_redirects, "follow_redirects");
    if (!o.will) return;
    auto const& w = *o.will;
    refuse_if(w.delay.count() != 0, "will.delay");
    refuse_if(w.payload_is_utf8, "will.payload_is_utf8");
    refuse_if(w.message_expiry.has_value(), "will.message_expiry");
    refuse_if(!w.content_type.empty(), "will.content_type");
    refuse_if(!w.response_topic.empty(), "will.response_topic");
    refuse_if(!w.correlation_data.empty(), "will.correlation_data");
    refuse_if(!w.user_properties.empty(), "will.user_properties");
}

/// The same for those of a subscription.
RUNNEL_COLD inline void check_version(bool may_have_v5, subscribe_options const& o) {
    check_version(may_have_v5, o.no_local, "no_local");
    check_version(may_have_v5, o.retain_as_published, "retain_as_published");
    check_version(may_have_v5, o.handling != retain_handling::send, "handling");
    check_version(may_have_v5, !o.user_properties.is_blank(), "user_properties");
}

/// Throws `std::out_of_range`, with the range in its text, if the options are not possible, and
/// `errc::not_in_this_version`, with the option's name, if one is for MQTT 5 and `version` is 3.1.1.
RUNNEL_COLD inline void check(session_options const& o) {
    using namespace std::chrono_literals;
    auto const seconds = [](std::chrono::seconds value, std::int64_t maximum, char const* name) {
        if (value < 0s || value.count() > maximum)
            RUNNEL_THROW(std::out_of_range(std::string(name) + " is " + std::to_string(value.count()) +
                                           " s; it must be 0 to " + std::to_string(maximum) + " s"));
    };
    auto const require = [](bool is_possible, char const* name, char const* range) RUNNEL_LAMBDA_COLD {
        if (!is_possible) RUNNEL_THROW(std::out_of_range(std::string(name) + " must be " + range));
    };
    auto const positive = [&](auto value, char const* name)
                              RUNNEL_LAMBDA_ALWAYS_INLINE { require(value >= decltype(value){1}, name, "1 or more"); };
    seconds(o.keep_alive, 65'535, "keep_alive");
    seconds(o.session_expiry, 0xFFFF'FFFF, "session_expiry");
    if (o.will) {
        seconds(o.will->delay, 0xFFFF'FFFF, "will.delay");
        seconds(o.will->message_expiry.value_or(0s), 0xFFFF'FFFF, "will.message_expiry");
    }
    auto const up_to_a_day = [&](std::chrono::milliseconds value, char const* name) {
        require(value >= 0ms && value <= 24h, name, "0 to 24 h");
    };
    up_to_a_day(o.unrouted_timeout, "unrouted_timeout");
    up_to_a_day(o.stalled_after, "stalled_after");
    positive(o.connect_timeout, "connect_timeout (ms)");
    positive(o.response_timeout, "response_timeout (ms)");
    positive(o.close_timeout, "close_timeout (ms)");
    positive(o.maximum_packet_size, "maximum_packet_size");
    positive(o.receive_maximum, "receive_maximum");
    positive(o.maximum_held, "maximum_held");
    positive(o.maximum_in_flight, "maximum_in_flight");
    positive(o.maximum_queued, "maximum_queued");
    positive(o.maximum_queued_messages, "maximum_queued_messages");
    positive(o.maximum_unwritten, "maximum_unwritten");
    positive(o.pace.span, "pace.span (ms)");
    require(o.pace.span <= 24h, "pace.span", "24 h or less");
    check(o.reconnect);
    check_version(o);
}

}  // namespace runnel::mqtt
