#pragma once

#include <runnel/transport/tls/error.hpp>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace runnel::testing {

/// A certificate and its private key, both as PEM text, to put into `tls_options::certificate_pem` and
/// `private_key_pem`.
struct identity {
    std::string certificate_pem{};
    std::string private_key_pem{};
};

/// What a certificate is to say. The defaults are those of a server on this machine.
struct certificate_options {
    enum class use { server, client };

    std::string common_name = "localhost";
    /// Names and addresses of the host (subjectAltName), which is what clients check.
    std::vector<std::string> host_names = {"localhost"};
    std::vector<std::string> addresses = {"127.0.0.1", "::1"};
    use purpose = use::server;
    /// Validity, from now on. A negative end makes an expired certificate.
    std::chrono::seconds valid_from = std::chrono::hours(-48);
    std::chrono::seconds valid_to = std::chrono::hours(24 * 30);
};

/// A certification authority that lives in memory, for tests and demonstrations: no files, no openssl command, nothing
/// to clean up. Keys are EC P-256 and freshly made. Throws `std::system_error` if OpenSSL fails.
///
///     runnel::testing::certificate_authority ca;
///     runnel::testing::identity server = ca.issue_server();
class certificate_authority {
  public:
    explicit certificate_authority(std::string const& common_name = "runnel test CA") : key_(make_key()) {
        certificate_options options;
        options.common_name = common_name;
        certificate_ = make_certificate(options, key_.get());
        X509* const ca = certificate_.get();
        check(X509_set_issuer_name(ca, X509_get_subject_name(ca)));
        extend(ca, ca, NID_basic_constraints, "critical,CA:TRUE");
        extend(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign");
        extend(ca, ca, NID_subject_key_identifier, "hash");
        check(X509_sign(ca, key_.get(), EVP_sha256()));
        certificate_pem_ = certificate_to_pem(ca);
    }

    /// What a peer has to trust: for `tls_options::ca_pem`.
    std::string const& certificate_pem() const noexcept { return certificate_pem_; }

    /// A certificate signed by this authority.
    identity issue(certificate_options const& options) const {
        return make_identity(options, certificate_.get(), key_.get());
    }

    /// The certificate of a server that is reached as localhost, 127.0.0.1 or ::1.
    identity issue_server() const { return issue(certificate_options{}); }

    /// The same, for a host of another name.
    identity issue_server(std::string const& host_name) const {
        certificate_options options;
        options.common_name = host_name;
        options.host_names = {host_name};
        options.addresses.clear();
        return issue(options);
    }

    /// A server's certificate that was valid until an hour ago.
    identity issue_expired_server() const {
        certificate_options options;
        options.valid_to = std::chrono::hours(-1);
        return issue(options);
    }

    /// A client's certificate, for mutual TLS.
    identity issue_client(std::string const& common_name = "test client") const {
        certificate_options options;
        options.common_name = common_name;
        options.host_names.clear();
        options.addresses.clear();
        options.purpose = certificate_options::use::client;
        return issue(options);
    }

    /// A certificate that no authority has signed.
    static identity self_signed(certificate_options const& options = {}) {
        return make_identity(options, nullptr, nullptr);
    }

    /// A revocation list (CRL) of this authority, PEM, for `tls_options::crl_pem`, with the certificates of these.
    /// Valid from `valid_from` to `valid_to`, from now on.
    std::string revocation_list(std::vector<identity> const& revoked,
                                std::chrono::seconds valid_from = std::chrono::hours(-48),
                                std::chrono::seconds valid_to = std::chrono::hours(24 * 30)) const {
        crl_ptr const list(check(X509_CRL_new()));
        check(X509_CRL_set_version(list.get(), X509_CRL_VERSION_2));
        check(X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(certificate_.get())));
        check(X509_CRL_set1_lastUpdate(list.get(), time_ptr(from_now(valid_from)).get()));
        check(X509_CRL_set1_nextUpdate(list.get(), time_ptr(from_now(valid_to)).get()));
        for (auto const& one : revoked) revoke(list.get(), one);
        check(X509_CRL_sort(list.get()));
        check(X509_CRL_sign(list.get(), key_.get(), EVP_sha256()));
        bio_ptr const bio(check(BIO_new(BIO_s_mem())));
        check(PEM_write_bio_X509_CRL(bio.get(), list.get()));
        return text_of(bio.get());
    }

  private:
    template <auto Free>
    struct freer {
        template <class T>
        void operator()(T* p) const noexcept {
            Free(p);
        }
    };
    using key_ptr = std::unique_ptr<EVP_PKEY, freer<EVP_PKEY_free>>;
    using certificate_ptr = std::unique_ptr<X509, freer<X509_free>>;
    using extension_ptr = std::unique_ptr<X509_EXTENSION, freer<X509_EXTENSION_free>>;
    using bio_ptr = std::unique_ptr<BIO, freer<BIO_free_all>>;
    using crl_ptr = std::unique_ptr<X509_CRL, freer<X509_CRL_free>>;
    using revoked_ptr = std::unique_ptr<X509_REVOKED, freer<X509_REVOKED_free>>;
    using time_ptr = std::unique_ptr<ASN1_TIME, freer<ASN1_TIME_free>>;

    // Most functions of OpenSSL return something positive or a pointer when all is well.
    template <class Result>
    static Result check(Result result) {
        bool const well = [&] {
            if constexpr (std::is_pointer_v<Result>)
                return result != nullptr;
            else
                return result > 0;
        }();
        if (!well) take_openssl_error(transport_errc::certificate_unusable).raise("making a certificate");
        return result;
    }

    static ASN1_TIME* from_now(std::chrono::duration<long> span, ASN1_TIME* into = nullptr) {
        return check(X509_gmtime_adj(into, span.count()));
    }

    static void revoke(X509_CRL* list, identity const& one) {
        bio_ptr const bio(
            check(BIO_new_mem_buf(one.certificate_pem.data(), static_cast<int>(one.certificate_pem.size()))));
        certificate_ptr const certificate(check(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)));
        revoked_ptr entry(check(X509_REVOKED_new()));
        check(X509_REVOKED_set_serialNumber(entry.get(), X509_get_serialNumber(certificate.get())));
        check(X509_REVOKED_set_revocationDate(entry.get(), time_ptr(from_now(std::chrono::seconds(-60))).get()));
        check(X509_CRL_add0_revoked(list, entry.get()));
        static_cast<void>(entry.release());  // the list's now
    }

    static key_ptr make_key() { return key_ptr(check(EVP_EC_gen("P-256"))); }

    static certificate_ptr make_certificate(certificate_options const& options, EVP_PKEY* key) {
        certificate_ptr certificate(check(X509_new()));
        X509* const c = certificate.get();
        check(X509_set_version(c, X509_VERSION_3));
        unsigned char serial[16];
        check(RAND_bytes(serial, sizeof(serial)));
        serial[0] = static_cast<unsigned char>((serial[0] & 0x3F) | 0x40);  // positive, of full length
        BIGNUM* const number = check(BN_bin2bn(serial, sizeof(serial), nullptr));
        BN_to_ASN1_INTEGER(number, X509_get_serialNumber(c));
        BN_free(number);
        from_now(options.valid_from, X509_getm_notBefore(c));
        from_now(options.valid_to, X509_getm_notAfter(c));
        auto const name = reinterpret_cast<unsigned char const*>(options.common_name.c_str());
        check(X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_UTF8, name, -1, -1, 0));
        check(X509_set_pubkey(c, key));
        return certificate;
    }

    static identity make_identity(certificate_options const& options, X509* issuer, EVP_PKEY* issuer_key) {
        key_ptr const key = make_key();
        certificate_ptr const certificate = make_certificate(options, key.get());
        X509* const c = certificate.get();
        if (issuer == nullptr) issuer = c;
        if (issuer_key == nullptr) issuer_key = key.get();
        check(X509_set_issuer_name(c, X509_get_subject_name(issuer)));
        if (issuer != c) extend(c, issuer, NID_authority_key_identifier, "keyid:always");
        bool const server = options.purpose == certificate_options::use::server;
        extend(c, issuer, NID_basic_constraints, "critical,CA:FALSE");
        extend(c, issuer, NID_key_usage, "critical,digitalSignature");
        extend(c, issuer, NID_ext_key_usage, server ? "serverAuth" : "clientAuth");
        std::string names;
        for (auto const& name : options.host_names) names += ",DNS:" + name;
        for (auto const& address : options.addresses) names += ",IP:" + address;
        if (!names.empty()) extend(c, issuer, NID_subject_alt_name, names.substr(1));
        check(X509_sign(c, issuer_key, EVP_sha256()));
        return {certificate_to_pem(c), key_to_pem(key.get())};
    }

    static void extend(X509* certificate, X509* issuer, int nid, std::string const& value) {
        X509V3_CTX context;
        X509V3_set_ctx_nodb(&context);
        X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
        extension_ptr const extension(check(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str())));
        check(X509_add_ext(certificate, extension.get(), -1));
    }

    static std::string text_of(BIO* bio) {
        char* text = nullptr;
        long const size = BIO_get_mem_data(bio, &text);
        return {text, static_cast<std::size_t>(size)};
    }

    static std::string certificate_to_pem(X509* certificate) {
        bio_ptr const bio(check(BIO_new(BIO_s_mem())));
        check(PEM_write_bio_X509(bio.get(), certificate));
        return text_of(bio.get());
    }

    static std::string key_to_pem(EVP_PKEY* key) {
        bio_ptr const bio(check(BIO_new(BIO_s_mem())));
        check(PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr));
        return text_of(bio.get());
    }

    key_ptr key_;
    certificate_ptr certificate_{};
    std::string certificate_pem_{};
};

}  // namespace runnel::testing
