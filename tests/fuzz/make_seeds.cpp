// Writes seeds for the fuzzers, made by the encoders, and their dictionaries:  make_seeds DIRECTORY
// One directory for each fuzzer is made inside, and NAME.dict for those that have words of their own.

#include <runnel/aliyun/registration_request.hpp>
#include <runnel/aliyun/signer.hpp>
#include <runnel/aliyun/topics.hpp>
#include <runnel/mqtt/packet.hpp>
#include <runnel/mqtt/store/session_journal.hpp>
#include <runnel/websocket/protocol/handshake.hpp>
#include <runnel/websocket/protocol/protocol.hpp>

#include "support/memory_store.hpp"
#include "support/random_packets.hpp"
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

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

// The first byte says which end it is for; then its two messages.
void write_scram(std::filesystem::path const& root) {
    std::filesystem::create_directories(root / "scram");
    write(root / "scram" / "client", "\1r=nonce1,s=c2FsdA==,i=4096\nv=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    write(root / "scram" / "extended", "\1r=nonce1,s=c2FsdA==,i=4096,x=y\ne=other-error");
    write(root / "scram" / "server",
          std::string("\0n,,n=a=3Db=2Cc,r=abc\nc=biws,r=abcnonce,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", 63));
    write(root / "scram" / "right", std::string("\0n,,n=user,r=own\n", 17));
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

// A dictionary as libFuzzer reads it.
void write_words(std::filesystem::path const& file, std::vector<std::string_view> const& words) {
    std::string lines;
    for (auto const word : words) {
        lines += '"';
        for (char const c : word) {
            if (c == '\n')
                lines += "\\x0A";
            else
                (c == '"' || c == '\\' ? lines += '\\' : lines) += c;
        }
        lines += "\"\n";
    }
    write(file, lines);
}

// Each topic that there is, each kind of identifier and endpoint, and both answers to a registration.
void write_aliyun_texts(std::filesystem::path const& root) {
    using namespace runnel::aliyun;
    auto const directory = root / "aliyun_texts";
    std::filesystem::create_directories(directory);
    std::vector<std::string_view> words{"|", "securemode=2", ",", "_reply", "\\u00e9", "\"deviceName\":\"device\""};
    for (auto const& rule : topic_rules) {
        topic_parts parts{.kind = rule.kind, .product_key = "a1B2", .device_name = "dn", .id = "id", .rest = "r/s"};
        for (bool const reply : {false, true}) {
            parts.reply = reply;
            topic_name name;
            if (build_topic(parts, name) != errc::ok) continue;
            write(directory / ("topic_" + std::to_string(static_cast<int>(rule.kind)) + (reply ? "_reply" : "")),
                  std::string(1, '\0') + name.str());
        }
        for (auto rest = rule.pattern; !rest.empty();) words.push_back(next_level(rest));
    }
    connect_credentials made;
    sign_registration({"a1B2c3D4e5F", "secret"}, "device", "random", {}, made);
    write(directory / "client_id", "\1" + made.client_id.str());
    write(directory / "endpoint", "\2a1B2c3D4e5F\ncn-shanghai");
    std::string const answer = "\3{\"productKey\":\"a1B2c3D4e5F\",\"deviceName\":\"device\",";
    write(directory / "secret", answer + "\"deviceSecret\":\"s\"}");
    write(directory / "token", answer + "\"clientId\":\"c\",\"deviceToken\":\"t\"}");
    write_words(root / "aliyun_texts.dict", words);
}

// Messages as the platform's documentation has them.
void write_alink(std::filesystem::path const& root) {
    auto const directory = root / "alink";
    std::filesystem::create_directories(directory);
    std::string const md5(32, 'a'), sha256(64, 'b');
    std::string const file = R"("url":"https://a/b","size":9,)";
    std::vector<std::string> const messages{
        R"({"id":"1","version":"1.0","sys":{"ack":0},"params":{"a":[1,"x"]},"method":"thing.service.a"})",
        R"({"id":1,"code":200,"message":"success","data":{"a":1.5}})",
        R"({"version":"1","module":"m","signMethod":"Md5",)" + file + R"("sign":")" + md5 + R"(","extData":{}})",
        R"({"version":"1","isDiff":1,"signMethod":"SHA256","files":[{"fileUrl":"u","fileName":"n","fileSize":"7",)"
        R"("fileSign":")" +
            sha256 + R"("}]})",
        R"({"configId":"c","configSize":9,"url":"https://a","signMethod":"Sha256","sign":")" + sha256 + R"("})",
        R"({"method":"control","payload":{"state":{"desired":{"a":1}},"metadata":{}},"version":2,"timestamp":3})",
        R"({"method":"reply","payload":{"status":"error","content":{"errorcode":"409","errormessage":"m"}}})",
        R"([{"productKey":"a1B2","deviceName":"dn","deviceSecret":"s"}])",
        R"({"successes":[{"productKey":"a1B2","deviceName":"dn","deviceSecret":"s"}],)"
        R"("failures":[{"productKey":"a1B2","deviceName":"dn","code":6100,"message":"m"}]})",
        R"({"content":{"mode":1}})",
        R"({"a":"\u00e9\ud83d\ude00\\\/","b":null,"c":[{}],"d":-1e5})"};
    for (std::size_t i = 0; i < messages.size(); ++i) write(directory / std::to_string(i), messages[i]);
    write_words(root / "alink.dict", {"\"id\":",
                                      "\"code\":",
                                      "\"data\":",
                                      "\"params\":",
                                      "\"method\":",
                                      "\"sys\":",
                                      "\"ack\":",
                                      "\"version\":",
                                      "\"url\":",
                                      "\"size\":",
                                      "\"sign\":",
                                      "\"md5\":",
                                      "\"files\":",
                                      "\"fileUrl\":",
                                      "\"fileSize\":",
                                      "\"payload\":",
                                      "\"state\":",
                                      "\"status\":",
                                      "\"success\"",
                                      "\"successes\":",
                                      "\"failures\":",
                                      "18446744073709551615",
                                      "-9223372036854775808",
                                      "true",
                                      "null",
                                      "\\u0000",
                                      "\\ud83d\\ude00",
                                      "{",
                                      "}",
                                      "[",
                                      "]",
                                      "\""});
}

// What sessions have stored, with an operation or two after it.
void write_stores(std::filesystem::path const& directory) {
    using namespace runnel::mqtt;
    std::filesystem::create_directories(directory);
    for (unsigned seed = 0; seed < 64; ++seed) {
        auto const version = (seed & 1) != 0 ? protocol_version::v5 : protocol_version::v3_1_1;
        auto const store = std::make_shared<test::memory_store>();
        session_state state(role::client, version);
        session_journal journal{any_session_store(store)};
        runnel::send_buffer out;
        struct nobody : session_handler {
        } handler;
        journal.load(state, "client");
        state.connect(out, {.client_id = "client", .clean_start = false}, {});
        std::string input(version == protocol_version::v5 ? "\x20\x03\0\0\0" : "\x20\x02\0\0", (seed & 1) != 0 ? 5 : 4);
        if ((seed & 2) != 0) input += "\x34\x06" + std::string("\0\1t\0\7", 5) + ((seed & 1) != 0 ? '\0' : 'p');
        if ((seed & 4) != 0) input += std::string("\x50\x02\0\2", 4);
        properties expiring;
        expiring.message_expiry_interval = 100;
        for (unsigned i = 0; i <= seed / 8; ++i) {
            publish p{.topic = "t", .payload = "p", .qos = i % 2 == 0 ? qos::at_least_once : qos::exactly_once};
            if (version == protocol_version::v5 && i % 3 == 0) p.props = &expiring;
            state.publish(out, p, &state);
        }
        std::string_view rest = input;
        state.receive(rest, out, handler);
        journal.commit(state);
        std::string records;
        for (auto const& [key, value] : store->records) {
            records += key < 2 ? static_cast<char>(key) : key >> 62 != 0 ? '\3' : '\2';
            if (key >> 62 != 0) records += static_cast<char>(key >> 8 & 0xFF);
            if (key >= 2) records += static_cast<char>(key & 0xFF);
            records += static_cast<char>(value.size());
            records += value;
        }
        test::random_source random(seed);
        write(directory / std::to_string(seed), records + std::string("\17\1\3\5\1", 5) + random.bytes(60));
    }
}

// Two clients, one of which subscribes, then anything.
void write_brokers(std::filesystem::path const& directory) {
    std::filesystem::create_directories(directory);
    for (unsigned seed = 0; seed < 64; ++seed) {
        test::random_source random(seed);
        std::string const begin("\x80\x05\x51\x90\x15\x50\x04\x14\x06\x09\x17\x09\x04\x14\x18\x51\x0B", 17);
        write(directory / std::to_string(seed), begin + random.bytes(200));
    }
}

// Choices, a CONNECT, the size of pieces, then packets that come.
void write_traces(std::filesystem::path const& directory) {
    using namespace runnel::mqtt;
    std::filesystem::create_directories(directory);
    for (unsigned seed = 0; seed < 64; ++seed) {
        auto const version = seed % 2 == 0 ? protocol_version::v5 : protocol_version::v3_1_1;
        test::random_source random(seed);
        test::random_packets packets(random, version);
        auto const bytes_of = [&](auto const& packet) {
            std::string bytes(encoded_size(packet, version), '\0');
            encode(bytes.data(), packet, version);
            return bytes;
        };
        auto const begin = bytes_of(connect{.client_id = "c", .user_name = "u", .password = "p"});
        std::string input{static_cast<char>(seed * 5 + 4), static_cast<char>(begin.size())};
        input.append(begin).append(1, static_cast<char>(seed));
        while (input.size() < 400)
            packets.next([&](auto const& packet) {
                if (encoded_size(packet, version) < 400) input += bytes_of(packet);
            });
        write(directory / std::to_string(seed), input);
    }
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
    write_scram(root);
    write_aliyun_texts(root);
    write_alink(root);
    write_stores(root / "session_journal");
    write_brokers(root / "broker_core");
    write_traces(root / "packet_trace");
    std::filesystem::create_directories(root / "texts");
    write(root / "texts" / "1", "gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80 \xE2\x80\xAE \x1B[0m");
    write(root / "texts" / "2", "dGhlIHNhbXBsZSBub25jZQ==");
    write(root / "texts" / "3", "000102030405060708090A0b0c0d0e0f");
    std::filesystem::create_directories(root / "trust");
    write(root / "trust" / "pin", '\0' + runnel::digest::encode_base64(std::string(32, 'p')));
    write(root / "trust" / "pem", "\1-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    write(root / "trust" / "reference", "\2[2001:db8::1]:8883 other.example:1883");
    write_words(root / "trust.dict", {"-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n",
                                      "-----BEGIN PRIVATE KEY-----\n", "[", "]:", ":65535", "=", "=="});
    write_words(root / "websocket_handshake.dict",
                {"HTTP/1.1 101 ", "GET /mqtt HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Key: ", "Sec-WebSocket-Accept: ", "Sec-WebSocket-Protocol: mqtt",
                 "Sec-WebSocket-Version: 13", "Sec-WebSocket-Extensions: permessage-deflate",
                 "server_no_context_takeover", "client_max_window_bits=15", "Transfer-Encoding: chunked"});
    write_words(root / "scram.dict", {"n,,", "y,,", "p=tls-exporter,,", "n,a=", "n=user", "=2C", "=3D", "r=nonce",
                                      "r=own", ",s=c2FsdA==", ",i=4096", "c=biws", ",p=", "v=", "e=", "m="});
    write_words(root / "proxy_handshakes.dict", {"HTTP/1.1 ", "200 OK", "407 ", "Proxy-Authenticate: Basic realm=",
                                                 "Proxy-Authorization: Basic ", "CONNECT ", "Content-Length: "});
    std::filesystem::create_directories(root / "websocket_inflate");
    write(root / "websocket_inflate" / "1", std::string("\xF2\x48\xCD\xC9\xC9\x07\x00", 7));
}
