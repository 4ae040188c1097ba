#include <runnel/transport/failover.hpp>
#include <runnel/transport/socket_options.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/websocket/transport.hpp>

#include <asio/error.hpp>
#include <asio/ip/tcp.hpp>
#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <limits>
#include <netinet/tcp.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

namespace {

using runnel::socket_options;
using runnel::tcp;
using stream_type = tcp::stream_type;

struct listening {
    explicit listening(char const* address = "127.0.0.1") : acceptor(io, {asio::ip::make_address(address), 0}) {
        transport.host = address;
        transport.port = acceptor.local_endpoint().port();
    }
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor;
    tcp transport;

    stream_type open() { return test::run(io, transport.open(io.get_executor())); }
    struct failure {
        std::error_code code;
        std::string text;
    };
    failure fails() {
        test::task opening(io, transport.open(io.get_executor()));
        auto const code = opening.run_for_error();
        return {code, opening.error_text()};
    }
};

int option_of(stream_type& stream, int level, int name) {
    int value = -1;
    socklen_t size = sizeof(value);
    CHECK(::getsockopt(stream.next_layer().native_handle(), level, name, &value, &size) == 0);
    return value;
}

std::string refusal_of(socket_options const& o) {
    try {
        runnel::socket_setup const made(o);
    } catch (std::out_of_range const& e) {
        return e.what();
    }
    return {};
}

bool has_ipv6() {
    asio::io_context io;
    runnel::asio_error_code error;
    asio::ip::tcp::acceptor acceptor(io);
    acceptor.open(asio::ip::tcp::v6(), error);
    if (!error) acceptor.bind({asio::ip::address_v6::loopback(), 0}, error);
    return !error;
}

// A port that nobody has at this moment.
std::uint16_t free_port() {
    asio::io_context io;
    asio::ip::tcp::acceptor const one(io, {asio::ip::make_address("127.0.0.1"), 0});
    return one.local_endpoint().port();
}

}  // namespace

TEST_CASE("a connection comes from the local address and port that it is told") {
    listening l;
    l.transport.socket = socket_options{.local_address = "127.0.0.9"};
    auto client = l.open();
    CHECK(l.acceptor.accept().remote_endpoint().address().to_string() == "127.0.0.9");
    auto const port = free_port();
    l.transport.socket = socket_options{.local_address = "127.0.0.8", .local_port = port};
    auto other = l.open();
    auto const from = l.acceptor.accept().remote_endpoint();
    CHECK(from.address().to_string() == "127.0.0.8");
    CHECK(from.port() == port);
    l.transport.socket = socket_options{.local_port = port};
    auto third = l.open();
    CHECK(l.acceptor.accept().remote_endpoint().port() == port);
}

TEST_CASE("the class of packets and the time to give up are those of the options, for IPv4 and IPv6") {
    for (char const* const address : {"127.0.0.1", "::1"}) {
        bool const v6 = address[0] == ':';
        if (v6 && !has_ipv6()) continue;
        listening l(address);
        auto const dscp = [&](int value) {
            l.transport.socket = socket_options{.dscp = value, .user_timeout = std::chrono::milliseconds(2500)};
            auto client = l.open();
            CHECK(option_of(client, IPPROTO_TCP, TCP_USER_TIMEOUT) == 2500);
            return v6 ? option_of(client, IPPROTO_IPV6, IPV6_TCLASS) : option_of(client, IPPROTO_IP, IP_TOS);
        };
        CHECK(dscp(46) == 46 << 2);
        CHECK(dscp(63) == 63 << 2);
        CHECK(dscp(0) == 0);
        CHECK(dscp(-1) == 0);
    }
}

TEST_CASE("a connection is bound to an interface, and an interface that is not there is said by its name") {
    listening l;
    l.transport.socket = socket_options{.interface_name = "no-such-wan0"};
    auto const missing = l.fails();
    CHECK(missing.text.find("interface_name 'no-such-wan0'") != std::string::npos);
    CHECK(missing.code.category() == std::system_category());
    l.transport.socket = socket_options{.interface_name = "lo"};
    test::task opening(l.io, l.transport.open(l.io.get_executor()));
    auto const error = opening.run_for_error();
    if (error == std::errc::operation_not_permitted) return;  // older than Linux 5.7
    CHECK_FALSE(error);
    auto client = opening.get();
    char name[16] = {};
    socklen_t size = sizeof(name);
    CHECK(::getsockopt(client.next_layer().native_handle(), SOL_SOCKET, SO_BINDTODEVICE, name, &size) == 0);
    CHECK(std::string(name) == "lo");
}

TEST_CASE("an address that this machine does not have, and a port that is taken, are said by the option's name") {
    listening l;
    l.transport.socket = socket_options{.local_address = "192.0.2.1"};
    auto const missing = l.fails();
    CHECK(missing.code == std::errc::address_not_available);
    CHECK(missing.text.find("local_address '192.0.2.1'") != std::string::npos);
    asio::ip::tcp::acceptor taken(l.io);
    taken.open(asio::ip::tcp::v4());
    taken.bind({asio::ip::make_address("127.0.0.1"), 0});
    taken.listen();
    auto const port = taken.local_endpoint().port();
    l.transport.socket = socket_options{.local_address = "127.0.0.1", .local_port = port};
    auto const in_use = l.fails();
    CHECK(in_use.code == std::errc::address_in_use);
    CHECK(in_use.text.find("local_port " + std::to_string(port)) != std::string::npos);
}

TEST_CASE("an address of the other family is passed over, and said if there is no other") {
    listening l;
    l.transport.socket = socket_options{.local_address = "::1"};
    auto const none = l.fails();
    CHECK(none.code == asio::error::address_family_not_supported);
    CHECK(none.text.find("127.0.0.1") != std::string::npos);
    // Whichever of localhost's addresses comes first.
    l.transport.host = "localhost";
    l.transport.socket = socket_options{.local_address = "127.0.0.1"};
    auto client = l.open();
    CHECK(l.acceptor.accept().remote_endpoint().address().to_string() == "127.0.0.1");
}

TEST_CASE("options out of range are refused when they are set, with the range") {
    using ms = std::chrono::milliseconds;
    auto const says = [](socket_options const& o, char const* part) {
        return refusal_of(o).find(part) != std::string::npos;
    };
    CHECK(says({.dscp = 64}, "0 to 63"));
    CHECK(says({.dscp = -2}, "0 to 63"));
    CHECK(says({.dscp = std::numeric_limits<int>::max()}, "0 to 63"));
    CHECK(says({.user_timeout = ms(-1)}, "0 ms to 2147483647 ms"));
    CHECK(says({.user_timeout = ms(2147483648)}, "0 ms to 2147483647 ms"));
    CHECK(says({.user_timeout = ms::max()}, "user_timeout"));
    CHECK(says({.local_address = "eth0"}, "local_address"));
    CHECK(says({.local_address = std::string("127.0.0.1\0x", 11)}, "local_address"));
    CHECK(says({.interface_name = "sixteen-bytes-00"}, "1 to 15 bytes"));
    CHECK(says({.interface_name = std::string("a\0", 2)}, "1 to 15 bytes"));
    for (auto const& o : {socket_options{},
                          {.dscp = 0},
                          {.dscp = 63},
                          {.user_timeout = ms(2147483647)},
                          {.interface_name = "fifteen-bytes-0"},
                          {.local_address = "fe80::1"}})
        CHECK(refusal_of(o).empty());
}

TEST_CASE("the longest time to give up is taken by the system") {
    listening l;
    l.transport.socket = socket_options{.user_timeout = std::chrono::milliseconds(2147483647)};
    auto client = l.open();
    CHECK(option_of(client, IPPROTO_TCP, TCP_USER_TIMEOUT) == 2147483647);
}

TEST_CASE("transports are equal if their options are, and copies have their own") {
    tcp const plain;
    tcp const marked{.host = {}, .socket = socket_options{.dscp = 46}};
    tcp copy = marked;
    CHECK(copy == marked);
    CHECK(copy == tcp{.host = {}, .socket = socket_options{.dscp = 46}});
    CHECK_FALSE(copy == plain);
    CHECK_FALSE(plain == copy);
    copy.socket = socket_options{.dscp = 8};
    CHECK_FALSE(copy == marked);
    copy.socket = {};
    CHECK(copy == plain);
    static_assert(sizeof(runnel::socket_setup) == sizeof(void*));
}

TEST_CASE("the options of the TCP below hold for WebSockets and in a failover, too") {
    listening l;
    runnel::websocket::over<tcp> above{.host = "127.0.0.1", .port = l.transport.port};
    above.next.socket = socket_options{.local_address = "127.0.0.9"};
    runnel::failover<runnel::websocket::over<tcp>> const several({above});
    test::task opening(l.io, several.open(l.io.get_executor()));
    l.io.poll();
    auto server = l.acceptor.accept(l.io);
    for (int i = 0; i < 1000 && server.available() == 0; ++i) l.io.poll();
    CHECK(server.remote_endpoint().address().to_string() == "127.0.0.9");
    server.close();
    CHECK(opening.run_for_error());
}

TEST_CASE("a transport with options is opened by many steps, and cancelled after any number of them") {
    for (int steps = 0; steps < 8; ++steps) {
        listening l;
        l.transport.socket = socket_options{.local_address = "127.0.0.9", .dscp = 46};
        test::task opening(l.io, l.transport.open(l.io.get_executor()));
        for (int i = 0; i < steps; ++i) l.io.poll_one();
        opening.cancel();
        auto const error = opening.run_for_error();
        CHECK((!error || error == asio::error::operation_aborted));
        CHECK(opening.ended() == 1);
    }
}
