#include <runnel/transport/lasting_error.hpp>
#include <runnel/transport/tls/ocsp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/any_certificate.hpp"
#include "support/certificate_status.hpp"
#include "support/run.hpp"
#include "support/streams.hpp"
#include "support/tls_pair.hpp"
#include <chrono>
#include <string>
#include <thread>

namespace {

using runnel::ocsp_demand;
using runnel::ocsp_settings;
using runnel::ocsp_stapling;
using runnel::tls_context;
using runnel::tls_options;
using runnel::tls_version;
using runnel::transport_errc;
using test::any_certificate;
using test::certificate_request;
using test::certificate_status;
using test::status_request;
using test::tls_pair;

struct family {
    any_certificate root{test::authority_request("root")};
    any_certificate between{test::authority_request("between"), root};
    any_certificate own{{}, root};
    any_certificate other{{}, root};
    any_certificate below{{}, between};
    any_certificate must{{.features = "status_request"}, root};
};
family const& all() {
    static family const made;
    return made;
}

tls_options client(ocsp_settings const& how, tls_version version = tls_version::v1_3) {
    tls_options o;
    o.ca_pem = all().root.certificate_pem();
    o.status_check = ocsp_stapling(how);
    o.maximum = version;
    return o;
}

tls_context server(any_certificate const& own, std::string const& chain = {}) {
    tls_options o;
    o.certificate_pem = own.certificate_pem() + chain;
    o.private_key_pem = own.private_key_pem();
    return tls_context(o);
}

// What a client makes of a server that sends this status; "" for none. Both versions of TLS agree.
std::error_code meets(std::string const& status, ocsp_settings const& how = {.demand = ocsp_demand::always},
                      any_certificate const& own = all().own, std::string const& chain = {}) {
    std::error_code found[2];
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto const context = server(own, chain);
        test::staple(context, status);
        tls_pair c(tls_context(client(how, version)), context);
        auto const result = c.handshake();
        if (result.client) CHECK(result.server == transport_errc::own_certificate_refused);
        found[version == tls_version::v1_3] = result.client;
    }
    CHECK(found[0] == found[1]);
    return found[1];
}

status_request good() { return {.certificate = all().own, .authority = all().root, .signer = all().root}; }

std::string with(auto change) {
    auto r = good();
    change(r);
    return certificate_status(r);
}

constexpr long hour = 3600;

}  // namespace

TEST_CASE("a good status of the authority is accepted, whatever hash names the certificate") {
    CHECK_FALSE(meets(certificate_status(good())));
    CHECK_FALSE(meets(with([](auto& r) { r.digest = EVP_sha256; })));
}

TEST_CASE("a certificate is refused whose status says that it has been revoked") {
    auto const revoked = [](auto& r) { r.status = V_OCSP_CERTSTATUS_REVOKED; };
    CHECK(meets(with(revoked)) == transport_errc::certificate_revoked);
    CHECK(meets(with(revoked), {}) == transport_errc::certificate_revoked);
    // Out of date it has been revoked all the same.
    CHECK(meets(with([&](auto& r) {
              revoked(r);
              r.since = -3 * hour;
              r.until = -2 * hour;
          })) == transport_errc::certificate_revoked);
    CHECK(meets(with([&](auto& r) {
              revoked(r);
              r.until = {};
          })) == transport_errc::certificate_revoked);
}

TEST_CASE("a status that is missing is refused where all servers must send one, or the certificate says so") {
    CHECK(meets({}) == transport_errc::certificate_status_missing);
    CHECK_FALSE(meets({}, {}));
    CHECK(meets({}, {}, all().must) == transport_errc::certificate_status_missing);
    CHECK_FALSE(runnel::is_lasting_error(transport_errc::certificate_status_missing));
    CHECK_FALSE(meets(certificate_status({.certificate = all().must, .authority = all().root, .signer = all().root}),
                      {}, all().must));
}

TEST_CASE("a status is valid from thisUpdate to nextUpdate, give or take the skew") {
    auto const at = [](long since, long until, std::chrono::seconds skew) {
        return meets(with([&](auto& r) {
                         r.since = since;
                         r.until = until;
                     }),
                     {.skew = skew});
    };
    constexpr auto expired = transport_errc::certificate_status_expired;
    using namespace std::chrono_literals;
    CHECK(at(-2 * hour, -hour, 300s) == expired);
    CHECK(at(hour, 2 * hour, 300s) == expired);
    CHECK_FALSE(at(-2 * hour, -hour, 7200s));
    CHECK_FALSE(at(hour, 2 * hour, 7200s));
    CHECK(at(-hour, -2, 0s) == expired);
    CHECK_FALSE(at(-hour, -2, 300s));
    CHECK(runnel::is_certificate_time_error(make_error_code(expired)));
    // Without an end it could be shown for ever.
    CHECK(meets(with([](auto& r) { r.until = {}; })) == transport_errc::certificate_status_invalid);
    CHECK_THROWS_AS(ocsp_stapling({.skew = -1s}), std::out_of_range);
    CHECK_THROWS_AS(ocsp_stapling({.skew = 86401s}), std::out_of_range);
    CHECK_NOTHROW(ocsp_stapling({.skew = 86400s}));
}

TEST_CASE("a status of somebody else proves nothing, also where none is demanded") {
    constexpr auto invalid = transport_errc::certificate_status_invalid;
    any_certificate const stranger(test::authority_request("stranger"));
    any_certificate const twin(test::authority_request("root"));
    for (auto const demand : {ocsp_demand::if_stapled, ocsp_demand::always}) {
        ocsp_settings const how{.demand = demand};
        auto const by = [&](any_certificate const& signer) {
            return meets(certificate_status({.certificate = all().own, .authority = all().root, .signer = signer}),
                         how);
        };
        CHECK(by(stranger) == invalid);
        CHECK(by(twin) == invalid);
        CHECK(by(all().other) == invalid);    // of the same authority, but no responder
        CHECK(by(all().own) == invalid);      // the server itself
        CHECK(by(all().between) == invalid);  // an authority, but not that of the certificate
        // For another certificate, and for one of another authority with this number.
        CHECK(meets(certificate_status({.certificate = all().other, .authority = all().root, .signer = all().root}),
                    how) == invalid);
        CHECK(meets(certificate_status({.certificate = all().own, .authority = stranger, .signer = all().root}), how) ==
              invalid);
        // The authority does not know the certificate.
        CHECK(meets(with([](auto& r) { r.status = V_OCSP_CERTSTATUS_UNKNOWN; }), how) == invalid);
        // What is no response, or has something behind it.
        CHECK(meets("no DER", how) == invalid);
        CHECK(meets(certificate_status(good()) + "x", how) == invalid);
        CHECK(meets(std::string("\x30\x03\x0a\x01\x03", 5), how) == invalid);  // tryLater
    }
    CHECK(runnel::is_lasting_error(make_error_code(invalid)));
}

TEST_CASE("a responder may sign that the authority has issued a certificate for it") {
    certificate_request request{.name = "responder", .alternative_names = {}, .usage = "OCSPSigning"};
    any_certificate const responder(request, all().root);
    any_certificate const of_another(request, all().between);
    request.valid_from = -2 * hour;
    request.valid_to = -hour;
    any_certificate const expired(request, all().root);
    auto const by = [&](any_certificate const& signer) {
        return meets(certificate_status({.certificate = all().own, .authority = all().root, .signer = signer}));
    };
    CHECK_FALSE(by(responder));
    CHECK(by(of_another) == transport_errc::certificate_status_invalid);
    CHECK(by(expired) == transport_errc::certificate_status_invalid);
}

TEST_CASE("the status is that of the authority between, where there is one") {
    auto const chain = all().between.certificate_pem();
    auto const by = [&](any_certificate const& signer) {
        return meets(certificate_status({.certificate = all().below, .authority = all().between, .signer = signer}),
                     {.demand = ocsp_demand::always}, all().below, chain);
    };
    CHECK_FALSE(by(all().between));
    CHECK(by(all().root) == transport_errc::certificate_status_invalid);
}

TEST_CASE("of a certificate that is refused anyway, that is what is told") {
    auto const status = certificate_status(good());
    auto const context = server(all().own);
    test::staple(context, status);
    tls_pair c(tls_context(client({.demand = ocsp_demand::always})), context, "other.example");
    CHECK(c.handshake().client == transport_errc::host_name_mismatch);
}

TEST_CASE("a session that is resumed has no status, and is resumed until that of its beginning ends") {
    for (auto const version : {tls_version::v1_2, tls_version::v1_3}) {
        auto const status = with([](auto& r) { r.until = 2; });
        auto const context = server(all().own);
        test::staple(context, status);
        tls_context const mine(client({.demand = ocsp_demand::always, .skew = std::chrono::seconds(0)}, version));
        auto const resumes = [&] {
            tls_pair c(mine, context);
            auto const result = c.handshake();
            if (result.client) return result.client.message();
            test::run(c.io, test::write_text(*c.server, "b"));
            CHECK(test::run(c.io, test::read_exactly(*c.client, 1)) == "b");
            return std::string(c.client->resumed() ? "resumed" : "anew");
        };
        CHECK(resumes() == "anew");
        CHECK(resumes() == "resumed");
        std::this_thread::sleep_for(std::chrono::milliseconds(3100));
        CHECK(resumes() == make_error_code(transport_errc::certificate_status_expired).message());
    }
}

TEST_CASE("a status is not asked for unless the client wants one, and a server does not answer for the check") {
    auto const status = with([](auto& r) { r.status = V_OCSP_CERTSTATUS_REVOKED; });
    auto const context = server(all().own);
    test::staple(context, status);
    tls_options plain;
    plain.ca_pem = all().root.certificate_pem();
    CHECK_FALSE(tls_pair(tls_context(plain), context).handshake().client);
    // One context for both roles.
    auto both = client({});
    both.certificate_pem = all().own.certificate_pem();
    both.private_key_pem = all().own.private_key_pem();
    CHECK_FALSE(tls_pair(both, both).handshake().client);
}

TEST_CASE("a check of the status where no chain is verified is refused") {
    for (auto const verify : {runnel::tls_verify::none_insecure, runnel::tls_verify::pinned_key}) {
        auto o = client({});
        o.verify = verify;
        if (verify == runnel::tls_verify::pinned_key) o.pins = {runnel::tls_pin(all().own.certificate_pem())};
        CHECK_THROWS_AS(tls_context{o}, std::system_error);
    }
}
