#include <runnel/transport/proxy/protocol/socks5.hpp>

#include <doctest/doctest.h>

#include "support/allocation_count.hpp"
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;
using runnel::parse_ipv4;
using runnel::parse_ipv6;
using runnel::proxy_errc;
using runnel::socks5_client;
using runnel::socks5_server;

constexpr std::string_view name_request = "\5\1\0\3\016broker.example\x22\xb3"sv;  // port 8883
constexpr std::string_view accepted = "\5\0\0\1\x7f\0\0\1\x04\x38"sv;

// Plays a proxy that answers with `answers`, one a step, `chunk` bytes at a time; what the client has sent.
struct play {
    socks5_client client;
    std::vector<std::string> sent = {};
    std::string unread = {};
};

play run(socks5_client client, std::vector<std::string> const& answers, std::size_t chunk) {
    play p{std::move(client)};
    for (auto const& answer : answers) {
        if (auto out = p.client.take_output(); !out.empty()) p.sent.push_back(std::move(out));
        std::string_view left = answer;
        while (!left.empty() && p.client.wanted() != 0) {
            auto const n = std::min({chunk, p.client.wanted(), left.size()});
            REQUIRE(p.client.receive(left.substr(0, n)) == n);
            left.remove_prefix(n);
        }
        p.unread += left;
    }
    return p;
}

std::string bytes_of(auto const& parsed) { return parsed ? std::string(parsed->data(), parsed->size()) : "nothing"; }

}  // namespace

TEST_CASE("IPv4 addresses are parsed strictly") {
    CHECK(bytes_of(parse_ipv4("127.0.0.1")) == "\x7f\0\0\1"s);
    CHECK(bytes_of(parse_ipv4("255.255.255.255")) == "\xff\xff\xff\xff"s);
    for (auto text : {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.04", "1.2.3.", ".1.2.3", "1.2.3.4 ", "a.b.c.d",
                      "1..2.3", "1.2.3.1234", "1.2.3.4."}) {
        CAPTURE(text);
        CHECK_FALSE(parse_ipv4(text));
    }
    static_assert(parse_ipv4("1.2.3.4"));
}

TEST_CASE("IPv6 addresses are parsed in all their forms") {
    CHECK(bytes_of(parse_ipv6("::")) == std::string(16, '\0'));
    CHECK(bytes_of(parse_ipv6("::1")) == std::string(15, '\0') + '\1');
    CHECK(bytes_of(parse_ipv6("1::")) == "\0\1"s + std::string(14, '\0'));
    CHECK(bytes_of(parse_ipv6("2001:db8::ABCD:1")) == "\x20\x01\x0d\xb8"s + std::string(8, '\0') + "\xab\xcd\0\1"s);
    CHECK(bytes_of(parse_ipv6("1:2:3:4:5:6:7:8")) == "\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\10"s);
    CHECK(bytes_of(parse_ipv6("1:2:3:4:5:6:7::")) == "\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\0"s);
    CHECK(bytes_of(parse_ipv6("::ffff:1.2.3.4")) == std::string(10, '\0') + "\xff\xff\1\2\3\4");
    CHECK(bytes_of(parse_ipv6("1:2:3:4:5:6:1.2.3.4")) == "\0\1\0\2\0\3\0\4\0\5\0\6\1\2\3\4"s);
    for (auto text :
         {"", ":", ":::", "1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", "1:", "::1%eth0",
          "[::1]", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "1:2:3:4:5:6:7:8::", ":1::", "1.2.3.4", "::1.2.3.4:5"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_ipv6(text));
    }
}

TEST_CASE("a SOCKS5 client opens a tunnel to a name that the proxy resolves, however the answers are chopped") {
    for (std::size_t chunk = 1; chunk <= 22; ++chunk) {
        CAPTURE(chunk);
        for (auto const& reply :
             {std::string(accepted), "\5\0\0\4"s + std::string(18, '\1'), "\5\0\0\3\5proxy\1\2"s, "\5\0\0\3\0\1\2"s}) {
            auto const p = run({"broker.example", 8883, "", ""}, {"\5\0"s, reply}, chunk);
            CHECK(p.client.done());
            CHECK(p.client.error() == proxy_errc::ok);
            CHECK(p.sent == std::vector<std::string>{"\5\1\0"s, std::string(name_request)});
            CHECK(p.unread.empty());
        }
    }
}

TEST_CASE("a SOCKS5 client sends addresses as such") {
    auto p = run({"127.0.0.1", 1883, "", ""}, {"\5\0"s, std::string(accepted)}, 100);
    CHECK(p.sent[1] == "\5\1\0\1\x7f\0\0\1\x07\x5b"s);
    p = run({"::1", 80, "", ""}, {"\5\0"s, std::string(accepted)}, 100);
    CHECK(p.sent[1] == "\5\1\0\4"s + std::string(15, '\0') + "\1\0\x50"s);
}

TEST_CASE("a SOCKS5 client leaves the bytes of the tunnel alone") {
    auto const p = run({"broker.example", 8883, "", ""}, {"\5\0"s, std::string(accepted) + "tunnel"}, 100);
    CHECK(p.client.done());
    CHECK(p.unread == "tunnel");
    CHECK(p.client.wanted() == 0);
}

TEST_CASE("a SOCKS5 client offers credentials and sends them if they are asked for") {
    for (std::size_t chunk : {1U, 2U}) {
        auto p = run({"broker.example", 8883, "user", "pass"}, {"\5\2"s, "\1\0"s, std::string(accepted)}, chunk);
        CHECK(p.client.done());
        CHECK(p.sent == std::vector<std::string>{"\5\2\0\2"s, "\1\4user\4pass", std::string(name_request)});
        p = run({"broker.example", 8883, "user", "pass"}, {"\5\0"s, std::string(accepted)}, chunk);
        CHECK(p.client.done());
        CHECK(p.sent.size() == 2);
    }
    auto const p = run({"a", 1, "user", "wrong"}, {"\5\2"s, "\1\1"s}, 100);
    CHECK(p.client.error() == proxy_errc::credentials_refused);
    CHECK(run({"a", 1, "", ""}, {"\5\xff"s}, 100).client.error() == proxy_errc::credentials_required);
    CHECK(run({"a", 1, "user", "pass"}, {"\5\xff"s}, 100).client.error() == proxy_errc::no_common_method);
}

TEST_CASE("each reply of a SOCKS5 proxy has an error of its own, which its first two bytes tell") {
    struct row {
        char code;
        proxy_errc error;
    };
    row const rows[] = {{1, proxy_errc::general_failure},       {2, proxy_errc::not_allowed},
                        {3, proxy_errc::network_unreachable},   {4, proxy_errc::host_unreachable},
                        {5, proxy_errc::connection_refused},    {6, proxy_errc::ttl_expired},
                        {7, proxy_errc::command_not_supported}, {8, proxy_errc::address_type_not_supported},
                        {9, proxy_errc::unknown_reply},         {'\xff', proxy_errc::unknown_reply}};
    for (auto const& [code, error] : rows) {
        auto const p = run({"a", 1, "", ""}, {"\5\0"s, std::string{'\5', code}}, 1);
        CHECK(p.client.error() == error);
        CHECK(p.client.reply() == static_cast<unsigned char>(code));
        CHECK(p.client.wanted() == 0);
    }
}

TEST_CASE("what is not SOCKS5 is found") {
    auto const error = [](std::vector<std::string> const& answers) {
        return run({"a", 1, "", ""}, answers, 100).client.error();
    };
    CHECK(error({"HT"}) == proxy_errc::not_socks5);
    CHECK(error({"\4\0"s}) == proxy_errc::not_socks5);
    CHECK(error({"\5\2"s}) == proxy_errc::not_socks5);  // a method that was not offered
    CHECK(error({"\5\0"s, "\4\0"s}) == proxy_errc::not_socks5);
    CHECK(error({"\5\0"s, "\5\0\0\2\1"s}) == proxy_errc::not_socks5);  // an unknown type of address
}

TEST_CASE("settings that SOCKS5 cannot carry are refused") {
    CHECK(socks5_client("", 1, "", "").error() == proxy_errc::target_invalid);
    CHECK(socks5_client(std::string(256, 'a'), 1, "", "").error() == proxy_errc::target_invalid);
    CHECK(socks5_client(std::string_view("a\0.example", 11), 1, "", "").error() == proxy_errc::target_invalid);
    CHECK(socks5_client("a\r\nb", 1, "", "").error() == proxy_errc::target_invalid);
    CHECK(socks5_client("a", 1, std::string(256, 'a'), "").error() == proxy_errc::credentials_invalid);
    CHECK(socks5_client("a", 1, "a", std::string(256, 'a')).error() == proxy_errc::credentials_invalid);
    CHECK(socks5_client("a", 1, "", "password only").error() == proxy_errc::credentials_invalid);
    CHECK(socks5_client("a", 1, "", "password only").wanted() == 0);
}

TEST_CASE("a SOCKS5 server understands the client, however what it sends is chopped") {
    for (bool const known : {false, true}) {
        for (auto const host : {"broker.example", "127.0.0.1", "2001:db8::1"}) {
            CAPTURE(host);
            CAPTURE(known);
            socks5_client client(host, 8883, known ? "user" : "", known ? "pass" : "");
            socks5_server server(known);
            auto seen = socks5_server::event::needs_input;
            for (int round = 0; round < 10 && !client.done(); ++round) {
                for (char c : client.take_output()) {
                    std::size_t used = 0;
                    seen = server.receive({&c, 1}, used);
                    REQUIRE(used == 1);
                    if (seen == socks5_server::event::credentials) {
                        CHECK(server.user_name() == "user");
                        CHECK(server.password() == "pass");
                        server.judge(true);
                    }
                    if (seen == socks5_server::event::request) server.reply(0);
                }
                auto const answer = server.take_output();
                std::string_view left = answer;
                while (!left.empty()) left.remove_prefix(client.receive(left));
            }
            CHECK(client.done());
            CHECK(server.port() == 8883);
            auto const v4 = parse_ipv4(host);
            auto const v6 = parse_ipv6(host);
            CHECK(server.host() == (v4 ? bytes_of(v4) : v6 ? bytes_of(v6) : host));
        }
    }
}

TEST_CASE("a SOCKS5 server refuses what it cannot do, and says so") {
    auto const answer_to = [](bool wants_credentials, std::string const& bytes) {
        socks5_server server(wants_credentials);
        std::size_t used = 0;
        std::string_view left = bytes;
        auto seen = socks5_server::event::needs_input;
        while (!left.empty() && seen == socks5_server::event::needs_input) {
            seen = server.receive(left, used);
            left.remove_prefix(used);
        }
        CHECK(seen == socks5_server::event::failed);
        return server.take_output();
    };
    CHECK(answer_to(true, "\5\1\0"s) == "\5\xff");
    CHECK(answer_to(false, "\5\1\2"s) == "\5\xff");
    CHECK(answer_to(false, "\4\1\0"s).empty());
    CHECK(answer_to(false, "\5\1\0\5\2\0\1\1\2\3\4\0\1"s).substr(0, 4) == "\5\0\5\7"s);  // BIND
    CHECK(answer_to(false, "\5\1\0\5\1\0\2\1\2\3\4\0\1"s).substr(0, 4) == "\5\0\5\10"s);
}

TEST_CASE("the client leaves no password behind, whether it was sent or not") {
    std::string const password = "a password of more than fifteen bytes";
    runnel::testing::freed_memory_search const search(password.c_str());
    for (bool const asked : {true, false}) {
        runnel::socks5_client client("broker.example", 8883, "user", password);
        CHECK_FALSE(client.take_output().empty());
        client.receive(asked ? std::string_view("\5\2", 2) : std::string_view("\5\0", 2));
        CHECK((client.take_output().find(password) != std::string::npos) == asked);
    }
    CHECK(search.found() == 0);
}
