#pragma once

#include <runnel/core/secret.hpp>
#include <runnel/transport/tls/error.hpp>

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace runnel::detail {

/// Frees what OpenSSL has allocated.
template <auto Free>
struct openssl_freer {
    template <class T>
    void operator()(T* p) const noexcept {
        Free(p);
    }
};
/// Objects of OpenSSL that go with their owner.
using context_ptr = std::unique_ptr<SSL_CTX, openssl_freer<SSL_CTX_free>>;
using bio_ptr = std::unique_ptr<BIO, openssl_freer<BIO_free_all>>;
using certificate_ptr = std::unique_ptr<X509, openssl_freer<X509_free>>;
using crl_ptr = std::unique_ptr<X509_CRL, openssl_freer<X509_CRL_free>>;
using store_ptr = std::unique_ptr<X509_STORE, openssl_freer<X509_STORE_free>>;
using key_ptr = std::unique_ptr<EVP_PKEY, openssl_freer<EVP_PKEY_free>>;

/// PEM text, and where it is from for errors.
struct pem_source {
    secret_string text{};  // a private key, perhaps
    std::string name{};

    bio_ptr open() const { return bio_ptr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }
};

/// Reads the file, or takes the text if there is no file; `what` is the option's name. Throws `file_unreadable`.
inline pem_source read_pem(char const* what, std::string const& file, std::string const& pem) {
    if (file.empty()) return {secret_string(pem), std::string(what) + " (from memory)"};
    std::string const name = std::string(what) + " '" + file + "'";
    errno = 0;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> const opened(std::fopen(file.c_str(), "rb"), std::fclose);
    if (opened) std::setvbuf(opened.get(), nullptr, _IONBF, 0);  // no copies elsewhere
    secret_string text;
    std::array<char, 4096> block;
    while (std::size_t const n = opened ? std::fread(block.data(), 1, block.size(), opened.get()) : 0) {
        // What it grows out of is wiped.
        secret_string larger;
        larger.reserve(text.size() + n);
        text = std::move(larger.append(text).append(block.data(), n));
    }
    secure_wipe(block);
    if (!opened || std::ferror(opened.get()) != 0)
        throw std::system_error(transport_errc::file_unreadable,
                                name + " (" + std::generic_category().message(errno) + ")");
    return {std::move(text), name};
}

/// A moment of a certificate or list, as the clock has it: never, if it is more than a year off, which the clock may
/// not be able to count; long past, if it cannot be read.
inline std::chrono::system_clock::time_point time_of(ASN1_TIME const* time) noexcept {
    using clock = std::chrono::system_clock;
    int days = 0;
    int seconds = 0;
    if (ASN1_TIME_diff(&days, &seconds, nullptr, time) != 1) return {};
    if (days <= -365) return {};
    if (days >= 365) return (clock::time_point::max)();
    return clock::now() + std::chrono::hours(24 * days) + std::chrono::seconds(seconds);
}

/// Whether a loop over PEM objects ended because there were no more, and not at a broken one.
inline bool ends_in_order() noexcept {
    unsigned long const error = ERR_peek_last_error();
    bool const at_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    if (at_end) ERR_clear_error();
    return at_end;
}

/// The password of a private key, and whether it was asked for.
struct password_use {
    std::string const* password;
    bool asked;
};
/// Without a callback OpenSSL would ask for passwords on the terminal.
inline int no_password(char*, int, int, void*) noexcept { return -1; }
/// Gives OpenSSL the password of a `password_use`.
inline int give_password(char* out, int capacity, int, void* self) noexcept {
    auto& use = *static_cast<password_use*>(self);
    use.asked = true;
    if (use.password->empty() || use.password->size() > static_cast<std::size_t>(capacity)) return -1;
    use.password->copy(out, use.password->size());
    return static_cast<int>(use.password->size());
}

}  // namespace runnel::detail
