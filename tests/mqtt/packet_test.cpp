#include <runnel/mqtt/packet.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/any_packet.hpp"
#include "support/packets.hpp"
#include "support/random_packets.hpp"
#include "support/random_source.hpp"
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

using namespace runnel::mqtt;
using test::hex;

namespace {

constexpr auto v3 = protocol_version::v3_1_1;
constexpr auto v5 = protocol_version::v5;

struct golden_packet {
    protocol_version version;
    std::string bytes;
};

golden_packet golden(protocol_version version, unsigned char first, std::string_view body) {
    return {version, test::packet(first, hex(body))};
}

golden_packet golden(unsigned char first, std::string_view before, std::string_view properties,
                     std::string_view behind) {
    return {v5, test::packet(first, hex(before) + test::properties_field(hex(properties)) + hex(behind))};
}

// One or more packets of each type and version, with every property.
std::vector<golden_packet> golden_packets() {
    return {
        golden(v3, 0x10, "0004 'MQTT' 04 02 003C 0000"),
        golden(v3, 0x10, "0004 'MQTT' 04 EE 000A 0006 'client' 0001 'w' 0003 'bye' 0004 'user' 0003 010203"),
        golden(v3, 0x20, "01 00"),
        golden(v3, 0x30, "0003 'a/b' 'hello'"),
        golden(v3, 0x3D, "0003 'a/b' 1234 'hi'"),
        golden(v3, 0x40, "1234"),
        golden(v3, 0x50, "1234"),
        golden(v3, 0x62, "1234"),
        golden(v3, 0x70, "1234"),
        golden(v3, 0x82, "000A 0003 'a/b' 01 0003 'c/d' 02"),
        golden(v3, 0x90, "000A 02 80"),
        golden(v3, 0xA2, "000A 0003 'a/b' 0003 'c/d'"),
        golden(v3, 0xB0, "000A"),
        golden(v3, 0xC0, ""),
        golden(v3, 0xD0, ""),
        golden(v3, 0xE0, ""),
        golden(0x10, "0004 'MQTT' 05 02 003C", "11 0000000A", "0000"),
        {v5,
         test::packet(0x10, hex("0004 'MQTT' 05 EE 000A") +
                                test::properties_field(hex("11 0000000A 15 0001 'm' 16 0002 FFFE 17 00 19 01 21 0014 "
                                                           "22 000A 26 0001 'a' 0001 'b' 27 00010000")) +
                                hex("0006 'client'") +
                                test::properties_field(hex("01 01 02 00000007 03 0001 't' 08 0001 'r' 09 0001 FF "
                                                           "18 00000005 26 0001 'a' 0000")) +
                                hex("0001 'w' 0003 'bye' 0004 'user' 0003 010203"))},
        golden(0x20, "00 00",
               "11 0000000A 12 0001 'x' 13 0014 15 0001 'm' 16 0001 00 1A 0001 'r' 1C 0001 's' 1F 0002 'ok' 21 0001 22 "
               "FFFF "
               "24 01 25 00 26 0001 'a' 0001 'b' 27 00000001 28 01 29 01 2A 00",
               ""),
        golden(0x30, "0003 'a/b'", "", "'hello'"),
        golden(0x34, "0003 'a/b' 1234",
               "01 01 02 0000000A 03 0001 't' 08 0001 'r' 09 0002 00FF 0B 05 0B 8001 23 0001 26 0001 'a' 0001 'b' "
               "26 0001 'a' 0001 'c'",
               "'hello'"),
        golden(0x30, "0000", "23 0001", "'hello'"),
        golden(v5, 0x40, "1234"),
        golden(v5, 0x50, "1234 10"),
        golden(v5, 0x62, "1234 92"),
        golden(0x70, "1234 00", "1F 0004 'text' 26 0000 0000", ""),
        golden(0x82, "000A", "0B 05", "0003 'a/b' 2D 0001 '#' 01 000A '$share/g/a' 10"),
        golden(0x90, "000A", "1F 0001 'r'", "02 80 97"),
        golden(0xA2, "000A", "26 0000 0001 'b'", "0002 '+/'"),
        golden(0xB0, "000A", "", "00 11"),
        golden(v5, 0xE0, ""),
        golden(v5, 0xE0, "8E"),
        golden(0xE0, "9C", "11 00000000 1C 0006 'server' 1F 0001 'r'", ""),
        golden(v5, 0xF0, ""),
        golden(0xF0, "18", "15 0001 'm' 16 0002 0102 1F 0001 'r'", ""),
    };
}

// The packet with a length that is right for as many bytes as there are.
std::string with_right_length(std::string bytes) {
    bytes[1] = static_cast<char>(bytes.size() - 2);
    return bytes;
}

}  // namespace

TEST_CASE("each golden packet is decoded, can be sent, and is encoded to the same bytes") {
    for (auto const& [version, bytes] : golden_packets()) {
        CAPTURE(bytes);
        auto const next = next_frame(bytes);
        REQUIRE(next.status == parse_status::complete);
        std::string again;
        errc const error = test::decode_any(next, version, [&](auto const& packet) {
            CHECK(check(packet, version) == errc::ok);
            again = test::encoded(packet, version);
        });
        CHECK(error == errc::ok);
        CHECK(again == bytes);
    }
}

TEST_CASE("every prefix of every golden packet needs more") {
    for (auto const& [version, bytes] : golden_packets()) {
        for (std::size_t size = 0; size < bytes.size(); ++size) {
            auto const next = next_frame(std::string_view(bytes).substr(0, size));
            CHECK(next.status == parse_status::need_more);
            CHECK(next.error == errc::ok);
        }
    }
}

TEST_CASE(
    "every golden packet that ends early, though its length says that it is complete, is refused or another packet") {
    for (auto const& [version, whole] : golden_packets()) {
        if (whole.size() > 129) continue;  // with a length of two bytes
        for (std::size_t size = 2; size < whole.size(); ++size) {
            // A copy on the heap, so that the sanitizer sees any read behind the end.
            auto const bytes = with_right_length(whole.substr(0, size));
            std::vector<char> const exact(bytes.begin(), bytes.end());
            auto const next = next_frame({exact.data(), exact.size()});
            REQUIRE(next.status == parse_status::complete);
            std::string again;
            if (test::decode_any(next, version, [&](auto const& packet) { again = test::encoded(packet, version); }) ==
                errc::ok)
                CHECK(again.size() <= bytes.size());
        }
    }
}

TEST_CASE("every golden packet with one bit flipped is refused, needs more, or is a packet that can be sent") {
    std::size_t accepted = 0, refused = 0, incomplete = 0;
    for (auto const& [version, bytes] : golden_packets()) {
        for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
            std::vector<char> flipped(bytes.begin(), bytes.end());
            flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
            auto const next = next_frame({flipped.data(), flipped.size()});
            if (next.status != parse_status::complete) {
                CHECK((next.status == parse_status::malformed) == (next.error != errc::ok));
                ++(next.status == parse_status::malformed ? refused : incomplete);
                continue;
            }
            errc const error = test::decode_any(next, version, [&](auto const& packet) {
                CAPTURE(bytes);
                CAPTURE(bit);
                CHECK(check(packet, version) == errc::ok);
                CHECK(test::encoded(packet, version).size() <= next.total_size);
            });
            ++(error == errc::ok ? accepted : refused);
        }
    }
    CHECK(accepted > 100);
    CHECK(refused > 100);
    CHECK(incomplete > 10);
}

TEST_CASE("random packets can be sent, and decoded are what they were; encoded again they have the same bytes") {
    for (auto version : {v3, v5}) {
        for (std::uint32_t seed = 1; seed <= 3'000; ++seed) {
            test::random_source random(seed);
            test::random_packets packets(random, version);
            CAPTURE(seed);
            packets.next([&]<class Packet>(Packet const& packet) {
                REQUIRE(check(packet, version) == errc::ok);
                auto const bytes = test::encoded(packet, version);
                test::decoded<Packet> const back(bytes, version);
                REQUIRE(back.error == errc::ok);
                CHECK(back.packet == packet);
                CHECK(check(back.packet, version) == errc::ok);
                // A decoded packet keeps the order of its properties, so it is the same to the byte.
                CHECK(test::encoded(back.packet, version) == bytes);
            });
        }
    }
}

TEST_CASE("random bytes behind a valid fixed header never crash or hang a decoder") {
    for (std::uint32_t seed = 1; seed <= 3'000; ++seed) {
        test::random_source random(seed);
        auto const version = random.one_in(2) ? v3 : v5;
        auto const body = random.bytes(60);
        auto const bytes = test::packet(random.between<unsigned char>(0x10, 0xFF), body);
        auto const next = next_frame(bytes);
        if (next.status != parse_status::complete) continue;
        CAPTURE(seed);
        test::decode_any(next, version, [&](auto const& packet) { CHECK(check(packet, version) == errc::ok); });
    }
}

TEST_CASE("encoding and decoding allocate nothing") {
    user_property const pairs[] = {{"region", "cn-shanghai"}, {"trace", "0af7651916cd43dd8448eb211c80319c"}};
    std::uint32_t const identifier = 7;
    properties const message{.content_type = "text/plain", .response_topic = "answers/1", .user_properties = pairs};
    properties const subscribing{.subscription_identifiers = identifier, .user_properties = pairs};
    subscription_request const requests[] = {{.filter = "a/+"}, {.filter = "$share/g/b/#"}};
    publish const publishing{.topic = "a/b", .payload = "payload", .props = &message};
    subscribe const subscribe_packet{.packet_id = 1, .requests = requests, .props = &subscribing};
    connect const connecting{.client_id = "client", .will = will{.topic = "w", .props = &message}, .user_name = "u"};
    char buffer[512];
    std::size_t faults = 0;
    auto const there_and_back = [&]<class Packet>(Packet const& packet) {
        if (check(packet, v5) != errc::ok) ++faults;
        char* const end = encode(buffer, packet, v5);
        auto const next = next_frame({buffer, static_cast<std::size_t>(end - buffer)});
        Packet back;
        if (decode(next.header, next.body, v5, back) != errc::ok) ++faults;
        if (back != packet) ++faults;
    };
    auto const before = runnel::testing::allocation_count();
    there_and_back(publishing);
    there_and_back(subscribe_packet);
    there_and_back(connecting);
    CHECK(runnel::testing::allocation_count() == before);
    CHECK(faults == 0);
}

TEST_CASE(
    "packets are trivially destructible aggregates, so that braces in a co_await expression are safe with g++ 12") {
    auto const fine = []<class... Packets>(Packets...) {
        return ((std::is_aggregate_v<Packets> && std::is_trivially_destructible_v<Packets>) && ...);
    };
    CHECK(fine(publish{}, connect{}, connack{}, subscribe{}, suback{}, unsubscribe{}, unsuback{}, acknowledgement{},
               disconnect{}, auth{}, pingreq{}, pingresp{}, will{}, subscription_request{}, properties{},
               user_property{}));
}
