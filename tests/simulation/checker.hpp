#pragma once

// Keeps the accounts of a run: of every message in both directions, and of what goes over the wire.
//
// To the server ("up"): messages that the application publishes, numbered in the order of the calls. From the server
// ("down"): messages that the broker has for the client's subscriptions.
//
// | what is promised                                                                                | where it is seen
// |
// |-------------------------------------------------------------------------------------------------|----------------------|
// | up, QoS 1 and 2: what `publish` says is acknowledged, the broker has                            | `publish_ended` |
// | up, QoS 1 and 2: what was accepted, and is not withdrawn, refused or lost with a process that   | `finish` | | had
// no store, arrives; with a store also what was on the disk when the process was killed     |                      | |
// up: of which `message_expired` was told never arrives                                           | `broker_received` |
// | up, QoS 0 and 2: arrives once at most; of QoS 2 as long as the broker keeps the session         | `broker_received`
// | | up: on one connection no message is sent twice                                                  | `client_wrote`
// | | up, each topic and QoS: messages arrive first in the order in which they were published         |
// `broker_received`    | | with a store: PUBLISH of QoS 1 and 2 is not written before the message is on the disk,
// PUBREC   | `client_wrote`       | |   not before its identifier is |                      | | down, QoS 1 and 2:
// PUBACK and PUBREC are not written before the application has taken the       | `client_acknowledged`| |   message,
// unless it has no subscription for it (and has had none), or was told of `given_up`   |                      | | down,
// QoS 1 and 2: all that the broker had for the session has been acknowledged in the end     | `finish`             | |
// down, QoS 0: is handed over once at most; others no more often than they have come             | `handed_over` | |
// down, QoS 2: is handed over again only if it was given back, the broker lost the session, the   | `handed_over` | |
// client's process ended before PUBREC was written, or without a store                          | | | down, each topic
// and QoS: messages are handed over first in the order of the broker             | `handed_over`        | | down: with
// the content that was sent                                                            | `handed_over`        | | a
// response is that to the request                                                               | client.hpp | | each
// operation completes once, with an error only that can be, and in time                      | client.hpp           |
// | neither side finds the other breaking the protocol                                              | client.hpp,
// world.hpp| | once the faults have ended, the session connects, all is delivered, `run` ends, nothing is left |
// world.hpp            |

#include <runnel/mqtt/packet.hpp>

#include "simulation/network.hpp"
#include "simulation/store.hpp"
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace simulation {

namespace mqtt = runnel::mqtt;

/// A message's text: what it is and its number, between marks, and something behind that makes it as long as wanted.
inline std::string text_of(char kind, std::size_t number, std::size_t longer = 0) {
    auto text = '#' + std::string(1, kind) + std::to_string(number) + '#';
    text.append(longer, static_cast<char>('a' + number % 26));
    return text;
}
/// The number in such a text; -1: it is another one.
inline std::size_t number_in_text(char kind, std::string_view text) {
    std::size_t number = static_cast<std::size_t>(-1);
    if (text.size() > 3 && text[0] == '#' && text[1] == kind)
        std::from_chars(text.data() + 2, text.data() + text.size(), number);
    return number;
}

/// How many subscriptions the application has at most, each with a topic of its own.
inline constexpr std::size_t client_slots = 4;

class checker {
  public:
    enum class ending : std::uint8_t { killed, destroyed };

    checker(trace& log, disk const& d) : log_(log), disk_(d) {}

    // --- up

    std::size_t publish(std::size_t topic, mqtt::qos quality) {
        up_.push_back({.topic = topic, .quality = quality, .process = process_});
        return up_.size() - 1;
    }
    /// How fast messages may leave.
    void set_pace(mqtt::publish_pace const& p) { pace_ = p; }

    void accepted(std::size_t number) { up_[number].must_arrive = up_[number].quality != mqtt::qos::at_most_once; }

    /// It is dropped if it has not left after a time; nobody may be told.
    /// If it may wait for room, its time begins later: what it says when it is sent counts.
    void expires(std::size_t number, std::chrono::seconds after, bool waits) {
        up_[number].may_vanish = true;
        if (!waits) up_[number].expires_at = machine::now() + after;
    }
    /// The time of day is set ahead by so much. What earlier processes have stored expires when it was to by the
    /// calendar; what this one has stored does so for later ones until it stores again.
    void time_is_set(nanoseconds by) {
        time_set_ = machine::now();
        if (std::exchange(set_before_, disk_.writes) != disk_.writes) set_by_ = {};
        set_by_ += by;
        for (auto& m : up_)
            if (m.process != process_) m.expire_earlier(by);
    }
    /// A request ended that has been asked and given up without a connection.
    void request_withdrawn(std::size_t number) { withdrawn_requests_.insert(number); }
    /// One of those of this topic and QoS is dropped: where it is being written it may arrive all the same.
    void discarded(std::string_view topic, mqtt::qos quality) {
        for (auto& m : up_)
            if (m.quality == quality && topic == "u/" + std::to_string(m.topic)) m.may_vanish = true;
    }

    void publish_ended(std::size_t number, std::error_code error) {
        auto& m = up_[number];
        bool const is_kept = m.quality != mqtt::qos::at_most_once;
        if (!error && is_kept && m.received == 0)
            log_.fail("u%zu is acknowledged, and the broker has not got it", number);
        // A call may be told so by a session that has gone in the same moment, with what it held.
        if (error == mqtt::errc::response_timeout && m.process == process_) accepted(number);
        if (error == mqtt::errc::message_expired) {
            m.is_withdrawn = true;
            if (m.received != 0) log_.fail("u%zu has expired, and the broker has got it", number);
        }
        if (error == mqtt::errc::session_lost) {
            m.must_arrive = false;
            if (m.quality != mqtt::qos::exactly_once) log_.fail("u%zu, not of QoS 2, is lost with a session", number);
        }
    }

    void broker_received(std::string_view payload, mqtt::qos quality) {
        auto const number = number_in_text('u', payload);
        if (number >= up_.size() || up_[number].quality != quality) return log_.fail("a message that nobody has sent");
        auto& m = up_[number];
        log_.say("broker: u%zu qos %d", number, static_cast<int>(quality));
        if (m.is_withdrawn) log_.fail("u%zu arrives, though it has expired", number);
        if (m.received++ != 0) {
            if (quality == mqtt::qos::at_most_once) log_.fail("u%zu of QoS 0 arrives twice", number);
            if (quality == mqtt::qos::exactly_once && m.received_in == broker_life_)
                log_.fail("u%zu of QoS 2 arrives twice", number);
        } else {
            auto& last = last_up_[{m.topic, quality}];
            if (number + 1 <= last) log_.fail("u%zu arrives behind u%zu", number, last - 1);
            last = number + 1;
        }
        m.received_in = broker_life_;
    }

    // --- down

    std::size_t send(std::size_t slot, mqtt::qos quality, std::size_t longer) {
        down_.push_back({.slot = slot, .quality = quality, .longer = longer});
        return down_.size() - 1;
    }
    void sent(std::size_t number, bool has_receiver) {
        down_[number].is_owed = has_receiver && down_[number].quality != mqtt::qos::at_most_once;
        down_[number].sent_in = broker_life_;
    }

    /// The application has got a message. Returns its number, or -1. `is_left`: it was left in the inbox of a session
    /// that is no more, so that it counts for nothing.
    std::size_t handed_over(std::size_t slot, mqtt::publish const& p, bool is_left = false) {
        auto const number = number_in_text('d', p.payload);
        bool const is_right = number < down_.size() && down_[number].slot == slot && down_[number].quality == p.qos &&
                              p.payload == text_of('d', number, down_[number].longer);
        if (!is_right) {
            log_.fail("slot %zu gets what nobody has sent to it", slot);
            return static_cast<std::size_t>(-1);
        }
        auto& m = down_[number];
        log_.say("application: d%zu qos %d", number, static_cast<int>(p.qos));
        if (is_left) return static_cast<std::size_t>(-1);
        bool const is_held = m.is_handed_over && !m.is_taken && !m.is_given_back && m.process == process_;
        if (is_held && m.quality == mqtt::qos::at_least_once && m.handed_over_in == broker_life_)
            log_.fail("d%zu is handed over again while the application has it", number);
        if (++m.handed_over > m.arrived + (number < slots_[slot].twice_below))
            log_.fail("d%zu is handed over more often than it has come", number);
        if (m.is_handed_over)
            check_again(number, m);
        else if (!m.is_acknowledged)  // as one that nobody wanted
            check_order(number, m);
        m.is_handed_over = true;
        m.is_given_back = m.is_answered = m.is_taken = false;
        m.process = process_;
        m.memory = memory_;
        m.handed_over_in = broker_life_;
        return number;
    }
    void taken(std::size_t number) {
        if (number < down_.size()) down_[number].is_taken = down_[number].was_taken = true;
    }
    void given_back(std::size_t number) {
        if (number < down_.size()) down_[number].is_given_back = true;
    }

    /// The application wants the messages of a slot, or no longer does. What comes later in this process may get lost,
    /// therefore.
    void unsettle(std::size_t slot) {
        slots_[slot].is_settled = false;
        slots_[slot].late_below = down_.size();
    }
    void gave_up() { gave_up_ = true; }
    /// There has been a second subscription of the same filter: what it has left unread goes to one that comes later.
    void was_subscribed_twice(std::size_t slot) { slots_[slot].twice_below = down_.size(); }
    bool was_handed_over(std::size_t number) const { return down_[number].is_handed_over; }
    bool was_acknowledged(std::size_t number) const { return down_[number].is_acknowledged; }

    // --- lives

    void process_begins() {
        for (std::size_t i = 0; i < client_slots; ++i) {
            auto& s = slots_[i];
            // What may be lost may have been taken for lost already by the process before.
            if (!s.is_settled || gave_up_) s.lost_below = down_.size();
            if (gave_up_) s.late_below = down_.size();
            s.is_settled = true;
        }
        gave_up_ = false;
        process_begun_ = machine::now();
        for (auto& left : left_) left.clear();
    }
    /// `healthy`: what the session has in memory has gone to the disk before.
    void process_ends(ending how, bool has_store, bool healthy) {
        for (std::size_t i = 0; i < up_.size(); ++i) {
            auto& m = up_[i];
            if (m.received != 0 || m.quality == mqtt::qos::at_most_once) continue;
            bool const is_stored = has_store && disk_.holds(text_of('u', i));
            if (is_stored)
                m.must_arrive = true;
            else if (must_still_arrive(m) && has_store && how == ending::destroyed && healthy)
                log_.fail("u%zu was accepted, and is not stored", i);
            else
                m.must_arrive = false;
        }
        if (has_store && healthy && how == ending::destroyed)
            for (auto& m : down_)
                if (m.is_taken && !m.is_given_back && m.process == process_) m.is_answered = true;
        if (set_before_ == disk_.writes)
            for (auto& m : up_)
                if (m.process == process_) m.expire_earlier(set_by_);
        set_by_ = {};
        ++process_;
        withdrawn_requests_.clear();  // it may not have come to the disk
        if (has_store) return;
        ++memory_;
    }
    /// The broker accepts the client, and with it its will.
    void connection_begins() {
        if (ended_well_ == connecting_) return;  // both have been read at once
        accepted_ = connecting_;
        ++wills_[broker_life_].owed;
    }
    /// The broker ends the connection, if there is one.
    void connection_is_ended() { accepted_ = 0; }
    /// The broker publishes the client's will.
    void will_published() {
        auto& w = wills_[broker_life_];
        if (++w.published > w.owed) log_.fail("a will of a connection that ended in good order is published");
    }
    void broker_lost_sessions() {
        accepted_ = 0;
        ++broker_life_;
    }
    std::size_t broker_life() const noexcept { return broker_life_; }
    /// The last connection, and whether DISCONNECT has been written on one, or may have been, where bytes were lost.
    std::size_t connection() const noexcept { return connection_; }
    bool said_goodbye(std::size_t connection) const { return goodbyes_.contains(connection); }
    /// Whether the server has read DISCONNECT on the last connection.
    bool has_ended_well() const noexcept { return ended_well_ == connection_; }

    // --- the wire

    std::unique_ptr<link::watcher> watch_connection(mqtt::protocol_version version, bool has_store) {
        ++connection_;
        return std::make_unique<wire>(*this, version, has_store);
    }

    // --- the end

    /// All that is owed to the client has been acknowledged by it, and all that it owes has arrived.
    bool is_settled() const {
        for (auto const& m : down_)
            if (is_owed(m)) return false;
        for (auto const& m : up_)
            if (must_still_arrive(m)) return false;
        return true;
    }
    /// How many messages are owed to the client.
    int owed() const {
        return static_cast<int>(std::ranges::count_if(down_, [this](auto const& m) { return is_owed(m); }));
    }
    void finish(bool has_will) {
        auto const& w = wills_[broker_life_];
        if (has_will && w.published < w.owed)
            log_.fail("%zu connections have ended without DISCONNECT, and %zu wills were published", w.owed,
                      w.published);
        for (std::size_t i = 0; i < down_.size(); ++i)
            if (is_owed(down_[i])) log_.fail("d%zu has never been acknowledged", i);
        for (std::size_t i = 0; i < up_.size(); ++i)
            if (must_still_arrive(up_[i])) log_.fail("u%zu has never arrived", i);
    }
    std::size_t messages() const noexcept { return up_.size() + down_.size(); }

  private:
    static constexpr auto never = time_point::max();

    struct up_message {
        std::size_t topic;
        mqtt::qos quality;
        bool must_arrive = false;
        bool may_vanish = false;  // all the same
        bool is_withdrawn = false;
        unsigned received = 0;
        std::size_t received_in = 0;  // which life of the broker
        std::size_t written_on = 0;   // which connection, last
        std::size_t process = 0;      // in which it was published
        time_point expires_at = never;

        void expire_earlier(nanoseconds by) {
            if (expires_at != never) expires_at -= by;
        }
    };
    struct down_message {
        std::size_t slot;
        mqtt::qos quality;
        std::size_t longer;
        bool is_owed = false;
        bool is_acknowledged = false;
        bool is_handed_over = false;
        bool is_given_back = false;
        bool is_taken = false;  // since it was handed over last
        bool was_taken = false;
        bool is_answered = false;                     // PUBREC has been written since, or is sure to be
        std::size_t process = 0, memory = 0;          // in which it was handed over last
        std::size_t sent_in = 0, handed_over_in = 0;  // which lives of the broker
        std::size_t arrived = 0, handed_over = 0;     // how often
        bool is_ambiguous = false;                    // what came before DUP has been lost
    };
    // How many connections have begun and not ended by DISCONNECT, as the broker has read it.
    struct will_count {
        std::size_t owed = 0, published = 0;
    };
    struct slot_state {
        bool is_settled = true;
        std::size_t lost_below = 0;   // messages with a lower number may be lost
        std::size_t late_below = 0;   // ... or come later than others, as they were dropped, and then sent again
        std::size_t twice_below = 0;  // messages below this number may come by a second subscription, too
    };

    static bool must_still_arrive(up_message const& m) { return m.must_arrive && !m.may_vanish && m.received == 0; }
    bool is_owed(down_message const& m) const { return m.is_owed && !m.is_acknowledged && m.sent_in == broker_life_; }

    void check_again(std::size_t number, down_message const& m) {
        if (m.quality == mqtt::qos::at_most_once) return log_.fail("d%zu of QoS 0 is handed over twice", number);
        if (m.quality == mqtt::qos::at_least_once || m.is_given_back) return;
        if (m.handed_over_in != broker_life_ || m.memory != memory_) return;
        if (m.process != process_ && !m.is_answered) return;
        log_.fail("d%zu of QoS 2 is handed over twice", number);
    }
    void check_order(std::size_t number, down_message const& m) {
        if (gave_up_ || number < slots_[m.slot].late_below) return;
        auto& last = last_down_[{m.slot, m.quality}];
        if (number + 1 <= last) log_.fail("d%zu is handed over behind d%zu", number, last - 1);
        last = std::max(last, number + 1);
    }

    // Reads what goes over a connection.
    class wire final : public link::watcher {
      public:
        wire(checker& c, mqtt::protocol_version version, bool has_store)
            : checker_(c), version_(version), has_store_(has_store) {}

        bool client_writes(std::string_view bytes) override {
            output_ += bytes;
            bool asks = false;
            for_each_packet(output_, [&](mqtt::frame const& f) {
                client_wrote(f);
                asks = asks || f.header.type == mqtt::packet_type::pingreq;
            });
            return asks;
        }
        void client_reads(std::string_view bytes) override {
            input_ += bytes;
            for_each_packet(input_, [&](mqtt::frame const& f) {
                tell("<-", f);
                if (f.header.type != mqtt::packet_type::publish) return;
                auto const p = read_publish(f);
                auto const number = number_in_text('d', p.payload);
                if (p.qos != mqtt::qos::at_most_once) messages_[p.packet_id] = number;
                if (number >= checker_.down_.size()) return;
                auto& m = checker_.down_[number];
                // Where the server has lost the session, it may be taken for the repetition of another one.
                if (m.arrived++ == 0) m.is_ambiguous = p.dup && checker_.broker_life_ > 1;
            });
        }

        void server_reads(std::string_view bytes) override {
            at_server_ += bytes;
            for_each_packet(at_server_, [&](mqtt::frame const& f) {
                using enum mqtt::packet_type;
                if (f.header.type == connect) checker_.connecting_ = connection_;
                bool const ends_well = f.header.type == disconnect && (f.body.empty() || f.body[0] == 0);
                if (ends_well) checker_.connection_ends_well(connection_);
            });
        }

        void is_cut() override { checker_.goodbyes_.insert(connection_); }

      private:
        template <class F>
        void for_each_packet(std::string& from, F f) {
            for (;;) {
                auto const frame = mqtt::next_frame(from);
                if (frame.status == mqtt::parse_status::malformed) checker_.log_.fail("malformed packet on the wire");
                if (frame.status != mqtt::parse_status::complete) return;
                f(frame);
                from.erase(0, frame.total_size);
            }
        }
        // The type, and what is mostly the packet identifier.
        void tell(char const* way, mqtt::frame const& f) {
            auto const byte = [&](std::size_t i) { return i < f.body.size() ? f.body[i] & 0xFF : 0; };
            int id = byte(0) << 8 | byte(1);
            if (f.header.type == mqtt::packet_type::publish) id = read_publish(f).packet_id;
            checker_.log_.say("%zu %s type %d id %d, %zu bytes", connection_, way, static_cast<int>(f.header.type), id,
                              f.total_size);
        }
        mqtt::publish read_publish(mqtt::frame const& f) {
            mqtt::publish p;
            if (decode(f.header, f.body, version_, p) != mqtt::errc::ok) checker_.log_.fail("bad PUBLISH on the wire");
            return p;
        }
        void client_wrote(mqtt::frame const& f) {
            using enum mqtt::packet_type;
            tell("->", f);
            if (f.header.type == publish) {
                auto const p = read_publish(f);
                return checker_.client_wrote(p, connection_, has_store_);
            }
            if (f.header.type == disconnect) checker_.goodbyes_.insert(connection_);
            if (f.header.type == disconnect && !f.body.empty() && (f.body[0] & 0x80) != 0)
                checker_.log_.fail("the client complains of the broker, reason %d", f.body[0] & 0xFF);
            if (f.header.type != puback && f.header.type != pubrec) return;
            mqtt::acknowledgement a;
            if (decode(f.header, f.body, version_, a) != mqtt::errc::ok)
                return checker_.log_.fail("bad PUBACK, PUBREC");
            auto const found = messages_.find(a.packet_id);
            if (found == messages_.end()) return checker_.log_.fail("acknowledges what has not come");
            checker_.client_acknowledged(found->second, !is_error(a.reason));
            bool const is_taken = f.header.type == pubrec && !is_error(a.reason);
            if (is_taken && has_store_ && !checker_.disk_.holds_taken(a.packet_id))
                checker_.log_.fail("PUBREC of d%zu is written before it is stored", found->second);
        }

        checker& checker_;
        mqtt::protocol_version version_;
        bool has_store_;
        std::size_t connection_ = checker_.connection_;
        std::string output_, input_, at_server_;
        std::map<std::uint16_t, std::size_t> messages_;  // down, by packet identifier
    };

    void client_wrote(mqtt::publish const& p, std::size_t connection, bool has_store) {
        check_pace(p.qos);
        if (withdrawn_requests_.contains(number_in_text('q', p.payload)))
            log_.fail("request %zu is sent, though it has ended without a connection", number_in_text('q', p.payload));
        auto const number = number_in_text('u', p.payload);
        if (number >= up_.size()) return;  // a request
        auto& m = up_[number];
        if (m.expires_at != never && process_begun_ > m.expires_at + 2s && process_begun_ > time_set_)
            log_.fail("u%zu is sent by a process that began after it had expired", number);
        auto const left = p.props.get<mqtt::property_id::message_expiry_interval>();
        if (left && m.expires_at == never && m.process == process_)
            m.expires_at = machine::now() + std::chrono::seconds(*left);
        if (std::exchange(m.written_on, connection) == connection) log_.fail("u%zu is sent twice", number);
        if (has_store && p.qos != mqtt::qos::at_most_once && !m.may_vanish && !disk_.holds(text_of('u', number)))
            log_.fail("u%zu is sent before it is stored", number);
    }
    // What leaves in any span of time.
    void check_pace(mqtt::qos quality) {
        bool const kept = quality != mqtt::qos::at_most_once;
        std::size_t const limit = kept ? pace_.acknowledged : pace_.at_most_once;
        if (limit == 0) return;
        auto& left = left_[kept];
        auto const now = machine::now();
        if (left.size() == limit && now - left.front() < pace_.span - 2ms)
            log_.fail("messages leave faster than they may");
        if (left.size() == limit) left.pop_front();
        left.push_back(now);
    }
    // Without success the message counts as one that nobody has had.
    void client_acknowledged(std::size_t number, bool is_taken) {
        if (number >= down_.size()) return;  // a response
        auto& m = down_[number];
        log_.say("client: acknowledges d%zu", number);
        m.is_acknowledged = true;
        m.is_answered = m.is_answered || is_taken;
        bool const may_be_lost = gave_up_ || !slots_[m.slot].is_settled || number < slots_[m.slot].lost_below ||
                                 (m.is_ambiguous && m.quality == mqtt::qos::exactly_once);
        if (!m.was_taken && !may_be_lost) log_.fail("d%zu is acknowledged before the application has taken it", number);
    }

    void connection_ends_well(std::size_t connection) {
        ended_well_ = (std::max)(ended_well_, connection);  // an older one's may come late
        if (accepted_ != connection) return;
        --wills_[broker_life_].owed;
        accepted_ = 0;
    }

    trace& log_;
    disk const& disk_;
    std::vector<up_message> up_;
    std::vector<down_message> down_;
    std::map<std::pair<std::size_t, mqtt::qos>, std::size_t> last_up_, last_down_;  // one more than the last number
    std::map<std::size_t, slot_state> slots_;
    std::map<std::size_t, will_count> wills_;  // by the life of the broker
    std::size_t process_ = 1, memory_ = 1, broker_life_ = 1, connection_ = 0;
    std::size_t connecting_ = 0, accepted_ = 0, ended_well_ = 0;  // connections, as the broker sees them
    bool gave_up_ = false;
    time_point process_begun_{}, time_set_ = time_point::min();
    nanoseconds set_by_{0};       // since the disk was written to last
    std::size_t set_before_ = 0;  // this write
    mqtt::publish_pace pace_;
    std::deque<time_point> left_[2];  // when the last messages did: of QoS 0, and of QoS 1 and 2
    std::set<std::size_t> withdrawn_requests_, goodbyes_;
};

}  // namespace simulation
