#pragma once

#include <runnel/core/secret.hpp>

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace runnel {

/// Which side of a connection a stream is: who speaks first, and which certificates are asked for.
enum class tls_role { client, server };

/// Whether the peer must prove who it is.
enum class tls_verify {
    /// The certificate chain must lead to a trusted authority, and a server's certificate must be for the host name or
    /// address that is connected to.
    full,
    /// The peer's own public key must be one of `tls_options::pins`. Nothing else of its certificate counts: not who
    /// issued it, not its name, not its dates. For self-signed servers whose key is known.
    pinned_key,
    /// INSECURE: anybody in between can read and change everything. For experiments only.
    none_insecure,
};

/// Versions of TLS.
enum class tls_version { v1_2, v1_3 };

/// How a `tls_context` is to be made. Where there is a `..._file` and a `..._pem`, give one: the name of a file, or its
/// contents.
struct tls_options {
    /// The authorities to trust, PEM, any number. If none of the three is given, those of the system are.
    std::string ca_file;
    std::string ca_pem;
    /// A directory of authorities with hashed names (`openssl rehash`).
    std::string ca_path;

    /// This side's certificate, followed by the intermediate ones, and its private key: required of a server, and of
    /// the client of a server that demands one (mutual TLS).
    std::string certificate_file;
    std::string certificate_pem;
    std::string private_key_file;
    secret_string private_key_pem;
    secret_string private_key_password;

    /// Application protocols in order of preference (ALPN, RFC 7301), e.g. "mqtt"; empty: none are negotiated.
    std::vector<std::string> alpn;

    /// Switching the client's verification off takes this one loud word: `tls_verify::none_insecure`.
    tls_verify verify = tls_verify::full;
    /// Pins (RFC 7469 2.4): the SHA-256 of public keys (SubjectPublicKeyInfo) in base64, 44 characters each, as
    /// `tls_pin` makes them. With `tls_verify::full`, besides all else that must hold, some certificate of the verified
    /// chain must have one of these keys: pin the server's key, or that of an authority, and a spare one. With
    /// `tls_verify::pinned_key`, the server's own. A key is revoked by taking its pin away.
    ///
    ///     openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary |
    ///     openssl base64
    std::vector<std::string> pins;
    /// Whether a server's certificate without subjectAltName may be for the host that its subject's common name says.
    /// RFC 9525 (6.3) forbids it, as such a name may be anything; for old private servers.
    bool accept_common_name = false;
    /// In the role of a server: refuse clients without a certificate of a trusted authority.
    bool require_client_certificate = false;

    /// A pre-shared key and its identity, in place of certificates (RFC 4279, RFC 8446 2.2): both sides prove that they
    /// know the key, which is random bytes, 16 or more, not a password. The identity, up to 255 bytes without zeros,
    /// is sent in the clear. A client then accepts no certificate in place of the key; a server knows this one
    /// identity.
    std::string psk_identity;
    secret_string psk_key;

    /// How many TLS sessions are kept for resumption, by all clients that share the context, so that reconnecting needs
    /// no exchange of certificates; 0: none. What has been verified is not verified again in a resumed session: see
    /// `resumption_limit`.
    std::size_t resumable_sessions = 16;
    /// How long after the peer's certificates were verified sessions may be resumed, 0 s to seven days, however often
    /// that was done meanwhile; not beyond the end of a certificate either. A server that requires certificates holds
    /// clients to it, too.
    std::chrono::seconds resumption_limit{7 * 24 * 3600};

    tls_version minimum = tls_version::v1_2;
    tls_version maximum = tls_version::v1_3;
    /// Cipher suites of TLS 1.2 in OpenSSL's notation; empty: OpenSSL's choice.
    std::string ciphers;
    /// Cipher suites of TLS 1.3 in OpenSSL's notation; empty: OpenSSL's choice.
    std::string cipher_suites;
};

}  // namespace runnel
