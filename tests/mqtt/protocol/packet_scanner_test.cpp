#include <runnel/mqtt/protocol/packet_scanner.hpp>

#include <doctest/doctest.h>

#include "support/packets.hpp"
#include "support/random_packets.hpp"
#include "support/random_source.hpp"
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

using namespace runnel::mqtt;

namespace {

using seen = std::tuple<unsigned, std::size_t, std::string, bool>;

auto note(std::vector<seen>& to) {
    return [&to](scanned_packet const& p) {
        to.emplace_back(static_cast<unsigned>(p.header.type) << 4 | p.header.flags, p.size(), p.body, p.is_whole);
    };
}

// What is found in `bytes`, which come in pieces of `piece`.
std::vector<seen> scan(std::string_view bytes, std::size_t piece, std::size_t kept) {
    packet_scanner scanner(kept);
    std::vector<seen> all;
    for (; !bytes.empty(); bytes.remove_prefix((std::min)(piece, bytes.size())))
        scanner.feed(bytes.substr(0, piece), note(all));
    CHECK(scanner.error() == errc::ok);
    CHECK(!scanner.is_within_packet());
    return all;
}

}  // namespace

TEST_CASE("packets are found however their bytes come") {
    std::string const flow = test::hex("C0 00") + test::packet(0x30, test::field("t") + std::string(300, 'x')) +
                             test::hex("D0 00 E0 00") + test::packet(0x32, test::field("topic") + "\0\1payload");
    auto const whole = scan(flow, flow.size(), 1000);
    REQUIRE(whole.size() == 5);
    CHECK(std::get<0>(whole[0]) == 0xC0);
    CHECK(std::get<1>(whole[1]) == 3 + 3 + 300);
    CHECK(std::get<2>(whole[1]).size() == 303);
    for (std::size_t piece = 1; piece < flow.size(); ++piece) CHECK(scan(flow, piece, 1000) == whole);
    for (std::size_t at = 0; at <= flow.size(); ++at) {  // two pieces
        packet_scanner scanner(1000);
        std::vector<seen> all;
        scanner.feed(flow.substr(0, at), note(all));
        scanner.feed({}, note(all));
        scanner.feed(flow.substr(at), note(all));
        CHECK(all == whole);
    }
}

TEST_CASE("random packets of both versions are found as they were encoded") {
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5}) {
        test::random_source random(static_cast<std::uint32_t>(version));
        test::random_packets packets(random, version);
        std::string flow;
        std::vector<std::size_t> sizes;
        for (int i = 0; i < 300; ++i)
            packets.next([&](auto const& p) {
                sizes.push_back(encoded_size(p, version));
                std::string bytes(sizes.back(), '\0');
                encode(bytes.data(), p, version);
                flow += bytes;
            });
        for (std::size_t const piece : {1u, 2u, 3u, 7u, 1000u, 1000'000'000u}) {
            auto const all = scan(flow, piece, 100'000);
            REQUIRE(all.size() == sizes.size());
            for (std::size_t i = 0; i < all.size(); ++i) CHECK(std::get<1>(all[i]) == sizes[i]);
            CHECK(all == scan(flow, flow.size(), 0));
        }
    }
}

TEST_CASE("of a packet that comes in pieces no more is kept than was asked for") {
    std::string const flow = test::packet(0x30, test::field("t") + std::string(300, 'x')) + test::hex("C0 00");
    for (std::size_t const kept : {0u, 1u, 10u, 302u, 303u}) {
        auto const all = scan(flow, 100, kept);
        REQUIRE(all.size() == 2);
        CHECK(std::get<1>(all[0]) == 306);
        CHECK(std::get<2>(all[0]) == flow.substr(3, kept));
        CHECK(std::get<3>(all[0]) == (kept == 303));
    }
}

TEST_CASE("a message of 256 MiB is only counted") {
    packet_scanner scanner(16);
    std::vector<seen> all;
    scanner.feed(test::hex("30 FF FF FF 7F 00 01 't'"), note(all));
    std::string const piece(1 << 20, 'x');
    std::size_t left = max_variable_integer - 3;
    for (; left > 0; left -= (std::min)(left, piece.size())) {
        CHECK(all.empty());
        CHECK(scanner.is_within_packet());
        scanner.feed(std::string_view(piece).substr(0, left), note(all));
    }
    scanner.feed(test::hex("C0 00"), note(all));
    REQUIRE(all.size() == 2);
    CHECK(std::get<1>(all[0]) == max_variable_integer + std::size_t{5});
    CHECK(std::get<2>(all[0]).size() == 16);
    CHECK(!std::get<3>(all[0]));
}

TEST_CASE("behind what is no packet all is counted, however it comes") {
    for (auto const& [bytes, error] : {std::pair(test::hex("00 00 01 02"), errc::unknown_packet_type),
                                       std::pair(test::hex("C1 00 01 02"), errc::invalid_header_flags),
                                       std::pair(test::hex("30 80 00 02"), errc::variable_integer_not_minimal),
                                       std::pair(test::hex("30 FF FF FF FF 01"), errc::variable_integer_too_long)}) {
        std::string const flow = test::hex("C0 00") + bytes + test::hex("C0 00 C0 00");
        for (std::size_t piece = 1; piece <= flow.size(); ++piece) {
            packet_scanner scanner(10);
            std::vector<seen> all;
            for (std::size_t at = 0; at < flow.size(); at += piece) scanner.feed(flow.substr(at, piece), note(all));
            CHECK(all.size() == 1);
            CHECK(scanner.error() == error);
            CHECK(!scanner.is_within_packet());
            CHECK(scanner.unread() > 0);
            CHECK(scanner.unread() < flow.size() - 2);
        }
    }
}

TEST_CASE("behind an exception all is counted, and nothing is told any more") {
    packet_scanner scanner(10);
    int calls = 0;
    auto const fail = [&](scanned_packet const&) {
        ++calls;
        throw std::runtime_error("of the user's");
    };
    CHECK_THROWS(scanner.feed(test::hex("C0 00 C0 00"), fail));
    scanner.feed(test::hex("C0 00"), fail);
    scanner.feed(test::hex("C0 00"), fail);
    CHECK(calls == 1);
    CHECK(scanner.unread() == 4);
}
