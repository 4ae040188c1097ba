#include "interop/mosquitto.hpp"

#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include <csignal>

// The broker itself and the transports below MQTT; what is said over them is the other tests' matter.

namespace {

// CONNECT of MQTT 3.1.1 with a clean session, no keep alive, the client identifier "t" and perhaps user and password.
std::string connect_packet(std::string const& user = {}, std::string const& password = {}) {
    auto const field = [](std::string const& text) {
        return std::string{static_cast<char>(text.size() >> 8U), static_cast<char>(text.size() & 0xFFU)} + text;
    };
    std::string body = field("MQTT") + '\x04' + static_cast<char>(user.empty() ? 0x02 : 0xC2) + std::string(2, '\0');
    body += field("t");
    if (!user.empty()) body += field(user) + field(password);
    return std::string{'\x10', static_cast<char>(body.size())} + body;
}

template <class Transport>
asio::awaitable<std::string> connack(Transport transport, std::string packet) {
    auto const executor = co_await asio::this_coro::executor;
    auto opening = transport.open(executor);
    auto stream = co_await std::move(opening);
    auto writing = test::write_text(stream, std::move(packet));
    co_await std::move(writing);
    auto reading = test::read_exactly(stream, 4);
    co_return co_await std::move(reading);
}

runnel::tls<runnel::tcp> tls_to(std::uint16_t port, runnel::testing::certificate_authority const& authority) {
    runnel::tls_options options;
    options.ca_pem = authority.certificate_pem();
    runnel::tls<runnel::tcp> transport;
    transport.host = "localhost";
    transport.port = port;
    transport.context = runnel::tls_context(options);
    return transport;
}

std::string const accepted{"\x20\x02\x00\x00", 4};

}  // namespace

TEST_CASE("mosquitto answers over tcp and over tls") {
    test::mosquitto broker;
    asio::io_context io;
    runnel::tcp const tcp{.host = "127.0.0.1", .port = broker.port_tcp()};
    CHECK(test::run(io, connack(tcp, connect_packet())) == accepted);
    CHECK(test::run(io, connack(tls_to(broker.port_tls(), broker.authority()), connect_packet())) == accepted);
    CHECK(test::accepts(broker.port_ws()));
    CHECK(test::accepts(broker.port_wss()));
}

TEST_CASE("mosquitto's certificate is refused where its authority is not trusted, or for another name") {
    test::mosquitto broker;
    asio::io_context io;
    runnel::testing::certificate_authority const other;
    auto const untrusted = tls_to(broker.port_tls(), other);
    CHECK(test::error_of(io, connack(untrusted, connect_packet())) == runnel::transport_errc::certificate_untrusted);
    auto named = tls_to(broker.port_tls(), broker.authority());
    named.server_name = "broker.example";
    CHECK(test::error_of(io, connack(named, connect_packet())) == runnel::transport_errc::host_name_mismatch);
}

TEST_CASE("mosquitto lets in over mutual TLS who has a certificate of its authority") {
    test::mosquitto broker;
    asio::io_context io;
    auto transport = tls_to(broker.port_mutual_tls(), broker.authority());
    // In TLS 1.3 the refusal comes behind the handshake, and may be overtaken by the reset of the connection.
    auto const refused = test::error_of(io, connack(transport, connect_packet()));
    CHECK((refused == runnel::transport_errc::own_certificate_required || refused == asio::error::connection_reset));
    runnel::tls_options without;
    without.ca_pem = broker.authority().certificate_pem();
    without.maximum = runnel::tls_version::v1_2;
    transport.context = runnel::tls_context(without);
    CHECK(test::error_of(io, connack(transport, connect_packet())) == runnel::transport_errc::handshake_refused);
    auto const own = broker.authority().issue_client();
    runnel::tls_options options;
    options.ca_pem = broker.authority().certificate_pem();
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    transport.context = runnel::tls_context(options);
    CHECK(test::run(io, connack(transport, connect_packet())) == accepted);
}

TEST_CASE("mosquitto checks user names and passwords if there are any") {
    test::mosquitto_options options;
    options.users = {{"device&product", "8F2A|with,odd:characters"}, {"other", "secret"}};
    test::mosquitto broker(options);
    asio::io_context io;
    runnel::tcp const tcp{.host = "127.0.0.1", .port = broker.port_tcp()};
    CHECK(test::run(io, connack(tcp, connect_packet("device&product", "8F2A|with,odd:characters"))) == accepted);
    CHECK(test::run(io, connack(tcp, connect_packet("other", "secret"))) == accepted);
    CHECK(test::run(io, connack(tcp, connect_packet("other", "wrong"))) != accepted);
    CHECK(test::run(io, connack(tcp, connect_packet())) != accepted);
    CHECK(broker.log().find("u'device&product'") != std::string::npos);
}

TEST_CASE("mosquitto can be stopped, killed and started again on the same ports, and ends with its object") {
    pid_t last = 0;
    {
        test::mosquitto_options options;
        options.persistence = true;
        test::mosquitto broker(options);
        asio::io_context io;
        runnel::tcp const tcp{.host = "127.0.0.1", .port = broker.port_tcp()};
        broker.stop();
        CHECK_FALSE(broker.running());
        CHECK(test::error_of(io, connack(tcp, connect_packet())) == asio::error::connection_refused);
        broker.start();
        CHECK(test::run(io, connack(tcp, connect_packet())) == accepted);
        broker.kill();
        broker.start();
        CHECK(test::run(io, connack(tcp, connect_packet())) == accepted);
        last = broker.pid();
    }
    CHECK(::kill(last, 0) != 0);
}
