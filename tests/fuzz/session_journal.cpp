// Records that a damaged or a foreign store gives back. What the journal takes must be a session that can go on, and
// that is stored and loaded again as it is.
//
// The input is a list of records: a byte for the kind of key (with what belongs to it), one for the size of the value,
// the value; kind 15 ends it. What follows is done with the session.

#include <runnel/mqtt/store/session_journal.hpp>

#include "fuzz.hpp"
#include "support/memory_store.hpp"
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

namespace {

using namespace runnel::mqtt;
using test::require;
constexpr std::uint64_t exchange_key = std::uint64_t{1} << 61;
constexpr std::uint64_t taken_key = std::uint64_t{1} << 62;

std::uint64_t number(test::input_reader& in, int bytes) {
    std::uint64_t value = 0;
    while (bytes-- > 0) value = value << 8 | in.byte();
    return value;
}

void read_records(test::input_reader& in, test::memory_store& store) {
    while (!in.empty()) {
        auto const kind = in.byte();
        std::uint64_t key = 0;
        switch (kind & 15) {
            case 15: return;
            case 0: break;
            case 1: key = 1; break;
            case 2: key = exchange_key + number(in, 1); break;
            case 3: key = taken_key + number(in, 2); break;
            default: key = number(in, 8) >> 1;
        }
        store.records[key] = in.bytes(in.byte());
    }
}

std::size_t exchanges(test::memory_store const& store) {
    return static_cast<std::size_t>(std::count_if(store.records.begin(), store.records.end(), [](auto const& r) {
        return r.first >= exchange_key && r.first < taken_key;
    }));
}

struct handler : session_handler {
    void on_message(publish const&, delivery d) { delivered = d; }
    std::optional<delivery> delivered;
};

class life {
  public:
    explicit life(std::shared_ptr<test::memory_store> store) : store_(std::move(store)), journal_(store_) {}

    bool load() {
        auto const e = journal_.load(state_, {});
        if (!e) require(journal_.restored() == exchanges(*store_));
        return !e;
    }

    void step(test::input_reader& in) {
        switch (in.byte() % 8) {
            case 0: connect(false); break;
            case 1: connect(true); break;
            case 2:
                state_.connection_lost();
                out_.clear();
                input_.clear();
                break;
            case 3: {
                properties expiring;
                expiring.message_expiry_interval = in.byte();
                runnel::mqtt::publish p{.topic = "t", .payload = "p", .qos = static_cast<qos>(1 + in.byte() % 2)};
                if (state_.version() == protocol_version::v5) p.props = &expiring;
                state_.publish(out_, p, this);
                break;
            }
            case 4:
                if (handler_.delivered) state_.acknowledge(out_, *handler_.delivered);
                handler_.delivered.reset();
                break;
            case 5: state_.set_time(now_ += std::chrono::milliseconds(in.byte() * 100)); break;
            case 6: acknowledge(in); break;
            default: receive(in.bytes(in.byte() % 32));
        }
        commit();
    }

    // What is stored is a session again.
    void commit() {
        require(!journal_.commit(state_));
        for (auto sent = out_.view(); !sent.empty();) {
            frame const f = next_frame(sent);
            require(f.status == parse_status::complete);
            sent.remove_prefix(f.total_size);
        }
        out_.clear();
        auto const copy = std::make_shared<test::memory_store>(*store_);
        session_state state(role::client, state_.version());
        session_journal journal{any_session_store(copy)};
        require(!journal.load(state, {}));
        require(!journal.commit(state));
        require(copy->records == store_->records);
    }

  private:
    void connect(bool present) {
        state_.connection_lost();
        out_.clear();
        input_.clear();
        connect_packet_.client_id = "c";
        connect_packet_.clean_start = false;
        require(state_.connect(out_, connect_packet_, {}) == errc::ok);
        connack const answer{present, reason_code::success, {}};
        std::string bytes(encoded_size(answer, state_.version()), '\0');
        encode(bytes.data(), answer, state_.version());
        receive(bytes);
    }
    void acknowledge(test::input_reader& in) {
        constexpr packet_type types[] = {packet_type::puback, packet_type::pubrec, packet_type::pubcomp,
                                         packet_type::pubrel};
        acknowledgement const answer{
            types[in.byte() % 4], std::max<std::uint16_t>(in.byte(), 1), reason_code::success, {}};
        std::string bytes(encoded_size(answer, state_.version()), '\0');
        encode(bytes.data(), answer, state_.version());
        receive(bytes);
    }
    void receive(std::string_view bytes) {
        if (state_.current_phase() == session_state::phase::disconnected) return;
        input_ += bytes;
        std::string_view rest = input_;
        if (state_.receive(rest, out_, handler_) != errc::ok) {
            commit();
            state_.connection_lost();
            rest = {};
        }
        input_.erase(0, input_.size() - rest.size());
    }

    std::shared_ptr<test::memory_store> store_;
    session_state state_{role::client, protocol_version::v5};
    session_journal journal_;
    runnel::send_buffer out_;
    std::string input_;
    handler handler_;
    runnel::mqtt::connect connect_packet_;
    std::chrono::milliseconds now_{0};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    test::input_reader in(data, size);
    auto const store = std::make_shared<test::memory_store>();
    read_records(in, *store);
    life session(store);
    if (!session.load()) return 0;
    session.commit();
    while (!in.empty()) session.step(in);
    return 0;
}
