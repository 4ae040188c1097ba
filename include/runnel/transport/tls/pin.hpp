#pragma once

#include <runnel/digest/base64.hpp>
#include <runnel/transport/tls/error.hpp>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>

namespace runnel {

/// The SHA-256 of a certificate's public key (SubjectPublicKeyInfo), 32 bytes; empty if OpenSSL fails.
inline std::string public_key_sha256(X509* certificate) {
    unsigned char* der = nullptr;
    int const size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
    if (size <= 0) return {};
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned hash_size = 0;
    bool const done = EVP_Digest(der, static_cast<std::size_t>(size), hash, &hash_size, EVP_sha256(), nullptr) == 1;
    OPENSSL_free(der);
    return done ? std::string(reinterpret_cast<char const*>(hash), hash_size) : std::string();
}

/// The pin of the first certificate in a PEM text, for `tls_options::pins`. Throws `std::system_error` with
/// `transport_errc::pem_invalid` if there is none.
inline std::string tls_pin(std::string_view certificate_pem) {
    std::unique_ptr<BIO, int (*)(BIO*)> const bio(
        BIO_new_mem_buf(certificate_pem.data(), static_cast<int>(certificate_pem.size())), BIO_free);
    std::unique_ptr<X509, void (*)(X509*)> const certificate(
        PEM_read_bio_X509_AUX(bio.get(), nullptr, [](char*, int, int, void*) { return -1; }, nullptr), X509_free);
    if (!certificate) take_openssl_error(transport_errc::pem_invalid).raise("the pin of a certificate");
    return digest::encode_base64(public_key_sha256(certificate.get()));
}

}  // namespace runnel
