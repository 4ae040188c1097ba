#include <runnel/testing/certificate.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include "support/streams.hpp"
#include "support/tls_pair.hpp"
#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>

// A context whose settings are exchanged while it is in use.

namespace {

using runnel::tls_context;
using runnel::tls_options;
using runnel::tls_version;
using runnel::transport_errc;
using runnel::testing::certificate_authority;
using runnel::testing::identity;
using test::authority;
using test::client_options;
using test::server_options;
using test::tls_pair;

certificate_authority const& other_authority() {
    static certificate_authority const made("another test CA");
    return made;
}

tls_options trusting(certificate_authority const& ca, tls_version version = tls_version::v1_3) {
    tls_options o;
    o.ca_pem = ca.certificate_pem();
    o.maximum = version;
    return o;
}

void exchange(tls_pair& c) {
    test::run(c.io, test::write_text(*c.client, "a"));
    CHECK(test::run(c.io, test::read_exactly(*c.server, 1)) == "a");
    test::run(c.io, test::write_text(*c.server, "b"));
    CHECK(test::run(c.io, test::read_exactly(*c.client, 1)) == "b");
}

bool resumes(tls_context const& client, tls_context const& server) {
    tls_pair c(client, server);
    c.connect();
    exchange(c);
    return c.client->resumed();
}

std::string shown_by(tls_pair& c) {
    auto const name = X509_get_subject_name(SSL_get0_peer_certificate(c.server->native_handle()));
    char text[64];
    X509_NAME_get_text_by_NID(name, NID_commonName, text, sizeof(text));
    return text;
}

tls_options as_client(identity const& own) {
    auto o = client_options();
    o.certificate_pem = own.certificate_pem;
    o.private_key_pem = own.private_key_pem;
    return o;
}

}  // namespace

TEST_CASE("a new certificate is shown by the connections that begin later, those of copies among them") {
    auto asking = server_options();
    asking.ca_pem = authority().certificate_pem();
    asking.require_client_certificate = true;
    tls_context const server(asking);
    tls_context mine(as_client(authority().issue_client("old")));
    tls_context const copy = mine;
    tls_pair before(copy, server);
    tls_pair begun(copy, server);  // no handshake yet
    before.connect();
    exchange(before);
    mine.replace(as_client(authority().issue_client("new")));
    CHECK(copy == mine);
    begun.connect();
    CHECK(shown_by(begun) == "old");
    tls_pair after(copy, server);
    after.connect();
    CHECK(shown_by(after) == "new");
    CHECK_FALSE(after.client->resumed());
    exchange(before);
    exchange(begun);
}

TEST_CASE("no TLS session of before is resumed when the trust has changed, and peers are verified anew") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        tls_context const server{server_options()};
        tls_context client(trusting(authority(), version));
        CHECK_FALSE(resumes(client, server));
        CHECK(resumes(client, server));
        client.replace(trusting(other_authority(), version));
        CHECK(tls_pair(client, server).handshake().client == transport_errc::certificate_untrusted);
        client.replace(trusting(authority(), version));
        CHECK_FALSE(resumes(client, server));
        CHECK(resumes(client, server));
    }
}

TEST_CASE("a connection that began before leaves no session for those behind") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        tls_context const server{server_options()};
        tls_context client(trusting(authority(), version));
        tls_pair begun(client, server);
        client.replace(trusting(authority(), version));
        begun.connect();
        exchange(begun);
        CHECK(client.sessions()->size() == 0);
        CHECK_FALSE(resumes(client, server));
    }
}

TEST_CASE("a server whose clients' authority has changed takes no ticket of before") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto asking = server_options();
        asking.ca_pem = authority().certificate_pem();
        asking.require_client_certificate = true;
        tls_context server(asking);
        auto o = as_client(authority().issue_client());
        o.maximum = version;
        tls_context const client(o);
        CHECK_FALSE(resumes(client, server));
        CHECK(resumes(client, server));
        asking.ca_pem = other_authority().certificate_pem();
        server.replace(asking);
        CHECK(tls_pair(client, server).handshake().server == transport_errc::certificate_untrusted);
    }
}

TEST_CASE("settings that cannot be used change nothing, and the default context is everybody's") {
    tls_context client(client_options());
    auto const before = client.current();
    tls_options bad;
    bad.ca_file = "no/such/file";
    CHECK_THROWS_AS(client.replace(bad), std::system_error);
    CHECK(client.current() == before);
    tls_context everybodys;
    CHECK_THROWS_AS(everybodys.replace(client_options()), std::logic_error);
    CHECK(everybodys == tls_context());
}

TEST_CASE("the old settings go with the last connection that began with them") {
    tls_context client(client_options());
    std::weak_ptr<runnel::detail::tls_context_state const> const old = client.current();
    {
        tls_pair c(client, tls_context(server_options()));
        client.replace(client_options());
        CHECK_FALSE(old.expired());
        c.connect();
        exchange(c);
    }
    CHECK(old.expired());
}

TEST_CASE("settings are exchanged in one thread while others connect") {
    tls_context client(client_options());
    tls_context const server{server_options()};
    std::atomic<bool> done = false;
    std::thread exchanging([&] {
        for (int i = 0; i < 50; ++i) client.replace(client_options());
        done = true;
    });
    int connections = 0;
    do {
        tls_pair c(client, server);
        auto const result = c.handshake();
        CHECK_FALSE(result.client);
        ++connections;
    } while (!done);
    exchanging.join();
    CHECK(connections > 0);
}
