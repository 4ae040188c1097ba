#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace test {

/// What an authority that knows its business would not issue. The defaults are those of a good server.
struct certificate_request {
    std::string name = "localhost";
    /// subjectAltName in OpenSSL's notation; empty: none.
    std::string alternative_names = "DNS:localhost,IP:127.0.0.1";
    std::string usage = "serverAuth";          ///< extended key usage; empty: none
    std::string constraints = "CA:FALSE";      ///< basic constraints
    std::string name_constraints = {};         ///< of an authority; empty: none
    std::string features = {};                 ///< "status_request": must staple; empty: none
    int rsa_bits = 0;                          ///< 0: a key on the curve P-256
    EVP_MD const* (*digest)() = EVP_sha256;    ///< of the signature
    long valid_from = -3600, valid_to = 3600;  ///< seconds from now on
};

/// What an authority asks for itself.
inline certificate_request authority_request(std::string name) {
    return {.name = std::move(name), .alternative_names = {}, .usage = {}, .constraints = "CA:TRUE"};
}

/// A certificate of any kind with its key, which may issue others.
class any_certificate {
  public:
    /// Self-signed.
    explicit any_certificate(certificate_request const& request) : any_certificate(request, nullptr) {}
    any_certificate(certificate_request const& request, any_certificate const& issuer)
        : any_certificate(request, &issuer) {}

    std::string certificate_pem() const {
        return text([&](BIO* out) { return PEM_write_bio_X509(out, certificate_.get()); });
    }
    std::string private_key_pem() const {
        return text(
            [&](BIO* out) { return PEM_write_bio_PrivateKey(out, key_.get(), nullptr, nullptr, 0, nullptr, nullptr); });
    }

    X509* handle() const noexcept { return certificate_.get(); }
    EVP_PKEY* key() const noexcept { return key_.get(); }

    /// A revocation list of this authority, PEM; seconds from now on.
    std::string revocation_list(std::vector<any_certificate const*> const& revoked, long from = -3600,
                                long to = 3600) const {
        std::unique_ptr<X509_CRL, void (*)(X509_CRL*)> const list(X509_CRL_new(), X509_CRL_free);
        X509_CRL* const l = list.get();
        auto const time = [](long seconds) {
            return std::unique_ptr<ASN1_TIME, void (*)(ASN1_TIME*)>(X509_gmtime_adj(nullptr, seconds), ASN1_TIME_free);
        };
        bool well = X509_CRL_set_version(l, X509_CRL_VERSION_2) == 1 &&
                    X509_CRL_set_issuer_name(l, X509_get_subject_name(handle())) == 1 &&
                    X509_CRL_set1_lastUpdate(l, time(from).get()) == 1 &&
                    X509_CRL_set1_nextUpdate(l, time(to).get()) == 1;
        for (auto const* const r : revoked) {
            X509_REVOKED* const entry = X509_REVOKED_new();
            well = well && X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(r->handle())) == 1 &&
                   X509_REVOKED_set_revocationDate(entry, time(-60).get()) == 1 && X509_CRL_add0_revoked(l, entry) == 1;
        }
        if (!well || X509_CRL_sign(l, key(), EVP_sha256()) <= 0) throw std::runtime_error("no revocation list");
        return text([&](BIO* out) { return PEM_write_bio_X509_CRL(out, l); });
    }

  private:
    any_certificate(certificate_request const& r, any_certificate const* issuer)
        : key_(r.rsa_bits == 0 ? EVP_EC_gen("P-256") : EVP_RSA_gen(static_cast<unsigned>(r.rsa_bits)), EVP_PKEY_free),
          certificate_(X509_new(), X509_free) {
        if (issuer == nullptr) issuer = this;
        static long serial = 0;
        X509* const c = certificate_.get();
        bool well =
            X509_set_version(c, X509_VERSION_3) == 1 && ASN1_INTEGER_set(X509_get_serialNumber(c), ++serial) == 1 &&
            X509_gmtime_adj(X509_getm_notBefore(c), r.valid_from) != nullptr &&
            X509_gmtime_adj(X509_getm_notAfter(c), r.valid_to) != nullptr &&
            X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_UTF8,
                                       reinterpret_cast<unsigned char const*>(r.name.c_str()), -1, -1, 0) == 1 &&
            X509_set_issuer_name(c, X509_get_subject_name(issuer->certificate_.get())) == 1 &&
            X509_set_pubkey(c, key_.get()) == 1;
        for (auto const& [nid, value] :
             std::initializer_list<std::pair<int, std::string>>{{NID_basic_constraints, "critical," + r.constraints},
                                                                {NID_ext_key_usage, r.usage},
                                                                {NID_subject_alt_name, r.alternative_names},
                                                                {NID_name_constraints, r.name_constraints},
                                                                {NID_tlsfeature, r.features}}) {
            if (value.empty()) continue;
            std::unique_ptr<X509_EXTENSION, void (*)(X509_EXTENSION*)> const made(
                X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str()), X509_EXTENSION_free);
            well = well && made && X509_add_ext(c, made.get(), -1) == 1;
        }
        if (!well || X509_sign(c, issuer->key_.get(), r.digest()) <= 0)
            throw std::runtime_error("no certificate for " + r.name);
    }

    template <class Write>
    static std::string text(Write write) {
        std::unique_ptr<BIO, void (*)(BIO*)> const out(BIO_new(BIO_s_mem()), BIO_free_all);
        if (write(out.get()) != 1) throw std::runtime_error("no PEM");
        char* data = nullptr;
        auto const size = BIO_get_mem_data(out.get(), &data);
        return {data, static_cast<std::size_t>(size)};
    }

    std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_;
    std::unique_ptr<X509, void (*)(X509*)> certificate_;
};

}  // namespace test
