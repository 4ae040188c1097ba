#include <runnel/mqtt/client/session.hpp>

#include <doctest/doctest.h>

#include "interop/transports.hpp"
#include "support/run.hpp"
#include <string>

// Sessions over TLS to mosquitto, set up in all the ways in which it can ask for or show who is who.

namespace {

namespace mqtt = runnel::mqtt;
using runnel::tls_options;
using runnel::tls_verify;
using runnel::tls_version;
using runnel::transport_errc;

// Runs a session until it is connected; the error of `run`.
template <class Transport>
std::error_code connect(Transport const& transport) {
    asio::io_context io;
    mqtt::session_options options;
    options.credentials.client_id = "over-tls";
    options.reconnect.attempts = 1;
    mqtt::session<Transport> s(io.get_executor(), transport, options);
    test::task<void> running(io, s.run());
    auto const leave = [&]() -> asio::awaitable<void> {
        co_await s.connected();
        co_await s.disconnect();
    };
    test::task<void> leaving(io, leave());
    auto const error = running.run_for_error();
    leaving.run_for_error();
    return error;
}

test::tls to(std::uint16_t port, tls_options const& options, std::string host = "localhost") {
    test::tls transport;
    transport.host = std::move(host);
    transport.port = port;
    transport.context = runnel::tls_context(options);
    transport.next.host = "127.0.0.1";
    return transport;
}

tls_options trusting(test::mosquitto const& broker) {
    tls_options options;
    options.ca_pem = broker.authority().certificate_pem();
    return options;
}

// One more listener in mosquitto's configuration.
std::string listener(std::uint16_t port, std::string const& settings) {
    return "listener " + std::to_string(port) + " 127.0.0.1\nprotocol mqtt\n" + settings;
}

test::mosquitto configured(std::string configuration) {
    test::mosquitto_options options;
    options.configuration = std::move(configuration);
    return test::mosquitto(std::move(options));
}

}  // namespace

TEST_CASE("mosquitto lets a client with a certificate of its authority in, and says why it does not let others") {
    test::mosquitto const broker;
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto const own = broker.authority().issue_client();
        auto options = trusting(broker);
        options.maximum = version;
        options.certificate_pem = own.certificate_pem;
        options.private_key_pem = own.private_key_pem;
        CHECK_FALSE(connect(to(broker.port_mutual_tls(), options)));

        runnel::testing::certificate_authority const other("another CA");
        auto const stranger = other.issue_client();
        options.certificate_pem = stranger.certificate_pem;
        options.private_key_pem = stranger.private_key_pem;
        // Again and again, as what the client notices first differs.
        for (int i = 0; i < 10; ++i)
            CHECK(connect(to(broker.port_mutual_tls(), options)) == transport_errc::own_certificate_refused);

        auto anonymous = trusting(broker);
        anonymous.maximum = version;
        auto const error = connect(to(broker.port_mutual_tls(), anonymous));
        CHECK(error == (version == tls_version::v1_2 ? transport_errc::handshake_refused
                                                     : transport_errc::own_certificate_required));
    }
}

TEST_CASE("mosquitto and a client know each other by a pre-shared key, in TLS 1.2 and 1.3") {
    test::scratch_directory const directory;
    auto const keys = directory.write("keys", "device-7:000102030405060708090a0b0c0d0e0f\n");
    auto const port = test::free_port();
    test::mosquitto const broker = configured("psk_file " + keys + "\n" + listener(port, "psk_hint test\n"));
    tls_options options;
    options.psk_identity = "device-7";
    for (char c = 0; c < 16; ++c) options.psk_key += c;
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        CAPTURE(static_cast<int>(version));
        options.maximum = version;
        CHECK_FALSE(connect(to(port, options)));
        auto wrong = options;
        wrong.psk_key[3] = 'x';
        CHECK(connect(to(port, wrong)) == transport_errc::pre_shared_key_refused);
        wrong = options;
        wrong.psk_identity = "device-8";
        CHECK(connect(to(port, wrong)) == transport_errc::pre_shared_key_refused);
    }
}

TEST_CASE("a mosquitto that speaks TLS 1.3 only is spoken to in that, or not at all") {
    auto const port = test::free_port();
    test::scratch_directory const directory;
    runnel::testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    auto const files = "certfile " + directory.write("crt", own.certificate_pem) + "\nkeyfile " +
                       directory.write("key", own.private_key_pem) + "\n";
    test::mosquitto const broker = configured(listener(port, files + "tls_version tlsv1.3\n"));
    tls_options options;
    options.ca_pem = authority.certificate_pem();
    CHECK_FALSE(connect(to(port, options)));
    options.maximum = tls_version::v1_2;
    CHECK(connect(to(port, options)) == transport_errc::no_common_protocol_version);
}

TEST_CASE("a mosquitto is refused whose certificate is expired, self-signed, of another host or of a revoked key") {
    test::scratch_directory const directory;
    runnel::testing::certificate_authority const authority;
    auto const expired = authority.issue_expired_server();
    auto const self_signed = runnel::testing::certificate_authority::self_signed();
    auto const other = authority.issue_server("other.example");
    auto const good = authority.issue_server();
    std::uint16_t ports[4];
    std::string configuration;
    int n = 0;
    for (auto const* const own : {&expired, &self_signed, &other, &good}) {
        ports[n] = test::free_port();
        auto const name = std::to_string(n);
        configuration +=
            listener(ports[n], "certfile " + directory.write("crt" + name, own->certificate_pem) + "\nkeyfile " +
                                   directory.write("key" + name, own->private_key_pem) + "\n");
        ++n;
    }
    test::mosquitto const broker = configured(configuration);
    tls_options options;
    options.ca_pem = authority.certificate_pem();
    CHECK(connect(to(ports[0], options)) == transport_errc::certificate_expired);
    CHECK(connect(to(ports[1], options)) == transport_errc::certificate_self_signed);
    CHECK(connect(to(ports[2], options)) == transport_errc::host_name_mismatch);
    CHECK_FALSE(connect(to(ports[2], options, "other.example")));
    CHECK_FALSE(connect(to(ports[3], options)));
    options.pins = {runnel::tls_pin(other.certificate_pem)};
    CHECK(connect(to(ports[3], options)) == transport_errc::key_not_pinned);
    options.pins.push_back(runnel::tls_pin(good.certificate_pem));
    CHECK_FALSE(connect(to(ports[3], options)));
    options.verify = tls_verify::pinned_key;
    options.pins = {runnel::tls_pin(self_signed.certificate_pem)};
    CHECK_FALSE(connect(to(ports[1], options)));
    CHECK(connect(to(ports[3], options)) == transport_errc::key_not_pinned);
}

TEST_CASE("mosquitto, which resumes no sessions, is connected to again and again all the same") {
    test::mosquitto const broker;
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto options = trusting(broker);
        options.maximum = version;
        auto const transport = to(broker.port_tls(), options);
        for (int i = 0; i < 3; ++i) CHECK_FALSE(connect(transport));
    }
}
