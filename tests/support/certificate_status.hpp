#pragma once

#include <runnel/transport/tls/context.hpp>

#include <openssl/ocsp.h>
#include <openssl/ssl.h>

#include "support/any_certificate.hpp"
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace test {

/// What an OCSP response is to say. The defaults are those of a good one.
struct status_request {
    any_certificate const& certificate;  ///< whose status
    any_certificate const& authority;    ///< who issued it
    any_certificate const& signer;       ///< who signs the response
    int status = V_OCSP_CERTSTATUS_GOOD;
    long since = -60;                 ///< thisUpdate, seconds from now on
    std::optional<long> until = 600;  ///< nextUpdate
    EVP_MD const* (*digest)() = EVP_sha1;
};

/// An OCSP response, DER.
inline std::string certificate_status(status_request const& r) {
    auto const time = [](long seconds) {
        return std::unique_ptr<ASN1_TIME, void (*)(ASN1_TIME*)>(X509_gmtime_adj(nullptr, seconds), ASN1_TIME_free);
    };
    std::unique_ptr<OCSP_BASICRESP, void (*)(OCSP_BASICRESP*)> const basic(OCSP_BASICRESP_new(), OCSP_BASICRESP_free);
    std::unique_ptr<OCSP_CERTID, void (*)(OCSP_CERTID*)> const id(
        OCSP_cert_to_id(r.digest(), r.certificate.handle(), r.authority.handle()), OCSP_CERTID_free);
    auto const until = time(r.until.value_or(0));
    bool const revoked = r.status == V_OCSP_CERTSTATUS_REVOKED;
    bool const well = OCSP_basic_add1_status(basic.get(), id.get(), r.status, OCSP_REVOKED_STATUS_NOSTATUS,
                                             revoked ? time(-60).get() : nullptr, time(r.since).get(),
                                             r.until ? until.get() : nullptr) != nullptr &&
                      OCSP_basic_sign(basic.get(), r.signer.handle(), r.signer.key(), EVP_sha256(), nullptr, 0) == 1;
    std::unique_ptr<OCSP_RESPONSE, void (*)(OCSP_RESPONSE*)> const response(
        OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic.get()), OCSP_RESPONSE_free);
    unsigned char* der = nullptr;
    int const size = well ? i2d_OCSP_RESPONSE(response.get(), &der) : -1;
    if (size <= 0) throw std::runtime_error("no OCSP response");
    std::string text(reinterpret_cast<char const*>(der), static_cast<std::size_t>(size));
    OPENSSL_free(der);
    return text;
}

/// Makes a server send `status`, which must outlive it, to clients that ask.
inline void staple(runnel::tls_context const& server, std::string const& status) {
    SSL_CTX* const context = server.native_handle();
    SSL_CTX_set_tlsext_status_cb(
        context, +[](SSL* ssl, void* of) {
            auto const& text = *static_cast<std::string const*>(of);
            if (text.empty()) return SSL_TLSEXT_ERR_NOACK;
            void* const copy = OPENSSL_memdup(text.data(), text.size());
            SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, static_cast<long>(text.size()), copy);
            return SSL_TLSEXT_ERR_OK;
        });
    SSL_CTX_set_tlsext_status_arg(context, const_cast<std::string*>(&status));
}

}  // namespace test
