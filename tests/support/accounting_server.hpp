#pragma once

#include <runnel/mqtt/packet.hpp>
#include <runnel/transport/memory.hpp>

#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <doctest/doctest.h>

#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test {

/// A number from the environment, for tests that run as often as one likes: `RUNNEL_RANDOM_SEED` is the first seed,
/// `RUNNEL_RANDOM_RUNS` how many.
inline unsigned number_in(char const* variable, unsigned otherwise) {
    char const* const text = std::getenv(variable);
    return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

/// A server for one client that keeps accounts. It knows the protocol by itself, and nothing of `session_state`, and
/// does all step by step when the test says so: handles a packet, sends what it has to say, cuts the connection in
/// between, loses the session. What the client must not do is a failed check.
class accounting_server {
  public:
    /// A QoS 1 or 2 message for the client.
    struct message {
        enum class stage : std::uint8_t { waiting, sent, received, done };
        std::size_t number = 0;  ///< its index in `messages`, and its payload
        std::string topic{};
        runnel::mqtt::qos quality{};
        stage at = stage::waiting;
        bool is_lost = false;  ///< with the session
        std::uint16_t id = 0;
        std::uint64_t order = 0;  ///< on this connection, 0: not sent on it
    };

    accounting_server(asio::io_context& io, runnel::mqtt::protocol_version version, std::size_t window)
        : io_(io), version_(version), own_window_(window) {}

    runnel::memory_transport transport{[this](runnel::memory_stream<> s) {
        REQUIRE_FALSE(connection_);
        connection_ = std::make_shared<connection>(std::move(s));
        asio::co_spawn(io_, read(*this, connection_), asio::detached);
    }};

    std::vector<message> messages;
    std::map<std::string, std::uint32_t, std::less<>> subscriptions;  ///< by filter: the identifiers
    bool prompt = true;                                               ///< handles and answers at once
    bool has_session = false;
    bool checks_order = true;  ///< of acknowledgements
    bool failed = false;       ///< a check that the rest depends on
    /// Whether a filter is refused, and an end of a subscription in MQTT 5.
    std::function<bool()> refuses = [] { return false; };
    /// Is told of PUBACK, and of PUBREC.
    std::function<void(message const&)> on_acknowledged = [](auto const&) {};

    /// Whether a client is there, be it that it has been answered or not.
    bool has_client() const noexcept { return connection_ != nullptr && !connection_->ended; }
    /// Whether CONNACK has been sent.
    bool is_online() const noexcept { return has_client() && connection_->accepted; }
    std::size_t unhandled() const noexcept { return connection_ ? connection_->arrived.size() : 0; }

    /// Handles the packet that has waited longest. False: there is none.
    bool handle() {
        if (!has_client() || connection_->arrived.empty()) return false;
        auto const bytes = std::move(connection_->arrived.front());
        connection_->arrived.pop_front();
        handle(bytes);
        return true;
    }
    /// Sends so many bytes of what it has to say.
    void send(std::size_t size) {
        if (!has_client()) return;
        auto& out = connection_->out;
        size = std::min(size, out.size());
        if (size == 0) return;
        asio::co_spawn(io_, write(connection_, out.substr(0, size)), asio::detached);
        out.erase(0, size);
    }
    void cut() {
        if (!connection_) return;
        connection_->stream.cut();
        end(*connection_);
    }
    void lose_session() {
        cut();
        has_session = false;
    }

    /// Has a message for the client, of QoS 0, 1 or 2. False: nobody has subscribed.
    bool publish(std::string topic, runnel::mqtt::qos quality) {
        bool const wanted =
            std::ranges::any_of(subscriptions, [&](auto const& s) { return runnel::mqtt::matches(s.first, topic); });
        if (!wanted || !has_session) return false;
        messages.push_back({.number = messages.size(), .topic = std::move(topic), .quality = quality});
        if (quality == runnel::mqtt::qos::at_most_once) {
            if (is_online()) say(packet_of(messages.back()));
            messages.back().at = message::stage::done;
        }
        send_waiting();
        return true;
    }

    /// Whether all messages have come to their end.
    bool is_done() const {
        return std::ranges::all_of(messages, [](auto const& m) { return m.is_lost || m.at == message::stage::done; });
    }

  private:
    using packet_type = runnel::mqtt::packet_type;
    using qos = runnel::mqtt::qos;
    using stage = message::stage;

    struct connection {
        explicit connection(runnel::memory_stream<> s) : stream(std::move(s)) {
            stream.outgoing().capacity = runnel::memory_flow::unlimited;
        }
        runnel::memory_stream<> stream;
        std::deque<std::string> arrived;
        std::string out;
        bool accepted = false;
        bool ended = false;
        std::size_t window = 0;
        std::uint64_t order = 0;
        std::set<std::uint32_t> identifiers;  // of subscriptions that have been asked for
    };

    static asio::awaitable<void> read(accounting_server& self, std::shared_ptr<connection> c) {
        std::string room(64 * 1024, '\0'), bytes;
        try {
            for (;;) {
                std::size_t const n = co_await c->stream.read_some(asio::buffer(room));
                if (c->ended) co_return;
                bytes.append(room, 0, n);
                for (;;) {
                    auto const f = runnel::mqtt::next_frame(bytes);
                    REQUIRE(f.status != runnel::mqtt::parse_status::malformed);
                    if (f.status != runnel::mqtt::parse_status::complete) break;
                    c->arrived.push_back(bytes.substr(0, f.total_size));
                    bytes.erase(0, f.total_size);
                }
                while (self.prompt && !c->ended && self.handle()) {
                }
            }
        } catch (std::system_error const&) {
        } catch (...) {
            self.failed = true;  // a check
        }
        if (!c->ended) self.end(*c);
    }
    static asio::awaitable<void> write(std::shared_ptr<connection> c, std::string bytes) try {
        auto writing = write_text(c->stream, bytes);
        co_await std::move(writing);
    } catch (std::system_error const&) {
    }

    void end(connection& c) {
        c.ended = true;
        if (connection_.get() == &c) connection_.reset();
        for (auto& m : messages) m.order = 0;
    }

    void say(std::string const& bytes) {
        connection_->out += bytes;
        if (prompt) send(connection_->out.size());
    }
    template <class Packet>
    void answer(Packet const& p) {
        say(encoded(p, version_));
    }

    template <class Packet>
    Packet decoded_from(runnel::mqtt::frame const& f) {
        Packet p;
        REQUIRE(decode(f.header, f.body, version_, p) == runnel::mqtt::errc::ok);
        return p;
    }

    void handle(std::string const& bytes) {
        namespace mqtt = runnel::mqtt;
        auto const f = mqtt::next_frame(bytes);
        REQUIRE((f.header.type == packet_type::connect) != connection_->accepted);
        switch (f.header.type) {
            case packet_type::connect: return accept(decoded_from<mqtt::connect>(f));
            case packet_type::puback:
            case packet_type::pubrec:
            case packet_type::pubcomp: return settle(decoded_from<mqtt::acknowledgement>(f));
            case packet_type::subscribe: return subscribe(decoded_from<mqtt::subscribe>(f));
            case packet_type::unsubscribe: return unsubscribe(decoded_from<mqtt::unsubscribe>(f));
            case packet_type::pingreq: return answer(mqtt::pingresp{});
            default: {
                CHECK(f.header.type == packet_type::disconnect);
                auto const c = connection_;
                asio::co_spawn(io_, [c] { return c->stream.shutdown(); }, asio::detached);
                end(*c);
            }
        }
    }

    void accept(runnel::mqtt::connect const& p) {
        if (p.clean_start) has_session = false;
        bool const present = has_session;
        if (!present) {
            for (auto& m : messages) m.is_lost = m.is_lost || m.at != stage::done;
            subscriptions.clear();
        }
        has_session = true;
        auto const most = p.props.get<runnel::mqtt::property_id::receive_maximum>().value_or(std::uint16_t{65535});
        connection_->window = std::min<std::size_t>(own_window_, most);
        connection_->accepted = true;
        answer(runnel::mqtt::connack{.session_present = present});
        for (auto& m : messages) {
            if (m.is_lost) continue;
            if (m.at == stage::sent) say(packet_of(m, true));
            if (m.at == stage::sent) m.order = ++connection_->order;
            if (m.at == stage::received) answer(runnel::mqtt::acknowledgement{packet_type::pubrel, m.id, {}, {}});
        }
        send_waiting();
    }

    void settle(runnel::mqtt::acknowledgement const& a) {
        auto const m = std::ranges::find_if(
            messages, [&](auto const& each) { return each.id == a.packet_id && !each.is_lost && is_under_way(each); });
        bool const known = m != messages.end();
        CAPTURE(a.packet_id);
        REQUIRE(known);
        CAPTURE(m->number);
        if (a.type == packet_type::pubcomp) {
            REQUIRE(m->at == stage::received);
            m->at = stage::done;
        } else {
            bool const waits = m->at == stage::sent && m->order != 0;
            REQUIRE(waits);
            REQUIRE((a.type == packet_type::puback) == (m->quality == qos::at_least_once));
            for (auto const& each : messages) {  // [MQTT-4.6.0-2], [MQTT-4.6.0-3]
                bool const overtaken = checks_order && !each.is_lost && each.at == stage::sent && each.order != 0 &&
                                       each.order < m->order && each.topic == m->topic && each.quality == m->quality;
                CAPTURE(each.number);
                CHECK_FALSE(overtaken);
            }
            on_acknowledged(*m);
            m->at = a.type == packet_type::puback || is_error(a.reason) ? stage::done : stage::received;
            if (m->at == stage::received) answer(runnel::mqtt::acknowledgement{packet_type::pubrel, m->id, {}, {}});
        }
        send_waiting();
    }

    void subscribe(runnel::mqtt::subscribe const& p) {
        auto const identifiers = p.props.get<runnel::mqtt::property_id::subscription_identifier>();
        if (!identifiers.empty()) CHECK(connection_->identifiers.insert(*identifiers.begin()).second);
        std::vector<runnel::mqtt::reason_code> reasons;
        for (auto const& r : p.requests) {
            bool const refused = refuses();
            reasons.push_back(refused ? runnel::mqtt::reason_code::unspecified_error
                                      : static_cast<runnel::mqtt::reason_code>(r.maximum_qos));
            if (!refused) subscriptions[std::string(r.filter)] = identifiers.empty() ? 0 : *identifiers.begin();
        }
        answer(runnel::mqtt::suback{p.packet_id, reasons, {}});
    }
    void unsubscribe(runnel::mqtt::unsubscribe const& p) {
        std::vector<runnel::mqtt::reason_code> reasons;
        for (auto const filter : p.filters) {
            bool const refused = version_ == runnel::mqtt::protocol_version::v5 && refuses();
            if (refused) reasons.push_back(runnel::mqtt::reason_code::unspecified_error);
            if (refused) continue;
            bool const existed = subscriptions.erase(std::string(filter)) != 0;
            reasons.push_back(existed ? runnel::mqtt::reason_code::success
                                      : runnel::mqtt::reason_code::no_subscription_existed);
        }
        answer(runnel::mqtt::unsuback{p.packet_id, reasons, {}});
    }

    static bool is_under_way(message const& m) noexcept { return m.at == stage::sent || m.at == stage::received; }

    void send_waiting() {
        if (!is_online()) return;
        auto under_way = static_cast<std::size_t>(
            std::ranges::count_if(messages, [](auto const& m) { return !m.is_lost && is_under_way(m); }));
        for (auto& m : messages) {
            if (under_way >= connection_->window) return;
            if (m.is_lost || m.at != stage::waiting) continue;
            m.id = free_identifier();
            m.at = stage::sent;
            m.order = ++connection_->order;
            ++under_way;
            say(packet_of(m));
        }
    }
    std::uint16_t free_identifier() const {
        for (std::uint16_t id = 1;; ++id)
            if (std::ranges::none_of(messages,
                                     [=](auto const& m) { return m.id == id && !m.is_lost && is_under_way(m); }))
                return id;
    }

    std::string packet_of(message const& m, bool again = false) const {
        auto const payload = std::to_string(m.number);
        runnel::mqtt::publish p{.topic = m.topic, .payload = payload, .qos = m.quality, .dup = again};
        if (m.quality != qos::at_most_once) p.packet_id = m.id;
        std::vector<std::uint32_t> identifiers;
        for (auto const& [filter, identifier] : subscriptions)
            if (identifier != 0 && runnel::mqtt::matches(filter, m.topic)) identifiers.push_back(identifier);
        runnel::mqtt::properties props;
        props.subscription_identifiers = identifiers;
        if (version_ == runnel::mqtt::protocol_version::v5) p.props = &props;
        return encoded(p, version_);
    }

    asio::io_context& io_;
    runnel::mqtt::protocol_version version_;
    std::size_t own_window_;
    std::shared_ptr<connection> connection_;
};

/// Goes on until there is a connection, and nothing left to do on it; starts `run` again if that has ended. False:
/// there is none within `limit`.
inline bool come_back(asio::io_context& io, accounting_server& server, memory_session& session,
                      std::optional<task<void>>& running, std::chrono::milliseconds limit = std::chrono::seconds(10)) {
    bool const was_prompt = std::exchange(server.prompt, true);
    bool const is_back = wait_until(
        io,
        [&] {
            if (running->done()) running.emplace(io, session.run());  // a handler has failed, say
            while (server.handle()) {
            }
            server.send(static_cast<std::size_t>(-1));
            return (server.is_online() && session.is_connected()) || server.failed;
        },
        limit);
    settle(io);
    server.prompt = was_prompt;
    return is_back && !server.failed;
}

}  // namespace test
