#pragma once

#include <runnel/core/authority.hpp>
#include <runnel/core/receive_buffer.hpp>
#include <runnel/core/send_buffer.hpp>
#include <runnel/transport/lasting_error.hpp>
#include <runnel/transport/tls/context.hpp>

#include <openssl/x509v3.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>

namespace runnel::detail {

/// One TLS connection without I/O: encrypted bytes go in through `incoming` and come out through `outgoing`, of which
/// OpenSSL reads and to which it writes directly, without BIO pairs and their copies.
///
/// Its driver gives it what it reads, sends what it finds in `outgoing` after any call, and calls it from one thread.
class tls_engine {
  public:
    enum class progress { done, needs_input, failed };

    /// `server_name`: what a client connects to, a host name or an address; it is sent to the server (SNI, names only)
    /// and the certificate is checked against it. `headroom`: that of the stream below.
    tls_engine(tls_context const& context, tls_role role, std::string_view server_name, std::size_t headroom)
        : outgoing(headroom),
          context_(context.current()),
          handle_(SSL_new(context_->native_handle())),
          ssl_(handle_.get()) {
        BIO* const bio = ssl_ != nullptr ? BIO_new(method()) : nullptr;
        if (bio == nullptr) throw std::bad_alloc();
        BIO_set_data(bio, this);
        BIO_set_init(bio, 1);
        SSL_set_bio(ssl_, bio, bio);
        context_->prepare(ssl_);
        if (role == tls_role::client)
            become_client(std::string(server_name));
        else
            become_server();
    }
    tls_engine(tls_engine const&) = delete;
    tls_engine& operator=(tls_engine const&) = delete;

    /// Encrypted bytes from the peer: the driver prepares and commits.
    receive_buffer incoming{};
    /// Encrypted bytes for the peer: the driver sends and clears.
    send_buffer outgoing;

    /// Goes on with the handshake as far as `incoming` allows.
    progress handshake() {
        if (failure_) return progress::failed;
        ERR_clear_error();
        int const result = SSL_do_handshake(ssl_);
        if (result == 1) {
            shaken_hands_ = true;
            keep_session();
            context_->settle(ssl_);
            return progress::done;
        }
        if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return progress::needs_input;
        fail();
        return progress::failed;
    }

    /// Decrypts what there is of `incoming` to at most `size` bytes at `out`; returns how many. 0: more input is
    /// needed, or the end is reached (see `failure`), or `incoming` is left because there are `max_answers` in
    /// `outgoing`, which are to be sent first.
    std::size_t decrypt(char* out, std::size_t size) {
        decrypting_ = true;
        std::size_t const total = decrypt_some(out, size);
        decrypting_ = false;
        return total;
    }

    /// Encrypts the first bytes of `out`, at most `slice`, to `outgoing` and drops them from `out`. False if the
    /// connection no longer can.
    bool encrypt(send_buffer& out) {
        ERR_clear_error();
        std::size_t n = 0;
        if (SSL_write_ex(ssl_, out.data(), (std::min)(out.size(), slice), &n) != 1) {
            write_failure_ = take_tls_error(ssl_);
            return false;
        }
        out.consume(n);
        return true;
    }

    /// Puts close_notify into `outgoing`; no effect before the end of the handshake or after a failure.
    void close() {
        ERR_clear_error();
        if (SSL_is_init_finished(ssl_) == 1) SSL_shutdown(ssl_);
        ERR_clear_error();
    }

    /// The peer's bytes have ended. Without a close_notify before, somebody may have cut them off.
    void input_ended() {
        if (!closed_by_peer_ && !failure_) failure_ = {transport_errc::stream_truncated, {}};
    }

    /// Looks for an alert in `incoming`, without taking plain bytes: true if there is a failure now, or nothing more to
    /// come. False: it may be in bytes that have not come yet. For when nothing more can be sent: answers are dropped.
    bool find_alert() {
        outgoing.clear();
        if (failure_ || closed_by_peer_) return true;
        ERR_clear_error();
        char ignored = 0;
        std::size_t n = 0;
        int const result = SSL_peek_ex(ssl_, &ignored, 1, &n);
        if (result == 1) return true;  // plain bytes are before it, which are not for us
        if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return false;
        if (SSL_get_error(ssl_, result) == SSL_ERROR_ZERO_RETURN)
            closed_by_peer_ = true;
        else
            fail();
        return true;
    }

    /// Whether a session of before was resumed, so that no certificates were exchanged.
    bool resumed() const noexcept { return !context_->has_pre_shared_key() && SSL_session_reused(ssl_) == 1; }

    /// Whether the peer has ended its bytes in good order (close_notify).
    bool closed_by_peer() const noexcept { return closed_by_peer_; }
    /// Why nothing more can be read, if something has gone wrong.
    tls_failure const& failure() const noexcept { return failure_; }
    /// Why `encrypt` returned false.
    tls_failure const& write_failure() const noexcept { return write_failure_; }

    SSL* native_handle() const noexcept { return ssl_; }

    /// Plain bytes encrypted at once at most: four records, so that a large message is not held twice as a whole.
    static constexpr std::size_t slice = 64 * 1024;
    /// So many bytes of answers to what the peer asks for (key updates, new handshakes) may wait to be sent, and those
    /// to one record more: a peer that does not take them is not read from any further.
    static constexpr std::size_t max_answers = 4 * 1024;
    bool has_many_answers() const noexcept { return outgoing.size() >= max_answers; }

  private:
    std::size_t decrypt_some(char* out, std::size_t size) {
        std::size_t total = 0;
        while (total < size && !closed_by_peer_ && !failure_) {
            ERR_clear_error();
            std::size_t n = 0;
            int const result = SSL_read_ex(ssl_, out + total, size - total, &n);
            total += n;
            if (result == 1) {
                // Saves the call that would only say that nothing is left.
                if (incoming.empty() && SSL_has_pending(ssl_) == 0) break;
                continue;
            }
            switch (SSL_get_error(ssl_, result)) {
                case SSL_ERROR_WANT_READ: return total;
                case SSL_ERROR_ZERO_RETURN: closed_by_peer_ = true; return total;
                default: fail();
            }
        }
        return total;
    }

    void become_client(std::string name) {
        SSL_set_connect_state(ssl_);
        if (name.ends_with('.')) name.pop_back();  // a fully qualified name; certificates have no final dot
        bool const verify = context_->verify() != tls_verify::none_insecure || context_->has_pre_shared_key();
        SSL_set_verify(ssl_, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, look_at_failure);
        X509_VERIFY_PARAM* const param = SSL_get0_param(ssl_);
        bool const is_host = may_be_host(name);
        bool const address = is_host && X509_VERIFY_PARAM_set1_ip_asc(param, name.c_str()) == 1;
        bool accepted = address;
        if (!address && is_host) {
            unsigned const subject = context_->accepts_common_name() ? 0 : X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
            X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | subject);
            // SNI is for names only (RFC 6066 3). This is SSL_set_tlsext_host_name without that macro's C cast.
            accepted = X509_VERIFY_PARAM_set1_host(param, name.data(), name.size()) == 1 &&
                       SSL_ctrl(ssl_, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) == 1;
        }
        bool const no_memory = !accepted && ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE;
        ERR_clear_error();
        bool const needs_name = context_->verify() == tls_verify::full && !context_->has_pre_shared_key();
        if (no_memory)
            failure_ = {std::make_error_code(std::errc::not_enough_memory), {}};
        else if (needs_name && !accepted)
            failure_ = {transport_errc::host_name_missing, name};
        if (auto* const sessions = context_->sessions()) {
            owner_.server = std::move(name);
            // Without memory for that, no session is kept.
            SSL_set_ex_data(ssl_, tls_context_state::session_owner_index(), &owner_);
            auto const kept = sessions->take(owner_.server);
            owner_.resumable = kept.verified;
            if (kept.session) SSL_set_session(ssl_, kept.session.get());
        }
    }

    // A certificate for another host is told from one that is for none, and what is trusted for itself may be in no
    // list: the trust anchor is no part of the path (RFC 5280 6.1).
    static int look_at_failure(int accepted, X509_STORE_CTX* store) noexcept {
        if (accepted == 1) return 1;
        int const error = X509_STORE_CTX_get_error(store);
        if (error == X509_V_ERR_UNABLE_TO_GET_CRL || error == X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER ||
            error == X509_V_ERR_CRL_SIGNATURE_FAILURE) {
            int const depth = X509_STORE_CTX_get_error_depth(store);
            bool const is_anchor = depth > 0 && depth + 1 == sk_X509_num(X509_STORE_CTX_get0_chain(store));
            if (is_anchor) X509_STORE_CTX_set_error(store, X509_V_OK);
            return is_anchor ? 1 : 0;
        }
        bool const mismatch = error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH;
        if (mismatch && X509_get_ext_by_NID(X509_STORE_CTX_get0_cert(store), NID_subject_alt_name, -1) < 0)
            X509_STORE_CTX_set_error(store, certificate_without_names_error);
        return 0;
    }

    // A session of TLS 1.2 stays good when it has been resumed; of TLS 1.3 the server sends new ones.
    void keep_session() {
        if (owner_.server.empty()) return;
        auto const& verified = tls_context_state::verified(ssl_, owner_);
        if (resumed() && SSL_version(ssl_) < TLS1_3_VERSION)
            context_->sessions()->put(owner_.server, SSL_get0_session(ssl_), verified);
    }

    void become_server() {
        SSL_set_accept_state(ssl_);
        bool const ask = context_->requires_client_certificate();
        // Without one OpenSSL refuses to resume a session whose client has shown a certificate.
        static constexpr unsigned char id_context[] = "runnel";
        if (ask) SSL_set_session_id_context(ssl_, id_context, sizeof(id_context) - 1);
        SSL_set_verify(ssl_, ask ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_NONE,
                       look_at_failure);
    }

    void fail() {
        if (!shaken_hands_ && (SSL_get_verify_result(ssl_) != X509_V_OK || is_own_chain_refused())) context_->doubt();
        failure_ =
            out_of_memory_ ? tls_failure{std::make_error_code(std::errc::not_enough_memory), {}} : take_tls_error(ssl_);
        // With a wrong key the handshake itself comes out wrong, of which each version of TLS has its own words.
        if (!shaken_hands_ && context_->has_pre_shared_key() && is_refusal_of_key(failure_.code))
            failure_.code = transport_errc::pre_shared_key_refused;
        // A handshake of TLS 1.2 is over for both sides at once (of TLS 1.3 sooner for the client): what comes later
        // does not refuse it, but ends this connection, as when the peer's wish for another handshake was not granted.
        bool const over_for_both = shaken_hands_ && SSL_version(ssl_) < TLS1_3_VERSION;
        if (over_for_both && is_lasting_error(failure_.code)) failure_.code = transport_errc::tls_protocol_error;
    }

    // By OpenSSL, for what it has read of an authority.
    static bool is_own_chain_refused() noexcept {
        int const reason = ERR_GET_REASON(ERR_peek_last_error());
        return reason == SSL_R_CA_KEY_TOO_SMALL || reason == SSL_R_CA_MD_TOO_WEAK;
    }

    static bool is_refusal_of_key(std::error_code const& code) noexcept {
        return code == transport_errc::tls_protocol_error || code == transport_errc::handshake_refused ||
               code == transport_errc::certificate_invalid || code == transport_errc::no_common_cipher;
    }

    static tls_engine& self(BIO* bio) { return *static_cast<tls_engine*>(BIO_get_data(bio)); }

    static int take_input(BIO* bio, char* out, int size) {
        auto& engine = self(bio);
        auto& in = engine.incoming;
        BIO_clear_retry_flags(bio);
        if (in.empty() || (engine.decrypting_ && engine.has_many_answers())) {
            BIO_set_retry_read(bio);
            return -1;
        }
        std::size_t const n = (std::min)(in.data().size(), static_cast<std::size_t>(size));
        std::memcpy(out, in.data().data(), n);
        in.consume(n);
        return static_cast<int>(n);
    }

    static int put_output(BIO* bio, char const* bytes, int size) {
        auto& engine = self(bio);
        BIO_clear_retry_flags(bio);
        try {
            engine.outgoing.append({bytes, static_cast<std::size_t>(size)});
        } catch (...) {  // no exception may pass through OpenSSL
            engine.out_of_memory_ = true;
            return -1;
        }
        return size;
    }

    static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

    // Made once; OpenSSL needs it as long as there are BIOs, so it is never freed.
    static BIO_METHOD* method() {
        static BIO_METHOD* const made = [] {
            BIO_METHOD* const m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "runnel buffers");
            if (m == nullptr) throw std::bad_alloc();
            BIO_meth_set_read(m, take_input);
            BIO_meth_set_write(m, put_output);
            BIO_meth_set_ctrl(m, control);
            return m;
        }();
        return made;
    }

    struct freer {
        void operator()(SSL* s) const noexcept { SSL_free(s); }
    };

    std::shared_ptr<tls_context_state const> context_;
    tls_session_owner owner_{};  // a client's, if sessions are kept
    std::unique_ptr<SSL, freer> handle_;
    SSL* ssl_;
    tls_failure failure_{};
    tls_failure write_failure_{};
    bool shaken_hands_ = false;  // what OpenSSL says of it changes with a failure
    bool closed_by_peer_ = false;
    bool decrypting_ = false;
    bool out_of_memory_ = false;
};

}  // namespace runnel::detail
