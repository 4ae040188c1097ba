#pragma once

// A client, a server and a connection between them, as a machine: what can happen next, and what it does.

#include <runnel/mqtt/store/session_journal.hpp>

#include "model/fingerprint.hpp"
#include "model/server.hpp"
#include "support/memory_store.hpp"
#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace model {

/// How much may happen in a search.
struct bounds {
    mqtt::protocol_version version = mqtt::protocol_version::v5;
    unsigned up = 0, down = 0;  ///< messages; bit `i` of the next two: the i-th is of QoS 2, else of QoS 1
    unsigned up_quality = 0, down_quality = 0;
    unsigned cuts = 0;     ///< of the connection, at any packet; or the server's process ends and keeps the session
    unsigned crashes = 0;  ///< of the client's process, at any step, before or behind the write to its store
    unsigned losses = 0;   ///< of the session, by the server
    bool stores = false;   ///< the client has a store
    bool defers = false;   ///< the server answers later
    bool holds = false;    ///< the application takes messages later, in any order
    std::uint16_t window = 65535;  ///< of both
};

enum class kind : std::uint8_t { publish, send, to_server, to_client, answer, take, cut, crash, lose, connect };
/// Whether the client's process ends in this step: its changes have been stored or not, and nothing has been written.
enum class end : std::uint8_t { none, not_stored, stored };

struct action {
    kind what;
    end process = end::none;
    std::uint8_t which = 0;
};

inline std::string to_string(action const& a) {
    static constexpr char const* names[] = {"the client publishes",
                                            "the server publishes",
                                            "to the server",
                                            "to the client",
                                            "the server answers",
                                            "the application takes",
                                            "cut",
                                            "the client crashes",
                                            "the server loses the session",
                                            "connect"};
    std::string text = names[static_cast<std::size_t>(a.what)];
    if (a.what == kind::take) text += ' ' + std::to_string(a.which);
    if (a.process == end::not_stored) text += ", and the client crashes before it is stored";
    if (a.process == end::stored) text += ", and the client crashes when it is stored";
    return text;
}

class world final : public mqtt::session_handler, server::listener {
  public:
    static constexpr bool is_client = true;

    explicit world(bounds const& b)
        : bounds_(b), server_({b.version, b.window, b.window, b.defers}, *this), up_(b.up), down_(b.down) {
        for (unsigned i = 0; i < b.up; ++i) up_[i].quality = quality(b.up_quality, i);
        for (unsigned i = 0; i < b.down; ++i) down_[i].quality = quality(b.down_quality, i);
        begin_process();
    }
    world(world const&) = delete;
    world& operator=(world const&) = delete;

    /// What can happen now.
    std::vector<action> enabled() const {
        std::vector<action> all;
        auto const add = [&](kind what, bool is_of_client, std::uint8_t which = 0) {
            all.push_back({what, end::none, which});
            if (!is_of_client || crashes_ == bounds_.crashes) return;
            all.push_back({what, end::not_stored, which});
            if (bounds_.stores) all.push_back({what, end::stored, which});
        };
        if (published_ < up_.size()) add(kind::publish, true);
        if (sent_ < down_.size() && server_.has_session()) add(kind::send, false);
        if (!to_server_.empty()) add(kind::to_server, false);
        if (!server_.to_client.empty()) add(kind::to_client, true);
        if (server_.has_answers()) add(kind::answer, false);
        for (std::size_t i = 0; i < held_.size(); ++i) add(kind::take, true, static_cast<std::uint8_t>(i));
        if (online_ && cuts_ < bounds_.cuts) add(kind::cut, false);
        if (crashes_ < bounds_.crashes) add(kind::crash, false);
        if (server_.has_session() && losses_ < bounds_.losses) add(kind::lose, false);
        if (!online_) add(kind::connect, false);
        return all;
    }

    /// Throws `violation`.
    void apply(action const& a) {
        switch (a.what) {
            case kind::publish: publish(); break;
            case kind::send: send(); break;
            case kind::to_server: {
                auto const packet = take_first(to_server_);
                server_.receive(packet);
                break;
            }
            case kind::to_client: receive(take_first(server_.to_client)); break;
            case kind::answer: server_.answer(); break;
            case kind::take: take(a.which); break;
            case kind::cut: ++cuts_, cut(); break;
            case kind::crash: ++crashes_, crash(); return;
            case kind::lose: ++losses_, cut(), server_.lose_session(); break;
            case kind::connect: connect(); break;
        }
        if (a.process == end::none) return commit(), write();
        ++crashes_;
        if (a.process == end::stored) commit();
        crash();
    }

    /// Nothing goes wrong any more: all is delivered, taken and told.
    void finish() {
        for (int steps = 0; !is_quiet(); ++steps) {
            if (steps == 1000) throw violation{"no end of packets"};
            if (!online_)
                apply({kind::connect});
            else if (!to_server_.empty())
                apply({kind::to_server});
            else if (!server_.to_client.empty())
                apply({kind::to_client});
            else if (server_.has_answers())
                apply({kind::answer});
            else
                apply({kind::take});
        }
        check_end();
    }

    std::uint64_t fingerprint() {
        hash_ = 0xCBF2'9CE4'8422'2325;
        auto const put = [&](auto... values) { (put_number(static_cast<std::uint64_t>(values)), ...); };
        auto const put_text = [&](std::string_view text) {
            put(text.size());
            for (char const c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100'0000'01B3;
        };
        put(published_, sent_, cuts_, crashes_, losses_, online_);
        put(announced_, known_, is_misled_, has_doubted_);
        std::vector<std::uint64_t> held;
        for (auto const& h : held_) put(h.message), held.push_back(h.token.number);
        tell(client_->state, held, put);
        server_.tell(put);
        for (auto const& p : to_server_) put_text(p);
        put(-1);
        for (auto const& p : server_.to_client) put_text(p);
        for (auto const& m : up_) put(m.received, m.life, m.told, m.process, m.is_written, m.may_be_missing);
        for (auto const& m : down_) put(m.handed, m.taken, m.life, m.handed_by);
        for (auto const& [id, message] : in_use_) put(id, message);
        put(-1);
        for (auto const id : on_connection_) put(id);
        if (store_)
            for (auto const& [key, value] : store_->records) put(key), put_text(value);
        return hash_;
    }

    // --- what the session state tells

    void on_connack(mqtt::connack const& answer) {
        if (!answer.session_present) {
            in_use_.clear();
            for (auto& m : up_) m.is_written = false;
        }
        if (!answer.session_present || known_ == 0)
            announced_ = server_.life();
        else if (known_ != server_.life() && announced_ != server_.life())
            is_misled_ = true;
    }
    void on_message(mqtt::publish const& p, mqtt::delivery d) {
        auto const message = number_of(p.payload);
        auto& m = down_[message];
        if (m.quality != p.qos) throw violation{"a message of another QoS"};
        if (m.quality == qos::exactly_once && m.handed_by == process_)
            throw violation{"a message of QoS 2 is handed over twice"};
        if (m.handed++ == 0) check_order(message, m.quality, last_handed_, "handed over");
        m.handed_by = process_;
        held_.push_back({message, d});
        if (!bounds_.holds) take(held_.size() - 1);
    }
    void on_published(void* owner, mqtt::acknowledgement const& a) {
        if (is_error(a.reason)) throw violation{"a message is refused"};
        auto& m = *static_cast<up_message*>(owner);
        if (m.received == 0) throw violation{"acknowledged, and the server has not got it"};
        ++m.told;
    }
    void on_lost(void* owner) {
        auto& m = *static_cast<up_message*>(owner);
        // A client that has missed an answer cannot know of PUBCOMP 0x92 whether the session was lost meanwhile.
        bool const may_be = losses_ != 0 || has_doubted_;
        if (m.quality != qos::exactly_once || !may_be) throw violation{"a message is lost"};
        ++m.told;
    }
    void on_refused(void*, mqtt::errc) { throw violation{"a message is refused"}; }

  private:
    void put_number(std::uint64_t v) {
        hash_ = (hash_ ^ v) * 0x9E37'79B9'7F4A'7C15;
        hash_ ^= hash_ >> 32;
    }

    struct process {
        process(bounds const& b, std::shared_ptr<test::memory_store> const& store)
            : state(mqtt::role::client, b.version, {.in_flight = b.window}) {
            if (!b.stores) return;
            journal.emplace(store);
            if (journal->load(state, "c")) throw violation{"the store cannot be read"};
        }
        mqtt::session_state state;
        std::optional<mqtt::session_journal> journal;
        runnel::send_buffer out;
    };
    struct up_message {
        qos quality = qos::at_least_once;
        unsigned received = 0;
        unsigned life = 0;     // of the server's session, when it was received last
        unsigned told = 0;     // how often its owner has been told of its end, or there is none any more
        unsigned process = 0;  // in which it was published
        bool is_written = false;
        bool may_be_missing = false;
    };
    struct down_message {
        qos quality = qos::at_least_once;
        unsigned life = 0;  // of the server's session
        unsigned handed = 0, taken = 0;
        unsigned handed_by = 0;  // process
    };
    struct holding {
        unsigned message;
        mqtt::delivery token;
    };

    static qos quality(unsigned bits, unsigned i) {
        return (bits >> i & 1) != 0 ? qos::exactly_once : qos::at_least_once;
    }
    template <class Queue>
    static std::string take_first(Queue& q) {
        auto first = std::move(q.front());
        q.pop_front();
        return first;
    }
    static void check_order(unsigned message, qos quality, std::array<unsigned, 3>& last, char const* what) {
        auto& l = last[static_cast<std::size_t>(quality)];
        if (message + 1 <= l) throw violation{std::string(what) + " out of order"};
        l = message + 1;
    }

    // --- what happens

    void begin_process() {
        ++process_;
        client_.reset();
        client_.emplace(bounds_, store_);
    }
    void publish() {
        auto const i = published_++;
        up_[i].process = process_;
        auto const text = text_of(i);
        mqtt::publish const packet{.topic = "u", .payload = text, .qos = up_[i].quality};
        if (client_->state.publish(client_->out, packet, &up_[i]).error != mqtt::errc::ok)
            throw violation{"a message is not accepted"};
    }
    void send() {
        down_[sent_].life = server_.life();
        server_.publish(sent_, down_[sent_].quality);
        ++sent_;
    }
    void receive(std::string const& packet) {
        auto const f = mqtt::next_frame(packet);
        bool const ends = f.header.type == packet_type::puback || f.header.type == packet_type::pubcomp;
        std::string_view input = packet;
        auto const error = client_->state.receive(input, client_->out, *this);
        if (error != mqtt::errc::ok) throw violation{"the client complains: " + std::string(describe(error))};
        has_doubted_ = has_doubted_ || client_->state.doubts_session();
        if (!ends) return;
        auto const id = runnel::read_big_endian<std::uint16_t>(f.body.data());
        in_use_.erase(id);
        on_connection_.erase(id);
    }
    void take(std::size_t which) {
        auto const h = held_[which];
        held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(which));
        client_->state.acknowledge(client_->out, h.token);
        taken_.push_back(h.message);
    }
    // The application writes down what it has taken in the transaction of the session's store.
    void commit() {
        if (client_->journal && client_->journal->commit(client_->state)) throw violation{"the store fails"};
        for (auto const i : std::exchange(taken_, {})) {
            auto& m = down_[i];
            bool const may_forget = !bounds_.stores && crashes_ != 0;
            if (m.taken++ != 0 && m.quality == qos::exactly_once && !may_forget)
                throw violation{"a message of QoS 2 is taken twice"};
        }
        if (announced_ == 0) return;
        known_ = announced_;
        if (known_ == server_.life()) is_misled_ = false;
    }
    void write() {
        auto& out = client_->out;
        while (!out.empty()) {
            auto const f = mqtt::next_frame(out.view());
            if (f.status != mqtt::parse_status::complete) throw violation{"half a packet"};
            if (f.header.type == packet_type::publish) look_at(f);
            to_server_.emplace_back(out.view().substr(0, f.total_size));
            out.consume(f.total_size);
        }
    }
    void look_at(mqtt::frame const& f) {
        mqtt::publish p;
        if (decode(f.header, f.body, bounds_.version, p) != mqtt::errc::ok) throw violation{"a PUBLISH that is wrong"};
        auto const i = number_of(p.payload);
        auto& m = up_[i];
        auto const [at, is_free] = in_use_.try_emplace(p.packet_id, i);
        if (!is_free && at->second != i) throw violation{"a packet identifier is used twice [MQTT-2.2.1-4]"};
        if (m.process == process_ && p.dup != m.is_written) throw violation{"DUP is wrong [MQTT-3.3.1-1]"};
        m.is_written = true;
        if (!on_connection_.insert(p.packet_id).second) throw violation{"sent again on one connection [MQTT-4.4.0-1]"};
        if (on_connection_.size() > bounds_.window) throw violation{"more than the receive maximum [MQTT-3.3.4-9]"};
    }
    void connect() {
        online_ = true;
        mqtt::properties p;
        p.session_expiry_interval = 3600;
        mqtt::connect packet{.client_id = "c", .clean_start = false};
        mqtt::capabilities own;
        if (bounds_.version == mqtt::protocol_version::v5) {
            packet.props = &p;
            own.receive_maximum = bounds_.window;
        }
        if (client_->state.connect(client_->out, packet, own) != mqtt::errc::ok) throw violation{"CONNECT"};
    }
    void cut() {
        online_ = false;
        to_server_.clear();
        on_connection_.clear();
        server_.connection_lost();
        client_->state.connection_lost();
        client_->out.clear();
    }
    void crash() {
        cut();
        held_.clear();
        taken_.clear();
        announced_ = 0;
        if (!bounds_.stores) {
            in_use_.clear();
            known_ = 0;
            is_misled_ = false;
        }
        for (unsigned i = 0; i < published_; ++i) {
            auto& m = up_[i];
            if (m.told != 0 || m.process != process_) continue;
            m.told = 1;
            m.may_be_missing = m.received == 0 && !(bounds_.stores && is_stored(i));
        }
        begin_process();
    }
    bool is_stored(unsigned message) const {
        auto const text = text_of(message);
        return std::ranges::any_of(store_->records, [&](auto const& r) { return r.second.ends_with(text); });
    }

    // --- what is seen

    void on_server_received(unsigned message, qos quality) override {
        auto& m = up_[message];
        if (m.quality != quality) throw violation{"a message of another QoS"};
        if (m.received != 0 && quality == qos::exactly_once && m.life == server_.life())
            throw violation{"a message of QoS 2 arrives twice"};
        if (m.received++ == 0) check_order(message, quality, last_received_, "received");
        m.life = server_.life();
    }
    bool is_quiet() const {
        return online_ && to_server_.empty() && server_.to_client.empty() && !server_.has_answers() && held_.empty();
    }
    void check_end() {
        for (unsigned i = 0; i < published_; ++i) {
            if (up_[i].told != 1) throw violation{"a promise is not completed, or twice"};
            if (up_[i].received == 0 && !up_[i].may_be_missing) throw violation{"a message never arrives"};
        }
        for (unsigned i = 0; i < sent_; ++i) {
            bool const may_be_missing = is_misled_ && down_[i].quality == qos::exactly_once;
            if (down_[i].life == server_.life() && down_[i].taken == 0 && !may_be_missing)
                throw violation{"a message is never taken"};
        }
        auto& s = client_->state;
        if (s.holds_messages() || s.queued_bytes() != 0 || s.unacknowledged() != 0)
            throw violation{"the client is not done"};
        if (!server_.is_done(!bounds_.stores && crashes_ != 0)) throw violation{"the server is not done"};
    }

    bounds bounds_;
    server server_;
    std::vector<up_message> up_;
    std::vector<down_message> down_;
    std::shared_ptr<test::memory_store> store_ = std::make_shared<test::memory_store>();
    std::optional<process> client_;
    unsigned process_ = 0, published_ = 0, sent_ = 0, cuts_ = 0, crashes_ = 0, losses_ = 0;
    bool online_ = false;
    std::deque<std::string> to_server_;
    std::vector<holding> held_;                 // by the application
    std::vector<unsigned> taken_;               // and not committed
    std::map<std::uint16_t, unsigned> in_use_;  // packet identifiers of PUBLISH, as the client must see it
    std::set<std::uint16_t> on_connection_;     // those sent on this connection
    std::array<unsigned, 3> last_received_{}, last_handed_{};
    // Of which life of the server's session the client knows, 0: of none. A server that has lost the session says so
    // once, in CONNACK; if that does not arrive, or is not stored, the client takes the new session for the old one,
    // and may take a new QoS 2 message for the repetition of one with the same identifier that it has had. Nothing in
    // the protocol tells them apart for sure.
    unsigned announced_ = 0, known_ = 0;
    bool is_misled_ = false;
    bool has_doubted_ = false;  // that the session is still the one it knew
    std::uint64_t hash_ = 0;
};

}  // namespace model
