#pragma once

#include <runnel/mqtt/codec/types.hpp>
#include <runnel/transport/memory.hpp>

#include <asio/buffer.hpp>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test {

/// A packet as a peer sees it.
struct heard_packet {
    std::size_t connection = 0;  ///< 0 for the first
    runnel::mqtt::packet_type type{};
    std::string body;  ///< behind the fixed header

    /// The packet identifier of all but PUBLISH.
    std::string identifier() const { return body.substr(0, 2); }
};

/// A server that answers each packet with what the test says.
struct scripted_peer {
    /// Bytes to send; nothing: the connection is closed.
    std::function<std::optional<std::string>(heard_packet const&)> answer;
    bool closes_behind = false;  ///< the connection is closed behind the answer that is being made
    std::vector<heard_packet> heard;
    std::size_t connections = 0;
    asio::io_context io;
    std::vector<std::unique_ptr<task<void>>> serving;
    runnel::memory_transport transport{[this](runnel::memory_stream<> s) { accept(std::move(s)); }};

    explicit scripted_peer(std::function<std::optional<std::string>(heard_packet const&)> script)
        : answer(std::move(script)) {}

    /// Serves a connection.
    void accept(runnel::memory_stream<> s) {
        serving.push_back(std::make_unique<task<void>>(io, serve(std::move(s), connections++)));
    }

    /// How many packets of a type it has heard.
    std::size_t count(runnel::mqtt::packet_type type) const {
        std::size_t n = 0;
        for (auto const& p : heard) n += p.type == type;
        return n;
    }

  private:
    // The first packet of `bytes`, if it is whole.
    static std::optional<heard_packet> take(std::string& bytes, std::size_t connection) {
        std::size_t length = 0, at = 1;
        for (unsigned shift = 0;; shift += 7) {
            if (at >= bytes.size()) return std::nullopt;
            auto const digit = static_cast<unsigned char>(bytes[at++]);
            length |= static_cast<std::size_t>(digit & 0x7F) << shift;
            if ((digit & 0x80) == 0) break;
        }
        if (bytes.size() < at + length) return std::nullopt;
        heard_packet p{connection, static_cast<runnel::mqtt::packet_type>(static_cast<unsigned char>(bytes[0]) >> 4),
                       bytes.substr(at, length)};
        bytes.erase(0, at + length);
        return p;
    }

    asio::awaitable<void> serve(runnel::memory_stream<> s, std::size_t connection) {
        std::string room(64 * 1024, '\0'), bytes;
        for (;;) {
            std::size_t const n = co_await s.read_some(asio::buffer(room));
            bytes.append(room, 0, n);
            while (auto p = take(bytes, connection)) {
                heard.push_back(*p);
                auto const said = answer(*p);
                if (!said) {
                    co_await s.shutdown();
                    co_return;
                }
                if (said->empty()) continue;
                bool const closes = std::exchange(closes_behind, false);
                auto answering = write_text(s, *said);
                co_await std::move(answering);
                if (closes) {
                    co_await s.shutdown();
                    co_return;
                }
            }
        }
    }
};

}  // namespace test
