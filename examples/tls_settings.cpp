// TLS beyond a file of authorities: mutual TLS, revocation lists, stapled status, a mark on the packets, and a
// certificate that is renewed while the session goes on. At the end the server's own certificate is revoked, and the
// session gives up.
//
// The broker and the authority live in this process. `tls_settings keys.log` writes the secrets of the connections to
// that file, for Wireshark.
#include <runnel/runnel.hpp>
#include <runnel/testing/broker/broker.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/tls.hpp>
#include <runnel/transport/socket_options.hpp>
#include <runnel/transport/tls/ocsp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include <cstdio>
#include <stdexcept>
#include <string>

namespace mqtt = runnel::mqtt;
using runnel::testing::certificate_authority;
using runnel::testing::identity;
using session = mqtt::session<runnel::mqtts>;

runnel::tls_options server_options(certificate_authority const& authority, identity const& own) {
    runnel::tls_options o;
    o.certificate_pem = own.certificate_pem;
    o.private_key_pem = own.private_key_pem;
    o.ca_pem = authority.certificate_pem();
    o.require_client_certificate = true;
    return o;
}

runnel::tls_options client_options(certificate_authority const& authority, std::string const& name) {
    auto const own = authority.issue_client(name);
    runnel::tls_options o;
    o.ca_pem = authority.certificate_pem();
    o.certificate_pem = own.certificate_pem;
    o.private_key_pem = own.private_key_pem;
    o.crl_check = runnel::tls_crl_check::chain;
    o.crl_pem = authority.revocation_list({});
    o.status_check = runnel::ocsp_stapling();  // what a server staples is checked
    return o;
}

asio::awaitable<void> talk(session& s, runnel::testing::broker& broker, runnel::tls_context context,
                           runnel::tls_options settings, certificate_authority const& authority,
                           identity const& server) {
    auto inbox = co_await s.subscribe("readings");
    co_await s.publish("readings", "21.5", {.qos = mqtt::qos::at_least_once});
    auto message = co_await inbox.receive();
    std::printf("received %s\n", std::string(message.payload()).c_str());

    auto const renewed = authority.issue_client("pump-7, renewed");
    settings.certificate_pem = renewed.certificate_pem;
    settings.private_key_pem = renewed.private_key_pem;
    context.replace(settings);  // the session's copy of the context has it, too
    std::puts("the certificate is renewed; the connection is lost");
    broker.drop_client("pump-7");
    co_await s.publish("readings", "21.7", {.qos = mqtt::qos::at_least_once});
    message = co_await inbox.receive();
    std::printf("received %s\n", std::string(message.payload()).c_str());

    settings.crl_pem = authority.revocation_list({server});
    context.replace(settings);
    std::puts("the server's certificate is revoked; the connection is lost");
    broker.drop_client("pump-7");
}

int main(int argc, char** argv) try {
    asio::io_context io;
    certificate_authority const authority;
    auto const server = authority.issue_server();
    runnel::testing::broker broker{io.get_executor()};

    auto settings = client_options(authority, "pump-7");
    if (argc > 1) settings.key_log_file = argv[1];
    runnel::mqtts transport{.host = "localhost"};
    transport.port = broker.listen(runnel::testing::over_tls(runnel::tls_context(server_options(authority, server))));
    transport.context = runnel::tls_context(settings);
    transport.next.socket = runnel::socket_options{.local_address = "127.0.0.1"};

    mqtt::session_options options;
    options.credentials.client_id = "pump-7";
    options.reconnect.initial = std::chrono::milliseconds(10);
    session s{io.get_executor(), transport, options};

    int running = 2;
    std::exception_ptr failure;
    std::error_code end;
    asio::co_spawn(io, s.run(), [&](std::exception_ptr error) {
        --running;
        try {
            if (error) std::rethrow_exception(error);
        } catch (std::system_error const& e) {
            end = e.code();
            std::printf("the session has ended: %s\n", e.what());
        }
    });
    asio::co_spawn(io, talk(s, broker, transport.context, settings, authority, server), [&](std::exception_ptr error) {
        --running;
        failure = error;
    });
    while (running > 0) io.run_one();
    if (failure) std::rethrow_exception(failure);
    if (end != runnel::transport_errc::certificate_revoked) throw std::runtime_error("it should have been refused");
} catch (std::exception const& error) {
    std::fprintf(stderr, "failed: %s\n", error.what());
    return 1;
}
