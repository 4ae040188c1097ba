#include <runnel/mqtt/protocol/detail/outgoing.hpp>
#include <runnel/mqtt/protocol/piece_tickets.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include <string>

using namespace runnel;
using namespace runnel::mqtt;

namespace {

constexpr std::array<char, piece_tickets::secret_size> secret{'s', 'e', 'c', 'r', 'e', 't', '-', '1',
                                                              's', 'e', 'c', 'r', 'e', 't', '-', '2'};

std::string encoded(publish const& message, protocol_version version) {
    std::string packet(encoded_size(message, version), '\0');
    encode(packet.data(), message, version);
    return packet;
}

}  // namespace

TEST_CASE("a ticket is found among packets, by the secret that it begins with") {
    piece_tickets const tickets(secret);
    auto const ticket = tickets.make(0x0102'0304'0506'0708);
    std::string_view const text(ticket.data(), ticket.size());
    CHECK(text == std::string_view("secret-1secret-2\1\2\3\4\5\6\7\10", 24));
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        auto const with = encoded({.topic = "t", .payload = text, .qos = qos::at_least_once, .packet_id = 9}, version);
        auto const without = encoded({.topic = "t", .payload = "a payload that is longer than a ticket"}, version) +
                             test::hex("C0 00") + encoded({.topic = "t", .payload = "short"}, version);
        auto const all = without + with + without;
        auto const found = tickets.find(all);
        REQUIRE(found);
        CHECK(found->position == without.size());
        CHECK(found->packet == with);
        CHECK(found->number == 0x0102'0304'0506'0708);
        CHECK_FALSE(tickets.find(without));
        CHECK_FALSE(tickets.find({}));
        // One of another session.
        auto other = secret;
        other.back() = '3';
        CHECK_FALSE(piece_tickets(other).find(all));
        // Not a PUBLISH, and not at the end.
        CHECK_FALSE(tickets.find(test::packet(0x82, with.substr(2))));
        CHECK_FALSE(tickets.find(test::packet(0x30, with.substr(2) + "more")));
    }
}

TEST_CASE("the head of a packet says how long the payload is that takes the place of the ticket") {
    piece_tickets const tickets(secret);
    auto const ticket = tickets.make(1);
    properties props;
    props.content_type = "text";
    for (std::size_t const size : {0u, 1u, 100u, 127u, 20'000u, 3'000'000u}) {
        publish message{.topic = "some/topic",
                        .payload = {ticket.data(), ticket.size()},
                        .qos = qos::exactly_once,
                        .retain = true,
                        .dup = true,
                        .packet_id = 7,
                        .props = &props};
        auto const packet = encoded(message, protocol_version::v5);
        std::string const payload(size, 'x');
        message.payload = payload;
        auto const expected = encoded(message, protocol_version::v5);
        send_buffer out(10);
        out.append("before");
        piece_tickets::append_head(out, packet, size);
        out.append(payload);
        CHECK(out.view().substr(6) == expected);
        CHECK(piece_tickets::remaining_length(packet, size) == next_frame(expected).header.remaining_length);
        auto const head = piece_tickets::head_of(packet, protocol_version::v5);
        CHECK(head.packet_id == 7);
        CHECK_FALSE(piece_tickets::gives_alias(head));
    }
}

TEST_CASE("a packet that gives its topic an alias is told from one that uses it") {
    piece_tickets const tickets(secret);
    auto const ticket = tickets.make(1);
    properties props;
    props.topic_alias = std::uint16_t{1};
    publish message{.topic = "topic", .payload = {ticket.data(), ticket.size()}, .props = &props};
    auto packet = encoded(message, protocol_version::v5);
    CHECK(piece_tickets::gives_alias(piece_tickets::head_of(packet, protocol_version::v5)));
    message.topic = {};
    packet = encoded(message, protocol_version::v5);
    CHECK_FALSE(piece_tickets::gives_alias(piece_tickets::head_of(packet, protocol_version::v5)));
}
