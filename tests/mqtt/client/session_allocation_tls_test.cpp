#include <runnel/mqtt/client/session.hpp>
#include <runnel/testing/certificate.hpp>
#include <runnel/testing/over_tls.hpp>
#include <runnel/transport/tcp.hpp>
#include <runnel/transport/tls/tls.hpp>

#include <doctest/doctest.h>

#include "support/allocation_trial.hpp"
#include "support/openssl_memory.hpp"

// A session over TLS in which the n-th allocation of OpenSSL's fails: of a conversation of every kind of exchange, over
// several connections.

TEST_CASE(
    "whichever allocation of OpenSSL's fails, the session goes on or run ends with it, and what is promised is kept") {
    using transport = runnel::tls<runnel::tcp>;
    REQUIRE(test::watches_openssl);
    runnel::testing::certificate_authority const authority;
    runnel::testing::over_tls const layer(authority);
    auto const reach = [&](runnel::testing::broker& to, asio::io_context&) {
        runnel::tls_options options;
        options.ca_pem = authority.certificate_pem();
        return transport{.host = "localhost", .port = to.listen(layer), .context = runnel::tls_context(options)};
    };
    auto const all = test::fail_each_allocation<transport>(runnel::mqtt::protocol_version::v5, test::allocator::library,
                                                           reach, test::every(20) * 7);
    MESSAGE(all.count << " failed: " << all.ended << " have ended run, " << all.escaped << " have left the context, "
                      << all.terminated << " have ended the program");
    CHECK(all.count > 10);
    CHECK(all.escaped + all.terminated == 0);
    CHECK(all.wrong == 0);
}
