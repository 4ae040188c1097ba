#pragma once

#include <runnel/mqtt/client/pieces.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/transport/asio_stream.hpp>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include "support/memory_sessions.hpp"
#include "support/packets.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace test {

/// A payload of any length that nobody has to keep: bytes that repeat themselves after a prime number of them.
class endless_payload {
  public:
    std::string_view at(std::uint64_t offset, std::size_t n) const {
        return std::string_view(repeated_).substr(static_cast<std::size_t>(offset % period), n);
    }

  private:
    static constexpr std::size_t period = 65521;
    std::string repeated_ = noise(period) + noise(period) + noise(period);
};

/// A server of one connection that answers a SUBSCRIBE with SUBACK and one large message of QoS 1, and a large message
/// with PUBACK, and keeps neither.
struct pieces_server {
    explicit pieces_server(asio::io_context& io) : acceptor(io, {asio::ip::address_v4::loopback(), 0}) {}

    std::uint16_t port() const { return acceptor.local_endpoint().port(); }

    /// `layer.open(stream)` makes of the connection what the client speaks.
    template <class Layer>
    asio::awaitable<void> serve(Layer layer) {
        auto accepting = acceptor.async_accept(asio::use_awaitable);
        auto socket = co_await std::move(accepting);
        using socket_type = asio::basic_stream_socket<asio::ip::tcp, executor>;
        auto opening = layer.open(runnel::asio_stream<socket_type>(std::move(socket)));
        auto s = co_await std::move(opening);
        auto conversing = converse(s);
        co_await std::move(conversing);
    }

    asio::ip::tcp::acceptor acceptor;
    endless_payload payload;
    std::uint64_t size = 0;        ///< of the message that it sends
    std::uint64_t received = 0;    ///< bytes of payload
    bool is_as_sent = true;        ///< they are those of `payload`
    std::size_t acknowledged = 0;  ///< PUBACKs received

  private:
    template <class Stream>
    asio::awaitable<void> converse(Stream& s) {
        std::string room(64 * 1024, '\0'), input;
        for (;;) {
            auto const f = runnel::mqtt::next_frame(input);
            bool const is_large = f.total_size != 0 && f.header.type == runnel::mqtt::packet_type::publish;
            if (f.status != runnel::mqtt::parse_status::complete && !(is_large && input.size() > 64)) {
                auto reading = s.read_some(asio::buffer(room));
                input.append(room, 0, co_await std::move(reading));
                continue;
            }
            std::string answer;
            switch (f.header.type) {
                case runnel::mqtt::packet_type::connect: answer = hex("20 02 00 00"); break;
                case runnel::mqtt::packet_type::subscribe: {
                    auto writing = write_text(s, packet(0x90, std::string(f.body.substr(0, 2)) + "\2"));
                    co_await std::move(writing);
                    input.erase(0, f.total_size);
                    auto sending = send(s);
                    co_await std::move(sending);
                    continue;
                }
                case runnel::mqtt::packet_type::publish: {
                    auto taking = take(s, f.header, std::move(input), room);
                    input = co_await std::move(taking);
                    answer = hex("40 02") + identifier;
                    break;
                }
                case runnel::mqtt::packet_type::puback: ++acknowledged; break;
                case runnel::mqtt::packet_type::pingreq: answer = hex("D0 00"); break;
                default: co_return;
            }
            if (f.header.type != runnel::mqtt::packet_type::publish) input.erase(0, f.total_size);
            if (answer.empty()) continue;
            auto writing = write_text(s, answer);
            co_await std::move(writing);
        }
    }

    template <class Stream>
    asio::awaitable<void> send(Stream& s) {
        runnel::send_buffer out(Stream::headroom);
        auto const head = field("large/in") + hex("00 07");
        char header[5];
        char* const end = runnel::mqtt::write_fixed_header(header, runnel::mqtt::packet_type::publish, 2,
                                                           static_cast<std::size_t>(head.size() + size));
        out.append({header, static_cast<std::size_t>(end - header)});
        out.append(head);
        for (std::uint64_t sent = 0; sent != size;) {
            auto const n = static_cast<std::size_t>(std::min<std::uint64_t>(size - sent, 48 * 1024));
            out.append(payload.at(sent, n));
            sent += n;
            auto writing = s.write(out);
            co_await std::move(writing);
        }
    }

    // Returns what has come behind it.
    template <class Stream>
    asio::awaitable<std::string> take(Stream& s, runnel::mqtt::fixed_header header, std::string begin,
                                      std::string& room) {
        auto const topic = runnel::read_big_endian<std::uint16_t>(begin.data() + header.size);
        std::size_t const head = 2u + topic + 2u;
        identifier = begin.substr(header.size + head - 2, 2);
        std::uint64_t left = header.remaining_length - head;
        std::string rest = begin.substr(header.size + head);
        for (;;) {
            auto const n = static_cast<std::size_t>(std::min<std::uint64_t>(rest.size(), left));
            is_as_sent = is_as_sent && payload.at(received, n) == std::string_view(rest).substr(0, n);
            received += n;
            left -= n;
            rest.erase(0, n);
            if (left == 0) co_return rest;
            auto reading = s.read_some(asio::buffer(room));
            rest.assign(room, 0, co_await std::move(reading));
        }
    }

    std::string identifier;
};

/// Sends and receives one message of `size` bytes through such a server, as `layer` makes it, over `transport(port)`.
/// Returns the most bytes of memory that were held at a time, at both ends.
template <class Layer, class MakeTransport>
std::size_t exchange_pieces(Layer layer, MakeTransport transport, std::uint64_t size) {
    using namespace runnel::mqtt;
    using transport_type = with_pieces<decltype(transport(std::uint16_t{}))>;
    asio::io_context io;
    pieces_server server(io);
    server.size = size;
    task<void> serving(io, server.serve(layer));
    session_options o = quick();
    o.maximum_packet_size = max_variable_integer + 5;
    session s(io.get_executor(), transport_type{transport(server.port())}, o);
    task<void> running(io, s.run());
    run(io, s.connected());

    struct source_type {
        endless_payload const& payload;
        std::uint64_t bytes;
        std::uint64_t size() const { return bytes; }
        std::size_t read(std::uint64_t offset, std::span<char> into) {
            std::memcpy(into.data(), payload.at(offset, into.size()).data(), into.size());
            return into.size();
        }
    } source{server.payload, size};
    struct handler_type {
        endless_payload const& payload;
        std::uint64_t received = 0;
        bool is_as_sent = true, is_whole = false;
        void begin(publish const&, std::uint64_t) {}
        void piece(std::string_view bytes) {
            is_as_sent = is_as_sent && payload.at(received, bytes.size()) == bytes;
            received += bytes.size();
        }
        void end() { is_whole = true; }
        void aborted(std::error_code) noexcept {}
    } handler{server.payload};

    runnel::testing::memory_watch const memory;
    std::uint64_t told = 0;
    bool goes_up = true;
    auto const progress = [&](std::uint64_t taken, std::uint64_t) {
        goes_up = goes_up && taken > told;
        told = taken;
    };
    auto const result = run(io, publish_pieces(s, "large/out", source, {.qos = qos::at_least_once}, progress));
    CHECK(result.what == publish_result::outcome::acknowledged);
    CHECK(server.received == size);
    CHECK(server.is_as_sent);
    CHECK(goes_up);
    CHECK(told == size);

    auto const sub = run(io, s.subscribe("large/#"));
    task<void> taking(io, receive_pieces(s, sub, handler));
    REQUIRE(wait_until(io, [&] { return server.acknowledged == 1; }, std::chrono::seconds(60)));
    CHECK(handler.is_whole);
    CHECK(handler.received == size);
    CHECK(handler.is_as_sent);
    CHECK(s.counters().connections == 1);
    return memory.peak();
}

}  // namespace test
