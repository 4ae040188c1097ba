#pragma once

#include <runnel/core/printable.hpp>
#include <runnel/testing/broker/detail/deadlines.hpp>
#include <runnel/testing/broker/detail/outgoing_queue.hpp>
#include <runnel/testing/broker/detail/packet_faults.hpp>
#include <runnel/testing/broker/detail/retained_messages.hpp>
#include <runnel/testing/broker/detail/session.hpp>
#include <runnel/testing/broker/detail/subscription_table.hpp>
#include <runnel/testing/broker/options.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::testing::detail {

/// The rules of an MQTT broker, without I/O and without a clock: both versions of the protocol, sessions,
/// subscriptions, retained messages, wills. `now` is an argument and never goes back.
///
/// A connection is an object derived from `broker_connection`; it must live from `opened` until `closed` returns.
class broker_core {
  public:
    using time_point = broker_connection::time_point;

    /// Throws `std::out_of_range` if the options are not possible.
    explicit broker_core(broker_options options = {}) : options_(std::move(options)) { check(options_); }
    broker_core(broker_core const&) = delete;
    broker_core& operator=(broker_core const&) = delete;

    broker_options const& options() const noexcept { return options_; }
    broker_counters const& counters() const noexcept { return counters_; }
    /// What the broker asks and tells; may be set at any time, but not from within one of them.
    broker_hooks hooks{};

    // What the driver reports:

    /// A client has made a network connection.
    void opened(broker_connection& c, time_point now) {
        now_ = now;
        ++counters_.connections;
        c.heard = now;
        c.behind_since.reset();
        c.authentication.reset();
        connections_.set(c, now + options_.connect_limit);
    }

    /// Bytes have come. Whole packets are handled and removed from `input`; of the rest `c.expected` tells more.
    void receive(broker_connection& c, std::string_view& input, time_point now);

    /// Whether the driver is to read on from the client. Not before `sent`, if it does not take its answers.
    bool wants_input(broker_connection& c) const noexcept {
        c.input_held = !c.closing && c.out.size() >= options_.output_limit;
        return !c.input_held;
    }

    /// All that was taken from `c.out` has been sent.
    void sent(broker_connection& c, time_point now) {
        now_ = now;
        if (c.input_held) c.heard = now;  // it takes its answers; what it says cannot be heard yet
        c.behind_since.reset();
        if (c.session) send_queued(*c.session);
        if (!c.out.empty()) c.behind_since = now;
    }

    /// The client sends nothing more, but may still read. Without a DISCONNECT before, its will is published.
    void input_ended(broker_connection& c, time_point now) {
        now_ = now;
        end_connection(c, true);
        close(c);
    }

    /// The network connection is gone. Without a DISCONNECT before, the client's will is published.
    void closed(broker_connection& c, time_point now) {
        now_ = now;
        end_connection(c, true);
        c.closing = true;
        connections_.clear(c);
    }

    /// When `advance` is to be called next, if nothing happens before.
    std::optional<time_point> next_deadline() const {
        auto const a = connections_.next();
        auto const b = sessions_due_.next();
        return a && b ? (std::min)(*a, *b) : a ? a : b;
    }

    /// Does what has become due: late clients, wills, sessions that end.
    void advance(time_point now);

    // What the user asks for:

    /// Publishes a message of the broker's own; returns how many clients get it.
    std::size_t publish(mqtt::publish const& m, time_point now) {
        now_ = now;
        return route(std::make_shared<stored_message const>(m, now), nullptr);
    }

    /// Sends a message to one client, whether it has subscribed or not. False: it is not connected.
    bool send_to(std::string_view name, mqtt::publish const& m, time_point now) {
        now_ = now;
        auto* const c = connection_of(name);
        if (c == nullptr) return false;
        deliver(*c->session, {std::make_shared<stored_message const>(m, now), m.qos, false, {}});
        return true;
    }

    /// Cuts a client's network connection, as a failing network does. False: it is not connected.
    bool drop_client(std::string_view name, time_point now) {
        now_ = now;
        auto* const c = connection_of(name);
        if (c == nullptr) return false;
        end_connection(*c, true);
        c->closing = true;
        connections_.clear(*c);
        c->abort();
        return true;
    }

    /// Ends a client's connection in good order (MQTT 5: with DISCONNECT). False: it is not connected.
    bool disconnect_client(std::string_view name, mqtt::reason_code reason, time_point now) {
        now_ = now;
        auto* const c = connection_of(name);
        if (c == nullptr) return false;
        disconnect(*c, reason, {});
        return true;
    }

    /// Refuses the next `count` CONNECTs.
    void refuse_next(std::size_t count, mqtt::reason_code reason) noexcept {
        refuse_ = count;
        refuse_reason_ = reason;
    }

    /// While held, messages of QoS 1 and 2 are not acknowledged; then all are that are still waiting.
    void hold_acknowledgements(bool hold) {
        hold_ = hold;
        if (hold) return;
        send_buffer nowhere;  // a session without a connection only remembers what may be acknowledged on the next one
        for (auto& [name, s] : sessions_) {
            for (auto const& d : std::exchange(s->held, {}))
                s->state.acknowledge(s->connected() ? s->connection->out : nowhere, d);
            if (s->connected()) s->connection->wake();
        }
    }

    /// What is to happen to packets; the driver has them pass gates.
    packet_faults& faults() noexcept { return faults_; }

    bool connected(std::string_view name) const {
        auto const found = sessions_.find(name);
        return found != sessions_.end() && found->second->connected();
    }
    bool subscribed(std::string_view filter) const {
        return std::any_of(sessions_.begin(), sessions_.end(),
                           [&](auto const& entry) { return entry.second->subscriptions.contains(filter); });
    }
    std::size_t session_count() const noexcept { return sessions_.size(); }
    std::size_t retained_count() const noexcept { return retained_.size(); }
    std::deque<received_message> const& received() const noexcept { return received_; }
    void clear_received() noexcept { received_.clear(); }

    /// Tells the log, if there is one.
    void log(std::string_view text) const {
        if (hooks.log) hooks.log(printable(text));
    }

  private:
    struct packet_handler;

    // Every field of CONNECT is at most 64 KiB; user properties make it larger.
    static constexpr std::size_t max_connect_size = 1024 * 1024;

    // broker_connect.hpp
    void receive_connect(broker_connection& c, std::string_view& input);
    mqtt::errc read_connect(mqtt::frame const& f, std::string& renamed, mqtt::protocol_version& version, bool& versed,
                            mqtt::connect& packet) const;
    void handle_connect(broker_connection& c, mqtt::connect const& packet, mqtt::protocol_version version,
                        std::string_view body);
    std::string make_identifier();
    void refuse(broker_connection& c, connect_attempt const& request, mqtt::reason_code reason);
    mqtt::reason_code check_connect(connect_attempt& request);
    std::shared_ptr<broker_session> find_or_make_session(connect_attempt const& request, bool& present);
    void keep_will(broker_session& s, mqtt::will const& w);
    mqtt::properties announce(connect_attempt const& request, mqtt::properties const& asked,
                              std::uint32_t expiry) const;
    std::uint16_t keep_alive_for(connect_attempt const& request) const;
    void accept(broker_connection& c, connect_attempt const& request, std::optional<std::string_view> reply = {});

    // broker_authentication.hpp
    void begin_authentication(broker_connection& c, connect_attempt const& request, std::string_view body);
    void receive_authentication(broker_connection& c, std::string_view& input);
    mqtt::errc check_authentication(broker_connection& c, mqtt::frame const& f, mqtt::auth& packet);
    void authenticate(broker_connection& c, std::optional<std::string_view> data);
    void finish_connect(broker_connection& c, mqtt::reason_code reason, std::optional<std::string_view> reply);
    void handle_auth(broker_session& s, mqtt::auth const& packet);

    // broker_packets.hpp
    void receive_packets(broker_connection& c, std::string_view& input);
    void handle_message(broker_session& s, mqtt::publish const& m, mqtt::delivery d);
    publish_verdict take_message(broker_session& s, mqtt::publish const& m);
    bool fits_answer(broker_session& s, mqtt::packet_type type, std::size_t reasons);
    void handle_subscribe(broker_session& s, mqtt::subscribe const& packet);
    void handle_unsubscribe(broker_session& s, mqtt::unsubscribe const& packet);
    void forget_retained(broker_session& s, std::string_view filter);
    void handle_disconnect(broker_session& s, mqtt::disconnect const& packet);
    mqtt::reason_code check_subscription(broker_session& s, mqtt::subscribe const& packet,
                                         mqtt::subscription_request const& request);
    bool subscribe(broker_session& s, mqtt::subscription_request const& request, mqtt::qos granted,
                   std::uint32_t identifier);

    // broker_endings.hpp
    void disconnect(broker_connection& c, mqtt::reason_code reason, std::string_view why);
    void close(broker_connection& c);
    void end_connection(broker_connection& c, bool abnormal);
    void check_offline(broker_session& s);
    void publish_will(broker_session& s);
    void end_session(broker_session& s);
    void pass_on(broker_session& s);

    broker_connection* connection_of(std::string_view name) const {
        auto const found = sessions_.find(name);
        return found == sessions_.end() ? nullptr : found->second->connection;
    }

    // What the session state does not send.
    template <class Packet>
    static void send_packet(broker_connection& c, Packet const& packet, mqtt::protocol_version version) {
        auto const size = encoded_size(packet, version);
        encode(c.out.prepare(size), packet, version);
        c.out.commit(size);
    }

    // broker_delivery.hpp
    static constexpr std::size_t written_at_once = 64 * 1024;
    std::size_t route(message_ptr const& m, broker_session const* from);
    void deliver(broker_session& s, outgoing_message m);
    bool can_send(broker_session const& s, mqtt::qos quality) const;
    void send_queued(broker_session& s);
    bool send_first(broker_session& s, outgoing_queue& queue, mqtt::qos quality);
    void send_retained(broker_session& s);
    bool send_retained(broker_session& s, retained_request& r);
    void tell_time(broker_session& s) const noexcept;
    bool send(broker_session& s, outgoing_message const& o);

    broker_options options_;
    broker_counters counters_{};
    packet_faults faults_{counters_};
    time_point now_{};
    std::map<std::string, std::shared_ptr<broker_session>, std::less<>> sessions_{};
    subscription_table table_{};
    std::vector<subscription_table::hit> hits_{};
    retained_messages retained_{};
    deadlines<broker_connection> connections_{};
    deadlines<broker_session> sessions_due_{};
    std::deque<received_message> received_{};
    std::size_t refuse_ = 0;
    mqtt::reason_code refuse_reason_ = mqtt::reason_code::server_unavailable;
    bool hold_ = false;
    std::uint64_t assigned_ = 0;
};

inline void broker_core::receive(broker_connection& c, std::string_view& input, time_point now) {
    now_ = now;
    c.heard = now;
    for (auto left = input.size() + 1; !c.closing && !c.session && input.size() < left;) {
        left = input.size();
        c.authentication ? receive_authentication(c, input) : receive_connect(c, input);
    }
    if (c.session) receive_packets(c, input);
    if (c.closing) input = {};
    if (!c.out.empty()) c.wake();
}

inline void broker_core::advance(time_point now) {
    now_ = now;
    while (auto* const c = connections_.take_due(now)) {
        if (c->closing) {
            c->abort();
        } else if (!c->session) {
            log("a client did not send CONNECT in time");
            c->closing = true;
            c->abort();
        } else if (auto const late = c->heard + c->silence; late > now) {
            connections_.set(*c, late);
        } else {
            ++counters_.protocol_errors;
            log("client " + c->session->name + ": silent for longer than its keep alive allows");
            disconnect(*c, mqtt::reason_code::keep_alive_timeout, {});  // [MQTT-3.1.2-22]
        }
    }
    while (auto* const s = sessions_due_.take_due(now)) {
        auto const hold = sessions_.find(s->name)->second;
        check_offline(*hold);
    }
}

}  // namespace runnel::testing::detail

#include <runnel/testing/broker/detail/authentication.hpp>
#include <runnel/testing/broker/detail/connect.hpp>
#include <runnel/testing/broker/detail/delivery.hpp>
#include <runnel/testing/broker/detail/endings.hpp>
#include <runnel/testing/broker/detail/packets.hpp>
