#include <runnel/testing/certificate.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include "support/tls_pair.hpp"
#include <string>
#include <thread>
#include <vector>

// Beyond certificates of an authority: pinned keys, pre-shared keys, sessions of before.

namespace {

using runnel::tls_context;
using runnel::tls_options;
using runnel::tls_verify;
using runnel::tls_version;
using runnel::transport_errc;
using runnel::testing::certificate_authority;
using runnel::testing::certificate_options;
using runnel::testing::identity;
using test::authority;
using test::client_options;
using test::server_options;
using test::tls_pair;

std::string const other_pin = runnel::tls_pin(certificate_authority::self_signed().certificate_pem);

tls_options pinning(std::vector<std::string> pins, tls_verify verify = tls_verify::full) {
    auto options = client_options();
    options.pins = std::move(pins);
    options.verify = verify;
    return options;
}

std::error_code outcome(tls_options const& client, tls_options const& server, std::string_view name = "localhost") {
    return tls_pair(client, server, name).handshake().client;
}

tls_options with_key(std::string identity = "device-7", std::string key = "sixteen bytes or") {
    tls_options options;
    options.psk_identity = std::move(identity);
    options.psk_key = std::move(key);
    return options;
}

// Exchanges a byte each way, so that the client has read what the server sent behind the handshake.
void exchange(tls_pair& c) {
    test::run(c.io, test::write_text(*c.client, "a"));
    CHECK(test::run(c.io, test::read_exactly(*c.server, 1)) == "a");
    test::run(c.io, test::write_text(*c.server, "b"));
    CHECK(test::run(c.io, test::read_exactly(*c.client, 1)) == "b");
}

// Whether a new connection resumes a session of an earlier one.
bool resumes(tls_context const& client, tls_context const& server, std::string_view name = "localhost") {
    tls_pair c(client, server, name);
    c.connect();
    CHECK(c.client->resumed() == c.server->resumed());
    exchange(c);
    return c.client->resumed();
}

}  // namespace

TEST_CASE("a pin is the SHA-256 of a certificate's public key") {
    auto const own = authority().issue_server();
    auto const pin = runnel::tls_pin(own.certificate_pem);
    CHECK(pin.size() == 44);
    CHECK(pin != runnel::tls_pin(authority().issue_server().certificate_pem));  // another key
    CHECK_THROWS_AS(runnel::tls_pin("no certificate"), std::system_error);
}

TEST_CASE("a server must have a pinned key in its chain besides all else, and a spare pin does no harm") {
    auto const own = authority().issue_server();
    auto const pin = runnel::tls_pin(own.certificate_pem);
    auto const ca_pin = runnel::tls_pin(authority().certificate_pem());
    auto const server = server_options(own);
    CHECK_FALSE(outcome(pinning({pin}), server));
    CHECK_FALSE(outcome(pinning({other_pin, pin}), server));
    CHECK_FALSE(outcome(pinning({ca_pin}), server));
    CHECK(outcome(pinning({other_pin}), server) == transport_errc::key_not_pinned);
    CHECK(outcome(pinning({pin}), server, "other.example") == transport_errc::host_name_mismatch);
    auto expired = authority().issue_expired_server();
    CHECK(outcome(pinning({runnel::tls_pin(expired.certificate_pem)}), server_options(expired)) ==
          transport_errc::certificate_expired);
    auto const unknown = certificate_authority::self_signed();
    CHECK(outcome(pinning({runnel::tls_pin(unknown.certificate_pem)}), server_options(unknown)) ==
          transport_errc::certificate_self_signed);
}

TEST_CASE("a key is revoked by taking its pin away, though its certificate is still valid") {
    auto const stolen = authority().issue_server();
    auto const fresh = authority().issue_server();
    auto const before = pinning({runnel::tls_pin(stolen.certificate_pem), runnel::tls_pin(fresh.certificate_pem)});
    auto const after = pinning({runnel::tls_pin(fresh.certificate_pem)});
    CHECK_FALSE(outcome(before, server_options(stolen)));
    CHECK(outcome(after, server_options(stolen)) == transport_errc::key_not_pinned);
    CHECK_FALSE(outcome(after, server_options(fresh)));
}

TEST_CASE("a pinned key alone vouches for a server, if that is what is asked for") {
    auto const own = certificate_authority::self_signed();
    auto const pin = runnel::tls_pin(own.certificate_pem);
    auto const options = pinning({pin}, tls_verify::pinned_key);
    CHECK_FALSE(outcome(options, server_options(own)));
    CHECK_FALSE(outcome(options, server_options(own), "whatever.example"));
    CHECK_FALSE(outcome(options, server_options(own), ""));
    auto const expired = authority().issue_expired_server();
    CHECK_FALSE(
        outcome(pinning({runnel::tls_pin(expired.certificate_pem)}, tls_verify::pinned_key), server_options(expired)));
    // Another key is refused, even one of a trusted authority, and even if that authority's key is pinned.
    CHECK(outcome(options, server_options()) == transport_errc::key_not_pinned);
    CHECK(outcome(pinning({runnel::tls_pin(authority().certificate_pem())}, tls_verify::pinned_key),
                  server_options()) == transport_errc::key_not_pinned);
    tls_pair c(options, server_options());
    CHECK(c.handshake().server == transport_errc::handshake_refused);  // the server is told
}

TEST_CASE("pins hold in TLS 1.2 too") {
    auto options = pinning({other_pin});
    options.maximum = tls_version::v1_2;
    CHECK(outcome(options, server_options()) == transport_errc::key_not_pinned);
}

TEST_CASE("pins that would protect nobody are refused") {
    auto const refused = [](tls_options const& options) {
        try {
            tls_context const made(options);
        } catch (std::system_error const& e) {
            return e.code() == transport_errc::tls_option_invalid;
        }
        return false;
    };
    CHECK(refused(pinning({"not base64"})));
    CHECK(refused(pinning({"c2hvcnQ="})));
    CHECK(refused(pinning({other_pin}, tls_verify::none_insecure)));
    CHECK(refused(pinning({}, tls_verify::pinned_key)));
    CHECK(refused(with_key("", "sixteen bytes or")));
    CHECK(refused(with_key("device", "too short")));
    CHECK(refused(with_key("device", std::string(65, 'x'))));
    CHECK(refused(with_key(std::string(256, 'x'))));
    CHECK(refused(with_key(std::string("a\0b", 3))));
    CHECK_FALSE(refused(with_key()));
}

TEST_CASE("a pre-shared key stands in for certificates, in both versions of TLS") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto client = with_key();
        client.maximum = version;
        for (std::string const name : {"localhost", "127.0.0.1", "a name that no certificate has", ""}) {
            CAPTURE(name);
            tls_pair c(client, with_key(), name);
            auto const result = c.handshake();
            INFO(result.text);
            REQUIRE_FALSE(result.server);
            REQUIRE_FALSE(result.client);
            CHECK(c.client->protocol_version() == (version == tls_version::v1_2 ? "TLSv1.2" : "TLSv1.3"));
            CHECK_FALSE(c.client->resumed());
            exchange(c);
        }
    }
}

TEST_CASE("another pre-shared key or identity is refused by both sides") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        CAPTURE(static_cast<int>(version));
        for (auto const& wrong : {with_key("device-7", "another sixteen bytes"), with_key("device-8")}) {
            auto client = wrong;
            client.maximum = version;
            tls_pair c(client, with_key());
            auto const result = c.handshake();
            CHECK(result.client == transport_errc::pre_shared_key_refused);
            CHECK(result.server);
        }
    }
}

TEST_CASE("what goes wrong once both have shown that they know the key is not blamed on the key") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto client = with_key();
        client.maximum = version;
        tls_pair c(client, with_key());
        c.connect();
        exchange(c);
        // A record of application data that was not made with the keys.
        std::string forged("\x17\x03\x03\x00\x20", 5);
        forged += test::noise(32);
        test::run(c.io, test::write_text(c.server->next_layer(), forged));
        CHECK(test::error_of(c.io, test::read_exactly(*c.client, 1)) == transport_errc::tls_protocol_error);
    }
}

TEST_CASE("an alert behind a handshake of TLS 1.2 does not refuse it, as when another handshake is not granted") {
    auto client = client_options();
    client.maximum = tls_version::v1_2;
    tls_pair c(client, server_options());
    c.connect();
    // The server asks for another one, and takes offence that it gets none.
    SSL* const server = c.server->native_handle();
    SSL_clear_options(server, SSL_OP_NO_RENEGOTIATION);
    REQUIRE(SSL_renegotiate(server) == 1);
    SSL_do_handshake(server);
    exchange(c);
    test::task reading(c.io, test::read_exactly(*c.client, 1));
    CHECK(test::error_of(c.io, test::read_exactly(*c.server, 1)));
    CHECK(reading.run_for_error() == transport_errc::tls_protocol_error);
}

TEST_CASE("a certificate is not taken in place of a pre-shared key, nor the other way round") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto client = with_key();
        client.ca_pem = authority().certificate_pem();
        client.maximum = version;
        CHECK(outcome(client, server_options()) == transport_errc::pre_shared_key_refused);
        auto other = client_options();
        other.maximum = version;
        CHECK(outcome(other, with_key()));
    }
}

TEST_CASE("a client resumes its session with a server, in both versions of TLS") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto options = client_options();
        options.maximum = version;
        tls_context const client(options);
        tls_context const server(server_options());
        CHECK_FALSE(resumes(client, server));
        for (int again = 0; again < 5; ++again) CHECK(resumes(client, server));
        // A copy of the context shares its sessions, another context of the same options does not.
        tls_context const copy = client;
        CHECK(resumes(copy, server));
        CHECK_FALSE(resumes(tls_context(options), server));
        // Another name is another server.
        CHECK_FALSE(resumes(client, server, "127.0.0.1"));
        CHECK(resumes(client, server, "127.0.0.1"));
    }
}

TEST_CASE("a session survives a connection that is lost, which is when it is wanted") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto options = client_options();
        options.maximum = version;
        tls_context const client(options);
        tls_context const server(server_options());
        for (int attempt = 0; attempt < 3; ++attempt) {
            tls_pair c(client, server);
            c.connect();
            CHECK(c.client->resumed() == (attempt > 0));
            exchange(c);
            c.client->next_layer().cut();
            CHECK(test::error_of(c.io, test::read_exactly(*c.client, 1)) == asio::error::connection_reset);
        }
    }
}

TEST_CASE("a server that has forgotten the session gets a full handshake") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto options = client_options();
        options.maximum = version;
        tls_context const client(options);
        CHECK_FALSE(resumes(client, tls_context(server_options())));
        CHECK_FALSE(resumes(client, tls_context(server_options())));  // restarted: other ticket keys
    }
}

TEST_CASE("sessions are not kept where that is not wanted, and not after a handshake that failed") {
    auto options = client_options();
    options.resumable_sessions = 0;
    tls_context const forgetful(options);
    tls_context const server(server_options());
    CHECK_FALSE(resumes(forgetful, server));
    CHECK_FALSE(resumes(forgetful, server));
    CHECK(forgetful.sessions() == nullptr);

    tls_context const client(client_options());
    tls_pair refusing(client, server, "wrong.example");
    CHECK(refusing.handshake().client == transport_errc::host_name_mismatch);
    CHECK(client.sessions()->size() == 0);
}

TEST_CASE("the number of sessions kept is bounded, and the newest are") {
    auto options = client_options();
    options.resumable_sessions = 2;
    tls_context const client(options);
    tls_context const server(server_options());
    CHECK_FALSE(resumes(client, server, "127.0.0.1"));
    for (int i = 0; i < 4; ++i) resumes(client, server);
    CHECK(client.sessions()->size() == 2);
    CHECK_FALSE(resumes(client, server, "127.0.0.1"));
}

TEST_CASE("a client resumes a session with a server that asks for certificates") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto const me = authority().issue_client();
        auto options = client_options();
        options.certificate_pem = me.certificate_pem;
        options.private_key_pem = me.private_key_pem;
        options.maximum = version;
        auto strict = server_options();
        strict.ca_pem = authority().certificate_pem();
        strict.require_client_certificate = true;
        tls_context const client(options);
        tls_context const server(strict);
        CHECK_FALSE(resumes(client, server));
        CHECK(resumes(client, server));
    }
}

TEST_CASE("sessions are resumed for so long after the verification, however often that is done meanwhile") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto options = client_options();
        options.maximum = version;
        options.resumption_limit = std::chrono::seconds(1);
        tls_context const client(options);
        tls_context const server(server_options());
        auto const begin = std::chrono::steady_clock::now();
        CHECK_FALSE(resumes(client, server));
        CHECK(resumes(client, server));
        while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(1100)) {
            resumes(client, server);
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
        tls_context const fresh(options);
        resumes(fresh, server);
        std::this_thread::sleep_for(std::chrono::milliseconds(600));
        CHECK(resumes(fresh, server));
        std::this_thread::sleep_for(std::chrono::milliseconds(600));
        CHECK_FALSE(resumes(fresh, server));  // though the session itself is younger
        CHECK(resumes(fresh, server));        // it was verified just now
    }
}

TEST_CASE("a certificate that has expired is found so, though sessions of before could be resumed") {
    certificate_options short_lived;
    short_lived.valid_to = std::chrono::seconds(2);
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto options = client_options();
        options.maximum = version;
        tls_context const client(options);
        tls_context const server(server_options(authority().issue(short_lived)));
        CHECK_FALSE(resumes(client, server));
        CHECK(resumes(client, server));
        CHECK(resumes(client, server));
        std::this_thread::sleep_for(std::chrono::milliseconds(2500));
        CHECK(tls_pair(client, server).handshake().client == transport_errc::certificate_expired);
        CHECK(tls_pair(client, server).handshake().client == transport_errc::certificate_expired);
    }
}

TEST_CASE("a server finds out that a client's certificate has expired, and verifies it as often as it is told to") {
    certificate_options short_lived;
    short_lived.purpose = certificate_options::use::client;
    short_lived.valid_to = std::chrono::seconds(4);
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto const me = authority().issue(short_lived);
        auto options = client_options();
        options.certificate_pem = me.certificate_pem;
        options.private_key_pem = me.private_key_pem;
        options.maximum = version;
        auto strict = server_options();
        strict.ca_pem = authority().certificate_pem();
        strict.require_client_certificate = true;
        tls_context const client(options);
        tls_context const server(strict);
        strict.resumption_limit = std::chrono::seconds(2);  // tickets tell whole seconds
        tls_context const stricter(strict);
        CHECK_FALSE(resumes(client, server));
        CHECK(resumes(client, server));
        CHECK_FALSE(resumes(client, stricter));
        CHECK(resumes(client, stricter));
        std::this_thread::sleep_for(std::chrono::milliseconds(2100));
        CHECK_FALSE(resumes(client, stricter));
        CHECK(resumes(client, stricter));
        std::this_thread::sleep_for(std::chrono::milliseconds(3000));
        CHECK(tls_pair(client, stricter).handshake().server == transport_errc::certificate_expired);
    }
}

TEST_CASE("a verification counts until its time is over by either clock, a certificate ends, or a clock is set back") {
    using namespace std::chrono_literals;
    runnel::detail::tls_moment const then{std::chrono::steady_clock::time_point(1h),
                                          std::chrono::system_clock::time_point(300h)};
    auto const later = [&](std::chrono::seconds steady, std::chrono::seconds system) {
        return runnel::detail::tls_moment{then.steady + steady, then.system + system};
    };
    runnel::detail::tls_verification verified{.at = then};
    CHECK(verified.is_good(then, 1h));
    CHECK(verified.is_good(later(3599s, 3599s), 1h));
    CHECK_FALSE(verified.is_good(later(3600s, 10s), 1h));
    CHECK_FALSE(verified.is_good(later(10s, 3600s), 1h));  // it has slept
    CHECK_FALSE(verified.is_good(later(10s, -1s), 1h));
    CHECK_FALSE(verified.is_good(then, 0s));
    verified.expires = then.system + 60s;
    CHECK(verified.is_good(later(59s, 59s), 1h));
    CHECK_FALSE(verified.is_good(later(60s, 60s), 1h));
}

TEST_CASE("how long sessions may be resumed is seven days at most, and the range is in the text") {
    for (auto const limit : {std::chrono::seconds(-1), std::chrono::seconds(7 * 24 * 3600 + 1),
                             std::chrono::seconds::max(), std::chrono::seconds::min()}) {
        auto options = client_options();
        options.resumption_limit = limit;
        try {
            tls_context const made(options);
            FAIL("it was taken");
        } catch (std::system_error const& e) {
            CHECK(e.code() == transport_errc::tls_option_invalid);
            CHECK(std::string(e.what()).find("0 s to 7 days") != std::string::npos);
        }
    }
}

TEST_CASE("a certificate without subjectAltName is for no host, unless the common name is to count") {
    certificate_options old;
    old.host_names.clear();
    old.addresses.clear();
    auto const server = server_options(authority().issue(old));
    tls_pair refusing(client_options(), server);
    CHECK(refusing.handshake().client == transport_errc::certificate_without_names);
    CHECK(outcome(client_options(), server, "127.0.0.1") == transport_errc::certificate_without_names);
    auto lenient = client_options();
    lenient.accept_common_name = true;
    CHECK_FALSE(outcome(lenient, server));
    CHECK(outcome(lenient, server, "other.example") == transport_errc::certificate_without_names);
    CHECK(outcome(lenient, server, "127.0.0.1") == transport_errc::certificate_without_names);
    // Where there are names in the right place, the common name never counts.
    certificate_options both;
    both.host_names = {"other.example"};
    auto const other = server_options(authority().issue(both));
    CHECK(outcome(client_options(), other) == transport_errc::host_name_mismatch);
    CHECK(outcome(lenient, other) == transport_errc::host_name_mismatch);
    CHECK_FALSE(outcome(lenient, other, "other.example"));
}

TEST_CASE("a chain of certificates without end is refused") {
    std::string const chain = authority().issue_server().certificate_pem;
    auto const own = authority().issue_server();
    auto server = server_options(own);
    for (int i = 0; i < 300; ++i) server.certificate_pem += chain;  // more than 100 KiB
    CHECK(outcome(client_options(), server) == transport_errc::tls_protocol_error);
}

TEST_CASE("a write that fails as the peer has refused this side tells why it has") {
    auto strict = server_options();
    strict.ca_pem = authority().certificate_pem();
    strict.require_client_certificate = true;
    for (bool const reading : {false, true}) {
        CAPTURE(reading);
        tls_pair c(client_options(), strict);
        auto const result = c.handshake();
        CHECK_FALSE(result.client);  // in TLS 1.3 the client hears of it later
        CHECK(result.server == transport_errc::certificate_missing);
        c.server.reset();  // what is written now fails below TLS
        if (reading) {
            test::task first(c.io, test::read_exactly(*c.client, 1));
            test::task writing(c.io, test::write_text(*c.client, "CONNECT"));
            CHECK(writing.run_for_error() == transport_errc::own_certificate_required);
            CHECK(first.run_for_error() == transport_errc::own_certificate_required);
        } else {
            auto const error = test::error_of(c.io, test::write_text(*c.client, "CONNECT"));
            CHECK(error == transport_errc::own_certificate_required);
        }
    }
}

TEST_CASE("a write that fails without an alert keeps its own error") {
    tls_pair c;
    c.connect();
    test::run(c.io, test::write_text(*c.server, "unread"));
    c.server.reset();
    CHECK(test::error_of(c.io, test::write_text(*c.client, "x")) == asio::error::broken_pipe);
}

TEST_CASE("handshakes with a pre-shared key or a session of before can be cancelled after any number of steps") {
    tls_context const psk(with_key());
    tls_context const client(client_options());
    tls_context const server(server_options());
    for (bool const pre_shared : {true, false}) {
        bool completed = false;
        for (int steps = 0; !completed && steps < 500; ++steps) {
            CAPTURE(steps);
            if (!pre_shared && client.sessions()->size() == 0) resumes(client, server);
            tls_pair c(pre_shared ? psk : client, pre_shared ? psk : server);
            c.client->next_layer().outgoing().max_read = 100;
            c.client->next_layer().incoming().max_read = 100;
            test::task at_client(c.io, test::shake_hands(*c.client));
            test::task at_server(c.io, test::shake_hands(*c.server));
            for (int i = 0; i < steps; ++i) c.io.poll_one();
            completed = at_client.done() && at_server.done();
            at_client.cancel();
            at_server.cancel();
            auto const client_error = at_client.run_for_error();
            auto const server_error = at_server.run_for_error();
            CHECK((!client_error || client_error == asio::error::operation_aborted));
            CHECK((!server_error || server_error == asio::error::operation_aborted));
            CHECK(at_client.ended() == 1);
            CHECK(at_server.ended() == 1);
        }
        CHECK(completed);
    }
}

TEST_CASE("a write that looks for the peer's reason can be cancelled, and its stream destroyed meanwhile") {
    for (bool const destroy : {false, true}) {
        tls_pair c;
        c.connect();
        c.client->next_layer().incoming().capacity = 0;
        // The way out is broken, the way in says nothing.
        test::run(c.io, c.client->next_layer().shutdown());
        test::task writing(c.io, test::write_text(*c.client, "x"));
        c.io.restart();
        c.io.poll();
        CHECK_FALSE(writing.done());
        if (destroy)
            c.client.reset();
        else
            writing.cancel();
        CHECK(writing.run_for_error() == asio::error::operation_aborted);
    }
}
