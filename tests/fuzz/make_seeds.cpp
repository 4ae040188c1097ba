// Writes seeds for the fuzzers, made by the encoder:  make_seeds DIRECTORY
// One directory for each fuzzer is made inside.

#include <runnel/mqtt/packet.hpp>
#include <runnel/websocket/protocol/handshake.hpp>
#include <runnel/websocket/protocol/protocol.hpp>

#include "support/random_packets.hpp"
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

void write(std::filesystem::path const& file, std::string const& bytes) {
    std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void write_packets(std::filesystem::path const& directory, runnel::mqtt::protocol_version version) {
    std::filesystem::create_directories(directory);
    for (std::uint32_t seed = 1; seed <= 200; ++seed) {
        test::random_source random(seed);
        test::random_packets packets(random, version);
        std::string stream;
        for (std::size_t i = random.between(1, 3); i > 0; --i) {
            packets.next([&](auto const& packet) {
                std::string bytes(encoded_size(packet, version), '\0');
                encode(bytes.data(), packet, version);
                if (bytes.size() < 2'000) stream += bytes;
            });
        }
        write(directory / std::to_string(seed), stream);
    }
}

// Choices of which packets are made: as many of each version.
void write_choices(std::filesystem::path const& directory) {
    std::filesystem::create_directories(directory);
    for (std::uint32_t seed = 0; seed < 100; ++seed) {
        test::random_source random(seed);
        write(directory / std::to_string(seed), static_cast<char>(seed & 1) + random.bytes(400));
    }
}

// One for each setup of role, version and limits: a connection that is accepted, then anything.
void write_sessions(std::filesystem::path const& directory) {
    std::filesystem::create_directories(directory);
    for (std::uint32_t setup = 0; setup < 256; ++setup) {
        test::random_source random(setup);
        std::string const connected("\0\0\7\0\0", 5);  // connect, CONNACK
        write(directory / std::to_string(setup), static_cast<char>(setup) + connected + random.bytes(300));
    }
}

// Both roles, each with text, a ping inside a fragmented message, and the close handshake.
void write_websocket_frames(std::filesystem::path const& directory) {
    namespace websocket = runnel::websocket;
    std::filesystem::create_directories(directory);
    for (auto side : {websocket::role::client, websocket::role::server}) {
        websocket::protocol const sender({.side = side});
        runnel::send_buffer out;
        sender.append_frame(out, websocket::opcode::text, "gr\xC3\xBC\xC3\x9F");
        sender.append_frame(out, websocket::opcode::binary, "frag", false);
        sender.append_frame(out, websocket::opcode::ping, "?");
        sender.append_frame(out, websocket::opcode::continuation, std::string(130, 'm'));
        sender.append_frame(out, websocket::opcode::close, "\x03\xE8");
        bool const to_server = side == websocket::role::client;
        write(directory / (to_server ? "client" : "server"), (to_server ? "\x31" : "\x30") + std::string(out.view()));
    }
}

// The first byte says whether there are credentials.
void write_proxy_handshakes(std::filesystem::path const& directory) {
    using namespace std::string_literals;
    std::filesystem::create_directories(directory);
    write(directory / "connected", "\0HTTP/1.1 200 OK\r\nA: b\r\n\r\n"s);
    write(directory / "refused", "\1HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n"s);
    write(directory / "request", "\0CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YTpi\r\n\r\n"s);
    write(directory / "socks5_reply", "\0\5\0\5\0\0\1\1\2\3\4\0\1"s);
    write(directory / "socks5_request", "\1\5\2\0\2\1\1a\1b\5\1\0\3\1a\0\1"s);
    write(directory / "address", "\0::ffff:1.2.3.4"s);
}

void write_websocket_handshakes(std::filesystem::path const& directory) {
    namespace websocket = runnel::websocket;
    std::filesystem::create_directories(directory);
    websocket::handshake_key key{};
    std::string_view const known = "dGhlIHNhbXBsZSBub25jZQ==";
    known.copy(key.data(), key.size());
    std::string request;
    websocket::client_request const asked{
        .host = "broker.example", .subprotocols = "mqtt", .extensions = "permessage-deflate; client_max_window_bits"};
    websocket::encode(asked, key, request);
    write(directory / "request", request);
    std::string reply;
    websocket::encode_agreement(known, "mqtt", {}, {}, reply);
    write(directory / "reply", reply);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("usage: make_seeds DIRECTORY\n", stderr);
        return 2;
    }
    std::filesystem::path const root = argv[1];
    write_packets(root / "decode_3_1_1", runnel::mqtt::protocol_version::v3_1_1);
    write_packets(root / "decode_5", runnel::mqtt::protocol_version::v5);
    write_choices(root / "encode_decode");
    write_sessions(root / "session_state");
    std::filesystem::create_directories(root / "match_topic");
    write(root / "match_topic" / "1", "a/b/c\na/+/c\n#\na/#\na/b/c\na/b/c/#\n+/+/+\n+\n");
    write(root / "match_topic" / "2", "$SYS/a\n#\n+/a\n$SYS/#\n$SYS/+\n/\n");
    write(root / "match_topic" / "3", "//\n/+/\n+/+/+\n//#\n///\n");
    write_websocket_frames(root / "websocket_frames");
    write_websocket_handshakes(root / "websocket_handshake");
    write_proxy_handshakes(root / "proxy_handshakes");
    std::filesystem::create_directories(root / "websocket_inflate");
    write(root / "websocket_inflate" / "1", std::string("\xF2\x48\xCD\xC9\xC9\x07\x00", 7));
}
