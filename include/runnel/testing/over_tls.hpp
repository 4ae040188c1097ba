#pragma once

#include <runnel/testing/certificate.hpp>
#include <runnel/transport/stream.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <string>
#include <utility>

namespace runnel::testing {

/// Lets a broker listen with TLS:
///
///     runnel::testing::certificate_authority authority;  // clients trust its certificate_pem()
///     std::uint16_t port = broker.listen(runnel::testing::over_tls(authority));
class over_tls {
  public:
    static constexpr bool secure = true;

    /// With a server's context of your own.
    explicit over_tls(tls_context context) : context_(std::move(context)) {}

    /// With a fresh certificate for localhost, 127.0.0.1 and ::1.
    explicit over_tls(certificate_authority const& authority) : over_tls(make_context(authority.issue_server())) {}

    std::string name() const { return "tls"; }

    /// Performs the server's part of the handshake.
    template <stream S>
    asio::awaitable<tls_stream<S>, typename S::executor_type> open(S connection) const {
        tls_stream<S> opened(std::move(connection), context_, tls_role::server);
        auto shaking_hands = opened.handshake();
        co_await std::move(shaking_hands);
        co_return std::move(opened);
    }

  private:
    static tls_context make_context(identity const& own) {
        tls_options options;
        options.certificate_pem = own.certificate_pem;
        options.private_key_pem = own.private_key_pem;
        return tls_context(options);
    }

    // While a coroutine is suspended, nobody writes this: each connection has a copy of the layer.
    tls_context context_;
};

}  // namespace runnel::testing
