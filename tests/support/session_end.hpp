#pragma once

#include <runnel/mqtt/protocol/session_state.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <support/packets.hpp>
#include <utility>
#include <vector>

namespace test {

namespace mqtt = runnel::mqtt;

/// An acknowledgement with nothing but a reason.
inline mqtt::acknowledgement ack(mqtt::packet_type type, std::uint16_t id, mqtt::reason_code reason = {}) {
    return {type, id, reason, {}};
}

/// A packet in a few words: "PUBLISH 1 qos1 dup topic=payload", "PUBREC 7 0x92", "PINGREQ".
inline std::string in_words(mqtt::frame const& f, mqtt::protocol_version version) {
    std::string words = mqtt::name(f.header.type);
    if (f.header.type == mqtt::packet_type::publish) {
        mqtt::publish p;
        if (decode(f.header, f.body, version, p) != mqtt::errc::ok) return "bad PUBLISH";
        if (p.packet_id != 0) words += ' ' + std::to_string(p.packet_id);
        words += " qos" + std::to_string(static_cast<int>(p.qos));
        if (p.dup) words += " dup";
        if (p.retain) words += " retain";
        return words.append(" ").append(p.topic).append("=").append(p.payload);
    }
    if (f.header.type >= mqtt::packet_type::puback && f.header.type <= mqtt::packet_type::pubcomp) {
        mqtt::acknowledgement a;
        if (decode(f.header, f.body, version, a) != mqtt::errc::ok) return "bad " + words;
        words += ' ' + std::to_string(a.packet_id);
        if (a.reason != mqtt::reason_code::success) {
            constexpr char digits[] = "0123456789ABCDEF";
            auto const code = static_cast<unsigned>(a.reason);
            words += std::string(" 0x") + digits[code >> 4] + digits[code & 15];
        }
        return words;
    }
    if (f.header.type >= mqtt::packet_type::subscribe && f.header.type <= mqtt::packet_type::unsuback)
        words += ' ' + std::to_string(runnel::read_big_endian<std::uint16_t>(f.body.data()));
    return words;
}

/// All packets in a few words each, with a comma between them.
inline std::string in_words(std::string_view bytes, mqtt::protocol_version version) {
    std::string words;
    while (!bytes.empty()) {
        auto const f = mqtt::next_frame(bytes);
        if (f.status != mqtt::parse_status::complete) return words + ", rubbish";
        if (!words.empty()) words += ", ";
        words += in_words(f, version);
        bytes.remove_prefix(f.total_size);
    }
    return words;
}

/// One end of a session, with what it has sent and what it was told.
struct session_end {
    struct message {
        std::string text;  ///< "topic=payload"
        mqtt::delivery token;
    };
    struct outcome {
        void* owner;
        mqtt::reason_code reason;
        bool operator==(outcome const&) const = default;
    };
    struct refusal {
        void* owner;
        mqtt::errc error;
        bool operator==(refusal const&) const = default;
    };

    struct listener : mqtt::session_handler {
        session_end& end;
        explicit listener(session_end& e) : end(e) {}
        void on_connack(mqtt::connack const& p) { end.connacks.push_back(p.reason); }
        void on_suback(void* owner, mqtt::suback const&) { end.answered.push_back(owner); }
        void on_unsuback(void* owner, mqtt::unsuback const&) { end.answered.push_back(owner); }
        void on_pingresp() { ++end.pingresps; }
        void on_subscribe(mqtt::subscribe const& p) { end.requests.push_back(p.packet_id); }
        void on_unsubscribe(mqtt::unsubscribe const& p) { end.requests.push_back(p.packet_id); }
        void on_message(mqtt::publish const& p, mqtt::delivery d) {
            end.messages.push_back({std::string(p.topic).append("=").append(p.payload), d});
        }
        void on_published(void* owner, mqtt::acknowledgement const& a) { end.published.push_back({owner, a.reason}); }
        void on_lost(void* owner) { end.lost.push_back(owner); }
        void on_refused(void* owner, mqtt::errc e) { end.refused.push_back({owner, e}); }
        void on_disconnect(mqtt::disconnect const& p) { end.disconnects.push_back(p.reason); }
        void on_auth(mqtt::auth const& p) { end.auths.push_back(p.reason); }
    };

    session_end(mqtt::role role, mqtt::protocol_version v, mqtt::session_limits limits = {},
                mqtt::publish_pace pace = {})
        : version(v), state(role, v, limits, pace) {}

    /// Feeds bytes; what is left of them is kept for the next time.
    mqtt::errc receive(std::string_view bytes) {
        listener handler(*this);
        return receive(bytes, handler);
    }
    template <class Handler>
    mqtt::errc receive(std::string_view bytes, Handler& handler) {
        input.append(bytes);
        std::string_view rest = input;
        auto const error = state.receive(rest, out, handler);
        input.erase(0, input.size() - rest.size());
        return error;
    }
    /// Feeds one packet.
    template <class Packet>
    mqtt::errc receive_packet(Packet const& packet) {
        return receive(encoded(packet, version));
    }
    template <class Packet, class Handler>
    mqtt::errc receive_packet_to(Packet const& packet, Handler& handler) {
        return receive(encoded(packet, version), handler);
    }
    mqtt::errc receive_ack(mqtt::packet_type type, std::uint16_t id, mqtt::reason_code reason = {}) {
        return receive_packet(ack(type, id, reason));
    }
    mqtt::errc receive_publish(std::string_view topic, mqtt::qos qos, std::uint16_t id = 0, bool dup = false) {
        return receive_packet(mqtt::publish{.topic = topic, .payload = "p", .qos = qos, .dup = dup, .packet_id = id});
    }

    mqtt::session_state::begun publish(std::string_view topic, mqtt::qos qos, void* owner = nullptr) {
        return state.publish(out, {.topic = topic, .payload = "p", .qos = qos}, owner);
    }

    /// The packets sent since the last call, as bytes, or in words.
    std::string take_bytes() {
        std::string const bytes(out.view());
        out.clear();
        return bytes;
    }
    std::string sent() { return in_words(take_bytes(), version); }

    /// The texts of the messages received.
    std::string received() const {
        std::string all;
        for (auto const& m : messages) all += (all.empty() ? "" : ", ") + m.text;
        return all;
    }

    /// Client: a connection whose CONNECT and CONNACK are through.
    void connect(bool session_present = false, mqtt::properties const* announced = nullptr,
                 mqtt::capabilities own = {}) {
        begin_connect(own);
        receive_packet(mqtt::connack{session_present, mqtt::reason_code::success, announced});
    }
    mqtt::errc begin_connect(mqtt::capabilities own = {}, bool clean_start = false) {
        mqtt::connect packet;
        packet.client_id = "id";
        packet.clean_start = clean_start;
        input.clear();
        auto const error = state.connect(out, packet, own);
        out.clear();
        return error;
    }
    /// Server: the same.
    void accept(bool session_present = false, mqtt::capabilities peer = {}, mqtt::capabilities own = {}) {
        input.clear();
        state.accept(out, {session_present, mqtt::reason_code::success, {}}, version, own, peer, listener(*this));
        // CONNACK is not what tests ask for.
        out.consume(mqtt::encoded_size(mqtt::connack{}, version));
    }
    void lose_connection() {
        state.connection_lost();
        out.clear();
        input.clear();
    }

    mqtt::protocol_version version;
    mqtt::session_state state;
    runnel::send_buffer out;
    std::string input;
    std::vector<message> messages;
    std::vector<outcome> published;
    std::vector<refusal> refused;
    std::vector<void*> lost;
    std::vector<void*> answered;
    std::vector<std::uint16_t> requests;
    std::vector<mqtt::reason_code> connacks, disconnects, auths;
    int pingresps = 0;
};

}  // namespace test
