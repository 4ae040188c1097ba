#pragma once

#include <runnel/core/secret.hpp>
#include <runnel/digest/base64.hpp>
#include <runnel/transport/tls/detail/key_log.hpp>
#include <runnel/transport/tls/detail/pem.hpp>
#include <runnel/transport/tls/detail/session_cache.hpp>
#include <runnel/transport/tls/error.hpp>
#include <runnel/transport/tls/options.hpp>
#include <runnel/transport/tls/pin.hpp>

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace runnel::detail {

/// What `tls_options` come to: an OpenSSL context, and what its callbacks need. Is not changed once it has been made,
/// but for `doubt` and `prepare`, and may be used by several threads. Lives as long as the connections that were begun
/// with it.
class tls_context_state {
  public:
    explicit tls_context_state(tls_options const& options) {
        ERR_clear_error();
        verify_ = options.verify;
        require_client_certificate_ = options.require_client_certificate;
        accept_common_name_ = options.accept_common_name;
        set_protocol(options);
        set_trust(options);
        set_revocation(options);
        note_what_was_read();
        set_status_check(options);
        set_key_log(options.key_log_file);
        set_identity(options);
        set_pins(options);
        set_pre_shared_key(options);
        set_resumption(options);
        set_alpn(options.alpn);
    }
    tls_context_state(tls_context_state const&) = delete;
    tls_context_state& operator=(tls_context_state const&) = delete;

    tls_verify verify() const noexcept { return verify_; }
    bool requires_client_certificate() const noexcept { return require_client_certificate_; }
    /// Whether peers are authenticated by a pre-shared key.
    bool has_pre_shared_key() const noexcept { return !psk_key_.empty(); }
    /// The sessions that clients may resume; null if none are kept.
    tls_session_cache* sessions() const noexcept { return sessions_.get(); }
    /// Whether the common name counts where there is no subjectAltName.
    bool accepts_common_name() const noexcept { return accept_common_name_; }
    /// Where an `SSL` of this context keeps a `tls_session_owner*`, that of a client.
    static int session_owner_index() {
        static int const index = checked_index(SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr));
        return index;
    }
    SSL_CTX* native_handle() const noexcept { return context_.get(); }

    /// A certificate has not been accepted: perhaps since OpenSSL had no memory while it read an authority from its
    /// directory, whom it keeps, and trusts no more. The handshakes that begin from now on read from there anew.
    void doubt() const noexcept {
        if (!reads_directory_) return;
        std::lock_guard const lock(doubts_);
        is_in_doubt_.store(true, std::memory_order_relaxed);
        anew_.reset();
    }
    /// For a connection that begins. Throws `std::bad_alloc`.
    void prepare(SSL* ssl) const {
        if (!is_in_doubt_.load(std::memory_order_relaxed)) return;
        std::lock_guard const lock(doubts_);
        if (!anew_) anew_ = new_store();
        set_store(ssl, anew_.get());
    }
    /// Its handshake is done.
    void settle(SSL* ssl) const noexcept {
        if (is_in_doubt_.load(std::memory_order_relaxed)) set_store(ssl, nullptr);
    }

  private:
    [[noreturn]] static void fail(transport_errc code, std::string const& doing) {
        take_openssl_error(code).raise(doing);
    }

    [[noreturn]] static void refuse(std::string const& text) {
        throw std::system_error(transport_errc::tls_option_invalid, text);
    }

    void set_protocol(tls_options const& options) {
        if (!context_) fail(transport_errc::tls_option_invalid, "creating a TLS context");
        SSL_CTX* const context = context_.get();
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
        SSL_CTX* const context = context_.get();
        if (!options.ca_file.empty() || !options.ca_pem.empty())
            trust(read_pem("ca_file", options.ca_file, options.ca_pem));
        if (!options.ca_path.empty()) {
            std::error_code error;
            if (!std::filesystem::is_directory(options.ca_path, error) ||
                SSL_CTX_load_verify_dir(context, options.ca_path.c_str()) != 1)
                fail(transport_errc::file_unreadable, "ca_path '" + options.ca_path + "'");
        }
        if (options.ca_file.empty() && options.ca_pem.empty() && options.ca_path.empty() &&
            SSL_CTX_set_default_verify_paths(context) != 1)
            fail(transport_errc::file_unreadable, "the system's certification authorities");
        reads_directory_ = !options.ca_path.empty() || (options.ca_file.empty() && options.ca_pem.empty());
        directory_ = options.ca_path;
        parse_extensions();
        if (options.partial_chain) X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
    }

    // Otherwise OpenSSL parses those of an authority when it first needs them, and if there is no memory then, it
    // trusts that authority no more for as long as the context lives. Those in a directory are not here yet: `doubt`.
    void parse_extensions() {
        STACK_OF(X509_OBJECT)* const all = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context_.get()));
        for (int i = 0; i < sk_X509_OBJECT_num(all); ++i) {
            X509* const authority = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
            if (authority != nullptr) X509_check_purpose(authority, -1, 0);
            if (ERR_GET_REASON(ERR_peek_error()) == ERR_R_MALLOC_FAILURE) throw std::bad_alloc();
            ERR_clear_error();  // those of an invalid one are told when it is to be trusted
        }
    }

    // What there is but for what OpenSSL has read from the directory since: those of `ca_file` and lists, as ever.
    store_ptr new_store() const {
        store_ptr made(X509_STORE_new());
        X509_LOOKUP* const lookup = made ? X509_STORE_add_lookup(made.get(), X509_LOOKUP_hash_dir()) : nullptr;
        bool done = lookup != nullptr && add_directory(lookup);
        for (X509* const one : read_authorities_) done = done && X509_STORE_add_cert(made.get(), one) == 1;
        for (X509_CRL* const one : read_lists_) done = done && X509_STORE_add_crl(made.get(), one) == 1;
        ERR_clear_error();
        if (!done) throw std::bad_alloc();
        return made;
    }
    // The environment may name none for the system's.
    bool add_directory(X509_LOOKUP* lookup) const noexcept {
        bool const is_systems = directory_.empty();
        ERR_clear_error();
        // As OpenSSL's macro does it, without the cast of C.
        if (X509_LOOKUP_ctrl(lookup, X509_L_ADD_DIR, is_systems ? nullptr : directory_.c_str(),
                             is_systems ? X509_FILETYPE_DEFAULT : X509_FILETYPE_PEM, nullptr) == 1)
            return true;
        return is_systems && ERR_GET_REASON(ERR_peek_error()) == X509_R_INVALID_DIRECTORY;
    }
    // For the peer's chain, and to complete one's own. As OpenSSL's macros do it, without the cast of C. They count who
    // has the store.
    static void set_store(SSL* ssl, X509_STORE* store) noexcept {
        SSL_ctrl(ssl, SSL_CTRL_SET_VERIFY_CERT_STORE, 1, store);
        SSL_ctrl(ssl, SSL_CTRL_SET_CHAIN_CERT_STORE, 1, store);
    }
    // They stay in the context's own.
    void note_what_was_read() {
        if (!reads_directory_) return;
        STACK_OF(X509_OBJECT)* const all = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context_.get()));
        for (int i = 0; i < sk_X509_OBJECT_num(all); ++i) {
            X509_OBJECT* const one = sk_X509_OBJECT_value(all, i);
            if (X509* const authority = X509_OBJECT_get0_X509(one)) read_authorities_.push_back(authority);
            if (X509_CRL* const list = X509_OBJECT_get0_X509_CRL(one)) read_lists_.push_back(list);
        }
    }

    void trust(pem_source const& pem) {
        X509_STORE* const store = SSL_CTX_get_cert_store(context_.get());
        bio_ptr const bio = pem.open();
        int count = 0;
        while (certificate_ptr const ca{PEM_read_bio_X509_AUX(bio.get(), nullptr, no_password, nullptr)}) {
            ++count;
            // A server that asks for certificates tells clients which authorities it accepts.
            if (X509_STORE_add_cert(store, ca.get()) != 1 || SSL_CTX_add_client_CA(context_.get(), ca.get()) != 1)
                fail(transport_errc::certificate_unusable, pem.name);
        }
        if (count == 0 || !ends_in_order()) fail(transport_errc::pem_invalid, pem.name);
    }

    // Whether chains of certificates are verified at all. What would not be looked at is refused, so that nobody takes
    // it for protection.
    static bool verifies_chains(tls_options const& options) noexcept {
        if (!options.psk_key.empty() || options.verify == tls_verify::pinned_key) return false;
        return options.verify == tls_verify::full || options.require_client_certificate;
    }

    void set_revocation(tls_options const& options) {
        bool const lists = !options.crl_file.empty() || !options.crl_pem.empty();
        if (options.crl_check == tls_crl_check::off) {
            if (lists) refuse("crl_file and crl_pem need crl_check");
            return;
        }
        if (!lists && options.ca_path.empty()) refuse("crl_check needs crl_file, crl_pem or ca_path");
        if (!verifies_chains(options)) refuse("crl_check where no chain of certificates is verified");
        checks_lists_ = true;
        unsigned long const all = options.crl_check == tls_crl_check::chain ? X509_V_FLAG_CRL_CHECK_ALL : 0;
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context_.get()), X509_V_FLAG_CRL_CHECK | all);
        if (lists) add_lists(read_pem("crl_file", options.crl_file, options.crl_pem));
    }

    void add_lists(pem_source const& pem) {
        X509_STORE* const store = SSL_CTX_get_cert_store(context_.get());
        bio_ptr const bio = pem.open();
        int count = 0;
        while (crl_ptr const list{PEM_read_bio_X509_CRL(bio.get(), nullptr, no_password, nullptr)}) {
            ++count;
            if (X509_STORE_add_crl(store, list.get()) != 1) fail(transport_errc::certificate_unusable, pem.name);
        }
        if (count == 0 || !ends_in_order()) fail(transport_errc::pem_invalid, pem.name);
    }

    void set_status_check(tls_options const& options) {
        if (!options.status_check) return;
        if (options.verify != tls_verify::full || !options.psk_key.empty())
            refuse("status_check where no chain of a server is verified");
        status_check_ = options.status_check;
        SSL_CTX_set_tlsext_status_type(context_.get(), TLSEXT_STATUSTYPE_ocsp);
        // As OpenSSL's macro does it, without the cast of C.
        SSL_CTX_callback_ctrl(context_.get(), SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB,
                              reinterpret_cast<void (*)()>(&judge_status));
        SSL_CTX_set_tlsext_status_arg(context_.get(), this);
    }

    static int judge_status(SSL* ssl, void* self) noexcept {
        if (SSL_is_server(ssl) == 1) return SSL_TLSEXT_ERR_NOACK;
        if (SSL_session_reused(ssl) == 1) return 1;  // it was asked for then
        auto const verdict = static_cast<tls_context_state const*>(self)->status_check_->judge(ssl);
        if (verdict.error != X509_V_OK) {
            SSL_set_verify_result(ssl, verdict.error);
            return 0;
        }
        auto* const owner = static_cast<tls_session_owner*>(SSL_get_ex_data(ssl, session_owner_index()));
        if (owner != nullptr) {
            verified(ssl, *owner);
            owner->verified->expires = (std::min)(owner->verified->expires, verdict.expires);
        }
        return 1;
    }

    void set_key_log(std::string const& file) {
        if (file.empty()) return;
        key_log_.emplace(file);
        SSL_CTX_set_keylog_callback(context_.get(), log_key);
    }
    static void log_key(SSL const* ssl, char const* line) noexcept { state_of(ssl).key_log_->write(line); }

    void set_identity(tls_options const& options) {
        if (options.certificate_file.empty() && options.certificate_pem.empty()) {
            if (!options.private_key_file.empty() || !options.private_key_pem.empty() || options.private_key)
                refuse("a private key without a certificate");
            return;
        }
        use_chain(read_pem("certificate_file", options.certificate_file, options.certificate_pem));
        bool const as_pem = !options.private_key_file.empty() || !options.private_key_pem.empty();
        if (options.private_key && as_pem) refuse("private_key beside private_key_file or private_key_pem");
        if (options.private_key)
            use_key(options.private_key.get(), "private_key");
        else
            read_key(read_pem("private_key_file", options.private_key_file, options.private_key_pem),
                     options.private_key_password);
    }

    void use_chain(pem_source const& pem) {
        bio_ptr const bio = pem.open();
        certificate_ptr const own{PEM_read_bio_X509_AUX(bio.get(), nullptr, no_password, nullptr)};
        if (!own) fail(transport_errc::pem_invalid, pem.name);
        if (SSL_CTX_use_certificate(context_.get(), own.get()) != 1)
            fail(transport_errc::certificate_unusable, pem.name);
        while (certificate_ptr intermediate{PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr)}) {
            if (SSL_CTX_add0_chain_cert(context_.get(), intermediate.get()) != 1)
                fail(transport_errc::certificate_unusable, pem.name);
            intermediate.release();  // the context's now
        }
        if (!ends_in_order()) fail(transport_errc::pem_invalid, pem.name);
    }

    void read_key(pem_source const& pem, std::string const& password) {
        bio_ptr const bio = pem.open();
        password_use use{&password, false};
        key_ptr const key{PEM_read_bio_PrivateKey(bio.get(), nullptr, give_password, &use)};
        if (!key) fail(use.asked ? transport_errc::private_key_password_wrong : transport_errc::pem_invalid, pem.name);
        use_key(key.get(), pem.name);
    }

    void use_key(EVP_PKEY* key, std::string const& name) {
        if (SSL_CTX_use_PrivateKey(context_.get(), key) == 1 && SSL_CTX_check_private_key(context_.get()) == 1) return;
        bool const other = ERR_GET_LIB(ERR_peek_last_error()) == ERR_LIB_X509;
        fail(other ? transport_errc::private_key_mismatch : transport_errc::private_key_unusable, name);
    }

    void set_pins(tls_options const& options) {
        for (std::string const& pin : options.pins) {
            auto bytes = digest::decode_base64(pin);
            if (!bytes || bytes->size() != 32) refuse("pins: '" + pin + "' is no SHA-256");
            pins_.push_back(std::move(*bytes));
        }
        // What would not be looked at is refused, so that nobody takes it for protection.
        if (options.verify == tls_verify::none_insecure && !options.pins.empty())
            refuse("pins beside tls_verify::none_insecure");
        if (options.verify == tls_verify::pinned_key && options.pins.empty())
            refuse("tls_verify::pinned_key without pins");
        if (!options.pins.empty()) SSL_CTX_set_cert_verify_callback(context_.get(), verify_pins, this);
    }

    static int verify_pins(X509_STORE_CTX* store, void* self) noexcept {
        auto const& own = *static_cast<tls_context_state const*>(self);
        auto const pinned = [&](X509* certificate) {
            return std::find(own.pins_.begin(), own.pins_.end(), public_key_sha256(certificate)) != own.pins_.end();
        };
        bool found = false;
        if (own.verify_ == tls_verify::pinned_key) {
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
            refuse("psk_identity has 1 to 255 bytes, no zeros");
        if (options.psk_key.size() < 16 || options.psk_key.size() > 64) refuse("psk_key has 16 to 64 bytes");
        SSL_CTX* const context = context_.get();
        psk_identity_ = options.psk_identity;
        psk_key_ = options.psk_key;
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
    static tls_context_state& state_of(SSL const* ssl) noexcept {
        return *static_cast<tls_context_state*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), state_index()));
    }

    static unsigned copy_key(tls_context_state const& own, unsigned char* key, unsigned capacity) noexcept {
        if (own.psk_key_.size() > capacity) return 0;
        std::memcpy(key, own.psk_key_.data(), own.psk_key_.size());
        return static_cast<unsigned>(own.psk_key_.size());
    }
    static unsigned give_psk(SSL* ssl, char const*, char* identity, unsigned identity_capacity, unsigned char* key,
                             unsigned capacity) noexcept {
        auto const& own = state_of(ssl);
        if (own.psk_identity_.size() >= identity_capacity) return 0;
        std::memcpy(identity, own.psk_identity_.c_str(), own.psk_identity_.size() + 1);
        return copy_key(own, key, capacity);
    }
    static unsigned find_psk(SSL* ssl, char const* identity, unsigned char* key, unsigned capacity) noexcept {
        auto const& own = state_of(ssl);
        return identity != nullptr && own.psk_identity_ == identity ? copy_key(own, key, capacity) : 0;
    }

    // A peer that shows a certificate does not know the key.
    static int refuse_certificates(X509_STORE_CTX* store, void*) noexcept {
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
        return 0;
    }

    void set_resumption(tls_options const& options) {
        SSL_CTX* const context = context_.get();
        if (options.resumption_limit.count() < 0 || options.resumption_limit > std::chrono::hours(7 * 24))
            refuse("resumption_limit is 0 s to 7 days");
        resumption_limit_ = options.resumption_limit;
        session_owner_index();  // what can fail comes first
        if (SSL_CTX_set_ex_data(context, state_index(), this) != 1) throw std::bad_alloc();
        if (options.require_client_certificate) SSL_CTX_set_session_ticket_cb(context, sign_ticket, judge_ticket, this);
        // With a pre-shared key nothing would be saved.
        if (options.resumable_sessions == 0 || has_pre_shared_key()) {
            SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
            return;
        }
        sessions_ = std::make_unique<tls_session_cache>(options.resumable_sessions, options.resumption_limit);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }

  public:
    /// When the peer's certificates were verified: in the handshake that is being done, or has just been, unless it
    /// resumed a session.
    static tls_verification const& verified(SSL* ssl, tls_session_owner& owner) noexcept {
        if (!owner.verified) owner.verified = SSL_session_reused(ssl) == 1 ? owner.resumable : verified_now(ssl);
        return *owner.verified;
    }

  private:
    // Where dates do not count, nothing expires.
    static tls_verification verified_now(SSL* ssl) noexcept {
        tls_verification made{.at = tls_moment::now()};
        auto const& own = state_of(ssl);
        if (own.verify_ == tls_verify::full) made.expires = own.until(ssl);
        return made;
    }

    // Until when the verification of the peer's chain holds.
    std::chrono::system_clock::time_point until(SSL* ssl) const noexcept {
        auto const end = first_expiry(SSL_get0_verified_chain(ssl));
        return checks_lists_ ? (std::min)(end, first_expiry_of_lists(ssl)) : end;
    }

    // The lists that are out of date already were not needed.
    std::chrono::system_clock::time_point first_expiry_of_lists(SSL* ssl) const noexcept {
        auto first = (std::chrono::system_clock::time_point::max)();
        X509_STORE* store = nullptr;
        SSL_ctrl(ssl, SSL_CTRL_GET_VERIFY_CERT_STORE, 0, &store);
        if (store == nullptr) store = SSL_CTX_get_cert_store(context_.get());
        if (X509_STORE_lock(store) != 1) return {};
        STACK_OF(X509_OBJECT)* const all = X509_STORE_get0_objects(store);
        for (int i = 0; i < sk_X509_OBJECT_num(all); ++i) {
            X509_CRL* const list = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(all, i));
            ASN1_TIME const* const next = list != nullptr ? X509_CRL_get0_nextUpdate(list) : nullptr;
            if (next == nullptr) continue;
            auto const end = time_of(next);
            if (end > std::chrono::system_clock::now()) first = (std::min)(first, end);
        }
        X509_STORE_unlock(store);
        return first;
    }

    static std::chrono::system_clock::time_point first_expiry(STACK_OF(X509) * chain) noexcept {
        auto first = (std::chrono::system_clock::time_point::max)();
        for (int i = 0; i < sk_X509_num(chain); ++i)  // none: -1
            first = (std::min)(first, time_of(X509_get0_notAfter(sk_X509_value(chain, i))));
        return first;
    }

    static int keep_session(SSL* ssl, SSL_SESSION* session) noexcept {
        auto* const owner = static_cast<tls_session_owner*>(SSL_get_ex_data(ssl, session_owner_index()));
        try {
            if (owner != nullptr) state_of(ssl).sessions_->put(owner->server, session, verified(ssl, *owner));
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
                               system_clock::to_time_t(state_of(ssl).until(ssl))};
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
                          now - note[0] < static_cast<tls_context_state const*>(self)->resumption_limit_.count();
        if (!good) return SSL_TICKET_RETURN_IGNORE_RENEW;
        return renews ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_USE;
    }

    void set_alpn(std::vector<std::string> const& names) {
        for (std::string const& name : names) {
            if (name.empty() || name.size() > 255) refuse("alpn: a name has 1 to 255 bytes");
            alpn_ += static_cast<char>(static_cast<unsigned char>(name.size()));
            alpn_ += name;
        }
        if (names.empty()) return;
        auto const wire = reinterpret_cast<unsigned char const*>(alpn_.data());
        auto const size = static_cast<unsigned>(alpn_.size());
        // Alone among its kin, this function returns 0 for success.
        if (SSL_CTX_set_alpn_protos(context_.get(), wire, size) != 0) fail(transport_errc::tls_option_invalid, "alpn");
        SSL_CTX_set_alpn_select_cb(context_.get(), select_alpn, this);
    }

    static int select_alpn(SSL*, unsigned char const** out, unsigned char* out_size, unsigned char const* in,
                           unsigned in_size, void* self) {
        auto const& own = static_cast<tls_context_state const*>(self)->alpn_;
        unsigned char* chosen = nullptr;
        if (SSL_select_next_proto(&chosen, out_size, reinterpret_cast<unsigned char const*>(own.data()),
                                  static_cast<unsigned>(own.size()), in, in_size) != OPENSSL_NPN_NEGOTIATED)
            return SSL_TLSEXT_ERR_ALERT_FATAL;
        *out = chosen;
        return SSL_TLSEXT_ERR_OK;
    }

    std::vector<std::string> pins_{};  // as bytes
    std::string psk_identity_{};
    secret_string psk_key_{};
    std::unique_ptr<tls_session_cache> sessions_{};
    context_ptr context_{SSL_CTX_new(TLS_method())};
    bool reads_directory_ = false;  // of authorities, as they are needed
    std::string directory_{};       // empty: the system's
    std::vector<X509*> read_authorities_{};
    std::vector<X509_CRL*> read_lists_{};
    mutable std::atomic<bool> is_in_doubt_{false};
    mutable std::mutex doubts_{};
    mutable store_ptr anew_{};  // for handshakes, since the last doubt; made when it is needed
    std::string alpn_{};        // in the form of the wire: each name behind its length
    tls_verify verify_ = tls_verify::full;
    bool require_client_certificate_ = false;
    bool accept_common_name_ = false;
    bool checks_lists_ = false;
    std::shared_ptr<tls_status_check const> status_check_{};
    std::optional<tls_key_log> key_log_{};
    std::chrono::seconds resumption_limit_{};
};

}  // namespace runnel::detail
