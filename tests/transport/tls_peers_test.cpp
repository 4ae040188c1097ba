#include <runnel/testing/certificate.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls.hpp>

#include <doctest/doctest.h>

#include "support/process.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <string>
#include <vector>

// TLS with the peer that everybody has: the openssl program, as a server and as a client.

namespace {

using runnel::tls_context;
using runnel::tls_options;
using runnel::transport_errc;

// `openssl s_server`: answers each line with the line reversed (-rev).
class openssl_server {
  public:
    explicit openssl_server(std::vector<std::string> const& more = {}) {
        auto const own = authority_.issue_server();
        auto const certificate = directory_.write("server.crt", own.certificate_pem);
        auto const key = directory_.write("server.key", own.private_key_pem);
        auto const ca = directory_.write("ca.crt", authority_.certificate_pem());
        for (int attempt = 0; attempt < 5; ++attempt) {
            port_ = test::free_port();
            std::vector<std::string> command{"openssl", "s_server",  "-accept", "127.0.0.1:" + std::to_string(port_),
                                             "-cert",   certificate, "-key",    key,
                                             "-CAfile", ca,          "-rev",    "-quiet"};
            command.insert(command.end(), more.begin(), more.end());
            process_.emplace(command, (directory_.path() / "log").string());
            if (test::wait_until_ready(*process_, {port_})) return;
        }
        throw std::runtime_error("openssl s_server does not start:\n" + directory_.read("log"));
    }

    runnel::testing::certificate_authority const& authority() const noexcept { return authority_; }
    std::string log() const { return directory_.read("log"); }

    runnel::tls<runnel::tcp> transport(tls_options options = {}) const {
        options.ca_pem = authority_.certificate_pem();
        runnel::tls<runnel::tcp> result;
        result.host = "127.0.0.1";
        result.port = port_;
        result.context = tls_context(options);
        return result;
    }

  private:
    runnel::testing::certificate_authority authority_;
    test::scratch_directory directory_;
    std::uint16_t port_ = 0;
    std::optional<test::child_process> process_;
};

asio::awaitable<std::string> reversed(runnel::tls<runnel::tcp> transport, std::string line) {
    auto const executor = co_await asio::this_coro::executor;
    auto opening = transport.open(executor);
    auto stream = co_await std::move(opening);
    std::size_t const size = line.size();
    auto writing = test::write_text(stream, line + '\n');
    co_await std::move(writing);
    auto reading = test::read_exactly(stream, size);
    auto answer = co_await std::move(reading);
    co_await stream.shutdown();
    co_return answer;
}

}  // namespace

TEST_CASE("an openssl s_server answers, in TLS 1.2 and 1.3, with every cipher suite of theirs") {
    asio::io_context io;
    SUBCASE("TLS 1.3") {
        openssl_server const server({"-tls1_3"});
        for (char const* suite : {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}) {
            CAPTURE(suite);
            tls_options options;
            options.cipher_suites = suite;
            CHECK(test::run(io, reversed(server.transport(options), "abcdef")) == "fedcba");
        }
    }
    SUBCASE("TLS 1.2") {
        openssl_server const server({"-tls1_2"});
        for (char const* cipher :
             {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-SHA384"}) {
            CAPTURE(cipher);
            tls_options options;
            options.ciphers = cipher;
            CHECK(test::run(io, reversed(server.transport(options), "abcdef")) == "fedcba");
        }
    }
}

TEST_CASE("an openssl s_server that speaks TLS 1.1 at most is refused") {
    openssl_server const server({"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"});
    asio::io_context io;
    CHECK(test::error_of(io, reversed(server.transport(), "abc")) == transport_errc::no_common_protocol_version);
}

TEST_CASE("an openssl s_server verifies our certificate, and refuses one of another authority") {
    openssl_server const server({"-Verify", "1", "-verify_return_error"});
    asio::io_context io;
    auto own = server.authority().issue_client();
    tls_options options;
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    CHECK(test::run(io, reversed(server.transport(options), "mutual")) == "lautum");
    runnel::testing::certificate_authority const other("another CA");
    own = other.issue_client();
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    auto const error = test::error_of(io, reversed(server.transport(options), "mutual"));
    CHECK((error == transport_errc::own_certificate_refused || error == asio::error::connection_reset ||
           error == asio::error::broken_pipe));
}

TEST_CASE("an openssl s_server agrees on an application protocol") {
    openssl_server const server({"-alpn", "mqtt"});
    asio::io_context io;
    tls_options options;
    options.alpn = {"other", "mqtt"};
    auto const transport = server.transport(options);
    auto stream = test::run(io, transport.open(io.get_executor()));
    CHECK(stream.alpn() == "mqtt");
}

TEST_CASE("an openssl s_client finds nothing wrong with our server, and reads our close_notify") {
    runnel::testing::certificate_authority const authority;
    auto const own = authority.issue_server();
    test::scratch_directory const directory;
    auto const ca = directory.write("ca.crt", authority.certificate_pem());
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
    tls_options options;
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    tls_context const context(options);
    std::string const text = test::noise(200'000);
    auto const serve = [&]() -> asio::awaitable<std::string> {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        runnel::asio_stream lower(std::move(socket));
        runnel::tls_stream stream(std::move(lower), context, runnel::tls_role::server);
        co_await stream.handshake();
        auto writing = test::write_text(stream, text);
        co_await std::move(writing);
        std::string name(stream.requested_server_name());
        co_await stream.shutdown();
        auto reading = test::read_to_end(stream);
        co_await std::move(reading);
        co_return name;
    };
    test::task serving(io, serve());
    test::child_process client(
        {"openssl", "s_client", "-quiet", "-no_ign_eof", "-connect",
         "127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()), "-CAfile", ca, "-servername", "localhost",
         "-verify_hostname", "localhost", "-verify_return_error", "-verify_quiet", "-nocommands", "-ign_eof"},
        (directory.path() / "log").string());
    CHECK(serving.run() == "localhost");
    REQUIRE(client.wait(std::chrono::seconds(20)));
    CHECK(client.exit_status() == 0);
    CHECK((directory.read("log").find(text) != std::string::npos));
}
