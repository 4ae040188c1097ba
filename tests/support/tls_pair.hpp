#pragma once

#include <runnel/testing/certificate.hpp>
#include <runnel/transport/memory.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/run.hpp"
#include <optional>
#include <string>
#include <string_view>

namespace test {

using tls_stream = runnel::tls_stream<runnel::memory_stream<>>;

/// Making keys takes time, so all tests share one authority.
inline runnel::testing::certificate_authority const& authority() {
    static runnel::testing::certificate_authority const ca;
    return ca;
}

inline runnel::tls_options server_options(runnel::testing::identity const& own) {
    runnel::tls_options options;
    options.certificate_pem = own.certificate_pem;
    options.private_key_pem = own.private_key_pem;
    return options;
}

inline runnel::tls_options server_options() {
    static runnel::testing::identity const own = authority().issue_server();
    return server_options(own);
}

inline runnel::tls_options client_options() {
    runnel::tls_options options;
    options.ca_pem = authority().certificate_pem();
    return options;
}

inline asio::awaitable<void> shake_hands(tls_stream& stream) { co_await stream.handshake(); }

/// Both ends of a TLS connection over memory, before the handshake.
struct tls_pair {
    explicit tls_pair(runnel::tls_options const& client_settings = client_options(),
                      runnel::tls_options const& server_settings = server_options(),
                      std::string_view name = "localhost")
        : tls_pair(runnel::tls_context(client_settings), runnel::tls_context(server_settings), name) {}
    tls_pair(runnel::tls_context const& client_context, runnel::tls_context const& server_context,
             std::string_view name = "localhost") {
        auto ends = runnel::memory_stream<>::pair(io.get_executor());
        client.emplace(std::move(ends.first), client_context, runnel::tls_role::client, name);
        server.emplace(std::move(ends.second), server_context, runnel::tls_role::server);
    }

    struct outcome {
        std::error_code client;
        std::error_code server;
        std::string text;  // the client's
    };

    outcome handshake() {
        task at_client(io, shake_hands(*client));
        task at_server(io, shake_hands(*server));
        outcome result;
        result.client = at_client.run_for_error();
        // A server does not hear of it when a client vanishes.
        if (result.client && !at_server.done()) client->next_layer().cut();
        result.server = at_server.run_for_error();
        result.text = at_client.error_text();
        return result;
    }

    void connect() {
        auto const result = handshake();
        REQUIRE_FALSE(result.client);
        REQUIRE_FALSE(result.server);
    }

    asio::io_context io;
    std::optional<tls_stream> client;
    std::optional<tls_stream> server;
};

}  // namespace test
