#include <runnel/testing/certificate.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>

namespace {

using runnel::testing::certificate_authority;
using runnel::testing::identity;

using certificate_ptr = std::unique_ptr<X509, decltype(&X509_free)>;

certificate_ptr parse(std::string const& pem) {
    BIO* const bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    certificate_ptr certificate(PEM_read_bio_X509(bio, nullptr, nullptr, nullptr), X509_free);
    BIO_free(bio);
    return certificate;
}

// OpenSSL's verdict (X509_V_...) on a certificate for a purpose, with one trusted authority.
int verdict(std::string const& pem, std::string const& ca_pem, int purpose) {
    auto const certificate = parse(pem);
    auto const ca = parse(ca_pem);
    X509_STORE* const store = X509_STORE_new();
    X509_STORE_add_cert(store, ca.get());
    X509_STORE_CTX* const context = X509_STORE_CTX_new();
    X509_STORE_CTX_init(context, store, certificate.get(), nullptr);
    X509_VERIFY_PARAM* const param = X509_STORE_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
    X509_VERIFY_PARAM_set_purpose(param, purpose);
    int const good = X509_verify_cert(context);
    int const result = good == 1 ? X509_V_OK : X509_STORE_CTX_get_error(context);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    return result;
}

}  // namespace

TEST_CASE("a server's certificate made in memory passes OpenSSL's strict verification") {
    certificate_authority const ca;
    identity const server = ca.issue_server();
    CHECK(verdict(server.certificate_pem, ca.certificate_pem(), X509_PURPOSE_SSL_SERVER) == X509_V_OK);
    CHECK(verdict(server.certificate_pem, ca.certificate_pem(), X509_PURPOSE_SSL_CLIENT) == X509_V_ERR_INVALID_PURPOSE);
    auto const certificate = parse(server.certificate_pem);
    CHECK(X509_check_host(certificate.get(), "localhost", 0, 0, nullptr) == 1);
    CHECK(X509_check_host(certificate.get(), "other.example", 0, 0, nullptr) == 0);
    CHECK(X509_check_ip_asc(certificate.get(), "127.0.0.1", 0) == 1);
    CHECK(X509_check_ip_asc(certificate.get(), "::1", 0) == 1);
    CHECK(X509_check_ip_asc(certificate.get(), "127.0.0.2", 0) == 0);
}

TEST_CASE("a client's certificate is for clients") {
    certificate_authority const ca;
    identity const client = ca.issue_client("device 1");
    CHECK(verdict(client.certificate_pem, ca.certificate_pem(), X509_PURPOSE_SSL_CLIENT) == X509_V_OK);
    CHECK(verdict(client.certificate_pem, ca.certificate_pem(), X509_PURPOSE_SSL_SERVER) == X509_V_ERR_INVALID_PURPOSE);
    char name[32] = {};
    auto const certificate = parse(client.certificate_pem);
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, name, sizeof(name));
    CHECK(std::string(name) == "device 1");
}

TEST_CASE("an expired certificate is one") {
    certificate_authority const ca;
    CHECK(verdict(ca.issue_expired_server().certificate_pem, ca.certificate_pem(), X509_PURPOSE_SSL_SERVER) ==
          X509_V_ERR_CERT_HAS_EXPIRED);
}

TEST_CASE("two authorities of the same name do not vouch for each other") {
    certificate_authority const a;
    certificate_authority const b;
    CHECK(verdict(a.issue_server().certificate_pem, b.certificate_pem(), X509_PURPOSE_SSL_SERVER) != X509_V_OK);
}

TEST_CASE("a self-signed certificate is its own issuer, and each certificate has its own number") {
    identity const own = certificate_authority::self_signed();
    auto const certificate = parse(own.certificate_pem);
    CHECK(X509_NAME_cmp(X509_get_subject_name(certificate.get()), X509_get_issuer_name(certificate.get())) == 0);
    auto const other = parse(certificate_authority::self_signed().certificate_pem);
    CHECK(ASN1_INTEGER_cmp(X509_get0_serialNumber(certificate.get()), X509_get0_serialNumber(other.get())) != 0);
}

TEST_CASE("an authority's revocation list has the certificates that it is told, and no others") {
    certificate_authority const ca;
    auto const good = ca.issue_server();
    auto const bad = ca.issue_server();
    auto const list = ca.revocation_list({bad}, std::chrono::hours(-2), std::chrono::hours(1));
    std::unique_ptr<BIO, int (*)(BIO*)> const bio(BIO_new_mem_buf(list.data(), static_cast<int>(list.size())),
                                                  BIO_free);
    std::unique_ptr<X509_CRL, void (*)(X509_CRL*)> const read(
        PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr), X509_CRL_free);
    REQUIRE(read != nullptr);
    auto const has = [&](identity const& one) {
        X509_REVOKED* found = nullptr;
        return X509_CRL_get0_by_serial(read.get(), &found, X509_get_serialNumber(parse(one.certificate_pem).get())) ==
               1;
    };
    CHECK(has(bad));
    CHECK_FALSE(has(good));
    CHECK(X509_cmp_current_time(X509_CRL_get0_lastUpdate(read.get())) < 0);
    CHECK(X509_cmp_current_time(X509_CRL_get0_nextUpdate(read.get())) > 0);
    CHECK(X509_CRL_verify(read.get(), X509_get0_pubkey(parse(ca.certificate_pem()).get())) == 1);
    CHECK_THROWS_AS(ca.revocation_list({identity{}}), std::system_error);
}
