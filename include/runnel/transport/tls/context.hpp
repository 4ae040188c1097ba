#pragma once

#include <runnel/transport/tls/detail/context_state.hpp>
#include <runnel/transport/tls/options.hpp>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>

namespace runnel {

/// What connections have in common: trust, identity, protocol settings. A value: copies share one OpenSSL context and
/// are equal. Used by clients and servers alike, by any number of connections, and by several threads at once.
class tls_context {
  public:
    /// The defaults: the system's authorities, full verification. Made once and shared.
    tls_context() {
        static tls_context const defaults(std::make_shared<slot>(tls_options{}, true));
        slot_ = defaults.slot_;
    }

    /// Reads all files at once. Throws `std::system_error` with a `transport_errc` and a text that names the file and
    /// gives OpenSSL's reason.
    explicit tls_context(tls_options const& options) : tls_context(std::make_shared<slot>(options, false)) {}

    /// Exchanges all settings for others, in all copies, those in sessions and listeners among them: a certificate and
    /// its key that have been renewed, revocation lists, trust. Reads all files, also those whose names are the same.
    ///
    /// Connections and handshakes that have begun go on as they were; each that begins later uses the new settings, so
    /// a session needs no end: its next attempt to connect does. TLS sessions of before are not resumed: peers are
    /// verified anew.
    ///
    /// From any thread, while others connect; files are read in the caller's. Throws as the constructor does, and then
    /// nothing has changed; `std::logic_error` for a copy of the default context, which is everybody's.
    void replace(tls_options const& options) {
        if (slot_->is_default) throw std::logic_error("the default TLS context cannot be replaced: make one");
        auto made = std::make_shared<state const>(options);
        std::lock_guard const lock(slot_->mutex);
        slot_->now.swap(made);  // the old one goes without the lock, if nobody uses it
    }

    /// What a connection that begins now uses.
    std::shared_ptr<detail::tls_context_state const> current() const {
        std::lock_guard const lock(slot_->mutex);
        return slot_->now;
    }

    tls_verify verify() const { return current()->verify(); }
    bool requires_client_certificate() const { return current()->requires_client_certificate(); }
    /// Whether peers are authenticated by a pre-shared key.
    bool has_pre_shared_key() const { return current()->has_pre_shared_key(); }
    /// The sessions that clients may resume; null if none are kept. Until `replace`.
    detail::tls_session_cache* sessions() const { return current()->sessions(); }
    /// Until `replace`.
    SSL_CTX* native_handle() const { return current()->native_handle(); }

    friend bool operator==(tls_context const&, tls_context const&) noexcept = default;

  private:
    using state = detail::tls_context_state;

    struct slot {
        slot(tls_options const& options, bool is_everybodys)
            : is_default(is_everybodys), now(std::make_shared<state const>(options)) {}

        bool const is_default;
        std::mutex mutex{};
        std::shared_ptr<state const> now;
    };

    explicit tls_context(std::shared_ptr<slot> s) : slot_(std::move(s)) {}

    std::shared_ptr<slot> slot_{};
};

}  // namespace runnel
