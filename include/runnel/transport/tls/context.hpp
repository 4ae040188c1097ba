#pragma once

#include <runnel/transport/tls/detail/context_state.hpp>
#include <runnel/transport/tls/options.hpp>

#include <memory>

namespace runnel {

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
    explicit tls_context(tls_options const& options) : state_(std::make_shared<state>(options)) {}

    tls_verify verify() const noexcept { return state_->verify(); }
    bool requires_client_certificate() const noexcept { return state_->requires_client_certificate(); }
    /// Whether peers are authenticated by a pre-shared key.
    bool has_pre_shared_key() const noexcept { return state_->has_pre_shared_key(); }
    /// The sessions that clients may resume; null if none are kept.
    detail::tls_session_cache* sessions() const noexcept { return state_->sessions(); }
    SSL_CTX* native_handle() const noexcept { return state_->native_handle(); }
    /// What a connection that begins now uses.
    std::shared_ptr<detail::tls_context_state const> current() const noexcept { return state_; }

    friend bool operator==(tls_context const&, tls_context const&) noexcept = default;

  private:
    using state = detail::tls_context_state;

    std::shared_ptr<state const> state_;
};

}  // namespace runnel
