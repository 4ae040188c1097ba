#pragma once

#include <runnel/transport/tls/detail/pem.hpp>
#include <runnel/transport/tls/options.hpp>

#include <openssl/ocsp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>

namespace runnel {

/// Which servers must send the status of their certificate.
enum class ocsp_demand {
    /// Those whose certificate says that they do ("must staple", RFC 7633). What others send is checked, too.
    if_stapled,
    /// All: one that sends none is refused (`transport_errc::certificate_status_missing`).
    always,
};

/// How the status of a server's certificate is checked.
struct ocsp_settings {
    ocsp_demand demand = ocsp_demand::if_stapled;
    /// By how much this machine's clock and the responder's may differ, 0 s to one day.
    std::chrono::seconds skew{300};
};

namespace detail {

using ocsp_response_ptr = std::unique_ptr<OCSP_RESPONSE, openssl_freer<OCSP_RESPONSE_free>>;
using ocsp_basic_ptr = std::unique_ptr<OCSP_BASICRESP, openssl_freer<OCSP_BASICRESP_free>>;
using ocsp_id_ptr = std::unique_ptr<OCSP_CERTID, openssl_freer<OCSP_CERTID_free>>;

/// Whether a certificate says that its status comes with it: its TLS features (RFC 7633 4) have status_request (5).
inline bool must_staple(X509 const* certificate) noexcept {
    int critical = -1;  // none
    auto* const features = static_cast<TLS_FEATURE*>(X509_get_ext_d2i(certificate, NID_tlsfeature, &critical, nullptr));
    bool found = features == nullptr && critical != -1;  // what cannot be read may say so
    for (int i = 0; i < sk_ASN1_INTEGER_num(features); ++i)
        found = found || ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == TLSEXT_TYPE_status_request;
    TLS_FEATURE_free(features);
    return found;
}

/// Whether the certificate's authority has signed: itself, or by a responder that it has issued a certificate for that
/// (RFC 6960 4.2.2.2). `chain` may have the responder's, too.
inline bool is_signed_by(OCSP_BASICRESP* status, X509* authority, STACK_OF(X509) * chain) noexcept {
    store_ptr const store(X509_STORE_new());
    return store && X509_STORE_add_cert(store.get(), authority) == 1 &&
           OCSP_basic_verify(status, chain, store.get(), OCSP_PARTIAL_CHAIN | OCSP_NOEXPLICIT) == 1;
}

/// Whether a status is for the certificate.
inline bool is_for(OCSP_SINGLERESP const* single, X509 const* certificate, X509 const* authority) noexcept {
    // OpenSSL's function takes what it only reads as something that it could change.
    auto* const id = const_cast<OCSP_CERTID*>(OCSP_SINGLERESP_get0_id(single));
    ASN1_OBJECT* digest = nullptr;
    if (OCSP_id_get0_info(nullptr, &digest, nullptr, nullptr, id) != 1) return false;
    EVP_MD const* const by_name = EVP_get_digestbyobj(digest);
    if (by_name == nullptr) return false;
    ocsp_id_ptr const own(OCSP_cert_to_id(by_name, certificate, authority));
    return own && OCSP_id_cmp(own.get(), id) == 0;
}

/// What one status says. Without nextUpdate it could be shown for ever, so there must be one (RFC 5019 2.2.4).
inline tls_status_check::verdict judge_single(OCSP_SINGLERESP* single, std::chrono::seconds skew) noexcept {
    ASN1_GENERALIZEDTIME* since = nullptr;
    ASN1_GENERALIZEDTIME* until = nullptr;
    int const status = OCSP_single_get0_status(single, nullptr, nullptr, &since, &until);
    // A revocation that is out of date is one all the same.
    if (status == V_OCSP_CERTSTATUS_REVOKED) return {.error = X509_V_ERR_CERT_REVOKED};
    if (until == nullptr || since == nullptr) return {.error = X509_V_ERR_OCSP_VERIFY_FAILED};
    std::chrono::duration<long> const seconds = skew;
    if (OCSP_check_validity(since, until, seconds.count(), -1) != 1) return {.error = X509_V_ERR_CERT_HAS_EXPIRED};
    if (status != V_OCSP_CERTSTATUS_GOOD) return {.error = X509_V_ERR_OCSP_CERT_UNKNOWN};
    auto const end = time_of(until);
    bool const never = end == (std::chrono::system_clock::time_point::max)();
    return {.expires = never ? end : end + skew};
}

/// What the statuses of one response say of the certificate: the worst of those that are for it.
inline tls_status_check::verdict judge_basic(OCSP_BASICRESP* status, X509* certificate, X509* authority,
                                             std::chrono::seconds skew) noexcept {
    tls_status_check::verdict found{.error = X509_V_ERR_OCSP_VERIFY_FAILED};
    for (int i = 0; i < OCSP_resp_count(status); ++i) {
        OCSP_SINGLERESP* const single = OCSP_resp_get0(status, i);
        if (!is_for(single, certificate, authority)) continue;
        found = judge_single(single, skew);
        if (found.error != X509_V_OK) break;
    }
    return found;
}

/// What the status that has come with the server's certificate says; it is an error of the `verdict` that
/// `certificate_status_error` knows.
inline tls_status_check::verdict judge_certificate_status(SSL* ssl, ocsp_settings const& how) noexcept {
    STACK_OF(X509)* const chain = SSL_get0_verified_chain(ssl);
    int const length = sk_X509_num(chain);
    if (length < 1) return {.error = X509_V_ERR_OCSP_VERIFY_FAILED};
    X509* const certificate = sk_X509_value(chain, 0);
    X509* const authority = sk_X509_value(chain, (std::min)(1, length - 1));  // one that is trusted for itself: its own

    unsigned char* bytes = nullptr;
    // This is SSL_get_tlsext_status_ocsp_resp without that macro's C cast.
    long const size = SSL_ctrl(ssl, SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP, 0, &bytes);
    if (bytes == nullptr || size <= 0) {
        bool const needed = how.demand == ocsp_demand::always || must_staple(certificate);
        return {.error = needed ? X509_V_ERR_OCSP_VERIFY_NEEDED : X509_V_OK};
    }
    unsigned char const* next = bytes;
    ocsp_response_ptr const response(d2i_OCSP_RESPONSE(nullptr, &next, size));
    bool const is_answer =
        response && next == bytes + size && OCSP_response_status(response.get()) == OCSP_RESPONSE_STATUS_SUCCESSFUL;
    ocsp_basic_ptr const status(is_answer ? OCSP_response_get1_basic(response.get()) : nullptr);
    if (!status || !is_signed_by(status.get(), authority, chain)) return {.error = X509_V_ERR_OCSP_VERIFY_FAILED};
    return judge_basic(status.get(), certificate, authority, how.skew);
}

class ocsp_check final : public tls_status_check {
  public:
    explicit ocsp_check(ocsp_settings const& how) noexcept : how_(how) {}
    verdict judge(ssl_st* connection) const noexcept override {
        ERR_clear_error();
        auto made = judge_certificate_status(connection, how_);
        // Without memory nothing has been found out.
        bool const no_memory = ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE;
        if (made.error != X509_V_OK && no_memory) made.error = X509_V_ERR_OUT_OF_MEM;
        ERR_clear_error();
        return made;
    }

  private:
    ocsp_settings const how_;
};

}  // namespace detail

/// OCSP stapling (RFC 6066 8, RFC 6960), for `tls_options::status_check`: a client asks servers for the status of their
/// certificate, and refuses one that has been revoked. The status must be signed by the certificate's authority, or by
/// a responder to which that one has issued a certificate for this, be for the certificate, and be valid now, give or
/// take `skew`; a status that is not is never taken for none. Nothing is fetched: no responder is asked.
///
/// The certificates of authorities between have no status: see `tls_options::crl_check`. A TLS session is resumed
/// until its status ends at most. Throws `std::out_of_range` if `skew` is not 0 s to one day.
///
///     options.status_check = runnel::ocsp_stapling({.demand = runnel::ocsp_demand::always});
inline std::shared_ptr<tls_status_check const> ocsp_stapling(ocsp_settings const& settings = {}) {
    if (settings.skew.count() < 0 || settings.skew > std::chrono::hours(24))
        throw std::out_of_range("skew of ocsp_stapling is 0 s to one day");
    return std::make_shared<detail::ocsp_check>(settings);
}

}  // namespace runnel
