#include <runnel/mqtt/protocol/detail/session_state_pieces.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <support/session_end.hpp>
#include <vector>

using namespace runnel;
using namespace runnel::mqtt;
using test::session_end;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

// A client that takes messages of "big/#" in pieces.
struct client : session_end {
    explicit client(protocol_version v, capabilities own = {}, session_limits limits = {})
        : session_end(role::client, v, limits) {
        pieces.add(this, {"big/#"});
        connect(false, nullptr, own);
        REQUIRE(state.connected());
    }

    struct listener : session_end::listener {
        static constexpr bool takes_pieces = true;
        client& self;
        explicit listener(client& c) : session_end::listener(c), self(c) {}
        incoming_pieces& pieces() { return self.pieces; }
        void on_pieces() { self.go_on(); }
        void on_piece() { self.go_on(); }
    };

    errc feed(std::string_view bytes) {
        listener handler(*this);
        return receive(bytes, handler);
    }
    template <class Packet>
    errc feed_packet(Packet const& packet) {
        return feed(test::encoded(packet, version));
    }

    // What a taker does at once.
    void go_on() {
        if (is_busy) return;
        std::string piece;
        pieces.take(piece);
        payload += piece;
        if (pieces.current() == incoming_pieces::state::whole) finish();
    }
    void finish() {
        std::string piece;
        pieces.take(piece);
        payload += piece;
        taken.push_back(std::string(pieces.head().topic) + "=" + payload);
        payload.clear();
        auto const token = pieces.token();
        pieces.finish();
        if (acknowledges) state.acknowledge(out, token);
    }

    incoming_pieces pieces;
    std::string payload;
    std::vector<std::string> taken;
    bool is_busy = false;
    bool acknowledges = true;
};

publish big(std::string_view payload, qos quality, std::uint16_t id = 1, bool dup = false) {
    return {.topic = "big/1",
            .payload = payload,
            .qos = quality,
            .dup = dup,
            .packet_id = quality == qos::at_most_once ? std::uint16_t{0} : id};
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("a message in pieces may be split anywhere, between other packets") {
    for (auto const version : {v3, v5})
        for (auto const quality : {qos::at_most_once, qos::at_least_once, qos::exactly_once}) {
            properties props;
            if (version == v5) props.content_type = "a type";
            auto message = big("some payload", quality);
            message.props = &props;
            auto const all = test::encoded(publish{.topic = "small", .payload = "1"}, version) +
                             test::encoded(message, version) +
                             test::encoded(publish{.topic = "small", .payload = "2"}, version);
            for (std::size_t cut = 0; cut <= all.size(); ++cut) {
                CAPTURE(cut);
                client c(version);
                CHECK(c.feed(all.substr(0, cut)) == errc::ok);
                CHECK(c.feed(all.substr(cut)) == errc::ok);
                CHECK(c.taken == texts{"big/1=some payload"});
                REQUIRE(c.messages.size() == 2);
                CHECK(c.messages[1].text == "small=2");
                CHECK(c.sent() == (quality == qos::at_most_once    ? ""
                                   : quality == qos::at_least_once ? "PUBACK 1"
                                                                   : "PUBREC 1"));
                CHECK(c.input.empty());
            }
            client c(version);  // byte by byte
            for (char const byte : all) CHECK(c.feed({&byte, 1}) == errc::ok);
            CHECK(c.taken == texts{"big/1=some payload"});
            CHECK(c.messages.size() == 2);
        }
}

TEST_CASE("what the session expects of a message in pieces is not its size, so that no room is made for it") {
    client c(v5);
    auto const packet = test::encoded(big(std::string(100'000, 'x'), qos::at_most_once), v5);
    CHECK(c.feed(packet.substr(0, 6)) == errc::ok);
    CHECK(c.state.expected_size() == 0);
    CHECK(c.feed(packet.substr(6, 50'000)) == errc::ok);
    CHECK(c.state.expected_size() == 0);
    CHECK(c.input.empty());
    client behind(v5);
    CHECK(behind.feed(test::encoded(publish{.topic = "small", .payload = "123456"}, v5) + packet.substr(0, 6)) ==
          errc::ok);
    CHECK(behind.state.expected_size() == 0);
    CHECK(behind.feed(packet.substr(6, 20)) == errc::ok);
    CHECK(behind.state.expected_size() == 0);
    client at_once(v5);
    CHECK(at_once.feed(test::encoded(publish{.topic = "small", .payload = "123456"}, v5) + packet.substr(0, 100)) ==
          errc::ok);
    CHECK(at_once.state.expected_size() == 0);
    // Of others it is.
    client other(v5);
    auto const whole = test::encoded(publish{.topic = "small", .payload = "123456"}, v5);
    CHECK(other.feed(whole.substr(0, 12)) == errc::ok);
    CHECK(other.state.expected_size() == whole.size());
}

TEST_CASE("while a taker is busy, payload stays in the input, and so does the next message for anybody") {
    client c(v3);
    c.is_busy = true;
    std::string const payload(incoming_pieces::piece_size + 10, 'x');
    auto const next = test::encoded(big("next", qos::at_most_once), v3);
    CHECK(c.feed(test::encoded(big(payload, qos::at_most_once), v3) + next) == errc::ok);
    CHECK(c.pieces.is_held());
    CHECK(c.input.size() == 10 + next.size());
    CHECK(c.feed({}) == errc::ok);
    CHECK(c.input.size() == 10 + next.size());
    std::string piece;
    c.pieces.take(piece);
    c.payload = piece;
    CHECK(c.feed(test::encoded(publish{.topic = "small", .payload = "1"}, v3)) == errc::ok);
    CHECK(c.pieces.current() == incoming_pieces::state::whole);
    CHECK(c.pieces.is_held());  // by the next message
    CHECK(c.messages.empty());
    c.is_busy = false;
    c.finish();
    CHECK_FALSE(c.pieces.is_held());
    CHECK(c.feed({}) == errc::ok);
    CHECK(c.taken == texts{"big/1=" + payload, "big/1=next"});
    CHECK(c.messages.size() == 1);
}

TEST_CASE("other packets are handled while a taker finishes a message") {
    client c(v5);
    c.is_busy = true;
    CHECK(c.feed_packet(big("payload", qos::at_least_once)) == errc::ok);
    CHECK(c.feed_packet(publish{.topic = "small", .payload = "1"}) == errc::ok);
    CHECK(c.messages.size() == 1);
    CHECK(c.sent() == "");
    c.finish();
    CHECK(c.sent() == "PUBACK 1");
}

TEST_CASE("a message whose connection was lost in the middle comes again as a new one") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once})
        for (auto const version : {v3, v5}) {
            client c(version);
            auto const packet = test::encoded(big("some payload", quality), version);
            CHECK(c.feed(packet.substr(0, packet.size() - 3)) == errc::ok);
            c.state.connection_lost();
            c.input.clear();
            c.payload.clear();
            auto const token = c.pieces.abort();
            REQUIRE(token);
            auto const mark = c.pieces.mark();
            c.state.give_back(*token, &mark);
            c.pieces.finish();
            c.connect(true);
            c.take_bytes();
            CHECK(c.feed_packet(big("some payload", quality, 1, true)) == errc::ok);
            CHECK(c.taken == texts{"big/1=some payload"});
            CHECK(c.sent() == (quality == qos::at_least_once ? "PUBACK 1" : "PUBREC 1"));
        }
}

TEST_CASE("a repetition of a message that has been taken is passed over, and answered") {
    client c(v5);
    CHECK(c.feed_packet(big("some payload", qos::exactly_once)) == errc::ok);
    CHECK(c.sent() == "PUBREC 1");
    auto const again = test::encoded(big("some payload", qos::exactly_once, 1, true), v5);
    CHECK(c.feed(again.substr(0, 15)) == errc::ok);
    CHECK(c.feed(again.substr(15)) == errc::ok);
    CHECK(c.sent() == "PUBREC 1");
    CHECK(c.taken.size() == 1);
    CHECK(c.input.empty());
    CHECK(c.feed_packet(test::ack(packet_type::pubrel, 1)) == errc::ok);
    CHECK(c.sent() == "PUBCOMP 1");

    // Of QoS 1, while the application has it: told from another message by its size.
    c.acknowledges = false;
    CHECK(c.feed_packet(big("some payload", qos::at_least_once, 2)) == errc::ok);
    CHECK(c.feed_packet(big("some payload", qos::at_least_once, 2, true)) == errc::ok);
    CHECK(c.taken.size() == 2);
    CHECK(c.feed_packet(big("another payload", qos::at_least_once, 2, true)) == errc::ok);
    CHECK(c.taken.size() == 3);
}

TEST_CASE("limits hold for messages in pieces: the packet's size, the receive maximum, and what may be in hand") {
    client small(v5, {.maximum_packet_size = 1000});
    auto const too_large = test::encoded(big(std::string(1000, 'x'), qos::at_most_once), v5);
    CHECK(small.feed(too_large.substr(0, 20)) == errc::packet_too_large);

    client one(v5, {.receive_maximum = 1});
    one.acknowledges = false;
    CHECK(one.feed_packet(big("1", qos::at_least_once, 1)) == errc::ok);
    CHECK(one.feed_packet(big("2", qos::at_least_once, 2)) == errc::receive_maximum_exceeded);

    // MQTT 3.1.1: left out while this end waits for an answer, without the payload being taken for packets.
    client full(v3, {}, {.not_taken = 1});
    full.acknowledges = false;
    CHECK(full.publish("t", qos::at_least_once).error == errc::ok);
    CHECK(full.feed_packet(big("1", qos::at_least_once, 1)) == errc::ok);
    auto const left_out = test::encoded(big(std::string("\x30\x05\x00\x01t12", 7), qos::at_least_once, 2), v3);
    CHECK(full.feed(left_out.substr(0, 14)) == errc::ok);
    CHECK(full.feed(left_out.substr(14)) == errc::ok);
    CHECK(full.messages.empty());
    CHECK(full.taken.size() == 1);
}

TEST_CASE("topic aliases are resolved, and given, by messages in pieces") {
    client c(v5, {.topic_alias_maximum = 2});
    properties props;
    props.topic_alias = std::uint16_t{2};
    auto message = big("1", qos::at_most_once);
    message.props = &props;
    CHECK(c.feed_packet(message) == errc::ok);
    message.topic = {};
    message.payload = "2";
    auto const packet = test::encoded(message, v5);
    for (char const byte : packet) CHECK(c.feed({&byte, 1}) == errc::ok);
    CHECK(c.taken == texts{"big/1=1", "big/1=2"});
    props.topic_alias = std::uint16_t{1};
    CHECK(c.feed_packet(message) == errc::topic_alias_unknown);
}

TEST_CASE("what is wrong with the head of a message is found before its payload has come") {
    auto const start_of = [](std::string_view body) { return test::hex("32 FF FF 7F") + std::string(body); };
    client zero(v3);
    CHECK(zero.feed(start_of(test::field("big/1") + test::hex("00 00"))) == errc::packet_identifier_zero);
    client wildcard(v3);
    CHECK(wildcard.feed(start_of(test::field("big/#") + test::hex("00 01"))) == errc::wildcard_in_topic_name);
    client property(v5);
    CHECK(property.feed(start_of(test::field("big/1") + test::hex("00 01 02 7F 00"))) == errc::unknown_property);
    client early(v3);
    early.state.connection_lost();
    early.out.clear();
    early.state.connect(early.out, {.client_id = "c"}, {});
    CHECK(early.feed(test::encoded(big("1", qos::at_most_once), v3)) == errc::packet_before_connack);
    client quality(v5, {.maximum_qos = qos::at_most_once});
    CHECK(quality.feed(start_of(test::field("big/1") + test::hex("00 01 00"))) == errc::maximum_qos_exceeded);
    // A packet that is too short for its head.
    client truncated(v3);
    CHECK(truncated.feed(test::hex("32 03 00 05 'b'")) == errc::truncated_packet);
    client length(v5);
    CHECK(length.feed(test::packet(0x30, test::field("big/1") + test::hex("05 01"))) != errc::ok);
}

TEST_CASE("a message with a larger head than is kept comes whole") {
    client c(v5);
    std::string encoded;
    auto const pair = test::hex("26") + test::field("k") + test::field(std::string(60'000, 'v'));
    for (int i = 0; i < 3; ++i) encoded += pair;
    auto const packet = test::packet(0x30, test::field("big/1") + test::properties_field(encoded) + "payload");
    CHECK(c.feed(packet.substr(0, 1000)) == errc::ok);
    CHECK(c.feed(packet.substr(1000)) == errc::ok);
    CHECK(c.taken.empty());
    CHECK(c.messages.size() == 1);
}

TEST_CASE("a message that was not written ends, unless the peer may have it") {
    for (auto const quality : {qos::at_least_once, qos::exactly_once}) {
        client c(v3);
        CHECK(c.publish("t", quality, &c).error == errc::ok);
        c.take_bytes();
        CHECK(c.state.take_back_unsent(c.out, 1));
        CHECK(c.state.unacknowledged() == 0);
        CHECK_FALSE(c.state.holds_messages());
        CHECK(c.state.take_back_unsent(c.out, 1));
        CHECK(c.state.take_back_unsent(c.out, 77));
        CHECK(c.published.empty());

        CHECK(c.publish("t", quality, &c).error == errc::ok);
        c.state.connection_lost();
        c.connect(true);
        c.take_bytes();
        CHECK_FALSE(c.state.take_back_unsent(c.out, 2));
        CHECK(c.state.holds_messages());
    }
    // What has waited for the window is sent.
    client c(v3, {}, {.in_flight = 1});
    CHECK(c.publish("1", qos::at_least_once).error == errc::ok);
    CHECK(c.publish("2", qos::at_least_once).error == errc::ok);
    c.take_bytes();
    CHECK(c.state.take_back_unsent(c.out, 1));
    CHECK(c.sent() == "PUBLISH 2 qos1 2=p");
}
