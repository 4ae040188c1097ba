#include <runnel/coro/capture_error.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/sample.hpp"
#include "support/streams.hpp"
#include "support/tls_pair.hpp"
#include <array>
#include <memory>
#include <optional>

namespace {

using runnel::capture_error;
using runnel::tls_context;
using runnel::tls_options;
using runnel::tls_role;
using runnel::tls_version;
using runnel::transport_errc;
using runnel::testing::certificate_authority;
using runnel::testing::identity;
using memory = runnel::memory_stream<>;
using test::authority;
using test::client_options;
using test::server_options;
using test::shake_hands;
using test::tls_stream;
using connected = test::tls_pair;

static_assert(runnel::stream<tls_stream>);
static_assert(runnel::stream<runnel::tls_stream<tls_stream>>);
static_assert(runnel::network_transport<runnel::tls<runnel::tcp>>);
static_assert(runnel::network_transport<runnel::tls<runnel::memory_transport>>);
static_assert(runnel::tls<runnel::tcp>::secure);
// See capture_error_test.cpp.
static_assert(requires(tls_stream& s, runnel::tls<runnel::tcp>& t, test::executor on, asio::mutable_buffer into,
                       runnel::send_buffer& out, std::error_code& e) {
    capture_error(s.handshake(), e);
    capture_error(s.read_some(into), e);
    capture_error(s.write(out), e);
    capture_error(s.shutdown(), e);
    capture_error(t.open(on), e);
});

// Can be read when it cannot be written to any more.
struct one_way_stream {
    using executor_type = memory::executor_type;
    static constexpr std::size_t headroom = 0;
    executor_type get_executor() const { return next.get_executor(); }
    asio::awaitable<std::size_t> read_some(asio::mutable_buffer into) { return next.read_some(into); }
    asio::awaitable<void> write(runnel::send_buffer& out) { return *is_cut ? fail() : next.write(out); }
    asio::awaitable<void> shutdown() { return next.shutdown(); }
    static asio::awaitable<void> fail() {
        throw std::system_error(asio::error::broken_pipe);
        co_return;
    }
    memory next;
    bool const* is_cut;
};

// A client that cannot write any more once its server has asked for something that is to be answered.
struct one_way_client {
    explicit one_way_client(tls_version version)
        : client({std::move(ends.first), &is_cut}, tls_context(client_options()), tls_role::client, "localhost"),
          server(std::move(ends.second), tls_context(server_of(version)), tls_role::server) {
        test::task shaking(io, server.handshake());
        test::run(io, client.handshake());
        shaking.run();
    }
    static runnel::tls_options server_of(tls_version version) {
        auto options = server_options();
        options.maximum = version;
        return options;
    }

    // In TLS 1.2 for another handshake, which the client does not want and says so, else for new keys: twice, as
    // OpenSSL answers when it reads the next or writes.
    void ask() {
        is_cut = true;
        SSL* const ssl = server.native_handle();
        SSL_clear_options(ssl, SSL_OP_NO_RENEGOTIATION);
        bool const old = server.protocol_version() == "TLSv1.2";
        for (int i = 0; i < (old ? 1 : 2); ++i) {
            CHECK((old ? SSL_renegotiate(ssl) : SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED)) == 1);
            CHECK(SSL_do_handshake(ssl) == 1);
        }
        serving.emplace(io, test::read_exactly(server, 1));
        io.restart();
        io.poll();
    }

    asio::io_context io;
    std::pair<memory, memory> ends = memory::pair(io.get_executor());
    bool is_cut = false;
    runnel::tls_stream<one_way_stream> client;
    tls_stream server;
    std::optional<test::task<std::string>> serving;  // sends the question
};

}  // namespace

TEST_CASE("a TLS client and server shake hands and carry bytes both ways") {
    connected c;
    c.connect();
    CHECK(c.client->protocol_version() == "TLSv1.3");
    CHECK_FALSE(c.client->cipher().empty());
    CHECK(c.server->requested_server_name() == "localhost");
    test::run(c.io, test::write_text(*c.client, "there"));
    test::run(c.io, test::write_text(*c.server, "and back"));
    CHECK(test::run(c.io, test::read_exactly(*c.server, 5)) == "there");
    CHECK(test::run(c.io, test::read_exactly(*c.client, 8)) == "and back");
}

TEST_CASE("what goes over a TLS stream cannot be read below it") {
    connected c;
    c.connect();
    test::run(c.io, test::write_text(*c.client, "a secret nobody may see"));
    std::string raw(1000, '\0');
    raw.resize(test::run(c.io, c.server->next_layer().read_some(asio::buffer(raw))));
    CHECK(raw.size() > 23);
    CHECK(raw.find("secret") == std::string::npos);
}

TEST_CASE("TLS 1.2 is spoken with a peer that has nothing newer") {
    auto old = server_options();
    old.maximum = runnel::tls_version::v1_2;
    connected c(client_options(), old);
    c.connect();
    CHECK(c.client->protocol_version() == "TLSv1.2");
    test::run(c.io, test::write_text(*c.client, "there"));
    CHECK(test::run(c.io, test::read_exactly(*c.server, 5)) == "there");
}

TEST_CASE("a TLS peer older than 1.2 is refused") {
    tls_context const client(client_options());
    tls_context const server(server_options());
    // Only by OpenSSL's own function, as the options do not allow it.
    SSL_CTX_set_min_proto_version(server.native_handle(), TLS1_VERSION);
    SSL_CTX_set_max_proto_version(server.native_handle(), TLS1_1_VERSION);
    SSL_CTX_set_security_level(server.native_handle(), 0);
    connected c(client, server);
    auto const result = c.handshake();
    CHECK(result.client == transport_errc::no_common_protocol_version);
    CHECK(result.server == transport_errc::no_common_protocol_version);
}

TEST_CASE("a server whose authority is unknown is refused, and is told so") {
    auto options = client_options();
    SUBCASE("one of another name") {
        certificate_authority const other("another CA");
        options.ca_pem = other.certificate_pem();
    }
    SUBCASE("one that only has the same name") {
        certificate_authority const other;
        options.ca_pem = other.certificate_pem();
    }
    connected c(options);
    auto const result = c.handshake();
    CHECK(result.client == transport_errc::certificate_untrusted);
    CHECK(result.server == transport_errc::own_certificate_refused);
    CHECK(result.text.find("unable to get local issuer certificate") != std::string::npos);
}

TEST_CASE("the system's authorities do not vouch for the authority of these tests") {
    connected c(tls_options{});
    CHECK(c.handshake().client == transport_errc::certificate_untrusted);
}

TEST_CASE("a self-signed server is refused, unless its certificate is trusted itself") {
    identity const own = certificate_authority::self_signed();
    connected c(client_options(), server_options(own));
    CHECK(c.handshake().client == transport_errc::certificate_self_signed);
    tls_options trusting;
    trusting.ca_pem = own.certificate_pem;
    connected d(trusting, server_options(own));
    d.connect();
}

TEST_CASE("a server with the certificate of another host is refused") {
    connected c(client_options(), server_options(authority().issue_server("wrong.example")));
    auto const result = c.handshake();
    CHECK(result.client == transport_errc::host_name_mismatch);
    connected d(client_options(), server_options(authority().issue_server("wrong.example")), "wrong.example");
    d.connect();
}

TEST_CASE("the address of a server is checked against the addresses of its certificate") {
    for (char const* address : {"127.0.0.1", "::1"}) {
        CAPTURE(address);
        connected c(client_options(), server_options(), address);
        c.connect();
        CHECK(c.server->requested_server_name().empty());  // SNI is for names only
    }
    connected other(client_options(), server_options(), "127.0.0.2");
    CHECK(other.handshake().client == transport_errc::host_name_mismatch);
    // A name that looks like the address does not stand for it.
    connected named(client_options(), server_options(authority().issue_server("127.0.0.1")), "127.0.0.1");
    CHECK(named.handshake().client == transport_errc::host_name_mismatch);
}

TEST_CASE("wildcards of a certificate stand for one whole label") {
    identity const own = authority().issue_server("*.broker.example");
    auto const outcome = [&](char const* name) {
        connected c(client_options(), server_options(own), name);
        return c.handshake().client;
    };
    CHECK_FALSE(outcome("a.broker.example"));
    CHECK_FALSE(outcome("a.broker.example."));
    CHECK_FALSE(outcome("A.Broker.Example"));
    CHECK(outcome("broker.example") == transport_errc::host_name_mismatch);
    CHECK(outcome("a.b.broker.example") == transport_errc::host_name_mismatch);
}

TEST_CASE("an expired certificate and one that is not yet valid are refused") {
    connected c(client_options(), server_options(authority().issue_expired_server()));
    CHECK(c.handshake().client == transport_errc::certificate_expired);
    runnel::testing::certificate_options future;
    future.valid_from = std::chrono::hours(1);
    connected d(client_options(), server_options(authority().issue(future)));
    CHECK(d.handshake().client == transport_errc::certificate_not_yet_valid);
}

TEST_CASE("a client's certificate is not accepted of a server") {
    runnel::testing::certificate_options options;
    options.purpose = runnel::testing::certificate_options::use::client;
    connected c(client_options(), server_options(authority().issue(options)));
    CHECK(c.handshake().client == transport_errc::certificate_invalid);
}

TEST_CASE("only the one loud option accepts a server that nobody vouches for") {
    tls_options careless;
    careless.verify = runnel::tls_verify::none_insecure;
    connected c(careless, server_options(authority().issue_expired_server()), "anything.example");
    c.connect();
    connected unnamed(careless, server_options(), "");
    unnamed.connect();
}

TEST_CASE("without a host name there is nothing to verify, which is an error") {
    connected c(client_options(), server_options(), "");
    CHECK(c.handshake().client == transport_errc::host_name_missing);
    CHECK(c.client->next_layer().outgoing().bytes == 0);
    for (std::string const& name : {std::string("127.0.0.1\0.example", 18), std::string("localhost\0", 10)}) {
        connected cut(client_options(), server_options(), name);
        CHECK(cut.handshake().client == transport_errc::host_name_missing);
    }
}

TEST_CASE("a server that requires a client certificate accepts those of its authority only") {
    auto server = server_options();
    server.ca_pem = authority().certificate_pem();
    server.require_client_certificate = true;
    auto client = client_options();
    SUBCASE("a good one") {
        identity const own = authority().issue_client();
        client.certificate_pem = own.certificate_pem;
        client.private_key_pem = own.private_key_pem;
        connected c(client, server);
        c.connect();
        test::run(c.io, test::write_text(*c.client, "me"));
        CHECK(test::run(c.io, test::read_exactly(*c.server, 2)) == "me");
    }
    SUBCASE("none, of which TLS 1.3 tells the client behind the handshake") {
        connected c(client, server);
        auto const result = c.handshake();
        CHECK_FALSE(result.client);
        CHECK(result.server == transport_errc::certificate_missing);
        CHECK(test::error_of(c.io, test::read_exactly(*c.client, 1)) == transport_errc::own_certificate_required);
    }
    SUBCASE("none, with TLS 1.2") {
        client.maximum = runnel::tls_version::v1_2;
        connected c(client, server);
        auto const result = c.handshake();
        CHECK(result.server == transport_errc::certificate_missing);
        CHECK(result.client == transport_errc::handshake_refused);
    }
    SUBCASE("one of another authority") {
        certificate_authority const other;
        identity const own = other.issue_client();
        client.certificate_pem = own.certificate_pem;
        client.private_key_pem = own.private_key_pem;
        connected c(client, server);
        auto const result = c.handshake();
        CHECK(result.server == transport_errc::certificate_untrusted);
        CHECK(test::error_of(c.io, test::read_exactly(*c.client, 1)) == transport_errc::own_certificate_refused);
    }
}

TEST_CASE("client and server agree on an application protocol, or refuse each other") {
    auto client = client_options();
    auto server = server_options();
    client.alpn = {"x-amzn-mqtt-ca", "mqtt"};
    server.alpn = {"mqtt", "http/1.1"};
    connected c(client, server);
    c.connect();
    CHECK(c.client->alpn() == "mqtt");
    CHECK(c.server->alpn() == "mqtt");
    server.alpn = {"http/1.1"};
    connected d(client, server);
    auto const result = d.handshake();
    CHECK(result.client == transport_errc::no_common_application_protocol);
    CHECK(result.server == transport_errc::no_common_application_protocol);
    connected e(client_options(), server_options());
    e.connect();
    CHECK(e.client->alpn().empty());
}

TEST_CASE("peers without a common cipher refuse each other") {
    auto client = client_options();
    auto server = server_options();
    client.maximum = server.maximum = runnel::tls_version::v1_2;
    client.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
    server.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384";
    connected c(client, server);
    auto const result = c.handshake();
    CHECK(result.server == transport_errc::no_common_cipher);
    CHECK(result.client == transport_errc::handshake_refused);
}

TEST_CASE("a peer that does not speak TLS is told from one that does it badly") {
    connected c;
    test::task at_client(c.io, shake_hands(*c.client));
    test::run(c.io, test::write_text(c.server->next_layer(), "HTTP/1.1 400 Bad Request\r\n\r\n"));
    CHECK(at_client.run_for_error() == transport_errc::not_tls);
}

TEST_CASE("a TLS handshake that fails says with whom, and what usually is the reason") {
    auto const text = [](std::error_code code, std::string const& doing) {
        return std::string(runnel::handshake_error(std::system_error(code, doing), "broker.example").what());
    };
    auto const cut = text(transport_errc::stream_truncated, "TLS handshake");
    CHECK(cut.starts_with("TLS handshake with broker.example (is this a TLS port?): "));
    CHECK(text(asio::error::connection_reset, {})
              .starts_with("TLS handshake with broker.example (is this a TLS port?): "));
    auto const other = text(transport_errc::certificate_expired, "TLS handshake (certificate has expired)");
    CHECK(other.starts_with("TLS handshake with broker.example (certificate has expired): "));
}

TEST_CASE("a TLS stream delivers what one-byte reads below bring") {
    connected c;
    c.client->next_layer().outgoing().max_read = 1;
    c.client->next_layer().incoming().max_read = 1;
    c.connect();
    std::string const text = test::noise(5000);
    test::task writing(c.io, test::write_text(*c.client, text));
    CHECK((test::run(c.io, test::read_exactly(*c.server, text.size())) == text));
    writing.run();
}

TEST_CASE("a TLS stream delivers into rooms of one byte") {
    connected c;
    c.connect();
    test::run(c.io, test::write_text(*c.client, "one by one"));
    CHECK(test::run(c.io, test::read_exactly(*c.server, 10, 1)) == "one by one");
}

TEST_CASE("large payloads go both ways over TLS at the same time") {
    connected c;
    c.connect();
    std::string const there = test::noise(3'000'000, 1);
    std::string const back = test::noise(3'000'000, 2);
    test::task writing_there(c.io, test::write_text(*c.client, there));
    test::task writing_back(c.io, test::write_text(*c.server, back));
    test::task reading_there(c.io, test::read_exactly(*c.server, there.size()));
    test::task reading_back(c.io, test::read_exactly(*c.client, back.size()));
    CHECK((reading_there.run() == there));
    CHECK((reading_back.run() == back));
    writing_there.run();
    writing_back.run();
}

TEST_CASE("a large TLS write is encrypted slice by slice, not as a whole") {
    connected c;
    c.connect();
    auto& flow = c.client->next_layer().outgoing();
    std::size_t const before = flow.writes;
    std::string const text = test::noise(10 * runnel::detail::tls_engine::slice);
    test::task writing(c.io, test::write_text(*c.client, text));
    CHECK((test::run(c.io, test::read_exactly(*c.server, text.size())) == text));
    writing.run();
    CHECK(flow.writes - before == 10);
}

TEST_CASE("key updates are answered while both sides write, and the records do not mix") {
    connected c;
    c.connect();
    std::string const there = test::noise(400'000, 3);
    std::string const back = test::noise(400'000, 4);
    auto const write_with_updates = [](tls_stream& stream, std::string const& text) -> asio::awaitable<void> {
        for (std::size_t at = 0; at < text.size(); at += 10'000) {
            SSL_key_update(stream.native_handle(), SSL_KEY_UPDATE_REQUESTED);
            co_await test::write_text(stream, text.substr(at, 10'000));
        }
    };
    test::task writing_there(c.io, write_with_updates(*c.client, there));
    test::task writing_back(c.io, write_with_updates(*c.server, back));
    test::task reading_there(c.io, test::read_exactly(*c.server, there.size()));
    test::task reading_back(c.io, test::read_exactly(*c.client, back.size()));
    CHECK((reading_there.run() == there));
    CHECK((reading_back.run() == back));
    writing_there.run();
    writing_back.run();
}

TEST_CASE("what could not be answered while bytes came is told to the next read, also where more has come") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        one_way_client c(version);
        c.ask();
        test::run(c.io, test::write_text(c.server, "one"));
        test::run(c.io, test::write_text(c.server, "two"));
        CHECK(test::run(c.io, test::read_exactly(c.client, 3)) == "one");
        CHECK(test::error_of(c.io, test::read_exactly(c.client, 3)) == asio::error::broken_pipe);
    }
}

TEST_CASE("a reader that cannot answer reads on, to why the peer ends the connection") {
    enum class end { refused, closed, cut };
    for (auto const how : {end::refused, end::closed, end::cut})
        for (bool const with_bytes : {false, true}) {
            CAPTURE(static_cast<int>(how));
            CAPTURE(with_bytes);
            one_way_client c(tls_version::v1_3);
            c.ask();
            if (with_bytes) {
                test::run(c.io, test::write_text(c.server, "one"));
                CHECK(test::run(c.io, test::read_exactly(c.client, 3)) == "one");
            }
            test::task reading(c.io, test::read_exactly(c.client, 1));
            c.io.restart();
            c.io.poll();
            CHECK_FALSE(reading.done());
            std::string const forged = std::string("\x17\x03\x03\0\x20", 5) + std::string(32, 'x');
            if (how == end::refused)
                test::run(c.io, test::write_text(c.client.next_layer().next, forged));
            else if (how == end::closed)
                test::run(c.io, c.server.shutdown());
            else
                c.server.next_layer().cut();
            c.io.restart();
            c.io.poll();
            CHECK(reading.done());  // without waiting for any time limit
            auto const error = reading.run_for_error();
            if (how == end::refused) CHECK(error == transport_errc::tls_protocol_error);
            if (how == end::closed) CHECK(error == asio::error::eof);
            if (how == end::cut) CHECK(error == asio::error::broken_pipe);
        }
}

TEST_CASE("a reader that cannot answer a peer that says nothing more ends all the same") {
    one_way_client c(tls_version::v1_3);
    c.ask();
    test::task reading(c.io, test::read_exactly(c.client, 1));
    CHECK(reading.run_for_error() == asio::error::broken_pipe);
}

TEST_CASE("the peer of a TLS stream that is shut down reads eof, and can still write") {
    connected c;
    c.connect();
    test::run(c.io, test::write_text(*c.client, "last"));
    test::run(c.io, c.client->shutdown());
    auto const got = test::run(c.io, test::read_to_end(*c.server));
    CHECK(got.text == "last");
    CHECK(got.end == asio::error::eof);
    test::run(c.io, test::write_text(*c.server, "answer"));
    CHECK(test::run(c.io, test::read_exactly(*c.client, 6)) == "answer");
    CHECK(test::error_of(c.io, test::write_text(*c.client, "more")) == transport_errc::stream_broken);
    CHECK(test::error_of(c.io, test::read_exactly(*c.server, 1)) == asio::error::eof);
}

TEST_CASE("the end of the stream below without close_notify is a truncation, not eof") {
    connected c;
    c.connect();
    test::run(c.io, test::write_text(*c.client, "half a"));
    test::run(c.io, c.client->next_layer().shutdown());
    auto const got = test::run(c.io, test::read_to_end(*c.server));
    CHECK(got.text == "half a");
    CHECK(got.end == transport_errc::stream_truncated);
}

TEST_CASE("shutdown of a TLS stream whose peer takes nothing ends in time") {
    connected c;
    c.connect();
    auto& flow = c.client->next_layer().outgoing();
    flow.capacity = 0;
    CHECK(test::error_of(c.io, c.client->shutdown()) == transport_errc::shutdown_timeout);
}

TEST_CASE("nothing is sent into a record that was cut off, not even the end") {
    connected c;
    c.connect();
    auto& flow = c.client->next_layer().outgoing();
    flow.capacity = 10;
    test::task writing(c.io, test::write_text(*c.client, std::string(1000, 'x')));
    c.io.restart();
    while (c.io.poll() != 0) {
    }
    writing.cancel();
    CHECK(writing.run_for_error() == asio::error::operation_aborted);
    auto const sent = flow.bytes;
    flow.capacity = 100'000;
    CHECK_FALSE(test::error_of(c.io, c.client->shutdown()));
    CHECK(flow.bytes == sent);
    CHECK(test::run(c.io, test::read_to_end(*c.server)).end == transport_errc::stream_truncated);
}

TEST_CASE("a forged record ends a TLS stream with an error") {
    connected c;
    c.connect();
    // An application data record (23) of TLS 1.2's number, whose 32 bytes were not made with the keys.
    std::string forged("\x17\x03\x03\x00\x20", 5);
    forged += test::noise(32);
    test::run(c.io, test::write_text(c.client->next_layer(), forged));
    CHECK(test::error_of(c.io, test::read_exactly(*c.server, 1)) == transport_errc::tls_protocol_error);
    CHECK(test::error_of(c.io, test::read_exactly(*c.server, 1)) == transport_errc::tls_protocol_error);
    // The peer is told.
    CHECK(test::error_of(c.io, test::read_exactly(*c.client, 1)) == transport_errc::tls_protocol_error);
}

TEST_CASE("a TLS handshake cut at any byte of either direction ends on both sides with an error") {
    for (std::size_t end : {0U, 1U}) {
        std::size_t cuts = 0;
        for (std::size_t cut = 0;; cut += test::every(7)) {
            CAPTURE(end);
            CAPTURE(cut);
            static tls_context const client(client_options());
            static tls_context const server(server_options());
            connected c(client, server);
            auto& flow = end == 0 ? c.client->next_layer().outgoing() : c.server->next_layer().outgoing();
            flow.cut_after = cut;
            flow.cut_error = asio::error::eof;
            auto const result = c.handshake();
            if (flow.bytes < cut) break;  // the handshake was complete before the cut
            ++cuts;
            if (end == 0) REQUIRE(result.server);
            // A side that had all it needed finds that it cannot answer.
            for (auto const& error : {result.client, result.server}) {
                if (error) REQUIRE((error == transport_errc::stream_truncated || error == asio::error::broken_pipe));
            }
        }
        CHECK(cuts > 300 / test::every(7));
    }
}

TEST_CASE("a TLS stream can be cancelled after any number of steps of its handshake, and ends once") {
    static tls_context const client(client_options());
    static tls_context const server(server_options());
    bool completed = false;
    for (int steps = 0; !completed && steps < 1000; ++steps) {
        CAPTURE(steps);
        connected c(client, server);
        c.client->next_layer().outgoing().max_read = 100;
        c.client->next_layer().incoming().max_read = 100;
        test::task at_client(c.io, shake_hands(*c.client));
        test::task at_server(c.io, shake_hands(*c.server));
        for (int i = 0; i < steps; ++i) c.io.poll_one();
        completed = at_client.done() && at_server.done();
        at_client.cancel();
        at_server.cancel();
        auto const client_error = at_client.run_for_error();
        auto const server_error = at_server.run_for_error();
        CHECK((!client_error || client_error == asio::error::operation_aborted));
        CHECK((!server_error || server_error == asio::error::operation_aborted));
        if (steps < 3) CHECK(server_error == asio::error::operation_aborted);
        CHECK(at_client.ended() == 1);
        CHECK(at_server.ended() == 1);
    }
    CHECK(completed);
}

TEST_CASE("reads, writes and shutdown of a TLS stream can be cancelled while they wait") {
    connected c;
    c.connect();
    c.client->next_layer().outgoing().capacity = 100;
    test::task reading(c.io, test::read_exactly(*c.client, 1));
    test::task writing(c.io, test::write_text(*c.client, test::noise(100'000)));
    test::task next(c.io, test::write_text(*c.client, "waits for its turn"));
    test::task ending(c.io, c.client->shutdown());
    c.io.poll();
    reading.cancel();
    next.cancel();
    ending.cancel();
    CHECK(reading.run_for_error() == asio::error::operation_aborted);
    CHECK(next.run_for_error() == asio::error::operation_aborted);
    CHECK(ending.run_for_error() == asio::error::operation_aborted);
    CHECK_FALSE(writing.done());
    writing.cancel();
    CHECK(writing.run_for_error() == asio::error::operation_aborted);
    // Half a record has left: nothing may follow it.
    CHECK(test::error_of(c.io, test::write_text(*c.client, "more")) == transport_errc::stream_broken);
}

TEST_CASE("nothing is left behind when the context ends while a TLS stream reads, writes and waits for its turn") {
    auto const witness = std::make_shared<int>(0);
    {
        connected c;
        c.connect();
        c.client->next_layer().outgoing().capacity = 100;
        auto const hold = [](asio::awaitable<void> what, std::shared_ptr<int>) -> asio::awaitable<void> {
            co_await std::move(what);
        };
        auto const read = [](tls_stream& stream) -> asio::awaitable<void> { co_await test::read_exactly(stream, 1); };
        auto const ignore = [](std::exception_ptr) {};
        asio::co_spawn(c.io, hold(read(*c.client), witness), ignore);
        asio::co_spawn(c.io, hold(test::write_text(*c.client, test::noise(100'000)), witness), ignore);
        asio::co_spawn(c.io, hold(test::write_text(*c.client, "next"), witness), ignore);
        c.io.restart();
        c.io.poll();
        CHECK(witness.use_count() == 4);
    }
    CHECK(witness.use_count() == 1);
}

TEST_CASE("a tls transport opens the transport below and shakes hands") {
    asio::io_context io;
    std::optional<tls_stream> server;
    std::optional<test::task<void>> serving;
    tls_context const server_context(server_options());
    runnel::tls<runnel::memory_transport> transport{.host = "localhost",
                                                    .port = 0,
                                                    .context = tls_context(client_options()),
                                                    .server_name = {},
                                                    .next = runnel::memory_transport([&](memory end) {
                                                        server.emplace(std::move(end), server_context,
                                                                       tls_role::server);
                                                        serving.emplace(io, shake_hands(*server));
                                                    })};
    auto client = test::run(io, transport.open(io.get_executor()));
    serving->run();
    test::run(io, test::write_text(client, "hi"));
    CHECK(test::run(io, test::read_exactly(*server, 2)) == "hi");
    CHECK(transport.url() == "tls://localhost:8883");

    transport.host = "somewhere.example";
    CHECK(test::error_of(io, transport.open(io.get_executor())) == transport_errc::host_name_mismatch);
    transport.server_name = "localhost";
    CHECK_FALSE(test::error_of(io, transport.open(io.get_executor())));
}

TEST_CASE("of a TLS server that falls silent it is known that it has, and opening can be cancelled") {
    asio::io_context io;
    std::optional<memory> server;
    runnel::tls<runnel::memory_transport> transport{
        .host = "localhost",
        .port = 0,
        .context = tls_context(client_options()),
        .server_name = {},
        .next = runnel::memory_transport([&](memory end) { server.emplace(std::move(end)); })};
    runnel::connect_progress progress;
    progress.begin({});
    test::task opening(io, transport.open(io.get_executor(), &progress));
    io.poll();
    CHECK(progress.step() == runnel::connect_step::tls);
    CHECK(progress.doing() == "TLS handshake with tls://localhost:8883");
    opening.cancel();
    CHECK(opening.run_for_error() == asio::error::operation_aborted);
}

TEST_CASE("a tls transport connects over tcp") {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io, {asio::ip::make_address("127.0.0.1"), 0});
    auto const serve = [&]() -> asio::awaitable<std::string> {
        auto socket = co_await acceptor.async_accept(asio::use_awaitable);
        runnel::asio_stream lower(std::move(socket));
        runnel::tls_stream stream(std::move(lower), tls_context(server_options()), tls_role::server);
        co_await stream.handshake();
        co_return co_await test::read_exactly(stream, 100'000);
    };
    test::task serving(io, serve());
    // The name is for the certificate; where to connect to may be said apart.
    runnel::tls<runnel::tcp> transport;
    transport.host = "localhost";
    transport.port = 1;
    transport.context = tls_context(client_options());
    transport.next.host = "127.0.0.1";
    transport.next.port = acceptor.local_endpoint().port();
    auto client = test::run(io, transport.open(io.get_executor()));
    std::string const text = test::noise(100'000);
    test::run(io, test::write_text(client, text));
    CHECK((serving.run() == text));
}

TEST_CASE("tls transports are equal if they share their context and their settings are the same") {
    runnel::tls<runnel::tcp> a;
    a.host = "broker.example";
    auto b = a;
    CHECK(a == b);
    b.context = tls_context(client_options());
    CHECK_FALSE(a == b);
    a.context = b.context;
    CHECK(a == b);
    a.next.no_delay = false;
    CHECK_FALSE(a == b);
}
