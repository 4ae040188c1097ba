#pragma once

#include <runnel/testing/certificate.hpp>

#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>

/// What the other side of the session benchmarks reads from and writes to: a socket that does not block, with TLS on it
/// where the client begins with that.
namespace peer {

/// The settings of all connections that use TLS: a certificate made at the start, which no client verifies.
class tls_settings {
  public:
    tls_settings() : context_(SSL_CTX_new(TLS_server_method())) {
        auto const identity = runnel::testing::certificate_authority().issue_server();
        std::unique_ptr<BIO, decltype(&BIO_free)> certificate(text(identity.certificate_pem), BIO_free);
        std::unique_ptr<BIO, decltype(&BIO_free)> key(text(identity.private_key_pem), BIO_free);
        X509* const parsed = PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr);
        EVP_PKEY* const parsed_key = PEM_read_bio_PrivateKey(key.get(), nullptr, nullptr, nullptr);
        SSL_CTX_use_certificate(context_, parsed);
        SSL_CTX_use_PrivateKey(context_, parsed_key);
        SSL_CTX_set_mode(context_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(context_, 1);
        SSL_CTX_set_default_read_buffer_len(context_, 64 * 1024);
        SSL_CTX_set_num_tickets(context_, 0);
        X509_free(parsed);
        EVP_PKEY_free(parsed_key);
    }
    tls_settings(tls_settings const&) = delete;
    ~tls_settings() { SSL_CTX_free(context_); }

    SSL* accept(int fd) const {
        SSL* const made = SSL_new(context_);
        SSL_set_fd(made, fd);
        SSL_set_accept_state(made);
        return made;
    }

  private:
    static BIO* text(std::string_view pem) { return BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())); }

    SSL_CTX* context_;
};

/// One connection's.
class channel {
  public:
    explicit channel(int fd) noexcept : fd_(fd) {}
    channel(channel const&) = delete;
    ~channel() {
        SSL_free(tls_);
        ::close(fd_);
    }

    int fd() const noexcept { return fd_; }

    /// How many bytes have come into `room`; 0 if none are there; -1 if there will be no more.
    ssize_t read(char* room, std::size_t size, tls_settings const& settings) {
        if (!begun_ && !begin(settings)) return errno == EAGAIN ? 0 : -1;
        if (tls_ != nullptr) return of_tls(SSL_read(tls_, room, static_cast<int>(size)));
        ssize_t const n = ::recv(fd_, room, size, 0);
        return n > 0 ? n : n < 0 && errno == EAGAIN ? 0 : -1;
    }

    /// How many bytes have been taken; 0 if there is no room; -1 if none will be taken any more.
    ssize_t write(std::string_view bytes) {
        if (tls_ != nullptr) return of_tls(SSL_write(tls_, bytes.data(), static_cast<int>(bytes.size())));
        ssize_t const n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        return n >= 0 ? n : errno == EAGAIN ? 0 : -1;
    }

    /// Whether more can be read than epoll knows of.
    bool holds_more() const noexcept { return tls_ != nullptr && SSL_has_pending(tls_) == 1; }

  private:
    // The first byte tells: that of a handshake record of TLS is no first byte of MQTT or HTTP.
    bool begin(tls_settings const& settings) {
        char first = 0;
        if (::recv(fd_, &first, 1, MSG_PEEK) <= 0) return false;
        begun_ = true;
        if (first == 0x16) tls_ = settings.accept(fd_);
        return true;
    }

    ssize_t of_tls(int result) const noexcept {
        if (result > 0) return result;
        int const why = SSL_get_error(tls_, result);
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }

    int fd_;
    bool begun_ = false;
    SSL* tls_ = nullptr;
};

}  // namespace peer
