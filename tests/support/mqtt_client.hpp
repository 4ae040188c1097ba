#pragma once

#include <runnel/core/receive_buffer.hpp>
#include <runnel/coro/race.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>
#include <runnel/transport/memory.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace test {

namespace mqtt = runnel::mqtt;

/// A received message, copied.
struct message {
    std::string topic;
    std::string payload;
    mqtt::qos qos;
    bool retain;
    bool dup;
    std::string props;  ///< as received
    std::vector<std::uint32_t> identifiers;
    mqtt::delivery delivery;

    /// One of its properties; views are valid as long as the message is.
    mqtt::properties properties() const {
        std::string_view const bytes = props;
        mqtt::wire_reader reader(bytes);
        return mqtt::property_view::read(reader, mqtt::packet_type::publish).parse();
    }
};

/// A bare MQTT client for tests of a server: it does what it is told, keeps what it gets, and runs the context while it
/// waits. Its session outlives connections.
class mqtt_client : public mqtt::session_handler {
  public:
    using stream_type = runnel::memory_stream<>;

    explicit mqtt_client(asio::io_context& io, mqtt::protocol_version version = mqtt::protocol_version::v5)
        : state(mqtt::role::client, version), io_(io) {}
    ~mqtt_client() { cut(); }
    mqtt_client(mqtt_client const&) = delete;
    mqtt_client& operator=(mqtt_client const&) = delete;

    mqtt::session_state state;
    mqtt::capabilities own;                    ///< what CONNECT announces, which is for the test to see to
    bool acknowledging = true;                 ///< acknowledge messages as they come
    std::vector<message> messages;             ///< all that have come
    std::optional<mqtt::reason_code> connack;  ///< of the last CONNECT
    bool session_present = false;
    mqtt::capabilities server;  ///< what CONNACK says
    std::string assigned_client_id;
    std::string reason_string;                    ///< of CONNACK or DISCONNECT
    std::optional<std::uint32_t> session_expiry;  ///< of CONNACK
    std::optional<std::uint16_t> server_keep_alive;
    std::optional<mqtt::reason_code> disconnected;            ///< the server's DISCONNECT
    std::vector<std::optional<mqtt::reason_code>> published;  ///< outcomes by the order of `begin_publish`
    std::vector<mqtt::reason_code> subscribed;                ///< the last SUBACK
    std::vector<mqtt::reason_code> unsubscribed;              ///< the last UNSUBACK
    int pongs = 0;
    std::error_code ended;  ///< how the connection ended

    /// Takes a new connection into use.
    void open(stream_type stream) {
        cut();
        link_ = std::make_shared<link>(io_, std::move(stream));
        link_->owner = this;
        connack.reset();
        disconnected.reset();
        ended.clear();
        asio::co_spawn(io_, read(link_), asio::detached);
    }

    bool open() const { return link_ != nullptr && !ended; }

    /// The network fails.
    void cut() {
        if (!link_) return;
        link_->owner = nullptr;
        link_->stream.cut();
        link_.reset();
        state.connection_lost();
    }

    /// Ends the flow to the server.
    void shut_down() { asio::co_spawn(io_, shut_down(link_), asio::detached); }

    /// Sends CONNECT and waits for the answer, or for the end.
    mqtt::reason_code connect(mqtt::connect const& packet) {
        if (auto const e = state.connect(out_, packet, own); e != mqtt::errc::ok) throw std::system_error(e);
        flush();
        wait([&] { return connack.has_value(); });
        return connack.value_or(mqtt::reason_code::unspecified_error);
    }

    mqtt::reason_code connect(std::string_view client_id, bool clean_start = true) {
        mqtt::connect packet;
        packet.client_id = client_id;
        packet.clean_start = clean_start;
        return connect(packet);
    }

    mqtt::reason_code subscribe(mqtt::subscription_request const& request, mqtt::properties const* props = nullptr) {
        subscribe_all({&request, 1}, props);
        return subscribed.empty() ? mqtt::reason_code::unspecified_error : subscribed.front();
    }
    mqtt::reason_code subscribe(std::string_view filter, mqtt::qos quality = mqtt::qos::exactly_once) {
        return subscribe(mqtt::subscription_request{.filter = filter, .maximum_qos = quality});
    }
    void subscribe_all(std::span<mqtt::subscription_request const> requests, mqtt::properties const* props = nullptr) {
        subscribed.clear();
        mqtt::subscribe packet{.requests = requests, .props = props};
        auto const begun = state.subscribe(out_, packet, this);
        if (begun.error != mqtt::errc::ok) throw std::system_error(begun.error);
        flush();
        wait([&] { return !subscribed.empty(); });
    }

    /// In MQTT 3.1.1 there is no reason to return; it is success.
    mqtt::reason_code unsubscribe(std::string_view filter) {
        unsubscribed.clear();
        auto const begun = state.unsubscribe(out_, {.filters = {filter}}, this);
        if (begun.error != mqtt::errc::ok) throw std::system_error(begun.error);
        flush();
        wait([&] { return !unsubscribed.empty(); });
        return unsubscribed.empty() ? mqtt::reason_code::unspecified_error : unsubscribed.front();
    }

    /// Sends a message and does not wait. Its outcome will stand in `published` at the index returned.
    std::size_t begin_publish(mqtt::publish const& m) {
        auto const index = published.size();
        published.emplace_back();
        auto const begun = state.publish(out_, m, reinterpret_cast<void*>(index + 1));
        if (begun.error != mqtt::errc::ok) throw std::system_error(begun.error);
        if (m.qos == mqtt::qos::at_most_once) published[index] = mqtt::reason_code::success;
        flush();
        return index;
    }
    /// Sends a message and waits for its acknowledgement.
    mqtt::reason_code publish(mqtt::publish const& m) {
        auto const index = begin_publish(m);
        wait([&] { return published[index].has_value(); });
        return published[index].value_or(mqtt::reason_code::unspecified_error);
    }
    mqtt::reason_code publish(std::string_view topic, std::string_view payload,
                              mqtt::qos quality = mqtt::qos::at_most_once, bool retain = false) {
        return publish({.topic = topic, .payload = payload, .qos = quality, .retain = retain});
    }

    void acknowledge(message const& m, mqtt::reason_code reason = mqtt::reason_code::success) {
        state.acknowledge(out_, m.delivery, reason);
        flush();
    }

    void ping() {
        state.ping(out_);
        flush();
        auto const before = pongs;
        wait([&] { return pongs > before; });
    }

    void disconnect(mqtt::reason_code reason = mqtt::reason_code::normal_disconnection,
                    mqtt::properties const* props = nullptr) {
        state.disconnect(out_, {reason, props});
        flush();
        wait_for_end();
        state.connection_lost();
    }

    /// Sends any bytes.
    void send(std::string_view bytes) {
        out_.append(bytes);
        flush();
    }

    /// Runs the context until `condition` holds or the connection has ended; false if neither happened in time or it
    /// has ended without the condition.
    template <class Condition>
    bool wait(Condition condition, std::chrono::milliseconds limit = std::chrono::seconds(10)) {
        return run_until(io_, [&] { return condition() || ended; }, limit) && condition();
    }
    bool wait_for_end(std::chrono::milliseconds limit = std::chrono::seconds(10)) {
        return run_until(io_, [&] { return bool(ended); }, limit);
    }
    /// Waits until so many messages have come.
    bool wait_for(std::size_t count) {
        return wait([&] { return messages.size() >= count; });
    }
    /// The message that came last, once there are `count`; an empty one if they do not come.
    message last(std::size_t count = 1) { return wait_for(count) ? messages.back() : message{}; }

    /// Runs the context until `condition` holds, for at most `limit`.
    template <class Condition>
    static bool run_until(asio::io_context& io, Condition condition,
                          std::chrono::milliseconds limit = std::chrono::seconds(10)) {
        auto const end = std::chrono::steady_clock::now() + limit;
        io.restart();
        while (!condition())
            if (io.run_one_until(end) == 0) return condition();
        return true;
    }

    // What the session state tells.
    void on_connack(mqtt::connack const& answer) {
        connack = answer.reason;
        session_present = answer.session_present;
        auto const p = answer.props.parse();
        server = mqtt::capabilities::from(p);
        assigned_client_id = p.assigned_client_identifier.value_or("");
        reason_string = p.reason_string.value_or("");
        session_expiry = p.session_expiry_interval;
        server_keep_alive = p.server_keep_alive;
    }
    void on_suback(void*, mqtt::suback const& answer) {
        for (auto const reason : answer.reasons) subscribed.push_back(reason);
    }
    void on_unsuback(void*, mqtt::unsuback const& answer) {
        for (auto const reason : answer.reasons) unsubscribed.push_back(reason);
        if (unsubscribed.empty()) unsubscribed.push_back(mqtt::reason_code::success);
    }
    void on_pingresp() { ++pongs; }
    void on_message(mqtt::publish const& m, mqtt::delivery d) {
        message copy{std::string(m.topic), std::string(m.payload), m.qos, m.retain, m.dup, {}, {}, d};
        copy.props.resize(mqtt::encoded_size(m.props, mqtt::packet_type::publish));
        mqtt::encode(copy.props.data(), m.props, mqtt::packet_type::publish);
        for (auto const id : m.props.get<mqtt::property_id::subscription_identifier>()) copy.identifiers.push_back(id);
        messages.push_back(std::move(copy));
        if (acknowledging) state.acknowledge(out_, d);
    }
    void on_published(void* owner, mqtt::acknowledgement const& ack) {
        published[reinterpret_cast<std::size_t>(owner) - 1] = ack.reason;
    }
    void on_disconnect(mqtt::disconnect const& packet) {
        disconnected = packet.reason;
        reason_string = packet.props.parse().reason_string.value_or("");
    }

    stream_type& stream() { return link_->stream; }
    bool reading = true;  ///< false: the client leaves what comes unread

    void flush() {
        if (!link_ || out_.empty() || link_->writing) return;
        link_->writing = true;
        asio::co_spawn(io_, write(link_), asio::detached);
    }

  private:
    struct link {
        link(asio::io_context& io, stream_type s) : stream(std::move(s)), waiters(io.get_executor()) {}
        stream_type stream;
        runnel::wait_list<asio::any_io_executor> waiters;
        mqtt_client* owner = nullptr;
        bool writing = false;
    };

    static asio::awaitable<void> shut_down(std::shared_ptr<link> l) { co_await l->stream.shutdown(); }

    static asio::awaitable<void> write(std::shared_ptr<link> l) {
        runnel::send_buffer bytes;
        try {
            while (l->owner != nullptr && !l->owner->out_.empty()) {
                bytes.swap(l->owner->out_);
                co_await l->stream.write(bytes);
            }
        } catch (std::system_error const&) {
            if (l->owner != nullptr) l->owner->out_.clear();
        }
        l->writing = false;
    }

    static asio::awaitable<void> read(std::shared_ptr<link> l) {
        runnel::receive_buffer in;
        std::error_code end;
        try {
            while (l->owner != nullptr) {
                if (!l->owner->reading) {
                    co_await runnel::sleep_for<asio::any_io_executor>(l->waiters.get_executor(),
                                                                      std::chrono::milliseconds(1));
                    continue;
                }
                auto const room = in.prepare();
                asio::mutable_buffer const into(room.data(), room.size());
                std::size_t const n = co_await l->stream.read_some(into);
                in.commit(n);
                if (l->owner == nullptr) co_return;
                auto input = in.data();
                auto const size = input.size();
                auto& owner = *l->owner;
                mqtt::errc const e = owner.state.receive(input, owner.out_, owner);
                in.consume(size - input.size());
                owner.flush();
                if (e != mqtt::errc::ok) throw std::system_error(e);
            }
        } catch (std::system_error const& e) {
            end = e.code();
        }
        if (l->owner != nullptr) l->owner->ended = end;
    }

    asio::io_context& io_;
    runnel::send_buffer out_;
    std::shared_ptr<link> link_;
};

}  // namespace test
