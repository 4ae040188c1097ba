#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/transport/tcp.hpp>

#include <doctest/doctest.h>

#include "interop/mosquitto.hpp"
#include "support/pieces_server.hpp"

// A large message through a real broker, in pieces at both ends.

namespace {

using namespace runnel::mqtt;
using session_type = session<with_pieces<runnel::tcp>>;

struct source {
    test::endless_payload const& payload;
    std::uint64_t bytes;
    std::uint64_t size() const { return bytes; }
    std::size_t read(std::uint64_t offset, std::span<char> into) const {
        std::memcpy(into.data(), payload.at(offset, into.size()).data(), into.size());
        return into.size();
    }
};

struct checker {
    test::endless_payload const& payload;
    std::uint64_t received = 0;
    std::size_t whole = 0;
    bool is_as_sent = true;
    void begin(publish const&, std::uint64_t) { received = 0; }
    void piece(std::string_view bytes) {
        is_as_sent = is_as_sent && payload.at(received, bytes.size()) == bytes;
        received += bytes.size();
    }
    void end() { ++whole; }
    void aborted(std::error_code) noexcept { is_as_sent = false; }
};

}  // namespace

TEST_CASE("a large message goes through mosquitto in pieces, with each QoS and version") {
    test::mosquitto broker;
    test::endless_payload const payload;
    constexpr std::uint64_t size = 20 * 1024 * 1024 + 3;
    for (auto const version : {protocol_version::v3_1_1, protocol_version::v5})
        for (auto const quality : {qos::at_most_once, qos::at_least_once, qos::exactly_once}) {
            asio::io_context io;
            auto o = test::quick("pieces", version);
            o.clean_start = true;
            o.maximum_packet_size = max_variable_integer + 5;
            session_type s(io.get_executor(), {{.host = "127.0.0.1", .port = broker.port_tcp()}}, o);
            test::task<void> running(io, s.run());
            auto const sub = test::run(io, s.subscribe("large/#"));
            checker got{payload};
            test::task<void> taking(io, receive_pieces(s, sub, got));
            source from{payload, size};
            test::run(io, publish_pieces(s, "large/1", from, {.qos = quality}));
            REQUIRE(test::wait_until(io, [&] { return got.whole == 1; }, std::chrono::seconds(30)));
            CHECK(got.received == size);
            CHECK(got.is_as_sent);
            // The connection is as good as before.
            test::run(io, s.publish("large/2", "", {.qos = qos::exactly_once}));
            REQUIRE(test::wait_until(io, [&] { return got.whole == 2; }));
            CHECK(s.counters().connections == 1);
            test::run(io, s.disconnect());
            CHECK_FALSE(running.run_for_error());
        }
}
