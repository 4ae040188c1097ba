#pragma once

// The server of the model: what the specification asks of the receiver and of the sender of QoS 1 and 2 (4.3, 4.4),
// written down in the plainest way, and nothing of the library's own rules.

#include <runnel/mqtt/packet.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace model {

namespace mqtt = runnel::mqtt;
using mqtt::packet_type;
using mqtt::qos;
using mqtt::reason_code;

/// Something that must not happen has happened.
struct violation {
    std::string text;
};

template <class Packet>
std::string bytes_of(Packet const& p, mqtt::protocol_version version) {
    std::string bytes(mqtt::encoded_size(p, version), '\0');
    mqtt::encode(bytes.data(), p, version);
    return bytes;
}

/// A message's text, by which it is found in a store, and its number.
inline std::string text_of(unsigned message) { return '<' + std::to_string(message) + '>'; }
inline unsigned number_of(std::string_view text) {
    unsigned number = 0;
    std::from_chars(text.data() + 1, text.data() + text.size(), number);
    return number;
}

class server {
  public:
    struct limits {
        mqtt::protocol_version version;
        std::uint16_t receive_maximum;  ///< of the server
        std::size_t window;             ///< messages that it has under way at most, as the client has asked
        bool defers;                    ///< PUBACK and PUBREC are sent by `answer`, and not at once
    };

    /// Hears of each message that the server takes in.
    struct listener {
        virtual void on_server_received(unsigned message, qos quality) = 0;

      protected:
        ~listener() = default;
    };

    server(limits const& l, listener& told) : limits_(l), told_(told) {}

    std::deque<std::string> to_client;  ///< packets under way
    bool has_session() const noexcept { return has_session_; }
    bool has_answers() const noexcept { return !due_.empty(); }
    /// `forgotten`: a process of the client has gone with all that it knew, and so never sends some PUBREL.
    bool is_done(bool forgotten) const noexcept {
        return due_.empty() && (taken_.empty() || forgotten) && out_.empty();
    }
    unsigned life() const noexcept { return life_; }  ///< how many sessions there have been

    void connection_lost() {
        to_client.clear();
        due_.clear();  // the client sends again what has not been answered
        connected_ = false;
    }
    void lose_session() {
        connection_lost();
        has_session_ = false;
        taken_.clear();
        out_.clear();
    }

    /// The next answer is sent.
    void answer() {
        auto const next = due_.front();
        due_.pop_front();
        for (auto& t : taken_)
            if (t.id == next.id && next.type == packet_type::pubrec) t.is_answered = true;
        send(mqtt::acknowledgement{next.type, next.id, {}, {}});
    }

    void publish(unsigned message, qos quality) {
        std::uint16_t id = 1;  // the first that is free: so they are used again soon
        while (std::ranges::any_of(out_, [=](auto const& m) { return m.id == id; })) ++id;
        out_.push_back({message, quality, id, stage::waiting});
        send_waiting();
    }

    void receive(std::string_view bytes) {
        auto const f = mqtt::next_frame(bytes);
        if (f.status != mqtt::parse_status::complete) throw violation{"the client sends no packet"};
        switch (f.header.type) {
            case packet_type::connect: return accept();
            case packet_type::publish: return receive_publish(f);
            case packet_type::puback:
            case packet_type::pubrec:
            case packet_type::pubrel:
            case packet_type::pubcomp: return receive_acknowledgement(f);
            default: throw violation{"the client sends a packet that the model does not know"};
        }
    }

    /// All of it, for the fingerprint.
    template <class Put>
    void tell(Put&& put) const {
        put(has_session_, connected_, life_);
        for (auto const& t : taken_) put(t.id, t.is_answered, t.is_of_connection);
        put(-1);
        for (auto const& a : due_) put(a.type, a.id);
        put(-1);
        for (auto const& m : out_) put(m.message, m.id, m.at);
    }

  private:
    enum class stage : std::uint8_t { waiting, sent, released };
    struct outgoing {
        unsigned message;
        qos quality;
        std::uint16_t id;
        stage at;
    };
    struct incoming {  // QoS 2, until PUBREL
        std::uint16_t id;
        bool is_answered;       // by PUBREC
        bool is_of_connection;  // has come on this connection
    };
    struct answering {
        packet_type type;
        std::uint16_t id;
    };

    template <class Packet>
    void send(Packet const& p) {
        to_client.push_back(bytes_of(p, limits_.version));
    }
    void send(outgoing const& m, bool dup) {
        auto const text = text_of(m.message);
        send(mqtt::publish{.topic = "d", .payload = text, .qos = m.quality, .dup = dup, .packet_id = m.id});
    }
    void send_waiting() {
        if (!connected_) return;
        auto under_way =
            static_cast<std::size_t>(std::ranges::count_if(out_, [](auto& m) { return m.at != stage::waiting; }));
        for (auto& m : out_) {
            if (m.at != stage::waiting || under_way >= limits_.window) continue;
            m.at = stage::sent;
            ++under_way;
            send(m, false);
        }
    }

    void accept() {
        mqtt::properties p;
        p.receive_maximum = limits_.receive_maximum;
        mqtt::connack answer{has_session_, reason_code::success, {}};
        if (limits_.version == mqtt::protocol_version::v5) answer.props = &p;
        if (!has_session_) ++life_;
        has_session_ = connected_ = true;
        for (auto& t : taken_) t.is_of_connection = false;
        send(answer);
        for (auto const& m : out_) {  // 4.4, in their order [MQTT-4.6.0-1]
            if (m.at == stage::sent) send(m, true);
            if (m.at == stage::released) send(mqtt::acknowledgement{packet_type::pubrel, m.id, {}, {}});
        }
        send_waiting();
    }

    void receive_publish(mqtt::frame const& f) {
        mqtt::publish p;
        if (decode(f.header, f.body, limits_.version, p) != mqtt::errc::ok) throw violation{"a PUBLISH that is wrong"};
        auto const message = number_of(p.payload);
        auto const known = std::ranges::find(taken_, p.packet_id, &incoming::id);
        if (p.qos == qos::at_least_once || known == taken_.end()) told_.on_server_received(message, p.qos);
        if (p.qos == qos::exactly_once) {
            if (known == taken_.end())
                taken_.push_back({p.packet_id, false, true});
            else
                known->is_of_connection = true;
        }
        due_.push_back({p.qos == qos::at_least_once ? packet_type::puback : packet_type::pubrec, p.packet_id});
        if (!limits_.defers) answer();
    }

    void receive_acknowledgement(mqtt::frame const& f) {
        mqtt::acknowledgement a;
        if (decode(f.header, f.body, limits_.version, a) != mqtt::errc::ok)
            throw violation{"an acknowledgement that is wrong"};
        if (a.type == packet_type::pubrel) return receive_pubrel(a.packet_id);
        auto const found = std::ranges::find(out_, a.packet_id, &outgoing::id);
        if (a.type == packet_type::pubrec) {
            bool const is_known = found != out_.end() && found->quality == qos::exactly_once;
            if (is_known) found->at = stage::released;
            auto const why = is_known ? reason_code::success : reason_code::packet_identifier_not_found;
            return send(mqtt::acknowledgement{packet_type::pubrel, a.packet_id, v5(why), {}});
        }
        bool const ends =
            found != out_.end() && found->at == (a.type == packet_type::puback ? stage::sent : stage::released);
        if (!ends) throw violation{"acknowledges what is not under way"};
        out_.erase(found);
        send_waiting();
    }

    void receive_pubrel(std::uint16_t id) {
        auto const known = std::ranges::find(taken_, id, &incoming::id);
        bool const is_known = known != taken_.end();
        if (is_known && known->is_of_connection && !known->is_answered)
            throw violation{"PUBREL before PUBREC [MQTT-4.3.3-4]"};
        if (is_known) taken_.erase(known);
        auto const why = is_known ? reason_code::success : reason_code::packet_identifier_not_found;
        send(mqtt::acknowledgement{packet_type::pubcomp, id, v5(why), {}});
    }
    reason_code v5(reason_code why) const {
        return limits_.version == mqtt::protocol_version::v5 ? why : reason_code::success;
    }

    limits limits_;
    listener& told_;
    bool has_session_ = false;
    bool connected_ = false;
    unsigned life_ = 0;
    std::vector<incoming> taken_;
    std::deque<answering> due_;
    std::vector<outgoing> out_;
};

}  // namespace model
