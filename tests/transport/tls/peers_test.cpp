#include <runnel/testing/certificate.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/process.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include <algorithm>
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
            std::vector<std::string> command{"openssl", "s_server", "-accept", "127.0.0.1:" + std::to_string(port_),
                                             "-CAfile", ca,         "-rev",    "-quiet"};
            if (std::find(more.begin(), more.end(), "-nocert") == more.end())
                command.insert(command.end(), {"-cert", certificate, "-key", key});
            command.insert(command.end(), more.begin(), more.end());
            process_.emplace(command, (directory_.path() / "log").string());
            if (test::wait_until_ready(*process_, {port_})) return;
        }
        throw std::runtime_error("openssl s_server does not start:\n" + directory_.read("log"));
    }

    runnel::testing::certificate_authority const& authority() const noexcept { return authority_; }
    std::string log() const { return directory_.read("log"); }

    // The pin of the server's certificate, by the command that the documentation of `tls_options::pins` gives.
    std::string pin_by_openssl() const {
        auto const file = (directory_.path() / "server.crt").string();
        test::child_process command({"sh", "-c",
                                     "openssl x509 -in " + file +
                                         " -pubkey -noout | openssl pkey -pubin -outform der | "
                                         "openssl dgst -sha256 -binary | openssl base64"},
                                    (directory_.path() / "pin").string());
        if (!command.wait(std::chrono::seconds(20))) throw std::runtime_error("openssl does not end");
        auto pin = directory_.read("pin");
        if (pin.ends_with('\n')) pin.pop_back();
        return pin;
    }

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
    // Whether the alert or the end of the connection is noticed first, the reason is told.
    for (int i = 0; i < 20; ++i) {
        auto const error = test::error_of(io, reversed(server.transport(options), "mutual"));
        CHECK(error == transport_errc::own_certificate_refused);
    }
    auto const none = test::error_of(io, reversed(server.transport(), "mutual"));
    CHECK(none == transport_errc::own_certificate_required);
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

TEST_CASE("an openssl s_server resumes a client's sessions, in TLS 1.2 and 1.3, by ticket and by identifier") {
    using more = std::vector<std::string>;
    for (auto const& how : {more{"-tls1_3"}, more{"-tls1_2"}, more{"-tls1_2", "-no_ticket"}}) {
        CAPTURE(how.back());
        openssl_server const server(how);
        asio::io_context io;
        auto const transport = server.transport();
        for (int attempt = 0; attempt < 4; ++attempt) {
            auto const once = [&]() -> asio::awaitable<bool> {
                auto opening = transport.open(io.get_executor());
                auto stream = co_await std::move(opening);
                auto writing = test::write_text(stream, "abc\n");
                co_await std::move(writing);
                auto reading = test::read_exactly(stream, 3);
                auto const answer = co_await std::move(reading);
                CHECK(answer == "cba");
                bool const resumed = stream.resumed();
                // As a rule the connection is cut. But a server forgets an identifier then.
                if (how.size() > 1) co_await stream.shutdown();
                co_return resumed;
            };
            CHECK(test::run(io, once()) == (attempt > 0));
        }
    }
}

TEST_CASE("an openssl s_server and we know each other by a pre-shared key, in TLS 1.2 and 1.3") {
    std::string const hex = "000102030405060708090a0b0c0d0e0f";
    for (std::string const version : {"-tls1_2", "-tls1_3"}) {
        CAPTURE(version);
        openssl_server const server({"-nocert", "-psk", hex, "-psk_identity", "device-7", version});
        asio::io_context io;
        tls_options options;
        options.psk_identity = "device-7";
        for (char c = 0; c < 16; ++c) options.psk_key += c;
        CHECK(test::run(io, reversed(server.transport(options), "abc")) == "cba");
        options.psk_key[0] = 'x';
        CHECK(test::error_of(io, reversed(server.transport(options), "abc")) == transport_errc::pre_shared_key_refused);
    }
}

TEST_CASE("an openssl s_server that shows its certificate in place of the pre-shared key is refused") {
    openssl_server const server;
    asio::io_context io;
    tls_options options;
    options.psk_identity = "device-7";
    options.psk_key = "sixteen bytes or";
    for (auto const version : {runnel::tls_version::v1_2, runnel::tls_version::v1_3}) {
        options.maximum = version;
        CHECK(test::error_of(io, reversed(server.transport(options), "abc")) == transport_errc::pre_shared_key_refused);
    }
}

TEST_CASE("the pin of an openssl s_server's certificate is what the openssl program makes of it") {
    openssl_server const server;
    asio::io_context io;
    tls_options options;
    options.pins = {server.pin_by_openssl()};
    CHECK(test::run(io, reversed(server.transport(options), "abc")) == "cba");
    options.verify = runnel::tls_verify::pinned_key;
    CHECK(test::run(io, reversed(server.transport(options), "abc")) == "cba");
    options.pins[0][0] = options.pins[0][0] == 'A' ? 'B' : 'A';
    CHECK(test::error_of(io, reversed(server.transport(options), "abc")) == transport_errc::key_not_pinned);
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
