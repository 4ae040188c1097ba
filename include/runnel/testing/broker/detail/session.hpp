#pragma once

#include <runnel/core/send_buffer.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>
#include <runnel/testing/broker/detail/outgoing_queue.hpp>
#include <runnel/testing/broker/detail/retained_messages.hpp>
#include <runnel/testing/broker/options.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace runnel::testing::detail {

struct broker_session;

/// A client's enhanced authentication, for as long as its connection lasts.
struct client_authentication {
    mqtt::authentication turns{};  ///< until CONNACK; then the session state knows
    std::string connect{};         ///< the body of its CONNECT, until CONNACK
    std::string session_name{};
    std::optional<std::string> assigned_client_identifier{};
    bool is_named_by_broker = false;  ///< the session's name is an identifier that the broker has made
    std::size_t maximum_packet_size = mqtt::max_variable_integer + 5;  ///< that the client takes
    std::string memory{};                                              ///< of the user
    unsigned step = 0;
};

/// A network connection as the broker's rules see it. The driver derives from it and does the I/O.
class broker_connection {
  public:
    using time_point = std::chrono::steady_clock::time_point;

    explicit broker_connection(connection_info from) : info(std::move(from)) {}
    broker_connection(broker_connection const&) = delete;
    broker_connection& operator=(broker_connection const&) = delete;

    /// `out` has grown, or `closing` has become true. May be called very often.
    virtual void wake() = 0;
    /// The connection is to be cut now, whatever is under way. Must not call the broker back.
    virtual void abort() = 0;

    connection_info info;
    send_buffer out{};         ///< what is to be sent
    bool closing = false;      ///< once `out` has been sent, the flow to the client ends; input is dropped
    std::size_t expected = 0;  ///< bytes of the packet that the rest of the input begins; 0 if not known

    // For the broker alone:
    std::shared_ptr<broker_session> session{};  ///< from CONNECT to the end
    std::string client{};                       ///< the name of that, also afterwards
    std::unique_ptr<client_authentication> authentication{};
    time_point heard{};                   ///< when anything came from the client
    std::chrono::milliseconds silence{};  ///< how long it may be silent; 0: without limit
    std::optional<time_point> deadline{};
    bool input_held = false;                   ///< nothing is read, as it does not take its answers
    std::optional<time_point> behind_since{};  ///< since when it has taken nothing of what is to be sent

  protected:
    ~broker_connection() = default;
};

/// A subscription of a session.
struct broker_subscription {
    broker_session* session;
    mqtt::qos maximum_qos;
    bool no_local;
    bool retain_as_published;
    std::uint32_t identifier;  ///< 0: none

    /// Bytes that limits count for one with this filter: each level is a node of the router, and the filter is kept
    /// there, in the session, and with the retained messages that are to come.
    static std::size_t cost(std::string_view filter) noexcept {
        return 512 + 4 * filter.size() + 128 * (1 + static_cast<std::size_t>(std::ranges::count(filter, '/')));
    }
};

/// A message of a shared subscription that one member has been sent, and that goes to another one if the member's
/// session ends before it has acknowledged it.
struct lent_message {
    message_ptr message{};
    std::string share{};
    std::list<lent_message>::iterator place;
};

/// What the broker knows of a client for as long as its session lasts.
struct broker_session {
    using time_point = broker_connection::time_point;
    static constexpr std::uint32_t never = 0xFFFF'FFFF;

    broker_session(std::string session_name, mqtt::protocol_version version, broker_options const& options)
        : name(std::move(session_name)),
          limits(options),
          state(mqtt::role::server, version,
                {.queued_bytes = (std::numeric_limits<std::size_t>::max)(),
                 .in_flight = options.in_flight,
                 .outgoing_topic_aliases = options.outgoing_topic_aliases}) {}
    broker_session(broker_session const&) = delete;
    broker_session& operator=(broker_session const&) = delete;

    client_info info() const { return {name, state.version(), from, subscriptions.size()}; }
    bool connected() const noexcept { return connection != nullptr; }

    /// Whether another message is taken.
    bool has_room(outgoing_message const& m) const noexcept {
        auto const cost = m.cost();
        if (m.quality == mqtt::qos::at_most_once) {
            auto const used = connected() ? connection->out.size() + waiting.bytes() : limits.output_limit;
            return used < limits.output_limit;
        }
        auto const used = queue.bytes() + state.queued_bytes();
        return used == 0 ||
               (queue.size() < limits.queue_limit && used < limits.queue_bytes && cost <= limits.queue_bytes - used);
    }

    /// How well it is suited to get a message of a shared subscription; 0: not at all.
    unsigned readiness(outgoing_message const& m, time_point now) const {
        if (!has_room(m)) return 0;
        if (!connected()) return 1;
        bool const stalled = connection->behind_since && *connection->behind_since + stall < now;
        return stalled || !(m.quality == mqtt::qos::at_most_once ? waiting : queue).empty() ? 2 : best_readiness;
    }
    static constexpr unsigned best_readiness = 3;
    /// A connection that has taken nothing for so long is stalled.
    static constexpr std::chrono::seconds stall{1};

    std::string name;
    broker_options const& limits;
    mqtt::session_state state;  ///< holds what has been sent; what waits for its turn is in `waiting` and `queue`
    broker_connection* connection = nullptr;
    connection_info from{};                  ///< of the connection, or of the last one
    outgoing_queue waiting{};                ///< QoS 0, while connected
    outgoing_queue queue{};                  ///< QoS 1 and 2
    std::list<retained_request> retained{};  ///< what new subscriptions are still to get, before all in the queues
    std::list<lent_message> lent{};          ///< QoS 1, sent and not acknowledged
    std::map<std::string, broker_subscription, std::less<>> subscriptions{};  ///< by topic filter
    std::size_t subscription_bytes = 0;                                       ///< what they cost
    std::vector<mqtt::delivery> held{};                                       ///< acknowledgements held back on demand
    std::uint32_t asked_expiry = 0;                                           ///< seconds, that CONNECT has asked for
    std::uint32_t expiry = 0;  ///< seconds after the end of the connection

    message_ptr will{};
    std::uint32_t will_delay = 0;         ///< seconds
    std::optional<time_point> will_at{};  ///< when it is to be published
    std::optional<time_point> ends_at{};  ///< when the session ends
    std::optional<time_point> deadline{};

    std::uint64_t match = 0;    ///< the message that it was found for last
    std::size_t hit_index = 0;  ///< and its place among those found
};

}  // namespace runnel::testing::detail
