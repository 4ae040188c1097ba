#include <runnel/mqtt/protocol/incoming_pieces.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <memory>
#include <string>
#include <vector>

using namespace runnel;
using namespace runnel::mqtt;
using state = incoming_pieces::state;

namespace {

fixed_header header_of(std::string_view packet) { return next_frame(packet).header; }

int taker_a, taker_b;

publish message(std::string_view topic, qos quality = qos::at_most_once) {
    return {.topic = topic, .qos = quality, .packet_id = std::uint16_t{quality != qos::at_most_once}};
}

}  // namespace

TEST_CASE("the head of a PUBLISH is as long as its bytes say, as soon as they are there") {
    auto const v5 = protocol_version::v5;
    auto const v3 = protocol_version::v3_1_1;
    auto const with_properties =
        test::field("a/b") + test::hex("00 07") + test::properties_field(std::string(200, 'x'));
    auto const packet = test::packet(0x32, with_properties + "payload");
    std::size_t const known_at = 5 + 2 + 2;  // with the second byte of the properties' length
    for (std::size_t n = 0; n <= with_properties.size(); ++n) {
        auto const size = publish_head_size(header_of(packet), std::string_view(with_properties).substr(0, n), v5);
        CHECK(size.has_value() == (n >= known_at));
        if (size) CHECK(*size == with_properties.size());
    }
    auto const plain = test::field("a/b");
    CHECK(publish_head_size(header_of(test::packet(0x30, plain)), "\0", v3) == std::nullopt);
    CHECK(publish_head_size(header_of(test::packet(0x30, plain)), plain, v3) == 5u);
    CHECK(publish_head_size(header_of(test::packet(0x34, plain)), plain, v3) == 7u);
    CHECK(publish_head_size(header_of(test::packet(0x30, plain)), plain, v5) == std::nullopt);
    // A length that is none: decoding is to tell.
    auto const wrong = plain + test::hex("FF FF FF FF");
    CHECK(publish_head_size(header_of(test::packet(0x30, wrong)), wrong, v5) == 5u);
}

TEST_CASE("messages are for the first taker whose filter matches, under all names that filters have") {
    incoming_pieces p;
    CHECK_FALSE(p.is_wanted());
    p.add(&taker_a, {"a/#", "$share/group/c/+"});
    p.add(&taker_b, {"+/b", "$exclusive/d"});
    CHECK(p.is_wanted());
    CHECK(p.find("a/b") == &taker_a);
    CHECK(p.find("x/b") == &taker_b);
    CHECK(p.find("c/1") == &taker_a);
    CHECK(p.find("d") == &taker_b);
    CHECK(p.find("e") == nullptr);
    CHECK_FALSE(p.remove(&taker_a));
    CHECK(p.find("a/b") == &taker_b);
    CHECK_FALSE(p.remove(&taker_b));
    CHECK_FALSE(p.is_wanted());
}

TEST_CASE("a payload comes as pieces of bounded size, and nothing more is taken in before they are taken") {
    incoming_pieces p;
    p.add(&taker_a, {"#"});
    std::string const topic = "t", payload(2 * incoming_pieces::piece_size + 7, 'x');
    {
        std::string const passing = topic;
        p.begin(&taker_a, message(passing), payload.size(), {});
    }
    CHECK(p.current() == state::coming);
    CHECK(p.is_for(&taker_a));
    CHECK_FALSE(p.is_for(&taker_b));
    CHECK(p.head().topic == "t");
    CHECK(p.size() == payload.size());
    CHECK(p.in_payload());
    CHECK_FALSE(p.has_piece());

    auto const more = payload + "next";
    CHECK(p.feed(more) == incoming_pieces::piece_size);
    CHECK(p.is_held());
    CHECK(p.feed(more) == 0);
    std::string piece;
    p.take(piece);
    CHECK(piece.size() == incoming_pieces::piece_size);
    CHECK_FALSE(p.is_held());
    CHECK_FALSE(p.has_piece());
    CHECK(p.feed("abc") == 3);
    CHECK(p.has_piece());
    CHECK_FALSE(p.is_held());
    CHECK(p.feed(more) == incoming_pieces::piece_size - 3);
    p.take(piece);
    CHECK(piece.substr(0, 4) == "abcx");
    CHECK(p.feed("1234567next") == 7);
    CHECK(p.current() == state::whole);
    CHECK_FALSE(p.in_payload());
    CHECK_FALSE(p.is_held());  // the last piece waits, and packets may come
    CHECK(p.is_busy());
    p.take(piece);
    CHECK(piece == "1234567");
    p.hold();  // for the next message
    p.finish();
    CHECK_FALSE(p.is_held());
    p.begin(&taker_a, message("another"), 1, {});
    CHECK(p.head().topic == "another");
    p.finish();
    CHECK(p.current() == state::idle);
    CHECK(p.current_taker() == nullptr);
}

TEST_CASE("a payload of exactly one piece is whole, and holds nothing up") {
    incoming_pieces p;
    p.add(&taker_a, {"#"});
    p.begin(&taker_a, message("t"), incoming_pieces::piece_size, {});
    CHECK(p.feed(std::string(incoming_pieces::piece_size + 1, 'x')) == incoming_pieces::piece_size);
    CHECK(p.current() == state::whole);
    CHECK_FALSE(p.is_held());
    p.finish();
    p.begin(&taker_a, message("t"), 0, {});
    CHECK(p.current() == state::whole);
    CHECK_FALSE(p.in_payload());
    CHECK_FALSE(p.has_piece());
}

TEST_CASE("a message whose connection goes in the middle is aborted, one that is whole is not") {
    incoming_pieces p;
    p.add(&taker_a, {"#"});
    CHECK_FALSE(p.abort());
    delivery const token{7, 1, qos::at_least_once};
    p.begin(&taker_a, message("t", qos::at_least_once), 10, token);
    p.feed("12345");
    p.hold();
    auto const aborted = p.abort();
    REQUIRE(aborted);
    CHECK(aborted->number == 7);
    CHECK(p.current() == state::aborted);
    CHECK_FALSE(p.is_held());
    CHECK_FALSE(p.has_piece());
    CHECK_FALSE(p.in_payload());
    CHECK(p.is_for(&taker_a));
    CHECK_FALSE(p.abort());
    CHECK_FALSE(p.remove(&taker_a));  // has been given back
    CHECK_FALSE(p.is_busy());

    p.add(&taker_a, {"#"});
    p.begin(&taker_a, message("t", qos::at_least_once), 2, token);
    p.feed("12");
    CHECK_FALSE(p.abort());
    CHECK(p.current() == state::whole);
    REQUIRE(p.remove(&taker_a));  // is given back
}

TEST_CASE("what a taker leaves in the middle is passed over, as is what nobody wants") {
    incoming_pieces p;
    p.add(&taker_a, {"#"});
    p.begin(&taker_a, message("t"), 10, {});
    CHECK(p.feed("1234") == 4);
    CHECK(p.remove(&taker_a));
    CHECK(p.in_payload());
    CHECK_FALSE(p.is_busy());
    CHECK(p.feed("567") == 3);
    CHECK(p.feed("890next") == 3);
    CHECK_FALSE(p.in_payload());

    p.add(&taker_b, {"#"});
    p.begin(&taker_b, message("t"), 1, {});
    p.feed("1");
    p.skip(5);  // a repetition, while the taker is not finished
    CHECK(p.in_payload());
    CHECK(p.feed("12345678") == 5);
    CHECK(p.current() == state::whole);
    CHECK(p.has_piece());
    p.skip(5);
    CHECK_FALSE(p.abort());
    CHECK_FALSE(p.in_payload());  // of the connection that has gone
    CHECK_FALSE(p.remove(&taker_a));
    CHECK(p.is_for(&taker_b));
}

TEST_CASE("a head that is shared stays as it is when the next message comes, and when all goes") {
    auto p = std::make_unique<incoming_pieces>();
    p->add(&taker_a, {"#"});
    p->begin(&taker_a, message("first"), 10, {});
    auto const first = p->share_head();
    CHECK(first.get() == &p->head());
    p->finish();
    p->begin(&taker_a, message("second"), 10, {});
    CHECK(first->topic == "first");
    CHECK(p->head().topic == "second");
    auto const second = p->share_head();
    p->finish();
    p->release();
    CHECK(second->topic == "second");
    p->begin(&taker_a, message("third"), 10, {});
    auto const third = p->share_head();
    p.reset();
    CHECK(third->topic == "third");
}

TEST_CASE("the head of a message is kept, with its properties, and its mark has the size") {
    incoming_pieces p;
    p.add(&taker_a, {"#"});
    std::string const encoded = test::hex("03 00 01 't' 26 00 01 'k' 00 01 'v'");
    {
        auto const passing = test::packet(0x30, test::field("topic") + test::properties_field(encoded));
        mqtt::publish m;
        frame const f = next_frame(passing);
        REQUIRE(decode(f.header, f.body, protocol_version::v5, m) == errc::ok);
        p.begin(&taker_a, m, 258, {});
    }
    CHECK(p.head().topic == "topic");
    CHECK(p.head().props.get<property_id::content_type>() == "t");
    CHECK(p.head().payload.empty());
    CHECK(p.mark().payload == std::string_view("\0\0\0\0\0\0\1\2", 8));
    CHECK(p.mark().topic == "topic");
}
