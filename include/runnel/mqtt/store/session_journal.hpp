#pragma once

#include <runnel/core/bytes.hpp>
#include <runnel/core/compiler.hpp>
#include <runnel/core/make_room.hpp>
#include <runnel/core/record_pool.hpp>
#include <runnel/mqtt/protocol/session_state.hpp>
#include <runnel/mqtt/store/session_store.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace runnel::mqtt {

/// Keeps in a store what of a session must outlive the process: QoS 1 and 2 messages that are not acknowledged, QoS 2
/// identifiers of messages that have been taken, and the client identifier.
///
/// The rule is that of a write-ahead log: `commit` comes before the bytes that depend on it are written to the network.
/// Then it does not matter at which moment the process ends: PUBLISH has not been sent, or the message is stored;
/// PUBREC has not been sent, or its identifier is stored as taken; PUBREL has not been sent, or the message is stored
/// as released; PUBCOMP has not been sent, or the identifier is forgotten.
///
/// Records (big-endian numbers), each under a key that begins with its kind:
/// - 0: format (1), protocol version (4 or 5), whether there has been a connection (0 or 1), the number of the next
///   exchange (8 bytes), QoS 1 and 2 messages accepted (8 bytes); and, if the server may hold packet identifiers of an
///   older session, a number (8 bytes) that only earlier versions look at: from that exchange on they trust identifiers
/// - 1: the client identifier
/// - 2^61 + number of an exchange: nothing after PUBREC, else the PUBLISH packet; if it expires, behind a zero byte and
///   the time at which it does (8 bytes, milliseconds since 1970). A byte of 1 in front of all that: it is of QoS 2 and
///   has not been sent, and the server may hold its identifier, which therefore has to be freed first
/// - 2^62 + packet identifier of a QoS 2 message that has been taken: the reason code of its PUBREC
class session_journal {
  public:
    /// Keeps nothing.
    session_journal() noexcept = default;
    /// `epoch` is what to add to the session's time (`session_state::set_time`) for milliseconds since 1970.
    explicit session_journal(any_session_store store, std::chrono::milliseconds epoch = {}) noexcept
        : store_(std::move(store)), epoch_(epoch) {}
    session_journal(session_journal const&) = delete;
    session_journal& operator=(session_journal const&) = delete;
    ~session_journal() {
        if (claimed_) store_.release();
    }

    /// Whether there is a store.
    explicit operator bool() const noexcept { return static_cast<bool>(store_); }

    /// The client identifier of the stored session; empty if there is none.
    std::string const& client_id() const noexcept { return client_id_; }
    void set_client_id(std::string_view id) {
        if (client_id_ == id) return;
        client_id_ = id;
        client_id_changed_ = true;
    }

    /// The messages that `load` has put back.
    std::size_t restored() const noexcept { return restored_; }
    /// How often something has been stored.
    std::uint64_t commits() const noexcept { return commits_; }

    /// Puts back into `state`, which must be new, what the store holds. `client_id` is the one configured, or empty for
    /// that of the store. Errors: those of the store, and `in_use`, `other_client`, `unsupported_format`, `corrupt`.
    std::error_code load(session_state& state, std::string_view client_id) {
        if (!store_.claim()) return store_errc::in_use;
        claimed_ = true;
        contents found;
        if (auto const e = store_.load(found)) return e;
        if (found.wrong) return store_errc::corrupt;
        state.note_changes();
        if (found.header) {
            if (auto const e = restore(state, found)) return e;
        } else if (!found.exchanges.empty() || !found.taken.empty()) {
            return store_errc::corrupt;
        }
        client_id_ = found.client_id;
        if (!client_id.empty() && !client_id_.empty() && client_id != client_id_) return store_errc::other_client;
        if (!client_id.empty()) set_client_id(client_id);
        return {};
    }

    /// `epoch` is what it is now, if somebody has set the clock by a second or more since. A message of this session
    /// goes on to expire after as long as before, and its record is corrected by the next `commit`. One that an earlier
    /// process has stored expires when it was to by the calendar.
    RUNNEL_COLD void set_epoch(session_state& state, std::chrono::milliseconds epoch) noexcept {
        auto const by = epoch - epoch_;
        if (std::chrono::abs(by) < std::chrono::seconds(1)) return;
        epoch_ = epoch;
        state.time_of_day_set(by, own_);
    }

    /// Stores what has changed, if anything has. After an error nothing has been stored, and it may be tried again. But
    /// where that has undone what the user had added, the error stays until `go_on_without`: what belongs together is
    /// not to be stored without it.
    std::error_code commit(session_state& state) {
        if (!store_) return {};
        if (undone_) [[unlikely]]
            return undone_;
        bool const changed = state.has_changes() || client_id_changed_;
        bool const is_added_to = store_.pending();
        if (!changed && !is_added_to) return {};
        collector all(*this);
        if (changed) all.collect(state);
        if (auto const e = store_.apply(changes_)) {
            if (is_added_to && !store_.pending()) undone_ = e;
            return e;
        }
        state.changes_stored();
        client_id_changed_ = false;
        ++commits_;
        return {};
    }
    /// The user knows what has been undone.
    RUNNEL_COLD void go_on_without() noexcept { undone_.clear(); }

  private:
    static constexpr std::uint64_t header_key = 0;
    static constexpr std::uint64_t client_key = 1;
    static constexpr std::uint64_t exchange_key = std::uint64_t{1} << 61;
    static constexpr std::uint64_t taken_key = std::uint64_t{1} << 62;
    static constexpr char format = 1;
    static constexpr std::size_t header_size = 19;
    static constexpr std::size_t long_header_size = 27;
    static constexpr std::size_t deadline_size = 9;
    static constexpr char unsent_mark = 1;

    // What `commit` hands to the store; gone when it returns.
    class collector {
      public:
        explicit collector(session_journal& j) noexcept : journal_(j) {}
        collector(collector const&) = delete;
        collector& operator=(collector const&) = delete;
        ~collector() {
            journal_.changes_.clear();
            for (void* const p : journal_.copies_) journal_.pool_.give_back(p);
            journal_.copies_.clear();
        }

        void collect(session_state& state) {
            auto& h = journal_.header_;
            h[0] = format;
            h[1] = static_cast<char>(state.queue_version());
            h[2] = state.has_session() ? 1 : 0;
            write_big_endian(&h[3], state.next_number());
            write_big_endian(&h[11], state.accepted());
            bool const has_unknown = state.has_unknown_identifiers();
            if (has_unknown) write_big_endian(&h[header_size], state.next_number() + 65535);
            put(header_key, {h.data(), has_unknown ? long_header_size : header_size});
            if (journal_.client_id_changed_) put(client_key, journal_.client_id_);
            state.tell_changes(*this);
        }

        void message(std::uint64_t number, std::string_view packet,
                     std::optional<std::chrono::milliseconds> expires_at) {
            if (expires_at) packet = with_deadline(packet, *expires_at);
            put(exchange_key + number, packet);
        }
        RUNNEL_COLD void unsent(std::uint64_t number, std::string_view packet,
                                std::optional<std::chrono::milliseconds> expires_at) {
            if (expires_at) packet = with_deadline(packet, *expires_at);
            auto* const marked = copy(packet, 1);
            marked[0] = unsent_mark;
            put(exchange_key + number, {marked, 1 + packet.size()});
        }
        void released(std::uint64_t number) { put(exchange_key + number, {}); }
        void ended(std::uint64_t number) { erase(exchange_key + number); }
        void taken(std::uint16_t packet_id, reason_code reason) {
            put(taken_key + packet_id, reasons().substr(static_cast<std::size_t>(reason), 1));
        }
        void forgotten(std::uint16_t packet_id) { erase(taken_key + packet_id); }

      private:
        void put(std::uint64_t key, std::string_view value) { journal_.changes_.push_back({key, value, false}); }
        void erase(std::uint64_t key) { journal_.changes_.push_back({key, {}, true}); }

        std::string_view with_deadline(std::string_view packet, std::chrono::milliseconds expires_at) {
            auto* const record = copy(packet, deadline_size);
            record[0] = 0;
            write_big_endian(record + 1, static_cast<std::uint64_t>((expires_at + journal_.epoch_).count()));
            return {record, deadline_size + packet.size()};
        }
        // With so many bytes in front.
        char* copy(std::string_view packet, std::size_t front) {
            make_room(journal_.copies_, 1);
            auto* const made = static_cast<char*>(journal_.pool_.take(front + packet.size()));
            journal_.copies_.push_back(made);
            std::memcpy(made + front, packet.data(), packet.size());
            return made;
        }

        // All bytes, so that there is a view of each.
        static std::string_view reasons() noexcept {
            static constexpr auto all = [] {
                std::array<char, 256> bytes{};
                for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i);
                return bytes;
            }();
            return {all.data(), all.size()};
        }

        session_journal& journal_;
    };

    // What `load` has found.
    struct contents final : store_reader {
        struct exchange {
            std::uint64_t number;
            std::string value{};
        };
        std::optional<std::string> header{};
        std::string client_id{};
        std::vector<exchange> exchanges{};
        std::vector<std::pair<std::uint16_t, reason_code>> taken{};
        bool wrong = false;

        void record(std::uint64_t key, std::string_view value) override {
            if (key == header_key)
                header = value;
            else if (key == client_key)
                client_id = value;
            else if (key >= exchange_key && key < taken_key)
                exchanges.push_back({key - exchange_key, std::string(value)});
            else if (key >= taken_key && key <= taken_key + 65535 && value.size() == 1)
                taken.emplace_back(static_cast<std::uint16_t>(key - taken_key), static_cast<reason_code>(value[0]));
            else
                wrong = true;
        }
    };

    std::error_code restore(session_state& state, contents const& found) {
        std::string const& h = *found.header;
        if (h.empty() || h[0] != format) return h.empty() ? store_errc::corrupt : store_errc::unsupported_format;
        if ((h.size() != header_size && h.size() != long_header_size) || (h[1] != 4 && h[1] != 5) || (h[2] | 1) != 1)
            return store_errc::corrupt;
        auto const version = static_cast<protocol_version>(h[1]);
        auto const next = read_big_endian<std::uint64_t>(&h[3]);
        auto const accepted = read_big_endian<std::uint64_t>(&h[11]);
        if (next >= exchange_key) return store_errc::corrupt;
        std::vector<bool> in_use(found.exchanges.empty() ? 0 : 65536);  // packet identifiers
        for (auto const& e : found.exchanges) {
            if (e.number >= next || in_use[detail::in_flight::identifier_of(e.number)] ||
                !restore_exchange(state, e, version))
                return store_errc::corrupt;
            in_use[detail::in_flight::identifier_of(e.number)] = true;
        }
        for (auto const& [packet_id, reason] : found.taken) {
            // Nor is 0 an identifier.
            if (check(acknowledgement{packet_type::pubrec, packet_id, reason, {}}, protocol_version::v5) != errc::ok)
                return store_errc::corrupt;
            state.restore_taken(packet_id, reason);
        }
        state.restore_counts(next, accepted, h[2] == 1, version);
        if (h.size() == long_header_size) state.restore_unknown();
        restored_ = found.exchanges.size();
        own_ = next;
        return {};
    }

    bool restore_exchange(session_state& state, contents::exchange const& e, protocol_version version) const {
        std::string_view packet = e.value;
        bool const unsent = !packet.empty() && packet[0] == unsent_mark;
        if (unsent) packet.remove_prefix(1);
        std::optional<std::chrono::milliseconds> expires_at;
        if (!packet.empty() && packet[0] == 0) {
            if (packet.size() < deadline_size) return false;
            auto const deadline = static_cast<std::int64_t>(read_big_endian<std::uint64_t>(packet.data() + 1));
            // Beyond that there is no date; so nothing overflows.
            if (deadline < 0 || deadline >> 48 != 0) return false;
            expires_at = std::chrono::milliseconds(deadline) - epoch_;
            packet.remove_prefix(deadline_size);
        }
        if (e.value.empty()) {
            state.restore(e.number, {}, {});
            return true;
        }
        mqtt::publish message;
        // QoS 0 has the identifier 0, which no exchange has.
        if (!read(packet, version, message) || message.packet_id != detail::in_flight::identifier_of(e.number))
            return false;
        // A message that came from a session of MQTT 5 may have lost its interval in MQTT 3.1.1.
        if (!message.props.get<property_id::message_expiry_interval>()) expires_at.reset();
        if (unsent && message.qos != qos::exactly_once) return false;
        state.restore(e.number, packet, expires_at, unsent);
        return true;
    }

    static bool read(std::string_view packet, protocol_version version, mqtt::publish& message) {
        frame const f = next_frame(packet);
        if (f.status != parse_status::complete || f.total_size != packet.size()) return false;
        if (f.header.type != packet_type::publish) return false;
        return decode(f.header, f.body, version, message) == errc::ok;
    }

    any_session_store store_{};
    std::chrono::milliseconds epoch_{0};
    std::string client_id_{};
    bool client_id_changed_ = false;
    bool claimed_ = false;
    std::size_t restored_ = 0;
    std::uint64_t own_ = 0;  // exchanges with lower numbers have been begun by earlier processes
    std::uint64_t commits_ = 0;
    std::error_code undone_{};  // with which `apply` has failed, and undone what the user had added
    // Of one `commit`, kept for reuse.
    std::vector<store_change> changes_{};
    std::array<char, long_header_size> header_{};
    record_pool pool_{};
    std::vector<void*> copies_{};
};

// A type of its own for each store, which so does not exist where there is none: the compiler would foresee it.
template <class Store>
std::unique_ptr<any_session_journal> make_session_journal(any_session_store store, std::chrono::milliseconds epoch) {
    struct of_store final : any_session_journal {
        of_store(any_session_store s, std::chrono::milliseconds e) : journal(std::move(s), e) {}
        std::error_code load(session_state& state, std::string_view client_id) override {
            return journal.load(state, client_id);
        }
        void set_epoch(session_state& state, std::chrono::milliseconds epoch) noexcept override {
            journal.set_epoch(state, epoch);
        }
        std::error_code commit(session_state& state) override { return journal.commit(state); }
        void go_on_without() noexcept override { journal.go_on_without(); }
        std::string const& client_id() const noexcept override { return journal.client_id(); }
        void set_client_id(std::string_view id) override { journal.set_client_id(id); }
        std::size_t restored() const noexcept override { return journal.restored(); }
        std::uint64_t commits() const noexcept override { return journal.commits(); }
        session_journal journal;
    };
    return std::make_unique<of_store>(std::move(store), epoch);
}

}  // namespace runnel::mqtt
