#pragma once

#include <runnel/core/secret.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

struct ssl_st;
struct evp_pkey_st;

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

/// Which certificates are looked up in revocation lists (CRL, RFC 5280 6.3).
enum class tls_crl_check {
    off,
    /// The peer's own.
    certificate,
    /// All of the chain but the trust anchor: a list of each of their issuers must be there.
    chain,
};

/// What a client makes of the status which a server sends with its certificate (RFC 6066 8): see `ocsp_stapling`.
class tls_status_check {
  public:
    virtual ~tls_status_check() = default;

    struct verdict {
        int error = 0;  ///< `X509_V_OK`, or the `X509_V_ERR_...` for which the certificate is refused
        /// Until when the status holds, and with it the TLS sessions that come of this connection.
        std::chrono::system_clock::time_point expires = (std::chrono::system_clock::time_point::max)();
    };
    /// Called in a handshake, not in one that resumes a session, once the server's chain has been verified. By several
    /// threads at once, if they share the context.
    virtual verdict judge(ssl_st* connection) const noexcept = 0;
};

/// How a `tls_context` is to be made. Where there is a `..._file` and a `..._pem`, give one: the name of a file, or its
/// contents.
struct tls_options {
    /// The authorities to trust, PEM, any number. If none of the three is given, those of the system are.
    std::string ca_file{};
    std::string ca_pem{};
    /// A directory of authorities with hashed names (`openssl rehash`).
    std::string ca_path{};
    /// Whether each of these is trusted for itself, also one that another authority has issued, and a server's own
    /// certificate: the chain of a peer need not lead any further (X509_V_FLAG_PARTIAL_CHAIN). Without, it must lead to
    /// one that is self-signed. For those who trust one intermediate authority and not all of its root's.
    bool partial_chain = false;

    /// Whether the peer's certificate may have been revoked, by lists of the authorities. One that is missing or out of
    /// date is a failure (`transport_errc::revocation_list_missing`, `revocation_list_expired`). Lists are read once,
    /// from here and, as they are needed, from `ca_path` ("....r0", as `openssl rehash` names them), and not fetched:
    /// renew them with `tls_context::replace`. Direct lists without deltas.
    tls_crl_check crl_check = tls_crl_check::off;
    /// Revocation lists, PEM, any number.
    std::string crl_file{};
    std::string crl_pem{};

    /// This side's certificate, followed by the intermediate ones, and its private key: required of a server, and of
    /// the client of a server that demands one (mutual TLS).
    std::string certificate_file{};
    std::string certificate_pem{};
    std::string private_key_file{};
    secret_string private_key_pem{};
    secret_string private_key_password{};
    /// The private key in place of a file or a text: one that OpenSSL has by any of its means, and that may stay in a
    /// device of its own: `load_private_key` of <runnel/transport/tls/key_uri.hpp>. Null: none.
    std::shared_ptr<evp_pkey_st> private_key{};

    /// Application protocols in order of preference (ALPN, RFC 7301), e.g. "mqtt"; empty: none are negotiated.
    std::vector<std::string> alpn{};

    /// Switching the client's verification off takes this one loud word: `tls_verify::none_insecure`.
    tls_verify verify = tls_verify::full;
    /// Pins (RFC 7469 2.4): the SHA-256 of public keys (SubjectPublicKeyInfo) in base64, 44 characters each, as
    /// `tls_pin` makes them. With `tls_verify::full`, besides all else that must hold, some certificate of the verified
    /// chain must have one of these keys: pin the server's key, or that of an authority, and a spare one. With
    /// `tls_verify::pinned_key`, the server's own. A key is revoked by taking its pin away.
    ///
    ///     openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary |
    ///     openssl base64
    std::vector<std::string> pins{};
    /// Whether a server's certificate without subjectAltName may be for the host that its subject's common name says.
    /// RFC 9525 (6.3) forbids it, as such a name may be anything; for old private servers.
    bool accept_common_name = false;
    /// In the role of a server: refuse clients without a certificate of a trusted authority.
    bool require_client_certificate = false;

    /// A pre-shared key and its identity, in place of certificates (RFC 4279, RFC 8446 2.2): both sides prove that they
    /// know the key, which is random bytes, 16 or more, not a password. The identity, up to 255 bytes without zeros,
    /// is sent in the clear. A client then accepts no certificate in place of the key; a server knows this one
    /// identity.
    std::string psk_identity{};
    secret_string psk_key{};

    /// How many TLS sessions are kept for resumption, by all clients that share the context, so that reconnecting needs
    /// no exchange of certificates; 0: none. What has been verified is not verified again in a resumed session: see
    /// `resumption_limit`.
    std::size_t resumable_sessions = 16;
    /// How long after the peer's certificates were verified sessions may be resumed, 0 s to seven days, however often
    /// that was done meanwhile; not beyond the end of a certificate either. A server that requires certificates holds
    /// clients to it, too.
    std::chrono::seconds resumption_limit{7 * 24 * 3600};

    /// Whether a client asks for the status of the server's certificate, and what it makes of it:
    /// `ocsp_stapling()` of <runnel/transport/tls/ocsp.hpp>. Null: it does not ask. Servers ignore it.
    std::shared_ptr<tls_status_check const> status_check{};

    /// DANGER: the secrets of all connections are appended to this file, in the format of SSLKEYLOGFILE, by which
    /// Wireshark and others decrypt what was recorded of them: whoever reads it reads all that was sent, and passwords
    /// with it. For debugging only. Empty, as it is unless it is set here: nothing is written; no environment variable
    /// does. The file is made if need be, and only its owner may read and write it (mode 0600, also if it was there).
    /// What cannot be written is left out, and the connection goes on.
    std::string key_log_file{};

    tls_version minimum = tls_version::v1_2;
    tls_version maximum = tls_version::v1_3;
    /// Cipher suites of TLS 1.2 in OpenSSL's notation; empty: OpenSSL's choice.
    std::string ciphers{};
    /// Cipher suites of TLS 1.3 in OpenSSL's notation; empty: OpenSSL's choice.
    std::string cipher_suites{};
};

}  // namespace runnel
