// The rules of the embedded broker, which whoever connects can set to work: three connections at a time, of either
// version, send whole packets of any kind, packets that are damaged, and bytes; time passes, connections are cut, and
// some do not take what they are sent. What the broker holds must keep to its limits, and what it sends must be packets
// that a server may send, in an order that makes sense.

#include <runnel/testing/broker/detail/core.hpp>

#include "fuzz.hpp"
#include "support/random_packets.hpp"
#include "support/random_source.hpp"
#include "support/timed_broker.hpp"
#include <array>
#include <chrono>
#include <string>
#include <string_view>

namespace {

using namespace runnel::mqtt;
using test::require;

runnel::testing::broker_options limited() {
    runnel::testing::broker_options o;
    o.accepts.receive_maximum = 4;
    o.accepts.maximum_packet_size = 4096;
    o.maximum_packet_size_v3_1_1 = 4096;
    o.accepts.topic_alias_maximum = 3;
    o.outgoing_topic_aliases = 2;
    o.output_limit = 4096;
    o.queue_limit = 20;
    o.queue_bytes = 8192;
    o.retained_limit = 5;
    o.subscription_limit = 6;
    o.session_limit = 4;
    o.in_flight = 3;
    o.recorded_messages = 3;
    return o;
}

class client final : public runnel::testing::detail::broker_connection {
  public:
    explicit client(test::timed_broker& b) : broker_connection({"memory", "", false}), broker_(b) {}

    void wake() override {}
    void abort() override { aborted_ = true; }

    void open(protocol_version v) {
        close();
        version = v;
        closing = aborted_ = false;
        open_ = true;
        broker_.core.opened(*this, broker_.now);
    }
    void close() {
        if (!open_) return;
        open_ = false;
        broker_.core.closed(*this, broker_.now);
        out.clear();
        input_.clear();
        greeted_ = false;
    }
    void say(std::string_view bytes) {
        if (!open_ || closing) return;
        input_ += bytes;
        if (!broker_.core.wants_input(*this)) {
            require(out.size() <= limited().output_limit + 70'000);
            input_.clear();
            return;
        }
        std::string_view rest = input_;
        broker_.core.receive(*this, rest, broker_.now);
        input_.erase(0, closing ? input_.size() : input_.size() - rest.size());
        require(input_.size() <= 4096 || expected > input_.size() || session == nullptr);
        after();
    }
    // Takes what it is sent, and answers it if it is to.
    void take(bool answers) {
        if (!open_) return;
        std::string reply;
        for (auto sent = out.view(); !sent.empty();) {
            frame const f = next_frame(sent);
            require(f.status == parse_status::complete && f.total_size <= max_variable_integer + 5);
            require(may_send(role::server, f.header.type, version));
            bool const greets = f.header.type == packet_type::connack;
            require(greeted_ ? !greets : greets || f.header.type == packet_type::auth);
            greeted_ = greeted_ || greets;
            auto const owed = answer_to(f);
            if (answers) reply += owed;
            sent.remove_prefix(f.total_size);
        }
        out.clear();
        broker_.core.sent(*this, broker_.now);
        if (!reply.empty()) say(reply);
    }
    void after() {
        if (aborted_) close();
    }

    template <class Packet>
    std::string encoded(Packet const& p) const {
        std::string bytes(encoded_size(p, version), '\0');
        encode(bytes.data(), p, version);
        return bytes;
    }

    protocol_version version = protocol_version::v5;

  private:
    // What a client owes for a packet, in the order of QoS 1 and 2.
    std::string answer_to(frame const& f) const {
        constexpr auto fine = reason_code::success;
        if (f.header.type == packet_type::publish) {
            publish p;
            require(decode(f.header, f.body, version, p) == errc::ok);
            if (p.qos == qos::at_least_once)
                return encoded(acknowledgement{packet_type::puback, p.packet_id, fine, {}});
            if (p.qos == qos::exactly_once) return encoded(acknowledgement{packet_type::pubrec, p.packet_id, fine, {}});
        } else if (f.header.type == packet_type::pubrel) {
            acknowledgement a;
            require(decode(f.header, f.body, version, a) == errc::ok);
            return encoded(acknowledgement{packet_type::pubcomp, a.packet_id, fine, {}});
        }
        return {};
    }

    test::timed_broker& broker_;
    std::string input_;
    bool open_ = false;
    bool greeted_ = false;
    bool aborted_ = false;
};

class world {
  public:
    void step(test::input_reader& in) {
        unsigned const what = in.byte();
        client& c = clients_[what / 16 % 3];
        switch (what % 16) {
            case 0: c.open((what & 128) != 0 ? protocol_version::v5 : protocol_version::v3_1_1); break;
            case 1: c.close(); break;
            case 2: c.say(in.bytes(in.byte())); break;
            case 3: broker_.pass(std::chrono::milliseconds(1 << in.byte() % 24)); break;
            case 4: c.take(false); break;
            case 5: connect(c, in); break;
            case 6: subscribe(c, in.byte()); break;
            case 7:
            case 8: publish(c, in.byte()); break;
            case 9: broker_.core.hold_acknowledgements((what & 128) != 0); break;
            case 10: broker_.core.disconnect_client("a", reason_code::server_busy, broker_.now); break;
            case 11: c.take(true); break;
            case 12: acknowledge(c, in); break;
            default: any_packet(c, in);
        }
        for (auto& each : clients_) each.after();
        auto const limits = limited();
        require(broker_.core.session_count() <= limits.session_limit + 1);
        require(broker_.core.retained_count() <= limits.retained_limit);
        require(broker_.core.received().size() <= limits.recorded_messages);
    }

    // Nobody is there any more, and all that is due has been done.
    void end() {
        for (auto& c : clients_) c.close();
        for (auto const name : {"a", "b"}) require(!broker_.core.connected(name));
        broker_.pass(std::chrono::hours(24 * 365) * 140);  // the longest session expiry interval
        require(!broker_.core.next_deadline());
    }

  private:
    void connect(client& c, test::input_reader& in) {
        unsigned const how = in.byte();
        runnel::mqtt::connect p;
        p.client_id = (how & 1) != 0 ? "a" : "b";
        p.clean_start = (how & 2) != 0;
        p.keep_alive = static_cast<std::uint16_t>(how & 12);
        properties props;
        props.session_expiry_interval = how / 16 * 7;
        if ((how & 64) != 0) props.maximum_packet_size = 40;
        if ((how & 128) != 0) props.receive_maximum = 1;
        properties of_will;
        of_will.will_delay_interval = how % 7;
        bool const v5 = c.version == protocol_version::v5;
        if (v5) p.props = &props;
        if ((how & 32) != 0) p.will = will{.topic = "t/1", .payload = "w", .qos = qos::at_least_once, .retain = true};
        if (v5 && p.will) p.will->props = &of_will;
        c.say(c.encoded(p));
    }
    static void subscribe(client& c, unsigned how) {
        constexpr std::string_view filters[] = {"t/1", "t/+", "#", "$share/g/t/#", "$share/g/t/1", "+/1", "t/2", "t/3"};
        subscription_request const request{.filter = filters[how % 8], .maximum_qos = static_cast<qos>(how / 8 % 3)};
        if (how >= 128)
            c.say(c.encoded(unsubscribe{.packet_id = 9, .filters = request.filter}));
        else
            c.say(c.encoded(runnel::mqtt::subscribe{.packet_id = 9, .requests = request}));
    }
    static void publish(client& c, unsigned how) {
        std::string const topic = "t/" + std::to_string(how % 8);
        std::string const payload(how * 3, 'p');
        runnel::mqtt::publish p{.topic = topic, .payload = payload, .qos = static_cast<qos>(how / 8 % 3)};
        p.retain = (how & 64) != 0;
        if (p.qos != qos::at_most_once) p.packet_id = static_cast<std::uint16_t>(1 + how % 5);
        properties props;
        props.message_expiry_interval = how % 4;
        if (c.version == protocol_version::v5 && (how & 128) != 0) p.props = &props;
        c.say(c.encoded(p));
    }
    static void acknowledge(client& c, test::input_reader& in) {
        auto const type = static_cast<packet_type>(4 + in.byte() % 4);
        acknowledgement const a{type, static_cast<std::uint16_t>(1 + in.byte() % 6), reason_code::success, {}};
        c.say(c.encoded(a));
    }
    // One byte may be changed.
    static void any_packet(client& c, test::input_reader& in) {
        test::random_source choices(in.bytes(64));
        test::random_packets packets(choices, c.version);
        std::string bytes;
        packets.next([&](auto const& p) { bytes = c.encoded(p); });
        std::size_t const at = in.byte();
        if (at < 128 && at < bytes.size()) bytes[at] = static_cast<char>(in.byte());
        c.say(bytes);
    }

    test::timed_broker broker_{limited()};
    std::array<client, 3> clients_{client(broker_), client(broker_), client(broker_)};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    test::input_reader in(data, size);
    world w;
    while (!in.empty()) w.step(in);
    w.end();
    return 0;
}
