// Fuzzes the session state of either role and version: arbitrary bytes, packets made from the input and then damaged,
// and the calls of an application between them. Asserts what must hold whatever the peer does.
//
// The first byte of the input chooses role, version and limits; the others are operations.

#include <runnel/mqtt/protocol/session_state.hpp>

#include "fuzz.hpp"
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

using namespace runnel::mqtt;
using test::input_reader;
using test::require;

namespace {

constexpr std::size_t queue_limit = 4096;

class fuzzed : public session_handler {
  public:
    explicit fuzzed(std::uint8_t setup)
        : role_((setup & 1) != 0 ? role::server : role::client),
          version_((setup & 2) != 0 ? protocol_version::v5 : protocol_version::v3_1_1),
          state_(role_, version_,
                 {.queued_bytes = queue_limit, .in_flight = static_cast<std::uint16_t>(1 + (setup >> 6) * 40)}) {
        if ((setup & 4) != 0) own_.receive_maximum = 3;
        if ((setup & 8) != 0) own_.maximum_packet_size = 64;
        if ((setup & 32) != 0) own_.topic_alias_maximum = 2;
        calls_back_ = (setup & 16) != 0;
    }

    void step(input_reader& in) {
        unsigned const operation = in.byte();
        unsigned const value = in.byte();
        switch (operation % 13) {
            case 0: connect((value & 1) != 0); break;
            case 1: lose_connection(); break;
            case 2: publish(static_cast<qos>(value % 3)); break;
            case 3: request(value % 2 == 0); break;
            case 4: acknowledge(value); break;
            case 5: state_.disconnect(out_); break;
            case 6: feed(in.bytes(value % 32)); break;
            case 7: authenticate(value); break;
            case 8:
                state_.set_time(now_ += std::chrono::milliseconds(value * 10));
                if ((value & 1) != 0) state_.expire(*this);
                break;
            default: feed(damaged(packet(operation / 13, value), in));
        }
        check_sent();
        require(state_.queued_bytes() <= queue_limit);
    }

    // Handlers: each call may call back.
    void on_message(runnel::mqtt::publish const& p, delivery d) {
        if (d.quality != qos::at_most_once) deliveries_.push_back(d);
        if (deliveries_.size() > 100) deliveries_.erase(deliveries_.begin());
        if (calls_back_) publish(p.qos);
        if (calls_back_) state_.acknowledge(out_, d);
    }
    void on_published(void* owner, acknowledgement const&) { end(owner); }
    void on_lost(void* owner) { end(owner); }
    void on_refused(void* owner, errc) {
        if (owner != nullptr) end(owner);
    }
    void on_suback(void* owner, suback const& p) { require(owner == &request_owner_ && !p.reasons.empty()); }
    void on_unsuback(void* owner, unsuback const&) { require(owner == &request_owner_); }
    void on_connack(connack const&) {
        if (calls_back_) publish(qos::at_most_once);
    }

  private:
    void connect(bool session_present) {
        if (state_.current_phase() != session_state::phase::disconnected) return;
        lose_connection();
        if (role_ == role::client) {
            runnel::mqtt::connect packet;
            packet.client_id = "c";
            packet.clean_start = false;
            if (version_ == protocol_version::v5 && !session_present) packet.props = &method_;
            require(state_.connect(out_, packet, own_) == errc::ok);
        } else {
            capabilities peer;
            if (version_ == protocol_version::v5) peer.receive_maximum = 2;
            if (version_ == protocol_version::v5 && session_present) peer.maximum_packet_size = 14;
            if (version_ == protocol_version::v5) peer.topic_alias_maximum = 3;
            connack answer{session_present, reason_code::success, {}};
            if (version_ == protocol_version::v5 && !session_present) answer.props = &method_;
            state_.accept(out_, answer, version_, own_, peer, *this);
        }
    }

    void lose_connection() {
        check_sent();
        state_.connection_lost();
        input_.clear();
        failed_ = false;
        disconnected_ = false;
        require(state_.unacknowledged() == 0);
    }

    void publish(qos quality) {
        char const payload[] = "payload";
        std::size_t const length = owned_ % sizeof(payload);
        std::string const topic = "topic/" + std::to_string(++published_ / 2 % 5);
        properties expiring;
        expiring.message_expiry_interval = static_cast<std::uint32_t>(published_ % 4);
        runnel::mqtt::publish packet{.topic = topic, .payload = {payload, length}, .qos = quality};
        if (version_ == protocol_version::v5 && published_ % 3 == 0) packet.props = &expiring;
        auto const begun = state_.publish(out_, packet, quality == qos::at_most_once ? nullptr : &owner_);
        if (begun.error == errc::ok && quality != qos::at_most_once) ++owned_;
    }

    void request(bool subscribe_to) {
        subscription_request const requests[] = {{.filter = "a/+"}, {.filter = "b"}};
        std::string_view const filters[] = {"a/+", "b"};
        if (role_ != role::client) return;
        if (subscribe_to)
            state_.subscribe(out_, {0, requests, {}}, &request_owner_);
        else
            state_.unsubscribe(out_, {0, filters, {}}, &request_owner_);
    }

    void authenticate(unsigned value) {
        constexpr reason_code reasons[] = {reason_code::success, reason_code::continue_authentication,
                                           reason_code::reauthenticate};
        state_.auth(out_, {reasons[value % 3], &method_});
    }

    void acknowledge(unsigned value) {
        if (deliveries_.empty()) return;
        auto const reason = (value & 0x80) != 0 ? reason_code::quota_exceeded : reason_code::success;
        state_.acknowledge(out_, deliveries_[value % deliveries_.size()], reason);
    }

    // A packet that a peer could send, with an identifier that may mean something.
    std::string packet(unsigned kind, unsigned value) const {
        auto const id = static_cast<std::uint16_t>(1 + value % 16);
        auto const reason = (value & 0x40) != 0 ? reason_code::unspecified_error : reason_code::success;
        constexpr packet_type acknowledgements[] = {packet_type::puback, packet_type::pubrec, packet_type::pubrel,
                                                    packet_type::pubcomp};
        reason_code const reasons[] = {reason_code::success, reason_code::success};
        auto const quality = static_cast<qos>(value / 16 % 3);
        properties aliased;
        aliased.topic_alias = static_cast<std::uint16_t>(value % 4);
        constexpr reason_code steps[] = {reason_code::success, reason_code::continue_authentication,
                                         reason_code::reauthenticate};
        bool const v5 = version_ == protocol_version::v5;
        if (v5 && kind % 16 == 13) return encoded(auth{steps[value % 3], &method_});
        if (v5 && kind % 16 == 14) return encoded(connack{false, reason_code::success, &method_});
        if (v5 && kind % 16 == 15)
            return encoded(runnel::mqtt::publish{.topic = (value & 4) != 0 ? "some" : "", .props = &aliased});
        switch (kind % 13) {
            case 0: return encoded(connack{(value & 1) != 0, reason_code::success, {}});
            case 1:
            case 2:
            case 3:
                return encoded(
                    runnel::mqtt::publish{.topic = "a",
                                          .payload = "p",
                                          .qos = quality,
                                          .dup = quality != qos::at_most_once && (value & 0x80) != 0,
                                          .packet_id = quality == qos::at_most_once ? std::uint16_t{0} : id});
            case 4:
            case 5:
            case 6:
            case 7:
                return encoded(acknowledgement{acknowledgements[kind % 13 - 4], id, ack_reason(kind % 13, reason), {}});
            case 8: return encoded(suback{id, reasons, {}});
            case 9: return encoded(unsuback{id, reasons, {}});
            case 10: return encoded(pingreq{});
            case 11: return encoded(pingresp{});
            default: return encoded(runnel::mqtt::disconnect{});
        }
    }

    static reason_code ack_reason(unsigned kind, reason_code reason) {
        bool const releases = kind == 6 || kind == 7;
        return releases && is_error(reason) ? reason_code::packet_identifier_not_found : reason;
    }

    // Nothing, one byte changed, or the end cut off.
    static std::string damaged(std::string bytes, input_reader& in) {
        unsigned const how = in.byte();
        if (how % 8 == 1) bytes[how / 8 % bytes.size()] = static_cast<char>(in.byte());
        if (how % 8 == 2) bytes.resize(how / 8 % bytes.size());
        return bytes;
    }

    void feed(std::string_view bytes) {
        if (failed_) return;
        input_ += bytes;
        std::string_view rest = input_;
        failed_ = state_.receive(rest, out_, *this) != errc::ok;
        require(rest.size() <= input_.size() && rest.data() + rest.size() == input_.data() + input_.size());
        input_.erase(0, input_.size() - rest.size());
        if (!failed_)
            require(input_.size() <= 4096 || state_.expected_size() > input_.size() ||
                    state_.current_phase() == session_state::phase::disconnected);
    }

    // All that is sent is packets that this end may send, and none follows DISCONNECT.
    void check_sent() {
        auto sent = out_.view();
        while (!sent.empty()) {
            auto const f = next_frame(sent);
            require(f.status == parse_status::complete);
            require(may_send(role_, f.header.type, version_));
            require(!disconnected_ || f.header.type == packet_type::connect || f.header.type == packet_type::connack);
            disconnected_ = f.header.type == packet_type::disconnect;
            if (f.header.type == packet_type::publish) {
                runnel::mqtt::publish p;
                require(decode(f.header, f.body, version_, p) == errc::ok);
            }
            sent.remove_prefix(f.total_size);
        }
        out_.clear();
    }

    void end(void* owner) {
        require(owner == &owner_ && owned_ > 0);  // nobody is told twice
        --owned_;
        if (calls_back_) publish(qos::at_least_once);
    }

    template <class Packet>
    std::string encoded(Packet const& p) const {
        std::string bytes(encoded_size(p, version_), '\0');
        encode(bytes.data(), p, version_);
        return bytes;
    }

    role role_;
    protocol_version version_;
    session_state state_;
    capabilities own_;
    runnel::send_buffer out_;
    std::string input_;
    std::vector<delivery> deliveries_;
    properties method_ = [] {
        properties p;
        p.authentication_method = "m";
        return p;
    }();
    std::chrono::milliseconds now_{0};
    std::size_t published_ = 0;
    std::size_t owned_ = 0;
    char owner_ = 0, request_owner_ = 0;
    bool calls_back_ = false;
    bool failed_ = false;
    bool disconnected_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    input_reader in(data, size);
    fuzzed session(in.byte());
    while (!in.empty()) session.step(in);
    return 0;
}
