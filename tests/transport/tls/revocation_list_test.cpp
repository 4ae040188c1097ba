#include <runnel/transport/lasting_error.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/any_certificate.hpp"
#include "support/process.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include "support/tls_pair.hpp"
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <thread>

// Lists of revoked certificates, and a chain that ends at an authority which is trusted for itself.

namespace {

using runnel::tls_context;
using runnel::tls_crl_check;
using runnel::tls_options;
using runnel::tls_verify;
using runnel::transport_errc;
using test::any_certificate;
using test::certificate_request;
using test::tls_pair;

// A root, an authority between, and servers of both.
struct family {
    any_certificate root{test::authority_request("root")};
    any_certificate between{test::authority_request("between"), root};
    any_certificate good{{}, root};
    any_certificate bad{{}, root};
    any_certificate below{{}, between};
    any_certificate bad_below{{}, between};
};
family const& all() {
    static family const made;
    return made;
}

tls_options server_of(any_certificate const& own, std::string const& chain = {}) {
    tls_options o;
    o.certificate_pem = own.certificate_pem() + chain;
    o.private_key_pem = own.private_key_pem();
    return o;
}

tls_options with_lists(std::string lists, tls_crl_check check = tls_crl_check::chain) {
    tls_options o;
    o.ca_pem = all().root.certificate_pem();
    o.crl_check = check;
    o.crl_pem = std::move(lists);
    return o;
}

std::error_code meets(tls_options const& client, any_certificate const& server, bool sends_between = false) {
    return tls_pair(client, server_of(server, sends_between ? all().between.certificate_pem() : std::string()))
        .handshake()
        .client;
}

bool refused(tls_options const& options, std::string const& why = {}) {
    try {
        tls_context const made(options);
    } catch (std::system_error const& e) {
        return e.code() == transport_errc::tls_option_invalid && std::string(e.what()).find(why) != std::string::npos;
    }
    return false;
}

}  // namespace

TEST_CASE("a server is refused whose certificate has been revoked, and no other, in both versions of TLS") {
    for (auto const check : {tls_crl_check::certificate, tls_crl_check::chain})
        for (auto const version : {runnel::tls_version::v1_2, runnel::tls_version::v1_3}) {
            auto o = with_lists(all().root.revocation_list({&all().bad}), check);
            o.maximum = version;
            CHECK_FALSE(meets(o, all().good));
            tls_pair c(o, server_of(all().bad));
            auto const result = c.handshake();
            CHECK(result.client == transport_errc::certificate_revoked);
            CHECK(result.server == transport_errc::own_certificate_refused);
            CHECK(runnel::is_lasting_error(result.client));
        }
    CHECK_FALSE(meets(with_lists(all().root.revocation_list({})), all().bad));
}

TEST_CASE("an authority's list that is missing, old or of tomorrow has an error of its own") {
    auto const at = [](long from, long to) {
        return meets(with_lists(all().root.revocation_list({}, from, to)), all().good);
    };
    CHECK(at(-7200, -3600) == transport_errc::revocation_list_expired);
    CHECK(at(3600, 7200) == transport_errc::revocation_list_expired);
    CHECK(runnel::is_certificate_time_error(transport_errc::revocation_list_expired));
    CHECK_FALSE(runnel::is_lasting_error(transport_errc::revocation_list_expired));
    auto const other = meets(with_lists(all().between.revocation_list({})), all().good);
    CHECK(other == transport_errc::revocation_list_missing);
    CHECK(runnel::is_lasting_error(other));
    // The name is right, the key is not.
    any_certificate const twin(test::authority_request("root"));
    CHECK(meets(with_lists(twin.revocation_list({})), all().good) == transport_errc::certificate_invalid);
}

TEST_CASE("lists are asked for the peer's own certificate, or for all of its chain") {
    auto const root = all().root.revocation_list({&all().between});
    auto const root_empty = all().root.revocation_list({});
    auto const between = all().between.revocation_list({&all().bad_below});
    CHECK_FALSE(meets(with_lists(root_empty + between), all().below, true));
    CHECK(meets(with_lists(root_empty + between), all().bad_below, true) == transport_errc::certificate_revoked);
    CHECK(meets(with_lists(root + between), all().below, true) == transport_errc::certificate_revoked);
    CHECK(meets(with_lists(between), all().below, true) == transport_errc::revocation_list_missing);
    CHECK_FALSE(meets(with_lists(root + between, tls_crl_check::certificate), all().below, true));
    CHECK_FALSE(meets(with_lists(between, tls_crl_check::certificate), all().below, true));
    CHECK(meets(with_lists(root, tls_crl_check::certificate), all().below, true) ==
          transport_errc::revocation_list_missing);
}

TEST_CASE("pins and lists hold beside each other") {
    auto o = with_lists(all().root.revocation_list({&all().bad}));
    o.pins = {runnel::tls_pin(all().bad.certificate_pem()), runnel::tls_pin(all().good.certificate_pem())};
    CHECK_FALSE(meets(o, all().good));
    CHECK(meets(o, all().bad) == transport_errc::certificate_revoked);
}

TEST_CASE("lists come from a file, or from the directory of authorities by their hashed names") {
    test::scratch_directory const files;
    auto o = with_lists({});
    o.crl_file = files.write("lists", all().root.revocation_list({&all().bad}));
    CHECK(meets(o, all().bad) == transport_errc::certificate_revoked);
    CHECK_FALSE(meets(o, all().good));
    char name[16];
    std::snprintf(name, sizeof(name), "%08lx",
                  X509_NAME_hash_ex(X509_get_subject_name(all().root.handle()), nullptr, nullptr, nullptr));
    files.write(name + std::string(".0"), all().root.certificate_pem());
    tls_options by_path;
    by_path.ca_path = files.path().string();
    by_path.crl_check = tls_crl_check::chain;
    CHECK(meets(by_path, all().good) == transport_errc::revocation_list_missing);
    files.write(name + std::string(".r0"), all().root.revocation_list({&all().bad}));
    CHECK(meets(by_path, all().bad) == transport_errc::certificate_revoked);
    CHECK_FALSE(meets(by_path, all().good));
}

TEST_CASE("a handshake that has failed leaves the authorities and lists that were read, and those of the directory") {
    test::scratch_directory const files;
    char name[16];
    std::snprintf(name, sizeof(name), "%08lx.0",
                  X509_NAME_hash_ex(X509_get_subject_name(all().root.handle()), nullptr, nullptr, nullptr));
    auto read = with_lists(all().root.revocation_list({&all().bad}));
    read.ca_path = files.path().string();  // empty at first
    auto from_directory = read;
    from_directory.ca_pem.clear();
    for (bool const in_directory : {false, true}) {
        CAPTURE(in_directory);
        tls_context const client(in_directory ? from_directory : read);
        if (in_directory) files.write(name, all().root.certificate_pem());
        for (int i = 0; i < 3; ++i) {
            CHECK(tls_pair(client, tls_context(server_of(all().bad))).handshake().client ==
                  transport_errc::certificate_revoked);
            tls_pair good(client, tls_context(server_of(all().good)));
            CHECK_FALSE(good.handshake().client);
        }
        auto const other = test::any_certificate(test::authority_request("other"));
        CHECK(tls_pair(client, tls_context(server_of(any_certificate({}, other)))).handshake().client ==
              transport_errc::certificate_untrusted);
    }
}

TEST_CASE(
    "the system's authorities are trusted after a handshake that has failed, also where they are in no directory") {
    // A variable of the environment, while it lives.
    struct variable {
        char const* name;
        std::optional<std::string> before;
        variable(char const* n, std::string const& value) : name(n) {
            if (char const* const old = std::getenv(n)) before = old;
            ::setenv(n, value.c_str(), 1);
        }
        ~variable() { before ? ::setenv(name, before->c_str(), 1) : ::unsetenv(name); }
    };
    test::scratch_directory const files;
    variable const file("SSL_CERT_FILE", files.write("authorities", all().root.certificate_pem()));
    for (std::string const& where : {std::string(), files.path().string(), std::string("/nowhere")}) {
        CAPTURE(where);
        variable const directory("SSL_CERT_DIR", where);
        tls_context const client{runnel::tls_options()};
        auto const other = test::any_certificate(test::authority_request("other"));
        for (int i = 0; i < 2; ++i) {
            CHECK(tls_pair(client, tls_context(server_of(all().good))).handshake().client == std::error_code());
            CHECK(tls_pair(client, tls_context(server_of(any_certificate({}, other)))).handshake().client ==
                  transport_errc::certificate_untrusted);
        }
    }
}

TEST_CASE("a server asks the lists for its clients") {
    auto server = server_of(all().good);
    server.ca_pem = all().root.certificate_pem();
    server.require_client_certificate = true;
    server.crl_check = tls_crl_check::chain;
    certificate_request const request{.name = "client", .alternative_names = {}, .usage = "clientAuth"};
    any_certificate const client(request, all().root);
    auto own = server_of(client);
    own.ca_pem = all().root.certificate_pem();
    server.crl_pem = all().root.revocation_list({});
    CHECK_FALSE(tls_pair(own, server).handshake().server);
    server.crl_pem = all().root.revocation_list({&client});
    CHECK(tls_pair(own, server).handshake().server == transport_errc::certificate_revoked);
}

TEST_CASE("lists that nobody would look at, or that are none, are refused") {
    auto const change = [](std::function<void(tls_options&)> const& how) {
        auto o = with_lists(all().root.revocation_list({}));
        how(o);
        return o;
    };
    CHECK_FALSE(refused(change([](auto&) {})));
    CHECK(refused(change([](auto& o) { o.crl_check = tls_crl_check::off; }), "crl_check"));
    CHECK(refused(change([](auto& o) { o.crl_pem.clear(); }), "crl_file"));
    CHECK(refused(change([](auto& o) { o.verify = tls_verify::none_insecure; }), "no chain"));
    CHECK(refused(change([](auto& o) {
        o.verify = tls_verify::pinned_key;
        o.pins = {runnel::tls_pin(all().good.certificate_pem())};
    })));
    CHECK(refused(change([](auto& o) {
        o.psk_identity = "device";
        o.psk_key = "sixteen bytes or";
    })));
    for (std::string const text : {"no list", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"}) try {
            tls_context const made(change([&](auto& o) {
                o.crl_pem += text;
                o.crl_pem = text;
            }));
            CHECK(false);
        } catch (std::system_error const& e) {
            CHECK(e.code() == transport_errc::pem_invalid);
        }
}

// How a new connection comes about: "anew", "resumed", or the error's text.
static std::string comes(tls_context const& client, tls_context const& server) {
    tls_pair c(client, server);
    auto const result = c.handshake();
    if (result.client) return result.client.message();
    test::run(c.io, test::write_text(*c.server, "b"));
    CHECK(test::run(c.io, test::read_exactly(*c.client, 1)) == "b");
    return c.client->resumed() ? "resumed" : "anew";
}

TEST_CASE("a TLS session is not resumed beyond the end of a list") {
    for (auto const version : {runnel::tls_version::v1_2, runnel::tls_version::v1_3}) {
        auto o = with_lists(all().root.revocation_list({}, -3600, 2));
        o.maximum = version;
        tls_context const client(o);
        tls_context const server(server_of(all().good));
        CHECK(comes(client, server) == "anew");
        CHECK(comes(client, server) == "resumed");
        std::this_thread::sleep_for(std::chrono::milliseconds(3100));
        CHECK(comes(client, server) == make_error_code(transport_errc::revocation_list_expired).message());
    }
}

TEST_CASE("another authority's list that is out of date costs no resumption") {
    auto o = with_lists(all().root.revocation_list({}) + all().between.revocation_list({}, -7200, -3600));
    tls_context const client(o);
    tls_context const server(server_of(all().good));
    CHECK(comes(client, server) == "anew");
    CHECK(comes(client, server) == "resumed");
}

TEST_CASE("an authority between is trusted for itself if that is asked for, and a server's certificate, too") {
    tls_options o;
    o.ca_pem = all().between.certificate_pem();
    CHECK(meets(o, all().below) == transport_errc::certificate_untrusted);
    o.partial_chain = true;
    CHECK_FALSE(meets(o, all().below));
    CHECK_FALSE(meets(o, all().below, true));
    CHECK(meets(o, all().good) == transport_errc::certificate_untrusted);  // of its root: not trusted
    o.ca_pem = all().good.certificate_pem();
    CHECK_FALSE(meets(o, all().good));
    CHECK(meets(o, all().bad) == transport_errc::certificate_untrusted);
    // Names and dates count as ever.
    CHECK(tls_pair(o, server_of(all().good), "other.example").handshake().client == transport_errc::host_name_mismatch);
}

TEST_CASE("the trust anchor may be in no list, all below it must be") {
    tls_options o;
    o.ca_pem = all().between.certificate_pem();
    o.partial_chain = true;
    o.crl_check = tls_crl_check::chain;
    o.crl_pem = all().between.revocation_list({&all().bad_below});
    CHECK_FALSE(meets(o, all().below));
    CHECK(meets(o, all().bad_below) == transport_errc::certificate_revoked);
    o.crl_pem = all().root.revocation_list({});
    CHECK(meets(o, all().below) == transport_errc::revocation_list_missing);
    // Trusted for itself, and yet without a list.
    o.ca_pem = all().good.certificate_pem();
    o.crl_pem = all().between.revocation_list({});
    CHECK(meets(o, all().good) == transport_errc::revocation_list_missing);
}
