#pragma once

#include <runnel/core/secret.hpp>
#include <runnel/transport/tls/detail/session_cache.hpp>
#include <runnel/transport/tls/error.hpp>
#include <runnel/transport/tls/pin.hpp>

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <new>
#include <string>
#include <string_view>
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

/// What connections have in common: trust, identity, protocol settings. A value: copies share one OpenSSL context and
/// are equal. Used by clients and servers alike, by any number of connections.
class tls_context {
  public:
    /// The defaults: the system's authorities, full verification. Made once and shared.
    tls_context() {
        static tls_context const defaults{tls_options{}};
        state_ = defaults.state_;
    }

    /// Reads all files at once. Throws `std::system_error` with a `transport_errc` and a text that names the file and
    /// gives OpenSSL's reason.
    explicit tls_context(tls_options const& options) : state_(std::make_shared<state>()) {
        ERR_clear_error();
        state_->verify = options.verify;
        state_->require_client_certificate = options.require_client_certificate;
        state_->accept_common_name = options.accept_common_name;
        set_protocol(options);
        set_trust(options);
        set_identity(options);
        set_pins(options);
        set_pre_shared_key(options);
        set_resumption(options);
        set_alpn(options.alpn);
    }

    tls_verify verify() const noexcept { return state_->verify; }
    bool requires_client_certificate() const noexcept { return state_->require_client_certificate; }
    /// Whether peers are authenticated by a pre-shared key.
    bool has_pre_shared_key() const noexcept { return !state_->psk_key.empty(); }
    /// The sessions that clients may resume; null if none are kept.
    detail::tls_session_cache* sessions() const noexcept { return state_->sessions.get(); }
    /// Whether the common name counts where there is no subjectAltName.
    bool accepts_common_name() const noexcept { return state_->accept_common_name; }
    /// Where an `SSL` of this context keeps a `tls_session_owner*`, that of a client.
    static int session_owner_index() {
        static int const index = checked_index(SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr));
        return index;
    }
    SSL_CTX* native_handle() const noexcept { return state_->context.get(); }

    friend bool operator==(tls_context const&, tls_context const&) noexcept = default;

  private:
    template <auto Free>
    struct freer {
        template <class T>
        void operator()(T* p) const noexcept {
            Free(p);
        }
    };
    using context_ptr = std::unique_ptr<SSL_CTX, freer<SSL_CTX_free>>;
    using bio_ptr = std::unique_ptr<BIO, freer<BIO_free_all>>;
    using certificate_ptr = std::unique_ptr<X509, freer<X509_free>>;
    using key_ptr = std::unique_ptr<EVP_PKEY, freer<EVP_PKEY_free>>;

    struct state {
        std::vector<std::string> pins;  // as bytes
        std::string psk_identity;
        secret_string psk_key;
        std::unique_ptr<detail::tls_session_cache> sessions;
        context_ptr context{SSL_CTX_new(TLS_method())};
        std::string alpn;  // in the form of the wire: each name behind its length
        tls_verify verify = tls_verify::full;
        bool require_client_certificate = false;
        bool accept_common_name = false;
        std::chrono::seconds resumption_limit{};
    };

    // PEM text, and where it is from for errors.
    struct pem_source {
        secret_string text;  // a private key, perhaps
        std::string name;

        bio_ptr open() const { return bio_ptr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }
    };

    [[noreturn]] static void fail(transport_errc code, std::string const& doing) {
        take_openssl_error(code).raise(doing);
    }

    static pem_source source(char const* what, std::string const& file, std::string const& pem) {
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

    void set_protocol(tls_options const& options) {
        if (!state_->context) fail(transport_errc::tls_option_invalid, "creating a TLS context");
        SSL_CTX* const context = state_->context.get();
        SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
        auto const number = [](tls_version v) { return v == tls_version::v1_2 ? TLS1_2_VERSION : TLS1_3_VERSION; };
        if (options.minimum > options.maximum || SSL_CTX_set_min_proto_version(context, number(options.minimum)) != 1 ||
            SSL_CTX_set_max_proto_version(context, number(options.maximum)) != 1)
            fail(transport_errc::tls_option_invalid, "minimum and maximum TLS version");
        if (!options.ciphers.empty() && SSL_CTX_set_cipher_list(context, options.ciphers.c_str()) != 1)
            fail(transport_errc::tls_option_invalid, "ciphers '" + options.ciphers + "'");
        if (!options.cipher_suites.empty() && SSL_CTX_set_ciphersuites(context, options.cipher_suites.c_str()) != 1)
            fail(transport_errc::tls_option_invalid, "cipher_suites '" + options.cipher_suites + "'");
    }

    void set_trust(tls_options const& options) {
        SSL_CTX* const context = state_->context.get();
        if (!options.ca_file.empty() || !options.ca_pem.empty())
            trust(source("ca_file", options.ca_file, options.ca_pem));
        if (!options.ca_path.empty()) {
            std::error_code error;
            if (!std::filesystem::is_directory(options.ca_path, error) ||
                SSL_CTX_load_verify_dir(context, options.ca_path.c_str()) != 1)
                fail(transport_errc::file_unreadable, "ca_path '" + options.ca_path + "'");
        }
        if (options.ca_file.empty() && options.ca_pem.empty() && options.ca_path.empty() &&
            SSL_CTX_set_default_verify_paths(context) != 1)
            fail(transport_errc::file_unreadable, "the system's certification authorities");
    }

    void trust(pem_source const& pem) {
        X509_STORE* const store = SSL_CTX_get_cert_store(state_->context.get());
        bio_ptr const bio = pem.open();
        int count = 0;
        while (certificate_ptr const ca{PEM_read_bio_X509_AUX(bio.get(), nullptr, no_password, nullptr)}) {
            ++count;
            // A server that asks for certificates tells clients which authorities it accepts.
            if (X509_STORE_add_cert(store, ca.get()) != 1 ||
                SSL_CTX_add_client_CA(state_->context.get(), ca.get()) != 1)
                fail(transport_errc::certificate_unusable, pem.name);
        }
        if (count == 0 || !ends_in_order()) fail(transport_errc::pem_invalid, pem.name);
    }

    void set_identity(tls_options const& options) {
        if (options.certificate_file.empty() && options.certificate_pem.empty()) {
            if (!options.private_key_file.empty() || !options.private_key_pem.empty())
                throw std::system_error(transport_errc::tls_option_invalid, "a private key without a certificate");
            return;
        }
        use_chain(source("certificate_file", options.certificate_file, options.certificate_pem));
        use_key(source("private_key_file", options.private_key_file, options.private_key_pem),
                options.private_key_password);
    }

    void use_chain(pem_source const& pem) {
        bio_ptr const bio = pem.open();
        certificate_ptr const own{PEM_read_bio_X509_AUX(bio.get(), nullptr, no_password, nullptr)};
        if (!own) fail(transport_errc::pem_invalid, pem.name);
        if (SSL_CTX_use_certificate(state_->context.get(), own.get()) != 1)
            fail(transport_errc::certificate_unusable, pem.name);
        while (certificate_ptr intermediate{PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr)}) {
            if (SSL_CTX_add0_chain_cert(state_->context.get(), intermediate.get()) != 1)
                fail(transport_errc::certificate_unusable, pem.name);
            intermediate.release();  // the context's now
        }
        if (!ends_in_order()) fail(transport_errc::pem_invalid, pem.name);
    }

    void use_key(pem_source const& pem, std::string const& password) {
        bio_ptr const bio = pem.open();
        password_use use{&password, false};
        key_ptr const key{PEM_read_bio_PrivateKey(bio.get(), nullptr, give_password, &use)};
        if (!key) {
            fail(use.asked ? transport_errc::private_key_password_wrong : transport_errc::pem_invalid, pem.name);
        }
        if (SSL_CTX_use_PrivateKey(state_->context.get(), key.get()) != 1 ||
            SSL_CTX_check_private_key(state_->context.get()) != 1) {
            bool const other = ERR_GET_LIB(ERR_peek_last_error()) == ERR_LIB_X509;
            fail(other ? transport_errc::private_key_mismatch : transport_errc::private_key_unusable, pem.name);
        }
    }

    void set_pins(tls_options const& options) {
        for (std::string const& pin : options.pins) {
            auto bytes = digest::decode_base64(pin);
            if (!bytes || bytes->size() != 32)
                throw std::system_error(transport_errc::tls_option_invalid, "pins: '" + pin + "' is no SHA-256");
            state_->pins.push_back(std::move(*bytes));
        }
        // What would not be looked at is refused, so that nobody takes it for protection.
        if (options.verify == tls_verify::none_insecure && !options.pins.empty())
            throw std::system_error(transport_errc::tls_option_invalid, "pins beside tls_verify::none_insecure");
        if (options.verify == tls_verify::pinned_key && options.pins.empty())
            throw std::system_error(transport_errc::tls_option_invalid, "tls_verify::pinned_key without pins");
        if (!options.pins.empty()) SSL_CTX_set_cert_verify_callback(state_->context.get(), verify_pins, state_.get());
    }

    static int verify_pins(X509_STORE_CTX* store, void* self) noexcept {
        auto const& own = *static_cast<state const*>(self);
        auto const pinned = [&](X509* certificate) {
            return std::find(own.pins.begin(), own.pins.end(), public_key_sha256(certificate)) != own.pins.end();
        };
        bool found = false;
        if (own.verify == tls_verify::pinned_key) {
            X509* const certificate = X509_STORE_CTX_get0_cert(store);
            found = certificate != nullptr && pinned(certificate);
        } else {
            int const verified = X509_verify_cert(store);
            if (verified != 1) return verified;
            STACK_OF(X509)* const chain = X509_STORE_CTX_get0_chain(store);
            for (int i = 0; i < sk_X509_num(chain) && !found; ++i) found = pinned(sk_X509_value(chain, i));
        }
        X509_STORE_CTX_set_error(store, found ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
        return found ? 1 : 0;
    }

    void set_pre_shared_key(tls_options const& options) {
        if (options.psk_identity.empty() && options.psk_key.empty()) return;
        if (options.psk_identity.empty() || options.psk_identity.size() > 255 ||
            options.psk_identity.find('\0') != std::string::npos)
            throw std::system_error(transport_errc::tls_option_invalid, "psk_identity has 1 to 255 bytes, no zeros");
        if (options.psk_key.size() < 16 || options.psk_key.size() > 64)
            throw std::system_error(transport_errc::tls_option_invalid, "psk_key has 16 to 64 bytes");
        SSL_CTX* const context = state_->context.get();
        state_->psk_identity = options.psk_identity;
        state_->psk_key = options.psk_key;
        // With forward secrecy where the peer can; never with certificates.
        if (options.ciphers.empty() && SSL_CTX_set_cipher_list(context, "kECDHEPSK:kDHEPSK:kPSK:!eNULL:!aNULL") != 1)
            fail(transport_errc::tls_option_invalid, "ciphers for a pre-shared key");
        // TLS 1.3 takes these older callbacks too.
        SSL_CTX_set_psk_client_callback(context, give_psk);
        SSL_CTX_set_psk_server_callback(context, find_psk);
        SSL_CTX_set_cert_verify_callback(context, refuse_certificates, nullptr);
    }

    // Without memory there is none, this time.
    static int checked_index(int index) {
        if (index < 0) throw std::bad_alloc();
        return index;
    }
    static int state_index() {
        static int const index = checked_index(SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr));
        return index;
    }
    static state const& state_of(SSL* ssl) noexcept {
        return *static_cast<state const*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), state_index()));
    }

    static unsigned copy_key(state const& own, unsigned char* key, unsigned capacity) noexcept {
        if (own.psk_key.size() > capacity) return 0;
        std::memcpy(key, own.psk_key.data(), own.psk_key.size());
        return static_cast<unsigned>(own.psk_key.size());
    }
    static unsigned give_psk(SSL* ssl, char const*, char* identity, unsigned identity_capacity, unsigned char* key,
                             unsigned capacity) noexcept {
        auto const& own = state_of(ssl);
        if (own.psk_identity.size() >= identity_capacity) return 0;
        std::memcpy(identity, own.psk_identity.c_str(), own.psk_identity.size() + 1);
        return copy_key(own, key, capacity);
    }
    static unsigned find_psk(SSL* ssl, char const* identity, unsigned char* key, unsigned capacity) noexcept {
        auto const& own = state_of(ssl);
        return identity != nullptr && own.psk_identity == identity ? copy_key(own, key, capacity) : 0;
    }

    // A peer that shows a certificate does not know the key.
    static int refuse_certificates(X509_STORE_CTX* store, void*) noexcept {
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
        return 0;
    }

    void set_resumption(tls_options const& options) {
        SSL_CTX* const context = state_->context.get();
        if (options.resumption_limit.count() < 0 || options.resumption_limit > std::chrono::hours(7 * 24))
            throw std::system_error(transport_errc::tls_option_invalid, "resumption_limit is 0 s to 7 days");
        state_->resumption_limit = options.resumption_limit;
        session_owner_index();  // what can fail comes first
        if (SSL_CTX_set_ex_data(context, state_index(), state_.get()) != 1) throw std::bad_alloc();
        if (options.require_client_certificate)
            SSL_CTX_set_session_ticket_cb(context, sign_ticket, judge_ticket, state_.get());
        // With a pre-shared key nothing would be saved.
        if (options.resumable_sessions == 0 || has_pre_shared_key()) {
            SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
            return;
        }
        state_->sessions =
            std::make_unique<detail::tls_session_cache>(options.resumable_sessions, options.resumption_limit);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }

  public:
    /// When the peer's certificates were verified: in the handshake that is being done, or has just been, unless it
    /// resumed a session.
    static detail::tls_verification const& verified(SSL* ssl, detail::tls_session_owner& owner) noexcept {
        if (!owner.verified) owner.verified = SSL_session_reused(ssl) == 1 ? owner.resumable : verified_now(ssl);
        return *owner.verified;
    }

  private:
    // Where dates do not count, nothing expires.
    static detail::tls_verification verified_now(SSL* ssl) noexcept {
        detail::tls_verification made{.at = detail::tls_moment::now()};
        if (state_of(ssl).verify == tls_verify::full) made.expires = first_expiry(SSL_get0_verified_chain(ssl));
        return made;
    }

    static std::chrono::system_clock::time_point first_expiry(STACK_OF(X509) * chain) noexcept {
        using clock = std::chrono::system_clock;
        auto first = (clock::time_point::max)();
        for (int i = 0; i < sk_X509_num(chain); ++i) {  // none: -1
            int days = 0;
            int seconds = 0;
            if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(sk_X509_value(chain, i))) != 1) return {};
            // What is far off cannot be counted by the clock, and does not matter.
            if (days < 365)
                first = (std::min)(first, clock::now() + std::chrono::hours(24 * days) + std::chrono::seconds(seconds));
        }
        return first;
    }

    static int keep_session(SSL* ssl, SSL_SESSION* session) noexcept {
        auto* const owner = static_cast<detail::tls_session_owner*>(SSL_get_ex_data(ssl, session_owner_index()));
        try {
            if (owner != nullptr) state_of(ssl).sessions->put(owner->server, session, verified(ssl, *owner));
        } catch (...) {  // without memory, without resumption
        }
        return 0;  // the session is still OpenSSL's: a copy was kept
    }

    // A server's tickets say when the client's certificates were verified, and until when they hold, in seconds since
    // 1970: a client that comes back with a ticket shows no certificate.
    using ticket_note = std::array<std::int64_t, 2>;

    static int sign_ticket(SSL* ssl, void*) noexcept {
        using std::chrono::system_clock;
        if (SSL_session_reused(ssl) == 1) return 1;  // it says so already
        ticket_note const note{system_clock::to_time_t(system_clock::now()),
                               system_clock::to_time_t(first_expiry(SSL_get0_verified_chain(ssl)))};
        return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), note.data(), sizeof(note));
    }

    static SSL_TICKET_RETURN judge_ticket(SSL*, SSL_SESSION* session, unsigned char const*, std::size_t,
                                          SSL_TICKET_STATUS status, void* self) noexcept {
        bool const renews = status == SSL_TICKET_SUCCESS_RENEW;
        if (!renews && status != SSL_TICKET_SUCCESS) return SSL_TICKET_RETURN_IGNORE_RENEW;
        void* data = nullptr;
        std::size_t size = 0;
        ticket_note note{};
        if (SSL_SESSION_get0_ticket_appdata(session, &data, &size) == 1 && size == sizeof(note))
            std::memcpy(note.data(), data, size);
        std::int64_t const now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
        bool const good = now >= note[0] && now < note[1] &&
                          now - note[0] < static_cast<state const*>(self)->resumption_limit.count();
        if (!good) return SSL_TICKET_RETURN_IGNORE_RENEW;
        return renews ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_USE;
    }

    void set_alpn(std::vector<std::string> const& names) {
        for (std::string const& name : names) {
            if (name.empty() || name.size() > 255)
                throw std::system_error(transport_errc::tls_option_invalid, "alpn: a name has 1 to 255 bytes");
            state_->alpn += static_cast<char>(static_cast<unsigned char>(name.size()));
            state_->alpn += name;
        }
        if (names.empty()) return;
        auto const wire = reinterpret_cast<unsigned char const*>(state_->alpn.data());
        auto const size = static_cast<unsigned>(state_->alpn.size());
        // Alone among its kin, this function returns 0 for success.
        if (SSL_CTX_set_alpn_protos(state_->context.get(), wire, size) != 0)
            fail(transport_errc::tls_option_invalid, "alpn");
        SSL_CTX_set_alpn_select_cb(state_->context.get(), select_alpn, state_.get());
    }

    static int select_alpn(SSL*, unsigned char const** out, unsigned char* out_size, unsigned char const* in,
                           unsigned in_size, void* self) {
        auto const& own = static_cast<state const*>(self)->alpn;
        unsigned char* chosen = nullptr;
        if (SSL_select_next_proto(&chosen, out_size, reinterpret_cast<unsigned char const*>(own.data()),
                                  static_cast<unsigned>(own.size()), in, in_size) != OPENSSL_NPN_NEGOTIATED)
            return SSL_TLSEXT_ERR_ALERT_FATAL;
        *out = chosen;
        return SSL_TLSEXT_ERR_OK;
    }

    // Whether a loop over PEM objects ended because there were no more, and not at a broken one.
    static bool ends_in_order() noexcept {
        unsigned long const error = ERR_peek_last_error();
        bool const at_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
        if (at_end) ERR_clear_error();
        return at_end;
    }

    struct password_use {
        std::string const* password;
        bool asked;
    };
    // Without a callback OpenSSL would ask for passwords on the terminal.
    static int no_password(char*, int, int, void*) noexcept { return -1; }
    static int give_password(char* out, int capacity, int, void* self) noexcept {
        auto& use = *static_cast<password_use*>(self);
        use.asked = true;
        if (use.password->empty() || use.password->size() > static_cast<std::size_t>(capacity)) return -1;
        use.password->copy(out, use.password->size());
        return static_cast<int>(use.password->size());
    }

    std::shared_ptr<state> state_;
};

}  // namespace runnel
